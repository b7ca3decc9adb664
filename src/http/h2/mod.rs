//! HTTP/2 (RFC 9113), sans-I/O.
//!
//! [`connection`] is either side of a connection: bytes in, events out. What it
//! stands on: [`frame`], [`settings`], [`flow`], [`hpack`] and [`meter`], which
//! bounds what of a peer's frames is too much. [`fields`] is what a message's
//! fields mean.

pub mod connection;
pub mod fields;
pub mod flow;
pub mod frame;
pub mod hpack;
pub mod meter;
pub mod settings;
mod streams;
