//! Finding the end of a head, line feed by line feed.
//!
//! Holds each line and the whole head to their limits, and refuses early what
//! can never become a head: bytes of TLS, a method that is none, folded lines,
//! bare line feeds. Every byte is looked at once, however slowly they come.

use super::super::error::HeadError;
use super::super::head::{RequestHead, Scan, Span};
use super::parse::HeadLimits;

/// Empty lines skipped before a request line. RFC 9112 §2.2 asks for at least
/// one; old clients send one behind a POST body.
const MAX_EMPTY_LINES: usize = 4;

/// Bytes of a started request line that are held to the syntax of a method
/// before the line is complete, so that garbage is refused at once.
const EARLY_METHOD_CHECK: usize = 32;

/// First two bytes of every TLS record of a handshake.
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

/// Skips empty lines, then searches the end of the head.
pub(super) fn scan_request(
    buf: &[u8],
    limits: &HeadLimits,
    scan: &mut Scan,
    head: &mut RequestHead,
) -> Result<Option<usize>, HeadError> {
    if scan.searched == 0 {
        while scan.begin < MAX_EMPTY_LINES * 2 {
            match buf.get(scan.begin..) {
                Some([b'\r', b'\n', ..]) => scan.begin += 2,
                // Only now may a lone CR still become an empty line.
                Some([b'\r'] | []) => {
                    scan.begin = 0;
                    return Ok(None);
                }
                _ => break,
            }
        }
        scan.line = scan.begin;
        scan.searched = scan.begin;
        let start = buf.get(scan.begin..).unwrap_or_default();
        if start.starts_with(TLS_HANDSHAKE) {
            return Err(HeadError::TlsOnPlainPort);
        }
    }
    let start = buf.get(scan.begin..).unwrap_or_default();
    if scan.line == scan.begin {
        check_method_early(start)?;
    }
    let found = find_end(buf, limits, scan, HeadError::RequestLineTooLong);
    if head.line.is_empty() && (found != Ok(None) || scan.line > scan.begin) {
        let feed = memchr::memchr(b'\n', start).unwrap_or(start.len());
        let line = start.get(..feed).unwrap_or_default();
        let length = memchr::memchr(b'\r', line).unwrap_or(line.len());
        head.line = Span::new(scan.begin, scan.begin + length);
    }
    found
}

/// A backend may send nothing in front of its status line.
pub(super) fn scan_response(
    buf: &[u8],
    limits: &HeadLimits,
    scan: &mut Scan,
) -> Result<Option<usize>, HeadError> {
    const PREFIX: &[u8] = b"HTTP/";
    if scan.line == 0 {
        let common = buf.len().min(PREFIX.len());
        if buf.get(..common) != PREFIX.get(..common) {
            return Err(HeadError::InvalidStatusLine);
        }
    }
    find_end(buf, limits, scan, HeadError::InvalidStatusLine)
}

/// Walks over complete lines. Returns one past the empty line that ends the
/// head, or `None` when that has not come yet.
fn find_end(
    buf: &[u8],
    limits: &HeadLimits,
    scan: &mut Scan,
    start_line_too_long: HeadError,
) -> Result<Option<usize>, HeadError> {
    loop {
        let first = scan.line == scan.begin;
        let rest = buf.get(scan.searched..).unwrap_or_default();
        let feed = memchr::memchr(b'\n', rest).map(|offset| scan.searched + offset);
        let line_end = feed.map_or(buf.len(), |feed| feed + 1);
        if line_end - scan.line > limits.line {
            return Err(if first {
                start_line_too_long
            } else {
                HeadError::FieldTooLong
            });
        }
        if line_end - scan.begin > limits.total {
            return Err(HeadError::HeadTooLarge);
        }
        if !first && matches!(buf.get(scan.line), Some(b' ' | b'\t')) {
            return Err(HeadError::ObsFold);
        }
        let Some(feed) = feed else {
            scan.searched = buf.len();
            return Ok(None);
        };
        match buf.get(scan.line..feed) {
            Some([b'\r']) if !first => return Ok(Some(line_end)),
            Some([.., b'\r']) => {}
            _ => return Err(HeadError::BareLf),
        }
        scan.line = line_end;
        scan.searched = line_end;
    }
}

/// Refuses what cannot become a request line before it is complete.
fn check_method_early(start: &[u8]) -> Result<(), HeadError> {
    for (index, byte) in start.iter().take(EARLY_METHOD_CHECK).enumerate() {
        match byte {
            b'A'..=b'Z' | b'-' | b'_' => {}
            b' ' if index > 0 => break,
            b'\n' if index > 0 => return Err(HeadError::InvalidRequestLine),
            _ => return Err(HeadError::InvalidMethod),
        }
    }
    Ok(())
}
