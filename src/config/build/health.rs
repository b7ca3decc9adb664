//! `health_check`, and the `match` blocks that it refers to.

use std::collections::HashMap;
use std::time::Duration;

use super::upstream::split_parameter;
use super::values::{invalid_parameter, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::model::{HealthCheck, Proxy, ProxyHttpVersion, StatusSet};
use crate::config::syntax::Directive;
use crate::config::units;

/// What `match` blocks say, by name.
pub(super) type Matches = HashMap<Box<[u8]>, StatusSet>;

/// `match NAME { status …; }`.
pub(super) fn block(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    let mut said = None;
    for inner in d.children() {
        if &*inner.name.value == b"status" {
            set(&mut said, inner, statuses(inner)?)?;
        }
    }
    let any = StatusSet {
        ranges: Vec::new(),
        negated: true,
    };
    let name = d.arg(0).into();
    if builder.matches.insert(name, said.unwrap_or(any)).is_some() {
        let name = d.text(0);
        return Err(refuse(d, format!("duplicate match \"{name}\"")));
    }
    Ok(())
}

/// `status [!] CODE|CODE-CODE…`.
fn statuses(d: &Directive) -> Result<StatusSet> {
    let mut set = StatusSet {
        ranges: Vec::new(),
        negated: d.arg(0) == b"!",
    };
    for word in d.args.iter().skip(usize::from(set.negated)) {
        let word = &*word.value;
        let code = |text: &[u8]| {
            let code = units::number(text).and_then(|code| u16::try_from(code).ok());
            code.filter(|code| (100..=599).contains(code))
                .ok_or_else(|| invalid_parameter(d, word))
        };
        let range = match word.iter().position(|byte| *byte == b'-') {
            Some(dash) => code(&word[..dash])?..=code(&word[dash + 1..])?,
            None => code(word)?..=code(word)?,
        };
        if range.is_empty() {
            return Err(invalid_parameter(d, word));
        }
        set.ranges.push(range);
    }
    if set.ranges.is_empty() {
        return Err(refuse_directive(d, "has no status"));
    }
    Ok(set)
}

/// `health_check [PARAMETER…]` of a location with this `proxy_pass`.
pub(super) fn check(
    builder: &Builder<'_>,
    d: &Directive,
    proxy: Option<&Proxy>,
) -> Result<HealthCheck> {
    let Some((proxy, upstream)) = proxy.and_then(|proxy| Some((proxy, proxy.upstream?))) else {
        let what = "needs a \"proxy_pass\" without variables in its location";
        return Err(refuse_directive(d, what));
    };
    if proxy.http_version == ProxyHttpVersion::Http2 {
        let what = "of HTTP/2 backends is not implemented in this version";
        return Err(refuse_directive(d, what));
    }
    if proxy.tls.is_some() {
        let what = "of TLS backends is not implemented in this version";
        return Err(refuse_directive(d, what));
    }
    let mut check = HealthCheck {
        upstream,
        interval: Duration::from_secs(5),
        jitter: Duration::ZERO,
        fails: 1,
        passes: 1,
        uri: (*b"/").into(),
        port: None,
        mandatory: false,
        persistent: false,
        statuses: StatusSet::default(),
        host: proxy.host.clone(),
        connect_timeout: proxy.connect_timeout,
        read_timeout: proxy.read_timeout,
    };
    for word in &d.args {
        let word = &*word.value;
        let invalid = || invalid_parameter(d, word);
        let count = |value: &[u8]| {
            let count = units::number(value).and_then(|count| u32::try_from(count).ok());
            count.filter(|count| *count > 0).ok_or_else(invalid)
        };
        let time = |value: &[u8]| units::milliseconds(value).ok_or_else(invalid);
        match split_parameter(word) {
            (b"interval", Some(value)) => {
                check.interval = time(value)
                    .ok()
                    .filter(|time| !time.is_zero())
                    .ok_or_else(invalid)?;
            }
            (b"jitter", Some(value)) => check.jitter = time(value)?,
            (b"fails", Some(value)) => check.fails = count(value)?,
            (b"passes", Some(value)) => check.passes = count(value)?,
            (b"uri", Some(value)) => {
                let is_plain = value.iter().all(|byte| matches!(byte, 0x21..=0x7e));
                if !value.starts_with(b"/") || !is_plain {
                    return Err(invalid());
                }
                check.uri = value.into();
            }
            (b"port", Some(value)) => {
                check.port = Some(super::url::parse_port(value).ok_or_else(invalid)?);
            }
            (b"match", Some(value)) => {
                let known = builder.matches.get(value).cloned();
                check.statuses = known.ok_or_else(|| {
                    let value = String::from_utf8_lossy(value);
                    refuse(d, format!("match \"{value}\" is not defined"))
                })?;
            }
            (b"mandatory", None) => check.mandatory = true,
            (b"persistent", None) if check.mandatory => check.persistent = true,
            _ => return Err(invalid()),
        }
    }
    Ok(check)
}
