//! A peer's byte stream, over TLS or not: a socket, the record layer on top
//! of it, the receive buffer and the two time limits.
//!
//! Receiving decrypts in place in the receive buffer and sending encrypts in
//! place in the send buffer, so the cipher's is the only pass over a byte
//! that happens in user space.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::pending;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::{Lingering, Parting};
use crate::net::buffers::{Buffer, Class, Gaps, SEGMENTS_EACH, Segments};
use crate::net::deadlines::Deadline;
use crate::net::socket::{Behind, Receiver, Sender, Socket};
use crate::tls::record::{HEADROOM, MAX_PLAINTEXT, TAILROOM};
use crate::tls::session::{Session, SessionError, append};

use super::exchange::Piece;
use super::input::Input;
use super::output::Output;
use super::pace::Pace;
use super::runs::Runs;

/// Both directions of a connection.
#[derive(Debug)]
pub(crate) struct Transport {
    receiver: Receiver,
    sender: Sender,
    /// Not inline: the task of every connection has room for it, and several
    /// times. Shared while the connection is handed over.
    session: Option<Rc<RefCell<Session>>>,
    pub(crate) input: Input,
    rx_deadline: Deadline,
    tx_deadline: Deadline,
    traffic: Cell<Traffic>,
    timed_out: Cell<bool>,
}

/// Payload in both directions, bytes: what TLS adds does not count.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The receiving side of a [`Transport`].
pub(crate) struct Rx<'a> {
    receiver: &'a mut Receiver,
    session: Option<&'a Rc<RefCell<Session>>>,
    pub(crate) input: &'a mut Input,
    deadline: &'a Deadline,
    traffic: &'a Cell<Traffic>,
    timed_out: &'a Cell<bool>,
    /// By [`Rx::expect`].
    expected: u64,
    /// While [`Rx::fill_records`] is under way.
    leaves_records: bool,
    /// `proxy_limit_rate`.
    pub(crate) pace: Option<Box<Pace>>,
}

/// The sending side of a [`Transport`].
pub(crate) struct Tx<'a> {
    sender: &'a mut Sender,
    session: Option<&'a RefCell<Session>>,
    deadline: &'a Deadline,
    traffic: &'a Cell<Traffic>,
    timed_out: &'a Cell<bool>,
}

/// Why a peer can no longer be read from or written to.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// Nothing moved within the time limit.
    TimedOut,
    /// The kernel's word.
    Io(io::Error),
    /// The record layer's word.
    Tls(SessionError),
    /// More was received than any caller will look at.
    InputFull,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out (110: Connection timed out)"),
            Self::Io(error) => match error.raw_os_error() {
                Some(code) => write!(f, "failed ({code}: {})", OsMessage(error)),
                None => write!(f, "failed ({error})"),
            },
            Self::Tls(error) => error.fmt(f),
            Self::InputFull => f.write_str("receive buffer is full"),
        }
    }
}

impl From<SessionError> for TransportError {
    #[cold]
    fn from(error: SessionError) -> Self {
        Self::Tls(error)
    }
}

/// An error's text without the ` (os error N)` that the standard library adds.
struct OsMessage<'a>(&'a io::Error);

impl fmt::Display for OsMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl Transport {
    pub(crate) fn new(socket: Socket, session: Option<Session>, input: Input) -> Self {
        Self {
            receiver: socket.receiver,
            sender: socket.sender,
            session: session.map(|session| Rc::new(RefCell::new(session))),
            input,
            rx_deadline: Deadline::new(),
            tx_deadline: Deadline::new(),
            traffic: Cell::default(),
            timed_out: Cell::new(false),
        }
    }

    pub(crate) fn split(&mut self) -> (Rx<'_>, Tx<'_>) {
        let session = self.session.as_deref();
        let rx = Rx {
            receiver: &mut self.receiver,
            session: self.session.as_ref(),
            input: &mut self.input,
            deadline: &self.rx_deadline,
            traffic: &self.traffic,
            timed_out: &self.timed_out,
            expected: 0,
            leaves_records: false,
            pace: None,
        };
        let tx = Tx {
            sender: &mut self.sender,
            session,
            deadline: &self.tx_deadline,
            traffic: &self.traffic,
            timed_out: &self.timed_out,
        };
        (rx, tx)
    }

    pub(crate) fn rx(&mut self) -> Rx<'_> {
        self.split().0
    }

    pub(crate) fn tx(&mut self) -> Tx<'_> {
        self.split().1
    }

    /// What was carried since the last call.
    pub(crate) fn take_traffic(&self) -> Traffic {
        self.traffic.take()
    }

    /// Whether the peer ever took, or left, the time that a transfer may take;
    /// waits of [`Rx::hung_up`] do not count.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// Nothing is expected of the peer for a while: what can be had again is
    /// given up.
    pub(crate) fn rest(&mut self) {
        if let Some(session) = &self.session {
            session.borrow_mut().rest();
        }
    }

    pub(crate) fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The time limit that [`Rx::fill`] waits under.
    pub(crate) fn rx_deadline(&self) -> &Deadline {
        &self.rx_deadline
    }

    /// Tells the peer why its records are refused, if that is the error and
    /// there is an alert for it. Nothing but closing can follow.
    pub(crate) async fn alert(&mut self, error: &TransportError) {
        let (Some(session), TransportError::Tls(error)) = (&self.session, error) else {
            return;
        };
        let mut record = Vec::with_capacity(64);
        if let Some(alert) = error.alert() {
            // A key that is used up cannot say so; closing says it.
            let _ = session.borrow_mut().seal_alert(alert, &mut record);
        }
        let _ = self
            .tx()
            .send_raw(&record, Behind::More, CLOSE_TIMEOUT)
            .await;
    }

    /// Tells a client whose handshake is over that it is not let in.
    pub(crate) async fn refuse(&mut self) {
        let Some(session) = &self.session else { return };
        let mut record = Vec::with_capacity(64);
        // A key that is used up cannot say so; closing says it.
        let _ = session.borrow_mut().seal_refusal(&mut record);
        let _ = self
            .tx()
            .send_raw(&record, Behind::More, CLOSE_TIMEOUT)
            .await;
    }

    /// Ends the connection in order: TLS close_notify, FIN, then for a while
    /// reads what the peer still sends, because closing a socket with unread
    /// input resets it and can destroy the response on its way (RFC 9112 §9.6).
    pub(crate) async fn close(mut self, linger: Linger) {
        let _ = self.tx().close_notify(CLOSE_TIMEOUT).await;
        if linger == Linger::NONE {
            return;
        }
        self.sender.finish();
        // Nothing of it will be used, and many may linger at a time.
        self.input = Input::default();
        let begun = Instant::now();
        loop {
            let left = linger.in_all.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            self.rx_deadline.arm(left.min(linger.between));
            let Ok(Ok(true)) = self.rx_deadline.run(self.receiver.discard()).await else {
                return;
            };
        }
    }
}

/// How long [`Transport::close`] reads what the peer still sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Linger {
    in_all: Duration,
    /// Without anything coming.
    between: Duration,
}

impl Linger {
    /// Not at all.
    pub(crate) const NONE: Self = Self::for_time(Duration::ZERO);

    pub(crate) const fn for_time(time: Duration) -> Self {
        Self {
            in_all: time,
            between: time,
        }
    }

    /// Behind a request, of which there may be `more` to come.
    pub(crate) fn after_request(parting: &Parting, more: bool) -> Self {
        let lingers = match parting.lingering {
            Lingering::Off => false,
            Lingering::On => more,
            Lingering::Always => true,
        };
        if !lingers || parting.lingering_time.is_zero() || parting.lingering_timeout.is_zero() {
            return Self::NONE;
        }
        Self {
            in_all: parting.lingering_time,
            between: parting.lingering_timeout,
        }
    }
}

/// How often a client that waits for a backend is looked after. The kernel
/// could be asked to tell, at the price of an operation for every request.
const HANG_UP_CHECK: Duration = Duration::from_millis(200);
/// How long a close_notify may take to leave: it fits in any socket buffer
/// that is not already stuck.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What came in a shorter record is moved to the one before it: that costs less
/// than a slice of a send.
const SHORT_RUN: usize = 4 << 10;

/// How [`Rx::fill_while`] begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// By trying: there may be something already.
    Try,
    /// By waiting, without a buffer, if nothing is left from before.
    Wait,
}

/// Notes it, and says so.
#[cold]
fn timed_out(noted: &Cell<bool>) -> TransportError {
    noted.set(true);
    TransportError::TimedOut
}

impl<'a> Rx<'a> {
    /// What [`Rx::fill`] is under while it waits: armed anew, it ends later or
    /// sooner.
    pub(crate) fn deadline(&self) -> &'a Deadline {
        self.deadline
    }

    /// Receives until there is more plaintext than before, within `timeout`
    /// from now. 0 means that the peer has closed. Cancelling it loses bytes.
    pub(crate) async fn fill(
        &mut self,
        want: Class,
        timeout: Duration,
    ) -> Result<usize, TransportError> {
        let Some(pace) = &mut self.pace else {
            self.deadline.arm(timeout);
            return self.fill_while(want, First::Try, None).await;
        };
        pace.wait().await;
        self.deadline.arm(timeout);
        let read = self.fill_while(Class::Small, First::Try, None).await?;
        if let Some(pace) = &mut self.pace {
            pace.count(read);
        }
        Ok(read)
    }

    /// As [`Rx::fill`], and what came over TLS is left in its records, for
    /// [`Rx::lend_records`]: of several, only the first counts yet.
    pub(crate) async fn fill_records(
        &mut self,
        want: Class,
        timeout: Duration,
    ) -> Result<usize, TransportError> {
        self.leaves_records = self.input.plain.is_empty();
        let filled = self.fill(want, timeout).await;
        self.leaves_records = false;
        filled
    }

    /// Lends at most `limit` bytes of what [`Rx::fill_records`] has received, from
    /// where they lie, with the buffer; [`Input::give_back`] must follow.
    pub(crate) fn lend_records(&mut self, limit: u64) -> Result<Option<Piece>, TransportError> {
        let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut runs = Runs::default();
        loop {
            let input = &mut *self.input;
            let end = input.plain.end.min(input.plain.start.saturating_add(left));
            let mut taken = input.plain.start..end;
            input.plain.start = end;
            left -= taken.len();
            match (runs.last_mut(), &mut input.buffer) {
                (Some(last), Some(buffer)) if taken.len() < SHORT_RUN => {
                    append(buffer, last, std::mem::take(&mut taken));
                }
                _ => runs.push(taken),
            }
            if left == 0 || runs.is_full() || !input.plain.is_empty() {
                break;
            }
            self.open_next()?;
            if self.input.plain.is_empty() {
                break;
            }
            self.count(self.input.plain.len());
        }
        if left == 0 {
            // What is behind it may be nothing but the record layer's own.
            let before = self.input.plain.len();
            self.open()?;
            self.count(self.input.plain.len() - before);
        }
        Ok(self.input.lend_runs(runs))
    }

    /// As [`Rx::lend_records`], but the buffer goes for good.
    pub(crate) fn take_records(&mut self, limit: u64) -> Result<Option<Piece>, TransportError> {
        let piece = self.lend_records(limit)?;
        if let Some(piece) = &piece {
            self.input.leave(&piece.buffer);
        }
        Ok(piece)
    }

    /// Opens the next record, if it is complete, once there is no plaintext left.
    fn open_next(&mut self) -> Result<(), TransportError> {
        let input = &mut *self.input;
        if let (Some(session), Some(buffer)) = (self.session, &mut input.buffer) {
            let mut session = session.borrow_mut();
            let opened = session.open_next(buffer, &mut input.cipher)?;
            input.plain = opened.unwrap_or(input.cipher.start..input.cipher.start);
            input.closed |= session.peer_has_closed();
        }
        Ok(())
    }

    /// Until this is said again, at least so many bytes are still to be received:
    /// the rest of a body.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.expected = bytes;
    }

    /// As [`Rx::fill`], where the peer has hardly had the time to send anything.
    pub(crate) async fn fill_later(
        &mut self,
        want: Class,
        timeout: Duration,
    ) -> Result<usize, TransportError> {
        self.deadline.arm(timeout);
        self.fill_while(want, First::Wait, None).await
    }

    /// Waits until something comes, under a deadline that the caller has armed
    /// and as long as `may_go_on` says yes; whether it came. Cancelling it does
    /// nothing.
    pub(crate) async fn arrives(&mut self, may_go_on: &mut (dyn FnMut() -> bool + '_)) -> bool {
        self.input.buffer = None;
        let readable = self.receiver.readable();
        let waited = self.deadline.run_while(readable, Some(may_go_on));
        waited.await.is_ok()
    }

    /// As [`Rx::fill`], under a deadline that the caller has armed, and as long
    /// as `may_go_on` says yes; it is asked after a
    /// [`nudge`](crate::net::deadlines::nudge).
    pub(crate) async fn fill_while(
        &mut self,
        want: Class,
        mut first: First,
        mut may_go_on: Option<&mut (dyn FnMut() -> bool + '_)>,
    ) -> Result<usize, TransportError> {
        let before = self.input.plain.len();
        // A record may be complete already: it came with the last one.
        if !self.input.cipher.is_empty() {
            self.open()?;
        }
        while self.input.plain.len() == before {
            if self.input.closed {
                return Ok(0);
            }
            if first == First::Wait && self.input.is_empty() {
                first = First::Try;
                self.input.buffer = None;
                self.receiver.expect_to_wait();
            } else if self.receive_at_once(want)? {
                continue;
            }
            let turn = self.receiver.next_turn(self.expected);
            let waited = self.deadline.run_while(turn, may_go_on.as_deref_mut());
            let turn = waited.await.map_err(|_| timed_out(self.timed_out))?;
            turn.map_err(TransportError::Io)?;
        }
        let received = self.input.plain.len() - before;
        self.count(received);
        Ok(received)
    }

    /// Takes in what has come, or the end. Whether anything had; whoever waits for
    /// it holds no buffer if nothing is in it.
    fn receive_at_once(&mut self, want: Class) -> Result<bool, TransportError> {
        let (mut buffer, range) = self.input.lend(want).ok_or(TransportError::InputFull)?;
        let target = buffer.get_mut(range).unwrap_or_default();
        let received = self.receiver.receive_at_once(target, self.expected);
        let Some(received) = received else {
            self.input.give_back(buffer);
            return Ok(false);
        };
        self.input.buffer = Some(buffer);
        match received.map_err(TransportError::Io)? {
            0 => self.input.closed = true,
            read => {
                self.input.cipher.end += read;
                self.open()?;
            }
        }
        Ok(true)
    }

    fn count(&self, received: usize) {
        let mut traffic = self.traffic.get();
        traffic.received += received as u64;
        self.traffic.set(traffic);
    }

    /// What this side and the other have carried.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.get()
    }

    /// Receives payload straight into `segments`, for a peer without TLS
    /// whose receive buffer is empty.
    pub(crate) async fn fill_segments(
        &mut self,
        segments: Segments,
        limit: usize,
        timeout: Duration,
    ) -> Result<(usize, Segments), TransportError> {
        debug_assert!(self.session.is_none() && self.input.is_empty());
        self.deadline.arm(timeout);
        let received = self
            .deadline
            .run(self.receiver.receive_segments(segments, limit))
            .await;
        let (result, segments) = received.map_err(|_| TransportError::TimedOut)?;
        let read = result.map_err(TransportError::Io)?;
        self.count(read);
        Ok((read, segments))
    }

    /// Whether the peer has sent more than was received.
    pub(crate) fn has_more(&self) -> bool {
        self.receiver.has_more()
    }

    /// Whether the end of what came, which [`Rx::fill`] has told of, may have
    /// been brought about by anybody: over TLS only close_notify is the peer's
    /// own word (RFC 8446 §6.1).
    pub(crate) fn was_cut_off(&self) -> bool {
        self.session
            .is_some_and(|session| !session.borrow().peer_has_closed())
    }

    /// Waits until the peer is gone, at most [`HANG_UP_CHECK`] longer than
    /// that takes. Reads nothing; cancelling it does nothing.
    pub(crate) async fn hung_up(&mut self) {
        loop {
            self.deadline.arm(HANG_UP_CHECK);
            // Nothing ends it but the deadline.
            let _ = self.deadline.run(pending::<()>()).await;
            if self.receiver.is_hung_up() {
                return;
            }
        }
    }

    /// The connection, for whoever has it next, while this side and the other are
    /// still lent to somebody who will not use them again. Nothing that was
    /// received goes with it.
    pub(crate) fn hand_over(&mut self) -> Transport {
        Transport {
            session: self.session.cloned(),
            ..Transport::new(self.receiver.hand_over(), None, Input::default())
        }
    }

    /// Whether what comes is in TLS records, and may be taken as fast as it comes.
    pub(crate) fn has_records(&self) -> bool {
        self.session.is_some() && self.pace.is_none()
    }

    /// Whether [`Rx::fill_segments`] may be used.
    pub(crate) fn is_bare(&self) -> bool {
        self.session.is_none() && self.input.is_empty() && self.pace.is_none()
    }

    /// Turns complete records into plaintext; without TLS all is plaintext.
    fn open(&mut self) -> Result<(), TransportError> {
        let input = &mut *self.input;
        let Some(session) = self.session else {
            input.plain.end = input.cipher.end;
            input.cipher.start = input.cipher.end;
            return Ok(());
        };
        if self.leaves_records {
            return self.open_next();
        }
        if let Some(buffer) = &mut input.buffer {
            let mut session = session.borrow_mut();
            session.open(buffer, &mut input.plain, &mut input.cipher)?;
            input.closed |= session.peer_has_closed();
        }
        Ok(())
    }
}

impl Tx<'_> {
    fn count(&self, sent: usize) {
        let mut traffic = self.traffic.get();
        traffic.sent += sent as u64;
        self.traffic.set(traffic);
    }

    /// Sends `buffer[plain]`, all that the buffer has, within `timeout`, as TLS
    /// records where there is TLS: sealed in place if it is one record's worth
    /// with room around it, by way of another buffer otherwise. With the end
    /// behind it, nothing can follow.
    pub(crate) async fn send(
        &mut self,
        mut buffer: Buffer,
        plain: Range<usize>,
        behind: Behind,
        timeout: Duration,
    ) -> Result<Buffer, TransportError> {
        self.count(plain.len());
        if self.owes() {
            Box::pin(self.pay(timeout)).await?;
        }
        let range = match self.session {
            None => plain,
            Some(session) => {
                let fits = plain.len() <= MAX_PLAINTEXT
                    && plain.start >= HEADROOM
                    && buffer.len() - plain.end >= TAILROOM;
                if !fits {
                    // Boxed: rare.
                    let parts = buffer.get(plain).into_iter();
                    let copied = self.send_copied(session, parts, behind, timeout);
                    return Box::pin(copied).await.map(|()| buffer);
                }
                let mut session = session.borrow_mut();
                let record = session.seal_in_place(&mut buffer, plain)?;
                match behind {
                    // In the same system call.
                    Behind::End => {
                        record.start..session.seal_close_notify_behind(&mut buffer, record.end)
                    }
                    Behind::Nothing | Behind::More => record,
                }
            }
        };
        let bytes = buffer.get(range).unwrap_or_default();
        let rest = self.send_at_once(bytes, behind)?;
        if !rest.is_empty() {
            self.send_raw(rest, behind, timeout).await?;
        }
        Ok(buffer)
    }

    /// Sends a piece from where it lies, in one send, and returns its buffer. Over
    /// TLS each run is sealed there if it has room round it, as one that lies in
    /// the record in which it came; otherwise as [`Tx::send`].
    pub(crate) async fn send_piece(
        &mut self,
        piece: Piece,
        behind: Behind,
        timeout: Duration,
    ) -> Result<Buffer, TransportError> {
        let Piece { mut buffer, runs } = piece;
        if runs.is_empty() {
            return Ok(buffer);
        }
        self.count(runs.len());
        if self.owes() {
            Box::pin(self.pay(timeout)).await?;
        }
        let runs = match self.session {
            None => runs,
            Some(session) => {
                let Gaps { head, tail, .. } = self.gaps();
                if !runs.have_room(head, tail) {
                    // Boxed: rare.
                    let copied = self.send_copied(session, runs.parts(&buffer), behind, timeout);
                    return Box::pin(copied).await.map(|()| buffer);
                }
                let mut records = Runs::default();
                for run in runs.ranges() {
                    records.push(session.borrow_mut().seal_in_place(&mut buffer, run)?);
                }
                records
            }
        };
        let sent = self.sender.send_slices(&runs.slices(&buffer), behind);
        let mut sent = sent.map_err(TransportError::Io)?;
        for part in runs.parts(&buffer) {
            let rest = part.get(sent..).unwrap_or_default();
            sent = sent.saturating_sub(part.len());
            if !rest.is_empty() {
                self.send_raw(rest, behind, timeout).await?;
            }
        }
        Ok(buffer)
    }

    /// Sends what has been written, if anything; otherwise as [`Tx::send`].
    pub(crate) async fn send_output(
        &mut self,
        out: &mut Output,
        behind: Behind,
        timeout: Duration,
    ) -> Result<(), TransportError> {
        if let Some((buffer, range)) = out.take() {
            self.send(buffer, range, behind, timeout).await?;
        }
        Ok(())
    }

    /// Seals in another buffer what cannot be where it lies.
    async fn send_copied<'b>(
        &mut self,
        session: &RefCell<Session>,
        parts: impl Iterator<Item = &'b [u8]>,
        behind: Behind,
        timeout: Duration,
    ) -> Result<(), TransportError> {
        let mut record_buffer = Buffer::take(Class::Medium);
        for piece in parts.flat_map(|part| part.chunks(MAX_PLAINTEXT)) {
            let room = HEADROOM..HEADROOM + piece.len();
            if let Some(target) = record_buffer.get_mut(room.clone()) {
                target.copy_from_slice(piece);
            }
            let record = session
                .borrow_mut()
                .seal_in_place(&mut record_buffer, room)?;
            let record = record_buffer.get(record).unwrap_or_default();
            self.send_raw(record, behind, timeout).await?;
        }
        Ok(())
    }

    /// Sends the `filled` bytes of payload in `segments`, which were taken
    /// with [`Tx::gaps`], in one operation.
    pub(crate) async fn send_segments(
        &mut self,
        mut segments: Segments,
        filled: usize,
        behind: Behind,
        timeout: Duration,
    ) -> Result<Segments, TransportError> {
        self.count(filled);
        if self.owes() {
            Box::pin(self.pay(timeout)).await?;
        }
        let mut all: Option<Range<usize>> = None;
        for index in 0..SEGMENTS_EACH {
            let payload = segments.plain(index, filled);
            if payload.is_empty() {
                break;
            }
            let record = match self.session {
                Some(session) => session
                    .borrow_mut()
                    .seal_in_place(segments.bytes_mut(), payload)?,
                None => payload,
            };
            all = Some(all.map_or(record.clone(), |all| all.start..record.end));
        }
        let all = segments.bytes().get(all.unwrap_or(0..0));
        let rest = self.send_at_once(all.unwrap_or_default(), behind)?;
        if !rest.is_empty() {
            self.send_raw(rest, behind, timeout).await?;
        }
        Ok(segments)
    }

    /// The bytes that sealing puts before and behind each record's payload.
    pub(crate) fn gaps(&self) -> Gaps {
        self.session.map_or(Gaps::default(), |session| {
            let session = session.borrow();
            Gaps {
                head: session.record_header_len(),
                lead: 0,
                tail: session.record_trailer_len(),
            }
        })
    }

    /// Sends bytes that are already what goes on the wire.
    pub(crate) async fn send_raw(
        &mut self,
        bytes: &[u8],
        behind: Behind,
        timeout: Duration,
    ) -> Result<(), TransportError> {
        self.deadline.arm(timeout);
        let sent = self.deadline.run(self.sender.send(bytes, behind)).await;
        let result = sent.map_err(|_| timed_out(self.timed_out))?;
        result.map_err(TransportError::Io)
    }

    /// Sends without waiting, and returns what is left for [`Tx::send_raw`]:
    /// nothing, unless the peer is slow. A system call of its own costs less than
    /// an operation of the ring, which must also be completed and polled for, and
    /// the peer has it sooner.
    fn send_at_once<'b>(
        &self,
        bytes: &'b [u8],
        behind: Behind,
    ) -> Result<&'b [u8], TransportError> {
        let sent = self.sender.send_at_once(bytes, behind);
        let sent = sent.map_err(TransportError::Io)?;
        Ok(bytes.get(sent..).unwrap_or_default())
    }

    /// Ends this direction: TLS close_notify, then FIN. The peer may send on.
    pub(crate) async fn finish(&mut self, timeout: Duration) -> Result<(), TransportError> {
        self.close_notify(timeout).await?;
        self.sender.finish();
        Ok(())
    }

    /// The end of this direction has to follow at once, and leaves with it.
    async fn close_notify(&mut self, timeout: Duration) -> Result<(), TransportError> {
        let Some(session) = self.session else {
            return Ok(());
        };
        let mut alert = Vec::new();
        // A key that is used up cannot say goodbye; closing says it.
        let _ = session.borrow_mut().seal_close_notify(&mut alert);
        if alert.is_empty() {
            // It was said behind the last response.
            return Ok(());
        }
        self.send_raw(&alert, Behind::More, timeout).await
    }

    /// Whether the record layer owes the peer something, which goes before all
    /// else: the answer to a KeyUpdate. So rarely that what sends it is boxed.
    fn owes(&self) -> bool {
        let session = self.session;
        session.is_some_and(|session| session.borrow().has_pending())
    }

    async fn pay(&mut self, timeout: Duration) -> Result<(), TransportError> {
        let mut pending = Vec::new();
        if let Some(session) = self.session {
            session.borrow_mut().take_pending(&mut pending)?;
        }
        self.send_raw(&pending, Behind::More, timeout).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::pin::pin;
    use std::task::Poll;

    use monoio::{LegacyDriver, RuntimeBuilder};
    use rustls::crypto::cipher::{AeadKey, Iv};
    use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion};

    use super::*;
    use crate::net::buffers;
    use crate::net::operations::{self, OPERATIONS};
    use crate::tls::session::KeySchedule;

    #[test]
    fn who_waits_for_a_peer_holds_no_buffer() {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            let (mut transport, mut theirs) = connected(None);
            transport.rx_deadline().arm(Duration::from_secs(60));
            drop(Buffer::take(Class::Small));
            let unused = || buffers::usage().unused[Class::Small as usize];
            let mut rx = transport.rx();
            {
                let mut fill = pin!(rx.fill_while(Class::Small, First::Wait, None));
                poll_fn(|context| {
                    assert!(fill.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
                assert_eq!(unused(), 1);
                theirs.write_all(b"hello").unwrap();
                assert_eq!(fill.await.unwrap(), 5);
            }
            assert_eq!(unused(), 0);
            assert_eq!(transport.input.plain(), b"hello");
        });
    }

    /// Both ends of a TLS 1.3 connection, as after its handshake.
    fn sessions() -> (Session, Session) {
        let secrets = |key| ConnectionTrafficSecrets::Aes256Gcm {
            key: AeadKey::from([key; 32]),
            iv: Iv::new([key; 12]),
        };
        let session = |tx, rx| {
            let secrets = ExtractedSecrets {
                tx: (0, secrets(tx)),
                rx: (0, secrets(rx)),
            };
            Session::new(ProtocolVersion::TLSv1_3, &secrets, KeySchedule::None).unwrap()
        };
        (session(1, 2), session(2, 1))
    }

    /// A transport, with the other end of its socket.
    fn connected(session: Option<Session>) -> (Transport, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let socket = Socket::adopt(ours).unwrap();
        (Transport::new(socket, session, Input::default()), theirs)
    }

    #[test]
    fn records_are_opened_and_sealed_where_they_lie() {
        const LENGTHS: [usize; 4] = [16_384, 5_000, 16_384, 9_000];
        let body = |index: usize| vec![index as u8; LENGTHS[index]];
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = sessions();
            let (mut from, mut sender) = connected(Some(ours));
            let mut wire = Vec::new();
            for (index, length) in LENGTHS.into_iter().enumerate() {
                let mut record = [&[0; HEADROOM][..], &body(index), &[0; TAILROOM]].concat();
                let plain = HEADROOM..HEADROOM + length;
                let place = theirs.seal_in_place(&mut record, plain).unwrap();
                wire.extend_from_slice(&record[place]);
            }
            sender.write_all(&wire).unwrap();

            let mut rx = from.rx();
            let filled = rx.fill_records(Class::Large, Duration::from_secs(60));
            assert_eq!(filled.await.unwrap(), LENGTHS[0]);
            // Of the last, as many bytes as a body may still have.
            let limit = LENGTHS.iter().sum::<usize>() - 1_000;
            let piece = rx.lend_records(limit as u64).unwrap().unwrap();
            let mut start = 5;
            for (run, length) in piece.runs.ranges().zip([16_384, 5_000, 16_384, 8_000]) {
                assert_eq!(run, start..start + length);
                // Tag and content type of this record, and the next one's header.
                start += length + 22;
            }

            // All but the last, behind which something else lies.
            let (ours, mut theirs) = sessions();
            let (mut to, mut receiver) = connected(Some(ours));
            let mut runs = Runs::default();
            piece.runs.ranges().take(3).for_each(|run| runs.push(run));
            runs.end_at(piece.runs.ranges().nth(3).unwrap().start);
            let piece = Piece { runs, ..piece };
            let mut tx = to.tx();
            let sent = tx.send_piece(piece, Behind::Nothing, Duration::from_secs(60));
            let buffer = sent.await.unwrap();
            let length = LENGTHS[..3].iter().map(|length| length + 22).sum::<usize>();
            let mut wire = vec![0; length];
            receiver.read_exact(&mut wire).unwrap();
            assert!(wire == buffer[..length], "one send, from where they lay");
            let mut cipher = 0..length;
            for index in 0..3 {
                let plain = theirs.open_next(&mut wire, &mut cipher).unwrap().unwrap();
                assert!(wire[plain] == body(index));
            }

            rx.input.give_back(buffer);
            assert!(
                rx.input.plain() == vec![3; 1_000],
                "what is left is unharmed"
            );
        });
    }

    #[test]
    fn runs_leave_in_one_send_over_plain_tcp() {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            let (mut to, mut receiver) = connected(None);
            let mut buffer = Buffer::take(Class::Small);
            for (index, byte) in buffer.iter_mut().enumerate() {
                *byte = (index / 10) as u8;
            }
            let mut runs = Runs::default();
            for run in [3..9, 20..30, 50..51] {
                runs.push(run);
            }
            let sends = || operations::take_activity().completed[3];
            assert_eq!((OPERATIONS[3], sends()), ("send", 0));
            let piece = Piece { buffer, runs };
            let mut tx = to.tx();
            let sent = tx.send_piece(piece, Behind::Nothing, Duration::from_secs(60));
            sent.await.unwrap();
            assert_eq!(sends(), 1);
            let mut wire = [0; 17];
            receiver.read_exact(&mut wire).unwrap();
            assert_eq!(wire, [0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 5]);
        });
    }
}
