//! Time-outs of one worker: one coarse clock, no kernel timer per wait.
//!
//! Every connection owns a [`Deadline`], a slot in a dense array of expiry
//! ticks. A worker's ticker advances the clock ten times a second and wakes
//! the tasks whose slot has passed. A hashed wheel was the alternative: it
//! saves the scan, which for 20,000 connections is 80 KiB read in some
//! microseconds, and pays for it at every request, where arming must then
//! move an entry instead of storing four bytes.
//!
//! The clock goes by the time that the worker runs. While it does not (the process
//! is stopped, the machine suspended or moved, the kernel's clock set forward) peers
//! have no chance to be heard, and what they have sent meanwhile is only read when
//! the worker goes on: by the system's clock all of them would time out at once.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::now;

/// Resolution. Operators give time-outs in seconds; a tenth of one is noise.
pub const TICK: Duration = Duration::from_nanos(TICK_NANOS);

const TICK_NANOS: u64 = 100_000_000;
const TICKS_PER_SECOND: u64 = 10;

/// The most that one tick counts for. A busy worker's comes late by some
/// milliseconds; in the longest turns, of thousands of bulk transfers, by seconds,
/// and then time-outs must still come in sight.
const MOST_AT_ONCE: Duration = Duration::from_secs(1);

const NEVER: u32 = u32::MAX;
const EXPIRED: u32 = 0;

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::new(Clock::new());
}

/// The time ran out before the operation finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// One time limit of one task; free again when dropped.
#[derive(Debug)]
pub struct Deadline {
    slot: usize,
}

impl Deadline {
    /// Unarmed.
    pub fn new() -> Self {
        Self {
            slot: CLOCK.with_borrow_mut(Clock::claim),
        }
    }

    /// Expires `after` from now, rounded up to the next tick; later calls of
    /// [`Deadline::run`] share that one moment until it is armed again.
    pub fn arm(&self, after: Duration) {
        CLOCK.with_borrow_mut(|clock| {
            clock.expiry[self.slot] = clock.tick_after(after);
            clock.slots[self.slot].idle_from = NEVER;
        });
    }

    /// As [`Deadline::arm`] for a task that waits for nothing in particular:
    /// [`expire_idle`] ends it early, though not within `at_least`.
    pub fn arm_idle(&self, after: Duration, at_least: Duration) {
        CLOCK.with_borrow_mut(|clock| {
            clock.expiry[self.slot] = clock.tick_after(after);
            clock.slots[self.slot].idle_from = match at_least.is_zero() {
                true => clock.now,
                false => clock.tick_after(at_least),
            };
        });
    }

    /// Drives `operation` until it is done or the deadline passes.
    ///
    /// On [`Elapsed`] the operation is dropped: an I/O operation is then
    /// cancelled by the runtime, and bytes it had received are lost, so the
    /// caller must be done with that connection. Cancelling this future does
    /// the same.
    pub async fn run<F: Future>(&self, operation: F) -> Result<F::Output, Elapsed> {
        self.run_while(operation, None).await
    }

    /// As [`Deadline::run`], and when [`nudge`] has come by since the last wait
    /// that had one, `may_go_on` is asked, while the operation stays as it is:
    /// if the answer is no, the wait is over as if the time were. Waits without
    /// one leave the nudge to those that come after.
    pub async fn run_while<F: Future>(
        &self,
        operation: F,
        mut may_go_on: Option<&mut (dyn FnMut() -> bool + '_)>,
    ) -> Result<F::Output, Elapsed> {
        let mut operation = pin!(operation);
        poll_fn(|context| {
            if let Poll::Ready(output) = operation.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let wait = if may_go_on.is_some() {
                self.poll(context)
            } else {
                self.wait(context, false)
            };
            let goes_on = match (wait, &mut may_go_on) {
                (Wait::Over, _) => false,
                (Wait::Nudged, Some(may_go_on)) => may_go_on(),
                (Wait::Nudged | Wait::On, _) => true,
            };
            if goes_on {
                Poll::Pending
            } else {
                Poll::Ready(Err(Elapsed))
            }
        })
        .await
    }

    /// How the wait stands, for whoever waits for many things at a time; the
    /// task is woken when that changes. A [`nudge`] is told of once.
    pub fn poll(&self, context: &Context<'_>) -> Wait {
        self.wait(context, true)
    }

    /// Sees to it that the task is woken when this wait is over.
    fn wait(&self, context: &Context<'_>, takes_nudge: bool) -> Wait {
        CLOCK.with_borrow_mut(|clock| {
            if clock.expiry[self.slot] <= clock.now {
                return Wait::Over;
            }
            let slot = &mut clock.slots[self.slot];
            match &slot.waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                _ => slot.waker = Some(context.waker().clone()),
            }
            if takes_nudge && std::mem::take(&mut slot.nudged) {
                Wait::Nudged
            } else {
                Wait::On
            }
        })
    }
}

/// How a wait stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It goes on.
    On,
    /// It goes on, and [`nudge`] has come by.
    Nudged,
    /// The time has run out.
    Over,
}

impl Default for Deadline {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let _ = CLOCK.try_with(|clock| clock.borrow_mut().release(self.slot));
    }
}

/// Advances this worker's clock to the present and wakes what has expired.
/// To be called every [`TICK`].
pub fn tick() {
    wake_expired(|clock| {
        clock.advance(now::refresh());
        let (now, drains) = (clock.now, clock.drains);
        move |slot: &Slot| drains && slot.idle_from <= now
    });
}

/// How long this worker has run, in whole ticks; what it was stopped for is left
/// out.
pub fn running_time() -> Duration {
    CLOCK.with_borrow(|clock| TICK * clock.now)
}

/// Ends the wait of every task that is armed as idle: a worker drains. From now
/// on those that must wait longer, and those that become idle later, end with
/// the first [`tick`] at which they may.
pub fn expire_idle() {
    wake_expired(|clock| {
        clock.drains = true;
        let now = clock.now;
        move |slot: &Slot| slot.idle_from <= now
    });
}

/// Has the tasks of `count` deadlines from number `from` on look about: see
/// [`Deadline::run_while`]. Yields where to go on, or `None` after the last.
/// All at once would have all of them work at once.
pub fn nudge(from: usize, count: usize) -> Option<usize> {
    let (woken, next) = CLOCK.with_borrow_mut(|clock| {
        let end = from.saturating_add(count).min(clock.slots.len());
        let mut woken = Vec::new();
        for slot in clock.slots.get_mut(from..end).unwrap_or_default() {
            slot.nudged = true;
            woken.extend(slot.waker.take());
        }
        (woken, (end < clock.slots.len()).then_some(end))
    });
    woken.into_iter().for_each(Waker::wake);
    next
}

fn wake_expired<P: Fn(&Slot) -> bool>(select: impl FnOnce(&mut Clock) -> P) {
    let mut woken = CLOCK.with_borrow_mut(|clock| {
        let also = select(clock);
        let mut woken = std::mem::take(&mut clock.woken);
        for (expiry, slot) in clock.expiry.iter_mut().zip(&mut clock.slots) {
            if *expiry <= clock.now || (*expiry != NEVER && also(slot)) {
                *expiry = EXPIRED;
                woken.extend(slot.waker.take());
            }
        }
        woken
    });
    // Outside the borrow: a waker may run code that arms a deadline.
    woken.drain(..).for_each(Waker::wake);
    CLOCK.with_borrow_mut(|clock| clock.woken = woken);
}

#[derive(Debug)]
struct Clock {
    /// Ticks that this worker has run, as of the last call of [`tick`]; never 0, so
    /// that [`EXPIRED`] always lies in the past.
    now: u32,
    /// The moment of `now`.
    at: Instant,
    /// Dense, because it is scanned at every tick. Same length as `slots`.
    expiry: Vec<u32>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Kept for its capacity.
    woken: Vec<Waker>,
    /// [`expire_idle`] was called.
    drains: bool,
}

#[derive(Debug)]
struct Slot {
    waker: Option<Waker>,
    /// The tick from which on its wait may end early.
    idle_from: u32,
    nudged: bool,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            waker: None,
            idle_from: NEVER,
            nudged: false,
        }
    }
}

impl Clock {
    fn new() -> Self {
        Self {
            now: 1,
            at: Instant::now(),
            expiry: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            woken: Vec::new(),
            drains: false,
        }
    }

    fn claim(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.expiry.push(NEVER);
            self.slots.push(Slot::default());
            self.slots.len() - 1
        })
    }

    fn release(&mut self, slot: usize) {
        self.expiry[slot] = NEVER;
        self.slots[slot] = Slot::default();
        self.free.push(slot);
    }

    fn advance(&mut self, to: Instant) {
        let since = to.saturating_duration_since(self.at);
        if since > MOST_AT_ONCE {
            self.at = to - MOST_AT_ONCE;
        }
        let since = since.min(MOST_AT_ONCE);
        let ticks = u32::try_from(since.as_nanos() / u128::from(TICK_NANOS)).unwrap_or(0);
        self.now = self.now.saturating_add(ticks).min(NEVER - 1);
        self.at += TICK * ticks;
    }

    /// The clock may lag by a tick and the wait must not be cut short, hence
    /// the rounding up and the tick on top.
    fn tick_after(&self, after: Duration) -> u32 {
        // In 64 bits: what `as_millis` yields takes four times as long.
        let part = u64::from(after.subsec_nanos()).div_ceil(TICK_NANOS);
        let ticks = after.as_secs().saturating_mul(TICKS_PER_SECOND);
        let at = ticks.saturating_add(part + 1 + u64::from(self.now));
        u32::try_from(at).map_or(NEVER - 1, |at| at.min(NEVER - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_operation_that_is_ready_wins_over_a_deadline_that_has_passed() {
        let deadline = Deadline::new();
        deadline.arm(Duration::ZERO);
        std::thread::sleep(2 * TICK);
        tick();
        assert_eq!(poll_once(deadline.run(ready(5))), Poll::Ready(Ok(5)));
        assert_eq!(
            poll_once(deadline.run(pending::<()>())),
            Poll::Ready(Err(Elapsed))
        );
    }

    #[test]
    fn no_wait_is_cut_short_and_none_is_for_ever() {
        let clock = Clock::new();
        for (after, ticks) in [(0, 1), (1, 2), (100, 2), (101, 3), (1000, 11), (1001, 12)] {
            let at = clock.tick_after(Duration::from_millis(after));
            assert_eq!(at, clock.now + ticks, "{after} ms");
        }
        assert_eq!(clock.tick_after(Duration::MAX), NEVER - 1);
    }

    #[test]
    fn the_clock_goes_by_the_time_that_the_worker_runs() {
        let mut clock = Clock::new();
        let (begin, mut at) = (clock.now, clock.at);
        for (step, ticks) in [
            (99, 0),
            (1, 1),
            (250, 3),
            (50, 4),
            (1000, 14),
            // Stopped for an hour.
            (3_600_000, 24),
            (100, 25),
            (150, 26),
            (50, 27),
        ] {
            at += Duration::from_millis(step);
            clock.advance(at);
            assert_eq!(clock.now - begin, ticks, "after {step} ms");
        }
        // As in no kernel: it stands until the time is there again.
        clock.advance(at - Duration::from_secs(5));
        assert_eq!(clock.now - begin, 27);
        clock.advance(at + TICK);
        assert_eq!(clock.now - begin, 28);
    }

    #[test]
    fn draining_ends_idle_waits_only() {
        let (idle, busy) = (Deadline::new(), Deadline::new());
        idle.arm_idle(Duration::from_secs(60), Duration::ZERO);
        busy.arm(Duration::from_secs(60));
        assert!(poll_once(idle.run(pending::<()>())).is_pending());
        expire_idle();
        assert_eq!(
            poll_once(idle.run(pending::<()>())),
            Poll::Ready(Err(Elapsed))
        );
        assert!(poll_once(busy.run(pending::<()>())).is_pending());
    }

    #[test]
    fn draining_leaves_an_idle_wait_the_time_that_it_was_promised() {
        let deadline = Deadline::new();
        deadline.arm_idle(Duration::from_secs(60), 2 * TICK);
        assert!(poll_once(deadline.run(pending::<()>())).is_pending());
        expire_idle();
        assert!(poll_once(deadline.run(pending::<()>())).is_pending());
        std::thread::sleep(4 * TICK);
        tick();
        assert_eq!(
            poll_once(deadline.run(pending::<()>())),
            Poll::Ready(Err(Elapsed))
        );
    }

    #[test]
    fn a_nudge_is_heard_by_the_wait_that_listens_and_kept_until_then() {
        let deadline = Deadline::new();
        deadline.arm(Duration::from_secs(60));
        nudge(0, usize::MAX);
        assert!(poll_once(deadline.run(pending::<()>())).is_pending());
        let mut asked = 0;
        let mut stay = || {
            asked += 1;
            true
        };
        assert!(poll_once(deadline.run_while(pending::<()>(), Some(&mut stay))).is_pending());
        assert!(poll_once(deadline.run_while(pending::<()>(), Some(&mut stay))).is_pending());
        assert_eq!(asked, 1);
        nudge(0, usize::MAX);
        let mut leave = || false;
        let ready = deadline.run_while(ready(5), Some(&mut leave));
        assert_eq!(poll_once(ready), Poll::Ready(Ok(5)));
        let ended = deadline.run_while(pending::<()>(), Some(&mut leave));
        assert_eq!(poll_once(ended), Poll::Ready(Err(Elapsed)));
    }

    #[test]
    fn a_released_slot_does_not_carry_its_past_into_the_next_use() {
        let first = Deadline::new();
        first.arm_idle(Duration::ZERO, Duration::ZERO);
        drop(first);
        let second = Deadline::new();
        expire_idle();
        assert!(poll_once(second.run(pending::<()>())).is_pending());
    }
}
