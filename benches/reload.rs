//! How long a reload keeps a worker from its work: `cargo bench --bench reload`.
//!
//! A thousand server blocks, each with a certificate, an upstream and an access
//! log of its own, all with client verification and a CRL, under one worker.
//! One keep-alive mutual-TLS connection asks every quarter of a millisecond,
//! from another core, and a few hundred more are idle. What is told is the
//! longest time from the moment at which a request was due to its answer, in
//! windows of a second with a SIGHUP and in windows without, which alternate: a
//! machine with other work stalls by itself, so the median of the windows says
//! more than the worst.
//!
//! Twice: with the whole process on the worker's core, so that the main thread
//! builds the configuration at the worker's expense, and with a core to spare
//! (which the client shares).

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const SERVERS: usize = 1000;
const IDLE: usize = 300;
const RELOADS: usize = 15;
/// Between two requests of the connection that is measured.
const PERIOD: Duration = Duration::from_micros(250);
/// With a reload at its start, or without one.
const WINDOW: Duration = Duration::from_secs(1);

fn main() {
    let cores = cores();
    let [first, .., last] = cores[..] else {
        println!("reload: skipped, it needs two cores");
        return;
    };
    for (name, of_process) in [
        ("on the worker's core", vec![first]),
        ("with a core to spare", cores.clone()),
    ] {
        pin(&of_process);
        let mut site = Site::start();
        pin(&[last]);
        let idle: Vec<_> = (0..IDLE).map(|_| site.connect()).collect();
        let mut connection = site.connect();
        // Warm.
        measure(&mut connection, WINDOW);
        let (mut quiet, mut reloading) = (Latencies::default(), Latencies::default());
        let mut times = Vec::new();
        for round in 0..RELOADS {
            quiet.take(measure(&mut connection, WINDOW));
            site.revoke(round as u64);
            let begun = Instant::now();
            site.reload();
            reloading.take(measure(&mut connection, WINDOW));
            times.push(site.reloaded_after(begun));
        }
        println!("main thread {name}:");
        println!("  without a reload: {quiet}");
        println!("  with one:         {reloading}");
        times.sort();
        println!(
            "  SIGHUP to \"reconfigured\": median {:.0?}, longest {:.0?}; resident {} KiB",
            times[times.len() / 2],
            times[times.len() - 1],
            site.resident_kib(),
        );
        drop(idle);
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Requests at a fixed rate for so long. A late answer makes the next ones
/// late, and they count from when they were due.
fn measure(connection: &mut Tls, time: Duration) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let begun = Instant::now();
    let mut due = Duration::ZERO;
    while due < time {
        while begun.elapsed() < due {
            std::hint::spin_loop();
        }
        get(connection).expect("an answer");
        latencies.push(begun.elapsed() - due);
        due += PERIOD;
    }
    latencies
}

fn get(connection: &mut Tls) -> io::Result<()> {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: h0.example\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"\r\n\r\nok") {
        match connection.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    Ok(())
}

/// Of several windows.
#[derive(Default)]
struct Latencies {
    all: Vec<Duration>,
    /// The longest of each window.
    longest: Vec<Duration>,
}

impl Latencies {
    fn take(&mut self, window: Vec<Duration>) {
        self.longest.extend(window.iter().max());
        self.all.extend(window);
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut all, mut longest) = (self.all.clone(), self.longest.clone());
        all.sort();
        longest.sort();
        write!(
            f,
            "median {:.2?}; the longest of a window: least {:.2?}, median {:.2?}, most {:.2?}",
            all[all.len() / 2],
            longest[0],
            longest[longest.len() / 2],
            longest[longest.len() - 1],
        )
    }
}

type Ca = CertifiedIssuer<'static, KeyPair>;

/// The proxy with its files.
struct Site {
    dir: tempfile::TempDir,
    process: Child,
    address: SocketAddr,
    ca: Ca,
    client: Arc<ClientConfig>,
    /// "reconfigured" in the log so far.
    reloads: usize,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a port");
        let mut params = named("CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, key()).expect("a CA");
        write(dir.path(), "ca.crt", &ca.pem());
        for number in 0..SERVERS {
            let key = key();
            let name = format!("h{number}.example");
            let params = CertificateParams::new(vec![name]).expect("a name");
            let certificate = params.signed_by(&key, &ca).expect("a certificate");
            write(dir.path(), &format!("{number}.crt"), &certificate.pem());
            write(dir.path(), &format!("{number}.key"), &key.serialize_pem());
        }
        write(dir.path(), "crl.pem", &crl(&ca, 0));
        write(dir.path(), "conf", &configuration(address));
        let process = Command::new(env!("CARGO_BIN_EXE_ringwall"))
            .args(["-p", dir.path().to_str().expect("UTF-8"), "-c"])
            .arg(dir.path().join("conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("ringwall");
        let site = Self {
            client: client(&ca),
            dir,
            process,
            address,
            ca,
            reloads: 0,
        };
        wait(|| TcpStream::connect(address).is_ok());
        site
    }

    fn connect(&self) -> Tls {
        let name = ServerName::try_from("h0.example").expect("a name");
        let tls = ClientConnection::new(Arc::clone(&self.client), name).expect("a client");
        let tcp = TcpStream::connect(self.address).expect("it listens");
        tcp.set_nodelay(true).expect("a socket");
        let mut connection = StreamOwned::new(tls, tcp);
        get(&mut connection).expect("an answer");
        connection
    }

    /// Another CRL, so that every client is judged anew.
    fn revoke(&self, number: u64) {
        write(self.dir.path(), "crl.pem", &crl(&self.ca, number + 1));
    }

    fn reload(&mut self) {
        self.reloads += 1;
        let pid = Pid::from_raw(self.process.id().cast_signed()).expect("a process");
        kill_process(pid, Signal::HUP).expect("it runs");
    }

    /// The log has whole milliseconds at the best, so the file is looked at;
    /// called after the window, it reads the time from the line.
    fn reloaded_after(&self, begun: Instant) -> Duration {
        let log = self.dir.path().join("error.log");
        wait(|| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.matches("reconfigured").count() >= self.reloads
        });
        let written = fs::metadata(&log).and_then(|data| data.modified());
        let age = written.expect("a file").elapsed().unwrap_or_default();
        begun.elapsed().saturating_sub(age)
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(address: SocketAddr) -> String {
    let servers: String = (0..SERVERS)
        .map(|number| {
            format!(
                "upstream u{number} {{ server 127.0.0.1:9; keepalive 8; }}\n\
                 server {{ listen {address} ssl; server_name h{number}.example;\n\
                 ssl_certificate {number}.crt; ssl_certificate_key {number}.key;\n\
                 access_log {number}.log;\n\
                 location / {{ return 200 ok; }}\n\
                 location /api/ {{ proxy_pass http://u{number}; }} }}\n"
            )
        })
        .collect();
    format!(
        "daemon off; worker_processes 1; pid pid; error_log error.log notice;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ ssl_client_certificate ca.crt; ssl_verify_client on; ssl_crl crl.pem;\n\
         keepalive_requests 100000000; keepalive_timeout 1h;\n{servers}}}\n"
    )
}

fn client(ca: &Ca) -> Arc<ClientConfig> {
    let key = key();
    let certificate = named("client").signed_by(&key, ca).expect("a certificate");
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key);
    Arc::new(config.expect("a client"))
}

fn crl(ca: &Ca, number: u64) -> String {
    let now = time::OffsetDateTime::now_utc();
    let params = CertificateRevocationListParams {
        this_update: now - time::Duration::days(1),
        next_update: now + time::Duration::days(30),
        crl_number: number.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params
        .signed_by(ca)
        .and_then(|crl| crl.pem())
        .expect("a CRL")
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("writable");
}

fn wait(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("Linux");
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect()
}

/// This process, and what it starts from now on.
fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).expect("cores of ours");
}
