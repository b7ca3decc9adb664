//! `gzip`: responses compressed on their way to the client.
//!
//! [`Plan`] is what the request says about it and [`Filtered`] what a response
//! makes of that: a sink in front of the protocol's own, which passes
//! everything on untouched until a plan is laid before it.

mod accept;
mod coder;
mod filter;

use std::sync::Arc;

use crate::config::{Gzip, GzipProxied, Handler};
use crate::http::head::{FieldId, Method, Version};

use super::request::Request;

pub(crate) use filter::{Filtered, weak};

/// What is known about compressing a response before its fields are.
#[derive(Debug)]
pub(crate) struct Plan {
    gzip: Arc<Gzip>,
    status: u16,
    is_head: bool,
    client: Client,
    /// The response is a backend's: as in Nginx the time of a file does not
    /// count as its Last-Modified.
    is_forwarded: bool,
    /// Unix time, seconds.
    now: u64,
}

/// What the client makes of a compressed response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Refuses,
    Accepts,
    /// It is a proxy, and whether it may have one depends on the response.
    AsProxy(GzipProxied),
}

impl Plan {
    /// The plan for a response of this status to this request; `None` where
    /// nothing is to be done in any case.
    pub(crate) fn of(request: &Request<'_>, status: u16) -> Option<Box<Self>> {
        let gzip = request.location.gzip.as_ref()?;
        gzip.coding.as_ref()?;
        Some(Box::new(Self {
            gzip: Arc::clone(gzip),
            status,
            is_head: request.method() == Method::Head,
            client: client(request, gzip),
            is_forwarded: matches!(request.location.handler, Handler::Proxy(_)),
            now: request.worker.clock.borrow().unix_ms() / 1000,
        }))
    }

    /// Whether a file of this type and size will be compressed, so that parts
    /// of it cannot be had.
    pub(crate) fn takes_file(request: &Request<'_>, content_type: &[u8], size: u64) -> bool {
        fit_for(request, content_type, size).is_some_and(|gzip| match client(request, gzip) {
            Client::Refuses => false,
            Client::Accepts => true,
            // Neither `expires` nor `add_header` has spoken yet; what they say
            // seldom matters to a file, which has a tag.
            Client::AsProxy(rules) => !(rules.no_etag && request.location.files.etag),
        })
    }

    /// Whether a file of this type and size is compressed for some.
    pub(crate) fn varies(request: &Request<'_>, content_type: &[u8], size: u64) -> bool {
        fit_for(request, content_type, size).is_some_and(|gzip| gzip.vary)
    }
}

fn fit_for<'a>(request: &Request<'a>, content_type: &[u8], size: u64) -> Option<&'a Gzip> {
    let gzip = request.location.gzip.as_deref()?;
    let coding = gzip.coding.as_ref()?;
    (size >= coding.min_length && coding.types.contains(content_type)).then_some(gzip)
}

/// Whether the client takes a file that is compressed already.
pub(crate) fn is_accepted(request: &Request<'_>, gzip: &Gzip) -> bool {
    // Nginx asks before the response has any of the fields that could keep it
    // from a proxy.
    client(request, gzip) != Client::Refuses
}

fn client(request: &Request<'_>, gzip: &Gzip) -> Client {
    let bytes = request.head_bytes();
    let field = |id| request.head.field(bytes, id);
    if !field(FieldId::AcceptEncoding).is_some_and(accept::gzip) {
        return Client::Refuses;
    }
    if request.head.version == Version::Http10 && !gzip.http10 {
        return Client::Refuses;
    }
    if let Some(agent) = request.head.find(bytes, b"User-Agent").next() {
        let is_disabled = gzip
            .disabled_for
            .iter()
            .any(|pattern| !matches!(pattern.groups(agent), Ok(None)));
        if is_disabled || (gzip.disabled_for_msie6 && accept::is_msie6(agent)) {
            return Client::Refuses;
        }
    }
    let rules = gzip.proxied;
    let is_proxy = request.head.find(bytes, b"Via").next().is_some();
    let is_authorized = || field(FieldId::Authorization).is_some();
    if !is_proxy || rules.any || (rules.auth && is_authorized()) {
        Client::Accepts
    } else if rules == GzipProxied::default() {
        Client::Refuses
    } else {
        Client::AsProxy(rules)
    }
}
