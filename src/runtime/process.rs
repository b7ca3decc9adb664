//! What the command line asks for: run, test, dump, signal.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::config::{
    self, Core, EventMethod, Explained, LoadOptions, LogLevel, LogTarget, Remark, Verdict,
};
use crate::proxy::gateway::{Gateway, level};
use crate::telemetry::clock;
use crate::telemetry::error_log::{Level, format_line};
use crate::telemetry::writer::LogFiles;
use crate::tls;

use super::cores;
use super::daemon;
use super::pidfile::{self, PidFile, describe};
use super::privileges;
use super::probe::{self, Driver};
use super::sandbox;
use super::snapshot::{Builder, Loaded, Refusal};
use super::supervisor::{self, RemarkLine, Supervisor};
use super::upgrade;
use super::working_directory::WorkingDirectory;

/// Tests a configuration: everything that a start does, short of binding.
/// Nginx's two lines go to standard error, unless `quiet`.
pub fn test(options: &LoadOptions, quiet: bool) -> ExitCode {
    cores::forbid();
    match tested(options, quiet) {
        Ok(_) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// Lists what becomes of each directive (`-t --explain`), and tests. The list
/// goes to standard output, and does not end at the first thing that is wrong.
pub fn explain(options: &LoadOptions, quiet: bool) -> ExitCode {
    let explained = match config::explain(options) {
        Ok(explained) => explained,
        Err(error) => return fail_test(options, &error),
    };
    let mut text = String::new();
    for directive in &explained {
        let class = directive.verdict.name();
        let Explained {
            name,
            position,
            remark,
            ..
        } = directive;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{class:<15} {name:<32} {position}  {remark}");
    }
    let counts = Verdict::ALL.map(|verdict| {
        let of_it = explained.iter().filter(|d| d.verdict == verdict);
        format!("{} {}", of_it.count(), verdict.name())
    });
    let _ = writeln!(
        text,
        "{} directives: {}",
        explained.len(),
        counts.join(", ")
    );
    // A reader that closes the pipe early has had enough.
    let _ = io::stdout().write_all(text.as_bytes());
    test(options, quiet)
}

/// Tests, then prints every file that the configuration consists of (`-T`).
pub fn dump(options: &LoadOptions, quiet: bool) -> ExitCode {
    cores::forbid();
    let gateway = match tested(options, quiet) {
        Ok(gateway) => gateway,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    for file in &gateway.config.files {
        let written = writeln!(out, "# configuration file {}:", file.name)
            .and_then(|()| out.write_all(&file.content))
            .and_then(|()| out.write_all(b"\n"));
        if written.is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn tested(options: &LoadOptions, quiet: bool) -> Result<Gateway, ExitCode> {
    let file = options.file.display();
    let tell = |message: fmt::Arguments<'_>| {
        if !quiet {
            say(message);
        }
    };
    let tested = config::load(options)
        .map_err(Refusal::from)
        .and_then(|config| {
            tell(format_args!("the configuration file {file} syntax is ok"));
            let mut builder = Builder::new(options.clone())?;
            let loaded = builder.complete(config)?;
            print_remarks(
                &loaded.remarks,
                if quiet {
                    LogLevel::Error
                } else {
                    LogLevel::Notice
                },
            );
            let gateway = builder.finish(loaded, &LogFiles::new().making_nothing())?;
            WorkingDirectory::default().enter(&gateway.config.core)?;
            Ok(gateway)
        });
    match tested {
        Ok(gateway) => {
            tell(format_args!("configuration file {file} test is successful"));
            Ok(gateway)
        }
        Err(refusal) => {
            fail_test(options, &refusal);
            say(format_args!("configuration file {file} test failed"));
            Err(ExitCode::FAILURE)
        }
    }
}

/// Prints the version (`-v`), and what this build and system can do (`-V`).
pub fn version(capabilities: bool) -> ExitCode {
    let mut text = format!("ringwall version: ringwall/{}\n", env!("CARGO_PKG_VERSION"));
    if capabilities {
        text += &format!("built with {}\n", tls::LIBRARY);
        text += "TLS SNI support enabled\n";
        text += "TLS 1.2, TLS 1.3; X25519MLKEM768, X25519, P-256, P-384\n";
        text += &match probe::choose(EventMethod::Auto) {
            (driver, None) => format!("{driver}\n"),
            (driver, Some(refusal)) => {
                format!("{driver} (io_uring is refused by this system: {refusal})\n")
            }
        };
    }
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Sends a signal to the running instance (`-s`).
pub fn signal(options: &LoadOptions, name: &str) -> ExitCode {
    let signal = match name {
        "stop" => Signal::TERM,
        "quit" => Signal::QUIT,
        "reopen" => Signal::USR1,
        "reload" => Signal::HUP,
        _ => return fail(options, &format_args!("invalid option: \"-s {name}\"")),
    };
    match config::load(options) {
        Ok(config) => match pidfile::signal(&config.core.pid, signal) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                say(format_args!("[error] {message}"));
                ExitCode::FAILURE
            }
        },
        Err(error) => fail(options, &error),
    }
}

/// Starts, and serves until a signal ends it.
pub fn run(options: &LoadOptions) -> ExitCode {
    // Before the first key is read.
    cores::forbid();
    // The only moment at which the local offset can be asked for safely.
    clock::init_local_time();
    let options = &LoadOptions {
        passed_sockets: Some(upgrade::named()),
        ..options.clone()
    };
    start(options).unwrap_or_else(|refusal| fail(options, &refusal))
}

fn start(options: &LoadOptions) -> Result<ExitCode, Refusal> {
    let builder = Builder::new(options.clone())?;
    let loaded = builder.load()?;
    let core = loaded.config.core.clone();
    let in_background = daemon::is_background();
    // One that takes over from another is where that one was.
    if core.daemon && core.master_process && !in_background && !upgrade::is_replacing() {
        return daemon::start().map_err(|error| {
            let reason = describe(&error);
            Refusal::new(format!("cannot start in the background ({reason})"))
        });
    }
    if in_background {
        daemon::detach();
    }
    serve(builder, loaded, &core, in_background)?;
    Ok(ExitCode::SUCCESS)
}

fn serve(
    builder: Builder,
    loaded: Loaded,
    core: &Core,
    in_background: bool,
) -> Result<(), Refusal> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Refusal::new(format!("{what} failed ({})", describe(&error)))
    };
    // Now, because the file may be replaced later.
    let program = std::env::current_exe().map_err(system("readlink()"))?;
    raise_descriptor_limit(core);
    let mut remarks = loaded.remarks.clone();
    remarks.extend(cores::allow(core));
    remarks.extend(remarks_about_the_process(core));
    let (driver, refusal) = probe::choose(core.event_method);
    let signals = supervisor::signals().map_err(system("installing signal handlers"))?;
    print_remarks(&remarks, LogLevel::Warn);
    let user = loaded.user.clone();
    let mut supervisor = Supervisor::new(
        builder,
        LogFiles::new().prepared_by(sandbox::confine_log_writer),
        driver,
        loaded,
        program,
    )?;
    let _pid = pid_file(&core.pid, &mut remarks)?;
    if let Some(user) = &user {
        let mut files = supervisor.log_paths();
        files.push(core.pid.clone());
        privileges::become_user(user, &files)?;
        cores::allow_after_change_of_user(core).map_err(system("prctl(PR_SET_DUMPABLE)"))?;
    }
    supervisor.enter_directory(core)?;
    let short_of_rings = supervisor.start().map_err(system("starting the workers"))?;
    let driver = supervisor.driver();
    if let Some(error) = refusal.or(short_of_rings) {
        let wanted = match core.event_method {
            EventMethod::IoUring => "the wanted ",
            EventMethod::Auto | EventMethod::Epoll => "",
        };
        // The rings' memory counts as locked.
        let hint = match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) => "; RLIMIT_MEMLOCK may be too low",
            _ => "",
        };
        let reason = describe(&error);
        supervisor.log(
            Level::Warn,
            format_args!(
                "{wanted}io_uring is refused by this system ({reason}{hint}), using epoll"
            ),
        );
    }
    for remark in &remarks {
        supervisor.log(level(remark.level), format_args!("{}", RemarkLine(remark)));
    }
    supervisor.log(Level::Notice, format_args!("{driver}"));
    if let Some(user) = &user {
        supervisor.log(
            Level::Notice,
            format_args!("{}", privileges::in_force(user)),
        );
    }
    for line in supervisor.sandbox() {
        supervisor.log(Level::Notice, format_args!("{line}"));
    }
    supervisor.log(
        Level::Notice,
        format_args!("ringwall/{} started", env!("CARGO_PKG_VERSION")),
    );
    if in_background {
        daemon::ready().map_err(system("letting go of the terminal"))?;
    } else if let Driver::Epoll = driver {
        // Said once more where somebody may be looking.
        say(format_args!("[notice] {driver}"));
    }
    supervisor.run(signals);
    Ok(())
}

/// The pid file. A container's file system may be read-only, and nobody looks
/// for the file there: signals go to the container.
fn pid_file(path: &Path, remarks: &mut Vec<Remark>) -> Result<Option<PidFile>, Refusal> {
    let error = match PidFile::write(path) {
        Ok(file) => return Ok(Some(file)),
        Err(error) => error,
    };
    let message = format!(
        "open() \"{}\" failed ({})",
        path.display(),
        describe(&error)
    );
    if Errno::from_io_error(&error) != Some(Errno::ROFS) {
        return Err(Refusal::new(message));
    }
    remarks.push(Remark {
        level: LogLevel::Warn,
        text: format!("{message}, going on without a pid file"),
        position: None,
    });
    Ok(None)
}

/// `worker_rlimit_nofile`, or the soft limit raised to the hard one: a proxy
/// that runs out of descriptors at 1,024 serves nobody.
fn raise_descriptor_limit(core: &Core) {
    let present = getrlimit(Resource::Nofile);
    let wanted = match core.worker_rlimit_nofile {
        Some(limit) => Rlimit {
            current: Some(limit),
            maximum: present.maximum.map(|maximum| maximum.max(limit)),
        },
        None => Rlimit {
            current: present.maximum,
            maximum: present.maximum,
        },
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        say(format_args!(
            "[alert] setrlimit(RLIMIT_NOFILE) failed ({error})"
        ));
    }
}

fn remarks_about_the_process(core: &Core) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let warn = |text: String, position| Remark {
        level: LogLevel::Warn,
        text,
        position,
    };
    let limit = getrlimit(Resource::Nofile).current;
    if let Some(limit) = limit.filter(|limit| (core.worker_connections as u64) > *limit) {
        remarks.push(warn(
            format!(
                "{} worker_connections exceed open file resource limit: {limit}",
                core.worker_connections
            ),
            None,
        ));
    }
    remarks
}

/// Prints what is at least this severe.
fn print_remarks(remarks: &[Remark], least: LogLevel) {
    for remark in remarks.iter().filter(|remark| remark.level <= least) {
        say(format_args!(
            "[{}] {}",
            level(remark.level).name(),
            RemarkLine(remark)
        ));
    }
}

/// What ends a start goes to standard error and, as in Nginx, to the log that
/// holds until the configuration names another, if it can be written to.
fn fail(options: &LoadOptions, error: &dyn fmt::Display) -> ExitCode {
    tell_of_failure(options, error, true)
}

/// Likewise of a test, which makes no file: root's would be in the service's way.
fn fail_test(options: &LoadOptions, error: &dyn fmt::Display) -> ExitCode {
    tell_of_failure(options, error, false)
}

fn tell_of_failure(options: &LoadOptions, error: &dyn fmt::Display, makes_log: bool) -> ExitCode {
    say(format_args!("[emerg] {error}"));
    if let LogTarget::File(path) = &options.default_error_log
        && let Ok(mut log) = OpenOptions::new().append(true).create(makes_log).open(path)
    {
        let mut line = Vec::new();
        format_line(&mut line, Level::Emerg, None, format_args!("{error}"));
        let _ = log.write_all(&line);
    }
    ExitCode::FAILURE
}

pub(super) fn say(message: fmt::Arguments<'_>) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(io::stderr(), "ringwall: {message}");
}
