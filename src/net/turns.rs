//! How much of a turn of the worker's loop bulk and handshakes may take.
//!
//! In a turn whatever has something to do runs once, so a small request waits
//! for all bulk and for all handshakes that are ready: with hundreds of either
//! that is many milliseconds. Only so many rows of receptions and so many steps
//! of handshakes begin in a turn therefore; who comes too late draws a number
//! and is called in order, some in each turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::socket::Socket;
use super::spawn::{sleep, spawn};

/// Rows of bulk that begin in a turn: four of them, of four times 64 KiB, take
/// half a millisecond, or two with TLS.
const ROWS: u32 = 4;
/// Steps of handshakes that begin in a turn: each has a signature to make or to
/// verify, and as many take a millisecond. A handshake has two, and four
/// connections of a listener are accepted in a turn, so in a flood connections
/// wait in the kernel's queue and do not pile up here.
const STEPS: u32 = 8;
/// A turn ends with the next wait of anybody; if all who had one have stopped,
/// it ends by itself after this.
const LONGEST: Duration = Duration::from_millis(1);

thread_local! {
    static TURNS: Turns = const { Turns::new() };
}

/// All numbers wrap.
struct Turns {
    /// How many turns there have been, as far as it is known.
    number: Cell<u32>,
    bulk: Line,
    handshakes: Line,
    /// Whether somebody sees to it that turns end.
    is_watched: Cell<bool>,
}

/// Those who want the same share of a turn.
struct Line {
    /// How many may begin in a turn.
    share: u32,
    /// How many have begun in the present one.
    begun: Cell<u32>,
    /// The last number drawn.
    drawn: Cell<u32>,
    /// The last number called.
    called: Cell<u32>,
    /// Those who wait to be called, in the order of their numbers.
    waiting: RefCell<VecDeque<(Ticket, Waker)>>,
}

/// A place in the order of those who wait for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u32);

impl Turns {
    const fn new() -> Self {
        Self {
            number: Cell::new(0),
            bulk: Line::new(ROWS),
            handshakes: Line::new(STEPS),
            is_watched: Cell::new(false),
        }
    }

    /// Whoever waited since before the present turn waited past its end, so this
    /// is another one.
    fn waited_since(&self, before: u32) {
        if self.number.get() == before {
            self.number.set(before.wrapping_add(1));
            self.bulk.call();
            self.handshakes.call();
        }
    }

    fn is_waited_for(&self) -> bool {
        self.bulk.is_waiting() || self.handshakes.is_waiting()
    }
}

impl Line {
    const fn new(share: u32) -> Self {
        Self {
            share,
            begun: Cell::new(0),
            drawn: Cell::new(0),
            called: Cell::new(0),
            waiting: RefCell::new(VecDeque::new()),
        }
    }

    fn is_waiting(&self) -> bool {
        self.drawn != self.called
    }

    /// Not among those between the last called and the last drawn.
    fn is_called(&self, Ticket(number): Ticket) -> bool {
        let drawn = self.drawn.get();
        drawn.wrapping_sub(number) >= drawn.wrapping_sub(self.called.get())
    }

    /// In a new turn: the next ones may begin.
    fn call(&self) {
        self.begun.set(0);
        let waiting = self.drawn.get().wrapping_sub(self.called.get());
        self.called
            .set(self.called.get().wrapping_add(waiting.min(self.share)));
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
        match *ticket {
            Some(ticket) if !self.is_called(ticket) => return false,
            None if self.is_waiting() || self.begun.get() >= self.share => {
                let number = self.drawn.get().wrapping_add(1);
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
    TURNS.with(|turns| turns.number.get())
}

/// A wait of the driver is over that began in the turn `before`.
pub(super) fn waited_since(before: u32) {
    TURNS.with(|turns| turns.waited_since(before));
}

/// Whether a row of receptions of bulk may begin. If not, it is to be asked
/// again once the ticket that this draws is [`called`].
pub(super) fn may_begin(ticket: &mut Option<Ticket>) -> bool {
    TURNS.with(|turns| turns.bulk.may_begin(ticket))
}

/// Waits until this row of bulk is called. Dropping the future lets the others
/// go first.
pub(super) async fn called(ticket: Ticket) {
    called_in(|turns| &turns.bulk, ticket).await;
}

/// Waits until a step of a handshake may be made. Dropping the future lets the
/// others go first.
pub async fn handshake_step() {
    let mut ticket = None;
    while !TURNS.with(|turns| turns.handshakes.may_begin(&mut ticket)) {
        if let Some(ticket) = ticket {
            called_in(|turns| &turns.handshakes, ticket).await;
        }
    }
}

async fn called_in(line: fn(&Turns) -> &Line, ticket: Ticket) {
    if !TURNS.with(|turns| turns.is_watched.replace(true)) {
        spawn(watch(), |_| {});
    }
    poll_fn(|context| {
        TURNS.with(|turns| {
            let line = line(turns);
            if line.is_called(ticket) {
                return Poll::Ready(());
            }
            line.wait(ticket, context.waker());
            Poll::Pending
        })
    })
    .await;
}

/// Ends turns as long as anybody waits for another one. Bulk that has begun
/// nearly always waits for the driver soon, but of a burst of handshakes all may
/// stand in line, and the worker would sleep with work to do.
async fn watch() {
    let mut bell = None;
    while TURNS.with(Turns::is_waited_for) {
        let before = present();
        let hurries = TURNS.with(|turns| turns.handshakes.is_waiting());
        if !hurries || Bell::ring(&mut bell).await.is_err() {
            sleep(LONGEST).await;
        }
        waited_since(before);
    }
    TURNS.with(|turns| turns.is_watched.set(false));
}

/// A wait of the driver that is over as soon as the driver looks.
struct Bell {
    rope: UnixStream,
    own: Socket,
}

impl Bell {
    fn hang() -> io::Result<Self> {
        let (rope, own) = UnixStream::pair()?;
        // As other sockets are: a ring waits where they do not refuse to.
        own.set_nonblocking(monoio::utils::is_legacy())?;
        let own = Socket::adopt(own)?;
        Ok(Self { rope, own })
    }

    /// Hung when it is first rung.
    async fn ring(bell: &mut Option<Self>) -> io::Result<()> {
        let bell = match bell {
            Some(bell) => bell,
            None => bell.insert(Self::hang()?),
        };
        let receiver = &mut bell.own.receiver;
        {
            let mut wait = pin!(receiver.readable());
            // Where readiness is remembered, a wait that begins behind the byte
            // would end without a look.
            if poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_pending())).await {
                (&bell.rope).write_all(b"!")?;
                wait.await?;
            }
        }
        receiver.receive_at_once(&mut [0], 0).transpose()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    /// Transfers that are always ready, and which of them each turn lets begin.
    fn turns(turns: &Turns, transfers: &mut [Option<Ticket>], count: usize) -> Vec<Vec<usize>> {
        let one = |_| {
            turns.waited_since(turns.number.get());
            let begins = |(index, ticket): (usize, &mut Option<Ticket>)| {
                turns.bulk.may_begin(ticket).then_some(index)
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
            turns(&Turns::new(), &mut transfers, 5)
                .iter()
                .all(|begun| *begun == all)
        );
    }

    #[test]
    fn of_many_transfers_a_few_begin_in_a_turn_and_all_in_turn() {
        let mut transfers = [None; 11];
        let all = Turns::new();
        all.bulk.drawn.set(u32::MAX - 5);
        all.bulk.called.set(u32::MAX - 5);
        let begun = turns(&all, &mut transfers, 40);
        assert!(begun.iter().all(|begun| begun.len() <= ROWS as usize));
        for transfer in 0..transfers.len() {
            let begins = |turns: &[Vec<usize>]| turns.iter().flatten().any(|&it| it == transfer);
            assert!(begun.windows(3).all(begins), "{transfer}: {begun:?}");
        }
    }

    #[test]
    fn who_gives_up_waiting_holds_nobody_up() {
        let all = Turns::new();
        let mut gone = [None; 50];
        turns(&all, &mut gone, 1);
        let mut later = [None; 2];
        assert!(
            turns(&all, &mut later, 20)
                .iter()
                .any(|begun| *begun == [0, 1])
        );
    }

    #[test]
    fn handshakes_take_no_more_than_their_share_of_a_turn_from_established_connections() {
        const HANDSHAKES: u32 = 50;
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()
            .unwrap()
            .block_on(async {
                let steps = Rc::new(Cell::new(0));
                for _ in 0..HANDSHAKES {
                    let steps = Rc::clone(&steps);
                    let handshake = async move {
                        for _ in 0..2 {
                            handshake_step().await;
                            steps.set(steps.get() + 1);
                        }
                    };
                    spawn(handshake, |_| {});
                }
                // A connection that has something to do in every turn.
                let mut established = None;
                let mut most = 0;
                while steps.get() < 2 * HANDSHAKES {
                    let before = steps.get();
                    Bell::ring(&mut established).await.unwrap();
                    most = most.max(steps.get() - before);
                }
                // It may have come first in one turn and last in the next.
                assert!((1..=2 * STEPS).contains(&most), "{most}");
            });
    }

    #[test]
    fn a_turn_ends_once_however_many_have_waited() {
        let turns = Turns::new();
        let before = turns.number.get();
        turns.waited_since(before);
        turns.waited_since(before);
        assert_eq!(turns.number.get(), before.wrapping_add(1));
    }
}
