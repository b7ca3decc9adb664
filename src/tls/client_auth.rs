//! Who may connect: the client-certificate policy of a server block.
//!
//! A [`ClientAuth`] is made from `ssl_verify_client`, `ssl_client_certificate`,
//! `ssl_trusted_certificate`, `ssl_verify_depth` and `ssl_crl`. It judges a chain twice in
//! a connection's life: as rustls' verifier during a full handshake, and in
//! [`ClientAuth::admit`] at every resumption, where rustls asks nobody.
//! [`ClientAuth::admit`] is the only maker of [`VerifiedClient`], and identity
//! reaches a backend as verified only from one of those: a client that is let
//! in without (`optional_no_ca`), or answered without (`ssl_verify_failure
//! http`), is an [`UnverifiedClient`].
//!
//! Signatures under certificates are checked once (see `remembered`), and so are
//! chains, as long as they are valid, where no CRL has a word in it (see
//! `chains`); all else each time. Chains are verified by webpki; what OpenSSL asks for beyond it (see
//! `authorities`) is checked on the path it found. The one thing let in that
//! webpki refuses is a leaf of X.509 v1 (see `v1`).

mod authorities;
mod chains;
pub(super) mod crl;
mod refusal;
mod remembered;
pub(super) mod revocation;
pub(super) mod servers;
pub(super) mod v1;

use std::cell::{OnceCell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerMisbehaved, SignatureScheme,
};
use webpki::{EndEntityCert, RawPublicKeyEntity, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use self::authorities::Authorities;
use self::chains::{Fact, Period};
pub use self::refusal::{Refusal, RefusalReason, refusal_behind, take_refusal};
use self::revocation::{Issuer, Judged, Revocation};
use self::v1::V1Leaf;
use super::authorization::Judgement;
use super::certs::{Loader, TlsError};
use super::identity::Identity;
use super::identity::details::Details;
use super::identity::forms::{self, Proven};
use super::identity::pem;
use crate::config::{
    ClientIdentity, CrlExpired, Located, PemSource, Tls, VerifyClient, VerifyFailure,
};

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
    revocation: Option<Revocation>,
    failure: VerifyFailure,
    purpose: Purpose,
    digest: [u8; 32],
    demands: [u8; 32],
}

/// Whose certificates are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Client,
    /// An upstream's (see [`servers`]).
    Server,
}

/// What decides a policy within one build; files are read once in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PolicyKey {
    mode: VerifyClient,
    client: Option<PemSource>,
    trusted: Option<PemSource>,
    depth: u32,
    crl: Option<PathBuf>,
    crl_expired: CrlExpired,
    failure: VerifyFailure,
}

impl ClientAuth {
    /// The policy that a server block's directives describe, shared with every
    /// other block of this build that says the same.
    ///
    /// # Errors
    ///
    /// A CA file or a CRL file cannot be read, is empty, or holds what cannot
    /// be one; or certificates are to be verified and there is no CA file.
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
            crl: tls.crl.as_ref().map(|file| file.value.clone()),
            crl_expired: tls.crl_expired,
            failure: tls.verify_failure,
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
        let algorithms = remembered::remembering(algorithms);
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
        if matches!(mode, VerifyClient::On | VerifyClient::Optional) && all.is_empty() {
            let message = "no ssl_client_certificate for ssl_verify_client";
            return Err(TlsError::at(&tls.verify_client.position, message));
        }
        let authorities = Authorities::new(all)
            .map_err(|reason| TlsError::at(&tls.verify_client.position, reason))?;
        let any_authority = authorities.subjects().next().is_some();
        if mode != VerifyClient::Off && any_authority && authorities.anchors().is_empty() {
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
        let digest = digest_of(mode, depth, &authorities);
        let (revocation, demands) =
            read_revocation(tls, &authorities, &algorithms, &digest, loader)?;
        Ok(Self {
            mode,
            revocation,
            failure: tls.verify_failure,
            purpose: Purpose::Client,
            digest,
            demands,
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

    /// SHA-256 over all that decides who is let in, CRLs included, which
    /// [`Self::digest`] leaves out.
    pub fn demands(&self) -> &[u8; 32] {
        &self.demands
    }

    /// Judges the client of a finished handshake, given the chain that rustls
    /// holds for it.
    ///
    /// After a full handshake the verifier has already judged the chain, and
    /// this makes the proof. After a resumption rustls has judged nothing: the
    /// chain comes out of the session, and is verified again whole, so that it
    /// cannot outlive a certificate or a CA. So it is where the verifier lets
    /// everything pass to have it judged here.
    ///
    /// # Errors
    ///
    /// The chain is no longer acceptable, or none is there and one is demanded.
    /// Without [`Self::tolerate`] the connection must be closed.
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
                VerifyClient::Optional | VerifyClient::OptionalNoCa | VerifyClient::Off => Ok(None),
            };
        };
        if resumed || self.judges_late() {
            self.verify(leaf, presented, now)
                .map_err(|reason| Refusal::of(leaf, reason))?;
        }
        Ok(Some(VerifiedClient {
            leaf: leaf.clone().into_owned(),
            chain: Box::default(),
            intermediates: self.needed(leaf, presented),
            identity: OnceCell::new(),
            details: OnceCell::new(),
            pem: OnceCell::new(),
            escaped_pem: OnceCell::new(),
            fields: RefCell::default(),
            judgement: Judgement::default(),
        }))
    }

    /// Gives the proof the intermediates by which it was reached, for a backend
    /// that asks for the chain. Of what the client presented only the path
    /// that was verified counts, so the path is found once more.
    pub fn keep_chain(
        &self,
        client: &mut VerifiedClient,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) {
        let Ok(parsed) = EndEntityCert::try_from(&client.leaf) else {
            return; // of version 1: signed by a configured CA itself
        };
        let chain = self.chain_of(&client.leaf, &parsed, presented);
        let path = self.path(&parsed, &chain, now);
        // A leaf that is configured itself has no path.
        client.chain = path.map_or_else(
            |_| Box::default(),
            |path| {
                let path = path.intermediate_certificates();
                path.map(|one| one.der().into_owned()).collect()
            },
        );
    }

    /// Judges anew, under this policy, a client that one with the same
    /// [`Self::digest`] has let in.
    ///
    /// # Errors
    ///
    /// It is no longer acceptable, and its connection must be closed.
    pub fn readmit(&self, client: &VerifiedClient, now: UnixTime) -> Result<(), Refusal> {
        self.verify(&client.leaf, &client.intermediates, now)
            .map_err(|reason| Refusal::of(&client.leaf, reason))
    }

    /// Whether there can be a connection with a client that was not admitted:
    /// under `optional_no_ca` if its CA is unknown, under `ssl_verify_failure
    /// http` only to tell it so.
    ///
    /// # Errors
    ///
    /// The refusal, where there cannot.
    pub fn tolerate(
        &self,
        refusal: Refusal,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Result<UnverifiedClient, Refusal> {
        let status = match self.failure {
            _ if self.tolerates(refusal.reason) => None,
            VerifyFailure::Alert => return Err(refusal),
            VerifyFailure::Http if refusal.reason == RefusalReason::NoCertificate => {
                Some(NO_CERTIFICATE)
            }
            VerifyFailure::Http => Some(CERTIFICATE_ERROR),
        };
        let leaf = chain.and_then(<[_]>::first);
        Ok(UnverifiedClient {
            leaf: leaf.map(|leaf| leaf.clone().into_owned()),
            identity: OnceCell::new(),
            refusal,
            status,
        })
    }

    fn tolerates(&self, reason: RefusalReason) -> bool {
        self.mode == VerifyClient::OptionalNoCa && reason.is_unknown_authority()
    }

    /// Whether the verifier may let pass what [`Self::admit`] then refuses.
    fn judges_late(&self) -> bool {
        self.failure == VerifyFailure::Http || self.mode == VerifyClient::OptionalNoCa
    }

    /// Of the certificates presented, those that lead to a CA: all that a
    /// later judgement needs.
    fn needed(
        &self,
        leaf: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
    ) -> Box<[CertificateDer<'static>]> {
        if presented.is_empty() {
            return Box::default();
        }
        let Ok(parsed) = EndEntityCert::try_from(leaf) else {
            return Box::default();
        };
        self.chain_of(leaf, &parsed, presented)
            .into_iter()
            .filter(|der| presented.contains(der))
            .map(CertificateDer::into_owned)
            .collect()
    }

    /// The path from a leaf to an authority by which it is verified, apart
    /// from revocation.
    fn path<'p>(
        &'p self,
        leaf: &'p EndEntityCert<'p>,
        chain: &'p [CertificateDer<'p>],
        now: UnixTime,
    ) -> Result<VerifiedPath<'p>, webpki::Error> {
        let check_path = |path: &VerifiedPath<'_>| self.check_path(path, now);
        leaf.verify_for_usage(
            self.algorithms.all,
            self.authorities.anchors(),
            chain,
            now,
            match self.purpose {
                Purpose::Client => webpki::KeyUsage::client_auth(),
                Purpose::Server => webpki::KeyUsage::server_auth(),
            },
            None,
            Some(&check_path),
        )
    }

    /// The whole judgement of a chain.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), RefusalReason> {
        if !self.remembers_chains() {
            return self.search(leaf, presented, now).map(|_| ());
        }
        let fact = Fact::of(&self.demands, leaf, presented);
        if fact.is_good(now) {
            return Ok(());
        }
        if let Some(period) = self.search(leaf, presented, now)? {
            fact.remember(period);
        }
        Ok(())
    }

    /// Whether a judgement depends on nothing but policy, chain and periods.
    fn remembers_chains(&self) -> bool {
        self.revocation.is_none() && self.purpose != Purpose::Server
    }

    /// As [`Self::verify`], whatever is known; when the path that was found is
    /// valid, if it is one of webpki's and that is to be remembered.
    fn search(
        &self,
        leaf: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Option<Period>, RefusalReason> {
        if let Some(pinned) = self.authorities.pinned(leaf) {
            EndEntityCert::try_from(leaf).map_err(|error| RefusalReason::of(&error))?;
            pinned.check_pinned(now)?;
            self.check_revocation(&pinned.judged(), &pinned.as_issuer(), now)?;
            return check_purpose(leaf, self.purpose).map(|()| None);
        }
        let parsed = match EndEntityCert::try_from(leaf) {
            Ok(parsed) => parsed,
            Err(webpki::Error::UnsupportedCertVersion) => {
                let leaf = V1Leaf::read(leaf)?;
                let path = self
                    .authorities
                    .check_v1(&leaf, self.depth, &self.algorithms, now)
                    .map_err(|reason| match reason {
                        RefusalReason::UnknownIssuer if presents_root(leaf.issuer, presented) => {
                            RefusalReason::SelfSignedInChain
                        }
                        reason => reason,
                    })
                    .map_err(|reason| self.without_authority(reason))?;
                return self.check_v1_revocation(&leaf, &path, now).map(|()| None);
            }
            Err(error) => return Err(RefusalReason::of(&error)),
        };
        let chain = self.chain_of(leaf, &parsed, presented);
        let path = self
            .path(&parsed, &chain, now)
            .map_err(|error| match RefusalReason::of(&error) {
                // As `openssl req -x509` makes them: its own CA.
                RefusalReason::InvalidPurpose
                    if error == webpki::Error::CaUsedAsEndEntity
                        && parsed.issuer() == parsed.subject() =>
                {
                    RefusalReason::SelfSigned
                }
                RefusalReason::UnknownIssuer if chain.len() > self.depth => {
                    RefusalReason::ChainTooLong
                }
                RefusalReason::UnknownIssuer if parsed.issuer() == parsed.subject() => {
                    RefusalReason::SelfSigned
                }
                RefusalReason::UnknownIssuer
                    if presents_root(&top_issuer(&parsed, &chain), presented) =>
                {
                    RefusalReason::SelfSignedInChain
                }
                RefusalReason::UnknownIssuer if !chain.is_empty() => {
                    RefusalReason::UnknownIntermediate
                }
                reason => reason,
            })
            .map_err(|reason| self.without_authority(reason))?;
        self.check_path_revocation(&path, now)?;
        check_purpose(leaf, self.purpose)?;
        if !self.remembers_chains() {
            return Ok(None);
        }
        let mut above = 0;
        let mut period = Period::of(leaf);
        for intermediate in path.intermediate_certificates() {
            above += 1;
            period = period.and(Period::of(&intermediate.der()));
        }
        let root = self.authorities.check_anchor(path.anchor(), above, now)?;
        Ok(Some(period.and(root.period())))
    }

    /// OpenSSL looks for the CRL of a chain that ends in a root it does not
    /// know, and does not find it.
    fn without_authority(&self, reason: RefusalReason) -> RefusalReason {
        match reason {
            RefusalReason::SelfSigned | RefusalReason::SelfSignedInChain
                if self.revocation.is_some() =>
            {
                RefusalReason::NoCrl
            }
            reason => reason,
        }
    }

    /// `ssl_crl`, from the leaf up to the root.
    fn check_path_revocation(
        &self,
        path: &VerifiedPath<'_>,
        now: UnixTime,
    ) -> Result<(), RefusalReason> {
        if self.revocation.is_none() {
            return Ok(());
        }
        let intermediates: Vec<_> = path.intermediate_certificates().collect();
        let root = self
            .authorities
            .check_anchor(path.anchor(), intermediates.len(), now)?;
        let leaf: &webpki::Cert<'_> = path.end_entity();
        let certificates = std::iter::once(leaf).chain(intermediates.iter().copied());
        for (position, certificate) in certificates.enumerate() {
            let judged = Judged {
                der: &certificate.der(),
                serial: certificate.serial(),
                issuer: certificate.issuer(),
                is_authority: position > 0,
            };
            let issuer = match intermediates.get(position) {
                Some(issuer) => Issuer {
                    key: issuer.subject_public_key_info(),
                    may_sign_crls: signs_crls(&issuer.der()),
                },
                None => root.as_issuer(),
            };
            self.check_revocation(&judged, &issuer, now)?;
        }
        self.check_revocation(&root.judged(), &root.as_issuer(), now)
    }

    /// The same for a v1 leaf, whose path is of configured CAs.
    fn check_v1_revocation(
        &self,
        leaf: &V1Leaf<'_>,
        path: &[&authorities::Authority],
        now: UnixTime,
    ) -> Result<(), RefusalReason> {
        let mut judged = Judged {
            der: leaf.der,
            serial: leaf.serial,
            issuer: leaf.issuer,
            is_authority: false,
        };
        for authority in path {
            self.check_revocation(&judged, &authority.as_issuer(), now)?;
            judged = authority.judged();
        }
        let Some(root) = path.last() else {
            return Err(RefusalReason::UnknownIssuer);
        };
        self.check_revocation(&judged, &root.as_issuer(), now)
    }

    fn check_revocation(
        &self,
        judged: &Judged<'_>,
        issuer: &Issuer<'_>,
        now: UnixTime,
    ) -> Result<(), RefusalReason> {
        match &self.revocation {
            Some(revocation) => revocation.check(judged, issuer, &self.algorithms, now),
            None => Ok(()),
        }
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
            .map(|_| ())
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

/// The name of whoever should have signed the last certificate of a chain.
fn top_issuer(leaf: &EndEntityCert<'_>, chain: &[CertificateDer<'_>]) -> Vec<u8> {
    match chain.last().map(EndEntityCert::try_from) {
        Some(Ok(top)) => top.issuer().to_vec(),
        _ => leaf.issuer().to_vec(),
    }
}

/// Whether a root of this name was presented.
fn presents_root(name: &[u8], presented: &[CertificateDer<'_>]) -> bool {
    presented.iter().take(MAX_PRESENTED).any(|der| {
        EndEntityCert::try_from(der).is_ok_and(|one| one.subject() == name && one.issuer() == name)
    })
}

/// What OpenSSL's purposes `sslclient` and `sslserver` ask of a leaf: clientAuth
/// or serverAuth where there is an extendedKeyUsage, digitalSignature or
/// keyAgreement (to a server also keyEncipherment) where there is a keyUsage.
/// webpki asks only the former.
fn check_purpose(leaf: &[u8], purpose: Purpose) -> Result<(), RefusalReason> {
    let malformed = RefusalReason::BadEncoding;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed)?;
    let usage = parsed.key_usage().map_err(|_| malformed)?;
    let extended = parsed.extended_key_usage().map_err(|_| malformed)?;
    let server = purpose == Purpose::Server;
    let fits = usage.is_none_or(|ext| {
        ext.value.digital_signature()
            || ext.value.key_agreement()
            || (server && ext.value.key_encipherment())
    }) && extended.is_none_or(|ext| match purpose {
        Purpose::Client => ext.value.client_auth,
        Purpose::Server => ext.value.server_auth,
    });
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

fn signs_crls(issuer: &[u8]) -> bool {
    let usage = X509Certificate::from_der(issuer).map(|(_, parsed)| {
        let usage = parsed.key_usage();
        usage.is_ok_and(|usage| usage.is_none_or(|ext| ext.value.crl_sign()))
    });
    usage.unwrap_or(false)
}

/// The CRLs of a policy, and the digest of all that it demands.
fn read_revocation(
    tls: &Tls,
    authorities: &Authorities,
    algorithms: &WebPkiSupportedAlgorithms,
    digest: &[u8; 32],
    loader: &mut Loader,
) -> Result<(Option<Revocation>, [u8; 32]), TlsError> {
    // As in Nginx: read whether clients are verified or not.
    let Some(file) = &tls.crl else {
        return Ok((None, *digest));
    };
    let crls = loader.crls(file)?;
    if tls.verify_client.value == VerifyClient::Off {
        return Ok((None, *digest));
    }
    let path = file.value.display();
    let (revocation, strangers) = Revocation::new(&crls, tls.crl_expired, authorities, algorithms)
        .map_err(|reason| {
            TlsError::at(
                &file.position,
                format!("cannot load CRL \"{path}\": {reason}"),
            )
        })?;
    for name in strangers {
        loader.warn(format!(
            "CRL \"{path}\" is issued by \"{name}\", which is none of the CAs configured: \
             it counts where a client presents that CA's certificate in {}",
            file.position
        ));
    }
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"ringwall client-auth demands 1\0");
    context.update(digest);
    context.update(match tls.crl_expired {
        CrlExpired::Allow => b"allow",
        CrlExpired::Deny => b"deny ",
    });
    context.update(&crls.digest);
    Ok((Some(revocation), finish(context)))
}

fn finish(context: digest::Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn digest_of(mode: VerifyClient, depth: usize, authorities: &Authorities) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"ringwall client-auth policy 1\0");
    match mode {
        VerifyClient::Off => context.update(b"off"),
        VerifyClient::On | VerifyClient::Optional | VerifyClient::OptionalNoCa => {
            context.update(match mode {
                VerifyClient::On => b"on ",
                VerifyClient::OptionalNoCa => b"any",
                _ => b"opt",
            });
            context.update(&(depth as u64).to_be_bytes());
            for der in authorities.sorted_der() {
                context.update(&(der.len() as u64).to_be_bytes());
                context.update(der);
            }
        }
    }
    finish(context)
}

impl ClientCertVerifier for ClientAuth {
    fn offer_client_auth(&self) -> bool {
        self.mode != VerifyClient::Off
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mode == VerifyClient::On && self.failure == VerifyFailure::Alert
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
        if self.failure == VerifyFailure::Http {
            // Judged by `admit`, which is called after every handshake: the
            // client is to be told by HTTP. That it holds the key is still
            // checked by the handshake.
            return Ok(ClientCertVerified::assertion());
        }
        match self.verify(end_entity, intermediates, now) {
            Err(reason) if !self.tolerates(reason) => {
                refusal::record(Some(Refusal::of(end_entity, reason)));
                Err(reason.to_rustls())
            }
            Ok(()) | Err(_) => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict = match self.key_unread(cert) {
            Some(key) => self.verify_tls12_raw(message, key, dss),
            None => verify_tls12_signature(message, cert, dss, &self.algorithms),
        };
        verdict.inspect_err(|error| record_signature(cert, error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict = match self.key_unread(cert) {
            Some(key) => key.map_err(RefusalReason::to_rustls).and_then(|key| {
                verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            }),
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        };
        verdict.inspect_err(|error| record_signature(cert, error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientAuth {
    /// The key of a certificate that rustls would refuse to read, where its
    /// handshake may go on nevertheless: that of a v1 leaf, and that of one
    /// whose holder is to be told by HTTP what is wrong with it.
    fn key_unread<'c>(
        &self,
        cert: &'c CertificateDer<'_>,
    ) -> Option<Result<SubjectPublicKeyInfoDer<'c>, RefusalReason>> {
        if V1Leaf::is_v1(cert) {
            return Some(V1Leaf::read(cert).map(|leaf| leaf.public_key()));
        }
        let told = self.failure == VerifyFailure::Http && EndEntityCert::try_from(cert).is_err();
        told.then(|| match X509Certificate::from_der(cert) {
            Ok((_, parsed)) => Ok(parsed.public_key().raw.to_vec().into()),
            Err(_) => Err(RefusalReason::BadEncoding),
        })
    }

    /// As rustls' `verify_tls12_signature`, which insists on parsing the
    /// certificate: TLS 1.2's schemes leave the curve open, so every algorithm
    /// of the scheme is tried.
    fn verify_tls12_raw(
        &self,
        message: &[u8],
        key: Result<SubjectPublicKeyInfoDer<'_>, RefusalReason>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = key.map_err(RefusalReason::to_rustls)?;
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
    /// The intermediates of the verified path, the leaf's issuer first; empty
    /// unless [`ClientAuth::keep_chain`] put them there.
    chain: Box<[CertificateDer<'static>]>,
    /// Presented and needed to verify it, for a judgement after a reload.
    intermediates: Box<[CertificateDer<'static>]>,
    identity: OnceCell<Option<Identity>>,
    details: OnceCell<Option<Box<Details>>>,
    pem: OnceCell<Box<str>>,
    escaped_pem: OnceCell<Box<str>>,
    /// What [`Self::fields`] made, by what it was asked for: few locations of
    /// one connection differ in that.
    fields: RefCell<Vec<(ClientIdentity, Rc<str>)>>,
    /// What [`super::authorization`] remembers about this client.
    pub(super) judgement: Judgement,
}

impl VerifiedClient {
    /// The certificate itself: identity is the leaf's alone.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// Whether its certificate, or one that is needed to verify it, has ended.
    pub fn has_expired(&self, now: UnixTime) -> bool {
        let now = now.as_secs().cast_signed();
        std::iter::once(&self.leaf)
            .chain(&self.intermediates)
            .filter_map(|der| X509Certificate::from_der(der).ok())
            .any(|(_, parsed)| parsed.validity().not_after.timestamp() < now)
    }

    /// What the leaf says, worked out when first asked for. `None` only if
    /// x509-parser cannot read what was verified.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity
            .get_or_init(|| Identity::of(&self.leaf))
            .as_ref()
    }

    /// What else the leaf says, under the same rules.
    pub fn details(&self) -> Option<&Details> {
        self.details
            .get_or_init(|| Details::of(&self.leaf).map(Box::new))
            .as_deref()
    }

    /// The leaf as PEM, made when first asked for.
    pub fn pem(&self) -> &str {
        self.pem.get_or_init(|| pem::pem(&self.leaf).into())
    }

    /// [`Self::pem`], percent-encoded.
    pub fn escaped_pem(&self) -> &str {
        self.escaped_pem
            .get_or_init(|| pem::escaped(self.pem()).into())
    }

    /// The fields that tell a backend of this client, as whole lines; made
    /// when first asked for. `by` are the server certificate's URIs, the same
    /// for all of a connection's life.
    pub fn fields(&self, what: ClientIdentity, by: &[Box<str>]) -> Rc<str> {
        let mut made = self.fields.borrow_mut();
        if let Some((_, fields)) = made.iter().find(|(known, _)| *known == what) {
            return Rc::clone(fields);
        }
        let chain: Vec<&[u8]> = self.chain.iter().map(|der| &**der).collect();
        let fields: Rc<str> = forms::fields(
            what,
            Proven {
                leaf: &self.leaf,
                chain: &chain,
                by,
            },
        )
        .into();
        made.push((what, Rc::clone(&fields)));
        fields
    }
}

/// Nginx's statuses for a certificate that is not accepted, and for none.
const CERTIFICATE_ERROR: u16 = 495;
const NO_CERTIFICATE: u16 = 496;

/// A client that did not meet the policy of its server block and has a
/// connection nevertheless. It holds the key of the certificate that it sent;
/// nobody vouches for what that says. Made by [`ClientAuth::tolerate`] alone,
/// and never a [`VerifiedClient`].
#[derive(Debug)]
pub struct UnverifiedClient {
    leaf: Option<CertificateDer<'static>>,
    identity: OnceCell<Option<Identity>>,
    refusal: Refusal,
    status: Option<u16>,
}

impl UnverifiedClient {
    /// What all its requests are answered with; `None`: they are served, as
    /// under `optional_no_ca`.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Why it is not verified.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// What stands behind `FAILED:` in `$ssl_client_verify`; `None` where no
    /// certificate came.
    pub fn failure(&self) -> Option<&'static str> {
        self.leaf.as_ref().map(|_| self.refusal.reason.text())
    }

    /// What the certificate says, for variables that show it as Nginx's do.
    pub fn claimed_identity(&self) -> Option<&Identity> {
        let leaf = self.leaf.as_ref()?;
        self.identity.get_or_init(|| Identity::of(leaf)).as_ref()
    }
}

#[cfg(test)]
pub(super) mod tests;
