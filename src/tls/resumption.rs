//! Session resumption: a stateful store and stateless tickets, both bound to a
//! scope.
//!
//! A session may resume only where a full handshake would have met the same
//! client-certificate policy and the same server certificate; otherwise a
//! session made on a lax virtual host opens a strict one (Nginx
//! CVE-2025-23419). rustls itself does not look: two configurations that share
//! a store or a ticketer resume each other's sessions. So the [`Scope`] is part
//! of every store key, and authenticated data of every ticket: under another
//! scope a session is not found, and a ticket does not decrypt. This is what
//! Nginx's session id context does for the store it shares.
//!
//! Whether the client's certificate is *still* acceptable is not decided here
//! but at every resumption, by `ClientAuth::admit`.

mod store;
mod tickets;

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use self::store::{ScopedStore, SessionStore};
pub use self::tickets::{Keys, NoRandomness, TicketKey, TicketKeys, Ticketer};

/// What a session is bound to: a digest over the client-certificate policy and
/// the server's certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope(pub [u8; 32]);

/// Where a session that is being resumed came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client brought it.
    Ticket,
    /// The store had it.
    Cache,
}

thread_local! {
    // rustls does not tell; see `client_auth::take_refusal` for why it is sound.
    static SOURCE: Cell<Option<Source>> = const { Cell::new(None) };
}

fn note_source(source: Source) {
    SOURCE.set(Some(source));
}

/// Where the session came from that was last found on this thread; `None` if
/// none was since the last call. Whether the handshake resumed it is for the
/// handshake to say.
pub fn take_source() -> Option<Source> {
    SOURCE.take()
}

thread_local! {
    /// How many more sessions the handshake may leave that this thread is driving.
    static ALLOWED: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Lets a handshake go on, but leave at most so many sessions to be resumed:
/// rustls issues as many after a resumption as after a full handshake.
pub(super) fn leaving_at_most<T>(sessions: usize, go_on: impl FnOnce() -> T) -> T {
    ALLOWED.set(sessions);
    let result = go_on();
    ALLOWED.set(usize::MAX);
    result
}

/// Whether one more session may be left; counts it.
fn leave_one() -> bool {
    let allowed = ALLOWED.get();
    ALLOWED.set(allowed.saturating_sub(1));
    allowed > 0
}

/// The longest session that is stored or put in a ticket, bytes. A session
/// holds the client's chain; a ticket comes back in one ClientHello, which
/// should fit a 16 KiB record. Longer chains do full handshakes.
const MAX_SESSION: usize = 8 * 1024;

/// How far ahead of this clock a session may have been made, seconds: the
/// clock may have been set back a little, but not without end.
const MAX_SKEW: u64 = 60;

/// Whether something made at `made` is younger than `lifetime` seconds at `now`.
fn within(made: u64, now: u64, lifetime: u64) -> bool {
    made <= now.saturating_add(MAX_SKEW) && now.saturating_sub(made) < lifetime
}

/// Seconds since the epoch. Wall-clock time and not a monotonic one: certificates
/// expire by it, and machines that share ticket keys have only it in common.
fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A poisoned lock means a panic between two consistent states at worst loses
/// a session; refusing every handshake from then on would be worse.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
