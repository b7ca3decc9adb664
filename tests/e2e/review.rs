//! A reload that refuses a client's certificate ends its connections: idle
//! ones at once, the others behind the response in flight. Everybody else's stay.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::support::client::{Connection, TlsClient, Trust, is_timeout};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};
use crate::support::pki::{Authority, Identity, Pki};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

const REVOKED: u64 = 2000;
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

fn server(more: &str, origin: &Origin) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {more}\n\
         location / {{ proxy_pass {}; }} }}",
        origin.url()
    ))
}

fn with_crl(pki: &Pki, site: &Site, revoked: &[u64]) {
    std::fs::write(site.file("crl.pem"), pki.ca.crl(revoked, 30)).expect("writable");
}

fn marked(ca: &Authority) -> Identity {
    ca.client_with("marked.example", |params| {
        params.serial_number = Some(REVOKED.into());
    })
}

/// Two connections of each version: one that has never asked anything, and one
/// that has.
fn connections(ringwall: &Ringwall, pki: &Pki, identity: Option<&Identity>) -> Vec<Connection> {
    let mut connections = Vec::new();
    for version in VERSIONS {
        let client = TlsClient::build(Trust::Ca(&pki.ca), identity, &[version]);
        for asks in [true, false] {
            let mut connection = client
                .connect(ringwall.address("TLS"), HOST)
                .expect("let in");
            if asks {
                assert_eq!(connection.get(HOST, "/").text(), "hello");
            }
            connections.push(connection);
        }
    }
    connections
}

/// Reloads, and waits until it is done.
fn reload(ringwall: &Ringwall) {
    let done = || ringwall.complaints().matches("reconfigured").count();
    let before = done();
    ringwall.reload();
    eventually("the reload is done", || (done() > before).then_some(()));
}

fn expect_closed(connections: &mut [Connection], what: &str) {
    for connection in connections {
        // Long before any time-out of the configuration.
        connection.set_read_limit(Duration::from_secs(10));
        let said = connection.until_close().expect(what);
        assert!(said.is_empty(), "{what}: {said:?}");
    }
}

fn expect_open(connections: &mut [Connection], what: &str) {
    for connection in connections {
        connection.set_read_limit(Duration::from_millis(300));
        let read = connection.some();
        assert!(read.as_ref().is_err_and(is_timeout), "{what}: {read:?}");
        connection.set_read_limit(Duration::from_secs(10));
        assert_eq!(connection.get(HOST, "/").text(), "hello", "{what}");
    }
}

#[test]
fn idle_connections_of_a_revoked_client_are_closed_at_the_reload_and_no_others() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    with_crl(&pki, &site, &[]);
    let ringwall = site.start(&server(&format!("{MUTUAL} ssl_crl crl.pem;"), &origin));
    let mut bad = connections(&ringwall, &pki, Some(&marked(&pki.ca)));
    let mut good = connections(&ringwall, &pki, Some(&pki.client));
    reload(&ringwall);
    expect_open(&mut good, "nothing has changed");
    expect_open(&mut bad, "nothing has changed");

    with_crl(&pki, &ringwall.site, &[REVOKED]);
    reload(&ringwall);
    expect_closed(&mut bad, "revoked");
    let line = ringwall.complaint_with(&["(23:certificate revoked)", "closed after a reload"]);
    assert!(line.contains("CN=marked.example"), "{line}");
    expect_open(&mut good, "not revoked");
    let complaints = ringwall.complaints();
    let told = complaints.matches("closed after a reload").count();
    assert_eq!(told, bad.len(), "each once: {complaints}");
}

#[test]
fn idle_connections_under_a_policy_that_has_changed_are_closed_at_the_reload() {
    for (before, after) in [
        // The CA is gone.
        (
            MUTUAL,
            "ssl_client_certificate @DIR@/other.crt; ssl_verify_client on;",
        ),
        // What was optional is demanded.
        (
            "ssl_client_certificate @DIR@/ca.crt; ssl_verify_client optional;",
            MUTUAL,
        ),
        // What was nobody's business is asked for.
        ("", MUTUAL),
        // The chain may be shorter only.
        (
            MUTUAL,
            "ssl_client_certificate @DIR@/ca.crt; ssl_verify_client on; ssl_verify_depth 0;",
        ),
    ] {
        let origin = Origin::hello();
        let (mut site, pki) = Site::with_pki();
        let other = Authority::new("Other CA");
        std::fs::write(site.file("other.crt"), other.pem()).expect("writable");
        // A port of another policy stays as it is.
        let spared = format!(
            "server {{ listen 127.0.0.1:@SPARED@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
             return 200 hello; }}\n"
        );
        let whole = |policy: &str| {
            server(policy, &origin).replace("server {", &format!("{spared}server {{"))
        };
        site.port("SPARED");
        let mut ringwall = site.start(&whole(before));
        let mut affected = connections(&ringwall, &pki, Some(&pki.client));
        let mut spared = TlsClient::with_identity(&pki.ca, &pki.client)
            .connect(ringwall.address("SPARED"), HOST)
            .expect("let in");
        assert_eq!(spared.get(HOST, "/").text(), "hello");
        ringwall.rewrite(&whole(after));
        reload(&ringwall);
        expect_closed(&mut affected, after);
        expect_open(std::slice::from_mut(&mut spared), after);
    }
}

/// A backend that answers `/slow` when it is told to.
fn hesitant() -> (Origin, mpsc::Sender<()>) {
    let (go, wait): (_, Receiver<()>) = mpsc::channel();
    let wait = Arc::new(Mutex::new(wait));
    let origin = Origin::http(move |request| {
        if request.line.contains("/slow") {
            let told = wait.lock().expect("one at a time").recv();
            told.expect("the test tells it");
        }
        ok("hello")
    });
    (origin, go)
}

#[test]
fn a_response_in_flight_arrives_before_its_revoked_client_is_cut_off() {
    let (origin, go) = hesitant();
    let (site, pki) = Site::with_pki();
    with_crl(&pki, &site, &[]);
    let ringwall = site.start(&server(&format!("{MUTUAL} ssl_crl crl.pem;"), &origin));
    let client = |identity| TlsClient::with_identity(&pki.ca, identity);
    let bad = marked(&pki.ca);
    let mut waiting = Vec::new();
    for identity in [&bad, &pki.client] {
        let mut connection = client(identity)
            .connect(ringwall.address("TLS"), HOST)
            .expect("let in");
        let requests = origin.requests();
        connection.send(format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        eventually("the backend is asked", || {
            (origin.requests() > requests).then_some(())
        });
        waiting.push(connection);
    }
    let mut idle = client(&bad)
        .connect(ringwall.address("TLS"), HOST)
        .expect("let in");
    assert_eq!(idle.get(HOST, "/").text(), "hello");

    with_crl(&pki, &ringwall.site, &[REVOKED]);
    reload(&ringwall);
    expect_closed(std::slice::from_mut(&mut idle), "idle and revoked");
    for connection in &mut waiting {
        go.send(()).expect("the backend waits");
        assert_eq!(connection.response("GET").text(), "hello");
    }
    let (bad, good) = waiting.split_at_mut(1);
    expect_closed(bad, "revoked meanwhile");
    expect_open(good, "not revoked");
}

#[test]
fn hundreds_of_idle_connections_are_judged_anew_while_others_are_served() {
    const EACH: usize = 400;
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    with_crl(&pki, &site, &[]);
    let ringwall = site.start(&server(&format!("{MUTUAL} ssl_crl crl.pem;"), &origin));
    let open = |identity: &Identity| -> Vec<Connection> {
        let client = TlsClient::with_identity(&pki.ca, identity);
        let connect = |_| {
            let mut connection = client.connect(ringwall.address("TLS"), HOST).expect("in");
            assert_eq!(connection.get(HOST, "/").status, 200);
            connection
        };
        (0..EACH).map(connect).collect()
    };
    let (mut bad, mut good) = (open(&marked(&pki.ca)), open(&pki.client));
    with_crl(&pki, &ringwall.site, &[REVOKED]);
    reload(&ringwall);
    for connection in &mut good {
        assert_eq!(connection.get(HOST, "/").text(), "hello");
    }
    expect_closed(&mut bad, "revoked");
    assert_eq!(good[0].get(HOST, "/").text(), "hello");
}
