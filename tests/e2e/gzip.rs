//! Compression: who gets it, of what, and that nothing waits in it or is lost.

use std::io::Read;
use std::sync::mpsc;

use crate::support::client::{Connection, Response};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};
use crate::support::{eventually, patterned};

fn serve(site: Site, inside: &str) -> Ringwall {
    site.start(&http(&format!(
        "types {{ text/html html; text/plain txt; text/css css; image/png png; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; root @DIR@/www; {inside} }}"
    )))
}

fn site(files: &[(&str, &[u8])]) -> Site {
    let site = Site::new();
    for (name, content) in files {
        let path = site.file("www").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(path, content).expect("writable");
    }
    site
}

fn ask(ringwall: &Ringwall, target: &str, fields: &str) -> Response {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response("GET")
}

const ACCEPT: &str = "Accept-Encoding: gzip, deflate, br\r\n";

fn gunzip(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body)
        .read_to_end(&mut plain)
        .expect("gzip");
    plain
}

fn is_coded(response: &Response) -> bool {
    response.header("content-encoding") == Some("gzip")
}

const TEXT: &[u8] = b"a text that says little, a text that says little, a text that says little";

#[test]
fn a_client_that_accepts_gzip_gets_what_is_worth_it() {
    let ringwall = serve(
        site(&[
            ("a.html", TEXT),
            ("b.css", TEXT),
            ("c.txt", TEXT),
            ("short.html", b"0123456789"),
            ("empty.html", b""),
        ]),
        "gzip on; gzip_types text/css; gzip_vary on; error_page 500 /a.html;\n\
         location /all/ { alias @DIR@/www/; gzip_types *; gzip_min_length 0; }\n\
         location /off/ { alias @DIR@/www/; gzip off; }\n\
         location /return { return 200 \"a text that is long enough\"; default_type text/css; }\n\
         location /error { return 500; }",
    );
    for (target, coded, varies) in [
        ("/a.html", true, true),
        ("/b.css", true, true),
        ("/c.txt", false, false),
        ("/short.html", false, false),
        ("/all/short.html", true, true),
        ("/all/c.txt", true, true),
        ("/off/a.html", false, false),
        ("/return", true, true),
        ("/none", true, true),
        ("/error", false, false),
    ] {
        let response = ask(&ringwall, target, ACCEPT);
        assert_eq!(is_coded(&response), coded, "{target}");
        assert_eq!(response.header("vary").is_some(), varies, "{target}");
        let plain = ask(&ringwall, target, "");
        assert!(!is_coded(&plain), "{target}");
        assert_eq!(plain.header("vary").is_some(), varies, "{target}");
        assert_eq!(plain.status, response.status);
        if coded {
            assert_eq!(response.header("transfer-encoding"), Some("chunked"));
            assert_eq!(response.header("accept-ranges"), None);
            assert_eq!(gunzip(&response.body), plain.body, "{target}");
            if let Some(tag) = plain.header("etag") {
                assert_eq!(response.header("etag"), Some(format!("W/{tag}").as_str()));
                let again = ask(
                    &ringwall,
                    target,
                    &format!("{ACCEPT}If-None-Match: W/{tag}\r\n"),
                );
                assert_eq!(again.status, 304, "{target}");
                assert!(!is_coded(&again));
            }
        }
    }
    let ranged = format!("{ACCEPT}Range: bytes=0-3\r\n");
    assert_eq!(ask(&ringwall, "/a.html", &ranged).status, 200);
    assert_eq!(
        ask(&ringwall, "/a.html", "Range: bytes=0-3\r\n").status,
        206
    );
    assert_eq!(gunzip(&ask(&ringwall, "/all/empty.html", ACCEPT).body), b"");
}

#[test]
fn the_answer_to_head_says_what_get_would_and_has_no_body() {
    let ringwall = serve(
        site(&[("a.html", TEXT)]),
        "gzip on; location /none { return 204; }",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..2 {
        client.send(format!("HEAD /a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
        let response = client.response("HEAD");
        assert_eq!(response.header("content-length"), None);
        assert!(is_coded(&response));
        client.send("HEAD /a.html HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response("HEAD");
        assert_eq!(response.header("content-length"), Some("73"));
        assert!(!is_coded(&response));
    }
    assert!(!is_coded(&ask(&ringwall, "/none", ACCEPT)));
}

#[test]
fn the_log_has_the_fields_that_frame_and_code_a_response() {
    let site = site(&[("a.html", TEXT)]);
    let ringwall = site.start(&http(
        "log_format sent '$request_method $sent_http_content_length $sent_http_connection \
         $sent_http_transfer_encoding $sent_http_content_encoding';\n\
         access_log @DIR@/sent.log sent;\n\
         types { text/html html; }\n\
         server { listen 127.0.0.1:@HTTP@; root @DIR@/www; gzip on; }",
    ));
    let length = TEXT.len();
    ask(&ringwall, "/a.html", "");
    ask(&ringwall, "/a.html", "Connection: close\r\n");
    ask(&ringwall, "/a.html", ACCEPT);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!("HEAD /a.html HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
    client.response("HEAD");
    let expected = format!(
        "GET {length} keep-alive - -\n\
         GET {length} close - -\n\
         GET - keep-alive chunked gzip\n\
         HEAD - keep-alive - gzip\n"
    );
    eventually("the lines are written", || {
        (ringwall.site.read("sent.log") == expected).then_some(())
    });
}

#[test]
fn some_clients_and_proxies_are_left_out() {
    let ringwall = serve(
        site(&[("a.html", TEXT)]),
        "gzip on; gzip_disable msie6 ^Old;\n\
         location /http10/ { alias @DIR@/www/; gzip_http_version 1.0; }\n\
         location /any/ { alias @DIR@/www/; gzip_proxied any; }\n\
         location /none/ { alias @DIR@/www/; gzip_proxied off any; }\n\
         location /auth/ { alias @DIR@/www/; gzip_proxied auth; }\n\
         location /expired/ { alias @DIR@/www/; gzip_proxied expired; expires -1; }\n\
         location /fresh/ { alias @DIR@/www/; gzip_proxied expired; expires 1h; }\n\
         location /private/ { alias @DIR@/www/; gzip_proxied private; add_header Cache-Control \"a, Private\"; }\n\
         location /dated/ { alias @DIR@/www/; gzip_proxied no_last_modified; }\n\
         location /tagged/ { alias @DIR@/www/; gzip_proxied no_etag; }",
    );
    for (target, fields, coded) in [
        ("/a.html", "User-Agent: Mozilla/4.0 (MSIE 6.0)\r\n", false),
        ("/a.html", "User-Agent: Mozilla/4.0 (MSIE 7.0)\r\n", true),
        ("/a.html", "User-Agent: older/1\r\n", false),
        ("/a.html", "User-Agent: curl\r\n", true),
        ("/a.html", "Via: 1.1 proxy\r\n", false),
        ("/any/a.html", "Via: 1.1 proxy\r\n", true),
        ("/none/a.html", "Via: 1.1 proxy\r\n", false),
        ("/auth/a.html", "Via: 1.1 proxy\r\n", true),
        (
            "/auth/a.html",
            "Via: 1.1 proxy\r\nAuthorization: x\r\n",
            true,
        ),
        ("/expired/a.html", "Via: 1.1 proxy\r\n", true),
        ("/fresh/a.html", "Via: 1.1 proxy\r\n", false),
        ("/private/a.html", "Via: 1.1 proxy\r\n", true),
        ("/dated/a.html", "Via: 1.1 proxy\r\n", true),
        ("/tagged/a.html", "Via: 1.1 proxy\r\n", false),
    ] {
        let response = ask(&ringwall, target, &format!("{ACCEPT}{fields}"));
        assert_eq!(is_coded(&response), coded, "{target} {fields}");
    }
    for (target, coded) in [("/a.html", false), ("/http10/a.html", true)] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!("GET {target} HTTP/1.0\r\n{ACCEPT}\r\n"));
        let response = client.response("GET");
        assert_eq!(is_coded(&response), coded, "{target}");
        assert!(response.header("transfer-encoding").is_none());
    }
}

#[test]
fn bodies_of_backends_are_compressed_unless_they_are_already() {
    let origin = Origin::http(|request| {
        match request.target() {
        "/coded" => {
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: br\r\nContent-Length: 30\r\n\r\n012345678901234567890123456789"
                .to_vec()
        }
        "/large" => {
            let body = patterned(1 << 20);
            let mut response = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"x\"\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            response.extend_from_slice(&body);
            response
        }
        _ => ok("short"),
    }
    });
    let ringwall = serve(
        site(&[]),
        &format!(
            "gzip on; gzip_comp_level 6; location / {{ proxy_pass {}; }}",
            origin.url()
        ),
    );
    assert!(!is_coded(&ask(&ringwall, "/short", ACCEPT)));
    let coded = ask(&ringwall, "/coded", ACCEPT);
    assert_eq!(coded.header("content-encoding"), Some("br"));
    let large = ask(&ringwall, "/large", ACCEPT);
    assert!(is_coded(&large));
    assert_eq!(large.header("etag"), Some("W/\"x\""));
    assert!(gunzip(&large.body) == patterned(1 << 20));
}

#[test]
fn an_event_is_not_delayed_by_compression() {
    let (send, events) = mpsc::channel::<&str>();
    let events = std::sync::Mutex::new(events);
    let origin = Origin::script(move |peer| {
        peer.head()?;
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        while let Ok(event) = events.lock().expect("unpoisoned").recv() {
            peer.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        }
        peer.send(b"0\r\n\r\n")
    });
    let ringwall = serve(
        site(&[]),
        &format!(
            "gzip on; gzip_types text/event-stream; location / {{ proxy_pass {}; }}",
            origin.url()
        ),
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{ACCEPT}\r\n"));
    assert!(is_coded(&client.head().expect("a head")));
    let mut coded = Vec::new();
    let mut expected = String::new();
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        send.send(event).expect("the origin waits");
        expected.push_str(event);
        eventually("the event arrives", || {
            coded.extend_from_slice(&dechunk(&client.some().expect("more")));
            let mut seen = vec![0; expected.len()];
            let arrived = flate2::read::GzDecoder::new(&*coded).read_exact(&mut seen);
            arrived
                .is_ok()
                .then(|| assert_eq!(seen, expected.as_bytes()))
        });
    }
}

/// The payload of whole chunks.
fn dechunk(mut wire: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let Some(end) = crate::support::find(wire, b"\r\n") {
        let size = std::str::from_utf8(&wire[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        payload.extend_from_slice(&wire[end + 2..end + 2 + size]);
        wire = &wire[end + 4 + size..];
    }
    payload
}

#[test]
fn a_file_that_lies_compressed_beside_it_is_sent_as_it_is() {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut coder, b"from the compressed one").expect("memory");
    let coded = coder.finish().expect("memory");
    let ringwall = serve(
        site(&[
            ("a.css", b"from the plain one"),
            ("a.css.gz", &coded),
            ("b.css", b"only plain"),
            ("c.css.gz", &coded),
        ]),
        "gzip_static on; gzip_vary on; location /always/ { alias @DIR@/www/; gzip_static always; }",
    );
    let response = ask(&ringwall, "/a.css", ACCEPT);
    assert_eq!(gunzip(&response.body), b"from the compressed one");
    assert_eq!(response.header("content-type"), Some("text/css"));
    assert_eq!(
        response.header("content-length"),
        Some(coded.len().to_string().as_str())
    );
    assert_eq!(response.header("vary"), Some("Accept-Encoding"));
    let response = ask(&ringwall, "/a.css", "");
    assert_eq!(response.text(), "from the plain one");
    assert_eq!(response.header("vary"), Some("Accept-Encoding"));
    let response = ask(&ringwall, "/b.css", ACCEPT);
    assert_eq!(
        (response.text().as_str(), response.header("vary")),
        ("only plain", None)
    );
    assert_eq!(ask(&ringwall, "/c.css", "").status, 404);
    assert!(is_coded(&ask(&ringwall, "/c.css", ACCEPT)));
    assert!(is_coded(&ask(&ringwall, "/always/c.css", "")));
}
