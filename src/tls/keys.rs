//! Private keys as operators keep them: PEM (PKCS#8, PKCS#1, SEC1), in the
//! open or sealed with a passphrase, and PKCS#12 stores.
//!
//! aws-lc-rs does what it can do; what it lacks (triple DES, RC2, MD5, scrypt)
//! comes from RustCrypto and serves nothing else. The crates for whole PKCS#12
//! files were weighed: they stand on pre-releases and leave opened keys behind
//! in memory that nobody wipes.

mod passphrases;
mod pbe;
mod pem;
pub(super) mod pkcs12;

use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

pub(super) use self::passphrases::Passphrases;
use self::pbe::OpenError;
use self::pem::Section;
pub(super) use self::pem::base64;
use super::der::{self, Fields, OCTET_STRING, SEQUENCE};

/// Bytes that are wiped when dropped. Not to be shown: it has a `Debug`.
pub(super) type Secret = Zeroizing<Vec<u8>>;

const MALFORMED: &str = "the key is malformed";

/// The first private key of a PEM file.
///
/// # Errors
///
/// Why there is none, in words that follow the file's name and show nothing of
/// its content.
pub(super) fn private_key(pem: &[u8], passphrases: Option<&Passphrases>) -> Result<Key, String> {
    for section in pem::Sections::of(pem) {
        let section = section?;
        let kind = match section.label {
            b"PRIVATE KEY" | b"ENCRYPTED PRIVATE KEY" => Kind::Pkcs8,
            b"RSA PRIVATE KEY" => Kind::Pkcs1,
            b"EC PRIVATE KEY" => Kind::Sec1,
            _ => continue,
        };
        return read(&section, kind, passphrases);
    }
    Err("no private key in it".to_owned())
}

/// A key and whether it took a passphrase.
pub(super) struct Key {
    pub(super) der: PrivateKeyDer<'static>,
    pub(super) was_sealed: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Pkcs8,
    Pkcs1,
    Sec1,
}

fn read(
    section: &Section<'_>,
    kind: Kind,
    passphrases: Option<&Passphrases>,
) -> Result<Key, String> {
    let body = section.body()?;
    let opened = if let Some(info) = section.dek_info()? {
        open_with(passphrases, |passphrase| info.open(&body, passphrase))?
    } else if section.label == b"ENCRYPTED PRIVATE KEY" {
        let sealed = Sealed::read(&body)?;
        open_with(passphrases, |passphrase| sealed.open(passphrase))?
    } else {
        return Ok(Key {
            der: kind.key(body),
            was_sealed: false,
        });
    };
    Ok(Key {
        der: kind.key(opened),
        was_sealed: true,
    })
}

impl Kind {
    fn key(self, mut der: Secret) -> PrivateKeyDer<'static> {
        // Taken out whole: rustls' type wipes what it holds, too.
        let der = std::mem::take(&mut *der);
        match self {
            Self::Pkcs8 => PrivateKeyDer::Pkcs8(der.into()),
            Self::Pkcs1 => PrivateKeyDer::Pkcs1(der.into()),
            Self::Sec1 => PrivateKeyDer::Sec1(der.into()),
        }
    }
}

/// `EncryptedPrivateKeyInfo` (RFC 5208 §6).
struct Sealed<'a> {
    /// Content octets of the AlgorithmIdentifier.
    algorithm: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Sealed<'a> {
    fn read(der: &'a [u8]) -> Result<Self, &'static str> {
        let mut outer = Fields::new(der, MALFORMED);
        let mut fields = outer.inner(SEQUENCE)?;
        outer.end()?;
        let algorithm = fields.required(SEQUENCE)?.value;
        let bytes = fields.required(OCTET_STRING)?.value;
        fields.end()?;
        Ok(Self { algorithm, bytes })
    }

    fn open(&self, passphrase: &[u8]) -> Result<Secret, OpenError> {
        let key = pbe::open(self.algorithm, self.bytes, passphrase)?;
        looks_like_a_key(key)
    }
}

/// One wrong passphrase in 256 leaves what might be padding.
fn looks_like_a_key(der: Secret) -> Result<Secret, OpenError> {
    match der::tlv(&der) {
        Some((key, [])) if key.tag == SEQUENCE => Ok(der),
        _ => Err(OpenError::Wrong),
    }
}

/// Tries one passphrase after another, as Nginx does.
fn open_with<T>(
    passphrases: Option<&Passphrases>,
    open: impl Fn(&[u8]) -> Result<T, OpenError>,
) -> Result<T, String> {
    let Some(passphrases) = passphrases else {
        return Err("the key is encrypted, and no file with its passphrase is given".to_owned());
    };
    for passphrase in passphrases.iter() {
        match open(passphrase) {
            Err(OpenError::Wrong) => {}
            Err(OpenError::Unusable(reason)) => return Err(reason.to_owned()),
            Ok(opened) => return Ok(opened),
        }
    }
    Err(passphrases.none_fits())
}

#[cfg(test)]
mod tests;
