//! What HTTP/2 adds to the rules of HTTP, frame by frame: a request that breaks
//! them is refused without harm to its neighbours, and reaches no backend.

use crate::support::client::Connection;
use crate::support::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, PING, PROTOCOL_ERROR,
    RST_STREAM, SETTINGS, block, fields, frame,
};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{HOST, Ringwall, Site, http};
use crate::support::tools;

fn proxy(backend: &str, more: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST}; http2 on; {more}\n\
         location / {{ proxy_pass {backend}; proxy_http_version 1.1; }} }}"
    )))
}

fn h2(ringwall: &Ringwall) -> H2 {
    H2::plain(ringwall.address("HTTP"))
}

#[test]
fn malformed_requests_are_reset_and_reach_no_backend() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin.url(), "");
    let mut connection = h2(&ringwall);
    let get = |more: &[(&'static str, &'static str)]| fields("GET", HOST, "/bad", more);
    let without = |name: &str| -> Vec<(&str, &str)> {
        let all = get(&[]).into_iter();
        all.filter(|(known, _)| *known != name).collect()
    };
    let mut late = get(&[("a", "b")]);
    late.swap(3, 4);
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("connection", get(&[("connection", "close")])),
        ("keep-alive", get(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", get(&[("proxy-connection", "close")])),
        (
            "transfer-encoding",
            get(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", get(&[("upgrade", "websocket")])),
        ("te", get(&[("te", "gzip")])),
        ("upper case", get(&[("X-Upper", "b")])),
        ("line end", get(&[("a", "b\r\nc: d")])),
        ("line feed", get(&[("a", "b\nc")])),
        ("NUL", get(&[("a", "b\0c")])),
        ("line end in a name", get(&[("a\r\nb", "c")])),
        ("unknown pseudo-field", get(&[(":other", "b")])),
        ("a response's pseudo-field", get(&[(":status", "200")])),
        ("pseudo-field twice", get(&[(":path", "/")])),
        ("pseudo-field after another", late),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("empty path", fields("GET", HOST, "", &[])),
        ("length and no body", get(&[("content-length", "5")])),
    ];
    for (index, (what, fields)) in cases.iter().enumerate() {
        let stream = 2 * u32::try_from(index).expect("few") + 1;
        connection.headers(stream, fields, true);
        let answer = connection.answer(stream);
        assert_eq!(answer.reset, Some(PROTOCOL_ERROR), "{what}: {answer:?}");
        assert_eq!(answer.status, 0, "{what}");
    }
    // The connection itself is none the worse.
    assert_eq!(connection.get(101, HOST, "/").status, 200);
    assert!(!origin.all_received_text().contains("/bad"));
    // Each is in the logs as one that was refused.
    ringwall.access_with(&["GET / HTTP/2.0", "200"]);
    let log = ringwall.access_log();
    let refused = log.lines().filter(|line| line.contains("\" 400 0 "));
    assert_eq!(refused.count(), cases.len(), "{log}");
    ringwall.access_with(&["\"GET /bad HTTP/2.0\" 400 0 "]);
    for what in [
        "connection-specific header",
        "invalid header name",
        "out of order pseudo-header",
        "without a body",
    ] {
        ringwall.complaint_with(&["[info]", what, "while reading client request headers"]);
    }
}

#[test]
fn what_is_well_formed_and_wrong_is_answered_400_and_reaches_no_backend() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin.url(), "");
    let get = |more: &[(&'static str, &'static str)]| fields("GET", HOST, "/bad", more);
    let nobody: Vec<_> = get(&[])
        .into_iter()
        .filter(|(name, _)| *name != ":authority")
        .collect();
    for (what, fields, status) in [
        ("another host", get(&[("host", "other.example")]), 400),
        ("two hosts", get(&[("host", HOST), ("host", HOST)]), 400),
        ("no host", nobody, 400),
        (
            "userinfo",
            fields("GET", "user@test.example", "/bad", &[]),
            400,
        ),
        ("space before", get(&[("a", " b")]), 400),
        ("space behind", get(&[("a", "b ")]), 400),
        ("asterisk", fields("OPTIONS", HOST, "*", &[]), 400),
        ("TRACE", fields("TRACE", HOST, "/bad", &[]), 405),
        ("climbing", fields("GET", HOST, "/a/../../bad", &[]), 400),
    ] {
        let mut connection = h2(&ringwall);
        connection.headers(1, &fields, true);
        let answer = connection.answer(1);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        // Unlike over HTTP/1.1 it is known where the next request begins.
        assert_eq!(connection.get(3, HOST, "/").status, 200, "{what}");
    }
    assert!(!origin.all_received_text().contains("/bad"));
}

#[test]
fn a_length_that_the_body_belies_resets_the_stream_and_leaves_the_backend() {
    let origin = Origin::http(|request| ok(&request.body.len().to_string()));
    let ringwall = proxy(&origin.url(), "proxy_request_buffering off;");
    for body in [&b"abc"[..], b"abcdefgh"] {
        let mut connection = h2(&ringwall);
        let more = [("content-length", "5")];
        connection.headers(1, &fields("POST", HOST, "/bad", &more), false);
        connection.frame(DATA, END_STREAM, 1, body);
        let answer = connection.answer(1);
        assert_eq!(answer.reset, Some(PROTOCOL_ERROR), "{answer:?}");
        assert_eq!(connection.get(3, HOST, "/").status, 200);
    }
    for twice in ["5", "6"] {
        let mut connection = h2(&ringwall);
        let more = [("content-length", "5"), ("content-length", twice)];
        connection.headers(1, &fields("POST", HOST, "/bad", &more), false);
        connection.frame(DATA, END_STREAM, 1, b"abcde");
        let answer = connection.answer(1);
        assert!(answer.status == 400 || answer.reset.is_some(), "{answer:?}");
    }
    // No backend was told that there is such a request.
    let seen = origin.all_received_text();
    assert!(!seen.contains("Content-Length: 6"), "{seen}");
}

#[test]
fn cookies_arrive_joined_and_the_host_by_its_own_name() {
    let origin = Origin::http(|request| {
        ok(&format!(
            "{} {} {}",
            request.header("cookie").unwrap_or("none"),
            request.header("x-host").unwrap_or("none"),
            request.header("te").unwrap_or("none"),
        ))
    });
    let ringwall = proxy(&origin.url(), "proxy_set_header X-Host $http_host;");
    let mut connection = h2(&ringwall);
    let more = [("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")];
    connection.headers(1, &fields("GET", HOST, "/", &more), true);
    let body = connection.answer(1).body;
    assert_eq!(String::from_utf8_lossy(&body), "a=1; b=2 test.example none");
}

#[test]
fn fields_may_come_in_as_many_frames_as_they_take() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin.url(), "");
    let mut connection = h2(&ringwall);
    let block = block(&fields("GET", HOST, "/", &[("a", "b")]));
    let (first, rest) = block.split_at(7);
    connection.frame(HEADERS, END_STREAM, 1, first);
    let (middle, last) = rest.split_at(9);
    connection.frame(CONTINUATION, 0, 1, middle);
    connection.frame(CONTINUATION, END_HEADERS, 1, last);
    assert_eq!(connection.answer(1).status, 200);
}

#[test]
fn a_field_or_a_list_beyond_the_buffers_is_refused() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin.url(), "large_client_header_buffers 4 1k;");
    let long = "x".repeat(1100);
    let half = "x".repeat(600);
    for (what, more, status) in [
        ("one field", vec![("a", &*long)], 400),
        ("all fields", vec![("a", &*half); 10], 400),
    ] {
        let mut connection = h2(&ringwall);
        connection.headers(1, &fields("GET", HOST, "/", &more), true);
        let answer = connection.answer(1);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(connection.get(3, HOST, "/").status, 200, "{what}");
    }
    let path = format!("/{long}");
    let mut connection = h2(&ringwall);
    connection.headers(1, &fields("GET", HOST, &path, &[]), true);
    assert_eq!(connection.answer(1).status, 414);
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_with_a_goaway() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin.url(), "");
    let block = block(&fields("GET", HOST, "/", &[]));
    for (what, bytes) in [
        ("DATA on stream 0", frame(DATA, 0, 0, b"a")),
        ("an even stream", frame(HEADERS, 5, 2, &block)),
        ("DATA on an idle stream", frame(DATA, 0, 9, b"a")),
        (
            "a CONTINUATION of nothing",
            frame(CONTINUATION, 4, 1, &block),
        ),
        ("a reset of nothing", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("a PING of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("an answer with settings", frame(SETTINGS, ACK, 0, &[0; 6])),
        (
            "another frame among fields",
            [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("a window of nothing", frame(8, 0, 0, &[0; 4])),
    ] {
        let mut connection = h2(&ringwall);
        connection.send(&bytes);
        connection.expect_end();
        let reason = connection.goaways.last().map(|(_, reason)| *reason);
        assert!(
            reason.is_some_and(|reason| reason != 0),
            "{what}: {reason:?}"
        );
    }
    // No preface at all is no HTTP/2: it is a request like any other, and wrong.
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    connection.send("\0\0\0\x04\0\0\0\0\0\r\n\r\n");
    assert_eq!(connection.response("GET").status, 400);
    assert_eq!(h2(&ringwall).get(1, HOST, "/").status, 200);
}

#[test]
fn trailers_of_a_response_follow_its_body() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin.url(), "add_trailer X-Sum abc;");
    let mut connection = h2(&ringwall);
    let answer = connection.get(1, HOST, "/");
    assert_eq!((answer.status, answer.blocks), (200, 2), "{answer:?}");
    assert_eq!(answer.body, b"hello");
    let port = ringwall.address("HTTP").port();
    let said = tools::shell(
        ringwall.site.path(),
        &format!("nghttp -nv http://127.0.0.1:{port}/"),
    );
    assert!(said.stdout.contains("x-sum: abc"), "{said:?}");
}

#[test]
fn early_hints_and_100_continue_come_before_the_answer() {
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
            peer.send(&ok(&request.body.len().to_string()))?;
        }
    });
    let ringwall = proxy(&origin.url(), "early_hints $http_x_hints;");
    let mut connection = h2(&ringwall);
    let more = [("expect", "100-continue"), ("x-hints", "1")];
    connection.headers(1, &fields("POST", HOST, "/", &more), false);
    let asked = connection.until(|it| (it.so_far(1).interim == [100]).then_some(()));
    asked.expect("a 100");
    connection.frame(DATA, END_STREAM, 1, b"abc");
    let answer = connection.answer(1);
    assert_eq!(answer.interim, [100, 103]);
    assert_eq!((answer.status, &*answer.body), (200, &b"3"[..]));
}

#[test]
fn websocket_goes_over_a_stream_to_a_backend_of_http1() {
    let origin = Origin::script(|peer| {
        let request = peer.head()?;
        let key = request.header("sec-websocket-key").unwrap_or_default();
        assert_eq!(key.len(), 24, "{key}");
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("sec-websocket-version"), Some("13"));
        assert!(
            request.line.starts_with("GET /chat HTTP/1.1"),
            "{}",
            request.line
        );
        peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\nSec-WebSocket-Protocol: x\r\n\r\nhello",
        )?;
        loop {
            let some = peer.some()?;
            if some.is_empty() {
                return peer.finish();
            }
            peer.send(&some.to_ascii_uppercase())?;
        }
    });
    let ringwall = proxy(
        &origin.url(),
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
    );
    let mut connection = h2(&ringwall);
    let more = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    connection.headers(1, &fields("CONNECT", HOST, "/chat", &more), false);
    let greeted = connection.until(|it| (it.so_far(1).body == b"hello").then_some(()));
    greeted.expect("the backend's greeting");
    assert_eq!(connection.so_far(1).status, 200);
    connection.frame(DATA, 0, 1, b"shout");
    let shouted = connection.until(|it| (it.so_far(1).body == b"helloSHOUT").then_some(()));
    shouted.expect("an echo");
    // Others are served meanwhile, if not by this backend.
    connection.headers(3, &fields("TRACE", HOST, "/", &[]), true);
    assert_eq!(connection.answer(3).status, 405);
    connection.frame(DATA, END_STREAM, 1, b"bye");
    assert_eq!(connection.answer(1).body, b"helloSHOUTBYE");
    let more = [(":protocol", "connect-udp")];
    let mut other = h2(&ringwall);
    other.headers(1, &fields("CONNECT", HOST, "/", &more), false);
    assert_eq!(other.answer(1).status, 501);
}
