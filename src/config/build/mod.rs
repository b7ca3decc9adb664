//! From the tree of directives to a [`Config`].
//!
//! First every directive is held against the table, in file order; so what
//! follows may rely on contexts and numbers of arguments. Then each block
//! fills a [`scope::Scope`], takes from the enclosing one what it does not say
//! itself, and becomes a part of the model.

mod access;
mod authorization;
mod balancing;
mod check;
mod connection;
mod core;
mod cors;
mod delivery;
mod expires;
mod explain;
mod files;
mod filters;
mod gzip;
mod health;
mod http;
mod inheritance;
mod limits;
mod link;
mod listen;
mod location;
mod logs;
mod parting;
pub(crate) mod pass_url;
mod proxy;
mod proxy_tls;
mod real_ip;
mod referers;
mod relay;
mod resolver;
mod responder;
mod response;
mod rewrite;
mod routing;
mod scope;
mod server;
mod syslog;
mod tls;
mod upstream;
mod url;
mod values;
mod variables;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LoadOptions;
use super::error::Error;
use super::model::{
    Config, HealthCheck, LogBuffering, LogFormat, LogLevel, LogTarget, Position, ProxyTls, Reach,
    Remark, ResolverSettings,
};
use super::pem_source::Secret;
use super::source::{Resolver, path_of};
use super::syntax::Tree;
use super::template::{Template, Variable};

pub(super) use self::explain::explain;
pub use self::explain::{Explained, Verdict};
pub use self::responder::Responder;

type Result<T> = std::result::Result<T, Error>;

/// Builds the configuration that a tree describes.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub(crate) fn build(tree: Tree, resolver: &dyn Resolver, options: &LoadOptions) -> Result<Config> {
    let mut remarks = Vec::new();
    check::check(&tree.directives, &mut remarks)?;
    let main = options.prefix.join(&options.file);
    let mut builder = Builder {
        options,
        folder: main.parent().unwrap_or(Path::new("/")).to_path_buf(),
        resolver,
        remarks,
        variables: variables::Variables::default(),
        formats: HashMap::new(),
        log_buffers: HashMap::new(),
        session_zones: HashMap::new(),
        limit_zones: limits::Zones::default(),
        records_client_hello: Cell::new(false),
        records_session_id: Cell::new(false),
        records_response_fields: Cell::new(false),
        records_request_body: Cell::new(false),
        records_request_trailers: Cell::new(false),
        reach: RefCell::default(),
        upstreams: upstream::Upstreams::default(),
        proxy_tls: Vec::new(),
        resolvers: Vec::new(),
        health_checks: Vec::new(),
        matches: HashMap::new(),
        environment: HashMap::new(),
    };
    let core = core::build(&mut builder, &tree.directives)?;
    let http = http::build(&mut builder, &tree.directives, &core)?;
    let (variables, captures_identity) = builder.variables.finish();
    Ok(Config {
        core,
        listeners: http.listeners,
        servers: http.servers,
        records_client_hello: builder.records_client_hello.get(),
        records_session_id: builder.records_session_id.get(),
        records_response_fields: builder.records_response_fields.get(),
        records_request_body: builder.records_request_body.get(),
        records_request_trailers: builder.records_request_trailers.get(),
        reach: builder.reach.take(),
        upstream_names: builder.upstreams.take_names(),
        upstreams: builder.upstreams.into_all(),
        resolvers: builder.resolvers,
        health_checks: builder.health_checks,
        request_zones: builder.limit_zones.requests,
        connection_zones: builder.limit_zones.connections,
        proxy_tls: builder.proxy_tls,
        variables,
        captures_identity,
        remarks: builder.remarks,
        files: tree.files,
    })
}

/// What all parts of the build share.
#[derive(Debug)]
struct Builder<'a> {
    options: &'a LoadOptions,
    /// What files to be read are relative to.
    folder: PathBuf,
    resolver: &'a dyn Resolver,
    remarks: Vec<Remark>,
    /// What the configuration itself defines.
    variables: variables::Variables,
    formats: HashMap<Box<str>, Arc<LogFormat>>,
    /// `buffer=` and `flush=` of the access logs so far: those of one file agree.
    log_buffers: HashMap<LogTarget, LogBuffering>,
    /// Sizes of the shared session caches, which blocks refer to by name.
    session_zones: HashMap<Box<str>, usize>,
    /// What requests and connections are counted in.
    limit_zones: limits::Zones,
    /// Whether a template names a variable of the ClientHello.
    records_client_hello: Cell<bool>,
    /// Whether one names `$ssl_session_id`.
    records_session_id: Cell<bool>,
    /// Whether one names a field of a response.
    records_response_fields: Cell<bool>,
    /// Whether one names `$request_body`.
    records_request_body: Cell<bool>,
    /// Whether one names a `$trailer_…`.
    records_request_trailers: Cell<bool>,
    /// What is opened while requests are served.
    reach: RefCell<Reach>,
    upstreams: upstream::Upstreams,
    proxy_tls: Vec<Arc<ProxyTls>>,
    resolvers: Vec<ResolverSettings>,
    health_checks: Vec<HealthCheck>,
    matches: health::Matches,
    /// From `env NAME=VALUE;`.
    environment: HashMap<Box<str>, Secret>,
}

impl Builder<'_> {
    fn warn(&mut self, position: &Position, text: impl Into<String>) {
        self.remark(LogLevel::Warn, position, text);
    }

    fn notice(&mut self, position: &Position, text: impl Into<String>) {
        self.remark(LogLevel::Notice, position, text);
    }

    fn remark(&mut self, level: LogLevel, position: &Position, text: impl Into<String>) {
        self.remarks.push(Remark {
            level,
            text: text.into(),
            position: Some(position.clone()),
        });
    }

    fn template(&self, value: &[u8], position: &Position) -> Result<Template> {
        let template = Template::compile(value, self.variables.by_name())
            .map_err(|error| Error::at(position, error.to_string()))?;
        if template.variables().any(Variable::is_of_client_hello) {
            self.records_client_hello.set(true);
        }
        if template.variables().any(|v| *v == Variable::SslSessionId) {
            self.records_session_id.set(true);
        }
        if template.variables().any(Variable::is_of_response_fields) {
            self.records_response_fields.set(true);
        }
        if template.variables().any(|v| *v == Variable::RequestBody) {
            self.records_request_body.set(true);
        }
        let is_trailer = |variable: &Variable| matches!(variable, Variable::Trailer(_));
        if template.variables().any(is_trailer) {
            self.records_request_trailers.set(true);
        }
        Ok(template)
    }

    /// A file that is read: relative to the configuration file's folder.
    fn file_to_read(&self, value: &[u8]) -> PathBuf {
        self.folder.join(path_of(value))
    }

    /// A file that is written: relative to the prefix.
    fn file_to_write(&self, value: &[u8]) -> PathBuf {
        self.options.prefix.join(path_of(value))
    }
}

#[cfg(test)]
mod tests;
