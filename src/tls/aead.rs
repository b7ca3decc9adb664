//! The ciphers of records (RFC 5116), by the library that has the fastest code
//! for the processor.
//!
//! AWS-LC has AES-GCM in wide registers (VAES, VPCLMULQDQ) for processors with
//! AVX-512 alone, ring, from BoringSSL, for those with AVX2 as well. On AMD's Zen 2
//! to 3 and Intel's cores without AVX-512 it takes half the time. Everything
//! else, and AES-GCM on all other processors, is AWS-LC's.

use std::hint::black_box;

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring;

/// The length of all tags, in bytes.
pub(super) const TAG: usize = 16;
/// The length of all nonces, in bytes.
pub(super) const NONCE: usize = 12;

/// What a record can be protected with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Algorithm {
    /// Bytes of a key.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    fn of_aws_lc(self) -> &'static aws_lc::Algorithm {
        match self {
            Self::Aes128Gcm => &aws_lc::AES_128_GCM,
            Self::Aes256Gcm => &aws_lc::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
        }
    }

    fn of_ring(self) -> Option<&'static ring::Algorithm> {
        match self {
            Self::Aes128Gcm => Some(&ring::AES_128_GCM),
            Self::Aes256Gcm => Some(&ring::AES_256_GCM),
            Self::ChaCha20Poly1305 => None,
        }
    }
}

/// The nonce was used before, the bytes are not what was sealed, or the library
/// refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

/// A key, ready for use. What it holds of the secret is overwritten when it goes.
pub(super) enum Key {
    /// Which wipes it itself.
    AwsLc(aws_lc::LessSafeKey),
    Ring(RingKey),
}

impl Key {
    /// With the library that is fastest here. `secret` is as long as the algorithm
    /// says.
    pub(super) fn new(algorithm: Algorithm, secret: &[u8]) -> Result<Self, Failed> {
        match algorithm.of_ring().filter(|_| ring_is_faster()) {
            Some(algorithm) => RingKey::new(algorithm, secret).map(Self::Ring),
            None => Self::of_aws_lc(algorithm, secret),
        }
    }

    fn of_aws_lc(algorithm: Algorithm, secret: &[u8]) -> Result<Self, Failed> {
        let key = aws_lc::UnboundKey::new(algorithm.of_aws_lc(), secret);
        let key = key.map_err(|_| Failed)?;
        Ok(Self::AwsLc(aws_lc::LessSafeKey::new(key)))
    }

    /// Encrypts `bytes` in place and returns the tag. The caller never uses a nonce
    /// twice under a key.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        bytes: &mut [u8],
    ) -> Result<[u8; TAG], Failed> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let aad = aws_lc::Aad::from(aad);
                let tag = key.seal_in_place_separate_tag(nonce, aad, bytes);
                tag.ok().and_then(|tag| tag.as_ref().try_into().ok())
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let aad = ring::Aad::from(aad);
                let tag = key.0.seal_in_place_separate_tag(nonce, aad, bytes);
                tag.ok().and_then(|tag| tag.as_ref().try_into().ok())
            }
        }
        .ok_or(Failed)
    }

    /// Decrypts `bytes` in place, if this is their tag; they are worthless
    /// otherwise.
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        tag: &[u8],
        bytes: &mut [u8],
    ) -> Result<(), Failed> {
        // The tag is given apart because what takes both together ends in a memmove
        // of the whole plaintext onto itself.
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let aad = aws_lc::Aad::from(aad);
                let opened = key.open_in_place_separate_tag(nonce, aad, tag, bytes);
                opened.map(drop).map_err(|_| Failed)
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let aad = ring::Aad::from(aad);
                let tag = tag.try_into().map_err(|_| Failed)?;
                let opened = key
                    .0
                    .open_in_place_separate_tag(nonce, aad, tag, bytes, 0..);
                opened.map(drop).map_err(|_| Failed)
            }
        }
    }
}

/// Boxed, because it is half a kilobyte, in place.
pub(super) struct RingKey(Box<ring::LessSafeKey>);

impl RingKey {
    fn new(algorithm: &'static ring::Algorithm, secret: &[u8]) -> Result<Self, Failed> {
        let key = ring::UnboundKey::new(algorithm, secret);
        let key = key.map_err(|_| Failed)?;
        Ok(Self(Box::new(ring::LessSafeKey::new(key))))
    }
}

impl Drop for RingKey {
    /// ring wipes nothing: another key, of which nobody has a secret, takes the
    /// place of this one.
    fn drop(&mut self) {
        let algorithm = self.0.algorithm();
        let zeros = [0; 32];
        let secret = zeros.get(..algorithm.key_len()).unwrap_or_default();
        if let Ok(blank) = ring::UnboundKey::new(algorithm, secret) {
            *self.0 = ring::LessSafeKey::new(blank);
        }
        // Keeps the compiler from seeing that nobody reads it.
        black_box(&*self.0);
    }
}

/// Whether ring has code for this processor that AWS-LC lacks.
fn ring_is_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let is_wide = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi2");
        is_wide
            && !(is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Algorithm; 3] = [
        Algorithm::Aes128Gcm,
        Algorithm::Aes256Gcm,
        Algorithm::ChaCha20Poly1305,
    ];

    /// By every library that has it, whatever the processor.
    fn keys(algorithm: Algorithm, secret: &[u8; 32]) -> Vec<Key> {
        let secret = &secret[..algorithm.key_len()];
        let ring = algorithm.of_ring();
        let ring = ring.map(|algorithm| Key::Ring(RingKey::new(algorithm, secret).unwrap()));
        let here = Key::new(algorithm, secret).unwrap();
        let aws_lc = Key::of_aws_lc(algorithm, secret).unwrap();
        [here, aws_lc].into_iter().chain(ring).collect()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }

    #[test]
    fn aes_gcm_is_that_of_its_specification() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
        let secret = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = hex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let cipher = hex(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        );
        let tag = hex("76fc6ece0f4e1768cddf8853bb2d551b");
        for key in keys(Algorithm::Aes256Gcm, &secret.try_into().unwrap()) {
            let mut bytes = plain.clone();
            assert_eq!(key.seal(nonce, &aad, &mut bytes).unwrap()[..], tag);
            assert_eq!(bytes, cipher);
            key.open(nonce, &aad, &tag, &mut bytes).unwrap();
            assert_eq!(bytes, plain);
        }
    }

    proptest! {
        #[test]
        fn every_library_opens_what_another_has_sealed(
            secret: [u8; 32],
            nonce: [u8; NONCE],
            aad in prop::collection::vec(any::<u8>(), 0..14),
            // Round the strides of wide code as well as whole records.
            length in prop_oneof![0_usize..600, 16_300_usize..16_386],
            bit: u16,
        ) {
            let plain: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            for algorithm in ALL {
                let keys = keys(algorithm, &secret);
                let mut sealed = plain.clone();
                let tag = keys[0].seal(nonce, &aad, &mut sealed).unwrap();
                for key in &keys {
                    let mut again = plain.clone();
                    prop_assert_eq!(key.seal(nonce, &aad, &mut again), Ok(tag));
                    prop_assert!(again == sealed);
                    prop_assert_eq!(key.open(nonce, &aad, &tag, &mut again), Ok(()));
                    prop_assert!(again == plain);

                    let mut changed = sealed.clone();
                    let mut wrong = tag;
                    match changed.len() {
                        0 => wrong[usize::from(bit) % TAG] ^= 1,
                        length => changed[usize::from(bit) % length] ^= 1,
                    }
                    prop_assert_eq!(key.open(nonce, &aad, &wrong, &mut changed), Err(Failed));
                    prop_assert_eq!(key.open(nonce, &aad, &tag[1..], &mut again), Err(Failed));
                }
            }
        }
    }
}
