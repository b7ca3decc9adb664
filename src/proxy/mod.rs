//! From a connection to its answer.
//!
//! [`connection`] takes an accepted socket through the TLS handshake and then
//! reads one request after the other; `serve` is what happens to each of
//! them, top to bottom, and does not know which version of HTTP brought it.
//! Everything a request touches belongs to its worker: the only thing shared
//! between threads is the immutable [`gateway::Gateway`].
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod access;
mod ahead;
mod auth_basic;
mod auth_request;
mod balance;
mod board;
mod body;
mod buffering;
mod certificates;
pub mod connection;
mod cookies;
mod cors;
mod destination;
mod exchange;
mod files;
mod forward;
mod freshness;
pub mod gateway;
mod gzip;
mod h1;
mod h2;
mod handshake;
mod health;
mod input;
mod limits;
mod link;
mod log;
mod lookups;
mod measure;
mod multiplexed;
mod output;
mod pace;
mod patience;
mod pool;
mod preamble;
mod real_ip;
mod recover;
mod redirect;
mod relay;
mod request;
mod respond;
mod rewrite;
mod route;
mod runs;
mod serve;
mod status;
mod streams;
mod transport;
mod tunnel;
mod upstream;
mod variables;
pub mod worker;
