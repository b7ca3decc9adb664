//! What variables hold, in the access log and towards the backend: the same as
//! in Debian's Nginx, which is given the same configuration and the same
//! requests.

use crate::proxying::server;
use crate::support::client::{Connection, TlsClient};
use crate::support::eventually;
use crate::support::h2::{self, H2};
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{HOST, Ringwall, Site, http};

/// Debian's Nginx and ringwall with the same server, and what each of them logs
/// about it.
struct Both {
    nginx: (Site, Nginx),
    ringwall: Ringwall,
    logged: usize,
}

impl Both {
    fn start(format: &str, around: &str, server: &str) -> Self {
        let content = format!(
            "log_format vars escape=none '{format}|'; {around}\n\
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

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn the_rate_that_holds_is_a_variable_and_another_location_may_set_it() {
    let origin = Origin::http(|request| {
        let field = match request.target() {
            "/accel" => "X-Accel-Limit-Rate: 7000\r\n",
            "/auth" => "X-Rate: 9k\r\n",
            "/odd" => "X-Rate: fast\r\n",
            _ => "",
        };
        format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 5\r\n\r\nhello").into_bytes()
    });
    let backend = origin.address();
    let mut both = Both::start(
        "$early $limit_rate $args",
        "",
        &format!(
            "set $early $limit_rate; limit_rate 1m;\n\
             location / {{ proxy_pass http://{backend}; }}\n\
             location /self {{ limit_rate $limit_rate; return 200 text; }}\n\
             location /none {{ limit_rate 0; return 200 text; }}\n\
             location /set {{ set $limit_rate 5k; set $early $limit_rate; return 200 text; }}\n\
             location /asked {{ auth_request /auth; auth_request_set $limit_rate \
             $upstream_http_x_rate; auth_request_set $args a=$upstream_status; \
             proxy_pass http://{backend}; }}\n\
             location /wrong {{ auth_request /odd; auth_request_set $limit_rate \
             $upstream_http_x_rate; proxy_pass http://{backend}; }}"
        ),
    );
    both.log(&get("/", ""), "0 1048576 ");
    both.log(&get("/none", ""), "0 0 ");
    both.log(&get("/self", ""), "0 0 ");
    both.log(&get("/set", ""), "5120 5120 ");
    both.log(&get("/accel", ""), "0 7000 ");
    both.log(&get("/asked", ""), "0 9216 a=200");
    both.log(&get("/wrong", ""), "0 1048576 ");
    let asked = origin.all_received_text();
    assert_eq!(
        asked.matches("GET /asked?a=200 HTTP/1").count(),
        2,
        "{asked}"
    );
}

#[test]
fn the_expression_that_a_map_has_found_sets_the_groups() {
    let origin = Origin::hello();
    let backend = origin.address();
    let mut both = Both::start(
        "$before $kind $named $letters $uri",
        "map $arg_a $kind { default none; ~^(?<named>x+)(\\d)$ \"hit-$2-$1\"; \
         ~^nothing$ bare; exact exact; }\n\
         map $kind $outer { default other; ~^hit-(.)-(?<letters>.*)$ $1-$letters; }",
        &format!(
            "set $before -;\n\
             location ~ ^/(\\w)/(\\w+)$ {{ set $before $1-$2; set $then $kind; \
             set $before $before-$1-$2; return 204; }}\n\
             location /if/ {{ if ($arg_b ~ (b)(c)) {{ set $before $kind-$1-$2; }} return 204; }}\n\
             location /outer/ {{ set $before $outer-$1; return 204; }}\n\
             location /rw/ {{ rewrite ^/rw/(.*)$ /out/$kind/$1 break; \
             proxy_pass http://{backend}; }}"
        ),
    );
    for target in [
        "/l/path?a=xx7",
        "/l/path?a=none",
        "/l/path?a=nothing",
        "/l/path?a=exact",
        "/if/?a=x1&b=bc",
        "/if/?a=x1",
        "/outer/?a=xxx1",
        "/outer/?a=no",
        "/rw/here?a=x2",
        "/rw/here?a=exact",
    ] {
        let [ours, theirs] = both.ask(&get(target, ""));
        assert_eq!(ours, theirs, "{target}");
    }
}

#[test]
fn what_a_response_says_besides_what_it_was_given_is_in_the_log() {
    let origin = Origin::http(|request| {
        let body = "text ".repeat(2000);
        let fields = match request.target() {
            "/weak" => "ETag: W/\"abc\"\r\n",
            "/none" => "ETag: abc\r\nAccept-Ranges: bytes\r\n",
            "/own" => "Vary: Origin\r\n",
            _ => "ETag: \"abc\"\r\nAccept-Ranges: bytes\r\n",
        };
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             {fields}\r\n{body}"
        )
        .into_bytes()
    });
    let server = format!(
        "gzip on; gzip_types text/plain; gzip_vary on; gzip_http_version 1.0;\n\
         location / {{ proxy_pass http://{0}; }}\n\
         location /kept/ {{ keepalive_timeout 65 30; proxy_pass http://{0}; }}\n\
         location /closed/ {{ keepalive_timeout 0 30; proxy_pass http://{0}; }}",
        origin.address()
    );
    let format = "$sent_http_connection,$sent_http_keep_alive|$sent_http_vary,$sent_http_etag,\
                  $sent_http_accept_ranges,$sent_http_content_encoding";
    let mut both = Both::start(format, "", &server);
    for path in ["/", "/weak", "/none", "/own", "/kept/", "/closed/"] {
        for fields in ["", "Accept-Encoding: gzip\r\n", "Connection: close\r\n"] {
            let lines = both.ask(&get(path, fields));
            let [(connection, ours), (_, theirs)] = lines
                .each_ref()
                .map(|line| line.split_once('|').expect("two parts"));
            assert_eq!(ours, theirs, "{path} {fields}");
            // In Nginx's log every connection is closed.
            let expected = match path {
                _ if fields.starts_with("Connection") => "close,",
                "/closed/" => "close,",
                "/kept/" => "keep-alive,timeout=30",
                _ => "keep-alive,",
            };
            assert_eq!(connection, expected, "{path} {fields}");
        }
    }
    // Of a body that ends with the connection, so that nothing else is in it.
    let mut both = Both::start("$gzip_ratio $body_bytes_sent", "", &server);
    let request = "GET / HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n";
    for line in both.ask(request) {
        let (ratio, sent) = line.split_once(' ').expect("both");
        let sent: u64 = sent.parse().expect("a number");
        let hundredths = 10_000 * 100 / sent + u64::from(10_000 * 1000 / sent % 10 > 4);
        let expected = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        assert_eq!(ratio, expected, "{sent} bytes");
    }
    both.log(&get("/", ""), " 10000");
}

#[test]
fn what_is_behind_a_requests_body_is_a_variable() {
    let origin = Origin::http(|request| ok(&String::from_utf8_lossy(&request.body)));
    let ringwall = Site::new().start(&http(&format!(
        "log_format t '$trailer_x_sum,$trailer_none,$trailer_te.'; access_log @DIR@/t.log t;\n\
         server {{ listen 127.0.0.1:@HTTP@; http2 on;\n\
         location / {{ proxy_set_header X-Seen \"seen $trailer_x_sum\"; proxy_pass http://{0}; }}\n\
         location /streamed {{ proxy_request_buffering off; proxy_pass http://{0}; }} }}",
        origin.address()
    )));
    for target in ["/", "/streamed"] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n"
        ));
        assert_eq!(client.response("POST").text(), "hello");
    }
    let mut client = H2::plain(ringwall.address("HTTP"));
    client.headers(1, &h2::fields("POST", "a", "/", &[]), false);
    client.frame(h2::DATA, 0, 1, b"hello");
    client.headers(1, &[("x-sum", "3")], true);
    assert_eq!(client.answer(1).body, b"hello");
    let log = eventually("all are logged", || {
        let log = ringwall.site.read("t.log");
        (log.lines().count() == 3).then_some(log)
    });
    assert_eq!(log, "1, 2,-,-.\n1, 2,-,-.\n3,-,-.\n");
    let received = origin.all_received_text();
    assert!(received.contains("X-Seen: seen 1, 2\r\n"), "{received}");
    assert!(received.contains("X-Seen: seen 3\r\n"), "{received}");
}

#[test]
fn what_the_kernel_has_measured_of_a_connection_is_told() {
    let mut both = Both::start(
        "$tcpinfo_rtt $tcpinfo_rttvar $tcpinfo_snd_cwnd $tcpinfo_rcv_space",
        "",
        "return 204;",
    );
    let lines = both.ask(&get("/", ""));
    let numbers = lines.map(|line| {
        let numbers = line
            .split(' ')
            .map(|text| text.parse::<u32>().expect("a number"));
        numbers.collect::<Vec<_>>()
    });
    let [ours, theirs] = numbers;
    assert!(ours[0] > 0 && ours[1] > 0, "{ours:?}");
    assert_eq!(ours[2..], theirs[2..], "windows of the same connection");
}

#[test]
fn the_bytes_that_a_client_was_sent_are_counted_without_what_tls_adds() {
    let origin = Origin::http(|request| {
        let body = "text ".repeat(request.target().len() * 1000);
        let length = body.len();
        let server = "Server: own\r\n";
        format!("HTTP/1.1 200 OK\r\n{server}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    });
    let (mut theirs, pki) = Site::with_pki();
    let ours = Site::new();
    pki.write(ours.path());
    let content = format!(
        "log_format sent '$bytes_sent $body_bytes_sent';\n\
         server {{ listen 127.0.0.1:@PORT@; listen 127.0.0.1:@SECURE@ ssl;\n\
         access_log @DIR@/sent.log sent;\n\
         ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;\n\
         proxy_http_version 1.1; proxy_pass_header Server;\n\
         location / {{ proxy_pass http://{}; }} }}",
        origin.address()
    );
    let filled = |port, secure| content.replace("@PORT@", port).replace("@SECURE@", secure);
    let nginx = Nginx::start(&mut theirs, &filled("@NGINX@", "@NGINXTLS@"));
    let ringwall = ours.start(&http(&filled("@HTTP@", "@HTTPS@")));
    let nginx_secure = crate::support::local(theirs.port("NGINXTLS"));
    let requests = ["GET /", "GET /much-more", "HEAD /", "GET /"];
    let tls = TlsClient::new(&pki.ca);
    for (plain, secure) in [
        (ringwall.address("HTTP"), ringwall.address("HTTPS")),
        (nginx.address(), nginx_secure),
    ] {
        let secure = tls.connect(secure, HOST).expect("a handshake");
        for mut client in [Connection::plain(plain), secure] {
            for request in requests {
                client.send(format!("{request} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
                client.response(request.split(' ').next().unwrap_or_default());
            }
        }
    }
    let [ours, theirs] = [&ringwall.site, &theirs].map(|site| {
        eventually("all are logged", || {
            let log = site.read("sent.log");
            (log.lines().count() == 2 * requests.len()).then_some(log)
        })
    });
    assert_eq!(ours, theirs);
    let lines: Vec<_> = ours.lines().collect();
    assert_eq!(lines[..requests.len()], lines[requests.len()..], "over TLS");
}
