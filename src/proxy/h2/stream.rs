//! One stream: a request and its answer, as a task of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, ext};
use ::http::{Method, Request as Incoming};

use crate::config::Listener;
use crate::http::error::Refusal;
use crate::http::h1::framing::{self, Kind};
use crate::http::h2::fields::{self, Upgrade};
use crate::http::head::{FieldId, RequestHead};
use crate::net::buffers::Buffer;
use crate::proxy::connection::head_limits;
use crate::proxy::exchange::ResponseSink;
use crate::proxy::log;
use crate::proxy::measure;
use crate::proxy::request::{ClientConnection, Request};
use crate::proxy::respond;
use crate::proxy::route;
use crate::proxy::serve::{Entry, Served, serve};
use crate::proxy::worker::{Registration, View, Worker};
use crate::telemetry::error_log::Level;

use super::body::H2Body;
use super::chunk::Chunk;
use super::front::Slot;
use super::sink::{Facts, H2Sink, Responder};

/// A request that has come, and all that it needs: its connection may be gone
/// before it is.
pub(super) struct Arrival {
    pub(super) worker: Rc<Worker>,
    pub(super) view: Rc<View>,
    pub(super) connection: ClientConnection,
    /// Of the listener, in the configuration that `view` shows.
    pub(super) index: usize,
    pub(super) request: Incoming<RecvStream>,
    pub(super) respond: SendResponse<Chunk>,
    /// Keeps the worker from leaving.
    pub(super) registration: Rc<Registration>,
    pub(super) slot: Slot,
}

/// Serves it to its end. Cancelling it resets the stream, without a log line.
pub(super) async fn run(arrival: Arrival) {
    let Arrival {
        worker,
        view,
        connection,
        index,
        request,
        respond,
        registration: _registration,
        slot,
    } = arrival;
    let received = Instant::now();
    let responder = RefCell::new(Responder::new(respond));
    let listener = view.gateway.config.listeners.get(index);
    let known = listener.and_then(|listener| {
        let default = view.gateway.server(listener.hosts.default)?;
        let (limits, _) = head_limits(&view, listener, &connection)?;
        Some((listener, default, limits))
    });
    let Some((listener, default, limits)) = known else {
        return responder.borrow_mut().reset(Reason::REFUSED_STREAM);
    };
    let (mut parts, stream) = request.into_parts();
    let protocol = parts.extensions.remove::<ext::Protocol>();
    let protocol = protocol.filter(|_| parts.method == Method::CONNECT);
    let mut head = RequestHead::default();
    let mut buffer = Buffer::for_size(fields::room(&parts));
    let laid = {
        let key = protocol.as_ref().map(|_| websocket_key());
        let upgrade = match (&protocol, &key) {
            (Some(protocol), Some(key)) => Some(Upgrade {
                protocol: protocol.as_str(),
                key,
            }),
            _ => None,
        };
        fields::lay(&parts, upgrade.as_ref(), &limits, &mut buffer, &mut head)
    };
    let host = head.host(&buffer).filter(|_| laid.is_ok());
    let host = host.unwrap_or_default();
    let server = route::server(&view.gateway, listener, host).unwrap_or(default);
    let length = laid.as_ref().copied().unwrap_or_default();
    let refused = laid.err().map(|error| (error.status(), error.to_string()));
    let framed = framing::of_request(&head, &buffer);
    let refused = refused.or_else(|| {
        let error = framed.err()?;
        Some((error.status(), error.to_string()))
    });
    let expects_continue = head
        .field(&buffer, FieldId::Expect)
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let facts = Facts {
        is_head: parts.method == Method::HEAD,
        is_tunnel: protocol.is_some(),
    };
    let mut body = match framed.map(|framing| framing.kind()) {
        _ if facts.is_tunnel => H2Body::of_tunnel(stream, &responder),
        Ok(Kind::Length(length)) => H2Body::new(stream, &responder, Some(length), expects_continue),
        _ => H2Body::new(stream, &responder, None, expects_continue),
    };
    let chunk_size = server.root.delivery.http2_chunk_size;
    let mut sink = H2Sink::new(&responder, facts, chunk_size);
    let mut request = Request::arrived(
        (&worker, &view, &connection),
        (listener, server),
        (&head, buffer, 0),
        (received, length as u64),
    );
    let served = match refused {
        Some((status, message)) => {
            log::request_error(
                &request,
                Level::Info,
                format_args!("client sent {message} while reading client request headers"),
            );
            let sent = respond::error(&mut request, status, &mut sink).await;
            request.answer.body_bytes = sink.body_bytes();
            request.answer.complete = sent.is_ok();
            sent.map_or(Served::CutOff, |()| Served::Done)
        }
        None => {
            let entry = entry(&request, listener);
            serve(&mut request, entry, &mut body, &mut sink).await
        }
    };
    if served == Served::Done && sink.is_finished() {
        slot.finished();
    } else {
        // As Nginx does with what it cannot finish, and with 444.
        responder.borrow_mut().reset(Reason::INTERNAL_ERROR);
    }
    request.length += body.received();
    request.answer.bytes = sink.bytes();
    log::access(&request);
    measure::answered(&request);
}

/// Plain HTTP on a TLS port, where that is not wanted, is told so.
fn entry<'a>(request: &Request<'a>, listener: &Listener) -> Entry<'a> {
    let gateway = &request.view.gateway;
    if request.connection.tls.is_some()
        || !route::is_cleartext_refused(gateway, listener, request.server)
    {
        return Entry::Arrival;
    }
    log::request_error(
        request,
        Level::Info,
        format_args!(
            "client sent plain HTTP request to HTTPS port while reading client request headers"
        ),
    );
    Entry::Refused(497)
}

/// What a client of HTTP/2 does not send and one of HTTP/1.1 must (RFC 6455
/// §4.1): it shows only that the backend has read the request.
fn websocket_key() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 16 bytes: 21 digits, then one of two bits, then the padding.
    let mut key: String = (0..21)
        .map(|_| char::from(*fastrand::choice(DIGITS).unwrap_or(&b'A')))
        .collect();
    key.push(fastrand::choice(['A', 'Q', 'g', 'w']).unwrap_or('A'));
    key.push_str("==");
    key
}
