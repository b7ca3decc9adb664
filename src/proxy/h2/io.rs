//! The adapter between the `h2` crate, which polls for bytes, and our streams,
//! which are lent a buffer and complete: towards backends.
//!
//! ```text
//! socket → Rx → receive loop ─ lent buffer ─→ Pipe::poll_read  ─→ h2
//! socket ← Tx ← send loop    ← full buffer ── Pipe::poll_write ←─ h2
//! ```
//!
//! Both loops and whatever polls the h2 connection are polled by one future,
//! [`drive`], in one task. An operation in flight is therefore never dropped
//! to wait for something else, so no received byte can be lost, and neither
//! boxes nor channels are needed. What h2 writes while a send is under way
//! leaves with the next one, as one operation.
//!
//! A task of its own for each loop was the alternative: two more wake-ups for
//! each request. Of tokio only the two traits are used; there is no runtime.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::buffers::{Buffer, Class, Gaps};
use crate::proxy::transport::{Rx, Transport, TransportError, Tx};
use crate::proxy::tunnel::wanted_after;

use super::outgoing::{Outgoing, Written};

/// The end of a connection that h2 reads from and writes to; clones are the
/// same end. It moves nothing by itself: see [`drive`].
#[derive(Clone)]
pub(crate) struct Pipe {
    state: Rc<RefCell<State>>,
}

/// Both directions between the loops and h2.
struct State {
    incoming: Option<Incoming>,
    /// The peer has ended its side, or is no longer listened to.
    ended: bool,
    outgoing: Outgoing,
    /// The send loop has taken bytes that have not left.
    sending: bool,
    /// h2 had more to write than there was room for.
    is_blocked: bool,
    /// Why nothing more can be received or sent.
    error: Option<TransportError>,
    failed: bool,
    /// Whom there is news for, so that [`drive`] polls nobody in vain.
    news: News,
}

struct News {
    receiver: bool,
    protocol: bool,
    sender: bool,
}

impl News {
    const ALL: Self = Self {
        receiver: true,
        protocol: true,
        sender: true,
    };
    const NONE: Self = Self {
        receiver: false,
        protocol: false,
        sender: false,
    };
}

/// A lent buffer of plaintext that h2 has not read to its end.
struct Incoming {
    buffer: Buffer,
    /// Not yet read. Within `buffer`.
    left: Range<usize>,
    /// What the buffer was lent for, to be given back as used.
    lent: usize,
}

impl Pipe {
    /// The pipe of `transport`, which [`drive`] must then be given.
    pub(crate) fn new(transport: &mut Transport) -> Self {
        Self::with_gaps(transport.tx().gaps())
    }

    fn with_gaps(gaps: Gaps) -> Self {
        Self {
            state: Rc::new(RefCell::new(State {
                incoming: None,
                ended: false,
                outgoing: Outgoing::new(gaps),
                sending: false,
                is_blocked: false,
                error: None,
                failed: false,
                news: News::NONE,
            })),
        }
    }

    /// Why the connection failed, if it did; once.
    pub(crate) fn take_error(&self) -> Option<TransportError> {
        self.state.borrow_mut().error.take()
    }

    /// Ends both directions as if the peer had: h2 then ends its streams.
    fn fail(&self, error: TransportError) {
        let mut state = self.state.borrow_mut();
        state.error.get_or_insert(error);
        state.failed = true;
        state.ended = true;
        state.news.protocol = true;
    }

    fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.ended = true;
        state.news.protocol = true;
    }

    /// Waits until h2 has read the plaintext in `buffer[range]`. The buffer and
    /// how much of it was used.
    async fn lend(&self, buffer: Buffer, range: Range<usize>) -> (Buffer, usize) {
        {
            let mut state = self.state.borrow_mut();
            state.incoming = Some(Incoming {
                lent: range.len(),
                left: range,
                buffer,
            });
            state.news.protocol = true;
        }
        poll_fn(|_| {
            let mut state = self.state.borrow_mut();
            let read = state.incoming.take_if(|incoming| incoming.left.is_empty());
            read.map_or(Poll::Pending, |read| Poll::Ready((read.buffer, read.lent)))
        })
        .await
    }

    /// Waits until h2 has written something, and takes it.
    async fn written(&self) -> Written {
        poll_fn(|_| {
            let mut state = self.state.borrow_mut();
            let Some(written) = state.outgoing.take() else {
                return Poll::Pending;
            };
            state.sending = true;
            state.news.protocol |= std::mem::take(&mut state.is_blocked);
            Poll::Ready(written)
        })
        .await
    }

    /// Nothing that was written has yet to leave, or nothing can.
    fn is_flushed(&self) -> bool {
        let state = self.state.borrow();
        state.failed || !(state.sending || state.outgoing.has_any())
    }

    fn set_news(&self, news: News) {
        self.state.borrow_mut().news = news;
    }

    /// Whether there is news by `select`, which then is old.
    fn take_news(&self, select: impl FnOnce(&mut News) -> &mut bool) -> bool {
        std::mem::take(select(&mut self.state.borrow_mut().news))
    }

    fn has_news(&self) -> bool {
        let News {
            receiver,
            protocol,
            sender,
        } = self.state.borrow().news;
        receiver || protocol || sender
    }

    fn write(&self, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        for slice in slices {
            written += state.outgoing.put(slice, total - written);
        }
        state.is_blocked = written < total;
        if written == 0 && total > 0 {
            return Poll::Pending;
        }
        state.news.sender |= !state.sending;
        Poll::Ready(Ok(written))
    }
}

/// Moves a connection's bytes for as long as `protocol` runs, which polls the
/// h2 connection over `pipe`; then sends what is left.
///
/// `send_timeout` is how long the peer may take none of what is sent. Receiving
/// has no limit of its own: what may be waited for, `protocol` knows. An error
/// reaches it through h2, and its cause stays in [`Pipe::take_error`].
///
/// Cancelling it loses bytes in both directions: the connection is then done
/// for.
pub(crate) async fn drive<F: Future>(
    transport: &mut Transport,
    pipe: &Pipe,
    send_timeout: Duration,
    protocol: F,
) -> F::Output {
    let (rx, tx) = transport.split();
    let mut receiver = pin!(receive(rx, pipe));
    let mut sender = pin!(send(tx, pipe, send_timeout));
    let mut protocol = pin!(protocol);
    let mut output = None;
    poll_fn(|context| {
        // Whose wake-up this is, nobody says.
        pipe.set_news(News::ALL);
        while pipe.has_news() {
            // The loops do not end.
            if pipe.take_news(|news| &mut news.receiver) && output.is_none() {
                let _ = receiver.as_mut().poll(context);
            }
            if pipe.take_news(|news| &mut news.protocol)
                && output.is_none()
                && let Poll::Ready(done) = protocol.as_mut().poll(context)
            {
                output = Some(done);
            }
            if pipe.take_news(|news| &mut news.sender) {
                let _ = sender.as_mut().poll(context);
            }
        }
        match output.take_if(|_| pipe.is_flushed()) {
            Some(output) => Poll::Ready(output),
            None => Poll::Pending,
        }
    })
    .await
}

async fn receive(mut rx: Rx<'_>, pipe: &Pipe) -> Infallible {
    let mut want = Class::Small;
    loop {
        // There may be some already: what came with the handshake.
        if rx.input.plain().is_empty() {
            match rx.fill(want, Duration::MAX).await {
                Ok(0) => {
                    pipe.end();
                    return pending().await;
                }
                Ok(read) => want = wanted_after(read),
                Err(error) => {
                    pipe.fail(error);
                    return pending().await;
                }
            }
        }
        if let Some((buffer, range)) = rx.input.lend_plain(u64::MAX) {
            let (buffer, used) = pipe.lend(buffer, range).await;
            rx.input.give_back(buffer, used);
        }
    }
}

async fn send(mut tx: Tx<'_>, pipe: &Pipe, timeout: Duration) -> Infallible {
    loop {
        let sent = pipe.written().await.send(&mut tx, timeout).await;
        pipe.state.borrow_mut().sending = false;
        if let Err(error) = sent {
            pipe.fail(error);
            return pending().await;
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        let Some(incoming) = &mut state.incoming else {
            return if state.ended {
                Poll::Ready(Ok(()))
            } else {
                // `drive` polls h2 when there is something.
                Poll::Pending
            };
        };
        let all = incoming.buffer.get(incoming.left.clone());
        let all = all.unwrap_or_default();
        let now = all.get(..into.remaining()).unwrap_or(all);
        into.put_slice(now);
        incoming.left.start += now.len();
        if incoming.left.is_empty() {
            state.news.receiver = true;
            if now.is_empty() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(&[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written leaves as soon as it can; waiting here would only keep
    /// h2 from writing more to leave with it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closing is the transport's, when [`drive`] has sent the rest.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::h2::outgoing::{GAPS, plain};
    use std::task::Waker;

    #[test]
    fn what_is_written_in_any_pieces_comes_out_in_order() {
        for sizes in [
            &[3, 5, 9][..],
            &[9, 16384, 9, 16384, 9, 16384, 9, 16384, 9, 16384],
            &[16000, 500, 40000, 1, 30000, 70000],
        ] {
            let pipe = Pipe::with_gaps(GAPS);
            let mut expected = Vec::new();
            let mut seen = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let bytes: Vec<u8> = (0..*size).map(|n| (n * 7 + number) as u8).collect();
                expected.extend_from_slice(&bytes);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (head, tail) = rest.split_at(rest.len() / 3);
                    let slices = [io::IoSlice::new(head), io::IoSlice::new(tail)];
                    match pipe.write(&slices) {
                        Poll::Ready(written) => rest = &rest[written.unwrap()..],
                        Poll::Pending => {
                            let taken = pipe.state.borrow_mut().outgoing.take();
                            seen.extend(plain(taken.expect("blocked, so there is something")));
                        }
                    }
                }
            }
            let left = pipe.state.borrow_mut().outgoing.take();
            seen.extend(left.into_iter().flat_map(plain));
            assert!(seen == expected, "{sizes:?}");
            assert!(pipe.is_flushed());
        }
    }

    #[test]
    fn what_is_lent_is_read_in_any_pieces_and_then_given_back() {
        let mut pipe = Pipe::with_gaps(Gaps::default());
        let lender = pipe.clone();
        let mut buffer = Buffer::take(Class::Small);
        buffer[10..20].copy_from_slice(b"0123456789");
        let mut lending = pin!(lender.lend(buffer, 10..20));
        let context = &mut Context::from_waker(Waker::noop());
        let mut seen = Vec::new();
        while lending.as_mut().poll(context).is_pending() {
            let mut bytes = [0; 3];
            let mut into = ReadBuf::new(&mut bytes);
            assert!(Pin::new(&mut pipe).poll_read(context, &mut into).is_ready());
            seen.extend_from_slice(into.filled());
        }
        assert_eq!(seen, b"0123456789");
        let mut bytes = [0; 3];
        let mut into = ReadBuf::new(&mut bytes);
        assert!(
            Pin::new(&mut pipe)
                .poll_read(context, &mut into)
                .is_pending()
        );
        pipe.end();
        assert!(Pin::new(&mut pipe).poll_read(context, &mut into).is_ready());
        assert!(into.filled().is_empty());
    }
}
