//! The names that an encoder knows: their places in the static table, and
//! whether a field of that name is worth a place in the dynamic one.

use Use::{Repeats, Secret, Varies};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It may come again with the same value.
    Repeats,
    /// It has another value each time: not worth a look.
    Varies,
    /// Never indexed: whoever can have fields of their own choice sent on the
    /// same connection could guess its value, by how long blocks become
    /// (RFC 7541 §7.1).
    Secret,
}

/// A name, its first index in the static table or 0, and its use.
#[rustfmt::skip]
const NAMES: &[(&str, u8, Use)] = &[
    (":authority", 1, Repeats),
    (":method", 2, Repeats),
    (":path", 4, Varies),
    (":scheme", 6, Repeats),
    (":status", 8, Repeats),
    ("accept-charset", 15, Repeats),
    ("accept-encoding", 16, Repeats),
    ("accept-language", 17, Repeats),
    ("accept-ranges", 18, Repeats),
    ("accept", 19, Repeats),
    ("access-control-allow-origin", 20, Repeats),
    ("age", 21, Varies),
    ("allow", 22, Repeats),
    ("authorization", 23, Secret),
    ("cache-control", 24, Repeats),
    ("content-disposition", 25, Varies),
    ("content-encoding", 26, Repeats),
    ("content-language", 27, Repeats),
    ("content-length", 28, Varies),
    ("content-location", 29, Varies),
    ("content-range", 30, Varies),
    ("content-type", 31, Repeats),
    ("cookie", 32, Secret),
    ("date", 33, Repeats),
    ("etag", 34, Varies),
    ("expect", 35, Repeats),
    ("expires", 36, Varies),
    ("from", 37, Repeats),
    ("host", 38, Repeats),
    ("if-match", 39, Varies),
    ("if-modified-since", 40, Varies),
    ("if-none-match", 41, Varies),
    ("if-range", 42, Varies),
    ("if-unmodified-since", 43, Varies),
    ("last-modified", 44, Varies),
    ("link", 45, Repeats),
    ("location", 46, Varies),
    ("max-forwards", 47, Repeats),
    ("proxy-authenticate", 48, Repeats),
    ("proxy-authorization", 49, Secret),
    ("range", 50, Varies),
    ("referer", 51, Repeats),
    ("refresh", 52, Repeats),
    ("retry-after", 53, Varies),
    ("server", 54, Repeats),
    ("set-cookie", 55, Secret),
    ("strict-transport-security", 56, Repeats),
    ("transfer-encoding", 57, Repeats),
    ("user-agent", 58, Repeats),
    ("vary", 59, Repeats),
    ("via", 60, Repeats),
    ("www-authenticate", 61, Repeats),
    ("cf-ray", 0, Varies),
    ("content-digest", 0, Varies),
    ("content-md5", 0, Varies),
    ("digest", 0, Varies),
    ("grpc-message", 0, Varies),
    ("grpc-timeout", 0, Varies),
    ("ratelimit-remaining", 0, Varies),
    ("sec-websocket-accept", 0, Varies),
    ("sec-websocket-key", 0, Varies),
    ("server-timing", 0, Varies),
    ("traceparent", 0, Varies),
    ("tracestate", 0, Varies),
    ("x-amz-cf-id", 0, Varies),
    ("x-amz-id-2", 0, Varies),
    ("x-amz-request-id", 0, Varies),
    ("x-amzn-requestid", 0, Varies),
    ("x-amzn-trace-id", 0, Varies),
    ("x-b3-spanid", 0, Varies),
    ("x-b3-traceid", 0, Varies),
    ("x-correlation-id", 0, Varies),
    ("x-ratelimit-remaining", 0, Varies),
    ("x-request-id", 0, Varies),
    ("x-response-time", 0, Varies),
    ("x-runtime", 0, Varies),
    ("x-trace-id", 0, Varies),
    ("authentication-info", 0, Secret),
    ("proxy-authentication-info", 0, Secret),
    ("x-amz-security-token", 0, Secret),
    ("x-api-key", 0, Secret),
    ("x-auth-token", 0, Secret),
    ("x-csrf-token", 0, Secret),
    ("x-xsrf-token", 0, Secret),
];

/// A power of two, and enough that few names share a place.
const SLOTS: usize = 512;

/// The place in [`NAMES`] plus 1, by hash; the next slots if that is taken.
static BY_HASH: [u8; SLOTS] = {
    const BUILT: [u8; SLOTS] = build();
    BUILT
};

#[expect(
    clippy::indexing_slicing,
    reason = "runs in the compiler only, where a wrong index is an error"
)]
const fn build() -> [u8; SLOTS] {
    assert!(NAMES.len() < 255);
    let mut slots = [0; SLOTS];
    let mut at = 0;
    while at < NAMES.len() {
        let mut slot = slot_of(NAMES[at].0.as_bytes());
        while slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        at += 1;
        slots[slot] = at as u8;
    }
    slots
}

const fn slot_of(name: &[u8]) -> usize {
    hash(name, 0) as usize % SLOTS
}

/// A name's first index in the static table or 0, and its use.
#[inline]
pub(super) fn find(name: &[u8]) -> (usize, Use) {
    let mut slot = slot_of(name);
    while let Some(place @ 1..) = BY_HASH.get(slot) {
        match NAMES.get(usize::from(place - 1)) {
            Some((known, index, meant)) if known.as_bytes() == name => {
                return (usize::from(*index), *meant);
            }
            _ => slot = (slot + 1) % SLOTS,
        }
    }
    (0, Repeats)
}

/// A hash of a string's length and both its ends, which is where values differ
/// mostly. Those that do not have the same hash as another, and cost a comparison.
#[inline]
pub(super) const fn hash(bytes: &[u8], seed: u32) -> u32 {
    let (first, last) = ends(bytes);
    let mixed = first.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ last.wrapping_mul(0xc2b2_ae3d_27d4_eb4f).rotate_left(31)
        ^ bytes.len() as u64
        ^ (seed as u64) << 32;
    (mixed.wrapping_mul(0x1656_67b1_9e37_79f9) >> 32) as u32
}

/// Up to eight bytes from the start and up to the end.
#[inline]
const fn ends(bytes: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (
            u32::from_le_bytes(*first) as u64,
            u32::from_le_bytes(*last) as u64,
        );
    }
    match (bytes.first_chunk::<2>(), bytes.last()) {
        (Some([first, second]), Some(last)) => {
            (*first as u64, (*second as u64) << 8 | *last as u64)
        }
        (_, Some(only)) => (*only as u64, 0),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::statics;
    use super::*;

    #[test]
    fn every_name_of_the_static_table_is_known_by_its_first_index() {
        for index in 1..=statics::COUNT {
            let (name, _) = statics::get(index).unwrap();
            let first = (1..).find(|&at| statics::get(at).unwrap().0 == name);
            assert_eq!(Some(find(name).0), first);
        }
    }

    #[test]
    fn every_name_has_its_use_and_an_unknown_one_may_repeat() {
        for (name, index, meant) in NAMES {
            assert_eq!(
                find(name.as_bytes()),
                (usize::from(*index), *meant),
                "{name}"
            );
        }
        for name in ["", "x", "xy", "xyz", "x-custom", "x-a-rather-long-name"] {
            assert_eq!(find(name.as_bytes()), (0, Repeats), "{name}");
        }
    }

    #[test]
    fn a_known_name_is_found_at_once_or_nearly() {
        for (name, _, _) in NAMES {
            let steps = (slot_of(name.as_bytes())..SLOTS)
                .take_while(|slot| BY_HASH[*slot] != 0)
                .count();
            assert!(steps < 16, "{name}: {steps}");
        }
    }
}
