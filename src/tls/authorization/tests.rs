//! Each kind of rule against the certificate that it is about, and against
//! those that only look like it.

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;
use crate::config::Position;

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serial_number = Some(vec![0x0a, 0xbc].into());
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed");
    certificate.der().to_vec()
}

fn rules(text: &[&str]) -> ClientRules {
    let rules = text.iter().enumerate().map(|(index, text)| {
        let (word, rule) = text.split_once(' ').expect("allow or deny");
        ClientRule {
            effect: match word {
                "allow" => RuleEffect::Allow,
                _ => RuleEffect::Deny,
            },
            matcher: ClientMatcher::parse(rule.as_bytes()).expect(rule),
            text: rule.into(),
            position: Position {
                file: "f".into(),
                line: index as u32 + 1,
            },
        }
    });
    ClientRules {
        rules: rules.collect(),
    }
}

fn verdict(der: &[u8], text: &[&str]) -> Verdict {
    let identity = Identity::of(der).expect("readable");
    let claims = Claims::of(der).expect("readable");
    Verdict::of(&rules(text), &identity, &claims)
}

fn matches(der: &[u8], rule: &str) -> bool {
    verdict(der, &[&format!("allow {rule}")]) == Verdict::Allowed
}

/// A different value of every kind.
fn full() -> Vec<u8> {
    certificate(|params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "Woori, Inc.");
        name.push(DnType::OrganizationalUnitName, "payments");
        name.push(DnType::CommonName, "subject.example");
        params.subject_alt_names = vec![
            SanType::DnsName("Host.example".try_into().expect("ASCII")),
            SanType::Rfc822Name("Jane@Mail.example".try_into().expect("ASCII")),
            SanType::URI("spiffe://td/ns/a/sa/b".try_into().expect("ASCII")),
        ];
    })
}

#[test]
fn every_kind_matches_what_it_is_about_and_nothing_near_it() {
    let der = full();
    let identity = Identity::of(&der).expect("readable");
    let sha256: String = digest::digest(&digest::SHA256, &der)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    for rule in [
        "all",
        "cn:subject.example",
        "ou:payments",
        "dns:host.EXAMPLE",
        "email:Jane@mail.example",
        "uri:spiffe://td/ns/a/sa/b",
        "uri:spiffe://td/ns/*/sa/*",
        "subject:CN=subject.example,OU=payments,O=Woori\\, Inc.",
        "issuer:CN=subject.example,OU=payments,O=Woori\\, Inc.",
        "serial:0a:bc",
        &format!("fingerprint:{}", identity.fingerprint),
        &format!("fingerprint:{sha256}"),
    ] {
        assert!(matches(&der, rule), "{rule}");
    }
    for rule in [
        "cn:Subject.example",
        "cn:subject.exampl",
        "cn:subject.example.",
        "ou:payment",
        "dns:example",
        "dns:host.example.evil",
        "email:jane@mail.example",
        "email:Jane@mail.example.evil",
        "uri:spiffe://td/ns/a/sa",
        "uri:spiffe://td/ns/*",
        "subject:CN=subject.example",
        "subject:O=Woori\\, Inc.,OU=payments,CN=subject.example",
        "issuer:CN=other",
        "serial:0abd",
        "serial:bc",
        &format!("fingerprint:{}", "0".repeat(40)),
        &format!("fingerprint:{}", "0".repeat(64)),
    ] {
        assert!(!matches(&der, rule), "{rule}");
    }
}

#[test]
fn a_name_never_satisfies_a_rule_of_another_kind() {
    let der = full();
    for rule in [
        "cn:Host.example",
        "cn:payments",
        "cn:Jane@Mail.example",
        "ou:subject.example",
        "dns:subject.example",
        "dns:spiffe://td/ns/a/sa/b",
        "dns:Jane@Mail.example",
        "uri:dns:Host.example",
        "subject:CN=Host.example",
    ] {
        assert!(!matches(&der, rule), "{rule}");
    }
    let disguised = certificate(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "spiffe://td/ns/a/sa/b");
        params.subject_alt_names = vec![
            SanType::DnsName("spiffe://td/ns/a/sa/b".try_into().expect("ASCII")),
            SanType::Rfc822Name("spiffe://td/ns/a/sa/b".try_into().expect("ASCII")),
        ];
    });
    assert!(!matches(&disguised, "uri:spiffe://td/ns/a/sa/b"));
    assert!(!matches(&disguised, "uri:spiffe://td/ns/*/sa/*"));
    assert!(matches(&disguised, "cn:spiffe://td/ns/a/sa/b"));
}

#[test]
fn a_name_with_a_nul_or_control_byte_matches_nothing() {
    let der = certificate(|params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "admin\0.evil");
        name.push(DnType::OrganizationalUnitName, "ops\n");
        params.subject_alt_names = vec![
            SanType::DnsName("host.example\0.evil".try_into().expect("ASCII")),
            SanType::Rfc822Name("a@b.example\r".try_into().expect("ASCII")),
            SanType::URI("spiffe://td/a\0b".try_into().expect("ASCII")),
        ];
    });
    let claims = Claims::of(&der).expect("readable");
    let bare = Claims {
        sha1: claims.sha1,
        sha256: claims.sha256,
        ..Claims::default()
    };
    assert_eq!(claims, bare);
    for rule in [
        "cn:admin",
        "ou:ops",
        "dns:host.example",
        "uri:spiffe://td/*",
    ] {
        assert!(!matches(&der, rule), "{rule}");
    }
    let line = certificate(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "a\nb\\0C");
    });
    assert!(!matches(&line, "subject:CN=a\\0Ab\\\\0C"));
    let backslash = certificate(|params| {
        params.distinguished_name.push(DnType::CommonName, "a\\0C");
    });
    assert!(matches(&backslash, "subject:CN=a\\\\0C"));
}

#[test]
fn the_first_matching_rule_wins() {
    let der = full();
    let denied = verdict(&der, &["deny cn:subject.example", "allow all"]);
    assert_eq!(denied, Verdict::DeniedBy(0));
    let allowed = verdict(&der, &["allow ou:payments", "deny cn:subject.example"]);
    assert_eq!(allowed, Verdict::Allowed);
    let third = verdict(&der, &["allow cn:x", "deny cn:y", "deny all", "allow all"]);
    assert_eq!(third, Verdict::DeniedBy(2));
}

#[test]
fn a_client_that_no_rule_names_is_refused() {
    let der = full();
    assert_eq!(verdict(&der, &["allow cn:x"]), Verdict::NoRuleMatched);
    assert_eq!(verdict(&der, &["deny cn:x"]), Verdict::NoRuleMatched);
    let rules = Arc::new(rules(&["allow all"]));
    let refused = judge(&rules, None).expect_err("no certificate");
    assert_eq!(refused.to_string(), "no verified client certificate");
}

#[test]
fn a_verdict_is_remembered_for_the_rules_that_it_was_about() {
    let judgement = Judgement::default();
    let (one, two) = (
        Arc::new(rules(&["allow all"])),
        Arc::new(rules(&["allow all"])),
    );
    let fresh = |rules, verdict| judgement.of(rules, || verdict);
    assert_eq!(fresh(&one, Verdict::Allowed), Verdict::Allowed);
    assert_eq!(fresh(&one, Verdict::NoRuleMatched), Verdict::Allowed);
    assert_eq!(fresh(&two, Verdict::NoRuleMatched), Verdict::NoRuleMatched);
    assert_eq!(fresh(&one, Verdict::Unreadable), Verdict::Unreadable);
}

#[test]
fn a_certificate_with_unreadable_names_has_no_claims() {
    let der = certificate(|params| {
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
            &[2, 5, 29, 17],
            vec![0x30, 0x05, 0x82],
        )];
    });
    assert_eq!(Claims::of(&der), None);
    let twice = certificate(|params| {
        params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().expect("ASCII"))];
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
            &[2, 5, 29, 17],
            vec![0x30, 0x03, 0x82, 0x01, b'b'],
        )];
    });
    // rcgen writes both, or x509-parser refuses the certificate whole.
    assert_eq!(Claims::of(&twice), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        prop_assert_eq!(Claims::of(&bytes), None);
    }

    #[test]
    fn escaped_controls_are_found_wherever_they_stand(text in "[a-z ]{0,8}", byte in 0_u8..0x20) {
        let escaped = format!("{text}\\{byte:02X}{text}");
        prop_assert!(has_escaped_control(escaped.as_bytes()));
        prop_assert!(!has_escaped_control(text.as_bytes()));
    }
}
