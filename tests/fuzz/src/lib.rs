//! What the fuzz targets do with their input, one function each. Each of them
//! panics when a promise is broken.
//!
//! The functions are here, and not in `targets/`, so that `tests/fuzz_entries.rs`
//! of the main package can call them with the seeds on every run of the tests:
//! a target that no longer compiles, or fails on what it starts from, is found
//! without nightly and without fuzzing.

mod chunked_any_split;
mod client_cert_chain;
mod client_hello;
mod config_file;
mod h1_framing;
mod h1_request_head;
mod h2_frames;
mod hpack;
mod proxy_protocol;
mod ticket;
mod tls_record;
mod x509_identity;

pub use chunked_any_split::chunked_any_split;
pub use client_cert_chain::client_cert_chain;
pub use client_hello::client_hello;
pub use config_file::config_file;
pub use h1_framing::h1_framing;
pub use h1_request_head::h1_request_head;
pub use h2_frames::h2_frames;
pub use hpack::hpack;
pub use proxy_protocol::proxy_protocol;
pub use ticket::ticket;
pub use tls_record::tls_record;
pub use x509_identity::x509_identity;
