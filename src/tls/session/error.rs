//! Why a session ends, who is to blame, and what the peer is told.

use std::fmt;

use rustls::{AlertDescription, HandshakeType};

use crate::tls::record::RecordError;

/// Why a session must end. Small, what is large being boxed: every reception and
/// every send may fail with one, and it is moved with their results.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// A record could not be sealed or opened.
    Record(RecordError),
    /// Peer: ended the connection with this alert.
    PeerAlert(AlertDescription),
    /// Peer: sent a handshake message that has no place after the handshake.
    UnexpectedHandshake(HandshakeType),
    /// Peer: wants to renegotiate, which is refused.
    Renegotiation,
    /// Peer: a KeyUpdate or alert that cannot be read.
    Malformed,
    /// Peer: a KeyUpdate with an undefined request.
    IllegalKeyUpdate,
    /// Peer: something between or behind the fragments of a KeyUpdate.
    Interleaved,
    /// Peer: too many KeyUpdates or warnings.
    Flood,
    /// Peer: a session ticket that cannot be used.
    Ticket(Box<rustls::Error>),
    /// ringwall: the ranges given do not lie in the buffer in this order.
    Ranges,
    /// ringwall: was to send after close_notify or a fatal alert.
    Closed,
    /// ringwall: rustls refused to derive the next keys.
    KeySchedule(Box<rustls::Error>),
}

impl SessionError {
    /// The alert to send before closing, if any is in order.
    #[must_use]
    pub fn alert(&self) -> Option<AlertDescription> {
        Some(match self {
            Self::PeerAlert(_) | Self::Closed => return None,
            Self::Record(error) => match error {
                RecordError::Room | RecordError::Unsupported | RecordError::KeyExhausted => {
                    AlertDescription::InternalError
                }
                RecordError::Oversized => AlertDescription::RecordOverflow,
                RecordError::Decrypt => AlertDescription::BadRecordMac,
                RecordError::Header
                | RecordError::Malformed
                | RecordError::UnexpectedType(_)
                | RecordError::EmptyFlood => AlertDescription::UnexpectedMessage,
            },
            Self::UnexpectedHandshake(_) | Self::Interleaved | Self::Flood => {
                AlertDescription::UnexpectedMessage
            }
            Self::Renegotiation => AlertDescription::NoRenegotiation,
            Self::Malformed | Self::Ticket(_) => AlertDescription::DecodeError,
            Self::IllegalKeyUpdate => AlertDescription::IllegalParameter,
            Self::Ranges | Self::KeySchedule(_) => AlertDescription::InternalError,
        })
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(error) => error.fmt(f),
            Self::PeerAlert(alert) => {
                write!(f, "peer ended the TLS connection with alert {alert:?}")
            }
            Self::UnexpectedHandshake(kind) => {
                write!(f, "peer sent {kind:?} after the TLS handshake")
            }
            Self::Renegotiation => f.write_str("peer asked for TLS renegotiation"),
            Self::Malformed => f.write_str("peer sent a malformed TLS message"),
            Self::IllegalKeyUpdate => f.write_str("peer sent an illegal TLS KeyUpdate"),
            Self::Interleaved => f.write_str("peer interleaved a TLS KeyUpdate with other data"),
            Self::Flood => f.write_str("peer sent too many TLS KeyUpdates or warnings"),
            Self::Ticket(error) => write!(f, "peer sent an unusable TLS session ticket: {error}"),
            Self::Ranges => f.write_str("TLS buffer ranges are out of order"),
            Self::Closed => f.write_str("TLS connection was already closed for writing"),
            Self::KeySchedule(error) => write!(f, "TLS keys could not be updated: {error}"),
        }
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Record(error) => Some(error),
            Self::KeySchedule(error) | Self::Ticket(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<RecordError> for SessionError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}
