//! Backends that speak HTTP/2: streams of many clients over few connections,
//! what may be repeated and what not, windows, and answers that break the rules
//! of RFC 9113.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::support::client::{Connection, Response};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR, MAX_CONCURRENT_STREAMS, NO_ERROR, PADDED, PING, PRIORITY, PUSH_PROMISE,
    REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::support::h2::{self, H2, block};
use crate::support::neighbour;
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, Peer};
use crate::support::pki::Pki;
use crate::support::ringwall::{HOST, Ringwall, Site, whole};
use crate::support::{eventually, tools};

/// One worker, so that connections can be counted.
fn start(content: &str) -> Ringwall {
    start_at(Site::new(), content)
}

fn start_at(site: Site, content: &str) -> Ringwall {
    site.start(&whole("worker_processes 1;", "", content))
}

/// Everything goes to this backend by HTTP/2.
fn proxy_to(origin: &Origin, settings: &str) -> Ringwall {
    start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; proxy_http_version 2; {settings}\n\
         location / {{ proxy_pass {}; }} }}",
        origin.url()
    ))
}

fn get(address: SocketAddr, target: &str) -> Response {
    Connection::plain(address).get("a", target)
}

fn post(address: SocketAddr, body: &str) -> Response {
    let mut client = Connection::plain(address);
    let length = body.len();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    client.response("POST")
}

/// Requests at the same time; their answers.
fn at_once(address: SocketAddr, count: usize) -> Vec<Response> {
    let clients = (0..count).map(|n| std::thread::spawn(move || get(address, &format!("/{n}"))));
    let clients: Vec<_> = clients.collect();
    let answers = clients.into_iter().map(|client| client.join());
    answers.map(|answer| answer.expect("an answer")).collect()
}

/// Answers every request with 200 and its number on the connection.
fn well_behaved(peer: &mut Peer) -> std::io::Result<()> {
    let mut frames = Frames::greet(peer, &[])?;
    loop {
        let (stream, _) = frames.request()?;
        frames.ok(stream, "hello")?;
    }
}

#[test]
fn many_clients_share_one_connection() {
    const CLIENTS: usize = 8;
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[(MAX_CONCURRENT_STREAMS, 100)])?;
        // The first alone, so that the others find a connection.
        let (first, _) = frames.request()?;
        frames.ok(first, "first")?;
        loop {
            let streams = (0..CLIENTS).map(|_| frames.request().map(|(stream, _)| stream));
            let streams: Vec<_> = streams.collect::<Result<_, _>>()?;
            // None is answered before all are here, and the last one first.
            for stream in streams.into_iter().rev() {
                frames.ok(stream, "hello")?;
            }
        }
    });
    let ringwall = proxy_to(&origin, "");
    assert_eq!(get(ringwall.address("HTTP"), "/").text(), "first");
    for answer in at_once(ringwall.address("HTTP"), CLIENTS) {
        assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn requests_that_come_at_once_make_one_connection() {
    let origin = Origin::script(well_behaved);
    let ringwall = proxy_to(&origin, "");
    let answers = at_once(ringwall.address("HTTP"), 12);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(origin.connections(), 1);
}

/// Lets all through when so many have come.
struct Gate {
    here: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            here: Mutex::new(0),
            changed: Condvar::new(),
        })
    }

    fn pass(&self, count: usize, wanted: usize) {
        let mut here = self.here.lock().expect("not poisoned");
        *here += count;
        self.changed.notify_all();
        let waited = self
            .changed
            .wait_timeout_while(here, Duration::from_secs(60), |here| *here < wanted);
        assert!(!waited.expect("not poisoned").1.timed_out(), "too few came");
    }
}

#[test]
fn streams_stay_within_what_the_peer_allows() {
    let gate = Gate::new();
    let origin = Origin::script(move |peer| {
        let mut frames = Frames::greet(peer, &[(MAX_CONCURRENT_STREAMS, 2)])?;
        loop {
            let one = frames.request()?.0;
            let other = frames.request()?.0;
            // A third here would be one too many; it must be on a connection
            // of its own for all six to come.
            gate.pass(2, 6);
            frames.ok(one, "hello")?;
            frames.ok(other, "hello")?;
        }
    });
    let ringwall = proxy_to(&origin, "");
    let answers = at_once(ringwall.address("HTTP"), 6);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(origin.connections(), 3);
}

#[test]
fn a_refused_request_is_sent_again_with_its_body_whatever_its_method() {
    for kind in ["reset", "goaway"] {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&bodies);
        let origin = Origin::script(move |peer| {
            let is_first = peer.index == 0;
            let mut frames = Frames::greet(peer, &[])?;
            let mut refused = 0;
            loop {
                let (stream, body) = frames.request()?;
                seen.lock().expect("not poisoned").push(body);
                if kind == "reset" && refused == 0 {
                    refused += 1;
                    frames.reset(stream, REFUSED_STREAM)?;
                } else if kind == "goaway" && is_first {
                    frames.go_away(0, NO_ERROR)?;
                } else {
                    frames.ok(stream, "done")?;
                }
            }
        });
        let ringwall = proxy_to(&origin, "");
        let answer = post(ringwall.address("HTTP"), "a body");
        assert_eq!(
            (answer.status, answer.text()),
            (200, "done".to_owned()),
            "{kind}"
        );
        let bodies = bodies.lock().expect("not poisoned");
        assert_eq!(*bodies, [b"a body", b"a body"], "{kind}");
        assert!(
            !ringwall.complaints().contains("[error]"),
            "{kind}: nobody's fault"
        );
    }
}

#[test]
fn a_backend_that_always_refuses_is_not_asked_for_ever() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::script(move |peer| {
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            let (stream, _) = frames.request()?;
            count.fetch_add(1, Ordering::SeqCst);
            frames.reset(stream, REFUSED_STREAM)?;
        }
    });
    let other = Origin::script(well_behaved);
    let ringwall = start(&format!(
        "upstream u {{ server {}; server {}; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; proxy_http_version 2;\n\
         location / {{ proxy_pass http://u; }}\n\
         location /alone {{ proxy_pass {}; }} }}",
        origin.address(),
        other.address(),
        origin.url()
    ));
    let answer = get(ringwall.address("HTTP"), "/alone");
    assert_eq!(answer.status, 502);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    ringwall.complaint_with(&["upstream rejected request with error 7", "/alone"]);
    // Nothing was done, so the next backend may do it.
    let answer = post(ringwall.address("HTTP"), "once");
    assert_eq!(answer.status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 6);
}

#[test]
fn what_a_goaway_lets_through_is_answered_and_the_rest_goes_elsewhere() {
    let origin = Origin::script(|peer| {
        let is_first = peer.index == 0;
        let mut frames = Frames::greet(peer, &[])?;
        let (stream, _) = frames.request()?;
        if is_first {
            frames.go_away(stream, NO_ERROR)?;
        }
        frames.ok(stream, "answered")?;
        loop {
            let (stream, _) = frames.request()?;
            assert!(!is_first, "no stream after GOAWAY");
            frames.ok(stream, "elsewhere")?;
        }
    });
    let ringwall = proxy_to(&origin, "");
    let address = ringwall.address("HTTP");
    assert_eq!(get(address, "/").text(), "answered");
    assert_eq!(get(address, "/").text(), "answered");
    assert_eq!(get(address, "/").text(), "elsewhere");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_request_that_may_have_been_done_is_not_done_again() {
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[])?;
        let (stream, _) = frames.request()?;
        frames.ok(stream, "first")?;
        // The second is read, and the connection gone without a word.
        frames.request()?;
        Ok(())
    });
    let ringwall = proxy_to(&origin, "");
    let address = ringwall.address("HTTP");
    assert_eq!(get(address, "/").text(), "first");
    assert_eq!(post(address, "pay").status, 502);
    assert_eq!(origin.connections(), 1);
    ringwall.complaint_with(&["prematurely closed connection", "POST"]);
    // A GET may be: the connection had been there before it.
    assert_eq!(get(address, "/").text(), "first");
    assert_eq!(get(address, "/").text(), "first");
    assert_eq!(origin.connections(), 3);
}

#[test]
fn responses_that_break_the_rules_are_502() {
    let heads: [&[(&str, &str)]; 8] = [
        &[("x-a", "no status")],
        &[(":status", "2oo")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("X-Upper", "a")],
        &[(":status", "200"), ("x-space", " a")],
        &[(":status", "200"), ("x-line", "a\r\nx-b: c")],
        &[("x-a", "late"), (":status", "200")],
    ];
    // Some of these are errors of the whole connection.
    let next = AtomicUsize::new(0);
    let origin = Origin::script(move |peer| {
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            let (stream, _) = frames.request()?;
            match heads.get(next.fetch_add(1, Ordering::SeqCst)) {
                Some(fields) => frames.headers(stream, fields, END_STREAM)?,
                None => frames.ok(stream, "hello")?,
            }
        }
    });
    let ringwall = proxy_to(&origin, "");
    let address = ringwall.address("HTTP");
    for head in heads {
        assert_eq!(get(address, "/").status, 502, "{head:?}");
    }
    assert_eq!(get(address, "/").status, 200);
    ringwall.complaint_with(&["upstream sent", "while reading response"]);
}

#[test]
fn a_body_of_another_length_than_announced_reaches_no_client_as_whole() {
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            for body in ["four", "eleven and more"] {
                let (stream, _) = frames.request()?;
                frames.headers(stream, &[(":status", "200"), ("content-length", "10")], 0)?;
                frames.send(DATA, END_STREAM, stream, body.as_bytes())?;
            }
        }
    });
    let ringwall = proxy_to(&origin, "");
    for _ in 0..2 {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.try_response("GET");
        let refused = answer.as_ref().is_ok_and(|answer| answer.status == 502);
        assert!(refused || answer.is_err(), "{answer:?}");
    }
    ringwall.complaint_with(&["upstream sent invalid http2 frames"]);
}

#[test]
fn a_backend_that_speaks_something_else_is_502() {
    let origin = Origin::script(|peer| {
        peer.take(24)?;
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        peer.finish()
    });
    let ringwall = proxy_to(&origin, "");
    assert_eq!(get(ringwall.address("HTTP"), "/").status, 502);
    ringwall.complaint_with(&["upstream", "while reading response header"]);
}

#[test]
fn a_body_is_sent_as_the_peers_window_opens() {
    const WINDOW: u32 = 10;
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[(INITIAL_WINDOW_SIZE, WINDOW)])?;
        // With the answer to this one our settings are known.
        let (stream, _) = frames.request()?;
        frames.ok(stream, "hello")?;
        let (mut body, mut open) = (0, u64::from(WINDOW));
        let stream = loop {
            let frame = frames.next()?;
            if frame.kind == DATA {
                body += frame.payload.len() as u64;
                assert!(body <= open, "{body} bytes with a window of {open}");
                if frame.ends() {
                    break frame.stream;
                }
                frames.widen(frame.stream, 7)?;
                open += 7;
            }
        };
        frames.ok(stream, &body.to_string())?;
        frames.next().map(drop)
    });
    let ringwall = proxy_to(&origin, "");
    let body = "x".repeat(1000);
    assert_eq!(get(ringwall.address("HTTP"), "/").text(), "hello");
    assert_eq!(post(ringwall.address("HTTP"), &body).text(), "1000");
}

#[test]
fn a_slow_client_holds_up_its_own_stream_and_no_other() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::script(move |peer| {
        let mut frames = Frames::greet(peer, &[])?;
        // What the client of a stream may be sent, from its SETTINGS: 256 KiB.
        let (large, _) = frames.request()?;
        frames.headers(large, &[(":status", "200")], 0)?;
        for _ in 0..16 {
            frames.send(DATA, 0, large, &[b'x'; 16384])?;
            count.fetch_add(16384, Ordering::SeqCst);
        }
        loop {
            let (stream, _) = frames.request()?;
            frames.ok(stream, "hello")?;
        }
    });
    let ringwall = proxy_to(&origin, "");
    let address = ringwall.address("HTTP");
    let mut slow = Connection::plain(address);
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the window is full", || {
        (sent.load(Ordering::SeqCst) == 16 * 16384).then_some(())
    });
    for _ in 0..5 {
        assert_eq!(get(address, "/small").text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_leaves_ends_its_stream_and_not_the_connection() {
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    let origin = Origin::script(move |peer| {
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            let frame = frames.next()?;
            match frame.kind {
                HEADERS if count.load(Ordering::SeqCst) > 0 => frames.ok(frame.stream, "hello")?,
                RST_STREAM => drop(count.fetch_add(1, Ordering::SeqCst)),
                _ => {}
            }
        }
    });
    let ringwall = proxy_to(&origin, "");
    let address = ringwall.address("HTTP");
    let mut client = Connection::plain(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request has arrived", || {
        (origin.connections() == 1).then_some(())
    });
    client.reset();
    eventually("the stream is reset", || {
        (resets.load(Ordering::SeqCst) == 1).then_some(())
    });
    assert_eq!(get(address, "/").text(), "hello");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_backend_that_stays_silent_is_504_and_gets_no_more_streams() {
    let origin = Origin::script(|peer| {
        let is_first = peer.index == 0;
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            let (stream, _) = frames.request()?;
            if !is_first {
                frames.ok(stream, "hello")?;
            }
        }
    });
    let ringwall = proxy_to(&origin, "proxy_read_timeout 1s;");
    let address = ringwall.address("HTTP");
    assert_eq!(get(address, "/").status, 504);
    ringwall.complaint_with(&["upstream timed out", "while reading response header"]);
    assert_eq!(get(address, "/").text(), "hello");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_backend_that_takes_no_more_of_a_body_and_stays_silent_is_504() {
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[(INITIAL_WINDOW_SIZE, 10)])?;
        // With the answer to this one our settings are known.
        let (stream, _) = frames.request()?;
        frames.ok(stream, "hello")?;
        loop {
            frames.next()?;
        }
    });
    let ringwall = proxy_to(&origin, "proxy_send_timeout 1s; proxy_read_timeout 1s;");
    let address = ringwall.address("HTTP");
    assert_eq!(get(address, "/").text(), "hello");
    assert_eq!(post(address, &"x".repeat(1000)).status, 504);
    ringwall.complaint_with(&["upstream timed out", "while reading response header"]);
}

#[test]
fn a_connection_serves_as_many_requests_as_it_may() {
    let goodbyes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&goodbyes);
    let origin = Origin::script(move |peer| {
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            let frame = frames.next()?;
            if frame.kind == GOAWAY {
                count.fetch_add(1, Ordering::SeqCst);
            } else if frame.ends() {
                frames.ok(frame.stream, "hello")?;
            }
        }
    });
    let ringwall = start(&format!(
        "upstream u {{ server {}; keepalive_requests 3; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; proxy_http_version 2;\n\
         location / {{ proxy_pass http://u; }} }}",
        origin.address()
    ));
    for _ in 0..7 {
        assert_eq!(get(ringwall.address("HTTP"), "/").text(), "hello");
    }
    assert_eq!(origin.connections(), 3);
    eventually("goodbye is said to what is used up", || {
        (goodbyes.load(Ordering::SeqCst) == 2).then_some(())
    });
    eventually("used connections are closed", || {
        (origin.open_connections() <= 1).then_some(())
    });
}

#[test]
fn an_early_answer_ends_the_upload_and_reaches_the_client() {
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            let frame = frames.next()?;
            if frame.kind == HEADERS {
                frames.headers(frame.stream, &[(":status", "413")], 0)?;
                frames.send(DATA, END_STREAM, frame.stream, b"too much")?;
                frames.reset(frame.stream, NO_ERROR)?;
            }
        }
    });
    let ringwall = proxy_to(
        &origin,
        "proxy_request_buffering off; client_max_body_size 0;",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.text()), (413, "too much".to_owned()));
}

#[test]
fn an_answer_that_is_reset_half_way_is_not_taken_for_a_whole_one() {
    for code in [NO_ERROR, INTERNAL_ERROR] {
        let origin = Origin::script(move |peer| {
            let mut frames = Frames::greet(peer, &[])?;
            let (stream, _) = frames.request()?;
            frames.headers(stream, &[(":status", "200")], 0)?;
            frames.send(DATA, 0, stream, b"half")?;
            frames.reset(stream, code)?;
            frames.next().map(drop)
        });
        let ringwall = proxy_to(&origin, "");
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.try_response("GET");
        let refused = answer.as_ref().is_ok_and(|answer| answer.status == 502);
        assert!(refused || answer.is_err(), "{code}: {answer:?}");
        ringwall.complaint_with(&["upstream rejected request with error"]);
    }
}

#[test]
fn interim_answers_are_no_answers() {
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[])?;
        let (stream, _) = frames.request()?;
        frames.headers(stream, &[(":status", "100")], 0)?;
        frames.headers(stream, &[(":status", "103"), ("link", "</a>")], 0)?;
        frames.ok(stream, "hello")?;
        let (stream, _) = frames.request()?;
        for _ in 0..17 {
            frames.headers(stream, &[(":status", "103")], 0)?;
        }
        let (stream, _) = frames.request()?;
        frames.headers(stream, &[(":status", "101")], 0)?;
        frames.next().map(drop)
    });
    let ringwall = proxy_to(&origin, "early_hints 1;");
    let address = ringwall.address("HTTP");
    let answer = get(address, "/");
    assert_eq!((answer.interim, answer.status), (vec![103], 200));
    assert_eq!(get(address, "/").status, 502);
    assert_eq!(get(address, "/").status, 502);
}

/// Debian's Nginx as a backend that speaks HTTP/2 by TLS and asks for a
/// certificate.
const SECURE_BACKEND: &str = "server { listen 127.0.0.1:@NGINX@ ssl http2; server_name _;\n\
     ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;\n\
     ssl_client_certificate @DIR@/ca.crt; ssl_verify_client on; client_max_body_size 0;\n\
     location / { return 200 \"$connection $server_protocol $ssl_client_s_dn $host $http_x_a\"; }\n\
     location /file { root @DIR@; } location /empty { return 204; } }";

#[test]
fn streams_are_never_shared_across_tls_identity() {
    let (mut site, pki) = Site::with_pki();
    write_identities(&pki, &site);
    let _nginx = Nginx::start(&mut site, SECURE_BACKEND);
    let ringwall = start_at(
        site,
        "proxy_http_version 2; proxy_ssl_verify on; proxy_ssl_name test.example;\n\
         proxy_ssl_trusted_certificate @DIR@/ca.crt;\n\
         proxy_set_header Host backend; proxy_set_header X-A \"a $host\";\n\
         server { listen 127.0.0.1:@HTTP@;\n\
         location /one { proxy_pass https://127.0.0.1:@NGINX@;\n\
         proxy_ssl_certificate @DIR@/one.crt; proxy_ssl_certificate_key @DIR@/one.key; }\n\
         location /two { proxy_pass https://127.0.0.1:@NGINX@;\n\
         proxy_ssl_certificate @DIR@/two.crt; proxy_ssl_certificate_key @DIR@/two.key; }\n\
         location /none { proxy_pass https://127.0.0.1:@NGINX@; }\n\
         location /name { proxy_pass https://127.0.0.1:@NGINX@; proxy_ssl_name other.example;\n\
         proxy_ssl_certificate @DIR@/one.crt; proxy_ssl_certificate_key @DIR@/one.key; } }",
    );
    let address = ringwall.address("HTTP");
    let mut connections = Vec::new();
    for (target, name) in [
        ("/one", "one"),
        ("/two", "two"),
        ("/one", "one"),
        ("/two", "two"),
    ] {
        let answer = get(address, target);
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let (connection, said) = text.split_once(' ').expect("words");
        assert_eq!(said, format!("HTTP/2.0 CN={name} backend a a"));
        connections.push(connection.to_owned());
    }
    assert_eq!(connections[0], connections[2]);
    assert_eq!(connections[1], connections[3]);
    assert_ne!(connections[0], connections[1]);
    // Nor is a connection that is there good enough for who must be another.
    assert_eq!(get(address, "/name").status, 502);
    assert_eq!(
        get(address, "/none").status,
        400,
        "by Nginx, which wants a certificate"
    );
}

fn write_identities(pki: &Pki, site: &Site) {
    for name in ["one", "two"] {
        pki.ca.client(name).write(site.path(), name);
    }
}

#[test]
fn bodies_of_any_size_pass_both_ways_to_nginx() {
    let mut site = Site::new();
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(site.file("large"), &large).expect("writable");
    std::fs::create_dir(site.file("upload")).expect("writable");
    let _nginx = Nginx::start(
        &mut site,
        "client_max_body_size 0; server { listen 127.0.0.1:@NGINX@ http2; root @DIR@;\n\
         location /upload { dav_methods PUT; } location /empty { return 204; } }",
    );
    let ringwall = start_at(
        site,
        "client_max_body_size 0; proxy_http_version 2; server { listen 127.0.0.1:@HTTP@;\n\
         location / { proxy_pass http://127.0.0.1:@NGINX@; }\n\
         location /streamed/ { proxy_request_buffering off;\n\
         proxy_pass http://127.0.0.1:@NGINX@/upload/; } }",
    );
    let address = ringwall.address("HTTP");
    let answer = get(address, "/large");
    assert!(answer.body == large, "{} bytes", answer.body.len());
    assert_eq!(answer.header("content-length"), Some("3000000"));
    let mut client = Connection::plain(address);
    client.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response("HEAD");
    assert_eq!(head.header("content-length"), Some("3000000"));
    assert_eq!(client.get("a", "/empty").status, 204);
    let etag = answer.header("etag").expect("an etag").to_owned();
    client.send(format!(
        "GET /large HTTP/1.1\r\nHost: a\r\nIf-None-Match: {etag}\r\n\r\n"
    ));
    assert_eq!(client.response("GET").status, 304);
    for target in ["/upload/a", "/streamed/b"] {
        client.send(format!(
            "PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            large.len()
        ));
        client.send(&large);
        assert_eq!(client.response("PUT").status, 201, "{target}");
        client.send(format!(
            "PUT {target}c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            large.len()
        ));
        client.send(&large);
        client.send("\r\n0\r\n\r\n");
        assert_eq!(client.response("PUT").status, 201, "{target}c");
    }
    for name in ["upload/a", "upload/ac", "upload/b", "upload/bc"] {
        let arrived = std::fs::read(ringwall.site.file(name)).expect("uploaded");
        assert!(arrived == large, "{name}: {} bytes", arrived.len());
    }
}

#[test]
fn the_log_says_what_it_says_of_http_1() {
    let origin = Origin::script(well_behaved);
    let site = Site::new();
    let ringwall = site.start(&whole(
        "worker_processes 1;",
        "",
        &format!(
            "log_format up '$upstream_addr $upstream_status $upstream_response_length \
             [$upstream_connect_time] sent $upstream_bytes_sent. \
             received $upstream_bytes_received. $request_uri';\n\
             access_log @DIR@/up.log up;\n\
             upstream u {{ server 127.0.0.1:@DOWN@; server {}; }}\n\
             server {{ listen 127.0.0.1:@HTTP@; proxy_http_version 2;\n\
             location / {{ proxy_pass http://u; }} }}",
            origin.address()
        ),
    ));
    let address = ringwall.address("HTTP");
    assert_eq!(get(address, "/a").status, 200);
    let down = ringwall.address("DOWN");
    let line = eventually("the line is written", || {
        ringwall
            .site
            .read("up.log")
            .lines()
            .next()
            .map(str::to_owned)
    });
    let expected = format!("{down}, {} 502, 200 0, 5 [-, ", origin.address());
    assert!(line.starts_with(&expected), "{line}");
    // The fields, and the body as well.
    for (what, least) in [("sent", 1), ("received", 6)] {
        let (_, behind) = line.split_once(&format!("{what} 0, ")).expect("two tries");
        let (number, _) = behind.split_once('.').expect("a number");
        assert!(number.parse::<u32>().is_ok_and(|n| n >= least), "{line}");
    }
    ringwall.complaint_with(&["connect() failed", "upstream: \"http://"]);
}

#[test]
fn what_cannot_be_by_http_2_is_refused_at_load() {
    for (directives, message) in [
        (
            "proxy_pass https://127.0.0.1; proxy_ssl_alpn h2;",
            "\"proxy_ssl_alpn\" offers what \"proxy_http_version 1.1\" does not speak",
        ),
        (
            "proxy_pass https://127.0.0.1; proxy_http_version 2; proxy_ssl_alpn h2 http/1.1;",
            "\"proxy_ssl_alpn\" offers what \"proxy_http_version 2\" does not speak",
        ),
        (
            "proxy_pass http://127.0.0.1; proxy_http_version 3;",
            "invalid value \"3\"",
        ),
        ("grpc_pass 127.0.0.1;", "no port in upstream \"127.0.0.1\""),
        (
            "grpc_pass grpc://127.0.0.1:1/path;",
            "invalid host in upstream \"127.0.0.1:1/path\"",
        ),
        (
            "grpc_pass 127.0.0.1:1; grpc_pass 127.0.0.1:2;",
            "\"grpc_pass\" directive is duplicate",
        ),
        (
            "grpc_pass 127.0.0.1:1; grpc_next_upstream maybe;",
            "invalid value \"maybe\"",
        ),
        (
            "grpc_pass grpcs://127.0.0.1:1; grpc_ssl_verify on;",
            "no grpc_ssl_trusted_certificate for grpc_ssl_verify",
        ),
        (
            "grpc_pass grpcs://127.0.0.1:1; grpc_ssl_certificate a;",
            "no \"grpc_ssl_certificate_key\" is defined for certificate",
        ),
        (
            "grpc_pass grpcs://127.0.0.1:1; grpc_ssl_ciphers NONE;",
            "invalid grpc_ssl_ciphers \"NONE\"",
        ),
    ] {
        let content =
            format!("server {{ listen 127.0.0.1:@HTTP@; location / {{\n{directives}\n}} }}");
        let outcome = Site::new().check(&whole("", "", &content));
        assert!(!outcome.ok(), "{directives}");
        assert!(
            outcome.stderr.contains(message),
            "{directives}: {}",
            outcome.stderr
        );
        assert!(
            outcome.stderr.contains("ringwall.conf:"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn a_field_that_names_a_client_is_not_the_clients_to_send() {
    let origin = Origin::script(well_behaved);
    let (site, pki) = Site::with_pki();
    drop(pki);
    let ringwall = start_at(
        site,
        &format!(
            "server {{ listen 127.0.0.1:@HTTP@; proxy_http_version 2;\n\
             proxy_set_header X-Client $ssl_client_s_dn; server_name {HOST};\n\
             location / {{ proxy_pass {}; }} }}",
            origin.url()
        ),
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Client: CN=forged\r\nx_client: CN=forged\r\n\
         Connection: x-hop\r\nX-Hop: secret\r\nX-Kept: yes\r\n\r\n",
    );
    assert_eq!(client.response("GET").status, 200);
    let [fields] = &heads(&ringwall, &origin)[..] else {
        panic!("one request, without trailers");
    };
    let authority = format!(":authority {}", origin.address());
    assert_eq!(
        *fields,
        [
            &*authority,
            ":method GET",
            ":path /",
            ":scheme http",
            "x-kept yes"
        ]
    );
}

/// One bad backend, and a good one at `/other` whose client is served while
/// somebody asks the bad one. What that client got.
fn attacked(bad: &Origin) -> (Ringwall, std::io::Result<Response>) {
    let good = Origin::script(well_behaved);
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; proxy_http_version 2; keepalive_requests 1000000;\n\
         location / {{ proxy_pass {}; }} location /other {{ proxy_pass {}; }} }}",
        bad.url(),
        good.url()
    ));
    let address = ringwall.address("HTTP");
    let mut other = Connection::plain(address);
    let ask = move || assert_eq!(other.get("a", "/other").text(), "hello");
    let answer = neighbour::attacked(&ringwall, ask, || {
        let mut client = Connection::plain(address);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.try_response("GET")
    });
    (ringwall, answer)
}

/// A frame: type, flags, payload.
type Flood = (u8, u8, Vec<u8>);

/// What the client gets of a backend that sends one frame again and again, on the
/// stream that `begin` names: the backend is left before it comes to an end.
fn flooded(
    what: &str,
    (kind, flags, payload): Flood,
    begin: impl Fn(&mut Frames<'_>, u32) -> std::io::Result<u32> + Send + Sync + 'static,
) -> std::io::Result<Response> {
    const MOST: usize = 100_000;
    eprintln!("{what}");
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::script(move |peer| {
        let mut frames = Frames::greet(peer, &[])?;
        let (stream, _) = frames.request()?;
        let stream = begin(&mut frames, stream)?;
        while count.fetch_add(1, Ordering::SeqCst) < MOST {
            frames.send(kind, flags, stream, &payload)?;
        }
        Ok(())
    });
    let (ringwall, answer) = attacked(&origin);
    assert!(sent.load(Ordering::SeqCst) < MOST, "{what}");
    ringwall.complaint_with(&["upstream sent invalid http2 frames (ENHANCE_YOUR_CALM)"]);
    answer
}

#[test]
fn a_backend_that_floods_is_left_and_the_others_go_on() {
    let floods: [(&str, u8, u8, &[u8]); 7] = [
        ("PING", PING, 0, &[0; 8]),
        ("SETTINGS", SETTINGS, 0, &[]),
        ("PRIORITY", PRIORITY, 0, &[0, 0, 0, 3, 16]),
        ("empty DATA", DATA, 0, &[]),
        ("padding", DATA, PADDED, &[0]),
        ("windows", WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        ("unknown", 0xbb, 0, &[]),
    ];
    for (what, kind, flags, payload) in floods {
        let answer = flooded(
            what,
            (kind, flags, payload.to_vec()),
            move |frames, stream| {
                frames.headers(stream, &[(":status", "200")], 0)?;
                Ok(match kind {
                    DATA | PRIORITY => stream,
                    _ => 0,
                })
            },
        );
        let refused = answer.as_ref().is_ok_and(|answer| answer.status == 502);
        assert!(refused || answer.is_err(), "{what}: {answer:?}");
    }
}

#[test]
fn a_backend_whose_fields_do_not_come_to_an_end_is_left() {
    for (what, piece) in [
        ("empty", Vec::new()),
        ("fields", block(&[("x-field", &"x".repeat(900))])),
    ] {
        let answer = flooded(what, (CONTINUATION, 0, piece), |frames, stream| {
            frames.send(HEADERS, 0, stream, &block(&[(":status", "200")]))?;
            Ok(stream)
        });
        assert_eq!(answer.expect("an answer").status, 502, "{what}");
    }
}

#[test]
fn an_hpack_bomb_of_a_backend_does_not_go_off() {
    let origin = Origin::script(|peer| {
        let mut frames = Frames::greet(peer, &[])?;
        // A field of 4 KiB in the table, and then a byte for each copy of it.
        let mut bomb = block(&[(":status", "200")]);
        bomb.push(0x40);
        bomb.extend_from_slice(&block(&[("x", &"b".repeat(3900))])[1..]);
        bomb.extend(std::iter::repeat_n(0xbe, 12_000));
        loop {
            let (stream, _) = frames.request()?;
            frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &bomb)?;
        }
    });
    let (ringwall, answer) = attacked(&origin);
    assert_eq!(answer.expect("an answer").status, 502);
    ringwall.complaint_with(&["upstream sent too big header"]);
}

#[test]
fn a_backend_that_goes_on_with_what_its_client_has_left_is_left_too() {
    // More than any window, in frames of 16 KiB.
    const MOST: usize = 10_000;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::script(move |peer| {
        if peer.index > 0 {
            return well_behaved(peer);
        }
        let mut frames = Frames::greet(peer, &[])?;
        let (stream, _) = frames.request()?;
        frames.headers(stream, &[(":status", "200")], 0)?;
        frames.send(DATA, 0, stream, b"hello")?;
        while frames.next()?.kind != RST_STREAM {}
        while count.fetch_add(1, Ordering::SeqCst) < MOST {
            frames.send(DATA, 0, stream, &[0; 16_384])?;
        }
        Ok(())
    });
    let ringwall = proxy_to(&origin, "");
    let address = ringwall.address("HTTP");
    let mut client = Connection::plain(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head().expect("a head");
    client.reset();
    eventually("the backend is left", || {
        (origin.connections() == 1 && origin.open_connections() == 0).then_some(())
    });
    let sent = sent.load(Ordering::SeqCst);
    assert!((1..MOST).contains(&sent), "{sent} frames");
    assert_eq!(get(address, "/").text(), "hello");
}

#[test]
fn a_backend_that_pushes_is_left() {
    let origin = Origin::script(|peer| {
        let is_first = peer.index == 0;
        let mut frames = Frames::greet(peer, &[])?;
        loop {
            let (stream, _) = frames.request()?;
            if is_first {
                frames.send(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82])?;
            }
            frames.ok(stream, "hello")?;
        }
    });
    let ringwall = proxy_to(&origin, "");
    let address = ringwall.address("HTTP");
    assert_eq!(get(address, "/").status, 502);
    ringwall.complaint_with(&["upstream sent invalid http2 frames (PROTOCOL_ERROR)"]);
    assert_eq!(get(address, "/").text(), "hello");
}

/// What a backend got in each HEADERS frame of its only connection, in order of
/// the names. The Python library reads what the scripts above do not.
fn heads(ringwall: &Ringwall, origin: &Origin) -> Vec<Vec<String>> {
    let sent = ringwall.site.file("sent");
    std::fs::write(&sent, origin.all_received()).expect("writable");
    let script = "import hyperframe.frame as f, hpack, sys\n\
         data = open(sys.argv[1], 'rb').read()[24:]\n\
         decoder = hpack.Decoder()\n\
         while data:\n\
         \x20   frame, length = f.Frame.parse_frame_header(memoryview(data[:9]))\n\
         \x20   frame.parse_body(memoryview(data[9:9 + length])); data = data[9 + length:]\n\
         \x20   if isinstance(frame, f.HeadersFrame):\n\
         \x20       print('\\n'.join(sorted(' '.join(it) for it in decoder.decode(frame.data))) + '\\n')\n";
    let sent = sent.display().to_string();
    let said = tools::run(
        ringwall.site.path(),
        &tools::python("python3"),
        &["-c", script, &sent],
    );
    let said = said.expect_ok();
    let heads = said.trim_end().split("\n\n");
    heads
        .map(|head| head.lines().map(str::to_owned).collect())
        .collect()
}

/// What may stand behind a body, what may not, and what the configuration says
/// of the client.
const TRAILERS: [(&str, &str); 12] = [
    ("x-sum", "abc"),
    ("x-client", "CN=forged"),
    ("x-ssl-client-verify", "SUCCESS"),
    ("client-cert", ":forged:"),
    ("authorization", "Basic forged"),
    ("cookie", "session=forged"),
    ("content-length", "3"),
    ("content-type", "text/forged"),
    ("host", "forged.test"),
    ("x-forwarded-for", "192.0.2.1"),
    ("range", "bytes=0-1"),
    ("x-time", "7"),
];

#[test]
fn trailers_of_a_request_reach_a_backend_but_for_what_must_not_stand_there() {
    for settings in ["proxy_pass http://@;", "grpc_pass grpc://@;"] {
        let origin = Origin::script(well_behaved);
        let family = settings.split('_').next().expect("a family");
        let pass = settings.replace('@', &origin.address().to_string());
        let version = match family {
            "proxy" => "proxy_http_version 2;",
            _ => "",
        };
        let ringwall = start(&format!(
            "server {{ listen 127.0.0.1:@HTTP@; http2 on; server_name {HOST}; {version}\n\
             {family}_set_header X-Client $ssl_client_s_dn;\n\
             location / {{ {pass} }} }}",
        ));
        let address = ringwall.address("HTTP");
        let mut over_2 = H2::plain(address);
        let posted = h2::fields("POST", HOST, "/h2", &[]);
        over_2.headers(1, &posted, false);
        over_2.frame(DATA, 0, 1, b"abc");
        over_2.headers(1, &TRAILERS, true);
        assert_eq!(over_2.answer(1).status, 200, "{settings}");
        // With nothing between head and trailers.
        over_2.headers(3, &posted, false);
        over_2.headers(3, &TRAILERS, true);
        assert_eq!(over_2.answer(3).status, 200, "{settings}");
        let mut lines: String = TRAILERS
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        lines.push_str("X-Hop: secret\r\nTransfer-Encoding: chunked\r\nX_Client: CN=forged\r\n");
        let mut over_1 = Connection::plain(address);
        for body in ["3\r\nabc\r\n", ""] {
            over_1.send(format!(
                "POST /h1 HTTP/1.1\r\nHost: {HOST}\r\nConnection: x-hop\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{body}0\r\n{lines}\r\n"
            ));
            assert_eq!(over_1.response("POST").status, 200, "{settings}");
        }
        let heads = heads(&ringwall, &origin);
        let (heads, trailers): (Vec<_>, Vec<_>) = heads
            .into_iter()
            .partition(|fields| fields.iter().any(|field| field.starts_with(":path")));
        assert_eq!((heads.len(), trailers.len()), (4, 4), "{settings}");
        for fields in trailers {
            assert_eq!(fields, ["x-sum abc", "x-time 7"], "{settings}");
        }
    }
}

#[test]
fn trailers_behind_a_body_that_was_said_to_be_empty_reach_a_backend() {
    for buffering in ["on", "off"] {
        let origin = Origin::script(well_behaved);
        let ringwall = start(&format!(
            "server {{ listen 127.0.0.1:@HTTP@; http2 on; proxy_http_version 2;\n\
             proxy_request_buffering {buffering}; location / {{ proxy_pass {}; }} }}",
            origin.url()
        ));
        let mut client = H2::plain(ringwall.address("HTTP"));
        let empty = h2::fields("POST", HOST, "/", &[("content-length", "0")]);
        client.headers(1, &empty, false);
        if buffering == "off" {
            eventually("the request is under way", || {
                (origin.connections() == 1).then_some(())
            });
        }
        client.headers(1, &[("x-sum", "abc")], true);
        assert_eq!(client.answer(1).status, 200, "{buffering}");
        // Without any.
        client.headers(3, &empty, false);
        client.frame(DATA, END_STREAM, 3, b"");
        assert_eq!(client.answer(3).status, 200, "{buffering}");
        let heads = heads(&ringwall, &origin);
        let trailers = heads.iter().filter(|fields| *fields == &["x-sum abc"]);
        assert_eq!((heads.len(), trailers.count()), (3, 1), "{buffering}");
    }
}

#[test]
fn trailers_of_a_request_stay_behind_on_the_way_to_http_1() {
    // As in Nginx, whose backends of HTTP/1.1 have never seen any.
    let origin = Origin::hello();
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass {}; }} }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: abc\r\n\r\n",
    );
    assert_eq!(client.response("POST").status, 200);
    let received = origin.all_received_text();
    assert!(
        received.contains("abc") && !received.contains("X-Sum"),
        "{received}"
    );
}
