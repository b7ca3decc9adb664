//! All families, in the order in which they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cells::{Counter, HistogramSum};
use super::exposition::{Exposition, Format};
use super::worker::{BUFFER_CLASSES, Phase, STATUSES, WorkerMetrics};
use super::{Metrics, unix_seconds};

/// What a scrape tells beside what was counted.
#[derive(Debug, Default)]
pub struct Facts {
    /// Of ringwall.
    pub version: &'static str,
    /// Counts publications, from 1.
    pub generation: u64,
    /// Whatever has an end.
    pub expiries: Vec<Expiry>,
    /// By log.
    pub lost_lines: Vec<Lost>,
}

/// When a certificate or a CRL ends.
#[derive(Debug)]
pub struct Expiry {
    /// `server`, `ca`, `crl`, …
    pub kind: &'static str,
    /// Where it was read from.
    pub file: String,
    /// RFC 2253; a CRL's issuer.
    pub subject: String,
    /// Seconds since the epoch.
    pub at: i64,
}

/// Lines that a log lost.
#[derive(Debug)]
pub struct Lost {
    /// Its path or address.
    pub log: String,
    /// Since the start.
    pub lines: u64,
}

/// Certificates and CRLs that are told apart: those that end first.
const MAX_EXPIRIES: usize = 1024;

impl Metrics {
    /// The text for a scrape.
    #[must_use]
    pub fn scrape(&self, format: Format, facts: &Facts) -> String {
        let mut out = Exposition::new(format);
        let workers = self.workers();
        self.process(&mut out, facts);
        expiries(&mut out, facts);
        connections(&mut out, &workers);
        handshakes(&mut out, &workers);
        servers(&mut out, &workers);
        upstreams(&mut out, &workers);
        peers(&mut out, &workers);
        buffers(&mut out, &workers);
        rings(&mut out, &workers);
        out.finish()
    }

    fn process(&self, out: &mut Exposition, facts: &Facts) {
        out.gauge("ringwall_build_info", "What runs; always 1.");
        out.value(&[("version", facts.version)], 1);
        out.gauge(
            "process_start_time_seconds",
            "When the process was started, in seconds since the epoch.",
        );
        out.value(&[], unix_seconds(self.started));
        out.counter(
            "ringwall_config_reloads",
            "Attempts to take up a configuration after the first.",
        );
        out.total(&[("result", "ok")], self.reloads.get());
        out.total(&[("result", "failed")], self.failed_reloads.get());
        out.gauge(
            "ringwall_config_last_success_timestamp_seconds",
            "When the present configuration was taken up.",
        );
        out.value(&[], self.last_reload.get());
        out.gauge(
            "ringwall_config_generation",
            "Configurations taken up, the first included.",
        );
        out.value(&[], facts.generation);
        out.counter(
            "ringwall_log_lines_lost",
            "Lines that were dropped because a log could not keep up, or lost in failed writes.",
        );
        for lost in &facts.lost_lines {
            out.total(&[("log", &lost.log)], lost.lines);
        }
    }
}

fn expiries(out: &mut Exposition, facts: &Facts) {
    let mut first: BTreeMap<(&str, &str, &str), i64> = BTreeMap::new();
    let mut sorted: Vec<_> = facts.expiries.iter().collect();
    sorted.sort_by_key(|expiry| expiry.at);
    for expiry in sorted.into_iter().take(MAX_EXPIRIES) {
        // One series for each label set: of several the one that ends first.
        let labels = (expiry.kind, expiry.file.as_str(), expiry.subject.as_str());
        first.entry(labels).or_insert(expiry.at);
    }
    out.gauge(
        "ringwall_certificate_expiry_timestamp_seconds",
        "When a certificate ends, or a CRL is due to be replaced, in seconds since the epoch.",
    );
    for ((kind, file, subject), at) in first {
        out.value(&[("kind", kind), ("file", file), ("subject", subject)], at);
    }
}

fn connections(out: &mut Exposition, workers: &[Arc<WorkerMetrics>]) {
    let numbers: Vec<String> = (0..workers.len()).map(|n| n.to_string()).collect();
    let each = || numbers.iter().map(String::as_str).zip(workers);
    out.counter(
        "ringwall_connections_accepted",
        "Client connections accepted.",
    );
    for (number, worker) in each() {
        out.total(&[("worker", number)], worker.accepted.get());
    }
    out.counter(
        "ringwall_connections_handled",
        "Client connections served; the others met the limit of worker_connections, or no memory.",
    );
    for (number, worker) in each() {
        out.total(&[("worker", number)], worker.handled.get());
    }
    out.gauge(
        "ringwall_connections",
        "Open client connections, by what they are busy with.",
    );
    for (number, worker) in each() {
        for (phase, name) in Phase::ALL {
            let labels = [("worker", number), ("state", name)];
            out.value(&labels, worker.phase(phase).get());
        }
    }
}

fn handshakes(out: &mut Exposition, workers: &[Arc<WorkerMetrics>]) {
    let mut family = |name, help, label, of: fn(&WorkerMetrics) -> &super::Counters| {
        out.counter(name, help);
        let mut sums: Vec<(&str, u64)> = Vec::new();
        for worker in workers {
            for (index, (value, count)) in of(worker).each().enumerate() {
                match sums.get_mut(index) {
                    Some((_, sum)) => *sum += count,
                    None => sums.push((value, count)),
                }
            }
        }
        for (value, sum) in sums {
            out.total(&[(label, value)], sum);
        }
    };
    family(
        "ringwall_tls_handshakes",
        "TLS handshakes that succeeded: in full, or resumed by a ticket or from the cache.",
        "kind",
        |worker| &worker.handshakes,
    );
    family(
        "ringwall_tls_handshakes_refused",
        "TLS handshakes that failed.",
        "reason",
        |worker| &worker.refused_handshakes,
    );
    family(
        "ringwall_client_certificates",
        "What became of client certificates, handshake by handshake.",
        "result",
        |worker| &worker.client_certificates,
    );
    out.histogram(
        "ringwall_tls_handshake_duration_seconds",
        "From the accepted connection to the end of a handshake that succeeded.",
    );
    let mut sum = HistogramSum::default();
    for worker in workers {
        sum.add(&worker.handshake_duration);
    }
    out.distribution(&[], &sum);
}

#[derive(Default)]
struct ServerSum {
    statuses: [u64; STATUSES.len()],
    duration: HistogramSum,
    received: u64,
    sent: u64,
}

fn servers(out: &mut Exposition, workers: &[Arc<WorkerMetrics>]) {
    let mut sums: BTreeMap<Box<str>, ServerSum> = BTreeMap::new();
    for ((name, _), cells) in workers.iter().flat_map(|worker| worker.servers.all()) {
        let sum = sums.entry(name).or_default();
        for (sum, counter) in sum.statuses.iter_mut().zip(&cells.statuses) {
            *sum += counter.get();
        }
        sum.duration.add(&cells.duration);
        sum.received += cells.received.get();
        sum.sent += cells.sent.get();
    }
    out.counter(
        "ringwall_http_requests",
        "Requests answered, by server block and class of status.",
    );
    for (name, sum) in &sums {
        for (status, count) in STATUSES.iter().zip(sum.statuses) {
            // Nobody needs a series for 1xx where there never was one.
            if count > 0 || matches!(*status, "2xx" | "4xx" | "5xx") {
                out.total(&[("server", name), ("status", status)], count);
            }
        }
    }
    out.histogram(
        "ringwall_http_request_duration_seconds",
        "From a request's head to the end of its answer.",
    );
    for (name, sum) in &sums {
        out.distribution(&[("server", name)], &sum.duration);
    }
    out.counter(
        "ringwall_http_received_bytes",
        "Requests, heads and bodies.",
    );
    for (name, sum) in &sums {
        out.total(&[("server", name)], sum.received);
    }
    out.counter(
        "ringwall_http_sent_bytes",
        "Answers, heads and bodies, without what TLS adds.",
    );
    for (name, sum) in &sums {
        out.total(&[("server", name)], sum.sent);
    }
}

#[derive(Default)]
struct UpstreamSum {
    duration: HistogramSum,
    reused: u64,
    connected: u64,
    retries: u64,
    idle: u64,
}

fn upstreams(out: &mut Exposition, workers: &[Arc<WorkerMetrics>]) {
    let mut sums: BTreeMap<Box<str>, UpstreamSum> = BTreeMap::new();
    for ((name, _), cells) in workers.iter().flat_map(|worker| worker.upstreams.all()) {
        let sum = sums.entry(name).or_default();
        sum.duration.add(&cells.duration);
        sum.reused += cells.reused.get();
        sum.connected += cells.connected.get();
        sum.retries += cells.retries.get();
        sum.idle += cells.idle.get();
    }
    out.histogram(
        "ringwall_upstream_request_duration_seconds",
        "From the try at a backend to the end of its answer.",
    );
    for (name, sum) in &sums {
        out.distribution(&[("upstream", name)], &sum.duration);
    }
    out.counter(
        "ringwall_upstream_connections_used",
        "Tries at backends, by whether their connection was kept from before (pool) or new.",
    );
    for (name, sum) in &sums {
        out.total(&[("upstream", name), ("source", "pool")], sum.reused);
        out.total(&[("upstream", name), ("source", "new")], sum.connected);
    }
    out.counter(
        "ringwall_upstream_retries",
        "Requests sent once more after a backend failed.",
    );
    for (name, sum) in &sums {
        out.total(&[("upstream", name)], sum.retries);
    }
    out.gauge(
        "ringwall_upstream_idle_connections",
        "Connections to backends kept for the next request.",
    );
    for (name, sum) in &sums {
        out.value(&[("upstream", name)], sum.idle);
    }
}

#[derive(Default)]
struct PeerSum {
    requests: u64,
    failures: u64,
    active: u64,
    benched: bool,
}

fn peers(out: &mut Exposition, workers: &[Arc<WorkerMetrics>]) {
    let mut sums: BTreeMap<_, PeerSum> = BTreeMap::new();
    for (labels, cells) in workers.iter().flat_map(|worker| worker.peers.all()) {
        let sum = sums.entry(labels).or_default();
        sum.requests += cells.requests.get();
        sum.failures += cells.failures.get();
        sum.active += cells.active.get();
        sum.benched |= cells.benched.get() > 0;
    }
    let each = || {
        let each = sums.iter();
        each.map(|((upstream, peer), sum)| ([("upstream", &**upstream), ("peer", &**peer)], sum))
    };
    out.counter("ringwall_upstream_requests", "Tries at a backend.");
    for (labels, sum) in each() {
        out.total(&labels, sum.requests);
    }
    out.counter(
        "ringwall_upstream_failures",
        "Tries at a backend that ended without a whole answer.",
    );
    for (labels, sum) in each() {
        out.total(&labels, sum.failures);
    }
    out.gauge("ringwall_upstream_active_requests", "Tries under way.");
    for (labels, sum) in each() {
        out.value(&labels, sum.active);
    }
    out.gauge(
        "ringwall_upstream_peer_up",
        "0 while a worker sends the backend nothing because it failed, else 1.",
    );
    for (labels, sum) in each() {
        out.value(&labels, u8::from(!sum.benched));
    }
}

fn buffers(out: &mut Exposition, workers: &[Arc<WorkerMetrics>]) {
    let sum = |of: fn(&WorkerMetrics) -> &[super::Gauge; 3], class: usize| -> u64 {
        let each = workers.iter().filter_map(|worker| of(worker).get(class));
        each.map(super::Gauge::get).sum()
    };
    out.counter(
        "ringwall_buffers_allocated",
        "Network buffers that no pool could give.",
    );
    for (index, class) in BUFFER_CLASSES.iter().enumerate() {
        let count = sum(|worker| &worker.buffers_allocated, index);
        out.total(&[("class", class)], count);
    }
    out.gauge(
        "ringwall_buffers_pooled",
        "Network buffers that wait to be used.",
    );
    for (index, class) in BUFFER_CLASSES.iter().enumerate() {
        let count = sum(|worker| &worker.buffers_unused, index);
        out.value(&[("class", class)], count);
    }
}

fn rings(out: &mut Exposition, workers: &[Arc<WorkerMetrics>]) {
    let numbers: Vec<String> = (0..workers.len()).map(|n| n.to_string()).collect();
    let each = || numbers.iter().map(String::as_str).zip(workers);
    out.counter(
        "ringwall_ring_operations",
        "Operations that a worker's ring has completed, by kind.",
    );
    for (number, worker) in each() {
        for (operation, count) in worker.operations.each() {
            out.total(&[("worker", number), ("operation", operation)], count);
        }
    }
    let mut by_worker = |name, help, of: fn(&WorkerMetrics) -> &Counter| {
        out.counter(name, help);
        for (number, worker) in each() {
            out.total(&[("worker", number)], of(worker).get());
        }
    };
    by_worker(
        "ringwall_ring_wakeups",
        "Times that a worker slept until its ring had completions.",
        |worker| &worker.wakeups,
    );
    by_worker(
        "ringwall_ring_overflows",
        "Times that completions waited in the kernel because a ring's queue was full.",
        |worker| &worker.overflows,
    );
    by_worker(
        "ringwall_ring_completions_lost",
        "Completions that the kernel threw away because it had no memory for them.",
        |worker| &worker.lost_completions,
    );
}
