//! Which verified clients may: `ssl_client_allow` and `ssl_client_deny`.
//!
//! The rules come typed from the configuration; here they meet a certificate.
//! It is always the verified leaf ([`VerifiedClient`]), whatever else the
//! client put into its chain. A rule looks at the names of its own kind and at
//! no others: a dNSName never satisfies a `uri:` rule, a SAN never a `cn:`
//! rule, and the subject's emailAddress never an `email:` rule. A name with a
//! NUL or another control character matches nothing, since readers disagree
//! about where it ends; a certificate whose names cannot be read is refused.
//!
//! Rules are judged at every request, so that a reload holds for connections
//! that are already there. What that costs is kept with the client: its names,
//! read once, and the last verdict together with the rules it was about.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_ORGANIZATIONAL_UNIT, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::client_auth::VerifiedClient;
use super::identity::Identity;
use crate::config::{ClientMatcher, ClientRule, ClientRules, RuleEffect};

/// Judges a client by rules; `None` is a client that no certificate stands for.
/// Allocates at a client's first judgement only.
///
/// # Errors
/// The client is not let in, and why.
pub fn judge<'r>(
    rules: &'r Arc<ClientRules>,
    client: Option<&VerifiedClient>,
) -> Result<(), Denial<'r>> {
    let client = client.ok_or(Denial::NoCertificate)?;
    let verdict = client.judgement.of(rules, || {
        let claims = client.judgement.claims(client.leaf());
        match (client.identity(), claims) {
            (Some(identity), Some(claims)) => Verdict::of(rules, identity, claims),
            _ => Verdict::Unreadable,
        }
    });
    match verdict {
        Verdict::Allowed => Ok(()),
        Verdict::DeniedBy(index) => Err(rules
            .rules
            .get(index)
            .map_or(Denial::NoRuleMatched, Denial::Rule)),
        Verdict::NoRuleMatched => Err(Denial::NoRuleMatched),
        Verdict::Unreadable => Err(Denial::Unreadable),
    }
}

/// Why a client is not let in; worded for the error log.
#[derive(Debug, Clone, Copy)]
pub enum Denial<'r> {
    /// It has no verified certificate.
    NoCertificate,
    /// This rule says so.
    Rule(&'r ClientRule),
    /// No rule says anything.
    NoRuleMatched,
    /// What its certificate says cannot be told.
    Unreadable,
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no verified client certificate"),
            Self::Rule(rule) => write!(f, "by rule {rule}"),
            Self::NoRuleMatched => f.write_str("no rule matched"),
            Self::Unreadable => f.write_str("the names in the certificate cannot be read"),
        }
    }
}

/// What is remembered of a client between requests.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    claims: OnceCell<Option<Claims>>,
    /// The rules are held, so that no others can come to lie at their address.
    last: RefCell<Option<(Arc<ClientRules>, Verdict)>>,
}

impl Judgement {
    fn claims(&self, leaf: &[u8]) -> Option<&Claims> {
        self.claims.get_or_init(|| Claims::of(leaf)).as_ref()
    }

    fn of(&self, rules: &Arc<ClientRules>, judge: impl FnOnce() -> Verdict) -> Verdict {
        if let Some((known, verdict)) = &*self.last.borrow()
            && Arc::ptr_eq(known, rules)
        {
            return *verdict;
        }
        let verdict = judge();
        *self.last.borrow_mut() = Some((Arc::clone(rules), verdict));
        verdict
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// By the rule with this index.
    DeniedBy(usize),
    NoRuleMatched,
    Unreadable,
}

impl Verdict {
    fn of(rules: &ClientRules, identity: &Identity, claims: &Claims) -> Self {
        let mut rules = rules.rules.iter().enumerate();
        match rules.find(|(_, rule)| claims.satisfy(&rule.matcher, identity)) {
            Some((_, rule)) if rule.effect == RuleEffect::Allow => Self::Allowed,
            Some((index, _)) => Self::DeniedBy(index),
            None => Self::NoRuleMatched,
        }
    }
}

/// The names in a leaf that rules are about, beside its [`Identity`]; those
/// that no rule may match are left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    common_names: Vec<String>,
    organizational_units: Vec<String>,
    dns: Vec<String>,
    emails: Vec<String>,
    uris: Vec<String>,
    sha1: [u8; 20],
    sha256: [u8; 32],
}

impl Claims {
    /// `None` if the names cannot be told: a rule that denies one of them would
    /// be passed by.
    fn of(leaf: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let values = |oid| attribute_values(parsed.subject(), &oid);
        let mut claims = Self {
            common_names: values(OID_X509_COMMON_NAME),
            organizational_units: values(OID_X509_ORGANIZATIONAL_UNIT),
            ..Self::default()
        };
        digest_into(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf, &mut claims.sha1);
        digest_into(&digest::SHA256, leaf, &mut claims.sha256);
        let extension = parsed
            .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
            .ok()?;
        let names = match extension.map(|extension| extension.parsed_extension()) {
            None => return Some(claims),
            Some(ParsedExtension::SubjectAlternativeName(names)) => names,
            Some(_) => return None,
        };
        for name in &names.general_names {
            let (kind, value) = match name {
                GeneralName::DNSName(value) => (&mut claims.dns, value),
                GeneralName::RFC822Name(value) => (&mut claims.emails, value),
                GeneralName::URI(value) => (&mut claims.uris, value),
                _ => continue,
            };
            // These three are IA5String; what else stands there is no name.
            if value.bytes().all(|byte| byte.is_ascii_graphic()) {
                kind.push((*value).to_owned());
            }
        }
        Some(claims)
    }

    fn satisfy(&self, matcher: &ClientMatcher, identity: &Identity) -> bool {
        let among = |names: &[String], wanted: &str| names.iter().any(|name| name == wanted);
        match matcher {
            ClientMatcher::All => true,
            ClientMatcher::CommonName(name) => among(&self.common_names, name),
            ClientMatcher::OrganizationalUnit(name) => among(&self.organizational_units, name),
            ClientMatcher::Dns(name) => self.dns.iter().any(|own| own.eq_ignore_ascii_case(name)),
            ClientMatcher::Email(name) => self.emails.iter().any(|own| same_address(own, name)),
            ClientMatcher::Uri(pattern) => self.uris.iter().any(|uri| pattern.matches(uri)),
            ClientMatcher::Subject(name) => is_name(identity.subject.as_deref(), name),
            ClientMatcher::Issuer(name) => is_name(identity.issuer.as_deref(), name),
            ClientMatcher::Serial(serial) => identity.serial == **serial,
            ClientMatcher::Sha1(fingerprint) => self.sha1 == *fingerprint,
            ClientMatcher::Sha256(fingerprint) => self.sha256 == *fingerprint,
        }
    }
}

fn digest_into(algorithm: &'static digest::Algorithm, bytes: &[u8], out: &mut [u8]) {
    out.copy_from_slice(digest::digest(algorithm, bytes).as_ref());
}

/// RFC 5280 §4.2.1.6: the domain whatever its case, the local part as it is.
fn same_address(one: &str, other: &str) -> bool {
    match (one.rsplit_once('@'), other.rsplit_once('@')) {
        (Some((local, domain)), Some((other_local, other_domain))) => {
            local == other_local && domain.eq_ignore_ascii_case(other_domain)
        }
        _ => false,
    }
}

/// Whether a printed name is the one wanted, and holds no control character;
/// those are printed as a backslash and two digits.
fn is_name(printed: Option<&str>, wanted: &str) -> bool {
    printed == Some(wanted) && !has_escaped_control(wanted.as_bytes())
}

fn has_escaped_control(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return false,
            [b'\\', b'0' | b'1', digit, ..] if digit.is_ascii_hexdigit() => return true,
            [b'\\', b'7', b'F', ..] => return true,
            // An escaped character, which may be a backslash.
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

/// The values of one attribute of a name that are text.
fn attribute_values(name: &X509Name<'_>, oid: &Oid<'static>) -> Vec<String> {
    name.iter_by_oid(oid)
        .filter_map(|attribute| text(attribute.attr_value()))
        .filter(|value| !value.chars().any(char::is_control))
        .collect()
}

/// A string of whatever type as UTF-8; `None` if it is none, or not sound.
fn text(any: &Any<'_>) -> Option<String> {
    let data = any.as_bytes();
    let wide = |width: usize| -> Option<String> {
        let characters = data.chunks(width).map(|chunk| {
            let code = chunk
                .iter()
                .fold(0_u32, |code, &byte| code << 8 | u32::from(byte));
            char::from_u32(code).filter(|_| chunk.len() == width)
        });
        characters.collect()
    };
    match any.tag() {
        Tag::Utf8String => std::str::from_utf8(data).ok().map(str::to_owned),
        Tag::NumericString | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString
            if data.is_ascii() =>
        {
            wide(1)
        }
        // As Latin-1, which is what is found there and what OpenSSL reads.
        Tag::T61String => wide(1),
        Tag::BmpString => wide(2),
        Tag::UniversalString => wide(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
