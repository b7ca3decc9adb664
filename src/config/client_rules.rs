//! The rules of `ssl_client_allow` and `ssl_client_deny`, as typed values.
//!
//! Whoever reads a rule must be able to say by looking at it which names it
//! takes. So there is one form of pattern, in `uri:`, and a `*` anywhere else
//! is refused at load: a rule that looked like a pattern and matched nothing
//! would be a denial that denies nobody.

use std::fmt;

use super::model::Position;

/// The rules of one block, in file order. The first that matches decides;
/// where none does, the client is refused.
#[derive(Debug, Clone, Default)]
pub struct ClientRules {
    /// Never empty once built.
    pub rules: Vec<ClientRule>,
}

/// One `ssl_client_allow` or `ssl_client_deny`.
#[derive(Debug, Clone)]
pub struct ClientRule {
    /// What it does with those it matches.
    pub effect: RuleEffect,
    /// Whom it matches.
    pub matcher: ClientMatcher,
    /// As written, for log lines.
    pub text: Box<str>,
    /// Where it stands.
    pub position: Position,
}

impl fmt::Display for ClientRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directive = match self.effect {
            RuleEffect::Allow => "ssl_client_allow",
            RuleEffect::Deny => "ssl_client_deny",
        };
        write!(f, "\"{directive} {}\" in {}", self.text, self.position)
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the directives' own words")]
pub enum RuleEffect {
    Allow,
    Deny,
}

/// Whom a rule matches. Every kind looks at one kind of name in the
/// certificate and at no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMatcher {
    /// `all`: every verified certificate.
    All,
    /// `cn:`, byte for byte: a commonName of the subject.
    CommonName(Box<str>),
    /// `ou:`, byte for byte: an organizationalUnitName of the subject.
    OrganizationalUnit(Box<str>),
    /// `dns:`, whatever the case: a dNSName among the SANs.
    Dns(Box<str>),
    /// `email:`, the domain whatever its case: an rfc822Name among the SANs.
    Email(Box<str>),
    /// `uri:`: a uniformResourceIdentifier among the SANs.
    Uri(UriPattern),
    /// `subject:`, byte for byte what `$ssl_client_s_dn` says.
    Subject(Box<str>),
    /// `issuer:`, byte for byte what `$ssl_client_i_dn` says.
    Issuer(Box<str>),
    /// `serial:`, as `$ssl_client_serial` prints it.
    Serial(Box<str>),
    /// `fingerprint:` of 40 digits: SHA-1 of the certificate.
    Sha1([u8; 20]),
    /// `fingerprint:` of 64 digits: SHA-256 of the certificate.
    Sha256([u8; 32]),
}

impl ClientMatcher {
    /// Reads a rule.
    ///
    /// # Errors
    /// It is not one, and why.
    pub fn parse(rule: &[u8]) -> Result<Self, &'static str> {
        if rule == b"all" {
            return Ok(Self::All);
        }
        let rule = std::str::from_utf8(rule).map_err(|_| "not UTF-8")?;
        let kinds = "a rule is \"all\" or begins with \"cn:\", \"ou:\", \"dns:\", \"email:\", \
                     \"uri:\", \"subject:\", \"issuer:\", \"serial:\" or \"fingerprint:\"";
        let (kind, value) = rule.split_once(':').ok_or(kinds)?;
        if value.is_empty() {
            return Err("the value is empty");
        }
        if value.chars().any(char::is_control) {
            return Err("the value has a control character");
        }
        let literal = || match value.contains('*') {
            true => Err("\"*\" has a meaning in \"uri:\" only"),
            false => Ok(Box::from(value)),
        };
        let ascii = || match value.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => literal(),
            false => Err("the value has a character that such a name cannot have"),
        };
        match kind {
            "cn" => literal().map(Self::CommonName),
            "ou" => literal().map(Self::OrganizationalUnit),
            "dns" => ascii().map(Self::Dns),
            "email" => ascii()
                .and_then(|value| match value.contains('@') {
                    true => Ok(value),
                    false => Err("an address has an \"@\""),
                })
                .map(Self::Email),
            "uri" => UriPattern::parse(value).map(Self::Uri),
            "subject" => name(value).map(Self::Subject),
            "issuer" => name(value).map(Self::Issuer),
            "serial" => serial(value).map(Self::Serial),
            "fingerprint" => fingerprint(value),
            _ => Err(kinds),
        }
    }
}

/// A distinguished name in the form of the variables, which is all ASCII.
fn name(value: &str) -> Result<Box<str>, &'static str> {
    match value.is_ascii() && value.contains('=') {
        true => Ok(value.into()),
        false => Err("not a name as RFC 2253 writes it"),
    }
}

/// Whole bytes in upper case, without the zeros that a tool may put before.
fn serial(value: &str) -> Result<Box<str>, &'static str> {
    let digits: String = value.chars().filter(|&c| c != ':').collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("not a hexadecimal number");
    }
    let digits = digits.trim_start_matches('0').to_ascii_uppercase();
    Ok(match digits.len() {
        0 => "00".into(),
        length if length % 2 == 1 => format!("0{digits}").into(),
        _ => digits.into(),
    })
}

fn fingerprint(value: &str) -> Result<ClientMatcher, &'static str> {
    let mut digits = Vec::with_capacity(64);
    for digit in value.chars().filter(|&c| c != ':') {
        let digit = digit.to_digit(16).ok_or("not a hexadecimal number")?;
        // Below 16, so it fits.
        digits.push(digit as u8);
    }
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    match (digits.len(), bytes.as_slice().try_into(), bytes.as_slice()) {
        (64, Ok(sha256), _) => Ok(ClientMatcher::Sha256(sha256)),
        (40, _, bytes) => bytes
            .try_into()
            .map(ClientMatcher::Sha1)
            .map_err(|_| "not a fingerprint"),
        _ => Err("a fingerprint has 64 hexadecimal digits (SHA-256) or 40 (SHA-1)"),
    }
}

/// A URI, its path segments each literal or ending in `*`.
///
/// A `*` stands for one or more characters up to the next `/`, so it never
/// takes in a second segment, wherever it stands: a final `/*` matches exactly
/// one more segment, and neither none nor two. It matches nothing that could be
/// read as more than one segment by somebody else (`%2F`), nor `.` and `..`,
/// nor a query. The scheme and the trust domain are always literal. All
/// comparing is byte for byte: SPIFFE writes both in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriPattern {
    /// Up to the path, or the whole where there is no `*`.
    prefix: Box<str>,
    /// Behind it, each with whether it ended in `*`; the slash before each is
    /// left out.
    segments: Vec<(Box<str>, bool)>,
}

impl UriPattern {
    fn parse(value: &str) -> Result<Self, &'static str> {
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the value has a character that a URI cannot have");
        }
        match value.split_once(':') {
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => {}
            _ => return Err("a URI begins with a scheme"),
        }
        if !value.contains('*') {
            return Ok(Self {
                prefix: value.into(),
                segments: Vec::new(),
            });
        }
        let misplaced = "\"*\" can only end a segment of the path";
        let authority = value.find("://").ok_or(misplaced)? + 3;
        let (_, behind) = value.split_at(authority);
        let path = authority + behind.find('/').ok_or(misplaced)?;
        let (prefix, path) = value.split_at(path);
        if prefix.contains('*') {
            return Err(misplaced);
        }
        let mut segments = Vec::new();
        for segment in path.split('/').skip(1) {
            let (literal, open) = match segment.strip_suffix('*') {
                Some(literal) => (literal, true),
                None => (segment, false),
            };
            if literal.contains('*') {
                return Err(misplaced);
            }
            segments.push((Box::from(literal), open));
        }
        Ok(Self {
            prefix: prefix.into(),
            segments,
        })
    }

    /// Whether a URI fits.
    pub fn matches(&self, uri: &str) -> bool {
        let Some(path) = uri.strip_prefix(&*self.prefix) else {
            return false;
        };
        if self.segments.is_empty() {
            return path.is_empty();
        }
        let Some(path) = path.strip_prefix('/') else {
            return false;
        };
        let mut found = path.split('/');
        let all = self.segments.iter().all(|(literal, open)| {
            found.next().is_some_and(|segment| match open {
                false => segment == &**literal,
                true => segment.strip_prefix(&**literal).is_some_and(|rest| {
                    !rest.is_empty()
                        && !matches!(segment, "." | "..")
                        && !rest.contains(['%', '?', '#'])
                }),
            })
        });
        all && found.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(value: &str) -> UriPattern {
        UriPattern::parse(value).expect(value)
    }

    #[test]
    fn a_star_is_exactly_one_segment_of_the_path() {
        let pods = pattern("spiffe://td/ns/*/sa/*");
        for uri in ["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a.b-c/sa/_"] {
            assert!(pods.matches(uri), "{uri}");
        }
        for uri in [
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/x/sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/./sa/b",
            "spiffe://td/ns/a%2Fx/sa/b",
            "spiffe://td/ns/a/sa/b?c",
            "spiffe://td/ns/a/sa/b#c",
            "spiffe://td.evil/ns/a/sa/b",
            "spiffe://tdx/ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "xspiffe://td/ns/a/sa/b",
            "spiffe://td",
            "",
        ] {
            assert!(!pods.matches(uri), "{uri}");
        }
        let last = pattern("spiffe://td/ns/*");
        assert!(last.matches("spiffe://td/ns/a"));
        for uri in [
            "spiffe://td/ns",
            "spiffe://td/ns/",
            "spiffe://td/ns/a/b",
            "spiffe://td/",
        ] {
            assert!(!last.matches(uri), "{uri}");
        }
    }

    #[test]
    fn a_star_behind_a_prefix_stays_in_its_segment() {
        let web = pattern("spiffe://td/sa/web-*/v1");
        assert!(web.matches("spiffe://td/sa/web-1/v1"));
        for uri in [
            "spiffe://td/sa/web-/v1",
            "spiffe://td/sa/web/v1",
            "spiffe://td/sa/web-1/x/v1",
            "spiffe://td/sa/xweb-1/v1",
        ] {
            assert!(!web.matches(uri), "{uri}");
        }
    }

    #[test]
    fn a_uri_without_a_star_is_compared_whole() {
        let urn = pattern("urn:uuid:1234");
        assert!(urn.matches("urn:uuid:1234"));
        assert!(!urn.matches("urn:uuid:12345") && !urn.matches("urn:uuid:123"));
        let root = pattern("spiffe://td/");
        assert!(root.matches("spiffe://td/") && !root.matches("spiffe://td"));
    }

    #[test]
    fn fingerprints_are_told_apart_by_length() {
        let colons = ["ab"; 20].join(":");
        for text in ["ab".repeat(20), "AB".repeat(20), colons] {
            let parsed = ClientMatcher::parse(format!("fingerprint:{text}").as_bytes());
            assert_eq!(parsed, Ok(ClientMatcher::Sha1([0xab; 20])), "{text}");
        }
        let long = format!("fingerprint:{}", "0F".repeat(32));
        assert_eq!(
            ClientMatcher::parse(long.as_bytes()),
            Ok(ClientMatcher::Sha256([0x0f; 32]))
        );
        for text in ["", "ab", "zz", &"a".repeat(39), &"a".repeat(63), "ab:é"] {
            let rule = format!("fingerprint:{text}");
            assert!(ClientMatcher::parse(rule.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn serial_numbers_may_be_written_as_tools_print_them() {
        for (written, meant) in [
            ("0a:bc", "0ABC"),
            ("abc", "0ABC"),
            ("00AB01", "AB01"),
            ("0", "00"),
            ("1", "01"),
        ] {
            assert_eq!(serial(written).as_deref(), Ok(meant), "{written}");
        }
        assert!(serial("0x12").is_err() && serial(":").is_err() && serial("-1").is_err());
    }

    #[test]
    fn what_only_looks_like_a_rule_is_refused() {
        for rule in [
            "",
            "ALL",
            "everyone",
            "cn:",
            "cn:*",
            "cn:a\0b",
            "cn:a\nb",
            "CN:a",
            "ou:a*",
            "dns:*.example",
            "dns:a b",
            "dns:é.example",
            "email:a",
            "email:*@example",
            "uri:*",
            "uri:spiffe",
            "uri:spiffe:",
            "uri:spiffe://*",
            "uri:spiffe://*/a",
            "uri:spiffe://td/a*b",
            "uri:spiffe://td/**",
            "uri:spiffe://td/*x",
            "uri:urn:*",
            "uri:spiffe://td/a b",
            "subject:client",
            "issuer:é=x",
            "serial:xyz",
            "ip:127.0.0.1",
        ] {
            let parsed = ClientMatcher::parse(rule.as_bytes());
            assert!(parsed.is_err(), "{rule:?}: {parsed:?}");
        }
        assert!(ClientMatcher::parse(b"cn:\xff").is_err());
    }

    proptest! {
        #[test]
        fn any_rule_is_read_or_refused_without_a_panic(
            kind in proptest::sample::select(vec!["cn:", "uri:", "serial:", "fingerprint:", ""]),
            value in ".{0,80}",
            uri in ".{0,80}",
        ) {
            if let Ok(ClientMatcher::Uri(pattern)) =
                ClientMatcher::parse(format!("{kind}{value}").as_bytes())
            {
                if !value.contains('*') {
                    prop_assert!(pattern.matches(&value));
                }
                pattern.matches(&uri);
            }
        }
    }
}
