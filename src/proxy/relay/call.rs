//! A call as its JSON object describes it, checked.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;
use serde_json::value::RawValue;

use super::object::{Members, Object};
use crate::http::h1::chunked::is_token;
use crate::http::h1::encode::is_field_value;
use crate::http::head::FieldId;
use crate::http::headers::is_hop_by_hop;

/// The longest path with its query, bytes: twice what Nginx takes in a request
/// line, and less than what a head has room for.
const MAX_PATH: usize = 16 << 10;
/// The longest object of fields as it is written, bytes. More would not fit a
/// head, and each value takes several times its length while it is read.
const MAX_HEADERS: usize = 64 << 10;
/// Names in it, as many as a client's own head may have.
const MAX_FIELDS: usize = 256;

/// A call within the bounds of what a caller may say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// In upper case.
    pub(super) method: String,
    /// With its query; begins with `/`.
    pub(super) path: String,
    /// In lower case, IP addresses in their canonical form; `None` for the
    /// default.
    pub(super) host: Option<(String, Option<u16>)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<Vec<u8>>,
}

/// What is wrong with a call; the words are the answer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// No JSON object.
    Json,
    /// As the proxies that callers were written against say it.
    Missing,
    Method,
    Path,
    Headers,
    /// A field that is not the caller's to say.
    Header(String),
    /// `hostname` is none that any list permits.
    Target,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json => f.write_str("Invalid JSON"),
            Self::Missing => f.write_str("Missing method or path"),
            Self::Method => f.write_str("Invalid method"),
            Self::Path => f.write_str("Invalid path"),
            Self::Headers => f.write_str("Invalid headers"),
            Self::Header(name) => write!(f, "Header not allowed: {name}"),
            Self::Target => f.write_str("Target not allowed"),
        }
    }
}

impl Call {
    /// Reads and checks a call; `asserts` tells which fields carry an identity
    /// that the gateway proves.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(super) fn read(json: &[u8], asserts: &dyn Fn(&[u8]) -> bool) -> Result<Self, CallError> {
        // The whole of it: what is skipped is not looked at for that.
        let json = std::str::from_utf8(json).map_err(|_| CallError::Json)?;
        let members: Members<'_> = serde_json::from_str(json).map_err(|_| CallError::Json)?;
        let (Some(method), Some(path)) = (members.method, members.path) else {
            return Err(CallError::Missing);
        };
        let method = text(method).ok_or(CallError::Method)?;
        let path = text(path).ok_or(CallError::Path)?;
        if method.is_empty() || path.is_empty() {
            return Err(CallError::Missing);
        }
        let method = method.to_ascii_uppercase();
        if !method.bytes().all(is_token) || matches!(method.as_str(), "CONNECT" | "TRACE") {
            return Err(CallError::Method);
        }
        let host = match members.hostname {
            None => None,
            Some(raw) => {
                let name = text(raw).ok_or(CallError::Target)?;
                Some(host_and_port(&name).ok_or(CallError::Target)?)
            }
        };
        check_path(&path)?;
        let mut headers = match members.headers {
            None => Vec::new(),
            Some(raw) => read_headers(raw, asserts)?,
        };
        let body = match members.body {
            // Half a surrogate pair is no text, and must not go out in quotes.
            Some(raw) if raw.get().starts_with('"') => {
                let text = text(raw).ok_or(CallError::Json)?;
                Some((text.into_bytes(), false))
            }
            // As it is written, so with the numbers that it came with.
            Some(raw) => Some((raw.get().as_bytes().to_vec(), true)),
            None => None,
        };
        let is_typed = |headers: &[(String, String)]| {
            headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("Content-Type"))
        };
        if matches!(body, Some((_, true))) && !is_typed(&headers) {
            headers.push(("Content-Type".into(), "application/json".into()));
        }
        let body = match body {
            Some((body, _)) => Some(body),
            // These say how much they bring, be it nothing (RFC 9110 §8.6).
            None if matches!(method.as_str(), "POST" | "PUT" | "PATCH") => Some(Vec::new()),
            None => None,
        };
        Ok(Self {
            method,
            path,
            host,
            headers,
            body,
        })
    }

    /// The method, and what else a target may take for it: many frameworks let
    /// a field of a POST name another.
    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        let overrides = self.headers.iter().filter(|(name, _)| {
            let folded = folded(name);
            METHOD_OVERRIDES.contains(&&*folded)
        });
        let overrides = overrides.map(|(_, value)| value.trim());
        std::iter::once(&*self.method).chain(overrides)
    }

    /// Whether the path is below a prefix, also to a target that decodes it,
    /// more than once if need be, and resolves dots.
    pub(super) fn path_begins_with(&self, prefix: &[u8]) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        path.as_bytes().starts_with(prefix) && !has_detours(path.as_bytes())
    }
}

/// Fields that Rails, Express, Symfony, Spring and their like take a method
/// from, as [`folded`] writes them.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// A request target and nothing else: no space that would end it, no line end
/// that would begin a field.
fn check_path(path: &str) -> Result<(), CallError> {
    let sound = path.starts_with('/')
        && path.len() <= MAX_PATH
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if sound { Ok(()) } else { Err(CallError::Path) }
}

/// Decodings after which a path must still be what it was: an application
/// server behind a gateway behind another.
const DECODINGS: usize = 4;

fn has_detours(path: &[u8]) -> bool {
    let mut path = path.to_vec();
    for _ in 0..DECODINGS {
        let detour = path
            .split(|byte| matches!(byte, b'/' | b'\\'))
            // Parameters (`/..;/`) are cut off by some servers first.
            .filter_map(|segment| segment.split(|byte| *byte == b';').next())
            .any(|segment| matches!(segment, b"." | b".."));
        if detour || path.contains(&b'\\') {
            return true;
        }
        let decoded = decoded(&path);
        if decoded == path {
            return false;
        }
        // An encoded slash is one segment here and two there.
        let slashes = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count();
        if slashes(&decoded) != slashes(&path) || decoded.contains(&0) {
            return true;
        }
        path = decoded;
    }
    true
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = match (byte, after.first_chunk::<2>()) {
            (b'%', Some(digits)) => std::str::from_utf8(digits).ok(),
            _ => None,
        };
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                out.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`: letters, digits, dots, hyphens
/// and underscores, so neither userinfo nor a path nor white space.
fn host_and_port(name: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match name.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            let address: IpAddr = host.parse().ok().filter(IpAddr::is_ipv6)?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return None,
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = match name.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (name, None),
            };
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(is_name) {
                return None;
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
    };
    Some((host, port))
}

/// The fields of a call: strings, numbers, booleans, or lists of these.
fn read_headers(
    raw: &RawValue,
    asserts: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<(String, String)>, CallError> {
    if raw.get().len() > MAX_HEADERS {
        return Err(CallError::Headers);
    }
    let Object(members) = serde_json::from_str(raw.get()).map_err(|_| CallError::Headers)?;
    if members.len() > MAX_FIELDS {
        return Err(CallError::Headers);
    }
    let mut headers: Vec<(String, String)> = Vec::with_capacity(members.len());
    for (name, value) in members {
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(CallError::Headers);
        }
        if is_not_the_callers(&name) || asserts(name.as_bytes()) {
            return Err(CallError::Header(name));
        }
        // The last one holds, in whatever case, as in the proxies that callers
        // were written against.
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
        let values = match value {
            Value::Array(values) => values,
            Value::Null => continue,
            value => vec![value],
        };
        for value in values {
            let value = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(CallError::Headers);
                }
            };
            if !is_field_value(value.as_bytes()) {
                return Err(CallError::Headers);
            }
            headers.push((name.clone(), value));
        }
    }
    Ok(headers)
}

/// As backends compare names that take `_` for `-`.
fn folded(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '_' => '-',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// Who is spoken to, how messages are framed, what holds for one connection,
/// and who has come by: ours to say.
fn is_not_the_callers(name: &str) -> bool {
    let id = FieldId::of(name.as_bytes());
    if is_hop_by_hop(id)
        || matches!(
            id,
            FieldId::Host | FieldId::ContentLength | FieldId::TransferEncoding | FieldId::Expect
        )
    {
        return true;
    }
    let folded = folded(name);
    matches!(
        folded.as_str(),
        "host"
            | "content-length"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "upgrade"
            | "http2-settings"
            | "expect"
            | "forwarded"
            | "via"
            | "x-real-ip"
            | "x-original-url"
            | "x-rewrite-url"
            | "client-cert"
            | "client-cert-chain"
    ) || folded.starts_with("x-forwarded-")
        || folded.starts_with("x-ssl-client-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Call, CallError> {
        Call::read(json.as_bytes(), &|name| name == b"X-Identity")
    }

    #[test]
    fn a_call_is_what_its_object_says() {
        let call = read(
            r#"{"method":"post","path":"/v1/x?y=1","hostname":"API.example:8443",
                "body":{"amount": 12345678901234567890.10},
                "headers":{"X-Key":"k","X-Count":3,"Accept":["a","b"]}}"#,
        )
        .expect("a call");
        assert_eq!(call.method, "POST");
        assert_eq!(call.path, "/v1/x?y=1");
        assert_eq!(call.host, Some(("api.example".into(), Some(8443))));
        let body = call.body.expect("a body");
        assert_eq!(body, br#"{"amount": 12345678901234567890.10}"#);
        let headers = call.headers.iter().map(|(n, v)| format!("{n}={v}"));
        let headers: Vec<String> = headers.collect();
        let expected = [
            "X-Key=k",
            "X-Count=3",
            "Accept=a",
            "Accept=b",
            "Content-Type=application/json",
        ];
        assert_eq!(headers, expected);
        let call = read(r#"{"method":"PUT","path":"/","body":"as it is","headers":null}"#);
        assert_eq!(
            call.expect("a call").body.as_deref(),
            Some(&b"as it is"[..])
        );
        let call = read(r#"{"method":"GET","path":"/"}"#).expect("a call");
        assert_eq!((call.body, call.host), (None, None));
    }

    #[test]
    fn what_is_no_call_is_refused_in_words() {
        for (json, error) in [
            ("", CallError::Json),
            ("[]", CallError::Json),
            ("{\"method\":", CallError::Json),
            ("{}", CallError::Missing),
            (r#"{"method":"GET"}"#, CallError::Missing),
            (r#"{"method":null,"path":"/"}"#, CallError::Missing),
            (r#"{"method":"","path":"/"}"#, CallError::Missing),
            (r#"{"method":1,"path":"/"}"#, CallError::Method),
            (r#"{"method":"GET /x","path":"/"}"#, CallError::Method),
            (r#"{"method":"CONNECT","path":"/"}"#, CallError::Method),
            (r#"{"method":"GET","path":"x"}"#, CallError::Path),
        ] {
            assert_eq!(read(json), Err(error), "{json}");
        }
    }

    #[test]
    fn a_member_that_comes_twice_is_refused_however_it_is_written() {
        for json in [
            r#"{"method":"GET","path":"/","hostname":"a","hostname":"b"}"#,
            r#"{"method":"GET","path":"/","hostname":"a","\u0068ostname":"b"}"#,
            r#"{"method":"GET","path":"/","hostname":null,"hostname":"b"}"#,
            r#"{"method":"GET","method":"POST","path":"/"}"#,
            r#"{"method":"GET","path":"/","path":"/admin"}"#,
            r#"{"method":"GET","path":"/","headers":{},"headers":{}}"#,
            r#"{"method":"GET","path":"/","body":1,"body":2}"#,
        ] {
            assert_eq!(read(json), Err(CallError::Json), "{json}");
        }
        // What means nothing here is not looked at.
        assert!(read(r#"{"method":"GET","path":"/","x":1,"x":2,"Hostname":"b"}"#).is_ok());
    }

    #[test]
    fn what_is_not_utf_8_is_refused_wherever_it_stands() {
        for json in [
            &b"{\"method\":\"GET\",\"path\":\"/\",\"body\":\"\xff\"}"[..],
            b"{\"method\":\"GET\",\"path\":\"/\",\"body\":{\"a\":\"\xc3\"}}",
            b"{\"method\":\"GET\",\"path\":\"/\",\"other\":\"\xed\xa0\x80\"}",
            b"{\"method\":\"GET\",\"path\":\"/\",\"headers\":{\"X\":\"\xff\"}}",
            b"{\"method\":\"GET\",\"path\":\"/\"}\xff",
        ] {
            assert_eq!(Call::read(json, &|_| false), Err(CallError::Json));
        }
        let half = r#"{"method":"POST","path":"/","body":"\ud800"}"#;
        assert_eq!(read(half), Err(CallError::Json));
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        // A body is passed on and not read.
        let body = deep(1_000_000);
        let json = format!(r#"{{"method":"POST","path":"/","body":{body}}}"#);
        assert_eq!(read(&json).expect("a call").body, Some(body.into_bytes()));
        let fields = |value: &str| {
            let json = format!(r#"{{"method":"GET","path":"/","headers":{value}}}"#);
            read(&json)
        };
        assert_eq!(fields(&deep(1_000_000)), Err(CallError::Headers));
        let in_field = format!(r#"{{"X":{}}}"#, deep(20_000));
        assert_eq!(fields(&in_field), Err(CallError::Headers));
        let many: Vec<String> = (0..=MAX_FIELDS).map(|n| format!(r#""X-{n}":0"#)).collect();
        let object = |names: &[String]| fields(&format!("{{{}}}", names.join(",")));
        assert!(object(many.get(1..).expect("some")).is_ok());
        assert_eq!(object(&many), Err(CallError::Headers));
        let long = format!(r#"{{"X":"{}"}}"#, "x".repeat(MAX_HEADERS));
        assert_eq!(fields(&long), Err(CallError::Headers));
        let path = |length: usize| {
            let path = format!("/{}", "x".repeat(length - 1));
            read(&format!(r#"{{"method":"GET","path":"{path}"}}"#))
        };
        assert!(path(MAX_PATH).is_ok());
        assert_eq!(path(MAX_PATH + 1), Err(CallError::Path));
    }

    #[test]
    fn of_a_field_in_several_cases_the_last_goes_out() {
        let call = read(
            r#"{"method":"GET","path":"/",
                "headers":{"content-type":"a","X":"1","Content-Type":["b","c"],"x":null}}"#,
        );
        let headers = call.expect("a call").headers;
        let expected = [("Content-Type", "b"), ("Content-Type", "c")];
        assert_eq!(headers, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_field_that_names_another_method_counts_as_one() {
        let call =
            read(r#"{"method":"POST","path":"/","headers":{"X_HTTP-Method_Override":" DELETE"}}"#)
                .expect("a call");
        assert_eq!(call.methods().collect::<Vec<_>>(), ["POST", "DELETE"]);
    }

    #[test]
    fn a_path_cannot_end_the_request_line() {
        for path in [
            "http://evil/",
            "/a b",
            "/a\\r\\nX: y",
            "/a\\u0000",
            "/é",
            "/a#b",
            "*",
        ] {
            let json = format!(r#"{{"method":"GET","path":"{path}"}}"#);
            assert_eq!(read(&json), Err(CallError::Path), "{path}");
        }
    }

    #[test]
    fn a_prefix_cannot_be_left_by_dots_however_they_are_written() {
        let begins = |path: &str| {
            let json = format!(r#"{{"method":"GET","path":"{path}"}}"#);
            read(&json).is_ok_and(|call| call.path_begins_with(b"/v1/"))
        };
        for path in [
            "/v1/",
            "/v1/a",
            "/v1/a.b/..c?x=/../",
            "/v1/%41",
            "/v1/a%20b",
        ] {
            assert!(begins(path), "{path}");
        }
        for path in [
            "/v2/",
            "/v1",
            "/V1/",
            "/v1/../admin",
            "/v1/./../admin",
            "/v1/%2e%2e/admin",
            "/v1/%2E./admin",
            "/v1/%252e%252e/admin",
            "/v1/..;/admin",
            "/v1/..%2fadmin",
            "/v1/a%2fb",
            "/v1/%5c..%5cadmin",
            "/v1/..\\\\admin",
            "/v1/%00",
            "/v1/%2525252525252e",
        ] {
            assert!(!begins(path), "{path}");
        }
    }

    #[test]
    fn a_hostname_is_a_host_and_a_port_and_nothing_else() {
        for (name, host, port) in [
            ("a.example", "a.example", None),
            ("A.Example:443", "a.example", Some(443)),
            ("[::1]:80", "::1", Some(80)),
            ("[0:0::1]", "::1", None),
        ] {
            assert_eq!(host_and_port(name), Some((host.to_owned(), port)), "{name}");
        }
        for name in [
            "",
            "a@b",
            "a:80@b",
            "a:80:90",
            "a:",
            "a:+80",
            "a:99999",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            "a\tb",
            "a\r\nb",
            "a\0b",
            "a%2eb",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "[fe80::1%eth0]",
            "ａ.example",
        ] {
            if name == "a:" {
                assert_eq!(host_and_port(name), None);
                continue;
            }
            assert_eq!(host_and_port(name), None, "{name}");
        }
    }

    #[test]
    fn fields_that_are_not_the_callers_are_refused() {
        for name in [
            "Host",
            "hOST",
            "Content-Length",
            "content_length",
            "Transfer-Encoding",
            "TE",
            "Trailer",
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authorization",
            "Upgrade",
            "Expect",
            "X-Forwarded-For",
            "X-Forwarded-Client-Cert",
            "X_Forwarded_Host",
            "Forwarded",
            "X-SSL-Client-Verify",
            "Client-Cert",
            "X-Identity",
        ] {
            let json = format!(r#"{{"method":"GET","path":"/","headers":{{"{name}":"x"}}}}"#);
            assert_eq!(read(&json), Err(CallError::Header(name.into())), "{name}");
        }
        for headers in [
            r#"{"X-A":"b\r\nX-C: d"}"#,
            r#"{"X-A":"b\nX-C: d"}"#,
            r#"{"X-A":"b\u0000"}"#,
            r#"{"X-A\r\nHost":"b"}"#,
            r#"{"X A":"b"}"#,
            r#"{"":"b"}"#,
            r#"{"X-A":{}}"#,
            r#"[["X-A","b"]]"#,
            r#""X-A: b""#,
        ] {
            let json = format!(r#"{{"method":"GET","path":"/","headers":{headers}}}"#);
            assert_eq!(read(&json), Err(CallError::Headers), "{headers}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Call::read(&bytes, &|_| false);
        }

        #[test]
        fn what_passes_fits_a_request_line(path in "(?s).{0,40}", method in "(?s).{0,8}") {
            let json = serde_json::json!({ "method": method, "path": path }).to_string();
            if let Ok(call) = read(&json) {
                prop_assert!(call.path.starts_with('/'));
                prop_assert!(call.path.bytes().all(|b| b.is_ascii_graphic()));
                prop_assert!(call.method.bytes().all(is_token));
            }
        }
    }
}
