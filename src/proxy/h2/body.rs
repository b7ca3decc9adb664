//! A request's body as a stream brings it (RFC 9113 §8.1).
//!
//! What a client may send next is granted only when what it sent before has
//! been taken: a slow backend slows its own client's stream, and no other.

use std::future::poll_fn;
use std::time::Duration;

use crate::http::trailers::Trailers;
use crate::net::buffers::Buffer;
use crate::net::deadlines::{self, Deadline};
use crate::proxy::ahead::Ahead;
use crate::proxy::exchange::{BodyError, BodySize, BodySource, Piece};
use crate::proxy::h1::MinRate;
use crate::proxy::transport::TransportError;

use super::slot::Slot;

/// A request's body as it comes.
pub(super) struct H2Body<'s> {
    slot: &'s Slot,
    state: State,
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
    pub(super) fn new(slot: &'s Slot, length: Option<u64>, awaits_continue: bool) -> Self {
        let state = match length {
            _ if slot.lane.is_finished() => State::Finished,
            Some(length) => State::Length(length),
            None => State::Unknown,
        };
        // Of nothing, only the end is waited for, and what may stand behind it.
        let is_empty = matches!(state, State::Finished | State::Length(0));
        let awaits_continue = awaits_continue && !is_empty;
        Self {
            slot,
            state,
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
    pub(super) fn of_tunnel(slot: &'s Slot) -> Self {
        let mut body = Self::new(slot, None, false);
        body.state = State::Waiting;
        body
    }

    /// Payload bytes received.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    async fn next_piece(&mut self) -> Result<Option<Piece>, BodyError> {
        self.awaits_continue = false;
        if matches!(self.state, State::Finished | State::Waiting) {
            return Ok(None);
        }
        let lane = &self.slot.lane;
        self.deadline.arm(self.timeout);
        // Asked only where somebody looks at it.
        let begun = self.min_rate.is_some().then(deadlines::running_time);
        let part = self
            .deadline
            .run(poll_fn(|context| lane.poll_piece(context)))
            .await
            .map_err(|_| BodyError::Transport(TransportError::TimedOut))?;
        // Its own word, or the connection's end.
        let Some(part) = part.map_err(|_| BodyError::Closed)? else {
            self.state = State::Finished;
            return Ok(None);
        };
        let length = part.range.len();
        self.lent = length;
        if let (Some(rate), Some(begun)) = (&mut self.min_rate, begun)
            && rate.is_missed(length, deadlines::running_time() - begun)
        {
            return Err(BodyError::TooSlow);
        }
        self.count(length as u64)?;
        if self.state != State::Switched && lane.is_finished() {
            self.state = State::Finished;
        }
        Ok(Some(Piece::alone(part.buffer, part.range)))
    }

    fn count(&mut self, length: u64) -> Result<(), BodyError> {
        let allowance = self.allowance.checked_sub(length);
        self.allowance = allowance.ok_or(BodyError::TooLarge)?;
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(length);
        }
        if self.state != State::Switched {
            self.received += length;
        }
        Ok(())
    }
}

impl BodySource for H2Body<'_> {
    fn size(&self) -> BodySize {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.len() as u64);
        match self.state {
            _ if self.is_withheld => BodySize::None,
            State::Length(left) => BodySize::Known(ahead + left),
            // Its end has come with all of it.
            State::Unknown if self.slot.lane.has_ended() => {
                BodySize::Known(ahead + self.slot.lane.waiting() as u64)
            }
            State::Unknown | State::Switched => BodySize::Unknown,
            State::Finished if ahead > 0 => BodySize::Known(ahead),
            State::Finished | State::Waiting => BodySize::None,
        }
    }

    fn awaits_continue(&self) -> bool {
        self.awaits_continue && !self.slot.lane.has_piece()
    }

    fn has_piece(&self) -> bool {
        let is_here = || self.state != State::Waiting && self.slot.lane.has_piece();
        self.ahead.as_ref().is_some_and(|ahead| ahead.has_piece()) || is_here()
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
            self.slot.release(lent);
        }
    }

    async fn read_ahead(&mut self, limit: usize, keep: bool) -> Result<(), BodyError> {
        if self.ahead.is_some() || (!keep && self.is_finished()) {
            return Ok(());
        }
        self.ahead = Some(Ahead::read(self, limit, 0).await?);
        Ok(())
    }

    fn ahead(&self) -> Option<&Ahead> {
        self.ahead.as_deref()
    }

    fn ahead_mut(&mut self) -> Option<&mut Ahead> {
        self.ahead.as_deref_mut()
    }

    fn trailers(&self) -> Trailers {
        match self.is_withheld {
            true => Trailers::default(),
            false => self.slot.lane.trailers(),
        }
    }

    fn has_trailers(&self) -> bool {
        !self.is_withheld && self.slot.lane.has_trailers()
    }

    async fn abandoned(&mut self) {
        poll_fn(|context| self.slot.lane.poll_gone(context)).await;
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished | State::Waiting)
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
