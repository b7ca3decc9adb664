//! What happens between the first byte of a request body and the last of its
//! answer: what is read before a backend is asked, and what becomes of a
//! request whose client has gone.

use std::time::Duration;

use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::origin::{Origin, ok, ok_bytes};
use crate::support::ringwall::{Ringwall, Site, http};

fn start(content: &str) -> Ringwall {
    Site::new().start(&http(&content.replace(
        "SERVER",
        "server { listen 127.0.0.1:@HTTP@; server_name test.example;",
    )))
}

/// A backend that answers with the framing and the body of the request.
fn framing_of() -> Origin {
    Origin::http(|request| {
        let length = request.header("content-length").unwrap_or("-");
        let coding = request.header("transfer-encoding").unwrap_or("-");
        let body = String::from_utf8_lossy(&request.body);
        ok(&format!("{length} {coding} {body}"))
    })
}

#[test]
fn a_body_that_fits_the_buffer_is_read_before_a_backend_is_asked() {
    let origin = framing_of();
    let url = origin.url();
    let ringwall = start(&format!(
        "SERVER location / {{ proxy_pass {url}; }}
         location /1.0 {{ proxy_pass {url}; proxy_http_version 1.0; }}
         location /at-once {{ proxy_pass {url}; proxy_request_buffering off; }} }}"
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    // Another request goes through meanwhile, so the first has been seen.
    let mut other = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(other.get("a", "/").text(), "- - ");
    assert_eq!(origin.connections(), 1);
    assert!(!origin.all_received_text().contains("POST"));
    client.send("more");
    assert_eq!(client.response("POST").text(), "8 - halfmore");

    // One in chunks has a length then, also for HTTP/1.0.
    for target in ["/", "/1.0"] {
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        ));
        client.send("2\r\nde\r\n0\r\n\r\n");
        assert_eq!(client.response("POST").text(), "5 - abcde");
    }

    // Without buffering the backend hears of it at once.
    client.send(
        "POST /at-once HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    eventually("the backend has the beginning", || {
        let seen = origin.all_received_text();
        (seen.contains("POST /at-once") && seen.contains("abc")).then_some(())
    });
    client.send("2\r\nde\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").text(), "- chunked abcde");
}

#[test]
fn a_body_that_does_not_fit_is_streamed_behind_its_beginning() {
    let origin = Origin::http(|request| ok_bytes(&request.body));
    let ringwall = start(&format!(
        "client_body_buffer_size 1k; SERVER location / {{ proxy_pass {}; }} }}",
        origin.url()
    ));
    let body: Vec<u8> = (0..200_000_u32).map(|n| (n / 7) as u8).collect();
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..2 {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        for piece in body.chunks(700) {
            client.send(piece);
        }
        assert!(client.response("POST").body == body);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(999) {
            client.send(format!("{:x}\r\n", piece.len()));
            client.send(piece);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert!(client.response("POST").body == body);
    }
}

#[test]
fn a_short_body_of_an_idempotent_request_is_sent_again() {
    let broken = Origin::script(|peer| {
        peer.request()?;
        peer.reset()
    });
    let good = framing_of();
    let ringwall = start(&format!(
        "upstream u {{ server {}; server {}; }} SERVER location / {{ proxy_pass http://u; }} }}",
        broken.address(),
        good.address()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response("PUT").text(), "4 - body");
    assert_eq!((broken.requests(), good.requests()), (1, 1));
}

#[test]
fn a_request_whose_client_is_gone_ends_with_499() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.hang()
    });
    let ringwall = start(&format!(
        "log_format tries '$request_uri $upstream_addr $upstream_status';
         access_log @DIR@/access.log combined; access_log @DIR@/tries.log tries;
         SERVER location / {{ proxy_pass {}; proxy_read_timeout 1h; }} }}",
        origin.url()
    ));
    let requests = [
        "GET /get HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    ];
    for (count, request) in requests.into_iter().enumerate() {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(request);
        eventually("the backend has the request", || {
            (origin.requests() == count + 1).then_some(())
        });
        drop(client);
        eventually("the backend's connection is closed", || {
            (origin.open_connections() == 0).then_some(())
        });
    }
    ringwall.access_with(&["\"GET /get HTTP/1.1\" 499 0 "]);
    ringwall.access_with(&["\"POST /post HTTP/1.1\" 499 0 "]);
    let tries = format!("/get {0} -\n/post {0} -\n", origin.address());
    eventually("the tries are logged", || {
        (ringwall.site.read("tries.log") == tries).then_some(())
    });
    ringwall.complaint_with(&[
        "[info]",
        "client prematurely closed connection, so upstream connection is closed too",
    ]);
}

#[test]
fn a_stream_of_events_ends_when_its_client_is_gone() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")?;
        peer.hang()
    });
    let ringwall = start(&format!(
        "SERVER location / {{ proxy_pass {}; proxy_read_timeout 1h; }} }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head().expect("a head");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    // The event is there although the backend goes on.
    let mut event = Vec::new();
    while !event.ends_with(b"data: 1\n\n\r\n") {
        event.extend(client.some().expect("an event"));
    }
    drop(client);
    eventually("the backend's connection is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
    ringwall.access_with(&["\"GET / HTTP/1.1\" 200 "]);
}

#[test]
fn a_request_may_go_on_without_its_client() {
    let origin = Origin::http(|request| {
        std::thread::sleep(Duration::from_millis(700));
        ok(request.target())
    });
    let ringwall = start(&format!(
        "SERVER location / {{ proxy_pass {}; proxy_ignore_client_abort on; }} }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish_sending();
    assert_eq!(client.response("GET").text(), "/half");
}

#[test]
fn without_chunks_a_body_of_unknown_length_ends_with_the_connection() {
    let origin = Origin::answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let ringwall = start(&format!(
        "SERVER location / {{ proxy_pass {}; chunked_transfer_encoding off; }} }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let response = client.get("a", "/");
    assert_eq!(response.text(), "hello");
    assert!(response.ended_by_close && response.says_close());
    assert_eq!(response.header("transfer-encoding"), None);
}
