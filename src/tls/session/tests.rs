//! What all tests of sessions share: certificates, configurations, and a
//! server driven by bytes. The peer is rustls' buffered client, or OpenSSL.

mod client;
mod hostile;
mod interop;
mod openssl;

use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use super::*;
use crate::tls::record::MAX_PLAINTEXT;

pub(super) const V12: &SupportedProtocolVersion = &rustls::version::TLS12;
pub(super) const V13: &SupportedProtocolVersion = &rustls::version::TLS13;

/// A CA and what it signed: an ECDSA and an RSA server, and a client.
pub(super) struct Pki {
    pub(super) ca: rcgen::Certificate,
    ecdsa: Leaf,
    rsa: Leaf,
    pub(super) client: Leaf,
}

pub(super) struct Leaf {
    pub(super) certificate: rcgen::Certificate,
    pub(super) key: KeyPair,
}

impl Leaf {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

pub(super) fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "ringwall test CA");
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf = |name: &str, key: KeyPair| {
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            Leaf { certificate, key }
        };
        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        Pki {
            ecdsa: leaf("server.example", KeyPair::generate().unwrap()),
            rsa: leaf("server.example", rsa),
            client: leaf("client.example", KeyPair::generate().unwrap()),
            ca,
        }
    })
}

fn roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(pki().ca.der().clone()).unwrap();
    Arc::new(roots)
}

/// How a server lets sessions be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    Never,
    Cache,
    Tickets,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) version: &'static SupportedProtocolVersion,
    pub(super) suite: Option<SupportedCipherSuite>,
    pub(super) resume: Resume,
    pub(super) client_auth: bool,
}

impl Setup {
    pub(super) fn new(version: &'static SupportedProtocolVersion) -> Self {
        Self {
            version,
            suite: None,
            resume: Resume::Tickets,
            client_auth: false,
        }
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(suite) = self.suite {
            provider.cipher_suites = vec![suite];
        }
        Arc::new(provider)
    }

    pub(super) fn server(&self) -> ServerConfig {
        let provider = self.provider();
        let rsa = self
            .suite
            .is_some_and(|suite| format!("{:?}", suite.suite()).contains("_RSA_"));
        let leaf = if rsa { &pki().rsa } else { &pki().ecdsa };
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[self.version])
            .unwrap();
        let builder = if self.client_auth {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(), provider)
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(leaf.chain(), leaf.key()).unwrap();
        prepare(&mut config);
        match self.resume {
            Resume::Never => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Resume::Cache => config.session_storage = ServerSessionMemoryCache::new(32),
            Resume::Tickets => config.ticketer = aws_lc_rs::Ticketer::new().unwrap(),
        }
        config
    }

    pub(super) fn client(&self, with_certificate: bool) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots());
        let mut config = if with_certificate {
            let leaf = &pki().client;
            builder
                .with_client_auth_cert(leaf.chain(), leaf.key())
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.resumption = Resumption::in_memory_sessions(8);
        config.enable_secret_extraction = true;
        config
    }
}

pub(super) fn client(config: Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("server.example").unwrap();
    ClientConnection::new(config, name).unwrap()
}

/// What ended a server.
#[derive(Debug)]
pub(super) enum Failure {
    Handshake(HandshakeError),
    Session(SessionError),
}

/// The engine under test, with the buffers that a connection would have.
pub(super) struct Server {
    config: Arc<ServerConfig>,
    handshake: Handshake,
    pub(super) established: Option<Established>,
    /// Received and not yet consumed.
    cipher: Vec<u8>,
    pub(super) plain: Vec<u8>,
    /// To be sent.
    pub(super) out: Vec<u8>,
    pub(super) closed: bool,
    pub(super) names: Vec<Option<String>>,
}

impl Server {
    pub(super) fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            config,
            handshake: Handshake::new(),
            established: None,
            cipher: Vec::new(),
            plain: Vec::new(),
            out: Vec::new(),
            closed: false,
            names: Vec::new(),
        }
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.established.as_mut().expect("handshake over").session
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.cipher.extend_from_slice(bytes);
        if self.established.is_none() {
            let (config, names) = (&self.config, &mut self.names);
            let progress = self
                .handshake
                .process(&mut self.cipher, &mut self.out, &mut |name| {
                    names.push(name.map(str::to_owned));
                    (name != Some("unknown.example")).then(|| config.clone())
                })
                .map_err(Failure::Handshake)?;
            self.cipher.drain(..progress.consumed);
            self.established = progress.done;
        }
        let Some(established) = &mut self.established else {
            return Ok(());
        };
        // As in a connection: plaintext not yet read, a gap, ciphertext.
        let mut plain = 0..7;
        let mut buf = vec![0xaa; plain.end + 3];
        let start = buf.len();
        buf.extend_from_slice(&self.cipher);
        let mut cipher = start..buf.len();
        established
            .session
            .open(&mut buf, &mut plain, &mut cipher)
            .map_err(|error| {
                if let Some(alert) = error.alert() {
                    established
                        .session
                        .seal_alert(alert, &mut self.out)
                        .unwrap();
                }
                Failure::Session(error)
            })?;
        self.plain.extend_from_slice(&buf[7..plain.end]);
        self.cipher = buf.split_off(cipher.start);
        self.closed = established.session.peer_has_closed();
        established
            .session
            .take_pending(&mut self.out)
            .map_err(Failure::Session)
    }

    pub(super) fn send(&mut self, data: &[u8]) {
        let session = &mut self.established.as_mut().unwrap().session;
        session.take_pending(&mut self.out).unwrap();
        for chunk in data.chunks(MAX_PLAINTEXT) {
            let end = self.out.len();
            let start = end + session.record_header_len();
            self.out.resize(start, 0);
            self.out.extend_from_slice(chunk);
            let plain_end = self.out.len();
            self.out.resize(plain_end + session.record_trailer_len(), 0);
            let record = session
                .seal_in_place(&mut self.out, start..plain_end)
                .unwrap();
            assert_eq!(record, end..self.out.len(), "no gaps");
        }
    }
}

/// All that the client has to send.
pub(super) fn flush(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Gives the client what the server has to send, and returns the plaintext.
pub(super) fn deliver(
    client: &mut ClientConnection,
    server: &mut Server,
) -> Result<Vec<u8>, rustls::Error> {
    use std::io::Read;
    let bytes = std::mem::take(&mut server.out);
    let mut rest = &bytes[..];
    let mut plain = Vec::new();
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        let state = client.process_new_packets()?;
        let had = plain.len();
        plain.resize(had + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut plain[had..]).unwrap();
    }
    Ok(plain)
}

/// Exchanges bytes until neither side has any.
pub(super) fn settle(client: &mut ClientConnection, server: &mut Server) -> Result<(), Failure> {
    loop {
        let bytes = flush(client);
        if bytes.is_empty() && server.out.is_empty() {
            return Ok(());
        }
        server.receive(&bytes)?;
        deliver(client, server).unwrap();
    }
}

/// A client and a server whose handshake is over.
pub(super) fn connected(setup: Setup) -> (ClientConnection, Server) {
    let mut client = client(Arc::new(setup.client(setup.client_auth)));
    let mut server = Server::new(Arc::new(setup.server()));
    settle(&mut client, &mut server).unwrap();
    (client, server)
}
