//! What heads are taken, what heads are refused, and that neither depends on
//! how their bytes arrive.

use proptest::prelude::*;

use super::super::super::error::Refusal as _;
use super::*;

const LIMITS: HeadLimits = HeadLimits {
    line: 8 * 1024,
    total: 32 * 1024,
    fields: 200,
};

fn request(buf: &[u8]) -> Result<(Status, RequestHead), HeadError> {
    let mut head = RequestHead::default();
    parse_request(buf, &LIMITS, &mut head).map(|status| (status, head))
}

fn complete(buf: &[u8]) -> RequestHead {
    match request(buf) {
        Ok((Status::Complete, head)) => head,
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(buf)),
    }
}

fn refused(buf: &[u8]) -> HeadError {
    match request(buf) {
        Err(error) => error,
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(buf)),
    }
}

fn response(buf: &[u8]) -> Result<(Status, ResponseHead), HeadError> {
    let mut head = ResponseHead::default();
    parse_response(buf, &LIMITS, &mut head).map(|status| (status, head))
}

#[test]
fn a_request_is_taken_apart() {
    let buf = b"GET /a/b?c=d HTTP/1.1\r\nHost: example.org:8443\r\nX-Empty:\r\nAccept:  */* \t\r\n\r\nbody";
    let head = complete(buf);
    assert_eq!(head.method.of(buf), b"GET");
    assert_eq!(head.method_id, Method::Get);
    assert_eq!(head.target.of(buf), b"/a/b?c=d");
    assert_eq!(head.path.of(buf), b"/a/b");
    assert_eq!(head.query.map(|span| span.of(buf)), Some(&b"c=d"[..]));
    assert_eq!(head.line.of(buf), b"GET /a/b?c=d HTTP/1.1");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.host(buf), Some(&b"example.org:8443"[..]));
    assert_eq!(head.fields.len(), 3);
    assert_eq!(head.fields[2].value.of(buf), b"*/*");
    assert_eq!(head.find(buf, b"x-empty").next(), Some(&b""[..]));
    assert_eq!(head.len, buf.len() - 4);
}

#[test]
fn an_empty_query_is_not_the_same_as_none() {
    assert_eq!(
        complete(b"GET /? HTTP/1.0\r\n\r\n").query,
        Some(Span::new(6, 6))
    );
    assert_eq!(complete(b"GET / HTTP/1.0\r\n\r\n").query, None);
}

#[test]
fn absolute_form_overrides_host() {
    let buf = b"GET http://a.example:80/x?y HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let head = complete(buf);
    assert_eq!(head.host(buf), Some(&b"a.example:80"[..]));
    assert_eq!(head.path.of(buf), b"/x");
    assert_eq!(head.query.map(|span| span.of(buf)), Some(&b"y"[..]));
}

#[test]
fn an_absolute_form_without_a_path_means_the_root() {
    for (buf, query) in [
        (&b"GET http://a HTTP/1.0\r\n\r\n"[..], None),
        (b"GET http://a?q HTTP/1.0\r\n\r\n", Some(&b"q"[..])),
    ] {
        let head = complete(buf);
        assert_eq!(head.path.of(buf), b"/");
        assert_eq!(head.host(buf), Some(&b"a"[..]));
        assert_eq!(head.query.map(|span| span.of(buf)), query);
    }
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped() {
    let buf = b"\r\n\r\nGET / HTTP/1.0\r\n\r\nrest";
    let head = complete(buf);
    assert_eq!(head.method.of(buf), b"GET");
    assert_eq!(head.len, buf.len() - 4);
    assert_eq!(refused(&b"\r\n".repeat(100)), HeadError::InvalidMethod);
}

#[test]
fn lines_end_in_crlf_and_nothing_else() {
    for buf in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\n\n",
    ] {
        assert_eq!(refused(buf), HeadError::BareLf);
    }
    for buf in [
        &b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"[..],
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\r: b\r\n\r\n",
    ] {
        assert_eq!(refused(buf), HeadError::BareCr);
    }
}

#[test]
fn folded_lines_are_refused_before_the_head_is_complete() {
    for buf in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n folded"[..],
        b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\n b\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(refused(buf), HeadError::ObsFold);
    }
}

#[test]
fn field_names_and_values_are_held_to_their_syntax() {
    for (line, error) in [
        ("Host : a", HeadError::SpaceBeforeColon),
        ("X-A\t: a", HeadError::SpaceBeforeColon),
        (": a", HeadError::InvalidFieldName),
        ("no colon", HeadError::InvalidFieldName),
        ("X(: a", HeadError::InvalidFieldName),
        ("X\0: a", HeadError::InvalidFieldName),
        ("X: a\0b", HeadError::InvalidFieldValue),
        ("X: a\x1bb", HeadError::InvalidFieldValue),
        ("X: a\x7fb", HeadError::InvalidFieldValue),
    ] {
        let buf = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        assert_eq!(refused(buf.as_bytes()), error, "{line:?}");
        assert_eq!(error.status(), 400);
    }
}

#[test]
fn request_lines_are_held_to_their_syntax() {
    for (line, error) in [
        ("get / HTTP/1.1", HeadError::InvalidMethod),
        ("G@T / HTTP/1.1", HeadError::InvalidMethod),
        (" GET / HTTP/1.1", HeadError::InvalidMethod),
        ("GET  / HTTP/1.1", HeadError::InvalidTarget),
        ("GET a HTTP/1.1", HeadError::InvalidTarget),
        ("GET * HTTP/1.1", HeadError::InvalidTarget),
        ("OPTIONS * HTTP/1.1", HeadError::InvalidTarget),
        ("GET mailto:a HTTP/1.1", HeadError::InvalidTarget),
        ("GET /a#b HTTP/1.1", HeadError::InvalidTarget),
        ("GET /\0 HTTP/1.1", HeadError::InvalidTarget),
        ("GET /", HeadError::InvalidTarget),
        ("GET", HeadError::InvalidMethod),
        ("GET / HTTP/1.1 ", HeadError::InvalidRequestLine),
        ("GET / HTTP/1.1 x", HeadError::InvalidRequestLine),
        ("GET / b HTTP/1.1", HeadError::InvalidRequestLine),
        ("GET / http/1.1", HeadError::InvalidRequestLine),
        ("GET / FTP/1.1", HeadError::InvalidRequestLine),
    ] {
        let buf = format!("{line}\r\nHost: a\r\n\r\n");
        let found = refused(buf.as_bytes());
        assert_eq!(found, error, "{line:?}");
        assert_eq!(found.status(), 400);
    }
    for version in ["2.0", "1.2", "0.9", "3"] {
        let buf = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
        assert_eq!(refused(buf.as_bytes()).status(), 505, "{version}");
    }
}

#[test]
fn targets_may_hold_every_visible_character() {
    let buf = b"GET /\"<>\\^`{|}[]%zz~!$&'()*+,;=:@ HTTP/1.0\r\n\r\n";
    assert_eq!(complete(buf).path.of(buf).len(), buf.len() - 4 - 13);
}

#[test]
fn http_1_1_has_exactly_one_valid_host() {
    for (fields, error) in [
        ("", HeadError::MissingHost),
        ("Host: a\r\nHost: a\r\n", HeadError::SeveralHosts),
        ("Host: a\r\nhost: b\r\n", HeadError::SeveralHosts),
        ("Host:\r\n", HeadError::InvalidHost),
        ("Host: a/b\r\n", HeadError::InvalidHost),
        ("Host: a b\r\n", HeadError::InvalidHost),
        ("Host: u@a\r\n", HeadError::InvalidHost),
        ("Host: a:80:80\r\n", HeadError::InvalidHost),
    ] {
        let buf = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(refused(buf.as_bytes()), error, "{fields:?}");
    }
    assert_eq!(
        refused(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        HeadError::SeveralHosts
    );
    assert_eq!(
        refused(b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        HeadError::InvalidHost
    );
    assert_eq!(complete(b"GET / HTTP/1.0\r\n\r\n").host(b""), None);
}

#[test]
fn connect_and_trace_are_not_allowed() {
    for line in ["CONNECT a:443", "TRACE /"] {
        let buf = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refused(buf.as_bytes()).status(), 405, "{line}");
    }
}

#[test]
fn garbage_is_refused_at_its_first_bytes() {
    assert_eq!(refused(b"\x16\x03\x01"), HeadError::TlsOnPlainPort);
    assert_eq!(refused(b"\x16"), HeadError::InvalidMethod);
    assert_eq!(refused(b"\x80\x2e"), HeadError::InvalidMethod);
    assert_eq!(refused(b"SSH-2.0-OpenSSH"), HeadError::InvalidMethod);
    assert_eq!(refused(b"GE\r"), HeadError::InvalidMethod);
    assert_eq!(refused(b"QUIT\n"), HeadError::InvalidRequestLine);
}

#[test]
fn limits_hold_before_the_head_is_complete() {
    let long = "a".repeat(LIMITS.line);
    assert_eq!(refused(format!("GET /{long}").as_bytes()).status(), 414);
    assert_eq!(
        refused(format!("GET / HTTP/1.1\r\nX: {long}").as_bytes()),
        HeadError::FieldTooLong
    );
    let lines = format!("X: {}\r\n", "a".repeat(1000)).repeat(40);
    let buf = format!("GET / HTTP/1.1\r\n{lines}");
    assert_eq!(refused(buf.as_bytes()), HeadError::HeadTooLarge);
    assert_eq!(HeadError::HeadTooLarge.status(), 494);
    let lines = "X: a\r\n".repeat(LIMITS.fields + 1);
    let buf = format!("GET / HTTP/1.0\r\n{lines}\r\n");
    assert_eq!(refused(buf.as_bytes()), HeadError::TooManyFields);
}

#[test]
fn a_request_line_of_exactly_the_limit_passes() {
    let target = "a".repeat(LIMITS.line - "GET / HTTP/1.0\r\n".len());
    let fits = format!("GET /{target} HTTP/1.0\r\n\r\n");
    assert_eq!(complete(fits.as_bytes()).len, fits.len());
    let not = format!("GET /{target}a HTTP/1.0\r\n\r\n");
    assert_eq!(refused(not.as_bytes()), HeadError::RequestLineTooLong);
}

#[test]
fn as_many_fields_as_allowed_are_parsed() {
    let lines = "X: a\r\n".repeat(LIMITS.fields);
    let buf = format!("GET / HTTP/1.0\r\n{lines}\r\n");
    assert_eq!(complete(buf.as_bytes()).fields.len(), LIMITS.fields);
    let limits = HeadLimits {
        fields: 4096,
        total: 65536,
        ..LIMITS
    };
    let lines = "X:\r\n".repeat(MAX_FIELDS + 1);
    let buf = format!("GET / HTTP/1.0\r\n{lines}\r\n");
    assert_eq!(
        parse_request(buf.as_bytes(), &limits, &mut RequestHead::default()),
        Err(HeadError::TooManyFields)
    );
}

#[test]
fn connection_names_only_so_many_options() {
    let options = "a,".repeat(MAX_CONNECTION_OPTIONS);
    let buf = format!("GET / HTTP/1.0\r\nConnection: {options}\r\n\r\n");
    assert_eq!(complete(buf.as_bytes()).fields.len(), 1);
    let buf = format!("GET / HTTP/1.0\r\nConnection: {options}\r\nConnection: b\r\n\r\n");
    assert_eq!(refused(buf.as_bytes()), HeadError::TooManyConnectionOptions);
}

#[test]
fn a_refused_head_leaves_its_request_line_for_the_log() {
    let mut head = RequestHead::default();
    let buf = b"GET /secret HTTP/1.1\r\n\r\n";
    assert_eq!(
        parse_request(buf, &LIMITS, &mut head),
        Err(HeadError::MissingHost)
    );
    assert_eq!(head.line.of(buf), b"GET /secret HTTP/1.1");
    assert_eq!(head.path.of(buf), b"/secret");
    let buf = b"GET /b HTTP/1.1\r\n folded\r\n";
    assert_eq!(
        parse_request(buf, &LIMITS, &mut head),
        Err(HeadError::ObsFold)
    );
    assert_eq!(head.line.of(buf), b"GET /b HTTP/1.1");
}

#[test]
fn a_head_is_reusable_without_clearing_once_it_was_complete() {
    let mut head = RequestHead::default();
    for buf in [
        &b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"[..],
        b"GET http://b/ HTTP/1.0\r\n\r\n",
        b"GET /c HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(parse_request(buf, &LIMITS, &mut head), Ok(Status::Complete));
        assert_eq!(head.len, buf.len());
    }
    assert_eq!(
        (head.query, head.authority, head.fields.len()),
        (None, None, 0)
    );
}

#[test]
fn a_response_is_taken_apart() {
    let buf = b"HTTP/1.1 404 Not \xe9 Found\r\nContent-Length: 0\r\n\r\n";
    let (status, head) = response(buf).unwrap();
    assert_eq!(status, Status::Complete);
    assert_eq!((head.status, head.version), (404, Version::Http11));
    assert_eq!(head.reason.of(buf), b"Not \xe9 Found");
    assert_eq!(head.field(buf, FieldId::ContentLength), Some(&b"0"[..]));
    for buf in [&b"HTTP/1.0 200\r\n\r\n"[..], b"HTTP/1.0 200 \r\n\r\n"] {
        let (_, head) = response(buf).unwrap();
        assert!(head.reason.is_empty());
        assert_eq!(head.version, Version::Http10);
    }
}

#[test]
fn responses_are_held_to_the_same_rules() {
    for (buf, error) in [
        (
            &b"\r\nHTTP/1.1 200 OK\r\n\r\n"[..],
            HeadError::InvalidStatusLine,
        ),
        (b"HTTQ", HeadError::InvalidStatusLine),
        (b"<html>", HeadError::InvalidStatusLine),
        (b"HTTP/2.0 200 OK\r\n\r\n", HeadError::InvalidStatusLine),
        (b"HTTP/1.1 99 OK\r\n\r\n", HeadError::InvalidStatusLine),
        (b"HTTP/1.1 099 OK\r\n\r\n", HeadError::InvalidStatusLine),
        (b"HTTP/1.1 2000 OK\r\n\r\n", HeadError::InvalidStatusLine),
        (b"HTTP/1.1  200 OK\r\n\r\n", HeadError::InvalidStatusLine),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", HeadError::InvalidStatusLine),
        (b"HTTP/1.1 200 OK\n\r\n", HeadError::BareLf),
        (
            b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            HeadError::SpaceBeforeColon,
        ),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", HeadError::ObsFold),
        (b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", HeadError::BareCr),
    ] {
        assert_eq!(
            response(buf).unwrap_err(),
            error,
            "{:?}",
            String::from_utf8_lossy(buf)
        );
    }
    assert_eq!(response(b"HTT").unwrap().0, Status::Partial);
}

/// Feeds `buf` in pieces and gives the outcome of the call that decides.
fn dribbled(buf: &[u8], cuts: &[usize]) -> Result<(Status, RequestHead), HeadError> {
    let mut head = RequestHead::default();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (buf.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(buf.len());
    for cut in cuts {
        if parse_request(&buf[..cut], &LIMITS, &mut head)? == Status::Complete {
            return Ok((Status::Complete, head));
        }
    }
    Ok((Status::Partial, head))
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"GET "[..],
        b"/",
        b"/a?b",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"Host: a\r\n",
        b"X: y\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b":",
        b"\0",
        b"\x16\x03",
        b"http://h",
        b"#",
        b"Connection: a, b\r\n",
        b"\xff",
        b"CONNECT a:1",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_of_a_head_gives_the_same_outcome(
        buf in prop_oneof![
            pieces(),
            pieces().prop_map(|tail| [&b"GET /a?b HTTP/1.1\r\nHost: a\r\n"[..], &tail].concat()),
        ],
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        match (request(&buf), dribbled(&buf, &cuts)) {
            (Ok((Status::Complete, whole)), Ok((Status::Complete, split))) => {
                prop_assert_eq!(whole.len, split.len);
                prop_assert_eq!(whole.fields, split.fields);
                prop_assert_eq!((whole.path, whole.query, whole.authority, whole.line),
                    (split.path, split.query, split.authority, split.line));
            }
            (Ok((whole, _)), Ok((split, _))) => prop_assert_eq!(whole, split),
            (Err(_), Err(_)) => {}
            (whole, split) => prop_assert!(false, "{whole:?} but {split:?}"),
        }
    }

    #[test]
    fn what_follows_a_head_does_not_matter(tail in prop::collection::vec(any::<u8>(), 0..64)) {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        let parsed = complete(&[&head[..], &tail].concat());
        prop_assert_eq!(parsed.len, head.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(buf in prop::collection::vec(any::<u8>(), 0..200)) {
        for prefix in [&b""[..], b"GET /", b"HTTP/1.1 200 ", b"GET / HTTP/1.1\r\nHost: a\r\n"] {
            let buf = [prefix, &buf].concat();
            if let Ok((Status::Complete, head)) = request(&buf) {
                prop_assert!(head.len <= buf.len());
                prop_assert!(!head.path.of(&buf).is_empty());
            }
            if let Ok((Status::Complete, head)) = response(&buf) {
                prop_assert!(head.len <= buf.len());
            }
        }
    }
}
