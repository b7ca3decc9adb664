//! ringwall: a TLS and mutual-TLS terminator and reverse proxy for Linux, on
//! io_uring, that reads the operator's own `nginx.conf`.
//!
//! # The request path
//!
//! ```text
//! accept → handshake → VerifiedClient? → head → BodyFraming → server → location
//!        → headers → upstream → body → encode → client
//! ```
//!
//! [`proxy::connection`] accepts and reads requests; the private
//! `proxy::serve` is what happens to each, on one page. [`tls`] decides who
//! the client is, [`http`] where a message begins and ends, [`config`] what
//! the operator wants, [`net`] moves bytes, [`telemetry`] writes down what
//! happened, and [`runtime`] is the process around them.
//!
//! # Threads
//!
//! One worker per core, each a thread with its own io_uring, connections,
//! buffers, timers and upstream pools. What they share is one immutable
//! configuration behind an atomic pointer. The main thread builds
//! configurations and handles signals; a writer thread writes the logs.
//!
//! # The trust boundary
//!
//! Everything from a socket is hostile until a type says otherwise: a client's
//! identity exists only as [`tls::client_auth::VerifiedClient`], which only
//! the verifier makes, and a message's end only as
//! [`http::h1::framing::BodyFraming`], which only the framing rules make.
#![deny(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    unnameable_types,
    missing_debug_implementations,
    clippy::undocumented_unsafe_blocks
)]
#![warn(clippy::use_self, clippy::redundant_clone)]

pub mod cli;
pub mod config;
pub mod demo;
pub mod http;
pub mod net;
pub mod proxy;
pub mod runtime;
pub mod telemetry;
pub mod tls;
