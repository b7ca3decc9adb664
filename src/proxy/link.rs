//! Connecting to a backend as `proxy_bind`, `proxy_socket_keepalive` and
//! `proxy_protocol` say.

use std::io;
use std::net::SocketAddr;

use crate::config::{Proxy, ProxyLink, ProxyProtocol, UpstreamAddress};
use crate::net::addr::ClientAddr;
use crate::net::proxy_header;
use crate::net::socket::{Behind, Socket};
use crate::telemetry::error_log::Level;

use super::log;
use super::request::Request;
use super::variables::expand_to_vec;

/// The address that this request's backend is connected to from, if it is
/// said. A value that is none leaves the choice to the kernel, as in Nginx.
pub(crate) fn local_address(request: &Request<'_>, proxy: &Proxy) -> Option<SocketAddr> {
    let value = expand_to_vec(proxy.link.bind.as_ref()?, request);
    if value.is_empty() {
        return None;
    }
    let address = ProxyLink::local_address(&value);
    if address.is_none() {
        log::request_error(
            request,
            Level::Error,
            format_args!("invalid local address \"{}\"", value.escape_ascii()),
        );
    }
    address
}

/// Connects, from that address if there is one, and says who the client is if
/// the backend is to know.
///
/// # Errors
/// Whatever the kernel reports. Cancelling it closes the socket.
pub(crate) async fn connect(
    request: &Request<'_>,
    proxy: &Proxy,
    to: &UpstreamAddress,
    from: Option<SocketAddr>,
) -> io::Result<Socket> {
    let mut socket = match (to, from) {
        (UpstreamAddress::Unix(path), _) => Socket::connect_unix(path).await?,
        (UpstreamAddress::Inet(to), None) => Socket::connect(*to).await?,
        (UpstreamAddress::Inet(to), Some(from)) => Socket::connect_from(from, *to).await?,
    };
    if proxy.link.socket_keepalive {
        socket.sender.keep_alive()?;
    }
    if let Some(version) = proxy.link.proxy_protocol {
        // Boxed: rare, and every other request would have room for it.
        Box::pin(introduce(request, version, &mut socket)).await?;
    }
    Ok(socket)
}

async fn introduce(
    request: &Request<'_>,
    version: ProxyProtocol,
    socket: &mut Socket,
) -> io::Result<()> {
    let client = match request.client() {
        ClientAddr::Inet(address) => Some(address),
        ClientAddr::Unix => None,
    };
    let own = request.connection.local.get().copied().flatten();
    let header = match version {
        ProxyProtocol::V1 => proxy_header::version_1(client, own),
        ProxyProtocol::V2 => proxy_header::version_2(client, own),
    };
    socket.sender.send(&header, Behind::More).await
}
