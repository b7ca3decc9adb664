//! The client's handshake, towards an upstream, and the session tickets that
//! come after it.

use std::fmt;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, HandshakeKind, HandshakeType, ProtocolVersion,
    SupportedCipherSuite,
};

use super::pump::Pump;
use super::{HandshakeError, KeySchedule, Progress, Session, SessionError};

/// Session tickets kept over a connection's life, the rest is dropped: each
/// costs a key derivation. Servers send one or two after a handshake.
const MAX_TICKETS: u8 = 32;

/// The largest NewSessionTicket, bytes. A stateless ticket may hold a chain of
/// client certificates; OpenSSL's own bound is 16 KiB of ticket.
const MAX_TICKET: usize = 20 << 10;

const MESSAGE_HEADER: usize = 4;

/// One upstream connection's handshake until it is done.
pub struct ClientHandshake {
    /// `None`: done or failed, nothing may follow.
    pump: Option<Box<Pump<UnbufferedClientConnection>>>,
}

/// What a finished handshake leaves.
#[derive(Debug)]
pub struct ClientEstablished {
    /// Opens and seals what follows.
    pub session: Session,
    /// As [`super::Established::early_plaintext`].
    pub early_plaintext: Vec<u8>,
    /// The server's chain, leaf first; on resumption, that of the original
    /// handshake, which nobody has judged since.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The version agreed on.
    pub version: ProtocolVersion,
    /// The cipher suite agreed on.
    pub suite: SupportedCipherSuite,
}

impl ClientHandshake {
    /// The handshake of a connection just made; `name` is what SNI says, if
    /// the configuration sends any, and what sessions are kept by.
    ///
    /// # Errors
    /// The configuration cannot be used for this name.
    pub fn new(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            let error = rustls::Error::General("enable_secret_extraction is not set".into());
            return Err(HandshakeError::SecretExtraction(error));
        }
        let connection =
            UnbufferedClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
        Ok(Self {
            pump: Some(Box::new(Pump::new(connection))),
        })
    }

    /// Goes on as far as `incoming` allows; the first call, with nothing
    /// received yet, writes the ClientHello. Otherwise as
    /// [`super::Handshake::process`].
    ///
    /// # Errors
    /// Each is final. See [`HandshakeError`].
    pub fn process(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Progress<ClientEstablished>, HandshakeError> {
        let mut pump = self.pump.take().ok_or(HandshakeError::Over)?;
        let mut early_plaintext = Vec::new();
        let (consumed, finished) = pump.advance(incoming, out, &mut early_plaintext)?;
        let done = if finished {
            Some(pump.end(|connection| establish(connection, early_plaintext))?)
        } else {
            self.pump = Some(pump);
            None
        };
        Ok(Progress { consumed, done })
    }
}

impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.pump {
            Some(_) => "Running",
            None => "Over",
        })
    }
}

fn establish(
    connection: UnbufferedClientConnection,
    early_plaintext: Vec<u8>,
) -> Result<ClientEstablished, HandshakeError> {
    let (Some(version), Some(suite)) = (
        connection.protocol_version(),
        connection.negotiated_cipher_suite(),
    ) else {
        return Err(HandshakeError::UnexpectedState);
    };
    let chain = connection.peer_certificates().unwrap_or_default();
    let peer_certificates = chain.iter().map(|c| c.clone().into_owned()).collect();
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let (secrets, kernel) = connection
        .dangerous_into_kernel_connection()
        .map_err(HandshakeError::SecretExtraction)?;
    let schedule = match version {
        ProtocolVersion::TLSv1_3 => KeySchedule::Client(Box::new(Tickets::new(kernel))),
        _ => KeySchedule::None,
    };
    let session = Session::new(version, &secrets, schedule).map_err(|error| {
        HandshakeError::SecretExtraction(rustls::Error::General(error.to_string()))
    })?;
    Ok(ClientEstablished {
        session,
        early_plaintext,
        peer_certificates,
        resumed,
        version,
        suite,
    })
}

/// rustls' side of a TLS 1.3 client: the keys that follow, and the store that
/// session tickets go to.
pub struct Tickets {
    kernel: KernelConnection<ClientConnectionData>,
    /// A NewSessionTicket that is not yet complete, header included.
    message: Vec<u8>,
    count: u8,
}

impl Tickets {
    fn new(kernel: KernelConnection<ClientConnectionData>) -> Self {
        Self {
            kernel,
            message: Vec::new(),
            count: 0,
        }
    }

    /// Whether a ticket has come in part.
    pub(super) fn has_begun(&self) -> bool {
        !self.message.is_empty()
    }

    /// Takes the tickets off the front of what came; what is left begins with
    /// another message.
    pub(super) fn take<'m>(&mut self, mut input: &'m [u8]) -> Result<&'m [u8], SessionError> {
        loop {
            if self.message.is_empty()
                && input.first() != Some(&HandshakeType::NewSessionTicket.into())
            {
                return Ok(input);
            }
            let wanted = match self.message.first_chunk::<MESSAGE_HEADER>() {
                None => MESSAGE_HEADER,
                Some(&[_, high, middle, low]) => {
                    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                    if length > MAX_TICKET {
                        return Err(SessionError::Malformed);
                    }
                    MESSAGE_HEADER + length
                }
            };
            let missing = wanted.saturating_sub(self.message.len());
            if let Some((now, rest)) = input.split_at_checked(missing) {
                self.message.extend_from_slice(now);
                input = rest;
            } else {
                self.message.extend_from_slice(input);
                return Ok(&[]);
            }
            if wanted > MESSAGE_HEADER {
                self.accept()?;
            } else if self.message.ends_with(&[0, 0, 0]) {
                return Err(SessionError::Malformed);
            }
        }
    }

    fn accept(&mut self) -> Result<(), SessionError> {
        let message = std::mem::take(&mut self.message);
        if self.count == MAX_TICKETS {
            return Ok(());
        }
        self.count += 1;
        let payload = message.get(MESSAGE_HEADER..).unwrap_or_default();
        self.kernel
            .handle_new_session_ticket(payload)
            .map_err(|error| SessionError::Ticket(Box::new(error)))
    }

    pub(super) fn next_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), SessionError> {
        self.kernel
            .update_rx_secret()
            .map_err(|error| SessionError::KeySchedule(Box::new(error)))
    }

    pub(super) fn next_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), SessionError> {
        self.kernel
            .update_tx_secret()
            .map_err(|error| SessionError::KeySchedule(Box::new(error)))
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
