//! What moves a connection's bytes, at either end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::http::h2::connection::Broken;
use crate::net::buffers::Class;
use crate::proxy::transport::{Rx, TransportError, Tx};
use crate::proxy::tunnel::wanted_after;

use super::mux::Mux;

/// What one end of a connection does of its own accord.
pub(in crate::proxy) trait Side {
    /// Takes in what the peer has sent: how much of it.
    ///
    /// # Errors
    /// The connection must end.
    fn take_in(&mut self, input: &[u8]) -> Result<usize, Broken>;

    /// Whether it is time to end; at every turn.
    fn look_at_clock(&mut self, context: &Context<'_>) -> Option<Ended>;

    /// Waits for the clock, at the end of every turn.
    fn arm(&mut self, context: &Context<'_>);
}

/// How a connection ended.
pub(in crate::proxy) enum Ended {
    /// The peer has closed it.
    Closed,
    /// We told the peer that it is over.
    Left,
    /// The peer broke the protocol, and has been told so.
    Broken(Broken),
    /// The peer can no longer be read from or written to; and by what call, as
    /// Nginx names them.
    Failed(&'static str, TransportError),
}

/// Moves the connection's bytes until it is over, and then sends what is left.
///
/// Receiving, sending and whatever the clock has to say are polled by one task,
/// so that an operation in flight is never dropped to wait for something else:
/// no received byte is lost. Cancelling it breaks the connection off.
pub(in crate::proxy) async fn drive(
    side: &RefCell<impl Side>,
    mux: &Mux,
    rx: Rx<'_>,
    tx: Tx<'_>,
    send_timeout: Duration,
) -> Ended {
    let mut receiver = pin!(receive(rx, side, mux));
    let mut sender = pin!(send(tx, mux, send_timeout));
    let mut ended = None;
    poll_fn(|context| {
        mux.listen(context);
        loop {
            if ended.is_none() {
                ended = side.borrow_mut().look_at_clock(context);
            }
            if ended.is_none()
                && let Poll::Ready(end) = receiver.as_mut().poll(context)
            {
                ended = Some(end);
            }
            if ended.is_none() && mux.is_done() {
                ended = Some(Ended::Left);
            }
            let was_choked = mux.is_choked();
            if let Poll::Ready(error) = sender.as_mut().poll(context) {
                // Unless something else came first.
                return Poll::Ready(ended.take().unwrap_or(Ended::Failed("send()", error)));
            }
            if ended.is_some() && mux.is_flushed() {
                return ended.take().map_or(Poll::Pending, Poll::Ready);
            }
            // Sending may have made room for what waits to be received.
            if !was_choked || mux.is_choked() {
                break;
            }
        }
        if ended.is_none() {
            side.borrow_mut().arm(context);
        }
        Poll::Pending
    })
    .await
}

async fn receive(mut rx: Rx<'_>, side: &RefCell<impl Side>, mux: &Mux) -> Ended {
    let mut want = Class::Small;
    loop {
        // There may be some already: what came with the handshake.
        if !rx.input.plain().is_empty() {
            let taken = side.borrow_mut().take_in(rx.input.plain());
            match taken {
                Ok(used) => rx.input.consume(used),
                Err(broken) => {
                    mux.go_away(broken.reason);
                    return Ended::Broken(broken);
                }
            }
        }
        poll_fn(|_| match mux.is_choked() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        // Where no body is on its way, what waits, maybe for long, waits without a
        // buffer.
        let filled = match mux.expects_data() {
            true => rx.fill(want, Duration::MAX).await,
            false => rx.fill_later(Class::Small, Duration::MAX).await,
        };
        match filled {
            Ok(0) => return Ended::Closed,
            Ok(read) => want = wanted_after(read),
            Err(error) => return Ended::Failed("recv()", error),
        }
    }
}

/// Until it fails.
async fn send(mut tx: Tx<'_>, mux: &Mux, timeout: Duration) -> TransportError {
    loop {
        let written = poll_fn(|_| match mux.take_outgoing() {
            Some(written) => Poll::Ready(written),
            None => Poll::Pending,
        });
        if let Err(error) = written.await.send(&mut tx, timeout).await {
            return error;
        }
    }
}
