//! Answers that ringwall makes itself: `return`, redirects and error pages.

use crate::config::{Location, Return, ServerTokens};
use crate::http::error::{error_page, wire_status};
use crate::http::h1::encode::Sink;
use crate::http::head::Method;

use super::exchange::{BodySize, ResponseSink};
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
    sink.start(status, request.location.send_timeout);
    sink.field(b"Server", server_line(request.location).as_bytes());
    sink.field(
        b"Date",
        request.worker.clock.borrow_mut().http_date().as_bytes(),
    );
    for challenge in &request.answer.challenges {
        sink.field(b"WWW-Authenticate", challenge);
    }
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
    if answer.status == 444 {
        request.answer.status = 444;
        sink.close_after();
        return Ok(());
    }
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
            let content_type = match request.location.types.of_path(request.path()) {
                Some(known) => known.as_bytes().to_vec(),
                None => expand_to_vec(&request.location.default_type, request),
            };
            fixed(request, status, &content_type, &text, None, sink).await
        }
        // Nginx shows its page only for statuses that have one.
        (status, None) => error(request, status, sink).await,
    }
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

/// `scheme://host[:port]`, as the client sees this server.
pub(crate) fn write_origin(request: &Request<'_>, out: &mut Vec<u8>) {
    out.put(request.scheme().as_bytes());
    out.put(b"://");
    write_host(request, out);
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
    // After these the framing of what follows is not to be trusted.
    if matches!(status, 400 | 408 | 413 | 414 | 494..=497 | 500..=501 | 505) {
        sink.close_after();
    }
    let content_type: &[u8] = if page.is_empty() { b"" } else { b"text/html" };
    fixed(request, status, content_type, &page, None, sink).await
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
    let wire = wire_status(status);
    request.answer.status = wire;
    start(request, sink, wire);
    let bodiless = matches!(wire, 204 | 304) || wire < 200;
    if !bodiless && !content_type.is_empty() {
        sink.field(b"Content-Type", content_type);
    }
    if let Some(location) = location {
        sink.field(b"Location", location);
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
    sink.finish().await
}

/// `add_header`.
pub(crate) fn add_headers(request: &mut Request<'_>, sink: &mut impl ResponseSink, status: u16) {
    let ordinary = matches!(status, 200 | 201 | 204 | 206 | 301..=304 | 307 | 308);
    let location = request.location;
    let mut value = Vec::new();
    for header in location
        .add_headers
        .iter()
        .filter(|header| ordinary || header.always)
    {
        value.clear();
        expand(&header.value, request, &mut value);
        if !value.is_empty() {
            sink.field(&header.name, &value);
        }
    }
}
