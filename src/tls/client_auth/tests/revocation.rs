//! What CRLs let through, and what they don't.

use std::sync::Arc;

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope,
    KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use super::*;
use crate::tls::client_auth::crl::RevocationList;
use crate::tls::client_auth::revocation::CrlFile;

/// A list in force in 2030, changed.
fn list_with(
    issuer: &Ca,
    revoked: &[u64],
    change: impl FnOnce(&mut CertificateRevocationListParams),
) -> Vec<u8> {
    let entry = |&serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2029, 1, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let mut params = CertificateRevocationListParams {
        this_update: date_time_ymd(2029, 1, 1),
        next_update: date_time_ymd(2031, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    change(&mut params);
    params.signed_by(issuer).expect("signed").der().to_vec()
}

fn list(issuer: &Ca, revoked: &[u64]) -> Vec<u8> {
    list_with(issuer, revoked, |_| {})
}

fn file(lists: &[Vec<u8>]) -> CrlFile {
    let read = |der: &Vec<u8>| {
        let list = RevocationList::read(der).expect("a CRL");
        (Arc::new(list), Arc::new(der.clone().into()))
    };
    CrlFile {
        lists: lists.iter().map(read).collect(),
        digest: [0; 32],
    }
}

fn bind(mut policy: ClientAuth, lists: &[Vec<u8>], expired: CrlExpired) -> ClientAuth {
    let bound = Revocation::new(
        &file(lists),
        expired,
        &policy.authorities,
        &policy.algorithms,
    );
    policy.revocation = Some(bound.expect("usable").0);
    policy
}

fn with_crls(cas: &[&CertificateDer<'static>], lists: &[Vec<u8>]) -> ClientAuth {
    bind(policy(cas), lists, CrlExpired::Deny)
}

fn numbered(name: &str, issuer: &Ca, serial: u64) -> Holder {
    leaf_with(name, issuer, |params| {
        params.serial_number = Some(SerialNumber::from(serial));
    })
}

#[test]
fn a_revoked_leaf_is_refused_and_its_neighbours_are_not() {
    let root = ca("root");
    let policy = with_crls(&[root.der()], &[list(&root, &[7, 300, 70_000])]);
    for (serial, expected) in [
        (7, Err(RefusalReason::Revoked)),
        (8, Ok(())),
        (300, Err(RefusalReason::Revoked)),
        (70_000, Err(RefusalReason::Revoked)),
        (70_001, Ok(())),
    ] {
        let holder = numbered("client", &root, serial);
        assert_eq!(judge(&policy, &[&holder.der]), expected, "{serial}");
    }
}

#[test]
fn a_chain_that_was_let_in_before_there_was_a_list_or_under_it_is_judged_by_the_next() {
    let root = ca("root");
    let holder = numbered("client", &root, 7);
    let chain = [&holder.der];
    assert_eq!(judge(&policy(&[root.der()]), &chain), Ok(()));
    let lists = [list(&root, &[]), list(&root, &[7])];
    let [before, after] = lists.map(|list| with_crls(&[root.der()], &[list]));
    assert_eq!(judge(&before, &chain), Ok(()));
    assert_eq!(judge(&after, &chain), Err(RefusalReason::Revoked));
    assert_eq!(judge(&before, &chain), Ok(()));
}

#[test]
fn every_certificate_of_the_path_needs_a_list_of_its_issuer() {
    let root = ca("root");
    let middle = CertifiedIssuer::signed_by(
        {
            let mut params = ca_params("middle");
            params.serial_number = Some(SerialNumber::from(9));
            params
        },
        key(),
        &root,
    )
    .expect("signed");
    let holder = numbered("client", &middle, 9);
    let chain = [&holder.der, middle.der()];
    let of_root = list(&root, &[]);
    let of_middle = list(&middle, &[]);
    for (lists, expected) in [
        (vec![], Err(RefusalReason::NoCrl)),
        (vec![of_root.clone()], Err(RefusalReason::NoCrl)),
        (vec![of_middle.clone()], Err(RefusalReason::NoCrl)),
        (vec![of_root.clone(), of_middle.clone()], Ok(())),
        (
            vec![list(&root, &[9]), of_middle],
            Err(RefusalReason::Revoked),
        ),
        (
            vec![of_root, list(&middle, &[9])],
            Err(RefusalReason::Revoked),
        ),
    ] {
        // The intermediate known, and known only from the client.
        for cas in [vec![root.der(), middle.der()], vec![root.der()]] {
            let policy = with_crls(&cas, &lists);
            assert_eq!(judge(&policy, &chain), expected, "{} lists", lists.len());
            assert_eq!(judge(&policy, &chain), expected, "again");
        }
    }
}

#[test]
fn a_list_under_a_ca_s_name_is_worth_nothing_without_its_signature() {
    let root = ca("root");
    let imposter = ca("root");
    let policy = policy(&[root.der()]);
    let refused = Revocation::new(
        &file(&[list(&imposter, &[])]),
        CrlExpired::Deny,
        &policy.authorities,
        &policy.algorithms,
    );
    let message = refused.expect_err("refused");
    assert!(message.contains("is not signed by that CA"), "{message}");

    // An intermediate that only the client has shows it at the handshake.
    let middle = intermediate("middle", &root);
    let holder = leaf("client", &middle);
    let lists = [list(&root, &[]), list(&intermediate("middle", &root), &[])];
    let policy = with_crls(&[root.der()], &lists);
    assert_eq!(
        judge(&policy, &[&holder.der, middle.der()]),
        Err(RefusalReason::CrlSignature)
    );
}

#[test]
fn a_ca_without_crl_sign_signs_no_lists() {
    let root = ca_with("root", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let policy = policy(&[root.der()]);
    // rcgen refuses to sign this, another certificate of the same key does it.
    let der = {
        let signing = rcgen::Issuer::new(ca_params("root"), root.key());
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2029, 1, 1),
            next_update: date_time_ymd(2031, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&signing).expect("signed").der().to_vec()
    };
    let refused = Revocation::new(
        &file(&[der]),
        CrlExpired::Deny,
        &policy.authorities,
        &policy.algorithms,
    );
    let message = refused.expect_err("refused");
    assert!(message.contains("cRLSign"), "{message}");
}

#[test]
fn an_expired_list_denies_unless_it_is_allowed_and_revokes_in_either_case() {
    let root = ca("root");
    let holder = numbered("client", &root, 5);
    let revoked = numbered("client", &root, 6);
    let old = list_with(&root, &[6], |params| {
        params.this_update = date_time_ymd(2028, 1, 1);
        params.next_update = date_time_ymd(2029, 6, 1);
    });
    for (expired, expected) in [
        (CrlExpired::Deny, Err(RefusalReason::CrlExpired)),
        (CrlExpired::Allow, Ok(())),
    ] {
        let policy = bind(policy(&[root.der()]), std::slice::from_ref(&old), expired);
        assert_eq!(judge(&policy, &[&holder.der]), expected);
        assert_eq!(
            judge(&policy, &[&revoked.der]),
            Err(RefusalReason::Revoked),
            "{expired:?}"
        );
    }
    // A newer one beside it decides.
    let policy = with_crls(&[root.der()], &[old, list(&root, &[])]);
    assert_eq!(judge(&policy, &[&holder.der]), Ok(()));
    let early = list_with(&root, &[], |params| {
        params.this_update = date_time_ymd(2030, 6, 1);
    });
    let policy = with_crls(&[root.der()], &[early]);
    assert_eq!(
        judge(&policy, &[&holder.der]),
        Err(RefusalReason::CrlNotValidYet)
    );
}

#[test]
fn a_v1_leaf_can_be_revoked() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    by_the_guide(path, "-algorithm EC -pkeyopt ec_paramgen_curve:P-256");
    std::fs::write(path.join("index.txt"), "").expect("written");
    std::fs::write(path.join("crlnumber"), "01\n").expect("written");
    std::fs::write(
        path.join("ca.cnf"),
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\n\
         default_md=sha256\ndefault_crl_days=30\n",
    )
    .expect("written");
    let crl = |name: &str| {
        openssl(
            path,
            &format!("ca -config ca.cnf -cert ca.crt -keyfile ca.key -gencrl -out {name}.pem"),
        );
        openssl(
            path,
            &format!("crl -in {name}.pem -outform DER -out {name}"),
        );
        std::fs::read(path.join(name)).expect("read")
    };
    let (root, holder) = (pem(&path.join("ca.crt")), pem(&path.join("client.crt")));
    let policy = with_crls(&[&root], &[crl("before")]);
    assert_eq!(judge_at(&policy, &[&holder], UnixTime::now()), Ok(()));
    openssl(
        path,
        "ca -config ca.cnf -cert ca.crt -keyfile ca.key -revoke client.crt",
    );
    let policy = with_crls(&[&root], &[crl("after")]);
    assert_eq!(
        judge_at(&policy, &[&holder], UnixTime::now()),
        Err(RefusalReason::Revoked)
    );
}

#[test]
fn a_list_counts_only_for_what_it_is_about() {
    let root = ca("root");
    let point = |uri: &str| CrlDistributionPoint {
        uris: vec![uri.to_owned()],
    };
    let about = |uri: &str, scope: Option<CrlScope>| {
        list_with(&root, &[], |params| {
            params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
                distribution_point: point(uri),
                scope,
            });
        })
    };
    let holder = leaf_with("client", &root, |params| {
        params.crl_distribution_points = vec![point("http://a.example/1.crl")];
    });
    let judged = |list: &[u8]| RevocationList::read(list).expect("a CRL");
    let matching = about("http://a.example/1.crl", None);
    assert!(judged(&matching).covers(&holder.der, false));
    assert!(
        !judged(&matching).covers(root.der(), true),
        "names no point"
    );
    assert!(!judged(&about("http://a.example/2.crl", None)).covers(&holder.der, false));
    let users = about("http://a.example/1.crl", Some(CrlScope::UserCertsOnly));
    assert!(judged(&users).covers(&holder.der, false));
    assert!(!judged(&users).covers(&holder.der, true));
    let policy = with_crls(&[root.der()], &[about("http://a.example/2.crl", None)]);
    assert_eq!(judge(&policy, &[&holder.der]), Err(RefusalReason::NoCrl));
}

#[test]
fn each_of_a_hundred_thousand_entries_is_found() {
    let root = ca("root");
    let numbers: Vec<u64> = (0..100_000).map(|n| n * 7 + 1_000_000_000).collect();
    let der = list(&root, &numbers);
    let list = RevocationList::read(&der).expect("a CRL");
    assert_eq!(list.len(), numbers.len());
    for number in numbers {
        assert!(list.revokes(&(number as u32).to_be_bytes()), "{number}");
        assert!(
            !list.revokes(&(number as u32 + 1).to_be_bytes()),
            "{number}"
        );
    }
}

#[test]
fn an_unknown_ca_is_tolerated_where_none_is_demanded_and_nothing_else_is() {
    let root = ca("root");
    let stranger = leaf("stranger", &ca("other"));
    let expired = leaf_with("expired", &ca("other"), |params| {
        params.not_after = date_time_ymd(2025, 1, 1);
    });
    let policy = policy_of(VerifyClient::OptionalNoCa, &[root.der()], 1);
    let admit = |holder: &Holder| {
        let chain = [holder.der.clone()];
        let verdict = policy.admit(Some(&chain), false, now());
        let refusal = verdict.err()?;
        Some(policy.tolerate(refusal, Some(&chain)))
    };
    assert!(admit(&leaf("client", &root)).is_none(), "verified");
    let Some(Ok(unverified)) = admit(&stranger) else {
        panic!("not tolerated");
    };
    assert_eq!(unverified.status(), None);
    assert_eq!(
        unverified.failure(),
        Some("unable to verify the first certificate")
    );
    let claimed = unverified.claimed_identity().expect("readable");
    assert_eq!(claimed.subject.as_deref(), Some("CN=stranger"));
    let Some(Err(refusal)) = admit(&expired) else {
        panic!("tolerated");
    };
    assert_eq!(refusal.reason, RefusalReason::Expired);
}

#[test]
fn a_chain_to_an_unknown_root_is_tolerated_unless_lists_are_demanded() {
    let (root, other) = (ca("root"), ca("other"));
    let below = leaf("stranger", &other);
    let mut policy = policy_of(VerifyClient::OptionalNoCa, &[root.der()], 1);
    let cases: [(&[&CertificateDer<'static>], _); 2] = [
        (&[other.der()], RefusalReason::SelfSigned),
        (&[&below.der, other.der()], RefusalReason::SelfSignedInChain),
    ];
    for (chain, expected) in &cases {
        let reason = judge(&policy, chain).expect_err("unknown");
        assert_eq!(reason, *expected);
        assert!(policy.tolerates(reason));
    }
    policy = bind(policy, &[list(&root, &[])], CrlExpired::Deny);
    for (chain, _) in &cases {
        let reason = judge(&policy, chain).expect_err("unknown");
        assert_eq!(reason, RefusalReason::NoCrl);
        assert!(!policy.tolerates(reason));
    }
}

#[test]
fn a_failure_to_be_told_by_http_leaves_no_verified_client() {
    let root = ca("root");
    let mut policy = policy(&[root.der()]);
    policy.failure = VerifyFailure::Http;
    assert!(!policy.client_auth_mandatory());
    let stranger = [leaf("stranger", &ca("other")).der];
    policy
        .verify_client_cert(&stranger[0], &[], now())
        .expect("judged later");
    for (chain, status, said) in [(Some(&stranger[..]), 495, true), (None, 496, false)] {
        let refusal = policy.admit(chain, false, now()).expect_err("refused");
        let unverified = policy.tolerate(refusal, chain).expect("answered");
        assert_eq!(unverified.status(), Some(status));
        assert_eq!(unverified.failure().is_some(), said);
    }
}
