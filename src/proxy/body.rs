//! Bodies on their way through, in either direction: streamed, with
//! back-pressure, in bounded memory.

use std::time::Duration;

use crate::http::error::ChunkError;
use crate::http::h1::chunked::ChunkedDecoder;
use crate::http::h1::encode::{self, Sink};
use crate::http::h1::framing::Kind;
use crate::net::buffers::{Class, Segments};

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
        if !out.is_empty() || framing == UpstreamFraming::Chunked {
            for part in piece
                .buffer
                .get(piece.range.clone())
                .unwrap_or_default()
                .chunks(MAX_CHUNK)
            {
                let part = if framing == UpstreamFraming::Length {
                    part.get(..COPY_LIMIT).unwrap_or(part)
                } else {
                    part
                };
                put_framed(part, framing, &mut out);
                piece.range.start += part.len();
                if framing == UpstreamFraming::Length
                    || !body.is_finished()
                    || !piece.range.is_empty()
                {
                    send_output(&mut out, tx, timeout).await?;
                }
                if framing == UpstreamFraming::Length {
                    break;
                }
            }
        }
        if !piece.range.is_empty() {
            let sent = tx.send(piece.buffer, piece.range, timeout).await;
            piece.buffer = sent.map_err(UploadError::Upstream)?;
        }
        body.give_back(piece.buffer);
    }
    if framing == UpstreamFraming::Chunked {
        out.put(encode::LAST_CHUNK);
    }
    send_output(&mut out, tx, timeout).await
}

fn put_framed(data: &[u8], framing: UpstreamFraming, out: &mut Output) {
    if data.is_empty() {
        return;
    }
    match framing {
        UpstreamFraming::Length => out.put(data),
        UpstreamFraming::Chunked => {
            let (head, length) = encode::chunk_head(data.len());
            out.put(head.get(..length).unwrap_or_default());
            out.put(data);
            out.put(encode::CHUNK_END);
        }
    }
}

async fn send_output(
    out: &mut Output,
    tx: &mut Tx<'_>,
    timeout: Duration,
) -> Result<(), UploadError> {
    if let Some((buffer, range)) = out.take() {
        tx.send(buffer, range, timeout)
            .await
            .map_err(UploadError::Upstream)?;
    }
    Ok(())
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

/// Sends a response body to the client, and leaves it to be ended; returns its
/// payload bytes. The head, not yet sent, leaves with what is already here.
///
/// # Errors
/// See [`RelayError`]. Cancelling it leaves the response cut off.
pub(crate) async fn relay<S: ResponseSink>(
    framing: Kind,
    rx: &mut Rx<'_>,
    sink: &mut S,
    read_timeout: Duration,
) -> Result<u64, RelayError> {
    let received = match framing {
        Kind::Empty => 0,
        Kind::Length(length) => relay_length(length, rx, sink, read_timeout).await?,
        Kind::Chunked => relay_chunked(rx, sink, read_timeout).await?,
        Kind::UntilClose => relay_until_close(rx, sink, read_timeout).await?,
    };
    Ok(received)
}

async fn relay_length<S: ResponseSink>(
    length: u64,
    rx: &mut Rx<'_>,
    sink: &mut S,
    read_timeout: Duration,
) -> Result<u64, RelayError> {
    let mut left = length;
    while left > 0 {
        if !rx.input.plain().is_empty() {
            let plain = rx.input.plain();
            let data = plain
                .get(..usize::try_from(left).unwrap_or(usize::MAX))
                .unwrap_or(plain);
            sink.write(data).await.map_err(RelayError::Client)?;
            let used = data.len();
            left -= used as u64;
            rx.input.consume(used);
            continue;
        }
        sink.flush().await.map_err(RelayError::Client)?;
        match sink.segment_gaps().filter(|_| rx.is_bare()) {
            Some(gaps) => left = relay_segments(left, gaps, rx, sink, read_timeout).await?,
            None => fill(rx, read_timeout).await?,
        }
    }
    Ok(length)
}

/// The bulk of a body: received with gaps, encrypted where it lies, sent.
async fn relay_segments<S: ResponseSink>(
    mut left: u64,
    gaps: (usize, usize),
    rx: &mut Rx<'_>,
    sink: &mut S,
    read_timeout: Duration,
) -> Result<u64, RelayError> {
    let mut segments = Segments::take(gaps.0, gaps.1);
    while left > 0 {
        let limit = usize::try_from(left).unwrap_or(usize::MAX);
        let (read, filled) = rx
            .fill_segments(segments, limit, read_timeout)
            .await
            .map_err(RelayError::Upstream)?;
        if read == 0 {
            return Err(RelayError::Premature);
        }
        segments = sink
            .segments(filled, read)
            .await
            .map_err(RelayError::Client)?;
        left -= read as u64;
    }
    Ok(left)
}

async fn relay_chunked<S: ResponseSink>(
    rx: &mut Rx<'_>,
    sink: &mut S,
    read_timeout: Duration,
) -> Result<u64, RelayError> {
    let mut decoder = ChunkedDecoder::new();
    let mut received = 0;
    loop {
        if !rx.input.plain().is_empty() {
            let decoded = decoder
                .decode(rx.input.plain_mut())
                .map_err(RelayError::Invalid)?;
            let data = rx.input.plain().get(..decoded.produced).unwrap_or_default();
            sink.write(data).await.map_err(RelayError::Client)?;
            received += decoded.produced as u64;
            rx.input.consume(decoded.consumed);
            if decoded.done {
                return Ok(received);
            }
        }
        // Sent on at once: it may be an event that somebody waits for.
        sink.flush().await.map_err(RelayError::Client)?;
        fill(rx, read_timeout).await?;
    }
}

async fn relay_until_close<S: ResponseSink>(
    rx: &mut Rx<'_>,
    sink: &mut S,
    read_timeout: Duration,
) -> Result<u64, RelayError> {
    let mut received = 0;
    loop {
        let data = rx.input.plain();
        let length = data.len();
        if length > 0 {
            sink.write(data).await.map_err(RelayError::Client)?;
            received += length as u64;
            rx.input.consume(length);
        }
        sink.flush().await.map_err(RelayError::Client)?;
        match rx.fill(Class::Medium, read_timeout).await {
            Ok(0) if rx.was_cut_off() => return Err(RelayError::Premature),
            Ok(0) => return Ok(received),
            Ok(_) => {}
            Err(error) => return Err(RelayError::Upstream(error)),
        }
    }
}

async fn fill(rx: &mut Rx<'_>, read_timeout: Duration) -> Result<(), RelayError> {
    match rx.fill(Class::Medium, read_timeout).await {
        Ok(0) => Err(RelayError::Premature),
        Ok(_) => Ok(()),
        Err(error) => Err(RelayError::Upstream(error)),
    }
}
