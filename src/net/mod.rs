//! Sockets, buffers and deadlines of one worker.
//!
//! This folder (with the runtime builder) is the only one that names monoio,
//! and [`buffers`] is the only file of the crate with `unsafe` in it. Nothing
//! here knows HTTP, TLS or the configuration: limits arrive as plain values.

pub mod addr;
pub mod buffers;
pub mod deadlines;
pub mod file;
pub mod handoff;
pub mod listener;
mod low_water;
pub mod now;
pub mod offload;
pub mod operations;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod resolver;
pub mod socket;
pub mod spawn;
pub mod spawner;
pub mod turns;
