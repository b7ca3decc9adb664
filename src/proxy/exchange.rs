//! What serving a request needs from the protocol that brought it: a body to
//! read and a response to write. HTTP/1.1 implements both ends; another
//! version takes its place beside it without a second request path.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::http::error::{ChunkError, Refusal};
use crate::http::trailers::Trailers;
use crate::net::buffers::{Buffer, Gaps, Segments};
use crate::net::socket::Behind;

use super::ahead::Ahead;
use super::gzip::Plan;
use super::runs::Runs;
use super::transport::TransportError;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodySize {
    /// There is none, and the status or the method says so.
    None,
    /// There is none, but a HEAD request's answer tells what a GET would get.
    Announced(u64),
    /// This many bytes.
    Known(u64),
    /// Known only when it ends.
    Unknown,
}

/// The fields that a sink adds to those it is given, for the log.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct OwnFields {
    /// Content-Length.
    pub(crate) length: Option<u64>,
    /// Connection; empty where there is none.
    pub(crate) connection: &'static str,
    /// Keep-Alive: seconds.
    pub(crate) keep_alive: Option<u64>,
    /// Transfer-Encoding says `chunked`.
    pub(crate) is_chunked: bool,
    /// Content-Encoding says `gzip`.
    pub(crate) is_compressed: bool,
    /// How much longer the body was than what was made of it, in hundredths; 0
    /// where nothing was.
    pub(crate) gzip_ratio: u64,
}

/// Interim responses (1xx) that a backend may send before the final one.
pub(crate) const MAX_INTERIM: usize = 16;

/// A part of a body, lent together with its buffer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) buffer: Buffer,
    pub(crate) runs: Runs,
}

impl Piece {
    /// One in a buffer that has nothing else.
    pub(crate) fn alone(buffer: Buffer, range: Range<usize>) -> Self {
        let mut runs = Runs::default();
        runs.push(range);
        runs.end_at(buffer.len());
        Self { buffer, runs }
    }

    /// Its bytes, of which there are at least one.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.parts(&self.buffer)
    }
}

/// Why a request body ended before its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client's connection failed or stalled.
    Transport(TransportError),
    /// The client closed it.
    Closed,
    /// The client's framing is wrong.
    Invalid(ChunkError),
    /// It is longer than `client_max_body_size`.
    TooLarge,
    /// It comes with less than `client_body_min_rate`.
    TooSlow,
}

impl BodyError {
    /// What the client is told, if it still can be.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Transport(TransportError::TimedOut) | Self::TooSlow => Some(408),
            Self::Transport(_) | Self::Closed => None,
            Self::Invalid(error) => Some(error.status()),
            Self::TooLarge => Some(413),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(TransportError::TimedOut) => f.write_str("client timed out"),
            Self::Transport(error) => write!(f, "recv() {error}"),
            Self::Closed => f.write_str("client prematurely closed connection"),
            Self::Invalid(error) => write!(f, "client sent {error}"),
            Self::TooSlow => f.write_str("client sends less than \"client_body_min_rate\""),
            Self::TooLarge => f.write_str("client intended to send too large chunked body"),
        }
    }
}

/// A request's body.
pub(crate) trait BodySource {
    /// Before anything is read: how long it will be.
    fn size(&self) -> BodySize;

    /// The client waits for a 100 (Continue) before it sends (RFC 9110
    /// §10.1.1).
    fn awaits_continue(&self) -> bool;

    /// Whether the next piece is here already.
    fn has_piece(&self) -> bool;

    /// What the location says: the time between two reads, and the bytes of a
    /// body of unknown size at the most (0 for no limit).
    fn set_limits(&mut self, read_timeout: Duration, max_size: u64);

    /// What the location demands besides: so many bytes a second, once the
    /// client has been waited for as long as is said. A source that does not
    /// keep count of that does without.
    fn demand_rate(&mut self, _: u64, _: Duration) {}

    /// The next part, of at least one byte; `None` at the end. Each piece's
    /// buffer must be given back before the next call. Cancelling it loses
    /// bytes: the connection is then done for.
    async fn next(&mut self) -> Result<Option<Piece>, BodyError>;

    /// Returns the buffer of a piece.
    fn give_back(&mut self, buffer: Buffer);

    /// Reads the first `limit` bytes of it, or all if it is shorter; the body
    /// may then have another size than before. `keep` asks for it to be
    /// repeatable also where all is here already. Cancelling it loses bytes.
    async fn read_ahead(&mut self, limit: usize, keep: bool) -> Result<(), BodyError>;

    /// What [`BodySource::read_ahead`] has read.
    fn ahead(&self) -> Option<&Ahead>;

    /// The same, to be begun again.
    fn ahead_mut(&mut self) -> Option<&mut Ahead>;

    /// Whether it can be sent more than once.
    fn is_repeatable(&self) -> bool {
        self.ahead().is_some_and(Ahead::is_whole)
    }

    /// Begins again, if it is repeatable.
    fn rewind(&mut self) {
        if let Some(ahead) = self.ahead_mut().filter(|ahead| ahead.is_whole()) {
            ahead.rewind();
        }
    }

    /// What came behind it, once it is finished; as often as it is sent.
    fn trailers(&self) -> Trailers {
        Trailers::default()
    }

    /// Whether that is anything.
    fn has_trailers(&self) -> bool {
        false
    }

    /// Waits until the client is gone. No piece may be on loan. Cancelling it
    /// does nothing.
    async fn abandoned(&mut self);

    /// Nothing of it is left to read.
    fn is_finished(&self) -> bool;

    /// Nothing of it has been read yet.
    fn is_whole(&self) -> bool;

    /// From here on it looks empty, whatever is left of it.
    fn withhold(&mut self);

    /// What comes behind this request is another protocol's: from here on
    /// [`BodySource::next`] yields it as it comes, without limits of time or
    /// size, until the client ends its side.
    fn switch_protocols(&mut self);
}

/// A request's answer. The head is written field by field into a buffer; it
/// leaves together with the first bytes of the body.
///
/// Cancelling any of the asynchronous methods leaves the response cut off.
pub(crate) trait ResponseSink {
    /// An interim response of this status, sent at once.
    async fn interim(&mut self, status: u16) -> Result<(), TransportError>;

    /// Asks for the body to be compressed by this plan, between
    /// [`ResponseSink::start`] and the first field. A sink that cannot do that
    /// sends it as it is.
    fn compress(&mut self, _: Box<Plan>) {}

    /// Begins the final response: with a backend's `reason`, where there is one
    /// and the protocol has a place for it, or else the usual phrase.
    /// `send_timeout` is between two writes.
    fn start(&mut self, status: u16, reason: Option<&[u8]>, send_timeout: Duration);

    /// Adds a field.
    fn field(&mut self, name: &[u8], value: &[u8]);

    /// Ends the head.
    fn end_head(&mut self, size: BodySize);

    /// Adds to the body; what does not fit is sent.
    async fn write(&mut self, data: &[u8]) -> Result<(), TransportError>;

    /// Sends what is buffered.
    async fn flush(&mut self) -> Result<(), TransportError>;

    /// The gaps with which segments must be taken for [`ResponseSink::segments`];
    /// `None` if this response cannot take segments.
    fn segment_gaps(&self) -> Option<Gaps>;

    /// Sends the `filled` payload bytes of `segments` from where they lie.
    async fn segments(
        &mut self,
        segments: Segments,
        filled: usize,
        behind: Behind,
    ) -> Result<Segments, TransportError>;

    /// Adds a piece to the body and sends all that has been added, the piece from
    /// where it lies if that can be.
    async fn piece(&mut self, piece: Piece, _: Behind) -> Result<(), TransportError> {
        write_piece(self, piece).await
    }

    /// Ends the body and sends all that is left of the response.
    async fn finish(&mut self) -> Result<(), TransportError>;

    /// Ends the head of a 101: what is written from here on goes out as it is,
    /// until [`ResponseSink::end_sending`].
    fn switch_protocols(&mut self);

    /// Sends what is buffered and tells the client that no more will come; the
    /// client may still send.
    async fn end_sending(&mut self) -> Result<(), TransportError>;

    /// Whether any byte of the final response may have left.
    fn is_committed(&self) -> bool;

    /// Forgets a response that has begun but of which nothing has left.
    fn discard(&mut self);

    /// From here on so many bytes of the body leave in a second, after as many
    /// as are free; 0 for no limit.
    fn limit_rate(&mut self, rate: u64, after: u64);

    /// An interim 103 with these fields, sent at once.
    async fn early_hints(&mut self, fields: &[(&[u8], &[u8])]) -> Result<(), TransportError>;

    /// Fields are to follow the body: it must go in chunks, if it has any and
    /// the client can take them. Before the head ends.
    fn expect_trailers(&mut self);

    /// Whether [`ResponseSink::trailer`] has an effect.
    fn takes_trailers(&self) -> bool;

    /// Adds a field behind the body. After the head, before the end.
    fn trailer(&mut self, name: &[u8], value: &[u8]);

    /// A body of unknown size is to end with the connection, not in chunks.
    fn refuse_chunks(&mut self);

    /// No further request will be read from this client after this response.
    fn close_after(&mut self);

    /// If further requests are welcome, tell the client for how long.
    fn announce_keep_alive(&mut self, timeout: Duration);

    /// Body bytes handed over so far, framing included.
    fn body_bytes(&self) -> u64;

    /// What the head says that no [`ResponseSink::field`] has added.
    fn own_fields(&self) -> OwnFields {
        OwnFields::default()
    }
}

/// What [`ResponseSink::piece`] does where a piece cannot be sent from where it
/// lies.
pub(crate) async fn write_piece<S: ResponseSink + ?Sized>(
    sink: &mut S,
    piece: Piece,
) -> Result<(), TransportError> {
    for part in piece.parts() {
        sink.write(part).await?;
    }
    sink.flush().await
}
