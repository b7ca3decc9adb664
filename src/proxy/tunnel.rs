//! What follows a 101 (RFC 9110 §7.8): bytes of another protocol, WebSocket's
//! for one, both ways until both sides have ended theirs.
//!
//! Each direction reads only when what it read before has been sent on, so
//! whoever reads slowly slows the other end and not the proxy. While nothing
//! moves a tunnel holds the two smallest buffers there are.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::net::buffers::Class;
use crate::net::deadlines::Deadline;
use crate::net::socket::Behind;

use super::exchange::{BodyError, BodySource, ResponseSink};
use super::transport::{Rx, TransportError, Tx};

/// Why a tunnel was broken off.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// The client's bytes no longer come.
    FromClient(BodyError),
    /// The client takes no more.
    ToClient(TransportError),
    /// The backend's bytes no longer come, or nothing has moved either way for
    /// as long as it may.
    FromUpstream(TransportError),
    /// The backend takes no more.
    ToUpstream(TransportError),
}

impl TunnelError {
    /// Whether it was the client who did not keep up.
    pub(super) fn is_clients(&self) -> bool {
        matches!(self, Self::FromClient(_) | Self::ToClient(_))
    }
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromClient(error) => error.fmt(f),
            Self::ToClient(TransportError::TimedOut) => {
                f.write_str("client timed out (110: Connection timed out)")
            }
            Self::FromUpstream(TransportError::TimedOut)
            | Self::ToUpstream(TransportError::TimedOut) => {
                f.write_str("upstream timed out (110: Connection timed out)")
            }
            Self::FromUpstream(error) => write!(f, "recv() {error}"),
            Self::ToUpstream(error) | Self::ToClient(error) => write!(f, "send() {error}"),
        }
    }
}

/// The time limits of a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Without a byte in either direction, as Nginx has it.
    pub(super) idle: Duration,
    /// For the backend to take what is sent to it.
    pub(super) send: Duration,
}

/// Carries bytes both ways until both sides have ended theirs. Either side may
/// go on after the other has ended.
///
/// # Errors
/// See [`TunnelError`]. Cancelling it breaks the tunnel off.
pub(super) async fn tunnel<B: BodySource, S: ResponseSink>(
    client: (&mut B, &mut S),
    upstream: (&mut Rx<'_>, &mut Tx<'_>),
    limits: Limits,
) -> Result<(), TunnelError> {
    let (source, sink) = client;
    let (rx, tx) = upstream;
    let idle = Deadline::new();
    idle.arm(limits.idle);
    let up = upwards(source, tx, limits, &idle);
    let down = downwards(rx, sink, limits, &idle);
    idle.run(both(pin!(up), pin!(down)))
        .await
        .unwrap_or(Err(TunnelError::FromUpstream(TransportError::TimedOut)))
}

async fn upwards<B: BodySource>(
    source: &mut B,
    tx: &mut Tx<'_>,
    limits: Limits,
    idle: &Deadline,
) -> Result<(), TunnelError> {
    while let Some(piece) = source.next().await.map_err(TunnelError::FromClient)? {
        idle.arm(limits.idle);
        let sent = tx.send_piece(piece, Behind::Nothing, limits.send).await;
        source.give_back(sent.map_err(TunnelError::ToUpstream)?);
        idle.arm(limits.idle);
    }
    tx.finish(limits.send)
        .await
        .map_err(TunnelError::ToUpstream)
}

async fn downwards<S: ResponseSink>(
    rx: &mut Rx<'_>,
    sink: &mut S,
    limits: Limits,
    idle: &Deadline,
) -> Result<(), TunnelError> {
    let mut want = Class::Small;
    loop {
        let data = rx.input.plain();
        let length = data.len();
        sink.write(data).await.map_err(TunnelError::ToClient)?;
        rx.input.consume(length);
        sink.flush().await.map_err(TunnelError::ToClient)?;
        idle.arm(limits.idle);
        // Only the tunnel's own limit holds for the wait.
        match rx.fill(want, Duration::MAX).await {
            Ok(0) => break,
            Ok(read) => want = wanted_after(read),
            Err(error) => return Err(TunnelError::FromUpstream(error)),
        }
        idle.arm(limits.idle);
    }
    sink.end_sending().await.map_err(TunnelError::ToClient)
}

/// What to wait with, after so many bytes came at once: a tunnel that is busy
/// gets larger buffers, an idle one holds the smallest.
pub(super) fn wanted_after(read: usize) -> Class {
    if read < Class::Small.size() {
        Class::Small
    } else if read < Class::Medium.size() {
        Class::Medium
    } else {
        Class::Large
    }
}

/// Drives two operations until both are done or one has failed.
async fn both<E>(
    mut one: Pin<&mut impl Future<Output = Result<(), E>>>,
    mut other: Pin<&mut impl Future<Output = Result<(), E>>>,
) -> Result<(), E> {
    let (mut one_done, mut other_done) = (false, false);
    poll_fn(|context| {
        if !one_done && let Poll::Ready(result) = one.as_mut().poll(context) {
            result?;
            one_done = true;
        }
        if !other_done && let Poll::Ready(result) = other.as_mut().poll(context) {
            result?;
            other_done = true;
        }
        if one_done && other_done {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    fn poll_both(
        one: impl Future<Output = Result<(), u8>>,
        other: impl Future<Output = Result<(), u8>>,
    ) -> Poll<Result<(), u8>> {
        let (one, other) = (pin!(one), pin!(other));
        pin!(both(one, other)).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_direction_may_end_before_the_other_but_not_fail() {
        assert_eq!(poll_both(ready(Ok(())), ready(Ok(()))), Poll::Ready(Ok(())));
        assert!(poll_both(ready(Ok(())), pending()).is_pending());
        assert_eq!(poll_both(pending(), ready(Err(7))), Poll::Ready(Err(7)));
    }

    #[test]
    fn a_busy_tunnel_reads_more_at_a_time() {
        assert_eq!(wanted_after(1), Class::Small);
        assert_eq!(wanted_after(Class::Small.size()), Class::Medium);
        assert_eq!(wanted_after(Class::Medium.size()), Class::Large);
    }
}
