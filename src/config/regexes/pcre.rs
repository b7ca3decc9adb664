//! What PCRE's dialect means otherwise than the engines' own, said in theirs.
//!
//! Only what an engine would take and read otherwise is translated; what it
//! refuses is left for it to refuse. Source: pcre2pattern(3).

/// A pattern in the engines' dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translation {
    /// For subjects that do not end with a line feed: `$` is their end.
    pub pattern: Vec<u8>,
    /// For the others, if it matters: `$` is also before the last line feed.
    pub before_line_feed: Option<Vec<u8>>,
    /// Whether there are possessive quantifiers, which the linear engine takes
    /// for repeated ones.
    pub possessive: bool,
}

/// Any end of the subject, as `$` and `\Z` are.
const END: &[u8] = br"(?=\n?\z)";

/// # Errors
/// The construct, and that it is not supported.
pub(super) fn translate(pattern: &[u8]) -> Result<Translation, String> {
    let mut pass = Pass {
        rest: pattern,
        ..Pass::default()
    };
    while let Some((&byte, rest)) = pass.rest.split_first() {
        pass.step(byte, rest)?;
    }
    Ok(Translation {
        before_line_feed: pass.ends.then_some(pass.exact),
        pattern: pass.plain,
        possessive: pass.possessive,
    })
}

/// The flags that change what is read, of the group at hand.
#[derive(Clone, Copy, Default)]
struct Flags {
    multi_line: bool,
    extended: bool,
}

#[derive(Default)]
struct Pass<'p> {
    rest: &'p [u8],
    plain: Vec<u8>,
    /// As `plain`, with every `$` written out.
    exact: Vec<u8>,
    /// Whether there is a `$` to write out.
    ends: bool,
    possessive: bool,
    /// Whether a quantifier has just been read.
    quantified: bool,
    flags: Flags,
    /// Of the groups around, outermost first.
    outer: Vec<Flags>,
}

impl<'p> Pass<'p> {
    /// Reads one thing outside classes.
    fn step(&mut self, byte: u8, rest: &'p [u8]) -> Result<(), String> {
        let quantified = std::mem::take(&mut self.quantified);
        match byte {
            b'\\' => return self.escape(rest, false),
            b'[' => return self.class(),
            b'(' => return self.group(),
            b')' => self.flags = self.outer.pop().unwrap_or_default(),
            b'#' if self.flags.extended => {
                let end = rest.iter().position(|&byte| byte == b'\n');
                self.copy(end.map_or(self.rest.len(), |end| end + 1));
                return Ok(());
            }
            b'$' if !self.flags.multi_line => {
                self.plain.push(b'$');
                self.exact.extend(END);
                self.ends = true;
                self.rest = rest;
                return Ok(());
            }
            b'+' if quantified => self.possessive = true,
            b'*' | b'+' | b'?' => self.quantified = !quantified,
            b'{' => {
                let count = rest
                    .iter()
                    .take_while(|&&byte| byte.is_ascii_digit() || byte == b',');
                let count = count.count();
                if count > 0 && rest.get(count) == Some(&b'}') {
                    self.copy(count + 2);
                    self.quantified = true;
                    return Ok(());
                }
            }
            _ => {}
        }
        self.copy(1);
        Ok(())
    }

    /// Takes so many bytes over as they are.
    fn copy(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.write(taken);
        self.rest = rest;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.plain.extend(bytes);
        self.exact.extend(bytes);
    }

    /// Reads an escape; `rest` is what follows the backslash.
    fn escape(&mut self, rest: &[u8], in_class: bool) -> Result<(), String> {
        let Some(&byte) = rest.first() else {
            self.copy(1);
            return Ok(());
        };
        let translated: &[u8] = match (byte, in_class) {
            (b'h', false) => br"[\t\x20\xA0]",
            (b'h', true) => br"\t\x20\xA0",
            (b'H', _) => br"[^\t\x20\xA0]",
            (b'v', false) => br"[\n\x0B\f\r\x85]",
            (b'v', true) => br"\n\x0B\f\r\x85",
            (b'V', _) => br"[^\n\x0B\f\r\x85]",
            (b'b', true) => br"\x08",
            (b'<', _) => b"<",
            (b'>', _) => b">",
            (b'Z', false) => END,
            (b'R', false) => br"(?>\r\n|[\n\x0B\f\r\x85])",
            (b'b' | b'B', false) if rest.get(1) == Some(&b'{') => return refuse(r"\b{"),
            (b'O', false) => return refuse(r"\O"),
            // What a group matched in PCRE, a call of the group in the engine.
            (b'g', false) if rest.get(1).is_some_and(u8::is_ascii_digit) => return refuse(r"\g"),
            (b'Q', _) => return refuse(r"\Q"),
            (b'u', _) => return refuse(r"\u"),
            (b'U', _) => return refuse(r"\U"),
            (b'x' | b'p' | b'P', _) if rest.get(1) == Some(&b'{') => {
                let end = rest.iter().position(|&byte| byte == b'}');
                self.copy(end.map_or(self.rest.len(), |end| end + 2));
                return Ok(());
            }
            _ => {
                self.copy(2);
                return Ok(());
            }
        };
        self.write(translated);
        self.skip(2);
        Ok(())
    }

    /// Leaves so many bytes out.
    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    /// Reads the beginning of a group, or flags, or a comment.
    fn group(&mut self) -> Result<(), String> {
        if self.rest.starts_with(b"(?#") {
            let end = self.rest.iter().position(|&byte| byte == b')');
            self.skip(end.map_or(self.rest.len(), |end| end + 1));
            return Ok(());
        }
        let outside = self.flags;
        let mut length = 1;
        if let Some(letters) = self.rest.strip_prefix(b"(?") {
            let is_flag = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
            let count = letters.iter().take_while(|byte| is_flag(byte)).count();
            let (letters, behind) = letters.split_at(count);
            if let Some(end @ (b')' | b':')) = behind.first() {
                if letters.contains(&b'R') {
                    return refuse("(?R)");
                }
                let mut on = true;
                for letter in letters {
                    match letter {
                        b'-' => on = false,
                        b'm' => self.flags.multi_line = on,
                        b'x' => self.flags.extended = on,
                        _ => {}
                    }
                }
                length = 2 + count + 1;
                if *end == b')' {
                    self.copy(length);
                    return Ok(());
                }
            } else {
                // (?<name>, (?=, (?! and the like: no quantifier is in it.
                length = 3;
            }
        }
        self.outer.push(outside);
        self.copy(length);
        Ok(())
    }

    /// Reads a class. An engine has sets within sets and operations on them
    /// where PCRE has literals.
    fn class(&mut self) -> Result<(), String> {
        let start = if self.rest.starts_with(b"[^") { 2 } else { 1 };
        let first_literal = self.rest.get(start) == Some(&b']');
        self.copy(start + usize::from(first_literal));
        // What a range may begin with is behind.
        let mut item = first_literal;
        while let Some((&byte, rest)) = self.rest.split_first() {
            let next = rest.first();
            match byte {
                b']' => {
                    self.copy(1);
                    return Ok(());
                }
                b'-' if item && next.is_some_and(|&next| next != b']') => {
                    self.copy(1);
                    self.class_item()?;
                    item = false;
                }
                _ => item = self.class_item()?,
            }
        }
        Ok(())
    }

    /// Reads one item of a class; whether a range may begin with it.
    fn class_item(&mut self) -> Result<bool, String> {
        let Some((&byte, rest)) = self.rest.split_first() else {
            return Ok(false);
        };
        match byte {
            b'\\' => {
                self.escape(rest, true)?;
                let set = rest
                    .first()
                    .is_some_and(|byte| b"dDhHsSvVwWpP".contains(byte));
                return Ok(!set);
            }
            b'[' => {
                if let Some(length) = posix_class(self.rest) {
                    self.copy(length);
                    return Ok(false);
                }
                self.write(br"\[");
            }
            b'&' | b'~' | b'-'
                if self.plain.last() == Some(&byte) || rest.first() == Some(&byte) =>
            {
                self.write(&[b'\\', byte]);
            }
            // The engines skip white space in classes too where (?x) is on.
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0B' | b'\x0C' | b'#' if self.flags.extended => {
                self.write(format!("\\x{byte:02X}").as_bytes());
            }
            _ => {
                self.copy(1);
                return Ok(true);
            }
        }
        self.skip(1);
        Ok(true)
    }
}

/// The length of `[:name:]` or `[:^name:]` if one is in front.
fn posix_class(text: &[u8]) -> Option<usize> {
    let name = text.strip_prefix(b"[:")?;
    let name = name.strip_prefix(b"^").unwrap_or(name);
    let letters = name
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let behind = name.get(letters..)?.strip_prefix(b":]")?;
    Some(text.len() - behind.len())
}

fn refuse<T>(construct: &str) -> Result<T, String> {
    Err(format!("{construct} is not supported"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(pattern: &str) -> String {
        String::from_utf8(translate(pattern.as_bytes()).unwrap().pattern).unwrap()
    }

    fn before_line_feed(pattern: &str) -> Option<String> {
        let exact = translate(pattern.as_bytes()).unwrap().before_line_feed;
        exact.map(|exact| String::from_utf8(exact).unwrap())
    }

    #[test]
    fn a_dollar_is_the_end_unless_it_is_a_literal_or_ends_lines() {
        let exact = before_line_feed(r"^(a$|b)$").unwrap();
        assert_eq!(exact, r"^(a(?=\n?\z)|b)(?=\n?\z)");
        assert_eq!(plain(r"^(a$|b)$"), r"^(a$|b)$");
        for none in [
            r"a\$",
            r"[$]",
            r"[]$]",
            r"[^]$]",
            r"[[:alpha:]$]",
            r"[\]$]",
            "(?#$)a",
            "(?m)a$",
            "(?m:a$)",
            "((?im)a$)",
            "(?x)a # $",
            "a",
        ] {
            assert_eq!(before_line_feed(none), None, "{none}");
        }
        for some in [
            r"\\$",
            r"(?m:a)b$",
            "((?m)a)b$",
            "(?m-m)a$",
            "(?x)a # $\n$",
            "a#$",
        ] {
            let exact = before_line_feed(some).unwrap();
            assert!(exact.ends_with(r"(?=\n?\z)"), "{some}: {exact}");
        }
    }

    #[test]
    fn what_the_engines_read_otherwise_is_translated() {
        for (pattern, translated) in [
            ("[a&&b]", r"[a\&\&b]"),
            ("[a~~b]", r"[a\~\~b]"),
            ("[+--]", r"[+-\-]"),
            ("[--/]", r"[\--/]"),
            ("[a-z--9]", r"[a-z\--9]"),
            ("[a[b]", r"[a\[b]"),
            ("[[:alpha:][:^digit:]]", "[[:alpha:][:^digit:]]"),
            ("[a-z0-9_-]+&&--~~", "[a-z0-9_-]+&&--~~"),
            ("(?x)[ #]", r"(?x)[\x20\x23]"),
            (r"\h[\h]", r"[\t\x20\xA0][\t\x20\xA0]"),
            (r"\\h", r"\\h"),
            (r"\v", r"[\n\x0B\f\r\x85]"),
            (r"\<a\>", "<a>"),
            (r"[\b]\b", r"[\x08]\b"),
            (r"a\Z", r"a(?=\n?\z)"),
            ("a(?#b)c", "ac"),
        ] {
            assert_eq!(plain(pattern), translated, "{pattern}");
        }
    }

    #[test]
    fn possessive_quantifiers_are_told_from_others() {
        for (pattern, possessive) in [
            ("a++", true),
            ("a*+", true),
            ("a?+", true),
            ("a{2,}+", true),
            ("a+?b+", false),
            (r"\x{41}+\p{L}+", false),
            (r"\++[+]+", false),
        ] {
            let translation = translate(pattern.as_bytes()).unwrap();
            assert_eq!(translation.possessive, possessive, "{pattern}");
        }
    }

    #[test]
    fn what_cannot_be_translated_is_refused_by_name() {
        for (pattern, name) in [
            (r"\Qa\E", r"\Q"),
            (r"\b{start}", r"\b{"),
            (r"(a)\g1", r"\g"),
            ("a(?R)?", "(?R)"),
            (r"\O", r"\O"),
            (r"\u0041", r"\u"),
        ] {
            let error = translate(pattern.as_bytes()).unwrap_err();
            assert_eq!(error, format!("{name} is not supported"), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn what_both_dialects_read_alike_is_left_alone(
            parts in proptest::collection::vec(
                prop::sample::select(vec![
                    "a", "/", "^", ".", "|", "a+", "b*?", "c{1,2}", "(x)", "(?:y|z)", "(?i)",
                    "(?<n>q)", "(?!u)", "[a-z]", "[^]/]", r"[\w.-]", r"\.", r"\$", r"\d", r"\\",
                    "[$]", "é", "&&", "--", "~~",
                ]),
                0..12,
            ),
        ) {
            let pattern = parts.concat();
            let untouched = Translation {
                pattern: pattern.clone().into_bytes(),
                before_line_feed: None,
                possessive: false,
            };
            prop_assert_eq!(translate(pattern.as_bytes()), Ok(untouched));
        }

        #[test]
        fn no_pattern_is_too_odd(pattern in proptest::collection::vec(
            prop::sample::select(br"\[](){}?+*-^&~#:$x m,1hQ<R".to_vec()), 0..24,
        )) {
            let _ = translate(&pattern);
        }
    }
}
