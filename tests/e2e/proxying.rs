//! A request reaches the backend and its response the client as the
//! configuration says and HTTP/1.1 demands: methods, targets, versions,
//! connections, and Nginx's status for what goes wrong.

use std::time::{Duration, Instant};

use crate::support::client::{Connection, TlsClient, tcp};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{HOST, Ringwall, Site, http, mutual_proxy, plain_proxy};
use crate::support::{eventually, free_port};

fn plain(origin: &Origin) -> (Ringwall, Connection) {
    let ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let client = Connection::plain(ringwall.address("HTTP"));
    (ringwall, client)
}

/// A plain server with this content.
fn server(content: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST};\n{content} }}"
    )))
}

#[test]
fn every_method_passes_as_it_is() {
    let origin = Origin::http(|request| ok(&request.line));
    let (_ringwall, mut client) = plain(&origin);
    for method in [
        "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "REPORT",
    ] {
        client.send(format!(
            "{method} /x?y=%2F%20z HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        let response = client.response(method);
        assert_eq!(response.text(), format!("{method} /x?y=%2F%20z HTTP/1.1"));
    }
}

#[test]
fn a_response_to_head_has_no_body() {
    let origin = Origin::http(|request| {
        if request.line.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nX-A: b\r\n\r\n".to_vec()
        } else {
            ok("hello")
        }
    });
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response("HEAD");
        assert_eq!(response.header("content-length"), Some("5000"));
        assert_eq!(client.get("a", "/").text(), "hello");
    }
    assert_eq!(origin.connections(), 1, "the upstream connection is reused");
}

#[test]
fn statuses_without_a_body_leave_the_connection_usable() {
    let origin = Origin::http(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n".to_vec(),
        "/304" => {
            b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n".to_vec()
        }
        _ => ok("hello"),
    });
    let (_ringwall, mut client) = plain(&origin);
    let response = client.get("a", "/204");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("content-length"), None);
    assert_eq!(response.header("transfer-encoding"), None);
    let response = client.get("a", "/304");
    assert_eq!(response.status, 304);
    assert_eq!(response.header("etag"), Some("\"x\""));
    assert_eq!(client.get("a", "/").text(), "hello");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn interim_responses_do_not_end_the_exchange() {
    let origin = Origin::http(|_| {
        [
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec(),
            ok("hello"),
        ]
        .concat()
    });
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..2 {
        assert_eq!(client.get("a", "/").text(), "hello");
    }
    // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.text(), "hello");
    assert!(response.interim.is_empty());
}

#[test]
fn an_expectation_is_met_before_the_body_is_sent() {
    let origin = Origin::echo();
    let (_ringwall, mut client) = plain(&origin);
    for body in ["hello", "again"] {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(client.head().expect("an interim response").status, 100);
        client.send(body);
        assert_eq!(client.response("POST").text(), body);
    }
}

#[test]
fn an_expectation_can_be_refused_before_the_body_is_sent() {
    let origin = Origin::hello();
    let ringwall = server(&format!(
        "client_max_body_size 10; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n");
    let response = client.response("POST");
    assert_eq!(response.status, 413);
    assert!(response.interim.is_empty(), "no 100 before a refusal");
    // Whatever is sent now is the body that nobody wants, never a request.
    let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.remains().is_empty());
    assert_eq!(origin.connections(), 0);
}

#[test]
fn an_unknown_expectation_is_not_mistaken_for_a_body() {
    let origin = Origin::hello();
    let (_ringwall, mut client) = plain(&origin);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-tea\r\n\r\n");
    assert!(matches!(client.response("GET").status, 200 | 417));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::http(|request| ok(request.target()));
    let (_ringwall, mut client) = plain(&origin);
    let mut all = String::new();
    for number in 0..50 {
        all.push_str(&format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    client.send(all);
    for number in 0..50 {
        assert_eq!(client.response("GET").text(), format!("/{number}"));
    }
}

#[test]
fn pipelined_requests_with_bodies_are_kept_apart() {
    let origin = Origin::echo();
    let (_ringwall, mut client) = plain(&origin);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET / HTTP/1.1\r\nHost: a\r\n\r\n\
         POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n\
         POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfour",
    );
    for body in ["one", "", "three", "four"] {
        assert_eq!(client.response("POST").text(), body);
    }
    client.expect_close("behind Connection: close");
}

#[test]
fn an_http_1_0_client_gets_what_it_understands() {
    let origin = Origin::http(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
            .to_vec()
    });
    let (_ringwall, mut client) = plain(&origin);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.text(), "hello world");
    assert!(response.ended_by_close);
}

#[test]
fn an_http_1_0_client_can_keep_the_connection() {
    let origin = Origin::hello();
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response("GET");
        assert_eq!(response.text(), "hello");
        assert!(!response.says_close());
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response("GET").text(), "hello");
    client.expect_close("HTTP/1.0 without keep-alive");
}

#[test]
fn a_client_that_asks_for_it_gets_a_close() {
    let origin = Origin::hello();
    let (_ringwall, mut client) = plain(&origin);
    assert_eq!(client.get("a", "/").text(), "hello");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.text(), "hello");
    assert!(response.says_close());
    client.expect_close("Connection: close");
}

#[test]
fn a_client_that_ends_its_sending_side_still_gets_its_response() {
    let origin = Origin::http(|_| {
        std::thread::sleep(Duration::from_millis(200));
        ok("hello")
    });
    let (ringwall, mut client) = plain(&origin);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.finish_sending();
    // Nginx takes a half-closed client for a gone one (proxy_ignore_client_abort
    // off) and logs 499; serving it is as good. Either way the proxy lives on.
    let _ = client.remains();
    assert_eq!(
        Connection::plain(ringwall.address("HTTP"))
            .get("a", "/")
            .text(),
        "hello"
    );
}

#[test]
fn an_http_1_0_backend_is_understood() {
    let origin =
        Origin::answering(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nold but good");
    let (_ringwall, mut client) = plain(&origin);
    for count in 1..=3 {
        let response = client.get("a", "/");
        assert_eq!(response.text(), "old but good");
        assert!(!response.ended_by_close, "the client's connection is kept");
        assert_eq!(origin.connections(), count);
    }
}

#[test]
fn proxy_http_version_1_0_is_spoken_where_it_is_asked_for() {
    let origin = Origin::script(|peer| {
        let request = peer.request()?;
        peer.send(format!("HTTP/1.0 200 OK\r\n\r\n{}", request.line).as_bytes())?;
        peer.finish()
    });
    let ringwall = server(&format!(
        "location / {{ proxy_http_version 1.0; proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").text(), "GET / HTTP/1.0");
    assert!(
        !origin
            .all_received_text()
            .to_lowercase()
            .contains("keep-alive")
    );
}

#[test]
fn upstream_connections_are_reused() {
    let origin = Origin::hello();
    let (ringwall, mut client) = plain(&origin);
    for _ in 0..20 {
        assert_eq!(client.get("a", "/").text(), "hello");
        assert_eq!(
            Connection::plain(ringwall.address("HTTP"))
                .get("a", "/")
                .text(),
            "hello"
        );
    }
    assert_eq!((origin.connections(), origin.requests()), (1, 40));
}

#[test]
fn keepalive_0_reuses_none() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&http(&format!(
        "upstream backend {{ server {}; keepalive 0; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://backend; }} }}",
        origin.address()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..3 {
        assert_eq!(client.get("a", "/").text(), "hello");
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn a_stale_upstream_connection_is_replaced_without_the_client_noticing() {
    // Closes each connection behind its first response, at the moment the
    // second request comes: the worst case of an idle timeout.
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("hello"))?;
        peer.head()?;
        peer.reset()
    });
    let (_ringwall, mut client) = plain(&origin);
    for _ in 0..10 {
        assert_eq!(client.get("a", "/").text(), "hello");
    }
}

#[test]
fn a_request_that_may_have_had_effect_is_not_sent_twice() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("hello"))?;
        peer.request()?;
        peer.reset()
    });
    let (_ringwall, mut client) = plain(&origin);
    assert_eq!(client.get("a", "/").text(), "hello");
    client.send("POST /effect HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response("POST").status, 502);
    assert_eq!(
        origin.all_received_text().matches("POST /effect").count(),
        1
    );
}

#[test]
fn an_idle_upstream_connection_that_the_backend_closed_is_not_used() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("hello"))?;
        peer.finish()
    });
    let (_ringwall, mut client) = plain(&origin);
    for round in 0..5 {
        eventually("the backend's close has arrived", || {
            (origin.open_connections() == 0).then_some(())
        });
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.response("POST").text(), "hello", "round {round}");
    }
}

#[test]
fn proxy_pass_without_a_uri_part_passes_the_target_as_it_came() {
    let origin = Origin::http(|request| ok(request.target()));
    let ringwall = server(&format!("location /a/ {{ proxy_pass {}; }}", origin.url()));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for target in [
        "/a/",
        "/a/b%2Fc?d=e%20f",
        "/a/./b/../c",
        "/a//b",
        "/x/../a/%41",
    ] {
        assert_eq!(client.get("a", target).text(), target);
    }
    assert_eq!(client.get("a", "/b/").status, 404);
}

#[test]
fn proxy_pass_with_a_uri_part_replaces_the_locations_prefix() {
    let origin = Origin::http(|request| ok(request.target()));
    let url = origin.url();
    let ringwall = server(&format!(
        "location /a/ {{ proxy_pass {url}/new/; }}\n\
         location /b/ {{ proxy_pass {url}/; }}\n\
         location /c {{ proxy_pass {url}/d; }}\n\
         location = /e {{ proxy_pass {url}/exact; }}"
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for (target, passed) in [
        ("/a/x", "/new/x"),
        ("/a/", "/new/"),
        ("/a/x?y=z", "/new/x?y=z"),
        ("/b/x/y", "/x/y"),
        ("/c/x", "/d/x"),
        ("/cx", "/dx"),
        ("/e?q", "/exact?q"),
        // The URI is normalised before the prefix is replaced, and escaped anew.
        ("/a/./x/../y", "/new/y"),
        ("/a//x", "/new/x"),
        ("/a/%41%20b", "/new/A%20b"),
        ("/a/%3Fx%23y", "/new/%3Fx%23y"),
        ("/a/%25", "/new/%25"),
    ] {
        assert_eq!(client.get("a", target).text(), passed, "{target}");
    }
}

#[test]
fn a_target_cannot_climb_out_of_the_root_or_past_a_location() {
    let origin = Origin::http(|request| ok(request.target()));
    let ringwall = server(&format!(
        "location / {{ return 403; }} location /open/ {{ proxy_pass {}/; }}",
        origin.url()
    ));
    for (target, status) in [
        ("/../x", 400),
        ("/open/../../x", 400),
        ("/open/../secret", 403),
        ("/open/%2e%2e/secret", 403),
        ("/open/..%2fsecret", 403),
        ("/open/x", 200),
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        assert_eq!(client.get("a", target).status, status, "{target}");
    }
}

#[test]
fn locations_are_chosen_as_nginx_chooses_them() {
    let ringwall = server(
        "location = / { return 200 exact-root; }\n\
         location / { return 200 root; }\n\
         location /doc/ { return 200 doc; }\n\
         location /doc/deep/ { return 200 deep; }\n\
         location ^~ /img/ { return 200 img; }\n\
         location ~ \\.PNG$ { return 200 upper-png; }\n\
         location ~* \\.(gif|png)$ { return 200 picture-$1; }",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for (target, body) in [
        ("/", "exact-root"),
        ("/?x", "exact-root"),
        ("/index", "root"),
        ("/doc/a", "doc"),
        ("/doc/deep/a", "deep"),
        ("/doc/a.gif", "picture-gif"),
        ("/img/a.gif", "img"),
        ("/a.PNG", "upper-png"),
        ("/a.GIF", "picture-GIF"),
        ("/a.png?x=.gif", "picture-png"),
        ("/doc/%64eep/a", "deep"),
    ] {
        assert_eq!(client.get("a", target).text(), body, "{target}");
    }
}

#[test]
fn the_server_block_is_chosen_by_host() {
    let ringwall = Site::new().start(&http(
        "server { listen 127.0.0.1:@HTTP@; server_name first.example; return 200 first; }\n\
         server { listen 127.0.0.1:@HTTP@ default_server; server_name _; return 200 default; }\n\
         server { listen 127.0.0.1:@HTTP@; server_name *.wild.example; return 200 wild; }\n\
         server { listen 127.0.0.1:@HTTP@; server_name tail.*; return 200 tail; }\n\
         server { listen 127.0.0.1:@HTTP@; server_name ~^re(?<n>[0-9]+)\\.example$; return 200 re$n; }",
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for (host, body) in [
        ("first.example", "first"),
        ("FIRST.example:8080", "first"),
        ("first.example.", "first"),
        ("a.wild.example", "wild"),
        ("a.b.wild.example", "wild"),
        ("wild.example", "default"),
        ("tail.org", "tail"),
        ("re42.example", "re42"),
        ("unknown", "default"),
        ("127.0.0.1", "default"),
    ] {
        assert_eq!(client.get(host, "/").text(), body, "{host}");
    }
}

#[test]
fn return_answers_by_itself() {
    let ringwall = server(
        "default_type text/html;\n\
         location /text { return 200 \"to $remote_addr at $request_uri\"; }\n\
         location /code { return 403; }\n\
         location /move { return 301 https://$host$request_uri; }\n\
         location /close { return 444; }\n\
         location /none { return 204; }",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let response = client.get("a", "/text?x");
    assert_eq!(response.text(), "to 127.0.0.1 at /text?x");
    assert_eq!(response.header("content-type"), Some("text/html"));
    let response = client.get("a", "/code");
    assert_eq!(response.status, 403);
    assert!(response.text().contains("403 Forbidden"));
    let response = client.get("a.example", "/move?x=y");
    assert_eq!(response.status, 301);
    assert_eq!(
        response.header("location"),
        Some("https://a.example/move?x=y")
    );
    assert_eq!(client.get("a", "/none").status, 204);
    client.send("GET /close HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_close("444");
}

#[test]
fn headers_are_set_and_added_as_configured() {
    let origin = Origin::http(|request| {
        if request.target() == "/missing" {
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()
        } else {
            ok(&format!("{:?}", request.header("Host")))
        }
    });
    let ringwall = server(&format!(
        "add_header X-Sometimes yes; add_header X-Always $request_method always;\n\
         location / {{ proxy_pass {0}; proxy_set_header Host $host; proxy_set_header Accept-Encoding \"\"; }}\n\
         location /default {{ proxy_pass {0}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "GET / HTTP/1.1\r\nHost: A.example:99\r\nAccept-Encoding: gzip\r\nAccept: */*\r\n\r\n",
    );
    let response = client.response("GET");
    assert_eq!(response.text(), "Some(\"a.example\")");
    assert_eq!(response.header("x-sometimes"), Some("yes"));
    let head = origin.all_received_text();
    assert!(
        !head.contains("gzip") && head.contains("Accept: */*"),
        "{head}"
    );
    let response = client.get("a", "/missing");
    assert_eq!(response.header("x-sometimes"), None);
    assert_eq!(response.header("x-always"), Some("GET"));
    let response = client.get("a", "/default");
    assert_eq!(response.text(), format!("Some(\"{}\")", origin.address()));
}

#[test]
fn the_server_field_says_who_answers_and_as_much_as_server_tokens_allows() {
    let ringwall =
        server("location / { return 404; } location /off { server_tokens off; return 404; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let server = client.get("a", "/").header("server").map(str::to_owned);
    assert!(server.is_some_and(|value| value.starts_with("ringwall/")));
    assert_eq!(client.get("a", "/off").header("server"), Some("ringwall"));
}

#[test]
fn a_body_over_client_max_body_size_is_refused_with_413() {
    let origin = Origin::echo();
    let ringwall = server(&format!(
        "client_max_body_size 1k; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let fits = "x".repeat(1024);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{fits}"
    ));
    assert_eq!(client.response("POST").text(), fits);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!(client.response("POST").status, 413);

    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{fits}\r\n1\r\n"
    ));
    let _ = client.try_send("x\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").status, 413);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_request_line_too_long_is_414_and_a_head_too_large_is_400() {
    let origin = Origin::hello();
    let (ringwall, _) = plain(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let _ = client.try_send(format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "x".repeat(9000)
    ));
    assert_eq!(client.response("GET").status, 414);

    let mut client = Connection::plain(ringwall.address("HTTP"));
    let _ = client.try_send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n",
        "x".repeat(9000)
    ));
    let response = client.response("GET");
    assert_eq!(response.status, 400);
    assert!(
        response
            .text()
            .contains("Request Header Or Cookie Too Large")
    );

    // Many fields, each small: beyond 4 buffers of 8 KiB.
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let fields: String = (0..50)
        .map(|n| format!("X-{n}: {}\r\n", "x".repeat(1000)))
        .collect();
    let _ = client.try_send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(client.response("GET").status, 400);
    assert_eq!(origin.connections(), 0);

    // And what fits into them passes.
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let fields: String = (0..20)
        .map(|n| format!("X-{n}: {}\r\n", "x".repeat(1000)))
        .collect();
    client.send(format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n{fields}\r\n",
        "x".repeat(7000)
    ));
    assert_eq!(client.response("GET").text(), "hello");
}

#[test]
fn a_backend_that_does_not_answer_in_time_gives_504() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.hang()
    });
    let ringwall = server(&format!(
        "location / {{ proxy_pass {}; proxy_read_timeout 1s; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let start = Instant::now();
    let response = client.get("a", "/");
    assert_eq!(response.status, 504);
    assert!(response.text().contains("504 Gateway Time-out"));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    ringwall.complaint_with(&[
        "[error]",
        "upstream timed out",
        "client: 127.0.0.1",
        "upstream:",
    ]);
    eventually("the upstream connection is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn a_backend_that_is_not_there_gives_502() {
    let port = free_port();
    let ringwall = Site::new().start(&plain_proxy(&format!("http://127.0.0.1:{port}")));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..2 {
        let response = client.get("a", "/");
        assert_eq!(response.status, 502);
        assert!(response.text().contains("502 Bad Gateway"));
    }
    ringwall.complaint_with(&[
        "[error]",
        "connect() failed (111: Connection refused) while connecting to upstream",
        "client: 127.0.0.1",
        "request: \"GET / HTTP/1.1\"",
        &format!("upstream: \"http://127.0.0.1:{port}/\""),
        "host: \"a\"",
    ]);
}

#[test]
fn a_head_that_does_not_come_in_time_is_a_408_however_it_dribbles() {
    let origin = Origin::hello();
    let ringwall = server(&format!(
        "client_header_timeout 1s; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let start = Instant::now();
    for byte in "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
        .bytes()
        .chain(std::iter::repeat_n(b'x', 100))
    {
        if client.try_send([byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "each byte put the deadline off"
        );
        if !client.socket().peek_is_quiet() {
            break;
        }
    }
    // Nginx logs 408 and closes without a word; a response is as good.
    let _ = client.remains();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    ringwall.access_with(&[" 408 "]);
    assert_eq!(origin.connections(), 0);
}

/// Whether a socket has neither bytes nor an end to report.
trait Quiet {
    fn peek_is_quiet(&self) -> bool;
}

impl Quiet for std::net::TcpStream {
    fn peek_is_quiet(&self) -> bool {
        self.set_nonblocking(true).expect("a socket");
        let quiet =
            matches!(self.peek(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        self.set_nonblocking(false).expect("a socket");
        quiet
    }
}

#[test]
fn a_body_that_does_not_come_in_time_is_a_408() {
    let origin = Origin::hello();
    let ringwall = server(&format!(
        "client_body_timeout 1s; location / {{ proxy_pass {}; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello");
    let start = Instant::now();
    let _ = client.remains();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    ringwall.access_with(&[" 408 "]);
    assert_eq!(origin.requests(), 0);
    eventually("the upstream connection is closed", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn an_idle_connection_is_closed_at_keepalive_timeout() {
    let ringwall = server("keepalive_timeout 1s; location / { return 200 hello; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").text(), "hello");
    let start = Instant::now();
    client.expect_close("an idle connection");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

#[test]
fn keepalive_requests_and_keepalive_timeout_0_limit_a_connection() {
    let ringwall = server("keepalive_requests 3; location / { return 200 hello; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for last in [false, false, true] {
        assert_eq!(client.get("a", "/").says_close(), last);
    }
    client.expect_close("the third request");

    let ringwall = server("keepalive_timeout 0; location / { return 200 hello; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert!(client.get("a", "/").says_close());
    client.expect_close("keepalive_timeout 0");
}

#[test]
fn connect_and_trace_go_no_further() {
    let origin = Origin::hello();
    let (ringwall, _) = plain(&origin);
    for request in [
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(request);
        let status = client.response("GET").status;
        assert!(matches!(status, 400 | 405), "{request}: {status}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn over_tls_the_scheme_and_the_verified_name_reach_the_backend() {
    let origin = Origin::http(|request| ok(&format!("{:?}", request.headers)));
    let (site, pki) = Site::with_pki();
    let configuration = mutual_proxy(&origin.url()).replace(
        "location / {",
        "location / { proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Dn $ssl_client_s_dn; proxy_set_header X-Verify $ssl_client_verify;\n\
         proxy_set_header X-Serial $ssl_client_serial; proxy_set_header X-Tls $ssl_protocol;",
    );
    let ringwall = site.start(&configuration);
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let text = client
        .get(ringwall.address("TLS"), HOST, "/")
        .expect("a response")
        .text();
    for pair in [
        "(\"X-Forwarded-Proto\", \"https\")",
        "(\"X-Dn\", \"CN=client.example\")",
        "(\"X-Verify\", \"SUCCESS\")",
        "(\"X-Tls\", \"TLSv1.3\")",
        "(\"X-Serial\", \"",
    ] {
        assert!(text.contains(pair), "{pair} in {text}");
    }
}

#[test]
fn the_access_log_tells_what_happened_in_the_configured_format() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&http(&format!(
        "log_format own '$status|$request_method|$uri|$args|$upstream_addr|$upstream_status|$http_x_a|$body_bytes_sent';\n\
         log_format js escape=json '{{\"ua\":\"$http_user_agent\"}}';\n\
         server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ access_log @DIR@/own.log own; access_log @DIR@/js.log js; proxy_pass {}; }}\n\
         location /off {{ access_log off; return 200 off; }}\n\
         location /combined {{ return 200 hello; }} }}",
        origin.url()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "GET /a%20b?c=d HTTP/1.1\r\nHost: a\r\nX-A: q\"\t\u{e9}\r\nUser-Agent: u\"a\\\r\n\r\n",
    );
    assert_eq!(client.response("GET").text(), "hello");
    client.get("a", "/off");
    client.send(
        "GET /combined?x HTTP/1.1\r\nHost: a\r\nReferer: http://r/\r\nUser-Agent: test/1\r\n\r\n",
    );
    client.response("GET");
    let expected = format!(
        "200|GET|/a b|c=d|{}|200|q\\x22\\x09\\xC3\\xA9|5",
        origin.address()
    );
    eventually("the own format is written", || {
        (ringwall.site.read("own.log").trim_end() == expected).then_some(())
    });
    eventually("the JSON format is written", || {
        (ringwall.site.read("js.log").trim_end() == r#"{"ua":"u\"a\\"}"#).then_some(())
    });
    let line = ringwall.access_with(&["/combined"]);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(
        line.ends_with("] \"GET /combined?x HTTP/1.1\" 200 5 \"http://r/\" \"test/1\""),
        "{line}"
    );
    assert!(!ringwall.access_log().contains("/off"));
}

#[test]
fn a_listener_on_ipv6_and_one_on_a_unix_socket_serve_too() {
    use std::io::{Read, Write};
    let ringwall = Site::new().start(&http(
        "server { listen 127.0.0.1:@HTTP@; listen [::1]:@HTTP@; listen unix:@DIR@/front.sock;\n\
         return 200 $server_port; }",
    ));
    let port = ringwall.address("HTTP").port();
    let v6 = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    if let Ok(stream) = tcp(v6) {
        assert_eq!(
            Connection::over(stream).get("a", "/").text(),
            port.to_string()
        );
    } else {
        panic!("[::1]:{port} does not answer");
    }
    let mut stream =
        std::os::unix::net::UnixStream::connect(ringwall.site.file("front.sock")).expect("listens");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
}
