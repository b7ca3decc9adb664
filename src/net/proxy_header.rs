//! The PROXY protocol's header, as a proxy sends it
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).

use std::net::{IpAddr, SocketAddr};

/// The twelve bytes that version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 1: a line. `None` stands for a client or an own address that is no
/// Internet address.
#[must_use]
pub fn version_1(client: Option<SocketAddr>, own: Option<SocketAddr>) -> Vec<u8> {
    let Some((client, own)) = same_family(client, own) else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        client.ip(),
        own.ip(),
        client.port(),
        own.port()
    )
    .into_bytes()
}

/// Version 2, without additions; otherwise as [`version_1`].
#[must_use]
pub fn version_2(client: Option<SocketAddr>, own: Option<SocketAddr>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let addresses = same_family(client, own);
    let (command, family, length) = match addresses {
        // LOCAL: nobody is spoken for.
        None => (0x20, 0x00, 0_u16),
        Some((client, _)) if client.is_ipv4() => (0x21, 0x11, 12),
        Some(_) => (0x21, 0x21, 36),
    };
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&length.to_be_bytes());
    if let Some((client, own)) = addresses {
        for address in [client, own] {
            match address.ip() {
                IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
            }
        }
        header.extend_from_slice(&client.port().to_be_bytes());
        header.extend_from_slice(&own.port().to_be_bytes());
    }
    header
}

/// Both addresses in the form of one family: an IPv4 client of an IPv6 socket
/// is an IPv4 client.
fn same_family(
    client: Option<SocketAddr>,
    own: Option<SocketAddr>,
) -> Option<(SocketAddr, SocketAddr)> {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, own) = (canonical(client?), canonical(own?));
    (client.is_ipv4() == own.is_ipv4()).then_some((client, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_line_names_both_ends() {
        let line = version_1(at("192.0.2.1:5"), at("192.0.2.2:443"));
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n");
        let line = version_1(at("[::ffff:192.0.2.1]:5"), at("[::ffff:192.0.2.2]:443"));
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n");
        let line = version_1(at("[2001:db8::1]:5"), at("[::1]:443"));
        assert_eq!(line, b"PROXY TCP6 2001:db8::1 ::1 5 443\r\n");
        assert_eq!(version_1(None, at("192.0.2.2:443")), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_binary_header_says_how_long_it_is() {
        let header = version_2(at("192.0.2.1:5"), at("192.0.2.2:443"));
        assert_eq!(header.len(), 28);
        assert_eq!(
            header[12..],
            [0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 0, 5, 1, 187]
        );
        let header = version_2(at("[2001:db8::1]:5"), at("[::1]:443"));
        assert_eq!(
            (header.len(), &header[12..16]),
            (52, &[0x21, 0x21, 0, 36][..])
        );
        assert_eq!(version_2(None, None)[12..], [0x20, 0, 0, 0]);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        use crate::net::proxy_protocol::{Progress, parse};
        let v4 = (at("192.0.2.1:5"), at("192.0.2.2:443"));
        let v6 = (at("[2001:db8::1]:5"), at("[::1]:443"));
        for (client, own) in [v4, v6, (None, None), (v4.0, v6.1)] {
            let expected = same_family(client, own);
            for header in [version_1(client, own), version_2(client, own)] {
                let Ok(Progress::Complete(read, length)) = parse(&header) else {
                    panic!("{header:?}");
                };
                assert_eq!((read.addresses, length), (expected, header.len()));
            }
        }
    }
}
