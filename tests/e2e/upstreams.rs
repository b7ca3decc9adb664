//! Which backend gets a request, and who steps in when one does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::client::Connection;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};
use crate::support::{eventually, free_port};

fn named(name: &'static str) -> Origin {
    Origin::http(move |_| ok(name))
}

/// A plain server in front of an upstream with these lines.
fn balance(servers: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "upstream backend {{ {servers} }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://backend; }} }}"
    )))
}

/// How often each backend answered `requests` GETs.
fn tally(ringwall: &Ringwall, requests: usize) -> BTreeMap<String, usize> {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let response = client.get("a", "/");
        let key = if response.status == 200 {
            response.text()
        } else {
            response.status.to_string()
        };
        *counts.entry(key).or_default() += 1;
    }
    counts
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

#[test]
fn requests_go_round_in_turn() {
    let (a, b) = (named("a"), named("b"));
    let ringwall = balance(&format!("server {}; server {};", a.address(), b.address()));
    assert_eq!(tally(&ringwall, 10), counts(&[("a", 5), ("b", 5)]));
}

#[test]
fn weights_are_kept_exactly() {
    let (a, b) = (named("a"), named("b"));
    let ringwall = balance(&format!(
        "server {} weight=3; server {};",
        a.address(),
        b.address()
    ));
    assert_eq!(tally(&ringwall, 20), counts(&[("a", 15), ("b", 5)]));
}

#[test]
fn a_server_that_is_down_gets_nothing() {
    let (a, b) = (named("a"), named("b"));
    let ringwall = balance(&format!(
        "server {} down; server {};",
        a.address(),
        b.address()
    ));
    assert_eq!(tally(&ringwall, 6), counts(&[("b", 6)]));
    assert_eq!(a.connections(), 0);
}

#[test]
fn the_next_server_is_tried_when_one_refuses() {
    let a = named("a");
    let ringwall = balance(&format!(
        "server 127.0.0.1:{}; server {};",
        free_port(),
        a.address()
    ));
    assert_eq!(tally(&ringwall, 10), counts(&[("a", 10)]));
    ringwall.complaint_with(&["Connection refused", "while connecting to upstream"]);
}

#[test]
fn the_next_server_is_tried_when_one_breaks_before_a_response() {
    let a = Origin::script(|peer| {
        peer.request()?;
        peer.reset()
    });
    let b = named("b");
    let ringwall = balance(&format!("server {}; server {};", a.address(), b.address()));
    assert_eq!(tally(&ringwall, 6), counts(&[("b", 6)]));
    assert!(a.requests() >= 1);
}

#[test]
fn a_failed_server_is_left_alone_for_fail_timeout() {
    let a = Origin::script(|peer| {
        peer.request()?;
        peer.reset()
    });
    let b = named("b");
    let ringwall = balance(&format!(
        "server {} max_fails=1 fail_timeout=60s; server {};",
        a.address(),
        b.address()
    ));
    assert_eq!(tally(&ringwall, 20), counts(&[("b", 20)]));
    assert_eq!(a.requests(), 1, "it is asked once, then left alone");
}

#[test]
fn a_failed_server_comes_back_after_fail_timeout() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = std::sync::Arc::clone(&broken);
    let a = Origin::script(move |peer| {
        loop {
            peer.request()?;
            if state.load(std::sync::atomic::Ordering::SeqCst) {
                return peer.reset();
            }
            peer.send(&ok("a"))?;
        }
    });
    let b = named("b");
    let ringwall = balance(&format!(
        "server {} max_fails=1 fail_timeout=1s; server {};",
        a.address(),
        b.address()
    ));
    assert_eq!(tally(&ringwall, 4), counts(&[("b", 4)]));
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    eventually("the mended server is asked again", || {
        tally(&ringwall, 2).contains_key("a").then_some(())
    });
}

#[test]
fn max_fails_0_never_marks_a_server_failed() {
    let a = Origin::script(|peer| {
        peer.request()?;
        peer.reset()
    });
    let b = named("b");
    let ringwall = balance(&format!(
        "server {} max_fails=0; server {};",
        a.address(),
        b.address()
    ));
    assert_eq!(tally(&ringwall, 10), counts(&[("b", 10)]));
    assert!(a.requests() >= 4, "asked {} times of 10", a.requests());
}

#[test]
fn a_backup_serves_only_when_all_others_fail() {
    let (a, b) = (named("a"), named("b"));
    let ringwall = balance(&format!(
        "server {} backup; server {};",
        b.address(),
        a.address()
    ));
    assert_eq!(tally(&ringwall, 5), counts(&[("a", 5)]));
    assert_eq!(b.connections(), 0);

    let ringwall = balance(&format!(
        "server 127.0.0.1:{}; server {} backup;",
        free_port(),
        b.address()
    ));
    assert_eq!(tally(&ringwall, 5), counts(&[("b", 5)]));
}

#[test]
fn when_none_answers_the_client_gets_502_and_the_log_says_so() {
    let ringwall = balance(&format!(
        "server 127.0.0.1:{}; server 127.0.0.1:{};",
        free_port(),
        free_port()
    ));
    assert_eq!(tally(&ringwall, 3), counts(&[("502", 3)]));
    ringwall.complaint_with(&["no live upstreams while connecting to upstream"]);
}

#[test]
fn a_post_is_not_tried_again_elsewhere_once_it_was_sent() {
    let broken = || {
        Origin::script(|peer| {
            peer.request()?;
            peer.reset()
        })
    };
    let (a, b) = (broken(), broken());
    let ringwall = balance(&format!("server {}; server {};", a.address(), b.address()));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response("POST").status, 502);
    assert_eq!(a.requests() + b.requests(), 1);
}

#[test]
fn a_post_is_tried_elsewhere_while_nothing_of_it_was_sent() {
    let a = Origin::echo();
    let ringwall = balance(&format!(
        "server 127.0.0.1:{} max_fails=0; server {};",
        free_port(),
        a.address()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..4 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(client.response("POST").text(), "hello");
    }
}

#[test]
fn an_ipv6_address_that_refuses_gives_way_to_ipv4() {
    // What `localhost` resolves to where a backend listens on IPv4 only.
    let a = named("a");
    let ringwall = balance(&format!(
        "server [::1]:{0}; server 127.0.0.1:{0};",
        a.port()
    ));
    assert_eq!(tally(&ringwall, 4), counts(&[("a", 4)]));
}

#[test]
fn localhost_finds_a_backend_on_ipv4() {
    let a = named("a");
    let ringwall = balance(&format!("server localhost:{};", a.port()));
    assert_eq!(tally(&ringwall, 4), counts(&[("a", 4)]));
}

#[test]
fn a_unix_socket_is_a_backend_like_any_other() {
    let site = Site::new();
    let path = site.file("backend.sock");
    let origin = Origin::unix_http(&path, |request| {
        ok(&format!(
            "{} {:?}",
            request.target(),
            request.header("host")
        ))
    });
    let ringwall = site.start(&http(&format!(
        "upstream sockets {{ server {0}; }}\n\
         server {{ listen 127.0.0.1:@HTTP@;\n\
         location /direct/ {{ proxy_pass http://{0}; }}\n\
         location /uri/ {{ proxy_pass http://{0}:/new/; }}\n\
         location /named/ {{ proxy_pass http://sockets; }} }}",
        origin.address()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(
        client.get("a", "/direct/x").text(),
        "/direct/x Some(\"localhost\")"
    );
    assert_eq!(
        client.get("a", "/uri/x").text(),
        "/new/x Some(\"localhost\")"
    );
    assert_eq!(
        client.get("a", "/named/x").text(),
        "/named/x Some(\"sockets\")"
    );
}

#[test]
fn a_connect_that_hangs_ends_at_proxy_connect_timeout() {
    // A listener whose accept queue is full neither accepts nor refuses.
    let (address, _keep) = unresponsive();
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ proxy_pass http://{address}; proxy_connect_timeout 1s; }} }}"
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let start = std::time::Instant::now();
    assert_eq!(client.get("a", "/").status, 504);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

/// An address whose connects hang, with the sockets that make it so.
fn unresponsive() -> (std::net::SocketAddr, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("a free port");
    listener.listen(0).expect("it listens");
    let address = listener
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an Internet address");
    let mut keep = vec![listener];
    loop {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let connected = filler.connect_timeout(&address.into(), Duration::from_millis(300));
        keep.push(filler);
        if connected.is_err() {
            return (address, keep);
        }
        assert!(keep.len() < 100, "the accept queue never fills");
    }
}
