//! How a backend is connected to.

use std::net::{IpAddr, SocketAddr};

use crate::config::template::Template;

/// What `proxy_bind`, `proxy_socket_keepalive` and `proxy_protocol` say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyLink {
    /// `proxy_bind`: the address to connect from; none where it is empty.
    pub bind: Option<Template>,
    /// `proxy_socket_keepalive`. Default off.
    pub socket_keepalive: bool,
    /// `proxy_protocol`: who the client is, told before anything else.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyLink {
    /// The address that a value of `proxy_bind` is, if it is one: `ADDRESS` or
    /// `ADDRESS:PORT`, IPv6 with brackets where there is a port.
    pub fn local_address(value: &[u8]) -> Option<SocketAddr> {
        let text = std::str::from_utf8(value).ok()?;
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then_some(address);
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        let ip: IpAddr = bare.parse().ok()?;
        Some(SocketAddr::new(ip, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_read_as_nginx_writes_them() {
        for (text, address) in [
            ("127.0.0.2", "127.0.0.2:0"),
            ("127.0.0.2:81", "127.0.0.2:81"),
            ("::1", "[::1]:0"),
            ("[::1]", "[::1]:0"),
            ("[::1]:82", "[::1]:82"),
        ] {
            let read = ProxyLink::local_address(text.as_bytes());
            assert_eq!(read, Some(address.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "localhost",
            "127.0.0",
            "127.0.0.1:0",
            "unix:/s",
            "\u{ff}",
        ] {
            assert_eq!(ProxyLink::local_address(text.as_bytes()), None, "{text}");
        }
    }
}
