//! Addresses by role, so that a client's cannot be passed for a server's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Whom a connection was accepted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddr {
    /// Over TCP.
    Inet(SocketAddr),
    /// Over a Unix domain socket, whose peers have no name.
    Unix,
}

impl ClientAddr {
    /// The address without the port; `None` for Unix sockets.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }

    /// The address as the socket has it: an IPv4 client of an IPv6 socket has an
    /// IPv6 address.
    pub fn raw_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }

    /// The port; `None` for Unix sockets.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Inet(address) => Some(address.port()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for ClientAddr {
    /// As Nginx logs it: the bare address, or `unix:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) => ip.fmt(f),
            None => f.write_str("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_is_shown_as_ipv4() {
        let mapped = ClientAddr::Inet("[::ffff:192.0.2.1]:5".parse().unwrap());
        assert_eq!(mapped.to_string(), "192.0.2.1");
        assert_eq!(ClientAddr::Unix.to_string(), "unix:");
    }
}
