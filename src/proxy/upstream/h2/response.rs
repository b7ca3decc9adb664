//! An HTTP/2 backend's answer, on its way to the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use crate::config::{Conditions, Proxy, UpstreamPeer};
use crate::http::h1::encode::is_field_value;
use crate::http::h1::framing::{self, Kind};
use crate::http::h2::connection::Why;
use crate::http::head::{Method, ResponseHead};
use crate::http::headers::ConnectionOptions;
use crate::net::deadlines::Deadline;
use crate::proxy::exchange::{MAX_INTERIM, ResponseSink};
use crate::proxy::h2::lane::{AnswerHead, Part};
use crate::proxy::h2::slot::Slot;
use crate::proxy::pace::Pace;
use crate::proxy::request::Request;
use crate::proxy::respond as answers;
use crate::proxy::streams::Lease;
use crate::proxy::transport::TransportError;
use crate::proxy::upstream::request::sent_method;
use crate::proxy::upstream::response::{
    Accel, client_failed, elsewhere, head_limits, invalid, keep_fields, pass_trailers,
    passes_early_hints, send_early_hints, send_response_head,
};
use crate::proxy::upstream::{Broken, Cause, record, upstream_failed};

use super::Failed;

/// What is waited for.
pub(super) struct Waiting<'e> {
    pub(super) slot: &'e Slot,
    pub(super) lease: &'e Lease,
    /// Armed; passes when the backend has been silent for too long.
    pub(super) silence: &'e Deadline,
    /// Set when the head is there.
    pub(super) has_head: &'e Cell<bool>,
}

/// Receives the response's head, sends ours, relays body and trailers.
pub(super) async fn respond<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    unwelcome: Conditions,
    waiting: Waiting<'_>,
    sink: &mut S,
) -> Result<(), Broken> {
    let (head, bytes) = receive_head(request, proxy, peer, &waiting, sink).await?;
    let lane = &waiting.slot.lane;
    waiting.has_head.set(true);
    record(request, |attempt| {
        attempt.head_received = Some(attempt.started.elapsed());
        attempt.status = Some(head.status);
        attempt.traffic.received = bytes.len() as u64;
    });
    if unwelcome.has_status(head.status) {
        return Err(Broken::Unwelcome(head.status));
    }
    let has_ended = lane.is_finished() && !lane.has_trailers();
    let framing = match framing::of_response(&head, &bytes, sent_method(request, proxy)) {
        Ok(framing) => framing.kind(),
        Err(error) => return Err(invalid(request, peer, &error)),
    };
    let framing = match framing {
        Kind::UntilClose if has_ended => Kind::Length(0),
        framing => framing,
    };
    let accel = Accel::of(proxy, &head, &bytes);
    accel.note_limit_rate(request);
    if let Some(failure) = elsewhere(request, proxy, &accel, &head, &bytes) {
        keep_fields(request, &head, &bytes);
        return Err(Broken::Elsewhere(failure));
    }
    let is_cut = matches!(request.final_status(head.status), 204 | 304) && framing != Kind::Empty;
    let framing = if is_cut { Kind::Empty } else { framing };
    let passes_trailers = proxy.filters.pass_trailers && !has_ended;
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
        slot: waiting.slot,
        silence: waiting.silence,
        proxy,
        pace: proxy.filters.limit_rate.as_ref().and_then(|rate| {
            let rate = answers::bytes_of(Some(rate), request);
            Pace::new(rate, 0)
        }),
        received: 0,
        announced: match framing {
            Kind::Length(length) => Some(length),
            _ => None,
        },
    };
    let relayed = relay.body(sink).await;
    let received = relay.received;
    record(request, |attempt| {
        attempt.received = received;
        attempt.traffic.received += received;
    });
    match relayed {
        Ok(()) => {}
        Err(Stopped::Client(error)) => return Err(client_failed(request, peer, &error)),
        Err(Stopped::Silent) => {
            let error = TransportError::TimedOut;
            upstream_failed(request, peer, &error, "recv()", "reading upstream");
            return Err(Broken::Upstream);
        }
        Err(Stopped::Stream(why)) => {
            return Err(Failed::of(why, waiting.lease).in_body(request, peer));
        }
        Err(Stopped::Length) => {
            let failed = Failed::invalid("a body of another length than announced");
            return Err(failed.in_body(request, peer));
        }
    }
    if passes_trailers {
        let trailers = lane.trailers();
        let trailers = trailers.iter().filter(|(_, value)| is_value(value));
        pass_trailers(request, proxy, trailers, sink);
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
    waiting: &Waiting<'_>,
    sink: &mut S,
) -> Result<AnswerHead, Broken> {
    let Waiting { slot, lease, .. } = waiting;
    let limits = head_limits(proxy);
    let mut interim = 0;
    loop {
        let next = poll_fn(|context| slot.lane.poll_head(context));
        let Ok(received) = waiting.silence.run(next).await else {
            // A peer that does not answer this may not answer others.
            lease.distrust();
            return Err(Broken::Untouched(Cause::Receive(TransportError::TimedOut)));
        };
        let received =
            received.map_err(|_| Failed::of(slot.lane.why(), lease).before_head(request, peer))?;
        let fits =
            |head: &ResponseHead| head.len <= limits.total && head.fields.len() <= limits.fields;
        let Some((head, bytes)) = received.filter(|(head, _)| fits(head)) else {
            return Err(invalid(request, peer, &"too big header"));
        };
        let mut values = head.fields.iter().map(|field| field.value.of(&bytes));
        if !values.all(is_value) {
            return Err(invalid(request, peer, &"an invalid header"));
        }
        if head.status >= 200 {
            return Ok((head, bytes));
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
            send_early_hints(proxy, &head, &bytes, sink).await?;
        }
    }
}

/// What RFC 9113 §8.2.1 and RFC 9110 §5.5 ask of a value beside what the
/// protocol core has seen to.
fn is_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_space(value.first()) && !is_space(value.last()) && is_field_value(value)
}

/// Why a body stopped short.
enum Stopped {
    Client(TransportError),
    Silent,
    Stream(Option<Why>),
    /// It is longer or shorter than its head says.
    Length,
}

/// A body on its way.
struct Relay<'e> {
    slot: &'e Slot,
    silence: &'e Deadline,
    proxy: &'e Proxy,
    /// `proxy_limit_rate`.
    pace: Option<Box<Pace>>,
    received: u64,
    /// How long it is to be.
    announced: Option<u64>,
}

impl Relay<'_> {
    /// Passes it on piece by piece; the peer may send the next when the client
    /// has taken one. What is here leaves when nothing more is.
    async fn body<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), Stopped> {
        let lane = &self.slot.lane;
        loop {
            let ready = poll_fn(|context| Poll::Ready(lane.poll_piece(context))).await;
            let next = match ready {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    sink.flush().await.map_err(Stopped::Client)?;
                    self.silence.arm(self.proxy.read_timeout);
                    let next = poll_fn(|context| lane.poll_piece(context));
                    let next = self.silence.run(next).await;
                    next.map_err(|_| Stopped::Silent)?
                }
            };
            match next.map_err(|_| Stopped::Stream(lane.why()))? {
                Some(part) => self.pass(part, sink).await?,
                None if self.announced.is_some_and(|length| length != self.received) => {
                    return Err(Stopped::Length);
                }
                None => return Ok(()),
            }
        }
    }

    async fn pass<S: ResponseSink>(&mut self, part: Part, sink: &mut S) -> Result<(), Stopped> {
        let data = part.buffer.get(part.range).unwrap_or_default();
        self.received += data.len() as u64;
        if self.announced.is_some_and(|length| length < self.received) {
            return Err(Stopped::Length);
        }
        if let Some(pace) = &mut self.pace {
            pace.count(data.len());
            pace.wait().await;
        }
        sink.write(data).await.map_err(Stopped::Client)?;
        self.slot.release(data.len());
        Ok(())
    }
}
