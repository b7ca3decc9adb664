//! A name server on loopback that answers as the test says, and counts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The types of records.
pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;

/// What is answered to a question.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// These records: type, time to live, data.
    Records(Vec<(u16, u32, Vec<u8>)>),
    /// This code.
    Code(u8),
    /// Nothing at all.
    Silence,
    /// Over UDP only that the answer is too long; over TCP these records.
    Truncated(Vec<(u16, u32, Vec<u8>)>),
    /// First what others might forge: a wrong id, a wrong name, another type;
    /// then these records.
    AfterForgeries(Vec<(u16, u32, Vec<u8>)>, Vec<(u16, u32, Vec<u8>)>),
}

/// One address record of 127.0.0.1.
pub(crate) fn localhost(ttl: u32) -> Answer {
    Answer::Records(vec![(A, ttl, vec![127, 0, 0, 1])])
}

/// Labels as they are sent.
pub(crate) fn labels(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = name
        .split('.')
        .flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()))
        .collect();
    bytes.push(0);
    bytes
}

/// A running name server, over UDP and TCP.
pub(crate) struct NameServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    queries: Arc<AtomicUsize>,
    ports: Arc<Mutex<Vec<u16>>>,
}

impl NameServer {
    /// Answers each question by name and type.
    pub(crate) fn start(answer: impl Fn(&str, u16) -> Answer + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = udp.local_addr().expect("bound");
            if let Ok(tcp) = TcpListener::bind(address) {
                break (udp, tcp);
            }
        };
        let server = Self {
            address: udp.local_addr().expect("bound"),
            stop: Arc::default(),
            queries: Arc::default(),
            ports: Arc::default(),
        };
        let answer = Arc::new(answer);
        let (stop, queries) = (Arc::clone(&server.stop), Arc::clone(&server.queries));
        let (ports, said) = (Arc::clone(&server.ports), Arc::clone(&answer));
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                queries.fetch_add(1, Ordering::SeqCst);
                ports.lock().expect("not poisoned").push(peer.port());
                for reply in replies(&buffer[..length], &*said, false) {
                    let _ = udp.send_to(&reply, peer);
                }
            }
        });
        let stop = Arc::clone(&server.stop);
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut question).is_err() {
                    continue;
                }
                for reply in replies(&question, &*answer, true) {
                    let length = (reply.len() as u16).to_be_bytes();
                    // In pieces, as TCP may.
                    let _ = stream.write_all(&length[..1]);
                    let _ = stream.write_all(&length[1..]);
                    let _ = stream.write_all(&reply);
                }
            }
        });
        server
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Questions over UDP so far.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }

    /// The ports that they came from.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.ports.lock().expect("not poisoned").clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let wake = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let _ = wake.and_then(|socket| socket.send_to(b"", self.address));
        drop(std::net::TcpStream::connect(self.address));
    }
}

fn replies(question: &[u8], answer: &dyn Fn(&str, u16) -> Answer, tcp: bool) -> Vec<Vec<u8>> {
    if question.len() < 17 {
        return Vec::new();
    }
    let mut name = Vec::new();
    let mut at = 12;
    while let Some(&length) = question.get(at).filter(|length| **length > 0) {
        let end = at + 1 + usize::from(length);
        name.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let asked = &question[12..at + 5];
    let id = &question[..2];
    let reply = |id: &[u8], asked: &[u8], flags: u16, records: &[(u16, u32, Vec<u8>)]| {
        let mut reply = id.to_vec();
        reply.extend_from_slice(&flags.to_be_bytes());
        reply.extend_from_slice(&[0, 1]);
        reply.extend_from_slice(&(records.len() as u16).to_be_bytes());
        reply.extend_from_slice(&[0; 4]);
        reply.extend_from_slice(asked);
        for (kind, ttl, data) in records {
            // A pointer to the question's name.
            reply.extend_from_slice(&[0xc0, 12]);
            reply.extend_from_slice(&kind.to_be_bytes());
            reply.extend_from_slice(&[0, 1]);
            reply.extend_from_slice(&ttl.to_be_bytes());
            reply.extend_from_slice(&(data.len() as u16).to_be_bytes());
            reply.extend_from_slice(data);
        }
        reply
    };
    const OK: u16 = 0x8180;
    match answer(&name.join("."), kind) {
        Answer::Silence => Vec::new(),
        Answer::Code(code) => vec![reply(id, asked, OK | u16::from(code), &[])],
        Answer::Records(records) => vec![reply(id, asked, OK, &records)],
        Answer::Truncated(records) if tcp => vec![reply(id, asked, OK, &records)],
        Answer::Truncated(_) => vec![reply(id, asked, OK | 0x0200, &[])],
        Answer::AfterForgeries(forged, records) => {
            let mut other_id = id.to_vec();
            other_id[0] ^= 1;
            let mut other_name = labels("forged.test");
            other_name.extend_from_slice(&asked[asked.len() - 4..]);
            let mut other_type = asked.to_vec();
            let end = other_type.len();
            other_type[end - 3] ^= 29;
            vec![
                reply(&other_id, asked, OK, &forged),
                reply(id, &other_name, OK, &forged),
                reply(id, &other_type, OK, &forged),
                b"no message at all".to_vec(),
                reply(id, asked, OK, &records),
            ]
        }
    }
}
