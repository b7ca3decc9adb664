//! Who belongs to an upstream, and what all workers know of them together.
//!
//! With `zone` all workers share one [`PeerState`] for each peer, as Nginx's
//! workers share its memory; without, each worker has its own and learns of
//! failures by itself. Where servers are names, the members are replaced as a
//! whole by whoever has an answer, and a peer that stays keeps its state.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{Config, NamedServer, Upstream, UpstreamAddress, UpstreamId, UpstreamPeer};
use crate::proxy::board::Board;

use super::sessions::Sessions;
use super::state::PeerState;

/// The peers of an upstream at one time.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Those of the configuration in its order, and behind them the named ones.
    all: Vec<Member>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) peer: UpstreamPeer,
    pub(crate) state: Arc<PeerState>,
    /// Of [`crate::config::NamedServers::servers`], the one that led to it.
    origin: Option<usize>,
}

/// Where a named server has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) address: SocketAddr,
    /// Of a service: its server's name, weight, and whether others come first.
    pub(crate) service: Option<(Box<str>, u32, bool)>,
}

impl Lead {
    fn peer(&self, server: &NamedServer) -> UpstreamPeer {
        let template = server.template.clone();
        let peer = UpstreamPeer {
            address: UpstreamAddress::Inet(self.address),
            ..template
        };
        match &self.service {
            None => peer,
            Some((name, weight, is_backup)) => UpstreamPeer {
                server: name.clone(),
                weight: match peer.weight {
                    1 => *weight,
                    said => said,
                },
                backup: peer.backup || *is_backup,
                ..peer
            },
        }
    }
}

impl Members {
    /// Those that the configuration itself lists.
    pub(crate) fn of(upstream: &Upstream) -> Self {
        let peers = upstream.peers.iter();
        Self {
            all: peers
                .map(|peer| Member {
                    peer: peer.clone(),
                    state: Arc::default(),
                    origin: None,
                })
                .collect(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.all.iter()
    }

    /// The same with other peers for the named server of this index; `None` if
    /// it has these already. New ones begin in the state that `state` makes.
    fn with(
        &self,
        origin: usize,
        peers: &[UpstreamPeer],
        state: impl Fn(&UpstreamPeer) -> Arc<PeerState>,
    ) -> Option<Self> {
        let is_old = |member: &&Member| member.origin == Some(origin);
        let old = || self.all.iter().filter(is_old);
        if old().map(|member| &member.peer).eq(peers) {
            return None;
        }
        let (before, after): (Vec<_>, Vec<_>) = self
            .all
            .iter()
            .filter(|member| member.origin != Some(origin))
            .cloned()
            .partition(|member| member.origin.is_none_or(|other| other < origin));
        let new = peers.iter().map(|peer| {
            let known = old().find(|member| member.peer == *peer);
            Member {
                state: known.map_or_else(|| state(peer), |member| Arc::clone(&member.state)),
                peer: peer.clone(),
                origin: Some(origin),
            }
        });
        Some(Self {
            all: before.into_iter().chain(new).chain(after).collect(),
        })
    }
}

/// What the workers of one configuration share.
#[derive(Debug)]
pub(crate) struct Registry {
    /// By [`UpstreamId`].
    upstreams: Vec<Shared>,
    /// Who checks the peers' health.
    pub(crate) checkers: Board,
    /// Who asks for the addresses of names.
    pub(crate) askers: Board,
}

#[derive(Debug)]
struct Shared {
    /// `None` where each worker has its own.
    members: Option<Arc<ArcSwap<Members>>>,
    /// New peers get nothing before they have passed a check.
    mandatory: bool,
    /// A peer that passed before a reload has passed.
    persistent: bool,
    /// Of `sticky learn`.
    sessions: Option<Arc<Sessions>>,
}

impl Shared {
    fn newcomer(&self) -> Arc<PeerState> {
        let state = PeerState::default();
        if self.mandatory {
            // Guilty until proven otherwise.
            state.begin_unhealthy();
        }
        Arc::new(state)
    }

    /// Replaces what a named server has led to.
    fn learn(
        &self,
        origin: usize,
        peers: &[UpstreamPeer],
        state: impl Fn(&UpstreamPeer) -> Arc<PeerState>,
    ) {
        let Some(members) = &self.members else {
            return;
        };
        members.rcu(|members| {
            let changed = members.with(origin, peers, &state).map(Arc::new);
            changed.unwrap_or_else(|| Arc::clone(members))
        });
    }
}

impl Registry {
    pub(crate) fn new(config: &Config) -> Self {
        let upstreams = config.upstreams.iter().enumerate().map(|(id, upstream)| {
            let checks = || {
                config
                    .health_checks
                    .iter()
                    .filter(|check| check.upstream == id)
            };
            let is_shared = upstream.zone || checks().next().is_some();
            let sessions = upstream
                .sticky
                .as_ref()
                .and_then(|sticky| sticky.sessions.as_ref());
            let shared = Shared {
                members: None,
                mandatory: checks().any(|check| check.mandatory),
                persistent: checks().any(|check| check.persistent),
                sessions: sessions.map(Sessions::new),
            };
            let members = is_shared.then(|| {
                let mut members = Members::of(upstream);
                for member in &mut members.all {
                    member.state = shared.newcomer();
                }
                Arc::new(ArcSwap::from_pointee(members))
            });
            Shared { members, ..shared }
        });
        Self {
            upstreams: upstreams.collect(),
            checkers: Board::default(),
            askers: Board::default(),
        }
    }

    /// The members for a worker that begins with this configuration; and where
    /// they may change later, if all workers share them.
    pub(crate) fn join(
        &self,
        id: UpstreamId,
        upstream: &Upstream,
    ) -> (Arc<Members>, Option<&Arc<ArcSwap<Members>>>) {
        let shared = self
            .upstreams
            .get(id)
            .and_then(|shared| shared.members.as_ref());
        match shared {
            Some(shared) => (shared.load_full(), Some(shared)),
            None => (Arc::new(Members::of(upstream)), None),
        }
    }

    pub(crate) fn sessions(&self, id: UpstreamId) -> Option<&Arc<Sessions>> {
        self.upstreams.get(id)?.sessions.as_ref()
    }

    /// A named server has led to these.
    pub(crate) fn learn(
        &self,
        id: UpstreamId,
        origin: usize,
        server: &NamedServer,
        leads: &[Lead],
    ) {
        let peers: Vec<_> = leads.iter().map(|lead| lead.peer(server)).collect();
        if let Some(shared) = self.upstreams.get(id) {
            shared.learn(origin, &peers, |_| shared.newcomer());
        }
    }

    /// Goes on with what is known under an older configuration: where names
    /// have led, so that nobody waits for them again; sessions; and the health
    /// of those who are checked `persistent`ly.
    pub(crate) fn inherit(&mut self, config: &Config, older: &Self, older_config: &Config) {
        for (shared, upstream) in self.upstreams.iter_mut().zip(&config.upstreams) {
            let mut known = older_config.upstreams.iter().zip(&older.upstreams);
            let Some((old_upstream, old)) = known.find(|(old, _)| old.name == upstream.name) else {
                continue;
            };
            let settings = |upstream: &Upstream| {
                let sessions = upstream.sticky.as_ref()?.sessions.as_ref()?;
                Some((sessions.zone.clone(), sessions.size))
            };
            if settings(upstream) == settings(old_upstream)
                && let (Some(new), Some(old)) = (&mut shared.sessions, &old.sessions)
            {
                *new = Arc::clone(old);
            }
            let Some(old) = old.members.as_ref().map(|members| members.load_full()) else {
                continue;
            };
            let named = |upstream: &Upstream| {
                let named = upstream.named.as_ref();
                named.map_or(Vec::new(), |named| named.servers.clone())
            };
            let old_servers = named(old_upstream);
            for (origin, server) in named(upstream).iter().enumerate() {
                let same = |old: &NamedServer| {
                    (&old.name, old.port, &old.service)
                        == (&server.name, server.port, &server.service)
                };
                let Some(was) = old_servers.iter().position(same) else {
                    continue;
                };
                let members = || old.iter().filter(|member| member.origin == Some(was));
                let peers: Vec<_> = members()
                    .map(|member| UpstreamPeer {
                        address: member.peer.address.clone(),
                        // Of a service these are the records' own.
                        ..match server.service {
                            Some(_) => UpstreamPeer {
                                server: member.peer.server.clone(),
                                weight: member.peer.weight,
                                backup: member.peer.backup,
                                ..server.template.clone()
                            },
                            None => server.template.clone(),
                        }
                    })
                    .collect();
                let state = |peer: &UpstreamPeer| {
                    let mut members = members();
                    let known = members.find(|member| member.peer.address == peer.address);
                    known.map_or_else(|| shared.newcomer(), |known| Arc::clone(&known.state))
                };
                shared.learn(origin, &peers, state);
            }
            if shared.persistent
                && let Some(members) = &shared.members
            {
                for member in members.load().iter() {
                    let mut old = old.iter();
                    let known = old.find(|old| old.peer.address == member.peer.address);
                    if let Some(known) = known {
                        member.state.inherit_health(&known.state);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> UpstreamPeer {
        let address = SocketAddr::from(([127, 0, 0, 1], number));
        UpstreamPeer::new(UpstreamAddress::Inet(address), "a.test")
    }

    fn ports(members: &Members) -> Vec<String> {
        let members = members.iter();
        members
            .map(|member| member.peer.address.to_string())
            .collect()
    }

    #[test]
    fn who_stays_keeps_what_is_known_of_it() {
        let new = |_: &UpstreamPeer| Arc::default();
        let fixed = Members::of(&Upstream::unpooled("u", vec![peer(1)]));
        let two = fixed.with(0, &[peer(2), peer(3)], new).unwrap();
        let both = two.with(1, &[peer(9)], new).unwrap();
        assert!(both.with(0, &[peer(2), peer(3)], new).is_none());
        let changed = both.with(0, &[peer(3), peer(4)], new).unwrap();
        let address = |port| format!("127.0.0.1:{port}");
        assert_eq!(ports(&changed), [1, 3, 4, 9].map(address));
        let same =
            |old: usize, now: usize| Arc::ptr_eq(&both.all[old].state, &changed.all[now].state);
        assert!(same(0, 0) && same(2, 1) && !same(1, 2) && same(3, 3));
        assert_eq!(
            ports(&changed.with(0, &[], new).unwrap()),
            [1, 9].map(address)
        );
    }
}
