//! Blocks of fields, read (RFC 7541 §3 and §6).

use super::table::{Table, Text};
use super::{HpackError, INITIAL_TABLE, field_size, integer, statics};

/// How many bytes of names a block may have copied out of the table into new
/// fields of it, for each of its own bytes, and beside [`FREE_COPIES`]. Two bytes
/// suffice to copy a name as long as the table, which no limit on a list of
/// fields prevents, as the table must be kept in step beyond it too. A real
/// name is shorter than forty bytes, and comes with a value.
const COPIES_PER_BYTE: usize = 16;
const FREE_COPIES: usize = 4096;

/// What has become of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every field of it has been handed over.
    Whole,
    /// Its fields are larger than the limit: those that fit have been handed
    /// over up to the first that did not. The table is in step, and the
    /// connection can go on.
    TooLarge,
}

/// Reads a peer's blocks of fields, in the order in which they were sent.
#[derive(Debug)]
pub struct Decoder {
    pub(super) table: Table,
    /// What the peer may set the table's size to, in bytes.
    max_table: usize,
}

impl Decoder {
    /// `max_table` is our `SETTINGS_HEADER_TABLE_SIZE`, in bytes. Less than 4096
    /// counts as 4096: that much a peer may use before it has read our settings
    /// (RFC 9113 §6.5.2).
    ///
    /// Allocates nothing until a block has something to keep or a Huffman code.
    /// Between blocks it holds at most twice the table's size in bytes, and
    /// 12 bytes for each field.
    #[must_use]
    pub fn new(max_table: usize) -> Self {
        Self {
            table: Table::new(INITIAL_TABLE),
            max_table: max_table.max(INITIAL_TABLE),
        }
    }

    /// Decodes one whole block. Each field goes to `field` as its name, its value
    /// and whether it must never be indexed, by whoever sends it on (RFC 7541
    /// §6.2.3). The bytes of a name and a value are any bytes.
    ///
    /// `max_list` limits the fields in bytes, each of which counts 32 beside its
    /// name and value (RFC 9113 §6.5.2). What this costs is in proportion to the
    /// block's length and to that.
    ///
    /// # Errors
    /// It is a connection error of type `COMPRESSION_ERROR`: the table is out of
    /// step, and no other block can be read. Fields before the fault have been
    /// handed over.
    pub fn decode(
        &mut self,
        block: &[u8],
        max_list: usize,
        field: impl FnMut(&[u8], &[u8], bool),
    ) -> Result<Outcome, HpackError> {
        let list = List {
            left: max_list,
            is_whole: true,
            field,
        };
        let outcome = self.fields(block, list);
        self.table
            .shrink(2 * self.table.max().max(INITIAL_TABLE / 2));
        outcome
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

    fn fields<F: FnMut(&[u8], &[u8], bool)>(
        &mut self,
        block: &[u8],
        mut list: List<F>,
    ) -> Result<Outcome, HpackError> {
        let mut copies = FREE_COPIES.saturating_add(block.len().saturating_mul(COPIES_PER_BYTE));
        let mut rest = block;
        let mut is_start = true;
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first & 0x80 != 0 {
                let index = integer::read(first, 7, &mut rest)?;
                let (name, value) = self.table.field(index)?;
                list.take(name, value, false);
            } else if first & 0x40 != 0 {
                let literal = Literal::read(first, 6, &mut rest)?;
                self.keep(&literal, &mut list, &mut copies)?;
            } else if first & 0x20 != 0 {
                let size = integer::read(first, 5, &mut rest)?;
                if !is_start || size > self.max_table {
                    return Err(HpackError::TableSize);
                }
                self.table.set_max(size);
                continue;
            } else {
                let literal = Literal::read(first, 4, &mut rest)?;
                self.pass(&literal, first & 0x10 != 0, &mut list)?;
            }
            is_start = false;
        }
        Ok(list.outcome())
    }

    /// A literal that becomes part of the table (§6.2.1).
    fn keep<F: FnMut(&[u8], &[u8], bool)>(
        &mut self,
        literal: &Literal<'_>,
        list: &mut List<F>,
        copies: &mut usize,
    ) -> Result<(), HpackError> {
        let name = match literal.name {
            Name::Text(text) => self.table.stage(text)?,
            Name::Index(index) => {
                let length = self.table.stage_name(index)?;
                if index > statics::COUNT {
                    *copies = copies.checked_sub(length).ok_or(HpackError::Amplified)?;
                }
                length
            }
        };
        self.table.stage(literal.value)?;
        let (first, second) = self.table.staged(name);
        list.take(first, second, false);
        self.table.commit(name);
        Ok(())
    }

    /// A literal that does not (§6.2.2, §6.2.3). Only what is Huffman-coded needs
    /// to be put together anywhere.
    fn pass<F: FnMut(&[u8], &[u8], bool)>(
        &mut self,
        literal: &Literal<'_>,
        is_sensitive: bool,
        list: &mut List<F>,
    ) -> Result<(), HpackError> {
        let name = match literal.name {
            Name::Text(text) if text.is_huffman => self.table.stage(text)?,
            _ => 0,
        };
        if literal.value.is_huffman {
            self.table.stage(literal.value)?;
        }
        let (first, second) = self.table.staged(name);
        let name = match literal.name {
            Name::Index(index) => self.table.field(index)?.0,
            Name::Text(text) if text.is_huffman => first,
            Name::Text(text) => text.bytes,
        };
        let value = if literal.value.is_huffman {
            second
        } else {
            literal.value.bytes
        };
        list.take(name, value, is_sensitive);
        self.table.discard();
        Ok(())
    }
}

/// A field that is spelled out, at least its value.
struct Literal<'a> {
    name: Name<'a>,
    value: Text<'a>,
}

enum Name<'a> {
    Index(usize),
    Text(Text<'a>),
}

impl<'a> Literal<'a> {
    #[inline]
    fn read(first: u8, prefix: u32, rest: &mut &'a [u8]) -> Result<Self, HpackError> {
        let name = match integer::read(first, prefix, rest)? {
            0 => Name::Text(text(rest)?),
            index => Name::Index(index),
        };
        let value = text(rest)?;
        Ok(Self { name, value })
    }
}

/// §5.2.
#[inline]
fn text<'a>(rest: &mut &'a [u8]) -> Result<Text<'a>, HpackError> {
    let (&first, after) = rest.split_first().ok_or(HpackError::Truncated)?;
    *rest = after;
    let length = integer::read(first, 7, rest)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
    *rest = after;
    let is_huffman = first & 0x80 != 0;
    Ok(Text { bytes, is_huffman })
}

/// What is handed over of a block.
struct List<F> {
    /// In bytes, by RFC 9113 §6.5.2.
    left: usize,
    is_whole: bool,
    field: F,
}

impl<F: FnMut(&[u8], &[u8], bool)> List<F> {
    #[inline]
    fn take(&mut self, name: &[u8], value: &[u8], is_sensitive: bool) {
        if !self.is_whole {
            return;
        }
        match self.left.checked_sub(field_size(name.len(), value.len())) {
            Some(left) => {
                self.left = left;
                (self.field)(name, value, is_sensitive);
            }
            None => self.is_whole = false,
        }
    }

    fn outcome(&self) -> Outcome {
        if self.is_whole {
            Outcome::Whole
        } else {
            Outcome::TooLarge
        }
    }
}
