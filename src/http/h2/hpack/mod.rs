//! HPACK (RFC 7541): a list of fields as bytes, and back.
//!
//! Each direction of a connection has a table of fields that both ends keep in
//! step: a [`Decoder`] follows the peer's encoder, and the peer's decoder
//! follows our [`Encoder`]. Neither allocates before it has something to keep,
//! because most connections are idle and many carry one request.
//!
//! ```text
//! integer   numbers with a prefix                §5.1
//! huffman   the code of strings                  §5.2, appendix B
//! statics   the fields that are always there     appendix A
//! table     the fields that have been sent       §2.3.2, §4
//! names     which fields are worth a place in it §7.1
//! ```

mod decode;
mod encode;
mod huffman;
mod integer;
mod names;
mod statics;
mod table;

use std::fmt;

pub use decode::{Decoder, Outcome};
pub use encode::Encoder;

/// A table's size until its encoder says another, in bytes (RFC 9113 §6.5.2).
const INITIAL_TABLE: usize = 4096;

/// What a field counts beside its name and its value, in a table (RFC 7541
/// §4.1) and in a list (RFC 9113 §6.5.2), in bytes.
const FIELD_OVERHEAD: usize = 32;

fn field_size(name: usize, value: usize) -> usize {
    name.saturating_add(value).saturating_add(FIELD_OVERHEAD)
}

/// A block is not what an encoder writes. Both ends' tables are out of step from
/// here on: it is a connection error of type `COMPRESSION_ERROR` (RFC 9113 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HpackError {
    /// It ends within a field.
    Truncated,
    /// A number is longer than any that can be meant.
    Integer,
    /// No field has this index.
    Index,
    /// A table's size is changed after the block's start, or is larger than
    /// what we allow.
    TableSize,
    /// A string's code is wrong, or has the wrong padding.
    Huffman,
    /// It makes us copy far more than it is long.
    Amplified,
}

impl fmt::Display for HpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "a block of fields that ends within one",
            Self::Integer => "a number too long in a block of fields",
            Self::Index => "an index of no field",
            Self::TableSize => "a wrong size of the table of fields",
            Self::Huffman => "a wrong Huffman code",
            Self::Amplified => "a block of fields that is far larger than its bytes",
        })
    }
}

impl std::error::Error for HpackError {}

#[cfg(test)]
mod tests;
