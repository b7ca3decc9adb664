//! HTTP as bytes: message heads, framing, bodies and their encoding.
//!
//! Nothing in here does I/O or knows of anything else in the crate; limits
//! arrive as plain values. That is what lets fuzzers and Miri run every line of
//! it, and what keeps the question "where does this message end?" in one
//! place, [`h1::framing`].
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod credentials;
pub mod date;
pub mod error;
pub mod h1;
pub mod h2;
pub mod head;
pub mod headers;
pub mod trailers;
pub mod uri;
pub mod words;
