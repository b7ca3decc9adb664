//! A backend that records every byte it is sent, per connection, and answers
//! as the test says: by a closure over the raw connection, or as a small
//! well-behaved HTTP server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::find;

/// A read that takes longer is a broken test; it ends the connection's thread.
const READ_LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Record {
    connections: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    open: AtomicUsize,
    requests: AtomicUsize,
    stop: AtomicBool,
}

/// A scripted backend.
pub(crate) struct Origin {
    record: Arc<Record>,
    place: Place,
}

enum Place {
    Inet(SocketAddr),
    Unix(PathBuf),
}

impl Origin {
    /// Runs the script on each connection, on 127.0.0.1.
    pub(crate) fn script(
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::listening(listener, script)
    }

    /// Likewise on one and the same port of 127.0.0.1, 127.0.0.2 and so on; the
    /// script is told which.
    pub(crate) fn on_one_port(
        count: u8,
        script: impl Fn(usize, &mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Vec<Self> {
        let listeners = loop {
            let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = first.local_addr().expect("bound").port();
            let others =
                (2..=count).map(|last| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)));
            // Another may have the port there.
            if let Ok(others) = others.collect::<io::Result<Vec<_>>>() {
                break std::iter::once(first).chain(others);
            }
        };
        let script = Arc::new(script);
        let each = listeners.enumerate().map(|(index, listener)| {
            let script = Arc::clone(&script);
            Self::listening(listener, move |peer| script(index, peer))
        });
        each.collect()
    }

    fn listening(
        listener: TcpListener,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("bound");
        let record = Arc::new(Record::default());
        let seen = Arc::clone(&record);
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if seen.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                // Neither can fail on a connected socket.
                let _ = stream.set_nodelay(true);
                let _ = stream.set_read_timeout(Some(READ_LIMIT));
                serve(Wire::Inet(stream), &seen, &script);
            }
        });
        Self {
            record,
            place: Place::Inet(address),
        }
    }

    /// [`Origin::script`] on a Unix socket.
    pub(crate) fn unix_script(
        path: &Path,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).expect("a fresh path");
        let record = Arc::new(Record::default());
        let seen = Arc::clone(&record);
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if seen.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(READ_LIMIT));
                serve(Wire::Unix(stream), &seen, &script);
            }
        });
        Self {
            record,
            place: Place::Unix(path.to_owned()),
        }
    }

    /// A server with keep-alive that answers each request through `answer`.
    pub(crate) fn http(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::script(keep_alive(answer))
    }

    /// [`Origin::http`] on a Unix socket.
    pub(crate) fn unix_http(
        path: &Path,
        answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::unix_script(path, keep_alive(answer))
    }

    /// Answers each request with 200 and `hello`.
    pub(crate) fn hello() -> Self {
        Self::http(|_| ok("hello"))
    }

    /// Answers with the request's body.
    pub(crate) fn echo() -> Self {
        Self::http(|request| ok_bytes(&request.body))
    }

    /// Sends one fixed answer to the first request of each connection, then
    /// closes it.
    pub(crate) fn answering(bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        Self::script(move |peer| {
            peer.request()?;
            peer.send(&bytes)?;
            peer.finish()
        })
    }

    /// HOST:PORT, or `unix:PATH`.
    pub(crate) fn address(&self) -> String {
        match &self.place {
            Place::Inet(address) => address.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// What `proxy_pass` wants, without a URI part.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The port of an [`Origin::script`].
    pub(crate) fn port(&self) -> u16 {
        match &self.place {
            Place::Inet(address) => address.port(),
            Place::Unix(_) => panic!("a Unix socket has no port"),
        }
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.lock().expect("not poisoned").len()
    }

    /// How many are still open.
    pub(crate) fn open_connections(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// How many complete requests were read.
    pub(crate) fn requests(&self) -> usize {
        self.record.requests.load(Ordering::SeqCst)
    }

    /// Every byte of every connection, one connection behind the other.
    pub(crate) fn all_received(&self) -> Vec<u8> {
        let connections = self.record.connections.lock().expect("not poisoned");
        connections
            .iter()
            .flat_map(|bytes| bytes.lock().expect("not poisoned").clone())
            .collect()
    }

    /// [`Origin::all_received`] for reading.
    pub(crate) fn all_received_text(&self) -> String {
        String::from_utf8_lossy(&self.all_received()).into_owned()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.record.stop.store(true, Ordering::SeqCst);
        // A last connection lets the accepting thread see the flag.
        match &self.place {
            Place::Inet(address) => drop(TcpStream::connect(address)),
            Place::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

fn serve<F>(wire: Wire, record: &Arc<Record>, script: &Arc<F>)
where
    F: Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
{
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let index = {
        let mut connections = record.connections.lock().expect("not poisoned");
        connections.push(Arc::clone(&bytes));
        connections.len() - 1
    };
    record.open.fetch_add(1, Ordering::SeqCst);
    let record = Arc::clone(record);
    let script = Arc::clone(script);
    std::thread::spawn(move || {
        let mut peer = Peer {
            index,
            wire,
            record,
            bytes,
            buffer: Vec::new(),
        };
        // An error is the proxy hanging up, which most tests end with.
        let _ = script(&mut peer);
    });
}

fn keep_alive(
    answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
) -> impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static {
    move |peer| {
        loop {
            let request = peer.request()?;
            peer.send(&answer(&request))?;
        }
    }
}

/// A 200 with this text.
pub(crate) fn ok(text: &str) -> Vec<u8> {
    ok_bytes(text.as_bytes())
}

/// A 200 with this body.
pub(crate) fn ok_bytes(body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// A request as it reached the backend.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `METHOD TARGET VERSION`.
    pub(crate) line: String,
    /// Names and values as sent.
    pub(crate) headers: Vec<(String, String)>,
    /// Decoded.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The only value of a field, whatever its case.
    ///
    /// # Panics
    /// When there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "{name} twice: {:?}", self.headers);
        first
    }

    /// The request's target.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// One connection from the proxy.
pub(crate) struct Peer {
    /// Counted from 0 in order of acceptance.
    pub(crate) index: usize,
    wire: Wire,
    record: Arc<Record>,
    bytes: Arc<Mutex<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl Peer {
    /// Reads a head and its body.
    pub(crate) fn request(&mut self) -> io::Result<Request> {
        let mut request = self.head()?;
        request.body = self.body(&request)?;
        self.record.requests.fetch_add(1, Ordering::SeqCst);
        Ok(request)
    }

    /// Reads a head; the body is left for [`Peer::body`].
    pub(crate) fn head(&mut self) -> io::Result<Request> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Ok(Request {
            line,
            headers,
            body: Vec::new(),
        })
    }

    /// Reads so many bytes of whatever protocol.
    pub(crate) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Reads the body that a head announced.
    pub(crate) fn body(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        if request.header("transfer-encoding").is_some() {
            return self.chunked();
        }
        let length = request
            .header("content-length")
            .map_or(0, |value| value.parse().expect("a length"));
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16)
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("chunk {line:?}")))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            while self.buffer.len() < size + 2 {
                self.fill()?;
            }
            body.extend(self.buffer.drain(..size));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            if end != b"\r\n" {
                return Err(io::Error::new(ErrorKind::InvalidData, "chunk without CRLF"));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    /// Reads what is there, at least one byte.
    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        let count = self.wire.read(&mut piece)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.bytes
            .lock()
            .expect("not poisoned")
            .extend_from_slice(&piece[..count]);
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(())
    }

    /// Reads and drops body bytes without recording them, for bodies too large
    /// to keep. Yields the count once `length` have come.
    pub(crate) fn discard(&mut self, length: usize) -> io::Result<usize> {
        let mut count = self.buffer.len();
        self.buffer.clear();
        let mut piece = vec![0; 256 * 1024];
        while count < length {
            match self.wire.read(&mut piece)? {
                0 => break,
                more => count += more,
            }
        }
        Ok(count)
    }

    /// Reads until the proxy closes.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// What is buffered, else whatever comes next, undecoded.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Ends our side and leaves the proxy's open.
    pub(crate) fn end_sending(&mut self) -> io::Result<()> {
        self.wire.shutdown()
    }

    /// Reads nothing until the proxy has hung up.
    pub(crate) fn idle(&mut self) -> io::Result<()> {
        while !self.wire.is_hung_up()? {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends bytes at once.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)
    }

    /// Ends our side and waits for the proxy to end its own, so that no unread
    /// byte turns the close into a reset.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.wire.shutdown()?;
        self.drain()
    }

    /// Closes with a reset, as a crashed machine does.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        match &self.wire {
            Wire::Inet(stream) => {
                socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
                Err(ErrorKind::ConnectionAborted.into())
            }
            Wire::Unix(_) => self.wire.shutdown(),
        }
    }

    /// Keeps the connection open and says nothing until the proxy gives up.
    pub(crate) fn hang(&mut self) -> io::Result<()> {
        self.drain()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.record.open.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Wire {
    Inet(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Inet(stream) => stream.read(piece),
            Self::Unix(stream) => stream.read(piece),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Inet(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn is_hung_up(&self) -> io::Result<bool> {
        let fd: BorrowedFd<'_> = match self {
            Self::Inet(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        };
        let mut poll = [PollFd::new(&fd, PollFlags::RDHUP)];
        rustix::event::poll(&mut poll, Some(&Timespec::default()))?;
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        Ok(poll[0].revents().intersects(gone))
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Inet(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}
