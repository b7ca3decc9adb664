//! Frame by frame: what each rule of RFC 9113 makes of what a client sends.

use proptest::prelude::*;

use super::super::flow::MAX_WINDOW;
use super::super::frame::{MAX_PAYLOAD, frame};
use super::ends::{End, Seen, block, settings, trailers};
use super::*;
use crate::http::error::HeadError;

const LIMITS: Limits = Limits {
    streams: 4,
    window: 70_000,
    connection_window: 280_000,
    list: 4096,
};

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "a.test"),
    (":path", "/"),
];

fn get(stream: u32, more: u8) -> Vec<u8> {
    frame(
        kind::HEADERS,
        flag::END_HEADERS | more,
        stream,
        &block(&GET),
    )
}

impl End {
    /// A server behind preface and settings.
    fn greeted() -> Self {
        let mut server = Self::server(LIMITS);
        server.see(&[PREFACE, &settings(&[])[..]].concat()).unwrap();
        server
            .see(&frame(kind::SETTINGS, flag::ACK, 0, &[]))
            .unwrap();
        server.out.clear();
        server
    }

    fn respond(&mut self, stream: u32, ends: bool) -> Result<(), Gone> {
        let mut scratch = Vec::new();
        let out = &mut self.out;
        self.core
            .send_fields(stream, ends, &mut scratch, out, |encoder, block| {
                encoder.status(200, block);
            })
    }
}

fn reason(seen: Result<Vec<Seen>, Broken>) -> Reason {
    seen.expect_err("it goes on").reason
}

#[test]
fn a_connection_begins_with_preface_and_settings_however_they_are_cut() {
    let bytes = [PREFACE, &settings(&[])[..], &get(1, 1)].concat();
    let mut server = End::server(LIMITS);
    let ours = server.sent();
    assert_eq!(ours[0].0.kind, kind::SETTINGS);
    assert_eq!(ours[1].0.kind, kind::WINDOW_UPDATE);
    assert_eq!(word(&ours[1].1), LIMITS.connection_window - DEFAULT_WINDOW);
    let (mut start, mut seen) = (0, Vec::new());
    for end in 0..=bytes.len() {
        let (more, used) = server.see_some(&bytes[start..end]).unwrap();
        seen.extend(more);
        start += used;
    }
    assert_eq!(seen, [Seen::RoomForAll, Seen::Request(1, true)]);
    assert_eq!(server.sent()[0].0.flags, flag::ACK);
    for wrong in [
        &b"PRI * HTTP/2.0\r\n\r\nXX"[..],
        b"GET / HTTP/1.1\r\n",
        &[PREFACE, &frame(kind::PING, 0, 0, &[0; 8])[..]].concat(),
        &[PREFACE, &frame(kind::SETTINGS, flag::ACK, 0, &[])[..]].concat(),
    ] {
        assert_eq!(
            reason(End::server(LIMITS).see(wrong)),
            Reason::ProtocolError
        );
    }
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    use Reason::{
        CompressionError as Compression, FlowControlError as Flow, FrameSizeError as Size,
        ProtocolError as Protocol, StreamClosed as Closed,
    };
    let fields = frame(kind::HEADERS, 0, 1, &block(&GET));
    for (what, bytes, expected) in [
        (
            "DATA on an idle stream",
            frame(kind::DATA, 0, 9, b"a"),
            Protocol,
        ),
        (
            "DATA on a server's stream",
            frame(kind::DATA, 0, 2, b"a"),
            Protocol,
        ),
        ("a request on a server's", get(2, 1), Protocol),
        (
            "a reset of nothing",
            frame(kind::RST_STREAM, 0, 1, &[0; 4]),
            Protocol,
        ),
        (
            "a window for nothing",
            frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            Protocol,
        ),
        (
            "a window of nothing",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
            Protocol,
        ),
        (
            "a connection's window that overflows",
            frame(kind::WINDOW_UPDATE, 0, 0, &MAX_WINDOW.to_be_bytes()),
            Flow,
        ),
        ("a setting out of range", settings(&[(4, 1 << 31)]), Flow),
        (
            "a CONTINUATION of nothing",
            frame(kind::CONTINUATION, 4, 1, b""),
            Protocol,
        ),
        (
            "another frame among fields",
            [&fields[..], &frame(kind::PING, 0, 0, &[0; 8])].concat(),
            Protocol,
        ),
        (
            "another stream's fields among them",
            [&fields[..], &frame(kind::CONTINUATION, 4, 3, b"")].concat(),
            Protocol,
        ),
        (
            "an unknown frame among fields",
            [&fields[..], &frame(0xbb, 0, 0, b"")].concat(),
            Protocol,
        ),
        (
            "padding beyond the frame",
            frame(kind::HEADERS, 0xd, 1, b"\x09a"),
            Protocol,
        ),
        (
            "DATA of padding beyond the frame",
            [get(1, 0), frame(kind::DATA, flag::PADDED, 1, b"\x02a")].concat(),
            Protocol,
        ),
        (
            "padding without a length",
            frame(kind::DATA, flag::PADDED, 1, b""),
            Size,
        ),
        (
            "no HPACK",
            frame(kind::HEADERS, 5, 1, &[0xff; 9]),
            Compression,
        ),
        (
            "no HPACK, refused",
            {
                let five = (0..5).flat_map(|n| get(2 * n + 1, 1));
                let wrong = frame(kind::HEADERS, 5, 11, &[0xff; 9]);
                five.chain(wrong).collect()
            },
            Compression,
        ),
        (
            "fields on a closed stream",
            [get(3, 1), get(1, 1)].concat(),
            Closed,
        ),
        (
            "a frame of a wrong size",
            frame(kind::PING, 0, 0, &[0; 7]),
            Size,
        ),
        ("a push", frame(kind::PUSH_PROMISE, 4, 1, &[0; 8]), Protocol),
    ] {
        assert_eq!(reason(End::greeted().see(&bytes)), expected, "{what}");
    }
}

#[test]
fn what_breaks_a_streams_rules_resets_it_and_spares_its_neighbours() {
    use Reason::{
        FlowControlError as Flow, FrameSizeError as Size, ProtocolError as Protocol,
        StreamClosed as Closed,
    };
    let trailers = |fields: &[(&str, &str)], flags| {
        frame(kind::HEADERS, flag::END_HEADERS | flags, 3, &block(fields))
    };
    let overflow = MAX_WINDOW.to_be_bytes();
    for (what, ended, bytes, reason) in [
        (
            "a window that overflows",
            1,
            frame(kind::WINDOW_UPDATE, 0, 3, &overflow),
            Flow,
        ),
        (
            "a window of nothing",
            1,
            frame(kind::WINDOW_UPDATE, 0, 3, &[0; 4]),
            Protocol,
        ),
        (
            "DATA behind its end",
            1,
            frame(kind::DATA, 0, 3, b"a"),
            Closed,
        ),
        (
            "trailers behind its end",
            1,
            trailers(&[("a", "b")], 1),
            Closed,
        ),
        (
            "trailers that do not end it",
            0,
            trailers(&[("a", "b")], 0),
            Protocol,
        ),
        (
            "a pseudo-field in trailers",
            0,
            trailers(&[(":path", "/")], 1),
            Protocol,
        ),
        (
            "an upper-case trailer",
            0,
            trailers(&[("A", "b")], 1),
            Protocol,
        ),
        (
            "a PRIORITY of four bytes",
            0,
            frame(kind::PRIORITY, 0, 3, &[0; 4]),
            Size,
        ),
    ] {
        let mut server = End::greeted();
        server.see(&[get(1, 0), get(3, ended)].concat()).unwrap();
        let gone = Seen::Gone(3, Why::Broken(reason));
        assert_eq!(server.see(&bytes).unwrap(), [gone], "{what}");
        server.assert_reset(3, reason, what);
        let data = server.see(&frame(kind::DATA, 1, 1, b"a")).unwrap();
        assert_eq!(data, [Seen::Data(1, b"a".to_vec(), true)], "{what}");
    }
    let malformed = [(":method", "GET"), ("A", "b")];
    let bytes = frame(kind::HEADERS, 5, 1, &block(&malformed));
    let mut server = End::greeted();
    assert_eq!(server.see(&bytes).unwrap(), [Seen::Malformed]);
    assert_eq!(server.draft.fault(), Some(HeadError::InvalidFieldName));
    server.assert_reset(1, Protocol, "malformed");
    assert_eq!(server.core.streams(), 0);
}

#[test]
fn a_body_is_handed_on_as_it_comes_without_its_padding() {
    let mut server = End::greeted();
    let padded = frame(
        kind::DATA,
        flag::PADDED | flag::END_STREAM,
        1,
        b"\x03abcde...",
    );
    let bytes = [get(1, 0), frame(kind::DATA, 0, 1, b"hello"), padded].concat();
    let (mut start, mut body, mut ended) = (0, Vec::new(), 0);
    for end in 0..=bytes.len() {
        let (seen, used) = server.see_some(&bytes[start..end]).unwrap();
        start += used;
        for seen in seen {
            if let Seen::Data(1, bytes, ends) = seen {
                body.extend(bytes);
                ended += u32::from(ends);
            }
        }
    }
    assert_eq!(
        (&body[..], ended, start),
        (&b"helloabcde"[..], 1, bytes.len())
    );
    assert_eq!(server.core.streams(), 1);
    assert!(!server.core.expects_data());
    server.respond(1, true).unwrap();
    assert_eq!(server.core.streams(), 0);
}

#[test]
fn an_announced_length_is_held_to() {
    for (what, length, frames, is_kept) in [
        ("as announced", 5, vec![(1, &b"abcde"[..])], true),
        ("in two parts", 5, vec![(0, b"abc"), (1, b"de")], true),
        ("too short", 5, vec![(1, b"abc")], false),
        ("too long", 5, vec![(0, b"abcdef")], false),
        ("too long at last", 5, vec![(0, b"abc"), (1, b"def")], false),
        ("none and some", 0, vec![(1, b"a")], false),
    ] {
        let mut server = End::greeted();
        server.see(&get(1, 0)).unwrap();
        assert!(server.core.expect(1, length));
        let mut seen = Vec::new();
        for (flags, payload) in frames {
            seen.extend(server.see(&frame(kind::DATA, flags, 1, payload)).unwrap());
        }
        let gone = Seen::Gone(1, Why::Broken(Reason::ProtocolError));
        assert_eq!(seen.contains(&gone), !is_kept, "{what}");
        if !is_kept {
            server.assert_reset(1, Reason::ProtocolError, what);
        }
    }
    // Trailers end it as well, and no body at all is too short.
    let mut server = End::greeted();
    server.see(&get(1, 0)).unwrap();
    assert!(server.core.expect(1, 5));
    let trailers = frame(kind::HEADERS, 5, 1, &block(&[("a", "b")]));
    let gone = Seen::Gone(1, Why::Broken(Reason::ProtocolError));
    assert_eq!(server.see(&trailers).unwrap(), [gone]);
    server.see(&get(3, 1)).unwrap();
    assert!(!server.core.expect(3, 5));
}

#[test]
fn trailers_come_with_the_end_of_their_body_and_within_bounds() {
    let mut server = End::greeted();
    server.see(&get(1, 0)).unwrap();
    server.see(&frame(kind::DATA, 0, 1, b"abc")).unwrap();
    let said = [("x-sum", "1"), ("x-time", "2")];
    let fields = frame(kind::HEADERS, 5, 1, &block(&said));
    let expected = Seen::Trailers(1, trailers(&said));
    assert_eq!(server.see(&fields).unwrap(), [expected]);
    server.respond(1, true).unwrap();
    assert_eq!(server.core.streams(), 0);
    server.sent();
    server.see(&get(3, 0)).unwrap();
    let long = "x".repeat(100);
    let many = vec![("a", &*long); LIMITS.list as usize / 132];
    let fields = frame(kind::HEADERS, 5, 3, &block(&many));
    let gone = Seen::Gone(3, Why::Broken(Reason::EnhanceYourCalm));
    assert_eq!(server.see(&fields).unwrap(), [gone]);
    server.assert_reset(3, Reason::EnhanceYourCalm, "too many");
}

#[test]
fn fields_in_several_frames_are_put_together_within_bounds() {
    let fields = block(&GET);
    let mut bytes = frame(kind::HEADERS, flag::END_STREAM, 1, &fields[..9]);
    bytes.extend(frame(kind::CONTINUATION, 0, 1, &fields[9..20]));
    let mut server = End::greeted();
    assert_eq!(server.see(&bytes).unwrap(), []);
    assert!(server.core.is_in_fields());
    let last = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &fields[20..]);
    assert_eq!(server.see_some(&last[..9]).unwrap().0, []);
    assert!(server.core.is_in_fields());
    assert_eq!(server.see(&last).unwrap(), [Seen::Request(1, true)]);
    assert!(!server.core.is_in_fields());
    // More than the list may be long.
    let mut server = End::greeted();
    server.see(&frame(kind::HEADERS, 0, 1, &fields)).unwrap();
    let more = frame(kind::CONTINUATION, 0, 1, &[0; 1000]);
    let end = (0..9)
        .find_map(|_| server.see(&more).err())
        .expect("bounds");
    assert_eq!(end.reason, Reason::EnhanceYourCalm);
}

#[test]
fn a_list_that_is_too_large_is_a_request_to_be_refused() {
    let value = "x".repeat(100);
    let mut fields = GET.to_vec();
    fields.extend([("a", &*value); 40]);
    let mut server = End::greeted();
    let bytes = frame(kind::HEADERS, 5, 1, &block(&fields));
    assert_eq!(server.see(&bytes).unwrap(), [Seen::Request(1, true)]);
    let limits = crate::http::h1::parse::HeadLimits {
        line: 1000,
        total: 100_000,
        fields: 100,
    };
    let mut out = vec![0; server.draft.room()];
    let mut head = crate::http::head::RequestHead::default();
    let laid = super::super::fields::lay(&server.draft, b"", &limits, &mut out, &mut head);
    assert_eq!(laid, Err(crate::http::error::HeadError::HeadTooLarge));
}

#[test]
fn more_streams_than_are_granted_are_refused_and_their_fields_still_read() {
    let mut server = End::greeted();
    let open: Vec<u8> = (0..4).flat_map(|n| get(2 * n + 1, 1)).collect();
    assert_eq!(server.see(&open).unwrap().len(), 4);
    // A field that goes into the table, on a stream that is refused.
    let mut fields = block(&GET);
    fields.extend(b"\x40\x01a\x01b");
    assert_eq!(
        server.see(&frame(kind::HEADERS, 5, 9, &fields)).unwrap(),
        []
    );
    server.assert_reset(9, Reason::RefusedStream, "the fifth");
    server.respond(1, true).unwrap();
    // 62 is what that field is called from then on.
    let mut fields = block(&GET);
    fields.push(0xbe);
    let seen = server.see(&frame(kind::HEADERS, 5, 11, &fields)).unwrap();
    assert_eq!(seen, [Seen::Request(11, true)]);
    // What was on its way to a stream that was refused does no harm.
    server.out.clear();
    assert_eq!(server.see(&frame(kind::DATA, 0, 9, b"abc")).unwrap(), []);
    assert_eq!(server.see(&get(9, 1)).unwrap(), []);
    assert!(server.sent().is_empty());
}

#[test]
fn a_window_is_granted_anew_when_half_of_it_has_been_taken() {
    let mut server = End::greeted();
    server.see(&get(1, 0)).unwrap();
    let full = frame(kind::DATA, 0, 1, &[0; MAX_PAYLOAD]);
    for _ in 0..4 {
        assert_eq!(server.see(&full).unwrap().len(), 1);
    }
    server.core.release(1, 34_999, &mut server.out);
    assert!(server.sent().is_empty());
    server.core.release(1, 1, &mut server.out);
    let sent = server.sent();
    assert_eq!(
        (sent.len(), sent[0].0.stream, word(&sent[0].1)),
        (1, 1, 35_000)
    );
    for _ in 0..2 {
        assert_eq!(server.see(&full).unwrap().len(), 1);
    }
    let gone = Seen::Gone(1, Why::Broken(Reason::FlowControlError));
    assert_eq!(server.see(&full).unwrap(), [gone]);
    server.assert_reset(1, Reason::FlowControlError, "more than granted");
}

#[test]
fn no_stream_may_use_more_than_the_connections_window() {
    let mut server = End::server(LIMITS);
    server.core.receive = Grant::new(20_000);
    server
        .see(&[PREFACE, &settings(&[])[..], &get(1, 0)].concat())
        .unwrap();
    server
        .see(&frame(kind::DATA, 0, 1, &[0; MAX_PAYLOAD]))
        .unwrap();
    let over = server.see(&frame(kind::DATA, 0, 1, &[0; MAX_PAYLOAD]));
    assert_eq!(reason(over), Reason::FlowControlError);
}

#[test]
fn what_may_be_sent_follows_windows_and_settings() {
    let mut server = End::greeted();
    server.see(&get(1, 1)).unwrap();
    server.respond(1, false).unwrap();
    let room = |server: &End| {
        let room = server.core.room(1).unwrap();
        (room.stream, room.connection)
    };
    assert_eq!(room(&server), (65_535, 65_535));
    server.core.send_data(1, 60_000, false).unwrap();
    assert_eq!(room(&server), (5535, 5535));
    assert_eq!(server.core.send_data(1, 5536, false), Err(Gone));
    // Below zero, and back (RFC 9113 §6.9.2).
    assert_eq!(
        server.see(&settings(&[(4, 100)])).unwrap(),
        [Seen::RoomForAll]
    );
    assert_eq!(room(&server), (0, 5535));
    let widen = frame(kind::WINDOW_UPDATE, 0, 1, &60_000_u32.to_be_bytes());
    assert_eq!(server.see(&widen).unwrap(), [Seen::Room(1)]);
    assert_eq!(room(&server), (100, 5535));
    let widen = frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    assert_eq!(server.see(&widen).unwrap(), [Seen::RoomOnConnection]);
    let last = server.core.send_data(1, 100, true).unwrap();
    assert_eq!(Head::parse(&last).unwrap().flags, flag::END_STREAM);
    assert_eq!(server.core.room(1), Err(Gone));
    assert_eq!(server.respond(1, false), Err(Gone));
}

#[test]
fn a_setting_of_ours_counts_when_the_client_knows_it() {
    let limits = Limits {
        window: 20_000,
        ..LIMITS
    };
    let full = frame(kind::DATA, 0, 1, &[0; MAX_PAYLOAD]);
    for knows in [false, true] {
        let mut server = End::server(limits);
        server
            .see(&[PREFACE, &settings(&[])[..], &get(1, 0)].concat())
            .unwrap();
        if knows {
            server
                .see(&frame(kind::SETTINGS, flag::ACK, 0, &[]))
                .unwrap();
        }
        server.see(&full).unwrap();
        let second = server.see(&full).unwrap();
        let gone = Seen::Gone(1, Why::Broken(Reason::FlowControlError));
        assert_eq!(second == [gone], knows);
    }
}

#[test]
fn an_answer_before_the_requests_end_asks_for_no_more_of_it() {
    let mut server = End::greeted();
    server.see(&get(1, 0)).unwrap();
    server.respond(1, true).unwrap();
    server.out.clear();
    server
        .core
        .finish(1, Reason::InternalError, &mut server.out);
    server.assert_reset(1, Reason::NoError, "answered in full");
    server.see(&get(3, 1)).unwrap();
    server.respond(3, false).unwrap();
    server.out.clear();
    server
        .core
        .finish(3, Reason::InternalError, &mut server.out);
    server.assert_reset(3, Reason::InternalError, "broken off");
    server
        .core
        .finish(3, Reason::InternalError, &mut server.out);
    assert!(server.sent().is_empty());
    // What the client had sent by then is no fault of its, and is granted anew.
    for _ in 0..30 {
        let late = frame(kind::DATA, 0, 1, &[0; MAX_PAYLOAD]);
        assert_eq!(server.see(&late).unwrap(), []);
    }
    let sent = server.sent();
    assert!(!sent.is_empty());
    assert!(
        sent.iter()
            .all(|(head, _)| head.kind == kind::WINDOW_UPDATE)
    );
}

#[test]
fn what_a_client_resets_is_gone_and_what_is_over_is_forgotten() {
    let mut server = End::greeted();
    server.see(&[get(1, 1), get(3, 0)].concat()).unwrap();
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let gone = Seen::Gone(1, Why::Reset(8));
    assert_eq!(server.see(&reset(1)).unwrap(), [gone]);
    assert_eq!(server.respond(1, true), Err(Gone));
    assert_eq!(server.see(&reset(1)).unwrap(), []);
    let window = frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    assert_eq!(server.see(&window).unwrap(), []);
    assert!(server.sent().is_empty());
    // A stream's error: the client should know that it is over.
    assert_eq!(server.see(&frame(kind::DATA, 0, 1, b"a")).unwrap(), []);
    server.assert_reset(1, Reason::StreamClosed, "DATA behind a reset");
    assert_eq!(server.core.streams(), 1);
}

#[test]
fn what_may_come_at_any_time_does_no_harm() {
    let widen = |stream| frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]);
    let priority = |stream| frame(kind::PRIORITY, 0, stream, &[0; 5]);
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &[0; 4]);
    let go_away = frame(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0why");
    for (what, bytes, expected) in [
        // RFC 9113 §4.1, §5.5
        ("an unknown kind", frame(0x42, 0xff, 3, b"abc"), vec![]),
        (
            "flags of no meaning",
            frame(kind::PING, 0xfe, 0, &[7; 8]),
            vec![],
        ),
        (
            "a reserved bit",
            frame(kind::RST_STREAM, 0, (1 << 31) | 1, &[0; 4]),
            vec![],
        ),
        // §5.1: half-closed by the client, closed by both, idle.
        ("a window, half-closed", widen(3), vec![Seen::Room(3)]),
        (
            "a reset, half-closed",
            reset(3),
            vec![Seen::Gone(3, Why::Reset(0))],
        ),
        ("a priority, half-closed", priority(3), vec![]),
        ("a window, closed", widen(1), vec![]),
        ("a reset, closed", reset(1), vec![]),
        ("a priority, closed", priority(1), vec![]),
        ("a priority, idle", priority(9), vec![]),
        // §6.7, §6.8
        (
            "an answer to no PING",
            frame(kind::PING, flag::ACK, 0, &[0; 8]),
            vec![],
        ),
        ("a goodbye", go_away, vec![]),
    ] {
        let mut server = End::greeted();
        server.see(&[get(1, 1), get(3, 1)].concat()).unwrap();
        server.respond(1, true).unwrap();
        assert_eq!(server.see(&bytes).unwrap(), expected, "{what}");
        let next = server.see(&get(5, 1)).unwrap();
        assert_eq!(next, [Seen::Request(5, true)], "{what}");
    }
    // §6.2: what stands round the fields.
    let padded = [&[3, 0, 0, 0, 0, 16][..], &block(&GET), &[0; 3]].concat();
    let flags = flag::PADDED | flag::PRIORITY | flag::END_HEADERS;
    let seen = End::greeted().see(&frame(kind::HEADERS, flags, 1, &padded));
    assert_eq!(seen.unwrap(), [Seen::Request(1, false)]);
}

#[test]
fn a_number_that_was_passed_over_is_used_up() {
    // RFC 9113 §5.1.1: those below are closed.
    let mut server = End::greeted();
    server.see(&get(5, 1)).unwrap();
    assert_eq!(reason(server.see(&get(3, 1))), Reason::StreamClosed);
    let mut server = End::greeted();
    server.see(&get(5, 1)).unwrap();
    assert_eq!(server.see(&frame(kind::DATA, 0, 3, b"a")).unwrap(), []);
    server.assert_reset(3, Reason::StreamClosed, "DATA on what is closed");
}

#[test]
fn no_setting_widens_a_window_beyond_all_bounds() {
    // RFC 9113 §6.9.2
    let mut server = End::greeted();
    server.see(&get(1, 1)).unwrap();
    let most = MAX_WINDOW - DEFAULT_WINDOW;
    let update = frame(kind::WINDOW_UPDATE, 0, 1, &most.to_be_bytes());
    assert_eq!(server.see(&update).unwrap(), [Seen::Room(1)]);
    let wider = settings(&[(4, DEFAULT_WINDOW + 1)]);
    assert_eq!(reason(server.see(&wider)), Reason::FlowControlError);
}

#[test]
fn a_ping_is_answered_and_settings_are_acknowledged() {
    let mut server = End::greeted();
    let ping = frame(kind::PING, 0, 0, b"12345678");
    server.see(&[ping, settings(&[(1, 0)])].concat()).unwrap();
    let sent = server.sent();
    assert_eq!(
        (sent[0].0.flags, &sent[0].1[..]),
        (flag::ACK, &b"12345678"[..])
    );
    assert_eq!(
        (sent[1].0.kind, sent[1].0.flags),
        (kind::SETTINGS, flag::ACK)
    );
    // The table has been given up before anything else is said.
    server.see(&get(1, 1)).unwrap();
    server.respond(1, true).unwrap();
    assert_eq!(server.sent()[0].1[0], 0x20);
}

#[test]
fn leaving_takes_two_steps_and_serves_what_comes_between_them() {
    let mut server = End::greeted();
    server.see(&get(1, 1)).unwrap();
    server.core.go_away_soon(&mut server.out);
    server.core.go_away_soon(&mut server.out);
    let sent = server.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(
        (sent[0].0.kind, word(&sent[0].1)),
        (kind::GOAWAY, ANY_STREAM)
    );
    let farewell = sent[1].1.clone();
    assert_eq!(server.see(&get(3, 1)).unwrap(), [Seen::Request(3, true)]);
    server
        .see(&frame(kind::PING, flag::ACK, 0, b"whatever"))
        .unwrap();
    assert!(server.sent().is_empty());
    server
        .see(&frame(kind::PING, flag::ACK, 0, &farewell))
        .unwrap();
    let sent = server.sent();
    assert_eq!((sent.len(), word(&sent[0].1)), (1, 3));
    // Too late: neither served nor answered, but read.
    assert_eq!(server.see(&get(5, 1)).unwrap(), []);
    assert!(server.sent().is_empty() && !server.core.is_done());
    server.respond(1, true).unwrap();
    server.respond(3, true).unwrap();
    assert!(server.core.is_done());
    server.core.go_away(Reason::ProtocolError, &mut server.out);
    let last = server.sent().pop().unwrap();
    assert_eq!(word(&last.1), 3);
}

/// What a flood is made of, by number.
type Frames = Box<dyn Fn(u32) -> Vec<u8>>;

#[test]
fn floods_end_their_connection() {
    use Reason::EnhanceYourCalm as Calm;
    let reset = |stream: u32| {
        let cancel = frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [get(stream, 1), cancel].concat()
    };
    let provoke = |stream: u32| {
        let overflow = frame(kind::WINDOW_UPDATE, 0, stream, &MAX_WINDOW.to_be_bytes());
        [get(stream, 1), overflow].concat()
    };
    let floods: [(&str, usize, Frames); 9] = [
        ("PING", 1000, Box::new(|_| frame(kind::PING, 0, 0, &[0; 8]))),
        ("SETTINGS", 1000, Box::new(|_| settings(&[(3, 1)]))),
        (
            "PRIORITY",
            1000,
            Box::new(|_| frame(kind::PRIORITY, 0, 1, &[0; 5])),
        ),
        ("unknown", 1000, Box::new(|_| frame(0xbb, 0, 0, b"x"))),
        (
            "windows",
            1000,
            Box::new(|_| frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ),
        (
            "empty DATA",
            1000,
            Box::new(|n| match n {
                1 => get(1, 0),
                _ => frame(kind::DATA, 0, 1, b""),
            }),
        ),
        ("resets", 201, Box::new(reset)),
        ("provoked resets", 201, Box::new(provoke)),
        ("refusals", 1004, Box::new(|n| get(n, 1))),
    ];
    for (what, most, bytes) in floods {
        let mut server = End::greeted();
        let end = (0..10_000_u32).find_map(|n| {
            let ended = server.see(&bytes(2 * n + 1)).err()?;
            Some((n as usize, ended.reason))
        });
        let (count, reason) = end.unwrap_or_else(|| panic!("{what}"));
        assert!(
            reason == Calm && count <= most,
            "{what}: {count} {reason:?}"
        );
    }
}

#[test]
fn an_idle_connection_keeps_nothing_of_its_streams() {
    let mut server = End::greeted();
    for n in 0..100 {
        server.see(&get(2 * n + 1, 1)).unwrap();
        server.respond(2 * n + 1, true).unwrap();
    }
    assert_eq!(server.core.streams(), 0);
    assert!(
        size_of::<Connection<u32>>() <= 1024,
        "{}",
        size_of::<Connection<u32>>()
    );
}

/// Frames of every kind, mostly well-formed, on few streams.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = 0..9_u32;
    let odd = (0..5_u32).prop_map(|n| 2 * n + 1);
    let payload = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (odd.clone(), any::<bool>()).prop_map(|(stream, ends)| get(stream, u8::from(ends))),
        4 => (odd.clone(), 0..20_000_usize, any::<bool>()).prop_map(|(stream, size, ends)| {
            frame(kind::DATA, u8::from(ends), stream, &vec![7; size.min(MAX_PAYLOAD)])
        }),
        1 => odd.prop_map(|stream| frame(kind::RST_STREAM, 0, stream, &[0; 4])),
        2 => (stream.clone(), any::<u32>()).prop_map(|(stream, by)| {
            frame(kind::WINDOW_UPDATE, 0, stream, &(by >> (by & 31)).to_be_bytes())
        }),
        1 => (0..1_u32 << 31).prop_map(|window| settings(&[(4, window)])),
        1 => Just(frame(kind::SETTINGS, flag::ACK, 0, &[])),
        1 => (0..12_u8, any::<u8>(), stream, payload)
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_windows_streams_and_memory_stay_within_bounds(
        frames in proptest::collection::vec(any_frame(), 0..60),
        cut in 1..5000_usize,
        takes in any::<bool>(),
    ) {
        let mut server = End::greeted();
        let bytes = frames.concat();
        let (mut pending, mut held) = (Vec::new(), 0_usize);
        'all: for piece in bytes.chunks(cut) {
            pending.extend_from_slice(piece);
            let Ok((seen, used)) = server.see_some(&pending) else {
                break 'all;
            };
            pending.drain(..used);
            prop_assert!(pending.len() <= HEADER + MAX_PAYLOAD);
            for seen in seen {
                match seen {
                    Seen::Data(stream, bytes, _) if takes => {
                        server.core.release(stream, bytes.len(), &mut server.out);
                    }
                    Seen::Data(_, bytes, _) => held += bytes.len(),
                    Seen::Request(stream, _) => {
                        // Unless it is over already.
                        let _ = server.respond(stream, false);
                        if let Ok(room) = server.core.room(stream) {
                            let most = room.stream.min(room.connection).min(5000);
                            let sent = server.core.send_data(stream, most, stream == 5);
                            prop_assert!(sent.is_ok());
                        }
                    }
                    _ => {}
                }
            }
            prop_assert!(server.core.streams() <= LIMITS.streams as usize);
            prop_assert!(held <= LIMITS.connection_window as usize);
            for stream in server.core.streams.iter_mut() {
                prop_assert!(stream.send.available() <= MAX_WINDOW as usize);
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = End::greeted().see_some(&bytes);
        let _ = End::server(LIMITS).see_some(&bytes);
    }
}
