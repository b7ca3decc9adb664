//! Which worker does what one of them is to do for all: the one that writes
//! its name here, and keeps doing so. If it ends, another takes over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::balance::state::Moment;

/// After so much silence the one who has the part is taken to have ended.
const SILENCE: Duration = Duration::from_secs(2);

/// Workers are told apart by numbers of their own.
static WORKERS: AtomicU64 = AtomicU64::new(0);

/// A number that nobody else has.
pub(super) fn number() -> u64 {
    WORKERS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Who has a part.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// 0 for nobody.
    holder: AtomicU64,
    /// When it was last seen, as [`Moment`] counts.
    seen: AtomicU64,
}

impl Board {
    /// Whether the part is this worker's, now and until its next call.
    pub(super) fn is_mine(&self, worker: u64, now: Instant) -> bool {
        let now = Moment::at(now);
        let holder = self.holder.load(Ordering::Acquire);
        let seen = self.seen.load(Ordering::Acquire);
        let mine = holder == worker
            || ((holder == 0 || now.since(seen) > SILENCE)
                && self
                    .holder
                    .compare_exchange(holder, worker, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok());
        if mine {
            self.seen.store(now.count(), Ordering::Release);
        }
        mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_has_the_part_until_it_falls_silent() {
        let board = Board::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(board.is_mine(1, at(0)));
        assert!(!board.is_mine(2, at(1)));
        assert!(board.is_mine(1, at(2)));
        assert!(!board.is_mine(2, at(3)));
        assert!(board.is_mine(2, at(5)));
        assert!(!board.is_mine(1, at(5)));
    }
}
