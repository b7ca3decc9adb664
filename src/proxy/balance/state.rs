//! What is known about a peer of an upstream: when it failed, and how many
//! requests are under way.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::UpstreamPeer;

/// Milliseconds on the process's own clock; 0 stands for "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Moment {
    pub(crate) fn at(instant: Instant) -> Self {
        let elapsed = instant.saturating_duration_since(*EPOCH).as_millis();
        Self(u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1)
    }

    /// As a number that [`Moment::since`] takes.
    pub(crate) fn count(self) -> u64 {
        self.0
    }

    /// The time since an earlier moment; none has passed since a later one.
    pub(crate) fn since(self, earlier: u64) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier))
    }
}

/// One peer. The fields are read and written without regard to one another:
/// what is at stake is one request more or less for a peer that fails.
#[derive(Debug, Default)]
pub(crate) struct PeerState {
    /// Requests under way.
    active: AtomicU32,
    /// Within `fail_timeout`.
    fails: AtomicU32,
    /// When it last failed.
    accessed: AtomicU64,
    /// When it last failed, or was first chosen `fail_timeout` after that.
    checked: AtomicU64,
    /// When it was last found to work again, for `slow_start`.
    recovered: AtomicU64,
    /// By its health checks: it is to get nothing.
    is_unhealthy: AtomicBool,
    /// Results in a row that speak against what holds.
    streak: AtomicU32,
}

/// What a health check has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    AsBefore,
    BecameHealthy,
    BecameUnhealthy,
}

/// What a failure did to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// It is still chosen.
    Available,
    /// It gets no requests for its `fail_timeout`.
    Disabled,
}

impl PeerState {
    /// Whether it has failed too often too recently.
    pub(super) fn is_benched(&self, config: &UpstreamPeer, now: Moment) -> bool {
        config.max_fails > 0
            && self.fails.load(Ordering::Relaxed) >= config.max_fails
            && now.since(self.checked.load(Ordering::Relaxed)) <= config.fail_timeout
    }

    /// Whether it has as many requests as `max_conns` lets it have.
    pub(super) fn is_full(&self, config: &UpstreamPeer) -> bool {
        config.max_conns > 0 && self.active() >= config.max_conns
    }

    /// Requests under way.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes a place; `false` if another worker took the last one meanwhile.
    pub(super) fn occupy(&self, config: &UpstreamPeer, now: Moment) -> bool {
        if config.max_conns == 0 {
            self.active.fetch_add(1, Ordering::Relaxed);
        } else {
            let taken = self
                .active
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| {
                    (active < config.max_conns).then_some(active + 1)
                });
            if taken.is_err() {
                return false;
            }
        }
        if now.since(self.checked.load(Ordering::Relaxed)) > config.fail_timeout {
            self.checked.store(now.0, Ordering::Relaxed);
        }
        true
    }

    /// Gives the place back.
    pub(super) fn vacate(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// The peer answered: what it did wrong before is forgotten if it has
    /// been on probation since.
    pub(super) fn succeeded(&self, config: &UpstreamPeer, now: impl Fn() -> Moment) {
        if self.fails.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.accessed.load(Ordering::Relaxed) < self.checked.load(Ordering::Relaxed) {
            let fails = self.fails.swap(0, Ordering::Relaxed);
            if config.max_fails > 0 && fails >= config.max_fails {
                self.recovered.store(now().0, Ordering::Relaxed);
            }
        }
    }

    /// The peer could not be reached, timed out, broke off or answered with
    /// what counts as a failure.
    pub(super) fn failed(&self, config: &UpstreamPeer, now: Moment) -> AfterFailure {
        let fails = self.fails.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.accessed.store(now.0, Ordering::Relaxed);
        self.checked.store(now.0, Ordering::Relaxed);
        if config.max_fails > 0 && fails >= config.max_fails {
            AfterFailure::Disabled
        } else {
            AfterFailure::Available
        }
    }

    /// Whether its health checks say that it is to get nothing.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.is_unhealthy.load(Ordering::Relaxed)
    }

    /// It is to get nothing before a health check has passed.
    pub(super) fn begin_unhealthy(&self) {
        self.is_unhealthy.store(true, Ordering::Relaxed);
    }

    /// It is as healthy as that one was.
    pub(super) fn inherit_health(&self, older: &Self) {
        self.is_unhealthy
            .store(older.is_unhealthy(), Ordering::Relaxed);
    }

    /// Takes in the result of a health check; `fails` and `passes` are how
    /// many in a row it takes to change the verdict.
    pub(crate) fn checked(&self, passed: bool, fails: u32, passes: u32, now: Instant) -> Verdict {
        if passed != self.is_unhealthy() {
            self.streak.store(0, Ordering::Relaxed);
            return Verdict::AsBefore;
        }
        let streak = self.streak.fetch_add(1, Ordering::Relaxed) + 1;
        if streak < if passed { passes } else { fails } {
            return Verdict::AsBefore;
        }
        self.streak.store(0, Ordering::Relaxed);
        if passed {
            self.recovered.store(Moment::at(now).0, Ordering::Relaxed);
        }
        self.is_unhealthy.store(!passed, Ordering::Relaxed);
        if passed {
            Verdict::BecameHealthy
        } else {
            Verdict::BecameUnhealthy
        }
    }

    /// The part of its weight, in thousandths, that `slow_start` grants it.
    pub(super) fn share(&self, config: &UpstreamPeer, now: Moment) -> i64 {
        const WHOLE: i64 = 1000;
        let recovered = self.recovered.load(Ordering::Relaxed);
        let since = now.since(recovered);
        if recovered == 0 || since >= config.slow_start {
            return WHOLE;
        }
        let part = since.as_millis() * 1000 / config.slow_start.as_millis().max(1);
        i64::try_from(part).unwrap_or(WHOLE).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamAddress;

    #[test]
    fn no_more_places_are_taken_than_there_are() {
        let config = UpstreamPeer {
            max_conns: 2,
            ..UpstreamPeer::new(UpstreamAddress::Unix("/s".into()), "unix:/s")
        };
        let state = PeerState::default();
        let now = Moment::at(Instant::now());
        assert!(state.occupy(&config, now) && state.occupy(&config, now));
        assert!(state.is_full(&config) && !state.occupy(&config, now));
        state.vacate();
        assert!(state.occupy(&config, now));
    }

    #[test]
    fn a_verdict_changes_after_so_many_results_in_a_row() {
        let state = PeerState::default();
        let check = |passed| state.checked(passed, 2, 3, Instant::now());
        let results = [
            false, true, false, false, true, true, false, true, true, true,
        ];
        let told = results.map(check);
        let changes: Vec<_> = told
            .iter()
            .enumerate()
            .filter(|(_, verdict)| **verdict != Verdict::AsBefore)
            .collect();
        assert_eq!(
            changes,
            [(3, &Verdict::BecameUnhealthy), (9, &Verdict::BecameHealthy)]
        );
    }

    #[test]
    fn weight_returns_in_proportion_to_the_time_since_recovery() {
        let config = UpstreamPeer {
            slow_start: Duration::from_secs(10),
            fail_timeout: Duration::from_secs(1),
            ..UpstreamPeer::new(UpstreamAddress::Unix("/s".into()), "unix:/s")
        };
        let state = PeerState::default();
        let start = Instant::now();
        let at = |seconds| Moment::at(start + Duration::from_secs(seconds));
        assert_eq!(state.share(&config, at(0)), 1000);
        assert_eq!(state.failed(&config, at(1)), AfterFailure::Disabled);
        assert!(state.occupy(&config, at(3)));
        state.succeeded(&config, || at(3));
        assert_eq!(state.share(&config, at(3)), 1);
        assert_eq!(state.share(&config, at(8)), 500);
        assert_eq!(state.share(&config, at(13)), 1000);
    }
}
