//! As the only process of a container: number 1, nothing to write to.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};

use crate::support::client::Connection;
use crate::support::ringwall::{Site, binary, is_listening, send_signal};
use crate::support::{eventually, local, tools};

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

#[test]
fn the_image_holds_what_the_binary_needs_and_runs_without_root() {
    if !geteuid().is_root() {
        return;
    }
    let mut site = Site::new();
    let root = site.file("image");
    let tree = root.to_str().expect("UTF-8").to_owned();
    let program = binary();
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = program.to_str().expect("UTF-8");
    tools::run(here, "scripts/rootfs", &[program, &tree]).expect_ok();
    let port = site.port("HTTP");
    // Mounted over the image's own, as an operator does it.
    site.write(
        "image/etc/ringwall/ringwall.conf",
        "events {} http { server { listen 127.0.0.1:@HTTP@; return 200 $pid; } }",
    );
    // An engine lets the user open its standard output by name.
    let log = std::fs::File::create(site.file("stdout.txt")).expect("ours");
    log.set_permissions(std::fs::Permissions::from_mode(0o666))
        .expect("ours");
    let line = "mount --bind $0 $0 && mount --rbind /dev $0/dev && mount -t proc proc $0/proc \
                && mount -o remount,ro,bind $0 && exec chroot --userspec=65532:65532 $0 \
                /usr/sbin/ringwall -e stderr -g 'daemon off;'";
    let unshare = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            line,
        ])
        .arg(&tree)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::piped())
        .spawn()
        .expect("util-linux");
    eventually("it listens", || is_listening(port).then_some(()));
    let mut connection = Connection::plain(local(port));
    assert_eq!(connection.get("a", "/").text(), "1");
    let own = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id()))
        .expect("it runs");
    let first: u32 = own.trim().parse().expect("one child");
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).expect("it runs");
    assert!(status.contains("Uid:\t65532\t65532"), "{status}");
    send_signal(first, Signal::QUIT);
    let outcome = unshare.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{said}");
    let logged = site.read("stdout.txt");
    assert!(
        logged.contains("\"GET / HTTP/1.1\" 200 1 "),
        "{logged} {said}"
    );
}
