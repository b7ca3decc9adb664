//! The request's head as a backend gets it.

use smallvec::SmallVec;

use crate::config::{Part, Proxy, ProxyHttpVersion, SetHeader, Template};
use crate::http::h1::chunked::is_token;
use crate::http::h1::encode::{self, Sink};
use crate::http::head::{FieldId, Method, Version};
use crate::http::headers::{ConnectionOptions, is_hop_by_hop, same_field_name};
use crate::proxy::exchange::BodySize;
use crate::proxy::output::Output;
use crate::proxy::request::{Request, takes_field};
use crate::proxy::variables::{expand, expand_to_vec};

use super::target::write_target;

/// Writes the request's head as an HTTP/1.x backend gets it.
///
/// `false` if `proxy_method` makes no method of it.
pub(super) fn write_head(
    request: &Request<'_>,
    proxy: &Proxy,
    size: BodySize,
    out: &mut Output,
) -> bool {
    if !write_method(request, proxy, out) {
        return false;
    }
    out.put(b" ");
    write_target(request, proxy, out);
    out.put(match proxy.http_version {
        ProxyHttpVersion::Http10 => b" HTTP/1.0\r\n",
        ProxyHttpVersion::Http11 | ProxyHttpVersion::Http2 => b" HTTP/1.1\r\n",
    });
    write_fields(request, proxy, size, out);
    out.put(b"\r\n");
    true
}

/// The method; `false` if `proxy_method` makes none.
pub(super) fn write_method(request: &Request<'_>, proxy: &Proxy, out: &mut impl Sink) -> bool {
    match &proxy.filters.method {
        Some(method) => {
            let method = expand_to_vec(method, request);
            if method.is_empty() || !method.iter().copied().all(is_token) {
                return false;
            }
            out.put(&method);
        }
        None => out.put(request.method_name()),
    }
    true
}

/// Where a request's fields go: the lines of an HTTP/1.x head, or the fields of
/// an HTTP/2 one.
pub(super) trait Fields {
    /// Adds a field.
    fn field(&mut self, name: &[u8], value: &[u8]);

    /// Adds whole lines of them.
    fn lines(&mut self, lines: &str);

    /// The body's end is not known beforehand.
    fn unknown_length(&mut self);
}

impl Fields for Output {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        encode::field(self, name, value);
    }

    fn lines(&mut self, lines: &str) {
        self.put(lines.as_bytes());
    }

    fn unknown_length(&mut self) {
        self.field(b"Transfer-Encoding", b"chunked");
    }
}

/// The fields as the backend gets them: what the configuration sets, then what
/// the client sent, less what is between the client and us, what Connection
/// names, and every copy of what we set ourselves.
pub(super) fn write_fields(
    request: &Request<'_>,
    proxy: &Proxy,
    size: BodySize,
    out: &mut impl Fields,
) {
    let bytes = request.head_bytes();
    let head = request.head;
    for header in &proxy.set_headers {
        // Framing is ours to say, whatever the configuration says of it.
        if header.is_framing {
            continue;
        }
        write_set_header(&header.name, &header.value, request, out);
    }
    if let Some(form) = proxy.client_identity
        && let Some(tls) = &request.connection.tls
        && let Some(client) = &tls.client
    {
        out.lines(&client.fields(form, &tls.own_uris));
    }
    match size {
        BodySize::Known(length) => length_field(length, out),
        BodySize::Unknown => out.unknown_length(),
        BodySize::None | BodySize::Announced(_) => {
            // A method that expects a body says that there is none
            // (RFC 9110 §8.6), if the client did.
            let said = head
                .fields
                .iter()
                .any(|field| field.id == FieldId::ContentLength);
            if said && !is_unset(&proxy.set_headers, FieldId::ContentLength) {
                length_field(0, out);
            }
        }
    }
    if !proxy.filters.pass_request_headers {
        return;
    }
    let options = ConnectionOptions::of(&head.fields, bytes);
    let limits = request.limits();
    for field in &head.fields {
        let name = field.name.of(bytes);
        let is_set = || {
            proxy
                .set_headers
                .iter()
                .any(|header| same_field_name(&header.name, name))
        };
        let forwarded = !is_hop_by_hop(field.id)
            && !matches!(
                field.id,
                FieldId::ContentLength | FieldId::Expect | FieldId::Host
            )
            && takes_field(limits, field.id, name)
            && !is_set()
            && !request.view.gateway.asserts(name)
            && !options.names(name, |_| false);
        if forwarded {
            out.field(name, field.value.of(bytes));
        }
    }
}

fn length_field(length: u64, out: &mut impl Fields) {
    let mut digits = itoa::Buffer::new();
    out.field(b"Content-Length", digits.format(length).as_bytes());
}

/// Whether the client asked to speak another protocol and the backend was told
/// (RFC 9110 §7.8). Only then is a 101 an answer.
pub(super) fn asks_for_upgrade(request: &Request<'_>, proxy: &Proxy) -> bool {
    let asked = request.head.version != Version::Http10
        && request
            .head
            .field(request.head_bytes(), FieldId::Upgrade)
            .is_some_and(|value| !value.is_empty());
    let told = |header: &SetHeader| {
        FieldId::of(&header.name) == FieldId::Upgrade
            && !expand_to_vec(&header.value, request).is_empty()
    };
    asked && proxy.http_version == ProxyHttpVersion::Http11 && proxy.set_headers.iter().any(told)
}

/// Whether `proxy_set_header NAME ""` takes this field away.
fn is_unset(headers: &[SetHeader], id: FieldId) -> bool {
    headers
        .iter()
        .any(|header| header.value.parts.is_empty() && FieldId::of(&header.name) == id)
}

/// The method that the backend is sent.
pub(in crate::proxy) fn sent_method(request: &Request<'_>, proxy: &Proxy) -> Method {
    match &proxy.filters.method {
        Some(method) => Method::of(&expand_to_vec(method, request)),
        None => request.method(),
    }
}

fn write_set_header(name: &[u8], value: &Template, request: &Request<'_>, out: &mut impl Fields) {
    // Whether there is a value shows only when it has been written, so a
    // literal is asked first and the rest goes by way of a small vector.
    match &*value.parts {
        [] => {}
        [Part::Literal(literal)] => out.field(name, literal),
        _ => {
            let mut evaluated = SmallVec::<[u8; 256]>::new();
            expand(value, request, &mut SmallSink(&mut evaluated));
            if !evaluated.is_empty() && encode::is_field_value(&evaluated) {
                out.field(name, &evaluated);
            }
        }
    }
}

struct SmallSink<'v>(&'v mut SmallVec<[u8; 256]>);

impl Sink for SmallSink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}
