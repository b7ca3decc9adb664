//! Waiting on purpose, for as long as anybody waits for the answer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::net::spawn::sleep;
use crate::telemetry::error_log::Level;

use super::exchange::BodySource;
use super::forward::Failure;
use super::log;
use super::request::Request;

/// Lets the time pass; ends early when the client goes away.
///
/// # Errors
/// The client is gone.
///
/// Cancelling it does nothing else.
pub(super) async fn wait(
    request: &Request<'_>,
    time: Duration,
    body: &mut impl BodySource,
) -> Result<(), Failure> {
    while_awaited(sleep(time), body)
        .await
        .ok_or_else(|| gone(request))
}

/// Drives an operation to its end; drops it, with `None`, when the client goes
/// away.
pub(super) async fn while_awaited<T>(
    operation: impl Future<Output = T>,
    body: &mut impl BodySource,
) -> Option<T> {
    let mut operation = pin!(operation);
    let mut abandoned = pin!(body.abandoned());
    poll_fn(|context| match operation.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => abandoned.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// Tells the log that nobody waits for the answer any more.
pub(super) fn gone(request: &Request<'_>) -> Failure {
    log::request_error(
        request,
        Level::Info,
        format_args!("client prematurely closed connection"),
    );
    Failure::Aborted
}
