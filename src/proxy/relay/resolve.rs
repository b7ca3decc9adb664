//! Host names of a relay's targets, asked for when a connection is made.
//!
//! By the system's own resolver, so that `/etc/hosts` and search domains mean
//! what they mean to every other program here. It blocks, so each question has
//! a thread of its own; there is one for each new connection, not for each
//! call.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::net::deadlines::Deadline;
use crate::net::handoff::handoff;
use crate::net::spawner::{self, Role};

/// Questions under way in the process; more are refused, because a name server
/// that does not answer must not fill the process with threads.
const MAX_QUESTIONS: usize = 32;

static QUESTIONS: AtomicUsize = AtomicUsize::new(0);

/// Why there is no address.
#[derive(Debug)]
pub(super) enum ResolveError {
    NotFound(String),
    Busy,
    TimedOut,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(reason) => write!(f, "could not be resolved ({reason})"),
            Self::Busy => f.write_str("could not be resolved (too many others are waiting)"),
            Self::TimedOut => f.write_str("could not be resolved (110: Operation timed out)"),
        }
    }
}

/// The addresses of a host, in the system's order, within `timeout`.
/// Cancelling it leaves the question to be answered to nobody.
///
/// # Errors
/// See [`ResolveError`].
pub(super) async fn resolve(host: &str, timeout: Duration) -> Result<Vec<IpAddr>, ResolveError> {
    if QUESTIONS.fetch_add(1, Ordering::Relaxed) >= MAX_QUESTIONS {
        QUESTIONS.fetch_sub(1, Ordering::Relaxed);
        return Err(ResolveError::Busy);
    }
    let question = Question(host.to_owned());
    let (giver, taker) = handoff().map_err(|_| ResolveError::Busy)?;
    let builder = thread::Builder::new().name("resolver".into());
    spawner::start(Role::Resolver, builder, move || giver.give(question.ask()))
        .map_err(|_| ResolveError::Busy)?;
    let deadline = Deadline::new();
    deadline.arm(timeout);
    match deadline.run(taker).await {
        Ok(Some(found)) => found.map_err(ResolveError::NotFound),
        Ok(None) => Err(ResolveError::Busy),
        Err(_) => Err(ResolveError::TimedOut),
    }
}

/// A question being counted.
struct Question(String);

impl Question {
    fn ask(&self) -> Result<Vec<IpAddr>, String> {
        let found = (self.0.as_str(), 0).to_socket_addrs();
        let mut addresses = Vec::new();
        for address in found.map_err(|error| error.to_string())? {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        Ok(addresses)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        QUESTIONS.fetch_sub(1, Ordering::Relaxed);
    }
}
