//! HTTP/2 (RFC 9113) beside its protocol core, which is the `h2` crate's: what
//! a request's fields mean, and what of a peer's frames is too much.

pub mod fields;
pub mod hpack;
pub mod meter;
