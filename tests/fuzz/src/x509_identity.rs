//! What a certificate says of its holder, as a backend is told it: whatever
//! stands in the certificate, no value ends its field or its element.

use ringwall::config::{ClientIdentity, IdentityForm};
use ringwall::tls::identity::Identity;
use ringwall::tls::identity::details::Details;
use ringwall::tls::identity::forms::{self, Proven};

/// Takes `bytes` for a certificate that was verified.
pub fn x509_identity(bytes: &[u8]) {
    let (identity, details) = (Identity::of(bytes), Details::of(bytes));
    assert_eq!(identity.is_some(), details.is_some(), "read by one only");
    if let (Some(identity), Some(details)) = (&identity, &details) {
        let texts = [
            identity.subject.as_deref(),
            identity.issuer.as_deref(),
            Some(&*identity.serial),
            details.subject_legacy.as_deref(),
            details.issuer_legacy.as_deref(),
            Some(&*details.valid_from),
            Some(&*details.valid_until),
        ];
        for text in texts.into_iter().flatten() {
            assert!(is_printable(text), "{text:?}");
        }
        if identity.subject.is_none() {
            assert_eq!(details.subject_legacy, None, "a name refused, and given");
        }
    }
    for form in [
        IdentityForm::Xfcc,
        IdentityForm::Rfc9440,
        IdentityForm::Nginx,
    ] {
        for more in [false, true] {
            let what = ClientIdentity {
                form,
                cert: more,
                chain: more,
            };
            let proven = Proven {
                leaf: bytes,
                chain: &[bytes],
                by: &[],
            };
            let text = forms::fields(what, proven);
            assert_eq!(text.is_empty(), identity.is_none(), "{form:?}");
            fields_are_the_forms_own(form, &text);
        }
    }
}

fn fields_are_the_forms_own(form: IdentityForm, text: &str) {
    for line in text.split_terminator("\r\n") {
        let (name, value) = line.split_once(": ").expect("a field");
        assert!(form.owns(name.as_bytes()), "{form:?} wrote {name:?}");
        assert!(!value.is_empty() && is_printable(value), "{line:?}");
        if form == IdentityForm::Xfcc {
            assert_eq!(elements(value), 1, "{value:?}");
        }
    }
}

/// How many elements a reader finds that takes `\"` for a quote and nothing
/// else for an escape.
fn elements(value: &str) -> usize {
    let bytes = value.as_bytes();
    let mut quoted = false;
    let mut elements = 1;
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = at > 0 && bytes[at - 1] == b'\\';
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b',' if !quoted => elements += 1,
            _ => {}
        }
    }
    assert!(!quoted, "a quote that does not end: {value:?}");
    elements
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}
