//! TLS to backends: who ringwall is to them, who they must be, and that no
//! connection made for one is used for another. The backends are other
//! people's: Debian's Nginx and `openssl s_server`.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::Connection;
use crate::support::origin::{Origin, ok};
use crate::support::pki::{Authority, OpenSsl, Pki};
use crate::support::ringwall::{HOST, Ringwall, Site, binary, http, is_listening, whole};
use crate::support::tools::{self, Background};
use crate::support::{eventually, local};

/// What Nginx tells of each connection, as the answer's text.
const REPORT: &str =
    "$ssl_client_s_dn $ssl_session_reused $ssl_protocol $ssl_server_name $http_host";

/// Debian's Nginx as a TLS backend at `@UP@`, with these lines in its server.
fn nginx(site: &mut Site, lines: &str) -> Background {
    // Debian's own default stops at TLS 1.2.
    let protocols = if lines.contains("ssl_protocols") {
        ""
    } else {
        "ssl_protocols TLSv1.2 TLSv1.3;"
    };
    let configuration = format!(
        "daemon off; master_process off; pid @DIR@/up.pid; error_log @DIR@/up.log info;\n\
         events {{ }}\n\
         http {{\n\
         log_format report '$connection $connection_requests $ssl_session_reused $request';\n\
         access_log @DIR@/up-access.log report;\n\
         client_body_temp_path @DIR@/t1; proxy_temp_path @DIR@/t2; fastcgi_temp_path @DIR@/t3;\n\
         uwsgi_temp_path @DIR@/t4; scgi_temp_path @DIR@/t5;\n\
         keepalive_requests 100000; client_max_body_size 0;\n\
         ssl_session_cache shared:s:1m; {protocols}\n\
         server {{ listen 127.0.0.1:@UP@ ssl;\n\
         ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;\n\
         ssl_client_certificate @DIR@/ca.crt; root @DIR@;\n\
         {lines}\n\
         location / {{ default_type text/plain; return 200 '{REPORT}'; }}\n\
         location /files/ {{ dav_methods PUT; client_max_body_size 0; }} }}\n\
         }}\n"
    );
    let path = site.write("nginx.conf", &configuration);
    let dir = site.path().display().to_string();
    let path = path.display().to_string();
    let running = Background::start(
        site.path(),
        "nginx",
        &["-p", &dir, "-e", &format!("{dir}/up.log"), "-c", &path],
    );
    let port = site.port("UP");
    eventually("nginx listens", || is_listening(port).then_some(()));
    running
}

/// A plain server at `@HTTP@` whose backend is `@UP@`, with these lines.
fn egress(lines: &str) -> String {
    http(&format!(
        "log_format tls '$status $upstream_ssl_protocol $upstream_ssl_cipher \
         $upstream_ssl_session_reused';\n\
         access_log @DIR@/access.log tls;\n\
         server {{ listen 127.0.0.1:@HTTP@; client_max_body_size 0;\n\
         location / {{ proxy_pass https://127.0.0.1:@UP@; {lines} }} }}"
    ))
    .replacen("access_log @DIR@/access.log;", "", 1)
}

/// Shows the client's certificate and verifies the backend as [`HOST`].
const MUTUAL: &str = "proxy_ssl_certificate @DIR@/client.crt; \
     proxy_ssl_certificate_key @DIR@/client.key; \
     proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_verify on; \
     proxy_ssl_name test.example; proxy_ssl_server_name on;";

fn client(ringwall: &Ringwall) -> Connection {
    Connection::plain(ringwall.address("HTTP"))
}

#[test]
fn the_backend_sees_the_configured_certificate_name_and_version() {
    let (mut site, _pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let port = site.port("UP");
    let ringwall = site.start(&egress(MUTUAL));
    let mut client = client(&ringwall);
    for _ in 0..3 {
        let response = client.get("a", "/");
        assert_eq!(
            response.text(),
            format!("CN=client.example . TLSv1.3 {HOST} 127.0.0.1:{port}")
        );
    }
    ringwall.access_with(&["200 TLSv1.3 TLS_AES_256_GCM_SHA384 ."]);
}

#[test]
fn a_wrong_or_missing_client_certificate_is_the_backends_refusal() {
    let (mut site, _pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let ringwall = site.start(&egress(
        &MUTUAL
            .replace("client.crt", "stranger.crt")
            .replace("client.key", "stranger.key"),
    ));
    // Nginx ends the handshake and answers by HTTP.
    let response = client(&ringwall).get("a", "/");
    assert_eq!(response.status, 400);
    assert!(
        response.text().contains("SSL certificate error"),
        "{}",
        response.text()
    );
    drop(ringwall);

    let (mut site, _pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let ringwall = site.start(&egress(""));
    let response = client(&ringwall).get("a", "/");
    assert!(
        response.text().contains("No required SSL certificate"),
        "{}",
        response.text()
    );
}

#[test]
fn an_alert_about_the_client_certificate_is_a_502_that_names_it() {
    for version in ["-tls1_3", "-tls1_2"] {
        let (mut site, _pki) = Site::with_pki();
        let port = site.port("UP");
        let _server = s_server(
            &mut site,
            &format!("-Verify 2 -verify_return_error -CAfile ca.crt {version}"),
        );
        let ringwall = site.start(&egress(
            &MUTUAL
                .replace("client.crt", "stranger.crt")
                .replace("client.key", "stranger.key"),
        ));
        assert_eq!(client(&ringwall).get("a", "/").status, 502, "{version}");
        ringwall.complaint_with(&[
            "alert",
            "client certificate: \"",
            "stranger.crt\" (CN=stranger.example)",
            &format!("upstream: \"https://127.0.0.1:{port}/\""),
        ]);
    }
}

/// `openssl s_server -www` at `@UP@`.
fn s_server(site: &mut Site, arguments: &str) -> Background {
    let port = site.port("UP");
    let line = format!(
        "s_server -accept 127.0.0.1:{port} -cert server.crt -key server.key -www {arguments}"
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    let running = Background::start(site.path(), "openssl", &words);
    eventually("s_server listens", || is_listening(port).then_some(()));
    running
}

#[test]
fn openssl_s_server_that_demands_a_certificate_is_served() {
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let (mut site, _pki) = Site::with_pki();
        let _server = s_server(
            &mut site,
            &format!("-Verify 2 -verify_return_error -CAfile ca.crt {version}"),
        );
        let ringwall = site.start(&egress(&format!("{MUTUAL} proxy_ssl_session_reuse on;")));
        for expected in ["New, ", "Reused, "] {
            // It answers one request a connection, without length, and ends it
            // with close_notify.
            let response = client(&ringwall).get("a", "/");
            let text = response.text();
            assert_eq!(response.status, 200, "{text}");
            assert!(text.contains(&format!("{expected}{name}")), "{text}");
            assert!(text.contains("client.example"), "{text}");
        }
        ringwall.access_with(&["200", name, " r"]);
    }
}

#[test]
fn a_backend_is_verified_by_chain_and_name() {
    let (mut site, pki) = Site::with_pki();
    fs::write(site.file("other.crt"), Authority::new("Other CA").pem()).expect("writable");
    let _nginx = nginx(&mut site, "");
    let _ = pki;
    let block = |name: &str, lines: &str| {
        format!(
            "location /{name} {{ proxy_pass https://127.0.0.1:@UP@/; proxy_ssl_verify on; {lines} }}\n"
        )
    };
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@;\n{}{}{}{} }}",
        block(
            "good",
            "proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_name test.example:1;"
        ),
        block(
            "wrong-ca",
            "proxy_ssl_trusted_certificate @DIR@/other.crt; proxy_ssl_name test.example;"
        ),
        block(
            "wrong-name",
            "proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_name else.example;"
        ),
        block(
            "system",
            "proxy_ssl_trusted_certificate system; proxy_ssl_name test.example;"
        ),
    )));
    let mut client = client(&ringwall);
    assert_eq!(client.get("a", "/good").status, 200);
    for (path, words) in [
        (
            "/wrong-ca",
            "upstream SSL certificate verify error: (21:unable to verify the first certificate)",
        ),
        (
            "/wrong-name",
            "upstream SSL certificate does not match \"else.example\", it names \"test.example\"",
        ),
        ("/system", "upstream SSL certificate verify error: ("),
    ] {
        assert_eq!(client.get("a", path).status, 502, "{path}");
        ringwall.complaint_with(&[words, "while SSL handshaking to upstream"]);
    }
}

#[test]
fn an_expired_backend_is_refused_and_one_that_is_not_verified_is_believed_with_a_warning() {
    let (mut site, _pki) = Site::with_pki();
    let openssl = OpenSsl::in_dir(site.path());
    openssl.authority("ca", "Root");
    openssl.run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key");
    openssl.run("req -new -key server.key -out server.csr -subj /CN=test.example");
    openssl.run(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days -1",
    );
    let _nginx = nginx(&mut site, "");
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@HTTP@;\n\
         location /verified { proxy_pass https://127.0.0.1:@UP@/; proxy_ssl_verify on;\n\
         proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_name test.example; }\n\
         location /believed { proxy_pass https://127.0.0.1:@UP@/; } }",
    ));
    let mut client = client(&ringwall);
    assert_eq!(client.get("a", "/verified").status, 502);
    ringwall.complaint_with(&[
        "(10:certificate has expired)",
        "subject: \"CN=test.example\"",
    ]);
    assert_eq!(client.get("a", "/believed").status, 200);
    let warnings = ringwall
        .complaints()
        .matches("\"proxy_ssl_verify\" is off")
        .count();
    // On standard error and in the log, once each.
    assert_eq!(warnings, 2, "{}", ringwall.complaints());
}

#[test]
fn a_version_1_certificate_with_a_common_name_is_verified_as_openssl_does() {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let (mut site, _pki) = Site::with_pki();
        let openssl = OpenSsl::in_dir(site.path());
        openssl.authority("ca", "Root");
        openssl.leaf("server", HOST, "ca");
        let _nginx = nginx(&mut site, &format!("ssl_protocols {version};"));
        let ringwall = site.start(&http(
            "server { listen 127.0.0.1:@HTTP@; proxy_ssl_verify on;\n\
             proxy_ssl_trusted_certificate @DIR@/ca.crt;\n\
             location /right { proxy_pass https://127.0.0.1:@UP@/; proxy_ssl_name test.example; }\n\
             location /wrong { proxy_pass https://127.0.0.1:@UP@/; proxy_ssl_name best.example; } }",
        ));
        let mut client = client(&ringwall);
        assert_eq!(client.get("a", "/right").status, 200, "{version}");
        assert_eq!(client.get("a", "/wrong").status, 502, "{version}");
        ringwall.complaint_with(&["does not match \"best.example\", it names \"test.example\""]);
    }
}

#[test]
fn tls_1_2_alone_is_spoken_to_who_knows_no_other() {
    let (mut site, _pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on; ssl_protocols TLSv1.2;");
    let ringwall = site.start(&egress(MUTUAL));
    let response = client(&ringwall).get("a", "/");
    assert!(
        response.text().starts_with("CN=client.example . TLSv1.2"),
        "{}",
        response.text()
    );
}

#[test]
fn a_thousand_calls_take_few_connections_and_sessions_are_resumed_for_the_rest() {
    let (mut site, _pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let ringwall = site.start(&egress(MUTUAL));
    let mut one = client(&ringwall);
    for _ in 0..1000 {
        assert_eq!(one.get("a", "/").status, 200);
    }
    let connections: std::collections::BTreeSet<String> = ringwall
        .site
        .read("up-access.log")
        .lines()
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect();
    // `keepalive_requests` of an upstream is 1000 by default.
    assert!(connections.len() <= 2, "{connections:?}");
    // A second one at the same time: a new connection with a resumed session.
    let mut clients: Vec<Connection> = (0..8).map(|_| client(&ringwall)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let reused = clients
        .iter_mut()
        .map(|client| client.response("GET").text())
        .filter(|text| text.contains("client.example r "))
        .count();
    assert!(reused > 0, "no session was resumed");
}

#[test]
fn a_pooled_connection_never_serves_another_identity() {
    let (mut site, pki) = Site::with_pki();
    pki.ca.client("other.example").write(site.path(), "other");
    let _nginx = nginx(&mut site, "ssl_verify_client optional;");
    let block = |name: &str, lines: &str| {
        format!("location /{name} {{ proxy_pass https://up/; {lines} }}\n")
    };
    let ringwall = site.start(&http(&format!(
        "upstream up {{ server 127.0.0.1:@UP@; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; proxy_ssl_server_name on; proxy_ssl_name test.example;\n{}{}{}{}{} }}",
        block("client", "proxy_ssl_certificate @DIR@/client.crt; proxy_ssl_certificate_key @DIR@/client.key;"),
        block("other", "proxy_ssl_certificate @DIR@/other.crt; proxy_ssl_certificate_key @DIR@/other.key;"),
        block("nobody", ""),
        block("name", "proxy_ssl_name $arg_name;"),
        block("verified", "proxy_ssl_verify on; proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_name wrong.example;"),
    )));
    let mut client = client(&ringwall);
    for _ in 0..3 {
        for (path, expected) in [
            ("/client", "CN=client.example"),
            ("/other", "CN=other.example"),
            ("/nobody", ""),
        ] {
            let text = client.get("a", path).text();
            assert_eq!(text.split(' ').next(), Some(expected), "{path}: {text}");
        }
        for name in ["one.example", "two.example"] {
            let text = client.get("a", &format!("/name?name={name}")).text();
            assert!(text.contains(name), "{text}");
        }
        // Connections that were not verified are idle and would answer.
        assert_eq!(client.get("a", "/verified").status, 502);
    }
    // One connection for each, kept for it.
    let connections: std::collections::BTreeSet<String> = ringwall
        .site
        .read("up-access.log")
        .lines()
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect();
    assert_eq!(connections.len(), 5, "{connections:?}");
}

#[test]
fn bytes_before_the_upstreams_tls_handshake_are_an_error() {
    let origin = Origin::script(|peer| {
        peer.send(&ok("forged"))?;
        peer.head()?;
        Ok(())
    });
    let mut site = Site::new();
    let _ = site.port("UP");
    let ringwall = site.start(&egress("").replace("127.0.0.1:@UP@", &origin.address()));
    let response = client(&ringwall).get("a", "/");
    assert_eq!(response.status, 502);
    assert!(!response.text().contains("forged"));
    ringwall.complaint_with(&["while SSL handshaking to upstream"]);
}

#[test]
fn a_backend_that_does_not_finish_its_handshake_ends_at_proxy_connect_timeout() {
    let origin = Origin::script(|peer| {
        // Swallows the ClientHello and says nothing.
        peer.drain()
    });
    let ringwall = Site::new()
        .start(&egress("proxy_connect_timeout 1s;").replace("127.0.0.1:@UP@", &origin.address()));
    assert_eq!(client(&ringwall).get("a", "/").status, 504);
    ringwall.complaint_with(&["upstream timed out", "while SSL handshaking to upstream"]);
}

#[test]
fn a_backend_that_restarts_is_found_again() {
    let (mut site, _pki) = Site::with_pki();
    let first = nginx(&mut site, "ssl_verify_client on;");
    let mut ringwall = site.start(&egress(MUTUAL));
    let mut one = client(&ringwall);
    assert_eq!(one.get("a", "/").status, 200);
    drop(first);
    assert_eq!(one.get("a", "/").status, 502);
    let _second = nginx(&mut ringwall.site, "ssl_verify_client on;");
    for _ in 0..3 {
        assert_eq!(one.get("a", "/").status, 200);
    }
}

#[test]
fn a_hundred_mebibytes_come_and_go_unharmed() {
    let (mut site, _pki) = Site::with_pki();
    let big = crate::support::patterned(100 << 20);
    fs::create_dir(site.file("files")).expect("writable");
    fs::write(site.file("files/big"), &big).expect("writable");
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let ringwall = site.start(&egress(MUTUAL));
    let response = client(&ringwall).get("a", "/files/big");
    assert_eq!(response.status, 200);
    assert!(response.body == big, "{} bytes", response.body.len());
    let mut one = client(&ringwall);
    let length = big.len();
    one.send(format!(
        "PUT /files/new HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    one.send(&big[..]);
    assert_eq!(one.response("PUT").status, 201);
    assert!(fs::read(ringwall.site.file("files/new")).expect("stored") == big);
    assert!(
        ringwall.resident_kib() < 64 << 10,
        "{} KiB",
        ringwall.resident_kib()
    );
}

#[test]
fn a_reload_swaps_the_certificate_shown() {
    let (mut site, pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let ringwall = site.start(&egress(MUTUAL));
    let mut one = client(&ringwall);
    assert!(one.get("a", "/").text().starts_with("CN=client.example"));
    pki.ca
        .client("renewed.example")
        .write(ringwall.site.path(), "client");
    ringwall.reload();
    eventually("the new certificate is shown", || {
        one.get("a", "/")
            .text()
            .starts_with("CN=renewed.example")
            .then_some(())
    });
}

#[test]
fn sessions_go_on_over_a_reload_that_changes_nothing_of_the_identity() {
    let (mut site, pki) = Site::with_pki();
    // Each call is a connection of its own.
    let _nginx = nginx(&mut site, "ssl_verify_client on; keepalive_timeout 0;");
    let configuration = |number: u32| egress(&format!("{MUTUAL} add_header X-Number {number};"));
    let mut ringwall = site.start(&configuration(0));
    let mut one = client(&ringwall);
    let mut call = |number: u32| {
        let response = eventually("the configuration is in force", || {
            let response = one.get("a", "/");
            let reached = response.header("x-number") == Some(&*number.to_string());
            reached.then_some(response)
        });
        let text = response.text();
        let words: Vec<&str> = text.split(' ').collect();
        (words[0].to_owned(), words[1].to_owned())
    };
    let said = |(name, reused): (&str, &str)| (name.to_owned(), reused.to_owned());
    assert_eq!(call(0), said(("CN=client.example", ".")));
    assert_eq!(call(0), said(("CN=client.example", "r")));
    for number in 1..=2 {
        ringwall.rewrite(&configuration(number));
        ringwall.reload();
        assert_eq!(call(number), said(("CN=client.example", "r")));
    }
    // Another certificate for the same name: nothing of the old one's is used.
    let again = pki.ca.client("client.example");
    again.write(ringwall.site.path(), "client");
    ringwall.rewrite(&configuration(3));
    ringwall.reload();
    assert_eq!(call(3), said(("CN=client.example", ".")));
    assert_eq!(call(3), said(("CN=client.example", "r")));
    // Nor under other demands on the backend.
    let other = configuration(4).replace("proxy_ssl_verify on", "proxy_ssl_verify off");
    ringwall.rewrite(&other);
    ringwall.reload();
    assert_eq!(call(4), said(("CN=client.example", ".")));
}

/// One certificate for each `?who=`, with these lines more.
fn by_name(lines: &str) -> String {
    egress(&format!(
        "proxy_ssl_certificate $arg_who.crt; proxy_ssl_certificate_key $arg_who.key;\n\
         proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_verify on;\n\
         proxy_ssl_name test.example; {lines}"
    ))
}

#[test]
fn a_certificate_that_the_request_names_is_shown_and_no_connection_serves_another() {
    for cache in ["", "proxy_ssl_certificate_cache max=1 valid=1h;"] {
        let (mut site, pki) = Site::with_pki();
        for name in ["one", "two"] {
            let client = pki.ca.client(&format!("{name}.example"));
            client.write(site.path(), name);
        }
        let _nginx = nginx(&mut site, "ssl_verify_client optional;");
        let ringwall = site.start(&by_name(cache));
        let mut client = client(&ringwall);
        for _ in 0..5 {
            for who in ["one", "two"] {
                let response = client.get("a", &format!("/?who={who}"));
                let text = response.text();
                assert!(text.starts_with(&format!("CN={who}.example ")), "{text}");
            }
        }
        // Two connections, each kept and each for its own.
        let connections: std::collections::BTreeSet<String> = ringwall
            .site
            .read("up-access.log")
            .lines()
            .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
            .collect();
        assert_eq!(connections.len(), 2, "{connections:?}");
    }
}

#[test]
fn a_named_certificate_that_is_renewed_takes_its_connections_with_it() {
    let (mut site, pki) = Site::with_pki();
    pki.ca.client("one.example").write(site.path(), "one");
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let ringwall = site.start(&by_name(""));
    let mut one = client(&ringwall);
    let mut call = || one.get("a", "/?who=one").text();
    assert!(call().starts_with("CN=one.example "));
    // No reload: it is read for each request, before a connection is chosen.
    let renewed = pki.ca.client("renewed.example");
    renewed.write(ringwall.site.path(), "one");
    let text = call();
    assert!(text.starts_with("CN=renewed.example . "), "{text}");
}

#[test]
fn sessions_go_on_under_a_named_certificate_and_not_under_another() {
    let (mut site, pki) = Site::with_pki();
    for name in ["one", "two"] {
        let client = pki.ca.client(&format!("{name}.example"));
        client.write(site.path(), name);
    }
    let _nginx = nginx(&mut site, "ssl_verify_client on; keepalive_timeout 0;");
    let ringwall = site.start(&by_name(""));
    let mut client = client(&ringwall);
    let mut call = |who: &str| client.get("a", &format!("/?who={who}")).text();
    for (who, reused) in [("one", "."), ("two", "."), ("one", "r"), ("two", "r")] {
        let text = call(who);
        assert!(
            text.starts_with(&format!("CN={who}.example {reused} ")),
            "{text}"
        );
    }
}

#[test]
fn a_named_certificate_that_cannot_be_had_is_500_and_named_in_the_log() {
    let (mut site, pki) = Site::with_pki();
    pki.ca.client("one.example").write(site.path(), "one");
    pki.ca.client("two.example").write(site.path(), "two");
    fs::copy(site.file("two.crt"), site.file("mixed.crt")).expect("copied");
    fs::copy(site.file("one.key"), site.file("mixed.key")).expect("copied");
    site.write("junk.crt", "junk");
    site.write("junk.key", "junk");
    tools::run(site.path(), "mkfifo", &["pipe.crt"]).expect_ok();
    let _nginx = nginx(&mut site, "ssl_verify_client optional;");
    let ringwall = site.start(&by_name(""));
    for (who, what) in [
        ("missing", "missing.crt\": No such file"),
        ("junk", "junk.crt\": no certificate in it"),
        ("mixed", "key values mismatch"),
        ("pipe", "it is no regular file"),
        ("../../../../dev/zero%00", "cannot load certificate"),
        ("..", "cannot load certificate"),
    ] {
        assert_eq!(
            client(&ringwall).get("a", &format!("/?who={who}")).status,
            500,
            "{who}"
        );
        ringwall.complaint_with(&["[error]", what, "while connecting to upstream"]);
    }
    // Others are served meanwhile and afterwards.
    let text = client(&ringwall).get("a", "/?who=one").text();
    assert!(text.starts_with("CN=one.example "), "{text}");
}

#[test]
fn a_value_that_names_no_certificate_shows_none_and_one_may_be_in_the_value() {
    let (mut site, pki) = Site::with_pki();
    pki.ca.client("one.example").write(site.path(), "one");
    let _nginx = nginx(&mut site, "ssl_verify_client optional;");
    let openssl = OpenSsl::in_dir(site.path());
    openssl.run("pkcs12 -export -in one.crt -inkey one.key -out one.p12 -passout pass:hunter2");
    site.write("pass", "hunter2\n");
    let escaped = |pem: &str| pem.replace('\n', "\\n");
    let configuration = http(&format!(
        "map $arg_who $crt {{ data 'data:{}'; file @DIR@/one.crt; env env:ONE_CRT; }}\n\
         map $arg_who $key {{ data 'data:{}'; file @DIR@/one.key; env env:ONE_KEY; }}\n\
         server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ proxy_pass https://127.0.0.1:@UP@;\n\
         proxy_ssl_certificate $crt; proxy_ssl_certificate_key $key; }}\n\
         location /store {{ proxy_pass https://127.0.0.1:@UP@;\n\
         proxy_ssl_certificate @DIR@/$arg_who.p12; proxy_ssl_password_file @DIR@/pass; }} }}",
        escaped(&pki.client.certificate_pem),
        escaped(&pki.client.key_pem),
    ));
    let read = |name: &str| escaped(&fs::read_to_string(site.file(name)).expect("written"));
    let environment = format!(
        "env 'ONE_CRT={}';\nenv 'ONE_KEY={}';\n",
        read("one.crt"),
        read("one.key")
    );
    let ringwall = site.start(&format!("{environment}{configuration}"));
    let mut client = client(&ringwall);
    for (path, name) in [
        ("/?who=data", "CN=client.example"),
        ("/?who=file", "CN=one.example"),
        ("/?who=env", "CN=one.example"),
        ("/?who=other", ""),
        ("/store?who=one", "CN=one.example"),
        ("/?who=data", "CN=client.example"),
    ] {
        let response = client.get("a", path);
        assert_eq!(response.status, 200, "{path}: {}", ringwall.complaints());
        let text = response.text();
        assert_eq!(text.split(' ').next(), Some(name), "{path}: {text}");
    }
    assert!(!ringwall.complaints().contains("PRIVATE KEY"));
}

#[test]
fn an_alert_about_a_named_certificate_names_it() {
    let (mut site, _pki) = Site::with_pki();
    let _server = s_server(
        &mut site,
        "-Verify 2 -verify_return_error -CAfile ca.crt -tls1_3",
    );
    let ringwall = site.start(&by_name(""));
    assert_eq!(client(&ringwall).get("a", "/?who=stranger").status, 502);
    ringwall.complaint_with(&["client certificate: \"", "stranger.crt"]);
}

#[test]
fn the_test_of_a_configuration_tells_of_certificates_that_end_soon() {
    let (mut site, _pki) = Site::with_pki();
    let openssl = OpenSsl::in_dir(site.path());
    openssl.authority("root", "Root");
    openssl.run("genpkey -algorithm RSA -out client.key");
    openssl.run("req -new -key client.key -out client.csr -subj /CN=soon.example");
    openssl.run(
        "x509 -req -in client.csr -CA root.crt -CAkey root.key -CAcreateserial -out client.crt -days 3",
    );
    let outcome = site.check(&egress(MUTUAL).replace("access.log tls", "access.log"));
    assert!(outcome.ok(), "{outcome:?}");
    assert!(
        outcome.stderr.contains("client.crt\" expires in"),
        "{outcome:?}"
    );
}

#[test]
fn a_renewed_certificate_is_seen_by_ssl_watch_and_shown() {
    let (mut site, pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let watching = egress(MUTUAL).replacen("log_format", "ssl_watch on 100ms; log_format", 1);
    let ringwall = site.start(&watching);
    let mut one = client(&ringwall);
    assert!(one.get("a", "/").text().starts_with("CN=client.example"));
    let renewed = pki.ca.client("renewed.example");
    renewed.write(ringwall.site.path(), "client");
    eventually("the new certificate is shown", || {
        let text = one.get("a", "/").text();
        text.starts_with("CN=renewed.example").then_some(())
    });
}

#[test]
fn a_certificate_from_the_environment_is_shown() {
    let (mut site, pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let text = site.fill_in(&whole(
        "worker_processes 1; env TOSS_PUBLIC_CRT_B64; env TOSS_PRIVATE_KEY_B64;",
        "",
        "server { listen 127.0.0.1:@HTTP@;\n\
         proxy_ssl_certificate env:TOSS_PUBLIC_CRT_B64;\n\
         proxy_ssl_certificate_key env:TOSS_PRIVATE_KEY_B64;\n\
         proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_verify on;\n\
         proxy_ssl_name test.example; proxy_ssl_server_name on;\n\
         location / { proxy_pass https://127.0.0.1:@UP@; }\n\
         location = /proxy { json_relay https://127.0.0.1:@UP@; } }",
    ));
    let path = site.write("ringwall.conf", &text).display().to_string();
    let (dir, binary) = (site.path().display().to_string(), binary());
    let binary = binary.display().to_string();
    let (certificate, key) = (&pki.client.certificate_pem, &pki.client.key_pem);
    let base64 = |pem: &str| STANDARD.encode(pem);
    // The two characters, as an .env file has them.
    let escaped = |pem: &str| pem.replace('\n', r"\n");
    for (certificate, key) in [
        (base64(certificate), base64(key)),
        (escaped(certificate), escaped(key)),
    ] {
        let environment = [
            format!("TOSS_PUBLIC_CRT_B64={certificate}"),
            format!("TOSS_PRIVATE_KEY_B64={key}"),
        ];
        let [public, private] = &environment;
        let command = [
            public.as_str(),
            private,
            &binary,
            "-p",
            &dir,
            "-c",
            &path,
            "-g",
            "daemon off;",
        ];
        let ringwall = Background::start(site.path(), "env", &command);
        let port = site.port("HTTP");
        eventually("it listens", || is_listening(port).then_some(()));
        let mut client = Connection::plain(local(port));
        assert!(client.get("a", "/").text().starts_with("CN=client.example"));
        client.send(
            "POST /proxy HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\n\
             {\"method\":\"GET\",\"path\":\"/\"}",
        );
        let text = client.response("POST").text();
        assert!(text.starts_with("CN=client.example"), "{text}");
        let logged = site.read("error.log");
        assert!(!logged.contains("PRIVATE KEY") && !logged.contains(&key));
        drop(ringwall);
        // A ring holds on to it a little longer than the process lives.
        eventually("nobody listens", || (!is_listening(port)).then_some(()));
    }
}

#[test]
fn a_certificate_in_the_configuration_is_shown() {
    let (mut site, pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let escaped = |pem: &str| pem.replace('\n', "\\n");
    let lines = format!(
        "proxy_ssl_certificate 'data:{}'; proxy_ssl_certificate_key 'data:{}';",
        escaped(&pki.client.certificate_pem),
        escaped(&pki.client.key_pem)
    );
    let ringwall = site.start(&egress(&lines));
    assert!(
        client(&ringwall)
            .get("a", "/")
            .text()
            .starts_with("CN=client.example")
    );
    assert!(!ringwall.complaints().contains("PRIVATE KEY"));
}

#[test]
fn a_sealed_pkcs12_store_is_shown() {
    let (mut site, _pki) = Site::with_pki();
    let _nginx = nginx(&mut site, "ssl_verify_client on;");
    let openssl = OpenSsl::in_dir(site.path());
    openssl.run(
        "pkcs12 -export -in client.crt -inkey client.key -out client.p12 -passout pass:hunter2",
    );
    site.write("pass", "hunter2\n");
    let ringwall = site.start(&egress(
        "proxy_ssl_certificate @DIR@/client.p12; proxy_ssl_password_file @DIR@/pass;",
    ));
    let text = client(&ringwall).get("a", "/").text();
    assert!(text.starts_with("CN=client.example"), "{text}");
}

#[test]
fn a_body_until_close_without_close_notify_is_cut_off() {
    // Nginx passes this for a whole body; over TLS anybody could have ended it.
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;
    let pki = Pki::new(&[HOST]);
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(pki.server.chain(), pki.server.key())
        .expect("a pair");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream.expect("accepted");
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream);
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello");
            if number > 0 {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
        }
    });
    let ringwall = Site::new().start(&egress("").replace("127.0.0.1:@UP@", &address.to_string()));
    let mut one = client(&ringwall);
    one.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        one.try_response("GET").is_err(),
        "the response ended as if it were whole"
    );
    ringwall.complaint_with(&["upstream prematurely closed connection"]);
    assert_eq!(client(&ringwall).get("a", "/").text(), "hello");
}
