//! What the system runs out of, and clocks that jump: nobody is left half served.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use rustls::version::TLS13;

use crate::support::client::{Connection, TlsClient, Trust};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::ringwall::{
    CERTIFICATES, HOST, MUTUAL, Ringwall, Site, Started, binary, http, is_listening, whole,
};
use crate::support::tools;

/// Sets a limit of a running process of ours, and gives what it was.
fn limit(pid: u32, resource: Resource, limit: Rlimit) -> Rlimit {
    let pid = i32::try_from(pid).expect("a process id");
    prlimit(Pid::from_raw(pid), resource, limit).expect("our child")
}

/// Of its memory, mapped or only reserved, in bytes.
fn address_space(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("it runs");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.and_then(|size| size.trim().strip_suffix(" kB"));
    size.and_then(|size| size.parse::<u64>().ok()).expect("kB") * 1024
}

fn get(ringwall: &Ringwall) -> String {
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    connection.get("a", "/").text()
}

fn saying(workers: usize, what: &str) -> String {
    whole(
        &format!("worker_processes {workers};"),
        "",
        &format!("server {{ listen 127.0.0.1:@HTTP@; return 200 {what}; }}"),
    )
}

#[test]
fn a_reload_for_which_there_is_no_memory_leaves_the_old_configuration_whole() {
    let mut ringwall = Site::new().start(&saying(1, "old"));
    assert_eq!(get(&ringwall), "old");
    let threads = ringwall.threads();
    // Nothing more can be mapped: no stack of a thread, no ring.
    let now = address_space(ringwall.pid());
    let none = Rlimit {
        current: Some(now),
        maximum: None,
    };
    let before = limit(ringwall.pid(), Resource::As, none);
    ringwall.rewrite(&saying(4, "new"));
    ringwall.reload();
    ringwall.complaint_with(&[
        "not all workers could be started",
        "the old configuration stays in force",
    ]);
    for _ in 0..20 {
        assert_eq!(get(&ringwall), "old");
    }
    eventually("workers that were started in vain have left", || {
        (ringwall.threads() <= threads).then_some(())
    });
    limit(ringwall.pid(), Resource::As, before);
    ringwall.reload();
    eventually("the new one is taken up once there is memory", || {
        (get(&ringwall) == "new").then_some(())
    });
    assert!(ringwall.is_running());
}

/// A ringwall with something in its environment.
fn start_with(site: &Site, variables: &[(&str, &Path)]) -> Started {
    let child = Command::new(binary())
        .arg("-p")
        .arg(site.path())
        .args(["-g", "daemon off;"])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Started(child.expect("the binary under test exists"))
}

#[test]
fn a_connection_for_which_the_process_has_no_memory_is_closed_and_the_others_go_on() {
    /// What is left once the limit is set; far less than as many clients need.
    const LEFT: u64 = 24 << 20;
    const CLIENTS: usize = 15_000;
    let mut site = Site::new();
    let configuration = whole(
        "worker_processes 1;",
        "worker_connections 20000;",
        "client_header_timeout 1h; keepalive_timeout 1h;\n\
         server { listen 127.0.0.1:@HTTP@; return 200 hello; }",
    );
    site.write("ringwall.conf", &configuration);
    let port = site.port("HTTP");
    // The allocator would reserve a GiB, which the limit does not take away again.
    let small = ("MIMALLOC_ARENA_RESERVE", Path::new("4MiB"));
    let mut started = start_with(&site, &[small]);
    eventually("it serves", || is_listening(port).then_some(()));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut kept = Connection::plain(address);
    assert_eq!(kept.get("a", "/").text(), "hello");
    let pid = started.0.id();
    let bound = Rlimit {
        current: Some(address_space(pid) + LEFT),
        maximum: None,
    };
    let before = limit(pid, Resource::As, bound);
    // Each holds a buffer with the half of a head in it.
    let half = format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(2000));
    let mut held = Vec::new();
    let refused = (0..CLIENTS).find(|_| {
        let mut client = Connection::plain(address);
        let sent = client.try_send(&half);
        let first = held.len() % 50 == 0;
        held.push(client);
        sent.is_err() || first && Connection::plain(address).try_get("a", "/").is_err()
    });
    refused.expect("there is no memory for all");
    eventually("the log says why", || {
        let said = site.read("error.log");
        let why = "no memory for another connection (12: Cannot allocate memory), closed";
        said.contains(why).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(kept.get("a", "/").text(), "hello");
    }
    drop(held);
    eventually("it takes connections again", || {
        let answer = Connection::plain(address).try_get("a", "/").ok()?;
        (answer.text() == "hello").then_some(())
    });
    limit(pid, Resource::As, before);
    let ended = started.0.try_wait().expect("our child");
    assert_eq!(ended, None, "it goes on");
}

/// accept4(2) as it is where the kernel has no memory, while a byte says so.
const NO_ACCEPT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

static volatile char *shortage;
static int (*real)(int, struct sockaddr *, socklen_t *, int);

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("SHORTAGE"), O_RDONLY);
    shortage = mmap(0, 1, PROT_READ, MAP_SHARED, file, 0);
    real = dlsym(RTLD_NEXT, "accept4");
}

int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags) {
    if (*shortage == '1') {
        errno = ENOMEM;
        return -1;
    }
    return real(socket, address, length, flags);
}
"#;

#[test]
fn a_connection_for_which_the_kernel_has_no_memory_waits_and_the_others_go_on() {
    let mut site = Site::new();
    site.write(
        "ringwall.conf",
        &whole(
            "worker_processes 1;",
            "use epoll;",
            "server { listen 127.0.0.1:@HTTP@; return 200 hello; }",
        ),
    );
    let port = site.port("HTTP");
    site.write("accept.c", NO_ACCEPT);
    let compile = ["-shared", "-fPIC", "-o", "accept.so", "accept.c", "-ldl"];
    tools::run(site.path(), "cc", &compile).expect_ok();
    let shortage = site.write("shortage", "0");
    let library = site.file("accept.so");
    let mut started = start_with(&site, &[("LD_PRELOAD", &library), ("SHORTAGE", &shortage)]);
    eventually("it serves", || is_listening(port).then_some(()));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut kept = Connection::plain(address);
    assert_eq!(kept.get("a", "/").text(), "hello");
    let say = |what: &[u8]| {
        let file = std::fs::OpenOptions::new().write(true).open(&shortage);
        file.and_then(|file| file.write_all_at(what, 0))
            .expect("ours");
    };
    say(b"1");
    let mut waiting = Connection::plain(address);
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the log says why", || {
        let said = site.read("error.log");
        let line = "[alert]";
        let reason = "accept() failed (12: Cannot allocate memory)";
        (said.contains(line) && said.contains(reason)).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(kept.get("a", "/").text(), "hello");
    }
    say(b"0");
    assert_eq!(waiting.response("GET").text(), "hello");
    let ended = started.0.try_wait().expect("our child");
    assert_eq!(ended, None, "it goes on");
}

#[test]
fn without_memory_for_rings_it_serves_on_epoll_and_says_so() {
    let mut site = Site::new();
    site.write("ringwall.conf", &saying(2, "hello"));
    let port = site.port("HTTP");
    // Who may lock memory is not held to the limit: 16 KiB.
    let line = "ulimit -l 16; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \
                \"$0\" -p \"$1\" -g 'daemon off;'";
    let child = Command::new("sh")
        .args(["-c", line])
        .arg(binary())
        .arg(site.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let _started = Started(child);
    eventually("it serves", || is_listening(port).then_some(()));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(Connection::plain(address).get("a", "/").text(), "hello");
    eventually("the log says why", || {
        let said = "io_uring is refused by this system (12: Cannot allocate memory; \
                    RLIMIT_MEMLOCK may be too low), using epoll";
        site.read("error.log").contains(said).then_some(())
    });
}

#[test]
fn clients_that_find_the_accept_queue_full_wait_and_are_all_served() {
    const CLIENTS: usize = 6;
    let ringwall = Site::new().start(&http(
        "server { listen 127.0.0.1:@HTTP@ backlog=1; return 200 hello; }",
    ));
    let address = ringwall.address("HTTP");
    ringwall.signal(Signal::STOP);
    let (answered, answers) = mpsc::channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let answered = answered.clone();
            thread::spawn(move || {
                let text = Connection::plain(address).get("a", "/").text();
                answered.send(text).expect("somebody counts");
            })
        })
        .collect();
    eventually("the queue is full and somebody is not in it", || {
        let (waiting, refused) = queue(address.port());
        (waiting >= 2 && refused).then_some(())
    });
    assert!(answers.try_recv().is_err(), "nobody is there to answer");
    ringwall.signal(Signal::CONT);
    for _ in 0..CLIENTS {
        // A client asks again after a second, then after two more.
        let answer = answers.recv_timeout(Duration::from_secs(60));
        assert_eq!(answer.expect("everybody is served"), "hello");
    }
    clients
        .into_iter()
        .for_each(|client| client.join().expect("served"));
}

/// How many connections wait on a listening socket, and whether one whose client
/// is still asking is not among them (proc(5), /proc/net/tcp).
fn queue(port: u16) -> (u64, bool) {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let port = format!("{port:04X}");
    let (mut waiting, mut asking) = (0, false);
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote, state) = (fields[1], fields[2], fields[3]);
        if state == "0A" && local.ends_with(&port) {
            let queued = fields[4].split(':').nth(1).expect("two queues");
            waiting = u64::from_str_radix(queued, 16).expect("a number");
        }
        // SYN_SENT; or SYN_RECV, where the client takes itself for connected.
        asking |= state == "02" && remote.ends_with(&port);
        asking |= state == "03" && local.ends_with(&port);
    }
    (waiting, asking)
}

/// A ringwall whose clocks are wherever the test says. Outside the sandbox:
/// libfaketime reads the time from a file.
struct Shifted {
    child: Started,
    site: Site,
    address: std::net::SocketAddr,
}

impl Shifted {
    /// Its server is at `@TLS@`.
    fn start(mut site: Site, clocks: Clocks, content: &str) -> Self {
        let configuration = whole(
            "worker_processes 1; seccomp off; landlock off;",
            "",
            content,
        );
        site.write("ringwall.conf", &configuration);
        let port = site.port("TLS");
        let moment = site.write("moment", "+0d\n");
        let library = library().expect("libfaketime");
        let child = start_with(
            &site,
            &[
                ("LD_PRELOAD", &library),
                ("FAKETIME_TIMESTAMP_FILE", &moment),
                ("FAKETIME_NO_CACHE", Path::new("1")),
                (
                    "FAKETIME_DONT_FAKE_MONOTONIC",
                    Path::new(clocks.keep_monotonic()),
                ),
            ],
        );
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        eventually("it serves", || {
            let pid = site.read("ringwall.pid");
            (!pid.is_empty() && is_listening(port)).then_some(())
        });
        Self {
            child,
            site,
            address,
        }
    }

    fn jump(&mut self, by: &str) {
        let new = self.site.write("moment.new", &format!("{by}\n"));
        // Whole, or the library makes nothing of it.
        std::fs::rename(new, self.site.file("moment")).expect("ours");
    }
}

/// What is shifted.
enum Clocks {
    /// What people set, and with it certificates and dates.
    Wall,
    /// Also what time-outs go by.
    All,
}

impl Clocks {
    fn keep_monotonic(&self) -> &'static str {
        match self {
            Self::Wall => "1",
            Self::All => "0",
        }
    }
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders.filter_map(Result::ok).find_map(|folder| {
        let library = folder.path().join("faketime/libfaketimeMT.so.1");
        Path::exists(&library).then_some(library)
    })
}

#[test]
fn a_wall_clock_that_jumps_moves_certificates_and_dates_and_no_timeout() {
    let (site, pki) = Site::with_pki();
    let now = time::OffsetDateTime::now_utc();
    let alice = pki.ca.client_with("alice", |params| {
        params.not_before = now - time::Duration::days(30);
        params.not_after = now + time::Duration::days(30);
    });
    let mut shifted = Shifted::start(
        site,
        Clocks::Wall,
        &format!(
            "ssl_session_timeout 1h; keepalive_timeout 1h;\n\
             server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
             {CERTIFICATES} {MUTUAL} return 200 hello; }}"
        ),
    );
    let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&alice), &[&TLS13]);
    let address = shifted.address;
    let connect = || client.connect(address, HOST);
    let mut kept = connect().expect("a handshake");
    // Half an hour either way: no wait is over early, none becomes longer.
    for by in ["+30m", "-30m", "+0d"] {
        shifted.jump(by);
        assert_eq!(kept.get(HOST, "/").status, 200, "{by}");
        let mut new = connect().unwrap_or_else(|error| panic!("{by}: {error}"));
        assert_eq!(new.get(HOST, "/").status, 200, "{by}");
    }
    // Before the certificate's time and behind it nobody is admitted, by a whole
    // handshake or by a ticket; and it is all over when the clock is right again.
    for (by, days) in [("+60d", 60), ("-60d", -60)] {
        shifted.jump(by);
        eventually(&format!("{by}: the client is refused"), || {
            let refused = connect().map_or(true, |mut new| new.try_get(HOST, "/").is_err());
            refused.then_some(())
        });
        let then = now + time::Duration::days(days);
        let stamp = format!("{}/{:02}/", then.year(), u8::from(then.month()));
        eventually("the log has the clock's dates", || {
            shifted
                .site
                .read("error.log")
                .contains(&stamp)
                .then_some(())
        });
        shifted.jump("+0d");
        eventually(&format!("{by}: it is admitted again"), || {
            let mut new = connect().ok()?;
            (new.try_get(HOST, "/").ok()?.status == 200).then_some(())
        });
    }
    let ended = shifted.child.0.try_wait().expect("our child");
    assert_eq!(ended, None, "it goes on");
}

/// Clients who are in the midst of something, of three kinds.
struct Busy(Vec<(Connection, &'static str)>);

impl Busy {
    /// What a server must say to have such clients: whoever takes longer than five
    /// seconds, or sends less than three bytes a second, is given up.
    const LIMITS: &str = "keepalive_timeout 5s; client_header_timeout 5s;\n\
         client_body_timeout 5s; client_body_min_rate 3 1s;\n\
         proxy_read_timeout 5s; proxy_send_timeout 5s;";

    fn connect(address: std::net::SocketAddr, count: usize) -> Self {
        let clients = (0..count).map(|number| {
            let mut client = Connection::plain(address);
            let rest = match number % 3 {
                0 => {
                    assert_eq!(client.get("a", "/").text(), "hello");
                    "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
                }
                1 => {
                    client.send("GET / HTTP/1.1\r\nHo");
                    "st: a\r\n\r\n"
                }
                _ => {
                    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
                    "67890"
                }
            };
            (client, rest)
        });
        Self(clients.collect())
    }

    /// Every other one goes on, from this one on.
    fn go_on(&mut self, from: usize) {
        for (client, rest) in self.0.iter_mut().skip(from).step_by(2) {
            client.send(rest);
        }
    }

    fn are_served(&mut self, when: &str) {
        for (number, (client, _)) in self.0.iter_mut().enumerate() {
            let answer = client.try_response("GET");
            let answer = answer.unwrap_or_else(|error| panic!("{when}, client {number}: {error}"));
            let (status, text) = (answer.status, answer.text());
            assert_eq!((status, &*text), (200, "hello"), "{when}, client {number}");
        }
    }

    /// Nobody is waited for in vain after that.
    fn time_out(&mut self) {
        for (client, _) in &mut self.0 {
            client.expect_close("who is idle for too long is closed");
        }
    }
}

#[test]
fn a_process_that_was_stopped_for_longer_than_every_timeout_gives_nobody_up() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; {} location / {{ proxy_pass {}; }} }}",
        Busy::LIMITS,
        origin.url()
    )));
    let mut busy = Busy::connect(ringwall.address("HTTP"), 150);
    ringwall.signal(Signal::STOP);
    // Some are heard of meanwhile, but not by a process that is stopped.
    busy.go_on(0);
    thread::sleep(Duration::from_secs(6));
    ringwall.signal(Signal::CONT);
    busy.go_on(1);
    busy.are_served("after it was stopped");
    busy.time_out();
    let said = ringwall.complaints();
    assert!(!said.contains("timed out"), "{said}");
}

#[test]
fn a_monotonic_clock_that_jumps_gives_nobody_up_and_timeouts_work_afterwards() {
    let origin = Origin::hello();
    let mut shifted = Shifted::start(
        Site::new(),
        Clocks::All,
        &format!(
            "server {{ listen 127.0.0.1:@TLS@; {} location / {{ proxy_pass {}; }} }}",
            Busy::LIMITS,
            origin.url()
        ),
    );
    for by in ["+1h", "+30d"] {
        let mut busy = Busy::connect(shifted.address, 30);
        shifted.jump(by);
        busy.go_on(0);
        busy.go_on(1);
        busy.are_served(by);
        busy.time_out();
    }
    let said = shifted.site.read("error.log");
    assert!(!said.contains("timed out"), "{said}");
    let ended = shifted.child.0.try_wait().expect("our child");
    assert_eq!(ended, None, "it goes on");
}
