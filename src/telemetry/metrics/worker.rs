//! What one worker counts.

use std::sync::Arc;
use std::time::Duration;

use super::cells::{Counter, Counters, Gauge, Histogram};
use super::families::Family;

/// Server blocks that are told apart; more share a label.
const MAX_SERVERS: usize = 256;
/// Upstreams that are told apart.
const MAX_UPSTREAMS: usize = 256;
/// Backends that are told apart.
const MAX_PEERS: usize = 1024;

/// How a handshake succeeded.
pub const HANDSHAKES: &[&str] = &["full", "ticket", "cache"];
/// Classes of buffers, smallest first.
pub const BUFFER_CLASSES: [&str; 3] = ["small", "medium", "large"];
/// Classes of statuses; 0 stands for requests that got none.
pub(super) const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What a connection is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Becoming one with TLS.
    Handshaking,
    /// Without a request.
    Waiting,
    /// A request's head is coming.
    Reading,
    /// A request is being answered.
    Writing,
}

impl Phase {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Handshaking, "handshaking"),
        (Self::Waiting, "idle"),
        (Self::Reading, "reading"),
        (Self::Writing, "writing"),
    ];
}

/// The cells of one worker. Nobody else writes them.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Connections that the kernel handed over.
    pub accepted: Counter,
    /// Connections that were served, or are.
    pub handled: Counter,
    /// Requests, from their first byte on.
    pub requests: Counter,
    /// By their numbers.
    phases: [Gauge; 4],
    /// By how it succeeded.
    pub handshakes: Counters,
    /// By reason.
    pub refused_handshakes: Counters,
    /// Of those that succeeded.
    pub handshake_duration: Histogram,
    /// Verdicts about client certificates.
    pub client_certificates: Counters,
    /// Buffers that had to be allocated, by class.
    pub buffers_allocated: [Gauge; 3],
    /// Buffers that wait to be used, by class.
    pub buffers_unused: [Gauge; 3],
    /// Operations that the driver has completed, by kind.
    pub operations: Counters,
    /// Times that the worker's thread slept and was woken.
    pub wakeups: Counter,
    /// Times that completions waited for room in the driver's queue.
    pub overflows: Counter,
    /// Completions that never came.
    pub lost_completions: Counter,
    pub(super) servers: Family<ServerMetrics>,
    pub(super) upstreams: Family<UpstreamMetrics>,
    pub(super) peers: Family<PeerMetrics>,
}

/// The label values that only the layers above know.
#[derive(Debug, Clone, Copy)]
pub struct LabelLists {
    /// Why handshakes fail; the last stands for everything else.
    pub refusals: &'static [&'static str],
    /// What becomes of client certificates; the last stands for everything else.
    pub client_certificates: &'static [&'static str],
    /// What is asked of the kernel.
    pub operations: &'static [&'static str],
}

impl WorkerMetrics {
    pub(super) fn new(labels: LabelLists) -> Self {
        Self {
            accepted: Counter::default(),
            handled: Counter::default(),
            requests: Counter::default(),
            phases: Default::default(),
            handshakes: Counters::new(HANDSHAKES),
            refused_handshakes: Counters::new(labels.refusals),
            handshake_duration: Histogram::default(),
            client_certificates: Counters::new(labels.client_certificates),
            buffers_allocated: Default::default(),
            buffers_unused: Default::default(),
            operations: Counters::new(labels.operations),
            wakeups: Counter::default(),
            overflows: Counter::default(),
            lost_completions: Counter::default(),
            servers: Family::new(MAX_SERVERS),
            upstreams: Family::new(MAX_UPSTREAMS),
            peers: Family::new(MAX_PEERS),
        }
    }

    /// A connection begins, ends, or goes from one phase to another.
    pub fn move_phase(&self, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from {
            self.phase(from).decrement();
        }
        if let Some(to) = to {
            self.phase(to).increment();
        }
    }

    /// Connections in this phase.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> &Gauge {
        // Not a match: that would jump by a table, several times a request.
        &self.phases[phase as usize]
    }

    /// Connections in any phase.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.phases.iter().map(Gauge::get).sum()
    }

    /// The cells of a server block. Takes a lock: at load only.
    #[must_use]
    pub fn server(&self, name: &str) -> Arc<ServerMetrics> {
        self.servers.get(name, "")
    }

    /// The cells of an upstream. Takes a lock: at load only.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams.get(name, "")
    }

    /// The cells of a backend. Takes a lock: at load only.
    #[must_use]
    pub fn peer(&self, upstream: &str, peer: &str) -> Arc<PeerMetrics> {
        self.peers.get(upstream, peer)
    }

    /// The worker that these belonged to is gone: nothing of it goes on, but
    /// what it counted stays.
    pub(super) fn take_over(&self) {
        let buffers = self.buffers_allocated.iter().chain(&self.buffers_unused);
        self.phases
            .iter()
            .chain(buffers)
            .for_each(|gauge| gauge.set(0));
    }
}

/// What one worker counts for one server block.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    pub(super) statuses: [Counter; 6],
    pub(super) duration: Histogram,
    pub(super) received: Counter,
    pub(super) sent: Counter,
}

impl ServerMetrics {
    /// A request has been answered, with these bytes received and sent.
    pub fn answered(&self, status: u16, duration: Duration, received: u64, sent: u64) {
        let class = usize::from(status / 100);
        if let Some(counter) = self.statuses.get(class).or(self.statuses.first()) {
            counter.increment();
        }
        self.duration.observe(duration);
        self.received.add(received);
        self.sent.add(sent);
    }
}

/// What one worker counts for one upstream.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    /// How long its backends take for a whole answer.
    pub duration: Histogram,
    /// Requests on a connection that was kept.
    pub reused: Counter,
    /// Requests on a connection of their own.
    pub connected: Counter,
    /// Requests sent once more, to another backend.
    pub retries: Counter,
    /// Connections that wait for a request.
    pub idle: Gauge,
}

/// What one worker counts for one backend.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    /// Tries, whatever came of them.
    pub requests: Counter,
    /// Tries that ended without a whole answer.
    pub failures: Counter,
    /// Tries under way.
    pub active: Gauge,
    /// 1 while this worker sends it nothing because it failed.
    pub benched: Gauge,
}
