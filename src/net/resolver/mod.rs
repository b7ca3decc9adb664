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
pub type Outcome = Result<Arc<[IpAddr]>, ResolveError>;

/// The name servers of one `resolver`, and what they have said.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    /// Replaced as a whole by whoever has an answer.
    known: ArcSwap<HashMap<Box<str>, Known>>,
    /// Who waits for names that are being asked for.
    pending: Mutex<HashMap<Box<str>, Vec<Giver<Outcome>>>>,
    /// Whose turn it is to be asked first.
    turn: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Known {
    addresses: Arc<[IpAddr]>,
    until: Instant,
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
        if let Some(addresses) = self.known(name, Instant::now()) {
            return Ok(addresses);
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

    fn known(&self, name: &str, now: Instant) -> Option<Arc<[IpAddr]>> {
        let known = self.known.load();
        let entry = known.get(name).filter(|entry| entry.until > now)?;
        Some(Arc::clone(&entry.addresses))
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
        let answer = lookup::lookup(&self.settings, &name, turn);
        let outcome = match answer {
            Ok(answer) => {
                let addresses: Arc<[IpAddr]> = answer.addresses.into();
                let valid = self.settings.valid.unwrap_or(answer.ttl);
                self.remember(&name, &addresses, valid);
                Ok(addresses)
            }
            Err(error) => Err(error),
        };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = pending.remove(&name).unwrap_or_default();
        drop(pending);
        for giver in waiting {
            giver.give(outcome.clone());
        }
    }

    fn remember(&self, name: &str, addresses: &Arc<[IpAddr]>, valid: Duration) {
        if valid.is_zero() {
            return;
        }
        let now = Instant::now();
        let Some(until) = now.checked_add(valid) else {
            return;
        };
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            if known.len() >= MAX_NAMES {
                known.retain(|_, entry| entry.until > now);
            }
            if known.len() >= MAX_NAMES {
                // Whoever asks for so many names gets each of them asked for.
                known.clear();
            }
            let addresses = Arc::clone(addresses);
            known.insert(name.into(), Known { addresses, until });
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
        resolver.remember("a", &addresses, Duration::from_secs(5));
        resolver.remember("b", &addresses, Duration::ZERO);
        let now = Instant::now();
        assert_eq!(resolver.known("a", now).as_deref(), Some(&*addresses));
        assert_eq!(resolver.known("b", now), None);
        assert_eq!(resolver.known("a", now + Duration::from_secs(6)), None);
    }

    #[test]
    fn no_more_names_are_kept_than_there_is_room_for() {
        let resolver = Resolver::with(&settings(4));
        let addresses: Arc<[IpAddr]> = [IpAddr::from([127, 0, 0, 1])].into();
        let full: HashMap<Box<str>, Known> = (0..MAX_NAMES)
            .map(|n| {
                let known = Known {
                    addresses: Arc::clone(&addresses),
                    until: Instant::now() + Duration::from_secs(60),
                };
                (n.to_string().into(), known)
            })
            .collect();
        resolver.known.store(Arc::new(full));
        resolver.remember("new", &addresses, Duration::from_secs(5));
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
