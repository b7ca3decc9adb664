//! Which files a configuration was built from, and whether they have changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files that were read, as they were when they were.
#[derive(Debug, Default)]
pub struct Watch {
    files: BTreeMap<PathBuf, Stamp>,
    /// What was seen last, if that was a change: is it over?
    unsettled: Option<Vec<Stamp>>,
}

/// What a look at the files shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// As they were.
    Unchanged,
    /// Something has changed since the last look; another look will tell
    /// whether it is still being written.
    Settling,
    /// What had changed at the last look has not changed further. Said once
    /// for each change, whatever becomes of it.
    Changed,
}

/// What tells one version of a file from another, through symbolic links: so
/// that a link, or a link to its folder, that points elsewhere is a change.
/// `None` for a file that is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
    ))
}

impl Watch {
    /// To be called before the file is read: what happens to it afterwards is
    /// then seen.
    pub(super) fn add(&mut self, path: &Path) {
        if !self.files.contains_key(path) {
            self.files.insert(path.to_owned(), stamp(path));
        }
    }

    /// Their paths.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Compares the files with what was seen before.
    pub fn look(&mut self) -> Sight {
        let now: Vec<Stamp> = self.files.keys().map(|path| stamp(path)).collect();
        if self.files.values().eq(&now) {
            self.unsettled = None;
            return Sight::Unchanged;
        }
        if self.unsettled.as_ref() != Some(&now) {
            self.unsettled = Some(now);
            return Sight::Settling;
        }
        self.unsettled = None;
        for (known, stamp) in self.files.values_mut().zip(now) {
            *known = stamp;
        }
        Sight::Changed
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_told_once_and_when_it_is_over() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("a");
        fs::write(&file, "1").expect("written");
        let mut watch = Watch::default();
        watch.add(&file);
        watch.add(&file);
        assert_eq!(watch.look(), Sight::Unchanged);
        fs::write(&file, "12").expect("written");
        assert_eq!(watch.look(), Sight::Settling);
        fs::write(&file, "123").expect("written");
        assert_eq!(watch.look(), Sight::Settling, "still being written");
        assert_eq!(watch.look(), Sight::Changed);
        assert_eq!(watch.look(), Sight::Unchanged);
        fs::remove_file(&file).expect("removed");
        assert_eq!(watch.look(), Sight::Settling);
        assert_eq!(watch.look(), Sight::Changed);
        assert_eq!(watch.look(), Sight::Unchanged);
    }

    #[test]
    fn a_folder_link_that_points_elsewhere_is_a_change() {
        let folder = tempfile::tempdir().expect("a directory");
        let at = |name: &str| folder.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("tls.crt"), "same").expect("written");
        }
        symlink("v1", at("data")).expect("linked");
        symlink("data/tls.crt", at("tls.crt")).expect("linked");
        let mut watch = Watch::default();
        watch.add(&at("tls.crt"));
        symlink("v2", at("new")).expect("linked");
        fs::rename(at("new"), at("data")).expect("swapped");
        assert_eq!(watch.look(), Sight::Settling);
        assert_eq!(watch.look(), Sight::Changed);
    }
}
