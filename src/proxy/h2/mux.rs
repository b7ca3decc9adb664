//! What the task of a connection and those of its streams share, at either end:
//! the protocol core, what is to be sent, and who waits for what.
//!
//! ```text
//! socket → connection's task → core ─ events → Lane ─ wakes → stream's task
//! socket ← connection's task ← Outbox ←─ frames ───────────── stream's task
//! ```
//!
//! A stream writes its frames itself, when it has window and it is its turn. Who
//! finds no room for more waits in line, and each turn is one frame, or one bulk
//! buffer: so all move on alike, and one whose own window is shut is not in line
//! at all.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::http::h1::encode::Sink as _;
use crate::http::h2::connection::{Broken, Connection, Event, Gone, Limits, Room, Why};
use crate::http::h2::fields::Draft;
use crate::http::h2::frame::Reason;
use crate::http::h2::hpack::Encoder;
use crate::net::buffers::{Gaps, SEGMENTS_EACH, Segments};

use super::lane::Lane;
use super::outgoing::{Outbox, Written};

/// What of bodies may wait to be sent: one bulk buffer, so that the next can be
/// put together while it leaves.
const WAITING: usize = 64 << 10;
/// When so much waits, nothing more is read from a client that takes nothing:
/// what it asks for besides bodies has no window. Of a server nobody asks for
/// more than there are requests for it, and it may wait for us in its turn.
const CHOKED: usize = 256 << 10;

thread_local! {
    /// Room for a block of fields that is being made.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection's shared half.
pub(in crate::proxy) struct Mux {
    state: RefCell<State>,
    /// The connection's task.
    waker: RefCell<Option<Waker>>,
    opened: Instant,
    /// Streams whose tasks are at work.
    active: Cell<u32>,
    gaps: Gaps,
    /// [`CHOKED`], where that counts.
    choked: usize,
}

/// What a client has begun.
pub(in crate::proxy) enum Opened {
    /// A stream, for the request in the draft; and whether that has no body.
    Stream { stream: u32, ends: bool },
    /// None: its request is malformed.
    Malformed,
}

struct State {
    core: Connection<Rc<Lane>>,
    outbox: Outbox,
    /// The connection's task has taken bytes that have not left.
    is_sending: bool,
    /// Streams that have something to send and window of their own, in line.
    line: VecDeque<u32>,
    /// Whose turn it is: it has been woken and has not sent.
    turn: Option<u32>,
    /// The connection is over: nobody hears anything any more.
    is_over: bool,
}

impl Mux {
    /// A server's, towards a client.
    pub(super) fn new(limits: Limits, gaps: Gaps) -> Self {
        let mut outbox = Outbox::new(gaps);
        Self::over(Connection::new(limits, &mut outbox), outbox, gaps, CHOKED)
    }

    /// A client's, towards a backend.
    pub(in crate::proxy) fn client(limits: Limits, gaps: Gaps) -> Self {
        let mut outbox = Outbox::new(gaps);
        let core = Connection::client(limits, &mut outbox);
        Self::over(core, outbox, gaps, usize::MAX)
    }

    fn over(core: Connection<Rc<Lane>>, outbox: Outbox, gaps: Gaps, choked: usize) -> Self {
        Self {
            state: RefCell::new(State {
                core,
                outbox,
                is_sending: false,
                line: VecDeque::new(),
                turn: None,
                is_over: false,
            }),
            waker: RefCell::default(),
            opened: Instant::now(),
            active: Cell::new(0),
            gaps,
            choked,
        }
    }

    /// Round the payloads of what is sent in bulk, without frames.
    pub(super) fn gaps(&self) -> Gaps {
        self.gaps
    }

    /// Of the connection's task.
    pub(in crate::proxy) fn listen(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(context.waker()) => {}
            _ => *waker = Some(context.waker().clone()),
        }
    }

    /// Wakes the connection's task.
    pub(in crate::proxy) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Since the connection's beginning.
    pub(in crate::proxy) fn elapsed(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The next event in `input` that is not a stream's own business: a request,
    /// or what would be one; `None` when all has been looked at. `used` is how
    /// much of it has.
    ///
    /// # Errors
    /// The connection must end.
    pub(in crate::proxy) fn take_in(
        &self,
        input: &[u8],
        used: &mut usize,
        now: Duration,
        draft: &mut Draft,
    ) -> Result<Option<Opened>, Broken> {
        let state = &mut *self.state.borrow_mut();
        loop {
            match state
                .core
                .next(input, used, now, draft, &mut state.outbox)?
            {
                None => return Ok(None),
                Some(Event::Request { stream, ends }) => {
                    return Ok(Some(Opened::Stream { stream, ends }));
                }
                Some(Event::Malformed) => return Ok(Some(Opened::Malformed)),
                Some(Event::Data {
                    stream,
                    range,
                    ends,
                }) => state.receive(stream, input.get(range).unwrap_or_default(), ends),
                Some(Event::Trailers { stream, fields }) => {
                    if let Some(lane) = state.core.attached(stream) {
                        lane.end_with(fields);
                    }
                }
                Some(Event::Answer { stream, ends }) => {
                    if let Some(lane) = state.core.attached(stream) {
                        lane.answer(draft.answer(), ends);
                    }
                }
                Some(Event::Gone { own, why }) => own.end(Some(why)),
                Some(Event::GoAway { last, code }) => {
                    while let Some(lane) = state.core.take_unprocessed(last) {
                        lane.end(Some(Why::Unprocessed(code)));
                    }
                }
                Some(Event::Room(stream)) => {
                    if let Some(lane) = state.core.attached(stream) {
                        lane.wake();
                    }
                }
                Some(Event::RoomOnConnection) => state.next_turn(),
                Some(Event::RoomForAll) => {
                    state.core.all_attached().for_each(|lane| lane.wake());
                    state.next_turn();
                }
            }
        }
    }

    /// A stream that is to be served: its lane. `length` is that of the body, if
    /// it is announced; `None` if that is belied already.
    ///
    /// # Errors
    /// The connection must end: there were too many of those.
    pub(super) fn admit(
        &self,
        stream: u32,
        ends: bool,
        length: Option<u64>,
    ) -> Result<Option<Rc<Lane>>, Broken> {
        let state = &mut *self.state.borrow_mut();
        if length.is_some_and(|length| !state.core.expect(stream, length)) {
            state.core.reject(stream, &mut state.outbox)?;
            return Ok(None);
        }
        let lane = Rc::new(Lane::default());
        lane.has_ended.set(ends);
        state.core.attach(stream, Rc::clone(&lane));
        self.active.set(self.active.get() + 1);
        Ok(Some(lane))
    }

    /// Begins a stream with a request, whose block of fields `write` makes.
    ///
    /// # Errors
    /// [`Gone`], also if the server wants no more streams, or none now.
    pub(in crate::proxy) fn begin(
        &self,
        ends: bool,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<(u32, Rc<Lane>), Gone> {
        let state = &mut *self.state.borrow_mut();
        if state.is_over {
            return Err(Gone);
        }
        let lane = Rc::new(Lane::default());
        let stream = BLOCK.with_borrow_mut(|block| {
            let (own, out) = (Rc::clone(&lane), &mut state.outbox);
            state.core.begin(own, ends, block, out, write)
        })?;
        self.active.set(self.active.get() + 1);
        self.wake();
        Ok((stream, lane))
    }

    /// Whether streams may begin at all, room apart.
    pub(in crate::proxy) fn takes_streams(&self) -> bool {
        let state = self.state.borrow();
        !state.is_over && state.core.takes_streams()
    }

    /// The connection is over.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        self.state.borrow().is_over
    }

    /// How many the server takes at a time; `None` until it has said so.
    pub(in crate::proxy) fn most_streams(&self) -> Option<u32> {
        self.state.borrow().core.most_streams()
    }

    /// A stream that is not to be served.
    pub(super) fn refuse(&self, stream: u32) {
        let state = &mut *self.state.borrow_mut();
        let reason = Reason::RefusedStream;
        state.core.finish(stream, reason, &mut state.outbox);
    }

    /// The stream's task is over, and so is the stream. `is_whole` says that it
    /// was answered in full.
    pub(super) fn finish(&self, stream: u32, lane: &Lane, is_whole: bool) {
        self.active.set(self.active.get().saturating_sub(1));
        let state = &mut *self.state.borrow_mut();
        if !state.is_over {
            if is_whole {
                state.core.earn();
            }
            // As Nginx does with what it cannot finish, and with 444.
            let reason = Reason::InternalError;
            state.core.finish(stream, reason, &mut state.outbox);
            state
                .core
                .release(stream, lane.held.get(), &mut state.outbox);
            if state.turn == Some(stream) {
                state.turn = None;
            }
            state.next_turn();
        }
        lane.is_gone.set(true);
        self.wake();
    }

    /// So many bytes of a body have been taken.
    pub(super) fn release(&self, stream: u32, lane: &Lane, count: usize) {
        lane.held.set(lane.held.get().saturating_sub(count));
        let state = &mut *self.state.borrow_mut();
        if state.is_over {
            return;
        }
        let before = state.outbox.len();
        state.core.release(stream, count, &mut state.outbox);
        if state.outbox.len() > before {
            self.wake();
        }
    }

    /// Sends a block of fields that `write` makes.
    ///
    /// # Errors
    /// [`Gone`]
    pub(super) fn send_fields(
        &self,
        stream: u32,
        ends: bool,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<(), Gone> {
        let state = &mut *self.state.borrow_mut();
        if state.is_over {
            return Err(Gone);
        }
        BLOCK.with_borrow_mut(|block| {
            let out = &mut state.outbox;
            state.core.send_fields(stream, ends, block, out, write)
        })?;
        self.wake();
        Ok(())
    }

    /// Waits for the stream's turn to send something of a body, which must then
    /// be done before anything else is waited for.
    pub(super) fn poll_turn(
        &self,
        stream: u32,
        lane: &Lane,
        context: &Context<'_>,
    ) -> Poll<Result<Room, Gone>> {
        let state = &mut *self.state.borrow_mut();
        if state.is_over {
            return Poll::Ready(Err(Gone));
        }
        let room = state.core.room(stream)?;
        let has_turn = state.turn == Some(stream);
        if has_turn {
            state.turn = None;
        }
        lane.listen(context);
        if room.stream == 0 {
            // Not in line, so that nobody waits for its window.
            state.next_turn();
        } else {
            let is_first = has_turn || (state.turn.is_none() && state.line.is_empty());
            if is_first && room.connection > 0 && state.has_room() {
                return Poll::Ready(Ok(room));
            }
            if has_turn {
                state.line.push_front(stream);
                lane.is_queued.set(true);
            } else if !lane.is_queued.replace(true) {
                state.line.push_back(stream);
            }
            state.next_turn();
        }
        Poll::Pending
    }

    /// The stream waits for its turn no longer, though it is not over.
    pub(super) fn leave_line(&self, stream: u32, lane: &Lane) {
        let state = &mut *self.state.borrow_mut();
        state.line.retain(|other| *other != stream);
        lane.is_queued.set(false);
        if state.turn == Some(stream) {
            state.turn = None;
        }
        state.next_turn();
    }

    /// Sends a part of a body as one frame; when [`Mux::poll_turn`] has said how
    /// much at the most.
    ///
    /// # Errors
    /// [`Gone`]
    pub(super) fn send_data(&self, stream: u32, data: &[u8], ends: bool) -> Result<(), Gone> {
        let state = &mut *self.state.borrow_mut();
        if state.is_over {
            return Err(Gone);
        }
        let head = state.core.send_data(stream, data.len(), ends)?;
        state.outbox.put(&head);
        state.outbox.put(data);
        state.next_turn();
        self.wake();
        Ok(())
    }

    /// Sends the `filled` bytes of `segments`, which were taken with a lead for
    /// the frames' headers, from where they lie; otherwise as
    /// [`Mux::send_data`].
    ///
    /// # Errors
    /// [`Gone`]
    pub(super) fn send_bulk(
        &self,
        stream: u32,
        mut segments: Segments,
        filled: usize,
        ends: bool,
    ) -> Result<(), Gone> {
        let state = &mut *self.state.borrow_mut();
        if state.is_over {
            return Err(Gone);
        }
        let mut length = 0;
        for index in 0..SEGMENTS_EACH {
            let payload = segments.payload(index, filled);
            if payload.is_empty() {
                break;
            }
            let plain = segments.plain(index, filled);
            length += plain.len();
            let is_last = segments.payload(index + 1, filled).is_empty();
            let frame = state
                .core
                .send_data(stream, payload.len(), ends && is_last)?;
            let place: Range<usize> = plain.start..payload.start;
            let target = segments.bytes_mut().get_mut(place);
            if let Some(target) = target.filter(|target| target.len() == frame.len()) {
                target.copy_from_slice(&frame);
            }
        }
        state.outbox.put_bulk(segments, filled, length);
        state.next_turn();
        self.wake();
        Ok(())
    }

    /// The first step of leaving: the client hears that it will be so.
    pub(super) fn go_away_soon(&self) {
        let state = &mut *self.state.borrow_mut();
        state.core.go_away_soon(&mut state.outbox);
    }

    /// The client hears why, and the last stream that counts.
    pub(in crate::proxy) fn go_away(&self, reason: Reason) {
        let state = &mut *self.state.borrow_mut();
        state.core.go_away(reason, &mut state.outbox);
    }

    /// Nobody is there any more: neither for what streams have to send nor for
    /// what they wait for.
    pub(in crate::proxy) fn end(&self, why: Option<Why>) {
        let state = &mut *self.state.borrow_mut();
        state.is_over = true;
        for lane in state.core.all_attached() {
            lane.end(why);
        }
    }

    /// What is to be sent next, if that which was has left.
    pub(super) fn take_outgoing(&self) -> Option<Written> {
        let state = &mut *self.state.borrow_mut();
        let written = state.outbox.take();
        state.is_sending = written.is_some();
        state.next_turn();
        written
    }

    /// Nothing waits to be sent, and all has left.
    pub(super) fn is_flushed(&self) -> bool {
        let state = self.state.borrow();
        !state.is_sending && state.outbox.len() == 0
    }

    /// So much waits that nothing more may be read.
    pub(super) fn is_choked(&self) -> bool {
        self.state.borrow().outbox.len() > self.choked
    }

    /// Streams whose tasks are at work.
    pub(in crate::proxy) fn active(&self) -> u32 {
        self.active.get()
    }

    pub(super) fn is_in_fields(&self) -> bool {
        self.state.borrow().core.is_in_fields()
    }

    /// Whether a request's body is on its way.
    pub(super) fn expects_data(&self) -> bool {
        self.state.borrow().core.expects_data()
    }

    /// The client has been told the last stream, and that is over.
    pub(super) fn is_done(&self) -> bool {
        self.active.get() == 0 && self.state.borrow().core.is_done()
    }

    /// Gives memory back that only streams need: there are none.
    pub(in crate::proxy) fn trim(&self) {
        let state = &mut *self.state.borrow_mut();
        state.line = VecDeque::new();
        state.core.trim();
    }
}

impl State {
    fn receive(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        let Some(lane) = self.core.attached(stream) else {
            return;
        };
        lane.keep(bytes);
        if ends {
            lane.has_ended.set(true);
        }
        lane.wake();
    }

    fn has_room(&self) -> bool {
        self.outbox.len() < WAITING
    }

    /// Lets the first in line go on, if there is room and nobody has its turn.
    fn next_turn(&mut self) {
        if self.turn.is_some() || !self.has_room() || !self.core.has_window() {
            return;
        }
        while let Some(stream) = self.line.pop_front() {
            if let Some(lane) = self.core.attached(stream) {
                lane.is_queued.set(false);
                lane.wake();
                self.turn = Some(stream);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
