//! One request to an OCSP responder: HTTP/1.0, as Nginx asks, so that the
//! answer is neither in chunks nor followed by another.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::Responder;
use crate::http::h1::framing::{self, Kind};
use crate::http::h1::parse::{HeadLimits, Status, parse_response};
use crate::http::head::{FieldId, Method, ResponseHead};
use crate::runtime::pidfile::describe;

/// Head and answer together, bytes. Answers take one to three kilobytes.
const MAX_RESPONSE: usize = 64 << 10;
const HEAD: HeadLimits = HeadLimits {
    line: 8 << 10,
    total: 16 << 10,
    fields: 128,
};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum FetchError {
    /// Nobody is there, or says nothing.
    Unreachable(String),
    /// What came is no answer.
    Refused(String),
}

/// Blocks until the answer is there, at most for `limit` (the system's resolver
/// has limits of its own).
pub(super) fn fetch(
    responder: &Responder,
    target: &str,
    limit: Duration,
) -> Result<Vec<u8>, FetchError> {
    let end = Instant::now() + limit;
    let unreachable = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| {
            let reason = match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "timed out".to_owned(),
                _ => format!("failed ({})", describe(&error)),
            };
            FetchError::Unreachable(format!("{what} {reason}"))
        }
    };
    let mut stream = connect(responder, end).map_err(unreachable("connect()"))?;
    let request = format!(
        "GET {target} HTTP/1.0\r\nHost: {}\r\n\r\n",
        responder.authority
    );
    send(&mut stream, request.as_bytes(), end).map_err(unreachable("send()"))?;
    let response = receive(&mut stream, end).map_err(unreachable("recv()"))?;
    body(response).map_err(FetchError::Refused)
}

fn connect(responder: &Responder, end: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (&*responder.host, responder.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(end)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn send(stream: &mut TcpStream, request: &[u8], end: Instant) -> io::Result<()> {
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(request)
}

/// All until the responder closes, or as much as its head announces.
fn receive(stream: &mut TcpStream, end: Instant) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    while received.len() <= MAX_RESPONSE && !is_complete(&received) {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(received)
}

/// The time that is left, never none: a limit of zero would be no limit.
fn left(end: Instant) -> io::Result<Duration> {
    end.checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn is_complete(received: &[u8]) -> bool {
    let mut head = ResponseHead::default();
    if !matches!(
        parse_response(received, &HEAD, &mut head),
        Ok(Status::Complete)
    ) {
        return false;
    }
    match framing::of_response(&head, received, Method::Get).map(framing::BodyFraming::kind) {
        Ok(Kind::Length(length)) => (received.len() - head.len) as u64 >= length,
        Ok(Kind::UntilClose) => false,
        // Nothing more is wanted.
        Ok(Kind::Empty | Kind::Chunked) | Err(_) => true,
    }
}

/// The answer in a complete response.
fn body(mut response: Vec<u8>) -> Result<Vec<u8>, String> {
    if response.len() > MAX_RESPONSE {
        return Err("OCSP responder sent too big a response".to_owned());
    }
    let mut head = ResponseHead::default();
    match parse_response(&response, &HEAD, &mut head) {
        Ok(Status::Complete) => {}
        Ok(Status::Partial) => {
            return Err("OCSP responder prematurely closed connection".to_owned());
        }
        Err(error) => return Err(format!("OCSP responder sent {error}")),
    }
    if head.status != 200 {
        return Err(format!("OCSP responder answered {}", head.status));
    }
    let kind = head.field(&response, FieldId::ContentType);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/ocsp-response")) {
        let kind = String::from_utf8_lossy(kind.unwrap_or_default());
        return Err(format!(
            "OCSP responder sent invalid \"Content-Type\" header: \"{kind}\""
        ));
    }
    let framing = framing::of_response(&head, &response, Method::Get);
    let framing = framing.map_err(|error| format!("OCSP responder sent {error}"))?;
    let mut answer = response.split_off(head.len);
    match framing.kind() {
        Kind::UntilClose => {}
        Kind::Length(length) if length <= answer.len() as u64 => {
            answer.truncate(length as usize);
        }
        Kind::Length(_) => {
            return Err("OCSP responder prematurely closed connection".to_owned());
        }
        Kind::Empty | Kind::Chunked => {
            return Err("OCSP responder sent an answer in chunks".to_owned());
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is made of a responder that says these bytes and closes.
    fn fetched(says: &'static [u8]) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let responder = Responder::parse(&format!("http://{address}/o")).expect("a URL");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let count = stream.read(&mut request).expect("a request");
            stream.write_all(says).expect("sent");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let fetched = fetch(&responder, "/o/abc", Duration::from_secs(20));
        let request = server.join().expect("served");
        assert_eq!(
            request,
            format!("GET /o/abc HTTP/1.0\r\nHost: {address}\r\n\r\n")
        );
        fetched.map_err(|error| match error {
            FetchError::Unreachable(why) | FetchError::Refused(why) => why,
        })
    }

    #[test]
    fn an_answer_is_what_the_head_says_it_is() {
        let good = b"HTTP/1.0 200 OK\r\nContent-type: application/ocsp-response\r\n\r\nDER";
        assert_eq!(fetched(good).as_deref(), Ok(&b"DER"[..]));
        let length = b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n\
                       Content-Length: 3\r\n\r\nDERx";
        assert_eq!(fetched(length).as_deref(), Ok(&b"DER"[..]));
        let cases: [(&[u8], &str); 6] = [
            (
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                "answered 404",
            ),
            (
                b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n",
                "\"text/html\"",
            ),
            (b"HTTP/1.0 200 OK\r\n", "prematurely closed"),
            (b"", "prematurely closed"),
            (b"SSH-2.0-x\r\n\r\n", "OCSP responder sent"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n\
                  Content-Length: 9\r\n\r\nDER",
                "prematurely closed",
            ),
        ];
        for (says, complaint) in cases {
            let error = fetched(says).expect_err("refused");
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_responder_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let responder = Responder::parse(&format!("http://{address}/")).expect("a URL");
        let error = fetch(&responder, "/", Duration::from_millis(50));
        let Err(FetchError::Unreachable(why)) = error else {
            panic!("{error:?}")
        };
        assert_eq!(why, "recv() timed out");
        drop(listener);
        let error = fetch(&responder, "/", Duration::from_secs(5));
        assert!(
            matches!(error, Err(FetchError::Unreachable(_))),
            "{error:?}"
        );
    }
}
