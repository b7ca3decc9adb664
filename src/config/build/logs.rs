//! `error_log`, `access_log` and `log_format`.

use std::sync::Arc;

use super::values::{has_variable, invalid_parameter, not_implemented, refuse, refuse_directive};
use super::{Builder, Result};
use crate::config::model::{AccessLog, ErrorLog, LogEscape, LogFormat, LogLevel, LogTarget};
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

/// `error_log FILE|stderr [LEVEL]`.
pub(super) fn error_log(builder: &Builder<'_>, d: &Directive) -> Result<ErrorLog> {
    let target = match d.arg(0) {
        b"stderr" => LogTarget::Stderr,
        value if value.starts_with(b"syslog:") || value.starts_with(b"memory:") => {
            return Err(not_implemented(d, value));
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
        if value.starts_with(b"syslog:") || has_variable(value) {
            return Err(not_implemented(d, value));
        }
        let name = if d.args.len() > 1 {
            d.text(1)
        } else {
            "combined".into()
        };
        let Some(format) = builder.formats.get(&*name).cloned() else {
            return Err(refuse(d, format!("unknown log format \"{name}\"")));
        };
        for index in 2..d.args.len() {
            access_log_parameter(builder, d, d.arg(index))?;
        }
        self.logs.push(AccessLog {
            target: LogTarget::File(builder.file_to_write(value)),
            format,
        });
        Ok(())
    }
}

fn access_log_parameter(builder: &mut Builder<'_>, d: &Directive, word: &[u8]) -> Result<()> {
    if let Some(value) = word.strip_prefix(b"buffer=") {
        if units::size(value).is_none_or(|size| size == 0) {
            let value = String::from_utf8_lossy(value);
            return Err(refuse(d, format!("invalid buffer size \"{value}\"")));
        }
    } else if let Some(value) = word.strip_prefix(b"flush=") {
        if units::milliseconds(value).is_none_or(|time| time.is_zero()) {
            let value = String::from_utf8_lossy(value);
            return Err(refuse(d, format!("invalid flush time \"{value}\"")));
        }
    } else if word.starts_with(b"if=") || word.starts_with(b"gzip") {
        return Err(not_implemented(d, word));
    } else {
        return Err(invalid_parameter(d, word));
    }
    let word = String::from_utf8_lossy(word);
    let text = format!(
        "\"{word}\" of \"access_log\" directive has no effect here: log lines are always buffered"
    );
    if !builder.remarks.iter().any(|remark| remark.text == text) {
        builder.notice(&d.position, text);
    }
    Ok(())
}

/// The reason for a directive that is handled nowhere: the table promises what
/// the build does not keep.
pub(super) fn unhandled(d: &Directive) -> crate::config::Error {
    refuse_directive(d, "is honoured by nobody")
}
