//! Wakes the main thread now and then: it waits for signals, so it is sent one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use signal_hook::consts::SIGALRM;

use super::sandbox;

/// A thread that does nothing but wait and raise SIGALRM. An alarm(2) would do
/// without it, but cannot be set without unsafe code.
#[derive(Debug)]
pub(super) struct Ticker {
    thread: Thread,
    /// Milliseconds.
    period: Arc<AtomicU64>,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn start(period: Duration) -> io::Result<Self> {
        let period = Arc::new(AtomicU64::new(milliseconds(period)));
        let shared = Arc::clone(&period);
        let handle = thread::Builder::new()
            .name("ticker".into())
            .spawn(move || {
                sandbox::confine_bystander();
                loop {
                    let begun = Instant::now();
                    let wait = || Duration::from_millis(shared.load(Ordering::Relaxed));
                    thread::park_timeout(wait());
                    // Woken earlier: the period has changed.
                    if begun.elapsed() >= wait() {
                        // Fails only for signals that do not exist.
                        let _ = signal_hook::low_level::raise(SIGALRM);
                    }
                }
            })?;
        Ok(Self {
            thread: handle.thread().clone(),
            period,
        })
    }

    /// Ticks at this period from now on.
    pub(super) fn every(&self, period: Duration) {
        let period = milliseconds(period);
        if self.period.swap(period, Ordering::Relaxed) != period {
            self.thread.unpark();
        }
    }
}

fn milliseconds(period: Duration) -> u64 {
    u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1)
}
