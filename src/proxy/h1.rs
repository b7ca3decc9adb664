//! Both ends of an HTTP/1.1 exchange with a client (RFC 9112).

use std::time::Duration;

use crate::http::h1::chunked::ChunkedDecoder;
use crate::http::h1::encode::{self, Sink};
use crate::http::h1::framing::{BodyFraming, Kind};
use crate::http::head::{Method, Version};
use crate::http::trailers::Trailers;
use crate::net::buffers::{Buffer, Class, Gaps, Segments};
use crate::net::deadlines;
use crate::net::socket::Behind;

use super::ahead::Ahead;
use super::exchange::{self, BodyError, BodySize, BodySource, OwnFields, Piece, ResponseSink};
use super::output::Output;
use super::pace::Pace;
use super::transport::{Rx, TransportError, Tx};
use super::tunnel::wanted_after;

/// A request's body as it comes.
pub(crate) struct H1Body<'t> {
    rx: Rx<'t>,
    state: BodyState,
    /// Between two reads.
    timeout: Duration,
    /// Boxed: few demand one.
    min_rate: Option<Box<MinRate>>,
    /// Bytes that may still come; for bodies of unknown size.
    allowance: u64,
    awaits_continue: bool,
    /// Boxed: most requests have none.
    ahead: Option<Box<Ahead>>,
    /// What came behind its last chunk.
    trailers: Trailers,
    /// A read is under way, or a piece is on loan. If that is so when the
    /// body is no longer being read, bytes are lost, and where the next
    /// request begins is unknown.
    is_busy: bool,
    /// Payload bytes so far.
    received: u64,
    is_withheld: bool,
}

enum BodyState {
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Another protocol's bytes, until the client ends them; and the buffer to
    /// wait for them with.
    Switched(Class),
    Finished,
}

impl<'t> H1Body<'t> {
    pub(crate) fn new(rx: Rx<'t>, framing: BodyFraming, awaits_continue: bool) -> Self {
        let state = match framing.kind() {
            Kind::Length(length) if length > 0 => BodyState::Length(length),
            Kind::Chunked => BodyState::Chunked(ChunkedDecoder::new()),
            // A request never runs until the connection closes.
            Kind::Length(_) | Kind::Empty | Kind::UntilClose => BodyState::Finished,
        };
        let awaits_continue = awaits_continue && !matches!(state, BodyState::Finished);
        Self {
            rx,
            state,
            timeout: Duration::ZERO,
            min_rate: None,
            allowance: 0,
            awaits_continue,
            ahead: None,
            trailers: Trailers::default(),
            is_busy: false,
            received: 0,
            is_withheld: false,
        }
    }

    /// Whether what follows in the input is what follows the bytes read so
    /// far: not if reading was cut short.
    pub(crate) fn is_in_step(&self) -> bool {
        !self.is_busy
    }

    /// Payload bytes received.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Reads and drops what is left, if that is little: at most `bound` bytes.
    /// Whether the connection can carry another request.
    pub(crate) async fn drain(&mut self, bound: u64) -> bool {
        if self.awaits_continue() || !self.is_in_step() {
            return false;
        }
        let mut left = bound;
        loop {
            match self.next_piece().await {
                Ok(None) => return true,
                Ok(Some(piece)) => {
                    let length = piece.runs.len() as u64;
                    self.give_back(piece.buffer);
                    if length > left {
                        return false;
                    }
                    left -= length;
                }
                Err(_) => return false,
            }
        }
    }

    async fn next_piece(&mut self) -> Result<Option<Piece>, BodyError> {
        self.awaits_continue = false;
        loop {
            if let BodyState::Finished = self.state {
                return Ok(None);
            }
            let waited = match self.rx.input.plain().is_empty() {
                true => self.fill().await?,
                false => None,
            };
            self.is_busy = true;
            let piece = self.lend()?;
            let length = piece.as_ref().map_or(0, |piece| piece.runs.len());
            if let (Some(rate), Some(waited)) = (&mut self.min_rate, waited)
                && rate.is_missed(length, waited)
            {
                return Err(BodyError::TooSlow);
            }
            if piece.is_some() {
                return Ok(piece);
            }
            self.is_busy = false;
        }
    }

    /// Receives more; how long that took, where somebody looks at it.
    async fn fill(&mut self) -> Result<Option<Duration>, BodyError> {
        let begun = self.min_rate.is_some().then(deadlines::running_time);
        self.is_busy = true;
        let filled = match self.state {
            BodyState::Length(left) => {
                self.rx.expect(left);
                self.rx.fill_records(Class::Large, self.timeout).await
            }
            BodyState::Switched(want) => {
                self.rx.expect(0);
                self.rx.fill_records(want, self.timeout).await
            }
            BodyState::Chunked(_) | BodyState::Finished => {
                self.rx.expect(0);
                self.rx.fill(Class::Large, self.timeout).await
            }
        };
        self.is_busy = false;
        match (filled, &self.state) {
            (Ok(0), BodyState::Switched(_)) => self.state = BodyState::Finished,
            (Ok(0), _) => return Err(BodyError::Closed),
            (Ok(_), _) => {}
            (Err(error), _) => return Err(BodyError::Transport(error)),
        }
        Ok(begun.map(|begun| deadlines::running_time() - begun))
    }

    /// Lends what is here of the body; `None` if that is nothing.
    fn lend(&mut self) -> Result<Option<Piece>, BodyError> {
        let piece = match &mut self.state {
            BodyState::Finished => None,
            BodyState::Switched(_) => self.lend_records(u64::MAX)?,
            &mut BodyState::Length(left) => self.lend_records(left)?,
            BodyState::Chunked(decoder) => {
                let input = &mut *self.rx.input;
                let decoded = decoder.decode(input.plain_mut());
                let decoded = decoded.map_err(BodyError::Invalid)?;
                if decoded.done {
                    self.trailers = decoder.take_trailers();
                    self.state = BodyState::Finished;
                }
                match decoded.produced {
                    0 => {
                        input.consume(decoded.consumed);
                        None
                    }
                    produced => input.lend_plain(produced, decoded.consumed),
                }
            }
        };
        let length = piece.as_ref().map_or(0, |piece| piece.runs.len());
        let allowance = self.allowance.checked_sub(length as u64);
        self.allowance = allowance.ok_or(BodyError::TooLarge)?;
        match &mut self.state {
            BodyState::Switched(want) => {
                *want = wanted_after(length);
                return Ok(piece);
            }
            BodyState::Length(left) => {
                *left -= length as u64;
                if *left == 0 {
                    self.state = BodyState::Finished;
                }
            }
            BodyState::Chunked(_) | BodyState::Finished => {}
        }
        self.received += length as u64;
        Ok(piece)
    }

    fn lend_records(&mut self, limit: u64) -> Result<Option<Piece>, BodyError> {
        self.rx.lend_records(limit).map_err(BodyError::Transport)
    }
}

impl BodySource for H1Body<'_> {
    fn size(&self) -> BodySize {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.len() as u64);
        match self.state {
            _ if self.is_withheld => BodySize::None,
            BodyState::Length(length) => BodySize::Known(ahead + length),
            BodyState::Chunked(_) | BodyState::Switched(_) => BodySize::Unknown,
            BodyState::Finished if ahead > 0 => BodySize::Known(ahead),
            BodyState::Finished => BodySize::None,
        }
    }

    fn awaits_continue(&self) -> bool {
        self.awaits_continue && self.rx.input.plain().is_empty()
    }

    fn has_piece(&self) -> bool {
        !self.rx.input.plain().is_empty()
            || self.ahead.as_ref().is_some_and(|ahead| ahead.has_piece())
    }

    fn set_limits(&mut self, read_timeout: Duration, max_size: u64) {
        self.timeout = read_timeout;
        self.allowance = if max_size == 0 { u64::MAX } else { max_size };
    }

    fn demand_rate(&mut self, rate: u64, after: Duration) {
        self.min_rate = Some(MinRate::new(rate, after, self.min_rate.as_deref()));
    }

    async fn next(&mut self) -> Result<Option<Piece>, BodyError> {
        if self.is_withheld {
            return Ok(None);
        }
        if let Some(piece) = self.ahead.as_mut().and_then(|ahead| ahead.next()) {
            return Ok(Some(piece));
        }
        self.next_piece().await
    }

    fn give_back(&mut self, buffer: Buffer) {
        if !self.is_busy {
            // Of what was read ahead: its buffer is nobody's.
            return;
        }
        self.is_busy = false;
        self.rx.input.give_back(buffer);
    }

    async fn read_ahead(&mut self, limit: usize, keep: bool) -> Result<(), BodyError> {
        if self.ahead.is_some() {
            return Ok(());
        }
        let expected = match self.state {
            BodyState::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if !keep && self.rx.input.plain().len() >= length {
                    return Ok(());
                }
                length.min(limit)
            }
            _ => 0,
        };
        self.ahead = Some(Ahead::read(self, limit, expected).await?);
        Ok(())
    }

    fn ahead(&self) -> Option<&Ahead> {
        self.ahead.as_deref()
    }

    fn ahead_mut(&mut self) -> Option<&mut Ahead> {
        self.ahead.as_deref_mut()
    }

    fn trailers(&self) -> Trailers {
        match self.is_withheld {
            true => Trailers::default(),
            false => self.trailers.clone(),
        }
    }

    fn has_trailers(&self) -> bool {
        !self.is_withheld && !self.trailers.is_empty()
    }

    async fn abandoned(&mut self) {
        self.rx.hung_up().await;
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, BodyState::Finished)
    }

    fn is_whole(&self) -> bool {
        // What was read ahead and not given away is not lost.
        self.received == 0 || self.ahead.as_ref().is_some_and(|ahead| ahead.is_intact())
    }

    fn withhold(&mut self) {
        self.is_withheld = true;
    }

    fn switch_protocols(&mut self) {
        self.state = BodyState::Switched(Class::Small);
        self.set_limits(Duration::MAX, 0);
        self.min_rate = None;
    }
}

/// `client_body_min_rate`. Only the time spent waiting for the client counts,
/// not what a backend takes to swallow what has come.
pub(super) struct MinRate {
    /// Bytes per second.
    rate: u64,
    after: Duration,
    read: u64,
    waited: Duration,
}

impl MinRate {
    /// Another location does not begin to count anew: `before` is what held.
    pub(super) fn new(rate: u64, after: Duration, before: Option<&Self>) -> Box<Self> {
        let (read, waited) = before.map_or((0, Duration::ZERO), |it| (it.read, it.waited));
        Box::new(Self {
            rate,
            after,
            read,
            waited,
        })
    }

    /// Counts a read; whether it was too little for the time that all took.
    pub(super) fn is_missed(&mut self, read: usize, waited: Duration) -> bool {
        self.read = self.read.saturating_add(read as u64);
        self.waited += waited;
        let due = self.waited.as_secs_f64() * self.rate as f64;
        self.waited > self.after && (self.read as f64) < due
    }
}

/// A request's answer as it goes.
pub(crate) struct H1Sink<'t> {
    tx: Tx<'t>,
    out: Output,
    request: RequestKind,
    /// What the client and the limits allow; falls to false, never rises.
    keep_alive: bool,
    /// For the `Keep-Alive` field, in seconds.
    keep_alive_header: Option<u64>,
    /// `chunked_transfer_encoding off`.
    refuses_chunks: bool,
    expects_trailers: bool,
    /// Complete lines.
    trailers: Vec<u8>,
    pace: Option<Box<Pace>>,
    send_timeout: Duration,
    state: SinkState,
    committed: bool,
    body_bytes: u64,
    own_fields: OwnFields,
}

/// What of the request decides how the answer is framed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestKind {
    pub(crate) method: Method,
    pub(crate) version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SinkState {
    Waiting,
    Head,
    /// Bytes that are still owed.
    Length(u64),
    Chunked,
    UntilClose,
    Finished,
}

impl<'t> H1Sink<'t> {
    pub(crate) fn new(tx: Tx<'t>, request: RequestKind, keep_alive: bool) -> Self {
        Self {
            tx,
            out: Output::default(),
            request,
            keep_alive,
            keep_alive_header: None,
            refuses_chunks: false,
            expects_trailers: false,
            trailers: Vec::new(),
            pace: None,
            send_timeout: Duration::from_secs(60),
            state: SinkState::Waiting,
            committed: false,
            body_bytes: 0,
            own_fields: OwnFields::default(),
        }
    }

    /// Whether the client may send another request on this connection.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive && self.state == SinkState::Finished
    }

    fn count(&mut self, length: usize) {
        self.body_bytes += length as u64;
    }
}

/// The longest chunk header for a chunk that fits into one record, with the
/// line ends and the last chunk behind it.
const CHUNK_OVERHEAD: usize = 6 + 2 + encode::LAST_CHUNK.len();

impl ResponseSink for H1Sink<'_> {
    async fn interim(&mut self, status: u16) -> Result<(), TransportError> {
        encode::status_line(&mut self.out, status);
        self.out.put(b"\r\n");
        self.flush_out().await
    }

    fn start(&mut self, status: u16, reason: Option<&[u8]>, send_timeout: Duration) {
        self.send_timeout = send_timeout;
        self.state = SinkState::Head;
        match reason {
            Some(reason) => encode::status_line_with_reason(&mut self.out, status, reason),
            None => encode::status_line(&mut self.out, status),
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        // A value made from variables may hold what a request smuggled into
        // them, decoded: `$uri` with CR LF would begin a field of its own.
        if encode::is_field_value(value) {
            encode::field(&mut self.out, name, value);
        }
    }

    fn end_head(&mut self, size: BodySize) {
        let chunks = self.request.version == Version::Http11
            && self.request.method != Method::Head
            && !self.refuses_chunks;
        let size = match size {
            BodySize::Known(_) if self.expects_trailers && chunks => BodySize::Unknown,
            size => size,
        };
        let mut own_fields = OwnFields::default();
        self.state = match size {
            BodySize::None => SinkState::Length(0),
            BodySize::Announced(length) => {
                encode::field_decimal(&mut self.out, b"Content-Length", length);
                own_fields.length = Some(length);
                SinkState::Length(0)
            }
            BodySize::Known(length) => {
                encode::field_decimal(&mut self.out, b"Content-Length", length);
                own_fields.length = Some(length);
                SinkState::Length(length)
            }
            BodySize::Unknown if self.request.method == Method::Head => SinkState::Length(0),
            BodySize::Unknown if self.request.version == Version::Http10 || self.refuses_chunks => {
                self.keep_alive = false;
                SinkState::UntilClose
            }
            BodySize::Unknown => {
                encode::field(&mut self.out, b"Transfer-Encoding", b"chunked");
                own_fields.is_chunked = true;
                SinkState::Chunked
            }
        };
        own_fields.connection = if self.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let connection = own_fields.connection.as_bytes();
        encode::field(&mut self.out, b"Connection", connection);
        own_fields.keep_alive = self.keep_alive_header.filter(|_| self.keep_alive);
        self.own_fields = own_fields;
        if let Some(seconds) = own_fields.keep_alive {
            self.out.put(b"Keep-Alive: timeout=");
            encode::decimal(&mut self.out, seconds);
            self.out.put(b"\r\n");
        }
        self.out.put(b"\r\n");
    }

    async fn write(&mut self, mut data: &[u8]) -> Result<(), TransportError> {
        while !data.is_empty() {
            let overhead = if self.state == SinkState::Chunked {
                CHUNK_OVERHEAD
            } else {
                0
            };
            let room = self.out.room_in_record().saturating_sub(overhead);
            let room = match &self.pace {
                // A part of what fits is behind it already.
                Some(pace) => room.min(pace.at_once().saturating_sub(self.out.len())),
                None => room,
            };
            let (now, later) = data.split_at_checked(room).unwrap_or((data, &[]));
            if now.is_empty() {
                self.flush_out().await?;
                continue;
            }
            let before = self.out.len();
            match &mut self.state {
                SinkState::Chunked => {
                    let (head, length) = encode::chunk_head(now.len());
                    self.out.put(head.get(..length).unwrap_or_default());
                    self.out.put(now);
                    self.out.put(encode::CHUNK_END);
                }
                SinkState::Length(left) => {
                    // The caller keeps to the length it announced.
                    *left = left.saturating_sub(now.len() as u64);
                    self.out.put(now);
                }
                _ => self.out.put(now),
            }
            self.count(self.out.len() - before);
            data = later;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.flush_out().await
    }

    fn segment_gaps(&self) -> Option<Gaps> {
        let whole = matches!(self.state, SinkState::Length(_)) && self.pace.is_none();
        whole.then(|| self.tx.gaps())
    }

    async fn segments(
        &mut self,
        segments: Segments,
        filled: usize,
        behind: Behind,
    ) -> Result<Segments, TransportError> {
        self.flush_out().await?;
        if let SinkState::Length(left) = &mut self.state {
            *left = left.saturating_sub(filled as u64);
        }
        self.count(filled);
        self.tx
            .send_segments(segments, filled, behind, self.send_timeout)
            .await
    }

    async fn piece(&mut self, piece: Piece, behind: Behind) -> Result<(), TransportError> {
        if self.segment_gaps().is_none() {
            return exchange::write_piece(self, piece).await;
        }
        self.flush_out().await?;
        let length = piece.runs.len();
        if let SinkState::Length(left) = &mut self.state {
            *left = left.saturating_sub(length as u64);
        }
        self.count(length);
        let sent = self.tx.send_piece(piece, behind, self.send_timeout).await;
        sent.map(drop)
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        if self.state == SinkState::Chunked {
            let trailers = std::mem::take(&mut self.trailers);
            if trailers.is_empty() {
                self.out.put(encode::LAST_CHUNK);
                self.count(encode::LAST_CHUNK.len());
            } else {
                self.put_raw(&[b"0\r\n", &*trailers, b"\r\n"].concat())
                    .await?;
            }
        }
        // A body that ended early must look like it, not like the next
        // response: only the end of the connection can tell the client.
        if let SinkState::Length(1..) = self.state {
            self.keep_alive = false;
            // And not with a close_notify behind it, by which all was said.
            self.flush_out().await?;
        }
        self.state = SinkState::Finished;
        self.flush_out().await
    }

    fn switch_protocols(&mut self) {
        self.keep_alive = false;
        self.out.put(b"Connection: upgrade\r\n\r\n");
        self.own_fields.connection = "upgrade";
        self.state = SinkState::UntilClose;
    }

    async fn end_sending(&mut self) -> Result<(), TransportError> {
        self.finish().await?;
        self.tx.finish(self.send_timeout).await
    }

    fn is_committed(&self) -> bool {
        self.committed
    }

    fn discard(&mut self) {
        if !self.committed {
            self.out.clear();
            self.state = SinkState::Waiting;
            self.body_bytes = 0;
            self.own_fields = OwnFields::default();
        }
    }

    fn limit_rate(&mut self, rate: u64, after: u64) {
        self.pace = Pace::new(rate, after);
    }

    async fn early_hints(&mut self, fields: &[(&[u8], &[u8])]) -> Result<(), TransportError> {
        if self.request.version == Version::Http10 {
            return Ok(());
        }
        encode::status_line(&mut self.out, 103);
        for (name, value) in fields {
            encode::field(&mut self.out, name, value);
        }
        self.out.put(b"\r\n");
        self.flush_out().await
    }

    fn expect_trailers(&mut self) {
        self.expects_trailers = true;
    }

    fn takes_trailers(&self) -> bool {
        self.state == SinkState::Chunked
    }

    fn trailer(&mut self, name: &[u8], value: &[u8]) {
        if encode::is_field_value(value) {
            encode::field(&mut self.trailers, name, value);
        }
    }

    fn refuse_chunks(&mut self) {
        self.refuses_chunks = true;
    }

    fn close_after(&mut self) {
        self.keep_alive = false;
    }

    fn announce_keep_alive(&mut self, timeout: Duration) {
        self.keep_alive_header = Some(timeout.as_secs());
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn own_fields(&self) -> OwnFields {
        self.own_fields
    }
}

impl H1Sink<'_> {
    /// Bytes of the body's framing, in as many buffers as they take.
    async fn put_raw(&mut self, mut bytes: &[u8]) -> Result<(), TransportError> {
        while !bytes.is_empty() {
            let room = self.out.room_in_record();
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.out.put(now);
            self.count(now.len());
            bytes = later;
            if !bytes.is_empty() {
                self.flush_out().await?;
            }
        }
        Ok(())
    }

    async fn flush_out(&mut self) -> Result<(), TransportError> {
        if let (Some(pace), SinkState::Length(_) | SinkState::Chunked | SinkState::UntilClose) =
            (&mut self.pace, self.state)
            && !self.out.is_empty()
        {
            pace.wait().await;
            pace.count(self.out.len());
        }
        if let Some((buffer, range)) = self.out.take() {
            self.committed |= self.state != SinkState::Waiting;
            let behind = match self.state == SinkState::Finished && !self.keep_alive {
                true => Behind::End,
                false => Behind::Nothing,
            };
            self.tx
                .send(buffer, range, behind, self.send_timeout)
                .await?;
        }
        Ok(())
    }
}
