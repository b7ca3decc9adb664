//! A certificate can be taken back: at the handshake, at a resumption, and
//! under a connection that is already there. And what a client is told whose
//! certificate is not accepted.

use std::io;

use rustls::version::{TLS12, TLS13};

use crate::support::client::{Connection, TlsClient, Trust};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::pki::{Authority, Identity};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

const GOOD: u64 = 1000;
const BAD: u64 = 2000;

fn numbered(ca: &Authority, serial: u64) -> Identity {
    ca.client_with("client.example", |params| {
        params.serial_number = Some(serial.into());
    })
}

fn proxy(more: &str, origin: &Origin) -> String {
    http(&format!(
        "log_format v \"verify=$ssl_client_verify status=$status\";\n\
         access_log @DIR@/access.log v;\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {more}\n\
         location / {{ proxy_pass {}; proxy_set_header Verify $ssl_client_verify;\n\
         proxy_set_header Subject $ssl_client_s_dn; }} }}",
        origin.url()
    ))
}

/// Whether a request over this connection is answered 200.
fn served(connection: io::Result<Connection>) -> bool {
    connection
        .and_then(|mut connection| connection.try_get(HOST, "/"))
        .is_ok_and(|response| response.status == 200)
}

fn is_served(client: &TlsClient, ringwall: &Ringwall) -> bool {
    served(client.connect(ringwall.address("TLS"), HOST))
}

#[test]
fn a_revoked_client_is_refused() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let middle = pki.ca.intermediate_with("Revoked CA", |params| {
        params.serial_number = Some(77_u64.into());
    });
    let mut below = middle.client("below.example");
    below.certificate_pem.push_str(&middle.pem());
    let crls = pki.ca.crl(&[BAD, 77], 30) + &middle.crl(&[], 30);
    std::fs::write(site.file("crl.pem"), crls).expect("writable");
    let ringwall = site.start(&proxy(&format!("{MUTUAL} ssl_crl crl.pem;"), &origin));
    for version in [&TLS13, &TLS12] {
        let client = |identity: &Identity| {
            TlsClient::build(Trust::Ca(&pki.ca), Some(identity), &[version]).without_sessions()
        };
        assert!(is_served(&client(&numbered(&pki.ca, GOOD)), &ringwall));
        let requests = origin.requests();
        assert!(!is_served(&client(&numbered(&pki.ca, BAD)), &ringwall));
        assert!(!is_served(&client(&below), &ringwall), "a revoked CA");
        assert_eq!(origin.requests(), requests, "nothing reaches the backend");
    }
    let line = ringwall.complaint_with(&["(23:certificate revoked)", "CN=client.example"]);
    assert!(line.contains(HOST), "{line}");
    ringwall.complaint_with(&["(23:certificate revoked)", "CN=below.example"]);
}

#[test]
fn a_session_does_not_outlive_a_revocation() {
    for settings in [
        "ssl_session_cache shared:A:1m;",
        "ssl_session_cache shared:A:1m; ssl_session_tickets off;",
    ] {
        for version in [&TLS13, &TLS12] {
            let origin = Origin::hello();
            let (site, pki) = Site::with_pki();
            std::fs::write(site.file("crl.pem"), pki.ca.crl(&[], 30)).expect("writable");
            let ringwall = site.start(&proxy(
                &format!("{MUTUAL} {settings} ssl_crl crl.pem;"),
                &origin,
            ));
            let address = ringwall.address("TLS");
            let client = |serial| {
                let identity = numbered(&pki.ca, serial);
                TlsClient::build(Trust::Ca(&pki.ca), Some(&identity), &[version])
            };
            let (good, bad) = (client(GOOD), client(BAD));
            let mut kept_good = good.connect(address, HOST).expect("a handshake");
            let mut kept_bad = bad.connect(address, HOST).expect("a handshake");
            for kept in [&mut kept_good, &mut kept_bad] {
                assert_eq!(kept.get(HOST, "/").text(), "hello");
            }
            for client in [&good, &bad] {
                let mut again = client.connect(address, HOST).expect("a handshake");
                assert_eq!(again.get(HOST, "/").status, 200);
                assert!(again.resumed());
            }

            std::fs::write(ringwall.site.file("crl.pem"), pki.ca.crl(&[BAD], 30))
                .expect("writable");
            ringwall.reload();
            let newcomer = client(BAD).without_sessions();
            eventually("the new CRL is in force", || {
                (!is_served(&newcomer, &ringwall)).then_some(())
            });
            let requests = origin.requests();
            assert!(!is_served(&bad, &ringwall), "resumed after the revocation");
            assert!(kept_bad.try_get(HOST, "/").is_err(), "still served");
            ringwall.complaint_with(&["(23:certificate revoked)", "closed after a reload"]);
            assert_eq!(origin.requests(), requests);
            assert_eq!(kept_good.get(HOST, "/").text(), "hello");
            let mut again = good.connect(address, HOST).expect("a handshake");
            assert_eq!(again.get(HOST, "/").status, 200);
            assert!(again.resumed(), "others keep their sessions");
        }
    }
}

#[test]
fn an_expired_crl_denies_by_default() {
    let origin = Origin::hello();
    let (mut site, pki) = Site::with_pki();
    std::fs::write(site.file("crl.pem"), pki.ca.crl(&[BAD], -2)).expect("writable");
    let strict = proxy(&format!("{MUTUAL} ssl_crl crl.pem;"), &origin);
    let said = site.check(&strict);
    assert!(said.stderr.contains("test is successful"), "{said:?}");
    assert!(said.stderr.contains("expired 2 days ago"), "{said:?}");
    let mut ringwall = site.start(&strict);
    let client =
        |serial| TlsClient::with_identity(&pki.ca, &numbered(&pki.ca, serial)).without_sessions();
    assert!(!is_served(&client(GOOD), &ringwall));
    ringwall.complaint_with(&["(12:CRL has expired)"]);
    ringwall.rewrite(&proxy(
        &format!("{MUTUAL} ssl_crl crl.pem; ssl_crl_expired allow;"),
        &origin,
    ));
    ringwall.reload();
    eventually("an expired CRL is allowed", || {
        is_served(&client(GOOD), &ringwall).then_some(())
    });
    assert!(!is_served(&client(BAD), &ringwall), "it still revokes");
}

#[test]
fn a_crl_due_soon_is_warned_about() {
    let origin = Origin::hello();
    let (mut site, pki) = Site::with_pki();
    let configuration = proxy(&format!("{MUTUAL} ssl_crl crl.pem;"), &origin);
    for (days, warned) in [(5, true), (30, false)] {
        std::fs::write(site.file("crl.pem"), pki.ca.crl(&[], days)).expect("writable");
        let said = site.check(&configuration);
        assert!(said.stderr.contains("test is successful"), "{said:?}");
        assert_eq!(said.stderr.contains("crl.pem\" of"), warned, "{said:?}");
    }
}

#[test]
fn an_unusable_crl_refuses_start_and_leaves_the_old_state_at_a_reload() {
    let origin = Origin::hello();
    let (mut site, pki) = Site::with_pki();
    let configuration = proxy(&format!("{MUTUAL} ssl_crl crl.pem;"), &origin);
    let good = pki.ca.crl(&[BAD], 30);
    let imposter = Authority::new("Test CA").crl(&[], 30);
    let cases = [
        (String::new(), "no CRL in it"),
        (good[..good.len() / 2].to_owned(), "cannot load CRL"),
        (pki.ca.pem(), "no CRL in it"),
        (imposter, "is not signed by that CA"),
    ];
    for (broken, complaint) in &cases {
        std::fs::write(site.file("crl.pem"), broken).expect("writable");
        let said = site.check(&configuration);
        assert!(said.stderr.contains(complaint), "{said:?}");
        assert!(said.stderr.contains("ringwall.conf:"), "{said:?}");
        assert!(!said.stderr.contains("successful"), "{said:?}");
    }
    std::fs::write(site.file("crl.pem"), &good).expect("writable");
    let ringwall = site.start(&configuration);
    let client =
        |serial| TlsClient::with_identity(&pki.ca, &numbered(&pki.ca, serial)).without_sessions();
    for (broken, complaint) in &cases {
        std::fs::write(ringwall.site.file("crl.pem"), broken).expect("writable");
        let before = ringwall.complaints().matches("[emerg]").count();
        ringwall.reload();
        eventually("the log says why", || {
            (ringwall.complaints().matches("[emerg]").count() > before).then_some(())
        });
        ringwall.complaint_with(&["[emerg]", complaint, "ringwall.conf:"]);
        assert!(is_served(&client(GOOD), &ringwall));
        assert!(!is_served(&client(BAD), &ringwall));
    }
}

#[test]
fn crls_of_another_host_are_not_evaded_by_its_neighbour() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    std::fs::write(site.file("crl.pem"), pki.ca.crl(&[BAD], 30)).expect("writable");
    let block = |name: &str, more: &str| {
        format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {name}; {CERTIFICATES} {MUTUAL}\n\
             {more} location / {{ proxy_pass {}; }} }}\n",
            origin.url()
        )
    };
    let ringwall = site.start(&http(
        &(block(HOST, "") + &block("strict.example", "ssl_crl crl.pem;")),
    ));
    let client = TlsClient::with_identity(&pki.ca, &numbered(&pki.ca, BAD));
    let mut connection = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("no CRL there");
    assert_eq!(connection.get(HOST, "/").status, 200);
    let requests = origin.requests();
    assert_eq!(connection.get("strict.example", "/").status, 421);
    assert_eq!(origin.requests(), requests);
}

#[test]
fn an_unknown_ca_is_tolerated_by_optional_no_ca_and_said() {
    let origin = Origin::echo();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&proxy(
        "ssl_client_certificate ca.crt; ssl_verify_client optional_no_ca;\n\
         ssl_session_cache shared:A:1m;",
        &origin,
    ));
    let past = time::OffsetDateTime::now_utc() - time::Duration::days(3);
    let expired = pki.ca.client_with("late.example", |p| p.not_after = past);
    for version in [&TLS13, &TLS12] {
        let client = |identity| TlsClient::build(Trust::Ca(&pki.ca), identity, &[version]);
        let stranger = client(Some(&pki.stranger));
        for _full_and_resumed in 0..2 {
            let mut connection = stranger
                .connect(ringwall.address("TLS"), HOST)
                .expect("a handshake");
            assert_eq!(connection.get(HOST, "/").status, 200);
        }
        assert!(is_served(&client(Some(&pki.client)), &ringwall));
        assert!(is_served(&client(None), &ringwall));
        assert!(!is_served(&client(Some(&expired)), &ringwall));
    }
    let received = origin.all_received_text();
    for (subject, verdict) in [
        ("CN=stranger.example", "Verify: FAILED:unable to verify"),
        ("CN=client.example", "Verify: SUCCESS"),
    ] {
        assert!(received.contains(subject), "{received}");
        assert!(received.contains(verdict), "{received}");
    }
    assert!(received.contains("Verify: NONE"), "{received}");
    assert!(!received.contains("late.example"), "{received}");
}

#[test]
fn a_failure_is_told_by_an_alert_or_by_http_and_never_reaches_the_backend() {
    let past = time::OffsetDateTime::now_utc() - time::Duration::days(3);
    for (settings, by_http) in [
        ("", false),
        ("ssl_verify_failure alert;", false),
        ("ssl_verify_failure http;", true),
    ] {
        let origin = Origin::hello();
        let (site, pki) = Site::with_pki();
        let expired = pki.ca.client_with("late.example", |p| p.not_after = past);
        let ringwall = site.start(&proxy(
            &format!("{MUTUAL} {settings} ssl_session_cache shared:A:1m;"),
            &origin,
        ));
        for version in [&TLS13, &TLS12] {
            for (identity, page) in [
                (Some(&pki.stranger), "The SSL certificate error"),
                (Some(&expired), "The SSL certificate error"),
                (None, "No required SSL certificate was sent"),
            ] {
                let client = TlsClient::build(Trust::Ca(&pki.ca), identity, &[version]);
                // In full, and resumed where it can be.
                for _ in 0..2 {
                    let answer =
                        client
                            .connect(ringwall.address("TLS"), HOST)
                            .and_then(|mut connection| {
                                let response = connection.try_get(HOST, "/")?;
                                Ok((response, connection))
                            });
                    if !by_http {
                        assert!(answer.is_err(), "{settings} {page}");
                        continue;
                    }
                    let (response, mut connection) = answer.expect("a page");
                    assert_eq!(response.status, 400);
                    assert!(response.text().contains(page), "{}", response.text());
                    assert!(response.says_close());
                    connection.expect_close("after the page");
                }
            }
            let good = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[version]);
            let before = origin.requests();
            assert!(is_served(&good, &ringwall));
            assert!(is_served(&good, &ringwall), "resumed");
            assert_eq!(origin.requests(), before + 2);
        }
        assert_eq!(origin.requests(), 4, "only the good client's");
        ringwall.access_with(&["verify=SUCCESS status=200"]);
        if by_http {
            ringwall.access_with(&["verify=FAILED:certificate has expired status=400"]);
            ringwall.access_with(&["verify=NONE status=400"]);
        }
        ringwall.complaint_with(&["(10:certificate has expired)", "CN=late.example"]);
        ringwall.complaint_with(&["client sent no required SSL certificate"]);
    }
}
