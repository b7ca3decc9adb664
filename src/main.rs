//! The binary: arguments → load → run → exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use ringwall::cli::{Cli, SubCommand};
use ringwall::runtime::process;
use ringwall::{config, demo};

// Handshakes allocate some hundred small blocks each; mimalloc serves them
// from the worker's own pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version || cli.capabilities {
        return process::version(cli.capabilities);
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
        None if cli.explain => process::explain(&options, cli.quiet),
        None if cli.test => process::test(&options, cli.quiet),
        None => process::run(&options),
    }
}
