//! HTTP/2 (RFC 9113) over our own streams.
//!
//! Towards clients [`front`] is a connection, over the protocol core in
//! [`http::h2`](crate::http::h2), and each of its streams a task of its own: the
//! stream's fields, body and answer become the head, the body source and the
//! response sink that a request of HTTP/1.1 has, and go through the same phases.
//! What the tasks share is [`mux`]. Towards backends [`io`] lets the `h2` crate
//! run over our streams.

mod body;
pub(super) mod front;
pub(crate) mod io;
mod lane;
mod mux;
mod outgoing;
mod sink;
mod stream;
