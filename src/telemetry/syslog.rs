//! Lines for a syslog server, as Nginx sends them: BSD syslog (RFC 3164) in
//! datagrams, over UDP or a Unix domain socket.

use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::clock;
use super::error_log::Level;

/// Ends a line on its way to the thread that sends it: no line holds it, while
/// a line feed may stand in a format.
pub(super) const END: u8 = 0;

/// The longest line, header included; what is behind is cut off. Nginx's bound.
const MAX_LINE: usize = 2048 + 342;

/// How long a Unix domain socket that is full is waited for. Its queue is
/// short (10 datagrams, by default), so without that every burst would be cut.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// Where lines go, and what they begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// The server.
    pub server: Server,
    /// 0–23.
    pub facility: u8,
    /// 0–7, for lines that have none of their own.
    pub severity: u8,
    /// The program's name.
    pub tag: Box<str>,
    /// This host's name; `None` for `nohostname`.
    pub hostname: Option<Box<str>>,
}

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// UDP.
    Inet(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "syslog:server={address}"),
            Self::Unix(path) => write!(f, "syslog:server=unix:{}", path.display()),
        }
    }
}

impl Syslog {
    /// Appends `<190>Nov 20 18:00:00 host tag: `.
    pub(super) fn put_header(&self, level: Option<Level>, out: &mut Vec<u8>) {
        let severity = level.map_or(self.severity, |level| level as u8);
        let priority = u16::from(self.facility) * 8 + u16::from(severity);
        // Writing to a `Vec` cannot fail.
        let _ = write!(out, "<{priority}>");
        clock::put_syslog_time(out);
        if let Some(hostname) = &self.hostname {
            let _ = write!(out, " {hostname}");
        }
        let _ = write!(out, " {}: ", self.tag);
    }
}

/// A socket to a server, made when it is first needed and again after a
/// failure: the server may not be there yet.
#[derive(Debug, Default)]
pub(super) struct Sender {
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    Inet(UdpSocket),
    Unix(UnixDatagram),
}

impl Sender {
    /// Sends lines that end with [`END`], each in a datagram. How many were
    /// lost, and the last reason.
    pub(super) fn send(&mut self, server: &Server, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut lost = None;
        let lines = lines.strip_suffix(&[END]).unwrap_or(lines);
        for line in lines.split(|byte| *byte == END) {
            let line = line.get(..MAX_LINE).unwrap_or(line);
            if let Err(error) = self.send_one(server, line) {
                let before = lost.map_or(0, |(count, _)| count);
                lost = Some((before + 1, error));
            }
        }
        lost.map_or(Ok(()), Err)
    }

    fn send_one(&mut self, server: &Server, line: &[u8]) -> io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(connect(server)?),
        };
        let sent = match socket {
            // A datagram that was refused is told of by the next one, which is
            // none the worse for it.
            Socket::Inet(socket) => socket.send(line).or_else(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => socket.send(line),
                _ => Err(error),
            }),
            Socket::Unix(socket) => socket.send(line),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.socket = None;
                }
                Err(error)
            }
        }
    }
}

fn connect(server: &Server) -> io::Result<Socket> {
    match server {
        Server::Inet(address) => {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok(Socket::Inet(socket))
        }
        Server::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok(Socket::Unix(socket))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syslog(server: Server, hostname: Option<&str>) -> Syslog {
        Syslog {
            server,
            facility: 23,
            severity: 6,
            tag: "nginx".into(),
            hostname: hostname.map(Into::into),
        }
    }

    #[test]
    fn a_header_is_that_of_rfc_3164() {
        let server = Server::Inet(([127, 0, 0, 1], 514).into());
        for (syslog, level, shape) in [
            (
                syslog(server.clone(), Some("host")),
                None,
                r"^<190>[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d host nginx: $",
            ),
            (
                syslog(server, None),
                Some(Level::Error),
                r"^<187>[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d nginx: $",
            ),
        ] {
            let mut out = Vec::new();
            syslog.put_header(level, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(regex::Regex::new(shape).unwrap().is_match(&text), "{text}");
        }
    }

    #[test]
    fn a_server_that_comes_late_gets_what_is_sent_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = Server::Unix(path.clone());
        let mut sender = Sender::default();
        let (lost, error) = sender.send(&server, b"a\0b\0").unwrap_err();
        assert_eq!((lost, error.kind()), (2, io::ErrorKind::NotFound));
        let receiver = UnixDatagram::bind(&path).unwrap();
        sender.send(&server, b"c\0d\ne\0").unwrap();
        let mut buffer = [0; 16];
        for expected in [&b"c"[..], b"d\ne"] {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }
}
