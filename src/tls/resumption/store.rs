//! `ssl_session_cache`: sessions kept here, found by their id.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::server::StoresServerSessions;

use super::{MAX_SESSION, Scope, Source, leave_one, lock, note_source, unix_now, within};

/// Locks, so that workers seldom meet.
const SHARDS: usize = 16;
/// What a session costs besides its own bytes: key, links, map entry. With the
/// 130 bytes of a session without a client certificate this makes about 4,000
/// to a megabyte, as Nginx promises for `ssl_session_cache shared`.
const ENTRY_OVERHEAD: usize = 128;

/// One `ssl_session_cache shared:NAME:SIZE`, bounded by bytes and, at each
/// look-up, by age. Storing, finding and evicting the oldest are all O(1).
pub struct SessionStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

impl SessionStore {
    /// A store that holds `size` bytes of sessions.
    pub fn new(size: usize) -> Self {
        let shard = || Mutex::new(Shard::new(size / SHARDS));
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher: RandomState::new(),
        }
    }

    /// How many sessions are held.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).index.len())
            .sum()
    }

    /// Whether no session is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key) as usize;
        lock(&self.shards[hash % SHARDS])
    }
}

impl fmt::Debug for SessionStore {
    /// Without the sessions, which hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").finish_non_exhaustive()
    }
}

/// A store as one server block sees it.
#[derive(Debug)]
pub struct ScopedStore {
    store: Arc<SessionStore>,
    scope: Scope,
    timeout: Duration,
}

impl ScopedStore {
    /// Sees only sessions of `scope`, and none older than `timeout`.
    pub fn new(store: Arc<SessionStore>, scope: Scope, timeout: Duration) -> Self {
        Self {
            store,
            scope,
            timeout,
        }
    }

    fn put_at(&self, id: &[u8], value: Vec<u8>, now: u64) -> bool {
        match Key::new(self.scope, id) {
            Some(key) if value.len() <= MAX_SESSION => self.store.shard(&key).put(key, value, now),
            _ => false,
        }
    }

    fn get_at(&self, id: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = Key::new(self.scope, id)?;
        let shard = self.store.shard(&key);
        let slot = &shard.slots[*shard.index.get(&key)?];
        self.fresh(slot.stored, now).then(|| slot.value.clone())
    }

    fn take_at(&self, id: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = Key::new(self.scope, id)?;
        let (stored, value) = self.store.shard(&key).remove(&key)?;
        self.fresh(stored, now).then_some(value)
    }

    fn fresh(&self, stored: u64, now: u64) -> bool {
        within(stored, now, self.timeout.as_secs())
    }
}

impl StoresServerSessions for ScopedStore {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        leave_one() && self.put_at(&key, value, unix_now())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let found = self.get_at(key, unix_now());
        found.inspect(|_| note_source(Source::Cache))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let found = self.take_at(key, unix_now());
        found.inspect(|_| note_source(Source::Cache))
    }

    fn can_cache(&self) -> bool {
        !self.timeout.is_zero()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    scope: Scope,
    id: [u8; 32],
    length: u8,
}

impl Key {
    /// `None` for an id longer than TLS 1.2 allows and than this side issues.
    fn new(scope: Scope, id: &[u8]) -> Option<Self> {
        let mut padded = [0; 32];
        padded.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self {
            scope,
            id: padded,
            length: id.len() as u8,
        })
    }
}

/// "No slot" in the links of a [`Shard`].
const NIL: usize = usize::MAX;

/// A map whose entries are also linked from oldest to newest, in slots that
/// are used again. Invariant: `index` and the chain name the same slots, and
/// `bytes` is the sum of their costs, never above `budget`.
struct Shard {
    index: HashMap<Key, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    oldest: usize,
    newest: usize,
    bytes: usize,
    budget: usize,
}

struct Slot {
    key: Key,
    value: Vec<u8>,
    stored: u64,
    older: usize,
    newer: usize,
}

impl Shard {
    fn new(budget: usize) -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NIL,
            newest: NIL,
            bytes: 0,
            budget,
        }
    }

    fn put(&mut self, key: Key, value: Vec<u8>, now: u64) -> bool {
        let cost = value.len() + ENTRY_OVERHEAD;
        if cost > self.budget {
            return false;
        }
        self.remove(&key);
        while self.bytes + cost > self.budget {
            let oldest = self.slots[self.oldest].key;
            self.remove(&oldest);
        }
        let slot = Slot {
            key,
            value,
            stored: now,
            older: self.newest,
            newer: NIL,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        match self.newest {
            NIL => self.oldest = at,
            newest => self.slots[newest].newer = at,
        }
        self.newest = at;
        self.bytes += cost;
        self.index.insert(key, at);
        true
    }

    /// When it was stored, and what.
    fn remove(&mut self, key: &Key) -> Option<(u64, Vec<u8>)> {
        let at = self.index.remove(key)?;
        let slot = &mut self.slots[at];
        let value = std::mem::take(&mut slot.value);
        let (stored, older, newer) = (slot.stored, slot.older, slot.newer);
        match older {
            NIL => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
        match newer {
            NIL => self.newest = older,
            newer => self.slots[newer].older = older,
        }
        self.bytes -= value.len() + ENTRY_OVERHEAD;
        self.free.push(at);
        Some((stored, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const A: Scope = Scope([1; 32]);
    const B: Scope = Scope([2; 32]);
    const NOW: u64 = 1_800_000_000;

    fn scoped(store: &Arc<SessionStore>, scope: Scope) -> ScopedStore {
        ScopedStore::new(Arc::clone(store), scope, Duration::from_secs(300))
    }

    #[test]
    fn a_stored_session_is_found_only_under_its_own_scope() {
        let store = Arc::new(SessionStore::new(1 << 20));
        let (a, b) = (scoped(&store, A), scoped(&store, B));
        assert!(a.put_at(b"id", b"session".to_vec(), NOW));
        assert_eq!(b.get_at(b"id", NOW), None);
        assert_eq!(b.take_at(b"id", NOW), None);
        assert_eq!(a.get_at(b"id", NOW).as_deref(), Some(&b"session"[..]));
        assert_eq!(a.take_at(b"id", NOW).as_deref(), Some(&b"session"[..]));
        assert_eq!(a.take_at(b"id", NOW), None);
        assert!(store.is_empty());
    }

    #[test]
    fn a_stored_session_dies_with_its_age() {
        let store = Arc::new(SessionStore::new(1 << 20));
        let scoped = scoped(&store, A);
        scoped.put_at(b"id", b"session".to_vec(), NOW);
        assert!(scoped.get_at(b"id", NOW + 299).is_some());
        assert!(scoped.get_at(b"id", NOW + 300).is_none());
        assert!(scoped.take_at(b"id", NOW + 300).is_none());
    }

    #[test]
    fn a_megabyte_holds_about_four_thousand_sessions_and_drops_the_oldest() {
        let store = Arc::new(SessionStore::new(1 << 20));
        let scoped = scoped(&store, A);
        for id in 0..20_000_u32 {
            assert!(scoped.put_at(&id.to_be_bytes(), vec![0; 130], NOW));
        }
        assert!((3_900..4_200).contains(&store.len()), "{}", store.len());
        assert!(scoped.get_at(&19_999_u32.to_be_bytes(), NOW).is_some());
        assert!(scoped.get_at(&0_u32.to_be_bytes(), NOW).is_none());
    }

    #[test]
    fn ids_longer_than_any_of_ours_are_simply_not_found() {
        let store = Arc::new(SessionStore::new(1 << 20));
        let scoped = scoped(&store, A);
        assert!(!scoped.put_at(&[0; 33], b"x".to_vec(), NOW));
        assert_eq!(scoped.get_at(&[0; 33], NOW), None);
        scoped.put_at(&[0; 3], b"x".to_vec(), NOW);
        assert_eq!(scoped.get_at(&[0; 4], NOW), None, "padding is not the id");
    }

    proptest! {
        /// Against a slow list: the same content after any sequence.
        #[test]
        fn a_shard_is_a_bounded_queue_with_an_index(
            steps in proptest::collection::vec((any::<bool>(), 0_u8..12, 0_usize..200), 0..200),
        ) {
            let budget = 1_000;
            let mut shard = Shard::new(budget);
            let mut model: VecDeque<(u8, usize)> = VecDeque::new();
            for (put, id, length) in steps {
                let key = Key::new(A, &[id]).expect("short");
                let at = model.iter().position(|(held, _)| *held == id);
                let held = at.and_then(|at| model.remove(at));
                if put {
                    shard.put(key, vec![0; length], NOW);
                    model.push_back((id, length));
                    let cost = |model: &VecDeque<(u8, usize)>| -> usize {
                        model.iter().map(|(_, length)| length + ENTRY_OVERHEAD).sum()
                    };
                    while cost(&model) > budget {
                        model.pop_front();
                    }
                } else {
                    let removed = shard.remove(&key).map(|(_, value)| value.len());
                    prop_assert_eq!(removed, held.map(|(_, length)| length));
                }
                let mut chain = Vec::new();
                let mut at = shard.oldest;
                while at != NIL {
                    chain.push((shard.slots[at].key.id[0], shard.slots[at].value.len()));
                    at = shard.slots[at].newer;
                }
                prop_assert_eq!(&chain, &Vec::from(model.clone()));
                prop_assert_eq!(shard.index.len(), model.len());
                prop_assert!(shard.slots.len() <= budget / ENTRY_OVERHEAD + 1);
            }
        }
    }
}
