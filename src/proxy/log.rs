//! Log lines about requests and connections.

use std::fmt;

use crate::config::{
    AccessLog, ErrorLog, LogEscape, Part, ProxyFamily, Template, UpstreamPeer, Variable,
};
use crate::http::head::FieldId;
use crate::http::words::has_special;
use crate::telemetry::access_log::{escape_default, escape_json};
use crate::telemetry::error_log::{Context, Level, Text};
use crate::telemetry::repeats;
use crate::telemetry::writer::LogSink;

use super::gateway::Gateway;
use super::request::{ClientConnection, Request};
use super::route;
use super::variables::{expand_to_vec, write_variable};

/// Writes the request's line into each of its access logs.
pub(crate) fn access(request: &Request<'_>) {
    for log in &request.location.access_logs {
        if let Some(condition) = &log.condition {
            let value = expand_to_vec(condition, request);
            if value.is_empty() || value == b"0" {
                continue;
            }
        }
        let gateway = &request.view.gateway;
        let index = gateway.access_sink(&log.target);
        if let Some(path) = &log.path {
            if let Some((_, sink)) = index.and_then(|index| gateway.access_sinks().get(index)) {
                to_computed_path(request, log, path, sink);
            }
        } else if let Some(buffer) = index.and_then(|index| request.view.access.get(index)) {
            let mut buffer = buffer.borrow_mut();
            format_line(log, request, buffer.line());
            buffer.end_line();
        }
    }
}

/// A line for a file that the request names. What a client has a say in must
/// not lead out of the folder that the operator named, so a value with a slash
/// or a NUL in it names no file, nor do `.` and `..`.
fn to_computed_path(request: &Request<'_>, log: &AccessLog, path: &Template, sink: &LogSink) {
    let mut name = Vec::new();
    let mut is_safe = true;
    for part in &path.parts {
        match part {
            Part::Literal(bytes) => name.extend_from_slice(bytes),
            Part::Variable(variable) => {
                let start = name.len();
                write_variable(variable, request, &mut name);
                let value = name.get(start..).unwrap_or_default();
                is_safe &= !value.iter().any(|byte| matches!(byte, b'/' | 0));
            }
        }
    }
    let last = name.rsplit(|byte| *byte == b'/').next();
    let mut components = name.split(|byte| *byte == b'/');
    is_safe &= last.is_some_and(|last| !last.is_empty())
        && !components.any(|component| matches!(component, b"." | b".."));
    if !is_safe {
        let name = Text(&name);
        request_error(
            request,
            Level::Error,
            format_args!("no access log is written to \"{name}\""),
        );
        return;
    }
    let mut line = Vec::new();
    format_line(log, request, &mut line);
    line.push(b'\n');
    sink.send_to(&name, &line);
}

fn format_line(log: &AccessLog, request: &Request<'_>, line: &mut Vec<u8>) {
    // A value is written behind the line, then escaped into its place.
    let mut value = Vec::new();
    for part in &log.format.template.parts {
        let variable = match part {
            Part::Literal(bytes) => {
                line.extend_from_slice(bytes);
                continue;
            }
            Part::Variable(variable) => variable,
        };
        let start = line.len();
        write_variable(variable, request, line);
        let text = line.get(start..).unwrap_or_default();
        match log.format.escape {
            LogEscape::Default if text.is_empty() => line.push(b'-'),
            // No escaping form changes such bytes.
            LogEscape::Default | LogEscape::Json if is_plain(variable) || !has_special(text) => {}
            LogEscape::None => {}
            escape => {
                value.clear();
                value.extend_from_slice(text);
                line.truncate(start);
                match escape {
                    LogEscape::Json => escape_json(line, &value),
                    _ => escape_default(line, &value),
                }
            }
        }
    }
}

/// Whether its value is digits, a time or an address: the half of a usual line that
/// need not be looked at.
fn is_plain(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::BodyBytesSent
            | Variable::BytesSent
            | Variable::Msec
            | Variable::RemoteAddr
            | Variable::RequestLength
            | Variable::RequestTime
            | Variable::Status
            | Variable::TimeIso8601
            | Variable::TimeLocal
    )
}

/// A message about a request, with its context.
pub(crate) fn request_error(request: &Request<'_>, level: Level, message: fmt::Arguments<'_>) {
    upstream_error(request, level, None, message);
}

/// A message about a request and the backend it went to.
pub(crate) fn upstream_error(
    request: &Request<'_>,
    level: Level,
    peer: Option<&UpstreamPeer>,
    message: fmt::Arguments<'_>,
) {
    let Some(log) = request.view.gateway.error_log(&request.location.error_logs) else {
        return;
    };
    if !log.enabled(level) || !repeats::admit(log, level, message) {
        return;
    }
    let server: &str = &request.server.name;
    let bytes = request.head_bytes();
    let path = request.head.target.of(bytes);
    let url = peer.map(|peer| {
        std::fmt::from_fn(move |f| {
            let proxy = route::proxy(request.location);
            let secure = proxy.is_some_and(|proxy| request.is_proxied_securely(proxy));
            let family = proxy.map_or(ProxyFamily::Proxy, |proxy| proxy.family);
            let scheme = match (family, secure) {
                (ProxyFamily::Proxy, false) => "http",
                (ProxyFamily::Proxy, true) => "https",
                (ProxyFamily::Grpc, false) => "grpc",
                (ProxyFamily::Grpc, true) => "grpcs",
            };
            let path = String::from_utf8_lossy(path);
            write!(f, "{scheme}://{}{path}", peer.address)
        })
    });
    let host = request.authority();
    let tls = request.connection.tls.as_ref();
    let sni = tls.and_then(|tls| tls.server_name.as_deref());
    let client = tls.and_then(|tls| tls.client.as_ref());
    let subject = client.and_then(|client| client.identity()?.subject.clone());
    let context = Context {
        client: Some(&request.client()),
        server: Some(&server),
        request: Some(request.head.line.of(bytes)).filter(|line| !line.is_empty()),
        upstream: url.as_ref().map(|url| url as &dyn fmt::Display),
        host: Some(host).filter(|host| !host.is_empty()),
        referrer: request.head.field(bytes, FieldId::Referer),
        sni: sni.filter(|name| name.as_bytes() != host),
        subject: subject.as_deref(),
    };
    log.log(
        level,
        Some(request.connection.serial),
        format_args!("{message}{context}"),
    );
}

/// A message about a connection on which no request is known, to the log of
/// the server block that it has been matched to.
pub(crate) fn connection_error(
    gateway: &Gateway,
    logs: &[ErrorLog],
    connection: (u64, &dyn fmt::Display, &dyn fmt::Display),
    level: Level,
    message: fmt::Arguments<'_>,
) {
    let (serial, client, server) = connection;
    let Some(log) = gateway.error_log(logs).filter(|log| log.enabled(level)) else {
        return;
    };
    if !repeats::admit(log, level, message) {
        return;
    }
    let context = Context {
        client: Some(client),
        server: Some(server),
        ..Context::default()
    };
    log.log(level, Some(serial), format_args!("{message}{context}"));
}

/// What the error log calls a connection's client.
pub(crate) fn client_of(connection: &ClientConnection) -> &dyn fmt::Display {
    &connection.client
}
