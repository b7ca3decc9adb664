//! What each variable is for a request, written into an output without an
//! allocation of its own.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{
    Geo, Groups, Mapped, Part, Pattern, TcpFact, Template, ValueSource, Variable, VariableId,
};
use crate::http::h1::encode::{Sink, decimal};
use crate::http::head::{FieldId, Version};
use crate::http::headers::same_field_name;
use crate::http::uri::{self, host_name};
use crate::net::addr::ClientAddr;
use crate::net::now::now;

use crate::telemetry::error_log::Level;

use super::gzip::weak;
use super::log;
use super::pool::LinkFacts;
use super::request::{Addressee, Attempt, Captured, RecordedFields, Request, takes_field};
use super::respond::bytes_of;

/// How deep variables may be made of variables.
const MAX_DEPTH: u8 = 32;

/// Appends the template's value for this request. The sink is a `dyn` one, so that
/// all who write variables share one copy of what writes them: a request comes by
/// here for the backend's fields and for the log.
pub(crate) fn expand(template: &Template, request: &Request<'_>, out: &mut dyn Sink) {
    for part in &template.parts {
        match part {
            Part::Literal(bytes) => out.put(bytes),
            Part::Variable(variable) => write_variable(variable, request, out),
        }
    }
}

/// The template's value in a buffer of its own, for what is rare.
pub(crate) fn expand_to_vec(template: &Template, request: &Request<'_>) -> Vec<u8> {
    let mut value = Vec::new();
    expand(template, request, &mut value);
    value
}

/// Appends one variable's value; nothing if it has none.
pub(crate) fn write_variable(variable: &Variable, request: &Request<'_>, out: &mut dyn Sink) {
    let head = request.head;
    let bytes = request.head_bytes();
    let tls = request.connection.tls.as_ref();
    let client = tls.and_then(|tls| tls.client.as_ref());
    let unverified = tls.and_then(|tls| tls.unverified.as_ref());
    // As in Nginx, what an unverified certificate says can be seen, and
    // `$ssl_client_verify` tells what it is worth.
    let identity = || match client {
        Some(client) => client.identity(),
        None => unverified.and_then(|unverified| unverified.claimed_identity()),
    };
    let details = || client.and_then(|client| client.details());
    let pem = || client.map_or("", |client| client.pem());
    let status = || request.view.gateway.metrics.status();
    match variable {
        Variable::Arg(name) => out.put(argument(request.query(), name.as_bytes())),
        Variable::Args => out.put(request.query()),
        Variable::BinaryRemoteAddr => match request.client().ip() {
            Some(IpAddr::V4(ip)) => out.put(&ip.octets()),
            Some(IpAddr::V6(ip)) => out.put(&ip.octets()),
            None => out.put(b"unix:"),
        },
        Variable::DocumentRoot => super::files::write_root(request, out),
        Variable::RequestFilename => super::files::write_uri(request, out),
        Variable::BodyBytesSent => decimal(out, request.answer.body_bytes),
        Variable::BytesSent => decimal(out, request.answer.bytes),
        Variable::Connection => decimal(out, request.connection.serial),
        Variable::ConnectionRequests => decimal(out, request.connection.requests + 1),
        Variable::ConnectionTime => {
            put_seconds(out, now().duration_since(request.connection.opened));
        }
        Variable::ConnectionsActive => decimal(out, status().active),
        Variable::ConnectionsReading => decimal(out, status().reading),
        Variable::ConnectionsWaiting => decimal(out, status().waiting),
        Variable::ConnectionsWriting => decimal(out, status().writing),
        Variable::ContentLength => put_field(request, FieldId::ContentLength, out),
        Variable::ContentType => put_field(request, FieldId::ContentType, out),
        Variable::Cookie(name) => out.put(cookie(request, name.as_bytes())),
        Variable::Uri => out.put(request.path()),
        Variable::GzipRatio => match request.answer.own_fields.gzip_ratio {
            0 => {}
            ratio => put_display(out, format_args!("{}.{:02}", ratio / 100, ratio % 100)),
        },
        Variable::Host => write_host(request, out),
        Variable::Hostname => out.put(request.view.gateway.hostname.as_bytes()),
        Variable::Http(name) => write_field(request, name.as_bytes(), out),
        Variable::Https => out.put(if tls.is_some() { b"on" } else { b"" }),
        Variable::IsRequestPort => {
            let port = uri::port(request.authority());
            out.put(port.map_or(b"", |_| b":"));
        }
        Variable::IsArgs => out.put(if request.query().is_empty() {
            b""
        } else {
            b"?"
        }),
        Variable::LimitConnStatus => {
            out.put(request.limited.connections.unwrap_or_default().as_bytes())
        }
        Variable::LimitRate => decimal(out, limit_rate(request)),
        Variable::LimitReqStatus => {
            out.put(request.limited.requests.unwrap_or_default().as_bytes())
        }
        Variable::Msec => {
            let now = request.worker.clock.borrow().unix_ms();
            put_display(out, format_args!("{}.{:03}", now / 1000, now % 1000));
        }
        Variable::NginxVersion => out.put(env!("CARGO_PKG_VERSION").as_bytes()),
        Variable::Pid => decimal(out, std::process::id().into()),
        Variable::Pipe => out.put(b"."),
        Variable::ProxyAddXForwardedFor => write_forwarded_for(request, out),
        Variable::ProxyHost => {
            if let Some(proxy) = super::route::proxy(request.location) {
                out.put(request.proxy_host(proxy).as_bytes());
            }
        }
        Variable::ProxyPort => {
            if let Some(proxy) = super::route::proxy(request.location) {
                let destination = request.destination.as_ref();
                let port = destination.map_or(proxy.port, |destination| destination.port);
                decimal(out, port.into());
            }
        }
        Variable::ProxyProtocolAddr => put_proxied(request, out, |(client, _)| client.ip()),
        Variable::ProxyProtocolPort => put_proxied(request, out, |(client, _)| client.port()),
        Variable::ProxyProtocolServerAddr => put_proxied(request, out, |(_, server)| server.ip()),
        Variable::ProxyProtocolServerPort => {
            put_proxied(request, out, |(_, server)| server.port());
        }
        Variable::ProxyProtocolTlv(name) => {
            let header = request.connection.proxy_header.as_ref();
            if let Some(value) = header.and_then(|header| header.tlv(name)) {
                out.put(&value);
            }
        }
        Variable::InvalidReferer => put_invalid_referer(request, out),
        Variable::RealipRemoteAddr => put_client(out, request.connection.client),
        Variable::RealipRemotePort => put_port(request.connection.client, out),
        Variable::RemoteAddr => put_client(out, request.client()),
        Variable::RemotePort => put_port(request.client(), out),
        Variable::RemoteUser => {
            if let Some((user, _)) = super::auth_basic::credentials(request) {
                out.put(&user);
            }
        }
        Variable::Request => out.put(head.line.of(bytes)),
        Variable::RequestBody => out.put(request.body.as_deref().unwrap_or_default()),
        Variable::RequestCompletion => out.put(if request.answer.complete { b"OK" } else { b"" }),
        Variable::RequestId => out.put(request.id.get_or_init(random_id)),
        Variable::RequestLength => decimal(out, request.length),
        // Of a subrequest: that of the request itself.
        Variable::RequestMethod if request.target.is_subrequest => out.put(head.method.of(bytes)),
        Variable::RequestMethod => out.put(request.method_name()),
        Variable::RequestPort => {
            if let Some(port) = uri::port(request.authority()) {
                decimal(out, port.into());
            }
        }
        Variable::RequestTime => put_seconds(out, now().duration_since(request.received)),
        Variable::RequestUri => out.put(head.target.of(bytes)),
        Variable::Scheme => out.put(request.scheme().as_bytes()),
        Variable::SentHttp(name) => put_sent(request, name, out),
        Variable::UpstreamCookie(name) => {
            out.put(cookie_set(&request.answer.upstream_fields, name.as_bytes()));
        }
        Variable::UpstreamHttp(name) => put_recorded(&request.answer.upstream_fields, name, out),
        Variable::SentTrailer(name) => put_recorded(&request.answer.sent_trailers, name, out),
        Variable::UpstreamTrailer(name) => {
            put_recorded(&request.answer.upstream_trailers, name, out);
        }
        Variable::ServerAddr => match local_address(request) {
            Some(address) => put_ip(out, address.ip().to_canonical()),
            None => out.put(b"unix:"),
        },
        Variable::ServerPort => {
            if let Some(address) = local_address(request) {
                decimal(out, address.port().into());
            }
        }
        Variable::ServerName => out.put(request.server.name.as_bytes()),
        Variable::ServerProtocol => out.put(match head.version {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
            Version::Http2 => b"HTTP/2.0",
        }),
        Variable::Http2 if head.version == Version::Http2 => {
            out.put(if tls.is_some() { b"h2" } else { b"h2c" });
        }
        Variable::Http2 => {}
        Variable::SslAlpnProtocol => {
            out.put(tls.and_then(|tls| tls.alpn.as_deref()).unwrap_or_default())
        }
        Variable::SslCipher => out.put(tls.map_or("", |tls| tls.cipher).as_bytes()),
        Variable::SslCiphers => out.put(
            tls.and_then(|tls| tls.offer.as_ref())
                .map_or("", |offer| &offer.ciphers)
                .as_bytes(),
        ),
        Variable::SslCurve => out.put(tls.map_or("", |tls| tls.curve).as_bytes()),
        Variable::SslCurves => out.put(
            tls.and_then(|tls| tls.offer.as_ref())
                .map_or("", |offer| &offer.curves)
                .as_bytes(),
        ),
        Variable::SslEarlyData => {}
        Variable::SslProtocol => out.put(tls.map_or("", |tls| tls.protocol).as_bytes()),
        Variable::SslServerName => out.put(
            tls.and_then(|tls| {
                tls.server_name_as_sent
                    .as_ref()
                    .or(tls.server_name.as_ref())
            })
            .map_or("", |name| name)
            .as_bytes(),
        ),
        Variable::SslSessionId => out.put(tls.map_or("", |tls| &tls.session_id).as_bytes()),
        Variable::SslSessionReused => out.put(
            tls.map_or("", |tls| if tls.resumed { "r" } else { "." })
                .as_bytes(),
        ),
        Variable::SslClientVerify => {
            let failure = unverified.and_then(|unverified| unverified.failure());
            let verdict = if client.is_some() { "SUCCESS" } else { "NONE" };
            match failure {
                Some(failure) => {
                    out.put(b"FAILED:");
                    out.put(failure.as_bytes());
                }
                None => {
                    // Also of a client without TLS on a TLS port (`ssl_permissive`).
                    let permissive = request.listener.ssl && request.server.permissive;
                    let asked = tls.is_some() || permissive;
                    out.put(if asked { verdict } else { "" }.as_bytes());
                }
            }
        }
        Variable::SslClientCert => put_lines(pem(), b"\n\t", out),
        Variable::SslClientCertUnfolded => put_lines(pem(), b" ", out),
        Variable::SslClientEscapedCert => {
            out.put(client.map_or("", |client| client.escaped_pem()).as_bytes())
        }
        Variable::SslClientRawCert => out.put(pem().as_bytes()),
        Variable::SslClientFingerprint => {
            put_identity(identity().map(|identity| &identity.fingerprint), out)
        }
        Variable::SslClientFingerprintSha256 => {
            put_identity(details().map(|details| &details.fingerprint_sha256), out)
        }
        Variable::SslClientIDnLegacy => put_identity(
            details().and_then(|details| details.issuer_legacy.as_ref()),
            out,
        ),
        Variable::SslClientSDnLegacy => put_identity(
            details().and_then(|details| details.subject_legacy.as_ref()),
            out,
        ),
        Variable::SslClientSanDns => put_names(details().map(|details| &*details.names.dns), out),
        Variable::SslClientSanEmail => {
            put_names(details().map(|details| &*details.names.email), out)
        }
        Variable::SslClientSanUri => put_names(details().map(|details| &*details.names.uri), out),
        Variable::SslClientVEnd => put_identity(details().map(|details| &details.valid_until), out),
        Variable::SslClientVRemain => {
            if let Some(identity) = identity() {
                const DAY: i64 = 86_400;
                let now = request.worker.clock.borrow().unix_ms() / 1000;
                let left = identity.not_after.saturating_sub_unsigned(now);
                decimal(out, u64::try_from(left / DAY).unwrap_or(0));
            }
        }
        Variable::SslClientVStart => {
            put_identity(details().map(|details| &details.valid_from), out)
        }
        Variable::SslClientIDn => put_identity(
            identity().and_then(|identity| identity.issuer.as_ref()),
            out,
        ),
        Variable::SslClientSDn => put_identity(
            identity().and_then(|identity| identity.subject.as_ref()),
            out,
        ),
        Variable::SslClientSerial => put_identity(identity().map(|identity| &identity.serial), out),
        Variable::Status => {
            // Until there is one, the error's whose page is fetched.
            let status = Some(request.answer.status).filter(|&status| status != 0);
            put_padded(
                out,
                status.or(request.target.error_status).unwrap_or(0).into(),
            );
        }
        Variable::TcpInfo(fact) => {
            if let Some(info) = request.connection.gauge.tcp_info() {
                let number = match fact {
                    TcpFact::RcvSpace => info.rcv_space,
                    TcpFact::Rtt => info.rtt,
                    TcpFact::RttVar => info.rttvar,
                    TcpFact::SndCwnd => info.snd_cwnd,
                };
                decimal(out, number.into());
            }
        }
        Variable::TimeIso8601 => {
            out.put(request.worker.clock.borrow_mut().time_iso8601().as_bytes())
        }
        Variable::TimeLocal => out.put(request.worker.clock.borrow_mut().time_local().as_bytes()),
        Variable::Trailer(name) => put_named(request.trailers.iter(), name, out),
        Variable::UpstreamAddr => {
            put_attempts(request, out, |attempt, out| match &attempt.addressee {
                Addressee::Peer(peer) => put_display(out, &peer.address),
                Addressee::Nobody(upstream) => out.put(upstream.name.as_bytes()),
            })
        }
        Variable::UpstreamStatus => {
            put_attempts(request, out, |attempt, out| match attempt.status {
                Some(status) => decimal(out, status.into()),
                // Whose client has gone.
                None => out.put(b"-"),
            });
        }
        Variable::UpstreamSslCipher => put_links(request, out, |link| link.cipher),
        Variable::UpstreamSslProtocol => put_links(request, out, |link| link.protocol),
        Variable::UpstreamSslSessionReused => {
            put_links(request, out, |link| if link.resumed { "r" } else { "." });
        }
        Variable::UpstreamConnectTime => put_times(request, out, |attempt| attempt.connected),
        Variable::UpstreamQueueTime => put_times(request, out, |attempt| attempt.queued),
        Variable::UpstreamHeaderTime => put_times(request, out, |attempt| attempt.head_received),
        Variable::UpstreamResponseTime => put_times(request, out, |attempt| attempt.finished),
        Variable::UpstreamBytesReceived => {
            put_attempts(request, out, |attempt, out| {
                decimal(out, attempt.traffic.received)
            });
        }
        Variable::UpstreamBytesSent => {
            put_attempts(request, out, |attempt, out| {
                decimal(out, attempt.traffic.sent)
            });
        }
        Variable::UpstreamResponseLength => {
            put_attempts(request, out, |attempt, out| decimal(out, attempt.received))
        }
        Variable::Capture(group) => write_capture(request, usize::from(*group), out),
        Variable::User(id) => write_user(request, *id, out),
        Variable::Absent => {}
    }
}

/// As in Nginx what the location says shows only when something has been sent.
fn limit_rate(request: &Request<'_>) -> u64 {
    if let Some(rate) = request.target.limit_rate {
        return rate;
    }
    if request.answer.bytes == 0 {
        return 0;
    }
    // A limit may be made of itself.
    let rate = request.location.delivery.limit_rate.as_ref();
    deeper(request, || bytes_of(rate, request)).unwrap_or(0)
}

/// A value that is made of others; `None` if that goes on for too long.
fn deeper<T>(request: &Request<'_>, evaluate: impl FnOnce() -> T) -> Option<T> {
    let depth = request.depth.get();
    if depth >= MAX_DEPTH {
        return None;
    }
    request.depth.set(depth + 1);
    let value = evaluate();
    request.depth.set(depth);
    Some(value)
}

/// What a client gave for this field name; several values are joined by
/// commas, cookies by semicolons, as Nginx does.
fn write_field(request: &Request<'_>, name: &[u8], out: &mut dyn Sink) {
    let separator: &[u8] = if name.eq_ignore_ascii_case(b"cookie") {
        b"; "
    } else {
        b", "
    };
    let bytes = request.head_bytes();
    let limits = request.limits();
    let named = request.head.fields.iter().filter(|field| {
        let given = field.name.of(bytes);
        same_field_name(given, name) && takes_field(limits, field.id, given)
    });
    for (index, field) in named.enumerate() {
        if index > 0 {
            out.put(separator);
        }
        out.put(field.value.of(bytes));
    }
}

fn put_field(request: &Request<'_>, id: FieldId, out: &mut dyn Sink) {
    out.put(
        request
            .head
            .field(request.head_bytes(), id)
            .unwrap_or_default(),
    );
}

/// `$host`: what the client asked for, in lower case and without port; the
/// server's name if it asked for nothing.
pub(crate) fn write_host(request: &Request<'_>, out: &mut dyn Sink) {
    let Some(host) = host_name(request.authority()) else {
        out.put(request.server.name.as_bytes());
        return;
    };
    if host.iter().any(u8::is_ascii_uppercase) {
        host.iter()
            .for_each(|byte| out.put(&[byte.to_ascii_lowercase()]));
    } else {
        out.put(host);
    }
}

/// `$proxy_add_x_forwarded_for`.
fn write_forwarded_for(request: &Request<'_>, out: &mut dyn Sink) {
    let bytes = request.head_bytes();
    for value in request.head.fields_of(bytes, FieldId::XForwardedFor) {
        out.put(value);
        out.put(b", ");
    }
    put_client(out, request.client());
}

/// The port of a client, if it has one: who is named in a field may have none.
fn put_port(client: ClientAddr, out: &mut dyn Sink) {
    if let Some(port) = client.port().filter(|port| *port > 0) {
        decimal(out, port.into());
    }
}

/// Of the addresses in the header in front of the connection.
fn put_proxied<T: fmt::Display>(
    request: &Request<'_>,
    out: &mut dyn Sink,
    part: impl Fn((SocketAddr, SocketAddr)) -> T,
) {
    let header = request.connection.proxy_header.as_ref();
    if let Some(addresses) = header.and_then(|header| header.addresses) {
        put_display(out, part(addresses));
    }
}

fn write_capture(request: &Request<'_>, group: usize, out: &mut dyn Sink) {
    match &*request.captured.borrow() {
        Captured::Host => {
            let mut host = Vec::new();
            write_host(request, &mut host);
            let groups = host_pattern(request, &host).and_then(|pattern| find(pattern, &host));
            out.put(
                groups
                    .and_then(|groups| groups.of(&host, group))
                    .unwrap_or_default(),
            );
        }
        Captured::Path(pattern) => {
            let path = request.path();
            let groups = find(pattern, path);
            out.put(
                groups
                    .and_then(|groups| groups.of(path, group))
                    .unwrap_or_default(),
            );
        }
        Captured::Kept(subject, groups) => out.put(groups.of(subject, group).unwrap_or_default()),
    }
}

/// The expression of `server_name` by which this server was found.
fn host_pattern<'a>(request: &Request<'a>, host: &[u8]) -> Option<&'a Pattern> {
    let regexes = &request.listener.hosts.regexes;
    let own = regexes.iter().filter(|(_, id)| *id == request.server.id);
    own.map(|(pattern, _)| pattern)
        .find(|pattern| pattern.is_match(host) == Ok(true))
}

fn find(pattern: &Pattern, subject: &[u8]) -> Option<Groups> {
    pattern.groups(subject).ok().flatten()
}

/// A variable that the configuration defines.
fn write_user(request: &Request<'_>, id: VariableId, out: &mut dyn Sink) {
    if let Some(Some(value)) = request.values.borrow().get(id) {
        out.put(value);
        return;
    }
    let Some(variable) = request.view.gateway.config.variables.get(id) else {
        return;
    };
    // A map may look at itself by way of others.
    let Some(value) = deeper(request, || evaluate(request, id, &variable.source)) else {
        log::request_error(
            request,
            Level::Error,
            format_args!("cycle while evaluating variable \"{}\"", variable.name),
        );
        return;
    };
    out.put(&value);
    let is_volatile = matches!(&variable.source, ValueSource::Map(map) if map.volatile);
    if !is_volatile {
        request.assign(id, &value);
    }
}

fn evaluate(request: &Request<'_>, id: VariableId, source: &ValueSource) -> Vec<u8> {
    match source {
        ValueSource::Assigned => {
            let mut host = Vec::new();
            write_host(request, &mut host);
            let pattern = host_pattern(request, &host);
            let groups = pattern.and_then(|pattern| Some((pattern, find(pattern, &host)?)));
            let value = groups.and_then(|(pattern, groups)| {
                let &(group, _) = pattern.named().iter().find(|(_, known)| *known == id)?;
                groups.of(&host, group).map(<[u8]>::to_vec)
            });
            value.unwrap_or_default()
        }
        ValueSource::Map(map) => {
            let source = expand_to_vec(&map.source, request);
            match map.find(&source) {
                Ok(Mapped {
                    value,
                    matched: None,
                }) => expand_to_vec(value, request),
                Ok(Mapped {
                    value,
                    matched: Some((pattern, groups)),
                }) => {
                    request.assign_groups(pattern, &source, &groups);
                    request.keep_groups(source.into(), groups);
                    expand_to_vec(value, request)
                }
                Err(error) => {
                    log::request_error(request, Level::Error, format_args!("{error}"));
                    Vec::new()
                }
            }
        }
        ValueSource::Geo(geo) => {
            let address = match &geo.source {
                None => request.client().ip(),
                Some(source) => {
                    let text = expand_to_vec(source, request);
                    std::str::from_utf8(&text)
                        .ok()
                        .and_then(|text| text.parse().ok())
                }
            };
            let Some(address) = address else {
                // A client on a UNIX socket, or no address at all.
                return geo.default.to_vec();
            };
            geo.find(behind_proxies(request, geo, address)).to_vec()
        }
        ValueSource::SplitClients(split) => {
            let source = expand_to_vec(&split.source, request);
            split
                .find(&source)
                .map(|value| expand_to_vec(value, request))
                .unwrap_or_default()
        }
    }
}

/// The template's value, in which the numbered variables are these groups.
pub(crate) fn expand_with_groups(
    template: &Template,
    request: &Request<'_>,
    subject: &[u8],
    groups: &Groups,
) -> Vec<u8> {
    let mut out = Vec::new();
    for part in &template.parts {
        match part {
            Part::Literal(bytes) => out.put(bytes),
            Part::Variable(Variable::Capture(group)) => {
                out.put(groups.of(subject, usize::from(*group)).unwrap_or_default());
            }
            Part::Variable(variable) => write_variable(variable, request, &mut out),
        }
    }
    out
}

/// The address that `X-Forwarded-For` names, if it comes from a proxy that
/// `geo` believes: the last, or with `proxy_recursive` the last that is no such
/// proxy itself.
fn behind_proxies(request: &Request<'_>, geo: &Geo, peer: IpAddr) -> IpAddr {
    let is_proxy = |address| geo.proxies.iter().any(|network| network.contains(address));
    if !is_proxy(peer) {
        return peer;
    }
    let bytes = request.head_bytes();
    let fields: Vec<_> = request
        .head
        .fields_of(bytes, FieldId::XForwardedFor)
        .collect();
    let mut client = peer;
    for entry in fields
        .iter()
        .rev()
        .flat_map(|field| field.rsplit(|byte| *byte == b','))
    {
        let text = std::str::from_utf8(entry.trim_ascii());
        let Some(address) = text.ok().and_then(|text| text.parse().ok()) else {
            break;
        };
        client = address;
        if !geo.recursive || !is_proxy(client) {
            break;
        }
    }
    client
}

fn local_address(request: &Request<'_>) -> Option<std::net::SocketAddr> {
    request.connection.local.get().copied().flatten()
}

/// `$arg_NAME`: the first argument of this name, ignoring case, undecoded.
fn argument<'q>(query: &'q [u8], name: &[u8]) -> &'q [u8] {
    query
        .split(|byte| *byte == b'&')
        .find_map(|pair| {
            let (key, value) = pair.split_at_checked(name.len())?;
            value
                .strip_prefix(b"=")
                .filter(|_| key.eq_ignore_ascii_case(name))
        })
        .unwrap_or_default()
}

/// `$cookie_NAME`.
fn cookie<'r>(request: &'r Request<'_>, name: &[u8]) -> &'r [u8] {
    let bytes = request.head_bytes();
    let mut pairs = request
        .head
        .fields_of(bytes, FieldId::Cookie)
        .flat_map(|value| value.split(|byte| *byte == b';'));
    pairs
        .find_map(|pair| {
            let (key, value) = pair.trim_ascii_start().split_at_checked(name.len())?;
            value
                .strip_prefix(b"=")
                .filter(|_| key.eq_ignore_ascii_case(name))
        })
        .unwrap_or_default()
}

/// `$upstream_cookie_NAME`: the first of its name that is set.
fn cookie_set<'f>(fields: &'f RecordedFields, name: &[u8]) -> &'f [u8] {
    let mut set = fields
        .iter()
        .filter(|(field, _)| same_field_name(field, b"Set-Cookie"));
    set.find_map(|(_, value)| {
        let (key, value) = value.trim_ascii_start().split_at_checked(name.len())?;
        let value = value.strip_prefix(b"=")?;
        let value = value.split(|byte| *byte == b';').next()?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
    .unwrap_or_default()
}

fn put_lines(text: &str, separator: &[u8], out: &mut dyn Sink) {
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            out.put(separator);
        }
        out.put(line.as_bytes());
    }
}

fn put_identity(value: Option<&String>, out: &mut dyn Sink) {
    if let Some(value) = value {
        out.put(value.as_bytes());
    }
}

/// Separated by commas; a comma in a name itself becomes `%2C`.
fn put_names(names: Option<&[Box<str>]>, out: &mut dyn Sink) {
    for (index, name) in names.into_iter().flatten().enumerate() {
        if index > 0 {
            out.put(b",");
        }
        for (index, piece) in name.split(',').enumerate() {
            if index > 0 {
                out.put(b"%2C");
            }
            out.put(piece.as_bytes());
        }
    }
}

/// Empty where the configuration has nothing to say about it.
fn put_invalid_referer(request: &Request<'_>, out: &mut dyn Sink) {
    let Some(referers) = &request.location.referers else {
        return;
    };
    let hosts = &request.listener.hosts;
    let is_ours = |host: &[u8]| hosts.named(host) == Some(request.server.id);
    let referer = request.head.find(request.head_bytes(), b"Referer").next();
    if !referers.accept(referer, is_ours) {
        out.put(b"1");
    }
}

/// `$sent_http_NAME`. What the sink has added itself is known once all has been
/// sent.
fn put_sent(request: &Request<'_>, name: &str, out: &mut dyn Sink) {
    let own = &request.answer.own_fields;
    match name {
        "content-length" => {
            if let Some(length) = own.length {
                decimal(out, length);
            }
        }
        "connection" => out.put(own.connection.as_bytes()),
        "transfer-encoding" if own.is_chunked => out.put(b"chunked"),
        "content-encoding" if own.is_compressed => out.put(b"gzip"),
        "keep-alive" => {
            if let Some(seconds) = own.keep_alive {
                out.put(b"timeout=");
                decimal(out, seconds);
            }
        }
        "etag" if own.is_compressed => {
            let mut etag = Vec::new();
            put_recorded(&request.answer.sent_fields, name, &mut etag);
            if let Some((mark, etag)) = weak(&etag) {
                out.put(mark.as_bytes());
                out.put(etag);
            }
        }
        // Parts of a compressed response cannot be had.
        "accept-ranges" if own.is_compressed => {}
        name => put_recorded(&request.answer.sent_fields, name, out),
    }
}

fn put_recorded(fields: &RecordedFields, name: &str, out: &mut dyn Sink) {
    let fields = fields.iter().map(|(field, value)| (&**field, &**value));
    put_named(fields, name, out);
}

/// The values of all fields of this name.
fn put_named<'f>(
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    name: &str,
    out: &mut dyn Sink,
) {
    let mut named = fields.filter(|(field, _)| same_field_name(field, name.as_bytes()));
    if let Some((_, value)) = named.next() {
        out.put(value);
    }
    for (_, value) in named {
        out.put(b", ");
        out.put(value);
    }
}

/// One value for each try, separated as Nginx does: by a comma, and by a colon
/// where an internal redirect has led to another `proxy_pass`; `-` where a try
/// has none.
fn put_attempts(
    request: &Request<'_>,
    out: &mut dyn Sink,
    value: impl Fn(&Attempt, &mut dyn Sink),
) {
    let mut attempts = request.attempts.iter().peekable();
    while let Some(attempt) = attempts.next() {
        value(attempt, out);
        if attempt.is_left {
            out.put(b" : ");
        } else if attempts.peek().is_some() {
            out.put(b", ");
        }
    }
}

/// What was agreed on with each try's backend; nothing where no TLS is spoken
/// to it.
fn put_links(request: &Request<'_>, out: &mut dyn Sink, fact: impl Fn(&LinkFacts) -> &'static str) {
    if request.attempts.iter().any(|attempt| attempt.tls.is_some()) {
        put_attempts(request, out, |attempt, out| {
            out.put(attempt.tls.as_ref().map_or("-", &fact).as_bytes());
        });
    }
}

fn put_times(
    request: &Request<'_>,
    out: &mut dyn Sink,
    time: impl Fn(&Attempt) -> Option<Duration>,
) {
    put_attempts(request, out, |attempt, out| match time(attempt) {
        Some(time) => put_seconds(out, time),
        None => out.put(b"-"),
    });
}

fn put_seconds(out: &mut dyn Sink, time: Duration) {
    decimal(out, time.as_secs());
    out.put(b".");
    put_padded(out, time.subsec_millis());
}

/// In three digits at least.
fn put_padded(out: &mut dyn Sink, number: u32) {
    if number < 100 {
        out.put(if number < 10 { b"00" } else { b"0" });
    }
    decimal(out, number.into());
}

/// As Nginx logs a client: the bare address, or `unix:`.
fn put_client(out: &mut dyn Sink, client: ClientAddr) {
    match client.ip() {
        Some(ip) => put_ip(out, ip),
        None => out.put(b"unix:"),
    }
}

/// Most requests write this several times, and the formatting machinery takes
/// ten times as long over it.
fn put_ip(out: &mut dyn Sink, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        return put_display(out, ip);
    };
    // Four bytes at a time, of which the next four take the place of what is
    // behind the dot.
    let mut text = [0; 16];
    let mut length = 0;
    for octet in ip.octets() {
        let (digits, used) = OCTETS.get(usize::from(octet)).copied().unwrap_or_default();
        if let Some(place) = text.get_mut(length..length + digits.len()) {
            place.copy_from_slice(&digits);
        }
        length += usize::from(used);
    }
    out.put(text.get(..length - 1).unwrap_or_default());
}

/// Every octet in decimal with a dot behind it, and how many bytes that is.
#[allow(
    clippy::indexing_slicing,
    reason = "done by the compiler, which stops at a wrong index"
)]
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = if octet >= 100 {
            3
        } else if octet >= 10 {
            2
        } else {
            1
        };
        let (mut rest, mut place) = (octet, digits);
        while place > 0 {
            place -= 1;
            octets[octet].0[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        octets[octet].1 = digits as u8 + 1;
        octet += 1;
    }
    octets
};

/// Formats straight into the sink.
pub(crate) fn put_display(out: &mut dyn Sink, value: impl fmt::Display) {
    struct Adapter<'s>(&'s mut dyn Sink);
    impl Write for Adapter<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.put(text.as_bytes());
            Ok(())
        }
    }
    // The adapter never fails.
    let _ = write!(Adapter(out), "{value}");
}

pub(crate) fn random_id() -> [u8; 32] {
    let mut random = [0; 16];
    // Without randomness there is no TLS either; an id of zeros is honest.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let mut id = [b'0'; 32];
    for (digits, byte) in id.chunks_exact_mut(2).zip(random) {
        for (digit, nibble) in digits.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = char::from_digit(nibble.into(), 16).map_or(b'0', |digit| digit as u8);
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_of_the_name_counts_whatever_its_case() {
        assert_eq!(argument(b"a=1&B=2&b=3", b"b"), b"2");
        assert_eq!(argument(b"ab=1&a", b"a"), b"");
        assert_eq!(argument(b"", b"a"), b"");
    }

    #[test]
    fn a_cookie_that_is_set_is_found_by_its_name() {
        let field = |name: &str, value: &str| (name.as_bytes().into(), value.as_bytes().into());
        let fields = vec![
            field("X-Cookie", "a=0"),
            field("set-cookie", "ab=1; Path=/"),
            field("Set-Cookie", "A=2;a=3"),
            field("Set-Cookie", "a=4"),
        ];
        let found = |name: &str| String::from_utf8(cookie_set(&fields, name.as_bytes()).into());
        assert_eq!(found("a").unwrap(), "2");
        assert_eq!(found("ab").unwrap(), "1");
        assert_eq!(found("b").unwrap(), "");
    }

    #[test]
    fn addresses_and_numbers_are_written_as_the_standard_library_does() {
        fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
            let mut out = Vec::new();
            put(&mut out);
            String::from_utf8(out).unwrap()
        }
        for octet in 0..=255_u8 {
            let ip = IpAddr::from([octet, 255 - octet, 0, octet.reverse_bits()]);
            assert_eq!(text(|out| put_ip(out, ip)), ip.to_string());
        }
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(text(|out| put_ip(out, ip)), "2001:db8::1");
        for number in [0, 9, 10, 99, 100, 999] {
            assert_eq!(text(|out| put_padded(out, number)), format!("{number:03}"));
        }
    }

    #[test]
    fn request_ids_are_hexadecimal_and_differ() {
        let (one, two) = (random_id(), random_id());
        assert!(one.iter().all(u8::is_ascii_hexdigit));
        assert_ne!(one, two);
    }
}
