//! Any bytes as a request head: what is accepted keeps the promises that the
//! rest of the request path relies on, however the bytes arrive.

use ringwall::http::h1::encode;
use ringwall::http::h1::parse::{HeadLimits, Status, parse_request};
use ringwall::http::head::{FieldId, RequestHead, Version};
use ringwall::http::uri;

/// Small, so that a short input can exceed each of them.
const LIMITS: HeadLimits = HeadLimits {
    line: 256,
    total: 1024,
    fields: 16,
};

/// Parses `bytes` whole and in pieces, checks what came out, and parses it
/// again as it would be forwarded.
pub fn h1_request_head(bytes: &[u8]) {
    let mut head = RequestHead::default();
    let whole = parse_request(bytes, &LIMITS, &mut head);

    let mut dribbled = RequestHead::default();
    let mut verdict = Ok(Status::Partial);
    for end in 1..=bytes.len() {
        verdict = parse_request(bytes.get(..end).unwrap_or_default(), &LIMITS, &mut dribbled);
        if verdict != Ok(Status::Partial) {
            break;
        }
    }
    match (&whole, &verdict) {
        (Ok(Status::Complete), Ok(Status::Complete)) => same(&head, &dribbled),
        // Which error is told may depend on what had arrived.
        (Ok(Status::Partial), Ok(Status::Partial)) | (Err(_), Err(_)) => {}
        _ => panic!("{whole:?} at once, {verdict:?} byte by byte"),
    }

    if whole == Ok(Status::Complete) {
        check(bytes, &head);
        check_path(head.path.of(bytes));
        forward(bytes, &head);
    }
}

fn same(a: &RequestHead, b: &RequestHead) {
    assert_eq!(
        (
            a.method,
            a.target,
            a.path,
            a.query,
            a.authority,
            a.version,
            a.line,
            a.len
        ),
        (
            b.method,
            b.target,
            b.path,
            b.query,
            b.authority,
            b.version,
            b.line,
            b.len
        ),
    );
    assert_eq!(a.fields, b.fields);
}

/// What threatens a backend must not have passed.
fn check(bytes: &[u8], head: &RequestHead) {
    let text = bytes.get(..head.len).expect("a head within its buffer");
    assert!(text.ends_with(b"\r\n\r\n"));
    assert!(
        text.len() <= LIMITS.total + 8,
        "over the limit, empty lines apart"
    );
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'\n' => assert_eq!(text.get(index.wrapping_sub(1)), Some(&b'\r'), "bare LF"),
            b'\r' => assert_eq!(text.get(index + 1), Some(&b'\n'), "bare CR"),
            0 => panic!("NUL in a head"),
            _ => {}
        }
    }
    assert!(!head.method.is_empty());
    assert!(
        head.method
            .of(bytes)
            .iter()
            .all(|byte| byte.is_ascii_graphic())
    );
    assert!(!head.target.is_empty());
    assert!(
        head.target
            .of(bytes)
            .iter()
            .all(|byte| *byte > b' ' && *byte != 0x7f)
    );
    assert!(head.fields.len() <= LIMITS.fields);
    for field in &head.fields {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        assert!(!name.is_empty());
        assert!(
            name.iter()
                .all(|byte| byte.is_ascii_graphic() && *byte != b':')
        );
        assert!(encode::is_field_value(value));
        assert_eq!(value, value.trim_ascii(), "white space round a value");
        assert_eq!(field.id, FieldId::of(name));
    }
    let hosts = head.fields_of(bytes, FieldId::Host).count();
    assert!(hosts <= 1, "{hosts} hosts");
    if head.version == Version::Http11 {
        assert_eq!(hosts, 1, "HTTP/1.1 without Host");
        assert!(head.host(bytes).is_some());
    }
}

/// Locations are chosen by the normalised path, so none may climb.
fn check_path(path: &[u8]) {
    assert_eq!(path.first(), Some(&b'/'));
    for merge_slashes in [true, false] {
        let mut normal = Vec::new();
        if uri::normalize(path, merge_slashes, &mut normal).is_err() {
            assert!(!uri::is_plain(path));
            continue;
        }
        assert_eq!(normal.first(), Some(&b'/'));
        assert!(!normal.contains(&0));
        let climbs = normal
            .split(|byte| *byte == b'/')
            .any(|segment| segment == b"..");
        assert!(
            !climbs,
            "{:?} leaves a segment",
            String::from_utf8_lossy(&normal)
        );
        if uri::is_plain(path) {
            assert_eq!(normal, path);
        }
        let mut escaped = Vec::new();
        uri::escape_uri(&mut escaped, &normal);
        let mut again = Vec::new();
        uri::normalize(&escaped, merge_slashes, &mut again).expect("what we escaped is a path");
        assert_eq!(again, normal, "escaping changed the path");
    }
}

/// Encodes the head as it was read: the next parser must see the same one.
fn forward(bytes: &[u8], head: &RequestHead) {
    let mut wire = Vec::new();
    encode::request_line(
        &mut wire,
        head.method.of(bytes),
        &[head.target.of(bytes)],
        head.version,
    );
    for field in &head.fields {
        encode::field(&mut wire, field.name.of(bytes), field.value.of(bytes));
    }
    wire.extend_from_slice(b"\r\n");

    // A space that the client left out behind each colon makes it longer.
    let roomy = HeadLimits {
        line: LIMITS.line + 1,
        total: LIMITS.total + 32,
        ..LIMITS
    };
    let mut second = RequestHead::default();
    assert_eq!(
        parse_request(&wire, &roomy, &mut second),
        Ok(Status::Complete)
    );
    assert_eq!(second.len, wire.len());
    assert_eq!(second.method.of(&wire), head.method.of(bytes));
    assert_eq!(second.target.of(&wire), head.target.of(bytes));
    assert_eq!(second.version, head.version);
    let pairs = |head: &RequestHead, buf: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let pair = |field: &ringwall::http::head::Field| {
            (field.name.of(buf).to_vec(), field.value.of(buf).to_vec())
        };
        head.fields.iter().map(pair).collect()
    };
    assert_eq!(pairs(&second, &wire), pairs(head, bytes));
}
