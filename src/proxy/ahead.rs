//! The beginning of a request body, read before a backend is chosen, so that
//! none waits for a slow client and a short body can be sent again.

use crate::net::buffers::{Buffer, Class};
use crate::tls::record::{HEADROOM, TAILROOM};

use super::exchange::{BodyError, BodySource, Piece};

/// What has been read ahead of a body.
#[derive(Debug)]
pub(crate) struct Ahead {
    bytes: Vec<u8>,
    /// How much of it has been given on. At most `bytes.len()`.
    given: usize,
    /// Nothing of the body lies behind it.
    is_whole: bool,
}

impl Ahead {
    /// Reads the first `limit` bytes of a body, or all if it is shorter;
    /// `expected` is how many that will be, as far as is known.
    ///
    /// # Errors
    /// [`BodyError`]. Cancelling it loses bytes.
    pub(super) async fn read(
        body: &mut impl BodySource,
        limit: usize,
        expected: usize,
    ) -> Result<Box<Self>, BodyError> {
        let mut bytes = Vec::with_capacity(expected.min(limit));
        while bytes.len() < limit && !body.is_finished() {
            if let Some(piece) = body.next().await? {
                piece.parts().for_each(|part| bytes.extend_from_slice(part));
                body.give_back(piece.buffer);
            }
        }
        Ok(Box::new(Self::new(bytes, body.is_finished())))
    }

    fn new(bytes: Vec<u8>, is_whole: bool) -> Self {
        Self {
            bytes,
            given: 0,
            is_whole,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The body, if all of it is here.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.is_whole.then_some(&*self.bytes)
    }

    /// All of the body can still be given on.
    pub(super) fn is_intact(&self) -> bool {
        self.is_whole || self.given == 0
    }

    pub(super) fn rewind(&mut self) {
        self.given = 0;
    }

    pub(super) fn has_piece(&self) -> bool {
        self.given < self.bytes.len()
    }

    /// The next part, in a buffer with room for a record's frame round it.
    pub(super) fn next(&mut self) -> Option<Piece> {
        const MOST: usize = Class::Large.size() - HEADROOM - TAILROOM;
        let rest = self.bytes.get(self.given..)?;
        let part = rest.get(..MOST).unwrap_or(rest);
        if part.is_empty() {
            return None;
        }
        let mut buffer = Buffer::for_size(HEADROOM + part.len() + TAILROOM);
        let range = HEADROOM..HEADROOM + part.len();
        buffer.get_mut(range.clone())?.copy_from_slice(part);
        self.given += part.len();
        Some(Piece::alone(buffer, range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_comes_in_order_and_again_after_a_rewind() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let mut ahead = Ahead::new(bytes.clone(), true);
        for _ in 0..2 {
            let mut given = Vec::new();
            while let Some(piece) = ahead.next() {
                piece.parts().for_each(|part| given.extend_from_slice(part));
            }
            assert!(given == bytes && !ahead.has_piece());
            ahead.rewind();
        }
    }
}
