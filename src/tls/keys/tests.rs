//! Keys and stores as the programs of operators make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;

use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn run(&self, program: &str, arguments: &str) {
        let output = Command::new(program)
            .args(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{arguments}: {output:?}");
    }

    fn openssl(&self, arguments: &str) {
        self.run("openssl", arguments);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).expect("a file")
    }
}

fn passphrases(lines: &str) -> Passphrases {
    Passphrases::read(Path::new("/p"), lines.as_bytes()).expect("read")
}

/// The public key, to compare one key with another.
fn public(key: &PrivateKeyDer<'_>) -> Vec<u8> {
    let key = any_supported_type(key).expect("a key of rustls' kinds");
    key.public_key().expect("has one").to_vec()
}

fn open_key(pem: &[u8]) -> Vec<u8> {
    let key = private_key(pem, None).map_err(|e| panic!("{e}"));
    public(&key.expect("read").der)
}

#[test]
fn every_form_in_which_openssl_seals_a_key_is_opened() {
    let files = Files::new();
    files.openssl("genrsa -out rsa.key 2048");
    files.openssl("ecparam -name prime256v1 -genkey -noout -out ec.key");
    files.openssl("genpkey -algorithm ED25519 -out ed.key");
    let mut made = Vec::new();
    let mut seal = |key: &'static str, how: String| {
        let name = format!("sealed{}.key", made.len());
        files.openssl(&format!("{how} -in {key} -out {name} -passout pass:right"));
        made.push((key, how, name));
    };
    for cipher in [
        "aes128",
        "aes192",
        "aes256",
        "des3",
        "des -provider legacy -provider default",
    ] {
        seal("rsa.key", format!("rsa -traditional -{cipher}"));
        seal("ec.key", format!("ec -{cipher}"));
    }
    seal("rsa.key", "rsa -aes256".to_owned());
    for how in [
        "-v2 aes-128-cbc",
        "-v2 aes-192-cbc",
        "-v2 aes-256-cbc",
        "-v2 des3",
        "-v2 aes-256-cbc -v2prf hmacWithSHA1",
        "-v2 aes-256-cbc -v2prf hmacWithSHA384",
        "-v2 aes-256-cbc -v2prf hmacWithSHA512",
        "-v1 PBE-MD5-DES -provider legacy -provider default",
        "-v1 PBE-SHA1-DES -provider legacy -provider default",
        "-v1 PBE-MD5-RC2-64 -provider legacy -provider default",
        "-v1 PBE-SHA1-RC2-64 -provider legacy -provider default",
        "-v1 PBE-SHA1-3DES",
        "-v1 PBE-SHA1-2DES",
        "-v1 PBE-SHA1-RC2-128 -provider legacy -provider default",
        "-v1 PBE-SHA1-RC2-40 -provider legacy -provider default",
    ] {
        for key in ["rsa.key", "ec.key", "ed.key"] {
            seal(key, format!("pkcs8 -topk8 {how}"));
        }
    }
    // Slow in a debug build, and once is enough.
    seal("ed.key", "pkcs8 -topk8 -scrypt".to_owned());
    let right = passphrases("wrong\nright\nneither");
    for (key, how, name) in made {
        let sealed = files.read(&name);
        let text = String::from_utf8_lossy(&sealed);
        assert!(text.contains("ENCRYPTED"), "{how}: {text}");
        let opened = private_key(&sealed, Some(&right));
        let opened = opened.unwrap_or_else(|error| panic!("{key} by {how}: {error}"));
        assert!(opened.was_sealed);
        assert_eq!(public(&opened.der), open_key(&files.read(key)), "{how}");
        // CR LF makes no difference.
        let dos = text.replace('\n', "\r\n");
        assert!(private_key(dos.as_bytes(), Some(&right)).is_ok(), "{how}");
        for (given, complaint) in [
            (Some("wrong"), "the passphrase in \"/p\" does not open it"),
            (
                Some("no\nright \nRight"),
                "none of the passphrases in \"/p\" opens it",
            ),
            (
                None,
                "the key is encrypted, and no file with its passphrase is given",
            ),
        ] {
            let given = given.map(passphrases);
            let error = private_key(&sealed, given.as_ref()).err();
            assert_eq!(error.as_deref(), Some(complaint), "{key} by {how}");
        }
    }
}

#[test]
fn a_key_in_the_open_needs_no_passphrase_and_ignores_what_is_given() {
    let files = Files::new();
    files.openssl("ecparam -name secp384r1 -genkey -out sec1.key");
    let key = files.read("sec1.key");
    let read = private_key(&key, Some(&passphrases("wrong")));
    let read = read.unwrap_or_else(|error| panic!("{error}"));
    assert!(!read.was_sealed);
    // "EC PARAMETERS" stands before it.
    assert_eq!(public(&read.der), open_key(&key));
}

#[test]
fn a_cipher_that_is_not_known_is_said_so() {
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
               DEK-Info: IDEA-CBC,0123456789ABCDEF\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let error = private_key(pem.as_bytes(), Some(&passphrases("x"))).err();
    let said = "the key is encrypted with a cipher that is not supported";
    assert_eq!(error.as_deref(), Some(said));
}

/// Key and chain of two, and stores made of them.
fn stores() -> Files {
    let files = Files::new();
    files.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=CA");
    files.openssl("ecparam -name prime256v1 -genkey -noout -out s.key");
    files.openssl("req -new -key s.key -subj /CN=s -out s.csr");
    files.openssl("x509 -req -in s.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out s.crt");
    files
}

const EXPORT: &str = "pkcs12 -export -inkey s.key -in s.crt -certfile ca.crt";

#[test]
fn every_form_of_store_that_openssl_makes_is_opened() {
    let files = stores();
    let right = passphrases("wrong\nréght");
    for how in [
        "",
        " -legacy",
        " -descert -provider legacy -provider default",
        " -keypbe NONE -certpbe NONE",
        " -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-RC2-128 -provider legacy -provider default",
        " -keypbe AES-256-CBC -certpbe AES-128-CBC -macalg sha512",
        " -macalg sha224",
        " -macalg sha384",
        " -nomac",
        " -iter 1 -nomaciter",
    ] {
        files.openssl(&format!("{EXPORT} -out s.p12 -passout pass:réght{how}"));
        let bytes = files.read("s.p12");
        assert!(is_store(&bytes));
        let store = pkcs12::open(&bytes, Some(&right)).unwrap_or_else(|e| panic!("{how}: {e}"));
        assert_eq!(store.certificates.len(), 2, "{how}");
        let [key] = &store.keys[..] else {
            panic!("{how}: {} keys", store.keys.len())
        };
        assert_eq!(public(&key.der), open_key(&files.read("s.key")), "{how}");
        let ids = store
            .certificates
            .iter()
            .filter(|it| it.key_id == key.key_id);
        assert_eq!(ids.count(), 1, "{how}");
        if !how.contains("NONE") {
            let error = pkcs12::open(&bytes, Some(&passphrases("wrong"))).err();
            assert_eq!(
                error.as_deref(),
                Some("the passphrase in \"/p\" does not open it")
            );
            let error = pkcs12::open(&bytes, None).err().expect("closed");
            assert!(
                error.contains("no file with its passphrase is given"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_store_with_an_empty_passphrase_needs_no_file() {
    let files = stores();
    for how in ["", " -legacy"] {
        files.openssl(&format!("{EXPORT} -out s.p12 -passout pass:{how}"));
        assert!(pkcs12::open(&files.read("s.p12"), None).is_ok(), "{how}");
    }
}

#[test]
fn stores_that_javas_keytool_makes_are_opened() {
    let files = Files::new();
    let base = "-genkeypair -alias s -keyalg EC -dname CN=s -storetype PKCS12 -storepass changeit";
    for (name, how) in [("new.p12", ""), ("old.p12", "-J-Dkeystore.pkcs12.legacy ")] {
        files.run("keytool", &format!("{how}{base} -keystore {name}"));
        let bytes = files.read(name);
        let store = pkcs12::open(&bytes, Some(&passphrases("changeit")));
        let store = store.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (store.certificates.len(), store.keys.len()),
            (1, 1),
            "{name}"
        );
        assert_eq!(store.certificates[0].key_id, store.keys[0].key_id, "{name}");
    }
}

fn is_store(bytes: &[u8]) -> bool {
    pkcs12::is_store(bytes)
}

/// One element of DER, shorter than 64 KiB.
fn element(tag: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let content = pieces.concat();
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    [&[tag, 0x82], &length[..], &content].concat()
}

/// OpenSSL 3.0 does not make them, but has the parts.
#[test]
fn a_store_under_pbmac1_is_opened() {
    let files = stores();
    files.openssl(&format!("{EXPORT} -out s.p12 -passout pass:x -nomac"));
    let bytes = files.read("s.p12");
    let (pfx, _) = crate::tls::der::tlv(&bytes).expect("DER");
    let mut fields = Fields::new(pfx.value, MALFORMED);
    let (version, info) = (fields.next().expect("one"), fields.next().expect("two"));
    let mut content = Fields::new(info.value, MALFORMED);
    content.next().expect("its type");
    let content = content
        .inner(0xa0)
        .and_then(|mut it| it.required(OCTET_STRING));
    fs::write(files.at("content"), content.expect("data").value).expect("written");
    let output = |arguments: &str| {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split(' '))
            .current_dir(files.0.path());
        String::from_utf8(command.output().expect("runs").stdout).expect("ASCII")
    };
    let key = output(
        "kdf -keylen 32 -kdfopt digest:SHA512 -kdfopt pass:x -kdfopt hexsalt:0102030405060708 \
         -kdfopt iter:2048 PBKDF2",
    );
    let key = key.trim().replace(':', "");
    let mac = output(&format!(
        "mac -digest SHA256 -macopt hexkey:{key} -in content HMAC"
    ));
    let mac: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&mac[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    let oid = |tail: &[u8]| element(0x06, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d], tail]);
    let salt = element(0x04, &[&[1, 2, 3, 4, 5, 6, 7, 8]]);
    let sha512 = element(0x30, &[&oid(&[2, 11]), &[5, 0]]);
    let given = element(0x30, &[&salt, &[2, 2, 8, 0], &[2, 1, 32], &sha512]);
    let derivation = element(0x30, &[&oid(&[1, 5, 12]), &given]);
    let scheme = element(0x30, &[&oid(&[2, 9]), &[5, 0]]);
    let both = element(0x30, &[&derivation, &scheme]);
    let algorithm = element(0x30, &[&oid(&[1, 5, 14]), &both]);
    let digest = element(0x30, &[&algorithm, &element(0x04, &[&mac])]);
    let data = element(0x30, &[&digest, &element(0x04, &[b"unused"]), &[2, 1, 1]]);
    let store = element(0x30, &[version.whole, info.whole, &data]);
    assert!(pkcs12::open(&store, Some(&passphrases("x"))).is_ok());
    let error = pkcs12::open(&store, Some(&passphrases("y"))).err();
    assert_eq!(
        error.as_deref(),
        Some("the passphrase in \"/p\" does not open it")
    );
}

#[test]
fn what_is_no_store_is_not_taken_for_one() {
    let files = stores();
    for name in ["s.key", "s.crt", "s.csr"] {
        assert!(!is_store(&files.read(name)), "{name}");
    }
    files.openssl("x509 -in s.crt -outform DER -out s.der");
    files.openssl("pkcs8 -topk8 -nocrypt -in s.key -outform DER -out k.der");
    for name in ["s.der", "k.der"] {
        assert!(!is_store(&files.read(name)), "{name}");
    }
}

#[test]
fn a_damaged_store_is_refused_without_a_panic() {
    let files = stores();
    files.openssl(&format!(
        "{EXPORT} -out s.p12 -passout pass:x -iter 1 -nomac"
    ));
    let good = files.read("s.p12");
    let right = passphrases("x");
    for length in 0..good.len() {
        assert!(
            pkcs12::open(&good[..length], Some(&right)).is_err(),
            "{length}"
        );
    }
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 0x41;
        // May still open: a certificate's bytes are not judged here.
        let _ = pkcs12::open(&bad, Some(&right));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let some = passphrases("x");
        let _ = pkcs12::open(&bytes, Some(&some));
        let _ = private_key(&bytes, Some(&some));
        let pem = format!(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{}\n-----END ENCRYPTED PRIVATE KEY-----",
            crate::tls::identity::pem::base64(&bytes)
        );
        prop_assert!(private_key(pem.as_bytes(), Some(&some)).is_err());
    }
}
