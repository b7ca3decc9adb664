//! Who may connect: the client-certificate policy of a server block.
//!
//! A [`ClientAuth`] is made from `ssl_verify_client`, `ssl_client_certificate`,
//! `ssl_trusted_certificate` and `ssl_verify_depth`. It judges a chain twice in
//! a connection's life: as rustls' verifier during a full handshake, and in
//! [`ClientAuth::admit`] at every resumption, where rustls asks nobody.
//! [`ClientAuth::admit`] is the only maker of [`VerifiedClient`], and identity
//! reaches a backend only from one of those.
//!
//! Chains are verified by webpki; what OpenSSL asks for beyond it (see
//! `authorities`) is checked on the path it found. The one thing let in that
//! webpki refuses is a leaf of X.509 v1 (see `v1`).

mod authorities;
mod refusal;
mod v1;

use std::cell::OnceCell;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerMisbehaved, SignatureScheme,
};
use webpki::{EndEntityCert, RawPublicKeyEntity, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use self::authorities::Authorities;
pub use self::refusal::{Refusal, RefusalReason, refusal_behind, take_refusal};
use self::v1::V1Leaf;
use super::certs::{Loader, TlsError};
use super::identity::Identity;
use crate::config::{Located, PemSource, Tls, VerifyClient};

/// Certificates looked at behind the leaf. OpenSSL bounds the message instead
/// (100 KiB); this bounds the parsing.
const MAX_PRESENTED: usize = 32;
/// Intermediates in a path, whatever `ssl_verify_depth` says: webpki's own
/// limit.
const MAX_DEPTH: usize = 6;
/// Bytes of CA names sent in a CertificateRequest; the field ends at 65,535.
const MAX_HINTS: usize = 60_000;

/// The policy of one server block.
#[derive(Debug)]
pub struct ClientAuth {
    mode: VerifyClient,
    authorities: Authorities,
    hints: Vec<DistinguishedName>,
    /// Intermediates allowed, as OpenSSL counts `ssl_verify_depth`.
    depth: usize,
    algorithms: WebPkiSupportedAlgorithms,
    digest: [u8; 32],
}

/// What decides a policy within one build; files are read once in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PolicyKey {
    mode: VerifyClient,
    client: Option<PemSource>,
    trusted: Option<PemSource>,
    depth: u32,
}

impl ClientAuth {
    /// The policy that a server block's directives describe, shared with every
    /// other block of this build that says the same.
    ///
    /// # Errors
    ///
    /// A CA file cannot be read, is empty, or holds what cannot be a CA; or
    /// certificates are to be verified and there is no CA file.
    pub fn load(
        tls: &Tls,
        algorithms: WebPkiSupportedAlgorithms,
        loader: &mut Loader,
    ) -> Result<Arc<Self>, TlsError> {
        let path = |file: &Option<Located<PemSource>>| file.as_ref().map(|file| file.value.clone());
        let key = PolicyKey {
            mode: tls.verify_client.value,
            client: path(&tls.client_certificate),
            trusted: path(&tls.trusted_certificate),
            depth: tls.verify_depth,
        };
        if let Some(known) = loader.built.policies.get(&key) {
            return Ok(Arc::clone(known));
        }
        let policy = Arc::new(Self::read(tls, algorithms, loader)?);
        loader.built.policies.insert(key, Arc::clone(&policy));
        Ok(policy)
    }

    fn read(
        tls: &Tls,
        algorithms: WebPkiSupportedAlgorithms,
        loader: &mut Loader,
    ) -> Result<Self, TlsError> {
        let mode = tls.verify_client.value;
        let depth = usize::try_from(tls.verify_depth).unwrap_or(MAX_DEPTH);
        let mut all = Vec::new();
        let mut hints = Vec::new();
        // As in Nginx: `ssl_client_certificate` is opened only where clients
        // are verified, `ssl_trusted_certificate` always.
        let client = tls.client_certificate.as_ref();
        let client = client.filter(|_| mode != VerifyClient::Off);
        for file in client.into_iter().chain(&tls.trusted_certificate) {
            let certificates = loader.authorities(file)?;
            if mode == VerifyClient::Off {
                continue;
            }
            let authorities = Authorities::new(certificates.iter().cloned()).map_err(|reason| {
                let path = file.value.display();
                let message = format!("cannot load CA certificate \"{path}\": {reason}");
                TlsError::at(&file.position, message)
            })?;
            if client.is_some_and(|client| std::ptr::eq(client, file)) {
                hints = authorities
                    .subjects()
                    .map(DistinguishedName::in_sequence)
                    .collect();
            }
            all.extend(certificates.iter().cloned());
        }
        if mode != VerifyClient::Off && all.is_empty() {
            let message = "no ssl_client_certificate for ssl_verify_client";
            return Err(TlsError::at(&tls.verify_client.position, message));
        }
        let authorities = Authorities::new(all)
            .map_err(|reason| TlsError::at(&tls.verify_client.position, reason))?;
        if mode != VerifyClient::Off && authorities.anchors().is_empty() {
            loader.warn(format!(
                "no client can be verified: the CA files hold no self-signed root, \
                 and a chain must end in one in {}",
                tls.verify_client.position
            ));
        }
        let size: usize = hints.iter().map(|name| name.as_ref().len() + 2).sum();
        if size > MAX_HINTS {
            loader.warn(format!(
                "the names in ssl_client_certificate take {size} bytes and do not fit \
                 a handshake; none is sent in {}",
                tls.verify_client.position
            ));
            hints.clear();
        }
        Ok(Self {
            mode,
            digest: digest_of(mode, depth, &authorities),
            authorities,
            hints,
            depth,
            algorithms,
        })
    }

    /// `ssl_verify_client`.
    pub fn mode(&self) -> VerifyClient {
        self.mode
    }

    /// SHA-256 over mode, CA set and depth: two policies with the same digest
    /// let in the same clients. Under `off` nothing else counts.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Judges the client of a finished handshake, given the chain that rustls
    /// holds for it.
    ///
    /// After a full handshake the verifier has already judged the chain, and
    /// this makes the proof. After a resumption rustls has judged nothing: the
    /// chain comes out of the session, and is verified again whole, so that it
    /// cannot outlive a certificate or a CA.
    ///
    /// # Errors
    ///
    /// The chain is no longer acceptable, or none is there and one is demanded.
    /// The connection must be closed.
    pub fn admit(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        resumed: bool,
        now: UnixTime,
    ) -> Result<Option<VerifiedClient>, Refusal> {
        if self.mode == VerifyClient::Off {
            return Ok(None);
        }
        let Some((leaf, presented)) = chain.and_then(<[_]>::split_first) else {
            return match self.mode {
                VerifyClient::On => Err(Refusal::no_certificate()),
                VerifyClient::Optional | VerifyClient::Off => Ok(None),
            };
        };
        if resumed {
            self.verify(leaf, presented, now)
                .map_err(|reason| Refusal::of(leaf, reason))?;
        }
        Ok(Some(VerifiedClient {
            leaf: leaf.clone().into_owned(),
            identity: OnceCell::new(),
        }))
    }

    /// The whole judgement of a chain.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), RefusalReason> {
        if let Some(pinned) = self.authorities.pinned(leaf) {
            pinned.check_pinned(now)?;
            return check_purpose(leaf);
        }
        let parsed = match EndEntityCert::try_from(leaf) {
            Ok(parsed) => parsed,
            Err(webpki::Error::UnsupportedCertVersion) => {
                let leaf = V1Leaf::read(leaf)?;
                return self
                    .authorities
                    .check_v1(&leaf, self.depth, &self.algorithms, now);
            }
            Err(error) => return Err(RefusalReason::of(&error)),
        };
        let chain = self.chain_of(leaf, &parsed, presented);
        let check_path = |path: &VerifiedPath<'_>| self.check_path(path, now);
        parsed
            .verify_for_usage(
                self.algorithms.all,
                self.authorities.anchors(),
                &chain,
                now,
                webpki::KeyUsage::client_auth(),
                None,
                Some(&check_path),
            )
            .map_err(|error| match RefusalReason::of(&error) {
                RefusalReason::UnknownIssuer if chain.len() > self.depth => {
                    RefusalReason::ChainTooLong
                }
                RefusalReason::UnknownIssuer if parsed.issuer() == parsed.subject() => {
                    RefusalReason::SelfSigned
                }
                RefusalReason::UnknownIssuer if !chain.is_empty() => {
                    RefusalReason::UnknownIntermediate
                }
                reason => reason,
            })?;
        check_purpose(leaf)
    }

    /// What OpenSSL asks of a path beyond webpki. Errors are webpki's, which
    /// may then go on to find a better path.
    fn check_path(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let mut count = 0;
        for intermediate in path.intermediate_certificates() {
            count += 1;
            check_signs_certificates(&intermediate.der())?;
        }
        if count > self.depth {
            return Err(webpki::Error::MaximumPathDepthExceeded);
        }
        self.authorities
            .check_anchor(path.anchor(), count, now)
            .map_err(|reason| match reason {
                RefusalReason::Expired => webpki::Error::CertExpired {
                    time: now,
                    not_after: now,
                },
                RefusalReason::NotValidYet => webpki::Error::CertNotValidYet {
                    time: now,
                    not_before: now,
                },
                RefusalReason::PathLengthExceeded => webpki::Error::PathLenConstraintViolated,
                RefusalReason::InvalidCa => webpki::Error::EndEntityUsedAsCa,
                _ => webpki::Error::UnknownIssuer,
            })
    }

    /// The one line of intermediates above a leaf, from those presented and
    /// those in the CA files.
    ///
    /// webpki would search by itself, but it tries every order of what it is
    /// given: a few dozen certificates that all carry one name keep it busy for
    /// seconds. This takes one candidate per step; where several carry the
    /// issuer's name, the first whose key fits the signature. At most one more
    /// than the depth allows, so that an overlong chain is told from a broken
    /// one.
    fn chain_of<'c>(
        &'c self,
        leaf: &CertificateDer<'c>,
        parsed: &EndEntityCert<'_>,
        presented: &'c [CertificateDer<'c>],
    ) -> Vec<CertificateDer<'c>> {
        let presented = presented.iter().take(MAX_PRESENTED);
        let offered: Vec<(&CertificateDer<'c>, EndEntityCert<'_>)> = presented
            .chain(self.authorities.intermediates())
            .filter_map(|der| Some((der, EndEntityCert::try_from(der).ok()?)))
            .collect();
        let mut chain: Vec<CertificateDer<'c>> = Vec::new();
        let mut issuer = parsed.issuer();
        while chain.len() <= self.depth.min(MAX_DEPTH) {
            let signed = chain.last().unwrap_or(leaf);
            let mut candidates = offered.iter().filter(|(der, candidate)| {
                candidate.subject() == issuer
                    && candidate.issuer() != issuer
                    && !chain.contains(*der)
            });
            let Some(first) = candidates.next() else {
                break;
            };
            let mut rest = candidates.peekable();
            let chosen = if rest.peek().is_none() {
                Some(first)
            } else {
                std::iter::once(first).chain(rest).find(|(_, candidate)| {
                    let key = candidate.subject_public_key_info();
                    v1::check_signature(signed, &key, &self.algorithms).is_ok()
                })
            };
            let Some((der, parsed)) = chosen else {
                break;
            };
            issuer = parsed.issuer();
            chain.push((*der).clone());
        }
        chain
    }
}

/// What OpenSSL's `sslclient` purpose asks of a leaf: clientAuth where there is
/// an extendedKeyUsage, digitalSignature or keyAgreement where there is a
/// keyUsage. webpki asks only the former.
fn check_purpose(leaf: &[u8]) -> Result<(), RefusalReason> {
    let malformed = RefusalReason::BadEncoding;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed)?;
    let usage = parsed.key_usage().map_err(|_| malformed)?;
    let extended = parsed.extended_key_usage().map_err(|_| malformed)?;
    let fits = usage.is_none_or(|ext| ext.value.digital_signature() || ext.value.key_agreement())
        && extended.is_none_or(|ext| ext.value.client_auth);
    if fits {
        Ok(())
    } else {
        Err(RefusalReason::InvalidPurpose)
    }
}

/// keyCertSign where an intermediate has a keyUsage, which webpki ignores.
fn check_signs_certificates(intermediate: &[u8]) -> Result<(), webpki::Error> {
    let (_, parsed) = X509Certificate::from_der(intermediate).map_err(|_| webpki::Error::BadDer)?;
    let usage = parsed.key_usage().map_err(|_| webpki::Error::BadDer)?;
    if usage.is_none_or(|ext| ext.value.key_cert_sign()) {
        Ok(())
    } else {
        Err(webpki::Error::EndEntityUsedAsCa)
    }
}

fn digest_of(mode: VerifyClient, depth: usize, authorities: &Authorities) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"ringwall client-auth policy 1\0");
    match mode {
        VerifyClient::Off => context.update(b"off"),
        VerifyClient::On | VerifyClient::Optional => {
            context.update(if mode == VerifyClient::On {
                b"on "
            } else {
                b"opt"
            });
            context.update(&(depth as u64).to_be_bytes());
            for der in authorities.sorted_der() {
                context.update(&(der.len() as u64).to_be_bytes());
                context.update(der);
            }
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

impl ClientCertVerifier for ClientAuth {
    fn offer_client_auth(&self) -> bool {
        self.mode != VerifyClient::Off
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mode == VerifyClient::On
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        refusal::record(None);
        self.verify(end_entity, intermediates, now)
            .map(|()| ClientCertVerified::assertion())
            .map_err(|reason| {
                refusal::record(Some(Refusal::of(end_entity, reason)));
                reason.to_rustls()
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict = if V1Leaf::is_v1(cert) {
            self.verify_tls12_v1(message, cert, dss)
        } else {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        };
        verdict.inspect_err(|error| record_signature(cert, error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict = if V1Leaf::is_v1(cert) {
            let leaf = V1Leaf::read(cert).map_err(RefusalReason::to_rustls)?;
            let key = leaf.public_key();
            verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
        } else {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        };
        verdict.inspect_err(|error| record_signature(cert, error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientAuth {
    /// As rustls' `verify_tls12_signature`, which insists on parsing the
    /// certificate: TLS 1.2's schemes leave the curve open, so every algorithm
    /// of the scheme is tried.
    fn verify_tls12_v1(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let leaf = V1Leaf::read(cert).map_err(RefusalReason::to_rustls)?;
        let key = leaf.public_key();
        let key = RawPublicKeyEntity::try_from(&key)
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        let (_, candidates) = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == dss.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        for &algorithm in *candidates {
            match key.verify_signature(algorithm, message, dss.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => break,
            }
        }
        Err(CertificateError::BadSignature.into())
    }
}

fn record_signature(cert: &CertificateDer<'_>, error: &rustls::Error) {
    if matches!(error, rustls::Error::InvalidCertificate(_)) {
        let refusal = Refusal::of(cert, RefusalReason::BadHandshakeSignature);
        refusal::record(Some(refusal));
    }
}

/// Proof that a client met the policy of its server block. Made by
/// [`ClientAuth::admit`] alone; belongs to one connection on one worker.
#[derive(Debug)]
pub struct VerifiedClient {
    leaf: CertificateDer<'static>,
    identity: OnceCell<Option<Identity>>,
}

impl VerifiedClient {
    /// The certificate itself. Of what else the client sent, nothing is kept:
    /// identity is the leaf's alone.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// What the leaf says, worked out when first asked for. `None` only if
    /// x509-parser cannot read what was verified.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity
            .get_or_init(|| Identity::of(&self.leaf))
            .as_ref()
    }
}

#[cfg(test)]
pub(super) mod tests;
