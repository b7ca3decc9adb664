//! Log lines about requests and connections.

use std::fmt;

use crate::config::Part;
use crate::config::{AccessLog, ErrorLog, LogEscape, UpstreamPeer};
use crate::telemetry::access_log::{escape_default, escape_json};
use crate::telemetry::error_log::{Context, Level};

use super::gateway::Gateway;
use super::request::{ClientConnection, Request};
use super::route;
use super::variables::write_variable;

/// Writes the request's line into each of its access logs.
pub(crate) fn access(request: &Request<'_>) {
    for log in &request.location.access_logs {
        let sinks = request.view.gateway.access_sinks();
        let index = sinks.iter().position(|(target, _)| *target == log.target);
        if let Some(buffer) = index.and_then(|index| request.view.access.get(index)) {
            let mut buffer = buffer.borrow_mut();
            format_line(log, request, buffer.line());
            buffer.end_line();
        }
    }
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
        let written = line.get(start..).unwrap_or_default();
        match log.format.escape {
            LogEscape::Default if written.is_empty() => line.push(b'-'),
            LogEscape::Default if written.iter().all(|byte| is_plain(*byte)) => {}
            LogEscape::Json if written.iter().all(|byte| is_plain(*byte)) => {}
            LogEscape::None => {}
            escape => {
                value.clear();
                value.extend_from_slice(written);
                line.truncate(start);
                match escape {
                    LogEscape::Json => escape_json(line, &value),
                    _ => escape_default(line, &value),
                }
            }
        }
    }
}

/// No escaping form changes such a byte.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\')
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
    if !log.enabled(level) {
        return;
    }
    let server: &str = &request.server.name;
    let bytes = request.head_bytes();
    let path = request.head.target.of(bytes);
    let url = peer.map(|peer| {
        std::fmt::from_fn(move |f| {
            let proxy = route::proxy(request.location);
            let secure = proxy.is_some_and(|proxy| proxy.tls.is_some());
            write!(
                f,
                "{}://{}{}",
                if secure { "https" } else { "http" },
                peer.address,
                String::from_utf8_lossy(path)
            )
        })
    });
    let host = request.authority();
    let context = Context {
        client: Some(&request.connection.client),
        server: Some(&server),
        request: Some(request.head.line.of(bytes)).filter(|line| !line.is_empty()),
        upstream: url.as_ref().map(|url| url as &dyn fmt::Display),
        host: Some(host).filter(|host| !host.is_empty()),
        referrer: None,
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
