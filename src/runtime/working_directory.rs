//! `working_directory`: where the process is, and so where its core goes.

use std::env;
use std::path::{Path, PathBuf};

use crate::config::Core;

use super::pidfile::describe;
use super::snapshot::Refusal;

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

    /// Goes where `working_directory` says, relative to where the process was
    /// started, or back there.
    ///
    /// # Errors
    /// The folder cannot be entered; the process is where it was.
    pub(super) fn enter(&mut self, core: &Core) -> Result<(), Refusal> {
        let wanted = core.working_directory.as_deref();
        if self.entered.as_deref() == wanted {
            return Ok(());
        }
        let start = self.started_in().unwrap_or(Path::new(""));
        let folder = start.join(wanted.unwrap_or(Path::new("")));
        env::set_current_dir(&folder).map_err(|error| {
            let (folder, reason) = (folder.display(), describe(&error));
            Refusal::new(format!("chdir() \"{folder}\" failed ({reason})"))
        })?;
        self.entered = wanted.map(Path::to_path_buf);
        Ok(())
    }
}
