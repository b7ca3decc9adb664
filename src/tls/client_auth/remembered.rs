//! Signatures under certificates that were found good once.
//!
//! That a key has signed a message is a fact for ever, whatever the policy, the
//! clock or a CRL say; everything that these decide is asked each time anew.
//! So of all that verifying a chain takes, only this is remembered: a quarter of
//! what a full handshake costs a server, most of what a resumption does, and
//! nearly all of what it takes to judge a connection again after a reload.
//!
//! Handshakes' own signatures are not among them: no two are alike.

use std::cell::RefCell;
use std::sync::OnceLock;

use aws_lc_rs::digest::{self, Context};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    AlgorithmIdentifier, FipsStatus, InvalidSignature, SignatureVerificationAlgorithm,
};

/// Signatures that a thread remembers, at 32 bytes each: those of as many
/// clients that come back again and again. A power of two.
const REMEMBERED: usize = 2048;

/// A SHA-256 over algorithm, key, message and signature. All zeros: nothing is
/// known to have it.
type Fact = [u8; 32];

thread_local! {
    /// By the fact's first bytes; a newer one takes an older one's place. A
    /// worker's own, so that nobody waits for anybody.
    static FACTS: RefCell<Box<[Fact]>> =
        RefCell::new(vec![[0; 32]; REMEMBERED].into_boxed_slice());
}

/// The same algorithms, with a memory for what chains are verified by.
pub(super) fn remembering(algorithms: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    static ALL: OnceLock<Vec<Remembering>> = OnceLock::new();
    static REFERENCES: OnceLock<Vec<&'static dyn SignatureVerificationAlgorithm>> = OnceLock::new();
    let all = ALL.get_or_init(|| algorithms.all.iter().copied().map(Remembering).collect());
    let all = REFERENCES.get_or_init(|| all.iter().map(|one| one as _).collect());
    WebPkiSupportedAlgorithms { all, ..algorithms }
}

/// One algorithm with a memory.
#[derive(Debug)]
struct Remembering(&'static dyn SignatureVerificationAlgorithm);

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let fact = self.fact(public_key, message, signature);
        let place = usize::from(u16::from_le_bytes([fact[0], fact[1]])) % REMEMBERED;
        let known = FACTS.with_borrow(|facts| facts[place] == fact);
        if !known {
            self.0.verify_signature(public_key, message, signature)?;
            FACTS.with_borrow_mut(|facts| facts[place] = fact);
        }
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }

    fn fips_status(&self) -> FipsStatus {
        self.0.fips_status()
    }
}

impl Remembering {
    /// Each part behind its length, so that no two facts look alike.
    fn fact(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Fact {
        let (of_key, of_signature) = (self.0.public_key_alg_id(), self.0.signature_alg_id());
        let mut context = Context::new(&digest::SHA256);
        for part in [&*of_key, &*of_signature, public_key, message, signature] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        super::finish(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls::pki_types::alg_id;

    use super::*;

    /// Finds good what ends in "good", and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(
            &self,
            _public_key: &[u8],
            _message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if signature.ends_with(b"good") {
                Ok(())
            } else {
                Err(InvalidSignature)
            }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ED25519
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ED25519
        }
    }

    fn counting() -> (&'static Counting, Remembering) {
        let counting: &'static Counting = Box::leak(Box::default());
        (counting, Remembering(counting))
    }

    #[test]
    fn a_good_signature_is_checked_once_and_a_bad_one_each_time() {
        let (counting, remembering) = counting();
        let asked = || counting.0.load(Ordering::Relaxed);
        for _ in 0..3 {
            assert!(
                remembering
                    .verify_signature(b"key", b"message", b"good")
                    .is_ok()
            );
        }
        assert_eq!(asked(), 1);
        for times in 1..4 {
            let bad = remembering.verify_signature(b"key", b"message", b"bad");
            assert!(bad.is_err());
            assert_eq!(asked(), 1 + times);
        }
    }

    #[test]
    fn what_is_known_of_one_signature_says_nothing_of_another() {
        let (counting, remembering) = counting();
        let parts: [[&[u8]; 3]; 5] = [
            [b"key", b"message", b"good"],
            [b"kez", b"message", b"good"],
            [b"key", b"messagf", b"good"],
            [b"key", b"message", b" good"],
            // The same bytes, parted elsewhere.
            [b"keym", b"essage", b"good"],
        ];
        for (times, [key, message, signature]) in parts.into_iter().enumerate() {
            assert!(
                remembering
                    .verify_signature(key, message, signature)
                    .is_ok()
            );
            assert_eq!(counting.0.load(Ordering::Relaxed), times + 1);
        }
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_rightly() {
        let (_, remembering) = counting();
        for number in 0..3 * REMEMBERED as u64 {
            let message = number.to_be_bytes();
            assert!(
                remembering
                    .verify_signature(b"k", &message, b"good")
                    .is_ok()
            );
            assert!(
                remembering
                    .verify_signature(b"k", &message, b"evil")
                    .is_err()
            );
        }
        for number in 0..3 * REMEMBERED as u64 {
            let message = number.to_be_bytes();
            assert!(
                remembering
                    .verify_signature(b"k", &message, b"good")
                    .is_ok()
            );
        }
        FACTS.with_borrow(|facts| assert_eq!(facts.len(), REMEMBERED));
    }
}
