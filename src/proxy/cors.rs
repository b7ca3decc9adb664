//! Which pages' scripts may call a location (the Fetch standard's CORS
//! protocol).
//!
//! A browser asks first and calls then, and both times the answer is the
//! location's, whatever the backend says. Other callers send no Origin, and
//! nothing is asked of them here. A page's own origin is no exception: whether
//! it is the same as this server's is for the page's Host to say, which a name
//! that leads here can be made to (DNS rebinding).

use crate::config::Cors;
use crate::http::head::Method;
use crate::telemetry::error_log::Level;

use super::exchange::{BodySize, ResponseSink};
use super::forward::Failure;
use super::log;
use super::request::Request;
use super::respond;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is served.
    Pass,
    /// It asks what is allowed, and is answered by [`preflight`].
    Preflight,
}

/// Judges a request by its Origin.
///
/// # Errors
/// 403 where that is not allowed.
pub(crate) fn judge(request: &Request<'_>, cors: &Cors) -> Result<Verdict, Failure> {
    let bytes = request.head_bytes();
    let Some(origin) = request.head.find(bytes, b"Origin").next() else {
        return Ok(Verdict::Pass);
    };
    if allowed_origin(request, cors).is_none() {
        log::request_error(
            request,
            Level::Error,
            format_args!(
                "origin \"{}\" is not allowed",
                String::from_utf8_lossy(origin).escape_debug()
            ),
        );
        return Err(Failure::Status(403));
    }
    let asks = request
        .head
        .find(bytes, b"Access-Control-Request-Method")
        .next();
    Ok(if request.method() == Method::Options && asks.is_some() {
        Verdict::Preflight
    } else {
        Verdict::Pass
    })
}

/// Answers a preflight: 204 with what is allowed.
///
/// # Errors
/// When the client cannot be written to.
pub(crate) async fn preflight(
    request: &mut Request<'_>,
    cors: &Cors,
    sink: &mut impl ResponseSink,
) -> Result<(), Failure> {
    request.answer.status = 204;
    respond::start(request, sink, 204);
    fields(request, cors, sink);
    sink.field(b"Access-Control-Allow-Methods", cors.methods.as_bytes());
    let bytes = request.head_bytes();
    let asked = request
        .head
        .find(bytes, b"Access-Control-Request-Headers")
        .next();
    match (&cors.headers, asked) {
        (Some(headers), _) => sink.field(b"Access-Control-Allow-Headers", headers.as_bytes()),
        (None, Some(asked)) => sink.field(b"Access-Control-Allow-Headers", asked),
        (None, None) => {}
    }
    if let Some(seconds) = cors.max_age {
        let seconds = seconds.to_string();
        sink.field(b"Access-Control-Max-Age", seconds.as_bytes());
    }
    sink.end_head(BodySize::None);
    sink.finish().await.map_err(|_| Failure::Aborted)
}

/// The fields of every answer; those of the backend have been left out.
pub(crate) fn fields(request: &Request<'_>, cors: &Cors, sink: &mut impl ResponseSink) {
    if cors.is_open() {
        sink.field(b"Access-Control-Allow-Origin", b"*");
    } else {
        // Said also to those who send no Origin: a cache serves both.
        sink.field(b"Vary", b"Origin");
        let Some(origin) = allowed_origin(request, cors) else {
            return;
        };
        sink.field(b"Access-Control-Allow-Origin", origin);
        if cors.credentials {
            sink.field(b"Access-Control-Allow-Credentials", b"true");
        }
    }
    if let Some(exposed) = &cors.exposed {
        sink.field(b"Access-Control-Expose-Headers", exposed.as_bytes());
    }
}

/// The request's only Origin, if it is allowed.
fn allowed_origin<'r>(request: &'r Request<'_>, cors: &Cors) -> Option<&'r [u8]> {
    let mut origins = request.head.find(request.head_bytes(), b"Origin");
    let origin = origins.next()?;
    (origins.next().is_none() && cors.allows(origin)).then_some(origin)
}

/// Whether a backend's field is ours to say.
pub(crate) fn owns(name: &[u8]) -> bool {
    const FAMILY: &[u8] = b"access-control-";
    name.get(..FAMILY.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(FAMILY))
}
