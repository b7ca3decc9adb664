//! What of a peer's frames is too much.
//!
//! What is kept is bounded where it is kept: streams, their windows, the bytes
//! of a block of fields. What costs work and is kept nowhere would be answered
//! for as long as it comes: PING, SETTINGS, PRIORITY, empty frames, windows that
//! nobody needs, and streams that are reset as soon as they are opened
//! (CVE-2023-44487, CVE-2019-9511 to -9518) or made us reset (CVE-2025-8671).
//! That is counted here.

use std::time::Duration;

use super::frame::{Head, flag, kind};

/// What a client has for frames that get it nothing: so many at once,
const BURST: u32 = 1000;
/// and so many more in each second. A ping to measure a path comes a few times
/// a second.
const REFILL: u32 = 200;
/// What a reset costs, which a stream's work has gone before: 200 at once, which
/// is more than a browser has streams to leave behind, and 40 in a second.
const RESET_COST: u32 = 5;
/// SETTINGS may be long, and each of its parameters is work.
const SETTINGS_UNIT: usize = 64;
/// Windows may be widened so often for each frame of a body that was sent, and
/// once more for so many of its bytes: the stream's and the connection's, and by
/// clients that do it in small steps.
const UPDATES_EACH: u64 = 4;
const UPDATE_BYTES: u64 = 128;
/// Frames without a payload of a body that a server may have on their way when
/// one of its streams is given up: interim and final head, trailers or an empty
/// end, and a reset.
const LATE_EACH: u32 = 4;

/// What a connection begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The client has sent more frames than can be meant well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood;

/// Keeps count of one connection's frames.
#[derive(Debug)]
pub struct Meter {
    /// At most [`BURST`].
    tokens: u32,
    /// Since some fixed moment.
    now: Duration,
    /// Up to when `tokens` has been refilled.
    refilled: Duration,
    /// How often windows may be widened, or a path be measured, before that
    /// costs tokens.
    updates: u64,
    /// Of a stream, by whose will or fault ever.
    reset_cost: u32,
    /// What may still come, in bytes of bodies and in other frames, for streams
    /// that we have given up.
    late_bytes: u64,
    late_frames: u32,
}

impl Meter {
    /// Nothing has come.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tokens: BURST,
            now: Duration::ZERO,
            refilled: Duration::ZERO,
            updates: 0,
            reset_cost: RESET_COST,
            late_bytes: 0,
            late_frames: 0,
        }
    }

    /// The same for what a server sends. It can only reset what was asked of it,
    /// or answer it wrongly, and one that is overloaded or out of order does so
    /// with all of that.
    #[must_use]
    pub fn of_server() -> Self {
        Self {
            reset_cost: 0,
            ..Self::new()
        }
    }

    /// What is counted from here on comes `now` after some fixed moment.
    pub fn set_clock(&mut self, now: Duration) {
        self.now = now;
    }

    /// Counts a frame that has come.
    ///
    /// # Errors
    /// It is too much: the connection should end.
    pub fn frame(&mut self, head: Head) -> Result<(), Flood> {
        let cost = match head.kind {
            kind::HEADERS => u32::from(head.length == 0),
            // Fields fit into the first frame, nearly always.
            kind::CONTINUATION => 1,
            kind::DATA => u32::from(head.length == 0 && !head.has(flag::END_STREAM)),
            kind::RST_STREAM => self.reset_cost,
            kind::SETTINGS => u32::try_from(1 + head.length / SETTINGS_UNIT).unwrap_or(u32::MAX),
            kind::PING if head.has(flag::ACK) => 0,
            // gRPC measures the path with a PING for what it receives.
            kind::WINDOW_UPDATE | kind::PING if self.updates > 0 => {
                self.updates -= 1;
                0
            }
            // PING, GOAWAY, PRIORITY and its successor, windows that nothing
            // was sent for, and what nobody knows.
            _ => 1,
        };
        self.charge(cost)
    }

    /// A stream was asked for that there is no room for, or a frame came for
    /// one that is over.
    ///
    /// # Errors
    /// As [`Meter::frame`].
    pub fn in_vain(&mut self) -> Result<(), Flood> {
        self.charge(1)
    }

    /// A stream had to be reset for what came on it.
    ///
    /// # Errors
    /// As [`Meter::frame`].
    pub fn provoked(&mut self) -> Result<(), Flood> {
        self.charge(self.reset_cost)
    }

    /// We have reset a stream on which the peer, a server, could still send so
    /// many bytes. It need not know yet (RFC 9113 §5.1), but by then it could not
    /// have sent more.
    pub fn give_up(&mut self, window: usize) {
        self.late_bytes = self.late_bytes.saturating_add(window as u64);
        self.late_frames = self.late_frames.saturating_add(LATE_EACH);
    }

    /// A part of a body has come on a stream that is over.
    ///
    /// # Errors
    /// As [`Meter::frame`].
    pub fn late_data(&mut self, length: usize) -> Result<(), Flood> {
        if length == 0 {
            return self.late();
        }
        self.late_bytes = self.late_bytes.checked_sub(length as u64).ok_or(Flood)?;
        Ok(())
    }

    /// Another frame has.
    ///
    /// # Errors
    /// As [`Meter::frame`].
    pub fn late(&mut self) -> Result<(), Flood> {
        match self.late_frames.checked_sub(1) {
            Some(left) => self.late_frames = left,
            None => self.in_vain()?,
        }
        Ok(())
    }

    /// A stream has come to its proper end: as much is granted as its reset
    /// would have cost.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + RESET_COST).min(BURST);
    }

    /// So much of a body was sent, for which the client will widen its windows.
    pub fn sent(&mut self, length: usize) {
        let updates = UPDATES_EACH + length as u64 / UPDATE_BYTES;
        self.updates = self.updates.saturating_add(updates);
    }

    fn charge(&mut self, cost: u32) -> Result<(), Flood> {
        if cost == 0 {
            return Ok(());
        }
        self.refill();
        self.tokens = self.tokens.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }

    fn refill(&mut self) {
        let since = self.now.saturating_sub(self.refilled);
        let earned = since.as_millis() * u128::from(REFILL) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.refilled = self.now;
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

    fn frame(kind: u8, flags: u8, length: usize) -> Head {
        Head {
            length,
            kind,
            flags,
            stream: 1,
        }
    }

    /// How many of these frames one client may send at once.
    fn granted(frame: Head) -> usize {
        let mut meter = Meter::new();
        let mut sent = 0;
        while sent < 100_000 && meter.frame(frame).is_ok() {
            sent += 1;
        }
        sent
    }

    #[test]
    fn what_gets_a_client_nothing_is_granted_in_bounds() {
        for (frame, most) in [
            (frame(kind::PING, 0, 8), 1000),
            (frame(kind::SETTINGS, 0, 6), 1000),
            (frame(kind::SETTINGS, 0, 6 * 100), 100),
            (frame(kind::PRIORITY, 0, 5), 1000),
            (frame(kind::DATA, 0, 0), 1000),
            (frame(kind::HEADERS, 0, 0), 1000),
            (frame(kind::CONTINUATION, 0, 1), 1000),
            (frame(kind::WINDOW_UPDATE, 0, 4), 1000),
            (frame(kind::RST_STREAM, 0, 4), 200),
            (frame(0x40, 0, 0), 1000),
        ] {
            assert_eq!(granted(frame), most, "{frame:?}");
        }
    }

    #[test]
    fn what_carries_a_request_or_answers_our_bytes_is_not_counted() {
        for frame in [
            frame(kind::DATA, 0, 1),
            frame(kind::DATA, flag::END_STREAM, 0),
            frame(kind::HEADERS, flag::END_HEADERS, 30),
            frame(kind::PING, flag::ACK, 8),
        ] {
            assert_eq!(granted(frame), 100_000, "{frame:?}");
        }
        let mut meter = Meter::new();
        for _ in 0..10_000 {
            meter.sent(16_384);
            for _ in 0..2 {
                let update = frame(kind::WINDOW_UPDATE, 0, 4);
                meter.frame(update).unwrap();
            }
        }
        assert_eq!(meter.tokens, BURST);
    }

    #[test]
    fn time_and_finished_streams_grant_more() {
        let ping = frame(kind::PING, 0, 8);
        let reset = frame(kind::RST_STREAM, 0, 4);
        let mut meter = Meter::new();
        for second in 0..100 {
            meter.set_clock(Duration::from_secs(second));
            for _ in 0..190 {
                meter.frame(ping).unwrap();
            }
        }
        let mut meter = Meter::new();
        for _ in 0..10_000 {
            meter.frame(reset).unwrap();
            meter.earn();
        }
    }
}
