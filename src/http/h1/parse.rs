//! Request and response heads, parsed in place.
//!
//! Two steps. A scan for line feeds finds the end of the head, holds every line
//! to its limit and refuses what httparse would tolerate (bare LF, folding);
//! it remembers where it stopped, so a head that dribbles in is scanned once.
//! Only a complete head meets httparse. Running httparse on every partial head
//! was rejected: it starts again from the first byte each time, which makes a
//! slow sender quadratically expensive.

use std::mem::MaybeUninit;

use httparse::Header;

use super::super::error::HeadError;
use super::super::head::{Field, FieldId, Method, RequestHead, ResponseHead, Scan, Span, Version};
use super::super::headers::list_members;
use super::super::uri::host_name;
use super::scan::{scan_request, scan_response};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of one line, its CRLF included (`large_client_header_buffers`' size).
    pub line: usize,
    /// Bytes of the whole head (number × size).
    pub total: usize,
    /// Field lines; more than [`MAX_FIELDS`] is never allowed.
    pub fields: usize,
}

/// Whether a head is all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The head has been filled in.
    Complete,
    /// Call again with the same bytes and more behind them.
    Partial,
}

/// Field lines for which room can be had at all: an array of them on the stack
/// takes 32 KiB, and Nginx's own bound (`max_headers`) is 1000.
pub const MAX_FIELDS: usize = 1024;

/// Field lines parsed with a small array. Browsers send 15 to 30; an
/// uninitialised array costs nothing, but touching 32 KiB of stack does.
const USUAL_FIELDS: usize = 64;

/// Options that the Connection fields may name. Each is compared with each
/// field name, so the bound keeps that product small.
const MAX_CONNECTION_OPTIONS: usize = 64;

/// Parses the request head at the start of `buf`.
///
/// On [`Status::Partial`] call again with the same `head` once there are more
/// bytes; before turning to another buffer in the middle of a head, call
/// [`RequestHead::clear`]. On an error as much of the head as was understood is
/// left in it for the log.
///
/// # Errors
///
/// Whatever RFC 9112 or the limits refuse; [`HeadError`] knows the status. The
/// connection cannot be used further.
pub fn parse_request(
    buf: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Status, HeadError> {
    let mut scan = head.scan;
    if scan.searched == 0 || scan.searched > buf.len() {
        head.clear();
        scan = Scan::default();
    }
    let found = scan_request(buf, limits, &mut scan, head);
    head.scan = scan;
    match found {
        Ok(Some(end)) => {
            let begin = head.scan.begin;
            // Whatever comes of it, the next call is about another message.
            head.scan = Scan::default();
            fill_request(buf, begin, end, limits, head)?;
            Ok(Status::Complete)
        }
        Ok(None) => Ok(Status::Partial),
        Err(error) => {
            head.scan = Scan::default();
            Err(error)
        }
    }
}

/// Parses the response head at the start of `buf`; otherwise as
/// [`parse_request`]. Interim (1xx) responses are heads of their own.
///
/// # Errors
///
/// As [`parse_request`]; to the client all of them are 502.
pub fn parse_response(
    buf: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Status, HeadError> {
    let mut scan = head.scan;
    if scan.searched == 0 || scan.searched > buf.len() {
        head.clear();
        scan = Scan::default();
    }
    let found = scan_response(buf, limits, &mut scan);
    head.scan = scan;
    match found {
        Ok(Some(end)) => {
            head.scan = Scan::default();
            fill_response(buf, end, limits, head)?;
            Ok(Status::Complete)
        }
        Ok(None) => Ok(Status::Partial),
        Err(error) => {
            head.scan = Scan::default();
            Err(error)
        }
    }
}

fn fill_request(
    buf: &[u8],
    begin: usize,
    end: usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    head.len = end;
    let bytes = buf.get(begin..end).unwrap_or_default();
    let read = match read_request::<USUAL_FIELDS>(bytes, begin, limits, head) {
        Err(HeadError::TooManyFields) if limits.fields > USUAL_FIELDS => {
            read_request::<MAX_FIELDS>(bytes, begin, limits, head)
        }
        other => other,
    };
    read.map_err(|error| refine(error, bytes))?;
    split_target(buf, head)?;
    check_hosts(buf, head)?;
    check_connection(buf, &head.fields)?;
    if matches!(head.method_id, Method::Connect | Method::Trace) {
        return Err(HeadError::MethodNotAllowed);
    }
    Ok(())
}

/// Never inlined, so that only a head with many fields touches a large stack
/// frame.
#[inline(never)]
fn read_request<const N: usize>(
    bytes: &[u8],
    begin: usize,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    let mut array = [const { MaybeUninit::<Header<'_>>::uninit() }; N];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut array);
    let base = Base::new(bytes, begin);
    if let Some(method) = request.method {
        head.method = base.span(method.as_bytes());
        head.method_id = Method::of(method.as_bytes());
        if !method
            .bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'-' | b'_'))
        {
            return Err(HeadError::InvalidMethod);
        }
    }
    if let Some(target) = request.path {
        head.target = base.span(target.as_bytes());
    }
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(HeadError::InvalidRequestLine),
        Err(error) => {
            return Err(translate(
                error,
                match (request.method, request.path) {
                    (None, _) => HeadError::InvalidMethod,
                    (_, None) => HeadError::InvalidTarget,
                    _ => HeadError::InvalidRequestLine,
                },
            ));
        }
    }
    head.version = match request.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    collect(request.headers, &base, limits, &mut head.fields)
}

fn fill_response(
    buf: &[u8],
    end: usize,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), HeadError> {
    head.len = end;
    let bytes = buf.get(..end).unwrap_or_default();
    let read = match read_response::<USUAL_FIELDS>(bytes, limits, head) {
        Err(HeadError::TooManyFields) if limits.fields > USUAL_FIELDS => {
            read_response::<MAX_FIELDS>(bytes, limits, head)
        }
        other => other,
    };
    read.map_err(|error| refine(error, bytes))?;
    // httparse gives no reason that has bytes above 0x7F. The line's shape is
    // fixed up to it: "HTTP/1.1 200 ".
    const REASON: usize = 13;
    let line = memchr::memchr(b'\r', bytes).unwrap_or(0);
    head.reason = Span::new(REASON.min(line), line);
    check_connection(buf, &head.fields)
}

/// As [`read_request`].
#[inline(never)]
fn read_response<const N: usize>(
    bytes: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), HeadError> {
    let mut array = [const { MaybeUninit::<Header<'_>>::uninit() }; N];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut array,
    );
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(HeadError::InvalidStatusLine),
        Err(httparse::Error::Version | httparse::Error::NewLine) => {
            return Err(HeadError::InvalidStatusLine);
        }
        Err(error) => return Err(translate(error, HeadError::InvalidStatusLine)),
    }
    head.version = match response.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    head.status = match response.code {
        Some(code) if code >= 100 => code,
        _ => return Err(HeadError::InvalidStatusLine),
    };
    collect(
        response.headers,
        &Base::new(bytes, 0),
        limits,
        &mut head.fields,
    )
}

/// Copies httparse's references as spans.
fn collect(
    headers: &[Header<'_>],
    base: &Base,
    limits: &HeadLimits,
    fields: &mut Vec<Field>,
) -> Result<(), HeadError> {
    fields.clear();
    if headers.len() > limits.fields {
        return Err(HeadError::TooManyFields);
    }
    fields.extend(headers.iter().map(|header| Field {
        name: base.span(header.name.as_bytes()),
        value: base.span(header.value),
        id: FieldId::of(header.name.as_bytes()),
    }));
    Ok(())
}

/// Turns slices of a buffer back into positions in it.
struct Base {
    address: usize,
    begin: usize,
}

impl Base {
    fn new(bytes: &[u8], begin: usize) -> Self {
        Self {
            address: bytes.as_ptr().addr(),
            begin,
        }
    }

    fn span(&self, part: &[u8]) -> Span {
        let start = part.as_ptr().addr().wrapping_sub(self.address) + self.begin;
        Span::new(start, start + part.len())
    }
}

/// `unread` is what a bad token would have been.
fn translate(error: httparse::Error, unread: HeadError) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::InvalidFieldName,
        httparse::Error::HeaderValue => HeadError::InvalidFieldValue,
        httparse::Error::NewLine => HeadError::InvalidRequestLine,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => HeadError::UnsupportedVersion,
        httparse::Error::Token | httparse::Error::Status => unread,
    }
}

/// Finds the more exact name for what httparse refused, for the log and, for
/// versions, for the status. Off the fast path: it looks at the head again.
fn refine(error: HeadError, bytes: &[u8]) -> HeadError {
    let mut returns = memchr::memchr_iter(b'\r', bytes);
    if error != HeadError::TooManyFields
        && returns.any(|at| !matches!(bytes.get(at + 1), Some(b'\n')))
    {
        return HeadError::BareCr;
    }
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let start_line = lines.next().unwrap_or_default().trim_ascii_end();
    match error {
        HeadError::UnsupportedVersion if !ends_in_version(start_line) => {
            HeadError::InvalidRequestLine
        }
        HeadError::InvalidFieldName if lines.any(has_space_before_colon) => {
            HeadError::SpaceBeforeColon
        }
        other => other,
    }
}

/// Whether a request line has three parts, of which the last is a version, if
/// one that nobody speaks.
fn ends_in_version(line: &[u8]) -> bool {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    matches!(version.strip_prefix(b"HTTP/"), Some([major, rest @ ..])
        if major.is_ascii_digit() && rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'))
}

fn has_space_before_colon(line: &[u8]) -> bool {
    let colon = memchr::memchr(b':', line).unwrap_or(0);
    matches!(line.get(..colon), Some([b'!'..=b'~', .., b' ' | b'\t']))
}

/// Origin-form or absolute-form (RFC 9112 §3.2). The asterisk form is refused,
/// as by Nginx: no location could answer it.
fn split_target(buf: &[u8], head: &mut RequestHead) -> Result<(), HeadError> {
    let target = head.target.of(buf);
    let base = head.target.start as usize;
    // A fragment never belongs in a request; a proxy that lets it pass and a
    // backend that cuts it off disagree about the path.
    if memchr::memchr(b'#', target).is_some() {
        return Err(HeadError::InvalidTarget);
    }
    let path_start = match target.first() {
        Some(b'/') => 0,
        _ if head.method_id == Method::Connect => {
            head.authority = Some(head.target);
            head.path = Span::default();
            return match host_name(target) {
                Some(_) => Ok(()),
                None => Err(HeadError::InvalidHost),
            };
        }
        Some(first) if first.is_ascii_alphabetic() => {
            let scheme = target
                .iter()
                .position(|byte| !matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
                .unwrap_or(target.len());
            let Some(rest) = target
                .get(scheme..)
                .and_then(|rest| rest.strip_prefix(b"://"))
            else {
                return Err(HeadError::InvalidTarget);
            };
            let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
            let start = base + scheme + b"://".len();
            head.authority = Some(Span::new(start, start + length));
            scheme + b"://".len() + length
        }
        _ => return Err(HeadError::InvalidTarget),
    };
    let rest = target.get(path_start..).unwrap_or_default();
    let path_length = memchr::memchr(b'?', rest).unwrap_or(rest.len());
    head.path = if path_length == 0 {
        // An absolute-form without a path: the slash before its authority
        // stands in for it, as in Nginx, so that a span can name it.
        let slash = head.authority.map_or(base, |span| span.start as usize - 1);
        Span::new(slash, slash + 1)
    } else {
        Span::new(base + path_start, base + path_start + path_length)
    };
    head.query = (path_length < rest.len()).then(|| {
        Span::new(
            base + path_start + path_length + 1,
            base + path_start + rest.len(),
        )
    });
    Ok(())
}

/// RFC 9112 §3.2: exactly one Host in HTTP/1.1, and a valid one.
fn check_hosts(buf: &[u8], head: &RequestHead) -> Result<(), HeadError> {
    let mut hosts = head.fields_of(buf, FieldId::Host);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadError::SeveralHosts);
    }
    if host.is_none() && head.version == Version::Http11 {
        return Err(HeadError::MissingHost);
    }
    let authority = head.authority.map(|span| span.of(buf));
    if [host, authority]
        .into_iter()
        .flatten()
        .any(|host| host_name(host).is_none())
    {
        return Err(HeadError::InvalidHost);
    }
    Ok(())
}

fn check_connection(buf: &[u8], fields: &[Field]) -> Result<(), HeadError> {
    let mut options = 0;
    for field in fields {
        if field.id == FieldId::Connection {
            options += list_members(field.value.of(buf)).count();
        }
    }
    if options > MAX_CONNECTION_OPTIONS {
        return Err(HeadError::TooManyConnectionOptions);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
