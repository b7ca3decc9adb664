//! Balancing methods: the same request goes to the same backend as with
//! Nginx; connection limits, sticky clients and shared failures hold.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

use socket2::{Domain, Socket, Type};

use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http, whole};

/// Backends that answer with their number.
fn numbered(count: usize) -> Vec<Origin> {
    (0..count)
        .map(|number| Origin::http(move |_| ok(&number.to_string())))
        .collect()
}

/// `server` lines for backends with these weights.
fn servers(origins: &[Origin], weights: &[u32]) -> String {
    origins
        .iter()
        .zip(weights)
        .map(|(origin, weight)| format!("server {} weight={weight};\n", origin.address()))
        .collect()
}

fn site(upstream: &str, port: &str) -> String {
    format!(
        "upstream backend {{ {upstream} }}\n\
         server {{ listen 127.0.0.1:@{port}@; location / {{ proxy_pass http://backend; }} }}"
    )
}

fn start(upstream: &str) -> Ringwall {
    Site::new().start(&http(&site(upstream, "HTTP")))
}

/// A connection from this loopback address.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source = SocketAddr::from((IpAddr::V4(source), 0));
    socket.bind(&source.into()).expect("a loopback address");
    socket.connect(&to.into()).expect("it listens");
    Connection::over(TcpStream::from(socket))
}

/// Which backend answers each target, asked from each source.
fn answers(address: SocketAddr, sources: &[Ipv4Addr], targets: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for source in sources {
        let mut client = connect_from(*source, address);
        for target in targets {
            let response = client.get("a", target);
            all.push(format!("{} {}", response.status, response.text()));
        }
    }
    all
}

/// Holds ringwall and Nginx with this upstream against each other.
fn agree_with_nginx(upstream: &str, sources: &[Ipv4Addr], targets: &[String]) {
    let ringwall = start(upstream);
    let mut site_of_nginx = Site::new();
    let nginx = Nginx::start(&mut site_of_nginx, &site(upstream, "NGINX"));
    let ours = answers(ringwall.address("HTTP"), sources, targets);
    let theirs = answers(nginx.address(), sources, targets);
    assert_eq!(ours, theirs, "{upstream}");
    let used: BTreeSet<_> = ours.iter().collect();
    assert!(used.len() > 1, "all went to {used:?}");
}

fn targets(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("/page/{n}?k=user-{n}"))
        .collect()
}

const HERE: [Ipv4Addr; 1] = [Ipv4Addr::LOCALHOST];

#[test]
fn a_key_leads_to_the_same_backend_as_with_nginx() {
    let origins = numbered(4);
    for key in ["$request_uri", "$arg_k", "fixed$uri"] {
        let servers = servers(&origins, &[1, 3, 1, 2]);
        agree_with_nginx(&format!("hash {key}; {servers}"), &HERE, &targets(100));
    }
}

#[test]
fn a_key_on_the_circle_leads_to_the_same_backend_as_with_nginx() {
    let origins = numbered(4);
    let servers = servers(&origins, &[1, 3, 1, 2]);
    let upstream = format!("hash $request_uri consistent; {servers}");
    agree_with_nginx(&upstream, &HERE, &targets(200));
}

#[test]
fn a_failed_server_leaves_its_keys_to_the_same_others_as_with_nginx() {
    let origins = numbered(3);
    for method in ["hash $request_uri", "hash $request_uri consistent"] {
        let servers = servers(&origins, &[1, 1, 1]);
        let down = "server 127.0.0.1:1 weight=2 max_fails=1 fail_timeout=1h;";
        let upstream = format!("{method}; {down} {servers}");
        agree_with_nginx(&upstream, &HERE, &targets(60));
    }
}

#[test]
fn an_address_leads_to_the_same_backend_as_with_nginx() {
    let origins = numbered(3);
    let sources: Vec<_> = (1..=60_u8).map(|n| Ipv4Addr::new(127, 3, n, n)).collect();
    let servers = servers(&origins, &[1, 2, 1]);
    agree_with_nginx(&format!("ip_hash; {servers}"), &sources, &["/".to_owned()]);
}

#[test]
fn weights_are_interleaved_in_the_same_order_as_with_nginx() {
    let origins = numbered(3);
    let servers = servers(&origins, &[5, 1, 2]);
    agree_with_nginx(&servers, &HERE, &targets(40));
}

#[test]
fn the_least_busy_backend_is_chosen() {
    let barrier = Arc::new(Barrier::new(2));
    let gate = Arc::clone(&barrier);
    let slow = Origin::http(move |_| {
        gate.wait();
        ok("slow")
    });
    let quick = Origin::http(|_| ok("quick"));
    let ringwall = start(&format!(
        "least_conn; server {}; server {};",
        slow.address(),
        quick.address()
    ));
    let address = ringwall.address("HTTP");
    // Whose turn it is at first decides who gets the request that waits.
    let waiting = std::thread::spawn(move || Connection::plain(address).get("a", "/").text());
    eventually("the slow one is busy", || {
        (slow.requests() == 1).then_some(())
    });
    let mut client = Connection::plain(address);
    for _ in 0..8 {
        assert_eq!(client.get("a", "/").text(), "quick");
    }
    barrier.wait();
    assert_eq!(waiting.join().expect("no panic"), "slow");
}

#[test]
fn a_backend_gets_no_more_requests_at_a_time_than_max_conns() {
    let barrier = Arc::new(Barrier::new(2));
    let gate = Arc::clone(&barrier);
    let is_first = AtomicBool::new(true);
    let origin = Origin::http(move |_| {
        if is_first.swap(false, Ordering::Relaxed) {
            gate.wait();
        }
        ok("done")
    });
    // Shared by two workers, so that their counts must be one.
    let ringwall = Site::new().start(&whole(
        "worker_processes 2;",
        "",
        &site(
            &format!("zone z 64k; server {} max_conns=1;", origin.address()),
            "HTTP",
        ),
    ));
    let address = ringwall.address("HTTP");
    let busy = std::thread::spawn(move || Connection::plain(address).get("a", "/").status);
    eventually("one request is there", || {
        (origin.requests() == 1).then_some(())
    });
    for _ in 0..6 {
        assert_eq!(Connection::plain(address).get("a", "/").status, 502);
    }
    assert_eq!(origin.requests(), 1);
    barrier.wait();
    assert_eq!(busy.join().expect("no panic"), 200);
    ringwall.complaint_with(&["no live upstreams while connecting to upstream"]);
    // The client may have its answer a moment before its place is free.
    eventually("the place is free again", || {
        (Connection::plain(address).get("a", "/").status == 200).then_some(())
    });
    assert_eq!(origin.requests(), 2);
}

#[test]
fn requests_that_no_backend_can_take_wait_in_the_queue_in_order() {
    let (release, told) = channel::<()>();
    let told = Mutex::new(told);
    let origin = Origin::http(move |request| {
        let _ = told.lock().expect("not poisoned").recv();
        ok(request.target())
    });
    let ringwall = Site::new().start(&http(&format!(
        "log_format q '$request_uri $status queue=$upstream_queue_time';
         access_log @DIR@/access.log q;
         upstream one {{ server {} max_conns=1; queue 2 timeout=1h; }}
         upstream short {{ server {0} max_conns=1; queue 2 timeout=200ms; }}
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://one; }}
         location /short/ {{ proxy_pass http://short; }} location /ours {{ return 200 ours; }} }}",
        origin.address()
    )));
    let address = ringwall.address("HTTP");
    let ask = |target: &str| {
        let mut client = Connection::plain(address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    // Whatever came before this is where it waits.
    let settle = || assert_eq!(Connection::plain(address).get("a", "/ours").text(), "ours");
    let mut served = ask("/first");
    eventually("the first is there", || {
        (origin.requests() == 1).then_some(())
    });
    let gone = ask("/gone");
    settle();
    let mut waits = ask("/second");
    settle();
    let refused = Connection::plain(address).get("a", "/third");
    assert_eq!(refused.status, 502, "the queue is full");
    ringwall.complaint_with(&["upstream queue is full"]);
    drop(gone);
    ringwall.access_with(&["/gone 499"]);
    let mut last = ask("/fourth");
    settle();
    for client in [&mut served, &mut waits, &mut last] {
        release.send(()).expect("the backend waits");
        assert_eq!(client.response("GET").status, 200);
    }
    let asked = origin.all_received_text();
    let order = ["GET /first", "GET /second", "GET /fourth"].map(|line| asked.find(line));
    assert!(order.is_sorted() && order[0].is_some(), "{asked}");
    assert!(!asked.contains("/gone") && !asked.contains("/third"));
    ringwall.access_with(&["/first 200 queue=-"]);
    ringwall.access_with(&["/fourth 200 queue=0."]);

    let mut served = ask("/short/first");
    eventually("it is there", || (origin.requests() == 4).then_some(()));
    assert_eq!(
        Connection::plain(address).get("a", "/short/second").status,
        502
    );
    ringwall.complaint_with(&["upstream queue timed out"]);
    release.send(()).expect("the backend waits");
    assert_eq!(served.response("GET").status, 200);
}

#[test]
fn workers_of_a_zone_learn_of_a_failure_from_one_another() {
    let broken = Origin::script(|peer| {
        peer.request()?;
        peer.reset()
    });
    let origin = Origin::http(|_| ok("ok"));
    let ringwall = Site::new().start(&whole(
        "worker_processes 4;",
        "",
        &site(
            &format!(
                "zone z 64k; server {} fail_timeout=1h; server {};",
                broken.address(),
                origin.address()
            ),
            "HTTP",
        ),
    ));
    for _ in 0..40 {
        let response = Connection::plain(ringwall.address("HTTP")).get("a", "/");
        assert_eq!(response.text(), "ok");
    }
    assert_eq!(broken.requests(), 1, "one failure is enough for all");
}

#[test]
fn a_sticky_client_stays_with_its_backend() {
    let origins = numbered(3);
    let servers: String = origins
        .iter()
        .map(|origin| format!("server {};\n", origin.address()))
        .collect();
    let ringwall = start(&format!(
        "{servers} sticky cookie srv expires=1h domain=.example.com path=/ httponly secure \
         samesite=lax;"
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let first = client.get("a", "/");
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert!(attributes.starts_with("expires="), "{attributes}");
    assert!(
        attributes.ends_with(
            "GMT; max-age=3600; domain=.example.com; httponly; secure; samesite=lax; path=/"
        ),
        "{attributes}"
    );
    let value = pair.strip_prefix("srv=").expect("the name");
    assert_eq!(value.len(), 32, "the MD5 of the address");
    for _ in 0..7 {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; {pair}\r\n\r\n"
        ));
        let response = client.response("GET");
        assert_eq!(response.text(), first.text());
        assert_eq!(response.header("set-cookie"), Some(&*cookie));
    }
    // A cookie that names nobody is no cookie.
    let mut others = BTreeSet::new();
    for _ in 0..6 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: srv=nobody\r\n\r\n");
        others.insert(client.response("GET").text());
    }
    assert_eq!(others.len(), 3);
}

#[test]
fn a_route_in_the_request_leads_to_its_backend() {
    let origins = numbered(2);
    let ringwall = start(&format!(
        "server {} route=a; server {} route=b; sticky route $cookie_route $arg_route;",
        origins[0].address(),
        origins[1].address()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..4 {
        assert_eq!(client.get("a", "/?route=b").text(), "1");
        let response = client.get("a", "/?route=a");
        assert_eq!(response.text(), "0");
        assert_eq!(response.header("set-cookie"), None);
    }
}

#[test]
fn a_session_stays_with_the_backend_that_began_it() {
    let origins: Vec<_> = (0..3)
        .map(|number| {
            Origin::http(move |request| {
                let session = match request.target() {
                    "/login" => format!("Set-Cookie: session=of-{number}; Path=/\r\n"),
                    _ => String::new(),
                };
                let body = number.to_string();
                format!("HTTP/1.1 200 OK\r\n{session}Content-Length: 1\r\n\r\n{body}").into_bytes()
            })
        })
        .collect();
    for (port, header) in [("A", ""), ("B", "header")] {
        let servers = servers(&origins, &[1, 1, 1]);
        let learn = format!(
            "sticky learn create=$upstream_cookie_session lookup=$cookie_session \
             zone=sessions:64k timeout=1h {header};"
        );
        // Two workers, which have to learn from one another.
        let ringwall = Site::new().start(&whole(
            "worker_processes 2;",
            "",
            &site(&format!("{servers} {learn}"), port),
        ));
        let address = ringwall.address(port);
        let get = |target: &str, cookie: &str| {
            let mut client = Connection::plain(address);
            client.send(format!(
                "GET {target} HTTP/1.1\r\nHost: a\r\nCookie: session={cookie}\r\n\r\n"
            ));
            client.response("GET")
        };
        let first = get("/login", "");
        let cookie = first.header("set-cookie").expect("a session");
        let session = cookie
            .trim_start_matches("session=")
            .trim_end_matches("; Path=/");
        // Without `header` it begins a moment after the answer has come.
        eventually("the session is known", || {
            let served: Vec<_> = (0..4).map(|_| get("/", session).text()).collect();
            served
                .iter()
                .all(|number| *number == first.text())
                .then_some(())
        });
        for _ in 0..12 {
            assert_eq!(get("/", session).text(), first.text());
        }
        // One that no backend began leads nowhere.
        let strangers: BTreeSet<_> = (0..12).map(|_| get("/", "stranger").text()).collect();
        assert_eq!(strangers.len(), 3);
    }
}
