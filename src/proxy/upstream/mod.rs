//! One request and one response over one upstream connection, or over one
//! stream of it.

mod certificates;
pub(super) mod h2;
mod hold;
mod request;
mod response;
pub(super) mod secure;
mod target;
mod trailers;

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::hint::cold_path;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::config::{Conditions, Proxy, UpstreamPeer};
use crate::http::h1::encode::Sink as _;
use crate::http::head::ResponseHead;
use crate::net::socket::Behind;
use crate::telemetry::error_log::Level;

use super::body::{self, UploadError, UpstreamFraming};
use super::exchange::{BodyError, BodySize, BodySource, ResponseSink};
use super::forward::{Failure, Target};
use super::log;
use super::output::Output;
use super::pool::Connection;
use super::request::{Attempt, Request};
use super::transport::{Rx, TransportError, Tx};
use super::variables::expand_to_vec;
use h2::Failed;
use hold::Hold;
pub(super) use request::sent_method;
use response::Answered;

/// Whether the upstream connection can serve another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    Yes,
    No,
}

impl Reuse {
    /// This, unless something else stands against it.
    fn only_if(self, holds: bool) -> Self {
        if holds { self } else { Self::No }
    }
}

/// How an exchange broke off.
#[derive(Debug)]
pub(super) enum Broken {
    /// The backend failed before a byte of its answer came. Not yet logged:
    /// for a pooled connection it is no error.
    Untouched(Cause),
    /// The backend failed or sent what it must not before there was a whole
    /// head: the status for the client, and what it is in the words of
    /// `proxy_next_upstream`.
    Unanswered(u16, Conditions),
    /// It answered with a status that sends the request elsewhere.
    Unwelcome(u16),
    /// It failed, or sent what it must not, later than that.
    Upstream,
    /// The client failed; with the status that it may be told.
    Client(Option<u16>),
    /// Nothing did, but the configuration or the backend wants another answer
    /// in place of this one.
    Elsewhere(Failure),
    /// A connection that had changed protocols broke off, which says nothing
    /// about how the backend answers requests.
    Tunnel,
}

impl Broken {
    /// Whether the backend says that it has not looked at the request.
    pub(super) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Untouched(Cause::Stream(failed)) if failed.is_unprocessed())
    }

    /// Whether this is what happens on a connection that the backend has
    /// closed while it was idle.
    pub(super) fn is_stale_connection(&self) -> bool {
        match self {
            Self::Untouched(Cause::Closed) => true,
            Self::Untouched(Cause::Stream(failed)) => failed.is_over(),
            Self::Untouched(Cause::Send(error) | Cause::Receive(error)) => {
                matches!(error, TransportError::Io(_))
            }
            Self::Unanswered(..)
            | Self::Unwelcome(_)
            | Self::Upstream
            | Self::Client(_)
            | Self::Elsewhere(_)
            | Self::Tunnel => false,
        }
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum Cause {
    Send(TransportError),
    Receive(TransportError),
    Closed,
    /// Over HTTP/2. Boxed: it would make room in every task.
    Stream(Box<Failed>),
}

impl Cause {
    /// Tells the log; the result is the status for the client.
    #[cold]
    pub(super) fn report(&self, request: &Request<'_>, peer: &UpstreamPeer) -> u16 {
        match self {
            Self::Send(error) => upstream_failed(
                request,
                peer,
                error,
                "send()",
                "sending request to upstream",
            ),
            Self::Receive(error) => upstream_failed(request, peer, error, "recv()", HEAD_PHASE),
            Self::Closed => {
                closed_early(request, peer, HEAD_PHASE);
                502
            }
            Self::Stream(failed) => {
                let message = format_args!("{failed} while {HEAD_PHASE}");
                log::upstream_error(request, Level::Error, Some(peer), message);
                502
            }
        }
    }
}

const HEAD_PHASE: &str = "reading response header from upstream";

/// One request and one response over one connection. A response with a status
/// among the target's `unwelcome` ones does not reach the client.
pub(super) async fn exchange<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
    connection: &mut Connection,
    body: &mut B,
    sink: &mut S,
) -> Result<Reuse, Broken> {
    let peer = target.peer;
    let (mut rx, mut tx) = connection.transport.split();
    let filters = &proxy.filters;
    body.rewind();
    let replaced = filters
        .body
        .as_ref()
        .map(|body| expand_to_vec(body, request));
    let size = match &replaced {
        Some(body) => BodySize::Known(body.len() as u64),
        None if !filters.pass_request_body => BodySize::None,
        None => body.size(),
    };
    let mut output = Output::default();
    if !request::write_head(request, proxy, size, &mut output) {
        return Err(cannot_be_sent(
            request,
            500,
            "invalid method in \"proxy_method\"",
        ));
    }
    if output.is_overflown() {
        let message = "request header is too large to be sent to upstream";
        return Err(cannot_be_sent(request, 494, message));
    }
    let upload = if replaced.is_some() || size == BodySize::None {
        let timeout = proxy.send_timeout;
        let sent = match replaced {
            None => tx.send_output(&mut output, Behind::Nothing, timeout).await,
            // Boxed: rare, and every other request would have room for it.
            Some(ours) => Box::pin(send_whole(output, &ours, &mut tx, timeout)).await,
        };
        sent.map_err(|error| Broken::Untouched(Cause::Send(error)))?;
        None
    } else {
        cold_path();
        expect_body(body, sink).await?;
        let framing = match size {
            BodySize::Known(_) => UpstreamFraming::Length,
            _ => UpstreamFraming::Chunked,
        };
        Some((output, framing))
    };
    let hold = Hold::new(target, &connection.card, upload.is_none());
    let silence = rx.deadline();
    let outcome = {
        // Both pinned where they are made: they would be moved there first.
        let client = pin!(async {
            if let Some((head, framing)) = upload {
                cold_path();
                let sent = body::upload(head, body, framing, &mut tx, proxy.send_timeout).await;
                // As in Nginx the backend's time begins when it has all of the
                // request, or will take no more of it.
                silence.arm(proxy.read_timeout);
                sent?;
                hold.all_sent.set(true);
            }
            if filters.ignore_client_abort {
                pending::<()>().await;
            }
            body.abandoned().await;
            Err(UploadError::Abandoned)
        });
        let response = pin!(response::respond(
            request, proxy, target, &hold, &mut rx, sink
        ));
        alongside(response, client).await
    };
    match outcome {
        Ok(Ok(Answered::Response(reuse))) => Ok(reuse.only_if(hold.all_sent.get())),
        Ok(Ok(Answered::Switching(head))) => {
            let (upstream, client) = ((&mut rx, &mut tx), (body, sink));
            let sent = hold.all_sent.get();
            let switching = switch(request, proxy, peer, &head, sent, upstream, client);
            // Boxed: rare, and every other request would have room for it.
            Box::pin(switching).await
        }
        Ok(Err(broken)) => Err(broken),
        Err(None) => Err(client_gone(request, peer, hold.released().is_none())),
        Err(Some(error)) => {
            body_failed(request, &error);
            Err(Broken::Client(error.status()))
        }
    }
}

/// Tells the log why a head cannot be sent; `status` is what the client is told.
#[cold]
fn cannot_be_sent(request: &Request<'_>, status: u16, why: &str) -> Broken {
    log::request_error(request, Level::Error, format_args!("{why}"));
    Broken::Client(Some(status))
}

/// Tells the log so, and whether the upstream connection `ends` with it: one that
/// others have streams of, or that has been left to others, does not.
#[cold]
fn client_gone(request: &Request<'_>, peer: &UpstreamPeer, ends: bool) -> Broken {
    let consequence = match ends {
        true => ", so upstream connection is closed too",
        false => "",
    };
    log::upstream_error(
        request,
        Level::Info,
        Some(peer),
        format_args!("client prematurely closed connection{consequence}"),
    );
    Broken::Client(None)
}

/// Tells the log why a request's body did not come.
#[cold]
pub(super) fn body_failed(request: &Request<'_>, error: &BodyError) {
    log::request_error(
        request,
        Level::Info,
        format_args!("{error} while reading client request body"),
    );
}

/// Asks for the body, if the client waits to be asked. Answered here and not by
/// the backend, as Nginx does: the backend must then take the body, which is
/// what a buffering proxy promises.
pub(super) async fn expect_body<B: BodySource, S: ResponseSink>(
    body: &B,
    sink: &mut S,
) -> Result<(), Broken> {
    if body.awaits_continue() {
        sink.interim(100).await.map_err(|_| Broken::Client(None))?;
    }
    Ok(())
}

/// Sends a head and a body that is there already, which leaves with the head if
/// it is short.
async fn send_whole(
    mut head: Output,
    body: &[u8],
    tx: &mut Tx<'_>,
    timeout: Duration,
) -> Result<(), TransportError> {
    let joined = body.len() <= Output::CAPACITY.saturating_sub(head.len());
    if joined {
        head.put(body);
    }
    tx.send_output(&mut head, Behind::more_if(!joined), timeout)
        .await?;
    for piece in body.chunks(Output::CAPACITY).filter(|_| !joined) {
        let mut output = Output::default();
        output.put(piece);
        tx.send_output(&mut output, Behind::Nothing, timeout)
            .await?;
    }
    Ok(())
}

/// The backend wants to speak another protocol from here on. `sent` says whether
/// it has all of the request.
async fn switch<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    head: &ResponseHead,
    sent: bool,
    upstream: (&mut Rx<'_>, &mut Tx<'_>),
    client: (&mut B, &mut S),
) -> Result<Reuse, Broken> {
    // Nothing of the client's body may be left to be taken for the new
    // protocol, as it is where the backend was not to have it.
    if !sent || !client.0.is_finished() {
        let what = "101 before the end of the request";
        return Err(response::invalid(request, peer, &what));
    }
    if !request::asks_for_upgrade(request, proxy) {
        let what = "101 to a request that asked for no upgrade";
        return Err(response::invalid(request, peer, &what));
    }
    response::switch(request, proxy, peer, head, upstream, client).await
}

/// Drives the response to its end, and what the client does alongside. A client
/// that fails ends both, with `None` if it is gone; a backend that stops taking
/// the body may still have answered, so its answer is waited for.
async fn alongside<T>(
    mut response: Pin<&mut impl Future<Output = T>>,
    mut client: Pin<&mut impl Future<Output = Result<(), UploadError>>>,
) -> Result<T, Option<BodyError>> {
    let mut ended = false;
    poll_fn(|context| {
        if !ended && let Poll::Ready(result) = client.as_mut().poll(context) {
            match result {
                Ok(()) | Err(UploadError::Upstream(_)) => ended = true,
                Err(UploadError::Abandoned) => return Poll::Ready(Err(None)),
                Err(UploadError::Client(error)) => return Poll::Ready(Err(Some(error))),
            }
        }
        response.as_mut().poll(context).map(Ok)
    })
    .await
}

/// Tells the log; the result is the status for the client.
#[cold]
fn upstream_failed(
    request: &Request<'_>,
    peer: &UpstreamPeer,
    error: &TransportError,
    call: &str,
    phase: &str,
) -> u16 {
    let (status, message): (u16, &dyn fmt::Display) = match error {
        TransportError::TimedOut => (504, &"upstream timed out (110: Connection timed out)"),
        // An alert may be about the certificate that the backend was shown.
        error @ TransportError::Tls(_) => (
            502,
            &fmt::from_fn(move |f| write!(f, "{error}{}", secure::certificate_shown(request))),
        ),
        error => (502, &fmt::from_fn(move |f| write!(f, "{call} {error}"))),
    };
    log::upstream_error(
        request,
        Level::Error,
        Some(peer),
        format_args!("{message} while {phase}"),
    );
    status
}

#[cold]
fn closed_early(request: &Request<'_>, peer: &UpstreamPeer, phase: &str) {
    log::upstream_error(
        request,
        Level::Error,
        Some(peer),
        format_args!("upstream prematurely closed connection while {phase}"),
    );
}

/// Notes something about the try under way.
pub(super) fn record(request: &mut Request<'_>, note: impl FnOnce(&mut Attempt)) {
    if let Some(attempt) = request.attempts.last_mut() {
        note(attempt);
    }
}
