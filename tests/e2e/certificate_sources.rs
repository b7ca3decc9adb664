//! Certificates and keys come from files, from the configuration and from the
//! environment; what is wrong with one is said without showing any of it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::client::{TlsClient, Trust};
use crate::support::eventually;
use crate::support::pki::OpenSsl;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Site, binary, http, whole};

/// A server whose certificate, key and CA are three variables.
const FROM_VARIABLES: &str = "server { listen 127.0.0.1:@TLS@ ssl; server_name test.example;\n\
     ssl_certificate env:TLS_CRT; ssl_certificate_key env:TLS_KEY;\n\
     ssl_client_certificate env:TLS_CA; ssl_verify_client on;\n\
     location / { return 200 served; } }";

#[test]
fn certificate_key_and_ca_from_the_environment_serve_clients() {
    let (site, pki) = Site::with_pki();
    let main = format!(
        "worker_processes 1; env PATH;\n\
         env \"TLS_CRT={}\"; env \"TLS_KEY={}\"; env \"TLS_CA={}\";",
        site.read("server.crt"),
        // The two characters, as an .env file has them.
        site.read("server.key").replace('\n', r"\\n"),
        site.read("ca.crt"),
    );
    let ringwall = site.start(&whole(&main, "", FROM_VARIABLES));
    let address = ringwall.address("TLS");
    let good = TlsClient::with_identity(&pki.ca, &pki.client);
    let answer = good.get(address, HOST, "/").expect("answered");
    assert_eq!(answer.text(), "served");
    let stranger = TlsClient::with_identity(&pki.ca, &pki.stranger);
    assert!(stranger.get(address, HOST, "/").is_err());
}

#[test]
fn certificate_and_key_stand_in_the_configuration() {
    let (site, pki) = Site::with_pki();
    let text = format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         ssl_certificate \"data:{}\"; ssl_certificate_key \"data:{}\";\n\
         location / {{ return 200 served; }} }}",
        site.read("server.crt"),
        site.read("server.key"),
    );
    let ringwall = site.start(&http(&text));
    let client = TlsClient::new(&pki.ca);
    let answer = client.get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(answer.expect("answered").text(), "served");
}

#[test]
fn a_variable_that_is_no_pem_stops_the_start_and_is_named_but_not_shown() {
    let (mut site, _) = Site::with_pki();
    let text = site.fill_in(&http(FROM_VARIABLES));
    let file = site.write("ringwall.conf", &text);
    let certificate = site.read("server.crt");
    let key = site.read("server.key");
    let secret = key.lines().nth(1).expect("a line").to_owned();
    let other = {
        let (other, _) = Site::with_pki();
        other.read("server.key")
    };
    for (key, complaint) in [
        (
            Some(secret.as_str()),
            "\"env:TLS_KEY\": the value is neither PEM nor base64 of PEM",
        ),
        (None, "\"env:TLS_KEY\": the environment variable is not set"),
        (Some(&certificate), "\"env:TLS_KEY\": no private key in it"),
        (
            Some(&other),
            "\"env:TLS_KEY\" does not match certificate \"env:TLS_CRT\": key values mismatch",
        ),
    ] {
        let mut command = Command::new(binary());
        command
            .args(["-t", "-p"])
            .arg(site.path())
            .arg("-c")
            .arg(&file)
            .env("TLS_CRT", &certificate)
            .env("TLS_CA", site.read("ca.crt"))
            .env_remove("TLS_KEY");
        if let Some(key) = key {
            command.env("TLS_KEY", key);
        }
        let output = command.output().expect("the binary under test exists");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(complaint), "{said}");
        assert!(said.contains("ringwall.conf:"), "{said}");
        let logged = site.read("logs/error.log") + &site.read("error.log");
        for line in key.into_iter().flat_map(str::lines).chain([&*secret]) {
            let leaked = said.contains(line) || logged.contains(line);
            assert!(!leaked || line.starts_with("-----"), "{said}{logged}");
        }
    }
}

#[test]
fn a_block_that_rejects_handshakes_needs_no_certificate_and_answers_nobody() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl default_server; ssl_reject_handshake on; }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES}\n\
         location / {{ return 200 served; }} }}"
    )));
    let address = ringwall.address("TLS");
    let client = TlsClient::trusting(None);
    for name in ["other.example", "127.0.0.1"] {
        let error = client.connect(address, name).err().expect("refused");
        assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    }
    let answer = TlsClient::new(&pki.ca).get(address, HOST, "/");
    assert_eq!(answer.expect("answered").text(), "served");
}

#[test]
fn hosts_that_share_a_ticket_key_file_resume_one_anothers_sessions() {
    let (first, pki) = Site::with_pki();
    let second = Site::new();
    pki.write(second.path());
    let text = http(&format!(
        "ssl_session_ticket_key @DIR@/ticket.key; ssl_session_ticket_key @DIR@/old.key;\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         location / {{ return 200 served; }} }}"
    ));
    for (site, seals, opens) in [(&first, 1_u8, 2_u8), (&second, 2, 1)] {
        std::fs::write(site.file("ticket.key"), [seals; 48]).expect("writable");
        std::fs::write(site.file("old.key"), [opens; 48]).expect("writable");
    }
    let hosts = [first.start(&text), second.start(&text)];
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[version]);
        for (round, host) in [0, 1, 0].into_iter().enumerate() {
            let mut connection = client
                .connect(hosts[host].address("TLS"), HOST)
                .expect("let in");
            assert_eq!(connection.get(HOST, "/").text(), "served");
            assert_eq!(connection.resumed(), round > 0, "{version:?} {round}");
        }
    }
}

#[test]
fn a_swapped_folder_of_certificates_is_seen_and_no_request_fails() {
    let (site, pki) = Site::with_pki();
    let at = |name: &str| site.file(name);
    let renewed = pki.ca.server(&[HOST]);
    for (folder, identity) in [("v1", &pki.server), ("v2", &renewed)] {
        std::fs::create_dir(at(folder)).expect("made");
        identity.write(&at(folder), "tls");
    }
    // As the kubelet lays out a secret.
    symlink("v1", at("..data")).expect("linked");
    symlink("..data/tls.crt", at("tls.crt")).expect("linked");
    symlink("..data/tls.key", at("tls.key")).expect("linked");
    let ringwall = site.start(&whole(
        "worker_processes 1;",
        "",
        &format!(
            "ssl_watch on 100ms; server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
             ssl_certificate @DIR@/tls.crt; ssl_certificate_key @DIR@/tls.key;\n\
             location / {{ return 200 served; }} }}"
        ),
    ));
    let address = ringwall.address("TLS");
    let client = TlsClient::new(&pki.ca).without_sessions();
    let mut old = client.connect(address, HOST).expect("let in");
    let served = || {
        let mut connection = client.connect(address, HOST).expect("let in");
        assert_eq!(connection.get(HOST, "/").text(), "served");
        connection.server_certificate()
    };
    assert_eq!(served(), pki.server.chain()[0]);

    // A key that does not belong to the certificate changes nothing.
    let file = |name: &str| ringwall.site.file(name);
    std::fs::create_dir(file("bad")).expect("made");
    std::fs::copy(file("v2/tls.crt"), file("bad/tls.crt")).expect("copied");
    std::fs::copy(file("v1/tls.key"), file("bad/tls.key")).expect("copied");
    swap(&file("..data"), "bad");
    ringwall.complaint_with(&[
        "key values mismatch",
        "the old configuration stays in force",
    ]);
    assert_eq!(served(), pki.server.chain()[0]);

    swap(&file("..data"), "v2");
    eventually("new connections get the new certificate", || {
        (served() == renewed.chain()[0]).then_some(())
    });
    assert_eq!(old.get(HOST, "/").text(), "served");
    let mismatches = ringwall.complaints().matches("key values mismatch").count();
    assert_eq!(mismatches, 1, "{}", ringwall.complaints());
}

/// Points a link elsewhere in one step, as the kubelet does.
fn swap(link: &Path, target: &str) {
    let new = link.with_file_name("new-link");
    symlink(target, &new).expect("linked");
    std::fs::rename(new, link).expect("swapped");
}

#[test]
fn a_certificate_in_its_last_days_is_complained_of_in_the_error_log() {
    let site = Site::new();
    let openssl = OpenSsl::in_dir(site.path());
    openssl.run("genpkey -algorithm RSA -out server.key");
    openssl.run("req -new -x509 -key server.key -out server.crt -days 9 -subj /CN=brief");
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; {CERTIFICATES} return 204; }}"
    )));
    ringwall.complaint_with(&["[error]", "certificate \"CN=brief\" in", "expires in "]);
}
