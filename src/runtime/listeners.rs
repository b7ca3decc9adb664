//! The listening sockets of the process, kept across reloads.

use std::io;
use std::time::Duration;

use crate::config::{Config, ListenAddress, Listener, SoKeepalive};
use crate::net::listener::{BindAddress, BindOptions, BoundListener, Keepalive};

use super::pidfile::describe;
use super::upgrade::Inherited;

/// How often a busy address is tried at start, and how long between: an
/// instance that is being replaced may need a moment to let go.
const BIND_ATTEMPTS: usize = 5;
const BIND_PAUSE: Duration = Duration::from_millis(500);

/// An address with its sockets: one, or one for each worker with `reuseport`.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) address: ListenAddress,
    /// systemd's, if the socket is.
    pub(super) name: Option<String>,
    options: BindOptions,
    sockets: Vec<BoundListener>,
}

impl Listening {
    /// All of them.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &BoundListener> {
        self.sockets.iter()
    }

    /// The socket that this worker accepts from.
    pub(super) fn socket(&self, worker: usize) -> Option<&BoundListener> {
        self.sockets.get(worker % self.sockets.len().max(1))
    }
}

/// Opens what the configuration lists and `current` does not hold yet, and
/// gives back all sockets in the configuration's order. On an error nothing
/// has changed: sockets just opened are closed again. At the `start` busy
/// addresses are waited for, and sockets that the process was started with are
/// used instead of new ones; those that no address asks for are left.
///
/// # Errors
/// Nginx's message about the first address that cannot be bound.
pub(super) fn reconcile(
    current: &mut Vec<Listening>,
    config: &Config,
    workers: usize,
    start: Option<&mut Vec<Inherited>>,
) -> Result<(), String> {
    let patient = start.is_some();
    let mut none = Vec::new();
    let inherited = start.unwrap_or(&mut none);
    let mut opened = Vec::new();
    // A covered address is served by the wildcard socket of its port.
    let bound = || {
        config
            .listeners
            .iter()
            .filter(|listener| listener.covered_by.is_none())
    };
    for listener in bound() {
        let options = options(listener);
        let wanted = if options.reuseport { workers } else { 1 };
        let kept = current.iter().find(|kept| kept.address == listener.address);
        let missing = match kept {
            Some(kept) if kept.options.reuseport == options.reuseport => {
                wanted.saturating_sub(kept.sockets.len())
            }
            Some(_) | None => wanted,
        };
        let mut sockets = Vec::new();
        let mut name = None;
        for _ in 0..missing {
            let known = inherited
                .iter()
                .position(|known| known.address == listener.address);
            sockets.push(match known.map(|index| inherited.swap_remove(index)) {
                Some(known) => {
                    known.socket.take_over(options).map_err(|error| {
                        let (address, reason) = (known.address, describe(&error));
                        format!("listen() to {address} failed ({reason})")
                    })?;
                    name = name.or(known.name);
                    known.socket
                }
                None => bind(&listener.address, options, patient)?,
            });
        }
        opened.push((listener.address.clone(), name, options, wanted, sockets));
    }
    let mut old = std::mem::take(current);
    for (address, mut name, options, wanted, mut sockets) in opened {
        let position = old.iter().position(|kept| kept.address == address);
        if let Some(kept) = position.map(|position| old.swap_remove(position))
            && kept.options.reuseport == options.reuseport
        {
            let fresh = std::mem::replace(&mut sockets, kept.sockets);
            sockets.extend(fresh);
            sockets.truncate(wanted);
            name = kept.name;
            if kept.options.deferred != options.deferred {
                for socket in sockets.iter().filter(|socket| !socket.is_unix()) {
                    // TCP refuses neither.
                    let _ = socket.defer(options.deferred);
                }
            }
        }
        current.push(Listening {
            address,
            name,
            options,
            sockets,
        });
    }
    remove_socket_files(&old);
    Ok(())
}

/// Removes the files of Unix sockets that are used no more. systemd's stay: it
/// goes on listening there.
pub(super) fn remove_socket_files(listening: &[Listening]) {
    let own = listening.iter().filter(|each| each.name.is_none());
    for listening in own {
        if let ListenAddress::Unix(path) = &listening.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn options(listener: &Listener) -> BindOptions {
    BindOptions {
        backlog: listener.backlog,
        reuseport: listener.reuseport,
        deferred: listener.deferred,
        ipv6only: listener.ipv6only,
        keepalive: listener.so_keepalive.map(|keepalive| match keepalive {
            SoKeepalive::Off => Keepalive::Off,
            SoKeepalive::On {
                idle,
                interval,
                count,
            } => Keepalive::On {
                idle,
                interval,
                count,
            },
        }),
    }
}

fn bind(
    address: &ListenAddress,
    options: BindOptions,
    patient: bool,
) -> Result<BoundListener, String> {
    let target = match address {
        ListenAddress::Inet(inet) => BindAddress::Inet(*inet),
        ListenAddress::Unix(path) => BindAddress::Unix(path.clone()),
    };
    let attempts = if patient { BIND_ATTEMPTS } else { 1 };
    let mut last = None;
    for attempt in 0..attempts {
        if attempt > 0 {
            std::thread::sleep(BIND_PAUSE);
        }
        match BoundListener::bind(&target, options) {
            Ok(bound) => return Ok(bound),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Some(error),
            Err(error) => return Err(format!("bind() to {address} failed ({})", describe(&error))),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(format!("bind() to {address} failed ({})", describe(&error)))
}
