//! The binary: arguments → load → run → exit code.

use std::io::{self, Write};
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
        // A reader that closes the pipe early has had enough.
        let _ = io::stdout().write_all(config::directives::reference().as_bytes());
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
    let mut text = format!("ringwall version: ringwall/{}\n", env!("CARGO_PKG_VERSION"));
    if capabilities {
        text += &format!("built with {}\n", tls::LIBRARY);
        text += "TLS SNI support enabled\n";
        text += "TLS 1.2, TLS 1.3; X25519MLKEM768, X25519, P-256, P-384\n";
        text += &match probe::choose(config::EventMethod::Auto) {
            (driver, None) => format!("{driver}\n"),
            (driver, Some(refusal)) => {
                format!("{driver} (io_uring is refused by this system: {refusal})\n")
            }
        };
    }
    let _ = io::stderr().write_all(text.as_bytes());
}
