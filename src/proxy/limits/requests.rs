//! `limit_req`: Nginx's leaky bucket, in its arithmetic.
//!
//! All is counted in thousandths of a request. A state holds by how much its
//! client was above the rate when it last came; each request adds 1000, and
//! each millisecond takes away a thousandth of the rate.

use super::table::{Shard, Table};

/// A state younger than this is not given up before it has to be.
const OLD: u64 = 60_000;

/// What is known of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Milliseconds, on the process's clock.
    last: u64,
    excess: u64,
    /// Requests between [`RequestTable::check`] and
    /// [`RequestTable::account`]: the state must not go away.
    pins: u32,
}

impl Bucket {
    /// What the excess is with a request more.
    fn with_one_more(&self, now: u64, rate: u64) -> u64 {
        let leaked = leaked(rate, now.saturating_sub(self.last));
        (self.excess + 1000).saturating_sub(leaked)
    }

    fn set(&mut self, now: u64, excess: u64) {
        self.excess = excess;
        // Two workers may come here in another order than they looked at
        // their clocks.
        self.last = self.last.max(now);
    }
}

fn leaked(rate: u64, ms: u64) -> u64 {
    rate.saturating_mul(ms) / 1000
}

/// How long `excess` beyond what is not delayed takes to leak, in ms.
pub(super) fn delay(excess: u64, undelayed: u64, rate: u64) -> u64 {
    excess.saturating_sub(undelayed).saturating_mul(1000) / rate.max(1)
}

/// What one limit says of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Above the burst, by this excess.
    Busy(u64),
    /// It has been counted, and the excess is this.
    Counted(u64),
    /// It would pass; whether it is counted depends on the other limits.
    Pending(Pin),
    /// There is no room for another key.
    Full,
}

/// A state that is being waited for. Must be given to
/// [`RequestTable::account`] or [`RequestTable::release`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    shard: usize,
    index: usize,
}

/// The states of one `limit_req_zone`.
#[derive(Debug)]
pub(crate) struct RequestTable(Table<Bucket>);

impl RequestTable {
    pub(super) fn new(size: usize) -> Self {
        Self(Table::new(size))
    }

    /// Holds a request against its key's state; counts it at once only if no
    /// other limit can still refuse it.
    pub(super) fn check(&self, key: &[u8], now: u64, rate: u64, burst: u64, last: bool) -> Verdict {
        let number = self.0.shard_of(key);
        let Some(mut shard) = self.0.lock(number) else {
            return Verdict::Full;
        };
        let (index, excess) = match shard.find(key) {
            Some(index) => {
                let bucket = shard.get(index);
                let excess = bucket.map_or(0, |bucket| bucket.with_one_more(now, rate));
                if excess > burst {
                    return Verdict::Busy(excess);
                }
                (index, excess)
            }
            None => match insert(&mut shard, key, now, rate, last) {
                Some(index) => (index, 0),
                None => return Verdict::Full,
            },
        };
        let Some(bucket) = shard.get(index) else {
            return Verdict::Full;
        };
        if last {
            bucket.set(now, excess);
            return Verdict::Counted(excess);
        }
        bucket.pins += 1;
        Verdict::Pending(Pin {
            shard: number,
            index,
        })
    }

    /// Counts a request that all limits let pass; its excess.
    pub(super) fn account(&self, pin: Pin, now: u64, rate: u64) -> u64 {
        let Some(mut shard) = self.0.lock(pin.shard) else {
            return 0;
        };
        let Some(bucket) = shard.get(pin.index) else {
            return 0;
        };
        let excess = bucket.with_one_more(now, rate);
        bucket.set(now, excess);
        bucket.pins = bucket.pins.saturating_sub(1);
        excess
    }

    /// Forgets a request that another limit refused.
    pub(super) fn release(&self, pin: Pin) {
        if let Some(mut shard) = self.0.lock(pin.shard)
            && let Some(bucket) = shard.get(pin.index)
        {
            bucket.pins = bucket.pins.saturating_sub(1);
        }
    }
}

/// Adds a state. One or two that have nothing to say any more make room for
/// it, and if that is not enough the oldest whatever it says.
fn insert(
    shard: &mut Shard<Bucket>,
    key: &[u8],
    now: u64,
    rate: u64,
    counted: bool,
) -> Option<usize> {
    // Of one that is not counted yet, the first request will be.
    let bucket = Bucket {
        last: if counted { now } else { 0 },
        ..Bucket::default()
    };
    expire(shard, now, rate, false);
    shard.insert(key, bucket).or_else(|| {
        expire(shard, now, rate, true);
        shard.insert(key, bucket)
    })
}

fn expire(shard: &mut Shard<Bucket>, now: u64, rate: u64, by_force: bool) {
    for attempt in 0..if by_force { 3 } else { 2 } {
        let Some((index, bucket)) = shard.oldest() else {
            return;
        };
        // States move to the front when they are looked up, so the others
        // behind a pinned one are pinned as well.
        if bucket.pins > 0 {
            return;
        }
        let age = now.saturating_sub(bucket.last);
        let is_spent = age >= OLD && bucket.excess <= leaked(rate, age);
        let must_go = by_force && attempt == 0;
        if !is_spent && !must_go {
            return;
        }
        shard.remove(index);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Long after the process began, like a real clock.
    const START: u64 = 1_000_000;

    #[test]
    fn the_first_request_is_free_and_each_further_one_adds_a_thousand() {
        let table = RequestTable::new(1 << 20);
        let check = |ms| table.check(b"a", START + ms, 10_000, 2000, true);
        assert_eq!(check(0), Verdict::Counted(0));
        assert_eq!(check(0), Verdict::Counted(1000));
        assert_eq!(check(0), Verdict::Counted(2000));
        assert_eq!(check(0), Verdict::Busy(3000));
        // Ten a second: one leaks in 100 ms.
        assert_eq!(check(99), Verdict::Busy(2010));
        assert_eq!(check(100), Verdict::Counted(2000));
        assert_eq!(check(10_000), Verdict::Counted(0));
    }

    #[test]
    fn a_request_that_another_limit_refuses_is_not_counted() {
        let table = RequestTable::new(1 << 20);
        let Verdict::Pending(pin) = table.check(b"a", START, 1000, 0, false) else {
            panic!()
        };
        table.release(pin);
        let Verdict::Pending(pin) = table.check(b"a", START, 1000, 0, false) else {
            panic!()
        };
        assert_eq!(table.account(pin, START, 1000), 0);
        assert_eq!(
            table.check(b"a", START, 1000, 0, false),
            Verdict::Busy(1000)
        );
    }

    #[test]
    fn the_oldest_state_makes_room_unless_it_is_in_use() {
        // One state for each shard.
        let table = RequestTable::new(16 * 64);
        let mut keys = (0u8..)
            .map(|n| [n])
            .filter(|key| table.0.shard_of(key) == 0);
        let (a, b) = (keys.next().unwrap(), keys.next().unwrap());
        let check = |key: &[u8], last| table.check(key, START, 1000, 0, last);
        assert_eq!(check(&a, true), Verdict::Counted(0));
        assert_eq!(check(&b, true), Verdict::Counted(0));
        // It is forgotten, so it begins anew.
        let Verdict::Pending(pin) = check(&a, false) else {
            panic!()
        };
        assert_eq!(check(&b, true), Verdict::Full);
        table.release(pin);
        assert_eq!(check(&b, true), Verdict::Counted(0));
    }

    #[test]
    fn delays_are_what_the_excess_takes_to_leak() {
        assert_eq!(delay(3000, 0, 10_000), 300);
        assert_eq!(delay(3000, 1000, 10_000), 200);
        assert_eq!(delay(3000, u64::MAX, 10_000), 0);
        assert_eq!(delay(1000, 0, 16), 62_500);
    }

    proptest! {
        /// Whatever comes when: never more than the burst and what the rate
        /// allows in that time.
        #[test]
        fn no_more_pass_than_rate_and_burst_allow(
            rate in 1u64..100_000, burst in 0u64..20,
            gaps in proptest::collection::vec(0u64..500, 1..200),
        ) {
            let table = RequestTable::new(1 << 20);
            let (mut now, mut passed) = (START, 0);
            for gap in &gaps {
                now += gap;
                let verdict = table.check(b"key", now, rate, burst * 1000, true);
                passed += u64::from(matches!(verdict, Verdict::Counted(_)));
            }
            let elapsed = now - START;
            prop_assert!(passed <= 1 + burst + (rate * elapsed).div_ceil(1_000_000) + gaps.len() as u64 / 1000 + 1);
            prop_assert!(passed >= (1 + burst).min(gaps.len() as u64));
        }
    }
}
