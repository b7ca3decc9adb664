//! What security scanners say of the defaults and of the cipher strings that
//! operators copy: nothing weak.

use crate::support::pki::Pki;
use crate::support::ringwall::{HOST, Ringwall, Site};
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
