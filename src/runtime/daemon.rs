//! Going into the background.
//!
//! Nginx forks. A process here starts itself anew instead, in a session of
//! its own, and waits until that one says that it is listening: keys are then
//! never in two processes, nothing that a fork would break can be broken, and
//! the exit code still tells whether the start succeeded.

use std::env;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

/// Set for the process in the background.
const MARK: &str = "RINGWALL_BACKGROUND";
/// What it says when it is ready.
const READY: &[u8] = b"ready\n";

/// Whether this process is the one in the background.
pub(super) fn is_background() -> bool {
    env::var_os(MARK).is_some()
}

/// Starts the background process and waits until it is ready or has failed;
/// its messages go to our standard error meanwhile.
///
/// # Errors
/// The program cannot be started.
pub(super) fn start() -> io::Result<ExitCode> {
    let mut child = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = Vec::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.take(READY.len() as u64).read_to_end(&mut said)?;
    }
    if said == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let code = child
        .wait()?
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code.max(1)))
}

/// Leaves the terminal's session. To be called first in the background.
pub(super) fn detach() {
    // Fails only for a process that leads a session already.
    let _ = rustix::process::setsid();
}

/// Tells the process that waits for us, and lets go of its descriptors.
///
/// # Errors
/// `/dev/null` cannot be opened.
pub(super) fn ready() -> io::Result<()> {
    // It may have been killed meanwhile, which is no reason to stop.
    let _ = io::stdout()
        .write_all(READY)
        .and_then(|()| io::stdout().flush());
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
