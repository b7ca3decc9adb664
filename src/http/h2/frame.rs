//! Frames (RFC 9113 §4): their nine bytes of header, and what §6 demands of
//! length and stream of each kind before its payload is looked at.

use super::super::h1::encode::Sink;

/// Bytes of a frame's header.
pub const HEADER: usize = 9;
/// The longest payload that is received: what every peer may send until it is
/// told otherwise (SETTINGS_MAX_FRAME_SIZE), and it is not.
pub const MAX_PAYLOAD: usize = 1 << 14;

/// What a frame is (RFC 9113 §6).
pub mod kind {
    #![allow(missing_docs, reason = "the constants are the frames' own names")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// What a frame's flags mean, where its kind knows them.
pub mod flag {
    #![allow(missing_docs, reason = "the constants are the flags' own names")]
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Why a stream or a connection ends (RFC 9113 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the codes' own names")]
#[repr(u32)]
pub enum Reason {
    NoError = 0x0,
    ProtocolError = 0x1,
    InternalError = 0x2,
    FlowControlError = 0x3,
    StreamClosed = 0x5,
    FrameSizeError = 0x6,
    RefusedStream = 0x7,
    Cancel = 0x8,
    CompressionError = 0x9,
    EnhanceYourCalm = 0xb,
}

impl Reason {
    /// As in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NO_ERROR",
            Self::ProtocolError => "PROTOCOL_ERROR",
            Self::InternalError => "INTERNAL_ERROR",
            Self::FlowControlError => "FLOW_CONTROL_ERROR",
            Self::StreamClosed => "STREAM_CLOSED",
            Self::FrameSizeError => "FRAME_SIZE_ERROR",
            Self::RefusedStream => "REFUSED_STREAM",
            Self::Cancel => "CANCEL",
            Self::CompressionError => "COMPRESSION_ERROR",
            Self::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
        }
    }

    fn bytes(self) -> [u8; 4] {
        (self as u32).to_be_bytes()
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the payload, bytes. At most 2^24 − 1.
    pub length: usize,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// 0 for what is about the connection.
    pub stream: u32,
}

impl Head {
    /// The header at the start of `bytes`; `None` while it is incomplete.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEADER>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The first bit says nothing (RFC 9113 §4.1).
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    /// As on the wire. A length beyond 2^24 − 1 does not occur.
    #[must_use]
    pub fn bytes(self) -> [u8; HEADER] {
        let [_, a, b, c] = u32::try_from(self.length).unwrap_or_default().to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, s0, s1, s2, s3]
    }

    /// Whether this flag is set.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Holds it to the rules of its kind; those that concern the connection as
    /// a whole, which is nearly all.
    ///
    /// # Errors
    /// The reason for which the connection must end.
    pub fn check(self) -> Result<(), Reason> {
        if self.length > MAX_PAYLOAD {
            return Err(Reason::FrameSizeError);
        }
        let of_stream = matches!(
            self.kind,
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION
        );
        let of_connection = matches!(self.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        if (of_stream && self.stream == 0) || (of_connection && self.stream != 0) {
            return Err(Reason::ProtocolError);
        }
        let fits = match self.kind {
            kind::RST_STREAM | kind::WINDOW_UPDATE => self.length == 4,
            kind::SETTINGS if self.has(flag::ACK) => self.length == 0,
            kind::SETTINGS => self.length.is_multiple_of(6),
            kind::PING => self.length == 8,
            kind::GOAWAY => self.length >= 8,
            // A client may not push, and a server is told not to.
            kind::PUSH_PROMISE => return Err(Reason::ProtocolError),
            _ => true,
        };
        if fits {
            Ok(())
        } else {
            Err(Reason::FrameSizeError)
        }
    }
}

/// The fields in the payload of a HEADERS frame, without its padding and what
/// it says of priorities, which nobody follows any more (RFC 9113 §5.3.2).
///
/// # Errors
/// The reason for which the connection must end.
pub fn fragment(head: Head, payload: &[u8]) -> Result<&[u8], Reason> {
    const PRIORITY: usize = 5;
    let mut rest = payload;
    let mut padding = 0;
    if head.has(flag::PADDED) {
        let (length, behind) = rest.split_first().ok_or(Reason::FrameSizeError)?;
        (padding, rest) = (usize::from(*length), behind);
    }
    if head.has(flag::PRIORITY) {
        rest = rest.get(PRIORITY..).ok_or(Reason::FrameSizeError)?;
    }
    let length = rest.len().checked_sub(padding);
    let length = length.ok_or(Reason::ProtocolError)?;
    Ok(rest.get(..length).unwrap_or_default())
}

/// The number at the start of a payload whose first bit says nothing.
pub(super) fn word(payload: &[u8]) -> u32 {
    let word = payload.first_chunk::<4>();
    word.map_or(0, |word| u32::from_be_bytes(*word) & 0x7fff_ffff)
}

fn put<const LENGTH: usize>(
    out: &mut impl Sink,
    (kind, flags): (u8, u8),
    stream: u32,
    payload: &[u8; LENGTH],
) {
    let head = Head {
        length: LENGTH,
        kind,
        flags,
        stream,
    };
    out.put_all([&head.bytes(), payload]);
}

/// RST_STREAM.
pub(super) fn put_reset(out: &mut impl Sink, stream: u32, reason: Reason) {
    put(out, (kind::RST_STREAM, 0), stream, &reason.bytes());
}

/// The acknowledgement of SETTINGS.
pub(super) fn put_settings_ack(out: &mut impl Sink) {
    put(out, (kind::SETTINGS, flag::ACK), 0, &[]);
}

/// PING, or the answer to one.
pub(super) fn put_ping(out: &mut impl Sink, opaque: [u8; 8], is_answer: bool) {
    let flags = if is_answer { flag::ACK } else { 0 };
    put(out, (kind::PING, flags), 0, &opaque);
}

/// GOAWAY, without debug data.
pub(super) fn put_go_away(out: &mut impl Sink, last: u32, reason: Reason) {
    let [a, b, c, d] = last.to_be_bytes();
    let [e, f, g, h] = reason.bytes();
    put(out, (kind::GOAWAY, 0), 0, &[a, b, c, d, e, f, g, h]);
}

/// WINDOW_UPDATE.
pub(super) fn put_window_update(out: &mut impl Sink, stream: u32, by: u32) {
    put(out, (kind::WINDOW_UPDATE, 0), stream, &by.to_be_bytes());
}

/// A block of fields in as many frames as it takes.
pub(super) fn put_block(
    out: &mut impl Sink,
    stream: u32,
    block: &[u8],
    ends_stream: bool,
    most: usize,
) {
    let mut rest = block;
    let mut kind = kind::HEADERS;
    let mut flags = if ends_stream { flag::END_STREAM } else { 0 };
    loop {
        let (now, later) = rest.split_at_checked(most).unwrap_or((rest, &[]));
        if later.is_empty() {
            flags |= flag::END_HEADERS;
        }
        let head = Head {
            length: now.len(),
            kind,
            flags,
            stream,
        };
        out.put_all([&head.bytes(), now]);
        if later.is_empty() {
            return;
        }
        (rest, kind, flags) = (later, kind::CONTINUATION, 0);
    }
}

/// A whole frame, as a peer would send it.
#[cfg(test)]
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        length: payload.len(),
        kind,
        flags,
        stream,
    };
    [&head.bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(kind: u8, flags: u8, stream: u32, length: usize) -> Head {
        Head {
            length,
            kind,
            flags,
            stream,
        }
    }

    #[test]
    fn length_and_stream_are_held_to_the_rules_of_the_kind() {
        use Reason::{FrameSizeError as Size, ProtocolError as Protocol};
        for (what, head, expected) in [
            ("DATA on 0", head(kind::DATA, 0, 0, 1), Err(Protocol)),
            ("HEADERS on 0", head(kind::HEADERS, 0, 0, 1), Err(Protocol)),
            (
                "PRIORITY on 0",
                head(kind::PRIORITY, 0, 0, 5),
                Err(Protocol),
            ),
            ("RST on 0", head(kind::RST_STREAM, 0, 0, 4), Err(Protocol)),
            ("RST of 5", head(kind::RST_STREAM, 0, 1, 5), Err(Size)),
            (
                "SETTINGS on 1",
                head(kind::SETTINGS, 0, 1, 6),
                Err(Protocol),
            ),
            ("SETTINGS of 7", head(kind::SETTINGS, 0, 0, 7), Err(Size)),
            ("full ACK", head(kind::SETTINGS, flag::ACK, 0, 6), Err(Size)),
            ("push", head(kind::PUSH_PROMISE, 0, 1, 9), Err(Protocol)),
            ("PING on 1", head(kind::PING, 0, 1, 8), Err(Protocol)),
            ("PING of 7", head(kind::PING, 0, 0, 7), Err(Size)),
            ("GOAWAY on 1", head(kind::GOAWAY, 0, 1, 8), Err(Protocol)),
            ("GOAWAY of 7", head(kind::GOAWAY, 0, 0, 7), Err(Size)),
            ("window of 3", head(kind::WINDOW_UPDATE, 0, 0, 3), Err(Size)),
            (
                "fields on 0",
                head(kind::CONTINUATION, 0, 0, 3),
                Err(Protocol),
            ),
            (
                "too long",
                head(kind::DATA, 0, 1, MAX_PAYLOAD + 1),
                Err(Size),
            ),
            ("unknown", head(0xbb, 0xff, 0, MAX_PAYLOAD), Ok(())),
            ("DATA", head(kind::DATA, 0, 1, MAX_PAYLOAD), Ok(())),
            ("SETTINGS", head(kind::SETTINGS, 0, 0, 12), Ok(())),
            ("window", head(kind::WINDOW_UPDATE, 0, 0, 4), Ok(())),
        ] {
            assert_eq!(head.check(), expected, "{what}");
        }
    }

    #[test]
    fn fields_lie_between_padding_and_priority() {
        let headers = |flags| head(kind::HEADERS, flags, 1, 0);
        let both = flag::PADDED | flag::PRIORITY;
        assert_eq!(fragment(headers(0), b"abc"), Ok(&b"abc"[..]));
        assert_eq!(fragment(headers(flag::PADDED), b"\x01ab"), Ok(&b"a"[..]));
        assert_eq!(fragment(headers(both), b"\x01.....ab"), Ok(&b"a"[..]));
        assert_eq!(fragment(headers(flag::PADDED), b"\x02ab"), Ok(&b""[..]));
        for (flags, payload, reason) in [
            (flag::PADDED, &b"\x03ab"[..], Reason::ProtocolError),
            (flag::PADDED, b"", Reason::FrameSizeError),
            (flag::PRIORITY, b"....", Reason::FrameSizeError),
        ] {
            assert_eq!(fragment(headers(flags), payload), Err(reason));
        }
    }

    proptest! {
        #[test]
        fn a_header_comes_out_as_it_went_in(
            length in 0..1_usize << 24, kind: u8, flags: u8, stream in 0..1_u32 << 31,
        ) {
            let head = head(kind, flags, stream, length);
            prop_assert_eq!(Head::parse(&head.bytes()), Some(head));
            prop_assert_eq!(Head::parse(&head.bytes()[..8]), None);
        }

        #[test]
        fn a_block_is_cut_into_frames_that_make_it_up_again(
            block in proptest::collection::vec(any::<u8>(), 0..200), most in 1..50_usize,
        ) {
            let mut out = Vec::new();
            put_block(&mut out, 5, &block, true, most);
            let (mut rest, mut seen, mut first) = (&out[..], Vec::new(), true);
            loop {
                let head = Head::parse(rest).expect("a frame");
                prop_assert!(head.length <= most && head.stream == 5);
                prop_assert_eq!(head.kind == kind::HEADERS, first);
                prop_assert_eq!(head.has(flag::END_STREAM), first);
                seen.extend_from_slice(&rest[HEADER..HEADER + head.length]);
                rest = &rest[HEADER + head.length..];
                first = false;
                prop_assert_eq!(head.has(flag::END_HEADERS), rest.is_empty());
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, block);
        }
    }
}
