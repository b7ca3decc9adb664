//! Values with variables, compiled once at load.
//!
//! `"$scheme://$host$request_uri"` becomes a list of literal and variable
//! parts. Evaluating one appends to an output buffer and allocates nothing of
//! its own; who knows the values is the request path's business
//! (`proxy::variables`), so this module only names them.

use std::collections::HashMap;
use std::fmt;

use super::variables::VariableId;

/// A directive's value, split into what is fixed and what a request decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// In source order; adjacent literals are merged, none is empty.
    pub parts: Box<[Part]>,
}

/// One piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Bytes copied as they are.
    Literal(Box<[u8]>),
    /// A variable evaluated per request.
    Variable(Variable),
}

/// Every variable that a configuration may name, by Nginx's meaning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variable {
    /// `$arg_NAME`: the query argument, name in lower case.
    Arg(Box<str>),
    /// `$args`, `$query_string`.
    Args,
    /// `$binary_remote_addr`.
    BinaryRemoteAddr,
    /// `$body_bytes_sent`.
    BodyBytesSent,
    /// `$bytes_sent`.
    BytesSent,
    /// `$connection`: the connection's serial number.
    Connection,
    /// `$connection_requests`.
    ConnectionRequests,
    /// `$connection_time`: seconds with milliseconds.
    ConnectionTime,
    /// `$connections_active`: of the process, as `stub_status` has them.
    ConnectionsActive,
    /// `$connections_reading`.
    ConnectionsReading,
    /// `$connections_waiting`.
    ConnectionsWaiting,
    /// `$connections_writing`.
    ConnectionsWriting,
    /// `$content_length`.
    ContentLength,
    /// `$content_type`.
    ContentType,
    /// `$document_root`.
    DocumentRoot,
    /// `$cookie_NAME`.
    Cookie(Box<str>),
    /// `$document_uri`, `$uri`: normalised, without arguments.
    Uri,
    /// `$gzip_ratio`.
    GzipRatio,
    /// `$host`: request line, else Host, else server name; lower case, no port.
    Host,
    /// `$hostname`.
    Hostname,
    /// `$http_NAME`: a request field, name in lower case with `-` for `_`.
    Http(Box<str>),
    /// `$http_host` and every other field goes through [`Variable::Http`];
    /// `$https` is `on` over TLS and empty otherwise.
    Https,
    /// `$is_args`: `?` or empty.
    IsArgs,
    /// `$is_request_port`: `:` where there is a `$request_port`, or empty.
    IsRequestPort,
    /// `$limit_conn_status`: `PASSED`, `REJECTED` or `REJECTED_DRY_RUN`.
    LimitConnStatus,
    /// `$limit_rate`: bytes a second, 0 for no limit.
    LimitRate,
    /// `$limit_req_status`: `PASSED`, `DELAYED`, `REJECTED`, and the latter two
    /// with `_DRY_RUN`.
    LimitReqStatus,
    /// `$msec`: seconds since the epoch with milliseconds.
    Msec,
    /// `$nginx_version`: for compatibility, the version of ringwall.
    NginxVersion,
    /// `$pid`.
    Pid,
    /// `$pipe`: `p` when pipelined, else `.`.
    Pipe,
    /// `$proxy_add_x_forwarded_for`.
    ProxyAddXForwardedFor,
    /// `$proxy_host`: name and port from `proxy_pass`.
    ProxyHost,
    /// `$proxy_port`.
    ProxyPort,
    /// `$proxy_protocol_addr`: the client that the header in front of the
    /// connection names.
    ProxyProtocolAddr,
    /// `$proxy_protocol_port`.
    ProxyProtocolPort,
    /// `$proxy_protocol_server_addr`: what it connected to.
    ProxyProtocolServerAddr,
    /// `$proxy_protocol_server_port`.
    ProxyProtocolServerPort,
    /// `$proxy_protocol_tlv_NAME`: what else the header says.
    ProxyProtocolTlv(Box<str>),
    /// `$invalid_referer`: empty or `1`.
    InvalidReferer,
    /// `$realip_remote_addr`: the peer, whomever it spoke for.
    RealipRemoteAddr,
    /// `$realip_remote_port`.
    RealipRemotePort,
    /// `$remote_addr`.
    RemoteAddr,
    /// `$remote_port`.
    RemotePort,
    /// `$remote_user`.
    RemoteUser,
    /// `$request`: the request line as received.
    Request,
    /// `$request_body`: where a backend is to get it and the whole of it is in
    /// memory.
    RequestBody,
    /// `$request_completion`: `OK` or empty.
    RequestCompletion,
    /// `$request_filename`.
    RequestFilename,
    /// `$request_id`: 32 hexadecimal digits.
    RequestId,
    /// `$request_length`: bytes, with head and body.
    RequestLength,
    /// `$request_method`.
    RequestMethod,
    /// `$request_port`: of the request line, else of Host.
    RequestPort,
    /// `$request_time`: seconds with milliseconds.
    RequestTime,
    /// `$request_uri`: target with arguments, as received.
    RequestUri,
    /// `$scheme`.
    Scheme,
    /// `$sent_http_NAME`.
    SentHttp(Box<str>),
    /// `$sent_trailer_NAME`.
    SentTrailer(Box<str>),
    /// `$server_addr`.
    ServerAddr,
    /// `$server_name`.
    ServerName,
    /// `$server_port`.
    ServerPort,
    /// `$server_protocol`.
    ServerProtocol,
    /// `$ssl_alpn_protocol`.
    SslAlpnProtocol,
    /// `$ssl_cipher`: OpenSSL's name.
    SslCipher,
    /// `$ssl_ciphers`: what the client offered, in its order.
    SslCiphers,
    /// `$ssl_client_cert`: PEM, each line but the first behind a tab.
    SslClientCert,
    /// The same in the value of a field, as who receives Nginx's folded field
    /// has to read it: a space for each line end (RFC 9112 §5.2).
    SslClientCertUnfolded,
    /// `$ssl_client_escaped_cert`: PEM, percent-encoded.
    SslClientEscapedCert,
    /// `$ssl_client_fingerprint`: SHA-1, hexadecimal.
    SslClientFingerprint,
    /// `$ssl_client_fingerprint_sha256`: SHA-256, hexadecimal.
    SslClientFingerprintSha256,
    /// `$ssl_client_i_dn`: RFC 2253.
    SslClientIDn,
    /// `$ssl_client_i_dn_legacy`: slashes.
    SslClientIDnLegacy,
    /// `$ssl_client_raw_cert`: PEM.
    SslClientRawCert,
    /// `$ssl_client_s_dn`: RFC 2253.
    SslClientSDn,
    /// `$ssl_client_s_dn_legacy`: slashes.
    SslClientSDnLegacy,
    /// `$ssl_client_san_dns`: the DNS names, comma-separated.
    SslClientSanDns,
    /// `$ssl_client_san_email`: the mail addresses, comma-separated.
    SslClientSanEmail,
    /// `$ssl_client_san_uri`: the URIs, comma-separated.
    SslClientSanUri,
    /// `$ssl_client_serial`.
    SslClientSerial,
    /// `$ssl_client_v_end`: as `Nov 20 19:45:18 2026 GMT`.
    SslClientVEnd,
    /// `$ssl_client_v_remain`: whole days.
    SslClientVRemain,
    /// `$ssl_client_v_start`.
    SslClientVStart,
    /// `$ssl_client_verify`: `SUCCESS`, `FAILED:reason`, `NONE`.
    SslClientVerify,
    /// `$ssl_curve`: the group of the key exchange.
    SslCurve,
    /// `$ssl_curves`: the groups that the client offered.
    SslCurves,
    /// `$ssl_early_data`: empty, since no early data is accepted.
    SslEarlyData,
    /// `$ssl_protocol`: `TLSv1.3`, …
    SslProtocol,
    /// `$ssl_server_name`: the name in SNI.
    SslServerName,
    /// `$ssl_session_id`: hexadecimal.
    SslSessionId,
    /// `$ssl_session_reused`: `r` or `.`.
    SslSessionReused,
    /// `$status`.
    Status,
    /// `$tcpinfo_rtt` and its like.
    TcpInfo(TcpFact),
    /// `$time_iso8601`.
    TimeIso8601,
    /// `$time_local`.
    TimeLocal,
    /// `$trailer_NAME`: a field behind the request's body, name in lower case with
    /// `-` for `_`.
    Trailer(Box<str>),
    /// `$upstream_addr`.
    UpstreamAddr,
    /// `$upstream_bytes_received`: heads and bodies, without what TLS adds.
    UpstreamBytesReceived,
    /// `$upstream_bytes_sent`.
    UpstreamBytesSent,
    /// `$upstream_connect_time`.
    UpstreamConnectTime,
    /// `$upstream_header_time`.
    UpstreamHeaderTime,
    /// `$upstream_http_NAME`.
    UpstreamHttp(Box<str>),
    /// `$upstream_trailer_NAME`.
    UpstreamTrailer(Box<str>),
    /// `$upstream_cookie_NAME`.
    UpstreamCookie(Box<str>),
    /// `$upstream_response_length`.
    UpstreamResponseLength,
    /// `$upstream_queue_time`.
    UpstreamQueueTime,
    /// `$upstream_response_time`.
    UpstreamResponseTime,
    /// `$upstream_ssl_cipher`: OpenSSL's name, for each try.
    UpstreamSslCipher,
    /// `$upstream_ssl_protocol`: `TLSv1.3`, … for each try.
    UpstreamSslProtocol,
    /// `$upstream_ssl_session_reused`: `r` or `.` for each try: whether the
    /// connection's handshake resumed a session.
    UpstreamSslSessionReused,
    /// `$upstream_status`.
    UpstreamStatus,
    /// `$1` … `$9`: group of the regular expression that matched last.
    Capture(u8),
    /// One that the configuration defines.
    User(VariableId),
    /// `$http2`: `h2` over TLS, `h2c` without, empty otherwise.
    Http2,
    /// What tells of something that does not happen here: `$http3`,
    /// `$upstream_cache_…`, `$ssl_ech_…`. Empty.
    Absent,
}

/// What `$tcpinfo_…` tells of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpFact {
    /// `rcv_space`: bytes.
    RcvSpace,
    /// `rtt`: microseconds.
    Rtt,
    /// `rttvar`: microseconds.
    RttVar,
    /// `snd_cwnd`: segments.
    SndCwnd,
}

/// Why a value could not be compiled, in Nginx's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompileError {
    /// `$` without a name behind it.
    InvalidName,
    /// `${name` without `}`.
    MissingBracket(String),
    /// A name that nothing defines.
    Unknown(String),
    /// A variable of Nginx's that has no meaning here yet.
    NotImplemented(String),
    /// One that never will have, and why.
    Refused(&'static str, &'static str),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName => f.write_str("invalid variable name"),
            Self::MissingBracket(name) => {
                write!(f, "the closing bracket in \"{name}\" variable is missing")
            }
            Self::Unknown(name) => write!(f, "unknown \"{name}\" variable"),
            Self::NotImplemented(name) => {
                write!(f, "\"{name}\" variable is not implemented in this version")
            }
            Self::Refused(name, reason) => {
                write!(f, "\"{name}\" variable is not supported: {reason}")
            }
        }
    }
}

impl Template {
    /// The variables that the value names.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Variable(variable) => Some(variable),
        })
    }

    /// A value without variables.
    pub fn literal(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        Self {
            parts: [Part::Literal(bytes.into())].into(),
        }
    }

    /// The value, if no request has a say in it.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Literal(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// Compiles a value: `$name`, `${name}`, `$1`. The configuration's own
    /// escapes have been resolved by the lexer; there is none for `$`, as in
    /// Nginx. `defined` holds the variables that the configuration defines, maybe
    /// behind the place that uses them.
    ///
    /// # Errors
    /// A malformed or unknown variable.
    pub fn compile(
        value: &[u8],
        defined: &HashMap<Box<str>, VariableId>,
    ) -> Result<Self, CompileError> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = value;
        while let Some(dollar) = rest.iter().position(|&byte| byte == b'$') {
            literal.extend_from_slice(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            let variable = match rest.first() {
                Some(digit @ b'1'..=b'9') => {
                    rest = &rest[1..];
                    Variable::Capture(digit - b'0')
                }
                _ => Variable::named(take_name(&mut rest)?, defined)?,
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Variable(variable));
        }
        literal.extend_from_slice(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self {
            parts: parts.into(),
        })
    }
}

/// The name behind a `$`, cut off the front of `rest`.
fn take_name<'a>(rest: &mut &'a [u8]) -> Result<&'a str, CompileError> {
    let bracket = rest.first() == Some(&b'{');
    let from = &rest[usize::from(bracket)..];
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = from
        .iter()
        .position(|byte| !is_name(byte))
        .unwrap_or(from.len());
    let (name, after) = from.split_at(length);
    *rest = match (bracket, after.first()) {
        (false, _) => after,
        (true, Some(b'}')) => &after[1..],
        (true, _) => {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(CompileError::MissingBracket(name));
        }
    };
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => Err(CompileError::InvalidName),
    }
}

impl Variable {
    /// Whether the value tells who the client proved to be.
    pub fn is_identity(&self) -> bool {
        matches!(
            self,
            Self::SslClientCert
                | Self::SslClientCertUnfolded
                | Self::SslClientEscapedCert
                | Self::SslClientFingerprint
                | Self::SslClientFingerprintSha256
                | Self::SslClientIDn
                | Self::SslClientIDnLegacy
                | Self::SslClientRawCert
                | Self::SslClientSDn
                | Self::SslClientSDnLegacy
                | Self::SslClientSanDns
                | Self::SslClientSanEmail
                | Self::SslClientSanUri
                | Self::SslClientSerial
                | Self::SslClientVEnd
                | Self::SslClientVRemain
                | Self::SslClientVStart
                | Self::SslClientVerify
        )
    }

    /// Whether the value always spans lines, so that no field can carry it.
    pub fn spans_lines(&self) -> bool {
        matches!(self, Self::SslClientCert | Self::SslClientRawCert)
    }

    /// Whether the value is read from the ClientHello, of which nothing is
    /// kept otherwise.
    pub fn is_of_client_hello(&self) -> bool {
        matches!(self, Self::SslCiphers | Self::SslCurves)
    }

    /// Whether the value is a field of a response, of which nothing is kept
    /// otherwise.
    pub fn is_of_response_fields(&self) -> bool {
        matches!(
            self,
            Self::SentHttp(_)
                | Self::SentTrailer(_)
                | Self::UpstreamHttp(_)
                | Self::UpstreamTrailer(_)
                | Self::UpstreamCookie(_)
        )
    }

    /// Whether Nginx has a variable of this name, in lower case, and ringwall
    /// has not.
    pub(super) fn is_not_implemented(name: &str) -> bool {
        NOT_IMPLEMENTED.contains(&name) || refusal(name).is_some()
    }

    /// The variable of a name, which Nginx takes in any case.
    fn named(name: &str, defined: &HashMap<Box<str>, VariableId>) -> Result<Self, CompileError> {
        let name = name.to_ascii_lowercase();
        if let Some(variable) = Self::fixed(&name) {
            return Ok(variable);
        }
        // Such a one shadows the families below; the fixed names above cannot be
        // defined anew.
        if let Some(&id) = defined.get(name.as_str()) {
            return Ok(Self::User(id));
        }
        if let Some((name, reason)) = refusal(&name) {
            return Err(CompileError::Refused(name, reason));
        }
        if NOT_IMPLEMENTED.contains(&&*name) {
            return Err(CompileError::NotImplemented(name));
        }
        let field = |rest: &str| rest.replace('_', "-").into();
        let member = |family: &str| name.strip_prefix(family).filter(|rest| !rest.is_empty());
        if let Some(rest) = member("proxy_protocol_tlv_") {
            return Ok(Self::ProxyProtocolTlv(rest.into()));
        }
        if let Some(rest) = member("arg_") {
            return Ok(Self::Arg(rest.into()));
        }
        if let Some(rest) = member("cookie_") {
            return Ok(Self::Cookie(rest.into()));
        }
        if let Some(rest) = member("http_") {
            return Ok(Self::Http(field(rest)));
        }
        if let Some(rest) = member("upstream_cookie_") {
            return Ok(Self::UpstreamCookie(rest.into()));
        }
        if let Some(rest) = member("sent_http_") {
            return Ok(Self::SentHttp(field(rest)));
        }
        if let Some(rest) = member("trailer_") {
            return Ok(Self::Trailer(field(rest)));
        }
        if let Some(rest) = member("sent_trailer_") {
            return Ok(Self::SentTrailer(field(rest)));
        }
        if let Some(rest) = member("upstream_trailer_") {
            return Ok(Self::UpstreamTrailer(field(rest)));
        }
        if let Some(rest) = member("upstream_http_") {
            return Ok(Self::UpstreamHttp(field(rest)));
        }
        Err(CompileError::Unknown(name))
    }

    /// The one of this name that every configuration has.
    pub(crate) fn fixed(name: &str) -> Option<Self> {
        Some(match name {
            "args" | "query_string" => Self::Args,
            "binary_remote_addr" => Self::BinaryRemoteAddr,
            "body_bytes_sent" => Self::BodyBytesSent,
            "bytes_sent" => Self::BytesSent,
            "connection" => Self::Connection,
            "connection_requests" => Self::ConnectionRequests,
            "connection_time" => Self::ConnectionTime,
            "connections_active" => Self::ConnectionsActive,
            "connections_reading" => Self::ConnectionsReading,
            "connections_waiting" => Self::ConnectionsWaiting,
            "connections_writing" => Self::ConnectionsWriting,
            "content_length" => Self::ContentLength,
            "content_type" => Self::ContentType,
            "document_root" => Self::DocumentRoot,
            "uri" | "document_uri" => Self::Uri,
            "gzip_ratio" => Self::GzipRatio,
            "host" => Self::Host,
            "hostname" => Self::Hostname,
            "https" => Self::Https,
            "is_request_port" => Self::IsRequestPort,
            "is_args" => Self::IsArgs,
            "limit_conn_status" => Self::LimitConnStatus,
            "limit_rate" => Self::LimitRate,
            "limit_req_status" => Self::LimitReqStatus,
            "msec" => Self::Msec,
            "nginx_version" => Self::NginxVersion,
            "pid" => Self::Pid,
            "invalid_referer" => Self::InvalidReferer,
            "pipe" => Self::Pipe,
            "proxy_add_x_forwarded_for" => Self::ProxyAddXForwardedFor,
            "proxy_host" => Self::ProxyHost,
            "proxy_port" => Self::ProxyPort,
            "proxy_protocol_addr" => Self::ProxyProtocolAddr,
            "proxy_protocol_port" => Self::ProxyProtocolPort,
            "proxy_protocol_server_addr" => Self::ProxyProtocolServerAddr,
            "proxy_protocol_server_port" => Self::ProxyProtocolServerPort,
            "realip_remote_addr" => Self::RealipRemoteAddr,
            "realip_remote_port" => Self::RealipRemotePort,
            "remote_addr" => Self::RemoteAddr,
            "remote_port" => Self::RemotePort,
            "remote_user" => Self::RemoteUser,
            "request" => Self::Request,
            "request_filename" => Self::RequestFilename,
            "request_body" => Self::RequestBody,
            "request_completion" => Self::RequestCompletion,
            "request_id" => Self::RequestId,
            "request_length" => Self::RequestLength,
            "request_method" => Self::RequestMethod,
            "request_port" => Self::RequestPort,
            "request_time" => Self::RequestTime,
            "request_uri" => Self::RequestUri,
            "scheme" => Self::Scheme,
            "server_addr" => Self::ServerAddr,
            "server_name" => Self::ServerName,
            "server_port" => Self::ServerPort,
            "server_protocol" => Self::ServerProtocol,
            "ssl_alpn_protocol" => Self::SslAlpnProtocol,
            "ssl_cipher" => Self::SslCipher,
            "ssl_ciphers" => Self::SslCiphers,
            "ssl_client_cert" => Self::SslClientCert,
            "ssl_client_escaped_cert" => Self::SslClientEscapedCert,
            "ssl_client_fingerprint" => Self::SslClientFingerprint,
            "ssl_client_fingerprint_sha256" => Self::SslClientFingerprintSha256,
            "ssl_client_i_dn" => Self::SslClientIDn,
            "ssl_client_i_dn_legacy" => Self::SslClientIDnLegacy,
            "ssl_client_raw_cert" => Self::SslClientRawCert,
            "ssl_client_s_dn" => Self::SslClientSDn,
            "ssl_client_s_dn_legacy" => Self::SslClientSDnLegacy,
            "ssl_client_san_dns" => Self::SslClientSanDns,
            "ssl_client_san_email" => Self::SslClientSanEmail,
            "ssl_client_san_uri" => Self::SslClientSanUri,
            "ssl_client_serial" => Self::SslClientSerial,
            "ssl_client_v_end" => Self::SslClientVEnd,
            "ssl_client_v_remain" => Self::SslClientVRemain,
            "ssl_client_v_start" => Self::SslClientVStart,
            "ssl_client_verify" => Self::SslClientVerify,
            "ssl_curve" => Self::SslCurve,
            "ssl_curves" => Self::SslCurves,
            "ssl_early_data" => Self::SslEarlyData,
            "ssl_protocol" => Self::SslProtocol,
            "ssl_server_name" => Self::SslServerName,
            "ssl_session_id" => Self::SslSessionId,
            "ssl_session_reused" => Self::SslSessionReused,
            "status" => Self::Status,
            "tcpinfo_rcv_space" => Self::TcpInfo(TcpFact::RcvSpace),
            "tcpinfo_rtt" => Self::TcpInfo(TcpFact::Rtt),
            "tcpinfo_rttvar" => Self::TcpInfo(TcpFact::RttVar),
            "tcpinfo_snd_cwnd" => Self::TcpInfo(TcpFact::SndCwnd),
            "time_iso8601" => Self::TimeIso8601,
            "time_local" => Self::TimeLocal,
            "upstream_addr" => Self::UpstreamAddr,
            "upstream_bytes_received" => Self::UpstreamBytesReceived,
            "upstream_bytes_sent" => Self::UpstreamBytesSent,
            "upstream_connect_time" => Self::UpstreamConnectTime,
            "upstream_header_time" => Self::UpstreamHeaderTime,
            "upstream_queue_time" => Self::UpstreamQueueTime,
            "upstream_response_length" => Self::UpstreamResponseLength,
            "upstream_response_time" => Self::UpstreamResponseTime,
            "upstream_ssl_cipher" => Self::UpstreamSslCipher,
            "upstream_ssl_protocol" => Self::UpstreamSslProtocol,
            "upstream_ssl_session_reused" => Self::UpstreamSslSessionReused,
            "upstream_status" => Self::UpstreamStatus,
            "http2" => Self::Http2,
            "http3"
            | "ssl_ech_outer_server_name"
            | "ssl_ech_status"
            | "upstream_cache_age"
            | "upstream_cache_key"
            | "upstream_cache_last_modified"
            | "upstream_cache_status" => Self::Absent,
            _ => return None,
        })
    }
}

/// The entry of [`REFUSED`] for a name in lower case.
fn refusal(name: &str) -> Option<(&'static str, &'static str)> {
    REFUSED.iter().copied().find(|(known, _)| *known == name)
}

/// Variables of Nginx's that would always mislead here, and why.
const REFUSED: &[(&str, &str)] = &[
    (
        "realpath_root",
        "it names folders to FastCGI, and no request looks for them",
    ),
    (
        "request_body_file",
        "request bodies are not written to files",
    ),
    ("ssl_sigalg", "rustls does not tell it"),
    ("ssl_client_sigalg", "rustls does not tell it"),
    (
        "upstream_last_server_name",
        "it is part of Nginx's commercial subscription",
    ),
];

/// Nginx's other variables, so that a message can tell them from a slip of the
/// pen.
const NOT_IMPLEMENTED: &[&str] = &[
    "ancient_browser",
    "date_gmt",
    "date_local",
    "fastcgi_path_info",
    "fastcgi_script_name",
    "invalid_referer",
    "modern_browser",
    "msie",
    "proxy_internal_body_length",
    "proxy_internal_chunked",
    "secure_link",
    "secure_link_expires",
    "slice_range",
    "ssl_cipher_list",
    "uid_got",
    "uid_reset",
    "uid_set",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile(value: &str) -> Result<Vec<Part>, String> {
        let named = HashMap::from([("tenant".into(), 7)]);
        match Template::compile(value.as_bytes(), &named) {
            Ok(template) => Ok(template.parts.into_vec()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.as_bytes().into())
    }

    #[test]
    fn a_value_becomes_literals_and_variables() {
        assert_eq!(
            compile("$scheme://${host}:8443$request_uri!"),
            Ok(vec![
                Part::Variable(Variable::Scheme),
                literal("://"),
                Part::Variable(Variable::Host),
                literal(":8443"),
                Part::Variable(Variable::RequestUri),
                literal("!"),
            ])
        );
        assert_eq!(compile(""), Ok(vec![]));
        assert_eq!(
            compile("$12"),
            Ok(vec![Part::Variable(Variable::Capture(1)), literal("2")])
        );
        assert_eq!(
            compile("$http_X_Real_IP$arg_a_b$tenant"),
            Ok(vec![
                Part::Variable(Variable::Http("x-real-ip".into())),
                Part::Variable(Variable::Arg("a_b".into())),
                Part::Variable(Variable::User(7)),
            ])
        );
    }

    #[test]
    fn a_variable_that_does_not_exist_is_named_in_nginx_words() {
        for (value, message) in [
            ("$", "invalid variable name"),
            ("a$-b", "invalid variable name"),
            ("${}", "invalid variable name"),
            (
                "${host",
                "the closing bracket in \"host\" variable is missing",
            ),
            (
                "$connection_upgrade",
                "unknown \"connection_upgrade\" variable",
            ),
            ("$0", "unknown \"0\" variable"),
            ("$http_", "unknown \"http_\" variable"),
            (
                "$request_body_file",
                "\"request_body_file\" variable is not supported: request bodies are not written to \
                 files",
            ),
            (
                "$modern_browser",
                "\"modern_browser\" variable is not implemented in this version",
            ),
        ] {
            assert_eq!(compile(value), Err(message.to_owned()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_compile_or_are_refused(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(template) = Template::compile(&value, &HashMap::new()) {
                let merged = template.parts.windows(2).all(|pair| {
                    !matches!(pair, [Part::Literal(_), Part::Literal(_)])
                });
                prop_assert!(merged);
                if !value.contains(&b'$') {
                    prop_assert_eq!(template.as_literal(), Some(&*value));
                }
            }
        }
    }
}
