//! The chunked coding (RFC 9112 §7.1), decoded in place.
//!
//! Body bytes are moved to the front of the buffer they arrived in, so decoding
//! needs no second buffer; a chunk whose data already stands at the front is
//! not moved at all. Raw framing is never relayed: extensions are checked, counted
//! and dropped, and trailers kept as fields.

use super::super::error::ChunkError;
use super::super::trailers::Trailers;

/// Bytes of extensions behind one chunk size. Nobody is known to use more than
/// a signature's worth.
pub const MAX_EXTENSION: usize = 1024;

/// Bytes of extensions in a whole body. Without it, one-byte chunks with long
/// extensions make a receiver read a thousand times what it is given.
pub const MAX_EXTENSIONS_TOTAL: usize = 16 * 1024;

/// Bytes of trailers, line ends included: one large header buffer.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// Hexadecimal digits of a chunk size, leading zeros included: 64 bits' worth.
const MAX_SIZE_DIGITS: u8 = 16;

/// Where the decoder stands in one body.
///
/// ```text
/// Size ─┬─► SizeSpace ─► Extension ─┐
///       ├──────────────► Extension ─┤
///       └───────────────────────────┴─► SizeLf ─┬─► Data ─► DataCr ─► DataLf ─► Size
///                                               └─► TrailerStart ─┬─► EndLf ─► Done
///                                 TrailerLf ◄─ TrailerValue ◄─ TrailerName ◄─┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    SizeSpace { size: u64 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(ChunkError),
}

/// Decodes one chunked body, however its bytes are split.
#[derive(Debug, Clone)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of the extension being read; at most [`MAX_EXTENSION`].
    extension: usize,
    /// Bytes of all extensions; at most [`MAX_EXTENSIONS_TOTAL`].
    extensions: usize,
    /// At most [`MAX_TRAILERS`] bytes.
    trailers: Trailers,
}

/// What one call of [`ChunkedDecoder::decode`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of body data, now at the front of the input.
    pub produced: usize,
    /// Bytes of input used: all of it, unless the body is done. The bytes
    /// between `produced` and `consumed` are garbage.
    pub consumed: usize,
    /// The body is complete; what follows belongs to the next message.
    pub done: bool,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// At the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Size { digits: 0, size: 0 },
            extension: 0,
            extensions: 0,
            trailers: Trailers::default(),
        }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What came behind the body, when that is complete.
    pub fn take_trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.trailers)
    }

    /// Decodes in place; see [`Decoded`].
    ///
    /// # Errors
    ///
    /// Whatever is not the chunked coding, to the letter. The decoder keeps
    /// failing with the same error, and the connection cannot be used further.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, ChunkError> {
        let mut produced = 0;
        let mut consumed = 0;
        while consumed < input.len() {
            match self.state {
                State::Data { left } => {
                    let here = input.len() - consumed;
                    let take = usize::try_from(left).map_or(here, |left| left.min(here));
                    if produced != consumed {
                        input.copy_within(consumed..consumed + take, produced);
                    }
                    produced += take;
                    consumed += take;
                    let left = left - take as u64;
                    self.state = if left == 0 {
                        State::DataCr
                    } else {
                        State::Data { left }
                    };
                }
                State::Done => break,
                State::Failed(error) => return Err(error),
                state => {
                    let Some(byte) = input.get(consumed) else {
                        break;
                    };
                    self.state = match self.step(state, *byte) {
                        Ok(state) => state,
                        Err(error) => {
                            self.state = State::Failed(error);
                            return Err(error);
                        }
                    };
                    consumed += 1;
                }
            }
        }
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        Ok(Decoded {
            produced,
            consumed,
            done: self.is_done(),
        })
    }

    /// One byte of framing.
    fn step(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        Ok(match (state, byte) {
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let value = u64::from(hex_value(byte));
                if digits == MAX_SIZE_DIGITS || size > (i64::MAX as u64 - value) / 16 {
                    return Err(ChunkError::SizeOverflow);
                }
                State::Size {
                    digits: digits + 1,
                    size: size * 16 + value,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(ChunkError::InvalidSize),
            (State::Size { size, .. }, b'\r') => State::SizeLf { size },
            // White space is allowed only before a semicolon (RFC 9112 §7.1.1).
            (State::Size { size, .. } | State::SizeSpace { size }, b' ' | b'\t') => {
                self.count_extension()?;
                State::SizeSpace { size }
            }
            (State::Size { size, .. } | State::SizeSpace { size }, b';') => {
                self.count_extension()?;
                State::Extension { size }
            }
            (State::Size { .. } | State::SizeSpace { .. }, _) => {
                return Err(ChunkError::InvalidSize);
            }
            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, _) => {
                if is_control(byte) {
                    return Err(ChunkError::InvalidExtension);
                }
                self.count_extension()?;
                State::Extension { size }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => {
                self.extension = 0;
                State::Data { left: size }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            (State::SizeLf { .. } | State::DataCr | State::DataLf, _) => {
                return Err(ChunkError::InvalidLineEnd);
            }
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::EndLf | State::TrailerLf, b) if b != b'\n' => {
                return Err(ChunkError::InvalidLineEnd);
            }
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                self.keep_trailer(byte)?;
                State::TrailerName
            }
            (State::TrailerName, b':') => {
                self.keep_trailer(byte)?;
                State::TrailerValue
            }
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if !is_control(byte) => {
                self.keep_trailer(byte)?;
                State::TrailerValue
            }
            (State::TrailerLf, _) => {
                self.keep_trailer(byte)?;
                State::TrailerStart
            }
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                return Err(ChunkError::InvalidTrailer);
            }
            // `decode` takes these itself.
            (State::Data { .. } | State::Done | State::EndLf | State::Failed(_), _) => state,
        })
    }

    fn count_extension(&mut self) -> Result<(), ChunkError> {
        self.extension += 1;
        self.extensions += 1;
        if self.extension > MAX_EXTENSION || self.extensions > MAX_EXTENSIONS_TOTAL {
            return Err(ChunkError::ExtensionTooLong);
        }
        Ok(())
    }

    fn keep_trailer(&mut self, byte: u8) -> Result<(), ChunkError> {
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(ChunkError::TrailersTooLong);
        }
        self.trailers.push(byte);
        Ok(())
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// Control bytes but HTAB.
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// A byte of a token (RFC 9110 §5.6.2).
pub fn is_token(byte: u8) -> bool {
    lower_token(byte) != 0
}

/// A byte of a token in lower case; 0 for any other.
pub fn lower_token(byte: u8) -> u8 {
    LOWER.get(usize::from(byte)).copied().unwrap_or(0)
}

const LOWER: [u8; 256] = {
    let mut table = [0; 256];
    let (mut byte, mut rest) = (0_u8, table.as_mut_slice());
    while let Some((place, behind)) = rest.split_first_mut() {
        *place = match byte {
            b'A'..=b'Z' => byte.to_ascii_lowercase(),
            b'a'..=b'z'
            | b'0'..=b'9'
            | b'!'
            | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~' => byte,
            _ => 0,
        };
        (byte, rest) = (byte.wrapping_add(1), behind);
    }
    table
};

#[cfg(test)]
mod tests {
    use super::super::encode::{CHUNK_END, LAST_CHUNK, chunk_head};
    use super::*;
    use proptest::prelude::*;

    /// Decodes in pieces of the given sizes, then the rest; gives the body and
    /// what was left over.
    fn decode(input: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, Vec<u8>, bool), ChunkError> {
        let mut decoder = ChunkedDecoder::new();
        let mut body = Vec::new();
        let mut rest = input;
        let mut sizes = sizes.iter();
        loop {
            let size = sizes
                .next()
                .map_or(rest.len(), |size| size % (rest.len() + 1));
            let mut piece = rest[..size].to_vec();
            let decoded = decoder.decode(&mut piece)?;
            assert!(decoded.produced <= decoded.consumed);
            body.extend_from_slice(&piece[..decoded.produced]);
            rest = &rest[decoded.consumed..];
            if decoded.done || (rest.is_empty() && sizes.len() == 0) {
                assert_eq!(decoded.done, decoder.is_done());
                return Ok((body, rest.to_vec(), decoded.done));
            }
            assert_eq!(decoded.consumed, size);
        }
    }

    fn refused(input: &[u8]) -> ChunkError {
        decode(input, &[]).expect_err(&String::from_utf8_lossy(input))
    }

    #[test]
    fn a_body_is_decoded_and_what_follows_is_left() {
        let input = b"5\r\nhello\r\n00006;a=\"b\"\r\n world\r\n0\r\nX-T: 1\r\nY:\r\n\r\nGET /";
        let (body, rest, done) = decode(input, &[]).unwrap();
        assert_eq!(body, b"hello world");
        assert_eq!(rest, b"GET /");
        assert!(done);
    }

    #[test]
    fn a_finished_decoder_takes_nothing_more() {
        let mut decoder = ChunkedDecoder::new();
        assert!(decoder.decode(&mut b"0\r\n\r\n".to_vec()).unwrap().done);
        let again = decoder.decode(&mut b"5\r\nhello".to_vec()).unwrap();
        assert_eq!(
            again,
            Decoded {
                produced: 0,
                consumed: 0,
                done: true
            }
        );
    }

    #[test]
    fn chunk_sizes_are_held_to_their_syntax() {
        for input in [
            "\r\n", ";a\r\n", "+5\r\n", "-5\r\n", " 5\r\n", "0x5\r\n", "g\r\n", "5 \r\n",
            "5 5\r\n", "5\n",
        ] {
            assert_eq!(
                refused(input.as_bytes()),
                ChunkError::InvalidSize,
                "{input:?}"
            );
        }
        for input in [
            "8000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "00000000000000005\r\n",
        ] {
            assert_eq!(
                refused(input.as_bytes()),
                ChunkError::SizeOverflow,
                "{input:?}"
            );
        }
        assert!(!decode(b"7fffffffffffffff\r\nx", &[]).unwrap().2);
        assert_eq!(
            decode(b"0000000000000001 ; x\r\na\r\n0\r\n\r\n", &[])
                .unwrap()
                .0,
            b"a"
        );
    }

    #[test]
    fn line_ends_are_crlf() {
        for input in [
            "1;a\rb",
            "1\rx",
            "1\r\naX",
            "1\r\na\n",
            "1\r\na\rX",
            "1\r\na0\r\n",
            "0\r\n\rX",
            "0\r\nA: b\rX",
        ] {
            assert_eq!(
                refused(input.as_bytes()),
                ChunkError::InvalidLineEnd,
                "{input:?}"
            );
        }
        assert_eq!(refused(b"1;a\nb"), ChunkError::InvalidExtension);
        assert_eq!(refused(b"0\r\n\n"), ChunkError::InvalidTrailer);
        assert_eq!(refused(b"0\r\nA: b\n"), ChunkError::InvalidTrailer);
    }

    #[test]
    fn extensions_are_bounded_per_chunk_and_in_all() {
        let fits = format!("1;{}\r\na\r\n", "x".repeat(MAX_EXTENSION - 1));
        assert_eq!(decode(fits.as_bytes(), &[]).unwrap().0, b"a");
        assert_eq!(
            refused(format!("1;{}", "x".repeat(MAX_EXTENSION)).as_bytes()),
            ChunkError::ExtensionTooLong
        );
        let many = fits.repeat(MAX_EXTENSIONS_TOTAL / MAX_EXTENSION);
        assert!(decode(many.as_bytes(), &[]).is_ok());
        assert_eq!(
            refused(format!("{many}1;").as_bytes()),
            ChunkError::ExtensionTooLong
        );
        assert_eq!(refused(b"1;a\0"), ChunkError::InvalidExtension);
    }

    #[test]
    fn trailers_are_field_lines_and_bounded() {
        for trailer in [": a", "A b: c", " folded", "A : b", "A: b\0", "A"] {
            let input = format!("0\r\n{trailer}\r\n\r\n");
            assert_eq!(
                refused(input.as_bytes()),
                ChunkError::InvalidTrailer,
                "{trailer:?}"
            );
        }
        let long = format!("0\r\nA: {}", "x".repeat(MAX_TRAILERS));
        assert_eq!(refused(long.as_bytes()), ChunkError::TrailersTooLong);
        let many = format!("0\r\n{}", "A:\r\n".repeat(MAX_TRAILERS));
        assert_eq!(refused(many.as_bytes()), ChunkError::TrailersTooLong);
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = ChunkedDecoder::new();
        assert_eq!(
            decoder.decode(&mut b"x".to_vec()),
            Err(ChunkError::InvalidSize)
        );
        assert_eq!(
            decoder.decode(&mut b"0\r\n\r\n".to_vec()),
            Err(ChunkError::InvalidSize)
        );
        assert_eq!(decoder.decode(&mut []), Err(ChunkError::InvalidSize));
    }

    fn encode(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks {
            let (head, used) = chunk_head(chunk.len());
            wire.extend_from_slice(&head[..used]);
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(CHUNK_END);
        }
        wire.extend_from_slice(LAST_CHUNK);
        wire
    }

    proptest! {
        #[test]
        fn encode_then_decode_is_the_identity_for_any_split(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            tail in prop::collection::vec(any::<u8>(), 0..8),
            sizes in prop::collection::vec(0..30_usize, 0..40),
        ) {
            let wire = [encode(&chunks), tail.clone()].concat();
            let (body, rest, done) = decode(&wire, &sizes).unwrap();
            prop_assert!(done);
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(rest, tail);
        }

        #[test]
        fn any_split_of_anything_gives_the_same_outcome(
            parts in prop::collection::vec(prop::sample::select(vec![
                &b"0"[..], b"1", b"5", b"a", b"\r\n", b"\r\n", b"\r", b"\n", b";", b" ", b":", b"x", b"hello",
            ]), 0..16),
            sizes in prop::collection::vec(0..6_usize, 0..20),
        ) {
            let wire = parts.concat();
            match (decode(&wire, &[]), decode(&wire, &sizes)) {
                (Err(whole), Err(split)) => prop_assert_eq!(whole, split),
                (Ok(whole), Ok(split)) => prop_assert_eq!(whole, split),
                (whole, split) => prop_assert!(false, "{whole:?} but {split:?}"),
            }
        }
    }
}
