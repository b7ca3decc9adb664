//! `limit_req` and `limit_conn`: who comes too often or with too many requests
//! at a time is refused or delayed, by the counts that Nginx arrives at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http, whole};

const NOWHERE: &str = "proxy_pass http://127.0.0.1:1;";

fn start(content: &str) -> Ringwall {
    Site::new().start(&http(content))
}

/// The statuses of requests, each on a connection of its own.
fn statuses(address: SocketAddr, targets: impl IntoIterator<Item = String>) -> Vec<u16> {
    let get = |target: String| Connection::plain(address).get("a", &target).status;
    targets.into_iter().map(get).collect()
}

#[test]
fn a_burst_passes_and_the_rest_is_refused() {
    let ringwall = start(&format!(
        "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m; limit_req_status 429;
         server {{ listen 127.0.0.1:@HTTP@;
         location / {{ limit_req zone=one burst=5 nodelay; {NOWHERE} }}
         location /said/ {{ limit_req zone=one; return 200 said; }} }}"
    ));
    let address = ringwall.address("HTTP");
    let got = statuses(address, (0..10).map(|_| "/".into()));
    assert_eq!(got, [502, 502, 502, 502, 502, 502, 429, 429, 429, 429]);
    // What rewriting answers is said before anybody counts.
    assert_eq!(statuses(address, ["/said/".into()]), [200]);
    ringwall.complaint_with(&[
        "[error]",
        "limiting requests, excess: ",
        "by zone \"one\", client: 127.0.0.1",
    ]);
}

#[test]
fn requests_above_the_rate_wait_their_turn() {
    let ringwall = start(&format!(
        "limit_req_zone $binary_remote_addr zone=one:1m rate=5r/s;
         server {{ listen 127.0.0.1:@HTTP@; location / {{ limit_req zone=one burst=3; {NOWHERE} }} }}"
    ));
    let mut clients: Vec<_> = (0..5)
        .map(|_| Connection::plain(ringwall.address("HTTP")))
        .collect();
    let begin = Instant::now();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let waits: Vec<_> = std::thread::scope(|scope| {
        let waiting: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || (client.response("GET").status, begin.elapsed())))
            .collect();
        waiting
            .into_iter()
            .map(|thread| thread.join().expect("an answer"))
            .collect()
    });
    let mut passed: Vec<_> = waits
        .iter()
        .filter(|(status, _)| *status == 502)
        .map(|(_, wait)| *wait)
        .collect();
    passed.sort();
    assert_eq!(passed.len(), 4, "{waits:?}");
    assert_eq!(
        waits.iter().filter(|(status, _)| *status == 503).count(),
        1,
        "{waits:?}"
    );
    // 200 ms apart, less what the requests themselves came after one another.
    for (turn, wait) in passed.iter().enumerate() {
        let due = Duration::from_millis(200 * turn as u64);
        assert!(*wait + Duration::from_millis(30) >= due, "{passed:?}");
    }
    ringwall.complaint_with(&["[warn]", "delaying request, excess: ", ", by zone \"one\""]);
}

#[test]
fn a_client_that_does_not_wait_for_its_turn_is_not_waited_for() {
    let ringwall = start(&format!(
        "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
         server {{ listen 127.0.0.1:@HTTP@; location / {{ limit_req zone=one burst=5; {NOWHERE} }} }}"
    ));
    let address = ringwall.address("HTTP");
    assert_eq!(statuses(address, ["/".into()]), [502]);
    let mut delayed = Connection::plain(address);
    delayed.send("GET /delayed HTTP/1.1\r\nHost: a\r\n\r\n");
    ringwall.complaint_with(&["[warn]", "delaying request", "GET /delayed"]);
    drop(delayed);
    ringwall.access_with(&["GET /delayed", " 499 "]);
    ringwall.complaint_with(&[
        "[info]",
        "client prematurely closed connection",
        "GET /delayed",
    ]);
}

#[test]
fn all_workers_count_together() {
    let ringwall = Site::new().start(&whole(
        "worker_processes 4;",
        "",
        &format!(
            "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
             server {{ listen 127.0.0.1:@HTTP@;
             location / {{ limit_req zone=one burst=39 nodelay; {NOWHERE} }} }}"
        ),
    ));
    let address = ringwall.address("HTTP");
    let passed: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || statuses(address, (0..20).map(|_| "/".into()))))
            .collect();
        let all = clients
            .into_iter()
            .flat_map(|client| client.join().expect("answers"));
        all.filter(|status| *status == 502).count()
    });
    assert_eq!(passed, 40);
}

#[test]
fn a_reload_forgets_nothing() {
    let content = format!(
        "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
         server {{ listen 127.0.0.1:@HTTP@; location / {{ limit_req zone=one; {NOWHERE} }}
         location /which {{ return 200 old; }} }}"
    );
    let mut ringwall = start(&content);
    let address = ringwall.address("HTTP");
    let one = || statuses(address, ["/".into()]);
    assert_eq!([one(), one()], [[502], [503]]);
    ringwall.rewrite(&http(&content.replace("200 old", "200 new")));
    ringwall.reload();
    eventually("the new configuration serves", || {
        (Connection::plain(address).get("a", "/which").text() == "new").then_some(())
    });
    assert_eq!(one(), [503]);
}

#[test]
fn nginx_with_the_same_configuration_lets_the_same_requests_pass() {
    let content = format!(
        "limit_req_zone $binary_remote_addr zone=address:1m rate=1r/m;
         limit_req_zone $arg_a zone=a:1m rate=2r/m;
         limit_req_zone $arg_a$arg_b zone=ab:1m rate=1r/m;
         add_header X-Status \"$limit_req_status $limit_conn_status\" always;
         server {{ listen 127.0.0.1:@HTTP@;
         location /one {{ limit_req zone=a; {NOWHERE} }}
         location /burst {{ limit_req zone=ab burst=2 nodelay; limit_req_status 429; {NOWHERE} }}
         location /both {{ limit_req zone=a burst=3 nodelay; limit_req zone=ab burst=1 nodelay; {NOWHERE} }}
         location /htob {{ limit_req zone=ab burst=1 nodelay; limit_req zone=a burst=3 nodelay; {NOWHERE} }}
         location /delay {{ limit_req zone=ab burst=3 delay=3; {NOWHERE} }}
         location /dry {{ limit_req zone=address; limit_req_dry_run on; {NOWHERE} }}
         location /much {{ limit_req zone=address burst=100 nodelay; {NOWHERE} }}
         location /none {{ {NOWHERE} }} }}"
    );
    let ringwall = start(&content);
    let mut site = Site::new();
    let nginx = Nginx::start(&mut site, &content.replace("@HTTP@", "@NGINX@"));
    let targets = [
        "/one", "/burst", "/both", "/htob", "/delay", "/dry", "/much", "/none",
    ];
    let queries = ["?a=1", "?a=2", "?b=2", "?a=1&b=2", "", "?a=3&b=3"];
    let mut requests = Vec::new();
    for round in 0..8 {
        for (number, target) in targets.iter().enumerate() {
            for query in queries.iter().skip((round + number) % 3) {
                requests.push(format!("{target}{query}"));
            }
        }
    }
    let answers = |address| {
        let get = |target: &String| {
            let response = Connection::plain(address).get("a", target);
            let status = response.header("x-status").map(str::to_owned);
            (target.clone(), response.status, status)
        };
        requests.iter().map(get).collect::<Vec<_>>()
    };
    assert_eq!(answers(ringwall.address("HTTP")), answers(nginx.address()));
}

/// A backend that holds on to requests for `/hold…` until they are released.
fn holding(released: Arc<AtomicBool>) -> Origin {
    Origin::script(move |peer| {
        loop {
            let request = peer.request()?;
            if request.target().starts_with("/hold") {
                eventually("the request is released", || {
                    released.load(Ordering::SeqCst).then_some(())
                });
            }
            peer.send(&ok("hello"))?;
        }
    })
}

#[test]
fn more_requests_at_a_time_than_limit_conn_allows_are_refused_as_by_nginx() {
    let released = Arc::new(AtomicBool::new(false));
    let origin = holding(Arc::clone(&released));
    let content = format!(
        "limit_conn_zone $binary_remote_addr zone=address:1m;
         limit_conn_zone $arg_a zone=a:1m;
         limit_conn_log_level warn;
         add_header X-Status \"$limit_req_status $limit_conn_status\" always;
         server {{ listen 127.0.0.1:@HTTP@; limit_conn address 3;
         location / {{ proxy_pass {url}; }}
         location /hold/a {{ limit_conn a 1; limit_conn address 4; limit_conn_status 429; proxy_pass {url}; }}
         location /dry/ {{ limit_conn a 1; limit_conn_dry_run on; proxy_pass {url}; }} }}",
        url = origin.url()
    );
    let ringwall = start(&content);
    let mut site = Site::new();
    let nginx = Nginx::start(&mut site, &content.replace("@HTTP@", "@NGINX@"));
    let mut outcomes = Vec::new();
    for address in [ringwall.address("HTTP"), nginx.address()] {
        let before = origin.requests();
        let hold = |target: &str, nth: usize| {
            let mut client = Connection::plain(address);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            eventually("the backend has it", || {
                (origin.requests() == before + nth).then_some(())
            });
            client
        };
        let get = |target: &str| {
            let response = Connection::plain(address).get("a", target);
            let status = response.header("x-status").map(str::to_owned);
            (response.status, status)
        };
        let mut seen = Vec::new();
        let first = hold("/hold/a?a=1", 1);
        seen.push(get("/hold/a?a=1"));
        seen.push(get("/dry/?a=1"));
        let second = hold("/hold/a?a=2", 3);
        let third = hold("/hold/b", 4);
        seen.push(get("/"));
        seen.push(get("/hold/a?a=1"));
        released.store(true, Ordering::SeqCst);
        for mut client in [first, second, third] {
            assert_eq!(client.response("GET").text(), "hello");
        }
        // What was counted is given back.
        eventually("it is given back", || {
            (get("/hold/a?a=1").0 == 200 && get("/").0 == 200).then_some(())
        });
        released.store(false, Ordering::SeqCst);
        outcomes.push(seen);
    }
    assert_eq!(outcomes[0], outcomes[1]);
    let statuses: Vec<_> = outcomes[0].iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [429, 200, 503, 429]);
    ringwall.complaint_with(&["[warn]", "limiting connections by zone \"a\""]);
    ringwall.complaint_with(&["[warn]", "limiting connections, dry run by zone \"a\""]);
}

#[test]
fn zones_that_nginx_refuses_are_refused_in_its_words() {
    for (content, complaint) in [
        ("limit_req zone=x;", "zero size shared memory zone \"x\""),
        ("limit_conn x 1;", "zero size shared memory zone \"x\""),
        (
            "limit_req_zone $host zone=x:1k rate=1r/s;",
            "zone \"zone=x:1k\" is too small",
        ),
        (
            "limit_req_zone $host zone=x rate=1r/s;",
            "invalid zone size \"zone=x\"",
        ),
        (
            "limit_req_zone $host zone=x:1m rate=0r/s;",
            "invalid rate \"rate=0r/s\"",
        ),
        (
            "limit_req_zone $host zone=x:1m rare=1r/s;",
            "invalid parameter \"rare=1r/s\"",
        ),
        (
            "limit_req_zone $host zone=x:1m rate=1r/s; limit_req zone=x burst=0;",
            "invalid burst value \"burst=0\"",
        ),
        (
            "limit_req_zone $host zone=x:1m rate=1r/s; limit_req zone=x; limit_req zone=x;",
            "\"limit_req\" directive is duplicate",
        ),
        (
            "limit_req_zone $host zone=x:1m rate=1r/s; limit_req burst=1;",
            "\"limit_req\" must have \"zone\" parameter",
        ),
        (
            "limit_req_zone $host zone=x:1m rate=1r/s; limit_req_zone $uri zone=x:1m rate=1r/s;",
            "limit_req_zone \"x\" is already bound to key \"$host\"",
        ),
        (
            "limit_req_zone $host zone=x:1m rate=1r/s; limit_conn_zone $uri zone=x:1m;",
            "the shared memory zone \"x\" is already declared for a different use",
        ),
        (
            "limit_conn_zone $host zone=x:1m; limit_conn x 0;",
            "invalid number of connections \"0\"",
        ),
        (
            "limit_conn_zone $host zone=x:1m; limit_conn x 65536;",
            "connection limit must be less 65536",
        ),
        ("limit_req_status 200;", "value must be between 400 and 599"),
    ] {
        let outcome = Site::new().check(&http(content));
        assert!(!outcome.ok(), "{content}");
        assert!(
            outcome.stderr.contains(complaint),
            "{content}: {}",
            outcome.stderr
        );
    }
    // A zone may be defined behind its use.
    let outcome = Site::new().check(&http(
        "server { listen 8080; limit_req zone=x; } limit_req_zone $host zone=x:1m rate=1r/s;",
    ));
    assert!(outcome.ok(), "{}", outcome.stderr);
}
