//! Bulk in larger portions: who sends fast is waited for until there is more.
//!
//! A proxy that is quicker than its client wakes for each TLS record and sends it
//! on by itself. The kernel can be told to wake nobody before so many bytes are
//! there (`SO_RCVLOWAT`, socket(7)); it does so all the same at the end of the
//! stream, after an error, and when its buffer is full. What it does not know is
//! when the peer falls silent with less than that on its way, so whoever waits
//! does so only for a moment, and then takes what there is.

use std::io;
use std::time::{Duration, Instant};

use super::buffers;
use super::deadlines::{Deadline, TICK};
use super::now::now;
use super::socket::Stream;

/// Bytes that are waited for. With half of it less is gained, with twice no more.
pub(super) const MARK: usize = 128 << 10;
/// At least so many bytes must be to come for the mark to be waited for: more
/// than it, because some of them may be here already, as a record of which the end
/// is not.
const MIN_LEFT: u64 = (MARK + (32 << 10)) as u64;
/// Who sends [`MARK`] bytes within this time is fast (6.5 MB/s): each of them then
/// waits no longer than that.
const FAST: Duration = Duration::from_millis(20);
/// How long the mark is waited for, rounded up to the next tick of the deadlines.
const PATIENCE: Duration = TICK;

/// How fast a peer sends, and whether the kernel waits for [`MARK`] bytes of it.
#[derive(Debug)]
pub(super) struct LowWater {
    /// Since when `bytes` are counted.
    since: Instant,
    bytes: usize,
    /// While the kernel waits for the mark.
    set: Option<Set>,
}

#[derive(Debug)]
struct Set {
    patience: Deadline,
    /// The last reception took all that was there.
    is_drained: bool,
}

impl LowWater {
    /// For a peer of which bulk has come, with so many bytes `left` to come.
    pub(super) fn measure(left: u64) -> Option<Box<Self>> {
        (left >= MIN_LEFT).then(|| {
            Box::new(Self {
                since: now(),
                bytes: 0,
                set: None,
            })
        })
    }

    /// A reception of so many `bytes`, all that was there if there was more `room`.
    pub(super) fn received(&mut self, stream: &Stream, bytes: usize, room: usize) {
        let is_drained = bytes < room;
        if let Some(set) = &mut self.set {
            set.is_drained = is_drained;
            return;
        }
        self.bytes += bytes;
        if self.bytes < MARK {
            return;
        }
        let is_fast = now().saturating_duration_since(self.since) <= FAST;
        self.restart();
        // Where it cannot be set, nothing is lost.
        if is_fast && buffers::set_receive_low_water(stream, MARK).is_ok() {
            self.set = Some(Set {
                patience: Deadline::new(),
                is_drained,
            });
        }
    }

    /// Whether to wait before anything is received, with so many bytes `left` to
    /// come: nothing is there, and the mark is to be waited for.
    pub(super) fn comes_first(&self, left: u64) -> bool {
        left >= MIN_LEFT && self.set.as_ref().is_some_and(|set| set.is_drained)
    }

    /// Waits until there is something to receive, with so many bytes `left` to
    /// come; for the mark, if it is set.
    ///
    /// # Errors
    /// When the runtime cannot wait. Dropping the future does nothing.
    pub(super) async fn readable(&mut self, stream: &Stream, left: u64) -> io::Result<()> {
        if let Some(set) = &mut self.set
            && left >= MIN_LEFT
        {
            set.is_drained = false;
            set.patience.arm(PATIENCE);
            if let Ok(readable) = set.patience.run(stream.readable()).await {
                return readable;
            }
        }
        self.lift(stream);
        stream.readable().await
    }

    /// From now on anything that comes is worth waking for.
    pub(super) fn lift(&mut self, stream: &Stream) {
        if self.set.take().is_some() {
            // It took another value, so it takes this.
            let _ = buffers::set_receive_low_water(stream, 1);
            self.restart();
        }
    }

    #[cfg(test)]
    pub(super) fn is_set(&self) -> bool {
        self.set.is_some()
    }

    fn restart(&mut self) {
        (self.since, self.bytes) = (now(), 0);
    }
}
