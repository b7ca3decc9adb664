//! The client's side against rustls' buffered server: whatever comes after the
//! handshake, in whatever pieces.

use proptest::prelude::*;
use rustls::ServerConnection;

use super::*;

/// Our client, with the buffers that a connection would have, and its server.
struct Pair {
    handshake: ClientHandshake,
    established: Option<ClientEstablished>,
    cipher: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
    closed: bool,
    server: ServerConnection,
}

impl Pair {
    fn new(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Self {
        let name = ServerName::try_from("server.example").unwrap();
        Self {
            handshake: ClientHandshake::new(Arc::clone(client), name).unwrap(),
            established: None,
            cipher: Vec::new(),
            plain: Vec::new(),
            out: Vec::new(),
            closed: false,
            server: ServerConnection::new(Arc::clone(server)).unwrap(),
        }
    }

    fn connected(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Self {
        let mut pair = Self::new(client, server);
        pair.settle(usize::MAX);
        assert!(pair.established.is_some());
        pair
    }

    /// What the client makes of bytes.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.cipher.extend_from_slice(bytes);
        if self.established.is_none() {
            let progress = self
                .handshake
                .process(&mut self.cipher, &mut self.out)
                .map_err(Failure::Handshake)?;
            self.cipher.drain(..progress.consumed);
            self.established = progress.done;
        }
        let Some(established) = &mut self.established else {
            return Ok(());
        };
        let (mut plain, mut cipher) = (0..0, 0..self.cipher.len());
        let session = &mut established.session;
        session
            .open(&mut self.cipher, &mut plain, &mut cipher)
            .map_err(Failure::Session)?;
        self.plain.extend_from_slice(&self.cipher[plain]);
        self.cipher.drain(..cipher.start);
        self.closed = session.peer_has_closed();
        session
            .take_pending(&mut self.out)
            .map_err(Failure::Session)
    }

    /// Exchanges bytes, the server's in pieces, until neither side has any.
    fn settle(&mut self, piece: usize) {
        self.receive(&[]).unwrap();
        loop {
            let mut sent = &std::mem::take(&mut self.out)[..];
            while !sent.is_empty() {
                self.server.read_tls(&mut sent).unwrap();
                self.server.process_new_packets().unwrap();
            }
            let mut bytes = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            if bytes.is_empty() && self.out.is_empty() {
                return;
            }
            for part in bytes.chunks(piece.min(bytes.len()).max(1)) {
                self.receive(part).unwrap();
            }
        }
    }

    fn serve(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.server.writer(), bytes).unwrap();
    }
}

fn configs(setup: Setup, fragment: Option<usize>) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let mut server = setup.server();
    server.max_fragment_size = fragment;
    (Arc::new(setup.client(setup.client_auth)), Arc::new(server))
}

#[test]
fn tickets_that_come_after_the_handshake_resume_the_session() {
    for version in [V12, V13] {
        let (client, server) = configs(Setup::new(version), None);
        let first = Pair::connected(&client, &server).established.unwrap();
        assert!(!first.resumed);
        let second = Pair::connected(&client, &server).established.unwrap();
        assert!(second.resumed, "{version:?}");
        assert_eq!(second.peer_certificates, first.peer_certificates);
    }
}

#[test]
fn a_key_update_of_the_server_is_followed_and_answered() {
    let (client, server) = configs(Setup::new(V13), None);
    let mut pair = Pair::connected(&client, &server);
    for round in 0..5_u8 {
        pair.server.refresh_traffic_keys().unwrap();
        pair.serve(&[round; 100]);
        pair.settle(7);
    }
    assert_eq!(pair.plain.len(), 500);
    // Under keys of our own that the server has to follow.
    let established = pair.established.as_mut().unwrap();
    established.session.key_update_due = true;
    established.session.take_pending(&mut pair.out).unwrap();
    pair.settle(usize::MAX);
}

#[test]
fn a_close_notify_of_the_server_is_its_word() {
    for version in [V12, V13] {
        let (client, server) = configs(Setup::new(version), None);
        let mut pair = Pair::connected(&client, &server);
        pair.serve(b"last");
        pair.server.send_close_notify();
        pair.settle(usize::MAX);
        assert!(pair.closed && pair.plain == b"last");
    }
}

#[test]
fn what_is_no_handshake_message_for_a_client_is_refused() {
    let (client, server) = configs(Setup::new(V13), None);
    for message in [
        &[1, 0, 0, 0][..],      // ClientHello
        &[13, 0, 0, 0],         // CertificateRequest
        &[4, 0, 0, 0],          // an empty ticket
        &[4, 1, 0, 0],          // one of 64 KiB
        &[4, 0, 0, 3, 1, 2, 3], // no ticket
        &[24, 0, 0, 1, 2],      // KeyUpdate with a bad request
    ] {
        let mut pair = Pair::connected(&client, &server);
        let session = &mut pair.established.as_mut().unwrap().session;
        assert!(session.handshake(message).is_err(), "{message:?}");
    }
    let mut pair = Pair::connected(&client, &server);
    let session = &mut pair.established.as_mut().unwrap().session;
    session.handshake(&[4, 0, 0]).unwrap();
    assert!(matches!(
        session.no_message_has_begun(),
        Err(SessionError::Interleaved)
    ));
}

#[test]
fn an_answer_in_the_clear_is_no_handshake() {
    let (client, server) = configs(Setup::new(V13), None);
    let mut pair = Pair::new(&client, &server);
    pair.receive(&[]).unwrap();
    assert!(matches!(
        pair.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Err(Failure::Handshake(HandshakeError::Tls(_)))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_of_what_the_server_sends_gives_the_same(
        piece in 1_usize..400,
        fragment in prop::option::of(32_usize..300),
        tls13: bool,
        client_auth: bool,
        length in 0_usize..40_000,
    ) {
        let mut setup = Setup::new(if tls13 { V13 } else { V12 });
        setup.client_auth = client_auth;
        let (client, server) = configs(setup, fragment);
        for resumed in [false, true] {
            let mut pair = Pair::new(&client, &server);
            pair.settle(piece);
            let sent: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            pair.server.set_buffer_limit(None);
            pair.serve(&sent);
            pair.settle(piece);
            prop_assert_eq!(pair.established.as_ref().map(|done| done.resumed), Some(resumed));
            prop_assert!(pair.plain == sent);
        }
    }
}
