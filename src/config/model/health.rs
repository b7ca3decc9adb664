//! `health_check` and `match`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::UpstreamId;

/// One `health_check`: what is asked of every peer of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Whose peers.
    pub upstream: UpstreamId,
    /// `interval=`: the time between two questions. Default 5 s.
    pub interval: Duration,
    /// `jitter=`: up to so much more, at random. Default 0.
    pub jitter: Duration,
    /// `fails=`: failures in a row that make a peer unhealthy. Default 1.
    pub fails: u32,
    /// `passes=`: successes in a row that make it healthy. Default 1.
    pub passes: u32,
    /// `uri=`. Default `/`.
    pub uri: Box<[u8]>,
    /// `port=`: in place of the peer's own.
    pub port: Option<u16>,
    /// `mandatory`: a peer gets nothing before it has passed.
    pub mandatory: bool,
    /// `mandatory persistent`: one that had passed before a reload has passed.
    pub persistent: bool,
    /// `match=`. Default 200 to 399.
    pub statuses: StatusSet,
    /// What is asked for: `$proxy_host`.
    pub host: Box<str>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long sending and the answer's head may take, each.
    pub read_timeout: Duration,
}

/// `status` of a `match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet {
    /// One of these.
    pub ranges: Vec<RangeInclusive<u16>>,
    /// Or rather none of these.
    pub negated: bool,
}

impl Default for StatusSet {
    fn default() -> Self {
        Self {
            ranges: vec![200..=399],
            negated: false,
        }
    }
}

impl StatusSet {
    /// Whether an answer of this status is a success.
    pub fn passes(&self, status: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&status)) != self.negated
    }
}
