//! Numbers that begin in the low bits of a byte (RFC 7541 §5.1).

use super::HpackError;

/// How many bytes may follow the first: 28 bits are 256 MiB, more than any block
/// of fields that is taken, and cannot overflow.
const MAX_CONTINUATION: u32 = 4;

/// The number that starts in the low `prefix` bits of `first`, the rest of which
/// is taken off `rest`.
///
/// # Errors
/// `rest` ends before it does, or it is longer than [`MAX_CONTINUATION`].
#[inline]
pub(super) fn read(first: u8, prefix: u32, rest: &mut &[u8]) -> Result<usize, HpackError> {
    let limit = (1_u8 << prefix) - 1;
    let low = first & limit;
    if low < limit {
        return Ok(low.into());
    }
    read_rest(limit, rest)
}

fn read_rest(limit: u8, rest: &mut &[u8]) -> Result<usize, HpackError> {
    let mut value = usize::from(limit);
    for position in 0..MAX_CONTINUATION {
        let (&byte, after) = rest.split_first().ok_or(HpackError::Truncated)?;
        *rest = after;
        value += usize::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(HpackError::Integer)
}

/// Writes `value` with `high` in the bits above the lowest `prefix`.
#[inline]
pub(super) fn write(value: usize, prefix: u32, high: u8, out: &mut Vec<u8>) {
    let limit = (1_u8 << prefix) - 1;
    match u8::try_from(value) {
        Ok(low) if low < limit => out.push(high | low),
        _ => {
            out.push(high | limit);
            write_rest(value - usize::from(limit), out);
        }
    }
}

fn write_rest(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: usize, prefix: u32) -> Vec<u8> {
        let mut out = Vec::new();
        write(value, prefix, 0, &mut out);
        out
    }

    #[test]
    fn numbers_are_written_as_in_the_rfcs_examples() {
        assert_eq!(written(10, 5), [10]);
        assert_eq!(written(1337, 5), [31, 154, 10]);
        assert_eq!(written(42, 7), [42]);
        assert_eq!(written(31, 5), [31, 0]);
    }

    #[test]
    fn what_is_written_is_read_again_and_no_byte_more() {
        for prefix in 4..=7 {
            for value in (0..600).chain([16_383, 16_511, 65_536, (1 << 28) - 1]) {
                let mut bytes = written(value, prefix);
                bytes.push(0xaa);
                let mut rest = &bytes[1..];
                assert_eq!(read(bytes[0], prefix, &mut rest), Ok(value));
                assert_eq!(rest, [0xaa]);
            }
        }
    }

    #[test]
    fn a_number_without_end_or_beyond_28_bits_is_refused() {
        for (bytes, expected) in [
            (&[][..], HpackError::Truncated),
            (&[0x80, 0x80], HpackError::Truncated),
            (&[0xff, 0xff, 0xff, 0xff, 0x00], HpackError::Integer),
            (&[0x80; 100], HpackError::Integer),
        ] {
            let mut rest = bytes;
            assert_eq!(read(0x7f, 7, &mut rest), Err(expected), "{bytes:?}");
        }
    }
}
