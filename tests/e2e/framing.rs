//! What a message's length is must never be a matter of opinion (RFC 9112):
//! whatever two parsers could read in two ways is refused with 400 and the
//! connection closed, and nothing of it reaches the backend. Backends are held
//! to the same rules and give 502.

use std::time::Duration;

use crate::support::client::Connection;
use crate::support::origin::Origin;
use crate::support::ringwall::{Ringwall, Site, plain_proxy};
use crate::support::{find, show};

fn proxy(origin: &Origin) -> Ringwall {
    Site::new().start(&plain_proxy(&origin.url()))
}

/// Sends each case on a connection of its own; all that disagree are reported.
fn refuse_all(ringwall: &Ringwall, cases: &[(&str, &[u8])]) {
    let mut wrong = Vec::new();
    for (name, bytes) in cases {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.set_read_limit(Duration::from_secs(5));
        // The refusal may come, and the connection go, before all is sent.
        let _ = client.try_send(bytes);
        match client.try_response("GET") {
            Ok(response) if response.status == 400 => {
                let rest = client.until_close();
                if !rest.as_ref().is_ok_and(Vec::is_empty) {
                    wrong.push(format!("{name}: 400, then {rest:?} instead of a close"));
                }
            }
            Ok(response) => wrong.push(format!("{name}: {}", show(&response.raw_head))),
            Err(e) => wrong.push(format!("{name}: no response: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_ambiguous_request_head_is_answered_400_and_nothing_reaches_the_backend() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin);
    refuse_all(
        &ringwall,
        &[
            (
                "Content-Length with Transfer-Encoding",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "Transfer-Encoding with Content-Length",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            ),
            (
                "Transfer-Encoding in HTTP/1.0",
                b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "a final coding other than chunked",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            ),
            (
                "only gzip",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
            ),
            (
                "identity",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunked twice in one field",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunked twice in two fields",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "a coding that only resembles chunked",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunked behind a vertical tab",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunked with a parameter",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
            ),
            (
                "an empty Transfer-Encoding",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
            ),
            (
                "Content-Length twice with different values",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            ),
            (
                "different Content-Lengths in one field",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
            ),
            (
                "an empty Content-Length",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            ),
            (
                "a Content-Length with a plus",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            ),
            (
                "a negative Content-Length",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
            ),
            (
                "a hexadecimal Content-Length",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
            ),
            (
                "a Content-Length with a letter behind",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5a\r\n\r\nhello",
            ),
            (
                "a Content-Length of two numbers",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
            ),
            (
                "a Content-Length that overflows",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
            ),
            (
                "a folded field (obs-fold)",
                b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
            ),
            (
                "a fold on the first field",
                b"GET / HTTP/1.1\r\n X-A: b\r\nHost: a\r\n\r\n",
            ),
            (
                "a fold that hides Transfer-Encoding",
                b"POST / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "white space before the colon",
                b"GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
            ),
            (
                "a tab before the colon of Content-Length",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\nhello",
            ),
            ("no Host in 1.1", b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n"),
            (
                "two Hosts",
                b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            ),
            (
                "the same Host twice",
                b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            ),
            (
                "a Host with a space",
                b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            ),
            (
                "a Host with a slash",
                b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            ),
            (
                "CR inside a value",
                b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n",
            ),
            (
                "LF inside a value",
                b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\nc\r\n\r\n",
            ),
            (
                "NUL inside a value",
                b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
            ),
            (
                "CR inside a name",
                b"GET / HTTP/1.1\r\nHost: a\r\nX\rA: b\r\n\r\n",
            ),
            (
                "NUL inside a name",
                b"GET / HTTP/1.1\r\nHost: a\r\nX\0A: b\r\n\r\n",
            ),
            (
                "an empty name",
                b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            ),
            (
                "a line without a colon",
                b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
            ),
            ("bare LF throughout", b"GET / HTTP/1.1\nHost: a\n\n"),
            (
                "bare LF behind the request line",
                b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            ),
            (
                "bare LF behind a field",
                b"GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
            ),
            (
                "bare LF at the head's end",
                b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            ),
            (
                "bare CR as a line end",
                b"GET / HTTP/1.1\rHost: a\r\r\r\n\r\n",
            ),
            (
                "bare CR behind a field",
                b"GET / HTTP/1.1\r\nHost: a\rX-A: b\r\n\r\n",
            ),
            (
                "NUL in the target",
                b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a space in the target",
                b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a target without a slash",
                b"GET nothing HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a version that is none",
                b"GET / HTTP/1.x\r\nHost: a\r\n\r\n",
            ),
            (
                "a protocol that is not HTTP",
                b"GET / SIP/2.0\r\nHost: a\r\n\r\n",
            ),
        ],
    );
    assert_eq!(
        origin.connections(),
        0,
        "the backend got {}",
        show(&origin.all_received())
    );
}

#[test]
fn what_is_no_request_is_in_both_logs() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin);
    for (sent, logged, why) in [
        (
            "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n",
            "",
            "invalid request target",
        ),
        ("no request\r\n\r\n", "", "invalid method"),
        (
            "GET /name HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n",
            "GET /name HTTP/1.1",
            "invalid header name",
        ),
        (
            "GET /host HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET /host HTTP/1.1",
            "duplicate \"Host\"",
        ),
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(sent);
        assert_eq!(client.response("GET").status, 400, "{sent}");
        ringwall.access_with(&[logged, "\" 400 "]);
        ringwall.complaint_with(&["[info]", why]);
    }
    assert_eq!(ringwall.access_log().lines().count(), 4);
}

#[test]
fn a_malformed_chunked_body_is_answered_400_and_never_completes_at_the_backend() {
    let origin = Origin::hello();
    let ringwall = proxy(&origin);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long_extension = [
        b"5;".as_slice(),
        &[b'x'; 64 * 1024],
        b"\r\nhello\r\n0\r\n\r\n",
    ]
    .concat();
    let bodies: &[(&str, &[u8])] = &[
        (
            "a size that overflows",
            b"FFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a size of 2^64 - 1 that would wrap",
            b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        ),
        ("an empty size", b"\r\nhello\r\n0\r\n\r\n"),
        (
            "a size that is only an extension",
            b";a=b\r\nhello\r\n0\r\n\r\n",
        ),
        ("a size with a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", b"-5\r\nhello\r\n0\r\n\r\n"),
        ("a size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size with junk behind", b"5g\r\nhello\r\n0\r\n\r\n"),
        ("a size behind a space", b" 5\r\nhello\r\n0\r\n\r\n"),
        ("an over-long extension", &long_extension),
        ("LF inside an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("CR inside an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a size ended by bare LF", b"5\nhello\r\n0\r\n\r\n"),
        ("a size ended by bare CR", b"5\rhello\r\n0\r\n\r\n"),
        ("data longer than its size", b"5\r\nhelloworld\r\n0\r\n\r\n"),
        ("data ended by bare LF", b"5\r\nhello\n0\r\n\r\n"),
        ("the last chunk ended by bare LF", b"5\r\nhello\r\n0\n\r\n"),
        ("the trailers ended by bare LF", b"5\r\nhello\r\n0\r\n\n"),
        (
            "a trailer without a colon",
            b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
        ),
        (
            "a trailer without a name",
            b"5\r\nhello\r\n0\r\n: b\r\n\r\n",
        ),
        (
            "a trailer with a space before the colon",
            b"5\r\nhello\r\n0\r\nA : b\r\n\r\n",
        ),
        ("a folded trailer", b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n"),
        ("NUL in a trailer", b"5\r\nhello\r\n0\r\nA: b\0c\r\n\r\n"),
    ];
    let whole: Vec<(&str, Vec<u8>)> = bodies
        .iter()
        .map(|(name, body)| (*name, [head, *body].concat()))
        .collect();
    let cases: Vec<(&str, &[u8])> = whole
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();
    refuse_all(&ringwall, &cases);
    assert_eq!(
        origin.requests(),
        0,
        "the backend got {}",
        show(&origin.all_received())
    );
}

#[test]
fn data_behind_a_final_chunk_that_is_no_request_is_answered_400() {
    let origin = Origin::echo();
    let ringwall = proxy(&origin);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\nX-Not: a request\r\n\r\n",
    );
    assert_eq!(client.response("POST").text(), "hello");
    assert_eq!(client.response("GET").status, 400);
    client.expect_close("behind a 400");
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_request_inside_a_body_is_never_served() {
    let origin = Origin::echo();
    let ringwall = proxy(&origin);
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "POST /outer HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    ));
    assert_eq!(client.response("POST").text(), inner);
    assert_eq!(client.get("a", "/next").status, 200);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn what_is_unambiguous_is_served() {
    let origin = Origin::echo();
    let ringwall = proxy(&origin);
    let served: &[(&str, &[u8], &str)] = &[
        (
            "the coding's name in any case",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ChunKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "sizes in upper and lower case with leading zeros",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n00b\r\n0123456789x\r\n0\r\n\r\n",
            "01234567890123456789x",
        ),
        (
            "extensions",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;name=\"value\"\r\nhello\r\n0;last\r\n\r\n",
            "hello",
        ),
        (
            "trailers",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            "hello",
        ),
        (
            "white space round a value",
            b"POST / HTTP/1.1\r\nHost: \t a \t\r\nContent-Length: \t5 \r\n\r\nhello",
            "hello",
        ),
        (
            "an empty line before the request line",
            b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
        ),
        ("HTTP/1.0 without a Host", b"GET / HTTP/1.0\r\n\r\n", ""),
    ];
    for (name, bytes, body) in served {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(bytes);
        let response = client.response("POST");
        assert_eq!(response.status, 200, "{name}");
        assert_eq!(response.text(), *body, "{name}");
    }
}

#[test]
fn a_request_split_at_any_place_is_the_same_request() {
    let origin = Origin::echo();
    let ringwall = proxy(&origin);
    let bytes = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;e=1\r\nhello\r\n6\r\n world\r\n0\r\nT: 1\r\n\r\n";
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for place in 1..bytes.len() {
        let (head, tail) = bytes.split_at(place);
        client.send_pieces([head, tail]);
        let response = client.response("POST");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "hello world"),
            "split at {place}"
        );
    }
    client.send_pieces(bytes.chunks(1));
    assert_eq!(client.response("POST").text(), "hello world");
}

/// A backend that answers `/N` with the Nth of these and closes.
fn backend_of(answers: Vec<Vec<u8>>) -> Origin {
    Origin::script(move |peer| {
        let request = peer.request()?;
        let index: usize = request
            .target()
            .trim_start_matches('/')
            .parse()
            .unwrap_or(0);
        peer.send(&answers[index])?;
        peer.finish()
    })
}

#[test]
fn an_ambiguous_response_head_is_answered_502() {
    let huge = [
        b"HTTP/1.1 200 OK\r\nX-Huge: ".as_slice(),
        &vec![b'x'; 1024 * 1024],
        b"\r\nContent-Length: 0\r\n\r\n",
    ]
    .concat();
    let cases: &[(&str, &[u8])] = &[
        (
            "Content-Length with Transfer-Encoding",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding in HTTP/1.0",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a final coding other than chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "Content-Length twice with different values",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        ),
        (
            "an empty Content-Length",
            b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
        ),
        (
            "a Content-Length with a plus",
            b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            "a negative Content-Length",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        ),
        (
            "a hexadecimal Content-Length",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
        ),
        (
            "a Content-Length that overflows",
            b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
        ),
        (
            "a folded field (obs-fold)",
            b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "white space before the colon",
            b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        ),
        (
            "NUL inside a value",
            b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "CR inside a value",
            b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "an empty name",
            b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "bare LF as a line end",
            b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        ),
        (
            "a status that is no number",
            b"HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "a protocol that is not HTTP",
            b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "a version that is none",
            b"HTTP/9.9 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("nothing", b""),
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("a head of a mebibyte", &huge),
        (
            "101 to a request that did not ask for it",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello",
        ),
    ];
    let origin = backend_of(cases.iter().map(|(_, bytes)| bytes.to_vec()).collect());
    let ringwall = proxy(&origin);
    let mut wrong = Vec::new();
    for (index, (name, _)) in cases.iter().enumerate() {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        match client.try_get("a", &format!("/{index}")) {
            Ok(response) if response.status == 502 => {
                if find(&response.body, b"hello").is_some() {
                    wrong.push(format!("{name}: the backend's body came through"));
                }
            }
            Ok(response) => wrong.push(format!("{name}: {}", show(&response.raw_head))),
            Err(e) => wrong.push(format!("{name}: no response: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_malformed_response_body_never_looks_complete_to_the_client() {
    let chunked = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
    };
    let cases = [
        (
            "a size that overflows",
            chunked("FFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
        ),
        ("an empty size", chunked("5\r\nhello\r\n\r\n0\r\n\r\n")),
        ("a signed size", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("junk behind a size", chunked("5x\r\nhello\r\n0\r\n\r\n")),
        ("a size ended by bare LF", chunked("5\nhello\r\n0\r\n\r\n")),
        (
            "data longer than its size",
            chunked("5\r\nhelloworld\r\n0\r\n\r\n"),
        ),
        ("no last chunk", chunked("5\r\nhello\r\n")),
        ("a chunk cut short", chunked("5\r\nhel")),
        (
            "the last chunk without its end",
            chunked("5\r\nhello\r\n0\r\n"),
        ),
        (
            "fewer bytes than Content-Length",
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".to_vec(),
        ),
    ];
    let origin = backend_of(cases.iter().map(|(_, bytes)| bytes.clone()).collect());
    let ringwall = proxy(&origin);
    let mut wrong = Vec::new();
    for (index, (name, _)) in cases.iter().enumerate() {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.set_read_limit(Duration::from_secs(5));
        match client.try_get("a", &format!("/{index}")) {
            Ok(response) if response.status == 502 => {}
            Ok(response) => wrong.push(format!(
                "{name}: looks complete: {} {}",
                show(&response.raw_head),
                show(&response.body)
            )),
            Err(e) if crate::support::client::is_timeout(&e) => {
                wrong.push(format!("{name}: the connection stays open"));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
