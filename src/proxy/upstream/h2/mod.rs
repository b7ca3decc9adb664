//! One request and one response over one HTTP/2 stream (RFC 9113 §8.1).

mod request;
mod response;

use std::cell::Cell;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::time::Duration;

use crate::config::{Conditions, Proxy, UpstreamPeer};
use crate::http::h2::connection::{Gone, Room, Why};
use crate::http::h2::frame::{MAX_PAYLOAD, Reason};
use crate::net::deadlines::Deadline;
use crate::proxy::body::UploadError;
use crate::proxy::exchange::{BodySize, BodySource, ResponseSink};
use crate::proxy::h2::slot::Slot;
use crate::proxy::request::Request;
use crate::proxy::streams::Lease;
use crate::proxy::transport::TransportError;
use crate::proxy::variables::expand_to_vec;
use crate::telemetry::error_log::Level;

use super::trailers::TrailerFilter;
use super::{Broken, Cause, alongside, body_failed, client_gone, expect_body, record};
use crate::proxy::log;

/// What has been read of a request's body, so that it can be sent again where
/// that does no harm.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Kept {
    bytes: Vec<u8>,
    /// There was more than [`Kept::LIMIT`].
    is_cut: bool,
}

impl Kept {
    /// Bytes at the most: the message of most calls, and what a client may send
    /// before it has heard from us.
    const LIMIT: usize = 64 << 10;

    /// Whether all that has been read is here.
    pub(in crate::proxy) fn is_whole(&self) -> bool {
        !self.is_cut
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.is_cut || self.bytes.len() + piece.len() > Self::LIMIT {
            *self = Self {
                is_cut: true,
                ..Self::default()
            };
            return;
        }
        self.bytes.extend_from_slice(piece);
    }
}

/// One request and one response over a stream of this connection. A response
/// with a status among the `unwelcome` ones does not reach the client.
///
/// # Errors
/// See [`Broken`]. Cancelling it gives the stream up, and with it both ends'
/// exchange, but not the connection.
pub(in crate::proxy) async fn exchange<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    (lease, kept): (&Lease, &mut Kept),
    unwelcome: Conditions,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Broken> {
    if body.is_repeatable() {
        body.rewind();
        *kept = Kept::default();
    }
    let filters = &proxy.filters;
    let replaced = filters
        .body
        .as_ref()
        .map(|body| expand_to_vec(body, request));
    let size = match &replaced {
        Some(body) => BodySize::Known(body.len() as u64),
        None if !filters.pass_request_body => BodySize::None,
        // It is no longer all there, but it was.
        None if !kept.bytes.is_empty() => request::size_as_sent(request),
        None => body.size(),
    };
    let passes_body = replaced.is_none() && filters.pass_request_body;
    let ends_with_head = match size {
        BodySize::None => !(passes_body && has_trailers(body)),
        // Its end need not be here yet.
        BodySize::Known(0) => !passes_body || (body.is_finished() && !body.has_trailers()),
        _ => false,
    };
    let head = request::head(request, proxy, size, lease.is_secure()).map_err(|error| {
        log::request_error(request, Level::Error, format_args!("{error}"));
        Broken::Client(Some(error.status()))
    })?;
    if replaced.is_none() && !ends_with_head {
        expect_body(body, sink).await?;
    }
    let sent = Cell::new(0);
    let slot = lease
        .begin(ends_with_head, |encoder, block| {
            let before = block.len();
            head.write(encoder, block);
            sent.set(block.len() - before);
        })
        .map_err(|Gone| Failed::to_begin(lease).before_head(request, peer))?;
    let trailers = TrailerFilter::of(request, proxy);
    let has_head = Cell::new(false);
    let silence = Deadline::new();
    // As in Nginx the backend's time begins when it has all of the request, or
    // will take no more of it.
    silence.arm(if ends_with_head {
        proxy.read_timeout
    } else {
        Duration::MAX
    });
    let client = async {
        if !ends_with_head {
            let upload = Upload {
                slot: &slot,
                sent: &sent,
                timeout: proxy.send_timeout,
                deadline: Deadline::new(),
            };
            let uploaded = match replaced {
                Some(body) => upload.send(&body, true).await,
                None => upload.body(body, kept, &trailers).await,
            };
            if !has_head.get() {
                silence.arm(proxy.read_timeout);
            }
            uploaded?;
        }
        if filters.ignore_client_abort {
            pending::<()>().await;
        }
        body.abandoned().await;
        Err(UploadError::Abandoned)
    };
    let waiting = response::Waiting {
        slot: &slot,
        lease,
        silence: &silence,
        has_head: &has_head,
    };
    let response = response::respond(request, proxy, peer, unwelcome, waiting, sink);
    let outcome = alongside(pin!(response), pin!(client)).await;
    record(request, |attempt| attempt.traffic.sent = sent.get() as u64);
    match outcome {
        Ok(answered) => answered,
        Err(None) => Err(client_gone(request, peer, false)),
        Err(Some(error)) => {
            body_failed(request, &error);
            Err(Broken::Client(error.status()))
        }
    }
}

/// Whether anything is known to come behind a body.
fn has_trailers(body: &impl BodySource) -> bool {
    body.is_finished() && body.has_trailers()
}

/// The sending side of a stream.
struct Upload<'s> {
    slot: &'s Slot,
    /// Bytes of fields and body so far.
    sent: &'s Cell<usize>,
    /// Between two pieces that the backend takes.
    timeout: Duration,
    deadline: Deadline,
}

impl Upload<'_> {
    /// The client's body, from its beginning, and what comes behind it.
    async fn body<B: BodySource>(
        &self,
        body: &mut B,
        kept: &mut Kept,
        trailers: &TrailerFilter<'_>,
    ) -> Result<(), UploadError> {
        self.send(&kept.bytes, false).await?;
        while let Some(piece) = body.next().await.map_err(UploadError::Client)? {
            let is_last = body.is_finished() && !body.has_piece() && !has_trailers(body);
            let mut sent = Ok(());
            let mut parts = piece.parts().peekable();
            while let (Ok(()), Some(part)) = (&sent, parts.next()) {
                kept.keep(part);
                sent = self.send(part, is_last && parts.peek().is_none()).await;
            }
            drop(parts);
            body.give_back(piece.buffer);
            sent?;
            if is_last {
                return Ok(());
            }
        }
        let fields = request::trailers(trailers.passing(&body.trailers()));
        if fields.is_empty() {
            return self.send(&[], true).await;
        }
        let sent = self
            .slot
            .send_fields(true, |encoder, block| fields.write(encoder, block));
        sent.map_err(closed)
    }

    /// Sends as the peer's windows allow.
    async fn send(&self, mut data: &[u8], is_last: bool) -> Result<(), UploadError> {
        if data.is_empty() && is_last {
            // Takes no window.
            return self.slot.send_data(&[], true).map_err(closed);
        }
        while !data.is_empty() {
            let room = self.turn().await?;
            let most = room.stream.min(room.connection).min(MAX_PAYLOAD);
            let (now, later) = data.split_at_checked(most).unwrap_or((data, &[]));
            let ends = is_last && later.is_empty();
            self.slot.send_data(now, ends).map_err(closed)?;
            self.sent.set(self.sent.get() + now.len());
            data = later;
        }
        Ok(())
    }

    /// Waits for the stream's turn: there is room for at least one byte.
    async fn turn(&self) -> Result<Room, UploadError> {
        self.deadline.arm(self.timeout);
        let turn = poll_fn(|context| self.slot.poll_turn(context));
        match self.deadline.run(turn).await {
            Err(_) => {
                // The stream stays for its answer, and must not be waited for.
                self.slot.leave_line();
                Err(UploadError::Upstream(TransportError::TimedOut))
            }
            Ok(room) => room.map_err(closed),
        }
    }
}

/// The response, or its absence, says why.
fn closed(_: Gone) -> UploadError {
    UploadError::Upstream(TransportError::Io(io::ErrorKind::BrokenPipe.into()))
}

/// Why a stream ended before its end.
#[derive(Debug)]
pub(in crate::proxy) enum Failed {
    /// The backend has not looked at the request and says so (RFC 9113 §8.7):
    /// it can go elsewhere, whatever it asks for.
    Unprocessed(String),
    /// The connection is over.
    Over(String),
    /// The backend reset the stream.
    Reset(String),
    /// What it sent is not HTTP/2.
    Invalid(String),
}

impl Failed {
    fn of(why: Option<Why>, lease: &Lease) -> Self {
        match why {
            Some(Why::Unprocessed(code)) => {
                Self::Unprocessed(format!("upstream sent goaway with error {code}"))
            }
            Some(Why::Reset(code)) => {
                let message = format!("upstream rejected request with error {code}");
                match code == Reason::RefusedStream as u32 {
                    true => Self::Unprocessed(message),
                    false => Self::Reset(message),
                }
            }
            Some(Why::Broken(reason)) => Self::invalid(reason.as_str()),
            None => Self::Over(
                lease
                    .why_over()
                    .unwrap_or_else(|| "upstream prematurely closed connection".to_owned()),
            ),
        }
    }

    /// No stream has begun.
    fn to_begin(lease: &Lease) -> Self {
        match lease.is_over() {
            true => Self::of(None, lease),
            false => Self::Unprocessed("upstream takes no more requests".to_owned()),
        }
    }

    fn invalid(what: &str) -> Self {
        Self::Invalid(format!("upstream sent invalid http2 frames ({what})"))
    }

    pub(super) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Unprocessed(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }

    fn before_head(self, request: &Request<'_>, peer: &UpstreamPeer) -> Broken {
        match self {
            Self::Unprocessed(_) | Self::Over(_) => {
                Broken::Untouched(Cause::Stream(Box::new(self)))
            }
            Self::Reset(_) | Self::Invalid(_) => {
                let phase = super::HEAD_PHASE;
                let message = format_args!("{self} while {phase}");
                log::upstream_error(request, Level::Error, Some(peer), message);
                Broken::Unanswered(502, Conditions::INVALID_HEADER)
            }
        }
    }

    fn in_body(&self, request: &Request<'_>, peer: &UpstreamPeer) -> Broken {
        let message = format_args!("{self} while reading upstream");
        log::upstream_error(request, Level::Error, Some(peer), message);
        Broken::Upstream
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unprocessed(message)
        | Self::Over(message)
        | Self::Reset(message)
        | Self::Invalid(message)) = self;
        f.write_str(message)
    }
}
