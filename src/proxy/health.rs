//! `health_check`: one worker asks every peer now and then how it is, and all
//! go by the answer.
//!
//! Who asks is settled by a [`Board`] that all workers share: the one that
//! writes its name there, and keeps doing so. If it ends, another takes over.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::{HealthCheck, UpstreamAddress, UpstreamPeer};
use crate::http::h1::parse::{HeadLimits, Status, parse_response};
use crate::http::head::ResponseHead;
use crate::net::buffers::{Buffer, Class};
use crate::net::deadlines::Deadline;
use crate::net::socket::Socket;
use crate::net::spawn::spawn;
use crate::telemetry::error_log::Level;

use super::balance::state::{GroupState, Moment, PeerState, Verdict};
use super::gateway::Gateway;
use super::input::Input;
use super::transport::Transport;

/// After so much silence the one who asks is taken to have ended.
const SILENCE: Duration = Duration::from_secs(2);

/// The longest head of an answer, as for requests.
const HEAD: HeadLimits = HeadLimits {
    line: 16 << 10,
    total: 16 << 10,
    fields: 256,
};

/// Which worker asks.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// 0 for nobody.
    asker: AtomicU64,
    /// When it was last seen, as [`Moment`] counts.
    seen: AtomicU64,
}

impl Board {
    /// Whether it is this worker that asks, now and until its next call.
    fn is_mine(&self, worker: u64, now: Moment) -> bool {
        let asker = self.asker.load(Ordering::Acquire);
        let seen = self.seen.load(Ordering::Acquire);
        let mine = asker == worker
            || ((asker == 0 || now.since(seen) > SILENCE)
                && self
                    .asker
                    .compare_exchange(asker, worker, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok());
        if mine {
            self.seen.store(now.count(), Ordering::Release);
        }
        mine
    }
}

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
    /// The state, the peer and when to ask it.
    peers: Vec<(Arc<PeerState>, UpstreamPeer, Due)>,
    /// The upstream's name.
    name: Box<str>,
}

/// Workers are told apart by numbers of their own.
static WORKERS: AtomicU64 = AtomicU64::new(0);

impl Checks {
    /// `None` where nothing is checked.
    pub(crate) fn new(gateway: &Gateway) -> Option<Self> {
        let all = &gateway.config.health_checks;
        if all.is_empty() {
            return None;
        }
        let check = |config: &HealthCheck| {
            let upstream = gateway.config.upstreams.get(config.upstream)?;
            let state: Arc<GroupState> = gateway.registry.join(config.upstream, upstream);
            let states = state.peers.iter().map(Arc::clone);
            let now = Instant::now();
            let peers = states.zip(upstream.peers.iter().cloned());
            Some(Check {
                config: config.clone(),
                peers: peers
                    .map(|(state, peer)| (state, peer, Rc::new(RefCell::new(Some(now)))))
                    .collect(),
                name: upstream.name.clone(),
            })
        };
        Some(Self {
            worker: WORKERS.fetch_add(1, Ordering::Relaxed) + 1,
            checks: all.iter().filter_map(check).collect(),
        })
    }

    /// Asks whom it is time to ask, if that is this worker's part.
    pub(crate) fn tick(&self, gateway: &Arc<Gateway>, now: Instant) {
        if !gateway.registry.board.is_mine(self.worker, Moment::at(now)) {
            return;
        }
        for check in &self.checks {
            for (state, peer, due) in &check.peers {
                let is_due = due.borrow().is_some_and(|due| due <= now) && !peer.down;
                if !is_due {
                    continue;
                }
                *due.borrow_mut() = None;
                let (config, name) = (check.config.clone(), check.name.clone());
                let (state, peer, due) = (Arc::clone(state), peer.clone(), Rc::clone(due));
                let gateway = Arc::clone(gateway);
                let task = async move {
                    let passed = ask(&config, &peer).await;
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

/// Whether the peer answers as it should.
async fn ask(check: &HealthCheck, peer: &UpstreamPeer) -> bool {
    status_of(check, peer)
        .await
        .is_some_and(|status| check.statuses.passes(status))
}

/// The status of the peer's answer, if there is one in time.
async fn status_of(check: &HealthCheck, peer: &UpstreamPeer) -> Option<u16> {
    let deadline = Deadline::new();
    deadline.arm(check.connect_timeout);
    let socket = match &peer.address {
        UpstreamAddress::Inet(address) => {
            let mut address = *address;
            if let Some(port) = check.port {
                address.set_port(port);
            }
            deadline.run(Socket::connect(address)).await
        }
        UpstreamAddress::Unix(path) => deadline.run(Socket::connect_unix(path)).await,
    };
    let mut transport = Transport::new(socket.ok()?.ok()?, None, Input::default());
    let (mut rx, mut tx) = transport.split();
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
    tx.send(buffer, range, check.read_timeout).await.ok()?;
    let mut head = ResponseHead::default();
    loop {
        match parse_response(rx.input.plain(), &HEAD, &mut head) {
            Ok(Status::Complete) if head.status >= 200 => return Some(head.status),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_asks_until_it_falls_silent() {
        let board = Board::default();
        let start = Instant::now();
        let at = |seconds| Moment::at(start + Duration::from_secs(seconds));
        assert!(board.is_mine(1, at(0)));
        assert!(!board.is_mine(2, at(1)));
        assert!(board.is_mine(1, at(2)));
        assert!(!board.is_mine(2, at(3)));
        assert!(board.is_mine(2, at(5)));
        assert!(!board.is_mine(1, at(5)));
    }
}
