//! Words, semicolons and braces: `ngx_conf_read_token`, without its buffer.

use super::Token;

/// Nginx reads through a buffer of this size, and no word may exceed it, bytes.
const MAX_WORD: usize = 4096;
/// Bytes of a word that is a certificate or key itself (`data:…`): a chain of
/// several certificates and a large key.
const MAX_DATA: usize = 64 << 10;

/// More arguments than any sensible `server_name` or `ssl_ciphers` has, and few
/// enough that one directive cannot take all memory.
const MAX_ARGS: usize = 65_536;

/// What a run of words ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// `words ;`
    Simple(Vec<Token>),
    /// `words {`
    BlockStart(Vec<Token>),
    /// `}`
    BlockEnd,
    /// The end of the file, between statements.
    End,
}

/// A refusal: the message, and the line on which it arose.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LexError {
    pub(super) message: String,
    pub(super) line: u32,
}

/// Reads statements off a file's bytes.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
    /// Where the current line begins.
    line_start: usize,
    /// `-g` rather than a file: the end is worded differently.
    parameter: bool,
}

/// Between which bytes the lexer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a word.
    Space,
    /// Behind `#`, up to the line's end.
    Comment,
    /// In a word without quotes.
    Bare,
    /// In a quoted string.
    Quoted(u8),
    /// Behind a closing quote: a separator must follow.
    NeedSpace,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8], parameter: bool) -> Self {
        Self {
            bytes,
            at: 0,
            line: 1,
            line_start: 0,
            parameter,
        }
    }

    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// The next statement.
    ///
    /// # Errors
    /// In Nginx's words, with the line it would name.
    pub(super) fn next(&mut self) -> Result<Statement, LexError> {
        let mut words = Vec::new();
        let mut state = State::Space;
        // Offset of the word's first byte, with its quote; where that stands.
        let (mut start, mut line, mut column) = (0, 0, 0);
        // Behind `$`, so that `{` belongs to the word.
        let mut variable = false;
        while let Some(&byte) = self.bytes.get(self.at) {
            let here = self.at;
            self.at += 1;
            let before = (self.line, here - self.line_start + 1);
            if byte == b'\n' {
                self.line += 1;
                self.line_start = self.at;
            }
            if matches!(state, State::Bare | State::Quoted(_))
                && here - start >= MAX_WORD
                && (here - start >= MAX_DATA || !is_data(&self.bytes[start..]))
            {
                return Err(too_long(state, line, &self.bytes[start..]));
            }
            match state {
                State::Comment => {
                    if byte == b'\n' {
                        state = State::Space;
                    }
                    continue;
                }
                State::NeedSpace => match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => {
                        state = State::Space;
                        continue;
                    }
                    b';' => return Ok(Statement::Simple(words)),
                    b'{' => return Ok(Statement::BlockStart(words)),
                    // For `if ("$x")`: the parenthesis is a word of its own.
                    b')' => state = State::Space,
                    _ => return Err(self.unexpected(byte)),
                },
                State::Space | State::Bare | State::Quoted(_) => {}
            }
            match state {
                State::Space => {
                    (start, line, column) = (here, before.0, before.1);
                    variable = false;
                    match byte {
                        b' ' | b'\t' | b'\r' | b'\n' => {}
                        b';' | b'{' if words.is_empty() => return Err(self.unexpected(byte)),
                        b';' => return Ok(Statement::Simple(words)),
                        b'{' => return Ok(Statement::BlockStart(words)),
                        b'}' if words.is_empty() => return Ok(Statement::BlockEnd),
                        b'}' => return Err(self.unexpected(byte)),
                        b'#' => state = State::Comment,
                        b'"' | b'\'' => state = State::Quoted(byte),
                        b'\\' => {
                            self.skip_escaped();
                            state = State::Bare;
                        }
                        _ => {
                            variable = byte == b'$';
                            state = State::Bare;
                        }
                    }
                    continue;
                }
                State::Bare | State::Quoted(_) => {
                    if byte == b'{' && variable {
                        continue;
                    }
                    variable = false;
                    if byte == b'\\' {
                        self.skip_escaped();
                        continue;
                    }
                    if byte == b'$' {
                        variable = true;
                        continue;
                    }
                }
                State::Comment | State::NeedSpace => continue,
            }
            let raw = match state {
                State::Quoted(quote) if byte == quote => {
                    state = State::NeedSpace;
                    &self.bytes[start + 1..here]
                }
                State::Bare if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{') => {
                    state = State::Space;
                    &self.bytes[start..here]
                }
                _ => continue,
            };
            if words.len() == MAX_ARGS {
                return Err(self.error("too many parameters".to_owned()));
            }
            words.push(Token {
                value: unescape(raw),
                line,
                column: u32::try_from(column).unwrap_or(u32::MAX),
            });
            match (state, byte) {
                (State::Space, b';') => return Ok(Statement::Simple(words)),
                (State::Space, b'{') => return Ok(Statement::BlockStart(words)),
                _ => {}
            }
        }
        if words.is_empty() && matches!(state, State::Space | State::Comment) {
            return Ok(Statement::End);
        }
        Err(self.error(if self.parameter {
            "unexpected end of parameter, expecting \";\"".to_owned()
        } else {
            "unexpected end of file, expecting \";\" or \"}\"".to_owned()
        }))
    }

    /// The byte behind a backslash never ends a word, whatever it is.
    fn skip_escaped(&mut self) {
        if let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            if byte == b'\n' {
                self.line += 1;
                self.line_start = self.at;
            }
        }
    }

    fn unexpected(&self, byte: u8) -> LexError {
        self.error(format!(
            "unexpected \"{}\"",
            String::from_utf8_lossy(&[byte])
        ))
    }

    fn error(&self, message: String) -> LexError {
        LexError {
            message,
            line: self.line,
        }
    }
}

/// Whether a word, maybe behind its quote, is a `data:` value.
fn is_data(word: &[u8]) -> bool {
    let bare = match word {
        [b'"' | b'\'', rest @ ..] => rest,
        _ => word,
    };
    bare.starts_with(b"data:")
}

fn too_long(state: State, line: u32, word: &[u8]) -> LexError {
    let message = match state {
        State::Quoted(quote) => format!(
            "too long parameter, probably missing terminating \"{}\" character",
            char::from(quote)
        ),
        _ => format!(
            "too long parameter \"{}...\" started",
            String::from_utf8_lossy(word.get(..10).unwrap_or(word))
        ),
    };
    LexError { message, line }
}

/// `\"`, `\'` and `\\` lose the backslash, `\t`, `\r` and `\n` become what they
/// name, and every other backslash stays, which regular expressions need.
fn unescape(raw: &[u8]) -> Box<[u8]> {
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = match (byte, bytes.peek()) {
            (b'\\', Some(&quoted @ (b'"' | b'\'' | b'\\'))) => Some(quoted),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        if escaped.is_some() {
            bytes.next();
        }
        value.push(escaped.unwrap_or(byte));
    }
    value.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Statement>, LexError> {
        let mut lexer = Lexer::new(bytes, false);
        let mut statements = Vec::new();
        loop {
            match lexer.next()? {
                Statement::End => return Ok(statements),
                statement => statements.push(statement),
            }
        }
    }

    /// The words of one `…;`.
    fn words(text: &str) -> Vec<String> {
        match all(text.as_bytes()).unwrap().as_slice() {
            [Statement::Simple(words)] => words.iter().map(|w| w.text().into_owned()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_are_cut_as_nginx_cuts_them() {
        for (text, expected) in [
            ("a b;", vec!["a", "b"]),
            ("a\tb\r\nc ;", vec!["a", "b", "c"]),
            ("a b#c;", vec!["a", "b#c"]),
            ("a # 한국어 ; {\n b;", vec!["a", "b"]),
            (r#"a "b c" 'd "e"';"#, vec!["a", "b c", "d \"e\""]),
            (r#"a "b\"c\'d\\e";"#, vec!["a", "b\"c'd\\e"]),
            (r"a ~\.php$;", vec!["a", r"~\.php$"]),
            (r"a b\ c\;d;", vec!["a", r"b\ c\;d"]),
            (r"a \n\t\r;", vec!["a", "\n\t\r"]),
            ("a ${b}c${{d;", vec!["a", "${b}c${{d"]),
            ("a b}c;", vec!["a", "b}c"]),
            ("a \"b\nc\";", vec!["a", "b\nc"]),
            ("a \"\" '';", vec!["a", "", ""]),
            ("a b\"c\";", vec!["a", "b\"c\""]),
            ("a (\"$b\" = \"c\");", vec!["a", "(\"$b\"", "=", "c", ")"]),
            (r"\;a;", vec![r"\;a"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn a_word_knows_its_line_and_column() {
        let statements = all(b"a\n  b \"c\nd\"  e;").unwrap();
        let [Statement::Simple(words)] = statements.as_slice() else {
            panic!("{statements:?}");
        };
        let places: Vec<_> = words.iter().map(|word| (word.line, word.column)).collect();
        assert_eq!(places, [(1, 1), (2, 3), (2, 5), (3, 5)]);
    }

    #[test]
    fn malformed_text_is_refused_in_nginx_words() {
        for (text, message, line) in [
            ("a", "unexpected end of file, expecting \";\" or \"}\"", 1),
            (
                "a\n\n",
                "unexpected end of file, expecting \";\" or \"}\"",
                3,
            ),
            ("\n;", "unexpected \";\"", 2),
            ("{", "unexpected \"{\"", 1),
            ("a }", "unexpected \"}\"", 1),
            ("a \"b\"c;", "unexpected \"c\"", 1),
            (
                "a \"b",
                "unexpected end of file, expecting \";\" or \"}\"",
                1,
            ),
        ] {
            let error = all(text.as_bytes()).unwrap_err();
            assert_eq!(
                (error.message.as_str(), error.line),
                (message, line),
                "{text}"
            );
        }
        let long = format!("\na \"{}\";", "x".repeat(5000));
        let error = all(long.as_bytes()).unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.line),
            (
                "too long parameter, probably missing terminating \"\"\" character",
                2
            )
        );
        let long = format!("a {};", "x".repeat(5000));
        assert_eq!(
            all(long.as_bytes()).unwrap_err().message,
            "too long parameter \"xxxxxxxxxx...\" started"
        );
        // A chain of certificates is longer than a word may be.
        for quote in ["", "\"", "'"] {
            let data = |length| format!("a {quote}data:{}{quote};", "x".repeat(length));
            assert!(all(data(60_000).as_bytes()).is_ok());
            assert!(all(data(70_000).as_bytes()).is_err());
        }
        assert_eq!(
            Lexer::new(b"a", true).next().unwrap_err().message,
            "unexpected end of parameter, expecting \";\""
        );
    }

    proptest! {
        #[test]
        fn lexing_arbitrary_bytes_ends_without_a_panic(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"{};\"'\\$#\n\r )a".to_vec())],
                0..200,
            )
        ) {
            let _ = all(&bytes);
        }

        #[test]
        fn a_quoted_word_comes_back_as_it_was(
            value in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut text = b"a \"".to_vec();
            for &byte in &value {
                if matches!(byte, b'"' | b'\\') {
                    text.push(b'\\');
                }
                text.push(byte);
            }
            text.extend_from_slice(b"\";");
            let statements = all(&text).unwrap();
            let [Statement::Simple(words)] = statements.as_slice() else {
                panic!("{statements:?}");
            };
            prop_assert_eq!(&*words[1].value, &*value);
        }
    }
}
