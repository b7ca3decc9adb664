//! `json_relay`: calls described by JSON objects, made on behalf of callers
//! written against hand-made proxies of that kind.
//!
//! What makes those an open door is that the caller names the target. Here
//! the operator has: what is not in the list is answered 403 before anything
//! is looked up; what is in it is looked up once for each connection, and that
//! connection goes to an address of that one answer. Redirects are the
//! caller's to see, not ours to follow. Method, path, fields and body are
//! the caller's within bounds; who is spoken to, how messages are framed and
//! who the client is proven to be are not.

mod call;
mod object;
mod resolve;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use serde_json::json;

use crate::config::{
    Proxy, ProxyFilters, Relay, RelayTarget, SetHeader, Template, UpstreamAddress,
    is_private_address,
};
use crate::http::head::Method;
use crate::telemetry::error_log::Level;

use self::call::{Call, CallError};
use super::exchange::{BodySize, BodySource, ResponseSink};
use super::forward::{Failure, Reach, forward_to};
use super::log;
use super::request::Request;
use super::respond;
use super::upstream::secure::Secure;

/// The longest call, bytes, where `client_max_body_size` sets no lower limit:
/// it is held in memory.
const MAX_CALL: u64 = 16 << 20;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 3;

/// Makes the call that the request's body describes, and answers with what it
/// brings.
///
/// # Errors
/// The client is gone, or its body is not as announced.
pub(crate) async fn relay<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    relay: &Relay,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Failure> {
    if *request.path() != *request.location.prefix || !request.query().is_empty() {
        return Err(Failure::Status(404));
    }
    if request.method() != Method::Post {
        return refuse(request, sink, 405, "Method not allowed").await;
    }
    let bytes = receive(request, body, sink).await?;
    let gateway = &request.view.gateway;
    let call = match Call::read(&bytes, &|name| gateway.asserts(name)) {
        Ok(call) => call,
        Err(CallError::Target) => return refuse_target(request, sink).await,
        Err(error) => return refuse(request, sink, 400, &error.to_string()).await,
    };
    let Some(target) = permitted(relay, &call) else {
        return refuse_target(request, sink).await;
    };
    let proxy = proxy_for(relay, target, &call);
    match make(request, &proxy, target, body, sink).await {
        Ok(()) => Ok(()),
        Err(Denied::NotAllowed) => refuse_target(request, sink).await,
        Err(Denied::Failed(failure @ (Failure::Aborted | Failure::Elsewhere))) => Err(failure),
        Err(Denied::Failed(Failure::Status(status))) => {
            let message = match status {
                504 => "the target did not answer in time",
                _ => "the target could not be reached, or broke off",
            };
            let error = json!({ "error": "Proxy request failed", "message": message });
            answer(request, sink, 502, &error.to_string()).await
        }
    }
}

/// The target that a call asks for, if the list permits the call.
fn permitted<'r>(relay: &'r Relay, call: &Call) -> Option<&'r RelayTarget> {
    let target = match &call.host {
        None => relay.targets.first()?,
        Some((host, port)) => {
            let default = relay.targets.first()?;
            let port = match port {
                Some(port) => *port,
                None if *default.host == **host => default.port,
                None => relay.default_port,
            };
            let is_it = |target: &&RelayTarget| *target.host == **host && target.port == port;
            relay.targets.iter().find(is_it)?
        }
    };
    let permits = target.rules.iter().any(|rule| {
        let method = rule.methods.as_ref().is_none_or(|methods| {
            let is_allowed = |method: &str| {
                methods
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(method))
            };
            call.methods().all(is_allowed)
        });
        let path = rule
            .path
            .as_ref()
            .is_none_or(|prefix| call.path_begins_with(prefix));
        method && path
    });
    permits.then_some(target)
}

/// The settings of the location with what this call says.
fn proxy_for(relay: &Relay, target: &RelayTarget, call: &Call) -> Proxy {
    let host = if target.host.contains(':') {
        format!("[{}]", target.host)
    } else {
        target.host.to_string()
    };
    let authority = if target.port == relay.default_port {
        host
    } else {
        format!("{host}:{}", target.port)
    };
    let header = |name: &[u8], value: &[u8]| SetHeader::new(name.into(), Template::literal(value));
    let mut set_headers = vec![header(b"Host", authority.as_bytes())];
    let ours = &relay.proxy.set_headers;
    let is_ours = |name: &[u8]| ours.iter().any(|ours| ours.name.eq_ignore_ascii_case(name));
    let configured = ours
        .iter()
        .filter(|header| !header.name.eq_ignore_ascii_case(b"Host"));
    set_headers.extend(configured.cloned());
    if call.body.is_none() {
        // Nor the length of the caller's own body, which is another's.
        set_headers.push(header(b"Content-Length", b""));
    }
    for (name, value) in &call.headers {
        if !is_ours(name.as_bytes()) {
            set_headers.push(header(name.as_bytes(), value.as_bytes()));
        }
    }
    Proxy {
        upstream: Some(target.upstream),
        host: authority.into(),
        port: target.port,
        uri: Some(call.path.as_bytes().into()),
        set_headers,
        filters: ProxyFilters {
            method: Some(Template::literal(call.method.as_bytes())),
            body: call.body.as_deref().map(Template::literal),
            ..relay.proxy.filters.clone()
        },
        ..relay.proxy.clone()
    }
}

/// Why there is no answer.
enum Denied {
    /// The name leads where it must not.
    NotAllowed,
    /// The target's fault, or the client's.
    Failed(Failure),
}

/// Over a connection that is there, or over a new one.
async fn make<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &RelayTarget,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Denied> {
    // What an earlier `proxy_pass` of this request led to is no more.
    request.destination = None;
    let view = request.view;
    let failed = |status| Denied::Failed(Failure::Status(status));
    let upstream = view.upstream(target.upstream).ok_or_else(|| failed(502))?;
    let secure = Secure::of(request, proxy).await.map_err(|error| {
        let message = format_args!("{error} while connecting to upstream");
        log::request_error(request, Level::Error, message);
        failed(502)
    })?;
    let secure = secure.as_ref();
    let tls = secure.map(Secure::key);
    let idle = upstream.pool.latest_address(tls, Instant::now());
    if let Some(address) = idle {
        let to = (address, Reach::Kept);
        let tried = forward_to(request, proxy, upstream, to, secure, body, sink).await;
        match tried {
            Ok(()) => return Ok(()),
            Err((failure, false)) => return Err(Denied::Failed(failure)),
            // It has been closed meanwhile. The name may lead elsewhere by now.
            Err((_, true)) => {}
        }
    }
    let mut last = failed(502);
    for address in addresses(request, proxy, target).await? {
        let to = (address, Reach::Any);
        let tried = forward_to(request, proxy, upstream, to, secure, body, sink).await;
        match tried {
            Ok(()) => return Ok(()),
            Err((failure, false)) => return Err(Denied::Failed(failure)),
            Err((failure, true)) => last = Denied::Failed(failure),
        }
    }
    Err(last)
}

/// Where a new connection may go: asked for once, and judged as what it is.
async fn addresses(
    request: &Request<'_>,
    proxy: &Proxy,
    target: &RelayTarget,
) -> Result<Vec<UpstreamAddress>, Denied> {
    let found = match target.host.parse::<IpAddr>() {
        Ok(address) => Ok(vec![address]),
        Err(_) => resolve::resolve(&target.host, proxy.connect_timeout).await,
    };
    let found = found.map_err(|error| {
        let message = format_args!(
            "host \"{}\" {error} while connecting to upstream",
            target.host
        );
        log::request_error(request, Level::Error, message);
        Denied::Failed(Failure::Status(502))
    })?;
    let allowed = |address: &IpAddr| target.private || !is_private_address(*address);
    let addresses: Vec<_> = found
        .iter()
        .copied()
        .filter(allowed)
        .take(MAX_ADDRESSES)
        .map(|address| UpstreamAddress::Inet(SocketAddr::new(address, target.port)))
        .collect();
    if addresses.is_empty() {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        log::request_error(
            request,
            Level::Error,
            format_args!(
                "host \"{}\" leads to private addresses alone ({}), which nothing permits",
                target.host,
                found.join(", ")
            ),
        );
        return Err(Denied::NotAllowed);
    }
    Ok(addresses)
}

/// The whole body, within bounds.
async fn receive<B: BodySource, S: ResponseSink>(
    request: &Request<'_>,
    body: &mut B,
    sink: &mut S,
) -> Result<Vec<u8>, Failure> {
    let limit = match request.location.client_max_body_size {
        0 => MAX_CALL,
        limit => limit.min(MAX_CALL),
    };
    body.set_limits(request.location.client_body_timeout, limit);
    if matches!(body.size(), BodySize::Known(length) if length > limit) {
        return Err(Failure::Status(413));
    }
    if body.awaits_continue() {
        sink.interim(100).await.map_err(|_| Failure::Aborted)?;
    }
    let mut bytes = Vec::new();
    loop {
        match body.next().await {
            Ok(None) => return Ok(bytes),
            Ok(Some(piece)) => {
                piece.parts().for_each(|part| bytes.extend_from_slice(part));
                body.give_back(piece.buffer);
            }
            Err(error) => {
                log::request_error(
                    request,
                    Level::Info,
                    format_args!("{error} while reading client request body"),
                );
                return Err(error.status().map_or(Failure::Aborted, Failure::Status));
            }
        }
    }
}

async fn refuse_target(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
) -> Result<(), Failure> {
    log::request_error(
        request,
        Level::Error,
        format_args!("a call to a target that \"json_relay_allow\" does not permit"),
    );
    refuse(request, sink, 403, "Target not allowed").await
}

async fn refuse(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
    status: u16,
    what: &str,
) -> Result<(), Failure> {
    answer(request, sink, status, &json!({ "error": what }).to_string()).await
}

async fn answer(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
    status: u16,
    text: &str,
) -> Result<(), Failure> {
    let content_type = b"application/json";
    respond::fixed(request, status, content_type, text.as_bytes(), None, sink)
        .await
        .map_err(|_| Failure::Aborted)
}
