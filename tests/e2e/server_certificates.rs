//! Server certificates of every kind of key, the one of several that a client
//! can verify, and those that the handshake itself names.

use std::io::{Read, Write};

use crate::support::client::{TlsClient, tcp};
use crate::support::eventually;
use crate::support::pki::{Authority, OpenSsl};
use crate::support::ringwall::{HOST, Ringwall, Site, http};
use crate::support::tools::{Outcome, shell};

/// Makes `NAME.key` by this command, and `NAME.crt` of a CA in `ca.crt`.
fn certify(site: &Site, name: &str, key: &str) {
    let openssl = OpenSsl::in_dir(site.path());
    openssl.run(&format!("{key} -out {name}.key"));
    openssl.run(&format!(
        "req -new -key {name}.key -subj /CN={HOST} -addext subjectAltName=DNS:{HOST} -out {name}.csr"
    ));
    openssl.run(&format!(
        "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy \
         -days 90 -out {name}.crt"
    ));
}

fn site() -> Site {
    let site = Site::new();
    OpenSsl::in_dir(site.path()).authority("ca", "CA");
    site
}

fn server(names: &[&str]) -> String {
    let pairs: String = names
        .iter()
        .map(|name| {
            format!("ssl_certificate @DIR@/{name}.crt; ssl_certificate_key @DIR@/{name}.key;\n")
        })
        .collect();
    http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {pairs} return 204; }}"
    ))
}

/// OpenSSL's client, with these options.
fn client(ringwall: &Ringwall, options: &str) -> Outcome {
    let address = ringwall.address("TLS");
    let line = format!(
        "openssl s_client -connect {address} -servername {HOST} -CAfile ca.crt \
         -verify_return_error -verify_hostname {HOST} {options} </dev/null"
    );
    shell(ringwall.site.path(), &line)
}

/// OpenSSL's line; "Ed25519" is written in two ways.
fn signed_by(signature: &str) -> String {
    format!("peer signature type: {signature}\n").to_lowercase()
}

#[test]
fn every_kind_of_server_key_serves_clients_that_verify_it() {
    let ec = |curve: &str| format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve}");
    for (name, key, signature) in [
        ("rsa2048", "genrsa 2048".to_owned(), "RSA-PSS"),
        (
            "rsa4096",
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096".to_owned(),
            "RSA-PSS",
        ),
        ("p256", ec("P-256"), "ECDSA"),
        ("p384", ec("P-384"), "ECDSA"),
        ("p521", ec("P-521"), "ECDSA"),
        (
            "ed25519",
            "genpkey -algorithm ED25519".to_owned(),
            "Ed25519",
        ),
        (
            "sec1",
            "ecparam -name secp384r1 -genkey".to_owned(),
            "ECDSA",
        ),
        ("pkcs1", "genrsa -traditional 3072".to_owned(), "RSA-PSS"),
    ] {
        let site = site();
        // `-out` may not follow genrsa's length.
        let key = match key.rsplit_once(' ') {
            Some((command, bits)) if command.starts_with("genrsa") => {
                certify_rsa(&site, name, command, bits);
                None
            }
            _ => Some(key),
        };
        if let Some(key) = key {
            certify(&site, name, &key);
        }
        let ringwall = site.start(&server(&[name]));
        for version in ["-tls1_2", "-tls1_3"] {
            let said = client(&ringwall, version).expect_ok();
            assert!(
                said.contains("Verify return code: 0 (ok)"),
                "{name} {version}: {said}"
            );
            assert!(
                said.to_lowercase().contains(&signed_by(signature)),
                "{name} {version}: {said}"
            );
        }
    }
}

/// [`certify`] for a command whose last word must stay last.
fn certify_rsa(site: &Site, name: &str, command: &str, bits: &str) {
    let openssl = OpenSsl::in_dir(site.path());
    openssl.run(&format!("{command} -out {name}.made {bits}"));
    let traditional = if command.contains("traditional") {
        "-traditional"
    } else {
        ""
    };
    certify(site, name, &format!("rsa -in {name}.made {traditional}"));
}

#[test]
fn of_several_certificates_each_client_gets_one_that_it_can_verify() {
    let site = site();
    certify(&site, "rsa", "genpkey -algorithm RSA");
    certify(
        &site,
        "ec",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    );
    certify(&site, "ed", "genpkey -algorithm ED25519");
    let ringwall = site.start(&server(&["rsa", "ec", "ed"]));
    for (options, signature) in [
        ("-tls1_3 -sigalgs rsa_pss_rsae_sha256", "RSA-PSS"),
        ("-tls1_3 -sigalgs ECDSA+SHA256:rsa_pss_rsae_sha256", "ECDSA"),
        ("-tls1_3 -sigalgs ed25519:rsa_pss_rsae_sha256", "Ed25519"),
        ("-tls1_2 -sigalgs RSA+SHA256:rsa_pss_rsae_sha256", "RSA-PSS"),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "RSA-PSS"),
        (
            "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256 -sigalgs ECDSA+SHA256:RSA+SHA256",
            "ECDSA",
        ),
        ("-tls1_2", "ECDSA"),
        ("-tls1_3", "ECDSA"),
    ] {
        // The CA signs by RSA: that it can be verified must be offered, too.
        let outcome = client(&ringwall, options);
        let said = outcome.stdout.clone();
        assert!(
            said.to_lowercase().contains(&signed_by(signature)),
            "{options}: {outcome:?}"
        );
    }
    // Nothing that this one could verify.
    let refused = client(&ringwall, "-tls1_3 -sigalgs ECDSA+SHA384");
    assert!(!refused.ok(), "{refused:?}");
}

/// A site whose server takes its certificate by the name that is asked for.
fn by_name(ca: &Authority, names: &[&str], more: &str) -> Ringwall {
    let site = Site::new();
    std::fs::create_dir(site.file("certs")).expect("a fresh folder");
    for name in names {
        ca.server(&[name]).write(&site.file("certs"), name);
    }
    // Beside the folder: nobody is to get at it from inside.
    ca.server(&["outside.test"]).write(site.path(), "outside");
    std::fs::write(site.file("ca.crt"), ca.pem()).expect("space");
    site.start(&http(&format!(
        "map $ssl_server_name $stem {{ default $ssl_server_name; other.test a.test; }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name _; {more}\n\
         ssl_certificate @DIR@/certs/$stem.crt; ssl_certificate_key @DIR@/certs/$stem.key;\n\
         return 200 \"$ssl_server_name $ssl_client_verify\"; }}"
    )))
}

#[test]
fn a_certificate_is_the_one_that_the_handshake_names() {
    let ca = Authority::new("CA");
    let ringwall = by_name(&ca, &["a.test", "b.test"], "");
    let address = ringwall.address("TLS");
    let client = TlsClient::new(&ca);
    for name in ["a.test", "b.test"] {
        let response = client
            .get(address, name, "/")
            .expect("a certificate of its own");
        assert_eq!(response.text(), format!("{name} NONE"));
    }
    // By the map it gets another's, which such a client does not believe.
    assert!(client.get(address, "other.test", "/").is_err());
    // One that is not there is an alert and a line, not the end of anything.
    let error = client
        .get(address, "missing.test", "/")
        .expect_err("no certificate");
    assert!(error.to_string().contains("InternalError"), "{error}");
    ringwall.complaint_with(&[
        "[error]",
        "cannot load certificate \"",
        "/certs/missing.test.crt\"",
        "while SSL handshaking",
    ]);
    assert!(client.get(address, "a.test", "/").is_ok());
}

/// Threat: whoever asks for a name has a say in a path.
#[test]
fn no_name_of_a_handshake_leads_out_of_the_folder_of_certificates() {
    let ca = Authority::new("CA");
    let ringwall = by_name(&ca, &["a.test"], "");
    let hello = TlsClient::new(&ca).client_hello("a-test-as-long.test");
    let place = hello
        .windows(19)
        .position(|name| name == b"a-test-as-long.test");
    let place = place.expect("the name is in the hello");
    for name in [
        "../outside/////////",
        "..%2f..%2foutside..",
        "/tmp/outside.test//",
        "a.test/../../outsid",
        "a-test\0as-long.test",
        "..................a",
    ] {
        assert_eq!(name.len(), 19);
        let mut hello = hello.clone();
        hello[place..place + 19].copy_from_slice(name.as_bytes());
        let mut stream = tcp(ringwall.address("TLS")).expect("a connection");
        stream.write_all(&hello).expect("an open connection");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // A fatal alert and nothing else.
        assert_eq!((answer.first(), answer.len()), (Some(&21), 7), "{name:?}");
    }
    let said = ringwall.complaints();
    assert!(!said.contains("cannot load certificate"), "{said}");
}

#[test]
fn a_certificate_that_is_named_says_nothing_about_who_may_connect() {
    let ca = Authority::new("CA");
    let clients = Authority::new("clients");
    let policy = "ssl_client_certificate @DIR@/clients.crt; ssl_verify_client on;";
    let ringwall = {
        let site = Site::new();
        std::fs::create_dir(site.file("certs")).expect("a fresh folder");
        for name in ["a.test", "b.test"] {
            ca.server(&[name]).write(&site.file("certs"), name);
        }
        std::fs::write(site.file("clients.crt"), clients.pem()).expect("space");
        site.start(&http(&format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name _; {policy}\n\
             ssl_session_cache shared:S:1m; ssl_certificate_cache max=10 valid=1h inactive=1h;\n\
             ssl_certificate @DIR@/certs/$ssl_server_name.crt;\n\
             ssl_certificate_key @DIR@/certs/$ssl_server_name.key;\n\
             return 200 \"$ssl_client_s_dn $ssl_session_reused\"; }}"
        )))
    };
    let address = ringwall.address("TLS");
    let known = clients.client("alice");
    for name in ["a.test", "b.test"] {
        assert!(
            TlsClient::new(&ca).get(address, name, "/").is_err(),
            "{name}"
        );
        let alice = TlsClient::with_identity(&ca, &known);
        assert_eq!(
            alice.get(address, name, "/").expect("let in").text(),
            "CN=alice ."
        );
        // The same client resumes under the name it was let in under.
        eventually("a session is resumed", || {
            let text = alice.get(address, name, "/").expect("let in").text();
            (text == "CN=alice r").then_some(())
        });
    }
    // As the cache says, the files are not needed again.
    std::fs::remove_dir_all(ringwall.site.file("certs")).expect("a folder");
    let alice = TlsClient::with_identity(&ca, &known).without_sessions();
    let response = alice.get(address, "b.test", "/").expect("from the cache");
    assert_eq!(response.text(), "CN=alice .");
}
