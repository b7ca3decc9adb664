//! A request's answer on its stream (RFC 9113 §8.1).
//!
//! Nothing is handed over that the client has no window for, so a stream holds
//! at most what it may send at once, and waits for the rest by itself: the other
//! streams of its connection go on.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use crate::http::error::wire_status;
use crate::http::h1::chunked::lower_token;
use crate::http::h1::encode::{self, Sink as _};
use crate::http::h2::connection::{Gone, Room};
use crate::http::h2::frame::{HEADER, MAX_PAYLOAD};
use crate::http::h2::hpack::Encoder;
use crate::http::head::FieldId;
use crate::net::buffers::{Gaps, SEGMENTS_EACH, Segments};
use crate::net::deadlines::Deadline;
use crate::net::socket::Behind;
use crate::proxy::exchange::{BodySize, OwnFields, ResponseSink};
use crate::proxy::output::Output;
use crate::proxy::pace::Pace;
use crate::proxy::transport::TransportError;

use super::slot::Slot;

/// A part of a body from this length on is not gathered with what comes before
/// it and behind it, which would cost one more copy.
const WORTH_A_FRAME: usize = 2 << 10;

/// A request's answer as it goes.
pub(super) struct H2Sink<'s> {
    slot: &'s Slot,
    /// Of the body, not handed over.
    out: Output,
    head: Fields,
    status: u16,
    state: State,
    facts: Facts,
    /// `http2_chunk_size`.
    chunk_size: usize,
    trailers: Fields,
    expects_trailers: bool,
    pace: Option<Box<Pace>>,
    deadline: Deadline,
    send_timeout: Duration,
    committed: bool,
    /// What of an announced length has not been handed over.
    owed: Option<u64>,
    body_bytes: u64,
    /// What the Content-Length says.
    length: Option<u64>,
    /// Fields as compressed, and the head of every frame, but no padding.
    overhead: u64,
}

/// What of the request decides about the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// HEAD.
    pub(super) is_head: bool,
    /// An extended CONNECT, of which a 101 is a 200 (RFC 8441 §5).
    pub(super) is_tunnel: bool,
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

/// Fields that are gathered until they are handed over: compressing them has an
/// effect on all that come later, so it cannot be done sooner.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Fields {
    /// Names, in lower case, and values.
    text: Vec<u8>,
    /// The length of each.
    lengths: Vec<(u32, u32)>,
}

impl Fields {
    /// Of a response with the usual fields.
    pub(in crate::proxy) fn of_head() -> Self {
        Self {
            text: Vec::with_capacity(512),
            lengths: Vec::with_capacity(16),
        }
    }

    /// Names come from the configuration and from backends, in any case.
    pub(in crate::proxy) fn add(&mut self, name: &[u8], value: &[u8]) {
        let is_of_connection = matches!(
            FieldId::of(name),
            FieldId::Connection
                | FieldId::KeepAlive
                | FieldId::ProxyConnection
                | FieldId::TransferEncoding
                | FieldId::Upgrade
        );
        if is_of_connection || name.is_empty() || !encode::is_field_value(value) {
            return;
        }
        // RFC 9113 §8.2.1
        let value = value.trim_ascii();
        let lengths = (u32::try_from(name.len()), u32::try_from(value.len()));
        if let (Ok(name_length), Ok(value_length)) = lengths {
            let start = self.text.len();
            self.text.extend(name.iter().map(|byte| lower_token(*byte)));
            if self.text.iter().skip(start).any(|byte| *byte == 0) {
                // No name.
                self.text.truncate(start);
                return;
            }
            self.text.extend_from_slice(value);
            self.lengths.push((name_length, value_length));
        }
    }

    /// Bytes of all names and values.
    pub(in crate::proxy) fn len(&self) -> usize {
        self.text.len()
    }

    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    pub(in crate::proxy) fn write(&self, encoder: &mut Encoder, block: &mut Vec<u8>) {
        let mut rest = &*self.text;
        for &(name, value) in &self.lengths {
            let Some((name, behind)) = rest.split_at_checked(name as usize) else {
                return;
            };
            let Some((value, behind)) = behind.split_at_checked(value as usize) else {
                return;
            };
            encoder.field(name, value, block);
            rest = behind;
        }
    }
}

impl<'s> H2Sink<'s> {
    pub(super) fn new(slot: &'s Slot, facts: Facts, chunk_size: usize) -> Self {
        Self {
            slot,
            out: Output::default(),
            head: Fields::default(),
            status: 0,
            state: State::Waiting,
            facts,
            chunk_size,
            trailers: Fields::default(),
            expects_trailers: false,
            pace: None,
            deadline: Deadline::new(),
            send_timeout: Duration::from_secs(60),
            committed: false,
            owed: None,
            body_bytes: 0,
            length: None,
            overhead: 0,
        }
    }

    /// Whether the answer has come to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// What was sent: the stream's frames, as Nginx counts them.
    pub(super) fn bytes(&self) -> u64 {
        self.body_bytes + self.overhead
    }

    /// Hands the head over, and says whether the stream ends with it.
    fn commit(&mut self, ends: bool) -> Result<(), TransportError> {
        let State::Ready { has_body } = self.state else {
            return Ok(());
        };
        let head = std::mem::take(&mut self.head);
        self.committed = true;
        let ends = ends || !has_body;
        self.send_head(self.status, &head, ends)?;
        self.state = if ends { State::Finished } else { State::Body };
        Ok(())
    }

    fn send_head(
        &mut self,
        status: u16,
        fields: &Fields,
        ends: bool,
    ) -> Result<(), TransportError> {
        self.send_fields(ends, |encoder, block| {
            encoder.status(status, block);
            fields.write(encoder, block);
        })
    }

    fn send_fields(
        &mut self,
        ends: bool,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<(), TransportError> {
        let overhead = &mut self.overhead;
        let sent = self.slot.send_fields(ends, |encoder, block| {
            write(encoder, block);
            *overhead += (HEADER + block.len()) as u64;
        });
        sent.map_err(gone)
    }

    /// Hands over what is gathered, with the end of the stream if `ends`.
    async fn flush_out(&mut self, ends: bool) -> Result<(), TransportError> {
        self.commit(ends && self.out.is_empty())?;
        if self.state != State::Body {
            self.out.clear();
            return Ok(());
        }
        let Some((buffer, range)) = self.out.take() else {
            return match ends {
                true => self.send(&[], true).await,
                false => Ok(()),
            };
        };
        let data = buffer.get(range).unwrap_or_default();
        self.send(data, ends).await
    }

    /// Hands over a part of the body as the client has window for it.
    async fn send(&mut self, mut data: &[u8], ends: bool) -> Result<(), TransportError> {
        self.begin(data.len()).await;
        let ends = ends || self.ends_with(data.len());
        if data.is_empty() {
            // Takes no window.
            self.send_frame(&[], ends)?;
        }
        while !data.is_empty() {
            let room = self.turn().await?;
            let most = room
                .stream
                .min(room.connection)
                .min(room.frame.min(self.chunk_size).clamp(1, MAX_PAYLOAD));
            let (now, later) = data.split_at_checked(most).unwrap_or((data, &[]));
            let is_last = ends && later.is_empty();
            self.send_frame(now, is_last)?;
            data = later;
        }
        if ends {
            self.state = State::Finished;
        }
        Ok(())
    }

    fn send_frame(&mut self, data: &[u8], ends: bool) -> Result<(), TransportError> {
        self.overhead += HEADER as u64;
        self.slot.send_data(data, ends).map_err(gone)
    }

    /// So many bytes of the body are about to be handed over.
    async fn begin(&mut self, length: usize) {
        if let Some(pace) = &mut self.pace
            && length > 0
        {
            pace.wait().await;
            pace.count(length);
        }
        self.body_bytes += length as u64;
        if let Some(owed) = &mut self.owed {
            *owed = owed.saturating_sub(length as u64);
        }
    }

    /// Whether a part of this length was the last: then nothing else has to say
    /// so. What comes behind it has been announced.
    fn ends_with(&self, length: usize) -> bool {
        length > 0 && self.owed == Some(0) && !self.expects_trailers
    }

    /// Waits for the stream's turn: there is room for at least one byte.
    async fn turn(&mut self) -> Result<Room, TransportError> {
        self.deadline.arm(self.send_timeout);
        let slot = self.slot;
        let turn = poll_fn(|context| slot.poll_turn(context));
        match self.deadline.run(turn).await {
            Ok(room) => room.map_err(gone),
            Err(_) => Err(TransportError::TimedOut),
        }
    }
}

/// As the end of a client's connection.
fn gone(_: Gone) -> TransportError {
    TransportError::Io(io::Error::from_raw_os_error(libc::ECONNRESET))
}

impl ResponseSink for H2Sink<'_> {
    async fn interim(&mut self, status: u16) -> Result<(), TransportError> {
        self.send_head(status, &Fields::default(), false)
    }

    fn start(&mut self, status: u16, _: Option<&[u8]>, send_timeout: Duration) {
        self.send_timeout = send_timeout;
        self.state = State::Head;
        let status = match status {
            101 if self.facts.is_tunnel => 200,
            status => wire_status(status),
        };
        // One of the configuration's that no client would understand.
        self.status = if (100..1000).contains(&status) {
            status
        } else {
            500
        };
        self.head = Fields::of_head();
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        // A value made from variables may hold what a request smuggled into
        // them, decoded.
        self.head.add(name, value);
    }

    fn end_head(&mut self, size: BodySize) {
        self.length = None;
        if let BodySize::Known(length) | BodySize::Announced(length) = size {
            self.length = Some(length);
            let mut digits = itoa::Buffer::new();
            self.head
                .add(b"content-length", digits.format(length).as_bytes());
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
        if self.facts.is_head || self.state == State::Finished {
            return Ok(());
        }
        let is_alone = self.out.is_empty() && self.pace.is_none();
        if self.state == State::Body && is_alone && data.len() >= WORTH_A_FRAME {
            return self.send(data, false).await;
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

    fn segment_gaps(&self) -> Option<Gaps> {
        let has_body = matches!(self.state, State::Ready { has_body: true } | State::Body);
        // A frame is as long as a payload.
        let whole = has_body && self.pace.is_none() && self.chunk_size >= MAX_PAYLOAD;
        whole.then(|| Gaps {
            lead: HEADER,
            ..self.slot.gaps()
        })
    }

    async fn segments(
        &mut self,
        segments: Segments,
        filled: usize,
        _: Behind,
    ) -> Result<Segments, TransportError> {
        self.flush_out(false).await?;
        if self.state != State::Body {
            return Ok(segments);
        }
        let gaps = Gaps {
            lead: HEADER,
            ..self.slot.gaps()
        };
        let room = self.turn().await?;
        if room.stream.min(room.connection) >= filled {
            self.begin(filled).await;
            let ends = self.ends_with(filled);
            let sent = self.slot.send_bulk(segments, filled, ends);
            sent.map_err(gone)?;
            if ends {
                self.state = State::Finished;
            }
            return Ok(Segments::take(gaps));
        }
        // Where a window ends nobody knows beforehand, and a frame that is cut
        // needs another header in the middle of what it carries.
        for index in 0..SEGMENTS_EACH {
            let payload = segments.payload(index, filled);
            let data = segments.bytes().get(payload).unwrap_or_default();
            if data.is_empty() {
                break;
            }
            self.send(data, false).await?;
        }
        Ok(segments)
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
            self.send_fields(true, |encoder, block| trailers.write(encoder, block))?;
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
            self.head = Fields::default();
            self.state = State::Waiting;
            self.trailers = Fields::default();
            self.length = None;
        }
    }

    fn limit_rate(&mut self, rate: u64, after: u64) {
        self.pace = Pace::new(rate, after);
    }

    async fn early_hints(&mut self, fields: &[(&[u8], &[u8])]) -> Result<(), TransportError> {
        let mut hints = Fields::default();
        for (name, value) in fields {
            hints.add(name, value);
        }
        self.send_head(103, &hints, false)
    }

    fn expect_trailers(&mut self) {
        self.expects_trailers = true;
    }

    fn takes_trailers(&self) -> bool {
        matches!(self.state, State::Ready { has_body: true } | State::Body)
    }

    fn trailer(&mut self, name: &[u8], value: &[u8]) {
        self.trailers.add(name, value);
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

    fn own_fields(&self) -> OwnFields {
        OwnFields {
            length: self.length,
            ..OwnFields::default()
        }
    }
}
