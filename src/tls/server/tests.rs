//! Whole handshakes in memory, over TLS 1.2 and 1.3, against rustls' client.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind,
    ProtocolVersion, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};

use super::*;
use crate::config::{CrlExpired, Located, PemSource, Position, VerifyClient, VerifyFailure};
use crate::tls::client_auth::tests::{Ca, Holder, by_the_guide, ca, leaf, leaf_with, openssl, pem};
use crate::tls::client_auth::{RefusalReason, refusal_behind};

/// A directory with a server's certificate, and the directives that name it.
struct Site {
    dir: tempfile::TempDir,
    tls: Tls,
}

fn at<T>(value: T) -> Located<T> {
    let file = "nginx.conf".into();
    let position = Position { file, line: 3 };
    Located { value, position }
}

fn write(dir: &Path, name: &str, tag: &str, der: &[u8]) -> Located<PemSource> {
    // `openssl` would do, but a thousand handshakes need no process each.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, &byte| word << 8 | u32::from(byte));
        let word = word << (8 * (3 - chunk.len()));
        for position in 0..4 {
            if position <= chunk.len() {
                let index = word >> (18 - 6 * position) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
        if text.len() % 65 == 64 {
            text.push('\n');
        }
    }
    let path = dir.join(name);
    let pem = format!("-----BEGIN {tag}-----\n{text}\n-----END {tag}-----\n");
    std::fs::write(&path, pem).expect("written");
    at(path.into())
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = leaf("server", &ca("server root"));
        let certificate = write(dir.path(), "s.crt", "CERTIFICATE", &server.der);
        let key = write(dir.path(), "s.key", "PRIVATE KEY", server.key.secret_der());
        let tls = Tls {
            named: Vec::new(),
            certificates: vec![(certificate, Some(key))],
            password_file: None,
            stapling: None,
            client_certificate: None,
            trusted_certificate: None,
            verify_client: at(VerifyClient::Off),
            verify_depth: 1,
            crl: None,
            crl_expired: CrlExpired::Deny,
            verify_failure: VerifyFailure::Alert,
            protocols: TlsVersions {
                tls12: true,
                tls13: true,
            },
            ciphers: at("HIGH:!aNULL:!MD5".to_owned()),
            ciphersuites: None,
            ecdh_curve: None,
            prefer_server_ciphers: false,
            session_tickets: true,
            session_cache: SessionCache::Shared("SSL".into(), 1 << 20),
            session_timeout: Duration::from_secs(600),
            session_ticket_keys: Vec::new(),
            reject_handshake: false,
        };
        Self { dir, tls }
    }

    fn verifying(mode: VerifyClient, root: &Ca) -> Self {
        let mut site = Self::new();
        site.demand(mode, root);
        site
    }

    fn demand(&mut self, mode: VerifyClient, root: &Ca) {
        let file = write(self.dir.path(), "ca.crt", "CERTIFICATE", root.der());
        self.tls.client_certificate = Some(file);
        self.tls.verify_client = at(mode);
    }

    fn build(&self, shared: &Shared) -> TlsHost {
        build(&self.tls, shared, &mut Loader::new()).expect("built")
    }

    fn refused(&self) -> TlsError {
        let shared = Shared::new().expect("randomness");
        build(&self.tls, &shared, &mut Loader::new()).expect_err("refused")
    }
}

/// Server certificates are not what these tests are about.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn client(
    version: &'static SupportedProtocolVersion,
    holder: Option<&Holder>,
) -> Arc<ClientConfig> {
    client_with(provider::default_provider(), version, holder)
}

fn client_with(
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
    holder: Option<&Holder>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    Arc::new(match holder {
        None => builder.with_no_client_auth(),
        Some(holder) => {
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&holder.key);
            let key = CertifiedKey::new(vec![holder.der.clone()], key.expect("a key"));
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    })
}

#[derive(Debug)]
struct Done {
    kind: HandshakeKind,
    version: ProtocolVersion,
    suite: &'static str,
    chain: Option<Vec<CertificateDer<'static>>>,
}

impl Done {
    fn resumed(&self) -> bool {
        self.kind == HandshakeKind::Resumed
    }
}

/// The server's error, and what its client heard.
#[derive(Debug)]
struct Failed {
    error: rustls::Error,
    heard: Option<rustls::Error>,
}

fn connect(host: &TlsHost, client: &Arc<ClientConfig>) -> Result<Done, Box<Failed>> {
    let mut server = ServerConnection::new(Arc::clone(&host.config)).expect("a connection");
    let name = ServerName::try_from("a.example").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a connection");
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a vector takes it");
        }
        let mut unread = &wire[..];
        while !unread.is_empty() {
            server.read_tls(&mut unread).expect("read");
            if let Err(error) = server.process_new_packets() {
                let mut wire = Vec::new();
                server.write_tls(&mut wire).expect("a vector takes it");
                client.read_tls(&mut &wire[..]).expect("read");
                let heard = client.process_new_packets().err();
                return Err(Box::new(Failed { error, heard }));
            }
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("a vector takes it");
        }
        let mut unread = &wire[..];
        while !unread.is_empty() {
            client.read_tls(&mut unread).expect("read");
            client.process_new_packets().expect("a sound server");
        }
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok(Done {
        kind: server.handshake_kind().expect("done"),
        version: server.protocol_version().expect("done"),
        suite: ciphers::openssl_name(server.negotiated_cipher_suite().expect("done").suite()),
        chain: server.peer_certificates().map(<[_]>::to_vec),
    })
}

fn shared() -> Shared {
    Shared::new().expect("randomness")
}

#[test]
fn a_client_with_a_good_certificate_is_admitted_over_both_versions() {
    let root = ca("root");
    let holder = leaf("client", &root);
    let host = Site::verifying(VerifyClient::On, &root).build(&shared());
    for version in BOTH {
        let done = connect(&host, &client(version, Some(&holder))).expect("a handshake");
        assert_eq!(done.version, version.version);
        let admitted = host
            .client_auth
            .admit(done.chain.as_deref(), done.resumed(), UnixTime::now())
            .expect("good")
            .expect("there");
        let subject = admitted.identity().and_then(|id| id.subject.clone());
        assert_eq!(subject.as_deref(), Some("CN=client"));
    }
}

#[test]
fn a_v1_client_by_the_guide_is_admitted_over_both_versions() {
    for algorithm in [
        "-algorithm RSA",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    ] {
        let mut site = Site::new();
        by_the_guide(site.dir.path(), algorithm);
        let path = |name: &str| site.dir.path().join(name);
        let key = std::fs::read(path("client.key")).expect("read");
        let key = rustls_pemfile::private_key(&mut &key[..]).expect("PEM");
        let holder = Holder {
            der: pem(&path("client.crt")),
            key: key.expect("one"),
        };
        site.tls.client_certificate = Some(at(path("ca.crt").into()));
        site.tls.verify_client = at(VerifyClient::On);
        let host = site.build(&shared());
        for version in BOTH {
            let config = client(version, Some(&holder));
            let done = connect(&host, &config).expect("a handshake");
            assert_eq!(done.chain, Some(vec![holder.der.clone()]));
            let again = connect(&host, &config).expect("a handshake");
            assert!(again.resumed());
            let chain = again.chain.as_deref();
            let admitted = host.client_auth.admit(chain, true, UnixTime::now());
            assert!(admitted.expect("still good").is_some());
        }
        // With another's key it proves nothing.
        let thief = Holder {
            der: holder.der.clone(),
            key: leaf("thief", &ca("x")).key,
        };
        for version in BOTH {
            let Err(failed) = connect(&host, &client(version, Some(&thief))) else {
                panic!("the thief got in over {version:?}");
            };
            let refusal = refusal_behind(&failed.error).expect("a refusal");
            assert_eq!(refusal.reason, RefusalReason::BadHandshakeSignature);
            assert_eq!(refusal.subject.as_deref(), Some("CN=client.woorifisa.site"));
        }
    }
}

#[test]
fn each_refusal_sends_its_alert_and_says_who() {
    let root = ca("root");
    let host = Site::verifying(VerifyClient::On, &root).build(&shared());
    let expired = leaf_with("old", &root, |params| {
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let server_only = leaf_with("srv", &root, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let cases = [
        (leaf("x", &ca("other")), AlertDescription::UnknownCA, "CN=x"),
        (
            leaf("y", &ca("root")),
            AlertDescription::DecryptError,
            "CN=y",
        ),
        (expired, AlertDescription::CertificateExpired, "CN=old"),
        (
            server_only,
            AlertDescription::UnsupportedCertificate,
            "CN=srv",
        ),
    ];
    for version in BOTH {
        for (holder, alert, subject) in &cases {
            let failed = connect(&host, &client(version, Some(holder))).expect_err(subject);
            assert_eq!(failed.heard, Some(rustls::Error::AlertReceived(*alert)));
            let refusal = refusal_behind(&failed.error).expect("a refusal");
            assert_eq!(refusal.subject.as_deref(), Some(*subject));
        }
        let failed = connect(&host, &client(version, None)).expect_err("none");
        let refusal = refusal_behind(&failed.error).expect("a refusal");
        assert_eq!(refusal.reason, RefusalReason::NoCertificate);
    }
}

#[test]
fn an_optional_certificate_may_be_missing_but_not_bad() {
    let root = ca("root");
    let host = Site::verifying(VerifyClient::Optional, &root).build(&shared());
    for version in BOTH {
        let done = connect(&host, &client(version, None)).expect("a handshake");
        assert_eq!(done.chain, None);
        let bad = leaf("x", &ca("other"));
        assert!(connect(&host, &client(version, Some(&bad))).is_err());
    }
}

#[test]
fn a_session_resumes_by_ticket_and_by_store() {
    let root = ca("root");
    let holder = leaf("client", &root);
    for tickets in [true, false] {
        let mut site = Site::verifying(VerifyClient::On, &root);
        site.tls.session_tickets = tickets;
        let shared = shared();
        let (host, worker) = (site.build(&shared), site.build(&shared));
        for version in BOTH {
            let config = client(version, Some(&holder));
            assert!(!connect(&host, &config).expect("full").resumed());
            // Also after a reload that changed nothing.
            let done = connect(&worker, &config).expect("resumed");
            assert!(done.resumed(), "tickets {tickets}, {version:?}");
            assert_eq!(done.chain, Some(vec![holder.der.clone()]));
        }
    }
}

#[test]
fn without_tickets_and_store_nothing_resumes() {
    let mut site = Site::new();
    site.tls.session_tickets = false;
    site.tls.session_cache = SessionCache::None;
    let host = site.build(&shared());
    for version in BOTH {
        let config = client(version, None);
        for _ in 0..2 {
            assert!(!connect(&host, &config).expect("full").resumed());
        }
    }
}

#[test]
fn a_session_never_resumes_under_another_policy() {
    let root = ca("root");
    let holder = leaf("client", &root);
    for tickets in [true, false] {
        let mut site = Site::new();
        site.tls.session_tickets = tickets;
        let shared = shared();
        let open = site.build(&shared);
        site.demand(VerifyClient::Optional, &root);
        let optional = site.build(&shared);
        site.demand(VerifyClient::On, &root);
        let strict = site.build(&shared);
        site.tls.verify_depth = 2;
        let deeper = site.build(&shared);
        site.demand(VerifyClient::On, &ca("new root"));
        let renewed = site.build(&shared);
        let hosts = [&open, &optional, &strict, &deeper];
        for version in BOTH {
            for (number, from) in hosts.iter().enumerate() {
                for (other, to) in hosts.iter().enumerate() {
                    let config = client(version, Some(&holder));
                    connect(from, &config).expect("full");
                    let done = connect(to, &config).expect("full or resumed");
                    assert_eq!(done.resumed(), number == other, "{number} to {other}");
                }
                let config = client(version, Some(&holder));
                connect(from, &config).expect("full");
                assert!(connect(&renewed, &config).is_err(), "the CA is gone");
            }
            // The one that matters most: without any certificate.
            let nobody = client(version, None);
            connect(&open, &nobody).expect("full");
            assert!(connect(&strict, &nobody).is_err());
        }
    }
}

#[test]
fn a_resumed_session_does_not_outlive_its_certificate() {
    let root = ca("root");
    let holder = leaf("client", &root);
    let host = Site::verifying(VerifyClient::On, &root).build(&shared());
    for version in BOTH {
        let config = client(version, Some(&holder));
        connect(&host, &config).expect("full");
        let done = connect(&host, &config).expect("resumed");
        let later = UnixTime::since_unix_epoch(Duration::from_secs(4_000_000_000));
        let refusal = host
            .client_auth
            .admit(done.chain.as_deref(), done.resumed(), later)
            .expect_err("expired");
        assert_eq!(refusal.reason, RefusalReason::Expired);
    }
}

#[test]
fn ssl_ciphers_and_ssl_protocols_choose_what_is_spoken() {
    let mut site = Site::new();
    site.tls.ciphers = at("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256".into());
    let suite = |site: &Site, version| {
        connect(&site.build(&shared()), &client(version, None)).map(|done| done.suite)
    };
    // rustls' client puts AES first; the server's order counts when asked for.
    let spoken = suite(&site, &version::TLS12).expect("spoken");
    assert_eq!(spoken, "ECDHE-ECDSA-AES128-GCM-SHA256");
    site.tls.prefer_server_ciphers = true;
    let spoken = suite(&site, &version::TLS12).expect("spoken");
    assert_eq!(spoken, "ECDHE-ECDSA-CHACHA20-POLY1305");
    let spoken = suite(&site, &version::TLS13).expect("spoken");
    assert_eq!(spoken, "TLS_AES_256_GCM_SHA384");
    site.tls.protocols.tls12 = false;
    site.tls.ciphers = at("AES128-SHA".into());
    assert!(suite(&site, &version::TLS12).is_err());
    assert!(suite(&site, &version::TLS13).is_ok());
    site.tls.protocols = TlsVersions {
        tls12: true,
        tls13: false,
    };
    site.tls.ciphers = at("HIGH".into());
    assert!(suite(&site, &version::TLS12).is_ok());
    assert!(suite(&site, &version::TLS13).is_err());
}

#[test]
fn of_several_certificates_the_client_gets_one_it_can_use() {
    let mut site = Site::new();
    let dir = site.dir.path().to_owned();
    openssl(&dir, "genpkey -algorithm RSA -out r.key");
    openssl(&dir, "req -new -x509 -key r.key -out r.crt -subj /CN=rsa");
    let rsa = (
        at(dir.join("r.crt").into()),
        Some(at(dir.join("r.key").into())),
    );
    site.tls.certificates.insert(0, rsa);
    let host = site.build(&shared());
    assert_eq!(host.certificates.len(), 2);
    let speak = |suites: &[SupportedCipherSuite], version| {
        let provider = CryptoProvider {
            cipher_suites: suites.to_vec(),
            ..provider::default_provider()
        };
        connect(&host, &client_with(provider, version, None))
            .expect("spoken")
            .suite
    };
    use provider::cipher_suite as suites;
    let ecdsa = suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let rsa = suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    assert_eq!(
        speak(&[rsa], &version::TLS12),
        "ECDHE-RSA-AES128-GCM-SHA256"
    );
    assert_eq!(
        speak(&[ecdsa], &version::TLS12),
        "ECDHE-ECDSA-AES128-GCM-SHA256"
    );
    assert_eq!(
        speak(&[rsa, ecdsa], &version::TLS12),
        "ECDHE-ECDSA-AES128-GCM-SHA256"
    );
    let tls13 = suites::TLS13_AES_128_GCM_SHA256;
    assert_eq!(speak(&[tls13], &version::TLS13), "TLS_AES_128_GCM_SHA256");
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    let mut site = Site::new();
    site.tls.verify_client = at(VerifyClient::On);
    let error = site.refused();
    assert_eq!(
        error.to_string(),
        "no ssl_client_certificate for ssl_verify_client in nginx.conf:3"
    );
    let mut site = Site::new();
    site.tls.ciphers = at("RC4-MD5".into());
    let error = site.refused().message;
    assert!(
        error.starts_with("invalid ssl_ciphers \"RC4-MD5\": no cipher match"),
        "{error}"
    );
    let mut site = Site::new();
    site.tls.certificates.clear();
    assert_eq!(site.refused().message, "no \"ssl_certificate\" is defined");
    let mut site = Site::new();
    site.tls.trusted_certificate = Some(at(site.dir.path().join("none").into()));
    let error = site.refused().message;
    assert!(error.contains("cannot load CA certificate"), "{error}");
    assert!(error.ends_with("No such file or directory"), "{error}");
    let mut site = Site::new();
    let dir = site.dir.path().to_owned();
    by_the_guide(&dir, "-algorithm EC -pkeyopt ec_paramgen_curve:P-256");
    openssl(
        &dir,
        "x509 -req -in client.csr -signkey client.key -out v1.crt",
    );
    site.tls.client_certificate = Some(at(dir.join("v1.crt").into()));
    site.tls.verify_client = at(VerifyClient::Optional);
    let error = site.refused().message;
    assert!(
        error.contains("is not an X.509 version 3 certificate"),
        "{error}"
    );
}

#[test]
fn curves_and_tls13_suites_are_those_of_the_directives() {
    let mut site = Site::new();
    site.tls.ecdh_curve = Some(at("secp384r1:secp521r1".to_owned()));
    site.tls.ciphersuites = Some(at(
        "TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256".to_owned()
    ));
    let host = site.build(&shared());
    let provider = host.config.crypto_provider();
    let groups: Vec<_> = provider
        .kx_groups
        .iter()
        .map(|group| group.name())
        .collect();
    assert_eq!(groups, [rustls::NamedGroup::secp384r1]);
    let tls13 = provider
        .cipher_suites
        .iter()
        .filter(|suite| suite.tls13().is_some());
    let tls13: Vec<_> = tls13.map(SupportedCipherSuite::suite).collect();
    assert_eq!(tls13, [rustls::CipherSuite::TLS13_AES_128_GCM_SHA256]);
    assert_eq!(
        host.warnings[..2],
        [
            "\"TLS_AES_128_CCM_SHA256\" in \"ssl_conf_command Ciphersuites\" is not offered",
            "\"secp521r1\" in \"ssl_ecdh_curve\" is not offered",
        ]
    );
    for version in BOTH {
        assert!(connect(&host, &client(version, None)).is_ok());
    }
    for (curves, message) in [
        (
            "secp521r1",
            "invalid ssl_ecdh_curve \"secp521r1\": none of these is offered",
        ),
        (
            "X25519:nope",
            "invalid ssl_ecdh_curve \"X25519:nope\": unknown name \"nope\"",
        ),
        ("", "invalid ssl_ecdh_curve \"\": unknown name \"\""),
    ] {
        site.tls.ecdh_curve = Some(at(curves.to_owned()));
        assert_eq!(site.refused().message, message);
    }
}

#[test]
fn a_ca_only_in_ssl_trusted_certificate_is_trusted_and_not_named() {
    let root = ca("root");
    let holder = leaf("client", &root);
    let mut site = Site::verifying(VerifyClient::On, &root);
    let named = site.build(&shared());
    site.tls.trusted_certificate = site.tls.client_certificate.take();
    let silent = site.build(&shared());
    for version in BOTH {
        assert!(connect(&silent, &client(version, Some(&holder))).is_ok());
    }
    use rustls::server::danger::ClientCertVerifier;
    assert_eq!(named.client_auth.root_hint_subjects().len(), 1);
    assert_eq!(silent.client_auth.root_hint_subjects().len(), 0);
    assert_eq!(named.client_auth.digest(), silent.client_auth.digest());
}

#[test]
fn a_store_of_another_size_is_another_store() {
    let shared = shared();
    let first = shared.store("SSL", 1 << 20);
    assert!(Arc::ptr_eq(&first, &shared.store("SSL", 1 << 20)));
    assert!(!Arc::ptr_eq(&first, &shared.store("other", 1 << 20)));
    let second = shared.store("SSL", 2 << 20);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &shared.store("SSL", 2 << 20)));
}

#[test]
fn a_thousand_blocks_that_share_files_share_what_is_made_of_them() {
    let site = Site::verifying(VerifyClient::On, &ca("root"));
    let shared = shared();
    let mut loader = Loader::new();
    let hosts: Vec<TlsHost> = (0..1_000)
        .map(|_| build(&site.tls, &shared, &mut loader).expect("built"))
        .collect();
    let policies = hosts.iter().map(|host| Arc::as_ptr(&host.client_auth));
    assert_eq!(policies.collect::<std::collections::HashSet<_>>().len(), 1);
}

#[test]
fn a_private_key_is_not_shown_by_debug() {
    let site = Site::new();
    let host = site.build(&shared());
    let key = {
        let key = site.tls.certificates[0].1.as_ref();
        let file = key.expect("a key").value.file().expect("a file");
        std::fs::read_to_string(file).expect("read")
    };
    let line = key.lines().nth(1).expect("a line");
    let PrivateKeyDer::Pkcs8(der) = rustls_pemfile::private_key(&mut key.as_bytes())
        .expect("PEM")
        .expect("one")
    else {
        panic!("PKCS#8");
    };
    let shown = format!("{host:?}");
    assert!(!shown.contains(line));
    let bytes = format!("{:?}", der.secret_pkcs8_der());
    assert!(!shown.contains(&bytes[1..60]));
}
