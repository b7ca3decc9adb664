//! TLS 1.3's key schedule (RFC 8446 §7.1) with HMAC keys that are begun once.
//!
//! A handshake makes some thirty secrets and keys from a dozen others. HMAC
//! hashes a block of padding with its key at both ends, which is half of the
//! work for outputs this short and the same for all that one secret gives. An
//! expander here remembers it; the provider's own begins anew for each output,
//! and extracts anew where the secret is an extracted one.

use aws_lc_rs::hmac;
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::{CipherSuite, CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};

/// HKDF (RFC 5869) over HMAC with one hash function.
struct HkdfOver(hmac::Algorithm);

static SHA256: HkdfOver = HkdfOver(hmac::HMAC_SHA256);
static SHA384: HkdfOver = HkdfOver(hmac::HMAC_SHA384);

/// The same suite, but for what it derives its secrets with.
///
/// # Panics
/// For a suite of TLS 1.2: at compile time, where it is used.
pub(super) const fn over_hmac(suite: &SupportedCipherSuite) -> Tls13CipherSuite {
    let SupportedCipherSuite::Tls13(suite) = suite else {
        panic!("a suite of TLS 1.3");
    };
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: match suite.common.suite {
            CipherSuite::TLS13_AES_256_GCM_SHA384 => &SHA384,
            _ => &SHA256,
        },
        aead_alg: suite.aead_alg,
        quic: None,
    }
}

impl HkdfOver {
    fn tag(&self, key: &[u8], message: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.0, key), message)
    }

    fn expander(&self, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(Expander(hmac::Key::new(self.0, secret)))
    }
}

impl Hkdf for HkdfOver {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        let zeroes = [0; OkmBlock::MAX_LEN];
        let length = self.0.digest_algorithm().output_len();
        self.extract_from_secret(salt, zeroes.get(..length).unwrap_or_default())
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        // HMAC pads its key with zeroes, so that none is as good as a block of them.
        let extracted = self.tag(salt.unwrap_or_default(), secret);
        self.expander(extracted.as_ref())
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        self.expander(okm.as_ref())
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        Tag::new(self.tag(key.as_ref(), message).as_ref())
    }
}

/// A secret that others are made from.
struct Expander(hmac::Key);

impl Expander {
    /// T(counter), made of the one before it (RFC 5869 §2.3).
    fn term(&self, before: &[u8], info: &[&[u8]], counter: u8) -> hmac::Tag {
        let mut hash = hmac::Context::with_key(&self.0);
        hash.update(before);
        info.iter().for_each(|part| hash.update(part));
        hash.update(&[counter]);
        hash.sign()
    }
}

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        let mut term: Option<hmac::Tag> = None;
        let mut counter = 0_u8;
        for chunk in output.chunks_mut(self.hash_len()) {
            counter = counter.checked_add(1).ok_or(OutputLengthError)?;
            let before = term.as_ref().map(AsRef::as_ref).unwrap_or_default();
            let next = self.term(before, info, counter);
            if let Some(bytes) = next.as_ref().get(..chunk.len()) {
                chunk.copy_from_slice(bytes);
            }
            term = Some(next);
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(self.term(&[], info, 1).as_ref())
    }

    fn hash_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ciphers::TLS13;
    use super::*;

    /// Both providers of a suite: this module's and the one it replaces.
    fn providers(suite: SupportedCipherSuite) -> [&'static dyn Hkdf; 2] {
        let all = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
        let same = all.iter().find(|it| it.suite() == suite.suite()).unwrap();
        [suite, *same].map(|suite| suite.tls13().unwrap().hkdf_provider)
    }

    fn expanded(expander: &dyn HkdfExpander, info: &[&[u8]], length: usize) -> Vec<u8> {
        let mut output = vec![0; length];
        expander.expand_slice(info, &mut output).unwrap();
        output.extend_from_slice(expander.expand_block(info).as_ref());
        output
    }

    proptest! {
        #[test]
        fn every_suite_derives_what_the_provider_of_the_library_derives(
            salt in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            secret in proptest::collection::vec(any::<u8>(), 0..200),
            info in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..4),
            length in 0_usize..300,
        ) {
            let salt = salt.as_deref();
            let info: Vec<&[u8]> = info.iter().map(|part| &**part).collect();
            for suite in TLS13 {
                let [ours, theirs] = providers(suite);
                let key = OkmBlock::new(ours.extract_from_zero_ikm(None).expand_block(&info).as_ref());
                let outputs = [ours, theirs].map(|hkdf| [
                    expanded(&*hkdf.extract_from_zero_ikm(salt), &info, length),
                    expanded(&*hkdf.extract_from_secret(salt, &secret), &info, length),
                    expanded(&*hkdf.expander_for_okm(&key), &info, length),
                    hkdf.hmac_sign(&key, &secret).as_ref().to_vec(),
                ]);
                prop_assert_eq!(&outputs[0], &outputs[1]);
            }
        }
    }

    #[test]
    fn an_output_is_at_most_255_hashes_long() {
        for suite in TLS13 {
            for hkdf in providers(suite) {
                let expander = hkdf.extract_from_zero_ikm(None);
                let longest = 255 * expander.hash_len();
                assert!(
                    expander
                        .expand_slice(&[b"x"], &mut vec![0; longest])
                        .is_ok()
                );
                assert!(
                    expander
                        .expand_slice(&[b"x"], &mut vec![0; longest + 1])
                        .is_err()
                );
            }
        }
    }
}
