//! Ready-made fields that tell a backend who the client proved to be.
//!
//! | form | fields |
//! |---|---|
//! | `xfcc` | `X-Forwarded-Client-Cert` as Envoy writes it under `SANITIZE_SET` |
//! | `rfc9440` | `Client-Cert`, with `chain` also `Client-Cert-Chain` |
//! | `nginx` | `X-SSL-Client-Verify`, `-S-DN`, `-I-DN`, `-Serial`, `-Fingerprint`, `-Fingerprint-SHA256`, `-V-Start`, `-V-End`, `-SAN-DNS`, `-SAN-URI`, `-SAN-Email`, with `cert` also `-Cert` (percent-encoded PEM) |
//!
//! Whatever the certificate holds, a value is printable ASCII: no name in it
//! can end a field or begin an element.

use crate::config::{ClientIdentity, IdentityForm};

use super::details::Details;
use super::pem::{base64, escaped, pem};
use super::{Identity, hex};

/// What the fields are made from.
#[derive(Debug, Clone, Copy)]
pub struct Proven<'a> {
    /// The verified leaf, DER.
    pub leaf: &'a [u8],
    /// The intermediates of the path by which it was verified, the leaf's
    /// issuer first; empty where they are not kept.
    pub chain: &'a [&'a [u8]],
    /// `By=`: the URIs in the certificate that the client was shown.
    pub by: &'a [Box<str>],
}

/// Whole field lines, each with its CRLF. Without a readable certificate none.
pub fn fields(what: ClientIdentity, proven: Proven<'_>) -> String {
    let (Some(identity), Some(details)) = (Identity::of(proven.leaf), Details::of(proven.leaf))
    else {
        return String::new();
    };
    let mut out = String::new();
    match what.form {
        IdentityForm::Xfcc => {
            out.push_str("X-Forwarded-Client-Cert: ");
            xfcc(&mut out, what, proven, &identity, &details);
            out.push_str("\r\n");
        }
        IdentityForm::Rfc9440 => {
            field(&mut out, "Client-Cert", &byte_sequence(proven.leaf));
            if what.chain && !proven.chain.is_empty() {
                let members = proven.chain.iter().map(|der| byte_sequence(der));
                let value = members.collect::<Vec<_>>().join(", ");
                field(&mut out, "Client-Cert-Chain", &value);
            }
        }
        IdentityForm::Nginx => nginx(&mut out, what, proven, &identity, &details),
    }
    out
}

/// One element: Envoy's keys in Envoy's order.
fn xfcc(
    out: &mut String,
    what: ClientIdentity,
    proven: Proven<'_>,
    identity: &Identity,
    details: &Details,
) {
    for uri in proven.by {
        pair(out, "By=", uri);
        out.push(';');
    }
    out.push_str("Hash=");
    out.push_str(&details.fingerprint_sha256);
    if what.cert {
        out.push_str(";Cert=\"");
        out.push_str(&escaped(&pem(proven.leaf)));
        out.push('"');
    }
    if what.chain {
        out.push_str(";Chain=\"");
        out.push_str(&escaped(&pem(proven.leaf)));
        for der in proven.chain {
            out.push_str(&escaped(&pem(der)));
        }
        out.push('"');
    }
    out.push_str(";Subject=\"");
    quoted_name(out, identity.subject.as_deref().unwrap_or_default());
    out.push('"');
    if details.names.uri.is_empty() {
        out.push_str(";URI=");
    }
    for uri in &details.names.uri {
        out.push(';');
        pair(out, "URI=", uri);
    }
    for name in &details.names.dns {
        out.push(';');
        pair(out, "DNS=", name);
    }
}

/// A value, in quotes if it holds what separates elements. It holds no quotes
/// itself: see [`super::details::AlternativeNames`].
fn pair(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    if value.contains([',', ';', '=']) {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(value);
    }
}

/// A name in RFC 2253 between quotes. A `"` in it already carries a backslash,
/// which is Envoy's escape as well. A backslash of the name's own is written
/// `\5C`, which RFC 2253 takes for the same, and not `\\` as Envoy does: a
/// reader that knows only `\"` would find a quote escaped that is not.
fn quoted_name(out: &mut String, name: &str) {
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        out.push(character);
        if character == '\\' {
            match characters.next() {
                Some('\\') => hex(out, b'\\'),
                Some(other) => out.push(other),
                None => {}
            }
        }
    }
}

fn nginx(
    out: &mut String,
    what: ClientIdentity,
    proven: Proven<'_>,
    identity: &Identity,
    details: &Details,
) {
    field(out, "X-SSL-Client-Verify", "SUCCESS");
    let subject = identity.subject.as_deref().unwrap_or_default();
    field(out, "X-SSL-Client-S-DN", subject);
    let issuer = identity.issuer.as_deref().unwrap_or_default();
    field(out, "X-SSL-Client-I-DN", issuer);
    field(out, "X-SSL-Client-Serial", &identity.serial);
    field(out, "X-SSL-Client-Fingerprint", &identity.fingerprint);
    let sha256 = &details.fingerprint_sha256;
    field(out, "X-SSL-Client-Fingerprint-SHA256", sha256);
    field(out, "X-SSL-Client-V-Start", &details.valid_from);
    field(out, "X-SSL-Client-V-End", &details.valid_until);
    for (name, list) in [
        ("X-SSL-Client-SAN-DNS", &details.names.dns),
        ("X-SSL-Client-SAN-URI", &details.names.uri),
        ("X-SSL-Client-SAN-Email", &details.names.email),
    ] {
        field(out, name, &joined(list));
    }
    if what.cert {
        field(out, "X-SSL-Client-Cert", &escaped(&pem(proven.leaf)));
    }
}

/// Comma-separated; a comma in a name itself becomes `%2C`.
pub fn joined(names: &[Box<str>]) -> String {
    let mut out = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&name.replace(',', "%2C"));
    }
    out
}

/// As everywhere, a field without a value is not sent.
fn field(out: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        out.push_str(name);
        out.push_str(": ");
        out.push_str(value);
        out.push_str("\r\n");
    }
}

/// RFC 8941 §3.3.5.
fn byte_sequence(bytes: &[u8]) -> String {
    format!(":{}:", base64(bytes))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    use super::*;

    const FORMS: [IdentityForm; 3] = [
        IdentityForm::Xfcc,
        IdentityForm::Rfc9440,
        IdentityForm::Nginx,
    ];

    fn certificate(common_name: &str, names: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().expect("a key");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    fn written(form: IdentityForm, leaf: &[u8]) -> String {
        let what = ClientIdentity {
            form,
            cert: false,
            chain: false,
        };
        let by = ["spiffe://a/gateway".into()];
        fields(
            what,
            Proven {
                leaf,
                chain: &[],
                by: &by,
            },
        )
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text).expect("ASCII"))
    }

    #[test]
    fn an_element_has_envoys_keys_in_envoys_order() {
        let dns = SanType::DnsName(Ia5String::try_from("a.example").expect("ASCII"));
        let leaf = certificate("say \"hi\"", &[uri("spiffe://a/b"), dns, uri("x:1")]);
        let hash = Details::of(&leaf).expect("readable").fingerprint_sha256;
        assert_eq!(
            written(IdentityForm::Xfcc, &leaf),
            format!(
                "X-Forwarded-Client-Cert: By=spiffe://a/gateway;Hash={hash};\
                 Subject=\"CN=say \\\"hi\\\"\";URI=spiffe://a/b;URI=x:1;DNS=a.example\r\n"
            )
        );
        let bare = written(IdentityForm::Xfcc, &certificate("x", &[]));
        assert!(bare.ends_with(";Subject=\"CN=x\";URI=\r\n"), "{bare}");
    }

    #[test]
    fn no_name_can_end_its_value() {
        let forged = certificate(
            "x\\",
            &[uri("a:b;URI=spiffe://a/admin,By=x"), uri("a\";Hash=1")],
        );
        let element = written(IdentityForm::Xfcc, &forged);
        assert!(element.contains(";Subject=\"CN=x\\5C\";"), "{element}");
        assert!(
            element.ends_with(";URI=\"a:b;URI=spiffe://a/admin,By=x\";URI=\"a%22;Hash=1\"\r\n"),
            "{element}"
        );
        assert_eq!(joined(&["a,b".into(), "c".into()]), "a%2Cb,c");
    }

    #[test]
    fn whatever_a_certificate_holds_a_value_is_printable() {
        for name in ["a\r\nX-Evil: 1", "nul\0", "caf\u{e9}", " ", "\u{7f}\t"] {
            let leaf = certificate(name, &[uri("x:\r\ny\u{7f}")]);
            for form in FORMS {
                let text = written(form, &leaf);
                assert!(text.ends_with("\r\n"), "{form:?} {text:?}");
                for line in text.trim_end_matches("\r\n").split("\r\n") {
                    let (field, value) = line.split_once(": ").expect("a field");
                    assert!(form.owns(field.as_bytes()), "{field}");
                    assert!(
                        value.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                        "{line:?}"
                    );
                    assert!(!field.contains("Evil"));
                }
            }
        }
    }

    #[test]
    fn what_is_no_certificate_makes_no_field() {
        for form in FORMS {
            assert_eq!(written(form, b"nothing"), "");
        }
    }
}
