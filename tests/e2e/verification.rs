//! The matrix of client certificates: every kind of chain, over both versions
//! of TLS, in a full handshake and resumed, with the verdict of Debian's Nginx
//! beside ringwall's.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyPair, KeyUsagePurpose, NameConstraints, RsaKeySize, SanType, SignatureAlgorithm,
};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use time::OffsetDateTime;

use crate::support::client::{TlsClient, Trust};
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::origin::Origin;
use crate::support::pki::{Authority, Identity, OpenSsl, Pki};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

/// The virtual host whose clients are held against revocation lists.
const LISTED: &str = "listed.example";
const REVOKED: u64 = 2000;
const REVOKED_CA: u64 = 3000;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// With tickets, and with the store alone.
const SESSIONS: [&str; 2] = [
    "ssl_session_cache shared:A:1m;",
    "ssl_session_cache shared:A:1m; ssl_session_tickets off;",
];

/// A client of the matrix.
struct Case {
    name: &'static str,
    /// In its certificate, and in no other's.
    subject: String,
    identity: Identity,
    host: &'static str,
    /// What `$ssl_client_verify` says behind `FAILED:`; `None`: it is let in.
    refused: Option<&'static str>,
    /// What Nginx's says, where that is something else.
    nginx: Option<&'static str>,
}

impl Case {
    /// Nginx refuses it in other words: its OpenSSL is made to go on after a
    /// complaint, and the last one is told.
    fn but_nginx(&mut self, says: &'static str) {
        self.nginx = Some(says);
    }

    fn verdict(&self) -> String {
        self.refused
            .map_or_else(|| "SUCCESS".to_owned(), |why| format!("FAILED:{why}"))
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> TlsClient {
        TlsClient::build(Trust::Anyone, Some(&self.identity), &[version])
    }
}

/// The cast, and the files that the servers read.
struct Matrix {
    cases: Vec<Case>,
}

impl Matrix {
    fn add(
        &mut self,
        name: &'static str,
        refused: Option<&'static str>,
        make: impl FnOnce(&str) -> Identity,
    ) -> &mut Case {
        let subject = format!("case-{}.example", self.cases.len());
        self.cases.push(Case {
            name,
            identity: make(&subject),
            subject,
            host: HOST,
            refused,
            nginx: None,
        });
        self.cases.last_mut().expect("just added")
    }

    /// Makes everything and writes `clients.crt` and `crl.pem` into the site.
    fn make(site: &Site, pki: &Pki) -> Self {
        let mut matrix = Self { cases: Vec::new() };
        let mut trusted = pki.ca.pem();
        matrix.validity(&pki.ca);
        matrix.chains(&pki.ca, &mut trusted);
        matrix.purposes(&pki.ca);
        matrix.algorithms(&pki.ca, &mut trusted);
        matrix.version_1(site, &mut trusted);
        matrix.revocation(site, &pki.ca);
        std::fs::write(site.file("clients.crt"), trusted).expect("writable");
        matrix
    }

    fn validity(&mut self, ca: &Authority) {
        let now = OffsetDateTime::now_utc();
        let (past, future) = (now - time::Duration::days(3), now + time::Duration::days(3));
        self.add("valid", None, |cn| ca.client(cn));
        self.add("expired", Some("certificate has expired"), |cn| {
            ca.client_with(cn, |params| params.not_after = past)
        });
        self.add(
            "not yet valid",
            Some("certificate is not yet valid"),
            |cn| ca.client_with(cn, |params| params.not_before = future),
        );
        let old = ca.intermediate_with("Old CA", |params| params.not_after = past);
        self.add(
            "below an expired intermediate",
            Some("certificate has expired"),
            |cn| below(&old, cn, &[&old]),
        );
        let early = ca.intermediate_with("Early CA", |params| params.not_before = future);
        self.add(
            "below an intermediate that is not yet valid",
            Some("certificate is not yet valid"),
            |cn| below(&early, cn, &[&early]),
        );
    }

    fn chains(&mut self, ca: &Authority, trusted: &mut String) {
        let first = ca.intermediate("First");
        let second = first.intermediate("Second");
        self.add("below an intermediate", None, |cn| {
            below(&first, cn, &[&first])
        });
        self.add("the root sent along", None, |cn| {
            below(&first, cn, &[&first, ca])
        });
        self.add(
            "the intermediate missing",
            Some("unable to verify the first certificate"),
            |cn| first.client(cn),
        );
        self.add(
            "the second intermediate missing",
            Some("unable to get local issuer certificate"),
            |cn| below(&second, cn, &[&second]),
        );
        self.add("too deep", Some("certificate chain too long"), |cn| {
            below(&second, cn, &[&second, &first])
        })
        .but_nginx("FAILED:unable to get local issuer certificate");
        let known = ca.intermediate("Known");
        *trusted += &known.pem();
        self.add("its intermediate in the CA file", None, |cn| {
            known.client(cn)
        });
        let other = Authority::new("Other CA");
        self.add(
            "another CA",
            Some("unable to verify the first certificate"),
            |cn| other.client(cn),
        );
        self.add(
            "another CA that is sent along",
            Some("self-signed certificate in certificate chain"),
            |cn| below(&other, cn, &[&other]),
        );
        let forged = Authority::new("Test CA");
        self.add(
            "another CA of the same name",
            Some("certificate signature failure"),
            |cn| forged.client(cn),
        )
        // The key identifiers differ, so that OpenSSL does not even try.
        .but_nginx("FAILED:unable to verify the first certificate");
        self.add("self-signed", Some("self-signed certificate"), |cn| {
            let key = key();
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, cn);
            let leaf = params.self_signed(&key).expect("a certificate");
            Identity {
                certificate_pem: leaf.pem(),
                key_pem: key.serialize_pem(),
            }
        });
        let innocent = ca.client("innocent.example");
        self.add(
            "another's good certificate stuffed behind a bad one",
            Some("unable to verify the first certificate"),
            |cn| {
                let mut stuffed = other.client(cn);
                stuffed.certificate_pem += &innocent.certificate_pem;
                stuffed
            },
        );
        self.add(
            "another's certificate stuffed behind a good one",
            None,
            |cn| {
                let mut stuffed = ca.client(cn);
                stuffed.certificate_pem += &innocent.certificate_pem;
                stuffed
            },
        );
        self.add("its own certificate twice", None, |cn| {
            let mut stuffed = ca.client(cn);
            stuffed.certificate_pem = stuffed.certificate_pem.repeat(2);
            stuffed
        });
        let short = Authority::with("Short CA", key(), |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        });
        *trusted += &short.pem();
        self.add("within the root's path length", None, |cn| short.client(cn));
        let beyond = short.intermediate("Beyond");
        self.add(
            "beyond the root's path length",
            Some("path length constraint exceeded"),
            |cn| below(&beyond, cn, &[&beyond]),
        );
        self.name_constraints(trusted);
    }

    fn name_constraints(&mut self, trusted: &mut String) {
        let constrained = Authority::with("Constrained CA", key(), |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("corp.example".into())],
                excluded_subtrees: vec![GeneralSubtree::DnsName("bad.corp.example".into())],
            });
        });
        *trusted += &constrained.pem();
        let named = |cn: &str, dns: &str| {
            constrained.client_with(cn, |params| {
                let dns = dns.try_into().expect("a name");
                params.subject_alt_names = vec![SanType::DnsName(dns)];
            })
        };
        self.add("a name within its CA's constraints", None, |cn| {
            named(cn, "a.corp.example")
        });
        self.add(
            "a name outside its CA's constraints",
            Some("permitted subtree violation"),
            |cn| named(cn, "a.other.example"),
        );
        // webpki has one word for both.
        self.add(
            "a name that its CA's constraints exclude",
            Some("permitted subtree violation"),
            |cn| named(cn, "a.bad.corp.example"),
        )
        .but_nginx("FAILED:excluded subtree violation");
    }

    fn purposes(&mut self, ca: &Authority) {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
        let with = |cn: &str, purposes: &[ExtendedKeyUsagePurpose]| {
            ca.client_with(cn, |params| params.extended_key_usages = purposes.to_vec())
        };
        self.add("for any purpose, not saying so", None, |cn| with(cn, &[]));
        self.add("for clients and servers", None, |cn| {
            with(cn, &[ServerAuth, ClientAuth])
        });
        const UNSUITABLE: Option<&str> = Some("unsuitable certificate purpose");
        self.add("for servers", UNSUITABLE, |cn| with(cn, &[ServerAuth]));
        self.add("for anyExtendedKeyUsage alone", UNSUITABLE, |cn| {
            with(cn, &[Any])
        });
        self.add("a keyUsage without signatures", UNSUITABLE, |cn| {
            ca.client_with(cn, |params| {
                params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
            })
        });
        let servers = ca.intermediate_with("Server CA", |params| {
            params.extended_key_usages = vec![ServerAuth];
        });
        self.add("below an intermediate for servers", UNSUITABLE, |cn| {
            below(&servers, cn, &[&servers])
        });
        let no_ca = ca.intermediate_with("No CA", |params| params.is_ca = IsCa::ExplicitNoCa);
        self.add(
            "below what is no CA",
            Some("invalid CA certificate"),
            |cn| below(&no_ca, cn, &[&no_ca]),
        )
        .but_nginx("FAILED:unsuitable certificate purpose");
        let no_sign = ca.intermediate_with("No Signer", |params| {
            params.key_usages = vec![KeyUsagePurpose::CrlSign];
        });
        self.add(
            "below a CA that may not sign certificates",
            Some("invalid CA certificate"),
            |cn| below(&no_sign, cn, &[&no_sign]),
        )
        .but_nginx("FAILED:key usage does not include certificate signing");
        self.add(
            "an unknown critical extension",
            Some("unhandled critical extension"),
            |cn| {
                ca.client_with(cn, |params| {
                    let mut extension = CustomExtension::from_oid_content(
                        &[1, 3, 6, 1, 4, 1, 99_999, 1],
                        vec![5, 0],
                    );
                    extension.set_criticality(true);
                    params.custom_extensions = vec![extension];
                })
            },
        );
    }

    fn algorithms(&mut self, ca: &Authority, trusted: &mut String) {
        let rsa =
            |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).expect("an RSA key");
        let of = |algorithm: &'static SignatureAlgorithm| {
            KeyPair::generate_for(algorithm).expect("a key")
        };
        let keys: [(&str, &dyn Fn() -> KeyPair); 5] = [
            ("RSA-2048", &|| rsa(RsaKeySize::_2048)),
            ("RSA-4096", &|| rsa(RsaKeySize::_4096)),
            ("P-256", &|| of(&rcgen::PKCS_ECDSA_P256_SHA256)),
            ("P-384", &|| of(&rcgen::PKCS_ECDSA_P384_SHA384)),
            ("Ed25519", &|| of(&rcgen::PKCS_ED25519)),
        ];
        for (name, key) in keys {
            self.add(name, None, |cn| ca.client_keyed(cn, &key(), |_| {}));
            let root = Authority::with(&format!("{name} CA"), key(), |_| {});
            *trusted += &root.pem();
            let middle = root.intermediate(&format!("{name} Intermediate"));
            self.add(name, None, |cn| root.client_keyed(cn, &key(), |_| {}));
            self.add(name, None, |cn| below(&middle, cn, &[&middle]));
        }
    }

    /// As `openssl` makes them.
    fn version_1(&mut self, site: &Site, trusted: &mut String) {
        let openssl = OpenSsl::in_dir(site.path());
        openssl.authority("guide", "GuideCA");
        *trusted += &site.read("guide.crt");
        let leaf = |cn: &str, ca: &str| {
            openssl.leaf(cn, cn, ca);
            Identity::read(site.path(), cn)
        };
        self.add("a leaf of version 1", None, |cn| leaf(cn, "guide"));
        openssl.leaf("v1", "v1-ca.example", "guide");
        self.add(
            "a leaf of version 1 below a CA of version 1",
            Some("unable to verify the first certificate"),
            |cn| {
                let mut leaf = leaf(cn, "v1");
                leaf.certificate_pem += &site.read("v1.crt");
                leaf
            },
        )
        .but_nginx("FAILED:unsuitable certificate purpose");
        let v3 = |cn: &str, ca: &str, options: &str| {
            std::fs::write(site.file("v3.ext"), "keyUsage=digitalSignature\n").expect("writable");
            openssl.run(&format!("genpkey -algorithm RSA -out {cn}.key"));
            openssl.run(&format!(
                "req -new -key {cn}.key -out {cn}.csr -subj /CN={cn}"
            ));
            openssl.run(&format!(
                "x509 -req -in {cn}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial \
                 -out {cn}.crt -extfile v3.ext {options}"
            ));
            Identity::read(site.path(), cn)
        };
        self.add(
            "a leaf of version 3 below a CA of version 1",
            Some("unable to verify the first certificate"),
            |cn| {
                let mut leaf = v3(cn, "v1", "");
                leaf.certificate_pem += &site.read("v1.crt");
                leaf
            },
        )
        .but_nginx("FAILED:unsuitable certificate purpose");
        self.add(
            "signed with SHA-1",
            Some("unsupported signature algorithm"),
            |cn| v3(cn, "guide", "-sha1"),
        )
        .but_nginx("FAILED:CA signature digest algorithm too weak");
    }

    fn revocation(&mut self, site: &Site, ca: &Authority) {
        let good = ca.intermediate("Good CA");
        let bad = ca.intermediate_with("Bad CA", |params| {
            params.serial_number = Some(REVOKED_CA.into());
        });
        let unlisted = ca.intermediate("Unlisted CA");
        let numbered = |issuer: &Authority, cn: &str, serial: u64| {
            issuer.client_with(cn, |params| params.serial_number = Some(serial.into()))
        };
        const REVOCATION: Option<&str> = Some("certificate revoked");
        let mut listed = Self { cases: Vec::new() };
        std::mem::swap(self, &mut listed);
        let from = listed.cases.len();
        listed.add("not revoked", None, |cn| ca.client(cn));
        listed.add("revoked", REVOCATION, |cn| numbered(ca, cn, REVOKED));
        listed.add("not revoked below an intermediate", None, |cn| {
            below(&good, cn, &[&good])
        });
        listed.add("revoked by an intermediate", REVOCATION, |cn| {
            let mut leaf = numbered(&good, cn, REVOKED);
            leaf.certificate_pem += &good.pem();
            leaf
        });
        listed.add("below a revoked intermediate", REVOCATION, |cn| {
            below(&bad, cn, &[&bad])
        });
        listed.add(
            "below an intermediate without a list",
            Some("unable to get certificate CRL"),
            |cn| below(&unlisted, cn, &[&unlisted]),
        );
        std::mem::swap(self, &mut listed);
        let crls =
            ca.crl(&[REVOKED, REVOKED_CA], 30) + &good.crl(&[REVOKED], 30) + &bad.crl(&[], 30);
        std::fs::write(site.file("crl.pem"), crls).expect("writable");
        for case in &mut self.cases[from..] {
            case.host = LISTED;
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// A client of `issuer` that sends these along.
fn below(issuer: &Authority, cn: &str, chain: &[&Authority]) -> Identity {
    let mut leaf = issuer.client(cn);
    chain
        .iter()
        .for_each(|above| leaf.certificate_pem += &above.pem());
    leaf
}

/// Both virtual hosts on one port, with these directives and this way to
/// answer.
fn servers(port: &str, more: &str, answer: &str) -> String {
    let block = |name: &str, crl: &str| {
        format!(
            "server {{ listen 127.0.0.1:@{port}@ ssl; server_name {name}; {CERTIFICATES}\n\
             ssl_client_certificate @DIR@/clients.crt; ssl_verify_client on;\n\
             ssl_protocols TLSv1.2 TLSv1.3; {crl} {more}\n\
             {answer} }}\n"
        )
    };
    block(HOST, "") + &block(LISTED, "ssl_crl @DIR@/crl.pem;")
}

#[test]
fn every_kind_of_chain_is_judged_alike_in_both_versions_in_full_and_resumed() {
    let origin = Origin::http(|request| crate::support::origin::ok(&request.line));
    let (site, pki) = Site::with_pki();
    let matrix = Matrix::make(&site, &pki);
    let pass = format!(
        "location / {{ proxy_pass {}; proxy_set_header Subject $ssl_client_s_dn; }}",
        origin.url()
    );
    let mut ringwall = site.start(&http(&servers("TLS", SESSIONS[0], &pass)));
    for sessions in SESSIONS {
        if sessions != SESSIONS[0] {
            ringwall.rewrite(&http(&servers("TLS", sessions, &pass)));
            ringwall.reload();
            ringwall.complaint_with(&["reconfigured"]);
        }
        for version in VERSIONS {
            for case in &matrix.cases {
                let what = format!("{} over {version:?} with {sessions}", case.name);
                let client = case.client(version);
                let requests = origin.requests();
                for round in 0..2 {
                    let outcome = served(&client, &ringwall, case.host);
                    match (case.refused, outcome) {
                        (None, Ok(resumed)) => {
                            assert_eq!(resumed, round > 0, "resumed: {what}");
                        }
                        (Some(_), Err(_)) => {}
                        (_, outcome) => panic!("{what}: {outcome:?}"),
                    }
                }
                let expected = if case.refused.is_none() { 2 } else { 0 };
                assert_eq!(origin.requests() - requests, expected, "{what}");
            }
        }
    }
    let received = origin.all_received_text();
    assert!(!received.contains("innocent.example"), "{received}");
    for case in &matrix.cases {
        match case.refused {
            Some(why) => {
                let why = format!(":{why})");
                let subject = format!("\"CN={}\"", case.subject);
                ringwall.complaint_with(&[&why, &subject, case.host]);
                assert!(!received.contains(&case.subject), "{}", case.name);
            }
            None => assert!(
                received.contains(&format!("Subject: CN={}\r\n", case.subject)),
                "{}",
                case.name
            ),
        }
    }
}

/// Whether a request is answered, and then whether by a resumed session.
fn served(client: &TlsClient, ringwall: &Ringwall, host: &str) -> std::io::Result<bool> {
    let mut connection = client.connect(ringwall.address("TLS"), host)?;
    let response = connection.try_get(host, "/")?;
    assert_eq!(response.status, 200, "{}", response.text());
    Ok(connection.resumed())
}

#[test]
fn the_verdict_on_every_kind_of_chain_is_nginxs() {
    let (mut site, pki) = Site::with_pki();
    let matrix = Matrix::make(&site, &pki);
    const FORMAT: &str = "log_format v \"$request_uri $ssl_client_verify\";\n";
    let log = |name: &str| format!("access_log @DIR@/{name} v;");
    let nginx = servers("NGINX", &log("nginx-access.log"), "return 200 x;");
    let nginx = Nginx::start(&mut site, &(FORMAT.to_owned() + &nginx));
    let more = log("access.log") + " ssl_verify_failure http;";
    let ringwall = servers("TLS", &more, "return 200 x;");
    let ringwall = site.start(&http(&(FORMAT.to_owned() + &ringwall)));
    let mut differences = Vec::new();
    for version in VERSIONS {
        for case in &matrix.cases {
            let client = case.client(version).without_sessions();
            let target = format!("/{}/{:?}", case.subject, version.version);
            let mut said = Vec::new();
            for (address, log) in [
                (nginx.address(), "nginx-access.log"),
                (ringwall.address("TLS"), "access.log"),
            ] {
                let status = match client.get(address, case.host, &target) {
                    Ok(response) => response.status,
                    Err(error) => {
                        said.push(error.to_string());
                        continue;
                    }
                };
                let line = eventually("the verdict is logged", || {
                    let log = ringwall.site.read(log);
                    log.lines()
                        .find_map(|line| Some(line.strip_prefix(&target)?.trim().to_owned()))
                });
                assert_eq!(status == 200, line == "SUCCESS", "{}: {line}", case.name);
                said.push(line);
            }
            let ours = case.verdict();
            let theirs = case.nginx.unwrap_or(&ours);
            if said != [theirs, &ours] {
                differences.push(format!("{} over {version:?}: {said:?}", case.name));
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

/// What makes a client unacceptable whose session was good a moment ago.
struct Change {
    name: &'static str,
    /// Its client, in the cast of [`Cast`].
    whose: fn(&Cast) -> &Identity,
    /// The server block's directives before and after.
    block: [&'static str; 2],
    /// `crl.pem` after; without lists it revokes nobody.
    revoked: &'static [u64],
    /// In the error log; empty where the policy changed as a whole.
    reason: &'static str,
}

struct Cast {
    pki: Pki,
    other: Authority,
    middle: Authority,
    plain: Identity,
    marked: Identity,
    below: Identity,
    others: Identity,
}

const DEMANDING: &str = "ssl_client_certificate @DIR@/clients.crt; ssl_verify_client on;";
const WITH_CRL: &str =
    "ssl_client_certificate @DIR@/clients.crt; ssl_verify_client on; ssl_crl @DIR@/crl.pem;";

const CHANGES: [Change; 6] = [
    Change {
        name: "its certificate is revoked",
        whose: |cast| &cast.marked,
        block: [WITH_CRL, WITH_CRL],
        revoked: &[REVOKED],
        reason: "(23:certificate revoked)",
    },
    Change {
        name: "its intermediate is revoked",
        whose: |cast| &cast.below,
        block: [WITH_CRL, WITH_CRL],
        revoked: &[REVOKED_CA],
        reason: "(23:certificate revoked)",
    },
    Change {
        name: "lists are demanded from now on, and it is on one",
        whose: |cast| &cast.marked,
        block: [DEMANDING, WITH_CRL],
        revoked: &[REVOKED],
        reason: "(23:certificate revoked)",
    },
    Change {
        name: "its CA is no longer trusted",
        whose: |cast| &cast.others,
        block: [
            DEMANDING,
            "ssl_client_certificate @DIR@/ca.crt; ssl_verify_client on;",
        ],
        revoked: &[],
        reason: "(21:unable to verify the first certificate)",
    },
    Change {
        name: "its chain is too long from now on",
        whose: |cast| &cast.below,
        block: [
            DEMANDING,
            "ssl_client_certificate @DIR@/clients.crt; ssl_verify_client on; ssl_verify_depth 0;",
        ],
        revoked: &[],
        reason: "(22:certificate chain too long)",
    },
    Change {
        name: "its certificate is denied by a rule",
        whose: |cast| &cast.plain,
        block: [
            DEMANDING,
            "ssl_client_certificate @DIR@/clients.crt; ssl_verify_client on;\n\
             ssl_client_deny cn:plain.example; ssl_client_allow all;",
        ],
        revoked: &[],
        reason: "",
    },
];

impl Cast {
    fn new(pki: Pki) -> Self {
        let middle = pki.ca.intermediate_with("Middle", |params| {
            params.serial_number = Some(REVOKED_CA.into());
        });
        let other = Authority::new("Other CA");
        Self {
            plain: pki.ca.client("plain.example"),
            marked: pki.ca.client_with("marked.example", |params| {
                params.serial_number = Some(REVOKED.into());
            }),
            below: below(&middle, "below.example", &[&middle]),
            others: other.client("others.example"),
            pki,
            other,
            middle,
        }
    }

    fn write(&self, site: &Site, revoked: &[u64]) {
        let trusted = self.pki.ca.pem() + &self.other.pem();
        std::fs::write(site.file("clients.crt"), trusted).expect("writable");
        let crls =
            self.pki.ca.crl(revoked, 30) + &self.middle.crl(&[], 30) + &self.other.crl(&[], 30);
        std::fs::write(site.file("crl.pem"), crls).expect("writable");
    }
}

#[test]
fn what_becomes_unacceptable_does_not_resume_and_the_rest_does() {
    for sessions in SESSIONS {
        for change in &CHANGES {
            let origin = Origin::hello();
            let (site, pki) = Site::with_pki();
            let cast = Cast::new(pki);
            cast.write(&site, &[]);
            let block = |directives: &str| {
                http(&format!(
                    "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES}\n\
                     {directives} {sessions} location / {{ proxy_pass {}; }} }}",
                    origin.url()
                ))
            };
            let mut ringwall = site.start(&block(change.block[0]));
            let bad = VERSIONS.map(|version| client(&cast, (change.whose)(&cast), version));
            let good = VERSIONS.map(|version| client(&cast, &cast.pki.client, version));
            for client in bad.iter().chain(&good) {
                for resumed in [false, true] {
                    let outcome = served(client, &ringwall, HOST).expect("acceptable");
                    assert_eq!(outcome, resumed, "{}", change.name);
                }
            }

            cast.write(&ringwall.site, change.revoked);
            ringwall.rewrite(&block(change.block[1]));
            ringwall.reload();
            ringwall.complaint_with(&["reconfigured"]);
            let requests = origin.requests();
            for client in &bad {
                let answered = client.get(ringwall.address("TLS"), HOST, "/");
                let refused = match &answered {
                    // A rule is kept by HTTP.
                    Ok(response) => change.reason.is_empty() && response.status == 403,
                    Err(_) => !change.reason.is_empty(),
                };
                assert!(refused, "{} ({sessions}): {answered:?}", change.name);
            }
            assert_eq!(origin.requests(), requests, "{}", change.name);
            if !change.reason.is_empty() {
                ringwall.complaint_with(&[change.reason]);
            }
            for client in &good {
                // Another policy may cost the session, never the service.
                served(client, &ringwall, HOST).expect("still acceptable");
                assert!(served(client, &ringwall, HOST).expect("and again"));
            }
        }
    }
}

fn client(
    cast: &Cast,
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
) -> TlsClient {
    TlsClient::build(Trust::Ca(&cast.pki.ca), Some(identity), &[version])
}

#[test]
fn a_session_does_not_outlive_an_intermediate() {
    for sessions in SESSIONS {
        let (site, pki) = Site::with_pki();
        let ringwall = site.start(&http(&format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
             {sessions} return 200 x; }}"
        )));
        let end = OffsetDateTime::now_utc() + time::Duration::seconds(5);
        let brief = pki
            .ca
            .intermediate_with("Brief CA", |params| params.not_after = end);
        let identity = below(&brief, "below.example", &[&brief]);
        let clients = VERSIONS
            .map(|version| TlsClient::build(Trust::Ca(&pki.ca), Some(&identity), &[version]));
        for client in &clients {
            for resumed in [false, true] {
                let outcome = served(client, &ringwall, HOST).expect("still valid");
                assert_eq!(outcome, resumed);
            }
        }
        eventually("the intermediate has expired", || {
            (OffsetDateTime::now_utc() > end + time::Duration::seconds(1)).then_some(())
        });
        for client in &clients {
            let outcome = served(client, &ringwall, HOST);
            assert!(outcome.is_err(), "{sessions}: {outcome:?}");
        }
    }
}
