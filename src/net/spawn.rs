//! Tasks that cannot take their worker down.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Runs `task` on this worker until it ends. A panic in it ends only it:
/// `on_panic` gets the message.
pub fn spawn<F>(task: F, on_panic: impl FnOnce(&str) + 'static)
where
    F: Future<Output = ()> + 'static,
{
    monoio::spawn(async move {
        if let Err(panic) = contained(task).await {
            let message = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            on_panic(message);
        }
    });
}

/// Sleeps on the worker's own timer.
pub async fn sleep(duration: std::time::Duration) {
    monoio::time::sleep(duration).await;
}

async fn contained<F: Future>(task: F) -> std::thread::Result<F::Output> {
    let mut task = pin!(task);
    // Unwind safety: the task is dropped with everything it owns; what it
    // shares with others is behind RefCells that release when unwinding.
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}
