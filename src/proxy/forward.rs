//! A request's way to a backend and the answer's way back.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use crate::config::{Proxy, ProxyHttpVersion, UpstreamAddress, UpstreamPeer};
use crate::http::h1::encode::{self, Sink};
use crate::http::h1::framing::{self, Kind};
use crate::http::h1::parse::{HeadLimits, Status, parse_response};
use crate::http::head::{FieldId, Method, ResponseHead, Version};
use crate::http::headers::{ConnectionOptions, is_hop_by_hop, is_ordinary_name, same_field_name};
use crate::http::uri::escape_uri;
use crate::net::buffers::Class;
use crate::net::deadlines::Deadline;
use crate::net::socket::Socket;
use crate::telemetry::error_log::Level;

use super::balance::{AfterFailure, Tried};
use super::body::{self, RelayError, UpstreamFraming};
use super::exchange::{BodyError, BodySize, BodySource, ResponseSink};
use super::log;
use super::output::Output;
use super::pool::Connection;
use super::redirect;
use super::request::{Attempt, Request};
use super::respond;
use super::transport::{Input, Rx, Transport, TransportError};
use super::variables::expand;
use super::worker::UpstreamState;

/// Bytes of a response's head at the most. Nginx's `proxy_buffer_size` is one
/// page; this is four, and fits one receive buffer together with its body's
/// first bytes.
const RESPONSE_HEAD: HeadLimits = HeadLimits {
    line: 16 << 10,
    total: 16 << 10,
    fields: 256,
};
/// Interim responses (1xx) that a backend may send before the final one.
const MAX_INTERIM: usize = 16;

/// How forwarding ended, if it did not end well. The log has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was sent to the client: it can be told this status.
    Status(u16),
    /// The response is cut off, or the client is gone: only closing is left.
    Aborted,
}

/// Sends the request to one of the upstream's peers and its answer to the
/// client; tries another peer where that cannot do harm.
///
/// A request is sent a second time only if its method is idempotent
/// (RFC 9110 §9.2.2) or nothing of it has left, and only while none of its
/// body and none of its answer has been used up.
///
/// # Errors
/// See [`Failure`]. Cancelling it cuts both exchanges off.
pub(crate) async fn forward<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Failure> {
    let view = request.view;
    let Some(upstream) = view.upstream(proxy.upstream) else {
        return Err(Failure::Status(502));
    };
    if body.size() == BodySize::Unknown && proxy.http_version == ProxyHttpVersion::Http10 {
        log::request_error(
            request,
            Level::Error,
            format_args!("a request body of unknown length cannot be sent by HTTP/1.0"),
        );
        return Err(Failure::Status(411));
    }
    let mut tried = Tried::new();
    let mut last = Failure::Status(502);
    while let Some(index) = upstream.balancer.choose(&tried, Instant::now()) {
        tried.push(index);
        let Some(peer) = upstream.config.peers.get(index) else {
            break;
        };
        match try_peer(request, proxy, upstream, index, peer, body, sink).await {
            Ok(()) => {
                upstream.balancer.succeeded(index);
                return Ok(());
            }
            Err(Trouble {
                failure,
                peer_is_to_blame,
                may_retry,
            }) => {
                if peer_is_to_blame
                    && upstream.balancer.failed(index, Instant::now()) == AfterFailure::Disabled
                {
                    log::upstream_error(
                        request,
                        Level::Warn,
                        Some(peer),
                        format_args!("upstream server temporarily disabled"),
                    );
                }
                if !may_retry {
                    return Err(failure);
                }
                last = failure;
            }
        }
    }
    if request.attempts.is_empty() {
        log::request_error(
            request,
            Level::Error,
            format_args!("no live upstreams while connecting to upstream"),
        );
    }
    Err(last)
}

/// What went wrong with one peer.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    failure: Failure,
    peer_is_to_blame: bool,
    may_retry: bool,
}

impl Trouble {
    const ABORTED: Self = Self {
        failure: Failure::Aborted,
        peer_is_to_blame: false,
        may_retry: false,
    };
}

/// One peer: over a pooled connection if there is one, and over a fresh one
/// if that turns out to have been closed meanwhile.
async fn try_peer<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    upstream: &UpstreamState,
    index: usize,
    peer: &UpstreamPeer,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Trouble> {
    let repeatable = request.method().is_idempotent() && body.size() == BodySize::None;
    loop {
        let started = Instant::now();
        let pooled = take_pooled(upstream, peer, repeatable, started);
        let reused = pooled.is_some();
        request.attempts.push(Attempt {
            upstream: proxy.upstream,
            peer: index,
            started,
            connected: None,
            head_received: None,
            finished: None,
            status: None,
            received: 0,
        });
        let mut connection = match pooled {
            Some(connection) => connection,
            None => connect(request, proxy, peer)
                .await
                .map_err(|status| Trouble {
                    failure: Failure::Status(status),
                    peer_is_to_blame: true,
                    may_retry: true,
                })?,
        };
        connection.count_request();
        record(request, |attempt| {
            attempt.connected = Some(attempt.started.elapsed())
        });
        let result = exchange(request, proxy, peer, &mut connection, body, sink).await;
        record(request, |attempt| {
            attempt.finished = Some(attempt.started.elapsed())
        });
        match result {
            Ok(Reuse::Yes) => upstream.pool.put(connection, Instant::now()),
            Ok(Reuse::No) => {}
            Err(Broken::Untouched(_)) if reused && repeatable => {
                // The backend closed an idle connection just as it was taken
                // up again: nobody's fault, and not worth a log line.
                request.attempts.pop();
                continue;
            }
            Err(Broken::Untouched(cause)) => {
                return Err(Trouble {
                    failure: Failure::Status(cause.report(request, peer)),
                    peer_is_to_blame: true,
                    may_retry: repeatable,
                });
            }
            Err(Broken::Upstream) if !sink.is_committed() => {
                sink.discard();
                return Err(Trouble {
                    failure: Failure::Status(502),
                    peer_is_to_blame: true,
                    may_retry: false,
                });
            }
            Err(Broken::Upstream) => {
                return Err(Trouble {
                    peer_is_to_blame: true,
                    ..Trouble::ABORTED
                });
            }
            Err(Broken::Client(status)) if !sink.is_committed() => {
                sink.discard();
                let failure = status.map_or(Failure::Aborted, Failure::Status);
                return Err(Trouble {
                    failure,
                    ..Trouble::ABORTED
                });
            }
            Err(Broken::Client(_)) => return Err(Trouble::ABORTED),
        }
        return Ok(());
    }
}

fn record(request: &mut Request<'_>, note: impl FnOnce(&mut Attempt)) {
    if let Some(attempt) = request.attempts.last_mut() {
        note(attempt);
    }
}

/// A connection from the pool. A request that must not be repeated gets one
/// only after a look at whether the backend has closed it, which costs a
/// system call; the others find out by themselves.
fn take_pooled(
    upstream: &UpstreamState,
    peer: &UpstreamPeer,
    repeatable: bool,
    now: Instant,
) -> Option<Connection> {
    loop {
        let connection = upstream.pool.take(&peer.address, now)?;
        if repeatable || connection.transport.sender().is_quiet() {
            return Some(connection);
        }
    }
}

/// A new connection. On failure the log has been told, and the result is the
/// status for the client.
async fn connect(
    request: &Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
) -> Result<Connection, u16> {
    let deadline = Deadline::new();
    deadline.arm(proxy.connect_timeout);
    let socket = match &peer.address {
        UpstreamAddress::Inet(address) => deadline.run(connect_inet(*address)).await,
        UpstreamAddress::Unix(path) => deadline.run(Socket::connect_unix(path)).await,
    };
    let (status, error) = match socket {
        Ok(Ok(socket)) => {
            let transport = Transport::new(socket, None, Input::default());
            return Ok(Connection::new(
                transport,
                peer.address.clone(),
                Instant::now(),
            ));
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

async fn connect_inet(address: SocketAddr) -> std::io::Result<Socket> {
    Socket::connect(address).await
}

/// Whether the upstream connection can serve another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Yes,
    No,
}

/// How an exchange broke off.
#[derive(Debug)]
enum Broken {
    /// The backend failed before a byte of its answer came. Not yet logged:
    /// for a pooled connection it is no error.
    Untouched(Cause),
    /// The backend failed, or sent what it must not, later than that.
    Upstream,
    /// The client failed; with the status that it may be told.
    Client(Option<u16>),
}

/// Why there was no answer.
#[derive(Debug)]
enum Cause {
    Send(TransportError),
    Receive(TransportError),
    Closed,
}

impl Cause {
    /// Tells the log; the result is the status for the client.
    fn report(&self, request: &Request<'_>, peer: &UpstreamPeer) -> u16 {
        match self {
            Self::Send(error) => upstream_failed(
                request,
                peer,
                error,
                "send()",
                "sending request to upstream",
            ),
            Self::Receive(error) => upstream_failed(request, peer, error, "recv()", HEAD_PHASE),
            Self::Closed => {
                closed_early(request, peer, HEAD_PHASE);
                502
            }
        }
    }
}

const HEAD_PHASE: &str = "reading response header from upstream";

/// One request and one response over one connection.
async fn exchange<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    connection: &mut Connection,
    body: &mut B,
    sink: &mut S,
) -> Result<Reuse, Broken> {
    let (mut rx, mut tx) = connection.transport.split();
    let size = body.size();
    let mut output = Output::default();
    write_head(request, proxy, size, &mut output);
    if output.is_overflown() {
        log::request_error(
            request,
            Level::Error,
            format_args!("request header is too large to be sent to upstream"),
        );
        return Err(Broken::Client(Some(494)));
    }
    if size == BodySize::None {
        if let Some((buffer, range)) = output.take() {
            let sent = tx.send(buffer, range, proxy.send_timeout).await;
            sent.map_err(|error| Broken::Untouched(Cause::Send(error)))?;
        }
        return respond(request, proxy, peer, &mut rx, sink).await;
    }
    if body.awaits_continue() {
        // Answered here and not by the backend, as Nginx does: the backend
        // must then take the body, which is what a buffering proxy promises.
        sink.interim(100).await.map_err(|_| Broken::Client(None))?;
    }
    let framing = match size {
        BodySize::Known(_) => UpstreamFraming::Length,
        _ => UpstreamFraming::Chunked,
    };
    let upload = body::upload(output, body, framing, &mut tx, proxy.send_timeout);
    let response = respond(request, proxy, peer, &mut rx, sink);
    match while_uploading(response, upload).await {
        Ok((result, uploaded)) => result.map(|reuse| if uploaded { reuse } else { Reuse::No }),
        Err(error) => {
            log::request_error(
                request,
                Level::Info,
                format_args!("{error} while reading client request body"),
            );
            Err(Broken::Client(error.status()))
        }
    }
}

/// Drives the response to its end and the upload alongside. A client that
/// fails ends both; a backend that stops taking the body may still have
/// answered, so its answer is waited for.
async fn while_uploading<T>(
    response: impl Future<Output = T>,
    upload: impl Future<Output = Result<(), body::UploadError>>,
) -> Result<(T, bool), BodyError> {
    let mut response = pin!(response);
    let mut upload = pin!(upload);
    let mut ended: Option<bool> = None;
    std::future::poll_fn(|context| {
        if ended.is_none() {
            match upload.as_mut().poll(context) {
                Poll::Ready(Ok(())) => ended = Some(true),
                Poll::Ready(Err(body::UploadError::Upstream(_))) => ended = Some(false),
                Poll::Ready(Err(body::UploadError::Client(error))) => {
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {}
            }
        }
        response
            .as_mut()
            .poll(context)
            .map(|result| Ok((result, ended == Some(true))))
    })
    .await
}

/// Tells the log; the result is the status for the client.
fn upstream_failed(
    request: &Request<'_>,
    peer: &UpstreamPeer,
    error: &TransportError,
    call: &str,
    phase: &str,
) -> u16 {
    let (status, message): (u16, &dyn fmt::Display) = match error {
        TransportError::TimedOut => (504, &"upstream timed out (110: Connection timed out)"),
        error => (502, &fmt::from_fn(move |f| write!(f, "{call} {error}"))),
    };
    log::upstream_error(
        request,
        Level::Error,
        Some(peer),
        format_args!("{message} while {phase}"),
    );
    status
}

/// Writes the request's head as the backend gets it: what the configuration
/// sets, then what the client sent, less what is between the client and us,
/// what Connection names, and every copy of what we set ourselves.
fn write_head(request: &Request<'_>, proxy: &Proxy, size: BodySize, out: &mut Output) {
    let bytes = request.head_bytes();
    let head = request.head;
    out.put(head.method.of(bytes));
    out.put(b" ");
    write_target(request, proxy, out);
    out.put(match proxy.http_version {
        ProxyHttpVersion::Http10 => b" HTTP/1.0\r\n",
        ProxyHttpVersion::Http11 => b" HTTP/1.1\r\n",
    });
    for header in &proxy.set_headers {
        // Framing is ours to say, whatever the configuration says of it.
        if matches!(
            FieldId::of(&header.name),
            FieldId::ContentLength | FieldId::TransferEncoding
        ) {
            continue;
        }
        write_set_header(&header.name, &header.value, request, out);
    }
    match size {
        BodySize::Known(length) => encode::field_decimal(out, b"Content-Length", length),
        BodySize::Unknown => encode::field(out, b"Transfer-Encoding", b"chunked"),
        BodySize::None | BodySize::Announced(_) => {
            // A method that expects a body says that there is none
            // (RFC 9110 §8.6), if the client did.
            if head
                .fields
                .iter()
                .any(|field| field.id == FieldId::ContentLength)
            {
                encode::field_decimal(out, b"Content-Length", 0);
            }
        }
    }
    let options = ConnectionOptions::of(&head.fields, bytes);
    let limits = request.limits();
    for field in &head.fields {
        let name = field.name.of(bytes);
        let is_set = || {
            proxy
                .set_headers
                .iter()
                .any(|header| same_field_name(&header.name, name))
        };
        let forwarded = !is_hop_by_hop(field.id)
            && !matches!(
                field.id,
                FieldId::ContentLength | FieldId::Expect | FieldId::Host
            )
            && is_ordinary_name(name, limits.underscores_in_headers)
            && !is_set()
            && !request.view.gateway.asserts(name)
            && !options.names(name, |_| false);
        if forwarded {
            encode::field(out, name, field.value.of(bytes));
        }
    }
    out.put(b"\r\n");
}

fn write_set_header(
    name: &[u8],
    value: &crate::config::Template,
    request: &Request<'_>,
    out: &mut Output,
) {
    // Whether there is a value shows only when it has been written, so a
    // literal is asked first and the rest goes by way of a small vector.
    use crate::config::Part;
    match &*value.parts {
        [] => {}
        [Part::Literal(literal)] => encode::field(out, name, literal),
        _ => {
            let mut evaluated = smallvec::SmallVec::<[u8; 256]>::new();
            expand(value, request, &mut SmallSink(&mut evaluated));
            if !evaluated.is_empty() && encode::is_field_value(&evaluated) {
                encode::field(out, name, &evaluated);
            }
        }
    }
}

struct SmallSink<'v>(&'v mut smallvec::SmallVec<[u8; 256]>);

impl Sink for SmallSink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// The target as Nginx forms it: without a URI part in `proxy_pass` the
/// client's own, otherwise that part in place of the location's prefix and
/// the rest of the normalised path, escaped again.
fn write_target(request: &Request<'_>, proxy: &Proxy, out: &mut Output) {
    let bytes = request.head_bytes();
    let head = request.head;
    match &proxy.uri {
        None => {
            let path = head.path.of(bytes);
            out.put(if path.is_empty() { b"/" } else { path });
        }
        Some(uri) => {
            out.put(uri);
            let rest = request
                .path()
                .get(request.location.prefix.len()..)
                .unwrap_or_default();
            let mut escaped = Vec::with_capacity(rest.len());
            escape_uri(&mut escaped, rest);
            out.put(&escaped);
        }
    }
    if let Some(query) = head.query {
        out.put(b"?");
        out.put(query.of(bytes));
    }
}

/// Receives the response's head, sends ours, relays the body.
async fn respond<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    rx: &mut Rx<'_>,
    sink: &mut S,
) -> Result<Reuse, Broken> {
    let mut head = ResponseHead::default();
    receive_head(request, proxy, peer, rx, &mut head).await?;
    record(request, |attempt| {
        attempt.head_received = Some(attempt.started.elapsed());
        attempt.status = Some(head.status);
    });
    let input = rx.input.plain();
    let framing = match framing::of_response(&head, input, request.method()) {
        Ok(framing) => framing.kind(),
        Err(error) => return Err(invalid(request, peer, &error)),
    };
    let options = ConnectionOptions::of(&head.fields, input);
    let persistent = match head.version {
        Version::Http11 => !options.close,
        Version::Http10 => options.keep_alive,
    };
    send_response_head(request, proxy, &head, &options, framing, input, sink);
    rx.input.consume(head.len);
    let relayed = body::relay(framing, rx, sink, proxy.read_timeout).await;
    match relayed {
        Ok(received) => record(request, |attempt| attempt.received = received),
        Err(RelayError::Client(error)) => {
            log::upstream_error(
                request,
                Level::Info,
                Some(peer),
                format_args!("send() {error} while sending response to client"),
            );
            return Err(Broken::Client(None));
        }
        Err(RelayError::Upstream(error)) => {
            upstream_failed(request, peer, &error, "recv()", "reading upstream");
            return Err(Broken::Upstream);
        }
        Err(RelayError::Premature) => {
            closed_early(request, peer, "reading upstream");
            return Err(Broken::Upstream);
        }
        Err(RelayError::Invalid(error)) => return Err(invalid(request, peer, &error)),
    }
    // Bytes behind the response were not asked for: whatever they are, the
    // next request must not be answered by them.
    let clean = rx.input.is_empty() && !rx.input.is_closed();
    let reuse = persistent && clean && framing != Kind::UntilClose;
    Ok(if reuse { Reuse::Yes } else { Reuse::No })
}

fn invalid(request: &Request<'_>, peer: &UpstreamPeer, error: &dyn fmt::Display) -> Broken {
    log::upstream_error(
        request,
        Level::Error,
        Some(peer),
        format_args!("upstream sent {error} while reading response from upstream"),
    );
    Broken::Upstream
}

/// Reads until the final response's head is there; interim ones are dropped,
/// because a 100 has been answered here and others are optional.
async fn receive_head(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    rx: &mut Rx<'_>,
    head: &mut ResponseHead,
) -> Result<(), Broken> {
    let mut interim = 0;
    let mut untouched = true;
    loop {
        if !rx.input.plain().is_empty() {
            match parse_response(rx.input.plain(), &RESPONSE_HEAD, head) {
                Ok(Status::Complete) if head.status == 101 => {
                    return Err(invalid(
                        request,
                        peer,
                        &"101 to a request that asked for no upgrade",
                    ));
                }
                Ok(Status::Complete) if head.status < 200 && interim < MAX_INTERIM => {
                    interim += 1;
                    rx.input.consume(head.len);
                    head.clear();
                    continue;
                }
                Ok(Status::Complete) if head.status < 200 => {
                    return Err(invalid(request, peer, &"too many interim responses"));
                }
                Ok(Status::Complete) => return Ok(()),
                Ok(Status::Partial) => {}
                Err(error) => return Err(invalid(request, peer, &error)),
            }
        }
        match rx.fill(Class::Medium, proxy.read_timeout).await {
            Ok(0) if untouched => return Err(Broken::Untouched(Cause::Closed)),
            Ok(0) => {
                closed_early(request, peer, HEAD_PHASE);
                return Err(Broken::Upstream);
            }
            Ok(_) => untouched = false,
            Err(error) if untouched => return Err(Broken::Untouched(Cause::Receive(error))),
            Err(error) => {
                upstream_failed(request, peer, &error, "recv()", HEAD_PHASE);
                return Err(Broken::Upstream);
            }
        }
    }
}

fn closed_early(request: &Request<'_>, peer: &UpstreamPeer, phase: &str) {
    log::upstream_error(
        request,
        Level::Error,
        Some(peer),
        format_args!("upstream prematurely closed connection while {phase}"),
    );
}

/// Writes our response head: what we say, then what the backend said, less
/// what was between it and us.
fn send_response_head<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    head: &ResponseHead,
    options: &ConnectionOptions<'_>,
    framing: Kind,
    bytes: &[u8],
    sink: &mut S,
) {
    request.answer.status = head.status;
    respond::start(request, sink, head.status);
    let records = request.view.gateway.records_response_fields();
    for field in &head.fields {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        if records {
            request
                .answer
                .upstream_fields
                .push((name.into(), value.into()));
        }
        let ours = matches!(
            field.id,
            FieldId::ContentLength | FieldId::Server | FieldId::Date | FieldId::XAccel
        );
        if ours || is_hop_by_hop(field.id) || options.names(name, |_| false) {
            continue;
        }
        let rewritten = match field.id {
            FieldId::Location => redirect::rewrite(&proxy.redirect, value, request),
            _ => None,
        };
        let value = rewritten.as_deref().unwrap_or(value);
        if records {
            request.answer.sent_fields.push((name.into(), value.into()));
        }
        sink.field(name, value);
    }
    respond::add_headers(request, sink, head.status);
    let announced = || {
        let value = head.field(bytes, FieldId::ContentLength)?;
        std::str::from_utf8(value).ok()?.parse().ok()
    };
    sink.end_head(match framing {
        Kind::Length(length) => BodySize::Known(length),
        Kind::Chunked | Kind::UntilClose => BodySize::Unknown,
        Kind::Empty if request.method() == Method::Head || head.status == 304 => {
            announced().map_or(BodySize::None, BodySize::Announced)
        }
        Kind::Empty => BodySize::None,
    });
}
