//! From names and paths to the block that answers.

use crate::config::FoundLocation;
use crate::config::{Handler, Listener, Location, Pattern, Proxy, Server, TooManySteps};

use super::gateway::Gateway;
use super::request::TlsFacts;

/// The server block that answers for this Host on this listener: the same
/// lookup that SNI goes through, so the two cannot disagree about a name.
pub(crate) fn server<'g>(
    gateway: &'g Gateway,
    listener: &Listener,
    host: &[u8],
) -> Option<&'g Server> {
    let id = if host.is_empty() {
        listener.hosts.default
    } else {
        listener.hosts.find(host)
    };
    gateway.server(id).map(|server| &**server)
}

/// Whether this block may answer on a connection whose handshake was made
/// for another: only if both demand the same of clients. Otherwise a
/// certificate that satisfied one host's policy, or the lack of one, would
/// open another's (RFC 9110 §15.5.20, CVE-2025-23419).
pub(crate) fn is_misdirected(gateway: &Gateway, tls: &TlsFacts, server: &Server) -> bool {
    server.id != tls.server
        && gateway
            .tls_host(server.id)
            .is_none_or(|host| *host.client_auth.demands() != tls.demands)
}

/// Whether a request without TLS that came to a TLS port may not reach this
/// block: unless both the address (by its default server) and the block itself
/// say `ssl_permissive`. A block that does not say it keeps its policy on
/// clients, whoever shares its address.
pub(crate) fn is_cleartext_refused(
    gateway: &Gateway,
    listener: &Listener,
    server: &Server,
) -> bool {
    listener.ssl && !(gateway.is_permissive(listener) && server.permissive)
}

/// Where a path leads.
pub(crate) enum Route<'g> {
    /// To this location, by this regular expression.
    Location(&'g Location, Option<&'g Pattern>),
    /// To the same path with a slash behind it.
    AddSlash(&'g Location),
}

/// The location for a normalised path.
///
/// # Errors
/// [`TooManySteps`].
pub(crate) fn location<'g>(server: &'g Server, path: &[u8]) -> Result<Route<'g>, TooManySteps> {
    Ok(match server.locations.find(path)? {
        FoundLocation::Location { location, regex } => Route::Location(location, regex),
        FoundLocation::AddSlash(location) => Route::AddSlash(location),
        FoundLocation::None => Route::Location(&server.root, None),
    })
}

/// The `proxy_pass` of a location.
pub(crate) fn proxy(location: &Location) -> Option<&Proxy> {
    match &location.handler {
        Handler::Proxy(proxy) => Some(proxy),
        Handler::Relay(relay) => Some(&relay.proxy),
        Handler::Files
        | Handler::EmptyGif
        | Handler::Health(_)
        | Handler::Return(_)
        | Handler::Metrics
        | Handler::StubStatus => None,
    }
}
