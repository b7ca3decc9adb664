//! Attacks beside which somebody is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::eventually;
use super::ringwall::Ringwall;

/// More than this an attack must not cost: what a debug build's allocator keeps
/// for a handful of connections, with room.
const BOUND_KIB: u64 = 48 << 10;

/// Runs an attack, with a neighbour beside it who asks all the while: `ask`
/// panics when it is not served.
pub(crate) fn attacked<T>(
    ringwall: &Ringwall,
    mut ask: impl FnMut() + Send + 'static,
    attack: impl FnOnce() -> T,
) -> T {
    let before = ringwall.resident_kib();
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let neighbour = {
        let (done, served) = (Arc::clone(&done), Arc::clone(&served));
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                ask();
                served.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let answered = |count| {
        eventually("the neighbour is served", || {
            let is_over = neighbour.is_finished();
            (is_over || served.load(Ordering::SeqCst) >= count).then_some(())
        });
    };
    answered(1);
    let outcome = attack();
    let after = ringwall.resident_kib();
    // Whoever is asking is answered, and is so again.
    answered(served.load(Ordering::SeqCst) + 2);
    done.store(true, Ordering::SeqCst);
    neighbour.join().expect("served throughout");
    let grown = after.saturating_sub(before);
    assert!(grown < BOUND_KIB, "{grown} KiB more");
    outcome
}
