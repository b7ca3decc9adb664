//! What the configuration makes of a request: which server and location take
//! it, what is passed, set, added, answered and written down.

use super::proxying::server;
use crate::support::client::{Connection, tcp};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Site, http};

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
fn a_dollar_denies_before_a_final_line_feed_too() {
    let ringwall = server(
        "location / { return 200 open; }\n\
         location ~ x$ { deny all; }",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for (target, status) in [
        ("/x", 403),
        ("/x%0a", 403),
        ("/x%0A?a", 403),
        ("/x%0a%0a", 200),
        ("/x%0a/", 200),
        ("/y%0a", 200),
    ] {
        assert_eq!(client.get("a", target).status, status, "{target}");
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
         location /empty { return 200; }\n\
         location /page { return 403 \"\"; }\n\
         location /move { return 301 https://$host$request_uri; }\n\
         location /close { return 444; }\n\
         location /none { return 204; }",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let response = client.get("a", "/text?x");
    assert_eq!(response.text(), "to 127.0.0.1 at /text?x");
    assert_eq!(response.header("content-type"), Some("text/html"));
    for path in ["/code", "/page"] {
        let response = client.get("a", path);
        assert_eq!(response.status, 403);
        assert!(response.text().contains("403 Forbidden"), "{path}");
    }
    let response = client.get("a", "/empty");
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert_eq!(response.header("content-type"), Some("text/html"));
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
