//! `ssl_session_tickets`: sessions kept by the client, sealed here.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};
use rustls::server::ProducesTickets;

use super::{MAX_SESSION, Scope, Source, leave_one, lock, note_source, unix_now, within};

/// How long a ticket key seals at least, seconds. A longer
/// `ssl_session_timeout` stretches it, so that a ticket never loses its key
/// before its time.
const ROTATION: u64 = 3600;
/// Tickets under one key: a quarter of what random 96-bit nonces bear
/// (NIST SP 800-38D §8.3 stops at 2^32).
const MAX_SEALED: u64 = 1 << 30;
/// The longest life of a ticket, seconds: a week (RFC 8446 §4.6.1).
const MAX_LIFETIME: u64 = 7 * 86_400;
const NAME: usize = 16;
const ISSUED: usize = 8;

/// The keys of all tickets of this process: random, never written anywhere,
/// shared by every worker and kept across reloads, so that any of them resumes
/// any session.
///
/// Keys rotate when they are used after their time, not by a timer: an idle
/// process has nothing to protect. The previous key still opens for one more
/// period.
pub struct TicketKeys {
    ring: ArcSwap<Ring>,
    rotating: Mutex<()>,
    /// Seconds between rotations.
    period: AtomicU64,
}

struct Ring {
    current: Arc<TicketKey>,
    previous: Option<Arc<TicketKey>>,
}

/// One key with the name by which tickets refer to it.
pub struct TicketKey {
    name: [u8; NAME],
    aead: RandomizedNonceKey,
    born: u64,
    sealed: AtomicU64,
}

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandomness;

impl TicketKeys {
    /// Fresh keys.
    ///
    /// # Errors
    ///
    /// The system's random number generator fails.
    pub fn new() -> Result<Self, NoRandomness> {
        Self::new_at(unix_now())
    }

    fn new_at(now: u64) -> Result<Self, NoRandomness> {
        Ok(Self {
            ring: ArcSwap::from_pointee(Ring {
                current: Arc::new(TicketKey::new(now)?),
                previous: None,
            }),
            rotating: Mutex::new(()),
            period: AtomicU64::new(ROTATION),
        })
    }

    /// Sees to it that a key lives at least as long as tickets of this life.
    fn honour(&self, lifetime: u64) {
        self.period.fetch_max(lifetime, Ordering::Relaxed);
    }

    /// The keys to use now, rotated if it is time.
    fn ring(&self, now: u64) -> Option<Arc<Ring>> {
        let period = self.period.load(Ordering::Relaxed);
        let ring = self.ring.load_full();
        if !ring.current.spent(now, period) {
            return Some(ring);
        }
        let _only_one = lock(&self.rotating);
        let ring = self.ring.load_full();
        if !ring.current.spent(now, period) {
            return Some(ring);
        }
        let fresh = Arc::new(Ring {
            current: Arc::new(TicketKey::new(now).ok()?),
            previous: Some(Arc::clone(&ring.current)),
        });
        self.ring.store(Arc::clone(&fresh));
        Some(fresh)
    }

    fn seal(&self, scope: Scope, session: &[u8], now: u64) -> Option<Vec<u8>> {
        if session.len() > MAX_SESSION {
            return None;
        }
        self.ring(now)?.current.seal(scope, session, now)
    }

    fn open(&self, scope: Scope, ticket: &[u8], lifetime: u64, now: u64) -> Option<Vec<u8>> {
        let ring = self.ring(now)?;
        let period = self.period.load(Ordering::Relaxed);
        let previous = ring
            .previous
            .iter()
            .filter(|key| now < key.born.saturating_add(period.saturating_mul(2)));
        std::iter::once(&ring.current)
            .chain(previous)
            .find(|key| ticket.starts_with(&key.name))?
            .open(scope, ticket, lifetime, now)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

impl TicketKey {
    /// From the content of an `ssl_session_ticket_key` file as Nginx has it: a
    /// name, an HMAC secret, and an AES secret of 128 or 256 bits. Tickets are
    /// sealed by AES-256-GCM here, with a key derived from both secrets; the
    /// same file gives the same key on every host. `None`: another length.
    #[must_use]
    pub fn from_file(content: &[u8]) -> Option<Self> {
        if !matches!(content.len(), 48 | 80) {
            return None;
        }
        let (&name, secrets) = content.split_first_chunk::<NAME>()?;
        let secrets = hmac::Key::new(hmac::HMAC_SHA256, secrets);
        let derived = hmac::sign(&secrets, b"ringwall session ticket key 1");
        Some(Self {
            name,
            aead: RandomizedNonceKey::new(&AES_256_GCM, derived.as_ref()).ok()?,
            born: 0,
            sealed: AtomicU64::new(0),
        })
    }

    fn seal(&self, scope: Scope, session: &[u8], now: u64) -> Option<Vec<u8>> {
        if session.len() > MAX_SESSION {
            return None;
        }
        self.sealed.fetch_add(1, Ordering::Relaxed);
        let mut body = Vec::with_capacity(ISSUED + session.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(&now.to_be_bytes());
        body.extend_from_slice(session);
        let nonce = self
            .aead
            .seal_in_place_append_tag(Aad::from(scope.0), &mut body)
            .ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + body.len());
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&body);
        Some(ticket)
    }

    /// Opens a ticket that bears this key's name.
    fn open(&self, scope: Scope, ticket: &[u8], lifetime: u64, now: u64) -> Option<Vec<u8>> {
        let (_, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        if body.len() > ISSUED + MAX_SESSION + AES_256_GCM.tag_len() {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let plain = self
            .aead
            .open_in_place(nonce, Aad::from(scope.0), &mut body)
            .ok()?;
        let (issued, session) = plain.split_first_chunk::<ISSUED>()?;
        within(u64::from_be_bytes(*issued), now, lifetime).then(|| session.to_vec())
    }

    fn new(now: u64) -> Result<Self, NoRandomness> {
        let mut name = [0; NAME];
        let mut secret = [0; 32];
        rand::fill(&mut name).map_err(|_| NoRandomness)?;
        rand::fill(&mut secret).map_err(|_| NoRandomness)?;
        let aead = RandomizedNonceKey::new(&AES_256_GCM, &secret).map_err(|_| NoRandomness);
        // aws-lc wipes its own copy; this one is ours to wipe.
        secret.fill(0);
        std::hint::black_box(&mut secret);
        Ok(Self {
            name,
            aead: aead?,
            born: now,
            sealed: AtomicU64::new(0),
        })
    }

    fn spent(&self, now: u64, period: u64) -> bool {
        now.saturating_sub(self.born) >= period || self.sealed.load(Ordering::Relaxed) >= MAX_SEALED
    }
}

/// Whose keys a server block's tickets are under.
#[derive(Debug)]
pub enum Keys {
    /// This process's own.
    Own(Arc<TicketKeys>),
    /// From files, shared by several hosts: the first seals, all open. They
    /// rotate when the operator replaces the files and reloads.
    Files(Vec<Arc<TicketKey>>),
}

impl From<Arc<TicketKeys>> for Keys {
    fn from(keys: Arc<TicketKeys>) -> Self {
        Self::Own(keys)
    }
}

impl From<Vec<Arc<TicketKey>>> for Keys {
    fn from(keys: Vec<Arc<TicketKey>>) -> Self {
        Self::Files(keys)
    }
}

impl Keys {
    fn seal(&self, scope: Scope, session: &[u8], now: u64) -> Option<Vec<u8>> {
        match self {
            Self::Own(keys) => keys.seal(scope, session, now),
            Self::Files(keys) => keys.first()?.seal(scope, session, now),
        }
    }

    fn open(&self, scope: Scope, ticket: &[u8], lifetime: u64, now: u64) -> Option<Vec<u8>> {
        match self {
            Self::Own(keys) => keys.open(scope, ticket, lifetime, now),
            Self::Files(keys) => keys
                .iter()
                .find(|key| ticket.starts_with(&key.name))?
                .open(scope, ticket, lifetime, now),
        }
    }
}

/// Makes and reads the tickets of one server block.
#[derive(Debug)]
pub struct Ticketer {
    keys: Keys,
    scope: Scope,
    /// Seconds.
    lifetime: u64,
}

impl Ticketer {
    /// Tickets of `scope` that live for `timeout`, at most a week.
    pub fn new(keys: impl Into<Keys>, scope: Scope, timeout: Duration) -> Self {
        let keys = keys.into();
        let lifetime = timeout.as_secs().min(MAX_LIFETIME);
        if let Keys::Own(keys) = &keys {
            keys.honour(lifetime);
        }
        Self {
            keys,
            scope,
            lifetime,
        }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        self.lifetime > 0
    }

    fn lifetime(&self) -> u32 {
        self.lifetime as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if !leave_one() {
            return None;
        }
        self.keys.seal(self.scope, plain, unix_now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let opened = self
            .keys
            .open(self.scope, cipher, self.lifetime, unix_now());
        opened.inspect(|_| note_source(Source::Ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_SKEW;
    use super::*;

    const A: Scope = Scope([1; 32]);
    const B: Scope = Scope([2; 32]);
    const NOW: u64 = 1_800_000_000;

    fn keys() -> TicketKeys {
        TicketKeys::new_at(NOW).expect("randomness")
    }

    #[test]
    fn a_ticket_opens_only_under_its_own_scope() {
        let keys = keys();
        let ticket = keys.seal(A, b"session", NOW).expect("sealed");
        assert_eq!(
            keys.open(A, &ticket, 300, NOW).as_deref(),
            Some(&b"session"[..])
        );
        assert_eq!(keys.open(B, &ticket, 300, NOW), None);
    }

    fn from_files(files: &[Vec<u8>]) -> Keys {
        let key = |file: &Vec<u8>| Arc::new(TicketKey::from_file(file).expect("a key"));
        Keys::Files(files.iter().map(key).collect())
    }

    #[test]
    fn hosts_with_the_same_key_files_open_one_anothers_tickets() {
        let [old, new] = [vec![1; 48], vec![2; 80]];
        let here = from_files(std::slice::from_ref(&old));
        let there = from_files(&[new.clone(), old]);
        let ticket = here.seal(A, b"session", NOW).expect("sealed");
        let opened = there.open(A, &ticket, 300, NOW + 1);
        assert_eq!(opened.as_deref(), Some(&b"session"[..]));
        let ticket = there.seal(A, b"session", NOW).expect("sealed");
        assert_eq!(here.open(A, &ticket, 300, NOW), None, "the first seals");
        assert!(from_files(&[new]).open(A, &ticket, 300, NOW).is_some());
    }

    #[test]
    fn a_ticket_under_a_key_file_keeps_to_its_scope_and_its_age() {
        let keys = from_files(&[(0..48).collect()]);
        let ticket = keys.seal(A, b"session", NOW).expect("sealed");
        assert_eq!(keys.open(B, &ticket, 300, NOW), None);
        assert_eq!(keys.open(A, &ticket, 300, NOW + 300), None);
        // The same name with another secret is another key.
        let mut other: Vec<u8> = (0..48).collect();
        other[47] ^= 1;
        assert_eq!(from_files(&[other]).open(A, &ticket, 300, NOW), None);
        for cut in 0..ticket.len() {
            assert_eq!(keys.open(A, &ticket[..cut], 300, NOW), None);
        }
    }

    #[test]
    fn a_tampered_ticket_does_not_open() {
        let keys = keys();
        let ticket = keys.seal(A, b"session", NOW).expect("sealed");
        for position in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[position] ^= 1;
            assert_eq!(keys.open(A, &bad, 300, NOW), None, "byte {position}");
            assert_eq!(keys.open(A, &ticket[..position], 300, NOW), None);
        }
    }

    #[test]
    fn a_ticket_dies_with_its_age() {
        let keys = keys();
        let ticket = keys.seal(A, b"session", NOW).expect("sealed");
        assert!(keys.open(A, &ticket, 300, NOW + 299).is_some());
        assert!(keys.open(A, &ticket, 300, NOW + 300).is_none());
        assert!(keys.open(A, &ticket, 300, NOW - MAX_SKEW).is_some());
        assert!(keys.open(A, &ticket, 300, NOW - MAX_SKEW - 1).is_none());
    }

    #[test]
    fn the_previous_key_opens_for_one_more_period_and_then_no_longer() {
        let keys = keys();
        let first = keys.seal(A, b"session", NOW).expect("sealed");
        let late = NOW + ROTATION;
        let second = keys.seal(A, b"session", late).expect("sealed");
        assert_ne!(first[..NAME], second[..NAME], "the key has rotated");
        assert!(keys.open(A, &first, u64::MAX, late).is_some());
        assert!(
            keys.open(A, &first, u64::MAX, NOW + 2 * ROTATION - 1)
                .is_some()
        );
        assert!(keys.open(A, &first, u64::MAX, NOW + 2 * ROTATION).is_none());
        keys.seal(A, b"session", late + ROTATION).expect("sealed");
        keys.seal(A, b"session", late + 2 * ROTATION)
            .expect("sealed");
        assert!(
            keys.open(A, &second, u64::MAX, late + 2 * ROTATION)
                .is_none()
        );
    }

    #[test]
    fn a_ticket_outlives_a_rotation_when_the_timeout_is_longer_than_an_hour() {
        let keys = Arc::new(keys());
        let day = 86_400;
        let ticketer = Ticketer::new(Arc::clone(&keys), A, Duration::from_secs(day));
        assert_eq!(u64::from(ticketer.lifetime()), day);
        let ticket = keys.seal(A, b"session", NOW + day - 1).expect("sealed");
        assert!(keys.open(A, &ticket, day, NOW + 2 * day - 2).is_some());
    }

    #[test]
    fn a_key_rotates_before_its_nonces_run_out() {
        let keys = keys();
        let first = keys.seal(A, b"session", NOW).expect("sealed");
        let ring = keys.ring.load_full();
        ring.current.sealed.store(MAX_SEALED, Ordering::Relaxed);
        let second = keys.seal(A, b"session", NOW).expect("sealed");
        assert_ne!(first[..NAME], second[..NAME]);
        assert!(keys.open(A, &first, 300, NOW).is_some());
    }

    #[test]
    fn a_session_too_long_for_a_client_hello_gets_no_ticket() {
        let keys = keys();
        assert!(keys.seal(A, &vec![0; MAX_SESSION], NOW).is_some());
        assert!(keys.seal(A, &vec![0; MAX_SESSION + 1], NOW).is_none());
    }

    #[test]
    fn a_ticketer_without_a_lifetime_is_off() {
        let off = Ticketer::new(Arc::new(keys()), A, Duration::ZERO);
        assert!(!off.enabled());
        let weeks = Ticketer::new(Arc::new(keys()), A, Duration::from_secs(30 * 86_400));
        assert_eq!(weeks.lifetime(), 604_800);
    }
}
