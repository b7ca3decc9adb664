//! The traffic secrets of a TLS 1.3 server's connection, for the keys that
//! follow a KeyUpdate (RFC 8446 §7.2).
//!
//! rustls would derive them, but its connection after the handshake keeps the
//! client's whole chain and the schedule for that: 1.7 KiB for each idle client,
//! a quarter of all that it takes. Two secrets are a hundred bytes. rustls shows
//! them only to what it has for key logs, so that is what receives them here;
//! they go nowhere else.

use std::cell::RefCell;
use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::{KeyLog, ServerConfig};
use zeroize::Zeroizing;

use crate::tls::record::{KeyMaterial, MAX_KEY};

/// Of SHA-384.
const MAX_SECRET: usize = 48;

thread_local! {
    /// What rustls has shown since [`watched`] began.
    static SHOWN: RefCell<Shown> = const { RefCell::new(Shown { client: None, server: None }) };
}

#[derive(Default)]
struct Shown {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
}

/// Sets what [`Handshake`](super::Handshake) asks of a configuration.
pub fn prepare(config: &mut ServerConfig) {
    config.enable_secret_extraction = true;
    config.key_log = std::sync::Arc::new(Witness);
}

/// Sees the secrets of the handshake that this thread is driving.
#[derive(Debug)]
struct Witness;

impl KeyLog for Witness {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let secret = TrafficSecret::new(secret);
        SHOWN.with_borrow_mut(|shown| match label {
            "CLIENT_TRAFFIC_SECRET_0" => shown.client = secret,
            "SERVER_TRAFFIC_SECRET_0" => shown.server = secret,
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

/// Lets rustls go on with one connection's handshake, and adds the secrets that
/// it came to meanwhile.
pub(super) fn watched<T>(found: &mut Option<TrafficSecrets>, go_on: impl FnOnce() -> T) -> T {
    // Whoever was here before and failed in between has left nothing.
    SHOWN.take();
    let result = go_on();
    let Shown { client, server } = SHOWN.take();
    if let (Some(rx), Some(tx)) = (client, server) {
        *found = Some(TrafficSecrets { rx, tx });
    }
    result
}

/// Both directions' secrets.
pub struct TrafficSecrets {
    pub(super) rx: TrafficSecret,
    pub(super) tx: TrafficSecret,
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficSecrets").finish_non_exhaustive()
    }
}

/// One direction's `application_traffic_secret_N` (RFC 8446 §7.1).
pub(super) struct TrafficSecret {
    bytes: Zeroizing<[u8; MAX_SECRET]>,
    /// As long as the hash of the cipher suite: 32 or 48.
    length: u8,
}

impl TrafficSecret {
    fn new(secret: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; MAX_SECRET]);
        bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        let length = u8::try_from(secret.len()).ok()?;
        Some(Self { bytes, length })
    }

    /// Goes on to the next secret, and makes key and IV of it. `None` if the
    /// library refuses, which it has no reason for.
    pub(super) fn next(&mut self, key_length: usize) -> Option<KeyMaterial> {
        let mut next = Zeroizing::new([0; MAX_SECRET]);
        self.expand(b"traffic upd", next.get_mut(..self.length.into())?)?;
        self.bytes = next;
        let mut material = KeyMaterial::default();
        self.expand(b"key", material.key.get_mut(..key_length.min(MAX_KEY))?)?;
        self.expand(b"iv", &mut material.iv)?;
        Some(material)
    }

    /// HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
    fn expand(&self, label: &[u8], out: &mut [u8]) -> Option<()> {
        let hash = match self.length {
            48 => HKDF_SHA384,
            32 => HKDF_SHA256,
            _ => return None,
        };
        let length = u16::try_from(out.len()).ok()?.to_be_bytes();
        let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
        let info = [&length[..], &label_length, PREFIX, label, &[0]];
        let secret = self.bytes.get(..self.length.into())?;
        let expanded = Prk::new_less_safe(hash, secret);
        let okm = expanded.expand(&info, Length(out.len())).ok()?;
        okm.fill(out).ok()
    }
}

const PREFIX: &[u8] = b"tls13 ";

#[derive(Clone, Copy)]
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8448 §3: the server's application traffic secret, and the key and IV
    /// that are made of it, by the same expansion.
    #[test]
    fn keys_are_those_of_rfc_8448() {
        let secret = [
            0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad, 0x47, 0x11, 0x6b, 0x45, 0xa9,
            0x50, 0x32, 0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a, 0x4b, 0x4f, 0x1f, 0x3f,
            0xcb, 0x63, 0x16, 0x43,
        ];
        let secret = TrafficSecret::new(&secret).unwrap();
        let mut key = [0; 16];
        secret.expand(b"key", &mut key).unwrap();
        assert_eq!(
            key,
            [
                0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef, 0xc2, 0x6b, 0xb9, 0xf2, 0xac, 0x92,
                0xe3, 0x56,
            ]
        );
        let mut iv = [0; 12];
        secret.expand(b"iv", &mut iv).unwrap();
        assert_eq!(
            iv,
            [
                0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84,
            ]
        );
    }

    #[test]
    fn what_is_no_secret_of_a_suite_makes_no_keys() {
        assert!(TrafficSecret::new(&[1; 49]).is_none());
        assert!(TrafficSecret::new(&[1; 20]).unwrap().next(16).is_none());
    }

    #[test]
    fn nothing_is_left_for_the_next_handshake() {
        let secret = [7; 32];
        Witness.log("CLIENT_TRAFFIC_SECRET_0", &[], &secret);
        Witness.log("SERVER_TRAFFIC_SECRET_0", &[], &secret);
        let mut found = None;
        watched(&mut found, || {});
        assert!(found.is_none());
        watched(&mut found, || {
            Witness.log("CLIENT_TRAFFIC_SECRET_0", &[], &secret);
            Witness.log("SERVER_TRAFFIC_SECRET_0", &[], &secret);
            Witness.log("EXPORTER_SECRET", &[], &secret);
        });
        assert_eq!(format!("{:?}", found.unwrap()), "TrafficSecrets { .. }");
        assert!(SHOWN.with_borrow(|shown| shown.client.is_none() && shown.server.is_none()));
    }
}
