//! `error_log`, `access_log` and `log_format`.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use super::values::{has_variable, invalid_parameter, not_implemented, refuse, refuse_directive};
use super::{Builder, Result, syslog};
use crate::config::model::{
    AccessLog, ErrorLog, LogBuffering, LogEscape, LogFormat, LogLevel, LogTarget, fixed_part,
};
use crate::config::syntax::Directive;
use crate::config::units;

/// The format that exists without being defined.
pub(super) const COMBINED: &str = concat!(
    "$remote_addr - $remote_user [$time_local] \"$request\" ",
    "$status $body_bytes_sent \"$http_referer\" \"$http_user_agent\"",
);

const LEVELS: [(&str, LogLevel); 8] = [
    ("emerg", LogLevel::Emerg),
    ("alert", LogLevel::Alert),
    ("crit", LogLevel::Crit),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("notice", LogLevel::Notice),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

const SYSLOG: &[u8] = b"syslog:";

/// `error_log FILE|stderr|syslog:… [LEVEL]`.
pub(super) fn error_log(builder: &Builder<'_>, d: &Directive) -> Result<ErrorLog> {
    let target = match d.arg(0) {
        b"stderr" => LogTarget::Stderr,
        value if value.starts_with(SYSLOG) => LogTarget::Syslog(syslog::target(builder, d, value)?),
        value if value.starts_with(b"memory:") => {
            // Nginx's is read with a debugger from the dead process.
            return Err(refuse_directive(d, "does not log to memory"));
        }
        value => LogTarget::File(builder.file_to_write(value)),
    };
    let mut level = None;
    for index in 1..d.args.len() {
        let word = d.text(index);
        match LEVELS.iter().find(|(name, _)| *name == word) {
            Some(_) if level.is_some() => {
                return Err(refuse(d, format!("duplicate log level \"{word}\"")));
            }
            Some((_, found)) => level = Some(*found),
            None if word.starts_with("debug_") => return Err(not_implemented(d, d.arg(index))),
            None => return Err(refuse(d, format!("invalid log level \"{word}\""))),
        }
    }
    Ok(ErrorLog {
        target,
        level: level.unwrap_or(LogLevel::Error),
    })
}

/// `log_format NAME [escape=…] STRING…`.
pub(super) fn log_format(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    let name: Box<str> = d.text(0).into();
    if builder.formats.contains_key(&name) {
        let message = format!("duplicate \"log_format\" name \"{name}\"");
        return Err(refuse(d, message));
    }
    let mut strings = d.args.get(1..).unwrap_or_default();
    let mut escape = LogEscape::Default;
    if let Some(value) = strings
        .first()
        .and_then(|s| s.value.strip_prefix(b"escape="))
    {
        escape = match value {
            b"default" => LogEscape::Default,
            b"json" => LogEscape::Json,
            b"none" => LogEscape::None,
            _ => {
                let value = String::from_utf8_lossy(value);
                return Err(refuse(
                    d,
                    format!("unknown log format escaping \"{value}\""),
                ));
            }
        };
        strings = &strings[1..];
    }
    let joined: Vec<u8> = strings
        .iter()
        .flat_map(|s| s.value.iter().copied())
        .collect();
    let format = LogFormat {
        name: name.clone(),
        template: builder.template(&joined, &d.position)?,
        escape,
    };
    builder.formats.insert(name, Arc::new(format));
    Ok(())
}

/// The `access_log`s of one block.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessLogs {
    /// Beats whatever else the block says.
    pub(super) off: bool,
    pub(super) logs: Vec<AccessLog>,
}

impl AccessLogs {
    /// `access_log off`, `access_log FILE [FORMAT [PARAMETER…]]`.
    pub(super) fn add(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
        let value = d.arg(0);
        if value == b"off" {
            if let Some(word) = d.args.get(1) {
                return Err(invalid_parameter(d, &word.value));
            }
            self.off = true;
            return Ok(());
        }
        let (target, path) = if value.starts_with(SYSLOG) {
            (LogTarget::Syslog(syslog::target(builder, d, value)?), None)
        } else if has_variable(value) {
            let full = builder.file_to_write(value);
            let path = builder.template(full.as_os_str().as_bytes(), &d.position)?;
            builder.reach.get_mut().logs.insert(fixed_part(&path));
            (LogTarget::Computed, Some(path))
        } else {
            (LogTarget::File(builder.file_to_write(value)), None)
        };
        let name = if d.args.len() > 1 {
            d.text(1)
        } else {
            "combined".into()
        };
        // Found in any case, as in Nginx.
        let format = builder.formats.get(&*name).cloned().or_else(|| {
            let formats = builder.formats.iter();
            let mut alike = formats.filter(|(known, _)| known.eq_ignore_ascii_case(&name));
            alike.next().map(|(_, format)| Arc::clone(format))
        });
        let Some(format) = format else {
            return Err(refuse(d, format!("unknown log format \"{name}\"")));
        };
        let mut log = AccessLog {
            target,
            path,
            condition: None,
            buffering: None,
            format,
        };
        parameters(builder, d, &mut log)?;
        self.logs.push(log);
        Ok(())
    }
}

fn parameters(builder: &mut Builder<'_>, d: &Directive, log: &mut AccessLog) -> Result<()> {
    let mut size = None;
    let mut flush = None;
    for index in 2..d.args.len() {
        let word = d.arg(index);
        if let Some(value) = word.strip_prefix(b"buffer=") {
            let parsed = units::size(value).filter(|size| *size > 0);
            let value = String::from_utf8_lossy(value);
            let invalid = || refuse(d, format!("invalid buffer size \"{value}\""));
            size = Some(parsed.ok_or_else(invalid)?);
        } else if let Some(value) = word.strip_prefix(b"flush=") {
            let parsed = units::milliseconds(value).filter(|time| !time.is_zero());
            let value = String::from_utf8_lossy(value);
            let invalid = || refuse(d, format!("invalid flush time \"{value}\""));
            flush = Some(parsed.ok_or_else(invalid)?);
        } else if let Some(value) = word.strip_prefix(b"if=") {
            log.condition = Some(builder.template(value, &d.position)?);
        } else if word == b"gzip" || word.starts_with(b"gzip=") {
            return Err(not_implemented(d, word));
        } else {
            return Err(invalid_parameter(d, word));
        }
    }
    let Some(size) = size else {
        if flush.is_some() {
            let path = d.text(0);
            let message = format!("no buffer is defined for access_log \"{path}\"");
            return Err(refuse(d, message));
        }
        return Ok(());
    };
    match &log.target {
        LogTarget::Computed => {
            return Err(refuse(d, "buffered logs cannot have variables in name"));
        }
        LogTarget::Syslog(_) => return Err(refuse(d, "logs to syslog cannot be buffered")),
        LogTarget::File(_) | LogTarget::Stderr => {}
    }
    let buffering = LogBuffering { size, flush };
    let known = builder.log_buffers.entry(log.target.clone());
    if *known.or_insert(buffering) != buffering {
        let path = d.text(0);
        let message = format!("access_log \"{path}\" already defined with conflicting parameters");
        return Err(refuse(d, message));
    }
    log.buffering = Some(buffering);
    Ok(())
}

/// The reason for a directive that is handled nowhere: the table promises what
/// the build does not keep.
pub(super) fn unhandled(d: &Directive) -> crate::config::Error {
    refuse_directive(d, "is honoured by nobody")
}
