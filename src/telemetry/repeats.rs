//! The same trouble a thousand times a second is one line many times over:
//! after some of them the rest is counted, and the count is told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error_log::{ErrorLog, Level};

/// Lines of one message that a worker writes in a [`WINDOW`]: enough to see who
/// is concerned.
const LIMIT: u64 = 100;
/// Counting begins anew after this.
const WINDOW: Duration = Duration::from_secs(1);
/// Messages that are told apart in a window; more are all written.
const MAX_MESSAGES: usize = 256;

thread_local! {
    static REPEATS: RefCell<Repeats> = RefCell::default();
}

/// Whether a line with this message is to be written. `message` is what is the
/// same in all of them: without the request that it is about.
pub fn admit(log: &Arc<ErrorLog>, level: Level, message: fmt::Arguments<'_>) -> bool {
    REPEATS.with_borrow_mut(|repeats| repeats.admit(log, level, message, Instant::now()))
}

/// Tells of the lines that were not written, once their window is over. To be
/// called now and then on each thread that calls [`admit`].
pub fn report() {
    REPEATS.with_borrow_mut(|repeats| repeats.report(Instant::now()));
}

#[derive(Debug, Default)]
struct Repeats {
    /// When counting began.
    since: Option<Instant>,
    messages: HashMap<String, Repeated>,
    scratch: String,
}

#[derive(Debug)]
struct Repeated {
    log: Arc<ErrorLog>,
    level: Level,
    lines: u64,
}

impl Repeats {
    fn admit(
        &mut self,
        log: &Arc<ErrorLog>,
        level: Level,
        message: fmt::Arguments<'_>,
        now: Instant,
    ) -> bool {
        self.report(now);
        self.since.get_or_insert(now);
        self.scratch.clear();
        // Writing to a `String` cannot fail.
        let _ = fmt::Write::write_fmt(&mut self.scratch, message);
        if let Some(known) = self.messages.get_mut(&self.scratch) {
            known.lines += 1;
            return known.lines <= LIMIT;
        }
        if self.messages.len() < MAX_MESSAGES {
            let log = Arc::clone(log);
            let first = Repeated {
                log,
                level,
                lines: 1,
            };
            self.messages.insert(self.scratch.clone(), first);
        }
        true
    }

    fn report(&mut self, now: Instant) {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) < WINDOW)
        {
            return;
        }
        self.since = None;
        for (message, repeated) in self.messages.drain() {
            let more = repeated.lines.saturating_sub(LIMIT);
            if more > 0 {
                repeated.log.log(
                    repeated.level,
                    None,
                    format_args!("{message}: {more} more lines within a second are left out"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::LogFiles;
    use super::*;

    #[test]
    fn what_repeats_is_counted_and_the_count_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("error.log");
        let files = LogFiles::new();
        let log = Arc::new(ErrorLog {
            sinks: vec![(files.open(&path).unwrap(), Level::Info)],
        });
        let mut repeats = Repeats::default();
        let now = Instant::now();
        let mut admit =
            |message: &str, now| repeats.admit(&log, Level::Error, format_args!("{message}"), now);
        let written = (0..LIMIT + 7).filter(|_| admit("same", now)).count();
        assert_eq!(written as u64, LIMIT);
        assert!(admit("other", now));
        assert!(admit("same", now + WINDOW));
        repeats.report(now + WINDOW + WINDOW);
        files.flush_and_stop();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.ends_with("same: 7 more lines within a second are left out\n"),
            "{text}"
        );
    }

    #[test]
    fn more_messages_than_are_told_apart_are_all_written() {
        let log = Arc::new(ErrorLog::default());
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for _ in 0..2 * LIMIT {
            for n in 0..MAX_MESSAGES + 3 {
                let admitted = repeats.admit(&log, Level::Error, format_args!("{n}"), now);
                assert!(admitted || n < MAX_MESSAGES);
            }
        }
        assert_eq!(repeats.messages.len(), MAX_MESSAGES);
    }
}
