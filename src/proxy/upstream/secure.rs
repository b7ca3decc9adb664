//! TLS towards a backend: who it must be, and the handshake.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use super::certificates;
use crate::config::{Part, Proxy, ProxyTls, UpstreamAddress, Variable};
use crate::net::buffers::{Buffer, Class};
use crate::net::deadlines::Deadline;
use crate::net::socket::{Behind, Socket};
use crate::proxy::gateway::Gateway;
use crate::proxy::handshake::{grow, send};
use crate::proxy::input::Input;
use crate::proxy::pool::{Connection, Key, LinkFacts, TlsKey, TlsKeyRef};
use crate::proxy::request::Request;
use crate::proxy::route;
use crate::proxy::transport::{Linger, Transport};
use crate::proxy::variables::expand_to_vec;
use crate::tls;
use crate::tls::ciphers::openssl_name;
use crate::tls::session::{ClientEstablished, HandshakeError};
use crate::tls::upstream::{
    BeginError, ServerRefusal, UpstreamTls, take_server_refusal, without_port,
};

/// How TLS is spoken to a backend, for one request.
#[derive(Debug)]
pub(in crate::proxy) struct Secure<'v> {
    tls: Chosen<'v>,
    name: Cow<'v, str>,
}

/// The settings that a request's connection is made under.
#[derive(Debug)]
enum Chosen<'v> {
    /// The location's own.
    Fixed(&'v UpstreamTls),
    /// With a certificate that the request has named.
    Named(Arc<UpstreamTls>),
}

impl Deref for Chosen<'_> {
    type Target = UpstreamTls;

    fn deref(&self) -> &UpstreamTls {
        match self {
            Self::Fixed(tls) => tls,
            Self::Named(tls) => tls,
        }
    }
}

impl<'v> Secure<'v> {
    /// `None` for a backend without TLS.
    ///
    /// # Errors
    /// `proxy_ssl_name` gives what is no text, or a certificate that the request
    /// names cannot be had. Cancelling it does nothing.
    pub(in crate::proxy) async fn of<'r>(
        request: &mut Request<'r>,
        proxy: &'v Proxy,
    ) -> Result<Option<Self>, SecureError>
    where
        'r: 'v,
    {
        // What an earlier `proxy_pass` of this request named is no more.
        request.upstream_certificate = None;
        let mut secure = Self::without_certificate(request, proxy)?;
        if let Some(settings) = &proxy.tls
            && let Some(named) = &settings.named
            && let Some(secure) = &mut secure
        {
            // Boxed: rare, and every other request would have room for it.
            let chosen = Box::pin(certificates::choose(request, settings, named)).await;
            let chosen = chosen.map_err(SecureError::Certificate)?;
            request.upstream_certificate.clone_from(&chosen);
            if let Some(tls) = chosen {
                secure.tls = Chosen::Named(tls);
            }
        }
        Ok(secure)
    }

    /// For a backend that is asked how it is, on nobody's behalf. `None` where no
    /// request's say can be done without.
    pub(in crate::proxy) fn for_check(
        gateway: &'v Gateway,
        settings: &ProxyTls,
        host: &'v str,
    ) -> Option<Self> {
        let name = match &*settings.name.parts {
            [Part::Variable(Variable::ProxyHost)] => Cow::Borrowed(without_port(host)),
            [Part::Literal(literal)] => {
                let name = std::str::from_utf8(literal).ok()?;
                Cow::Owned(without_port(name).to_owned())
            }
            _ => return None,
        };
        Some(Self {
            tls: Chosen::Fixed(gateway.upstream_tls(settings.id)?),
            name,
        })
    }

    fn without_certificate<'r>(
        request: &Request<'r>,
        proxy: &'v Proxy,
    ) -> Result<Option<Self>, SecureError>
    where
        'r: 'v,
    {
        let Some(settings) = &proxy.tls else {
            return Ok(None);
        };
        if !request.is_proxied_securely(proxy) {
            return Ok(None);
        }
        let Some(tls) = request.view.gateway.upstream_tls(settings.id) else {
            return Err(SecureError::NotBuilt);
        };
        let name = match &*settings.name.parts {
            [Part::Variable(Variable::ProxyHost)] => match &request.destination {
                None => Cow::Borrowed(without_port(&proxy.host)),
                Some(destination) => Cow::Owned(without_port(&destination.host).to_owned()),
            },
            [Part::Literal(literal)] => {
                let name = std::str::from_utf8(literal).map_err(|_| SecureError::NoName)?;
                Cow::Borrowed(without_port(name))
            }
            _ => {
                let name = String::from_utf8(expand_to_vec(&settings.name, request))
                    .map_err(|_| SecureError::NoName)?;
                Cow::Owned(without_port(&name).to_owned())
            }
        };
        Ok(Some(Self {
            tls: Chosen::Fixed(tls),
            name,
        }))
    }

    /// What a pooled connection must have been made under.
    pub(in crate::proxy) fn key(&self) -> TlsKeyRef<'_> {
        (self.tls.identity(), &self.name)
    }

    /// The handshake on a socket just connected, until the deadline, which is
    /// armed. Whatever the backend has said before is part of it, so nothing
    /// that came in the clear is ever taken for an answer.
    ///
    /// # Errors
    /// See [`SecureError`]; an alert has been sent where one was in order.
    /// Cancelling it closes the connection without one.
    pub(in crate::proxy) async fn handshake(
        &self,
        mut socket: Socket,
        address: &UpstreamAddress,
        deadline: &Deadline,
    ) -> Result<Connection, SecureError> {
        let begun = self.tls.begin(address, &self.name);
        let mut handshake = begun.map_err(SecureError::Begin)?;
        let mut buffer = Buffer::take(Class::Small);
        let mut filled = 0;
        let mut out = Vec::new();
        loop {
            let incoming = buffer.get_mut(..filled).unwrap_or_default();
            // What an earlier handshake on this thread left is not about this one.
            take_server_refusal();
            let result = handshake.process(incoming, &mut out);
            // Before anything is awaited: the next handshake would overwrite it.
            let refusal = take_server_refusal();
            if !out.is_empty() {
                // The request follows, and the last flight leaves with it.
                let is_last = result.as_ref().is_ok_and(|made| made.done.is_some());
                let behind = Behind::more_if(is_last);
                let sent = send(&mut socket, deadline, &mut out, behind).await;
                if let (Ok(_), Err(error)) = (&result, sent) {
                    return Err(SecureError::of_io("send()", error));
                }
            }
            let progress = result.map_err(|error| match refusal {
                Some(refusal) => SecureError::Refused(refusal),
                None => SecureError::Handshake(error),
            })?;
            let consumed = progress.consumed.min(filled);
            if let Some(established) = progress.done {
                let rest = buffer.get(consumed..filled).unwrap_or_default();
                return self.admit(socket, address, established, rest).await;
            }
            buffer.copy_within(consumed..filled, 0);
            filled -= consumed;
            if filled == buffer.len() {
                buffer = grow(buffer).ok_or(SecureError::TooLarge)?;
            }
            let range = filled..buffer.len();
            let received = deadline.run(socket.receiver.receive(buffer, range)).await;
            let (result, back) = received.map_err(|_| SecureError::TimedOut)?;
            buffer = back;
            match result {
                Ok(0) => return Err(SecureError::Closed),
                Ok(read) => filled += read,
                Err(error) => return Err(SecureError::of_io("recv()", error)),
            }
        }
    }

    /// The handshake is over: is this the backend that it should be? After a
    /// resumption that is judged here and nowhere else.
    async fn admit(
        &self,
        socket: Socket,
        address: &UpstreamAddress,
        established: ClientEstablished,
        rest: &[u8],
    ) -> Result<Connection, SecureError> {
        let verdict = if established.resumed {
            self.tls.admit(&established.peer_certificates, &self.name)
        } else {
            Ok(())
        };
        let input = Input::after_handshake(&established.early_plaintext, rest).unwrap_or_default();
        let transport = Transport::new(socket, Some(established.session), input);
        if let Err(refusal) = verdict {
            transport.close(Linger::NONE).await;
            return Err(SecureError::Refused(refusal));
        }
        let key = Key {
            address: address.clone(),
            tls: Some(Box::new(TlsKey {
                identity: *self.tls.identity(),
                name: (*self.name).into(),
            })),
            local: None,
        };
        let facts = LinkFacts {
            protocol: tls::protocol_name(established.version),
            cipher: openssl_name(established.suite.suite()),
            resumed: established.resumed,
        };
        let now = std::time::Instant::now();
        Ok(Connection::new(transport, key, Some(facts), now))
    }

    /// For the log: what the backend was asked for and shown.
    pub(in crate::proxy) fn context(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| {
            write!(f, ", name: \"{}\"", self.name)?;
            shown(&self.tls, f)
        })
    }
}

/// For the log: which certificate this location's backend is shown.
pub(super) fn certificate_shown(request: &Request<'_>) -> impl fmt::Display {
    let settings = route::proxy(request.location).and_then(|proxy| proxy.tls.as_ref());
    let fixed = settings.and_then(|settings| request.view.gateway.upstream_tls(settings.id));
    let tls = request.upstream_certificate.as_ref().or(fixed);
    fmt::from_fn(move |f| tls.map_or(Ok(()), |tls| shown(tls, f)))
}

fn shown(tls: &UpstreamTls, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match tls.certificate() {
        Some(certificate) => write!(
            f,
            ", client certificate: \"{}\" ({})",
            certificate.path.display(),
            certificate.subject
        ),
        None => f.write_str(", no client certificate"),
    }
}

/// Why there is no TLS connection to a backend.
#[derive(Debug)]
pub(in crate::proxy) enum SecureError {
    /// `proxy_connect_timeout` passed.
    TimedOut,
    /// The backend hung up.
    Closed,
    /// The kernel's word on a call.
    Io(&'static str, io::Error),
    /// It sent more than any handshake needs.
    TooLarge,
    /// It is not who it should be.
    Refused(ServerRefusal),
    /// Either side ended the handshake.
    Handshake(HandshakeError),
    /// It could not begin.
    Begin(BeginError),
    /// `proxy_ssl_name` gave no text.
    NoName,
    /// The configuration's settings are missing.
    NotBuilt,
    /// The certificate that the request names cannot be had.
    Certificate(String),
}

impl SecureError {
    fn of_io(call: &'static str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(call, error),
        }
    }

    /// What the client is told.
    pub(in crate::proxy) fn status(&self) -> u16 {
        match self {
            Self::TimedOut => 504,
            // As in Nginx: nothing that the backend did.
            Self::Certificate(_) => 500,
            _ => 502,
        }
    }
}

impl fmt::Display for SecureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("upstream timed out (110: Connection timed out)"),
            Self::Closed => f.write_str("peer closed connection in SSL handshake"),
            Self::Io(call, error) => write!(f, "{call} failed ({error})"),
            Self::TooLarge => f.write_str("upstream sent too large a message"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::Begin(error) => error.fmt(f),
            Self::NoName => f.write_str("\"proxy_ssl_name\" is no text"),
            Self::Certificate(why) => f.write_str(why),
            Self::NotBuilt => f.write_str("TLS to this upstream is not set up"),
        }
    }
}
