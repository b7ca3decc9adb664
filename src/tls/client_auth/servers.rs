//! Who an upstream must be: `proxy_ssl_verify`, judged as OpenSSL judges the
//! servers that it connects to.
//!
//! A server's chain is judged like a client's ([`ClientAuth`]), X.509 v1 leaves
//! signed by a configured CA included; then its name. Nginx asks
//! `X509_check_host` for that: DNS names of subjectAltName, or, where there is
//! none, the subject's common names, which webpki no longer looks at. An IP
//! address may also stand in subjectAltName as what it is, which Nginx does not
//! look for.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::authorities::Authorities;
use super::refusal::{Refusal, RefusalReason};
use super::revocation::Revocation;
use super::{ClientAuth, MAX_DEPTH, Purpose, digest_of, finish};
use crate::config::{CrlExpired, Located, ProxyTls, TrustSource, VerifyClient, VerifyFailure};
use crate::tls::certs::{Loader, TlsError};

/// The policy on one kind of upstream; shared by all that say the same.
#[derive(Debug)]
pub(in crate::tls) struct ServerAuth {
    chain: ClientAuth,
    verifies: bool,
}

/// What decides a policy within one build; files are read once in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::tls) struct ServerPolicyKey {
    verifies: bool,
    trusted: Option<TrustSource>,
    depth: u32,
    crl: Option<PathBuf>,
}

impl ServerAuth {
    /// The policy that a location's directives describe.
    ///
    /// # Errors
    ///
    /// A CA file or a CRL file cannot be read, is empty, or holds what cannot
    /// be one.
    pub(in crate::tls) fn load(
        tls: &ProxyTls,
        algorithms: WebPkiSupportedAlgorithms,
        loader: &mut Loader,
    ) -> Result<Arc<Self>, TlsError> {
        let verifies = tls.verify.value;
        // As in Nginx: neither is opened where nothing is verified.
        let trusted = tls.trusted_certificate.as_ref().filter(|_| verifies);
        let crl = tls.crl.as_ref().filter(|_| verifies);
        let key = ServerPolicyKey {
            verifies,
            trusted: trusted.map(|trusted| trusted.value.clone()),
            depth: tls.verify_depth,
            crl: crl.map(|crl| crl.value.clone()),
        };
        if let Some(known) = loader.built.servers.get(&key) {
            return Ok(Arc::clone(known));
        }
        let depth = usize::try_from(tls.verify_depth).unwrap_or(MAX_DEPTH);
        let authorities = match trusted {
            Some(trusted) => authorities(trusted, loader)?,
            None => Authorities::default(),
        };
        let mode = if verifies {
            VerifyClient::On
        } else {
            VerifyClient::Off
        };
        let digest = digest_of(mode, depth, &authorities);
        let mut demands = digest;
        let mut revocation = None;
        if let Some(file) = crl {
            let crls = loader.crls(file)?;
            // OpenSSL's own way with an expired list; there is no directive.
            let (lists, _) = Revocation::new(&crls, CrlExpired::Deny, &authorities, &algorithms)
                .map_err(|reason| {
                    let path = file.value.display();
                    let message = format!("cannot load CRL \"{path}\": {reason}");
                    TlsError::at(&file.position, message)
                })?;
            let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
            context.update(&digest);
            context.update(&crls.digest);
            demands = finish(context);
            revocation = Some(lists);
        }
        let policy = Arc::new(Self {
            chain: ClientAuth {
                mode,
                authorities,
                hints: Vec::new(),
                depth,
                algorithms,
                revocation,
                failure: VerifyFailure::Alert,
                purpose: Purpose::Server,
                digest,
                demands,
            },
            verifies,
        });
        loader.built.servers.insert(key, Arc::clone(&policy));
        Ok(policy)
    }

    /// SHA-256 over all that decides which upstream is accepted, apart from
    /// its name.
    pub(in crate::tls) fn demands(&self) -> &[u8; 32] {
        &self.chain.demands
    }

    /// The whole judgement: the chain, then the name.
    ///
    /// # Errors
    ///
    /// Why the upstream is not who it should be.
    pub(in crate::tls) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        name: &str,
        now: UnixTime,
    ) -> Result<(), ServerRefusal> {
        if !self.verifies {
            return Ok(());
        }
        let Some((leaf, presented)) = chain.split_first() else {
            return Err(ServerRefusal::Chain(Refusal::no_certificate()));
        };
        self.chain
            .verify(leaf, presented, now)
            .map_err(|reason| ServerRefusal::Chain(Refusal::of(leaf, reason)))?;
        if bears_name(leaf, name) {
            return Ok(());
        }
        Err(ServerRefusal::Name {
            wanted: name.to_owned(),
            found: names(leaf),
        })
    }
}

fn authorities(
    trusted: &Located<TrustSource>,
    loader: &mut Loader,
) -> Result<Authorities, TlsError> {
    let (certificates, name) = match &trusted.value {
        TrustSource::System => (
            loader.system_authorities(&trusted.position)?,
            "system".to_owned(),
        ),
        TrustSource::Pem(source) => {
            let file = Located {
                value: source.clone(),
                position: trusted.position.clone(),
            };
            (loader.authorities(&file)?, source.display().to_string())
        }
    };
    let authorities = Authorities::new(certificates.iter().cloned()).map_err(|reason| {
        let message = format!("cannot load CA certificate \"{name}\": {reason}");
        TlsError::at(&trusted.position, message)
    })?;
    if authorities.anchors().is_empty() {
        loader.warn(format!(
            "no upstream can be verified: \"{name}\" holds no self-signed root, \
             and a chain must end in one in {}",
            trusted.position
        ));
    }
    Ok(authorities)
}

/// Why an upstream was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerRefusal {
    /// Its certificate, or the chain behind it.
    Chain(Refusal),
    /// The certificate is good, and somebody else's.
    Name {
        /// Who it should be.
        wanted: String,
        /// Who it is, for the log.
        found: String,
    },
}

impl fmt::Display for ServerRefusal {
    /// Begins as Nginx's lines do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(refusal) if refusal.reason == RefusalReason::NoCertificate => {
                f.write_str("upstream sent no SSL certificate")
            }
            Self::Chain(refusal) => {
                let (code, text) = (refusal.reason.code(), refusal.reason.text());
                write!(f, "upstream SSL certificate verify error: ({code}:{text})")?;
                if let Some(subject) = &refusal.subject {
                    write!(f, ", subject: \"{subject}\"")?;
                }
                if let Some(issuer) = &refusal.issuer {
                    write!(f, ", issuer: \"{issuer}\"")?;
                }
                Ok(())
            }
            Self::Name { wanted, found } => write!(
                f,
                "upstream SSL certificate does not match \"{wanted}\", it names {found}"
            ),
        }
    }
}

impl ServerRefusal {
    fn to_rustls(&self) -> rustls::Error {
        match self {
            Self::Chain(refusal) => refusal.reason.to_rustls(),
            Self::Name { .. } => CertificateError::NotValidForName.into(),
        }
    }
}

thread_local! {
    /// Of the latest handshake step on this thread, until taken; see `refusal`
    /// for why that is sound.
    static LATEST: RefCell<Option<ServerRefusal>> = const { RefCell::new(None) };
}

/// The refusal that made a handshake step on this thread fail just now, if it
/// was one. To be called before and after every step.
pub fn take_server_refusal() -> Option<ServerRefusal> {
    LATEST.with(|latest| latest.borrow_mut().take())
}

impl ServerCertVerifier for ServerAuth {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .cloned()
            .collect();
        self.judge(&chain, &server_name.to_str(), now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|refusal| {
                let error = refusal.to_rustls();
                LATEST.with(|latest| *latest.borrow_mut() = Some(refusal));
                error
            })
    }

    // That the upstream holds the key of the certificate that it shows is
    // checked whatever else is not. By the bare key: webpki reads neither v1
    // certificates nor those with extensions that it does not know.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_raw(message, Ok(public_key(cert)?), dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = public_key(cert)?;
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.chain.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.algorithms.supported_schemes()
    }
}

fn public_key(certificate: &[u8]) -> Result<SubjectPublicKeyInfoDer<'static>, rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    Ok(parsed.public_key().raw.to_vec().into())
}

/// Whether a certificate is for this host, in `X509_check_host`'s reading.
fn bears_name(leaf: &[u8], wanted: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return false;
    };
    let address: Option<IpAddr> = wanted.parse().ok();
    let mut any_dns = false;
    match parsed.subject_alternative_name() {
        Ok(Some(extension)) => {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(pattern) => {
                        any_dns = true;
                        if matches_host(pattern, wanted) {
                            return true;
                        }
                    }
                    GeneralName::IPAddress(octets) if address.is_some_and(|it| is(it, octets)) => {
                        return true;
                    }
                    // One that cannot be read must not make room for the
                    // common name.
                    GeneralName::Invalid(..) => any_dns = true,
                    _ => {}
                }
            }
        }
        Ok(None) => {}
        Err(_) => return false,
    }
    !any_dns
        && parsed
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok())
            .any(|name| matches_host(name, wanted))
}

fn is(address: IpAddr, octets: &[u8]) -> bool {
    match address {
        IpAddr::V4(ip) => ip.octets() == octets,
        IpAddr::V6(ip) => ip.octets() == octets,
    }
}

/// Case does not matter; `*` stands for one whole first label (RFC 9525 §6.3)
/// above at least two others.
fn matches_host(pattern: &str, host: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("*.") {
        return host.split_once('.').is_some_and(|(label, above)| {
            !label.is_empty() && rest.contains('.') && above.eq_ignore_ascii_case(rest)
        }) && host.parse::<IpAddr>().is_err();
    }
    !pattern.is_empty() && pattern.eq_ignore_ascii_case(host)
}

/// For the log: whom a certificate names.
fn names(leaf: &[u8]) -> String {
    const SHOWN: usize = 5;
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return "nobody".to_owned();
    };
    let mut found = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => found.push(quoted(name)),
                GeneralName::IPAddress(octets) => found.extend(address(octets)),
                _ => {}
            }
        }
    }
    if found.is_empty() {
        let names = parsed.subject().iter_common_name();
        found.extend(names.filter_map(|name| Some(quoted(name.as_str().ok()?))));
    }
    match found.len() {
        0 => "nobody".to_owned(),
        count if count > SHOWN => format!("{} and others", found[..SHOWN].join(", ")),
        _ => found.join(", "),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.escape_default())
}

fn address(octets: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(octets).to_string());
    }
    let octets = <[u8; 16]>::try_from(octets).ok()?;
    Some(IpAddr::from(octets).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_whole_label() {
        for (pattern, host, expected) in [
            ("a.example", "a.example", true),
            ("A.Example", "a.eXample", true),
            ("a.example", "b.example", false),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "a.b.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.org", "example.org", false),
            ("*", "example", false),
            ("f*.example.org", "foo.example.org", false),
            ("*.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("", "", false),
        ] {
            assert_eq!(matches_host(pattern, host), expected, "{pattern} {host}");
        }
    }
}
