//! What a worker has its driver do, and how often it slept in between.
//!
//! monoio keeps its ring to itself, so operations are counted where they are
//! awaited: each is one submission and one completion. Whether completions find
//! room the kernel says in the ring's own memory. Its other place for that
//! (`/proc/self/fdinfo` of the ring) lists every operation that waits, under the
//! lock that the worker needs to submit, which took 0.8 ms with 1,000 idle
//! connections and 29 ms with 18,000 (Linux 6.18).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::buffers::{RingHead, with_fd};

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
    static RING: RefCell<Option<Ring>> = const { RefCell::new(None) };
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
    /// Times that the thread found completions waiting for room in its queue.
    pub overflows: u64,
    /// Completions that the kernel threw away, because it had no memory either.
    pub lost: u64,
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

/// The calling thread's ring.
struct Ring {
    head: RingHead,
    overflows: u64,
    /// How many completions there had been when it last overflowed. While some
    /// wait no other enters the queue, so the same number is the same overflow.
    overflown_at: Option<u32>,
    /// What was thrown away when it was last asked.
    lost: u32,
}

/// Has overflows of the ring that `make` makes counted on this thread, until
/// [`forget_ring`]. Without `/proc`, or without a ring, nothing is counted.
pub fn count_overflows<T>(make: impl FnOnce() -> T) -> T {
    /// Or another thread's ring might be taken for this one's.
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = rings();
    let made = make();
    let after = rings();
    let mut new = after.difference(&before);
    if let (Some((number, _)), None) = (new.next(), new.next()) {
        let head = with_fd(number, RingHead::of);
        RING.set(head.map(|head| Ring {
            overflows: 0,
            overflown_at: None,
            lost: head.lost(),
            head,
        }));
    }
    made
}

/// Lets go of the calling thread's ring, which would not end otherwise.
pub fn forget_ring() {
    RING.set(None);
}

/// The rings of this process: descriptor and inode, which rings have of their own
/// where the kernel tells them apart.
fn rings() -> BTreeSet<(RawFd, u64)> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return BTreeSet::new();
    };
    let paths = descriptors.filter_map(|entry| Some(entry.ok()?.path()));
    let of_ring = |path: &Path| {
        let target = fs::read_link(path).ok()?;
        (target.as_os_str() == "anon_inode:[io_uring]").then_some(())?;
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, fs::metadata(path).ok()?.ino()))
    };
    paths.filter_map(|path| of_ring(&path)).collect()
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
    let (overflows, lost) = RING.with_borrow_mut(|ring| {
        let Some(ring) = ring else { return (0, 0) };
        let lost = ring.head.lost();
        let since = lost.wrapping_sub(std::mem::replace(&mut ring.lost, lost));
        (std::mem::take(&mut ring.overflows), u64::from(since))
    });
    Activity {
        completed,
        wakeups: wakeups.unwrap_or(0),
        overflows,
        lost,
    }
}

/// An operation has ended.
pub(super) fn completed(operation: Operation) {
    COMPLETED.with(|counts| {
        if let Some(count) = counts.get(operation as usize) {
            count.set(count.get() + 1);
        }
    });
    // An overflow lasts until the ring is entered again, and what filled the
    // queue ends operations before that.
    RING.with_borrow_mut(|ring| {
        let Some(ring) = ring else { return };
        let Some(at) = ring.head.overflown_at() else {
            return;
        };
        if ring.overflown_at.replace(at) != Some(at) {
            ring.overflows += 1;
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
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::time::Duration;

    use monoio::{IoUringDriver, RuntimeBuilder};

    use super::*;

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

    /// The shortest queue that the runtime makes.
    const QUEUE: u32 = 256;

    fn fill_the_queue_of(rings: &io_uring::Builder) {
        let waiting = 4 * QUEUE as usize;
        let make = || {
            RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(rings.clone())
                .with_entries(QUEUE)
                .build()
        };
        let mut runtime = count_overflows(make).unwrap();
        let woken = Rc::new(Cell::new(0));
        runtime.block_on(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let waiters: Vec<_> = (0..waiting)
                .map(|_| {
                    let ours = ours.try_clone().unwrap();
                    let woken = Rc::clone(&woken);
                    monoio::spawn(async move {
                        let ours = monoio::net::UnixStream::from_std(ours).unwrap();
                        ours.readable(false).await.unwrap();
                        completed(Operation::Receive);
                        woken.set(woken.get() + 1);
                    })
                })
                .collect();
            // Once this one has been waited for, the others wait in the ring.
            let (other, mut there) = UnixStream::pair().unwrap();
            there.write_all(b"x").unwrap();
            let other = monoio::net::UnixStream::from_std(other).unwrap();
            other.readable(false).await.unwrap();
            assert_eq!((woken.get(), take_activity().overflows), (0, 0));
            theirs.write_all(b"x").unwrap();
            for waiter in waiters {
                waiter.await;
            }
        });
        let activity = take_activity();
        assert!(activity.overflows > 0, "{activity:?}");
        assert_eq!((woken.get(), activity.lost), (waiting, 0));
        assert_eq!(take_activity(), Activity::default());
        forget_ring();
    }

    #[test]
    fn completions_without_room_are_noticed_and_none_is_lost() {
        let mut rings = io_uring::IoUring::builder();
        fill_the_queue_of(rings.setup_cqsize(QUEUE));
        // As workers have them: the queue is filled when it is asked for.
        rings.setup_single_issuer().setup_defer_taskrun();
        fill_the_queue_of(&rings);
    }

    #[test]
    fn a_thread_that_nobody_watches_counts_no_wakeups() {
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(take_activity(), Activity::default());
    }
}
