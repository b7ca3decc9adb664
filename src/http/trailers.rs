//! The fields behind a body (RFC 9110 §6.5), by whatever version they came.

use smallvec::SmallVec;

use super::head::FieldId;
use super::headers::{is_hop_by_hop, is_never_connection_option};

/// Trailer fields in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailers {
    /// Each a name, a colon, a value and a line feed, which neither a name nor a
    /// value holds.
    lines: Vec<u8>,
}

impl Trailers {
    /// Adds a field of which neither part holds a line feed, nor the name a colon.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b":", value, b"\n"] {
            self.lines.extend_from_slice(part);
        }
    }

    /// Adds a byte of a line: for who takes them as they come.
    pub(super) fn push(&mut self, byte: u8) {
        self.lines.push(byte);
    }

    /// Bytes of all lines.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Names and values, the latter without white space round them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.lines.split(|byte| *byte == b'\n');
        lines.filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let (name, value) = line.split_at_checked(colon)?;
            Some((name, value.get(1..)?.trim_ascii()))
        })
    }
}

/// Whether a field of this name means something before a body only, so that a
/// copy behind one is at best without effect and at worst taken for the real one:
/// framing, routing, request modifiers, authentication, what a body is, and who
/// the client is said to be (RFC 9110 §6.5.1). `_` is `-` here.
#[must_use]
pub fn is_never_trailer(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 4] = [
        b"content-disposition",
        b"content-location",
        b"max-forwards",
        b"x-http-method-override",
    ];
    const PREFIXES: [&[u8]; 4] = [b"x-forwarded-", b"x-real-", b"x-original-", b"x-ssl-"];
    let folded: SmallVec<[u8; 32]> = name
        .iter()
        .map(|byte| match byte {
            b'_' => b'-',
            other => other.to_ascii_lowercase(),
        })
        .collect();
    let id = FieldId::of(&folded);
    is_hop_by_hop(id)
        || is_never_connection_option(&folded)
        || NAMES.contains(&&*folded)
        || PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
        || matches!(
            id,
            FieldId::Expect
                | FieldId::Date
                | FieldId::Location
                | FieldId::SetCookie
                | FieldId::ContentRange
                | FieldId::Referer
                | FieldId::Origin
                | FieldId::WwwAuthenticate
                | FieldId::Range
                | FieldId::IfRange
                | FieldId::IfMatch
                | FieldId::IfNoneMatch
                | FieldId::IfModifiedSince
                | FieldId::IfUnmodifiedSince
                | FieldId::Expires
                | FieldId::Pragma
                | FieldId::Vary
                | FieldId::ClientCert
                | FieldId::ClientCertChain
                | FieldId::XAccel
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_out_as_they_went_in() {
        let mut trailers = Trailers::default();
        assert!(trailers.is_empty() && trailers.iter().next().is_none());
        trailers.add(b"x-sum", b"a:b");
        trailers.add(b"x-empty", b"");
        for byte in b"X-Raw: \tc d \n" {
            trailers.push(*byte);
        }
        let seen: Vec<_> = trailers.iter().collect();
        assert_eq!(
            seen,
            [
                (&b"x-sum"[..], &b"a:b"[..]),
                (b"x-empty", b""),
                (b"X-Raw", b"c d"),
            ]
        );
    }

    #[test]
    fn what_belongs_before_a_body_is_no_trailer_however_it_is_written() {
        for name in [
            "Transfer-Encoding",
            "content-length",
            "Content_Length",
            "transfer_encoding",
            "X-SSL-Client-Verify",
            "Client_Cert",
            "Host",
            "connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "Set-Cookie",
            "Content-Type",
            "content-encoding",
            "Content-Range",
            "Cache-Control",
            "If-None-Match",
            "Range",
            "Forwarded",
            "X-Forwarded-For",
            "x_forwarded_client_cert",
            "X-Real-IP",
            "Via",
            "Early-Data",
        ] {
            assert!(is_never_trailer(name.as_bytes()), "{name}");
        }
        for name in ["grpc-status", "x-sum", "Digest", "ETag", "Server-Timing"] {
            assert!(!is_never_trailer(name.as_bytes()), "{name}");
        }
    }
}
