//! The fields that have been sent, the newest first (RFC 7541 §2.3.2 and §4).

use std::collections::VecDeque;

use super::{HpackError, field_size, huffman, statics};

/// The first bytes that are allocated: a few fields' worth.
const FIRST_ROOM: usize = 256;

/// A string as it is in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) is_huffman: bool,
}

/// One table. Also where a field is put together before it is known whether it
/// stays: a string is decoded right into its place.
///
/// ```text
/// bytes: │ evicted │ oldest … newest │ staged │ room
///        0                           end      len
/// ```
///
/// Bytes are not a ring that wraps, so that each string is one slice: when there
/// is no room, what has been evicted is moved over. That moves no more than has
/// been written since the last time, give or take a table.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// What [`Entry::at`] is of the first of `bytes`.
    base: u32,
    /// Of the entries, in `bytes`.
    end: usize,
    /// By §4.1. At most `max`.
    size: usize,
    max: usize,
}

/// A name and the value that follows it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Counted from the connection's first byte on, and wraps.
    at: u32,
    name: u32,
    value: u32,
}

impl Table {
    pub(super) fn new(max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            entries: VecDeque::new(),
            base: 0,
            end: 0,
            size: 0,
            max,
        }
    }

    /// Its largest size, in bytes.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// By §4.1, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sets the largest size and evicts what is beyond it (§4.3).
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
    }

    /// The field with an index, of those too that are always there.
    #[inline]
    pub(super) fn field(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        if let Some(field) = statics::get(index) {
            return Ok(field);
        }
        let age = index.checked_sub(statics::COUNT + 1);
        age.and_then(|age| self.get(age)).ok_or(HpackError::Index)
    }

    /// The field after which `age` others have been added.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let last = self.entries.len().checked_sub(1)?;
        let entry = self.entries.get(last.checked_sub(age)?)?;
        let start = entry.at.wrapping_sub(self.base) as usize;
        let field = self.bytes.get(start..)?;
        let (name, rest) = field.split_at_checked(entry.name as usize)?;
        Some((name, rest.get(..entry.value as usize)?))
    }

    /// Puts a string behind what is staged, and says how long it is.
    ///
    /// # Errors
    /// Its code is wrong.
    #[inline]
    pub(super) fn stage(&mut self, text: Text<'_>) -> Result<usize, HpackError> {
        if !text.is_huffman {
            self.reserve(text.bytes.len());
            self.bytes.extend_from_slice(text.bytes);
            return Ok(text.bytes.len());
        }
        let room = huffman::room(text.bytes.len());
        self.reserve(room);
        let start = self.bytes.len();
        self.bytes.resize(start + room, 0);
        let place = self.bytes.get_mut(start..).unwrap_or_default();
        let length = huffman::decode(text.bytes, place)?;
        self.bytes.truncate(start + length);
        Ok(length)
    }

    /// Puts a copy of the name of the field with `index` behind what is staged,
    /// and says how long it is: a new field may be what evicts that (§4.4).
    ///
    /// # Errors
    /// There is no such field.
    pub(super) fn stage_name(&mut self, index: usize) -> Result<usize, HpackError> {
        if let Some((name, _)) = statics::get(index) {
            self.reserve(name.len());
            self.bytes.extend_from_slice(name);
            return Ok(name.len());
        }
        let length = self.field(index)?.0.len();
        self.reserve(length);
        let age = index - statics::COUNT - 1;
        let entry = self.entries.iter().rev().nth(age);
        let start = entry.map_or(0, |entry| entry.at.wrapping_sub(self.base)) as usize;
        self.bytes.extend_from_within(start..start + length);
        Ok(length)
    }

    /// What is staged: its first `name` bytes, and the others.
    #[inline]
    pub(super) fn staged(&self, name: usize) -> (&[u8], &[u8]) {
        let staged = self.bytes.get(self.end..).unwrap_or_default();
        staged.split_at_checked(name).unwrap_or((staged, &[]))
    }

    /// Forgets what is staged.
    #[inline]
    pub(super) fn discard(&mut self) {
        self.bytes.truncate(self.end);
    }

    /// Makes what is staged the newest field, with a name of `name` bytes. One
    /// that is larger than the whole table empties it (§4.4).
    pub(super) fn commit(&mut self, name: usize) {
        let staged = self.bytes.len() - self.end;
        let size = field_size(staged, 0);
        if size > self.max {
            self.clear();
            return;
        }
        self.evict(self.max - size);
        self.entries.push_back(Entry {
            at: self.base.wrapping_add(self.end as u32),
            name: name as u32,
            value: (staged - name) as u32,
        });
        self.end = self.bytes.len();
        self.size += size;
    }

    /// Evicts the oldest until no more than `count` are left.
    pub(super) fn keep_newest(&mut self, count: usize) {
        while self.entries.len() > count {
            self.evict_oldest();
        }
    }

    /// Gives back what bytes it holds beyond `room`, if there are no more fields.
    pub(super) fn shrink(&mut self, room: usize) {
        if self.bytes.capacity() > room {
            self.compact();
            self.bytes.shrink_to(room);
        }
    }

    /// What it has allocated, in bytes.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn evict(&mut self, size: usize) {
        while self.size > size {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        match self.entries.pop_front() {
            Some(entry) => self.size -= field_size(entry.name as usize, entry.value as usize),
            None => self.size = 0,
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        (self.end, self.size) = (0, 0);
    }

    #[inline]
    fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more {
            self.make_room(more);
        }
    }

    #[cold]
    fn make_room(&mut self, more: usize) {
        self.compact();
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let room = needed.next_power_of_two().max(FIRST_ROOM);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
    }

    /// Moves everything to the front, over what has been evicted.
    fn compact(&mut self) {
        let oldest = self.entries.front().map(|entry| entry.at);
        let evicted = oldest.map_or(self.end, |at| at.wrapping_sub(self.base) as usize);
        self.bytes.drain(..evicted);
        self.base = self.base.wrapping_add(evicted as u32);
        self.end -= evicted;
    }
}
