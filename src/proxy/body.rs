//! Bodies on their way through, in either direction: streamed, with
//! back-pressure, in bounded memory.

use std::pin::pin;
use std::time::Duration;

use crate::http::error::ChunkError;
use crate::http::h1::chunked::ChunkedDecoder;
use crate::http::h1::encode::{self, Sink};
use crate::http::h1::framing::Kind;
use crate::http::trailers::Trailers;
use crate::net::buffers::{Class, Gaps, Segments};
use crate::net::socket::Behind;

use super::buffering::{self, Buffering, Outgoing};
use super::exchange::{BodyError, BodySource, ResponseSink};
use super::output::Output;
use super::transport::{Rx, TransportError, Tx};

/// How a request body is delimited towards the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamFraming {
    /// By Content-Length: the bytes as they are.
    Length,
    /// In chunks of our own.
    Chunked,
}

/// Why an upload stopped.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The client's side of it.
    Client(BodyError),
    /// The client has gone after all of it was sent.
    Abandoned,
    /// The backend takes no more.
    Upstream(
        #[allow(dead_code, reason = "for the debugger: the response says more")] TransportError,
    ),
}

/// Of the first piece, this much is copied behind the head, so that a small
/// body leaves with it in one segment; what is more is sent from where it lies.
const COPY_LIMIT: usize = 16 << 10;
/// Of a response, what is left for a smaller buffer.
const SMALL_REST: u64 = 16 << 10;
/// Payload of one of our own chunks: fits an [`Output`] with its framing.
const MAX_CHUNK: usize = 32 << 10;

/// Sends a request: `out` holds its head, and the body follows as it comes.
///
/// # Errors
/// See [`UploadError`]. Cancelling it leaves the request cut off.
pub(crate) async fn upload<B: BodySource>(
    mut out: Output,
    body: &mut B,
    framing: UpstreamFraming,
    tx: &mut Tx<'_>,
    timeout: Duration,
) -> Result<(), UploadError> {
    if !body.has_piece() {
        // The backend may want to answer before the body comes.
        send_output(&mut out, tx, timeout).await?;
    }
    while let Some(mut piece) = body.next().await.map_err(UploadError::Client)? {
        match framing {
            UpstreamFraming::Length => {
                if !out.is_empty() {
                    let first = piece.runs.take_front(COPY_LIMIT);
                    out.put(piece.buffer.get(first).unwrap_or_default());
                    send_output(&mut out, tx, timeout).await?;
                }
                let sent = tx.send_piece(piece, Behind::Nothing, timeout).await;
                body.give_back(sent.map_err(UploadError::Upstream)?);
            }
            UpstreamFraming::Chunked => {
                let parts = piece.parts().flat_map(|part| part.chunks(MAX_CHUNK));
                let mut parts = parts.peekable();
                while let Some(part) = parts.next() {
                    put_chunk(part, &mut out);
                    // The last leaves with what ends the body.
                    if parts.peek().is_some() || !body.is_finished() {
                        send_output(&mut out, tx, timeout).await?;
                    }
                }
                drop(parts);
                body.give_back(piece.buffer);
            }
        }
    }
    if framing == UpstreamFraming::Chunked {
        out.put(encode::LAST_CHUNK);
    }
    send_output(&mut out, tx, timeout).await
}

fn put_chunk(data: &[u8], out: &mut Output) {
    let (head, length) = encode::chunk_head(data.len());
    out.put(head.get(..length).unwrap_or_default());
    out.put(data);
    out.put(encode::CHUNK_END);
}

async fn send_output(
    out: &mut Output,
    tx: &mut Tx<'_>,
    timeout: Duration,
) -> Result<(), UploadError> {
    let sent = tx.send_output(out, Behind::Nothing, timeout).await;
    sent.map_err(UploadError::Upstream)
}

/// Why a response body stopped short.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The client takes no more.
    Client(TransportError),
    /// The backend's connection failed or stalled.
    Upstream(TransportError),
    /// The backend closed before the end.
    Premature,
    /// The backend's chunks are wrong.
    Invalid(ChunkError),
}

/// Sends a response body to the client, and leaves it to be ended. The head, not
/// yet sent, leaves with what is already here.
///
/// # Errors
/// See [`RelayError`]. Cancelling it leaves the response cut off.
pub(super) async fn relay<S: ResponseSink>(
    incoming: &mut Incoming,
    rx: &mut Rx<'_>,
    sink: &mut S,
    read_timeout: Duration,
    buffering: Option<&Buffering<'_>>,
) -> Result<(), RelayError> {
    while !incoming.is_done() {
        if rx.input.plain().is_empty() {
            // Sent on at once: it may be an event that somebody waits for.
            sink.flush().await.map_err(RelayError::Client)?;
            match sink.segment_gaps().filter(|_| rx.is_bare()) {
                Some(gaps) if incoming.left().is_some() => {
                    relay_segments(gaps, buffering, rx, sink, incoming, read_timeout).await?;
                }
                _ if incoming.left().is_some() && rx.has_records() => {
                    relay_records(buffering, rx, sink, incoming, read_timeout).await?;
                }
                _ => incoming.fill(rx, Class::Medium, read_timeout).await?,
            }
            continue;
        }
        let part = incoming.decode(rx.input.plain_mut())?;
        match buffering {
            Some(buffering) if incoming.is_done() => {
                let (buffer, start) = rx.input.detach(part.consumed);
                let data = buffer.get(start..start + part.produced);
                let writing = pin!(sink.write(data.unwrap_or_default()));
                let written = buffering.last(writing, rx).await;
                written.map_err(RelayError::Client)?;
            }
            Some(buffering) if part.produced > 0 => {
                let (buffer, start) = rx.input.detach(part.consumed);
                let outgoing = Outgoing::Bytes(buffer, start..start + part.produced);
                buffering.send(outgoing, sink, rx, incoming).await?;
            }
            _ => {
                let data = rx.input.plain().get(..part.produced).unwrap_or_default();
                sink.write(data).await.map_err(RelayError::Client)?;
                rx.input.consume(part.consumed);
            }
        }
    }
    Ok(())
}

/// The bulk of a body of known length: received with gaps, encrypted where it
/// lies, sent.
async fn relay_segments<S: ResponseSink>(
    gaps: Gaps,
    buffering: Option<&Buffering<'_>>,
    rx: &mut Rx<'_>,
    sink: &mut S,
    incoming: &mut Incoming,
    read_timeout: Duration,
) -> Result<(), RelayError> {
    let mut segments = Segments::take(gaps);
    while let Some(left) = incoming.left()
        && rx.is_bare()
    {
        let limit = usize::try_from(left).unwrap_or(usize::MAX);
        let (read, filled) = rx
            .fill_segments(segments, limit, read_timeout)
            .await
            .map_err(RelayError::Upstream)?;
        if read == 0 {
            return Err(RelayError::Premature);
        }
        incoming.take(read);
        let is_full = read == filled.capacity();
        let behind = Behind::more_if(is_full && !incoming.is_done() && rx.has_more());
        let outgoing = Outgoing::Segments(filled, read, behind);
        let sent = match buffering {
            Some(buffering) => buffering.send(outgoing, sink, rx, incoming).await?,
            None => buffering::send(outgoing, sink).await?,
        };
        segments = sent.unwrap_or_else(|| Segments::take(gaps));
    }
    Ok(())
}

/// The same of what comes over TLS: sent from where its records were opened.
async fn relay_records<S: ResponseSink>(
    buffering: Option<&Buffering<'_>>,
    rx: &mut Rx<'_>,
    sink: &mut S,
    incoming: &mut Incoming,
    read_timeout: Duration,
) -> Result<(), RelayError> {
    while let Some(left) = incoming.left()
        && rx.input.plain().is_empty()
    {
        let want = match left {
            ..=SMALL_REST => Class::Medium,
            _ => Class::Large,
        };
        let read = rx.fill_records(want, read_timeout).await;
        if read.map_err(RelayError::Upstream)? == 0 {
            return Err(RelayError::Premature);
        }
        let piece = rx.take_records(left).map_err(RelayError::Upstream)?;
        let Some(piece) = piece else {
            return Ok(());
        };
        incoming.take(piece.runs.len());
        let outgoing = Outgoing::Piece(piece);
        match buffering {
            Some(buffering) => buffering.send(outgoing, sink, rx, incoming).await?,
            None => buffering::send(outgoing, sink).await?,
        };
    }
    Ok(())
}

/// How much of a response's body has come, and how the rest is delimited.
#[derive(Debug)]
pub(super) struct Incoming {
    rest: Rest,
    /// Of a body in chunks, when it is done.
    pub(super) trailers: Trailers,
}

#[derive(Debug)]
enum Rest {
    /// More than 0.
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
    Done,
}

/// What of the input is payload, now at its front, and what of it that took.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) produced: usize,
    pub(super) consumed: usize,
}

impl Incoming {
    pub(super) fn new(framing: Kind) -> Self {
        let rest = match framing {
            Kind::Empty | Kind::Length(0) => Rest::Done,
            Kind::Length(length) => Rest::Length(length),
            Kind::Chunked => Rest::Chunked(ChunkedDecoder::new()),
            Kind::UntilClose => Rest::UntilClose,
        };
        Self {
            rest,
            trailers: Trailers::default(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Done)
    }

    /// The bytes that are still to come, if that is known.
    fn left(&self) -> Option<u64> {
        match self.rest {
            Rest::Length(left) => Some(left),
            Rest::Chunked(_) | Rest::UntilClose | Rest::Done => None,
        }
    }

    /// Counts bytes of a body of known length.
    fn take(&mut self, bytes: usize) {
        if let Rest::Length(left) = &mut self.rest {
            *left = left.saturating_sub(bytes as u64);
            if *left == 0 {
                self.rest = Rest::Done;
            }
        }
    }

    /// Takes the payload out of what has come.
    pub(super) fn decode(&mut self, input: &mut [u8]) -> Result<Part, RelayError> {
        let part = match &mut self.rest {
            Rest::Done => Part {
                produced: 0,
                consumed: 0,
            },
            Rest::Length(left) => {
                let length = input
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.take(length);
                return Ok(Part {
                    produced: length,
                    consumed: length,
                });
            }
            Rest::Chunked(decoder) => {
                let decoded = decoder.decode(input).map_err(RelayError::Invalid)?;
                if decoded.done {
                    self.trailers = decoder.take_trailers();
                    self.rest = Rest::Done;
                }
                Part {
                    produced: decoded.produced,
                    consumed: decoded.consumed,
                }
            }
            Rest::UntilClose => Part {
                produced: input.len(),
                consumed: input.len(),
            },
        };
        Ok(part)
    }

    /// Receives more of it, or learns that this was all.
    ///
    /// # Errors
    /// [`RelayError`] of the backend's side. Cancelling it loses bytes.
    pub(super) async fn fill(
        &mut self,
        rx: &mut Rx<'_>,
        want: Class,
        read_timeout: Duration,
    ) -> Result<(), RelayError> {
        match rx.fill(want, read_timeout).await {
            Ok(0) if matches!(self.rest, Rest::UntilClose) && !rx.was_cut_off() => {
                self.rest = Rest::Done;
                Ok(())
            }
            Ok(0) => Err(RelayError::Premature),
            Ok(_) => Ok(()),
            Err(error) => Err(RelayError::Upstream(error)),
        }
    }
}
