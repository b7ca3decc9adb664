//! THE request path, top to bottom: what happens to one request, whatever
//! version of HTTP brought it.
//!
//! Each phase either hands on to the next or settles the answer. What each
//! can still tell the client is noted where it stands.

use crate::config::{Handler, Location};
use crate::http::uri::escape_uri;
use crate::telemetry::error_log::Level;
use crate::tls::authorization::judge;

use super::access;
use super::exchange::{BodySize, BodySource, ResponseSink};
use super::forward::{Failure, forward};
use super::limits;
use super::log;
use super::measure;
use super::request::Request;
use super::respond;
use super::route::{self, Route};

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// With a whole response, or none at all where that was wanted (444).
    Done,
    /// With a response cut off: the connection must be closed so that the
    /// client can tell.
    CutOff,
}

/// Answers one request. The request names its server block; its location is
/// found here.
///
/// Cancelling it cuts the response off and leaves no log line.
pub(crate) async fn serve<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    body: &mut B,
    sink: &mut S,
) -> Served {
    let outcome = match answer(request, body, sink).await {
        // Nothing has been sent: an error page can be.
        Err(Failure::Status(status)) => {
            let sent = respond::error(request, status, sink).await;
            sent.map_err(|_| Failure::Aborted)
        }
        outcome => outcome,
    };
    request.answer.body_bytes = sink.body_bytes();
    match outcome {
        Ok(()) => {
            request.answer.complete = true;
            Served::Done
        }
        Err(_) => {
            if request.answer.status == 0 {
                // Nginx's own number for "the client closed the request".
                request.answer.status = 499;
            }
            Served::CutOff
        }
    }
}

async fn answer<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    body: &mut B,
    sink: &mut S,
) -> Result<(), Failure> {
    // Phase 1, identity: a client whose certificate was not accepted is told
    // so, whatever it asks for (495, 496: 400 on the wire), and a connection
    // made under one policy does not reach a host with another. 421.
    identify(request)?;

    // Phase 2, location: the path as the locations see it. 400 if it has none.
    let path = request.head.path.of(request.head_bytes());
    request.normalized = route::normalize(path, request.server).map_err(|error| {
        log::request_error(request, Level::Info, format_args!("client sent {error}"));
        Failure::Status(400)
    })?;
    let (location, add_slash) = match route::location(request.server, request.path()) {
        Route::Location(location, regex) => {
            request.location_regex = regex;
            (location, false)
        }
        Route::AddSlash(location) => (location, true),
    };
    request.location = location;
    body.set_limits(location.client_body_timeout, location.client_max_body_size);
    if !request.may_be_followed() {
        sink.close_after();
    } else if let Some(timeout) = location.keepalive_header {
        sink.announce_keep_alive(timeout);
    }

    // Phase 3, authorization: who may, by the rules that hold now. 496 without
    // a certificate where one is demanded, 403 by the rules or by address, 401
    // without a password; all before the client learns what the location is or
    // a byte reaches a backend.
    authorize(request, location)?;
    // As in Nginx, what rewriting answers (`return`) is said to everybody.
    if !add_slash && !matches!(location.handler, Handler::Return(_)) {
        if let Some(limits) = &location.limits {
            limits::check(request, limits).await?;
        }
        if let Some(rules) = &location.access {
            access::check(request, rules).await?;
        }
    }

    // Phase 4, limits: what is known to be too much is refused before a byte
    // of it is read. 413.
    let limit = location.client_max_body_size;
    if let BodySize::Known(length) = body.size()
        && limit > 0
        && length > limit
    {
        log::request_error(
            request,
            Level::Error,
            format_args!("client intended to send too large body: {length} bytes"),
        );
        return Err(Failure::Status(413));
    }

    // Phase 5, the answer itself.
    if add_slash {
        let mut target = Vec::new();
        escape_uri(&mut target, request.path());
        target.push(b'/');
        if !request.query().is_empty() {
            target.push(b'?');
            target.extend_from_slice(request.query());
        }
        return respond::redirect(request, 301, &target, sink)
            .await
            .map_err(|_| Failure::Aborted);
    }
    match &location.handler {
        Handler::Return(answer) => respond::configured(request, answer, sink)
            .await
            .map_err(|_| Failure::Aborted),
        Handler::Proxy(proxy) => forward(request, proxy, body, sink).await,
        Handler::Metrics => measure::metrics(request, sink).await,
        Handler::StubStatus => measure::stub_status(request, sink).await,
        Handler::None => {
            if location.log_not_found {
                log::request_error(
                    request,
                    Level::Error,
                    format_args!("no handler is configured for this location"),
                );
            }
            Err(Failure::Status(404))
        }
    }
}

fn identify(request: &Request<'_>) -> Result<(), Failure> {
    let Some(tls) = &request.connection.tls else {
        return Ok(());
    };
    if let Some(unverified) = &tls.unverified
        && let Some(status) = unverified.status()
    {
        let refusal = unverified.refusal();
        log::request_error(
            request,
            Level::Error,
            format_args!("{refusal} while reading client request headers"),
        );
        return Err(Failure::Status(status));
    }
    if route::is_misdirected(&request.view.gateway, tls, request.server) {
        log::request_error(
            request,
            Level::Info,
            format_args!(
                "client attempted to request the server name different from the one that was negotiated"
            ),
        );
        return Err(Failure::Status(421));
    }
    Ok(())
}

/// Holds the client against `ssl_client_required` and the rules. Unlike
/// Nginx's `allow` and `deny` they also guard `return` and redirects: what is
/// said only to some clients is not said to others first.
fn authorize(request: &Request<'_>, location: &Location) -> Result<(), Failure> {
    let tls = request.connection.tls.as_ref();
    let client = tls.and_then(|tls| tls.client.as_ref());
    if location.client_required && client.is_none() {
        log::request_error(
            request,
            Level::Error,
            format_args!("client sent no required SSL certificate"),
        );
        return Err(Failure::Status(496));
    }
    let Some(rules) = &location.client_rules else {
        return Ok(());
    };
    judge(rules, client).map_err(|denial| {
        let identity = client.and_then(|client| client.identity());
        let subject = identity.and_then(|identity| identity.subject.as_deref());
        log::request_error(
            request,
            Level::Error,
            format_args!(
                "access forbidden, {denial}, client certificate subject: \"{}\"",
                subject.unwrap_or("")
            ),
        );
        Failure::Status(403)
    })
}
