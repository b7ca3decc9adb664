//! What of a peer's frames is too much.
//!
//! The protocol core bounds what it keeps: streams, resets that nobody has
//! looked at, the size of a list of fields, the number of its continuations,
//! tiny DATA frames. What costs work and is kept nowhere it answers for as long
//! as it comes: PING, SETTINGS, PRIORITY, empty frames, and streams that are
//! reset as soon as they are opened (CVE-2023-44487, CVE-2019-9511 to -9518).
//! That is counted here, by the headers of the frames alone.

use std::time::Duration;

/// What a client has for frames that get it nothing: so many at once,
const BURST: u32 = 1000;
/// and so many more in each second. A ping to measure a path comes a few times
/// a second.
const REFILL: u32 = 200;
/// What a reset costs, which a stream's work has gone before: 200 at once, which
/// is more than a browser has streams to leave behind, and 40 in a second.
const RESET_COST: u32 = 5;
/// SETTINGS may be long, and each of its parameters is work.
const SETTINGS_UNIT: u32 = 64;

/// The preface's length (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The client has sent more frames than can be meant well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood;

/// Watches one connection's bytes from its preface on.
#[derive(Debug)]
pub struct Meter {
    /// Bytes that are not looked at: the preface's, then payloads'.
    skip: usize,
    header: [u8; HEADER],
    /// Of `header`. Less than [`HEADER`] between calls.
    filled: usize,
    /// A block of fields has begun and its last frame has not.
    is_in_block: bool,
    /// Its last frame has begun, and is what is skipped.
    ends_block: bool,
    /// At most [`BURST`].
    tokens: u32,
    /// Up to when `tokens` has been refilled.
    refilled: Duration,
}

impl Meter {
    /// Before the preface.
    #[must_use]
    pub fn new() -> Self {
        Self {
            skip: PREFACE.len(),
            header: [0; HEADER],
            filled: 0,
            is_in_block: false,
            ends_block: false,
            tokens: BURST,
            refilled: Duration::ZERO,
        }
    }

    /// Counts what has come, `now` after some fixed moment.
    ///
    /// # Errors
    /// It is too much: the connection should end.
    pub fn observe(&mut self, mut bytes: &[u8], now: Duration) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let now = self.skip.min(bytes.len());
                self.skip -= now;
                bytes = bytes.get(now..).unwrap_or_default();
                self.end_block();
                continue;
            }
            let missing = HEADER.saturating_sub(self.filled);
            let (taken, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            let place = self.filled..self.filled + taken.len();
            if let Some(target) = self.header.get_mut(place) {
                target.copy_from_slice(taken);
            }
            self.filled += taken.len();
            bytes = rest;
            if self.filled == HEADER {
                self.filled = 0;
                self.frame(now)?;
                self.end_block();
            }
        }
        Ok(())
    }

    /// Whether a request's fields have come in part.
    #[must_use]
    pub fn is_in_fields(&self) -> bool {
        self.is_in_block
    }

    /// A stream has come to its proper end: as much is granted as its reset
    /// would have cost.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + RESET_COST).min(BURST);
    }

    fn end_block(&mut self) {
        if self.skip == 0 && self.ends_block {
            self.ends_block = false;
            self.is_in_block = false;
        }
    }

    fn frame(&mut self, now: Duration) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = length as usize;
        let has = |flag| flags & flag != 0;
        let cost = match kind {
            HEADERS | CONTINUATION => {
                self.is_in_block = true;
                self.ends_block = has(END_HEADERS);
                u32::from(length == 0)
            }
            DATA => u32::from(length == 0 && !has(END_STREAM)),
            RST_STREAM => RESET_COST,
            SETTINGS => 1 + length / SETTINGS_UNIT,
            PING if has(ACK) => 0,
            PING => 1,
            // Each is the answer to bytes that were sent.
            WINDOW_UPDATE => 0,
            GOAWAY => 1,
            // PRIORITY, its successor, and what nobody knows.
            _ => 1,
        };
        if cost == 0 {
            return Ok(());
        }
        self.refill(now);
        self.tokens = self.tokens.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }

    fn refill(&mut self, now: Duration) {
        let since = now.saturating_sub(self.refilled);
        let earned = since.as_millis() * u128::from(REFILL) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.refilled = now;
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn begun() -> Meter {
        let mut meter = Meter::new();
        meter.observe(PREFACE, Duration::ZERO).unwrap();
        meter
    }

    /// How many of these frames one client may send at once.
    fn granted(frame: &[u8]) -> usize {
        let mut meter = begun();
        let mut sent = 0;
        while sent < 100_000 && meter.observe(frame, Duration::ZERO).is_ok() {
            sent += 1;
        }
        sent
    }

    #[test]
    fn what_gets_a_client_nothing_is_granted_in_bounds() {
        assert_eq!(granted(&frame(PING, 0, &[0; 8])), 1000);
        assert_eq!(granted(&frame(SETTINGS, 0, &[0; 6])), 1000);
        assert_eq!(granted(&frame(2, 0, &[0; 5])), 1000);
        assert_eq!(granted(&frame(DATA, 0, &[])), 1000);
        assert_eq!(granted(&frame(CONTINUATION, 0, &[])), 1000);
        assert_eq!(granted(&frame(0x40, 0, &[])), 1000);
        assert_eq!(granted(&frame(RST_STREAM, 0, &[0; 4])), 200);
        assert_eq!(granted(&frame(SETTINGS, 0, &[0; 6 * 100])), 100);
    }

    #[test]
    fn what_carries_a_request_or_answers_our_bytes_is_not_counted() {
        for (kind, flags, length) in [
            (DATA, 0, 1),
            (DATA, END_STREAM, 0),
            (HEADERS, END_HEADERS, 30),
            (WINDOW_UPDATE, 0, 4),
            (PING, ACK, 8),
        ] {
            assert_eq!(granted(&frame(kind, flags, &vec![0; length])), 100_000);
        }
    }

    #[test]
    fn time_and_finished_streams_grant_more() {
        let ping = frame(PING, 0, &[0; 8]);
        let reset = frame(RST_STREAM, 0, &[0; 4]);
        let mut meter = begun();
        for second in 0..100 {
            for _ in 0..190 {
                let now = Duration::from_secs(second);
                meter.observe(&ping, now).unwrap();
            }
        }
        let mut meter = begun();
        for _ in 0..10_000 {
            meter.observe(&reset, Duration::ZERO).unwrap();
            meter.earn();
        }
    }

    #[test]
    fn fields_are_on_their_way_until_their_last_byte() {
        let mut meter = begun();
        meter
            .observe(&frame(HEADERS, 0, b"abc"), Duration::ZERO)
            .unwrap();
        assert!(meter.is_in_fields());
        let last = frame(CONTINUATION, END_HEADERS, b"abc");
        meter.observe(&last[..10], Duration::ZERO).unwrap();
        assert!(meter.is_in_fields());
        meter.observe(&last[10..], Duration::ZERO).unwrap();
        assert!(!meter.is_in_fields());
        meter
            .observe(&frame(HEADERS, END_HEADERS, b""), Duration::ZERO)
            .unwrap();
        assert!(!meter.is_in_fields());
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_counts_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cuts in proptest::collection::vec(1..40_usize, 0..40),
        ) {
            let mut whole = begun();
            let expected = whole.observe(&bytes, Duration::ZERO);
            let mut pieces = begun();
            let mut rest = &bytes[..];
            let mut seen = Ok(());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                seen = seen.and(pieces.observe(now, Duration::ZERO));
                rest = later;
            }
            prop_assert_eq!(seen, expected);
            if seen.is_ok() {
                prop_assert_eq!(pieces.is_in_fields(), whole.is_in_fields());
                prop_assert_eq!(pieces.tokens, whole.tokens);
            }
        }
    }
}
