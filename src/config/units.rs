//! Numbers, sizes, times and flags, by Nginx's rules (`ngx_parse.c`).
//!
//! `None` stands for what Nginx calls an invalid value: an empty or signed
//! number, an unknown unit, an overflow.

use std::time::Duration;

/// The largest number Nginx takes: its integers are signed.
const MAX: u64 = i64::MAX as u64;

/// A number without sign.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value
            .checked_mul(10)?
            .checked_add(digit)
            .filter(|&value| value <= MAX)
    })
}

/// Bytes: `512`, `8k`, `10m`.
pub(crate) fn size(text: &[u8]) -> Option<usize> {
    let (digits, scale) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 1 << 10),
        (b'm' | b'M', digits) => (digits, 1 << 20),
        _ => (text, 1),
    };
    scaled(digits, scale).and_then(|value| value.try_into().ok())
}

/// Bytes where Nginx also takes gigabytes (bodies and files).
pub(crate) fn offset(text: &[u8]) -> Option<u64> {
    match text.split_last()? {
        (b'g' | b'G', digits) => scaled(digits, 1 << 30),
        _ => size(text).map(|value| value as u64),
    }
}

fn scaled(digits: &[u8], scale: u64) -> Option<u64> {
    number(digits)?
        .checked_mul(scale)
        .filter(|&value| value <= MAX)
}

/// A time to the millisecond: `60`, `500ms`, `1h 30m`, `1d12h`.
pub(crate) fn milliseconds(text: &[u8]) -> Option<Duration> {
    time(text, false).map(Duration::from_millis)
}

/// A time in whole seconds: as [`milliseconds`], without `ms`.
pub(crate) fn seconds(text: &[u8]) -> Option<Duration> {
    time(text, true).map(Duration::from_secs)
}

/// Where in the descending order of units a time has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Start,
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Last,
}

/// `ngx_parse_time`: units descend, each at most once; a bare number is seconds.
fn time(text: &[u8], whole_seconds: bool) -> Option<u64> {
    let per_second = if whole_seconds { 1 } else { 1000 };
    // Years and months exist only where seconds are counted, as in Nginx.
    let mut step = if whole_seconds {
        Step::Start
    } else {
        Step::Month
    };
    let (mut total, mut value, mut digits) = (0_u64, 0_u64, false);
    let mut bytes = text.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if byte.is_ascii_digit() {
            value = value
                .checked_mul(10)?
                .checked_add(u64::from(byte - b'0'))
                .filter(|&value| value <= MAX)?;
            digits = true;
            continue;
        }
        let mut factor = per_second;
        let (next, seconds) = match byte {
            b'y' if step < Step::Year => (Step::Year, 60 * 60 * 24 * 365),
            b'M' if step < Step::Month => (Step::Month, 60 * 60 * 24 * 30),
            b'w' if step < Step::Week => (Step::Week, 60 * 60 * 24 * 7),
            b'd' if step < Step::Day => (Step::Day, 60 * 60 * 24),
            b'h' if step < Step::Hour => (Step::Hour, 60 * 60),
            b'm' if bytes.peek() == Some(&&b's') => {
                if whole_seconds || step >= Step::Millisecond {
                    return None;
                }
                bytes.next();
                factor = 1;
                (Step::Millisecond, 1)
            }
            b'm' if step < Step::Minute => (Step::Minute, 60),
            b's' if step < Step::Second => (Step::Second, 1),
            b' ' if step < Step::Second => (Step::Last, 1),
            _ => return None,
        };
        step = next;
        let amount = value.checked_mul(seconds)?.checked_mul(factor)?;
        total = total.checked_add(amount).filter(|&total| total <= MAX)?;
        value = 0;
        while bytes.next_if_eq(&&b' ').is_some() {}
    }
    if !digits {
        return None;
    }
    total
        .checked_add(value.checked_mul(per_second)?)
        .filter(|&total| total <= MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_the_units_of_nginx() {
        assert_eq!(size(b"512"), Some(512));
        assert_eq!(size(b"8k"), Some(8192));
        assert_eq!(size(b"10M"), Some(10 << 20));
        assert_eq!(offset(b"2g"), Some(2 << 30));
        for bad in [
            "",
            "k",
            "-1",
            "+1",
            "1kk",
            "1g",
            "1 k",
            "9223372036854775808",
            "9223372036854775807k",
        ] {
            assert_eq!(size(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(offset(b"9223372036854775807g"), None);
        assert_eq!(offset(b""), None);
    }

    #[test]
    fn times_descend_through_their_units() {
        for (text, expected) in [
            ("60", 60_000),
            ("0", 0),
            ("500ms", 500),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1d12h", 129_600_000),
            ("1m 1s 1ms", 61_001),
            ("1m 5", 65_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(
                milliseconds(text.as_bytes()),
                Some(Duration::from_millis(expected)),
                "{text}"
            );
        }
        for bad in [
            "",
            "m",
            "1x",
            "1m 1h",
            "1s1s",
            "-1",
            "1y",
            "1M",
            "9223372036854775807",
            "1.5s",
        ] {
            assert_eq!(milliseconds(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(
            seconds(b"1y 2M"),
            Some(Duration::from_secs(31_536_000 + 5_184_000))
        );
        assert_eq!(seconds(b"10m"), Some(Duration::from_secs(600)));
        assert_eq!(seconds(b"5ms"), None);
    }

    proptest! {
        #[test]
        fn no_value_is_too_odd_to_be_parsed(text in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = (number(&text), size(&text), offset(&text), milliseconds(&text), seconds(&text));
        }

        #[test]
        fn a_number_is_what_it_says(value in 0..=MAX) {
            prop_assert_eq!(number(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn every_time_of_odd_characters_is_bounded(text in "[0-9yMwdhms ]{0,16}") {
            if let Some(time) = milliseconds(text.as_bytes()) {
                prop_assert!(time.as_millis() <= u128::from(MAX));
            }
        }
    }
}
