//! `proxy_buffering`: a backend is not kept waiting by a client that is slow.
//!
//! A client that keeps up costs nothing: what has come from the backend is sent
//! from where it lies. Once a send has taken longer than [`PATIENCE`], the
//! backend is read alongside, up to what `proxy_buffers` allow, until the client
//! has caught up. Nginx fills its buffers first and goes on in a temporary file;
//! a file here would block a worker or cost a thread for each slow client, so
//! memory is all there is. Once all of a response is here, its backend has
//! nothing more to do with the client.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::net::buffers::{Buffer, Class, Segments};
use crate::net::deadlines::Deadline;
use crate::net::socket::Behind;

use super::body::{Incoming, RelayError};
use super::exchange::{Piece, ResponseSink};
use super::transport::Rx;

/// How long a send may take before its client counts as slow; the clock's
/// smallest step.
const PATIENCE: Duration = Duration::from_millis(100);

/// What `proxy_buffering` allows one response.
pub(super) struct Buffering<'b> {
    /// Bytes that may wait for the client. The last read may exceed it, by less
    /// than a buffer.
    limit: usize,
    /// Of the backend, between two reads.
    read_timeout: Duration,
    /// Told, perhaps more than once, that all has come and the client has not
    /// taken it; nothing is received afterwards.
    when_all_is_here: &'b dyn Fn(&mut Rx<'_>),
}

/// What is to be sent.
pub(super) enum Outgoing {
    Bytes(Buffer, Range<usize>),
    Piece(Piece),
    /// Taken with the sink's gaps, and so many bytes filled.
    Segments(Segments, usize, Behind),
}

impl<'b> Buffering<'b> {
    pub(super) fn new(
        limit: usize,
        read_timeout: Duration,
        when_all_is_here: &'b dyn Fn(&mut Rx<'_>),
    ) -> Self {
        Self {
            limit,
            read_timeout,
            when_all_is_here,
        }
    }

    /// Sends this. If the client takes its time, more is read from the backend
    /// meanwhile and sent behind it, until the client has caught up. Yields
    /// segments for further use.
    ///
    /// # Errors
    /// See [`RelayError`]. Cancelling it leaves the response cut off.
    pub(super) async fn send<S: ResponseSink>(
        &self,
        outgoing: Outgoing,
        sink: &mut S,
        rx: &mut Rx<'_>,
        incoming: &mut Incoming,
    ) -> Result<Option<Segments>, RelayError> {
        let is_last = incoming.is_done();
        let queue = Queue::default();
        let mut reader = None;
        let segments = {
            let mut sending = pin!(send(outgoing, sink));
            if is_last {
                return self.last(sending, rx).await;
            }
            let patience = Deadline::new();
            patience.arm(PATIENCE);
            if let Ok(sent) = patience.run(sending.as_mut()).await {
                return sent;
            }
            // Boxed: rare, and every other response would have room for it.
            let reading = Box::pin(self.read_ahead(rx, incoming, &queue));
            reader
                .insert(Reader::new(reading))
                .alongside(sending)
                .await?
        };
        if let Some(reader) = reader {
            catch_up(sink, reader, &queue).await?;
        }
        Ok(segments)
    }

    /// Drives to its end what sends the last that has come. Pinned by the caller:
    /// each small response comes by here, and would be moved first.
    pub(super) async fn last<T>(
        &self,
        mut sending: Pin<&mut impl Future<Output = T>>,
        rx: &mut Rx<'_>,
    ) -> T {
        poll_fn(|context| {
            let sent = sending.as_mut().poll(context);
            if sent.is_pending() {
                (self.when_all_is_here)(rx);
            }
            sent
        })
        .await
    }

    /// Fills the queue until the body or the need for it ends. Cancelling it
    /// loses bytes.
    async fn read_ahead(
        &self,
        rx: &mut Rx<'_>,
        incoming: &mut Incoming,
        queue: &Queue,
    ) -> Result<(), RelayError> {
        loop {
            while !incoming.is_done() && !rx.input.plain().is_empty() {
                let decoded = incoming.decode(rx.input.plain_mut())?;
                queue.put(rx.input.plain().get(..decoded.produced).unwrap_or_default());
                rx.input.consume(decoded.consumed);
            }
            // Whoever drives this does so again after each change of the queue.
            poll_fn(|_| {
                if incoming.is_done() || queue.is_over() || queue.bytes() < self.limit {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            if incoming.is_done() {
                (self.when_all_is_here)(rx);
            }
            if incoming.is_done() || queue.is_over() {
                return Ok(());
            }
            let read_timeout = self.read_timeout;
            incoming.fill(rx, Class::Medium, read_timeout).await?;
        }
    }
}

/// Sends this to a client that is waited for. Yields segments for further use.
pub(super) async fn send<S: ResponseSink>(
    outgoing: Outgoing,
    sink: &mut S,
) -> Result<Option<Segments>, RelayError> {
    match outgoing {
        Outgoing::Bytes(buffer, range) => {
            let data = buffer.get(range).unwrap_or_default();
            sink.write(data).await.map_err(RelayError::Client)?;
            sink.flush().await.map_err(RelayError::Client)?;
            Ok(None)
        }
        Outgoing::Piece(piece) => {
            let sent = sink.piece(piece, Behind::Nothing).await;
            sent.map(|()| None).map_err(RelayError::Client)
        }
        Outgoing::Segments(segments, filled, behind) => {
            let sent = sink.segments(segments, filled, behind).await;
            sent.map(Some).map_err(RelayError::Client)
        }
    }
}

/// What has been read and not been taken by the client.
#[derive(Debug, Default)]
struct Queue {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    /// Of all of them, and of the one that is being sent.
    bytes: usize,
    /// The client keeps up again: no further read is to begin.
    is_over: bool,
}

impl Queue {
    fn put(&self, piece: &[u8]) {
        if !piece.is_empty() {
            let mut state = self.state.borrow_mut();
            state.bytes += piece.len();
            state.pieces.push_back(piece.to_vec());
        }
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.state.borrow_mut().pieces.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.state.borrow().pieces.is_empty()
    }

    fn has_been_sent(&self, bytes: usize) {
        self.state.borrow_mut().bytes -= bytes;
    }

    fn end(&self) {
        self.state.borrow_mut().is_over = true;
    }

    fn is_over(&self) -> bool {
        self.state.borrow().is_over
    }

    fn bytes(&self) -> usize {
        self.state.borrow().bytes
    }
}

/// Sends what is in the queue, and what comes meanwhile, until there is no more
/// or the client waits for the backend again.
async fn catch_up<S: ResponseSink, F: Future<Output = Result<(), RelayError>>>(
    sink: &mut S,
    mut reader: Reader<F>,
    queue: &Queue,
) -> Result<(), RelayError> {
    loop {
        if let Some(piece) = queue.take() {
            let sending = pin!(async {
                sink.write(&piece).await.map_err(RelayError::Client)?;
                if queue.is_empty() {
                    sink.flush().await.map_err(RelayError::Client)?;
                }
                Ok(())
            });
            reader.alongside(sending).await?;
            queue.has_been_sent(piece.len());
            continue;
        }
        // What came behind the last look has not been flushed.
        let flushing = pin!(async { sink.flush().await.map_err(RelayError::Client) });
        reader.alongside(flushing).await?;
        if !queue.is_empty() {
            continue;
        }
        if let Some(result) = reader.result.take() {
            return result;
        }
        queue.end();
        reader.until(|| !queue.is_empty()).await;
    }
}

/// A read that must not be given up, and how it ended.
struct Reader<F: Future<Output = Result<(), RelayError>>> {
    future: Option<Pin<Box<F>>>,
    result: Option<Result<(), RelayError>>,
}

impl<F: Future<Output = Result<(), RelayError>>> Reader<F> {
    fn new(future: Pin<Box<F>>) -> Self {
        Self {
            future: Some(future),
            result: None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        if let Some(future) = &mut self.future
            && let Poll::Ready(result) = future.as_mut().poll(context)
        {
            self.future = None;
            self.result = Some(result);
        }
    }

    /// Drives `sending` to its end and reads meanwhile. What fails in reading is
    /// told when all that was read before has been sent.
    async fn alongside<T>(&mut self, mut sending: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|context| {
            self.poll(context);
            sending.as_mut().poll(context)
        })
        .await
    }

    /// Reads until this holds or there is no more to read.
    async fn until(&mut self, holds: impl Fn() -> bool) {
        poll_fn(|context| {
            self.poll(context);
            if self.future.is_none() || holds() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
