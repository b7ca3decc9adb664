//! The two ways in which a configuration reaches outside itself: files and
//! host names. Both are traits, so that tests and the fuzz target neither
//! touch the disk nor ask a name server.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where configuration files come from.
pub trait Source: fmt::Debug {
    /// The content of one file.
    ///
    /// # Errors
    /// Whatever the operating system says; it becomes part of the message.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The paths that a shell pattern (`*`, `?`, `[…]`) names, sorted. None is
    /// not an error.
    ///
    /// # Errors
    /// A malformed pattern or a folder that cannot be read.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>>;
}

/// Turns host names into addresses, once, while the configuration is loaded.
pub trait Resolver: fmt::Debug {
    /// Every address of a host, with the given port, in the order of preference.
    ///
    /// # Errors
    /// The host has no address, or nobody could be asked.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileSystem;

impl Source for FileSystem {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        // As glob(3) does by default: a leading dot must be written out, so that
        // an editor's swap files beside the configuration are not read.
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let pattern = pattern
            .to_str()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not UTF-8"))?;
        let paths = glob::glob_with(pattern, options)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut found = Vec::new();
        for path in paths {
            found.push(path.map_err(io::Error::from)?);
        }
        found.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        Ok(found)
    }
}

/// The system's resolver: `/etc/hosts`, then DNS, as `getaddrinfo` is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// A path from a directive's bytes, which need not be UTF-8.
pub(crate) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
pub(crate) mod memory {
    //! Files and hosts made up for a test.

    use std::collections::BTreeMap;

    use super::*;

    /// Files by path.
    #[derive(Debug, Default)]
    pub(crate) struct Files(pub(crate) BTreeMap<PathBuf, Vec<u8>>);

    impl Files {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            Self(
                files
                    .iter()
                    .map(|(name, text)| (name.into(), text.as_bytes().to_vec()))
                    .collect(),
            )
        }
    }

    impl Source for Files {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0
                .get(path)
                .cloned()
                .ok_or_else(|| io::Error::from_raw_os_error(2))
        }

        fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
            let pattern = glob::Pattern::new(&pattern.to_string_lossy())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            Ok(self
                .0
                .keys()
                .filter(|path| pattern.matches_path(path))
                .cloned()
                .collect())
        }
    }

    /// `localhost` as most systems have it, `backend`, and nobody else.
    #[derive(Debug, Default)]
    pub(crate) struct Hosts;

    impl Resolver for Hosts {
        fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            let addresses: &[&str] = match host {
                "localhost" => &["::1", "127.0.0.1"],
                "backend" => &["192.0.2.7"],
                _ => return Err(io::Error::other("no such host")),
            };
            Ok(addresses
                .iter()
                .filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, port)))
                .collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_sorted_and_leaves_hidden_files_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let found = FileSystem.glob(&folder.path().join("*.conf")).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.conf", "b.conf"]);
        assert_eq!(
            FileSystem
                .glob(&folder.path().join("*.none"))
                .unwrap()
                .len(),
            0
        );
    }
}
