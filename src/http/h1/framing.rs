//! Where a message ends: the only reader of Content-Length and
//! Transfer-Encoding.
//!
//! Request smuggling lives on two parties that disagree about this, so nothing
//! is guessed: what RFC 9112 §6 leaves to the recipient's leniency is refused.
//! A [`BodyFraming`] can be made nowhere else, so whoever holds one holds the
//! proof that the rules were applied.

use super::super::error::FramingError;
use super::super::head::{Field, FieldId, Method, RequestHead, ResponseHead, Version};

/// How long a message's body is, as proven from its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyFraming(Kind);

impl BodyFraming {
    /// The answer.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.0
    }
}

/// The ways in which a body can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is none, and no length was declared or none that counts (HEAD,
    /// 1xx, 204, 304).
    Empty,
    /// After this many bytes; may be 0.
    Length(u64),
    /// After the last chunk and the trailers.
    Chunked,
    /// With the connection (responses only).
    UntilClose,
}

/// The largest Content-Length: what `off_t` holds, as in Nginx.
pub const MAX_LENGTH: u64 = i64::MAX as u64;

/// The framing of a request's body (RFC 9112 §6.3).
///
/// # Errors
///
/// Any ambiguity: answer with the error's status and close, because where the
/// next request begins is unknown.
pub fn of_request(head: &RequestHead, buf: &[u8]) -> Result<BodyFraming, FramingError> {
    Ok(BodyFraming(
        match declared(&head.fields, buf, head.version)? {
            Declared::Chunked => Kind::Chunked,
            Declared::Length(length) => Kind::Length(length),
            Declared::Nothing => Kind::Empty,
        },
    ))
}

/// The framing of a response's body to a request with `request_method`
/// (RFC 9112 §6.3). Fields that such a response cannot have an effect with are
/// held to the same rules: a backend that errs there is not to be trusted with
/// the next response either.
///
/// # Errors
///
/// Any ambiguity: 502, and the upstream connection is closed.
pub fn of_response(
    head: &ResponseHead,
    buf: &[u8],
    request_method: Method,
) -> Result<BodyFraming, FramingError> {
    let declared = declared(&head.fields, buf, head.version)?;
    let bodiless = request_method == Method::Head
        || matches!(head.status, 100..=199 | 204 | 304)
        || (request_method == Method::Connect && matches!(head.status, 200..=299));
    Ok(BodyFraming(match declared {
        _ if bodiless => Kind::Empty,
        Declared::Chunked => Kind::Chunked,
        Declared::Length(length) => Kind::Length(length),
        Declared::Nothing => Kind::UntilClose,
    }))
}

enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

fn declared(fields: &[Field], buf: &[u8], version: Version) -> Result<Declared, FramingError> {
    let mut length = None;
    let mut codings = Codings::None;
    for field in fields {
        match field.id {
            FieldId::ContentLength => {
                // Equal repeats may be merged by RFC 9112 §6.3 (5); Nginx
                // refuses them, and nobody honest sends them.
                if length.is_some() {
                    return Err(FramingError::SeveralLengths);
                }
                length = Some(parse_length(field.value.of(buf))?);
            }
            FieldId::TransferEncoding => codings = codings.extend(field.value.of(buf))?,
            _ => {}
        }
    }
    match (codings, length) {
        (Codings::None, None) => Ok(Declared::Nothing),
        (Codings::None, Some(length)) => Ok(Declared::Length(length)),
        (_, Some(_)) => Err(FramingError::BothLengthAndEncoding),
        _ if version == Version::Http10 => Err(FramingError::EncodingInHttp10),
        (Codings::Chunked { others: false }, None) => Ok(Declared::Chunked),
        (Codings::Chunked { others: true }, None) => Err(FramingError::UnknownCoding),
        (Codings::NotChunked, None) => Err(FramingError::InvalidEncoding),
    }
}

/// `1*DIGIT`, nothing else: no sign, no white space, no list.
fn parse_length(value: &[u8]) -> Result<u64, FramingError> {
    if value.is_empty() {
        return Err(FramingError::InvalidLength);
    }
    let mut length = 0_u64;
    let mut overflow = false;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(FramingError::InvalidLength);
        }
        length = match length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(byte - b'0')))
        {
            Some(length) if length <= MAX_LENGTH => length,
            _ => {
                overflow = true;
                0
            }
        };
    }
    if overflow {
        return Err(FramingError::LengthOverflow);
    }
    Ok(length)
}

/// The transfer codings seen so far, across all field lines.
///
/// ```text
/// None ── other ──► NotChunked ── chunked ──► Chunked{others} ── anything ──► refused
///   └──── chunked ─────────────────────────────────┘
/// ```
enum Codings {
    None,
    /// Only others than `chunked`.
    NotChunked,
    /// `chunked`, once and last.
    Chunked {
        others: bool,
    },
}

impl Codings {
    fn extend(self, value: &[u8]) -> Result<Self, FramingError> {
        let mut codings = self;
        for member in value.split(|byte| *byte == b',') {
            let member = member.trim_ascii();
            // RFC 9110 §5.6.1 lets a recipient skip empty members. A parser
            // next door may not, so they are refused.
            if member.is_empty() {
                return Err(FramingError::InvalidEncoding);
            }
            codings = match (codings, member.eq_ignore_ascii_case(b"chunked")) {
                (Self::None, true) => Self::Chunked { others: false },
                (Self::NotChunked, true) => Self::Chunked { others: true },
                (Self::None | Self::NotChunked, false) => Self::NotChunked,
                (Self::Chunked { .. }, _) => return Err(FramingError::InvalidEncoding),
            };
        }
        Ok(codings)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Refusal as _;
    use super::super::super::head::Span;
    use super::*;
    use proptest::prelude::*;

    fn fields(lines: &[(FieldId, &str)]) -> (Vec<Field>, Vec<u8>) {
        let mut buf = Vec::new();
        let fields = lines
            .iter()
            .map(|(id, value)| {
                let start = buf.len();
                buf.extend_from_slice(value.as_bytes());
                Field {
                    name: Span::default(),
                    value: Span::new(start, buf.len()),
                    id: *id,
                }
            })
            .collect();
        (fields, buf)
    }

    fn request(version: Version, lines: &[(FieldId, &str)]) -> Result<Kind, FramingError> {
        let (fields, buf) = fields(lines);
        let head = RequestHead {
            version,
            fields,
            ..RequestHead::default()
        };
        of_request(&head, &buf).map(BodyFraming::kind)
    }

    fn response(
        status: u16,
        method: Method,
        lines: &[(FieldId, &str)],
    ) -> Result<Kind, FramingError> {
        let (fields, buf) = fields(lines);
        let head = ResponseHead {
            status,
            fields,
            ..ResponseHead::default()
        };
        of_response(&head, &buf, method).map(BodyFraming::kind)
    }

    const CL: FieldId = FieldId::ContentLength;
    const TE: FieldId = FieldId::TransferEncoding;

    #[test]
    fn a_request_has_a_body_only_if_it_says_so() {
        assert_eq!(request(Version::Http11, &[]), Ok(Kind::Empty));
        assert_eq!(request(Version::Http11, &[(CL, "0")]), Ok(Kind::Length(0)));
        assert_eq!(
            request(Version::Http10, &[(CL, "12")]),
            Ok(Kind::Length(12))
        );
        assert_eq!(
            request(Version::Http11, &[(CL, "9223372036854775807")]),
            Ok(Kind::Length(MAX_LENGTH))
        );
        assert_eq!(
            request(Version::Http11, &[(TE, "Chunked")]),
            Ok(Kind::Chunked)
        );
    }

    #[test]
    fn content_length_with_transfer_encoding_is_refused() {
        for lines in [[(CL, "3"), (TE, "chunked")], [(TE, "chunked"), (CL, "3")]] {
            assert_eq!(
                request(Version::Http11, &lines),
                Err(FramingError::BothLengthAndEncoding)
            );
            assert_eq!(
                response(200, Method::Get, &lines),
                Err(FramingError::BothLengthAndEncoding)
            );
        }
    }

    #[test]
    fn transfer_encoding_in_http_1_0_is_refused() {
        assert_eq!(
            request(Version::Http10, &[(TE, "chunked")]),
            Err(FramingError::EncodingInHttp10)
        );
    }

    #[test]
    fn chunked_is_the_only_coding_and_comes_once_and_last() {
        for (value, error) in [
            ("", FramingError::InvalidEncoding),
            ("gzip", FramingError::InvalidEncoding),
            ("identity", FramingError::InvalidEncoding),
            ("chunked, chunked", FramingError::InvalidEncoding),
            ("chunked, gzip", FramingError::InvalidEncoding),
            ("chunked,", FramingError::InvalidEncoding),
            (",chunked", FramingError::InvalidEncoding),
            ("chunked;q=1", FramingError::InvalidEncoding),
            ("xchunked", FramingError::InvalidEncoding),
            ("chunked\u{b}", FramingError::InvalidEncoding),
            ("\"chunked\"", FramingError::InvalidEncoding),
            ("gzip, chunked", FramingError::UnknownCoding),
        ] {
            assert_eq!(
                request(Version::Http11, &[(TE, value)]),
                Err(error),
                "{value:?}"
            );
        }
        assert_eq!(
            request(Version::Http11, &[(TE, "chunked"), (TE, "chunked")]),
            Err(FramingError::InvalidEncoding)
        );
        assert_eq!(FramingError::UnknownCoding.status(), 501);
    }

    #[test]
    fn content_length_is_one_run_of_digits() {
        for (value, error) in [
            ("", FramingError::InvalidLength),
            ("+1", FramingError::InvalidLength),
            ("-1", FramingError::InvalidLength),
            ("0x10", FramingError::InvalidLength),
            ("1 2", FramingError::InvalidLength),
            ("1,1", FramingError::InvalidLength),
            ("5, 5", FramingError::InvalidLength),
            ("1e3", FramingError::InvalidLength),
            ("١", FramingError::InvalidLength),
            ("9223372036854775808", FramingError::LengthOverflow),
            ("18446744073709551616", FramingError::LengthOverflow),
            ("99999999999999999999999999", FramingError::LengthOverflow),
        ] {
            assert_eq!(
                request(Version::Http11, &[(CL, value)]),
                Err(error),
                "{value:?}"
            );
        }
        for values in [["1", "2"], ["1", "1"]] {
            assert_eq!(
                request(Version::Http11, &[(CL, values[0]), (CL, values[1])]),
                Err(FramingError::SeveralLengths)
            );
        }
    }

    #[test]
    fn a_response_ends_as_its_status_and_the_method_say() {
        for (status, method) in [
            (200, Method::Head),
            (100, Method::Get),
            (101, Method::Get),
            (204, Method::Get),
            (304, Method::Get),
            (200, Method::Connect),
        ] {
            assert_eq!(response(status, method, &[(CL, "7")]), Ok(Kind::Empty));
            assert_eq!(response(status, method, &[]), Ok(Kind::Empty));
            // Even there: a backend that errs is not trusted further.
            assert!(response(status, method, &[(CL, "x")]).is_err());
        }
        assert_eq!(
            response(200, Method::Get, &[(CL, "7")]),
            Ok(Kind::Length(7))
        );
        assert_eq!(
            response(200, Method::Get, &[(TE, "chunked")]),
            Ok(Kind::Chunked)
        );
        assert_eq!(response(200, Method::Get, &[]), Ok(Kind::UntilClose));
        assert_eq!(response(404, Method::Connect, &[]), Ok(Kind::UntilClose));
    }

    /// The rules again, slowly and with nothing but text.
    fn reference(http10: bool, lines: &[(FieldId, String)]) -> Option<Kind> {
        let of = |id: FieldId| -> Vec<&str> {
            lines
                .iter()
                .filter(|line| line.0 == id)
                .map(|line| line.1.as_str())
                .collect()
        };
        match (of(TE).as_slice(), of(CL).as_slice()) {
            ([], []) => Some(Kind::Empty),
            ([], [length]) if !length.is_empty() && length.chars().all(|c| c.is_ascii_digit()) => {
                let significant = length.trim_start_matches('0');
                let fits = significant.len() < 19
                    || (significant.len() == 19 && significant <= "9223372036854775807");
                fits.then(|| Kind::Length(format!("0{significant}").parse().unwrap()))
            }
            ([coding], []) if !http10 && coding.trim().eq_ignore_ascii_case("chunked") => {
                Some(Kind::Chunked)
            }
            _ => None,
        }
    }

    fn line() -> impl Strategy<Value = (FieldId, String)> {
        prop_oneof![
            prop_oneof![
                "[0-9]{0,24}",
                "[-+ ]?[0-9]{1,3}[, x]?[0-9]{0,2}",
                "0{0,30}[0-9]{1,19}"
            ]
            .prop_map(|value: String| (CL, value.trim().to_owned())),
            prop_oneof![
                "(chunked|Chunked|CHUNKED)",
                "[a-z, ]{0,8}",
                "(gzip|chunked)(, ?(gzip|chunked))?"
            ]
            .prop_map(|value: String| (TE, value.trim().to_owned())),
            Just((FieldId::Other, "chunked".to_owned())),
        ]
    }

    proptest! {
        #[test]
        fn framing_agrees_with_a_slow_reference(
            http10: bool,
            lines in prop::collection::vec(line(), 0..3),
        ) {
            let version = if http10 { Version::Http10 } else { Version::Http11 };
            let borrowed: Vec<_> = lines.iter().map(|(id, value)| (*id, value.as_str())).collect();
            prop_assert_eq!(request(version, &borrowed).ok(), reference(http10, &lines));
        }
    }
}
