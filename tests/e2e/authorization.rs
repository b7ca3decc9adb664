//! A verified certificate says who a client is; the rules say what it may. No
//! byte of a client that they do not let in reaches a backend, on any path, in
//! any session, before or after a reload.

use rcgen::SanType;

use crate::support::client::{Connection, TlsClient};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::pki::{Identity, Pki};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

const OPTIONAL: &str = "ssl_client_certificate @DIR@/ca.crt; ssl_verify_client optional;";
const WORKLOAD: &str = "spiffe://td/ns/pay/sa/api";

fn server(verify: &str, content: &str) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {verify}\n\
         {content} }}"
    ))
}

fn start(verify: &str, content: &str) -> (Ringwall, Pki) {
    let (site, pki) = Site::with_pki();
    (site.start(&server(verify, content)), pki)
}

fn connect(ringwall: &Ringwall, pki: &Pki, identity: &Identity) -> Connection {
    TlsClient::with_identity(&pki.ca, identity)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake")
}

/// The status for each identity in turn.
fn statuses(ringwall: &Ringwall, pki: &Pki, path: &str, who: &[&Identity]) -> Vec<u16> {
    who.iter()
        .map(|identity| connect(ringwall, pki, identity).get(HOST, path).status)
        .collect()
}

#[test]
fn the_first_matching_rule_wins() {
    let origin = Origin::hello();
    let pass = format!("proxy_pass {};", origin.url());
    let (ringwall, pki) = start(
        MUTUAL,
        &format!(
            "location /a {{ ssl_client_deny cn:bob; ssl_client_allow all; {pass} }}\n\
             location /b {{ ssl_client_allow cn:bob; ssl_client_deny all; {pass} }}\n\
             location /c {{ ssl_client_allow all; ssl_client_deny cn:bob; {pass} }}\n\
             location /d {{ ssl_client_deny cn:bob; {pass} }}"
        ),
    );
    let (alice, bob) = (pki.ca.client("alice"), pki.ca.client("bob"));
    for (path, expected) in [
        ("/a", [200, 403]),
        ("/b", [403, 200]),
        ("/c", [200, 200]),
        ("/d", [403, 403]),
    ] {
        assert_eq!(
            statuses(&ringwall, &pki, path, &[&alice, &bob]),
            expected,
            "{path}"
        );
    }
    let line = ringwall.complaint_with(&["[error]", "\"ssl_client_deny cn:bob\"", "CN=bob"]);
    assert!(
        line.contains("client: 127.0.0.1") && line.contains("ringwall.conf:"),
        "{line}"
    );
    ringwall.complaint_with(&["[error]", "no rule matched", "CN=alice", "/d"]);
}

#[test]
fn a_dns_name_never_satisfies_a_uri_rule() {
    let origin = Origin::hello();
    let (ringwall, pki) = start(
        MUTUAL,
        &format!(
            "ssl_client_allow uri:spiffe://td/ns/*/sa/*; location / {{ proxy_pass {}; }}",
            origin.url()
        ),
    );
    let disguised = pki.ca.client_with(WORKLOAD, |params| {
        params.subject_alt_names = vec![
            SanType::DnsName(WORKLOAD.try_into().expect("ASCII")),
            SanType::Rfc822Name(WORKLOAD.try_into().expect("ASCII")),
        ];
    });
    let deeper = pki.ca.client_with("deeper", |params| {
        let uri = format!("{WORKLOAD}/root");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    });
    assert_eq!(
        statuses(&ringwall, &pki, "/", &[&disguised, &deeper, &pki.client]),
        [403, 403, 403]
    );
    assert_eq!(origin.connections(), 0, "no byte reaches the backend");
    let workload = pki.ca.client_with("api", |params| {
        params.subject_alt_names = vec![SanType::URI(WORKLOAD.try_into().expect("ASCII"))];
    });
    assert_eq!(statuses(&ringwall, &pki, "/", &[&workload]), [200]);
}

#[test]
fn a_name_stuffed_into_the_chain_satisfies_no_rule() {
    let (ringwall, pki) = start(MUTUAL, "ssl_client_allow cn:alice; return 200 in;");
    let (alice, bob) = (pki.ca.client("alice"), pki.ca.client("bob"));
    let stuffed = Identity {
        certificate_pem: bob.certificate_pem.clone() + &alice.certificate_pem,
        key_pem: bob.key_pem,
    };
    assert_eq!(
        statuses(&ringwall, &pki, "/", &[&stuffed, &alice]),
        [403, 200]
    );
}

#[test]
fn rules_without_a_certificate_refuse() {
    let origin = Origin::hello();
    let pass = format!("proxy_pass {};", origin.url());
    let (ringwall, pki) = start(
        OPTIONAL,
        &format!(
            "location /any {{ ssl_client_allow all; {pass} }}\n\
             location /deny {{ ssl_client_deny cn:x; {pass} }}\n\
             location /answer {{ ssl_client_allow all; return 200 secret; }}\n\
             location /open {{ {pass} }}"
        ),
    );
    let client = TlsClient::new(&pki.ca);
    let get = |path| {
        let response = client.get(ringwall.address("TLS"), HOST, path);
        response.expect("a response")
    };
    for path in ["/any", "/deny", "/answer"] {
        let response = get(path);
        assert_eq!(response.status, 403, "{path}");
        assert!(!response.text().contains("secret"), "{path}");
    }
    assert_eq!(origin.connections(), 0, "no byte reaches the backend");
    assert_eq!(get("/open").status, 200);
    ringwall.complaint_with(&["[error]", "no verified client certificate", "/any"]);
}

#[test]
fn a_level_with_rules_replaces_the_outer_ones() {
    let (ringwall, pki) = start(
        MUTUAL,
        "ssl_client_allow cn:alice;\n\
         location / { return 200 outer; }\n\
         location /inner { ssl_client_allow cn:bob; return 200 inner;\n\
            location /inner/most { return 200 most; } }",
    );
    let (alice, bob) = (pki.ca.client("alice"), pki.ca.client("bob"));
    for (path, expected) in [
        ("/", [200, 403]),
        ("/inner", [403, 200]),
        ("/inner/most", [403, 200]),
    ] {
        assert_eq!(
            statuses(&ringwall, &pki, path, &[&alice, &bob]),
            expected,
            "{path}"
        );
    }
}

#[test]
fn rules_apply_to_live_connections_after_a_reload() {
    let rule = |rule: &str| server(MUTUAL, &format!("{rule} location / {{ return 200 in; }}"));
    let (site, pki) = Site::with_pki();
    let mut ringwall = site.start(&rule("ssl_client_allow cn:client.example;"));
    let mut live = connect(&ringwall, &pki, &pki.client);
    for (now, expected) in [
        ("ssl_client_deny cn:client.example;", 403),
        ("ssl_client_allow all;", 200),
        ("ssl_client_allow cn:other;", 403),
    ] {
        ringwall.rewrite(&rule(now));
        ringwall.reload();
        eventually(now, || {
            (live.get(HOST, "/").status == expected).then_some(())
        });
    }
}

#[test]
fn rules_are_judged_again_when_a_session_is_resumed() {
    let rule = |rule: &str| server(MUTUAL, &format!("{rule} return 200 $ssl_session_reused;"));
    let (site, pki) = Site::with_pki();
    let mut ringwall = site.start(&rule("ssl_client_allow cn:client.example;"));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let mut first = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    assert_eq!(first.get(HOST, "/").status, 200);
    ringwall.rewrite(&rule("ssl_client_deny all;"));
    ringwall.reload();
    eventually("the reload is through", || {
        (first.get(HOST, "/").status == 403).then_some(())
    });
    let mut second = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    assert_eq!(second.get(HOST, "/").status, 403);
    assert!(second.resumed(), "changing rules throws no session away");
}

#[test]
fn a_location_demands_a_certificate_inside_an_optional_server() {
    let origin = Origin::hello();
    let pass = format!("proxy_pass {};", origin.url());
    let (ringwall, pki) = start(
        OPTIONAL,
        &format!(
            "location /open {{ {pass} }}\n\
             location /closed {{ ssl_client_required on; {pass}\n\
                location /closed/not {{ ssl_client_required off; {pass} }} }}"
        ),
    );
    let nobody = TlsClient::new(&pki.ca);
    let refused = nobody
        .get(ringwall.address("TLS"), HOST, "/closed")
        .expect("a response");
    assert_eq!(refused.status, 400);
    assert!(
        refused
            .text()
            .contains("No required SSL certificate was sent"),
        "{}",
        refused.text()
    );
    assert_eq!(origin.connections(), 0, "no byte reaches the backend");
    ringwall.complaint_with(&["[error]", "client sent no required SSL certificate"]);
    for (path, status) in [
        ("/open", 200),
        ("/closed/not", 200),
        ("/open/../closed", 400),
    ] {
        let response = nobody.get(ringwall.address("TLS"), HOST, path);
        assert_eq!(response.expect("a response").status, status, "{path}");
    }
    let known = [&pki.client];
    assert_eq!(statuses(&ringwall, &pki, "/closed", &known), [200]);
}

#[test]
fn a_rule_that_cannot_be_read_stops_the_start() {
    let (mut site, _pki) = Site::with_pki();
    for (rule, reason) in [
        ("cn:*", "\"*\" has a meaning in \"uri:\" only"),
        ("fingerprint:abc", "a fingerprint has 64 hexadecimal digits"),
        ("everyone", "a rule is \"all\" or begins with"),
    ] {
        let text = server(MUTUAL, &format!("ssl_client_deny {rule};"));
        let outcome = site.check(&text);
        let said = format!("{outcome:?}");
        assert!(said.contains(&reason.replace('"', "\\\"")), "{said}");
        assert!(said.contains("ringwall.conf:"), "{said}");
    }
}
