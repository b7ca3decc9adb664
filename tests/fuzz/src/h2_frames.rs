//! A peer's frames have the same effect however they are cut, be it a client or a
//! server; and a request of HTTP/2 that is taken is one that the parser of HTTP/1.1
//! takes too, and understands in the same way.

use std::collections::BTreeMap;
use std::time::Duration;

use ringwall::http::h1::parse::{HeadLimits, Status, parse_request};
use ringwall::http::h2::connection::{Connection, Event, Limits};
use ringwall::http::h2::fields::{Draft, lay};
use ringwall::http::h2::frame::{HEADER, Head, MAX_PAYLOAD, Reason, kind};
use ringwall::http::h2::meter::PREFACE;
use ringwall::http::head::RequestHead;

const LIMITS: HeadLimits = HeadLimits {
    line: 512,
    total: 2048,
    fields: 16,
};
const GRANTED: Limits = Limits {
    streams: 8,
    window: 70_000,
    connection_window: 100_000,
    list: 4096,
};

/// The first byte says how the rest is cut, which follows preface and SETTINGS of
/// a client, or SETTINGS of a server that has been asked for some things.
pub fn h2_frames(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let cut = usize::from(cut).max(1);
    let settings = [0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0];
    let of_server = [&settings, bytes].concat();
    let of_client = [PREFACE, &of_server[..]].concat();
    let whole = serve(&of_client, of_client.len());
    assert_eq!(serve(&of_client, cut), whole);
    let whole = ask(&of_server, of_server.len());
    assert_eq!(ask(&of_server, cut), whole);
}

/// What came of it: requests and ends in order, bodies, and what was sent but
/// for windows, which are widened as the parts of a body come.
type Outcome = (Vec<String>, BTreeMap<u32, Vec<u8>>, Vec<u8>);

/// As a server.
fn serve(bytes: &[u8], cut: usize) -> Outcome {
    let mut out = Vec::new();
    let connection = Connection::<u32>::new(GRANTED, &mut out);
    run(connection, Draft::default(), out, bytes, cut)
}

/// As a client that has asked for as much as it may.
fn ask(bytes: &[u8], cut: usize) -> Outcome {
    let mut out = Vec::new();
    let mut connection = Connection::<u32>::client(GRANTED, &mut out);
    let mut scratch = Vec::new();
    for stream in (1..2 * GRANTED.streams).step_by(2) {
        let ends = stream % 4 == 1;
        let begun = connection.begin(stream, ends, &mut scratch, &mut out, |encoder, block| {
            encoder.field(b":method", b"GET", block);
        });
        assert_eq!(begun, Ok(stream));
    }
    let out = out.split_off(PREFACE.len());
    run(connection, Draft::of_answers(), out, bytes, cut)
}

fn run(
    mut connection: Connection<u32>,
    mut draft: Draft,
    mut out: Vec<u8>,
    bytes: &[u8],
    cut: usize,
) -> Outcome {
    let (mut events, mut bodies) = (Vec::new(), BTreeMap::<u32, Vec<u8>>::new());
    let mut input = Vec::new();
    'all: for piece in bytes.chunks(cut) {
        input.extend_from_slice(piece);
        let mut used = 0;
        loop {
            let next = connection.next(&input, &mut used, Duration::ZERO, &mut draft, &mut out);
            match next {
                Ok(None) => break,
                Ok(Some(Event::Request { stream, ends })) => {
                    connection.attach(stream, stream);
                    events.push(format!("request {stream} {ends} {}", request(&draft)));
                    if stream % 4 == 1 {
                        answer(&mut connection, stream, &mut out);
                    }
                }
                Ok(Some(Event::Data {
                    stream,
                    range,
                    ends,
                })) => {
                    connection.release(stream, range.len(), &mut out);
                    bodies
                        .entry(stream)
                        .or_default()
                        .extend_from_slice(&input[range]);
                    if ends {
                        events.push(format!("end {stream}"));
                    }
                }
                Ok(Some(Event::Answer { stream, ends })) => {
                    let head = draft.answer();
                    assert!(head.is_none_or(|(head, _)| (100..1000).contains(&head.status)));
                    events.push(format!("answer {stream} {ends} {:?}", draft.answer()));
                    if stream % 8 == 5 {
                        connection.finish(stream, Reason::Cancel, &mut out);
                    }
                }
                Ok(Some(Event::GoAway { last, code })) => {
                    events.push(format!("left {last} {code}"));
                    while let Some(stream) = connection.take_unprocessed(last) {
                        assert!(stream > last);
                        events.push(format!("unprocessed {stream}"));
                    }
                    assert!(!connection.takes_streams());
                }
                Ok(Some(Event::Trailers { stream, fields })) => {
                    let fields: Vec<_> = fields.iter().collect();
                    events.push(format!("end {stream} {fields:?}"));
                }
                Ok(Some(other)) => events.push(format!("{other:?}")),
                Err(broken) => {
                    events.push(broken.to_string());
                    connection.go_away(broken.reason, &mut out);
                    break 'all;
                }
            }
        }
        input.drain(..used);
        assert!(input.len() < HEADER + MAX_PAYLOAD);
        assert!(connection.streams() <= GRANTED.streams as usize);
    }
    (events, bodies, without_windows(&out))
}

fn answer(connection: &mut Connection<u32>, stream: u32, out: &mut Vec<u8>) {
    let mut scratch = Vec::new();
    let sent = connection.send_fields(stream, false, &mut scratch, out, |encoder, block| {
        encoder.status(200, block);
        encoder.field(b"server", b"ringwall", block);
    });
    sent.expect("it has just begun");
    let room = connection.room(stream).expect("it goes on");
    let length = room.stream.min(room.connection).min(100);
    let head = connection.send_data(stream, length, true);
    out.extend_from_slice(&head.expect("there is room"));
    out.extend(std::iter::repeat_n(b'x', length));
}

/// What is sent is made of whole frames.
fn without_windows(mut out: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    while !out.is_empty() {
        let head = Head::parse(out).expect("a whole header");
        let (frame, behind) = out.split_at(HEADER + head.length);
        if head.kind != kind::WINDOW_UPDATE {
            rest.extend_from_slice(frame);
        }
        out = behind;
    }
    rest
}

fn request(draft: &Draft) -> String {
    let mut out = vec![0; draft.room()];
    let mut head = RequestHead::default();
    let length = match lay(draft, b"a2V5", &LIMITS, &mut out, &mut head) {
        Ok(length) => length,
        Err(error) => return error.to_string(),
    };
    let mut text = out[..length].to_vec();
    let version = head.line.end as usize - "2.0".len();
    text[version..version + 3].copy_from_slice(b"1.1");
    let limits = HeadLimits {
        line: 4096,
        total: 65536,
        fields: 64,
    };
    let mut parsed = RequestHead::default();
    let shown = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(
        parse_request(&text, &limits, &mut parsed),
        Ok(Status::Complete),
        "{shown}"
    );
    assert_eq!(parsed.len, length);
    assert_eq!(parsed.fields, head.fields);
    assert_eq!(
        (parsed.method, parsed.path, parsed.query),
        (head.method, head.path, head.query)
    );
    assert_eq!(parsed.host(&text), head.host(&out));
    shown
}
