//! `syslog:server=…,facility=…,tag=…,severity=…,nohostname`
//! (`ngx_syslog_parse_args`).

use super::url::{self, Target};
use super::values::refuse;
use super::{Builder, Result};
use crate::config::model::{SyslogTarget, UpstreamAddress};
use crate::config::syntax::Directive;

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
];
const LOCAL7: u8 = 23;
const INFO: u8 = 6;
const DEFAULT_PORT: u16 = 514;
/// Of RFC 3164.
const MAX_TAG: usize = 32;

/// The target that a value beginning with `syslog:` describes.
pub(super) fn target(builder: &Builder<'_>, d: &Directive, value: &[u8]) -> Result<SyslogTarget> {
    let value = String::from_utf8_lossy(value);
    let (_, parameters) = value.split_once(':').unwrap_or_default();
    let (mut server, mut facility, mut severity, mut tag) = (None, None, None, None);
    let mut nohostname = false;
    for parameter in parameters.split(',') {
        match parameter.split_once('=') {
            Some(("server", value)) => {
                once(d, &mut server, "server", address(builder, d, value)?)?;
            }
            Some(("facility", value)) => {
                let index = index(d, &FACILITIES, "facility", value)?;
                once(d, &mut facility, "facility", index)?;
            }
            Some(("severity", value)) => {
                let index = index(d, &SEVERITIES, "severity", value)?;
                once(d, &mut severity, "severity", index)?;
            }
            Some(("tag", value)) => {
                if value.len() > MAX_TAG {
                    return Err(refuse(d, "syslog tag length exceeds 32"));
                }
                if !value
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_')
                {
                    let what = "syslog \"tag\" only allows alphanumeric characters and underscore";
                    return Err(refuse(d, what));
                }
                once(d, &mut tag, "tag", value)?;
            }
            None if parameter == "nohostname" => nohostname = true,
            _ => {
                let message = format!("unknown syslog parameter \"{parameter}\"");
                return Err(refuse(d, message));
            }
        }
    }
    Ok(SyslogTarget {
        server: server.ok_or_else(|| refuse(d, "no syslog server specified"))?,
        facility: facility.unwrap_or(LOCAL7),
        severity: severity.unwrap_or(INFO),
        tag: tag.unwrap_or("nginx").into(),
        nohostname,
    })
}

fn once<T>(d: &Directive, slot: &mut Option<T>, name: &str, value: T) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(refuse(d, format!("duplicate syslog \"{name}\"")));
    }
    Ok(())
}

fn index(d: &Directive, names: &[&str], what: &str, value: &str) -> Result<u8> {
    let index = names.iter().position(|name| *name == value);
    index
        .and_then(|index| u8::try_from(index).ok())
        .ok_or_else(|| refuse(d, format!("unknown syslog {what} \"{value}\"")))
}

fn address(builder: &Builder<'_>, d: &Directive, value: &str) -> Result<UpstreamAddress> {
    let fail = |reason: &str| refuse(d, format!("{reason} in syslog server \"{value}\""));
    let url = url::parse(value.as_bytes()).map_err(fail)?;
    if let Target::Unix(path) = url.target {
        return Ok(UpstreamAddress::Unix(path));
    }
    let addresses = url::resolve_target(builder, &url.target, DEFAULT_PORT);
    let first = addresses.and_then(|addresses| addresses.into_iter().next());
    first.ok_or_else(|| fail("host not found"))
}
