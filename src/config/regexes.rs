//! Regular expressions of `location` and `server_name`.
//!
//! The `regex` crate runs in linear time whatever the pattern, so no request
//! can make one expensive; look-around and back-references, which PCRE has and
//! it has not, are refused with the reason.

use regex::bytes::{Regex, RegexBuilder};

/// Compiles a pattern as Nginx would hand it to PCRE: over bytes, `.` not
/// matching a line feed, anchored nowhere.
///
/// # Errors
/// The reason, in the engine's words, on one line.
pub(crate) fn compile(pattern: &[u8], any_case: bool) -> Result<Regex, String> {
    let shown = String::from_utf8_lossy(pattern);
    let text = std::str::from_utf8(pattern)
        .map_err(|_| format!("regular expression \"{shown}\" is not UTF-8"))?;
    RegexBuilder::new(text)
        .case_insensitive(any_case)
        // Classes such as \w are ASCII in PCRE's byte mode; a literal outside
        // ASCII can only be written with Unicode on.
        .unicode(!pattern.is_ascii())
        .build()
        .map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            format!("regular expression \"{shown}\" is not supported: {reason}")
        })
}

/// The named groups of a pattern, in lower case as variables are looked up.
pub(crate) fn names(regex: &Regex) -> impl Iterator<Item = Box<str>> + '_ {
    regex
        .capture_names()
        .flatten()
        .map(|name| name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_real_files_use_compile() {
        for pattern in [
            r"\.php$",
            r"^/api/(?<version>v\d+)/(.*)$",
            r"\.(jpg|jpeg|png)$",
            r"^(www\.)?(?P<domain>.+)$",
            r"/\.well-known\/x",
            r"[^/]+\.(?:css|js)",
        ] {
            assert!(compile(pattern.as_bytes(), false).is_ok(), "{pattern}");
        }
        let regex = compile("^/é".as_bytes(), true).unwrap();
        assert!(regex.is_match("/É".as_bytes()));
        assert!(compile(br"^.$", false).unwrap().is_match(b"\xff"));
    }

    #[test]
    fn look_around_is_refused_with_the_reason() {
        let error = compile(br"/\.(?!well-known)", false).unwrap_err();
        assert!(error.contains("look-around"), "{error}");
        assert!(!error.contains('\n'));
        assert!(compile(b"(", false).is_err());
        assert!(compile(b"\xff", false).is_err());
    }
}
