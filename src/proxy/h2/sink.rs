//! A request's answer on its stream (RFC 9113 §8.1).
//!
//! Nothing is handed to the protocol core that the client has no window for,
//! so a stream holds at most what it may send at once, and waits for the rest
//! by itself: the other streams of its connection go on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use ::bytes::{Buf, BytesMut};
use ::h2::server::SendResponse;
use ::h2::{Reason, SendStream};
use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Response, StatusCode};

use crate::http::error::wire_status;
use crate::http::h1::encode::{self, Sink as _};
use crate::net::buffers::Segments;
use crate::net::deadlines::Deadline;
use crate::proxy::exchange::{BodySize, ResponseSink};
use crate::proxy::output::Output;
use crate::proxy::pace::Pace;
use crate::proxy::transport::TransportError;

use super::chunk::Chunk;

/// The protocol core's end of a stream that is answered.
pub(super) struct Responder {
    respond: SendResponse<Chunk>,
    /// Once the head has been handed over, and the stream goes on.
    stream: Option<SendStream<Chunk>>,
}

impl Responder {
    pub(super) fn new(respond: SendResponse<Chunk>) -> Self {
        Self {
            respond,
            stream: None,
        }
    }

    /// Whether the client, or its connection, is gone.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> bool {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(context).is_ready(),
            None => self.respond.poll_reset(context).is_ready(),
        }
    }

    /// Breaks the stream off.
    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

/// A request's answer as it goes.
pub(super) struct H2Sink<'s> {
    responder: &'s RefCell<Responder>,
    out: Output,
    head: Option<Head>,
    state: State,
    facts: Facts,
    /// `http2_chunk_size`.
    chunk_size: usize,
    trailers: HeaderMap,
    expects_trailers: bool,
    pace: Option<Box<Pace>>,
    deadline: Deadline,
    send_timeout: Duration,
    committed: bool,
    /// What of an announced length has not been sent.
    owed: Option<u64>,
    body_bytes: u64,
    /// Names and values, before compression.
    field_bytes: u64,
}

/// What of the request decides about the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// HEAD.
    pub(super) is_head: bool,
    /// An extended CONNECT, of which a 101 is a 200 (RFC 8441 §5).
    pub(super) is_tunnel: bool,
}

/// A head that has begun. Values share one allocation.
#[derive(Debug, Default)]
struct Head {
    status: u16,
    values: BytesMut,
    /// Each with its length in `values`.
    names: Vec<(HeaderName, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Head,
    /// The head is complete and has not been handed over.
    Ready {
        has_body: bool,
    },
    Body,
    Finished,
}

impl<'s> H2Sink<'s> {
    pub(super) fn new(responder: &'s RefCell<Responder>, facts: Facts, chunk_size: usize) -> Self {
        Self {
            responder,
            out: Output::default(),
            head: None,
            state: State::Waiting,
            facts,
            chunk_size,
            trailers: HeaderMap::new(),
            expects_trailers: false,
            pace: None,
            deadline: Deadline::new(),
            send_timeout: Duration::from_secs(60),
            committed: false,
            owed: None,
            body_bytes: 0,
            field_bytes: 0,
        }
    }

    /// Whether the answer has come to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// What was sent, fields before their compression.
    pub(super) fn bytes(&self) -> u64 {
        self.body_bytes + self.field_bytes
    }

    /// Hands the head over, and says whether the stream ends with it.
    fn commit(&mut self, ends: bool) -> Result<(), TransportError> {
        let State::Ready { has_body } = self.state else {
            return Ok(());
        };
        let head = self.head.take().unwrap_or_default();
        self.committed = true;
        let ends = ends || !has_body;
        let response = head.into_response(&mut self.field_bytes);
        let mut responder = self.responder.borrow_mut();
        let stream = responder.respond.send_response(response, ends);
        responder.stream = Some(stream.map_err(broken)?);
        self.state = if ends { State::Finished } else { State::Body };
        Ok(())
    }

    /// Hands over what is buffered, with the end of the stream if `ends`.
    async fn flush_out(&mut self, ends: bool) -> Result<(), TransportError> {
        self.commit(ends && self.out.is_empty())?;
        if self.state != State::Body {
            self.out.clear();
            return Ok(());
        }
        let Some((buffer, range)) = self.out.take() else {
            return if ends { self.end() } else { Ok(()) };
        };
        self.send(Chunk::of_buffer(buffer, range), ends).await
    }

    fn end(&mut self) -> Result<(), TransportError> {
        self.state = State::Finished;
        let mut responder = self.responder.borrow_mut();
        let Some(stream) = &mut responder.stream else {
            return Ok(());
        };
        stream.send_data(Chunk::empty(), true).map_err(broken)
    }

    /// Hands over bytes as the client has window for them.
    async fn send(&mut self, mut chunk: Chunk, ends: bool) -> Result<(), TransportError> {
        let total = chunk.remaining();
        if let Some(pace) = &mut self.pace {
            pace.wait().await;
            pace.count(total);
        }
        self.body_bytes += total as u64;
        if let Some(owed) = &mut self.owed {
            *owed = owed.saturating_sub(total as u64);
        }
        while chunk.has_remaining() {
            let wanted = chunk.remaining().min(self.chunk_size);
            let granted = self.capacity(wanted).await?;
            let part = chunk.split_to(granted.min(wanted));
            let last = ends && !chunk.has_remaining();
            let mut responder = self.responder.borrow_mut();
            let stream = responder.stream.as_mut().ok_or_else(gone)?;
            stream.send_data(part, last).map_err(broken)?;
        }
        if ends {
            self.state = State::Finished;
        }
        Ok(())
    }

    /// Waits for room for up to `wanted` bytes: at least one.
    async fn capacity(&mut self, wanted: usize) -> Result<usize, TransportError> {
        self.deadline.arm(self.send_timeout);
        let responder = self.responder;
        let mut asked = false;
        let room = poll_fn(|context| {
            let mut responder = responder.borrow_mut();
            let Some(stream) = &mut responder.stream else {
                return Poll::Ready(None);
            };
            if !std::mem::replace(&mut asked, true) {
                stream.reserve_capacity(wanted);
                let granted = stream.capacity();
                if granted > 0 {
                    return Poll::Ready(Some(Ok(granted)));
                }
            }
            loop {
                return match stream.poll_capacity(context) {
                    Poll::Ready(Some(Ok(0))) => continue,
                    other => other,
                };
            }
        });
        match self.deadline.run(room).await {
            Ok(Some(Ok(granted))) => Ok(granted),
            Ok(Some(Err(error))) => Err(broken(error)),
            Ok(None) => Err(gone()),
            Err(_) => Err(TransportError::TimedOut),
        }
    }
}

/// What the protocol core says, as the end of a client's connection.
fn broken(error: ::h2::Error) -> TransportError {
    if error.is_io()
        && let Some(error) = error.into_io()
    {
        return TransportError::Io(error);
    }
    gone()
}

fn gone() -> TransportError {
    TransportError::Io(io::Error::from_raw_os_error(libc::ECONNRESET))
}

/// Fields that belong to a connection (RFC 9113 §8.2.2).
fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

impl Head {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        // Names come from the configuration and from backends, in any case.
        let Ok(name) = HeaderName::from_bytes(name) else {
            return;
        };
        if is_of_connection(&name) {
            return;
        }
        self.values.extend_from_slice(value);
        self.names.push((name, value.len()));
    }

    fn into_response(mut self, field_bytes: &mut u64) -> Response<()> {
        let mut fields = HeaderMap::with_capacity(self.names.len());
        for (name, length) in self.names {
            *field_bytes += (name.as_str().len() + length) as u64;
            let value = self.values.split_to(length).freeze();
            // What is in it was asked before.
            if let Ok(value) = HeaderValue::from_maybe_shared(value) {
                fields.append(name, value);
            }
        }
        let mut response = Response::new(());
        // A status of the configuration's that no client would understand.
        let status = StatusCode::from_u16(wire_status(self.status));
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = fields;
        response
    }
}

impl ResponseSink for H2Sink<'_> {
    async fn interim(&mut self, status: u16) -> Result<(), TransportError> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::CONTINUE);
        let respond = &mut self.responder.borrow_mut().respond;
        respond.send_informational(response).map_err(broken)
    }

    fn start(&mut self, status: u16, send_timeout: Duration) {
        self.send_timeout = send_timeout;
        self.state = State::Head;
        let status = match status {
            101 if self.facts.is_tunnel => 200,
            status => status,
        };
        self.head = Some(Head {
            status,
            values: BytesMut::with_capacity(256),
            names: Vec::with_capacity(12),
        });
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        if encode::is_field_value(value)
            && let Some(head) = &mut self.head
        {
            head.field(name, value);
        }
    }

    fn end_head(&mut self, size: BodySize) {
        if let BodySize::Known(length) | BodySize::Announced(length) = size
            && let Some(head) = &mut self.head
        {
            head.field(
                b"content-length",
                itoa::Buffer::new().format(length).as_bytes(),
            );
        }
        let has_body = !self.facts.is_head
            && match size {
                BodySize::None | BodySize::Announced(_) => false,
                BodySize::Known(length) => length > 0 || self.expects_trailers,
                BodySize::Unknown => true,
            };
        self.owed = match size {
            BodySize::Known(length) if has_body => Some(length),
            _ => None,
        };
        self.state = State::Ready { has_body };
    }

    async fn write(&mut self, mut data: &[u8]) -> Result<(), TransportError> {
        if self.facts.is_head {
            return Ok(());
        }
        while !data.is_empty() {
            let room = self.out.room_in_record();
            let room = match &self.pace {
                Some(pace) => room.min(pace.at_once().saturating_sub(self.out.len())),
                None => room,
            };
            let (now, later) = data.split_at_checked(room).unwrap_or((data, &[]));
            if now.is_empty() {
                self.flush_out(false).await?;
                continue;
            }
            self.out.put(now);
            data = later;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.flush_out(false).await
    }

    fn segment_gaps(&self) -> Option<(usize, usize)> {
        let whole = matches!(self.state, State::Ready { has_body: true } | State::Body);
        (whole && self.pace.is_none()).then_some((0, 0))
    }

    async fn segments(
        &mut self,
        segments: Segments,
        filled: usize,
    ) -> Result<Segments, TransportError> {
        self.flush_out(false).await?;
        self.send(Chunk::of_segments(segments, filled), false)
            .await?;
        Ok(Segments::take(0, 0))
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        let here = self.out.len() as u64;
        if self.owed.is_some_and(|owed| owed > here) {
            // A body that ended early must look like it: what is not finished
            // is reset.
            return self.flush_out(false).await;
        }
        if self.trailers.is_empty() {
            return self.flush_out(true).await;
        }
        self.flush_out(false).await?;
        if self.state == State::Body {
            self.state = State::Finished;
            let trailers = std::mem::take(&mut self.trailers);
            let mut responder = self.responder.borrow_mut();
            if let Some(stream) = &mut responder.stream {
                stream.send_trailers(trailers).map_err(broken)?;
            }
        }
        Ok(())
    }

    fn switch_protocols(&mut self) {
        self.state = State::Ready { has_body: true };
    }

    async fn end_sending(&mut self) -> Result<(), TransportError> {
        self.finish().await
    }

    fn is_committed(&self) -> bool {
        self.committed
    }

    fn discard(&mut self) {
        if !self.committed {
            self.out.clear();
            self.head = None;
            self.state = State::Waiting;
            self.trailers.clear();
        }
    }

    fn limit_rate(&mut self, rate: u64, after: u64) {
        self.pace = Pace::new(rate, after);
    }

    async fn early_hints(&mut self, fields: &[(&[u8], &[u8])]) -> Result<(), TransportError> {
        let mut head = Head {
            status: 103,
            ..Head::default()
        };
        for (name, value) in fields {
            head.field(name, value);
        }
        let response = head.into_response(&mut self.field_bytes);
        let respond = &mut self.responder.borrow_mut().respond;
        respond.send_informational(response).map_err(broken)
    }

    fn expect_trailers(&mut self) {
        self.expects_trailers = true;
    }

    fn takes_trailers(&self) -> bool {
        matches!(self.state, State::Ready { has_body: true } | State::Body)
    }

    fn trailer(&mut self, name: &[u8], value: &[u8]) {
        if let Ok(name) = HeaderName::from_bytes(name)
            && !is_of_connection(&name)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            self.trailers.append(name, value);
        }
    }

    /// Frames end a body, not chunks.
    fn refuse_chunks(&mut self) {}

    /// Other streams of the connection have nothing to do with this one.
    fn close_after(&mut self) {}

    /// There is no field for it.
    fn announce_keep_alive(&mut self, _: Duration) {}

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}
