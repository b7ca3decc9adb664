//! Staples against OpenSSL's responder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::config::{PemSource, Position};

/// A CA with a server's certificate, a delegated responder, somebody without
/// that right, and a revoked certificate.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let it = Self(tempfile::tempdir().expect("a directory"));
        it.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=CA");
        it.write(
            "server.ext",
            "authorityInfoAccess=caIssuers;URI:http://x/,OCSP;URI:http://127.0.0.1:1/o\n",
        );
        it.write("responder.ext", "extendedKeyUsage=OCSPSigning\n");
        it.write("client.ext", "extendedKeyUsage=clientAuth\n");
        let mut index = String::new();
        for (serial, name) in ["server", "revoked", "responder", "client"]
            .iter()
            .enumerate()
        {
            it.openssl(&format!(
                "req -new -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ));
            let number = format!("{:02X}", serial + 1);
            let extensions = if *name == "revoked" { "server" } else { name };
            it.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -set_serial 0x{number} \
                 -days 30 -extfile {extensions}.ext -out {name}.crt"
            ));
            let (state, when) = if *name == "revoked" {
                ("R", "250101000000Z")
            } else {
                ("V", "")
            };
            index += &format!("{state}\t400101000000Z\t{when}\t{number}\tunknown\t/CN={name}\n");
        }
        it.write("index.txt", &index);
        it
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("written");
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.path())
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{arguments}: {output:?}");
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        use rustls::pki_types::pem::PemObject;
        CertificateDer::from_pem_file(self.path().join(name)).expect("a certificate")
    }

    /// The key does not matter to what is said of the certificate.
    fn certified(&self, name: &str) -> CertifiedKey {
        let source = |name: &str| Located {
            value: PemSource::File(self.path().join(name)),
            position: Position {
                file: "nginx.conf".into(),
                line: 1,
            },
        };
        let (certificate, key) = (
            source(&format!("{name}.crt")),
            source(&format!("{name}.key")),
        );
        let made = Loader::new().certified_key(&certificate, Some(&key), None);
        CertifiedKey::clone(&made.expect("loaded").0)
    }

    fn staple(&self, name: &str, verify: bool) -> Arc<Staple> {
        let key = self.certified(name);
        let subject = Subject::of(&key, self.certificate("ca.crt"), "s.crt").expect("parsed");
        let responder = Responder::parse("http://127.0.0.1:1/o").expect("a URL");
        Staples::default().get(subject, responder, verify)
    }

    /// The answer to what a staple asks, as this signer gives it.
    fn answer(&self, staple: &Staple, signer: &str, more: &str) -> Vec<u8> {
        let request = staple.request();
        let encoded = request.strip_prefix("/o/").expect("the responder's path");
        let text = encoded
            .replace("%2B", "+")
            .replace("%2F", "/")
            .replace("%3D", "=");
        self.write("request.b64", &text);
        self.openssl("base64 -d -A -in request.b64 -out request.der");
        self.openssl(&format!(
            "ocsp -index index.txt -CA ca.crt -rsigner {signer}.crt -rkey {signer}.key \
             -reqin request.der -respout response.der {more}"
        ));
        fs::read(self.path().join("response.der")).expect("a response")
    }
}

fn later(seconds: u64) -> UnixTime {
    let now = UnixTime::now().as_secs();
    UnixTime::since_unix_epoch(Duration::from_secs(now + seconds))
}

#[test]
fn an_answer_of_the_issuer_or_its_delegate_is_shown_until_it_ends() {
    let ca = Authority::new();
    for verify in [false, true] {
        for signer in ["ca", "responder"] {
            let staple = ca.staple("server", verify);
            let shown = Shown::new(Arc::new(ca.certified("server")), Some(Arc::clone(&staple)));
            assert_eq!(shown.current().ocsp, None);
            for more in ["-nmin 60", "-nmin 60 -resp_key_id", "-ndays 2 -rmd sha384"] {
                let answer = ca.answer(&staple, signer, more);
                staple.take(answer.clone(), later(0)).expect(more);
                assert_eq!(shown.current().ocsp, Some(answer));
                assert!(Arc::ptr_eq(&shown.current(), &shown.current()));
            }
        }
    }
    let staple = ca.staple("server", true);
    let shown = Shown::new(Arc::new(ca.certified("server")), Some(Arc::clone(&staple)));
    let answer = ca.answer(&staple, "ca", "-nmin 60");
    // Nobody else's clock is exact: what ended just now is still believed, but
    // not shown any more.
    staple
        .take(answer, later(3600 + 200))
        .expect("within the tolerance");
    let good = staple.current.load_full().expect("taken");
    let expired = Good {
        der: good.der.clone(),
        valid_until: seconds(later(0)) - 1,
    };
    staple.current.store(Some(Arc::new(expired)));
    assert_eq!(shown.current().ocsp, None);
}

#[test]
fn an_answer_of_somebody_else_is_refused() {
    let ca = Authority::new();
    let staple = ca.staple("server", true);
    let refused = |answer: Vec<u8>| staple.take(answer, later(0)).expect_err("refused");
    let unsigned = "nobody who may has signed the OCSP response";
    // Of the CA, but not for this; and of nobody.
    assert_eq!(refused(ca.answer(&staple, "client", "-nmin 60")), unsigned);
    let stranger = Authority::new();
    assert_eq!(
        refused(stranger.answer(&staple, "responder", "-nmin 60")),
        unsigned
    );
    assert_eq!(
        refused(stranger.answer(&staple, "ca", "-nmin 60")),
        unsigned
    );
    // As in Nginx a signature must fit, but nobody asks whose it is.
    let lax = ca.staple("server", false);
    assert!(
        lax.take(ca.answer(&lax, "client", "-nmin 60"), later(0))
            .is_ok()
    );
    let mut forged = ca.answer(&lax, "responder", "-nmin 60 -resp_no_certs");
    assert_eq!(
        lax.take(forged.clone(), later(0)).expect_err("no signer"),
        unsigned
    );
    forged = ca.answer(&lax, "ca", "-nmin 60 -resp_no_certs");
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(lax.take(forged, later(0)).expect_err("forged"), unsigned);
}

#[test]
fn an_answer_about_another_certificate_or_time_or_a_bad_one_is_refused() {
    let ca = Authority::new();
    let (server, revoked) = (ca.staple("server", true), ca.staple("revoked", true));
    let said = |answer: &[u8], now| server.take(answer.to_vec(), now).expect_err("refused");
    let other = ca.answer(&revoked, "ca", "-nmin 60");
    assert_eq!(
        said(&other, later(0)),
        "certificate status not found in the OCSP response"
    );
    let error = revoked.take(other, later(0)).expect_err("revoked");
    assert_eq!(error, "certificate status \"revoked\" in the OCSP response");
    ca.write("index.txt", "");
    let unknown = ca.answer(&server, "ca", "-nmin 60");
    assert_eq!(
        said(&unknown, later(0)),
        "certificate status \"unknown\" in the OCSP response"
    );
    let fresh = Authority::new();
    let server = fresh.staple("server", true);
    let answer = fresh.answer(&server, "ca", "-nmin 60");
    let error = server.take(answer, later(3600 + 400)).expect_err("expired");
    assert_eq!(error, "the OCSP response has expired");
    for (status, name) in [
        (1, "malformedrequest"),
        (3, "trylater"),
        (6, "unauthorized"),
    ] {
        let error = server
            .take(vec![0x30, 3, 0x0a, 1, status], later(0))
            .expect_err("refused");
        assert_eq!(
            error,
            format!("OCSP response not successful ({status}: {name})")
        );
    }
}

#[test]
fn a_damaged_answer_is_refused_without_a_panic() {
    let ca = Authority::new();
    let staple = ca.staple("server", false);
    let good = ca.answer(&staple, "ca", "-nmin 60 -resp_no_certs");
    for length in 0..good.len() {
        assert!(
            staple.take(good[..length].to_vec(), later(0)).is_err(),
            "{length}"
        );
    }
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 0x21;
        assert!(staple.take(bad, later(0)).is_err(), "{place}");
    }
}

#[test]
fn the_next_request_is_within_the_hour_and_five_minutes_after_a_failure() {
    let ca = Authority::new();
    let staple = ca.staple("server", false);
    assert_eq!(staple.due(), 0);
    for (more, least, most) in [
        ("-nmin 60", 3200, 3300),
        ("-ndays 7", 3600, 3600),
        ("-nmin 2", 300, 300),
        ("", 3600, 3600),
    ] {
        // The answer first: its times are those of when it was made.
        let answer = ca.answer(&staple, "ca", more);
        let now = later(0);
        staple.take(answer, now).expect("good");
        let wait = staple.due() - seconds(now);
        assert!((least..=most).contains(&wait), "{more}: {wait}");
    }
    let now = later(0);
    assert!(staple.failed("refused", now));
    assert_eq!(staple.due() - seconds(now), 300);
    assert!(!staple.failed("refused", now), "said once");
    assert!(staple.failed("timed out", now));
    staple
        .take(ca.answer(&staple, "ca", "-nmin 60"), now)
        .expect("good");
    assert!(staple.failed("timed out", now), "news again");
}

#[test]
fn a_staple_outlives_a_reload_and_goes_with_its_last_user() {
    let ca = Authority::new();
    let staples = Staples::default();
    let key = ca.certified("server");
    let responder = Responder::parse("http://127.0.0.1:1/o").expect("a URL");
    let get = |verify| {
        let subject = Subject::of(&key, ca.certificate("ca.crt"), "s.crt").expect("parsed");
        staples.get(subject, responder.clone(), verify)
    };
    let first = get(false);
    assert!(Arc::ptr_eq(&first, &get(false)));
    assert!(!Arc::ptr_eq(&first, &get(true)), "judged by other rules");
    assert_eq!(staples.live().len(), 1);
    drop(first);
    assert!(staples.live().is_empty());
    assert_eq!(responder_of(&key).as_deref(), Some("http://127.0.0.1:1/o"));
    assert_eq!(responder_of(&ca.certified("ca")), None);
}
