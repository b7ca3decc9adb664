//! HTTP/2 towards clients: who is offered it, what a request is to a backend,
//! and that streams of one connection do not get in each other's way.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::support::client::{Connection, TlsClient};
use crate::support::h2::{
    CANCEL, DATA, END_STREAM, H2, HEADERS, NO_ERROR, REFUSED_STREAM, RST_STREAM, fields,
};
use crate::support::origin::{Origin, Request, ok, ok_bytes};
use crate::support::pki::Pki;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};
use crate::support::{eventually, patterned};
use rustix::process::Signal;

/// A plain port that speaks both versions, in front of a backend.
fn plain(backend: &Origin, more: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "log_format v '$server_protocol $http2 $request_method $status $connection_requests';\n\
         server {{ listen 127.0.0.1:@HTTP@; server_name {HOST}; http2 on; {more}\n\
         access_log @DIR@/access.log v;\n\
         location / {{ proxy_pass {}; }} }}",
        backend.url()
    )))
}

fn h2(ringwall: &Ringwall) -> H2 {
    H2::plain(ringwall.address("HTTP"))
}

#[test]
fn both_versions_are_served_on_one_plain_port() {
    let origin = Origin::hello();
    let ringwall = plain(&origin, "");
    let mut new = h2(&ringwall);
    for stream in [1, 3, 5] {
        let answer = new.get(stream, HOST, "/a?b=c");
        assert_eq!((answer.status, &*answer.body), (200, &b"hello"[..]));
    }
    let mut old = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(old.get(HOST, "/").text(), "hello");
    ringwall.access_with(&["HTTP/2.0 h2c GET 200 3"]);
    ringwall.access_with(&["HTTP/1.1 - GET 200 1"]);
    let seen = origin.all_received_text();
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("HTTP/2"), "{seen}");
}

#[test]
fn the_preface_is_known_however_it_is_cut() {
    let origin = Origin::hello();
    let ringwall = plain(&origin, "");
    let mut connection = H2::silent(Connection::plain(ringwall.address("HTTP")));
    for byte in crate::support::h2::PREFACE {
        connection.send(&[*byte]);
    }
    connection.frame(crate::support::h2::SETTINGS, 0, 0, &[]);
    assert_eq!(connection.get(1, HOST, "/").status, 200);
    // What begins like it and is not is a request like any other.
    let mut other = Connection::plain(ringwall.address("HTTP"));
    other.send("PRI * HTTP/2.0\r\n\r\nXX");
    assert_eq!(other.response("PRI").status, 505);
}

#[test]
fn without_http2_on_a_plain_port_knows_no_preface() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&crate::support::ringwall::plain_proxy(&origin.url()));
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    connection.send(crate::support::h2::PREFACE);
    assert_eq!(connection.response("PRI").status, 505);
}

#[test]
fn alpn_offers_http2_by_server_block_and_by_listen() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "{CERTIFICATES} server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; http2 on;\n\
           return 200 '$server_protocol $http2 $ssl_alpn_protocol'; }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name other.example;\n\
           return 200 '$server_protocol $http2 $ssl_alpn_protocol'; }}\n\
         server {{ listen 127.0.0.1:@OLD@ ssl http2; server_name {HOST};\n\
           return 200 '$server_protocol $http2 $ssl_alpn_protocol'; }}"
    )));
    let client = TlsClient::trusting(Some(&pki.client));
    let agreed = |port: &str, name: &str, offered: &[&str]| {
        let client = client.speaking(offered);
        let connection = client.connect(ringwall.address(port), name);
        let connection = connection.expect("a connection");
        connection.protocol().map(<[u8]>::to_vec)
    };
    let both = &["h2", "http/1.1"];
    assert_eq!(agreed("TLS", HOST, both).as_deref(), Some(&b"h2"[..]));
    assert_eq!(agreed("OLD", HOST, both).as_deref(), Some(&b"h2"[..]));
    assert_eq!(
        agreed("TLS", "other.example", both).as_deref(),
        Some(&b"http/1.1"[..])
    );
    assert_eq!(
        agreed("TLS", HOST, &["http/1.1"]).as_deref(),
        Some(&b"http/1.1"[..])
    );
    assert_eq!(agreed("TLS", HOST, &[]), None);
    let client = client.speaking(&["h2"]);
    let connection = client.connect(ringwall.address("TLS"), HOST);
    let mut connection = H2::over(connection.expect("a connection"));
    assert_eq!(connection.get(1, HOST, "/").body, b"HTTP/2.0 h2 h2");
}

#[test]
fn a_verified_identity_reaches_the_backend_as_over_http1() {
    let origin = Origin::http(|request| {
        let names = request.header("x-subject").unwrap_or("none").to_owned();
        ok(&names)
    });
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; http2 on;\n\
         {CERTIFICATES} {MUTUAL}\n\
         location / {{ proxy_pass {}; proxy_set_header X-Subject $ssl_client_s_dn; }} }}",
        origin.url()
    )));
    let client = TlsClient::with_identity(&pki.ca, &pki.client).speaking(&["h2"]);
    let connection = client.connect(ringwall.address("TLS"), HOST);
    let mut connection = H2::over(connection.expect("let in"));
    // A copy of the client's own is dropped, as it is elsewhere.
    let more = [("x-subject", "CN=mallory"), ("x_subject", "CN=mallory")];
    connection.headers(1, &fields("GET", HOST, "/", &more), true);
    let answer = connection.answer(1);
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(body.starts_with("CN="), "{body}");
    assert!(!origin.all_received_text().contains("mallory"));
}

#[test]
fn bodies_go_both_ways_whole() {
    let origin = Origin::echo();
    let ringwall = plain(&origin, "client_max_body_size 0;");
    let body = patterned(700_000);
    let mut connection = h2(&ringwall);
    for (stream, length) in [(1, true), (3, false)] {
        let size = body.len().to_string();
        let more: &[(&str, &str)] = if length {
            &[("content-length", &size)]
        } else {
            &[]
        };
        connection.headers(stream, &fields("POST", HOST, "/", more), false);
        // As far as the window goes: what the backend takes is granted anew.
        let mut sent = 0;
        let mut window = 65_535_usize;
        while sent < body.len() {
            while window == 0 {
                let frame = connection.next().expect("a frame");
                if frame.kind == crate::support::h2::WINDOW_UPDATE && frame.stream == stream {
                    let bytes = frame.payload[..].try_into().expect("four");
                    window += u32::from_be_bytes(bytes) as usize;
                }
            }
            let now = window.min(16_384).min(body.len() - sent);
            let last = sent + now == body.len();
            let flags = if last { END_STREAM } else { 0 };
            connection.frame(DATA, flags, stream, &body[sent..sent + now]);
            sent += now;
            window -= now;
        }
        let answer = connection.answer(stream);
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "stream {stream}");
    }
    let seen = origin.all_received_text();
    assert!(
        seen.contains("Content-Length: 700000\r\n"),
        "{length}",
        length = seen.len()
    );
}

#[test]
fn a_stream_that_waits_does_not_hold_up_the_others() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let origin = Origin::http(move |request| {
        if request.target() == "/slow" {
            // The test ends, or says so.
            let _ = released.lock().expect("not poisoned").recv();
        }
        ok_bytes(&patterned(300_000))
    });
    let ringwall = plain(&origin, "");
    let mut connection = h2(&ringwall);
    connection.grants = false;
    connection.headers(1, &fields("GET", HOST, "/slow", &[]), true);
    // This one's window is used up, and stays so.
    connection.headers(3, &fields("GET", HOST, "/unread", &[]), true);
    let stuck = connection.until(|it| (it.so_far(3).body.len() == 65_535).then_some(()));
    stuck.expect("a window's worth");
    connection.grants = true;
    // The connection's own window is granted; the stream's is not.
    connection.frame(
        crate::support::h2::WINDOW_UPDATE,
        0,
        0,
        &1_000_000_u32.to_be_bytes(),
    );
    let answer = connection.get(5, HOST, "/");
    assert!(answer.body == patterned(300_000));
    assert!(!connection.so_far(1).ended && !connection.so_far(3).ended);
    release.send(()).expect("somebody waits");
    assert!(connection.answer(1).body == patterned(300_000));
    connection.frame(
        crate::support::h2::WINDOW_UPDATE,
        0,
        3,
        &1_000_000_u32.to_be_bytes(),
    );
    assert!(connection.answer(3).body == patterned(300_000));
}

#[test]
fn a_backend_that_takes_nothing_slows_its_own_client_and_no_other() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let origin = Origin::script(move |peer| {
        loop {
            let request = peer.head()?;
            if request.target() == "/stuck" {
                let _ = released.lock().expect("not poisoned").recv();
            }
            let body = peer.body(&request)?;
            peer.send(&ok(&body.len().to_string()))?;
        }
    });
    let ringwall = plain(
        &origin,
        "client_max_body_size 0; proxy_request_buffering off;",
    );
    let mut connection = h2(&ringwall);
    connection.headers(1, &fields("POST", HOST, "/stuck", &[]), false);
    // What sockets hold is little beside this; the rest is not granted.
    // The proxy's own setting counts once it has been acknowledged.
    let mut granted = 65_535_u64;
    let mut sent = 0_u64;
    let piece = patterned(16_384);
    let limit = 64 << 20;
    connection
        .wire()
        .set_read_limit(std::time::Duration::from_secs(2));
    while sent < limit {
        if granted >= 16_384 {
            connection.frame(DATA, 0, 1, &piece);
            (granted, sent) = (granted - 16_384, sent + 16_384);
            continue;
        }
        // Nothing comes when it is stuck.
        let Ok(frame) = connection.next() else { break };
        if frame.kind == crate::support::h2::WINDOW_UPDATE && frame.stream == 1 {
            let bytes = frame.payload[..].try_into().expect("four");
            granted += u64::from(u32::from_be_bytes(bytes));
        }
    }
    assert!(sent < limit, "{sent} bytes were granted");
    connection
        .wire()
        .set_read_limit(std::time::Duration::from_secs(30));
    connection.headers(3, &fields("POST", HOST, "/free", &[]), false);
    connection.frame(DATA, END_STREAM, 3, &piece);
    assert_eq!(connection.answer(3).body, b"16384");
    release.send(()).expect("somebody waits");
    connection.frame(DATA, END_STREAM, 1, &[]);
    let answer = connection.answer(1);
    assert_eq!(answer.body, sent.to_string().into_bytes(), "{answer:?}");
}

/// A backend that says hello at `/`, and anywhere else nothing.
fn patient() -> Origin {
    Origin::script(|peer| {
        let request = peer.request()?;
        if request.target() == "/" {
            return peer.send(&ok("hello"));
        }
        peer.idle()
    })
}

#[test]
fn the_backend_is_left_when_the_client_resets_its_stream() {
    let origin = patient();
    let ringwall = plain(&origin, "");
    let mut connection = h2(&ringwall);
    connection.headers(1, &fields("GET", HOST, "/wait", &[]), true);
    eventually("the backend is asked", || {
        (origin.requests() == 1).then_some(())
    });
    connection.frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    eventually("the backend is left", || {
        (origin.open_connections() == 0).then_some(())
    });
    ringwall.access_with(&["HTTP/2.0 h2c GET 499"]);
    assert_eq!(connection.get(3, HOST, "/").status, 200);
}

#[test]
fn a_body_that_breaks_off_resets_its_stream_alone() {
    let origin = Origin::script(|peer| {
        let request = peer.request()?;
        if request.target() == "/half" {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
            return peer.finish();
        }
        peer.send(&ok("hello"))
    });
    let ringwall = plain(&origin, "");
    let mut connection = h2(&ringwall);
    let answer = connection.get(1, HOST, "/half");
    assert!(
        answer.reset.is_some_and(|code| code != NO_ERROR),
        "{answer:?}"
    );
    assert!(!answer.ended);
    assert_eq!(connection.get(3, HOST, "/").body, b"hello");
}

#[test]
fn a_head_request_and_an_empty_answer_end_with_their_head() {
    let origin = Origin::http(|request: &Request| match request.target() {
        "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        _ if request.line.starts_with("HEAD") => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()
        }
        _ => ok(""),
    });
    let ringwall = plain(&origin, "");
    let mut connection = h2(&ringwall);
    for (stream, method, path) in [(1, "HEAD", "/"), (3, "GET", "/none"), (5, "GET", "/empty")] {
        connection.headers(stream, &fields(method, HOST, path, &[]), true);
        let frame = loop {
            let frame = connection.next().expect("a frame");
            if frame.stream == stream {
                break frame;
            }
        };
        assert_eq!(frame.kind, HEADERS);
        assert_ne!(frame.flags & END_STREAM, 0, "{path}");
    }
}

#[test]
fn a_connection_of_another_policy_does_not_reach_a_host_by_its_authority() {
    let site = Site::new();
    let pki = Pki::new(&[HOST, "open.example"]);
    pki.write(site.path());
    let ringwall = site.start(&http(&format!(
        "{CERTIFICATES} http2 on;\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name open.example; return 200 open; }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {MUTUAL} return 200 shut; }}"
    )));
    let client = TlsClient::new(&pki.ca).speaking(&["h2"]);
    let connection = client.connect(ringwall.address("TLS"), "open.example");
    let mut connection = H2::over(connection.expect("let in"));
    // As a browser does when one certificate names both hosts.
    assert_eq!(connection.get(1, "open.example", "/").body, b"open");
    assert_eq!(connection.get(3, HOST, "/").status, 421);
    assert_eq!(connection.get(5, "open.example", "/").body, b"open");
}

#[test]
fn a_drain_ends_what_is_idle_and_finishes_what_is_not() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let origin = Origin::http(move |_| {
        let _ = released.lock().expect("not poisoned").recv();
        ok("late")
    });
    let mut ringwall = plain(&origin, "");
    let mut idle = h2(&ringwall);
    let settings = idle.next().expect("its settings");
    assert_eq!(settings.kind, crate::support::h2::SETTINGS);
    let mut busy = h2(&ringwall);
    busy.headers(1, &fields("GET", HOST, "/", &[]), true);
    eventually("the backend is asked", || {
        (origin.requests() == 1).then_some(())
    });
    ringwall.signal(Signal::QUIT);
    idle.expect_end();
    assert_eq!(idle.goaways.last(), Some(&(0, NO_ERROR)));
    // First the notice, then the last stream that counts.
    assert_eq!(busy.goaway(NO_ERROR), i32::MAX as u32);
    busy.until(|it| (it.goaways.len() == 2).then_some(()))
        .expect("the second GOAWAY");
    assert_eq!(busy.goaways[1], (1, NO_ERROR));
    assert!(ringwall.is_running());
    // What comes behind it may be asked elsewhere: it is not served here.
    busy.headers(3, &fields("GET", HOST, "/", &[]), true);
    release.send(()).expect("somebody waits");
    assert_eq!(busy.answer(1).body, b"late");
    busy.expect_end();
    assert_eq!((busy.so_far(3).status, origin.requests()), (0, 1));
    assert!(ringwall.wait().success());
}

#[test]
fn a_reload_that_refuses_the_client_ends_its_connection_behind_what_is_in_flight() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let origin = Origin::http(move |request| {
        if request.target() == "/wait" {
            let _ = released.lock().expect("not poisoned").recv();
        }
        ok("hello")
    });
    let server = |more: &str| {
        http(&format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; http2 on;\n\
             {CERTIFICATES} {more} location / {{ proxy_pass {}; }} }}",
            origin.url()
        ))
    };
    let (site, pki) = Site::with_pki();
    let mut ringwall = site.start(&server(""));
    let client = TlsClient::new(&pki.ca).speaking(&["h2"]);
    let connect = || {
        let connection = client.connect(ringwall.address("TLS"), HOST);
        H2::over(connection.expect("let in"))
    };
    let mut busy = connect();
    let mut idle = connect();
    assert_eq!(idle.get(1, HOST, "/").status, 200);
    busy.headers(1, &fields("GET", HOST, "/wait", &[]), true);
    eventually("the backend is asked", || {
        (origin.requests() == 2).then_some(())
    });
    let text = server(MUTUAL);
    ringwall.rewrite(&text);
    ringwall.reload();
    idle.expect_end();
    assert_eq!(busy.goaway(NO_ERROR), i32::MAX as u32);
    // What came before the client had the notice is not served either.
    busy.headers(3, &fields("GET", HOST, "/", &[]), true);
    let refused = busy.until(|it| {
        // Or it came so late that the second notice does not cover it.
        let ignored = it.goaways.get(1).is_some_and(|(last, _)| *last < 3);
        let reset = it.so_far(3).reset;
        reset
            .map(|code| code == REFUSED_STREAM)
            .or(ignored.then_some(true))
    });
    assert!(refused.expect("an answer"));
    release.send(()).expect("somebody waits");
    assert_eq!(busy.answer(1).body, b"hello");
    busy.expect_end();
    assert_eq!(origin.requests(), 2);
}

#[test]
fn keepalive_requests_ends_a_connection_without_losing_a_request() {
    let origin = Origin::hello();
    let ringwall = plain(&origin, "keepalive_requests 3;");
    let mut connection = h2(&ringwall);
    for stream in [1, 3, 5] {
        assert_eq!(connection.get(stream, HOST, "/").status, 200);
    }
    connection.expect_end();
    assert_eq!(connection.goaways.last(), Some(&(5, NO_ERROR)));
}

#[test]
fn an_idle_connection_ends_by_keepalive_timeout() {
    let origin = Origin::hello();
    let ringwall = plain(&origin, "keepalive_timeout 1s;");
    let mut connection = h2(&ringwall);
    assert_eq!(connection.get(1, HOST, "/").status, 200);
    connection.expect_end();
    assert_eq!(connection.goaways, [(1, NO_ERROR)]);
}

#[test]
fn how_a_client_left_is_in_the_log_in_nginxs_words() {
    let origin = patient();
    let ringwall = plain(&origin, "");
    let ended = |parts: &[&str]| {
        let more = [
            "[info]",
            "while processing HTTP/2 connection, client: 127.0.0.1",
        ];
        ringwall.complaint_with(&[parts, &more].concat());
    };
    // One that asks nothing any more may go; as browsers do with those to spare.
    let mut idle = h2(&ringwall);
    assert_eq!(idle.get(1, HOST, "/").status, 200);
    let mut wire = idle.into_wire();
    wire.finish_sending();
    wire.until_close().expect("a proper end");
    let mut broken = h2(&ringwall);
    assert_eq!(broken.get(1, HOST, "/").status, 200);
    broken.into_wire().reset();
    ended(&["recv() failed (104: Connection reset by peer)"]);
    let complaints = ringwall.complaints();
    assert!(!complaints.contains("prematurely"), "{complaints}");
    let mut waiting = h2(&ringwall);
    waiting.headers(1, &fields("GET", HOST, "/wait", &[]), true);
    eventually("the backend is asked", || {
        (origin.requests() == 3).then_some(())
    });
    let mut wire = waiting.into_wire();
    wire.finish_sending();
    ended(&["client prematurely closed connection"]);
    ringwall.access_with(&["HTTP/2.0 h2c GET 499"]);
}
