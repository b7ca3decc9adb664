//! `queue`: requests that no peer can take now wait for one, in order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::config::UpstreamQueue;
use crate::net::deadlines::Deadline;
use crate::net::now::now;

/// How often the first in the queue looks by itself: nobody tells when another
/// worker's request ends (`zone`), or a peer that failed may be tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Those who wait for a peer of one group.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: UpstreamQueue,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    is_called: Cell<bool>,
}

/// Why nobody was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotServed {
    Full,
    TimedOut,
}

impl Queue {
    pub(super) fn new(limits: UpstreamQueue) -> Self {
        Self {
            limits,
            waiting: RefCell::default(),
        }
    }

    /// Whether somebody waits, behind whom others have to wait too.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// A peer may be free: the first looks.
    pub(super) fn call(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.is_called.set(true);
            if let Some(waker) = first.waker.take() {
                waker.wake();
            }
        }
    }

    /// Waits until it is this one's turn and `choose` finds somebody.
    ///
    /// # Errors
    /// See [`NotServed`]. Cancelling it gives the place up.
    pub(crate) async fn wait<T>(
        &self,
        mut choose: impl FnMut() -> Option<T>,
    ) -> Result<T, NotServed> {
        if self.waiting.borrow().len() >= self.limits.length {
            return Err(NotServed::Full);
        }
        let place = Place::take(self);
        let (deadline, began) = (Deadline::new(), now());
        loop {
            let is_first = place.is_first();
            if is_first && let Some(found) = choose() {
                return Ok(found);
            }
            let left = self
                .limits
                .timeout
                .saturating_sub(now().duration_since(began));
            if left.is_zero() {
                return Err(NotServed::TimedOut);
            }
            deadline.arm(if is_first { left.min(LOOK_AGAIN) } else { left });
            // Either way the loop looks what has changed.
            let _ = deadline.run(place.called()).await;
        }
    }
}

/// One's place in the queue; dropping it lets the next one look.
struct Place<'q> {
    queue: &'q Queue,
    waiter: Rc<Waiter>,
}

impl<'q> Place<'q> {
    fn take(queue: &'q Queue) -> Self {
        let waiter = Rc::<Waiter>::default();
        queue.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        Self { queue, waiter }
    }

    fn is_first(&self) -> bool {
        let waiting = self.queue.waiting.borrow();
        waiting
            .front()
            .is_some_and(|first| Rc::ptr_eq(first, &self.waiter))
    }

    async fn called(&self) {
        poll_fn(|context| {
            if self.waiter.is_called.take() {
                return Poll::Ready(());
            }
            *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let is_own = |other: &Rc<Waiter>| Rc::ptr_eq(other, &self.waiter);
        self.queue
            .waiting
            .borrow_mut()
            .retain(|other| !is_own(other));
        self.queue.call();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::Context;

    use super::*;

    fn poll<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        let mut context = Context::from_waker(Waker::noop());
        future.as_mut().poll(&mut context)
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_no_more_than_fit() {
        let queue = Queue::new(UpstreamQueue {
            length: 2,
            timeout: Duration::from_secs(60),
        });
        let free = Cell::new(0);
        let choose = || (free.get() > 0).then(|| free.set(free.get() - 1));
        let mut first = Box::pin(queue.wait(choose));
        let mut second = pin!(queue.wait(choose));
        assert!(poll(&mut first.as_mut()).is_pending());
        assert!(poll(&mut second).is_pending());
        let mut third = pin!(queue.wait(choose));
        assert_eq!(poll(&mut third), Poll::Ready(Err(NotServed::Full)));
        free.set(1);
        queue.call();
        assert!(poll(&mut second).is_pending(), "it is not its turn");
        // Whoever gives up while called lets the next one look.
        drop(first);
        assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
        assert!(queue.is_empty());
    }

    #[test]
    fn waiting_ends_with_its_time() {
        let queue = Queue::new(UpstreamQueue {
            length: 1,
            timeout: Duration::ZERO,
        });
        let mut waiting = pin!(queue.wait(|| None::<()>));
        assert_eq!(poll(&mut waiting), Poll::Ready(Err(NotServed::TimedOut)));
        assert!(queue.is_empty());
    }
}
