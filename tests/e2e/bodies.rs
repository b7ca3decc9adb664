//! Bodies of any size pass in both directions, byte for byte, in bounded
//! memory: who reads slowly slows the sender, not the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};

use crate::support::client::{Connection, TlsClient, Trust};
use crate::support::origin::{Origin, ok, ok_bytes};
use crate::support::ringwall::{HOST, Ringwall, Site, http, mutual_proxy, plain_proxy};
use crate::support::{eventually, patterned};

const MIB: usize = 1024 * 1024;
/// Large against every buffer, small against a test's patience.
const LARGE: usize = 50 * MIB;
/// What the resident memory may grow by while a large body passes. Far above
/// any buffer (and the allocator's slack), far below the body.
const GROWTH_KIB: u64 = 16 * 1024;

fn unlimited(origin: &Origin) -> String {
    plain_proxy(&origin.url()).replace("location / {", "client_max_body_size 0; location / {")
}

/// The backend hears of a body as soon as its first byte is there.
fn streamed(origin: &Origin) -> String {
    unlimited(origin).replace("location / {", "proxy_request_buffering off; location / {")
}

#[test]
fn bodies_of_every_size_and_framing_come_back_as_they_went() {
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            if request.target() == "/chunked" {
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for piece in request.body.chunks(1000) {
                    peer.send(format!("{:x};ext=1\r\n", piece.len()).as_bytes())?;
                    peer.send(piece)?;
                    peer.send(b"\r\n")?;
                }
                peer.send(b"0\r\nX-Trailer: 1\r\n\r\n")?;
            } else {
                peer.send(&ok_bytes(&request.body))?;
            }
        }
    });
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()));
    let mut client = TlsClient::with_identity(&pki.ca, &pki.client)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    // Round the sizes of TLS records and likely buffers.
    for size in [
        0, 1, 2, 1023, 4095, 4096, 8191, 8192, 16_383, 16_384, 16_385, 32_768, 65_535, 65_537,
        200_000,
    ] {
        let body = patterned(size);
        for target in ["/plain", "/chunked"] {
            client.send(format!(
                "POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n"
            ));
            client.send(&body);
            assert!(
                client.response("POST").body == body,
                "{size} up, {target} down"
            );

            client.send(format!(
                "POST {target} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
            ));
            for piece in body.chunks(3000) {
                client.send(format!("{:X}\r\n", piece.len()));
                client.send(piece);
                client.send("\r\n");
            }
            client.send("0\r\n\r\n");
            assert!(
                client.response("POST").body == body,
                "{size} chunked up, {target} down"
            );
        }
    }
}

/// A plain server and one with TLS, and behind them the same backend by plain TCP,
/// by TLS 1.3 and by TLS 1.2.
fn every_transport(origin: &Origin) -> String {
    let url = origin.url();
    let locations = "location /plain { proxy_pass http://127.0.0.1:@BACK@; }\n\
         location /tls13 { proxy_pass https://127.0.0.1:@BACK13@; }\n\
         location /tls12 { proxy_pass https://127.0.0.1:@BACK12@; }\n";
    http(&format!(
        "client_max_body_size 0; proxy_request_buffering off;\n\
         ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;\n\
         server {{ listen 127.0.0.1:@HTTP@; {locations} }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; {locations} }}\n\
         server {{ listen 127.0.0.1:@BACK@; location / {{ proxy_pass {url}; }} }}\n\
         server {{ listen 127.0.0.1:@BACK13@ ssl; ssl_protocols TLSv1.3;\n\
         location / {{ proxy_pass {url}; }} }}\n\
         server {{ listen 127.0.0.1:@BACK12@ ssl; ssl_protocols TLSv1.2;\n\
         location / {{ proxy_pass {url}; }} }}\n"
    ))
}

#[test]
fn bodies_pass_from_every_transport_to_every_other_and_harm_nothing_behind_them() {
    let origin = Origin::echo();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&every_transport(&origin));
    let over = |versions: &[_], record| {
        TlsClient::build(Trust::Ca(&pki.ca), None, versions)
            .in_records_of(record)
            .connect(ringwall.address("TLS"), HOST)
            .expect("a handshake")
    };
    let mut clients = [
        ("plain", Connection::plain(ringwall.address("HTTP"))),
        ("TLS 1.3", over(&[&TLS13], 16_384)),
        ("TLS 1.2", over(&[&TLS12], 16_384)),
        ("TLS 1.3 in small records", over(&[&TLS13], 700)),
        ("TLS 1.2 in odd records", over(&[&TLS12], 5_001)),
    ];
    for size in [5_000, 16_384, 20_000, 33_000, 70_000, 300_001] {
        let body = patterned(size);
        for (kind, client) in &mut clients {
            for backend in ["plain", "tls13", "tls12"] {
                let head = format!(
                    "POST /{backend} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n"
                );
                // In one go, so that the second lies behind the first's body.
                let next = format!(
                    "POST /{backend} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nnext"
                );
                client.send([head.as_bytes(), &body, next.as_bytes()].concat());
                let what = format!("{size} by {kind} to {backend}");
                assert!(client.response("POST").body == body, "{what}");
                assert_eq!(client.response("POST").text(), "next", "behind {what}");
            }
        }
    }
}

#[test]
fn a_close_delimited_response_arrives_whole() {
    let body = patterned(300_000);
    let answer = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &body].concat();
    let origin = Origin::answering(&answer);
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..2 {
        assert!(client.get("a", "/").body == body);
    }
}

#[test]
fn a_large_download_streams_in_bounded_memory() {
    let piece = patterned(MIB);
    let origin = Origin::script(move |peer| {
        loop {
            peer.request()?;
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())?;
            for _ in 0..LARGE / MIB {
                peer.send(&piece)?;
            }
        }
    });
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()));
    let mut client = TlsClient::with_identity(&pki.ca, &pki.client)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    let before = ringwall.resident_kib();
    let response = client.get(HOST, "/");
    let after = ringwall.resident_kib();
    assert_eq!(response.body.len(), LARGE);
    let expected = patterned(MIB);
    assert!(response.body.chunks(MIB).all(|piece| piece == expected));
    assert!(after < before + GROWTH_KIB, "{before} to {after} KiB");
}

#[test]
fn a_large_upload_streams_in_bounded_memory() {
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.head()?;
            let body = if request.header("content-length").is_some() {
                peer.discard(LARGE)?
            } else {
                peer.body(&request)?.len()
            };
            peer.send(&ok(&body.to_string()))?;
        }
    });
    let ringwall = Site::new().start(&unlimited(&origin));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let before = ringwall.resident_kib();
    let piece = patterned(MIB);
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"
    ));
    for _ in 0..LARGE / MIB {
        client.send(&piece);
    }
    assert_eq!(client.response("PUT").text(), LARGE.to_string());
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        client.send(format!("{MIB:x}\r\n"));
        client.send(&piece);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response("PUT").text(), (20 * MIB).to_string());
    let after = ringwall.resident_kib();
    assert!(after < before + GROWTH_KIB, "{before} to {after} KiB");
}

/// Waits until a counter has not moved for half a second; yields it.
fn settled(counter: &AtomicUsize) -> usize {
    let mut last = (counter.load(Ordering::SeqCst), Instant::now());
    eventually("the sender is held up", || {
        let now = counter.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(now)
    })
}

/// What sockets and buffers on the way may hold while nobody reads. The
/// kernel's are the larger part: up to 4 and 6 MiB on each of two connections.
const IN_FLIGHT: usize = 24 * MIB;

#[test]
fn a_client_that_reads_slowly_holds_the_backend_up_not_the_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let piece = patterned(64 * 1024);
    let origin = Origin::script(move |peer| {
        peer.request()?;
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())?;
        for _ in 0..LARGE / piece.len() {
            peer.send(&piece)?;
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        peer.finish()
    });
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let before = ringwall.resident_kib();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("a head").status, 200);
    let held = settled(&sent);
    assert!(held < IN_FLIGHT, "{held} bytes left the backend unread");
    assert!(ringwall.resident_kib() < before + GROWTH_KIB);
    let mut total = 0;
    while total < LARGE {
        let count = client.sip(MIB).expect("more");
        assert!(count > 0, "it ended after {total}");
        total += count;
    }
    assert_eq!(total, LARGE);
}

#[test]
fn a_backend_that_reads_slowly_holds_the_client_up_not_the_memory() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::script(move |peer| {
        peer.head()?;
        // An error means the test has failed and dropped its end.
        let _ = wait.lock().expect("not poisoned").recv();
        let body = peer.discard(LARGE)?;
        peer.send(&ok(&body.to_string()))
    });
    let ringwall = Site::new().start(&unlimited(&origin));
    let before = ringwall.resident_kib();
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sender = std::thread::spawn(move || {
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"
        ));
        let piece = patterned(64 * 1024);
        for _ in 0..LARGE / piece.len() {
            client.send(&piece);
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        client.response("PUT").text()
    });
    let held = settled(&sent);
    let resident = ringwall.resident_kib();
    go.send(()).expect("the backend waits");
    assert!(held < IN_FLIGHT, "{held} bytes left the client unread");
    assert!(resident < before + GROWTH_KIB, "{before} to {resident} KiB");
    assert_eq!(sender.join().expect("no panic"), LARGE.to_string());
}

#[test]
fn a_backend_that_sends_piece_by_piece_is_heard_piece_by_piece() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::script(move |peer| {
        peer.request()?;
        peer.send(
            b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        for piece in ["one", "two"] {
            peer.send(format!("3\r\n{piece}\r\n").as_bytes())?;
            let _ = wait.lock().expect("not poisoned").recv();
        }
        peer.send(b"0\r\n\r\n")?;
        peer.finish()
    });
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("a head").status, 200);
    let mut seen = Vec::new();
    for piece in ["one", "two"] {
        while crate::support::find(&seen, piece.as_bytes()).is_none() {
            seen.extend(
                client
                    .some()
                    .expect("the piece comes before the next is sent"),
            );
        }
        go.send(()).expect("the backend waits");
    }
    while !seen.ends_with(b"0\r\n\r\n") {
        seen.extend(client.some().expect("the end"));
    }
}

#[test]
fn a_fast_upload_that_falls_silent_is_passed_on_to_its_last_byte() {
    const FAST: usize = 4 * MIB;
    // Less than what is waited for while it is fast.
    const LAST: usize = 1000;
    let (seen, heard) = std::sync::mpsc::channel::<usize>();
    let origin = Origin::script(move |peer| {
        loop {
            peer.head()?;
            for part in [FAST + LAST, MIB - LAST] {
                let _ = seen.send(peer.discard(part)?);
            }
            peer.send(&ok("all"))?;
        }
    });
    let (site, pki) = Site::with_pki();
    let config = mutual_proxy(&origin.url()).replace(
        "location / {",
        "client_max_body_size 0; proxy_request_buffering off; location / {",
    );
    let ringwall = site.start(&config);
    let mut client = TlsClient::with_identity(&pki.ca, &pki.client)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    // The second one on the same connection finds it as the first one did.
    for _ in 0..2 {
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n",
            FAST + MIB
        ));
        client.send(patterned(FAST));
        client.send(patterned(LAST));
        assert_eq!(heard.recv().expect("the backend has it"), FAST + LAST);
        client.send(patterned(MIB - LAST));
        assert_eq!(client.response("PUT").text(), "all");
        assert_eq!(heard.recv().expect("the backend has it"), MIB - LAST);
    }
}

#[test]
fn an_early_response_to_an_upload_reaches_the_client() {
    let origin = Origin::script(|peer| {
        peer.head()?;
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
        peer.finish()
    });
    let ringwall = Site::new().start(&streamed(&origin));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n{}",
        "x".repeat(1000)
    ));
    let response = client.response("PUT");
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

#[test]
fn a_backend_can_answer_before_any_of_the_body_has_come() {
    let origin = Origin::script(|peer| {
        peer.head()?;
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
        peer.hang()
    });
    let ringwall = Site::new().start(&streamed(&origin));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    let response = client.response("PUT");
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

#[test]
fn a_backend_that_closes_without_reading_the_upload_gives_its_answer_or_502() {
    let origin = Origin::script(|peer| {
        peer.head()?;
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")?;
        // Unread bytes turn this close into a reset.
        Ok(())
    });
    let ringwall = Site::new().start(&unlimited(&origin));
    for _ in 0..10 {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        let mut sender = Connection::over(client.socket().try_clone().expect("a second handle"));
        let writing = std::thread::spawn(move || {
            let head = format!(
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                4 * MIB
            );
            // The refusal may close the connection before all is sent.
            let _ = sender.try_send(head);
            let _ = sender.try_send(patterned(4 * MIB));
        });
        // A client that writes on regardless can lose the answer to a reset.
        if let Ok(response) = client.try_response("PUT") {
            assert!(matches!(response.status, 403 | 502), "{}", response.status);
        }
        drop(client);
        writing.join().expect("no panic");
    }
}

#[test]
fn a_client_that_vanishes_in_an_upload_leaves_nothing_behind() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&unlimited(&origin));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello");
    drop(client);
    eventually("the upstream connection, if any, is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_client_that_vanishes_in_a_download_ends_the_upstream_connection() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            peer.send(b"5\r\nhello\r\n")?;
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("a head").status, 200);
    client.reset();
    eventually("the backend is told", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn a_client_that_does_not_read_is_let_go_at_send_timeout() {
    let piece = patterned(MIB);
    let origin = Origin::script(move |peer| {
        peer.request()?;
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())?;
        for _ in 0..LARGE / MIB {
            peer.send(&piece)?;
        }
        peer.finish()
    });
    let ringwall: Ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; send_timeout 1s; location / {{ proxy_pass {}; }} }}",
        origin.url()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the upload is cut off", || {
        (origin.connections() == 1 && origin.open_connections() == 0).then_some(())
    });
    ringwall.complaint_with(&["client timed out"]);
    drop(client);
}

/// How much passes in each direction in the next test: half a GiB, or as many
/// GiB as `RINGWALL_TEST_GIB` says (10 is what is promised).
fn bulk() -> usize {
    let gib = std::env::var("RINGWALL_TEST_GIB").ok();
    gib.and_then(|gib| gib.parse::<usize>().ok())
        .map_or(512 * MIB, |gib| gib * 1024 * MIB)
}

#[test]
fn gigabytes_pass_through_a_process_of_64_mib() {
    const RESIDENT_KIB: u64 = 64 * 1024;
    let total = bulk();
    let origin = Origin::script(move |peer| {
        loop {
            let request = peer.head()?;
            if request.line.starts_with("PUT") {
                let count = peer.discard(total)?;
                peer.send(&ok(&count.to_string()))?;
                continue;
            }
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes())?;
            let piece = patterned(MIB);
            for _ in 0..total / MIB {
                peer.send(&piece)?;
            }
        }
    });
    let ringwall = Site::new().start(&unlimited(&origin));
    let mut most = 0;
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("a head").status, 200);
    let mut received = 0;
    while received < total {
        let count = client.sip(MIB).expect("more of the body");
        assert!(count > 0, "cut off after {received} bytes");
        received += count;
        if received % (64 * MIB) < count {
            most = most.max(ringwall.resident_kib());
        }
    }
    let piece = patterned(MIB);
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n"
    ));
    for sent in 0..total / MIB {
        client.send(&piece);
        if sent % 64 == 0 {
            most = most.max(ringwall.resident_kib());
        }
    }
    assert_eq!(client.response("PUT").text(), total.to_string());
    assert!(most < RESIDENT_KIB, "{most} KiB");
}

#[test]
fn a_range_is_the_backends_to_answer() {
    let origin = Origin::http(|request| match request.header("range") {
        Some("bytes=2-4") => b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\n\
            Content-Length: 3\r\n\r\n234"
            .to_vec(),
        Some(_) => b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\n\
            Content-Length: 0\r\n\r\n"
            .to_vec(),
        None => ok("0123456789"),
    });
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for (range, status, content_range, body) in [
        ("Range: bytes=2-4\r\n", 206, Some("bytes 2-4/10"), "234"),
        ("Range: bytes=20-\r\n", 416, Some("bytes */10"), ""),
        ("", 200, None, "0123456789"),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{range}\r\n"));
        let response = client.response("GET");
        assert_eq!((response.status, response.text().as_str()), (status, body));
        assert_eq!(response.header("content-range"), content_range);
    }
}
