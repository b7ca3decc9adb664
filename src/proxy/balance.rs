//! Which peer of an upstream gets a request: smooth weighted round robin,
//! with passive failure detection, as Nginx has them
//! (`ngx_http_upstream_round_robin.c`). State is per worker.

use std::cell::RefCell;
use std::time::Instant;

use smallvec::SmallVec;

use crate::config::UpstreamPeer;

/// The peers that this request has already tried.
pub(crate) type Tried = SmallVec<[usize; 4]>;

/// The state of an upstream's peers on one worker.
#[derive(Debug)]
pub(crate) struct Balancer {
    peers: RefCell<Vec<PeerState>>,
}

#[derive(Debug)]
struct PeerState {
    weight: i64,
    /// Falls when the peer fails and recovers by one with each choice.
    effective_weight: i64,
    current_weight: i64,
    max_fails: u32,
    fail_timeout: std::time::Duration,
    backup: bool,
    down: bool,
    fails: u32,
    /// When it last failed.
    accessed: Option<Instant>,
    /// When a failed peer was last given a chance, or failed.
    checked: Option<Instant>,
}

impl PeerState {
    fn is_benched(&self, now: Instant) -> bool {
        self.max_fails > 0
            && self.fails >= self.max_fails
            && self
                .checked
                .is_some_and(|checked| now.duration_since(checked) <= self.fail_timeout)
    }
}

/// What a failure did to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// It is still chosen.
    Available,
    /// It gets no requests for its `fail_timeout`.
    Disabled,
}

impl Balancer {
    pub(crate) fn new(peers: &[UpstreamPeer]) -> Self {
        let peers = peers
            .iter()
            .map(|peer| PeerState {
                weight: peer.weight.into(),
                effective_weight: peer.weight.into(),
                current_weight: 0,
                max_fails: peer.max_fails,
                fail_timeout: peer.fail_timeout,
                backup: peer.backup,
                down: peer.down,
                fails: 0,
                accessed: None,
                checked: None,
            })
            .collect();
        Self {
            peers: RefCell::new(peers),
        }
    }

    /// The next peer that is neither down, failed nor tried; backups only
    /// when no primary is left. `None` when there is no live peer.
    pub(crate) fn choose(&self, tried: &Tried, now: Instant) -> Option<usize> {
        let peers = &mut *self.peers.borrow_mut();
        if let [only] = peers.as_mut_slice() {
            // A lone peer is never benched: there is nothing better to do.
            return (!only.down && tried.is_empty()).then_some(0);
        }
        choose_among(peers, false, tried, now).or_else(|| choose_among(peers, true, tried, now))
    }

    /// Whether the peer gets nothing because it failed.
    pub(crate) fn is_benched(&self, index: usize, now: Instant) -> bool {
        let peers = self.peers.borrow();
        peers.len() > 1 && peers.get(index).is_some_and(|peer| peer.is_benched(now))
    }

    /// The peer answered.
    pub(crate) fn succeeded(&self, index: usize) {
        if let Some(peer) = self.peers.borrow_mut().get_mut(index) {
            // A success that began before the last failure says nothing.
            if peer.accessed < peer.checked || peer.accessed.is_none() {
                peer.fails = 0;
            }
        }
    }

    /// The peer could not be reached, timed out or broke off.
    pub(crate) fn failed(&self, index: usize, now: Instant) -> AfterFailure {
        let peers = &mut *self.peers.borrow_mut();
        let single = peers.len() == 1;
        let Some(peer) = peers
            .get_mut(index)
            .filter(|peer| peer.max_fails > 0 && !single)
        else {
            return AfterFailure::Available;
        };
        peer.fails += 1;
        peer.accessed = Some(now);
        peer.checked = Some(now);
        peer.effective_weight =
            (peer.effective_weight - peer.weight / i64::from(peer.max_fails)).max(0);
        if peer.fails >= peer.max_fails {
            AfterFailure::Disabled
        } else {
            AfterFailure::Available
        }
    }
}

fn choose_among(
    peers: &mut [PeerState],
    backup: bool,
    tried: &Tried,
    now: Instant,
) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<(usize, i64)> = None;
    for (index, peer) in peers.iter_mut().enumerate() {
        if peer.backup != backup || peer.down || tried.contains(&index) || peer.is_benched(now) {
            continue;
        }
        peer.current_weight += peer.effective_weight;
        total += peer.effective_weight;
        if peer.effective_weight < peer.weight {
            peer.effective_weight += 1;
        }
        if best.is_none_or(|(_, weight)| peer.current_weight > weight) {
            best = Some((index, peer.current_weight));
        }
    }
    let (index, _) = best?;
    let peer = peers.get_mut(index)?;
    peer.current_weight -= total;
    if peer
        .checked
        .is_some_and(|checked| now.duration_since(checked) > peer.fail_timeout)
    {
        peer.checked = Some(now);
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamAddress;
    use std::time::Duration;

    fn peer(weight: u32) -> UpstreamPeer {
        UpstreamPeer {
            address: UpstreamAddress::Inet("127.0.0.1:80".parse().unwrap()),
            weight,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
        }
    }

    fn sequence(balancer: &Balancer, count: usize, now: Instant) -> Vec<usize> {
        (0..count)
            .filter_map(|_| balancer.choose(&Tried::new(), now))
            .collect()
    }

    #[test]
    fn weights_are_interleaved_as_nginx_does() {
        let balancer = Balancer::new(&[peer(5), peer(1), peer(1)]);
        assert_eq!(
            sequence(&balancer, 7, Instant::now()),
            [0, 0, 1, 0, 2, 0, 0]
        );
    }

    #[test]
    fn a_failed_peer_rests_for_its_time_and_gets_one_chance_then() {
        let balancer = Balancer::new(&[peer(1), peer(1)]);
        let now = Instant::now();
        assert_eq!(balancer.failed(0, now), AfterFailure::Disabled);
        assert_eq!(sequence(&balancer, 3, now), [1, 1, 1]);
        let later = now + Duration::from_secs(11);
        assert!(sequence(&balancer, 3, later).contains(&0));
        balancer.succeeded(0);
        let again = sequence(&balancer, 4, later);
        assert!(again.iter().filter(|&&index| index == 0).count() >= 1);
    }

    #[test]
    fn backups_serve_only_when_no_primary_is_left() {
        let backup = UpstreamPeer {
            backup: true,
            ..peer(1)
        };
        let balancer = Balancer::new(&[peer(1), backup]);
        let now = Instant::now();
        assert_eq!(sequence(&balancer, 2, now), [0, 0]);
        balancer.failed(0, now);
        assert_eq!(sequence(&balancer, 2, now), [1, 1]);
    }

    #[test]
    fn a_peer_that_is_down_is_never_chosen() {
        let down = UpstreamPeer {
            down: true,
            ..peer(1)
        };
        assert_eq!(
            Balancer::new(std::slice::from_ref(&down)).choose(&Tried::new(), Instant::now()),
            None
        );
        let balancer = Balancer::new(&[down, peer(1)]);
        assert_eq!(sequence(&balancer, 2, Instant::now()), [1, 1]);
    }

    #[test]
    fn no_request_tries_a_peer_twice() {
        let balancer = Balancer::new(&[peer(1), peer(1)]);
        let mut tried = Tried::new();
        let now = Instant::now();
        while let Some(index) = balancer.choose(&tried, now) {
            assert!(!tried.contains(&index));
            tried.push(index);
        }
        assert_eq!(tried.len(), 2);
    }
}
