//! What comes behind a backend's body: `proxy_pass_trailers`,
//! `$upstream_trailer_…` and `$sent_trailer_…`.

use crate::support::client::Connection;
use crate::support::origin::Origin;
use crate::support::ringwall::{HOST, Ringwall, Site, http};

const TRAILERS: &str =
    "X-Sum: 1\r\nX-Sum: 2\r\nX-Hidden: h\r\nConnection: x\r\nX-Accel-Charset: c\r\n";

fn start(origin: &Origin) -> Ringwall {
    Site::new().start(&http(&format!(
        "log_format t '$uri up=$upstream_trailer_x_sum,$upstream_trailer_x_hidden. \
         sent=$sent_trailer_x_sum,$sent_trailer_x_hidden,$sent_trailer_x_own.';
         access_log @DIR@/access.log t;
         server {{ listen 127.0.0.1:@HTTP@; proxy_http_version 1.1; proxy_set_header Connection \"\";
         location / {{ proxy_pass {0}; proxy_pass_trailers on; proxy_hide_header X-Hidden; }}
         location /add {{ proxy_pass {0}; proxy_pass_trailers on; add_trailer X-Own own; }}
         location /default {{ proxy_pass {0}; }} }}",
        origin.url()
    )))
}

/// Everything behind the head.
fn body(ringwall: &Ringwall, target: &str, version: &str) -> String {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "GET {target} HTTP/{version}\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    ));
    let all = client.until_close().expect("a response");
    let all = String::from_utf8_lossy(&all);
    let (_, body) = all.split_once("\r\n\r\n").expect("a head");
    body.to_owned()
}

#[test]
fn trailers_of_a_backend_pass_where_they_are_asked_for_but_the_hidden_and_the_connections() {
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")?;
            // In two pieces or more.
            for piece in TRAILERS.as_bytes().chunks(if request.target() == "/add" {
                7
            } else {
                usize::MAX
            }) {
                peer.send(piece)?;
            }
            peer.send(b"\r\n")?;
        }
    });
    let ringwall = start(&origin);
    let sum = "X-Sum: 1\r\nX-Sum: 2\r\n";
    for (target, version, expected, logged) in [
        (
            "/",
            "1.1",
            format!("2\r\nok\r\n0\r\n{sum}\r\n"),
            "/ up=1, 2,h. sent=1, 2,-,-.",
        ),
        (
            "/add",
            "1.1",
            format!("2\r\nok\r\n0\r\n{sum}X-Hidden: h\r\nX-Own: own\r\n\r\n"),
            "/add up=1, 2,h. sent=1, 2,h,own.",
        ),
        (
            "/default",
            "1.1",
            "2\r\nok\r\n0\r\n\r\n".to_owned(),
            "/default up=-,-. sent=-,-,-.",
        ),
        // There is no place for them.
        (
            "/old",
            "1.0",
            "ok".to_owned(),
            "/old up=1, 2,h. sent=-,-,-.",
        ),
    ] {
        assert_eq!(body(&ringwall, target, version), expected, "{target}");
        ringwall.access_with(&[logged]);
    }
    assert_eq!(origin.connections(), 1, "trailers end a response in order");
}

#[test]
fn a_body_without_trailers_stays_as_it_is() {
    let origin = Origin::hello();
    let ringwall = start(&origin);
    assert_eq!(body(&ringwall, "/", "1.1"), "hello");
    ringwall.access_with(&["/ up=-,-. sent=-,-,-."]);
}
