//! How an upstream's peers are chosen, and when a request goes to the next.

use std::ops::BitOr;
use std::time::Duration;

use crate::config::template::Template;

/// The balancing method of an `upstream`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BalanceMethod {
    /// Smooth weighted round robin, where nothing else is said.
    #[default]
    RoundRobin,
    /// `least_conn`.
    LeastConnections,
    /// `ip_hash`.
    IpHash,
    /// `hash KEY`.
    Hash(Template),
    /// `hash KEY consistent`.
    ConsistentHash(Template),
    /// `random`.
    Random,
    /// `random two [least_conn]`.
    RandomTwo,
}

/// `sticky`: a client stays with the peer that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Where a request names its peer, or its session; the first value that is not empty
    /// counts.
    pub lookup: Vec<Template>,
    /// `sticky cookie`: how the client is told. `None` for `sticky route`,
    /// where the application tells it.
    pub cookie: Option<StickyCookie>,
    /// `sticky learn`: what is looked up is a session, and who serves it is
    /// remembered here.
    pub sessions: Option<StickySessions>,
}

/// `sticky learn create=… lookup=… zone=NAME:SIZE [timeout=TIME] [header]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickySessions {
    /// Where an answer names a session; the first value that is not empty
    /// counts.
    pub create: Vec<Template>,
    /// The zone's name.
    pub zone: Box<[u8]>,
    /// Its size in bytes.
    pub size: usize,
    /// How long a session is remembered that nobody uses. Default 10 min.
    pub timeout: Duration,
    /// `header`: a session begins with the answer's head, and not with its end.
    pub from_head: bool,
}

/// `sticky cookie NAME [PARAMETER…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyCookie {
    /// The cookie's name.
    pub name: Box<[u8]>,
    /// `expires=`.
    pub expires: Option<StickyExpires>,
    /// `domain=`.
    pub domain: Option<Template>,
    /// `path=`.
    pub path: Option<Box<[u8]>>,
    /// `httponly`.
    pub http_only: bool,
    /// `secure`.
    pub secure: bool,
    /// `samesite=`; a value with variables that is none of the known ones
    /// counts as `strict`.
    pub same_site: Option<Template>,
}

impl StickyCookie {
    /// Whether this is one of the values of `samesite`.
    pub fn is_same_site(value: &[u8]) -> bool {
        [b"strict".as_slice(), b"lax", b"none"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(value))
    }
}

/// `expires=` of `sticky cookie`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StickyExpires {
    /// `max`: the end of 2037.
    Max,
    /// So long after the response, in whole seconds.
    After(Duration),
}

/// `proxy_next_upstream` and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextUpstream {
    /// `proxy_next_upstream`. Default `error timeout`.
    pub conditions: Conditions,
    /// `proxy_next_upstream_tries`: peers asked at the most; 0 is no limit.
    pub tries: usize,
    /// `proxy_next_upstream_timeout`: no further peer is asked later than
    /// this after the first; zero is no limit.
    pub timeout: Duration,
}

impl Default for NextUpstream {
    fn default() -> Self {
        Self {
            conditions: Conditions::ERROR | Conditions::TIMEOUT,
            tries: 0,
            timeout: Duration::ZERO,
        }
    }
}

/// A set of reasons to ask the next peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions(u16);

impl Conditions {
    /// `off`.
    pub const NONE: Self = Self(0);
    /// `error`: connecting, sending or receiving failed.
    pub const ERROR: Self = Self(1);
    /// `timeout`: one of them took too long.
    pub const TIMEOUT: Self = Self(1 << 1);
    /// `invalid_header`: no HTTP response.
    pub const INVALID_HEADER: Self = Self(1 << 2);
    /// `non_idempotent`: also requests whose method may not be repeated.
    pub const NON_IDEMPOTENT: Self = Self(1 << 3);
    /// `denied`: accepted; nothing here denies an upstream.
    pub const DENIED: Self = Self(1 << 4);
    /// The statuses that can be listed, and the word for each.
    const STATUSES: [(u16, &'static [u8], Self); 7] = [
        (500, b"http_500", Self(1 << 5)),
        (502, b"http_502", Self(1 << 6)),
        (503, b"http_503", Self(1 << 7)),
        (504, b"http_504", Self(1 << 8)),
        (403, b"http_403", Self(1 << 9)),
        (404, b"http_404", Self(1 << 10)),
        (429, b"http_429", Self(1 << 11)),
    ];

    /// The condition by the directive's word for it.
    pub fn named(word: &[u8]) -> Option<Self> {
        match word {
            b"error" => Some(Self::ERROR),
            b"timeout" => Some(Self::TIMEOUT),
            b"invalid_header" => Some(Self::INVALID_HEADER),
            b"non_idempotent" => Some(Self::NON_IDEMPOTENT),
            b"denied" => Some(Self::DENIED),
            _ => Self::STATUSES
                .iter()
                .find(|(_, name, _)| *name == word)
                .map(|(_, _, condition)| *condition),
        }
    }

    /// Whether one of the two is in the other.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The condition of a status; none for one that cannot be listed.
    pub fn of_status(status: u16) -> Self {
        Self::STATUSES
            .iter()
            .find(|(listed, _, _)| *listed == status)
            .map_or(Self::NONE, |(_, _, condition)| *condition)
    }

    /// Whether a peer that gives this reason is none the worse for it.
    pub fn spares_the_peer(self) -> bool {
        self == Self::of_status(403) || self == Self::of_status(404)
    }

    /// Whether a response of this status is among the reasons.
    pub fn has_status(self, status: u16) -> bool {
        // Most configurations list none, and most responses are none of these.
        status >= 400 && self.contains(Self::of_status(status))
    }
}

impl BitOr for Conditions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `queue`: requests that wait where no peer can be chosen at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamQueue {
    /// How many at the most, of each worker.
    pub length: usize,
    /// How long each at the most.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_reason_only_where_it_is_listed() {
        let listed = Conditions::named(b"http_503").unwrap() | Conditions::ERROR;
        assert!(listed.has_status(503));
        for status in [200, 404, 500, 501, 502, 504] {
            assert!(!listed.has_status(status), "{status}");
        }
        assert_eq!(Conditions::named(b"http_501"), None);
        assert!(!Conditions::NONE.contains(Conditions::ERROR));
    }
}
