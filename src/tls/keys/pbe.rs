//! Password-based encryption: PBES2 and PBES1 (RFC 8018), PKCS#12's own
//! (RFC 7292 appendix B, C), and what OpenSSL's traditional PEM uses.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, pbkdf2};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, InnerIvInit, KeyInit};
use des::{Des, TdesEde3};
use md5::{Digest, Md5};
use rc2::Rc2;

use super::{MALFORMED, Secret};
use crate::tls::der::{Fields, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};

/// `pkcs-5` is 1.2.840.113549.1.5, `rsadsi` 1.2.840.113549.
const PKCS5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05];
const RSADSI: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d];
/// `pkcs-12PbeIds`: 1.2.840.113549.1.12.1.
const PKCS12_PBE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
/// `id-scrypt`: 1.3.6.1.4.1.11591.4.11.
const SCRYPT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
/// AES in CBC is 2.16.840.1.101.3.4.1.{2, 22, 42}.
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
/// `desCBC`: 1.3.14.3.2.7.
const DES_CBC: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x07];

const UNSUPPORTED: &str = "the key is encrypted in a way that is not supported";
/// Rounds of a derivation, at most: some seconds. A file that asks for more is
/// broken, and a reload must end.
pub(super) const MAX_ITERATIONS: u64 = 10_000_000;
/// Memory that scrypt may ask for, bytes; its usual parameters take 16 MiB.
const MAX_SCRYPT_MEMORY: u64 = 1 << 30;

/// Why something sealed stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tls) enum OpenError {
    /// The passphrase is not the right one.
    Wrong,
    /// No passphrase will do; behind the file's name.
    Unusable(&'static str),
}

impl From<&'static str> for OpenError {
    fn from(reason: &'static str) -> Self {
        Self::Unusable(reason)
    }
}

/// Decrypts with a passphrase; `algorithm` is the content of an
/// AlgorithmIdentifier.
pub(super) fn open(
    algorithm: &[u8],
    sealed: &[u8],
    passphrase: &[u8],
) -> Result<Secret, OpenError> {
    let mut algorithm = Fields::new(algorithm, MALFORMED);
    let oid = algorithm.required(OBJECT_IDENTIFIER)?.value;
    let parameters = algorithm.inner(SEQUENCE)?;
    if let Some(scheme) = oid.strip_prefix(PKCS12_PBE) {
        return pkcs12_scheme(scheme, parameters, sealed, passphrase);
    }
    match oid.strip_prefix(PKCS5) {
        Some([13]) => pbes2(parameters, sealed, passphrase),
        Some(scheme) => pbes1(scheme, parameters, sealed, passphrase),
        None => Err(UNSUPPORTED.into()),
    }
}

/// RFC 8018 §6.2: a derivation and a cipher, each with parameters.
fn pbes2(
    mut parameters: Fields<'_>,
    sealed: &[u8],
    passphrase: &[u8],
) -> Result<Secret, OpenError> {
    let mut derivation = parameters.inner(SEQUENCE)?;
    let mut scheme = parameters.inner(SEQUENCE)?;
    let (cipher, iv) = Cipher::read(&mut scheme)?;
    let mut key = Secret::new(vec![0; cipher.key_length()]);
    let oid = derivation.required(OBJECT_IDENTIFIER)?.value;
    let given = derivation.inner(SEQUENCE)?;
    match oid.strip_prefix(PKCS5) {
        Some([12]) => derive_by_pbkdf2(given, passphrase, &mut key)?,
        _ if oid == SCRYPT => derive_by_scrypt(given, passphrase, &mut key)?,
        _ => return Err(UNSUPPORTED.into()),
    }
    cipher.decrypt(&key, iv, sealed)
}

/// PBKDF2-params: salt, rounds, perhaps the key's length, the function.
pub(super) fn derive_by_pbkdf2(
    mut given: Fields<'_>,
    passphrase: &[u8],
    key: &mut [u8],
) -> Result<(), OpenError> {
    let salt = given.required(OCTET_STRING)?.value;
    let rounds = iterations(&mut given)?;
    let _key_length = given.optional(INTEGER)?;
    let function = match given.tag() {
        None => pbkdf2::PBKDF2_HMAC_SHA1,
        Some(_) => {
            let oid = given.inner(SEQUENCE)?.required(OBJECT_IDENTIFIER)?.value;
            match oid.strip_prefix(RSADSI) {
                Some([2, 7]) => pbkdf2::PBKDF2_HMAC_SHA1,
                Some([2, 9]) => pbkdf2::PBKDF2_HMAC_SHA256,
                Some([2, 10]) => pbkdf2::PBKDF2_HMAC_SHA384,
                Some([2, 11]) => pbkdf2::PBKDF2_HMAC_SHA512,
                _ => return Err(UNSUPPORTED.into()),
            }
        }
    };
    pbkdf2::derive(function, rounds, salt, passphrase, key);
    Ok(())
}

/// RFC 7914 §7: salt, cost, block size, parallelism.
fn derive_by_scrypt(
    mut given: Fields<'_>,
    passphrase: &[u8],
    key: &mut [u8],
) -> Result<(), OpenError> {
    let salt = given.required(OCTET_STRING)?.value;
    let [cost, block, lanes] = [given.number()?, given.number()?, given.number()?];
    let memory = cost
        .checked_mul(block)
        .and_then(|blocks| blocks.checked_mul(128));
    let sound = cost.is_power_of_two()
        && memory.is_some_and(|bytes| bytes <= MAX_SCRYPT_MEMORY)
        && lanes <= 16;
    if !sound {
        return Err(UNSUPPORTED.into());
    }
    // Both fit, because their product does.
    let parameters = scrypt::Params::new(cost.ilog2() as u8, block as u32, lanes as u32)
        .map_err(|_| UNSUPPORTED)?;
    scrypt::scrypt(passphrase, salt, &parameters, key).map_err(|_| UNSUPPORTED)?;
    Ok(())
}

/// RFC 8018 §6.1, which OpenSSL before 1.1 used by default: half the hash is
/// the key, half the initialisation vector.
fn pbes1(
    scheme: &[u8],
    mut parameters: Fields<'_>,
    sealed: &[u8],
    passphrase: &[u8],
) -> Result<Secret, OpenError> {
    let salt = parameters.required(OCTET_STRING)?.value;
    let rounds = iterations(&mut parameters)?.get();
    let (md5, cipher) = match scheme {
        [3] => (true, Cipher::Des),
        [6] => (true, Cipher::Rc2 { bits: 64 }),
        [10] => (false, Cipher::Des),
        [11] => (false, Cipher::Rc2 { bits: 64 }),
        _ => return Err(UNSUPPORTED.into()),
    };
    let hash = |bytes: &[u8]| match md5 {
        true => Secret::new(Md5::digest(bytes).to_vec()),
        false => sha1(bytes),
    };
    let mut derived = hash(&concat(&[passphrase, salt]));
    for _ in 1..rounds {
        derived = hash(&derived);
    }
    let (key, rest) = derived.split_at(8);
    cipher.decrypt(key, &rest[..8], sealed)
}

fn sha1(bytes: &[u8]) -> Secret {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    Secret::new(hash.as_ref().to_vec())
}

/// RFC 7292 appendix C.
fn pkcs12_scheme(
    scheme: &[u8],
    mut parameters: Fields<'_>,
    sealed: &[u8],
    passphrase: &[u8],
) -> Result<Secret, OpenError> {
    let salt = parameters.required(OCTET_STRING)?.value;
    let rounds = iterations(&mut parameters)?.get();
    let (length, cipher) = match scheme {
        [3] => (24, Cipher::TripleDes),
        // Two keys, of which the first is used twice.
        [4] => (16, Cipher::TripleDes),
        [5] => (16, Cipher::Rc2 { bits: 128 }),
        [6] => (5, Cipher::Rc2 { bits: 40 }),
        _ => return Err(UNSUPPORTED.into()),
    };
    let sha1 = &digest::SHA1_FOR_LEGACY_USE_ONLY;
    let password = wide(passphrase);
    let derive = |purpose, length| pkcs12_key(sha1, purpose, &password, salt, rounds, length);
    let mut key = derive(Purpose::Key, length);
    if length == 16 && cipher == Cipher::TripleDes {
        key = concat(&[&key, &key[..8]]);
    }
    cipher.decrypt(&key, &derive(Purpose::Iv, cipher.iv_length()), sealed)
}

/// What a key of PKCS#12 is for: its diversifier (RFC 7292 §B.3).
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Key = 1,
    Iv = 2,
    Mac = 3,
}

/// RFC 7292 §B.2.
pub(super) fn pkcs12_key(
    hash: &'static digest::Algorithm,
    purpose: Purpose,
    password: &[u8],
    salt: &[u8],
    rounds: u32,
    length: usize,
) -> Secret {
    let block = hash.block_len();
    let filled = |bytes: &[u8]| {
        let length = bytes.len().div_ceil(block) * block;
        Secret::new(bytes.iter().copied().cycle().take(length).collect())
    };
    let diversifier = vec![purpose as u8; block];
    let mut input = concat(&[&filled(salt), &filled(password)]);
    let mut key = Secret::new(Vec::with_capacity(length + hash.output_len()));
    while key.len() < length {
        let mut derived = digest::digest(hash, &concat(&[&diversifier, &input]));
        for _ in 1..rounds {
            derived = digest::digest(hash, derived.as_ref());
        }
        key.extend_from_slice(derived.as_ref());
        // Each block of the input grows by the block made of the hash, plus 1.
        for piece in input.chunks_mut(block) {
            let addend = derived.as_ref().iter().copied().cycle().take(block);
            let mut carry = 1;
            let addend: Vec<u8> = addend.collect();
            for (digit, more) in piece.iter_mut().zip(&addend).rev() {
                let sum = u16::from(*digit) + u16::from(*more) + carry;
                *digit = sum as u8;
                carry = sum >> 8;
            }
        }
    }
    key.truncate(length);
    key
}

/// A passphrase as PKCS#12 wants it: UTF-16 with a zero behind it (RFC 7292
/// §B.1). What is not UTF-8 is taken for Latin-1, as OpenSSL does.
pub(super) fn wide(passphrase: &[u8]) -> Secret {
    let mut out = Secret::new(Vec::with_capacity(passphrase.len() * 2 + 2));
    match std::str::from_utf8(passphrase) {
        Ok(text) => {
            for unit in text.encode_utf16() {
                out.extend_from_slice(&unit.to_be_bytes());
            }
        }
        Err(_) => {
            for &byte in passphrase {
                out.extend_from_slice(&[0, byte]);
            }
        }
    }
    out.extend_from_slice(&[0, 0]);
    out
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round.
pub(super) fn bytes_to_key(passphrase: &[u8], salt: &[u8], length: usize) -> Secret {
    let mut key = Secret::new(Vec::with_capacity(length + 16));
    let mut last = Secret::default();
    while key.len() < length {
        last = Secret::new(Md5::digest(&*concat(&[&last, passphrase, salt])).to_vec());
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    key
}

fn concat(pieces: &[&[u8]]) -> Secret {
    Secret::new(pieces.concat())
}

pub(super) fn iterations(fields: &mut Fields<'_>) -> Result<NonZeroU32, &'static str> {
    let rounds = fields.number()?;
    if rounds > MAX_ITERATIONS {
        return Err("the key's derivation takes too many rounds");
    }
    // Fits, as just checked.
    NonZeroU32::new(rounds as u32).ok_or(MALFORMED)
}

/// A block cipher in CBC with PKCS#7 padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes,
    Des,
    /// With so many effective bits, and a key as long.
    Rc2 {
        bits: usize,
    },
}

impl Cipher {
    /// From an AlgorithmIdentifier whose parameter is the initialisation
    /// vector.
    fn read<'a>(scheme: &mut Fields<'a>) -> Result<(Self, &'a [u8]), OpenError> {
        let oid = scheme.required(OBJECT_IDENTIFIER)?.value;
        let cipher = match (oid.strip_prefix(AES), oid.strip_prefix(RSADSI)) {
            (Some([2]), _) => Self::Aes128,
            (Some([22]), _) => Self::Aes192,
            (Some([42]), _) => Self::Aes256,
            (_, Some([3, 7])) => Self::TripleDes,
            _ if oid == DES_CBC => Self::Des,
            _ => return Err(UNSUPPORTED.into()),
        };
        Ok((cipher, scheme.required(OCTET_STRING)?.value))
    }

    pub(super) fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
            Self::Des => 8,
            Self::Rc2 { bits } => bits / 8,
        }
    }

    pub(super) fn iv_length(self) -> usize {
        match self {
            Self::Aes128 | Self::Aes192 | Self::Aes256 => 16,
            Self::TripleDes | Self::Des | Self::Rc2 { .. } => 8,
        }
    }

    /// Yields [`OpenError::Wrong`] where the padding is none.
    pub(super) fn decrypt(self, key: &[u8], iv: &[u8], sealed: &[u8]) -> Result<Secret, OpenError> {
        if iv.len() != self.iv_length() {
            return Err(MALFORMED.into());
        }
        let mut opened = Secret::new(sealed.to_vec());
        let aes = |algorithm, opened: &mut [u8]| {
            let iv = FixedLength::try_from(iv).ok()?;
            let key = UnboundCipherKey::new(algorithm, key).ok()?;
            let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
            let plain = key.decrypt(opened, DecryptionContext::Iv128(iv)).ok()?;
            Some(plain.len())
        };
        let length = match self {
            Self::Aes128 => aes(&AES_128, &mut opened),
            Self::Aes192 => aes(&AES_192, &mut opened),
            Self::Aes256 => aes(&AES_256, &mut opened),
            Self::TripleDes => cbc(TdesEde3::new_from_slice(key).ok(), iv, &mut opened),
            Self::Des => cbc(Des::new_from_slice(key).ok(), iv, &mut opened),
            Self::Rc2 { bits } => cbc(Some(Rc2::new_with_eff_key_len(key, bits)), iv, &mut opened),
        };
        opened.truncate(length.ok_or(OpenError::Wrong)?);
        Ok(opened)
    }
}

/// In place; yields the length without padding.
fn cbc<C>(cipher: Option<C>, iv: &[u8], opened: &mut [u8]) -> Option<usize>
where
    C: cbc::cipher::BlockCipherDecrypt,
{
    let mode = Decryptor::inner_iv_slice_init(cipher?, iv).ok()?;
    mode.decrypt_padded::<Pkcs7>(opened).ok().map(<[u8]>::len)
}
