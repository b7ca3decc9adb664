//! `ssl_permissive`: plaintext beside TLS on one port, for as long as a
//! migration takes, without opening what did not ask to be opened.

use super::tls::hosts;
use crate::support::client::{Connection, TlsClient};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Site, http};

const TELL: &str = "return 200 \"$ssl_client_verify,$scheme,$https,$ssl_client_s_dn\";";

#[test]
fn a_permissive_port_speaks_tls_and_plaintext() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         ssl_permissive on; {TELL} }}"
    )));
    let address = ringwall.address("TLS");
    let mut plain = Connection::plain(address);
    for _ in 0..3 {
        assert_eq!(plain.get(HOST, "/").text(), "NONE,http,,");
    }
    let mut slow = Connection::plain(address);
    slow.send_pieces([&b"G"[..], b"ET / HTTP/1.1\r\nHost: ", b"x\r\n\r\n"]);
    assert_eq!(slow.response("GET").text(), "NONE,http,,");
    let response = TlsClient::with_identity(&pki.ca, &pki.client).get(address, HOST, "/");
    assert_eq!(
        response.expect("served").text(),
        "SUCCESS,https,on,CN=client.example"
    );
    let anonymous = TlsClient::new(&pki.ca).get(address, HOST, "/");
    assert!(
        anonymous.is_err(),
        "TLS without a certificate: {anonymous:?}"
    );
    let stranger = TlsClient::with_identity(&pki.ca, &pki.stranger).get(address, HOST, "/");
    assert!(stranger.is_err(), "TLS of a stranger: {stranger:?}");
}

#[test]
fn without_ssl_permissive_plaintext_is_refused() {
    for said in ["", "ssl_permissive off;"] {
        let (site, _pki) = Site::with_pki();
        let ringwall = site.start(&http(&format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; {CERTIFICATES} {said} {TELL} }}"
        )));
        let response = Connection::plain(ringwall.address("TLS")).get(HOST, "/");
        assert_eq!(response.status, 400, "{said}");
        assert!(response.text().contains("plain HTTP request"), "{said}");
    }
}

#[test]
fn plaintext_never_reaches_a_block_that_does_not_say_ssl_permissive_itself() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let pass = format!("location / {{ proxy_pass {}; }}", origin.url());
    let configuration = hosts(
        &site,
        &pki,
        &[
            ("open.example", "ssl_permissive on; return 200 open;"),
            ("strict.example", &format!("{MUTUAL} {pass}")),
            ("tls.example", &pass),
            (
                "both.example",
                &format!("{MUTUAL} ssl_permissive on; return 200 both;"),
            ),
        ],
    );
    let ringwall = site.start(&configuration);
    let address = ringwall.address("TLS");
    for host in [
        "strict.example",
        "STRICT.example",
        "strict.example.",
        "strict.example:443",
        "tls.example",
    ] {
        let mut plain = Connection::plain(address);
        // Also behind a request that was served.
        assert_eq!(plain.get("open.example", "/").text(), "open");
        assert_eq!(plain.get(host, "/").status, 400, "{host}");
    }
    let mut plain = Connection::plain(address);
    plain.send("GET http://strict.example/ HTTP/1.1\r\nHost: open.example\r\n\r\n");
    assert_eq!(plain.response("GET").status, 400, "an absolute target");
    assert_eq!(origin.connections(), 0, "no byte reaches the backend");
    let mut plain = Connection::plain(address);
    assert_eq!(plain.get("both.example", "/").text(), "both");
    assert_eq!(plain.get("unknown.example", "/").text(), "open");
    let response =
        TlsClient::with_identity(&pki.ca, &pki.client).get(address, "strict.example", "/");
    assert_eq!(response.expect("served").status, 200);
}

#[test]
fn the_default_server_decides_for_the_port() {
    let (site, pki) = Site::with_pki();
    let configuration = hosts(
        &site,
        &pki,
        &[
            ("first.example", "return 200 first;"),
            ("second.example", "ssl_permissive on; return 200 second;"),
        ],
    );
    let ringwall = site.start(&configuration);
    let response = Connection::plain(ringwall.address("TLS")).get("second.example", "/");
    assert_eq!(response.status, 400);
    ringwall.complaint_with(&[
        "[warn]",
        "\"ssl_permissive\" has no effect",
        "ringwall.conf:",
    ]);
}

#[test]
fn plaintext_meets_rules_and_required_certificates_like_anyone_without_one() {
    let origin = Origin::hello();
    let (site, _pki) = Site::with_pki();
    let pass = format!("proxy_pass {};", origin.url());
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         ssl_permissive on;\n\
         location /rules {{ ssl_client_allow all; {pass} }}\n\
         location /required {{ ssl_client_required on; {pass} }}\n\
         location /open {{ proxy_set_header X-Verify $ssl_client_verify; {pass} }} }}"
    )));
    let get = |path| Connection::plain(ringwall.address("TLS")).get(HOST, path);
    assert_eq!(get("/rules").status, 403);
    assert_eq!(get("/required").status, 400);
    assert_eq!(origin.connections(), 0, "no byte reaches the backend");
    let mut spoofing = Connection::plain(ringwall.address("TLS"));
    spoofing.send(format!(
        "GET /open HTTP/1.1\r\nHost: {HOST}\r\nX-Verify: SUCCESS\r\nx_verify: SUCCESS\r\n\r\n"
    ));
    assert_eq!(spoofing.response("GET").status, 200);
    let received = origin.all_received_text().to_ascii_lowercase();
    assert!(received.contains("x-verify: none\r\n"), "{received}");
    assert!(!received.contains("success"), "{received}");
}

#[test]
fn a_reload_ends_plaintext_where_it_ends_permissive() {
    let site_of = |said: &str| {
        http(&format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES}\n\
             {said} return 200 \"in $ssl_client_verify\"; }}"
        ))
    };
    let (site, _pki) = Site::with_pki();
    let mut ringwall = site.start(&site_of("ssl_permissive on; server_tokens on;"));
    let address = ringwall.address("TLS");
    let mut live = Connection::plain(address);
    assert_eq!(live.get(HOST, "/").text(), "in NONE");
    ringwall.rewrite(&site_of("ssl_permissive on; server_tokens off;"));
    ringwall.reload();
    eventually("the live connection follows a reload", || {
        let response = live.get(HOST, "/");
        assert_eq!(response.text(), "in NONE");
        (response.header("server") == Some("ringwall")).then_some(())
    });
    ringwall.rewrite(&site_of(""));
    ringwall.reload();
    eventually("the live connection is closed", || {
        live.try_get(HOST, "/").is_err().then_some(())
    });
    assert_eq!(Connection::plain(address).get(HOST, "/").status, 400);
}
