//! HTTP/2 (RFC 9113): the `h2` crate's protocol core over our own streams.
//!
//! [`io`] is what makes it run on them, in either role. Towards clients
//! `front` is a connection, and each of its streams a task of its own: the
//! stream's fields, body and answer become the head, the body source and the
//! response sink that a request of HTTP/1.1 has, and go through the same
//! phases.

mod body;
mod chunk;
pub(super) mod front;
pub(crate) mod io;
mod sink;
mod stream;
