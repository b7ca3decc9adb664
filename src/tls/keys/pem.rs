//! PEM sections of keys (RFC 7468), with the headers that OpenSSL's traditional
//! form puts before the base64 (RFC 1421 §4.6.1.1, §4.6.1.3).

use memchr::memmem;

use super::pbe::{self, Cipher, OpenError};
use super::{Secret, looks_like_a_key};

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";
const MALFORMED: &str = "a PEM section is malformed";

/// The sections of a file, in order.
pub(super) struct Sections<'a> {
    rest: &'a [u8],
}

/// From BEGIN to END.
pub(super) struct Section<'a> {
    /// As in `-----BEGIN LABEL-----`.
    pub(super) label: &'a [u8],
    /// What stands between the two lines.
    content: &'a [u8],
}

impl<'a> Sections<'a> {
    pub(super) fn of(pem: &'a [u8]) -> Self {
        Self { rest: pem }
    }

    fn section(&mut self, begin: usize) -> Option<Section<'a>> {
        let (_, rest) = self.rest.split_at_checked(begin + BEGIN.len())?;
        let (label, rest) = split_once(rest, DASHES)?;
        let (content, rest) = split_once(rest, b"-----END ")?;
        let (end_label, rest) = split_once(rest, DASHES)?;
        self.rest = rest;
        (label == end_label).then_some(Section { label, content })
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let begin = memmem::find(self.rest, BEGIN)?;
        let section = self.section(begin);
        if section.is_none() {
            self.rest = &[];
        }
        Some(section.ok_or(MALFORMED))
    }
}

impl<'a> Section<'a> {
    /// The bytes that the base64 stands for.
    pub(super) fn body(&self) -> Result<Secret, &'static str> {
        base64(self.split().1).ok_or(MALFORMED)
    }

    /// How the body is sealed; `None` where no header says that it is.
    pub(super) fn dek_info(&self) -> Result<Option<DekInfo>, &'static str> {
        let Some(headers) = self.split().0 else {
            return Ok(None);
        };
        let (mut encrypted, mut info) = (false, None);
        for line in headers.split(|&byte| byte == b'\n') {
            let Some((name, value)) = split_once(line, b":") else {
                continue;
            };
            match name.trim_ascii() {
                b"Proc-Type" => encrypted = value.trim_ascii().ends_with(b"ENCRYPTED"),
                b"DEK-Info" => info = Some(value.trim_ascii()),
                _ => {}
            }
        }
        if !encrypted {
            return Ok(None);
        }
        DekInfo::read(info.ok_or(MALFORMED)?).map(Some)
    }

    /// Headers, which end with an empty line, and base64, which has no colon.
    fn split(&self) -> (Option<&'a [u8]>, &'a [u8]) {
        if !self.content.contains(&b':') {
            return (None, self.content);
        }
        let ends: [&[u8]; 2] = [b"\n\n", b"\n\r\n"];
        ends.iter()
            .filter_map(|end| split_once(self.content, end))
            .min_by_key(|(headers, _)| headers.len())
            .map_or((None, self.content), |(headers, body)| {
                (Some(headers), body)
            })
    }
}

/// `DEK-Info: AES-256-CBC,0123…`.
pub(super) struct DekInfo {
    cipher: Cipher,
    iv: Vec<u8>,
}

impl DekInfo {
    fn read(value: &[u8]) -> Result<Self, &'static str> {
        let (name, iv) = split_once(value, b",").ok_or(MALFORMED)?;
        let cipher = match name.trim_ascii() {
            b"AES-128-CBC" => Cipher::Aes128,
            b"AES-192-CBC" => Cipher::Aes192,
            b"AES-256-CBC" => Cipher::Aes256,
            b"DES-EDE3-CBC" => Cipher::TripleDes,
            b"DES-CBC" => Cipher::Des,
            _ => return Err("the key is encrypted with a cipher that is not supported"),
        };
        let iv = hex(iv.trim_ascii()).ok_or(MALFORMED)?;
        let fits = iv.len() == cipher.iv_length();
        fits.then_some(Self { cipher, iv }).ok_or(MALFORMED)
    }

    pub(super) fn open(&self, sealed: &[u8], passphrase: &[u8]) -> Result<Secret, OpenError> {
        let salt = &self.iv[..8];
        let key = pbe::bytes_to_key(passphrase, salt, self.cipher.key_length());
        looks_like_a_key(self.cipher.decrypt(&key, &self.iv, sealed)?)
    }
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memmem::find(bytes, separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match *pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    });
    pairs.collect()
}

/// Base64 (RFC 4648 §4) with white space and without padding tolerated.
pub(in crate::tls) fn base64(text: &[u8]) -> Option<Secret> {
    // Reserved in advance: growing would leave copies behind that nobody wipes.
    let mut decoded = Secret::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
    let (mut word, mut bits) = (0_u32, 0);
    let trimmed = text.trim_ascii_end();
    let end = trimmed.iter().rposition(|&byte| byte != b'=')? + 1;
    if trimmed.len() - end > 2 {
        return None;
    }
    for &byte in &trimmed[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            byte if byte.is_ascii_whitespace() => continue,
            _ => return None,
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            decoded.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(decoded)
}
