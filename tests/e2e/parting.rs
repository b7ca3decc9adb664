//! How connections with clients end: what is still read, what is reset, and
//! what a worker that drains leaves open for a while.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::proxying::server;
use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::ringwall::is_listening;

/// More than the sockets' buffers on both sides swallow.
const UPLOAD: usize = 16 << 20;

#[test]
fn a_client_that_sends_all_of_an_upload_before_it_reads_gets_to_read_its_refusal() {
    let ringwall = server("client_max_body_size 1k; location / { return 200 x; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n"
    ));
    client.send(vec![b'x'; UPLOAD]);
    assert_eq!(client.response("POST").status, 413);
    client.expect_close("a refused upload");
}

#[test]
fn lingering_close_off_does_not_wait_for_what_a_client_still_sends() {
    let ringwall = server(
        "client_max_body_size 1k; lingering_close off; location / { return 200 x; }
         location /always { lingering_close always; lingering_time 1s; keepalive_timeout 0;
           return 200 x; }",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n"
    ));
    let sent = client.try_send(vec![b'x'; UPLOAD]);
    let error = sent.expect_err("nobody reads it");
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        "{error}"
    );

    // The other way round: what comes behind a whole request is read, too.
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let begun = Instant::now();
    assert_eq!(client.get("a", "/always").status, 200);
    client.expect_close("a connection that is not kept");
    client.send(vec![b'x'; 1 << 20]);
    eventually("the wait is over", || {
        client.try_send("x").is_err().then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

/// Whether the connection ends by a reset.
fn is_reset(client: &mut Connection) -> bool {
    match client.until_close() {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn reset_timedout_connection_resets_whoever_timed_out_or_gets_444() {
    let origin = Origin::echo();
    let content = |reset: &str| {
        format!(
            "reset_timedout_connection {reset}; client_header_timeout 1s; client_body_timeout 1s;
             location / {{ proxy_pass {}; }} location /none {{ return 444; }}",
            origin.url()
        )
    };
    for (reset, expected) in [("on", true), ("off", false)] {
        let ringwall = server(&content(reset));
        for opening in [
            "GET / HTTP/1.1\r\nHost: a",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let mut client = Connection::plain(ringwall.address("HTTP"));
            client.send(opening);
            assert_eq!(is_reset(&mut client), expected, "{reset}: {opening}");
        }
        // A connection that is merely idle ends in order.
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send("GET /none HTTP/1.0\r\nHost: a\r\nX: ");
        client.finish_sending();
        assert!(!is_reset(&mut client));
    }
}

#[test]
fn a_draining_worker_leaves_idle_connections_their_keepalive_min_timeout() {
    let mut ringwall = server(
        "location / { return 200 own; }
         location /kept { keepalive_min_timeout 30s; return 200 kept; }
         location /soon { keepalive_min_timeout 1s; return 200 soon; }",
    );
    let address = ringwall.address("HTTP");
    let mut clients = ["/", "/kept", "/soon"].map(|target| {
        let mut client = Connection::plain(address);
        assert_eq!(client.get("a", target).status, 200);
        client
    });
    ringwall.signal(Signal::QUIT);
    eventually("nobody listens any longer", || {
        (!is_listening(address.port())).then_some(())
    });
    let [plain, kept, soon] = &mut clients;
    plain.expect_close("an idle connection in a drain");
    soon.expect_close("an idle connection whose time is over");
    assert!(ringwall.is_running());
    let last = kept.get("a", "/kept");
    assert_eq!(last.text(), "kept");
    assert!(last.says_close());
    assert!(ringwall.wait().success());
}
