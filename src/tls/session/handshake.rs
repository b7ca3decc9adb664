//! The server's handshake, from the first byte to the keys.
//!
//! The ClientHello's name chooses the configuration, rustls does the handshake,
//! and its keys then go to the record layer of ours.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::{
    AlertDescription, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig,
    SupportedCipherSuite,
};

use super::pump::Pump;
use super::secrets::{self, TrafficSecrets};
use super::{KeySchedule, Session};
use crate::tls::client_hello::{self, Found};
use crate::tls::resumption;

/// The most ciphertext, in bytes, that a handshake can need in one piece: a
/// message of 64 KiB (where rustls' bound for certificate chains lies) and what
/// its records add. A read buffer that cannot grow to this refuses some
/// clients.
pub const MAX_INCOMING: usize = 80 * 1024;

/// Sessions left by a handshake that has resumed one, in place of the one that
/// is spent: as many as OpenSSL leaves (SSL_CTX_set_num_tickets(3)).
const AFTER_RESUMPTION: usize = 1;

/// One connection's handshake until it is done.
#[derive(Debug)]
pub struct Handshake {
    state: State,
}

enum State {
    /// The ClientHello is not complete.
    ClientHello,
    /// rustls is at work.
    Running(Box<Running>),
    /// Done or failed: nothing may follow.
    Over,
}

struct Running {
    pump: Pump<UnbufferedServerConnection>,
    server_name: Option<Box<str>>,
    server_name_as_sent: Option<Box<str>>,
    /// TLS 1.3 alone has them.
    secrets: Option<TrafficSecrets>,
}

/// How far a handshake came.
#[derive(Debug)]
pub struct Progress<E = Established> {
    /// Bytes at the front of `incoming` that are used up.
    pub consumed: usize,
    /// The finished handshake; `None`: send what there is to send, then read
    /// more.
    pub done: Option<E>,
}

/// What a finished handshake leaves.
#[derive(Debug)]
pub struct Established {
    /// Opens and seals what follows.
    pub session: Session,
    /// Application data that rustls has decrypted already. Empty, as rustls is
    /// shown one record at a time; kept so that a rustls that behaves
    /// otherwise cannot lose a client's bytes.
    pub early_plaintext: Vec<u8>,
    /// The client's chain as sent, leaf first; on resumption, as sent in the
    /// original handshake.
    pub peer_certificates: Option<Vec<CertificateDer<'static>>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The name that the configuration was chosen by: lower case, without a
    /// trailing dot.
    pub server_name: Option<Box<str>>,
    /// The same as the client sent it, where that differs.
    pub server_name_as_sent: Option<Box<str>>,
    /// The application protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The version agreed on.
    pub version: ProtocolVersion,
    /// The cipher suite agreed on.
    pub suite: SupportedCipherSuite,
    /// The group of the key exchange; `None` where there was none: in a
    /// session of TLS 1.2 resumed.
    pub group: Option<NamedGroup>,
}

/// Why a handshake ended without keys.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Client: an HTTP request on the TLS port. Nothing was appended to the
    /// output: an answer in plain HTTP is in order.
    PlainHttp,
    /// Client: something that is neither TLS nor HTTP. Nothing was appended to
    /// the output: no alert would be understood.
    NotTls,
    /// Client: a first message that is no acceptable ClientHello.
    ClientHello(client_hello::Error),
    /// Client: asked for a name for which there is no configuration.
    UnknownName,
    /// Client or configuration: rustls ended the handshake.
    Tls(rustls::Error),
    /// ringwall: the configuration lacks what [`prepare`](super::prepare) sets,
    /// or the keys cannot be taken over.
    SecretExtraction(rustls::Error),
    /// ringwall: rustls reached a state that this engine never asks for, such
    /// as early data.
    UnexpectedState,
    /// ringwall: called again after the end.
    Over,
}

impl HandshakeError {
    /// Whether the client gave no certificate where one is demanded.
    #[must_use]
    pub fn is_missing_client_certificate(&self) -> bool {
        matches!(self, Self::Tls(rustls::Error::NoCertificatesPresented))
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainHttp => client_hello::Error::PlainHttp.fmt(f),
            Self::NotTls => client_hello::Error::NotTls.fmt(f),
            Self::ClientHello(error) => error.fmt(f),
            Self::UnknownName => f.write_str("client asked for a server name that is not served"),
            Self::Tls(error) => write!(f, "TLS handshake failed: {error}"),
            Self::SecretExtraction(error) => {
                write!(f, "ringwall could not take over the TLS keys: {error}")
            }
            Self::UnexpectedState => f.write_str("TLS handshake reached an unexpected state"),
            Self::Over => f.write_str("TLS handshake is already over"),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ClientHello(error) => Some(error),
            Self::Tls(error) | Self::SecretExtraction(error) => Some(error),
            _ => None,
        }
    }
}

impl Handshake {
    /// The handshake of a connection just accepted.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::ClientHello,
        }
    }

    /// Whether the ClientHello has been read and a configuration chosen.
    #[must_use]
    pub fn has_client_hello(&self) -> bool {
        !matches!(self.state, State::ClientHello)
    }

    /// Goes on as far as `incoming` allows.
    ///
    /// `incoming` is all ciphertext received and not yet consumed. rustls
    /// decrypts and reassembles messages in it: between calls its bytes must
    /// stay as this left them, apart from dropping what was consumed and
    /// appending what was received.
    ///
    /// Bytes to send are appended to `out`, on an error also: they are then the
    /// alert.
    ///
    /// `choose` gets the server name, lower-cased and without a trailing dot,
    /// and is called once. `None` refuses the name.
    ///
    /// # Errors
    /// Each is final. See [`HandshakeError`].
    pub fn process(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        choose: &mut dyn FnMut(Option<&str>) -> Option<Arc<ServerConfig>>,
    ) -> Result<Progress, HandshakeError> {
        let mut running = match std::mem::replace(&mut self.state, State::Over) {
            State::ClientHello => match start(incoming, out, choose)? {
                Some(running) => running,
                None => {
                    self.state = State::ClientHello;
                    return Ok(Progress {
                        consumed: 0,
                        done: None,
                    });
                }
            },
            State::Running(running) => running,
            State::Over => return Err(HandshakeError::Over),
        };
        let mut early_plaintext = Vec::new();
        let Running { pump, secrets, .. } = &mut *running;
        let sessions = match pump.connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => AFTER_RESUMPTION,
            _ => usize::MAX,
        };
        let advanced = resumption::leaving_at_most(sessions, || {
            secrets::watched(secrets, || {
                pump.advance(incoming, out, &mut early_plaintext)
            })
        });
        let (consumed, finished) = advanced?;
        let done = if finished {
            Some(running.establish(early_plaintext)?)
        } else {
            self.state = State::Running(running);
            None
        };
        Ok(Progress { consumed, done })
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads the name, and makes the connection with the configuration chosen.
fn start(
    incoming: &[u8],
    out: &mut Vec<u8>,
    choose: &mut dyn FnMut(Option<&str>) -> Option<Arc<ServerConfig>>,
) -> Result<Option<Box<Running>>, HandshakeError> {
    let sent = match client_hello::server_name(incoming) {
        Ok(Found::NeedMore) => return Ok(None),
        Ok(Found::Name(name)) => name,
        Err(client_hello::Error::PlainHttp) => return Err(HandshakeError::PlainHttp),
        Err(client_hello::Error::NotTls) => return Err(HandshakeError::NotTls),
        Err(error) => {
            plain_alert(out, alert_for(error));
            return Err(HandshakeError::ClientHello(error));
        }
    };
    let name = sent.as_deref().map(normalised);
    let as_sent = sent
        .as_deref()
        .filter(|sent| name.as_deref() != Some(sent))
        .map(Into::into);
    let Some(config) = choose(name.as_deref()) else {
        plain_alert(out, AlertDescription::UnrecognisedName);
        return Err(HandshakeError::UnknownName);
    };
    if !config.enable_secret_extraction {
        plain_alert(out, AlertDescription::InternalError);
        return Err(not_prepared());
    }
    let connection = UnbufferedServerConnection::new(config).map_err(|error| {
        plain_alert(out, AlertDescription::InternalError);
        HandshakeError::Tls(error)
    })?;
    Ok(Some(Box::new(Running {
        pump: Pump::new(connection),
        server_name: name,
        server_name_as_sent: as_sent,
        secrets: None,
    })))
}

fn not_prepared() -> HandshakeError {
    let error = rustls::Error::General("the configuration is not prepared for it".into());
    HandshakeError::SecretExtraction(error)
}

/// A name as server blocks are found by it: in lower case, without a dot at its
/// end.
pub(crate) fn normalised(name: &str) -> Box<str> {
    name.strip_suffix('.')
        .unwrap_or(name)
        .to_ascii_lowercase()
        .into()
}

fn alert_for(error: client_hello::Error) -> AlertDescription {
    match error {
        client_hello::Error::NotClientHello => AlertDescription::UnexpectedMessage,
        client_hello::Error::InvalidName => AlertDescription::IllegalParameter,
        _ => AlertDescription::DecodeError,
    }
}

/// The alert for a client that nothing can be shown, before rustls is there.
pub(crate) fn internal_error(out: &mut Vec<u8>) {
    plain_alert(out, AlertDescription::InternalError);
}

/// A fatal alert in the clear, for the time before rustls is there to make it.
fn plain_alert(out: &mut Vec<u8>, description: AlertDescription) {
    out.extend_from_slice(&[21, 3, 3, 0, 2, 2, description.into()]);
}

impl Running {
    fn establish(self: Box<Self>, early_plaintext: Vec<u8>) -> Result<Established, HandshakeError> {
        let Self {
            pump,
            server_name,
            server_name_as_sent,
            secrets: traffic_secrets,
        } = *self;
        let connection = &pump.connection;
        let (Some(version), Some(suite)) = (
            connection.protocol_version(),
            connection.negotiated_cipher_suite(),
        ) else {
            return Err(HandshakeError::UnexpectedState);
        };
        let peer_certificates = connection
            .peer_certificates()
            .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        let group = connection
            .negotiated_key_exchange_group()
            .map(|group| group.name());

        let (secrets, _) = pump
            .end(UnbufferedServerConnection::dangerous_into_kernel_connection)
            .map_err(HandshakeError::SecretExtraction)?;
        let schedule = match (version, traffic_secrets) {
            (ProtocolVersion::TLSv1_3, Some(secrets)) => KeySchedule::Server(Box::new(secrets)),
            (ProtocolVersion::TLSv1_3, None) => return Err(not_prepared()),
            _ => KeySchedule::None,
        };
        let session = Session::new(version, &secrets, schedule).map_err(|error| {
            HandshakeError::SecretExtraction(rustls::Error::General(error.to_string()))
        })?;
        Ok(Established {
            session,
            early_plaintext,
            peer_certificates,
            resumed,
            server_name,
            server_name_as_sent,
            alpn,
            version,
            suite,
            group,
        })
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientHello => "ClientHello",
            Self::Running(_) => "Running",
            Self::Over => "Over",
        })
    }
}
