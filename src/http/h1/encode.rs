//! Messages onto the wire: appended to whatever the caller sends from.

use super::super::error::{reason_phrase, wire_status};
use super::super::head::Version;
use super::super::words::has_control;

/// Where encoded bytes go. A trait, and not `Vec<u8>`, because the request path
/// writes into network buffers that leave room for a TLS record around them.
pub trait Sink {
    /// Appends.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one after the other; where that is cheaper than one by one.
    #[inline]
    fn put_all<const COUNT: usize>(&mut self, parts: [&[u8]; COUNT])
    where
        Self: Sized,
    {
        for part in parts {
            self.put(part);
        }
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// `HTTP/1.1 200 OK` and its CRLF, with Nginx's reason phrase. Like Nginx this
/// says 1.1 to HTTP/1.0 clients too (RFC 9110 §2.5). Nginx's internal codes
/// (494 to 497) go out as 400.
pub fn status_line(out: &mut impl Sink, status: u16) {
    let reason = reason_phrase(status).as_bytes();
    status_line_with_reason(out, wire_status(status), reason);
}

/// As [`status_line`], with a backend's status and words. The reason must come
/// from a parsed head, which holds no line ends.
pub fn status_line_with_reason(out: &mut impl Sink, status: u16, reason: &[u8]) {
    if status == 200 && reason == b"OK" {
        out.put(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.put(b"HTTP/1.1 ");
    // Three digits, whatever `return` was told.
    if status < 100 {
        out.put(if status < 10 { b"00" } else { b"0" });
    }
    decimal(out, u64::from(status));
    out.put(b" ");
    out.put(reason);
    out.put(b"\r\n");
}

/// `GET /path HTTP/1.1` and its CRLF; `target` in as many parts as it has.
pub fn request_line(out: &mut impl Sink, method: &[u8], target: &[&[u8]], version: Version) {
    out.put(method);
    out.put(b" ");
    for part in target {
        out.put(part);
    }
    out.put(b" ");
    out.put(version.as_str().as_bytes());
    out.put(b"\r\n");
}

/// `Name: value` and its CRLF. The value must hold no CR, LF or NUL: it comes
/// from a parsed head or from [`is_field_value`]'s approval.
///
/// One copy serves all the fields of a head.
#[inline(never)]
pub fn field(out: &mut impl Sink, name: &[u8], value: &[u8]) {
    out.put_all([name, b": ", value, b"\r\n"]);
}

/// `Name: 123` and its CRLF.
pub fn field_decimal(out: &mut impl Sink, name: &[u8], value: u64) {
    field(out, name, itoa::Buffer::new().format(value).as_bytes());
}

/// Whether a value made here (from variables, from certificates) may stand in
/// a field: no control byte but HTAB (RFC 9110 §5.5).
#[must_use]
pub fn is_field_value(value: &[u8]) -> bool {
    !has_control(value)
        || !value
            .iter()
            .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
}

/// Digits, without leading zeros.
pub fn decimal(out: &mut (impl Sink + ?Sized), value: u64) {
    out.put(itoa::Buffer::new().format(value).as_bytes());
}

/// What ends a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// What ends a chunked body: the last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The size line in front of a chunk, and how many of its bytes count. `len`
/// must not be 0, which would end the body. [`CHUNK_END`] follows the data.
#[must_use]
pub fn chunk_head(len: usize) -> ([u8; 18], usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    debug_assert_ne!(len, 0, "an empty chunk ends the body");
    let mut head = [0; 18];
    let significant = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1) as usize;
    for (index, place) in head.iter_mut().take(significant).enumerate() {
        let nibble = (len >> ((significant - 1 - index) * 4)) & 0xf;
        *place = DIGITS.get(nibble).copied().unwrap_or(b'0');
    }
    for (place, byte) in head.iter_mut().skip(significant).zip(b"\r\n") {
        *place = *byte;
    }
    (head, significant + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn status_lines_have_the_words_of_nginx() {
        assert_eq!(written(|o| status_line(o, 200)), "HTTP/1.1 200 OK\r\n");
        assert_eq!(
            written(|o| status_line(o, 302)),
            "HTTP/1.1 302 Moved Temporarily\r\n"
        );
        assert_eq!(
            written(|o| status_line(o, 496)),
            "HTTP/1.1 400 Bad Request\r\n"
        );
        assert_eq!(written(|o| status_line(o, 418)), "HTTP/1.1 418 \r\n");
        assert_eq!(written(|o| status_line(o, 7)), "HTTP/1.1 007 \r\n");
    }

    #[test]
    fn a_request_line_joins_the_parts_of_its_target() {
        assert_eq!(
            written(|o| request_line(o, b"GET", &[b"/a", b"?", b"b"], Version::Http10)),
            "GET /a?b HTTP/1.0\r\n"
        );
    }

    #[test]
    fn fields_end_in_crlf() {
        assert_eq!(written(|o| field(o, b"A", b"b")), "A: b\r\n");
        assert_eq!(
            written(|o| field_decimal(o, b"Content-Length", u64::MAX)),
            "Content-Length: 18446744073709551615\r\n"
        );
    }

    #[test]
    fn a_value_with_a_line_end_is_no_field_value() {
        assert!(is_field_value(b"caf\xc3\xa9\t1"));
        for bad in [&b"a\r"[..], b"a\nb", b"\0", b"\x7f"] {
            assert!(!is_field_value(bad));
        }
    }

    proptest! {
        #[test]
        fn a_chunk_head_is_the_size_in_hexadecimal(len in 1..=usize::MAX) {
            let (head, used) = chunk_head(len);
            prop_assert_eq!(head[..used].to_vec(), format!("{len:x}\r\n").into_bytes());
        }

        #[test]
        fn small_chunk_heads_too(len in 1..=70_000_usize) {
            let (head, used) = chunk_head(len);
            prop_assert_eq!(head[..used].to_vec(), format!("{len:x}\r\n").into_bytes());
        }
    }
}
