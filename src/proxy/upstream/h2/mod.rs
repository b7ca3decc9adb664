//! One request and one response over one HTTP/2 stream (RFC 9113 §8.1).

mod request;
mod response;

use std::cell::Cell;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;

use crate::config::{Conditions, Proxy, UpstreamPeer};
use crate::net::deadlines::Deadline;
use crate::proxy::body::UploadError;
use crate::proxy::exchange::{BodySize, BodySource, ResponseSink};
use crate::proxy::request::Request;
use crate::proxy::streams::Lease;
use crate::proxy::transport::TransportError;
use crate::proxy::variables::expand_to_vec;
use crate::telemetry::error_log::Level;

use super::trailers::TrailerFilter;
use super::{Broken, Cause, alongside, body_failed, client_gone, expect_body};
use crate::proxy::log;

/// What has been read of a request's body, so that it can be sent again where
/// that does no harm.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Kept {
    pieces: Vec<Bytes>,
    size: usize,
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

    fn keep(&mut self, piece: &Bytes) {
        self.size += piece.len();
        if self.is_cut || self.size > Self::LIMIT {
            *self = Self {
                is_cut: true,
                ..Self::default()
            };
            return;
        }
        self.pieces.push(piece.clone());
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
        .map(|body| Bytes::from(expand_to_vec(body, request)));
    let size = match &replaced {
        Some(body) => BodySize::Known(body.len() as u64),
        None if !filters.pass_request_body => BodySize::None,
        // It is no longer all there, but it was.
        None if kept.size > 0 => request::size_as_sent(request),
        None => body.size(),
    };
    let passes_body = replaced.is_none() && filters.pass_request_body;
    let ends_with_head =
        matches!(size, BodySize::None | BodySize::Known(0)) && !(passes_body && has_trailers(body));
    let head = request::head(request, proxy, size, lease.is_secure()).map_err(|error| {
        log::request_error(request, Level::Error, format_args!("{error}"));
        Broken::Client(Some(error.status()))
    })?;
    if replaced.is_none() && !ends_with_head {
        expect_body(body, sink).await?;
    }
    let mut sender = lease.sender();
    let (response, mut stream) = poll_fn(|context| sender.poll_ready(context))
        .await
        .and_then(|()| sender.send_request(head, ends_with_head))
        .map_err(|error| Failed::of(&error, lease).before_head(request, peer))?;
    drop(sender);

    let trailers = TrailerFilter::of(request, proxy);
    let all_sent = Cell::new(ends_with_head);
    let has_head = Cell::new(false);
    let silence = Deadline::new();
    // As in Nginx the backend's time begins when it has all of the request.
    silence.arm(if ends_with_head {
        proxy.read_timeout
    } else {
        Duration::MAX
    });
    let client = async {
        if !ends_with_head {
            let mut upload = Upload {
                stream: &mut stream,
                timeout: proxy.send_timeout,
                deadline: Deadline::new(),
            };
            match replaced {
                Some(body) => upload.send(body, true).await?,
                None => upload.body(body, kept, &trailers).await?,
            }
            all_sent.set(true);
            if !has_head.get() {
                silence.arm(proxy.read_timeout);
            }
        }
        if filters.ignore_client_abort {
            pending::<()>().await;
        }
        body.abandoned().await;
        Err(UploadError::Abandoned)
    };
    let waiting = response::Waiting {
        response,
        lease,
        silence: &silence,
        has_head: &has_head,
        all_sent: &all_sent,
    };
    let response = response::respond(request, proxy, peer, unwelcome, waiting, sink);
    let outcome = alongside(pin!(response), pin!(client)).await;
    match outcome {
        Ok(answered) => answered,
        Err(None) => Err(client_gone(request, peer)),
        Err(Some(error)) => {
            body_failed(request, &error);
            Err(Broken::Client(error.status()))
        }
    }
}

/// Whether anything is known to come behind a body.
fn has_trailers(body: &impl BodySource) -> bool {
    body.is_finished() && !body.trailers().is_empty()
}

/// The sending side of a stream.
struct Upload<'s> {
    stream: &'s mut SendStream<Bytes>,
    /// Between two pieces that the backend takes.
    timeout: Duration,
    deadline: Deadline,
}

impl Upload<'_> {
    /// The client's body, from its beginning, and what comes behind it.
    async fn body<B: BodySource>(
        &mut self,
        body: &mut B,
        kept: &mut Kept,
        trailers: &TrailerFilter<'_>,
    ) -> Result<(), UploadError> {
        for piece in kept.pieces.clone() {
            self.send(piece, false).await?;
        }
        while let Some(piece) = body.next().await.map_err(UploadError::Client)? {
            let bytes = piece.buffer.get(piece.range).unwrap_or_default();
            let bytes = Bytes::copy_from_slice(bytes);
            body.give_back(piece.buffer);
            kept.keep(&bytes);
            let is_last = body.is_finished() && !body.has_piece() && !has_trailers(body);
            self.send(bytes, is_last).await?;
            if is_last {
                return Ok(());
            }
        }
        let fields = request::trailers(trailers.passing(&body.trailers()));
        if fields.is_empty() {
            return self.send(Bytes::new(), true).await;
        }
        self.stream
            .send_trailers(fields)
            .map_err(|_| UploadError::Upstream(closed()))
    }

    /// Sends as the peer's windows allow.
    async fn send(&mut self, mut data: Bytes, is_last: bool) -> Result<(), UploadError> {
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len());
            let room = self.room().await?.min(data.len());
            let now = data.split_to(room);
            self.put(now, is_last && data.is_empty())?;
            if data.is_empty() {
                return Ok(());
            }
        }
        if is_last {
            self.put(Bytes::new(), true)?;
        }
        Ok(())
    }

    fn put(&mut self, data: Bytes, is_last: bool) -> Result<(), UploadError> {
        self.stream
            .send_data(data, is_last)
            .map_err(|_| UploadError::Upstream(closed()))
    }

    async fn room(&mut self) -> Result<usize, UploadError> {
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Ok(room);
            }
            self.deadline.arm(self.timeout);
            let changed = poll_fn(|context| self.stream.poll_capacity(context));
            match self.deadline.run(changed).await {
                Err(_) => return Err(UploadError::Upstream(TransportError::TimedOut)),
                Ok(Some(Ok(_))) => {}
                // The response, or its absence, says why.
                Ok(None | Some(Err(_))) => return Err(UploadError::Upstream(closed())),
            }
        }
    }
}

fn closed() -> TransportError {
    TransportError::Io(io::ErrorKind::BrokenPipe.into())
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
    fn of(error: &h2::Error, lease: &Lease) -> Self {
        let code = error.reason().map_or(0, u32::from);
        match error.reason() {
            Some(_) if error.is_remote() && error.is_go_away() => {
                Self::Unprocessed(format!("upstream sent goaway with error {code}"))
            }
            Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => {
                Self::Unprocessed(format!("upstream rejected request with error {code}"))
            }
            Some(_) if error.is_remote() => {
                Self::Reset(format!("upstream rejected request with error {code}"))
            }
            Some(reason) => Self::Invalid(format!(
                "upstream sent invalid http2 frames ({})",
                reason.description()
            )),
            None => Self::Over(
                lease
                    .why_over()
                    .unwrap_or_else(|| "upstream prematurely closed connection".to_owned()),
            ),
        }
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
