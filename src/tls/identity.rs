//! What a certificate says about its holder, in the forms that Nginx gives.
//!
//! Backends compare `$ssl_client_s_dn` with strings that operators copied from
//! Nginx's logs, so names are printed byte for byte as OpenSSL's
//! `X509_NAME_print_ex` does under `XN_FLAG_RFC2253`: last attribute first,
//! OpenSSL's short attribute names, `\XX` for every byte outside printable
//! ASCII. The one difference is deliberate: a name with a NUL in it has no
//! text here, because what lies behind the NUL is what an attacker hides from
//! readers that stop there.

mod attribute_names;
pub mod details;
pub mod forms;
pub mod pem;

use std::fmt::Write as _;

use aws_lc_rs::digest;
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// The identity of one certificate; always that of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `$ssl_client_s_dn`; `None` where the name holds a NUL or cannot be read.
    pub subject: Option<String>,
    /// `$ssl_client_i_dn`, under the same rule.
    pub issuer: Option<String>,
    /// `$ssl_client_serial`: upper-case hexadecimal, whole bytes.
    pub serial: String,
    /// `$ssl_client_fingerprint`: SHA-1 over the DER, 40 lower-case digits.
    pub fingerprint: String,
    /// Start of validity, seconds since the epoch.
    pub not_before: i64,
    /// End of validity, seconds since the epoch.
    pub not_after: i64,
}

impl Identity {
    /// Reads a certificate. `None` if it is not one, or if anything follows it.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        Some(Self {
            subject: rfc2253(parsed.subject()),
            issuer: rfc2253(parsed.issuer()),
            serial: serial(parsed.raw_serial()),
            fingerprint: fingerprint(certificate),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

/// A name in OpenSSL's reading of RFC 2253. `None` where it holds a NUL, or a
/// string whose length does not fit its character width (OpenSSL fails there).
pub fn rfc2253(name: &X509Name<'_>) -> Option<String> {
    let mut out = String::new();
    // Within a multi-valued RDN the order turns round as well, since OpenSSL
    // walks a flat list of attributes from its end.
    let rdns: Vec<_> = name.iter().collect();
    for (number, rdn) in rdns.into_iter().rev().enumerate() {
        let attributes: Vec<_> = rdn.iter().collect();
        for (position, attribute) in attributes.into_iter().rev().enumerate() {
            match (number, position) {
                (0, 0) => {}
                (_, 0) => out.push(','),
                _ => out.push('+'),
            }
            let oid = attribute.attr_type();
            match attribute_names::short_name(oid.as_bytes()) {
                Some(short) => {
                    out.push_str(short);
                    out.push('=');
                    value(&mut out, attribute.attr_value())?;
                }
                None => {
                    dotted(&mut out, oid.iter()?);
                    out.push('=');
                    dump(&mut out, attribute.attr_value());
                }
            }
        }
    }
    Some(out)
}

/// How many bytes a character takes, and whether it becomes UTF-8 before it is
/// escaped (OpenSSL's `tag2nbyte` with `ASN1_STRFLGS_UTF8_CONVERT`).
enum Text {
    Utf8,
    Latin1,
    Bmp,
    Universal,
}

fn value(out: &mut String, any: &Any<'_>) -> Option<()> {
    let text = match any.tag() {
        Tag::Utf8String => Text::Utf8,
        Tag::NumericString
        | Tag::PrintableString
        | Tag::T61String
        | Tag::Ia5String
        | Tag::UtcTime
        | Tag::GeneralizedTime
        | Tag::VisibleString => Text::Latin1,
        Tag::BmpString => Text::Bmp,
        Tag::UniversalString => Text::Universal,
        _ => {
            dump(out, any);
            return Some(());
        }
    };
    let data = any.as_bytes();
    match text {
        Text::Utf8 => {
            let last = data.len().saturating_sub(1);
            for (position, &byte) in data.iter().enumerate() {
                escaped(out, byte, position == 0, position == last)?;
            }
        }
        Text::Latin1 => characters(out, data.chunks_exact(1))?,
        Text::Bmp if data.len().is_multiple_of(2) => characters(out, data.chunks_exact(2))?,
        Text::Universal if data.len().is_multiple_of(4) => characters(out, data.chunks_exact(4))?,
        Text::Bmp | Text::Universal => return None,
    }
    Some(())
}

/// Fixed-width characters, converted to UTF-8 and then escaped bytewise.
fn characters(out: &mut String, chunks: std::slice::ChunksExact<'_, u8>) -> Option<()> {
    let last = chunks.len().saturating_sub(1);
    for (position, chunk) in chunks.enumerate() {
        let code = chunk
            .iter()
            .fold(0_u32, |code, &byte| code << 8 | u32::from(byte));
        // OpenSSL would emit surrogates as three bytes of pseudo UTF-8; what
        // is no character has no text here.
        let character = char::from_u32(code)?;
        let mut buffer = [0; 4];
        for &byte in character.encode_utf8(&mut buffer).as_bytes() {
            escaped(out, byte, position == 0, position == last)?;
        }
    }
    Some(())
}

/// One byte, escaped as OpenSSL's `do_esc_char` does under `ESC_2253`,
/// `ESC_CTRL` and `ESC_MSB`.
fn escaped(out: &mut String, byte: u8, first: bool, last: bool) -> Option<()> {
    match byte {
        0 => return None,
        b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
            out.push('\\');
            out.push(char::from(byte));
        }
        b'#' if first && !last => out.push_str("\\#"),
        b' ' if first || last => out.push_str("\\ "),
        0x20..=0x7e => out.push(char::from(byte)),
        _ => {
            out.push('\\');
            hex(out, byte);
        }
    }
    Some(())
}

/// `#` and the value's DER in hexadecimal (`ASN1_STRFLGS_DUMP_DER`).
fn dump(out: &mut String, any: &Any<'_>) {
    out.push('#');
    let class = (any.header.class() as u8) << 6;
    let constructed = u8::from(any.header.constructed()) << 5;
    let tag = any.tag().0;
    if tag < 31 {
        hex(out, class | constructed | tag as u8);
    } else {
        hex(out, class | constructed | 31);
        let groups = (1..5).rev().filter(|group| tag >> (7 * group) != 0);
        for group in groups {
            hex(out, 0x80 | (tag >> (7 * group) & 0x7f) as u8);
        }
        hex(out, (tag & 0x7f) as u8);
    }
    let data = any.as_bytes();
    let length = data.len();
    if length < 0x80 {
        hex(out, length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|&&byte| byte == 0).count();
        hex(out, 0x80 | (bytes.len() - skip) as u8);
        bytes.iter().skip(skip).for_each(|&byte| hex(out, byte));
    }
    data.iter().for_each(|&byte| hex(out, byte));
}

fn dotted(out: &mut String, arcs: impl Iterator<Item = u64>) {
    for (position, arc) in arcs.enumerate() {
        let dot = if position == 0 { "" } else { "." };
        // Writing to a String cannot fail.
        let _ = write!(out, "{dot}{arc}");
    }
}

/// Upper case, as everything of OpenSSL's name printing.
fn hex(out: &mut String, byte: u8) {
    let _ = write!(out, "{byte:02X}");
}

/// A serial number as `i2a_ASN1_INTEGER` prints it: the magnitude's bytes,
/// `00` for zero, a minus sign before the (forbidden, but seen) negative ones.
/// OpenSSL breaks lines after 35 bytes; RFC 5280 §4.1.2.2 allows 20, and a line
/// break has no business in a header field, so there is none here.
fn serial(raw: &[u8]) -> String {
    let negative = raw.first().is_some_and(|&byte| byte >= 0x80);
    let mut magnitude = raw.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
            *byte = sum;
            carry = overflow;
        }
    }
    let skip = magnitude.iter().take_while(|&&byte| byte == 0).count();
    let skip = skip.min(magnitude.len().saturating_sub(1));
    let mut out = String::with_capacity(2 * magnitude.len() + 1);
    if negative {
        out.push('-');
    }
    magnitude
        .iter()
        .skip(skip)
        .for_each(|&byte| hex(&mut out, byte));
    out
}

/// SHA-1 because `$ssl_client_fingerprint` is SHA-1; nothing here trusts it.
fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
    let mut out = String::with_capacity(40);
    for byte in digest.as_ref() {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// DER: tag, length, content.
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        if content.len() < 0x80 {
            out.push(content.len() as u8);
        } else {
            out.push(0x82);
            out.extend((content.len() as u16).to_be_bytes());
        }
        out.extend(content);
        out
    }

    fn attribute(oid: &[u8], tag: u8, content: &[u8]) -> Vec<u8> {
        tlv(0x30, &[tlv(0x06, oid), tlv(tag, content)].concat())
    }

    /// A name of RDNs, each a list of encoded attributes.
    fn name(rdns: &[&[Vec<u8>]]) -> Vec<u8> {
        let sets: Vec<Vec<u8>> = rdns.iter().map(|set| tlv(0x31, &set.concat())).collect();
        tlv(0x30, &sets.concat())
    }

    fn printed(der: &[u8]) -> Option<String> {
        let (_, parsed) = X509Name::from_der(der).expect("a name");
        rfc2253(&parsed)
    }

    const CN: &[u8] = &[0x55, 0x04, 0x03];
    const O: &[u8] = &[0x55, 0x04, 0x0a];
    const OU: &[u8] = &[0x55, 0x04, 0x0b];

    #[test]
    fn names_are_printed_as_openssl_prints_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let subjects = [
            "/C=KR/ST=Seoul/O=Woori, Inc./OU=a+b/CN=client.woorifisa.site",
            "/CN= leading and trailing ",
            "/CN=#hash/O=<angle>;semi\"quote\"",
            "/CN=back\\\\slash",
            "/CN=한국/O=Müller",
            "/DC=org/DC=example/UID=x/emailAddress=a@b.c/serialNumber=12",
            "/CN=multi+OU=valued+O=rdn/L=Busan",
            "/1.2.3.4.5=unknown/CN=x",
            "/organizationIdentifier=NTRKR-1/jurisdictionC=KR/GN=G/SN=S/title=t",
            "/CN=#",
            "/CN= ",
        ];
        for subject in subjects {
            let certificate = dir.path().join("c.pem");
            let key = dir.path().join("k.pem");
            let made = Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
                .args([
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-utf8",
                    "-multivalue-rdn",
                ])
                .args(["-subj", subject, "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&certificate)
                .output()
                .expect("openssl runs");
            assert!(made.status.success(), "{subject}: {made:?}");
            let shown = Command::new("openssl")
                .args(["x509", "-noout", "-subject", "-serial", "-fingerprint"])
                .args(["-nameopt", "RFC2253", "-in"])
                .arg(&certificate)
                .output()
                .expect("openssl runs");
            let shown = String::from_utf8(shown.stdout).expect("ASCII");
            let line = |name: &str| {
                let mut lines = shown.lines().filter_map(|line| line.split_once('='));
                let (_, value) = lines
                    .find(|(label, _)| label.eq_ignore_ascii_case(name))
                    .expect(name);
                value.to_owned()
            };
            let pem = std::fs::read(&certificate).expect("written");
            let der = rustls_pemfile::certs(&mut &pem[..]).next();
            let identity = Identity::of(&der.expect("one").expect("PEM")).expect("readable");
            assert_eq!(identity.subject, Some(line("subject")), "{subject}");
            assert_eq!(identity.issuer, identity.subject);
            assert_eq!(identity.serial, line("serial"));
            let fingerprint = line("sha1 Fingerprint").replace(':', "").to_lowercase();
            assert_eq!(identity.fingerprint, fingerprint);
            assert_eq!(identity.not_after - identity.not_before, 30 * 86_400);
        }
    }

    #[test]
    fn a_name_with_a_nul_has_no_text() {
        let der = name(&[&[attribute(CN, 0x0c, b"admin\0.evil")]]);
        assert_eq!(printed(&der), None);
        let wide = name(&[&[attribute(CN, 0x1e, &[0, b'a', 0, 0])]]);
        assert_eq!(printed(&wide), None);
    }

    #[test]
    fn wide_characters_become_escaped_utf8() {
        let der = name(&[&[attribute(CN, 0x1e, &[0xd5, 0x5c, 0, b'a'])]]);
        assert_eq!(printed(&der).as_deref(), Some("CN=\\ED\\95\\9Ca"));
        let latin = name(&[&[attribute(CN, 0x14, &[0xfc])]]);
        assert_eq!(printed(&latin).as_deref(), Some("CN=\\C3\\BC"));
        let odd = name(&[&[attribute(CN, 0x1e, &[0xd5])]]);
        assert_eq!(printed(&odd), None);
    }

    #[test]
    fn control_bytes_cannot_break_a_line() {
        let der = name(&[&[attribute(CN, 0x0c, b"a\r\nX: y\x7f")]]);
        assert_eq!(printed(&der).as_deref(), Some("CN=a\\0D\\0AX: y\\7F"));
    }

    #[test]
    fn sets_are_joined_by_plus_and_turned_round() {
        let der = name(&[
            &[attribute(O, 0x0c, b"o")],
            &[attribute(CN, 0x0c, b"cn"), attribute(OU, 0x0c, b"ou")],
        ]);
        assert_eq!(printed(&der).as_deref(), Some("OU=ou+CN=cn,O=o"));
    }

    #[test]
    fn serial_numbers_are_printed_as_nginx_prints_them() {
        assert_eq!(serial(&[0]), "00");
        assert_eq!(serial(&[0, 0xab, 0x01]), "AB01");
        assert_eq!(serial(&[0x01]), "01");
        assert_eq!(serial(&[0xff]), "-01");
        assert_eq!(serial(&[0x80]), "-80");
        assert_eq!(serial(&[]), "");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            prop_assert!(Identity::of(&bytes).is_none());
        }

        #[test]
        fn any_value_prints_as_printable_ascii(
            tag in 0_u8..31,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let der = name(&[&[attribute(CN, tag, &bytes)]]);
            if let Ok((_, parsed)) = X509Name::from_der(&der)
                && let Some(text) = rfc2253(&parsed)
            {
                prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            }
        }
    }
}
