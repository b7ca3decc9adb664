//! `limit_req` and `limit_conn`: how much of what one client may have.

use super::model::LogLevel;
use super::template::Template;

/// `limit_req_zone` or `limit_conn_zone`: what is counted, and where.
#[derive(Debug)]
pub struct LimitZone {
    /// Its name.
    pub name: Box<str>,
    /// Requests with the same value are counted together; those without one
    /// are not counted.
    pub key: Template,
    /// The same as written: a zone with another key counts something else, and
    /// starts anew at a reload.
    pub key_text: Box<[u8]>,
    /// Bytes that the states may take in Nginx's measure: 64 for a short key.
    pub size: usize,
    /// Of a zone for requests: thousandths of a request per second, never 0.
    pub rate: u64,
}

/// What holds in a location.
#[derive(Debug)]
pub struct Limits {
    /// `limit_req`, in file order.
    pub requests: Vec<RequestLimit>,
    /// `limit_req_status`. Default 503.
    pub request_status: u16,
    /// `limit_req_log_level`, for refusals. Default error.
    pub request_log_level: LogLevel,
    /// The same for delays: one level less severe.
    pub delay_log_level: LogLevel,
    /// `limit_req_dry_run`: nothing is refused or delayed. Default off.
    pub request_dry_run: bool,
    /// `limit_conn`, in file order.
    pub connections: Vec<ConnectionLimit>,
    /// `limit_conn_status`. Default 503.
    pub connection_status: u16,
    /// `limit_conn_log_level`. Default error.
    pub connection_log_level: LogLevel,
    /// `limit_conn_dry_run`. Default off.
    pub connection_dry_run: bool,
}

/// `limit_req zone=NAME [burst=N] [nodelay|delay=N]`, in thousandths of a
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimit {
    /// Index into [`super::Config::request_zones`].
    pub zone: usize,
    /// More than that above the rate is refused. Default 0.
    pub burst: u64,
    /// More than that above the rate is delayed. Default 0.
    pub delay: u64,
}

/// `limit_conn NAME N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// Index into [`super::Config::connection_zones`].
    pub zone: usize,
    /// Requests being served at the same time.
    pub limit: u32,
}
