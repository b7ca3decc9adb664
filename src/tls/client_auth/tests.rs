//! The matrix of chains: what is let in, and why the rest is not.
//!
//! v3 certificates come from rcgen. It cannot make v1, so those are made the
//! way their holders made them, by the `openssl` command.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;

use super::*;

mod revocation;

pub(in crate::tls) type Ca = CertifiedIssuer<'static, KeyPair>;

/// A certificate with its key.
pub(in crate::tls) struct Holder {
    pub(in crate::tls) der: CertificateDer<'static>,
    pub(in crate::tls) key: PrivateKeyDer<'static>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

pub(in crate::tls) fn ca(name: &str) -> Ca {
    CertifiedIssuer::self_signed(ca_params(name), key()).expect("signed")
}

fn ca_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let mut params = ca_params(name);
    change(&mut params);
    CertifiedIssuer::self_signed(params, key()).expect("signed")
}

fn intermediate(name: &str, issuer: &Ca) -> Ca {
    CertifiedIssuer::signed_by(ca_params(name), key(), issuer).expect("signed")
}

pub(in crate::tls) fn leaf(name: &str, issuer: &Ca) -> Holder {
    leaf_with(name, issuer, |_| {})
}

pub(in crate::tls) fn leaf_with(
    name: &str,
    issuer: &Ca,
    change: impl FnOnce(&mut CertificateParams),
) -> Holder {
    let key = key();
    let mut params = params(name);
    change(&mut params);
    let certificate = params.signed_by(&key, issuer).expect("signed");
    Holder {
        der: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8"),
    }
}

/// 2030, within the validity of what `params` makes.
fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_893_456_000))
}

fn year(year: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_556_952))
}

fn policy_of(mode: VerifyClient, cas: &[&CertificateDer<'static>], depth: usize) -> ClientAuth {
    let authorities = Authorities::new(cas.iter().map(|&der| der.clone())).expect("CAs");
    ClientAuth {
        mode,
        revocation: None,
        failure: VerifyFailure::Alert,
        purpose: Purpose::Client,
        digest: digest_of(mode, depth, &authorities),
        demands: digest_of(mode, depth, &authorities),
        authorities,
        hints: Vec::new(),
        depth,
        algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
    }
}

fn policy(cas: &[&CertificateDer<'static>]) -> ClientAuth {
    policy_of(VerifyClient::On, cas, 1)
}

fn judge(policy: &ClientAuth, chain: &[&CertificateDer<'static>]) -> Result<(), RefusalReason> {
    judge_at(policy, chain, now())
}

fn judge_at(
    policy: &ClientAuth,
    chain: &[&CertificateDer<'static>],
    now: UnixTime,
) -> Result<(), RefusalReason> {
    let chain: Vec<_> = chain.iter().map(|&der| der.clone()).collect();
    policy.verify(&chain[0], &chain[1..], now)
}

pub(in crate::tls) fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{arguments}: {output:?}");
}

/// What the guides have people type: a v3 CA and a v1 leaf under it.
pub(in crate::tls) fn by_the_guide(directory: &Path, algorithm: &str) {
    for name in ["ca", "client"] {
        openssl(directory, &format!("genpkey {algorithm} -out {name}.key"));
    }
    openssl(
        directory,
        "req -new -x509 -key ca.key -out ca.crt -days 365 -subj /CN=TestCA",
    );
    openssl(
        directory,
        "req -new -key client.key -out client.csr -subj /CN=client.woorifisa.site",
    );
    openssl(
        directory,
        "x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt -days 365",
    );
}

pub(in crate::tls) fn pem(path: &Path) -> CertificateDer<'static> {
    let bytes = std::fs::read(path).expect("read");
    let first = rustls_pemfile::certs(&mut &bytes[..]).next();
    first.expect("one").expect("PEM")
}

const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

#[test]
fn a_leaf_under_a_configured_ca_is_accepted() {
    let root = ca("root");
    let policy = policy(&[root.der()]);
    assert_eq!(judge(&policy, &[&leaf("c", &root).der]), Ok(()));
}

#[test]
fn a_leaf_under_a_presented_intermediate_is_accepted() {
    let root = ca("root");
    let middle = intermediate("middle", &root);
    let client = leaf("c", &middle).der;
    let policy = policy(&[root.der()]);
    assert_eq!(judge(&policy, &[&client, middle.der()]), Ok(()));
    assert_eq!(judge(&policy, &[&client, middle.der(), root.der()]), Ok(()));
    assert_eq!(judge(&policy, &[&client, root.der(), middle.der()]), Ok(()));
}

#[test]
fn a_missing_intermediate_is_refused_and_one_in_the_ca_file_helps() {
    let root = ca("root");
    let middle = intermediate("middle", &root);
    let client = leaf("c", &middle).der;
    let without = policy(&[root.der()]);
    assert_eq!(
        judge(&without, &[&client]),
        Err(RefusalReason::UnknownIssuer)
    );
    let with = policy(&[root.der(), middle.der()]);
    assert_eq!(judge(&with, &[&client]), Ok(()));
    let no_depth = policy_of(VerifyClient::On, &[root.der(), middle.der()], 0);
    assert_eq!(
        judge(&no_depth, &[&client]),
        Err(RefusalReason::ChainTooLong)
    );
}

#[test]
fn an_intermediate_alone_lets_nobody_in() {
    let root = ca("root");
    let middle = intermediate("middle", &root);
    let client = leaf("c", &middle).der;
    let only = policy(&[middle.der()]);
    assert_eq!(
        judge(&only, &[&client]),
        Err(RefusalReason::UnknownIntermediate)
    );
}

#[test]
fn validity_is_asked_of_leaf_intermediate_and_root() {
    let root = ca("root");
    let client = leaf("c", &root).der;
    let roots = policy(&[root.der()]);
    assert_eq!(
        judge_at(&roots, &[&client], year(2019)),
        Err(RefusalReason::NotValidYet)
    );
    assert_eq!(
        judge_at(&roots, &[&client], year(2042)),
        Err(RefusalReason::Expired)
    );

    let mut short = ca_params("middle");
    short.not_after = date_time_ymd(2025, 1, 1);
    let middle = CertifiedIssuer::signed_by(short, key(), &root).expect("signed");
    let below = leaf("c", &middle).der;
    assert_eq!(
        judge(&roots, &[&below, middle.der()]),
        Err(RefusalReason::Expired)
    );

    let old = ca_with("old", |params| params.not_after = date_time_ymd(2025, 1, 1));
    let below = leaf("c", &old).der;
    let policy = policy(&[old.der()]);
    assert_eq!(judge_at(&policy, &[&below], year(2024)), Ok(()));
    assert_eq!(judge(&policy, &[&below]), Err(RefusalReason::Expired));
}

#[test]
fn another_ca_is_refused_even_under_the_same_name() {
    let policy = policy(&[ca("root").der()]);
    let stranger = leaf("c", &ca("other")).der;
    assert_eq!(
        judge(&policy, &[&stranger]),
        Err(RefusalReason::UnknownIssuer)
    );
    let impostor = ca("root");
    let forged = leaf("c", &impostor).der;
    assert_eq!(judge(&policy, &[&forged]), Err(RefusalReason::BadSignature));
    assert_eq!(
        judge(&policy, &[&forged, impostor.der()]),
        Err(RefusalReason::BadSignature)
    );
}

#[test]
fn depth_counts_intermediates_as_openssl_does() {
    let root = ca("root");
    let upper = intermediate("upper", &root);
    let lower = intermediate("lower", &upper);
    let client = leaf("c", &lower).der;
    let chain = [&client, lower.der(), upper.der()];
    for (depth, verdict) in [
        (0, Err(RefusalReason::ChainTooLong)),
        (1, Err(RefusalReason::ChainTooLong)),
        (2, Ok(())),
    ] {
        let policy = policy_of(VerifyClient::On, &[root.der()], depth);
        assert_eq!(judge(&policy, &chain), verdict, "depth {depth}");
    }
    let direct = policy_of(VerifyClient::On, &[root.der()], 0);
    assert_eq!(judge(&direct, &[&leaf("c", &root).der]), Ok(()));
}

#[test]
fn purposes_are_asked_where_they_are_stated() {
    let root = ca("root");
    let policy = policy(&[root.der()]);
    let of =
        |change: fn(&mut CertificateParams)| judge(&policy, &[&leaf_with("c", &root, change).der]);
    let refused = Err(RefusalReason::InvalidPurpose);
    let client = of(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert_eq!(client, Ok(()));
    let server = of(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(server, refused);
    let signs = of(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert_eq!(signs, Ok(()));
    let encrypts = of(|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(encrypts, refused);
}

#[test]
fn what_is_no_ca_signs_for_nobody() {
    let root = ca("root");
    // A leaf of the CA used as an intermediate.
    let middle = CertifiedIssuer::signed_by(params("middle"), key(), &root).expect("signed");
    let client = leaf("c", &middle).der;
    let verdict = judge(&policy(&[root.der()]), &[&client, middle.der()]);
    assert_eq!(verdict, Err(RefusalReason::InvalidCa));
    // A CA without keyCertSign.
    let mut mute = ca_params("mute");
    mute.key_usages = vec![KeyUsagePurpose::CrlSign];
    let mute = CertifiedIssuer::signed_by(mute, key(), &root).expect("signed");
    let client = leaf("c", &mute).der;
    let verdict = judge(&policy(&[root.der()]), &[&client, mute.der()]);
    assert_eq!(verdict, Err(RefusalReason::InvalidCa));
    // A self-signed leaf in the CA file.
    let plain = CertifiedIssuer::self_signed(params("plain"), key()).expect("signed");
    let client = leaf("c", &plain).der;
    let verdict = judge(&policy(&[plain.der()]), &[&client]);
    assert_eq!(verdict, Err(RefusalReason::InvalidCa));
}

#[test]
fn a_path_length_in_the_root_is_kept() {
    let root = ca_with("root", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let middle = intermediate("middle", &root);
    let client = leaf("c", &middle).der;
    let policy = policy(&[root.der()]);
    assert_eq!(
        judge(&policy, &[&client, middle.der()]),
        Err(RefusalReason::PathLengthExceeded)
    );
    assert_eq!(judge(&policy, &[&leaf("c", &root).der]), Ok(()));
}

#[test]
fn a_self_signed_certificate_is_accepted_only_where_it_is_listed() {
    let own = ca_with("own", |params| params.key_usages.clear());
    assert_eq!(judge(&policy(&[own.der()]), &[own.der()]), Ok(()));
    let stranger = ca_with("own", |params| params.key_usages.clear());
    let verdict = judge(&policy(&[own.der()]), &[stranger.der()]);
    assert!(verdict.is_err(), "same name, other key");
    let plain = CertifiedIssuer::self_signed(params("plain"), key()).expect("signed");
    assert_eq!(
        judge(&policy(&[own.der()]), &[plain.der()]),
        Err(RefusalReason::SelfSigned)
    );
    assert_eq!(
        judge_at(&policy(&[own.der()]), &[own.der()], year(2042)),
        Err(RefusalReason::Expired)
    );
}

#[test]
fn an_unknown_critical_extension_is_refused_even_of_a_listed_certificate() {
    let root = ca("root");
    let odd = |params: &mut CertificateParams| {
        let mut extension =
            rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    let below = leaf_with("c", &root, odd).der;
    assert_eq!(
        judge(&policy(&[root.der()]), &[&below]),
        Err(RefusalReason::CriticalExtension)
    );
    let mut itself = params("c");
    odd(&mut itself);
    let itself = itself.self_signed(&key()).expect("signed");
    for failure in [VerifyFailure::Alert, VerifyFailure::Http] {
        let mut listed = policy(&[itself.der()]);
        listed.failure = failure;
        assert_eq!(
            judge(&listed, &[itself.der()]),
            Err(RefusalReason::CriticalExtension)
        );
        let refused = listed.admit(Some(&[itself.der().clone()]), true, now());
        assert!(refused.is_err());
    }
}

#[test]
fn a_v1_leaf_signed_by_a_configured_ca_is_accepted() {
    for algorithm in [EC, "-algorithm RSA"] {
        let dir = tempfile::tempdir().expect("a directory");
        by_the_guide(dir.path(), algorithm);
        let (root, client) = (
            pem(&dir.path().join("ca.crt")),
            pem(&dir.path().join("client.crt")),
        );
        assert!(V1Leaf::is_v1(&client), "openssl x509 -req makes v1");
        let policy = policy(&[&root]);
        let verdict = judge_at(&policy, &[&client], UnixTime::now());
        assert_eq!(verdict, Ok(()), "{algorithm}");
        let verdict = judge_at(&policy, &[&client], year(2100));
        assert_eq!(verdict, Err(RefusalReason::Expired));
        let verdict = judge_at(&policy, &[&client], year(2000));
        assert_eq!(verdict, Err(RefusalReason::NotValidYet));
    }
}

#[test]
fn a_v1_leaf_signed_by_another_ca_is_refused() {
    let (ours, theirs) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    by_the_guide(ours.path(), EC);
    by_the_guide(theirs.path(), EC);
    let root = pem(&ours.path().join("ca.crt"));
    let forged = pem(&theirs.path().join("client.crt"));
    let verdict = judge_at(&policy(&[&root]), &[&forged], UnixTime::now());
    assert_eq!(verdict, Err(RefusalReason::BadSignature), "same name");
    let verdict = judge_at(&policy(&[ca("x").der()]), &[&forged], UnixTime::now());
    assert_eq!(verdict, Err(RefusalReason::UnknownIssuer), "other name");
    // The CA that signed it, sent along, changes nothing.
    let along = pem(&theirs.path().join("ca.crt"));
    let verdict = judge_at(&policy(&[&root]), &[&forged, &along], UnixTime::now());
    assert_eq!(verdict, Err(RefusalReason::BadSignature));
}

#[test]
fn no_changed_byte_of_a_v1_leaf_is_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    by_the_guide(dir.path(), EC);
    let policy = policy(&[&pem(&dir.path().join("ca.crt"))]);
    let client = pem(&dir.path().join("client.crt"));
    for position in 0..client.len() {
        let mut bytes = client.to_vec();
        bytes[position] ^= 0x01;
        let changed = CertificateDer::from(bytes);
        let verdict = judge_at(&policy, &[&changed], UnixTime::now());
        assert!(verdict.is_err(), "byte {position}");
    }
}

#[test]
fn a_v1_certificate_is_never_a_ca() {
    let dir = tempfile::tempdir().expect("a directory");
    by_the_guide(dir.path(), EC);
    let at = |name: &str| pem(&dir.path().join(name));
    // As an intermediate: the v1 client certificate signs another.
    openssl(dir.path(), &format!("genpkey {EC} -out below.key"));
    openssl(
        dir.path(),
        "req -new -key below.key -out below.csr -subj /CN=below",
    );
    openssl(
        dir.path(),
        "x509 -req -in below.csr -CA client.crt -CAkey client.key -CAcreateserial -out below.crt",
    );
    let policy = policy_of(VerifyClient::On, &[&at("ca.crt")], 5);
    let chain = [&at("below.crt"), &at("client.crt")];
    let verdict = judge_at(&policy, &chain, UnixTime::now());
    assert_eq!(verdict, Err(RefusalReason::UnknownIssuer));
    // As a root: self-signed v1 in the CA file.
    openssl(
        dir.path(),
        "x509 -req -in client.csr -signkey client.key -out root.crt",
    );
    let error = Authorities::new([at("root.crt")]).expect_err("v1");
    assert!(
        error.contains("\"CN=client.woorifisa.site\" is not an X.509 version 3"),
        "{error}"
    );
}

#[test]
fn a_v1_leaf_under_an_intermediate_of_the_ca_file_needs_the_depth() {
    let dir = tempfile::tempdir().expect("a directory");
    by_the_guide(dir.path(), EC);
    std::fs::write(
        dir.path().join("ext"),
        "basicConstraints=critical,CA:TRUE\n",
    )
    .expect("written");
    openssl(dir.path(), &format!("genpkey {EC} -out mid.key"));
    openssl(
        dir.path(),
        "req -new -key mid.key -out mid.csr -subj /CN=mid",
    );
    openssl(
        dir.path(),
        "x509 -req -in mid.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out mid.crt",
    );
    openssl(
        dir.path(),
        "x509 -req -in client.csr -CA mid.crt -CAkey mid.key -CAcreateserial -out low.crt",
    );
    let at = |name: &str| pem(&dir.path().join(name));
    let judge = |cas: &[&CertificateDer<'static>], depth, chain: &[&CertificateDer<'static>]| {
        let policy = policy_of(VerifyClient::On, cas, depth);
        judge_at(&policy, chain, UnixTime::now())
    };
    let (root, mid, low) = (at("ca.crt"), at("mid.crt"), at("low.crt"));
    assert_eq!(judge(&[&root, &mid], 1, &[&low]), Ok(()));
    assert_eq!(
        judge(&[&root, &mid], 0, &[&low]),
        Err(RefusalReason::ChainTooLong)
    );
    // Not signed directly by a configured CA.
    assert_eq!(
        judge(&[&root], 1, &[&low, &mid]),
        Err(RefusalReason::UnknownIssuer)
    );
    assert_eq!(
        judge(&[&mid], 1, &[&low]),
        Err(RefusalReason::UnknownIntermediate)
    );
}

#[test]
fn a_crowd_of_like_named_certificates_is_judged_to_an_end() {
    let root = ca("root");
    let crowd: Vec<Ca> = {
        // Each could stand above each: same name, same issuer's name.
        let issuer = intermediate("a", &root);
        let other = intermediate("b", &root);
        let mut crowd = Vec::new();
        for _ in 0..20 {
            crowd.push(intermediate("a", &other));
            crowd.push(intermediate("b", &issuer));
        }
        crowd
    };
    let stranger = ca("elsewhere");
    let client = leaf("c", &intermediate("a", &stranger)).der;
    let mut chain = vec![&client];
    chain.extend(crowd.iter().map(|one| one.der()));
    let policy = policy_of(VerifyClient::On, &[root.der()], 6);
    // To try each above each would outlast the suite's patience by far.
    assert!(judge(&policy, &chain).is_err());
}

#[test]
fn of_two_intermediates_with_one_name_the_one_that_signed_is_used() {
    let root = ca("root");
    let (first, second) = (intermediate("middle", &root), intermediate("middle", &root));
    let client = leaf("c", &second).der;
    let policy = policy(&[root.der()]);
    assert_eq!(
        judge(&policy, &[&client, first.der(), second.der()]),
        Ok(())
    );
    assert_eq!(
        judge(&policy, &[&client, second.der(), first.der()]),
        Ok(())
    );
}

#[test]
fn identity_is_the_leafs_however_the_chain_is_stuffed() {
    let root = ca("root");
    let client = leaf("client", &root).der;
    let stuffed = [client.clone(), leaf("admin", &root).der, root.der().clone()];
    let policy = policy(&[root.der()]);
    let admitted = policy.admit(Some(&stuffed), true, now()).expect("valid");
    let admitted = admitted.expect("a client");
    assert_eq!(admitted.leaf(), &client);
    let subject = admitted.identity().and_then(|id| id.subject.as_deref());
    assert_eq!(subject, Some("CN=client"));
}

#[test]
fn a_resumption_is_judged_anew() {
    let root = ca("root");
    let chain = [leaf("c", &root).der];
    let policy = policy(&[root.der()]);
    assert!(policy.admit(Some(&chain), true, now()).is_ok());
    let refusal = policy
        .admit(Some(&chain), true, year(2042))
        .expect_err("expired since");
    assert_eq!(
        refusal.to_string(),
        "client SSL certificate verify error: (10:certificate has expired), \
         subject: \"CN=c\", issuer: \"CN=root\""
    );
    let other = self::policy(&[ca("other").der()]);
    assert!(other.admit(Some(&chain), true, now()).is_err());
}

#[test]
fn a_chain_that_was_let_in_is_judged_by_the_clock_the_policy_and_every_certificate_again() {
    let root = ca("root");
    let short = {
        let mut params = ca_params("short");
        params.not_after = date_time_ymd(2032, 1, 1);
        CertifiedIssuer::signed_by(params, key(), &root).expect("signed")
    };
    let (holder, other) = (leaf("client", &short), leaf("client", &short));
    let policy = policy(&[root.der()]);
    let chain = [&holder.der, short.der()];
    let fact = |policy: &ClientAuth, chain: [&CertificateDer<'static>; 2]| {
        Fact::of(&policy.demands, chain[0], &[chain[1].clone()])
    };
    assert!(!fact(&policy, chain).is_good(now()));
    for _ in 0..2 {
        assert_eq!(judge(&policy, &chain), Ok(()));
        assert!(fact(&policy, chain).is_good(now()));
        let refused = |reason| Err::<(), _>(reason);
        assert_eq!(
            judge_at(&policy, &chain, year(2034)),
            refused(RefusalReason::Expired)
        );
        assert_eq!(
            judge_at(&policy, &chain, year(2019)),
            refused(RefusalReason::NotValidYet)
        );
        assert_eq!(
            judge(&policy, &chain[..1]),
            refused(RefusalReason::UnknownIssuer)
        );
        let elsewhere = policy_of(VerifyClient::On, &[ca("root").der()], 1);
        assert!(judge(&elsewhere, &chain).is_err());
        assert!(!fact(&policy, [&other.der, short.der()]).is_good(now()));
    }
}

#[test]
fn without_a_certificate_the_mode_decides() {
    let root = ca("root");
    for resumed in [false, true] {
        let admit = |mode| policy_of(mode, &[root.der()], 1).admit(None, resumed, now());
        assert_eq!(
            admit(VerifyClient::On).err(),
            Some(Refusal::no_certificate())
        );
        assert!(matches!(admit(VerifyClient::Optional), Ok(None)));
        assert!(matches!(admit(VerifyClient::Off), Ok(None)));
    }
    let off = policy_of(VerifyClient::Off, &[], 1);
    let chain = [leaf("c", &root).der];
    assert!(matches!(off.admit(Some(&chain), true, now()), Ok(None)));
}

#[test]
fn a_policy_is_its_mode_its_cas_and_its_depth() {
    use VerifyClient::{Off, On, Optional};
    let (a, b) = (ca("a"), ca("b"));
    let digest =
        |mode, cas: &[&CertificateDer<'static>], depth| *policy_of(mode, cas, depth).digest();
    let this = digest(On, &[a.der(), b.der()], 1);
    assert_eq!(this, digest(On, &[b.der(), a.der(), a.der()], 1));
    assert_ne!(this, digest(Optional, &[a.der(), b.der()], 1));
    assert_ne!(this, digest(On, &[a.der(), b.der()], 2));
    assert_ne!(this, digest(On, &[a.der()], 1));
    assert_ne!(this, digest(Off, &[], 1));
    assert_eq!(digest(Off, &[], 1), digest(Off, &[a.der()], 3));
}

#[test]
fn the_systems_bundle_of_public_cas_can_be_a_policy() {
    let Ok(bytes) = std::fs::read("/etc/ssl/certs/ca-certificates.crt") else {
        // Not every machine has one; nothing to compare with then.
        return;
    };
    let all: Vec<_> = rustls_pemfile::certs(&mut &bytes[..])
        .collect::<Result<_, _>>()
        .expect("PEM");
    let count = all.len();
    let authorities = Authorities::new(all).expect("every one can be read");
    assert_eq!(authorities.subjects().count(), count);
    assert!(authorities.anchors().len() * 10 > count * 9);
}
