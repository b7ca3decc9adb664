//! The CAs that a server block trusts, judged as OpenSSL judges its store.
//!
//! webpki takes a trust anchor as a name and a key and asks nothing else of it.
//! Nginx's users rely on more: a root that has expired lets nobody in, a
//! certificate that is not a CA signs for nobody, a path length is kept, and
//! only a self-signed certificate ends a chain, so that an intermediate in the
//! file helps to build chains but is not enough by itself. All of this is
//! checked here, on the path that webpki found.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::chains::Period;
use super::refusal::RefusalReason;
use super::revocation::{Issuer, Judged};
use super::v1;
use crate::tls::der::content;
use crate::tls::identity;

/// One certificate of a CA file.
#[derive(Debug)]
pub(super) struct Authority {
    der: CertificateDer<'static>,
    /// Content octets of the Name, as webpki gives them.
    subject: Vec<u8>,
    issuer: Vec<u8>,
    spki: SubjectPublicKeyInfoDer<'static>,
    /// basicConstraints says CA, and keyUsage, if there is one, keyCertSign.
    may_sign: bool,
    /// Without a keyUsage, or with one that has cRLSign.
    may_sign_crls: bool,
    /// Content octets.
    serial: Vec<u8>,
    path_length: Option<u32>,
    name_constraints: bool,
    not_before: i64,
    not_after: i64,
}

impl Authority {
    /// Reads a CA certificate.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that follow the file's name.
    pub(super) fn read(der: &CertificateDer<'static>) -> Result<Self, String> {
        let malformed = || "a certificate is malformed".to_owned();
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| malformed())?;
        let name = identity::rfc2253(parsed.subject()).unwrap_or_default();
        if parsed.version() != X509Version::V3 {
            return Err(format!(
                "\"{name}\" is not an X.509 version 3 certificate and cannot be a CA \
                 (\"openssl req -new -x509\" makes one that can)"
            ));
        }
        let unreadable = |_| format!("\"{name}\" has a malformed extension");
        let constraints = parsed.basic_constraints().map_err(unreadable)?;
        let usage = parsed.key_usage().map_err(unreadable)?;
        let may_sign = constraints.as_ref().is_some_and(|ext| ext.value.ca)
            && usage.as_ref().is_none_or(|ext| ext.value.key_cert_sign());
        Ok(Self {
            der: der.clone(),
            subject: content(parsed.subject().as_raw())
                .ok_or_else(malformed)?
                .to_vec(),
            issuer: content(parsed.issuer().as_raw())
                .ok_or_else(malformed)?
                .to_vec(),
            spki: parsed.public_key().raw.to_vec().into(),
            may_sign,
            may_sign_crls: usage.is_none_or(|ext| ext.value.crl_sign()),
            serial: parsed.raw_serial().to_vec(),
            path_length: constraints.and_then(|ext| ext.value.path_len_constraint),
            name_constraints: parsed.name_constraints().map_err(unreadable)?.is_some(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// The whole Name, header included, for the list sent to clients.
    pub(super) fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub(super) fn key(&self) -> &SubjectPublicKeyInfoDer<'static> {
        &self.spki
    }

    pub(super) fn may_sign_crls(&self) -> bool {
        self.may_sign_crls
    }

    /// As one whose revocation is asked for.
    pub(super) fn judged(&self) -> Judged<'_> {
        Judged {
            der: &self.der,
            serial: &self.serial,
            issuer: &self.issuer,
            is_authority: self.may_sign,
        }
    }

    /// As the issuer of one.
    pub(super) fn as_issuer(&self) -> Issuer<'_> {
        Issuer {
            key: self.spki.clone(),
            may_sign_crls: self.may_sign_crls,
        }
    }

    /// When it may issue.
    pub(super) fn period(&self) -> Period {
        Period::new(self.not_before, self.not_after)
    }

    fn self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether it may stand above a chain with so many intermediates.
    fn may_issue(&self, intermediates: usize, now: UnixTime) -> Result<(), RefusalReason> {
        v1::check_validity(self.not_before, self.not_after, now)?;
        if !self.may_sign {
            return Err(RefusalReason::InvalidCa);
        }
        match self.path_length {
            Some(limit) if intermediates > limit as usize => Err(RefusalReason::PathLengthExceeded),
            _ => Ok(()),
        }
    }
}

/// All that one policy trusts.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    list: Vec<Authority>,
    /// The self-issued ones; each with its index in `list`, at the same place
    /// in `anchor_index`.
    anchors: Vec<TrustAnchor<'static>>,
    anchor_index: Vec<usize>,
    /// The others: offered to clients' chains.
    intermediates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Sorts CA certificates into roots and intermediates; copies of one are
    /// one.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that follow the file's name.
    pub(super) fn new(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let mut authorities = Self::default();
        let mut seen = std::collections::HashSet::new();
        for der in certificates {
            if !seen.insert(der.clone()) {
                continue;
            }
            let authority = Authority::read(&der)?;
            if authority.self_issued() {
                let anchor = webpki::anchor_from_trusted_cert(&der)
                    .map_err(|error| format!("a certificate cannot be used as a CA: {error}"))?;
                authorities.anchors.push(anchor.to_owned());
                authorities.anchor_index.push(authorities.list.len());
            } else {
                authorities.intermediates.push(der);
            }
            authorities.list.push(authority);
        }
        Ok(authorities)
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    pub(super) fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// In the order of the files.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(Authority::subject)
    }

    /// Those of one name, in content octets.
    pub(super) fn named(&self, name: &[u8]) -> impl Iterator<Item = &Authority> {
        self.list.iter().filter(move |one| one.subject == name)
    }

    /// Sorted, so that the order in a file makes no other policy.
    pub(super) fn sorted_der(&self) -> Vec<&[u8]> {
        let mut all: Vec<&[u8]> = self.list.iter().map(|one| one.der.as_ref()).collect();
        all.sort_unstable();
        all
    }

    /// A self-issued certificate of the CA file presented as a leaf: trusted by
    /// being listed, as a store of OpenSSL trusts it.
    pub(super) fn pinned(&self, leaf: &CertificateDer<'_>) -> Option<&Authority> {
        self.list
            .iter()
            .find(|one| one.self_issued() && one.der.as_ref() == leaf.as_ref())
    }

    /// Judges the root of a path that webpki has verified, and finds it.
    pub(super) fn check_anchor(
        &self,
        anchor: &TrustAnchor<'_>,
        intermediates: usize,
        now: UnixTime,
    ) -> Result<&Authority, RefusalReason> {
        let matching = self
            .anchors
            .iter()
            .zip(&self.anchor_index)
            .filter(|(candidate, _)| *candidate == anchor)
            .filter_map(|(_, &index)| self.list.get(index));
        // A renewed root has the same name and key: one good one suffices.
        let mut verdict = Err(RefusalReason::UnknownIssuer);
        for authority in matching {
            verdict = authority.may_issue(intermediates, now).map(|()| authority);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    /// Judges a v1 leaf: signed by a CA of the list, which is a root or leads
    /// to one within the list, through at most `depth` intermediates. What
    /// stands above it, its issuer first.
    pub(super) fn check_v1(
        &self,
        leaf: &v1::V1Leaf<'_>,
        depth: usize,
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<Vec<&Authority>, RefusalReason> {
        leaf.check_validity(now)?;
        let mut verdict = Err(if leaf.issuer == leaf.subject {
            RefusalReason::SelfSigned
        } else {
            RefusalReason::UnknownIssuer
        });
        for authority in self.list.iter().filter(|one| one.subject == leaf.issuer) {
            verdict = leaf
                .check_signature(&authority.spki, algorithms)
                .and_then(|()| self.leads_to_root(authority, 0, depth, algorithms, now));
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    /// The way from an authority to its root, both included.
    fn leads_to_root<'s>(
        &'s self,
        authority: &'s Authority,
        below: usize,
        depth: usize,
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<Vec<&'s Authority>, RefusalReason> {
        authority.may_issue(below, now)?;
        if authority.name_constraints {
            // Only webpki evaluates these, and it does not read v1.
            return Err(RefusalReason::NameConstraint);
        }
        if authority.self_issued() {
            return Ok(vec![authority]);
        }
        if below >= depth {
            return Err(RefusalReason::ChainTooLong);
        }
        let mut verdict = Err(RefusalReason::UnknownIntermediate);
        for issuer in self
            .list
            .iter()
            .filter(|one| one.subject == authority.issuer)
        {
            verdict = v1::check_signature(&authority.der, &issuer.spki, algorithms)
                .and_then(|()| self.leads_to_root(issuer, below + 1, depth, algorithms, now));
            if let Ok(path) = &mut verdict {
                path.insert(0, authority);
                break;
            }
        }
        verdict
    }
}

impl Authority {
    /// Judges it as the leaf that a client presented.
    pub(super) fn check_pinned(&self, now: UnixTime) -> Result<(), RefusalReason> {
        v1::check_validity(self.not_before, self.not_after, now)
    }
}
