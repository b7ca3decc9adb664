//! `limit_req_zone`, `limit_req`, `limit_conn_zone`, `limit_conn` and what
//! goes with them.

use std::sync::Arc;

use super::upstream::split_parameter;
use super::values::{flag, invalid_parameter, number, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::limits::{ConnectionLimit, LimitZone, Limits, RequestLimit};
use crate::config::model::LogLevel;
use crate::config::syntax::Directive;
use crate::config::units;

/// Nginx wants eight pages of memory for a zone.
const SMALLEST_ZONE: usize = 8 * 4096;

/// The zones of `http`.
#[derive(Debug, Default)]
pub(super) struct Zones {
    pub(super) requests: Vec<LimitZone>,
    pub(super) connections: Vec<LimitZone>,
}

/// `limit_req_zone KEY zone=NAME:SIZE rate=RATE`, `limit_conn_zone KEY
/// zone=NAME:SIZE`.
pub(super) fn zone(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    let for_requests = &*d.name.value == b"limit_req_zone";
    let key = builder.template(d.arg(0), &d.position)?;
    let (mut zone, mut rate) = (None, 1000);
    for index in 1..d.args.len() {
        let word = d.arg(index);
        match split_parameter(word) {
            (b"zone", Some(value)) => zone = Some(name_and_size(d, index, value)?),
            (b"rate", Some(value)) if for_requests => {
                let invalid = || refuse(d, format!("invalid rate \"{}\"", d.text(index)));
                rate = self::rate(value).ok_or_else(invalid)?;
            }
            _ => return Err(invalid_parameter(d, word)),
        }
    }
    let Some((name, size)) = zone.filter(|(name, _)| !name.is_empty()) else {
        let message = format!("\"{}\" must have \"zone\" parameter", d.name());
        return Err(refuse(d, message));
    };
    let zones = &mut builder.limit_zones;
    let (own, other) = match for_requests {
        true => (&mut zones.requests, &zones.connections),
        false => (&mut zones.connections, &zones.requests),
    };
    if let Some(before) = own.iter().find(|before| before.name == name) {
        let key = String::from_utf8_lossy(&before.key_text);
        let message = format!("{} \"{name}\" is already bound to key \"{key}\"", d.name());
        return Err(refuse(d, message));
    }
    if other.iter().any(|before| before.name == name) {
        let message =
            format!("the shared memory zone \"{name}\" is already declared for a different use");
        return Err(refuse(d, message));
    }
    own.push(LimitZone {
        name,
        key,
        key_text: d.arg(0).into(),
        size,
        rate,
    });
    Ok(())
}

fn name_and_size(d: &Directive, index: usize, value: &[u8]) -> Result<(Box<str>, usize)> {
    let colon = value.iter().position(|byte| *byte == b':');
    let parts = colon.map(|colon| (&value[..colon], &value[colon + 1..]));
    let parsed = parts.and_then(|(name, size)| Some((name, units::size(size)?)));
    let Some((name, size)) = parsed else {
        let message = format!("invalid zone size \"{}\"", d.text(index));
        return Err(refuse(d, message));
    };
    if size < SMALLEST_ZONE {
        return Err(refuse(
            d,
            format!("zone \"{}\" is too small", d.text(index)),
        ));
    }
    Ok((String::from_utf8_lossy(name).into(), size))
}

/// `NUMBER[r/s|r/m]`, in thousandths of a request per second.
fn rate(value: &[u8]) -> Option<u64> {
    let (digits, scale) = match (value.strip_suffix(b"r/s"), value.strip_suffix(b"r/m")) {
        (Some(digits), _) => (digits, 1),
        (_, Some(digits)) => (digits, 60),
        _ => (value, 1),
    };
    let rate = units::number(digits)?.checked_mul(1000)? / scale;
    (rate > 0).then_some(rate)
}

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct LimitSettings {
    requests: Option<Arc<Vec<RequestLimit>>>,
    request_status: Option<u16>,
    request_log_level: Option<LogLevel>,
    request_dry_run: Option<bool>,
    connections: Option<Arc<Vec<ConnectionLimit>>>,
    connection_status: Option<u16>,
    connection_log_level: Option<LogLevel>,
    connection_dry_run: Option<bool>,
}

impl LimitSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"limit_req" => {
                let limit = request_limit(&builder.limit_zones, d)?;
                let limits = Arc::make_mut(self.requests.get_or_insert_default());
                if limits.iter().any(|before| before.zone == limit.zone) {
                    return Err(refuse_directive(d, "is duplicate"));
                }
                limits.push(limit);
            }
            b"limit_req_status" => set(&mut self.request_status, d, status(d)?)?,
            b"limit_req_log_level" => set(&mut self.request_log_level, d, log_level(d)?)?,
            b"limit_req_dry_run" => set(&mut self.request_dry_run, d, flag(d)?)?,
            b"limit_conn" => {
                let limit = connection_limit(&builder.limit_zones, d)?;
                let limits = Arc::make_mut(self.connections.get_or_insert_default());
                if limits.iter().any(|before| before.zone == limit.zone) {
                    return Err(refuse_directive(d, "is duplicate"));
                }
                limits.push(limit);
            }
            b"limit_conn_status" => set(&mut self.connection_status, d, status(d)?)?,
            b"limit_conn_log_level" => set(&mut self.connection_log_level, d, log_level(d)?)?,
            b"limit_conn_dry_run" => set(&mut self.connection_dry_run, d, flag(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A block that has any limit of a kind takes none of that kind from
    /// outside.
    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            requests, request_status, request_log_level, request_dry_run,
            connections, connection_status, connection_log_level, connection_dry_run
        );
    }

    /// What holds; `None` where nothing is limited.
    pub(super) fn finish(&self) -> Option<Box<Limits>> {
        const STATUS: u16 = 503;
        if self.requests.is_none() && self.connections.is_none() {
            return None;
        }
        let request_log_level = self.request_log_level.unwrap_or(LogLevel::Error);
        Some(Box::new(Limits {
            requests: self.requests.as_deref().cloned().unwrap_or_default(),
            request_status: self.request_status.unwrap_or(STATUS),
            request_log_level,
            delay_log_level: match request_log_level {
                LogLevel::Error => LogLevel::Warn,
                LogLevel::Warn => LogLevel::Notice,
                _ => LogLevel::Info,
            },
            request_dry_run: self.request_dry_run.unwrap_or(false),
            connections: self.connections.as_deref().cloned().unwrap_or_default(),
            connection_status: self.connection_status.unwrap_or(STATUS),
            connection_log_level: self.connection_log_level.unwrap_or(LogLevel::Error),
            connection_dry_run: self.connection_dry_run.unwrap_or(false),
        }))
    }
}

fn request_limit(zones: &Zones, d: &Directive) -> Result<RequestLimit> {
    let (mut zone, mut burst, mut delay) = (None, 0, 0);
    // In thousandths, like the counters.
    let positive = |value| {
        units::number(value)
            .and_then(|number| number.checked_mul(1000))
            .filter(|number| *number > 0)
    };
    for index in 0..d.args.len() {
        let word = d.arg(index);
        match split_parameter(word) {
            (b"zone", Some(name)) => zone = Some(find(&zones.requests, d, name)?),
            (b"burst", Some(value)) => {
                burst = positive(value).ok_or_else(|| {
                    refuse(d, format!("invalid burst value \"{}\"", d.text(index)))
                })?;
            }
            (b"delay", Some(value)) => {
                delay = positive(value).ok_or_else(|| {
                    refuse(d, format!("invalid delay value \"{}\"", d.text(index)))
                })?;
            }
            (b"nodelay", None) => delay = u64::MAX,
            _ => return Err(invalid_parameter(d, word)),
        }
    }
    let zone = zone.ok_or_else(|| {
        let message = format!("\"{}\" must have \"zone\" parameter", d.name());
        refuse(d, message)
    })?;
    Ok(RequestLimit { zone, burst, delay })
}

fn connection_limit(zones: &Zones, d: &Directive) -> Result<ConnectionLimit> {
    const MOST: u32 = 65_535;
    let zone = find(&zones.connections, d, d.arg(0))?;
    let limit = units::number(d.arg(1)).filter(|limit| *limit > 0);
    let limit = limit.ok_or_else(|| {
        refuse(
            d,
            format!("invalid number of connections \"{}\"", d.text(1)),
        )
    })?;
    match u32::try_from(limit) {
        Ok(limit) if limit <= MOST => Ok(ConnectionLimit { zone, limit }),
        _ => Err(refuse(d, "connection limit must be less 65536")),
    }
}

fn find(zones: &[LimitZone], d: &Directive, name: &[u8]) -> Result<usize> {
    zones
        .iter()
        .position(|zone| zone.name.as_bytes() == name)
        .ok_or_else(|| {
            // What Nginx says of a zone that is used and nowhere defined.
            let name = String::from_utf8_lossy(name);
            refuse(d, format!("zero size shared memory zone \"{name}\""))
        })
}

fn status(d: &Directive) -> Result<u16> {
    let status = number(d)?;
    u16::try_from(status)
        .ok()
        .filter(|status| (400..=599).contains(status))
        .ok_or_else(|| refuse(d, "value must be between 400 and 599"))
}

fn log_level(d: &Directive) -> Result<LogLevel> {
    match d.arg(0) {
        b"info" => Ok(LogLevel::Info),
        b"notice" => Ok(LogLevel::Notice),
        b"warn" => Ok(LogLevel::Warn),
        b"error" => Ok(LogLevel::Error),
        _ => Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
    }
}
