//! Results that another thread hands to a task of this worker.
//!
//! What blocks (hashing, files) is done on other threads, and their tasks wait
//! here. A worker's runtime wakes its tasks only from its own thread, so the
//! other side writes a byte to a socket that the worker reads; which of the
//! tasks that concerns stands in a list. A worker that never waits for another
//! thread has neither socket nor list.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::buffers::{Buffer, Class};
use super::socket::Socket;
use super::spawn::spawn;

thread_local! {
    static INBOX: RefCell<Option<Inbox>> = const { RefCell::new(None) };
}

/// Makes the two ends for one result.
///
/// # Errors
/// When the worker has no descriptor left for its first one.
pub fn handoff<T: Send>() -> io::Result<(Giver<T>, Taker<T>)> {
    let (id, bell) = INBOX.with_borrow_mut(|inbox| {
        let inbox = match inbox {
            Some(inbox) => inbox,
            None => inbox.insert(Inbox::open()?),
        };
        inbox.last_id += 1;
        io::Result::Ok((inbox.last_id, Arc::clone(&inbox.bell)))
    })?;
    let slot = Arc::new(Mutex::new(Slot::Empty));
    let giver = Giver {
        slot: Arc::clone(&slot),
        id,
        bell,
    };
    Ok((giver, Taker { slot, id }))
}

/// The other thread's end. Dropped unused it tells the waiting task so.
pub struct Giver<T> {
    slot: Arc<Mutex<Slot<T>>>,
    id: u64,
    bell: Arc<Bell>,
}

/// The worker's end: a future of the result, `None` if the other thread gave
/// none. Dropping it drops the result.
#[must_use]
pub struct Taker<T> {
    slot: Arc<Mutex<Slot<T>>>,
    id: u64,
}

enum Slot<T> {
    Empty,
    Full(T),
    Abandoned,
}

impl<T> Giver<T> {
    /// Hands the result over.
    pub fn give(self, value: T) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Full(value);
        // Dropping rings the bell.
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Slot::Empty) {
            *slot = Slot::Abandoned;
        }
        drop(slot);
        self.bell.ring(self.id);
    }
}

impl<T> Future for Taker<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Abandoned) {
            Slot::Full(value) => return Poll::Ready(Some(value)),
            Slot::Abandoned => return Poll::Ready(None),
            Slot::Empty => *slot = Slot::Empty,
        }
        // The bell wakes from this thread alone, so not before this returns.
        INBOX.with_borrow_mut(|inbox| {
            if let Some(inbox) = inbox {
                inbox.waiting.insert(self.id, context.waker().clone());
            }
        });
        Poll::Pending
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        let _ = INBOX.try_with(|inbox| {
            if let Some(inbox) = &mut *inbox.borrow_mut() {
                inbox.waiting.remove(&self.id);
            }
        });
    }
}

/// A worker's side of all its takers.
struct Inbox {
    bell: Arc<Bell>,
    last_id: u64,
    waiting: HashMap<u64, Waker>,
}

/// What the other threads share with it.
struct Bell {
    rung: Mutex<Vec<u64>>,
    wire: UnixStream,
}

impl Bell {
    fn ring(&self, id: u64) {
        self.rung
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
        // Fails when the worker has ended, or when it has that much unread
        // that it will wake in any case.
        let _ = (&self.wire).write(b"!");
    }

    fn answered(&self) -> Vec<u64> {
        std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inbox {
    fn open() -> io::Result<Self> {
        let (wire, own) = UnixStream::pair()?;
        wire.set_nonblocking(true)?;
        // A ring waits for data where the socket itself does not refuse to.
        own.set_nonblocking(monoio::utils::is_legacy())?;
        let own = Socket::adopt(own)?;
        let bell = Arc::new(Bell {
            rung: Mutex::default(),
            wire,
        });
        spawn(listen(own, Arc::clone(&bell)), |_| {});
        Ok(Self {
            bell,
            last_id: 0,
            waiting: HashMap::new(),
        })
    }
}

/// Wakes whom the bell concerns, for as long as the worker lives.
async fn listen(mut own: Socket, bell: Arc<Bell>) {
    let mut buffer = Buffer::take(Class::Small);
    loop {
        let range = 0..buffer.len();
        let (received, back) = own.receiver.receive(buffer, range).await;
        if !matches!(received, Ok(1..)) {
            return;
        }
        buffer = back;
        let woken = INBOX.with_borrow_mut(|inbox| {
            let waiting = inbox.as_mut().map(|inbox| &mut inbox.waiting);
            let answered = bell.answered();
            waiting.map_or(Vec::new(), |waiting| {
                answered
                    .iter()
                    .filter_map(|id| waiting.remove(id))
                    .collect()
            })
        });
        // Outside the borrow: a waker may run code that drops a taker.
        woken.into_iter().for_each(Waker::wake);
    }
}

impl<T> fmt::Debug for Giver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Giver").field("id", &self.id).finish()
    }
}

impl<T> fmt::Debug for Taker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taker").field("id", &self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn on_a_worker<F: Future<Output = ()>>(test: F) {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()
            .unwrap()
            .block_on(test);
    }

    #[test]
    fn a_result_wakes_the_task_that_waits_for_it() {
        on_a_worker(async {
            let takers: Vec<_> = (0..50)
                .map(|number| {
                    let (giver, taker) = handoff().unwrap();
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(number % 7));
                        giver.give(number);
                    });
                    taker
                })
                .collect();
            for (number, taker) in takers.into_iter().enumerate() {
                assert_eq!(taker.await, Some(number as u64));
            }
        });
    }

    #[test]
    fn a_thread_that_gives_nothing_is_not_waited_for() {
        on_a_worker(async {
            let (giver, taker) = handoff::<u8>().unwrap();
            std::thread::spawn(move || drop(giver));
            assert_eq!(taker.await, None);
            // And a result that nobody waits for any more is dropped.
            let (giver, taker) = handoff().unwrap();
            drop(taker);
            giver.give(Box::new(1));
        });
    }
}
