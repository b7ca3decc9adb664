//! The streams of a connection (RFC 9113 §5.1), as its server sees them; the
//! client's are the mirror image.
//!
//! ```text
//! HEADERS ──→ open ── END_STREAM from the client ──→ half-closed (remote)
//!               │                                          │
//!          our END_STREAM                            our END_STREAM
//!               ↓                                          ↓
//!      half-closed (local) ── END_STREAM from it ──→ closed, forgotten
//! ```
//!
//! RST_STREAM from either side leads to closed from everywhere. Of what is
//! closed only those are remembered, for a while, that were reset by us: what
//! the client had sent by then is no fault of its.

use std::collections::VecDeque;

use super::flow::{Grant, Window};

/// Streams that we have reset and that are remembered. Beyond that what still
/// comes for one counts as sent in vain.
const REMEMBERED: usize = 128;

/// A stream that is not closed.
#[derive(Debug)]
pub(super) struct Stream<S> {
    pub(super) id: u32,
    /// What we may send.
    pub(super) send: Window,
    /// What the client may send.
    pub(super) receive: Grant,
    /// The client may send more of its request.
    pub(super) takes: bool,
    /// We may send more of our answer.
    pub(super) gives: bool,
    /// The final head from the peer has come: what follows is a body.
    pub(super) has_head: bool,
    /// What of the announced length has not come.
    pub(super) owed: Option<u64>,
    /// The caller's own.
    pub(super) attached: Option<S>,
}

/// All that are not closed, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Streams<S> {
    open: Vec<Stream<S>>,
    /// The highest number that the client has used.
    highest: u32,
    /// At most [`REMEMBERED`].
    reset: VecDeque<u32>,
}

/// What is known of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Not used yet, or never to be.
    Idle,
    Open,
    /// Closed, by our RST_STREAM.
    Reset,
    Closed,
}

impl<S> Streams<S> {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            highest: 0,
            reset: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn highest(&self) -> u32 {
        self.highest
    }

    pub(super) fn known(&self, id: u32) -> Known {
        // Those of a server's have even numbers, and this one has none.
        if id > self.highest || id.is_multiple_of(2) {
            return Known::Idle;
        }
        if self.place(id).is_ok() {
            Known::Open
        } else if self.reset.contains(&id) {
            Known::Reset
        } else {
            Known::Closed
        }
    }

    /// The number is used up.
    pub(super) fn use_up(&mut self, id: u32) {
        self.highest = self.highest.max(id);
    }

    /// A new stream, whose number is the highest.
    pub(super) fn open(&mut self, stream: Stream<S>) {
        self.use_up(stream.id);
        self.open.push(stream);
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream<S>> {
        self.open.get(self.place(id).ok()?)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream<S>> {
        let place = self.place(id).ok()?;
        self.open.get_mut(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream<S>> {
        self.open.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream<S>> {
        self.open.iter_mut()
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream<S>> {
        let place = self.place(id).ok()?;
        let removed = self.open.remove(place);
        if self.open.is_empty() {
            // An idle connection keeps no room for streams.
            self.open = Vec::new();
        }
        Some(removed)
    }

    /// Remembers that we have reset it.
    pub(super) fn remember(&mut self, id: u32) {
        if self.reset.len() >= REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        self.open.binary_search_by_key(&id, |stream| stream.id)
    }
}
