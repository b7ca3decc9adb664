//! Keys and stores that a passphrase seals are opened at start and reload; a
//! wrong passphrase is an error with file and line, and nobody is shown any of
//! it.

use std::os::unix::process::ExitStatusExt;

use crate::support::client::TlsClient;
use crate::support::pki::Pki;
use rustix::process::Signal;

use crate::support::ringwall::{CERTIFICATES, HOST, Site, http, whole};
use crate::support::tools::run;

const PASSPHRASE: &str = "open-sesame-4711";

/// A site whose server certificate is also there as `sealed.key` (PKCS#8),
/// `traditional.key`, `store.p12` and `legacy.pfx`.
fn site() -> (Site, Pki) {
    let (mut site, pki) = Site::with_pki();
    site.write("pass", &format!("not-this-one\n{PASSPHRASE}\n"));
    let out = format!("pass:{PASSPHRASE}");
    for (name, how) in [
        ("sealed.key", "pkcs8 -topk8 -v2 aes256 -in server.key"),
        ("traditional.key", "ec -aes256 -in server.key"),
        (
            "store.p12",
            "pkcs12 -export -inkey server.key -in server.crt",
        ),
        (
            "legacy.pfx",
            "pkcs12 -export -legacy -inkey server.key -in server.crt",
        ),
    ] {
        let mut arguments: Vec<&str> = how.split(' ').collect();
        arguments.extend(["-out", name, "-passout", &out]);
        run(site.path(), "openssl", &arguments).expect_ok();
    }
    (site, pki)
}

fn server(lines: &str) -> String {
    format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {lines}\n\
         location / {{ return 200 served; }} }}"
    )
}

#[test]
fn sealed_keys_and_stores_serve_clients() {
    for lines in [
        "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/sealed.key;",
        "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/traditional.key;",
        "ssl_certificate @DIR@/store.p12;",
        "ssl_certificate @DIR@/store.p12; ssl_certificate_key @DIR@/store.p12;",
        "ssl_certificate @DIR@/legacy.pfx;",
    ] {
        let (site, pki) = site();
        let text = format!("ssl_password_file @DIR@/pass;\n{}", server(lines));
        let ringwall = site.start(&http(&text));
        let client = TlsClient::new(&pki.ca);
        let answer = client.get(ringwall.address("TLS"), HOST, "/");
        assert_eq!(answer.expect("answered").text(), "served", "{lines}");
    }
}

#[test]
fn a_store_made_by_javas_keytool_serves_clients() {
    let (mut site, _) = Site::with_pki();
    site.write("pass", "changeit");
    let arguments = "-genkeypair -alias web -keyalg RSA -dname CN=test.example -ext SAN=dns:test.example \
                     -storetype PKCS12 -storepass changeit -keystore store.p12";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    run(site.path(), "keytool", &arguments).expect_ok();
    let text = server("ssl_certificate @DIR@/store.p12; ssl_password_file @DIR@/pass;");
    let ringwall = site.start(&http(&text));
    let client = TlsClient::trusting(None);
    let answer = client.get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(answer.expect("answered").text(), "served");
}

#[test]
fn private_keys_and_passphrases_are_never_logged() {
    let (mut site, _) = site();
    site.write("wrong", "not-this-one\nnor-that");
    let key = site.read("server.key");
    let secrets: Vec<String> = key
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::to_owned)
        .chain([PASSPHRASE, "not-this-one", "nor-that"].map(str::to_owned))
        .collect();
    let plain = "ssl_certificate @DIR@/server.crt; ssl_certificate_key";
    for (lines, complaint) in [
        (
            format!("{plain} @DIR@/sealed.key; ssl_password_file @DIR@/wrong;"),
            "sealed.key\": none of the passphrases in",
        ),
        (
            format!("{plain} @DIR@/traditional.key;"),
            "traditional.key\": the key is encrypted, and no file with its passphrase is given",
        ),
        (
            "ssl_certificate @DIR@/store.p12; ssl_password_file @DIR@/wrong;".to_owned(),
            "cannot load certificate \"",
        ),
        (
            "ssl_certificate @DIR@/server.crt;".to_owned(),
            "no \"ssl_certificate_key\" is defined for certificate",
        ),
        (
            "ssl_certificate @DIR@/store.p12; ssl_password_file @DIR@/none;".to_owned(),
            "none\": No such file or directory",
        ),
    ] {
        let outcome = site.check(&http(&server(&lines)));
        assert!(!outcome.ok(), "{lines}: {outcome:?}");
        assert!(outcome.stderr.contains(complaint), "{outcome:?}");
        assert!(outcome.stderr.contains("ringwall.conf:"), "{outcome:?}");
        let said = outcome.stdout + &outcome.stderr + &site.read("logs/error.log");
        let said = said + &site.read("error.log");
        for secret in &secrets {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn a_reload_with_a_wrong_passphrase_leaves_the_old_state() {
    let (site, pki) = site();
    let text = server(
        "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/sealed.key;\n\
         ssl_password_file @DIR@/pass;",
    );
    let mut ringwall = site.start(&http(&text));
    ringwall.site.write("pass", "changed-too-soon\n");
    ringwall.reload();
    ringwall.complaint_with(&[
        "does not open it in",
        "the old configuration stays in force",
    ]);
    assert!(!ringwall.complaints().contains("changed-too-soon"));
    let answer = TlsClient::new(&pki.ca).get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(answer.expect("answered").text(), "served");
}

#[test]
fn keys_never_reach_a_core_dump() {
    for (main, limit) in [
        ("worker_processes 1;", "1 "),
        ("worker_processes 1; worker_rlimit_core 3m;", "3145728 "),
    ] {
        let (site, _) = Site::with_pki();
        let content = format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} return 204; }}"
        );
        let mut ringwall = site.start(&whole(main, "", &content));
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", ringwall.pid()));
        let limits = limits.expect("a running process");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let line = line
            .expect("Linux")
            .trim_start_matches("Max core file size")
            .trim_start();
        assert!(line.starts_with(limit), "{line}");
        if limit == "1 " {
            ringwall.signal(Signal::ABORT);
            let status = ringwall.wait();
            assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
            assert!(!status.core_dumped());
        }
    }
}
