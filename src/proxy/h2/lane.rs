//! What a stream's task waits for: heads and parts of a body that come, window
//! and turn for what goes, and the end that the peer may bring about.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::task::{Context, Poll, Waker};

use crate::http::h2::connection::{Gone, Why};
use crate::http::head::ResponseHead;
use crate::http::trailers::Trailers;
use crate::net::buffers::{Buffer, Class};
use crate::proxy::exchange::MAX_INTERIM;
use crate::tls::record::{HEADROOM, TAILROOM};

/// A stream's end of the connection.
#[derive(Default)]
pub(in crate::proxy) struct Lane {
    /// The stream's task.
    waker: RefCell<Option<Waker>>,
    /// Heads received and not taken, of answers, one more than [`MAX_INTERIM`] at
    /// the most; `None` is one that is too large.
    heads: RefCell<VecDeque<Option<AnswerHead>>>,
    /// Received and not taken.
    pieces: RefCell<VecDeque<Part>>,
    /// Bytes received and not granted anew.
    pub(super) held: Cell<usize>,
    /// What came behind them. Boxed: rare.
    trailers: RefCell<Option<Box<Trailers>>>,
    /// Nothing more comes.
    pub(super) has_ended: Cell<bool>,
    /// The stream is over before its end.
    pub(super) is_gone: Cell<bool>,
    /// By whose will or fault, where that is not the connection's end.
    why: Cell<Option<Why>>,
    /// In line.
    pub(super) is_queued: Cell<bool>,
}

/// A part of a body, in a buffer of its own with room for a record round it.
#[derive(Debug)]
pub(in crate::proxy) struct Part {
    pub(in crate::proxy) buffer: Buffer,
    pub(in crate::proxy) range: Range<usize>,
}

/// An answer's head, and the bytes that its spans point into.
pub(in crate::proxy) type AnswerHead = (ResponseHead, Box<[u8]>);

impl Lane {
    /// Wakes the stream's task.
    pub(super) fn wake(&self) {
        // Taken, so that nothing is woken twice in vain.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Of the stream's task.
    pub(super) fn listen(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(context.waker()) => {}
            _ => *waker = Some(context.waker().clone()),
        }
    }

    /// The head of an answer has come; of the last, if `ends`. No window bounds
    /// the interim ones: more are not kept than whoever takes them puts up with.
    pub(super) fn answer(&self, head: Option<AnswerHead>, ends: bool) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() <= MAX_INTERIM {
            heads.push_back(head);
        }
        drop(heads);
        self.has_ended.set(ends);
        self.wake();
    }

    /// The next head; `None` for one that is too large.
    pub(in crate::proxy) fn poll_head(
        &self,
        context: &Context<'_>,
    ) -> Poll<Result<Option<AnswerHead>, Gone>> {
        if let Some(head) = self.heads.borrow_mut().pop_front() {
            return Poll::Ready(Ok(head));
        }
        self.poll_gone(context).map(|()| Err(Gone))
    }

    /// The stream is over before its end.
    pub(super) fn end(&self, why: Option<Why>) {
        self.why.set(why);
        self.is_gone.set(true);
        self.wake();
    }

    /// Why it was; `None` if its connection is over.
    pub(in crate::proxy) fn why(&self) -> Option<Why> {
        self.why.get()
    }

    /// The next part of the body, or `None` at its end.
    pub(in crate::proxy) fn poll_piece(
        &self,
        context: &Context<'_>,
    ) -> Poll<Result<Option<Part>, Gone>> {
        if let Some(piece) = self.pieces.borrow_mut().pop_front() {
            return Poll::Ready(Ok(Some(piece)));
        }
        if self.has_ended.get() {
            return Poll::Ready(Ok(None));
        }
        if self.is_gone.get() {
            return Poll::Ready(Err(Gone));
        }
        self.listen(context);
        Poll::Pending
    }

    /// Whether the stream is over, or its connection.
    pub(super) fn poll_gone(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_gone.get() {
            return Poll::Ready(());
        }
        self.listen(context);
        Poll::Pending
    }

    /// Whether a part of the body is here.
    pub(super) fn has_piece(&self) -> bool {
        !self.pieces.borrow().is_empty()
    }

    /// Bytes of the body that are here.
    pub(super) fn waiting(&self) -> usize {
        let pieces = self.pieces.borrow();
        pieces.iter().map(|piece| piece.range.len()).sum()
    }

    /// Whether all of the body has come.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Whether all of the body has come, and been taken.
    pub(in crate::proxy) fn is_finished(&self) -> bool {
        self.has_ended.get() && !self.has_piece()
    }

    /// The body has come to its end, with these fields behind it.
    pub(super) fn end_with(&self, trailers: Trailers) {
        self.trailers.replace(Some(Box::new(trailers)));
        self.has_ended.set(true);
        self.wake();
    }

    /// Whether anything came behind the body.
    pub(in crate::proxy) fn has_trailers(&self) -> bool {
        let trailers = self.trailers.borrow();
        trailers
            .as_ref()
            .is_some_and(|trailers| !trailers.is_empty())
    }

    /// What came behind the body.
    pub(in crate::proxy) fn trailers(&self) -> Trailers {
        self.trailers
            .borrow()
            .as_deref()
            .cloned()
            .unwrap_or_default()
    }

    /// Keeps a part of the body, behind what is there.
    pub(super) fn keep(&self, mut bytes: &[u8]) {
        self.held.set(self.held.get() + bytes.len());
        let mut pieces = self.pieces.borrow_mut();
        if let Some(last) = pieces.back_mut() {
            let end = last.range.end;
            let room = last.buffer.len().saturating_sub(end + TAILROOM);
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            if let Some(target) = last.buffer.get_mut(end..end + now.len()) {
                target.copy_from_slice(now);
                last.range.end += now.len();
                bytes = later;
            }
        }
        while !bytes.is_empty() {
            // Whoever is behind gets more at a time.
            let wanted = match pieces.is_empty() {
                true => HEADROOM + bytes.len() + TAILROOM,
                false => Class::Large.size(),
            };
            let mut buffer = Buffer::for_size(wanted);
            let room = buffer.len() - HEADROOM - TAILROOM;
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            let range = HEADROOM..HEADROOM + now.len();
            if let Some(target) = buffer.get_mut(range.clone()) {
                target.copy_from_slice(now);
            }
            pieces.push_back(Part { buffer, range });
            bytes = later;
        }
    }
}
