//! A send buffer that a message is written into, with room in front for a
//! TLS record header, so that it is encrypted where it was assembled.

use std::ops::Range;

use crate::http::h1::encode::Sink;
use crate::net::buffers::{Buffer, Class};
use crate::tls::record::{HEADROOM, TAILROOM};

/// Bytes to be sent. Grows from the worker's pool up to one large buffer.
#[derive(Debug, Default)]
pub(crate) struct Output {
    buffer: Option<Buffer>,
    /// Bytes written, behind [`HEADROOM`].
    length: usize,
    overflown: bool,
}

impl Output {
    /// What one output can hold.
    pub(crate) const CAPACITY: usize = Class::Large.size() - HEADROOM - TAILROOM;

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether something did not fit; it then holds only a part.
    pub(crate) fn is_overflown(&self) -> bool {
        self.overflown
    }

    /// How many more bytes fit into the record that has been begun.
    pub(crate) fn room_in_record(&self) -> usize {
        crate::tls::record::MAX_PLAINTEXT.saturating_sub(self.length)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes what was written: the buffer and where in it the bytes are.
    pub(crate) fn take(&mut self) -> Option<(Buffer, Range<usize>)> {
        let length = std::mem::take(&mut self.length);
        let buffer = self.buffer.take()?;
        (length > 0).then_some((buffer, HEADROOM..HEADROOM + length))
    }

    /// Where the next bytes go, so many of them, which count as written; nowhere
    /// if they do not fit.
    #[inline(never)]
    fn place(&mut self, length: usize) -> &mut [u8] {
        if self.length + length > Self::CAPACITY {
            self.overflown = true;
            return &mut [];
        }
        let start = HEADROOM + self.length;
        let end = start + length;
        let room = self.buffer.as_ref().map_or(0, |buffer| buffer.len());
        if room < end + TAILROOM {
            self.grow(end + TAILROOM);
        }
        self.length += length;
        let buffer = self.buffer.as_mut();
        let place = buffer.and_then(|buffer| buffer.get_mut(start..end));
        place.unwrap_or_default()
    }

    fn grow(&mut self, needed: usize) {
        let mut larger = Buffer::for_size(needed);
        if let Some(old) = self.buffer.take() {
            let used = HEADROOM..HEADROOM + self.length;
            if let (Some(target), Some(source)) = (larger.get_mut(used.clone()), old.get(used)) {
                target.copy_from_slice(source);
            }
        }
        self.buffer = Some(larger);
    }
}

impl Sink for Output {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.put_all([bytes]);
    }

    /// All of it or nothing.
    #[inline]
    fn put_all<const COUNT: usize>(&mut self, parts: [&[u8]; COUNT]) {
        let mut target = self.place(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            let Some((place, rest)) = target.split_at_mut_checked(part.len()) else {
                return;
            };
            place.copy_from_slice(part);
            target = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_out_in_order_across_growth() {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for n in 0..3000_u32 {
            let piece = n.to_string().into_bytes();
            output.put(&piece);
            expected.extend_from_slice(&piece);
        }
        let (buffer, range) = output.take().unwrap();
        assert_eq!(&buffer[range], expected);
        assert!(output.take().is_none());
    }

    #[test]
    fn too_much_is_noticed_and_not_written() {
        let mut output = Output::default();
        output.put(&vec![b'x'; Output::CAPACITY]);
        assert!(!output.is_overflown());
        output.put(b"y");
        assert!(output.is_overflown());
        assert_eq!(output.len(), Output::CAPACITY);
    }
}
