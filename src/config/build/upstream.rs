//! `upstream` blocks, and the upstreams that `proxy_pass` makes of a host.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::balancing::Balancing;
use super::location::is_without_effect;
use super::logs::unhandled;
use super::resolver::Names;
use super::url::{self, Target, Url};
use super::values::{
    invalid_parameter, milliseconds, not_implemented, number, refuse, refuse_directive, set,
    small_number,
};
use super::{Builder, Result};
use crate::config::error::Error;
use crate::config::model::{
    BalanceMethod, NamedServer, NamedServers, Position, Upstream, UpstreamAddress, UpstreamId,
    UpstreamNames, UpstreamPeer, UpstreamQueue,
};
use crate::config::syntax::Directive;
use crate::config::units;

/// The port of `server NAME;` and of an `http://` URL without one.
pub(super) const HTTP_PORT: u16 = 80;
/// The port of an `https://` URL without one.
pub(super) const HTTPS_PORT: u16 = 443;
/// In its place where a URL must say its port.
pub(super) const NO_PORT: u16 = 0;

/// `timeout` of `queue` where it is not given.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
/// `keepalive` where it is not given, as in Nginx since 1.29.7.
const DEFAULT_KEEPALIVE: usize = 32;

/// The same for a target of `json_relay`, of which no block says more: each
/// connection that is not kept costs a later call a handshake.
const RELAY_KEEPALIVE: usize = 256;

/// All upstreams, found by what `proxy_pass` says.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    all: Vec<Arc<Upstream>>,
    /// Blocks by name, in lower case.
    blocks: HashMap<String, UpstreamId>,
    /// Hosts and sockets that `proxy_pass` names directly.
    implicit: HashMap<String, UpstreamId>,
    /// The zones that have a size; of the others, who asked for each first.
    zones: HashMap<Box<[u8]>, std::result::Result<(), Position>>,
    /// Those of `sticky learn`, and whose each is.
    pub(super) sessions: HashMap<Box<[u8]>, Box<str>>,
    /// Blocks with `resolve`: where they are and what they say of resolvers.
    named: Vec<(UpstreamId, Names, Position)>,
}

/// `resolver_timeout` where it is not given.
pub(super) const RESOLVER_TIMEOUT: Duration = Duration::from_secs(30);

impl Upstreams {
    pub(super) fn into_all(self) -> Vec<Arc<Upstream>> {
        self.all
    }

    /// What URLs with variables may call them.
    pub(super) fn take_names(&mut self) -> UpstreamNames {
        UpstreamNames {
            blocks: std::mem::take(&mut self.blocks),
            implicit: std::mem::take(&mut self.implicit),
        }
    }

    /// A zone whose size no block gives is an error, as in Nginx.
    pub(super) fn check_zones(&self) -> Result<()> {
        for (name, size) in &self.zones {
            if let Err(position) = size {
                let name = String::from_utf8_lossy(name);
                let message = format!("zero size shared memory zone \"{name}\"");
                return Err(Error::at(position, message));
            }
        }
        Ok(())
    }

    /// Blocks with `resolve` that say nothing of resolvers take what `http` says,
    /// wherever that stands.
    pub(super) fn settle_resolvers(&mut self, http: &Names) -> Result<()> {
        for (id, mut names, position) in std::mem::take(&mut self.named) {
            names.inherit(http);
            // Nobody else has it before the servers are built.
            let upstream = self.all.get_mut(id).and_then(Arc::get_mut);
            let Some(upstream) = upstream else { continue };
            let Some(named) = &mut upstream.named else {
                continue;
            };
            let Some(resolver) = names.resolver else {
                let name = &upstream.name;
                let message = format!(
                    "no resolver defined to resolve names at run time in upstream \"{name}\""
                );
                return Err(Error::at(&position, message));
            };
            named.resolver = resolver;
            named.timeout = names.timeout.unwrap_or(RESOLVER_TIMEOUT);
        }
        Ok(())
    }

    fn push(&mut self, upstream: Upstream) -> UpstreamId {
        self.all.push(Arc::new(upstream));
        self.all.len() - 1
    }
}

/// `upstream NAME { … }`.
pub(super) fn block(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    let name = d.text(0).into_owned();
    let key = name.to_ascii_lowercase();
    if builder.upstreams.blocks.contains_key(&key) {
        return Err(refuse(d, format!("duplicate upstream \"{name}\"")));
    }
    let (mut keepalive, mut requests, mut timeout, mut time) = (None, None, None, None);
    let (mut peers, mut named) = (Vec::new(), Vec::new());
    let mut balancing = Balancing::for_upstream(&name);
    let mut names = Names::default();
    let (mut shared, mut queue) = (None, None);
    for inner in d.children() {
        match &*inner.name.value {
            b"server" => match server(builder, inner, &balancing)? {
                Servers::Known(found) => peers.extend(found),
                Servers::Named(server) => named.push(server),
            },
            b"zone" => set(&mut shared, inner, zone(builder, inner)?)?,
            b"keepalive" => {
                if let Some(word) = inner.args.get(1)
                    && &*word.value != b"local"
                {
                    return Err(invalid_parameter(inner, &word.value));
                }
                let count = units::number(inner.arg(0)).and_then(|n| usize::try_from(n).ok());
                let Some(count) = count else {
                    let value = inner.text(0);
                    let message = format!("invalid value \"{value}\" in \"keepalive\" directive");
                    return Err(refuse(inner, message));
                };
                set(&mut keepalive, inner, count)?;
            }
            b"queue" => set(&mut queue, inner, waiting(inner)?)?,
            b"keepalive_requests" => set(&mut requests, inner, number(inner)?)?,
            b"keepalive_timeout" => set(&mut timeout, inner, milliseconds(inner)?)?,
            b"keepalive_time" => set(&mut time, inner, milliseconds(inner)?)?,
            _ => {
                if !balancing.apply(builder, inner)?
                    && !names.apply(builder, inner)?
                    && !is_without_effect(inner)
                {
                    return Err(unhandled(inner));
                }
            }
        }
    }
    if peers.is_empty() && named.is_empty() {
        return Err(refuse(d, "no servers are inside upstream"));
    }
    let templates = named.iter().map(|named| &named.template);
    if peers.iter().chain(templates).all(|peer| peer.backup) {
        return Err(refuse(d, format!("no servers in upstream \"{name}\"")));
    }
    if !named.is_empty() && shared.is_none() {
        let message = format!(
            "resolving names at run time requires upstream \"{name}\" to be in shared memory"
        );
        return Err(refuse(d, message));
    }
    let named = (!named.is_empty()).then(|| {
        Box::new(NamedServers {
            servers: named,
            resolver: 0,
            timeout: RESOLVER_TIMEOUT,
        })
    });
    let is_named = named.is_some();
    let id = builder.upstreams.push(Upstream {
        name: name.into(),
        peers,
        named,
        method: balancing.method.unwrap_or_default(),
        sticky: balancing.sticky,
        queue,
        zone: shared.is_some(),
        keepalive: keepalive.unwrap_or(DEFAULT_KEEPALIVE),
        keepalive_requests: requests.unwrap_or(1000),
        keepalive_timeout: timeout.unwrap_or(Duration::from_secs(60)),
        keepalive_time: time.unwrap_or(Duration::from_secs(3600)),
    });
    if is_named {
        let named = &mut builder.upstreams.named;
        named.push((id, names, d.position.clone()));
    }
    builder.upstreams.blocks.insert(key, id);
    Ok(())
}

/// `queue NUMBER [timeout=TIME]`.
fn waiting(d: &Directive) -> Result<UpstreamQueue> {
    let mut queue = UpstreamQueue {
        length: small_number(d)?,
        timeout: QUEUE_TIMEOUT,
    };
    for word in d.args.get(1..).unwrap_or_default() {
        queue.timeout = match split_parameter(&word.value) {
            (b"timeout", Some(time)) => units::milliseconds(time),
            _ => None,
        }
        .ok_or_else(|| invalid_parameter(d, &word.value))?;
    }
    Ok(queue)
}

/// `zone NAME [SIZE]`. The size is checked as Nginx does and then of no use:
/// what workers share here is as large as it must be.
fn zone(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    const PAGE: usize = 4096;
    let name = d.arg(0);
    if name.is_empty() {
        return Err(refuse(d, "invalid zone name \"\""));
    }
    let zones = &mut builder.upstreams.zones;
    match d.args.get(1) {
        None => {
            zones
                .entry(name.into())
                .or_insert_with(|| Err(d.position.clone()));
        }
        Some(size) => {
            let text = String::from_utf8_lossy(&size.value);
            let Some(size) = units::size(&size.value) else {
                return Err(refuse(d, format!("invalid zone size \"{text}\"")));
            };
            if size < 8 * PAGE {
                let name = d.text(0);
                return Err(refuse(d, format!("zone \"{name}\" is too small")));
            }
            zones.insert(name.into(), Ok(()));
        }
    }
    Ok(())
}

/// What a `server` stands for.
enum Servers {
    Known(Vec<UpstreamPeer>),
    Named(NamedServer),
}

/// `server ADDRESS [PARAMETER…]`.
fn server(builder: &Builder<'_>, d: &Directive, balancing: &Balancing) -> Result<Servers> {
    let text = d.text(0);
    let (mut resolve, mut service) = (false, None);
    let mut template = UpstreamPeer::new(UpstreamAddress::Unix(PathBuf::new()), &text);
    for word in d.args.get(1..).unwrap_or_default() {
        let word = &*word.value;
        let invalid = || invalid_parameter(d, word);
        balancing.check(d, word)?;
        match split_parameter(word) {
            (b"weight", Some(value)) => {
                template.weight = narrow(value).filter(|&n| n > 0).ok_or_else(invalid)?;
            }
            (b"max_conns", Some(value)) => {
                template.max_conns = narrow(value).ok_or_else(invalid)?
            }
            (b"max_fails", Some(value)) => {
                template.max_fails = narrow(value).ok_or_else(invalid)?
            }
            (b"fail_timeout", Some(value)) => {
                template.fail_timeout = units::seconds(value).ok_or_else(invalid)?;
            }
            (b"slow_start", Some(value)) => {
                template.slow_start = units::milliseconds(value).ok_or_else(invalid)?;
            }
            (b"route", Some(value)) => template.route = Some(route(d, value)?),
            (b"backup", None) => template.backup = true,
            (b"down", None) => template.down = true,
            (b"drain", None) => template.drain = true,
            (b"resolve", None) => resolve = true,
            (b"service", Some(b"")) => return Err(refuse_directive(d, "service is empty")),
            (b"service", Some(value)) => {
                service = Some(String::from_utf8_lossy(value).to_ascii_lowercase().into());
            }
            (b"sid", Some(_)) => return Err(not_implemented(d, word)),
            _ => return Err(invalid()),
        }
    }
    let refuse_url = |what: &str| refuse(d, format!("{what} in upstream \"{text}\""));
    let Url { target, uri } = url::parse(d.arg(0)).map_err(refuse_url)?;
    if uri.is_some() {
        return Err(refuse_url("invalid host"));
    }
    if service.is_some() {
        let refuse_service = |what: &str| refuse(d, format!("service upstream \"{text}\" {what}"));
        match &target {
            _ if !resolve => return Err(refuse_service("requires \"resolve\" parameter")),
            Target::Host { port: Some(_), .. } => {
                return Err(refuse_service("may not have port"));
            }
            Target::Host { host, .. } if url::parse_address(host).is_none() => {}
            _ => return Err(refuse_service("requires domain name")),
        }
    }
    if let Target::Host { host, port } = &target
        && resolve
        && url::parse_address(host).is_none()
    {
        let name = host.to_ascii_lowercase();
        return Ok(Servers::Named(NamedServer {
            name: name.trim_end_matches('.').into(),
            port: port.unwrap_or(HTTP_PORT),
            service,
            template,
        }));
    }
    let addresses = url::resolve_target(builder, &target, HTTP_PORT)
        .ok_or_else(|| refuse_url("host not found"))?;
    let peers = addresses.into_iter().map(|address| UpstreamPeer {
        address,
        ..template.clone()
    });
    Ok(Servers::Known(peers.collect()))
}

/// `route=NAME`: a part of cookies and URLs, of 32 bytes at the most.
fn route(d: &Directive, value: &[u8]) -> Result<Box<str>> {
    const LONGEST: usize = 32;
    let is_plain = value.iter().all(|byte| matches!(byte, 0x21..=0x7e));
    match std::str::from_utf8(value) {
        Ok(value) if is_plain && (1..=LONGEST).contains(&value.len()) => Ok(value.into()),
        _ => Err(invalid_parameter(d, &[b"route=", value].concat())),
    }
}

/// The upstream for what stands behind the scheme: a block of that name, or the
/// host itself.
pub(super) fn for_target(
    builder: &mut Builder<'_>,
    d: &Directive,
    target: &Target<'_>,
    default_port: u16,
) -> Result<UpstreamId> {
    let key = match target {
        Target::Unix(path) => format!("unix:{}", path.display()),
        Target::Host { host, port } => {
            let host = host.to_ascii_lowercase();
            match (builder.upstreams.blocks.get(&host), port) {
                (Some(&id), None) => return Ok(id),
                (Some(_), Some(port)) => {
                    let message = format!("upstream \"{host}\" may not have port {port}");
                    return Err(refuse(d, message));
                }
                (None, None) if default_port == NO_PORT => {
                    return Err(refuse(d, format!("no port in upstream \"{host}\"")));
                }
                (None, _) => format!("{host}:{}", port.unwrap_or(default_port)),
            }
        }
    };
    if let Some(&id) = builder.upstreams.implicit.get(&key) {
        return Ok(id);
    }
    let Some(addresses) = url::resolve_target(builder, target, default_port) else {
        let host = match target {
            Target::Host { host, .. } => host,
            Target::Unix(_) => "unix:",
        };
        let message = format!("host not found in upstream \"{host}\"");
        return Err(refuse(d, message));
    };
    let peers = addresses
        .into_iter()
        .map(|address| UpstreamPeer::new(address, &key));
    let id = builder.upstreams.push(Upstream {
        name: key.as_str().into(),
        peers: peers.collect(),
        named: None,
        method: BalanceMethod::RoundRobin,
        sticky: None,
        queue: None,
        zone: false,
        keepalive: DEFAULT_KEEPALIVE,
        keepalive_requests: 1000,
        keepalive_timeout: Duration::from_secs(60),
        keepalive_time: Duration::from_secs(3600),
    });
    builder.upstreams.implicit.insert(key, id);
    Ok(id)
}

/// An upstream whose addresses are found when it is connected to.
pub(super) fn without_peers(builder: &mut Builder<'_>, name: &str) -> UpstreamId {
    builder.upstreams.push(Upstream {
        name: name.into(),
        peers: Vec::new(),
        named: None,
        method: BalanceMethod::RoundRobin,
        sticky: None,
        queue: None,
        zone: false,
        keepalive: RELAY_KEEPALIVE,
        keepalive_requests: 1000,
        keepalive_timeout: Duration::from_secs(60),
        keepalive_time: Duration::from_secs(3600),
    })
}

/// `name=value` or a bare `name`.
pub(super) fn split_parameter(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    match word.iter().position(|&byte| byte == b'=') {
        Some(equals) => (&word[..equals], Some(&word[equals + 1..])),
        None => (word, None),
    }
}

fn narrow(value: &[u8]) -> Option<u32> {
    units::number(value).and_then(|value| value.try_into().ok())
}
