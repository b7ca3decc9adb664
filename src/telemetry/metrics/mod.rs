//! Figures about the process, for Prometheus and for `stub_status`.
//!
//! ```text
//! worker 0 ── its own cells ──┐
//! worker 1 ── its own cells ──┼── summed at scrape ──► text
//! main thread ── reloads ─────┘
//! ```
//!
//! Recording takes no lock and allocates nothing: handles are found when a
//! configuration is taken up ([`WorkerMetrics::server`]), and each cell has one
//! writer (`cells` tells why). Scraping may run on any worker; it sees each
//! cell whole, though not all of them at the same instant.

mod cells;
mod exposition;
mod families;
mod scrape;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::cells::{Counter, Counters, Gauge, Histogram};
pub use self::exposition::Format;
pub use self::scrape::{Expiry, Facts, Lost};
pub use self::worker::{
    BUFFER_CLASSES, HANDSHAKES, LabelLists, PeerMetrics, Phase, ServerMetrics, UpstreamMetrics,
    WorkerMetrics,
};

/// The figures of the process.
#[derive(Debug)]
pub struct Metrics {
    /// By their number; an entry that nobody else holds waits for a new worker.
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    started: SystemTime,
    /// Configurations taken up after the first. Written by the main thread.
    pub reloads: Counter,
    /// Configurations refused. Written by the main thread.
    pub failed_reloads: Counter,
    /// Seconds since the epoch. Written by the main thread.
    last_reload: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            workers: Mutex::default(),
            started: SystemTime::now(),
            reloads: Counter::default(),
            failed_reloads: Counter::default(),
            last_reload: Gauge::default(),
        }
    }
}

impl Metrics {
    /// The cells for a worker that begins: those of one that has left, so that
    /// its counts are not lost, or fresh ones.
    pub fn register(&self, labels: LabelLists) -> Arc<WorkerMetrics> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let free = workers.iter().find(|cells| Arc::strong_count(cells) == 1);
        if let Some(cells) = free {
            cells.take_over();
            return Arc::clone(cells);
        }
        let cells = Arc::new(WorkerMetrics::new(labels));
        workers.push(Arc::clone(&cells));
        cells
    }

    /// A configuration is in force from now on.
    pub fn took_up_configuration(&self) {
        self.last_reload.set(unix_seconds(SystemTime::now()));
    }

    fn workers(&self) -> Vec<Arc<WorkerMetrics>> {
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What `stub_status` says of all workers.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = Status::default();
        for worker in self.workers() {
            status.active += worker.active();
            status.accepted += worker.accepted.get();
            status.handled += worker.handled.get();
            status.requests += worker.requests.get();
            status.reading += worker.phase(Phase::Reading).get();
            status.writing += worker.phase(Phase::Writing).get();
            status.waiting +=
                worker.phase(Phase::Waiting).get() + worker.phase(Phase::Handshaking).get();
        }
        status
    }
}

/// Nginx's figures about connections.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Open, waiting ones included.
    pub active: u64,
    /// Handed over by the kernel, ever.
    pub accepted: u64,
    /// Served, ever.
    pub handled: u64,
    /// Ever.
    pub requests: u64,
    /// Whose request is coming.
    pub reading: u64,
    /// Whose request is being answered.
    pub writing: u64,
    /// Without a request; as in Nginx those still in their handshake too.
    pub waiting: u64,
}

impl std::fmt::Display for Status {
    /// Byte for byte what `ngx_http_stub_status_module` sends.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            active,
            accepted,
            handled,
            requests,
            reading,
            writing,
            waiting,
        } = self;
        write!(
            f,
            "Active connections: {active} \n\
             server accepts handled requests\n \
             {accepted} {handled} {requests} \n\
             Reading: {reading} Writing: {writing} Waiting: {waiting} \n"
        )
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: LabelLists = LabelLists {
        refusals: &["timeout", "other"],
        client_certificates: &["accepted", "other"],
        operations: &["receive", "send"],
    };

    #[test]
    fn a_worker_that_leaves_hands_its_counts_to_the_next() {
        let metrics = Metrics::default();
        let first = metrics.register(LABELS);
        let second = metrics.register(LABELS);
        first.requests.add(3);
        first.move_phase(None, Some(Phase::Waiting));
        second.requests.add(4);
        drop(first);
        let third = metrics.register(LABELS);
        third.requests.increment();
        let status = metrics.status();
        assert_eq!((status.requests, status.active), (8, 0));
        assert_eq!(metrics.workers().len(), 2);
    }

    #[test]
    fn the_status_has_the_bytes_of_nginx() {
        let metrics = Metrics::default();
        let worker = metrics.register(LABELS);
        worker.accepted.add(9);
        worker.handled.add(8);
        worker.requests.add(7);
        worker.move_phase(None, Some(Phase::Waiting));
        worker.move_phase(None, Some(Phase::Handshaking));
        worker.move_phase(Some(Phase::Handshaking), Some(Phase::Writing));
        assert_eq!(
            metrics.status().to_string(),
            "Active connections: 2 \nserver accepts handled requests\n 9 8 7 \n\
             Reading: 0 Writing: 1 Waiting: 1 \n"
        );
    }
}
