//! Whose status is asked for (RFC 6960 §4.1).

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::tls::der::{INTEGER, OCTET_STRING, SEQUENCE, element};
use crate::tls::identity::pem::{base64, escaped};

/// `AlgorithmIdentifier` of SHA-1, which every responder understands; nothing
/// hangs on its strength, because it only names the issuer.
const SHA1: &[u8] = &[
    0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00,
];

/// A certificate and its issuer, as requests and responses name them.
#[derive(Debug)]
pub(super) struct Subject {
    /// For messages.
    pub(super) file: String,
    pub(super) leaf: CertificateDer<'static>,
    pub(super) issuer: CertificateDer<'static>,
    /// The issuer's Name, DER.
    issuer_name: Vec<u8>,
    /// The bits of the issuer's public key.
    issuer_key: Vec<u8>,
    /// Content octets of the serial number.
    pub(super) serial: Vec<u8>,
}

impl Subject {
    pub(super) fn of(
        key: &CertifiedKey,
        issuer: CertificateDer<'static>,
        file: &str,
    ) -> Option<Self> {
        let leaf = key.cert.first()?.clone();
        let (_, parsed) = X509Certificate::from_der(&leaf).ok()?;
        let (_, authority) = X509Certificate::from_der(&issuer).ok()?;
        let issuer_name = parsed.issuer().as_raw().to_vec();
        let issuer_key = authority.public_key().subject_public_key.data.to_vec();
        let serial = parsed.raw_serial().to_vec();
        Some(Self {
            file: file.to_owned(),
            leaf,
            issuer,
            issuer_name,
            issuer_key,
            serial,
        })
    }

    /// The issuer by the hashes of its name and its key.
    pub(super) fn issuer_hashes(&self, hash: &'static digest::Algorithm) -> [digest::Digest; 2] {
        [&self.issuer_name, &self.issuer_key].map(|bytes| digest::digest(hash, bytes))
    }

    /// An OCSPRequest for one certificate, as it stands in a URL.
    pub(super) fn request(&self) -> String {
        let [name, key] = self.issuer_hashes(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        let id = element(
            SEQUENCE,
            &[
                SHA1,
                &element(OCTET_STRING, &[name.as_ref()]),
                &element(OCTET_STRING, &[key.as_ref()]),
                &element(INTEGER, &[&self.serial]),
            ],
        );
        let list = element(SEQUENCE, &[&element(SEQUENCE, &[&id])]);
        let request = element(SEQUENCE, &[&element(SEQUENCE, &[&list])]);
        escaped(&base64(&request))
    }
}
