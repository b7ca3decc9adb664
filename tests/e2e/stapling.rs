//! OCSP stapling: clients that ask get what the CA says of the certificate,
//! asked for off the workers and swapped in without a reload; what is not good
//! is never shown.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use crate::support::pki::OpenSsl;
use crate::support::ringwall::{CERTIFICATES, HOST, Ringwall, Site, http};
use crate::support::tools::{Background, run, shell};
use crate::support::{eventually, local};

/// A CA, a server certificate that names the responder at `@OCSP@`, and the
/// CA's index, in which the server's state is this letter.
fn site(state: &str) -> Site {
    let mut site = Site::new();
    let openssl = OpenSsl::in_dir(site.path());
    openssl.authority("ca", "CA");
    openssl.run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key");
    openssl.run("req -new -key server.key -subj /CN=test.example -out server.csr");
    site.write(
        "server.ext",
        "subjectAltName=DNS:test.example\n\
         authorityInfoAccess=OCSP;URI:http://127.0.0.1:@OCSP@\n",
    );
    openssl.run(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -set_serial 0x1234 -days 30 \
         -extfile server.ext -out server.crt",
    );
    let revoked = if state == "R" { "250101000000Z" } else { "" };
    let line = format!("{state}\t400101000000Z\t{revoked}\t1234\tunknown\t/CN=server\n");
    site.write("index.txt", &line);
    site
}

fn configuration(lines: &str) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {lines}\n\
         location / {{ return 200 served; }} }}"
    ))
}

/// The CA's own responder, by OpenSSL.
fn responder(site: &mut Site) -> Background {
    let port = site.port("OCSP");
    let words = format!(
        "ocsp -port {port} -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -nmin 60"
    );
    let words: Vec<&str> = words.split(' ').collect();
    let responder = Background::start(site.path(), "openssl", &words);
    // Not by connecting: it serves one at a time, and waits for that one's word.
    let listens = format!(":{port:04X} {:032}:0000 0A", 0);
    eventually("the responder listens", || {
        let sockets = std::fs::read_to_string("/proc/net/tcp6").expect("Linux with IPv6");
        sockets.contains(&listens).then_some(())
    });
    responder
}

const NONE: &str = "OCSP response: no response sent";
const GOOD: &str = "OCSP Response Status: successful (0x0)";

/// What OpenSSL's client is told of the certificate, by a version.
fn told(ringwall: &Ringwall, version: &str) -> String {
    let address = ringwall.address("TLS");
    let line = format!(
        "openssl s_client -connect {address} -servername {HOST} -{version} -status -CAfile ca.crt \
         -verify_return_error </dev/null"
    );
    let outcome = shell(ringwall.site.path(), &line);
    let said = outcome.expect_ok();
    assert!(
        said.contains(NONE) != said.contains("OCSP Response Data"),
        "{said}"
    );
    said
}

fn is_told_good(said: &str) -> bool {
    said.contains(GOOD) && said.contains("Cert Status: good") && said.contains("1234")
}

#[test]
fn clients_that_ask_are_told_the_status_and_a_reload_keeps_it() {
    let mut site = site("V");
    let responder = responder(&mut site);
    let lines = "ssl_stapling on; ssl_stapling_verify on; ssl_trusted_certificate @DIR@/ca.crt;";
    let ringwall = site.start(&configuration(lines));
    for version in ["tls1_2", "tls1_3"] {
        eventually("the status is told", || {
            is_told_good(&told(&ringwall, version)).then_some(())
        });
    }
    drop(responder);
    ringwall.reload();
    ringwall.complaint_with(&["reconfigured"]);
    for version in ["tls1_2", "tls1_3"] {
        assert!(is_told_good(&told(&ringwall, version)));
    }
    let error = "while requesting certificate status";
    assert!(!ringwall.complaints().contains(error));
}

/// A responder that takes a request and answers when the test lets it.
fn slow_responder(port: u16) -> (Sender<Vec<u8>>, JoinHandle<String>) {
    let listener = TcpListener::bind(local(port)).expect("a free port");
    let (release, answer) = channel::<Vec<u8>>();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let count = stream.read(&mut request).expect("a request");
        let answer = answer.recv().expect("the test goes on");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n";
        let head = format!("{head}Content-Length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(&answer).expect("sent");
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    (release, served)
}

/// An answer of this CA about the server, as a file would hold it.
fn answer(site: &Site) -> Vec<u8> {
    let words = "ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -nmin 60 \
                 -issuer ca.crt -cert server.crt -no_nonce -reqout request.der";
    OpenSsl::in_dir(site.path()).run(words);
    OpenSsl::in_dir(site.path()).run(
        "ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -nmin 60 \
         -reqin request.der -respout response.der",
    );
    std::fs::read(site.file("response.der")).expect("a response")
}

#[test]
fn nobody_waits_for_a_slow_responder_and_its_answer_is_swapped_in() {
    let mut site = site("V");
    let (release, served) = slow_responder(site.port("OCSP"));
    let good = answer(&site);
    let lines = "ssl_stapling on; ssl_client_certificate @DIR@/ca.crt;";
    let ringwall = site.start(&configuration(lines));
    for version in ["tls1_2", "tls1_3"] {
        assert!(told(&ringwall, version).contains(NONE));
    }
    release.send(good).expect("the responder waits");
    let request = served.join().expect("served");
    assert!(request.starts_with("GET /M"), "{request}");
    assert!(
        request.contains(" HTTP/1.0\r\nHost: 127.0.0.1:"),
        "{request}"
    );
    eventually("the status is told", || {
        is_told_good(&told(&ringwall, "tls1_3")).then_some(())
    });
}

#[test]
fn a_status_that_is_not_good_is_logged_once_and_never_shown() {
    let mut site = site("R");
    let _responder = responder(&mut site);
    let lines = "ssl_stapling on; ssl_trusted_certificate @DIR@/ca.crt;";
    let ringwall = site.start(&configuration(lines));
    let line = ringwall.complaint_with(&[
        "[error]",
        "certificate status \"revoked\" in the OCSP response while requesting certificate status, \
         responder: 127.0.0.1:",
        "server.crt\"",
    ]);
    for version in ["tls1_2", "tls1_3"] {
        assert!(told(&ringwall, version).contains(NONE), "{line}");
    }
    ringwall.reload();
    ringwall.complaint_with(&["reconfigured"]);
    let times = ringwall.complaints().matches("\"revoked\"").count();
    assert_eq!(times, 1, "{}", ringwall.complaints());
}

#[test]
fn a_responder_that_is_not_there_stops_nothing() {
    let site = site("V");
    let lines = "ssl_stapling on; ssl_trusted_certificate @DIR@/ca.crt;";
    let ringwall = site.start(&configuration(lines));
    ringwall.complaint_with(&[
        "connect() failed (111: Connection refused) while requesting certificate status",
    ]);
    assert!(told(&ringwall, "tls1_3").contains(NONE));
}

#[test]
fn a_response_file_is_shown_with_the_certificate_that_it_is_about() {
    let site = site("V");
    answer(&site);
    let lines = "ssl_stapling on; ssl_stapling_file @DIR@/response.der;\n\
                 ssl_trusted_certificate @DIR@/ca.crt;";
    let ringwall = site.start(&configuration(lines));
    for version in ["tls1_2", "tls1_3"] {
        assert!(is_told_good(&told(&ringwall, version)), "{version}");
    }
}

#[test]
fn what_cannot_be_stapled_is_said_at_the_test_of_the_configuration() {
    let mut site = site("V");
    answer(&site);
    let other = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -set_serial 7 -out other.crt";
    run(
        site.path(),
        "openssl",
        &other.split(' ').collect::<Vec<_>>(),
    )
    .expect_ok();
    let trusted = "ssl_trusted_certificate @DIR@/ca.crt;";
    let bare = configuration(trusted).replace("server.crt", "other.crt");
    for (text, said) in [
        (
            configuration("ssl_stapling on;"),
            "[warn] \"ssl_stapling\" ignored, issuer certificate not found for certificate \"",
        ),
        (
            bare.replace("location", "ssl_stapling on; location"),
            "[warn] \"ssl_stapling\" ignored, no OCSP responder URL in the certificate \"",
        ),
        (
            configuration(&format!(
                "{trusted} ssl_stapling on; ssl_stapling_responder https://ocsp.example/;"
            )),
            "ignored, invalid URL prefix in OCSP responder \"https://ocsp.example/\"",
        ),
        (
            bare.replace(
                "location",
                "ssl_stapling on; ssl_stapling_file @DIR@/response.der; location",
            ),
            "\"ssl_stapling_file\" ignored, \"",
        ),
    ] {
        let outcome = site.check(&text);
        assert!(outcome.stderr.contains(said), "{outcome:?}");
        assert!(outcome.ok(), "{outcome:?}");
    }
    let file = "ssl_stapling on; ssl_stapling_file @DIR@/server.crt;";
    let outcome = site.check(&configuration(&format!("{trusted} {file}")));
    let said = "server.crt\": the OCSP response is malformed in ";
    assert!(
        !outcome.ok() && outcome.stderr.contains(said),
        "{outcome:?}"
    );
}
