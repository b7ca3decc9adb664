//! Listening sockets: opened once by the main thread, accepted from by every
//! worker through descriptors of its own.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};
use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::addr::ClientAddr;
use super::buffers::{STANDARD, set_defer_accept, with_fd};
use super::deadlines::Deadline;
use super::now;
use super::operations::{Operation, completed};
use super::socket::Socket;

/// What to bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// TCP.
    Inet(SocketAddr),
    /// A Unix domain socket's path; a stale socket file there is replaced.
    Unix(PathBuf),
}

/// How to bind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindOptions {
    /// Connections that wait to be accepted, capped by `net.core.somaxconn`.
    pub backlog: i32,
    /// `SO_REUSEPORT`: several sockets share the address.
    pub reuseport: bool,
    /// `IPV6_V6ONLY`.
    pub ipv6only: bool,
    /// `SO_KEEPALIVE`, if the operator wants it set.
    pub keepalive: Option<Keepalive>,
    /// `TCP_DEFER_ACCEPT`: connections are given out once they have data. Of no
    /// meaning to a Unix domain socket.
    pub deferred: bool,
}

/// How long a silent connection is held back, seconds, as in Nginx: the kernel
/// cannot be asked how long one was, so the longer this is, the longer it has
/// beyond what the operator allows it.
const DEFERRED: u8 = 1;

/// `SO_KEEPALIVE`, and the system's settings where others are wanted (tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keepalive {
    /// Off.
    Off,
    /// On.
    On {
        /// `TCP_KEEPIDLE`, in whole seconds.
        idle: Option<Duration>,
        /// `TCP_KEEPINTVL`, likewise.
        interval: Option<Duration>,
        /// `TCP_KEEPCNT`.
        count: Option<u32>,
    },
}

impl Keepalive {
    /// Accepted sockets inherit it.
    fn set(self, socket: &socket2::Socket) -> io::Result<()> {
        let Self::On {
            idle,
            interval,
            count,
        } = self
        else {
            return socket.set_keepalive(false);
        };
        let mut times = socket2::TcpKeepalive::new();
        if let Some(idle) = idle {
            times = times.with_time(idle);
        }
        if let Some(interval) = interval {
            times = times.with_interval(interval);
        }
        if let Some(count) = count {
            times = times.with_retries(count);
        }
        socket.set_tcp_keepalive(&times)
    }
}

/// A bound and listening socket.
#[derive(Debug)]
pub struct BoundListener {
    fd: OwnedFd,
    unix: bool,
}

impl BoundListener {
    /// Binds and listens. Close-on-exec, blocking; `TCP_NODELAY` is set here
    /// because accepted sockets inherit it, which saves a call for each.
    ///
    /// # Errors
    /// Whatever `bind(2)` and its kin report.
    pub fn bind(address: &BindAddress, options: BindOptions) -> io::Result<Self> {
        let (domain, name) = match address {
            BindAddress::Inet(inet) => (Domain::for_address(*inet), SockAddr::from(*inet)),
            BindAddress::Unix(path) => {
                if fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
                    && std::os::unix::net::UnixStream::connect(path).is_err()
                {
                    fs::remove_file(path)?;
                }
                (Domain::UNIX, SockAddr::unix(path)?)
            }
        };
        let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
        let unix = domain == Domain::UNIX;
        if !unix {
            socket.set_reuse_address(true)?;
            socket.set_tcp_nodelay(true)?;
            if options.reuseport {
                socket.set_reuse_port(true)?;
            }
            if domain == Domain::IPV6 {
                socket.set_only_v6(options.ipv6only)?;
            }
            if let Some(keepalive) = options.keepalive {
                keepalive.set(&socket)?;
            }
            if options.deferred {
                set_defer_accept(&socket, DEFERRED)?;
            }
        }
        socket.bind(&name)?;
        socket.listen(options.backlog)?;
        Ok(Self {
            fd: socket.into(),
            unix,
        })
    }

    /// A socket that another process has bound and listens on, with its address.
    ///
    /// # Errors
    /// It is something else.
    pub fn adopt(fd: OwnedFd) -> io::Result<(BindAddress, Self)> {
        let address = listens_at(&SockRef::from(&fd))?;
        let unix = matches!(address, BindAddress::Unix(_));
        Ok((address, Self { fd, unix }))
    }

    /// Makes it listen as this process wants it; what it was bound with stays.
    ///
    /// # Errors
    /// Whatever the system calls report.
    pub fn take_over(&self, options: BindOptions) -> io::Result<()> {
        let socket = SockRef::from(&self.fd);
        if !self.unix {
            socket.set_tcp_nodelay(true)?;
            if let Some(keepalive) = options.keepalive {
                keepalive.set(&socket)?;
            }
            self.defer(options.deferred)?;
        }
        rustix::net::listen(&self.fd, options.backlog)?;
        Ok(())
    }

    /// Has it give out connections once they have data, or as they come.
    ///
    /// # Errors
    /// Whatever `setsockopt(2)` reports, as of a Unix domain socket.
    pub fn defer(&self, deferred: bool) -> io::Result<()> {
        set_defer_accept(&self.fd, if deferred { DEFERRED } else { 0 })
    }

    /// Whether calls on it do not wait, for whoever else has it too.
    pub fn is_nonblocking(&self) -> bool {
        rustix::fs::fcntl_getfl(&self.fd)
            .is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
    }

    /// A descriptor that a program started from here has too.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn inheritable(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::dup(&self.fd)?)
    }

    /// A descriptor of its own for one worker.
    ///
    /// `nonblocking` is a property of the socket, not of the descriptor, and
    /// must suit the driver: epoll needs it, io_uring's accept would answer
    /// `EAGAIN` instead of waiting.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn duplicate(&self, nonblocking: bool) -> io::Result<OwnedFd> {
        SockRef::from(&self.fd).set_nonblocking(nonblocking)?;
        self.fd.try_clone()
    }

    /// Whether it is a Unix domain socket.
    pub fn is_unix(&self) -> bool {
        self.unix
    }
}

/// Takes a descriptor that this process was started with; `None` if there is
/// none of this number, or if it was taken before.
pub fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    super::buffers::take_inherited(number)
}

/// Where the socket listens that has this number, for [`take_inherited`] later.
pub fn address_of_inherited(number: RawFd) -> Option<BindAddress> {
    if number <= STANDARD {
        return None;
    }
    with_fd(&number, |fd| listens_at(&SockRef::from(&fd)).ok())
}

fn listens_at(socket: &SockRef<'_>) -> io::Result<BindAddress> {
    let other = || io::Error::from(io::ErrorKind::InvalidInput);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(other());
    }
    let name = socket.local_addr()?;
    match (name.as_socket(), name.as_pathname()) {
        (Some(inet), _) => Ok(BindAddress::Inet(inet)),
        (None, Some(path)) => Ok(BindAddress::Unix(path.to_owned())),
        (None, None) => Err(other()),
    }
}

/// A worker's side of a listening socket.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(monoio::net::TcpListener),
    /// Unix domain.
    Unix(monoio::net::UnixListener),
}

impl Acceptor {
    /// Takes a descriptor made by [`BoundListener::duplicate`] into this
    /// worker's runtime.
    ///
    /// # Errors
    /// When the runtime cannot register it.
    pub fn new(fd: OwnedFd, unix: bool) -> io::Result<Self> {
        if unix {
            monoio::net::UnixListener::from_std(fd.into()).map(Self::Unix)
        } else {
            monoio::net::TcpListener::from_std(fd.into()).map(Self::Tcp)
        }
    }

    /// Waits for a connection.
    ///
    /// Must be ended through `stop` and then awaited to its end: a dropped
    /// accept leaks the descriptor that it may already have been given.
    ///
    /// # Errors
    /// `ECANCELED` after [`Stop::stop`]; otherwise what `accept(2)` reports.
    pub async fn accept(&self, stop: StopHandle) -> io::Result<(Socket, ClientAddr)> {
        match self {
            Self::Tcp(listener) => {
                let accepted = listener.cancelable_accept(stop.0).await;
                now::refresh();
                completed(Operation::Accept);
                let (stream, address) = accepted?;
                Ok((stream.into(), ClientAddr::Inet(address)))
            }
            Self::Unix(listener) => {
                let accepted = listener.cancelable_accept(stop.0).await;
                now::refresh();
                completed(Operation::Accept);
                let (stream, _) = accepted?;
                Ok((stream.into(), ClientAddr::Unix))
            }
        }
    }
}

impl Acceptor {
    /// Whether a connection is waiting to be accepted. Does not block.
    pub fn has_waiting(&self) -> bool {
        match self {
            Self::Tcp(listener) => with_fd(listener, is_readable),
            Self::Unix(listener) => with_fd(listener, is_readable),
        }
    }

    /// Accepts a connection if one is there, and gives up after `patience`:
    /// another worker may have been quicker.
    pub async fn accept_waiting(
        &self,
        patience: Duration,
    ) -> Option<io::Result<(Socket, ClientAddr)>> {
        if !self.has_waiting() {
            return None;
        }
        let stop = Stop::default();
        let mut accept = pin!(self.accept(stop.handle()));
        let deadline = Deadline::new();
        deadline.arm(patience);
        if let Ok(accepted) = deadline.run(accept.as_mut()).await {
            return Some(accepted);
        }
        stop.stop();
        accept.await.ok().map(Ok)
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = rustix::event::Timespec::default();
    rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Ends accepts.
#[derive(Default)]
pub struct Stop(Canceller);

/// What an accept is given so that it can be ended.
#[derive(Clone)]
pub struct StopHandle(CancelHandle);

impl Stop {
    /// For [`Acceptor::accept`].
    pub fn handle(&self) -> StopHandle {
        StopHandle(self.0.handle())
    }

    /// Ends every accept that holds a handle, and those still to come.
    pub fn stop(self) {
        // The canceller that this returns is for further operations.
        let _ = self.0.cancel();
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

impl std::fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StopHandle")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_is_looked_after_as_the_listener_says() {
        let address = BindAddress::Inet(([127, 0, 0, 1], 0).into());
        let listener = BoundListener::bind(
            &address,
            BindOptions {
                backlog: 1,
                reuseport: false,
                ipv6only: false,
                keepalive: Some(Keepalive::On {
                    idle: Some(Duration::from_secs(1800)),
                    interval: None,
                    count: Some(10),
                }),
                deferred: false,
            },
        )
        .unwrap();
        let listener = std::net::TcpListener::from(listener.fd);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(
            accepted.tcp_keepalive_time().unwrap(),
            Duration::from_secs(1800)
        );
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 10);
    }

    #[test]
    fn who_is_silent_is_held_back_where_that_is_asked_for_and_only_there() {
        let listener = |deferred| {
            let address = BindAddress::Inet(([127, 0, 0, 1], 0).into());
            let options = BindOptions {
                backlog: 8,
                reuseport: false,
                ipv6only: false,
                keepalive: None,
                deferred,
            };
            let bound = BoundListener::bind(&address, options).unwrap();
            let BindAddress::Inet(at) = listens_at(&SockRef::from(&bound.fd)).unwrap() else {
                panic!("an address of the internet");
            };
            (bound, at)
        };
        // Whether the one that speaks overtakes the silent one before it.
        let overtakes = |bound: &BoundListener, at| {
            let silent = std::net::TcpStream::connect(at).unwrap();
            let mut speaks = std::net::TcpStream::connect(at).unwrap();
            std::io::Write::write_all(&mut speaks, b"x").unwrap();
            let accepting = std::net::TcpListener::from(bound.fd.try_clone().unwrap());
            let (_, first) = accepting.accept().unwrap();
            // The silent one is accepted in any case: its time limits are ours.
            let (_, second) = accepting.accept().unwrap();
            let mut both = [silent, speaks].map(|one| one.local_addr().unwrap());
            let overtakes = first == both[1];
            both.sort_unstable();
            let mut accepted = [first, second];
            accepted.sort_unstable();
            assert_eq!(accepted, both);
            overtakes
        };
        let (as_they_come, at) = listener(false);
        assert!(!overtakes(&as_they_come, at));
        let (deferred, at) = listener(true);
        // Not if this thread is kept from running for as long.
        assert!((0..5).any(|_| overtakes(&deferred, at)));
        deferred.defer(false).unwrap();
        assert!(!overtakes(&deferred, at));
    }

    #[test]
    fn what_is_no_descriptor_listens_nowhere() {
        for number in [RawFd::MIN, -1, 0, RawFd::MAX] {
            assert_eq!(address_of_inherited(number), None, "{number}");
        }
    }
}
