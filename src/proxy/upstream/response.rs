//! A backend's answer, on its way to the client.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::hint::cold_path;
use std::pin::pin;
use std::time::Duration;

use smallvec::SmallVec;

use crate::config::{Conditions, HiddenFields, IgnoredFields, Proxy, UpstreamPeer, units};
use crate::http::date::parse_date;
use crate::http::h1::framing::{self, Kind};
use crate::http::h1::parse::{HeadLimits, Status, parse_response};
use crate::http::head::{Field, FieldId, Method, ResponseHead, Version};
use crate::http::headers::{ConnectionOptions, is_hop_by_hop};
use crate::net::buffers::Class;
use crate::net::now::now;
use crate::proxy::body::{self, Incoming, RelayError};
use crate::proxy::buffering::Buffering;
use crate::proxy::exchange::{BodySize, BodySource, MAX_INTERIM, ResponseSink};
use crate::proxy::forward::{Failure, Target};
use crate::proxy::pace::Pace;
use crate::proxy::recover::InternalRedirect;
use crate::proxy::request::Request;
use crate::proxy::respond::{self as answers, Precedence};
use crate::proxy::transport::{Rx, TransportError, Tx};
use crate::proxy::variables::expand_to_vec;
use crate::proxy::{cookies, cors, files, log, redirect, tunnel};
use crate::telemetry::error_log::Level;

use super::hold::{Hold, is_clean};
use super::request::sent_method;
use super::{Broken, Cause, HEAD_PHASE, Reuse, closed_early, record, upstream_failed};

/// Bytes of a response's head that are taken in any case. Nginx's
/// `proxy_buffer_size` is one page unless told; this is four, and fits one
/// receive buffer together with its body's first bytes.
const USUAL_HEAD: usize = 16 << 10;
/// Bytes of a response's head at the most: what the largest receive buffer holds
/// with some of its body.
const LARGEST_HEAD: usize = 64 << 10;

pub(super) fn head_limits(proxy: &Proxy) -> HeadLimits {
    let bytes = proxy.filters.buffering.head;
    let bytes = bytes.clamp(USUAL_HEAD, LARGEST_HEAD);
    HeadLimits {
        line: bytes,
        total: bytes,
        fields: 256,
    }
}

/// What a backend asks of us by fields of its own: the first of each, where the
/// configuration does not ignore it.
#[derive(Debug, Default)]
pub(super) struct Accel<'b> {
    redirect: Option<&'b [u8]>,
    limit_rate: Option<&'b [u8]>,
    buffering: Option<&'b [u8]>,
}

impl<'b> Accel<'b> {
    pub(super) fn of(proxy: &Proxy, head: &ResponseHead, bytes: &'b [u8]) -> Self {
        let mut accel = Self::default();
        for field in &head.fields {
            if field.id == FieldId::XAccel {
                accel.note(&proxy.filters.ignored, field, bytes);
            }
        }
        accel
    }

    #[cold]
    fn note(&mut self, ignored: &IgnoredFields, field: &Field, bytes: &'b [u8]) {
        let name = field.name.of(bytes);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let kept = if is("X-Accel-Redirect") && !ignored.accel_redirect {
            &mut self.redirect
        } else if is("X-Accel-Limit-Rate") && !ignored.accel_limit_rate {
            &mut self.limit_rate
        } else if is("X-Accel-Buffering") && !ignored.accel_buffering {
            &mut self.buffering
        } else {
            return;
        };
        kept.get_or_insert(field.value.of(bytes));
    }

    /// Takes note of `X-Accel-Limit-Rate`, which holds wherever the answer comes
    /// from in the end.
    pub(super) fn note_limit_rate(&self, request: &mut Request<'_>) {
        if let Some(rate) = self.limit_rate
            && let Some(rate) = units::number(rate)
        {
            request.target.limit_rate = Some(rate);
        }
    }

    /// How many bytes of this response may wait for the client, if any.
    fn buffers(&self, proxy: &Proxy) -> Option<usize> {
        let buffering = &proxy.filters.buffering;
        let on = match self.buffering {
            Some(word) if word.eq_ignore_ascii_case(b"no") => false,
            Some(word) if word.eq_ignore_ascii_case(b"yes") => true,
            _ => buffering.on,
        };
        on.then_some(buffering.buffers)
    }
}

/// What the backend answered with.
pub(super) enum Answered {
    /// A response, which has reached the client.
    Response(Reuse),
    /// A 101, whose head is still in the receive buffer.
    Switching(Box<ResponseHead>),
}

/// Receives the response's head, sends ours, relays the body. A 101 is left to
/// the caller, who knows whether all of the request has been sent.
pub(super) async fn respond<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
    hold: &Hold<'_>,
    rx: &mut Rx<'_>,
    sink: &mut S,
) -> Result<Answered, Broken> {
    let peer = target.peer;
    let mut head = ResponseHead::default();
    receive_head(request, proxy, peer, &hold.all_sent, rx, sink, &mut head).await?;
    let traffic = rx.traffic();
    record(request, |attempt| {
        attempt.head_received = Some(now().duration_since(attempt.started));
        attempt.status = Some(head.status);
        attempt.traffic = traffic;
    });
    // Interim ones as well.
    let behind_head = rx.input.plain().len().saturating_sub(head.len) as u64;
    let heads = traffic.received.saturating_sub(behind_head);
    if head.status == 101 {
        return Ok(Answered::Switching(Box::new(head)));
    }
    if target.unwelcome.has_status(head.status) {
        return Err(Broken::Unwelcome(head.status));
    }
    let input = rx.input.plain();
    let framing = match framing::of_response(&head, input, sent_method(request, proxy)) {
        Ok(framing) => framing.kind(),
        Err(error) => return Err(invalid(request, peer, &error)),
    };
    let accel = Accel::of(proxy, &head, input);
    accel.note_limit_rate(request);
    let buffers = accel.buffers(proxy);
    if let Some(failure) = elsewhere(request, proxy, &accel, &head, input) {
        keep_fields(request, &head, input);
        return Err(Broken::Elsewhere(failure));
    }
    // An error page under a status that has no body: what there is stays behind.
    let is_cut = matches!(request.final_status(head.status), 204 | 304) && framing != Kind::Empty;
    let framing = if is_cut { Kind::Empty } else { framing };
    let options = ConnectionOptions::of(&head.fields, input);
    let persistent = match head.version {
        Version::Http11 | Version::Http2 => !options.close,
        Version::Http10 => options.keep_alive,
    };
    let persistent = persistent && !is_cut && framing != Kind::UntilClose;
    if proxy.filters.pass_trailers && framing == Kind::Chunked {
        sink.expect_trailers();
    }
    send_response_head(request, proxy, &head, &options, framing, input, sink);
    request.worker.keep_fields(std::mem::take(&mut head.fields));
    rx.input.consume(head.len);
    if request.method() == Method::Head && framing != Kind::Empty {
        cold_path();
        // `proxy_method` made it a GET: the client gets the head alone, and
        // the rest is left where it is.
        sink.finish().await.map_err(|_| Broken::Client(None))?;
        return Ok(Answered::Response(Reuse::No));
    }
    if let Some(rate) = &proxy.filters.limit_rate {
        rx.pace = Pace::new(answers::bytes_of(Some(rate), request), 0);
    }
    let mut incoming = Incoming::new(framing);
    let when_all_is_here = |rx: &mut Rx<'_>| hold.release(rx, persistent);
    let buffering =
        buffers.map(|limit| Buffering::new(limit, proxy.read_timeout, &when_all_is_here));
    let buffering = buffering.as_ref();
    let mut relayed = body::relay(&mut incoming, rx, sink, proxy.read_timeout, buffering).await;
    rx.pace = None;
    let received = rx.traffic().received.saturating_sub(heads);
    record(request, |attempt| attempt.received = received);
    if relayed.is_ok() {
        if proxy.filters.pass_trailers {
            pass_trailers(request, proxy, incoming.trailers.iter(), sink);
        }
        answers::add_trailers(request, sink);
        let finished = match buffering {
            Some(buffering) => buffering.last(pin!(sink.finish()), rx).await,
            None => sink.finish().await,
        };
        relayed = finished.map_err(RelayError::Client);
    }
    if let Some(released) = hold.released() {
        record(request, |attempt| {
            attempt.finished = Some(released - attempt.started);
        });
    }
    relayed.map_err(|error| relay_failed(request, peer, &error))?;
    let reuse = persistent && hold.released().is_none() && is_clean(rx);
    Ok(Answered::Response(Reuse::Yes.only_if(reuse)))
}

/// Tells the log why a body has stopped short.
#[cold]
fn relay_failed(request: &Request<'_>, peer: &UpstreamPeer, error: &RelayError) -> Broken {
    match error {
        RelayError::Client(error) => return client_failed(request, peer, error),
        RelayError::Upstream(error) => {
            upstream_failed(request, peer, error, "recv()", "reading upstream");
        }
        RelayError::Premature => closed_early(request, peer, "reading upstream"),
        RelayError::Invalid(error) => {
            invalid(request, peer, error);
        }
    }
    Broken::Upstream
}

/// Keeps what came behind a backend's body where a template asks for it, and
/// sends it on.
pub(super) fn pass_trailers<'t, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    trailers: impl Iterator<Item = (&'t [u8], &'t [u8])>,
    sink: &mut S,
) {
    for (name, value) in trailers {
        if request.view.gateway.records_response_fields() {
            let kept = &mut request.answer.upstream_trailers;
            kept.push((name.into(), value.into()));
        }
        let id = FieldId::of(name);
        let hidden = is_hop_by_hop(id)
            || id == FieldId::ContentLength
            || proxy
                .filters
                .hidden
                .hides(name, is_hidden_by_default(id, name));
        if !hidden {
            answers::put_trailer(request, sink, name, value);
        }
    }
}

#[cold]
pub(super) fn client_failed(
    request: &Request<'_>,
    peer: &UpstreamPeer,
    error: &TransportError,
) -> Broken {
    let message: &dyn fmt::Display = match error {
        TransportError::TimedOut => &"client timed out (110: Connection timed out)",
        error => &fmt::from_fn(move |f| write!(f, "send() {error}")),
    };
    log::upstream_error(
        request,
        Level::Info,
        Some(peer),
        format_args!("{message} while sending response to client"),
    );
    Broken::Client(None)
}

/// Whether something else is to answer than this response: the location that
/// the backend names, or the page for an error that the configuration has.
pub(super) fn elsewhere(
    request: &mut Request<'_>,
    proxy: &Proxy,
    accel: &Accel<'_>,
    head: &ResponseHead,
    bytes: &[u8],
) -> Option<Failure> {
    if let Some(target) = accel.redirect {
        return Some(redirected(request, proxy, target, head, bytes));
    }
    let status = head.status;
    let intercepts = proxy.filters.intercept_errors && status >= 300;
    if !intercepts || request.configured_page(status).is_none() {
        return None;
    }
    if status == 401 {
        let challenges = head.fields_of(bytes, FieldId::WwwAuthenticate);
        request.answer.challenges = challenges.map(<[u8]>::to_vec).collect();
    }
    Some(Failure::Status(status))
}

/// `X-Accel-Redirect`, with the fields that stay with the answer.
#[cold]
fn redirected(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &[u8],
    head: &ResponseHead,
    bytes: &[u8],
) -> Failure {
    let filters = &proxy.filters;
    let merge_slashes = request.server.connection.merge_slashes;
    let Some(redirect) = InternalRedirect::of_backend(target, merge_slashes) else {
        let shown = String::from_utf8_lossy(target);
        log::request_error(
            request,
            Level::Error,
            format_args!("unsafe URI \"{shown}\" was detected"),
        );
        return Failure::Status(404);
    };
    // As in Nginx these stay with the answer, wherever it comes from.
    let carried = head.fields.iter().filter(|field| {
        matches!(
            field.id,
            FieldId::ContentType
                | FieldId::SetCookie
                | FieldId::CacheControl
                | FieldId::Expires
                | FieldId::AcceptRanges
        ) || field
            .name
            .of(bytes)
            .eq_ignore_ascii_case(b"Content-Disposition")
    });
    let carried = carried.map(|field| {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        let rewritten = match (&filters.cookies, field.id) {
            (Some(rules), FieldId::SetCookie) => cookies::set_cookie(rules, value, request),
            _ => None,
        };
        (name.into(), rewritten.as_deref().unwrap_or(value).into())
    });
    request.answer.carried = carried.collect();
    request.target.accel = Some(redirect);
    Failure::Elsewhere
}

/// Keeps a backend's fields where a template asks for them: also those of an
/// answer that another location takes the place of, which may name them.
pub(super) fn keep_fields(request: &mut Request<'_>, head: &ResponseHead, bytes: &[u8]) {
    if request.view.gateway.records_response_fields() {
        let fields = head.fields.iter();
        let fields =
            fields.map(|field| (field.name.of(bytes).into(), field.value.of(bytes).into()));
        request.answer.upstream_fields.extend(fields);
    }
}

/// `early_hints`.
pub(super) fn passes_early_hints(request: &Request<'_>) -> bool {
    let mut words = request.location.delivery.early_hints.iter();
    words.any(|word| {
        let word = expand_to_vec(word, request);
        !word.is_empty() && word != b"0"
    })
}

pub(super) async fn send_early_hints<S: ResponseSink>(
    proxy: &Proxy,
    head: &ResponseHead,
    bytes: &[u8],
    sink: &mut S,
) -> Result<(), Broken> {
    let options = ConnectionOptions::of(&head.fields, bytes);
    let fields = head.fields.iter().filter_map(|field| {
        let name = field.name.of(bytes);
        let hidden = field.id == FieldId::ContentLength
            || is_hop_by_hop(field.id)
            || options.names(name, |_| false)
            || proxy
                .filters
                .hidden
                .hides(name, is_hidden_by_default(field.id, name));
        (!hidden).then(|| (name, field.value.of(bytes)))
    });
    let fields = fields.collect::<SmallVec<[_; 8]>>();
    sink.early_hints(&fields)
        .await
        .map_err(|_| Broken::Client(None))
}

/// Tells the log; the result is for where no head has been passed on yet.
#[cold]
pub(super) fn invalid(
    request: &Request<'_>,
    peer: &UpstreamPeer,
    error: &dyn fmt::Display,
) -> Broken {
    log::upstream_error(
        request,
        Level::Error,
        Some(peer),
        format_args!("upstream sent {error} while reading response from upstream"),
    );
    Broken::Unanswered(502, Conditions::INVALID_HEADER)
}

/// Reads until the final response's head is there; interim ones are dropped,
/// because a 100 has been answered here, but for early hints where they are
/// asked for.
async fn receive_head<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    all_sent: &Cell<bool>,
    rx: &mut Rx<'_>,
    sink: &mut S,
    head: &mut ResponseHead,
) -> Result<(), Broken> {
    let limits = head_limits(proxy);
    let mut interim = 0;
    let mut untouched = true;
    loop {
        if !rx.input.plain().is_empty() {
            if head.fields.capacity() == 0 {
                head.fields = request.worker.take_fields();
            }
            match parse_response(rx.input.plain(), &limits, head) {
                Ok(Status::Complete) if head.status == 101 || head.status >= 200 => return Ok(()),
                Ok(Status::Complete) if interim == MAX_INTERIM => {
                    return Err(invalid(request, peer, &"too many interim responses"));
                }
                Ok(Status::Complete) => {
                    cold_path();
                    interim += 1;
                    if head.status == 103 && passes_early_hints(request) {
                        let hints = send_early_hints(proxy, head, rx.input.plain(), sink);
                        // Boxed: rare, and every other response would have room
                        // for it.
                        Box::pin(hints).await?;
                    }
                    rx.input.consume(head.len);
                    head.clear();
                    continue;
                }
                Ok(Status::Partial) => {}
                Err(error) => return Err(invalid(request, peer, &error)),
            }
        }
        // While the request is being sent, that has limits of its own; whoever
        // sends it arms this anew when it is done.
        let timeout = match all_sent.get() {
            true => proxy.read_timeout,
            false => Duration::MAX,
        };
        match rx.fill_later(Class::Medium, timeout).await {
            Ok(0) => return Err(no_head(request, peer, untouched, None)),
            Ok(_) => untouched = false,
            Err(error) => return Err(no_head(request, peer, untouched, Some(error))),
        }
    }
}

/// Nothing more will come, or an error has; `untouched` says that nothing has
/// come at all. Otherwise this tells the log.
#[cold]
fn no_head(
    request: &Request<'_>,
    peer: &UpstreamPeer,
    untouched: bool,
    error: Option<TransportError>,
) -> Broken {
    match error {
        None if untouched => Broken::Untouched(Cause::Closed),
        Some(error) if untouched => Broken::Untouched(Cause::Receive(error)),
        None => {
            closed_early(request, peer, HEAD_PHASE);
            Broken::Unanswered(502, Conditions::ERROR)
        }
        Some(error) => {
            let status = upstream_failed(request, peer, &error, "recv()", HEAD_PHASE);
            let reason = match error {
                TransportError::TimedOut => Conditions::TIMEOUT,
                TransportError::InputFull => Conditions::INVALID_HEADER,
                TransportError::Io(_) | TransportError::Tls(_) => Conditions::ERROR,
            };
            Broken::Unanswered(status, reason)
        }
    }
}

/// Writes our response head: what we say, then what the backend said, less
/// what was between it and us.
pub(super) fn send_response_head<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    head: &ResponseHead,
    options: &ConnectionOptions<'_>,
    framing: Kind,
    bytes: &[u8],
    sink: &mut S,
) {
    send_fields(request, proxy, head, options, bytes, sink);
    let announced = || {
        let value = head.field(bytes, FieldId::ContentLength)?;
        std::str::from_utf8(value).ok()?.parse().ok()
    };
    sink.end_head(match framing {
        Kind::Length(length) if request.method() == Method::Head => BodySize::Announced(length),
        Kind::Length(length) => BodySize::Known(length),
        Kind::Chunked | Kind::UntilClose => BodySize::Unknown,
        Kind::Empty if request.method() == Method::Head || head.status == 304 => {
            announced().map_or(BodySize::None, BodySize::Announced)
        }
        Kind::Empty if head.status == 204 => BodySize::None,
        // The answer to a HEAD that was no HEAD here (`proxy_method`).
        Kind::Empty => BodySize::Known(0),
    });
}

/// The status line and all fields but those that say how the body is framed.
fn send_fields<S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    head: &ResponseHead,
    options: &ConnectionOptions<'_>,
    bytes: &[u8],
    sink: &mut S,
) {
    let status = request.final_status(head.status);
    let filters = &proxy.filters;
    request.answer.status = status;
    // HTTP/2 has none.
    let is_own = status == head.status && head.version != Version::Http2;
    answers::begin(request, sink, status, is_own.then(|| head.reason.of(bytes)));
    // Where the backend's is wanted, having none counts too.
    if filters.hidden.hides(b"Server", true) {
        answers::put_server(request, sink);
    }
    // A date there must be (RFC 9110, section 6.6.1).
    if filters.hidden.hides(b"Date", true) || head.field(bytes, FieldId::Date).is_none() {
        answers::put_date(request, sink);
    }
    answers::put_challenges(request, sink);
    if let Some(rate) = request.target.limit_rate {
        let after = request.location.delivery.limit_rate_after.as_ref();
        sink.limit_rate(rate, answers::bytes_of(after, request));
    }
    keep_fields(request, head, bytes);
    let mut replaceable = SmallVec::<[(&[u8], &[u8]); 2]>::new();
    for field in &head.fields {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        let switches = status == 101 && field.id == FieldId::Upgrade;
        if field.id == FieldId::ContentLength
            || (is_hop_by_hop(field.id) && !switches)
            || options.names(name, |_| false)
            || (request.location.cors.is_some() && cors::owns(name))
            || filters
                .hidden
                .hides(name, is_hidden_by_default(field.id, name))
        {
            continue;
        }
        match answers::precedence(request.location, status, field.id) {
            Precedence::Backend => {}
            Precedence::Expires => {
                replaceable.push((name, value));
                continue;
            }
            Precedence::AddHeader => continue,
        }
        let rewritten = match (field.id, &filters.cookies) {
            (FieldId::Location, _) => redirect::location(&filters.redirects, value, request),
            (FieldId::Refresh, _) => redirect::refresh(&filters.redirects, value, request),
            (FieldId::SetCookie, Some(rules)) => cookies::set_cookie(rules, value, request),
            _ => None,
        };
        let charset = match field.id {
            // What is borrowed is the value as it is.
            FieldId::ContentType => match files::with_charset(request, value) {
                Cow::Owned(value) => Some(value),
                Cow::Borrowed(_) => None,
            },
            _ => None,
        };
        let value = charset.as_deref().or(rewritten.as_deref()).unwrap_or(value);
        answers::put_field(request, sink, name, value);
    }
    if let Some(cookie) = request.answer.sticky_cookie.take() {
        answers::put_field(request, sink, b"Set-Cookie", &cookie);
    }
    if let Some(learner) = request
        .answer
        .learner
        .take_if(|learner| learner.needs_head_only())
    {
        learner.learn(request);
    }
    let last_modified = || parse_date(head.field(bytes, FieldId::LastModified)?);
    let last_modified = request
        .location
        .expires
        .as_ref()
        .and_then(|_| last_modified());
    answers::add_headers_after(request, sink, status, &replaceable, last_modified);
}

pub(super) fn is_hidden_by_default(id: FieldId, name: &[u8]) -> bool {
    match id {
        FieldId::Server | FieldId::Date | FieldId::XPad => true,
        FieldId::XAccel => HiddenFields::BY_DEFAULT
            .iter()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(name)),
        _ => false,
    }
}

/// Sends a 101 on and carries what both sides say from there on.
pub(super) async fn switch<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    peer: &UpstreamPeer,
    head: &ResponseHead,
    (rx, tx): (&mut Rx<'_>, &mut Tx<'_>),
    (body, sink): (&mut B, &mut S),
) -> Result<Reuse, Broken> {
    let input = rx.input.plain();
    let options = ConnectionOptions::of(&head.fields, input);
    send_fields(request, proxy, head, &options, input, sink);
    sink.switch_protocols();
    body.switch_protocols();
    rx.input.consume(head.len);
    let limits = tunnel::Limits {
        idle: proxy.read_timeout,
        send: proxy.send_timeout,
    };
    let result = tunnel::tunnel((body, sink), (rx, tx), limits).await;
    result.map(|()| Reuse::No).map_err(|error| {
        let level = if error.is_clients() {
            Level::Info
        } else {
            Level::Error
        };
        log::upstream_error(
            request,
            level,
            Some(peer),
            format_args!("{error} while proxying upgraded connection"),
        );
        Broken::Tunnel
    })
}
