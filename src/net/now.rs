//! The time, as of the last operation that this worker has waited for.
//!
//! A request asks for the time a dozen times, and the answers differ by the
//! microseconds that it takes to serve it. So the clock is read where waiting
//! ends, whatever was waited for, and not again until the next wait: twice for
//! a request that is passed on. Code that computes for long, or runs on no
//! worker, asks `Instant::now()` itself.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time when this thread last waited for something.
#[inline]
pub fn now() -> Instant {
    NOW.get().unwrap_or_else(refresh)
}

/// Waiting has ended: the time is asked for.
pub(super) fn refresh() -> Instant {
    let now = Instant::now();
    NOW.set(Some(now));
    now
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::spawn::sleep;
    use super::*;

    #[test]
    fn time_stands_still_between_waits_and_catches_up_in_each() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()
            .unwrap();
        runtime.block_on(async {
            let before = now();
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(now(), before);
            sleep(Duration::from_millis(2)).await;
            assert!(now() >= before + Duration::from_millis(4));
        });
    }
}
