//! From the `ssl_*` directives of a server block to what rustls needs to
//! answer its clients.
//!
//! The virtual host is chosen by SNI before rustls sees the ClientHello, so
//! each server block has a `ServerConfig` of its own: certificate, versions,
//! suites and client policy are all its own. What blocks have in common is
//! shared through the [`Loader`] of the build, so a thousand of them cost
//! little more than one.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::{self as provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{
    ServerConfig, SignatureAlgorithm, SupportedCipherSuite, SupportedProtocolVersion, version,
};

use super::certs::{CertificateInfo, Loader, TlsError};
use super::ciphers::{self, CipherError};
use super::client_auth::servers::{ServerAuth, ServerPolicyKey};
use super::client_auth::{ClientAuth, PolicyKey};
use super::identity::details::AlternativeNames;
use super::resumption::{NoRandomness, Scope, ScopedStore, SessionStore, TicketKeys, Ticketer};
use super::session;
use super::stapling::{self, Staples};
use super::upstream::{Links, UpstreamTls};
use crate::config::{
    Located, NamedCertificate, PemSource, Position, SessionCache, Tls, TlsVersions,
};

/// A server block, ready to answer handshakes.
#[derive(Debug)]
pub struct TlsHost {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    /// The same where HTTP/2 is offered too.
    pub http2: Arc<ServerConfig>,
    /// Judges clients at resumption and makes the proof of their identity.
    pub client_auth: Arc<ClientAuth>,
    /// The URIs that every certificate of the block names: who this server is
    /// to a mesh, whichever of them a client was shown.
    pub uris: Arc<[Box<str>]>,
    /// One per `ssl_certificate`.
    pub certificates: Vec<CertificateInfo>,
    /// In their place: what variables name at each handshake.
    pub named: Vec<NamedCertificate>,
    /// `ssl_password_file`.
    password_file: Option<Located<PathBuf>>,
    protocols: TlsVersions,
    /// `ssl_reject_handshake`: nobody is answered.
    pub rejects: bool,
    /// For the operator. A file's warning is given with the first block that
    /// uses it.
    pub warnings: Vec<String>,
}

/// What outlives a reload: without it every reload would throw away every
/// session.
#[derive(Debug)]
pub struct Shared {
    keys: Arc<TicketKeys>,
    staples: Arc<Staples>,
    links: Arc<Links>,
    /// By name.
    stores: Mutex<HashMap<Box<str>, NamedStore>>,
}

/// A store with its size in bytes. Weak, so that a cache that no configuration
/// names any more goes with the last that did.
type NamedStore = (usize, Weak<SessionStore>);

impl Shared {
    /// Fresh ticket keys and no stores.
    ///
    /// # Errors
    ///
    /// The system's random number generator fails.
    pub fn new() -> Result<Self, TlsError> {
        let keys = TicketKeys::new().map_err(|NoRandomness| TlsError {
            message: "cannot make session ticket keys: the system gives no randomness".into(),
            position: None,
        })?;
        Ok(Self {
            keys: Arc::new(keys),
            staples: Arc::default(),
            links: Arc::default(),
            stores: Mutex::default(),
        })
    }

    /// Whose status is to be asked for.
    #[must_use]
    pub fn staples(&self) -> &Arc<Staples> {
        &self.staples
    }

    /// What connections to upstreams go on under.
    #[must_use]
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// The named store; a new one if there is none of this size.
    fn store(&self, name: &str, size: usize) -> Arc<SessionStore> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, store)) = stores.get(name)
            && *known == size
            && let Some(store) = store.upgrade()
        {
            return store;
        }
        let store = Arc::new(SessionStore::new(size));
        stores.insert(name.into(), (size, Arc::downgrade(&store)));
        store
    }
}

/// What is built once and used by many blocks; part of a [`Loader`].
#[derive(Default)]
pub(super) struct Built {
    pub(super) policies: HashMap<PolicyKey, Arc<ClientAuth>>,
    /// Policies on upstreams.
    pub(super) servers: HashMap<ServerPolicyKey, Arc<ServerAuth>>,
    /// Upstreams' settings by what decides about their connections.
    pub(super) upstreams: HashMap<[u8; 32], Arc<UpstreamTls>>,
    providers: HashMap<ProviderKey, Arc<CryptoProvider>>,
}

/// `ssl_ciphers`, `ssl_protocols`, `Ciphersuites` and `ssl_ecdh_curve`.
type ProviderKey = (String, TlsVersions, Option<String>, Option<String>);

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").finish_non_exhaustive()
    }
}

/// NewSessionTickets after a full TLS 1.3 handshake, as many as OpenSSL sends:
/// browsers use a ticket once and open connections in parallel.
const TICKETS: usize = 2;

/// Builds one server block.
///
/// # Errors
///
/// A file or a directive's value cannot be used; the position is that of the
/// directive.
pub fn build(tls: &Tls, shared: &Shared, loader: &mut Loader) -> Result<TlsHost, TlsError> {
    let position = &tls.ciphers.position;
    let suites = Suites {
        prefix: "",
        ciphers: &tls.ciphers,
        protocols: tls.protocols,
        ciphersuites: tls.ciphersuites.as_ref(),
        ecdh_curve: tls.ecdh_curve.as_ref(),
    };
    let provider = crypto_provider(&suites, loader)?;
    let mut keys = Vec::with_capacity(tls.certificates.len());
    let mut shown = Vec::with_capacity(tls.certificates.len());
    let mut certificates = Vec::with_capacity(tls.certificates.len());
    for (certificate, key) in &tls.certificates {
        let passphrases = tls.password_file.as_ref();
        let (key, info) = loader.certified_key(certificate, key.as_ref(), passphrases)?;
        let staple = match &tls.stapling {
            Some(stapling) => stapling::build(tls, stapling, &key, &info, &shared.staples, loader)?,
            None => None,
        };
        keys.push(key.clone());
        shown.push(stapling::Shown::new(key, staple));
        certificates.push(info);
    }
    if keys.is_empty() && tls.named.is_empty() && !tls.reject_handshake {
        let at = &tls.verify_client.position;
        return Err(TlsError::at(at, "no \"ssl_certificate\" is defined"));
    }
    let algorithms = provider.signature_verification_algorithms;
    let client_auth = ClientAuth::load(tls, algorithms, loader)?;
    let scope = scope_of(&client_auth, &keys);
    let uris = own_uris(&keys);

    let verifier = Arc::clone(&client_auth);
    let resolver = Arc::new(Certificates::new(shown, &provider, tls.protocols));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(tls.protocols))
        .map_err(|error| TlsError::at(position, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);

    config.ignore_client_order = tls.prefer_server_ciphers;
    // Nginx's list, less HTTP/0.9, which is not spoken here.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    // The record layer after the handshake is not rustls'.
    session::prepare(&mut config);
    // Early data can be replayed, and comes before the client is verified.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    // Compressed certificates are decompression work that an unauthenticated
    // peer chooses.
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();

    config.session_storage = session_storage(tls, shared, scope);
    config.send_tls13_tickets = TICKETS;
    // Read also where tickets are off, as in Nginx: a bad file is an error.
    let ticket_keys = tls
        .session_ticket_keys
        .iter()
        .map(|file| loader.ticket_key(file))
        .collect::<Result<Vec<_>, _>>()?;
    if tls.session_tickets {
        let ticketer = if ticket_keys.is_empty() {
            Ticketer::new(Arc::clone(&shared.keys), scope, tls.session_timeout)
        } else {
            Ticketer::new(ticket_keys, scope, tls.session_timeout)
        };
        config.ticketer = Arc::new(ticketer);
    }

    let mut http2 = config.clone();
    http2.alpn_protocols.insert(0, b"h2".to_vec());

    Ok(TlsHost {
        config: Arc::new(config),
        http2: Arc::new(http2),
        client_auth,
        uris,
        certificates,
        named: tls.named.clone(),
        password_file: tls.password_file.clone(),
        protocols: tls.protocols,
        rejects: tls.reject_handshake,
        warnings: loader.take_warnings(),
    })
}

/// What a client is shown under certificates that its handshake has named.
#[derive(Debug)]
pub struct Shown {
    /// For rustls.
    pub config: Arc<ServerConfig>,
    /// The same where HTTP/2 is offered too.
    pub http2: Arc<ServerConfig>,
}

impl TlsHost {
    /// The block's settings with these certificates, each with its key if that
    /// is not in it. Nothing else of the block changes: client policy, versions,
    /// suites and sessions are its own. It reads files, and so blocks.
    ///
    /// # Errors
    ///
    /// A certificate or its key cannot be read, or they do not belong together.
    pub fn with_certificates(
        &self,
        sources: Vec<(PemSource, Option<PemSource>)>,
    ) -> Result<Shown, TlsError> {
        let mut loader = Loader::new();
        let mut keys = Vec::new();
        for ((certificate, key), named) in sources.into_iter().zip(&self.named) {
            let (certificate, key) = named_at(certificate, key, &named.position)?;
            let passphrases = self.password_file.as_ref();
            let (key, _) = loader.certified_key(&certificate, key.as_ref(), passphrases)?;
            keys.push(stapling::Shown::new(key, None));
        }
        let provider = self.config.crypto_provider();
        let resolver = Arc::new(Certificates::new(keys, provider, self.protocols));
        let with_these = |config: &Arc<ServerConfig>| {
            let mut config = ServerConfig::clone(config);
            config.cert_resolver = Arc::<Certificates>::clone(&resolver);
            Arc::new(config)
        };
        Ok(Shown {
            config: with_these(&self.config),
            http2: with_these(&self.http2),
        })
    }
}

/// A certificate, and its key if that is not in it, as if the directive at
/// `position` had named them and not its variables.
///
/// # Errors
///
/// One of them is there and no regular file.
pub(super) fn named_at(
    certificate: PemSource,
    key: Option<PemSource>,
    position: &Position,
) -> Result<(Located<PemSource>, Option<Located<PemSource>>), TlsError> {
    for source in [Some(&certificate), key.as_ref()].into_iter().flatten() {
        only_regular(source, position)?;
    }
    let located = |value| Located {
        value,
        position: position.clone(),
    };
    Ok((located(certificate), key.map(located)))
}

/// Whoever has a say in the name of a file must not have a thread wait at a
/// pipe for ever.
fn only_regular(source: &PemSource, position: &Position) -> Result<(), TlsError> {
    match source.file() {
        Some(path) if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) => {
            let path = path.display();
            let message = format!("cannot load certificate \"{path}\": it is no regular file");
            Err(TlsError::at(position, message))
        }
        _ => Ok(()),
    }
}

/// As rustls wants them; which is preferred, it decides itself.
pub(super) fn versions(protocols: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    let (newer, older) = BOTH.split_at(1);
    match (protocols.tls12, protocols.tls13) {
        (true, true) => &BOTH,
        (_, true) => newer,
        _ => older,
    }
}

/// Beside tickets the store serves TLS 1.2 clients that know no tickets; with
/// tickets off it serves all. A timeout of zero stores nothing.
fn session_storage(tls: &Tls, shared: &Shared, scope: Scope) -> Arc<dyn StoresServerSessions> {
    match &tls.session_cache {
        SessionCache::Shared(name, size) if !tls.session_timeout.is_zero() => {
            let store = shared.store(name, *size);
            Arc::new(ScopedStore::new(store, scope, tls.session_timeout))
        }
        SessionCache::Shared(..) | SessionCache::None => Arc::new(NoServerSessionStorage {}),
    }
}

fn own_uris(keys: &[Arc<CertifiedKey>]) -> Arc<[Box<str>]> {
    let leaves = keys.iter().filter_map(|key| key.cert.first());
    let mut each = leaves.map(|leaf| AlternativeNames::of(leaf).uri);
    let mut common = each.next().unwrap_or_default().into_vec();
    each.for_each(|other| common.retain(|uri| other.contains(uri)));
    common.into()
}

/// What a session of this block is bound to: its policy and, as in Nginx's
/// session id context, its certificates. A block keeps its sessions across a
/// reload that changes neither.
fn scope_of(client_auth: &ClientAuth, keys: &[Arc<CertifiedKey>]) -> Scope {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"ringwall session scope 1\0");
    context.update(client_auth.digest());
    for leaf in keys.iter().filter_map(|key| key.cert.first()) {
        context.update(&(leaf.len() as u64).to_be_bytes());
        context.update(leaf);
    }
    let mut scope = [0; 32];
    scope.copy_from_slice(context.finish().as_ref());
    Scope(scope)
}

/// What chooses suites and groups.
pub(super) struct Suites<'a> {
    /// What stands before `ssl_` in the directives' names.
    pub(super) prefix: &'static str,
    pub(super) ciphers: &'a Located<String>,
    pub(super) protocols: TlsVersions,
    pub(super) ciphersuites: Option<&'a Located<String>>,
    pub(super) ecdh_curve: Option<&'a Located<String>>,
}

/// aws-lc-rs with the suites of `ssl_ciphers`; one for all blocks that say the
/// same.
pub(super) fn crypto_provider(
    tls: &Suites<'_>,
    loader: &mut Loader,
) -> Result<Arc<CryptoProvider>, TlsError> {
    let value = |given: Option<&Located<String>>| given.map(|given| given.value.clone());
    let key = (
        tls.ciphers.value.clone(),
        tls.protocols,
        value(tls.ciphersuites),
        value(tls.ecdh_curve),
    );
    if let Some(known) = loader.built.providers.get(&key) {
        return Ok(Arc::clone(known));
    }
    let tls12 = match ciphers::tls12(&tls.ciphers.value) {
        Ok(suites) => suites,
        // Without TLS 1.2 the string selects among nothing. OpenSSL would still
        // want a match, but among suites that do not exist here.
        Err(CipherError::NoMatch) if !tls.protocols.tls12 => Vec::new(),
        Err(error) => {
            let string = &tls.ciphers.value;
            let prefix = tls.prefix;
            let message = format!("invalid {prefix}ssl_ciphers \"{string}\": {error}");
            return Err(TlsError::at(&tls.ciphers.position, message));
        }
    };
    let tls13 = match tls.ciphersuites {
        Some(list) => {
            let what = format!("{}ssl_conf_command Ciphersuites", tls.prefix);
            listed(list, &what, ciphers::tls13_named, loader)?
        }
        None => ciphers::TLS13.to_vec(),
    };
    let kx_groups = match tls.ecdh_curve {
        Some(list) if list.value != "auto" => listed(list, "ssl_ecdh_curve", group_named, loader)?,
        _ => ALL_GROUPS.to_vec(),
    };
    let tls13 = tls13.into_iter().filter(|_| tls.protocols.tls13);
    let tls12 = tls12.into_iter().filter(|_| tls.protocols.tls12);
    let provider = Arc::new(CryptoProvider {
        cipher_suites: tls13.chain(tls12).collect(),
        kx_groups,
        ..provider::default_provider()
    });
    loader.built.providers.insert(key, Arc::clone(&provider));
    Ok(provider)
}

/// In the order of preference where nobody says otherwise.
static ALL_GROUPS: [&dyn SupportedKxGroup; 4] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
    kx_group::SECP384R1,
];

/// A group by OpenSSL's names, which it compares without case; `Some(None)` is
/// one that OpenSSL has and nobody is offered here.
fn group_named(name: &str) -> Option<Option<&'static dyn SupportedKxGroup>> {
    Some(match name.to_ascii_lowercase().as_str() {
        "x25519mlkem768" => Some(kx_group::X25519MLKEM768),
        "x25519" => Some(kx_group::X25519),
        "prime256v1" | "secp256r1" | "p-256" => Some(kx_group::SECP256R1),
        "secp384r1" | "p-384" => Some(kx_group::SECP384R1),
        "secp521r1" | "p-521" | "x448" | "secp256r1mlkem768" | "secp384r1mlkem1024" => None,
        _ => return None,
    })
}

/// The members of a list with colons, in its order; what is not offered here
/// is warned about, and something must be left.
fn listed<T>(
    list: &Located<String>,
    directive: &str,
    named: impl Fn(&str) -> Option<Option<T>>,
    loader: &mut Loader,
) -> Result<Vec<T>, TlsError> {
    let refuse = |reason: &str| {
        let message = format!("invalid {directive} \"{}\": {reason}", list.value);
        TlsError::at(&list.position, message)
    };
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for name in list.value.split(':') {
        match named(name) {
            None => return Err(refuse(&format!("unknown name \"{name}\""))),
            Some(_) if seen.contains(&name) => {}
            Some(None) => {
                loader.warn(format!("\"{name}\" in \"{directive}\" is not offered"));
            }
            Some(Some(one)) => found.push(one),
        }
        seen.push(name);
    }
    if found.is_empty() {
        return Err(refuse("none of these is offered"));
    }
    Ok(found)
}

/// The certificates of a block. Usually one; RSA beside ECDSA for old clients.
#[derive(Debug)]
struct Certificates {
    /// Elliptic curves first: a P-256 signature costs a fortieth of an RSA one,
    /// and a client that can verify either loses nothing.
    keys: Vec<stapling::Shown>,
    suites: Vec<SupportedCipherSuite>,
    tls13: bool,
}

impl Certificates {
    fn new(
        mut keys: Vec<stapling::Shown>,
        provider: &CryptoProvider,
        versions: TlsVersions,
    ) -> Self {
        keys.sort_by_key(|shown| shown.plain().key.algorithm() == SignatureAlgorithm::RSA);
        Self {
            keys,
            suites: provider.cipher_suites.clone(),
            tls13: versions.tls13,
        }
    }

    /// Whether the client offers a suite that this kind of key can serve. Any
    /// TLS 1.3 suite serves every key; which version will be spoken is not
    /// known here, but a client that offers those speaks it.
    fn has_suite(&self, key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
        let algorithm = key.key.algorithm();
        self.suites.iter().any(|suite| {
            hello.cipher_suites().contains(&suite.suite())
                && match suite {
                    SupportedCipherSuite::Tls13(_) => self.tls13,
                    SupportedCipherSuite::Tls12(_) => {
                        suite.usable_for_signature_algorithm(algorithm)
                    }
                }
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = &self.keys[..] {
            return Some(only.current());
        }
        let schemes = hello.signature_schemes();
        self.keys
            .iter()
            .find(|shown| {
                let key = shown.plain();
                key.key.choose_scheme(schemes).is_some() && self.has_suite(key, &hello)
            })
            .map(stapling::Shown::current)
    }
}

#[cfg(test)]
mod tests;
