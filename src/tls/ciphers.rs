//! `ssl_ciphers`: OpenSSL's cipher strings, mapped to the suites that exist
//! here.
//!
//! The string is a small program over an ordered list: words add, `-` removes,
//! `!` bans, `+` moves to the end, `@STRENGTH` sorts (`ciphers(1)`,
//! `ssl_create_cipher_list`). This runs the same program over a list of six:
//! forward secrecy with authenticated encryption is all that rustls has under
//! TLS 1.2. A word that OpenSSL knows but none of the six carries (`RC4`,
//! `kRSA`, `SHA256`, which means the CBC suites) selects nothing, exactly like
//! a word that OpenSSL does not know, so no list of those is needed.
//!
//! As in OpenSSL the TLS 1.3 suites are not touched by the string.

use std::cmp::Reverse;

use rustls::crypto::aws_lc_rs::cipher_suite as suites;
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite};

use super::hkdf::over_hmac;

/// The TLS 1.3 suites, in OpenSSL's order of preference.
pub const TLS13: [SupportedCipherSuite; 3] = [
    SupportedCipherSuite::Tls13(&AES_256_GCM),
    SupportedCipherSuite::Tls13(&CHACHA20_POLY1305),
    SupportedCipherSuite::Tls13(&AES_128_GCM),
];

static AES_256_GCM: Tls13CipherSuite = over_hmac(&suites::TLS13_AES_256_GCM_SHA384);
static CHACHA20_POLY1305: Tls13CipherSuite = over_hmac(&suites::TLS13_CHACHA20_POLY1305_SHA256);
static AES_128_GCM: Tls13CipherSuite = over_hmac(&suites::TLS13_AES_128_GCM_SHA256);

/// A TLS 1.2 suite with what the words of a cipher string can ask of it.
struct Known {
    suite: SupportedCipherSuite,
    openssl: &'static str,
    iana: &'static str,
    /// Symmetric strength, bits.
    bits: u16,
    authentication: Authentication,
    encryption: Encryption,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Authentication {
    Ecdsa,
    Rsa,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20,
}

/// In the order in which `openssl ciphers ALL` lists them.
static KNOWN: [Known; 6] = [
    Known {
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        openssl: "ECDHE-ECDSA-AES256-GCM-SHA384",
        iana: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        bits: 256,
        authentication: Authentication::Ecdsa,
        encryption: Encryption::Aes256Gcm,
    },
    Known {
        suite: suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        openssl: "ECDHE-RSA-AES256-GCM-SHA384",
        iana: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        bits: 256,
        authentication: Authentication::Rsa,
        encryption: Encryption::Aes256Gcm,
    },
    Known {
        suite: suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        openssl: "ECDHE-ECDSA-CHACHA20-POLY1305",
        iana: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        bits: 256,
        authentication: Authentication::Ecdsa,
        encryption: Encryption::ChaCha20,
    },
    Known {
        suite: suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        openssl: "ECDHE-RSA-CHACHA20-POLY1305",
        iana: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        bits: 256,
        authentication: Authentication::Rsa,
        encryption: Encryption::ChaCha20,
    },
    Known {
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        openssl: "ECDHE-ECDSA-AES128-GCM-SHA256",
        iana: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        bits: 128,
        authentication: Authentication::Ecdsa,
        encryption: Encryption::Aes128Gcm,
    },
    Known {
        suite: suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        openssl: "ECDHE-RSA-AES128-GCM-SHA256",
        iana: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        bits: 128,
        authentication: Authentication::Rsa,
        encryption: Encryption::Aes128Gcm,
    },
];

/// Why a cipher string is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherError {
    /// It is well formed and selects no suite that exists here.
    NoMatch,
    /// A character that no word may have, or an `@` command that does not exist.
    InvalidCommand,
}

impl std::fmt::Display for CipherError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoMatch => {
                "no cipher match (under TLSv1.2 there are ECDHE suites with AES-GCM and CHACHA20)"
            }
            Self::InvalidCommand => "invalid command",
        })
    }
}

/// Runs a cipher string: the TLS 1.2 suites that it selects, in its order.
///
/// # Errors
///
/// As OpenSSL's `SSL_CTX_set_cipher_list`: nothing selected, or bad syntax.
pub fn tls12(string: &str) -> Result<Vec<SupportedCipherSuite>, CipherError> {
    let mut list = List::new();
    let mut rest = string;
    // OpenSSL knows DEFAULT only at the very start.
    if let Some(after) = rest.strip_prefix("DEFAULT") {
        list.add(|_| true);
        rest = after;
    }
    for rule in rest.split([':', ',', ' ', ';']).filter(|r| !r.is_empty()) {
        let (operator, words) = match rule.as_bytes() {
            [b'!', ..] => (Operator::Ban, &rule[1..]),
            [b'-', ..] => (Operator::Remove, &rule[1..]),
            [b'+', ..] => (Operator::MoveToEnd, &rule[1..]),
            [b'@', ..] => {
                list.command(&rule[1..])?;
                continue;
            }
            _ => (Operator::Add, rule),
        };
        if words.is_empty() || !words.bytes().all(allowed) {
            return Err(CipherError::InvalidCommand);
        }
        let matches = |known: &Known| words.split('+').all(|word| carries(known, word));
        match operator {
            Operator::Add => list.add(matches),
            Operator::Remove => list.remove(matches),
            Operator::Ban => list.0.retain(|(known, _)| !matches(known)),
            Operator::MoveToEnd => list.move_to_end(matches),
        }
    }
    let chosen: Vec<_> = list
        .0
        .iter()
        .filter(|(_, active)| *active)
        .map(|(known, _)| known.suite)
        .collect();
    if chosen.is_empty() {
        return Err(CipherError::NoMatch);
    }
    Ok(chosen)
}

/// A TLS 1.3 suite by its name; `Some(None)` is one that OpenSSL has and nobody
/// is offered here.
pub(super) fn tls13_named(name: &str) -> Option<Option<SupportedCipherSuite>> {
    if matches!(name, "TLS_AES_128_CCM_SHA256" | "TLS_AES_128_CCM_8_SHA256") {
        return Some(None);
    }
    let found = TLS13
        .into_iter()
        .find(|known| openssl_name(known.suite()) == name)?;
    Some(Some(found))
}

/// OpenSSL's name of a negotiated suite, as `$ssl_cipher` shows it. The TLS 1.3
/// suites go by their IANA names there.
pub fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => KNOWN
            .iter()
            .find(|known| known.suite.suite() == other)
            .map_or("(NONE)", |known| known.openssl),
    }
}

#[derive(Clone, Copy)]
enum Operator {
    Add,
    Remove,
    Ban,
    MoveToEnd,
}

/// The characters of a word, and the `+` that joins words.
fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'=' | b'_' | b'+')
}

/// Whether a suite has the property, or the name, that a word stands for.
fn carries(known: &Known, word: &str) -> bool {
    use Authentication::{Ecdsa, Rsa};
    use Encryption::{Aes128Gcm, Aes256Gcm, ChaCha20};
    match word {
        "ALL" | "HIGH" | "TLSv1.2" => true,
        "ECDH" | "EECDH" | "ECDHE" | "kEECDH" | "kECDHE" => true,
        "ECDSA" | "aECDSA" => known.authentication == Ecdsa,
        "aRSA" => known.authentication == Rsa,
        "AES" | "AESGCM" | "FIPS" => known.encryption != ChaCha20,
        "AES128" => known.encryption == Aes128Gcm,
        "AES256" => known.encryption == Aes256Gcm,
        "CHACHA20" => known.encryption == ChaCha20,
        "SUITEB128" => known.authentication == Ecdsa && known.encryption != ChaCha20,
        "SUITEB128ONLY" => known.authentication == Ecdsa && known.encryption == Aes128Gcm,
        "SUITEB192" => known.authentication == Ecdsa && known.encryption == Aes256Gcm,
        name => name == known.openssl || name == known.iana,
    }
}

/// OpenSSL's list: every suite that is not banned, active or not. Inactive ones
/// keep a place, because what is added again later takes it up in that order.
struct List(Vec<(&'static Known, bool)>);

impl List {
    fn new() -> Self {
        Self(KNOWN.iter().map(|known| (known, false)).collect())
    }

    /// Activates what matches and is inactive, moving it to the end.
    fn add(&mut self, matches: impl Fn(&Known) -> bool) {
        let (mut added, rest): (Vec<_>, Vec<_>) = self
            .0
            .drain(..)
            .partition(|(known, active)| !active && matches(known));
        added.iter_mut().for_each(|(_, active)| *active = true);
        self.0 = rest;
        self.0.extend(added);
    }

    /// Deactivates what matches, moving it to the front: removed last, it is
    /// the first to come back.
    fn remove(&mut self, matches: impl Fn(&Known) -> bool) {
        let (mut removed, rest): (Vec<_>, Vec<_>) = self
            .0
            .drain(..)
            .partition(|(known, active)| *active && matches(known));
        removed.iter_mut().for_each(|(_, active)| *active = false);
        removed.extend(rest);
        self.0 = removed;
    }

    fn move_to_end(&mut self, matches: impl Fn(&Known) -> bool) {
        let (moved, rest): (Vec<_>, Vec<_>) = self
            .0
            .drain(..)
            .partition(|(known, active)| *active && matches(known));
        self.0 = rest;
        self.0.extend(moved);
    }

    /// `@STRENGTH` and `@SECLEVEL=n`. Levels up to 3 ask for nothing that the
    /// six do not have; 4 wants 192 bits and 5 wants 256. Level 0 allows what
    /// does not exist here.
    fn command(&mut self, command: &str) -> Result<(), CipherError> {
        match command {
            "STRENGTH" => self.0.sort_by_key(|(known, active)| {
                // Inactive ones stay in front, where they were not counted.
                (*active, Reverse(if *active { known.bits } else { 0 }))
            }),
            "SECLEVEL=0" | "SECLEVEL=1" | "SECLEVEL=2" | "SECLEVEL=3" => {}
            "SECLEVEL=4" | "SECLEVEL=5" => self.0.retain(|(known, _)| known.bits >= 192),
            _ => return Err(CipherError::InvalidCommand),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn names(string: &str) -> Result<Vec<&'static str>, CipherError> {
        let suites = tls12(string)?;
        Ok(suites.iter().map(|s| openssl_name(s.suite())).collect())
    }

    /// What OpenSSL itself makes of the string, reduced to what exists here.
    fn oracle(string: &str) -> Vec<String> {
        let output = Command::new("openssl")
            .args(["ciphers", "-tls1_2", "-s", string])
            .output()
            .expect("openssl runs");
        String::from_utf8(output.stdout)
            .expect("ASCII")
            .trim()
            .split(':')
            .filter(|name| KNOWN.iter().any(|known| known.openssl == *name))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn strings_mean_what_they_mean_to_openssl() {
        let strings = [
            "HIGH:!aNULL:!MD5",
            "DEFAULT",
            "DEFAULT:!aRSA",
            "DEFAULT@STRENGTH",
            "ALL:!aNULL:!EXPORT56:RC4+RSA:+HIGH:+MEDIUM:+LOW:+SSLv2:+EXP",
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384",
            "EECDH+AESGCM:EDH+AESGCM",
            "EECDH+CHACHA20:EECDH+AES128:RSA+AES128:EECDH+AES256:RSA+AES256:EECDH+3DES:RSA+3DES:!MD5",
            "kEECDH+ECDSA+AES128:kEECDH+ECDSA+AES256:kEECDH+AES128:kEECDH+AES256:!aNULL:!eNULL",
            "ECDHE+AES256 ECDHE+CHACHA20,ECDHE+AES128",
            "AES128:AES256:-AES:CHACHA20:AES",
            "HIGH:+AES256",
            "HIGH:-aRSA:HIGH",
            "HIGH:-AES128:-AES256:HIGH",
            "AES128:HIGH:@STRENGTH",
            "aRSA:HIGH:@STRENGTH",
            "HIGH:!AES128:AES128",
            "NOSUCH:HIGH+NOSUCH:aRSA",
            "TLSv1.2:!aECDSA",
            "FIPS:!aNULL",
            "HIGH:@SECLEVEL=1",
            "HIGH:@SECLEVEL=4",
            "SHA256:AES128",
            "ECDH+AESGCM:!RSA",
            "HIGH;aRSA",
        ];
        for string in strings {
            assert_eq!(names(string).expect(string), oracle(string), "{string}");
        }
    }

    #[test]
    fn a_string_that_matches_none_is_an_error() {
        for string in [
            "RC4",
            "AES128-SHA",
            "kRSA:SHA256",
            "NOSUCH",
            "HIGH:!ALL",
            "",
        ] {
            assert_eq!(names(string), Err(CipherError::NoMatch), "{string}");
        }
    }

    #[test]
    fn commands_that_openssl_refuses_are_refused() {
        for string in ["HIGH:@NOSUCH", "HIGH:@SECLEVEL=9", "HIGH:(x)", "HIGH:!"] {
            assert_eq!(names(string), Err(CipherError::InvalidCommand), "{string}");
        }
    }

    #[test]
    fn iana_names_are_understood() {
        let string = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        assert_eq!(names(string), Ok(vec!["ECDHE-RSA-AES128-GCM-SHA256"]));
    }

    #[test]
    fn every_suite_has_openssls_name() {
        for suite in TLS13 {
            assert!(openssl_name(suite.suite()).starts_with("TLS_"));
        }
        for known in &KNOWN {
            assert_eq!(openssl_name(known.suite.suite()), known.openssl);
        }
        assert_eq!(openssl_name(CipherSuite::TLS_NULL_WITH_NULL_NULL), "(NONE)");
    }

    proptest! {
        #[test]
        fn no_string_panics_or_repeats_a_suite(string in "[A-Za-z0-9:!+@,=\\- ]{0,60}") {
            if let Ok(mut chosen) = names(&string) {
                let length = chosen.len();
                chosen.sort_unstable();
                chosen.dedup();
                prop_assert_eq!(chosen.len(), length);
            }
        }
    }
}
