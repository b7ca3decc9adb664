//! The identity that a backend is told: the variables byte for byte as Debian's
//! Nginx forms them for the same certificate, and the ready-made fields, which
//! nobody but the verifier can write.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{DnType, DnValue, SanType};
use rustls::version::{TLS12, TLS13};

use crate::support::client::{Connection, TlsClient, Trust};
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::pki::{Authority, Identity, OpenSsl, Pki};
use crate::support::ringwall::{CERTIFICATES, HOST, Ringwall, Site, http};
use crate::support::tools;

/// Variables whose values a certificate decides.
const OF_CERTIFICATE: [&str; 13] = [
    "ssl_client_verify",
    "ssl_client_s_dn",
    "ssl_client_i_dn",
    "ssl_client_s_dn_legacy",
    "ssl_client_i_dn_legacy",
    "ssl_client_serial",
    "ssl_client_fingerprint",
    "ssl_client_cert",
    "ssl_client_raw_cert",
    "ssl_client_escaped_cert",
    "ssl_client_v_start",
    "ssl_client_v_end",
    "ssl_client_v_remain",
];

/// Variables whose values a handshake decides.
const OF_HANDSHAKE: [&str; 9] = [
    "ssl_protocol",
    "ssl_cipher",
    "ssl_ciphers",
    "ssl_curve",
    "ssl_curves",
    "ssl_server_name",
    "ssl_session_reused",
    "ssl_early_data",
    "ssl_alpn_protocol",
];

/// Attributes as `openssl req -subj` takes them, and what is odd about them.
const SUBJECTS: [&str; 9] = [
    "/C=KR/ST=Seoul/O=Woori, Inc./OU=a\\+b/CN=client.example",
    "/CN=multi+OU=valued+O=rdn/L=Busan",
    "/CN=한국/O=Müller 🦀",
    "/CN= leading and trailing ",
    "/CN=#hash/O=<angle>;semi\"quote\"=",
    "/CN=back\\\\slash\\/slash/O=tilde~\u{7f}",
    "/DC=org/DC=example/UID=x/emailAddress=a@b.c/serialNumber=12",
    "/CN=",
    "/",
];

/// Nginx and ringwall side by side, with the same server block.
struct Pair {
    ringwall: Ringwall,
    nginx: Nginx,
}

impl Pair {
    /// Both answer with these variables, and verify clients by `clients.crt`.
    fn start(mut site: Site, variables: &[&str]) -> Self {
        let page: String = variables
            .iter()
            .map(|name| format!("{name}=[${name}]\\n"))
            .collect();
        let server = |port| {
            format!(
                "server {{ listen 127.0.0.1:@{port}@ ssl; server_name {HOST};\n\
                 {CERTIFICATES} ssl_client_certificate @DIR@/clients.crt;\n\
                 ssl_verify_client on; ssl_session_cache shared:a:1m;\n\
                 ssl_protocols TLSv1.2 TLSv1.3;\n\
                 return 200 \"{page}\"; }}"
            )
        };
        let nginx = Nginx::start(&mut site, &server("NGINX"));
        Self {
            ringwall: site.start(&http(&server("TLS"))),
            nginx,
        }
    }

    /// What each says to this client: ringwall, then Nginx.
    fn ask(&self, client: &TlsClient) -> (String, String) {
        let ask = |address| {
            let response = client.get(address, HOST, "/").expect("a response");
            assert_eq!(response.status, 200);
            response.text()
        };
        (ask(self.ringwall.address("TLS")), ask(self.nginx.address()))
    }

    /// The same by `openssl s_client` with these arguments; `@PORT@` in them is
    /// the server's.
    fn ask_by_openssl(&self, arguments: &str) -> (String, String) {
        let ask = |port: u16| {
            let output = tools::shell(
                self.ringwall.site.path(),
                &format!(
                    "printf 'GET / HTTP/1.0\\r\\nHost: {HOST}\\r\\n\\r\\n' | \
                     openssl s_client -quiet -connect 127.0.0.1:{port} -cert client.crt \
                     -key client.key {}",
                    arguments.replace("@PORT@", &port.to_string())
                ),
            );
            let (_, body) = output
                .stdout
                .split_once("\r\n\r\n")
                .unwrap_or_else(|| panic!("{arguments}: {output:?}"));
            body.to_owned()
        };
        (
            ask(self.ringwall.address("TLS").port()),
            ask(self.nginx.address().port()),
        )
    }
}

/// A leaf below `clients.crt`, made by the `openssl` command.
fn openssl_leaf(dir: &Path, stem: &str, subject: &str) -> Identity {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .output()
            .expect("the openssl command is installed");
        assert!(output.status.success(), "{subject}: {output:?}");
    };
    let file = |suffix: &str| format!("{stem}.{suffix}");
    let (key, request, certificate) = (file("key"), file("csr"), file("crt"));
    run(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-utf8",
        "-multivalue-rdn",
        "-subj",
        subject,
        "-keyout",
        &key,
        "-out",
        &request,
    ]);
    run(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        "root.crt",
        "-CAkey",
        "root.key",
        "-CAcreateserial",
        "-days",
        "20",
        "-extfile",
        "leaf.cnf",
        "-out",
        &certificate,
    ]);
    Identity::read(dir, stem)
}

/// `clients.crt` holds the test CA and `root.crt`, OpenSSL's.
fn site_with_two_authorities() -> (Site, Pki) {
    let (mut site, pki) = Site::with_pki();
    OpenSsl::in_dir(site.path()).authority("root", "Root\\+CA");
    site.write("leaf.cnf", "basicConstraints=CA:FALSE\n");
    let both = pki.ca.pem() + &site.read("root.crt");
    site.write("clients.crt", &both);
    (site, pki)
}

#[test]
fn the_certificates_variables_are_nginxs_byte_for_byte() {
    let (site, pki) = site_with_two_authorities();
    let mut clients: Vec<(String, Identity)> = SUBJECTS
        .iter()
        .enumerate()
        .map(|(index, subject)| {
            let leaf = openssl_leaf(site.path(), &format!("leaf{index}"), subject);
            ((*subject).to_owned(), leaf)
        })
        .collect();
    let encodings = [
        ("empty", DnValue::Utf8String(String::new())),
        (
            "printable",
            DnValue::PrintableString("a b+c".try_into().expect("fits")),
        ),
        (
            "ia5",
            DnValue::Ia5String("a@b\r\n\t".try_into().expect("fits")),
        ),
        (
            "teletex",
            DnValue::TeletexString("plain".try_into().expect("fits")),
        ),
        ("bmp", DnValue::BmpString("한a/".try_into().expect("fits"))),
        (
            "universal",
            DnValue::UniversalString("한🦀+".try_into().expect("fits")),
        ),
    ];
    for (name, value) in encodings {
        let leaf = pki.ca.client_with("x", |params| {
            params
                .distinguished_name
                .push(DnType::OrganizationName, value);
        });
        clients.push((name.to_owned(), leaf));
    }
    let unknown = pki.ca.client_with("x", |params| {
        let kind = DnType::CustomDnType(vec![1, 2, 3, 4, 5]);
        params.distinguished_name.push(kind, "unknown/+");
    });
    clients.push(("unknown".to_owned(), unknown));
    let soon = time::OffsetDateTime::now_utc() + time::Duration::hours(30);
    let ending = pki.ca.client_with("soon", |params| params.not_after = soon);
    clients.push(("a day and a bit".to_owned(), ending));

    let pair = Pair::start(site, &OF_CERTIFICATE);
    for (name, identity) in &clients {
        let client = TlsClient::build(Trust::Ca(&pki.ca), Some(identity), &[&TLS13]);
        // A day of `$ssl_client_v_remain` may end just now, and a worker's clock is
        // a tenth of a second old at the most: the two agree before long.
        let given_up = Instant::now() + Duration::from_secs(2);
        let (ours, theirs) = loop {
            let (ours, theirs) = pair.ask(&client);
            if ours == theirs || Instant::now() > given_up {
                break (ours, theirs);
            }
        };
        assert_eq!(ours, theirs, "{name}");
        assert!(ours.contains("ssl_client_verify=[SUCCESS]"), "{ours}");
    }
}

#[test]
fn the_handshakes_variables_are_nginxs_byte_for_byte() {
    let (site, _pki) = site_with_two_authorities();
    let pair = Pair::start(site, &OF_HANDSHAKE);
    for arguments in [
        "-tls1_3",
        "-tls1_3 -groups P-384:X25519 -servername Test.Example -alpn http/1.1",
        "-tls1_3 -groups X25519:P-521:ffdhe2048 -ciphersuites TLS_AES_128_GCM_SHA256",
        "-tls1_2 -servername a.b -groups P-256",
        "-tls1_2 -cipher ALL:COMPLEMENTOFALL:@SECLEVEL=0 -noservername",
        "-tls1_2 -cipher ECDHE+AESGCM",
    ] {
        let (ours, theirs) = pair.ask_by_openssl(arguments);
        assert_eq!(ours, theirs, "{arguments}");
        assert!(ours.contains("ssl_curve=["), "{ours}");
    }
}

#[test]
fn a_resumed_handshakes_variables_are_nginxs() {
    let (site, _pki) = site_with_two_authorities();
    // Over TLS 1.2 Nginx remembers the first handshake's group; a resumption
    // has none.
    let variables = ["ssl_session_reused", "ssl_ciphers", "ssl_curves"];
    let pair = Pair::start(site, &variables);
    pair.ask_by_openssl("-tls1_2 -sess_out session.@PORT@");
    let (ours, theirs) = pair.ask_by_openssl("-tls1_2 -sess_in session.@PORT@");
    assert_eq!(ours, theirs);
    assert!(
        ours.contains("ssl_session_reused=[r]") && ours.contains("ssl_curves=[]"),
        "{ours}"
    );
}

#[test]
fn a_session_has_the_id_that_the_client_knows_it_by() {
    let (site, _pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES}\n\
         ssl_session_cache shared:s:1m; ssl_session_tickets off;\n\
         location / {{ return 200 <$ssl_session_id>; }} }}"
    )));
    let port = ringwall.address("TLS").port();
    let ask = |version: &str, more: &str| {
        let command = format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | \
             openssl s_client -ign_eof {version} {more} -connect 127.0.0.1:{port} 2>&1"
        );
        let said = tools::shell(ringwall.site.path(), &command).stdout;
        let said = said.replace('\r', "");
        let known = said.split("Session-ID: ").nth(1).unwrap_or_default();
        let known = known
            .lines()
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let told = said
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        let told = told.map(|(told, _)| told.to_owned());
        (known, told.unwrap_or_else(|| panic!("no id: {said}")))
    };
    let (known, told) = ask("-tls1_2", "-sess_out session");
    assert_eq!(told, known);
    assert_eq!(ask("-tls1_2", "-sess_in session"), (known.clone(), known));
    // TLS 1.3 has none; like Nginx's it is made up, for each connection anew.
    let [one, two] = [ask("-tls1_3", "").1, ask("-tls1_3", "").1];
    assert!(one.len() == 64 && one != two, "{one} {two}");
}

/// A backend that answers with the head it was sent.
fn mirror() -> Origin {
    Origin::http(|request| {
        let lines = request.headers.iter();
        let lines: String = lines
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        ok(&lines)
    })
}

/// A location for each form on a server that asks for a certificate, and a
/// server without TLS.
fn forms(origin: &Origin) -> String {
    let locations: String = [
        ("xfcc", "xfcc"),
        ("xfcc-full", "xfcc cert chain"),
        ("rfc", "rfc9440"),
        ("rfc-chain", "rfc9440 chain"),
        ("nginx", "nginx"),
        ("nginx-cert", "nginx cert"),
        ("off", "off"),
    ]
    .map(|(path, form)| {
        let url = origin.url();
        format!("location /{path} {{ proxy_client_identity {form}; proxy_pass {url}; }}\n")
    })
    .concat();
    let sans = "location /sans { return 200 \
                \"$ssl_client_san_dns $ssl_client_san_uri $ssl_client_san_email\
                 $ssl_client_fingerprint_sha256\"; }";
    http(&format!(
        "underscores_in_headers on;\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         {CERTIFICATES} ssl_client_certificate @DIR@/ca.crt; ssl_verify_client optional;\n\
         ssl_verify_depth 2; {locations} {sans} }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass {}; }} }}",
        origin.url()
    ))
}

fn names() -> Vec<SanType> {
    vec![
        SanType::URI("spiffe://a/ns/b".try_into().expect("ASCII")),
        SanType::DnsName("one.example".try_into().expect("ASCII")),
        SanType::DnsName("two.example".try_into().expect("ASCII")),
        SanType::Rfc822Name("a@one.example".try_into().expect("ASCII")),
        SanType::URI("x:a,b;By=c".try_into().expect("ASCII")),
    ]
}

/// The only value of a field in what [`mirror`] answered.
fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let (_, value) = values.next()?;
    assert_eq!(values.next(), None, "{name} twice: {head}");
    Some(value)
}

/// What the `openssl` command prints of a certificate, through `sh`.
fn openssl(site: &Site, command: &str) -> String {
    tools::shell(site.path(), command)
        .expect_ok()
        .trim()
        .to_owned()
}

#[test]
fn each_form_tells_the_backend_who_the_client_proved_to_be() {
    let origin = mirror();
    let (site, pki) = Site::with_pki();
    let below = pki.ca.intermediate("Issuing, CA");
    let mut leaf = below.client_with("say \"hi\", back\\slash", |params| {
        params.subject_alt_names = names();
    });
    leaf.write(site.path(), "leaf");
    std::fs::write(site.file("below.crt"), below.pem()).expect("writable");
    // Between the two and behind them, certificates that prove nothing.
    leaf.certificate_pem += &Authority::new("Stuffed").pem();
    leaf.certificate_pem += &below.pem();
    leaf.certificate_pem += &pki.stranger.certificate_pem;
    let base64 = |file: &str| {
        openssl(
            &site,
            &format!("openssl x509 -in {file} -outform DER | openssl base64 -A"),
        )
    };
    let (leaf_base64, below_base64) = (base64("leaf.crt"), base64("below.crt"));
    let print = |option: &str| {
        let command = format!("openssl x509 -in leaf.crt -noout -nameopt RFC2253 {option}");
        let line = openssl(&site, &command);
        let (_, value) = line.split_once('=').expect("NAME=VALUE");
        value.trim().to_owned()
    };
    let sha256 = print("-fingerprint -sha256")
        .replace(':', "")
        .to_lowercase();
    let sha1 = print("-fingerprint -sha1").replace(':', "").to_lowercase();
    let (serial, start, end) = (print("-serial"), print("-startdate"), print("-enddate"));
    let escape = |file: &str| {
        let pem = openssl(&site, &format!("openssl x509 -in {file}")) + "\n";
        let pem = pem
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        pem.replace(' ', "%20").replace('\n', "%0A")
    };
    let (leaf_pem, below_pem) = (escape("leaf.crt"), escape("below.crt"));
    let ringwall = site.start(&forms(&origin));
    let address = ringwall.address("TLS");

    let xfcc_end = "Subject=\"CN=say \\\"hi\\\"\\, back\\5Cslash\";URI=spiffe://a/ns/b;\
                    URI=\"x:a,b;By=c\";DNS=one.example;DNS=two.example";
    for version in [&TLS13, &TLS12] {
        let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&leaf), &[version]);
        // Twice: a full handshake, then a resumption.
        for _ in 0..2 {
            let mut connection = client.connect(address, HOST).expect("a handshake");
            let mut get = |path: &str| connection.get(HOST, path).text();
            assert_eq!(
                value(&get("/xfcc"), "x-forwarded-client-cert"),
                Some(format!("Hash={sha256};{xfcc_end}").as_str())
            );
            let full = format!(
                "Hash={sha256};Cert=\"{leaf_pem}\";Chain=\"{leaf_pem}{below_pem}\";{xfcc_end}"
            );
            assert_eq!(
                value(&get("/xfcc-full"), "x-forwarded-client-cert"),
                Some(full.as_str())
            );
            let head = get("/rfc");
            let bytes = format!(":{leaf_base64}:");
            assert_eq!(value(&head, "client-cert"), Some(bytes.as_str()));
            assert_eq!(value(&head, "client-cert-chain"), None);
            let head = get("/rfc-chain");
            assert_eq!(value(&head, "client-cert"), Some(bytes.as_str()));
            let bytes = format!(":{below_base64}:");
            assert_eq!(value(&head, "client-cert-chain"), Some(bytes.as_str()));
            let head = get("/nginx-cert");
            for (name, expected) in [
                ("Verify", "SUCCESS"),
                ("S-DN", "CN=say \\\"hi\\\"\\, back\\\\slash"),
                ("I-DN", "CN=Issuing\\, CA"),
                ("Serial", &serial),
                ("Fingerprint", &sha1),
                ("Fingerprint-SHA256", &sha256),
                ("V-Start", &start),
                ("V-End", &end),
                ("SAN-DNS", "one.example,two.example"),
                ("SAN-URI", "spiffe://a/ns/b,x:a%2Cb;By=c"),
                ("SAN-Email", "a@one.example"),
                ("Cert", &leaf_pem),
            ] {
                let name = format!("X-SSL-Client-{name}");
                assert_eq!(value(&head, &name), Some(expected), "{name}");
            }
            assert_eq!(value(&get("/nginx"), "x-ssl-client-cert"), None);
            let head = get("/off").to_lowercase();
            assert!(!head.contains("client"), "{head}");
            assert_eq!(
                get("/sans"),
                format!(
                    "one.example,two.example spiffe://a/ns/b,x:a%2Cb;By=c a@one.example{sha256}"
                )
            );
        }
    }
}

#[test]
fn the_gateways_own_uri_stands_in_by() {
    let origin = mirror();
    let (site, pki) = Site::with_pki();
    let server = pki.ca.client_with(HOST, |params| {
        params.extended_key_usages.clear();
        params.subject_alt_names = vec![
            SanType::DnsName(HOST.try_into().expect("ASCII")),
            SanType::URI("spiffe://a/gateway".try_into().expect("ASCII")),
        ];
    });
    server.write(site.path(), "server");
    let ringwall = site.start(&forms(&origin));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let response = client
        .get(ringwall.address("TLS"), HOST, "/xfcc")
        .expect("a response");
    let head = response.text();
    let element = value(&head, "x-forwarded-client-cert").expect("an element");
    assert!(
        element.starts_with("By=spiffe://a/gateway;Hash="),
        "{element}"
    );
    assert!(
        element.ends_with(";Subject=\"CN=client.example\";URI="),
        "{element}"
    );
}

/// Every name that a form in [`forms`] asserts, spelt as an attacker might.
fn spoofs() -> String {
    let names = [
        "X-Forwarded-Client-Cert",
        "Client-Cert",
        "Client-Cert-Chain",
        "X-SSL-Client-Verify",
        "X-SSL-Client-S-DN",
        "X-SSL-Client-Cert",
        "X-SSL-Client-Whatever",
    ];
    let spell = |name: &str| {
        [
            name.to_owned(),
            name.to_lowercase(),
            name.to_uppercase(),
            name.replace('-', "_"),
            name.replacen('-', "_", 1).to_lowercase(),
            name.to_uppercase().replace('-', "_"),
        ]
        .map(|name| format!("{name}: spoofed\r\n"))
        .concat()
    };
    names.map(spell).concat()
}

fn get_with_spoofs(connection: &mut Connection, path: &str) -> String {
    let fields = spoofs();
    connection.send(format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"
    ));
    let response = connection.response("GET");
    assert_eq!(response.status, 200, "{path}");
    response.text()
}

const PATHS: [&str; 7] = [
    "/xfcc",
    "/xfcc-full",
    "/rfc",
    "/rfc-chain",
    "/nginx",
    "/nginx-cert",
    "/off",
];

#[test]
fn a_clients_copy_of_an_identity_field_never_reaches_a_backend() {
    let origin = mirror();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&forms(&origin));
    let address = ringwall.address("TLS");
    for client in [
        TlsClient::with_identity(&pki.ca, &pki.client),
        TlsClient::new(&pki.ca),
    ] {
        let mut connection = client.connect(address, HOST).expect("a handshake");
        for path in PATHS {
            let head = get_with_spoofs(&mut connection, path);
            assert!(!head.contains("spoofed"), "{path}: {head}");
        }
    }
    // Nor through a server that asserts nothing itself.
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    let head = get_with_spoofs(&mut connection, "/");
    assert!(!head.contains("spoofed"), "{head}");
}

#[test]
fn without_a_client_certificate_no_form_writes_anything() {
    let origin = mirror();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&forms(&origin));
    let mut connection = TlsClient::new(&pki.ca)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    for path in PATHS {
        let head = connection.get(HOST, path).text().to_lowercase();
        assert!(!head.contains("client"), "{path}: {head}");
    }
    assert_eq!(connection.get(HOST, "/sans").text(), "  ");
}

#[test]
fn connection_cannot_remove_an_identity_field() {
    let origin = mirror();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&forms(&origin));
    let mut connection = TlsClient::with_identity(&pki.ca, &pki.client)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    connection.send(format!(
        "GET /nginx HTTP/1.1\r\nHost: {HOST}\r\n\
         Connection: keep-alive, x-ssl-client-verify, x_ssl_client_s_dn\r\n\r\n"
    ));
    let head = connection.response("GET").text();
    assert_eq!(value(&head, "x-ssl-client-verify"), Some("SUCCESS"));
    assert_eq!(value(&head, "x-ssl-client-s-dn"), Some("CN=client.example"));
}

#[test]
fn no_name_in_a_certificate_ends_a_field_and_a_nul_yields_no_value() {
    let origin = mirror();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&forms(&origin));
    for (name, subject) in [
        ("evil\r\nX-Admin: yes", Some("CN=evil\\0D\\0AX-Admin: yes")),
        ("nul\0.example", None),
    ] {
        let identity = pki.ca.client_with(name, |params| {
            params.subject_alt_names = vec![SanType::URI(
                "x:\r\nX-Admin:yes\u{7f}".try_into().expect("ASCII"),
            )];
        });
        let client = TlsClient::with_identity(&pki.ca, &identity);
        let mut connection = client
            .connect(ringwall.address("TLS"), HOST)
            .expect("a handshake");
        for path in PATHS {
            let head = connection.get(HOST, path).text();
            assert_eq!(value(&head, "x-admin"), None, "{path}: {head}");
            assert!(!head.contains("nul"), "{path}: {head}");
        }
        let head = connection.get(HOST, "/nginx").text();
        assert_eq!(value(&head, "x-ssl-client-s-dn"), subject);
        assert_eq!(
            value(&head, "x-ssl-client-san-uri"),
            Some("x:%0D%0AX-Admin:yes%7F")
        );
    }
}

#[test]
fn a_certificate_in_lines_goes_into_a_field_without_folds() {
    let origin = mirror();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES}\n\
         ssl_client_certificate @DIR@/ca.crt; ssl_verify_client on;\n\
         location / {{ proxy_set_header X-Cert $ssl_client_cert; proxy_pass {}; }}\n\
         location /said {{ return 200 $ssl_client_cert; }} }}",
        origin.url()
    )));
    let mut connection = TlsClient::with_identity(&pki.ca, &pki.client)
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    let head = connection.get(HOST, "/").text();
    let field = value(&head, "x-cert").expect("the field");
    let said = connection.get(HOST, "/said").text();
    assert_eq!(field, said.replace("\n\t", " "));
    assert!(
        field.starts_with("-----BEGIN CERTIFICATE----- MII"),
        "{field}"
    );
}
