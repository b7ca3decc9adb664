//! SIGHUP: a whole new configuration takes over between two requests, or none
//! of it does and the log says why. No connection is lost on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::support::client::{Connection, TlsClient, tcp};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::pki::{Authority, Identity};
use crate::support::ringwall::{
    CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http, is_listening, mutual_proxy, plain_proxy,
    whole,
};

fn says(text: &str) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location / {{ return 200 {text}; }} }}"
    ))
}

fn answer(ringwall: &Ringwall) -> String {
    Connection::plain(ringwall.address("HTTP"))
        .get("a", "/")
        .text()
}

#[test]
fn a_live_connection_gets_the_new_routes_at_its_next_request() {
    let mut ringwall = Site::new().start(&says("old"));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").text(), "old");
    ringwall.rewrite(&says("new"));
    ringwall.reload();
    eventually("new connections get the new routes", || {
        (answer(&ringwall) == "new").then_some(())
    });
    eventually("the live connection gets them too", || {
        (client.get("a", "/").text() == "new").then_some(())
    });
}

#[test]
fn a_broken_configuration_leaves_the_old_one_in_force_and_says_why() {
    let mut ringwall = Site::new().start(&says("old"));
    for (broken, complaint) in [
        (
            says("new").replace("location", "lokation"),
            "unknown directive \"lokation\"",
        ),
        (
            says("new").replace("return 200 new;", "return 200 new"),
            "ringwall.conf:",
        ),
        (
            says("new").replace(
                "location / {",
                "location / { proxy_pass http://nowhere.invalid;",
            ),
            "nowhere.invalid",
        ),
        (
            says("new").replace("127.0.0.1:@HTTP@", "127.0.0.1:@HTTP@ ssl"),
            "ssl_certificate",
        ),
    ] {
        ringwall.rewrite(&broken);
        ringwall.reload();
        let line = ringwall.complaint_with(&["[emerg]", complaint]);
        assert!(line.contains("ringwall.conf:"), "{line}");
        assert_eq!(answer(&ringwall), "old");
    }
    ringwall.rewrite(&says("mended"));
    ringwall.reload();
    eventually("a good configuration takes over after bad ones", || {
        (answer(&ringwall) == "mended").then_some(())
    });
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_a_broken_one_changes_nothing() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()));
    let client = TlsClient::with_identity(&pki.ca, &pki.client).without_sessions();
    let shown = || {
        client
            .connect(ringwall.address("TLS"), HOST)
            .expect("a handshake")
            .server_certificate()
    };
    let mut kept = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("a handshake");
    assert_eq!(kept.get(HOST, "/").text(), "hello");
    assert_eq!(shown(), pki.server.chain()[0]);

    let renewed = pki.ca.server(&[HOST]);
    renewed.write(ringwall.site.path(), "server");
    assert_eq!(
        shown(),
        pki.server.chain()[0],
        "files are read at a reload only"
    );
    ringwall.reload();
    eventually("the renewed certificate is shown", || {
        (shown() == renewed.chain()[0]).then_some(())
    });
    assert_eq!(kept.get(HOST, "/").text(), "hello");

    let mismatched = Identity {
        certificate_pem: pki.ca.server(&[HOST]).certificate_pem,
        key_pem: pki.server.key_pem,
    };
    let garbage = Identity {
        certificate_pem: "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
            .into(),
        key_pem: renewed.key_pem.clone(),
    };
    for broken in [mismatched, garbage] {
        let before = ringwall.complaints().matches("[emerg]").count();
        broken.write(ringwall.site.path(), "server");
        ringwall.reload();
        eventually("the log says why", || {
            (ringwall.complaints().matches("[emerg]").count() > before).then_some(())
        });
        ringwall.complaint_with(&["[emerg]", "server.", "ringwall.conf:"]);
        assert_eq!(shown(), renewed.chain()[0]);
        assert_eq!(kept.get(HOST, "/").text(), "hello");
    }
}

#[test]
fn listeners_come_and_go() {
    let one = "server { listen 127.0.0.1:@A@; return 200 a; }";
    let two = "server { listen 127.0.0.1:@B@; return 200 b; }";
    let mut ringwall = Site::new().start(&http(one));
    ringwall.rewrite(&http(&format!("{one} {two}")));
    ringwall.reload();
    let b = ringwall.address("B");
    eventually("the new listener is there", || {
        is_listening(b.port()).then_some(())
    });
    assert_eq!(Connection::plain(b).get("x", "/").text(), "b");
    ringwall.rewrite(&http(two));
    ringwall.reload();
    let a = ringwall.address("A");
    eventually("the old listener is gone", || {
        (!is_listening(a.port())).then_some(())
    });
    assert!(tcp(a).is_err());
    assert_eq!(Connection::plain(b).get("x", "/").text(), "b");
}

#[test]
fn a_listener_that_cannot_be_bound_leaves_the_old_configuration_in_force() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let mut ringwall = Site::new().start(&says("old"));
    let more = format!("server {{ listen 127.0.0.1:{port}; return 200 x; }}\n}}");
    let configuration = says("new");
    let end = configuration.rfind('}').expect("an http block");
    ringwall.rewrite(&(configuration[..end].to_owned() + &more));
    ringwall.reload();
    ringwall.complaint_with(&[
        "[emerg]",
        &format!("bind() to 127.0.0.1:{port} failed (98: Address already in use)"),
    ]);
    assert_eq!(answer(&ringwall), "old");
}

#[test]
fn plain_turns_to_tls_and_back_on_the_same_port() {
    let (site, pki) = Site::with_pki();
    let plain = format!("server {{ listen 127.0.0.1:@P@; server_name {HOST}; return 200 plain; }}");
    let tls = format!(
        "server {{ listen 127.0.0.1:@P@ ssl; server_name {HOST}; {CERTIFICATES} return 200 tls; }}"
    );
    let mut ringwall = site.start(&http(&plain));
    let client = TlsClient::new(&pki.ca);
    ringwall.rewrite(&http(&tls));
    ringwall.reload();
    eventually("TLS is spoken", || {
        let response = client.get(ringwall.address("P"), HOST, "/").ok()?;
        (response.text() == "tls").then_some(())
    });
    ringwall.rewrite(&http(&plain));
    ringwall.reload();
    eventually("plain HTTP is spoken", || {
        let mut client = Connection::plain(ringwall.address("P"));
        let response = client.try_get(HOST, "/").ok()?;
        (response.text() == "plain").then_some(())
    });
}

#[test]
fn worker_processes_takes_effect() {
    let with = |count: usize| {
        whole(
            &format!("worker_processes {count};"),
            "",
            &format!("server {{ listen 127.0.0.1:@HTTP@; return 200 workers-{count}; }}"),
        )
    };
    let mut ringwall = Site::new().start(&with(1));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").text(), "workers-1");
    let alone = ringwall.threads();
    for count in [3, 1] {
        ringwall.rewrite(&with(count));
        ringwall.reload();
        eventually("the new count is in force", || {
            let served = (0..8).all(|_| answer(&ringwall) == format!("workers-{count}"));
            let threads = ringwall.threads();
            (served && threads == alone + (count as u64 - 1)).then_some(())
        });
    }
}

#[test]
fn connections_whose_policy_changed_are_closed_after_the_response_in_flight() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let mut ringwall = site.start(&mutual_proxy(&origin.url()));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let address = ringwall.address("TLS");
    let mut kept = client.connect(address, HOST).expect("a handshake");
    assert_eq!(kept.get(HOST, "/").text(), "hello");

    // Another CA: nobody's certificate is acceptable any longer.
    let other = Authority::new("Other CA");
    std::fs::write(ringwall.site.file("ca.crt"), other.pem()).expect("writable");
    ringwall.rewrite(&mutual_proxy(&origin.url()));
    ringwall.reload();
    eventually("the old certificate is refused", || {
        client
            .without_sessions()
            .get(address, HOST, "/")
            .is_err()
            .then_some(())
    });
    assert!(
        client.get(address, HOST, "/").is_err(),
        "nor does its session resume"
    );
    let before = origin.requests();
    // At most the response in flight is still served; here none is.
    let mut served = 0;
    while kept
        .try_get(HOST, "/")
        .is_ok_and(|response| response.status == 200)
    {
        served += 1;
        assert!(served <= 1, "the connection outlives its policy");
    }
    assert!(origin.requests() <= before + 1);
    let newcomer = other.client("newcomer.example");
    let response = TlsClient::with_identity(&pki.ca, &newcomer).get(address, HOST, "/");
    assert_eq!(response.expect("served").text(), "hello");
}

#[test]
fn demanding_certificates_ends_the_sessions_of_those_without() {
    let (site, pki) = Site::with_pki();
    let open = http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} return 200 open; }}"
    ));
    let mut ringwall = site.start(&open);
    let client = TlsClient::new(&pki.ca);
    let address = ringwall.address("TLS");
    let mut kept = client.connect(address, HOST).expect("a handshake");
    assert_eq!(kept.get(HOST, "/").text(), "open");
    ringwall.rewrite(&open.replace(CERTIFICATES, &format!("{CERTIFICATES} {MUTUAL}")));
    ringwall.reload();
    eventually("a certificate is demanded", || {
        client
            .without_sessions()
            .get(address, HOST, "/")
            .is_err()
            .then_some(())
    });
    assert!(
        client.get(address, HOST, "/").is_err(),
        "a session of before"
    );
    let outcome = kept
        .try_get(HOST, "/")
        .and_then(|_| kept.try_get(HOST, "/"));
    assert!(
        outcome.as_ref().is_ok_and(|r| r.status != 200) || outcome.is_err(),
        "{outcome:?}"
    );
}

#[test]
fn no_request_fails_while_the_configuration_is_reloaded_again_and_again() {
    let origin = Origin::hello();
    let ringwall = Site::new()
        .start(&plain_proxy(&origin.url()).replace("worker_processes 1", "worker_processes 2"));
    let address = ringwall.address("HTTP");
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..2)
        .map(|number| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut kept = Connection::plain(address);
                while !stop.load(Ordering::SeqCst) {
                    if number == 0 {
                        kept = Connection::plain(address);
                    }
                    let response = kept.get("a", "/");
                    assert_eq!(response.text(), "hello");
                    // keepalive_requests, announced.
                    if response.says_close() {
                        kept = Connection::plain(address);
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let before = served.load(Ordering::SeqCst);
        ringwall.reload();
        eventually("requests go on", || {
            (served.load(Ordering::SeqCst) > before + 20).then_some(())
        });
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("every request was served");
    }
}

#[test]
fn reloads_leave_nothing_behind() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let reload = |count: usize| {
        for _ in 0..count {
            ringwall.reload();
            let response = client.get(ringwall.address("TLS"), HOST, "/");
            assert_eq!(response.expect("served").text(), "hello");
        }
    };
    reload(10);
    let (descriptors, threads, resident) = (
        ringwall.descriptors(),
        ringwall.threads(),
        ringwall.resident_kib(),
    );
    reload(50);
    eventually("descriptors and threads are back where they were", || {
        (ringwall.descriptors() <= descriptors + 2 && ringwall.threads() <= threads).then_some(())
    });
    let grown = ringwall.resident_kib().saturating_sub(resident);
    assert!(grown < 8 * 1024, "{grown} KiB over 50 reloads");
}

#[test]
fn logs_are_reopened_on_sigusr1() {
    let ringwall = Site::new().start(&says("hello"));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.get("a", "/first");
    ringwall.access_with(&["/first"]);
    std::fs::rename(
        ringwall.site.file("access.log"),
        ringwall.site.file("access.log.1"),
    )
    .expect("renamed");
    ringwall.signal(Signal::USR1);
    eventually("the log is there again", || {
        ringwall.site.file("access.log").exists().then_some(())
    });
    client.get("a", "/second");
    ringwall.access_with(&["/second"]);
    assert!(!ringwall.site.read("access.log.1").contains("/second"));
}

#[test]
fn an_unusable_ca_on_reload_leaves_the_old_one_in_force() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()));
    let address = ringwall.address("TLS");
    let client = TlsClient::with_identity(&pki.ca, &pki.client).without_sessions();
    for (number, broken) in [
        "",
        "not a certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(ringwall.site.file("ca.crt"), broken).expect("writable");
        ringwall.reload();
        eventually("the log says why", || {
            let complaints = ringwall.complaints();
            let lines = complaints.lines();
            let told = lines.filter(|line| line.contains("[emerg]") && line.contains("ca.crt"));
            (told.count() > number).then_some(())
        });
        assert_eq!(
            client.get(address, HOST, "/").expect("served").text(),
            "hello"
        );
        for refused in [None, Some(&pki.stranger)] {
            let client = TlsClient::trusting(refused).without_sessions();
            assert!(client.get(address, HOST, "/").is_err());
        }
    }
    assert_eq!(origin.requests(), 3);
}
