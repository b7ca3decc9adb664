//! Starts the binary under test with a configuration of the test's own, in a
//! directory of its own, on ports of its own; ends it when the test does.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::pki::Pki;
use super::tools::{self, Outcome};
use super::{eventually, free_port, local};

/// The name in the certificates that [`Site::with_pki`] writes.
pub(crate) const HOST: &str = "test.example";

/// The binary under test: Cargo's, or another one that `RINGWALL_TEST_BINARY`
/// names (a release build, a package's).
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("RINGWALL_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_ringwall").into(), PathBuf::from)
}

/// Sends a signal; a process that is gone is not an error.
pub(crate) fn send_signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    })
}

/// A directory with configuration, certificates and logs, and the ports that
/// its configuration names.
///
/// In configurations `@DIR@` stands for the directory and any other `@NAME@`
/// for a port, the same one wherever the name recurs.
pub(crate) struct Site {
    dir: TempDir,
    ports: BTreeMap<String, u16>,
}

impl Site {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("ringwall-test-")
                .tempdir()
                .expect("a temporary directory"),
            ports: BTreeMap::new(),
        }
    }

    /// With certificates for [`HOST`].
    pub(crate) fn with_pki() -> (Self, Pki) {
        let site = Self::new();
        let pki = Pki::new(&[HOST]);
        pki.write(site.path());
        (site, pki)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file's path.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file's text; empty where there is none yet.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read(self.file(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Writes a file, its placeholders filled in, and yields its path.
    pub(crate) fn write(&mut self, name: &str, text: &str) -> PathBuf {
        let text = self.fill_in(text);
        let path = self.file(name);
        fs::write(&path, text).expect("writable");
        path
    }

    /// The port behind `@NAME@`.
    pub(crate) fn port(&mut self, name: &str) -> u16 {
        *self.ports.entry(name.to_owned()).or_insert_with(free_port)
    }

    /// Fills in `@DIR@` and ports.
    pub(crate) fn fill_in(&mut self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('@') {
            filled.push_str(&rest[..start]);
            let tail = &rest[start + 1..];
            let name = tail
                .find('@')
                .map(|end| &tail[..end])
                .filter(|name| !name.is_empty())
                .filter(|name| {
                    name.bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
                });
            match name {
                Some("DIR") => filled.push_str(&self.path().display().to_string()),
                Some(name) => {
                    let port = self.port(name);
                    filled.push_str(&port.to_string());
                }
                None => filled.push('@'),
            }
            rest = name.map_or(tail, |name| &tail[name.len() + 1..]);
        }
        filled.push_str(rest);
        filled
    }

    /// Runs the binary to its end with these arguments, placeholders filled in.
    pub(crate) fn command(&mut self, arguments: &[&str]) -> Outcome {
        let arguments: Vec<String> = arguments.iter().map(|a| self.fill_in(a)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let binary = binary();
        tools::run(
            self.path(),
            binary.to_str().expect("a path in UTF-8"),
            &arguments,
        )
    }

    /// Writes this configuration and tests it with `-t`.
    pub(crate) fn check(&mut self, configuration: &str) -> Outcome {
        self.write("ringwall.conf", configuration);
        self.command(&["-t", "-c", "@DIR@/ringwall.conf", "-p", "@DIR@"])
    }

    /// Starts the binary in the foreground and waits until it listens.
    ///
    /// # Panics
    /// With its messages, when it does not come up.
    pub(crate) fn start(self, configuration: &str) -> Ringwall {
        self.start_with(configuration, "daemon off;")
    }

    /// [`Site::start`] with these `-g` directives.
    pub(crate) fn start_with(mut self, configuration: &str, globals: &str) -> Ringwall {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            match self.try_start(configuration, globals) {
                Ok(child) => {
                    return Ringwall { child, site: self };
                }
                Err(said) if said.contains("Address already in use") => self.ports.clear(),
                Err(said) => panic!("ringwall did not start: {said}\n{configuration}"),
            }
        }
        panic!("no free ports in {ATTEMPTS} attempts");
    }

    fn try_start(&mut self, configuration: &str, globals: &str) -> Result<Child, String> {
        let path = self.write("ringwall.conf", configuration);
        let stderr = fs::File::create(self.file("stderr.txt")).expect("writable");
        let mut child = Command::new(binary())
            // Where a core would go.
            .current_dir(self.path())
            .arg("-p")
            .arg(self.path())
            .arg("-c")
            .arg(path)
            .args(["-g", globals])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary under test exists");
        let ports: Vec<u16> = self.listening_ports();
        let up = eventually("ringwall listens and has written its pid", || {
            if let Some(status) = child.try_wait().expect("our child") {
                return Some(Err(status));
            }
            let wrote = self.read("ringwall.pid").trim() == child.id().to_string();
            (wrote && ports.iter().all(|port| is_listening(*port))).then_some(Ok(()))
        });
        up.map(|()| child)
            .map_err(|status| format!("{status}: {}", self.read("stderr.txt")))
    }

    /// The ports behind `listen` in the written configuration.
    fn listening_ports(&self) -> Vec<u16> {
        let text = self.read("ringwall.conf");
        self.ports
            .values()
            .copied()
            .filter(|port| {
                text.split(['\n', ';', '{'])
                    .map(str::trim)
                    .filter(|directive| directive.starts_with("listen "))
                    .any(|directive| directive.contains(&port.to_string()))
            })
            .collect()
    }
}

/// Whether any IPv4 socket listens on this port; asks the kernel instead of
/// connecting, so that no stray connection shows up in logs and counters.
pub(crate) fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    fs::read_to_string("/proc/net/tcp")
        .expect("Linux")
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?, words.nth(1)?))
        })
        .any(|(address, state)| address.ends_with(&wanted) && state == LISTEN)
}

/// A running instance.
pub(crate) struct Ringwall {
    child: Child,
    pub(crate) site: Site,
}

impl Ringwall {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// 127.0.0.1 at the port behind `@NAME@`.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        local(
            *self
                .site
                .ports
                .get(name)
                .expect("a port of the configuration"),
        )
    }

    /// What it wrote to its error log (`error.log`), to the log that is there
    /// where none is configured, and to standard error.
    pub(crate) fn complaints(&self) -> String {
        ["error.log", "logs/error.log", "stderr.txt"]
            .map(|name| self.site.read(name))
            .concat()
    }

    /// Its access log (`access.log`).
    pub(crate) fn access_log(&self) -> String {
        self.site.read("access.log")
    }

    /// Waits for a line of the error log or standard error with all these parts.
    pub(crate) fn complaint_with(&self, parts: &[&str]) -> String {
        eventually(&format!("the error log has a line with {parts:?}"), || {
            self.complaints()
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(str::to_owned)
        })
    }

    /// Waits for a line of the access log with all these parts.
    pub(crate) fn access_with(&self, parts: &[&str]) -> String {
        eventually(&format!("the access log has a line with {parts:?}"), || {
            self.access_log()
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(str::to_owned)
        })
    }

    /// Rewrites the configuration, placeholders filled in.
    pub(crate) fn rewrite(&mut self, configuration: &str) {
        self.site.write("ringwall.conf", configuration);
    }

    /// SIGHUP.
    pub(crate) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits until it ends.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("ringwall ends", || {
            self.child.try_wait().expect("our child")
        })
    }

    /// Open descriptors of its process.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .map(Iterator::count)
            .unwrap_or_default()
    }

    /// Resident memory of its process, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        status_field(self.pid(), "VmRSS:").expect("it runs")
    }

    /// Threads of its process.
    pub(crate) fn threads(&self) -> u64 {
        status_field(self.pid(), "Threads:").expect("it runs")
    }
}

fn status_field(pid: u32, name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

impl Drop for Ringwall {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- error log and stderr ---\n{}", self.complaints());
            let log = self.access_log();
            let last = log.lines().count().saturating_sub(20);
            eprintln!("--- the access log's end ---");
            log.lines().skip(last).for_each(|line| eprintln!("{line}"));
        }
        // Both fail only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that ends with its test.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemonised instance, known by its pid file alone.
pub(crate) struct Daemon {
    pid: u32,
}

impl Daemon {
    /// Waits for the pid file.
    pub(crate) fn from_pid_file(path: &Path) -> Self {
        let pid = eventually("the pid file names a running process", || {
            let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            is_running(pid).then_some(pid)
        });
        Self { pid }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        send_signal(self.pid, Signal::KILL);
    }
}

/// A whole configuration round an `http` block's content: one worker, pid,
/// error log at `info`, combined access log, all in the site's directory.
pub(crate) fn http(content: &str) -> String {
    whole("worker_processes 1;", "", content)
}

/// [`http`] with main-context and `events` directives of one's own.
pub(crate) fn whole(main: &str, events: &str, content: &str) -> String {
    let connections = if events.contains("worker_connections") {
        ""
    } else {
        "worker_connections 1024;"
    };
    format!(
        "{main}\n\
         pid @DIR@/ringwall.pid;\n\
         error_log @DIR@/error.log info;\n\
         events {{ {connections} {events} }}\n\
         http {{\n\
         access_log @DIR@/access.log;\n\
         {content}\n\
         }}\n"
    )
}

/// A plain HTTP server at `@HTTP@` that passes everything to a backend.
pub(crate) fn plain_proxy(backend: &str) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST};\n\
         location / {{ proxy_pass {backend}; }} }}"
    ))
}

/// The `ssl_*` lines for the files of [`Site::with_pki`].
pub(crate) const CERTIFICATES: &str =
    "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;";

/// The lines that demand a client certificate of the test CA.
pub(crate) const MUTUAL: &str = "ssl_client_certificate @DIR@/ca.crt; ssl_verify_client on;";

/// A mutual-TLS server at `@TLS@` that passes everything to a backend.
pub(crate) fn mutual_proxy(backend: &str) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         {CERTIFICATES} {MUTUAL}\n\
         location / {{ proxy_pass {backend}; }} }}"
    ))
}
