//! The header that a load balancer puts in front of a connection to tell whom
//! it is for: the PROXY protocol, versions 1 and 2
//! (haproxy.org/download/2.9/doc/proxy-protocol.txt).
//!
//! Does no I/O. Strict: what is not exactly such a header is an error, since
//! whoever gets past here tells the rest of the program who the client is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What both versions begin with is told apart by their first byte.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const PREFIX_V1: &[u8] = b"PROXY ";
/// The longest header of version 1, line end included.
const LONGEST_V1: usize = 107;
/// Signature, version and command, family and transport, length.
const HEAD_V2: usize = 16;
/// The longest header of version 2 that is accepted. It could say 64 KiB; a
/// chain of TLVs with a whole certificate fits in a fraction of that.
pub const LONGEST: usize = 4096;

/// A header as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Who connected to the balancer, and to what; `None` where the balancer
    /// speaks for itself (a health check), or of what is no TCP connection.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Version 2's additions, each a type, a length and a value. Every one of
    /// them is whole.
    tlvs: Box<[u8]>,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The beginning of a header.
    Partial,
    /// A header, and how many bytes it took.
    Complete(Header, usize),
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are what the messages say")]
pub enum HeaderError {
    Signature,
    Line,
    Address,
    Version,
    Command,
    Length,
    Tlv,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "it is no PROXY protocol header",
            Self::Line => "its line is malformed or too long",
            Self::Address => "an address or a port in it is invalid",
            Self::Version => "its version is unknown",
            Self::Command => "its command is unknown",
            Self::Length => "it is too short for its addresses or too long",
            Self::Tlv => "a TLV in it is longer than the rest",
        })
    }
}

/// Reads a header from the beginning of what a connection has brought.
///
/// # Errors
/// It is none, and nothing that follows can make it one.
pub fn parse(bytes: &[u8]) -> Result<Progress, HeaderError> {
    if is_beginning_of(bytes, SIGNATURE_V2) {
        return parse_v2(bytes);
    }
    if is_beginning_of(bytes, PREFIX_V1) {
        return parse_v1(bytes);
    }
    Err(HeaderError::Signature)
}

/// Whether the bytes begin as this does, as far as either goes.
fn is_beginning_of(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Progress, HeaderError> {
    let within = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return match within.len() {
            LONGEST_V1 => Err(HeaderError::Line),
            _ => Ok(Progress::Partial),
        };
    };
    let line = std::str::from_utf8(&within[..end]).map_err(|_| HeaderError::Line)?;
    let rest = line.strip_prefix("PROXY ").ok_or(HeaderError::Line)?;
    let header = match rest.split_once(' ') {
        // What stands behind it is to be ignored.
        None if rest == "UNKNOWN" => Header::default(),
        Some(("UNKNOWN", _)) => Header::default(),
        Some((family @ ("TCP4" | "TCP6"), addresses)) => {
            let words: Vec<&str> = addresses.split(' ').collect();
            let [source, destination, source_port, destination_port] = words[..] else {
                return Err(HeaderError::Line);
            };
            let source = SocketAddr::new(address(family, source)?, port(source_port)?);
            let destination =
                SocketAddr::new(address(family, destination)?, port(destination_port)?);
            Header {
                addresses: Some((source, destination)),
                tlvs: [].into(),
            }
        }
        _ => return Err(HeaderError::Line),
    };
    Ok(Progress::Complete(header, end + 2))
}

fn address(family: &str, text: &str) -> Result<IpAddr, HeaderError> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(Into::into),
        _ => text.parse::<Ipv6Addr>().map(Into::into),
    }
    .map_err(|_| HeaderError::Address)
}

/// Decimal, without sign or leading zeros.
fn port(text: &str) -> Result<u16, HeaderError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(port) if is_plain || text == "0" => Ok(port),
        _ => Err(HeaderError::Address),
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Progress, HeaderError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_V2>() else {
        return Ok(Progress::Partial);
    };
    let [.., version_command, family_transport, high, low] = *head;
    if version_command >> 4 != 2 {
        return Err(HeaderError::Version);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if HEAD_V2 + length > LONGEST {
        return Err(HeaderError::Length);
    }
    let is_local = match version_command & 0x0f {
        0 => true,
        1 => false,
        _ => return Err(HeaderError::Command),
    };
    let Some(payload) = rest.get(..length) else {
        return Ok(Progress::Partial);
    };
    let complete = |addresses, tlvs: &[u8]| {
        let header = Header {
            addresses,
            tlvs: tlvs.into(),
        };
        Ok(Progress::Complete(header, HEAD_V2 + length))
    };
    if is_local {
        // What follows is the balancer's business.
        return complete(None, &[]);
    }
    const STREAM: u8 = 1;
    let (addresses, tlvs) = match (family_transport >> 4, family_transport & 0x0f) {
        (1, STREAM) => {
            let (block, tlvs) = payload
                .split_first_chunk::<12>()
                .ok_or(HeaderError::Length)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            let pair = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            (with_ports(pair.0.into(), pair.1.into(), ports), tlvs)
        }
        (2, STREAM) => {
            let (block, tlvs) = payload
                .split_first_chunk::<36>()
                .ok_or(HeaderError::Length)?;
            let (source, rest) = block.split_at(16);
            let (destination, ports) = rest.split_at(16);
            let ip = |octets: &[u8]| <[u8; 16]>::try_from(octets).map(IpAddr::from);
            match (ip(source), ip(destination), ports.try_into()) {
                (Ok(source), Ok(destination), Ok(ports)) => {
                    (with_ports(source, destination, ports), tlvs)
                }
                _ => return Err(HeaderError::Length),
            }
        }
        // Unix sockets and what is no stream: there is no address to tell.
        _ => return complete(None, &[]),
    };
    check_tlvs(tlvs)?;
    complete(Some(addresses), tlvs)
}

fn with_ports(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> (SocketAddr, SocketAddr) {
    let [a, b, c, d] = ports;
    (
        SocketAddr::new(source, u16::from_be_bytes([a, b])),
        SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    )
}

/// Sees to it that each of them is whole.
fn check_tlvs(mut rest: &[u8]) -> Result<(), HeaderError> {
    while !rest.is_empty() {
        (_, _, rest) = next_tlv(rest).ok_or(HeaderError::Tlv)?;
    }
    Ok(())
}

/// Type, value and what follows.
fn next_tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*kind, value, rest))
}

fn find(mut tlvs: &[u8], wanted: u8) -> Option<&[u8]> {
    while let Some((kind, value, rest)) = next_tlv(tlvs) {
        if kind == wanted {
            return Some(value);
        }
        tlvs = rest;
    }
    None
}

impl Header {
    /// A TLV by Nginx's name for it, without `$proxy_protocol_tlv_`: `alpn`,
    /// `ssl_cn`, `0xe4`, `ssl_0x25`. `None` where there is none; the name is
    /// one that [`is_tlv_name`] takes.
    pub fn tlv(&self, name: &str) -> Option<Vec<u8>> {
        const SSL: u8 = 0x20;
        let Some(inner) = name.strip_prefix("ssl_") else {
            return find(&self.tlvs, kind_of(name, OUTER)?).map(<[u8]>::to_vec);
        };
        // One byte about the client, four with the outcome of verifying its
        // certificate, and TLVs of their own.
        let (head, tlvs) = find(&self.tlvs, SSL)?.split_first_chunk::<5>()?;
        if inner == "verify" {
            let [_, outcome @ ..] = *head;
            return Some(u32::from_be_bytes(outcome).to_string().into_bytes());
        }
        find(tlvs, kind_of(inner, INNER)?).map(<[u8]>::to_vec)
    }
}

/// Whether [`Header::tlv`] knows what is meant.
pub fn is_tlv_name(name: &str) -> bool {
    match name.strip_prefix("ssl_") {
        Some("verify") => true,
        Some(inner) => kind_of(inner, INNER).is_some(),
        None => kind_of(name, OUTER).is_some(),
    }
}

type Names = &'static [(&'static str, u8)];

const OUTER: Names = &[
    ("alpn", 0x01),
    ("authority", 0x02),
    ("unique_id", 0x05),
    ("ssl", 0x20),
    ("netns", 0x30),
];

const INNER: Names = &[
    ("version", 0x21),
    ("cn", 0x22),
    ("cipher", 0x23),
    ("sig_alg", 0x24),
    ("key_alg", 0x25),
];

fn kind_of(name: &str, names: Names) -> Option<u8> {
    if let Some(digits) = name.strip_prefix("0x") {
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
    }
    let known = names.iter().find(|(known, _)| *known == name)?;
    Some(known.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&SIGNATURE_V2[..], &[command, family], &length, payload].concat()
    }

    fn complete(bytes: &[u8]) -> (Header, usize) {
        match parse(bytes) {
            Ok(Progress::Complete(header, length)) => (header, length),
            other => panic!("{other:?}"),
        }
    }

    fn pair(source: &str, destination: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((source.parse().unwrap(), destination.parse().unwrap()))
    }

    #[test]
    fn version_1_names_both_ends() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /";
        let (header, length) = complete(line);
        assert_eq!(
            header.addresses,
            pair("192.0.2.1:56324", "198.51.100.2:443")
        );
        assert_eq!(&line[length..], b"GET /");
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
        assert_eq!(
            complete(line).0.addresses,
            pair("[2001:db8::1]:1", "[::1]:65535")
        );
        for line in [
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN ffff:f... whatever 1\r\n",
        ] {
            assert_eq!(complete(line.as_bytes()), (Header::default(), line.len()));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_the_first_byte_that_tells() {
        use HeaderError::*;
        for (bytes, error) in [
            ("G", Signature),
            ("PROXYX", Signature),
            ("proxy TCP4", Signature),
            ("\x16\x03\x01", Signature),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Line),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Line),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Line),
            ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Line),
            ("PROXY TCP4\r\n", Line),
            ("PROXY UNKNOWNS\r\n", Line),
            ("PROXY TCP4 1.2.3.4 ::1 1 2\r\n", Address),
            ("PROXY TCP6 1.2.3.4 ::1 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.400 1.2.3.4 1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n", Address),
        ] {
            assert_eq!(parse(bytes.as_bytes()), Err(error), "{bytes}");
        }
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(parse(&long), Err(Line));
        assert_eq!(parse(&v2(0x11, 0x11, &[0; 12])), Err(Version));
        assert_eq!(parse(&v2(0x22, 0x11, &[0; 12])), Err(Command));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 11])), Err(Length));
        assert_eq!(parse(&v2(0x21, 0x21, &[0; 35])), Err(Length));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; LONGEST])), Err(Length));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 14])), Err(Tlv));
        assert_eq!(
            parse(&v2(
                0x21,
                0x11,
                &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9, 1]
            )),
            Err(Tlv)
        );
    }

    #[test]
    fn version_2_names_both_ends_and_more() {
        let ssl = [
            &[7, 0, 0, 0, 1],
            &b"\x21\0\x07TLSv1.3"[..],
            b"\x22\0\x03ann",
            b"\x25\0\x02EC",
        ]
        .concat();
        let tlvs = [
            b"\x01\0\x08http/1.1".as_slice(),
            b"\x02\0\x0btest.exampl",
            b"\xe4\0\x01x",
            &[0x20, 0, ssl.len() as u8],
            &ssl,
        ]
        .concat();
        let payload = [&[192, 0, 2, 1, 198, 51, 100, 2, 1, 2, 1, 187][..], &tlvs].concat();
        let bytes = v2(0x21, 0x11, &payload);
        let (header, length) = complete(&bytes);
        assert_eq!(length, bytes.len());
        assert_eq!(header.addresses, pair("192.0.2.1:258", "198.51.100.2:443"));
        for (name, value) in [
            ("alpn", Some("http/1.1")),
            ("authority", Some("test.exampl")),
            ("0xe4", Some("x")),
            ("0x01", Some("http/1.1")),
            ("unique_id", None),
            ("ssl_verify", Some("1")),
            ("ssl_version", Some("TLSv1.3")),
            ("ssl_cn", Some("ann")),
            ("ssl_0x25", Some("EC")),
            ("ssl_cipher", None),
        ] {
            assert!(is_tlv_name(name), "{name}");
            assert_eq!(
                header.tlv(name).as_deref(),
                value.map(str::as_bytes),
                "{name}"
            );
        }
        for name in ["", "x", "0x", "0x100", "0x+1", "ssl_", "ssl_alpn"] {
            assert!(!is_tlv_name(name), "{name}");
        }
    }

    #[test]
    fn a_balancer_that_speaks_for_itself_names_nobody() {
        for (command, family) in [
            (0x20, 0x11),
            (0x20, 0x00),
            (0x21, 0x00),
            (0x21, 0x12),
            (0x21, 0x31),
        ] {
            let bytes = v2(command, family, &[9; 20]);
            assert_eq!(complete(&bytes), (Header::default(), bytes.len()));
        }
        assert_eq!(complete(&v2(0x20, 0, &[])).1, HEAD_V2);
    }

    proptest! {
        #[test]
        fn any_split_of_a_header_gives_the_same_header(
            source: u32, destination: u32, ports: [u8; 4], second: bool, more in "[ -~]{0,9}",
        ) {
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let (a, b) = with_ports(source.into(), destination.into(), ports);
            let header = if second {
                let payload = [&source.octets()[..], &destination.octets(), &ports].concat();
                v2(0x21, 0x11, &payload)
            } else {
                format!("PROXY TCP4 {source} {destination} {} {}\r\n", a.port(), b.port()).into_bytes()
            };
            let bytes = [&header[..], more.as_bytes()].concat();
            for end in 0..header.len() {
                prop_assert_eq!(parse(&bytes[..end]), Ok(Progress::Partial));
            }
            for end in header.len()..=bytes.len() {
                let (read, length) = complete(&bytes[..end]);
                prop_assert_eq!((read.addresses, length), (Some((a, b)), header.len()));
            }
        }

        #[test]
        fn any_bytes_are_a_header_or_not(second: bool, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let start: &[u8] = if second { SIGNATURE_V2 } else { PREFIX_V1 };
            let bytes = [start, &bytes].concat();
            if let Ok(Progress::Complete(header, length)) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
                let _ = header.tlv("ssl_cn");
            }
        }
    }
}
