//! Hosts and ports as Nginx writes them (`ngx_parse_url`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::Builder;
use crate::config::model::UpstreamAddress;
use crate::config::source::path_of;
use crate::config::units;

/// Where to connect or listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A name or address, and a port where one is given. An IPv6 address keeps
    /// its brackets.
    Host { host: &'a str, port: Option<u16> },
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// A URL behind its scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) target: Target<'a>,
    /// From the first `/` or `?` on.
    pub(super) uri: Option<&'a [u8]>,
}

/// Parses `HOST[:PORT][URI]` or `unix:PATH[:URI]`; the error is Nginx's word
/// for it.
pub(super) fn parse(text: &[u8]) -> Result<Url<'_>, &'static str> {
    if let Some(rest) = strip_prefix_any_case(text, b"unix:") {
        let (path, uri) = match rest.iter().position(|&byte| byte == b':') {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err("no path in the unix domain socket");
        }
        // sun_path has 108 bytes, with a NUL behind the path.
        if path.len() > 107 {
            return Err("too long path in the unix domain socket");
        }
        return Ok(Url {
            target: Target::Unix(path_of(path).to_path_buf()),
            uri,
        });
    }
    let end = text
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(text.len());
    let (authority, uri) = text.split_at(end);
    let authority = std::str::from_utf8(authority).map_err(|_| "invalid host")?;
    let (host, port) = if authority.starts_with('[') {
        let close = authority.find(']').ok_or("invalid host")?;
        let (host, rest) = authority.split_at(close + 1);
        if host.len() == 2 {
            return Err("no host");
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err("invalid host"),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err("no host");
    }
    if host.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("invalid host");
    }
    let port = match port {
        Some(port) => Some(parse_port(port.as_bytes()).ok_or("invalid port")?),
        None => None,
    };
    Ok(Url {
        target: Target::Host { host, port },
        uri: (!uri.is_empty()).then_some(uri),
    })
}

/// A port number, which is never 0.
pub(super) fn parse_port(text: &[u8]) -> Option<u16> {
    units::number(text)
        .and_then(|port| port.try_into().ok())
        .filter(|&port| port != 0)
}

/// The address that a host is, when it is one.
pub(super) fn parse_address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6),
        None => host.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Every address of a host: itself, or what the resolver says; `None` when
/// there is none.
pub(super) fn resolve(builder: &Builder<'_>, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if let Some(address) = parse_address(host) {
        return Some(vec![SocketAddr::new(address, port)]);
    }
    if host.starts_with('[') {
        return None;
    }
    let addresses = builder.resolver.resolve(host, port).ok()?;
    (!addresses.is_empty()).then_some(addresses)
}

/// As [`resolve`], for a backend.
pub(super) fn resolve_target(
    builder: &Builder<'_>,
    target: &Target<'_>,
    default_port: u16,
) -> Option<Vec<UpstreamAddress>> {
    match target {
        Target::Unix(path) => Some(vec![UpstreamAddress::Unix(path.clone())]),
        Target::Host { host, port } => {
            let addresses = resolve(builder, host, port.unwrap_or(default_port))?;
            Some(addresses.into_iter().map(UpstreamAddress::Inet).collect())
        }
    }
}

/// Schemes and `unix:` are taken in any case.
pub(super) fn strip_prefix_any_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(host: &str, port: Option<u16>) -> Target<'_> {
        Target::Host { host, port }
    }

    #[test]
    fn a_url_splits_as_in_nginx() {
        for (text, target, uri) in [
            ("localhost", host("localhost", None), None),
            ("localhost:8080", host("localhost", Some(8080)), None),
            ("a:1/x:y", host("a", Some(1)), Some("/x:y")),
            ("a/b?c", host("a", None), Some("/b?c")),
            ("a?c", host("a", None), Some("?c")),
            ("[::1]:80/", host("[::1]", Some(80)), Some("/")),
            ("[::1]", host("[::1]", None), None),
            ("unix:/run/x.sock", Target::Unix("/run/x.sock".into()), None),
            (
                "unix:/run/x.sock:/a",
                Target::Unix("/run/x.sock".into()),
                Some("/a"),
            ),
        ] {
            let uri = uri.map(str::as_bytes);
            assert_eq!(parse(text.as_bytes()), Ok(Url { target, uri }), "{text}");
        }
        for (text, error) in [
            ("", "no host"),
            (":80", "no host"),
            ("/x", "no host"),
            ("a:0", "invalid port"),
            ("a:65536", "invalid port"),
            ("a:b", "invalid port"),
            ("a:", "invalid port"),
            ("[::1", "invalid host"),
            ("[::1]x", "invalid host"),
            ("[]", "no host"),
            ("a b", "invalid host"),
            ("unix:", "no path in the unix domain socket"),
            ("unix::/x", "no path in the unix domain socket"),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_url_is_too_odd_to_be_parsed(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&text);
        }
    }
}
