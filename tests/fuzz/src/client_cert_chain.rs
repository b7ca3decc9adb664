//! A chain of certificates from a client, before anything vouches for it: the
//! verifier takes it for nothing but what the CA has signed, by webpki's own
//! search and by the list of all that this CA ever signed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ringwall::config::{LoadOptions, parse_and_build};
use ringwall::tls::certs::Loader;
use ringwall::tls::client_auth::ClientAuth;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::config_file::{MAIN, OneHost, OnlyFile};

/// Base64 of the CA's PEM. Its key signs by Ed25519, so that a signature has
/// one form, and is gone.
const CA: &str = include_str!("chains/ca.base64");
/// Signed by the CA.
const LEAF: &[u8] = include_bytes!("chains/leaf.der");
/// The same of version 1, where webpki has no opinion.
const VERSION_1: &[u8] = include_bytes!("chains/v1.der");
/// An intermediate, and a leaf below it.
const MIDDLE: &[u8] = include_bytes!("chains/middle.der");
const BELOW: &[u8] = include_bytes!("chains/below.der");

/// 2030, within the validity of all of them, seconds since 1970.
const NOW: u64 = 1_893_456_000;

/// Takes `bytes` for certificates, leaf first, each behind its length in two
/// bytes; the last may be cut short.
pub fn client_cert_chain(bytes: &[u8]) {
    let chain = certificates(bytes);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let judges = judges();
    for policy in &judges.policies {
        judge(policy, &*judges.webpki, &chain, now);
    }
}

fn judge(
    policy: &ClientAuth,
    webpki: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
) {
    let Some((leaf, presented)) = chain.split_first() else {
        let nobody = policy.admit(Some(chain), true, now);
        assert!(!matches!(nobody, Ok(Some(_))), "nobody was proven");
        return;
    };
    let at_the_handshake = policy.verify_client_cert(leaf, presented, now);
    match policy.admit(Some(chain), true, now) {
        Ok(Some(mut client)) => {
            assert!(at_the_handshake.is_ok(), "resumed, and not let in");
            assert_eq!(client.leaf(), leaf, "another's identity");
            let known = [LEAF, VERSION_1, BELOW];
            assert!(known.contains(&leaf.as_ref()), "nobody signed this");
            if leaf.as_ref() != VERSION_1 {
                let theirs = webpki.verify_client_cert(leaf, presented, now);
                assert!(theirs.is_ok(), "{theirs:?}");
            }
            assert!(client.identity().is_some_and(|id| id.subject.is_some()));
            assert!(client.details().is_some());
            policy.keep_chain(&mut client, presented, now);
            assert_eq!(policy.readmit(&client, now).err(), None, "twice judged");
            assert!(!client.has_expired(now));
        }
        Ok(None) => panic!("a certificate came, and was overlooked"),
        Err(refusal) => {
            // For a log and for a header.
            let text = refusal.to_string();
            assert!(text.chars().all(|one| !one.is_control()), "{text:?}");
            assert!(!is_good(chain), "{text}");
            if let Ok(unverified) = policy.tolerate(refusal, Some(chain)) {
                assert!(unverified.failure().is_some());
                let _ = unverified.claimed_identity();
            }
        }
    }
}

/// What must be let in: the CA's own, with what is needed right behind it.
fn is_good(chain: &[CertificateDer<'_>]) -> bool {
    let is = |at: usize, der: &[u8]| chain.get(at).is_some_and(|one| one.as_ref() == der);
    is(0, LEAF) || is(0, VERSION_1) || (is(0, BELOW) && is(1, MIDDLE))
}

fn certificates(bytes: &[u8]) -> Vec<CertificateDer<'_>> {
    let mut chain = Vec::new();
    let mut rest = bytes;
    while let Some((&length, tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(length)).min(tail.len());
        let (der, tail) = tail.split_at(length);
        chain.push(CertificateDer::from(der));
        rest = tail;
    }
    chain
}

struct Judges {
    policies: Vec<Arc<ClientAuth>>,
    webpki: Arc<dyn ClientCertVerifier>,
}

/// Made once.
fn judges() -> &'static Judges {
    static JUDGES: OnceLock<Judges> = OnceLock::new();
    JUDGES.get_or_init(|| Judges {
        policies: ["on", "optional_no_ca; ssl_verify_failure http"]
            .map(policy)
            .into(),
        webpki: webpki(),
    })
}

fn policy(mode: &str) -> Arc<ClientAuth> {
    let text = format!(
        "events {{}} http {{ server {{ listen 443 ssl; ssl_reject_handshake on;\n\
         ssl_client_certificate data:{}; ssl_verify_client {mode}; }} }}",
        CA.trim()
    );
    let options = LoadOptions::new(MAIN, "/");
    let config = parse_and_build(&OnlyFile(text.as_bytes()), &OneHost, &options);
    let config = config.expect("a configuration");
    let tls = config.servers[0].tls.as_ref().expect("a TLS server");
    let algorithms = default_provider().signature_verification_algorithms;
    ClientAuth::load(tls, algorithms, &mut Loader::new()).expect("a policy")
}

/// Without the depth, which ours keeps to besides.
fn webpki() -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(root()).expect("a root");
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .expect("one root")
}

fn root() -> CertificateDer<'static> {
    CertificateDer::from(include_bytes!("chains/ca.der").as_slice())
}
