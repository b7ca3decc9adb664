//! Certificates that a request's variables name.
//!
//! What they hold decides who we are to the backend, so it is read before a
//! connection is chosen and not, as in Nginx, when one is made: a connection
//! that is kept, and a session, are those of the certificate that they were
//! made under (`tls::upstream`). Reading blocks, and is done by threads of
//! their own; each worker remembers as `proxy_ssl_certificate_cache` says.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{sched_getaffinity, sched_setaffinity};
use zeroize::Zeroizing;

use crate::config::{CertificateCache, NamedCertificate, PemSource, ProxyTls, Template};
use crate::net::deadlines::Deadline;
use crate::net::handoff::{Giver, handoff};
use crate::net::spawner::{self, Role};
use crate::proxy::request::Request;
use crate::proxy::variables::expand_to_vec;
use crate::tls::upstream::UpstreamTls;

/// Threads that read; two, so that one file system that hangs is not all.
const READERS: usize = 2;
/// Certificates that wait to be read, in the process; more are refused.
const MAX_QUEUED: usize = 1024;
/// How long a request waits for its certificate.
const PATIENCE: Duration = Duration::from_secs(10);

/// A location's settings under the certificate that this request names; `None`
/// if it names none.
///
/// # Errors
/// Why it cannot be had, for the log. Cancelling it leaves it to be read for
/// nobody.
pub(super) async fn choose(
    request: &Request<'_>,
    settings: &Arc<ProxyTls>,
    named: &NamedCertificate,
) -> Result<Option<Arc<UpstreamTls>>, String> {
    let source = |template: &Template| {
        // It may be the key itself.
        let value = Zeroizing::new(expand_to_vec(template, request));
        let source = named.source(&value);
        source.map_err(|what| format!("cannot load certificate: {what}"))
    };
    let Some(certificate) = source(&named.certificate)? else {
        return Ok(None);
    };
    let key = match &named.key {
        None => None,
        Some(template) => Some(source(template)?.ok_or_else(|| {
            let shown = certificate.display();
            format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{shown}\"")
        })?),
    };
    let view = request.view;
    let name = Name {
        settings: settings.id,
        certificate,
        key,
    };
    if named.cache.is_some()
        && let Some(known) = view.certificates.borrow_mut().find(&name, Instant::now())
    {
        return Ok(Some(known));
    }
    let base = view.gateway.upstream_tls(settings.id);
    let base = Arc::clone(base.ok_or("TLS to this upstream is not set up")?);
    let (giver, taker) = handoff().map_err(|error| error.to_string())?;
    let job = Job {
        name: name.clone(),
        settings: Arc::clone(settings),
        base,
        giver,
    };
    if !READING.submit(job) {
        return Err("too many certificates are waiting to be read".into());
    }
    let deadline = Deadline::new();
    deadline.arm(PATIENCE);
    let read = deadline.run(taker).await;
    let read = read.map_err(|_| "reading a certificate takes too long")?;
    let tls = read.ok_or("reading a certificate failed")??;
    if let Some(cache) = &named.cache {
        let mut certificates = view.certificates.borrow_mut();
        certificates.learn(name, Arc::clone(&tls), *cache, Instant::now());
    }
    Ok(Some(tls))
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    /// [`ProxyTls::id`].
    settings: usize,
    certificate: PemSource,
    key: Option<PemSource>,
}

/// What one worker has read lately, of all locations.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    known: HashMap<Name, Known>,
}

#[derive(Debug)]
struct Known {
    tls: Arc<UpstreamTls>,
    read: Instant,
    used: Instant,
    cache: CertificateCache,
}

impl Known {
    fn is_kept(&self, now: Instant) -> bool {
        now.duration_since(self.read) < self.cache.valid
            && now.duration_since(self.used) < self.cache.inactive
    }
}

impl Certificates {
    fn find(&mut self, name: &Name, now: Instant) -> Option<Arc<UpstreamTls>> {
        let known = self.known.get_mut(name)?;
        if !known.is_kept(now) {
            self.known.remove(name);
            return None;
        }
        known.used = now;
        Some(Arc::clone(&known.tls))
    }

    fn learn(&mut self, name: Name, tls: Arc<UpstreamTls>, cache: CertificateCache, now: Instant) {
        let settings = name.settings;
        let own = |(other, _): &(&Name, &Known)| other.settings == settings;
        let is_full = self.known.iter().filter(own).count() >= cache.max;
        if is_full && !self.known.contains_key(&name) {
            let of_here = self.known.iter().filter(own);
            let oldest = of_here.min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.known.remove(&oldest);
            }
        }
        let known = Known {
            tls,
            read: now,
            used: now,
            cache,
        };
        self.known.insert(name, known);
    }

    /// Forgets what nobody has asked for, and what is to be read again: a key
    /// is kept no longer than it is of use. To be called now and then.
    pub(in crate::proxy) fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, known| known.is_kept(now));
    }
}

struct Job {
    name: Name,
    settings: Arc<ProxyTls>,
    base: Arc<UpstreamTls>,
    giver: Giver<Result<Arc<UpstreamTls>, String>>,
}

static READING: Reading = Reading {
    queue: Mutex::new(Queue {
        jobs: VecDeque::new(),
        threads: 0,
    }),
    filled: Condvar::new(),
};

/// The threads that read, and what waits for them.
struct Reading {
    queue: Mutex<Queue>,
    filled: Condvar,
}

struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
}

impl Reading {
    /// Whether there is room for it.
    fn submit(&'static self, job: Job) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.staff(&mut queue);
        if queue.threads == 0 || queue.jobs.len() >= MAX_QUEUED {
            return false;
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Sees to it that there are threads, if the system has any.
    fn staff(&'static self, queue: &mut Queue) {
        while queue.threads < READERS {
            let name = format!("certificate {}", queue.threads);
            let builder = thread::Builder::new().name(name);
            if spawner::start(Role::Certificates, builder, || self.work()).is_err() {
                break;
            }
            queue.threads += 1;
        }
    }

    /// A thread's life.
    fn work(&'static self) {
        let generation = spawner::generation();
        // It inherits the core of the worker that started it; the main thread
        // has all that the process may use.
        if let Ok(cores) = sched_getaffinity(Some(rustix::process::getpid())) {
            let _ = sched_setaffinity(None, &cores);
        }
        loop {
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let queue = self.filled.wait_while(queue, |queue| queue.jobs.is_empty());
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            if generation != spawner::generation() {
                // What is waiting is for one who may read other files.
                queue.threads -= 1;
                self.staff(&mut queue);
                self.filled.notify_all();
                return;
            }
            let job = queue.jobs.pop_front();
            drop(queue);
            // A panic in it ends this one answer: the giver is dropped, and
            // says so to whom waits.
            let _ = catch_unwind(AssertUnwindSafe(|| job.map(Job::run)));
        }
    }
}

impl Job {
    fn run(self) {
        let Some(named) = &self.settings.named else {
            return;
        };
        let Name {
            certificate, key, ..
        } = self.name;
        let position = &named.position;
        let read = self
            .base
            .with_certificate(&self.settings, position, certificate, key);
        self.giver.give(read.map_err(|error| error.message));
    }
}
