//! Driven as Nginx is: the same flags, the same signals, the same messages,
//! the same exit codes.

use std::process::Command;

use rustix::process::Signal;

use crate::support::client::{Connection, tcp};
use crate::support::eventually;
use crate::support::origin::{Origin, ok};
use crate::support::pki::Authority;
use crate::support::ringwall::{
    CERTIFICATES, Daemon, HOST, MUTUAL, Site, binary, http, is_listening, is_running, plain_proxy,
    whole,
};

const HELLO: &str = "server { listen 127.0.0.1:@HTTP@; location / { return 200 hello; } }";

#[test]
fn a_good_configuration_is_called_good() {
    let (mut site, _) = Site::with_pki();
    let outcome = site.check(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         location / {{ proxy_pass http://127.0.0.1:1; }} }}"
    )));
    let file = site.file("ringwall.conf");
    let file = file.display();
    assert!(outcome.ok(), "{outcome:?}");
    assert!(
        outcome.stderr.contains(&format!(
            "ringwall: the configuration file {file} syntax is ok\n"
        )),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains(&format!(
            "ringwall: configuration file {file} test is successful\n"
        )),
        "{outcome:?}"
    );
    assert!(!site.file("ringwall.pid").exists(), "-t starts nothing");

    let quiet = site.command(&["-t", "-q", "-p", "@DIR@", "-c", "@DIR@/ringwall.conf"]);
    assert!(quiet.ok(), "{quiet:?}");
    assert_eq!(quiet.stdout + &quiet.stderr, "");
}

#[test]
fn a_test_does_not_bind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let outcome = Site::new().check(&http(&format!("server {{ listen 127.0.0.1:{port}; }}")));
    assert!(outcome.ok(), "{outcome:?}");
}

/// The line of [`http`]'s configuration that its content starts on.
const CONTENT_LINE: u32 = 7;

#[test]
fn every_refusal_of_a_configuration_names_file_and_line() {
    // (content of http, line within it, part of the message)
    let cases: &[(&str, u32, &str)] = &[
        ("server {\nfoo on;\n}", 1, "unknown directive \"foo\""),
        ("server {\nlisten 127.0.0.1:80\n}", 2, "unexpected \"}\""),
        ("listen 80;", 0, "\"listen\" directive is not allowed here"),
        (
            "server {\nupstream x { }\n}",
            1,
            "\"upstream\" directive is not allowed here",
        ),
        (
            "server {\nlisten;\n}",
            1,
            "invalid number of arguments in \"listen\" directive",
        ),
        ("server {\nlisten 127.0.0.1:0;\n}", 1, "127.0.0.1:0"),
        ("server {\nlisten 127.0.0.1:99999;\n}", 1, "127.0.0.1:99999"),
        ("server {\nlisten 127.0.0.1:80 nonsense;\n}", 1, "nonsense"),
        (
            "keepalive_timeout 1s;\nkeepalive_timeout 2s;",
            1,
            "\"keepalive_timeout\" directive is duplicate",
        ),
        ("\nkeepalive_timeout soon;", 1, "keepalive_timeout"),
        ("client_max_body_size 1x;", 0, "client_max_body_size"),
        (
            "access_log @DIR@/x.log nosuch;",
            0,
            "unknown log format \"nosuch\"",
        ),
        ("log_format x '$nosuchvariable';", 0, "nosuchvariable"),
        ("include @DIR@/nosuchfile;", 0, "nosuchfile"),
        (
            "server {\nlocation / {\nproxy_pass http://upstream.invalid;\n}\n}",
            2,
            "host not found in upstream \"upstream.invalid\"",
        ),
        (
            "server {\nlocation / {\nproxy_pass 127.0.0.1:80;\n}\n}",
            2,
            "invalid URL prefix",
        ),
        (
            "server {\nlocation / {\nproxy_set_header X $nosuchvariable;\n}\n}",
            2,
            "nosuchvariable",
        ),
        (
            "server {\nlocation ~ ^/x {\nproxy_pass http://127.0.0.1/uri;\n}\n}",
            2,
            "\"proxy_pass\" cannot have URI part in location given by regular expression",
        ),
        ("server {\nlocation ~ ( {\n}\n}", 1, "("),
        (
            "server {\nlocation / {\n}\nlocation / {\n}\n}",
            3,
            "duplicate location \"/\"",
        ),
        ("upstream u {\n}", 0, "no servers are inside upstream"),
        (
            "upstream u {\nserver 127.0.0.1:1 weight=x;\n}",
            1,
            "weight=x",
        ),
        (
            "upstream u { server 127.0.0.1:1; }\nupstream u { server 127.0.0.1:1; }",
            1,
            "duplicate upstream \"u\"",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\n}",
            0,
            "no \"ssl_certificate\" is defined",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/nosuch.crt;\nssl_certificate_key @DIR@/server.key;\n}",
            2,
            "nosuch.crt",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/server.crt;\nssl_certificate_key @DIR@/nosuch.key;\n}",
            3,
            "nosuch.key",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/server.crt;\nssl_certificate_key @DIR@/client.key;\n}",
            3,
            "client.key",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/server.key;\nssl_certificate_key @DIR@/server.key;\n}",
            2,
            "server.key",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/server.crt;\nssl_certificate_key @DIR@/server.key;\nssl_verify_client on;\n}",
            4,
            "for ssl_verify_client",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/server.crt;\nssl_certificate_key @DIR@/server.key;\nssl_verify_client on;\nssl_client_certificate @DIR@/empty.crt;\n}",
            5,
            "empty.crt",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/server.crt;\nssl_certificate_key @DIR@/server.key;\nssl_ciphers NOSUCHCIPHER;\n}",
            4,
            "NOSUCHCIPHER",
        ),
        (
            "server {\nlisten 127.0.0.1:1 ssl;\nssl_certificate @DIR@/server.crt;\nssl_certificate_key @DIR@/server.key;\nssl_protocols TLSv9;\n}",
            4,
            "TLSv9",
        ),
        (
            "server {\nlocation / {\nfastcgi_pass 127.0.0.1:1;\n}\n}",
            2,
            "fastcgi_pass",
        ),
        ("proxy_cache zone;", 0, "proxy_cache"),
    ];
    let (mut site, _) = Site::with_pki();
    site.write("empty.crt", "");
    let mut wrong = Vec::new();
    for (content, line, message) in cases {
        let outcome = site.check(&http(content));
        let place = format!(
            "{}:{}",
            site.file("ringwall.conf").display(),
            CONTENT_LINE + line
        );
        let named = outcome
            .stderr
            .lines()
            .any(|l| l.contains("[emerg]") && l.contains(message) && l.contains(&place));
        let failed = format!(
            "configuration file {} test failed",
            site.file("ringwall.conf").display()
        );
        if outcome.code != Some(1) || !named || !outcome.stderr.contains(&failed) {
            wrong.push(format!(
                "{content:?}\n  expected {message:?} at {place}\n  {outcome:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn syntax_errors_are_named_as_nginx_names_them() {
    let cases: &[(&str, &str)] = &[
        (
            "events {",
            "unexpected end of file, expecting \"}\" in FILE:1",
        ),
        ("events { }\n}", "unexpected \"}\" in FILE:2"),
        (
            "events { }\nhttp;",
            "directive \"http\" has no opening \"{\" in FILE:2",
        ),
        (
            "events { }\nworker_processes 1",
            "unexpected end of file, expecting \";\" or \"}\" in FILE:2",
        ),
        (
            "events { }\nworker_processes 1 {\n}",
            "directive \"worker_processes\" is not terminated by \";\" in FILE:2",
        ),
        ("events { }\npid \"x", "unexpected end of file"),
        ("http { }", "no \"events\" section in configuration"),
        ("events { }\nworker_processes 0;", "FILE:2"),
        (
            "events { use nosuch; }",
            "invalid event type \"nosuch\" in FILE:1",
        ),
        ("events { }\n;", "unexpected \";\" in FILE:2"),
    ];
    let mut site = Site::new();
    let mut wrong = Vec::new();
    for (text, message) in cases {
        let outcome = site.check(text);
        let message = message.replace("FILE", &site.file("ringwall.conf").display().to_string());
        if outcome.ok() || !outcome.stderr.contains(&message) {
            wrong.push(format!("{text:?}: expected {message:?}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_included_file_is_named_in_its_errors() {
    let mut site = Site::new();
    site.write("good.inc", "server { listen 127.0.0.1:1; }\n");
    site.write("more.inc", "# 주석\n\nserver { bogus; }\n");
    let outcome = site.check(&http("include @DIR@/*.inc;"));
    let place = format!(
        "unknown directive \"bogus\" in {}:3",
        site.file("more.inc").display()
    );
    assert!(outcome.stderr.contains(&place), "{outcome:?}");
}

#[test]
fn directives_without_effect_are_accepted_and_said_once() {
    let outcome = Site::new().check(&http(
        "sendfile on; tcp_nopush on;\nserver_names_hash_bucket_size 64;\nserver { listen 127.0.0.1:1; }",
    ));
    assert!(outcome.ok(), "{outcome:?}");
}

#[test]
fn a_dump_shows_every_file_behind_the_verdict() {
    let mut site = Site::new();
    let included = site.write("part.inc", "server { listen 127.0.0.1:1; } # 한국어\n");
    let main = site.write("ringwall.conf", &http("include part.inc;"));
    let outcome = site.command(&["-T", "-p", "@DIR@", "-c", "@DIR@/ringwall.conf"]);
    assert!(outcome.ok(), "{outcome:?}");
    for file in [main, included] {
        assert!(
            outcome
                .stdout
                .contains(&format!("# configuration file {}:\n", file.display())),
            "{outcome:?}"
        );
    }
    assert!(outcome.stdout.contains("# 한국어"), "{outcome:?}");
}

#[test]
fn versions_and_help_are_told() {
    let mut site = Site::new();
    let outcome = site.command(&["-v"]);
    assert!(outcome.ok(), "{outcome:?}");
    assert!(
        outcome.stderr.starts_with("ringwall version: ringwall/"),
        "{outcome:?}"
    );
    let outcome = site.command(&["-V"]);
    assert!(
        outcome.stderr.starts_with("ringwall version: ringwall/"),
        "{outcome:?}"
    );
    for word in ["rustls", "aws-lc", "io_uring"] {
        assert!(
            outcome.stderr.to_lowercase().contains(word),
            "{word}: {outcome:?}"
        );
    }
    for flag in ["-h", "-?"] {
        let outcome = site.command(&[flag]);
        assert!(outcome.ok(), "{flag}: {outcome:?}");
        let said = outcome.stdout + &outcome.stderr;
        for option in ["-t", "-T", "-q", "-s", "-p", "-e", "-c", "-g", "demo"] {
            assert!(said.contains(option), "{flag} lacks {option}: {said}");
        }
    }
    let outcome = site.command(&["-x"]);
    assert!(!outcome.ok(), "{outcome:?}");
    let outcome = site.command(&["-s", "nonsense"]);
    assert!(!outcome.ok(), "{outcome:?}");
}

#[test]
fn the_directive_reference_comes_from_the_program() {
    let outcome = Site::new().command(&["--directives"]);
    let reference = outcome.expect_ok();
    for name in [
        "worker_processes",
        "listen",
        "proxy_pass",
        "ssl_verify_client",
        "sendfile",
        "fastcgi_pass",
    ] {
        assert!(reference.contains(name), "{name} in {reference}");
    }
}

#[test]
fn global_directives_are_merged_as_main_context() {
    let mut site = Site::new();
    site.write("ringwall.conf", "events { }\n");
    let test = |site: &mut Site, globals: &str| {
        site.command(&[
            "-t",
            "-p",
            "@DIR@",
            "-c",
            "@DIR@/ringwall.conf",
            "-g",
            globals,
        ])
    };
    let outcome = test(&mut site, "worker_processes 2; pid @DIR@/g.pid;");
    assert!(outcome.ok(), "{outcome:?}");
    let outcome = test(&mut site, "nonsense on;");
    assert!(
        outcome
            .stderr
            .contains("unknown directive \"nonsense\" in command line"),
        "{outcome:?}"
    );
    site.write("ringwall.conf", "pid x.pid;\nevents { }\n");
    let outcome = test(&mut site, "pid y.pid;");
    assert!(
        outcome.stderr.contains("\"pid\" directive is duplicate"),
        "{outcome:?}"
    );
}

#[test]
fn relative_paths_are_against_the_prefix() {
    let (site, _) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "error_log prefix-error.log info; access_log prefix-access.log;\n\
         server {{ listen 127.0.0.1:@HTTP@; listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         ssl_certificate server.crt; ssl_certificate_key server.key; return 200 hello; }}"
    )));
    assert_eq!(
        Connection::plain(ringwall.address("HTTP"))
            .get("a", "/x")
            .text(),
        "hello"
    );
    eventually("the log is in the prefix", || {
        ringwall
            .site
            .read("prefix-access.log")
            .contains("GET /x")
            .then_some(())
    });
}

#[test]
fn the_early_error_log_is_where_e_says() {
    let mut site = Site::new();
    site.write(
        "ringwall.conf",
        "pid @DIR@/x.pid; events { }\nhttp { nonsense; }\n",
    );
    let outcome = site.command(&[
        "-p",
        "@DIR@",
        "-e",
        "@DIR@/early.log",
        "-c",
        "@DIR@/ringwall.conf",
    ]);
    assert!(!outcome.ok(), "{outcome:?}");
    assert!(
        site.read("early.log")
            .contains("unknown directive \"nonsense\""),
        "{outcome:?}"
    );
}

#[test]
fn a_missing_configuration_file_is_named() {
    let mut site = Site::new();
    let outcome = site.command(&["-t", "-c", "@DIR@/nosuch.conf"]);
    assert!(!outcome.ok());
    assert!(
        outcome.stderr.contains("nosuch.conf")
            && outcome.stderr.contains("No such file or directory"),
        "{outcome:?}"
    );
}

#[test]
fn a_second_start_on_a_busy_port_fails_as_nginx_does() {
    let ringwall = Site::new().start(&http(HELLO));
    let port = ringwall.address("HTTP").port();
    let mut second = Site::new();
    second.write(
        "ringwall.conf",
        &http(&HELLO.replace("@HTTP@", &port.to_string())),
    );
    for globals in ["daemon on;", "daemon off;"] {
        let outcome = second.command(&["-p", "@DIR@", "-c", "@DIR@/ringwall.conf", "-g", globals]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(
            outcome.stderr.contains(&format!(
                "ringwall: [emerg] bind() to 127.0.0.1:{port} failed (98: Address already in use)"
            )),
            "{outcome:?}"
        );
    }
    assert_eq!(
        Connection::plain(ringwall.address("HTTP"))
            .get("a", "/")
            .text(),
        "hello"
    );
}

#[test]
fn it_starts_in_the_background_and_obeys_s() {
    let mut site = Site::new();
    site.write("ringwall.conf", &http(HELLO));
    let start = ["-p", "@DIR@", "-c", "@DIR@/ringwall.conf"];
    let signal = |site: &mut Site, signal: &str| {
        let mut arguments = start.to_vec();
        arguments.extend(["-s", signal]);
        site.command(&arguments)
    };
    let outcome = signal(&mut site, "reload");
    assert!(!outcome.ok(), "nothing runs yet: {outcome:?}");
    assert!(outcome.stderr.contains("ringwall.pid"), "{outcome:?}");

    for last in ["quit", "stop"] {
        let outcome = site.command(&start);
        assert!(outcome.ok(), "{outcome:?}");
        let daemon = Daemon::from_pid_file(&site.file("ringwall.pid"));
        let address = crate::support::local(site.port("HTTP"));
        eventually("the daemon serves", || tcp(address).ok().map(drop));
        assert_eq!(Connection::plain(address).get("a", "/").text(), "hello");
        assert!(is_daemon(daemon.pid()), "it has a session of its own");

        site.write("ringwall.conf", &http(&HELLO.replace("hello", "reloaded")));
        assert!(signal(&mut site, "reload").ok());
        eventually("-s reload has reloaded", || {
            (Connection::plain(address).get("a", "/").text() == "reloaded").then_some(())
        });
        std::fs::rename(site.file("access.log"), site.file("moved.log")).expect("renamed");
        assert!(signal(&mut site, "reopen").ok());
        eventually("-s reopen has reopened", || {
            site.file("access.log").exists().then_some(())
        });
        assert!(signal(&mut site, last).ok());
        eventually("the daemon has ended", || {
            (!is_running(daemon.pid())).then_some(())
        });
        eventually("its pid file is gone", || {
            (!site.file("ringwall.pid").exists()).then_some(())
        });
        // The kernel ends rings, and what they hold, a moment after the process.
        let port = site.port("HTTP");
        eventually("its port is free", || (!is_listening(port)).then_some(()));
        site.write("ringwall.conf", &http(HELLO));
    }
}

/// Whether a process leads, or lives in, a session without a terminal.
fn is_daemon(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(')').expect("a command in brackets");
    // Behind the state: ppid, pgrp, session, tty_nr (proc(5)).
    rest.split_whitespace().nth(4) == Some("0")
}

#[test]
fn sigquit_lets_the_request_in_flight_finish() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::http(move |_| {
        // An error means that the test has failed already.
        let _ = wait.lock().expect("not poisoned").recv();
        ok("late but whole")
    });
    let mut ringwall = Site::new().start(&plain_proxy(&origin.url()));
    let address = ringwall.address("HTTP");
    let mut idle = Connection::plain(address);
    go.send(()).expect("the backend waits");
    assert_eq!(idle.get("a", "/").status, 200);
    let mut busy = Connection::plain(address);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the backend has the request", || {
        (origin.requests() == 2).then_some(())
    });
    ringwall.signal(Signal::QUIT);
    eventually("nobody listens any longer", || {
        (!is_listening(address.port())).then_some(())
    });
    assert!(tcp(address).is_err());
    idle.expect_close("an idle connection in a drain");
    assert!(ringwall.is_running());
    go.send(()).expect("the backend waits");
    let response = busy.response("GET");
    assert_eq!(response.text(), "late but whole");
    busy.expect_close("the last response of a drain");
    assert!(ringwall.wait().success());
    assert!(!ringwall.site.file("ringwall.pid").exists());
}

#[test]
fn sigterm_and_sigint_stop_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let origin = Origin::script(|peer| {
            peer.request()?;
            peer.hang()
        });
        let mut ringwall = Site::new().start(&plain_proxy(&origin.url()));
        let mut busy = Connection::plain(ringwall.address("HTTP"));
        busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the backend has the request", || {
            (origin.requests() == 1).then_some(())
        });
        ringwall.signal(signal);
        assert!(ringwall.wait().success());
        assert!(!ringwall.site.file("ringwall.pid").exists());
        assert!(busy.remains().is_empty());
    }
}

#[test]
fn without_a_master_process_it_serves_all_the_same() {
    let ringwall = Site::new().start(&whole("worker_processes 2; master_process off;", "", HELLO));
    assert_eq!(
        Connection::plain(ringwall.address("HTTP"))
            .get("a", "/")
            .text(),
        "hello"
    );
}

#[test]
fn worker_processes_auto_uses_the_cores_there_are() {
    let ringwall = Site::new().start(&whole("worker_processes auto;", "", HELLO));
    let address = ringwall.address("HTTP");
    for _ in 0..20 {
        assert_eq!(Connection::plain(address).get("a", "/").text(), "hello");
    }
    let cores = std::thread::available_parallelism().expect("Linux").get() as u64;
    assert!(
        ringwall.threads() >= cores,
        "{} threads",
        ringwall.threads()
    );
}

#[test]
fn reuseport_serves_on_every_worker() {
    let ringwall = Site::new().start(&whole(
        "worker_processes 2;",
        "",
        &HELLO.replace("@HTTP@", "@HTTP@ reuseport backlog=1024"),
    ));
    for _ in 0..50 {
        assert_eq!(
            Connection::plain(ringwall.address("HTTP"))
                .get("a", "/")
                .text(),
            "hello"
        );
    }
}

#[test]
fn certificates_about_to_expire_are_warned_of_at_t() {
    let (mut site, pki) = Site::with_pki();
    let soon = time::OffsetDateTime::now_utc() + time::Duration::days(5);
    pki.ca
        .client_with(HOST, |p| p.not_after = soon)
        .write(site.path(), "server");
    let outcome = site.check(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} }}"
    )));
    assert!(outcome.ok(), "{outcome:?}");
    assert!(
        outcome.stderr.lines().any(|line| line.contains("[warn]")
            && line.contains("server.crt")
            && line.contains("expire")),
        "{outcome:?}"
    );
}

#[test]
fn a_key_that_anyone_may_read_is_warned_of_at_t() {
    use std::os::unix::fs::PermissionsExt;
    let (mut site, _) = Site::with_pki();
    let warned = |site: &mut Site, mode| {
        let key = site.file("server.key");
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(mode)).expect("our file");
        let outcome = site.check(&http(&format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} }}"
        )));
        assert!(outcome.ok(), "{outcome:?}");
        outcome
            .stderr
            .lines()
            .any(|line| line.contains("[warn]") && line.contains("server.key"))
    };
    assert!(warned(&mut site, 0o644));
    assert!(!warned(&mut site, 0o640));
}

#[test]
fn a_private_key_never_reaches_output_or_logs() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "error_log @DIR@/debug.log debug;\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL} return 200 x; }}"
    )));
    let broken = Authority::new("x").server(&[HOST]);
    std::fs::write(ringwall.site.file("server.crt"), &broken.certificate_pem).expect("writable");
    ringwall.reload();
    ringwall.complaint_with(&["[emerg]"]);
    let secret: Vec<&str> = pki
        .server
        .key_pem
        .lines()
        .filter(|l| !l.starts_with('-'))
        .collect();
    let said = ringwall.complaints() + &ringwall.access_log() + &ringwall.site.read("debug.log");
    assert!(secret.iter().all(|line| !said.contains(line)));
}

#[test]
fn a_pid_given_twice_is_refused_at_start_too() {
    let mut site = Site::new();
    site.write("ringwall.conf", &http(HELLO));
    let mut second = Command::new(binary());
    second
        .args(["-g", "daemon off; pid second.pid;", "-p"])
        .arg(site.path())
        .arg("-c")
        .arg(site.file("ringwall.conf"));
    // Refused: the file names a pid already.
    let outcome = second.output().expect("it runs");
    assert!(!outcome.status.success());
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(said.contains("\"pid\" directive is duplicate"), "{said}");
}
