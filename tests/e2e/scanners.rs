//! What security scanners say of the defaults and of the cipher strings that
//! operators copy: nothing weak.

use crate::support::pki::Pki;
use crate::support::ringwall::{HOST, Ringwall, Site, http};
use crate::support::tools;

/// A TLS port that asks for no certificate, so that scanners get through, with
/// the protocols and ciphers of a usual guide, old versions included.
fn server() -> Ringwall {
    let site = Site::new();
    Pki::new(&[HOST, "localhost"]).write(site.path());
    site.start(
        "worker_processes 1; pid @DIR@/ringwall.pid;
         error_log @DIR@/error.log info;
         events { worker_connections 256; }
         http {
             access_log @DIR@/access.log;
             server {
                 listen 127.0.0.1:@TLS@ ssl;
                 server_name localhost;
                 ssl_certificate server.crt;
                 ssl_certificate_key server.key;
                 ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
                 ssl_ciphers HIGH:!aNULL:!MD5;
                 location / { return 204; }
             }
         }",
    )
}

#[test]
fn sslscan_finds_modern_protocols_and_ciphers_only() {
    let ringwall = server();
    let target = ringwall.address("TLS").to_string();
    let arguments = ["--no-colour", "--no-check-certificate", &target];
    let report = tools::run(ringwall.site.path(), "sslscan", &arguments).expect_ok();
    for old in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        assert!(report.contains(&format!("{old:<10}disabled")), "{report}");
    }
    for new in ["TLSv1.2", "TLSv1.3"] {
        assert!(report.contains(&format!("{new:<10}enabled")), "{report}");
    }
    assert!(
        report.contains("Session renegotiation not supported"),
        "{report}"
    );
    let offered = || {
        report
            .lines()
            .filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred"))
    };
    assert!(offered().count() >= 6, "{report}");
    for line in offered() {
        let aead = line.contains("GCM") || line.contains("CHACHA20");
        let forward_secret = line.contains("ECDHE") || line.contains("TLSv1.3");
        assert!(aead && forward_secret, "{line}");
    }
}

#[test]
fn nmap_grades_every_cipher_a() {
    let ringwall = server();
    let port = ringwall.address("TLS").port().to_string();
    let arguments = [
        "-Pn",
        "-p",
        &port,
        "--script",
        "ssl-enum-ciphers",
        "127.0.0.1",
    ];
    let report = tools::run(ringwall.site.path(), "nmap", &arguments).expect_ok();
    assert!(report.contains("least strength: A"), "{report}");
    assert!(
        !report.contains("TLSv1.0") && !report.contains("TLSv1.1"),
        "{report}"
    );
    assert!(!report.contains("warnings:"), "{report}");
}

/// The server block of Mozilla's generator for Nginx, intermediate profile.
const INTERMEDIATE: &str = "
    listen 127.0.0.1:@TLS@ ssl;
    server_name localhost;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519:prime256v1:secp384r1;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305;
    ssl_prefer_server_ciphers off;
    ssl_session_timeout 1d;
    ssl_session_cache shared:MozSSL:10m;
    add_header Strict-Transport-Security \"max-age=63072000\" always;
    return 200 ok;";

fn sslyze(ringwall: &Ringwall, options: &[&str]) -> tools::Outcome {
    let target = format!("localhost:{}", ringwall.address("TLS").port());
    let mut arguments = options.to_vec();
    arguments.push(&target);
    tools::run(ringwall.site.path(), &tools::python("sslyze"), &arguments)
}

#[test]
fn sslyze_finds_mozillas_intermediate_profile_kept() {
    let mut site = Site::new();
    let pki = Pki::new(&["localhost"]);
    std::fs::write(site.file("ca.crt"), pki.ca.pem()).expect("writable");
    let now = time::OffsetDateTime::now_utc();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256] {
        // The profile wants certificates renewed within the year.
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let mut server = pki.ca.client_keyed("localhost", &key, |params| {
            params.not_before = now - time::Duration::days(1);
            params.not_after = now + time::Duration::days(90);
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            let name = "localhost".try_into().expect("a name");
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        });
        server.certificate_pem += &pki.ca.pem();
        server.write(site.path(), "server");
        let ringwall = site.start(&http(&format!("server {{ {INTERMEDIATE} }}")));
        let outcome = sslyze(
            &ringwall,
            &["--mozilla_config=intermediate", "--certinfo_ca_file=ca.crt"],
        );
        assert!(outcome.ok(), "{outcome:#?}");
        let report = &outcome.stdout;
        assert!(report.contains("OK - Compliant"), "{report}");
        assert!(!report.contains("VULNERABLE - "), "{report}");
        site = Site::new();
        std::fs::write(site.file("ca.crt"), pki.ca.pem()).expect("writable");
    }
}
