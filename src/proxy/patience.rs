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
    let mut over = pin!(sleep(time));
    let mut gone = pin!(body.abandoned());
    let is_over = poll_fn(|context| match over.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => gone.as_mut().poll(context).map(|()| false),
    });
    if is_over.await {
        return Ok(());
    }
    log::request_error(
        request,
        Level::Info,
        format_args!("client prematurely closed connection"),
    );
    Err(Failure::Aborted)
}
