//! A connected stream socket, TCP or Unix, with owned-buffer operations.
//!
//! The runtime tells when there is something to receive or room to send, and a
//! system call then moves the bytes: a buffer is needed only for what has come, a
//! wait can be cut short without losing a byte, and a request walks through its
//! task twice instead of four times. An operation of the ring for each reception
//! and each send was the alternative; `docs/performance.md` has what it cost.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::rc::{Rc, Weak};

use monoio::net::{TcpStream, UnixStream};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags};

use super::buffers::{self, Buffer, Class, Segments, with_fd};
use super::low_water::LowWater;
use super::now;
use super::operations::{Operation, completed};
use super::turns::{self, Ticket};

/// Receptions without a wait between them after which there is one all the
/// same: who never waits lets nobody else have a turn. At 64 KiB each, a turn
/// of bulk then takes some 200 µs.
const IN_A_ROW: u8 = 4;
/// A reception from which on what comes next is bulk, until it is waited for.
const BULK: usize = 16 << 10;

/// The receiving side. The two sides may be driven at the same time.
#[derive(Debug)]
pub struct Receiver {
    stream: Rc<Stream>,
    /// Receptions since the last wait.
    in_a_row: u8,
    /// The last reception was one of [`BULK`].
    is_bulk: bool,
    ticket: Option<Ticket>,
    /// Boxed: few send bulk.
    low_water: Option<Box<LowWater>>,
}

/// The sending side. Dropping it sends what `shutdown(2)` sends, unless the
/// connection was handed over.
#[derive(Debug)]
pub struct Sender {
    stream: Rc<Stream>,
    /// [`Stream::owner`] at its making.
    owner: u32,
}

/// What the kernel is told about what comes behind a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing that is known of.
    Nothing,
    /// More, and at once: the end of this may wait for it, so that both leave in
    /// one segment (`MSG_MORE`). The kernel waits for 200 ms at the most.
    More,
    /// The end of this direction, and at once.
    End,
}

impl Behind {
    /// [`Behind::More`] if that is so.
    pub fn more_if(follows: bool) -> Self {
        if follows { Self::More } else { Self::Nothing }
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    kind: Kind,
    /// Counts those who had both sides; the latest one's sender ends it.
    owner: Cell<u32>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match &self.kind {
            Kind::Tcp(stream) => stream.as_raw_fd(),
            Kind::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Stream {
    pub(super) async fn readable(&self) -> io::Result<()> {
        let turn = turns::present();
        let result = match &self.kind {
            Kind::Tcp(stream) => stream.readable(false).await,
            Kind::Unix(stream) => stream.readable(false).await,
        };
        now::refresh();
        turns::waited_since(turn);
        result
    }

    async fn writable(&self) -> io::Result<()> {
        let turn = turns::present();
        let result = match &self.kind {
            Kind::Tcp(stream) => stream.writable(false).await,
            Kind::Unix(stream) => stream.writable(false).await,
        };
        now::refresh();
        turns::waited_since(turn);
        result
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
        now::refresh();
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
        now::refresh();
        completed(Operation::Connect);
        writable?;
        let socket: Self = stream.into();
        with_fd(&*socket.sender.stream, |fd| {
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
        now::refresh();
        completed(Operation::Connect);
        Ok(connected?.into())
    }
}

impl From<Kind> for Socket {
    fn from(kind: Kind) -> Self {
        let owner = Cell::new(0);
        Self::of(Rc::new(Stream { kind, owner }))
    }
}

impl Socket {
    fn of(stream: Rc<Stream>) -> Self {
        let owner = stream.owner.get();
        Self {
            receiver: Receiver {
                stream: Rc::clone(&stream),
                in_a_row: 0,
                is_bulk: false,
                ticket: None,
                low_water: None,
            },
            sender: Sender { stream, owner },
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Kind::Tcp(stream).into()
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Kind::Unix(stream).into()
    }
}

impl Receiver {
    /// Waits until there is something to receive, or the end. Whoever expects
    /// to wait does this first, and needs no buffer meanwhile.
    ///
    /// # Errors
    /// When the runtime cannot wait. Dropping the future does nothing.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.expect_to_wait();
        self.next_turn(0).await
    }

    /// What comes next is no more of what has been received so far: it need not
    /// stand in line for it, and is worth waking for, however little it is.
    pub fn expect_to_wait(&mut self) {
        self.is_bulk = false;
        self.ticket = None;
        if let Some(mut low_water) = self.low_water.take() {
            low_water.lift(&self.stream);
        }
    }

    /// Waits until [`Receiver::receive_at_once`] is worth another try, with as many
    /// bytes `expected`.
    ///
    /// # Errors
    /// When the runtime cannot wait. Dropping the future does nothing.
    pub async fn next_turn(&mut self, expected: u64) -> io::Result<()> {
        self.in_a_row = 0;
        match (self.ticket, &mut self.low_water) {
            (Some(ticket), _) => {
                turns::called(ticket).await;
                Ok(())
            }
            (None, None) => self.stream.readable().await,
            // Boxed: rare, and every connection's task would have room for it.
            (None, Some(low_water)) => Box::pin(low_water.readable(&self.stream, expected)).await,
        }
    }

    /// Receives what has come into `buffer[range]`, and waits for it if nothing
    /// has; 0 bytes mean that the peer has closed its side.
    ///
    /// Dropping the future loses the buffer and nothing else.
    pub async fn receive(
        &mut self,
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> (io::Result<usize>, Buffer) {
        loop {
            let target = buffer.get_mut(range.clone()).unwrap_or_default();
            if let Some(result) = self.receive_at_once(target, 0) {
                return (result, buffer);
            }
            if let Err(error) = self.next_turn(0).await {
                return (Err(error), buffer);
            }
        }
    }

    /// As [`Receiver::receive`], where the peer has hardly had the time to send
    /// anything: by waiting first, which spares a system call that finds nothing.
    pub async fn receive_later(
        &mut self,
        buffer: Buffer,
        range: Range<usize>,
    ) -> (io::Result<usize>, Buffer) {
        match self.readable().await {
            Ok(()) => self.receive(buffer, range).await,
            Err(error) => (Err(error), buffer),
        }
    }

    /// Receives what has come without waiting: `None` if nothing has, if it is time
    /// to give way to others, or if more is to be waited for. At least so many bytes
    /// are `expected`: if they come fast, they are received in larger portions.
    pub fn receive_at_once(
        &mut self,
        target: &mut [u8],
        expected: u64,
    ) -> Option<io::Result<usize>> {
        let low_water = self.low_water.as_deref();
        if low_water.is_some_and(|low_water| low_water.comes_first(expected)) {
            return None;
        }
        let received = self.attempt(|fd| {
            let (read, _) = rustix::net::recv(fd, &mut *target, RecvFlags::DONTWAIT)?;
            Ok(read)
        })?;
        match (&mut self.low_water, &received) {
            (None, _) if !self.is_bulk => {}
            (None, _) => self.low_water = LowWater::measure(expected),
            (Some(low_water), Ok(read)) => low_water.received(&self.stream, *read, target.len()),
            (Some(_), Err(_)) => {}
        }
        Some(received)
    }

    /// Receives at most `limit` bytes into the payloads of `segments`;
    /// otherwise as [`Receiver::receive`].
    pub async fn receive_segments(
        &mut self,
        mut segments: Segments,
        limit: usize,
    ) -> (io::Result<usize>, Segments) {
        loop {
            let mut payloads = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let used = segments.payloads(limit, &mut payloads);
            let target = payloads.get_mut(..used).unwrap_or_default();
            let received = self.attempt(|fd| {
                let mut none = RecvAncillaryBuffer::default();
                rustix::net::recvmsg(fd, target, &mut none, RecvFlags::DONTWAIT)
                    .map(|received| received.bytes)
            });
            if let Some(result) = received {
                return (result, segments);
            }
            if let Err(error) = self.next_turn(0).await {
                return (Err(error), segments);
            }
        }
    }

    /// Waits until something has come, and drops it unread. Whether more may
    /// come: the peer has not closed its side.
    ///
    /// No buffer is held meanwhile, and TCP drops bytes without copying them
    /// (`MSG_TRUNC`, tcp(7)), so this does not stand in line with bulk: those who
    /// send for nothing would have the longest rows, and stay while they wait.
    ///
    /// # Errors
    /// Whatever the kernel reports. Dropping the future does nothing.
    pub async fn discard(&mut self) -> io::Result<bool> {
        self.readable().await?;
        let mut buffer = Buffer::take(Class::Large);
        while let Some(dropped) = self.attempt(|fd| {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let (_, length) = rustix::net::recv(fd, &mut *buffer, flags)?;
            Ok(length)
        }) {
            if dropped? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One system call, unless it is time to wait; `None` if that is so, or if
    /// there is nothing to receive.
    fn attempt(
        &mut self,
        mut receive: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let begins = self.in_a_row == 0 && self.is_bulk;
        if self.in_a_row >= IN_A_ROW || (begins && !turns::may_begin(&mut self.ticket)) {
            return None;
        }
        loop {
            match with_fd(&*self.stream, &mut receive) {
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                result => {
                    self.in_a_row += 1;
                    self.is_bulk = result.is_ok_and(|read| read >= BULK);
                    completed(Operation::Receive);
                    return Some(result.map_err(io::Error::from));
                }
            }
        }
    }

    /// Whether something has come and not been received. One system call that
    /// does not block.
    pub fn has_more(&self) -> bool {
        with_fd(&*self.stream, |fd| rustix::io::ioctl_fionread(fd)).is_ok_and(|bytes| bytes > 0)
    }

    /// Both sides anew, for whoever has the connection next, while the present
    /// ones are still lent to somebody who will not use them again.
    pub fn hand_over(&mut self) -> Socket {
        let owner = &self.stream.owner;
        owner.set(owner.get().wrapping_add(1));
        Socket::of(Rc::clone(&self.stream))
    }

    /// Whether the peer has ended its side or the connection is broken, even if
    /// received bytes are still unread. One system call that does not block.
    pub fn is_hung_up(&self) -> bool {
        with_fd(&*self.stream, |fd| {
            let mut poll = [PollFd::new(&fd, PollFlags::RDHUP)];
            let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            rustix::event::poll(&mut poll, Some(&Timespec::default())).is_ok()
                && poll.iter().any(|poll| poll.revents().intersects(ended))
        })
    }
}

impl Sender {
    /// Sends what the socket takes without waiting, and returns how many bytes
    /// that was: all of them, unless the peer is slow.
    ///
    /// # Errors
    /// Whatever the kernel reports, but for there being no room.
    pub fn send_at_once(&self, bytes: &[u8], behind: Behind) -> io::Result<usize> {
        self.attempt(behind, |fd, flags| rustix::net::send(fd, bytes, flags))
    }

    /// As [`Sender::send_at_once`], of bytes that lie in several places.
    ///
    /// # Errors
    /// The same.
    pub fn send_slices(&self, slices: &[IoSlice<'_>], behind: Behind) -> io::Result<usize> {
        self.attempt(behind, |fd, flags| {
            let mut none = SendAncillaryBuffer::default();
            rustix::net::sendmsg(fd, slices, &mut none, flags)
        })
    }

    /// One system call that does not wait; 0 if there is no room.
    fn attempt(
        &self,
        behind: Behind,
        send: impl Fn(BorrowedFd<'_>, SendFlags) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, behind != Behind::Nothing);
        loop {
            match with_fd(&*self.stream, |fd| send(fd, flags)) {
                Ok(sent) => {
                    completed(Operation::Send);
                    return Ok(sent);
                }
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends all of these bytes, and waits where the socket takes no more.
    ///
    /// # Errors
    /// Whatever the kernel reports. Dropping the future may leave a part of
    /// them sent.
    pub async fn send(&self, mut bytes: &[u8], behind: Behind) -> io::Result<()> {
        loop {
            let sent = self.send_at_once(bytes, behind)?;
            bytes = bytes.get(sent..).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            self.stream.writable().await?;
        }
    }

    /// Tells the peer that nothing more will be sent (`shutdown(2)`).
    pub fn finish(&self) {
        // A peer that is gone already needs no telling.
        let _ = with_fd(&*self.stream, |fd| {
            rustix::net::shutdown(fd, rustix::net::Shutdown::Write)
        });
    }

    /// Whether a connection that should be silent still is: no bytes wait and
    /// the peer has not closed. One system call that does not block.
    pub fn is_quiet(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut byte = [0; 1];
        let peeked = with_fd(&*self.stream, |fd| {
            rustix::net::recv(fd, &mut byte[..], flags)
        });
        peeked.is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }

    /// Lets the kernel look now and then whether the peer is still there
    /// (`SO_KEEPALIVE`).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn keep_alive(&self) -> io::Result<()> {
        with_fd(&*self.stream, |fd| {
            rustix::net::sockopt::set_socket_keepalive(fd, true)
        })?;
        Ok(())
    }

    /// For who asks the kernel about the connection later.
    pub fn gauge(&self) -> Gauge {
        Gauge(Rc::downgrade(&self.stream))
    }

    /// Breaks the connection off at once: the peer gets a reset and unsent data
    /// is dropped. Not by `SO_LINGER`, as Nginx does: dropping this side sends a
    /// FIN first, and a peer that reads it takes the end for an orderly one. Unix
    /// sockets have no such end and are left to be closed.
    pub fn reset(&self) {
        let _ = with_fd(&*self.stream, |fd| rustix::net::connect_unspec(fd));
    }

    /// The address that the client connected to; `None` for Unix sockets and
    /// for a socket that is in no state to tell.
    pub fn local_address(&self) -> Option<SocketAddr> {
        let name = with_fd(&*self.stream, |fd| rustix::net::getsockname(fd)).ok()?;
        SocketAddr::try_from(name).ok()
    }
}

/// A look at a connection, which it does not keep open.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Weak<Stream>);

impl Gauge {
    /// What the kernel has measured (`TCP_INFO`); `None` of what is not TCP or
    /// has been closed.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        let stream = self.0.upgrade()?;
        let info = match stream.kind {
            Kind::Tcp(_) => buffers::tcp_info(&*stream)?,
            Kind::Unix(_) => return None,
        };
        Some(TcpInfo {
            rtt: info.tcpi_rtt,
            rttvar: info.tcpi_rttvar,
            snd_cwnd: info.tcpi_snd_cwnd,
            rcv_space: info.tcpi_rcv_space,
        })
    }
}

/// Of a TCP connection, `tcp(7)`.
#[derive(Debug, Clone, Copy)]
pub struct TcpInfo {
    /// Round trip, microseconds.
    pub rtt: u32,
    /// Its variation, microseconds.
    pub rttvar: u32,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
    /// Bytes that may be received.
    pub rcv_space: u32,
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Before it is closed: what was sent then still leaves in order, where
        // closing a socket with unread input resets it at once.
        if self.owner == self.stream.owner.get() {
            self.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;

    use monoio::{IoUringDriver, RuntimeBuilder};

    use super::super::low_water;
    use super::super::spawn::spawn;
    use super::*;

    #[test]
    fn who_receives_without_end_lets_others_have_their_turn() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            theirs.write_all(&[b'x'; 100]).unwrap();
            let mut receiver = Socket::adopt(ours).unwrap().receiver;
            let others = Rc::new(Cell::new(false));
            let turn = Rc::clone(&others);
            spawn(async move { turn.set(true) }, |_| {});
            let mut buffer = Buffer::take(Class::Small);
            for _ in 0..=IN_A_ROW {
                assert!(!others.get());
                let (result, back) = receiver.receive(buffer, 0..1).await;
                assert_eq!(result.unwrap(), 1);
                buffer = back;
            }
            assert!(others.get());
        });
    }

    #[test]
    fn bulk_goes_on_also_when_those_who_had_their_turn_stop() {
        const TRANSFERS: usize = 30;
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
            .enable_timer()
            .build()
            .unwrap();
        runtime.block_on(async {
            let done = Rc::new(Cell::new(0));
            for number in 0..TRANSFERS {
                let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
                theirs.write_all(&[b'x'; 6 * BULK]).unwrap();
                let mut receiver = Socket::adopt(ours).unwrap().receiver;
                let done = Rc::clone(&done);
                let task = async move {
                    // Some stop where others would begin a row of their own.
                    let rows = if number < TRANSFERS / 3 { 1 } else { 6 };
                    let mut buffer = Buffer::take(Class::Medium);
                    for _ in 0..rows {
                        let (result, back) = receiver.receive(buffer, 0..BULK).await;
                        assert_eq!(result.unwrap(), BULK);
                        buffer = back;
                    }
                    done.set(done.get() + 1);
                    if rows == 1 {
                        std::future::pending::<()>().await;
                    }
                    drop(theirs);
                };
                spawn(task, |_| {});
            }
            while done.get() < TRANSFERS {
                super::super::spawn::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
    }

    /// As [`Receiver::receive`], with so many bytes `expected`.
    async fn receive(receiver: &mut Receiver, buffer: &mut [u8], expected: u64) -> usize {
        loop {
            if let Some(result) = receiver.receive_at_once(buffer, expected) {
                return result.unwrap();
            }
            receiver.next_turn(expected).await.unwrap();
        }
    }

    /// Has the peer send so fast that low water is waited for.
    async fn hurried() -> (Receiver, std::net::TcpStream, Buffer) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut receiver = Socket::from(TcpStream::from_std(accepted).unwrap()).receiver;
        let mut buffer = Buffer::take(Class::Large);
        while !receiver.low_water.as_ref().is_some_and(|low| low.is_set()) {
            now::refresh();
            peer.write_all(&[b'x'; 2 * BULK]).unwrap();
            let mut left = 2 * BULK;
            while left > 0 {
                left -= receive(&mut receiver, &mut buffer, u64::MAX).await;
            }
        }
        (receiver, peer, buffer)
    }

    #[test]
    fn bulk_that_comes_fast_is_received_in_larger_portions() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
            .enable_timer()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut receiver, mut peer, mut buffer) = hurried().await;
            let received = Rc::new(Cell::new(0));
            let seen = Rc::clone(&received);
            let task = async move {
                seen.set(receive(&mut receiver, &mut buffer, u64::MAX).await);
            };
            spawn(task, |_| {});
            let mut sent = 0;
            while received.get() == 0 {
                peer.write_all(&[b'x'; BULK]).unwrap();
                sent += BULK;
                super::super::spawn::sleep(std::time::Duration::from_millis(1)).await;
            }
            // No time has passed for the deadlines: nobody ticks.
            assert_eq!(received.get(), Class::Large.size());
            assert!(sent >= low_water::MARK, "woken for {sent} bytes");
        });
    }

    #[test]
    fn who_was_fast_and_falls_silent_is_heard_to_the_last_byte() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
            .enable_timer()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ticker = async {
                loop {
                    super::super::spawn::sleep(std::time::Duration::from_millis(10)).await;
                    super::super::deadlines::tick();
                }
            };
            spawn(ticker, |_| {});
            let (mut receiver, mut peer, mut buffer) = hurried().await;
            for expected in [u64::MAX, 0] {
                peer.write_all(b"last").unwrap();
                assert_eq!(receive(&mut receiver, &mut buffer, expected).await, 4);
            }
        });
    }

    #[test]
    fn a_fast_peer_is_heard_at_once_when_no_bulk_is_expected() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            let (mut receiver, mut peer, _) = hurried().await;
            peer.write_all(b"next").unwrap();
            // Without a tick, the low water would be waited for without end.
            receiver.readable().await.unwrap();
            let (mut receiver, mut peer, buffer) = hurried().await;
            peer.write_all(b"next").unwrap();
            let (result, _) = receiver.receive(buffer, 0..100).await;
            assert_eq!(result.unwrap(), 4);
            let (mut receiver, peer, mut buffer) = hurried().await;
            drop(peer);
            assert_eq!(receive(&mut receiver, &mut buffer, u64::MAX).await, 0);
        });
    }

    async fn discards_what_comes_until_the_end(socket: impl Into<Socket>, mut peer: impl Write) {
        let mut receiver = socket.into().receiver;
        peer.write_all(&[b'x'; 1000]).unwrap();
        assert!(receiver.discard().await.unwrap());
        peer.write_all(b"y").unwrap();
        let (result, buffer) = receiver.receive(Buffer::take(Class::Small), 0..9).await;
        assert_eq!((result.unwrap(), buffer[0]), (1, b'y'));
        peer.write_all(b"z").unwrap();
        drop(peer);
        while receiver.discard().await.unwrap() {}
    }

    #[test]
    fn what_is_discarded_is_gone_whatever_the_socket_and_the_end_is_told() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let ours = TcpStream::from_std(accepted).unwrap();
            discards_what_comes_until_the_end(ours, peer).await;
            let (ours, peer) = std::os::unix::net::UnixStream::pair().unwrap();
            discards_what_comes_until_the_end(UnixStream::from_std(ours).unwrap(), peer).await;
        });
    }

    #[test]
    fn a_connection_ends_with_whom_it_was_handed_over_to_and_not_before() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let mut first = Socket::adopt(ours).unwrap();
            let next = first.receiver.hand_over();
            drop(first.sender);
            let mut byte = [0];
            let waits = std::io::Read::read(&mut theirs, &mut byte).unwrap_err();
            assert_eq!(waits.kind(), io::ErrorKind::WouldBlock);
            drop(next);
            assert_eq!(std::io::Read::read(&mut theirs, &mut byte).unwrap(), 0);
        });
    }

    #[test]
    fn all_is_sent_to_a_peer_that_reads_late() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let bytes: Vec<u8> = (0..4 << 20).map(|place: u32| (place / 7) as u8).collect();
            let expected = bytes.clone();
            let reader = std::thread::spawn(move || {
                let mut read = Vec::new();
                std::io::Read::read_to_end(&mut &theirs, &mut read).unwrap();
                read == expected
            });
            let socket = Socket::adopt(ours).unwrap();
            socket.sender.send(&bytes, Behind::Nothing).await.unwrap();
            drop(socket);
            assert!(reader.join().unwrap());
        });
    }
}
