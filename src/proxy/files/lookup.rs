//! Opening and looking at files, on threads beside the workers.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, stat};
use rustix::io::{Errno, Result};

use crate::net::offload::offload;
use crate::net::spawner;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A device, a socket, a pipe.
    Other,
}

impl Kind {
    fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            _ => Self::Other,
        }
    }
}

/// What is known of something that was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) kind: Kind,
    /// By its owner.
    pub(crate) is_executable: bool,
}

/// An open file and what it was when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: std::fs::File,
    pub(super) kind: Kind,
    /// Bytes.
    pub(super) size: u64,
    /// Unix time, seconds.
    pub(super) modified: i64,
}

/// What becomes of symbolic links: `disable_symlinks`. The bytes are the
/// beginning of the path that is not checked.
#[derive(Debug, Clone)]
pub(super) enum Policy {
    Follow,
    Refuse(Vec<u8>),
    SameOwner(Vec<u8>),
}

/// What became of the search for an index file.
#[derive(Debug)]
pub(super) enum Index {
    /// The candidate at this position exists.
    Found(usize),
    /// The folder is there and none of them is.
    None,
    /// The candidate at this position, or the folder, cannot be had.
    Failed(usize, Errno),
}

/// Opens a file for reading.
///
/// # Errors
/// Whatever the system says; `ELOOP` for a link that is not allowed.
pub(super) async fn open(path: Vec<u8>, policy: Policy) -> Result<Opened> {
    let (again, policy_again) = (path.clone(), policy.clone());
    let opened = offload(move || open_now(&path, &policy))
        .await
        .unwrap_or_else(|error| Err(errno_of(&error)));
    if matches!(opened, Err(Errno::ACCESS)) && spawner::renew_after_denial() {
        // The folder may lead somewhere else since the thread was made.
        return offload(move || open_now(&again, &policy_again))
            .await
            .unwrap_or_else(|error| Err(errno_of(&error)));
    }
    opened
}

/// What a path leads to.
///
/// # Errors
/// As [`open`].
#[allow(dead_code, reason = "for `try_files`")]
pub(super) async fn probe(path: Vec<u8>, policy: Policy) -> Result<Probed> {
    offload(move || probe_now(&path, &policy))
        .await
        .unwrap_or_else(|error| Err(errno_of(&error)))
}

/// The first of these files that exists in this folder.
pub(super) async fn index(candidates: Vec<Vec<u8>>, folder: Vec<u8>, policy: Policy) -> Index {
    let search = move || {
        let mut folder_is_there = false;
        for (position, path) in candidates.iter().enumerate() {
            match probe_now(path, &policy) {
                Ok(_) => return Index::Found(position),
                Err(Errno::NOENT) => {}
                Err(errno) => return Index::Failed(position, errno),
            }
            // Asked once, and only where it matters, as Nginx does.
            if !folder_is_there {
                match probe_now(&folder, &policy) {
                    Ok(Probed {
                        kind: Kind::Folder, ..
                    }) => folder_is_there = true,
                    Ok(_) => return Index::Failed(position, Errno::NOTDIR),
                    Err(errno) => return Index::Failed(position, errno),
                }
            }
        }
        Index::None
    };
    offload(search)
        .await
        .unwrap_or_else(|error| Index::Failed(0, errno_of(&error)))
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::AGAIN)
}

/// Non-blocking, because opening a pipe would wait for its writer.
const READING: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

fn open_now(path: &[u8], policy: &Policy) -> Result<Opened> {
    let fd = match policy {
        Policy::Follow => openat(CWD, OsStr::from_bytes(path), READING, Mode::empty())?,
        Policy::Refuse(from) => walk(path, from, false, READING)?,
        Policy::SameOwner(from) => walk(path, from, true, READING)?,
    };
    let stat = fstat(&fd)?;
    Ok(Opened {
        kind: Kind::of(&stat),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: stat.st_mtime,
        file: fd.into(),
    })
}

fn probe_now(path: &[u8], policy: &Policy) -> Result<Probed> {
    let stat = match policy {
        Policy::Follow => stat(OsStr::from_bytes(path))?,
        Policy::Refuse(from) => fstat(walk(path, from, false, STEP)?)?,
        Policy::SameOwner(from) => fstat(walk(path, from, true, STEP)?)?,
    };
    Ok(Probed {
        kind: Kind::of(&stat),
        is_executable: Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR),
    })
}

/// To look at something, or to go through it, without opening it.
const STEP: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens a path segment by segment, so that no link on the way goes unseen and
/// none can be slipped in between looking and going.
fn walk(path: &[u8], from: &[u8], same_owner: bool, flags: OFlags) -> Result<OwnedFd> {
    let (start, rest) = match path.strip_prefix(from) {
        Some(rest) if !from.is_empty() => (from, rest),
        _ => (b"/".as_slice(), path),
    };
    let mut here = openat(
        CWD,
        Path::new(OsStr::from_bytes(start)),
        STEP,
        Mode::empty(),
    )?;
    let mut segments = rest
        .split(|byte| *byte == b'/')
        .filter(|segment| !segment.is_empty())
        .peekable();
    if segments.peek().is_none() {
        return openat(&here, ".", flags, Mode::empty());
    }
    while let Some(segment) = segments.next() {
        let name = OsStr::from_bytes(segment);
        let flags = if segments.peek().is_none() {
            flags
        } else {
            STEP | OFlags::DIRECTORY
        };
        let seen = openat(&here, name, STEP | OFlags::NOFOLLOW, Mode::empty())?;
        let link = fstat(&seen)?;
        here = if FileType::from_raw_mode(link.st_mode) != FileType::Symlink {
            openat(&here, name, flags | OFlags::NOFOLLOW, Mode::empty())?
        } else if same_owner {
            let target = openat(&here, name, flags, Mode::empty())?;
            if fstat(&target)?.st_uid != link.st_uid {
                return Err(Errno::LOOP);
            }
            target
        } else if segments.peek().is_none() {
            return Err(Errno::LOOP);
        } else {
            // What Nginx gets of Linux, and answers with 404.
            return Err(Errno::NOTDIR);
        };
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_seen_wherever_they_stand_in_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            folder
                .path()
                .join(name)
                .into_os_string()
                .into_encoded_bytes()
        };
        std::fs::create_dir_all(folder.path().join("real/deep")).unwrap();
        std::fs::write(folder.path().join("real/deep/file"), "x").unwrap();
        symlink("real", folder.path().join("link")).unwrap();
        symlink("file", folder.path().join("real/deep/alias")).unwrap();
        symlink("/etc/passwd", folder.path().join("real/foreign")).unwrap();
        let refuse = Policy::Refuse(Vec::new());
        let from_link = Policy::Refuse(at("link"));
        let owner = Policy::SameOwner(Vec::new());
        let kind = |name: &str, policy: &Policy| {
            let opened = open_now(&at(name), policy).map(|opened| opened.kind);
            let probed = probe_now(&at(name), policy).map(|probed| probed.kind);
            assert_eq!(opened, probed, "{name}");
            opened
        };
        assert_eq!(kind("real/deep/file", &refuse), Ok(Kind::File));
        assert_eq!(kind("real/deep/", &refuse), Ok(Kind::Folder));
        assert_eq!(kind("link/deep/file", &refuse), Err(Errno::NOTDIR));
        assert_eq!(kind("real/deep/alias", &refuse), Err(Errno::LOOP));
        assert_eq!(kind("link/deep/file", &Policy::Follow), Ok(Kind::File));
        assert_eq!(kind("link/deep/file", &from_link), Ok(Kind::File));
        assert_eq!(kind("link/deep/alias", &from_link), Err(Errno::LOOP));
        assert_eq!(kind("link/deep/alias", &owner), Ok(Kind::File));
        assert_eq!(kind("real/deep/none", &owner), Err(Errno::NOENT));
        assert_eq!(kind("real/deep/file/x", &refuse), Err(Errno::NOTDIR));
    }
}
