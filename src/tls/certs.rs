//! Certificates and keys, from PEM and PKCS#12 files, from the configuration or from the
//! environment: read, matched, and warned about.
//!
//! Everything here happens on the main thread while a configuration is built.
//! A [`Loader`] lives for one such build and remembers every file by its path,
//! so that a thousand server blocks that share a certificate read it once, and
//! one build never sees two versions of a file that is being replaced.
//!
//! Whether key and certificate belong together is judged here, by comparing
//! public keys. rustls' own `keys_match` parses the certificate with webpki,
//! which refuses X.509 v1; and v1 is what plain `openssl x509 -req` of OpenSSL
//! 3.0 makes.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroize;

use super::client_auth::crl::{self, RevocationList};
use super::client_auth::revocation::CrlFile;
use super::client_auth::v1;
use super::identity;
use super::keys::{self, Passphrases, Secret, pkcs12};
use super::resumption::TicketKey;
use super::watch::Watch;
use crate::config::{Located, PemSource, Position};

/// Why a TLS configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// Without the position. Names files, never what is in a key.
    pub message: String,
    /// The directive that is to blame.
    pub position: Option<Position>,
}

impl TlsError {
    pub(super) fn at(position: &Position, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: Some(position.clone()),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.position {
            Some(position) => write!(f, "{} in {position}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for TlsError {}

/// What has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A certificate that peers are shown.
    Server,
    /// A certificate that is shown to backends.
    Client,
    /// A certificate that peers' are verified by.
    Authority,
    /// A list of revoked certificates: its subject is its issuer, its end the
    /// date by which the next one is due.
    RevocationList,
}

impl Kind {
    /// One word, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Authority => "ca",
            Self::RevocationList => "crl",
        }
    }
}

/// What is worth knowing of a certificate or a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// What it is.
    pub kind: Kind,
    /// Where it came from.
    pub path: PemSource,
    /// RFC 2253; empty where the name has no text.
    pub subject: String,
    /// Seconds since the epoch.
    pub not_after: i64,
}

impl CertificateInfo {
    fn of(kind: Kind, source: &PemSource, certificate: &X509Certificate<'_>) -> Self {
        Self {
            kind,
            path: source.clone(),
            subject: identity::rfc2253(certificate.subject()).unwrap_or_default(),
            not_after: certificate.validity().not_after.timestamp(),
        }
    }

    /// A line for the error log, if this certificate has ended or ends within
    /// so many days; a CRL within `WARN_CRL_DAYS` at the most.
    #[must_use]
    pub fn complaint(&self, now: UnixTime, days: i64) -> Option<String> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if self.not_after.saturating_sub(seconds) >= days.saturating_mul(DAY) {
            return None;
        }
        let (path, subject) = (self.path.display(), &self.subject);
        if self.kind == Kind::RevocationList {
            let problem = update_problem(Some(self.not_after), now)?;
            return Some(format!("CRL \"{path}\" of \"{subject}\" {problem}"));
        }
        let problem = validity_problem(i64::MIN, self.not_after, now)?;
        Some(format!("certificate \"{subject}\" in \"{path}\" {problem}"))
    }
}

/// Days before its end from which a certificate is warned about.
const WARN_DAYS: i64 = 30;
/// The largest file that is read, bytes. A bundle of every public CA takes a
/// quarter of a megabyte; `/dev/zero` takes all memory.
const MAX_FILE: u64 = 16 << 20;
/// The largest CRL file, bytes: some five million entries.
const MAX_CRL_FILE: u64 = 256 << 20;
/// Days before a CRL's nextUpdate from which it is warned about.
const WARN_CRL_DAYS: i64 = 7;
const DAY: i64 = 86_400;
/// Debian and its kin, Fedora and its kin, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads files for one build of a configuration, each once.
#[derive(Debug)]
pub struct Loader {
    now: UnixTime,
    chains: HashMap<PemSource, Arc<Chain>>,
    keys: HashMap<Opened, Arc<dyn SigningKey>>,
    stores: HashMap<Opened, Arc<Store>>,
    passphrases: HashMap<PathBuf, Arc<Passphrases>>,
    pairs: HashMap<Pair, (Arc<CertifiedKey>, CertificateInfo)>,
    authorities: HashMap<PemSource, Arc<[CertificateDer<'static>]>>,
    crls: HashMap<PathBuf, Arc<CrlFile>>,
    ticket_keys: HashMap<PathBuf, Arc<TicketKey>>,
    warnings: Vec<String>,
    watch: Watch,
    expiring: Vec<CertificateInfo>,
    /// What other modules of this folder build from files and share the same way.
    pub(super) built: super::server::Built,
}

/// What is sealed, and the file whose passphrases opened it; no file where it
/// was in the open.
type Opened = (PemSource, Option<PathBuf>);

/// Certificate, key unless a store holds both, and file of passphrases.
type Pair = (PemSource, Option<PemSource>, Option<PathBuf>);

/// The key that came with a chain.
type OwnKey = Arc<dyn SigningKey>;

/// What a PKCS#12 store comes to.
#[derive(Debug)]
struct Store {
    chain: Arc<Chain>,
    key: Arc<dyn SigningKey>,
}

/// A server certificate with its intermediates, leaf first.
#[derive(Debug)]
struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// Of the leaf, as x509-parser read it.
    public_key: PublicKey,
    info: CertificateInfo,
}

/// Algorithm and key bits. The algorithm's parameters are left out, because
/// some tools omit the NULL that others write for RSA.
#[derive(Debug, PartialEq, Eq)]
struct PublicKey {
    algorithm: Vec<u8>,
    bits: Vec<u8>,
}

impl From<&SubjectPublicKeyInfo<'_>> for PublicKey {
    fn from(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        Self {
            algorithm: spki.algorithm.algorithm.as_bytes().to_vec(),
            bits: spki.subject_public_key.data.to_vec(),
        }
    }
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader {
    /// Nothing read yet; "now" is the present.
    pub fn new() -> Self {
        Self::at(UnixTime::now())
    }

    fn at(now: UnixTime) -> Self {
        Self {
            now,
            chains: HashMap::new(),
            keys: HashMap::new(),
            stores: HashMap::new(),
            passphrases: HashMap::new(),
            pairs: HashMap::new(),
            authorities: HashMap::new(),
            crls: HashMap::new(),
            ticket_keys: HashMap::new(),
            warnings: Vec::new(),
            watch: Watch::default(),
            expiring: Vec::new(),
            built: super::server::Built::default(),
        }
    }

    /// [`Self::certified_key`] for a certificate that is shown to backends.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub(super) fn client_key(
        &mut self,
        certificate: &Located<PemSource>,
        key: Option<&Located<PemSource>>,
        passphrases: Option<&Located<PathBuf>>,
    ) -> Result<(Arc<CertifiedKey>, CertificateInfo), TlsError> {
        let known = self.expiring.len();
        let loaded = self.certified_key(certificate, key, passphrases)?;
        // One that is shown to clients too was read for them before.
        let read = self.expiring.iter_mut().skip(known);
        read.for_each(|info| info.kind = Kind::Client);
        Ok(loaded)
    }

    /// A certificate with its key; for servers, and for clients as a proxy is
    /// one. Without a key of its own the certificate must be a PKCS#12 store,
    /// which holds both. Passphrases open what is sealed; their file is read in
    /// any case, as in Nginx.
    ///
    /// # Errors
    ///
    /// A file cannot be read, understood or opened, or the two do not belong
    /// together.
    pub(super) fn certified_key(
        &mut self,
        certificate: &Located<PemSource>,
        key: Option<&Located<PemSource>>,
        passphrases: Option<&Located<PathBuf>>,
    ) -> Result<(Arc<CertifiedKey>, CertificateInfo), TlsError> {
        let pair = (
            certificate.value.clone(),
            key.map(|key| key.value.clone()),
            passphrases.map(|file| file.value.clone()),
        );
        if let Some(known) = self.pairs.get(&pair) {
            return Ok(known.clone());
        }
        let passphrases = passphrases.map(|file| self.passphrases(file)).transpose()?;
        let passphrases = passphrases.as_ref();
        let (chain, own_key) = self.chain(certificate, passphrases)?;
        let signing_key = match (key, own_key) {
            (Some(key), _) => self.key(key, passphrases)?,
            (None, Some(key)) => key,
            (None, None) => {
                let path = certificate.value.display();
                let message =
                    format!("no \"ssl_certificate_key\" is defined for certificate \"{path}\"");
                return Err(TlsError::at(&certificate.position, message));
            }
        };
        if public_key(&*signing_key).as_ref() != Some(&chain.public_key) {
            let key = key.unwrap_or(certificate);
            let message = format!(
                "certificate key \"{}\" does not match certificate \"{}\": key values mismatch",
                key.value.display(),
                certificate.value.display()
            );
            return Err(TlsError::at(&key.position, message));
        }
        // `new` checks nothing, which is why the check stands above.
        let certified = CertifiedKey::new(chain.certificates.clone(), signing_key);
        let known = (Arc::new(certified), chain.info.clone());
        self.pairs.insert(pair, known.clone());
        Ok(known)
    }

    /// The certificates of a CA file, at least one.
    ///
    /// # Errors
    ///
    /// The file cannot be read or understood, or is empty: an empty CA set
    /// would let nobody in, or be taken for none.
    pub(super) fn authorities(
        &mut self,
        file: &Located<PemSource>,
    ) -> Result<Arc<[CertificateDer<'static>]>, TlsError> {
        if let Some(known) = self.authorities.get(&file.value) {
            return Ok(Arc::clone(known));
        }
        let fail = |reason: &str| {
            let path = file.value.display();
            let message = format!("cannot load CA certificate \"{path}\": {reason}");
            TlsError::at(&file.position, message)
        };
        file.value
            .file()
            .into_iter()
            .for_each(|path| self.watch.add(path));
        let (bytes, _) = fetch(&file.value).map_err(|reason| fail(&reason))?;
        let certificates: Arc<[_]> = certificates(&bytes).map_err(|e| fail(&e))?.into();
        if certificates.is_empty() {
            return Err(fail("no certificate in it"));
        }
        for der in certificates.iter() {
            if let Ok((_, parsed)) = X509Certificate::from_der(der) {
                let info = CertificateInfo::of(Kind::Authority, &file.value, &parsed);
                if let Some(complaint) = info.complaint(self.now, WARN_DAYS) {
                    self.warn(format!("CA {complaint}"));
                }
                self.expiring.push(info);
            }
        }
        self.authorities
            .insert(file.value.clone(), Arc::clone(&certificates));
        Ok(certificates)
    }

    /// The platform's roots, from where OpenSSL looks for them: `SSL_CERT_FILE`,
    /// or the distribution's bundle. Not in the expiry warnings: nobody here
    /// can renew them.
    ///
    /// # Errors
    ///
    /// There is no bundle, or it cannot be understood.
    pub(super) fn system_authorities(
        &mut self,
        position: &Position,
    ) -> Result<Arc<[CertificateDer<'static>]>, TlsError> {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let path = named
            .or_else(|| {
                SYSTEM_BUNDLES
                    .iter()
                    .map(PathBuf::from)
                    .find(|p| p.is_file())
            })
            .ok_or_else(|| {
                let message = "no bundle of the platform's CA certificates is found \
                               (ca-certificates is not installed, SSL_CERT_FILE is not set)";
                TlsError::at(position, message)
            })?;
        let source = PemSource::File(path.clone());
        if let Some(known) = self.authorities.get(&source) {
            return Ok(Arc::clone(known));
        }
        let fail = |reason: &str| {
            let message = format!(
                "cannot load the platform's CA certificates \"{}\": {reason}",
                path.display()
            );
            TlsError::at(position, message)
        };
        self.watch.add(&path);
        let (bytes, _) = fetch(&source).map_err(|reason| fail(&reason))?;
        let mut found = certificates(&bytes).map_err(|reason| fail(&reason))?;
        // Bundles may still hold a root of version 1, which is none here.
        found.retain(|der| {
            X509Certificate::from_der(der).is_ok_and(|(_, parsed)| parsed.version().0 == 2)
        });
        if found.is_empty() {
            return Err(fail("no certificate in it"));
        }
        let found: Arc<[_]> = found.into();
        self.authorities.insert(source, Arc::clone(&found));
        Ok(found)
    }

    /// The lists of a CRL file, at least one: PEM, or DER one after another.
    ///
    /// # Errors
    ///
    /// The file cannot be read or understood, or is empty.
    pub(super) fn crls(&mut self, file: &Located<PathBuf>) -> Result<Arc<CrlFile>, TlsError> {
        if let Some(known) = self.crls.get(&file.value) {
            return Ok(Arc::clone(known));
        }
        let path = file.value.display();
        let fail = |reason: &str| {
            let message = format!("cannot load CRL \"{path}\": {reason}");
            TlsError::at(&file.position, message)
        };
        self.watch.add(&file.value);
        let (bytes, _) = read_up_to(&file.value, MAX_CRL_FILE).map_err(|e| fail(&os_reason(&e)))?;
        let found = crls(&bytes).map_err(|reason| fail(&reason))?;
        drop(bytes);
        let mut context = digest::Context::new(&digest::SHA256);
        let mut lists = Vec::with_capacity(found.len());
        for der in found {
            context.update(&(der.len() as u64).to_be_bytes());
            context.update(&der);
            let list = RevocationList::read(&der).map_err(fail)?;
            lists.push((Arc::new(list), Arc::new(der)));
        }
        if lists.is_empty() {
            return Err(fail("no CRL in it"));
        }
        for (list, _) in &lists {
            let Some(next_update) = list.next_update else {
                continue;
            };
            let info = CertificateInfo {
                kind: Kind::RevocationList,
                path: file.value.clone().into(),
                subject: list.issuer_name.clone(),
                not_after: next_update,
            };
            if let Some(complaint) = info.complaint(self.now, WARN_CRL_DAYS) {
                self.warn(complaint);
            }
            self.expiring.push(info);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        let crls = Arc::new(CrlFile { lists, digest });
        self.crls.insert(file.value.clone(), Arc::clone(&crls));
        Ok(crls)
    }

    /// The key in an `ssl_session_ticket_key` file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has another length than such files have.
    pub(super) fn ticket_key(
        &mut self,
        file: &Located<PathBuf>,
    ) -> Result<Arc<TicketKey>, TlsError> {
        if let Some(known) = self.ticket_keys.get(&file.value) {
            return Ok(Arc::clone(known));
        }
        let path = file.value.display();
        self.watch.add(&file.value);
        let (bytes, mode) = read(&file.value).map_err(|error| {
            let reason = os_reason(&error);
            let message = format!("cannot load session ticket key \"{path}\": {reason}");
            TlsError::at(&file.position, message)
        })?;
        let key = TicketKey::from_file(&bytes).ok_or_else(|| {
            TlsError::at(&file.position, format!("\"{path}\" must be 48 or 80 bytes"))
        })?;
        if mode & 0o007 != 0 {
            self.warn(format!(
                "session ticket key \"{path}\" is readable by others than owner and group \
                 (mode {:04o})",
                mode & 0o7777
            ));
        }
        let key = Arc::new(key);
        self.ticket_keys
            .insert(file.value.clone(), Arc::clone(&key));
        Ok(key)
    }

    /// The content of `ssl_stapling_file`.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn ocsp_response(&mut self, file: &Located<PathBuf>) -> Result<Secret, TlsError> {
        self.watch.add(&file.value);
        let (bytes, _) = read(&file.value).map_err(|error| {
            let (path, reason) = (file.value.display(), os_reason(&error));
            let message = format!("cannot load OCSP response \"{path}\": {reason}");
            TlsError::at(&file.position, message)
        })?;
        Ok(bytes)
    }

    /// When this build takes place.
    pub(super) fn now(&self) -> UnixTime {
        self.now
    }

    /// For the operator, at load; each is said once.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// The warnings since the last call.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The files that were read.
    pub fn take_watch(&mut self) -> Watch {
        std::mem::take(&mut self.watch)
    }

    /// The certificates and CRLs that were read.
    pub fn take_expiring(&mut self) -> Vec<CertificateInfo> {
        std::mem::take(&mut self.expiring)
    }

    /// The certificates of a file, and the key if it is a PKCS#12 store.
    fn chain(
        &mut self,
        file: &Located<PemSource>,
        passphrases: Option<&Arc<Passphrases>>,
    ) -> Result<(Arc<Chain>, Option<OwnKey>), TlsError> {
        let path = &file.value;
        if let Some(known) = self.chains.get(path) {
            return Ok((Arc::clone(known), None));
        }
        let fail = |reason: &str| {
            let message = format!("cannot load certificate \"{}\": {reason}", path.display());
            TlsError::at(&file.position, message)
        };
        if let Some(store) = self.known_store(path, passphrases) {
            return Ok((Arc::clone(&store.chain), Some(Arc::clone(&store.key))));
        }
        path.file()
            .into_iter()
            .for_each(|path| self.watch.add(path));
        let (bytes, mode) = fetch(path).map_err(|reason| fail(&reason))?;
        if pkcs12::is_store(&bytes) {
            let store = self.store(path, &bytes, mode, passphrases);
            let store = store.map_err(|reason| fail(&reason))?;
            return Ok((Arc::clone(&store.chain), Some(Arc::clone(&store.key))));
        }
        let certificates = certificates(&bytes).map_err(|reason| fail(&reason))?;
        let chain = self
            .judged(path, certificates)
            .map_err(|reason| fail(&reason))?;
        self.chains.insert(path.clone(), Arc::clone(&chain));
        Ok((chain, None))
    }

    /// Takes a chain's leaf apart, and warns of its end.
    fn judged(
        &mut self,
        path: &PemSource,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<Chain>, String> {
        let leaf = certificates.first().ok_or("no certificate in it")?;
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|_| "a certificate is malformed")?;
        let not_after = leaf.validity().not_after.timestamp();
        let not_before = leaf.validity().not_before.timestamp();
        let info = CertificateInfo::of(Kind::Server, path, &leaf);
        self.expiring.push(info.clone());
        let public_key = PublicKey::from(leaf.public_key());
        if let Some(problem) = validity_problem(not_before, not_after, self.now) {
            self.warn(format!("certificate \"{}\" {problem}", path.display()));
        }
        Ok(Arc::new(Chain {
            certificates,
            public_key,
            info,
        }))
    }

    fn key(
        &mut self,
        file: &Located<PemSource>,
        passphrases: Option<&Arc<Passphrases>>,
    ) -> Result<Arc<dyn SigningKey>, TlsError> {
        let path = &file.value;
        let opened = |with: Option<&Arc<Passphrases>>| {
            (path.clone(), with.map(|with| with.file().to_owned()))
        };
        let known = self.keys.get(&opened(None));
        if let Some(known) = known.or_else(|| self.keys.get(&opened(passphrases))) {
            return Ok(Arc::clone(known));
        }
        if let Some(store) = self.known_store(path, passphrases) {
            return Ok(Arc::clone(&store.key));
        }
        let fail = |reason: &str| {
            let path = path.display();
            let message = format!("cannot load certificate key \"{path}\": {reason}");
            TlsError::at(&file.position, message)
        };
        path.file()
            .into_iter()
            .for_each(|path| self.watch.add(path));
        let (bytes, mode) = fetch(path).map_err(|reason| fail(&reason))?;
        if pkcs12::is_store(&bytes) {
            let store = self.store(path, &bytes, mode, passphrases);
            let store = store.map_err(|reason| fail(&reason))?;
            return Ok(Arc::clone(&store.key));
        }
        let read = keys::private_key(&bytes, passphrases.map(AsRef::as_ref));
        let read = read.map_err(|reason| fail(&reason))?;
        let key = signing_key(read.der).map_err(fail)?;
        self.warn_of_mode(path, mode);
        let with = passphrases.filter(|_| read.was_sealed);
        self.keys.insert(opened(with), Arc::clone(&key));
        Ok(key)
    }

    fn warn_of_mode(&mut self, path: &PemSource, mode: u32) {
        if mode & 0o007 != 0 {
            let path = path.display();
            self.warn(format!(
                "certificate key \"{path}\" is readable by others than owner and group (mode {:04o})",
                mode & 0o7777
            ));
        }
    }

    /// The passphrases of a file.
    fn passphrases(&mut self, file: &Located<PathBuf>) -> Result<Arc<Passphrases>, TlsError> {
        if let Some(known) = self.passphrases.get(&file.value) {
            return Ok(Arc::clone(known));
        }
        let path = file.value.display();
        let fail = |reason: &str| {
            let message = format!("cannot load password file \"{path}\": {reason}");
            TlsError::at(&file.position, message)
        };
        self.watch.add(&file.value);
        let (bytes, mode) = read(&file.value).map_err(|error| fail(&os_reason(&error)))?;
        let read = Passphrases::read(&file.value, &bytes).map_err(fail)?;
        if mode & 0o007 != 0 {
            self.warn(format!(
                "password file \"{path}\" is readable by others than owner and group \
                 (mode {:04o})",
                mode & 0o7777
            ));
        }
        let read = Arc::new(read);
        self.passphrases
            .insert(file.value.clone(), Arc::clone(&read));
        Ok(read)
    }

    fn known_store(
        &self,
        path: &PemSource,
        passphrases: Option<&Arc<Passphrases>>,
    ) -> Option<&Arc<Store>> {
        let with = passphrases.map(|with| with.file().to_owned());
        self.stores.get(&(path.clone(), with))
    }

    /// Opens a PKCS#12 store: the key, and the certificates from the key's own
    /// upwards, as far as the store has them. Others are left out.
    fn store(
        &mut self,
        path: &PemSource,
        bytes: &[u8],
        mode: u32,
        passphrases: Option<&Arc<Passphrases>>,
    ) -> Result<Arc<Store>, String> {
        let opened = pkcs12::open(bytes, passphrases.map(AsRef::as_ref))?;
        let mut keys = opened.keys.into_iter();
        let (key, key_id) = match (keys.next(), keys.next()) {
            (Some(key), None) => (signing_key(key.der)?, key.key_id),
            (None, _) => return Err("no private key in it".to_owned()),
            (Some(_), Some(_)) => return Err("more than one private key in it".to_owned()),
        };
        let certificates = chain_of(opened.certificates, &*key, &key_id)?;
        let chain = self.judged(path, certificates)?;
        self.warn_of_mode(path, mode);
        let store = Arc::new(Store { chain, key });
        let with = passphrases.map(|with| with.file().to_owned());
        self.stores.insert((path.clone(), with), Arc::clone(&store));
        Ok(store)
    }
}

/// For rustls. The error of rustls is not shown: it might quote what it read.
fn signing_key(mut der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, &'static str> {
    let key = any_supported_type(&der);
    der.zeroize();
    key.map_err(|_| "the key is malformed, too short or of an unknown kind")
}

fn public_key(key: &dyn SigningKey) -> Option<PublicKey> {
    let der = key.public_key()?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(&der).ok()?;
    Some(PublicKey::from(&spki))
}

/// The key's certificate and its issuers, out of a store's unordered ones.
fn chain_of(
    stored: Vec<pkcs12::Certificate>,
    key: &dyn SigningKey,
    key_id: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let key = public_key(key);
    let mut parsed = Vec::with_capacity(stored.len());
    for certificate in &stored {
        match X509Certificate::from_der(&certificate.der) {
            Ok(([], leaf)) => parsed.push((certificate, leaf)),
            _ => return Err("a certificate is malformed".to_owned()),
        }
    }
    let mut of_key = parsed
        .iter()
        .filter(|(_, leaf)| Some(PublicKey::from(leaf.public_key())) == key);
    // A store may hold a renewed certificate beside the old one.
    let named = of_key.clone().find(|(it, _)| it.key_id == key_id);
    let mut last = named
        .or_else(|| of_key.next())
        .ok_or("no certificate of its private key in it")?;
    let algorithms = signature_algorithms();
    let mut chain = vec![last.0.der.clone()];
    while chain.len() < parsed.len() {
        let issuer = parsed.iter().find(|(it, issuer)| {
            !chain.contains(&it.der) && issued(&last.0.der, &last.1, issuer, &algorithms)
        });
        let Some(issuer) = issuer else { break };
        chain.push(issuer.0.der.clone());
        last = issuer;
    }
    Ok(chain)
}

/// Of certificates and what their issuers sign.
pub(super) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    default_provider().signature_verification_algorithms
}

/// Whether one certificate names and bears the signature of the other.
pub(super) fn issued(
    der: &[u8],
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && v1::check_signature(der, &issuer.public_key().raw.into(), algorithms).is_ok()
}

/// "expires in 12 days", if that is soon.
fn validity_problem(not_before: i64, not_after: i64, now: UnixTime) -> Option<String> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < not_before {
        let days = not_before.saturating_sub(now) / DAY;
        return Some(format!("is not valid yet, but in {}", count(days)));
    }
    let left = not_after.saturating_sub(now);
    if left < 0 {
        return Some(format!(
            "expired {} ago",
            count(left.saturating_neg() / DAY)
        ));
    }
    (left < WARN_DAYS * DAY).then(|| format!("expires in {}", count(left / DAY)))
}

/// "is due for an update in 3 days", if that is soon.
fn update_problem(next_update: Option<i64>, now: UnixTime) -> Option<String> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let left = next_update?.saturating_sub(now);
    if left < 0 {
        let days = count(left.saturating_neg() / DAY);
        return Some(format!("expired {days} ago"));
    }
    (left < WARN_CRL_DAYS * DAY).then(|| format!("expires in {}", count(left / DAY)))
}

fn count(days: i64) -> String {
    let plural = if days == 1 { "" } else { "s" };
    format!("{days} day{plural}")
}

/// The certificates of a PEM file, each checked to be one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for item in pem_items(pem)? {
        if let rustls_pemfile::Item::X509Certificate(der) = item {
            match X509Certificate::from_der(&der) {
                Ok(([], _)) => found.push(der),
                _ => return Err("a certificate is malformed".to_owned()),
            }
        }
    }
    Ok(found)
}

/// The CRLs of a file, each as DER.
fn crls(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let mut found = Vec::new();
    // The SEQUENCE of a list, which is longer than 127 bytes; no text begins so.
    if matches!(bytes, [0x30, length, ..] if *length >= 0x81) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (list, after) = crl::split_first(rest).ok_or("a CRL is malformed")?;
            found.push(list.to_vec().into());
            rest = after;
        }
        return Ok(found);
    }
    for item in pem_items(bytes)? {
        if let rustls_pemfile::Item::Crl(der) = item {
            found.push(der);
        }
    }
    Ok(found)
}

/// The one place that reads PEM of certificates and lists. rustls-pemfile is unmaintained
/// (RUSTSEC-2025-0134): it has become a thin layer over `rustls-pki-types`,
/// whose own `pem` module can take its place in this function alone.
fn pem_items(mut pem: &[u8]) -> Result<Vec<rustls_pemfile::Item>, String> {
    rustls_pemfile::read_all(&mut pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "a PEM section is malformed".to_owned())
}

/// A file's content and its permission bits.
fn read(path: &Path) -> io::Result<(Secret, u32)> {
    read_up_to(path, MAX_FILE)
}

fn read_up_to(path: &Path, limit: u64) -> io::Result<(Secret, u32)> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Reserved in advance: growing would leave copies behind that nobody wipes.
    let expected = metadata.len().min(limit) as usize + 1;
    let mut content = Secret::new(Vec::with_capacity(expected));
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((content, metadata.permissions().mode()))
}

/// What a source holds, as PEM, and the permission bits of a file.
///
/// # Errors
///
/// Why not, in words that follow the source's name and show nothing of its
/// content.
fn fetch(source: &PemSource) -> Result<(Secret, u32), String> {
    let value = match source {
        PemSource::File(path) => return read(path).map_err(|error| os_reason(&error)),
        PemSource::Data(_) | PemSource::Env { .. } => source.value(),
    };
    let value = value.ok_or("the environment variable is not set")?;
    let pem = pem_of(&value).ok_or("the value is neither PEM nor base64 of PEM or PKCS#12")?;
    Ok((pem, 0))
}

/// PEM, PEM whose line ends have become the two characters `\n` (as `.env`
/// files and consoles make them), or base64 of PEM (as Kubernetes keeps it) or
/// of a PKCS#12 store.
fn pem_of(value: &[u8]) -> Option<Secret> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let holds_pem = |bytes: &[u8]| memchr::memmem::find(bytes, BEGIN).is_some();
    if !holds_pem(value) {
        let decoded = keys::base64(value)?;
        return (holds_pem(&decoded) || pkcs12::is_store(&decoded)).then_some(decoded);
    }
    let mut pem = Secret::new(Vec::with_capacity(value.len()));
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        // Neither base64 nor a PEM header has a backslash of its own.
        if let Some(after) = rest.strip_prefix(br"\n") {
            pem.push(b'\n');
            rest = after;
        } else if let Some(after) = rest.strip_prefix(br"\r") {
            rest = after;
        } else {
            pem.push(byte);
            rest = after;
        }
    }
    Some(pem)
}

/// The system's words, without Rust's "(os error 2)".
fn os_reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn located(path: PathBuf) -> Located<PemSource> {
        let position = Position {
            file: "nginx.conf".into(),
            line: 7,
        };
        Located {
            value: path.into(),
            position,
        }
    }

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Located<PemSource> {
            let path = self.0.path().join(name);
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
            located(path)
        }

        fn openssl(&self, arguments: &str) {
            let output = std::process::Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(self.0.path())
                .output()
                .expect("openssl runs");
            assert!(output.status.success(), "{output:?}");
        }

        fn at(&self, name: &str) -> Located<PemSource> {
            let file = located(self.0.path().join(name));
            fs::set_permissions(
                file.value.file().expect("a file"),
                fs::Permissions::from_mode(0o640),
            )
            .expect("set");
            file
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("made");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn the_three_forms_of_a_key_are_read_and_matched() {
        let files = Files::new();
        files.openssl("genpkey -algorithm RSA -out pkcs8.key");
        files.openssl("rsa -in pkcs8.key -traditional -out pkcs1.key");
        files.openssl("ecparam -name prime256v1 -genkey -out sec1.key");
        files.openssl("genpkey -algorithm ED25519 -out ed.key");
        for key in ["pkcs8", "pkcs1", "sec1", "ed"] {
            files.openssl(&format!(
                "req -new -key {key}.key -subj /CN={key} -out {key}.csr"
            ));
            files.openssl(&format!(
                "x509 -req -in {key}.csr -signkey {key}.key -out {key}.crt"
            ));
            let (certificate, key) = (
                files.at(&format!("{key}.crt")),
                files.at(&format!("{key}.key")),
            );
            let made = Loader::new().certified_key(&certificate, Some(&key), None);
            assert!(made.is_ok(), "{made:?}");
        }
    }

    #[test]
    fn a_v1_certificate_is_accepted_for_a_server() {
        let files = Files::new();
        files.openssl("genpkey -algorithm RSA -out k.pem");
        files.openssl("req -new -key k.pem -subj /CN=v1 -out r.pem");
        files.openssl("x509 -req -in r.pem -signkey k.pem -days 365 -out c.pem");
        let (bytes, _) = fetch(&files.at("c.pem").value).expect("read");
        let der = certificates(&bytes).expect("PEM").remove(0);
        let (_, parsed) = X509Certificate::from_der(&der).expect("DER");
        assert_eq!(parsed.version(), x509_parser::x509::X509Version::V1);
        let mut loader = Loader::new();
        let (_, info) = loader
            .certified_key(&files.at("c.pem"), Some(&files.at("k.pem")), None)
            .expect("accepted");
        assert_eq!(info.subject, "CN=v1");
        assert_eq!(loader.take_warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_names() {
        let files = Files::new();
        let certificate = files.write("c.pem", pair().0);
        let key = files.write("k.pem", pair().1);
        let error = Loader::new()
            .certified_key(&certificate, Some(&key), None)
            .expect_err("mismatch");
        let text = error.to_string();
        assert!(
            text.contains("k.pem\" does not match certificate \""),
            "{text}"
        );
        assert!(
            text.ends_with("key values mismatch in nginx.conf:7"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_content() {
        let files = Files::new();
        let (certificate, key) = pair();
        let good = files.write("c.pem", &certificate);
        let secret = "c2VjcmV0c2VjcmV0";
        let broken = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
        let cases = [
            (
                files.0.path().join("none").into(),
                "No such file or directory",
            ),
            (files.0.path().to_owned().into(), "is a directory"),
            (files.write("empty", "").value, "no private key in it"),
            (files.write("junk", "junk").value, "no private key in it"),
            (files.write("broken", &broken).value, "the key is malformed"),
            (
                files.write("cut", &key[..60]).value,
                "a PEM section is malformed",
            ),
            (
                files
                    .write("enc", broken.replace("PRIVATE", "ENCRYPTED PRIVATE"))
                    .value,
                "the key is malformed",
            ),
        ];
        for (source, reason) in cases {
            let path: &PemSource = &source;
            let key = Located {
                value: source.clone(),
                position: good.position.clone(),
            };
            let error = Loader::new()
                .certified_key(&good, Some(&key), None)
                .expect_err(reason);
            let begin = format!("cannot load certificate key \"{}\": ", path.display());
            assert!(error.message.starts_with(&begin), "{error}");
            assert!(error.message.contains(reason), "{error}");
            assert!(!error.message.contains(secret), "{error}");
            assert_eq!(error.position.map(|at| at.line), Some(7));
        }
    }

    #[test]
    fn an_empty_ca_file_is_refused() {
        let files = Files::new();
        for content in ["", "just words", &pair().1] {
            let file = files.write("ca.pem", content);
            let error = Loader::new().authorities(&file).expect_err("refused");
            assert!(error.message.ends_with("no certificate in it"), "{error}");
        }
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = Loader::new()
            .authorities(&files.write("bad.pem", pem))
            .expect_err("refused");
        assert!(
            error.message.ends_with("a certificate is malformed"),
            "{error}"
        );
    }

    #[test]
    fn a_key_that_others_can_read_gives_one_warning() {
        let files = Files::new();
        let (certificate, key) = pair();
        let certificate = files.write("c.pem", certificate);
        let key = files.write("k.pem", key);
        fs::set_permissions(
            key.value.file().expect("a file"),
            fs::Permissions::from_mode(0o644),
        )
        .expect("set");
        let mut loader = Loader::new();
        for _ in 0..3 {
            loader
                .certified_key(&certificate, Some(&key), None)
                .expect("loaded");
        }
        let warnings = loader.take_warnings();
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert!(
            warning.ends_with("than owner and group (mode 0644)"),
            "{warning}"
        );
    }

    #[test]
    fn a_certificate_near_its_end_gives_a_warning() {
        let at = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(seconds as u64));
        let (from, to) = (1_000 * DAY, 1_100 * DAY);
        let problem = |now| validity_problem(from, to, at(now));
        assert_eq!(problem(1_050 * DAY), None);
        assert_eq!(problem(to - 30 * DAY), None);
        assert_eq!(
            problem(to - 30 * DAY + 1).as_deref(),
            Some("expires in 29 days")
        );
        assert_eq!(problem(to - DAY).as_deref(), Some("expires in 1 day"));
        assert_eq!(problem(to + 3 * DAY).as_deref(), Some("expired 3 days ago"));
        assert_eq!(
            problem(from - 2 * DAY).as_deref(),
            Some("is not valid yet, but in 2 days")
        );
    }

    #[test]
    fn a_certificate_in_its_last_days_is_complained_of() {
        let info = CertificateInfo {
            kind: Kind::Server,
            path: PathBuf::from("/c.pem").into(),
            subject: "CN=a".to_owned(),
            not_after: 1_000 * DAY,
        };
        let at = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(seconds as u64));
        let complaint = |now| info.complaint(at(now), 14);
        assert_eq!(complaint(986 * DAY), None);
        assert_eq!(
            complaint(986 * DAY + 1).as_deref(),
            Some("certificate \"CN=a\" in \"/c.pem\" expires in 13 days")
        );
        assert_eq!(
            complaint(1_002 * DAY).as_deref(),
            Some("certificate \"CN=a\" in \"/c.pem\" expired 2 days ago")
        );
    }

    #[test]
    fn a_file_is_read_once_in_one_build() {
        let files = Files::new();
        let (certificate, key) = pair();
        let certificate = files.write("c.pem", certificate);
        let key = files.write("k.pem", key);
        let mut loader = Loader::new();
        let first = loader
            .certified_key(&certificate, Some(&key), None)
            .expect("loaded");
        fs::remove_file(certificate.value.file().expect("a file")).expect("removed");
        let second = loader
            .certified_key(&certificate, Some(&key), None)
            .expect("remembered");
        assert!(Arc::ptr_eq(&first.0, &second.0));
    }

    /// A CA, a server's certificate, and stores with both and a stranger.
    fn stores() -> Files {
        let files = Files::new();
        files.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=CA");
        files.openssl("req -x509 -newkey rsa:2048 -nodes -keyout x.key -out x.pem -subj /CN=CA");
        files.openssl("ecparam -name prime256v1 -genkey -noout -out s.key");
        files.openssl("req -new -key s.key -subj /CN=s -out s.csr");
        files.openssl("x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s.pem");
        let others = ["x.pem", "ca.pem"]
            .map(|name| fs::read_to_string(files.0.path().join(name)).expect("a file"));
        files.write("others.pem", others.concat());
        files.openssl(
            "pkcs12 -export -inkey s.key -in s.pem -certfile others.pem -out s.p12 \
             -passout pass:hunter2",
        );
        files
    }

    fn path(file: &Located<PemSource>) -> Located<PathBuf> {
        Located {
            value: file.value.file().expect("a file").to_owned(),
            position: file.position.clone(),
        }
    }

    #[test]
    fn a_store_yields_its_key_and_the_chain_from_leaf_to_root() {
        let files = stores();
        let store = files.at("s.p12");
        let passwords = path(&files.write("pass", "wrong\nhunter2\n"));
        for key in [None, Some(&store)] {
            let mut loader = Loader::new();
            let (certified, info) = loader
                .certified_key(&store, key, Some(&passwords))
                .expect("opened");
            assert_eq!(info.subject, "CN=s");
            // Not the stranger, whose name is the CA's.
            let names: Vec<_> = ["s.pem", "ca.pem"]
                .map(|name| fetch(&files.at(name).value).expect("read").0)
                .map(|pem| certificates(&pem).expect("PEM").remove(0))
                .into();
            assert_eq!(certified.cert, names);
            assert_eq!(loader.take_expiring().len(), 1);
        }
        // The same in base64, without a file.
        let bytes = fs::read(store.value.file().expect("a file")).expect("read");
        let text = identity::pem::base64(&bytes);
        let made = Loader::new().certified_key(&data(text), None, Some(&passwords));
        assert!(made.is_ok(), "{made:?}");
    }

    #[test]
    fn a_store_and_a_key_of_another_certificate_are_a_mismatch() {
        let files = stores();
        let passwords = path(&files.write("pass", "hunter2"));
        let (store, other) = (files.at("s.p12"), files.at("x.key"));
        let error = Loader::new()
            .certified_key(&store, Some(&other), Some(&passwords))
            .expect_err("mismatch");
        assert!(error.message.ends_with("key values mismatch"), "{error}");
        let error = Loader::new()
            .certified_key(&files.at("x.pem"), Some(&store), Some(&passwords))
            .expect_err("mismatch");
        assert!(error.message.ends_with("key values mismatch"), "{error}");
    }

    #[test]
    fn a_wrong_passphrase_is_an_error_that_names_files_and_shows_nothing() {
        let files = stores();
        files.openssl("pkcs8 -topk8 -in s.key -out sealed.key -passout pass:hunter2");
        let passwords = path(&files.write("pass", "hunter3"));
        let (store, plain) = (files.at("s.p12"), files.at("s.pem"));
        let sealed = files.at("sealed.key");
        let cases = [
            (&store, None, "cannot load certificate \""),
            (&plain, Some(&sealed), "cannot load certificate key \""),
        ];
        for (certificate, key, begin) in cases {
            let error = Loader::new()
                .certified_key(certificate, key, Some(&passwords))
                .expect_err("closed")
                .to_string();
            assert!(error.starts_with(begin), "{error}");
            assert!(
                error.ends_with("pass\" does not open it in nginx.conf:7"),
                "{error}"
            );
            assert!(!error.contains("hunter"), "{error}");
        }
        let right = path(&files.write("right", "hunter2"));
        let mut loader = Loader::new();
        let made = loader.certified_key(&plain, Some(&sealed), Some(&right));
        assert!(made.is_ok(), "{made:?}");
        // What one block could open is not open to one with another file.
        let error = loader.certified_key(&plain, Some(&sealed), Some(&passwords));
        assert!(error.is_err(), "{error:?}");
        let none = path(&located(files.0.path().join("none")));
        let error = loader.certified_key(&plain, Some(&files.at("s.key")), Some(&none));
        let error = error.expect_err("no such file").message;
        assert!(error.starts_with("cannot load password file \""), "{error}");
        assert!(error.ends_with("No such file or directory"), "{error}");
    }

    #[test]
    fn a_password_file_that_others_can_read_gives_a_warning() {
        let files = stores();
        let passwords = files.write("pass", "hunter2");
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(passwords.value.file().expect("a file"), open).expect("set");
        let mut loader = Loader::new();
        let made = loader.certified_key(&files.at("s.p12"), None, Some(&path(&passwords)));
        assert!(made.is_ok(), "{made:?}");
        let warnings = loader.take_warnings();
        let about = |what: &str| warnings.iter().any(|warning| warning.starts_with(what));
        assert!(about("password file \""), "{warnings:?}");
    }

    #[test]
    fn a_ticket_key_has_48_or_80_bytes_and_is_read_once() {
        let files = Files::new();
        let file = |bytes: usize| {
            let file = files.write(&format!("{bytes}.key"), vec![7; bytes]);
            Located {
                value: file.value.file().expect("a file").to_owned(),
                position: file.position,
            }
        };
        let mut loader = Loader::new();
        for good in [48, 80] {
            let key = loader.ticket_key(&file(good)).expect("read");
            assert!(Arc::ptr_eq(
                &key,
                &loader.ticket_key(&file(good)).expect("known")
            ));
        }
        assert_eq!(loader.take_warnings(), Vec::<String>::new());
        for bad in [0, 47, 49, 79, 81] {
            let error = loader.ticket_key(&file(bad)).expect_err("refused");
            let end = format!("{bad}.key\" must be 48 or 80 bytes in nginx.conf:7");
            assert!(error.to_string().ends_with(&end), "{error}");
        }
    }

    fn data(value: impl AsRef<[u8]>) -> Located<PemSource> {
        let mut here = located(PathBuf::new());
        let value = zeroize::Zeroizing::new(value.as_ref().to_vec());
        here.value = PemSource::Data(Arc::new(value));
        here
    }

    fn variable(name: &str, value: &str) -> Located<PemSource> {
        let mut here = located(PathBuf::new());
        let value = zeroize::Zeroizing::new(value.as_bytes().to_vec());
        here.value = PemSource::Env {
            name: name.into(),
            given: Some(Arc::new(value)),
        };
        here
    }

    fn in_base64(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("text");
        fs::write(&file, text).expect("written");
        let output = std::process::Command::new("base64").arg(file).output();
        String::from_utf8(output.expect("base64 runs").stdout).expect("ASCII")
    }

    #[test]
    fn a_value_is_pem_or_pem_with_literal_line_ends_or_base64_of_pem() {
        let (certificate, key) = pair();
        let forms = |text: &str| {
            let base64 = in_base64(text);
            [
                text.to_owned(),
                text.replace('\n', r"\n"),
                text.replace('\n', r"\r\n"),
                base64.replace('\n', ""),
                base64.trim_end().trim_end_matches('=').to_owned(),
                base64,
            ]
        };
        for (certificate, key) in forms(&certificate).iter().zip(forms(&key)) {
            for (certificate, key) in [
                (data(certificate), data(&key)),
                (variable("CRT", certificate), variable("KEY", &key)),
            ] {
                let made = Loader::new().certified_key(&certificate, Some(&key), None);
                assert!(made.is_ok(), "{made:?}");
                assert!(Loader::new().authorities(&certificate).is_ok());
            }
        }
    }

    #[test]
    fn a_value_that_is_no_key_is_refused_without_being_shown() {
        let (certificate, key) = pair();
        let good = data(&certificate);
        let body = key.lines().nth(1).expect("a line").to_owned();
        let cut = key.replace("-----END", "");
        for value in [&body, "", "=", "====", "hunter2", "\u{e9}", &cut] {
            for (source, name) in [
                (variable("TLS_KEY", value), "env:TLS_KEY"),
                (data(value), "data:..."),
            ] {
                let error = Loader::new()
                    .certified_key(&good, Some(&source), None)
                    .expect_err("refused");
                let begin = format!("cannot load certificate key \"{name}\": ");
                assert!(error.message.starts_with(&begin), "{error}");
                assert!(value.len() < 2 || !error.message.contains(value), "{error}");
                assert!(!error.message.contains(&body), "{error}");
            }
        }
        let mut unset = located(PathBuf::new());
        unset.value = PemSource::Env {
            name: "RINGWALL_NOT_SET".into(),
            given: None,
        };
        let error = Loader::new().authorities(&unset).expect_err("refused");
        assert_eq!(
            error.message,
            "cannot load CA certificate \"env:RINGWALL_NOT_SET\": \
             the environment variable is not set"
        );
    }
}
