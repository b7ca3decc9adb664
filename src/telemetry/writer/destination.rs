//! Where a log's lines end up.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::super::syslog::{Sender, Syslog};
use super::{append, lock};

/// Files open at a time of those whose names requests make.
const MAX_COMPUTED: usize = 64;

/// Ends the path in front of a line for [`Destination::Computed`]; no path
/// holds it.
const PATH_END: u8 = 0;

#[derive(Debug)]
pub(super) enum Destination {
    File(PathBuf),
    Stderr,
    Syslog(Syslog, Mutex<Sender>),
    /// Each batch names its own file.
    Computed(Mutex<OpenFiles>),
}

impl Destination {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Stderr | Self::Syslog(..) | Self::Computed(_) => None,
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stderr => "stderr".to_owned(),
            Self::Syslog(syslog, _) => syslog.server.to_string(),
            Self::Computed(_) => "files named by requests".to_owned(),
        }
    }
}

/// A line for the file that its request names.
pub(super) fn computed_line(path: &[u8], line: &[u8], batch: &mut Vec<u8>) {
    batch.extend_from_slice(path);
    batch.push(PATH_END);
    batch.extend_from_slice(line);
}

/// Files whose names requests make, the most recently used last.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: Vec<(PathBuf, File)>,
}

impl OpenFiles {
    /// Writes what [`computed_line`] made.
    pub(super) fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let end = batch.iter().position(|byte| *byte == PATH_END);
        let (path, line) = batch.split_at(end.unwrap_or(0));
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let known = self.files.iter().position(|(known, _)| known == path);
        let (path, mut file) = match known {
            Some(index) => self.files.remove(index),
            None => (path.to_owned(), append(path)?),
        };
        let written = file.write_all(line.get(1..).unwrap_or_default());
        if self.files.len() >= MAX_COMPUTED {
            self.files.remove(0);
        }
        self.files.push((path, file));
        written
    }

    /// So that files that were renamed are made anew.
    pub(super) fn close(&mut self) {
        self.files.clear();
    }
}

/// As the writer thread does it. Errors come with how many lines they cost.
pub(super) fn write(
    destination: &Destination,
    file: Option<&mut File>,
    bytes: &[u8],
) -> Result<(), (u64, io::Error)> {
    let lines = || memchr::memchr_iter(b'\n', bytes).count() as u64;
    let written = match (destination, file) {
        (Destination::Syslog(syslog, sender), _) => {
            return lock(sender).send(&syslog.server, bytes);
        }
        (Destination::Computed(files), _) => lock(files).write(bytes),
        (_, Some(file)) => file.write_all(bytes),
        (_, None) => io::stderr().lock().write_all(bytes),
    };
    written.map_err(|error| (lines(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_files_that_they_name_and_few_stay_open() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = OpenFiles::default();
        let path = |n: usize| directory.path().join(format!("{n}.log"));
        for round in 0..2 {
            for n in 0..MAX_COMPUTED + 5 {
                let mut batch = Vec::new();
                let line = format!("{round}\n");
                computed_line(path(n).as_os_str().as_bytes(), line.as_bytes(), &mut batch);
                files.write(&batch).unwrap();
            }
        }
        assert_eq!(files.files.len(), MAX_COMPUTED);
        for n in 0..MAX_COMPUTED + 5 {
            assert_eq!(std::fs::read_to_string(path(n)).unwrap(), "0\n1\n");
        }
        let mut batch = Vec::new();
        computed_line(b"/nonexistent/a", b"x\n", &mut batch);
        assert!(files.write(&batch).is_err());
    }
}
