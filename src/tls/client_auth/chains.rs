//! Chains that a policy has let in.
//!
//! Without CRLs a judgement depends on the policy, on the chain, and on the time
//! by nothing but the periods in which the certificates of the path are valid.
//! So where a chain was good, the same bytes are good under the same policy until
//! the first of them ends: the path is still there, whichever would be found. A
//! client that comes back is spared the search for it, which is most of what is
//! left of judging a chain once its signatures are [remembered](super::remembered).
//!
//! A refusal is not remembered, and under CRLs nothing is: they have a time of
//! their own. What is asked of an identity beyond its being proven
//! (`ssl_client_allow`) is asked elsewhere, of every connection.

use std::cell::RefCell;

use aws_lc_rs::digest::{self, Context};
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Chains that a thread remembers, at 48 bytes each: those of as many clients
/// that come back again and again. A power of two.
const REMEMBERED: usize = 1024;

/// A SHA-256 over a policy and a chain.
pub(super) struct Fact([u8; 32]);

/// From the first second in which all of a path is valid to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    from: i64,
    to: i64,
}

/// Empty: nothing is known to be good at any time.
const NEVER: Period = Period { from: 1, to: 0 };

type Known = ([u8; 32], Period);

thread_local! {
    /// By the fact's first bytes; a newer one takes an older one's place. A
    /// worker's own, so that nobody waits for anybody.
    static GOOD: RefCell<Box<[Known]>> =
        RefCell::new(vec![([0; 32], NEVER); REMEMBERED].into_boxed_slice());
}

impl Fact {
    /// Each certificate behind its length, so that no two chains look alike.
    pub(super) fn of(
        policy: &[u8; 32],
        leaf: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
    ) -> Self {
        let mut context = Context::new(&digest::SHA256);
        context.update(policy);
        for der in std::iter::once(leaf).chain(presented) {
            context.update(&(der.len() as u64).to_be_bytes());
            context.update(der);
        }
        Self(super::finish(context))
    }

    fn place(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[0], self.0[1]])) % REMEMBERED
    }

    /// Whether the policy is known to let the chain in now.
    pub(super) fn is_good(&self, now: UnixTime) -> bool {
        GOOD.with_borrow(|good| {
            let (fact, period) = &good[self.place()];
            *fact == self.0 && period.has(now)
        })
    }

    /// It does, in this period.
    pub(super) fn remember(&self, period: Period) {
        GOOD.with_borrow_mut(|good| good[self.place()] = (self.0, period));
    }
}

impl Period {
    pub(super) fn new(from: i64, to: i64) -> Self {
        Self { from, to }
    }

    /// Of a certificate; never, if it cannot be read.
    pub(super) fn of(der: &[u8]) -> Self {
        X509Certificate::from_der(der).map_or(NEVER, |(_, parsed)| {
            let validity = parsed.validity();
            Self::new(
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            )
        })
    }

    /// What both have of it.
    pub(super) fn and(self, other: Self) -> Self {
        Self::new(self.from.max(other.from), self.to.min(other.to))
    }

    fn has(self, now: UnixTime) -> bool {
        let now = now.as_secs().cast_signed();
        self.from <= now && now <= self.to
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn fact(policy: u8, chain: &[&[u8]]) -> Fact {
        let chain: Vec<_> = chain.iter().map(|&der| CertificateDer::from(der)).collect();
        Fact::of(&[policy; 32], &chain[0], &chain[1..])
    }

    #[test]
    fn what_is_known_of_one_chain_says_nothing_of_another_nor_of_another_policy() {
        fact(1, &[b"ab", b"c"]).remember(Period::new(10, 20));
        assert!(fact(1, &[b"ab", b"c"]).is_good(at(10)));
        for other in [
            fact(2, &[b"ab", b"c"]),
            fact(1, &[b"ab"]),
            fact(1, &[b"abc"]),
            fact(1, &[b"a", b"bc"]),
            fact(1, &[b"c", b"ab"]),
            fact(1, &[b"ab", b"c", b""]),
        ] {
            assert!(!other.is_good(at(10)));
        }
    }

    #[test]
    fn a_chain_is_good_as_long_as_all_of_it_is() {
        let period = Period::new(10, 30).and(Period::new(0, 20));
        assert_eq!(period, Period::new(10, 20));
        let fact = fact(3, &[b"leaf"]);
        fact.remember(period);
        let good = [9, 10, 20, 21].map(|seconds| fact.is_good(at(seconds)));
        assert_eq!(good, [false, true, true, false]);
        fact.remember(period.and(Period::of(b"no certificate")));
        assert!(!fact.is_good(at(15)));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_rightly() {
        let chains = 3 * REMEMBERED as u32;
        for number in 0..chains {
            fact(4, &[&number.to_be_bytes()]).remember(Period::new(10, 20));
        }
        let known = (0..2 * chains).filter(|number| {
            let is_good = fact(4, &[&number.to_be_bytes()]).is_good(at(10));
            assert!(!is_good || *number < chains);
            is_good
        });
        assert!((1..=REMEMBERED).contains(&known.count()));
        GOOD.with_borrow(|good| assert_eq!(good.len(), REMEMBERED));
    }
}
