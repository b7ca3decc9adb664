//! What TLS costs a server: handshakes, counting only the time spent in our
//! engine, and sealing bodies, beside rustls' own buffered writer.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringwall::config::LoadOptions;
use ringwall::tls::certs::Loader;
use ringwall::tls::client_auth::ClientAuth;
use ringwall::tls::record::{MAX_PLAINTEXT, Sealer};
use ringwall::tls::session::Handshake;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    RootCertStore, ServerConfig, ServerConnection,
};

const BODY: usize = 1 << 20;

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// The client's.
    leaf: CertificateDer<'static>,
}

/// P-256 throughout, X25519, a client certificate, TLS 1.3 preferred.
fn configs(resume: bool) -> Configs {
    configs_with(resume, false)
}

/// The same with clients judged by rustls' verifier or by ours, which
/// remembers signatures.
fn configs_with(resume: bool, ours: bool) -> Configs {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &issuer).unwrap().der().clone();
        let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        (vec![certificate], key)
    };
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let provider = Arc::new(provider);

    let verifier: Arc<dyn ClientCertVerifier> = if ours {
        policy(&ca.pem())
    } else {
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .unwrap()
    };
    let (chain, key) = leaf("server.example");
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::clone(&verifier))
        .with_single_cert(chain, key)
        .unwrap();
    ringwall::tls::session::prepare(&mut server);
    server.ticketer = aws_lc_rs::Ticketer::new().unwrap();

    let (chain, key) = leaf("client.example");
    let leaf = chain[0].clone();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    client.resumption = if resume {
        Resumption::in_memory_sessions(4)
    } else {
        Resumption::disabled()
    };
    Configs {
        server: Arc::new(server),
        client: Arc::new(client),
        verifier,
        leaf,
    }
}

/// `ssl_verify_client on` with this CA.
fn policy(ca: &str) -> Arc<ClientAuth> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conf");
    let text = format!(
        "events {{}} http {{ server {{ listen 127.0.0.1:443 ssl; ssl_reject_handshake on;\n\
         ssl_client_certificate \"data:{ca}\"; ssl_verify_client on; }} }}"
    );
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions::new(file, dir.path());
    let config = ringwall::config::load(&options).unwrap();
    let tls = config.servers[0].tls.as_ref().unwrap();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    ClientAuth::load(tls, algorithms, &mut Loader::new()).unwrap()
}

/// What a policy asks of a chain at a full handshake, at a resumption, and
/// after a reload with another CRL.
fn judging(c: &mut Criterion) {
    let mut group = c.benchmark_group("judge_chain");
    for (name, ours) in [("webpki", false), ("remembered", true)] {
        let configs = configs_with(false, ours);
        let leaf = configs.leaf.clone();
        let now = UnixTime::now();
        group.bench_function(name, |b| {
            b.iter(|| {
                configs
                    .verifier
                    .verify_client_cert(&leaf, &[], now)
                    .unwrap()
            });
        });
    }
    group.finish();
}

fn connection(configs: &Configs) -> ClientConnection {
    let name = ServerName::try_from("server.example").unwrap();
    ClientConnection::new(configs.client.clone(), name).unwrap()
}

/// One handshake. Returns the server's share of it, and whether it resumed.
fn handshake(configs: &Configs) -> (Duration, bool) {
    let mut client = connection(configs);
    let mut server = Handshake::new();
    let (mut incoming, mut out) = (Vec::new(), Vec::with_capacity(8192));
    let mut spent = Duration::ZERO;
    let established = loop {
        client.write_tls(&mut incoming).unwrap();
        let start = Instant::now();
        let progress = server
            .process(&mut incoming, &mut out, &mut |_| {
                Some(configs.server.clone())
            })
            .unwrap();
        spent += start.elapsed();
        incoming.drain(..progress.consumed);
        let mut rest = &out[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        out.clear();
        if let Some(established) = progress.done {
            break established;
        }
    };
    (spent, established.resumed)
}

fn handshakes(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake");
    for (name, resume, ours) in [
        ("full_p256_client_certificate", false, false),
        ("full_p256_client_certificate_remembered", false, true),
        ("resumed", true, false),
    ] {
        let configs = configs_with(resume, ours);
        handshake(&configs);
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        let (spent, resumed) = handshake(&configs);
                        assert_eq!(resumed, resume);
                        spent
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

fn sealing(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal_1_mib");
    group.throughput(Throughput::Bytes(BODY as u64));

    group.bench_function("in_place", |b| {
        let secrets = ConnectionTrafficSecrets::Aes256Gcm {
            key: [1; 32].into(),
            iv: [2; 12].into(),
        };
        let mut sealer = Sealer::new(ProtocolVersion::TLSv1_3, 0, &secrets).unwrap();
        let whole = sealer.header_len() + MAX_PLAINTEXT + sealer.trailer_len();
        let mut buf = vec![0; BODY / MAX_PLAINTEXT * whole];
        b.iter(|| {
            if sealer.key_is_worn() {
                sealer = Sealer::new(ProtocolVersion::TLSv1_3, 0, &secrets).unwrap();
            }
            for at in (0..buf.len()).step_by(whole) {
                let start = at + sealer.header_len();
                let plain = start..start + MAX_PLAINTEXT;
                let content = ContentType::ApplicationData;
                sealer.seal_in_place(&mut buf, plain, content).unwrap();
            }
            black_box(&mut buf);
        });
    });

    group.bench_function("rustls_buffered_writer", |b| {
        let configs = configs(false);
        let mut client = connection(&configs);
        let mut server = ServerConnection::new(configs.server.clone()).unwrap();
        server.set_buffer_limit(None);
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut rest = &wire[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        let body = vec![0; BODY];
        let mut wire = Vec::with_capacity(2 * BODY);
        b.iter(|| {
            wire.clear();
            server.writer().write_all(&body).unwrap();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            black_box(&mut wire);
        });
    });
    group.finish();
}

criterion_group!(benches, handshakes, judging, sealing);
criterion_main!(benches);
