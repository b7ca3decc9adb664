//! Range requests (RFC 9110 §14), read as Nginx reads them.

use std::ops::Range;

/// What a Range field asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Everything, as if it were not there.
    Whole,
    /// These parts of the file, none empty, in the order asked for.
    Parts(Vec<Range<u64>>),
    /// Nothing that the file has: 416.
    Unsatisfiable,
}

/// Reads the value of a Range field for a file of `size` bytes; of more than
/// `max` ranges none is honoured.
pub(super) fn parse(value: &[u8], size: u64, max: u64) -> Asked {
    // "bytes=" and at least one byte more; other units are not known.
    let Some((unit, list)) = value.split_at_checked(6) else {
        return Asked::Whole;
    };
    if !unit.eq_ignore_ascii_case(b"bytes=") || list.is_empty() {
        return Asked::Whole;
    }
    let mut parts = Vec::new();
    let mut total = 0u64;
    for range in list.split(|byte| *byte == b',') {
        let Some(range) = parse_one(range, size) else {
            return Asked::Unsatisfiable;
        };
        if range.start < range.end {
            total = total.saturating_add(range.end - range.start);
            parts.push(range);
            if parts.len() as u64 > max {
                return Asked::Whole;
            }
        } else if range.start == 0 {
            return Asked::Whole;
        }
    }
    if parts.is_empty() {
        Asked::Unsatisfiable
    } else if total > size {
        // Ranges that overlap would make an answer larger than the file.
        Asked::Whole
    } else {
        Asked::Parts(parts)
    }
}

/// `FIRST-LAST`, `FIRST-` or `-COUNT`, with spaces round them; `None` if it is
/// none of these. The end lies behind the last byte.
fn parse_one(range: &[u8], size: u64) -> Option<Range<u64>> {
    let dash = memchr::memchr(b'-', range)?;
    let first = trim(range.get(..dash)?);
    let last = range.get(dash + 1..)?;
    if first.is_empty() {
        // Nginx takes no space between the dash and the count.
        let count = number(last.trim_ascii_end())?;
        return Some(size.saturating_sub(count)..size);
    }
    let start = number(first)?;
    let last = trim(last);
    if last.is_empty() {
        return Some(start..size);
    }
    let end = number(last)?;
    Some(start..end.saturating_add(1).min(size))
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    i64::try_from(number).is_ok().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_nginx_reads_them() {
        let parts = |list: &[(u64, u64)]| Asked::Parts(list.iter().map(|(a, b)| *a..*b).collect());
        for (value, asked) in [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("BYTES=2-", parts(&[(2, 10)])),
            ("bytes=-3", parts(&[(7, 10)])),
            ("bytes=-30", parts(&[(0, 10)])),
            ("bytes=0-99", parts(&[(0, 10)])),
            ("bytes= 1 - 2 , 4-5", parts(&[(1, 3), (4, 6)])),
            ("bytes=5-6,1-2", parts(&[(5, 7), (1, 3)])),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=3-2", Asked::Unsatisfiable),
            ("bytes=3-2,1-1", parts(&[(1, 2)])),
            ("bytes=0-9,0-9", Asked::Whole),
            ("bytes=0-0,1-1,2-2,3-3", Asked::Whole),
            ("bytes=a-b", Asked::Unsatisfiable),
            ("bytes=1", Asked::Unsatisfiable),
            ("bytes=1-2,", Asked::Unsatisfiable),
            ("bytes=9999999999999999999-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=", Asked::Whole),
            ("items=0-1", Asked::Whole),
        ] {
            assert_eq!(parse(value.as_bytes(), 10, 3), asked, "{value}");
        }
        assert_eq!(parse(b"bytes=0-0", 0, 3), Asked::Whole);
        assert_eq!(parse(b"bytes=-1", 0, 3), Asked::Whole);
    }

    proptest! {
        #[test]
        fn no_range_reaches_beyond_the_file(value in "bytes=[-0-9, ]{0,20}", size in 0..50u64) {
            if let Asked::Parts(parts) = parse(value.as_bytes(), size, u64::MAX) {
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
                let total: u64 = parts.iter().map(|part| part.end - part.start).sum();
                prop_assert!(total <= size);
            }
        }
    }
}
