//! A connected stream socket, TCP or Unix, with owned-buffer operations.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::{TcpStream, UnixStream};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;

use super::buffers::{Buffer, Segments, with_fd};
use super::operations::{Operation, completed};

/// The receiving side. The two sides may be driven at the same time.
#[derive(Debug)]
pub struct Receiver {
    half: ReceiverHalf,
    /// Of the socket that `half` keeps open.
    fd: RawFd,
}

#[derive(Debug)]
enum ReceiverHalf {
    Tcp(OwnedReadHalf<TcpStream>),
    Unix(OwnedReadHalf<UnixStream>),
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// The sending side. Dropping it sends what `shutdown(2)` sends.
#[derive(Debug)]
pub struct Sender {
    half: SenderHalf,
    /// Of the socket that `half` keeps open.
    fd: RawFd,
}

#[derive(Debug)]
enum SenderHalf {
    Tcp(OwnedWriteHalf<TcpStream>),
    Unix(OwnedWriteHalf<UnixStream>),
}

impl AsRawFd for Sender {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// Both sides; the descriptor is closed when this is dropped and no operation
/// holds it any more.
#[derive(Debug)]
pub struct Socket {
    /// Receives.
    pub receiver: Receiver,
    /// Sends.
    pub sender: Sender,
}

impl Socket {
    /// Connects over TCP and turns Nagle's algorithm off.
    ///
    /// # Errors
    /// Whatever `connect(2)` reports. Dropping the future cancels the attempt
    /// and closes the socket.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let connected = TcpStream::connect_addr(address).await;
        completed(Operation::Connect);
        let stream = connected?;
        stream.set_nodelay(true)?;
        Ok(stream.into())
    }

    /// As [`Socket::connect`], from this address; with port 0 the kernel
    /// chooses the port.
    ///
    /// # Errors
    /// Also what `bind(2)` reports.
    pub async fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        use socket2::{Domain, Protocol, SockAddr, Socket as Raw, Type};
        let socket = Raw::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SockAddr::from(from))?;
        // The runtime connects only sockets of its own making, so this one is
        // told to without waiting, and then waited for.
        socket.set_nonblocking(true)?;
        match socket.connect(&SockAddr::from(to)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(socket.into())?;
        let writable = stream.writable(false).await;
        completed(Operation::Connect);
        writable?;
        let socket: Self = stream.into();
        with_fd(&socket.sender, |fd| {
            rustix::net::sockopt::socket_error(fd)??;
            rustix::net::sockopt::set_tcp_nodelay(fd, true)?;
            // A ring waits for data where the socket itself does not refuse to.
            rustix::io::ioctl_fionbio(fd, monoio::utils::is_legacy())
        })?;
        Ok(socket)
    }

    /// Takes a socket of the standard library's into this worker's runtime.
    ///
    /// # Errors
    /// When the runtime cannot register it.
    pub fn adopt(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        Ok(UnixStream::from_std(stream)?.into())
    }

    /// Connects to a Unix domain socket; otherwise as [`Socket::connect`].
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        let connected = UnixStream::connect(path).await;
        completed(Operation::Connect);
        Ok(connected?.into())
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        let fd = stream.as_raw_fd();
        let (receiver, sender) = stream.into_split();
        Self {
            receiver: Receiver {
                half: ReceiverHalf::Tcp(receiver),
                fd,
            },
            sender: Sender {
                half: SenderHalf::Tcp(sender),
                fd,
            },
        }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        let fd = stream.as_raw_fd();
        let (receiver, sender) = stream.into_split();
        Self {
            receiver: Receiver {
                half: ReceiverHalf::Unix(receiver),
                fd,
            },
            sender: Sender {
                half: SenderHalf::Unix(sender),
                fd,
            },
        }
    }
}

impl Receiver {
    /// Receives into `buffer[range]`; 0 bytes mean that the peer has closed.
    ///
    /// Dropping the future cancels the operation and loses what it received.
    pub async fn receive(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
    ) -> (io::Result<usize>, Buffer) {
        let target = buffer.into_storage().slice_mut(range);
        let (result, target) = match &mut self.half {
            ReceiverHalf::Tcp(half) => half.read(target).await,
            ReceiverHalf::Unix(half) => half.read(target).await,
        };
        completed(Operation::Receive);
        (result, Buffer::from_storage(target.into_inner()))
    }

    /// Receives at most `limit` bytes into the payloads of `segments`;
    /// otherwise as [`Receiver::receive`].
    pub async fn receive_segments(
        &mut self,
        segments: Segments,
        limit: usize,
    ) -> (io::Result<usize>, Segments) {
        let target = segments.into_receiver(limit);
        let (result, target) = match &mut self.half {
            ReceiverHalf::Tcp(half) => half.readv(target).await,
            ReceiverHalf::Unix(half) => half.readv(target).await,
        };
        completed(Operation::Receive);
        (result, target.into_segments())
    }

    /// Whether the peer has ended its sending side or reset the connection,
    /// whatever of its bytes is still unread. One system call that does not
    /// block.
    pub fn is_hung_up(&self) -> bool {
        with_fd(self, |fd| {
            let mut poll = [PollFd::new(&fd, PollFlags::RDHUP)];
            let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            rustix::event::poll(&mut poll, Some(&Timespec::default())).is_ok()
                && poll.iter().any(|poll| poll.revents().intersects(ended))
        })
    }
}

impl Sender {
    /// Sends all of `buffer[range]`.
    ///
    /// Dropping the future may leave a part of it sent.
    pub async fn send(&mut self, buffer: Buffer, range: Range<usize>) -> (io::Result<()>, Buffer) {
        let (result, storage) = self.send_storage(buffer.into_storage(), range).await;
        (result, Buffer::from_storage(storage))
    }

    /// Sends all of the bytes `range` of `segments`, gaps included.
    pub async fn send_segments(
        &mut self,
        mut segments: Segments,
        range: Range<usize>,
    ) -> (io::Result<()>, Segments) {
        let Some(slot) = segments.storage_mut() else {
            return (Ok(()), segments);
        };
        let storage = std::mem::take(slot);
        let (result, storage) = self.send_storage(storage, range).await;
        if let Some(slot) = segments.storage_mut() {
            *slot = storage;
        }
        (result, segments)
    }

    async fn send_storage(
        &mut self,
        mut storage: Box<[u8]>,
        mut range: Range<usize>,
    ) -> (io::Result<()>, Box<[u8]>) {
        while !range.is_empty() {
            let source = storage.slice(range.clone());
            let (result, source) = match &mut self.half {
                SenderHalf::Tcp(half) => half.write(source).await,
                SenderHalf::Unix(half) => half.write(source).await,
            };
            completed(Operation::Send);
            storage = source.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), storage),
                Ok(sent) => range.start += sent,
                Err(error) => return (Err(error), storage),
            }
        }
        (Ok(()), storage)
    }

    /// Tells the peer that nothing more will be sent (`shutdown(2)`).
    pub fn finish(&self) {
        // A peer that is gone already needs no telling.
        let _ = with_fd(self, |fd| {
            rustix::net::shutdown(fd, rustix::net::Shutdown::Write)
        });
    }

    /// Whether a connection that should be silent still is: no bytes wait and
    /// the peer has not closed. One system call that does not block.
    pub fn is_quiet(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut byte = [0; 1];
        let peeked = with_fd(self, |fd| rustix::net::recv(fd, &mut byte[..], flags));
        peeked.is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }

    /// Lets the kernel look now and then whether the peer is still there
    /// (`SO_KEEPALIVE`).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn keep_alive(&self) -> io::Result<()> {
        with_fd(self, |fd| {
            rustix::net::sockopt::set_socket_keepalive(fd, true)
        })?;
        Ok(())
    }

    /// Breaks the connection off at once: the peer gets a reset and unsent data
    /// is dropped. Not by `SO_LINGER`, as Nginx does: dropping this side sends a
    /// FIN first, and a peer that reads it takes the end for an orderly one. Unix
    /// sockets have no such end and are left to be closed.
    pub fn reset(&self) {
        let _ = with_fd(self, |fd| rustix::net::connect_unspec(fd));
    }

    /// The address that the client connected to; `None` for Unix sockets and
    /// for a socket that is in no state to tell.
    pub fn local_address(&self) -> Option<SocketAddr> {
        let name = with_fd(self, |fd| rustix::net::getsockname(fd)).ok()?;
        SocketAddr::try_from(name).ok()
    }
}
