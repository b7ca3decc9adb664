//! Answers that ringwall makes itself: `return`, redirects and error pages.

use std::net::IpAddr;

use crate::config::{Location, Return, ServerTokens, Template, units};
use crate::http::error::{error_page, wire_status};
use crate::http::h1::encode::Sink;
use crate::http::head::{FieldId, Method};
use crate::http::uri::escape_uri;

use super::cors;
use super::exchange::{BodySize, ResponseSink};
use super::files;
use super::freshness;
use super::gzip::Plan;
use super::request::Request;
use super::transport::TransportError;
use super::variables::{expand, expand_to_vec, put_display, write_host};

/// What `Server` says with `server_tokens on`.
const SERVER_WITH_VERSION: &str = concat!("ringwall/", env!("CARGO_PKG_VERSION"));
const SERVER: &str = "ringwall";

/// The value of `Server`, and the last line of an error page.
pub(crate) fn server_line(location: &Location) -> &'static str {
    match location.server_tokens {
        ServerTokens::Off => SERVER,
        ServerTokens::On | ServerTokens::Build => SERVER_WITH_VERSION,
    }
}

/// The fields that every response begins with.
pub(crate) fn start(request: &Request<'_>, sink: &mut impl ResponseSink, status: u16) {
    begin(request, sink, status, None);
    put_server(request, sink);
    put_date(request, sink);
    put_challenges(request, sink);
}

/// The status line, in a backend's words if it is its response, and what is to
/// become of the body.
pub(crate) fn begin(
    request: &Request<'_>,
    sink: &mut impl ResponseSink,
    status: u16,
    reason: Option<&[u8]>,
) {
    sink.start(status, reason, request.location.send_timeout);
    if let Some(plan) = Plan::of(request, status) {
        sink.compress(plan);
    }
}

/// Our own Server.
pub(crate) fn put_server(request: &Request<'_>, sink: &mut impl ResponseSink) {
    sink.field(b"Server", server_line(request.location).as_bytes());
}

/// Our own Date.
pub(crate) fn put_date(request: &Request<'_>, sink: &mut impl ResponseSink) {
    sink.field(
        b"Date",
        request.worker.clock.borrow_mut().http_date().as_bytes(),
    );
}

/// What a client must answer to be let in.
pub(crate) fn put_challenges(request: &Request<'_>, sink: &mut impl ResponseSink) {
    for challenge in &request.answer.challenges {
        sink.field(b"WWW-Authenticate", challenge);
    }
}

/// Adds a field, and keeps it where a template asks for what was sent.
pub(crate) fn put_field(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
    name: &[u8],
    value: &[u8],
) {
    if request.view.gateway.records_response_fields() {
        request.answer.sent_fields.push((name.into(), value.into()));
    }
    sink.field(name, value);
}

/// Adds a field behind the body, if there can be one, and keeps it where a
/// template asks for what was sent.
pub(crate) fn put_trailer(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
    name: &[u8],
    value: &[u8],
) {
    if !sink.takes_trailers() {
        return;
    }
    if request.view.gateway.records_response_fields() {
        let kept = &mut request.answer.sent_trailers;
        kept.push((name.into(), value.into()));
    }
    sink.trailer(name, value);
}

/// A number of bytes that a request may have a say in; 0 if it is none.
pub(crate) fn bytes_of(template: Option<&Template>, request: &Request<'_>) -> u64 {
    template
        .and_then(|template| units::offset(&expand_to_vec(template, request)))
        .unwrap_or(0)
}

/// `return`.
///
/// # Errors
/// When the client cannot be written to.
pub(crate) async fn configured(
    request: &mut Request<'_>,
    answer: &Return,
    sink: &mut impl ResponseSink,
) -> Result<(), TransportError> {
    // The text may name it.
    request.answer.status = request.final_status(answer.status);
    let text = answer
        .text
        .as_ref()
        .map(|text| expand_to_vec(text, request));
    match (answer.status, text) {
        (301 | 302 | 303 | 307 | 308, Some(url)) => {
            redirect(request, answer.status, &url, sink).await
        }
        (status, Some(text)) => {
            // By the path's extension, as Nginx has it even for `return`.
            let content_type = files::type_of_path(request);
            fixed(request, status, &content_type, &text, None, sink).await
        }
        // Nginx shows its page only for statuses that have one.
        (status, None) => error(request, status, sink).await,
    }
}

/// Status 444: the connection ends without an answer.
pub(crate) fn nothing(request: &mut Request<'_>, sink: &mut impl ResponseSink) {
    request.answer.status = 444;
    sink.close_after();
}

/// A redirect with Nginx's little page; a path is made absolute.
///
/// # Errors
/// When the client cannot be written to.
pub(crate) async fn redirect(
    request: &mut Request<'_>,
    status: u16,
    url: &[u8],
    sink: &mut impl ResponseSink,
) -> Result<(), TransportError> {
    let mut location = Vec::new();
    if url.starts_with(b"/") {
        write_origin(request, &mut location);
    }
    location.extend_from_slice(url);
    let mut page = Vec::new();
    error_page(status, Some(server_line(request.location)), &mut page);
    fixed(request, status, b"text/html", &page, Some(&location), sink).await
}

/// Sends the client to the same path with a slash behind it, arguments kept.
///
/// # Errors
/// When the client cannot be written to.
pub(crate) async fn add_slash(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
) -> Result<(), TransportError> {
    let mut target = Vec::new();
    escape_uri(&mut target, request.path());
    target.push(b'/');
    if !request.query().is_empty() {
        target.push(b'?');
        target.extend_from_slice(request.query());
    }
    redirect(request, 301, &target, sink).await
}

/// `scheme://host[:port]`, as the client sees this server; nothing where
/// redirects are relative.
pub(crate) fn write_origin(request: &Request<'_>, out: &mut Vec<u8>) {
    let redirects = &request.location.redirects;
    if !redirects.absolute {
        return;
    }
    out.put(request.scheme().as_bytes());
    out.put(b"://");
    if redirects.server_name && !request.server.name.is_empty() {
        out.put(request.server.name.as_bytes());
    } else if request.authority().is_empty() {
        let own = request.connection.local.get().copied().flatten();
        match own.map(|address| address.ip()) {
            Some(IpAddr::V4(ip)) => put_display(out, format_args!("{ip}")),
            Some(IpAddr::V6(ip)) => put_display(out, format_args!("[{ip}]")),
            None => {}
        }
    } else {
        write_host(request, out);
    }
    if !redirects.port {
        return;
    }
    let standard = if request.connection.tls.is_some() {
        443
    } else {
        80
    };
    let port = request
        .connection
        .local
        .get()
        .copied()
        .flatten()
        .map(|address| address.port());
    if let Some(port) = port.filter(|port| *port != standard) {
        put_display(out, format_args!(":{port}"));
    }
}

/// An error page.
///
/// # Errors
/// When the client cannot be written to.
pub(crate) async fn error(
    request: &mut Request<'_>,
    status: u16,
    sink: &mut impl ResponseSink,
) -> Result<(), TransportError> {
    let mut page = Vec::new();
    error_page(status, Some(server_line(request.location)), &mut page);
    close_after(status, sink);
    // Those were about what the backend wanted to be sent.
    request.answer.carried.retain(|(name, _)| {
        let id = FieldId::of(name);
        !matches!(id, FieldId::ContentType | FieldId::AcceptRanges)
    });
    let content_type: &[u8] = if page.is_empty() { b"" } else { b"text/html" };
    fixed(request, status, content_type, &page, None, sink).await
}

/// After some errors the framing of what follows is not to be trusted, whatever
/// page tells of them.
pub(crate) fn close_after(status: u16, sink: &mut impl ResponseSink) {
    if matches!(status, 400 | 408 | 413 | 414 | 494..=497 | 500..=501 | 505) {
        sink.close_after();
    }
}

/// A whole answer with this body.
///
/// # Errors
/// When the client cannot be written to.
pub(crate) async fn fixed(
    request: &mut Request<'_>,
    status: u16,
    content_type: &[u8],
    body: &[u8],
    location: Option<&[u8]>,
    sink: &mut impl ResponseSink,
) -> Result<(), TransportError> {
    let wire = wire_status(request.final_status(status));
    request.answer.status = wire;
    start(request, sink, wire);
    let bodiless = matches!(wire, 204 | 304) || wire < 200;
    let carried = carried_type(request);
    let content_type = carried.as_deref().unwrap_or(content_type);
    if !bodiless && !content_type.is_empty() {
        let content_type = files::with_charset(request, content_type).into_owned();
        put_field(request, sink, b"Content-Type", &content_type);
    }
    if let Some(location) = location {
        put_field(request, sink, b"Location", location);
    }
    add_headers(request, sink, wire);
    let size = match body.len() as u64 {
        _ if bodiless => BodySize::None,
        length if request.method() == Method::Head => BodySize::Announced(length),
        length => BodySize::Known(length),
    };
    sink.end_head(size);
    if let BodySize::Known(_) = size {
        sink.write(body).await?;
    }
    add_trailers(request, sink);
    sink.finish().await
}

/// The Content-Type that a backend gave what another location answers.
pub(crate) fn carried_type(request: &Request<'_>) -> Option<Vec<u8>> {
    let mut carried = request.answer.carried.iter();
    carried
        .rfind(|(name, _)| FieldId::of(name) == FieldId::ContentType)
        .map(|(_, value)| value.to_vec())
}

/// `expires` and `add_header`.
pub(crate) fn add_headers(request: &mut Request<'_>, sink: &mut impl ResponseSink, status: u16) {
    add_headers_after(request, sink, status, &[], None);
}

/// The same for a response that had fields of its own: `replaceable` are those
/// that `expires` takes the place of, if it has something to say.
pub(crate) fn add_headers_after(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
    status: u16,
    replaceable: &[(&[u8], &[u8])],
    last_modified: Option<i64>,
) {
    let location = request.location;
    if let Some(cors) = &location.cors {
        cors::fields(request, cors, sink);
    }
    // What the backend said that left the answer to this location.
    let carried = std::mem::take(&mut request.answer.carried);
    let mut carried_on: Vec<(&[u8], &[u8])> = Vec::new();
    for (name, value) in &carried {
        match FieldId::of(name) {
            FieldId::Expires | FieldId::CacheControl => carried_on.push((name, value)),
            FieldId::ContentType => {}
            _ => put_field(request, sink, name, value),
        }
    }
    let ordinary = is_ordinary(status);
    let expires = location.expires.as_deref().filter(|_| ordinary);
    match expires.and_then(|expires| freshness::terms(expires, last_modified, request)) {
        Some(terms) => {
            put_field(request, sink, b"Expires", &terms.expires);
            put_field(
                request,
                sink,
                b"Cache-Control",
                terms.cache_control.as_bytes(),
            );
        }
        None => {
            for (name, value) in replaceable.iter().chain(&carried_on) {
                put_field(request, sink, name, value);
            }
        }
    }
    let trailers = &location.delivery.trailers;
    if trailers.iter().any(|one| ordinary || one.always) {
        sink.expect_trailers();
    }
    let mut value = Vec::new();
    for header in location
        .add_headers
        .iter()
        .filter(|header| ordinary || header.always)
    {
        value.clear();
        expand(&header.value, request, &mut value);
        if !value.is_empty() {
            put_field(request, sink, &header.name, &value);
        }
    }
}

/// `add_trailer`: what is known only when the body has gone out.
pub(crate) fn add_trailers(request: &mut Request<'_>, sink: &mut impl ResponseSink) {
    let location = request.location;
    if location.delivery.trailers.is_empty() || !sink.takes_trailers() {
        return;
    }
    let ordinary = is_ordinary(request.answer.status);
    let mut value = Vec::new();
    for trailer in &location.delivery.trailers {
        if ordinary || trailer.always {
            value.clear();
            expand(&trailer.value, request, &mut value);
            if !value.is_empty() {
                put_trailer(request, sink, &trailer.name, &value);
            }
        }
    }
}

/// Whether `expires` and `add_header` without `always` are for this status.
fn is_ordinary(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301..=304 | 307 | 308)
}

/// What of a backend's fields gives way to the configuration's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precedence {
    /// It is sent.
    Backend,
    /// It is sent unless `expires` has something to say.
    Expires,
    /// `add_header` takes its place, or takes it away.
    AddHeader,
}

/// Who has the word on this field: Nginx adds Last-Modified and ETag in place
/// of the backend's, and all others beside them.
pub(crate) fn precedence(location: &Location, status: u16, id: FieldId) -> Precedence {
    let is_added = |name: &str| {
        location.add_headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case(name.as_bytes())
                && (header.always || is_ordinary(status))
        })
    };
    match id {
        FieldId::Expires | FieldId::CacheControl
            if location.expires.is_some() && is_ordinary(status) =>
        {
            Precedence::Expires
        }
        FieldId::ETag if is_added("ETag") => Precedence::AddHeader,
        FieldId::LastModified if is_added("Last-Modified") => Precedence::AddHeader,
        _ => Precedence::Backend,
    }
}
