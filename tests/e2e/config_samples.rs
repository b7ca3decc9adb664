//! Every sample in `config/` passes `-t` once the certificates that it names
//! exist below the prefix. The folders that the systemd unit provides (logs
//! and run-time state) are moved below the prefix too, since a test owns
//! neither; nothing else of a sample is changed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::pki::Pki;
use crate::support::ringwall::Site;

fn samples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut samples: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    samples.sort();
    samples
}

/// (directive, first argument) of each line, comments left out. Enough for
/// samples, which are written one directive to a line.
fn directives(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split([';', '{', '}']))
        .filter_map(|directive| {
            let mut words = directive.split_whitespace();
            Some((
                words.next()?.to_owned(),
                words.next()?.trim_matches('"').to_owned(),
            ))
        })
        .collect()
}

/// Makes what a sample names: relative paths only, below the prefix.
fn prepare(site: &Site, pki: &Pki, text: &str) {
    for (directive, argument) in directives(text) {
        let content = match directive.as_str() {
            "ssl_certificate" => pki.server.certificate_pem.clone(),
            "ssl_certificate_key" => pki.server.key_pem.clone(),
            "ssl_client_certificate"
            | "ssl_trusted_certificate"
            | "proxy_ssl_trusted_certificate" => pki.ca.pem(),
            "proxy_ssl_certificate" => pki.client.certificate_pem.clone(),
            "proxy_ssl_certificate_key" => pki.client.key_pem.clone(),
            _ => continue,
        };
        assert!(
            !argument.starts_with('/'),
            "{directive} {argument}: samples name certificates below the prefix"
        );
        let path = site.file(&argument);
        fs::create_dir_all(path.parent().expect("below the prefix")).expect("writable");
        fs::write(path, content).expect("writable");
    }
}

#[test]
fn every_sample_passes_the_test() {
    let samples = samples();
    assert!(!samples.is_empty(), "there are samples");
    for sample in samples {
        let text = fs::read_to_string(&sample).expect("UTF-8");
        let mut site = Site::new();
        let pki = Pki::new(&["localhost"]);
        prepare(&site, &pki, &text);
        let mut moved = text;
        for (folder, own) in [("/var/log/ringwall", "log"), ("/run/ringwall", "run")] {
            let own = site.file(own);
            fs::create_dir(&own).expect("a fresh directory");
            moved = moved.replace(folder, own.to_str().expect("UTF-8"));
        }
        fs::write(site.file("sample.conf"), moved).expect("writable");
        let outcome = site.command(&["-t", "-p", "@DIR@", "-c", "@DIR@/sample.conf"]);
        assert!(outcome.ok(), "{}: {outcome:?}", sample.display());
        assert!(
            outcome.stderr.contains("test is successful"),
            "{}: {outcome:?}",
            sample.display()
        );
    }
}
