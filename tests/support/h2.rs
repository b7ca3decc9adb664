//! A client of HTTP/2 that sends exactly the frames it is given (RFC 9113). Of
//! fields it reads no more than the status; what else they say, others' clients
//! are asked.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use super::client::Connection;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What has come of a stream.
#[derive(Debug, Default, Clone)]
pub(crate) struct Answer {
    /// The final one.
    pub(crate) status: u16,
    pub(crate) interim: Vec<u16>,
    pub(crate) body: Vec<u8>,
    /// Blocks of fields: the final head, and trailers.
    pub(crate) blocks: usize,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
}

/// One connection to the proxy.
pub(crate) struct H2 {
    wire: Connection,
    buffer: Vec<u8>,
    answers: BTreeMap<u32, Answer>,
    /// Last stream and reason of each GOAWAY.
    pub(crate) goaways: Vec<(u32, u32)>,
    /// Bytes of DATA are granted anew as they come.
    pub(crate) grants: bool,
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A block of fields, none of them indexed nor compressed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// With a prefix of seven bits (RFC 7541 §5.1).
fn integer(out: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push((value % 128 + 128) as u8);
        value /= 128;
    }
    out.push(value as u8);
}

/// The pseudo-fields of a request, and then these.
pub(crate) fn fields<'a>(
    method: &'a str,
    host: &'a str,
    path: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "https"),
        (":authority", host),
        (":path", path),
    ];
    fields.extend_from_slice(more);
    fields
}

impl H2 {
    /// Without TLS, by prior knowledge.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self::over(Connection::plain(address))
    }

    /// Over a connection that is fresh; says hello.
    pub(crate) fn over(wire: Connection) -> Self {
        let mut connection = Self::silent(wire);
        connection.send(PREFACE);
        connection.frame(SETTINGS, 0, 0, &[]);
        connection
    }

    /// Without a word.
    pub(crate) fn silent(wire: Connection) -> Self {
        Self {
            wire,
            buffer: Vec::new(),
            answers: BTreeMap::new(),
            goaways: Vec::new(),
            grants: true,
        }
    }

    pub(crate) fn wire(&self) -> &Connection {
        &self.wire
    }

    /// For how it is to end.
    pub(crate) fn into_wire(self) -> Connection {
        self.wire
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes);
    }

    /// For where the proxy may have hung up already.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.try_send(bytes)
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&frame(kind, flags, stream, payload));
    }

    /// HEADERS; of a request without a body if `ends`.
    pub(crate) fn headers(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block(fields));
    }

    /// A GET and its answer.
    pub(crate) fn get(&mut self, stream: u32, host: &str, path: &str) -> Answer {
        self.headers(stream, &fields("GET", host, path, &[]), true);
        self.answer(stream)
    }

    /// Everything that comes on a stream until it ends or is reset.
    pub(crate) fn answer(&mut self, stream: u32) -> Answer {
        self.until(|connection| {
            let answer = connection.answers.get(&stream)?;
            (answer.ended || answer.reset.is_some()).then(|| answer.clone())
        })
        .unwrap_or_else(|e| panic!("{e}; {:?} {:?}", self.answers.get(&stream), self.goaways))
    }

    /// What has come of a stream so far.
    pub(crate) fn so_far(&self, stream: u32) -> Answer {
        self.answers.get(&stream).cloned().unwrap_or_default()
    }

    /// Reads until there is a GOAWAY with this reason.
    pub(crate) fn goaway(&mut self, reason: u32) -> u32 {
        self.until(|connection| {
            let found = connection.goaways.iter().rfind(|(_, code)| *code == reason);
            found.map(|(last, _)| *last)
        })
        .unwrap_or_else(|e| panic!("{e}; {:?}", self.goaways))
    }

    /// Reads frames until the check yields a value.
    pub(crate) fn until<T>(
        &mut self,
        mut check: impl FnMut(&mut Self) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            if let Some(value) = check(self) {
                return Ok(value);
            }
            self.next()?;
        }
    }

    /// Reads until the proxy ends the connection.
    pub(crate) fn expect_end(&mut self) {
        loop {
            match self.next() {
                Ok(_) => {}
                Err(error) if super::client::is_timeout(&error) => panic!("it stayed open"),
                Err(_) => return,
            }
        }
    }

    /// The next frame, which has been seen to.
    pub(crate) fn next(&mut self) -> io::Result<Frame> {
        let frame = self.read()?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                // It may have hung up meanwhile.
                let _ = self.try_send(&self::frame(SETTINGS, ACK, 0, &[]));
            }
            PING if frame.flags & ACK == 0 => {
                let _ = self.try_send(&self::frame(PING, ACK, 0, &frame.payload));
            }
            GOAWAY => {
                let word = |at: usize| {
                    let bytes = frame.payload.get(at..at + 4).expect("eight bytes");
                    u32::from_be_bytes(bytes.try_into().expect("four"))
                };
                self.goaways.push((word(0), word(4)));
            }
            HEADERS | DATA | RST_STREAM => self.answered(&frame),
            _ => {}
        }
        Ok(frame)
    }

    fn answered(&mut self, frame: &Frame) {
        let answer = self.answers.entry(frame.stream).or_default();
        match frame.kind {
            HEADERS if answer.status == 0 => match status(&frame.payload) {
                interim @ 100..=199 => answer.interim.push(interim),
                status => (answer.status, answer.blocks) = (status, 1),
            },
            HEADERS => answer.blocks += 1,
            DATA => answer.body.extend_from_slice(&frame.payload),
            _ => {
                let code = frame.payload[..].try_into().expect("four bytes");
                answer.reset = Some(u32::from_be_bytes(code));
            }
        }
        if frame.kind != RST_STREAM && frame.flags & END_STREAM != 0 {
            answer.ended = true;
        }
        if frame.kind == DATA && self.grants && !frame.payload.is_empty() {
            let length = u32::try_from(frame.payload.len()).expect("short");
            for stream in [0, frame.stream] {
                let update = self::frame(WINDOW_UPDATE, 0, stream, &length.to_be_bytes());
                let _ = self.try_send(&update);
            }
        }
    }

    fn read(&mut self) -> io::Result<Frame> {
        while self.buffer.len() < 9 {
            self.fill()?;
        }
        let length = u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]);
        let end = 9 + length as usize;
        while self.buffer.len() < end {
            self.fill()?;
        }
        let bytes: Vec<u8> = self.buffer.drain(..end).collect();
        Ok(Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]),
            payload: bytes[9..].to_vec(),
        })
    }

    fn fill(&mut self) -> io::Result<()> {
        let some = self.wire.some()?;
        self.buffer.extend_from_slice(&some);
        Ok(())
    }
}

/// The status that a block begins with. Only the first that is not in the
/// static table can be read on one connection: later ones are a place in a
/// dynamic table, which is not kept here.
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        // What sets the table's size comes first.
        [0x20..=0x3f, rest @ ..] => status(rest),
        [first @ 0x88..=0x8e, ..] => INDEXED[usize::from(first - 0x88)],
        [0x08 | 0x48, length, rest @ ..] if length & 0x80 == 0 => {
            let text = std::str::from_utf8(&rest[..3]).expect("digits");
            text.parse().expect("a status")
        }
        [0x08 | 0x48, length, rest @ ..] => huffman_digits(&rest[..usize::from(length & 0x7f)]),
        _ => panic!("no status: {block:02x?}"),
    }
}

/// Three digits (RFC 7541, appendix B): 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u16> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)))
        .collect();
    let value = |bits: &[u16]| bits.iter().fold(0, |value, bit| value * 2 + bit);
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = value(&bits[at..at + 5]);
        let (digit, length) = if short < 3 {
            (short, 5)
        } else {
            (value(&bits[at..at + 6]) - 0b01_1001 + 3, 6)
        };
        number = number * 10 + digit;
        at += length;
    }
    number
}

/// An end that is not a failure.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
