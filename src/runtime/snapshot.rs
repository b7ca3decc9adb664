//! From files to something that can be published: build, validate, whole or
//! not at all.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::{
    self, Config, LoadOptions, LogLevel, LogTarget, Position, Remark, UpstreamAddress,
};
use crate::proxy::gateway::Gateway;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::syslog::{Server, Syslog};
use crate::telemetry::writer::{LogFiles, LogSink};
use crate::tls::certs::{CertificateInfo, Loader, TlsError};
use crate::tls::server::{self, Shared, TlsHost};
use crate::tls::stapling::Staples;
use crate::tls::upstream::{self, UpstreamTls};
use crate::tls::watch::Watch;

use super::pidfile::describe;
use super::privileges::{self, User};

/// Why a configuration cannot be used; printed behind `[emerg] `.
#[derive(Debug)]
pub(super) struct Refusal {
    message: String,
    position: Option<Position>,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: None,
        }
    }

    pub(super) fn at(position: &Position, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: Some(position.clone()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.position {
            Some(position) => write!(f, "{} in {position}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<config::Error> for Refusal {
    fn from(error: config::Error) -> Self {
        Self {
            message: error.message,
            position: error.position,
        }
    }
}

impl From<TlsError> for Refusal {
    fn from(error: TlsError) -> Self {
        Self {
            message: error.message,
            position: error.position,
        }
    }
}

/// What survives from one snapshot to the next.
#[derive(Debug)]
pub(super) struct Builder {
    options: LoadOptions,
    shared: Shared,
    generation: u64,
    pub(super) metrics: Arc<Metrics>,
}

/// A configuration with its keys, not yet with its logs.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    /// Whom the process is to become.
    pub(super) user: Option<User>,
    tls: Vec<Option<TlsHost>>,
    upstream_tls: Vec<Arc<UpstreamTls>>,
    /// For the operator, in the order found.
    pub(super) remarks: Vec<Remark>,
    /// The files that all this was read from.
    pub(super) watch: Watch,
    /// Whose end is to be told of.
    certificates: Vec<CertificateInfo>,
}

impl Builder {
    pub(super) fn new(options: LoadOptions) -> Result<Self, Refusal> {
        Ok(Self {
            options,
            shared: Shared::new()?,
            generation: 0,
            metrics: Arc::default(),
        })
    }

    /// Reads the configuration and everything that it names: keys, CAs.
    pub(super) fn load(&self) -> Result<Loaded, Refusal> {
        self.complete(config::load(&self.options)?)
    }

    /// Reads the keys and CAs that a configuration names.
    pub(super) fn complete(&self, mut config: Config) -> Result<Loaded, Refusal> {
        let mut loader = Loader::default();
        let mut tls = Vec::with_capacity(config.servers.len());
        let mut remarks = std::mem::take(&mut config.remarks);
        for block in &config.servers {
            let host = match &block.tls {
                Some(directives) => Some(server::build(directives, &self.shared, &mut loader)?),
                None => None,
            };
            let warnings = host.iter().flat_map(|host| &host.warnings);
            remarks.extend(warnings.map(|text| Remark {
                level: LogLevel::Warn,
                text: text.clone(),
                position: Some(block.position.clone()),
            }));
            tls.push(host);
            give_way();
        }
        let mut upstream_tls = Vec::with_capacity(config.proxy_tls.len());
        for directives in &config.proxy_tls {
            let (built, warnings) = upstream::build(directives, self.shared.links(), &mut loader)?;
            remarks.extend(warnings.into_iter().map(|text| Remark {
                level: LogLevel::Warn,
                text,
                position: Some(directives.verify.position.clone()),
            }));
            upstream_tls.push(built);
        }
        let watch = loader.take_watch();
        let user = privileges::user(&config.core)?;
        let files = config.files.iter().map(|file| Path::new(&*file.name));
        let files = files.chain(watch.files());
        remarks.extend(privileges::remarks(&config.core, user.as_ref(), files));
        Ok(Loaded {
            user,
            config,
            tls,
            upstream_tls,
            remarks,
            watch,
            certificates: loader.take_expiring(),
        })
    }

    /// The certificates whose status is to be asked for.
    pub(super) fn staples(&self) -> &Arc<Staples> {
        self.shared.staples()
    }

    /// Opens the logs, which makes it ready to be published.
    pub(super) fn finish(&mut self, loaded: Loaded, logs: &LogFiles) -> Result<Gateway, Refusal> {
        let hostname = rustix::system::uname();
        let hostname = hostname.nodename().to_string_lossy().to_ascii_lowercase();
        let defaults = [
            &self.options.default_error_log,
            &self.options.default_access_log,
        ];
        let mut open =
            |target: &LogTarget| open(target, defaults.contains(&target), &hostname, logs);
        let gateway = Gateway::new(
            loaded.config,
            loaded.tls,
            loaded.upstream_tls,
            hostname.clone().into(),
            self.generation + 1,
            &mut open,
        );
        let mut gateway = gateway.map_err(|(target, error)| {
            let path = match &target {
                LogTarget::File(path) => path.display().to_string(),
                LogTarget::Syslog(target) => format!("syslog:server={}", target.server),
                LogTarget::Stderr | LogTarget::Computed => "stderr".to_owned(),
            };
            Refusal::new(format!("open() \"{path}\" failed ({})", describe(&error)))
        })?;
        gateway.metrics = Arc::clone(&self.metrics);
        gateway.certificates = loaded.certificates;
        self.generation += 1;
        Ok(gateway)
    }
}

/// Lets a worker go first that shares this thread's core: it is woken by a
/// request, and would otherwise wait for the rest of a time slice, which takes
/// some milliseconds.
fn give_way() {
    std::thread::yield_now();
}

/// A log that nobody named may need its folder made.
fn open(
    target: &LogTarget,
    is_default: bool,
    hostname: &str,
    logs: &LogFiles,
) -> io::Result<LogSink> {
    match target {
        LogTarget::Stderr => Ok(logs.stderr()),
        LogTarget::Computed => Ok(logs.computed()),
        LogTarget::Syslog(target) => logs.syslog(&Syslog {
            server: match &target.server {
                UpstreamAddress::Inet(address) => Server::Inet(*address),
                UpstreamAddress::Unix(path) => Server::Unix(path.clone()),
            },
            facility: target.facility,
            severity: target.severity,
            tag: target.tag.clone(),
            hostname: (!target.nohostname).then(|| hostname.into()),
        }),
        LogTarget::File(path) => {
            if is_default
                && let Some(folder) = path.parent().filter(|folder| *folder != Path::new(""))
            {
                fs::create_dir_all(folder)?;
            }
            logs.open(path)
        }
    }
}
