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

/// Steps of the backtracking engine for one search: some 2 ms. PCRE grants fifty
/// times that; but a look-ahead at every byte of an 8 KiB URI needs less than
/// this, and what needs more is a way to stall a worker.
const BACKTRACK_LIMIT: usize = 200_000;

/// A compiled pattern, and the variables that its named groups are.
#[derive(Clone)]
pub struct Pattern {
    engine: Engine,
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
        let engine = Engine::compile(pattern, any_case)?;
        let named = engine
            .group_names()
            .into_iter()
            .filter_map(|(group, name)| Some((group, variable(&name)?)))
            .collect();
        Ok(Self { engine, named })
    }

    /// Whether the subject has a match.
    ///
    /// # Errors
    /// [`TooManySteps`], of patterns with look-around or back-references.
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, TooManySteps> {
        match &self.engine {
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
        match &self.engine {
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

    /// The named groups: number and variable.
    pub fn named(&self) -> &[(usize, VariableId)] {
        &self.named
    }
}

impl Engine {
    fn compile(pattern: &[u8], any_case: bool) -> Result<Self, String> {
        let shown = String::from_utf8_lossy(pattern);
        let text = std::str::from_utf8(pattern)
            .map_err(|_| format!("regular expression \"{shown}\" is not UTF-8"))?;
        let linear = RegexBuilder::new(text)
            .case_insensitive(any_case)
            // Classes such as \w are ASCII in PCRE's byte mode; a literal
            // outside ASCII can only be written with Unicode on.
            .unicode(!pattern.is_ascii())
            .build();
        let refusal = match linear {
            Ok(regex) => return Ok(Self::Linear(regex)),
            Err(error) => error.to_string(),
        };
        // Bytes as the characters of the same numbers, in pattern and subject,
        // so that a subject need not be UTF-8.
        let backtracking = fancy_regex::RegexBuilder::new(&latin1(pattern))
            .case_insensitive(any_case)
            .backtrack_limit(BACKTRACK_LIMIT)
            .build();
        match backtracking {
            Ok(regex) => Ok(Self::Backtracking(Arc::new(regex))),
            Err(_) => {
                let reason = refusal.lines().last().unwrap_or_default().trim();
                let reason = reason.strip_prefix("error: ").unwrap_or(reason);
                Err(format!(
                    "regular expression \"{shown}\" is not supported: {reason}"
                ))
            }
        }
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
    let names = engine.map(|engine| engine.group_names());
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

    proptest! {
        #[test]
        fn both_engines_find_the_same_groups(subject in proptest::collection::vec(any::<u8>(), 0..40)) {
            let linear = compile(br"/([^/]*)/?(x)?", false).unwrap();
            let backtracking = compile(br"/([^/]*)/?(x)?(?=)", false).unwrap();
            prop_assert!(matches!(backtracking.engine, Engine::Backtracking(_)));
            prop_assert_eq!(linear.groups(&subject), backtracking.groups(&subject));
        }
    }
}
