//! Dates in the one form that HTTP still writes (RFC 9110 §5.6.7):
//! `Sun, 06 Nov 1994 08:49:37 GMT`.

/// The length of every such date, in bytes.
pub const DATE_LEN: usize = 29;

/// The last second that has a year of four digits.
const MAX_SECONDS: u64 = 253_402_300_799;

/// IMF-fixdate of a Unix time in seconds; anything beyond the year 9999 is
/// written as its last second.
#[must_use]
pub fn imf_fixdate(unix_seconds: u64) -> [u8; DATE_LEN] {
    let seconds = unix_seconds.min(MAX_SECONDS);
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(days);
    // 1 January 1970 was a Thursday.
    let weekday = name(*b"SunMonTueWedThuFriSat", (days + 4) % 7);
    let month = name(*b"JanFebMarAprMayJunJulAugSepOctNovDec", month - 1);
    let mut date = *b"Sun, 06 Nov 1994 08:49:37 GMT";
    copy(&mut date, 0, &weekday);
    copy(&mut date, 5, &two_digits(day));
    copy(&mut date, 8, &month);
    copy(&mut date, 12, &two_digits(year / 100));
    copy(&mut date, 14, &two_digits(year % 100));
    copy(&mut date, 17, &two_digits(hour));
    copy(&mut date, 20, &two_digits(minute));
    copy(&mut date, 23, &two_digits(second));
    date
}

/// The Unix time in seconds of a date in any of the three forms that RFC 9110
/// §5.6.7 has recipients accept; `None` for anything else.
#[must_use]
pub fn parse_date(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let words: Vec<&str> = text
        .split([' ', '-', ','])
        .filter(|word| !word.is_empty())
        .collect();
    let (year, month, day, clock) = match words.as_slice() {
        // Sun Nov  6 08:49:37 1994
        [_, month, day, clock, year] if clock.contains(':') => (year, month, day, clock),
        // Sun, 06 Nov 1994 08:49:37 GMT; Sunday, 06-Nov-94 08:49:37 GMT
        [_, day, month, year, clock, "GMT" | "UTC"] => (year, month, day, clock),
        _ => return None,
    };
    let digits = |word: &str| -> Option<i64> {
        let plain = (1..=4).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit());
        word.parse().ok().filter(|_| plain)
    };
    let year = match (digits(year)?, year.len()) {
        (year, 4) => year,
        // As Nginx reads them.
        (year, 2) if year < 70 => year + 2000,
        (year, 2) => year + 1900,
        _ => return None,
    };
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = (month.len() == 3)
        .then(|| MONTHS.find(month))
        .flatten()
        .filter(|at| at % 3 == 0)?;
    let month = i64::try_from(month / 3).ok()? + 1;
    let day = digits(day).filter(|day| (1..=days_of(year, month)).contains(day))?;
    let mut clock = clock.split(':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The inverse of [`civil`].
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of the last second that was asked for: a worker answers thousands
/// of requests in each.
#[derive(Debug, Clone)]
pub struct CachedDate {
    seconds: u64,
    text: [u8; DATE_LEN],
}

impl CachedDate {
    /// At this Unix time in seconds.
    #[must_use]
    pub fn new(unix_seconds: u64) -> Self {
        Self {
            seconds: unix_seconds,
            text: imf_fixdate(unix_seconds),
        }
    }

    /// Moves to this Unix time in seconds and gives its date.
    pub fn at(&mut self, unix_seconds: u64) -> &[u8; DATE_LEN] {
        if unix_seconds != self.seconds {
            *self = Self::new(unix_seconds);
        }
        &self.text
    }
}

/// Year, month and day of the proleptic Gregorian calendar for a number of days
/// since 1970, counting years from March so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let era = days / DAYS_PER_ERA;
    let of_era = days % DAYS_PER_ERA;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn name<const N: usize>(names: [u8; N], index: u64) -> [u8; 3] {
    let start = usize::try_from(index).map_or(0, |index| index * 3);
    names
        .get(start..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or(*b"   ")
}

fn two_digits(value: u64) -> [u8; 2] {
    [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]
}

fn copy(date: &mut [u8; DATE_LEN], at: usize, part: &[u8]) {
    for (place, byte) in date.iter_mut().skip(at).zip(part) {
        *place = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(seconds: u64) -> String {
        String::from_utf8(imf_fixdate(seconds).to_vec()).unwrap()
    }

    #[test]
    fn well_known_moments_have_their_dates() {
        assert_eq!(text(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(text(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(text(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn all_three_forms_of_a_date_are_read_and_nothing_else() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in [
            "",
            "0",
            "yesterday",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 ovD 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37 +0100",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_cached_date_follows_the_clock() {
        let mut cached = CachedDate::new(0);
        assert_eq!(cached.at(0), &imf_fixdate(0));
        assert_eq!(cached.at(86_400), &imf_fixdate(86_400));
        assert_eq!(cached.at(1), &imf_fixdate(1));
    }

    proptest! {
        #[test]
        fn parsing_undoes_formatting(seconds in 0..=MAX_SECONDS) {
            prop_assert_eq!(parse_date(&imf_fixdate(seconds)), Some(seconds as i64));
        }

        #[test]
        fn dates_agree_with_the_time_crate(seconds in 0..=MAX_SECONDS) {
            let moment = time::OffsetDateTime::from_unix_timestamp(seconds as i64).unwrap();
            let format = time::macros::format_description!(
                "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
            );
            prop_assert_eq!(text(seconds), moment.format(&format).unwrap());
        }
    }
}
