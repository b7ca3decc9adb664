//! An HTTP/2 backend's answer, on its way to the client.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::response::Parts;

use crate::config::{Conditions, Proxy, ProxyFamily, UpstreamPeer};
use crate::http::h1::framing::{self, Kind};
use crate::http::head::{Field, FieldId, Method, ResponseHead, Span};
use crate::http::headers::{ConnectionOptions, is_hop_by_hop};
use crate::net::deadlines::Deadline;
use crate::proxy::exchange::ResponseSink;
use crate::proxy::pace::Pace;
use crate::proxy::request::Request;
use crate::proxy::respond as answers;
use crate::proxy::streams::Lease;
use crate::proxy::transport::TransportError;
use crate::proxy::upstream::request::sent_method;
use crate::proxy::upstream::response::{
    MAX_INTERIM, client_failed, elsewhere, head_limits, invalid, is_hidden_by_default,
    passes_early_hints, send_early_hints, send_response_head,
};
use crate::proxy::upstream::{Broken, Cause, record, upstream_failed};

use super::Failed;

/// What is waited for.
pub(super) struct Waiting<'e> {
    pub(super) response: ResponseFuture,
    pub(super) lease: &'e Lease,
    /// Armed; passes when the backend has been silent for too long.
    pub(super) silence: &'e Deadline,
    /// Set when the head is there.
    pub(super) has_head: &'e Cell<bool>,
    /// Whether the backend has all of the request.
    pub(super) all_sent: &'e Cell<bool>,
}

/// Receives the response's head, sends ours, relays body and trailers.
pub(super) async fn respond<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    unwelcome: Conditions,
    mut waiting: Waiting<'_>,
    sink: &mut S,
) -> Result<(), Broken> {
    let mut bytes = Vec::new();
    let mut head = ResponseHead::default();
    let stream = receive_head(
        request,
        proxy,
        peer,
        &mut waiting,
        sink,
        (&mut head, &mut bytes),
    )
    .await?;
    waiting.has_head.set(true);
    record(request, |attempt| {
        attempt.head_received = Some(attempt.started.elapsed());
        attempt.status = Some(head.status);
    });
    if unwelcome.has_status(head.status) {
        return Err(Broken::Unwelcome(head.status));
    }
    let has_ended = stream.is_end_stream();
    let framing = match framing::of_response(&head, &bytes, sent_method(request, proxy)) {
        Ok(framing) => framing.kind(),
        Err(error) => return Err(invalid(request, peer, &error)),
    };
    let framing = match framing {
        Kind::UntilClose if has_ended => Kind::Length(0),
        framing => framing,
    };
    if let Some(failure) = elsewhere(request, proxy, &head, &bytes) {
        return Err(Broken::Elsewhere(failure));
    }
    let is_cut = matches!(request.final_status(head.status), 204 | 304) && framing != Kind::Empty;
    let framing = if is_cut { Kind::Empty } else { framing };
    let passes_trailers = proxy.family == ProxyFamily::Grpc && !has_ended;
    if passes_trailers && framing != Kind::Empty {
        sink.expect_trailers();
    }
    let options = ConnectionOptions::of(&head.fields, &bytes);
    send_response_head(request, proxy, &head, &options, framing, &bytes, sink);
    if framing == Kind::Empty || request.method() == Method::Head {
        // What there is of it nobody can be given.
        return sink.finish().await.map_err(|_| Broken::Client(None));
    }
    let mut relay = Relay {
        stream,
        silence: waiting.silence,
        proxy,
        pace: proxy.filters.limit_rate.as_ref().and_then(|rate| {
            let rate = answers::bytes_of(Some(rate), request);
            Pace::new(rate, 0)
        }),
        received: 0,
    };
    let relayed = relay.body(sink).await;
    let received = relay.received;
    match relayed {
        Ok(()) => {}
        Err(Stopped::Client(error)) => return Err(client_failed(request, peer, &error)),
        Err(Stopped::Silent) => {
            let error = TransportError::TimedOut;
            upstream_failed(request, peer, &error, "recv()", "reading upstream");
            return Err(Broken::Upstream);
        }
        Err(Stopped::Stream(error)) => {
            let is_whole = match framing {
                Kind::Length(length) => received == length,
                _ => true,
            };
            // The answer is complete, and the rest of the request not wanted
            // (RFC 9113 §8.1); h2 does not tell that from a reset before.
            let is_end = error.is_remote()
                && error.is_reset()
                && error.reason() == Some(Reason::NO_ERROR)
                && !waiting.all_sent.get()
                && is_whole;
            if !is_end {
                return Err(Failed::of(&error, waiting.lease).in_body(request, peer));
            }
        }
    }
    record(request, |attempt| attempt.received = received);
    if passes_trailers && let Some(trailers) = relay.trailers().await {
        send_trailers(proxy, &trailers, sink);
    }
    answers::add_trailers(request, sink);
    sink.finish()
        .await
        .map_err(|error| client_failed(request, peer, &error))
}

/// Waits for the final response's head.
async fn receive_head<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    waiting: &mut Waiting<'_>,
    sink: &mut S,
    (head, bytes): (&mut ResponseHead, &mut Vec<u8>),
) -> Result<RecvStream, Broken> {
    let Waiting {
        response,
        lease,
        silence,
        ..
    } = waiting;
    let mut interim = 0;
    loop {
        let next = poll_fn(|context| next_head(response, context));
        let Ok(received) = silence.run(next).await else {
            // A peer that does not answer this may not answer others.
            lease.distrust();
            return Err(Broken::Untouched(Cause::Receive(TransportError::TimedOut)));
        };
        let received =
            received.map_err(|error| Failed::of(&error, lease).before_head(request, peer))?;
        let (parts, stream) = match received {
            Received::Final(parts, stream) => (parts, Some(stream)),
            Received::Interim(parts) => (parts, None),
        };
        if !put_head(&parts, head, bytes) {
            return Err(invalid(request, peer, &"an invalid header"));
        }
        let limits = head_limits(proxy);
        if head.len > limits.total || head.fields.len() > limits.fields {
            return Err(invalid(request, peer, &"too big header"));
        }
        if let Some(stream) = stream {
            return Ok(stream);
        }
        interim += 1;
        if interim > MAX_INTERIM {
            return Err(invalid(request, peer, &"too many interim responses"));
        }
        if head.status == 101 {
            // RFC 9113 §8.6.
            return Err(invalid(request, peer, &"101 by HTTP/2"));
        }
        if head.status == 103 && passes_early_hints(request) {
            send_early_hints(proxy, head, bytes, sink).await?;
        }
    }
}

enum Received {
    Interim(Parts),
    Final(Parts, RecvStream),
}

fn next_head(
    response: &mut ResponseFuture,
    context: &mut Context<'_>,
) -> Poll<Result<Received, h2::Error>> {
    if let Poll::Ready(Some(interim)) = response.poll_informational(context) {
        let interim = interim.map(|interim| Received::Interim(interim.into_parts().0));
        return Poll::Ready(interim);
    }
    Pin::new(response).poll(context).map_ok(|response| {
        let (parts, stream) = response.into_parts();
        Received::Final(parts, stream)
    })
}

/// A head in the form in which all others are; `false` if it cannot be one.
fn put_head(parts: &Parts, head: &mut ResponseHead, bytes: &mut Vec<u8>) -> bool {
    bytes.clear();
    head.clear();
    head.status = parts.status.as_u16();
    for (name, value) in &parts.headers {
        if !is_value(value.as_bytes()) {
            return false;
        }
        let start = bytes.len();
        bytes.extend_from_slice(name.as_str().as_bytes());
        let middle = bytes.len();
        bytes.extend_from_slice(value.as_bytes());
        head.fields.push(Field {
            name: Span::new(start, middle),
            value: Span::new(middle, bytes.len()),
            id: FieldId::of(name.as_str().as_bytes()),
        });
    }
    head.len = bytes.len();
    true
}

/// What RFC 9113 §8.2.1 asks of a value beside what h2 has seen to.
fn is_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_space(value.first()) && !is_space(value.last())
}

/// Why a body stopped short.
enum Stopped {
    Client(TransportError),
    Silent,
    Stream(h2::Error),
}

/// A body on its way.
struct Relay<'e> {
    stream: RecvStream,
    silence: &'e Deadline,
    proxy: &'e Proxy,
    /// `proxy_limit_rate`.
    pace: Option<Box<Pace>>,
    received: u64,
}

impl Relay<'_> {
    /// Passes it on piece by piece; the peer may send the next when the client
    /// has taken one. What is here leaves when nothing more is.
    async fn body<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), Stopped> {
        loop {
            let ready = poll_fn(|context| Poll::Ready(self.stream.poll_data(context))).await;
            let next = match ready {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    sink.flush().await.map_err(Stopped::Client)?;
                    self.silence.arm(self.proxy.read_timeout);
                    let next = self.silence.run(self.stream.data()).await;
                    next.map_err(|_| Stopped::Silent)?
                }
            };
            let Some(data) = next else { return Ok(()) };
            let data = data.map_err(Stopped::Stream)?;
            self.pass(&data, sink).await?;
        }
    }

    async fn pass<S: ResponseSink>(&mut self, data: &Bytes, sink: &mut S) -> Result<(), Stopped> {
        self.received += data.len() as u64;
        if let Some(pace) = &mut self.pace {
            pace.count(data.len());
            pace.wait().await;
        }
        sink.write(data).await.map_err(Stopped::Client)?;
        // Fails only for a stream that is over, which needs no window.
        let _ = self.stream.flow_control().release_capacity(data.len());
        Ok(())
    }

    /// What came behind the body.
    async fn trailers(&mut self) -> Option<HeaderMap> {
        let trailers = self.silence.run(self.stream.trailers()).await;
        trailers.ok()?.ok()?
    }
}

fn send_trailers<S: ResponseSink>(proxy: &Proxy, trailers: &HeaderMap, sink: &mut S) {
    if !sink.takes_trailers() {
        return;
    }
    for (name, value) in trailers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        let id = FieldId::of(name);
        let hidden = is_hop_by_hop(id)
            || id == FieldId::ContentLength
            || !is_value(value)
            || proxy
                .filters
                .hidden
                .hides(name, is_hidden_by_default(id, name));
        if !hidden {
            sink.trailer(name, value);
        }
    }
}
