//! A request's way to a backend: which one, over which connection, and what
//! happens when it does not work out.

use std::fmt;
use std::time::{Duration, Instant};

use crate::config::{Proxy, ProxyHttpVersion, UpstreamAddress, UpstreamPeer};
use crate::net::deadlines::Deadline;
use crate::net::socket::Socket;
use crate::telemetry::error_log::Level;

use super::balance::{AfterFailure, Tried};
use super::exchange::{BodySize, BodySource, ResponseSink};
use super::input::Input;
use super::log;
use super::pool::{Connection, Key};
use super::request::{Attempt, Request};
use super::transport::{Transport, TransportError};
use super::upstream::secure::Secure;
use super::upstream::{Broken, Reuse, body_failed, exchange, expect_body, record, sent_method};
use super::worker::UpstreamState;

/// How forwarding ended, if it did not end well. The log has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was sent to the client: it can be told this status.
    Status(u16),
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
    if proxy.filters.request_buffering && sent_size(proxy, body) != BodySize::None {
        read_ahead(request, proxy, body, sink).await?;
    }
    if sent_size(proxy, body) == BodySize::Unknown && proxy.http_version == ProxyHttpVersion::Http10
    {
        log::request_error(
            request,
            Level::Error,
            format_args!("a request body of unknown length cannot be sent by HTTP/1.0"),
        );
        return Err(Failure::Status(411));
    }
    let secure = Secure::of(request, proxy).map_err(|error| {
        let message = format_args!("{error} while connecting to upstream");
        log::request_error(request, Level::Error, message);
        Failure::Status(error.status())
    })?;
    let mut tried = Tried::new();
    let mut last = Failure::Status(502);
    while let Some(index) = upstream.balancer.choose(&tried, Instant::now()) {
        tried.push(index);
        let attempt = upstream.metrics.begin(index);
        let Some(peer) = upstream.config.peers.get(index) else {
            break;
        };
        let target = Target {
            upstream,
            index,
            peer,
            secure: secure.as_ref(),
        };
        match try_peer(request, proxy, &target, body, sink).await {
            Ok(()) => {
                upstream.balancer.succeeded(index);
                return Ok(());
            }
            Err(Trouble {
                failure,
                peer_is_to_blame,
                may_retry,
            }) => {
                if peer_is_to_blame {
                    attempt.failed();
                }
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

/// `proxy_request_buffering`: no backend waits for what fits the buffer. Nginx
/// has a file for the rest; here it is streamed, because a file would block.
async fn read_ahead<B: BodySource, S: ResponseSink>(
    request: &Request<'_>,
    proxy: &Proxy,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Failure> {
    let expected = expect_body(body, sink).await;
    expected.map_err(|_| Failure::Aborted)?;
    let limit = request.location.delivery.client_body_buffer_size;
    let keep = sent_method(request, proxy).is_idempotent();
    body.read_ahead(limit, keep).await.map_err(|error| {
        body_failed(request, &error);
        Failure::unless_committed(sink, error.status())
    })
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
struct Trouble {
    failure: Failure,
    peer_is_to_blame: bool,
    may_retry: bool,
}

impl Trouble {
    fn of_connecting(status: u16) -> Self {
        Self {
            failure: Failure::Status(status),
            peer_is_to_blame: true,
            may_retry: true,
        }
    }
}

/// One peer of an upstream.
#[derive(Debug, Clone, Copy)]
struct Target<'t> {
    upstream: &'t UpstreamState,
    index: usize,
    peer: &'t UpstreamPeer,
    /// `None` without TLS.
    secure: Option<&'t Secure<'t>>,
}

/// One peer: over a pooled connection if there is one, and over a fresh one
/// if that turns out to have been closed meanwhile.
async fn try_peer<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Trouble> {
    let &Target {
        upstream,
        index,
        peer,
        ..
    } = target;
    let repeatable = sent_method(request, proxy).is_idempotent()
        && (sent_size(proxy, body) == BodySize::None || body.is_repeatable());
    loop {
        let started = Instant::now();
        let pooled = take_pooled(target, repeatable, started);
        let reused = pooled.is_some();
        request.attempts.push(Attempt {
            upstream: proxy.upstream,
            peer: index,
            started,
            connected: reused.then_some(Duration::ZERO),
            head_received: None,
            finished: None,
            status: None,
            received: 0,
            tls: pooled.as_ref().and_then(|connection| connection.facts),
        });
        let mut connection = match pooled {
            Some(connection) => connection,
            None => {
                let connected = connect(request, proxy, target).await;
                let facts = connected.as_ref().ok();
                let facts = facts.and_then(|connection| connection.facts);
                record(request, |attempt| {
                    attempt.connected = Some(started.elapsed());
                    attempt.tls = facts;
                });
                connected.map_err(Trouble::of_connecting)?
            }
        };
        connection.count_request();
        let result = exchange(request, proxy, peer, &mut connection, body, sink).await;
        let now = Instant::now();
        record(request, |attempt| attempt.finished = Some(now - started));
        let broken = match result {
            Ok(Reuse::Yes) => {
                upstream.pool.put(connection, now);
                return Ok(());
            }
            Ok(Reuse::No) => return Ok(()),
            Err(broken) => broken,
        };
        if reused && repeatable && broken.is_stale_connection() {
            // The backend closed an idle connection just as it was taken up
            // again: nobody's fault, and not worth a log line.
            request.attempts.pop();
            continue;
        }
        if !sink.is_committed() {
            sink.discard();
        }
        return Err(match broken {
            Broken::Untouched(cause) => Trouble {
                failure: Failure::Status(cause.report(request, peer)),
                peer_is_to_blame: true,
                may_retry: repeatable,
            },
            Broken::Upstream => Trouble {
                failure: Failure::unless_committed(sink, Some(502)),
                peer_is_to_blame: true,
                may_retry: false,
            },
            Broken::Client(status) => Trouble {
                failure: Failure::unless_committed(sink, status),
                peer_is_to_blame: false,
                may_retry: false,
            },
            Broken::Tunnel => Trouble {
                failure: Failure::Aborted,
                peer_is_to_blame: false,
                may_retry: false,
            },
        });
    }
}

/// A connection from the pool. A request that must not be repeated gets one
/// only after a look at whether the backend has closed it, which costs a
/// system call; the others find out by themselves.
fn take_pooled(target: &Target<'_>, repeatable: bool, now: Instant) -> Option<Connection> {
    let tls = target.secure.map(Secure::key);
    loop {
        let pool = &target.upstream.pool;
        let connection = pool.take(&target.peer.address, tls, now)?;
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
    target: &Target<'_>,
) -> Result<Connection, u16> {
    let peer = target.peer;
    let deadline = Deadline::new();
    deadline.arm(proxy.connect_timeout);
    let socket = match &peer.address {
        UpstreamAddress::Inet(address) => deadline.run(Socket::connect(*address)).await,
        UpstreamAddress::Unix(path) => deadline.run(Socket::connect_unix(path)).await,
    };
    let (status, error) = match socket {
        Ok(Ok(socket)) => {
            if let Some(secure) = target.secure {
                // As in Nginx the time to connect includes the handshake.
                let handshake = secure.handshake(socket, &peer.address, &deadline);
                // Boxed: rare, and large for the task that waits for it.
                return Box::pin(handshake).await.map_err(|error| {
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
            };
            return Ok(Connection::new(transport, key, None, Instant::now()));
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
