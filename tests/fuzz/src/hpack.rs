//! Blocks of fields are decoded within their limits, or refused; and what has
//! been decoded is the same when it is encoded and decoded again.

use ringwall::http::h2::hpack::{Decoder, Encoder, Outcome};

const TABLE: usize = 4096;
/// Twice the table's bytes, and 12 for each of the 128 fields that it can have.
const MAX_HELD: usize = 2 * TABLE + 128 * 12;

type Fields = Vec<(Vec<u8>, Vec<u8>, bool)>;

/// The first byte says how large a list may be, and the second how large the
/// table that its fields are encoded with again. Then come blocks, each after a
/// byte of its length; the last takes what is left.
pub fn hpack(bytes: &[u8]) {
    let Some(([max_list, table], mut rest)) = bytes.split_first_chunk() else {
        return;
    };
    let max_list = usize::from(*max_list) * 64;
    let (mut decoder, mut encoder, mut again) =
        (Decoder::new(TABLE), Encoder::new(), Decoder::new(TABLE));
    encoder.set_peer_max(usize::from(*table) * 32);
    while let Some((length, after)) = rest.split_first() {
        let length = usize::from(*length).min(after.len());
        let (block, after) = after.split_at(length);
        rest = after;
        let Some(fields) = decode(&mut decoder, block, max_list) else {
            return;
        };
        let mut block = Vec::new();
        encoder.begin(&mut block);
        for (name, value, is_sensitive) in &fields {
            if *is_sensitive {
                encoder.sensitive(name, value, &mut block);
            } else {
                encoder.field(name, value, &mut block);
            }
        }
        assert!(encoder.held() <= MAX_HELD, "{}", encoder.held());
        let mut read = decode(&mut again, &block, max_list).expect("what we write is right");
        for (read, sent) in read.iter_mut().zip(&fields) {
            // It may have become a secret by its name, and never the reverse.
            assert!(read.2 || !sent.2);
            read.2 = sent.2;
        }
        assert_eq!(read, fields);
    }
}

/// The fields that fit, or none if the block is refused.
fn decode(decoder: &mut Decoder, block: &[u8], max_list: usize) -> Option<Fields> {
    let (mut fields, mut total) = (Fields::new(), 0);
    let outcome = decoder.decode(block, max_list, |name, value, is_sensitive| {
        total += name.len() + value.len() + 32;
        fields.push((name.to_vec(), value.to_vec(), is_sensitive));
    });
    assert!(total <= max_list);
    assert!(decoder.held() <= MAX_HELD, "{}", decoder.held());
    if outcome == Ok(Outcome::Whole) && !block.is_empty() && fields.is_empty() {
        // Sizes of the table, and nothing else.
        assert!(block[0] & 0xe0 == 0x20);
    }
    outcome.is_ok().then_some(fields)
}
