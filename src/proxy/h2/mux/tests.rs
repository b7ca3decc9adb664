//! Turns, windows and bodies, without a socket.

use std::task::Waker;

use super::super::outgoing::plain;
use super::*;
use crate::http::h2::frame::{HEADER, Head, frame, kind};
use crate::http::h2::meter::PREFACE;
use crate::http::head::ResponseHead;
use crate::proxy::exchange::MAX_INTERIM;
use crate::tls::record::{HEADROOM, TAILROOM};

const LIMITS: Limits = Limits {
    streams: 10,
    window: 65_536,
    connection_window: 655_360,
    list: 4096,
};
/// END_HEADERS and END_STREAM.
const WHOLE: u8 = 5;

fn widen(stream: u32, by: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A GET of `/` by the static table alone, and a literal for the authority.
fn get(stream: u32, flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, b"\x82\x87\x84\x01\x01a")
}

/// With streams 1, 3, … open, whose answers have begun.
fn mux(count: u32, flags: u8) -> (Mux, Vec<(u32, Rc<Lane>)>) {
    let mux = Mux::new(LIMITS, Gaps::default());
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(kind::SETTINGS, 0, 0, &[]));
    feed(&mux, &bytes);
    let streams = (0..count).map(|n| 2 * n + 1);
    let lanes = streams.map(|stream| {
        let opened = feed(&mux, &get(stream, flags));
        assert_eq!(opened, [(stream, flags & 1 != 0)]);
        let lane = mux.admit(stream, flags & 1 != 0, None).unwrap();
        mux.send_fields(stream, false, |encoder, block| encoder.status(200, block))
            .unwrap();
        (stream, lane.unwrap())
    });
    let lanes = lanes.collect();
    sent(&mux);
    (mux, lanes)
}

fn feed(mux: &Mux, bytes: &[u8]) -> Vec<(u32, bool)> {
    let (mut used, mut draft) = (0, Draft::default());
    let mut requests = Vec::new();
    while let Some(request) = mux
        .take_in(bytes, &mut used, Duration::ZERO, &mut draft)
        .unwrap()
    {
        match request {
            Opened::Stream { stream, ends } => requests.push((stream, ends)),
            Opened::Malformed => panic!("a request"),
        }
    }
    assert_eq!(used, bytes.len());
    requests
}

/// Kind, stream and length of all that waits, which is then on its way.
fn sent(mux: &Mux) -> Vec<(u8, u32, usize)> {
    let mut bytes = Vec::new();
    while let Some(written) = mux.take_outgoing() {
        bytes.extend(plain(written));
    }
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while let Some(head) = Head::parse(rest) {
        frames.push((head.kind, head.stream, head.length));
        rest = &rest[HEADER + head.length..];
    }
    frames
}

fn turn(mux: &Mux, (stream, lane): &(u32, Rc<Lane>)) -> Option<Room> {
    match mux.poll_turn(*stream, lane, &Context::from_waker(Waker::noop())) {
        Poll::Ready(room) => Some(room.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn who_has_no_room_waits_in_line_and_each_gets_its_turn() {
    let (mux, lanes) = mux(3, WHOLE);
    feed(&mux, &widen(0, 10_000_000));
    for (stream, _) in &lanes {
        feed(&mux, &widen(*stream, 1_000_000));
    }
    let part = [7; 16_384];
    // The first takes all the room there is.
    while turn(&mux, &lanes[0]).is_some() {
        mux.send_data(1, &part, false).unwrap();
    }
    assert!(turn(&mux, &lanes[1]).is_none() && turn(&mux, &lanes[2]).is_none());
    let mut order = Vec::new();
    for _ in 0..4 {
        // What waits leaves, and whoever is first goes on.
        sent(&mux);
        while let Some(place) = lanes.iter().position(|lane| turn(&mux, lane).is_some()) {
            mux.send_data(lanes[place].0, &part, false).unwrap();
            order.push(lanes[place].0);
            // It has more, as the others have.
            assert!(turn(&mux, &lanes[place]).is_none());
        }
    }
    assert!(order.len() >= 12, "{order:?}");
    for three in order.chunks_exact(3) {
        let mut three = three.to_vec();
        three.sort_unstable();
        assert_eq!(three, [1, 3, 5], "{order:?}");
    }
}

#[test]
fn a_stream_without_window_stops_nobody_and_goes_on_when_it_has_some() {
    let (mux, lanes) = mux(2, WHOLE);
    feed(&mux, &widen(0, 10_000_000));
    let room = turn(&mux, &lanes[0]).unwrap();
    assert_eq!(room.stream, 65_535);
    mux.send_data(1, &[0; 65_535], false).unwrap();
    assert!(turn(&mux, &lanes[0]).is_none());
    sent(&mux);
    for _ in 0..3 {
        assert!(turn(&mux, &lanes[1]).is_some());
        mux.send_data(3, &[0; 16_384], false).unwrap();
    }
    assert!(turn(&mux, &lanes[0]).is_none());
    feed(&mux, &widen(1, 5));
    assert_eq!(turn(&mux, &lanes[0]).unwrap().stream, 5);
}

#[test]
fn a_turn_that_is_not_used_is_passed_on() {
    let (mux, lanes) = mux(3, WHOLE);
    mux.send_data(1, &[0; 65_535], false).unwrap();
    assert!(turn(&mux, &lanes[1]).is_none() && turn(&mux, &lanes[2]).is_none());
    sent(&mux);
    // The connection's window: it is the second stream's turn, which ends.
    feed(&mux, &widen(0, 100));
    assert!(turn(&mux, &lanes[2]).is_none());
    mux.finish(lanes[1].0, &lanes[1].1, false);
    assert_eq!(sent(&mux), [(kind::RST_STREAM, 3, 4)]);
    assert_eq!(turn(&mux, &lanes[2]).unwrap().connection, 100);
}

#[test]
fn who_waits_no_longer_is_not_waited_for() {
    let (mux, lanes) = mux(4, WHOLE);
    mux.send_data(1, &[0; 65_535], false).unwrap();
    assert!(lanes[1..].iter().all(|lane| turn(&mux, lane).is_none()));
    sent(&mux);
    feed(&mux, &widen(0, 100));
    // One whose turn it is, and one that is in line.
    for (stream, lane) in &lanes[1..3] {
        mux.leave_line(*stream, lane);
    }
    assert_eq!(turn(&mux, &lanes[3]).unwrap().connection, 100);
    mux.send_data(7, &[0; 60], false).unwrap();
    // They may come back.
    assert_eq!(turn(&mux, &lanes[1]).unwrap().connection, 40);
}

#[test]
fn a_backend_that_never_comes_to_its_answer_is_not_remembered_for_all_it_says() {
    let lane = Lane::default();
    for _ in 0..1000 {
        lane.answer(Some((ResponseHead::default(), Box::default())), false);
    }
    let context = Context::from_waker(Waker::noop());
    let taken = (0..).take_while(|_| lane.poll_head(&context).is_ready());
    assert_eq!(taken.count(), MAX_INTERIM + 1);
}

#[test]
fn bulk_is_framed_where_it_lies() {
    let (mux, lanes) = mux(1, WHOLE);
    let mut segments = Segments::take(Gaps {
        lead: HEADER,
        ..mux.gaps()
    });
    let filled = segments.payload_size() + 100;
    assert!(turn(&mux, &lanes[0]).is_some());
    segments.bytes_mut().fill(9);
    let first = segments.payload_size();
    mux.send_bulk(1, segments, filled, true).unwrap();
    assert_eq!(sent(&mux), [(kind::DATA, 1, first), (kind::DATA, 1, 100)]);
    assert!(matches!(
        mux.poll_turn(1, &lanes[0].1, &Context::from_waker(Waker::noop())),
        Poll::Ready(Err(Gone))
    ));
}

#[test]
fn a_body_is_kept_until_it_is_taken_and_then_granted_anew() {
    let (mux, lanes) = mux(1, 4);
    let (stream, lane) = &lanes[0];
    let context = Context::from_waker(Waker::noop());
    assert!(lane.poll_piece(&context).is_pending());
    let body: Vec<u8> = (0..60_000_u32).map(|n| (n / 7) as u8).collect();
    for part in body.chunks(10_000) {
        feed(&mux, &frame(kind::DATA, 0, *stream, part));
    }
    feed(&mux, &frame(kind::DATA, 1, *stream, &[]));
    assert_eq!(lane.waiting(), body.len());
    assert!(sent(&mux).is_empty());
    let mut seen = Vec::new();
    while let Poll::Ready(Ok(Some(piece))) = lane.poll_piece(&context) {
        assert!(piece.range.start >= HEADROOM);
        assert!(piece.buffer.len() - piece.range.end >= TAILROOM);
        seen.extend_from_slice(&piece.buffer[piece.range.clone()]);
        mux.release(*stream, lane, piece.range.len());
    }
    assert!(seen == body && lane.is_finished() && lane.held.get() == 0);
    // Of the stream's nothing: nothing more comes on it.
    assert!(sent(&mux).is_empty());
}

#[test]
fn what_nobody_has_taken_is_granted_anew_when_the_stream_is_over() {
    let (mux, lanes) = mux(10, 4);
    for (stream, lane) in &lanes {
        for _ in 0..4 {
            feed(&mux, &frame(kind::DATA, 0, *stream, &[0; 10_000]));
        }
        mux.finish(*stream, lane, false);
    }
    let sent = sent(&mux);
    let grown = sent
        .iter()
        .filter(|(kind, stream, _)| (*kind, *stream) == (kind::WINDOW_UPDATE, 0));
    assert_eq!(grown.count(), 1, "{sent:?}");
    assert_eq!(mux.active(), 0);
}

#[test]
fn nothing_is_left_to_do_for_streams_whose_connection_is_over() {
    let (mux, lanes) = mux(1, 4);
    let (stream, lane) = &lanes[0];
    mux.end(None);
    let context = Context::from_waker(Waker::noop());
    assert!(matches!(lane.poll_piece(&context), Poll::Ready(Err(Gone))));
    assert!(lane.poll_gone(&context).is_ready());
    assert_eq!(mux.send_data(*stream, b"a", true), Err(Gone));
    assert!(mux.send_fields(*stream, true, |_, _| {}).is_err());
    mux.release(*stream, lane, 0);
    mux.finish(*stream, lane, false);
    assert!(sent(&mux).is_empty());
}
