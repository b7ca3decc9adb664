//! A TLS session without any I/O: ciphertext in, plaintext out, both in the
//! caller's buffers.
//!
//! ```text
//! Handshake::process ── rustls: handshake, tickets, alerts, key schedule
//!         │ Established
//!         ▼
//! Session::open / seal_in_place ── ours: records, and a server's next keys
//! ```
//!
//! After the handshake only KeyUpdate and alerts need judgement, and they are
//! judged here; everything else is application data or an error.

mod client;
mod error;
mod handshake;
mod pump;
mod secrets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use rustls::{AlertDescription, ContentType, ExtractedSecrets, HandshakeType, ProtocolVersion};

pub use self::client::{ClientEstablished, ClientHandshake, Tickets};
pub use self::error::SessionError;
pub use self::handshake::{Established, Handshake, HandshakeError, MAX_INCOMING, Progress};
pub(crate) use self::handshake::{internal_error, normalised};
pub use self::secrets::{TrafficSecrets, prepare};
use crate::tls::record::{HEADER, HEADROOM, Opener, RecordError, Sealer, TAILROOM};

/// KeyUpdates accepted without application data in between. Each costs us two
/// key derivations (rustls and BoringSSL have the same bound).
const MAX_KEY_UPDATES: u8 = 32;

/// Warning alerts accepted over a connection's life: they change nothing and
/// cost a decryption each (rustls and BoringSSL have the same bound).
const MAX_WARNINGS: u8 = 4;

const KEY_UPDATE_LEN: usize = 5;
const LEVEL_WARNING: u8 = 1;
const LEVEL_FATAL: u8 = 2;

/// One connection's record layer after the handshake, in both directions.
///
/// The directions are independent but for the KeyUpdate that a peer may ask
/// for: see [`Self::has_pending`].
#[derive(Debug)]
pub struct Session {
    opener: Opener,
    sealer: Sealer,
    schedule: KeySchedule,
    version: ProtocolVersion,
    /// A KeyUpdate that is not yet complete; RFC 8446 §5.1 lets it span records.
    partial: Partial,
    key_updates: u8,
    warnings: u8,
    /// A KeyUpdate is to be sent before the next application data.
    key_update_due: bool,
    received_close: bool,
    sent_close: bool,
}

/// Where the keys that follow a KeyUpdate come from.
pub enum KeySchedule {
    /// A TLS 1.3 server's. Boxed, since only a KeyUpdate needs them.
    Server(Box<TrafficSecrets>),
    /// A TLS 1.3 client's, with the session tickets that it is sent.
    Client(Box<Tickets>),
    /// TLS 1.2 keeps its keys for life.
    None,
}

impl Session {
    /// The session that follows a handshake.
    ///
    /// # Errors
    /// [`RecordError::Unsupported`] if rustls negotiated what the record layer
    /// lacks.
    pub fn new(
        version: ProtocolVersion,
        secrets: &ExtractedSecrets,
        schedule: KeySchedule,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            opener: Opener::new(version, secrets.rx.0, &secrets.rx.1)?,
            sealer: Sealer::new(version, secrets.tx.0, &secrets.tx.1)?,
            schedule,
            version,
            partial: Partial::default(),
            key_updates: 0,
            warnings: 0,
            key_update_due: false,
            received_close: false,
            sent_close: false,
        })
    }

    /// Opens every complete record in `buf[cipher]` and appends its plaintext to
    /// `buf[plain]`; `cipher` then begins behind what was opened. While `plain`
    /// is empty, its place is that of the first plaintext to come, which is not
    /// moved.
    ///
    /// # Errors
    /// Each is final; send [`SessionError::alert`] and close. Plaintext opened
    /// by the same call is lost. [`SessionError::Ranges`] if `plain` reaches into
    /// `cipher`, or that beyond `buf`.
    pub fn open(
        &mut self,
        buf: &mut [u8],
        plain: &mut Range<usize>,
        cipher: &mut Range<usize>,
    ) -> Result<(), SessionError> {
        if plain.end > cipher.start {
            return Err(SessionError::Ranges);
        }
        while let Some(opened) = self.open_next(buf, cipher)? {
            append(buf, plain, opened);
        }
        Ok(())
    }

    /// Opens the next complete record with application data in `buf[cipher]`,
    /// and those before it that have none. Returns where its plaintext is: in
    /// its record still. `None` if there is no such record, or if the peer has
    /// closed. `cipher` begins behind what was opened.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_next(
        &mut self,
        buf: &mut [u8],
        cipher: &mut Range<usize>,
    ) -> Result<Option<Range<usize>>, SessionError> {
        while !self.received_close {
            let rest = buf.get_mut(cipher.clone()).ok_or(SessionError::Ranges)?;
            let Some(length) = self.opener.record_len(rest)? else {
                break;
            };
            let Some(record) = rest.get_mut(..length) else {
                break;
            };
            let (content, plain) = self.opener.open(record)?;
            let start = cipher.start;
            cipher.start += length;
            if content != ContentType::ApplicationData {
                self.control(content, record.get(plain).unwrap_or_default())?;
                continue;
            }
            self.no_message_has_begun()?;
            if !plain.is_empty() {
                self.key_updates = 0;
                return Ok(Some(start + plain.start..start + plain.end));
            }
        }
        Ok(None)
    }

    /// Makes one record of `buf[plain]`, in place, and returns where in `buf`
    /// it is. At least [`Self::record_header_len`] bytes before `plain` and
    /// [`Self::record_trailer_len`] behind it are overwritten.
    ///
    /// Send what [`Self::take_pending`] gives first, if there is any.
    ///
    /// # Errors
    /// As [`Sealer::seal_in_place`]; [`SessionError::Closed`] after a
    /// close_notify or fatal alert was sealed; in TLS 1.2 also
    /// [`RecordError::KeyExhausted`] at the key's soft limit, which leaves
    /// enough for the alert.
    pub fn seal_in_place(
        &mut self,
        buf: &mut [u8],
        plain: Range<usize>,
    ) -> Result<Range<usize>, SessionError> {
        if self.sent_close {
            return Err(SessionError::Closed);
        }
        if self.sealer.key_is_worn() {
            match self.schedule {
                KeySchedule::Server(_) | KeySchedule::Client(_) => self.key_update_due = true,
                KeySchedule::None => return Err(RecordError::KeyExhausted.into()),
            }
        }
        Ok(self
            .sealer
            .seal_in_place(buf, plain, ContentType::ApplicationData)?)
    }

    /// Whether [`Self::take_pending`] has something that must go out before
    /// the next application data: the answer to a KeyUpdate (RFC 8446 §4.6.3),
    /// or a KeyUpdate of our own when a key has protected enough records.
    ///
    /// It is sealed when taken, not when it falls due: whoever writes decides
    /// where it goes, so that it cannot be sent behind records of a later key.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.key_update_due && !self.sent_close
    }

    /// Appends the pending record, if any, to `out`, which must be sent after
    /// all that was sealed before and before all that is sealed afterwards.
    ///
    /// # Errors
    /// Each is final.
    pub fn take_pending(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        if !self.has_pending() {
            return Ok(());
        }
        if let KeySchedule::None = self.schedule {
            return Ok(());
        }
        // Never asks the peer for an update: its keys are its own business.
        let message = [HandshakeType::KeyUpdate.into(), 0, 0, 1, 0];
        append_record(&mut self.sealer, out, &message, ContentType::Handshake)?;
        self.sealer = self.schedule.next_sealer(&self.sealer)?;
        self.key_update_due = false;
        Ok(())
    }

    /// Appends a close_notify to `out`; nothing if the session was already
    /// closed for writing.
    ///
    /// # Errors
    /// [`SessionError::Record`] if the key is exhausted.
    pub fn seal_close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        self.seal_alert(AlertDescription::CloseNotify, out)
    }

    /// Seals a close_notify in `buf` behind `end`, where another record ends, and
    /// returns where it ends itself: at `end` if there is no room, if the session
    /// was already closed for writing, or if the key is exhausted.
    pub fn seal_close_notify_behind(&mut self, buf: &mut [u8], end: usize) -> usize {
        let message = [LEVEL_WARNING, AlertDescription::CloseNotify.into()];
        let start = end + self.sealer.header_len();
        let plain = start..start + message.len();
        if self.sent_close || buf.len() < plain.end + self.sealer.trailer_len() {
            return end;
        }
        if let Some(target) = buf.get_mut(plain.clone()) {
            target.copy_from_slice(&message);
        }
        let sealed = self.sealer.seal_in_place(buf, plain, ContentType::Alert);
        self.sent_close |= sealed.is_ok();
        sealed.map_or(end, |record| record.end)
    }

    /// Appends an alert to `out`, after which nothing can be sealed; nothing
    /// if the session was already closed for writing.
    ///
    /// # Errors
    /// [`SessionError::Record`] if the key is exhausted.
    pub fn seal_alert(
        &mut self,
        description: AlertDescription,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        if self.sent_close {
            return Ok(());
        }
        self.sent_close = true;
        let level = match description {
            AlertDescription::CloseNotify
            | AlertDescription::UserCanceled
            | AlertDescription::NoRenegotiation => LEVEL_WARNING,
            _ => LEVEL_FATAL,
        };
        let message = [level, description.into()];
        append_record(&mut self.sealer, out, &message, ContentType::Alert)
    }

    /// Appends the alert for a client that the policy does not let in
    /// (access_denied, RFC 8446 §6.2); otherwise as [`Self::seal_alert`].
    ///
    /// # Errors
    /// [`SessionError::Record`] if the key is exhausted.
    pub fn seal_refusal(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        self.seal_alert(AlertDescription::AccessDenied, out)
    }

    /// How many bytes the record at the start of `cipher` still lacks: at
    /// least 1, and the header's remainder while that is incomplete. `None` if
    /// it is complete, or is no record and [`Self::open`] will say so.
    #[must_use]
    pub fn missing(&self, cipher: &[u8]) -> Option<usize> {
        match self.opener.record_len(cipher) {
            Ok(Some(length)) => length.checked_sub(cipher.len()).filter(|&n| n > 0),
            Ok(None) => Some(HEADER - cipher.len()),
            Err(_) => None,
        }
    }

    /// Nothing is expected for a while: gives up a kilobyte that the next record,
    /// in either direction, makes again in about a microsecond.
    pub fn rest(&mut self) {
        self.opener.rest();
        self.sealer.rest();
    }

    /// Bytes that this session's records have in front of the plaintext.
    #[must_use]
    pub fn record_header_len(&self) -> usize {
        self.sealer.header_len()
    }

    /// Bytes that this session's records have behind the plaintext.
    #[must_use]
    pub fn record_trailer_len(&self) -> usize {
        self.sealer.trailer_len()
    }

    /// Whether close_notify was received.
    #[must_use]
    pub fn peer_has_closed(&self) -> bool {
        self.received_close
    }

    /// Judges a record that is not application data.
    fn control(&mut self, content: ContentType, message: &[u8]) -> Result<(), SessionError> {
        match (content, self.version) {
            (ContentType::Alert, _) => {
                self.no_message_has_begun()?;
                self.alert(message)
            }
            (ContentType::Handshake, ProtocolVersion::TLSv1_3) => self.handshake(message),
            (ContentType::Handshake, _) => {
                Err(match message.first().map(|&b| HandshakeType::from(b)) {
                    Some(HandshakeType::ClientHello | HandshakeType::HelloRequest) => {
                        SessionError::Renegotiation
                    }
                    Some(other) => SessionError::UnexpectedHandshake(other),
                    None => SessionError::Malformed,
                })
            }
            (other, _) => Err(RecordError::UnexpectedType(other).into()),
        }
    }

    /// RFC 8446 §6: in TLS 1.3 the level means nothing, and every alert but
    /// two ends the connection.
    fn alert(&mut self, message: &[u8]) -> Result<(), SessionError> {
        let &[level, description] = message else {
            return Err(SessionError::Malformed);
        };
        let description = AlertDescription::from(description);
        let ignorable = match self.version {
            ProtocolVersion::TLSv1_3 => description == AlertDescription::UserCanceled,
            _ => level == LEVEL_WARNING,
        };
        if description == AlertDescription::CloseNotify {
            self.received_close = true;
        } else if !ignorable {
            return Err(SessionError::PeerAlert(description));
        } else if self.warnings == MAX_WARNINGS {
            return Err(SessionError::Flood);
        } else {
            self.warnings += 1;
        }
        Ok(())
    }

    /// Handshake messages may not be interleaved with others (RFC 8446 §5.1).
    fn no_message_has_begun(&self) -> Result<(), SessionError> {
        match &self.schedule {
            KeySchedule::Client(tickets) if tickets.has_begun() => Err(SessionError::Interleaved),
            _ => self.partial.must_be_empty(),
        }
    }

    /// TLS 1.3: of all handshake messages only KeyUpdate may come, and to a
    /// client NewSessionTicket.
    fn handshake(&mut self, message: &[u8]) -> Result<(), SessionError> {
        let mut message = message;
        if let KeySchedule::Client(tickets) = &mut self.schedule
            && self.partial.used == 0
        {
            message = tickets.take(message)?;
            if message.is_empty() {
                return Ok(());
            }
        }
        let (request, rest) = match self.partial.push(message)? {
            Some(complete) => complete,
            None => return Ok(()),
        };
        // What follows would be under the old key (RFC 8446 §5.1).
        if !rest.is_empty() {
            return Err(SessionError::Interleaved);
        }
        if self.key_updates == MAX_KEY_UPDATES {
            return Err(SessionError::Flood);
        }
        self.key_updates += 1;
        match request {
            0 => {}
            1 => self.key_update_due = true,
            _ => return Err(SessionError::IllegalKeyUpdate),
        }
        let next = self.schedule.next_opener(&self.opener)?;
        self.opener.replace_keys(next);
        Ok(())
    }
}

impl KeySchedule {
    fn next_opener(&mut self, last: &Opener) -> Result<Opener, SessionError> {
        match self {
            Self::Server(secrets) => {
                let material = secrets.rx.next(last.key_len());
                Ok(last.renewed(&material.ok_or_else(not_derived)?)?)
            }
            Self::Client(tickets) => {
                let (sequence, secrets) = tickets.next_rx()?;
                Ok(Opener::new(ProtocolVersion::TLSv1_3, sequence, &secrets)?)
            }
            Self::None => Err(SessionError::UnexpectedHandshake(HandshakeType::KeyUpdate)),
        }
    }

    fn next_sealer(&mut self, last: &Sealer) -> Result<Sealer, SessionError> {
        match self {
            Self::Server(secrets) => {
                let material = secrets.tx.next(last.key_len());
                Ok(last.renewed(&material.ok_or_else(not_derived)?)?)
            }
            Self::Client(tickets) => {
                let (sequence, secrets) = tickets.next_tx()?;
                Ok(Sealer::new(ProtocolVersion::TLSv1_3, sequence, &secrets)?)
            }
            Self::None => Err(SessionError::UnexpectedHandshake(HandshakeType::KeyUpdate)),
        }
    }
}

fn not_derived() -> SessionError {
    SessionError::KeySchedule(Box::new(rustls::Error::General("HKDF refused".into())))
}

impl fmt::Debug for KeySchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
            Self::None => "None",
        })
    }
}

/// The beginning of a KeyUpdate.
#[derive(Debug, Default)]
struct Partial {
    bytes: [u8; KEY_UPDATE_LEN],
    /// Below `KEY_UPDATE_LEN` between calls.
    used: u8,
}

impl Partial {
    /// Handshake messages may not be interleaved with others (RFC 8446 §5.1).
    fn must_be_empty(&self) -> Result<(), SessionError> {
        match self.used {
            0 => Ok(()),
            _ => Err(SessionError::Interleaved),
        }
    }

    /// Takes a fragment. Once the message is complete, its request and what
    /// follows it.
    fn push<'a>(&mut self, message: &'a [u8]) -> Result<Option<(u8, &'a [u8])>, SessionError> {
        let used = usize::from(self.used);
        let taken = message.len().min(KEY_UPDATE_LEN - used);
        let (now, rest) = message.split_at(taken);
        self.bytes[used..used + taken].copy_from_slice(now);
        let used = used + taken;

        let kind = HandshakeType::from(self.bytes[0]);
        if used > 0 && kind != HandshakeType::KeyUpdate {
            return Err(SessionError::UnexpectedHandshake(kind));
        }
        let known = self.bytes[..used.min(4)].iter().skip(1);
        if known.zip([0, 0, 1]).any(|(&byte, wanted)| byte != wanted) {
            return Err(SessionError::Malformed);
        }
        if used < KEY_UPDATE_LEN {
            self.used = used as u8;
            return Ok(None);
        }
        self.used = 0;
        Ok(Some((self.bytes[KEY_UPDATE_LEN - 1], rest)))
    }
}

/// Appends `more` to `plain`, both of which lie in `buf`.
pub(crate) fn append(buf: &mut [u8], plain: &mut Range<usize>, more: Range<usize>) {
    if Range::is_empty(plain) {
        *plain = more;
        return;
    }
    let end = plain.end + more.len();
    buf.copy_within(more, plain.end);
    plain.end = end;
}

/// Appends a record of a short message to `out`.
fn append_record(
    sealer: &mut Sealer,
    out: &mut Vec<u8>,
    message: &[u8],
    content: ContentType,
) -> Result<(), SessionError> {
    let mut buf = [0; HEADROOM + KEY_UPDATE_LEN + TAILROOM];
    let plain = HEADROOM..HEADROOM + message.len();
    buf.get_mut(plain.clone())
        .ok_or(RecordError::Room)?
        .copy_from_slice(message);
    let record = sealer.seal_in_place(&mut buf, plain, content)?;
    out.extend_from_slice(buf.get(record).unwrap_or(&[]));
    Ok(())
}
