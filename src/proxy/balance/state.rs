//! What is known about an upstream's peers: who failed when, and how many
//! requests are under way.
//!
//! With `zone` all workers share one [`GroupState`], as Nginx's workers share
//! its memory; without, each worker has its own and learns of failures by
//! itself.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::config::{Config, Upstream, UpstreamId, UpstreamPeer};

/// Milliseconds on the process's own clock; 0 stands for "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Moment {
    pub(crate) fn at(instant: Instant) -> Self {
        let elapsed = instant.saturating_duration_since(*EPOCH).as_millis();
        Self(u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1)
    }

    /// The time since an earlier moment; none has passed since a later one.
    fn since(self, earlier: u64) -> Duration {
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
    pub(super) fn succeeded(&self, config: &UpstreamPeer, now: Moment) {
        if self.fails.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.accessed.load(Ordering::Relaxed) < self.checked.load(Ordering::Relaxed) {
            let fails = self.fails.swap(0, Ordering::Relaxed);
            if config.max_fails > 0 && fails >= config.max_fails {
                self.recovered.store(now.0, Ordering::Relaxed);
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

/// The peers of an upstream, in the order of its configuration.
#[derive(Debug)]
pub(crate) struct GroupState {
    pub(super) peers: Box<[Arc<PeerState>]>,
}

impl GroupState {
    pub(crate) fn new(peers: usize) -> Arc<Self> {
        Arc::new(Self {
            peers: (0..peers).map(|_| Arc::default()).collect(),
        })
    }
}

/// The states that the workers of one configuration share.
#[derive(Debug)]
pub(crate) struct Registry {
    /// By [`UpstreamId`].
    shared: Vec<Option<Arc<GroupState>>>,
}

impl Registry {
    pub(crate) fn new(config: &Config) -> Self {
        let shared = config.upstreams.iter().map(|upstream| {
            let peers = upstream.peers.len();
            upstream.zone.then(|| GroupState::new(peers))
        });
        Self {
            shared: shared.collect(),
        }
    }

    /// The state for a worker that begins with this configuration.
    pub(crate) fn join(&self, id: UpstreamId, upstream: &Upstream) -> Arc<GroupState> {
        let shared = self.shared.get(id).and_then(Option::as_ref);
        shared.map_or_else(|| GroupState::new(upstream.peers.len()), Arc::clone)
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
        state.succeeded(&config, at(3));
        assert_eq!(state.share(&config, at(3)), 1);
        assert_eq!(state.share(&config, at(8)), 500);
        assert_eq!(state.share(&config, at(13)), 1000);
    }
}
