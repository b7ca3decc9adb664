//! What connections of one kind have in common, over reloads.
//!
//! A session is resumed under the very configuration that it was made under:
//! rustls compares verifier and certificate by where they are in memory. So a
//! reload that changes nothing of an upstream's settings must find them again,
//! or it costs a full handshake for every connection.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::client::Resumption;

use super::TlsError;
use crate::config::UpstreamAddress;
use crate::tls::client_auth::servers::ServerAuth;

/// Addresses whose sessions are kept; a host name's answers may change for
/// ever.
const MAX_ADDRESSES: usize = 256;
/// Sessions kept per address.
const SESSIONS_EACH: usize = 64;
/// Links that are kept though no configuration holds them: those of
/// certificates that variables name, between one request and the next.
const MAX_RECENT: usize = 64;
/// How long: there is a key in each, which must not stay because nobody asks
/// for another.
const RECENT: Duration = Duration::from_secs(3600);

/// The settings of one identity, and its sessions.
#[derive(Debug)]
pub(super) struct Link {
    /// Without sessions.
    pub(super) base: Arc<ClientConfig>,
    pub(super) auth: Arc<ServerAuth>,
    pub(super) verifies: bool,
    /// `None`: `proxy_ssl_session_reuse off`.
    pub(super) sessions: Option<Sessions>,
}

/// Per address, a configuration with a store of its own: rustls keeps sessions
/// by name alone.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<UpstreamAddress, Arc<ClientConfig>>>);

impl Sessions {
    pub(super) fn config(
        &self,
        address: &UpstreamAddress,
        base: &Arc<ClientConfig>,
    ) -> Arc<ClientConfig> {
        let mut configs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = configs.get(address) {
            return Arc::clone(known);
        }
        if configs.len() >= MAX_ADDRESSES {
            configs.clear();
        }
        let mut config = ClientConfig::clone(base);
        config.resumption = Resumption::in_memory_sessions(SESSIONS_EACH);
        let config = Arc::new(config);
        configs.insert(address.clone(), Arc::clone(&config));
        config
    }
}

/// All links of the process, each by its identity.
#[derive(Debug, Default)]
pub struct Links(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Weak, so that what no configuration uses any more goes with its keys.
    links: HashMap<[u8; 32], Weak<Link>>,
    /// With when each was last asked for, oldest first.
    recent: VecDeque<(Arc<Link>, Instant)>,
}

impl Known {
    fn forget(&mut self, now: Instant) {
        let is_old = |since: &Instant| now.duration_since(*since) >= RECENT;
        while self.recent.front().is_some_and(|(_, since)| is_old(since)) {
            self.recent.pop_front();
        }
        self.links.retain(|_, link| link.strong_count() > 0);
    }
}

impl Links {
    /// The link of this identity; made if there is none.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(super) fn find(
        &self,
        identity: &[u8; 32],
        make: impl FnOnce() -> Result<Link, TlsError>,
    ) -> Result<Arc<Link>, TlsError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = known.links.get(identity).and_then(Weak::upgrade) {
            return Ok(link);
        }
        let link = Arc::new(make()?);
        known.forget(Instant::now());
        known.links.insert(*identity, Arc::downgrade(&link));
        Ok(link)
    }

    /// Keeps a link for a while though nothing else may.
    pub(super) fn keep(&self, link: &Arc<Link>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known
            .recent
            .retain(|(recent, _)| !Arc::ptr_eq(recent, link));
        if known.recent.len() >= MAX_RECENT {
            known.recent.pop_front();
        }
        known.recent.push_back((Arc::clone(link), now));
        known.forget(now);
    }
}
