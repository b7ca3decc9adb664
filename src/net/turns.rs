//! How much of a turn of the worker's loop bulk may take.
//!
//! In a turn whatever has something to do runs once, so a small request waits
//! for all bulk that is ready: with hundreds of transfers that is many
//! milliseconds. Only so many rows of receptions begin in a turn therefore;
//! who comes too late draws a number and is called in order, some in each turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::spawn::{sleep, spawn};

/// Rows of bulk that begin in a turn: four of them, of four times 64 KiB, take
/// half a millisecond, or two with TLS.
const ROWS: u32 = 4;
/// A turn ends with the next wait of anybody; if all who had one have stopped,
/// it ends by itself after this.
const LONGEST: Duration = Duration::from_millis(1);

thread_local! {
    static TURN: Turn = const { Turn::new() };
}

/// All numbers wrap.
struct Turn {
    /// How many turns there have been, as far as it is known.
    number: Cell<u32>,
    /// Rows that have begun in the present one.
    begun: Cell<u32>,
    /// The last number drawn.
    drawn: Cell<u32>,
    /// The last number called.
    called: Cell<u32>,
    /// Those who wait to be called, in the order of their numbers.
    waiting: RefCell<VecDeque<(Ticket, Waker)>>,
    /// Whether somebody sees to it that turns end.
    is_watched: Cell<bool>,
}

/// A place in the order of those who wait to receive bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u32);

impl Turn {
    const fn new() -> Self {
        Self {
            number: Cell::new(0),
            begun: Cell::new(0),
            drawn: Cell::new(0),
            called: Cell::new(0),
            waiting: RefCell::new(VecDeque::new()),
            is_watched: Cell::new(false),
        }
    }

    /// Not among those between the last called and the last drawn.
    fn is_called(&self, Ticket(number): Ticket) -> bool {
        let drawn = self.drawn.get();
        drawn.wrapping_sub(number) >= drawn.wrapping_sub(self.called.get())
    }

    /// Whoever waited since before the present turn waited past its end, so this
    /// is another one.
    fn waited_since(&self, before: u32) {
        if self.number.get() != before {
            return;
        }
        self.number.set(before.wrapping_add(1));
        self.begun.set(0);
        let waiting = self.drawn.get().wrapping_sub(self.called.get());
        self.called
            .set(self.called.get().wrapping_add(waiting.min(ROWS)));
        let mut waiting = self.waiting.borrow_mut();
        while let Some((_, waker)) = waiting.pop_front_if(|(ticket, _)| self.is_called(*ticket)) {
            waker.wake();
        }
    }

    fn wait(&self, ticket: Ticket, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().rfind(|(other, _)| *other == ticket) {
            Some((_, known)) => known.clone_from(waker),
            None => waiting.push_back((ticket, waker.clone())),
        }
    }

    fn may_begin(&self, ticket: &mut Option<Ticket>) -> bool {
        let (drawn, called) = (self.drawn.get(), self.called.get());
        match *ticket {
            Some(ticket) if !self.is_called(ticket) => return false,
            None if drawn != called || self.begun.get() >= ROWS => {
                let number = drawn.wrapping_add(1);
                self.drawn.set(number);
                *ticket = Some(Ticket(number));
                return false;
            }
            Some(_) | None => {}
        }
        *ticket = None;
        self.begun.set(self.begun.get() + 1);
        true
    }
}

/// The present turn, for [`waited_since`].
pub(super) fn present() -> u32 {
    TURN.with(|turn| turn.number.get())
}

/// A wait of the driver is over that began in the turn `before`.
pub(super) fn waited_since(before: u32) {
    TURN.with(|turn| turn.waited_since(before));
}

/// Whether a row of receptions of bulk may begin. If not, it is to be asked
/// again once the ticket that this draws is [`called`].
pub(super) fn may_begin(ticket: &mut Option<Ticket>) -> bool {
    TURN.with(|turn| turn.may_begin(ticket))
}

/// Waits until this one is called. Dropping the future lets the others go first.
pub(super) async fn called(ticket: Ticket) {
    if !TURN.with(|turn| turn.is_watched.replace(true)) {
        spawn(watch(), |_| {});
    }
    poll_fn(|context| {
        TURN.with(|turn| {
            if turn.is_called(ticket) {
                return Poll::Ready(());
            }
            turn.wait(ticket, context.waker());
            Poll::Pending
        })
    })
    .await;
}

/// Ends turns as long as anybody waits for another one.
async fn watch() {
    while TURN.with(|turn| turn.drawn != turn.called) {
        let before = present();
        sleep(LONGEST).await;
        waited_since(before);
    }
    TURN.with(|turn| turn.is_watched.set(false));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transfers that are always ready, and which of them each turn lets begin.
    fn turns(turn: &Turn, transfers: &mut [Option<Ticket>], count: usize) -> Vec<Vec<usize>> {
        let one = |_| {
            turn.waited_since(turn.number.get());
            let begins = |(index, ticket): (usize, &mut Option<Ticket>)| {
                turn.may_begin(ticket).then_some(index)
            };
            transfers
                .iter_mut()
                .enumerate()
                .filter_map(begins)
                .collect()
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn few_transfers_begin_in_every_turn() {
        let mut transfers = [None; ROWS as usize];
        let all: Vec<usize> = (0..transfers.len()).collect();
        assert!(
            turns(&Turn::new(), &mut transfers, 5)
                .iter()
                .all(|begun| *begun == all)
        );
    }

    #[test]
    fn of_many_transfers_a_few_begin_in_a_turn_and_all_in_turn() {
        let mut transfers = [None; 11];
        let turn = Turn::new();
        turn.drawn.set(u32::MAX - 5);
        turn.called.set(u32::MAX - 5);
        let begun = turns(&turn, &mut transfers, 40);
        assert!(begun.iter().all(|begun| begun.len() <= ROWS as usize));
        for transfer in 0..transfers.len() {
            let begins = |turns: &[Vec<usize>]| turns.iter().flatten().any(|&it| it == transfer);
            assert!(begun.windows(3).all(begins), "{transfer}: {begun:?}");
        }
    }

    #[test]
    fn who_gives_up_waiting_holds_nobody_up() {
        let turn = Turn::new();
        let mut gone = [None; 50];
        turns(&turn, &mut gone, 1);
        let mut later = [None; 2];
        assert!(
            turns(&turn, &mut later, 20)
                .iter()
                .any(|begun| *begun == [0, 1])
        );
    }

    #[test]
    fn a_turn_ends_once_however_many_have_waited() {
        let turn = Turn::new();
        let before = turn.number.get();
        turn.waited_since(before);
        turn.waited_since(before);
        assert_eq!(turn.number.get(), before.wrapping_add(1));
    }
}
