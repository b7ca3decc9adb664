//! Ten thousand connections that mean no good: each ends alone, and what it
//! held comes back. A client that means well is served throughout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Connection, TlsClient, tcp};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};
use crate::support::pki::Pki;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http, whole};

/// A mutual-TLS port and a plain port in front of a backend that resets in the
/// middle of `/reset`'s body.
fn target(main: &str, events: &str, more: &str) -> (Ringwall, Pki, Origin) {
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            if request.target() == "/reset" {
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf a bo")?;
                return peer.reset();
            }
            peer.send(&ok("hello"))?;
        }
    });
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&whole(
        main,
        events,
        &format!(
            "{more} access_log off;\n\
             server {{ listen 127.0.0.1:@TLS@ ssl; listen 127.0.0.1:@HTTP@; server_name {HOST};\n\
             {CERTIFICATES} {MUTUAL}\n\
             location / {{ proxy_pass {}; }} }}",
            origin.url()
        ),
    ));
    (ringwall, pki, origin)
}

/// The same abuse for the same number, so that every kind gets its turn.
fn abuse(number: usize, ringwall: &Addresses, pki: &Pki, client: &TlsClient) {
    let hello = client.client_hello(HOST);
    let tls = || Connection::over(tcp(ringwall.tls).expect("it accepts"));
    let plain = || Connection::over(tcp(ringwall.plain).expect("it accepts"));
    // Whatever is sent may meet a close; that is the point.
    match number % 12 {
        0 => drop(tls()),
        1 => {
            let mut c = tls();
            let _ = c.try_send([0xff; 300]);
            c.remains();
        }
        2 => {
            let mut c = tls();
            let _ = c.try_send(&hello[..hello.len() / 2]);
        }
        3 => {
            let mut c = tls();
            let _ = c.try_send(&hello[..hello.len() / 2]);
            c.reset();
        }
        4 => {
            let mut c = tls();
            let _ = c.try_send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            let response = c.try_response("GET");
            assert!(response.is_ok_and(|r| r.status == 400));
        }
        5 => {
            // Vanishes with the server's flight unread.
            let mut c = tls();
            let _ = c.try_send(&hello);
            c.reset();
        }
        6 => {
            let mut c = plain();
            let _ = c.try_send("GET /reset HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(c.try_response("GET").is_err(), "half a body is no response");
        }
        7 => {
            let mut c = plain();
            let _ = c.try_send("GET / HTTP/1.1\r\nHost: a\r\n");
        }
        8 => {
            let mut c = plain();
            let _ = c.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            c.reset();
        }
        9 => {
            let mut c = plain();
            let _ = c.try_send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhalf");
        }
        10 => {
            let mut c = plain();
            let _ = c.try_send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
            c.remains();
        }
        // Full handshakes are dear; one abuse in two dozen is one.
        _ if number.is_multiple_of(2) => {
            let outcome =
                TlsClient::with_identity(&pki.ca, &pki.stranger).get(ringwall.tls, HOST, "/");
            assert!(outcome.is_err());
        }
        _ => {
            let mut c = plain();
            let _ = c.try_send("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n");
            assert!(c.try_response("GET").is_ok_and(|r| r.status == 400));
        }
    }
}

#[derive(Clone, Copy)]
struct Addresses {
    tls: std::net::SocketAddr,
    plain: std::net::SocketAddr,
}

fn abuse_many(ringwall: &Ringwall, pki: &Pki, count: usize) {
    const CLIENTS: usize = 8;
    let addresses = Addresses {
        tls: ringwall.address("TLS"),
        plain: ringwall.address("HTTP"),
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = TlsClient::new(&pki.ca).without_sessions();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    abuse(number, &addresses, pki, &client);
                }
            });
        }
    });
}

/// What may stay: connections to the backend that are kept for reuse.
const KEPT: usize = 32;

#[test]
fn ten_thousand_bad_connections_leave_no_descriptor_and_no_memory_behind() {
    const WARM_UP: usize = 1_000;
    const COUNT: usize = 10_000;
    // The allocator's and the session store's growth between two like loads.
    const SLACK_KIB: u64 = 12 * 1024;
    let (mut ringwall, pki, origin) = target("worker_processes 2;", "", "");
    let good = TlsClient::with_identity(&pki.ca, &pki.client);
    let idle = ringwall.descriptors();
    abuse_many(&ringwall, &pki, WARM_UP);
    eventually("the warm-up's descriptors are closed", || {
        (ringwall.descriptors() <= idle + KEPT).then_some(())
    });
    let resident = ringwall.resident_kib();

    let stop = Arc::new(AtomicBool::new(false));
    let (flag, client, address) = (Arc::clone(&stop), good.clone(), ringwall.address("TLS"));
    let well_meaning = std::thread::spawn(move || {
        let mut served = 0;
        while !flag.load(Ordering::SeqCst) {
            let mut connection = client.connect(address, HOST).expect("a handshake");
            for _ in 0..20 {
                assert_eq!(connection.get(HOST, "/").text(), "hello");
                served += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        served
    });
    abuse_many(&ringwall, &pki, COUNT);
    stop.store(true, Ordering::SeqCst);
    let served = well_meaning
        .join()
        .expect("the good client was served throughout");
    assert!(served >= 20, "{served}");

    assert!(ringwall.is_running());
    eventually("all descriptors are closed", || {
        (ringwall.descriptors() <= idle + KEPT).then_some(())
    });
    let upstream = origin.open_connections();
    assert!(upstream <= KEPT, "{upstream} upstream connections");
    let after = ringwall.resident_kib();
    assert!(
        after <= resident + SLACK_KIB,
        "{resident} KiB before, {after} KiB after"
    );
    let said = ringwall.complaints();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(
        good.get(address, HOST, "/").expect("served").text(),
        "hello"
    );
}

#[test]
fn a_backend_that_resets_in_the_body_is_logged_as_its_own_failure() {
    let (ringwall, _pki, _origin) = target("worker_processes 1;", "", "");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert!(client.try_get("a", "/reset").is_err());
    ringwall.complaint_with(&[
        "[error]",
        "while reading upstream",
        "client: 127.0.0.1",
        "GET /reset",
    ]);
}

#[test]
fn what_clients_do_is_no_error_of_ours() {
    // At Nginx's levels a scan of the port fills no error log.
    let (site, pki) = Site::with_pki();
    let configuration = http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} return 200 x; }}"
    ))
    .replace("error.log info", "error.log error");
    let ringwall = site.start(&configuration);
    for _ in 0..20 {
        drop(tcp(ringwall.address("TLS")).expect("it accepts"));
        let mut client = Connection::plain(ringwall.address("TLS"));
        let _ = client.try_send([0xff; 100]);
        client.remains();
        let mut client = Connection::plain(ringwall.address("TLS"));
        let _ = client.try_send("GET / HTTP/1.1\r\n\r\n");
        client.remains();
    }
    let response = TlsClient::new(&pki.ca).get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(response.expect("served").text(), "x");
    assert_eq!(ringwall.site.read("error.log"), "");
}

#[test]
fn half_client_hellos_and_half_heads_end_at_client_header_timeout_however_many() {
    const EACH: usize = 200;
    let (ringwall, pki, _origin) = target("worker_processes 1;", "", "client_header_timeout 2s;");
    let idle = ringwall.descriptors();
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let hello = client.client_hello(HOST);
    let start = Instant::now();
    let mut held: Vec<Connection> = (0..EACH)
        .flat_map(|_| {
            let mut tls = Connection::plain(ringwall.address("TLS"));
            tls.send(&hello[..hello.len() / 2]);
            let mut plain = Connection::plain(ringwall.address("HTTP"));
            plain.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
            [tls, plain]
        })
        .collect();
    let response = client.get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(response.expect("served meanwhile").text(), "hello");
    // Dribbling puts nothing off.
    while start.elapsed() < Duration::from_millis(3500) {
        for (number, connection) in held.iter_mut().enumerate() {
            let byte = hello[hello.len() / 2 + start.elapsed().as_millis() as usize / 100];
            let _ = connection.try_send([if number % 2 == 0 { byte } else { b'x' }]);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    eventually("all of them are closed", || {
        (ringwall.descriptors() <= idle + KEPT).then_some(())
    });
    drop(held);
}

#[test]
fn who_is_silent_ends_at_client_header_timeout_also_where_accepting_is_deferred() {
    let server = |deferred: &str| {
        http(&format!(
            "client_header_timeout 1s; server {{ listen 127.0.0.1:@HTTP@{deferred}; return 200 x; }}"
        ))
    };
    let mut ringwall = Site::new().start(&server(" deferred"));
    for deferred in ["", " deferred", ""] {
        let address = ringwall.address("HTTP");
        let mut silent = Connection::plain(address);
        assert_eq!(Connection::plain(address).get("a", "/").text(), "x");
        silent.expect_close("a client that says nothing");
        ringwall.rewrite(&server(deferred));
        ringwall.reload();
    }
}

#[test]
fn idle_tls_connections_end_too() {
    let (ringwall, pki, _origin) = target(
        "worker_processes 1;",
        "",
        "keepalive_timeout 1s; client_header_timeout 1s;",
    );
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let mut silent = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    silent.expect_close("a handshake without a request");
    let mut idle = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    assert_eq!(idle.get(HOST, "/").text(), "hello");
    assert!(idle.until_close().expect("a close_notify").is_empty());
}

/// CPU time of a process, user and system, in clock ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(')').expect("a command in brackets");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // utime and stime (proc(5)), counted from the state.
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

/// Opens connections until the proxy can take no more, looks at it for a
/// second, lets them go, and expects it to serve again.
fn overload(ringwall: &mut Ringwall, pki: &Pki, connections: usize) {
    let address = ringwall.address("HTTP");
    let held: Vec<_> = (0..connections).filter_map(|_| tcp(address).ok()).collect();
    assert!(
        held.len() > connections / 2,
        "the kernel's queue takes them"
    );
    let before = ticks(ringwall.pid());
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(ringwall.pid()) - before;
    assert!(ringwall.is_running());
    assert!(
        spent < 50,
        "{spent} of 100 ticks in a second of being full: it spins"
    );
    drop(held);
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    eventually("it serves again", || {
        let response = client.get(ringwall.address("TLS"), HOST, "/").ok()?;
        (response.text() == "hello").then_some(())
    });
}

#[test]
fn running_out_of_worker_connections_is_survived_and_logged() {
    let (mut ringwall, pki, _origin) = target("worker_processes 1;", "worker_connections 32;", "");
    overload(&mut ringwall, &pki, 200);
    ringwall.complaint_with(&["worker_connections are not enough"]);
}

#[test]
fn running_out_of_descriptors_is_survived_without_spinning_and_logged_once() {
    let (mut ringwall, pki, _origin) = target(
        "worker_processes 1; worker_rlimit_nofile 96;",
        "worker_connections 4096;",
        "",
    );
    overload(&mut ringwall, &pki, 300);
    ringwall.complaint_with(&["Too many open files"]);
    let lines = ringwall.complaints().matches("Too many open files").count();
    assert!(lines <= 20, "{lines} lines for one shortage");
}

#[test]
fn a_backend_that_vanishes_costs_no_upstream_connection() {
    let (ringwall, _pki, origin) = target("worker_processes 1;", "", "");
    for _ in 0..50 {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        assert!(client.try_get("a", "/reset").is_err());
    }
    eventually("every upstream connection is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
    assert_eq!(
        Connection::plain(ringwall.address("HTTP"))
            .get("a", "/")
            .text(),
        "hello"
    );
}

#[test]
fn a_burst_of_handshakes_is_answered_in_turn_and_established_connections_meanwhile() {
    // Below what one address may have in flight, and many turns' share.
    const BURST: usize = 200;
    let (ringwall, pki, _origin) = target("worker_processes 1;", "", "");
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let address = ringwall.address("TLS");
    let mut kept = client.connect(address, HOST).expect("a handshake");
    assert_eq!(kept.get(HOST, "/").text(), "hello");
    let hello = client.client_hello(HOST);
    let mut burst: Vec<_> = (0..BURST).map(|_| Connection::plain(address)).collect();
    for connection in &mut burst {
        connection.send(&hello);
    }
    for _ in 0..20 {
        assert_eq!(kept.get(HOST, "/").text(), "hello");
    }
    for (number, connection) in burst.iter_mut().enumerate() {
        let flight = connection.some().expect("an answer");
        // A handshake record with a ServerHello, and no alert.
        assert_eq!((flight[0], flight[5]), (22, 2), "{number}");
    }
}

#[test]
fn handshakes_that_one_address_begins_and_never_ends_leave_room_for_others() {
    // Above what one address may have in flight on a worker.
    const SILENT: usize = 300;
    let (ringwall, pki, _origin) = target("worker_processes 1;", "", "client_header_timeout 3s;");
    let idle = ringwall.descriptors();
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let hello = client.client_hello(HOST);
    let held: Vec<_> = (0..SILENT)
        .map(|_| {
            let mut connection = Connection::plain(ringwall.address("TLS"));
            connection.send(&hello[..hello.len() / 2]);
            connection
        })
        .collect();
    // 127.0.0.1 has had its share for now; 127.0.0.2 has not.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let other = other.expect("a socket");
    let own = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
    other.bind(&own.into()).expect("a loopback address");
    other
        .connect(&ringwall.address("TLS").into())
        .expect("it accepts");
    let mut connection = client
        .connect_over(other.into(), HOST)
        .expect("a handshake");
    assert_eq!(connection.get(HOST, "/").text(), "hello");
    assert!(held.iter().all(Connection::is_quiet), "it waited for them");
    // Those that waited for their turn end as well, and then it is served too.
    eventually("all of them are closed", || {
        (ringwall.descriptors() <= idle + KEPT).then_some(())
    });
    drop(held);
    let response = client.get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(response.expect("served").text(), "hello");
    ringwall.complaint_with(&[
        "[info]",
        "client timed out while waiting for its SSL handshake",
    ]);
}
