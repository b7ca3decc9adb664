//! Any bytes as a configuration: a [`Config`](ringwall::config::Config) or a
//! refusal with its place, never a panic, never a search without end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ringwall::config::{LoadOptions, Resolver, Source, parse_and_build};

pub(super) const MAIN: &str = "/etc/ringwall.conf";

/// Builds a configuration from `bytes`, and checks that a refusal points into
/// them.
pub fn config_file(bytes: &[u8]) {
    let options = LoadOptions::new(MAIN, "/");
    let Err(error) = parse_and_build(&OnlyFile(bytes), &OneHost, &options) else {
        return;
    };
    let text = error.to_string();
    assert!(!error.message.is_empty(), "a refusal without a reason");
    if let Some(position) = &error.position {
        let lines = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count();
        assert!(
            (1..=lines).contains(&(position.line as usize)),
            "{text}: there are {lines} lines"
        );
        assert_eq!(&*position.file, MAIN, "{text}");
    }
}

/// There is one file. What it includes cannot be read, and patterns match
/// nothing.
#[derive(Debug)]
pub(super) struct OnlyFile<'a>(pub(super) &'a [u8]);

impl Source for OnlyFile<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new(MAIN) {
            Ok(self.0.to_vec())
        } else {
            Err(io::Error::from(io::ErrorKind::NotFound))
        }
    }

    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

/// Every host is this one: name servers are not asked.
#[derive(Debug)]
pub(super) struct OneHost;

impl Resolver for OneHost {
    fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)])
    }
}
