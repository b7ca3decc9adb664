//! One stream: a request and its answer, as a task of its own.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use crate::config::Listener;
use crate::http::error::{FramingError, HeadError, Refusal};
use crate::http::h1::framing::{BodyFraming, Kind};
use crate::http::head::{FieldId, Method, RequestHead};
use crate::net::buffers::Buffer;
use crate::proxy::log;
use crate::proxy::measure;
use crate::proxy::request::{ClientConnection, Request};
use crate::proxy::respond;
use crate::proxy::route;
use crate::proxy::serve::{Entry, Served, serve};
use crate::proxy::worker::{Registration, View, Worker};
use crate::telemetry::error_log::Level;

use super::body::H2Body;
use super::sink::{Facts, H2Sink};
use super::slot::Slot;

/// A request that has come, and all that it needs: its connection may be gone
/// before it is.
pub(super) struct Arrival {
    pub(super) worker: Rc<Worker>,
    pub(super) view: Rc<View>,
    pub(super) connection: ClientConnection,
    /// Of the listener, in the configuration that `view` shows.
    pub(super) index: usize,
    pub(super) head: KeptHead,
    /// Bytes of the head, or what is wrong with it.
    pub(super) laid: Result<usize, HeadError>,
    pub(super) framed: Result<BodyFraming, FramingError>,
    /// An extended CONNECT.
    pub(super) is_tunnel: bool,
    /// Keeps the worker from leaving.
    pub(super) _registration: Rc<Registration>,
}

impl Arrival {
    /// The request, in the server block that it names; the default one where it
    /// is none. The head's spans point into `buffer`.
    fn request(&self, buffer: Buffer) -> Option<Request<'_>> {
        let gateway = &self.view.gateway;
        let listener = gateway.config.listeners.get(self.index)?;
        let default = gateway.server(listener.hosts.default)?;
        let head = &self.head.0;
        let host = head.host(&buffer).filter(|_| self.laid.is_ok());
        let host = host.unwrap_or_default();
        let server = route::server(gateway, listener, host).unwrap_or(default);
        let length = self.laid.as_ref().copied().unwrap_or_default();
        Some(Request::arrived(
            (&self.worker, &self.view, &self.connection),
            (listener, server),
            (head, buffer, 0),
            (Instant::now(), length as u64),
        ))
    }
}

/// Tells the logs of a request that HTTP/2 does not allow, and whose stream has
/// been reset, as of one that was answered 400.
pub(super) fn report(mut arrival: Arrival, buffer: Buffer, error: HeadError) {
    arrival.laid = Err(error);
    let Some(mut request) = arrival.request(buffer) else {
        return;
    };
    log_refusal(&request, &error);
    request.answer.status = error.status();
    log::access(&request);
    measure::answered(&request);
}

fn log_refusal(request: &Request<'_>, error: &dyn fmt::Display) {
    log::request_error(
        request,
        Level::Info,
        format_args!("client sent {error} while reading client request headers"),
    );
}

/// Serves it to its end. Cancelling it resets the stream, without a log line.
pub(super) async fn run(arrival: Arrival, buffer: Buffer, slot: Slot) {
    // Room first: a future that is made before it is moved there, all of its
    // kilobytes at every request.
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, answer(arrival, buffer, slot))).await;
}

async fn answer(arrival: Arrival, buffer: Buffer, slot: Slot) {
    let Some(mut request) = arrival.request(buffer) else {
        return;
    };
    let (laid, framed, is_tunnel) = (arrival.laid, arrival.framed, arrival.is_tunnel);
    let (head, buffer) = (request.head, &request.buffer);
    let refused = laid.err().map(|error| (error.status(), error.to_string()));
    let refused = refused.or_else(|| {
        let error = framed.err()?;
        Some((error.status(), error.to_string()))
    });
    let expects_continue = head
        .field(buffer, FieldId::Expect)
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let facts = Facts {
        is_head: head.method_id == Method::Head,
        is_tunnel,
    };
    let mut body = match framed.map(BodyFraming::kind) {
        _ if is_tunnel => H2Body::of_tunnel(&slot),
        Ok(Kind::Length(length)) => H2Body::new(&slot, Some(length), expects_continue),
        _ => H2Body::new(&slot, None, expects_continue),
    };
    let chunk_size = request.server.root.delivery.http2_chunk_size;
    let mut sink = H2Sink::new(&slot, facts, chunk_size);
    let served = match refused {
        Some((status, message)) => {
            log_refusal(&request, &message);
            let sent = respond::error(&mut request, status, &mut sink).await;
            request.answer.note_sent(&sink);
            request.answer.complete = sent.is_ok();
            sent.map_or(Served::CutOff, |()| Served::Done)
        }
        None => {
            let entry = entry(&request, request.listener);
            serve(&mut request, entry, &mut body, &mut sink).await
        }
    };
    slot.is_whole
        .set(served == Served::Done && sink.is_finished());
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
pub(super) fn websocket_key() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 16 bytes: 21 digits, then one of two bits, then the padding.
    let mut key: String = (0..21)
        .map(|_| char::from(*fastrand::choice(DIGITS).unwrap_or(&b'A')))
        .collect();
    key.push(fastrand::choice(['A', 'Q', 'g', 'w']).unwrap_or('A'));
    key.push_str("==");
    key
}

/// Heads that are kept by a worker for their memory.
const HEADS_KEPT: usize = 64;

thread_local! {
    static HEADS: RefCell<Vec<RequestHead>> = const { RefCell::new(Vec::new()) };
}

/// A head whose memory is used again.
pub(super) struct KeptHead(pub(super) RequestHead);

impl KeptHead {
    pub(super) fn take() -> Self {
        Self(HEADS.with_borrow_mut(Vec::pop).unwrap_or_default())
    }
}

impl Drop for KeptHead {
    fn drop(&mut self) {
        let mut head = std::mem::take(&mut self.0);
        head.clear();
        // A thread that is ending keeps nothing.
        let _ = HEADS.try_with(|heads| {
            let mut heads = heads.borrow_mut();
            if heads.len() < HEADS_KEPT {
                heads.push(head);
            }
        });
    }
}
