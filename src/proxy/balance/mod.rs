//! Which peer of an upstream gets a request, as Nginx chooses
//! (`ngx_http_upstream_round_robin.c` and its siblings), with passive failure
//! detection.
//!
//! A [`Group`] is an upstream as one worker sees it: its [`members`], how far
//! the round has come, and the [`state`] of the peers, which is the worker's
//! own or, with `zone`, all workers'. A request begins a [`Selection`], and each
//! peer that it asks is held by a [`Lease`].

mod hash;
pub(crate) mod members;
mod methods;
pub(crate) mod queue;
pub(crate) mod sessions;
pub(crate) mod state;
mod sticky;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::config::{
    BalanceMethod, Sticky, StickySessions, Upstream, UpstreamAddress, UpstreamPeer,
};
use crate::net::now::now;

use self::hash::Ring;
use self::members::Members;
use self::queue::Queue;
use self::sessions::Sessions;
use self::state::{Moment, PeerState};
use super::request::Request;
use super::variables::expand_to_vec;

pub(crate) use self::state::AfterFailure;

/// The peers of an upstream, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Group {
    peers: Box<[Rc<UpstreamPeer>]>,
    /// Of each of them.
    states: Box<[Arc<PeerState>]>,
    method: BalanceMethod,
    /// Of `hash … consistent`.
    ring: Option<Ring>,
    sticky: Option<Names>,
    queue: Option<Queue>,
    turns: RefCell<Box<[Turn]>>,
    /// Of the peers that are no backups: how many, and their weights' sum.
    primaries: usize,
    primary_weight: u64,
    has_slow_start: bool,
}

/// What `sticky` says, and by peer what it is called.
#[derive(Debug)]
struct Names {
    sticky: Box<Sticky>,
    names: Box<[Box<str>]>,
    /// Of `sticky learn`.
    sessions: Option<Arc<Sessions>>,
}

/// How far the smooth weighted round has come for a peer. Per worker in any
/// case: an exact round over all workers would be a lock.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Falls when the peer fails and recovers by one with each choice.
    effective_weight: i64,
    current_weight: i64,
}

/// The choice of peers for one request.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    tried: SmallVec<[usize; 4]>,
    /// No primary is left: backups are asked.
    among_backups: bool,
    /// Of `hash` and `ip_hash`.
    key: Vec<u8>,
    hash: u32,
    /// Hashes of the key so far.
    turns: u32,
    /// On the circle of `hash … consistent`.
    position: usize,
    /// Draws and hashes so far; after [`methods::MAX_DRAWS`] it is whose turn
    /// it is.
    draws: u32,
    /// The peer that `sticky` leads to.
    hint: Option<usize>,
    /// The session that the request belongs to, with `sticky learn`.
    session: Option<Vec<u8>>,
    /// Peers that may still be asked.
    tries_left: usize,
}

impl Selection {
    /// Whether a further peer may be asked after the present one.
    pub(crate) fn may_go_on(&self) -> bool {
        self.tries_left > 0
    }

    /// Whether a peer has been asked.
    pub(crate) fn has_begun(&self) -> bool {
        !self.tried.is_empty()
    }
}

impl Group {
    pub(crate) fn new(
        upstream: &Upstream,
        members: &Members,
        sessions: Option<&Arc<Sessions>>,
    ) -> Rc<Self> {
        let peers = members.iter().map(|member| member.peer.clone());
        let peers: Box<[_]> = peers.map(Rc::new).collect();
        let states = members.iter().map(|member| Arc::clone(&member.state));
        let primaries = || peers.iter().filter(|peer| !peer.backup);
        let ring = matches!(upstream.method, BalanceMethod::ConsistentHash(_)).then(|| {
            let peers = peers.iter().enumerate();
            Ring::new(peers.filter_map(|(index, peer)| (!peer.backup).then_some((index, &**peer))))
        });
        let sticky = upstream.sticky.as_ref().map(|sticky| Names {
            sticky: sticky.clone(),
            names: peers.iter().map(|peer| sticky::name(peer)).collect(),
            sessions: sessions.cloned(),
        });
        let turns = peers
            .iter()
            .map(|peer| Turn {
                effective_weight: peer.weight.into(),
                current_weight: 0,
            })
            .collect();
        Rc::new(Self {
            method: upstream.method.clone(),
            ring,
            sticky,
            queue: upstream.queue.map(Queue::new),
            states: states.collect(),
            turns: RefCell::new(turns),
            primaries: primaries().count(),
            primary_weight: primaries().map(|peer| u64::from(peer.weight)).sum(),
            has_slow_start: peers.iter().any(|peer| !peer.slow_start.is_zero()),
            peers,
        })
    }

    /// The round goes on where it was for peers that are in both.
    pub(crate) fn go_on_from(&self, older: &Self) {
        let old = older.turns.borrow();
        for (turn, peer) in self.turns.borrow_mut().iter_mut().zip(&self.peers) {
            let mut known = older.peers.iter().zip(&*old);
            if let Some((_, known)) = known.find(|(known, _)| known == &peer) {
                *turn = *known;
            }
        }
    }

    /// Whether clients stay with the peer that they were given.
    pub(crate) fn is_sticky(&self) -> bool {
        self.sticky.is_some()
    }

    /// Where requests wait that nobody can take, if they do.
    pub(crate) fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// In the order of their indices.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Rc<UpstreamPeer>> {
        self.peers.iter()
    }

    /// Whether this is the address of one of them.
    pub(crate) fn has(&self, address: &UpstreamAddress) -> bool {
        self.peers.iter().any(|peer| peer.address == *address)
    }

    /// Begins to choose for a request, which may be tried with at most
    /// `tries` peers (0 for as many as there are).
    pub(crate) fn select(&self, request: &Request<'_>, tries: usize) -> Selection {
        let mut selection = self.selection(tries);
        match &self.method {
            BalanceMethod::IpHash => selection.hash = hash::IP_HASH_START,
            BalanceMethod::Hash(key) => selection.key = expand_to_vec(key, request),
            BalanceMethod::ConsistentHash(key) => {
                selection.key = expand_to_vec(key, request);
                let ring = self.ring.as_ref();
                selection.position = ring.map_or(0, |ring| ring.position(&selection.key));
            }
            _ => {}
        }
        if let Some(sticky) = &self.sticky {
            self.follow(sticky, request, &mut selection);
        }
        selection
    }

    /// Where the client was before.
    fn follow(&self, names: &Names, request: &Request<'_>, selection: &mut Selection) {
        let Some(asked) = sticky::asked_for(&names.sticky, request) else {
            return;
        };
        let position = |name: &[u8]| {
            let mut names = names.names.iter();
            names.position(|known| known.as_bytes() == name)
        };
        let learnt = names.sticky.sessions.as_ref().zip(names.sessions.as_ref());
        let Some((settings, sessions)) = learnt else {
            selection.hint = position(&asked);
            return;
        };
        let now = Moment::at(Instant::now());
        let known = sessions.find(&asked, settings.timeout, now);
        selection.hint = known.and_then(|name| position(name.as_bytes()));
        selection.session = Some(asked);
    }

    fn selection(&self, tries: usize) -> Selection {
        let up = self.peers.iter().filter(|peer| !peer.down).count();
        Selection {
            tries_left: if tries > 0 { tries.min(up) } else { up },
            ..Selection::default()
        }
    }

    /// The next peer that is neither down, failed, full nor tried; backups
    /// only when no primary is left. `None` when there is no live peer.
    pub(crate) fn choose(
        self: &Rc<Self>,
        selection: &mut Selection,
        request: &Request<'_>,
        now: Instant,
    ) -> Option<Lease> {
        self.choose_for(selection, request.client(), now)
    }

    fn choose_for(
        self: &Rc<Self>,
        selection: &mut Selection,
        client: crate::net::addr::ClientAddr,
        now: Instant,
    ) -> Option<Lease> {
        let now = Moment::at(now);
        // Each turn either ends this or finds a peer that another worker has
        // filled up meanwhile, which is then full for this one too.
        for _ in 0..=self.peers.len() {
            let index = self.next(selection, client, now)?;
            let (peer, state) = (self.peers.get(index)?, self.states.get(index)?);
            if state.occupy(peer, now) {
                selection.tried.push(index);
                selection.tries_left = selection.tries_left.saturating_sub(1);
                return Some(Lease {
                    group: Rc::clone(self),
                    peer: Rc::clone(peer),
                    index,
                    is_settled: Cell::new(false),
                    is_released: Cell::new(false),
                });
            }
        }
        None
    }

    /// Whether the peer gets nothing because it failed, or by its health checks.
    pub(crate) fn is_benched(&self, index: usize, now: Instant) -> bool {
        let (peer, state) = (self.peers.get(index), self.states.get(index));
        let has_failed = |peer: &UpstreamPeer, state: &PeerState| {
            !self.is_single() && state.is_benched(peer, Moment::at(now))
        };
        peer.zip(state)
            .is_some_and(|(peer, state)| state.is_unhealthy() || has_failed(peer, state))
    }

    /// A lone peer is never left alone: there is nothing better to do.
    fn is_single(&self) -> bool {
        self.peers.len() == 1
    }

    /// Whether a request may be given to this peer.
    fn is_usable(&self, index: usize, selection: &Selection, now: Moment) -> bool {
        self.peers.get(index).is_some_and(|peer| !peer.drain)
            && self.is_usable_by_name(index, selection, now)
    }

    /// As [`Group::is_usable`], for a request that `sticky` leads here.
    fn is_usable_by_name(&self, index: usize, selection: &Selection, now: Moment) -> bool {
        let (Some(peer), Some(state)) = (self.peers.get(index), self.states.get(index)) else {
            return false;
        };
        peer.backup == selection.among_backups
            && !peer.down
            && !state.is_unhealthy()
            && !selection.tried.contains(&index)
            && !state.is_full(peer)
            && (self.is_single() || !state.is_benched(peer, now))
    }
}

/// A peer that a request has been given, counted among its requests for as
/// long as this lives.
#[derive(Debug)]
pub(crate) struct Lease {
    group: Rc<Group>,
    peer: Rc<UpstreamPeer>,
    index: usize,
    is_settled: Cell<bool>,
    is_released: Cell<bool>,
}

impl Lease {
    pub(crate) fn peer(&self) -> &Rc<UpstreamPeer> {
        &self.peer
    }

    fn state(&self) -> Option<&PeerState> {
        self.group.states.get(self.index).map(|state| &**state)
    }

    /// Its place in the configuration.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What is to be learnt from the answer, where `sticky learn` is said.
    pub(crate) fn learner(&self, selection: &Selection) -> Option<Box<Learner>> {
        let names = self.group.sticky.as_ref()?;
        names.sessions.as_ref()?;
        Some(Box::new(Learner {
            group: Rc::clone(&self.group),
            index: self.index,
            session: selection.session.clone(),
        }))
    }

    /// The value of the cookie by which the client is to stay here, where
    /// `sticky cookie` is said.
    pub(crate) fn set_cookie(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let Names { sticky, names, .. } = self.group.sticky.as_ref()?;
        let (cookie, name) = (sticky.cookie.as_ref()?, names.get(self.index)?);
        Some(sticky::set_cookie(cookie, name, request))
    }

    /// Another request may have its place, though this lives on: the peer has
    /// answered, and only the client has not taken the answer.
    pub(crate) fn release(&self) {
        if self.is_released.replace(true) {
            return;
        }
        if let Some(state) = self.state() {
            if !self.is_settled.get() {
                state.succeeded(&self.peer, || Moment::at(now()));
            }
            state.vacate();
        }
        if let Some(queue) = &self.group.queue {
            queue.call();
        }
    }

    /// The peer failed. Otherwise it counts as having answered, whatever
    /// became of the answer.
    pub(crate) fn failed(&self, now: Instant) -> AfterFailure {
        self.is_settled.set(true);
        let Some(state) = self.state().filter(|_| !self.group.is_single()) else {
            return AfterFailure::Available;
        };
        if self.peer.max_fails > 0
            && let Some(turn) = self.group.turns.borrow_mut().get_mut(self.index)
        {
            let loss = i64::from(self.peer.weight) / i64::from(self.peer.max_fails);
            turn.effective_weight = (turn.effective_weight - loss).max(0);
        }
        state.failed(&self.peer, Moment::at(now))
    }
}

/// Learns from an answer whose session it is: `sticky learn`.
#[derive(Debug)]
pub(crate) struct Learner {
    group: Rc<Group>,
    index: usize,
    /// The request's.
    session: Option<Vec<u8>>,
}

impl Learner {
    /// Whether the head of the answer is enough.
    pub(crate) fn needs_head_only(&self) -> bool {
        self.settings().is_some_and(|settings| settings.from_head)
    }

    fn settings(&self) -> Option<&StickySessions> {
        self.group.sticky.as_ref()?.sticky.sessions.as_ref()
    }

    /// The answer has come: a session that it names begins, and another one
    /// goes on.
    pub(crate) fn learn(&self, request: &Request<'_>) {
        let Some(names) = &self.group.sticky else {
            return;
        };
        let peer = names.names.get(self.index);
        let (Some(settings), Some(sessions), Some(peer)) = (self.settings(), &names.sessions, peer)
        else {
            return;
        };
        let now = Moment::at(Instant::now());
        match (sticky::first(&settings.create, request), &self.session) {
            (Some(session), _) => sessions.learn(&session, peer, true, now),
            (None, Some(session)) => sessions.learn(session, peer, false, now),
            (None, None) => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests;
