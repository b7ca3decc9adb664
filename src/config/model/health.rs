//! `health_check` and `match`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{ProxyTls, UpstreamId};
use crate::config::regexes::Pattern;

/// One `health_check`: what is asked of every peer of an upstream.
#[derive(Debug, Clone)]
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
    /// `match=`. Default: a status of 200 to 399.
    pub expects: Arc<Expectation>,
    /// How TLS is spoken to the peers, if it is; with a name and a certificate
    /// that no request has a say in.
    pub tls: Option<Arc<ProxyTls>>,
    /// What is asked for: `$proxy_host`.
    pub host: Box<str>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long sending and the answer's head may take, each.
    pub read_timeout: Duration,
}

/// What a `match` block demands of an answer: all of it.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// `status`.
    pub statuses: StatusSet,
    /// `header`.
    pub fields: Vec<FieldTest>,
    /// `body ~ REGEX`, or with `true` `body !~ REGEX`.
    pub body: Option<(Pattern, bool)>,
}

/// `header NAME …`.
#[derive(Debug, Clone)]
pub struct FieldTest {
    /// The field's name.
    pub name: Box<[u8]>,
    /// What one of its values is to be.
    pub value: ValueTest,
    /// `!`, `!=` or `!~`: or rather not.
    pub negated: bool,
}

/// What a value is to be.
#[derive(Debug, Clone)]
pub enum ValueTest {
    /// There.
    Any,
    /// `=`: this.
    Is(Box<[u8]>),
    /// `~`: something in which this is found.
    Matches(Pattern),
}

impl FieldTest {
    /// Whether a field with these values, or with none, is as it should be. One
    /// whose expression takes too many steps is not.
    pub fn passes<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        let found = match &self.value {
            ValueTest::Any => values.next().is_some(),
            ValueTest::Is(expected) => values.any(|value| *value == **expected),
            ValueTest::Matches(pattern) => {
                let mut failed = false;
                let found = values.any(|value| match pattern.is_match(value) {
                    Ok(found) => found,
                    Err(_) => {
                        failed = true;
                        false
                    }
                });
                if failed {
                    return false;
                }
                found
            }
        };
        found != self.negated
    }
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
