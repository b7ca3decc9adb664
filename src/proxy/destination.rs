//! Where a request goes whose `proxy_pass` or `grpc_pass` has variables
//! (`ngx_http_proxy_eval`, `ngx_http_upstream_resolve_handler`).

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use crate::config::{
    ProxyFamily, Template, Upstream, UpstreamAddress, UpstreamPeer, UrlTarget, pass_url,
};
use crate::net::deadlines::Deadline;
use crate::net::resolver::ResolveError;
use crate::telemetry::error_log::Level;

use super::forward::Failure;
use super::log;
use super::request::Request;
use super::variables::expand_to_vec;
use super::worker::UpstreamState;

/// What the URL says, once its variables have values.
#[derive(Debug)]
pub(crate) struct Destination {
    /// `https://`.
    pub(crate) secure: bool,
    /// `$proxy_host`.
    pub(crate) host: Box<str>,
    /// `$proxy_port`; 0 for a UNIX socket.
    pub(crate) port: u16,
    /// Sent as it is in place of the request's own.
    pub(crate) uri: Option<Vec<u8>>,
}

/// The upstream of a request.
pub(crate) enum Place<'v> {
    /// One of the configuration's.
    Known(&'v UpstreamState),
    /// One for the sake of this request.
    Own(Box<UpstreamState>),
}

impl Deref for Place<'_> {
    type Target = UpstreamState;

    fn deref(&self) -> &UpstreamState {
        match self {
            Self::Known(upstream) => upstream,
            Self::Own(upstream) => upstream,
        }
    }
}

/// Evaluates the URL and finds the backends behind it. A group of that name
/// comes first, then an address; any other name is asked for.
///
/// # Errors
/// The status for the client; the log has been told. Cancelling it is safe.
pub(crate) async fn find<'v>(
    request: &mut Request<'v>,
    family: ProxyFamily,
    url: &Template,
) -> Result<Place<'v>, Failure> {
    let view = request.view;
    let value = expand_to_vec(url, request);
    let names = &view.gateway.config.upstream_names;
    let parsed = pass_url::parse(&value, family, names);
    let parsed = parsed.map_err(|message| {
        log::request_error(request, Level::Error, format_args!("{message}"));
        Failure::Status(500)
    })?;
    if let Some(uri) = &parsed.uri
        && uri
            .iter()
            .any(|byte| byte.is_ascii_control() || *byte == b' ')
    {
        // Nginx sends it as it is: whoever can make `$uri` hold a line end
        // then writes the backend's next fields.
        let message = format_args!("the URI in \"proxy_pass\" has a space or a control character");
        log::request_error(request, Level::Error, message);
        return Err(Failure::Status(400));
    }
    let addresses = match parsed.target {
        UrlTarget::Upstream(id) => Err(id),
        UrlTarget::Inet(address) => Ok(vec![UpstreamAddress::Inet(address)]),
        UrlTarget::Unix(path) => Ok(vec![UpstreamAddress::Unix(path)]),
        UrlTarget::Name(name, port) => Ok(resolve(request, &name, port).await?),
    };
    let place = match addresses {
        Err(id) => view.upstream(id).map(Place::Known),
        Ok(addresses) => {
            let upstream = transient(&parsed.host, addresses);
            let state = UpstreamState::transient(Arc::new(upstream));
            Some(Place::Own(Box::new(state)))
        }
    };
    request.destination = Some(Box::new(Destination {
        secure: parsed.secure,
        host: parsed.host,
        port: parsed.port,
        uri: parsed.uri,
    }));
    place.ok_or(Failure::Status(502))
}

async fn resolve(
    request: &Request<'_>,
    name: &str,
    port: u16,
) -> Result<Vec<UpstreamAddress>, Failure> {
    let location = request.location;
    let gateway = &request.view.gateway;
    let resolver = location.resolver.and_then(|id| gateway.resolvers.get(id));
    let Some(resolver) = resolver else {
        let message = format_args!("no resolver defined to resolve {name}");
        log::request_error(request, Level::Error, message);
        return Err(Failure::Status(502));
    };
    let deadline = Deadline::new();
    deadline.arm(location.resolver_timeout);
    let outcome = deadline.run(resolver.resolve(name)).await;
    let outcome = outcome.unwrap_or(Err(ResolveError::TimedOut));
    let found = outcome.map_err(|error| {
        let message = format_args!("{name} could not be resolved {error}");
        log::request_error(request, Level::Error, message);
        Failure::Status(502)
    })?;
    let mut addresses: Vec<_> = found
        .addresses
        .iter()
        .map(|ip| UpstreamAddress::Inet(SocketAddr::new(*ip, port)))
        .collect();
    // Round robin begins at the first, and each request begins anew.
    let first = fastrand::usize(..addresses.len().max(1));
    addresses.rotate_left(first);
    Ok(addresses)
}

fn transient(name: &str, addresses: Vec<UpstreamAddress>) -> Upstream {
    let peers = addresses
        .into_iter()
        .map(|address| UpstreamPeer::new(address, name));
    Upstream::unpooled(name, peers.collect())
}
