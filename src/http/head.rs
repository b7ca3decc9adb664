//! Message heads as ranges into the receive buffer.
//!
//! A head owns no text: every part of it is a [`Span`] of the buffer it was
//! parsed from, so forwarding copies each byte once, into the output. The
//! `Vec`s inside are kept between messages, which is why steady state allocates
//! nothing; references (`&'b [u8]`) were rejected because a head must outlive
//! the borrow of a buffer that is still being read into.

use super::words::lower;

/// A range of the buffer that a head was parsed from, in bytes.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span of `start..end`; positions beyond 4 GiB collapse to nothing,
    /// which no head within its limits can reach.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if start <= end => Self { start, end },
            _ => Self::default(),
        }
    }

    /// The bytes; empty when the buffer has become shorter than the span.
    #[must_use]
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// In bytes.
    #[must_use]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether there are no bytes in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }
}

/// The versions that this side of ALPN knows.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// As on the wire and in `$server_protocol`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

/// Methods that something here treats in its own way.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the methods' own names")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Connect,
    Trace,
    Patch,
    /// Any other token; its text is in the head.
    #[default]
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// RFC 9110 §9.2.1.
    #[must_use]
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// RFC 9110 §9.2.2. An unknown method is taken for one that is not.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

/// The fields that a proxy reads, rewrites or withholds, recognised once at
/// parse so that nothing later compares names.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants are the fields' own names")]
pub enum FieldId {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Trailer,
    Upgrade,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Expect,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    XRealIp,
    Forwarded,
    Via,
    Server,
    Date,
    Location,
    Refresh,
    SetCookie,
    Cookie,
    ContentType,
    ContentEncoding,
    ContentRange,
    UserAgent,
    Referer,
    Origin,
    Authorization,
    WwwAuthenticate,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    AcceptRanges,
    Range,
    IfRange,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    ETag,
    LastModified,
    Expires,
    CacheControl,
    Pragma,
    Vary,
    Http2Settings,
    EarlyData,
    ClientCert,
    ClientCertChain,
    XPad,
    /// Any `X-Accel-*`.
    XAccel,
    /// Anything else; its text is in the head.
    Other,
}

impl FieldId {
    /// Looks a name up, ignoring ASCII case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let words = lower_words(name);
        match KNOWN.get(slot(words)) {
            Some(known) if known.words == words && known.length == name.len() => known.id,
            _ if words[0] == X_ACCEL => Self::XAccel,
            _ => Self::Other,
        }
    }

    /// Whether there is one name that has it: of letters and hyphens.
    #[must_use]
    pub fn is_one_name(self) -> bool {
        !matches!(self, Self::XAccel | Self::Other)
    }
}

/// Every name that has an id of its own, in lower case.
const NAMES: [(&str, FieldId); 54] = [
    ("te", FieldId::Te),
    ("via", FieldId::Via),
    ("host", FieldId::Host),
    ("date", FieldId::Date),
    ("etag", FieldId::ETag),
    ("vary", FieldId::Vary),
    ("range", FieldId::Range),
    ("x-pad", FieldId::XPad),
    ("accept", FieldId::Accept),
    ("cookie", FieldId::Cookie),
    ("expect", FieldId::Expect),
    ("origin", FieldId::Origin),
    ("server", FieldId::Server),
    ("pragma", FieldId::Pragma),
    ("referer", FieldId::Referer),
    ("upgrade", FieldId::Upgrade),
    ("trailer", FieldId::Trailer),
    ("refresh", FieldId::Refresh),
    ("expires", FieldId::Expires),
    ("location", FieldId::Location),
    ("if-match", FieldId::IfMatch),
    ("if-range", FieldId::IfRange),
    ("x-real-ip", FieldId::XRealIp),
    ("forwarded", FieldId::Forwarded),
    ("user-agent", FieldId::UserAgent),
    ("connection", FieldId::Connection),
    ("set-cookie", FieldId::SetCookie),
    ("keep-alive", FieldId::KeepAlive),
    ("early-data", FieldId::EarlyData),
    ("client-cert", FieldId::ClientCert),
    ("content-type", FieldId::ContentType),
    ("authorization", FieldId::Authorization),
    ("cache-control", FieldId::CacheControl),
    ("last-modified", FieldId::LastModified),
    ("if-none-match", FieldId::IfNoneMatch),
    ("accept-ranges", FieldId::AcceptRanges),
    ("content-range", FieldId::ContentRange),
    ("content-length", FieldId::ContentLength),
    ("http2-settings", FieldId::Http2Settings),
    ("accept-encoding", FieldId::AcceptEncoding),
    ("accept-language", FieldId::AcceptLanguage),
    ("x-forwarded-for", FieldId::XForwardedFor),
    ("content-encoding", FieldId::ContentEncoding),
    ("proxy-connection", FieldId::ProxyConnection),
    ("x-forwarded-host", FieldId::XForwardedHost),
    ("x-forwarded-port", FieldId::XForwardedPort),
    ("www-authenticate", FieldId::WwwAuthenticate),
    ("transfer-encoding", FieldId::TransferEncoding),
    ("x-forwarded-proto", FieldId::XForwardedProto),
    ("if-modified-since", FieldId::IfModifiedSince),
    ("client-cert-chain", FieldId::ClientCertChain),
    ("proxy-authenticate", FieldId::ProxyAuthenticate),
    ("proxy-authorization", FieldId::ProxyAuthorization),
    ("if-unmodified-since", FieldId::IfUnmodifiedSince),
];

/// Words of eight bytes that hold the longest of them.
const WORDS: usize = 3;
/// A power of two.
const SLOTS: usize = 128;
/// Found by trying: it gives each name a slot of its own.
const MULTIPLIER: u64 = 0x4895_6498_3ea7_2569;
const X_ACCEL: u64 = u64::from_le_bytes(*b"x-accel-");

/// A hash table without collisions: a name is compared with one other, by code
/// that is the same for all.
#[allow(
    clippy::indexing_slicing,
    reason = "done by the compiler, which stops at a wrong index"
)]
static KNOWN: [Known; SLOTS] = {
    let mut slots = [Known::NONE; SLOTS];
    let mut next = 0;
    while next < NAMES.len() {
        let (name, id) = NAMES[next];
        let words = lower_words(name.as_bytes());
        let place = &mut slots[slot(words)];
        assert!(place.length == usize::MAX, "two names in one slot");
        *place = Known {
            words,
            length: name.len(),
            id,
        };
        next += 1;
    }
    slots
};

#[derive(Copy, Clone)]
struct Known {
    words: [u64; WORDS],
    length: usize,
    id: FieldId,
}

impl Known {
    const NONE: Self = Self {
        words: [0; WORDS],
        length: usize::MAX,
        id: FieldId::Other,
    };
}

const fn slot(words: [u64; WORDS]) -> usize {
    let [a, b, c] = words;
    let hash = (a ^ b ^ c).wrapping_mul(MULTIPLIER);
    (hash >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}

/// The first bytes in lower case, with NUL behind a shorter name.
const fn lower_words(name: &[u8]) -> [u64; WORDS] {
    let mut bytes = [0; WORDS * 8];
    let length = if name.len() < bytes.len() {
        name.len()
    } else {
        bytes.len()
    };
    bytes
        .split_at_mut(length)
        .0
        .copy_from_slice(name.split_at(length).0);
    let ([a, b, c], _) = bytes.as_chunks::<8>() else {
        return [0; WORDS];
    };
    [
        lower(u64::from_le_bytes(*a)),
        lower(u64::from_le_bytes(*b)),
        lower(u64::from_le_bytes(*c)),
    ]
}

/// One field line.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// A token.
    pub name: Span,
    /// Without surrounding white space; holds no control bytes but HTAB.
    pub value: Span,
    /// Which one it is.
    pub id: FieldId,
}

/// How far the search for the end of a head has come, so that a head that
/// dribbles in byte by byte is looked at once and not once for every byte.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the start line begins, behind skipped empty lines.
    pub(super) begin: usize,
    /// Where the line being searched begins. `begin <= line`.
    pub(super) line: usize,
    /// No line feed between `line` and here. `line <= searched`.
    pub(super) searched: usize,
}

/// A request's head. Reuse one per connection.
#[derive(Clone, Default, Debug)]
pub struct RequestHead {
    /// As sent.
    pub method: Span,
    /// Which one it is.
    pub method_id: Method,
    /// The request target as sent.
    pub target: Span,
    /// The target's path, still percent-encoded. Where an absolute-form has an
    /// empty path this is one of the slashes before its authority, so it is
    /// never empty.
    pub path: Span,
    /// Behind the `?`, without it.
    pub query: Option<Span>,
    /// Of an absolute-form target; overrides Host (RFC 9112 §3.2.2).
    pub authority: Option<Span>,
    /// What the client speaks.
    pub version: Version,
    /// In the order sent.
    pub fields: Vec<Field>,
    /// The request line without its line end, for `$request`; set as soon as
    /// that line is complete, even if the rest of the head is then refused.
    pub line: Span,
    /// Bytes up to the body, empty lines before the request line included.
    pub len: usize,
    pub(super) scan: Scan,
}

impl RequestHead {
    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// The value of the first field of this kind.
    #[must_use]
    pub fn field<'b>(&self, buf: &'b [u8], id: FieldId) -> Option<&'b [u8]> {
        self.fields_of(buf, id).next()
    }

    /// The values of all fields of this kind, in order.
    pub fn fields_of<'b>(&self, buf: &'b [u8], id: FieldId) -> impl Iterator<Item = &'b [u8]> {
        values_of(&self.fields, buf, id)
    }

    /// The values of all fields of this name, in order, ignoring ASCII case.
    pub fn find<'b>(&self, buf: &'b [u8], name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
        values_named(&self.fields, buf, name)
    }

    /// Host and port that the request is for: the target's authority, or else
    /// the Host field. `None` only for HTTP/1.0 without either.
    #[must_use]
    pub fn host<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        match self.authority {
            Some(authority) => Some(authority.of(buf)),
            None => self.field(buf, FieldId::Host),
        }
    }
}

/// A response's head. Reuse one per connection.
#[derive(Clone, Default, Debug)]
pub struct ResponseHead {
    /// What the backend speaks.
    pub version: Version,
    /// 100–999.
    pub status: u16,
    /// May be empty.
    pub reason: Span,
    /// In the order sent.
    pub fields: Vec<Field>,
    /// Bytes up to the body.
    pub len: usize,
    pub(super) scan: Scan,
}

impl ResponseHead {
    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// The value of the first field of this kind.
    #[must_use]
    pub fn field<'b>(&self, buf: &'b [u8], id: FieldId) -> Option<&'b [u8]> {
        self.fields_of(buf, id).next()
    }

    /// The values of all fields of this kind, in order.
    pub fn fields_of<'b>(&self, buf: &'b [u8], id: FieldId) -> impl Iterator<Item = &'b [u8]> {
        values_of(&self.fields, buf, id)
    }

    /// The values of all fields of this name, in order, ignoring ASCII case.
    pub fn find<'b>(&self, buf: &'b [u8], name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
        values_named(&self.fields, buf, name)
    }
}

fn values_of<'b>(fields: &[Field], buf: &'b [u8], id: FieldId) -> impl Iterator<Item = &'b [u8]> {
    fields
        .iter()
        .filter(move |field| field.id == id)
        .map(move |field| field.value.of(buf))
}

fn values_named<'b>(
    fields: &[Field],
    buf: &'b [u8],
    name: &[u8],
) -> impl Iterator<Item = &'b [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.of(buf).eq_ignore_ascii_case(name))
        .map(move |field| field.value.of(buf))
}

#[cfg(test)]
mod tests {
    use super::super::headers::is_ordinary_name;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_span_outside_its_buffer_is_empty() {
        assert_eq!(Span::new(2, 4).of(b"abcdef"), b"cd");
        assert_eq!(Span::new(2, 40).of(b"abcdef"), b"");
        assert_eq!(Span { start: 4, end: 2 }.of(b"abcdef"), b"");
        assert_eq!(Span { start: 4, end: 2 }.len(), 0);
        assert!(Span::new(4, 2).is_empty());
    }

    #[test]
    fn field_names_are_recognised_in_any_case() {
        assert_eq!(FieldId::of(b"hOST"), FieldId::Host);
        assert_eq!(FieldId::of(b"Transfer-Encoding"), FieldId::TransferEncoding);
        assert_eq!(FieldId::of(b"X-Accel-Redirect"), FieldId::XAccel);
        assert_eq!(FieldId::of(b"x-accel-expires"), FieldId::XAccel);
        assert_eq!(FieldId::of(b"X-Accelerate"), FieldId::Other);
        assert_eq!(FieldId::of(b"Content_Length"), FieldId::Other);
        assert_eq!(FieldId::of(b""), FieldId::Other);
    }

    #[test]
    fn a_name_with_an_id_of_its_own_is_of_letters_and_hyphens() {
        for (name, id) in NAMES {
            assert!(
                id.is_one_name() && is_ordinary_name(name.as_bytes(), false),
                "{name}"
            );
        }
        for name in [&b"x-accel-a_b"[..], b"x_real_ip", b"a.b"] {
            assert!(!FieldId::of(name).is_one_name());
        }
    }

    #[test]
    fn every_name_in_the_table_is_found_under_its_own_id() {
        for (name, id) in [
            ("Te", FieldId::Te),
            ("Via", FieldId::Via),
            ("ETag", FieldId::ETag),
            ("Range", FieldId::Range),
            ("X-Pad", FieldId::XPad),
            ("Expect", FieldId::Expect),
            ("Server", FieldId::Server),
            ("Pragma", FieldId::Pragma),
            ("Upgrade", FieldId::Upgrade),
            ("Trailer", FieldId::Trailer),
            ("Refresh", FieldId::Refresh),
            ("Expires", FieldId::Expires),
            ("Location", FieldId::Location),
            ("If-Match", FieldId::IfMatch),
            ("If-Range", FieldId::IfRange),
            ("X-Real-IP", FieldId::XRealIp),
            ("Forwarded", FieldId::Forwarded),
            ("Connection", FieldId::Connection),
            ("Set-Cookie", FieldId::SetCookie),
            ("Keep-Alive", FieldId::KeepAlive),
            ("Early-Data", FieldId::EarlyData),
            ("Client-Cert", FieldId::ClientCert),
            ("Content-Type", FieldId::ContentType),
            ("Authorization", FieldId::Authorization),
            ("Cache-Control", FieldId::CacheControl),
            ("Last-Modified", FieldId::LastModified),
            ("If-None-Match", FieldId::IfNoneMatch),
            ("Accept-Ranges", FieldId::AcceptRanges),
            ("Content-Range", FieldId::ContentRange),
            ("Content-Length", FieldId::ContentLength),
            ("HTTP2-Settings", FieldId::Http2Settings),
            ("Accept-Encoding", FieldId::AcceptEncoding),
            ("Accept-Language", FieldId::AcceptLanguage),
            ("X-Forwarded-For", FieldId::XForwardedFor),
            ("Content-Encoding", FieldId::ContentEncoding),
            ("Proxy-Connection", FieldId::ProxyConnection),
            ("X-Forwarded-Host", FieldId::XForwardedHost),
            ("X-Forwarded-Port", FieldId::XForwardedPort),
            ("WWW-Authenticate", FieldId::WwwAuthenticate),
            ("X-Forwarded-Proto", FieldId::XForwardedProto),
            ("If-Modified-Since", FieldId::IfModifiedSince),
            ("Client-Cert-Chain", FieldId::ClientCertChain),
            ("Proxy-Authenticate", FieldId::ProxyAuthenticate),
            ("Proxy-Authorization", FieldId::ProxyAuthorization),
            ("If-Unmodified-Since", FieldId::IfUnmodifiedSince),
        ] {
            assert_eq!(FieldId::of(name.as_bytes()), id, "{name}");
        }
    }

    #[test]
    fn only_methods_known_to_be_idempotent_are_retried() {
        assert!(Method::Put.is_idempotent() && !Method::Put.is_safe());
        assert!(!Method::Post.is_idempotent());
        assert!(!Method::of(b"get").is_idempotent());
    }

    proptest! {
        #[test]
        fn looking_up_a_name_never_panics(name in proptest::collection::vec(any::<u8>(), 0..24)) {
            prop_assert_eq!(FieldId::of(&name), FieldId::of(&name.to_ascii_uppercase()));
        }
    }
}
