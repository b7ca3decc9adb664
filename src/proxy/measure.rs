//! What is counted where, and the two handlers that show it.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::http::head::{FieldId, Method};
use crate::net::now::now;
use crate::net::{buffers, operations};
use crate::telemetry::metrics::{
    Expiry, Facts, Format, LabelLists, Lost, PeerMetrics, ServerMetrics, WorkerMetrics,
};
use crate::tls::client_auth::RefusalReason;
use crate::tls::resumption::Source;

use super::balance::Group;
use super::exchange::ResponseSink;
use super::forward::Failure;
use super::gateway::Gateway;
use super::handshake::{Accepted, Rejected};
use super::request::{Addressee, Request};
use super::respond;

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The client's certificate, or the lack of one.
    Certificate,
    /// The client closed the connection.
    Closed,
    /// Nobody serves the name that the client asked for.
    Name,
    /// The connection broke.
    Network,
    /// What the client sent, or what it can.
    Protocol,
    Timeout,
}

impl Obstacle {
    const ALL: [&'static str; 6] = [
        "client certificate",
        "closed by client",
        "unknown server name",
        "network error",
        "timeout",
        "protocol error",
    ];

    fn label(self) -> &'static str {
        let [certificate, closed, name, network, timeout, protocol] = Self::ALL;
        match self {
            Self::Certificate => certificate,
            Self::Closed => closed,
            Self::Name => name,
            Self::Network => network,
            Self::Protocol => protocol,
            Self::Timeout => timeout,
        }
    }
}

const CERTIFICATE_ACCEPTED: &str = "accepted";
const NO_CERTIFICATE: &str = "none";
/// What is counted under no other label.
const OTHER: &str = "other";

static CERTIFICATE_RESULTS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut labels = vec![CERTIFICATE_ACCEPTED, NO_CERTIFICATE];
    for reason in RefusalReason::ALL.map(RefusalReason::text) {
        // Several may share their words.
        if !labels.contains(&reason) {
            labels.push(reason);
        }
    }
    labels.push(OTHER);
    labels
});

/// The labels of a worker's cells.
pub(crate) fn labels() -> LabelLists {
    LabelLists {
        refusals: &Obstacle::ALL,
        client_certificates: &CERTIFICATE_RESULTS,
        operations: &operations::OPERATIONS,
    }
}

/// A connection on a TLS port has become one with TLS, or is plain HTTP.
pub(crate) fn accepted(metrics: &WorkerMetrics, accepted: &Accepted, since: Instant) {
    let Some(tls) = &accepted.tls else {
        return;
    };
    let kind = match accepted.resumed_by.filter(|_| tls.resumed) {
        None => "full",
        Some(Source::Ticket) => "ticket",
        Some(Source::Cache) => "cache",
    };
    metrics.handshakes.increment(kind);
    metrics.handshake_duration.observe(since.elapsed());
    let result = match (&tls.client, &tls.unverified) {
        (Some(_), _) => CERTIFICATE_ACCEPTED,
        (None, Some(unverified)) => unverified.failure().unwrap_or(NO_CERTIFICATE),
        (None, None) => NO_CERTIFICATE,
    };
    metrics.client_certificates.increment(result);
}

/// A handshake has failed.
pub(crate) fn rejected(metrics: &WorkerMetrics, rejected: &Rejected) {
    metrics
        .refused_handshakes
        .increment(rejected.obstacle.label());
    if let Some(reason) = rejected.refusal {
        metrics.client_certificates.increment(reason.text());
    }
}

/// A request has been answered, or cut off.
pub(crate) fn answered(request: &Request<'_>) {
    let duration = now().duration_since(request.received);
    let answer = &request.answer;
    if let Some(server) = request.view.metrics.servers.get(request.server.id) {
        server.answered(answer.status, duration, request.length, answer.bytes);
    }
    // An internal redirect asks anew.
    let mut is_first = true;
    for attempt in &request.attempts {
        let is_retry = !std::mem::replace(&mut is_first, attempt.is_left);
        let Some(upstream) = request.view.upstream(attempt.upstream) else {
            continue;
        };
        if matches!(attempt.addressee, Addressee::Nobody(_)) {
            continue;
        }
        let metrics = &upstream.metrics;
        if is_retry {
            metrics.retries.increment();
        }
        // A connection from the pool takes no time at all.
        match attempt.connected {
            Some(Duration::ZERO) => metrics.reused.increment(),
            _ => metrics.connected.increment(),
        }
        if let Some(finished) = attempt.finished {
            metrics.duration.observe(finished);
        }
    }
}

/// The cells that a view's server blocks count in, by their index.
#[derive(Debug)]
pub(crate) struct ViewMetrics {
    servers: Vec<Arc<ServerMetrics>>,
}

impl ViewMetrics {
    pub(crate) fn new(metrics: &WorkerMetrics, gateway: &Gateway) -> Self {
        let names = gateway
            .config
            .servers
            .iter()
            .map(|server| match &*server.name {
                "" => "_",
                name => name,
            });
        Self {
            servers: names.map(|name| metrics.server(name)).collect(),
        }
    }
}

/// The cells of an upstream's peers, by their index.
#[derive(Debug, Default)]
pub(crate) struct PeerCells {
    peers: Vec<Arc<PeerMetrics>>,
}

impl PeerCells {
    pub(crate) fn new(metrics: &WorkerMetrics, upstream: &str, group: &Group) -> Self {
        let peers = group.peers();
        Self {
            peers: peers
                .map(|peer| metrics.peer(upstream, &peer.address.to_string()))
                .collect(),
        }
    }

    /// A try at a peer begins; it is under way until the result is dropped.
    pub(crate) fn begin(&self, peer: usize) -> Try<'_> {
        let metrics = self.peers.get(peer).map(|peer| &**peer);
        if let Some(metrics) = metrics {
            metrics.requests.increment();
            metrics.active.increment();
        }
        Try(metrics)
    }

    /// What is looked at now and then.
    pub(crate) fn sample(&self, group: &Group, now: Instant) {
        for (index, peer) in self.peers.iter().enumerate() {
            peer.benched.set(group.is_benched(index, now).into());
        }
    }
}

/// A try at a peer.
#[derive(Debug)]
pub(crate) struct Try<'m>(Option<&'m PeerMetrics>);

impl Try<'_> {
    /// The peer did not answer as it should.
    pub(crate) fn failed(&self) {
        if let Some(metrics) = self.0 {
            metrics.failures.increment();
        }
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.0 {
            metrics.active.decrement();
        }
    }
}

/// What is looked at now and then.
pub(crate) fn sample(metrics: &WorkerMetrics) {
    let usage = buffers::usage();
    let cells = metrics.buffers_allocated.iter().zip(usage.allocated);
    cells.for_each(|(cell, count)| cell.set(count));
    let cells = metrics.buffers_unused.iter().zip(usage.unused);
    cells.for_each(|(cell, count)| cell.set(count as u64));
    let activity = operations::take_activity();
    metrics.operations.add_each(&activity.completed);
    metrics.wakeups.add(activity.wakeups);
    metrics.overflows.add(activity.overflows);
    metrics.lost_completions.add(activity.lost);
}

/// `metrics;`
///
/// # Errors
/// 405 for methods other than GET and HEAD; otherwise when the client cannot
/// be written to.
pub(crate) async fn metrics(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
) -> Result<(), Failure> {
    only_reading(request)?;
    let bytes = request.head_bytes();
    let format = Format::asked_for(request.head.fields_of(bytes, FieldId::Accept));
    let gateway = &request.view.gateway;
    let text = gateway.metrics.scrape(format, &facts(gateway));
    let content_type = format.content_type().as_bytes();
    respond::fixed(request, 200, content_type, text.as_bytes(), None, sink)
        .await
        .map_err(|_| Failure::Aborted)
}

/// `stub_status;`
///
/// # Errors
/// As [`metrics`].
pub(crate) async fn stub_status(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
) -> Result<(), Failure> {
    only_reading(request)?;
    let text = request.view.gateway.metrics.status().to_string();
    respond::fixed(request, 200, b"text/plain", text.as_bytes(), None, sink)
        .await
        .map_err(|_| Failure::Aborted)
}

fn only_reading(request: &Request<'_>) -> Result<(), Failure> {
    match request.method() {
        Method::Get | Method::Head => Ok(()),
        _ => Err(Failure::Status(405)),
    }
}

fn facts(gateway: &Gateway) -> Facts {
    let expiries = gateway.certificates.iter().map(|certificate| Expiry {
        kind: certificate.kind.name(),
        file: certificate.path.display().to_string(),
        subject: certificate.subject.clone(),
        at: certificate.not_after,
    });
    let mut lost_lines: Vec<Lost> = Vec::new();
    let access = gateway.access_sinks().iter().map(|(_, sink)| sink);
    for sink in access.chain(gateway.error_sinks()) {
        let log = sink.name();
        if !lost_lines.iter().any(|known| known.log == log) {
            let lines = sink.lost_lines();
            lost_lines.push(Lost { log, lines });
        }
    }
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        generation: gateway.generation,
        expiries: expiries.collect(),
        lost_lines,
    }
}
