//! Server certificates of every kind of key, and the one of several that a
//! client can verify.

use crate::support::pki::OpenSsl;
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
