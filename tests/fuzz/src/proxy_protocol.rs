//! The header in front of a connection: read the same however it is cut, never
//! past its end, and written out again it is the same header.

use ringwall::net::proxy_protocol::{LONGEST, Progress, is_tlv_name, parse};

/// Reads `bytes` as what a connection begins with.
pub fn proxy_protocol(bytes: &[u8]) {
    let whole = parse(bytes);
    // What was a header stays one with fewer bytes behind it, and before its
    // end it is the beginning of one; what is wrong does not become right.
    for end in 0..bytes.len().min(2 * LONGEST) {
        match (parse(&bytes[..end]), &whole) {
            (Ok(Progress::Partial), _) => {}
            (part, whole) => assert_eq!(&part, whole, "cut at {end}"),
        }
    }
    let Ok(Progress::Complete(header, length)) = whole else {
        return;
    };
    assert!(length <= bytes.len() && length <= LONGEST);
    for name in ["alpn", "ssl_verify", "ssl_cn", "0xff"] {
        assert!(is_tlv_name(name));
        assert!(header.tlv(name).is_none_or(|value| value.len() < length));
    }
    let Some((source, destination)) = header.addresses else {
        return;
    };
    assert_eq!(
        source.is_ipv4(),
        destination.is_ipv4(),
        "two families in one header"
    );
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    match parse(line.as_bytes()) {
        Ok(Progress::Complete(again, length)) => {
            assert_eq!((again.addresses, length), (header.addresses, line.len()));
        }
        other => panic!("{line:?}: {other:?}"),
    }
}
