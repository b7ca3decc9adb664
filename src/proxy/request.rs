//! A request on its way through the phases, and the connection it came by.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::config::{
    ConnectionLimits, ErrorPage, Groups, Listener, Location, Pattern, Proxy, Server, ServerId,
    Upstream, UpstreamId, UpstreamPeer, VariableId,
};
use crate::http::head::{FieldId, Method, RequestHead};
use crate::http::headers::is_ordinary_name;
use crate::http::trailers::Trailers;
use crate::net::addr::ClientAddr;
use crate::net::buffers::Buffer;
use crate::net::now::now;
use crate::net::proxy_protocol;
use crate::net::socket::Gauge;
use crate::tls::client_auth::{UnverifiedClient, VerifiedClient};
use crate::tls::client_hello::Offer;
use crate::tls::upstream::UpstreamTls;

use super::balance::Learner;
use super::destination::Destination;
use super::exchange::{BodySource, OwnFields, ResponseSink};
use super::limits::Limited;
use super::pool::LinkFacts;
use super::recover::InternalRedirect;
use super::transport::Traffic;
use super::worker::{View, Worker};

/// A client connection, as its requests see it. Streams have a copy each.
#[derive(Debug, Clone)]
pub(crate) struct ClientConnection {
    /// Process-wide, from 1.
    pub(crate) serial: u64,
    pub(crate) client: ClientAddr,
    /// What came in front of everything else, where the listener wants it.
    pub(crate) proxy_header: Option<Rc<proxy_protocol::Header>>,
    /// What the client connected to; asked for only when needed, because it
    /// costs a system call.
    pub(crate) local: OnceCell<Option<SocketAddr>>,
    /// For what the kernel knows.
    pub(crate) gauge: Gauge,
    /// Not in place: the task of every connection has room for it, and several
    /// times; and the streams of a connection share it.
    pub(crate) tls: Option<Rc<TlsFacts>>,
    /// Requests served before the present one.
    pub(crate) requests: u64,
    pub(crate) opened: Instant,
}

/// What the handshake established.
#[derive(Debug, Clone)]
pub(crate) struct TlsFacts {
    /// The name in SNI.
    pub(crate) server_name: Option<Box<str>>,
    /// The same as the client sent it, where that differs.
    pub(crate) server_name_as_sent: Option<Box<str>>,
    /// The server block whose certificate and policy were used.
    pub(crate) server: ServerId,
    /// That block's client-authentication policy.
    pub(crate) policy: [u8; 32],
    /// That policy with its CRLs.
    pub(crate) demands: [u8; 32],
    /// The proof of the client's identity, if it gave one.
    pub(crate) client: Option<Rc<VerifiedClient>>,
    /// A client that did not meet the policy and is here all the same; then
    /// there is no `client`.
    pub(crate) unverified: Option<Rc<UnverifiedClient>>,
    pub(crate) protocol: &'static str,
    /// OpenSSL's name.
    pub(crate) cipher: &'static str,
    pub(crate) resumed: bool,
    pub(crate) alpn: Option<Vec<u8>>,
    /// The key exchange's group by OpenSSL's name.
    pub(crate) curve: &'static str,
    /// What the client offered, where a template asks for it.
    pub(crate) offer: Option<Box<Offer>>,
    /// In hexadecimal, where a template asks for it.
    pub(crate) session_id: Box<str>,
    /// The URIs of the certificate that the client was shown.
    pub(crate) own_uris: Arc<[Box<str>]>,
}

/// The configuration leads a request from place to place without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RedirectionCycle;

/// A parsed request, its place in the configuration, and what is known about
/// its answer so far.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) view: &'a View,
    pub(crate) connection: &'a ClientConnection,
    pub(crate) listener: &'a Listener,
    pub(crate) server: &'a Server,
    pub(crate) location: &'a Location,
    pub(crate) head: &'a RequestHead,
    /// Holds the head, from `base` on.
    pub(crate) buffer: Buffer,
    pub(crate) base: usize,
    /// Path and arguments where they are no longer what was sent.
    pub(crate) target: Target,
    /// What the last regular expression found; that of a `map` is searched for when
    /// its variable is asked for.
    pub(crate) captured: RefCell<Captured<'a>>,
    /// Of the configuration's own variables, by number; empty until one has a
    /// value.
    pub(crate) values: RefCell<Vec<Option<Box<[u8]>>>>,
    /// How deep in variables made of variables the evaluation is.
    pub(crate) depth: Cell<u8>,
    pub(crate) received: Instant,
    /// Head and body, bytes.
    pub(crate) length: u64,
    /// All of the body, where a template asks for it and it has been read into
    /// memory.
    pub(crate) body: Option<Box<[u8]>>,
    /// What came behind it, likewise.
    pub(crate) trailers: Trailers,
    /// Where variables in `proxy_pass` have led. Boxed: rare.
    pub(crate) destination: Option<Box<Destination>>,
    /// What backends are shown, where variables have named it.
    pub(crate) upstream_certificate: Option<Arc<UpstreamTls>>,
    pub(crate) attempts: SmallVec<[Attempt; 2]>,
    pub(crate) answer: Answer,
    pub(crate) limited: Limited,
    /// Whom a trusted proxy names as the client.
    pub(crate) named_client: Option<ClientAddr>,
    /// Random, made when first asked for.
    pub(crate) id: OnceCell<[u8; 32]>,
}

/// Path and arguments as the configuration has changed them.
#[derive(Debug)]
pub(crate) struct Target {
    /// Decoded and without dot segments, or rewritten; `None` as it was sent.
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) args: Option<Vec<u8>>,
    /// What was sent still says where the request goes, so that a backend may
    /// get it as it came.
    pub(crate) is_as_sent: bool,
    /// The location's prefix is still the beginning of the path.
    pub(crate) has_prefix: bool,
    /// Rewritten or redirected, so that `internal` locations are open to it.
    pub(crate) is_internal: bool,
    /// Changes that are still granted (`NGX_HTTP_MAX_URI_CHANGES`).
    pub(crate) changes_left: u8,
    /// GET instead of the client's method: what it asked for has failed, and
    /// the error page is fetched.
    pub(crate) is_get: bool,
    /// The status of the error whose page is being fetched.
    pub(crate) error_status: Option<u16>,
    /// It is asked on another request's behalf, and has passed its checks of
    /// access.
    pub(crate) is_subrequest: bool,
    /// An error page is being fetched, and is not to have one itself.
    pub(crate) is_error_page: bool,
    /// The client or its connection does not meet the policy for certificates:
    /// an error page may tell it so, but no backend gets anything of it.
    pub(crate) is_barred: bool,
    /// `X-Accel-Redirect`: where a backend wants the answer to come from.
    pub(crate) accel: Option<InternalRedirect>,
    /// Bytes per second, by `set $limit_rate` or `X-Accel-Limit-Rate`; it goes
    /// before what locations say. 0 for no limit.
    pub(crate) limit_rate: Option<u64>,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            path: None,
            args: None,
            is_as_sent: true,
            has_prefix: true,
            is_internal: false,
            changes_left: 10,
            is_get: false,
            error_status: None,
            is_subrequest: false,
            is_error_page: false,
            is_barred: false,
            accel: None,
            limit_rate: None,
        }
    }
}

/// What the numbered variables stand for.
#[derive(Debug, Default)]
pub(crate) enum Captured<'a> {
    /// The groups of the expression by which the server was found.
    #[default]
    Host,
    /// The groups of the location's expression in the path, found when asked for.
    Path(&'a Pattern),
    /// The groups of another, in what was searched then.
    Kept(Box<[u8]>, Groups),
}

/// Whom a request was to be sent to.
#[derive(Debug, Clone)]
pub(crate) enum Addressee {
    /// This peer.
    Peer(Rc<UpstreamPeer>),
    /// No peer of this upstream could take it.
    Nobody(Arc<Upstream>),
}

/// One try at an upstream, for the log.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) upstream: UpstreamId,
    pub(crate) addressee: Addressee,
    pub(crate) started: Instant,
    /// How long it waited in the upstream's queue, if it did.
    pub(crate) queued: Option<Duration>,
    pub(crate) connected: Option<Duration>,
    pub(crate) head_received: Option<Duration>,
    pub(crate) finished: Option<Duration>,
    pub(crate) status: Option<u16>,
    /// Of the response, behind its head.
    pub(crate) received: u64,
    /// All that was said, heads as well.
    pub(crate) traffic: Traffic,
    /// Over TLS, what was agreed on.
    pub(crate) tls: Option<LinkFacts>,
    /// Whether an internal redirect has led to another `proxy_pass` since.
    pub(crate) is_left: bool,
}

impl Attempt {
    /// One that begins now.
    pub(crate) fn at(upstream: UpstreamId, addressee: Addressee) -> Self {
        Self {
            upstream,
            addressee,
            started: now(),
            queued: None,
            connected: None,
            head_received: None,
            finished: None,
            status: None,
            received: 0,
            traffic: Traffic::default(),
            tls: None,
            is_left: false,
        }
    }

    /// A connection has been made, with this agreed on over TLS, or it has not,
    /// which ends the try.
    pub(crate) fn note_connected(&mut self, link: Option<Option<LinkFacts>>, now: Instant) {
        let time = Some(now.duration_since(self.started));
        match link {
            Some(facts) => (self.connected, self.tls) = (time, facts),
            None => self.finished = time,
        }
    }
}

/// Names and values of fields.
pub(crate) type RecordedFields = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What was answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Behind the head, chunk framing included.
    pub(crate) body_bytes: u64,
    pub(crate) own_fields: OwnFields,
    /// Head and body, without what TLS adds.
    pub(crate) bytes: u64,
    pub(crate) complete: bool,
    /// Values of `WWW-Authenticate`.
    pub(crate) challenges: Vec<Vec<u8>>,
    /// Fields of a backend that left the answer to another location.
    pub(crate) carried: RecordedFields,
    /// Fields sent and received, where a template asks for them.
    pub(crate) sent_fields: RecordedFields,
    pub(crate) upstream_fields: RecordedFields,
    pub(crate) sent_trailers: RecordedFields,
    pub(crate) upstream_trailers: RecordedFields,
    /// The value of the cookie that binds the client to its backend.
    pub(crate) sticky_cookie: Option<Vec<u8>>,
    /// Who is to be told of the answer, where `sticky learn` is said.
    pub(crate) learner: Option<Box<Learner>>,
}

impl Answer {
    /// Keeps for the log what the sink knows when all has been handed over.
    pub(crate) fn note_sent(&mut self, sink: &impl ResponseSink) {
        self.body_bytes = sink.body_bytes();
        self.own_fields = sink.own_fields();
    }
}

impl<'a> Request<'a> {
    /// One that has just arrived: `head` lies in `buffer` from `base` on, and
    /// `length` is its bytes.
    pub(crate) fn arrived(
        (worker, view, connection): (&'a Worker, &'a View, &'a ClientConnection),
        (listener, server): (&'a Listener, &'a Server),
        (head, buffer, base): (&'a RequestHead, Buffer, usize),
        (received, length): (Instant, u64),
    ) -> Self {
        Self {
            worker,
            view,
            connection,
            listener,
            server,
            location: &server.root,
            head,
            buffer,
            base,
            target: Target::default(),
            captured: RefCell::default(),
            values: RefCell::default(),
            depth: Cell::default(),
            received,
            length,
            body: None,
            trailers: Trailers::default(),
            destination: None,
            upstream_certificate: None,
            attempts: SmallVec::default(),
            answer: Answer::default(),
            limited: Limited::default(),
            named_client: None,
            id: OnceCell::new(),
        }
    }

    /// Keeps what is behind the body, where a template asks for it.
    pub(crate) fn note_trailers(&mut self, body: &impl BodySource) {
        if self.view.gateway.records_request_trailers() {
            self.trailers = body.trailers();
        }
    }

    /// The bytes that the head's spans point into.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        self.buffer.get(self.base..).unwrap_or_default()
    }

    /// Whom it is from: `$remote_addr`.
    pub(crate) fn client(&self) -> ClientAddr {
        self.named_client.unwrap_or(self.connection.client)
    }

    /// `$proxy_host`.
    pub(crate) fn proxy_host<'s>(&'s self, proxy: &'s Proxy) -> &'s str {
        let destination = self.destination.as_ref();
        destination.map_or(&proxy.host, |destination| &destination.host)
    }

    /// Whether the backend is spoken to by TLS.
    pub(crate) fn is_proxied_securely(&self, proxy: &Proxy) -> bool {
        let destination = self.destination.as_ref();
        proxy.tls.is_some() && destination.is_none_or(|destination| destination.secure)
    }

    pub(crate) fn method(&self) -> Method {
        if self.target.is_get {
            return Method::Get;
        }
        self.head.method_id
    }

    /// `$request_method`.
    pub(crate) fn method_name(&self) -> &[u8] {
        if self.target.is_get {
            return b"GET";
        }
        self.head.method.of(self.head_bytes())
    }

    /// `$uri`.
    pub(crate) fn path(&self) -> &[u8] {
        match &self.target.path {
            Some(path) => path,
            None => self.head.path.of(self.head_bytes()),
        }
    }

    /// `$args`.
    pub(crate) fn query(&self) -> &[u8] {
        match (&self.target.args, self.head.query) {
            (Some(args), _) => args,
            (None, Some(query)) => query.of(self.head_bytes()),
            (None, None) => &[],
        }
    }

    /// Puts another path in place of the present one, as if the client had asked
    /// for it inside this server.
    pub(crate) fn set_path(&mut self, path: Vec<u8>) {
        self.replace_path(path);
        self.target.is_as_sent = false;
        self.target.is_internal = true;
    }

    /// Puts another path in place of the present one; where the request goes
    /// stays as it was.
    pub(crate) fn replace_path(&mut self, path: Vec<u8>) {
        if let Captured::Path(pattern) = *self.captured.get_mut() {
            // They are places in the path that goes.
            let subject: Box<[u8]> = self.path().into();
            let groups = pattern.groups(&subject).ok().flatten();
            self.keep_groups(subject, groups.unwrap_or_default());
        }
        self.target.path = Some(path);
    }

    /// Takes one of the changes of path that a request may go through.
    ///
    /// # Errors
    /// There have been too many: the configuration runs in a circle.
    pub(crate) fn count_change(&mut self) -> Result<(), RedirectionCycle> {
        let left = self.target.changes_left.checked_sub(1);
        self.target.changes_left = left.ok_or(RedirectionCycle)?;
        Ok(())
    }

    /// Gives a variable its value.
    pub(crate) fn assign(&self, id: VariableId, value: &[u8]) {
        let mut values = self.values.borrow_mut();
        if values.len() <= id {
            values.resize(id + 1, None);
        }
        if let Some(slot) = values.get_mut(id) {
            *slot = Some(value.into());
        }
    }

    /// Gives the variables of a pattern's named groups what they have found.
    pub(crate) fn assign_groups(&self, pattern: &Pattern, subject: &[u8], groups: &Groups) {
        for &(group, id) in pattern.named() {
            self.assign(id, groups.of(subject, group).unwrap_or_default());
        }
    }

    /// From here on the numbered variables are these groups.
    pub(crate) fn keep_groups(&self, subject: Box<[u8]>, groups: Groups) {
        self.captured.replace(Captured::Kept(subject, groups));
    }

    /// The page for a status that the present location has, unless that of
    /// another error is being fetched.
    pub(crate) fn error_page(&self, status: u16) -> Option<&'a ErrorPage> {
        let page = self.configured_page(status);
        page.filter(|_| !self.target.is_error_page && self.target.changes_left > 0)
    }

    /// What the location has for this status, whether or not it may be fetched.
    pub(crate) fn configured_page(&self, status: u16) -> Option<&'a ErrorPage> {
        let mut pages = self.location.error_pages.iter();
        pages.find(|page| page.code == status)
    }

    /// The status that goes out for one that a handler answers with: while an
    /// error page is fetched, the error's.
    pub(crate) fn final_status(&self, status: u16) -> u16 {
        self.target.error_status.unwrap_or(status)
    }

    /// Host and port as the client named them.
    pub(crate) fn authority(&self) -> &[u8] {
        self.head.host(self.head_bytes()).unwrap_or_default()
    }

    /// The server's limits on heads.
    pub(crate) fn limits(&self) -> &'a ConnectionLimits {
        &self.server.connection
    }

    /// `https` or `http`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.connection.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Whether the connection may carry another request after this one, as
    /// far as the configuration and the worker's state decide.
    pub(crate) fn may_be_followed(&self) -> bool {
        !self.location.keepalive_timeout.is_zero()
            && self.connection.requests + 1 < self.location.keepalive_requests
            && !self.worker.is_draining()
            && now().duration_since(self.connection.opened) < self.location.delivery.keepalive_time
    }
}

/// Whether a client's field of this name, a token, is taken note of; the others
/// are as if they had not been sent (`ignore_invalid_headers`,
/// `underscores_in_headers`).
pub(crate) fn takes_field(limits: &ConnectionLimits, id: FieldId, name: &[u8]) -> bool {
    id.is_one_name()
        || !limits.ignore_invalid_headers
        || is_ordinary_name(name, limits.underscores_in_headers)
}
