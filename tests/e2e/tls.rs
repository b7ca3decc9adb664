//! Identity is proven, not asserted: who gets past TLS, with which
//! certificate, protocol and session, and what happens to everyone else.

use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion};

use crate::support::client::{Connection, TlsClient, Trust, tcp};
use crate::support::origin::Origin;
use crate::support::pki::{Authority, Identity, OpenSsl, Pki};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http, mutual_proxy};
use crate::support::tools;
use crate::support::{eventually, find};

/// A mutual-TLS proxy with its backend.
fn mutual() -> (Ringwall, Pki, Origin) {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()));
    (ringwall, pki, origin)
}

/// Servers on one TLS port: (`server_name`, more directives).
pub(crate) fn hosts(site: &Site, pki: &Pki, servers: &[(&str, &str)]) -> String {
    let blocks: String = servers
        .iter()
        .map(|(name, more)| {
            pki.ca.server(&[name]).write(site.path(), name);
            format!(
                "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {name};\n\
                 ssl_certificate @DIR@/{name}.crt; ssl_certificate_key @DIR@/{name}.key;\n\
                 {more} }}\n"
            )
        })
        .collect();
    http(&blocks)
}

#[test]
fn only_a_certificate_of_the_configured_ca_gets_through() {
    let (ringwall, pki, origin) = mutual();
    let address = ringwall.address("TLS");
    let future = time::OffsetDateTime::now_utc() + time::Duration::days(30);
    let past = time::OffsetDateTime::now_utc() - time::Duration::days(30);
    let expired = pki
        .ca
        .client_with("expired.example", |p| p.not_after = past);
    let early = pki
        .ca
        .client_with("early.example", |p| p.not_before = future);
    let server_only = pki.ca.client_with("server-only.example", |p| {
        p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    // The same subject as the real CA, another key.
    let forged = Authority::new("Test CA").client("client.example");
    // A stranger with someone's real certificate stuffed into the chain.
    let stuffed = Identity {
        certificate_pem: pki.stranger.certificate_pem.clone() + &pki.client.certificate_pem,
        key_pem: pki.stranger.key_pem.clone(),
    };
    let refused: [(&str, Option<&Identity>); 7] = [
        ("no certificate", None),
        ("another CA", Some(&pki.stranger)),
        ("expired", Some(&expired)),
        ("not yet valid", Some(&early)),
        ("an EKU without clientAuth", Some(&server_only)),
        ("a CA of the same name", Some(&forged)),
        ("a stuffed chain", Some(&stuffed)),
    ];
    for (name, identity) in refused {
        for version in [&TLS13, &TLS12] {
            let client = TlsClient::build(Trust::Ca(&pki.ca), identity, &[version]);
            let outcome = client.get(address, HOST, "/");
            assert!(outcome.is_err(), "{name} over {version:?}: {outcome:?}");
        }
    }
    assert_eq!(origin.connections(), 0, "no byte reaches the backend");
    for version in [&TLS13, &TLS12] {
        let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[version]);
        let response = client.get(address, HOST, "/").expect("a response");
        assert_eq!(response.text(), "hello");
    }
}

#[test]
fn a_refusal_is_logged_with_address_name_subject_and_reason() {
    let (ringwall, pki, _origin) = mutual();
    let address = ringwall.address("TLS");
    let past = time::OffsetDateTime::now_utc() - time::Duration::days(30);
    let expired = pki.ca.client_with("late.example", |p| p.not_after = past);
    let _ = TlsClient::new(&pki.ca).get(address, HOST, "/");
    let _ = TlsClient::with_identity(&pki.ca, &pki.stranger).get(address, HOST, "/");
    let _ = TlsClient::with_identity(&pki.ca, &expired).get(address, HOST, "/");
    let line = ringwall.complaint_with(&["client: 127.0.0.1", "stranger.example"]);
    assert!(line.contains(HOST), "{line}");
    let line = ringwall.complaint_with(&["client: 127.0.0.1", "late.example"]);
    assert!(
        line.contains(HOST) && line.to_lowercase().contains("expired"),
        "{line}"
    );
    eventually("the missing certificate is logged", || {
        ringwall
            .complaints()
            .lines()
            .any(|line| {
                line.contains("client: 127.0.0.1")
                    && line.contains(HOST)
                    && line.contains("certificate")
                    && !line.contains("CN=")
            })
            .then_some(())
    });
}

#[test]
fn the_identity_is_the_verified_leafs_and_no_other_certificates() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()).replace(
        "location / {",
        "location / { proxy_set_header X-Dn $ssl_client_s_dn;",
    ));
    let other = pki.ca.client("admin.example");
    let stuffed = Identity {
        certificate_pem: pki.client.certificate_pem.clone() + &other.certificate_pem,
        key_pem: pki.client.key_pem.clone(),
    };
    let response =
        TlsClient::with_identity(&pki.ca, &stuffed).get(ringwall.address("TLS"), HOST, "/");
    assert!(find(&origin.all_received(), b"admin").is_none());
    if response.is_ok() {
        assert!(find(&origin.all_received(), b"X-Dn: CN=client.example").is_some());
    }
}

#[test]
fn a_distinguished_name_cannot_break_out_of_its_header() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()).replace(
        "location / {",
        "location / { proxy_set_header X-Dn $ssl_client_s_dn;",
    ));
    for name in [
        "evil\r\nX-Admin: yes",
        "a,CN=admin",
        "caf\u{e9} \u{1F980}",
        "quote\"plus+less<",
        " space ",
        "#hash",
    ] {
        let identity = pki.ca.client(name);
        let response = TlsClient::with_identity(&pki.ca, &identity)
            .get(ringwall.address("TLS"), HOST, "/")
            .expect("a valid certificate");
        assert_eq!(response.status, 200, "{name:?}");
    }
    let received = origin.all_received_text();
    assert!(!received.contains("\nX-Admin"), "{received}");
    assert!(
        received.contains("X-Dn: CN=a\\,CN\\=admin") || received.contains("X-Dn: CN=a\\,CN=admin"),
        "{received}"
    );
    let values = received.lines().filter(|line| line.starts_with("X-Dn: "));
    for value in values {
        assert!(
            value.bytes().all(|b| (0x20..0x7f).contains(&b)),
            "{value:?}"
        );
    }
}

#[test]
fn sni_selects_the_certificate_and_an_unknown_name_gets_the_default() {
    let (site, pki) = Site::with_pki();
    let configuration = hosts(
        &site,
        &pki,
        &[
            ("first.example", "return 200 first;"),
            ("second.example", "return 200 second;"),
            ("*.wild.example", "return 200 wild;"),
        ],
    );
    let ringwall = site.start(&configuration);
    let client = TlsClient::trusting(None);
    for (name, stem) in [
        ("first.example", "first.example"),
        ("second.example", "second.example"),
        ("a.wild.example", "*.wild.example"),
        ("unknown.example", "first.example"),
        // No SNI at all.
        ("127.0.0.1", "first.example"),
    ] {
        let connection = client
            .connect(ringwall.address("TLS"), name)
            .expect("a handshake");
        let expected = Identity::read(ringwall.site.path(), stem).chain();
        assert_eq!(connection.server_certificate(), expected[0], "{name}");
    }
}

#[test]
fn sni_is_read_whatever_its_case() {
    let (site, pki) = Site::with_pki();
    let configuration = hosts(
        &site,
        &pki,
        &[
            ("first.example", "return 200 first;"),
            ("second.example", "return 200 second;"),
        ],
    );
    let ringwall = site.start(&configuration);
    let port = ringwall.address("TLS").port();
    // rustls writes names in lower case; openssl as it is told.
    let output = tools::shell(
        ringwall.site.path(),
        &format!(
            "openssl s_client -connect 127.0.0.1:{port} -servername SECOND.Example </dev/null | openssl x509 -noout -subject"
        ),
    );
    assert!(output.stdout.contains("second.example"), "{output:?}");
}

#[test]
fn host_and_sni_that_differ_in_policy_are_answered_421() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let pass = format!("location / {{ proxy_pass {}; }}", origin.url());
    let configuration = hosts(
        &site,
        &pki,
        &[
            ("open.example", &pass),
            ("also-open.example", &pass),
            ("strict.example", &format!("{MUTUAL} {pass}")),
        ],
    );
    let ringwall = site.start(&configuration);
    let address = ringwall.address("TLS");
    let client = TlsClient::new(&pki.ca);
    for host in [
        "strict.example",
        "STRICT.example",
        "strict.example.",
        "strict.example:443",
    ] {
        let mut connection = client
            .connect(address, "open.example")
            .expect("a handshake");
        assert_eq!(connection.get(host, "/").status, 421, "{host}");
    }
    let mut connection = client
        .connect(address, "open.example")
        .expect("a handshake");
    connection.send("GET https://strict.example/ HTTP/1.1\r\nHost: open.example\r\n\r\n");
    assert_eq!(connection.response("GET").status, 421, "an absolute target");

    let mut connection = TlsClient::trusting(None)
        .connect(address, "127.0.0.1")
        .expect("a handshake without SNI");
    assert_eq!(connection.get("strict.example", "/").status, 421, "no SNI");
    assert_eq!(origin.connections(), 0, "no byte reaches the backend");

    let mut connection = client
        .connect(address, "open.example")
        .expect("a handshake");
    assert_eq!(connection.get("also-open.example", "/").status, 200);

    let mut connection = TlsClient::with_identity(&pki.ca, &pki.client)
        .connect(address, "strict.example")
        .expect("a handshake");
    assert_eq!(connection.get("strict.example", "/").status, 200);
    assert_eq!(
        connection.get("open.example", "/").status,
        421,
        "a weaker policy differs too"
    );
}

#[test]
fn a_fragmented_client_hello_selects_the_same_policy() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let pass = format!("location / {{ proxy_pass {}; }}", origin.url());
    let configuration = hosts(
        &site,
        &pki,
        &[
            ("open.example", &pass),
            ("strict.example", &format!("{MUTUAL} {pass}")),
        ],
    );
    let ringwall = site.start(&configuration);
    let address = ringwall.address("TLS");
    let client = TlsClient::new(&pki.ca).in_fragments();
    assert!(client.get(address, "strict.example", "/").is_err());
    assert_eq!(origin.connections(), 0);
    assert_eq!(
        client
            .get(address, "open.example", "/")
            .expect("served")
            .status,
        200
    );
    let client = TlsClient::with_identity(&pki.ca, &pki.client).in_fragments();
    assert_eq!(
        client
            .get(address, "strict.example", "/")
            .expect("served")
            .status,
        200
    );
}

#[test]
fn a_client_hello_in_single_bytes_is_understood() {
    let (ringwall, pki, _origin) = mutual();
    let stream = tcp(ringwall.address("TLS")).expect("it listens");
    let mut connection = Connection::over(stream.try_clone().expect("a second handle"));
    let hello = TlsClient::new(&pki.ca).client_hello(HOST);
    connection.send_pieces(hello.chunks(hello.len() / 64 + 1));
    let answer = connection.some().expect("an answer");
    assert_eq!(answer[..3], [22, 3, 3], "a handshake record: {answer:?}");
}

#[test]
fn ssl_protocols_and_ssl_ciphers_are_kept_to() {
    let (site, pki) = Site::with_pki();
    let configuration = hosts(
        &site,
        &pki,
        &[
            (
                "old.example",
                "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384; return 200 $ssl_cipher;",
            ),
            (
                "new.example",
                "ssl_protocols TLSv1.3; return 200 $ssl_protocol;",
            ),
            (
                "both.example",
                "ssl_ciphers ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256;\n\
                 ssl_prefer_server_ciphers on; return 200 $ssl_cipher;",
            ),
        ],
    );
    let ringwall = site.start(&configuration);
    let address = ringwall.address("TLS");
    let client = |version| TlsClient::build(Trust::Ca(&pki.ca), None, &[version]);
    assert!(client(&TLS13).get(address, "old.example", "/").is_err());
    assert!(client(&TLS12).get(address, "new.example", "/").is_err());
    let mut connection = client(&TLS12)
        .connect(address, "old.example")
        .expect("a handshake");
    assert_eq!(
        connection.suite(),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
    );
    assert_eq!(
        connection.get("old.example", "/").text(),
        "ECDHE-ECDSA-AES256-GCM-SHA384"
    );
    let mut connection = client(&TLS13)
        .connect(address, "new.example")
        .expect("a handshake");
    assert_eq!(connection.version(), ProtocolVersion::TLSv1_3);
    assert_eq!(connection.get("new.example", "/").text(), "TLSv1.3");
    let connection = client(&TLS12)
        .connect(address, "both.example")
        .expect("a handshake");
    assert_eq!(
        connection.suite(),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    );
}

#[test]
fn tls_1_1_is_refused_with_an_alert() {
    let (ringwall, _pki, origin) = mutual();
    let port = ringwall.address("TLS").port();
    for version in ["-tls1_1", "-tls1"] {
        let output = tools::shell(
            ringwall.site.path(),
            &format!(
                "openssl s_client -connect 127.0.0.1:{port} -servername {HOST} {version} \
                 -cipher DEFAULT@SECLEVEL=0 -cert client.crt -key client.key </dev/null"
            ),
        );
        assert!(!output.ok(), "{output:?}");
        assert!(output.stderr.contains("SSL alert number"), "{output:?}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let (ringwall, _pki, origin) = mutual();
    let mut client = Connection::plain(ringwall.address("TLS"));
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let response = client.response("GET");
    assert_eq!(response.status, 400);
    assert!(
        response
            .text()
            .contains("The plain HTTP request was sent to HTTPS port"),
        "{}",
        response.text()
    );
    client.expect_close("behind the refusal");
    assert_eq!(origin.connections(), 0);
    ringwall.complaint_with(&[
        "client sent plain HTTP request to HTTPS port",
        "client: 127.0.0.1",
    ]);
}

#[test]
fn garbage_on_the_tls_port_ends_that_connection_alone() {
    let (ringwall, pki, origin) = mutual();
    let hello = TlsClient::new(&pki.ca).client_hello(HOST);
    let mut flipped = hello.clone();
    flipped[9] ^= 0xff;
    let garbage: &[&[u8]] = &[
        b"\0",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x17\x03\x03\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x80\x2e\x01\x00\x02",
        &[0xff; 4000],
        &flipped,
    ];
    for bytes in garbage {
        let mut client = Connection::plain(ringwall.address("TLS"));
        client.send(bytes);
        client.finish_sending();
        client.remains();
        let mut client = Connection::plain(ringwall.address("TLS"));
        client.send([&hello, *bytes].concat());
        client.finish_sending();
        client.remains();
    }
    assert_eq!(origin.connections(), 0);
    let response = TlsClient::with_identity(&pki.ca, &pki.client)
        .get(ringwall.address("TLS"), HOST, "/")
        .expect("served");
    assert_eq!(response.text(), "hello");
}

#[test]
fn optional_verification_asks_and_says_what_it_found() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let configuration = mutual_proxy(&origin.url())
        .replace("ssl_verify_client on", "ssl_verify_client optional")
        .replace(
            "location / {",
            "location / { proxy_set_header X-Verify \"$ssl_client_verify,$ssl_client_s_dn\";",
        );
    let ringwall = site.start(&configuration);
    let address = ringwall.address("TLS");
    assert_eq!(
        TlsClient::new(&pki.ca)
            .get(address, HOST, "/")
            .expect("served")
            .status,
        200
    );
    assert!(find(&origin.all_received(), b"X-Verify: NONE,\r\n").is_some());
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    assert_eq!(client.get(address, HOST, "/").expect("served").status, 200);
    assert!(
        find(
            &origin.all_received(),
            b"X-Verify: SUCCESS,CN=client.example\r\n"
        )
        .is_some()
    );
    let client = TlsClient::with_identity(&pki.ca, &pki.stranger);
    assert!(client.get(address, HOST, "/").is_err());
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_v1_certificate_is_good_as_a_leaf_and_for_nothing_else() {
    let origin = Origin::hello();
    let site = Site::new();
    let openssl = OpenSsl::in_dir(site.path());
    openssl.authority("ca", "TestCA");
    openssl.leaf("server", HOST, "ca");
    openssl.leaf("client", "client.example", "ca");
    // A v1 "CA" below the real one, and a leaf below that.
    openssl.leaf("middle", "middle.example", "ca");
    openssl.leaf("deep", "deep.example", "middle");
    let ringwall = site.start(
        &mutual_proxy(&origin.url()).replace(MUTUAL, &format!("{MUTUAL} ssl_verify_depth 5;")),
    );
    let dir = ringwall.site.path();
    let client = Identity::read(dir, "client");
    let middle = Identity::read(dir, "middle");
    let deep = Identity::read(dir, "deep");
    let deep = Identity {
        certificate_pem: deep.certificate_pem + &middle.certificate_pem,
        key_pem: deep.key_pem,
    };
    let address = ringwall.address("TLS");
    for version in [&TLS13, &TLS12] {
        let with = |identity| TlsClient::build(Trust::Anyone, Some(identity), &[version]);
        assert!(with(&deep).get(address, HOST, "/").is_err(), "{version:?}");
        assert_eq!(origin.connections(), 0);
    }
    for version in [&TLS13, &TLS12] {
        let with = |identity| TlsClient::build(Trust::Anyone, Some(identity), &[version]);
        let response = with(&client)
            .get(address, HOST, "/")
            .expect("a v1 leaf is welcome");
        assert_eq!(response.text(), "hello");
    }
}

#[test]
fn the_end_of_a_connection_is_signed() {
    let (ringwall, pki, _origin) = mutual();
    let mut client = TlsClient::with_identity(&pki.ca, &pki.client)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(client.response("GET").text(), "hello");
    // rustls reports an end without close_notify as an error.
    assert!(client.until_close().expect("a close_notify").is_empty());
}

#[test]
fn a_tls_port_and_a_plain_port_serve_side_by_side() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; listen 127.0.0.1:@HTTP@; server_name {HOST};\n\
         {CERTIFICATES} return 200 \"$scheme $https\"; }}"
    )));
    let mut plain = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(plain.get(HOST, "/").text(), "http ");
    let response = TlsClient::new(&pki.ca).get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(response.expect("served").text(), "https on");
}

#[test]
fn ssl_verify_depth_counts_the_intermediates() {
    for (depth, one, two) in [(0, false, false), (1, true, false), (2, true, true)] {
        let (site, pki) = Site::with_pki();
        let ringwall = site.start(&http(&format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
             {CERTIFICATES} {MUTUAL} ssl_verify_depth {depth}; return 200 x; }}"
        )));
        let first = pki.ca.intermediate("First");
        let second = first.intermediate("Second");
        let below = |issuer: &Authority, chain: &[&Authority]| {
            let mut leaf = issuer.client("deep.example");
            for above in chain {
                leaf.certificate_pem += &above.pem();
            }
            leaf
        };
        for (identity, expected) in [
            (pki.client.clone(), true),
            (below(&first, &[&first]), one),
            (below(&second, &[&second, &first]), two),
        ] {
            let client =
                TlsClient::build(Trust::Ca(&pki.ca), Some(&identity), &[&TLS12]).without_sessions();
            let outcome = client.get(ringwall.address("TLS"), HOST, "/");
            let served = outcome
                .as_ref()
                .is_ok_and(|response| response.status == 200);
            assert_eq!(served, expected, "depth {depth}: {outcome:?}");
        }
    }
}

#[test]
fn what_is_broken_by_design_is_not_offered() {
    let site = Site::new();
    let openssl = OpenSsl::in_dir(site.path());
    openssl.authority("ca", "TestCA");
    openssl.leaf("server", HOST, "ca");
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} return 200 x; }}"
    )));
    let port = ringwall.address("TLS").port();
    for (name, options) in [
        ("RSA key exchange", "-tls1_2 -cipher kRSA"),
        ("FFDHE", "-tls1_2 -cipher kDHE"),
        ("no authentication", "-tls1_2 -cipher aNULL@SECLEVEL=0"),
        ("3DES", "-tls1_2 -cipher 3DES@SECLEVEL=0"),
        ("CBC", "-tls1_2 -cipher ECDHE-RSA-AES128-SHA"),
        ("TLS 1.3 over FFDHE alone", "-tls1_3 -groups ffdhe2048"),
    ] {
        let outcome = tools::shell(
            ringwall.site.path(),
            &format!(
                "openssl s_client -connect 127.0.0.1:{port} -servername {HOST} {options} </dev/null"
            ),
        );
        assert!(!outcome.ok(), "{name}: {outcome:?}");
    }
    let outcome = tools::shell(
        ringwall.site.path(),
        &format!(
            "(printf 'GET / HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | \
             openssl s_client -connect 127.0.0.1:{port} -servername {HOST} -tls1_3 -ign_eof"
        ),
    );
    assert!(outcome.stdout.contains("Max Early Data: 0"), "{outcome:?}");
    assert!(outcome.stdout.contains("Compression: NONE"), "{outcome:?}");
}

#[test]
fn a_client_that_was_idle_for_long_is_served_as_before() {
    let (ringwall, pki, _origin) = mutual();
    let address = ringwall.address("TLS");
    let mut clients = [&TLS13, &TLS12].map(|version| {
        let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[version]);
        let mut connection = client.connect(address, HOST).unwrap();
        assert_eq!(connection.get(HOST, "/").status, 200);
        connection
    });
    // Longer than it takes until buffers and keys are given up.
    std::thread::sleep(std::time::Duration::from_millis(2_400));
    for connection in &mut clients {
        assert_eq!(connection.get(HOST, "/").status, 200);
    }
}
