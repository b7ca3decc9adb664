//! X.509 version 1, as far as it is let in: as a leaf.
//!
//! Plain `openssl x509 -req` of OpenSSL 3.0 makes v1 certificates, and many
//! clients of Nginx hold one. webpki refuses them before it looks at anything,
//! so the few fields that a v1 leaf has are read here. It has no extensions,
//! hence no usage, no names besides the subject, and nothing that says whether
//! it is a CA: which is why it is never taken for one.
//!
//! Signatures are still checked by webpki and aws-lc-rs, through the raw public
//! key of the signer.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::refusal::RefusalReason;
use crate::tls::der::{BIT_STRING, INTEGER, SEQUENCE, tlv};

/// The fields of a v1 certificate that verification needs.
#[derive(Debug)]
pub(super) struct V1Leaf<'a> {
    pub(super) der: &'a [u8],
    /// Content octets of the Name, as webpki gives them.
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    /// Content octets.
    pub(super) serial: &'a [u8],
    not_before: i64,
    not_after: i64,
    spki: &'a [u8],
}

impl<'a> V1Leaf<'a> {
    /// Whether a certificate is in the only encoding of v1 that DER knows: no
    /// version field, the serial number comes first.
    pub(super) fn is_v1(der: &[u8]) -> bool {
        Signed::read(der).is_some_and(|signed| signed.fields.first() == Some(&INTEGER))
    }

    /// Reads a v1 certificate.
    ///
    /// # Errors
    ///
    /// It is of another version, or malformed, or carries what v1 does not
    /// have: unique identifiers or extensions.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, RefusalReason> {
        if !Self::is_v1(der) {
            return Err(RefusalReason::UnsupportedVersion);
        }
        let malformed = RefusalReason::BadEncoding;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| malformed)?;
        let extended = !parsed.extensions().is_empty()
            || parsed.issuer_uid.is_some()
            || parsed.subject_uid.is_some();
        if parsed.version() != X509Version::V1 || extended {
            return Err(malformed);
        }
        let signed = Signed::read(der).ok_or(malformed)?;
        let read = || {
            let (serial, rest) = tlv(signed.fields)?;
            let (algorithm, rest) = tlv(rest)?;
            let (issuer, rest) = tlv(rest)?;
            let (_validity, rest) = tlv(rest)?;
            let (subject, rest) = tlv(rest)?;
            let (spki, rest) = tlv(rest)?;
            // RFC 5280 §4.1.1.2: the algorithm inside must be the one outside,
            // or an attacker could swap the latter.
            let sound = rest.is_empty() && algorithm.value == signed.algorithm;
            sound.then_some((serial.value, issuer.value, subject.value, spki.whole))
        };
        let (serial, issuer, subject, spki) = read().ok_or(malformed)?;
        Ok(Self {
            der,
            issuer,
            subject,
            serial,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            spki,
        })
    }

    pub(super) fn public_key(&self) -> SubjectPublicKeyInfoDer<'a> {
        SubjectPublicKeyInfoDer::from(self.spki)
    }

    pub(super) fn check_validity(&self, now: UnixTime) -> Result<(), RefusalReason> {
        check_validity(self.not_before, self.not_after, now)
    }

    pub(super) fn check_signature(
        &self,
        signer: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), RefusalReason> {
        check_signature(self.der, signer, algorithms)
    }
}

/// Both ends included, as RFC 5280 §4.1.2.5 has it.
pub(super) fn check_validity(
    not_before: i64,
    not_after: i64,
    now: UnixTime,
) -> Result<(), RefusalReason> {
    let now = i64::try_from(now.as_secs()).map_err(|_| RefusalReason::Expired)?;
    match now {
        _ if now < not_before => Err(RefusalReason::NotValidYet),
        _ if now > not_after => Err(RefusalReason::Expired),
        _ => Ok(()),
    }
}

/// Whether a certificate, of whatever version, or a CRL was signed by this key.
pub(in crate::tls) fn check_signature(
    certificate: &[u8],
    signer: &SubjectPublicKeyInfoDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), RefusalReason> {
    check(
        &Signed::read(certificate).ok_or(RefusalReason::BadEncoding)?,
        signer,
        algorithms,
    )
}

/// Whether something signed was signed by this key.
pub(in crate::tls) fn check(
    signed: &Signed<'_>,
    signer: &SubjectPublicKeyInfoDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), RefusalReason> {
    let key = RawPublicKeyEntity::try_from(signer).map_err(|_| RefusalReason::InvalidCa)?;
    let candidates = algorithms
        .all
        .iter()
        .filter(|candidate| candidate.signature_alg_id().as_ref() == signed.algorithm);
    // Several, because ECDSA's identifier names the hash and not the curve.
    for &algorithm in candidates {
        match key.verify_signature(algorithm, signed.tbs, signed.signature) {
            Ok(()) => return Ok(()),
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(error) => return Err(RefusalReason::of(&error)),
        }
    }
    Err(RefusalReason::UnsupportedAlgorithm)
}

/// The outermost structure of a certificate or CRL (RFC 5280 §4.1, §5.1).
pub(in crate::tls) struct Signed<'a> {
    /// Everything that is signed, header included.
    tbs: &'a [u8],
    /// The same without its header: the fields one after another.
    pub(in crate::tls) fields: &'a [u8],
    /// Content octets of the AlgorithmIdentifier.
    pub(super) algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let (signed, rest) = Self::first(der)?;
        rest.is_empty().then_some(signed)
    }

    /// The same with something behind the signature, as OCSP responses have it
    /// (RFC 6960 §4.2.1).
    pub(in crate::tls) fn first(der: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (whole, after) = tlv(der)?;
        let (tbs, inner) = tlv(whole.value)?;
        let (algorithm, inner) = tlv(inner)?;
        let (signature, inner) = tlv(inner)?;
        let tags = [whole.tag, tbs.tag, algorithm.tag, signature.tag];
        if tags != [SEQUENCE, SEQUENCE, SEQUENCE, BIT_STRING] || !after.is_empty() {
            return None;
        }
        // The first octet counts unused bits; signatures have none.
        let (0, signature) = signature.value.split_first()? else {
            return None;
        };
        let signed = Self {
            tbs: tbs.whole,
            fields: tbs.value,
            algorithm: algorithm.value,
            signature,
        };
        Some((signed, inner))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_v3_certificate_is_not_read_as_v1() {
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("made");
        assert!(!V1Leaf::is_v1(made.cert.der()));
        let error = V1Leaf::read(made.cert.der()).expect_err("v3");
        assert_eq!(error, RefusalReason::UnsupportedVersion);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(V1Leaf::read(&bytes).is_err());
        }
    }
}
