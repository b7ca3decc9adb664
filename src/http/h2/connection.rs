//! A connection as either end sees it: bytes in, events out, and frames into
//! whatever the caller sends from. No I/O, no clock of its own.
//!
//! ```text
//! server: Request ─→ Data … Trailers          client: begin ─→ Answer … Data … Trailers
//!         send_fields … send_data                     send_data … send_fields
//! ```
//!
//! Payloads are looked at where they lie. What a body brings is handed on as a
//! range of the input; a block of fields is decompressed from there into the
//! caller's [`Draft`], and only one that comes in several frames is put together
//! first. A connection without streams keeps nothing but its HPACK tables.
//!
//! Whatever becomes of a message, its block of fields is decompressed: the peer
//! has taken note of it in its table (RFC 9113 §4.3).

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::super::h1::encode::Sink;
use super::super::trailers::Trailers;
use super::fields::{Draft, TrailerDraft};
use super::flow::{Grant, Window};
use super::frame::{self, HEADER, Head, Reason, flag, kind, word};
use super::hpack::{Decoder, Encoder, Outcome};
use super::meter::{Flood, Meter, PREFACE};
use super::settings::{DEFAULT_WINDOW, Ours, Peer};
use super::streams::{Known, Stream, Streams};

/// The table that the client may use for its fields (RFC 7541 §4.2): what it may
/// use before it is told otherwise, so that nobody has to wait to be told.
const TABLE_SIZE: usize = 4096;
/// What our PING says when we are about to leave.
const FAREWELL: [u8; 8] = *b"farewell";
/// GOAWAY's last stream while that is not certain (RFC 9113 §6.8).
const ANY_STREAM: u32 = (1 << 31) - 1;

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// One connection. `S` is the caller's own state of each stream.
#[derive(Debug)]
pub struct Connection<S> {
    role: Role,
    ours: Limits,
    peer: Peer,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams<S>,
    /// What we may send on all streams together.
    send: Window,
    /// The same for the client.
    receive: Grant,
    stage: Stage,
    partial: Partial,
    /// A block of fields has begun and not ended.
    is_in_fields: bool,
    /// The peer knows our settings.
    is_acknowledged: bool,
    /// We know the peer's.
    is_greeted: bool,
    /// The server lets no more streams begin: it has sent GOAWAY.
    is_left: bool,
    /// Of the latest event, the stream whose body came to its end with it, or 0:
    /// if it is over, it is forgotten when the event has been looked at.
    ended: u32,
    leaving: Leaving,
    meter: Meter,
}

/// What is granted to a client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At a time.
    pub streams: u32,
    /// Of each stream, bytes; at most 2^31 − 1.
    pub window: u32,
    /// Of all streams together, bytes; at most 2^31 − 1.
    pub connection_window: u32,
    /// Of a request's fields, as RFC 9113 §6.5.2 counts them.
    pub list: u32,
}

/// How far the beginning of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preface,
    /// The first frame is SETTINGS (RFC 9113 §3.4).
    Settings,
    Open,
}

/// A frame, or a block of fields, that has come in part and of which the input
/// keeps nothing.
#[derive(Debug)]
enum Partial {
    None,
    /// Nobody asks for what comes.
    Skip(usize),
    /// Of a stream's body.
    Data {
        stream: u32,
        left: usize,
        padding: usize,
        ends: bool,
    },
    /// CONTINUATION must follow.
    Block {
        stream: u32,
        ends: bool,
        bytes: Vec<u8>,
    },
}

/// What the client has been told of our leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// That it will be so; the last stream follows with the answer to a PING.
    Noticed,
    /// The last stream that counts.
    Told(u32),
}

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<S> {
    /// A stream was opened; its fields are in the draft. [`Connection::attach`]
    /// belongs to it.
    Request {
        /// Its number.
        stream: u32,
        /// There is no body.
        ends: bool,
    },
    /// What came, and is in the draft as far as its fault, is no request: its
    /// stream has been reset.
    Malformed,
    /// A part of a body, `range` of the input, which may be empty at its end.
    /// [`Connection::release`] is due when it has been taken.
    Data {
        /// The stream's number.
        stream: u32,
        /// Where.
        range: Range<usize>,
        /// Nothing follows.
        ends: bool,
    },
    /// A body has come to its end, and these fields behind it.
    Trailers {
        /// The stream's number.
        stream: u32,
        /// At least one, or none where the block was empty.
        fields: Trailers,
    },
    /// A stream is over before its end.
    Gone {
        /// What was kept with it.
        own: S,
        /// By whose will, or fault.
        why: Why,
    },
    /// The head of an answer, interim or final, is in the draft.
    Answer {
        /// Its stream.
        stream: u32,
        /// Nothing follows.
        ends: bool,
    },
    /// The server lets no more streams begin. Those above `last` are over, and it
    /// has not looked at them: [`Connection::take_unprocessed`] is due.
    GoAway {
        /// The last that counts.
        last: u32,
        /// Why, as on the wire.
        code: u32,
    },
    /// More may be sent on this stream.
    Room(u32),
    /// More may be sent on the connection.
    RoomOnConnection,
    /// The windows of all streams have changed.
    RoomForAll,
}

/// Why a stream was over before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The peer has reset it, with this code.
    Reset(u32),
    /// The peer has broken a rule, and has been told which.
    Broken(Reason),
    /// The server has left without looking at it, with this code.
    Unprocessed(u32),
}

/// Why a connection must end. [`Connection::go_away`] tells the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// For the client.
    pub reason: Reason,
    /// For the log.
    what: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::EnhanceYourCalm => f.write_str(self.what),
            _ => write!(f, "client sent {} ({})", self.what, self.reason.as_str()),
        }
    }
}

impl std::error::Error for Broken {}

impl From<Flood> for Broken {
    fn from(_: Flood) -> Self {
        Self {
            reason: Reason::EnhanceYourCalm,
            what: "http2 flood detected",
        }
    }
}

/// The stream is over, or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// What may be sent of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// By the stream's own window, bytes.
    pub stream: usize,
    /// By the connection's.
    pub connection: usize,
    /// In one frame.
    pub frame: usize,
}

/// What became of a frame.
enum Step<S> {
    /// It is incomplete: there must be more input.
    Wait,
    Done,
    Event(Event<S>),
}

type Stepped<S> = Result<Step<S>, Broken>;

fn broken<T>(reason: Reason, what: &'static str) -> Result<T, Broken> {
    Err(Broken { reason, what })
}

/// A stream that has been taken out, if its caller knows of it.
fn gone<S>(removed: Option<Stream<S>>, why: Why) -> Step<S> {
    let own = removed.and_then(|stream| stream.attached);
    own.map_or(Step::Done, |own| Step::Event(Event::Gone { own, why }))
}

impl<S> Connection<S> {
    /// A server's, before the preface. Our own goes into `out`.
    pub fn new(limits: Limits, out: &mut impl Sink) -> Self {
        Self::with_role(Role::Server, limits, out)
    }

    /// A client's, whose preface goes into `out`. A server may not push, so that
    /// of the limits, `streams` says nothing.
    pub fn client(limits: Limits, out: &mut impl Sink) -> Self {
        out.put(PREFACE);
        Self::with_role(Role::Client, limits, out)
    }

    fn with_role(role: Role, limits: Limits, out: &mut impl Sink) -> Self {
        let ours = Ours {
            max_streams: limits.streams,
            window: limits.window,
            max_list: limits.list,
        };
        let (stage, meter) = match role {
            Role::Server => {
                ours.put(out);
                (Stage::Preface, Meter::new())
            }
            Role::Client => {
                ours.put_as_client(out);
                (Stage::Settings, Meter::of_server())
            }
        };
        // Every window begins at the default and can only be widened.
        let window = limits.connection_window.max(DEFAULT_WINDOW);
        if window > DEFAULT_WINDOW {
            frame::put_window_update(out, 0, window - DEFAULT_WINDOW);
        }
        Self {
            role,
            ours: limits,
            peer: Peer::default(),
            decoder: Decoder::new(TABLE_SIZE),
            encoder: Encoder::new(),
            streams: Streams::new(),
            send: Window::new(DEFAULT_WINDOW),
            receive: Grant::new(window),
            stage,
            partial: Partial::None,
            is_in_fields: false,
            is_acknowledged: false,
            is_greeted: false,
            is_left: false,
            ended: 0,
            leaving: Leaving::No,
            meter,
        }
    }

    /// The next event in `input`, of which `used` bytes have been used and are
    /// not looked at; it grows. `None` when there must be more input. `now` is
    /// the time since some fixed moment.
    ///
    /// # Errors
    /// The connection must end, and nothing that it brings is to be looked at.
    pub fn next(
        &mut self,
        input: &[u8],
        used: &mut usize,
        now: Duration,
        draft: &mut Draft,
        out: &mut impl Sink,
    ) -> Result<Option<Event<S>>, Broken> {
        self.meter.set_clock(now);
        loop {
            self.settle();
            let rest = input.get(*used..).unwrap_or_default();
            match self.step(rest, used, draft, out)? {
                Step::Wait => return Ok(None),
                Step::Done => {}
                Step::Event(event) => return Ok(Some(event)),
            }
        }
    }

    fn step(
        &mut self,
        rest: &[u8],
        used: &mut usize,
        draft: &mut Draft,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        if self.stage == Stage::Preface {
            let compared = rest.len().min(PREFACE.len());
            if rest.get(..compared) != PREFACE.get(..compared) {
                return broken(Reason::ProtocolError, "no HTTP/2 preface");
            }
            if compared < PREFACE.len() {
                return Ok(Step::Wait);
            }
            *used += compared;
            self.stage = Stage::Settings;
            return Ok(Step::Done);
        }
        match &mut self.partial {
            Partial::Skip(left) => {
                let now = rest.len().min(*left);
                if now == 0 {
                    return Ok(Step::Wait);
                }
                *left -= now;
                if *left == 0 {
                    self.partial = Partial::None;
                }
                *used += now;
                return Ok(Step::Done);
            }
            Partial::Data { .. } => return self.go_on_with_data(rest, used, out),
            Partial::None | Partial::Block { .. } => {}
        }
        let Some(head) = Head::parse(rest) else {
            return Ok(Step::Wait);
        };
        if let Err(reason) = head.check() {
            return broken(reason, "a frame that is against the rules of its kind");
        }
        if self.stage == Stage::Settings {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return broken(Reason::ProtocolError, "no SETTINGS behind its preface");
            }
            self.stage = Stage::Open;
        }
        if let Partial::Block { stream, .. } = &self.partial
            && (head.kind != kind::CONTINUATION || head.stream != *stream)
        {
            return broken(Reason::ProtocolError, "another frame among fields");
        }
        if head.kind == kind::DATA {
            return self.data(head, rest, used, out);
        }
        if head.kind > kind::CONTINUATION {
            self.meter.frame(head)?;
            *used += HEADER;
            if head.length > 0 {
                self.partial = Partial::Skip(head.length);
            }
            return Ok(Step::Done);
        }
        if matches!(head.kind, kind::HEADERS | kind::CONTINUATION) {
            self.is_in_fields = true;
        }
        let Some(payload) = rest.get(HEADER..HEADER + head.length) else {
            return Ok(Step::Wait);
        };
        self.meter.frame(head)?;
        *used += HEADER + head.length;
        match head.kind {
            kind::HEADERS => self.headers(head, payload, draft, out),
            kind::CONTINUATION => self.continuation(head, payload, draft, out),
            kind::RST_STREAM => self.reset_by_peer(head, payload),
            kind::GOAWAY if self.role == Role::Client => Ok(self.left(payload)),
            kind::SETTINGS => self.settings(head, payload, out),
            kind::PING => {
                self.ping(head, payload, out);
                Ok(Step::Done)
            }
            kind::WINDOW_UPDATE => self.window_update(head, payload, out),
            kind::PRIORITY if head.length != 5 => {
                self.stream_error(head.stream, Reason::FrameSizeError, out)
            }
            // Priorities nobody follows, and a client that leaves says so by
            // closing the connection.
            _ => Ok(Step::Done),
        }
    }

    /// DATA, whose payload need not be here yet.
    fn data(
        &mut self,
        head: Head,
        rest: &[u8],
        used: &mut usize,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        let mut frame_bytes = HEADER;
        let mut padding = 0;
        let mut length = head.length;
        if head.has(flag::PADDED) {
            let Some(left) = length.checked_sub(1) else {
                return broken(Reason::FrameSizeError, "padding without a length");
            };
            let Some(pad) = rest.get(HEADER) else {
                return Ok(Step::Wait);
            };
            padding = usize::from(*pad);
            let Some(payload) = left.checked_sub(padding) else {
                return broken(Reason::ProtocolError, "more padding than payload");
            };
            (length, frame_bytes) = (payload, HEADER + 1);
        }
        // A frame of padding alone is as empty as any.
        self.meter.frame(Head { length, ..head })?;
        *used += frame_bytes;
        if self.receive.receive(head.length).is_err() {
            return broken(Reason::FlowControlError, "more than its window holds");
        }
        let ends = head.has(flag::END_STREAM);
        let fault = match self.streams.known(head.stream) {
            Known::Idle => return broken(Reason::ProtocolError, "DATA on an idle stream"),
            Known::Open => self.judge_data(head, length, ends),
            Known::Reset | Known::Closed if self.role == Role::Client => {
                self.meter.late_data(head.length)?;
                None
            }
            Known::Reset => {
                self.meter.in_vain()?;
                None
            }
            Known::Closed => {
                self.meter.in_vain()?;
                Some(Reason::StreamClosed)
            }
        };
        if fault.is_some() || self.streams.get(head.stream).is_none() {
            // What of it has come is dropped as it comes, and granted anew now.
            self.release(0, head.length, out);
            if length + padding > 0 {
                self.partial = Partial::Skip(length + padding);
            }
            return match fault {
                Some(reason) => self.stream_error(head.stream, reason, out),
                None => Ok(Step::Done),
            };
        }
        let overhead = head.length - length;
        if overhead > 0 {
            self.release(head.stream, overhead, out);
        }
        if let Some(stream) = self.streams.get_mut(head.stream)
            && let Some(owed) = &mut stream.owed
        {
            *owed = owed.saturating_sub(length as u64);
        }
        self.partial = Partial::Data {
            stream: head.stream,
            left: length,
            padding,
            ends,
        };
        Ok(Step::Done)
    }

    /// What is wrong with DATA on an open stream.
    fn judge_data(&mut self, head: Head, length: usize, ends: bool) -> Option<Reason> {
        let stream = self.streams.get_mut(head.stream)?;
        if !stream.takes {
            return Some(Reason::StreamClosed);
        }
        if stream.receive.receive(head.length).is_err() {
            return Some(Reason::FlowControlError);
        }
        let length = length as u64;
        // RFC 9113 §8.1.1.
        let lies = stream
            .owed
            .is_some_and(|owed| length > owed || (ends && length < owed));
        (lies || !stream.has_head).then_some(Reason::ProtocolError)
    }

    fn go_on_with_data(
        &mut self,
        rest: &[u8],
        used: &mut usize,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        let Partial::Data {
            stream,
            left,
            padding,
            ends,
        } = &mut self.partial
        else {
            return Ok(Step::Done);
        };
        let (stream, ends) = (*stream, *ends);
        let now = rest.len().min(*left);
        if now == 0 && *left > 0 {
            return Ok(Step::Wait);
        }
        *left -= now;
        let is_last = *left == 0;
        let padding = *padding;
        let range = *used..*used + now;
        *used += now;
        if is_last {
            // The padding has nothing to say; nor has its end.
            self.partial = match padding {
                0 => Partial::None,
                padding => Partial::Skip(padding),
            };
        }
        if self.streams.get(stream).is_none() {
            // Over since the frame began.
            self.release(0, now, out);
            return Ok(Step::Done);
        }
        let ends = ends && is_last;
        if ends {
            self.end_receiving(stream);
        }
        if now == 0 && !ends {
            return Ok(Step::Done);
        }
        Ok(Step::Event(Event::Data {
            stream,
            range,
            ends,
        }))
    }

    fn headers(
        &mut self,
        head: Head,
        payload: &[u8],
        draft: &mut Draft,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        let Ok(fragment) = frame::fragment(head, payload) else {
            return broken(Reason::ProtocolError, "HEADERS with wrong padding");
        };
        // A server opens none (RFC 9113 §5.1.1).
        if head.stream.is_multiple_of(2) {
            return broken(Reason::ProtocolError, "HEADERS on an even stream");
        }
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, ends, fragment, draft, out);
        }
        self.partial = Partial::Block {
            stream: head.stream,
            ends,
            bytes: fragment.to_vec(),
        };
        Ok(Step::Done)
    }

    fn continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        draft: &mut Draft,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        let Partial::Block {
            stream,
            ends,
            bytes,
        } = &mut self.partial
        else {
            return broken(Reason::ProtocolError, "a CONTINUATION of nothing");
        };
        // Compressed it is hardly ever longer than what it means, and then by
        // little.
        if bytes.len() + payload.len() > self.ours.list as usize {
            return broken(Reason::EnhanceYourCalm, "client sent too large header");
        }
        bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(Step::Done);
        }
        let (stream, ends, bytes) = (*stream, *ends, std::mem::take(bytes));
        self.partial = Partial::None;
        self.block(stream, ends, &bytes, draft, out)
    }

    /// A whole block of fields.
    fn block(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        draft: &mut Draft,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        self.is_in_fields = false;
        let is_client = self.role == Role::Client;
        match self.streams.known(id) {
            Known::Idle if is_client => broken(Reason::ProtocolError, "HEADERS on an idle stream"),
            Known::Idle => self.request(id, ends, block, draft, out),
            Known::Open if self.streams.get(id).is_some_and(|it| !it.has_head) => {
                self.answer(id, ends, block, draft, out)
            }
            Known::Open => self.trailers(id, ends, block, out),
            Known::Reset | Known::Closed if is_client => {
                self.pass_over(block)?;
                self.meter.late()?;
                Ok(Step::Done)
            }
            Known::Reset => {
                self.pass_over(block)?;
                self.meter.in_vain()?;
                Ok(Step::Done)
            }
            Known::Closed => broken(Reason::StreamClosed, "HEADERS on a closed stream"),
        }
    }

    fn request(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        draft: &mut Draft,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        if let Leaving::Told(last) = self.leaving
            && id > last
        {
            self.pass_over(block)?;
            return Ok(Step::Done);
        }
        self.streams.use_up(id);
        if self.streams.len() >= self.ours.streams as usize {
            self.pass_over(block)?;
            self.meter.in_vain()?;
            self.reset(id, Reason::RefusedStream, out);
            return Ok(Step::Done);
        }
        self.decode(block, draft)?;
        let (mut send, mut receive) = self.windows();
        if draft.is_malformed() {
            // Without windows: it is over as soon as it has begun.
            (send, receive) = (Window::new(0), Grant::new(0));
        }
        self.streams.open(Stream {
            id,
            send,
            receive,
            takes: !ends,
            gives: true,
            has_head: true,
            owed: None,
            attached: None,
        });
        if draft.is_malformed() {
            self.stream_error(id, Reason::ProtocolError, out)?;
            return Ok(Step::Event(Event::Malformed));
        }
        Ok(Step::Event(Event::Request { stream: id, ends }))
    }

    fn decode(&mut self, block: &[u8], draft: &mut Draft) -> Result<(), Broken> {
        draft.clear();
        let list = self.ours.list as usize;
        let decoded = self
            .decoder
            .decode(block, list, |name, value, _| draft.add(name, value));
        match decoded {
            Ok(Outcome::Whole) => draft.end(),
            Ok(Outcome::TooLarge) => draft.cut_off(),
            Err(_) => return broken(Reason::CompressionError, "fields that cannot be read"),
        }
        Ok(())
    }

    /// Those of a new stream, in either direction.
    fn windows(&self) -> (Window, Grant) {
        let granted = match self.is_acknowledged {
            true => self.ours.window,
            false => self.ours.window.max(DEFAULT_WINDOW),
        };
        let send = Window::new(self.peer.initial_window);
        (send, Grant::new(granted))
    }

    /// The head of an answer to a request of ours.
    fn answer(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        draft: &mut Draft,
        out: &mut impl Sink,
    ) -> Stepped<S> {
        self.decode(block, draft)?;
        let is_interim = draft.is_interim();
        if draft.is_malformed() || (is_interim && ends) {
            return self.stream_error(id, Reason::ProtocolError, out);
        }
        if let Some(stream) = self.streams.get_mut(id) {
            stream.has_head = !is_interim;
        }
        if ends {
            self.end_receiving(id);
        }
        Ok(Step::Event(Event::Answer { stream: id, ends }))
    }

    /// What may come behind a body.
    fn trailers(&mut self, id: u32, ends: bool, block: &[u8], out: &mut impl Sink) -> Stepped<S> {
        let mut trailers = TrailerDraft::default();
        let list = self.ours.list as usize;
        let decoded = self
            .decoder
            .decode(block, list, |name, value, _| trailers.add(name, value));
        let Ok(outcome) = decoded else {
            return broken(Reason::CompressionError, "fields that cannot be read");
        };
        let Some(stream) = self.streams.get(id) else {
            return Ok(Step::Done);
        };
        if !stream.takes {
            return self.stream_error(id, Reason::StreamClosed, out);
        }
        let lies = stream.owed.is_some_and(|owed| owed > 0);
        if outcome == Outcome::TooLarge {
            return self.stream_error(id, Reason::EnhanceYourCalm, out);
        }
        let Some(fields) = trailers.end().filter(|_| ends && !lies) else {
            return self.stream_error(id, Reason::ProtocolError, out);
        };
        self.end_receiving(id);
        Ok(Step::Event(Event::Trailers { stream: id, fields }))
    }

    /// Decompresses fields that nobody wants.
    fn pass_over(&mut self, block: &[u8]) -> Result<(), Broken> {
        match self.decoder.decode(block, 0, |_, _, _| {}) {
            Ok(_) => Ok(()),
            Err(_) => broken(Reason::CompressionError, "fields that cannot be read"),
        }
    }

    fn reset_by_peer(&mut self, head: Head, payload: &[u8]) -> Stepped<S> {
        let known = self.streams.known(head.stream);
        if known == Known::Idle {
            return broken(Reason::ProtocolError, "a reset of an idle stream");
        }
        if known != Known::Open && self.role == Role::Client {
            self.meter.late()?;
        }
        let code = payload.first_chunk::<4>();
        let why = Why::Reset(code.map_or(0, |code| u32::from_be_bytes(*code)));
        let removed = self.streams.remove(head.stream);
        Ok(gone(removed, why))
    }

    fn left(&mut self, payload: &[u8]) -> Step<S> {
        self.is_left = true;
        let code = payload.get(4..).and_then(<[u8]>::first_chunk::<4>);
        Step::Event(Event::GoAway {
            last: word(payload),
            code: code.map_or(0, |code| u32::from_be_bytes(*code)),
        })
    }

    /// One of the streams above `last`, as long as there are any: they count no
    /// more.
    pub fn take_unprocessed(&mut self, last: u32) -> Option<S> {
        loop {
            let id = self.streams.iter().last()?.id;
            if id <= last {
                return None;
            }
            if let Some(own) = self.streams.remove(id)?.attached {
                return Some(own);
            }
        }
    }

    fn settings(&mut self, head: Head, payload: &[u8], out: &mut impl Sink) -> Stepped<S> {
        if head.has(flag::ACK) {
            if !std::mem::replace(&mut self.is_acknowledged, true) {
                let window = self.ours.window;
                self.streams
                    .iter_mut()
                    .for_each(|stream| stream.receive.resize(window));
            }
            return Ok(Step::Done);
        }
        let before = self.peer;
        match before.after(payload) {
            Ok(peer) => (self.peer, self.is_greeted) = (peer, true),
            Err(reason) => return broken(reason, "a setting out of range"),
        }
        if let Some(size) = self.peer.table_size {
            self.encoder.set_peer_max(size as usize);
        }
        frame::put_settings_ack(out);
        let by = i64::from(self.peer.initial_window) - i64::from(before.initial_window);
        for stream in self.streams.iter_mut() {
            if stream.send.shift(by).is_err() {
                return broken(Reason::FlowControlError, "a window beyond all bounds");
            }
        }
        Ok(Step::Event(Event::RoomForAll))
    }

    fn ping(&mut self, head: Head, payload: &[u8], out: &mut impl Sink) {
        let Some(opaque) = payload.first_chunk::<8>() else {
            return;
        };
        if !head.has(flag::ACK) {
            frame::put_ping(out, *opaque, true);
        } else if self.leaving == Leaving::Noticed && *opaque == FAREWELL {
            // What was on its way when it had the notice has come by now.
            self.go_away(Reason::NoError, out);
        }
    }

    fn window_update(&mut self, head: Head, payload: &[u8], out: &mut impl Sink) -> Stepped<S> {
        let by = word(payload);
        if head.stream == 0 {
            if by == 0 {
                return broken(Reason::ProtocolError, "a window that grows by nothing");
            }
            if self.send.shift(i64::from(by)).is_err() {
                return broken(Reason::FlowControlError, "a window beyond all bounds");
            }
            return Ok(Step::Event(Event::RoomOnConnection));
        }
        if self.streams.known(head.stream) == Known::Idle {
            return broken(Reason::ProtocolError, "a window for an idle stream");
        }
        let Some(stream) = self.streams.get_mut(head.stream) else {
            return Ok(Step::Done);
        };
        if by == 0 {
            return self.stream_error(head.stream, Reason::ProtocolError, out);
        }
        if stream.send.shift(i64::from(by)).is_err() {
            return self.stream_error(head.stream, Reason::FlowControlError, out);
        }
        Ok(Step::Event(Event::Room(head.stream)))
    }

    /// The peer has broken a rule that concerns one stream.
    fn stream_error(&mut self, id: u32, reason: Reason, out: &mut impl Sink) -> Stepped<S> {
        let known = self.streams.known(id);
        if known == Known::Idle {
            return Ok(Step::Done);
        }
        self.meter.provoked()?;
        let removed = match known {
            Known::Reset => None,
            _ => self.reset(id, reason, out),
        };
        Ok(gone(removed, Why::Broken(reason)))
    }

    /// Resets a stream, which is then over for us; what of it is known.
    fn reset(&mut self, id: u32, reason: Reason, out: &mut impl Sink) -> Option<Stream<S>> {
        let removed = self.streams.remove(id);
        if let Some(stream) = &removed
            && self.role == Role::Client
        {
            let window = if stream.takes {
                stream.receive.available()
            } else {
                0
            };
            self.meter.give_up(window);
        }
        self.streams.remember(id);
        frame::put_reset(out, id, reason);
        removed
    }

    fn end_receiving(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.takes = false;
            self.ended = id;
        }
    }

    /// Forgets the stream that has ended with the event before, if we are done
    /// with it as well.
    fn settle(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        if ended != 0 && self.streams.get(ended).is_some_and(|stream| !stream.gives) {
            self.streams.remove(ended);
        }
    }

    /// Keeps this with the stream.
    pub fn attach(&mut self, stream: u32, own: S) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.attached = Some(own);
        }
    }

    /// What is kept with a stream that is not closed.
    pub fn attached(&self, stream: u32) -> Option<&S> {
        self.streams.get(stream)?.attached.as_ref()
    }

    /// All that is kept with streams.
    pub fn all_attached(&mut self) -> impl Iterator<Item = &S> {
        let streams = self.streams.iter_mut();
        streams.filter_map(|stream| stream.attached.as_ref())
    }

    /// The request has announced a body of this length, to which it is held
    /// from now on. Whether it is not belied already.
    pub fn expect(&mut self, stream: u32, length: u64) -> bool {
        let Some(stream) = self.streams.get_mut(stream) else {
            return false;
        };
        stream.owed = Some(length);
        stream.takes || length == 0
    }

    /// Ends a stream for what its request says.
    ///
    /// # Errors
    /// It was one too many.
    pub fn reject(&mut self, stream: u32, out: &mut impl Sink) -> Result<(), Broken> {
        self.stream_error(stream, Reason::ProtocolError, out)
            .map(drop)
    }

    /// So many bytes of a body have been taken: the client may send as many
    /// more, on this stream unless it is over, and on the connection.
    pub fn release(&mut self, stream: u32, count: usize, out: &mut impl Sink) {
        if let Some(by) = self.receive.release(count) {
            frame::put_window_update(out, 0, by);
        }
        if let Some(open) = self.streams.get_mut(stream)
            && open.takes
            && let Some(by) = open.receive.release(count)
        {
            frame::put_window_update(out, stream, by);
        }
    }

    /// Sends a block of fields, which `write` makes: an interim answer's, the
    /// final one's or trailers. `scratch` is room for it.
    ///
    /// # Errors
    /// [`Gone`]; nothing was written.
    pub fn send_fields(
        &mut self,
        stream: u32,
        ends: bool,
        scratch: &mut Vec<u8>,
        out: &mut impl Sink,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<(), Gone> {
        let open = self.streams.get_mut(stream).filter(|open| open.gives);
        open.ok_or(Gone)?;
        scratch.clear();
        self.encoder.begin(scratch);
        write(&mut self.encoder, scratch);
        frame::put_block(out, stream, scratch, ends, self.peer.max_frame);
        if ends {
            self.end_sending(stream);
        }
        Ok(())
    }

    /// Begins a stream with a request, as [`Connection::send_fields`] does; its
    /// number.
    ///
    /// # Errors
    /// [`Gone`], also if the server wants no more streams, or none now.
    pub fn begin(
        &mut self,
        own: S,
        ends: bool,
        scratch: &mut Vec<u8>,
        out: &mut impl Sink,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<u32, Gone> {
        let is_crowded = self.streams.len() >= self.peer.max_streams as usize;
        if !self.takes_streams() || is_crowded {
            return Err(Gone);
        }
        // A client's have odd numbers (RFC 9113 §5.1.1).
        let id = (self.streams.highest() + 1) | 1;
        let (send, receive) = self.windows();
        self.streams.open(Stream {
            id,
            send,
            receive,
            takes: true,
            gives: true,
            has_head: false,
            owed: None,
            attached: Some(own),
        });
        self.send_fields(id, ends, scratch, out, write)?;
        Ok(id)
    }

    /// Whether streams of ours may begin at all, room apart.
    #[must_use]
    pub fn takes_streams(&self) -> bool {
        self.role == Role::Client
            && !self.is_left
            && self.leaving == Leaving::No
            && self.streams.highest() < ANY_STREAM
    }

    /// How many the server takes at a time; `None` until it has said so.
    #[must_use]
    pub fn most_streams(&self) -> Option<u32> {
        self.is_greeted.then_some(self.peer.max_streams)
    }

    /// What may be sent on a stream now.
    ///
    /// # Errors
    /// [`Gone`]
    pub fn room(&self, stream: u32) -> Result<Room, Gone> {
        let open = self.streams.get(stream).filter(|open| open.gives);
        Ok(Room {
            stream: open.ok_or(Gone)?.send.available(),
            connection: self.send.available(),
            frame: self.peer.max_frame,
        })
    }

    /// The header of a DATA frame of `length` bytes, which must follow it: no
    /// more than there is [`Room`] for.
    ///
    /// # Errors
    /// [`Gone`], also if there is no room.
    pub fn send_data(
        &mut self,
        stream: u32,
        length: usize,
        ends: bool,
    ) -> Result<[u8; HEADER], Gone> {
        let open = self.streams.get_mut(stream).filter(|open| open.gives);
        let open = open.ok_or(Gone)?;
        if length > self.send.available() {
            return Err(Gone);
        }
        open.send.take(length).map_err(|_| Gone)?;
        self.send.take(length).map_err(|_| Gone)?;
        self.meter.sent(length);
        if ends {
            self.end_sending(stream);
        }
        let head = Head {
            length,
            kind: kind::DATA,
            flags: if ends { flag::END_STREAM } else { 0 },
            stream,
        };
        Ok(head.bytes())
    }

    fn end_sending(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.gives = false;
            if !stream.takes {
                self.streams.remove(id);
            }
        }
    }

    /// The caller is done with a stream. If that is not over it is reset: a
    /// request of ours is cancelled, a client's answered for `reason`, or if only
    /// the rest of it is missing, without blame (RFC 9113 §8.1).
    pub fn finish(&mut self, stream: u32, reason: Reason, out: &mut impl Sink) {
        let Some(open) = self.streams.get(stream) else {
            return;
        };
        let reason = match self.role {
            Role::Client => Reason::Cancel,
            Role::Server if open.gives => reason,
            Role::Server => Reason::NoError,
        };
        self.reset(stream, reason, out);
    }

    /// A stream has been answered in full.
    pub fn earn(&mut self) {
        self.meter.earn();
    }

    /// The first step of leaving (RFC 9113 §6.8): the client hears that it will
    /// be so, and by its answer to a PING what it has not asked by then is known.
    pub fn go_away_soon(&mut self, out: &mut impl Sink) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Noticed;
            frame::put_go_away(out, ANY_STREAM, Reason::NoError);
            frame::put_ping(out, FAREWELL, false);
        }
    }

    /// The client hears why, and the last stream that counts. What it asks from
    /// now on goes unheard.
    pub fn go_away(&mut self, reason: Reason, out: &mut impl Sink) {
        let last = match self.leaving {
            Leaving::Told(last) => last,
            // Of a server's there are none.
            Leaving::No | Leaving::Noticed if self.role == Role::Client => 0,
            Leaving::No | Leaving::Noticed => self.streams.highest(),
        };
        self.leaving = Leaving::Told(last);
        frame::put_go_away(out, last, reason);
    }

    /// The client knows the last stream that counts, and none is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.leaving, Leaving::Told(_)) && self.streams.len() == 0
    }

    /// A block of fields, or a frame of one, has come in part.
    #[must_use]
    pub fn is_in_fields(&self) -> bool {
        self.is_in_fields
    }

    /// Whether the body of any request is still on its way.
    #[must_use]
    pub fn expects_data(&self) -> bool {
        self.streams.iter().any(|stream| stream.takes)
    }

    /// Whether the connection's own window is open.
    #[must_use]
    pub fn has_window(&self) -> bool {
        self.send.available() > 0
    }

    /// Gives back what the HPACK tables have allocated and do not need.
    pub fn trim(&mut self) {
        self.decoder.trim();
        self.encoder.trim();
    }

    /// Streams that are not closed.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }
}

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod tests;
