//! What a gateway to other people's APIs adds: CORS, health, the JSON relay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex::bytes::Regex;

use super::{Proxy, UpstreamId};

/// The `cors_*` directives of a location that says which origins may call it.
#[derive(Debug, Clone)]
pub struct Cors {
    /// `cors_allow_origin`, at least one.
    pub origins: Vec<CorsOrigin>,
    /// `cors_allow_methods`, ready to be sent.
    pub methods: Box<str>,
    /// `cors_allow_headers`, ready to be sent; `None` for whatever is asked.
    pub headers: Option<Box<str>>,
    /// `cors_expose_headers`, ready to be sent.
    pub exposed: Option<Box<str>>,
    /// `cors_allow_credentials`. Default off.
    pub credentials: bool,
    /// `cors_max_age`, seconds; `None` leaves it to the browser.
    pub max_age: Option<u64>,
}

/// One of `cors_allow_origin`.
#[derive(Debug, Clone)]
pub enum CorsOrigin {
    /// `*`.
    Any,
    /// As browsers write it: scheme, host and port.
    Exact(Box<[u8]>),
    /// `~PATTERN`.
    Pattern(Regex),
}

impl Cors {
    /// Whether pages of this origin may call.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| match allowed {
            CorsOrigin::Any => true,
            CorsOrigin::Exact(exact) => exact.eq_ignore_ascii_case(origin),
            CorsOrigin::Pattern(regex) => regex.is_match(origin),
        })
    }

    /// Whether the answer is the same for every origin.
    pub fn is_open(&self) -> bool {
        let any = |origin: &CorsOrigin| matches!(origin, CorsOrigin::Any);
        !self.credentials && self.origins.iter().any(any)
    }
}

/// `health [service=NAME] [upstreams] [certificates]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Default `ringwall`.
    pub service: Box<str>,
    /// Which backends are up.
    pub upstreams: bool,
    /// How long certificates last.
    pub certificates: bool,
}

/// `json_relay URL` with its `json_relay_allow`s.
#[derive(Debug, Clone)]
pub struct Relay {
    /// What may be reached; the first is where a call without `hostname` goes.
    pub targets: Vec<RelayTarget>,
    /// What all calls have in common; target, method, fields and body are each
    /// call's own.
    pub proxy: Proxy,
    /// The port of a host without one.
    pub default_port: u16,
}

/// A host that may be reached.
#[derive(Debug, Clone)]
pub struct RelayTarget {
    /// In lower case; IP addresses in their canonical form, without brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Any of them suffices.
    pub rules: Vec<RelayRule>,
    /// Whether its name may lead to private addresses.
    pub private: bool,
    /// Its connections.
    pub upstream: UpstreamId,
}

/// `methods=` and `path=` of one `json_relay_allow`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayRule {
    /// In upper case; `None` for all.
    pub methods: Option<Vec<Box<str>>>,
    /// What the path begins with; `None` for all.
    pub path: Option<Box<[u8]>>,
}

/// Whether an address is of this machine, of a private network, or otherwise
/// not of the public Internet: what a caller must not be led to unasked.
pub fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (192, 88, 99)
            | (203, 0, 113)
    )
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let [a, .., y, z] = segments;
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Unspecified, loopback, and IPv4 in its old clothes.
        [0, 0, 0, 0, 0, 0, _, _] => true,
        // IPv4-mapped.
        [0, 0, 0, 0, 0, 0xffff, _, _] => embedded(y, z),
        // NAT64 (RFC 6052, RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => embedded(y, z),
        [0x64, 0xff9b, ..] => true,
        // 6to4: IPv4 behind the prefix.
        [0x2002, high, low, ..] => embedded(high, low),
        // Discard, Teredo and its neighbours, documentation.
        [0x100, 0, 0, 0, ..]
        | [0x2001, 0..=0x1ff, ..]
        | [0x2001, 0xdb8, ..]
        | [0x3fff, 0..=0xfff, ..] => true,
        // Only 2000::/3 is public.
        _ => a & 0xe000 != 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_private_address_is_private() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff:0:1::1",
            "192.88.99.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::ffff:0:127.0.0.1",
        ] {
            assert!(is_private_address(text.parse().expect(text)), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::",
        ] {
            assert!(!is_private_address(text.parse().expect(text)), "{text}");
        }
    }
}
