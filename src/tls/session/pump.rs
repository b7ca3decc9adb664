//! Drives rustls through a handshake, of either side, over buffers of the
//! caller's.
//!
//! rustls is fed one record at a time: whatever the peer sends behind its
//! Finished must stay encrypted until the record layer of ours opens it, and
//! rustls would decrypt all that it sees.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use super::HandshakeError;
use crate::tls::hkdf::Memory;
use crate::tls::record::{HEADER, MAX_RECORD};

/// What the two sides' connections have in common, which rustls gives no name.
pub(super) trait Side {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn is_handshaking(&self) -> bool;

    fn wants_write(&self) -> bool;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn wants_write(&self) -> bool {
        (**self).wants_write()
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn wants_write(&self) -> bool {
        (**self).wants_write()
    }
}

/// A connection of rustls' with what it has been shown.
pub(super) struct Pump<C> {
    pub(super) connection: C,
    memory: Memory,
    /// How much of the unconsumed input rustls has been shown. It ends at a
    /// record's end, unless rustls is to judge an incomplete record.
    shown: usize,
}

/// What to do after one step of rustls.
enum Step {
    Again,
    /// rustls wants input that it has not been shown.
    Starved,
    Finished,
}

impl<C: Side> Pump<C> {
    pub(super) fn new(connection: C) -> Self {
        Self {
            connection,
            memory: Memory::default(),
            shown: 0,
        }
    }

    /// Returns how many bytes were consumed, and whether the handshake is over.
    pub(super) fn advance(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        early_plaintext: &mut Vec<u8>,
    ) -> Result<(usize, bool), HandshakeError> {
        let mut memory = std::mem::take(&mut self.memory);
        let result = memory.during(|| self.go_on(incoming, out, early_plaintext));
        self.memory = memory;
        result
    }

    /// Takes from the connection what its handshake has led to.
    pub(super) fn end<T>(self, take: impl FnOnce(C) -> T) -> T {
        let Self {
            connection,
            mut memory,
            ..
        } = self;
        memory.during(|| take(connection))
    }

    fn go_on(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        early_plaintext: &mut Vec<u8>,
    ) -> Result<(usize, bool), HandshakeError> {
        let mut consumed = 0;
        // Cannot underflow for a caller that keeps to the contract; one that
        // doesn't is told by rustls' decryption, not by a panic here.
        self.shown = self.shown.min(incoming.len());
        loop {
            let rest = incoming.get_mut(consumed..).unwrap_or(&mut []);
            let (discard, step) = self.step(rest, out, early_plaintext);
            let discard = discard.min(self.shown);
            consumed += discard;
            self.shown -= discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Starved) => {
                    let rest = incoming.get(consumed..).unwrap_or(&[]);
                    let next = next_shown(rest, self.shown);
                    if next == self.shown {
                        return Ok((consumed, false));
                    }
                    self.shown = next;
                }
                Ok(Step::Finished) => return Ok((consumed, true)),
                Err(error) => {
                    let rest = incoming.get_mut(consumed..).unwrap_or(&mut []);
                    self.collect_alert(rest, out);
                    return Err(error);
                }
            }
        }
    }

    fn step(
        &mut self,
        rest: &mut [u8],
        out: &mut Vec<u8>,
        early_plaintext: &mut Vec<u8>,
    ) -> (usize, Result<Step, HandshakeError>) {
        let shown = rest.get_mut(..self.shown).unwrap_or(&mut []);
        let status = self.connection.process(shown);
        let mut discard = status.discard;
        let over = match status.state {
            Ok(ConnectionState::EncodeTlsData(data)) => return (discard, encode(data, out)),
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                // Handing the bytes to the caller is as good as sending them.
                sent.done();
                return (discard, Ok(Step::Again));
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            early_plaintext.extend_from_slice(record.payload);
                        }
                        Err(error) => return (discard, Err(HandshakeError::Tls(error))),
                    }
                }
                return (discard, Ok(Step::Again));
            }
            Ok(ConnectionState::BlockedHandshake) => false,
            // Also reached when we may write and the peer's Finished is
            // still to come.
            Ok(ConnectionState::WriteTraffic(_)) => true,
            Ok(_) => return (discard, Err(HandshakeError::UnexpectedState)),
            Err(error) => return (discard, Err(HandshakeError::Tls(error))),
        };
        let step = if !over || self.connection.is_handshaking() {
            Ok(Step::Starved)
        } else if self.shown == discard {
            Ok(Step::Finished)
        } else {
            // rustls keeps input that belongs to no message of the handshake.
            Err(HandshakeError::UnexpectedState)
        };
        (discard, step)
    }

    /// Takes the alert that rustls queued with its error. Asks rustls only
    /// while something is queued: once nothing is, it would go on to parse the
    /// input that it has just refused.
    fn collect_alert(&mut self, rest: &mut [u8], out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let shown = rest.get_mut(..self.shown).unwrap_or(&mut []);
            let status = self.connection.process(shown);
            let Ok(ConnectionState::EncodeTlsData(data)) = status.state else {
                return;
            };
            if encode(data, out).is_err() {
                return;
            }
        }
    }
}

/// How much of `rest` to show next: one record more. Of an incomplete record,
/// nothing: but one whose header no handshake can contain is shown as it is,
/// for rustls to refuse at once.
fn next_shown(rest: &[u8], shown: usize) -> usize {
    let fresh = rest.get(shown..).unwrap_or(&[]);
    let Some(&[kind, major, _, high, low]) = fresh.first_chunk::<HEADER>() else {
        return shown;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = HEADER + length;
    if !(20..=23).contains(&kind) || major != 3 || whole > MAX_RECORD {
        return rest.len();
    }
    if fresh.len() < whole {
        shown
    } else {
        shown + whole
    }
}

fn encode<Data>(
    mut data: EncodeTlsData<'_, Data>,
    out: &mut Vec<u8>,
) -> Result<Step, HandshakeError> {
    let start = out.len();
    // rustls tells the size only by refusing a buffer that is too small.
    let needed = match data.encode(&mut []) {
        Ok(written) => written,
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(EncodeError::AlreadyEncoded) => return Err(HandshakeError::UnexpectedState),
    };
    if needed == 0 {
        return Ok(Step::Again);
    }
    out.resize(start + needed, 0);
    match data.encode(out.get_mut(start..).unwrap_or(&mut [])) {
        Ok(written) => {
            out.truncate(start + written);
            Ok(Step::Again)
        }
        Err(_) => {
            out.truncate(start);
            Err(HandshakeError::UnexpectedState)
        }
    }
}
