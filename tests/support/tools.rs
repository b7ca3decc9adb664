//! Other people's programs: `curl`, `openssl`, Python, Node, Java. A tool that
//! is missing fails the test; what is not run is not proven.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a program said and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Whether it ended with 0.
    pub(crate) fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The standard output of a success.
    ///
    /// # Panics
    /// When it failed, with all that it said.
    pub(crate) fn expect_ok(self) -> String {
        assert!(self.ok(), "{self:#?}");
        self.stdout
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program in a directory, with nothing on its standard input, and ends
/// it after a minute.
pub(crate) fn run(dir: &Path, program: &str, arguments: &[&str]) -> Outcome {
    let child = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program} is needed by this test: {e}"));
    finish(child, program)
}

/// Python with the packages of `tests/requirements.txt`, from the virtual
/// environment that `.ci/run` makes; and what else is installed there.
pub(crate) fn python(program: &str) -> String {
    format!("{}/target/venv/bin/{program}", env!("CARGO_MANIFEST_DIR"))
}

/// A shell command line, for what an operator would type.
pub(crate) fn shell(dir: &Path, line: &str) -> Outcome {
    run(dir, "sh", &["-c", line])
}

/// Waits for a child with a deadline and gathers its output.
pub(crate) fn finish(child: Child, what: &str) -> Outcome {
    const LIMIT: Duration = Duration::from_secs(60);
    let pid = child.id();
    let (done, gathered) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let start = Instant::now();
    match gathered.recv_timeout(LIMIT) {
        Ok(output) => output.expect("its output can be read").into(),
        Err(_) => {
            super::ringwall::send_signal(pid, rustix::process::Signal::KILL);
            panic!("{what} did not end within {:?}", start.elapsed());
        }
    }
}

/// A child that is ended when the test is.
pub(crate) struct Background(Child);

impl Background {
    /// Starts a program whose output nobody reads.
    pub(crate) fn start(dir: &Path, program: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} is needed by this test: {e}"));
        Self(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail only where the child has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
