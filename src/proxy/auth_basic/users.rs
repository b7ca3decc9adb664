//! A password file: a line for each user, read as Nginx reads it.

/// What the file has for a user. Of several lines the first counts.
pub(super) fn find<'f>(file: &'f [u8], user: &[u8]) -> Option<&'f [u8]> {
    file.split(|byte| *byte == b'\n').find_map(|line| {
        if matches!(line.first(), Some(b'#' | b'\r')) {
            return None;
        }
        let rest = line.strip_prefix(user)?.strip_prefix(b":")?;
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b':'));
        rest.get(..end.unwrap_or(rest.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_user_password_and_whatever() {
        let file = b"# a comment: x\n\nann:$1$x\r\nbob:secret:Bob Builder\nbob:second\n\rcat:x\n#dan:x\neve:last";
        assert_eq!(find(file, b"ann"), Some(&b"$1$x"[..]));
        assert_eq!(find(file, b"bob"), Some(&b"secret"[..]));
        assert_eq!(find(file, b"eve"), Some(&b"last"[..]));
        for nobody in ["an", "annn", "cat", "dan", "#dan", "# a comment", "x"] {
            assert_eq!(find(file, nobody.as_bytes()), None, "{nobody}");
        }
        assert_eq!(find(b"", b"ann"), None);
    }
}
