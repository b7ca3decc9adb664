//! Attacks on HTTP/2, frame by frame: each ends alone, memory stays bounded,
//! and a client that means well is served throughout.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::eventually;
use crate::support::h2::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, H2, HEADERS, NO_ERROR,
    PADDED, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, fields, frame, is_end,
};
use crate::support::neighbour;
use crate::support::origin::{Origin, ok, ok_bytes};
use crate::support::patterned;
use crate::support::ringwall::{HOST, Ringwall, Site, http};

fn target(origin: &Origin, more: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST}; http2 on; {more}\n\
         access_log off; keepalive_requests 1000000; location / {{ proxy_pass {}; }} }}",
        origin.url()
    )))
}

/// Runs an attack on a connection of its own until it is over, with a client
/// beside it that is answered all the while.
fn attacked(ringwall: &Ringwall, attack: impl FnOnce(&mut H2)) {
    let address = ringwall.address("HTTP");
    let mut other = H2::plain(address);
    let mut streams = (1..).step_by(2);
    let ask = move || {
        let stream = streams.next().expect("another");
        assert_eq!(other.get(stream, HOST, "/").status, 200);
    };
    neighbour::attacked(ringwall, ask, || attack(&mut H2::plain(address)));
    assert_eq!(H2::plain(address).get(1, HOST, "/").status, 200);
}

/// Sends this over and over until the proxy has had enough: it must within
/// `most` times, and say so.
fn flood(connection: &mut H2, most: usize, bytes: &[u8]) {
    let mut sent = 0;
    let batch = bytes.repeat(50);
    while sent < most {
        match connection.try_send(&batch) {
            Ok(()) => sent += 50,
            Err(error) if is_end(&error) => break,
            Err(error) => panic!("{error}"),
        }
    }
    expect_refusal(connection);
}

/// The connection ends, because of what the client does and not of what it says.
fn expect_refusal(connection: &mut H2) {
    connection.expect_end();
    let reason = connection.goaways.last().map(|(_, reason)| *reason);
    // A reset may have overtaken it.
    assert!(
        reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM),
        "{reason:?}"
    );
}

#[test]
fn floods_of_frames_that_get_a_client_nothing_end_its_connection() {
    let origin = Origin::hello();
    let ringwall = target(&origin, "");
    for (what, bytes) in [
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("empty SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16])),
        ("unknown", frame(0xbb, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ] {
        eprintln!("{what}");
        attacked(&ringwall, |connection| flood(connection, 20_000, &bytes));
    }
    let told = ringwall.complaint_with(&["http2 flood detected"]);
    assert!(told.contains("client: 127.0.0.1"), "{told}");
}

#[test]
fn a_flood_of_empty_data_frames_ends_its_connection() {
    let origin = Origin::hello();
    let ringwall = target(&origin, "");
    for (what, bytes) in [
        ("nothing", frame(DATA, 0, 1, &[])),
        ("padding", frame(DATA, PADDED, 1, &[0])),
        ("more padding", frame(DATA, PADDED, 1, &[3, 0, 0, 0])),
    ] {
        eprintln!("{what}");
        attacked(&ringwall, |connection| {
            connection.headers(1, &fields("POST", HOST, "/", &[]), false);
            flood(connection, 20_000, &bytes);
        });
    }
}

#[test]
fn rapid_resets_end_their_connection_and_backends_are_left() {
    // CVE-2023-44487.
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let origin = Origin::script(move |peer| {
        loop {
            let request = peer.request()?;
            if request.target() == "/slow" {
                counted.fetch_add(1, Ordering::SeqCst);
                return peer.idle();
            }
            peer.send(&ok("hello"))?;
        }
    });
    let ringwall = target(&origin, "");
    attacked(&ringwall, |connection| {
        let block = block(&fields("GET", HOST, "/slow", &[]));
        for stream in (1..40_000_u32).step_by(2) {
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            if connection.try_send(&[open, reset].concat()).is_err() {
                break;
            }
        }
        expect_refusal(connection);
    });
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked <= 1000, "the backend was asked {asked} times");
    eventually("the backends are left", || {
        (origin.open_connections() <= 2).then_some(())
    });
}

#[test]
fn resets_that_a_client_provokes_end_its_connection() {
    // CVE-2025-8671: the client resets nothing itself.
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            if request.target() == "/slow" {
                return peer.idle();
            }
            peer.send(&ok("hello"))?;
        }
    });
    let ringwall = target(&origin, "");
    attacked(&ringwall, |connection| {
        let block = block(&fields("GET", HOST, "/slow", &[]));
        for stream in (1..20_000_u32).step_by(2) {
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            // A window that overflows: a stream error.
            let overflow = i32::MAX.to_be_bytes();
            let provoke = frame(WINDOW_UPDATE, 0, stream, &overflow);
            if connection.try_send(&[open, provoke].concat()).is_err() {
                break;
            }
        }
        expect_refusal(connection);
    });
    eventually("the backends are left", || {
        (origin.open_connections() <= 2).then_some(())
    });
}

#[test]
fn continuations_without_end_are_cut_off() {
    let origin = Origin::hello();
    let ringwall = target(&origin, "");
    for (what, piece) in [
        ("empty", Vec::new()),
        ("fields", block(&[("x-field", &"x".repeat(900))])),
    ] {
        eprintln!("{what}");
        attacked(&ringwall, |connection| {
            let start = block(&fields("GET", HOST, "/", &[]));
            connection.frame(HEADERS, END_STREAM, 1, &start);
            let more = frame(CONTINUATION, 0, 1, &piece);
            for _ in 0..100_000 {
                if connection.try_send(&more).is_err() {
                    break;
                }
            }
            expect_refusal(connection);
        });
    }
}

#[test]
fn an_hpack_bomb_is_refused_before_it_goes_off() {
    let origin = Origin::hello();
    let ringwall = target(&origin, "");
    attacked(&ringwall, |connection| {
        // A field of 4 KiB in the table, and then a byte for each copy of it.
        let mut bomb = block(&fields("GET", HOST, "/", &[]));
        bomb.push(0x40);
        let entry = block(&[("x", &"b".repeat(3900))]);
        bomb.extend_from_slice(&entry[1..]);
        bomb.extend(std::iter::repeat_n(0xbe, 12_000));
        for stream in (1..100_u32).step_by(2) {
            let bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb);
            if connection.try_send(&bytes).is_err() {
                break;
            }
        }
        let refused = connection.until(|it| {
            let answer = it.so_far(1);
            let refused = answer.status >= 400 || answer.reset.is_some();
            (refused || !it.goaways.is_empty()).then_some(())
        });
        refused.expect("an answer");
    });
    assert!(!origin.all_received_text().contains("bbbb"));
}

#[test]
fn windows_that_stay_shut_cost_what_a_window_holds_and_end_by_send_timeout() {
    let origin = Origin::http(|request| match request.target() {
        "/big" => ok_bytes(&patterned(4 << 20)),
        _ => ok("hello"),
    });
    let ringwall = target(&origin, "send_timeout 2s;");
    attacked(&ringwall, |connection| {
        connection.grants = false;
        connection.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        for stream in (1..200_u32).step_by(2) {
            connection.headers(stream, &fields("GET", HOST, "/big", &[]), true);
        }
        for stream in (1..200_u32).step_by(2) {
            let answer = connection.answer(stream);
            assert!(answer.body.is_empty() && answer.reset.is_some(), "{stream}");
        }
    });
}

#[test]
fn fields_that_do_not_come_to_an_end_have_client_header_timeout() {
    let origin = Origin::hello();
    let ringwall = target(&origin, "client_header_timeout 2s;");
    let mut connection = H2::plain(ringwall.address("HTTP"));
    assert_eq!(connection.get(1, HOST, "/").status, 200);
    connection.frame(HEADERS, END_STREAM, 3, &block(&[(":method", "GET")]));
    connection.expect_end();
    assert_eq!(connection.goaways.last(), Some(&(1, NO_ERROR)));
    ringwall.complaint_with(&["client timed out", "while processing HTTP/2 connection"]);
    // No piece of them puts it off.
    let mut connection = H2::plain(ringwall.address("HTTP"));
    assert_eq!(connection.get(1, HOST, "/").status, 200);
    connection.frame(HEADERS, END_STREAM, 3, &block(&[(":method", "GET")]));
    let mut pieces = 0..100;
    while connection.wire().is_quiet() {
        pieces.next().expect("a deadline that no piece puts off");
        if connection
            .try_send(&frame(CONTINUATION, 0, 3, &block(&[("x", "y")])))
            .is_err()
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    connection.expect_end();
    // Nor may a client say hello and nothing else.
    H2::plain(ringwall.address("HTTP")).expect_end();
}

#[test]
fn a_body_that_does_not_come_has_client_body_timeout_on_its_own_stream() {
    let origin = Origin::hello();
    let ringwall = target(&origin, "client_body_timeout 2s;");
    let mut connection = H2::plain(ringwall.address("HTTP"));
    connection.headers(1, &fields("POST", HOST, "/", &[]), false);
    connection.frame(DATA, 0, 1, b"some");
    let answer = connection.answer(1);
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(connection.get(3, HOST, "/").status, 200);
}

#[test]
fn a_body_that_dribbles_has_client_body_min_rate_on_its_own_stream() {
    let origin = Origin::hello();
    let ringwall = target(
        &origin,
        "client_body_timeout 30s; client_body_min_rate 1k 1s;",
    );
    let mut connection = H2::plain(ringwall.address("HTTP"));
    connection.headers(1, &fields("POST", HOST, "/", &[]), false);
    connection.wire().set_read_limit(Duration::from_millis(100));
    let answer = eventually("the dribble is refused", || {
        connection.frame(DATA, 0, 1, b"x");
        let answered = |it: &mut H2| Some(it.so_far(1)).filter(|answer| answer.status != 0);
        connection.until(answered).ok()
    });
    assert_eq!(answer.status, 408, "{answer:?}");
    connection.wire().set_read_limit(Duration::from_secs(30));
    assert_eq!(connection.get(3, HOST, "/").status, 200);
}

#[test]
fn more_streams_than_are_granted_are_refused_one_by_one() {
    let origin = Origin::script(|peer| {
        let request = peer.request()?;
        if request.target() == "/slow" {
            return peer.idle();
        }
        peer.send(&ok("hello"))
    });
    let ringwall = target(&origin, "http2_max_concurrent_streams 3;");
    let mut connection = H2::plain(ringwall.address("HTTP"));
    for stream in [1, 3, 5, 7] {
        connection.headers(stream, &fields("GET", HOST, "/slow", &[]), true);
    }
    let answer = connection.answer(7);
    assert_eq!(answer.reset, Some(crate::support::h2::REFUSED_STREAM));
    connection.frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    assert_eq!(connection.get(9, HOST, "/").status, 200);
}
