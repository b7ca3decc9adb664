//! What is to be sent and has not left: a record's worth in a buffer that grows
//! from the smallest, and more than that as segments, so that whatever gathers
//! while a send is under way leaves with the next one.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::http::h1::encode::Sink;
use crate::net::buffers::{Buffer, Gaps, SEGMENT_PAYLOAD, SEGMENTS_EACH, Segments};
use crate::net::socket::Behind;
use crate::proxy::output::Output;
use crate::proxy::transport::{TransportError, Tx};
use crate::tls::record::MAX_PLAINTEXT;

/// What is sent in one operation.
pub(super) struct Outgoing {
    record: Output,
    bulk: Option<(Segments, usize)>,
    gaps: Gaps,
}

/// The same, taken.
pub(super) enum Written {
    Record(Buffer, Range<usize>),
    Bulk(Segments, usize),
}

impl Outgoing {
    pub(super) fn new(gaps: Gaps) -> Self {
        Self {
            record: Output::default(),
            bulk: None,
            gaps,
        }
    }

    pub(super) fn take(&mut self) -> Option<Written> {
        if let Some((segments, filled)) = self.bulk.take() {
            return Some(Written::Bulk(segments, filled));
        }
        let (buffer, range) = self.record.take()?;
        Some(Written::Record(buffer, range))
    }

    /// Copies as much of `bytes` as there is room for. How much that was.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        if self.bulk.is_none() {
            if self.record.len() + bytes.len() <= MAX_PLAINTEXT {
                self.record.put(bytes);
                return bytes.len();
            }
            let mut bulk = (Segments::take(self.gaps), 0);
            if let Some((buffer, range)) = self.record.take() {
                fill(&mut bulk, buffer.get(range).unwrap_or_default());
            }
            self.bulk = Some(bulk);
        }
        let bulk = self.bulk.as_mut();
        bulk.map_or(0, |bulk| fill(bulk, bytes))
    }
}

/// Appends to the payloads of segments what there is room for.
fn fill((segments, filled): &mut (Segments, usize), bytes: &[u8]) -> usize {
    let before = *filled;
    let mut rest = bytes;
    while !rest.is_empty() && *filled < SEGMENTS_EACH * SEGMENT_PAYLOAD {
        let room = SEGMENT_PAYLOAD - *filled % SEGMENT_PAYLOAD;
        let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
        let index = *filled / SEGMENT_PAYLOAD;
        let target = segments.payload(index, *filled + now.len());
        let target = target.end - now.len()..target.end;
        if let Some(target) = segments.bytes_mut().get_mut(target) {
            target.copy_from_slice(now);
        }
        *filled += now.len();
        rest = later;
    }
    *filled - before
}

impl Written {
    /// Sends it. Cancelling it may leave a part of it sent.
    pub(super) async fn send(
        self,
        tx: &mut Tx<'_>,
        timeout: Duration,
    ) -> Result<(), TransportError> {
        match self {
            Self::Record(buffer, range) => tx
                .send(buffer, range, Behind::Nothing, timeout)
                .await
                .map(drop),
            Self::Bulk(segments, filled) => {
                let sent = tx
                    .send_segments(segments, filled, Behind::Nothing, timeout)
                    .await;
                sent.map(drop)
            }
        }
    }
}

/// All that waits, in order.
pub(super) struct Outbox {
    /// Complete, before `open`, and the bytes of each.
    whole: VecDeque<(Written, usize)>,
    open: Outgoing,
    open_bytes: usize,
    /// In all of them.
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(gaps: Gaps) -> Self {
        Self {
            whole: VecDeque::new(),
            open: Outgoing::new(gaps),
            open_bytes: 0,
            bytes: 0,
        }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Adds segments whose frames have their headers, `length` bytes with them.
    pub(super) fn put_bulk(&mut self, segments: Segments, filled: usize, length: usize) {
        self.close();
        let written = Written::Bulk(segments, filled);
        self.whole.push_back((written, length));
        self.bytes += length;
    }

    /// What is to be sent next.
    pub(super) fn take(&mut self) -> Option<Written> {
        let Some((next, length)) = self.whole.pop_front() else {
            self.bytes = 0;
            self.open_bytes = 0;
            return self.open.take();
        };
        self.bytes -= length;
        if self.whole.is_empty() {
            // An idle connection keeps no room for it.
            self.whole = VecDeque::new();
        }
        Some(next)
    }

    fn close(&mut self) {
        if let Some(written) = self.open.take() {
            let length = std::mem::take(&mut self.open_bytes);
            self.whole.push_back((written, length));
        }
    }
}

impl Sink for Outbox {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let mut rest = bytes;
        loop {
            let taken = self.open.put(rest);
            self.open_bytes += taken;
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
            self.close();
        }
    }
}

/// As TLS 1.3 has them.
#[cfg(test)]
pub(super) const GAPS: Gaps = Gaps {
    head: 5,
    lead: 0,
    tail: 17,
};

/// What was taken, without the gaps.
#[cfg(test)]
pub(super) fn plain(written: Written) -> Vec<u8> {
    match written {
        Written::Record(buffer, range) => buffer[range].to_vec(),
        Written::Bulk(mut segments, filled) => {
            let payloads = (0..SEGMENTS_EACH).map(|index| segments.plain(index, filled));
            let payloads: Vec<_> = payloads.collect();
            let bytes = segments.bytes_mut();
            payloads
                .into_iter()
                .flat_map(|range| bytes[range].to_vec())
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_comes_out_in_order_whatever_is_between() {
        let mut outbox = Outbox::new(GAPS);
        let mut expected = Vec::new();
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n / 3) as u8).collect();
        for size in [9, 300, 16_384, 9, 100_000, 5, 16_000, 70_000] {
            outbox.put(&bytes[..size]);
            expected.extend_from_slice(&bytes[..size]);
        }
        let gaps = Gaps { lead: 9, ..GAPS };
        let mut segments = Segments::take(gaps);
        let filled = segments.payload_size() + 3;
        let mut length = 0;
        for index in 0..2 {
            let range = segments.plain(index, filled);
            length += range.len();
            let part = &bytes[index * 20_000..][..range.len()];
            segments.bytes_mut()[range].copy_from_slice(part);
            expected.extend_from_slice(part);
        }
        outbox.put_bulk(segments, filled, length);
        outbox.put(b"end");
        expected.extend_from_slice(b"end");
        assert_eq!(outbox.len(), expected.len());
        let mut seen = Vec::new();
        while let Some(written) = outbox.take() {
            seen.extend(plain(written));
            assert_eq!(seen.len() + outbox.len(), expected.len());
        }
        assert!(seen == expected && outbox.take().is_none());
        assert_eq!(outbox.whole.capacity(), 0);
    }
}
