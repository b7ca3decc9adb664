//! Names that are resolved while serving.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{UpstreamId, UpstreamPeer};

/// Index into [`Config::resolvers`](super::Config::resolvers).
pub type ResolverId = usize;

/// `resolver`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverSettings {
    /// The name servers; not empty.
    pub servers: Vec<SocketAddr>,
    /// `valid=`: how long an answer holds; by its own word if not given.
    pub valid: Option<Duration>,
    /// `ipv4=`. Default on.
    pub ipv4: bool,
    /// `ipv6=`. Default on.
    pub ipv6: bool,
}

/// The servers of an upstream that say `resolve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServers {
    /// In file order, never empty.
    pub servers: Vec<NamedServer>,
    /// Who is asked: `resolver` of the upstream, or else of `http`.
    pub resolver: ResolverId,
    /// `resolver_timeout`. Default 30 s.
    pub timeout: Duration,
}

/// `server NAME[:PORT] resolve`: its addresses are those that the name has at
/// the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// In lower case, without a dot at its end.
    pub name: Box<str>,
    /// Where its addresses listen; the servers of a service say so themselves.
    pub port: u16,
    /// `service=`: what its SRV records are asked for.
    pub service: Option<Box<str>>,
    /// What is said of each of its addresses; the address in it means nothing.
    pub template: UpstreamPeer,
}

/// The upstreams by what a URL with variables may call them.
#[derive(Debug, Default)]
pub struct UpstreamNames {
    /// `upstream` blocks, in lower case.
    pub blocks: HashMap<String, UpstreamId>,
    /// `HOST:PORT` and `unix:PATH` that some `proxy_pass` names without
    /// variables, in lower case.
    pub implicit: HashMap<String, UpstreamId>,
}

/// Where a URL leads that variables have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlTarget {
    /// An `upstream` block, or a host that was resolved at load.
    Upstream(UpstreamId),
    /// An address.
    Inet(SocketAddr),
    /// A socket.
    Unix(PathBuf),
    /// A name, in lower case, and a port.
    Name(String, u16),
}

/// A URL that variables have made, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedUrl {
    /// Where it leads.
    pub target: UrlTarget,
    /// `https://`.
    pub secure: bool,
    /// `$proxy_host`.
    pub host: Box<str>,
    /// `$proxy_port`; 0 for a UNIX socket.
    pub port: u16,
    /// From the first `/` or `?` on.
    pub uri: Option<Vec<u8>>,
}
