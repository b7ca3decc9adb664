//! Certificates that variables name: towards upstreams and towards clients.
//!
//! Reading blocks, and is done by threads of their own; each worker remembers
//! as `ssl_certificate_cache` and its like say.

mod reading;
pub(super) mod served;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::config::{CertificateCache, NamedCertificate, PemSource, Template};

use super::request::Request;
use super::variables::expand_to_vec;

use reading::read;

/// What a template names, of a certificate or of its key; `None` for nothing.
///
/// # Errors
/// Why it names nothing that could be read, for the log.
pub(super) fn source(
    named: &NamedCertificate,
    template: &Template,
    request: &Request<'_>,
) -> Result<Option<PemSource>, String> {
    // It may be the key itself.
    let value = Zeroizing::new(expand_to_vec(template, request));
    let source = named.source(&value);
    source.map_err(|what| format!("cannot load certificate: {what}"))
}

/// What was read under this name, as long as `cache` says; what `reading` does
/// otherwise, which is prepared only then and happens on a thread that may block.
///
/// # Errors
/// Why it cannot be had, for the log. Cancelling it leaves it to be read for
/// nobody.
pub(super) async fn kept_or_read<T, R>(
    kept: &RefCell<Certificates<T>>,
    name: Name,
    cache: Option<CertificateCache>,
    reading: impl FnOnce(&Name) -> Result<R, String>,
) -> Result<T, String>
where
    T: Clone + Send + 'static,
    R: FnOnce() -> Result<T, String> + Send + 'static,
{
    if cache.is_some()
        && let Some(known) = kept.borrow_mut().find(&name, Instant::now())
    {
        return Ok(known);
    }
    let found = read(reading(&name)?).await?;
    if let Some(cache) = cache {
        let mut kept = kept.borrow_mut();
        kept.learn(name, found.clone(), cache, Instant::now());
    }
    Ok(found)
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    /// Whose settings: [`crate::config::ProxyTls::id`] or a server block.
    pub(super) owner: usize,
    /// Certificates, each with its key if that is not in it.
    pub(super) sources: Vec<(PemSource, Option<PemSource>)>,
}

/// What one worker has read lately, of all owners.
#[derive(Debug)]
pub(super) struct Certificates<T> {
    known: HashMap<Name, Known<T>>,
}

impl<T> Default for Certificates<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
        }
    }
}

#[derive(Debug)]
struct Known<T> {
    read: T,
    since: Instant,
    used: Instant,
    cache: CertificateCache,
}

impl<T> Known<T> {
    fn is_kept(&self, now: Instant) -> bool {
        now.duration_since(self.since) < self.cache.valid
            && now.duration_since(self.used) < self.cache.inactive
    }
}

impl<T: Clone> Certificates<T> {
    pub(super) fn find(&mut self, name: &Name, now: Instant) -> Option<T> {
        let known = self.known.get_mut(name)?;
        if !known.is_kept(now) {
            self.known.remove(name);
            return None;
        }
        known.used = now;
        Some(known.read.clone())
    }

    pub(super) fn learn(&mut self, name: Name, read: T, cache: CertificateCache, now: Instant) {
        let owner = name.owner;
        let own = |(other, _): &(&Name, &Known<T>)| other.owner == owner;
        let is_full = self.known.iter().filter(own).count() >= cache.max;
        if is_full && !self.known.contains_key(&name) {
            let of_here = self.known.iter().filter(own);
            let oldest = of_here.min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.known.remove(&oldest);
            }
        }
        let known = Known {
            read,
            since: now,
            used: now,
            cache,
        };
        self.known.insert(name, known);
    }

    /// Forgets what nobody has asked for, and what is to be read again: a key
    /// is kept no longer than it is of use. To be called now and then.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, known| known.is_kept(now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(owner: usize, file: &str) -> Name {
        Name {
            owner,
            sources: vec![(PemSource::File(file.into()), None)],
        }
    }

    #[test]
    fn the_least_recently_used_makes_room_and_what_is_old_is_read_again() {
        let cache = CertificateCache {
            max: 2,
            inactive: Duration::from_secs(10),
            valid: Duration::from_secs(60),
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut certificates = Certificates::default();
        certificates.learn(name(0, "a"), 'a', cache, at(0));
        certificates.learn(name(0, "b"), 'b', cache, at(1));
        certificates.learn(name(1, "a"), 'x', cache, at(1));
        assert_eq!(certificates.find(&name(0, "a"), at(2)), Some('a'));
        certificates.learn(name(0, "c"), 'c', cache, at(3));
        assert_eq!(certificates.find(&name(0, "b"), at(3)), None);
        assert_eq!(certificates.find(&name(1, "a"), at(3)), Some('x'));
        for second in (3..60).step_by(9) {
            assert_eq!(certificates.find(&name(0, "a"), at(second)), Some('a'));
        }
        assert_eq!(certificates.find(&name(0, "a"), at(61)), None);
        certificates.sweep(at(61));
        assert!(certificates.known.is_empty());
    }
}
