//! A client's TLS handshake, from the first byte to the proof of who it is.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ServerId;
use crate::net::buffers::{Buffer, Class};
use crate::net::deadlines::Deadline;
use crate::net::socket::{Behind, Socket};
use crate::net::turns;
use crate::telemetry::error_log::{Level, Text};
use crate::tls;
use crate::tls::ciphers::openssl_name;
use crate::tls::client_auth::{Refusal, RefusalReason, take_refusal};
use crate::tls::client_hello::{self, Found, Offer};
use crate::tls::resumption::{self, Source};
use crate::tls::server::{Shown, TlsHost};
use crate::tls::server_hello;
use crate::tls::session::{Established, Handshake, HandshakeError, internal_error, normalised};

use super::certificates::served::{self, Place};
use super::gateway::Gateway;
use super::input::Input;
use super::measure::Obstacle;
use super::request::TlsFacts;
use super::transport::{Linger, Transport};
use super::variables::random_id;

/// What a connection on a TLS port turned out to be.
pub(crate) struct Accepted {
    pub(crate) transport: Transport,
    /// `None`: HTTP without TLS, to be told so or (`ssl_permissive`) to be
    /// served. Otherwise the client is one
    /// that its server block lets in.
    pub(crate) tls: Option<Rc<TlsFacts>>,
    /// What the session was resumed by, if it was.
    pub(crate) resumed_by: Option<Source>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Rejected {
    /// For the log of this server block.
    pub(crate) server: ServerId,
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) obstacle: Obstacle,
    /// What is wrong with the client's certificate, if that is why.
    pub(crate) refusal: Option<RefusalReason>,
}

/// Drives the handshake to its end or to the deadline, which counts from now
/// and is not moved by anything the client sends. `received` is what has been
/// read of it already.
///
/// # Errors
/// The handshake failed; an alert has been sent where one was in order.
/// Cancelling it closes the connection without one.
pub(crate) async fn accept(
    mut socket: Socket,
    received: &[u8],
    place: Place<'_>,
    timeout: Duration,
) -> Result<Accepted, Rejected> {
    let (gateway, listener) = (&*place.view.gateway, place.listener);
    let deadline = Deadline::new();
    deadline.arm(timeout);
    let mut handshake = Handshake::new();
    let mut buffer = Buffer::for_size(received.len().max(Class::Small.size()));
    let mut filled = received.len();
    if let Some(front) = buffer.get_mut(..filled) {
        front.copy_from_slice(received);
    }
    let mut unread = filled > 0;
    // Who has just been sent something has not had the time to answer it.
    let mut asked = false;
    let mut out = Vec::new();
    let chosen = Cell::new(listener.hosts.default);
    let mut undecided = gateway.is_permissive(listener);
    let mut resumed_by = None;
    let reject = |level, message: String, obstacle| Rejected {
        server: chosen.get(),
        level,
        message,
        obstacle,
        refusal: None,
    };
    let mut sent_name: Option<Box<str>> = None;
    let mut offer = None;
    let mut session_id: Option<Box<[u8]>> = None;
    // What the ClientHello has named, where certificates have variables.
    let mut shown: Option<Arc<Shown>> = None;
    loop {
        if filled == buffer.len() {
            buffer = grow(buffer).ok_or_else(|| {
                reject(
                    Level::Info,
                    "client sent too large a message while SSL handshaking".into(),
                    Obstacle::Protocol,
                )
            })?;
        }
        if !std::mem::take(&mut unread) {
            let range = filled..buffer.len();
            let receiver = &mut socket.receiver;
            let receive = async {
                match std::mem::take(&mut asked) {
                    true => receiver.receive_later(buffer, range).await,
                    false => receiver.receive(buffer, range).await,
                }
            };
            let Ok((result, back)) = deadline.run(receive).await else {
                return Err(reject(
                    Level::Info,
                    "client timed out (110: Connection timed out) while SSL handshaking".into(),
                    Obstacle::Timeout,
                ));
            };
            buffer = back;
            match result {
                Ok(0) => {
                    return Err(reject(
                        Level::Info,
                        "peer closed connection in SSL handshake".into(),
                        Obstacle::Closed,
                    ));
                }
                Ok(read) => filled += read,
                Err(error) => {
                    return Err(reject(
                        Level::Info,
                        format!("recv() failed ({error}) while SSL handshaking"),
                        Obstacle::Network,
                    ));
                }
            }
        }
        let incoming = buffer.get_mut(..filled).unwrap_or_default();
        // The very first byte decides: no TLS connection opens with another one,
        // and no HTTP request with this one.
        if std::mem::take(&mut undecided)
            && incoming.first().is_some_and(|&byte| byte != TLS_HANDSHAKE)
        {
            return Ok(plaintext(socket, incoming));
        }
        if deadline.run(turns::handshake_step()).await.is_err() {
            return Err(reject(
                Level::Info,
                "client timed out while waiting for its SSL handshake".into(),
                Obstacle::Timeout,
            ));
        }
        let incoming = buffer.get_mut(..filled).unwrap_or_default();
        // What an earlier handshake on this thread left is not about this one.
        take_refusal();
        resumption::take_source();
        if gateway.config.records_client_hello && offer.is_none() && !handshake.has_client_hello() {
            offer = client_hello::offer(incoming).map(Box::new);
        }
        if gateway.names_certificates && shown.is_none() && !handshake.has_client_hello() {
            let named = Box::pin(named_certificate(place, incoming));
            match deadline.run(named).await {
                Ok(Ok((server, found))) => {
                    chosen.set(server);
                    shown = found;
                }
                Ok(Err((server, message))) => {
                    chosen.set(server);
                    internal_error(&mut out);
                    let _ = send(&mut socket, &deadline, &mut out, Behind::More).await;
                    lingering_close(socket, &deadline).await;
                    let message = format!("{message} while SSL handshaking");
                    return Err(reject(Level::Error, message, Obstacle::Protocol));
                }
                Err(_) => {
                    return Err(reject(
                        Level::Error,
                        "reading a certificate takes too long while SSL handshaking".into(),
                        Obstacle::Timeout,
                    ));
                }
            }
        }
        let incoming = buffer.get_mut(..filled).unwrap_or_default();
        let result = handshake.process(incoming, &mut out, &mut |name| {
            sent_name = name.map(Into::into);
            let server = name.map_or(listener.hosts.default, |name| {
                listener.hosts.find(name.as_bytes())
            });
            chosen.set(server);
            // No configuration: unrecognized_name, before anything is said.
            let host = gateway.tls_host(server).filter(|host| !host.rejects);
            let http2 = |host: &Arc<TlsHost>| {
                let server = gateway.server(server);
                let offered =
                    listener.http2 || server.is_some_and(|it| it.connection.http2.enabled);
                let (plain, both) = match &shown {
                    Some(shown) => (&shown.config, &shown.http2),
                    None => (&host.config, &host.http2),
                };
                Arc::clone(if offered { both } else { plain })
            };
            host.map(http2)
        });
        // Before anything is awaited: the next handshake would overwrite it.
        let refusal = take_refusal();
        resumed_by = resumption::take_source().or(resumed_by);
        if !out.is_empty() {
            if gateway.config.records_session_id && session_id.is_none() {
                session_id = server_hello::session_id(&out).map(Into::into);
            }
            // Tickets leave with the response, where the request is here already.
            let behind = Behind::more_if(
                result
                    .as_ref()
                    .is_ok_and(|made| made.done.is_some() && made.consumed < filled),
            );
            let sent = send(&mut socket, &deadline, &mut out, behind).await;
            asked = true;
            if let (Ok(_), Err(error)) = (&result, sent) {
                return Err(reject(
                    Level::Info,
                    format!("send() failed ({error}) while SSL handshaking"),
                    Obstacle::Network,
                ));
            }
        }
        match result {
            Ok(progress) => {
                let consumed = progress.consumed.min(filled);
                if let Some(established) = progress.done {
                    let rest = buffer.get(consumed..filled).unwrap_or_default();
                    let admitted = admit(socket, gateway, chosen.get(), established, offer, rest);
                    let mut accepted = admitted.await?;
                    if let (Some(tls), Some(id)) = (&mut accepted.tls, session_id) {
                        Rc::make_mut(tls).session_id = hexadecimal_session_id(tls.protocol, &id);
                    }
                    return Ok(Accepted {
                        resumed_by,
                        ..accepted
                    });
                }
                buffer.copy_within(consumed..filled, 0);
                filled -= consumed;
            }
            Err(HandshakeError::PlainHttp) => {
                return Ok(plaintext(socket, buffer.get(..filled).unwrap_or_default()));
            }
            Err(error) => {
                let (level, message) = describe(&error, refusal.as_ref(), sent_name.as_deref());
                lingering_close(socket, &deadline).await;
                return Err(Rejected {
                    refusal: certificate_refusal(&error, refusal.as_ref()),
                    ..reject(level, message, obstacle(&error, refusal.as_ref()))
                });
            }
        }
    }
}

/// The certificate that a ClientHello names by its variables, if it is complete
/// and its server block has such; with the block.
///
/// # Errors
/// Why there is none, for the log of the block.
async fn named_certificate(
    place: Place<'_>,
    incoming: &[u8],
) -> Result<(ServerId, Option<Arc<Shown>>), (ServerId, String)> {
    let listener = place.listener;
    let default = listener.hosts.default;
    let Ok(Found::Name(sent)) = client_hello::server_name(incoming) else {
        return Ok((default, None));
    };
    let sent: Option<Box<str>> = sent.as_deref().map(Into::into);
    let name = sent.as_deref().map(normalised);
    let id = name
        .as_ref()
        .map_or(default, |name| listener.hosts.find(name.as_bytes()));
    let gateway = &place.view.gateway;
    let host = gateway.tls_host(id);
    let host = host.filter(|host| !host.rejects && !host.named.is_empty());
    let (Some(server), Some(host)) = (gateway.server(id), host) else {
        return Ok((id, None));
    };
    let sent = sent.filter(|sent| name.as_ref() != Some(sent));
    let shown = served::choose(place, server, host, (name, sent)).await;
    shown
        .map(|shown| (id, Some(shown)))
        .map_err(|message| (id, message))
}

/// `$ssl_session_id`. A session of TLS 1.3 has none on the wire: OpenSSL, and so
/// Nginx, makes one up for each connection.
fn hexadecimal_session_id(protocol: &str, on_the_wire: &[u8]) -> Box<str> {
    if protocol == "TLSv1.3" {
        let random = [random_id(), random_id()];
        return String::from_utf8_lossy(random.as_flattened()).into();
    }
    let digits = on_the_wire.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into()
}

/// A connection without TLS, with what the client has sent so far.
fn plaintext(socket: Socket, received: &[u8]) -> Accepted {
    let input = Input::from_plaintext(received).unwrap_or_default();
    Accepted {
        transport: Transport::new(socket, None, input),
        tls: None,
        resumed_by: None,
    }
}

/// The handshake is over: is this client let in? After a resumption that is
/// judged here and nowhere else.
async fn admit(
    socket: Socket,
    gateway: &Gateway,
    server: ServerId,
    established: Established,
    mut offer: Option<Box<Offer>>,
    rest: &[u8],
) -> Result<Accepted, Rejected> {
    let reject = |message, refusal: Option<RefusalReason>| Rejected {
        server,
        level: Level::Error,
        message,
        obstacle: refusal.map_or(Obstacle::Protocol, |_| Obstacle::Certificate),
        refusal,
    };
    let Some(host) = gateway.tls_host(server) else {
        return Err(reject("the server block has no TLS".into(), None));
    };
    let chain = established.peer_certificates.as_deref();
    let now = tls::now();
    let mut admitted = host.client_auth.admit(chain, established.resumed, now);
    if gateway.forwards_chains()
        && let (Ok(Some(client)), Some([_, presented @ ..])) = (&mut admitted, chain)
    {
        host.client_auth.keep_chain(client, presented, now);
    }
    let admitted = admitted.map(|client| (client, None)).or_else(|refusal| {
        let tolerated = host.client_auth.tolerate(refusal, chain);
        tolerated.map(|unverified| (None, Some(Rc::new(unverified))))
    });
    let protocol = tls::protocol_name(established.version);
    if let Some(offer) = &mut offer
        && established.resumed
        && protocol == "TLSv1.2"
    {
        // OpenSSL does not read them there, since nothing depends on them.
        offer.curves.clear();
    }
    let input = Input::after_handshake(&established.early_plaintext, rest).unwrap_or_default();
    let mut transport = Transport::new(socket, Some(established.session), input);
    match admitted {
        Ok((client, unverified)) => {
            let facts = TlsFacts {
                server_name: established.server_name,
                server_name_as_sent: established.server_name_as_sent,
                server,
                policy: *host.client_auth.digest(),
                demands: *host.client_auth.demands(),
                client: client.map(Rc::new),
                unverified,
                protocol,
                cipher: openssl_name(established.suite.suite()),
                resumed: established.resumed,
                alpn: established.alpn,
                curve: established.group.map_or("", tls::group_name),
                offer,
                own_uris: Arc::clone(&host.uris),
                session_id: Box::default(),
            };
            Ok(Accepted {
                transport,
                tls: Some(Rc::new(facts)),
                resumed_by: None,
            })
        }
        Err(refusal) => {
            let name = established.server_name.as_deref();
            transport.refuse().await;
            transport.close(Linger::for_time(ALERT_LINGER)).await;
            Err(reject(with_name(&refusal, name), Some(refusal.reason)))
        }
    }
}

/// The log line for a failed handshake. A client that was refused is the
/// operator's business; one that spoke nonsense is noise.
fn describe(
    error: &HandshakeError,
    refusal: Option<&Refusal>,
    name: Option<&str>,
) -> (Level, String) {
    if let Some(refusal) = refusal {
        return (Level::Error, with_name(refusal, name));
    }
    if error.is_missing_client_certificate() {
        return (Level::Error, with_name(&Refusal::no_certificate(), name));
    }
    (Level::Info, format!("{error} while SSL handshaking"))
}

fn certificate_refusal(error: &HandshakeError, refusal: Option<&Refusal>) -> Option<RefusalReason> {
    let missing = error
        .is_missing_client_certificate()
        .then_some(RefusalReason::NoCertificate);
    refusal.map(|refusal| refusal.reason).or(missing)
}

fn obstacle(error: &HandshakeError, refusal: Option<&Refusal>) -> Obstacle {
    match error {
        _ if certificate_refusal(error, refusal).is_some() => Obstacle::Certificate,
        HandshakeError::UnknownName => Obstacle::Name,
        _ => Obstacle::Protocol,
    }
}

fn with_name(refusal: &dyn fmt::Display, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{refusal}, SNI: \"{}\"", Text(name.as_bytes())),
        None => format!("{refusal}, no SNI"),
    }
}

/// Into the next class; `None` if it is the largest: what needs more is a
/// certificate chain beyond reason.
pub(super) fn grow(buffer: Buffer) -> Option<Buffer> {
    let larger = [Class::Medium, Class::Large]
        .into_iter()
        .find(|class| class.size() > buffer.len())?;
    let mut grown = Buffer::take(larger);
    grown.get_mut(..buffer.len())?.copy_from_slice(&buffer);
    Some(grown)
}

/// Sends what a handshake has to say.
pub(super) async fn send(
    socket: &mut Socket,
    deadline: &Deadline,
    out: &mut Vec<u8>,
    behind: Behind,
) -> std::io::Result<()> {
    match deadline.run(socket.sender.send(out, behind)).await {
        Ok(result) => result?,
        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
    }
    out.clear();
    Ok(())
}

/// Lets the alert arrive: closing with unread input would reset the
/// connection and destroy it.
async fn lingering_close(mut socket: Socket, deadline: &Deadline) {
    socket.sender.finish();
    deadline.arm(ALERT_LINGER);
    for _ in 0..ALERT_LINGER_READS {
        let Ok(Ok(true)) = deadline.run(socket.receiver.discard()).await else {
            return;
        };
    }
}

/// Time for a refused client to take note of the alert.
const ALERT_LINGER: Duration = Duration::from_secs(1);
/// Reads meanwhile: what a client sends behind a refused handshake is little.
const ALERT_LINGER_READS: usize = 16;
/// The content type of a record that a ClientHello comes in.
const TLS_HANDSHAKE: u8 = 22;
