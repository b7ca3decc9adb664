//! How connections with clients end.

use std::time::Duration;

/// What a location says of the end of its clients' connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting {
    /// `keepalive_min_timeout`: how long an idle connection is kept even by a
    /// worker that drains. Default 0.
    pub keepalive_min_timeout: Duration,
    /// `lingering_close`. Default on.
    pub lingering: Lingering,
    /// `lingering_time`: how long what a client still sends is read. Default
    /// 30 s.
    pub lingering_time: Duration,
    /// `lingering_timeout`: how long it is waited for. Default 5 s.
    pub lingering_timeout: Duration,
    /// `reset_timedout_connection`. Default off.
    pub reset_timed_out: bool,
}

/// `lingering_close`: whether a connection waits for what a client still sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lingering {
    /// Never.
    Off,
    /// If there may be something.
    On,
    /// In any case.
    Always,
}
