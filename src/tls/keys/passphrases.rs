//! `ssl_password_file`.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Secret;

/// Bytes in a line, at most, as in Nginx.
const MAX_LINE: usize = 4095;

/// What a file offers, in its order; at least one.
pub(in crate::tls) struct Passphrases {
    file: PathBuf,
    each: Vec<Secret>,
}

// By hand, because `Zeroizing` would show what it holds.
impl fmt::Debug for Passphrases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(f, "{} of \"{file}\"", self.each.len())
    }
}

impl Passphrases {
    /// One a line, where a line may end in CR LF and the last need not end;
    /// empty lines count for nothing, but a file without any other line offers
    /// the empty passphrase.
    ///
    /// # Errors
    ///
    /// A line is longer than Nginx reads.
    pub(in crate::tls) fn read(file: &Path, content: &[u8]) -> Result<Self, &'static str> {
        let mut each = Vec::new();
        for line in content.split(|&byte| byte == b'\n') {
            if line.len() > MAX_LINE {
                return Err("too long line");
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                each.push(Zeroizing::new(line.to_vec()));
            }
        }
        if each.is_empty() {
            each.push(Secret::default());
        }
        let file = file.to_owned();
        Ok(Self { file, each })
    }

    /// Where they came from.
    pub(in crate::tls) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.each.iter().map(|secret| secret.as_slice())
    }

    /// Behind the name of what stays closed.
    pub(super) fn none_fits(&self) -> String {
        let file = self.file.display();
        match self.each.len() {
            1 => format!("the passphrase in \"{file}\" does not open it"),
            _ => format!("none of the passphrases in \"{file}\" opens it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Vec<String> {
        let read = Passphrases::read(Path::new("p"), content.as_bytes()).expect("short lines");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        read.iter().map(text).collect()
    }

    #[test]
    fn a_passphrase_is_a_line_without_its_end() {
        assert_eq!(
            read("one\ntwo\r\n\n\r\n th ree "),
            ["one", "two", " th ree "]
        );
        assert_eq!(read("one"), ["one"]);
        for empty in ["", "\n", "\r\n\n"] {
            assert_eq!(read(empty), [""]);
        }
    }

    #[test]
    fn a_line_has_a_greatest_length() {
        let file = Path::new("p");
        let longest = [b'x'; MAX_LINE];
        assert!(Passphrases::read(file, &longest).is_ok());
        let longer = [b'x'; MAX_LINE + 1];
        let error = Passphrases::read(file, &longer).expect_err("too long");
        assert_eq!(error, "too long line");
    }

    #[test]
    fn passphrases_are_shown_to_nobody() {
        let read = Passphrases::read(Path::new("/p"), b"hunter2\nhunter3").expect("read");
        assert_eq!(format!("{read:?}"), "2 of \"/p\"");
        assert_eq!(
            read.none_fits(),
            "none of the passphrases in \"/p\" opens it"
        );
    }
}
