//! Paths and hosts, read the way Nginx reads them, because locations and
//! virtual hosts are chosen by the result.

/// A path that cannot be normalised: it leaves the root, holds a broken escape
/// or an encoded NUL. 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPath;

impl std::fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("invalid path in the request target")
    }
}

impl std::error::Error for InvalidPath {}

/// Whether [`normalize`] would give the path back unchanged, judged quickly and
/// on the safe side: most requests need no copy.
#[must_use]
pub fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') || memchr::memchr3(b'%', b'#', b'?', path).is_some() {
        return false;
    }
    !memchr::memchr_iter(b'/', path).any(|slash| matches!(path.get(slash + 1), Some(b'/' | b'.')))
        && memchr::memchr(0, path).is_none()
}

/// Appends the path as locations see it: percent-decoded, `.` and `..` segments
/// resolved, and runs of slashes merged where `merge_slashes` says so. This is
/// `ngx_http_parse_complex_uri`, with its order of things: an encoded `/` or
/// `.` counts as one, an encoded `%`, `#` or `?` is an ordinary byte. `path` is
/// without the query; a `?` or `#` in it ends it.
///
/// # Errors
///
/// [`InvalidPath`]; `out` then holds garbage behind its former length.
pub fn normalize(path: &[u8], merge_slashes: bool, out: &mut Vec<u8>) -> Result<(), InvalidPath> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Usual,
        Slash,
        Dot,
        DotDot,
    }
    if path.first() != Some(&b'/') {
        return Err(InvalidPath);
    }
    let root = out.len();
    let mut state = State::Usual;
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let mut byte = *byte;
        let mut literal = false;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else {
                    return Err(InvalidPath);
                };
                byte = (hex(*high).ok_or(InvalidPath)? << 4) | hex(*low).ok_or(InvalidPath)?;
                if byte == 0 {
                    return Err(InvalidPath);
                }
                literal = matches!(byte, b'%' | b'#' | b'?');
                rest = tail;
            }
            0 => return Err(InvalidPath),
            _ => {}
        }
        if !literal && matches!(byte, b'?' | b'#') {
            break;
        }
        state = match (state, byte) {
            _ if literal => {
                out.push(byte);
                State::Usual
            }
            (State::Usual, b'/') => {
                out.push(byte);
                State::Slash
            }
            (State::Slash, b'/') => {
                if !merge_slashes {
                    out.push(byte);
                }
                State::Slash
            }
            (State::Slash, b'.') => {
                out.push(byte);
                State::Dot
            }
            (State::Dot, b'/') => {
                out.pop();
                State::Slash
            }
            (State::Dot, b'.') => {
                out.push(byte);
                State::DotDot
            }
            (State::DotDot, b'/') => {
                leave_segment(out, root)?;
                State::Slash
            }
            _ => {
                out.push(byte);
                State::Usual
            }
        };
    }
    match state {
        State::Dot => {
            out.pop();
        }
        State::DotDot => leave_segment(out, root)?,
        State::Usual | State::Slash => {}
    }
    Ok(())
}

/// `/a/b/..` becomes `/a/`.
fn leave_segment(out: &mut Vec<u8>, root: usize) -> Result<(), InvalidPath> {
    // The two dots and the slash before them go, then the segment before.
    let parent_end = out.len().saturating_sub(b"/..".len());
    let parent = out.get(root..parent_end).ok_or(InvalidPath)?;
    let slash = memchr::memrchr(b'/', parent).ok_or(InvalidPath)?;
    out.truncate(root + slash + 1);
    Ok(())
}

/// Appends a normalised path with everything percent-encoded that may not stand
/// in a request line, as Nginx does (`NGX_ESCAPE_URI`) when `proxy_pass` has a
/// URI part.
pub fn escape_uri(out: &mut Vec<u8>, path: &[u8]) {
    escape(out, path, |byte| {
        is_url_byte(byte) && !b"#%?".contains(&byte)
    });
}

/// Appends a value with everything percent-encoded that would end or split an
/// argument of a query, as Nginx does (`NGX_ESCAPE_ARGS`) with what a regular
/// expression has found in a decoded path.
pub fn escape_argument(out: &mut Vec<u8>, value: &[u8]) {
    escape(out, value, |byte| {
        is_url_byte(byte) && !b"#%&+;?".contains(&byte)
    });
}

/// What may stand somewhere in a URL.
fn is_url_byte(byte: u8) -> bool {
    matches!(byte, 0x21..0x7f) && !b"\"<>\\^`{|}".contains(&byte)
}

fn escape(out: &mut Vec<u8>, bytes: &[u8], is_plain: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len());
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

/// The host of a Host field or an authority, without port and without one
/// trailing dot, in the case it was sent in; `None` when it is not one.
///
/// Nginx takes any byte but controls, space and `/`. Here only what RFC 3986
/// §3.2.2 allows passes (userinfo does not), because the result ends up in
/// redirects, log lines and upstream requests.
#[must_use]
pub fn host_name(authority: &[u8]) -> Option<&[u8]> {
    let (host, port) = split_port(authority)?;
    match port {
        [] => Some(host),
        [b':', digits @ ..] if parse_port(digits).is_some() => Some(host),
        _ => None,
    }
}

/// The port of such a field; `None` where it names none, or 0.
#[must_use]
pub fn port(authority: &[u8]) -> Option<u16> {
    let (_, port) = split_port(authority)?;
    parse_port(port.strip_prefix(b":")?).filter(|port| *port > 0)
}

/// The host, and what is behind it.
fn split_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    match authority {
        [b'[', ..] => {
            let end = memchr::memchr(b']', authority)? + 1;
            let literal = authority.get(1..end - 1)?;
            if literal.is_empty() || !literal.iter().all(|b| is_literal_byte(*b)) {
                return None;
            }
            Some((authority.get(..end)?, authority.get(end..)?))
        }
        _ => {
            let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
            let host = authority.get(..end)?;
            let host = host.strip_suffix(b".").unwrap_or(host);
            // Each label but the first follows a dot, and none is empty.
            let mut after_dot = false;
            for &byte in host {
                let is_dot = byte == b'.';
                if !NAME_BYTES.get(usize::from(byte)).is_some_and(|is| *is) || (is_dot && after_dot)
                {
                    return None;
                }
                after_dot = is_dot;
            }
            if host.is_empty() || after_dot {
                return None;
            }
            Some((host, authority.get(end..)?))
        }
    }
}

/// A number that fits a port, or 0 for none (RFC 3986 §3.2.3 allows that).
fn parse_port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |port, byte| {
        let digit = byte.wrapping_sub(b'0');
        let port = port.checked_mul(10)?.checked_add(digit.into())?;
        (digit < 10).then_some(port)
    })
}

/// [`is_name_byte`] for each.
#[allow(
    clippy::indexing_slicing,
    reason = "done by the compiler, which stops at a wrong index"
)]
const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_name_byte(byte as u8);
        byte += 1;
    }
    table
};

/// `unreserved / sub-delims / "%"` of RFC 3986 §3.2.2.
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
        || is_sub_delim(byte)
}

/// Of an IP literal.
fn is_literal_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b':' | b'-' | b'.' | b'_' | b'~')
        || is_sub_delim(byte)
}

const fn is_sub_delim(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    )
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each byte as a character.
    fn normal(path: &str) -> Option<String> {
        let mut out = b"kept".to_vec();
        normalize(path.as_bytes(), true, &mut out).ok()?;
        let text: String = out.iter().copied().map(char::from).collect();
        Some(text.strip_prefix("kept")?.to_owned())
    }

    #[test]
    fn paths_are_normalised_as_nginx_does() {
        for (path, expected) in [
            ("/", Some("/")),
            ("/a/./b", Some("/a/b")),
            ("/a/../b", Some("/b")),
            ("/a/b/..", Some("/a/")),
            ("/a/b/.", Some("/a/b/")),
            ("/a//b///c/", Some("/a/b/c/")),
            ("/a//../b", Some("/b")),
            ("/.a/..b/...", Some("/.a/..b/...")),
            ("/%61%2Fb", Some("/a/b")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/a/.%2e/b", Some("/b")),
            ("/a%2f..%2fb", Some("/b")),
            ("/%253f%3F%23", Some("/%3f?#")),
            ("/a/.%25", Some("/a/.%")),
            ("/a+b", Some("/a+b")),
            ("/a?../..", Some("/a")),
            ("/..", None),
            ("/a/../..", None),
            ("/../a", None),
            ("/%2e%2e/", None),
            ("/%00", None),
            ("/a%", None),
            ("/a%4", None),
            ("/a%4g", None),
            ("", None),
            ("a", None),
        ] {
            assert_eq!(normal(path).as_deref(), expected, "{path:?}");
        }
    }

    #[test]
    fn slashes_are_kept_when_they_are_not_to_be_merged() {
        for (path, expected) in [("/a//b", "/a//b"), ("/a//..", "/a/"), ("//", "//")] {
            let mut out = Vec::new();
            normalize(path.as_bytes(), false, &mut out).unwrap();
            assert_eq!(out, expected.as_bytes(), "{path:?}");
        }
    }

    #[test]
    fn only_what_may_not_stand_in_a_request_line_is_escaped() {
        let mut out = Vec::new();
        escape_uri(
            &mut out,
            b"/a b?c#d%\"<>\\^`{|}\x00\x7f\xc3\xa9&=;:@!$'()*+,~[]",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "/a%20b%3Fc%23d%25%22%3C%3E%5C%5E%60%7B%7C%7D%00%7F%C3%A9&=;:@!$'()*+,~[]"
        );
    }

    #[test]
    fn hosts_lose_their_port_and_one_trailing_dot() {
        for (authority, host) in [
            ("a.example", Some("a.example")),
            ("A.Example.:8443", Some("A.Example")),
            ("a_b.example", Some("a_b.example")),
            ("a:", Some("a")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("127.0.0.1:65535", Some("127.0.0.1")),
        ] {
            assert_eq!(
                host_name(authority.as_bytes()),
                host.map(str::as_bytes),
                "{authority:?}"
            );
        }
    }

    #[test]
    fn ports_are_numbers_above_0() {
        for (authority, expected) in [
            ("a.example:8443", Some(8443)),
            ("[::1]:080", Some(80)),
            ("a", None),
            ("a:", None),
            ("a:0", None),
            ("a:65536", None),
            ("::1", None),
        ] {
            assert_eq!(port(authority.as_bytes()), expected, "{authority:?}");
        }
    }

    #[test]
    fn what_is_no_host_is_none() {
        for authority in [
            "", ".", ":80", "a..b", "a..", "a/b", "a b", "a\tb", "a\0", "u@a", "a?b", "a#b",
            "a\\b", "a:80:80", "a:x", "a:65536", "a:+1", "[::1", "[]", "[::1]x", "[::1]:x",
            "[a/b]", "é", "a\"",
        ] {
            assert_eq!(host_name(authority.as_bytes()), None, "{authority:?}");
        }
    }

    /// The rules again, slowly: decode all, split, walk.
    fn reference(path: &str, merge: bool) -> Option<String> {
        let mut decoded = String::new();
        let mut rest = path;
        while let Some(character) = rest.chars().next() {
            if character == '%' {
                let digits = rest.get(1..3)?;
                if !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                let byte = u8::from_str_radix(digits, 16).ok()?;
                decoded.push(byte.into());
                rest = &rest[3..];
            } else {
                decoded.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
        let mut kept: Vec<&str> = Vec::new();
        let mut open = true;
        for segment in decoded.strip_prefix('/')?.split('/') {
            match segment {
                "." => open = true,
                ".." => {
                    kept.pop()?;
                    open = true;
                }
                "" if merge => open = true,
                other => {
                    kept.push(other);
                    open = false;
                }
            }
        }
        let end = if open && !kept.is_empty() { "/" } else { "" };
        Some(format!("/{}{end}", kept.join("/")))
    }

    fn path() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "/", "a", "b", ".", "..", "/..", "/./", "%2e", "%2F", "%61", "%25", "%3f", "%",
            "+",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #[test]
        fn normalisation_agrees_with_a_slow_reference(path in path()) {
            prop_assert_eq!(normal(&path), reference(&path, true));
        }

        #[test]
        fn a_plain_path_is_its_own_normal_form(path in prop_oneof![path(), "/[a-z/.]{0,10}"]) {
            if is_plain(path.as_bytes()) {
                for merge in [true, false] {
                    let mut out = Vec::new();
                    normalize(path.as_bytes(), merge, &mut out).unwrap();
                    prop_assert_eq!(&out, path.as_bytes());
                }
            }
        }

        #[test]
        fn a_normalised_path_never_leaves_the_root(bytes in prop::collection::vec(any::<u8>(), 0..40), merge: bool) {
            let path = [b"/", &bytes[..]].concat();
            let mut out = Vec::new();
            if normalize(&path, merge, &mut out).is_ok() {
                prop_assert_eq!(out.first(), Some(&b'/'));
                prop_assert!(!out.contains(&0));
                prop_assert!(out.split(|b| *b == b'/').all(|segment| segment != b".." && segment != b"."));
            }
        }

        #[test]
        fn escaping_is_undone_by_normalising(name in "[a-zA-Z0-9 \"#%<>?\\^`{|}é]{1,12}") {
            let path = format!("/{name}");
            let mut escaped = Vec::new();
            escape_uri(&mut escaped, path.as_bytes());
            prop_assert!(escaped.is_ascii());
            let mut out = Vec::new();
            normalize(&escaped, true, &mut out).unwrap();
            prop_assert_eq!(out, path.as_bytes());
        }

        #[test]
        fn no_host_holds_what_could_end_it(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Some(host) = host_name(&bytes) {
                prop_assert!(host.iter().all(|b| b.is_ascii_graphic() && !b"/?#@\\\"<>".contains(b)));
            }
        }
    }
}
