//! Idle connections to an upstream, kept for the next request: last in,
//! first out, bounded in number and in age, per worker.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{Upstream, UpstreamAddress};

use super::balance::Group;
use super::transport::Transport;

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) card: Card,
}

/// What is known of a [`Connection`].
#[derive(Debug, Clone)]
pub(crate) struct Card {
    key: Key,
    /// What the handshake agreed on, over TLS.
    pub(crate) facts: Option<LinkFacts>,
    opened: Instant,
    requests: u64,
    /// It speaks for one client, so no other's requests go over it.
    is_personal: bool,
}

/// What a connection was made for; it serves nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Whom it leads to.
    pub(crate) address: UpstreamAddress,
    /// Over TLS, under what.
    pub(crate) tls: Option<Box<TlsKey>>,
    /// Where it comes from, if that was asked for.
    pub(crate) local: Option<SocketAddr>,
}

/// What the TLS connections to one address differ by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsKey {
    /// [`crate::tls::upstream::UpstreamTls::identity`].
    pub(crate) identity: [u8; 32],
    /// Who the backend was to be.
    pub(crate) name: Box<str>,
}

/// The identity and the name of a [`TlsKey`].
pub(crate) type TlsKeyRef<'a> = (&'a [u8; 32], &'a str);

impl Key {
    pub(crate) fn new(
        address: &UpstreamAddress,
        tls: Option<TlsKeyRef<'_>>,
        local: Option<SocketAddr>,
    ) -> Self {
        let tls = tls.map(|(identity, name)| {
            Box::new(TlsKey {
                identity: *identity,
                name: name.into(),
            })
        });
        Self {
            address: address.clone(),
            tls,
            local,
        }
    }

    /// Whether what was made for this serves that.
    pub(crate) fn serves(
        &self,
        address: &UpstreamAddress,
        tls: Option<TlsKeyRef<'_>>,
        local: Option<SocketAddr>,
    ) -> bool {
        let own = self.tls.as_ref().map(|key| (&key.identity, &*key.name));
        self.address == *address && own == tls && self.local == local
    }
}

/// How long a connection beyond those that `keepalive` lets a worker keep may
/// wait for a request all the same. Where more requests than that are under way
/// at a time, connections come free and are wanted again in bursts: closed at
/// once, those of each burst would have to be opened again for the next.
const SURPLUS_TIME: Duration = Duration::from_millis(100);

/// What a handshake with a backend agreed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkFacts {
    pub(crate) protocol: &'static str,
    /// OpenSSL's name.
    pub(crate) cipher: &'static str,
    /// Whether it resumed a session.
    pub(crate) resumed: bool,
}

impl Connection {
    pub(crate) fn new(
        transport: Transport,
        key: Key,
        facts: Option<LinkFacts>,
        now: Instant,
    ) -> Self {
        let card = Card {
            key,
            facts,
            opened: now,
            requests: 0,
            is_personal: false,
        };
        Self { transport, card }
    }

    /// What was asked of the way to the backend beside its address and TLS.
    pub(crate) fn linked(mut self, local: Option<SocketAddr>, is_personal: bool) -> Self {
        self.card.key.local = local;
        self.card.is_personal = is_personal;
        self
    }

    /// What it consists of, for what is not one request at a time.
    pub(crate) fn into_parts(self) -> (Transport, Key, Option<LinkFacts>) {
        (self.transport, self.card.key, self.card.facts)
    }

    /// Counts a request against `keepalive_requests`.
    pub(crate) fn count_request(&mut self) {
        self.card.requests += 1;
    }
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// `keepalive`: connections without a request.
    pub(crate) idle: usize,
    /// `keepalive_requests`, of each connection.
    pub(crate) requests: u64,
    /// `keepalive_timeout`: without a request.
    pub(crate) timeout: Duration,
    /// `keepalive_time`: at all.
    pub(crate) lifetime: Duration,
}

impl Limits {
    pub(crate) fn of(upstream: &Upstream) -> Self {
        Self {
            idle: upstream.keepalive,
            requests: upstream.keepalive_requests,
            timeout: upstream.keepalive_timeout,
            lifetime: upstream.keepalive_time,
        }
    }
}

/// The idle connections of one upstream on one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: Limits,
    /// Oldest first. Boxed: each is moved in and out for every request.
    idle: RefCell<Vec<(Box<Connection>, Instant)>>,
}

impl Pool {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self {
            limits: Limits::of(upstream),
            idle: RefCell::default(),
        }
    }

    /// Takes over what an older pool holds to peers that still exist: a
    /// reload need not cost handshakes.
    pub(crate) fn inherit(&self, older: &Self, group: &Group) {
        let mut idle = self.idle.borrow_mut();
        let mut old = older.idle.borrow_mut();
        let kept = old
            .drain(..)
            .filter(|(connection, _)| group.has(&connection.card.key.address));
        idle.extend(kept.take(self.limits.idle));
    }

    /// Closes what leads to peers that have left.
    pub(crate) fn keep_only(&self, group: &Group) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(connection, _)| group.has(&connection.card.key.address));
    }

    /// The most recently used connection to `address`, made under exactly this
    /// TLS identity and for this name (or without TLS).
    pub(crate) fn take(
        &self,
        address: &UpstreamAddress,
        tls: Option<TlsKeyRef<'_>>,
        local: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let keys = idle.iter().map(|(connection, _)| &connection.card.key);
        let index = latest(keys, address, tls, local)?;
        let (connection, since) = idle.remove(index);
        // Younger than the rest to this address, so if it is too old, all are.
        (now.duration_since(since) < self.limits.timeout).then_some(connection)
    }

    /// Where the most recently used connection of this TLS identity and name
    /// leads to, for an upstream all of whose addresses are alike.
    pub(crate) fn latest_address(
        &self,
        tls: Option<TlsKeyRef<'_>>,
        now: Instant,
    ) -> Option<UpstreamAddress> {
        let idle = self.idle.borrow();
        let (connection, since) = idle.iter().rfind(|(connection, _)| {
            let key = &connection.card.key;
            key.serves(&key.address, tls, key.local)
        })?;
        let young = now.duration_since(*since) < self.limits.timeout;
        young.then(|| connection.card.key.address.clone())
    }

    /// Keeps a connection on which a response has just ended, if it may serve
    /// another request.
    pub(crate) fn put(&self, connection: Box<Connection>, now: Instant) {
        let limits = self.limits;
        let card = &connection.card;
        let spent = card.is_personal
            || card.requests >= limits.requests
            || now.duration_since(card.opened) >= limits.lifetime
            || limits.idle == 0;
        if spent {
            return;
        }
        self.idle.borrow_mut().push((connection, now));
    }

    /// Closes the oldest if there are too many, and have been for a while. To be
    /// called more often than [`Pool::sweep`].
    pub(crate) fn trim(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let ages = idle.iter().map(|(_, since)| now.duration_since(*since));
        let surplus = surplus(ages, self.limits.idle);
        idle.drain(..surplus);
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

/// How many of these, oldest first, are to be closed where so many may stay.
fn surplus(ages: impl ExactSizeIterator<Item = Duration>, most: usize) -> usize {
    let beyond = ages.len().saturating_sub(most);
    ages.take(beyond)
        .take_while(|age| *age >= SURPLUS_TIME)
        .count()
}

/// Where in a list of keys, oldest first, the latest is that serves.
fn latest<'k>(
    mut keys: impl DoubleEndedIterator<Item = &'k Key> + ExactSizeIterator,
    address: &UpstreamAddress,
    tls: Option<TlsKeyRef<'_>>,
    local: Option<SocketAddr>,
) -> Option<usize> {
    keys.rposition(|key| key.serves(address, tls, local))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_those_beyond_the_limit_are_closed_and_only_when_they_have_waited() {
        let ages = [300, 200, 100, 99, 0].map(Duration::from_millis);
        for (most, closed) in [(5, 0), (4, 1), (3, 2), (2, 3), (1, 3), (0, 3)] {
            assert_eq!(surplus(ages.into_iter(), most), closed, "{most}");
        }
    }

    fn key() -> impl Strategy<Value = Key> {
        let tls = (0..3_u8, "[ab]{0,1}").prop_map(|(byte, name)| {
            Box::new(TlsKey {
                identity: [byte; 32],
                name: name.into(),
            })
        });
        let local = prop::option::of((0..2_u16).prop_map(|port| ([127, 0, 0, 2], port).into()));
        (0..3_u16, prop::option::of(tls), local).prop_map(|(port, tls, local)| Key {
            address: UpstreamAddress::Inet(([127, 0, 0, 1], port).into()),
            tls,
            local,
        })
    }

    proptest! {
        #[test]
        fn the_pool_never_returns_a_connection_under_another_tls_identity(
            held in prop::collection::vec(key(), 0..20),
            wanted in key(),
        ) {
            let tls = wanted.tls.as_ref().map(|key| (&key.identity, &*key.name));
            let found = latest(held.iter(), &wanted.address, tls, wanted.local);
            let expected = held.iter().rposition(|key| *key == wanted);
            prop_assert_eq!(found, expected);
        }
    }
}
