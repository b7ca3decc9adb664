//! A blocking client that sends exactly the bytes it is given, over TCP or
//! TLS, and reads responses by the letter of RFC 9112: a response that a lax
//! reader would forgive fails the test.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, ResolvesClientCert, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use super::find;
use super::pki::{Authority, Identity};

/// No answer within this is a failure of the test.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// One connection to the proxy.
pub(crate) struct Connection {
    wire: Wire,
    buffer: Vec<u8>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(piece),
            Self::Tls(stream) => stream.read(piece),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }
}

/// Opens a TCP connection with the usual limits.
pub(crate) fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, READ_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.set_write_timeout(Some(READ_LIMIT))?;
    Ok(stream)
}

impl Connection {
    /// Plain TCP.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self::over(tcp(address).expect("the proxy listens"))
    }

    /// Plain HTTP over a socket that the test opened.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            wire: Wire::Plain(stream),
            buffer: Vec::new(),
        }
    }

    /// Sends bytes at once.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the proxy reads");
    }

    /// [`Connection::send`] for where the proxy may have hung up already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write_all(bytes.as_ref())
    }

    /// Sends each piece in a packet of its own.
    pub(crate) fn send_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            self.send(piece);
            // Two writes in a row may share a packet; the pause parts them. No
            // test depends on it for its outcome, only for what it covers.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A GET of HTTP/1.1 with this target and host, and its response.
    pub(crate) fn get(&mut self, host: &str, target: &str) -> Response {
        self.try_get(host, target).expect("a response")
    }

    /// [`Connection::get`] where failure is an outcome.
    pub(crate) fn try_get(&mut self, host: &str, target: &str) -> io::Result<Response> {
        self.try_send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        self.try_response("GET")
    }

    /// Reads the final response to a request with this method; interim ones
    /// are kept in [`Response::interim`].
    pub(crate) fn response(&mut self, method: &str) -> Response {
        self.try_response(method).expect("a response")
    }

    /// [`Connection::response`] where failure is an outcome.
    pub(crate) fn try_response(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            self.body(method, &mut response)?;
            return Ok(response);
        }
    }

    /// Reads one head, interim or final, and leaves the body.
    pub(crate) fn head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        parse_head(&head)
    }

    fn body(&mut self, method: &str, response: &mut Response) -> io::Result<()> {
        let bodiless = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
        if bodiless {
            return Ok(());
        }
        if let Some(coding) = response.header("transfer-encoding") {
            if coding != "chunked" || response.header("content-length").is_some() {
                return Err(invalid("framing", &response.raw_head));
            }
            response.body = self.chunked()?;
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length
                .parse()
                .map_err(|_| invalid("length", &response.raw_head))?;
            while self.buffer.len() < length {
                self.fill()?;
            }
            response.body = self.buffer.drain(..length).collect();
        } else {
            response.body = self.until_close()?;
            response.ended_by_close = true;
        }
        Ok(())
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = std::str::from_utf8(&line)
                .ok()
                .and_then(|text| usize::from_str_radix(text, 16).ok())
                .ok_or_else(|| invalid("chunk size", &line))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            while self.buffer.len() < size + 2 {
                self.fill()?;
            }
            body.extend(self.buffer.drain(..size));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            if end != b"\r\n" {
                return Err(invalid("chunk end", &end));
            }
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            self.fill()?;
        }
    }

    /// Everything until the proxy ends its side in an orderly way.
    pub(crate) fn until_close(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof && e.get_ref().is_none() => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Whatever comes until the connection ends, in whichever way it ends.
    pub(crate) fn remains(&mut self) -> Vec<u8> {
        while self.fill().is_ok() {}
        std::mem::take(&mut self.buffer)
    }

    /// Asserts that the proxy closes the connection and sends nothing more.
    pub(crate) fn expect_close(&mut self, what: &str) {
        match self.fill() {
            Ok(()) => panic!("{what}: more came: {}", super::show(&self.buffer)),
            Err(e) if is_timeout(&e) => panic!("{what}: the connection stayed open"),
            Err(_) => assert!(self.buffer.is_empty(), "{what}: bytes were left"),
        }
    }

    /// Reads what is there, at least one byte. A clean end is an
    /// `UnexpectedEof` without an inner error.
    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        match self.wire.read(&mut piece)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }

    /// What is buffered, else whatever comes next, undecoded.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads a little of a body without keeping it; yields how much.
    pub(crate) fn sip(&mut self, at_most: usize) -> io::Result<usize> {
        if !self.buffer.is_empty() {
            let count = self.buffer.len().min(at_most);
            self.buffer.drain(..count);
            return Ok(count);
        }
        let mut piece = vec![0; at_most];
        self.wire.read(&mut piece)
    }

    /// Ends our sending side; over TLS with a close_notify first.
    pub(crate) fn finish_sending(&mut self) {
        if let Wire::Tls(stream) = &mut self.wire {
            stream.conn.send_close_notify();
            // It may have hung up first, which is as good.
            let _ = stream.flush();
        }
        let _ = self.wire.tcp().shutdown(Shutdown::Write);
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        // Fails only on a socket that is gone already.
        let _ = socket2::SockRef::from(self.wire.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// How long a read may take.
    pub(crate) fn set_read_limit(&self, limit: Duration) {
        self.wire
            .tcp()
            .set_read_timeout(Some(limit))
            .expect("a limit above zero");
    }

    /// Whether there are neither bytes nor an end to read on the socket.
    pub(crate) fn is_quiet(&self) -> bool {
        let socket = self.wire.tcp();
        socket.set_nonblocking(true).expect("a socket");
        let peeked = socket.peek(&mut [0]);
        socket.set_nonblocking(false).expect("a socket");
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.wire.tcp()
    }

    fn tls(&self) -> &ClientConnection {
        match &self.wire {
            Wire::Tls(stream) => &stream.conn,
            Wire::Plain(_) => panic!("this connection is not TLS"),
        }
    }

    /// The certificate that the proxy showed; empty after a resumption.
    pub(crate) fn server_certificate(&self) -> CertificateDer<'static> {
        self.tls()
            .peer_certificates()
            .and_then(|chain| chain.first())
            .expect("a server certificate")
            .clone()
    }

    /// Whether the handshake resumed a session.
    pub(crate) fn resumed(&self) -> bool {
        self.tls().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What both sides agreed to speak (ALPN).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.tls().alpn_protocol()
    }

    /// The protocol version.
    pub(crate) fn version(&self) -> rustls::ProtocolVersion {
        self.tls()
            .protocol_version()
            .expect("the handshake is done")
    }

    /// The cipher suite.
    pub(crate) fn suite(&self) -> rustls::CipherSuite {
        self.tls()
            .negotiated_cipher_suite()
            .expect("the handshake is done")
            .suite()
    }
}

/// Whether a read gave up because nothing came.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn invalid(what: &str, bytes: &[u8]) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("{what}: {}", super::show(bytes)),
    )
}

fn parse_head(head: &[u8]) -> io::Result<Response> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid("status line", head))?;
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| invalid("field", head))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<io::Result<_>>()?;
    Ok(Response {
        status,
        headers,
        body: Vec::new(),
        interim: Vec::new(),
        ended_by_close: false,
        raw_head: head.to_vec(),
    })
}

/// A response as the client saw it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names and values, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// Decoded.
    pub(crate) body: Vec<u8>,
    /// The 1xx that came first.
    pub(crate) interim: Vec<u16>,
    /// Whether only the end of the connection ended the body.
    pub(crate) ended_by_close: bool,
    /// The head as it came.
    pub(crate) raw_head: Vec<u8>,
}

impl Response {
    /// The only value of a field, whatever its case.
    ///
    /// # Panics
    /// When there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} twice: {:?}", self.headers);
        values.first().copied()
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the response says that the connection will be closed.
    pub(crate) fn says_close(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// TLS settings of a client; connections made from one share its sessions.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Trusts this CA; no client certificate; TLS 1.3 and 1.2.
    pub(crate) fn new(ca: &Authority) -> Self {
        Self::build(Trust::Ca(ca), None, rustls::ALL_VERSIONS)
    }

    /// With a client certificate.
    pub(crate) fn with_identity(ca: &Authority, identity: &Identity) -> Self {
        Self::build(Trust::Ca(ca), Some(identity), rustls::ALL_VERSIONS)
    }

    /// Believes any server, for certificates that rustls cannot judge (v1) and
    /// for tests that compare the certificate themselves.
    pub(crate) fn trusting(identity: Option<&Identity>) -> Self {
        Self::build(Trust::Anyone, identity, rustls::ALL_VERSIONS)
    }

    /// Everything chosen.
    pub(crate) fn build(
        trust: Trust<'_>,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .dangerous()
            .with_custom_certificate_verifier(trust.verifier(Arc::clone(&provider)));
        let mut config = match identity {
            Some(identity) => {
                let key = provider
                    .key_provider
                    .load_private_key(identity.key())
                    .expect("a key that the provider reads");
                let pair = CertifiedKey::new(identity.chain(), key);
                builder.with_client_cert_resolver(Arc::new(Presents(Arc::new(pair))))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(64);
        Self {
            config: Arc::new(config),
        }
    }

    /// The same settings with sessions that are offered to every name, whoever
    /// gave them: what an attacker's client does.
    pub(crate) fn offering_sessions_everywhere(&self) -> Self {
        self.changed(|config| {
            config.resumption = Resumption::store(Arc::new(Promiscuous::default()))
        })
    }

    /// The same settings with a ClientHello in many small records.
    pub(crate) fn in_fragments(&self) -> Self {
        self.in_records_of(43)
    }

    /// The same settings with records of this many bytes of plaintext.
    pub(crate) fn in_records_of(&self, bytes: usize) -> Self {
        // What rustls bounds is longer by the header.
        self.changed(|config| config.max_fragment_size = Some(bytes + 5))
    }

    /// The same settings without any session to resume.
    pub(crate) fn without_sessions(&self) -> Self {
        self.changed(|config| config.resumption = Resumption::disabled())
    }

    /// The same settings with these protocols offered (ALPN).
    pub(crate) fn speaking(&self, protocols: &[&str]) -> Self {
        self.changed(|config| {
            config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        })
    }

    fn changed(&self, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        change(&mut config);
        Self {
            config: Arc::new(config),
        }
    }

    /// Connects and completes the handshake. An address literal as the name
    /// sends no SNI. In TLS 1.3 a refusal of the client's certificate shows
    /// only at the first read after this.
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Connection> {
        self.connect_over(tcp(address)?, name)
    }

    /// [`TlsClient::connect`] over a socket that the test opened.
    pub(crate) fn connect_over(&self, mut stream: TcpStream, name: &str) -> io::Result<Connection> {
        let name = ServerName::try_from(name.to_owned()).expect("a name or an address");
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|e| io::Error::new(ErrorKind::InvalidInput, e))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Connection {
            wire: Wire::Tls(Box::new(StreamOwned::new(tls, stream))),
            buffer: Vec::new(),
        })
    }

    /// The bytes of a ClientHello for this name.
    pub(crate) fn client_hello(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls =
            ClientConnection::new(Arc::clone(&self.config), name).expect("a usable configuration");
        let mut hello = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut hello).expect("memory takes all");
        }
        hello
    }

    /// One GET on a new connection.
    pub(crate) fn get(
        &self,
        address: SocketAddr,
        host: &str,
        target: &str,
    ) -> io::Result<Response> {
        self.connect(address, host)?.try_get(host, target)
    }
}

/// Whom a client believes.
pub(crate) enum Trust<'a> {
    /// Servers of this CA, by the rules.
    Ca(&'a Authority),
    /// Everyone.
    Anyone,
}

impl Trust<'_> {
    fn verifier(self, provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
        match self {
            Self::Ca(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.der()).expect("a root");
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .expect("one root")
            }
            Self::Anyone => Arc::new(Anyone(provider)),
        }
    }
}

/// One drawer for the sessions of all servers.
#[derive(Debug, Default)]
struct Promiscuous {
    tickets: Mutex<Vec<Tls13ClientSessionValue>>,
    session: Mutex<Option<Tls12ClientSessionValue>>,
}

impl ClientSessionStore for Promiscuous {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        *self.session.lock().expect("not poisoned") = Some(value);
    }

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.session.lock().expect("not poisoned").clone()
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {
        // Kept: an attacker tries again.
    }

    fn insert_tls13_ticket(
        &self,
        _server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.tickets.lock().expect("not poisoned").push(value);
    }

    fn take_tls13_ticket(
        &self,
        _server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.tickets.lock().expect("not poisoned").pop()
    }
}

/// Shows its certificate whatever is asked for. rustls' own resolver would
/// first read it, and refuse version 1.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // webpki cannot read a v1 certificate, so its signature goes unchecked
        // where only that is the trouble.
        match verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        ) {
            Err(rustls::Error::InvalidCertificate(_)) => Ok(HandshakeSignatureValid::assertion()),
            other => other,
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        ) {
            Err(rustls::Error::InvalidCertificate(_)) => Ok(HandshakeSignatureValid::assertion()),
            other => other,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
