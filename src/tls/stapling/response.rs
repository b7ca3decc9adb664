//! What a responder answered (RFC 6960 §4.2), and whether to believe it.

use std::fmt;

use aws_lc_rs::digest;
use rustls::crypto::WebPkiSupportedAlgorithms;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::request::Subject;
use crate::tls::certs::issued;
use crate::tls::client_auth::v1::{self, Signed};
use crate::tls::der::{
    ENUMERATED, Fields, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, Tlv, tlv,
};

const MALFORMED: &str = "the OCSP response is malformed";

/// `id-pkix-ocsp-basic`: 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// SHA-2 is 2.16.840.1.101.3.4.2.{1, 2, 3}.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// Certificates that come with a response, at most: each may cost a
/// verification.
const MAX_CERTIFICATES: usize = 8;

/// A BasicOCSPResponse.
pub(super) struct Response<'a> {
    signed: Signed<'a>,
    /// Who signed: `[1]` by name, `[2]` by the hash of the key.
    responder: Tlv<'a>,
    /// SingleResponses.
    singles: &'a [u8],
    /// Those that came along.
    certificates: Vec<&'a [u8]>,
}

/// What is said of one certificate.
#[derive(Debug)]
pub(super) struct Single {
    pub(super) status: Status,
    this_update: i64,
    /// Seconds since the epoch.
    pub(super) next_update: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    Revoked,
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        })
    }
}

impl<'a> Response<'a> {
    /// Takes a successful response apart.
    ///
    /// # Errors
    ///
    /// It is none, as a responder that refuses to answer says, or malformed.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, String> {
        let mut outer = Fields::new(der, MALFORMED);
        let mut fields = outer.inner(SEQUENCE)?;
        outer.end()?;
        match fields.required(ENUMERATED)?.value {
            [0] => {}
            [status] => {
                let name = status_name(*status);
                return Err(format!("OCSP response not successful ({status}: {name})"));
            }
            _ => return Err(MALFORMED.to_owned()),
        }
        let mut bytes = fields.inner(0xa0)?.inner(SEQUENCE)?;
        if bytes.required(OBJECT_IDENTIFIER)?.value != BASIC {
            return Err("the OCSP response is of an unknown type".to_owned());
        }
        let basic = bytes.required(OCTET_STRING)?.value;
        Self::read_basic(basic).map_err(str::to_owned)
    }

    fn read_basic(der: &'a [u8]) -> Result<Self, &'static str> {
        let (signed, rest) = Signed::first(der).ok_or(MALFORMED)?;
        let mut certificates = Vec::new();
        let mut rest = Fields::new(rest, MALFORMED);
        if rest.tag().is_some() {
            let mut list = rest.inner(0xa0)?.inner(SEQUENCE)?;
            while list.tag().is_some() && certificates.len() < MAX_CERTIFICATES {
                certificates.push(list.required(SEQUENCE)?.whole);
            }
        }
        let mut data = Fields::new(signed.fields, MALFORMED);
        let _version = data.optional(0xa0)?;
        let responder = data.next()?;
        let _produced_at = data.next()?;
        let singles = data.required(SEQUENCE)?.value;
        Ok(Self {
            signed,
            responder,
            singles,
            certificates,
        })
    }

    /// What is said of this certificate; `None` where nothing is.
    pub(super) fn of(&self, subject: &Subject) -> Result<Option<Single>, &'static str> {
        let mut singles = Fields::new(self.singles, MALFORMED);
        while singles.tag().is_some() {
            let mut single = singles.inner(SEQUENCE)?;
            if is_about(single.inner(SEQUENCE)?, subject)? {
                return Single::read(single).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether the issuer signed, or somebody whose certificate came along. As
    /// in Nginx that certificate is looked at only where `ssl_stapling_verify`
    /// asks for it: it must then be valid at `verify`, signed by the issuer, and
    /// made for this purpose (RFC 6960 §4.2.2.2).
    pub(super) fn check_signature(
        &self,
        subject: &Subject,
        verify: Option<i64>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), &'static str> {
        const UNSIGNED: &str = "nobody who may has signed the OCSP response";
        let candidates = [&*subject.issuer].into_iter();
        for der in candidates.chain(self.certificates.iter().copied()) {
            let Ok((_, signer)) = X509Certificate::from_der(der) else {
                continue;
            };
            let key = signer.public_key().raw.into();
            if !self.is_by(&signer) || v1::check(&self.signed, &key, algorithms).is_err() {
                continue;
            }
            let is_issuer = der == &*subject.issuer;
            let Some(now) = verify.filter(|_| !is_issuer) else {
                return Ok(());
            };
            let Ok((_, issuer)) = X509Certificate::from_der(&subject.issuer) else {
                continue;
            };
            let validity = signer.validity();
            let valid =
                validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
            if valid && is_for_ocsp(&signer) && issued(der, &signer, &issuer, algorithms) {
                return Ok(());
            }
        }
        Err(UNSIGNED)
    }

    /// Whether this is the responder that the response names.
    fn is_by(&self, signer: &X509Certificate<'_>) -> bool {
        match self.responder.tag {
            0xa1 => self.responder.value == signer.subject().as_raw(),
            0xa2 => {
                let key = &signer.public_key().subject_public_key.data;
                let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key);
                tlv(self.responder.value).is_some_and(|(named, _)| named.value == hash.as_ref())
            }
            _ => false,
        }
    }
}

fn is_for_ocsp(signer: &X509Certificate<'_>) -> bool {
    let usage = signer.extended_key_usage();
    matches!(usage, Ok(Some(usage)) if usage.value.ocsp_signing)
}

/// Whether a CertID names this certificate.
fn is_about(mut id: Fields<'_>, subject: &Subject) -> Result<bool, &'static str> {
    let hash = id.inner(SEQUENCE)?.required(OBJECT_IDENTIFIER)?.value;
    let name = id.required(OCTET_STRING)?.value;
    let key = id.required(OCTET_STRING)?.value;
    let serial = id.required(INTEGER)?.value;
    let hash = match hash.strip_prefix(SHA2) {
        Some([1]) => &digest::SHA256,
        Some([2]) => &digest::SHA384,
        Some([3]) => &digest::SHA512,
        _ if hash == SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        _ => return Ok(false),
    };
    let [own_name, own_key] = subject.issuer_hashes(hash);
    Ok(serial == subject.serial && name == own_name.as_ref() && key == own_key.as_ref())
}

impl Single {
    /// Behind the CertID.
    fn read(mut fields: Fields<'_>) -> Result<Self, &'static str> {
        let status = match fields.next()?.tag {
            0x80 => Status::Good,
            0xa1 => Status::Revoked,
            0x82 => Status::Unknown,
            _ => return Err(MALFORMED),
        };
        let this_update = time(&fields.next()?)?;
        let next_update = match fields.optional(0xa0)? {
            Some(wrapped) => Some(time(&Fields::new(wrapped.value, MALFORMED).next()?)?),
            None => None,
        };
        Ok(Self {
            status,
            this_update,
            next_update,
        })
    }

    /// As OpenSSL does, with clocks so many seconds apart.
    pub(super) fn check_time(&self, now: i64, skew: i64) -> Result<(), &'static str> {
        match self.next_update {
            _ if self.this_update > now + skew => Err("the OCSP response is not yet valid"),
            Some(next) if next < now - skew => Err("the OCSP response has expired"),
            Some(next) if next < self.this_update => Err(MALFORMED),
            _ => Ok(()),
        }
    }
}

fn time(element: &Tlv<'_>) -> Result<i64, &'static str> {
    let (_, time) = ASN1Time::from_der(element.whole).map_err(|_| MALFORMED)?;
    Ok(time.timestamp())
}

/// In OpenSSL's words.
fn status_name(status: u8) -> &'static str {
    match status {
        1 => "malformedrequest",
        2 => "internalerror",
        3 => "trylater",
        5 => "sigrequired",
        6 => "unauthorized",
        _ => "(UNKNOWN)",
    }
}
