//! A peer's byte stream, over TLS or not: a socket, the record layer on top
//! of it, the receive buffer and the two time limits.
//!
//! Receiving decrypts in place in the receive buffer and sending encrypts in
//! place in the send buffer, so the cipher's is the only pass over a byte
//! that happens in user space.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::net::buffers::{Buffer, Class, SEGMENTS_EACH, Segments};
use crate::net::deadlines::Deadline;
use crate::net::socket::{Receiver, Sender, Socket};
use crate::tls::record::{HEADROOM, MAX_PLAINTEXT, TAILROOM};
use crate::tls::session::{Session, SessionError};

/// Both directions of a connection.
#[derive(Debug)]
pub(crate) struct Transport {
    receiver: Receiver,
    sender: Sender,
    session: Option<RefCell<Session>>,
    pub(crate) input: Input,
    rx_deadline: Deadline,
    tx_deadline: Deadline,
    received: u64,
    sent: u64,
}

/// The receiving side of a [`Transport`].
pub(crate) struct Rx<'a> {
    receiver: &'a mut Receiver,
    session: Option<&'a RefCell<Session>>,
    pub(crate) input: &'a mut Input,
    deadline: &'a Deadline,
    received: &'a mut u64,
}

/// The sending side of a [`Transport`].
pub(crate) struct Tx<'a> {
    sender: &'a mut Sender,
    session: Option<&'a RefCell<Session>>,
    deadline: &'a Deadline,
    sent: &'a mut u64,
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
            session: session.map(RefCell::new),
            input,
            rx_deadline: Deadline::new(),
            tx_deadline: Deadline::new(),
            received: 0,
            sent: 0,
        }
    }

    pub(crate) fn split(&mut self) -> (Rx<'_>, Tx<'_>) {
        let session = self.session.as_ref();
        let rx = Rx {
            receiver: &mut self.receiver,
            session,
            input: &mut self.input,
            deadline: &self.rx_deadline,
            received: &mut self.received,
        };
        let tx = Tx {
            sender: &mut self.sender,
            session,
            deadline: &self.tx_deadline,
            sent: &mut self.sent,
        };
        (rx, tx)
    }

    pub(crate) fn rx(&mut self) -> Rx<'_> {
        self.split().0
    }

    pub(crate) fn tx(&mut self) -> Tx<'_> {
        self.split().1
    }

    /// Bytes sent on the wire since the last call.
    pub(crate) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
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
        let _ = self.tx().send_raw(&record, CLOSE_TIMEOUT).await;
    }

    /// Ends the connection in order: TLS close_notify, FIN, then at most
    /// `linger` of reading what the peer still sends, because closing a
    /// socket with unread input resets it and can destroy the response on
    /// its way (RFC 9112 §9.6). Zero does not wait.
    pub(crate) async fn close(mut self, linger: Duration) {
        if let Some(session) = &self.session {
            let mut alert = Vec::with_capacity(64);
            // A key that is used up cannot say goodbye; closing says it.
            let _ = session.borrow_mut().seal_close_notify(&mut alert);
            let _ = self.tx().send_raw(&alert, CLOSE_TIMEOUT).await;
        }
        if linger.is_zero() {
            return;
        }
        self.sender.finish();
        self.rx_deadline.arm(linger);
        let mut left = LINGER_BYTES;
        let mut buffer = Buffer::take(Class::Medium);
        while left > 0 {
            let range = 0..buffer.len();
            let Ok((result, back)) = self
                .rx_deadline
                .run(self.receiver.receive(buffer, range))
                .await
            else {
                return;
            };
            match result {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
            buffer = back;
        }
    }
}

/// How long a close_notify may take to leave: it fits in any socket buffer
/// that is not already stuck.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a lingering close reads at the most: enough for a client to notice
/// the refusal of an upload, too little to be worth abusing.
const LINGER_BYTES: usize = 1 << 20;

impl Rx<'_> {
    /// Receives until there is more plaintext than before, within `timeout`
    /// from now. 0 means that the peer has closed. Cancelling it loses bytes.
    pub(crate) async fn fill(
        &mut self,
        want: Class,
        timeout: Duration,
    ) -> Result<usize, TransportError> {
        self.deadline.arm(timeout);
        self.fill_before_deadline(want).await
    }

    /// As [`Rx::fill`], under a deadline that the caller has armed.
    pub(crate) async fn fill_before_deadline(
        &mut self,
        want: Class,
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
            let (buffer, range) = self.input.lend(want).ok_or(TransportError::InputFull)?;
            let received = self
                .deadline
                .run(self.receiver.receive(buffer, range))
                .await;
            let (result, buffer) = received.map_err(|_| TransportError::TimedOut)?;
            self.input.buffer = Some(buffer);
            match result.map_err(TransportError::Io)? {
                0 => self.input.closed = true,
                read => {
                    *self.received += read as u64;
                    self.input.cipher.end += read;
                    self.open()?;
                }
            }
        }
        Ok(self.input.plain.len() - before)
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
        *self.received += read as u64;
        Ok((read, segments))
    }

    /// Whether [`Rx::fill_segments`] may be used.
    pub(crate) fn is_bare(&self) -> bool {
        self.session.is_none() && self.input.is_empty()
    }

    /// Turns complete records into plaintext; without TLS all is plaintext.
    fn open(&mut self) -> Result<(), TransportError> {
        let input = &mut *self.input;
        let Some(session) = self.session else {
            input.plain.end = input.cipher.end;
            input.cipher.start = input.cipher.end;
            return Ok(());
        };
        if let Some(buffer) = &mut input.buffer {
            let opened = session
                .borrow_mut()
                .open(buffer, input.plain.end, input.cipher.clone())
                .map_err(TransportError::Tls)?;
            input.plain.end = opened.plain_end;
            input.cipher.start = opened.cipher_start;
            input.closed |= opened.closed;
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Sends `buffer[plain]` within `timeout`, as TLS records where there is
    /// TLS: sealed in place if it is one record's worth with room around it,
    /// by way of another buffer otherwise.
    pub(crate) async fn send(
        &mut self,
        mut buffer: Buffer,
        plain: Range<usize>,
        timeout: Duration,
    ) -> Result<Buffer, TransportError> {
        let Some(session) = self.session else {
            return self.send_range(buffer, plain, timeout).await;
        };
        self.flush_session(timeout).await?;
        let fits = plain.len() <= MAX_PLAINTEXT
            && plain.start >= HEADROOM
            && buffer.len() - plain.end >= TAILROOM;
        if fits {
            let record = session
                .borrow_mut()
                .seal_in_place(&mut buffer, plain)
                .map_err(TransportError::Tls)?;
            return self.send_range(buffer, record, timeout).await;
        }
        let mut record_buffer = Buffer::take(Class::Medium);
        for piece in buffer.get(plain).unwrap_or_default().chunks(MAX_PLAINTEXT) {
            let room = HEADROOM..HEADROOM + piece.len();
            if let Some(target) = record_buffer.get_mut(room.clone()) {
                target.copy_from_slice(piece);
            }
            let record = session
                .borrow_mut()
                .seal_in_place(&mut record_buffer, room)
                .map_err(TransportError::Tls)?;
            record_buffer = self.send_range(record_buffer, record, timeout).await?;
        }
        Ok(buffer)
    }

    /// Sends the `filled` bytes of payload in `segments`, which were taken
    /// with [`Tx::gaps`], in one operation.
    pub(crate) async fn send_segments(
        &mut self,
        mut segments: Segments,
        filled: usize,
        timeout: Duration,
    ) -> Result<Segments, TransportError> {
        self.flush_session(timeout).await?;
        let mut all: Option<Range<usize>> = None;
        for index in 0..SEGMENTS_EACH {
            let payload = segments.payload(index, filled);
            if payload.is_empty() {
                break;
            }
            let record = match self.session {
                Some(session) => session
                    .borrow_mut()
                    .seal_in_place(segments.bytes_mut(), payload)
                    .map_err(TransportError::Tls)?,
                None => payload,
            };
            all = Some(all.map_or(record.clone(), |all| all.start..record.end));
        }
        let all = all.unwrap_or(0..0);
        *self.sent += all.len() as u64;
        self.deadline.arm(timeout);
        let sent = self
            .deadline
            .run(self.sender.send_segments(segments, all))
            .await;
        let (result, segments) = sent.map_err(|_| TransportError::TimedOut)?;
        result.map_err(TransportError::Io)?;
        Ok(segments)
    }

    /// The bytes that sealing puts before and behind each record's payload.
    pub(crate) fn gaps(&self) -> (usize, usize) {
        self.session.map_or((0, 0), |session| {
            let session = session.borrow();
            (session.record_header_len(), session.record_trailer_len())
        })
    }

    /// Sends bytes that are already what goes on the wire.
    pub(crate) async fn send_raw(
        &mut self,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<(), TransportError> {
        for piece in bytes.chunks(Class::Large.size()) {
            let mut buffer = Buffer::for_size(piece.len());
            if let Some(target) = buffer.get_mut(..piece.len()) {
                target.copy_from_slice(piece);
            }
            self.send_range(buffer, 0..piece.len(), timeout).await?;
        }
        Ok(())
    }

    async fn send_range(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
        timeout: Duration,
    ) -> Result<Buffer, TransportError> {
        *self.sent += range.len() as u64;
        self.deadline.arm(timeout);
        let sent = self.deadline.run(self.sender.send(buffer, range)).await;
        let (result, buffer) = sent.map_err(|_| TransportError::TimedOut)?;
        result.map_err(TransportError::Io)?;
        Ok(buffer)
    }

    /// Sends what the record layer owes the peer: the answer to a KeyUpdate.
    async fn flush_session(&mut self, timeout: Duration) -> Result<(), TransportError> {
        let Some(session) = self
            .session
            .filter(|session| session.borrow().has_pending())
        else {
            return Ok(());
        };
        let mut pending = Vec::new();
        session
            .borrow_mut()
            .take_pending(&mut pending)
            .map_err(TransportError::Tls)?;
        self.send_raw(&pending, timeout).await
    }
}

/// What has been received and not yet been used.
///
/// Invariant: `plain.end <= cipher.start`; without TLS `cipher` is empty and
/// stands at `plain.end`. Without a buffer both are empty.
#[derive(Debug, Default)]
pub(crate) struct Input {
    buffer: Option<Buffer>,
    plain: Range<usize>,
    cipher: Range<usize>,
    closed: bool,
}

/// Reading into less than this costs more in operations than moving what is
/// there to the front.
const MIN_ROOM: usize = 512;

impl Input {
    /// What a handshake leaves behind: ciphertext that came after it, and
    /// (rarely) plaintext that the handshake engine opened.
    pub(crate) fn after_handshake(plain: &[u8], cipher: &[u8]) -> Option<Self> {
        let total = plain.len() + cipher.len();
        if total == 0 {
            return Some(Self::default());
        }
        let mut buffer = Buffer::for_size(total);
        buffer.get_mut(..plain.len())?.copy_from_slice(plain);
        buffer.get_mut(plain.len()..total)?.copy_from_slice(cipher);
        Some(Self {
            buffer: Some(buffer),
            plain: 0..plain.len(),
            cipher: plain.len()..total,
            closed: false,
        })
    }

    /// What has been received before it was known to be plaintext.
    pub(crate) fn from_plaintext(bytes: &[u8]) -> Option<Self> {
        let mut input = Self::after_handshake(bytes, &[])?;
        input.cipher = input.plain.end..input.plain.end;
        Some(input)
    }

    /// Plaintext not yet used.
    pub(crate) fn plain(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .and_then(|buffer| buffer.get(self.plain.clone()))
            .unwrap_or_default()
    }

    /// The same, for decoding in place.
    pub(crate) fn plain_mut(&mut self) -> &mut [u8] {
        let range = self.plain.clone();
        self.buffer
            .as_mut()
            .and_then(|buffer| buffer.get_mut(range))
            .unwrap_or_default()
    }

    /// Marks `count` bytes of plaintext as used; gives the buffer back to the
    /// pool when nothing is left in it.
    pub(crate) fn consume(&mut self, count: usize) {
        self.plain.start = (self.plain.start + count).min(self.plain.end);
        if self.is_empty() {
            self.reset();
        }
    }

    /// No plaintext and no part of a record is waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.cipher.is_empty()
    }

    /// The peer has said that it will send nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Detaches the first `length` bytes of plaintext together with their
    /// buffer, so that they outlive what is received next. Returns the buffer
    /// and where in it they start.
    pub(crate) fn detach(&mut self, length: usize) -> (Buffer, usize) {
        let start = self.plain.start;
        let rest = (start + length).min(self.plain.end)..self.plain.end;
        let Some(old) = self.buffer.take() else {
            return (Buffer::take(Class::Small), 0);
        };
        let left = rest.len() + self.cipher.len();
        if left == 0 {
            self.reset();
            return (old, start);
        }
        let mut new = Buffer::for_size(left);
        let plain = 0..rest.len();
        let cipher = plain.end..left;
        copy(&old, rest, &mut new, plain.clone());
        copy(&old, self.cipher.clone(), &mut new, cipher.clone());
        (self.plain, self.cipher, self.buffer) = (plain, cipher, Some(new));
        (old, start)
    }

    /// Lends the buffer and at most `limit` bytes of plaintext in it, to be
    /// sent from where they lie; [`Input::give_back`] must follow.
    pub(crate) fn lend_plain(&mut self, limit: u64) -> Option<(Buffer, Range<usize>)> {
        let length = self
            .plain
            .len()
            .min(usize::try_from(limit).unwrap_or(usize::MAX));
        let start = self.plain.start;
        Some((self.buffer.take()?, start..start + length))
    }

    /// Takes the buffer back, `used` bytes of plaintext having been sent.
    pub(crate) fn give_back(&mut self, buffer: Buffer, used: usize) {
        self.buffer = Some(buffer);
        self.consume(used);
    }

    /// The buffer and where in it to receive.
    fn lend(&mut self, want: Class) -> Option<(Buffer, Range<usize>)> {
        let buffer = match self.buffer.take() {
            None => {
                self.reset();
                Buffer::take(want)
            }
            Some(buffer) => self.with_room(buffer, want)?,
        };
        let range = self.cipher.end..buffer.len();
        Some((buffer, range))
    }

    /// Makes room behind what was received: by moving it to the front, or
    /// into a larger buffer.
    fn with_room(&mut self, mut buffer: Buffer, want: Class) -> Option<Buffer> {
        let used = self.cipher.end - self.plain.start;
        let record = buffer.get(self.cipher.clone()).map_or(0, record_length);
        let needed = (self.plain.len() + record).max(used + MIN_ROOM);
        if needed > buffer.len() || (used * 2 < want.size() && buffer.len() < want.size()) {
            if needed > Class::Large.size() {
                return None;
            }
            let mut larger = Buffer::for_size(needed.max(want.size()));
            let (plain, cipher) = self.packed();
            copy(&buffer, self.plain.clone(), &mut larger, plain.clone());
            copy(&buffer, self.cipher.clone(), &mut larger, cipher.clone());
            (self.plain, self.cipher) = (plain, cipher);
            return Some(larger);
        }
        let room = buffer.len() - self.cipher.end;
        let missing = record.saturating_sub(self.cipher.len());
        if room < MIN_ROOM.max(missing) {
            let (plain, cipher) = self.packed();
            buffer.copy_within(self.plain.clone(), plain.start);
            buffer.copy_within(self.cipher.clone(), cipher.start);
            (self.plain, self.cipher) = (plain, cipher);
        }
        Some(buffer)
    }

    /// Where plaintext and ciphertext lie when moved to the front.
    fn packed(&self) -> (Range<usize>, Range<usize>) {
        let plain = 0..self.plain.len();
        let cipher = plain.end..plain.end + self.cipher.len();
        (plain, cipher)
    }

    fn reset(&mut self) {
        self.buffer = None;
        self.plain = 0..0;
        self.cipher = 0..0;
    }
}

/// The whole length of the TLS record that starts here, 0 if its header is
/// not complete (RFC 8446 §5.1). For plaintext there is no ciphertext to ask.
fn record_length(cipher: &[u8]) -> usize {
    match cipher {
        [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

fn copy(from: &[u8], source: Range<usize>, to: &mut [u8], target: Range<usize>) {
    if let (Some(source), Some(target)) = (from.get(source), to.get_mut(target)) {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(plain: &[u8], cipher: &[u8]) -> Input {
        Input::after_handshake(plain, cipher).unwrap()
    }

    #[test]
    fn detaching_a_head_keeps_what_came_after_it() {
        let mut input = input(b"GET / HTTP/1.1\r\n\r\nnext", b"\x17\x03\x03");
        let (head, start) = input.detach(18);
        assert_eq!(&head[start..start + 18], b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(input.plain(), b"next");
        let (buffer, range) = input.lend(Class::Small).unwrap();
        assert_eq!(&buffer[range.start - 3..range.start], b"\x17\x03\x03");
    }

    #[test]
    fn room_is_made_for_the_record_that_has_begun() {
        let mut input = input(b"", &[0x17, 3, 3, 0x40, 0x11]);
        let (buffer, range) = input.lend(Class::Small).unwrap();
        assert!(buffer.len() >= 5 + 0x4011);
        assert_eq!(range.start, 5);
    }

    #[test]
    fn an_empty_input_holds_no_buffer() {
        let mut input = input(b"abc", b"");
        input.consume(3);
        assert!(input.buffer.is_none() && input.is_empty());
    }

    #[test]
    fn a_full_input_says_so() {
        let mut input = input(&vec![b'x'; Class::Large.size()], b"");
        assert!(input.lend(Class::Large).is_none());
    }
}
