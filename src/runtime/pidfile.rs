//! The file that tells `ringwall -s` whom to signal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// Written at start, removed at exit.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn write(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            // The folder of the default path may be missing; any other
            // trouble shows when the file is written.
            let _ = fs::create_dir_all(parent);
        }
        fs::write(path, format!("{}\n", std::process::id()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Only if it is still ours: another instance may have taken over.
        let ours = fs::read_to_string(&self.0)
            .is_ok_and(|text| text.trim() == std::process::id().to_string());
        // The user may own the file and not its folder.
        if ours && fs::remove_file(&self.0).is_err() {
            let _ = fs::write(&self.0, "");
        }
    }
}

/// Sends a signal to the process that the file names.
///
/// # Errors
/// In Nginx's words: the file cannot be read, holds no number, or no such
/// process can be signalled.
pub(super) fn signal(path: &Path, signal: Signal) -> Result<(), String> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| format!("open() \"{shown}\" failed ({})", describe(&error)))?;
    let pid = text
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| format!("invalid PID number \"{}\" in \"{shown}\"", text.trim()))?;
    kill_process(pid, signal).map_err(|error| {
        let error = io::Error::from(error);
        format!(
            "kill({pid}, {}) failed ({})",
            signal.as_raw(),
            describe(&error)
        )
    })
}

/// `2: No such file or directory`, as Nginx prints errors of the system.
pub(super) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    match error.raw_os_error() {
        Some(code) => format!("{code}: {text}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_goes_with_its_process_and_not_with_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        drop(PidFile::write(&path).unwrap());
        assert!(!path.exists());
        let ours = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[test]
    fn a_file_without_a_number_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        fs::write(&path, "abc").unwrap();
        let error = signal(&path, Signal::HUP).unwrap_err();
        assert!(error.contains("invalid PID number \"abc\""), "{error}");
        let missing = signal(&folder.path().join("none"), Signal::HUP).unwrap_err();
        assert!(
            missing.contains("(2: No such file or directory)"),
            "{missing}"
        );
    }
}
