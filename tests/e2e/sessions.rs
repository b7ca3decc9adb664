//! A session resumed is an identity believed without new proof, so it is
//! resumed only where nothing has changed: policy, certificate, time.

use std::time::{Duration, SystemTime};

use rustls::version::{TLS12, TLS13};

use super::tls::hosts;
use crate::support::client::{TlsClient, Trust};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::pki::Authority;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

/// Whether a second connection resumes the session of the first.
fn resumes(client: &TlsClient, ringwall: &Ringwall, name: &str) -> bool {
    let address = ringwall.address("TLS");
    let mut first = client.connect(address, name).expect("a handshake");
    assert_eq!(first.get(name, "/").status, 200);
    let mut second = client.connect(address, name).expect("a handshake");
    let response = second.get(name, "/");
    assert_eq!(response.status, 200);
    let said = response.text();
    if second.resumed() {
        assert!(said.starts_with('r'), "{said}");
    } else {
        assert!(said.starts_with('.'), "{said}");
    }
    second.resumed()
}

#[test]
fn sessions_resume_by_ticket_and_by_cache_in_both_versions() {
    for (settings, expected) in [
        ("", true),
        ("ssl_session_cache shared:A:1m;", true),
        (
            "ssl_session_cache shared:A:1m; ssl_session_tickets off;",
            true,
        ),
        ("ssl_session_tickets off;", false),
    ] {
        let (site, pki) = Site::with_pki();
        let ringwall = site.start(
            &http(&format!(
                "{settings} server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
                 {CERTIFICATES} {MUTUAL} return 200 \"$ssl_session_reused $ssl_client_s_dn\"; }}"
            ))
            .replace("worker_processes 1", "worker_processes 2"),
        );
        for version in [&TLS13, &TLS12] {
            let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[version]);
            for round in 0..4 {
                assert_eq!(
                    resumes(&client, &ringwall, HOST),
                    expected,
                    "{settings:?} over {version:?}, round {round}"
                );
                if !expected {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_resumed_session_keeps_its_identity() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         {CERTIFICATES} {MUTUAL} return 200 \"$ssl_session_reused $ssl_client_verify $ssl_client_s_dn\"; }}"
    )));
    for version in [&TLS13, &TLS12] {
        let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[version]);
        for expected in [". SUCCESS CN=client.example", "r SUCCESS CN=client.example"] {
            let response = client
                .get(ringwall.address("TLS"), HOST, "/")
                .expect("served");
            assert_eq!(response.text(), expected);
        }
    }
}

#[test]
fn a_session_never_resumes_under_another_policy() {
    for settings in [
        "ssl_session_cache shared:A:1m;",
        "ssl_session_cache shared:A:1m; ssl_session_tickets off;",
    ] {
        let origin = Origin::hello();
        let (site, pki) = Site::with_pki();
        let other = Authority::new("Second CA");
        std::fs::write(site.file("other.crt"), other.pem()).expect("writable");
        let pass = format!("{settings} location / {{ proxy_pass {}; }}", origin.url());
        let configuration = hosts(
            &site,
            &pki,
            &[
                ("open.example", &format!("{settings} return 200 open;")),
                ("strict.example", &format!("{MUTUAL} {pass}")),
                (
                    "other.example",
                    &format!(
                        "ssl_client_certificate @DIR@/other.crt; ssl_verify_client on; {settings} return 200 other;"
                    ),
                ),
                (
                    "optional.example",
                    &format!(
                        "ssl_client_certificate @DIR@/ca.crt; ssl_verify_client optional; {settings} return 200 optional;"
                    ),
                ),
            ],
        );
        let ringwall = site.start(&configuration);
        let address = ringwall.address("TLS");
        let outsider = other.client("outsider.example");
        for version in [&TLS13, &TLS12] {
            for (identity, first) in [
                (None, "open.example"),
                (None, "optional.example"),
                (Some(&outsider), "other.example"),
            ] {
                let client = TlsClient::build(Trust::Ca(&pki.ca), identity, &[version])
                    .offering_sessions_everywhere();
                for _ in 0..2 {
                    let response = client.get(address, first, "/").expect("a full handshake");
                    assert_eq!(response.status, 200, "{first}");
                }
                let outcome = client.get(address, "strict.example", "/");
                assert!(
                    outcome.is_err(),
                    "from {first} over {version:?}: {outcome:?}"
                );
            }
        }
        assert_eq!(origin.connections(), 0, "no byte reaches the backend");
    }
}

#[test]
fn a_session_does_not_outlive_the_certificate() {
    for settings in [
        "",
        "ssl_session_cache shared:A:1m; ssl_session_tickets off;",
    ] {
        let (site, pki) = Site::with_pki();
        let ringwall = site.start(&http(&format!(
            "{settings} server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
             {CERTIFICATES} {MUTUAL} return 200 \"$ssl_session_reused\"; }}"
        )));
        let address = ringwall.address("TLS");
        let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(6);
        let brief = pki.ca.client_with("brief.example", |p| p.not_after = end);
        let clients: Vec<_> = [&TLS13, &TLS12]
            .map(|version| TlsClient::build(Trust::Ca(&pki.ca), Some(&brief), &[version]))
            .into();
        for client in &clients {
            for expected in [".", "r"] {
                let response = client.get(address, HOST, "/").expect("still valid");
                assert_eq!(response.text(), expected);
            }
        }
        eventually("the certificate has expired", || {
            (SystemTime::now() > SystemTime::from(end) + Duration::from_secs(1)).then_some(())
        });
        for client in &clients {
            let outcome = client.get(address, HOST, "/");
            assert!(outcome.is_err(), "{settings:?}: {outcome:?}");
        }
    }
}

#[test]
fn a_session_ends_at_ssl_session_timeout() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "ssl_session_timeout 1s; ssl_session_cache shared:A:1m;\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         {CERTIFICATES} {MUTUAL} return 200 \"$ssl_session_reused\"; }}"
    )));
    for version in [&TLS13, &TLS12] {
        let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[version]);
        let mut first = client
            .connect(ringwall.address("TLS"), HOST)
            .expect("a handshake");
        assert_eq!(first.get(HOST, "/").status, 200);
        let given = std::time::Instant::now();
        eventually("the session is too old", || {
            (given.elapsed() > Duration::from_millis(2500)).then_some(())
        });
        let second = client
            .connect(ringwall.address("TLS"), HOST)
            .expect("a handshake");
        assert!(!second.resumed(), "{version:?}");
    }
}
