//! `sticky learn`: which peer serves which session, for all workers.
//!
//! As in Nginx a session is known by its MD5, so that a state is of one size
//! whatever backends call their sessions. A collision would lead one client to
//! another's peer, which the balancing might have done as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use md5::{Digest, Md5};

use crate::config::StickySessions;

use super::state::Moment;

/// What a session takes of the zone: a megabyte is for 8,000, as in Nginx.
const BYTES: usize = 128;

/// The sessions of one zone.
#[derive(Debug)]
pub(crate) struct Sessions {
    most: usize,
    known: Mutex<Known>,
}

type Name = [u8; 16];

/// A session's state, and its neighbours in the order of last use.
#[derive(Debug)]
struct Session {
    peer: Box<str>,
    used: u64,
    /// Counts uses; the smallest is the one that makes room.
    turn: u64,
}

#[derive(Debug, Default)]
struct Known {
    sessions: HashMap<Name, Session>,
    /// By turn, so that the oldest is found without looking at all of them.
    by_turn: std::collections::BTreeMap<u64, Name>,
    turn: u64,
}

impl Known {
    fn touch(&mut self, name: Name, peer: &str, now: Moment) {
        self.turn += 1;
        let session = Session {
            peer: peer.into(),
            used: now.count(),
            turn: self.turn,
        };
        self.by_turn.insert(self.turn, name);
        if let Some(old) = self.sessions.insert(name, session) {
            self.by_turn.remove(&old.turn);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, name)) = self.by_turn.pop_first() {
            self.sessions.remove(&name);
        }
    }

    /// Forgets what nobody has used for so long; at most so many at a time, as
    /// the others wait meanwhile.
    fn expire(&mut self, timeout: Duration, now: Moment) {
        const AT_ONCE: usize = 16;
        for _ in 0..AT_ONCE {
            let oldest = self.by_turn.first_key_value();
            let oldest = oldest.and_then(|(_, name)| self.sessions.get(name));
            if oldest.is_none_or(|oldest| now.since(oldest.used) < timeout) {
                return;
            }
            self.drop_oldest();
        }
    }
}

fn name(session: &[u8]) -> Name {
    Md5::digest(session).into()
}

impl Sessions {
    pub(crate) fn new(settings: &StickySessions) -> Arc<Self> {
        Arc::new(Self {
            most: settings.size / BYTES,
            known: Mutex::default(),
        })
    }

    /// The peer of a session that has been used within `timeout`.
    pub(crate) fn find(&self, session: &[u8], timeout: Duration, now: Moment) -> Option<Box<str>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.expire(timeout, now);
        let session = known.sessions.get(&name(session))?;
        (now.since(session.used) < timeout).then(|| session.peer.clone())
    }

    /// A session is with this peer. One that is not known begins only if
    /// `is_new`, and where there is no room the one that has gone unused
    /// longest is forgotten.
    pub(crate) fn learn(&self, session: &[u8], peer: &str, is_new: bool, now: Moment) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name(session);
        let is_known = known.sessions.contains_key(&name);
        if !is_known && !is_new {
            return;
        }
        if !is_known && known.sessions.len() >= self.most {
            known.drop_oldest();
        }
        known.touch(name, peer, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn sessions(most: usize) -> Arc<Sessions> {
        Sessions::new(&StickySessions {
            create: Vec::new(),
            zone: (*b"z").into(),
            size: most * BYTES,
            timeout: TIMEOUT,
            from_head: false,
        })
    }

    fn find(sessions: &Sessions, session: &[u8], now: Moment) -> Option<String> {
        let found = sessions.find(session, TIMEOUT, now);
        found.map(String::from)
    }

    #[test]
    fn a_session_is_remembered_while_it_is_used() {
        let sessions = sessions(4);
        let start = Instant::now();
        let at = |seconds| Moment::at(start + Duration::from_secs(seconds));
        sessions.learn(b"a", "one", false, at(0));
        assert_eq!(find(&sessions, b"a", at(0)), None);
        sessions.learn(b"a", "one", true, at(0));
        assert_eq!(find(&sessions, b"a", at(59)).as_deref(), Some("one"));
        sessions.learn(b"a", "two", false, at(59));
        assert_eq!(find(&sessions, b"a", at(100)).as_deref(), Some("two"));
        assert_eq!(find(&sessions, b"a", at(119)), None);
        let known = sessions.known.lock().unwrap();
        assert!(known.sessions.is_empty() && known.by_turn.is_empty());
    }

    #[test]
    fn no_more_sessions_are_kept_than_the_zone_has_room_for() {
        let sessions = sessions(3);
        let now = Moment::at(Instant::now());
        for session in [b"a", b"b", b"c"] {
            sessions.learn(session, "one", true, now);
        }
        sessions.learn(b"a", "one", false, now);
        sessions.learn(b"d", "two", true, now);
        let found = [b"a", b"b", b"c", b"d"].map(|session| find(&sessions, session, now).is_some());
        assert_eq!(found, [true, false, true, true]);
        for number in 0..100_u32 {
            sessions.learn(&number.to_le_bytes(), "one", true, now);
        }
        let known = sessions.known.lock().unwrap();
        assert_eq!((known.sessions.len(), known.by_turn.len()), (3, 3));
    }
}
