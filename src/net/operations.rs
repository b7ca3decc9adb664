//! What a worker has its driver do, and how often it slept in between.
//!
//! monoio keeps its ring to itself, so operations are counted where they are
//! awaited: each is one submission and one completion. The kernel's own figures
//! (`/proc/self/fdinfo` of the ring) were tried and are not read: it lists every
//! operation that waits, under the lock that the worker needs to submit, which
//! took 0.8 ms with 1,000 idle connections and 29 ms with 18,000 (Linux 6.18).

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Accept,
    Connect,
    Receive,
    Send,
    File,
}

/// The kinds of operations, in the order of [`Activity::completed`].
pub const OPERATIONS: [&str; 5] = ["accept", "connect", "receive", "send", "file"];

thread_local! {
    static COMPLETED: [Cell<u64>; OPERATIONS.len()] =
        const { [const { Cell::new(0) }; OPERATIONS.len()] };
    static SLEEP: RefCell<Option<Sleep>> = const { RefCell::new(None) };
}

/// Where the kernel says how often this thread has slept.
struct Sleep {
    status: File,
    /// When it was last asked.
    seen: u64,
}

/// What has happened since the last question.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Operations that have ended, by kind ([`OPERATIONS`]), failed ones too.
    pub completed: [u64; OPERATIONS.len()],
    /// Times that the thread waited for the kernel and was woken.
    pub wakeups: u64,
}

/// Has wake-ups of the calling thread counted from now on. Opens a file, which a
/// thread that is bound by the sandbox can no longer do; without `/proc` nothing
/// is counted.
pub fn count_wakeups() {
    let status = File::open("/proc/thread-self/status").ok();
    SLEEP.set(status.map(|status| Sleep {
        seen: voluntary_switches(&status).unwrap_or(0),
        status,
    }));
}

/// Of the calling thread, since the last call.
pub fn take_activity() -> Activity {
    let completed = COMPLETED.with(|counts| counts.each_ref().map(Cell::take));
    let wakeups = SLEEP.with_borrow_mut(|sleep| {
        let sleep = sleep.as_mut()?;
        let now = voluntary_switches(&sleep.status)?;
        let since = now.saturating_sub(sleep.seen);
        sleep.seen = now;
        Some(since)
    });
    Activity {
        completed,
        wakeups: wakeups.unwrap_or(0),
    }
}

/// An operation has ended.
pub(super) fn completed(operation: Operation) {
    COMPLETED.with(|counts| {
        if let Some(count) = counts.get(operation as usize) {
            count.set(count.get() + 1);
        }
    });
}

/// A ring that has nothing to do gives its core away, and nothing else in a
/// worker waits: proc(5), `voluntary_ctxt_switches`.
fn voluntary_switches(status: &File) -> Option<u64> {
    /// The file has some 1.5 KiB; the line is its last but one.
    const ENOUGH: usize = 8 << 10;
    let mut text = [0; ENOUGH];
    let length = status.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_question_is_answered_for_the_time_since_the_last() {
        count_wakeups();
        for _ in 0..3 {
            completed(Operation::Send);
            std::thread::sleep(Duration::from_millis(1));
        }
        completed(Operation::File);
        let activity = take_activity();
        assert_eq!(activity.completed, [0, 0, 0, 3, 1]);
        assert!(activity.wakeups >= 3, "{activity:?}");
        assert_eq!(take_activity().completed, [0; OPERATIONS.len()]);
    }

    #[test]
    fn a_thread_that_nobody_watches_counts_no_wakeups() {
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(take_activity(), Activity::default());
    }
}
