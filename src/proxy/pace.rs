//! `limit_rate` and its kin: bytes by the second.

use std::future::pending;
use std::time::{Duration, Instant};

use crate::net::deadlines::Deadline;

/// How fast bytes may move, and how many have.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes per second; above 0.
    rate: u64,
    /// Bytes that are free.
    after: u64,
    moved: u64,
    /// When the first that counts moved.
    since: Option<Instant>,
    deadline: Deadline,
}

impl Pace {
    /// `None` where there is no limit.
    pub(crate) fn new(rate: u64, after: u64) -> Option<Box<Self>> {
        (rate > 0).then(|| {
            Box::new(Self {
                rate,
                after,
                moved: 0,
                since: None,
                deadline: Deadline::new(),
            })
        })
    }

    /// How many bytes may move at once without a burst: a quarter of a second's,
    /// which is about what the clock can tell apart.
    pub(crate) fn at_once(&self) -> usize {
        if self.moved < self.after {
            return usize::try_from(self.after - self.moved).unwrap_or(usize::MAX);
        }
        usize::try_from(self.rate / 4).unwrap_or(usize::MAX).max(1)
    }

    /// Counts bytes that are about to move.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// Waits until as many may have moved as have. Cancelling it does nothing.
    pub(crate) async fn wait(&mut self) {
        let wait = self.owed(Instant::now());
        if !wait.is_zero() {
            self.deadline.arm(wait);
            // Nothing ends it but the deadline.
            let _ = self.deadline.run(pending::<()>()).await;
        }
    }

    fn owed(&mut self, now: Instant) -> Duration {
        let counted = self.moved.saturating_sub(self.after);
        if counted == 0 {
            return Duration::ZERO;
        }
        let since = *self.since.get_or_insert(now);
        let due = Duration::from_secs_f64(counted as f64 / self.rate as f64);
        due.saturating_sub(now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_moved_is_paid_for_by_time() {
        let mut pace = Pace::new(1000, 500).unwrap();
        let begun = Instant::now();
        assert_eq!(pace.at_once(), 500);
        pace.count(500);
        assert_eq!(pace.owed(begun), Duration::ZERO);
        assert_eq!(pace.at_once(), 250);
        pace.count(2000);
        assert_eq!(pace.owed(begun), Duration::from_secs(2));
        let later = begun + Duration::from_millis(1500);
        assert_eq!(pace.owed(later), Duration::from_millis(500));
        assert_eq!(pace.owed(begun + Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Pace::new(0, 10).is_none());
        assert_eq!(Pace::new(1, 0).unwrap().at_once(), 1);
    }
}
