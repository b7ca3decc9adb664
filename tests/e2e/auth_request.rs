//! `auth_request`: another location decides, by its status, and its answer is
//! never the client's.

use std::net::SocketAddr;

use crate::support::client::{Connection, Response};
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};

/// A backend that judges by the field `X-Want`, says what it was asked, and
/// answers everything else with `hello`.
fn judge() -> Origin {
    Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            let value = |name: &str| request.header(name).unwrap_or_default().to_owned();
            if !request.target().starts_with("/auth") {
                let seen = format!("hello {}|{}", value("x-user"), value("x-why"));
                peer.send(&ok(&seen))?;
                continue;
            }
            let want = value("x-want");
            let status = want.split(' ').next().unwrap_or_default();
            let status = if status.is_empty() { "200" } else { status };
            let asked = format!(
                "{} for {} {}, {} bytes announced",
                request.line.rsplit_once(' ').map_or("", |(line, _)| line),
                value("x-method"),
                value("x-uri"),
                if value("content-length").is_empty() {
                    "no"
                } else {
                    "some"
                },
            );
            let more = match status {
                "401" => "WWW-Authenticate: Bearer realm=\"a\"\r\nX-Why: who\r\n",
                _ => "X-Why: because\r\n",
            };
            peer.send(
                format!(
                    "HTTP/1.1 {status} Whatever\r\nX-User: ann\r\nX-Asked: {asked}\r\n{more}\
                     Content-Length: 6\r\n\r\nsecret"
                )
                .as_bytes(),
            )?;
        }
    })
}

fn configuration(origin: &Origin) -> String {
    format!(
        "server {{ listen 127.0.0.1:@HTTP@;
         add_header X-Status \"$asked|$upstream_status\" always;
         location = /auth {{ internal; proxy_pass {url}; proxy_pass_request_body off;
             proxy_set_header Content-Length \"\"; proxy_set_header X-Method $request_method;
             proxy_set_header X-Uri $request_uri; proxy_set_header Connection close; }}
         location = /auth/said {{ internal; return 204; }}
         location = /auth/not {{ internal; return 403; }}
         location = /auth/gone {{ internal; proxy_pass http://127.0.0.1:1; }}
         location = /auth/paged {{ internal; error_page 502 = /auth/said; proxy_pass http://127.0.0.1:1; }}
         location / {{ auth_request /auth; auth_request_set $user $upstream_http_x_user;
             auth_request_set $asked $upstream_http_x_asked; auth_request_set $why $upstream_http_x_why;
             proxy_set_header X-User $user; proxy_set_header X-Why $why; proxy_pass {url}; }}
         location /said/ {{ auth_request /auth/said; proxy_pass {url}; }}
         location /not/ {{ auth_request /auth/not; proxy_pass {url}; }}
         location /gone/ {{ auth_request /auth/gone; proxy_pass {url}; }}
         location /paged/ {{ auth_request /auth/paged; proxy_pass {url}; }}
         location /nowhere/ {{ auth_request /auth/nowhere; proxy_pass {url}; }}
         location /off/ {{ auth_request off; proxy_pass {url}; }}
         location /any/ {{ satisfy any; deny all; auth_request /auth; proxy_pass {url}; }}
         location /page/ {{ auth_request /auth; error_page 401 = @login; proxy_pass {url}; }}
         location @login {{ return 302 /login?for=$request_uri; }}
         location /return/ {{ auth_request /auth/not; return 200 said; }} }}",
        url = origin.url()
    )
}

fn ask(address: SocketAddr, method: &str, target: &str, want: &str) -> Response {
    let mut client = Connection::plain(address);
    let body = if method == "POST" {
        "Content-Length: 5\r\n\r\nhello"
    } else {
        "\r\n"
    };
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nX-Want: {want}\r\n{body}"
    ));
    client.response(method)
}

fn start(origin: &Origin) -> Ringwall {
    Site::new().start(&http(&configuration(origin)))
}

#[test]
fn the_status_of_the_subrequest_decides_and_its_body_stays_here() {
    let origin = judge();
    let ringwall = start(&origin);
    let address = ringwall.address("HTTP");
    let let_in = ask(address, "POST", "/x?y", "200");
    assert_eq!(
        (let_in.status, let_in.text().as_str()),
        (200, "hello ann|because")
    );
    assert_eq!(
        let_in.header("x-status"),
        Some("GET /auth for POST /x?y, no bytes announced|200")
    );
    let asked = ask(address, "GET", "/x", "401");
    assert_eq!(asked.status, 401);
    assert_eq!(asked.header("www-authenticate"), Some("Bearer realm=\"a\""));
    assert!(!asked.text().contains("secret"), "{}", asked.text());
    assert_eq!(ask(address, "GET", "/x", "403").status, 403);
    for odd in ["302", "404", "500", "503"] {
        assert_eq!(ask(address, "GET", "/x", odd).status, 500, "{odd}");
        ringwall.complaint_with(&[&format!("auth request unexpected status: {odd}, client: ")]);
    }
    // The client goes on using its connection after an answer of any kind.
    let mut client = Connection::plain(address);
    for status in [200, 401, 403, 200] {
        client.send(format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nX-Want: {status}\r\n\r\n"
        ));
        assert_eq!(client.response("GET").status, status);
    }
}

#[test]
fn nginx_with_the_same_configuration_lets_the_same_requests_pass() {
    let origin = judge();
    let ringwall = start(&origin);
    let mut site = Site::new();
    let nginx = Nginx::start(
        &mut site,
        &configuration(&origin).replace("@HTTP@", "@NGINX@"),
    );
    for target in [
        "/x?y=1",
        "/said/",
        "/not/",
        "/gone/",
        "/paged/",
        "/nowhere/",
        "/off/",
        "/any/",
        "/page/",
        "/return/",
        "/auth",
        "/auth/said",
    ] {
        for want in ["200", "204", "401", "403", "500", "302"] {
            for method in ["GET", "POST", "HEAD"] {
                if target == "/nowhere/" && method == "POST" {
                    // Without `proxy_pass_request_body off` Nginx announces a
                    // body to the judge and sends none.
                    continue;
                }
                let [ours, theirs] = [ringwall.address("HTTP"), nginx.address()].map(|address| {
                    let response = ask(address, method, target, want);
                    let field = |name| response.header(name).map(str::to_owned);
                    let location =
                        field("location").map(|to| to.replace(&address.port().to_string(), "PORT"));
                    let said = response.text();
                    let said = said.starts_with("hello").then_some(said);
                    (
                        response.status,
                        field("www-authenticate"),
                        field("x-status"),
                        location,
                        said,
                    )
                });
                assert_eq!(ours, theirs, "{method} {target} {want}");
            }
        }
    }
}

#[test]
fn a_judge_that_says_much_is_not_listened_to_for_ever() {
    let origin = Origin::script(|peer| {
        let request = peer.request()?;
        if request.target() != "/auth" {
            return peer.send(&ok("hello"));
        }
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
        loop {
            peer.send(&[b'x'; 64 << 10])?;
        }
    });
    let ringwall = start(&origin);
    assert_eq!(
        ask(ringwall.address("HTTP"), "GET", "/x", "").text(),
        "hello"
    );
}

#[test]
fn a_client_that_does_not_wait_for_the_verdict_is_not_waited_for() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.hang()
    });
    let ringwall = start(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the judge is asked", || {
        (origin.requests() == 1).then_some(())
    });
    drop(client);
    ringwall.access_with(&["GET /x", " 499 "]);
    eventually("the judge is let go", || {
        (origin.open_connections() == 0).then_some(())
    });
}
