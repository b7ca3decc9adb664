//! Against `openssl s_client` over a real socket, as an operator would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;

/// What the server side of one connection saw.
struct Seen {
    resumed: bool,
    client: bool,
    /// KeyUpdates that we sent.
    updates: usize,
    /// How the connection ended, if not by close_notify.
    error: Option<Failure>,
}

/// Answers every line in upper case until the client closes.
fn echo(mut stream: TcpStream, config: Arc<ServerConfig>) -> Seen {
    // Ends the test, instead of hanging, where a side waits for the other.
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    let mut server = Server::new(config);
    let mut updates = 0;
    let mut buf = [0; 1000];
    let error = loop {
        let read = match stream.read(&mut buf) {
            Ok(0) | Err(_) => break None,
            Ok(read) => read,
        };
        let established = server.established.is_some();
        let received = server.receive(&buf[..read]);
        // After the handshake, only KeyUpdates and alerts are there unasked.
        if established && received.is_ok() && !server.out.is_empty() {
            updates += 1;
        }
        if received.is_ok() && !server.plain.is_empty() {
            let answer = server.plain.to_ascii_uppercase();
            server.plain.clear();
            server.send(&answer);
        }
        stream.write_all(&server.out).unwrap();
        server.out.clear();
        if let Err(error) = received {
            break Some(error);
        }
        if server.closed {
            let mut out = Vec::new();
            server.session().seal_close_notify(&mut out).unwrap();
            let _ = stream.write_all(&out);
            break None;
        }
    };
    let established = server.established.as_ref();
    Seen {
        resumed: established.is_some_and(|e| e.resumed),
        client: established.is_some_and(|e| e.peer_certificates.is_some()),
        updates,
        error,
    }
}

struct Talk {
    openssl: Child,
    answers: BufReader<ChildStdout>,
    remarks: BufReader<ChildStderr>,
    server: JoinHandle<Seen>,
}

impl Talk {
    fn start(config: &Arc<ServerConfig>, folder: &Path, args: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = config.clone();
        let server = std::thread::spawn(move || echo(listener.accept().unwrap().0, config));
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-CAfile", "ca.pem"])
            .args(["-servername", "server.example", "-verify_return_error"])
            .args(["-cert", "client.pem", "-key", "client.key"])
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let answers = BufReader::new(openssl.stdout.take().unwrap());
        let remarks = BufReader::new(openssl.stderr.take().unwrap());
        Self {
            openssl,
            answers,
            remarks,
            server,
        }
    }

    /// One line is one read of s_client's: it takes a command only as the
    /// first byte of a read.
    fn say(&mut self, line: &str) {
        let stdin = self.openssl.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Gives a command, which s_client acknowledges on its standard error.
    fn command(&mut self, letter: &str, acknowledged: &str) {
        self.say(letter);
        wait_for(&mut self.remarks, acknowledged);
    }

    fn expect(&mut self, wanted: &str) {
        wait_for(&mut self.answers, wanted);
    }

    fn finish(mut self) -> Seen {
        drop(self.openssl.stdin.take());
        self.answers.read_to_end(&mut Vec::new()).unwrap();
        self.openssl.wait().unwrap();
        self.server.join().unwrap()
    }
}

/// Reads up to a line that ends so: s_client flushes its own text in the
/// middle of lines, and what the server sent follows at once.
fn wait_for(from: &mut impl BufRead, wanted: &str) {
    let mut seen = String::new();
    loop {
        let read = from.read_line(&mut seen).unwrap();
        assert!(read > 0, "no {wanted:?} in {seen}");
        if seen.trim_end().ends_with(wanted) {
            return;
        }
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", pki().ca.pem());
    write("client.pem", pki().client.certificate.pem());
    write("client.key", pki().client.key.serialize_pem());
    folder
}

#[test]
fn openssl_speaks_both_versions_and_resumes() {
    let folder = folder();
    for (version, flag) in [(V12, "-tls1_2"), (V13, "-tls1_3")] {
        for resume in [Resume::Never, Resume::Cache, Resume::Tickets] {
            let setup = Setup {
                resume,
                client_auth: true,
                ..Setup::new(version)
            };
            let config = Arc::new(setup.server());
            for (round, session) in ["-sess_out", "-sess_in"].into_iter().enumerate() {
                if round == 1 && resume == Resume::Never {
                    continue;
                }
                let args = [flag, session, "session.pem"];
                let mut talk = Talk::start(&config, folder.path(), &args);
                talk.say("hello");
                talk.expect("HELLO");
                let seen = talk.finish();
                assert!(seen.error.is_none(), "{setup:?}: {:?}", seen.error);
                assert!(seen.client, "the client's certificate, {setup:?}");
                assert_eq!(seen.resumed, round == 1, "{setup:?}");
            }
        }
    }
}

#[test]
fn openssl_updates_keys() {
    let folder = folder();
    let config = Arc::new(Setup::new(V13).server());
    let mut talk = Talk::start(&config, folder.path(), &["-tls1_3"]);
    talk.say("ready");
    talk.expect("READY");
    // `k` updates the client's keys; `K` asks us to update ours too.
    for (command, line) in [("k", "two"), ("K", "three"), ("K", "four")] {
        talk.command(command, "KEYUPDATE");
        talk.say(line);
        talk.expect(&line.to_uppercase());
    }
    let seen = talk.finish();
    assert!(seen.error.is_none(), "{:?}", seen.error);
    assert_eq!(seen.updates, 2, "answers to the two that asked");
}

#[test]
fn openssl_may_not_renegotiate() {
    let folder = folder();
    let config = Arc::new(Setup::new(V12).server());
    let mut talk = Talk::start(&config, folder.path(), &["-tls1_2"]);
    talk.say("ready");
    talk.expect("READY");
    talk.command("R", "RENEGOTIATING");
    let seen = talk.finish();
    // OpenSSL itself refuses unless the server supports secure renegotiation,
    // which rustls never says beyond the initial handshake; either way no
    // second handshake takes place.
    assert!(matches!(
        seen.error,
        None | Some(Failure::Session(SessionError::Renegotiation))
    ));
}
