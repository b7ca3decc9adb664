//! Keys and stores that a passphrase seals are opened at start and reload; a
//! wrong passphrase is an error with file and line, and nobody is shown any of
//! it.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use crate::support::client::TlsClient;
use crate::support::pki::Pki;
use rustix::process::Signal;

use crate::support::ringwall::{CERTIFICATES, HOST, Ringwall, Site, http, send_signal, whole};
use crate::support::tools::{python, run};

const PASSPHRASE: &str = "open-sesame-4711";

/// A site whose server certificate is also there as `sealed.key` (PKCS#8),
/// `traditional.key`, `store.p12` and `legacy.pfx`.
fn site() -> (Site, Pki) {
    let (mut site, pki) = Site::with_pki();
    site.write("pass", &format!("not-this-one\n{PASSPHRASE}\n"));
    let out = format!("pass:{PASSPHRASE}");
    for (name, how) in [
        ("sealed.key", "pkcs8 -topk8 -v2 aes256 -in server.key"),
        ("traditional.key", "ec -aes256 -in server.key"),
        (
            "store.p12",
            "pkcs12 -export -inkey server.key -in server.crt",
        ),
        (
            "legacy.pfx",
            "pkcs12 -export -legacy -inkey server.key -in server.crt",
        ),
    ] {
        let mut arguments: Vec<&str> = how.split(' ').collect();
        arguments.extend(["-out", name, "-passout", &out]);
        run(site.path(), "openssl", &arguments).expect_ok();
    }
    (site, pki)
}

fn server(lines: &str) -> String {
    format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {lines}\n\
         location / {{ return 200 served; }} }}"
    )
}

#[test]
fn sealed_keys_and_stores_serve_clients() {
    for lines in [
        "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/sealed.key;",
        "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/traditional.key;",
        "ssl_certificate @DIR@/store.p12;",
        "ssl_certificate @DIR@/store.p12; ssl_certificate_key @DIR@/store.p12;",
        "ssl_certificate @DIR@/legacy.pfx;",
    ] {
        let (site, pki) = site();
        let text = format!("ssl_password_file @DIR@/pass;\n{}", server(lines));
        let ringwall = site.start(&http(&text));
        let client = TlsClient::new(&pki.ca);
        let answer = client.get(ringwall.address("TLS"), HOST, "/");
        assert_eq!(answer.expect("answered").text(), "served", "{lines}");
    }
}

#[test]
fn a_store_made_by_javas_keytool_serves_clients() {
    let (mut site, _) = Site::with_pki();
    site.write("pass", "changeit");
    let arguments = "-genkeypair -alias web -keyalg RSA -dname CN=test.example -ext SAN=dns:test.example \
                     -storetype PKCS12 -storepass changeit -keystore store.p12";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    run(site.path(), "keytool", &arguments).expect_ok();
    let text = server("ssl_certificate @DIR@/store.p12; ssl_password_file @DIR@/pass;");
    let ringwall = site.start(&http(&text));
    let client = TlsClient::trusting(None);
    let answer = client.get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(answer.expect("answered").text(), "served");
}

#[test]
fn private_keys_and_passphrases_are_never_logged() {
    let (mut site, _) = site();
    site.write("wrong", "not-this-one\nnor-that");
    let key = site.read("server.key");
    let secrets: Vec<String> = key
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::to_owned)
        .chain([PASSPHRASE, "not-this-one", "nor-that"].map(str::to_owned))
        .collect();
    let plain = "ssl_certificate @DIR@/server.crt; ssl_certificate_key";
    for (lines, complaint) in [
        (
            format!("{plain} @DIR@/sealed.key; ssl_password_file @DIR@/wrong;"),
            "sealed.key\": none of the passphrases in",
        ),
        (
            format!("{plain} @DIR@/traditional.key;"),
            "traditional.key\": the key is encrypted, and no file with its passphrase is given",
        ),
        (
            "ssl_certificate @DIR@/store.p12; ssl_password_file @DIR@/wrong;".to_owned(),
            "cannot load certificate \"",
        ),
        (
            "ssl_certificate @DIR@/server.crt;".to_owned(),
            "no \"ssl_certificate_key\" is defined for certificate",
        ),
        (
            "ssl_certificate @DIR@/store.p12; ssl_password_file @DIR@/none;".to_owned(),
            "none\": No such file or directory",
        ),
    ] {
        let outcome = site.check(&http(&server(&lines)));
        assert!(!outcome.ok(), "{lines}: {outcome:?}");
        assert!(outcome.stderr.contains(complaint), "{outcome:?}");
        assert!(outcome.stderr.contains("ringwall.conf:"), "{outcome:?}");
        let said = outcome.stdout + &outcome.stderr + &site.read("logs/error.log");
        let said = said + &site.read("error.log");
        for secret in &secrets {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn a_reload_with_a_wrong_passphrase_leaves_the_old_state() {
    let (site, pki) = site();
    let text = server(
        "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/sealed.key;\n\
         ssl_password_file @DIR@/pass;",
    );
    let mut ringwall = site.start(&http(&text));
    ringwall.site.write("pass", "changed-too-soon\n");
    ringwall.reload();
    ringwall.complaint_with(&[
        "does not open it in",
        "the old configuration stays in force",
    ]);
    assert!(!ringwall.complaints().contains("changed-too-soon"));
    let answer = TlsClient::new(&pki.ca).get(ringwall.address("TLS"), HOST, "/");
    assert_eq!(answer.expect("answered").text(), "served");
}

#[test]
fn keys_never_reach_a_core_dump() {
    // Of what is dumped, where anything is: /proc/PID/coredump_filter.
    const NO_MEMORY: &str = "00000010";
    const MEMORY: &str = "00000033";
    for (main, limit, filter) in [
        ("", "1 ", NO_MEMORY),
        ("core_dump_memory on;", "1 ", NO_MEMORY),
        ("worker_rlimit_core 500m;", "524288000 ", NO_MEMORY),
        (
            "worker_rlimit_core 500m; core_dump_memory on;",
            "524288000 ",
            MEMORY,
        ),
    ] {
        let (site, pki) = Site::with_pki();
        let content = format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} return 204; }}"
        );
        let mut ringwall = site.start(&whole(
            &format!("worker_processes 1; landlock off; {main}"),
            "",
            &content,
        ));
        let answer = TlsClient::new(&pki.ca).get(ringwall.address("TLS"), HOST, "/");
        assert_eq!(answer.expect("answered").status, 204);
        let of_process = |file: &str| {
            fs::read_to_string(format!("/proc/{}/{file}", ringwall.pid())).expect("it runs")
        };
        let limits = of_process("limits");
        let mut lines = limits.lines();
        let line = lines.find_map(|line| line.strip_prefix("Max core file size"));
        let line = line.expect("Linux").trim_start();
        assert!(line.starts_with(limit), "{main}: {line}");
        assert_eq!(of_process("coredump_filter").trim(), filter, "{main}");
        let worker = worker_of(&ringwall);
        send_signal(worker, Signal::ABORT);
        let status = ringwall.wait();
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
        if limit == "1 " {
            assert!(!status.core_dumped());
        }
        let cores = fs::read_dir(ringwall.site.path()).expect("ours");
        let core = cores
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"core"))
            });
        // Some systems hand cores to a program.
        let Some(core) = core else { continue };
        let key = ringwall.site.file("server.key");
        let arguments = [&core, &key].map(|path| path.to_str().expect("UTF-8"));
        let holds = |arguments: &[&str]| {
            let python = python("python3");
            let said = run(
                ringwall.site.path(),
                &python,
                &[&["-c", SEARCH], arguments].concat(),
            );
            said.expect_ok().trim() == "True"
        };
        assert_eq!(holds(&arguments), filter == MEMORY, "{main}");
    }
}

/// Whether a file with holes has the secret of a P-256 key in it: what is behind
/// `02 01 01 04 20` (RFC 5915), in either order of bytes.
const SEARCH: &str = r#"
import base64, os, sys
core, key = sys.argv[1:]
lines = open(key).read().splitlines()
der = base64.b64decode("".join(line for line in lines if "-" not in line))
start = der.index(bytes([2, 1, 1, 4, 32])) + 5
secret = der[start:start + 32]
file = os.open(core, os.O_RDONLY)
end, at, found = os.fstat(file).st_size, 0, False
while at < end:
    try:
        at = os.lseek(file, at, os.SEEK_DATA)
    except OSError:
        break
    hole = os.lseek(file, at, os.SEEK_HOLE)
    data = os.pread(file, hole - at, at)
    found |= secret in data or secret[::-1] in data
    at = hole
print(found)
"#;

/// The thread number of the only worker.
fn worker_of(ringwall: &Ringwall) -> u32 {
    let tasks = fs::read_dir(format!("/proc/{}/task", ringwall.pid())).expect("it runs");
    let worker = tasks.filter_map(Result::ok).find(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "worker 0")
    });
    let worker = worker.expect("there is a worker").file_name();
    worker
        .to_str()
        .and_then(|number| number.parse().ok())
        .expect("a number")
}
