//! What has been received from a peer and not yet been used.

use std::ops::Range;

use crate::net::buffers::{Buffer, Class};

use super::exchange::Piece;
use super::runs::Runs;

/// What has been received and not yet been used.
///
/// Invariant: `plain.end <= cipher.start`; without TLS `cipher` is empty and
/// stands at `plain.end`. Without a buffer both are empty.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(super) buffer: Option<Buffer>,
    pub(super) plain: Range<usize>,
    pub(super) cipher: Range<usize>,
    pub(super) closed: bool,
}

/// Reading into less than this costs more in operations than moving what is
/// there to the front.
const MIN_ROOM: usize = 512;

impl Input {
    /// What a handshake leaves behind: ciphertext that came after it, and
    /// (rarely) plaintext that the handshake engine opened.
    pub(crate) fn after_handshake(plain: &[u8], cipher: &[u8]) -> Option<Self> {
        let total = plain.len() + cipher.len();
        if total == 0 {
            return Some(Self::default());
        }
        let mut buffer = Buffer::for_size(total);
        buffer.get_mut(..plain.len())?.copy_from_slice(plain);
        buffer.get_mut(plain.len()..total)?.copy_from_slice(cipher);
        Some(Self {
            buffer: Some(buffer),
            plain: 0..plain.len(),
            cipher: plain.len()..total,
            closed: false,
        })
    }

    /// What has been received before it was known to be plaintext.
    pub(crate) fn from_plaintext(bytes: &[u8]) -> Option<Self> {
        let mut input = Self::after_handshake(bytes, &[])?;
        input.cipher = input.plain.end..input.plain.end;
        Some(input)
    }

    /// Plaintext not yet used.
    pub(crate) fn plain(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .and_then(|buffer| buffer.get(self.plain.clone()))
            .unwrap_or_default()
    }

    /// The same, for decoding in place.
    pub(crate) fn plain_mut(&mut self) -> &mut [u8] {
        let range = self.plain.clone();
        self.buffer
            .as_mut()
            .and_then(|buffer| buffer.get_mut(range))
            .unwrap_or_default()
    }

    /// Marks `count` bytes of plaintext as used; gives the buffer back to the
    /// pool when nothing is left in it.
    pub(crate) fn consume(&mut self, count: usize) {
        self.plain.start = (self.plain.start + count).min(self.plain.end);
        if self.is_empty() {
            self.reset();
        }
    }

    /// No plaintext and no part of a record is waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.cipher.is_empty()
    }

    /// The peer has said that it will send nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Detaches the first `length` bytes of plaintext together with their
    /// buffer, so that they outlive what is received next. Returns the buffer
    /// and where in it they start.
    pub(crate) fn detach(&mut self, length: usize) -> (Buffer, usize) {
        let start = self.plain.start;
        self.plain.start = (start + length).min(self.plain.end);
        let Some(old) = self.buffer.take() else {
            return (Buffer::take(Class::Small), 0);
        };
        self.leave(&old);
        (old, start)
    }

    /// Lends the buffer with the first `length` bytes of plaintext, of which
    /// `consumed` are thereby used; [`Input::give_back`] must follow.
    pub(crate) fn lend_plain(&mut self, length: usize, consumed: usize) -> Option<Piece> {
        let start = self.plain.start;
        let end = (start + length).min(self.plain.end);
        let mut runs = Runs::default();
        runs.push(start..end);
        self.plain.start = (start + consumed).clamp(end, self.plain.end);
        self.lend_runs(runs)
    }

    /// The same of plaintext that was in here and is no longer.
    pub(super) fn lend_runs(&mut self, mut runs: Runs) -> Option<Piece> {
        let buffer = self.buffer.take()?;
        runs.end_at(match (self.plain.is_empty(), self.cipher.is_empty()) {
            (false, _) => self.plain.start,
            (true, false) => self.cipher.start,
            (true, true) => buffer.len(),
        });
        Some(Piece { buffer, runs })
    }

    /// Takes the buffer back.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.buffer = Some(buffer);
        self.consume(0);
    }

    /// Does without the buffer that is on loan: what else it holds is moved to
    /// another.
    pub(super) fn leave(&mut self, buffer: &Buffer) {
        let left = self.plain.len() + self.cipher.len();
        if left == 0 {
            return self.reset();
        }
        let mut new = Buffer::for_size(left);
        let (plain, cipher) = self.packed();
        copy(buffer, self.plain.clone(), &mut new, plain.clone());
        copy(buffer, self.cipher.clone(), &mut new, cipher.clone());
        (self.plain, self.cipher, self.buffer) = (plain, cipher, Some(new));
    }

    /// The buffer and where in it to receive.
    pub(super) fn lend(&mut self, want: Class) -> Option<(Buffer, Range<usize>)> {
        let buffer = match self.buffer.take() {
            None => {
                self.reset();
                Buffer::take(want)
            }
            Some(buffer) => self.with_room(buffer, want)?,
        };
        let range = self.cipher.end..buffer.len();
        Some((buffer, range))
    }

    /// Makes room behind what was received: by moving it to the front, or
    /// into a larger buffer.
    fn with_room(&mut self, mut buffer: Buffer, want: Class) -> Option<Buffer> {
        let used = self.cipher.end - self.plain.start;
        let record = buffer.get(self.cipher.clone()).map_or(0, record_length);
        let needed = (self.plain.len() + record).max(used + MIN_ROOM);
        if needed > buffer.len() || (used * 2 < want.size() && buffer.len() < want.size()) {
            if needed > Class::Large.size() {
                return None;
            }
            let mut larger = Buffer::for_size(needed.max(want.size()));
            let (plain, cipher) = self.packed();
            copy(&buffer, self.plain.clone(), &mut larger, plain.clone());
            copy(&buffer, self.cipher.clone(), &mut larger, cipher.clone());
            (self.plain, self.cipher) = (plain, cipher);
            return Some(larger);
        }
        let room = buffer.len() - self.cipher.end;
        let missing = record.saturating_sub(self.cipher.len());
        if room < MIN_ROOM.max(missing) {
            let (plain, cipher) = self.packed();
            buffer.copy_within(self.plain.clone(), plain.start);
            buffer.copy_within(self.cipher.clone(), cipher.start);
            (self.plain, self.cipher) = (plain, cipher);
        }
        Some(buffer)
    }

    /// Where plaintext and ciphertext lie when moved to the front.
    fn packed(&self) -> (Range<usize>, Range<usize>) {
        let plain = 0..self.plain.len();
        let cipher = plain.end..plain.end + self.cipher.len();
        (plain, cipher)
    }

    fn reset(&mut self) {
        self.buffer = None;
        self.plain = 0..0;
        self.cipher = 0..0;
    }
}

/// The whole length of the TLS record that starts here, 0 if its header is
/// not complete (RFC 8446 §5.1). For plaintext there is no ciphertext to ask.
fn record_length(cipher: &[u8]) -> usize {
    match cipher {
        [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

fn copy(from: &[u8], source: Range<usize>, to: &mut [u8], target: Range<usize>) {
    if let (Some(source), Some(target)) = (from.get(source), to.get_mut(target)) {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(plain: &[u8], cipher: &[u8]) -> Input {
        Input::after_handshake(plain, cipher).unwrap()
    }

    #[test]
    fn detaching_a_head_keeps_what_came_after_it() {
        let mut input = input(b"GET / HTTP/1.1\r\n\r\nnext", b"\x17\x03\x03");
        let (head, start) = input.detach(18);
        assert_eq!(&head[start..start + 18], b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(input.plain(), b"next");
        let (buffer, range) = input.lend(Class::Small).unwrap();
        assert_eq!(&buffer[range.start - 3..range.start], b"\x17\x03\x03");
    }

    #[test]
    fn room_is_made_for_the_record_that_has_begun() {
        let mut input = input(b"", &[0x17, 3, 3, 0x40, 0x11]);
        let (buffer, range) = input.lend(Class::Small).unwrap();
        assert!(buffer.len() >= 5 + 0x4011);
        assert_eq!(range.start, 5);
    }

    #[test]
    fn an_empty_input_holds_no_buffer() {
        let mut input = input(b"abc", b"");
        input.consume(3);
        assert!(input.buffer.is_none() && input.is_empty());
    }

    #[test]
    fn a_full_input_says_so() {
        let mut input = input(&vec![b'x'; Class::Large.size()], b"");
        assert!(input.lend(Class::Large).is_none());
    }
}
