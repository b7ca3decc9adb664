//! What every end-to-end test stands on: certificates made for the occasion,
//! clients and backends that send and record exact bytes, and a launcher for
//! the binary under test.
//!
//! Nothing here sleeps in the hope that something has happened by then: waiting
//! is [`eventually`], which polls until a deadline and says what it waited for.

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod frames;
pub(crate) mod h2;
pub(crate) mod java;
pub(crate) mod neighbour;
pub(crate) mod nginx;
pub(crate) mod origin;
pub(crate) mod pki;
pub(crate) mod ringwall;
pub(crate) mod tools;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for what ought to happen within milliseconds. Generous,
/// because two cores are shared by all tests and a debug build is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until the check yields a value.
///
/// # Panics
/// When [`PATIENCE`] runs out.
pub(crate) fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, check)
}

/// [`eventually`] with a deadline of one's own.
pub(crate) fn within<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(
            start.elapsed() < limit,
            "gave up after {limit:?} waiting until {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A TCP port that nobody listened on a moment ago.
///
/// Ports come from below the kernel's ephemeral range, because one from inside
/// it (which binding port 0 would give) can be taken by any outgoing connection
/// between this call and the bind by the program under test. Each test process
/// has a part of them to itself while it runs, and begins at another place in
/// it than the one before; the launcher tries again on a collision.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    const PARTS: u32 = 16;
    const PART: u32 = COUNT / PARTS;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // The place of this process among those that run at the same time.
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT");
    let slot: u32 = slot.ok().and_then(|slot| slot.parse().ok()).unwrap_or(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(97).wrapping_add(step) % PART;
        let port = (FIRST + slot % PARTS * PART + offset) as u16;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// 127.0.0.1 at a port.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The first position of `needle`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len().max(1))
        .position(|window| window == needle)
}

/// Bytes for a failure message.
pub(crate) fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)])
        .escape_debug()
        .to_string()
}

/// A body whose every byte depends on its position, so that a lost, doubled or
/// swapped piece shows.
pub(crate) fn patterned(length: usize) -> Vec<u8> {
    (0..length)
        .map(|position| (position as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}
