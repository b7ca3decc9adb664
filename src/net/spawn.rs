//! Tasks that cannot take their worker down.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::now;

/// Runs `task` on this worker until it ends. A panic in it ends only it:
/// `on_panic` gets the message.
pub fn spawn<F, P>(task: F, on_panic: P)
where
    F: Future<Output = ()> + 'static,
    P: FnOnce(&str) + 'static,
{
    monoio::spawn(Contained {
        task,
        on_panic: Some(on_panic),
    });
}

/// Sleeps on the worker's own timer.
pub async fn sleep(duration: std::time::Duration) {
    monoio::time::sleep(duration).await;
    now::refresh();
}

pin_project_lite::pin_project! {
    // A type of its own, because an `async` block would hold the task twice:
    // as what it captured and as what it pins.
    struct Contained<F, P> {
        #[pin]
        task: F,
        on_panic: Option<P>,
    }
}

impl<F: Future<Output = ()>, P: FnOnce(&str)> Future for Contained<F, P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Unwind safety: after a panic the task is not polled again but
        // dropped with everything it owns; what it shares with others is
        // behind RefCells, which release when unwinding.
        match catch_unwind(AssertUnwindSafe(|| this.task.poll(context))) {
            Ok(poll) => poll,
            Err(panic) => {
                if let Some(on_panic) = this.on_panic.take() {
                    on_panic(message(&*panic));
                }
                Poll::Ready(())
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Waker;

    #[test]
    fn a_panic_ends_its_task_and_is_reported_once() {
        let said = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&said);
        let mut task = pin!(Contained {
            task: async { panic!("number {}", 7) },
            on_panic: Some(move |text: &str| heard.borrow_mut().push(text.to_owned())),
        });
        let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(()));
        assert_eq!(*said.borrow(), ["number 7"]);
    }
}
