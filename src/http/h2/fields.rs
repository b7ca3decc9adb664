//! A request's fields as a head: laid out in a buffer once, with the same
//! ranges that the parser of HTTP/1.1 leaves behind, so that everything after
//! it is common to both.
//!
//! The `h2` crate has seen to the shape (RFC 9113 §8.2 and §8.3: names in lower
//! case, none that belongs to a connection, no CR, LF or NUL, pseudo-fields
//! first and once, `te: trailers` alone) and resets the stream where it is
//! wrong. What it leaves open is judged here, by the rules for HTTP/1.1: nothing
//! gets past one version that the other refuses.

use ::http::header::{self, HeaderName};
use ::http::request::Parts;

use crate::http::error::HeadError;
use crate::http::h1::chunked::is_token;
use crate::http::h1::parse::HeadLimits;
use crate::http::head::{Field, FieldId, Method, RequestHead, Span, Version};
use crate::http::uri::host_name;

/// The protocol that an extended CONNECT may ask for (RFC 8441 §5).
const WEBSOCKET: &str = "websocket";

/// What stands in for the handshake that HTTP/2 does without: a request for
/// WebSocket reaches the phases, and a backend, as one of HTTP/1.1.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade<'a> {
    /// `:protocol`.
    pub protocol: &'a str,
    /// For `Sec-WebSocket-Key`: random, in base64.
    pub key: &'a str,
}

/// Bytes that [`lay`] needs at the most.
#[must_use]
pub fn room(parts: &Parts) -> usize {
    /// The request line's own bytes, the names of the fields that an upgrade
    /// adds, and their values.
    const FIXED: usize = 256;
    let authority = parts.uri.authority().map_or(0, |name| name.as_str().len());
    let target = parts.uri.path_and_query().map_or(1, |it| it.as_str().len());
    let fields = parts.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS)
        .sum();
    FIXED + parts.method.as_str().len() + target + authority + fields
}

/// Lays the request's fields into `out`, in the form of a head of HTTP/1.1, and
/// their places into `head`. How many bytes that took.
///
/// # Errors
/// Whatever the limits or the rules of HTTP refuse. The stream can still be
/// answered; what was understood is in `head`, for the log.
pub fn lay(
    parts: &Parts,
    upgrade: Option<&Upgrade<'_>>,
    limits: &HeadLimits,
    out: &mut [u8],
    head: &mut RequestHead,
) -> Result<usize, HeadError> {
    head.clear();
    head.version = Version::Http2;
    let mut writer = Writer { out, length: 0 };
    lay_line(parts, upgrade, limits, &mut writer, head)?;
    let host = host(parts)?;
    // In front, as RFC 9110 §7.2 has it.
    writer.field(b"host", host, limits, head)?;
    let mut cookies = parts.headers.get_all(header::COOKIE).iter().peekable();
    if cookies.peek().is_some() {
        // Split for the sake of compression (RFC 9113 §8.2.3).
        let name = writer.put(b"cookie")?;
        writer.put(b": ")?;
        let start = writer.length;
        while let Some(cookie) = cookies.next() {
            writer.put(cookie.as_bytes())?;
            if cookies.peek().is_some() {
                writer.put(b"; ")?;
            }
        }
        let value = Span::new(start, writer.length);
        writer.end_field(name, value, limits, head)?;
    }
    for (name, value) in &parts.headers {
        if *name == header::HOST || *name == header::COOKIE {
            continue;
        }
        // The protocol core takes a quotation mark for part of a token.
        if is_of_connection(name) || !name.as_str().bytes().all(is_token) {
            return Err(HeadError::InvalidFieldName);
        }
        writer.field(name.as_str().as_bytes(), value.as_bytes(), limits, head)?;
    }
    if let Some(upgrade) = upgrade {
        writer.field(b"connection", b"upgrade", limits, head)?;
        writer.field(b"upgrade", upgrade.protocol.as_bytes(), limits, head)?;
        writer.field(b"sec-websocket-key", upgrade.key.as_bytes(), limits, head)?;
    }
    writer.put(b"\r\n")?;
    head.len = writer.length;
    Ok(head.len)
}

/// Fields that say how a message ends or what its connection is for
/// (RFC 9113 §8.2.2). The protocol core resets the stream for them; smuggling
/// lives on them, so it is not left to that alone.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        FieldId::of(name.as_str().as_bytes()),
        FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::TransferEncoding
            | FieldId::Upgrade
    )
}

/// `: ` and CRLF.
const SEPARATORS: usize = 4;

fn lay_line(
    parts: &Parts,
    upgrade: Option<&Upgrade<'_>>,
    limits: &HeadLimits,
    writer: &mut Writer<'_>,
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    let method = match upgrade {
        Some(upgrade) if upgrade.protocol.eq_ignore_ascii_case(WEBSOCKET) => "GET",
        Some(_) => return Err(HeadError::UnknownProtocol),
        None => parts.method.as_str(),
    };
    head.method = writer.put(method.as_bytes())?;
    head.method_id = Method::of(method.as_bytes());
    writer.put(b" ")?;
    let path = parts.uri.path_and_query().map_or("", |it| it.as_str());
    head.target = writer.put(path.as_bytes())?;
    writer.put(b" HTTP/2.0")?;
    head.line = Span::new(0, writer.length);
    writer.put(b"\r\n")?;
    if !method
        .bytes()
        .all(|byte| matches!(byte, b'A'..=b'Z' | b'-' | b'_'))
    {
        return Err(HeadError::InvalidMethod);
    }
    if matches!(head.method_id, Method::Connect | Method::Trace) {
        return Err(HeadError::MethodNotAllowed);
    }
    if head.line.len() + 2 > limits.line {
        return Err(HeadError::RequestLineTooLong);
    }
    let start = head.target.start as usize;
    let end = head.target.end as usize;
    let question = path.bytes().position(|byte| byte == b'?');
    head.path = Span::new(start, question.map_or(end, |at| start + at));
    head.query = question.map(|at| Span::new(start + at + 1, end));
    // `*` is no path, and asks for nothing that a proxy could say.
    if !path.starts_with('/') {
        return Err(HeadError::InvalidTarget);
    }
    Ok(())
}

/// `:authority`, or Host where there is none; both must say the same
/// (RFC 9113 §8.3.1).
fn host(parts: &Parts) -> Result<&[u8], HeadError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.as_bytes());
    if hosts.next().is_some() {
        return Err(HeadError::SeveralHosts);
    }
    let authority = parts.uri.authority().map(|name| name.as_str().as_bytes());
    let name = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(HeadError::SeveralHosts);
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => return Err(HeadError::MissingHost),
    };
    host_name(name).ok_or(HeadError::InvalidHost)?;
    Ok(name)
}

/// Appends to a buffer that may be too small.
struct Writer<'o> {
    out: &'o mut [u8],
    /// Bytes written. At most `out.len()`.
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<Span, HeadError> {
        let start = self.length;
        let end = start + bytes.len();
        let target = self.out.get_mut(start..end);
        target
            .ok_or(HeadError::HeadTooLarge)?
            .copy_from_slice(bytes);
        self.length = end;
        Ok(Span::new(start, end))
    }

    fn field(
        &mut self,
        name: &[u8],
        value: &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<(), HeadError> {
        let name = self.put(name)?;
        self.put(b": ")?;
        let value = self.put(value)?;
        self.end_field(name, value, limits, head)
    }

    fn end_field(
        &mut self,
        name: Span,
        value: Span,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<(), HeadError> {
        let text = value.of(self.out);
        // RFC 9113 §8.2.1: white space around a value would be lost on the way
        // to a backend, and a signature or a length with it.
        let is_bare = |byte: Option<&u8>| byte.is_none_or(|byte| !matches!(byte, b' ' | b'\t'));
        let is_valid = is_bare(text.first())
            && is_bare(text.last())
            && !text
                .iter()
                .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f);
        if !is_valid {
            return Err(HeadError::InvalidFieldValue);
        }
        let id = FieldId::of(name.of(self.out));
        self.put(b"\r\n")?;
        head.fields.push(Field { name, value, id });
        if head.fields.len() > limits.fields {
            return Err(HeadError::TooManyFields);
        }
        if name.len() + value.len() + SEPARATORS > limits.line {
            return Err(HeadError::FieldTooLong);
        }
        if self.length > limits.total {
            return Err(HeadError::HeadTooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    const LIMITS: HeadLimits = HeadLimits {
        line: 200,
        total: 400,
        fields: 8,
    };

    fn laid(
        request: ::http::request::Builder,
        upgrade: Option<&Upgrade<'_>>,
    ) -> Result<(String, RequestHead), HeadError> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = vec![0; room(&parts)];
        let mut head = RequestHead::default();
        let length = lay(&parts, upgrade, &LIMITS, &mut out, &mut head)?;
        out.truncate(length);
        Ok((String::from_utf8(out).unwrap(), head))
    }

    #[test]
    fn a_request_is_laid_out_as_a_head_that_the_parser_of_http1_agrees_with() {
        let request = Request::get("https://a.test:8443/x/y?z=1")
            .header("accept", "*/*")
            .header("cookie", "a=1")
            .header("x-a", "1")
            .header("cookie", "b=2")
            .header("x-a", "2");
        let (text, head) = laid(request, None).unwrap();
        assert_eq!(
            text,
            "GET /x/y?z=1 HTTP/2.0\r\nhost: a.test:8443\r\ncookie: a=1; b=2\r\n\
             accept: */*\r\nx-a: 1\r\nx-a: 2\r\n\r\n"
        );
        let bytes = text.as_bytes();
        assert_eq!(head.line.of(bytes), b"GET /x/y?z=1 HTTP/2.0");
        assert_eq!(head.path.of(bytes), b"/x/y");
        assert_eq!(head.query.unwrap().of(bytes), b"z=1");
        assert_eq!(head.host(bytes), Some(&b"a.test:8443"[..]));
        let text = text.replacen("HTTP/2.0", "HTTP/1.1", 1);
        let mut parsed = RequestHead::default();
        let limits = HeadLimits {
            line: 1000,
            total: 1000,
            fields: 100,
        };
        crate::http::h1::parse::parse_request(text.as_bytes(), &limits, &mut parsed).unwrap();
        assert_eq!(parsed.fields, head.fields);
        assert_eq!((parsed.path, parsed.query), (head.path, head.query));
    }

    #[test]
    fn what_the_protocol_core_lets_pass_is_refused_by_the_rules_of_http1() {
        let get = || Request::get("https://a.test/");
        for (request, error) in [
            (Request::get("/"), HeadError::MissingHost),
            (get().header("host", "b.test"), HeadError::SeveralHosts),
            (
                get().header("host", "a.test").header("host", "a.test"),
                HeadError::SeveralHosts,
            ),
            (Request::get("https://u@a.test/"), HeadError::InvalidHost),
            (Request::connect("a.test:443"), HeadError::MethodNotAllowed),
            (get().method("TRACE"), HeadError::MethodNotAllowed),
            (get().method("get"), HeadError::InvalidMethod),
            (
                get().header("connection", "close"),
                HeadError::InvalidFieldName,
            ),
            (
                get().header("transfer-encoding", "chunked"),
                HeadError::InvalidFieldName,
            ),
            (
                // As the protocol core makes it of what it has received.
                get().header(HeaderName::from_lowercase(b"a\"b").unwrap(), "1"),
                HeadError::InvalidFieldName,
            ),
            (get().header("a", " b"), HeadError::InvalidFieldValue),
            (get().header("a", "b\t"), HeadError::InvalidFieldValue),
            (get().header("a", "b".repeat(200)), HeadError::FieldTooLong),
            (
                get().uri(format!("https://a.test/{}", "a".repeat(200))),
                HeadError::RequestLineTooLong,
            ),
            (
                get()
                    .header("a", "b".repeat(150))
                    .header("b", "b".repeat(150))
                    .header("c", "b".repeat(150)),
                HeadError::HeadTooLarge,
            ),
        ] {
            let shown = format!("{request:?}");
            assert_eq!(laid(request, None).unwrap_err(), error, "{shown}");
        }
        let many = (0..9).fold(get(), |request, n| request.header(format!("a{n}"), "b"));
        assert_eq!(laid(many, None).unwrap_err(), HeadError::TooManyFields);
        assert!(laid(get().header("host", "A.test"), None).is_ok());
    }

    #[test]
    fn a_request_for_websocket_becomes_that_of_http1() {
        let connect = || {
            Request::builder()
                .method("CONNECT")
                .uri("https://a.test/ws")
        };
        let upgrade = |protocol| Upgrade {
            protocol,
            key: "a2V5",
        };
        let (text, head) = laid(connect(), Some(&upgrade("websocket"))).unwrap();
        assert_eq!(
            text,
            "GET /ws HTTP/2.0\r\nhost: a.test\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: a2V5\r\n\r\n"
        );
        assert_eq!(head.method_id, Method::Get);
        let other = laid(connect(), Some(&upgrade("connect-udp")));
        assert_eq!(other.unwrap_err(), HeadError::UnknownProtocol);
    }
}
