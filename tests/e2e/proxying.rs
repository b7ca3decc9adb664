//! A request reaches the backend and its response the client as the
//! configuration says and HTTP/1.1 demands: methods, targets, versions,
//! connections, and Nginx's status for what goes wrong.

use std::sync::Barrier;
use std::time::Duration;

use crate::support::client::{Connection, TlsClient};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{HOST, Ringwall, Site, http, mutual_proxy, plain_proxy};
use crate::support::{eventually, free_port};

pub(crate) fn plain(origin: &Origin) -> (Ringwall, Connection) {
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let client = Connection::plain(ringwall.address("HTTP"));
    (ringwall, client)
}

/// A plain server with this content.
pub(crate) fn server(content: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST};\n{content} }}"
    )))
}

#[test]
fn every_method_passes_as_it_is() {
    let origin = Origin::http(|request| ok(&request.line));
    let (_ringwall, mut client) = plain(&origin);
    for method in [
        "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "REPORT",
    ] {
        client.send(format!(
            "{method} /x?y=%2F%20z HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        let response = client.response(method);
        assert_eq!(response.text(), format!("{method} /x?y=%2F%20z HTTP/1.1"));
    }
}

#[test]
fn a_response_to_head_has_no_body() {
    let origin = Origin::http(|request| {
        if request.line.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nX-A: b\r\n\r\n".to_vec()
        } else {
            ok("hello")
        }
    });
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response("HEAD");
        assert_eq!(response.header("content-length"), Some("5000"));
        assert_eq!(client.get("a", "/").text(), "hello");
    }
    assert_eq!(origin.connections(), 1, "the upstream connection is reused");
}

#[test]
fn a_backends_reason_phrase_reaches_the_client_as_it_is() {
    let origin = Origin::http(|request| {
        let (_, line) = request.target().split_once('/').expect("a path");
        let line = line.replace("%20", " ").replace("%E9", "\u{e9}");
        let mut bytes: Vec<u8> = format!("HTTP/1.1 {line}")
            .chars()
            .map(|c| c as u8)
            .collect();
        bytes.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
        bytes
    });
    let ringwall = server(&format!(
        "location / {{ proxy_pass {0}; gzip on; }}\n\
         location \"/500 Own\" {{ proxy_pass {0}; proxy_intercept_errors on; error_page 500 /page; }}\n\
         location = /page {{ return 200 page; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for (asked, line) in [
        ("200%20OK", &b"200 OK"[..]),
        ("200%20All%20%20well", b"200 All  well"),
        ("302%20Found", b"302 Found"),
        ("404%20", b"404 "),
        ("404", b"404 "),
        ("418%20Teapot%E9", b"418 Teapot\xe9"),
        ("495%20Odd", b"495 Odd"),
        // A page of ours is said in our words.
        ("500%20Own", b"500 Internal Server Error"),
    ] {
        let response = client.get("a", &format!("/{asked}"));
        let expected = [b"HTTP/1.1 ", line, b"\r\n"].concat();
        assert!(
            response.raw_head.starts_with(&expected),
            "{asked}: {response:?}"
        );
    }
}

#[test]
fn statuses_without_a_body_leave_the_connection_usable() {
    let origin = Origin::http(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n".to_vec(),
        "/304" => {
            b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n".to_vec()
        }
        _ => ok("hello"),
    });
    let (_ringwall, mut client) = plain(&origin);
    let response = client.get("a", "/204");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("content-length"), None);
    assert_eq!(response.header("transfer-encoding"), None);
    let response = client.get("a", "/304");
    assert_eq!(response.status, 304);
    assert_eq!(response.header("etag"), Some("\"x\""));
    assert_eq!(client.get("a", "/").text(), "hello");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn interim_responses_do_not_end_the_exchange() {
    let origin = Origin::http(|_| {
        [
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec(),
            ok("hello"),
        ]
        .concat()
    });
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..2 {
        assert_eq!(client.get("a", "/").text(), "hello");
    }
    // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.text(), "hello");
    assert!(response.interim.is_empty());
}

#[test]
fn an_expectation_is_met_before_the_body_is_sent() {
    let origin = Origin::echo();
    let (_ringwall, mut client) = plain(&origin);
    for body in ["hello", "again"] {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(client.head().expect("an interim response").status, 100);
        client.send(body);
        assert_eq!(client.response("POST").text(), body);
    }
}

#[test]
fn an_expectation_can_be_refused_before_the_body_is_sent() {
    let origin = Origin::hello();
    let ringwall = server(&format!(
        "client_max_body_size 10; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n");
    let response = client.response("POST");
    assert_eq!(response.status, 413);
    assert!(response.interim.is_empty(), "no 100 before a refusal");
    // Whatever is sent now is the body that nobody wants, never a request.
    let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.remains().is_empty());
    assert_eq!(origin.connections(), 0);
}

#[test]
fn an_unknown_expectation_is_not_mistaken_for_a_body() {
    let origin = Origin::hello();
    let (_ringwall, mut client) = plain(&origin);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-tea\r\n\r\n");
    assert!(matches!(client.response("GET").status, 200 | 417));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::http(|request| ok(request.target()));
    let (_ringwall, mut client) = plain(&origin);
    let mut all = String::new();
    for number in 0..50 {
        all.push_str(&format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    client.send(all);
    for number in 0..50 {
        assert_eq!(client.response("GET").text(), format!("/{number}"));
    }
}

#[test]
fn pipelined_requests_with_bodies_are_kept_apart() {
    let origin = Origin::echo();
    let (_ringwall, mut client) = plain(&origin);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET / HTTP/1.1\r\nHost: a\r\n\r\n\
         POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n\
         POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfour",
    );
    for body in ["one", "", "three", "four"] {
        assert_eq!(client.response("POST").text(), body);
    }
    client.expect_close("behind Connection: close");
}

#[test]
fn an_http_1_0_client_gets_what_it_understands() {
    let origin = Origin::http(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
            .to_vec()
    });
    let (_ringwall, mut client) = plain(&origin);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.text(), "hello world");
    assert!(response.ended_by_close);
}

#[test]
fn an_http_1_0_client_can_keep_the_connection() {
    let origin = Origin::hello();
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response("GET");
        assert_eq!(response.text(), "hello");
        assert!(!response.says_close());
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response("GET").text(), "hello");
    client.expect_close("HTTP/1.0 without keep-alive");
}

#[test]
fn a_client_that_asks_for_it_gets_a_close() {
    let origin = Origin::hello();
    let (_ringwall, mut client) = plain(&origin);
    assert_eq!(client.get("a", "/").text(), "hello");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.text(), "hello");
    assert!(response.says_close());
    client.expect_close("Connection: close");
}

#[test]
fn a_client_that_ends_its_sending_side_still_gets_its_response() {
    let origin = Origin::http(|_| {
        std::thread::sleep(Duration::from_millis(200));
        ok("hello")
    });
    let (ringwall, mut client) = plain(&origin);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.finish_sending();
    // Nginx takes a half-closed client for a gone one (proxy_ignore_client_abort
    // off) and logs 499; serving it is as good. Either way the proxy lives on.
    let _ = client.remains();
    assert_eq!(
        Connection::plain(ringwall.address("HTTP"))
            .get("a", "/")
            .text(),
        "hello"
    );
}

#[test]
fn an_http_1_0_backend_is_understood() {
    let origin =
        Origin::answering(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nold but good");
    let (_ringwall, mut client) = plain(&origin);
    for count in 1..=3 {
        let response = client.get("a", "/");
        assert_eq!(response.text(), "old but good");
        assert!(!response.ended_by_close, "the client's connection is kept");
        assert_eq!(origin.connections(), count);
    }
}

#[test]
fn proxy_http_version_1_0_is_spoken_where_it_is_asked_for() {
    let origin = Origin::script(|peer| {
        let request = peer.request()?;
        peer.send(format!("HTTP/1.0 200 OK\r\n\r\n{}", request.line).as_bytes())?;
        peer.finish()
    });
    let ringwall = server(&format!(
        "location / {{ proxy_http_version 1.0; proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").text(), "GET / HTTP/1.0");
    assert!(
        !origin
            .all_received_text()
            .to_lowercase()
            .contains("keep-alive")
    );
}

#[test]
fn upstream_connections_are_reused() {
    let origin = Origin::hello();
    let (ringwall, mut client) = plain(&origin);
    for _ in 0..20 {
        assert_eq!(client.get("a", "/").text(), "hello");
        assert_eq!(
            Connection::plain(ringwall.address("HTTP"))
                .get("a", "/")
                .text(),
            "hello"
        );
    }
    assert_eq!((origin.connections(), origin.requests()), (1, 40));
}

#[test]
fn connections_that_come_free_at_once_serve_the_next_burst_and_then_few_stay() {
    const AT_ONCE: usize = 8;
    const BURSTS: usize = 10;
    let all_here = Barrier::new(AT_ONCE);
    let origin = Origin::http(move |_| {
        all_here.wait();
        ok("hello")
    });
    let ringwall = Site::new().start(&http(&format!(
        "upstream backend {{ server {}; keepalive 1; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://backend; }} }}",
        origin.address()
    )));
    let address = ringwall.address("HTTP");
    let mut clients: Vec<_> = (0..AT_ONCE).map(|_| Connection::plain(address)).collect();
    for _ in 0..BURSTS {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.response("GET").text(), "hello");
        }
    }
    // If all but one were closed behind each burst.
    let most = AT_ONCE + (BURSTS - 1) * (AT_ONCE - 1);
    let made = origin.connections();
    assert!(made < most, "{made}");
    eventually("as many are left as may be kept", || {
        (origin.open_connections() == 1).then_some(())
    });
}

#[test]
fn keepalive_0_reuses_none() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&http(&format!(
        "upstream backend {{ server {}; keepalive 0; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://backend; }} }}",
        origin.address()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..3 {
        assert_eq!(client.get("a", "/").text(), "hello");
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn a_stale_upstream_connection_is_replaced_without_the_client_noticing() {
    // Closes each connection behind its first response, at the moment the
    // second request comes: the worst case of an idle timeout.
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("hello"))?;
        peer.head()?;
        peer.reset()
    });
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..10 {
        assert_eq!(client.get("a", "/").text(), "hello");
    }
}

#[test]
fn a_request_that_may_have_had_effect_is_not_sent_twice() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("hello"))?;
        peer.request()?;
        peer.reset()
    });
    let (_ringwall, mut client) = plain(&origin);
    assert_eq!(client.get("a", "/").text(), "hello");
    client.send("POST /effect HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response("POST").status, 502);
    assert_eq!(
        origin.all_received_text().matches("POST /effect").count(),
        1
    );
}

#[test]
fn an_idle_upstream_connection_that_the_backend_closed_is_not_used() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("hello"))?;
        peer.finish()
    });
    let (_ringwall, mut client) = plain(&origin);
    for round in 0..5 {
        eventually("the backend's close has arrived", || {
            (origin.open_connections() == 0).then_some(())
        });
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.response("POST").text(), "hello", "round {round}");
    }
}

#[test]
fn a_backend_that_is_not_there_gives_502() {
    let port = free_port();
    let ringwall = Site::new().start(&plain_proxy(&format!("http://127.0.0.1:{port}")));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..2 {
        let response = client.get("a", "/");
        assert_eq!(response.status, 502);
        assert!(response.text().contains("502 Bad Gateway"));
    }
    ringwall.complaint_with(&[
        "[error]",
        "connect() failed (111: Connection refused) while connecting to upstream",
        "client: 127.0.0.1",
        "request: \"GET / HTTP/1.1\"",
        &format!("upstream: \"http://127.0.0.1:{port}/\""),
        "host: \"a\"",
    ]);
}

#[test]
fn connect_and_trace_go_no_further() {
    let origin = Origin::hello();
    let (ringwall, _) = plain(&origin);
    for request in [
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(request);
        let status = client.response("GET").status;
        assert!(matches!(status, 400 | 405), "{request}: {status}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn over_tls_the_scheme_and_the_verified_name_reach_the_backend() {
    let origin = Origin::http(|request| ok(&format!("{:?}", request.headers)));
    let (site, pki) = Site::with_pki();
    let configuration = mutual_proxy(&origin.url()).replace(
        "location / {",
        "location / { proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Dn $ssl_client_s_dn; proxy_set_header X-Verify $ssl_client_verify;\n\
         proxy_set_header X-Serial $ssl_client_serial; proxy_set_header X-Tls $ssl_protocol;",
    );
    let ringwall = site.start(&configuration);
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let text = client
        .get(ringwall.address("TLS"), HOST, "/")
        .expect("a response")
        .text();
    for pair in [
        "(\"X-Forwarded-Proto\", \"https\")",
        "(\"X-Dn\", \"CN=client.example\")",
        "(\"X-Verify\", \"SUCCESS\")",
        "(\"X-Tls\", \"TLSv1.3\")",
        "(\"X-Serial\", \"",
    ] {
        assert!(text.contains(pair), "{pair} in {text}");
    }
}
