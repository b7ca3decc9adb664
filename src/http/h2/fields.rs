//! A request's fields as a head: laid out in a buffer with the same ranges that
//! the parser of HTTP/1.1 leaves behind, so that everything after it is common
//! to both.
//!
//! First they are noted as they come out of decompression, and held to the rules
//! of HTTP/2 (RFC 9113 §8.2 and §8.3: names in lower case, none that belongs to a
//! connection, no CR, LF or NUL, pseudo-fields first and once, `te: trailers`
//! alone): what breaks them is malformed, and no request. Then they are laid
//! out, by the rules for HTTP/1.1: nothing gets past one version that the other
//! refuses.

use crate::http::error::HeadError;
use crate::http::h1::chunked::is_token;
use crate::http::h1::encode::is_field_value;
use crate::http::h1::parse::HeadLimits;
use crate::http::head::{Field, FieldId, Method, RequestHead, ResponseHead, Span, Version};
use crate::http::trailers::Trailers;
use crate::http::uri::host_name;
use crate::http::words::has_control;

/// The protocol that an extended CONNECT may ask for (RFC 8441 §5).
const WEBSOCKET: &[u8] = b"websocket";

/// A message's fields as they were sent. To be used again and again: it keeps
/// its memory.
#[derive(Debug, Default)]
pub struct Draft {
    /// Names and values.
    text: Vec<u8>,
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
    status: Option<Span>,
    /// It is an answer's, not a request's.
    is_answer: bool,
    /// All but the pseudo-fields, in order.
    fields: Vec<Field>,
    /// The first that was found.
    fault: Option<HeadError>,
    is_cut_off: bool,
}

/// What a kept draft may hold on to, bytes; a request with more is rare.
const KEPT_TEXT: usize = 16 << 10;
const KEPT_FIELDS: usize = 128;

impl Draft {
    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        let mut fields = std::mem::take(&mut self.fields);
        text.clear();
        text.shrink_to(KEPT_TEXT);
        fields.clear();
        fields.shrink_to(KEPT_FIELDS);
        *self = Self {
            text,
            fields,
            is_answer: self.is_answer,
            ..Self::default()
        };
    }

    /// For answers, and no requests.
    #[must_use]
    pub fn of_answers() -> Self {
        Self {
            is_answer: true,
            ..Self::default()
        }
    }

    /// Notes a field.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let place = match name {
            [b':', ..] if !self.fields.is_empty() => None,
            b":method" => Some(&mut self.method),
            b":scheme" => Some(&mut self.scheme),
            b":authority" => Some(&mut self.authority),
            b":path" => Some(&mut self.path),
            b":protocol" => Some(&mut self.protocol),
            b":status" if self.is_answer => Some(&mut self.status),
            [b':', ..] => None,
            _ => {
                let id = match judge(name, value) {
                    Ok(id) => id,
                    Err(fault) => {
                        self.fault = Some(fault);
                        return;
                    }
                };
                let name = append(&mut self.text, name);
                let value = append(&mut self.text, value);
                self.fields.push(Field { name, value, id });
                return;
            }
        };
        match place {
            Some(place @ None) if !has_line_end(value) => {
                *place = Some(append(&mut self.text, value));
            }
            _ => self.fault = Some(HeadError::InvalidPseudoField),
        }
    }

    /// All fields have come.
    pub fn end(&mut self) {
        if self.is_answer {
            let places = [self.method, self.scheme, self.authority, self.path];
            if places.iter().any(Option::is_some) || self.protocol.is_some() {
                self.fault.get_or_insert(HeadError::InvalidPseudoField);
            }
            if self.status() < 100 {
                self.fault.get_or_insert(HeadError::InvalidStatusLine);
            }
            return;
        }
        let has = |span: Option<Span>| span.is_some_and(|span| !span.is_empty());
        let is_connect = self.get(self.method) == b"CONNECT";
        let is_complete = if is_connect && self.protocol.is_none() {
            // RFC 9113 §8.5
            self.authority.is_some() && self.scheme.is_none() && self.path.is_none()
        } else {
            has(self.scheme) && has(self.path) && (is_connect || self.protocol.is_none())
        };
        if !has(self.method) || !is_complete {
            self.fault.get_or_insert(HeadError::MissingPseudoField);
        }
    }

    /// There were more than are granted, and the rest has not been noted.
    pub fn cut_off(&mut self) {
        self.is_cut_off = true;
    }

    /// Whether the rules of HTTP/2 are broken: this is no request.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.fault.is_some()
    }

    /// Which rule it was that is broken.
    #[must_use]
    pub fn fault(&self) -> Option<HeadError> {
        self.fault
    }

    /// Whether it is an extended CONNECT (RFC 8441 §4).
    #[must_use]
    pub fn asks_for_protocol(&self) -> bool {
        self.protocol.is_some()
    }

    /// Bytes that [`lay`] needs at the most.
    #[must_use]
    pub fn room(&self) -> usize {
        /// The request line's own bytes, the names of the fields that an
        /// upgrade adds, and their values.
        const FIXED: usize = 256;
        FIXED + self.text.len() + (self.fields.len() + 1) * SEPARATORS
    }

    /// Of an answer's `:status`; 0 if that is none (RFC 9110 §15).
    fn status(&self) -> u16 {
        match self.get(self.status) {
            digits @ [b'1'..=b'9', b, c] if b.is_ascii_digit() && c.is_ascii_digit() => digits
                .iter()
                .fold(0, |number, digit| number * 10 + u16::from(digit - b'0')),
            _ => 0,
        }
    }

    /// Whether another head follows this answer's.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status())
    }

    /// The answer's head, and what its spans point into; `None` if it was cut off.
    #[must_use]
    pub fn answer(&self) -> Option<(ResponseHead, Box<[u8]>)> {
        let head = ResponseHead {
            version: Version::Http2,
            status: self.status(),
            fields: self.fields.clone(),
            len: self.text.len(),
            ..ResponseHead::default()
        };
        (!self.is_cut_off).then(|| (head, self.text.as_slice().into()))
    }

    fn get(&self, span: Option<Span>) -> &[u8] {
        span.map_or(&[], |span| span.of(&self.text))
    }
}

fn append(text: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = text.len();
    text.extend_from_slice(bytes);
    Span::new(start, text.len())
}

/// Whether there is a CR, LF or NUL.
fn has_line_end(bytes: &[u8]) -> bool {
    has_control(bytes) && bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// Which field it is, or what keeps it from being one (RFC 9113 §8.2).
fn judge(name: &[u8], value: &[u8]) -> Result<FieldId, HeadError> {
    let is_name = !name.is_empty()
        && name
            .iter()
            .all(|byte| is_token(*byte) && !byte.is_ascii_uppercase());
    let id = FieldId::of(name);
    let belongs = match id {
        FieldId::Connection
        | FieldId::KeepAlive
        | FieldId::ProxyConnection
        | FieldId::TransferEncoding
        | FieldId::Upgrade => false,
        FieldId::Te => value == b"trailers",
        _ => true,
    };
    if !is_name {
        Err(HeadError::InvalidFieldName)
    } else if has_line_end(value) {
        Err(HeadError::InvalidFieldValue)
    } else if !belongs {
        Err(HeadError::ConnectionField)
    } else {
        Ok(id)
    }
}

/// The fields behind a body, held to the same rules.
#[derive(Debug, Default)]
pub struct TrailerDraft {
    fields: Trailers,
    is_malformed: bool,
}

impl TrailerDraft {
    /// Notes a field. Pseudo-fields have no place here (RFC 9113 §8.1).
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        self.is_malformed |= judge(name, value).is_err();
        if !self.is_malformed {
            self.fields.add(name, value);
        }
    }

    /// The fields, unless the rules of HTTP/2 are broken.
    #[must_use]
    pub fn end(self) -> Option<Trailers> {
        (!self.is_malformed).then_some(self.fields)
    }
}

/// Lays the request's fields into `out`, in the form of a head of HTTP/1.1, and
/// their places into `head`. How many bytes that took.
///
/// `key` is for the `Sec-WebSocket-Key` of an extended CONNECT: random, in
/// base64. Such a request for WebSocket reaches the phases, and a backend, as one
/// of HTTP/1.1, whose handshake HTTP/2 does without.
///
/// # Errors
/// Whatever the limits or the rules of HTTP refuse. The stream can still be
/// answered; what was understood is in `head`, for the log.
pub fn lay(
    draft: &Draft,
    key: &[u8],
    limits: &HeadLimits,
    out: &mut [u8],
    head: &mut RequestHead,
) -> Result<usize, HeadError> {
    head.clear();
    head.version = Version::Http2;
    let mut writer = Writer { out, length: 0 };
    lay_line(draft, limits, &mut writer, head)?;
    if draft.is_cut_off {
        return Err(HeadError::HeadTooLarge);
    }
    let host = host(draft)?;
    // In front, as RFC 9110 §7.2 has it.
    writer.field((b"host", FieldId::Host), host, limits, head)?;
    lay_cookies(draft, limits, &mut writer, head)?;
    for field in &draft.fields {
        if matches!(field.id, FieldId::Host | FieldId::Cookie) {
            continue;
        }
        let name = field.name.of(&draft.text);
        let value = field.value.of(&draft.text);
        writer.field((name, field.id), value, limits, head)?;
    }
    if draft.protocol.is_some() {
        let protocol = draft.get(draft.protocol);
        writer.field(
            (b"connection", FieldId::Connection),
            b"upgrade",
            limits,
            head,
        )?;
        writer.field((b"upgrade", FieldId::Upgrade), protocol, limits, head)?;
        writer.field((b"sec-websocket-key", FieldId::Other), key, limits, head)?;
    }
    writer.put(b"\r\n")?;
    head.len = writer.length;
    Ok(head.len)
}

/// `: ` and CRLF.
const SEPARATORS: usize = 4;

/// Split for the sake of compression (RFC 9113 §8.2.3), and joined again.
fn lay_cookies(
    draft: &Draft,
    limits: &HeadLimits,
    writer: &mut Writer<'_>,
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    let cookies = draft.fields.iter();
    let mut cookies = cookies
        .filter(|field| field.id == FieldId::Cookie)
        .map(|field| field.value.of(&draft.text));
    let Some(first) = cookies.next() else {
        return Ok(());
    };
    let name = writer.put(b"cookie")?;
    writer.put(b": ")?;
    let start = writer.length;
    writer.put(first)?;
    for cookie in cookies {
        writer.put(b"; ")?;
        writer.put(cookie)?;
    }
    let value = Span::new(start, writer.length);
    writer.end_field((name, FieldId::Cookie), value, limits, head)
}

fn lay_line(
    draft: &Draft,
    limits: &HeadLimits,
    writer: &mut Writer<'_>,
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    let method = match draft.protocol {
        Some(_) if draft.get(draft.protocol).eq_ignore_ascii_case(WEBSOCKET) => b"GET",
        Some(_) => return Err(HeadError::UnknownProtocol),
        None => draft.get(draft.method),
    };
    head.method = writer.put(method)?;
    head.method_id = Method::of(method);
    writer.put(b" ")?;
    let path = draft.get(draft.path);
    head.target = writer.put(path)?;
    writer.put(b" HTTP/2.0")?;
    head.line = Span::new(0, writer.length);
    writer.put(b"\r\n")?;
    if !method
        .iter()
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
    let question = memchr::memchr(b'?', path);
    head.path = Span::new(start, question.map_or(end, |at| start + at));
    head.query = question.map(|at| Span::new(start + at + 1, end));
    // `*` is no path, and asks for nothing that a proxy could say. A fragment
    // never belongs in a request.
    let is_visible = |byte: &u8| *byte > b' ' && *byte != 0x7f && *byte != b'#';
    if !path.starts_with(b"/") || !path.iter().all(is_visible) || std::str::from_utf8(path).is_err()
    {
        return Err(HeadError::InvalidTarget);
    }
    Ok(())
}

/// `:authority`, or Host where there is none; both must say the same
/// (RFC 9113 §8.3.1).
fn host(draft: &Draft) -> Result<&[u8], HeadError> {
    let mut hosts = draft
        .fields
        .iter()
        .filter(|field| field.id == FieldId::Host);
    let host = hosts.next().map(|host| host.value.of(&draft.text));
    if hosts.next().is_some() {
        return Err(HeadError::SeveralHosts);
    }
    let authority = draft.authority.map(|name| name.of(&draft.text));
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
        (name, id): (&[u8], FieldId),
        value: &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<(), HeadError> {
        let name = self.put(name)?;
        self.put(b": ")?;
        let value = self.put(value)?;
        self.end_field((name, id), value, limits, head)
    }

    fn end_field(
        &mut self,
        (name, id): (Span, FieldId),
        value: Span,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<(), HeadError> {
        let text = value.of(self.out);
        // RFC 9113 §8.2.1: white space around a value would be lost on the way
        // to a backend, and a signature or a length with it.
        let is_bare = |byte: Option<&u8>| byte.is_none_or(|byte| !matches!(byte, b' ' | b'\t'));
        if !is_bare(text.first()) || !is_bare(text.last()) || !is_field_value(text) {
            return Err(HeadError::InvalidFieldValue);
        }
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

    const LIMITS: HeadLimits = HeadLimits {
        line: 200,
        total: 400,
        fields: 8,
    };

    type Fields<'a> = Vec<(&'a str, &'a str)>;

    fn get<'a>(more: &[(&'a str, &'a str)]) -> Fields<'a> {
        let mut fields = vec![
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "a.test"),
            (":path", "/"),
        ];
        fields.extend_from_slice(more);
        fields
    }

    fn with<'a>(name: &str, value: &'a str, more: &[(&'a str, &'a str)]) -> Fields<'a> {
        let mut fields = get(more);
        let place = fields.iter_mut().find(|(known, _)| *known == name);
        place.unwrap().1 = value;
        fields
    }

    fn without<'a>(name: &str, more: &[(&'a str, &'a str)]) -> Fields<'a> {
        let fields = get(more).into_iter();
        fields.filter(|(known, _)| *known != name).collect()
    }

    fn drafted(fields: &[(&str, &str)]) -> Draft {
        let mut draft = Draft::default();
        for (name, value) in fields {
            draft.add(name.as_bytes(), value.as_bytes());
        }
        draft.end();
        draft
    }

    fn laid(fields: &[(&str, &str)]) -> Result<(String, RequestHead), HeadError> {
        let draft = drafted(fields);
        assert!(!draft.is_malformed(), "{fields:?}");
        let mut out = vec![0; draft.room()];
        let mut head = RequestHead::default();
        let length = lay(&draft, b"a2V5", &LIMITS, &mut out, &mut head)?;
        out.truncate(length);
        Ok((String::from_utf8(out).unwrap(), head))
    }

    #[test]
    fn a_request_is_laid_out_as_a_head_that_the_parser_of_http1_agrees_with() {
        let mut fields = get(&[
            ("accept", "*/*"),
            ("cookie", "a=1"),
            ("x-a", "1"),
            ("cookie", "b=2"),
            ("x-a", "2"),
        ]);
        fields[2].1 = "a.test:8443";
        fields[3].1 = "/x/y?z=1";
        let (text, head) = laid(&fields).unwrap();
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
    fn what_breaks_the_rules_of_http2_is_malformed() {
        let mut late = get(&[("a", "b")]);
        late.swap(3, 4);
        let connect = |more: &[(&'static str, &'static str)]| {
            let mut fields = vec![(":method", "CONNECT"), (":authority", "a.test:443")];
            fields.extend_from_slice(more);
            fields
        };
        for fields in [
            get(&[("connection", "close")]),
            get(&[("keep-alive", "timeout=5")]),
            get(&[("proxy-connection", "close")]),
            get(&[("transfer-encoding", "chunked")]),
            get(&[("upgrade", "websocket")]),
            get(&[("te", "gzip")]),
            get(&[("X-Upper", "b")]),
            get(&[("a", "b\r\nc: d")]),
            get(&[("a", "b\nc")]),
            get(&[("a", "b\0c")]),
            get(&[("a\r\nb", "c")]),
            get(&[("a\"b", "c")]),
            get(&[("a b", "c")]),
            get(&[("", "c")]),
            get(&[(":other", "b")]),
            get(&[(":status", "200")]),
            get(&[(":path", "/")]),
            late,
            without(":method", &[]),
            without(":scheme", &[]),
            without(":path", &[]),
            with(":path", "", &[]),
            with(":path", "/a\r\nb", &[]),
            with(":method", "", &[]),
            get(&[(":protocol", "websocket")]),
            connect(&[(":path", "/")]),
            connect(&[(":protocol", "websocket"), (":scheme", "https")]),
        ] {
            let draft = drafted(&fields);
            assert!(draft.is_malformed(), "{fields:?}");
            // The logs are told of it.
            assert!(!has_line_end(&draft.text), "{fields:?}");
        }
        assert!(!drafted(&get(&[("te", "trailers")])).is_malformed());
        assert!(!drafted(&connect(&[])).is_malformed());
        let mut trailers = TrailerDraft::default();
        trailers.add(b"x-sum", b"1");
        assert!(trailers.end().is_some());
        let mut trailers = TrailerDraft::default();
        trailers.add(b":path", b"/");
        trailers.add(b"x-sum", b"1");
        assert_eq!(trailers.end(), None);
    }

    #[test]
    fn what_http2_lets_pass_is_refused_by_the_rules_of_http1() {
        let long = "b".repeat(200);
        let half = "b".repeat(150);
        let long_path = format!("/{long}");
        for (fields, error) in [
            (without(":authority", &[]), HeadError::MissingHost),
            (get(&[("host", "b.test")]), HeadError::SeveralHosts),
            (
                get(&[("host", "a.test"), ("host", "a.test")]),
                HeadError::SeveralHosts,
            ),
            (with(":authority", "u@a.test", &[]), HeadError::InvalidHost),
            (with(":authority", "", &[]), HeadError::InvalidHost),
            (with(":method", "TRACE", &[]), HeadError::MethodNotAllowed),
            (
                vec![(":method", "CONNECT"), (":authority", "a.test:443")],
                HeadError::MethodNotAllowed,
            ),
            (with(":method", "get", &[]), HeadError::InvalidMethod),
            (with(":method", "G T", &[]), HeadError::InvalidMethod),
            (with(":path", "*", &[]), HeadError::InvalidTarget),
            (with(":path", "/a#b", &[]), HeadError::InvalidTarget),
            (with(":path", "/a b", &[]), HeadError::InvalidTarget),
            (with(":path", "/\u{7f}", &[]), HeadError::InvalidTarget),
            (get(&[("a", " b")]), HeadError::InvalidFieldValue),
            (get(&[("a", "b\t")]), HeadError::InvalidFieldValue),
            (get(&[("a", "b\u{1}")]), HeadError::InvalidFieldValue),
            (get(&[("a", &long)]), HeadError::FieldTooLong),
            (
                with(":path", &long_path, &[]),
                HeadError::RequestLineTooLong,
            ),
            (
                get(&[("a", &half), ("b", &half), ("c", &half)]),
                HeadError::HeadTooLarge,
            ),
            (get(&[("a", "b"); 9]), HeadError::TooManyFields),
        ] {
            assert_eq!(laid(&fields).unwrap_err(), error, "{fields:?}");
        }
        assert!(laid(&get(&[("host", "A.test")])).is_ok());
        let mut draft = drafted(&get(&[]));
        draft.cut_off();
        let mut out = vec![0; draft.room()];
        let mut head = RequestHead::default();
        let laid = lay(&draft, b"", &LIMITS, &mut out, &mut head);
        assert_eq!(laid, Err(HeadError::HeadTooLarge));
        // For the log.
        assert_eq!(head.line.of(&out), b"GET / HTTP/2.0");
    }

    #[test]
    fn a_request_for_websocket_becomes_that_of_http1() {
        let connect = |protocol| {
            vec![
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "https"),
                (":authority", "a.test"),
                (":path", "/ws"),
            ]
        };
        let (text, head) = laid(&connect("websocket")).unwrap();
        assert_eq!(
            text,
            "GET /ws HTTP/2.0\r\nhost: a.test\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: a2V5\r\n\r\n"
        );
        assert_eq!(head.method_id, Method::Get);
        let other = laid(&connect("connect-udp"));
        assert_eq!(other.unwrap_err(), HeadError::UnknownProtocol);
    }

    #[test]
    fn a_draft_that_is_used_again_remembers_nothing() {
        let mut draft = drafted(&get(&[(":other", "b")]));
        draft.cut_off();
        draft.clear();
        for (name, value) in get(&[("a", "b")]) {
            draft.add(name.as_bytes(), value.as_bytes());
        }
        draft.end();
        assert!(!draft.is_malformed() && !draft.asks_for_protocol());
        let mut out = vec![0; draft.room()];
        let mut head = RequestHead::default();
        let length = lay(&draft, b"", &LIMITS, &mut out, &mut head).unwrap();
        assert_eq!(
            &out[..length],
            b"GET / HTTP/2.0\r\nhost: a.test\r\na: b\r\n\r\n"
        );
    }
}
