//! The configuration as the rest of the program sees it: typed, resolved,
//! immutable. Inheritance has already been applied, so a location carries
//! everything that holds in it and nobody looks upwards at run time.

mod egress;
mod files;
mod forwarding;
mod gzip;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::address_rules::{AddressRules, Network};
use super::client_rules::ClientRules;
use super::limits::{LimitZone, Limits};
use super::mime::MimeTypes;
use super::named_certificate::NamedCertificate;
use super::pem_source::PemSource;
use super::referers::Referers;
use super::regexes::Pattern;
use super::script::{Assignable, ErrorPage, Step, TryFiles};
use super::server_names::ServerNames;
use super::template::Template;
use super::variables::UserVariable;
pub use egress::*;
pub use forwarding::*;

mod balancing;
mod health;
mod link;
mod names;
mod parting;
mod reach;

pub use health::{Expectation, FieldTest, HealthCheck, StatusSet, ValueTest};
pub use link::{ProxyLink, ProxyProtocol};
pub use names::{
    NamedServer, NamedServers, ParsedUrl, ResolverId, ResolverSettings, UpstreamNames, UrlTarget,
};
pub use parting::{Lingering, Parting};
pub use reach::Reach;
pub(crate) use reach::{fixed_folder, fixed_part};

pub use balancing::{
    BalanceMethod, Conditions, NextUpstream, Sticky, StickyCookie, StickyExpires, StickySessions,
    UpstreamQueue,
};
pub use files::*;
pub use gzip::*;

/// Where a directive stands: for every message about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file as the operator named or included it.
    pub file: Arc<str>,
    /// Counted from 1; 0 for what was given with `-g`, which has no lines.
    pub line: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A file that was read for the configuration, for `-T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its absolute path, or the path relative to which it was included.
    pub name: Arc<str>,
    /// Byte for byte.
    pub content: Arc<[u8]>,
}

/// A value together with the place that gave it.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub position: Position,
}

/// A whole configuration.
#[derive(Debug)]
pub struct Config {
    /// The main context and `events`.
    pub core: Core,
    /// One per distinct address, each with the servers that share it.
    pub listeners: Vec<Listener>,
    /// Whether any value names a variable of the ClientHello, so that what the
    /// client offered must be kept.
    pub records_client_hello: bool,
    /// Whether any value names `$ssl_session_id`, so that it must be looked for
    /// in the ServerHello.
    pub records_session_id: bool,
    /// Whether any value names a field of a response, so that the fields must be
    /// kept until the request is logged.
    pub records_response_fields: bool,
    /// Whether any value names `$request_body`, so that short bodies must be
    /// kept until the request is logged.
    pub records_request_body: bool,
    /// Whether any value names a `$trailer_…`, so that what is behind a request's
    /// body must be kept until then.
    pub records_request_trailers: bool,
    /// Every `server` block, in file order; the index is its [`ServerId`].
    pub servers: Vec<Arc<Server>>,
    /// Every `upstream` block and every address that `proxy_pass` names
    /// directly; the index is its [`UpstreamId`].
    pub upstreams: Vec<Arc<Upstream>>,
    /// The upstreams by name, for URLs with variables.
    pub upstream_names: UpstreamNames,
    /// What is opened while requests are served.
    pub reach: Reach,
    /// Every `health_check`.
    pub health_checks: Vec<HealthCheck>,
    /// Every `resolver`, each once; the index is its [`ResolverId`].
    pub resolvers: Vec<ResolverSettings>,
    /// Every `limit_req_zone`.
    pub request_zones: Vec<LimitZone>,
    /// Every `limit_conn_zone`.
    pub connection_zones: Vec<LimitZone>,
    /// The TLS settings of every location whose backend speaks TLS; the index
    /// is [`ProxyTls::id`].
    pub proxy_tls: Vec<Arc<ProxyTls>>,
    /// The variables that it defines; the index is a template's
    /// [`super::VariableId`].
    pub variables: Vec<UserVariable>,
    /// Whether a numbered group may tell who the client proved to be.
    pub captures_identity: bool,
    /// What the operator should hear of at load: directives without effect
    /// here, deprecated spellings, protocol versions that are not offered.
    pub remarks: Vec<Remark>,
    /// What was read, in load order, each file once.
    pub files: Vec<SourceFile>,
}

/// Index into [`Config::servers`].
pub type ServerId = usize;
/// Index into [`Config::upstreams`].
pub type UpstreamId = usize;

/// A line for the error log at load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// `Notice` or `Warn`.
    pub level: LogLevel,
    /// Without the position, which is printed behind it.
    pub text: String,
    /// Where it applies.
    pub position: Option<Position>,
}

/// Main context and `events`.
#[derive(Debug, Clone)]
pub struct Core {
    /// `worker_processes`; `None` for `auto`. Default 1.
    pub worker_processes: Option<usize>,
    /// `worker_rlimit_nofile`.
    pub worker_rlimit_nofile: Option<u64>,
    /// `worker_rlimit_core`, bytes. Default: no core is dumped.
    pub worker_rlimit_core: Option<u64>,
    /// `core_dump_memory`: what `worker_rlimit_core` lets be dumped has the
    /// process's memory in it. Default off.
    pub core_dump_memory: bool,
    /// `working_directory`, relative to where the process was started. Default:
    /// it stays there.
    pub working_directory: Option<PathBuf>,
    /// `worker_connections`, per worker. Default 512.
    pub worker_connections: usize,
    /// `worker_shutdown_timeout`; `None` waits for ever.
    pub worker_shutdown_timeout: Option<Duration>,
    /// `use`.
    pub event_method: EventMethod,
    /// `pid`, absolute.
    pub pid: PathBuf,
    /// `daemon`. Default on.
    pub daemon: bool,
    /// `master_process`. Default on; off runs without daemonising, as a single worker.
    pub master_process: bool,
    /// `user NAME [GROUP]`.
    pub user: Option<Located<(String, Option<String>)>>,
    /// `seccomp`: every thread but the main one has a list of the system calls
    /// that it may make. Default on.
    pub seccomp: bool,
    /// `landlock`: likewise of files. Default on.
    pub landlock: bool,
    /// `ssl_watch`, in the main context or in `http`: the time between two
    /// looks at the files that certificates come from. `None` for off.
    pub ssl_watch: Option<Duration>,
    /// `error_log` of the main context, never empty.
    pub error_logs: Vec<ErrorLog>,
}

/// `use io_uring | epoll`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventMethod {
    /// Not said: io_uring where the kernel grants it, epoll otherwise.
    #[default]
    Auto,
    /// As [`EventMethod::Auto`], for the operator who says so.
    IoUring,
    /// epoll.
    Epoll,
}

/// Severity, most severe first, by Nginx's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are Nginx's own names")]
pub enum LogLevel {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

/// One `error_log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorLog {
    /// Where lines go.
    pub target: LogTarget,
    /// Lines less severe than this are dropped. Default `error`.
    pub level: LogLevel,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// An absolute path (`/dev/stdout` included).
    File(PathBuf),
    /// Standard error.
    Stderr,
    /// A syslog server.
    Syslog(SyslogTarget),
    /// Files that requests name ([`AccessLog::path`]).
    Computed,
}

/// `syslog:server=…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyslogTarget {
    /// Where to.
    pub server: UpstreamAddress,
    /// 0–23. Default 23, `local7`.
    pub facility: u8,
    /// 0–7, of access logs. Default 6, `info`.
    pub severity: u8,
    /// Default `nginx`: what sorts the lines by it goes on to.
    pub tag: Box<str>,
    /// `nohostname`.
    pub nohostname: bool,
}

/// A socket to listen on, and the virtual hosts behind it.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub address: ListenAddress,
    /// `ssl`: TLS on this socket.
    pub ssl: bool,
    /// `http2`, as it was said before there was a directive of that name: HTTP/2
    /// for all servers of this address.
    pub http2: bool,
    /// `proxy_protocol`: connections begin with a header that tells whom they
    /// are for.
    pub proxy_protocol: bool,
    /// `backlog=`. Default 511, as in Nginx on Linux.
    pub backlog: i32,
    /// `reuseport`: a socket for each worker.
    pub reuseport: bool,
    /// `ipv6only=`. Default on.
    pub ipv6only: bool,
    /// `so_keepalive=`.
    pub so_keepalive: Option<SoKeepalive>,
    /// `deferred`: connections are accepted once the client has sent something, or
    /// a second later.
    pub deferred: bool,
    /// Index of the wildcard listener (`*:443` for `192.0.2.1:443`) whose socket
    /// also receives this address's connections. The kernel does not let two
    /// sockets listen on overlapping addresses, so this one is then not bound:
    /// a connection belongs here by its local address.
    pub covered_by: Option<usize>,
    /// The first `listen` that named this address.
    pub position: Position,
    /// Which server answers for which name.
    pub hosts: ServerNames,
}

/// `so_keepalive=` of `listen`: whether the kernel looks after silent clients.
/// What is not given is as the system has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoKeepalive {
    /// It does not.
    Off,
    /// It does.
    On {
        /// Silence before the first probe, in whole seconds.
        idle: Option<Duration>,
        /// Between two probes, likewise.
        interval: Option<Duration>,
        /// Probes without an answer that end a connection.
        count: Option<u32>,
    },
}

/// An address to bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Inet(SocketAddr),
    /// `unix:PATH`, absolute.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A `server` block.
#[derive(Debug)]
pub struct Server {
    /// Its own index.
    pub id: ServerId,
    /// The first name of `server_name`, for `$server_name`; may be empty.
    pub name: Box<str>,
    /// The line of `server {`.
    pub position: Position,
    /// TLS settings; `None` where no listener of this server has `ssl`.
    pub tls: Option<Tls>,
    /// `ssl_permissive`: plaintext HTTP beside TLS on the same port. Default
    /// off.
    pub permissive: bool,
    /// What holds before a location is known.
    pub connection: ConnectionLimits,
    /// What the server block itself says: its script, which comes before the
    /// search for a location, and the settings for requests that no location
    /// takes.
    pub root: Arc<Location>,
    /// Which location takes which path.
    pub locations: Locations,
}

/// Limits that apply while a request head is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `client_header_timeout`. Default 60 s.
    pub client_header_timeout: Duration,
    /// `client_header_buffer_size`, bytes. Default 1 KiB.
    pub client_header_buffer_size: usize,
    /// `large_client_header_buffers NUMBER SIZE`: how many, and bytes each.
    /// Default 4 of 8 KiB.
    pub large_client_header_buffers: (usize, usize),
    /// `max_headers`. Default 1000.
    pub max_headers: usize,
    /// `underscores_in_headers`. Default off.
    pub underscores_in_headers: bool,
    /// `ignore_invalid_headers`. Default on.
    pub ignore_invalid_headers: bool,
    /// `merge_slashes`. Default on.
    pub merge_slashes: bool,
    /// What is said about HTTP/2.
    pub http2: Http2,
}

/// HTTP/2 on a server's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// `http2`. Default off; see also [`Listener::http2`].
    pub enabled: bool,
    /// `http2_max_concurrent_streams`. Default 128.
    pub max_concurrent_streams: u32,
    /// `http2_body_preread_size`, bytes of a request body that a client may send
    /// before anybody takes them. Default 64 KiB.
    pub body_preread_size: usize,
}

/// The locations of a server, searched as Nginx does: exact, then the longest
/// prefix, then (unless that prefix said `^~`) regular expressions in order.
#[derive(Debug, Default)]
pub struct Locations {
    /// `= PATH`, sorted by path.
    pub exact: Vec<(Box<[u8]>, Arc<Location>)>,
    /// Prefixes, sorted by path; the flag is `^~`.
    pub prefixes: Vec<Prefix>,
    /// Of each of them, which is the longest of those that it begins with.
    pub shorter: Vec<Option<usize>>,
    /// Whether one of these and of the exact ones has [`Location::auto_redirect`]
    /// and a path besides the slash.
    pub adds_slashes: bool,
    /// `~` and `~*`, in file order.
    pub regexes: Vec<(Pattern, Arc<Location>)>,
    /// `@NAME`, reached by internal redirects only.
    pub named: Vec<(Box<str>, Arc<Location>)>,
}

/// A path's beginning, whether it said `^~`, and what it leads to.
pub type Prefix = (Box<[u8]>, bool, Arc<Location>);

/// Everything that holds for a request once its location is known.
#[derive(Debug)]
pub struct Location {
    /// As written behind `location` (`/api/`, `~ \.php$`), for log lines; the
    /// server's own root location has an empty name.
    pub name: Box<str>,
    /// The path prefix that a proxied URI part replaces; empty for regexes.
    pub prefix: Box<[u8]>,
    /// Where it stands.
    pub position: Position,
    /// What is done before anything answers: `set`, `rewrite`, `if`, … in their
    /// order.
    pub script: Box<[Step]>,
    /// What answers.
    pub handler: Handler,
    /// `try_files`: what is looked for before anything answers.
    pub try_files: Option<Box<TryFiles>>,
    /// `limit_except`: what holds for the other methods.
    pub limit_except: Option<LimitExcept>,
    /// `internal`: for internal redirects only, 404 for clients. Default off.
    pub internal: bool,
    /// `error_page`, each code once.
    pub error_pages: Arc<[ErrorPage]>,
    /// `recursive_error_pages`: also for errors of error pages. Default off.
    pub recursive_error_pages: bool,
    /// How redirects to a path of this server are written.
    pub redirects: Redirects,
    /// Locations inside this one, searched once this one has matched.
    pub nested: Locations,
    /// Ends in `/` and has a `proxy_pass`: the same path without the slash is
    /// answered by a 301 that adds it.
    pub auto_redirect: bool,
    /// `ssl_client_allow` and `ssl_client_deny`; `None` where there are none.
    pub client_rules: Option<Arc<ClientRules>>,
    /// `ssl_client_required`: only with a verified certificate. Default off.
    pub client_required: bool,
    /// `set_real_ip_from` and its kin; `None` where nobody's word counts.
    pub real_ip: Option<Box<RealIp>>,
    /// `valid_referers`; `None` where nobody says.
    pub referers: Option<Arc<Referers>>,
    /// `limit_req` and `limit_conn`; `None` where nothing is limited.
    pub limits: Option<Box<Limits>>,
    /// `allow`, `deny`, `auth_basic`; `None` where everybody is let in.
    pub access: Option<Box<Access>>,
    /// `cors_*`; `None` where nobody says which origins may call.
    pub cors: Option<Arc<Cors>>,
    /// `client_max_body_size`, bytes; 0 is unlimited. Default 1 MiB.
    pub client_max_body_size: u64,
    /// `client_body_timeout`, between two reads. Default 60 s.
    pub client_body_timeout: Duration,
    /// `send_timeout`, between two writes. Default 60 s.
    pub send_timeout: Duration,
    /// `keepalive_timeout`; zero turns keep-alive off. Default 75 s.
    pub keepalive_timeout: Duration,
    /// The second parameter, for the `Keep-Alive` field.
    pub keepalive_header: Option<Duration>,
    /// `keepalive_requests`. Default 1000.
    pub keepalive_requests: u64,
    /// `server_tokens`. Default on.
    pub server_tokens: ServerTokens,
    /// `default_type`. Default `text/plain`.
    pub default_type: Template,
    /// `charset` and `charset_types`; `None` for off. Default off.
    pub charset: Option<Charset>,
    /// Where files are and how they are told to clients.
    pub files: Arc<Files>,
    /// `gzip` and its family; `None` where all of it is off.
    pub gzip: Option<Arc<Gzip>>,
    /// `types`: content types by extension. Default html, gif and jpg.
    pub types: Arc<MimeTypes>,
    /// `add_header`.
    pub add_headers: Vec<AddHeader>,
    /// How bodies come and go.
    pub delivery: Delivery,
    /// How connections end.
    pub parting: Parting,
    /// `expires`; `None` where nothing was said.
    pub expires: Option<Box<Expires>>,
    /// `access_log`; empty for `off`. Default `logs/access.log combined`.
    pub access_logs: Vec<AccessLog>,
    /// `error_log`, never empty.
    pub error_logs: Vec<ErrorLog>,
    /// `resolver`.
    pub resolver: Option<ResolverId>,
    /// `resolver_timeout`. Default 30 s.
    pub resolver_timeout: Duration,
    /// `log_not_found`. Default on.
    pub log_not_found: bool,
}

/// Who is let in, beyond what TLS says.
#[derive(Debug)]
pub struct Access {
    /// `satisfy`. Default `all`.
    pub satisfy: Satisfy,
    /// `allow` and `deny`.
    pub rules: Option<Arc<AddressRules>>,
    /// `auth_basic` with `auth_basic_user_file`.
    pub auth_basic: Option<AuthBasic>,
    /// `auth_request` with `auth_request_set`.
    pub auth_request: Option<AuthRequest>,
    /// `auth_delay`: how long a 401 is held back. Default 0.
    pub auth_delay: Duration,
}

/// `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`: whose word about
/// the client counts, and where it stands.
#[derive(Debug)]
pub struct RealIp {
    /// Proxies that are trusted.
    pub from: Vec<Network>,
    /// `unix:`: whoever comes over a Unix socket is.
    pub from_unix: bool,
    /// Default `X-Real-IP`.
    pub header: RealIpHeader,
    /// Whether entries of trusted proxies are passed over. Default off.
    pub recursive: bool,
}

/// `real_ip_header`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealIpHeader {
    /// `X-Forwarded-For`, all of its fields.
    ForwardedFor,
    /// The header in front of the connection.
    ProxyProtocol,
    /// The first field of this name.
    Field(Box<[u8]>),
}

/// `satisfy`: how many of the checks a client must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Satisfy {
    /// Every one.
    #[default]
    All,
    /// One is enough.
    Any,
}

/// `auth_request URI` and `auth_request_set $VARIABLE VALUE`.
#[derive(Debug)]
pub struct AuthRequest {
    /// The path whose location is asked.
    pub uri: Box<[u8]>,
    /// What is taken over from its answer.
    pub set: Arc<Vec<(Assignable, Template)>>,
}

/// `auth_basic REALM` and `auth_basic_user_file FILE`.
#[derive(Debug)]
pub struct AuthBasic {
    /// A value of `off` asks for nothing.
    pub realm: Template,
    /// Read when a request needs it.
    pub user_file: Template,
    /// What a relative `user_file` is relative to.
    pub folder: PathBuf,
}

/// How a redirect to a path of this server is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirects {
    /// `absolute_redirect`: as a whole URL. Default on.
    pub absolute: bool,
    /// `port_in_redirect`: with the port, where it is not the scheme's. Default
    /// on.
    pub port: bool,
    /// `server_name_in_redirect`: with the server's first name instead of the
    /// one that the client used. Default off.
    pub server_name: bool,
}

/// `limit_except METHOD… { … }`.
#[derive(Debug)]
pub struct LimitExcept {
    /// The methods that are not limited, as written; GET stands for HEAD too.
    pub methods: Vec<Box<[u8]>>,
    /// What holds for all others instead of the location's own settings.
    pub location: Arc<Location>,
}

/// What answers a request.
#[derive(Debug)]
pub enum Handler {
    /// Nothing else was configured: the file below `root` or `alias`.
    Files,
    /// `empty_gif`.
    EmptyGif,
    /// A `return` that nothing stands before.
    Return(Return),
    /// `metrics`.
    Metrics,
    /// `stub_status`.
    StubStatus,
    /// `proxy_pass`.
    Proxy(Box<Proxy>),
    /// `json_relay`.
    Relay(Box<Relay>),
    /// `health`.
    Health(Box<Health>),
}

/// `return CODE [TEXT|URL]`, `return URL`.
#[derive(Debug)]
pub struct Return {
    /// 0–999; 444 closes the connection without an answer.
    pub status: u16,
    /// A URL for 301, 302, 303, 307 and 308, body text otherwise.
    pub text: Option<Template>,
}

/// `server_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the directive's own words")]
pub enum ServerTokens {
    On,
    Off,
    Build,
}

/// `add_header NAME VALUE [always]`.
#[derive(Debug, Clone)]
pub struct AddHeader {
    /// As written.
    pub name: Box<[u8]>,
    /// A field with an empty value is not added.
    pub value: Template,
    /// Whatever the status; otherwise only 200, 201, 204, 206, 301–304, 307, 308.
    pub always: bool,
}

/// `access_log PATH [FORMAT [PARAMETER…]]`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Where lines go.
    pub target: LogTarget,
    /// With variables in it: the file, of [`LogTarget::Computed`].
    pub path: Option<Template>,
    /// `if=`: only where this is neither empty nor `0`.
    pub condition: Option<Template>,
    /// `buffer=` and `flush=`.
    pub buffering: Option<LogBuffering>,
    /// The named format, shared by all who use it.
    pub format: Arc<LogFormat>,
}

/// `buffer=SIZE [flush=TIME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBuffering {
    /// Bytes.
    pub size: usize,
    /// The longest that a line waits.
    pub flush: Option<Duration>,
}

/// `log_format NAME [escape=…] STRING…`.
#[derive(Debug)]
pub struct LogFormat {
    /// Its name.
    pub name: Box<str>,
    /// The strings, joined; without the line feed.
    pub template: Template,
    /// How variables' values are escaped.
    pub escape: LogEscape,
}

/// `escape=` of `log_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogEscape {
    /// `"`, `\` and bytes below 32 or above 126 as `\xXX`; empty values as `-`.
    #[default]
    Default,
    /// For JSON strings.
    Json,
    /// As it is.
    None,
}

/// `proxy_pass` or `grpc_pass` and its family. Where a directive is named
/// `proxy_…`, the one of the other family is meant as well.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// By which directives.
    pub family: ProxyFamily,
    /// Where to; `None` where variables in the URL say so for each request.
    pub upstream: Option<UpstreamId>,
    /// The whole URL, where it has variables.
    pub url: Option<Template>,
    /// `$proxy_host`: host and port as written in the URL (port left out when
    /// it is the scheme's own), or the upstream's name.
    pub host: Box<str>,
    /// `$proxy_port`; 0 (the variable is empty) for a UNIX socket.
    pub port: u16,
    /// The URI part of the URL: replaces the location's prefix. `None` passes
    /// the request's URI as it came.
    pub uri: Option<Box<[u8]>>,
    /// `https://`: how TLS is spoken to the backend.
    pub tls: Option<Arc<ProxyTls>>,
    /// `proxy_set_header` with the defaults that Nginx adds (Host
    /// `$proxy_host`, Connection empty unless set), in order. Empty values
    /// mean: do not pass the field.
    pub set_headers: Vec<SetHeader>,
    /// `proxy_client_identity`. Default `off`.
    pub client_identity: Option<ClientIdentity>,
    /// `proxy_http_version`. Default 1.1; 2 for `grpc_pass`.
    pub http_version: ProxyHttpVersion,
    /// `proxy_connect_timeout`. Default 60 s.
    pub connect_timeout: Duration,
    /// `proxy_read_timeout`, between two reads. Default 60 s.
    pub read_timeout: Duration,
    /// `proxy_send_timeout`, between two writes. Default 60 s.
    pub send_timeout: Duration,
    /// How backends are connected to.
    pub link: ProxyLink,
    /// What else changes on the way.
    pub filters: ProxyFilters,
    /// `proxy_next_upstream`, `_tries`, `_timeout`.
    pub next_upstream: NextUpstream,
}

/// The `proxy_ssl_*` directives of a location whose backend speaks TLS. Files
/// are named, not read: that is `tls::upstream`'s part.
#[derive(Debug, Clone)]
pub struct ProxyTls {
    /// Index into [`Config::proxy_tls`].
    pub id: usize,
    /// By which directives.
    pub family: ProxyFamily,
    /// `proxy_ssl_certificate` and `proxy_ssl_certificate_key`, which a PKCS#12
    /// store does without.
    pub certificate: Option<CertificateAndKey>,
    /// The same where a request's variables have a say in it; `certificate` is
    /// `None` then.
    pub named: Option<NamedCertificate>,
    /// `proxy_ssl_password_file`.
    pub password_file: Option<Located<PathBuf>>,
    /// `proxy_ssl_trusted_certificate`; there is one where `verify` is on.
    pub trusted_certificate: Option<Located<TrustSource>>,
    /// `proxy_ssl_crl`.
    pub crl: Option<Located<PathBuf>>,
    /// `proxy_ssl_verify`. Default off, as in Nginx.
    pub verify: Located<bool>,
    /// `proxy_ssl_verify_depth`. Default 1.
    pub verify_depth: u32,
    /// `proxy_ssl_name`: who the backend is to be, with a port that does not
    /// count. Default `$proxy_host`.
    pub name: Template,
    /// `proxy_ssl_server_name`: whether the name is sent (SNI). Default off.
    pub server_name: bool,
    /// `proxy_ssl_protocols`. Default TLSv1.2 TLSv1.3; at least one is set.
    pub protocols: TlsVersions,
    /// `proxy_ssl_ciphers`, in OpenSSL's language. Default `DEFAULT`.
    pub ciphers: Located<String>,
    /// `proxy_ssl_conf_command Ciphersuites`. Default: all three.
    pub ciphersuites: Option<Located<String>>,
    /// `proxy_ssl_session_reuse`. Default on.
    pub session_reuse: bool,
    /// `proxy_ssl_alpn`: offered to the backend. Default none, or `h2` where
    /// that is spoken.
    pub alpn: Vec<Box<[u8]>>,
}

/// `proxy_ssl_trusted_certificate`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TrustSource {
    /// `system`: the platform's roots.
    System,
    /// CA certificates of one's own.
    Pem(PemSource),
}

/// `proxy_set_header NAME VALUE`.
#[derive(Debug, Clone)]
pub struct SetHeader {
    /// As written.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Template,
    /// It is about the framing of the body.
    pub is_framing: bool,
}

impl SetHeader {
    /// A field of this name.
    #[must_use]
    pub fn new(name: Box<[u8]>, value: Template) -> Self {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        Self {
            is_framing: is(b"Content-Length") || is(b"Transfer-Encoding"),
            name,
            value,
        }
    }
}

/// `proxy_client_identity FORM [cert] [chain]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Which fields.
    pub form: IdentityForm,
    /// With the certificate, where the form leaves that open.
    pub cert: bool,
    /// With the intermediates.
    pub chain: bool,
}

/// Fields that tell a backend who the client proved to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityForm {
    /// Envoy's `X-Forwarded-Client-Cert`.
    Xfcc,
    /// `Client-Cert` and `Client-Cert-Chain`.
    Rfc9440,
    /// `X-SSL-Client-…`, as Nginx's users name what its variables hold.
    Nginx,
}

impl IdentityForm {
    /// Whether a field of this name belongs to the form, to a backend that
    /// takes `_` for `-`. Of `X-SSL-Client-…` all do: which of them a backend
    /// believes is unknown here.
    pub fn owns(self, name: &[u8]) -> bool {
        fn fold(byte: &u8) -> u8 {
            match byte {
                b'_' => b'-',
                other => other.to_ascii_lowercase(),
            }
        }
        let begins = |with: &str| name.iter().map(fold).take(with.len()).eq(with.bytes());
        let is = |whole: &str| name.len() == whole.len() && begins(whole);
        match self {
            Self::Xfcc => is("x-forwarded-client-cert"),
            Self::Rfc9440 => is("client-cert") || is("client-cert-chain"),
            Self::Nginx => begins("x-ssl-client-"),
        }
    }
}

/// `proxy_http_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the version numbers")]
pub enum ProxyHttpVersion {
    Http10,
    Http11,
    Http2,
}

/// By which directives a backend is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyFamily {
    /// `proxy_*`.
    Proxy,
    /// `grpc_*`: HTTP/2, with the request's body and the trailers as they come.
    Grpc,
}

impl ProxyFamily {
    /// What the names of its directives begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Proxy => "proxy_",
            Self::Grpc => "grpc_",
        }
    }

    /// The rest of the name of a directive that is one of this family's.
    pub fn own(self, name: &[u8]) -> Option<&[u8]> {
        name.strip_prefix(self.prefix().as_bytes())
    }

    /// The schemes of its URLs, without TLS and with.
    pub(crate) const fn schemes(self) -> [&'static [u8]; 2] {
        match self {
            Self::Proxy => [b"http://", b"https://"],
            Self::Grpc => [b"grpc://", b"grpcs://"],
        }
    }
}

/// An `upstream` block, or the addresses of a host named by `proxy_pass`.
#[derive(Debug)]
pub struct Upstream {
    /// The block's name, or host and port.
    pub name: Box<str>,
    /// In file order, one entry per address.
    pub peers: Vec<UpstreamPeer>,
    /// Further ones, which are found while serving.
    pub named: Option<Box<NamedServers>>,
    /// Round robin, `least_conn`, `ip_hash`, `hash` or `random`.
    pub method: BalanceMethod,
    /// `sticky`.
    pub sticky: Option<Box<Sticky>>,
    /// `queue`.
    pub queue: Option<UpstreamQueue>,
    /// `zone`: failures and connections are counted by all workers together.
    pub zone: bool,
    /// `keepalive`: idle connections kept per worker; 0 for none. Default 32.
    pub keepalive: usize,
    /// `keepalive_requests`. Default 1000.
    pub keepalive_requests: u64,
    /// `keepalive_timeout`. Default 60 s.
    pub keepalive_timeout: Duration,
    /// `keepalive_time`. Default 1 h.
    pub keepalive_time: Duration,
}

impl Upstream {
    /// Whether it has backends of its own, if only by name.
    pub fn has_servers(&self) -> bool {
        !self.peers.is_empty() || self.named.is_some()
    }

    /// One whose connections are closed after each request.
    pub fn unpooled(name: &str, peers: Vec<UpstreamPeer>) -> Self {
        Self {
            name: name.into(),
            peers,
            named: None,
            method: BalanceMethod::RoundRobin,
            sticky: None,
            queue: None,
            zone: false,
            keepalive: 0,
            keepalive_requests: 1,
            keepalive_timeout: Duration::ZERO,
            keepalive_time: Duration::ZERO,
        }
    }
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPeer {
    /// The address.
    pub address: UpstreamAddress,
    /// The `server` as it was written: what `hash … consistent` goes by.
    pub server: Box<str>,
    /// `weight=`. Default 1.
    pub weight: u32,
    /// `max_fails=`; 0 never marks it failed. Default 1.
    pub max_fails: u32,
    /// `fail_timeout=`. Default 10 s.
    pub fail_timeout: Duration,
    /// `backup`.
    pub backup: bool,
    /// `down`.
    pub down: bool,
    /// `drain`: only requests that `sticky` leads here.
    pub drain: bool,
    /// `max_conns=`: requests at a time; 0 is no limit. Default 0.
    pub max_conns: u32,
    /// `slow_start=`: the time to regain its weight after a failure. Default 0.
    pub slow_start: Duration,
    /// `route=`: the name by which `sticky` knows it; otherwise its address's
    /// MD5 in hexadecimal digits, as in Nginx.
    pub route: Option<Box<str>>,
}

impl UpstreamPeer {
    /// A peer with every parameter at its default.
    pub fn new(address: UpstreamAddress, server: &str) -> Self {
        Self {
            address,
            server: server.into(),
            weight: 1,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
            drain: false,
            max_conns: 0,
            slow_start: Duration::ZERO,
            route: None,
        }
    }
}

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// TCP.
    Inet(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The `ssl_*` directives of a server. Files are named, not read: that is
/// `tls::certs`' part, which reports problems at these positions.
#[derive(Debug, Clone)]
pub struct Tls {
    /// `ssl_certificate` and `ssl_certificate_key`, paired in order. Those that
    /// no key is left for must be PKCS#12 stores.
    pub certificates: Vec<CertificateAndKey>,
    /// In their place, where any of them has variables: the same, to be read when
    /// a handshake has named them.
    pub named: Vec<NamedCertificate>,
    /// `ssl_password_file`.
    pub password_file: Option<Located<PathBuf>>,
    /// `ssl_client_certificate`.
    pub client_certificate: Option<Located<PemSource>>,
    /// `ssl_trusted_certificate`.
    pub trusted_certificate: Option<Located<PemSource>>,
    /// `ssl_verify_client`. Default off.
    pub verify_client: Located<VerifyClient>,
    /// `ssl_crl`.
    pub crl: Option<Located<PathBuf>>,
    /// `ssl_crl_expired`. Default deny.
    pub crl_expired: CrlExpired,
    /// `ssl_verify_failure`. Default alert.
    pub verify_failure: VerifyFailure,
    /// `ssl_verify_depth`. Default 1.
    pub verify_depth: u32,
    /// `ssl_protocols`. Default TLSv1.2 TLSv1.3; at least one is set.
    pub protocols: TlsVersions,
    /// `ssl_ciphers`, in OpenSSL's language. Default `HIGH:!aNULL:!MD5`.
    pub ciphers: Located<String>,
    /// `ssl_conf_command Ciphersuites`. Default: all three.
    pub ciphersuites: Option<Located<String>>,
    /// `ssl_ecdh_curve`. Default: all that there are.
    pub ecdh_curve: Option<Located<String>>,
    /// `ssl_prefer_server_ciphers`. Default off.
    pub prefer_server_ciphers: bool,
    /// `ssl_session_tickets`. Default on.
    pub session_tickets: bool,
    /// `ssl_session_cache`.
    pub session_cache: SessionCache,
    /// `ssl_session_timeout`. Default 5 min.
    pub session_timeout: Duration,
    /// `ssl_session_ticket_key`: the first seals, all open. None: random keys.
    pub session_ticket_keys: Vec<Located<PathBuf>>,
    /// `ssl_stapling` and its family; `None` for off, the default.
    pub stapling: Option<Stapling>,
    /// `ssl_reject_handshake`. Default off; on, there may be no certificate.
    pub reject_handshake: bool,
}

/// `ssl_stapling on`: clients are told what the certificate's CA says of it.
#[derive(Debug, Clone)]
pub struct Stapling {
    /// `ssl_stapling_file`: the response itself; nobody is asked then.
    pub file: Option<Located<PathBuf>>,
    /// `ssl_stapling_responder`, in place of the one that the certificate names.
    pub responder: Option<Located<String>>,
    /// `ssl_stapling_verify`. Default off.
    pub verify: bool,
}

/// Two sources, of which the second may be in the first.
pub type CertificateAndKey = (Located<PemSource>, Option<Located<PemSource>>);

/// `ssl_verify_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifyClient {
    /// No certificate is asked for.
    Off,
    /// A valid certificate is demanded.
    On,
    /// A certificate is asked for; what is presented must be valid.
    Optional,
    /// A certificate is asked for; its CA may be unknown.
    OptionalNoCa,
}

/// `ssl_crl_expired`: what a CRL is worth once a newer one was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrlExpired {
    /// It still tells who is revoked.
    Allow,
    /// Nobody whom it would vouch for is let in.
    Deny,
}

/// `ssl_verify_failure`: how a client without a valid certificate is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifyFailure {
    /// By an alert; there is no connection.
    Alert,
    /// As Nginx does, by a 400 to its request.
    Http,
}

/// `ssl_protocols`, the versions that exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the fields are the protocol versions")]
pub struct TlsVersions {
    pub tls12: bool,
    pub tls13: bool,
}

/// `ssl_session_cache`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SessionCache {
    /// `off`, `none` and the default: no sessions are stored.
    None,
    /// `shared:NAME:SIZE`, size in bytes (a megabyte holds about 4,000).
    Shared(Box<str>, usize),
}
