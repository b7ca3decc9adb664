//! Regular expressions of `location`, `server_name`, `rewrite`, `if`, `map`, …
//!
//! The `regex` crate runs in linear time whatever the pattern, so no request
//! can make one expensive. The few patterns that it cannot express (look-around,
//! back-references) go to a backtracking engine whose steps are bounded: a
//! search that exceeds them is an error, never "no match", because a pattern may
//! be what keeps a client out.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use smallvec::SmallVec;

use super::variables::VariableId;

mod pcre;

/// Steps of the backtracking engine for one search: some 2 ms. PCRE grants fifty
/// times that; but a look-ahead at every byte of an 8 KiB URI needs less than
/// this, and what needs more is a way to stall a worker.
const BACKTRACK_LIMIT: usize = 200_000;

/// A compiled pattern, and the variables that its named groups are.
#[derive(Clone)]
pub struct Pattern {
    engine: Engine,
    /// For subjects that end with a line feed, if the pattern has a `$`: in PCRE
    /// that matches before it too, which the linear engine cannot express.
    before_line_feed: Option<Engine>,
    /// Group numbers and what they are assigned to.
    named: Arc<[(usize, VariableId)]>,
}

#[derive(Clone)]
enum Engine {
    Linear(Regex),
    Backtracking(Arc<fancy_regex::Regex>),
}

/// A search took more steps than are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManySteps;

impl fmt::Display for TooManySteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a regular expression gave up after {BACKTRACK_LIMIT} steps"
        )
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = match &self.engine {
            Engine::Linear(regex) => regex.as_str(),
            Engine::Backtracking(regex) => regex.as_str(),
        };
        f.debug_tuple("Pattern").field(&pattern).finish()
    }
}

/// What the groups of a pattern matched, as places in the subject; group 0 is
/// the whole match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups(SmallVec<[Option<Range<usize>>; 4]>);

impl Groups {
    /// A group's text in the subject that was searched.
    pub fn of<'s>(&self, subject: &'s [u8], group: usize) -> Option<&'s [u8]> {
        subject.get(self.0.get(group)?.clone()?)
    }
}

impl Pattern {
    /// Compiles a pattern as Nginx would hand it to PCRE: over bytes, `.` not
    /// matching a line feed, anchored nowhere. `variable` gives the variable of
    /// a named group, in lower case.
    ///
    /// # Errors
    /// The reason, in the engine's words, on one line.
    pub fn compile(
        pattern: &[u8],
        any_case: bool,
        variable: impl Fn(&str) -> Option<VariableId>,
    ) -> Result<Self, String> {
        let (engine, before_line_feed) = Engine::compile(pattern, any_case)?;
        let named = engine
            .group_names()
            .into_iter()
            .filter_map(|(group, name)| Some((group, variable(&name)?)))
            .collect();
        Ok(Self {
            engine,
            before_line_feed,
            named,
        })
    }

    /// Whether the subject has a match.
    ///
    /// # Errors
    /// [`TooManySteps`], of patterns with look-around or back-references, and of
    /// those with a `$` where the subject ends with a line feed.
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, TooManySteps> {
        match self.engine_for(subject) {
            Engine::Linear(regex) => Ok(regex.is_match(subject)),
            Engine::Backtracking(regex) => {
                regex.is_match(&latin1(subject)).map_err(|_| TooManySteps)
            }
        }
    }

    /// The first match's groups.
    ///
    /// # Errors
    /// As [`Self::is_match`].
    pub fn groups(&self, subject: &[u8]) -> Result<Option<Groups>, TooManySteps> {
        match self.engine_for(subject) {
            Engine::Linear(regex) => Ok(regex.captures(subject).map(|captures| {
                let ranges = captures.iter().map(|group| Some(group?.range()));
                Groups(ranges.collect())
            })),
            Engine::Backtracking(regex) => {
                let text = latin1(subject);
                let captures = regex.captures(&text).map_err(|_| TooManySteps)?;
                // A character of the text is a byte of the subject.
                let place = |at: usize| text.get(..at).map_or(0, |text| text.chars().count());
                Ok(captures.map(|captures| {
                    let ranges = captures
                        .iter()
                        .map(|group| group.map(|group| place(group.start())..place(group.end())));
                    Groups(ranges.collect())
                }))
            }
        }
    }

    fn engine_for(&self, subject: &[u8]) -> &Engine {
        match &self.before_line_feed {
            Some(engine) if subject.ends_with(b"\n") => engine,
            _ => &self.engine,
        }
    }

    /// Whether it has any.
    pub fn has_groups(&self) -> bool {
        match &self.engine {
            Engine::Linear(regex) => regex.captures_len() > 1,
            Engine::Backtracking(regex) => regex.captures_len() > 1,
        }
    }

    /// The named groups: number and variable.
    pub fn named(&self) -> &[(usize, VariableId)] {
        &self.named
    }
}

impl Engine {
    /// The engine, and the one for subjects that end with a line feed if that is
    /// another.
    fn compile(pattern: &[u8], any_case: bool) -> Result<(Self, Option<Self>), String> {
        let shown = String::from_utf8_lossy(pattern);
        if std::str::from_utf8(pattern).is_err() {
            return Err(format!("regular expression \"{shown}\" is not UTF-8"));
        }
        let translation = pcre::translate(pattern)
            .map_err(|reason| format!("regular expression \"{shown}\": {reason}"))?;
        let engine = if translation.possessive {
            Self::backtracking(&translation.pattern, any_case)
        } else {
            Self::linear(&translation.pattern, any_case).or_else(|refusal| {
                Self::backtracking(&translation.pattern, any_case).map_err(|_| refusal)
            })
        };
        let exact = translation.before_line_feed;
        let exact = exact.map(|exact| Self::backtracking(&exact, any_case));
        let both = engine.and_then(|engine| Ok((engine, exact.transpose()?)));
        both.map_err(|reason| {
            let reason = reason.lines().last().unwrap_or_default().trim();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            format!("regular expression \"{shown}\" is not supported: {reason}")
        })
    }

    fn linear(pattern: &[u8], any_case: bool) -> Result<Self, String> {
        RegexBuilder::new(&String::from_utf8_lossy(pattern))
            .case_insensitive(any_case)
            // Classes such as \w are ASCII in PCRE's byte mode; a literal
            // outside ASCII can only be written with Unicode on.
            .unicode(!pattern.is_ascii())
            .build()
            .map(Self::Linear)
            .map_err(|error| error.to_string())
    }

    fn backtracking(pattern: &[u8], any_case: bool) -> Result<Self, String> {
        // Bytes as the characters of the same numbers, in pattern and subject,
        // so that a subject need not be UTF-8.
        fancy_regex::RegexBuilder::new(&latin1(pattern))
            .case_insensitive(any_case)
            .backtrack_limit(BACKTRACK_LIMIT)
            .build()
            .map(|regex| Self::Backtracking(Arc::new(regex)))
            .map_err(|error| error.to_string())
    }

    /// In lower case, as variables are looked up.
    fn group_names(&self) -> Vec<(usize, String)> {
        let lower =
            |(group, name): (usize, Option<&str>)| Some((group, name?.to_ascii_lowercase()));
        match self {
            Self::Linear(regex) => regex
                .capture_names()
                .enumerate()
                .filter_map(lower)
                .collect(),
            Self::Backtracking(regex) => regex
                .capture_names()
                .enumerate()
                .filter_map(lower)
                .collect(),
        }
    }
}

/// The names of a pattern's groups, in lower case; none if it does not compile,
/// which is reported where it is used.
pub(crate) fn group_names(pattern: &[u8]) -> Vec<String> {
    let engine = Engine::compile(pattern, false);
    let names = engine.map(|(engine, _)| engine.group_names());
    names.into_iter().flatten().map(|(_, name)| name).collect()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile(pattern: &[u8], any_case: bool) -> Result<Pattern, String> {
        Pattern::compile(pattern, any_case, |_| Some(0))
    }

    #[test]
    fn patterns_that_real_files_use_compile() {
        for pattern in [
            r"\.php$",
            r"^/api/(?<version>v\d+)/(.*)$",
            r"\.(jpg|jpeg|png)$",
            r"^(www\.)?(?P<domain>.+)$",
            r"/\.well-known\/x",
            r"[^/]+\.(?:css|js)",
            r"/\.(?!well-known)",
            r"^/(?!(dist/|dist$|\.json$))",
            r"^(.+)/\1$",
        ] {
            assert!(compile(pattern.as_bytes(), false).is_ok(), "{pattern}");
        }
        let regex = compile("^/é".as_bytes(), true).unwrap();
        assert_eq!(regex.is_match("/É".as_bytes()), Ok(true));
        assert_eq!(compile(br"^.$", false).unwrap().is_match(b"\xff"), Ok(true));
    }

    #[test]
    fn what_neither_engine_takes_is_refused_with_the_reason() {
        let error = compile(b"(", false).unwrap_err();
        assert!(error.contains("unclosed group"), "{error}");
        assert!(!error.contains('\n'));
        assert!(compile(b"\xff", false).is_err());
    }

    #[test]
    fn look_ahead_sees_bytes_that_are_no_text() {
        let regex = compile(br"/\.(?!well-known)(.)", false).unwrap();
        assert_eq!(regex.is_match(b"/.well-known/\xff"), Ok(false));
        let subject = b"/\xe9/.git/\xff";
        let groups = regex.groups(subject).unwrap().unwrap();
        assert_eq!(groups.of(subject, 0), Some(&b"/.g"[..]));
        assert_eq!(groups.of(subject, 1), Some(&b"g"[..]));
        assert_eq!(groups.of(subject, 2), None);
    }

    #[test]
    fn a_search_without_end_is_an_error_and_not_a_mismatch() {
        let regex = compile(br"^(a|aa|\1b)+$(?<!q)", false).unwrap();
        let subject = [b"a".repeat(64), b"!".to_vec()].concat();
        assert_eq!(regex.is_match(&subject), Err(TooManySteps));
        assert_eq!(regex.groups(&subject), Err(TooManySteps));
    }

    #[test]
    fn a_dollar_matches_before_a_final_line_feed_and_no_other() {
        for pattern in [r"x$", r"x\Z", r"(?!y)x$", r"\x78$"] {
            let regex = compile(pattern.as_bytes(), false).unwrap();
            for (subject, matches) in [
                (&b"/x"[..], true),
                (b"/x\n", true),
                (b"/x\n\n", false),
                (b"/x\n/", false),
                (b"/x\n/\n", false),
                (b"/x\n/x\n", true),
                (b"/\xff/x\n", true),
                (b"\n", false),
            ] {
                assert_eq!(
                    regex.is_match(subject),
                    Ok(matches),
                    "{pattern} {subject:?}"
                );
            }
        }
        let regex = compile(br"^/foo(/.*|$)([^/]*)", false).unwrap();
        let subject = b"/foo\n";
        let groups = regex.groups(subject).unwrap().unwrap();
        assert_eq!(groups.of(subject, 1), Some(&b""[..]));
        assert_eq!(groups.of(subject, 2), Some(&b"\n"[..]));
        let lines = compile(br"(?m)x$", false).unwrap();
        assert_eq!(lines.is_match(b"x\ny"), Ok(true));
    }

    #[test]
    fn both_engines_read_a_pattern_as_pcre_does() {
        for (pattern, matched, unmatched) in [
            ("^[a&&b]$", "&", "c"),
            ("^[a~~b]$", "~", "c"),
            ("^[+--]$", ",", "."),
            ("^[a[b]$", "[", "]"),
            ("^[[:digit:]]$", "1", "["),
            (r"^\h$", "\t", "a"),
            (r"^\H$", "a", " "),
            (r"^[\h]$", " ", "h"),
            (r"^[^\H]$", " ", "a"),
            (r"^\v$", "\r", "v"),
            (r"^\R$", "\r\n", "R"),
            (r"^\<$", "<", ""),
            (r"^[\b]$", "\x08", "b"),
            ("^a++$", "aa", "ab"),
            ("^b?a++b", "aab", "b"),
            ("^a{1,}+b", "aab", "b"),
            ("^(?x)[ ]$", " ", ""),
        ] {
            for look in ["", "(?=)"] {
                let regex = compile(format!("{look}{pattern}").as_bytes(), false).unwrap();
                for (subject, matches) in [(matched, true), (unmatched, false)] {
                    let found = regex.is_match(subject.as_bytes());
                    assert_eq!(found, Ok(matches), "{look}{pattern} {subject:?}");
                }
            }
        }
        assert_eq!(compile(b"a++a", false).unwrap().is_match(b"aaa"), Ok(false));
        let error = compile(br"\Qa\E", false).unwrap_err();
        assert!(error.contains(r"\Q is not supported"), "{error}");
    }

    proptest! {
        #[test]
        fn a_dollar_changes_nothing_where_no_line_feed_ends_the_subject(
            parts in proptest::collection::vec(
                prop::sample::select(vec![
                    "/", "a", "(a+)", "(?<n>[^/]*)", "(?:b|(/))?", r"\.", "[a-b.]*", r"(\d|$)", r"\w{1,2}",
                ]),
                0..5,
            ),
            subject in "[/ab.1\n]{0,8}/",
        ) {
            prop_assume!(parts.iter().filter(|part| part.contains("<n>")).count() < 2);
            let regex = compile(format!("{}$", parts.concat()).as_bytes(), false).unwrap();
            let exact = Pattern {
                engine: regex.before_line_feed.clone().unwrap(),
                ..regex.clone()
            };
            prop_assert!(matches!(regex.engine, Engine::Linear(_)));
            let subject = subject.as_bytes();
            prop_assert_eq!(regex.is_match(subject), exact.is_match(subject));
            prop_assert_eq!(regex.groups(subject), exact.groups(subject));
        }

        #[test]
        fn both_engines_find_the_same_groups(subject in proptest::collection::vec(any::<u8>(), 0..40)) {
            let linear = compile(br"/([^/]*)/?(x)?", false).unwrap();
            let backtracking = compile(br"/([^/]*)/?(x)?(?=)", false).unwrap();
            prop_assert!(matches!(backtracking.engine, Engine::Backtracking(_)));
            prop_assert_eq!(linear.groups(&subject), backtracking.groups(&subject));
        }
    }
}
