//! What variables hold, in the access log and towards the backend: the same as
//! in Debian's Nginx, which is given the same configuration and the same
//! requests.

use crate::proxying::server;
use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};

/// Debian's Nginx and ringwall with the same server, and what each of them logs
/// about it.
struct Both {
    nginx: (Site, Nginx),
    ringwall: Ringwall,
    logged: usize,
}

impl Both {
    fn start(format: &str, upstreams: &str, server: &str) -> Self {
        let content = format!(
            "log_format vars escape=none '{format}|'; {upstreams}\n\
             server {{ listen 127.0.0.1:@PORT@; access_log @DIR@/vars.log vars; {server} }}"
        );
        let mut site = Site::new();
        let nginx = Nginx::start(&mut site, &content.replace("@PORT@", "@NGINX@"));
        let ringwall = Site::new().start(&http(&content.replace("@PORT@", "@HTTP@")));
        Self {
            nginx: (site, nginx),
            ringwall,
            logged: 0,
        }
    }

    /// What each logs for a request: ours, then Nginx's.
    fn ask(&mut self, request: &str) -> [String; 2] {
        let method = request.split(' ').next().unwrap_or_default();
        for address in [self.ringwall.address("HTTP"), self.nginx.1.address()] {
            let mut client = Connection::plain(address);
            client.send(request);
            // Whatever it is, or nothing.
            let _ = client.try_response(method);
        }
        self.logged += 1;
        let logged = self.logged;
        [&self.ringwall.site, &self.nginx.0].map(|site| {
            eventually("the request is logged", || {
                let log = site.read("vars.log");
                log.split_terminator("|\n")
                    .nth(logged - 1)
                    .map(str::to_owned)
            })
        })
    }

    /// That both log this for a request.
    fn log(&mut self, request: &str, expected: &str) {
        let [ours, theirs] = self.ask(request);
        assert_eq!(theirs, expected, "Nginx, of {request}");
        assert_eq!(ours, expected, "of {request}");
    }
}

fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn chunked(target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         {length:x}\r\n{body}\r\n0\r\n\r\n"
    )
}

#[test]
fn the_body_of_a_request_is_a_variable_where_a_backend_gets_it_and_it_is_in_memory() {
    let origin = Origin::http(|request| ok(&String::from_utf8_lossy(&request.body)));
    let backend = origin.address();
    let mut both = Both::start(
        "$request_body",
        "",
        &format!(
            "client_body_buffer_size 2000; proxy_http_version 1.1;\n\
             location / {{ proxy_pass http://{backend}; }}\n\
             location /streamed/ {{ proxy_request_buffering off; proxy_pass http://{backend}; }}\n\
             location /replaced/ {{ proxy_set_body \"[$request_body]\"; \
             proxy_pass http://{backend}; }}\n\
             location /kept/ {{ proxy_pass_request_body off; proxy_set_header Content-Length \"\"; \
             proxy_set_header X-Body $request_body; proxy_pass http://{backend}; }}\n\
             location /no/ {{ return 204; }}\n\
             location /page/ {{ error_page 502 = @other; proxy_pass http://127.0.0.1:1; }}\n\
             location @other {{ proxy_pass http://{backend}; }}\n\
             location /asked/ {{ auth_request /auth; proxy_pass http://{backend}; }}\n\
             location /auth {{ proxy_pass_request_body off; proxy_set_header Content-Length \"\"; \
             proxy_pass http://{backend}; }}"
        ),
    );
    both.log(&post("/", "hello=there"), "hello=there");
    both.log(&chunked("/", "in chunks"), "in chunks");
    both.log(&post("/", ""), "");
    both.log("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "");
    let long = "long".repeat(600);
    // Somewhat more than the buffer is one buffer all the same.
    both.log(&post("/", &long), &long);
    both.log(&post("/", &format!("{long}{long}")), "");
    // In Nginx it depends on whether the body comes in one piece with the head.
    let [ours, _] = both.ask(&post("/streamed/", "hello"));
    assert_eq!(ours, "", "streamed");
    both.log(&post("/replaced/", "hello"), "hello");
    both.log(&post("/kept/", "hello"), "hello");
    both.log(&post("/no/", "hello"), "");
    both.log(&post("/page/", "hello"), "hello");
    both.log(&post("/asked/", "hello"), "hello");
    let received = origin.all_received_text();
    assert_eq!(received.matches("[hello]").count(), 2, "{received}");
    assert_eq!(
        received.matches("X-Body: hello\r\n").count(),
        2,
        "{received}"
    );
    // What was too long to be looked at has still been passed on.
    assert_eq!(received.matches(&format!("{long}{long}")).count(), 2);
}

/// Times as `T`, because they differ.
fn timeless(line: &str) -> String {
    regex::Regex::new(r"\b\d+\.\d{3}\b")
        .expect("a pattern")
        .replace_all(line, "T")
        .into_owned()
}

#[test]
fn what_was_said_to_backends_is_counted_and_timed() {
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            match request.target() {
                "/chunked" => peer.send(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                      5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
                )?,
                "/cut" => {
                    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
                    return peer.finish();
                }
                "/nothing" => peer.send(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")?,
                "/close" => {
                    peer.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")?;
                    return peer.finish();
                }
                "/gone" => return peer.finish(),
                "/half" => {
                    peer.send(b"HTTP/1.1 200 OK\r\nContent-")?;
                    return peer.finish();
                }
                "/interim" => peer.send(
                    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\
                      HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                )?,
                "/head" => peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")?,
                "/tunnel" => {
                    peer.send(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\
                          Connection: upgrade\r\n\r\nhello",
                    )?;
                    return peer.finish();
                }
                _ => peer.send(&ok("hello"))?,
            }
        }
    });
    let backend = origin.address();
    let mut both = Both::start(
        "$upstream_bytes_sent $upstream_bytes_received $upstream_response_length \
         $upstream_status $upstream_connect_time $upstream_header_time $upstream_response_time",
        &format!(
            "upstream a {{ server 127.0.0.1:1 max_fails=0; server {backend} backup; }}\n\
             upstream nobody {{ server 127.0.0.1:1 down; }}"
        ),
        &format!(
            "proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             location / {{ proxy_pass http://{backend}; }}\n\
             location /direct/ {{ proxy_buffering off; proxy_pass http://{backend}/; }}\n\
             location /refused {{ proxy_pass http://127.0.0.1:1; }}\n\
             location /second {{ proxy_pass http://a; proxy_set_header Connection \"\"; }}\n\
             location /nobody {{ proxy_pass http://nobody; }}\n\
             location /tunnel {{ proxy_set_header Upgrade $http_upgrade; \
             proxy_set_header Connection upgrade; proxy_pass http://{backend}; }}\n\
             location /elsewhere {{ error_page 502 = /plain; proxy_pass http://127.0.0.1:1; }}"
        ),
    );
    let mut differences = Vec::new();
    let mut compare = |request: &str| {
        let [ours, theirs] = both.ask(request).map(|line| timeless(&line));
        if ours != theirs {
            differences.push(format!("{request:?}\n  ours {ours}\n nginx {theirs}"));
        }
    };
    for target in [
        "plain",
        "chunked",
        "cut",
        "nothing",
        "close",
        "gone",
        "half",
        "direct/plain",
        "direct/chunked",
        "direct/cut",
        "refused",
        "second",
        "nobody",
        "elsewhere",
    ] {
        compare(&format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    compare("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    compare(&post("/plain", "hello"));
    compare(&chunked("/plain", "hello"));
    compare("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_request_knows_its_connections_age_and_the_port_that_it_was_sent_to() {
    let mut both = Both::start("$connection_time", "", "return 204;");
    let [ours, theirs] = both.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!([timeless(&ours), timeless(&theirs)], ["T", "T"]);
    // This Nginx does not know the others.
    let ringwall = server("location / { return 200 \"$host$is_request_port$request_port\"; }");
    for (line, host, expected) in [
        ("/", "a", "a"),
        ("/", "a:8080", "a:8080"),
        ("/", "a:", "a"),
        ("/", "[::1]:443", "[::1]:443"),
        ("http://b:81/", "a:8080", "b:81"),
        ("http://b/", "a:8080", "b"),
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response("GET").text(), expected, "{line} {host}");
    }
}
