//! Clients that dribble, stall, flood or read nothing: the others are served as
//! if they were not there, and nothing of them stays behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Connection, tcp};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};
use crate::support::{eventually, patterned, tools};

/// A body that no socket buffer swallows.
const LARGE: usize = 8 << 20;

/// A server at `@HTTP@` before a backend: `/large` is large, `/own` is ours.
fn target(more: &str) -> (Ringwall, Origin) {
    let large = patterned(LARGE);
    let origin = Origin::script(move |peer| {
        loop {
            let request = peer.request()?;
            if request.target() == "/large" {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
                peer.send(head.as_bytes())?;
                peer.send(&large)?;
            } else {
                peer.send(&ok("hello"))?;
            }
        }
    });
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; {more}
         location / {{ proxy_pass {}; }} location /own {{ return 200 own; }} }}",
        origin.url()
    )));
    (ringwall, origin)
}

/// The slowest of a hundred requests but one, on connections of the kinds that
/// well-meaning clients have.
fn p99(ringwall: &Ringwall) -> Duration {
    let address = ringwall.address("HTTP");
    let mut kept = Connection::plain(address);
    let mut times: Vec<_> = (0..100)
        .map(|number| {
            let begin = Instant::now();
            let text = match number % 4 {
                0 => Connection::plain(address).get("a", "/").text(),
                1 => Connection::plain(address).get("a", "/own").text(),
                2 => kept.get("a", "/own").text(),
                _ => kept.get("a", "/").text(),
            };
            assert!(text == "hello" || text == "own", "{text}");
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[98]
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Has the others served while `harass` runs again and again, and expects that
/// they hardly notice, and that it all ends.
fn undisturbed(ringwall: &mut Ringwall, what: &str, mut harass: impl FnMut() + Send) {
    // Other tests share the machine, so a few milliseconds mean nothing.
    const NOISE: Duration = Duration::from_millis(250);
    let descriptors = ringwall.descriptors();
    let before = p99(ringwall);
    let stop = AtomicBool::new(false);
    let meanwhile = std::thread::scope(|scope| {
        let harassing = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                harass();
            }
        });
        // Also where the others are not served: the scope waits for its threads.
        let stopping = OnDrop(|| stop.store(true, Ordering::SeqCst));
        let meanwhile = p99(ringwall);
        drop(stopping);
        harassing.join().expect("the harassment itself is in order");
        meanwhile
    });
    assert!(
        meanwhile <= before * 2 + NOISE,
        "{what}: the others' p99 was {before:?} and is {meanwhile:?}"
    );
    assert!(ringwall.is_running());
    // Upstream connections are kept for later.
    const KEPT: usize = 32;
    eventually("what they held is given back", || {
        (ringwall.descriptors() <= descriptors + KEPT).then_some(())
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
    undisturbed(&mut ringwall, "slow heads and bodies", || {
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
    const MOST_KIB: u64 = (COUNT * LARGE / 1024 / 4) as u64;
    let (mut ringwall, _origin) = target("send_timeout 2s;");
    let address = ringwall.address("HTTP");
    let before = ringwall.resident_kib();
    let mut held: Vec<Connection> = Vec::new();
    undisturbed(&mut ringwall, "slow readers", || {
        if held.is_empty() {
            for _ in 0..COUNT {
                let mut client = Connection::plain(address);
                client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
                held.push(client);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    });
    let after = ringwall.resident_kib();
    assert!(
        after < before + MOST_KIB,
        "{before} KiB before, {after} KiB after"
    );
}

#[test]
fn a_flood_of_connections_keeps_nobody_else_waiting() {
    let (mut ringwall, _origin) = target("");
    let address = ringwall.address("HTTP");
    undisturbed(&mut ringwall, "a connection flood", || {
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
    undisturbed(&mut ringwall, "a pipelining flood", || {
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
