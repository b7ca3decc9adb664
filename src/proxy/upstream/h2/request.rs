//! A request's head as an HTTP/2 backend gets it (RFC 9113 §8.3.1).

use std::fmt;

use crate::config::{Proxy, ProxyFamily};
use crate::http::h2::hpack::Encoder;
use crate::http::head::{FieldId, Method};
use crate::http::headers::{is_hop_by_hop, list_members};
use crate::http::uri::host_name;
use crate::proxy::exchange::BodySize;
use crate::proxy::h2::sink::Fields as Gathered;
use crate::proxy::output::Output;
use crate::proxy::request::Request;
use crate::proxy::upstream::request::{Fields, sent_method, write_fields, write_method};
use crate::proxy::upstream::target::write_target;

const TRAILERS: &[u8] = b"trailers";
/// Bytes of all fields at the most: what a head of HTTP/1.1 may be long.
const MAX_FIELDS: usize = Output::CAPACITY;

/// Why a request cannot be put into HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsendable {
    /// `proxy_method` makes no method.
    Method,
    /// A tunnel, which this is not the place for.
    Tunnel,
    /// The target has bytes that no URI has.
    Target,
    /// Host, as configured, is no authority.
    Authority,
    /// There are more fields than a head can hold.
    TooLarge,
}

impl Unsendable {
    /// What the client is told.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Method | Self::Authority => 500,
            Self::Tunnel => 501,
            Self::Target => 400,
            Self::TooLarge => 494,
        }
    }
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "invalid method in \"proxy_method\"",
            Self::Tunnel => "CONNECT cannot be sent to an HTTP/2 upstream",
            Self::Target => "the request's target cannot be sent to an HTTP/2 upstream",
            Self::Authority => "the upstream's \"Host\" is no \":authority\"",
            Self::TooLarge => "request header is too large to be sent to upstream",
        })
    }
}

/// A request's head.
pub(super) struct RequestHead {
    method: Vec<u8>,
    target: Vec<u8>,
    authority: Vec<u8>,
    is_secure: bool,
    fields: Gathered,
}

impl RequestHead {
    pub(super) fn write(&self, encoder: &mut Encoder, block: &mut Vec<u8>) {
        let scheme: &[u8] = if self.is_secure { b"https" } else { b"http" };
        for (name, value) in [
            (&b":method"[..], &*self.method),
            (b":scheme", scheme),
            (b":authority", &self.authority),
            (b":path", &self.target),
        ] {
            encoder.field(name, value, block);
        }
        self.fields.write(encoder, block);
    }
}

/// The head of this request. What `proxy_set_header` says of Host is its
/// `:authority`; the fields that HTTP/2 does not have are left out (§8.2.2).
pub(super) fn head(
    request: &Request<'_>,
    proxy: &Proxy,
    size: BodySize,
    is_secure: bool,
) -> Result<RequestHead, Unsendable> {
    if sent_method(request, proxy) == Method::Connect {
        return Err(Unsendable::Tunnel);
    }
    let mut method = Vec::new();
    if !write_method(request, proxy, &mut method) {
        return Err(Unsendable::Method);
    }
    let mut target = Vec::new();
    write_target(request, proxy, &mut target);
    if !target.starts_with(b"/") {
        return Err(Unsendable::Target);
    }
    let mut out = Head::new();
    write_fields(request, proxy, size, &mut out);
    if proxy.family == ProxyFamily::Grpc && takes_trailers(request) && !out.has_te {
        out.fields.add(b"te", TRAILERS);
    }
    if out.fields.len() > MAX_FIELDS {
        return Err(Unsendable::TooLarge);
    }
    let authority = out
        .authority
        .unwrap_or_else(|| proxy.host.as_bytes().to_vec());
    host_name(&authority).ok_or(Unsendable::Authority)?;
    Ok(RequestHead {
        method,
        target: escaped(target),
        authority,
        is_secure,
        fields: out.fields,
    })
}

/// The fields behind a body.
pub(super) fn trailers<'t>(fields: impl Iterator<Item = (&'t [u8], &'t [u8])>) -> Gathered {
    let mut out = Gathered::default();
    fields.for_each(|(name, value)| out.add(name, value));
    out
}

/// How long the client said that its body is, whatever has been read of it.
pub(super) fn size_as_sent(request: &Request<'_>) -> BodySize {
    let length = request
        .head
        .field(request.head_bytes(), FieldId::ContentLength)
        .and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    length.map_or(BodySize::Unknown, BodySize::Known)
}

/// Whether the client says that it knows what to do with trailers
/// (`$grpc_internal_trailers`).
fn takes_trailers(request: &Request<'_>) -> bool {
    let bytes = request.head_bytes();
    let mut said = request.head.fields_of(bytes, FieldId::Te);
    said.any(says_trailers)
}

fn says_trailers(value: &[u8]) -> bool {
    list_members(value).any(|member| member.eq_ignore_ascii_case(TRAILERS))
}

/// Bytes that no URI has (RFC 3986) are what they would have been sent as by a
/// client that knows; as they are, the peer would have to refuse them.
fn escaped(target: Vec<u8>) -> Vec<u8> {
    let is_odd = |byte: &u8| {
        !byte.is_ascii_graphic() || matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`')
    };
    if !target.iter().any(is_odd) {
        return target;
    }
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if is_odd(&byte) {
            escaped.extend([b'%', digit(byte >> 4), digit(byte & 0xf)]);
        } else {
            escaped.push(byte);
        }
    }
    escaped
}

/// The fields of a head, Host apart.
struct Head {
    authority: Option<Vec<u8>>,
    fields: Gathered,
    has_te: bool,
}

impl Head {
    fn new() -> Self {
        Self {
            authority: None,
            fields: Gathered::of_head(),
            has_te: false,
        }
    }
}

impl Fields for Head {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        match FieldId::of(name) {
            FieldId::Host => self.authority = Some(value.to_vec()),
            // In HTTP/2 it says just this, and once.
            FieldId::Te if says_trailers(value) => {
                if !std::mem::replace(&mut self.has_te, true) {
                    self.fields.add(b"te", TRAILERS);
                }
            }
            id if is_hop_by_hop(id) => {}
            _ => self.fields.add(name, value),
        }
    }

    fn lines(&mut self, lines: &str) {
        for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
            self.field(name.as_bytes(), value.as_bytes());
        }
    }

    /// END_STREAM says where it ends.
    fn unknown_length(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h2::hpack::Decoder;
    use proptest::prelude::*;

    #[test]
    fn what_http2_does_not_have_is_left_out() {
        let mut head = Head::new();
        for (name, value) in [
            ("Host", "a.test:81"),
            ("Connection", "close, x"),
            ("Keep-Alive", "5"),
            ("Proxy-Connection", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("TE", "deflate"),
            ("X-Name", "v"),
            ("x-name", "w"),
        ] {
            head.field(name.as_bytes(), value.as_bytes());
        }
        assert_eq!(head.authority.as_deref(), Some(&b"a.test:81"[..]));
        head.field(b"TE", b"gzip, Trailers");
        head.field(b"TE", b"trailers");
        assert_eq!(
            sent(&head.fields),
            ["x-name: v", "x-name: w", "te: trailers"]
        );
    }

    /// As a peer reads it.
    fn sent(fields: &Gathered) -> Vec<String> {
        let (mut block, mut seen) = (Vec::new(), Vec::new());
        fields.write(&mut Encoder::new(), &mut block);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Decoder::new(4096)
            .decode(&block, 4096, |name, value, _| {
                seen.push(format!("{}: {}", text(name), text(value)));
            })
            .unwrap();
        seen
    }

    proptest! {
        #[test]
        fn every_target_can_be_sent(path in proptest::collection::vec(any::<u8>(), 0..40)) {
            let target = escaped([b"/".as_slice(), &path].concat());
            prop_assert!(target.iter().all(u8::is_ascii_graphic));
            prop_assert!(!target.contains(&b'#'));
            prop_assert_eq!(escaped(target.clone()), target);
        }
    }
}
