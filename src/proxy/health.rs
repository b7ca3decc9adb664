//! `health_check`: one worker asks every peer now and then how it is, and all
//! go by the answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{HealthCheck, UpstreamAddress, UpstreamPeer};
use crate::http::h1::framing;
use crate::http::h1::parse::{HeadLimits, Status, parse_response};
use crate::http::head::{Method, ResponseHead};
use crate::net::buffers::{Buffer, Class};
use crate::net::deadlines::Deadline;
use crate::net::socket::{Behind, Socket};
use crate::net::spawn::spawn;
use crate::telemetry::error_log::Level;

use super::balance::members::Members;
use super::balance::state::{PeerState, Verdict};
use super::board;
use super::body::Incoming;
use super::gateway::Gateway;
use super::input::Input;
use super::transport::{Rx, Transport, Tx};
use super::upstream::secure::Secure;

/// Of a body, bytes, as in Nginx.
const LOOKED_AT: usize = 256 << 10;

/// The longest head of an answer, as for requests.
const HEAD: HeadLimits = HeadLimits {
    line: 16 << 10,
    total: 16 << 10,
    fields: 256,
};

/// When each peer is to be asked next; `None` while it is being asked.
type Due = Rc<RefCell<Option<Instant>>>;

/// A worker's part in the health checks of one configuration.
#[derive(Debug)]
pub(crate) struct Checks {
    worker: u64,
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    config: HealthCheck,
    /// Whom `peers` is made of.
    members: RefCell<Arc<Members>>,
    /// The state, the peer and when to ask it.
    peers: RefCell<Vec<(Arc<PeerState>, UpstreamPeer, Due)>>,
    /// The upstream's name.
    name: Box<str>,
}

impl Checks {
    /// `None` where nothing is checked.
    pub(crate) fn new(gateway: &Gateway) -> Option<Self> {
        let all = &gateway.config.health_checks;
        if all.is_empty() {
            return None;
        }
        let check = |config: &HealthCheck| {
            let upstream = gateway.config.upstreams.get(config.upstream)?;
            let check = Check {
                config: config.clone(),
                members: RefCell::default(),
                peers: RefCell::default(),
                name: upstream.name.clone(),
            };
            Some(check)
        };
        Some(Self {
            worker: board::number(),
            checks: all.iter().filter_map(check).collect(),
        })
    }

    /// Asks whom it is time to ask, if that is this worker's part.
    pub(crate) fn tick(&self, gateway: &Arc<Gateway>, now: Instant) {
        if !gateway.registry.checkers.is_mine(self.worker, now) {
            return;
        }
        for check in &self.checks {
            check.follow(gateway, now);
            for (state, peer, due) in &*check.peers.borrow() {
                let is_due = due.borrow().is_some_and(|due| due <= now) && !peer.down;
                if !is_due {
                    continue;
                }
                *due.borrow_mut() = None;
                let (config, name) = (check.config.clone(), check.name.clone());
                let (state, peer, due) = (Arc::clone(state), peer.clone(), Rc::clone(due));
                let gateway = Arc::clone(gateway);
                let task = async move {
                    let passed = Box::pin(ask(&gateway, &config, &peer)).await;
                    let verdict =
                        state.checked(passed, config.fails, config.passes, Instant::now());
                    tell(&gateway, &name, &peer, verdict);
                    let jitter = config.jitter.mul_f64(fastrand::f64());
                    *due.borrow_mut() = Some(Instant::now() + config.interval + jitter);
                };
                spawn(task, |_| {});
            }
        }
    }
}

impl Check {
    /// Whoever is new is asked at once, and who has left no more.
    fn follow(&self, gateway: &Gateway, now: Instant) {
        let id = self.config.upstream;
        let Some(upstream) = gateway.config.upstreams.get(id) else {
            return;
        };
        let (members, _) = gateway.registry.join(id, upstream);
        if Arc::ptr_eq(&members, &self.members.borrow()) {
            return;
        }
        let mut peers = self.peers.borrow_mut();
        let due = |state: &Arc<PeerState>| {
            let mut known = peers.iter();
            let known = known.find(|(known, _, _)| Arc::ptr_eq(known, state));
            known.map_or_else(
                || Rc::new(RefCell::new(Some(now))),
                |(_, _, due)| Rc::clone(due),
            )
        };
        let next = members.iter().map(|member| {
            let due = due(&member.state);
            (Arc::clone(&member.state), member.peer.clone(), due)
        });
        let next = next.collect();
        *peers = next;
        drop(peers);
        *self.members.borrow_mut() = members;
    }
}

/// Tells the log what has changed.
fn tell(gateway: &Gateway, name: &str, peer: &UpstreamPeer, verdict: Verdict) {
    let (level, what) = match verdict {
        Verdict::AsBefore => return,
        Verdict::BecameHealthy => (Level::Notice, "healthy"),
        Verdict::BecameUnhealthy => (Level::Warn, "unhealthy"),
    };
    if let Some(log) = gateway.main_error_log() {
        let address = &peer.address;
        log.log(
            level,
            None,
            format_args!("peer {address} in upstream \"{name}\" is {what}"),
        );
    }
}

/// Whether the peer answers as it should, and in time.
async fn ask(gateway: &Gateway, check: &HealthCheck, peer: &UpstreamPeer) -> bool {
    let Some(mut transport) = connect(gateway, check, peer).await else {
        return false;
    };
    let (mut rx, mut tx) = transport.split();
    if send(check, &mut tx).await.is_none() {
        return false;
    }
    passes(check, &mut rx).await.unwrap_or(false)
}

async fn connect(gateway: &Gateway, check: &HealthCheck, peer: &UpstreamPeer) -> Option<Transport> {
    let deadline = Deadline::new();
    deadline.arm(check.connect_timeout);
    let mut address = peer.address.clone();
    if let (UpstreamAddress::Inet(address), Some(port)) = (&mut address, check.port) {
        address.set_port(port);
    }
    let socket = match &address {
        UpstreamAddress::Inet(address) => deadline.run(Socket::connect(*address)).await,
        UpstreamAddress::Unix(path) => deadline.run(Socket::connect_unix(path)).await,
    };
    let socket = socket.ok()?.ok()?;
    let Some(settings) = &check.tls else {
        return Some(Transport::new(socket, None, Input::default()));
    };
    let secure = Secure::for_check(gateway, settings, &check.host)?;
    let connection = secure.handshake(socket, &address, &deadline).await.ok()?;
    let (transport, _, _) = connection.into_parts();
    Some(transport)
}

async fn send(check: &HealthCheck, tx: &mut Tx<'_>) -> Option<()> {
    let question = [
        b"GET ",
        &*check.uri,
        b" HTTP/1.1\r\nHost: ",
        check.host.as_bytes(),
        b"\r\nUser-Agent: ringwall (health check)\r\nConnection: close\r\n\r\n",
    ]
    .concat();
    let mut buffer = Buffer::for_size(question.len());
    buffer.get_mut(..question.len())?.copy_from_slice(&question);
    let range = 0..question.len();
    tx.send(buffer, range, Behind::Nothing, check.read_timeout)
        .await
        .ok()?;
    Some(())
}

/// Whether the answer is as it should be; `None` where there is no whole one.
async fn passes(check: &HealthCheck, rx: &mut Rx<'_>) -> Option<bool> {
    let mut head = ResponseHead::default();
    loop {
        match parse_response(rx.input.plain(), &HEAD, &mut head) {
            Ok(Status::Complete) if head.status >= 200 => break,
            Ok(Status::Complete) => {
                rx.input.consume(head.len);
                head.clear();
                continue;
            }
            Ok(Status::Partial) => {}
            Err(_) => return None,
        }
        match rx.fill(Class::Medium, check.read_timeout).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
    let bytes = rx.input.plain();
    let mut fields = check.expects.fields.iter();
    let as_expected = check.expects.statuses.passes(head.status)
        && fields.all(|field| field.passes(head.find(bytes, &field.name)));
    let Some((pattern, negated)) = check.expects.body.as_ref().filter(|_| as_expected) else {
        return Some(as_expected);
    };
    let framing = framing::of_response(&head, bytes, Method::Get).ok()?;
    rx.input.consume(head.len);
    let mut incoming = Incoming::new(framing.kind());
    let mut body = Vec::new();
    while !incoming.is_done() && body.len() < LOOKED_AT {
        if rx.input.plain().is_empty() {
            let filled = incoming.fill(rx, Class::Medium, check.read_timeout);
            filled.await.ok()?;
            continue;
        }
        let decoded = incoming.decode(rx.input.plain_mut()).ok()?;
        let piece = rx.input.plain().get(..decoded.produced)?;
        let room = LOOKED_AT - body.len();
        body.extend_from_slice(piece.get(..room).unwrap_or(piece));
        rx.input.consume(decoded.consumed);
    }
    pattern.is_match(&body).ok().map(|found| found != *negated)
}
