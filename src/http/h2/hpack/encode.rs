//! Blocks of fields, written (RFC 7541 §6).
//!
//! It is to cost little before all: what is the same as before becomes one or
//! two bytes, and anything else is copied as it is.
//!
//! Nothing is Huffman-coded. What is left to be copied of a typical response
//! (a length, two times, an identifier and a cookie: 128 bytes) would be 31 bytes
//! shorter, and take 211 ns by a table, and 54 ns more to know that it is shorter,
//! in place of 31 ns: almost as much as all else of the block. Encrypting and
//! sending 31 bytes costs a tenth of that.

use super::names::{self, Use};
use super::table::{Table, Text};
use super::{INITIAL_TABLE, field_size, integer, statics};

/// How many fields are kept: more than a backend's responses have in common. A
/// peer keeps those that are forgotten here until its table is full, which does
/// no harm, as an index counts from the newest on.
const MAX_FIELDS: usize = 32;

/// How many fields that have been sent once are remembered, by their tags.
const MAX_SEEN: usize = 32;

/// Prefixes of a literal's first byte (§6.2).
const INDEXED: u8 = 0x80;
const KEPT: u8 = 0x40;
const RESIZED: u8 = 0x20;
const NEVER_KEPT: u8 = 0x10;
const NOT_KEPT: u8 = 0x00;

/// Writes blocks of fields, in the order in which they are sent.
///
/// A field takes a place in the table when it comes for the second time. Those
/// whose values differ each time, by names that nobody knows here, thus push
/// nothing out of it; and a connection of one request allocates nothing.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Of the fields in `table`, each at `added` modulo the length when it was.
    tags: [u16; MAX_FIELDS],
    /// Of fields that have been sent as literals, the oldest at `next_seen`.
    seen: [u16; MAX_SEEN],
    added: u8,
    next_seen: u8,
    resize: Option<Resize>,
}

/// What the peer's settings have said since the last block.
#[derive(Debug, Clone, Copy)]
struct Resize {
    smallest: u32,
    last: u32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// For a peer whose settings are not known yet. Allocates nothing until a
    /// field comes for the second time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Table::new(INITIAL_TABLE),
            tags: [0; MAX_FIELDS],
            seen: [0; MAX_SEEN],
            added: 0,
            next_seen: 0,
            resize: None,
        }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE` in bytes, of which 4096 at most
    /// are used. The next block announces it, and the smallest one in between
    /// too (§4.2).
    pub fn set_peer_max(&mut self, size: usize) {
        let last = size.min(INITIAL_TABLE) as u32;
        let smallest = self.resize.map_or(last, |resize| resize.smallest.min(last));
        self.resize = Some(Resize { smallest, last });
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(Resize { smallest, last }) = self.resize.take() {
            for size in [smallest, last] {
                let size = size as usize;
                if size != self.table.max() {
                    integer::write(size, 5, RESIZED, out);
                    self.table.set_max(size);
                }
            }
        }
    }

    /// `:status`, of three digits.
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        if let Some(index) = statics::status(status) {
            out.push(INDEXED | index);
            return;
        }
        // As a literal: two or four bytes more than from the table are less than
        // what it costs to keep one there.
        let digit = |value: u16| b'0' + (value % 10) as u8;
        out.extend_from_slice(&[
            NOT_KEPT | statics::STATUS as u8,
            3,
            digit(status / 100),
            digit(status / 10),
            digit(status),
        ]);
    }

    /// A field. `name` must be lower case. Whether it is [sensitive](Self::sensitive)
    /// is also decided here, by its name.
    pub fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let (known, meant) = names::find(name);
        if meant == Use::Secret {
            literal(NEVER_KEPT, 4, known, name, value, out);
            return;
        }
        let fixed = (known > 0).then(|| statics::find(known, value));
        if let Some(index) = fixed.flatten() {
            integer::write(index, 7, INDEXED, out);
            return;
        }
        if meant == Use::Varies {
            literal(NOT_KEPT, 4, known, name, value, out);
            return;
        }
        let tag = tag(name, value);
        if let Some(age) = self.find(tag, name, value) {
            integer::write(statics::COUNT + 1 + age, 7, INDEXED, out);
        } else if self.is_worth_keeping(tag, name, value) {
            literal(KEPT, 6, known, name, value, out);
            self.keep(tag, name, value);
        } else {
            literal(NOT_KEPT, 4, known, name, value, out);
        }
    }

    /// A field that nobody on the way may keep in a table (§7.1.3). `name` must
    /// be lower case.
    pub fn sensitive(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let (known, _) = names::find(name);
        literal(NEVER_KEPT, 4, known, name, value, out);
    }

    /// Gives back what it has allocated and does not need, for a connection that
    /// has become idle.
    pub fn trim(&mut self) {
        self.table.shrink(0);
    }

    /// What it has allocated, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.table.held()
    }

    /// How many fields have been added since this one.
    #[inline]
    fn find(&self, tag: u16, name: &[u8], value: &[u8]) -> Option<usize> {
        let newest = usize::from(self.added).wrapping_sub(1);
        self.tags
            .iter()
            .enumerate()
            .filter(|(_, kept)| **kept == tag)
            .map(|(slot, _)| newest.wrapping_sub(slot) % MAX_FIELDS)
            .find(|age| self.table.get(*age) == Some((name, value)))
    }

    /// It has come before, and leaves room for others.
    fn is_worth_keeping(&mut self, tag: u16, name: &[u8], value: &[u8]) -> bool {
        if field_size(name.len(), value.len()) > self.table.max() / 2 {
            return false;
        }
        if self.seen.contains(&tag) {
            return true;
        }
        if let Some(oldest) = self.seen.get_mut(usize::from(self.next_seen) % MAX_SEEN) {
            *oldest = tag;
        }
        self.next_seen = self.next_seen.wrapping_add(1);
        false
    }

    fn keep(&mut self, tag: u16, name: &[u8], value: &[u8]) {
        for bytes in [name, value] {
            // What is not decoded has no wrong code.
            let staged = self.table.stage(Text {
                bytes,
                is_huffman: false,
            });
            debug_assert!(staged.is_ok());
        }
        self.table.commit(name.len());
        self.table.keep_newest(MAX_FIELDS);
        if let Some(slot) = self.tags.get_mut(usize::from(self.added) % MAX_FIELDS) {
            *slot = tag;
        }
        self.added = self.added.wrapping_add(1);
    }
}

/// Finds a field among the few that are kept, or that have been seen. 0 is none.
#[inline]
fn tag(name: &[u8], value: &[u8]) -> u16 {
    (names::hash(value, names::hash(name, 0)) as u16).max(1)
}

#[inline]
fn literal(kind: u8, prefix: u32, known: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // Two lengths and an index of up to five bytes each.
    out.reserve(name.len() + value.len() + 16);
    integer::write(known, prefix, kind, out);
    if known == 0 {
        integer::write(name.len(), 7, 0, out);
        out.extend_from_slice(name);
    }
    integer::write(value.len(), 7, 0, out);
    out.extend_from_slice(value);
}
