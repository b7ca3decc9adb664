//! Peers that break the rules, and what they are told.

use std::io::Write;

use proptest::prelude::*;
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets, HandshakeType};

use super::*;
use crate::tls::client_hello;

/// A client that sends whatever it likes, properly encrypted.
struct Forger {
    sealer: Sealer,
}

impl Forger {
    fn new(version: ProtocolVersion, client: ClientConnection) -> Self {
        let ExtractedSecrets { tx, .. } = client.dangerous_extract_secrets().unwrap();
        let sealer = Sealer::new(version, tx.0, &tx.1).unwrap();
        Self { sealer }
    }

    fn record(&mut self, content: ContentType, message: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; HEADROOM + message.len() + TAILROOM];
        let plain = HEADROOM..HEADROOM + message.len();
        buf[plain.clone()].copy_from_slice(message);
        let record = self.sealer.seal_in_place(&mut buf, plain, content).unwrap();
        buf[record].to_vec()
    }
}

fn forged(version: &'static SupportedProtocolVersion) -> (Forger, Server) {
    let (client, server) = connected(Setup::new(version));
    (Forger::new(version.version, client), server)
}

/// What a fresh session makes of these records.
fn verdict(
    version: &'static SupportedProtocolVersion,
    records: &[(ContentType, &[u8])],
) -> Result<Server, SessionError> {
    let (mut forger, mut server) = forged(version);
    for (content, message) in records {
        let record = forger.record(*content, message);
        match server.receive(&record) {
            Ok(()) => {}
            Err(Failure::Session(error)) => return Err(error),
            Err(other) => panic!("{other:?}"),
        }
    }
    Ok(server)
}

const DATA: ContentType = ContentType::ApplicationData;
const ALERT: ContentType = ContentType::Alert;
const HANDSHAKE: ContentType = ContentType::Handshake;

#[test]
fn a_tampered_record_ends_the_session_with_bad_record_mac() {
    for version in [V12, V13] {
        let (mut client, mut server) = connected(Setup::new(version));
        client.writer().write_all(b"payload").unwrap();
        let mut bytes = flush(&mut client);
        *bytes.last_mut().unwrap() ^= 1;
        let error = server.receive(&bytes).unwrap_err();
        let Failure::Session(SessionError::Record(RecordError::Decrypt)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(server.plain, b"");
        let told = deliver(&mut client, &mut server).unwrap_err();
        assert_eq!(told, Error::AlertReceived(AlertDescription::BadRecordMac));
    }
}

#[test]
fn a_truncated_record_waits_and_gives_nothing() {
    let (mut client, mut server) = connected(Setup::new(V13));
    client.writer().write_all(b"payload").unwrap();
    let bytes = flush(&mut client);
    server.receive(&bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(server.plain, b"");
    assert!(!server.closed, "the end of the stream is not close_notify");
}

#[test]
fn records_of_other_types_are_refused() {
    for version in [V12, V13] {
        for kind in [20, 24, 99] {
            let (_, mut server) = connected(Setup::new(version));
            let error = server.receive(&[kind, 3, 3, 0, 1, 1]).unwrap_err();
            let Failure::Session(error) = error else {
                panic!("{error:?}");
            };
            assert_eq!(error.alert(), Some(AlertDescription::UnexpectedMessage));
        }
        let (_, mut server) = connected(Setup::new(version));
        assert!(server.receive(b"GET / HTTP/1.1\r\n").is_err());
    }
    let (_, mut server) = connected(Setup::new(V13));
    assert!(
        server.receive(&[21, 3, 3, 0, 2, 1, 0]).is_err(),
        "a close_notify in the clear is not the peer's"
    );
}

#[test]
fn a_fatal_alert_is_an_error_and_gets_no_answer() {
    for version in [V12, V13] {
        let error = verdict(version, &[(ALERT, &[2, 40])]).err().unwrap();
        assert!(matches!(
            error,
            SessionError::PeerAlert(AlertDescription::HandshakeFailure)
        ));
        assert_eq!(error.alert(), None);
    }
    let error = verdict(V13, &[(ALERT, &[1, 100])]).err().unwrap();
    assert!(matches!(error, SessionError::PeerAlert(_)), "RFC 8446 §6");
    let error = verdict(V13, &[(ALERT, &[1])]).err().unwrap();
    assert!(matches!(error, SessionError::Malformed));
}

#[test]
fn warnings_are_ignored_up_to_a_bound() {
    for (version, warning) in [(V12, [1, 41]), (V13, [1, 90])] {
        let mut records = vec![(ALERT, &warning[..]); usize::from(MAX_WARNINGS)];
        records.push((DATA, b"and on"));
        assert_eq!(verdict(version, &records).unwrap().plain, b"and on");
        records.push((ALERT, &warning));
        let error = verdict(version, &records).err().unwrap();
        assert!(matches!(error, SessionError::Flood));
    }
}

#[test]
fn handshake_messages_without_a_place_are_refused() {
    for (message, kind) in [
        (&[4, 0, 0, 1, 0][..], HandshakeType::NewSessionTicket),
        (&[1, 0, 0, 1, 0], HandshakeType::ClientHello),
        (&[11], HandshakeType::Certificate),
    ] {
        let error = verdict(V13, &[(HANDSHAKE, message)]).err().unwrap();
        let SessionError::UnexpectedHandshake(found) = error else {
            panic!("{error:?}");
        };
        assert_eq!(found, kind);
    }
    let error = verdict(V12, &[(HANDSHAKE, &[1, 0, 0, 1, 0])])
        .err()
        .unwrap();
    assert!(matches!(error, SessionError::Renegotiation));
    assert_eq!(error.alert(), Some(AlertDescription::NoRenegotiation));
    let error = verdict(V12, &[(HANDSHAKE, &[24, 0, 0, 1, 0])])
        .err()
        .unwrap();
    assert!(matches!(error, SessionError::UnexpectedHandshake(_)));
}

#[test]
fn a_key_update_may_be_fragmented_but_not_interleaved() {
    let update = [24, 0, 0, 1, 1];
    let pieces: Vec<_> = update.chunks(1).map(|b| (HANDSHAKE, b)).collect();
    verdict(V13, &pieces).unwrap();

    for other in [(DATA, &b"x"[..]), (ALERT, &[1, 0]), (DATA, b"")] {
        let error = verdict(V13, &[(HANDSHAKE, &[24, 0]), other]).err().unwrap();
        assert!(matches!(error, SessionError::Interleaved), "{other:?}");
    }
    let error = verdict(V13, &[(HANDSHAKE, &[24, 0, 0, 1, 0, 24])])
        .err()
        .unwrap();
    assert!(matches!(error, SessionError::Interleaved));
    for (message, alert) in [
        ([24, 0, 0, 1, 2], AlertDescription::IllegalParameter),
        ([24, 0, 0, 2, 0], AlertDescription::DecodeError),
        ([24, 1, 0, 1, 0], AlertDescription::DecodeError),
    ] {
        let error = verdict(V13, &[(HANDSHAKE, &message)]).err().unwrap();
        assert_eq!(error.alert(), Some(alert), "{message:?}");
    }
}

#[test]
fn key_updates_without_data_are_bounded_and_answered_once() {
    let (mut client, mut server) = connected(Setup::new(V13));
    for _ in 0..MAX_KEY_UPDATES {
        client.refresh_traffic_keys().unwrap();
    }
    let before = server.out.len();
    server.receive(&flush(&mut client)).unwrap();
    let answer = HEADER + KEY_UPDATE_LEN + TAILROOM;
    assert_eq!(server.out.len() - before, answer, "one for all");
    deliver(&mut client, &mut server).unwrap();

    client.refresh_traffic_keys().unwrap();
    let error = server.receive(&flush(&mut client)).unwrap_err();
    assert!(matches!(error, Failure::Session(SessionError::Flood)));

    let (mut client, mut server) = connected(Setup::new(V13));
    for _ in 0..4 {
        for _ in 0..MAX_KEY_UPDATES {
            client.refresh_traffic_keys().unwrap();
        }
        client.writer().write_all(b"x").unwrap();
        server.receive(&flush(&mut client)).unwrap();
    }
    assert_eq!(server.plain, b"xxxx");
}

#[test]
fn a_tls12_key_at_its_limit_closes_with_an_alert() {
    let setup = Setup {
        suite: Some(aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ..Setup::new(V12)
    };
    let (_, mut server) = connected(setup);
    let secrets = ConnectionTrafficSecrets::Aes256Gcm {
        key: [1; 32].into(),
        iv: [2; 12].into(),
    };
    server.session().sealer = Sealer::new(ProtocolVersion::TLSv1_2, 1 << 24, &secrets).unwrap();
    let refused = server.session().seal_in_place(&mut [0; 64], 20..21);
    assert!(matches!(
        refused,
        Err(SessionError::Record(RecordError::KeyExhausted))
    ));
    let mut out = Vec::new();
    server.session().seal_close_notify(&mut out).unwrap();
    assert!(!out.is_empty());
}

/// Runs a handshake that fails: the server's error, and what the client is
/// told.
fn failing(client: &mut ClientConnection, server: &mut Server) -> (HandshakeError, Error) {
    loop {
        match server.receive(&flush(client)) {
            Ok(()) => deliver(client, server).unwrap(),
            Err(Failure::Handshake(error)) => {
                return (error, deliver(client, server).unwrap_err());
            }
            Err(other) => panic!("{other:?}"),
        };
    }
}

#[test]
fn a_client_without_its_certificate_is_told() {
    for version in [V12, V13] {
        let setup = Setup {
            client_auth: true,
            ..Setup::new(version)
        };
        let mut client = client(Arc::new(setup.client(false)));
        // Data behind its Finished must not matter.
        client.writer().write_all(b"GET /").unwrap();
        let mut server = Server::new(Arc::new(setup.server()));
        let (error, told) = failing(&mut client, &mut server);
        assert!(matches!(
            error,
            HandshakeError::Tls(Error::NoCertificatesPresented)
        ));
        let alert = AlertDescription::CertificateRequired;
        assert_eq!(told, Error::AlertReceived(alert));
        let again = server.receive(b"").unwrap_err();
        assert!(matches!(again, Failure::Handshake(HandshakeError::Over)));
    }
}

#[test]
fn a_client_of_another_version_is_told() {
    let mut client = client(Arc::new(Setup::new(V13).client(false)));
    let mut server = Server::new(Arc::new(Setup::new(V12).server()));
    let (error, told) = failing(&mut client, &mut server);
    assert!(matches!(
        error,
        HandshakeError::Tls(Error::PeerIncompatible(_))
    ));
    assert_eq!(
        told,
        Error::AlertReceived(AlertDescription::ProtocolVersion)
    );
}

#[test]
fn an_unknown_name_is_told() {
    let name = ServerName::try_from("Unknown.example").unwrap();
    let config = Arc::new(Setup::new(V13).client(false));
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut server = Server::new(Arc::new(Setup::new(V13).server()));
    let (error, told) = failing(&mut client, &mut server);
    assert!(matches!(error, HandshakeError::UnknownName));
    assert_eq!(
        told,
        Error::AlertReceived(AlertDescription::UnrecognisedName)
    );
}

#[test]
fn a_configuration_that_keeps_its_keys_is_refused() {
    let setup = Setup::new(V13);
    let mut config = setup.server();
    config.enable_secret_extraction = false;
    let mut client = client(Arc::new(setup.client(false)));
    let mut server = Server::new(Arc::new(config));
    let (error, told) = failing(&mut client, &mut server);
    assert!(matches!(error, HandshakeError::SecretExtraction(_)));
    assert_eq!(told, Error::AlertReceived(AlertDescription::InternalError));
}

#[test]
fn what_is_not_tls_gets_no_alert_and_what_is_gets_one() {
    let first = |bytes: &[u8]| {
        let mut server = Server::new(Arc::new(Setup::new(V13).server()));
        match server.receive(bytes) {
            Err(Failure::Handshake(error)) => (error, server.out),
            other => panic!("{other:?}"),
        }
    };
    let (error, out) = first(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(error, HandshakeError::PlainHttp) && out.is_empty());
    let (error, out) = first(b"\0\0\0");
    assert!(matches!(error, HandshakeError::NotTls) && out.is_empty());
    let (error, out) = first(&[22, 3, 3, 0, 4, 2, 0, 0, 0]);
    assert!(matches!(
        error,
        HandshakeError::ClientHello(client_hello::Error::NotClientHello)
    ));
    assert_eq!(out, [21, 3, 3, 0, 2, 2, 10]);
}

#[test]
fn garbage_behind_the_client_hello_ends_the_handshake() {
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[22, 3, 3, 0xff, 0xff],
        &[23, 3, 3, 0, 1, 0],
        &[21, 3, 3, 0, 2, 2, 40],
        &[22, 3, 3, 0, 0],
    ] {
        let setup = Setup::new(V13);
        let mut client = client(Arc::new(setup.client(false)));
        let mut server = Server::new(Arc::new(setup.server()));
        let mut bytes = flush(&mut client);
        bytes.extend_from_slice(garbage);
        let error = server.receive(&bytes).unwrap_err();
        assert!(matches!(error, Failure::Handshake(HandshakeError::Tls(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changed_byte_never_panics_and_a_changed_client_hello_gives_no_session(
        at in any::<prop::sample::Index>(),
        to: u8,
        flight in 0_usize..3,
        tls13: bool,
        split in 1_usize..2000,
    ) {
        let setup = Setup { client_auth: true, ..Setup::new(if tls13 { V13 } else { V12 }) };
        let mut client = client(Arc::new(setup.client(true)));
        let mut server = Server::new(Arc::new(setup.server()));
        let mut in_message = false;
        for number in 0.. {
            let mut bytes = flush(&mut client);
            if bytes.is_empty() {
                break;
            }
            if number == flight {
                let at = at.index(bytes.len());
                prop_assume!(bytes[at] != to);
                bytes[at] = to;
                // Of a record's header, the version is not authenticated.
                in_message = flight == 0 && at >= HEADER;
            }
            let mut failed = false;
            for chunk in bytes.chunks(split) {
                failed = failed || server.receive(chunk).is_err();
            }
            if failed || deliver(&mut client, &mut server).is_err() {
                break;
            }
        }
        if in_message {
            prop_assert!(server.established.is_none());
        }
    }
}
