//! Which pages may call, and what is said of an instance's health.

use crate::support::client::{Connection, Response};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http};

/// A server with these lines before a backend whose answers have fields of
/// their own about origins.
fn guarded(lines: &str) -> (Ringwall, Origin) {
    let origin = Origin::http(|_| {
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
          Content-Length: 5\r\n\r\nhello"
            .to_vec()
    });
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass {}; {lines} }} }}",
        origin.url()
    )));
    (ringwall, origin)
}

fn ask(ringwall: &Ringwall, method: &str, fields: &str) -> Response {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.response(method)
}

const LOCALHOST: &str = "cors_allow_origin https://app.example ~^http://localhost(:\\d+)?$;";

#[test]
fn an_allowed_origin_is_named_in_the_answer_and_the_backends_word_is_not_passed_on() {
    let (ringwall, _origin) = guarded(LOCALHOST);
    for origin in [
        "https://app.example",
        "http://localhost",
        "http://localhost:5173",
    ] {
        let response = ask(&ringwall, "GET", &format!("Origin: {origin}\r\n"));
        assert_eq!(response.text(), "hello");
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
        assert_eq!(response.header("access-control-allow-credentials"), None);
        assert_eq!(response.header("vary"), Some("Origin"));
    }
}

#[test]
fn a_disallowed_origin_gets_403_without_fields_about_origins_and_reaches_no_backend() {
    let (ringwall, origin) = guarded(LOCALHOST);
    for (method, fields) in [
        ("GET", "Origin: https://evil.example\r\n"),
        ("GET", "Origin: null\r\n"),
        ("GET", "Origin: http://localhost.evil.example\r\n"),
        ("GET", "Origin: https://app.example.evil\r\n"),
        (
            "GET",
            "Origin: https://app.example\r\nOrigin: https://evil.example\r\n",
        ),
        ("GET", "Origin: http://a\r\n"),
        (
            "POST",
            "Origin: https://evil.example\r\nContent-Length: 0\r\n",
        ),
        (
            "OPTIONS",
            "Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\n",
        ),
    ] {
        let response = ask(&ringwall, method, fields);
        assert_eq!(response.status, 403, "{fields}");
        let head = String::from_utf8_lossy(&response.raw_head).to_lowercase();
        assert!(!head.contains("access-control"), "{head}");
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_request_without_origin_passes() {
    let (ringwall, _origin) = guarded(LOCALHOST);
    let response = ask(&ringwall, "GET", "");
    assert_eq!(response.text(), "hello");
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[test]
fn a_preflight_is_answered_here() {
    let (ringwall, origin) = guarded(&format!(
        "{LOCALHOST} cors_allow_methods GET POST; cors_allow_headers Content-Type X-Key; \
         cors_allow_credentials on; cors_max_age 10m; cors_expose_headers X-Total;"
    ));
    let fields = "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n\
                  Access-Control-Request-Headers: x-key\r\n";
    let response = ask(&ringwall, "OPTIONS", fields);
    assert_eq!(response.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "http://localhost:3000"),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", "Content-Type, X-Key"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
    assert_eq!(origin.requests(), 0);
    // Any other OPTIONS is the backend's.
    let response = ask(&ringwall, "OPTIONS", "Origin: http://localhost:3000\r\n");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("access-control-expose-headers"),
        Some("X-Total")
    );
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_preflight_is_answered_before_a_password_is_asked_for() {
    let (ringwall, _origin) = guarded(&format!(
        "{LOCALHOST} auth_basic staff; auth_basic_user_file @DIR@/ringwall.conf;"
    ));
    let fields = "Origin: http://localhost\r\nAccess-Control-Request-Method: GET\r\n";
    assert_eq!(ask(&ringwall, "OPTIONS", fields).status, 204);
    let refused = ask(&ringwall, "GET", "Origin: http://localhost\r\n");
    assert_eq!(refused.status, 401);
    // The page can tell why.
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("http://localhost")
    );
}

#[test]
fn every_origin_may_be_allowed() {
    let (ringwall, _origin) = guarded("cors_allow_origin *;");
    let response = ask(&ringwall, "GET", "Origin: https://any.example\r\n");
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    // With credentials browsers want to see the origin itself.
    let (ringwall, _origin) = guarded("cors_allow_origin *; cors_allow_credentials on;");
    let response = ask(&ringwall, "GET", "Origin: https://any.example\r\n");
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("https://any.example")
    );
}

#[test]
fn health_tells_the_state_as_json() {
    let (mut site, _pki) = Site::with_pki();
    let origin = Origin::http(|_| ok("hello"));
    site.port("HTTP");
    let ringwall = site.start(&http(&format!(
        "upstream up {{ server {}; server 127.0.0.1:1 down; }}\n\
         server {{ listen 127.0.0.1:@HTTP@;\n\
         location = / {{ health; }}\n\
         location = /all {{ health service=pay upstreams certificates; }}\n\
         location /up/ {{ proxy_pass https://up/; proxy_ssl_certificate @DIR@/client.crt;\n\
         proxy_ssl_certificate_key @DIR@/client.key; }} }}",
        origin.address()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let response = client.get("a", "/");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let state: serde_json::Value = serde_json::from_str(&response.text()).expect("JSON");
    assert_eq!(state["status"], "ok");
    assert_eq!(state["service"], "ringwall");
    assert!(state["uptime"].as_f64().expect("seconds") >= 0.0);
    let timestamp = state["timestamp"].as_str().expect("text");
    assert!(
        timestamp.len() == 24 && timestamp.ends_with('Z'),
        "{timestamp}"
    );
    assert_eq!(state.as_object().expect("an object").len(), 4);
    let state: serde_json::Value =
        serde_json::from_str(&client.get("a", "/all").text()).expect("JSON");
    assert_eq!(state["service"], "pay");
    assert_eq!(state["upstreams"][0]["name"], "up");
    assert_eq!(state["upstreams"][0]["servers"][0]["status"], "up");
    assert_eq!(state["upstreams"][0]["servers"][1]["status"], "down");
    let certificates = state["certificates"].as_array().expect("a list");
    assert!(
        certificates
            .iter()
            .any(|one| one["subject"] == "CN=client.example"),
        "{state}"
    );
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response("POST").status, 405);
}

#[test]
fn health_is_503_while_draining() {
    let origin = Origin::http(|_| ok("hello"));
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location = / {{ health; }}\n\
         location /up {{ proxy_pass {}; proxy_request_buffering off; }} }}",
        origin.url()
    )));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").status, 200);
    // A request in flight, and the next one already behind it.
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    crate::support::eventually("the backend has the head", || {
        origin
            .all_received_text()
            .contains("POST /up")
            .then_some(())
    });
    ringwall.signal(rustix::process::Signal::QUIT);
    let address = ringwall.address("HTTP");
    crate::support::eventually("it no longer listens", || {
        (!crate::support::ringwall::is_listening(address.port())).then_some(())
    });
    client.send("helloGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("POST").text(), "hello");
    // Either it is told so, or the connection has ended with the answer.
    if let Ok(response) = client.try_response("GET") {
        assert_eq!(response.status, 503);
        assert!(response.text().contains("\"status\":\"draining\""));
    }
}
