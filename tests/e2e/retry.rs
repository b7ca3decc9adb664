//! What happens to a request when its backend does not do as it should: who is
//! asked next, who is not, and what the client hears. No request is delivered
//! twice unless that can do no harm or the operator wants it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::support::client::Connection;
use crate::support::origin::{Origin, Peer, ok};
use crate::support::ringwall::{Ringwall, Site, http};
use crate::support::{eventually, free_port};

/// A server in front of these backends, with these directives.
fn start(origins: &[&Origin], parameters: &str, directives: &str) -> Ringwall {
    let servers: String = origins
        .iter()
        .map(|origin| format!("server {} {parameters};\n", origin.address()))
        .collect();
    Site::new().start(&http(&format!(
        "log_format tries '$upstream_addr|$upstream_status|$status';\n\
         access_log @DIR@/tries.log tries;\n\
         upstream backend {{ {servers} }}\n\
         server {{ listen 127.0.0.1:@HTTP@; {directives}\n\
         location / {{ proxy_pass http://backend; }} }}"
    )))
}

fn get(ringwall: &Ringwall) -> (u16, String) {
    let response = Connection::plain(ringwall.address("HTTP")).get("a", "/");
    (response.status, response.text())
}

fn send(ringwall: &Ringwall, request: &str) -> u16 {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(request);
    let method = request.split(' ').next().unwrap_or_default();
    client.response(method).status
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

fn good() -> Origin {
    Origin::http(|request| ok(&format!("good {}", String::from_utf8_lossy(&request.body))))
}

fn with_status(status: &'static str) -> Origin {
    Origin::http(move |_| format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nbad").into_bytes())
}

/// Reads a request, then does this.
fn after_request(act: impl Fn(&mut Peer) -> std::io::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::script(move |peer| {
        peer.request()?;
        act(peer)
    })
}

#[test]
fn a_listed_status_sends_the_request_to_the_next_backend() {
    for (status, listed) in [
        ("500 No", "http_500"),
        ("502 No", "http_502"),
        ("503 No", "http_503"),
        ("504 No", "http_504"),
        ("403 No", "http_403"),
        ("404 No", "http_404"),
        ("429 No", "http_429"),
    ] {
        let (bad, good) = (with_status(status), good());
        let ringwall = start(
            &[&bad, &good],
            "max_fails=0",
            &format!("proxy_next_upstream {listed};"),
        );
        for _ in 0..4 {
            assert_eq!(get(&ringwall), (200, "good ".into()), "{status}");
        }
        assert!(bad.requests() >= 2, "{status}");
    }
}

#[test]
fn a_status_that_is_not_listed_is_the_answer() {
    let bad = with_status("503 Busy");
    let good = good();
    let ringwall = start(&[&bad, &good], "", "");
    let statuses: Vec<_> = (0..4).map(|_| get(&ringwall)).collect();
    assert_eq!(
        statuses.iter().filter(|(status, _)| *status == 503).count(),
        2
    );
    assert!(statuses.contains(&(503, "bad".into())), "with its own body");
}

#[test]
fn the_last_backends_answer_is_the_answer_whatever_its_status() {
    let (one, two) = (with_status("503 One"), with_status("503 Two"));
    let ringwall = start(
        &[&one, &two],
        "max_fails=0",
        "proxy_next_upstream http_503;",
    );
    assert_eq!(get(&ringwall), (503, "bad".into()));
    assert_eq!(one.requests() + two.requests(), 2);
    let line = eventually("it is logged", || {
        let log = ringwall.site.read("tries.log");
        log.lines().next().map(str::to_owned)
    });
    assert!(line.ends_with("|503, 503|503"), "{line}");
}

#[test]
fn a_listed_status_counts_as_a_failure_but_403_and_404_do_not() {
    for (status, listed, asked) in [("503 No", "http_503", 1), ("404 No", "http_404", 3)] {
        let (bad, good) = (with_status(status), good());
        let ringwall = start(
            &[&bad, &good],
            "fail_timeout=1h",
            &format!("proxy_next_upstream {listed};"),
        );
        for _ in 0..6 {
            assert_eq!(get(&ringwall).0, 200);
        }
        assert_eq!(bad.requests(), asked, "{status}");
    }
}

#[test]
fn a_backend_that_sends_garbage_or_half_a_head_is_passed_over_where_that_is_said() {
    type Act = fn(&mut Peer) -> std::io::Result<()>;
    let cases: [(&str, Act); 3] = [
        ("invalid_header", |peer| {
            peer.send(b"SSH-2.0-OpenSSH\r\n\r\n")?;
            peer.finish()
        }),
        ("invalid_header", |peer| {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")?;
            peer.finish()
        }),
        ("error", |peer| {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")?;
            peer.finish()
        }),
    ];
    for (listed, act) in cases {
        let (bad, good) = (after_request(act), good());
        let ringwall = start(
            &[&bad, &good],
            "max_fails=0",
            &format!("proxy_next_upstream {listed};"),
        );
        for _ in 0..4 {
            assert_eq!(get(&ringwall), (200, "good ".into()), "{listed}");
        }
        assert!(bad.requests() >= 1);
        let ringwall = start(&[&bad, &good], "max_fails=0", "proxy_next_upstream off;");
        let bad_ones = (0..4).filter(|_| get(&ringwall).0 == 502).count();
        assert_eq!(bad_ones, 2, "{listed} is not among the reasons");
    }
}

#[test]
fn a_backend_that_hangs_is_passed_over_after_its_time() {
    let (bad, good) = (after_request(Peer::hang), good());
    let ringwall = start(&[&bad, &good], "max_fails=0", "proxy_read_timeout 1s;");
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(get(&ringwall), (200, "good ".into()));
    }
    assert!(began.elapsed() >= Duration::from_millis(900));
    let ringwall = start(
        &[&bad, &good],
        "max_fails=0",
        "proxy_read_timeout 1s; proxy_next_upstream error;",
    );
    let statuses: Vec<_> = (0..2).map(|_| get(&ringwall).0).collect();
    assert!(
        statuses.contains(&504),
        "a timeout is no error: {statuses:?}"
    );
}

#[test]
fn tries_and_time_limit_how_many_backends_are_asked() {
    let broken: Vec<_> = (0..4).map(|_| after_request(Peer::reset)).collect();
    let all: Vec<_> = broken.iter().collect();
    let ringwall = start(&all, "max_fails=0", "proxy_next_upstream_tries 2;");
    assert_eq!(get(&ringwall).0, 502);
    assert_eq!(broken.iter().map(Origin::requests).sum::<usize>(), 2);

    let slow: Vec<_> = (0..4).map(|_| after_request(Peer::hang)).collect();
    let all: Vec<_> = slow.iter().collect();
    let ringwall = start(
        &all,
        "max_fails=0",
        "proxy_read_timeout 1s; proxy_next_upstream_timeout 1500ms;",
    );
    assert_eq!(get(&ringwall).0, 504);
    let asked = slow.iter().map(Origin::requests).sum::<usize>();
    assert!((2..4).contains(&asked), "{asked}");
}

#[test]
fn no_request_is_delivered_twice_unless_it_is_idempotent_or_nothing_of_it_was_consumed() {
    for request in [
        POST,
        "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "PURGE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let (one, two) = (after_request(Peer::reset), after_request(Peer::reset));
        let ringwall = start(
            &[&one, &two],
            "max_fails=0",
            "proxy_next_upstream error timeout invalid_header http_502;",
        );
        assert_eq!(send(&ringwall, request), 502, "{request}");
        assert_eq!(one.requests() + two.requests(), 1, "{request}");
    }
    // Nothing of it was consumed: nobody was there.
    let good = good();
    let ringwall = Site::new().start(&http(&format!(
        "upstream backend {{ server 127.0.0.1:{} max_fails=0; server {}; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://backend; }} }}",
        free_port(),
        good.address()
    )));
    for _ in 0..4 {
        assert_eq!(send(&ringwall, POST), 200);
    }
    assert_eq!(good.requests(), 4);
}

#[test]
fn non_idempotent_requests_go_on_where_the_operator_wants_it() {
    let (bad, good) = (after_request(Peer::reset), good());
    let ringwall = start(
        &[&bad, &good],
        "max_fails=0",
        "proxy_next_upstream error non_idempotent;",
    );
    for _ in 0..4 {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(POST);
        assert_eq!(
            client.response("POST").text(),
            "good hello",
            "with its body"
        );
    }
    assert!(bad.requests() >= 1);
}

#[test]
fn an_answer_that_has_begun_is_not_taken_back() {
    let bad = after_request(|peer| {
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
        peer.send(&[b'x'; 50_000])?;
        peer.reset()
    });
    let good = good();
    let ringwall = start(&[&bad], "max_fails=1", "proxy_next_upstream error timeout;");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Cut off, or refused as a whole: never completed by somebody else.
    let outcome = client.try_response("GET");
    assert!(outcome.map_or(true, |response| response.status == 502));
    assert_eq!(good.requests(), 0);
}

#[test]
fn a_backend_that_speaks_before_it_is_asked_answers_nobody() {
    let answers = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&answers);
    let eager = Origin::script(move |peer| {
        peer.send(&ok("uncalled for"))?;
        loop {
            peer.request()?;
            peer.send(&ok("called for"))?;
            given.fetch_add(1, Ordering::SeqCst);
        }
    });
    let ringwall = start(&[&eager], "", "");
    for _ in 0..3 {
        // What came first is taken for the first answer, as there is no telling
        // them apart; but no second request is answered by what is left.
        let before = answers.load(Ordering::SeqCst);
        let (status, text) = get(&ringwall);
        assert!(status == 502 || text == "uncalled for", "{status} {text}");
        if status != 502 {
            // Of what is left once it has come.
            eventually("the request is answered", || {
                (answers.load(Ordering::SeqCst) > before).then_some(())
            });
        }
    }
    assert!(eager.connections() >= 3, "no such connection is used again");
}

#[test]
fn a_kept_connection_that_turns_out_to_be_closed_is_replaced_by_a_new_one_and_not_by_the_next() {
    const KEPT: usize = 3;
    let all_ask = Barrier::new(KEPT);
    let origin = Origin::script(move |peer| {
        let is_kept = peer.index < KEPT;
        peer.request()?;
        if is_kept {
            all_ask.wait();
        }
        peer.send(&ok("hello"))?;
        if is_kept {
            peer.request()?;
        }
        peer.finish()
    });
    let ringwall = start(&[&origin], "", "");
    std::thread::scope(|scope| {
        for _ in 0..KEPT {
            scope.spawn(|| assert_eq!(get(&ringwall), (200, "hello".into())));
        }
    });
    assert_eq!(get(&ringwall), (200, "hello".into()));
    assert_eq!(origin.requests(), KEPT + 2);
}

#[test]
fn a_backend_that_dribbles_is_waited_for_and_one_that_answers_early_is_heard() {
    let slow = after_request(|peer| {
        for byte in ok("slowly") {
            peer.send(&[byte])?;
        }
        peer.drain()
    });
    let ringwall = start(&[&slow], "", "");
    assert_eq!(get(&ringwall), (200, "slowly".into()));
    let early = Origin::script(|peer| {
        peer.head()?;
        peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")?;
        peer.finish()
    });
    let ringwall = start(&[&early], "", "client_max_body_size 0;");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    let _ = client.try_send(vec![b'x'; 300_000]);
    assert_eq!(client.response("POST").status, 413);
}

#[test]
fn a_mended_backend_is_asked_again_after_fail_timeout() {
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let moody = Origin::script(move |peer| {
        loop {
            peer.request()?;
            if state.load(Ordering::SeqCst) {
                return peer.reset();
            }
            peer.send(&ok("mended"))?;
        }
    });
    let good = good();
    let ringwall = start(&[&moody, &good], "max_fails=2 fail_timeout=1s", "");
    for _ in 0..8 {
        assert_eq!(get(&ringwall).1, "good ");
    }
    ringwall.complaint_with(&["upstream server temporarily disabled"]);
    let asked = moody.requests();
    assert_eq!(asked, 2, "twice is enough");
    broken.store(false, Ordering::SeqCst);
    eventually("it is asked again", || {
        (get(&ringwall).1 == "mended").then_some(())
    });
}
