//! Access log lines: gathered per worker, escaped as Nginx escapes.

use std::time::{Duration, Instant};

use super::writer::LogSink;

/// Bytes at which a worker hands its lines over. Large enough that the queue
/// and the write cost nothing per line, small enough to stay in the cache.
pub const FLUSH_THRESHOLD: usize = 32 * 1024;

/// The largest threshold. The queue takes no batch of more than 8 MiB, and each
/// worker holds one of these for each log.
const MAX_THRESHOLD: usize = 1024 * 1024;

/// Room for a line beyond the threshold, so that the buffer does not grow for
/// the last one.
const LINE_ROOM: usize = 2 * 1024;

/// One worker's lines for one file. Whoever owns it flushes it now and then
/// (once a second, or when the worker has nothing else to do); dropping it
/// flushes too.
#[derive(Debug)]
pub struct AccessBuffer {
    sink: LogSink,
    lines: Vec<u8>,
    buffering: Buffering,
    /// When the oldest line of those that wait was written.
    since: Option<Instant>,
}

/// How long lines may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffering {
    /// Until there are so many bytes.
    pub size: usize,
    /// Or until the oldest is this old; `None` for no such limit.
    pub flush: Option<Duration>,
}

impl Default for Buffering {
    /// For the shortest time that costs nothing.
    fn default() -> Self {
        Self {
            size: FLUSH_THRESHOLD,
            flush: Some(Duration::ZERO),
        }
    }
}

impl AccessBuffer {
    /// Without lines.
    #[must_use]
    pub fn new(sink: LogSink, buffering: Buffering) -> Self {
        Self {
            sink,
            lines: Vec::new(),
            buffering: Buffering {
                size: buffering.size.min(MAX_THRESHOLD),
                ..buffering
            },
            since: None,
        }
    }

    /// Where the line being written goes; append to it, then
    /// [`AccessBuffer::end_line`].
    pub fn line(&mut self) -> &mut Vec<u8> {
        if self.lines.capacity() == 0 {
            self.lines = self.sink.buffer();
            self.lines.reserve(self.buffering.size + LINE_ROOM);
        }
        self.sink.begin_line(None, &mut self.lines);
        &mut self.lines
    }

    /// Ends the line, and hands all of them over once there are enough.
    pub fn end_line(&mut self) {
        self.sink.end_line(&mut self.lines);
        if self.lines.len() >= self.buffering.size {
            self.flush();
        }
    }

    /// Whether there are lines to hand over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Hands the lines over if the oldest has waited long enough. To be called
    /// now and then; how often decides how exact that is. Never waits.
    pub fn flush_due(&mut self, now: Instant) {
        let Some(flush) = self.buffering.flush else {
            return;
        };
        if flush.is_zero() {
            self.flush();
        } else if !self.lines.is_empty() {
            let since = *self.since.get_or_insert(now);
            if now.duration_since(since) >= flush {
                self.flush();
            }
        }
    }

    /// Hands the lines over. Never waits.
    pub fn flush(&mut self) {
        self.since = None;
        self.sink.send(&mut self.lines);
    }

    /// Where the lines go.
    #[must_use]
    pub fn sink(&self) -> &LogSink {
        &self.sink
    }
}

impl Drop for AccessBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// `escape=default`: `"`, `\` and bytes outside 0x20–0x7E as `\xXX`
/// (`ngx_http_log_escape`). A variable without a value is the caller's `-`.
pub fn escape_default(out: &mut Vec<u8>, bytes: &[u8]) {
    escape(out, bytes, |byte| match byte {
        b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => Escaped::Hex,
        _ => Escaped::No,
    });
}

/// `escape=json`: for the inside of a JSON string (`ngx_escape_json`). Bytes
/// from 0x7F up pass, as in Nginx, so that UTF-8 stays readable.
pub fn escape_json(out: &mut Vec<u8>, bytes: &[u8]) {
    escape(out, bytes, |byte| match byte {
        b'"' => Escaped::Letter(b'"'),
        b'\\' => Escaped::Letter(b'\\'),
        b'\n' => Escaped::Letter(b'n'),
        b'\r' => Escaped::Letter(b'r'),
        b'\t' => Escaped::Letter(b't'),
        0x08 => Escaped::Letter(b'b'),
        0x0c => Escaped::Letter(b'f'),
        0..=0x1f => Escaped::Unicode,
        _ => Escaped::No,
    });
}

enum Escaped {
    No,
    /// `\x0A`.
    Hex,
    /// `\n`.
    Letter(u8),
    /// `\u000A`.
    Unicode,
}

/// Copies runs that need no escape whole: most values are one.
fn escape(out: &mut Vec<u8>, bytes: &[u8], how: impl Fn(u8) -> Escaped) {
    let mut rest = bytes;
    while let Some(length) = rest
        .iter()
        .position(|byte| !matches!(how(*byte), Escaped::No))
    {
        let (plain, special) = rest.split_at(length);
        out.extend_from_slice(plain);
        let [byte, tail @ ..] = special else { break };
        match how(*byte) {
            Escaped::No => out.push(*byte),
            Escaped::Hex => {
                out.extend_from_slice(b"\\x");
                put_hex(out, *byte);
            }
            Escaped::Letter(letter) => out.extend_from_slice(&[b'\\', letter]),
            Escaped::Unicode => {
                out.extend_from_slice(b"\\u00");
                put_hex(out, *byte);
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

pub(super) fn put_hex(out: &mut Vec<u8>, byte: u8) {
    for nibble in [byte >> 4, byte & 0xf] {
        out.push(match nibble {
            0..=9 => b'0' + nibble,
            _ => b'A' + nibble - 10,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::LogFiles;
    use super::*;
    use proptest::prelude::*;

    fn escaped(how: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        how(&mut out, bytes);
        out
    }

    #[test]
    fn quotes_backslashes_and_bytes_outside_ascii_become_hexadecimal() {
        assert_eq!(
            escaped(escape_default, b"a\"b\\c\x00\n\x7f\xc3\xa9~ "),
            b"a\\x22b\\x5Cc\\x00\\x0A\\x7F\\xC3\\xA9~ "
        );
    }

    #[test]
    fn json_has_its_own_escapes() {
        assert_eq!(
            escaped(
                escape_json,
                "\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}é".as_bytes()
            ),
            "\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u001F\u{7f}é".as_bytes()
        );
    }

    #[test]
    fn lines_are_handed_over_at_the_threshold_and_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let files = LogFiles::new();
        let mut buffer = AccessBuffer::new(files.open(&path).unwrap(), Buffering::default());
        let line = [b'x'; 1023];
        for _ in 0..FLUSH_THRESHOLD / 1024 {
            assert!(buffer.is_empty() || buffer.lines.len().is_multiple_of(1024));
            buffer.line().extend_from_slice(&line);
            buffer.end_line();
        }
        assert!(buffer.is_empty());
        buffer.line().extend_from_slice(b"last");
        buffer.end_line();
        drop(buffer);
        files.flush_and_stop();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written.len(), FLUSH_THRESHOLD + 5);
        assert!(written.ends_with(b"x\nlast\n"));
    }

    proptest! {
        #[test]
        fn an_escaped_value_never_ends_its_line_or_its_quotes(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let out = escaped(escape_default, &bytes);
            prop_assert!(out.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'"'));
            let json = escaped(escape_json, &bytes);
            prop_assert!(json.iter().all(|b| *b >= 0x20));
        }
    }
}
