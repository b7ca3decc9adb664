//! `ssl_crl`: whether the certificates of a verified path are still good.
//!
//! As OpenSSL does with `X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL`,
//! which Nginx sets: every certificate of the path, the root included, needs a
//! list of its issuer that is in force and does not name it. A certificate
//! without such a list is refused, or a lost file would revoke nothing.

use std::sync::{Arc, OnceLock};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateRevocationListDer, SubjectPublicKeyInfoDer, UnixTime};

use super::authorities::Authorities;
use super::crl::RevocationList;
use super::refusal::RefusalReason;
use super::v1;
use crate::config::CrlExpired;

/// The lists of one file; read once in a build and shared by all policies.
#[derive(Debug)]
pub(in crate::tls) struct CrlFile {
    /// Each with its DER, for the check of its signature.
    pub(in crate::tls) lists: Vec<(
        Arc<RevocationList>,
        Arc<CertificateRevocationListDer<'static>>,
    )>,
    /// SHA-256 over all of them.
    pub(in crate::tls) digest: [u8; 32],
}

/// The lists that one policy goes by.
#[derive(Debug)]
pub(super) struct Revocation {
    lists: Vec<Bound>,
    expired: CrlExpired,
}

/// A list and the key that has signed it.
#[derive(Debug)]
struct Bound {
    list: Arc<RevocationList>,
    signer: Signer,
}

#[derive(Debug)]
enum Signer {
    /// CAs of the policy: subjectPublicKeyInfo of each.
    Known(Vec<SubjectPublicKeyInfoDer<'static>>),
    /// No CA of the policy, so an intermediate that clients present. The list
    /// is checked against the first that fits, once.
    Awaited {
        der: Arc<CertificateRevocationListDer<'static>>,
        found: OnceLock<Vec<u8>>,
    },
}

/// A certificate of a verified path.
pub(super) struct Judged<'a> {
    pub(super) der: &'a [u8],
    pub(super) serial: &'a [u8],
    /// Content octets of the Name.
    pub(super) issuer: &'a [u8],
    pub(super) is_authority: bool,
}

/// Its issuer, likewise of the path.
pub(super) struct Issuer<'a> {
    pub(super) key: SubjectPublicKeyInfoDer<'a>,
    /// No keyUsage, or one with cRLSign.
    pub(super) may_sign_crls: bool,
}

impl Revocation {
    /// Binds the lists of a file to the CAs of a policy. With them come the
    /// names of issuers that are none of these.
    ///
    /// # Errors
    ///
    /// A list bears a CA's name and not its signature, or the CA may not sign
    /// lists; in words that follow the file's name.
    pub(super) fn new(
        file: &CrlFile,
        expired: CrlExpired,
        authorities: &Authorities,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(Self, Vec<String>), String> {
        let mut lists = Vec::with_capacity(file.lists.len());
        let mut strangers = Vec::new();
        for (list, der) in &file.lists {
            let name = &list.issuer_name;
            let mut failure = None;
            let mut known = Vec::new();
            for authority in authorities.named(&list.issuer) {
                match v1::check_signature(der, authority.key(), algorithms) {
                    Ok(()) if authority.may_sign_crls() => known.push(authority.key().clone()),
                    Ok(()) => {
                        failure = Some(format!(
                            "\"{name}\" may not sign CRLs: its key usage lacks cRLSign"
                        ));
                    }
                    Err(_) => {
                        failure.get_or_insert_with(|| {
                            format!("the CRL of \"{name}\" is not signed by that CA")
                        });
                    }
                }
            }
            let signer = match failure {
                _ if !known.is_empty() => Signer::Known(known),
                Some(failure) => return Err(failure),
                None => {
                    strangers.push(name.clone());
                    Signer::Awaited {
                        der: Arc::clone(der),
                        found: OnceLock::new(),
                    }
                }
            };
            lists.push(Bound {
                list: Arc::clone(list),
                signer,
            });
        }
        Ok((Self { lists, expired }, strangers))
    }

    /// Judges one certificate of a path whose signatures have been verified.
    pub(super) fn check(
        &self,
        certificate: &Judged<'_>,
        issuer: &Issuer<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), RefusalReason> {
        let mut failure = RefusalReason::NoCrl;
        let mut best: Option<&RevocationList> = None;
        for bound in &self.lists {
            let list = &*bound.list;
            if list.issuer != certificate.issuer
                || !list.covers(certificate.der, certificate.is_authority)
            {
                continue;
            }
            if !bound.is_signed_by(&issuer.key, algorithms) {
                failure = RefusalReason::CrlSignature;
            } else if !issuer.may_sign_crls {
                failure = RefusalReason::NoCrlSign;
            } else if best.is_none_or(|best| rank(list, now) > rank(best, now)) {
                best = Some(list);
            }
        }
        let list = best.ok_or(failure)?;
        if list.revokes(certificate.serial) {
            return Err(RefusalReason::Revoked);
        }
        if list.is_from_the_future(now) {
            return Err(RefusalReason::CrlNotValidYet);
        }
        match self.expired {
            CrlExpired::Deny if list.has_expired(now) => Err(RefusalReason::CrlExpired),
            CrlExpired::Deny | CrlExpired::Allow => Ok(()),
        }
    }
}

/// One in force before one that is not, then the newest, as OpenSSL chooses.
fn rank(list: &RevocationList, now: UnixTime) -> (bool, i64) {
    let in_force = !list.has_expired(now) && !list.is_from_the_future(now);
    (in_force, list.this_update)
}

impl Bound {
    fn is_signed_by(
        &self,
        key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        match &self.signer {
            Signer::Known(keys) => keys.iter().any(|known| known.as_ref() == key.as_ref()),
            Signer::Awaited { der, found } => {
                if let Some(found) = found.get() {
                    return found == key.as_ref();
                }
                let fits = v1::check_signature(der, key, algorithms).is_ok();
                fits && found.get_or_init(|| key.as_ref().to_vec()) == key.as_ref()
            }
        }
    }
}
