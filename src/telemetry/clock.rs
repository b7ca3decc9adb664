//! The time as a worker sees it: read once a turn, formatted once a second.
//!
//! Local time needs the operating system's zone rules, which can only be read
//! safely while the process has one thread. Its offsets for the years ahead are
//! therefore tabulated at start; reading just the offset of the moment was
//! rejected, because a process that runs through a change to or from summer
//! time would be an hour out until its restart.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, UtcOffset};

/// Tabulates the local time zone. Call once at start, while the process has a
/// single thread; without it, or where the zone cannot be determined, times are
/// in UTC.
pub fn init_local_time() {
    let now = unix_millis() / 1000;
    let _ = ZONE.set(Zone::tabulate(now, local_offset_at));
}

/// Seconds that local time is ahead of UTC at this Unix time in seconds.
#[must_use]
pub fn local_offset(unix_seconds: u64) -> i32 {
    Zone::get().offset_at(unix_seconds)
}

/// Milliseconds since 1970, read now.
#[must_use]
pub fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// A worker's cached time. [`Clock::refresh`] it once per turn of the loop.
#[derive(Debug, Clone)]
pub struct Clock {
    unix_ms: u64,
    second: u64,
    time_local: String,
    time_iso8601: String,
    http_date: String,
    error_time: String,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// At the present moment.
    #[must_use]
    pub fn new() -> Self {
        let mut clock = Self {
            unix_ms: 0,
            second: u64::MAX,
            time_local: String::new(),
            time_iso8601: String::new(),
            http_date: String::new(),
            error_time: String::new(),
        };
        clock.refresh();
        clock
    }

    /// Reads the time; formats it if the second has changed.
    pub fn refresh(&mut self) {
        self.set(unix_millis());
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        self.unix_ms
    }

    /// `$time_local`: `20/Nov/2026:18:00:00 +0000`.
    #[must_use]
    pub fn time_local(&self) -> &str {
        &self.time_local
    }

    /// `$time_iso8601`: `2026-11-20T18:00:00+00:00`.
    #[must_use]
    pub fn time_iso8601(&self) -> &str {
        &self.time_iso8601
    }

    /// For the Date field: `Fri, 20 Nov 2026 18:00:00 GMT`.
    #[must_use]
    pub fn http_date(&self) -> &str {
        &self.http_date
    }

    /// When the local day next reaches this second, as a Unix time after now.
    #[must_use]
    pub fn next_local(&self, second_of_day: u64) -> u64 {
        self.next_local_in(Zone::get(), second_of_day)
    }

    fn next_local_in(&self, zone: &Zone, second_of_day: u64) -> u64 {
        const DAY: u64 = 86_400;
        let local = self
            .second
            .saturating_add_signed(zone.offset_at(self.second).into());
        let today = local - local % DAY + second_of_day;
        [today, today + DAY, today + 2 * DAY]
            .into_iter()
            .map(|local| {
                let about = local.saturating_sub_signed(zone.offset_at(self.second).into());
                local.saturating_sub_signed(zone.offset_at(about).into())
            })
            .find(|moment| *moment > self.second)
            .unwrap_or(self.second)
    }

    /// As error log lines begin: `2026/11/20 18:00:00`.
    #[must_use]
    pub fn error_time(&self) -> &str {
        &self.error_time
    }

    fn set(&mut self, unix_ms: u64) {
        self.unix_ms = unix_ms;
        let second = unix_ms / 1000;
        if second != self.second {
            self.second = second;
            self.format(Zone::get().offset_at(second));
        }
    }

    fn format(&mut self, offset: i32) {
        let local = Moment::new(self.second, offset);
        let utc = Moment::new(self.second, 0);
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
        rewrite(
            &mut self.time_local,
            format_args!(
                "{:02}/{}/{:04}:{:02}:{:02}:{:02} {sign}{hours:02}{minutes:02}",
                local.day,
                local.month_name(),
                local.year,
                local.hour,
                local.minute,
                local.second
            ),
        );
        rewrite(
            &mut self.time_iso8601,
            format_args!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{sign}{hours:02}:{minutes:02}",
                local.year, local.month, local.day, local.hour, local.minute, local.second
            ),
        );
        rewrite(
            &mut self.http_date,
            format_args!(
                "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
                utc.weekday_name(),
                utc.day,
                utc.month_name(),
                utc.year,
                utc.hour,
                utc.minute,
                utc.second
            ),
        );
        rewrite(&mut self.error_time, format_args!("{}", ErrorTime(local)));
    }
}

/// Appends the present moment as error log lines begin, for threads that have
/// no [`Clock`].
pub(super) fn put_error_time(out: &mut Vec<u8>) {
    let second = unix_millis() / 1000;
    let local = Moment::new(second, Zone::get().offset_at(second));
    // Writing to a `Vec` cannot fail.
    let _ = write!(out, "{}", ErrorTime(local));
}

/// Appends the present moment as syslog has it: `Nov  5 18:00:00`.
pub(super) fn put_syslog_time(out: &mut Vec<u8>) {
    let second = unix_millis() / 1000;
    let local = Moment::new(second, Zone::get().offset_at(second));
    // Writing to a `Vec` cannot fail.
    let _ = write!(
        out,
        "{} {:2} {:02}:{:02}:{:02}",
        local.month_name(),
        local.day,
        local.hour,
        local.minute,
        local.second
    );
}

/// A second in the form of a cookie's `expires` (`ngx_http_cookie_time`).
pub fn cookie_time(unix_seconds: u64) -> String {
    let utc = Moment::new(unix_seconds, 0);
    // Netscape's two digits, as long as they mean what they say.
    let year = if utc.year > 2037 {
        format!("{}", utc.year)
    } else {
        format!("{:02}", utc.year % 100)
    };
    format!(
        "{}, {:02}-{}-{year} {:02}:{:02}:{:02} GMT",
        utc.weekday_name(),
        utc.day,
        utc.month_name(),
        utc.hour,
        utc.minute,
        utc.second
    )
}

/// Replaces the text in its old memory.
fn rewrite(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.clear();
    // Writing to a `String` cannot fail.
    let _ = std::fmt::Write::write_fmt(text, arguments);
}

struct ErrorTime(Moment);

impl std::fmt::Display for ErrorTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moment = &self.0;
        write!(
            f,
            "{:04}/{:02}/{:02} {:02}:{:02}:{:02}",
            moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second
        )
    }
}

/// A second, taken apart.
struct Moment {
    year: i32,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    weekday: u8,
}

impl Moment {
    fn new(unix_seconds: u64, offset: i32) -> Self {
        let seconds = i64::try_from(unix_seconds)
            .unwrap_or(i64::MAX)
            .saturating_add(i64::from(offset));
        let moment =
            OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self {
            year: moment.year(),
            month: u8::from(moment.month()),
            day: moment.day(),
            hour: moment.hour(),
            minute: moment.minute(),
            second: moment.second(),
            weekday: moment.weekday().number_days_from_sunday(),
        }
    }

    fn month_name(&self) -> &'static str {
        const NAMES: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        NAMES
            .get(usize::from(self.month).wrapping_sub(1))
            .copied()
            .unwrap_or_default()
    }

    fn weekday_name(&self) -> &'static str {
        const NAMES: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        NAMES
            .get(usize::from(self.weekday))
            .copied()
            .unwrap_or_default()
    }
}

static ZONE: OnceLock<Zone> = OnceLock::new();
static UTC: Zone = Zone {
    changes: Vec::new(),
};

/// The local time zone's offsets, in seconds east of UTC.
#[derive(Debug)]
struct Zone {
    /// From this Unix second on, this offset; ascending. Empty for UTC.
    changes: Vec<(u64, i32)>,
}

impl Zone {
    /// How far ahead offsets are tabulated. A process that runs longer keeps
    /// the last one.
    const AHEAD: u64 = 20 * 366 * 86_400;
    /// Distance of the samples between which changes are searched. The shortest
    /// stretch between two changes that a zone knows (Morocco's Ramadan) is
    /// over four weeks.
    const STEP: u64 = 7 * 86_400;

    fn get() -> &'static Self {
        ZONE.get().unwrap_or(&UTC)
    }

    fn tabulate(now: u64, offset_at: impl Fn(u64) -> Option<i32>) -> Self {
        let mut changes = Vec::new();
        let Some(mut offset) = offset_at(now) else {
            return Self { changes };
        };
        changes.push((0, offset));
        let mut before = now;
        while before < now + Self::AHEAD {
            let after = before + Self::STEP;
            let Some(next) = offset_at(after) else {
                break;
            };
            if next != offset {
                // The change lies in `low..=high`; `offset` holds at `low`.
                let (mut low, mut high) = (before, after);
                while high - low > 1 {
                    let middle = low + (high - low) / 2;
                    if offset_at(middle) == Some(offset) {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                changes.push((high, next));
                offset = next;
            }
            before = after;
        }
        Self { changes }
    }

    fn offset_at(&self, unix_seconds: u64) -> i32 {
        let following = self
            .changes
            .partition_point(|(from, _)| *from <= unix_seconds);
        following
            .checked_sub(1)
            .and_then(|index| self.changes.get(index))
            .map_or(0, |(_, offset)| *offset)
    }
}

fn local_offset_at(unix_seconds: u64) -> Option<i32> {
    let moment = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds).ok()?).ok()?;
    let offset = UtcOffset::local_offset_at(moment).ok()?;
    Some(offset.whole_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 November 2026, 18:00:00 UTC.
    const EVENING: u64 = 1_795_197_600;

    fn at(second: u64, offset: i32) -> Clock {
        let mut clock = Clock::new();
        clock.second = second;
        clock.format(offset);
        clock
    }

    #[test]
    fn the_local_day_reaches_each_second_again() {
        let clock = at(EVENING, 0);
        let zone = |offset| Zone {
            changes: vec![(0, offset)],
        };
        // 18:00 in UTC, 20:00 two hours east of it, 14:30 in the west.
        assert_eq!(clock.next_local_in(&zone(0), 19 * 3600), EVENING + 3600);
        assert_eq!(clock.next_local_in(&zone(0), 18 * 3600), EVENING + 86_400);
        assert_eq!(clock.next_local_in(&zone(7200), 21 * 3600), EVENING + 3600);
        assert_eq!(
            clock.next_local_in(&zone(7200), 19 * 3600),
            EVENING + 23 * 3600
        );
        assert_eq!(
            clock.next_local_in(&zone(-12_600), 86_400),
            EVENING + 34_200
        );
    }

    #[test]
    fn every_format_is_that_of_nginx() {
        let clock = at(EVENING, 0);
        assert_eq!(clock.time_local(), "20/Nov/2026:18:00:00 +0000");
        assert_eq!(clock.time_iso8601(), "2026-11-20T18:00:00+00:00");
        assert_eq!(clock.http_date(), "Fri, 20 Nov 2026 18:00:00 GMT");
        assert_eq!(clock.error_time(), "2026/11/20 18:00:00");
    }

    #[test]
    fn offsets_move_local_times_but_not_the_date_field() {
        let east = at(EVENING, 9 * 3600);
        assert_eq!(east.time_local(), "21/Nov/2026:03:00:00 +0900");
        assert_eq!(east.http_date(), "Fri, 20 Nov 2026 18:00:00 GMT");
        let west = at(EVENING, -(3 * 3600 + 1800));
        assert_eq!(west.time_iso8601(), "2026-11-20T14:30:00-03:30");
    }

    #[test]
    fn a_cookie_ends_at_a_year_of_two_digits_while_that_is_clear() {
        assert_eq!(cookie_time(23_004_000), "Thu, 24-Sep-70 06:00:00 GMT");
        assert_eq!(cookie_time(2_145_916_555), "Thu, 31-Dec-37 23:55:55 GMT");
        assert_eq!(cookie_time(2_145_916_800), "Fri, 01-Jan-2038 00:00:00 GMT");
    }

    #[test]
    fn the_clock_moves_with_the_system() {
        let mut clock = Clock::new();
        clock.set(EVENING * 1000 + 250);
        let evening = clock.http_date().to_owned();
        clock.set(EVENING * 1000 + 999);
        assert_eq!(clock.http_date(), evening);
        assert_eq!(clock.unix_ms(), EVENING * 1000 + 999);
        clock.set(EVENING * 1000 + 1000);
        assert_eq!(clock.http_date(), "Fri, 20 Nov 2026 18:00:01 GMT");
        clock.refresh();
        assert!(clock.unix_ms().abs_diff(unix_millis()) < 5000);
    }

    #[test]
    fn summer_time_begins_and_ends_on_the_second() {
        let begin = EVENING + 130 * 86_400 + 1234;
        let end = begin + 210 * 86_400 + 77;
        let rule = |second: u64| {
            Some(if (begin..end).contains(&second) {
                7200
            } else {
                3600
            })
        };
        let zone = Zone::tabulate(EVENING, rule);
        for second in [
            EVENING,
            begin - 1,
            begin,
            begin + 1,
            end - 1,
            end,
            end + 86_400,
        ] {
            assert_eq!(Some(zone.offset_at(second)), rule(second), "{second}");
        }
        assert_eq!(zone.changes.len(), 3);
    }

    #[test]
    fn an_unknown_zone_is_utc() {
        let zone = Zone::tabulate(EVENING, |_| None);
        assert_eq!(zone.offset_at(EVENING), 0);
    }
}
