//! Chromium without a window, as a user whose administrator has set it up: it
//! trusts the test CA and shows its client certificate without asking.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::pki::OpenSsl;
use super::ringwall::send_signal;
use super::tools;

/// A page that is open. What it finds it must send to a backend of the test.
pub(crate) struct Browser {
    /// Holds the browser's processes: they end with the first of them.
    namespace: Child,
    home: PathBuf,
}

impl Browser {
    /// Opens a page, with `ca.crt`, `client.crt` and `client.key` of `dir`; any
    /// server below the domain `site` may have the certificate.
    ///
    /// Only names below `site` lead anywhere, and they to 127.0.0.1.
    pub(crate) fn open(dir: &Path, site: &str, url: &str) -> Self {
        let home = dir.join("home");
        trust(dir, &home.join(".pki/nssdb"));
        let managed = home.join("etc/policies/managed");
        fs::create_dir_all(&managed).expect("writable");
        let policy = format!(
            r#"{{"AutoSelectCertificateForUrls": ["{{\"pattern\":\"https://[*.]{site}\",\"filter\":{{}}}}"]}}"#
        );
        fs::write(managed.join("test.json"), policy).expect("writable");
        // Policies are read from there alone, and the machine's own folder is not ours.
        let line = format!(
            "mount --bind \"$HOME/etc\" /etc/chromium && exec chromium --headless=new --no-sandbox \
             --user-data-dir=\"$HOME/profile\" --no-first-run --disable-background-networking \
             --disable-dev-shm-usage --disable-gpu \
             --host-resolver-rules='MAP *.{site} 127.0.0.1, MAP * ~NOTFOUND' '{url}'"
        );
        let said = File::create(home.join("said.txt")).expect("writable");
        let namespace = Command::new("unshare")
            .args(["-rm", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-c", &line])
            .env("HOME", &home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .expect("util-linux");
        Self { namespace, home }
    }
}

/// Makes the store of certificates that Chromium shares with other programs.
fn trust(dir: &Path, store: &Path) {
    fs::create_dir_all(store).expect("writable");
    OpenSsl::in_dir(dir).store("client");
    let store = format!("sql:{}", store.display());
    for (program, arguments) in [
        ("certutil", "-N --empty-password -d"),
        ("certutil", "-A -n ca -t C,, -i ca.crt -d"),
        ("pk12util", "-i client.p12 -W secret -d"),
    ] {
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.push(&store);
        tools::run(dir, program, &arguments).expect_ok();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(self.home.join("said.txt")).unwrap_or_default();
            eprintln!("--- the browser ---\n{said}");
        }
        // Once the first process of a namespace is waited for, none of the others
        // is left that could still write into the folder.
        let pid = self.namespace.id();
        let first = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        if let Some(first) = first.ok().and_then(|pid| pid.trim().parse().ok()) {
            send_signal(first, Signal::KILL);
        } else {
            // It has ended by itself, or has not begun.
            let _ = self.namespace.kill();
        }
        let _ = self.namespace.wait();
    }
}
