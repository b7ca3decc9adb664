//! Frames are counted the same however they are cut; and a request of HTTP/2
//! that is taken is one that the parser of HTTP/1.1 takes too, and understands
//! in the same way.

use std::time::Duration;

use http::Request;
use http::header::{HeaderName, HeaderValue};
use ringwall::http::h1::parse::{HeadLimits, Status, parse_request};
use ringwall::http::h2::fields::{lay, room};
use ringwall::http::h2::meter::Meter;
use ringwall::http::head::RequestHead;

const LIMITS: HeadLimits = HeadLimits {
    line: 512,
    total: 2048,
    fields: 16,
};

/// The first byte says how the rest is cut.
pub fn h2_frames(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    frames(bytes, usize::from(cut).max(1));
    request(bytes);
}

fn frames(bytes: &[u8], cut: usize) {
    let (mut whole, mut pieces) = (Meter::new(), Meter::new());
    let expected = whole.observe(bytes, Duration::ZERO);
    let cut = bytes
        .chunks(cut)
        .try_for_each(|piece| pieces.observe(piece, Duration::ZERO));
    assert_eq!(cut, expected);
    if expected.is_ok() {
        assert_eq!(pieces.is_in_fields(), whole.is_in_fields());
    }
}

/// Lines: the method, the target, then a name and a value by turns.
fn request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (Some(method), Some(target)) = (lines.next(), lines.next()) else {
        return;
    };
    let mut builder = Request::builder().method(method).uri(target);
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        // What the protocol core takes for a field, and no more.
        let name = HeaderName::from_lowercase(name);
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) else {
            return;
        };
        builder = builder.header(name, value);
    }
    let Ok(request) = builder.body(()) else {
        return;
    };
    let (parts, ()) = request.into_parts();
    let mut out = vec![0; room(&parts)];
    let mut head = RequestHead::default();
    let Ok(length) = lay(&parts, None, &LIMITS, &mut out, &mut head) else {
        return;
    };
    let mut text = out[..length].to_vec();
    let version = head.line.end as usize - "2.0".len();
    text[version..version + 3].copy_from_slice(b"1.1");
    let limits = HeadLimits {
        line: 4096,
        total: 65536,
        fields: 64,
    };
    let mut parsed = RequestHead::default();
    assert_eq!(
        parse_request(&text, &limits, &mut parsed),
        Ok(Status::Complete),
        "{}",
        String::from_utf8_lossy(&text)
    );
    assert_eq!(parsed.len, length);
    assert_eq!(parsed.fields, head.fields);
    assert_eq!(
        (parsed.method, parsed.path, parsed.query),
        (head.method, head.path, head.query)
    );
    assert_eq!(parsed.host(&text), head.host(&out));
}
