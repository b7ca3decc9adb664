//! THE request path, top to bottom: what happens to one request, whatever
//! version of HTTP brought it.
//!
//! Each phase either hands on to the next or settles the answer. What each
//! can still tell the client is noted where it stands.

use crate::config::{Handler, Location, ProxyHttpVersion, Server, VerifyClient};
use crate::http::uri;
use crate::telemetry::error_log::Level;
use crate::tls::authorization::judge;

use super::access;
use super::cors;
use super::exchange::{BodySize, BodySource, ResponseSink};
use super::files::{self, Content};
use super::forward::{Failure, Separate, forward};
use super::gzip::Filtered;
use super::limits;
use super::log;
use super::measure;
use super::real_ip;
use super::recover::{self, Instead, InternalRedirect};
use super::relay;
use super::request::{Captured, RedirectionCycle, Request};
use super::respond;
use super::rewrite::{self, Outcome, Tried};
use super::route::{self, Route};
use super::status;
use super::upstream::h2::Kept;

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// With a whole response, or none at all where that was wanted (444).
    Done,
    /// With a response cut off: the connection must be closed so that the
    /// client can tell.
    CutOff,
}

/// Where a request enters the phases.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry<'a> {
    /// It has arrived.
    Arrival,
    /// It has arrived, and is already known to deserve an error.
    Refused(u16),
    /// It was redirected to another path.
    Path,
    /// It was redirected to a named location.
    Named(&'a Location),
}

/// Answers one request. The request names its server block; its location is
/// found here.
///
/// Cancelling it cuts the response off and leaves no log line.
pub(crate) async fn serve<'a, B: BodySource, S: ResponseSink>(
    request: &mut Request<'a>,
    mut entry: Entry<'a>,
    body: &mut B,
    sink: &mut S,
) -> Served {
    let sink = &mut Filtered::new(sink);
    let outcome = loop {
        let status = match answer(request, entry, body, sink).await {
            Ok(Answered::Sent) => break Ok(()),
            Ok(Answered::Pass(next)) => {
                entry = next;
                continue;
            }
            // Nothing has been sent: something else can be.
            Err(Failure::Status(444)) => {
                respond::nothing(request, sink);
                break Ok(());
            }
            Err(Failure::Status(status)) => status,
            Err(Failure::Elsewhere) => match recover::after_accel(request, body) {
                Ok(next) => {
                    entry = next;
                    continue;
                }
                Err(status) => status,
            },
            Err(failure) => break Err(failure),
        };
        respond::close_after(status, sink);
        // Boxed: most requests succeed.
        let sent = match recover::after_error(request, status, body) {
            Instead::Pass(next) => {
                entry = next;
                continue;
            }
            Instead::Redirect(status, address) => {
                Box::pin(respond::redirect(request, status, &address, sink)).await
            }
            Instead::Page(status) => Box::pin(respond::error(request, status, sink)).await,
        };
        break sent.map_err(|_| Failure::Aborted);
    };
    request.answer.note_sent(sink);
    request.note_trailers(body);
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

/// How the phases ended that did not fail.
enum Answered<'a> {
    Sent,
    /// The request is to go through them once more.
    Pass(Entry<'a>),
}

/// The phases, in Nginx's order.
async fn answer<'a, B: BodySource, S: ResponseSink>(
    request: &mut Request<'a>,
    entry: Entry<'a>,
    body: &mut B,
    sink: &mut S,
) -> Result<Answered<'a>, Failure> {
    let server = request.server;
    let mut named = None;
    match entry {
        // Phase 1, identity: a client whose certificate was not accepted is
        // told so, whatever it asks for (495, 496: 400 on the wire), and a
        // connection made under one policy does not reach a host with another:
        // 421. Then the path as the locations see it: 400 if it has none.
        Entry::Arrival => {
            if let Err(failure) = identify(request) {
                request.target.is_barred = true;
                return Err(failure);
            }
            real_ip::apply(request, &server.root);
            if !uri::is_plain(request.path()) {
                normalize(request)?;
            }
        }
        Entry::Refused(status) => {
            request.target.is_barred = demands_certificate(server);
            return Err(Failure::Status(status));
        }
        Entry::Path => {}
        Entry::Named(location) => named = Some(location),
    }

    // Phase 2, the server's rewriting: may answer at once.
    if named.is_none() {
        request.location = &server.root;
        if has_script(&server.root) {
            match script(request, &server.root).await? {
                Outcome::Stay | Outcome::Find => {}
                outcome => {
                    authorize(request, &server.root)?;
                    answer_of_script(request, outcome, sink).await?;
                    return Ok(Answered::Sent);
                }
            }
        }
    }

    loop {
        // Phase 3, location; 404 for a client that asks for an internal one.
        let (location, add_slash) = match named.take() {
            Some(location) => (location, false),
            None => find(request)?,
        };
        request.location = limited(location, request);
        let location = request.location;

        // Which pages may call is asked of a browser before it says who it is,
        // so it is answered before that is asked. 403 for pages that may not.
        if let Some(cors) = &location.cors
            && cors::judge(request, cors)? == cors::Verdict::Preflight
        {
            announce(request, sink);
            cors::preflight(request, cors, sink).await?;
            return Ok(Answered::Sent);
        }

        // Phase 4, authorization: who may, by the rules that hold now. 496
        // without a certificate where one is demanded, 403 by the rules; both
        // before the client learns what the location is or a byte reaches a
        // backend. Then what is known to be too much is refused before a byte
        // of it is read: 413.
        authorize(request, location)?;
        check_length(request, location, body)?;
        if add_slash {
            let sent = respond::add_slash(request, sink).await;
            return sent.map(|()| Answered::Sent).map_err(|_| Failure::Aborted);
        }

        // Phase 5, the location's rewriting: may answer, or change the path and
        // with it the location.
        if !has_script(location) {
            break;
        }
        match script(request, location).await? {
            Outcome::Stay => break,
            Outcome::Find => request.count_change().map_err(|RedirectionCycle| {
                let path = String::from_utf8_lossy(request.path());
                log::request_error(
                    request,
                    Level::Error,
                    format_args!(
                        "rewrite or internal redirection cycle while processing \"{path}\""
                    ),
                );
                Failure::Status(500)
            })?,
            outcome => {
                answer_of_script(request, outcome, sink).await?;
                return Ok(Answered::Sent);
            }
        }
    }
    let location = request.location;
    body.set_limits(location.client_body_timeout, location.client_max_body_size);
    if let Some((rate, after)) = location.delivery.client_body_min_rate {
        body.demand_rate(rate, after);
    }
    announce(request, sink);

    // Phase 6, limits on requests and connections, then access by address, by
    // password and by what another location says. 503, 403, 401.
    real_ip::apply(request, location);
    if let Some(limits) = &location.limits {
        limits::check(request, limits, body).await?;
    }
    if let Some(rules) = &location.access
        && !request.target.is_subrequest
    {
        access::check(request, rules, body).await?;
    }

    // Phase 7, files that may be there.
    if let Some(tries) = &location.try_files
        && let Tried::Redirect(target) = rewrite::try_files(request, tries).await?
    {
        let entry = recover::follow(request, target).map_err(Failure::Status)?;
        return Ok(Answered::Pass(entry));
    }

    // Phase 8, the answer itself.
    match &location.handler {
        Handler::Return(answer) => answer_of_script(request, Outcome::Return(answer), sink).await?,
        Handler::Proxy(_) | Handler::Relay(_) if request.target.is_barred => {
            // Nor would another page do better.
            request.target.is_error_page = true;
            log::request_error(
                request,
                Level::Error,
                format_args!(
                    "an error page would pass the request of an unverified client to a backend"
                ),
            );
            return Err(Failure::Status(400));
        }
        // Boxed: large, and every other request would have room for it.
        Handler::Proxy(proxy) if proxy.http_version == ProxyHttpVersion::Http2 => {
            Box::pin(forward::<Kept, _, _>(request, proxy, body, sink)).await?;
        }
        Handler::Proxy(proxy) => forward::<Separate, _, _>(request, proxy, body, sink).await?,
        // Boxed: large, and every other request would have room for it.
        Handler::Relay(relay) => Box::pin(relay::relay(request, relay, body, sink)).await?,
        // Boxed: rare.
        Handler::Health(health) => Box::pin(status::answer(request, health, sink)).await?,
        Handler::Metrics => Box::pin(measure::metrics(request, sink)).await?,
        Handler::StubStatus => Box::pin(measure::stub_status(request, sink)).await?,
        Handler::EmptyGif => Box::pin(files::empty_gif(request, sink)).await?,
        // Boxed: it has many states, and most requests are not for files.
        Handler::Files => match Box::pin(files::serve(request, sink)).await? {
            Content::Sent => {}
            Content::Redirect(path) => {
                let redirect = InternalRedirect::Path(path, request.query().to_vec());
                let entry = recover::follow(request, redirect).map_err(Failure::Status)?;
                return Ok(Answered::Pass(entry));
            }
        },
    }
    Ok(Answered::Sent)
}

/// Decodes the path and takes the dots out of it.
fn normalize(request: &mut Request<'_>) -> Result<(), Failure> {
    let path = request.head.path.of(request.head_bytes());
    let mut normalized = Vec::with_capacity(path.len());
    let merge_slashes = request.server.connection.merge_slashes;
    uri::normalize(path, merge_slashes, &mut normalized).map_err(|error| {
        log::request_error(request, Level::Info, format_args!("client sent {error}"));
        Failure::Status(400)
    })?;
    request.target.path = Some(normalized);
    Ok(())
}

/// Whether the block does something before anything answers. Most don't, and are
/// spared a future.
fn has_script(block: &Location) -> bool {
    matches!(block.handler, Handler::Return(_)) || !block.script.is_empty()
}

/// What the block does before anything answers.
async fn script<'a>(
    request: &mut Request<'a>,
    block: &'a Location,
) -> Result<Outcome<'a>, Failure> {
    if let Handler::Return(answer) = &block.handler {
        return Ok(Outcome::Return(answer));
    }
    rewrite::run(request, &block.script).await
}

async fn answer_of_script<S: ResponseSink>(
    request: &mut Request<'_>,
    outcome: Outcome<'_>,
    sink: &mut S,
) -> Result<(), Failure> {
    announce(request, sink);
    let sent = match outcome {
        Outcome::Stay | Outcome::Find => Ok(()),
        // An error without a text of its own may have a page.
        Outcome::Return(answer)
            if answer.status == 444 || answer.status >= 400 && answer.text.is_none() =>
        {
            return Err(Failure::Status(answer.status));
        }
        Outcome::Return(answer) => respond::configured(request, answer, sink).await,
        Outcome::Redirect(status, address) => {
            respond::redirect(request, status, &address, sink).await
        }
    };
    sent.map_err(|_| Failure::Aborted)
}

/// The location of the request's path, and whether the answer is a redirect to
/// the path with a slash behind it.
fn find<'a>(request: &mut Request<'a>) -> Result<(&'a Location, bool), Failure> {
    let route = route::location(request.server, request.path()).map_err(|error| {
        log::request_error(request, Level::Error, format_args!("{error}"));
        Failure::Status(500)
    })?;
    let (location, pattern, add_slash) = match route {
        Route::Location(location, pattern) => (location, pattern, false),
        Route::AddSlash(location) => (location, None, true),
    };
    if location.internal && !request.target.is_internal {
        // Its pages and fields hold for this answer, too.
        request.location = location;
        return Err(Failure::Status(404));
    }
    if let Some(pattern) = pattern {
        if !pattern.named().is_empty()
            && let Ok(Some(groups)) = pattern.groups(request.path())
        {
            request.assign_groups(pattern, request.path(), &groups);
        }
        request.captured.replace(Captured::Path(pattern));
    }
    Ok((location, add_slash))
}

/// What holds for the request's method.
fn limited<'a>(location: &'a Location, request: &Request<'_>) -> &'a Location {
    match &location.limit_except {
        Some(limits) if !limits.methods.iter().any(|m| **m == *request.method_name()) => {
            &limits.location
        }
        _ => location,
    }
}

/// How the answer goes out, and whether more requests are welcome.
fn announce(request: &Request<'_>, sink: &mut impl ResponseSink) {
    let delivery = &request.location.delivery;
    if !delivery.chunked_transfer_encoding {
        sink.refuse_chunks();
    }
    // Also where there is none: another location may have set one.
    let rate = request.target.limit_rate;
    sink.limit_rate(
        rate.unwrap_or_else(|| respond::bytes_of(delivery.limit_rate.as_ref(), request)),
        respond::bytes_of(delivery.limit_rate_after.as_ref(), request),
    );
    if !request.may_be_followed() {
        sink.close_after();
    } else if let Some(timeout) = request.location.keepalive_header {
        sink.announce_keep_alive(timeout);
    }
}

fn check_length(
    request: &Request<'_>,
    location: &Location,
    body: &impl BodySource,
) -> Result<(), Failure> {
    let limit = location.client_max_body_size;
    match body.size() {
        BodySize::Known(length) if limit > 0 && length > limit => {
            log::request_error(
                request,
                Level::Error,
                format_args!("client intended to send too large body: {length} bytes"),
            );
            Err(Failure::Status(413))
        }
        _ => Ok(()),
    }
}

/// Whether only clients with a certificate are let in over TLS.
fn demands_certificate(server: &Server) -> bool {
    let tls = server.tls.as_ref();
    tls.is_some_and(|tls| tls.verify_client.value == VerifyClient::On)
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
    let client = tls.and_then(|tls| tls.client.as_deref());
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
