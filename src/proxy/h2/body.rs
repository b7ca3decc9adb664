//! A request's body as a stream brings it (RFC 9113 §8.1).
//!
//! What a client may send next is granted only when what it sent before has
//! been taken: a slow backend slows its own client's stream, and no other.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use ::bytes::{Buf, Bytes};
use ::h2::RecvStream;

use crate::net::buffers::Buffer;
use crate::net::deadlines::Deadline;
use crate::proxy::ahead::Ahead;
use crate::proxy::exchange::{BodyError, BodySize, BodySource, Piece};
use crate::proxy::h1::MinRate;
use crate::proxy::transport::TransportError;

use super::sink::Responder;

/// A request's body as it comes.
pub(super) struct H2Body<'s> {
    stream: RecvStream,
    /// Where a reset shows when nothing is read.
    responder: &'s RefCell<Responder>,
    state: State,
    /// Received and not yet given on.
    current: Bytes,
    deadline: Deadline,
    /// Between two reads.
    timeout: Duration,
    /// Bytes that may still come; for bodies of unknown size.
    allowance: u64,
    awaits_continue: bool,
    min_rate: Option<Box<MinRate>>,
    /// Boxed: most requests have none.
    ahead: Option<Box<Ahead>>,
    /// Of the piece on loan, to be granted anew when it comes back.
    lent: usize,
    /// Payload bytes so far.
    received: u64,
    is_withheld: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are to come. The protocol core holds the client to it.
    Length(u64),
    Unknown,
    /// Bytes of another protocol, to which nothing has switched yet.
    Waiting,
    /// The same, since it has.
    Switched,
    Finished,
}

impl<'s> H2Body<'s> {
    /// A body of this length, or of one that only its end will tell.
    pub(super) fn new(
        stream: RecvStream,
        responder: &'s RefCell<Responder>,
        length: Option<u64>,
        awaits_continue: bool,
    ) -> Self {
        let state = match length {
            _ if stream.is_end_stream() => State::Finished,
            Some(0) => State::Finished,
            Some(length) => State::Length(length),
            None => State::Unknown,
        };
        let awaits_continue = awaits_continue && state != State::Finished;
        Self {
            stream,
            responder,
            state,
            current: Bytes::new(),
            deadline: Deadline::new(),
            timeout: Duration::ZERO,
            allowance: 0,
            awaits_continue,
            min_rate: None,
            ahead: None,
            lent: 0,
            received: 0,
            is_withheld: false,
        }
    }

    /// None until the protocol is switched (RFC 8441): what comes before that
    /// is kept for then.
    pub(super) fn of_tunnel(stream: RecvStream, responder: &'s RefCell<Responder>) -> Self {
        let mut body = Self::new(stream, responder, None, false);
        body.state = State::Waiting;
        body
    }

    /// Payload bytes received.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    async fn next_piece(&mut self) -> Result<Option<Piece>, BodyError> {
        self.awaits_continue = false;
        while self.current.is_empty() {
            if matches!(self.state, State::Finished | State::Waiting) {
                return Ok(None);
            }
            self.deadline.arm(self.timeout);
            let begun = Instant::now();
            let stream = &mut self.stream;
            let received = self
                .deadline
                .run(poll_fn(|context| stream.poll_data(context)))
                .await
                .map_err(|_| BodyError::Transport(TransportError::TimedOut))?;
            match received {
                Some(Ok(data)) => {
                    if let Some(rate) = &mut self.min_rate
                        && rate.is_missed(data.len(), begun.elapsed())
                    {
                        return Err(BodyError::TooSlow);
                    }
                    self.take(data)?;
                }
                // Its own word, or the connection's end.
                Some(Err(_)) => return Err(BodyError::Closed),
                None => self.state = State::Finished,
            }
        }
        let mut buffer = Buffer::for_size(self.current.len());
        let length = self.current.len().min(buffer.len());
        if let Some(target) = buffer.get_mut(..length) {
            self.current.copy_to_slice(target);
        }
        if self.current.is_empty() && self.stream.is_end_stream() && self.state != State::Switched {
            self.state = State::Finished;
        }
        self.lent = length;
        Ok(Some(Piece {
            buffer,
            range: 0..length,
        }))
    }

    fn take(&mut self, data: Bytes) -> Result<(), BodyError> {
        let length = data.len() as u64;
        let allowance = self.allowance.checked_sub(length);
        self.allowance = allowance.ok_or(BodyError::TooLarge)?;
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(length);
        }
        if self.state != State::Switched {
            self.received += length;
        }
        self.current = data;
        Ok(())
    }
}

impl BodySource for H2Body<'_> {
    fn size(&self) -> BodySize {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.len() as u64);
        let here = ahead + self.current.len() as u64;
        match self.state {
            _ if self.is_withheld => BodySize::None,
            State::Length(left) => BodySize::Known(here + left),
            State::Unknown | State::Switched => BodySize::Unknown,
            State::Finished if here > 0 => BodySize::Known(here),
            State::Finished | State::Waiting => BodySize::None,
        }
    }

    fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    fn has_piece(&self) -> bool {
        !self.current.is_empty() || self.ahead.as_ref().is_some_and(|ahead| ahead.has_piece())
    }

    fn set_limits(&mut self, read_timeout: Duration, max_size: u64) {
        self.timeout = read_timeout;
        self.allowance = if max_size == 0 { u64::MAX } else { max_size };
    }

    fn demand_rate(&mut self, rate: u64, after: Duration) {
        self.min_rate = Some(MinRate::new(rate, after, self.min_rate.as_deref()));
    }

    async fn next(&mut self) -> Result<Option<Piece>, BodyError> {
        if self.is_withheld {
            return Ok(None);
        }
        if let Some(piece) = self.ahead.as_mut().and_then(|ahead| ahead.next()) {
            return Ok(Some(piece));
        }
        self.next_piece().await
    }

    fn give_back(&mut self, buffer: Buffer) {
        drop(buffer);
        let lent = std::mem::take(&mut self.lent);
        if lent > 0 {
            // Fails only for more than was received.
            let _ = self.stream.flow_control().release_capacity(lent);
        }
    }

    async fn read_ahead(&mut self, limit: usize, keep: bool) -> Result<(), BodyError> {
        if self.ahead.is_some() || (!keep && self.is_finished()) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        while bytes.len() < limit && !self.is_finished() {
            if let Some(piece) = self.next().await? {
                bytes.extend_from_slice(piece.buffer.get(piece.range).unwrap_or_default());
                self.give_back(piece.buffer);
            }
        }
        self.ahead = Some(Box::new(Ahead::new(bytes, self.is_finished())));
        Ok(())
    }

    fn is_repeatable(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_whole())
    }

    fn rewind(&mut self) {
        if let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.is_whole()) {
            ahead.rewind();
        }
    }

    async fn abandoned(&mut self) {
        poll_fn(
            |context| match self.responder.borrow_mut().poll_gone(context) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            },
        )
        .await;
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished | State::Waiting) && self.current.is_empty()
    }

    fn is_whole(&self) -> bool {
        // What was read ahead and not given away is not lost.
        self.received == 0 || self.ahead.as_ref().is_some_and(|ahead| ahead.is_intact())
    }

    fn withhold(&mut self) {
        self.is_withheld = true;
    }

    fn switch_protocols(&mut self) {
        if self.state == State::Waiting {
            self.state = State::Switched;
        }
        self.set_limits(Duration::MAX, 0);
        self.min_rate = None;
    }
}
