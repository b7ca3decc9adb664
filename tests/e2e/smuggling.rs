//! Nothing that a client sends may speak in ringwall's name, take away what
//! ringwall adds, or ride along to the backend outside its own request; and
//! nothing that a backend sends may end up in another client's response.

use crate::support::client::{Connection, TlsClient};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http, plain_proxy};
use crate::support::{eventually, find};

/// What the guide's location sets, and an identity header.
const SETS: &str = "proxy_set_header Host $host;\n\
     proxy_set_header X-Real-IP $remote_addr;\n\
     proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
     proxy_set_header X-Client-DN $ssl_client_s_dn;";

fn plain(origin: &Origin) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST};\n\
         location / {{ proxy_pass {}; {SETS} }} }}",
        origin.url()
    )))
}

fn exchange(ringwall: &Ringwall, request: &str) -> u16 {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(request);
    client.response("GET").status
}

/// The fields of one request at the backend, names folded as a CGI-like
/// backend folds them: lower case, `_` for `-`.
fn folded(bytes: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(bytes)
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            (
                name.to_lowercase().replace('-', "_"),
                value.trim().to_owned(),
            )
        })
        .collect()
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(n, _)| n == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

#[test]
fn what_connection_names_is_removed() {
    let origin = Origin::hello();
    let ringwall = plain(&origin);
    let status = exchange(
        &ringwall,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-One, keep-alive ,x-two\r\n\
         X-One: 1\r\nX-TWO: 2\r\nX-Three: 3\r\n\r\n",
    );
    assert_eq!(status, 200);
    let fields = folded(&origin.all_received());
    assert!(values(&fields, "x_one").is_empty(), "{fields:?}");
    assert!(values(&fields, "x_two").is_empty(), "{fields:?}");
    assert_eq!(values(&fields, "x_three"), ["3"]);
}

#[test]
fn connection_cannot_remove_what_ringwall_adds() {
    let origin = Origin::echo();
    let ringwall = plain(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "POST / HTTP/1.1\r\nHost: a.example\r\n\
         Connection: host, content-length, x-forwarded-for, x-real-ip, x-client-dn\r\n\
         X-Forwarded-For: 192.0.2.1\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(client.response("POST").text(), "hello");
    let fields = folded(&origin.all_received());
    assert_eq!(values(&fields, "host"), ["a.example"]);
    assert_eq!(values(&fields, "x_real_ip"), ["127.0.0.1"]);
    let forwarded = values(&fields, "x_forwarded_for");
    assert_eq!(forwarded.len(), 1, "{fields:?}");
    assert!(forwarded[0].ends_with("127.0.0.1"), "{forwarded:?}");
}

#[test]
fn connection_cannot_turn_the_body_into_a_second_request() {
    let origin = Origin::echo();
    let ringwall = plain(&origin);
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    for length in [
        format!(
            "Connection: content-length\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ),
        format!(
            "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        ),
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!("POST /outer HTTP/1.1\r\nHost: a\r\n{length}"));
        assert_eq!(client.response("POST").text(), inner);
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn hop_by_hop_fields_stop_here() {
    let origin = Origin::hello();
    let ringwall = plain(&origin);
    let status = exchange(
        &ringwall,
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Connection: keep-alive\r\n\
         Keep-Alive: timeout=9\r\nConnection: keep-alive, upgrade\r\nX-Kept: yes\r\n\r\n",
    );
    assert_eq!(status, 200);
    let fields = folded(&origin.all_received());
    for name in ["te", "upgrade", "proxy_connection", "keep_alive"] {
        assert!(values(&fields, name).is_empty(), "{name} in {fields:?}");
    }
    assert!(
        values(&fields, "connection")
            .iter()
            .all(|v| !v.contains("upgrade")),
        "{fields:?}"
    );
    assert_eq!(values(&fields, "x_kept"), ["yes"]);
}

#[test]
fn hop_by_hop_fields_of_the_backend_stop_here_too() {
    let origin = Origin::http(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: X-Internal, keep-alive\r\nX-Internal: 1\r\n\
          Keep-Alive: timeout=99\r\nX-Kept: yes\r\nContent-Length: 5\r\n\r\nhello"
            .to_vec()
    });
    let ringwall = plain(&origin);
    let response = Connection::plain(ringwall.address("HTTP")).get("a", "/");
    assert_eq!(response.text(), "hello");
    assert_eq!(response.header("x-kept"), Some("yes"));
    assert_eq!(response.header("x-internal"), None);
    assert!(
        response
            .header("keep-alive")
            .is_none_or(|v| !v.contains("99")),
        "{:?}",
        response.headers
    );
    assert!(
        response
            .header("connection")
            .is_none_or(|v| !v.to_lowercase().contains("internal")),
        "{:?}",
        response.headers
    );
}

#[test]
fn chunk_extensions_and_trailers_are_dropped() {
    let origin = Origin::echo();
    let ringwall = plain(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;secret=extension\r\nhello\r\n0;secret=last\r\nX-Client-DN: CN=trailer\r\n\r\n",
    );
    assert_eq!(client.response("POST").text(), "hello");
    let bytes = origin.all_received();
    assert!(find(&bytes, b"secret").is_none());
    assert!(find(&bytes, b"CN=trailer").is_none());
}

#[test]
fn a_client_cannot_spell_its_way_past_a_header_that_ringwall_sets() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; underscores_in_headers on;\n\
         {CERTIFICATES} {MUTUAL}\n\
         location / {{ proxy_pass {}; {SETS} }} }}",
        origin.url()
    )));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let mut connection = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    connection.send(format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\n\
         X-Client-DN: CN=spoofed1\r\nx-client-dn: CN=spoofed2\r\nX_Client_DN: CN=spoofed3\r\n\
         X-Client_DN: CN=spoofed4\r\nX-CLIENT-DN: CN=spoofed5\r\n\
         Connection: x-client-dn\r\nX_Real_IP: 192.0.2.1\r\n\r\n"
    ));
    assert_eq!(connection.response("GET").status, 200);
    let fields = folded(&origin.all_received());
    assert_eq!(values(&fields, "x_client_dn"), ["CN=client.example"]);
    assert_eq!(values(&fields, "x_real_ip"), ["127.0.0.1"]);
    assert!(find(&origin.all_received(), b"spoofed").is_none());
}

#[test]
fn without_a_certificate_the_identity_header_is_absent_not_the_clients() {
    let origin = Origin::hello();
    let ringwall = plain(&origin);
    let status = exchange(
        &ringwall,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Client-DN: CN=spoofed\r\nX_Client_DN: CN=spoofed\r\n\r\n",
    );
    assert_eq!(status, 200);
    assert!(find(&origin.all_received(), b"spoofed").is_none());
    assert!(values(&folded(&origin.all_received()), "x_client_dn").is_empty());
}

#[test]
fn an_identity_header_asserted_by_one_virtual_host_cannot_be_sent_through_another() {
    let origin = Origin::hello();
    let (site, _pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         {CERTIFICATES} {MUTUAL}\n\
         location / {{ proxy_pass {0}; {SETS} }} }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass {0}; }} }}",
        origin.url()
    )));
    let status = exchange(
        &ringwall,
        "GET / HTTP/1.1\r\nHost: a\r\nx-client-dn: CN=spoofed\r\nX-Real-IP: 192.0.2.1\r\n\r\n",
    );
    assert_eq!(status, 200);
    assert!(find(&origin.all_received(), b"spoofed").is_none());
}

#[test]
fn an_absolute_target_overrides_host() {
    let origin = Origin::hello();
    let ringwall = plain(&origin);
    let status = exchange(
        &ringwall,
        "GET http://absolute.example/path?q=1 HTTP/1.1\r\nHost: other.example\r\n\r\n",
    );
    assert_eq!(status, 200);
    let received = origin.all_received();
    assert!(received.starts_with(b"GET /path?q=1 HTTP/1.1\r\n"));
    assert_eq!(values(&folded(&received), "host"), ["absolute.example"]);
}

#[test]
fn a_duplicated_field_stays_inside_its_own_line() {
    let origin = Origin::hello();
    let ringwall = plain(&origin);
    let status = exchange(
        &ringwall,
        "GET /?x=%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\
         X-Forwarded-For: 192.0.2.2\r\n\r\n",
    );
    assert_eq!(status, 200);
    let fields = folded(&origin.all_received());
    assert!(values(&fields, "x_injected").is_empty());
    assert_eq!(
        values(&fields, "x_forwarded_for"),
        ["192.0.2.1, 192.0.2.2, 127.0.0.1"]
    );
}

#[test]
fn bytes_behind_a_response_reach_nobody_and_their_connection_is_not_reused() {
    let origin = Origin::script(|peer| {
        loop {
            peer.request()?;
            let mut answer = ok("hello");
            answer.extend_from_slice(&ok("poison"));
            peer.send(&answer)?;
        }
    });
    let ringwall = plain(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..5 {
        assert_eq!(client.get("a", "/").text(), "hello");
    }
    assert_eq!(origin.connections(), 5);
    eventually("the poisoned connections are closed", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn a_backend_that_speaks_before_it_is_asked_is_not_listened_to() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("hello"))?;
        if peer.index == 0 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            peer.send(&ok("poison"))?;
            return peer.hang();
        }
        peer.request()?;
        peer.send(&ok("hello"))
    });
    let ringwall = plain(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").text(), "hello");
    eventually("the connection that spoke unasked is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
    assert_eq!(client.get("a", "/").text(), "hello");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn an_early_response_ends_the_upstream_connection_and_the_body_is_never_a_request() {
    let origin = Origin::script(|peer| {
        let request = peer.head()?;
        if request.line.starts_with("POST") {
            peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
            return peer.hang();
        }
        peer.send(&ok("hello"))?;
        peer.hang()
    });
    let ringwall = Site::new().start(
        &plain_proxy(&origin.url())
            .replace("location / {", "proxy_request_buffering off; location / {"),
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\nx",
        1001 + smuggled.len()
    ));
    let response = client.response("POST");
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
    // The rest of the announced body: swallowed or met with a close, as either
    // is safe.
    let _ = client.try_send(format!("{}{smuggled}", "x".repeat(1000)));
    let _ = client.try_send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    if let Ok(next) = client.try_response("GET") {
        assert_eq!(next.text(), "hello");
        client.set_read_limit(std::time::Duration::from_millis(300));
        assert!(
            client.remains().is_empty(),
            "a second response for one request"
        );
    }
    let received = origin.all_received_text();
    assert!(!received.contains("\r\n\r\nGET /smuggled"), "{received}");
    assert!(!received.starts_with("GET /smuggled"), "{received}");
    assert_eq!(
        received.matches("GET /next").count().max(1),
        1,
        "{received}"
    );
}

#[test]
fn a_response_never_goes_to_another_client() {
    let origin = Origin::http(|request| ok(request.target()));
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let address = ringwall.address("HTTP");
    std::thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                for round in 0..50 {
                    let mut connection = Connection::plain(address);
                    for request in 0..4 {
                        let target = format!("/{client}/{round}/{request}");
                        if (round + request) % 7 == 0 {
                            // Hangs up with the response in flight.
                            connection.send(format!(
                                "GET /abandoned{target} HTTP/1.1\r\nHost: a\r\n\r\n"
                            ));
                            break;
                        }
                        assert_eq!(connection.get("a", &target).text(), target);
                    }
                }
            });
        }
    });
}

#[test]
fn fields_with_names_that_nginx_calls_invalid_are_as_if_not_sent_until_they_are_let_in() {
    let origin = Origin::hello();
    let seen = "location /seen { return 200 \"[$http_x_under] [$http_x_forwarded_for]\"; }";
    let asked = |directives: &str| {
        let ringwall = Site::new().start(&http(&format!(
            "server {{ listen 127.0.0.1:@HTTP@; {directives} {seen}\n\
             location / {{ proxy_pass {}; }} }}",
            origin.url()
        )));
        let fields = "Host: a\r\nX_Under: one\r\nX.Dot: two\r\n\
                      X-Forwarded-For: 192.0.2.1\r\nX_Forwarded_For: 192.0.2.66\r\n\r\n";
        let before = origin.all_received().len();
        assert_eq!(
            exchange(&ringwall, &format!("GET / HTTP/1.1\r\n{fields}")),
            200
        );
        let passed = folded(&origin.all_received()[before..]);
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!("GET /seen HTTP/1.1\r\n{fields}"));
        let seen = client.response("GET").text();
        let names = ["x_under", "x.dot", "x_forwarded_for"];
        (seen, names.map(|name| values(&passed, name).join(",")))
    };
    let passed = |fields: [&str; 3]| fields.map(str::to_owned);
    let both = "[one] [192.0.2.1, 192.0.2.66]".to_owned();
    let (seen, fields) = asked("");
    assert_eq!(seen, "[] [192.0.2.1]");
    assert_eq!(fields, passed(["", "", "192.0.2.1"]));
    let (seen, fields) = asked("underscores_in_headers on;");
    assert_eq!(seen, both);
    assert_eq!(fields, passed(["one", "", "192.0.2.1,192.0.2.66"]));
    let (seen, fields) = asked("ignore_invalid_headers off;");
    assert_eq!(seen, both);
    assert_eq!(fields, passed(["one", "two", "192.0.2.1,192.0.2.66"]));
}

#[test]
fn a_name_that_is_no_token_is_refused_whatever_is_let_in() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; ignore_invalid_headers off;\n\
         location / {{ proxy_pass {}; }} }}",
        origin.url()
    )));
    for name in ["X(Y", "X Y", "X@Y", "X\u{e9}Y", "X\tY"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: one\r\n\r\n");
        assert_eq!(exchange(&ringwall, &request), 400, "{name}");
    }
    assert!(origin.all_received().is_empty());
}
