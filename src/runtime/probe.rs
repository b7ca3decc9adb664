//! Which I/O driver this process gets: io_uring with the best flags that the
//! kernel grants, or epoll.

use std::fmt;
use std::io;

use io_uring::{Builder, IoUring};

use crate::config::EventMethod;

/// Submission queue entries of a worker's ring: the operations of a busy turn.
/// A full queue costs one extra system call and nothing else, while both
/// queues (256 KiB) count against `RLIMIT_MEMLOCK` for whoever lacks
/// CAP_IPC_LOCK: the usual 8 MiB are then enough for some 30 workers.
pub(super) const RING_ENTRIES: u32 = 2048;
/// The completion queue, four times as long: completions come in bursts that
/// nobody has asked for in this turn.
const COMPLETION_ENTRIES: u32 = 4 * RING_ENTRIES;
/// Entries of the ring that is made only to ask.
const PROBE_ENTRIES: u32 = 8;

/// The driver that every worker uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, with these flags.
    IoUring(RingFlags),
    /// epoll.
    Epoll,
}

/// What a ring is set up with, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RingFlags {
    /// Completions are run when the worker asks for them (Linux 6.1). Of a
    /// keep-alive request's CPU this saves two fifths: no interruption, and
    /// completions in batches.
    DeferTaskrun,
    /// Completions do not interrupt user code (Linux 5.19).
    CoopTaskrun,
    /// None.
    Plain,
}

impl RingFlags {
    const ALL: [Self; 3] = [Self::DeferTaskrun, Self::CoopTaskrun, Self::Plain];

    /// A builder with these flags.
    pub(super) fn builder(self, completion_entries: u32) -> Builder {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(completion_entries).setup_clamp();
        match self {
            Self::DeferTaskrun => {
                builder
                    .setup_single_issuer()
                    .setup_coop_taskrun()
                    .setup_defer_taskrun();
            }
            Self::CoopTaskrun => {
                builder.setup_single_issuer().setup_coop_taskrun();
            }
            Self::Plain => {}
        }
        builder
    }

    /// A builder for a worker's ring.
    pub(super) fn worker_builder(self) -> Builder {
        self.builder(COMPLETION_ENTRIES)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring(RingFlags::DeferTaskrun) => {
                "using the \"io_uring\" event method (single issuer, deferred task run)"
            }
            Self::IoUring(RingFlags::CoopTaskrun) => {
                "using the \"io_uring\" event method (single issuer, cooperative task run)"
            }
            Self::IoUring(RingFlags::Plain) => "using the \"io_uring\" event method",
            Self::Epoll => "using the \"epoll\" event method",
        })
    }
}

/// The driver for this event method; with the reason if it is not the one
/// that was wanted.
pub fn choose(method: EventMethod) -> (Driver, Option<io::Error>) {
    if method == EventMethod::Epoll {
        return (Driver::Epoll, None);
    }
    let mut refusal = None;
    for flags in RingFlags::ALL {
        match flags.builder(4 * PROBE_ENTRIES).build(PROBE_ENTRIES) {
            Ok(_) => return (Driver::IoUring(flags), None),
            // An unknown flag is EINVAL; anything else refuses all of them.
            Err(error) => refusal = Some(error),
        }
    }
    (Driver::Epoll, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_grants_io_uring() {
        let (driver, refusal) = choose(EventMethod::Auto);
        assert!(matches!(driver, Driver::IoUring(_)), "refused: {refusal:?}");
    }

    #[test]
    fn epoll_is_used_where_it_is_asked_for() {
        assert_eq!(choose(EventMethod::Epoll).0, Driver::Epoll);
    }
}
