//! TLS 1.3's key schedule (RFC 8446 §7.1) with HMAC keys that are begun once.
//!
//! A handshake makes some thirty secrets and keys from a dozen others. HMAC
//! hashes a block of padding with its key at both ends, which is half of the
//! work for outputs this short and the same for all that one secret gives. An
//! expander here remembers it; the provider's own begins anew for each output,
//! and extracts anew where the secret is an extracted one.
//!
//! rustls asks twice for much of it: for a secret's record keys when they are
//! put to use and when the record layer of ours takes them over, for the same
//! secret again at Finished, for a session's secret at each ticket. So a
//! handshake has a [`Memory`] of the secrets that it has begun.
//!
//! And it asks for secrets that nothing is done with ([`is_unused`]): those are
//! not derived.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::{hmac, rand};
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::{CipherSuite, CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};

use super::transcript::{self, Tried};

/// Secrets that are remembered: those of a handshake that are used again are
/// among the last so many at any time.
const REMEMBERED: usize = 8;

thread_local! {
    /// Of the handshake that this thread is driving.
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// What one handshake has begun. It holds the handshake's secrets, and so is
/// to live no longer than the key schedule of rustls', which has them as well.
#[derive(Default)]
pub(super) struct Memory {
    secrets: VecDeque<Arc<Secret>>,
    /// Of its transcript, until the transcript itself begins so.
    beginning: Option<Tried>,
}

impl Memory {
    /// Lets rustls go on with the handshake whose memory this is.
    pub(super) fn during<T>(&mut self, go_on: impl FnOnce() -> T) -> T {
        // In place of whatever one left behind that failed in between.
        MEMORY.set(Some(std::mem::take(self)));
        let result = go_on();
        *self = MEMORY.take().unwrap_or_default();
        result
    }

    fn recall(&mut self, hkdf: &HkdfOver, secret: &[u8]) -> Arc<Secret> {
        let known = |one: &&Arc<Secret>| {
            one.bytes.as_ref() == secret && one.key.algorithm() == hkdf.algorithm
        };
        if let Some(known) = self.secrets.iter().find(known) {
            return Arc::clone(known);
        }
        if self.secrets.len() == REMEMBERED {
            self.secrets.pop_front();
        }
        let fresh = Arc::new(Secret::new(hkdf.algorithm, secret));
        self.secrets.push_back(Arc::clone(&fresh));
        fresh
    }

    /// Takes the beginning of a transcript that this thread's handshake has tried,
    /// if it is one that `fits`.
    pub(super) fn recall_beginning(fits: impl FnOnce(&Tried) -> bool) -> Option<Tried> {
        MEMORY.with_borrow_mut(|memory| {
            let beginning = &mut memory.as_mut()?.beginning;
            beginning.take_if(|tried| fits(tried))
        })
    }

    /// Has it remembered, if this thread is driving a handshake.
    pub(super) fn keep_beginning(tried: impl FnOnce() -> Tried) {
        MEMORY.with_borrow_mut(|memory| {
            if let Some(memory) = memory {
                memory.beginning = Some(tried());
            }
        });
    }

    #[cfg(test)]
    pub(super) fn has_beginning() -> bool {
        MEMORY.with_borrow(|memory| memory.as_ref().is_some_and(|it| it.beginning.is_some()))
    }
}

/// HKDF (RFC 5869) over HMAC with one hash function.
struct HkdfOver {
    algorithm: hmac::Algorithm,
    /// The key of an extraction without a salt.
    unsalted: OnceLock<hmac::Key>,
    /// The early secret of a handshake that resumes nothing, the same for all.
    without_psk: OnceLock<Arc<Secret>>,
    /// In place of those that [`is_unused`] knows; `None` without randomness.
    unused: OnceLock<Option<Arc<Secret>>>,
}

static SHA256: HkdfOver = HkdfOver::new(hmac::HMAC_SHA256);
static SHA384: HkdfOver = HkdfOver::new(hmac::HMAC_SHA384);

/// Whether this is HKDF-Expand-Label (RFC 8446 §7.1) for a secret of which rustls
/// makes keys that it then replaces, since no early data is accepted, or that
/// nobody asks it for, as for an exporter.
///
/// Such a secret is a number that this process alone knows. So whoever came to use
/// one all the same would find that no peer has it, and fail; a well-known number
/// would let early data in that anybody has forged.
fn is_unused(info: &[&[u8]]) -> bool {
    matches!(info, [_, _, b"tls13 ", b"c e traffic" | b"exp master", ..])
}

/// The same suite, but for what it derives its secrets with and what it hashes
/// handshakes with.
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
            hash_provider: match suite.common.suite {
                CipherSuite::TLS13_AES_256_GCM_SHA384 => &transcript::SHA384,
                _ => &transcript::SHA256,
            },
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
    const fn new(algorithm: hmac::Algorithm) -> Self {
        Self {
            algorithm,
            unsalted: OnceLock::new(),
            without_psk: OnceLock::new(),
            unused: OnceLock::new(),
        }
    }

    /// The secrets are made in the same way, so that all else is done with them.
    fn unused(&self) -> Option<&Arc<Secret>> {
        let make = || {
            let mut bytes = [0; OkmBlock::MAX_LEN];
            let length = self.algorithm.digest_algorithm().output_len();
            let bytes = bytes.get_mut(..length)?;
            rand::fill(bytes).ok()?;
            Some(Arc::new(Secret::new(self.algorithm, bytes)))
        };
        self.unused.get_or_init(make).as_ref()
    }

    fn key(&self, bytes: &[u8]) -> hmac::Key {
        hmac::Key::new(self.algorithm, bytes)
    }

    fn extract(&self, salt: Option<&[u8]>, secret: &[u8]) -> OkmBlock {
        // HMAC pads its key with zeroes, so that none is as good as a block of them.
        let tag = match salt {
            None => hmac::sign(self.unsalted.get_or_init(|| self.key(&[])), secret),
            Some(salt) => hmac::sign(&self.key(salt), secret),
        };
        OkmBlock::new(tag.as_ref())
    }

    fn expander(&self, secret: &OkmBlock) -> Box<dyn HkdfExpander> {
        let unused = self.unused.get().and_then(Option::as_ref);
        if let Some(unused) = unused
            && unused.bytes.as_ref() == secret.as_ref()
        {
            return Box::new(Expander(Arc::clone(unused)));
        }
        let secret = MEMORY.with_borrow_mut(|memory| match memory {
            Some(memory) => memory.recall(self, secret.as_ref()),
            None => Arc::new(Secret::new(self.algorithm, secret.as_ref())),
        });
        Box::new(Expander(secret))
    }
}

impl Hkdf for HkdfOver {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        let zeroes = [0; OkmBlock::MAX_LEN];
        let length = self.algorithm.digest_algorithm().output_len();
        let zeroes = zeroes.get(..length).unwrap_or_default();
        if salt.is_some() {
            return self.extract_from_secret(salt, zeroes);
        }
        let secret = self.without_psk.get_or_init(|| {
            let extracted = self.extract(None, zeroes);
            Arc::new(Secret::new(self.algorithm, extracted.as_ref()))
        });
        Box::new(Expander(Arc::clone(secret)))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.expander(&self.extract(salt, secret))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        self.expander(okm)
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        Tag::new(hmac::sign(&self.key(key.as_ref()), message).as_ref())
    }
}

/// A secret that others are made from.
struct Secret {
    bytes: OkmBlock,
    key: hmac::Key,
    /// The first blocks made with a short `info`: of a traffic secret, those
    /// that its key and its IV are cut from.
    short: [OnceLock<(Short, OkmBlock)>; 2],
}

impl Secret {
    fn new(algorithm: hmac::Algorithm, bytes: &[u8]) -> Self {
        Self {
            bytes: OkmBlock::new(bytes),
            key: hmac::Key::new(algorithm, bytes),
            short: [const { OnceLock::new() }; 2],
        }
    }

    /// T(1) of RFC 5869 §2.3, which is all of an output no longer than the hash.
    fn first(&self, info: &[&[u8]]) -> OkmBlock {
        if let Some(short) = Short::of(info) {
            for place in &self.short {
                let (of, block) = place.get_or_init(|| (short, self.term(&[], info, 1)));
                if *of == short {
                    return block.clone();
                }
            }
        }
        self.term(&[], info, 1)
    }

    /// T(counter), made of the one before it.
    fn term(&self, before: &[u8], info: &[&[u8]], counter: u8) -> OkmBlock {
        let mut hash = hmac::Context::with_key(&self.key);
        hash.update(before);
        info.iter().for_each(|part| hash.update(part));
        hash.update(&[counter]);
        OkmBlock::new(hash.sign().as_ref())
    }
}

/// An `info` of a few bytes, such as HKDF-Expand-Label's for a key or an IV,
/// which have no context.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Short {
    length: usize,
    bytes: [u8; 16],
}

impl Short {
    fn of(info: &[&[u8]]) -> Option<Self> {
        let (mut length, mut bytes) = (0, [0; 16]);
        for part in info {
            bytes
                .get_mut(length..length + part.len())?
                .copy_from_slice(part);
            length += part.len();
        }
        Some(Self { length, bytes })
    }
}

struct Expander(Arc<Secret>);

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        let mut term: Option<OkmBlock> = None;
        let mut counter = 0_u8;
        for chunk in output.chunks_mut(self.hash_len()) {
            counter = counter.checked_add(1).ok_or(OutputLengthError)?;
            let next = match &term {
                None => self.0.first(info),
                Some(before) => self.0.term(before.as_ref(), info, counter),
            };
            if let Some(bytes) = next.as_ref().get(..chunk.len()) {
                chunk.copy_from_slice(bytes);
            }
            term = Some(next);
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        let hkdf = match self.0.key.algorithm() == hmac::HMAC_SHA384 {
            true => &SHA384,
            false => &SHA256,
        };
        let unused = is_unused(info).then(|| hkdf.unused()).flatten();
        unused.map_or_else(|| self.0.first(info), |unused| unused.bytes.clone())
    }

    fn hash_len(&self) -> usize {
        self.0.key.algorithm().digest_algorithm().output_len()
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
            let mut memory = Memory::default();
            for suite in TLS13 {
                let [ours, theirs] = providers(suite);
                let key = OkmBlock::new(ours.extract_from_zero_ikm(None).expand_block(&info).as_ref());
                let derive = |hkdf: &dyn Hkdf| [
                    expanded(&*hkdf.extract_from_zero_ikm(salt), &info, length),
                    expanded(&*hkdf.extract_from_secret(salt, &secret), &info, length),
                    expanded(&*hkdf.expander_for_okm(&key), &info, length),
                    expanded(&*hkdf.expander_for_okm(&key), &info[..info.len().min(1)], length),
                    expanded(&*hkdf.expander_for_okm(&key), &[], length),
                    hkdf.hmac_sign(&key, &secret).as_ref().to_vec(),
                ];
                let expected = derive(theirs);
                prop_assert_eq!(&derive(ours), &expected);
                for _ in 0..2 {
                    prop_assert_eq!(&memory.during(|| derive(ours)), &expected);
                }
            }
        }
    }

    #[test]
    fn a_secret_is_begun_once_in_a_handshake_and_again_in_another() {
        let secret = OkmBlock::new(&[7; 48]);
        let begin = || drop(SHA384.expander_for_okm(&secret));
        let remembered = |memory: &Memory| memory.secrets.front().map(Arc::as_ptr);
        let (mut one, mut other) = (Memory::default(), Memory::default());
        one.during(begin);
        let first = remembered(&one);
        one.during(begin);
        assert_eq!(one.secrets.len(), 1);
        assert_eq!(remembered(&one), first);
        other.during(begin);
        assert_ne!(remembered(&other), first);
        // The same bytes under another hash are another secret.
        one.during(|| drop(SHA256.expander_for_okm(&secret)));
        assert_eq!(one.secrets.len(), 2);
    }

    #[test]
    fn what_nothing_is_done_with_is_not_derived_and_is_nothing_that_anybody_knows() {
        for suite in TLS13 {
            let [ours, theirs] = providers(suite);
            let secret = |hkdf: &dyn Hkdf, of: u8, label: &[u8]| {
                let length = [
                    0,
                    ours.expander_for_okm(&OkmBlock::new(&[0; 32])).hash_len() as u8,
                ];
                let label_length = [6 + label.len() as u8];
                let info: [&[u8]; 6] = [&length, &label_length, b"tls13 ", label, &[2], b"ab"];
                let expander = hkdf.expander_for_okm(&OkmBlock::new(&[of; 48]));
                expander.expand_block(&info).as_ref().to_vec()
            };
            for label in [&b"c e traffic"[..], b"exp master"] {
                let unused = secret(ours, 1, label);
                assert_eq!(unused.len(), secret(theirs, 1, label).len());
                assert_ne!(unused, secret(theirs, 1, label));
                assert_eq!(unused, secret(ours, 2, label));
                assert!(unused.iter().any(|&byte| byte != 0));
                // Keys can be made of it as of any other.
                let unused = OkmBlock::new(&unused);
                let key =
                    |hkdf: &dyn Hkdf| expanded(&*hkdf.expander_for_okm(&unused), &[b"key"], 32);
                assert_eq!(key(ours), key(theirs));
            }
            for label in [
                &b"e exp master"[..],
                b"c hs traffic",
                b"res master",
                b"derived",
            ] {
                assert_eq!(secret(ours, 1, label), secret(theirs, 1, label));
            }
        }
    }

    #[test]
    fn key_and_iv_are_made_once_and_longer_infos_are_not_kept() {
        let secret = Secret::new(hmac::HMAC_SHA384, &[7; 48]);
        let made = || secret.short.iter().filter_map(OnceLock::get).count();
        secret.first(&[&[3; 17]]);
        assert_eq!(made(), 0);
        for expected in [1, 2, 2, 2] {
            secret.first(&[&[expected as u8; 13]]);
            assert_eq!(made(), expected);
        }
    }

    #[test]
    fn nothing_stays_on_the_thread_and_the_memory_is_bounded() {
        let begin = || {
            for byte in 0..3 * REMEMBERED as u8 {
                drop(SHA256.expander_for_okm(&OkmBlock::new(&[byte; 32])));
            }
        };
        let mut memory = Memory::default();
        memory.during(begin);
        begin();
        assert!(MEMORY.with_borrow(Option::is_none));
        assert_eq!(memory.secrets.len(), REMEMBERED);
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
