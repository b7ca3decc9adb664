//! Logs where the operator wants them: files, files named by requests, syslog
//! servers; never at the cost of a request.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::{Connection, TlsClient};
use crate::support::eventually;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

fn get(ringwall: &Ringwall, host: &str, target: &str) -> u16 {
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    connection.get(host, target).status
}

/// A syslog server over UDP that belongs to the test.
fn syslog_server() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a limit");
    let address = socket.local_addr().expect("bound").to_string();
    (socket, address)
}

fn datagram(socket: &UdpSocket) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a datagram");
    String::from_utf8(buffer[..length].to_vec()).expect("UTF-8")
}

#[test]
fn access_logs_go_to_syslog_as_nginx_sends_them() {
    let (socket, address) = syslog_server();
    let ringwall = Site::new().start(&http(&format!(
        "log_format short '$request_method $uri $status';\n\
         server {{ listen 127.0.0.1:@HTTP@;\n\
         access_log syslog:server={address},facility=local0,tag=edge,severity=notice short;\n\
         location / {{ return 204; }}\n\
         location /bare {{ access_log syslog:server={address},nohostname short;\n\
         return 204; }} }}"
    )));
    assert_eq!(get(&ringwall, "a", "/x"), 204);
    let line = datagram(&socket);
    let hostname = rustix::system::uname();
    let hostname = hostname.nodename().to_string_lossy().to_ascii_lowercase();
    // local0 is 16, notice 5.
    assert!(line.starts_with("<133>"), "{line}");
    assert!(
        line.ends_with(&format!(" {hostname} edge: GET /x 204")),
        "{line}"
    );
    assert_eq!(get(&ringwall, "a", "/bare"), 204);
    let line = datagram(&socket);
    let time = regex_of_time();
    let rest = line.strip_prefix("<190>").expect("local7 and info");
    assert!(time.is_match(&rest[..15]), "{line}");
    assert_eq!(&rest[15..], " nginx: GET /bare 204");
}

fn regex_of_time() -> regex::Regex {
    regex::Regex::new(r"^[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d$").expect("a pattern")
}

#[test]
fn error_logs_go_to_a_unix_socket_with_their_own_severity() {
    let site = Site::new();
    let path = site.file("log.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a limit");
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@HTTP@; server_name here;\n\
         error_log syslog:server=unix:@DIR@/log.sock,tag=edge error;\n\
         error_log @DIR@/local.log error;\n\
         location / { proxy_pass http://127.0.0.1:@DEAD@; } }",
    ));
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    connection.send("GET /x HTTP/1.1\r\nHost: here\r\nReferer: http://there/\r\n\r\n");
    assert_eq!(connection.response("GET").status, 502);
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a datagram");
    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
    // local7 is 23, error 3.
    assert!(line.starts_with("<187>"), "{line}");
    for part in [
        " edge: ",
        " [error] ",
        "(111: Connection refused) while connecting to upstream",
        ", client: 127.0.0.1, server: here, request: \"GET /x HTTP/1.1\"",
        ", host: \"here\", referrer: \"http://there/\"",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let (_, same) = line.split_once(" edge: ").expect("a tag");
    eventually("the file has the same line", || {
        (ringwall.site.read("local.log").trim_end() == same).then_some(())
    });
}

#[test]
fn a_syslog_server_that_is_not_there_costs_lines_and_no_request() {
    let ringwall = Site::new().start(&http(
        "server { listen 127.0.0.1:@HTTP@; location = /metrics { access_log off; metrics; }\n\
         location / { access_log syslog:server=unix:@DIR@/nobody.sock combined; return 204; } }",
    ));
    for _ in 0..5 {
        assert_eq!(get(&ringwall, "a", "/"), 204);
    }
    eventually("five lines are counted as lost", || {
        let mut connection = Connection::plain(ringwall.address("HTTP"));
        let text = connection.get("a", "/metrics").text();
        text.lines()
            .any(|line| {
                line.starts_with("ringwall_log_lines_lost_total{log=\"syslog:server=unix:")
                    && line.ends_with(" 5")
            })
            .then_some(())
    });
    ringwall.complaint_with(&["[alert]", "nobody.sock", "lines lost", "No such file"]);
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let ringwall = Site::new().start(&http(
        "server { listen 127.0.0.1:@HTTP@; location = /metrics { access_log off; metrics; }\n\
         location / { access_log /dev/full; return 204; } }",
    ));
    assert_eq!(get(&ringwall, "a", "/"), 204);
    assert_eq!(get(&ringwall, "a", "/"), 204);
    ringwall.complaint_with(&["[alert]", "\"/dev/full\"", "No space left on device"]);
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    let text = connection.get("a", "/metrics").text();
    assert!(
        !text.contains("ringwall_log_lines_lost_total{log=\"/dev/full\"} 0"),
        "{text}"
    );
}

#[test]
fn only_the_requests_that_the_condition_names_are_logged() {
    let ringwall = Site::new().start(&http(
        "server { listen 127.0.0.1:@HTTP@;\n\
         access_log @DIR@/access.log combined if=$arg_log;\n\
         access_log @DIR@/all.log combined;\n\
         return 204; }",
    ));
    for target in ["/zero?log=0", "/empty?log=", "/none", "/yes?log=1"] {
        assert_eq!(get(&ringwall, "a", target), 204);
    }
    ringwall.access_with(&["GET /yes"]);
    eventually("all are in the other log", || {
        (ringwall.site.read("all.log").lines().count() == 4).then_some(())
    });
    assert_eq!(ringwall.access_log().lines().count(), 1);
}

#[test]
fn a_request_names_its_log_but_not_another_folder() {
    let site = Site::new();
    fs::create_dir(site.file("logs.d")).expect("a folder");
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@HTTP@; server_name a b;\n\
         access_log @DIR@/logs.d/$host.$arg_kind.log combined; return 204; }",
    ));
    for (host, target) in [
        ("a", "/1?kind=x"),
        ("b", "/2?kind=x"),
        ("a", "/3?kind=x"),
        ("a", "/4?kind=/../../evil"),
    ] {
        assert_eq!(get(&ringwall, host, target), 204);
    }
    for (file, lines) in [
        ("logs.d/a.x.log", ["/1", "/3"]),
        ("logs.d/b.x.log", ["/2"; 2]),
    ] {
        for line in lines {
            eventually(&format!("{file} has {line}"), || {
                ringwall.site.read(file).contains(line).then_some(())
            });
        }
    }
    ringwall.complaint_with(&["[error]", "no access log is written to", "evil.log"]);
    assert!(!ringwall.site.file("evil.log").exists());
    assert!(!ringwall.site.read("logs.d/a.x.log").contains("GET /2"));
    // Rotation: the old name gets no more lines.
    fs::rename(
        ringwall.site.file("logs.d/a.x.log"),
        ringwall.site.file("logs.d/rotated"),
    )
    .expect("renamed");
    ringwall.signal(Signal::USR1);
    ringwall.complaint_with(&["reopening logs"]);
    assert_eq!(get(&ringwall, "a", "/5?kind=x"), 204);
    eventually("the new file has the line", || {
        ringwall
            .site
            .read("logs.d/a.x.log")
            .contains("/5")
            .then_some(())
    });
}

#[test]
fn buffered_lines_wait_until_there_are_enough_or_the_time_is_up() {
    let ringwall = Site::new().start(&http(
        "log_format short '$uri';\n\
         server { listen 127.0.0.1:@HTTP@;\n\
         location / { access_log @DIR@/access.log short; return 204; }\n\
         location /full { access_log @DIR@/full.log short buffer=64; return 204; }\n\
         location /timed { access_log @DIR@/timed.log short buffer=64k flush=300ms; return 204; } }",
    ));
    assert_eq!(get(&ringwall, "a", "/full/1"), 204);
    assert_eq!(get(&ringwall, "a", "/timed"), 204);
    assert_eq!(get(&ringwall, "a", "/last"), 204);
    // By when the timed line is there, several ticks have passed.
    ringwall.access_with(&["/last"]);
    eventually("the time is up", || {
        (ringwall.site.read("timed.log") == "/timed\n").then_some(())
    });
    assert_eq!(ringwall.site.read("full.log"), "");
    for n in 2..=8 {
        assert_eq!(get(&ringwall, "a", &format!("/full/{n}")), 204);
    }
    eventually("the buffer is full", || {
        (ringwall.site.read("full.log").lines().count() == 8).then_some(())
    });
}

#[test]
fn error_lines_say_who_the_client_proved_to_be() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST} other; {CERTIFICATES} {MUTUAL}\n\
         location / {{ proxy_pass http://127.0.0.1:@DEAD@; }} }}"
    )));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let mut connection = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    assert_eq!(connection.get("other", "/").status, 502);
    let line = ringwall.complaint_with(&["while connecting to upstream"]);
    let expected = format!(", host: \"other\", SNI: \"{HOST}\", client certificate: \"CN=");
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn what_repeats_is_left_out_and_counted() {
    let ringwall = Site::new().start(&http(
        "server { listen 127.0.0.1:@HTTP@; location / { proxy_pass http://127.0.0.1:@DEAD@; } }",
    ));
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    // More than are written, in less than the second in which they are counted:
    // or in more, on a machine that is slow, and then in one of the seconds.
    for _ in 0..900 {
        assert_eq!(connection.get("a", "/").status, 502);
    }
    let line = ringwall.complaint_with(&["more lines within a second are left out"]);
    assert!(
        line.contains("[error]") && line.contains("(111: Connection refused)"),
        "{line}"
    );
    let lines = ringwall.complaints();
    let written = lines
        .matches("while connecting to upstream, client")
        .count();
    assert!((100..900).contains(&written), "{written}");
}

#[test]
fn what_a_log_cannot_be_is_refused_in_the_words_of_nginx() {
    for (directive, message) in [
        (
            "access_log x combined flush=1s;",
            "no buffer is defined for access_log \"x\"",
        ),
        (
            "access_log x combined buffer=0;",
            "invalid buffer size \"0\"",
        ),
        (
            "access_log x combined buffer=1k flush=x;",
            "invalid flush time \"x\"",
        ),
        (
            "access_log x$host combined buffer=1k;",
            "buffered logs cannot have variables in name",
        ),
        (
            "access_log syslog:server=127.0.0.1 combined buffer=1k;",
            "logs to syslog cannot be buffered",
        ),
        (
            "access_log x combined buffer=1k; access_log x combined buffer=2k;",
            "access_log \"x\" already defined with conflicting parameters",
        ),
        ("access_log syslog:tag=a;", "no syslog server specified"),
        (
            "access_log syslog:server=127.0.0.1,tag=a-b;",
            "syslog \"tag\" only allows alphanumeric characters and underscore",
        ),
        (
            "error_log syslog:server=127.0.0.1,facility=local8;",
            "unknown syslog facility \"local8\"",
        ),
        (
            "error_log syslog:server=127.0.0.1,server=127.0.0.1;",
            "duplicate syslog \"server\"",
        ),
        (
            "error_log syslog:server=127.0.0.1,x=y;",
            "unknown syslog parameter \"x=y\"",
        ),
        (
            "error_log memory:32k;",
            "\"error_log\" directive does not log to memory",
        ),
        (
            "access_log x combined gzip;",
            "parameter \"gzip\" is not implemented",
        ),
    ] {
        let configuration = http(&format!(
            "server {{ listen 127.0.0.1:@HTTP@; {directive} }}"
        ));
        let outcome = Site::new().check(&configuration);
        assert!(!outcome.ok(), "{directive}: {outcome:?}");
        assert!(outcome.stderr.contains(message), "{directive}: {outcome:?}");
    }
}

#[test]
fn a_test_makes_no_log_and_says_where_none_could_be_made() {
    let mut site = Site::new();
    let logging_to = |path: &str| {
        http(&format!(
            "server {{ listen 127.0.0.1:@HTTP@; access_log @DIR@/{path}; }}"
        ))
    };
    assert!(site.check(&logging_to("new.log")).ok());
    // Made by root, it would be in the way of the service's own user.
    assert!(!site.file("new.log").exists() && !site.file("error.log").exists());
    let outcome = site.check(&logging_to("nowhere/new.log"));
    assert!(!outcome.ok(), "{outcome:?}");
    assert!(
        outcome.stderr.contains("nowhere/new.log\" failed (2"),
        "{outcome:?}"
    );
}
