//! PKCS#12 stores (RFC 7292), as OpenSSL, Java's keytool and Windows make them:
//! certificates and a key, sealed with a passphrase.

use aws_lc_rs::{digest, hmac};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::pbe::{self, OpenError, Purpose};
use super::{Passphrases, Sealed, Secret, looks_like_a_key, open_with};
use crate::tls::der::{Fields, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET};

const MALFORMED: &str = "the PKCS#12 store is malformed";
const UNSUPPORTED: &str = "the PKCS#12 store is sealed in a way that is not supported";

/// `pkcs-7` is 1.2.840.113549.1.7, `bagtypes` 1.2.840.113549.1.12.10.1.
const PKCS7: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];
const BAGS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01];
/// `pkcs-9` is 1.2.840.113549.1.9; 21 is localKeyId, 22.1 an X.509 certificate.
const PKCS9: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09];
/// `pbmac1`: 1.2.840.113549.1.5.14, with `id-PBKDF2` beside it.
const PKCS5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// SHA-2 is 2.16.840.1.101.3.4.2.{1, 2, 3, 4}.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
const RSADSI: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d];

/// `[0]`, explicit.
const TAGGED: u8 = 0xa0;
/// `[0] IMPLICIT OCTET STRING`.
const CONTENT: u8 = 0x80;
/// Bytes of a key for PBMAC1, at most; no hash has a longer block.
const MAX_MAC_KEY: u64 = 144;
/// Safes within safes, at most.
const MAX_DEPTH: usize = 4;

/// What a store holds.
#[derive(Default)]
pub(in crate::tls) struct Store {
    pub(in crate::tls) certificates: Vec<Certificate>,
    pub(in crate::tls) keys: Vec<StoredKey>,
}

pub(in crate::tls) struct Certificate {
    pub(in crate::tls) der: CertificateDer<'static>,
    /// Says which key is its; may be empty.
    pub(in crate::tls) key_id: Vec<u8>,
}

pub(in crate::tls) struct StoredKey {
    pub(in crate::tls) der: PrivateKeyDer<'static>,
    pub(in crate::tls) key_id: Vec<u8>,
}

/// Whether bytes begin as a store does and nothing else that is read here: a
/// SEQUENCE with the version 3 first.
pub(in crate::tls) fn is_store(bytes: &[u8]) -> bool {
    let mut outer = Fields::new(bytes, MALFORMED);
    let version = outer.inner(SEQUENCE).and_then(|mut pfx| pfx.number());
    version == Ok(3)
}

/// Opens a store, with the empty passphrase where there is no other.
///
/// # Errors
///
/// Why not, in words that follow the file's name.
pub(in crate::tls) fn open(
    bytes: &[u8],
    passphrases: Option<&Passphrases>,
) -> Result<Store, String> {
    match passphrases {
        Some(_) => open_with(passphrases, |passphrase| read(bytes, passphrase)),
        None => read(bytes, b"").map_err(|error| match error {
            OpenError::Wrong => {
                "the PKCS#12 store is encrypted, and no file with its passphrase is given".into()
            }
            OpenError::Unusable(reason) => reason.to_owned(),
        }),
    }
}

fn read(bytes: &[u8], passphrase: &[u8]) -> Result<Store, OpenError> {
    let mut outer = Fields::new(bytes, MALFORMED);
    let mut pfx = outer.inner(SEQUENCE)?;
    outer.end()?;
    let _version = pfx.number()?;
    let mut info = pfx.inner(SEQUENCE)?;
    if kind(&mut info, PKCS7)? != [1] {
        return Err(UNSUPPORTED.into());
    }
    let content = info.inner(TAGGED)?.required(OCTET_STRING)?.value;
    if pfx.tag().is_some() {
        check_mac(pfx.inner(SEQUENCE)?, content, passphrase)?;
    }
    pfx.end()?;
    let mut store = Store::default();
    let mut safes = Fields::new(content, MALFORMED).inner(SEQUENCE)?;
    while safes.tag().is_some() {
        let mut info = safes.inner(SEQUENCE)?;
        match kind(&mut info, PKCS7)? {
            [1] => {
                let bags = info.inner(TAGGED)?.required(OCTET_STRING)?.value;
                store.add(bags, passphrase, 0)?;
            }
            [6] => {
                let bags = encrypted_data(&mut info, passphrase)?;
                store.add(&bags, passphrase, 0)?;
            }
            _ => return Err(UNSUPPORTED.into()),
        }
    }
    Ok(store)
}

/// An OBJECT IDENTIFIER below a known one; empty where it is elsewhere.
fn kind<'a>(fields: &mut Fields<'a>, below: &[u8]) -> Result<&'a [u8], &'static str> {
    let oid = fields.required(OBJECT_IDENTIFIER)?.value;
    Ok(oid.strip_prefix(below).unwrap_or_default())
}

/// EncryptedData (RFC 5652 §8).
fn encrypted_data(info: &mut Fields<'_>, passphrase: &[u8]) -> Result<Secret, OpenError> {
    let mut data = info.inner(TAGGED)?.inner(SEQUENCE)?;
    let _version = data.number()?;
    let mut content = data.inner(SEQUENCE)?;
    let _type = content.required(OBJECT_IDENTIFIER)?;
    let algorithm = content.required(SEQUENCE)?.value;
    let sealed = content.required(CONTENT)?.value;
    let bags = pbe::open(algorithm, sealed, passphrase)?;
    looks_like_a_key(bags)
}

/// Whether the passphrase is the one that the store was made with.
fn check_mac(mut mac: Fields<'_>, content: &[u8], passphrase: &[u8]) -> Result<(), OpenError> {
    let mut info = mac.inner(SEQUENCE)?;
    let mut algorithm = info.inner(SEQUENCE)?;
    let expected = info.required(OCTET_STRING)?.value;
    let oid = algorithm.required(OBJECT_IDENTIFIER)?.value;
    if oid.strip_prefix(PKCS5) == Some(&[14]) {
        let key = pbmac1_key(algorithm.inner(SEQUENCE)?, passphrase)?;
        return hmac::verify(&key, content, expected).map_err(|_| OpenError::Wrong);
    }
    let (hash, hmac) = match oid.strip_prefix(SHA2) {
        Some([1]) => (&digest::SHA256, hmac::HMAC_SHA256),
        Some([2]) => (&digest::SHA384, hmac::HMAC_SHA384),
        Some([3]) => (&digest::SHA512, hmac::HMAC_SHA512),
        Some([4]) => (&digest::SHA224, hmac::HMAC_SHA224),
        _ if oid == SHA1 => {
            let hmac = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
            (&digest::SHA1_FOR_LEGACY_USE_ONLY, hmac)
        }
        _ => return Err(UNSUPPORTED.into()),
    };
    let salt = mac.required(OCTET_STRING)?.value;
    let rounds = match mac.tag() {
        Some(INTEGER) => pbe::iterations(&mut mac)?.get(),
        _ => 1,
    };
    let fits = |password: &[u8]| {
        let length = hash.output_len();
        let key = pbe::pkcs12_key(hash, Purpose::Mac, password, salt, rounds, length);
        hmac::verify(&hmac::Key::new(hmac, &key), content, expected).is_ok()
    };
    // Some write no passphrase as nothing at all, without the zero.
    if fits(&pbe::wide(passphrase)) || (passphrase.is_empty() && fits(b"")) {
        Ok(())
    } else {
        Err(OpenError::Wrong)
    }
}

/// RFC 9579: PBKDF2 makes the key of an HMAC.
fn pbmac1_key(mut parameters: Fields<'_>, passphrase: &[u8]) -> Result<hmac::Key, OpenError> {
    let mut derivation = parameters.inner(SEQUENCE)?;
    let mut scheme = parameters.inner(SEQUENCE)?;
    let hmac = match kind(&mut scheme, RSADSI)? {
        [2, 9] => hmac::HMAC_SHA256,
        [2, 10] => hmac::HMAC_SHA384,
        [2, 11] => hmac::HMAC_SHA512,
        _ => return Err(UNSUPPORTED.into()),
    };
    if kind(&mut derivation, PKCS5)? != [12] {
        return Err(UNSUPPORTED.into());
    }
    let given = derivation.inner(SEQUENCE)?;
    let mut ahead = given.clone();
    let _salt = ahead.required(OCTET_STRING)?;
    let _rounds = ahead.number()?;
    // RFC 9579 §4 demands it here.
    let length = ahead.number()?.min(MAX_MAC_KEY) as usize;
    let mut key = Secret::new(vec![0; length]);
    pbe::derive_by_pbkdf2(given, passphrase, &mut key)?;
    Ok(hmac::Key::new(hmac, &key))
}

impl Store {
    /// The bags of a SafeContents.
    fn add(&mut self, bags: &[u8], passphrase: &[u8], depth: usize) -> Result<(), OpenError> {
        if depth == MAX_DEPTH {
            return Err(MALFORMED.into());
        }
        let mut bags = Fields::new(bags, MALFORMED).inner(SEQUENCE)?;
        while bags.tag().is_some() {
            let mut bag = bags.inner(SEQUENCE)?;
            let kind = kind(&mut bag, BAGS)?;
            let value = bag.required(TAGGED)?.value;
            let key_id = key_id(&mut bag)?;
            match kind {
                [1] => self.add_key(Secret::new(value.to_vec()), key_id),
                [2] => {
                    let key = Sealed::read(value)?.open(passphrase)?;
                    self.add_key(key, key_id);
                }
                [3] => {
                    let mut bag = Fields::new(value, MALFORMED).inner(SEQUENCE)?;
                    if self::kind(&mut bag, PKCS9)? == [22, 1] {
                        let der = bag.inner(TAGGED)?.required(OCTET_STRING)?.value;
                        let der = der.to_vec().into();
                        self.certificates.push(Certificate { der, key_id });
                    }
                }
                [6] => self.add(value, passphrase, depth + 1)?,
                // CRLs and secrets are nobody's certificate or key.
                _ => {}
            }
        }
        Ok(())
    }

    fn add_key(&mut self, mut der: Secret, key_id: Vec<u8>) {
        let der = PrivateKeyDer::Pkcs8(std::mem::take(&mut *der).into());
        self.keys.push(StoredKey { der, key_id });
    }
}

/// The localKeyId among the attributes of a bag; empty where there is none.
fn key_id(bag: &mut Fields<'_>) -> Result<Vec<u8>, &'static str> {
    if bag.tag().is_none() {
        return Ok(Vec::new());
    }
    let mut attributes = bag.inner(SET)?;
    while attributes.tag().is_some() {
        let mut attribute = attributes.inner(SEQUENCE)?;
        if kind(&mut attribute, PKCS9)? == [21] {
            let id = attribute.inner(SET)?.required(OCTET_STRING)?.value;
            return Ok(id.to_vec());
        }
    }
    Ok(Vec::new())
}
