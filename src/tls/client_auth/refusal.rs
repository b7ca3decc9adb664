//! Why a client's certificate was refused: an alert for the peer, words for
//! the log.
//!
//! rustls carries one error out of a verifier, made for choosing an alert. The
//! log must also say whose certificate it was, so the verifier leaves that in
//! a thread-local for the session to pick up. That is sound because a worker
//! drives a handshake step synchronously: between the verifier's call and the
//! return of the rustls call that made it, nothing else runs on the thread.

use std::cell::RefCell;
use std::fmt;

use rustls::{CertificateError, OtherError};

use crate::tls::identity::Identity;

/// A client certificate, or the lack of one, that did not meet the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// RFC 2253, where a certificate came and its name has a text.
    pub subject: Option<String>,
    /// Likewise.
    pub issuer: Option<String>,
    /// What is wrong with it.
    pub reason: RefusalReason,
}

impl Refusal {
    /// For a certificate that came.
    pub(super) fn of(leaf: &[u8], reason: RefusalReason) -> Self {
        let identity = Identity::of(leaf);
        let (subject, issuer) = identity.map_or((None, None), |id| (id.subject, id.issuer));
        Self {
            subject,
            issuer,
            reason,
        }
    }

    /// For one that was demanded and did not come. rustls ends such a handshake
    /// by itself, without a call of the verifier.
    pub fn no_certificate() -> Self {
        Self {
            subject: None,
            issuer: None,
            reason: RefusalReason::NoCertificate,
        }
    }
}

impl fmt::Display for Refusal {
    /// Begins as Nginx's line does, so that what searches logs keeps working.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason == RefusalReason::NoCertificate {
            return f.write_str("client sent no required SSL certificate");
        }
        let (code, text) = (self.reason.code(), self.reason.text());
        write!(f, "client SSL certificate verify error: ({code}:{text})")?;
        if let Some(subject) = &self.subject {
            write!(f, ", subject: \"{subject}\"")?;
        }
        if let Some(issuer) = &self.issuer {
            write!(f, ", issuer: \"{issuer}\"")?;
        }
        Ok(())
    }
}

/// What can be wrong. Numbers and words are those of OpenSSL's
/// `X509_verify_cert_error_string`, which `$ssl_client_verify` and Nginx's
/// error log show; 1 is its "unspecified", refined in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant's words are in `text`")]
pub enum RefusalReason {
    NoCertificate,
    BadEncoding,
    UnsupportedVersion,
    UnsupportedAlgorithm,
    BadHandshakeSignature,
    BadSignature,
    NotValidYet,
    Expired,
    SelfSigned,
    SelfSignedInChain,
    UnknownIntermediate,
    UnknownIssuer,
    ChainTooLong,
    PathLengthExceeded,
    InvalidPurpose,
    CriticalExtension,
    NameConstraint,
    InvalidCa,
    Revoked,
    NoCrl,
    NoCrlSign,
    CrlSignature,
    CrlNotValidYet,
    CrlExpired,
    Other,
}

impl RefusalReason {
    /// Each of them.
    pub const ALL: [Self; 25] = [
        Self::NoCertificate,
        Self::BadEncoding,
        Self::UnsupportedVersion,
        Self::UnsupportedAlgorithm,
        Self::BadHandshakeSignature,
        Self::BadSignature,
        Self::NotValidYet,
        Self::Expired,
        Self::SelfSigned,
        Self::SelfSignedInChain,
        Self::UnknownIntermediate,
        Self::UnknownIssuer,
        Self::ChainTooLong,
        Self::PathLengthExceeded,
        Self::InvalidPurpose,
        Self::CriticalExtension,
        Self::NameConstraint,
        Self::InvalidCa,
        Self::Revoked,
        Self::NoCrl,
        Self::NoCrlSign,
        Self::CrlSignature,
        Self::CrlNotValidYet,
        Self::CrlExpired,
        Self::Other,
    ];

    /// OpenSSL's `X509_V_ERR_…`.
    pub fn code(self) -> u32 {
        match self {
            Self::NoCrl => 3,
            Self::BadSignature => 7,
            Self::CrlSignature => 8,
            Self::NotValidYet => 9,
            Self::Expired => 10,
            Self::CrlNotValidYet => 11,
            Self::CrlExpired => 12,
            Self::SelfSigned => 18,
            Self::SelfSignedInChain => 19,
            Self::UnknownIntermediate => 20,
            Self::UnknownIssuer => 21,
            Self::ChainTooLong => 22,
            Self::Revoked => 23,
            Self::PathLengthExceeded => 25,
            Self::InvalidPurpose => 26,
            Self::CriticalExtension => 34,
            Self::NoCrlSign => 35,
            Self::NameConstraint => 47,
            Self::InvalidCa => 79,
            Self::NoCertificate
            | Self::BadEncoding
            | Self::UnsupportedVersion
            | Self::UnsupportedAlgorithm
            | Self::BadHandshakeSignature
            | Self::Other => 1,
        }
    }

    /// What stands behind `FAILED:` in `$ssl_client_verify`.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoCertificate => "no required certificate was sent",
            Self::BadEncoding => "certificate cannot be decoded",
            Self::UnsupportedVersion => "unsupported certificate version",
            Self::UnsupportedAlgorithm => "unsupported signature algorithm",
            Self::BadHandshakeSignature => "the client does not hold the certificate's key",
            Self::BadSignature => "certificate signature failure",
            Self::NotValidYet => "certificate is not yet valid",
            Self::Expired => "certificate has expired",
            Self::SelfSigned => "self-signed certificate",
            Self::SelfSignedInChain => "self-signed certificate in certificate chain",
            Self::UnknownIntermediate => "unable to get local issuer certificate",
            Self::UnknownIssuer => "unable to verify the first certificate",
            Self::ChainTooLong => "certificate chain too long",
            Self::PathLengthExceeded => "path length constraint exceeded",
            Self::InvalidPurpose => "unsuitable certificate purpose",
            Self::CriticalExtension => "unhandled critical extension",
            Self::NameConstraint => "permitted subtree violation",
            Self::InvalidCa => "invalid CA certificate",
            Self::Revoked => "certificate revoked",
            Self::NoCrl => "unable to get certificate CRL",
            Self::NoCrlSign => "key usage does not include CRL signing",
            Self::CrlSignature => "CRL signature failure",
            Self::CrlNotValidYet => "CRL is not yet valid",
            Self::CrlExpired => "CRL has expired",
            Self::Other => "unspecified certificate verification error",
        }
    }

    /// What Nginx tolerates under `optional_no_ca`, as its
    /// `ngx_ssl_verify_error_optional` has it: that nobody known vouches for
    /// the certificate. Everything else is refused there too.
    pub(super) fn is_unknown_authority(self) -> bool {
        matches!(
            self,
            Self::SelfSigned
                | Self::SelfSignedInChain
                | Self::UnknownIntermediate
                | Self::UnknownIssuer
        )
    }

    /// webpki's finding in OpenSSL's terms.
    pub(super) fn of(error: &webpki::Error) -> Self {
        use webpki::Error as E;
        #[allow(
            deprecated,
            reason = "webpki may still return the variants that it has replaced"
        )]
        match error {
            E::BadDer | E::BadDerTime | E::TrailingData(_) | E::ExtensionValueInvalid => {
                Self::BadEncoding
            }
            E::UnsupportedCertVersion => Self::UnsupportedVersion,
            E::CertNotValidYet { .. } => Self::NotValidYet,
            E::CertExpired { .. } | E::InvalidCertValidity => Self::Expired,
            E::UnknownIssuer => Self::UnknownIssuer,
            E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => Self::BadSignature,
            E::UnsupportedSignatureAlgorithm
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKey
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::UnsupportedAlgorithm,
            E::RequiredEkuNotFound | E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                Self::InvalidPurpose
            }
            E::MaximumPathDepthExceeded => Self::ChainTooLong,
            E::PathLenConstraintViolated => Self::PathLengthExceeded,
            E::UnsupportedCriticalExtension => Self::CriticalExtension,
            E::NameConstraintViolation => Self::NameConstraint,
            E::CaUsedAsEndEntity => Self::InvalidPurpose,
            E::EndEntityUsedAsCa => Self::InvalidCa,
            _ => Self::Other,
        }
    }

    /// The error that makes rustls send the alert of RFC 8446 §6.2, chosen as
    /// OpenSSL chooses it.
    pub(super) fn to_rustls(self) -> rustls::Error {
        match self {
            Self::NoCertificate => return rustls::Error::NoCertificatesPresented,
            // bad_certificate
            Self::BadEncoding | Self::CriticalExtension | Self::CrlNotValidYet => {
                CertificateError::BadEncoding
            }
            // certificate_expired
            Self::Expired | Self::CrlExpired => CertificateError::Expired,
            Self::NotValidYet => CertificateError::NotValidYet,
            // certificate_revoked
            Self::Revoked => CertificateError::Revoked,
            // unknown_ca
            Self::SelfSigned
            | Self::SelfSignedInChain
            | Self::UnknownIntermediate
            | Self::UnknownIssuer
            | Self::ChainTooLong
            | Self::PathLengthExceeded
            | Self::InvalidCa
            | Self::NoCrl => CertificateError::UnknownIssuer,
            // decrypt_error
            Self::BadSignature
            | Self::BadHandshakeSignature
            | Self::UnsupportedAlgorithm
            | Self::CrlSignature => CertificateError::BadSignature,
            // unsupported_certificate
            Self::InvalidPurpose | Self::UnsupportedVersion => CertificateError::InvalidPurpose,
            // certificate_unknown
            Self::NameConstraint | Self::NoCrlSign | Self::Other => {
                CertificateError::Other(OtherError(std::sync::Arc::new(self)))
            }
        }
        .into()
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for RefusalReason {}

thread_local! {
    /// Of the latest verification on this thread, until taken.
    static LATEST: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// Records the outcome of a verification; `None` forgets an older refusal, so
/// that it cannot be told of another connection.
pub(super) fn record(refusal: Option<Refusal>) {
    LATEST.with(|latest| *latest.borrow_mut() = refusal);
}

/// The refusal that made a rustls call on this thread fail just now, if it was
/// one. To be called after every call that failed, and before the next.
pub fn take_refusal() -> Option<Refusal> {
    LATEST.with(|latest| latest.borrow_mut().take())
}

/// The refusal behind an error of a handshake on this thread: what the verifier
/// said, or that no certificate came. `None` where the error is another matter.
pub fn refusal_behind(error: &rustls::Error) -> Option<Refusal> {
    let recorded = take_refusal();
    match error {
        rustls::Error::NoCertificatesPresented => Some(Refusal::no_certificate()),
        rustls::Error::InvalidCertificate(_) => recorded,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn a_refusal_reads_as_nginx_writes_it_and_names_the_holder() {
        let refusal = Refusal {
            subject: Some("CN=x".to_owned()),
            issuer: None,
            reason: RefusalReason::Expired,
        };
        assert_eq!(
            refusal.to_string(),
            "client SSL certificate verify error: (10:certificate has expired), subject: \"CN=x\""
        );
        assert_eq!(
            Refusal::no_certificate().to_string(),
            "client sent no required SSL certificate"
        );
    }

    #[test]
    fn every_reason_sends_its_alert() {
        use AlertDescription as A;
        use RefusalReason as R;
        let alerts = [
            (R::BadEncoding, A::BadCertificate),
            (R::Expired, A::CertificateExpired),
            (R::NotValidYet, A::CertificateExpired),
            (R::UnknownIssuer, A::UnknownCA),
            (R::ChainTooLong, A::UnknownCA),
            (R::InvalidCa, A::UnknownCA),
            (R::BadSignature, A::DecryptError),
            (R::InvalidPurpose, A::UnsupportedCertificate),
            (R::Revoked, A::CertificateRevoked),
            (R::NoCrl, A::UnknownCA),
            (R::CrlExpired, A::CertificateExpired),
            (R::Other, A::CertificateUnknown),
        ];
        for (reason, alert) in alerts {
            let rustls::Error::InvalidCertificate(error) = reason.to_rustls() else {
                panic!("{reason:?}");
            };
            assert_eq!(A::from(error), alert, "{reason:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_once_and_only_of_its_own_verification() {
        let refusal = Refusal::no_certificate();
        record(Some(refusal.clone()));
        assert_eq!(take_refusal(), Some(refusal.clone()));
        assert_eq!(take_refusal(), None);
        record(Some(refusal));
        record(None);
        assert_eq!(take_refusal(), None);
    }
}
