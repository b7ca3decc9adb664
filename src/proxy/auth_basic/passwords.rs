//! Whether a password fits what a password file has for a user.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use md5::{Digest, Md5};
use sha_crypt::{PasswordVerifier, ShaCrypt};

use crate::http::credentials::decode_base64;

use super::des_crypt::des_crypt;

/// What the comparison said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    /// The stored form is none that is known here.
    Unknown,
}

impl From<bool> for Match {
    fn from(same: bool) -> Self {
        if same { Self::Yes } else { Self::No }
    }
}

/// Compares. May take a second: what makes a hash good against guessing is
/// that it is slow.
pub(super) fn verify(password: &[u8], stored: &[u8]) -> Match {
    // crypt(3) takes a C string.
    let end = password.iter().position(|byte| *byte == 0);
    let password = password.get(..end.unwrap_or(password.len())).unwrap_or(&[]);
    if let Some(plain) = stored.strip_prefix(b"{PLAIN}") {
        return same_bytes(password, plain).into();
    }
    if let Some(hash) = stored.strip_prefix(b"{SHA}") {
        return salted_sha1(password, hash, false);
    }
    if let Some(hash) = stored.strip_prefix(b"{SSHA}") {
        return salted_sha1(password, hash, true);
    }
    for magic in [b"$apr1$".as_slice(), b"$1$"] {
        if let Some(rest) = stored.strip_prefix(magic) {
            return md5_crypt(password, magic, rest);
        }
    }
    let Ok(text) = std::str::from_utf8(stored) else {
        return Match::Unknown;
    };
    if text.starts_with("$5$") || text.starts_with("$6$") {
        use sha_crypt::password_hash::Error;
        return match ShaCrypt::default().verify_password(password, text) {
            Ok(()) => Match::Yes,
            Err(Error::PasswordInvalid) => Match::No,
            Err(_) => Match::Unknown,
        };
    }
    if text.starts_with("$y$") {
        return yescrypt(password, text);
    }
    if text.starts_with("$2") {
        return match bcrypt::verify(password, text) {
            Ok(same) => same.into(),
            Err(_) => Match::Unknown,
        };
    }
    match des_crypt(password, stored) {
        Some(hashed) => same_bytes(&hashed, stored).into(),
        None => Match::Unknown,
    }
}

/// In a time that does not tell where they differ.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// `{SHA}` and `{SSHA}`: the digest, and the salt behind it.
fn salted_sha1(password: &[u8], hash: &[u8], salted: bool) -> Match {
    const DIGEST: usize = 20;
    let decoded = decode_base64(hash);
    let Some((digest, salt)) = decoded.as_ref().and_then(|d| d.split_at_checked(DIGEST)) else {
        return Match::Unknown;
    };
    if !salted && !salt.is_empty() {
        return Match::Unknown;
    }
    let mut sha1 = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(password);
    sha1.update(salt);
    same_bytes(digest, sha1.finish().as_ref()).into()
}

/// The memory that one comparison may take. crypt(5) proposes 16 MiB; its largest
/// cost would be 1 GiB for each of the threads.
const MOST_MEMORY: u64 = 256 << 20;

/// yescrypt, as Debian's `passwd` has it.
fn yescrypt(password: &[u8], stored: &str) -> Match {
    use yescrypt::password_hash::Error;
    /// Characters of a hash of 256 bits. Of a shorter one nothing more would be
    /// compared than there is.
    const HASH: usize = 43;
    let mut fields = stored.split('$').skip(2);
    let parameters = fields.next().and_then(|text| text.parse().ok());
    let takes = |parameters: yescrypt::Params| {
        let block = 128 * u64::from(parameters.r());
        parameters.n().saturating_mul(block)
    };
    if parameters
        .map(takes)
        .is_none_or(|bytes| bytes > MOST_MEMORY)
        || fields.last().is_none_or(|hash| hash.len() != HASH)
    {
        return Match::Unknown;
    }
    match yescrypt::Yescrypt::default().verify_password(password, stored) {
        Ok(()) => Match::Yes,
        Err(Error::PasswordInvalid) => Match::No,
        Err(_) => Match::Unknown,
    }
}

/// Poul-Henning Kamp's MD5 crypt, as `$1$` and as Apache's `$apr1$`. Long
/// broken as a digest, and still what `htpasswd` writes when asked for nothing
/// else.
fn md5_crypt(password: &[u8], magic: &[u8], rest: &[u8]) -> Match {
    const SALT: usize = 8;
    const ROUNDS: usize = 1000;
    let Some(dollar) = rest.iter().position(|byte| *byte == b'$') else {
        return Match::Unknown;
    };
    let (salt, stored) = rest.split_at_checked(dollar).unwrap_or_default();
    let stored = stored.get(1..).unwrap_or_default();
    if salt.len() > SALT {
        return Match::Unknown;
    }
    let mut digest: [u8; 16] = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize()
        .into();
    let mut first = Md5::new()
        .chain_update(password)
        .chain_update(magic)
        .chain_update(salt);
    for part in password.chunks(digest.len()) {
        first.update(digest.get(..part.len()).unwrap_or_default());
    }
    let mut length = password.len();
    while length > 0 {
        // A zero, or the first byte of the password: the original does so.
        match length & 1 {
            1 => first.update([0]),
            _ => first.update(password.get(..1).unwrap_or_default()),
        }
        length >>= 1;
    }
    digest = first.finalize().into();
    for round in 0..ROUNDS {
        let odd = round % 2 == 1;
        let mut next = Md5::new();
        next.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest } else { password });
        digest = next.finalize().into();
    }
    same_bytes(&to_64(&digest), stored).into()
}

/// crypt(3)'s own base 64, and its own order of bytes.
fn to_64(digest: &[u8; 16]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *digest;
    let groups = [
        ([a, g, m], 4),
        ([b, h, n], 4),
        ([c, i, o], 4),
        ([d, j, p], 4),
        ([e, k, f], 4),
        ([0, 0, l], 2),
    ];
    let mut text = Vec::with_capacity(22);
    for ([high, middle, low], digits) in groups {
        let mut bits = u32::from_be_bytes([0, high, middle, low]);
        for _ in 0..digits {
            let digit = ALPHABET.get((bits & 0x3f) as usize);
            text.extend(digit);
            bits >>= 6;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `htpasswd` (apache2-utils), `openssl passwd` and crypt(3).
    const STORED: &[&str] = &[
        "{PLAIN}secret",
        "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "{SSHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA==",
        "$apr1$OzlN.hC1$frTrE2yEQ8NnBY54pI14K/",
        "$apr1$abc$PZF73YJz5hJ9yyI.7OP.R.",
        "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1",
        "$2y$04$pN4jKLm/XHlhMZ72QTrzp.Ky3KMemGtbwy8iOZyyJkfoxUWDAd3D.",
        "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.",
        "$6$0123456789abcdef$8CGkKDSyVpVlVNcs5PssRw/Tb8EgfecuA6D/zsRQFumJaU.s8KgTWWc2HfgkB7h2n1qIKiJFeSyUFrwvhILXy.",
        "$6$rounds=10000$abc$3DDOWZMNRRKDT142bUtYQRY52ycK/xshRXOQgIyt2QRXzLDnoPq6v4lO9bA3f/JhGz1mHrAh.QUDGHmaE5RxP.",
        "$y$j75$abcdefghijklmnop$vZlXu1XtxOBWRxjOpQqONp1WYfMO0dN.H4xeSMU2ZvC",
        "$y$j9T$0123456789abcdef$lR1n3oQf67KjQYqzXTbu5mO9zFkv9J6PEbyeH7jZQy4",
    ];

    #[test]
    fn each_form_takes_the_password_and_no_other() {
        for stored in STORED {
            assert_eq!(verify(b"secret", stored.as_bytes()), Match::Yes, "{stored}");
            for other in ["", "Secret", "secret ", "secre", "secretsecretsecretsecret"] {
                assert_eq!(
                    verify(other.as_bytes(), stored.as_bytes()),
                    Match::No,
                    "{stored}"
                );
            }
        }
    }

    #[test]
    fn what_is_in_no_known_form_fits_nobody() {
        for stored in [
            "",
            "secret",
            "$",
            "$2y$",
            "$6$",
            "$6$salt",
            "$apr1$salt",
            "$apr1$toolongasalt$x",
            "{SHA}",
            "{SHA}AAAA",
            "{SSHA}!",
            "$2y$99$xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "$7$x$y",
            "$y$",
            "$y$j9T$0123456789abcdef",
            "$y$j9T$0123456789abcdef$",
            "$y$j9T$0123456789abcdef$lR1n3oQf67KjQYqz",
            // 1 GiB.
            "$y$jFT$0123456789abcdef$lR1n3oQf67KjQYqzXTbu5mO9zFkv9J6PEbyeH7jZQy4",
            "ab01FAX.bQRS",
            "ab01FAX.bQRSUx",
            "ab01FAX.bQR:U",
        ] {
            assert_eq!(
                verify(b"secret", stored.as_bytes()),
                Match::Unknown,
                "{stored}"
            );
        }
        assert_eq!(verify(b"secret", b"\xff\xfe"), Match::Unknown);
    }
}
