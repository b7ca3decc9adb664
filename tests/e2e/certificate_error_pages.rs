//! `error_page` for 495 and 496: clients without an acceptable certificate are
//! let in as far as that page, as in Nginx, and no further.

use crate::support::client::{TlsClient, Trust};
use crate::support::nginx::Nginx;
use crate::support::origin::Origin;
use crate::support::pki::Pki;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

const LOCATIONS: &str = "location / { return 200 \"inside for $ssl_client_verify\"; }\n\
     location = /denied { return 403 \"denied $ssl_client_verify $uri\"; }\n\
     location = /said { return 200 \"said $request_method $request_uri\"; }\n\
     location @denied { return 403 named; }\n\
     location @other { return 418 other; }";

fn content(port: &str, pages: &str) -> String {
    format!(
        "server {{ listen 127.0.0.1:@{port}@ ssl; server_name {HOST};\n\
         {CERTIFICATES} {MUTUAL}\n{pages}\n{LOCATIONS} }}"
    )
}

fn clients(pki: &Pki) -> [(&'static str, TlsClient); 3] {
    let build = |identity| TlsClient::build(Trust::Ca(&pki.ca), identity, rustls::ALL_VERSIONS);
    [
        ("good", build(Some(&pki.client))),
        ("none", build(None)),
        ("stranger", build(Some(&pki.stranger))),
    ]
}

#[test]
fn refused_clients_get_the_pages_that_nginx_gives_them() {
    for pages in [
        "error_page 495 496 /denied;",
        "error_page 495 496 /said;",
        "error_page 495 =401 /said; error_page 496 =402 @denied;",
        "error_page 495 496 = @other;",
        "error_page 496 @denied;",
        "error_page 495 496 https://help.example/tls;",
        "error_page 495 496 =301 https://help.example/$ssl_client_verify;",
        "error_page 495 496 /missing/page; recursive_error_pages on;",
    ] {
        let (mut site, pki) = Site::with_pki();
        let nginx = Nginx::start(&mut site, &content("NGINX", pages));
        let ringwall = site.start(&http(&content("TLS", pages)));
        for (who, client) in clients(&pki) {
            for method in ["GET", "POST"] {
                let [ours, theirs] = [ringwall.address("TLS"), nginx.address()].map(|address| {
                    let mut connection = client.connect(address, HOST).expect("a handshake");
                    let length = if method == "POST" {
                        "Content-Length: 4\r\n"
                    } else {
                        ""
                    };
                    let body = if method == "POST" { "body" } else { "" };
                    connection.send(format!(
                        "{method} /page?a=b HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n{body}"
                    ));
                    let answer = connection.response(method);
                    let location = answer.header("location").map(str::to_owned);
                    // Pages of the servers' own differ by their last line.
                    let text = answer.text().replace("nginx/1.22.1", "ringwall/0.1.0");
                    (answer.status, location, text)
                });
                assert_eq!(ours, theirs, "{pages} {who} {method}");
            }
        }
    }
}

#[test]
fn an_error_page_implies_http_and_an_explicit_alert_is_kept() {
    for (lines, connects) in [
        ("error_page 495 496 /denied;", true),
        ("error_page 404 /denied;", false),
        (
            "error_page 495 496 /denied; ssl_verify_failure alert;",
            false,
        ),
    ] {
        let (site, pki) = Site::with_pki();
        let ringwall = site.start(&http(&content("TLS", lines)));
        for (who, client) in clients(&pki) {
            let answer = client.get(ringwall.address("TLS"), HOST, "/");
            assert_eq!(answer.is_ok(), connects || who == "good", "{lines} {who}");
        }
    }
}

/// Nor does it by an `auth_request` that holds for the page.
#[test]
fn no_byte_of_an_unverified_client_reaches_a_backend_by_a_question_about_the_page() {
    let origin = Origin::echo();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         error_page 495 496 /page;\n\
         location = /page {{ auth_request /ask; proxy_pass {url}; }}\n\
         location = /ask {{ proxy_pass {url}; }} }}",
        url = origin.url()
    )));
    for (who, client) in clients(&pki) {
        let before = origin.requests();
        let answer = client.get(ringwall.address("TLS"), HOST, "/page");
        let status = answer.expect("an answer").status;
        let asked = origin.requests() - before;
        match who {
            "good" => assert_eq!((status, asked), (200, 2)),
            _ => assert_eq!((status >= 400, asked), (true, 0), "{who}"),
        }
    }
}

/// Backend and proxy; whatever is refused is led to the backend.
fn leading_to_a_backend(origin: &Origin) -> (Ringwall, Pki) {
    let (site, pki) = Site::with_pki();
    let text = format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         error_page 400 421 495 496 497 @backend; recursive_error_pages on;\n\
         location / {{ proxy_pass {url}; }} location @backend {{ proxy_pass {url}; }} }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name open.example; {CERTIFICATES}\n\
         error_page 421 @backend; location @backend {{ proxy_pass {url}; }} }}",
        url = origin.url()
    );
    (site.start(&http(&text)), pki)
}

#[test]
fn no_byte_of_an_unverified_client_reaches_a_backend_by_an_error_page() {
    let origin = Origin::echo();
    let (ringwall, pki) = leading_to_a_backend(&origin);
    let address = ringwall.address("TLS");
    let [good, none, stranger] = clients(&pki);
    for (who, client) in [none, stranger] {
        let answer = client.get(address, HOST, "/").expect("a page");
        assert!(answer.status >= 400, "{who}: {}", answer.status);
        // A handshake without certificate, a host that demands one.
        let identity = (who == "stranger").then_some(&pki.stranger);
        let lax = TlsClient::trusting(identity);
        let mut connection = lax.connect(address, "open.example").expect("let in");
        let answer = connection.get(HOST, "/");
        assert!(answer.status >= 400, "{who}: {}", answer.status);
    }
    let mut plain = crate::support::client::Connection::plain(address);
    plain.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(plain.response("GET").status >= 400);
    assert_eq!(origin.requests(), 0);
    ringwall.complaint_with(&["would pass the request of an unverified client to a backend"]);
    let answer = good.1.get(address, HOST, "/").expect("let in");
    assert_eq!(answer.status, 200);
    assert_eq!(origin.requests(), 1);
}
