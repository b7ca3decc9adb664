//! The balancing methods, each after Nginx's module of that name.

use super::hash::{ip_hash, key_hash};
use super::state::Moment;
use super::{Group, Selection};
use crate::config::BalanceMethod;
use crate::net::addr::ClientAddr;

/// Hashes and draws for one request at the most; then it is simply whose turn
/// it is.
pub(super) const MAX_DRAWS: u32 = 20;

impl Group {
    /// The peer whom the request goes to next.
    pub(super) fn next(
        &self,
        selection: &mut Selection,
        client: ClientAddr,
        now: Moment,
    ) -> Option<usize> {
        if let Some(index) = self.next_in_list(selection, client, now) {
            return Some(index);
        }
        if selection.among_backups || self.primaries == self.peers.len() {
            return None;
        }
        selection.among_backups = true;
        self.next_in_list(selection, client, now)
    }

    fn next_in_list(
        &self,
        selection: &mut Selection,
        client: ClientAddr,
        now: Moment,
    ) -> Option<usize> {
        let hint = selection
            .hint
            .filter(|&index| self.is_usable_by_name(index, selection, now));
        if self.is_single() {
            return hint.or(self.is_usable(0, selection, now).then_some(0));
        }
        // Backups take turns whatever the method, but for `least_conn`.
        let draws = !selection.among_backups && self.primaries > 1;
        match &self.method {
            BalanceMethod::RoundRobin => self.round_robin(hint, selection, now),
            BalanceMethod::LeastConnections => {
                hint.or_else(|| self.least_connections(selection, now))
            }
            BalanceMethod::ConsistentHash(_) if draws && !selection.key.is_empty() => hint
                .or_else(|| self.on_the_circle(selection, now))
                .or_else(|| self.round_robin(None, selection, now)),
            BalanceMethod::Hash(_) if selection.key.is_empty() => {
                self.round_robin(hint, selection, now)
            }
            BalanceMethod::RandomTwo if draws => hint
                .or_else(|| self.less_busy_of_two(selection, now))
                .or_else(|| self.round_robin(None, selection, now)),
            BalanceMethod::Hash(_) | BalanceMethod::IpHash | BalanceMethod::Random if draws => hint
                .or_else(|| self.drawn(selection, client, now))
                .or_else(|| self.round_robin(None, selection, now)),
            _ => self.round_robin(hint, selection, now),
        }
    }

    /// Smooth weighted round robin. A peer that `sticky` leads to takes its
    /// turn, and is not held back by having had more than its share.
    fn round_robin(
        &self,
        hint: Option<usize>,
        selection: &Selection,
        now: Moment,
    ) -> Option<usize> {
        if let Some(index) = hint {
            let weight = self.peers.get(index).map_or(0, |peer| peer.weight);
            let others = self.primary_weight.saturating_sub(weight.into());
            let unit = if self.has_slow_start { 1000 } else { 1 };
            let limit = i64::try_from(others).map_or(i64::MIN, |others| -others * unit);
            let turns = self.turns.borrow();
            if turns
                .get(index)
                .is_some_and(|turn| turn.current_weight <= limit)
            {
                return Some(index);
            }
        }
        self.take_turns(hint, now, |index| self.is_usable(index, selection, now))
    }

    /// One turn among the peers that are `eligible`: the one that is furthest
    /// behind its weight, or the one that was asked for.
    fn take_turns(
        &self,
        asked_for: Option<usize>,
        now: Moment,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let turns = &mut *self.turns.borrow_mut();
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, (turn, peer)) in turns.iter_mut().zip(&self.peers).enumerate() {
            if asked_for != Some(index) && !eligible(index) {
                continue;
            }
            let mut weight = turn.effective_weight;
            if self.has_slow_start {
                // Thousandths, so that a part of a weight of one is not none.
                weight *= self.share(index, now);
            }
            turn.current_weight += weight;
            total += weight;
            if turn.effective_weight < i64::from(peer.weight) {
                turn.effective_weight += 1;
            }
            if best.is_none_or(|(_, weight)| turn.current_weight > weight) {
                best = Some((index, turn.current_weight));
            }
        }
        let index = asked_for.or(best.map(|(index, _)| index))?;
        turns.get_mut(index)?.current_weight -= total;
        Some(index)
    }

    /// `least_conn`: the fewest requests under way for its weight; among
    /// several of these whose turn it is.
    fn least_connections(&self, selection: &Selection, now: Moment) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut many = false;
        for index in 0..self.peers.len() {
            if !self.is_usable(index, selection, now) {
                continue;
            }
            match best.map(|best| self.load_of(index, best, now)) {
                None | Some(std::cmp::Ordering::Less) => {
                    best = Some(index);
                    many = false;
                }
                Some(std::cmp::Ordering::Equal) => many = true,
                Some(std::cmp::Ordering::Greater) => {}
            }
        }
        let best = best?;
        if !many {
            return Some(best);
        }
        self.take_turns(None, now, |index| {
            self.is_usable(index, selection, now) && self.load_of(index, best, now).is_eq()
        })
    }

    /// How busy one peer is compared with another, each by its weight.
    fn load_of(&self, one: usize, other: usize, now: Moment) -> std::cmp::Ordering {
        let load = |index: usize| {
            let (peer, state) = (self.peers.get(index), self.states.get(index));
            let weight = peer.map_or(1, |peer| i64::from(peer.weight));
            let share = if self.has_slow_start {
                self.share(index, now)
            } else {
                1
            };
            let active = state.map_or(0, |state| i64::from(state.active()));
            (active, weight * share)
        };
        let ((active, weight), (other_active, other_weight)) = (load(one), load(other));
        (active * other_weight).cmp(&(other_active * weight))
    }

    fn share(&self, index: usize, now: Moment) -> i64 {
        match (self.peers.get(index), self.states.get(index)) {
            (Some(peer), Some(state)) => state.share(peer, now),
            _ => 0,
        }
    }

    /// `hash`, `ip_hash` and `random`: the peer at a place among all weights,
    /// and another place if that peer cannot be used.
    fn drawn(&self, selection: &mut Selection, client: ClientAddr, now: Moment) -> Option<usize> {
        while selection.draws <= MAX_DRAWS {
            let place = match &self.method {
                BalanceMethod::IpHash => {
                    selection.hash = ip_hash(selection.hash, client);
                    u64::from(selection.hash)
                }
                BalanceMethod::Hash(_) => {
                    // Turns are counted with the draws: the first has no number.
                    let turn = key_hash(&selection.key, selection.turns);
                    selection.turns += 1;
                    selection.hash = selection.hash.wrapping_add(turn);
                    u64::from(selection.hash)
                }
                _ => fastrand::u64(..),
            };
            let index = self.peer_at(place)?;
            if self.is_usable(index, selection, now) {
                return Some(index);
            }
            selection.draws += 1;
        }
        None
    }

    /// `random two`.
    fn less_busy_of_two(&self, selection: &mut Selection, now: Moment) -> Option<usize> {
        let mut first: Option<usize> = None;
        while selection.draws <= MAX_DRAWS {
            let index = self.peer_at(fastrand::u64(..))?;
            if first != Some(index) && self.is_usable(index, selection, now) {
                let Some(first) = first else {
                    first = Some(index);
                    continue;
                };
                let other_is_busier = self.load_of(index, first, now).is_gt();
                return Some(if other_is_busier { first } else { index });
            }
            selection.draws += 1;
        }
        None
    }

    /// The primary at a place in the row of all their weights.
    fn peer_at(&self, place: u64) -> Option<usize> {
        let mut left = place.checked_rem(self.primary_weight)?;
        for (index, peer) in self.peers.iter().enumerate() {
            if peer.backup {
                continue;
            }
            let weight = u64::from(peer.weight);
            if left < weight {
                return Some(index);
            }
            left -= weight;
        }
        None
    }

    /// `hash … consistent`: the next server on the circle that has a peer to
    /// offer; its peers take turns.
    fn on_the_circle(&self, selection: &mut Selection, now: Moment) -> Option<usize> {
        let ring = self.ring.as_ref()?;
        while selection.draws <= MAX_DRAWS {
            let server = &self.peers.get(ring.at(selection.position)?)?.server;
            let same_server = |index: usize| {
                let peer = self.peers.get(index);
                peer.is_some_and(|peer| peer.server == *server)
                    && self.is_usable(index, selection, now)
            };
            if let Some(index) = self.take_turns(None, now, same_server) {
                return Some(index);
            }
            selection.position += 1;
            selection.draws += 1;
        }
        None
    }
}
