//! What a certificate says beyond its [`super::Identity`], worked out only
//! where a configuration asks for it.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use time::OffsetDateTime;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::{attribute_names, dotted, hex, rfc2253};

/// The remaining variables of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// `$ssl_client_s_dn_legacy`; `None` where the name holds a NUL.
    pub subject_legacy: Option<String>,
    /// `$ssl_client_i_dn_legacy`, under the same rule.
    pub issuer_legacy: Option<String>,
    /// `$ssl_client_fingerprint_sha256`: over the DER, lower case.
    pub fingerprint_sha256: String,
    /// `$ssl_client_v_start`.
    pub valid_from: String,
    /// `$ssl_client_v_end`.
    pub valid_until: String,
    /// The subject's alternative names.
    pub names: AlternativeNames,
}

/// The alternative names that backends ask for, each list in the
/// certificate's order.
///
/// They are printable ASCII without spaces, `"` and `\`: other bytes are
/// percent-encoded. A list in which any name holds a NUL, or is not text, is
/// empty: what lies behind the NUL is what an attacker hides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// DNS names.
    pub dns: Box<[Box<str>]>,
    /// Mail addresses.
    pub email: Box<[Box<str>]>,
    /// URIs, SPIFFE's among them.
    pub uri: Box<[Box<str>]>,
}

impl Details {
    /// Reads a certificate. `None` if it is not one, or if anything follows it.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let sha256 = digest::digest(&digest::SHA256, certificate);
        let mut fingerprint_sha256 = String::with_capacity(64);
        for byte in sha256.as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(fingerprint_sha256, "{byte:02x}");
        }
        Some(Self {
            subject_legacy: one_line(parsed.subject()),
            issuer_legacy: one_line(parsed.issuer()),
            fingerprint_sha256,
            valid_from: printed_time(parsed.validity().not_before.timestamp()),
            valid_until: printed_time(parsed.validity().not_after.timestamp()),
            names: AlternativeNames::of_parsed(&parsed),
        })
    }
}

impl AlternativeNames {
    /// Those of a certificate; none if it cannot be read.
    pub fn of(certificate: &[u8]) -> Self {
        match X509Certificate::from_der(certificate) {
            Ok((_, parsed)) => Self::of_parsed(&parsed),
            Err(_) => Self::default(),
        }
    }

    fn of_parsed(certificate: &X509Certificate<'_>) -> Self {
        let Ok(Some(extension)) = certificate.subject_alternative_name() else {
            return Self::default();
        };
        let list = |kind: fn(&GeneralName<'_>) -> Option<Option<Box<str>>>| {
            let names = extension.value.general_names.iter().filter_map(kind);
            names.collect::<Option<Box<[_]>>>().unwrap_or_default()
        };
        Self {
            email: list(|name| match name {
                GeneralName::RFC822Name(text) => Some(printable(text)),
                GeneralName::Invalid(Tag(1), _) => Some(None),
                _ => None,
            }),
            dns: list(|name| match name {
                GeneralName::DNSName(text) => Some(printable(text)),
                GeneralName::Invalid(Tag(2), _) => Some(None),
                _ => None,
            }),
            uri: list(|name| match name {
                GeneralName::URI(text) => Some(printable(text)),
                GeneralName::Invalid(Tag(6), _) => Some(None),
                _ => None,
            }),
        }
    }
}

/// The name without what could end or quote it. `None` where it holds a NUL.
fn printable(name: &str) -> Option<Box<str>> {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            0 => return None,
            b'"' | b'\\' => percent(&mut out, byte),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => percent(&mut out, byte),
        }
    }
    Some(out.into())
}

fn percent(out: &mut String, byte: u8) {
    out.push('%');
    hex(out, byte);
}

/// A name as OpenSSL's `X509_NAME_oneline` prints it, which Nginx gave before
/// it knew RFC 2253: `/O=a/CN=b`, first attribute first, `\xXX` for what is
/// not printable. `None` where [`rfc2253`] refuses the name.
fn one_line(name: &X509Name<'_>) -> Option<String> {
    rfc2253(name)?;
    let mut out = String::new();
    for rdn in name.iter() {
        for (position, attribute) in rdn.iter().enumerate() {
            out.push(if position == 0 { '/' } else { '+' });
            let oid = attribute.attr_type();
            match attribute_names::short_name(oid.as_bytes()) {
                Some(short) => out.push_str(short),
                None => dotted(&mut out, oid.iter()?),
            }
            out.push('=');
            let value = attribute.attr_value();
            let data = value.as_bytes();
            // GeneralString was once used for UCS-4: of Latin text in it only
            // every fourth byte counts.
            let in_fours = value.tag() == Tag::GeneralString
                && data.len().is_multiple_of(4)
                && data.chunks_exact(4).all(|four| four.starts_with(&[0; 3]));
            let skip = if in_fours { 3 } else { 0 };
            for &byte in data.iter().skip(skip).step_by(skip + 1) {
                match byte {
                    b'/' | b'+' => {
                        out.push('\\');
                        out.push(char::from(byte));
                    }
                    b' '..=b'~' => out.push(char::from(byte)),
                    _ => {
                        out.push_str("\\x");
                        hex(&mut out, byte);
                    }
                }
            }
        }
    }
    Some(out)
}

/// `ASN1_TIME_print`: `Nov  5 09:03:01 2026 GMT`. Empty for a year that no
/// certificate can hold.
fn printed_time(timestamp: i64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let Ok(at) = OffsetDateTime::from_unix_timestamp(timestamp) else {
        return String::new();
    };
    let month = usize::from(u8::from(at.month())) - 1;
    format!(
        "{} {:2} {:02}:{:02}:{:02} {} GMT",
        MONTHS.get(month).unwrap_or(&""),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.year()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_printed_as_openssl_prints_them() {
        assert_eq!(printed_time(0), "Jan  1 00:00:00 1970 GMT");
        assert_eq!(printed_time(1_795_204_999), "Nov 20 20:03:19 2026 GMT");
        assert_eq!(printed_time(i64::MAX), "");
    }

    #[test]
    fn a_name_with_a_nul_empties_its_list() {
        let with = |names: Vec<rcgen::SanType>| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
            params.subject_alt_names = names;
            let key = rcgen::KeyPair::generate().expect("a key");
            let made = params.self_signed(&key).expect("a certificate");
            AlternativeNames::of(made.der())
        };
        let text = |text: &str| rcgen::string::Ia5String::try_from(text).expect("ASCII");
        let names = with(vec![
            rcgen::SanType::DnsName(text("a.example")),
            rcgen::SanType::URI(text("spiffe://a/b")),
            rcgen::SanType::DnsName(text("b.example\0.evil")),
            rcgen::SanType::Rfc822Name(text("\"x, y\"@a.example")),
        ]);
        assert_eq!(names.dns.len(), 0);
        assert_eq!(*names.uri, ["spiffe://a/b".into()]);
        assert_eq!(*names.email, ["%22x,%20y%22@a.example".into()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            prop_assert!(Details::of(&bytes).is_none());
        }

        #[test]
        fn any_name_becomes_printable_or_nothing(name in ".*") {
            match printable(&name) {
                Some(text) => prop_assert!(text.bytes().all(
                    |byte| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
                )),
                None => prop_assert!(name.contains('\0')),
            }
        }
    }
}
