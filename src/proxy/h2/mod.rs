//! HTTP/2 (RFC 9113) over our own streams, by the protocol core in
//! [`http::h2`](crate::http::h2).
//!
//! Of either end [`drive`] moves the bytes, and what its tasks share is [`mux`].
//! Towards clients [`front`] is a connection, and each of its streams a task of
//! its own: the stream's fields, body and answer become the head, the body source
//! and the response sink that a request of HTTP/1.1 has, and go through the same
//! phases. Connections to backends are [`streams`](super::streams)'.

mod body;
pub(super) mod drive;
pub(super) mod front;
pub(super) mod lane;
pub(super) mod mux;
mod outgoing;
pub(super) mod sink;
pub(super) mod slot;
mod stream;
