//! `limit_conn`: requests that are being served at the same time.

use std::sync::Arc;

use super::table::Table;

/// The counters of one `limit_conn_zone`.
#[derive(Debug)]
pub(crate) struct ConnectionTable(Table<u32>);

impl ConnectionTable {
    pub(super) fn new(size: usize) -> Self {
        Self(Table::new(size))
    }

    /// Counts a request of this key for as long as the result lives; `None`
    /// where there are `limit` already, or no room for another key.
    pub(super) fn enter(self: &Arc<Self>, key: &[u8], limit: u32) -> Option<Slot> {
        let number = self.0.shard_of(key);
        let mut shard = self.0.lock(number)?;
        let index = match shard.find(key) {
            Some(index) => {
                let count = shard.get(index)?;
                if *count >= limit {
                    return None;
                }
                *count += 1;
                index
            }
            None => shard.insert(key, 1)?,
        };
        Some(Slot {
            table: Arc::clone(self),
            shard: number,
            index,
        })
    }
}

/// A request being counted.
#[derive(Debug)]
pub(crate) struct Slot {
    table: Arc<ConnectionTable>,
    shard: usize,
    /// Of a state that is not removed before its last slot is dropped.
    index: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(mut shard) = self.table.0.lock(self.shard) else {
            return;
        };
        if let Some(count) = shard.get(self.index) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                shard.remove(self.index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_as_many_as_are_allowed_and_gets_them_back() {
        let table = Arc::new(ConnectionTable::new(1 << 20));
        let one = table.enter(b"a", 2);
        let two = table.enter(b"a", 2);
        assert!(one.is_some() && two.is_some());
        assert!(table.enter(b"a", 2).is_none());
        assert!(table.enter(b"b", 2).is_some());
        drop(one);
        assert!(table.enter(b"a", 2).is_some());
        drop(two);
        assert!(table.enter(b"a", 1).is_some());
    }

    #[test]
    fn a_full_zone_refuses_new_keys_and_forgets_none() {
        let table = Arc::new(ConnectionTable::new(16 * 64));
        let mut keys = (0u8..)
            .map(|n| [n])
            .filter(|key| table.0.shard_of(key) == 0);
        let (a, b) = (keys.next().unwrap(), keys.next().unwrap());
        let slot = table.enter(&a, 9);
        assert!(slot.is_some());
        assert!(table.enter(&b, 9).is_none());
        assert!(table.enter(&a, 9).is_some());
        drop(slot);
        assert!(table.enter(&b, 9).is_some());
    }
}
