//! What happens to requests and responses on their way through.

use std::time::Duration;

use super::super::regexes::Pattern;
use super::super::template::Template;
use super::super::units;
use super::AddHeader;

/// What `proxy_*` directives change in requests and responses, beside the
/// fields that `proxy_set_header` sets.
#[derive(Debug, Clone)]
pub struct ProxyFilters {
    /// `proxy_method`.
    pub method: Option<Template>,
    /// `proxy_set_body`: sent in place of the client's body.
    pub body: Option<Template>,
    /// `proxy_pass_request_headers`. Default on.
    pub pass_request_headers: bool,
    /// `proxy_pass_request_body`. Default on.
    pub pass_request_body: bool,
    /// `proxy_pass_trailers`. Default off; trailers of `grpc_pass` always pass.
    pub pass_trailers: bool,
    /// `proxy_request_buffering`. Default on.
    pub request_buffering: bool,
    /// `proxy_buffering`, `proxy_buffers`, `proxy_buffer_size`.
    pub buffering: ResponseBuffering,
    /// `proxy_intercept_errors`. Default off.
    pub intercept_errors: bool,
    /// `proxy_limit_rate`, bytes per second.
    pub limit_rate: Option<Template>,
    /// `proxy_ignore_client_abort`. Default off.
    pub ignore_client_abort: bool,
    /// `proxy_hide_header`, `proxy_pass_header`.
    pub hidden: HiddenFields,
    /// `proxy_ignore_headers`.
    pub ignored: IgnoredFields,
    /// `proxy_redirect`; the first rule that matches decides. Empty for `off`.
    pub redirects: Box<[RewriteRule]>,
    /// `proxy_cookie_*`; `None` where nothing is done to cookies.
    pub cookies: Option<Box<CookieRules>>,
}

/// What of a response may wait for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseBuffering {
    /// `proxy_buffering`, which a backend's X-Accel-Buffering can change.
    /// Default on.
    pub on: bool,
    /// `proxy_buffers`, bytes in all. Default 32 KiB.
    pub buffers: usize,
    /// `proxy_buffer_size`: bytes of a response's head at the most, though never
    /// less than 16 KiB. Default 4 KiB.
    pub head: usize,
}

/// Which of a backend's fields the client does not see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HiddenFields {
    /// Beside those that are hidden by default.
    pub also: Box<[Box<[u8]>]>,
    /// Of those that are hidden by default.
    pub shown: Box<[Box<[u8]>]>,
}

impl HiddenFields {
    /// What Nginx hides by default.
    pub const BY_DEFAULT: [&'static str; 8] = [
        "Date",
        "Server",
        "X-Pad",
        "X-Accel-Expires",
        "X-Accel-Redirect",
        "X-Accel-Limit-Rate",
        "X-Accel-Buffering",
        "X-Accel-Charset",
    ];

    /// Whether a field is hidden, given whether it is one of
    /// [`HiddenFields::BY_DEFAULT`].
    pub fn hides(&self, name: &[u8], by_default: bool) -> bool {
        let names = |list: &[Box<[u8]>]| list.iter().any(|known| known.eq_ignore_ascii_case(name));
        if by_default {
            !names(&self.shown)
        } else {
            names(&self.also)
        }
    }
}

/// `proxy_ignore_headers`: those that do something here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IgnoredFields {
    /// `X-Accel-Redirect`.
    pub accel_redirect: bool,
    /// `X-Accel-Limit-Rate`.
    pub accel_limit_rate: bool,
    /// `X-Accel-Charset`.
    pub accel_charset: bool,
    /// `X-Accel-Buffering`.
    pub accel_buffering: bool,
}

/// One `proxy_redirect`, `proxy_cookie_domain` or `proxy_cookie_path`.
#[derive(Debug, Clone)]
pub struct RewriteRule {
    /// What is replaced.
    pub pattern: RewritePattern,
    /// By what.
    pub replacement: Template,
}

/// What a [`RewriteRule`] looks for.
#[derive(Debug, Clone)]
pub enum RewritePattern {
    /// The value begins with this; what follows is kept.
    Prefix(Template),
    /// The value is this host name, with or without a dot in front.
    Domain(Template),
    /// The value matches; all of it is replaced.
    Regex(Pattern),
}

/// What happens to a backend's cookies.
#[derive(Debug, Clone, Default)]
pub struct CookieRules {
    /// `proxy_cookie_domain`.
    pub domains: Box<[RewriteRule]>,
    /// `proxy_cookie_path`.
    pub paths: Box<[RewriteRule]>,
    /// `proxy_cookie_flags`; the first whose name matches decides.
    pub flags: Box<[CookieFlags]>,
}

/// `proxy_cookie_flags COOKIE FLAG…`.
#[derive(Debug, Clone)]
pub struct CookieFlags {
    /// The cookie's name, compared without regard to case.
    pub cookie: CookieName,
    /// As written; evaluated for each response, because they may be variables.
    pub flags: Box<[Template]>,
}

impl CookieFlags {
    /// Whether Nginx knows this flag.
    pub fn is_flag(word: &[u8]) -> bool {
        matches!(
            word,
            b"secure"
                | b"nosecure"
                | b"httponly"
                | b"nohttponly"
                | b"samesite=strict"
                | b"samesite=lax"
                | b"samesite=none"
                | b"nosamesite"
        )
    }
}

/// Which cookies a [`CookieFlags`] is for.
#[derive(Debug, Clone)]
pub enum CookieName {
    /// This one.
    Is(Template),
    /// Whose name matches.
    Matches(Pattern),
}

/// How bodies come from clients and go to them.
#[derive(Debug)]
pub struct Delivery {
    /// `chunked_transfer_encoding`. Default on.
    pub chunked_transfer_encoding: bool,
    /// `client_body_buffer_size`, bytes. Default 16 KiB.
    pub client_body_buffer_size: usize,
    /// `client_body_min_rate`: bytes per second, and the time after which so
    /// many are demanded. Default none.
    pub client_body_min_rate: Option<(u64, Duration)>,
    /// `limit_rate`, bytes per second.
    pub limit_rate: Option<Template>,
    /// `limit_rate_after`, bytes.
    pub limit_rate_after: Option<Template>,
    /// `keepalive_time`. Default 1 h.
    pub keepalive_time: Duration,
    /// `early_hints`: those of a backend pass where one of these is neither
    /// empty nor 0.
    pub early_hints: Box<[Template]>,
    /// `add_trailer`.
    pub trailers: Box<[AddHeader]>,
    /// `http2_chunk_size`, bytes. Default whatever a client takes, 16 KiB at
    /// the least; Nginx's 8 KiB would be twice the frames.
    pub http2_chunk_size: usize,
}

/// `expires`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expires {
    /// Counted from the response's Last-Modified.
    pub modified: bool,
    /// The time.
    pub when: ExpiresWhen,
}

/// The time of an [`Expires`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpiresWhen {
    /// Known at load.
    Fixed(Freshness),
    /// For each response to be parsed; does nothing if it cannot be.
    Evaluated(Template),
}

/// How long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing is said about it.
    Off,
    /// `epoch`: not at all.
    Epoch,
    /// `max`: ten years.
    Max,
    /// `@TIME`: until this second of the local day.
    Daily(u64),
    /// So many seconds; stale if negative.
    For(i64),
}

impl Freshness {
    /// Reads the time of an `expires`.
    ///
    /// # Errors
    /// What is wrong with it, in Nginx's words.
    pub fn parse(text: &[u8], modified: bool) -> Result<Self, &'static str> {
        const DAY: i64 = 86_400;
        match text {
            b"epoch" if !modified => return Ok(Self::Epoch),
            b"max" if !modified => return Ok(Self::Max),
            b"off" if !modified => return Ok(Self::Off),
            _ => {}
        }
        let (sign, digits) = match text {
            [sign @ (b'@' | b'+' | b'-'), digits @ ..] => (*sign, digits),
            digits => (b'+', digits),
        };
        if sign == b'@' && modified {
            return Err("daily time cannot be used with \"modified\" parameter");
        }
        let seconds = units::seconds(digits)
            .and_then(|time| i64::try_from(time.as_secs()).ok())
            .ok_or("invalid value")?;
        match sign {
            b'@' if seconds > DAY => Err("daily time value must be less than 24 hours"),
            b'@' => Ok(Self::Daily(seconds.unsigned_abs())),
            b'-' => Ok(Self::For(-seconds)),
            _ => Ok(Self::For(seconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_read_as_nginx_reads_it() {
        let parse = |text: &str| Freshness::parse(text.as_bytes(), false);
        assert_eq!(parse("off"), Ok(Freshness::Off));
        assert_eq!(parse("epoch"), Ok(Freshness::Epoch));
        assert_eq!(parse("max"), Ok(Freshness::Max));
        assert_eq!(parse("30d"), Ok(Freshness::For(2_592_000)));
        assert_eq!(parse("+1h 30m"), Ok(Freshness::For(5400)));
        assert_eq!(parse("-1"), Ok(Freshness::For(-1)));
        assert_eq!(parse("@15h30m"), Ok(Freshness::Daily(55_800)));
        assert_eq!(parse("@24h"), Ok(Freshness::Daily(86_400)));
        assert!(parse("@25h").is_err());
        assert_eq!(parse("soon"), Err("invalid value"));
        assert_eq!(parse(""), Err("invalid value"));
        assert!(Freshness::parse(b"max", true).is_err());
        assert!(Freshness::parse(b"@1h", true).is_err());
        assert_eq!(Freshness::parse(b"1h", true), Ok(Freshness::For(3600)));
    }

    #[test]
    fn hiding_and_showing_are_about_names_in_any_case() {
        let fields = HiddenFields {
            also: [b"x-powered-by".as_slice().into()].into(),
            shown: [b"server".as_slice().into()].into(),
        };
        assert!(fields.hides(b"X-Powered-By", false));
        assert!(!fields.hides(b"Etag", false));
        assert!(!fields.hides(b"Server", true));
        assert!(fields.hides(b"Date", true));
    }
}
