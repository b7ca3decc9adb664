//! Error log lines in Nginx's form:
//! `2026/11/20 18:00:00 [error] 10#12: *7 message, client: 192.0.2.1, …`.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use super::access_log::put_hex;
use super::clock;
use super::writer::LogSink;

/// Bytes of one line at most; the rest is cut off. Twice Nginx's bound, because
/// a certificate's subject stands in some lines.
const MAX_LINE: usize = 4096;

/// Severity, most severe first, by Nginx's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are Nginx's own names")]
pub enum Level {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    /// As in `error_log` and between the brackets of a line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The reverse of [`Level::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Emerg,
            Self::Alert,
            Self::Crit,
            Self::Error,
            Self::Warn,
            Self::Notice,
            Self::Info,
            Self::Debug,
        ]
        .into_iter()
        .find(|level| level.name() == name)
    }
}

/// The `error_log`s that hold somewhere: each gets the lines that are severe
/// enough for it.
#[derive(Debug, Clone, Default)]
pub struct ErrorLog {
    /// File and least severe level.
    pub sinks: Vec<(LogSink, Level)>,
}

impl ErrorLog {
    /// Whether anybody would read such a line: ask before gathering what it
    /// says.
    #[must_use]
    pub fn enabled(&self, level: Level) -> bool {
        self.sinks.iter().any(|(_, least)| level <= *least)
    }

    /// Writes a line. `connection` is its number, for `*7`; the [`Context`]
    /// belongs at the end of the message. Control characters in the message are
    /// written as `\xXX`, so that no peer can forge a line. Never waits.
    pub fn log(&self, level: Level, connection: Option<u64>, message: fmt::Arguments<'_>) {
        let mut sinks = self.sinks.iter().filter(|(_, least)| level <= *least);
        let Some((first, _)) = sinks.next() else {
            return;
        };
        let mut line = first.buffer();
        first.begin_line(Some(level), &mut line);
        let start = line.len();
        format_line(&mut line, level, connection, message);
        line.pop();
        for (sink, _) in sinks {
            let mut copy = sink.buffer();
            sink.begin_line(Some(level), &mut copy);
            copy.extend_from_slice(line.get(start..).unwrap_or_default());
            sink.end_line(&mut copy);
            sink.send(&mut copy);
        }
        first.end_line(&mut line);
        first.send(&mut line);
    }
}

/// Appends a whole line, for those who must write it themselves (before there
/// are log files).
pub fn format_line(
    out: &mut Vec<u8>,
    level: Level,
    connection: Option<u64>,
    message: fmt::Arguments<'_>,
) {
    clock::put_error_time(out);
    // Writing to a `Vec` cannot fail.
    let _ = write!(
        out,
        " [{}] {}#{}: ",
        level.name(),
        std::process::id(),
        rustix::thread::gettid().as_raw_nonzero()
    );
    if let Some(number) = connection {
        let _ = write!(out, "*{number} ");
    }
    let limit = out.len() + MAX_LINE;
    // An error here means that the line is full.
    if (Printable { out, limit }).write_fmt(message).is_err() {
        out.extend_from_slice(b"...");
    }
    out.push(b'\n');
}

/// Escapes control characters, those of 0x80–0x9F included: terminals obey
/// them.
struct Printable<'a> {
    out: &'a mut Vec<u8>,
    /// Length of `out` at which no more is taken.
    limit: usize,
}

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.out.len() >= self.limit {
                return Err(fmt::Error);
            }
            let mut utf8 = [0; 4];
            let bytes = character.encode_utf8(&mut utf8).as_bytes();
            if character.is_control() {
                for byte in bytes {
                    self.out.extend_from_slice(b"\\x");
                    put_hex(self.out, *byte);
                }
            } else {
                self.out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }
}

/// The end of a message that concerns a connection, in Nginx's order:
/// `, client: 192.0.2.1, server: x, request: "GET / HTTP/1.1", upstream:
/// "http://127.0.0.1:8080/", host: "x"`. What is `None` is left out.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// The client's address.
    pub client: Option<&'a dyn fmt::Display>,
    /// The server block's first name, or the listening address while no server
    /// is known.
    pub server: Option<&'a dyn fmt::Display>,
    /// The request line.
    pub request: Option<&'a [u8]>,
    /// Scheme, address and URI of the backend.
    pub upstream: Option<&'a dyn fmt::Display>,
    /// The Host field.
    pub host: Option<&'a [u8]>,
    /// The Referer field.
    pub referrer: Option<&'a [u8]>,
    /// The name in SNI, where it is not the host. Not in Nginx's lines, and
    /// therefore behind what is.
    pub sni: Option<&'a str>,
    /// The verified client's subject. Likewise.
    pub subject: Option<&'a str>,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(client) = self.client {
            write!(f, ", client: {client}")?;
        }
        if let Some(server) = self.server {
            write!(f, ", server: {server}")?;
        }
        if let Some(request) = self.request {
            write!(f, ", request: \"{}\"", Text(request))?;
        }
        if let Some(upstream) = self.upstream {
            write!(f, ", upstream: \"{upstream}\"")?;
        }
        if let Some(host) = self.host {
            write!(f, ", host: \"{}\"", Text(host))?;
        }
        if let Some(referrer) = self.referrer {
            write!(f, ", referrer: \"{}\"", Text(referrer))?;
        }
        if let Some(sni) = self.sni {
            write!(f, ", SNI: \"{}\"", Text(sni.as_bytes()))?;
        }
        if let Some(subject) = self.subject {
            write!(f, ", client certificate: \"{subject}\"")?;
        }
        Ok(())
    }
}

/// Bytes from a peer, for messages: UTF-8 as it is, other bytes, `"` and `\` as
/// `\xXX`, so that a quoted value ends where its quotes do.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' => write!(f, "\\x{:02X}", u32::from(character))?,
                    _ => f.write_char(character)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::LogFiles;
    use super::*;
    use proptest::prelude::*;

    fn line(connection: Option<u64>, message: fmt::Arguments<'_>) -> String {
        let mut out = Vec::new();
        format_line(&mut out, Level::Error, connection, message);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_the_shape_of_nginx() {
        let line = line(Some(7), format_args!("it failed"));
        let shape = regex::Regex::new(
            r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[error\] \d+#\d+: \*7 it failed\n$",
        )
        .unwrap();
        assert!(shape.is_match(&line), "{line}");
        assert!(line.contains(&format!(" {}#", std::process::id())));
    }

    #[test]
    fn the_context_is_appended_in_the_order_of_nginx() {
        let client: std::net::IpAddr = [192, 0, 2, 1].into();
        let context = Context {
            client: Some(&client),
            server: Some(&"x"),
            request: Some(b"GET /\" HTTP/1.1"),
            upstream: Some(&"http://127.0.0.1:80/"),
            host: Some(b"h\xff"),
            referrer: None,
            sni: Some("s"),
            subject: Some("CN=a"),
        };
        assert_eq!(
            context.to_string(),
            ", client: 192.0.2.1, server: x, request: \"GET /\\x22 HTTP/1.1\", \
             upstream: \"http://127.0.0.1:80/\", host: \"h\\xFF\", SNI: \"s\", client certificate: \"CN=a\""
        );
        assert_eq!(Context::default().to_string(), "");
    }

    #[test]
    fn nobody_can_forge_a_line() {
        let line = line(
            None,
            format_args!("a\n2026/11/20 [emerg]\r\u{1b}[2J\u{9b}é"),
        );
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("a\\x0A2026/11/20 [emerg]\\x0D\\x1B[2J\\xC2\\x9Bé\n"));
    }

    #[test]
    fn a_long_message_is_cut() {
        let line = line(None, format_args!("{}", "x".repeat(3 * MAX_LINE)));
        assert!(line.len() < MAX_LINE + 100 && line.ends_with("x...\n"));
    }

    #[test]
    fn each_log_gets_what_is_severe_enough_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let files = LogFiles::new();
        let paths = ["errors", "debug"].map(|name| directory.path().join(name));
        let log = ErrorLog {
            sinks: vec![
                (files.open(&paths[0]).unwrap(), Level::Error),
                (files.open(&paths[1]).unwrap(), Level::Debug),
            ],
        };
        assert!(log.enabled(Level::Debug) && !ErrorLog::default().enabled(Level::Emerg));
        log.log(Level::Info, None, format_args!("quiet"));
        log.log(Level::Crit, None, format_args!("loud"));
        files.flush_and_stop();
        let [errors, debug] = paths.map(|path| std::fs::read_to_string(path).unwrap());
        assert!(errors.contains("[crit]") && errors.lines().count() == 1);
        assert_eq!(debug.lines().count(), 2);
    }

    #[test]
    fn levels_are_known_by_name_and_ordered_by_severity() {
        assert_eq!(Level::from_name("crit"), Some(Level::Crit));
        assert_eq!(Level::from_name("fatal"), None);
        assert!(Level::Emerg < Level::Error && Level::Error < Level::Debug);
    }

    proptest! {
        #[test]
        fn whatever_a_peer_sends_stays_on_one_line_within_its_quotes(
            bytes in proptest::collection::vec(any::<u8>(), 0..100)
        ) {
            let line = line(None, format_args!("{}", Text(&bytes)));
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(line.matches('"').count(), 0);
        }
    }
}
