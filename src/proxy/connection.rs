//! An accepted connection: its handshake, then one request after another.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::{ErrorLog, ListenAddress, Listener, Server, ServerId};
use crate::http::error::{HeadError, Refusal};
use crate::http::h1::framing;
use crate::http::h1::parse::{HeadLimits, MAX_FIELDS, Status, parse_request};
use crate::http::h2::meter::PREFACE;
use crate::http::head::{FieldId, RequestHead, Version};
use crate::http::headers::ConnectionOptions;
use crate::net::addr::ClientAddr;
use crate::net::buffers::{Class, Hosted};
use crate::net::now::now;
use crate::net::socket::Socket;
use crate::net::spawn::sleep;
use crate::telemetry::error_log::Level;
use crate::telemetry::metrics::Phase;
use crate::tls;

use super::certificates::served::Place;
use super::exchange::{BodySource, ResponseSink};
use super::gateway::Gateway;
use super::h1::{H1Body, H1Sink, RequestKind};
use super::h2::front;
use super::handshake::{self, Accepted};
use super::input::Input;
use super::log;
use super::measure;
use super::preamble;
use super::request::{ClientConnection, Request};
use super::respond;
use super::route;
use super::serve::{Entry, Served, serve};
use super::transport::{First, Linger, Transport, TransportError};
use super::worker::{HandshakeSlot, Registration, View, Worker};

/// Handshakes in flight on one worker at the most; further connections wait
/// for their turn. Each costs some 20 KiB and a quarter of a millisecond of
/// CPU, so this bounds a flood to 40 MiB and half a second.
const MAX_HANDSHAKES: usize = 2048;
/// The same from one client: whoever begins handshakes and ends none leaves
/// the rest to the others.
const MAX_HANDSHAKES_PER_CLIENT: usize = 256;
/// How often a waiting connection looks whether its turn has come.
const HANDSHAKE_TURN: Duration = Duration::from_millis(20);
/// A connection that has been idle for so long gives up what it can get back.
/// Most requests that follow one at all follow it sooner.
const REST_AFTER: Duration = Duration::from_secs(2);
/// A request body that its answer did not wait for is read up to here, so
/// that the connection can be kept; a longer one closes it.
const DRAIN_BYTES: u64 = 256 << 10;

/// Serves a connection from accept to close. It is counted from this call on,
/// not from the first poll, so that a worker about to leave sees it.
///
/// Cancelling it closes the connection at once; requests in flight are cut
/// off without a log line.
pub fn serve_connection(
    worker: Rc<Worker>,
    socket: Socket,
    client: ClientAddr,
    address: Rc<ListenAddress>,
) -> impl Future<Output = ()> {
    let registration = worker.register(Phase::Waiting);
    // Boxed: it happens once, and every poll of the task afterwards would have its
    // stack frame.
    let opening = Box::pin(open(worker, registration, socket, client, address));
    serve_opened(opening)
}

async fn serve_opened(opening: impl Future<Output = Option<(HttpConnection, Transport)>>) {
    let Some((mut session, mut transport)) = opening.await else {
        return;
    };
    if let Some(linger) = session.serve_requests(&mut transport).await {
        Box::pin(transport.close(linger)).await;
    }
}

/// What comes before the first request: the PROXY protocol's header and the
/// handshake. `None` if it has come to nothing, which the log has been told.
async fn open(
    worker: Rc<Worker>,
    registration: Registration,
    mut socket: Socket,
    client: ClientAddr,
    address: Rc<ListenAddress>,
) -> Option<(HttpConnection, Transport)> {
    let view = worker.view();
    let index = view.gateway.listener(&address)?;
    let (index, local) = by_local_address(&view.gateway, index, &socket)?;
    let listener = view.gateway.config.listeners.get(index)?;
    let default = view.gateway.server(listener.hosts.default)?;
    let mut connection = ClientConnection {
        serial: registration.serial,
        client,
        local: OnceCell::from(local),
        proxy_header: None,
        gauge: socket.sender.gauge(),
        tls: None,
        requests: 0,
        opened: now(),
    };
    let mut received = Vec::new();
    if listener.proxy_protocol {
        let timeout = default.connection.client_header_timeout;
        let read = Box::pin(preamble::read(&mut socket, timeout)).await;
        match read {
            Ok((header, rest)) => {
                connection.proxy_header = Some(Rc::new(header));
                received = rest;
            }
            Err((level, message)) => {
                let who = (
                    connection.serial,
                    log::client_of(&connection),
                    &*address as &dyn std::fmt::Display,
                );
                let logs = &default.root.error_logs;
                let message = format_args!("{message} while reading PROXY protocol");
                log::connection_error(&view.gateway, logs, who, level, message);
                return None;
            }
        }
    }
    let transport = if listener.ssl {
        registration.enter(Phase::Handshaking);
        let begun = Instant::now();
        let timeout = default.connection.client_header_timeout;
        // Behind a balancer its own address says nothing.
        let header = connection.proxy_header.as_ref();
        let client = match header.and_then(|header| header.addresses) {
            Some((client, _)) => Some(client.ip()),
            None => client.ip(),
        };
        let Some(_slot) = handshake_slot(&worker, client, timeout).await else {
            let who = (
                connection.serial,
                log::client_of(&connection),
                &*address as &dyn std::fmt::Display,
            );
            let logs = &default.root.error_logs;
            let message = format_args!("client timed out while waiting for its SSL handshake");
            log::connection_error(&view.gateway, logs, who, Level::Info, message);
            return None;
        };
        let place = Place {
            worker: &worker,
            view: &view,
            connection: &connection,
            listener,
        };
        match handshake::accept(socket, &received, place, timeout).await {
            Ok(accepted) => {
                measure::accepted(&worker.metrics, &accepted, begun);
                let Accepted { transport, tls, .. } = accepted;
                connection.tls = tls;
                transport
            }
            Err(rejected) => {
                measure::rejected(&worker.metrics, &rejected);
                let logs: &[ErrorLog] = view
                    .gateway
                    .server(rejected.server)
                    .map_or(&view.gateway.config.core.error_logs, |server| {
                        &server.root.error_logs
                    });
                let who = (
                    connection.serial,
                    log::client_of(&connection),
                    &*address as &dyn std::fmt::Display,
                );
                log::connection_error(
                    &view.gateway,
                    logs,
                    who,
                    rejected.level,
                    format_args!("{}", rejected.message),
                );
                return None;
            }
        }
    } else {
        let input = Input::from_plaintext(&received).unwrap_or_default();
        Transport::new(socket, None, input)
    };
    let session = HttpConnection {
        address: if listener.address == *address {
            address
        } else {
            Rc::new(listener.address.clone())
        },
        worker,
        registration: Rc::new(registration),
        // Moved: a connection outlives many configurations and holds one.
        view,
        index,
        connection,
        routed: None,
    };
    Some((session, transport))
}

/// Waits until there is room for another handshake; not for longer than one
/// may take, or those that a flood leaves waiting would pile up.
async fn handshake_slot(
    worker: &Rc<Worker>,
    client: Option<IpAddr>,
    timeout: Duration,
) -> Option<HandshakeSlot> {
    let begun = Instant::now();
    loop {
        let slot = worker.begin_handshake(client, MAX_HANDSHAKES, MAX_HANDSHAKES_PER_CLIENT);
        if slot.is_some() || begun.elapsed() >= timeout {
            return slot;
        }
        sleep(HANDSHAKE_TURN).await;
    }
}

/// The listener that a connection belongs to, and where the client connected
/// to. Known from the configuration, unless the socket is bound to a wildcard:
/// then the kernel is asked, and a listener on just that address comes first.
fn by_local_address(
    gateway: &Gateway,
    index: usize,
    socket: &Socket,
) -> Option<(usize, Option<SocketAddr>)> {
    let listeners = &gateway.config.listeners;
    match &listeners.get(index)?.address {
        ListenAddress::Unix(_) => Some((index, None)),
        ListenAddress::Inet(address) if !address.ip().is_unspecified() => {
            Some((index, Some(*address)))
        }
        ListenAddress::Inet(_) => {
            let local = socket.sender.local_address();
            let covered = listeners.iter().position(|listener| {
                listener.covered_by == Some(index)
                    && local.is_some_and(|local| listener.address == ListenAddress::Inet(local))
            });
            Some((covered.unwrap_or(index), local))
        }
    }
}

/// A connection past its handshake.
pub(super) struct HttpConnection {
    pub(super) worker: Rc<Worker>,
    pub(super) registration: Rc<Registration>,
    pub(super) view: Rc<View>,
    address: Rc<ListenAddress>,
    /// Of the listener, in the configuration that `view` shows.
    pub(super) index: usize,
    pub(super) connection: ClientConnection,
    /// The Host of the last request and the block that it led to under `view`:
    /// most clients name the same one again. Boxed: every idle connection has
    /// room for it.
    routed: Option<Box<Routed>>,
}

/// How long a connection may be idle after a request.
#[derive(Debug, Clone, Copy)]
struct Idle {
    at_most: Duration,
    /// Even by a worker that drains.
    at_least: Duration,
}

impl Idle {
    /// The beginning of it.
    fn within(self, time: Duration) -> Self {
        Self {
            at_most: self.at_most.min(time),
            at_least: self.at_least.min(time),
        }
    }

    /// What is left of it.
    fn after(self, time: Duration) -> Self {
        Self {
            at_most: self.at_most.saturating_sub(time),
            at_least: self.at_least.saturating_sub(time),
        }
    }

    fn is_over_after(self, time: Duration, drains: bool) -> bool {
        let limit = if drains { self.at_least } else { self.at_most };
        limit <= time
    }
}

/// Where a Host has led.
struct Routed {
    host: Box<[u8]>,
    server: ServerId,
}

/// What comes after a request.
enum Next {
    /// Another one.
    Request,
    /// The end, after reading what the client still sends.
    Close(Linger),
    /// The end in the middle of a response: without a close_notify, so that
    /// the client can tell it from a response that is over.
    CutOff,
}

impl HttpConnection {
    /// Until the connection is to be closed: how long to linger, or `None` to
    /// break it off.
    async fn serve_requests(&mut self, transport: &mut Transport) -> Option<Linger> {
        let alpn = self
            .connection
            .tls
            .as_ref()
            .and_then(|it| it.alpn.as_deref());
        if alpn == Some(b"h2") {
            return Box::pin(front::serve(self, transport)).await;
        }
        let mut head = RequestHead::default();
        let mut idle = None;
        loop {
            let read = match self.read_head(transport, &mut head, idle).await {
                Read::Closed => return Some(Linger::NONE),
                Read::Http2 => return Box::pin(front::serve(self, transport)).await,
                read => read,
            };
            // On the heap: an idle connection then carries nothing of a request.
            let served = Hosted::make(|| self.serve_read(read, transport, &mut head, &mut idle));
            match served.await {
                Next::Request => self.connection.requests += 1,
                Next::Close(linger) => return Some(linger),
                Next::CutOff => return None,
            }
        }
    }

    /// Answers what was read. `idle` becomes what that allows for the wait for
    /// another request.
    async fn serve_read(
        &mut self,
        read: Read,
        transport: &mut Transport,
        head: &mut RequestHead,
        idle: &mut Option<Idle>,
    ) -> Next {
        // After the wait: the request belongs to what is published now.
        let still_listed = self.follow_reload();
        let Some(still_listed) = still_listed else {
            return Next::Close(Linger::NONE);
        };
        let received = now();
        let view = Rc::clone(&self.view);
        let Some((listener, default)) = self.listener(&view) else {
            return Next::Close(Linger::NONE);
        };
        let (parsed, length) = match read {
            Read::Head => (Ok(()), head.len),
            Read::Refused(error) => (Err(error.status()), transport.input.plain().len()),
            Read::TimedOut => (Err(408), transport.input.plain().len()),
            Read::Closed | Read::Http2 => return Next::Close(Linger::NONE),
            Read::Failed(error) => {
                Box::pin(transport.alert(&error)).await;
                self.log(
                    default,
                    Level::Info,
                    format_args!("recv() {error} while reading client request"),
                );
                return Next::Close(Linger::NONE);
            }
        };
        self.registration.enter(Phase::Writing);
        self.worker.metrics.requests.increment();
        let (buffer, base) = transport.input.detach(length);
        let bytes = buffer.get(base..).unwrap_or_default();
        let host = head
            .host(bytes)
            .filter(|_| parsed.is_ok())
            .unwrap_or_default();
        let server = self.route(&view, listener, host).unwrap_or(default);
        let options = ConnectionOptions::of(&head.fields, bytes);
        let wants_more = match head.version {
            Version::Http11 | Version::Http2 => !options.close,
            Version::Http10 => options.keep_alive,
        };
        let framing = parsed.and_then(|()| {
            framing::of_request(head, bytes).map_err(|error| {
                self.log(
                    server,
                    Level::Info,
                    format_args!("client sent {error} while reading client request headers"),
                );
                error.status()
            })
        });
        let expects_continue = head.version == Version::Http11
            && head
                .field(bytes, FieldId::Expect)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        let kind = RequestKind {
            method: head.method_id,
            version: head.version,
        };
        let mut request = Request::arrived(
            (&self.worker, &view, &self.connection),
            (listener, server),
            (head, buffer, base),
            (received, length as u64),
        );
        // In a block, at whose end the sink goes: `drop` would move it first.
        let next = {
            let (rx, tx) = transport.split();
            let mut sink = H1Sink::new(tx, kind, wants_more && still_listed);
            let refused = self.connection.tls.is_none()
                && route::is_cleartext_refused(&view.gateway, listener, server);
            match framing {
                Ok(framing) => {
                    let entry = match refused {
                        false => Entry::Arrival,
                        true => refuse_cleartext(&request, &mut sink),
                    };
                    let mut body = H1Body::new(rx, framing, expects_continue);
                    let served = serve(&mut request, entry, &mut body, &mut sink).await;
                    let next = match served {
                        Served::CutOff => Next::CutOff,
                        Served::Done if leaves_nothing(&body, &sink) => Next::Request,
                        // Boxed: rare.
                        Served::Done => Box::pin(leave(&request, &mut body, &sink)).await,
                    };
                    request.length += body.received();
                    next
                }
                Err(status) => {
                    // Where the next request would begin is unknown.
                    sink.close_after();
                    // Boxed, as the alert is: rare, and every request's own box would
                    // have room for them.
                    let _ = Box::pin(respond::error(&mut request, status, &mut sink)).await;
                    request.answer.note_sent(&sink);
                    Next::Close(Linger::after_request(&request.location.parting, true))
                }
            }
        };
        let is_over = transport.has_timed_out() || request.answer.status == 444;
        let next = if is_over && request.location.parting.reset_timed_out {
            transport.sender().reset();
            Next::CutOff
        } else {
            next
        };
        request.answer.bytes = transport.take_traffic().sent;
        log::access(&request);
        measure::answered(&request);
        *idle = Some(Idle {
            at_most: request.location.keepalive_timeout,
            at_least: request.location.parting.keepalive_min_timeout,
        });
        next
    }

    /// Waits for a request's head and parses it. Whatever is published
    /// meanwhile is heard of; nothing of what was before is held on to.
    async fn read_head(
        &mut self,
        transport: &mut Transport,
        head: &mut RequestHead,
        idle: Option<Idle>,
    ) -> Read {
        // What came during the handshake has nudged nobody.
        if idle.is_none() && self.follow_reload().is_none() {
            return Read::Closed;
        }
        let Some((head_limits, header_timeout)) = self.head_limits() else {
            return Read::Closed;
        };
        head.clear();
        self.registration.enter(Phase::Waiting);
        let mut waiting = idle;
        match waiting {
            Some(idle)
                if self.worker.is_draining()
                    && transport.input.is_empty()
                    && idle.at_least.is_zero() =>
            {
                return Read::Closed;
            }
            // The wait itself says how long it may be.
            Some(_) => {}
            None => transport.rx_deadline().arm(header_timeout),
        }
        let mut may_be_http2 = idle.is_none() && self.speaks_h2c();
        let mut refused = false;
        loop {
            if may_be_http2 {
                let plain = transport.input.plain();
                let compared = plain.len().min(PREFACE.len());
                may_be_http2 = plain.get(..compared) == PREFACE.get(..compared);
                if may_be_http2 && compared == PREFACE.len() {
                    return Read::Http2;
                }
            }
            if !may_be_http2 && !transport.input.plain().is_empty() {
                if waiting.take().is_some() {
                    // From the first byte on the whole head has its time, and
                    // no byte prolongs it.
                    transport.rx_deadline().arm(header_timeout);
                }
                match parse_request(transport.input.plain(), &head_limits, head) {
                    Ok(Status::Complete) => return Read::Head,
                    Ok(Status::Partial) => self.registration.enter(Phase::Reading),
                    Err(error) => {
                        self.log_reading(format_args!("client sent {error}"));
                        return Read::Refused(error);
                    }
                }
            }
            let any = !transport.input.plain().is_empty();
            let mut first = First::Wait;
            if let Some(idle) = waiting {
                let mut left = idle;
                if transport.input.is_empty() {
                    let begin = idle.within(REST_AFTER);
                    let deadline = transport.rx_deadline();
                    deadline.arm_idle(begin.at_most, begin.at_least);
                    let mut may_stay = || {
                        refused = self.follow_reload().is_none();
                        !refused
                    };
                    if transport.rx().arrives(&mut may_stay).await {
                        first = First::Try;
                    } else if refused || idle.is_over_after(REST_AFTER, self.worker.is_draining()) {
                        return Read::Closed;
                    } else {
                        transport.rest();
                        left = idle.after(REST_AFTER);
                    }
                }
                let deadline = transport.rx_deadline();
                deadline.arm_idle(left.at_most, left.at_least);
            }
            let mut may_stay = || {
                refused = self.follow_reload().is_none();
                !refused
            };
            let mut rx = transport.rx();
            let filled = rx
                .fill_while(Class::Small, first, Some(&mut may_stay))
                .await;
            match filled {
                Ok(0) if any => {
                    self.log_reading(format_args!("client prematurely closed connection"));
                    return Read::Closed;
                }
                Ok(0) => return Read::Closed,
                Ok(_) => {}
                Err(TransportError::TimedOut) if any && !refused => {
                    self.log_reading(format_args!("client timed out (110: Connection timed out)"));
                    return Read::TimedOut;
                }
                Err(TransportError::TimedOut) => return Read::Closed,
                Err(TransportError::InputFull) => return Read::Refused(HeadError::HeadTooLarge),
                Err(error) => return Read::Failed(error),
            }
        }
    }

    /// What holds for a head, and the time that it has.
    pub(super) fn head_limits(&self) -> Option<(HeadLimits, Duration)> {
        let (listener, _) = self.listener(&self.view)?;
        head_limits(&self.view, listener, &self.connection)
    }

    /// The block whose certificate was used, or else the listener's first.
    pub(super) fn server(&self) -> Option<&Server> {
        let (_, default) = self.listener(&self.view)?;
        let tls = self.connection.tls.as_ref();
        let named = tls.and_then(|tls| self.view.gateway.server(tls.server));
        Some(named.map_or(default, |server| &**server))
    }

    /// Whether HTTP/2 may come without TLS and without being asked for.
    fn speaks_h2c(&self) -> bool {
        self.connection.tls.is_none()
            && self
                .listener(&self.view)
                .is_some_and(|(listener, default)| {
                    !listener.ssl && (listener.http2 || default.connection.http2.enabled)
                })
    }

    fn log_reading(&self, what: std::fmt::Arguments<'_>) {
        if let Some((_, default)) = self.listener(&self.view) {
            self.log(
                default,
                Level::Info,
                format_args!("{what} while reading client request headers"),
            );
        }
    }

    /// Moves to the configuration that is published now. Whether its listener
    /// is still part of it; `None` if the client may not stay: its policy has
    /// changed, or its certificate has expired or been revoked.
    pub(super) fn follow_reload(&mut self) -> Option<bool> {
        let view = self.worker.view();
        if Rc::ptr_eq(&view, &self.view) {
            return Some(true);
        }
        let Some(index) = view.gateway.listener(&self.address) else {
            return Some(false);
        };
        let listener = view.gateway.config.listeners.get(index)?;
        if let Some(tls) = self.connection.tls.as_mut().map(Rc::make_mut) {
            let name = tls.server_name.as_deref();
            let server = name.map_or(listener.hosts.default, |name| {
                listener.hosts.find(name.as_bytes())
            });
            let host = view.gateway.tls_host(server)?;
            let expired = || {
                let client = tls.client.as_ref();
                client.is_some_and(|client| client.has_expired(tls::now()))
            };
            if *host.client_auth.digest() != tls.policy || expired() {
                return None;
            }
            // Other CRLs: the client is judged anew, once.
            if *host.client_auth.demands() != tls.demands {
                let verdict = match (&tls.client, &tls.unverified) {
                    (Some(client), _) => host.client_auth.readmit(client, tls::now()),
                    (None, Some(unverified)) => Err(unverified.refusal().clone()),
                    (None, None) => Ok(()),
                };
                if let Err(refusal) = verdict {
                    let server = view.gateway.server(server)?;
                    self.log(
                        server,
                        Level::Error,
                        format_args!("{refusal}, connection closed after a reload"),
                    );
                    return None;
                }
                tls.demands = *host.client_auth.demands();
            }
            tls.server = server;
        } else if listener.ssl && !view.gateway.is_permissive(listener) {
            return None;
        }
        self.view = view;
        self.index = index;
        self.routed = None;
        Some(true)
    }

    /// The server block for this Host.
    fn route<'v>(
        &mut self,
        view: &'v View,
        listener: &Listener,
        host: &[u8],
    ) -> Option<&'v Server> {
        if let Some(last) = self.routed.as_ref().filter(|last| *last.host == *host) {
            return view.gateway.server(last.server).map(|server| &**server);
        }
        let server = route::server(&view.gateway, listener, host)?;
        self.routed = Some(Box::new(Routed {
            host: host.into(),
            server: server.id,
        }));
        Some(server)
    }

    fn listener<'v>(&self, view: &'v View) -> Option<(&'v Listener, &'v Server)> {
        let listener = view.gateway.config.listeners.get(self.index)?;
        Some((listener, view.gateway.server(listener.hosts.default)?))
    }

    pub(super) fn log(&self, server: &Server, level: Level, message: std::fmt::Arguments<'_>) {
        let who = (
            self.connection.serial,
            log::client_of(&self.connection),
            &*self.address as &dyn std::fmt::Display,
        );
        log::connection_error(
            &self.view.gateway,
            &server.root.error_logs,
            who,
            level,
            message,
        );
    }
}

/// What holds for a head on this connection, and the time that it has.
pub(super) fn head_limits(
    view: &View,
    listener: &Listener,
    connection: &ClientConnection,
) -> Option<(HeadLimits, Duration)> {
    let tls = connection.tls.as_ref();
    let chosen = tls.map_or(listener.hosts.default, |tls| tls.server);
    let limits = &view.gateway.server(chosen)?.connection;
    let (count, size) = limits.large_client_header_buffers;
    let head_limits = HeadLimits {
        line: size.max(limits.client_header_buffer_size),
        total: (count * size).max(limits.client_header_buffer_size),
        fields: limits.max_headers.min(MAX_FIELDS),
    };
    Some((head_limits, limits.client_header_timeout))
}

/// How waiting for a request ended.
enum Read {
    Head,
    Refused(HeadError),
    TimedOut,
    /// Without a request, and without anything to say about it.
    Closed,
    /// With the preface of HTTP/2 instead, which has not been taken.
    Http2,
    Failed(TransportError),
}

/// Plain HTTP has come to a TLS port.
#[cold]
fn refuse_cleartext<'a>(request: &Request<'_>, sink: &mut H1Sink<'_>) -> Entry<'a> {
    log::request_error(
        request,
        Level::Info,
        format_args!(
            "client sent plain HTTP request to HTTPS port while reading client request headers"
        ),
    );
    sink.close_after();
    Entry::Refused(497)
}

/// Whether the next request can follow as it is.
fn leaves_nothing(body: &H1Body<'_>, sink: &H1Sink<'_>) -> bool {
    body.is_in_step() && body.is_finished() && sink.keeps_alive()
}

/// Sees to what an answered request has left of its body.
async fn leave(request: &Request<'_>, body: &mut H1Body<'_>, sink: &H1Sink<'_>) -> Next {
    let close = |more: bool| Next::Close(Linger::after_request(&request.location.parting, more));
    if !body.is_in_step() {
        return close(true);
    }
    if !sink.keeps_alive() {
        return close(!body.is_finished());
    }
    // What is answered before its location is entered had no limits yet.
    body.set_limits(request.location.client_body_timeout, 0);
    match body.drain(DRAIN_BYTES).await {
        true => Next::Request,
        false => close(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let size = future_size(serve_connection);
        assert!(size <= 2 << 10, "{size} bytes");
    }
}
