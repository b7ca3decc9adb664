//! What holds for every byte of a value, found out eight bytes at a time.
//!
//! Values are some dozen bytes long and nearly all of them are clean, so there
//! is one answer for the whole and no place: a loop that leaves at the first
//! byte that matters takes four times the instructions.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Whether a byte is below 0x20 or is DEL.
#[must_use]
#[inline]
pub fn has_control(bytes: &[u8]) -> bool {
    any_word(bytes, |word| below(word, 0x20) | equal(word, 0x7f))
}

/// Whether a byte is outside 0x20–0x7E, or `"`, or `\`.
#[must_use]
#[inline]
pub fn has_special(bytes: &[u8]) -> bool {
    any_word(bytes, |word| {
        let outside = below(word, 0x20) | equal(word, 0x7f) | (word & HIGHS);
        outside | equal(word, b'"') | equal(word, b'\\')
    })
}

/// The word with its ASCII letters in lower case.
#[must_use]
#[inline]
pub const fn lower(word: u64) -> u64 {
    // Without their highest bits no byte's sum runs into the next one.
    let low = word & !HIGHS;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let behind_z = low + ONES * (0x7f - b'Z' as u64);
    let letters = (from_a ^ behind_z) & !word & HIGHS;
    word | (letters >> 2)
}

/// Whether `test` gives anything but 0 for one of the words that make up
/// `bytes`; no test may do so for a word of letters alone.
#[inline]
fn any_word(bytes: &[u8], test: impl Fn(u64) -> u64) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut found = 0;
    for word in words {
        found |= test(u64::from_ne_bytes(*word));
    }
    if !rest.is_empty() {
        // Overlapping what was looked at already, where there is so much.
        let last = bytes.last_chunk::<8>().copied().unwrap_or_else(|| {
            let mut padded = [b'a'; 8];
            for (place, byte) in padded.iter_mut().zip(rest) {
                *place = *byte;
            }
            padded
        });
        found |= test(u64::from_ne_bytes(last));
    }
    found != 0
}

/// Not 0 if a byte of the word is below `bound`, which is at most 0x80. Which
/// bits are set says nothing: a borrow may run into the next byte, but only
/// from one that is below.
#[inline]
fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHS
}

/// Not 0 if a byte of the word is this one.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_and_bytes_say_the_same(
            text in "[ -~\\t]{0,40}",
            strange in prop::option::of((0..40_usize, any::<u8>())),
        ) {
            let mut bytes = text.into_bytes();
            if let Some((place, byte)) = strange {
                bytes.insert(place.min(bytes.len()), byte);
            }
            let control = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
            let special = |byte: &u8| !(0x20..0x7f).contains(byte) || b"\"\\".contains(byte);
            prop_assert_eq!(has_control(&bytes), bytes.iter().any(control));
            prop_assert_eq!(has_special(&bytes), bytes.iter().any(special));
        }

        #[test]
        fn a_word_in_lower_case_is_its_bytes_in_lower_case(bytes: [u8; 8]) {
            let lowered = lower(u64::from_le_bytes(bytes));
            prop_assert_eq!(lowered.to_le_bytes().to_vec(), bytes.to_ascii_lowercase());
        }
    }
}
