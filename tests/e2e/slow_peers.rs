//! Clients that dribble, stall, flood or read nothing: the others are served as
//! if they were not there, and nothing of them stays behind.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::{Connection, tcp};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};
use crate::support::{eventually, patterned, tools};

/// A body that no socket buffer swallows.
const LARGE: usize = 8 << 20;

/// Memory for a few hundred clients who send and read little.
const MOST_KIB: u64 = 32 << 10;

/// A server at `@HTTP@` before a backend: `/large` is large, `/count` says how
/// long the request's body is, `/own` is ours.
fn target(more: &str) -> (Ringwall, Origin) {
    let large = patterned(LARGE);
    let origin = Origin::script(move |peer| {
        loop {
            let request = peer.request()?;
            match request.target() {
                "/large" => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
                    peer.send(head.as_bytes())?;
                    peer.send(&large)?;
                }
                "/count" => peer.send(&ok(&request.body.len().to_string()))?,
                _ => peer.send(&ok("hello"))?,
            }
        }
    });
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; {more}
         location / {{ proxy_pass {}; }} location /own {{ return 200 own; }}
         location /status {{ stub_status; }} }}",
        origin.url()
    )));
    (ringwall, origin)
}

/// A hundred requests on connections of the kinds that well-meaning clients
/// have, each of which is answered as if nobody else were there.
fn all_are_served(ringwall: &Ringwall) {
    let address = ringwall.address("HTTP");
    let mut kept = Connection::plain(address);
    for number in 0..100 {
        let (response, expected) = match number % 4 {
            0 => (Connection::plain(address).get("a", "/"), "hello"),
            1 => (Connection::plain(address).get("a", "/own"), "own"),
            2 => (kept.get("a", "/own"), "own"),
            _ => (kept.get("a", "/"), "hello"),
        };
        assert_eq!((response.status, &*response.text()), (200, expected));
    }
}

/// Client connections that are open, this question's among them.
fn open_connections(ringwall: &Ringwall) -> usize {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let text = client.get("a", "/status").text();
    let active = text
        .lines()
        .find_map(|line| line.strip_prefix("Active connections:"));
    let active = active.and_then(|count| count.trim().parse().ok());
    active.expect("stub_status tells of them")
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Has the others served while `harass` runs again and again, and expects that
/// each of them gets its answer over a connection that stays, that memory stays
/// within `most_kib`, and that nothing of it all is left. How much later the
/// others are served is measured and not asserted: docs/performance.md.
fn undisturbed(ringwall: &mut Ringwall, most_kib: u64, mut harass: impl FnMut() + Send) {
    let descriptors = ringwall.descriptors();
    all_are_served(ringwall);
    let before = ringwall.resident_kib();
    let stop = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let harassing = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                harass();
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Also where the others are not served: the scope waits for its threads.
        let stopping = OnDrop(|| stop.store(true, Ordering::SeqCst));
        eventually("the harassment is under way", || {
            (rounds.load(Ordering::SeqCst) > 0).then_some(())
        });
        all_are_served(ringwall);
        drop(stopping);
        harassing.join().expect("the harassment itself is in order");
    });
    let after = ringwall.resident_kib();
    assert!(
        after < before + most_kib,
        "{before} KiB before, {after} KiB after"
    );
    assert!(ringwall.is_running());
    // Upstream connections are kept for later.
    const KEPT: usize = 32;
    eventually("what they held is given back", || {
        (ringwall.descriptors() <= descriptors + KEPT && open_connections(ringwall) == 1)
            .then_some(())
    });
}

#[test]
fn slow_heads_and_slow_bodies_keep_nobody_else_waiting() {
    const EACH: usize = 150;
    let (mut ringwall, origin) =
        target("client_header_timeout 3s; client_body_timeout 1s; keepalive_timeout 1s;");
    let address = ringwall.address("HTTP");
    let connect = |opening: &str| {
        let mut client = Connection::plain(address);
        client.send(opening);
        client
    };
    let mut held: Vec<Connection> = Vec::new();
    undisturbed(&mut ringwall, MOST_KIB, || {
        if held.is_empty() {
            for _ in 0..EACH {
                held.push(connect("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "));
                held.push(connect(
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
                ));
            }
        }
        for client in &mut held {
            let _ = client.try_send("x");
        }
        std::thread::sleep(Duration::from_millis(50));
    });
    drop(held);
    assert!(origin.requests() > 0);
}

#[test]
fn clients_that_read_nothing_keep_nobody_else_waiting_and_little_memory() {
    const COUNT: usize = 40;
    // Of what each of them asked for, most stays where it is.
    const READERS_KIB: u64 = (COUNT * LARGE / 1024 / 4) as u64;
    let (mut ringwall, _origin) = target("send_timeout 2s;");
    let address = ringwall.address("HTTP");
    let mut held: Vec<Connection> = Vec::new();
    undisturbed(&mut ringwall, READERS_KIB, || {
        if held.is_empty() {
            for _ in 0..COUNT {
                let mut client = Connection::plain(address);
                client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
                held.push(client);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    });
}

#[test]
fn a_flood_of_connections_keeps_nobody_else_waiting() {
    let (mut ringwall, _origin) = target("");
    let address = ringwall.address("HTTP");
    undisturbed(&mut ringwall, MOST_KIB, || {
        let connections: Vec<_> = (0..100).filter_map(|_| tcp(address).ok()).collect();
        for (number, connection) in connections.into_iter().enumerate() {
            let connection = Connection::over(connection);
            if number % 2 == 0 {
                connection.reset();
            }
        }
    });
}

#[test]
fn a_flood_of_pipelined_requests_keeps_nobody_else_waiting() {
    let (mut ringwall, _origin) = target("send_timeout 2s; keepalive_timeout 1s;");
    let address = ringwall.address("HTTP");
    let many = "GET /own HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
    undisturbed(&mut ringwall, MOST_KIB, || {
        let mut clients: Vec<_> = (0..4).map(|_| Connection::plain(address)).collect();
        for client in &mut clients {
            let _ = client.try_send(&many);
        }
        // Each is answered in turn, or the connection is closed after
        // keepalive_requests.
        for mut client in clients {
            assert_eq!(client.try_response("GET").map(|r| r.status).ok(), Some(200));
        }
    });
}

const CHUNKED_TO_COUNT: &str =
    "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_flood_of_one_byte_chunks_keeps_nobody_else_waiting() {
    const CLIENTS: usize = 4;
    const PIECES: usize = 50;
    const CHUNKS: usize = 10_000;
    let (mut ringwall, _origin) = target("client_max_body_size 8m; keepalive_timeout 1s;");
    let address = ringwall.address("HTTP");
    let piece = "1\r\nx\r\n".repeat(CHUNKS);
    // Two million chunks a round, six bytes for each of the body.
    undisturbed(&mut ringwall, MOST_KIB, || {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Connection::plain(address)).collect();
        for client in &mut clients {
            client.send(CHUNKED_TO_COUNT);
        }
        for _ in 0..PIECES {
            for client in &mut clients {
                client.send(&piece);
            }
        }
        for client in &mut clients {
            client.send("0\r\n\r\n");
            let counted = client.response("POST").text();
            assert_eq!(counted, (PIECES * CHUNKS).to_string());
        }
    });
}

#[test]
fn a_flood_of_chunk_extensions_is_refused_and_keeps_nobody_else_waiting() {
    let (mut ringwall, origin) = target("");
    let address = ringwall.address("HTTP");
    // Each within what one chunk may have, a thousand bytes for each byte of the
    // body, and together more than a body may have.
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1000));
    let body = chunk.repeat(500);
    undisturbed(&mut ringwall, MOST_KIB, || {
        let mut clients: Vec<_> = (0..20).map(|_| Connection::plain(address)).collect();
        for client in &mut clients {
            client.send(CHUNKED_TO_COUNT);
            // It does not read all of this.
            let _ = client.try_send(&body);
        }
        for mut client in clients {
            assert_eq!(client.response("POST").status, 400);
        }
    });
    let received = origin.all_received_text();
    assert!(!received.contains("POST /count"), "none of it is passed on");
}

#[test]
fn a_flood_of_fields_is_refused_and_keeps_nobody_else_waiting() {
    const HELD: usize = 200;
    const REFUSED: usize = 20;
    let (mut ringwall, origin) = target("client_header_timeout 3s; keepalive_timeout 1s;");
    let address = ringwall.address("HTTP");
    let opening = "GET / HTTP/1.1\r\nHost: a\r\n";
    // What four buffers of 8 KiB take, and the end never comes.
    let unfinished = format!(
        "{opening}{}",
        format!("x: {}\r\n", "y".repeat(1000)).repeat(30)
    );
    let many_small = format!("{opening}{}\r\n", "x:y\r\n".repeat(20_000));
    let few_large = format!(
        "{opening}{}\r\n",
        format!("x: {}\r\n", "y".repeat(8000)).repeat(20)
    );
    let one_endless = format!("{opening}x: {}", "y".repeat(200_000));
    let mut held: Vec<Connection> = Vec::new();
    undisturbed(&mut ringwall, MOST_KIB, || {
        if held.is_empty() {
            held.extend((0..HELD).map(|_| Connection::plain(address)));
            for client in &mut held {
                client.send(&unfinished);
            }
        }
        for head in [&many_small, &few_large, &one_endless] {
            let mut clients: Vec<_> = (0..REFUSED).map(|_| Connection::plain(address)).collect();
            for client in &mut clients {
                // It does not read all of this.
                let _ = client.try_send(head);
            }
            for mut client in clients {
                assert_eq!(client.response("GET").status, 400);
            }
        }
    });
    drop(held);
    assert!(
        !origin.all_received_text().contains("x: "),
        "none of it is passed on"
    );
}

/// Runs `slowhttptest` (Debian) for a few seconds, which looks itself whether
/// others are served meanwhile.
fn slowhttptest(mode: &[&str]) {
    let (mut ringwall, _origin) = target(
        "client_header_timeout 2s; client_body_timeout 2s; send_timeout 2s; keepalive_timeout 2s;",
    );
    let url = format!("http://{}/large", ringwall.address("HTTP"));
    let common = [
        "-c", "200", "-r", "200", "-l", "5", "-i", "1", "-p", "3", "-u", &url,
    ];
    let said = tools::run(
        ringwall.site.path(),
        "slowhttptest",
        &[mode, &common].concat(),
    );
    assert!(said.stdout.contains("service available:"), "{said:#?}");
    let unavailable = said
        .stdout
        .lines()
        .any(|line| line.contains("service available:") && line.contains("NO"));
    assert!(!unavailable, "{}", said.stdout);
    assert!(ringwall.is_running());
    eventually("it serves as before", || {
        (Connection::plain(ringwall.address("HTTP"))
            .get("a", "/")
            .text()
            == "hello")
            .then_some(())
    });
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_heads() {
    slowhttptest(&["-H", "-t", "GET", "-x", "24"]);
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_bodies() {
    slowhttptest(&["-B", "-t", "POST", "-s", "8192", "-x", "10"]);
}

#[test]
fn slowhttptest_finds_the_service_available_under_overlapping_ranges() {
    slowhttptest(&["-R", "-t", "HEAD", "-a", "10", "-b", "3000"]);
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_reading() {
    slowhttptest(&[
        "-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3",
    ]);
}
