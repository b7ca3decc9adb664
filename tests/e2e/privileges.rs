//! `user`: root at start, nobody in particular from then on. What only root
//! can show is tested where the tests run as root; elsewhere it is tested that
//! the directive is said to be ignored.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::process::{Signal, geteuid};

use crate::support::client::{Connection, TlsClient};
use crate::support::eventually;
use crate::support::pki::Pki;
use crate::support::ringwall::{CERTIFICATES, HOST, Ringwall, Site, http};

const NOBODY: &str = "user nobody nogroup;\n";

/// The value of a line in the status of each thread, the main thread's first.
fn of_each_thread(ringwall: &Ringwall, field: &str) -> Vec<(String, String)> {
    let tasks = format!("/proc/{}/task", ringwall.pid());
    let mut threads: Vec<u32> = fs::read_dir(tasks)
        .expect("it runs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable();
    let status = |thread| {
        let path = format!("/proc/{}/task/{thread}/status", ringwall.pid());
        let text = fs::read_to_string(path).expect("it runs");
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.expect("a field").trim().to_owned()
        };
        (value("Name:"), value(field))
    };
    threads.into_iter().map(status).collect()
}

fn site(private: bool) -> (Site, Pki, String) {
    let (site, pki) = Site::with_pki();
    if private {
        let key = fs::Permissions::from_mode(0o600);
        fs::set_permissions(site.file("server.key"), key).expect("ours");
    }
    let configuration = http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES}\n\
         return 200 \"$ssl_server_name\"; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; return 204; }}"
    ));
    (site, pki, format!("{NOBODY}{configuration}"))
}

#[test]
fn privileges_are_dropped_after_binding_and_a_reload_still_reads_the_keys() {
    let (site, pki, configuration) = site(true);
    let ringwall = site.start(&configuration);
    if !geteuid().is_root() {
        ringwall.complaint_with(&["[warn]", "\"user\" directive makes sense only"]);
        return;
    }
    ringwall.complaint_with(&["[notice]", "running as user \"nobody\""]);
    for field in ["Uid:", "Gid:", "Groups:"] {
        for (name, ids) in of_each_thread(&ringwall, field) {
            assert!(
                ids.split_whitespace().all(|id| id == "65534"),
                "{name} {field} {ids}"
            );
        }
    }
    for (name, value) in of_each_thread(&ringwall, "NoNewPrivs:") {
        assert_eq!(value, "1", "{name}");
    }
    let capabilities = of_each_thread(&ringwall, "CapPrm:");
    let (_, main) = &capabilities[0];
    // CAP_DAC_READ_SEARCH is bit 2, CAP_NET_BIND_SERVICE bit 10.
    let main = u64::from_str_radix(main, 16).expect("hexadecimal");
    assert_eq!(main & !0x404, 0, "{main:x}");
    for (name, value) in &capabilities[1..] {
        assert_eq!(value, "0000000000000000", "{name}");
    }

    // The next certificate's key is root's too.
    let renewed = Pki::new(&[HOST]);
    renewed.write(ringwall.site.path());
    let key = fs::Permissions::from_mode(0o600);
    fs::set_permissions(ringwall.site.file("server.key"), key).expect("ours");
    ringwall.reload();
    ringwall.complaint_with(&["reconfigured"]);
    let client = TlsClient::new(&renewed.ca);
    let mut connection = client
        .connect(ringwall.address("TLS"), HOST)
        .expect("the new certificate");
    assert_eq!(connection.get(HOST, "/").status, 200);
    drop(pki);
}

#[test]
fn logs_belong_to_the_user_and_can_be_reopened() {
    if !geteuid().is_root() {
        return;
    }
    let (site, _, configuration) = site(false);
    // As logrotate's `create` does it, in a folder that is root's.
    let ringwall = site.start(&configuration);
    let log = ringwall.site.file("access.log");
    assert_eq!(fs::metadata(&log).expect("a log").uid(), 65534);
    fs::rename(&log, ringwall.site.file("access.1")).expect("renamed");
    fs::write(&log, "").expect("writable");
    std::os::unix::fs::chown(&log, Some(65534), None).expect("we are root");
    ringwall.signal(Signal::USR1);
    ringwall.complaint_with(&["reopening logs"]);
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(connection.get(HOST, "/again").status, 204);
    ringwall.access_with(&["/again"]);
}

#[test]
fn the_pid_file_says_nothing_once_the_process_is_gone() {
    let (site, _, configuration) = site(false);
    let mut ringwall = site.start(&configuration);
    ringwall.signal(Signal::QUIT);
    assert!(ringwall.wait().success());
    eventually("the pid file is empty or gone", || {
        ringwall.site.read("ringwall.pid").is_empty().then_some(())
    });
}

#[test]
fn a_user_that_is_not_there_is_an_error() {
    if !geteuid().is_root() {
        return;
    }
    for (user, message) in [
        ("user nosuch;", "getpwnam(\"nosuch\") failed"),
        ("user nobody nosuch;", "getgrnam(\"nosuch\") failed"),
    ] {
        let outcome = Site::new().check(&format!("{user}\n{}", http("")));
        assert!(!outcome.ok(), "{outcome:?}");
        assert!(outcome.stderr.contains(message), "{outcome:?}");
        assert!(outcome.stderr.contains("ringwall.conf:1"), "{outcome:?}");
    }
}
