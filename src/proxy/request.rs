//! A request on its way through the phases, and the connection it came by.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regex::bytes::Regex;
use smallvec::SmallVec;

use crate::config::{ConnectionLimits, Listener, Location, Server, ServerId};
use crate::http::head::{Method, RequestHead};
use crate::net::addr::ClientAddr;
use crate::net::buffers::Buffer;
use crate::tls::client_auth::{UnverifiedClient, VerifiedClient};
use crate::tls::client_hello::Offer;

use super::limits::Limited;
use super::pool::LinkFacts;
use super::worker::{View, Worker};

/// A client connection, as its requests see it.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    /// Process-wide, from 1.
    pub(crate) serial: u64,
    pub(crate) client: ClientAddr,
    /// What the client connected to; asked for only when needed, because it
    /// costs a system call.
    pub(crate) local: OnceCell<Option<SocketAddr>>,
    /// Boxed: the task of every connection has room for it, and several times.
    pub(crate) tls: Option<Box<TlsFacts>>,
    /// Requests served before the present one.
    pub(crate) requests: u64,
}

/// What the handshake established.
#[derive(Debug)]
pub(crate) struct TlsFacts {
    /// The name in SNI.
    pub(crate) server_name: Option<Box<str>>,
    /// The same as the client sent it, where that differs.
    pub(crate) server_name_as_sent: Option<Box<str>>,
    /// The server block whose certificate and policy were used.
    pub(crate) server: ServerId,
    /// That block's client-authentication policy.
    pub(crate) policy: [u8; 32],
    /// That policy with its CRLs.
    pub(crate) demands: [u8; 32],
    /// The proof of the client's identity, if it gave one.
    pub(crate) client: Option<VerifiedClient>,
    /// A client that did not meet the policy and is here all the same; then
    /// there is no `client`.
    pub(crate) unverified: Option<Box<UnverifiedClient>>,
    pub(crate) protocol: &'static str,
    /// OpenSSL's name.
    pub(crate) cipher: &'static str,
    pub(crate) resumed: bool,
    pub(crate) alpn: Option<Vec<u8>>,
    /// The key exchange's group by OpenSSL's name.
    pub(crate) curve: &'static str,
    /// What the client offered, where a template asks for it.
    pub(crate) offer: Option<Box<Offer>>,
    /// The URIs of the certificate that the client was shown.
    pub(crate) own_uris: Arc<[Box<str>]>,
}

/// A parsed request, its place in the configuration, and what is known about
/// its answer so far.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) view: &'a View,
    pub(crate) connection: &'a ClientConnection,
    pub(crate) listener: &'a Listener,
    pub(crate) server: &'a Server,
    pub(crate) location: &'a Location,
    pub(crate) head: &'a RequestHead,
    /// Holds the head, from `base` on.
    pub(crate) buffer: Buffer,
    pub(crate) base: usize,
    /// The path, decoded and without dot segments, where that differs from
    /// what was sent.
    pub(crate) normalized: Option<Vec<u8>>,
    /// The location's regular expression, for captures.
    pub(crate) location_regex: Option<&'a Regex>,
    pub(crate) received: Instant,
    /// Head and body, bytes.
    pub(crate) length: u64,
    pub(crate) attempts: SmallVec<[Attempt; 2]>,
    pub(crate) answer: Answer,
    pub(crate) limited: Limited,
    /// Random, made when first asked for.
    pub(crate) id: OnceCell<[u8; 32]>,
}

/// One try at an upstream, for the log.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) upstream: usize,
    pub(crate) peer: usize,
    pub(crate) started: Instant,
    pub(crate) connected: Option<Duration>,
    pub(crate) head_received: Option<Duration>,
    pub(crate) finished: Option<Duration>,
    pub(crate) status: Option<u16>,
    pub(crate) received: u64,
    /// Over TLS, what was agreed on.
    pub(crate) tls: Option<LinkFacts>,
}

/// Names and values of fields.
pub(crate) type RecordedFields = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What was answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Behind the head, chunk framing included.
    pub(crate) body_bytes: u64,
    /// On the wire.
    pub(crate) bytes: u64,
    pub(crate) complete: bool,
    /// Values of `WWW-Authenticate`.
    pub(crate) challenges: Vec<Vec<u8>>,
    /// Fields sent and received, where a template asks for them.
    pub(crate) sent_fields: RecordedFields,
    pub(crate) upstream_fields: RecordedFields,
}

impl<'a> Request<'a> {
    /// The bytes that the head's spans point into.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        self.buffer.get(self.base..).unwrap_or_default()
    }

    pub(crate) fn method(&self) -> Method {
        self.head.method_id
    }

    /// `$uri`.
    pub(crate) fn path(&self) -> &[u8] {
        match &self.normalized {
            Some(path) => path,
            None => self.head.path.of(self.head_bytes()),
        }
    }

    /// `$args`.
    pub(crate) fn query(&self) -> &[u8] {
        self.head
            .query
            .map_or(&[], |query| query.of(self.head_bytes()))
    }

    /// Host and port as the client named them.
    pub(crate) fn authority(&self) -> &[u8] {
        self.head.host(self.head_bytes()).unwrap_or_default()
    }

    /// The server's limits on heads.
    pub(crate) fn limits(&self) -> &'a ConnectionLimits {
        &self.server.connection
    }

    /// `https` or `http`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.connection.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Whether the connection may carry another request after this one, as
    /// far as the configuration and the worker's state decide.
    pub(crate) fn may_be_followed(&self) -> bool {
        !self.location.keepalive_timeout.is_zero()
            && self.connection.requests + 1 < self.location.keepalive_requests
            && !self.worker.is_draining()
    }
}
