//! What systemd is told, where it asks to be (sd_notify(3)).

use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager; without one nothing is said.
#[derive(Debug, Default)]
pub(super) struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Half of the time after which it takes silence for death.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says.
    pub(super) fn from_environment() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&name),
        };
        let to = address
            .ok()
            .filter(|_| !name.is_empty())
            .and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| to.is_some() && is_for_us);
        Self {
            to,
            watchdog: watchdog.map(|limit| Duration::from_micros(limit / 2)),
        }
    }

    /// How often [`Manager::alive`] is to be called.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Start or reload is over.
    pub(super) fn ready(&self) {
        self.say("READY=1");
    }

    /// A reload has begun.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Another process has taken over.
    pub(super) fn replaced_by(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}\nREADY=1"));
    }

    /// The main thread still turns.
    pub(super) fn alive(&self) {
        if self.watchdog.is_some() {
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, what: &str) {
        if let Some((socket, address)) = &self.to {
            // A manager that does not listen is no reason to stop.
            let _ = socket.send_to_addr(what.as_bytes(), address);
        }
    }
}
