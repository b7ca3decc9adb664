//! The RFC's examples, both directions against each other, and the decoder
//! against a slow reading of the rules.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Decoder, Encoder, HpackError, Outcome, huffman, integer, statics};

type Field = (Vec<u8>, Vec<u8>, bool);

/// More than any list of these tests.
const NO_LIMIT: usize = usize::MAX;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn text(name: &str, value: &str) -> Field {
    (name.into(), value.into(), false)
}

fn decode(
    decoder: &mut Decoder,
    block: &[u8],
    max_list: usize,
) -> (Result<Outcome, HpackError>, Vec<Field>) {
    let mut fields = Vec::new();
    let outcome = decoder.decode(block, max_list, |name, value, sensitive| {
        fields.push((name.to_vec(), value.to_vec(), sensitive));
    });
    (outcome, fields)
}

/// The fields of a whole block.
fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<Field> {
    let (outcome, fields) = decode(decoder, block, NO_LIMIT);
    assert_eq!(outcome, Ok(Outcome::Whole));
    fields
}

fn encoded(encoder: &mut Encoder, fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value, sensitive) in fields {
        if *sensitive {
            encoder.sensitive(name, value, &mut out);
        } else {
            encoder.field(name, value, &mut out);
        }
    }
    out
}

fn refused(block: &[u8]) -> HpackError {
    let (outcome, _) = decode(&mut Decoder::new(4096), block, NO_LIMIT);
    outcome.unwrap_err()
}

/// C.2: a block, its one field, and the table's size after it.
fn single_fields() -> [(&'static str, Field, usize); 4] {
    [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            text("custom-key", "custom-header"),
            55,
        ),
        (
            "040c 2f73 616d 706c 652f 7061 7468",
            text(":path", "/sample/path"),
            0,
        ),
        (
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            (b"password".into(), b"secret".into(), true),
            0,
        ),
        ("82", text(":method", "GET"), 0),
    ]
}

/// C.3 and C.4: the fields, without Huffman code and with it, the table's size.
fn requests() -> [(Vec<Field>, &'static str, &'static str, usize); 3] {
    let request = |scheme, path| {
        vec![
            text(":method", "GET"),
            text(":scheme", scheme),
            text(":path", path),
            text(":authority", "www.example.com"),
        ]
    };
    let with = |mut fields: Vec<Field>, name, value| {
        fields.push(text(name, value));
        fields
    };
    [
        (
            request("http", "/"),
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            57,
        ),
        (
            with(request("http", "/"), "cache-control", "no-cache"),
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8286 84be 5886 a8eb 1064 9cbf",
            110,
        ),
        (
            with(
                request("https", "/index.html"),
                "custom-key",
                "custom-value",
            ),
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            164,
        ),
    ]
}

/// C.5 and C.6, with a table of 256 bytes.
fn responses() -> [(Vec<Field>, &'static str, &'static str, usize); 3] {
    let response = |status, date| {
        vec![
            text(":status", status),
            text("cache-control", "private"),
            text("date", date),
            text("location", "https://www.example.com"),
        ]
    };
    let mut last = response("200", "Mon, 21 Oct 2013 20:13:22 GMT");
    last.push(text("content-encoding", "gzip"));
    last.push(text(
        "set-cookie",
        "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ));
    [
        (
            response("302", "Mon, 21 Oct 2013 20:13:21 GMT"),
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032
             303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63
             6f6d",
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b
             ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            222,
        ),
        (
            response("307", "Mon, 21 Oct 2013 20:13:21 GMT"),
            "4803 3330 37c1 c0bf",
            "4883 640e ffc1 c0bf",
            222,
        ),
        (
            last,
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0
             5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851
             5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad
             94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160
             65c0 03ed 4ee5 b106 3d50 07",
            215,
        ),
    ]
}

#[test]
fn single_fields_are_read_as_in_appendix_c_2() {
    for (block, field, size) in single_fields() {
        let mut decoder = Decoder::new(4096);
        assert_eq!(decoded(&mut decoder, &bytes(block)), [field]);
        assert_eq!(decoder.table.size(), size, "{block}");
    }
}

#[test]
fn single_fields_are_written_as_in_appendix_c_2() {
    for (block, field, _) in single_fields() {
        let mut encoder = Encoder::new();
        let fields = [field];
        // What is kept is kept from the second time on.
        let first = encoded(&mut encoder, &fields);
        let is_kept = bytes(block)[0] & 0xc0 == 0x40;
        let again = if is_kept {
            encoded(&mut encoder, &fields)
        } else {
            first
        };
        assert_eq!(again, bytes(block));
    }
}

#[test]
fn requests_are_read_as_in_appendices_c_3_and_c_4() {
    let (mut plain, mut coded) = (Decoder::new(4096), Decoder::new(4096));
    for (fields, without, with, size) in requests() {
        assert_eq!(decoded(&mut plain, &bytes(without)), fields);
        assert_eq!(decoded(&mut coded, &bytes(with)), fields);
        assert_eq!((plain.table.size(), coded.table.size()), (size, size));
    }
}

#[test]
fn requests_are_written_as_in_appendix_c_3_the_second_time() {
    let mut encoder = Encoder::new();
    let all: Vec<Field> = requests()
        .into_iter()
        .flat_map(|request| request.0)
        .collect();
    let mut once: Vec<Field> = Vec::new();
    for field in all {
        if !once.contains(&field) {
            once.push(field);
        }
    }
    encoded(&mut encoder, &once);
    for (fields, block, _, _) in requests() {
        assert_eq!(encoded(&mut encoder, &fields), bytes(block));
    }
}

#[test]
fn responses_are_read_as_in_appendices_c_5_and_c_6() {
    let (mut plain, mut coded) = (Decoder::new(4096), Decoder::new(4096));
    for decoder in [&mut plain, &mut coded] {
        assert_eq!(decoded(decoder, &bytes("3fe1 01")), []);
    }
    for (fields, without, with, size) in responses() {
        assert_eq!(decoded(&mut plain, &bytes(without)), fields);
        assert_eq!(decoded(&mut coded, &bytes(with)), fields);
        assert_eq!((plain.table.size(), coded.table.size()), (size, size));
    }
}

#[test]
fn a_repeated_response_is_a_byte_for_each_field_from_the_third_time_on() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    let fields = [
        text("server", "ringwall"),
        text("date", "Sat, 28 Nov 2026 16:00:00 GMT"),
        text("content-type", "text/html; charset=utf-8"),
        text("x-frame-options", "SAMEORIGIN"),
        text("vary", "accept-encoding"),
    ];
    for time in 1..=40 {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        encoder.status(200, &mut block);
        encoder.field(b"content-length", b"1234", &mut block);
        // Whatever differs each time pushes nothing out.
        encoder.field(b"x-unknown", time.to_string().as_bytes(), &mut block);
        let start = block.len();
        for (name, value, _) in &fields {
            encoder.field(name, value, &mut block);
        }
        assert_eq!(block.len() - start == fields.len(), time > 2, "time {time}");
        let mut read = decoded(&mut decoder, &block);
        assert_eq!(read.split_off(3), fields);
        assert_eq!(read[0], text(":status", "200"));
    }
}

#[test]
fn any_status_is_read_as_it_was_written() {
    for status in 100..1000 {
        let mut block = Vec::new();
        Encoder::new().status(status, &mut block);
        let fields = decoded(&mut Decoder::new(4096), &block);
        assert_eq!(fields, [text(":status", &status.to_string())]);
    }
}

#[test]
fn secrets_are_never_indexed_by_their_names_alone() {
    let mut encoder = Encoder::new();
    for name in [
        "authorization",
        "cookie",
        "set-cookie",
        "proxy-authorization",
        "x-api-key",
    ] {
        for _ in 0..3 {
            let mut block = Vec::new();
            encoder.field(name.as_bytes(), b"secret", &mut block);
            let fields = decoded(&mut Decoder::new(4096), &block);
            assert_eq!(fields, [(name.into(), b"secret".into(), true)]);
        }
    }
    assert_eq!(encoder.held(), 0);
}

#[test]
fn a_codec_that_has_kept_nothing_has_allocated_nothing() {
    let mut decoder = Decoder::new(4096);
    let mut encoder = Encoder::new();
    let mut block = Vec::new();
    encoder.begin(&mut block);
    encoder.status(200, &mut block);
    encoder.field(b"server", b"ringwall", &mut block);
    encoder.field(b"content-length", b"10", &mut block);
    decoded(&mut decoder, &block);
    assert_eq!((encoder.held(), decoder.held()), (0, 0));
    // What a connection carries of both, all of the time.
    assert!(size_of::<Decoder>() <= 96, "{}", size_of::<Decoder>());
    assert!(size_of::<Encoder>() <= 240, "{}", size_of::<Encoder>());
}

#[test]
fn a_table_of_no_bytes_is_announced_and_keeps_nothing() {
    let mut encoder = Encoder::new();
    encoder.set_peer_max(0);
    let fields = [text("server", "ringwall")];
    let first = encoded(&mut encoder, &fields);
    assert_eq!(first[0], 0x20);
    assert_eq!(encoded(&mut encoder, &fields), first[1..]);
    assert_eq!(encoded(&mut encoder, &fields), first[1..]);
    assert_eq!(encoder.held(), 0);
}

#[test]
fn the_smallest_size_between_two_blocks_is_announced_too() {
    let mut encoder = Encoder::new();
    for size in [1000, 100, 2000] {
        encoder.set_peer_max(size);
    }
    assert_eq!(encoded(&mut encoder, &[]), bytes("3f45 3fb10f"));
    assert!(encoded(&mut encoder, &[]).is_empty());
    // Back to where it was, but what was there is gone.
    encoder.set_peer_max(0);
    encoder.set_peer_max(2000);
    assert_eq!(encoded(&mut encoder, &[]), bytes("20 3fb10f"));
    // A larger one than we use is none that is announced.
    encoder.set_peer_max(65536);
    encoder.set_peer_max(1 << 20);
    assert_eq!(encoded(&mut encoder, &[]), bytes("3fe11f"));
}

#[test]
fn a_size_is_set_at_the_start_and_within_the_limit_only() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(
        decoded(&mut decoder, &bytes("20 3fe11f 82")),
        [text(":method", "GET")]
    );
    assert_eq!(refused(&bytes("82 20")), HpackError::TableSize);
    assert_eq!(refused(&bytes("3fe21f")), HpackError::TableSize);
    let mut larger = Decoder::new(65536);
    assert_eq!(decoded(&mut larger, &bytes("3fe1ff03")), []);
}

#[test]
fn an_index_of_no_field_is_refused() {
    for block in [
        "80",
        "be",
        "ff00",
        "7e 00",
        "0f2f 00",
        "1f2f 00",
        "ffffffff7f",
    ] {
        assert_eq!(refused(&bytes(block)), HpackError::Index, "{block}");
    }
    assert_eq!(refused(&bytes("ffffffffff00")), HpackError::Integer);
}

#[test]
fn a_block_that_ends_within_a_field_is_refused_wherever_it_is_cut() {
    for (_, without, with, _) in requests().into_iter().chain(responses()) {
        for block in [bytes(without), bytes(with)] {
            for end in 0..block.len() {
                let (outcome, fields) = decode(&mut Decoder::new(4096), &block[..end], NO_LIMIT);
                match outcome {
                    Ok(_) => assert!(end == 0 || !fields.is_empty()),
                    Err(error) => assert!(
                        matches!(error, HpackError::Truncated | HpackError::Index),
                        "{error:?}"
                    ),
                }
            }
        }
    }
}

#[test]
fn a_field_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(4096);
    let value = vec![b'v'; 4096];
    let mut block = bytes("41 01 61 41 01 62 40 01 6e");
    integer::write(value.len(), 7, 0, &mut block);
    block.extend_from_slice(&value);
    let fields = decoded(&mut decoder, &block);
    assert_eq!(fields[2], (b"n".into(), value, false));
    assert_eq!((decoder.table.size(), decoder.table.len()), (0, 0));
    assert_eq!(
        decode(&mut decoder, &[0xbe], NO_LIMIT).0,
        Err(HpackError::Index)
    );
}

#[test]
fn a_new_field_may_have_the_name_of_the_one_that_it_evicts() {
    let mut decoder = Decoder::new(4096);
    let name = vec![b'n'; 3000];
    let mut block = vec![0x40];
    integer::write(name.len(), 7, 0, &mut block);
    block.extend_from_slice(&name);
    block.push(0);
    for value in 0..10_u8 {
        block.extend_from_slice(&[0x7e, 1, b'a' + value]);
    }
    let fields = decoded(&mut decoder, &block);
    assert!(fields.iter().all(|field| field.0 == name));
    assert_eq!(decoder.table.len(), 1);
}

#[test]
fn a_list_beyond_the_limit_is_too_large_and_leaves_the_table_in_step() {
    let mut decoder = Decoder::new(4096);
    // 32 + 10 + 1, then three times the same.
    let block = bytes("41 01 61 be be be 41 01 62");
    let (outcome, fields) = decode(&mut decoder, &block, 2 * 43 + 42);
    assert_eq!(outcome, Ok(Outcome::TooLarge));
    assert_eq!(fields, [text(":authority", "a"), text(":authority", "a")]);
    let (outcome, fields) = decode(&mut decoder, &block, 5 * 43);
    assert_eq!((outcome, fields.len()), (Ok(Outcome::Whole), 5));
    assert_eq!(decoded(&mut decoder, &[0xbe]), [text(":authority", "b")]);
}

#[test]
fn an_hpack_bomb_is_handed_over_up_to_the_limit_only() {
    let mut decoder = Decoder::new(4096);
    let mut block = vec![0x41];
    integer::write(4000, 7, 0, &mut block);
    block.extend_from_slice(&[b'v'; 4000]);
    block.extend_from_slice(&[0xbe; 16_000]);
    let mut total = 0;
    let outcome = decoder.decode(&block, 32_768, |name, value, _| {
        total += name.len() + value.len()
    });
    assert_eq!(outcome, Ok(Outcome::TooLarge));
    assert!(total <= 32_768);
    assert!(decoder.held() <= 2 * 4096 + 64, "{}", decoder.held());
}

#[test]
fn a_block_that_copies_a_long_name_again_and_again_is_refused() {
    let mut block = vec![0x40];
    integer::write(4000, 7, 0, &mut block);
    block.extend_from_slice(&[b'n'; 4000]);
    block.push(0);
    block.extend_from_slice(&[0x7e, 0].repeat(8000));
    assert_eq!(refused(&block), HpackError::Amplified);
}

#[test]
fn a_table_is_given_back_but_for_its_fields() {
    let mut decoder = Decoder::new(4096);
    // Huffman-coded, which takes room for the longest that it could be.
    let mut block = vec![0x41];
    put(&[b'z'; 1000], true, &mut block);
    decoded(&mut decoder, &block);
    decoder.trim();
    assert!((1010..1200).contains(&decoder.held()), "{}", decoder.held());
    let field = (b":authority".to_vec(), vec![b'z'; 1000], false);
    assert_eq!(decoded(&mut decoder, &[0xbe]), [field]);
}

/// A table as §4 has it.
#[derive(Default)]
struct Model {
    fields: VecDeque<(Vec<u8>, Vec<u8>)>,
    max: usize,
}

impl Model {
    fn size(&self) -> usize {
        self.fields
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum()
    }

    fn get(&self, index: usize) -> (Vec<u8>, Vec<u8>) {
        match statics::get(index) {
            Some((name, value)) => (name.to_vec(), value.to_vec()),
            None => self.fields[index - 62].clone(),
        }
    }

    fn set_max(&mut self, max: usize) {
        self.max = max;
        while self.size() > max {
            self.fields.pop_back();
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + 32;
        while !self.fields.is_empty() && self.size() + size > self.max {
            self.fields.pop_back();
        }
        if size <= self.max {
            self.fields.push_front((name.to_vec(), value.to_vec()));
        }
    }
}

/// What an encoder may do.
#[derive(Debug, Clone)]
enum Step {
    Indexed(usize),
    /// The first byte's kind and prefix, an index or a name, and a value; whether
    /// each is Huffman-coded.
    Literal(u8, Result<usize, Vec<u8>>, Vec<u8>, [bool; 2]),
}

fn string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(b'0'..=b'z', 0..40),
        2 => vec(any::<u8>(), 0..40),
        1 => vec(b' '..=b'~', 0..900),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![(0..200_usize).prop_map(Ok), string().prop_map(Err)];
    prop_oneof![
        (0..200_usize).prop_map(Step::Indexed),
        (
            prop_oneof![4 => Just(0x40_u8), 1 => Just(0), 1 => Just(0x10)],
            name,
            string(),
            any::<[bool; 2]>()
        )
            .prop_map(|(kind, name, value, coded)| Step::Literal(kind, name, value, coded)),
    ]
}

fn put(bytes: &[u8], is_huffman: bool, out: &mut Vec<u8>) {
    let mut code = Vec::new();
    if is_huffman {
        huffman::encode(bytes, &mut code);
        integer::write(code.len(), 7, 0x80, out);
    } else {
        code.extend_from_slice(bytes);
        integer::write(code.len(), 7, 0, out);
    }
    out.extend_from_slice(&code);
}

impl Model {
    /// Does a step, and says which field that is.
    fn step(&mut self, step: &Step, out: &mut Vec<u8>) -> Field {
        // From 1 on, one of those that there are.
        let index = |any: usize| 1 + any % (61 + self.fields.len());
        match step {
            Step::Indexed(any) => {
                integer::write(index(*any), 7, 0x80, out);
                let (name, value) = self.get(index(*any));
                (name, value, false)
            }
            Step::Literal(kind, name, value, [codes_name, codes_value]) => {
                let prefix = if *kind == 0x40 { 6 } else { 4 };
                let name = match name {
                    Ok(any) => {
                        integer::write(index(*any), prefix, *kind, out);
                        self.get(index(*any)).0
                    }
                    Err(name) => {
                        out.push(*kind);
                        put(name, *codes_name, out);
                        name.clone()
                    }
                };
                put(value, *codes_value, out);
                if *kind == 0x40 {
                    self.add(&name, value);
                }
                (name, value.clone(), *kind == 0x10)
            }
        }
    }
}

/// Fields of which some come again.
fn fields() -> impl Strategy<Value = Vec<Field>> {
    let name = prop_oneof![
        "server|date|content-type|x-a|x-b|x-cc|vary|etag|cookie|:path|:method|accept-encoding|grpc-status",
        "[a-z-]{0,20}",
    ];
    let value = prop_oneof![
        4 => "|1|2|/|GET|gzip, deflate|text/html; charset=utf-8",
        2 => "[ -~]{0,60}",
        1 => "[a-z]{500,1500}",
    ];
    vec(
        (name, value, proptest::bool::weighted(0.1)).prop_map(|(name, value, sensitive)| {
            (name.into_bytes(), value.into_bytes(), sensitive)
        }),
        0..30,
    )
}

/// A block of what is at most 128 fields, twice the table.
const MAX_HELD: usize = 2 * 4096 + 128 * 12;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_is_decoded_whatever_sizes_the_table_has(
        blocks in vec((vec(prop_oneof![0..300_usize, 0..6000_usize], 0..3), fields()), 0..12)
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        for (sizes, fields) in blocks {
            for size in sizes {
                encoder.set_peer_max(size);
            }
            let block = encoded(&mut encoder, &fields);
            let read = decoded(&mut decoder, &block);
            prop_assert_eq!(read.len(), fields.len());
            for ((name, value, sensitive), (read_name, read_value, is_never)) in fields.iter().zip(&read) {
                prop_assert_eq!((name, value), (read_name, read_value));
                prop_assert!(*is_never || !sensitive);
            }
            prop_assert!(encoder.held() <= MAX_HELD, "{}", encoder.held());
            prop_assert!(decoder.held() <= MAX_HELD, "{}", decoder.held());
        }
    }

    #[test]
    fn a_decoder_agrees_with_a_slow_reading_of_the_rules(
        blocks in vec((proptest::option::of(0..=4096_usize), vec(step(), 0..60)), 0..8)
    ) {
        let mut model = Model { max: 4096, ..Model::default() };
        let mut decoder = Decoder::new(4096);
        for (size, steps) in blocks {
            let mut block = Vec::new();
            if let Some(size) = size {
                integer::write(size, 5, 0x20, &mut block);
                model.set_max(size);
            }
            let expected: Vec<_> = steps.iter().map(|step| model.step(step, &mut block)).collect();
            let (outcome, read) = decode(&mut decoder, &block, NO_LIMIT);
            // The one rule that is ours.
            if outcome == Err(HpackError::Amplified) {
                return Ok(());
            }
            prop_assert_eq!(outcome, Ok(Outcome::Whole));
            prop_assert_eq!(read, expected);
            prop_assert_eq!(decoder.table.size(), model.size());
            prop_assert_eq!(decoder.table.len(), model.fields.len());
            prop_assert!(decoder.held() <= MAX_HELD, "{}", decoder.held());
        }
    }

    #[test]
    fn any_bytes_are_a_block_or_refused_within_bounded_memory(
        blocks in vec(vec(any::<u8>(), 0..300), 0..6),
        max_list in 0..2000_usize,
    ) {
        let mut decoder = Decoder::new(4096);
        for block in blocks {
            let mut total = 0;
            let outcome = decoder.decode(&block, max_list, |name, value, _| {
                total += name.len() + value.len() + 32;
            });
            prop_assert!(total <= max_list);
            prop_assert!(decoder.held() <= MAX_HELD, "{}", decoder.held());
            if outcome.is_err() {
                break;
            }
        }
    }
}
