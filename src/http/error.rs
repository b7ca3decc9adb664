//! What can be wrong with a message, who is to blame, and which status that
//! means: the one place where the three meet.
//!
//! The errors themselves do not say who sent the message, because requests and
//! responses are held to the same rules; [`Sent`] adds that.

use std::fmt;

use super::h1::encode::Sink;

/// Who sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The other end of an accepted connection.
    Client,
    /// A backend.
    Upstream,
}

/// A message that was refused, with its sender. Displays as Nginx's log lines
/// do: `client sent … while reading …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent<E>(pub Peer, pub E);

impl<E: Refusal> Sent<E> {
    /// The status for the client: its own fault by the error, a backend's
    /// always 502.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.0 {
            Peer::Client => self.1.status(),
            Peer::Upstream => 502,
        }
    }
}

impl<E: Refusal> fmt::Display for Sent<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::Client => write!(
                f,
                "client sent {} while reading client {}",
                self.1,
                E::PHASE
            ),
            Peer::Upstream => write!(
                f,
                "upstream sent {} while reading upstream {}",
                self.1,
                E::PHASE
            ),
        }
    }
}

impl<E: Refusal + fmt::Debug> std::error::Error for Sent<E> {}

/// What the errors of this module have in common.
pub trait Refusal: fmt::Display {
    /// What was being read: `message head`, `message body`.
    const PHASE: &'static str;
    /// The status when a client is to blame.
    fn status(&self) -> u16;
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// The request line is longer than one large header buffer.
    RequestLineTooLong,
    /// A field line is longer than one large header buffer.
    FieldTooLong,
    /// The head is longer than all large header buffers together.
    HeadTooLarge,
    /// More field lines than allowed.
    TooManyFields,
    /// A major version other than 1, or a minor one that does not exist.
    UnsupportedVersion,
    /// CONNECT or TRACE, which a reverse proxy does not serve.
    MethodNotAllowed,
    /// Bytes of a TLS record instead of a request.
    TlsOnPlainPort,
    /// The method is not a word of `A`–`Z`, `-` and `_`.
    InvalidMethod,
    /// The target is neither a path nor an absolute URI, or has a fragment.
    InvalidTarget,
    /// The request line has another shape than method, target, version.
    InvalidRequestLine,
    /// The status line has another shape than version, code, reason.
    InvalidStatusLine,
    /// LF without CR.
    BareLf,
    /// CR without LF.
    BareCr,
    /// A line that continues the one before (RFC 9112 §5.2).
    ObsFold,
    /// White space between a field's name and its colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A field name that is empty or not a token.
    InvalidFieldName,
    /// A control byte in a field value.
    InvalidFieldValue,
    /// HTTP/1.1 without Host.
    MissingHost,
    /// More than one Host.
    SeveralHosts,
    /// Host, or the target's authority, is not one.
    InvalidHost,
    /// Connection names more options than anybody needs.
    TooManyConnectionOptions,
    /// An extended CONNECT for something else than WebSocket (RFC 8441).
    UnknownProtocol,
    /// A field of HTTP/1.1's connections in HTTP/2 (RFC 9113 §8.2.2).
    ConnectionField,
    /// A pseudo-field that is unknown, comes twice or behind a field
    /// (RFC 9113 §8.3).
    InvalidPseudoField,
    /// A pseudo-field that is missing, empty or not for this method.
    MissingPseudoField,
    /// Content-Length, and a stream that ends with its head (RFC 9113 §8.1.1).
    LengthWithoutBody,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLineTooLong => "too long URI",
            Self::FieldTooLong => "too long header line",
            Self::HeadTooLarge => "too large header",
            Self::TooManyFields => "too many header lines",
            Self::UnsupportedVersion => "unsupported HTTP version",
            Self::MethodNotAllowed => "CONNECT or TRACE method",
            Self::TlsOnPlainPort => "a TLS record to a port without TLS",
            Self::InvalidMethod => "invalid method",
            Self::InvalidTarget => "invalid request target",
            Self::InvalidRequestLine => "invalid request line",
            Self::InvalidStatusLine => "invalid status line",
            Self::BareLf => "a bare line feed as a line end",
            Self::BareCr => "a bare carriage return",
            Self::ObsFold => "a folded header line",
            Self::SpaceBeforeColon => "white space before the colon of a header line",
            Self::InvalidFieldName => "invalid header name",
            Self::InvalidFieldValue => "a control byte in a header value",
            Self::MissingHost => "request without \"Host\" header",
            Self::SeveralHosts => "duplicate \"Host\" header",
            Self::InvalidHost => "invalid host",
            Self::TooManyConnectionOptions => "too many connection options",
            Self::UnknownProtocol => "unknown \":protocol\"",
            Self::ConnectionField => "connection-specific header",
            Self::InvalidPseudoField => "unknown, duplicate or out of order pseudo-header",
            Self::MissingPseudoField => "request without \":method\", \":scheme\" or \":path\"",
            Self::LengthWithoutBody => "\"Content-Length\" without a body",
        })
    }
}

impl std::error::Error for HeadError {}

impl Refusal for HeadError {
    const PHASE: &'static str = "message head";

    fn status(&self) -> u16 {
        match self {
            Self::RequestLineTooLong => 414,
            Self::FieldTooLong | Self::HeadTooLarge | Self::TooManyFields => 494,
            Self::UnsupportedVersion => 505,
            Self::MethodNotAllowed => 405,
            Self::UnknownProtocol => 501,
            _ => 400,
        }
    }
}

/// Why the end of a message cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FramingError {
    /// Content-Length beside Transfer-Encoding.
    BothLengthAndEncoding,
    /// Transfer-Encoding in HTTP/1.0.
    EncodingInHttp10,
    /// A Transfer-Encoding that is empty, does not end in `chunked` or says it
    /// twice.
    InvalidEncoding,
    /// A coding before the final `chunked` that is not implemented.
    UnknownCoding,
    /// A Content-Length that is not one run of digits.
    InvalidLength,
    /// A Content-Length beyond what 63 bits hold.
    LengthOverflow,
    /// Content-Length more than once.
    SeveralLengths,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothLengthAndEncoding => {
                "\"Content-Length\" and \"Transfer-Encoding\" headers at the same time"
            }
            Self::EncodingInHttp10 => "\"Transfer-Encoding\" header in HTTP/1.0",
            Self::InvalidEncoding => "invalid \"Transfer-Encoding\" header",
            Self::UnknownCoding => "unknown \"Transfer-Encoding\"",
            Self::InvalidLength => "invalid \"Content-Length\" header",
            Self::LengthOverflow => "too large \"Content-Length\" header",
            Self::SeveralLengths => "duplicate \"Content-Length\" header",
        })
    }
}

impl std::error::Error for FramingError {}

impl Refusal for FramingError {
    const PHASE: &'static str = "message head";

    fn status(&self) -> u16 {
        match self {
            Self::UnknownCoding => 501,
            _ => 400,
        }
    }
}

/// Why a chunked body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkError {
    /// A chunk size that is empty or not hexadecimal.
    InvalidSize,
    /// A chunk size of more than 16 digits or 63 bits.
    SizeOverflow,
    /// A control byte in a chunk extension.
    InvalidExtension,
    /// Chunk extensions beyond their bounds.
    ExtensionTooLong,
    /// Something else than CRLF behind a size or behind a chunk's data.
    InvalidLineEnd,
    /// A trailer that is no field line.
    InvalidTrailer,
    /// Trailers beyond their bounds.
    TrailersTooLong,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidSize => "invalid chunk size",
            Self::SizeOverflow => "too large chunk size",
            Self::InvalidExtension => "invalid chunk extension",
            Self::ExtensionTooLong => "too long chunk extensions",
            Self::InvalidLineEnd => "an invalid line end in a chunked body",
            Self::InvalidTrailer => "invalid trailer",
            Self::TrailersTooLong => "too long trailers",
        })
    }
}

impl std::error::Error for ChunkError {}

impl Refusal for ChunkError {
    const PHASE: &'static str = "message body";

    fn status(&self) -> u16 {
        400
    }
}

/// The status that goes on the wire and into the access log: Nginx's own codes
/// for a large head (494) and for TLS (495, 496, 497) are all 400 outside.
#[must_use]
pub fn wire_status(status: u16) -> u16 {
    match status {
        494..=497 => 400,
        other => other,
    }
}

/// The words behind a status in a status line, as Nginx writes them; empty for
/// statuses that it does not know either.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match wire_status(status) {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        421 => "Misdirected Request",
        425 => "Too Early",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// Appends the small HTML page that Nginx shows for a status; appends nothing
/// where Nginx has none (2xx, 304 and codes of the operator's own), which is
/// then an empty body.
///
/// `server_line` is what stands under the rule: `ringwall/0.1.0`, or only the
/// name with `server_tokens off`.
pub fn error_page(status: u16, server_line: Option<&str>, out: &mut impl Sink) {
    let heading = match status {
        // These differ from the status line, in Nginx too.
        302 => "Found",
        401 => "Authorization Required",
        301 | 303 | 307 | 308 | 400 | 402..=599 => reason_phrase(status),
        _ => "",
    };
    if heading.is_empty() {
        return;
    }
    let explanation = match status {
        494 => Some("Request Header Or Cookie Too Large"),
        495 => Some("The SSL certificate error"),
        496 => Some("No required SSL certificate was sent"),
        497 => Some("The plain HTTP request was sent to HTTPS port"),
        _ => None,
    };
    let mut digits = itoa::Buffer::new();
    let code = digits.format(wire_status(status));
    for part in [
        "<html>\r\n<head><title>",
        code,
        " ",
        explanation.unwrap_or(heading),
        "</title></head>\r\n<body>\r\n<center><h1>",
        code,
        " ",
        heading,
        "</h1></center>\r\n",
    ] {
        out.put(part.as_bytes());
    }
    if let Some(explanation) = explanation {
        out.put(b"<center>");
        out.put(explanation.as_bytes());
        out.put(b"</center>\r\n");
    }
    if let Some(line) = server_line {
        out.put(b"<hr><center>");
        out.put(line.as_bytes());
        out.put(b"</center>\r\n");
    }
    out.put(b"</body>\r\n</html>\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(status: u16) -> String {
        let mut out = Vec::new();
        error_page(status, Some("ringwall/0.1.0"), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_error_page_has_the_shape_of_nginx() {
        assert_eq!(
            page(502),
            "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
             <center><h1>502 Bad Gateway</h1></center>\r\n\
             <hr><center>ringwall/0.1.0</center>\r\n</body>\r\n</html>\r\n"
        );
        assert!(page(302).contains("<title>302 Found</title>"));
    }

    #[test]
    fn the_variants_of_400_name_their_cause_and_show_400() {
        for (status, words) in [
            (494, "Request Header Or Cookie Too Large"),
            (495, "The SSL certificate error"),
            (496, "No required SSL certificate was sent"),
            (497, "The plain HTTP request was sent to HTTPS port"),
        ] {
            let page = page(status);
            assert!(page.contains(&format!("<title>400 {words}</title>")));
            assert!(page.contains("<h1>400 Bad Request</h1>"));
            assert!(page.contains(&format!("<center>{words}</center>")));
            assert_eq!(wire_status(status), 400);
        }
    }

    #[test]
    fn a_status_without_a_page_has_an_empty_body() {
        for status in [200, 204, 304, 418, 444, 600] {
            assert_eq!(page(status), "", "{status}");
        }
    }

    #[test]
    fn the_client_is_blamed_with_its_status_and_a_backend_with_502() {
        let client = Sent(Peer::Client, HeadError::RequestLineTooLong);
        assert_eq!(client.status(), 414);
        assert_eq!(
            client.to_string(),
            "client sent too long URI while reading client message head"
        );
        let upstream = Sent(Peer::Upstream, FramingError::UnknownCoding);
        assert_eq!(upstream.status(), 502);
        assert!(upstream.to_string().starts_with("upstream sent unknown"));
    }
}
