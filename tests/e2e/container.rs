//! As the only process of a container: number 1, nothing to write to.

use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};

use crate::support::client::Connection;
use crate::support::ringwall::{Site, binary, is_listening, send_signal};
use crate::support::{eventually, local};

#[test]
fn it_runs_as_process_1_on_a_file_system_that_is_read_only() {
    if !geteuid().is_root() {
        // Only root may make the namespaces, everywhere at least.
        return;
    }
    let mut site = Site::new();
    // Nothing of the configuration names a place that can be written to.
    let path = site.write(
        "ringwall.conf",
        "daemon off; user nobody nogroup; error_log stderr notice; events {}\n\
         http { access_log /dev/stdout;\n\
         server { listen 127.0.0.1:@HTTP@; return 200 \"$pid\"; } }",
    );
    let port = site.port("HTTP");
    let line = "mount -o remount,ro,bind / && exec \"$@\"";
    let unshare = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            line,
            "sh",
        ])
        .arg(binary())
        .arg("-c")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("util-linux");
    eventually("it listens", || is_listening(port).then_some(()));
    let mut connection = Connection::plain(local(port));
    assert_eq!(connection.get("a", "/").text(), "1");
    // Process 1 gets what it handles, and it handles these.
    let own = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id()))
        .expect("it runs");
    let first: u32 = own.trim().parse().expect("one child");
    send_signal(first, Signal::HUP);
    send_signal(first, Signal::USR2);
    send_signal(first, Signal::QUIT);
    let outcome = unshare.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{said}");
    for part in [
        "ringwall.pid\" failed (30: Read-only file system), going on without a pid file",
        "running as user \"nobody\"",
        "exit",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let logged = String::from_utf8_lossy(&outcome.stdout);
    assert!(logged.contains("\"GET / HTTP/1.1\" 200 1 "), "{logged}");
}
