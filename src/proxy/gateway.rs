//! What all workers share: one configuration with its keys and its logs,
//! complete and immutable from the moment it is published.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;

use crate::config::{
    self as model, Config, IdentityForm, ListenAddress, Listener, Location, Locations, LogTarget,
    Server, ServerId,
};
use crate::config::{Step, Template, Variable};
use crate::http::headers::same_field_name;
use crate::net::resolver::{self, Resolver};
use crate::telemetry::access_log::Buffering;
use crate::telemetry::error_log::{ErrorLog, Level};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::writer::LogSink;
use crate::tls::certs::CertificateInfo;
use crate::tls::server::TlsHost;
use crate::tls::upstream::UpstreamTls;

use super::balance::members::Registry;
use super::limits::Tables;

/// A configuration ready to serve.
#[derive(Debug)]
pub struct Gateway {
    /// The typed configuration.
    pub config: Config,
    /// By [`ServerId`]; `None` for servers without TLS.
    pub tls: Vec<Option<Arc<TlsHost>>>,
    /// Whether handshakes name certificates anywhere.
    pub(crate) names_certificates: bool,
    /// By [`model::ProxyTls::id`].
    upstream_tls: Vec<Arc<UpstreamTls>>,
    /// `$hostname`.
    pub hostname: Box<str>,
    /// Counts publications, from 1.
    pub generation: u64,
    /// Of the process.
    pub metrics: Arc<Metrics>,
    /// Whose end is to be told of.
    pub certificates: Vec<CertificateInfo>,
    access_sinks: Vec<(LogTarget, LogSink)>,
    /// Of each of these.
    access_buffering: Vec<Buffering>,
    /// Where each is in `access_sinks`.
    access_index: HashMap<LogTarget, usize>,
    error_logs: Vec<(Vec<model::ErrorLog>, Arc<ErrorLog>)>,
    asserted: Vec<Box<[u8]>>,
    /// Of `proxy_client_identity`, each once.
    identity_forms: Vec<IdentityForm>,
    forwards_chains: bool,
    /// What `limit_req` and `limit_conn` count in.
    pub(crate) limit_tables: Tables,
    /// What is known about the upstreams' peers.
    pub(crate) registry: Registry,
    /// By [`crate::config::ResolverId`].
    pub(crate) resolvers: Vec<Arc<Resolver>>,
}

impl Gateway {
    /// Puts the parts together; `open` opens a log.
    ///
    /// # Errors
    /// The first log that cannot be opened, with its target.
    pub fn new(
        config: Config,
        tls: Vec<Option<TlsHost>>,
        upstream_tls: Vec<Arc<UpstreamTls>>,
        hostname: Box<str>,
        generation: u64,
        open: &mut dyn FnMut(&LogTarget) -> io::Result<LogSink>,
    ) -> Result<Self, (LogTarget, io::Error)> {
        let mut open = |target: &LogTarget| open(target).map_err(|error| (target.clone(), error));
        let mut access_sinks: Vec<(LogTarget, LogSink)> = Vec::new();
        let mut access_index = HashMap::new();
        let mut error_logs: Vec<(Vec<model::ErrorLog>, Arc<ErrorLog>)> = Vec::new();
        let mut add_error_logs = |logs: &[model::ErrorLog]| {
            if error_logs.iter().any(|(known, _)| known == logs) {
                return Ok(());
            }
            let sinks = logs
                .iter()
                .map(|log| Ok((open(&log.target)?, level(log.level))))
                .collect::<Result<_, _>>()?;
            error_logs.push((logs.to_vec(), Arc::new(ErrorLog { sinks })));
            Ok(())
        };
        add_error_logs(&config.core.error_logs)?;
        let all = locations(&config);
        for location in &all {
            add_error_logs(&location.error_logs)?;
        }
        let mut access_buffering = Vec::new();
        for log in all.iter().flat_map(|location| &location.access_logs) {
            if !access_index.contains_key(&log.target) {
                access_index.insert(log.target.clone(), access_sinks.len());
                access_sinks.push((log.target.clone(), open(&log.target)?));
                access_buffering.push(None);
                // A worker may be waiting for this core.
                thread::yield_now();
            }
            let index = access_index.get(&log.target);
            // The first that says something counts.
            if let Some(said @ None) = index.and_then(|&index| access_buffering.get_mut(index)) {
                *said = log.buffering.map(|said| Buffering {
                    size: said.size,
                    flush: said.flush,
                });
            }
        }
        let access_buffering = access_buffering.into_iter().map(Option::unwrap_or_default);
        let access_buffering = access_buffering.collect();
        let asserted = asserted_fields(&config);
        let mut identity_forms = Vec::new();
        let proxies = all.iter().copied().filter_map(super::route::proxy);
        let identities: Vec<_> = proxies.filter_map(|proxy| proxy.client_identity).collect();
        for identity in &identities {
            if !identity_forms.contains(&identity.form) {
                identity_forms.push(identity.form);
            }
        }
        Ok(Self {
            limit_tables: Tables::of(&config),
            registry: Registry::new(&config),
            resolvers: config.resolvers.iter().map(resolver).collect(),
            identity_forms,
            forwards_chains: identities.iter().any(|identity| identity.chain),
            asserted,
            config,
            names_certificates: tls.iter().flatten().any(|host| !host.named.is_empty()),
            tls: tls.into_iter().map(|host| host.map(Arc::new)).collect(),
            upstream_tls,
            hostname,
            generation,
            metrics: Arc::default(),
            certificates: Vec::new(),
            access_buffering,
            access_sinks,
            access_index,
            error_logs,
        })
    }

    /// Goes on with what was found out under an older configuration.
    pub fn inherit(&mut self, older: &Self) {
        self.registry
            .inherit(&self.config, &older.registry, &older.config);
    }

    /// The block with this index.
    pub(crate) fn server(&self, id: ServerId) -> Option<&Arc<Server>> {
        self.config.servers.get(id)
    }

    /// The TLS side of the block with this index.
    pub(crate) fn tls_host(&self, id: ServerId) -> Option<&Arc<TlsHost>> {
        self.tls.get(id)?.as_ref()
    }

    /// The settings with this index.
    pub(crate) fn upstream_tls(&self, id: usize) -> Option<&Arc<UpstreamTls>> {
        self.upstream_tls.get(id)
    }

    /// The listener on this address.
    pub(crate) fn listener(&self, address: &ListenAddress) -> Option<usize> {
        self.config
            .listeners
            .iter()
            .position(|listener| listener.address == *address)
    }

    /// Whether plaintext HTTP is accepted beside TLS on this address: its
    /// default server says so. Which blocks it reaches is for each to say
    /// (`route::is_cleartext_refused`).
    pub(crate) fn is_permissive(&self, listener: &Listener) -> bool {
        self.server(listener.hosts.default)
            .is_some_and(|server| server.permissive)
    }

    /// The log for messages of the main context.
    pub fn main_error_log(&self) -> Option<&Arc<ErrorLog>> {
        self.error_log(&self.config.core.error_logs)
    }

    /// The log that these directives describe.
    pub(crate) fn error_log(&self, logs: &[model::ErrorLog]) -> Option<&Arc<ErrorLog>> {
        self.error_logs
            .iter()
            .find(|(known, _)| known == logs)
            .map(|(_, log)| log)
    }

    /// The access logs, each once.
    pub(crate) fn access_sinks(&self) -> &[(LogTarget, LogSink)] {
        &self.access_sinks
    }

    /// The position of one of this configuration's access logs in
    /// [`Gateway::access_sinks`].
    pub(crate) fn access_sink(&self, target: &LogTarget) -> Option<usize> {
        match &self.access_sinks[..] {
            // As most have it; saves hashing a path.
            [_] => Some(0),
            _ => self.access_index.get(target).copied(),
        }
    }

    /// Where errors go; a log that several directives name comes several times.
    pub(crate) fn error_sinks(&self) -> impl Iterator<Item = &LogSink> {
        let logs = self.error_logs.iter().flat_map(|(_, log)| &log.sinks);
        logs.map(|(sink, _)| sink)
    }

    /// How long the lines of each of them may wait.
    pub(crate) fn access_buffering(&self) -> &[Buffering] {
        &self.access_buffering
    }

    /// Whether this request field carries a verified identity to a backend
    /// somewhere in this configuration. A client's copy of such a field is
    /// dropped on every virtual host, also where none is set: the backend
    /// behind it may be the same, and believes the name.
    pub(crate) fn asserts(&self, name: &[u8]) -> bool {
        self.asserted
            .iter()
            .any(|asserted| same_field_name(asserted, name))
            || self.identity_forms.iter().any(|form| form.owns(name))
    }

    /// Whether any backend is told the chain by which a client was verified.
    pub(crate) fn forwards_chains(&self) -> bool {
        self.forwards_chains
    }

    /// Whether any template names fields of an answer (`$sent_http_…`,
    /// `$upstream_trailer_…` and the like), so that they must be kept until the
    /// request is logged.
    pub(crate) fn records_response_fields(&self) -> bool {
        self.config.records_response_fields
    }

    /// Whether any template names a `$trailer_…`.
    pub(crate) fn records_request_trailers(&self) -> bool {
        self.config.records_request_trailers
    }

    /// Whether any template names `$request_body`.
    pub(crate) fn records_request_body(&self) -> bool {
        self.config.records_request_body
    }
}

/// Every location of every server, with what is nested in it and what takes its
/// place under a condition.
fn locations(config: &Config) -> Vec<&Location> {
    fn collect<'c>(locations: &'c Locations, into: &mut Vec<&'c Location>) {
        let exact = locations.exact.iter().map(|(_, location)| location);
        let prefixes = locations.prefixes.iter().map(|(_, _, location)| location);
        let regexes = locations.regexes.iter().map(|(_, location)| location);
        let named = locations.named.iter().map(|(_, location)| location);
        for location in exact.chain(prefixes).chain(regexes).chain(named) {
            into.push(location);
            let limits = location.limit_except.iter();
            into.extend(limits.map(|limits| &*limits.location));
            into.extend(location.script.iter().filter_map(|step| match step {
                Step::If(branch) => branch.location.as_deref(),
                _ => None,
            }));
            collect(&location.nested, into);
        }
    }
    let mut all = Vec::new();
    for server in &config.servers {
        all.push(&*server.root);
        collect(&server.locations, &mut all);
    }
    all
}

/// The names of request fields that carry a verified identity to a backend
/// anywhere in this configuration.
fn asserted_fields(config: &Config) -> Vec<Box<[u8]>> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for proxy in locations(config)
        .into_iter()
        .filter_map(super::route::proxy)
    {
        for header in proxy
            .set_headers
            .iter()
            .filter(|header| carries_identity(config, &header.value))
        {
            if !names.iter().any(|name| same_field_name(name, &header.name)) {
                names.push(header.name.clone());
            }
        }
    }
    names
}

fn carries_identity(config: &Config, template: &Template) -> bool {
    template.variables().any(|variable| match variable {
        Variable::User(id) => config
            .variables
            .get(*id)
            .is_some_and(|known| known.is_identity),
        Variable::Capture(_) => config.captures_identity,
        variable => variable.is_identity(),
    })
}

/// The process's resolver for what a `resolver` directive says.
fn resolver(settings: &model::ResolverSettings) -> Arc<Resolver> {
    Resolver::with(&resolver::Settings {
        servers: settings.servers.clone(),
        valid: settings.valid,
        ipv4: settings.ipv4,
        ipv6: settings.ipv6,
    })
}

/// The log's level by the configuration's word for it.
pub fn level(level: model::LogLevel) -> Level {
    match level {
        model::LogLevel::Emerg => Level::Emerg,
        model::LogLevel::Alert => Level::Alert,
        model::LogLevel::Crit => Level::Crit,
        model::LogLevel::Error => Level::Error,
        model::LogLevel::Warn => Level::Warn,
        model::LogLevel::Notice => Level::Notice,
        model::LogLevel::Info => Level::Info,
        model::LogLevel::Debug => Level::Debug,
    }
}
