//! The main thread after start: waits for signals and acts on them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::Signals;

use crate::config::{Config, Core, ListenAddress};
use crate::proxy::gateway::{Gateway, level};
use crate::telemetry::error_log::Level;
use crate::telemetry::writer::LogFiles;
use crate::tls;
use crate::tls::watch::{Sight, Watch};

use super::affinity;
use super::listeners::{self, Listening};
use super::pidfile::describe;
use super::probe::Driver;
use super::sandbox;
use super::snapshot::{Builder, Loaded, Refusal};
use super::stapler::Stapler;
use super::systemd::Manager;
use super::ticker::Ticker;
use super::upgrade::{self, Inherited, Outcome, Upgrade};
use super::worker::{Command, Handle, NewListener};
use super::working_directory::WorkingDirectory;

/// How often a drain is looked at.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Time for workers to leave when they are told to stop at once.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks at files that are changing: a pair of files is replaced
/// one after the other.
const SETTLING: Duration = Duration::from_millis(200);
/// Between two ticks where there is nothing to watch.
const IDLE_TICK: Duration = Duration::from_secs(3600);
/// Between two looks at configurations that some worker may still hold.
const RETIRING: Duration = Duration::from_secs(1);
/// Between two complaints of certificates that end soon.
const DAILY: Duration = Duration::from_secs(86_400);
/// Days left from which a certificate is complained of daily.
const COMPLAIN_DAYS: i64 = 14;

/// Everything that the main thread owns.
#[derive(Debug)]
pub(super) struct Supervisor {
    builder: Builder,
    logs: LogFiles,
    driver: Driver,
    published: Arc<ArcSwap<Gateway>>,
    listening: Vec<Listening>,
    workers: Vec<Worker>,
    /// Workers that a smaller `worker_processes` has sent home.
    leaving: Vec<Handle>,
    /// Configurations that were published before. They are kept until no
    /// worker holds them, so that it is this thread that frees them.
    retired: Vec<Arc<Gateway>>,
    watch: Watch,
    /// When certificates were complained of.
    complained: Option<Instant>,
    ticker: Option<Ticker>,
    stapler: Stapler,
    manager: Manager,
    /// The program's file, as it was called when this process began.
    program: PathBuf,
    folder: WorkingDirectory,
    upgrade: Option<Upgrade>,
    /// What the log is to say of it.
    sandbox: Vec<String>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    accepts: HashSet<ListenAddress>,
}

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// When the requests in flight are answered.
    Graceful,
    /// Likewise, and another process goes on with the sockets.
    Replaced,
    /// At once.
    Fast,
}

impl Supervisor {
    /// Binds what the configuration lists.
    ///
    /// # Errors
    /// An address cannot be bound, or a log cannot be opened.
    pub(super) fn new(
        mut builder: Builder,
        logs: LogFiles,
        driver: Driver,
        mut loaded: Loaded,
        program: PathBuf,
    ) -> Result<Self, Refusal> {
        let mut inherited = upgrade::inherited();
        // What a socket does when there is nothing to accept is the same for
        // all who have it, and a worker of Nginx's would wait for ever.
        let driver = match inherited.iter().any(|known| known.socket.is_nonblocking()) {
            true => Driver::Epoll,
            false => driver,
        };
        let mut listening = Vec::new();
        let workers = worker_count(&loaded.config);
        listeners::reconcile(
            &mut listening,
            &loaded.config,
            workers,
            Some(&mut inherited),
        )
        .map_err(Refusal::new)?;
        let watch = std::mem::take(&mut loaded.watch);
        let gateway = builder.finish(loaded, &logs)?;
        if let Some(log) = gateway.main_error_log() {
            for Inherited { address, .. } in &inherited {
                log.log(
                    Level::Warn,
                    None,
                    format_args!("no server listens on the inherited socket {address}, closed"),
                );
            }
        }
        builder.metrics.took_up_configuration();
        report_lost_lines(&logs, &gateway);
        Ok(Self {
            builder,
            logs,
            driver,
            published: Arc::new(ArcSwap::from_pointee(gateway)),
            listening,
            workers: Vec::new(),
            leaving: Vec::new(),
            retired: Vec::new(),
            watch,
            complained: None,
            ticker: None,
            stapler: Stapler::default(),
            manager: Manager::from_environment(),
            program,
            folder: WorkingDirectory::default(),
            upgrade: None,
            sandbox: Vec::new(),
        })
    }

    /// Starts the workers and the log writer. Where the rings of all workers
    /// cannot be had, though one could, all of them run on epoll: the result
    /// is then why.
    ///
    /// # Errors
    /// A thread cannot be made, or not even epoll can be had.
    pub(super) fn start(&mut self) -> io::Result<Option<io::Error>> {
        self.sandbox = sandbox::establish(&self.published.load().config)?;
        self.logs.start()?;
        self.ticker = Some(Ticker::start(IDLE_TICK)?);
        let Err(error) = self.adjust_workers() else {
            return Ok(None);
        };
        if self.driver == Driver::Epoll {
            return Err(error);
        }
        for worker in self.workers.drain(..) {
            worker.handle.tell(Command::Stop);
            self.leaving.push(worker.handle);
        }
        self.driver = Driver::Epoll;
        self.adjust_workers()?;
        Ok(Some(error))
    }

    /// `working_directory`. To be called once the process is the user that it is
    /// to be.
    ///
    /// # Errors
    /// It cannot be entered; the process is where it was.
    pub(super) fn enter_directory(&mut self, core: &Core) -> Result<(), Refusal> {
        self.folder.enter(core)
    }

    /// The log files that are open.
    pub(super) fn log_paths(&self) -> Vec<PathBuf> {
        self.logs.paths()
    }

    /// What the sandbox is made of.
    pub(super) fn sandbox(&self) -> &[String] {
        &self.sandbox
    }

    /// What the workers run on.
    pub(super) fn driver(&self) -> Driver {
        self.driver
    }

    /// A line in the main error log.
    pub(super) fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        if let Some(log) = self.published.load().main_error_log() {
            log.log(level, None, message);
        }
    }

    /// Handles signals until one ends the process.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub(super) fn run(mut self, mut signals: Signals) {
        self.ask_for_status();
        upgrade::say_ready();
        self.manager.ready();
        let mut period = Some(self.tick());
        let end = loop {
            if let (Some(ticker), Some(period)) = (&self.ticker, period.take()) {
                ticker.every(period);
            }
            let mut end = None;
            for signal in signals.wait() {
                match signal {
                    SIGHUP => {
                        self.reload();
                        period = Some(self.tick());
                    }
                    SIGALRM => period = Some(self.tick()),
                    SIGUSR1 => self.reopen(),
                    SIGQUIT => end = end.or(Some(End::Graceful)),
                    SIGTERM | SIGINT => end = Some(End::Fast),
                    SIGUSR2 => self.begin_upgrade(),
                    _ => {}
                }
            }
            end = end.or(self.end_upgrade());
            if let Some(end) = end {
                break end;
            }
            self.leaving.retain(|worker| !worker.is_finished());
            self.retired
                .retain(|gateway| Arc::strong_count(gateway) > 1);
        };
        self.end(end, &mut signals);
    }

    fn reload(&mut self) {
        self.log(
            Level::Notice,
            format_args!("signal 1 (SIGHUP) received, reconfiguring"),
        );
        self.reconfigure();
    }

    /// SIGUSR2.
    fn begin_upgrade(&mut self) {
        self.log(
            Level::Notice,
            format_args!("signal 12 (SIGUSR2) received, changing binary"),
        );
        if self.upgrade.is_some() {
            self.log(
                Level::Error,
                format_args!(
                    "the changing binary signal is ignored: another process is on its way"
                ),
            );
            return;
        }
        if std::process::id() == 1 {
            // With it everything else would end.
            self.log(
                Level::Error,
                format_args!("the changing binary signal is ignored: process 1 cannot be replaced"),
            );
            return;
        }
        let pid = self.pid_path();
        // Where the folder is not ours the new process overwrites the file.
        let _ = fs::rename(&pid, upgrade::old_pid_file(&pid));
        match Upgrade::start(&self.program, self.folder.started_in(), &self.listening) {
            Ok(upgrade) => {
                let (program, pid) = (self.program.display(), upgrade.pid());
                self.log(
                    Level::Notice,
                    format_args!("start new binary process \"{program}\", pid: {pid}"),
                );
                self.upgrade = Some(upgrade);
            }
            Err(error) => {
                self.restore_pid_file();
                self.log(
                    Level::Alert,
                    format_args!(
                        "execve() failed while executing new binary process \"{}\" ({})",
                        self.program.display(),
                        describe(&error)
                    ),
                );
            }
        }
    }

    /// Whether another process serves now, and this one is to go.
    fn end_upgrade(&mut self) -> Option<End> {
        let upgrade = self.upgrade.as_mut()?;
        let (outcome, pid) = (upgrade.outcome()?, upgrade.pid());
        self.upgrade = None;
        match outcome {
            Outcome::Ready => {
                self.log(
                    Level::Notice,
                    format_args!("new binary process {pid} is ready, shutting down"),
                );
                self.manager.replaced_by(pid);
                Some(End::Replaced)
            }
            Outcome::Failed => {
                // Before it is said: who reads that may signal by the file.
                self.restore_pid_file();
                self.log(
                    Level::Alert,
                    format_args!("new binary process {pid} has failed, this one serves on"),
                );
                None
            }
        }
    }

    fn pid_path(&self) -> PathBuf {
        self.published.load().config.core.pid.clone()
    }

    fn restore_pid_file(&self) {
        let pid = self.pid_path();
        if fs::rename(upgrade::old_pid_file(&pid), &pid).is_err() {
            let _ = fs::write(&pid, format!("{}\n", std::process::id()));
        }
    }

    /// What is to be done now and then; yields the time until the next tick.
    fn tick(&mut self) -> Duration {
        self.manager.alive();
        let due = self.due();
        self.manager
            .watchdog()
            .map_or(due, |watchdog| watchdog.min(due))
    }

    fn due(&mut self) -> Duration {
        let mut settling = false;
        if self.published.load().config.core.ssl_watch.is_some() {
            match self.watch.look() {
                Sight::Unchanged => {}
                Sight::Settling => settling = true,
                Sight::Changed => {
                    self.log(
                        Level::Notice,
                        format_args!("watched files have changed, reconfiguring"),
                    );
                    self.reconfigure();
                }
            }
        }
        if self.complained.is_none_or(|last| last.elapsed() >= DAILY) {
            self.complained = Some(Instant::now());
            let now = tls::now();
            let gateway = self.published.load();
            let complaints = gateway
                .certificates
                .iter()
                .filter_map(|certificate| certificate.complaint(now, COMPLAIN_DAYS));
            for complaint in complaints {
                self.log(Level::Error, format_args!("{complaint}"));
            }
        }
        let interval = self.published.load().config.core.ssl_watch;
        match interval {
            Some(_) if settling => SETTLING,
            _ if !self.retired.is_empty() => RETIRING,
            Some(interval) => interval.min(IDLE_TICK),
            None => IDLE_TICK,
        }
    }

    fn reconfigure(&mut self) {
        self.manager.reloading();
        self.try_reconfigure();
        self.manager.ready();
    }

    fn try_reconfigure(&mut self) {
        match self.try_reload() {
            Ok(()) => {
                self.builder.metrics.reloads.increment();
                self.log(Level::Notice, format_args!("reconfigured"));
            }
            // Whatever was wrong, the old state is still whole and in force.
            Err(refusal) => {
                self.builder.metrics.failed_reloads.increment();
                self.log(
                    Level::Emerg,
                    format_args!("{refusal}; the old configuration stays in force"),
                );
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), Refusal> {
        let mut loaded = self.builder.load()?;
        loaded.remarks.extend(sandbox::admit(&loaded.config)?);
        let workers = worker_count(&loaded.config);
        listeners::reconcile(&mut self.listening, &loaded.config, workers, None)
            .map_err(Refusal::new)?;
        let remarks = loaded.remarks.clone();
        let watch = std::mem::take(&mut loaded.watch);
        let mut gateway = self.builder.finish(loaded, &self.logs)?;
        self.folder.enter(&gateway.config.core)?;
        // Before anything is published: threads and rings may not be had.
        if let Err(error) = self.start_workers(workers) {
            let old = self.published.load_full();
            // It was there a moment ago.
            let _ = self.folder.enter(&old.config.core);
            let reason = describe(&error);
            let message = format!("not all workers could be started ({reason})");
            return Err(Refusal::new(message));
        }
        gateway.inherit(&self.published.load());
        report_lost_lines(&self.logs, &gateway);
        self.watch = watch;
        self.builder.metrics.took_up_configuration();
        // First: the new configuration's files are asked for at once.
        sandbox::widen(&gateway.config);
        let old = self.published.swap(Arc::new(gateway));
        self.retired.push(old);
        for remark in &remarks {
            self.log(level(remark.level), format_args!("{}", RemarkLine(remark)));
        }
        self.adjust_workers()
            .map_err(|error| Refusal::new(format!("not all workers could be told ({error})")))?;
        self.logs.close_unused();
        self.ask_for_status();
        Ok(())
    }

    /// Certificates are served also where nobody can be asked for their status.
    fn ask_for_status(&mut self) {
        let asked = self.stapler.look(self.builder.staples(), &self.published);
        if let Err(error) = asked {
            let reason = super::pidfile::describe(&error);
            self.log(
                Level::Error,
                format_args!("no thread can be made for \"ssl_stapling\" ({reason})"),
            );
        }
    }

    fn reopen(&self) {
        self.log(
            Level::Notice,
            format_args!("signal 10 (SIGUSR1) received, reopening logs"),
        );
        for (path, error) in self.logs.reopen() {
            self.log(
                Level::Emerg,
                format_args!(
                    "open() \"{}\" failed ({})",
                    path.display(),
                    super::pidfile::describe(&error)
                ),
            );
        }
    }

    /// Brings number and listeners of the workers in line with what is
    /// published.
    fn adjust_workers(&mut self) -> io::Result<()> {
        let gateway = self.published.load_full();
        let count = worker_count(&gateway.config);
        let limit = gateway.config.core.worker_shutdown_timeout;
        while self.workers.len() > count {
            if let Some(worker) = self.workers.pop() {
                worker.handle.tell(Command::Drain(limit));
                self.leaving.push(worker.handle);
            }
        }
        self.start_workers(count)?;
        let keep: Vec<ListenAddress> = self
            .listening
            .iter()
            .map(|listening| listening.address.clone())
            .collect();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.accepts.retain(|address| keep.contains(address));
            let mut add = Vec::new();
            for listening in &self.listening {
                if worker.accepts.contains(&listening.address) {
                    continue;
                }
                if let Some(socket) = listening.socket(index) {
                    let fd = socket.duplicate(self.driver == Driver::Epoll)?;
                    add.push(NewListener {
                        address: listening.address.clone(),
                        fd,
                        unix: socket.is_unix(),
                    });
                    worker.accepts.insert(listening.address.clone());
                }
            }
            worker.handle.tell(Command::Listen {
                add,
                keep: keep.clone(),
            });
        }
        Ok(())
    }

    /// Starts what is missing to this number. They accept nothing until they
    /// are told to.
    ///
    /// # Errors
    /// One cannot be started; then those before it are sent home.
    fn start_workers(&mut self, count: usize) -> io::Result<()> {
        let present = self.workers.len();
        while self.workers.len() < count {
            let index = self.workers.len();
            match Handle::start(index, count, self.driver, Arc::clone(&self.published)) {
                Ok(handle) => self.workers.push(Worker {
                    handle,
                    accepts: HashSet::new(),
                }),
                Err(error) => {
                    for worker in self.workers.drain(present..) {
                        worker.handle.tell(Command::Stop);
                        self.leaving.push(worker.handle);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn end(mut self, end: End, signals: &mut Signals) {
        let limit = self.published.load().config.core.worker_shutdown_timeout;
        match end {
            End::Replaced => {
                let _ = fs::remove_file(upgrade::old_pid_file(&self.pid_path()));
            }
            End::Graceful | End::Fast => {
                self.manager.stopping();
                listeners::remove_socket_files(&self.listening);
            }
        }
        self.listening.clear();
        let handles: Vec<Handle> = self
            .workers
            .drain(..)
            .map(|worker| worker.handle)
            .chain(self.leaving.drain(..))
            .collect();
        let mut give_up = match end {
            End::Graceful | End::Replaced => {
                if end == End::Graceful {
                    self.log(
                        Level::Notice,
                        format_args!("signal 3 (SIGQUIT) received, shutting down"),
                    );
                }
                handles
                    .iter()
                    .for_each(|handle| handle.tell(Command::Drain(limit)));
                None
            }
            End::Fast => {
                handles.iter().for_each(|handle| handle.tell(Command::Stop));
                Some(Instant::now() + STOP_TIMEOUT)
            }
        };
        while handles.iter().any(|handle| !handle.is_finished()) {
            if give_up.is_some_and(|moment| Instant::now() >= moment) {
                break;
            }
            if give_up.is_none()
                && signals
                    .pending()
                    .any(|signal| matches!(signal, SIGTERM | SIGINT))
            {
                handles.iter().for_each(|handle| handle.tell(Command::Stop));
                give_up = Some(Instant::now() + STOP_TIMEOUT);
            }
            std::thread::sleep(DRAIN_POLL);
        }
        self.log(Level::Notice, format_args!("exit"));
        self.logs.flush_and_stop();
    }
}

/// The signals that mean something; to be called before any thread starts.
///
/// # Errors
/// The handlers cannot be installed.
pub(super) fn signals() -> io::Result<Signals> {
    Signals::new([
        SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGTERM, SIGINT, SIGCHLD, SIGWINCH, SIGALRM,
    ])
}

/// Lines that a log lost are told of in the main error log.
fn report_lost_lines(logs: &LogFiles, gateway: &Gateway) {
    if let Some(log) = gateway.main_error_log() {
        let mut sinks = log.sinks.iter().map(|(sink, _)| sink);
        if let Some(sink) = sinks.find(|sink| sink.path().is_some()) {
            logs.report_to(sink);
        }
    }
}

/// A remark as the log shows it.
pub(super) struct RemarkLine<'r>(pub(super) &'r crate::config::Remark);

impl std::fmt::Display for RemarkLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.position {
            Some(position) => write!(f, "{} in {position}", self.0.text),
            None => f.write_str(&self.0.text),
        }
    }
}

/// `worker_processes`, or the cores this process may use; one where
/// `master_process` is off.
fn worker_count(config: &Config) -> usize {
    if !config.core.master_process {
        return 1;
    }
    config
        .core
        .worker_processes
        .unwrap_or_else(|| affinity::allowed().len())
        .max(1)
}
