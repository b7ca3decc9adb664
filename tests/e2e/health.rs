//! Backends are asked how they are, and get no requests while they are not
//! well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{Ringwall, Site, http, whole};

/// A backend that answers requests, and questions about its health as it is
/// told to; with the number of those.
struct Patient {
    origin: Origin,
    well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Patient {
    fn new(name: &'static str, well: bool) -> Self {
        let well = Arc::new(AtomicBool::new(well));
        let asked: Arc<AtomicUsize> = Arc::default();
        let (state, count) = (Arc::clone(&well), Arc::clone(&asked));
        let origin = Origin::http(move |request| {
            if request.target() != "/health" {
                return ok(name);
            }
            count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(request.header("host"), Some("backend"));
            if state.load(Ordering::SeqCst) {
                ok("well")
            } else {
                b"HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
        });
        Self {
            origin,
            well,
            asked,
        }
    }

    fn set(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }
}

fn site(patients: &[&Patient], more: &str) -> String {
    let servers: String = patients
        .iter()
        .map(|patient| format!("server {};\n", patient.origin.address()))
        .collect();
    format!(
        "match no-content {{ status 204 206-299; }}\n\
         upstream backend {{ {servers} }}\n\
         server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ proxy_pass http://backend;\n\
         health_check uri=/health interval=200ms {more}; }} }}"
    )
}

fn get(ringwall: &Ringwall) -> (u16, String) {
    let response = Connection::plain(ringwall.address("HTTP")).get("a", "/");
    (response.status, response.text())
}

#[test]
fn a_backend_that_is_not_well_gets_nothing_until_it_is() {
    let (a, b) = (Patient::new("a", true), Patient::new("b", true));
    let ringwall = Site::new().start(&whole(
        "worker_processes 2;",
        "",
        &site(&[&a, &b], "fails=2 passes=2"),
    ));
    a.set(false);
    ringwall.complaint_with(&[&a.origin.address(), "in upstream \"backend\" is unhealthy"]);
    for _ in 0..10 {
        assert_eq!(get(&ringwall), (200, "b".into()), "whichever worker it is");
    }
    assert!(a.asked.load(Ordering::SeqCst) >= 2);
    a.set(true);
    ringwall.complaint_with(&[&a.origin.address(), "in upstream \"backend\" is healthy"]);
    let answers: Vec<_> = (0..10).map(|_| get(&ringwall).1).collect();
    assert!(answers.contains(&"a".to_owned()), "{answers:?}");
    b.set(false);
    a.set(false);
    eventually("nobody is left", || (get(&ringwall).0 == 502).then_some(()));
}

#[test]
fn only_one_worker_asks() {
    let patient = Patient::new("a", true);
    let ringwall = Site::new().start(&whole("worker_processes 4;", "", &site(&[&patient], "")));
    let before = std::time::Instant::now();
    eventually("it has been asked some times", || {
        (patient.asked.load(Ordering::SeqCst) >= 8).then_some(())
    });
    // Four workers would have taken a quarter of that.
    assert!(before.elapsed() >= std::time::Duration::from_millis(1000));
    ringwall.reload();
    ringwall.complaint_with(&["reconfigur"]);
    let asked = patient.asked.load(Ordering::SeqCst);
    eventually("after a reload it is asked as well", || {
        (patient.asked.load(Ordering::SeqCst) > asked + 2).then_some(())
    });
}

#[test]
fn a_mandatory_check_comes_before_the_first_request() {
    let patient = Patient::new("a", false);
    let ringwall = Site::new().start(&http(&site(&[&patient], "mandatory")));
    assert_eq!(get(&ringwall).0, 502);
    eventually("it has been asked", || {
        (patient.asked.load(Ordering::SeqCst) >= 2).then_some(())
    });
    assert_eq!(get(&ringwall).0, 502);
    patient.set(true);
    eventually("it gets requests", || {
        (get(&ringwall).0 == 200).then_some(())
    });
}

#[test]
fn what_is_well_is_for_match_to_say_and_where_to_ask_for_port() {
    let patient = Patient::new("a", true);
    let ringwall = Site::new().start(&http(&site(&[&patient], "match=no-content")));
    eventually("200 is not among them", || {
        (get(&ringwall).0 == 502).then_some(())
    });

    let (a, elsewhere) = (Patient::new("a", false), Patient::new("b", true));
    let port = format!("port={}", elsewhere.origin.port());
    let ringwall = Site::new().start(&http(&site(&[&a], &port)));
    eventually("the other port is asked", || {
        (elsewhere.asked.load(Ordering::SeqCst) >= 2).then_some(())
    });
    assert_eq!(get(&ringwall), (200, "a".into()));
    assert_eq!(a.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn checks_that_cannot_be_made_are_refused_by_name() {
    for (content, complaint) in [
        (
            "server { location / { health_check; } }",
            "needs a \"proxy_pass\" without variables",
        ),
        (
            "server { location / { proxy_pass http://127.0.0.1; health_check fails=0; } }",
            "invalid parameter \"fails=0\"",
        ),
        (
            "server { location / { proxy_pass http://127.0.0.1; health_check match=m; } }",
            "match \"m\" is not defined",
        ),
        (
            "match m { status 200; } match m { status 201; }",
            "duplicate match \"m\"",
        ),
        ("match m { status 20; }", "invalid parameter \"20\""),
        ("match m { body = ok; }", "invalid parameter \"=\""),
        ("match m { header A ? b; }", "invalid parameter \"b\""),
        (
            "match m { require $a; }",
            "\"require\" directive is not implemented",
        ),
        (
            "server { location / { proxy_pass https://127.0.0.1; proxy_ssl_name $host; \
             health_check; } }",
            "of TLS backends whose name or certificate has variables is not implemented",
        ),
    ] {
        let outcome = Site::new().check(&http(content));
        assert!(!outcome.ok(), "{content}");
        assert!(
            outcome.stderr.contains(complaint),
            "{content}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn field_and_body_are_looked_at_where_a_match_says_so() {
    let answer = Arc::new(std::sync::Mutex::new(("well", "text/plain")));
    let told = Arc::clone(&answer);
    let origin = Origin::http(move |request| {
        if request.target() != "/health" {
            return ok("served");
        }
        let (body, kind) = *told.lock().expect("not poisoned");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n");
        let pieces: String = body.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n").into_bytes()
    });
    let ringwall = Site::new().start(&http(&format!(
        "match well {{ status 200; header Content-Type ~ ^text/; header ! X-Ill; \
         body ~ \"we?ll\"; }}\n\
         upstream backend {{ server {}; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://backend;\n\
         health_check uri=/health interval=100ms match=well; }} }}",
        origin.address()
    )));
    let become_this = |body, kind, status| {
        *answer.lock().expect("not poisoned") = (body, kind);
        eventually("that is how it is", || {
            (get(&ringwall).0 == status).then_some(())
        });
    };
    become_this("ill", "text/plain", 502);
    become_this("not so well", "text/plain", 200);
    become_this("well", "image/png", 502);
    become_this("well", "text/html", 200);
}

#[test]
fn a_backend_over_tls_is_asked_as_it_is_spoken_to() {
    let (site, _pki) = Site::with_pki();
    // The backend is another server block, which demands a certificate.
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@BACKEND@ ssl; server_name test.example;\n\
         ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;\n\
         ssl_client_certificate @DIR@/ca.crt; ssl_verify_client on; return 200 $ssl_client_verify; }\n\
         upstream known { server 127.0.0.1:@BACKEND@; }\n\
         upstream unknown { server 127.0.0.1:@BACKEND@; }\n\
         match verified { body ~ ^SUCCESS$; }\n\
         server { listen 127.0.0.1:@HTTP@;\n\
         proxy_ssl_verify on; proxy_ssl_trusted_certificate @DIR@/ca.crt;\n\
         proxy_ssl_name test.example;\n\
         location /known { proxy_pass https://known; proxy_ssl_certificate @DIR@/client.crt;\n\
         proxy_ssl_certificate_key @DIR@/client.key;\n\
         health_check interval=100ms match=verified mandatory; }\n\
         location /unknown { proxy_pass https://unknown; health_check interval=100ms; } }",
    ));
    let get = |target: &str| {
        let response = Connection::plain(ringwall.address("HTTP")).get("a", target);
        response.status
    };
    eventually("it has been asked", || (get("/known") == 200).then_some(()));
    ringwall.complaint_with(&["in upstream \"unknown\" is unhealthy"]);
    assert_eq!(get("/unknown"), 502);
}
