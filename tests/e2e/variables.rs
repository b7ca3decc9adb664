//! What variables hold, in the access log and towards the backend: the same as
//! in Debian's Nginx, which is given the same configuration and the same
//! requests.

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
