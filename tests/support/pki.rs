//! Certificates for tests: quick ECDSA P-256 ones from rcgen, and the plain
//! `openssl` commands that operators type, whose leaves are X.509 v1.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A self-signed root.
    pub(crate) fn new(common_name: &str) -> Self {
        Self::with(common_name, KeyPair::generate().expect("a key"), |_| {})
    }

    /// A self-signed root with this key and changes.
    pub(crate) fn with(
        common_name: &str,
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = authority(common_name);
        change(&mut params);
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a root");
        Self { issuer }
    }

    /// An intermediate below this one.
    pub(crate) fn intermediate(&self, common_name: &str) -> Self {
        self.intermediate_with(common_name, |_| {})
    }

    /// An intermediate with changes.
    pub(crate) fn intermediate_with(
        &self,
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = authority(common_name);
        change(&mut params);
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer);
        Self {
            issuer: issuer.expect("an intermediate"),
        }
    }

    /// The root as PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The root as DER.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// A CRL of this one that revokes these serial numbers and is to be
    /// replaced in so many days; negative: was to be.
    pub(crate) fn crl(&self, revoked: &[u64], days: i64) -> String {
        let now = time::OffsetDateTime::now_utc();
        let entry = |&serial: &u64| RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: now - time::Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - time::Duration::days(30),
            next_update: now + time::Duration::days(days),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a CRL");
        list.pem().expect("PEM")
    }

    /// A server certificate for these names; the first is also the CN.
    pub(crate) fn server(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("valid names");
        params
            .distinguished_name
            .push(DnType::CommonName, names[0].clone());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, &KeyPair::generate().expect("a key"))
    }

    /// A client certificate.
    pub(crate) fn client(&self, common_name: &str) -> Identity {
        self.client_with(common_name, |_| {})
    }

    /// A client certificate with changes.
    pub(crate) fn client_with(
        &self,
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        self.client_keyed(common_name, &KeyPair::generate().expect("a key"), change)
    }

    /// A client certificate for this key with changes.
    pub(crate) fn client_keyed(
        &self,
        common_name: &str,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        self.sign(params, key)
    }

    fn sign(&self, mut params: CertificateParams, key: &KeyPair) -> Identity {
        // Strict clients (urllib3) demand it.
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).expect("a leaf");
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

fn authority(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

/// A leaf certificate with its key.
#[derive(Clone)]
pub(crate) struct Identity {
    /// The chain, leaf first.
    pub(crate) certificate_pem: String,
    /// PKCS#8 or what `openssl` writes.
    pub(crate) key_pem: String,
}

impl Identity {
    /// Reads `STEM.crt` and `STEM.key`.
    pub(crate) fn read(dir: &Path, stem: &str) -> Self {
        let read = |suffix| {
            let path = dir.join(format!("{stem}.{suffix}"));
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        Self {
            certificate_pem: read("crt"),
            key_pem: read("key"),
        }
    }

    /// Writes `STEM.crt` and `STEM.key`.
    pub(crate) fn write(&self, dir: &Path, stem: &str) {
        std::fs::write(dir.join(format!("{stem}.crt")), &self.certificate_pem).expect("writable");
        std::fs::write(dir.join(format!("{stem}.key")), &self.key_pem).expect("writable");
    }

    /// The chain as rustls wants it.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .expect("PEM certificates")
    }

    /// The key as rustls wants it.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a PEM key")
    }
}

/// The usual cast: one CA, a server, a client, and a stranger from another CA.
pub(crate) struct Pki {
    pub(crate) ca: Authority,
    pub(crate) server: Identity,
    pub(crate) client: Identity,
    pub(crate) stranger: Identity,
}

impl Pki {
    /// `names` are the server certificate's.
    pub(crate) fn new(names: &[&str]) -> Self {
        let ca = Authority::new("Test CA");
        Self {
            server: ca.server(names),
            client: ca.client("client.example"),
            stranger: Authority::new("Other CA").client("stranger.example"),
            ca,
        }
    }

    /// Writes `ca.crt`, `server.*`, `client.*` and `stranger.*`.
    pub(crate) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("ca.crt"), self.ca.pem()).expect("writable");
        self.server.write(dir, "server");
        self.client.write(dir, "client");
        self.stranger.write(dir, "stranger");
    }
}

/// The `openssl` command, in one directory.
pub(crate) struct OpenSsl {
    dir: PathBuf,
}

impl OpenSsl {
    /// Commands run in `dir`.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Runs `openssl` with these words.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub(crate) fn run(&self, words: &str) {
        let output = Command::new("openssl")
            .args(words.split_whitespace())
            .current_dir(&self.dir)
            .output()
            .expect("the openssl command is installed");
        assert!(
            output.status.success(),
            "openssl {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A root in `STEM.key` and `STEM.crt`, as guides make it.
    pub(crate) fn authority(&self, stem: &str, common_name: &str) {
        self.run(&format!("genpkey -algorithm RSA -out {stem}.key"));
        self.run(&format!(
            "req -new -x509 -key {stem}.key -out {stem}.crt -days 365 -subj /CN={common_name}"
        ));
    }

    /// A leaf in `STEM.key` and `STEM.crt`, as guides make it: no extension
    /// file, so OpenSSL 3.0 writes version 1 without a subjectAltName.
    pub(crate) fn leaf(&self, stem: &str, common_name: &str, ca: &str) {
        self.run(&format!("genpkey -algorithm RSA -out {stem}.key"));
        self.run(&format!(
            "req -new -key {stem}.key -out {stem}.csr -subj /CN={common_name}"
        ));
        self.run(&format!(
            "x509 -req -in {stem}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial \
             -out {stem}.crt -days 365"
        ));
    }

    /// Makes the store `STEM.p12` of `STEM.crt` and `STEM.key`. Its password is
    /// `secret`.
    pub(crate) fn store(&self, stem: &str) {
        self.run(&format!(
            "pkcs12 -export -in {stem}.crt -inkey {stem}.key -out {stem}.p12 -passout pass:secret"
        ));
    }
}
