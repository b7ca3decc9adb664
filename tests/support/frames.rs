//! HTTP/2 frame by frame: a backend's side of a connection, for scripts that
//! say what no library would. Fields are written as literals without Huffman
//! coding and not read at all.

use std::io;

use super::h2::block;
use super::origin::Peer;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;

/// A frame as it came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Whether the peer sends no more on this stream.
    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// A connection after the preface.
pub(crate) struct Frames<'p> {
    pub(crate) peer: &'p mut Peer,
}

impl<'p> Frames<'p> {
    /// Reads the client's preface and sends ours, with these settings.
    pub(crate) fn greet(peer: &'p mut Peer, settings: &[(u16, u32)]) -> io::Result<Self> {
        let preface = peer.take(24)?;
        assert_eq!(preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Self { peer };
        let settings = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frames.send(SETTINGS, 0, 0, &settings.collect::<Vec<_>>())?;
        Ok(frames)
    }

    /// Sends a frame.
    pub(crate) fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.peer.send(&[&head, payload].concat())
    }

    /// The next frame, whatever it is.
    pub(crate) fn any(&mut self) -> io::Result<Frame> {
        let head = self.peer.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: self.peer.take(length as usize)?,
        })
    }

    /// The next that is about a stream or the connection's end; settings and
    /// pings are acknowledged.
    pub(crate) fn next(&mut self) -> io::Result<Frame> {
        loop {
            let frame = self.any()?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[])?,
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload)?,
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Ok(frame),
            }
        }
    }

    /// A whole request: its stream and its body.
    pub(crate) fn request(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let mut body = Vec::new();
        loop {
            let frame = self.next()?;
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
            }
            if frame.ends() {
                return Ok((frame.stream, body));
            }
        }
    }

    /// A head, or trailers.
    pub(crate) fn headers(
        &mut self,
        stream: u32,
        fields: &[(&str, &str)],
        flags: u8,
    ) -> io::Result<()> {
        self.send(HEADERS, flags | END_HEADERS, stream, &block(fields))
    }

    /// A 200 with this body.
    pub(crate) fn ok(&mut self, stream: u32, body: &str) -> io::Result<()> {
        self.headers(stream, &[(":status", "200")], 0)?;
        self.send(DATA, END_STREAM, stream, body.as_bytes())
    }

    /// RST_STREAM.
    pub(crate) fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    /// GOAWAY.
    pub(crate) fn go_away(&mut self, last_stream: u32, code: u32) -> io::Result<()> {
        let payload = [last_stream.to_be_bytes(), code.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload)
    }

    /// WINDOW_UPDATE.
    pub(crate) fn widen(&mut self, stream: u32, by: u32) -> io::Result<()> {
        self.send(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
    }
}
