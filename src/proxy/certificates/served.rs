//! The certificate of a server block that the handshake itself names:
//! `ssl_certificate /certs/$ssl_server_name.crt`.
//!
//! What a client asks for is known to be a host name before it can be a part of
//! a path (`tls::client_hello`): it has neither a slash nor an empty label, so
//! it leads to no other folder. Only the certificate depends on it. Who may
//! connect is said by the server block, whatever certificate is shown.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::{Listener, NamedCertificate, PemSource, Server, Template};
use crate::http::head::RequestHead;
use crate::net::buffers::{Buffer, Class};
use crate::proxy::request::{ClientConnection, Request, TlsFacts};
use crate::proxy::worker::{View, Worker};
use crate::tls::server::{Shown, TlsHost};

use super::{Name, kept_or_read, source};

/// Where a handshake takes place.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Place<'a> {
    pub(in crate::proxy) worker: &'a Worker,
    pub(in crate::proxy) view: &'a View,
    pub(in crate::proxy) connection: &'a ClientConnection,
    pub(in crate::proxy) listener: &'a Listener,
}

/// What the server block shows a client that has asked for this name, as it is
/// and as it was sent.
///
/// # Errors
/// Why there is no certificate to show, for the log. Cancelling it leaves it to
/// be read for nobody.
pub(in crate::proxy) async fn choose(
    place: Place<'_>,
    server: &Server,
    host: &Arc<TlsHost>,
    (name, as_sent): (Option<Box<str>>, Option<Box<str>>),
) -> Result<Arc<Shown>, String> {
    let sources = sources(place, server, host, (name, as_sent))?;
    let name = Name {
        owner: server.id,
        sources,
    };
    let cache = host.named.first().and_then(|named| named.cache);
    kept_or_read(&place.view.served_certificates, name, cache, |name| {
        let (host, wanted) = (Arc::clone(host), name.sources.clone());
        Ok(move || {
            let shown = host.with_certificates(wanted);
            shown.map(Arc::new).map_err(|error| error.message)
        })
    })
    .await
}

type Sources = Vec<(PemSource, Option<PemSource>)>;

/// What the variables name. They are those of a request that has not come yet:
/// what it will say is empty, as in Nginx.
fn sources(
    place: Place<'_>,
    server: &Server,
    host: &TlsHost,
    (server_name, server_name_as_sent): (Option<Box<str>>, Option<Box<str>>),
) -> Result<Sources, String> {
    let facts = TlsFacts {
        server_name,
        server_name_as_sent,
        server: server.id,
        policy: *host.client_auth.digest(),
        demands: *host.client_auth.demands(),
        client: None,
        unverified: None,
        protocol: "",
        cipher: "",
        resumed: false,
        alpn: None,
        curve: "",
        offer: None,
        session_id: Box::default(),
        own_uris: Arc::default(),
    };
    let connection = ClientConnection {
        tls: Some(Rc::new(facts)),
        ..place.connection.clone()
    };
    let head = RequestHead::default();
    let request = Request::arrived(
        (place.worker, place.view, &connection),
        (place.listener, server),
        (&head, Buffer::take(Class::Small), 0),
        (connection.opened, 0),
    );
    let source = |named: &NamedCertificate, template: &Template| {
        let source = source(named, template, &request)?;
        source.ok_or_else(|| "no certificate is named for this client".to_owned())
    };
    let pairs = host.named.iter().map(|named| {
        let key = named.key.as_ref().map(|key| source(named, key));
        Ok((source(named, &named.certificate)?, key.transpose()?))
    });
    pairs.collect()
}
