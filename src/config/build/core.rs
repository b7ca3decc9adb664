//! The main context and `events`.

use super::values::{
    flag, invalid_value, milliseconds, number, refuse, refuse_directive, set, small_number,
};
use super::{Builder, Result, logs};
use crate::config::error::Error;
use crate::config::model::{Core, ErrorLog, EventMethod, Located, LogLevel};
use crate::config::pem_source::secret;
use crate::config::source::path_of;
use crate::config::syntax::Directive;
use crate::config::units;

/// `worker_connections` where it is not given, as in Nginx.
const DEFAULT_CONNECTIONS: usize = 512;

/// `ssl_watch on` without an interval.
const WATCH_INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) fn build(builder: &mut Builder<'_>, directives: &[Directive]) -> Result<Core> {
    let mut draft = Draft::default();
    let mut events = None;
    for directive in directives {
        match &*directive.name.value {
            b"events" => {
                set(&mut events, directive, ())?;
                for inner in directive.children() {
                    draft.events_directive(inner)?;
                }
            }
            b"http" => {
                // About the process as a whole, wherever it stands.
                for inner in directive.children() {
                    if &*inner.name.value == b"ssl_watch" {
                        draft.main_directive(builder, inner)?;
                    }
                }
            }
            _ => draft.main_directive(builder, directive)?,
        }
    }
    if events.is_none() {
        return Err(Error::global("no \"events\" section in configuration"));
    }
    Ok(draft.finish(builder))
}

/// What has been said so far.
#[derive(Debug, Default)]
struct Draft {
    worker_processes: Option<Option<usize>>,
    worker_rlimit_nofile: Option<u64>,
    worker_rlimit_core: Option<u64>,
    core_dump_memory: Option<bool>,
    working_directory: Option<std::path::PathBuf>,
    worker_connections: Option<usize>,
    worker_shutdown_timeout: Option<std::time::Duration>,
    event_method: Option<EventMethod>,
    pid: Option<std::path::PathBuf>,
    daemon: Option<bool>,
    master_process: Option<bool>,
    user: Option<Located<(String, Option<String>)>>,
    seccomp: Option<bool>,
    landlock: Option<bool>,
    ssl_watch: Option<Option<std::time::Duration>>,
    error_logs: Vec<ErrorLog>,
}

impl Draft {
    fn main_directive(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
        match &*d.name.value {
            b"worker_processes" => {
                let value = match d.arg(0) {
                    b"auto" => None,
                    text => Some(
                        units::number(text)
                            .and_then(|value| value.try_into().ok())
                            .filter(|&value| value > 0)
                            .ok_or_else(|| invalid_value(d))?,
                    ),
                };
                set(&mut self.worker_processes, d, value)
            }
            b"worker_rlimit_core" => {
                let size = units::size(d.arg(0)).ok_or_else(|| invalid_value(d))?;
                set(&mut self.worker_rlimit_core, d, size as u64)
            }
            b"worker_rlimit_nofile" => set(&mut self.worker_rlimit_nofile, d, number(d)?),
            b"working_directory" => set(&mut self.working_directory, d, path_of(d.arg(0)).into()),
            b"worker_shutdown_timeout" => {
                set(&mut self.worker_shutdown_timeout, d, milliseconds(d)?)
            }
            b"pid" => set(&mut self.pid, d, builder.file_to_write(d.arg(0))),
            b"daemon" => set(&mut self.daemon, d, flag(d)?),
            b"seccomp" => set(&mut self.seccomp, d, flag(d)?),
            b"core_dump_memory" => set(&mut self.core_dump_memory, d, flag(d)?),
            b"landlock" => set(&mut self.landlock, d, flag(d)?),
            b"master_process" => set(&mut self.master_process, d, flag(d)?),
            b"user" => {
                let group = (d.args.len() > 1).then(|| d.text(1).into_owned());
                let value = Located {
                    value: (d.text(0).into_owned(), group),
                    position: d.position.clone(),
                };
                set(&mut self.user, d, value)
            }
            b"ssl_watch" => {
                let interval = match d.args.get(1) {
                    Some(word) => units::milliseconds(&word.value)
                        .filter(|interval| !interval.is_zero())
                        .ok_or_else(|| invalid_value(d))?,
                    None => WATCH_INTERVAL,
                };
                let value = flag(d)?.then_some(interval);
                set(&mut self.ssl_watch, d, value)
            }
            b"error_log" => {
                self.error_logs.push(logs::error_log(builder, d)?);
                Ok(())
            }
            b"env" => {
                // A bare name keeps a variable that is kept here in any case.
                let text = d.text(0);
                if let Some((name, value)) = text.split_once('=') {
                    let value = secret(value.as_bytes());
                    builder.environment.insert(name.into(), value);
                }
                Ok(())
            }
            // `http` has a builder of its own; the rest has no effect.
            _ => Ok(()),
        }
    }

    fn events_directive(&mut self, d: &Directive) -> Result<()> {
        match &*d.name.value {
            b"worker_connections" => {
                let value: usize = small_number(d)?;
                if value == 0 {
                    // Nginx takes it and then cannot even open its listeners.
                    return Err(refuse_directive(d, "invalid number"));
                }
                set(&mut self.worker_connections, d, value)
            }
            b"use" => {
                let value = match d.arg(0) {
                    b"io_uring" => EventMethod::IoUring,
                    b"epoll" => EventMethod::Epoll,
                    _ => {
                        let message = format!("invalid event type \"{}\"", d.text(0));
                        return Err(refuse(d, message));
                    }
                };
                set(&mut self.event_method, d, value)
            }
            _ => Ok(()),
        }
    }

    fn finish(self, builder: &Builder<'_>) -> Core {
        let options = builder.options;
        let mut error_logs = self.error_logs;
        if error_logs.is_empty() {
            error_logs.push(ErrorLog {
                target: options.default_error_log.clone(),
                level: LogLevel::Error,
            });
        }
        Core {
            worker_processes: self.worker_processes.unwrap_or(Some(1)),
            worker_rlimit_nofile: self.worker_rlimit_nofile,
            worker_rlimit_core: self.worker_rlimit_core,
            core_dump_memory: self.core_dump_memory.unwrap_or(false),
            working_directory: self.working_directory,
            worker_connections: self.worker_connections.unwrap_or(DEFAULT_CONNECTIONS),
            worker_shutdown_timeout: self.worker_shutdown_timeout,
            event_method: self.event_method.unwrap_or_default(),
            pid: self
                .pid
                .unwrap_or_else(|| options.prefix.join(&options.default_pid)),
            daemon: self.daemon.unwrap_or(true),
            master_process: self.master_process.unwrap_or(true),
            user: self.user,
            seccomp: self.seccomp.unwrap_or(true),
            landlock: self.landlock.unwrap_or(true),
            ssl_watch: self.ssl_watch.flatten(),
            error_logs,
        }
    }
}
