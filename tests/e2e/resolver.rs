//! `proxy_pass` with variables: what is a group, an address or a name; and how
//! names are asked for while serving, those of `server … resolve` among them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::client::Connection;
use crate::support::dns::{A, AAAA, Answer, CNAME, NameServer, SRV, labels, localhost};
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};

/// A backend that tells what it was asked for, and by which name.
fn telltale() -> Origin {
    Origin::http(|request| {
        ok(&format!(
            "{} {}",
            request.target(),
            request.header("host").unwrap_or("-")
        ))
    })
}

fn start(content: &str) -> Ringwall {
    Site::new().start(&http(content))
}

/// A server that asks this name server for `$http_to`.
fn by_name(dns: &NameServer, parameters: &str, port: u16, more: &str) -> Ringwall {
    start(&format!(
        "resolver {} {parameters}; {more}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://$http_to:{port}; }} }}",
        dns.address()
    ))
}

fn ask(ringwall: &Ringwall, name: &str) -> (u16, String) {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nTo: {name}\r\n\r\n"));
    let response = client.response("GET");
    (response.status, response.text())
}

#[test]
fn a_url_with_variables_means_what_it_means_to_nginx() {
    let origin = telltale();
    let port = origin.port();
    let content = format!(
        "upstream app {{ server 127.0.0.1:{port}; }}\n\
         server {{ listen 127.0.0.1:@PORT@; proxy_set_header Host $proxy_host:$proxy_port;\n\
         location /group/ {{ proxy_pass http://$arg_g; }}\n\
         location /group-uri/ {{ proxy_pass http://$arg_g/fixed/; }}\n\
         location /address/ {{ proxy_pass http://127.0.0.1:$arg_p; }}\n\
         location /address-uri/ {{ proxy_pass http://127.0.0.1:$arg_p$uri; }}\n\
         location /asis/ {{ proxy_pass http://127.0.0.1:$arg_p$request_uri; }}\n\
         location /query/ {{ proxy_pass http://127.0.0.1:$arg_p?a=b; }}\n\
         location /whole/ {{ proxy_pass $arg_u; }}\n\
         location /scheme/ {{ proxy_pass $scheme://app$uri; }}\n\
         location /fixed/ {{ proxy_pass http://localhost:{port}; }}\n\
         location /implicit/ {{ proxy_pass http://$arg_h:{port}; }}\n\
         location ~ ^/regex/(.*)$ {{ proxy_pass http://app/$1; }}\n\
         location /none/ {{ proxy_pass http://$arg_g:1; }} }}"
    );
    let ringwall = start(&content.replace("@PORT@", "@HTTP@"));
    let mut site = Site::new();
    let nginx = Nginx::start(
        &mut site,
        &format!(
            "proxy_http_version 1.1; {}",
            content.replace("@PORT@", "@NGINX@")
        ),
    );
    for target in [
        "/group/x?g=app".to_owned(),
        "/group/x%2Fy//z?g=APP&b=1".into(),
        "/group-uri/x?g=app".into(),
        "/group/x?g=".into(),
        "/group/x?g=a%20b".into(),
        "/group/x?g=unknown.test".into(),
        format!("/address/a%20b?p={port}"),
        "/address/x?p=1".into(),
        "/address/x?p=99999".into(),
        format!("/address-uri/x/../y?p={port}"),
        format!("/asis/x%20y/../z?p={port}"),
        format!("/query/x?p={port}"),
        format!("/whole/x?u=http://127.0.0.1:{port}/there"),
        format!("/whole/x?u=http://127.0.0.1:{port}?q"),
        "/whole/x?u=ftp://a".into(),
        "/whole/x".into(),
        "/scheme/x".into(),
        "/fixed/x".into(),
        "/implicit/x?h=localhost".into(),
        "/implicit/x?h=LOCALHOST".into(),
        "/regex/some/path?q".into(),
        "/none/x?g=app".into(),
    ] {
        let [ours, theirs] = [ringwall.address("HTTP"), nginx.address()].map(|address| {
            let response = Connection::plain(address).get("a", &target);
            let text = (response.status == 200).then(|| response.text());
            (response.status, text)
        });
        assert_eq!(ours, theirs, "{target}");
    }
    ringwall.complaint_with(&["no resolver defined to resolve unknown.test"]);
}

#[test]
fn a_uri_that_would_break_the_request_line_is_refused() {
    let origin = telltale();
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ proxy_pass http://127.0.0.1:$server_port$uri; }}\n\
         location /x/ {{ proxy_pass http://127.0.0.1:{}$uri; }} }}",
        origin.port()
    ));
    let get = |target: &str| Connection::plain(ringwall.address("HTTP")).get("a", target);
    for target in ["/x/a%20b", "/x/a%0d%0aEvil:%20yes%0d%0a", "/x/%0a"] {
        assert_eq!(get(target).status, 400, "{target}");
    }
    assert_eq!(origin.requests(), 0);
    assert_eq!(
        get("/x/ab").text(),
        format!("/x/ab 127.0.0.1:{}", origin.port())
    );
}

#[test]
fn a_name_is_asked_for_once_while_its_answer_holds() {
    let dns = NameServer::start(|name, kind| match (name, kind) {
        ("a.test", A) => localhost(300),
        ("short.test", A) => localhost(1),
        _ => Answer::Records(Vec::new()),
    });
    let origin = telltale();
    let ringwall = by_name(&dns, "", origin.port(), "");
    for _ in 0..5 {
        assert_eq!(
            ask(&ringwall, "A.test"),
            (200, format!("/x A.test:{}", origin.port()))
        );
    }
    assert_eq!(dns.queries(), 2, "one for each family of addresses");
    ask(&ringwall, "short.test");
    let queries = dns.queries();
    eventually("it is asked for again", || {
        assert_eq!(ask(&ringwall, "short.test").0, 200);
        (dns.queries() > queries).then_some(())
    });
    let ports: BTreeSet<_> = dns.ports().into_iter().collect();
    assert!(
        ports.len() >= 3,
        "every question has a port of its own: {ports:?}"
    );
}

#[test]
fn valid_outweighs_the_answers_own_time_and_a_reload_keeps_what_is_known() {
    let dns = NameServer::start(|_, kind| match kind {
        A => localhost(0),
        _ => Answer::Code(3),
    });
    let origin = telltale();
    let ringwall = by_name(&dns, "valid=1h ipv6=off", origin.port(), "");
    for _ in 0..3 {
        assert_eq!(ask(&ringwall, "a.test").0, 200);
    }
    ringwall.reload();
    ringwall.complaint_with(&["reconfigur"]);
    for _ in 0..3 {
        assert_eq!(ask(&ringwall, "a.test").0, 200);
    }
    assert_eq!(dns.queries(), 1);
}

#[test]
fn what_cannot_be_resolved_is_a_bad_gateway_and_logged_as_in_nginx() {
    let dns = NameServer::start(|name, _| match name {
        "refused.test" => Answer::Code(5),
        "silent.test" => Answer::Silence,
        "empty.test" => Answer::Records(Vec::new()),
        _ => Answer::Code(3),
    });
    let ringwall = by_name(&dns, "", 80, "resolver_timeout 1s;");
    for (name, said) in [
        (
            "nobody.test",
            "nobody.test could not be resolved (3: Host not found)",
        ),
        (
            "empty.test",
            "empty.test could not be resolved (3: Host not found)",
        ),
        ("no_name!", "could not be resolved (3: Host not found)"),
        (
            "silent.test",
            "silent.test could not be resolved (110: Operation timed out)",
        ),
    ] {
        assert_eq!(ask(&ringwall, name).0, 502, "{name}");
        ringwall.complaint_with(&[said]);
    }
}

#[test]
fn the_next_name_server_is_asked_when_one_does_not_answer() {
    let dead = NameServer::start(|_, _| Answer::Silence);
    let failing = NameServer::start(|_, _| Answer::Code(2));
    let alive = NameServer::start(|_, kind| match kind {
        A => localhost(0),
        _ => Answer::Records(Vec::new()),
    });
    let origin = telltale();
    let ringwall = start(&format!(
        "resolver {} {} {}; server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ proxy_pass http://$http_to:{}; }} }}",
        dead.address(),
        failing.address(),
        alive.address(),
        origin.port()
    ));
    for turn in 0..3 {
        assert_eq!(ask(&ringwall, "a.test").0, 200, "{turn}");
    }
}

#[test]
fn aliases_long_answers_and_both_families_are_understood() {
    let dns = NameServer::start(|name, kind| match (name, kind) {
        ("alias.test", A) => Answer::Records(vec![(CNAME, 60, labels("real.test"))]),
        ("real.test", A) => localhost(60),
        ("long.test", A) => Answer::Truncated(vec![(A, 60, vec![127, 0, 0, 1])]),
        ("six.test", AAAA) => {
            let mut address = vec![0; 15];
            address.push(1);
            Answer::Records(vec![(AAAA, 60, address)])
        }
        ("loop.test", A) => Answer::Records(vec![(CNAME, 60, labels("loop.test"))]),
        _ => Answer::Records(Vec::new()),
    });
    let origin = telltale();
    let ringwall = by_name(&dns, "", origin.port(), "");
    assert_eq!(ask(&ringwall, "alias.test").0, 200);
    assert_eq!(ask(&ringwall, "long.test").0, 200);
    assert_eq!(ask(&ringwall, "loop.test").0, 502);
    assert_eq!(ask(&ringwall, "six.test").0, 502, "nobody listens on ::1");
    ringwall.complaint_with(&["Connection refused", &format!("[::1]:{}", origin.port())]);
}

#[test]
fn forged_answers_are_not_believed() {
    let dns = NameServer::start(|_, kind| match kind {
        A => Answer::AfterForgeries(
            vec![(A, 60, vec![127, 66, 66, 66])],
            vec![(A, 60, vec![127, 0, 0, 1])],
        ),
        _ => Answer::Records(Vec::new()),
    });
    let origin = telltale();
    let ringwall = by_name(&dns, "", origin.port(), "");
    assert_eq!(ask(&ringwall, "a.test").0, 200);
    assert!(!ringwall.complaints().contains("127.66.66.66"));
}

#[test]
fn a_slow_name_server_holds_up_nobody_else() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let dns = NameServer::start(move |name, kind| match (name, kind) {
        ("slow.test", _) if !gate.load(Ordering::SeqCst) => Answer::Silence,
        (_, A) => localhost(60),
        _ => Answer::Records(Vec::new()),
    });
    let origin = telltale();
    let ringwall = by_name(&dns, "", origin.port(), "");
    let address = ringwall.address("HTTP");
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Connection::plain(address);
                client.send("GET /x HTTP/1.1\r\nHost: a\r\nTo: slow.test\r\n\r\n");
                client.response("GET").status
            })
        })
        .collect();
    eventually("the slow name is asked for", || {
        (dns.queries() >= 2).then_some(())
    });
    assert_eq!(ask(&ringwall, "quick.test").0, 200);
    assert!(waiting.iter().all(|client| !client.is_finished()));
    open.store(true, Ordering::SeqCst);
    for client in waiting {
        assert_eq!(client.join().expect("no panic"), 200);
    }
    assert!(
        dns.queries() < 20,
        "one question for all who wait: {}",
        dns.queries()
    );
}

/// Which backends answer, of so many requests.
fn answering(ringwall: &Ringwall, requests: usize) -> BTreeSet<String> {
    let get = || Connection::plain(ringwall.address("HTTP")).get("a", "/");
    let responses = (0..requests).map(|_| get());
    responses
        .map(|response| match response.status {
            200 => response.text(),
            status => status.to_string(),
        })
        .collect()
}

fn names(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn servers_come_and_go_with_the_addresses_of_their_name() {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let origins = Origin::on_one_port(3, move |index, peer| {
        while peer.request().is_ok() {
            if index == 1 && breaks.load(Ordering::SeqCst) {
                return peer.reset();
            }
            peer.send(&ok(&format!("127.0.0.{}", index + 1)))?;
        }
        Ok(())
    });
    let answer = Arc::new(std::sync::Mutex::new(Answer::Silence));
    let says = {
        let answer = Arc::clone(&answer);
        move |new: Answer| *answer.lock().expect("not poisoned") = new
    };
    let addresses = |last: &[u8]| {
        let records = last.iter().map(|last| (A, 1, vec![127, 0, 0, *last]));
        Answer::Records(records.collect())
    };
    says(addresses(&[2, 1]));
    let dns = NameServer::start(move |name, kind| match (name, kind) {
        ("app.test", A) => answer.lock().expect("not poisoned").clone(),
        _ => Answer::Records(Vec::new()),
    });
    let mut ringwall = Site::new().start(&crate::support::ringwall::whole(
        "worker_processes 2;",
        "",
        &format!(
            "upstream app {{ zone app 64k; resolver {} ipv6=off; resolver_timeout 1s;
             server App.test.:{} resolve max_fails=1 fail_timeout=1h; }}
             server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://app; }} }}",
            dns.address(),
            origins[0].port(),
        ),
    ));
    let become_these = |ringwall: &Ringwall, expected: &[&str]| {
        eventually("these and no others answer", || {
            (answering(ringwall, 6) == names(expected)).then_some(())
        });
    };
    become_these(&ringwall, &["127.0.0.1", "127.0.0.2"]);
    // A failure of an address that stays is remembered, whoever comes and goes.
    broken.store(true, Ordering::SeqCst);
    become_these(&ringwall, &["127.0.0.1"]);
    broken.store(false, Ordering::SeqCst);
    let asked = origins[1].requests();
    says(addresses(&[3, 2]));
    become_these(&ringwall, &["127.0.0.3"]);
    assert_eq!(origins[1].requests(), asked);
    // While nobody can say, what was holds; also over a reload.
    says(Answer::Code(2));
    ringwall.complaint_with(&["app.test could not be resolved (2: Server failure)"]);
    ringwall.reload();
    assert_eq!(answering(&ringwall, 6), names(&["127.0.0.3"]));
    says(Answer::Code(3));
    become_these(&ringwall, &["502"]);
    ringwall.complaint_with(&["app.test could not be resolved (3: Host not found)"]);
    assert!(ringwall.is_running());
}

#[test]
fn a_service_says_itself_where_its_servers_listen_and_who_comes_first() {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let first = Origin::script(move |peer| {
        while peer.request().is_ok() {
            if breaks.load(Ordering::SeqCst) {
                return peer.reset();
            }
            peer.send(&ok("first"))?;
        }
        Ok(())
    });
    let second = Origin::http(|_| ok("second"));
    let server = |priority: u16, port: u16, name: &str| {
        let numbers = [priority, 5, port].map(u16::to_be_bytes).concat();
        (SRV, 60, [numbers, labels(name)].concat())
    };
    let records = vec![
        server(2, second.port(), "b.test"),
        server(1, first.port(), "a.test"),
    ];
    let dns = NameServer::start(move |name, kind| match (name, kind) {
        ("_http._tcp.app.test", SRV) => Answer::Records(records.clone()),
        ("a.test" | "b.test", A) => localhost(60),
        _ => Answer::Records(Vec::new()),
    });
    let ringwall = start(&format!(
        "resolver {};
         upstream app {{ zone app 64k; server app.test service=http resolve; }}
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://app; }} }}",
        dns.address()
    ));
    eventually("the first answers", || {
        (answering(&ringwall, 4) == names(&["first"])).then_some(())
    });
    broken.store(true, Ordering::SeqCst);
    assert_eq!(answering(&ringwall, 4), names(&["second"]));
}
