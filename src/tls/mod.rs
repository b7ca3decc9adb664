//! TLS: who we are, who the client is, and the bytes in between.
//!
//! rustls does handshakes, key schedules, tickets and alerts; the record
//! layer after the handshake is our own, because it seals and opens in place
//! in network buffers ([`record`], [`session`]). The policy about clients is
//! [`client_auth`]'s, and its proof is [`client_auth::VerifiedClient`]. This
//! folder is the only one that names rustls, and it does no I/O but reading
//! the files that the configuration names.

mod aead;
pub mod authorization;
pub mod certs;
pub mod ciphers;
pub mod client_auth;
pub mod client_hello;
mod der;
mod hkdf;
pub mod identity;
mod keys;
pub mod record;
pub mod resumption;
pub mod server;
pub mod server_hello;
pub mod session;
pub mod stapling;
mod transcript;
pub mod upstream;
pub mod watch;

use rustls::pki_types::UnixTime;
use rustls::{NamedGroup, ProtocolVersion};

/// `$ssl_protocol`: the version as OpenSSL and Nginx write it.
pub fn protocol_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "",
    }
}

/// `$ssl_curve`: the group by OpenSSL's short name.
pub fn group_name(group: NamedGroup) -> &'static str {
    client_hello::group_name(group.into()).unwrap_or_default()
}

/// The present, as validity periods are judged by it.
pub fn now() -> UnixTime {
    UnixTime::now()
}

/// Names the library for `-V`.
pub const LIBRARY: &str = "rustls 0.23 with aws-lc-rs";
