//! The binary: arguments → load → run → exit code.

use std::process::ExitCode;

use clap::Parser;
use ringwall::cli::{Cli, SubCommand};
use ringwall::runtime::{probe, process};
use ringwall::{config, demo, tls};

// Handshakes allocate some hundred small blocks each; mimalloc serves them
// from the worker's own pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version || cli.capabilities {
        print_version(cli.capabilities);
        return ExitCode::SUCCESS;
    }
    if cli.reference {
        print!("{}", config::directives::reference());
        return ExitCode::SUCCESS;
    }
    if let Some(SubCommand::Demo { port }) = cli.command {
        return demo::run(port);
    }
    let options = cli.load_options();
    match &cli.signal {
        Some(name) => process::signal(&options, name),
        None if cli.dump => process::dump(&options, cli.quiet),
        None if cli.test => process::test(&options, cli.quiet),
        None => process::run(options),
    }
}

fn print_version(capabilities: bool) {
    eprintln!("ringwall version: ringwall/{}", env!("CARGO_PKG_VERSION"));
    if capabilities {
        eprintln!("built with {}", tls::LIBRARY);
        eprintln!("TLS SNI support enabled");
        eprintln!("TLS 1.2, TLS 1.3; X25519MLKEM768, X25519, P-256, P-384");
        match probe::choose(config::EventMethod::Auto) {
            (driver, None) => eprintln!("{driver}"),
            (driver, Some(refusal)) => {
                eprintln!("{driver} (io_uring is refused by this system: {refusal})")
            }
        }
    }
}
