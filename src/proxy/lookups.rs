//! `server NAME … resolve`: one worker asks for the addresses of names as they
//! run out, and all go by the answers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{NamedServer, UpstreamId};
use crate::net::deadlines::Deadline;
use crate::net::resolver::{ResolveError, Resolver};
use crate::net::spawn::spawn;
use crate::telemetry::error_log::Level;

use super::balance::members::Lead;
use super::board;
use super::gateway::Gateway;

/// No name is asked for more often, whatever its answers say.
const LEAST: Duration = Duration::from_secs(1);

/// The code for a name that there is not.
const NO_SUCH_NAME: ResolveError = ResolveError::Refused(3);

/// A worker's part in the questions of one configuration.
#[derive(Debug)]
pub(crate) struct Lookups {
    worker: u64,
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    upstream: UpstreamId,
    /// Of its named servers.
    index: usize,
    /// When it is to be asked for; `None` while it is.
    due: Rc<Cell<Option<Instant>>>,
}

impl Lookups {
    /// `None` where no server says `resolve`.
    pub(crate) fn new(gateway: &Gateway) -> Option<Self> {
        let now = Instant::now();
        let upstreams = gateway.config.upstreams.iter().enumerate();
        let names: Vec<_> = upstreams
            .flat_map(|(upstream, config)| {
                let named = config.named.as_ref();
                let count = named.map_or(0, |named| named.servers.len());
                (0..count).map(move |index| Name {
                    upstream,
                    index,
                    due: Rc::new(Cell::new(Some(now))),
                })
            })
            .collect();
        (!names.is_empty()).then(|| Self {
            worker: board::number(),
            names,
        })
    }

    /// Asks for what it is time to ask for, if that is this worker's part.
    pub(crate) fn tick(&self, gateway: &Arc<Gateway>, now: Instant) {
        if !gateway.registry.askers.is_mine(self.worker, now) {
            return;
        }
        for name in &self.names {
            if name.due.get().is_none_or(|due| due > now) {
                continue;
            }
            name.due.set(None);
            let (upstream, index, due) = (name.upstream, name.index, Rc::clone(&name.due));
            let gateway = Arc::clone(gateway);
            let task = async move {
                let next = look_up(&gateway, upstream, index).await;
                due.set(Some(next));
            };
            spawn(task, |_| {});
        }
    }
}

/// Asks for one name and tells what it has led to; yields when to ask again.
async fn look_up(gateway: &Gateway, id: UpstreamId, index: usize) -> Instant {
    let now = Instant::now();
    let never = now + Duration::from_secs(86_400);
    let upstream = gateway.config.upstreams.get(id);
    let Some(named) = upstream.and_then(|upstream| upstream.named.as_ref()) else {
        return never;
    };
    let server = named.servers.get(index);
    let resolver = gateway.resolvers.get(named.resolver);
    let (Some(server), Some(resolver)) = (server, resolver) else {
        return never;
    };
    let deadline = Deadline::new();
    deadline.arm(named.timeout);
    let found = deadline.run(leads(gateway, server, resolver)).await;
    let (leads, until) = match found.unwrap_or(Err(ResolveError::TimedOut)) {
        Ok(found) => found,
        Err(error) => {
            let name = &server.name;
            match &server.service {
                None => tell(
                    gateway,
                    format_args!("{name} could not be resolved {error}"),
                ),
                Some(service) => tell(
                    gateway,
                    format_args!("service {service} of {name} could not be resolved {error}"),
                ),
            }
            if error != NO_SUCH_NAME {
                // Nobody could say: what was is the best guess.
                return Instant::now() + named.timeout.max(LEAST);
            }
            (Vec::new(), resolver.until_it_may_exist(now))
        }
    };
    gateway.registry.learn(id, index, server, &leads);
    until.max(Instant::now() + LEAST)
}

/// The addresses of a server, in an order that does not change with the
/// name server's mood; and how long that holds.
async fn leads(
    gateway: &Gateway,
    server: &NamedServer,
    resolver: &Arc<Resolver>,
) -> Result<(Vec<Lead>, Instant), ResolveError> {
    let Some(service) = &server.service else {
        let found = resolver.resolve(&server.name).await?;
        let mut addresses = found.addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        let leads = addresses.iter().map(|ip| Lead {
            address: SocketAddr::new(*ip, server.port),
            service: None,
        });
        return Ok((leads.collect(), found.until));
    };
    let name = match service.contains('.') {
        true => format!("{service}.{}", server.name),
        false => format!("_{service}._tcp.{}", server.name),
    };
    let (mut services, mut until) = resolver.services(&name).await?;
    let first = services.iter().map(|service| service.priority).min();
    services.sort_by(|one, other| {
        let rank = one.priority.cmp(&other.priority);
        let rank = rank.then(other.weight.cmp(&one.weight));
        rank.then_with(|| one.target.cmp(&other.target))
            .then(one.port.cmp(&other.port))
    });
    services.dedup();
    let mut leads = Vec::new();
    for record in services {
        let name = &record.target;
        let found = match resolver.resolve(name).await {
            Ok(found) => found,
            Err(error) => {
                let of = &server.name;
                let message = format_args!(
                    "{name} could not be resolved {error} while resolving service {service} of {of}"
                );
                tell(gateway, message);
                continue;
            }
        };
        until = until.min(found.until);
        let mut addresses = found.addresses.to_vec();
        addresses.sort_unstable();
        leads.extend(addresses.into_iter().map(|ip| Lead {
            address: SocketAddr::new(ip, record.port),
            service: Some((
                name.clone(),
                u32::from(record.weight.max(1)),
                Some(record.priority) != first,
            )),
        }));
    }
    Ok((leads, until))
}

fn tell(gateway: &Gateway, message: std::fmt::Arguments<'_>) {
    if let Some(log) = gateway.main_error_log() {
        log.log(Level::Error, None, message);
    }
}
