//! The mutual-TLS guide that operators follow, word for word: certificates by
//! plain `openssl` (RSA, version 1, a CN and no SAN), the configuration with
//! its comments in Korean, a Python backend on IPv4, `curl` in front.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::client::{Connection, TlsClient, tcp};
use crate::support::origin::Origin;
use crate::support::pki::{Identity, OpenSsl};
use crate::support::ringwall::{Daemon, Site};
use crate::support::tools::{self, Background, Outcome};
use crate::support::{eventually, free_port, local};

const NAME: &str = "test.woorifisa.site";

/// The guide's file; only ports and the directory are this test's.
const GUIDE: &str = "\
worker_processes auto;  # CPU 코어 수에 맞춤
pid @DIR@/ringwall.pid;

events {
    worker_connections 1024;  # 워커당 최대 연결 수
}

http {
    # SSL 세션 캐시 설정
    ssl_session_cache shared:SSL:10m;  # 세션 캐시 (약 40,000개)
    ssl_session_timeout 10m;           # 세션 유지 시간

    server {
        listen @TLS@ ssl;  # HTTPS 포트
        server_name test.woorifisa.site;  # 서버 이름

        ssl_certificate     @DIR@/certs/server.crt;  # 서버 인증서
        ssl_certificate_key @DIR@/certs/server.key;  # 서버 개인키

        # 클라이언트 인증서 검증 (mTLS)
        ssl_client_certificate @DIR@/certs/ca.crt;  # CA 인증서
        ssl_verify_client on;  # 클라이언트 인증 필수

        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers HIGH:!aNULL:!MD5;

        access_log @DIR@/access.log;  # 접근 로그
        error_log  @DIR@/error.log;   # 오류 로그

        location / {
            proxy_pass http://localhost:@BACKEND@;  # 백엔드 서버
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }
    }
}
";

/// The guide's certificates, and a stranger's under a CA of his own.
fn certificates(site: &Site) {
    let dir = site.file("certs");
    std::fs::create_dir(&dir).expect("a fresh directory");
    let openssl = OpenSsl::in_dir(&dir);
    openssl.authority("ca", "TestCA");
    openssl.leaf("server", NAME, "ca");
    openssl.leaf("client", "client.woorifisa.site", "ca");
    openssl.authority("other-ca", "OtherCA");
    openssl.leaf("stranger", "stranger.example", "other-ca");
}

fn curl(site: &Site, port: u16, more: &[&str]) -> Outcome {
    let resolve = format!("{NAME}:{port}:127.0.0.1");
    let url = format!("https://{NAME}:{port}/");
    let mut arguments = vec![
        "-sS",
        "--max-time",
        "20",
        "--cacert",
        "certs/ca.crt",
        "--resolve",
        &resolve,
    ];
    arguments.extend(more);
    arguments.push(&url);
    tools::run(site.path(), "curl", &arguments)
}

const WITH_CERTIFICATE: &[&str] = &["--cert", "certs/client.crt", "--key", "certs/client.key"];

#[test]
fn the_guide_works_to_the_letter() {
    let mut site = Site::new();
    certificates(&site);
    let version = tools::shell(
        site.path(),
        "openssl x509 -in certs/server.crt -noout -text",
    );
    assert!(version.stdout.contains("Version: 1 (0x0)"), "{version:?}");

    let backend_port = site.port("BACKEND");
    let script = site.write(
        "app.py",
        "from flask import Flask, request\n\
         app = Flask(__name__)\n\
         @app.route('/')\n\
         def home():\n\
         \x20   h = request.headers\n\
         \x20   return f\"mTLS OK {h['Host']} {h['X-Real-IP']} {h['X-Forwarded-For']} {h['X-Forwarded-Proto']}\"\n\
         app.run(host='127.0.0.1', port=@BACKEND@)\n",
    );
    let script = script.to_str().expect("UTF-8").to_owned();
    let _backend = Background::start(site.path(), &tools::python("python3"), &[&script]);
    eventually("the backend listens", || {
        tcp(local(backend_port)).ok().map(drop)
    });

    // ringwall -t
    site.write("ringwall.conf", GUIDE);
    let file = site.file("ringwall.conf");
    let outcome = site.command(&["-t", "-c", "@DIR@/ringwall.conf"]);
    assert!(outcome.ok(), "{outcome:?}");
    assert!(
        outcome.stderr.contains(&format!(
            "ringwall: the configuration file {} syntax is ok\n",
            file.display()
        )) && outcome.stderr.contains(&format!(
            "ringwall: configuration file {} test is successful\n",
            file.display()
        )),
        "{outcome:?}"
    );

    // ringwall, in the background; a second one finds the port taken.
    let outcome = site.command(&["-c", "@DIR@/ringwall.conf"]);
    assert!(outcome.ok(), "{outcome:?}");
    let port = site.port("TLS");
    let daemon = Daemon::from_pid_file(&site.file("ringwall.pid"));
    eventually("it listens", || tcp(local(port)).ok().map(drop));
    let second = site.command(&["-c", "@DIR@/ringwall.conf"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(
        second.stderr.contains(&format!(
            "ringwall: [emerg] bind() to 0.0.0.0:{port} failed (98: Address already in use)"
        )),
        "{second:?}"
    );
    assert_eq!(
        site.read("ringwall.pid").trim(),
        daemon.pid().to_string(),
        "the second start leaves the first one's pid file alone"
    );

    // curl, as the guide calls it.
    let body = curl(&site, port, WITH_CERTIFICATE).expect_ok();
    assert_eq!(body, format!("mTLS OK {NAME} 127.0.0.1 127.0.0.1 https"));

    let line = eventually("the access log has its line", || {
        site.read("access.log")
            .lines()
            .find(|line| line.contains("curl/"))
            .map(str::to_owned)
    });
    let combined = regex::Regex::new(&format!(
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{{2}}/\d{{4}}:\d\d:\d\d:\d\d [+-]\d{{4}}\] "GET / HTTP/1\.1" 200 {} "-" "curl/[0-9.]+"$"#,
        body.len()
    ))
    .expect("a pattern");
    assert!(combined.is_match(&line), "{line}");
}

#[test]
fn without_the_right_certificate_curl_is_refused_and_no_byte_reaches_the_backend() {
    let origin = Origin::hello();
    let site = Site::new();
    certificates(&site);
    let ringwall = site.start(&GUIDE.replace("@BACKEND@", &origin.port().to_string()));
    let port = ringwall.address("TLS").port();
    for (name, arguments) in [
        ("no certificate", [].as_slice()),
        (
            "another CA's",
            &[
                "--cert",
                "certs/stranger.crt",
                "--key",
                "certs/stranger.key",
            ],
        ),
        ("no certificate, TLS 1.2", &["--tls-max", "1.2"]),
        (
            "another CA's, TLS 1.2",
            &[
                "--tls-max",
                "1.2",
                "--cert",
                "certs/stranger.crt",
                "--key",
                "certs/stranger.key",
            ],
        ),
    ] {
        let outcome = curl(&ringwall.site, port, arguments);
        assert!(
            !outcome.ok() && outcome.stdout.is_empty(),
            "{name}: {outcome:?}"
        );
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(
        curl(&ringwall.site, port, WITH_CERTIFICATE).expect_ok(),
        "hello"
    );
    assert_eq!(origin.requests(), 1);

    // Who was refused and why, at the guide's own level.
    let line = ringwall.complaint_with(&["stranger.example"]);
    assert!(
        line.contains("client: 127.0.0.1") && line.contains(NAME),
        "{line}"
    );
    eventually("the missing certificate is logged", || {
        ringwall
            .complaints()
            .lines()
            .any(|l| l.contains("client: 127.0.0.1") && l.contains(NAME) && !l.contains("CN="))
            .then_some(())
    });
}

/// What the clients of a load saw.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicUsize,
}

#[test]
fn certificates_are_replaced_under_load_and_not_one_request_fails() {
    let origin = Origin::hello();
    let site = Site::new();
    certificates(&site);
    let mut ringwall = site.start(&GUIDE.replace("@BACKEND@", &origin.port().to_string()));
    let certs = ringwall.site.file("certs");
    let identity = Identity::read(&certs, "client");
    let address = ringwall.address("TLS");
    let load = Arc::new(Load::default());
    let clients: Vec<_> = [true, false, true]
        .into_iter()
        .map(|keep| {
            let load = Arc::clone(&load);
            let client = TlsClient::trusting(Some(&identity));
            std::thread::spawn(move || {
                let connect = || client.connect(address, NAME).expect("a handshake");
                let mut connection: Connection = connect();
                while !load.stop.load(Ordering::SeqCst) {
                    let response = connection.get(NAME, "/");
                    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
                    load.served.fetch_add(1, Ordering::SeqCst);
                    if !keep || response.says_close() {
                        connection = connect();
                    }
                }
            })
        })
        .collect();
    let goes_on = || {
        let before = load.served.load(Ordering::SeqCst);
        eventually("the load goes on", || {
            (load.served.load(Ordering::SeqCst) > before + 30).then_some(())
        });
    };
    let fresh = TlsClient::trusting(Some(&identity)).without_sessions();
    let shown = || {
        fresh
            .connect(address, NAME)
            .expect("a handshake")
            .server_certificate()
    };
    goes_on();

    let openssl = OpenSsl::in_dir(&certs);
    for _ in 0..3 {
        openssl.leaf("server", NAME, "ca");
        let renewed = Identity::read(&certs, "server").chain().remove(0);
        assert_ne!(shown(), renewed);
        ringwall.reload();
        eventually("new connections get the new certificate", || {
            (shown() == renewed).then_some(())
        });
        goes_on();
    }

    let good = Identity::read(&certs, "server");
    let current = good.chain().remove(0);
    std::fs::write(certs.join("server.crt"), "not a certificate").expect("writable");
    ringwall.reload();
    ringwall.complaint_with(&["[emerg]", "certs/server.crt"]);
    assert_eq!(shown(), current);
    goes_on();

    good.write(&certs, "server");
    let port = origin.port().to_string();
    ringwall.rewrite(
        &GUIDE
            .replace("@BACKEND@", &port)
            .replace("ssl_protocols", "ssl_protokols"),
    );
    ringwall.reload();
    ringwall.complaint_with(&[
        "[emerg]",
        "unknown directive \"ssl_protokols\"",
        "ringwall.conf:",
    ]);
    assert_eq!(shown(), current);
    goes_on();

    load.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("every request was served");
    }
    assert!(ringwall.is_running());
}

#[test]
fn a_backend_that_is_down_is_a_502_to_curl() {
    let site = Site::new();
    certificates(&site);
    let ringwall = site.start(&GUIDE.replace("@BACKEND@", &free_port().to_string()));
    let port = ringwall.address("TLS").port();
    let mut arguments = WITH_CERTIFICATE.to_vec();
    arguments.extend(["-o", "/dev/null", "-w", "%{http_code}"]);
    assert_eq!(curl(&ringwall.site, port, &arguments).expect_ok(), "502");
}
