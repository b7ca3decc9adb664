//! The Huffman code of strings (RFC 7541 §5.2 and appendix B).
//!
//! Only the lengths of the codes are written down: the code is canonical, so
//! that they are counted up from the shortest on, by symbol. Everything else is
//! built from that by the compiler.
//!
//! Nothing here encodes outside of tests: see [`super::encode`] for why.

use super::HpackError;

/// Each symbol's code's length in bits; the last is the string's end.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// How many lengths there are: none of 9, 16, 17, 18 and 29 bits.
const GROUP_COUNT: usize = 21;

/// How many bits are looked up at once: enough for two of the commonest symbols
/// (5 or 6 bits each).
const STEP: u32 = 11;

/// The codes of one length. Codes are at the top of 32 bits here.
#[derive(Clone, Copy)]
struct Group {
    /// What all of its codes, and all shorter ones, are less than.
    below: u64,
    first: u32,
    length: u32,
    /// Where its symbols begin in [`Code::symbols`].
    at: usize,
}

struct Code {
    /// From the shortest length on.
    groups: [Group; GROUP_COUNT],
    /// By their codes.
    symbols: [u16; 257],
    /// By the next [`STEP`] bits.
    steps: [Step; 1 << STEP],
}

/// What some bits begin with.
#[derive(Clone, Copy)]
struct Step {
    symbols: [u8; 2],
    /// How many of `symbols` there are. None if the first is longer than a step.
    count: u8,
    /// How many bits they take.
    length: u8,
}

static CODE: Code = {
    const BUILT: Code = build();
    BUILT
};

#[expect(
    clippy::indexing_slicing,
    reason = "runs in the compiler only, where a wrong index is an error"
)]
const fn build() -> Code {
    let none = Group {
        below: 0,
        first: 0,
        length: 0,
        at: 0,
    };
    let mut groups = [none; GROUP_COUNT];
    let mut symbols = [0; 257];
    let (mut code, mut at, mut group, mut length) = (0_u64, 0, 0, SHORTEST);
    while length <= LONGEST {
        let (first, start) = (code, at);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[at] = symbol as u16;
                at += 1;
                code += 1 << (32 - length);
            }
            symbol += 1;
        }
        if at > start {
            groups[group] = Group {
                below: code,
                first: first as u32,
                length: length as u32,
                at: start,
            };
            group += 1;
        }
        length += 1;
    }
    // Every string of bits is one of codes, and no code is another's beginning.
    assert!(code == 1 << 32 && group == GROUP_COUNT && at == symbols.len());

    let mut steps = [Step {
        symbols: [0; 2],
        count: 0,
        length: 0,
    }; 1 << STEP];
    let mut index = 0;
    while index < steps.len() {
        let mut bits = (index as u32) << (32 - STEP);
        let mut step = steps[index];
        let mut left = STEP;
        while step.count < 2 {
            let mut group = 0;
            while bits as u64 >= groups[group].below {
                group += 1;
            }
            let Group {
                first, length, at, ..
            } = groups[group];
            if length > left {
                break;
            }
            let symbol = symbols[at + ((bits - first) >> (32 - length)) as usize];
            step.symbols[step.count as usize] = symbol as u8;
            step.count += 1;
            step.length += length as u8;
            left -= length;
            bits <<= length;
        }
        steps[index] = step;
        index += 1;
    }
    Code {
        groups,
        symbols,
        steps,
    }
}

/// How much room [`decode`] needs for `length` bytes: the shortest code has five
/// bits, and it writes two symbols when there is but one.
pub(super) fn room(length: usize) -> usize {
    length.saturating_mul(8) / SHORTEST + 2
}

/// Decodes a string, and says how long it is in `out`, which has at least
/// [`room`] for it.
///
/// # Errors
/// There is a code for the string's end in it, or what follows its last code is
/// not the beginning of that, of less than a byte.
pub(super) fn decode(input: &[u8], out: &mut [u8]) -> Result<usize, HpackError> {
    let mut rest = input;
    // At the top of `bits`, zeros below.
    let (mut bits, mut valid) = (0_u64, 0_u32);
    let mut length = 0;
    while let Some((next, after)) = rest.split_first_chunk::<4>() {
        // Less than 30 bits are left from before.
        bits |= u64::from(u32::from_be_bytes(*next)) << (32 - valid);
        valid += 32;
        rest = after;
        while valid >= LONGEST as u32 {
            let step = CODE.steps.get((bits >> (64 - STEP)) as usize);
            let step = *step.ok_or(HpackError::Huffman)?;
            let taken = if step.count > 0 {
                let place = out.get_mut(length..).and_then(<[u8]>::first_chunk_mut);
                *place.ok_or(HpackError::Huffman)? = step.symbols;
                length += usize::from(step.count);
                step.length.into()
            } else {
                long(bits, out, &mut length)?
            };
            bits <<= taken;
            valid -= taken;
        }
    }
    for byte in rest {
        bits |= u64::from(*byte) << (56 - valid);
        valid += 8;
    }
    // Padding is of ones, so that bits which are not there look like more of it.
    bits |= u64::MAX >> valid;
    loop {
        let (symbol, taken) = next(bits).ok_or(HpackError::Huffman)?;
        if taken > valid {
            break;
        }
        put(symbol, out, &mut length)?;
        bits = !(!bits << taken);
        valid -= taken;
    }
    if valid < 8 && bits == u64::MAX {
        Ok(length)
    } else {
        Err(HpackError::Huffman)
    }
}

/// A code that is longer than a step.
#[inline(never)]
fn long(bits: u64, out: &mut [u8], length: &mut usize) -> Result<u32, HpackError> {
    let (symbol, taken) = next(bits).ok_or(HpackError::Huffman)?;
    put(symbol, out, length)?;
    Ok(taken)
}

fn put(symbol: u16, out: &mut [u8], length: &mut usize) -> Result<(), HpackError> {
    // The end is no symbol of a string.
    let symbol = u8::try_from(symbol).map_err(|_| HpackError::Huffman)?;
    *out.get_mut(*length).ok_or(HpackError::Huffman)? = symbol;
    *length += 1;
    Ok(())
}

/// What the topmost bits are the code of, and how many they are.
fn next(bits: u64) -> Option<(u16, u32)> {
    let top = (bits >> 32) as u32;
    let group = CODE.groups.iter().find(|at| u64::from(top) < at.below)?;
    let after = (top - group.first) >> (32 - group.length);
    let symbol = CODE.symbols.get(group.at + after as usize)?;
    Some((*symbol, group.length))
}

/// Encodes a string, as other implementations do.
#[cfg(test)]
pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut valid) = (0_u64, 0);
    for byte in input {
        let (code, length) = code(u16::from(*byte));
        bits = bits << length | u64::from(code);
        valid += length;
        while valid >= 8 {
            valid -= 8;
            out.push((bits >> valid) as u8);
        }
    }
    if valid > 0 {
        out.push((bits << (8 - valid)) as u8 | 0xff >> valid);
    }
}

/// A symbol's code, and its length in bits.
#[cfg(test)]
fn code(symbol: u16) -> (u32, u32) {
    let at = CODE.symbols.iter().position(|at| *at == symbol).unwrap();
    let group = CODE
        .groups
        .iter()
        .rev()
        .find(|group| group.at <= at)
        .unwrap();
    let code = group.first >> (32 - group.length);
    (code + (at - group.at) as u32, group.length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const END: u16 = 256;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = vec![0; room(input.len())];
        let length = decode(input, &mut out)?;
        out.truncate(length);
        Ok(out)
    }

    #[test]
    fn codes_are_those_of_the_rfcs_table() {
        for (symbol, bits, length) in [
            (u16::from(b'0'), 0x0, 5),
            (b't'.into(), 0x9, 5),
            (b' '.into(), 0x14, 6),
            (b'u'.into(), 0x2d, 6),
            (b':'.into(), 0x5c, 7),
            (b'z'.into(), 0x7b, 7),
            (b'&'.into(), 0xf8, 8),
            (b'?'.into(), 0x3fc, 10),
            (b'|'.into(), 0x7fc, 11),
            (b'#'.into(), 0xffa, 12),
            (b'~'.into(), 0x1ffd, 13),
            (b'^'.into(), 0x3ffc, 14),
            (b'{'.into(), 0x7ffe, 15),
            (b'\\'.into(), 0x7fff0, 19),
            (128, 0xfffe6, 20),
            (255, 0x3ffffee, 26),
            (249, 0xffffffe, 28),
            (22, 0x3ffffffe, 30),
            (END, 0x3fffffff, 30),
        ] {
            assert_eq!(code(symbol), (bits, length), "{symbol}");
        }
    }

    #[test]
    fn the_end_of_a_string_is_refused_within_it() {
        for input in [
            &[0xff, 0xff, 0xff, 0xff][..],
            &[0xff, 0xff, 0xff, 0xfc],
            &[0x07, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(decoded(input), Err(HpackError::Huffman), "{input:?}");
        }
    }

    #[test]
    fn padding_is_of_ones_and_less_than_a_byte() {
        assert_eq!(decoded(&[0x07]), Ok(b"0".to_vec()));
        // Zeros, a whole byte, three bytes, and one code in part.
        for input in [
            &[0x00][..],
            &[0x07, 0xff],
            &[0xff],
            &[0xff; 3],
            &[0x06],
            &[0xfe],
        ] {
            assert_eq!(decoded(input), Err(HpackError::Huffman), "{input:?}");
        }
    }

    #[test]
    fn every_symbol_comes_through_beside_every_other() {
        for first in 0..=255_u8 {
            for second in 0..=255 {
                let text = [first, second, b'a', first];
                let mut out = Vec::new();
                encode(&text, &mut out);
                assert_eq!(decoded(&out), Ok(text.to_vec()));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            encode(&text, &mut out);
            prop_assert_eq!(decoded(&out), Ok(text));
        }

        /// There is one encoding of a string.
        #[test]
        fn any_bytes_are_a_strings_code_or_refused(input in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(text) = decoded(&input) {
                let mut out = Vec::new();
                encode(&text, &mut out);
                prop_assert_eq!(out, input);
            }
        }
    }
}
