//! Names to addresses while serving (`resolver`): off the ring threads, by
//! the name servers that the configuration gives, as long as the answers say.
//!
//! A name that is known costs a look at a table that nobody locks. One that is
//! not is asked for by a thread of its own (`lookup` is plain blocking
//! code), once for all who wait for it, and the answer is handed to the
//! workers' tasks. The table belongs to the process: a reload that leaves the
//! `resolver` as it was keeps it.

mod lookup;
mod message;
mod threads;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::handoff::{Giver, handoff};

pub use message::Service;

/// Names kept at the most: names may come from clients.
const MAX_NAMES: usize = 4096;

/// Whom to ask, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Asked in turn, the next one if one does not answer. Not empty.
    pub servers: Vec<SocketAddr>,
    /// How long an answer holds; by its own word if not given.
    pub valid: Option<Duration>,
    /// Ask for IPv4 addresses.
    pub ipv4: bool,
    /// Ask for IPv6 addresses.
    pub ipv6: bool,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveError {
    /// By the name server's code (RFC 1035 §4.1.1): 3 says that there is no
    /// such name, which here includes one without addresses.
    Refused(u8),
    /// No name server answered in time.
    TimedOut,
}

impl ResolveError {
    const NOT_FOUND: Self = Self::Refused(3);
}

impl fmt::Display for ResolveError {
    /// In Nginx's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, text) = match self {
            Self::Refused(code @ 1) => (u16::from(*code), "Format error"),
            Self::Refused(code @ 2) => (u16::from(*code), "Server failure"),
            Self::Refused(code @ 3) => (u16::from(*code), "Host not found"),
            Self::Refused(code @ 4) => (u16::from(*code), "Unimplemented"),
            Self::Refused(code @ 5) => (u16::from(*code), "Operation refused"),
            Self::Refused(code) => (u16::from(*code), "Unknown error"),
            Self::TimedOut => (110, "Operation timed out"),
        };
        write!(f, "({code}: {text})")
    }
}

/// A name's addresses.
pub type Outcome = Result<Found, ResolveError>;

/// What a name has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// IPv4 before IPv6, never empty.
    pub addresses: Arc<[IpAddr]>,
    /// When it is to be asked for again.
    pub until: Instant,
}

/// The name servers of one `resolver`, and what they have said.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    /// Replaced as a whole by whoever has an answer.
    known: ArcSwap<HashMap<Box<str>, Found>>,
    /// Who waits for names that are being asked for.
    pending: Mutex<HashMap<Box<str>, Vec<Giver<Outcome>>>>,
    /// Whose turn it is to be asked first.
    turn: AtomicUsize,
}

/// Every resolver that some configuration still has.
static RESOLVERS: Mutex<Vec<Weak<Resolver>>> = Mutex::new(Vec::new());

impl Resolver {
    /// The process's resolver with these settings.
    pub fn with(settings: &Settings) -> Arc<Self> {
        let mut all = RESOLVERS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|resolver| resolver.strong_count() > 0);
        let known = all
            .iter()
            .filter_map(Weak::upgrade)
            .find(|resolver| resolver.settings == *settings);
        known.unwrap_or_else(|| {
            let new = Arc::new(Self {
                settings: settings.clone(),
                known: ArcSwap::default(),
                pending: Mutex::default(),
                turn: AtomicUsize::new(0),
            });
            all.push(Arc::downgrade(&new));
            new
        })
    }

    /// The addresses of a name in lower case, IPv4 before IPv6.
    ///
    /// # Errors
    /// What the name servers say. Dropping the future leaves the question to
    /// the others who wait for it.
    pub async fn resolve(self: &Arc<Self>, name: &str) -> Outcome {
        if let Some(found) = self.known(name, Instant::now()) {
            return Ok(found);
        }
        if !message::is_name(name) {
            return Err(ResolveError::NOT_FOUND);
        }
        let Ok((giver, taker)) = handoff() else {
            return Err(ResolveError::TimedOut);
        };
        self.ask(name, giver);
        // Abandoned only where a thread could not be had.
        taker.await.unwrap_or(Err(ResolveError::TimedOut))
    }

    /// The servers of a service, in no order, never none; and when to ask for
    /// them again. Not remembered: whoever asks keeps the answer.
    ///
    /// # Errors
    /// What the name servers say. Dropping the future leaves the question to be
    /// answered for nobody.
    pub async fn services(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<(Vec<Service>, Instant), ResolveError> {
        if !message::is_name(name) {
            return Err(ResolveError::NOT_FOUND);
        }
        let Ok((giver, taker)) = handoff() else {
            return Err(ResolveError::TimedOut);
        };
        let (this, name) = (Arc::clone(self), Box::<str>::from(name));
        threads::run(Box::new(move || {
            let turn = this.turn.fetch_add(1, Ordering::Relaxed);
            giver.give(lookup::services(&this.settings, &name, turn));
        }));
        let (services, ttl) = taker.await.unwrap_or(Err(ResolveError::TimedOut))?;
        Ok((services, self.until(Instant::now(), ttl)))
    }

    /// When to ask again for a name that there is not.
    pub fn until_it_may_exist(&self, now: Instant) -> Instant {
        const NEGATIVE: Duration = Duration::from_secs(10);
        self.until(now, NEGATIVE)
    }

    fn until(&self, now: Instant, ttl: Duration) -> Instant {
        // Beyond reckoning is as good as for ever, which is a day.
        const LONGEST: Duration = Duration::from_secs(86_400);
        let valid = self.settings.valid.unwrap_or(ttl);
        now.checked_add(valid).unwrap_or(now + LONGEST)
    }

    fn known(&self, name: &str, now: Instant) -> Option<Found> {
        let known = self.known.load();
        known.get(name).filter(|found| found.until > now).cloned()
    }

    /// Joins those who wait for the name, and asks for it if nobody has yet.
    fn ask(self: &Arc<Self>, name: &str, giver: Giver<Outcome>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = pending.get_mut(name) {
            waiting.push(giver);
            return;
        }
        pending.insert(name.into(), vec![giver]);
        drop(pending);
        let this = Arc::clone(self);
        let name: Box<str> = name.into();
        threads::run(Box::new(move || this.look_up(name)));
    }

    /// What a thread does for one name.
    fn look_up(&self, name: Box<str>) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let answer = lookup::addresses(&self.settings, &name, turn);
        let outcome = answer.map(|(addresses, ttl)| {
            let now = Instant::now();
            let found = Found {
                addresses: addresses.into(),
                until: self.until(now, ttl),
            };
            self.remember(&name, &found, now);
            found
        });
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = pending.remove(&name).unwrap_or_default();
        drop(pending);
        for giver in waiting {
            giver.give(outcome.clone());
        }
    }

    fn remember(&self, name: &str, found: &Found, now: Instant) {
        if found.until <= now {
            return;
        }
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            if known.len() >= MAX_NAMES {
                known.retain(|_, entry| entry.until > now);
            }
            if known.len() >= MAX_NAMES {
                // Whoever asks for so many names gets each of them asked for.
                known.clear();
            }
            known.insert(name.into(), found.clone());
            known
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(port: u16) -> Settings {
        Settings {
            servers: vec![SocketAddr::from(([127, 0, 0, 1], port))],
            valid: None,
            ipv4: true,
            ipv6: true,
        }
    }

    #[test]
    fn equal_settings_share_what_is_known() {
        let one = Resolver::with(&settings(1));
        let two = Resolver::with(&settings(1));
        assert!(Arc::ptr_eq(&one, &two));
        assert!(!Arc::ptr_eq(&one, &Resolver::with(&settings(2))));
    }

    #[test]
    fn an_answer_is_remembered_as_long_as_it_holds() {
        let resolver = Resolver::with(&settings(3));
        let addresses: Arc<[IpAddr]> = [IpAddr::from([127, 0, 0, 1])].into();
        let now = Instant::now();
        let found = |seconds| Found {
            addresses: Arc::clone(&addresses),
            until: resolver.until(now, Duration::from_secs(seconds)),
        };
        resolver.remember("a", &found(5), now);
        resolver.remember("b", &found(0), now);
        assert_eq!(resolver.known("a", now), Some(found(5)));
        assert_eq!(resolver.known("b", now), None);
        assert_eq!(resolver.known("a", now + Duration::from_secs(6)), None);
    }

    #[test]
    fn no_more_names_are_kept_than_there_is_room_for() {
        let resolver = Resolver::with(&settings(4));
        let addresses: Arc<[IpAddr]> = [IpAddr::from([127, 0, 0, 1])].into();
        let found = Found {
            addresses,
            until: Instant::now() + Duration::from_secs(60),
        };
        let full: HashMap<Box<str>, Found> = (0..MAX_NAMES)
            .map(|n| (n.to_string().into(), found.clone()))
            .collect();
        resolver.known.store(Arc::new(full));
        resolver.remember("new", &found, Instant::now());
        assert!(resolver.known.load().len() <= MAX_NAMES);
        assert!(resolver.known("new", Instant::now()).is_some());
    }

    #[test]
    fn failures_are_worded_as_in_nginx() {
        assert_eq!(ResolveError::NOT_FOUND.to_string(), "(3: Host not found)");
        assert_eq!(
            ResolveError::TimedOut.to_string(),
            "(110: Operation timed out)"
        );
    }
}
