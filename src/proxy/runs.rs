//! Bytes that lie in one buffer in several runs: the plaintext of TLS records, each
//! where its record was opened.
//!
//! What is sent on from there in one go is not moved together first: over
//! plain TCP the runs are the slices of one send, and over TLS each is sealed in
//! the very bytes that its record took up before.

use std::io::IoSlice;
use std::ops::Range;

use smallvec::SmallVec;

use crate::tls::record::MAX_PLAINTEXT;

/// As many slices as the kernel takes without allocating (`UIO_FASTIOV`).
const MOST: usize = 8;

/// The places of the bytes, in order, none of them empty.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    ranges: SmallVec<[Range<usize>; MOST]>,
    /// Where in the buffer something else begins.
    end: usize,
}

impl Runs {
    /// Adds a run behind the others.
    pub(super) fn push(&mut self, range: Range<usize>) {
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.ranges.push(range),
        }
    }

    /// Says where in the buffer something else begins.
    pub(super) fn end_at(&mut self, end: usize) {
        self.end = end;
    }

    /// No run that has a gap before it is to be added.
    pub(super) fn is_full(&self) -> bool {
        self.ranges.len() >= MOST
    }

    /// The last, to be made longer.
    pub(super) fn last_mut(&mut self) -> Option<&mut Range<usize>> {
        self.ranges.last_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes of all.
    pub(super) fn len(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Takes at most so many bytes from the front of the first.
    pub(super) fn take_front(&mut self, most: usize) -> Range<usize> {
        let Some(first) = self.ranges.first_mut() else {
            return 0..0;
        };
        let taken = first.start..first.end.min(first.start + most);
        first.start = taken.end;
        if Range::is_empty(first) {
            self.ranges.remove(0);
        }
        taken
    }

    /// The places, one for each run.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.ranges.iter().cloned()
    }

    /// The bytes of each run.
    pub(super) fn parts<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        self.ranges()
            .map(|range| bytes.get(range).unwrap_or_default())
    }

    /// The same, to be sent.
    pub(super) fn slices<'b>(&self, bytes: &'b [u8]) -> SmallVec<[IoSlice<'b>; MOST]> {
        self.parts(bytes).map(IoSlice::new).collect()
    }

    /// Whether each run fits a TLS record and has room for one round it: `before`
    /// bytes in front and `behind` bytes behind that are nobody else's.
    pub(super) fn have_room(&self, before: usize, behind: usize) -> bool {
        let mut free = 0;
        self.ranges.iter().all(|range| {
            let begins = range.start.checked_sub(before);
            let has_room = begins.is_some_and(|begins| begins >= free);
            free = range.end + behind;
            has_room && range.len() <= MAX_PLAINTEXT && free <= self.end
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(ranges: &[Range<usize>], end: usize) -> Runs {
        let mut runs = Runs::default();
        for range in ranges {
            runs.push(range.clone());
        }
        runs.end_at(end);
        runs
    }

    #[test]
    fn what_adjoins_is_one_run() {
        let runs = runs(&[0..0, 3..5, 5..9, 10..12], 12);
        assert_eq!(runs.ranges().collect::<Vec<_>>(), [3..9, 10..12]);
        assert_eq!(runs.len(), 8);
        let parts = runs.parts(b"0123456789ab").collect::<Vec<_>>();
        assert_eq!(parts, [&b"345678"[..], b"ab"]);
    }

    #[test]
    fn the_front_is_taken_of_the_first_alone() {
        let mut runs = runs(&[3..5, 10..12], 12);
        assert_eq!(runs.take_front(1), 3..4);
        assert_eq!(runs.take_front(9), 4..5);
        assert_eq!(runs.take_front(9), 10..12);
        assert!(runs.is_empty());
        assert_eq!(runs.take_front(9), 0..0);
    }

    #[test]
    fn nothing_of_others_is_sealed_over() {
        // Two records of TLS 1.3 with five bytes each.
        let two = [5..10, 32..37];
        assert!(runs(&two, 54).have_room(5, 17));
        assert!(!runs(&two, 53).have_room(5, 17), "what follows");
        assert!(!runs(&two, 54).have_room(6, 17), "what is before");
        assert!(!runs(&two, 54).have_room(5, 18), "a neighbour");
        assert!(runs(&[], 0).have_room(5, 17));
        let too_long = [5..5 + MAX_PLAINTEXT + 1, 20_000..20_001];
        assert!(!runs(&too_long, 70_000).have_room(5, 17));
    }
}
