//! A request's way to a backend: which one, over which connection, and what
//! happens when it does not work out.

use std::fmt;
use std::future::{pending, poll_fn};
use std::hint::cold_path;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::config::{Conditions, Proxy, ProxyHttpVersion, UpstreamAddress, UpstreamPeer};
use crate::net::deadlines::Deadline;
use crate::net::now::now;
use crate::telemetry::error_log::Level;

use super::ahead::Ahead;
use super::balance::queue::{NotServed, Queue};
use super::balance::{AfterFailure, Group, Lease, Selection};
use super::destination::{self, Place};
use super::exchange::{BodySize, BodySource, ResponseSink};
use super::input::Input;
use super::link;
use super::log;
use super::pool::{Connection, Key};
use super::request::{Addressee, Attempt, Request};
use super::transport::{Transport, TransportError};
use super::upstream::secure::Secure;
use super::upstream::{Broken, Reuse, body_failed, exchange, expect_body, record, sent_method};
use super::worker::UpstreamState;

/// How forwarding ended, if it did not end well. The log has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was sent to the client: it can be told this status.
    Status(u16),
    /// Nothing was sent to the client: another location is to answer, which the
    /// request's target names.
    Elsewhere,
    /// The response is cut off, or the client is gone: only closing is left.
    Aborted,
}

impl Failure {
    /// The status, if there is one and the client can still be told.
    fn unless_committed(sink: &impl ResponseSink, status: Option<u16>) -> Self {
        match status {
            Some(status) if !sink.is_committed() => Self::Status(status),
            _ => Self::Aborted,
        }
    }
}

/// How one peer is spoken to, and what is kept of a request meanwhile. A type
/// and not a value, so that the way of most has no room for what others need.
pub(crate) trait Way: Default {
    /// Asks one peer. Cancelling it cuts both exchanges off.
    fn try_peer<B: BodySource, S: ResponseSink>(
        request: &mut Request<'_>,
        proxy: &Proxy,
        target: &Target<'_>,
        way: &mut Self,
        body: &mut B,
        sink: &mut S,
    ) -> impl Future<Output = Result<(), Trouble>>;

    /// Whether nothing is lost that another peer would need.
    fn may_repeat(&self) -> bool;
}

/// HTTP/1.x: a connection for each request.
#[derive(Debug, Default)]
pub(crate) struct Separate;

impl Way for Separate {
    fn try_peer<B: BodySource, S: ResponseSink>(
        request: &mut Request<'_>,
        proxy: &Proxy,
        target: &Target<'_>,
        _: &mut Self,
        body: &mut B,
        sink: &mut S,
    ) -> impl Future<Output = Result<(), Trouble>> {
        try_peer(request, proxy, target, body, sink)
    }

    fn may_repeat(&self) -> bool {
        true
    }
}

/// Sends the request to one of the upstream's peers and its answer to the
/// client; tries another peer where that cannot do harm.
///
/// A request is sent a second time only if its method is idempotent
/// (RFC 9110 §9.2.2), or `proxy_next_upstream` says `non_idempotent`, or
/// nothing of it has left; and only while none of its body and none of its
/// answer has been used up.
///
/// # Errors
/// See [`Failure`]. Cancelling it cuts both exchanges off.
pub(crate) async fn forward<W: Way, B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Failure> {
    // What an earlier `proxy_pass` of this request led to is no more.
    request.destination = None;
    request.answer.upstream_fields.clear();
    request.answer.sticky_cookie = None;
    request.answer.learner = None;
    record(request, |attempt| attempt.is_left = true);
    let place = match (&proxy.url, proxy.upstream) {
        // Boxed: rare, and every other request would have room for it.
        (Some(url), _) => Box::pin(destination::find(request, proxy.family, url)).await?,
        (None, Some(id)) => match request.view.upstream(id) {
            Some(upstream) => Place::Known(upstream),
            None => return Err(Failure::Status(502)),
        },
        (None, None) => return Err(Failure::Status(502)),
    };
    let upstream = &*place;
    if is_read_ahead(request, proxy, body) {
        read_ahead(request, proxy, body, sink).await?;
    }
    if sent_size(proxy, body) == BodySize::Unknown && proxy.http_version == ProxyHttpVersion::Http10
    {
        let why = "a request body of unknown length cannot be sent by HTTP/1.0";
        return Err(cannot_begin(request, 411, why));
    }
    let secure = Secure::of(request, proxy).await.map_err(|error| {
        let why = format_args!("{error} while connecting to upstream");
        cannot_begin(request, error.status(), why)
    })?;
    let next = &proxy.next_upstream;
    let mut way = W::default();
    let local = link::local_address(request, proxy);
    let present = upstream.present();
    let group = &present.group;
    let mut selection = group.select(request, next.tries);
    let mut queued = None;
    let began = now();
    let in_time = || next.timeout.is_zero() || now().duration_since(began) < next.timeout;
    loop {
        let may_choose = group.queue().is_none_or(Queue::is_empty) || selection.has_begun();
        let chosen = may_choose.then(|| group.choose(&mut selection, request, now()));
        let lease = match (chosen.flatten(), group.queue()) {
            (Some(lease), _) => lease,
            (None, Some(queue)) if !selection.has_begun() => {
                cold_path();
                let since = now();
                let waiting = wait_in_queue(queue, group, request, proxy, &mut selection, body);
                // Boxed: rare, and every other request would have room for it.
                let lease = Box::pin(waiting).await?;
                queued = Some(now().duration_since(since));
                lease
            }
            (None, _) => return Err(no_live_upstream(request, upstream)),
        };
        if group.is_sticky() {
            request.answer.sticky_cookie = lease.set_cookie(request);
            request.answer.learner = lease.learner(&selection);
        }
        let peer = lease.peer();
        let repeatable = is_repeatable(request, proxy, body);
        let measured = present.cells.begin(lease.index());
        // While there is somebody else to ask, the answers that are listed
        // are not taken.
        let unwelcome = if repeatable && selection.may_go_on() && in_time() {
            next.conditions
        } else {
            Conditions::NONE
        };
        let target = Target {
            upstream,
            peer,
            lease: Some(&lease),
            queued: queued.take(),
            secure: secure.as_ref(),
            local,
            repeatable,
            unwelcome,
            reach: Reach::Any,
        };
        let tried = W::try_peer(request, proxy, &target, &mut way, body, sink).await;
        let blamed = tried.as_ref().err().and_then(|trouble| trouble.reason);
        if let Some(learner) = request.answer.learner.take()
            && blamed.is_none()
        {
            learner.learn(request);
        }
        let Err(trouble) = tried else { return Ok(()) };
        cold_path();
        let Some(reason) = blamed else {
            return Err(trouble.failure);
        };
        if !reason.spares_the_peer() {
            measured.failed();
        }
        if !reason.spares_the_peer() && lease.failed(now()) == AfterFailure::Disabled {
            log::upstream_error(
                request,
                Level::Warn,
                Some(peer),
                format_args!("upstream server temporarily disabled"),
            );
        }
        let may_repeat = way.may_repeat() && (repeatable || !trouble.sent);
        if !(may_repeat && next.conditions.contains(reason) && selection.may_go_on() && in_time()) {
            return Err(trouble.failure);
        }
    }
}

/// Tells the log why no backend is asked; the client is told the status.
#[cold]
fn cannot_begin(request: &Request<'_>, status: u16, why: impl fmt::Display) -> Failure {
    log::request_error(request, Level::Error, format_args!("{why}"));
    Failure::Status(status)
}

/// Whether the request may be sent again when a peer may have seen it: by its
/// method, and while its body can be read once more, if it has one.
fn is_repeatable<B: BodySource>(request: &Request<'_>, proxy: &Proxy, body: &B) -> bool {
    is_repeatable_by_method(request, proxy)
        && (sent_size(proxy, body) == BodySize::None || body.is_repeatable())
}

fn is_repeatable_by_method(request: &Request<'_>, proxy: &Proxy) -> bool {
    let conditions = proxy.next_upstream.conditions;
    sent_method(request, proxy).is_idempotent() || conditions.contains(Conditions::NON_IDEMPOTENT)
}

/// `queue`: waits for a peer, unless the client goes.
async fn wait_in_queue<B: BodySource>(
    queue: &Queue,
    group: &Rc<Group>,
    request: &mut Request<'_>,
    proxy: &Proxy,
    selection: &mut Selection,
    body: &mut B,
) -> Result<Lease, Failure> {
    let asked: &Request<'_> = request;
    let mut waiting = pin!(queue.wait(|| {
        *selection = group.select(asked, proxy.next_upstream.tries);
        group.choose(selection, asked, now())
    }));
    let mut gone = pin!(async {
        if proxy.filters.ignore_client_abort {
            pending::<()>().await;
        }
        body.abandoned().await;
    });
    let waited = poll_fn(|context| match waiting.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => gone.as_mut().poll(context).map(|()| None),
    })
    .await;
    let (level, message) = match waited {
        Some(Ok(lease)) => return Ok(lease),
        Some(Err(NotServed::Full)) => (Level::Error, "upstream queue is full"),
        Some(Err(NotServed::TimedOut)) => (Level::Error, "upstream queue timed out"),
        None => (Level::Info, "client prematurely closed connection"),
    };
    let message = format_args!("{message} while connecting to upstream");
    log::request_error(request, level, message);
    Err(waited.map_or(Failure::Aborted, |_| Failure::Status(502)))
}

#[cold]
fn no_live_upstream(request: &mut Request<'_>, upstream: &UpstreamState) -> Failure {
    log::request_error(
        request,
        Level::Error,
        format_args!("no live upstreams while connecting to upstream"),
    );
    request.attempts.push(Attempt {
        status: Some(502),
        finished: Some(Duration::ZERO),
        ..Attempt::at(upstream.id, Addressee::Nobody(Arc::clone(&upstream.config)))
    });
    Failure::Status(502)
}

/// Whether the body is read before a backend is chosen. As in Nginx one that no
/// backend gets is so whatever is said, if somebody looks at it.
fn is_read_ahead(request: &Request<'_>, proxy: &Proxy, body: &impl BodySource) -> bool {
    match sent_size(proxy, body) {
        BodySize::None => {
            request.view.gateway.records_request_body() && body.size() != BodySize::None
        }
        _ => proxy.filters.request_buffering,
    }
}

/// `proxy_request_buffering`: no backend waits for what fits the buffer. Nginx
/// has a file for the rest; here it is streamed, because a file would block.
async fn read_ahead<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Failure> {
    let expected = expect_body(body, sink).await;
    expected.map_err(|_| Failure::Aborted)?;
    let limit = request.location.delivery.client_body_buffer_size;
    // Nginx takes somewhat more in one piece where it knows how much there is.
    let limit = match body.size() {
        BodySize::Known(length) if length < limit.saturating_add(limit / 4) as u64 => {
            length as usize
        }
        _ => limit,
    };
    let records = request.view.gateway.records_request_body();
    let keep = records || is_repeatable_by_method(request, proxy);
    body.read_ahead(limit, keep).await.map_err(|error| {
        body_failed(request, &error);
        Failure::unless_committed(sink, error.status())
    })?;
    request.note_trailers(body);
    if records && request.body.is_none() {
        request.body = body.ahead().and_then(Ahead::whole).map(Box::from);
    }
    Ok(())
}

/// Over which connections a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// One that is kept, or a new one.
    Any,
    /// One that is kept and no other: the address is old, and what it stands
    /// for may have moved.
    Kept,
}

/// Sends the request to one address of an upstream that has none of its own.
///
/// # Errors
/// See [`Failure`]; and whether another address may be tried, as where no
/// connection was kept. Cancelling it cuts both exchanges off.
pub(crate) async fn forward_to<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    upstream: &UpstreamState,
    (address, reach): (UpstreamAddress, Reach),
    secure: Option<&Secure<'_>>,
    body: &mut B,
    sink: &mut S,
) -> Result<(), (Failure, bool)> {
    let peer = Rc::new(UpstreamPeer::new(address, &upstream.config.name));
    let target = Target {
        upstream,
        peer: &peer,
        lease: None,
        queued: None,
        secure,
        local: link::local_address(request, proxy),
        repeatable: is_repeatable(request, proxy, body),
        unwelcome: Conditions::NONE,
        reach,
    };
    let tried = try_peer(request, proxy, &target, body, sink).await;
    tried.map_err(|trouble| (trouble.failure, trouble.reason.is_some() && !trouble.sent))
}

/// How much of the client's body the backend gets; one of our own can be sent
/// as often as it takes.
fn sent_size(proxy: &Proxy, body: &impl BodySource) -> BodySize {
    if proxy.filters.pass_request_body && proxy.filters.body.is_none() {
        body.size()
    } else {
        BodySize::None
    }
}

/// What went wrong with one peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trouble {
    failure: Failure,
    /// What the peer did; `None` where it is not to blame, or where it is too
    /// late to ask another.
    reason: Option<Conditions>,
    /// Whether the peer may have seen something of the request.
    sent: bool,
}

impl Trouble {
    /// Before there was an answer; `status` is what the client is told.
    #[cold]
    pub(super) fn of_peer(
        request: &mut Request<'_>,
        status: u16,
        reason: Conditions,
        sent: bool,
    ) -> Self {
        record(request, |attempt| attempt.status = Some(status));
        Self {
            failure: Failure::Status(status),
            reason: Some(reason),
            sent,
        }
    }

    /// What became of an exchange; tells the log what it has not been told.
    #[cold]
    pub(super) fn of(
        broken: Broken,
        request: &mut Request<'_>,
        peer: &UpstreamPeer,
        sink: &impl ResponseSink,
    ) -> Self {
        let is_unprocessed = broken.is_unprocessed();
        match broken {
            Broken::Untouched(cause) => {
                let status = cause.report(request, peer);
                Self::of_peer(request, status, reason_of(status), !is_unprocessed)
            }
            Broken::Unanswered(status, reason) => Self::of_peer(request, status, reason, true),
            Broken::Unwelcome(status) => {
                Self::of_peer(request, status, Conditions::of_status(status), true)
            }
            Broken::Upstream => Self::at_last(Failure::unless_committed(sink, Some(502))),
            Broken::Client(status) => Self::at_last(Failure::unless_committed(sink, status)),
            Broken::Elsewhere(failure) => Self::at_last(failure),
            Broken::Tunnel => Self::at_last(Failure::Aborted),
        }
    }

    fn at_last(failure: Failure) -> Self {
        Self {
            failure,
            reason: None,
            sent: true,
        }
    }
}

/// The reason that a status of our own stands for.
pub(super) fn reason_of(status: u16) -> Conditions {
    if status == 504 {
        Conditions::TIMEOUT
    } else {
        Conditions::ERROR
    }
}

/// One peer of an upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'t> {
    pub(super) upstream: &'t UpstreamState,
    pub(super) peer: &'t Rc<UpstreamPeer>,
    /// Its place among the peer's requests, if these are counted.
    pub(super) lease: Option<&'t Lease>,
    /// How long the request has waited for that.
    pub(super) queued: Option<Duration>,
    /// `None` without TLS.
    pub(super) secure: Option<&'t Secure<'t>>,
    /// Where to connect from, if that is said.
    pub(super) local: Option<SocketAddr>,
    /// Whether the request may be sent again when the peer may have seen it.
    pub(super) repeatable: bool,
    /// An answer with one of these statuses does not reach the client.
    pub(super) unwelcome: Conditions,
    pub(super) reach: Reach,
}

impl Target<'_> {
    /// A try that begins now.
    pub(super) fn attempt(&self) -> Attempt {
        let addressee = Addressee::Peer(Rc::clone(self.peer));
        Attempt {
            queued: self.queued,
            ..Attempt::at(self.upstream.id, addressee)
        }
    }
}

/// One peer: over a pooled connection if there is one, and over a fresh one
/// if that turns out to have been closed meanwhile. The others that are kept may
/// be no better, and the backend may have seen the request each time.
async fn try_peer<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Trouble> {
    let &Target { upstream, peer, .. } = target;
    // Another's connection would speak for another client.
    let mut may_reuse = proxy.link.proxy_protocol.is_none();
    loop {
        let pooled = may_reuse.then(|| take_pooled(target, now())).flatten();
        if pooled.is_none() && target.reach == Reach::Kept {
            cold_path();
            return Err(Trouble {
                failure: Failure::Status(502),
                reason: Some(Conditions::ERROR),
                sent: false,
            });
        }
        let reused = pooled.is_some();
        let attempt = target.attempt();
        let started = attempt.started;
        request.attempts.push(Attempt {
            connected: reused.then_some(Duration::ZERO),
            tls: pooled.as_ref().and_then(|connection| connection.card.facts),
            ..attempt
        });
        let mut connection = match pooled {
            Some(connection) => connection,
            None => {
                cold_path();
                // Boxed: rare, and every other request would have room for it.
                Box::pin(open(request, proxy, target)).await?
            }
        };
        connection.count_request();
        let result = exchange(request, proxy, target, &mut connection, body, sink).await;
        let now = now();
        record(request, |attempt| {
            attempt.finished.get_or_insert(now - started);
            attempt.traffic = connection.transport.take_traffic();
        });
        let broken = match result {
            Ok(Reuse::Yes) => {
                upstream.pool.put(connection, now);
                return Ok(());
            }
            Ok(Reuse::No) => return Ok(()),
            Err(broken) => broken,
        };
        cold_path();
        if reused && target.repeatable && broken.is_stale_connection() {
            // The backend closed an idle connection just as it was taken up
            // again: nobody's fault, and not worth a log line.
            request.attempts.pop();
            may_reuse = target.reach == Reach::Kept;
            continue;
        }
        if !sink.is_committed() {
            sink.discard();
        }
        return Err(Trouble::of(broken, request, peer, sink));
    }
}

/// A connection from the pool on which nothing has come meanwhile. The look
/// costs a system call, and is worth it: what a backend says on an idle
/// connection (a late second answer, a 408) would answer this request.
fn take_pooled(target: &Target<'_>, now: Instant) -> Option<Box<Connection>> {
    let tls = target.secure.map(Secure::key);
    loop {
        let pool = &target.upstream.pool;
        let connection = pool.take(&target.peer.address, tls, target.local, now)?;
        if connection.transport.sender().is_quiet() {
            return Some(connection);
        }
    }
}

/// A new connection for the try that has just begun.
async fn open(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
) -> Result<Box<Connection>, Trouble> {
    let connected = connect(request, proxy, target).await;
    let facts = connected.as_ref().map(|connection| connection.card.facts);
    record(request, |attempt| attempt.note_connected(facts.ok(), now()));
    let connected =
        connected.map_err(|status| Trouble::of_peer(request, status, reason_of(status), false));
    Ok(Box::new(connected?))
}

/// A new connection. On failure the log has been told, and the result is the
/// status for the client.
pub(super) async fn connect(
    request: &Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
) -> Result<Connection, u16> {
    let peer = target.peer;
    let deadline = Deadline::new();
    deadline.arm(proxy.connect_timeout);
    let is_personal = proxy.link.proxy_protocol.is_some();
    let connecting = link::connect(request, proxy, &peer.address, target.local);
    let socket = deadline.run(connecting).await;
    let (status, error) = match socket {
        Ok(Ok(socket)) => {
            if let Some(secure) = target.secure {
                // As in Nginx the time to connect includes the handshake.
                let handshake = secure.handshake(socket, &peer.address, &deadline);
                // Boxed: rare, and large for the task that waits for it.
                let connected = Box::pin(handshake).await;
                let connected =
                    connected.map(|connection| connection.linked(target.local, is_personal));
                return connected.map_err(|error| {
                    let context = secure.context();
                    log::upstream_error(
                        request,
                        Level::Error,
                        Some(peer),
                        format_args!("{error} while SSL handshaking to upstream{context}"),
                    );
                    error.status()
                });
            }
            let transport = Transport::new(socket, None, Input::default());
            let key = Key {
                address: peer.address.clone(),
                tls: None,
                local: None,
            };
            let connection = Connection::new(transport, key, None, now());
            return Ok(connection.linked(target.local, is_personal));
        }
        Ok(Err(error)) => (502, TransportError::Io(error)),
        Err(_) => (504, TransportError::TimedOut),
    };
    let message: &dyn fmt::Display = match &error {
        TransportError::TimedOut => &"upstream timed out (110: Connection timed out)",
        error => &fmt::from_fn(move |f| write!(f, "connect() {error}")),
    };
    log::upstream_error(
        request,
        Level::Error,
        Some(peer),
        format_args!("{message} while connecting to upstream"),
    );
    Err(status)
}
