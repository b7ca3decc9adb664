//! `proxy_buffering`: what a client does not take waits for it here, within
//! bounds, and its backend goes on to other things; and nothing is lost or held
//! back by that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::support::client::{Connection, Response, TlsClient};
use crate::support::origin::{Origin, Peer};
use crate::support::ringwall::{CERTIFICATES, HOST, Ringwall, Site, http};
use crate::support::{eventually, patterned};

/// More than all sockets on the way swallow, less than the buffers below.
const PART: usize = 40 << 20;
const BUFFERS: &str = "proxy_buffers 64 1m; send_timeout 60s;";

/// A backend that sends [`PART`] at once, and the same again when it is told to,
/// framed as the target says.
struct Backend {
    origin: Origin,
    /// Parts that have left it, of all connections.
    sent: Arc<AtomicUsize>,
    go: Sender<()>,
}

impl Backend {
    fn start(fields: &'static str) -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let (go, told) = channel();
        let told = Mutex::new(told);
        let count = Arc::clone(&sent);
        let part = patterned(PART);
        let origin = Origin::script(move |peer| {
            loop {
                let request = peer.request()?;
                answer(peer, request.target(), fields, &part, &count, &told)?;
                if request.target().ends_with("close") {
                    return peer.finish();
                }
            }
        });
        Self { origin, sent, go }
    }

    fn has_sent(&self, parts: usize) {
        eventually("the backend has sent a part", || {
            (self.sent.load(Ordering::SeqCst) >= parts).then_some(())
        });
    }
}

fn answer(
    peer: &mut Peer,
    target: &str,
    fields: &str,
    part: &[u8],
    sent: &AtomicUsize,
    told: &Mutex<Receiver<()>>,
) -> std::io::Result<()> {
    let chunked = target.ends_with("chunked");
    let framing = match target {
        _ if chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        _ if target.ends_with("close") => "Connection: close\r\n".to_owned(),
        _ => format!("Content-Length: {}\r\n", 2 * part.len()),
    };
    peer.send(format!("HTTP/1.1 200 OK\r\n{fields}{framing}\r\n").as_bytes())?;
    for round in 0..2 {
        if round > 0 {
            // An error means that the test has ended already.
            let _ = told.lock().expect("not poisoned").recv();
        }
        // Of no size that anything else on the way has.
        for piece in part.chunks(54_321) {
            if chunked {
                peer.send(format!("{:x}\r\n", piece.len()).as_bytes())?;
                peer.send(piece)?;
                peer.send(b"\r\n")?;
            } else {
                peer.send(piece)?;
            }
        }
        sent.fetch_add(1, Ordering::SeqCst);
    }
    if chunked {
        peer.send(b"0\r\n\r\n")?;
    }
    Ok(())
}

fn start(backend: &Backend, content: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; {BUFFERS} {content}
         location / {{ proxy_pass {0}; }}
         location /off/ {{ proxy_buffering off; proxy_pass {0}; }} }}",
        backend.origin.url()
    )))
}

/// Asks, and reads nothing.
fn ask(client: &mut Connection, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
}

fn expect_both_parts(response: &Response) {
    let part = patterned(PART);
    assert_eq!(response.body.len(), 2 * PART);
    assert!(response.body[..PART] == part && response.body[PART..] == part);
}

#[test]
fn a_slow_client_does_not_keep_its_backend_waiting_for_what_fits_the_buffers() {
    for target in ["/length", "/chunked", "/close"] {
        let backend = Backend::start("");
        let ringwall = start(&backend, "");
        let mut client = Connection::plain(ringwall.address("HTTP"));
        ask(&mut client, target);
        backend.has_sent(1);
        // The client is as far as it, and then slow once more.
        for end in [PART / 2, PART] {
            let mut taken = 0;
            while taken < end {
                taken += client.sip(1 << 20).expect("more of the body");
            }
            if end < PART {
                backend.go.send(()).expect("the backend waits");
                backend.has_sent(2);
            }
        }
        drop(client);

        // And all of it arrives, however it waited.
        let mut client = Connection::plain(ringwall.address("HTTP"));
        ask(&mut client, target);
        backend.has_sent(3);
        backend.go.send(()).expect("the backend waits");
        expect_both_parts(&client.response("GET"));
    }
}

#[test]
fn over_tls_a_slow_client_does_not_keep_its_backend_waiting_either() {
    let backend = Backend::start("");
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; {CERTIFICATES} {BUFFERS}
         location / {{ proxy_pass {}; }} }}",
        backend.origin.url()
    )));
    let tls = TlsClient::new(&pki.ca);
    let mut client = tls
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    ask(&mut client, "/length");
    backend.has_sent(1);
    backend.go.send(()).expect("the backend waits");
    expect_both_parts(&client.response("GET"));
}

#[test]
fn a_backend_waits_for_its_client_where_buffering_is_off_or_it_says_so_itself() {
    for (fields, content, patient, waiting) in [
        ("", "", "/length", "/off/length"),
        (
            "X-Accel-Buffering: yes\r\n",
            "proxy_buffering off;",
            "/length",
            "",
        ),
        (
            "X-Accel-Buffering: yes\r\n",
            "proxy_ignore_headers X-Accel-Buffering;",
            "/length",
            "/off/length",
        ),
        ("X-Accel-Buffering: no\r\n", "", "", "/length"),
    ] {
        let backend = Backend::start(fields);
        let ringwall = start(&backend, content);
        let mut held = Connection::plain(ringwall.address("HTTP"));
        if !waiting.is_empty() {
            ask(&mut held, waiting);
        }
        // As much later as another one takes to go through.
        let other = Backend::start("");
        let beside = start(&other, "");
        let (watched, served) = match patient {
            "" => (&other, &beside),
            _ => (&backend, &ringwall),
        };
        let mut client = Connection::plain(served.address("HTTP"));
        ask(
            &mut client,
            if patient.is_empty() {
                "/length"
            } else {
                patient
            },
        );
        watched.has_sent(1);
        let expected = usize::from(!patient.is_empty());
        assert_eq!(
            backend.sent.load(Ordering::SeqCst),
            expected,
            "{fields}{content}"
        );
    }
}

#[test]
fn a_backend_whose_response_waits_here_for_its_client_serves_others_meanwhile() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let part = patterned(PART);
    let origin = Origin::script(move |peer| {
        loop {
            let target = peer.request()?.target().to_owned();
            let (framing, body) = match &*target {
                "/small" => ("Content-Length: 2\r\n".to_owned(), &b"ok"[..]),
                "/close" => ("Connection: close\r\n".to_owned(), &*part),
                _ => (format!("Content-Length: {PART}\r\n"), &*part),
            };
            peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n").as_bytes())?;
            peer.send(body)?;
            count.fetch_add(1, Ordering::SeqCst);
            if target == "/close" {
                return peer.finish();
            }
        }
    });
    // One request at a time: nobody else is served while one holds the backend.
    let ringwall = Site::new().start(&http(&format!(
        "upstream one {{ server {} max_conns=1; keepalive 1; }}
         server {{ listen 127.0.0.1:@HTTP@; {BUFFERS} proxy_http_version 1.1;
         proxy_set_header Connection \"\";
         location / {{ proxy_pass http://one; }} }}",
        origin.address()
    )));
    // All of the response is here once others are served.
    let waits_here = |client: &mut Connection, target: &str| {
        let before = sent.load(Ordering::SeqCst);
        ask(client, target);
        eventually("the backend has sent it all", || {
            (sent.load(Ordering::SeqCst) > before).then_some(())
        });
        let mut other = Connection::plain(ringwall.address("HTTP"));
        eventually("another client is served", || {
            (other.get(HOST, "/small").status == 200).then_some(())
        });
    };
    for (target, connections) in [("/length", 1), ("/close", 2)] {
        let mut slow = Connection::plain(ringwall.address("HTTP"));
        waits_here(&mut slow, target);
        assert_eq!(origin.connections(), connections, "{target}");
        assert!(slow.response("GET").body == patterned(PART), "{target}");
    }
    // Whoever goes then ends nothing of the backend's, and the log does not say so.
    let mut gone = Connection::plain(ringwall.address("HTTP"));
    waits_here(&mut gone, "/length");
    gone.finish_sending();
    let said = ringwall.complaint_with(&["[info]", "client prematurely closed connection"]);
    assert!(!said.contains("upstream connection"), "{said}");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn what_came_before_a_backend_failed_reaches_a_slow_client_and_then_the_connection_ends() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let part = patterned(PART);
    let origin = Origin::script(move |peer| {
        peer.request()?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PART + 1);
        peer.send(head.as_bytes())?;
        peer.send(&part)?;
        count.fetch_add(1, Ordering::SeqCst);
        peer.finish()
    });
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; {BUFFERS} location / {{ proxy_pass {}; }} }}",
        origin.url()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    ask(&mut client, "/");
    eventually("the backend has sent its part", || {
        (sent.load(Ordering::SeqCst) == 1).then_some(())
    });
    let all = client.remains();
    assert!(all.ends_with(&patterned(PART)[PART - 1000..]));
    ringwall.complaint_with(&["[error]", "upstream prematurely closed connection"]);
}

#[test]
fn proxy_buffer_size_says_how_large_the_head_of_a_response_may_be() {
    let origin = Origin::http(|request| {
        let size: usize = request
            .target()
            .rsplit('/')
            .next()
            .and_then(|size| size.parse().ok())
            .unwrap_or(0);
        format!(
            "HTTP/1.1 200 OK\r\nX-Large: {}\r\nContent-Length: 2\r\n\r\nok",
            "x".repeat(size)
        )
        .into_bytes()
    });
    let url = origin.url();
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass {url}; }}
         location /large/ {{ proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_pass {url}; }}
         location /small/ {{ proxy_buffer_size 1k; proxy_pass {url}; }} }}"
    )));
    for (target, status) in [
        ("/15000", 200),
        ("/20000", 502),
        ("/small/15000", 200),
        ("/large/20000", 200),
        ("/large/40000", 502),
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        assert_eq!(client.get("a", target).status, status, "{target}");
    }
}
