//! The operator's `nginx.conf`, from bytes to an immutable [`Config`].
//!
//! ```text
//! bytes → syntax (tokens, blocks, includes; file and line kept)
//!       → directives (one table: name, contexts, arity, class)
//!       → build (inheritance, names resolved, templates compiled) → Config
//! ```
//!
//! A directive is honoured exactly as Nginx means it, or it is named with file
//! and line: refused, or (tuning of mechanisms that do not exist here) listed
//! among [`Config::remarks`]. Nothing in this folder opens a socket or reads a
//! key; files and host names are reached through [`Source`] and [`Resolver`].

mod address_rules;
mod build;
mod client_rules;
pub mod directives;
mod error;
mod limits;
mod locations;
mod mime;
mod model;
mod named_certificate;
mod pem_source;
mod referers;
mod regexes;
mod script;
mod server_names;
mod source;
mod syntax;
mod template;
pub(crate) mod units;
mod variables;

use std::path::PathBuf;

pub use address_rules::{AddressRules, InvalidNetwork, Network};
pub(crate) use build::pass_url;
pub use build::{Explained, Responder, Verdict};
pub use client_rules::{ClientMatcher, ClientRule, ClientRules, RuleEffect, UriPattern};
pub use error::Error;
pub use limits::{ConnectionLimit, LimitZone, Limits, RequestLimit};
pub use locations::FoundLocation;
pub use mime::MimeTypes;
pub use model::*;
pub use named_certificate::{CertificateCache, NamedCertificate};
pub use pem_source::{PemSource, Secret};
pub use referers::Referers;
pub use regexes::{Groups, Pattern, TooManySteps};
pub use script::{
    Assignable, Candidate, Condition, ErrorPage, ErrorStatus, FileTest, If, Otherwise, Rewrite,
    Step, Then, TryFiles,
};
pub use server_names::{Conflict, FoundServer, NamePattern, ServerNames};
pub use source::{FileSystem, Resolver, Source, SystemResolver};
pub use template::{CompileError, Part, TcpFact, Template, Variable};
pub use variables::{
    Geo, GeoRanges, Map, Mapped, Networks, SplitClients, UserVariable, ValueSource, VariableId,
};

/// What the command line says about a configuration.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `-c`; relative to the prefix.
    pub file: PathBuf,
    /// `-p`: what `pid`, `error_log` and `access_log` are relative to. Files
    /// that are read (`include`, certificates) are relative to the
    /// configuration file's folder.
    pub prefix: PathBuf,
    /// `-g`, each as it was given; read before the file.
    pub global_directives: Vec<String>,
    /// Where `pid` is not given; relative to the prefix.
    pub default_pid: PathBuf,
    /// Where `error_log` is not given (`-e`).
    pub default_error_log: LogTarget,
    /// Where `access_log` is not given.
    pub default_access_log: LogTarget,
    /// The port of a server without `listen`: Nginx takes 80, or 8000 when it
    /// is not root.
    pub default_port: u16,
    /// What `listen systemd:NAME` may name; `None` for whoever serves nobody.
    pub passed_sockets: Option<Vec<(String, ListenAddress)>>,
}

impl LoadOptions {
    /// Nginx's own shape below a prefix: `logs/ringwall.pid`, `logs/error.log`,
    /// `logs/access.log`.
    pub fn new(file: impl Into<PathBuf>, prefix: impl Into<PathBuf>) -> Self {
        let prefix = prefix.into();
        let is_root = rustix::process::geteuid().is_root();
        Self {
            file: file.into(),
            global_directives: Vec::new(),
            default_pid: "logs/ringwall.pid".into(),
            default_error_log: LogTarget::File(prefix.join("logs/error.log")),
            default_access_log: LogTarget::File(prefix.join("logs/access.log")),
            default_port: if is_root { 80 } else { 8000 },
            passed_sockets: None,
            prefix,
        }
    }
}

/// Reads a configuration from disk and resolves its host names. Blocks: not
/// for a worker's thread.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub fn load(options: &LoadOptions) -> Result<Config, Error> {
    parse_and_build(&FileSystem, &SystemResolver, options)
}

/// What becomes of each directive of a configuration, in file order; nothing
/// but the configuration's own files is read.
///
/// # Errors
/// A file that cannot be read, or that is not nginx.conf.
pub fn explain(options: &LoadOptions) -> Result<Vec<Explained>, Error> {
    let tree = syntax::read(&FileSystem, options)?;
    Ok(build::explain(&tree.directives))
}

/// As [`load`], from whatever files and hosts the caller provides.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub fn parse_and_build(
    source: &dyn Source,
    resolver: &dyn Resolver,
    options: &LoadOptions,
) -> Result<Config, Error> {
    let tree = syntax::read(source, options)?;
    build::build(tree, resolver, options)
}
