//! The TLS side of `proxy_pass https://…`: who we are to an upstream, who it
//! must be, and the sessions that are resumed with it.
//!
//! What decides about a connection is [`UpstreamTls::identity`] and the name
//! asked for; a connection made under one is never used for another
//! (`proxy::pool`). Sessions belong to one such identity, one address and one
//! name, and outlive a reload that changes none of them.

mod links;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use super::certs::{CertificateInfo, Loader, TlsError};
use super::client_auth::servers::ServerAuth;
pub use super::client_auth::servers::{ServerRefusal, take_server_refusal};
use super::server::{Suites, crypto_provider, named_at, versions};
use super::session::{ClientHandshake, HandshakeError};
use crate::config::{PemSource, Position, ProxyTls, UpstreamAddress};
pub use links::Links;
use links::{Link, Sessions};

/// The settings of one kind of upstream connection; shared by all locations
/// that say the same.
#[derive(Debug)]
pub struct UpstreamTls {
    link: Arc<Link>,
    links: Arc<Links>,
    identity: [u8; 32],
    certificate: Option<CertificateInfo>,
}

/// Builds the settings of one location, with what the operator should hear.
/// Sessions with upstreams go on under settings that are as they were.
///
/// # Errors
///
/// A file or a directive's value cannot be used; the position is that of the
/// directive.
pub fn build(
    tls: &ProxyTls,
    links: &Arc<Links>,
    loader: &mut Loader,
) -> Result<(Arc<UpstreamTls>, Vec<String>), TlsError> {
    let suites = Suites {
        prefix: tls.family.prefix(),
        ciphers: &tls.ciphers,
        protocols: tls.protocols,
        ciphersuites: tls.ciphersuites.as_ref(),
        ecdh_curve: None,
    };
    let provider = crypto_provider(&suites, loader)?;
    let own = match &tls.certificate {
        Some((certificate, key)) => {
            let passphrases = tls.password_file.as_ref();
            Some(loader.client_key(certificate, key.as_ref(), passphrases)?)
        }
        None => None,
    };
    let (key, certificate) = own.unzip();
    let algorithms = provider.signature_verification_algorithms;
    let auth = ServerAuth::load(tls, algorithms, loader)?;
    let identity = identity_of(tls, key.as_deref(), &auth);
    if let Some(known) = loader.built.upstreams.get(&identity) {
        let known = Arc::clone(known);
        return Ok((known, loader.take_warnings()));
    }
    let link = links.find(&identity, || {
        let verifier = Arc::clone(&auth);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(tls.protocols))
            .map_err(|error| TlsError::at(&tls.ciphers.position, error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(Own(key)));
        config.alpn_protocols = tls.alpn.iter().map(|name| name.to_vec()).collect();
        config.enable_sni = tls.server_name;
        config.resumption = Resumption::disabled();
        // The record layer after the handshake is not rustls' (`tls::session`).
        config.enable_secret_extraction = true;
        config.enable_early_data = false;
        config.cert_compressors = Vec::new();
        config.cert_decompressors = Vec::new();
        Ok(Link {
            base: Arc::new(config),
            auth,
            verifies: tls.verify.value,
            sessions: tls.session_reuse.then(Sessions::default),
        })
    })?;
    let built = Arc::new(UpstreamTls {
        link,
        links: Arc::clone(links),
        identity,
        certificate,
    });
    loader.built.upstreams.insert(identity, Arc::clone(&built));
    Ok((built, loader.take_warnings()))
}

/// SHA-256 over all that makes connections differ, the name asked for apart.
fn identity_of(tls: &ProxyTls, key: Option<&CertifiedKey>, auth: &ServerAuth) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(b"ringwall upstream identity 1");
    part(auth.demands());
    let chain = key.map_or(&[][..], |key| &key.cert[..]);
    part(&(chain.len() as u64).to_be_bytes());
    chain.iter().for_each(|der| part(der));
    part(&[
        tls.protocols.tls12.into(),
        tls.protocols.tls13.into(),
        tls.server_name.into(),
        tls.session_reuse.into(),
    ]);
    part(tls.ciphers.value.as_bytes());
    let suites = tls.ciphersuites.as_ref();
    part(suites.map_or("", |suites| &suites.value).as_bytes());
    tls.alpn.iter().for_each(|name| part(name));
    let mut identity = [0; 32];
    identity.copy_from_slice(context.finish().as_ref());
    identity
}

/// A name that no SNI can carry and no certificate bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(pub String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is no name of a TLS server", self.0)
    }
}

/// Why a handshake with an upstream cannot begin.
#[derive(Debug)]
pub enum BeginError {
    /// Configuration or request: the name.
    Name(InvalidName),
    /// rustls'.
    Handshake(HandshakeError),
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
        }
    }
}

impl UpstreamTls {
    /// Begins a handshake with the upstream at `address`, which is to be
    /// `name` (see [`without_port`]).
    ///
    /// # Errors
    ///
    /// The name is to be sent or checked and cannot be one.
    pub fn begin(
        &self,
        address: &UpstreamAddress,
        name: &str,
    ) -> Result<ClientHandshake, BeginError> {
        let name = match ServerName::try_from(unbracketed(name).to_owned()) {
            Ok(name) => name,
            // Nobody sees or checks it.
            Err(_) if !self.link.base.enable_sni && !self.link.verifies => {
                ServerName::from(IpAddr::from([0, 0, 0, 0]))
            }
            Err(_) => return Err(BeginError::Name(InvalidName(name.to_owned()))),
        };
        let base = &self.link.base;
        let config = match &self.link.sessions {
            None => Arc::clone(base),
            Some(sessions) => sessions.config(address, base),
        };
        ClientHandshake::new(config, name).map_err(BeginError::Handshake)
    }

    /// The same for requests that name this certificate, of the location with
    /// these settings. Sessions made under it before go on. It reads files, and
    /// so blocks.
    ///
    /// # Errors
    ///
    /// The certificate or its key cannot be read, or they do not belong
    /// together.
    pub fn with_certificate(
        &self,
        settings: &ProxyTls,
        position: &Position,
        certificate: PemSource,
        key: Option<PemSource>,
    ) -> Result<Arc<Self>, TlsError> {
        let (certificate, key) = named_at(certificate, key, position)?;
        let passphrases = settings.password_file.as_ref();
        let (key, info) = Loader::new().client_key(&certificate, key.as_ref(), passphrases)?;
        let identity = identity_of(settings, Some(&key), &self.link.auth);
        let link = self.links.find(&identity, || {
            let mut config = ClientConfig::clone(&self.link.base);
            config.client_auth_cert_resolver = Arc::new(Own(Some(key)));
            Ok(Link {
                base: Arc::new(config),
                auth: Arc::clone(&self.link.auth),
                verifies: self.link.verifies,
                sessions: settings.session_reuse.then(Sessions::default),
            })
        })?;
        self.links.keep(&link);
        Ok(Arc::new(Self {
            link,
            links: Arc::clone(&self.links),
            identity,
            certificate: Some(info),
        }))
    }

    /// Judges the upstream of a resumed session, where rustls asks nobody:
    /// a session must not outlive a certificate.
    ///
    /// # Errors
    ///
    /// The upstream is not, or no longer, acceptable.
    pub fn admit(&self, chain: &[CertificateDer<'_>], name: &str) -> Result<(), ServerRefusal> {
        self.link.auth.judge(chain, unbracketed(name), super::now())
    }

    /// SHA-256 over all that makes connections differ: the certificate shown,
    /// what is demanded of the upstream, versions, suites, protocols. The
    /// address and the name asked for are not in it.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// The certificate that upstreams are shown.
    pub fn certificate(&self) -> Option<&CertificateInfo> {
        self.certificate.as_ref()
    }
}

/// The host of `host:port`, as Nginx takes it from `proxy_ssl_name`.
pub fn without_port(name: &str) -> &str {
    if name.starts_with('[') {
        let end = name.find(']').map_or(name.len(), |end| end + 1);
        return name.get(..end).unwrap_or(name);
    }
    name.split(':').next().unwrap_or(name)
}

fn unbracketed(name: &str) -> &str {
    name.strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name)
}

/// Shows the configured certificate to whoever asks for one, whichever CAs are
/// named, as OpenSSL does.
#[derive(Debug)]
struct Own(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_does_not_belong_to_the_name() {
        for (name, host) in [
            ("a.example", "a.example"),
            ("a.example:8443", "a.example"),
            ("[::1]:443", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "[::1"),
            ("", ""),
        ] {
            assert_eq!(without_port(name), host);
        }
        assert_eq!(unbracketed("[::1]"), "::1");
    }
}
