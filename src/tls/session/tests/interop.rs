//! Against rustls' own client: every suite, both versions, data both ways.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use rustls::HandshakeKind;
use rustls::server::ProducesTickets;

use super::*;
use crate::tls::resumption::{Scope, ScopedStore, SessionStore, TicketKeys, Ticketer};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn write_all(client: &mut ClientConnection, data: &[u8]) {
    client.set_buffer_limit(None);
    client.writer().write_all(data).unwrap();
}

#[test]
fn every_suite_carries_data_both_ways() {
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        let version = match suite {
            SupportedCipherSuite::Tls12(_) => V12,
            SupportedCipherSuite::Tls13(_) => V13,
        };
        for resume in [Resume::Never, Resume::Cache, Resume::Tickets] {
            for client_auth in [false, true] {
                let setup = Setup {
                    version,
                    suite: Some(*suite),
                    resume,
                    client_auth,
                };
                let (mut client, mut server) = connected(setup);
                let established = server.established.as_ref().unwrap();
                assert_eq!(established.suite, *suite);
                assert_eq!(established.version, version.version);
                assert!(!established.resumed, "{setup:?}");
                let chain = established.peer_certificates.as_deref();
                assert_eq!(chain.is_some(), client_auth, "{setup:?}");
                if let Some(chain) = chain {
                    assert_eq!(chain, pki().client.chain());
                }

                let data = pattern(40_000);
                for _ in 0..2 {
                    write_all(&mut client, &data);
                    server.receive(&flush(&mut client)).unwrap();
                    assert!(server.plain == data, "{setup:?}");
                    server.plain.clear();
                    server.send(&data);
                    assert!(deliver(&mut client, &mut server).unwrap() == data);
                }
            }
        }
    }
}

/// Counts the tickets that were made.
#[derive(Debug)]
struct Counting(Ticketer, AtomicUsize);

impl ProducesTickets for Counting {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let made = self.0.encrypt(plain);
        made.inspect(|_| _ = self.1.fetch_add(1, Ordering::Relaxed))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

#[test]
fn a_full_handshake_leaves_two_sessions_and_a_resumed_one_a_single_one() {
    let (scope, hour) = (Scope([1; 32]), Duration::from_secs(3600));
    let store = Arc::new(SessionStore::new(1 << 20));
    let keys = Arc::new(TicketKeys::new().unwrap());
    let tickets = Arc::new(Counting(Ticketer::new(keys, scope, hour), 0.into()));
    let [mut by_store, mut by_ticket] = [Resume::Cache, Resume::Tickets].map(|resume| {
        let setup = Setup {
            resume,
            ..Setup::new(V13)
        };
        setup.server()
    });
    by_store.session_storage = Arc::new(ScopedStore::new(store.clone(), scope, hour));
    by_ticket.ticketer = tickets.clone();
    // What is there in all: a store's session can be resumed once.
    let expected = [
        ("store", by_store, [2, 2, 2]),
        ("ticket", by_ticket, [2, 3, 4]),
    ];
    for (way, config, expected) in expected {
        let config = Arc::new(config);
        let client_config = Arc::new(Setup::new(V13).client(false));
        for (round, expected) in expected.into_iter().enumerate() {
            let mut client = client(client_config.clone());
            let mut server = Server::new(config.clone());
            settle(&mut client, &mut server).unwrap();
            assert_eq!(server.established.unwrap().resumed, round > 0, "{way}");
            let made = match way {
                "store" => store.len(),
                _ => tickets.1.load(Ordering::Relaxed),
            };
            assert_eq!(made, expected, "{way}, {round}");
        }
    }
}

#[test]
fn a_session_is_resumed_where_the_server_allows_it() {
    for version in [V12, V13] {
        for resume in [Resume::Never, Resume::Cache, Resume::Tickets] {
            let setup = Setup {
                resume,
                client_auth: true,
                ..Setup::new(version)
            };
            let client_config = Arc::new(setup.client(true));
            let server_config = Arc::new(setup.server());
            for round in 0..3 {
                let mut client = client(client_config.clone());
                let mut server = Server::new(server_config.clone());
                settle(&mut client, &mut server).unwrap();
                let expected = round > 0 && resume != Resume::Never;
                let established = server.established.as_ref().unwrap();
                assert_eq!(established.resumed, expected, "{setup:?} {round}");
                assert_eq!(
                    client.handshake_kind() == Some(HandshakeKind::Resumed),
                    expected
                );
                let chain = established.peer_certificates.as_deref().unwrap();
                assert_eq!(chain, pki().client.chain(), "also when resumed");

                write_all(&mut client, b"ping");
                server.receive(&flush(&mut client)).unwrap();
                assert_eq!(server.plain, b"ping");
                server.send(b"pong");
                assert_eq!(deliver(&mut client, &mut server).unwrap(), b"pong");
            }
        }
    }
}

#[test]
fn data_in_the_flight_of_the_clients_finished_is_opened_by_our_layer() {
    for version in [V12, V13] {
        for resume in [Resume::Never, Resume::Cache, Resume::Tickets] {
            let setup = Setup {
                resume,
                ..Setup::new(version)
            };
            let client_config = Arc::new(setup.client(false));
            let server_config = Arc::new(setup.server());
            for _ in 0..2 {
                let mut client = client(client_config.clone());
                // rustls holds this back until it may be sent, and then sends
                // it together with its Finished.
                write_all(&mut client, b"at once");
                let mut server = Server::new(server_config.clone());
                settle(&mut client, &mut server).unwrap();
                assert_eq!(server.plain, b"at once", "{setup:?}");
                let established = server.established.as_ref().unwrap();
                assert_eq!(established.early_plaintext, b"");
            }
        }
    }
}

#[test]
fn the_server_name_is_normalised_and_chosen_by_once() {
    let setup = Setup::new(V13);
    let config = Arc::new(setup.client(false));
    for (asked, seen) in [
        ("Server.EXAMPLE", Some("server.example")),
        ("server.example.", Some("server.example")),
        ("127.0.0.1", None),
    ] {
        let name = ServerName::try_from(asked).unwrap();
        let mut client = ClientConnection::new(config.clone(), name).unwrap();
        let mut server = Server::new(Arc::new(setup.server()));
        for byte in flush(&mut client) {
            server.receive(&[byte]).unwrap();
        }
        assert_eq!(server.names, [seen.map(str::to_owned)], "{asked}");
        if seen.is_some() {
            deliver(&mut client, &mut server).unwrap();
            settle(&mut client, &mut server).unwrap();
            let established = server.established.unwrap();
            assert_eq!(established.server_name.as_deref(), seen);
        }
    }
}

#[test]
fn alpn_is_reported() {
    for version in [V12, V13] {
        let setup = Setup::new(version);
        let mut config = setup.server();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client_config = setup.client(false);
        client_config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut client = client(Arc::new(client_config));
        let mut server = Server::new(Arc::new(config));
        settle(&mut client, &mut server).unwrap();
        let alpn = server.established.unwrap().alpn;
        assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn a_hello_retry_request_is_survived() {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::SECP384R1,
        aws_lc_rs::kx_group::X25519MLKEM768,
    ];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[V13])
        .unwrap()
        .with_root_certificates(roots())
        .with_no_client_auth();
    let mut server_provider = aws_lc_rs::default_provider();
    server_provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    let leaf = &pki().ecdsa;
    let mut server_config = ServerConfig::builder_with_provider(Arc::new(server_provider))
        .with_protocol_versions(&[V13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(leaf.chain(), leaf.key())
        .unwrap();
    prepare(&mut server_config);
    let mut client = client(Arc::new(config));
    let mut server = Server::new(Arc::new(server_config));
    settle(&mut client, &mut server).unwrap();
    assert_eq!(
        client.handshake_kind(),
        Some(HandshakeKind::FullWithHelloRetryRequest)
    );
    assert_eq!(server.names.len(), 1, "the configuration is chosen once");
}

#[test]
fn keys_are_updated_when_the_client_asks() {
    let (mut client, mut server) = connected(Setup::new(V13));
    for round in 0..5_u8 {
        client.refresh_traffic_keys().unwrap();
        write_all(&mut client, &[round; 100]);
        server.receive(&flush(&mut client)).unwrap();
        assert_eq!(server.plain, [round; 100]);
        server.plain.clear();
        assert!(!server.out.is_empty(), "the answer");
        server.send(&[round; 20_000]);
        let plain = deliver(&mut client, &mut server).unwrap();
        assert_eq!(plain, [round; 20_000]);
    }
}

#[test]
fn keys_are_updated_when_ours_are_worn() {
    let (mut client, mut server) = connected(Setup::new(V13));
    for _ in 0..3 {
        server.session().key_update_due = true;
        assert!(server.session().has_pending());
        server.send(b"under the next key");
        assert!(!server.session().has_pending());
        let plain = deliver(&mut client, &mut server).unwrap();
        assert_eq!(plain, b"under the next key");
        write_all(&mut client, b"answer");
        server.receive(&flush(&mut client)).unwrap();
    }
    assert_eq!(server.plain, b"answeranswer".repeat(2)[..18]);
}

#[test]
fn close_notify_ends_each_direction() {
    for version in [V12, V13] {
        let (mut client, mut server) = connected(Setup::new(version));
        write_all(&mut client, b"bye");
        client.send_close_notify();
        server.receive(&flush(&mut client)).unwrap();
        assert_eq!(server.plain, b"bye");
        assert!(server.closed && server.session().peer_has_closed());
        server.receive(b"what follows is ignored").unwrap();

        server.send(b"still writing");
        let mut out = std::mem::take(&mut server.out);
        server.session().seal_close_notify(&mut out).unwrap();
        let length = out.len();
        server.session().seal_close_notify(&mut out).unwrap();
        assert_eq!(out.len(), length, "only once");
        let refused = server.session().seal_in_place(&mut [0; 64], 20..21);
        assert!(matches!(refused, Err(SessionError::Closed)));
        server.out = out;
        let plain = deliver(&mut client, &mut server).unwrap();
        assert_eq!(plain, b"still writing");
        assert!(client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn close_notify_fits_behind_the_last_record_or_is_left_for_later() {
    for version in [V12, V13] {
        let (mut client, mut server) = connected(Setup::new(version));
        let header = server.session().record_header_len();
        let mut buffer = [0; 200];
        buffer[header..header + 4].copy_from_slice(b"last");
        let session = server.session();
        let record = session
            .seal_in_place(&mut buffer, header..header + 4)
            .unwrap();
        let end = record.end + session.record_header_len() + 2 + session.record_trailer_len();
        assert_eq!(
            session.seal_close_notify_behind(&mut buffer[..end - 1], record.end),
            record.end
        );
        assert_eq!(
            session.seal_close_notify_behind(&mut buffer, record.end),
            end
        );
        assert_eq!(session.seal_close_notify_behind(&mut buffer, end), end);
        let mut out = Vec::new();
        session.seal_close_notify(&mut out).unwrap();
        assert!(out.is_empty(), "only once");
        server.out = buffer[record.start..end].to_vec();
        assert_eq!(deliver(&mut client, &mut server).unwrap(), b"last");
        assert!(client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn what_a_record_lacks_is_told() {
    let (mut client, mut server) = connected(Setup::new(V13));
    write_all(&mut client, b"0123456789");
    let bytes = flush(&mut client);
    for end in 0..HEADER {
        assert_eq!(server.session().missing(&bytes[..end]), Some(HEADER - end));
    }
    for end in HEADER..bytes.len() {
        let lacks = Some(bytes.len() - end);
        assert_eq!(server.session().missing(&bytes[..end]), lacks);
    }
    assert_eq!(server.session().missing(&bytes), None);
    assert_eq!(server.session().missing(b"GET / HTTP/1.1"), None);
}

#[test]
fn plaintext_of_the_first_record_need_not_move() {
    for version in [V12, V13] {
        let (mut client, mut server) = connected(Setup::new(version));
        write_all(&mut client, b"in place");
        let mut bytes = flush(&mut client);
        let (mut plain, mut cipher) = (0..0, 0..bytes.len());
        let session = server.session();
        session.open(&mut bytes, &mut plain, &mut cipher).unwrap();
        assert_eq!(&bytes[plain.clone()], b"in place");
        assert!(plain.start > 0 && cipher == (bytes.len()..bytes.len()));

        let wrong = session.open(&mut bytes, &mut (0..4), &mut (3..9));
        assert!(matches!(wrong, Err(SessionError::Ranges)));
        let beyond = bytes.len() + 1;
        let wrong = session.open(&mut bytes, &mut (0..0), &mut (0..beyond));
        assert!(matches!(wrong, Err(SessionError::Ranges)));
    }
}

#[test]
fn plaintext_stays_in_its_record() {
    let (mut client, mut server) = connected(Setup::new(V13));
    write_all(&mut client, b"one");
    write_all(&mut client, b"two");
    let mut bytes = flush(&mut client);
    let mut cipher = 0..bytes.len();
    let session = server.session();
    for (n, text) in [b"one", b"two"].into_iter().enumerate() {
        let plain = session.open_next(&mut bytes, &mut cipher).unwrap().unwrap();
        assert_eq!(&bytes[plain.clone()], text);
        // A record is 22 bytes longer than its plaintext.
        assert_eq!(plain.start, n * (3 + 22) + 5);
    }
    assert_eq!(session.open_next(&mut bytes, &mut cipher).unwrap(), None);
}

#[test]
fn a_session_is_small() {
    // What an idle connection costs, the keys themselves included; what the
    // cipher makes of them is given up meanwhile.
    assert!(size_of::<Session>() <= 216, "{}", size_of::<Session>());
    assert!(size_of::<Handshake>() <= 16, "{}", size_of::<Handshake>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_of_the_stream_gives_the_same_plaintext(
        lengths in prop::collection::vec(0_usize..40_000, 1..4),
        splits in prop::collection::vec(1_usize..3_000, 1..20),
        tls13: bool,
        client_auth: bool,
        updates: bool,
    ) {
        let version = if tls13 { V13 } else { V12 };
        let setup = Setup { client_auth, ..Setup::new(version) };
        let mut client = client(Arc::new(setup.client(client_auth)));
        let mut server = Server::new(Arc::new(setup.server()));
        let mut splits = splits.iter().copied().cycle();
        let mut feed = |server: &mut Server, mut bytes: &[u8]| {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(splits.next().unwrap().min(bytes.len()));
                server.receive(now).unwrap();
                bytes = later;
            }
        };
        let mut sent = Vec::new();
        for length in lengths {
            let data = pattern(length);
            write_all(&mut client, &data);
            sent.extend_from_slice(&data);
            while client.is_handshaking() || client.wants_write() {
                let bytes = flush(&mut client);
                feed(&mut server, &bytes);
                deliver(&mut client, &mut server).unwrap();
            }
            if updates && tls13 {
                client.refresh_traffic_keys().unwrap();
            }
            server.send(&data);
            let plain = deliver(&mut client, &mut server).unwrap();
            prop_assert!(plain == data);
        }
        let bytes = flush(&mut client);
        feed(&mut server, &bytes);
        prop_assert!(server.plain == sent);
    }
}
