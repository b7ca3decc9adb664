//! One name's addresses or servers, asked for over UDP and, where an answer is cut off,
//! over TCP. Blocks.
//!
//! Every question has a random id and goes out from a port of its own, which
//! the kernel chooses at random; an answer counts only if it comes from the
//! server asked, to that port, with that id and that question.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::message::{self, Family, Record, Reply, Service};
use super::{ResolveError, Settings};

/// How long a name server has to answer before the next is asked.
const PER_SERVER: Duration = Duration::from_secs(2);
/// How long a name is asked for altogether.
const ALTOGETHER: Duration = Duration::from_secs(30);
/// Questions for the names that a name stands for, one after the other.
const MAX_ALIASES: usize = 10;
/// The pause before a server that is not there is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest answer over UDP without extensions is 512 bytes; a server that
/// sends more is understood.
const LONGEST_DATAGRAM: usize = 4096;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// IPv4 before IPv6, never empty.
    pub(super) records: Vec<Record>,
    /// How long that holds.
    pub(super) ttl: Duration,
}

/// The addresses of a name, with the server whose `turn` it is asked first.
///
/// # Errors
/// When there are none.
pub(super) fn addresses(
    settings: &Settings,
    name: &str,
    turn: usize,
) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    let families = [(settings.ipv4, Family::Ipv4), (settings.ipv6, Family::Ipv6)];
    let wanted = families.iter().filter(|(wanted, _)| *wanted);
    let searches = wanted.map(|(_, family)| Search::new(name, *family));
    let answer = search(settings, searches.collect(), turn)?;
    let addresses = answer
        .records
        .into_iter()
        .filter_map(|record| match record {
            Record::Address(address) => Some(address),
            Record::Service(_) => None,
        });
    Ok((addresses.collect(), answer.ttl))
}

/// The servers of a service, likewise.
///
/// # Errors
/// When there are none.
pub(super) fn services(
    settings: &Settings,
    name: &str,
    turn: usize,
) -> Result<(Vec<Service>, Duration), ResolveError> {
    let answer = search(settings, vec![Search::new(name, Family::Service)], turn)?;
    let services = answer
        .records
        .into_iter()
        .filter_map(|record| match record {
            Record::Service(service) => Some(service),
            Record::Address(_) => None,
        });
    Ok((services.collect(), answer.ttl))
}

/// Asks for all of these until there is something to go by.
fn search(
    settings: &Settings,
    mut searches: Vec<Search>,
    turn: usize,
) -> Result<Answer, ResolveError> {
    let end = Instant::now() + ALTOGETHER;
    for round in 0.. {
        let servers = &settings.servers;
        let Some(server) = servers.get((turn + round) % servers.len().max(1)) else {
            return Err(ResolveError::TimedOut);
        };
        let began = Instant::now();
        ask(&mut searches, *server, end.min(began + PER_SERVER));
        let open = searches.iter().any(Search::is_open);
        // Addresses of one family now are better than both of them late.
        let enough = searches.iter().any(Search::has_records);
        if !open || enough || Instant::now() >= end {
            break;
        }
        // A server that fails at once, having no port there or saying so, is
        // not asked again before every other has been, nor without a pause.
        let last_chance = round + 1 >= 2 * servers.len();
        if last_chance && searches.iter().all(|search| search.code.is_some()) {
            break;
        }
        if began.elapsed() < PAUSE {
            std::thread::sleep(PAUSE);
        }
    }
    conclude(&searches)
}

/// What all searches together have found.
fn conclude(searches: &[Search]) -> Result<Answer, ResolveError> {
    let mut records = Vec::new();
    let mut ttl = Duration::MAX;
    for search in searches.iter().filter(|search| search.has_records()) {
        if let Some(found) = &search.found {
            records.extend_from_slice(found);
            ttl = ttl.min(search.ttl);
        }
    }
    if !records.is_empty() {
        return Ok(Answer { records, ttl });
    }
    if searches.iter().any(|search| search.found.is_some()) {
        return Err(ResolveError::NOT_FOUND);
    }
    let code = searches.iter().find_map(|search| search.code);
    Err(code.map_or(ResolveError::TimedOut, ResolveError::Refused))
}

/// The search for records of one kind.
#[derive(Debug)]
struct Search {
    family: Family,
    /// What is asked for now: the name, or what it stands for.
    name: String,
    aliases: usize,
    ttl: Duration,
    found: Option<Vec<Record>>,
    /// The last refusal.
    code: Option<u8>,
}

impl Search {
    fn new(name: &str, family: Family) -> Self {
        Self {
            family,
            name: name.to_owned(),
            aliases: 0,
            ttl: Duration::MAX,
            found: None,
            code: None,
        }
    }

    fn is_open(&self) -> bool {
        self.found.is_none()
    }

    fn has_records(&self) -> bool {
        self.found.as_ref().is_some_and(|found| !found.is_empty())
    }

    /// Takes in a reply; whether another question is to be asked at once.
    fn take(&mut self, reply: Reply) -> bool {
        match reply {
            Reply::Records(found, ttl) => {
                self.ttl = self.ttl.min(ttl);
                self.found = Some(found);
            }
            // There is no such name, so other servers need not be asked.
            Reply::Refused(3) => self.found = Some(Vec::new()),
            Reply::Refused(code) => self.code = Some(code),
            Reply::Alias(name, ttl) if self.aliases < MAX_ALIASES && message::is_name(&name) => {
                self.ttl = self.ttl.min(ttl);
                self.aliases += 1;
                self.name = name;
                return true;
            }
            Reply::Alias(..) => self.found = Some(Vec::new()),
            Reply::Truncated => {}
        }
        false
    }
}

/// A question that has been sent.
struct Sent {
    socket: UdpSocket,
    id: u16,
    /// Which search it is for.
    index: usize,
}

/// Asks one server all that is open, until the time is up.
fn ask(searches: &mut [Search], server: SocketAddr, until: Instant) {
    let mut sent = Vec::new();
    for (index, search) in searches.iter_mut().enumerate() {
        if search.is_open() {
            match send(search, server) {
                Ok((socket, id)) => sent.push(Sent { socket, id, index }),
                // Not there.
                Err(_) => search.code = search.code.or(Some(2)),
            }
        }
    }
    while !sent.is_empty() {
        let Some(ready) = wait(&sent, until) else {
            return;
        };
        let Sent { socket, id, index } = sent.swap_remove(ready);
        let Some(search) = searches.get_mut(index) else {
            continue;
        };
        let mut buffer = [0; LONGEST_DATAGRAM];
        let reply = match socket.recv(&mut buffer) {
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                match message::answer(bytes, id, &search.name, search.family) {
                    Some(reply) => reply,
                    None => {
                        // Not an answer to this: the right one may follow.
                        sent.push(Sent { socket, id, index });
                        continue;
                    }
                }
            }
            Err(_) => {
                search.code = search.code.or(Some(2));
                continue;
            }
        };
        let reply = match reply {
            Reply::Truncated => match ask_over_tcp(search, server, until) {
                Some(reply) => reply,
                None => continue,
            },
            reply => reply,
        };
        if search.take(reply)
            && let Ok((socket, id)) = send(search, server)
        {
            sent.push(Sent { socket, id, index });
        }
    }
}

fn send(search: &Search, server: SocketAddr) -> io::Result<(UdpSocket, u16)> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let id = random_id()?;
    let question = message::question(id, &search.name, search.family);
    socket.send(&question.ok_or(io::ErrorKind::InvalidInput)?)?;
    Ok((socket, id))
}

fn random_id() -> io::Result<u16> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(id))
}

/// Which socket has something; `None` when the time is up.
fn wait(sent: &[Sent], until: Instant) -> Option<usize> {
    loop {
        let left = until.checked_duration_since(Instant::now())?;
        let mut descriptors: Vec<PollFd<'_>> = sent
            .iter()
            .map(|sent| PollFd::from_borrowed_fd(sent.socket.as_fd(), PollFlags::IN))
            .collect();
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(1),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut descriptors, Some(&left)) {
            Ok(0) => return None,
            Ok(_) => {
                let mut descriptors = descriptors.iter();
                return descriptors.position(|descriptor| !descriptor.revents().is_empty());
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// The whole of an answer that was too long for a datagram.
fn ask_over_tcp(search: &Search, server: SocketAddr, until: Instant) -> Option<Reply> {
    let left = || {
        until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    };
    let id = random_id().ok()?;
    let question = message::question(id, &search.name, search.family)?;
    let mut stream = TcpStream::connect_timeout(&server, left()?).ok()?;
    stream.set_write_timeout(left()).ok()?;
    let length = u16::try_from(question.len()).ok()?.to_be_bytes();
    stream.write_all(&[&length[..], &question].concat()).ok()?;
    let mut read_exactly = |buffer: &mut [u8]| -> Option<()> {
        let mut rest = buffer;
        while !rest.is_empty() {
            // The limit is on the whole, so it shrinks with every piece.
            stream.set_read_timeout(Some(left()?)).ok()?;
            match stream.read(rest) {
                Ok(0) => return None,
                Ok(count) => rest = rest.get_mut(count..)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(())
    };
    let mut length = [0; 2];
    read_exactly(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    read_exactly(&mut bytes)?;
    match message::answer(&bytes, id, &search.name, search.family)? {
        Reply::Truncated => None,
        reply => Some(reply),
    }
}
