//! What an operator does to a proxy, again and again, under load. Here in a
//! short form; `scripts/soak` runs the same tests in their long form and prints
//! the counts.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::support::client::{Connection, TlsClient};
use crate::support::origin::Origin;
use crate::support::ringwall::{
    Daemon, HOST, Site, binary, http, is_listening, is_running, mutual_proxy, send_signal, whole,
};
use crate::support::{eventually, within};

/// The short form's number or the long form's.
fn scale<T>(short: T, long: T) -> T {
    if std::env::var_os("RINGWALL_SOAK").is_some() {
        long
    } else {
        short
    }
}

/// Clients that go on until they are told to stop. Whatever fails ends the test.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            served: Arc::default(),
            clients: Vec::new(),
        }
    }

    /// One more, which repeats this.
    fn client(mut self, mut once: impl FnMut() + Send + 'static) -> Self {
        let (stop, served) = (Arc::clone(&self.stop), Arc::clone(&self.served));
        self.clients.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                once();
                served.fetch_add(1, Ordering::Relaxed);
            }
        }));
        self
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits for `count` more requests.
    fn goes_on(&self, count: usize) {
        let before = self.served();
        eventually("requests go on", || {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            (failed || self.served() >= before + count).then_some(())
        });
        let failed = self.clients.iter().any(JoinHandle::is_finished);
        assert!(!failed, "a client has failed");
    }

    /// How many requests were served, all of them.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("every request was served");
        }
        self.served.load(Ordering::Relaxed)
    }
}

/// Requests on connections that are kept while the server keeps them.
fn kept(mut connect: impl FnMut() -> Connection + Send + 'static) -> impl FnMut() + Send {
    let mut connection: Option<Connection> = None;
    move || {
        let mut open = connection.take().unwrap_or_else(&mut connect);
        let response = open.get(HOST, "/");
        assert_eq!(response.status, 200);
        if !response.says_close() {
            connection = Some(open);
        }
    }
}

#[test]
fn reloads_under_mixed_load_with_rotating_certificates_fail_no_request() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let configuration = mutual_proxy(&origin.url()).replace(
        "http {",
        "http { ssl_session_timeout 1h; keepalive_requests 100000;",
    );
    let ringwall = site.start(&configuration.replace("worker_processes 1", "worker_processes 2"));
    let address = ringwall.address("TLS");
    let client = Arc::new(TlsClient::with_identity(&pki.ca, &pki.client));
    let connect = |client: &Arc<TlsClient>| {
        let client = Arc::clone(client);
        move || client.connect(address, HOST).expect("a handshake")
    };
    let fresh = Arc::new(TlsClient::with_identity(&pki.ca, &pki.client).without_sessions());
    let handshake = connect(&fresh);
    let resumption = connect(&client);
    let load = Load::new()
        .client(kept(connect(&client)))
        .client(move || assert_eq!(handshake().get(HOST, "/").status, 200))
        .client(move || {
            let mut connection = resumption();
            let body = "x".repeat(20_000);
            connection.send(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            assert_eq!(connection.response("POST").status, 200);
        });
    load.goes_on(20);
    let identities = [pki.ca.server(&[HOST]), pki.ca.server(&[HOST])];
    let end = Instant::now() + scale(Duration::from_secs(3), Duration::from_secs(60));
    let mut reloads = 0;
    while Instant::now() < end {
        // Certificate and key are two files, and a reload may see them apart:
        // then the old pair stays in force.
        identities[reloads % 2].write(ringwall.site.path(), "server");
        ringwall.reload();
        reloads += 1;
        thread::sleep(Duration::from_millis(100));
    }
    load.goes_on(20);
    let served = load.end();
    let taken = ringwall.complaints().matches("reconfigured").count();
    println!("{served} requests, none failed; {reloads} reloads asked for, {taken} made");
    assert!(taken > reloads / 4, "{taken} of {reloads}");
}

#[test]
fn many_reloads_leave_memory_threads_and_descriptors_as_they_were() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&mutual_proxy(&origin.url()));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    let reload = |count: usize| {
        for _ in 0..count {
            let done = ringwall.complaints().matches("reconfigured").count();
            ringwall.reload();
            eventually("the reload is made", || {
                (ringwall.complaints().matches("reconfigured").count() > done).then_some(())
            });
            let response = client.get(ringwall.address("TLS"), HOST, "/");
            assert_eq!(response.expect("served").status, 200);
        }
    };
    reload(10);
    let before = (
        ringwall.descriptors(),
        ringwall.threads(),
        ringwall.resident_kib(),
    );
    let count = scale(50, 1000);
    reload(count);
    eventually("descriptors and threads are back where they were", || {
        (ringwall.descriptors() <= before.0 + 2 && ringwall.threads() <= before.1).then_some(())
    });
    let resident = ringwall.resident_kib();
    println!(
        "{count} reloads: descriptors {} to {}, threads {} to {}, resident {} to {resident} KiB",
        before.0,
        ringwall.descriptors(),
        before.1,
        ringwall.threads(),
        before.2,
    );
    assert!(resident < before.2 + 8 * 1024, "{resident} KiB");
}

/// A backend that is a process, to be killed.
struct Victim {
    site: Site,
    port: u16,
    child: Child,
}

impl Victim {
    fn start() -> Self {
        let mut site = Site::new();
        let port = site.port("HTTP");
        site.write(
            "ringwall.conf",
            &http("server { listen 127.0.0.1:@HTTP@; return 200 victim; }"),
        );
        let child = Self::spawn(&site, port);
        Self { site, port, child }
    }

    fn spawn(site: &Site, port: u16) -> Child {
        let child = Command::new(binary())
            .arg("-p")
            .arg(site.path())
            .args(["-g", "daemon off;"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary under test exists");
        eventually("the backend listens", || is_listening(port).then_some(()));
        child
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    fn revive(&mut self) {
        self.child = Self::spawn(&self.site, self.port);
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_backend_that_is_killed_and_comes_back_costs_no_request_while_another_serves() {
    let origin = Origin::hello();
    let mut victim = Victim::start();
    let ringwall = Site::new().start(&http(&format!(
        "upstream both {{ server 127.0.0.1:{}; server {} max_fails=0; keepalive 8; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://both; }} }}",
        victim.port,
        origin.url().trim_start_matches("http://"),
    )));
    let address = ringwall.address("HTTP");
    let load = Load::new()
        .client(kept(move || Connection::plain(address)))
        .client(kept(move || Connection::plain(address)));
    load.goes_on(50);
    let rounds = scale(4, 60);
    for _ in 0..rounds {
        victim.kill();
        load.goes_on(50);
        victim.revive();
        load.goes_on(50);
    }
    let served = load.end();
    println!("{served} requests, none failed; the backend was killed {rounds} times");
}

#[test]
fn idle_connections_by_the_thousand_are_kept_and_let_go_of() {
    // One descriptor for each, here and there; some are for other things.
    const OTHERS: u64 = 100;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("within the hard limit");
    let most = maximum.map_or(u64::MAX, |most| most.saturating_sub(OTHERS));
    let count = usize::try_from(most.min(scale(2_000, 20_000))).expect("a small number");
    assert!(
        count >= 1_000,
        "the limit on open files is too low: {maximum:?}"
    );
    let ringwall = Site::new().start(&whole(
        "worker_processes 2;",
        "worker_connections 40000;",
        "keepalive_timeout 1h; client_header_timeout 1h;\n\
         server { listen 127.0.0.1:@HTTP@; return 200 hello; }",
    ));
    let address = ringwall.address("HTTP");
    Connection::plain(address).get("a", "/");
    let (descriptors, resident) = (ringwall.descriptors(), ringwall.resident_kib());
    let mut idle: Vec<Connection> = (0..count)
        .map(|_| {
            let mut connection = Connection::plain(address);
            assert_eq!(connection.get("a", "/").status, 200);
            connection
        })
        .collect();
    let each = (ringwall.resident_kib().saturating_sub(resident)) * 1024 / count as u64;
    // All of them still serve, and so does whoever comes.
    for connection in idle.iter_mut().step_by(97) {
        assert_eq!(connection.get("a", "/").status, 200);
    }
    assert_eq!(Connection::plain(address).get("a", "/").status, 200);
    println!("{count} idle connections, {each} bytes of resident memory each");
    drop(idle);
    within(Duration::from_secs(60), "descriptors are back", || {
        (ringwall.descriptors() <= descriptors + 8).then_some(())
    });
}

#[test]
fn the_binary_is_changed_again_and_again_under_load_without_a_failed_request() {
    let ringwall = Site::new().start(&http(
        "keepalive_requests 100000; server { listen 127.0.0.1:@HTTP@; return 200 hello; }",
    ));
    let address = ringwall.address("HTTP");
    let load = Load::new()
        .client(move || assert_eq!(Connection::plain(address).get(HOST, "/").status, 200))
        .client(move || assert_eq!(Connection::plain(address).get(HOST, "/").status, 200));
    load.goes_on(20);
    let path = ringwall.site.file("ringwall.pid");
    let mut pid = ringwall.pid();
    let mut last = None;
    let rounds = scale(3, 10);
    for _ in 0..rounds {
        send_signal(pid, Signal::USR2);
        let next = eventually("another process has taken over", || {
            let next: u32 = ringwall.site.read("ringwall.pid").trim().parse().ok()?;
            (next != pid && is_running(next) && !is_running(pid)).then_some(next)
        });
        pid = next;
        last = Some(Daemon::from_pid_file(&path));
        load.goes_on(50);
    }
    let served = load.end();
    println!("{served} requests, none failed; the binary was changed {rounds} times");
    drop(last);
}
