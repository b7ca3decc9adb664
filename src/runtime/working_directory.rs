//! `working_directory`: where the process is, and so where its core goes.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

/// Where the process was started, and whether it has gone elsewhere.
#[derive(Debug)]
pub(super) struct WorkingDirectory {
    /// `None` if that folder is gone.
    started_in: Option<PathBuf>,
    /// What was asked for last.
    entered: Option<PathBuf>,
}

impl Default for WorkingDirectory {
    /// Of a process that is where it was started.
    fn default() -> Self {
        Self {
            started_in: env::current_dir().ok(),
            entered: None,
        }
    }
}

impl WorkingDirectory {
    /// Where relative arguments of the command line lead to.
    pub(super) fn started_in(&self) -> Option<&Path> {
        self.started_in.as_deref()
    }

    /// Goes to this folder, relative to where the process was started, or back
    /// there.
    ///
    /// # Errors
    /// The folder cannot be entered; with its path.
    pub(super) fn enter(&mut self, wanted: Option<&Path>) -> Result<(), (PathBuf, io::Error)> {
        if self.entered.as_deref() == wanted {
            return Ok(());
        }
        let start = self.started_in().unwrap_or(Path::new(""));
        let folder = start.join(wanted.unwrap_or(Path::new("")));
        if let Err(error) = env::set_current_dir(&folder) {
            return Err((folder, error));
        }
        self.entered = wanted.map(Path::to_path_buf);
        Ok(())
    }
}
