//! The only reader of Content-Length and Transfer-Encoding, against a second
//! one that is written for the rule and not for speed. Where they disagree,
//! ringwall and a backend would, too: that is request smuggling.

use ringwall::http::h1::framing::{self, Kind};
use ringwall::http::h1::parse::{HeadLimits, Status, parse_request, parse_response};
use ringwall::http::head::{Method, RequestHead, ResponseHead};

const LIMITS: HeadLimits = HeadLimits {
    line: 8192,
    total: 32_768,
    fields: 64,
};

/// Puts `bytes` into a request's and a response's head as field lines. The
/// first byte chooses version, method and status.
pub fn h1_framing(bytes: &[u8]) {
    let Some((&choice, lines)) = bytes.split_first() else {
        return;
    };
    let version = if choice & 1 == 0 {
        "HTTP/1.1"
    } else {
        "HTTP/1.0"
    };

    let text = message(&format!("POST / {version}\r\nHost: a"), lines);
    let mut head = RequestHead::default();
    if parse_request(&text, &LIMITS, &mut head) == Ok(Status::Complete) {
        let ours = framing::of_request(&head, &text)
            .ok()
            .map(framing::BodyFraming::kind);
        let reference = declared(&text, head.len).map(|declared| declared.unwrap_or(Kind::Empty));
        assert_eq!(
            ours,
            reference,
            "request: {:?}",
            String::from_utf8_lossy(&text)
        );
    }

    let status = [200, 204, 304, 101, 404][usize::from(choice >> 1) % 5];
    let method = if choice & 0x80 == 0 {
        Method::Get
    } else {
        Method::Head
    };
    let text = message(&format!("{version} {status} OK"), lines);
    let mut head = ResponseHead::default();
    if parse_response(&text, &LIMITS, &mut head) == Ok(Status::Complete) {
        let ours = framing::of_response(&head, &text, method)
            .ok()
            .map(framing::BodyFraming::kind);
        let bodiless = method == Method::Head || matches!(status, 101 | 204 | 304);
        let reference = declared(&text, head.len).map(|declared| match declared {
            _ if bodiless => Kind::Empty,
            Some(kind) => kind,
            None => Kind::UntilClose,
        });
        assert_eq!(
            ours,
            reference,
            "response: {:?}",
            String::from_utf8_lossy(&text)
        );
    }
}

fn message(start: &str, lines: &[u8]) -> Vec<u8> {
    let mut text = start.as_bytes().to_vec();
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(lines);
    text.extend_from_slice(b"\r\n\r\n");
    text
}

/// What the head says of the body, read from its text alone: `None` is a
/// refusal, `Some(None)` says nothing.
fn declared(text: &[u8], head_len: usize) -> Option<Option<Kind>> {
    // Each byte becomes the character of the same number, so nothing is lost.
    let head: String = text
        .iter()
        .take(head_len)
        .map(|&byte| char::from(byte))
        .collect();
    let mut lines = head.split("\r\n");
    let http10 = lines.next().is_some_and(|start| start.contains("HTTP/1.0"));
    let fields: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])))
        .collect();
    let values = |wanted: &str| -> Vec<&str> {
        let of_name = fields.iter().filter(|(name, _)| name == wanted);
        of_name.map(|(_, value)| *value).collect()
    };
    let lengths = values("content-length");
    let encodings = values("transfer-encoding");

    match (lengths.as_slice(), encodings.is_empty()) {
        ([], true) => Some(None),
        ([length], true) => {
            let digits = !length.is_empty() && length.chars().all(|c| c.is_ascii_digit());
            // i64 and no sign: what fits into Nginx's off_t.
            let value = length.parse::<i64>().ok().filter(|_| digits)?;
            Some(Some(Kind::Length(value.unsigned_abs())))
        }
        ([], false) if !http10 => {
            // Only `chunked`, once: other codings are not implemented.
            let only = encodings.join(",");
            only.trim_matches([' ', '\t'])
                .eq_ignore_ascii_case("chunked")
                .then_some(Some(Kind::Chunked))
        }
        _ => None,
    }
}
