//! What is handed to the protocol core as a part of a body: one of our own
//! buffers, which goes back to the pool when its last byte has been sent.

use std::ops::Range;
use std::rc::Rc;

use ::bytes::Buf;

use crate::net::buffers::{Buffer, Segments};

/// Bytes to be sent, in the buffer that they were received into.
#[derive(Debug)]
pub(crate) struct Chunk {
    storage: Option<Rc<Storage>>,
    /// What is left. Within the storage's bytes.
    left: Range<usize>,
}

#[derive(Debug)]
enum Storage {
    Buffer(Buffer),
    /// Taken without gaps, so that payload lies behind payload.
    Segments(Segments),
}

impl Chunk {
    /// None at all.
    pub(crate) fn empty() -> Self {
        Self {
            storage: None,
            left: 0..0,
        }
    }

    /// `buffer[range]`.
    pub(crate) fn of_buffer(buffer: Buffer, range: Range<usize>) -> Self {
        Self {
            storage: Some(Rc::new(Storage::Buffer(buffer))),
            left: range,
        }
    }

    /// The first `filled` bytes of segments without gaps.
    pub(crate) fn of_segments(segments: Segments, filled: usize) -> Self {
        Self {
            storage: Some(Rc::new(Storage::Segments(segments))),
            left: 0..filled,
        }
    }

    /// Cuts the first `count` bytes off, or all if there are not so many.
    pub(crate) fn split_to(&mut self, count: usize) -> Self {
        let middle = (self.left.start + count).min(self.left.end);
        let front = Self {
            storage: self.storage.clone(),
            left: self.left.start..middle,
        };
        self.left.start = middle;
        front
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.left.len()
    }

    fn chunk(&self) -> &[u8] {
        let bytes = match self.storage.as_deref() {
            None => &[],
            Some(Storage::Buffer(buffer)) => &**buffer,
            Some(Storage::Segments(segments)) => segments.bytes(),
        };
        bytes.get(self.left.clone()).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.left.start = (self.left.start + count).min(self.left.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::Class;

    #[test]
    fn a_chunk_is_the_range_of_its_buffer_and_shrinks_to_nothing() {
        let mut buffer = Buffer::take(Class::Small);
        buffer[2..5].copy_from_slice(b"abc");
        let mut chunk = Chunk::of_buffer(buffer, 2..5);
        assert_eq!((chunk.remaining(), chunk.chunk()), (3, &b"abc"[..]));
        chunk.advance(1);
        assert_eq!(chunk.chunk(), b"bc");
        assert_eq!(chunk.split_to(1).chunk(), b"b");
        assert_eq!(chunk.chunk(), b"c");
        assert_eq!(chunk.split_to(9).chunk(), b"c");
        assert_eq!((chunk.remaining(), chunk.chunk()), (0, &b""[..]));
        assert_eq!(Chunk::empty().remaining(), 0);
    }
}
