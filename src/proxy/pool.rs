//! Idle connections to an upstream, kept for the next request: last in,
//! first out, bounded in number and in age, per worker.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::config::{Upstream, UpstreamAddress};

use super::transport::Transport;

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    /// Whom it leads to. Later joined by the TLS identity it was made under.
    pub(crate) address: UpstreamAddress,
    opened: Instant,
    requests: u64,
}

impl Connection {
    pub(crate) fn new(transport: Transport, address: UpstreamAddress, now: Instant) -> Self {
        Self {
            transport,
            address,
            opened: now,
            requests: 0,
        }
    }

    /// Counts a request against `keepalive_requests`.
    pub(crate) fn count_request(&mut self) {
        self.requests += 1;
    }
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
struct Limits {
    idle: usize,
    requests: u64,
    timeout: Duration,
    lifetime: Duration,
}

/// The idle connections of one upstream on one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: Limits,
    /// Oldest first.
    idle: RefCell<Vec<(Connection, Instant)>>,
}

impl Pool {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        let limits = Limits {
            idle: upstream.keepalive,
            requests: upstream.keepalive_requests,
            timeout: upstream.keepalive_timeout,
            lifetime: upstream.keepalive_time,
        };
        Self {
            limits,
            idle: RefCell::default(),
        }
    }

    /// Takes over what an older pool holds to peers that still exist: a
    /// reload need not cost handshakes.
    pub(crate) fn inherit(&self, older: &Self, upstream: &Upstream) {
        let mut idle = self.idle.borrow_mut();
        let mut old = older.idle.borrow_mut();
        let kept = old.drain(..).filter(|(connection, _)| {
            upstream
                .peers
                .iter()
                .any(|peer| peer.address == connection.address)
        });
        idle.extend(kept.take(self.limits.idle));
    }

    /// The most recently used connection to `address`.
    pub(crate) fn take(&self, address: &UpstreamAddress, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let index = idle
            .iter()
            .rposition(|(connection, _)| connection.address == *address)?;
        let (connection, since) = idle.remove(index);
        // Younger than the rest to this address, so if it is too old, all are.
        (now.duration_since(since) < self.limits.timeout).then_some(connection)
    }

    /// Keeps a connection on which a response has just ended, if it may serve
    /// another request; closes the oldest if there are too many.
    pub(crate) fn put(&self, connection: Connection, now: Instant) {
        let limits = self.limits;
        let spent = connection.requests >= limits.requests
            || now.duration_since(connection.opened) >= limits.lifetime
            || limits.idle == 0;
        if spent {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limits.idle {
            idle.remove(0);
        }
        idle.push((connection, now));
    }

    /// Closes what has been idle for too long or what the backend has closed
    /// or spoken on. To be called now and then.
    pub(crate) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|(connection, since)| {
            now.duration_since(*since) < self.limits.timeout
                && connection.transport.sender().is_quiet()
        });
    }

    /// Connections that wait for a request.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes all: the worker drains.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}
