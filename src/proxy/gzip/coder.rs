//! The compressor, in pieces of bounded size.

use flate2::{Compress, Compression, FlushCompress, Status};

/// Bytes that one step makes at the most.
const PIECE: usize = 16 << 10;
/// zlib's largest window, as a power of two; Nginx's default.
const WINDOW: u8 = 15;
/// The smallest that zlib has for gzip.
const MIN_WINDOW: u8 = 9;

/// Compresses a body.
#[derive(Debug)]
pub(super) struct Coder {
    zlib: Compress,
    out: Box<[u8]>,
    /// Something was put in since the last flush.
    is_dirty: bool,
}

/// What a step is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// As much as can be kept back is.
    Write,
    /// Everything comes out that was put in.
    Flush,
    /// The end.
    Finish,
}

impl Coder {
    /// For a body of this many bytes, if that is known: a small one needs
    /// little of the quarter of a megabyte that a whole window takes.
    pub(super) fn new(level: u32, length: Option<u64>) -> Self {
        let mut window = WINDOW;
        if let Some(length) = length.filter(|length| *length > 0) {
            // zlib uses 262 bytes less than there are.
            while window > MIN_WINDOW && length + 262 < 1 << (window - 1) {
                window -= 1;
            }
        }
        Self {
            zlib: Compress::new_gzip(Compression::new(level), window),
            out: vec![0; PIECE].into_boxed_slice(),
            is_dirty: false,
        }
    }

    /// Takes in what it can of `input` and gives what came out, and whether
    /// the step is complete; until it is, it must be called again with what is
    /// left.
    pub(super) fn step(&mut self, input: &mut &[u8], step: Step) -> Option<(&[u8], bool)> {
        if step == Step::Flush && !self.is_dirty && input.is_empty() {
            return Some((&[], true));
        }
        let flush = match step {
            Step::Write => FlushCompress::None,
            Step::Flush => FlushCompress::Sync,
            Step::Finish => FlushCompress::Finish,
        };
        let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
        let status = self.zlib.compress(input, &mut self.out, flush).ok()?;
        let read = usize::try_from(self.zlib.total_in() - read).ok()?;
        let written = usize::try_from(self.zlib.total_out() - written).ok()?;
        *input = input.get(read..)?;
        self.is_dirty = step == Step::Write && (self.is_dirty || read > 0);
        let is_complete = match step {
            Step::Write => input.is_empty() && written < self.out.len(),
            // A full buffer may be hiding more.
            Step::Flush => written < self.out.len(),
            Step::Finish => status == Status::StreamEnd,
        };
        if step == Step::Flush && !is_complete {
            self.is_dirty = true;
        }
        Some((self.out.get(..written)?, is_complete))
    }

    /// What went in by what came out, in hundredths, rounded as Nginx does it.
    pub(super) fn ratio(&self) -> u64 {
        let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
        let of = |parts: u64| {
            (read.saturating_mul(parts))
                .checked_div(written)
                .unwrap_or(0)
        };
        of(100) + u64::from(of(1000) % 10 > 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn run(coder: &mut Coder, mut input: &[u8], step: Step, out: &mut Vec<u8>) {
        loop {
            let (piece, is_complete) = coder.step(&mut input, step).unwrap();
            out.extend_from_slice(piece);
            if is_complete {
                return;
            }
        }
    }

    proptest! {
        #[test]
        fn decompressing_gives_back_what_was_put_in(
            pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40_000), any::<bool>()), 0..6),
            level in 1..=9u32,
            known: bool,
        ) {
            let whole: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            let mut coder = Coder::new(level, known.then_some(whole.len() as u64));
            let mut coded = Vec::new();
            let mut fed = 0;
            for (piece, flush) in &pieces {
                run(&mut coder, piece, Step::Write, &mut coded);
                fed += piece.len();
                if *flush {
                    run(&mut coder, &[], Step::Flush, &mut coded);
                    let mut seen = vec![0; fed];
                    flate2::read::GzDecoder::new(&*coded).read_exact(&mut seen).unwrap();
                    prop_assert!(seen == whole[..fed], "a flush holds nothing back");
                    let length = coded.len();
                    run(&mut coder, &[], Step::Flush, &mut coded);
                    prop_assert_eq!(coded.len(), length);
                }
            }
            run(&mut coder, &[], Step::Finish, &mut coded);
            let mut seen = Vec::new();
            flate2::read::GzDecoder::new(&*coded).read_to_end(&mut seen).unwrap();
            prop_assert!(seen == whole);
        }
    }
}
