//! Frame by frame: what each rule of RFC 9113 makes of what a server sends.

use super::super::frame::frame;
use super::ends::{End, Seen, block, settings, trailers};
use super::*;

const LIMITS: Limits = Limits {
    streams: 0,
    window: 70_000,
    connection_window: 280_000,
    list: 4096,
};
const PUSH_PROMISE: u8 = 5;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// END_HEADERS alone, and with END_STREAM.
const OPEN: u8 = flag::END_HEADERS;
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, &block(fields))
}

fn ok(stream: u32, flags: u8) -> Vec<u8> {
    head(stream, flags, &[(":status", "200")])
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    frame(kind::GOAWAY, 0, 0, &payload)
}

impl End {
    /// A client with so many requests under way, without bodies.
    fn asking(count: u32) -> Self {
        let mut client = Self::client(LIMITS);
        let acknowledged = frame(kind::SETTINGS, flag::ACK, 0, &[]);
        client.see(&[settings(&[]), acknowledged].concat()).unwrap();
        for number in 0..count {
            assert_eq!(client.begin(true), Ok(2 * number + 1));
        }
        client.out.clear();
        client
    }

    fn begin(&mut self, ends: bool) -> Result<u32, Gone> {
        let own = (self.core.streams.highest() + 1) | 1;
        let mut scratch = Vec::new();
        let out = &mut self.out;
        self.core
            .begin(own, ends, &mut scratch, out, |encoder, block| {
                encoder.field(b":method", b"GET", block);
            })
    }
}

#[test]
fn a_client_says_hello_and_takes_no_pushes() {
    let client = End::client(LIMITS);
    let hello = client.out.strip_prefix(PREFACE).unwrap();
    let said = settings(&[(2, 0), (4, LIMITS.window), (6, LIMITS.list)]);
    let widened = LIMITS.connection_window - DEFAULT_WINDOW;
    let widened = frame(kind::WINDOW_UPDATE, 0, 0, &widened.to_be_bytes());
    assert_eq!(hello, [said, widened].concat());
    let first = End::client(LIMITS).see(&ok(1, WHOLE)).unwrap_err();
    assert_eq!(first.reason, Reason::ProtocolError);
}

#[test]
fn an_answer_comes_by_its_parts_and_its_stream_is_then_forgotten() {
    let mut client = End::asking(1);
    let hints = [(":status", "103"), ("link", "</a>")];
    let bytes = [
        head(1, OPEN, &hints),
        ok(1, OPEN),
        data(1, 0, b"abc"),
        head(1, WHOLE, &[("grpc-status", "0")]),
    ];
    assert_eq!(
        client.see(&bytes.concat()).unwrap(),
        [
            Seen::Answer(1, 103, false),
            Seen::Answer(1, 200, false),
            Seen::Data(1, b"abc".to_vec(), false),
            Seen::Trailers(1, trailers(&[("grpc-status", "0")])),
        ]
    );
    assert_eq!(client.core.streams(), 0);
    // Nothing is left to be reset.
    client
        .core
        .finish(1, Reason::InternalError, &mut client.out);
    assert!(client.sent().is_empty());
}

#[test]
fn what_is_given_up_is_cancelled_and_what_was_on_its_way_costs_nothing() {
    let mut client = End::asking(300);
    for stream in (1..600).step_by(2) {
        client
            .core
            .finish(stream, Reason::InternalError, &mut client.out);
    }
    let code = (Reason::Cancel as u32).to_be_bytes();
    let sent = client.sent();
    let is_reset =
        |(head, payload): &(Head, Vec<u8>)| head.kind == kind::RST_STREAM && payload[..] == code;
    assert!(sent.len() == 300 && sent.iter().all(is_reset), "{sent:?}");
    // Also for those that are no longer remembered.
    for stream in (1..600).step_by(2) {
        assert_eq!(client.see(&ok(stream, OPEN)).unwrap(), []);
        for _ in 0..10 {
            assert_eq!(client.see(&data(stream, 0, &[0; 1000])).unwrap(), []);
        }
        // The reset has crossed ours, or an end.
        let last = if stream % 4 == 1 {
            reset(stream, 8)
        } else {
            data(stream, 1, b"")
        };
        assert_eq!(client.see(&last).unwrap(), []);
    }
    // The connection's window is granted anew, though nobody takes the bytes.
    assert!(
        client
            .sent()
            .iter()
            .any(|(head, _)| (head.kind, head.stream) == (kind::WINDOW_UPDATE, 0))
    );
    // Its fields were read: the tables are in step.
    assert_eq!(client.begin(true), Ok(601));
    let known = frame(kind::HEADERS, WHOLE, 601, &[0x88]);
    assert_eq!(client.see(&known).unwrap(), [Seen::Answer(601, 200, true)]);
    // All that is granted for frames in vain is still there, but for SETTINGS.
    for _ in 0..998 {
        client.see(&frame(kind::PRIORITY, 0, 1, &[0; 5])).unwrap();
    }
}

#[test]
fn a_server_that_goes_on_with_what_was_given_up_ends_its_connection() {
    let window = LIMITS.window as usize;
    // What one stream is granted, and what all are, of which SETTINGS took two.
    let frames = 4 + 1000 - 2;
    for (what, answered, bytes, most) in [
        ("a body", OPEN, data(1, 0, &[0; 1000]), window / 1000),
        ("a body behind its end", WHOLE, data(1, 0, b"a"), 0),
        ("ends", OPEN, data(1, flag::END_STREAM, b""), frames),
        ("heads", OPEN, ok(1, OPEN), frames),
        ("resets", OPEN, reset(1, 0), frames),
    ] {
        let mut client = End::asking(0);
        assert_eq!(client.begin(false), Ok(1));
        client.see(&ok(1, answered)).unwrap();
        client
            .core
            .finish(1, Reason::InternalError, &mut client.out);
        let count = (0..most + 1)
            .take_while(|_| client.see(&bytes).is_ok())
            .count();
        assert_eq!(count, most, "{what}");
        let broken = client.see(&bytes).unwrap_err();
        assert_eq!(broken.reason, Reason::EnhanceYourCalm, "{what}");
    }
}

#[test]
fn a_server_takes_as_many_streams_as_it_says() {
    let mut client = End::client(LIMITS);
    assert_eq!(client.core.most_streams(), None);
    assert_eq!(client.begin(true), Ok(1));
    client
        .see(&settings(&[(MAX_CONCURRENT_STREAMS, 2)]))
        .unwrap();
    assert_eq!(client.core.most_streams(), Some(2));
    assert_eq!(client.begin(true), Ok(3));
    assert_eq!(client.begin(true), Err(Gone));
    client.see(&ok(1, WHOLE)).unwrap();
    assert_eq!(client.begin(true), Ok(5));
    assert_eq!(client.core.streams(), 2);
}

#[test]
fn a_goodbye_lets_what_it_counts_go_on_and_gives_back_the_rest() {
    let mut client = End::asking(3);
    assert_eq!(
        client.see(&go_away(3, 2)).unwrap(),
        [Seen::GoAway(3, 2), Seen::Gone(5, Why::Unprocessed(2))]
    );
    assert!(!client.core.takes_streams());
    assert_eq!(client.begin(true), Err(Gone));
    assert_eq!(
        client.see(&[ok(1, WHOLE), ok(3, WHOLE)].concat()).unwrap(),
        [Seen::Answer(1, 200, true), Seen::Answer(3, 200, true)]
    );
    // What has become certain later.
    let mut client = End::asking(2);
    client.see(&go_away(ANY_STREAM, 0)).unwrap();
    let gone = Seen::Gone(1, Why::Unprocessed(0));
    let gone = [Seen::GoAway(0, 0), Seen::Gone(3, Why::Unprocessed(0)), gone];
    assert_eq!(client.see(&go_away(0, 0)).unwrap(), gone);
}

#[test]
fn a_reset_says_why() {
    let mut client = End::asking(2);
    assert_eq!(
        client.see(&reset(1, 7)).unwrap(),
        [Seen::Gone(1, Why::Reset(7))]
    );
    assert_eq!(client.core.room(1), Err(Gone));
    assert_eq!(client.see(&ok(3, WHOLE)).unwrap().len(), 1);
}

#[test]
fn what_breaks_a_streams_rules_ends_it_and_spares_its_neighbours() {
    use Reason::{FlowControlError as Flow, ProtocolError as Protocol};
    let long = vec![0; 16_384];
    let flood: Vec<_> = (0..5).flat_map(|_| data(3, 0, &long)).collect();
    for (what, bytes, reason) in [
        ("no status", head(3, OPEN, &[("a", "b")]), Protocol),
        ("no number", head(3, OPEN, &[(":status", "2oo")]), Protocol),
        (
            "a small number",
            head(3, OPEN, &[(":status", "099")]),
            Protocol,
        ),
        (
            "four digits",
            head(3, OPEN, &[(":status", "2000")]),
            Protocol,
        ),
        (
            "two statuses",
            head(3, OPEN, &[(":status", "200"), (":status", "200")]),
            Protocol,
        ),
        (
            "a late status",
            head(3, OPEN, &[("a", "b"), (":status", "200")]),
            Protocol,
        ),
        (
            "a request's field",
            head(3, OPEN, &[(":status", "200"), (":path", "/")]),
            Protocol,
        ),
        (
            "connection",
            head(3, OPEN, &[(":status", "200"), ("connection", "close")]),
            Protocol,
        ),
        (
            "upper case",
            head(3, OPEN, &[(":status", "200"), ("A", "b")]),
            Protocol,
        ),
        (
            "a line end",
            head(3, OPEN, &[(":status", "200"), ("a", "b\nc")]),
            Protocol,
        ),
        (
            "an interim answer as the last",
            head(3, WHOLE, &[(":status", "103")]),
            Protocol,
        ),
        ("a body before its head", data(3, 0, b"a"), Protocol),
        (
            "a body behind an interim answer",
            [head(3, OPEN, &[(":status", "100")]), data(3, 0, b"a")].concat(),
            Protocol,
        ),
        (
            "a second head",
            [ok(3, OPEN), ok(3, OPEN)].concat(),
            Protocol,
        ),
        (
            "trailers that do not end it",
            [ok(3, OPEN), head(3, OPEN, &[("a", "b")])].concat(),
            Protocol,
        ),
        ("more than its window", [ok(3, OPEN), flood].concat(), Flow),
        (
            "a window that grows by nothing",
            frame(kind::WINDOW_UPDATE, 0, 3, &[0; 4]),
            Protocol,
        ),
    ] {
        let mut client = End::asking(3);
        let seen = client.see(&bytes).unwrap();
        assert_eq!(
            seen.last(),
            Some(&Seen::Gone(3, Why::Broken(reason))),
            "{what}: {seen:?}"
        );
        client.assert_reset(3, reason, what);
        let other = client.see(&ok(1, WHOLE)).unwrap();
        assert_eq!(other, [Seen::Answer(1, 200, true)], "{what}");
    }
}

#[test]
fn what_breaks_the_connections_rules_ends_it() {
    use Reason::{FlowControlError as Flow, FrameSizeError as Size, ProtocolError as Protocol};
    let long = vec![0; 16_384];
    let mut over: Vec<u8> = Vec::new();
    for stream in [1, 3, 5, 7, 9] {
        over.extend(ok(stream, OPEN));
        over.extend((0..4).flat_map(|_| data(stream, 0, &long)));
    }
    for (what, bytes, reason) in [
        (
            "a push",
            frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x88]),
            Protocol,
        ),
        ("an answer to nothing", ok(99, WHOLE), Protocol),
        ("a stream of its own", ok(2, WHOLE), Protocol),
        ("a body of nothing", data(99, 0, b"a"), Protocol),
        ("a reset of nothing", reset(99, 0), Protocol),
        (
            "a window for nothing",
            frame(kind::WINDOW_UPDATE, 0, 99, &[0, 0, 0, 1]),
            Protocol,
        ),
        (
            "fields that cannot be read",
            frame(kind::HEADERS, OPEN, 1, &[0xff; 9]),
            Reason::CompressionError,
        ),
        (
            "fields among others",
            [frame(kind::HEADERS, 0, 1, &[0x88]), ok(3, OPEN)].concat(),
            Protocol,
        ),
        ("a short goodbye", frame(kind::GOAWAY, 0, 0, &[0; 7]), Size),
        (
            "a window beyond all bounds",
            settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
            Flow,
        ),
        ("more than the connection's window", over, Flow),
    ] {
        let mut client = End::asking(5);
        let broken = client.see(&bytes).unwrap_err();
        assert_eq!(broken.reason, reason, "{what}: {broken}");
    }
}

#[test]
fn floods_from_a_server_end_its_connection() {
    let mut data_on_open = ok(1, OPEN);
    data_on_open.extend(data(1, 0, b""));
    for (what, first, bytes) in [
        ("PING", vec![], frame(kind::PING, 0, 0, &[0; 8])),
        ("SETTINGS", vec![], settings(&[])),
        ("PRIORITY", vec![], frame(kind::PRIORITY, 0, 1, &[0; 5])),
        ("unknown frames", vec![], frame(0x42, 0, 0, b"")),
        ("empty DATA", data_on_open, data(1, 0, b"")),
        ("resets of what is over", reset(1, 0), reset(1, 0)),
        (
            "windows",
            vec![],
            frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        ),
        (
            "empty fields",
            frame(kind::HEADERS, 0, 1, b""),
            frame(kind::CONTINUATION, 0, 1, b""),
        ),
    ] {
        let mut client = End::asking(2);
        client.see(&first).unwrap();
        let mut sent = 0;
        let broken = loop {
            match client.see(&bytes) {
                Ok(_) if sent < 2000 => sent += 1,
                Ok(_) => panic!("{what}: no end"),
                Err(broken) => break broken,
            }
        };
        assert_eq!(broken.reason, Reason::EnhanceYourCalm, "{what}");
    }
    // Who is asked may refuse, or answer wrongly, however often.
    let mut client = End::asking(0);
    for _ in 0..10_000 {
        let stream = client.begin(true).unwrap();
        client.see(&reset(stream, 7)).unwrap();
        let stream = client.begin(true).unwrap();
        let broken = Seen::Gone(stream, Why::Broken(Reason::ProtocolError));
        let wrong = head(stream, WHOLE, &[("a", "b")]);
        assert_eq!(client.see(&wrong).unwrap(), [broken]);
    }
}

#[test]
fn fields_of_an_answer_are_bounded() {
    let long = "x".repeat(100);
    let mut fields = vec![(":status", "200")];
    fields.extend(vec![("a", &*long); LIMITS.list as usize / 132]);
    let mut client = End::asking(2);
    let seen = client.see(&head(1, OPEN, &fields)).unwrap();
    assert_eq!(seen, [Seen::Answer(1, 0, false)]);
    let begun = frame(kind::HEADERS, 0, 3, &[0; 4000]);
    client.see(&begun).unwrap();
    let more = frame(kind::CONTINUATION, 0, 3, &[0; 100]);
    let broken = client.see(&more).unwrap_err();
    assert_eq!(broken.reason, Reason::EnhanceYourCalm);
}

#[test]
fn a_body_is_sent_within_the_servers_windows_and_granted_anew_as_it_is_taken() {
    let mut client = End::client(LIMITS);
    client.see(&settings(&[(INITIAL_WINDOW_SIZE, 10)])).unwrap();
    assert_eq!(client.begin(false), Ok(1));
    assert_eq!(client.core.room(1).map(|room| room.stream), Ok(10));
    assert!(client.core.send_data(1, 10, false).is_ok());
    assert_eq!(client.core.send_data(1, 1, false), Err(Gone));
    let wider = settings(&[(INITIAL_WINDOW_SIZE, 30)]);
    assert_eq!(client.see(&wider).unwrap(), [Seen::RoomForAll]);
    assert_eq!(client.core.room(1).map(|room| room.stream), Ok(20));
    assert!(client.core.send_data(1, 20, true).is_ok());
    assert_eq!(client.core.room(1), Err(Gone));
    client.out.clear();
    let part = data(1, 0, &[0; 16_000]);
    let bytes = [ok(1, OPEN), part.clone(), part.clone(), part].concat();
    client.see(&bytes).unwrap();
    client.core.release(1, 48_000, &mut client.out);
    let sent = client.sent();
    let (head, payload) = &sent[0];
    assert_eq!((head.kind, head.stream), (kind::WINDOW_UPDATE, 1));
    assert_eq!((sent.len(), word(payload)), (1, 48_000));
}
