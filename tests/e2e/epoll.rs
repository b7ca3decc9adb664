//! Which engine drives the workers, and that both serve alike. io_uring is
//! looked for in the process itself: where it is missing these tests fail.

use crate::support::client::{Connection, TlsClient};
use crate::support::origin::Origin;
use crate::support::pki::Pki;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, whole};
use crate::support::{eventually, patterned};

fn start(events: &str, origin: &Origin) -> (Ringwall, Pki) {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&whole(
        "worker_processes 2;",
        events,
        &format!(
            "client_header_timeout 1s;\n\
             server {{ listen 127.0.0.1:@TLS@ ssl; listen 127.0.0.1:@HTTP@; server_name {HOST};\n\
             {CERTIFICATES} {MUTUAL} client_max_body_size 20m;\n\
             location / {{ proxy_pass {}; }} }}",
            origin.url()
        ),
    ));
    (ringwall, pki)
}

/// How many of the process's descriptors are rings.
fn rings(ringwall: &Ringwall) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", ringwall.pid()))
        .expect("it runs")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().contains("io_uring"))
        .count()
}

fn serves(ringwall: &mut Ringwall, pki: &Pki) {
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let mut connection = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    for size in [0, 5, 20_000, 3_000_000] {
        let body = patterned(size);
        connection.send(format!(
            "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n"
        ));
        connection.send(&body);
        assert!(connection.response("PUT").body == body, "{size}");
    }
    for _ in 0..30 {
        assert!(client.get(ringwall.address("TLS"), HOST, "/").is_ok());
        assert_eq!(
            Connection::plain(ringwall.address("HTTP"))
                .get("a", "/")
                .status,
            200
        );
    }
    assert!(
        TlsClient::new(&pki.ca)
            .get(ringwall.address("TLS"), HOST, "/")
            .is_err()
    );

    let idle = ringwall.descriptors();
    let mut slow: Vec<_> = (0..20)
        .map(|_| {
            let mut slow = Connection::plain(ringwall.address("HTTP"));
            slow.send("GET / HTTP/1.1\r\n");
            slow
        })
        .collect();
    for connection in &mut slow {
        connection.remains();
    }
    eventually("slow heads are closed", || {
        (ringwall.descriptors() <= idle + 1).then_some(())
    });

    ringwall.reload();
    ringwall.complaint_with(&["reconfiguring"]);
    assert!(client.get(ringwall.address("TLS"), HOST, "/").is_ok());
    drop(connection);
    ringwall.signal(rustix::process::Signal::QUIT);
    assert!(ringwall.wait().success());
}

#[test]
fn epoll_serves_where_it_is_asked_for() {
    let origin = Origin::echo();
    let (mut ringwall, pki) = start("use epoll;", &origin);
    assert_eq!(rings(&ringwall), 0);
    serves(&mut ringwall, &pki);
}

#[test]
fn io_uring_serves_where_nothing_is_said_and_where_it_is_asked_for() {
    for events in ["", "use io_uring;"] {
        let origin = Origin::echo();
        let (mut ringwall, pki) = start(events, &origin);
        // The listeners are open before the last worker has its ring.
        eventually("a ring for each worker", || {
            (rings(&ringwall) >= 2).then_some(())
        });
        serves(&mut ringwall, &pki);
    }
}
