//! A stream as its task holds it.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::http::h2::connection::{Gone, Room};
use crate::http::h2::hpack::Encoder;
use crate::net::buffers::{Gaps, Segments};

use super::lane::Lane;
use super::mux::Mux;

/// A stream in use, on its connection; dropping it ends it.
pub(in crate::proxy) struct Slot {
    mux: Rc<Mux>,
    stream: u32,
    pub(in crate::proxy) lane: Rc<Lane>,
    gaps: Gaps,
    /// It has been answered in full.
    pub(super) is_whole: Cell<bool>,
}

impl Slot {
    pub(in crate::proxy) fn new(mux: Rc<Mux>, stream: u32, lane: Rc<Lane>) -> Self {
        Self {
            gaps: mux.gaps(),
            mux,
            stream,
            lane,
            is_whole: Cell::new(false),
        }
    }

    /// Round the payloads of what is sent in bulk.
    pub(super) fn gaps(&self) -> Gaps {
        self.gaps
    }

    /// So many bytes of the body have been taken.
    pub(in crate::proxy) fn release(&self, count: usize) {
        self.mux.release(self.stream, &self.lane, count);
    }

    /// See [`Mux::send_fields`].
    pub(in crate::proxy) fn send_fields(
        &self,
        ends: bool,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<(), Gone> {
        self.mux.send_fields(self.stream, ends, write)
    }

    /// See [`Mux::poll_turn`].
    pub(in crate::proxy) fn poll_turn(&self, context: &Context<'_>) -> Poll<Result<Room, Gone>> {
        self.mux.poll_turn(self.stream, &self.lane, context)
    }

    /// See [`Mux::leave_line`].
    pub(in crate::proxy) fn leave_line(&self) {
        self.mux.leave_line(self.stream, &self.lane);
    }

    /// See [`Mux::send_data`].
    pub(in crate::proxy) fn send_data(&self, data: &[u8], ends: bool) -> Result<(), Gone> {
        self.mux.send_data(self.stream, data, ends)
    }

    /// See [`Mux::send_bulk`].
    pub(in crate::proxy) fn send_bulk(
        &self,
        segments: Segments,
        filled: usize,
        ends: bool,
    ) -> Result<(), Gone> {
        self.mux.send_bulk(self.stream, segments, filled, ends)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.mux
            .finish(self.stream, &self.lane, self.is_whole.get());
    }
}
