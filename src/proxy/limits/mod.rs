//! The pre-access phase: `limit_req` and `limit_conn`, counted over all
//! workers.

mod connections;
mod requests;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::config::{Config, LimitZone, Limits};
use crate::telemetry::error_log::{Level, Text};

use super::exchange::BodySource;
use super::forward::Failure;
use super::gateway::level;
use super::log;
use super::patience::wait;
use super::request::Request;
use super::variables::expand;

use connections::{ConnectionTable, Slot};
use requests::{Pin, RequestTable, Verdict};

/// Longer keys are not counted, as in Nginx.
const LONGEST_REQUEST_KEY: usize = 65_535;
/// The same for `limit_conn`.
const LONGEST_CONNECTION_KEY: usize = 255;

/// What the limits have said of a request. They speak once: an internal
/// redirect is not another request.
#[derive(Debug, Default)]
pub(crate) struct Limited {
    /// `$limit_req_status`.
    pub(crate) requests: Option<&'static str>,
    /// `$limit_conn_status`.
    pub(crate) connections: Option<&'static str>,
    slots: Vec<Slot>,
}

/// Holds a request against the limits of its location: refuses it, or delays
/// it, or counts it and lets it pass.
///
/// # Errors
/// The status that it is refused with; or the client is gone.
///
/// Cancelling it leaves the request counted and without an answer.
pub(super) async fn check(
    request: &mut Request<'_>,
    limits: &Limits,
    body: &mut impl BodySource,
) -> Result<(), Failure> {
    if !limits.requests.is_empty() && request.limited.requests.is_none() {
        let delay = check_requests(request, limits)?;
        if !delay.is_zero() {
            wait(request, delay, body).await?;
        }
    }
    if !limits.connections.is_empty() && request.limited.connections.is_none() {
        check_connections(request, limits)?;
    }
    Ok(())
}

/// How long the request must wait.
fn check_requests(request: &mut Request<'_>, limits: &Limits) -> Result<Duration, Failure> {
    let gateway = &request.view.gateway;
    let mut pins: Vec<(usize, Pin)> = Vec::new();
    let mut key = Vec::new();
    // The limit that decides, and the excess by which it does.
    let (mut counted, mut any) = (None, false);
    let mut refused = None;
    for (index, limit) in limits.requests.iter().enumerate() {
        let zone = gateway.config.request_zones.get(limit.zone);
        let table = gateway.limit_tables.requests.get(limit.zone);
        let (Some(zone), Some(table)) = (zone, table) else {
            continue;
        };
        if !read_key(request, zone, LONGEST_REQUEST_KEY, &mut key) {
            continue;
        }
        any = true;
        let is_last = index + 1 == limits.requests.len();
        match table.check(&key, milliseconds(), zone.rate, limit.burst, is_last) {
            Verdict::Counted(excess) => counted = Some((index, excess)),
            Verdict::Pending(pin) => pins.push((index, pin)),
            Verdict::Busy(excess) => {
                refused = Some((zone, Some(excess)));
                break;
            }
            Verdict::Full => {
                refused = Some((zone, None));
                break;
            }
        }
    }
    let table_of = |index: usize| {
        let limit = limits.requests.get(index)?;
        let zone = gateway.config.request_zones.get(limit.zone)?;
        Some((limit, zone, gateway.limit_tables.requests.get(limit.zone)?))
    };
    let dry_run = limits.request_dry_run;
    let suffix = if dry_run { ", dry run" } else { "" };
    if let Some((zone, excess)) = refused {
        for (index, pin) in pins {
            if let Some((_, _, table)) = table_of(index) {
                table.release(pin);
            }
        }
        let name = &zone.name;
        match excess {
            Some(excess) => log::request_error(
                request,
                level(limits.request_log_level),
                format_args!(
                    "limiting requests{suffix}, excess: {} by zone \"{name}\"",
                    Thousandths(excess)
                ),
            ),
            None => log::request_error(
                request,
                Level::Alert,
                format_args!("could not allocate node in limit_req zone \"{name}\""),
            ),
        }
        request.limited.requests = Some(if dry_run {
            "REJECTED_DRY_RUN"
        } else {
            "REJECTED"
        });
        return match dry_run {
            true => Ok(Duration::ZERO),
            false => Err(Failure::Status(limits.request_status)),
        };
    }
    if !any {
        return Ok(Duration::ZERO);
    }
    // All let it pass, so all of them count it; the longest delay is the one.
    let mut longest: Option<(u64, u64, &LimitZone)> = None;
    let excesses = pins.into_iter().rev().filter_map(|(index, pin)| {
        let (_, zone, table) = table_of(index)?;
        Some((index, table.account(pin, milliseconds(), zone.rate)))
    });
    for (index, excess) in counted.into_iter().chain(excesses) {
        let Some((limit, zone, _)) = table_of(index) else {
            continue;
        };
        let delay = requests::delay(excess, limit.delay, zone.rate);
        if delay > longest.map_or(0, |(delay, ..)| delay) {
            longest = Some((delay, excess, zone));
        }
    }
    let Some((delay, excess, zone)) = longest else {
        request.limited.requests = Some("PASSED");
        return Ok(Duration::ZERO);
    };
    log::request_error(
        request,
        level(limits.delay_log_level),
        format_args!(
            "delaying request{suffix}, excess: {}, by zone \"{}\"",
            Thousandths(excess),
            zone.name
        ),
    );
    request.limited.requests = Some(if dry_run {
        "DELAYED_DRY_RUN"
    } else {
        "DELAYED"
    });
    Ok(match dry_run {
        true => Duration::ZERO,
        false => Duration::from_millis(delay),
    })
}

fn check_connections(request: &mut Request<'_>, limits: &Limits) -> Result<(), Failure> {
    let gateway = &request.view.gateway;
    let mut slots = Vec::new();
    let mut key = Vec::new();
    for limit in &limits.connections {
        let zone = gateway.config.connection_zones.get(limit.zone);
        let table = gateway.limit_tables.connections.get(limit.zone);
        let (Some(zone), Some(table)) = (zone, table) else {
            continue;
        };
        if !read_key(request, zone, LONGEST_CONNECTION_KEY, &mut key) {
            continue;
        }
        request.limited.connections = Some("PASSED");
        match table.enter(&key, limit.limit) {
            Some(slot) => slots.push(slot),
            None => {
                // Those of the other zones are given back with `slots`.
                let dry_run = limits.connection_dry_run;
                let suffix = if dry_run { ", dry run" } else { "" };
                log::request_error(
                    request,
                    level(limits.connection_log_level),
                    format_args!("limiting connections{suffix} by zone \"{}\"", zone.name),
                );
                if dry_run {
                    request.limited.connections = Some("REJECTED_DRY_RUN");
                    return Ok(());
                }
                request.limited.connections = Some("REJECTED");
                return Err(Failure::Status(limits.connection_status));
            }
        }
    }
    request.limited.slots = slots;
    Ok(())
}

/// The value that the request is counted by; `false` if it is not counted.
fn read_key(request: &Request<'_>, zone: &LimitZone, longest: usize, key: &mut Vec<u8>) -> bool {
    key.clear();
    expand(&zone.key, request, key);
    if key.len() > longest {
        let (name, value) = (Text(&zone.key_text), Text(key));
        log::request_error(
            request,
            Level::Error,
            format_args!(
                "the value of the \"{name}\" key is more than {longest} bytes: \"{value}\""
            ),
        );
        return false;
    }
    !key.is_empty()
}

/// On a clock that all workers share and nobody sets.
fn milliseconds() -> u64 {
    /// So that a state that was never counted is old from the beginning.
    const AHEAD: u64 = 1 << 40;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Below 2^64 for the next half billion years.
    AHEAD + START.elapsed().as_millis() as u64
}

/// As Nginx writes an excess.
struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// The counters of a configuration's zones, by their index in it.
#[derive(Debug)]
pub(crate) struct Tables {
    requests: Vec<Arc<RequestTable>>,
    connections: Vec<Arc<ConnectionTable>>,
}

impl Tables {
    /// Those of the zones that an earlier configuration had already, and new
    /// ones for the others: a reload forgets nothing.
    pub(super) fn of(config: &Config) -> Self {
        static REQUESTS: Known<RequestTable> = LazyLock::new(Mutex::default);
        static CONNECTIONS: Known<ConnectionTable> = LazyLock::new(Mutex::default);
        Self {
            requests: adopt(&REQUESTS, &config.request_zones, RequestTable::new),
            connections: adopt(&CONNECTIONS, &config.connection_zones, ConnectionTable::new),
        }
    }
}

/// Tables in use, by what makes two zones the same: name, key and size.
type Known<T> = LazyLock<Mutex<HashMap<ZoneIdentity, Weak<T>>>>;
type ZoneIdentity = (Box<str>, Box<[u8]>, usize);

fn adopt<T>(known: &Known<T>, zones: &[LimitZone], new: impl Fn(usize) -> T) -> Vec<Arc<T>> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, table| table.strong_count() > 0);
    let tables = zones.iter().map(|zone| {
        let identity = (zone.name.clone(), zone.key_text.clone(), zone.size);
        if let Some(table) = known.get(&identity).and_then(Weak::upgrade) {
            return table;
        }
        let table = Arc::new(new(zone.size));
        known.insert(identity, Arc::downgrade(&table));
        table
    });
    tables.collect()
}
