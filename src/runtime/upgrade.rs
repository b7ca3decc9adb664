//! SIGUSR2: another binary takes over, and no connection notices.
//!
//! ```text
//! old: SIGUSR2 ── starts the program file anew, with the listening sockets ──► new
//! old: serves on                                    new: reads the configuration,
//! old: serves on                                         starts its workers
//! old: drains and ends  ◄── "ready" through a pipe ──── new: serves
//!    or, if the new process ends instead: serves on as if nothing had been
//! ```
//!
//! The sockets are named in `NGINX`, as Nginx does it: so a running Nginx can
//! hand over to ringwall too. Unlike Nginx's the old process needs no SIGQUIT.

use std::env;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::iter;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use signal_hook::consts::SIGALRM;

use crate::config::ListenAddress;
use crate::net::listener::{BindAddress, BoundListener, address_of_inherited, take_inherited};

use super::listeners::Listening;
use super::{privileges, sandbox};

/// Descriptors of listening sockets, each with a `;` behind it.
const SOCKETS: &str = "NGINX";
/// systemd's names of them, in the same order, as in `LISTEN_FDNAMES`.
const SOCKET_NAMES: &str = "RINGWALL_SOCKET_NAMES";
/// The descriptor by which the new process says that it is ready.
const READY: &str = "RINGWALL_READY";
const READY_WORD: &[u8] = b"ready\n";
/// systemd's, for sockets that it has opened (sd_listen_fds(3)).
const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The first of them.
const ACTIVATION_START: i32 = 3;

/// A new process on its way.
#[derive(Debug)]
pub(super) struct Upgrade {
    child: Child,
    outcome: Receiver<Outcome>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It serves.
    Ready,
    /// It has ended.
    Failed,
}

impl Upgrade {
    /// Starts the program with the sockets of this process, where this process
    /// was started: its arguments may be relative. What becomes of it is told
    /// later, by a SIGALRM to this process and [`Upgrade::outcome`].
    ///
    /// # Errors
    /// The program cannot be started.
    pub(super) fn start(
        program: &Path,
        started_in: Option<&Path>,
        listening: &[Listening],
    ) -> io::Result<Self> {
        // Copies without close-on-exec, for this child only: no other is
        // started meanwhile.
        let sockets = listening
            .iter()
            .flat_map(Listening::sockets)
            .map(BoundListener::inheritable)
            .collect::<io::Result<Vec<OwnedFd>>>()?;
        let (reader, writer) = io::pipe()?;
        let ready = rustix::io::dup(&writer)?;
        drop(writer);
        let numbers: String = sockets
            .iter()
            .map(|socket| format!("{};", socket.as_raw_fd()))
            .collect();
        let names: Vec<&str> = listening
            .iter()
            .flat_map(|each| each.sockets().map(|_| each.name.as_deref().unwrap_or("")))
            .collect();
        let mut command = Command::new(program);
        command
            .args(env::args_os().skip(1))
            .env(SOCKETS, numbers)
            .env(SOCKET_NAMES, names.join(":"))
            .env(READY, ready.as_raw_fd().to_string())
            // It is about this process.
            .env_remove("WATCHDOG_PID");
        if let Some(folder) = started_in {
            command.current_dir(folder);
        }
        ACTIVATION.iter().for_each(|name| {
            command.env_remove(name);
        });
        let child = privileges::with_inherited_capabilities(|| command.spawn())?;
        let (sender, outcome) = mpsc::channel();
        thread::Builder::new()
            .name("upgrade".into())
            .spawn(move || {
                sandbox::confine_bystander();
                // Nobody listens any more where this process ends.
                let _ = sender.send(wait_for(reader));
                let _ = signal_hook::low_level::raise(SIGALRM);
            })?;
        Ok(Self { child, outcome })
    }

    /// The new process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What became of it, once that is known. One that has failed is gone then.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcome.try_recv().ok()?;
        if outcome == Outcome::Failed {
            // It has closed the pipe without a word: if it is not over yet, it
            // is of no use.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        Some(outcome)
    }
}

fn wait_for(mut reader: PipeReader) -> Outcome {
    let mut said = [0; READY_WORD.len()];
    match reader.read_exact(&mut said) {
        Ok(()) if said == READY_WORD => Outcome::Ready,
        _ => Outcome::Failed,
    }
}

/// Whether this process was started by the one whose place it is to take.
pub(super) fn is_replacing() -> bool {
    env::var_os(SOCKETS).is_some()
}

/// A socket that this process was started with, by systemd or by the process that
/// it replaces.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) address: ListenAddress,
    pub(super) socket: BoundListener,
    /// systemd's name for it; it is systemd's then, also after SIGUSR2.
    pub(super) name: Option<String>,
}

/// Takes them. To be called once, before anything else is opened.
pub(super) fn inherited() -> Vec<Inherited> {
    let taken = descriptors().into_iter().filter_map(|(number, name)| {
        let (address, socket) = BoundListener::adopt(take_inherited(number)?).ok()?;
        Some(Inherited {
            address: listen_address(address),
            socket,
            name,
        })
    });
    taken.collect()
}

/// The addresses of those that have a name, without taking them.
pub(super) fn named() -> Vec<(String, ListenAddress)> {
    let named = descriptors().into_iter().filter_map(|(number, name)| {
        let address = listen_address(address_of_inherited(number)?);
        Some((name?, address))
    });
    named.collect()
}

/// Their numbers and names.
fn descriptors() -> Vec<(RawFd, Option<String>)> {
    let names = |variable: &str| {
        let names = env::var(variable).unwrap_or_default();
        let names: Vec<String> = names.split(':').map(str::to_owned).collect();
        let name = |name: String| (!name.is_empty()).then_some(name);
        names.into_iter().map(name).chain(iter::repeat(None))
    };
    let handed_over = env::var(SOCKETS).unwrap_or_default();
    let handed_over = handed_over
        .split([';', ':'])
        .filter_map(|number| number.parse().ok())
        .zip(names(SOCKET_NAMES));
    let is_for_us = env::var(ACTIVATION[0]).is_ok_and(|pid| {
        pid.parse::<u32>()
            .is_ok_and(|pid| pid == std::process::id())
    });
    let activated = env::var(ACTIVATION[1])
        .ok()
        .and_then(|count| count.parse::<i32>().ok())
        .filter(|_| is_for_us)
        .unwrap_or(0);
    let activated = ACTIVATION_START..ACTIVATION_START.saturating_add(activated.clamp(0, 1024));
    handed_over
        .chain(activated.zip(names(ACTIVATION[2])))
        .collect()
}

fn listen_address(address: BindAddress) -> ListenAddress {
    match address {
        BindAddress::Inet(address) => ListenAddress::Inet(address),
        BindAddress::Unix(path) => ListenAddress::Unix(path),
    }
}

/// Tells the process that is being replaced, if there is one.
pub(super) fn say_ready() {
    let number = env::var(READY).ok().and_then(|text| text.parse().ok());
    if let Some(pipe) = number.and_then(take_inherited) {
        // It may have ended meanwhile.
        let _ = PipeWriter::from(pipe).write_all(READY_WORD);
    }
}

/// Where the old process writes down its id meanwhile, as Nginx does.
pub(super) fn old_pid_file(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".oldbin");
    name.into()
}
