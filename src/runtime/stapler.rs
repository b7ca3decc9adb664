//! Asks responders for the status of the certificates that are served
//! (`ssl_stapling`): on a thread of its own, because names are resolved and
//! sockets waited for there.

mod fetch;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::proxy::gateway::Gateway;
use crate::telemetry::error_log::Level;
use crate::tls;
use crate::tls::stapling::{Staple, Staples};

use self::fetch::FetchError;
use super::sandbox;

/// Responders asked at the same time.
const AT_ONCE: usize = 8;
/// For one answer, from looking up the name to its last byte.
const LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at what is due, at most.
const LONGEST_NAP: Duration = Duration::from_secs(3600);

/// The thread, once there is something to ask for.
#[derive(Debug, Default)]
pub(super) struct Stapler {
    thread: Option<Thread>,
}

impl Stapler {
    /// To be called when a configuration has been published: asks for what is
    /// new in it.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(super) fn look(
        &mut self,
        staples: &Arc<Staples>,
        published: &Arc<ArcSwap<Gateway>>,
    ) -> io::Result<()> {
        if let Some(thread) = &self.thread {
            thread.unpark();
            return Ok(());
        }
        if staples.live().is_empty() {
            return Ok(());
        }
        let (staples, published) = (Arc::clone(staples), Arc::clone(published));
        let handle = thread::Builder::new()
            .name("stapler".into())
            .spawn(move || {
                // Without its bounds it must not hear from anybody; certificates
                // are served without their status then.
                if sandbox::confine(sandbox::Thread::Stapler).is_ok() {
                    run(&staples, &published);
                }
            })?;
        self.thread = Some(handle.thread().clone());
        Ok(())
    }
}

fn run(staples: &Staples, published: &ArcSwap<Gateway>) {
    loop {
        ask(&due(staples), published);
        thread::park_timeout(nap(staples));
    }
}

/// What is due, by responder.
fn due(staples: &Staples) -> Vec<Vec<Arc<Staple>>> {
    let now = now();
    let mut groups: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for staple in staples.live() {
        if let Some(responder) = staple.responder().filter(|_| staple.due() <= now) {
            let key = responder.authority.to_string();
            groups.entry(key).or_default().push(staple);
        }
    }
    groups.into_values().collect()
}

fn ask(groups: &[Vec<Arc<Staple>>], published: &ArcSwap<Gateway>) {
    for groups in groups.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for group in groups {
                scope.spawn(|| ask_one(group, published));
            }
        });
    }
}

/// Asks one responder for all that is due. One that cannot be reached is not
/// waited for again and again.
fn ask_one(group: &[Arc<Staple>], published: &ArcSwap<Gateway>) {
    let mut unreachable: Option<String> = None;
    for staple in group {
        let Some(responder) = staple.responder() else {
            continue;
        };
        let answer = match &unreachable {
            Some(why) => Err(why.clone()),
            None => match fetch::fetch(responder, &staple.request(), LIMIT) {
                Ok(answer) => Ok(answer),
                Err(FetchError::Refused(why)) => Err(why),
                Err(FetchError::Unreachable(why)) => Err(unreachable.insert(why).clone()),
            },
        };
        let taken = answer.and_then(|answer| staple.take(answer, tls::now()));
        if let Err(why) = taken
            && staple.failed(&why, tls::now())
            && let Some(log) = published.load().main_error_log()
        {
            let (host, file) = (&responder.authority, staple.certificate());
            log.log(
                Level::Error,
                None,
                format_args!(
                    "{why} while requesting certificate status, responder: {host}, \
                     certificate: \"{file}\""
                ),
            );
        }
    }
}

fn nap(staples: &Staples) -> Duration {
    let live = staples.live();
    let next = live.iter().map(|staple| staple.due()).min();
    let wait = next.unwrap_or(i64::MAX).saturating_sub(now()).max(1);
    let wait = u64::try_from(wait).unwrap_or(1);
    Duration::from_secs(wait).min(LONGEST_NAP)
}

/// Seconds since the epoch.
fn now() -> i64 {
    i64::try_from(tls::now().as_secs()).unwrap_or(i64::MAX)
}
