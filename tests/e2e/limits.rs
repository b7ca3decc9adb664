//! Sizes and times: what exceeds them is ended with Nginx's status, and what
//! stays within them is not disturbed.

use std::time::{Duration, Instant};

use super::proxying::{plain, server};
use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::origin::Origin;

#[test]
fn a_body_over_client_max_body_size_is_refused_with_413() {
    let origin = Origin::echo();
    let ringwall = server(&format!(
        "client_max_body_size 1k; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let fits = "x".repeat(1024);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{fits}"
    ));
    assert_eq!(client.response("POST").text(), fits);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!(client.response("POST").status, 413);

    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{fits}\r\n1\r\n"
    ));
    let _ = client.try_send("x\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").status, 413);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_request_line_too_long_is_414_and_a_head_too_large_is_400() {
    let origin = Origin::hello();
    let (ringwall, _) = plain(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let _ = client.try_send(format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "x".repeat(9000)
    ));
    assert_eq!(client.response("GET").status, 414);

    let mut client = Connection::plain(ringwall.address("HTTP"));
    let _ = client.try_send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n",
        "x".repeat(9000)
    ));
    let response = client.response("GET");
    assert_eq!(response.status, 400);
    assert!(
        response
            .text()
            .contains("Request Header Or Cookie Too Large")
    );

    // Many fields, each small: beyond 4 buffers of 8 KiB.
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let fields: String = (0..50)
        .map(|n| format!("X-{n}: {}\r\n", "x".repeat(1000)))
        .collect();
    let _ = client.try_send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(client.response("GET").status, 400);
    assert_eq!(origin.connections(), 0);

    // And what fits into them passes.
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let fields: String = (0..20)
        .map(|n| format!("X-{n}: {}\r\n", "x".repeat(1000)))
        .collect();
    client.send(format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n{fields}\r\n",
        "x".repeat(7000)
    ));
    assert_eq!(client.response("GET").text(), "hello");
}

#[test]
fn a_backend_that_does_not_answer_in_time_gives_504() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.hang()
    });
    let ringwall = server(&format!(
        "location / {{ proxy_pass {}; proxy_read_timeout 1s; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let start = Instant::now();
    let response = client.get("a", "/");
    assert_eq!(response.status, 504);
    assert!(response.text().contains("504 Gateway Time-out"));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    ringwall.complaint_with(&[
        "[error]",
        "upstream timed out",
        "client: 127.0.0.1",
        "upstream:",
    ]);
    eventually("the upstream connection is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn a_backends_time_begins_when_it_has_all_of_the_request() {
    let origin = Origin::echo();
    let ringwall = server(&format!(
        "location / {{ proxy_pass {}; proxy_read_timeout 1s; proxy_request_buffering off; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    for byte in b"body" {
        // Together longer than the backend may take.
        std::thread::sleep(Duration::from_millis(400));
        client.send([*byte]);
    }
    let response = client.response("POST");
    assert_eq!((response.status, response.text()), (200, "body".into()));
}

#[test]
fn a_head_that_does_not_come_in_time_is_a_408_however_it_dribbles() {
    let origin = Origin::hello();
    let ringwall = server(&format!(
        "client_header_timeout 1s; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let start = Instant::now();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ".bytes();
    let mut bytes = head.chain(std::iter::repeat_n(b'x', 100));
    while client.is_quiet() {
        let byte = bytes.next().expect("a deadline that no byte puts off");
        if client.try_send([byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Nginx logs 408 and closes without a word; a response is as good.
    let _ = client.remains();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    ringwall.access_with(&[" 408 "]);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_body_that_does_not_come_in_time_is_a_408() {
    let origin = Origin::hello();
    let ringwall = server(&format!(
        "client_body_timeout 1s; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello");
    let _ = client.remains();
    ringwall.access_with(&[" 408 "]);
    assert_eq!(origin.requests(), 0);
    eventually("the upstream connection is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn an_idle_connection_is_closed_at_keepalive_timeout() {
    let ringwall = server("keepalive_timeout 1s; location / { return 200 hello; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").text(), "hello");
    let start = Instant::now();
    client.expect_close("an idle connection");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

#[test]
fn keepalive_requests_and_keepalive_timeout_0_limit_a_connection() {
    let ringwall = server("keepalive_requests 3; location / { return 200 hello; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for last in [false, false, true] {
        assert_eq!(client.get("a", "/").says_close(), last);
    }
    client.expect_close("the third request");

    let ringwall = server("keepalive_timeout 0; location / { return 200 hello; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert!(client.get("a", "/").says_close());
    client.expect_close("keepalive_timeout 0");
}

#[test]
fn more_fields_than_max_headers_are_refused() {
    let ringwall = server("max_headers 3; location / { return 200 few; }");
    let ask = |fields: usize| {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        let fields: String = (0..fields).map(|n| format!("X-{n}: y\r\n")).collect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.response("GET").status
    };
    assert_eq!(ask(2), 200);
    assert_eq!(ask(3), 400);
}

#[test]
fn a_body_that_makes_too_little_progress_is_a_408_however_steadily_it_dribbles() {
    let origin = Origin::echo();
    let ringwall = server(&format!(
        "client_body_timeout 30s; client_body_min_rate 1k 1s; client_body_buffer_size 16;
         location / {{ proxy_pass {}; }} location /any {{ client_body_min_rate 0;
         proxy_pass {}; }}",
        origin.url(),
        origin.url()
    ));
    let begin = |target: &str| {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
        ));
        client
    };
    let mut slow = begin("/");
    let refused = eventually("the dribble is refused", || {
        let _ = slow.try_send("x");
        slow.set_read_limit(Duration::from_millis(100));
        slow.try_response("POST").ok()
    });
    assert_eq!(refused.status, 408);
    ringwall.complaint_with(&[
        "[info]",
        "client_body_min_rate",
        "reading client request body",
    ]);

    // Where no rate is demanded, the same dribble is a body like any other.
    let mut patient = begin("/any");
    let started = Instant::now();
    for _ in 0..100 {
        patient.send("x");
        std::thread::sleep(Duration::from_millis(15));
    }
    assert!(started.elapsed() > Duration::from_secs(1));
    assert_eq!(patient.response("POST").status, 200);
    // And so is one that comes at once.
    let mut quick = begin("/");
    quick.send("x".repeat(100));
    assert_eq!(quick.response("POST").text().len(), 100);
}
