//! Another binary takes over without losing a connection, or the old one goes
//! on; and systemd is told what happens.

use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::Connection;
use crate::support::ringwall::{
    Daemon, Ringwall, Site, Started, binary, http, is_listening, is_running, send_signal, whole,
};
use crate::support::{eventually, local};

const HELLO: &str = "server { listen 127.0.0.1:@HTTP@; server_name a;\n\
     return 200 \"$pid\"; }";

fn pid_file(ringwall: &Ringwall) -> Option<u32> {
    ringwall.site.read("ringwall.pid").trim().parse().ok()
}

/// Asks for the binary to be changed and waits until it is.
fn upgrade(ringwall: &mut Ringwall) -> Daemon {
    let old = ringwall.pid();
    ringwall.signal(Signal::USR2);
    let new = eventually("another process writes its id down", || {
        pid_file(ringwall).filter(|pid| *pid != old && is_running(*pid))
    });
    let daemon = Daemon::from_pid_file(&ringwall.site.file("ringwall.pid"));
    assert_eq!(daemon.pid(), new);
    daemon
}

#[test]
fn the_binary_is_changed_without_a_failed_request() {
    let mut ringwall = Site::new().start(&http(HELLO));
    let address = ringwall.address("HTTP");
    let mut kept = Connection::plain(address);
    assert_eq!(kept.get("a", "/").text(), ringwall.pid().to_string());

    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut connection = Connection::plain(address);
                    let response = connection.try_get("a", "/").expect("an answer");
                    assert_eq!(response.status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let new = upgrade(&mut ringwall);
    assert!(ringwall.wait().success());
    let before = served.load(Ordering::Relaxed);
    eventually("the new process serves", || {
        (served.load(Ordering::Relaxed) > before + 100).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no request failed");
    }
    let mut fresh = Connection::plain(address);
    assert_eq!(fresh.get("a", "/").text(), new.pid().to_string());
    assert!(!ringwall.site.file("ringwall.pid.oldbin").exists());
    ringwall.complaint_with(&["[notice]", "is ready, shutting down"]);
    // Again, from the process that took over.
    let second = new.pid();
    send_signal(second, Signal::USR2);
    let third = eventually("a third process has taken over", || {
        let text = Connection::plain(address).try_get("a", "/").ok()?.text();
        (text != second.to_string()).then_some(text)
    });
    assert_eq!(pid_file(&ringwall).map(|pid| pid.to_string()), Some(third));
    let _third = Daemon::from_pid_file(&ringwall.site.file("ringwall.pid"));
}

#[test]
fn a_new_process_that_fails_leaves_the_old_one_in_force() {
    let mut ringwall = Site::new().start(&http(HELLO));
    let address = ringwall.address("HTTP");
    let pid = ringwall.pid().to_string();
    ringwall.rewrite("nonsense;");
    ringwall.signal(Signal::USR2);
    ringwall.complaint_with(&["[alert]", "has failed, this one serves on"]);
    assert_eq!(Connection::plain(address).get("a", "/").text(), pid);
    assert_eq!(ringwall.site.read("ringwall.pid").trim(), pid);
    assert!(ringwall.is_running());
    // And it can be tried again.
    ringwall.rewrite(&http(HELLO));
    let new = upgrade(&mut ringwall);
    assert!(ringwall.wait().success());
    assert_eq!(
        Connection::plain(address).get("a", "/").text(),
        new.pid().to_string()
    );
}

#[test]
fn a_process_that_has_dropped_its_privileges_can_be_replaced() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The new process is nobody's from the beginning, and in a folder of root's.
    let configuration = format!("user nobody nogroup;\n{}", http(HELLO));
    let mut ringwall = Site::new().start(&configuration);
    fs::set_permissions(
        ringwall.site.file("ringwall.conf"),
        fs::Permissions::from_mode(0o600),
    )
    .expect("ours");
    let new = upgrade(&mut ringwall);
    assert!(ringwall.wait().success());
    let address = ringwall.address("HTTP");
    assert_eq!(
        Connection::plain(address).get("a", "/").text(),
        new.pid().to_string()
    );
    let status = fs::read_to_string(format!("/proc/{}/status", new.pid())).expect("it runs");
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
}

#[test]
fn a_running_nginx_hands_over() {
    let mut site = Site::new();
    let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
        .expect("Debian's nginx");
    let program = site.file("program");
    fs::copy(nginx, &program).expect("ours");
    let port = site.port("HTTP");
    let path = site.write(
        "ringwall.conf",
        "pid @DIR@/ringwall.pid; error_log @DIR@/error.log notice; user root; events {}\n\
         http { access_log off; server { listen 127.0.0.1:@HTTP@; return 200 $pid; } }",
    );
    let started = Command::new(&program)
        .arg("-p")
        .arg(site.path())
        .arg("-c")
        .arg(&path)
        .status()
        .expect("nginx starts");
    assert!(started.success());
    let old = Daemon::from_pid_file(&site.file("ringwall.pid"));
    let address = local(port);
    // The file is replaced as a package does it: another one by the same name.
    fs::remove_file(&program).expect("ours");
    fs::copy(binary(), &program).expect("ours");
    send_signal(old.pid(), Signal::USR2);
    let new = eventually("the pid file names another process", || {
        let pid: u32 = site.read("ringwall.pid").trim().parse().ok()?;
        (pid != old.pid() && is_running(pid)).then_some(pid)
    });
    let _new = Daemon::from_pid_file(&site.file("ringwall.pid"));
    eventually("ringwall serves beside it", || {
        let text = Connection::plain(address).try_get("a", "/").ok()?.text();
        (text == new.to_string()).then_some(())
    });
    send_signal(old.pid(), Signal::QUIT);
    eventually("nginx has ended", || {
        Connection::plain(address).try_get("a", "/").ok()?;
        (!is_running(old.pid())).then_some(())
    });
    for _ in 0..50 {
        let text = Connection::plain(address).get("a", "/").text();
        assert_eq!(text, new.to_string());
    }
}

/// What systemd does: descriptors from 3 on, their names, and the process's own
/// id, which only a shell that becomes the process can know.
fn start_as_systemd(site: &Site, sockets: &[(&str, BorrowedFd<'_>)]) -> Started {
    let mut line = String::new();
    // Out of the way of those numbers.
    let copies: Vec<OwnedFd> = sockets
        .iter()
        .map(|(_, socket)| rustix::io::fcntl_dupfd_cloexec(socket, 30).expect("open"))
        .collect();
    for (number, copy) in (3..).zip(&copies) {
        rustix::io::fcntl_setfd(copy, rustix::io::FdFlags::empty()).expect("open");
        let theirs = copy.as_raw_fd();
        line += &format!("exec {number}<&{theirs} {theirs}<&-; ");
    }
    line += "export LISTEN_PID=$$; exec \"$@\"";
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    let child = Command::new("bash")
        .args(["-c", &line, "bash"])
        .arg(binary())
        .arg("-p")
        .arg(site.path())
        .args(["-g", "daemon off;"])
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    Started(child.expect("bash"))
}

#[test]
fn sockets_that_the_process_is_started_with_are_used() {
    let mut site = Site::new();
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    site.write(
        "ringwall.conf",
        &http(&format!("server {{ listen {address}; return 200 $pid; }}")),
    );
    let mut started = start_as_systemd(&site, &[("web", socket.as_fd())]);
    let child = &mut started.0;
    // The test's own copy: a connection would wait in its queue if ringwall had
    // bound another socket, which the address in use would forbid anyway.
    let answer = Connection::plain(address).try_get("a", "/");
    send_signal(child.id(), Signal::TERM);
    let ended = child.wait().expect("our child");
    assert_eq!(answer.expect("an answer").text(), child.id().to_string());
    assert!(ended.success(), "{ended}");
}

#[test]
fn sockets_of_systemd_are_used_by_name_and_stay_systemds() {
    let mut site = Site::new();
    // As of `ListenStream=PORT`: for IPv4 and IPv6, so that no `listen PORT` fits.
    let web = TcpListener::bind("[::]:0").expect("a port");
    let port = web.local_addr().expect("bound").port();
    let path = site.file("local.sock");
    let file = UnixListener::bind(&path).expect("a socket");
    let sockets = [("local", file.as_fd()), ("web", web.as_fd())];
    let configuration = |name: &str| {
        http(&format!(
            "server {{ listen systemd:{name}; listen systemd:local; return 200 $pid; }}"
        ))
    };

    site.write("ringwall.conf", &configuration("wap"));
    let mut refused = start_as_systemd(&site, &sockets);
    let stderr = refused.0.stderr.take().expect("a pipe");
    let said = std::io::read_to_string(stderr).expect("UTF-8");
    let reason = "[emerg] systemd has passed no socket \"wap\" in ";
    assert!(said.contains(reason), "{said}");
    assert!(!refused.0.wait().expect("our child").success());

    site.write("ringwall.conf", &configuration("web"));
    // Before the service has them.
    assert!(site.command(&["-t", "-p", "@DIR@"]).ok());
    let mut started = start_as_systemd(&site, &sockets);
    let first = &mut started.0;
    let served_by = || {
        let over_ipv4 = Connection::plain(local(port));
        let over_ipv6 = Connection::plain((Ipv6Addr::LOCALHOST, port).into());
        [over_ipv4, over_ipv6].map(|mut connection| connection.get("a", "/").text())
    };
    assert_eq!(served_by(), [(); 2].map(|()| first.id().to_string()));
    send_signal(first.id(), Signal::HUP);
    eventually("it is reloaded", || {
        site.read("error.log")
            .contains(": reconfigured")
            .then_some(())
    });
    send_signal(first.id(), Signal::USR2);
    first.wait().expect("our child");
    let second = Daemon::from_pid_file(&site.file("ringwall.pid"));
    assert_eq!(served_by(), [(); 2].map(|()| second.pid().to_string()));
    send_signal(second.pid(), Signal::QUIT);
    eventually("it has ended", || (!is_running(second.pid())).then_some(()));
    assert!(path.exists(), "systemd still listens there");
}

#[test]
fn the_service_manager_is_told_what_happens() {
    let mut site = Site::new();
    let socket = UnixDatagram::bind(site.file("notify")).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a limit");
    let path = site.write("ringwall.conf", &http(HELLO));
    let mut child = Command::new(binary())
        .arg("-p")
        .arg(site.path())
        .arg("-c")
        .arg(&path)
        .args(["-g", "daemon off;"])
        .env("NOTIFY_SOCKET", site.file("notify"))
        .env("WATCHDOG_USEC", "200000")
        .stdin(Stdio::null())
        .spawn()
        .expect("the binary under test exists");
    let said = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let next = |wanted: &str| loop {
        let text = said();
        if text.starts_with(wanted) {
            break text;
        }
        assert_eq!(text, "WATCHDOG=1", "while waiting for {wanted}");
    };
    next("READY=1");
    next("WATCHDOG=1");
    next("WATCHDOG=1");
    send_signal(child.id(), Signal::HUP);
    let reloading = next("RELOADING=1\nMONOTONIC_USEC=");
    let (_, moment) = reloading.rsplit_once('=').expect("a moment");
    assert!(moment.parse::<u64>().is_ok_and(|moment| moment > 0));
    next("READY=1");
    fs::write(&path, "nonsense;").expect("writable");
    send_signal(child.id(), Signal::HUP);
    next("RELOADING=1");
    // The old configuration is ready.
    next("READY=1");
    send_signal(child.id(), Signal::QUIT);
    next("STOPPING=1");
    assert!(child.wait().expect("our child").success());
}

#[test]
fn the_working_directory_is_changed_at_start_at_reload_and_in_a_new_process() {
    let mut site = Site::new();
    let says = |what: &str| whole(&format!("worker_processes 1; {what}"), "", HELLO);
    site.write("ringwall.conf", &says("working_directory cores;"));
    let port = site.port("HTTP");
    // Where it is started, relative arguments lead to.
    let start = |site: &Site| {
        Command::new(binary())
            .args(["-p", ".", "-g", "daemon off;"])
            .current_dir(site.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test exists")
    };
    let refused = start(&site).wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let reason = format!(
        "[emerg] chdir() \"{}\" failed (2: No such file or directory)",
        site.file("cores").display()
    );
    assert!(
        !refused.status.success() && said.contains(&reason),
        "{said}"
    );
    let tested = site.command(&["-t", "-p", "@DIR@"]);
    assert!(
        !tested.ok() && tested.stderr.contains(&reason),
        "{tested:?}"
    );

    let cores = site.file("cores");
    fs::create_dir(&cores).expect("a fresh directory");
    let mut started = Started(start(&site));
    let first = &mut started.0;
    let is_in = |pid: u32, folder: &std::path::Path| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder)
    };
    eventually("it serves there", || {
        (is_listening(port) && is_in(first.id(), &cores)).then_some(())
    });
    let reload = |site: &mut Site, text: &str| {
        site.write("ringwall.conf", text);
        send_signal(first.id(), Signal::HUP);
    };
    reload(&mut site, &says(""));
    eventually("it is where it was started", || {
        is_in(first.id(), site.path()).then_some(())
    });
    reload(&mut site, &says("working_directory nowhere;"));
    eventually("a folder that is not there is refused", || {
        let said = site.read("error.log");
        let both = said.contains("/nowhere\" failed (2: No such file or directory); the old");
        both.then_some(())
    });
    assert!(is_in(first.id(), site.path()));
    reload(&mut site, &says("working_directory cores;"));
    eventually("it is there again", || {
        is_in(first.id(), &cores).then_some(())
    });

    send_signal(first.id(), Signal::USR2);
    first.wait().expect("our child");
    let second = Daemon::from_pid_file(&site.file("ringwall.pid"));
    assert_ne!(second.pid(), first.id());
    assert!(is_in(second.pid(), &cores));
    let answer = Connection::plain(local(port)).get("a", "/").text();
    assert_eq!(answer, second.pid().to_string());
}
