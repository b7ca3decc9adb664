//! A bounded table of states by key, which all workers share.
//!
//! It is cut into shards, each behind a lock that is held for some hundred
//! nanoseconds. Within a shard the states are strung together by last use, so
//! that the one that nobody has asked for longest makes room.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Enough for workers on dozens of cores to seldom meet.
const SHARDS: usize = 16;
/// What Nginx needs for a state beside its key, at least.
const OVERHEAD: usize = 60;
/// The smallest unit that its zones are cut into for states.
const SMALLEST: usize = 64;

/// The shards.
#[derive(Debug)]
pub(super) struct Table<V> {
    hasher: RandomState,
    shards: Vec<Mutex<Shard<V>>>,
}

impl<V> Table<V> {
    /// For states that take `size` bytes in Nginx's measure: 64 each with a
    /// short key, then 128, and so on.
    pub(super) fn new(size: usize) -> Self {
        let shard = || Shard {
            by_key: HashMap::new(),
            states: Vec::new(),
            free: Vec::new(),
            newest: None,
            oldest: None,
            budget: size / SHARDS,
        };
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
        }
    }

    /// The shard of a key.
    pub(super) fn shard_of(&self, key: &[u8]) -> usize {
        // Below SHARDS.
        (self.hasher.hash_one(key) % SHARDS as u64) as usize
    }

    /// Holds a shard; `None` for a number that [`Table::shard_of`] never gave.
    pub(super) fn lock(&self, shard: usize) -> Option<MutexGuard<'_, Shard<V>>> {
        // A thread that panicked in between left the list as it was: nothing
        // in a shard's methods can.
        let shard = self.shards.get(shard)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A part of the states.
#[derive(Debug)]
pub(super) struct Shard<V> {
    by_key: HashMap<Arc<[u8]>, usize>,
    states: Vec<Option<State<V>>>,
    /// Indices into `states` that are `None`.
    free: Vec<usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    /// Bytes left.
    budget: usize,
}

#[derive(Debug)]
struct State<V> {
    key: Arc<[u8]>,
    value: V,
    newer: Option<usize>,
    older: Option<usize>,
}

fn cost(key: &[u8]) -> usize {
    (OVERHEAD + key.len()).next_power_of_two().max(SMALLEST)
}

impl<V> Shard<V> {
    /// The key's state, which is now the newest.
    pub(super) fn find(&mut self, key: &[u8]) -> Option<usize> {
        let index = *self.by_key.get(key)?;
        if self.newest != Some(index) {
            self.unstring(index);
            self.string(index);
        }
        Some(index)
    }

    /// A state by what [`Shard::find`] or [`Shard::insert`] gave.
    pub(super) fn get(&mut self, index: usize) -> Option<&mut V> {
        let state = self.states.get_mut(index)?.as_mut()?;
        Some(&mut state.value)
    }

    /// The state that nobody has asked for longest.
    pub(super) fn oldest(&mut self) -> Option<(usize, &mut V)> {
        let index = self.oldest?;
        Some((index, self.get(index)?))
    }

    /// Adds a state, if there is room.
    pub(super) fn insert(&mut self, key: &[u8], value: V) -> Option<usize> {
        self.budget = self.budget.checked_sub(cost(key))?;
        let key: Arc<[u8]> = key.into();
        let state = Some(State {
            key: Arc::clone(&key),
            value,
            newer: None,
            older: None,
        });
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(slot) = self.states.get_mut(index) {
                    *slot = state;
                }
                index
            }
            None => {
                self.states.push(state);
                self.states.len() - 1
            }
        };
        self.by_key.insert(key, index);
        self.string(index);
        Some(index)
    }

    /// Removes a state.
    pub(super) fn remove(&mut self, index: usize) {
        self.unstring(index);
        let Some(state) = self.states.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.by_key.remove(&state.key);
        self.budget += cost(&state.key);
        self.free.push(index);
    }

    fn state(&mut self, index: Option<usize>) -> Option<&mut State<V>> {
        self.states.get_mut(index?)?.as_mut()
    }

    /// Makes a state that is not strung up the newest.
    fn string(&mut self, index: usize) {
        let before = self.newest.replace(index);
        if let Some(state) = self.state(Some(index)) {
            state.newer = None;
            state.older = before;
        }
        match self.state(before) {
            Some(state) => state.newer = Some(index),
            None => self.oldest = Some(index),
        }
    }

    fn unstring(&mut self, index: usize) {
        let Some(state) = self.state(Some(index)) else {
            return;
        };
        let (newer, older) = (state.newer.take(), state.older.take());
        match self.state(newer) {
            Some(state) => state.older = older,
            None => self.newest = older,
        }
        match self.state(older) {
            Some(state) => state.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A shard with room for `states` short keys.
    fn shard(states: usize) -> Shard<u32> {
        let table = Table::new(SHARDS * states * SMALLEST);
        table
            .shards
            .into_iter()
            .next()
            .unwrap()
            .into_inner()
            .unwrap()
    }

    #[test]
    fn room_is_measured_as_nginx_measures_it() {
        assert_eq!(
            [1, 4, 5, 16, 68, 69].map(|n| cost(&vec![0; n])),
            [64, 64, 128, 128, 128, 256]
        );
        let mut shard = shard(2);
        assert!(shard.insert(b"a", 1).is_some());
        let b = shard.insert(b"b", 2).unwrap();
        assert_eq!(shard.insert(b"c", 3), None);
        shard.remove(b);
        assert_eq!(shard.find(b"b"), None);
        assert!(shard.insert(b"c", 3).is_some());
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn the_oldest_is_the_one_not_asked_for_longest(
            steps in proptest::collection::vec((0u8..12, 0u8..3), 0..200)
        ) {
            let mut shard = shard(8);
            let mut model: Vec<u8> = Vec::new();
            for (key, what) in steps {
                let position = model.iter().position(|known| *known == key);
                prop_assert_eq!(shard.find(&[key]).is_some(), position.is_some());
                if let Some(position) = position {
                    model.remove(position);
                    model.push(key);
                }
                match what {
                    0 if position.is_none() => {
                        let inserted = shard.insert(&[key], key.into()).is_some();
                        prop_assert_eq!(inserted, model.len() < 8);
                        if inserted {
                            model.push(key);
                        }
                    }
                    1 => if let Some((index, value)) = shard.oldest() {
                        prop_assert_eq!(*value, u32::from(model.remove(0)));
                        shard.remove(index);
                    },
                    _ => {}
                }
                let oldest = shard.oldest().map(|(_, value)| *value);
                prop_assert_eq!(oldest, model.first().map(|key| u32::from(*key)));
            }
        }
    }
}
