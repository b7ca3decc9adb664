//! Log files and the one thread that writes them; syslog has another.
//!
//! Workers hand over whole batches of lines through a bounded queue and never
//! wait: when the queue is full the batch is dropped and its lines counted,
//! because a disk that cannot keep up must not slow requests down. The queue is
//! an array made at start and the buffers go round, so steady state allocates
//! nothing.
//!
//! ```text
//! worker ── batch ──► queue ──► writer thread ── write(2) ──► file
//!    ▲                               │
//!    └─────── empty buffers ◄────────┘
//! ```

mod destination;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Access;

use self::destination::Destination;
use super::clock;
use super::error_log::Level;
use super::syslog::{self, Syslog};

/// Bytes that may wait for the writer thread, over all files. About a second of
/// access log at 60,000 requests/s.
pub const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;

/// Batches that may wait, at 40 bytes of memory each: enough for
/// [`MAX_QUEUED_BYTES`] in batches half the usual size, and for a burst of
/// single error lines.
const MAX_QUEUED_BATCHES: usize = 4096;

/// Empty buffers kept for reuse. Each is 16 KiB or a little more; more than
/// this many are in flight only in a burst.
const MAX_SPARE_BUFFERS: usize = 64;

/// A buffer grown beyond this is not kept.
const MAX_SPARE_CAPACITY: usize = 64 * 1024;

/// How often dropped lines and failed writes are reported at most.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How long stopping waits for a file that does not take its bytes (a pipe that
/// nobody reads).
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Every log file of the process, by path. Belongs to the main thread.
#[derive(Debug)]
pub struct LogFiles {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    writer: Mutex<Writer>,
    /// Those of syslog, with a queue and a thread of their own: a server that
    /// is slow must not hold files up, nor a disk the server.
    syslog: OnceLock<Box<Self>>,
    /// What each thread does first.
    prepare: fn(),
    /// Whether files that do not exist are made.
    makes_files: bool,
}

#[derive(Debug)]
enum Writer {
    Idle(Receiver<Message>),
    Running,
    Stopped,
}

impl Default for LogFiles {
    fn default() -> Self {
        Self::new()
    }
}

impl LogFiles {
    /// Without files and without a thread: lines wait in the queue until
    /// [`LogFiles::start`], so that a process which puts itself into the
    /// background can open its logs before and start its threads after.
    #[must_use]
    pub fn new() -> Self {
        let (queue, receiver) = mpsc::sync_channel(MAX_QUEUED_BATCHES);
        Self {
            queue,
            shared: Arc::default(),
            writer: Mutex::new(Writer::Idle(receiver)),
            syslog: OnceLock::new(),
            prepare: || {},
            makes_files: true,
        }
    }

    /// For a test of what could be opened: nothing is made. Root would leave
    /// files behind that the service's own user cannot write to.
    #[must_use]
    pub fn making_nothing(self) -> Self {
        Self {
            makes_files: false,
            ..self
        }
    }

    /// The threads will do this before all else.
    #[must_use]
    pub fn prepared_by(self, prepare: fn()) -> Self {
        Self { prepare, ..self }
    }

    /// Starts the writer thread; again is harmless.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread; lines then wait for the next attempt
    /// or for [`LogFiles::flush_and_stop`].
    pub fn start(&self) -> io::Result<()> {
        if let Some(syslog) = self.syslog.get() {
            syslog.start()?;
        }
        let mut writer = lock(&self.writer);
        let state = std::mem::replace(&mut *writer, Writer::Stopped);
        let Writer::Idle(receiver) = state else {
            *writer = state;
            return Ok(());
        };
        // The thread takes the receiver from here, so that it is not lost with
        // a closure that never ran.
        let slot = Arc::new(Mutex::new(Some(receiver)));
        let theirs = Arc::clone(&slot);
        let shared = Arc::clone(&self.shared);
        let prepare = self.prepare;
        let spawned = thread::Builder::new()
            .name("log writer".to_owned())
            .spawn(move || {
                prepare();
                if let Some(receiver) = lock(&theirs).take() {
                    write_all(&receiver, &shared);
                }
            });
        match spawned {
            Ok(_) => {
                *writer = Writer::Running;
                Ok(())
            }
            Err(error) => {
                if let Some(receiver) = lock(&slot).take() {
                    *writer = Writer::Idle(receiver);
                }
                Err(error)
            }
        }
    }

    /// A file to append to, made with mode 0644 where it does not exist. The
    /// same path gives the same file.
    ///
    /// # Errors
    ///
    /// Whatever open(2) says.
    pub fn open(&self, path: &Path) -> io::Result<LogSink> {
        let mut files = lock(&self.shared.files);
        // As bytes: comparing paths part by part makes a thousand logs slow.
        let bytes = path.as_os_str();
        let known = files.iter().find(|file| {
            let known = file.destination.path();
            known.is_some_and(|known| known.as_os_str() == bytes)
        });
        let file = match known {
            Some(file) => Arc::clone(file),
            None => {
                let destination = Destination::File(path.to_owned());
                let file = Arc::new(LogFile::new(destination, Some(self.append(path)?)));
                files.push(Arc::clone(&file));
                file
            }
        };
        Ok(self.sink(file))
    }

    fn append(&self, path: &Path) -> io::Result<File> {
        if self.makes_files || path.exists() {
            return append(path);
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        rustix::fs::access(
            folder.unwrap_or(Path::new(".")),
            Access::WRITE_OK | Access::EXEC_OK,
        )?;
        append(Path::new("/dev/null"))
    }

    /// A syslog server. It need not be there; lines are lost until it is.
    ///
    /// # Errors
    ///
    /// When the system refuses the thread that sends.
    pub fn syslog(&self, target: &Syslog) -> io::Result<LogSink> {
        let lane = self
            .syslog
            .get_or_init(|| Box::new(Self::new().prepared_by(self.prepare)));
        if matches!(*lock(&self.writer), Writer::Running) {
            lane.start()?;
        }
        let is_it = |destination: &Destination| matches!(destination, Destination::Syslog(known, _) if known == target);
        Ok(lane.known_or(is_it, || {
            Destination::Syslog(target.clone(), Mutex::default())
        }))
    }

    /// For lines that name their own file: [`LogSink::send_to`].
    #[must_use]
    pub fn computed(&self) -> LogSink {
        self.known_or(
            |destination| matches!(destination, Destination::Computed(_)),
            || Destination::Computed(Mutex::default()),
        )
    }

    /// Standard error.
    #[must_use]
    pub fn stderr(&self) -> LogSink {
        self.known_or(
            |destination| matches!(destination, Destination::Stderr),
            || Destination::Stderr,
        )
    }

    fn known_or(
        &self,
        is_it: impl Fn(&Destination) -> bool,
        make: impl FnOnce() -> Destination,
    ) -> LogSink {
        let mut files = lock(&self.shared.files);
        let known = files.iter().find(|file| is_it(&file.destination));
        let file = match known {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(LogFile::new(make(), None));
                files.push(Arc::clone(&file));
                file
            }
        };
        self.sink(file)
    }

    /// Opens every file again by its path, for log rotation. Files that nobody but this
    /// registry holds any more are closed instead. Lines still in the queue go to
    /// the new file.
    ///
    /// Returns the paths that could not be opened; their old files stay in use.
    pub fn reopen(&self) -> Vec<(PathBuf, io::Error)> {
        self.close_unused();
        let files = lock(&self.shared.files).clone();
        let mut failures = Vec::new();
        for file in files {
            if let Destination::Computed(_) = &file.destination {
                let _ = self.queue.try_send(Message::Reopen(Arc::clone(&file)));
            }
            let Some(path) = file.destination.path() else {
                continue;
            };
            match append(path) {
                Ok(fresh) => {
                    *lock(&file.fresh) = Some(fresh);
                    // So that the old file is let go of at once. With a full
                    // queue there is a batch on its way that does the same.
                    let _ = self.queue.try_send(Message::Reopen(Arc::clone(&file)));
                }
                Err(error) => failures.push((path.to_owned(), error)),
            }
        }
        failures
    }

    /// Closes the files whose sinks are all gone, as after a reload to a
    /// configuration that does not name them.
    pub fn close_unused(&self) {
        lock(&self.shared.files).retain(|file| Arc::strong_count(file) > 1 || file.has_trouble());
        if let Some(syslog) = self.syslog.get() {
            syslog.close_unused();
        }
    }

    /// The paths of the files that are open.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let files = lock(&self.shared.files);
        let paths = files.iter().filter_map(|file| file.destination.path());
        paths.map(Path::to_owned).collect()
    }

    /// Where dropped lines and failed writes are reported beside standard
    /// error, which a process in the background does not have.
    pub fn report_to(&self, sink: &LogSink) {
        *lock(&self.shared.report_to) = Some(Arc::clone(&sink.file));
        if let Some(syslog) = self.syslog.get() {
            syslog.report_to(sink);
        }
    }

    /// Writes what is queued and ends the thread. Waits for at most five
    /// seconds. Lines sent later are lost.
    pub fn flush_and_stop(&self) {
        if let Some(syslog) = self.syslog.get() {
            syslog.flush_and_stop();
        }
        let mut writer = lock(&self.writer);
        match std::mem::replace(&mut *writer, Writer::Stopped) {
            Writer::Idle(receiver) => {
                // Never started: the lines are written here.
                while let Ok(message) = receiver.try_recv() {
                    perform(message, &self.shared);
                }
                report(&self.shared);
            }
            Writer::Running => {
                let deadline = Instant::now() + STOP_TIMEOUT;
                let (done, finished) = mpsc::sync_channel(1);
                let mut message = Message::Stop(done);
                // A blocking send could wait for ever behind a stuck pipe.
                while let Err(mpsc::TrySendError::Full(returned)) = self.queue.try_send(message) {
                    if Instant::now() >= deadline {
                        return;
                    }
                    message = returned;
                    thread::sleep(Duration::from_millis(5));
                }
                let left = deadline.saturating_duration_since(Instant::now());
                let _ = finished.recv_timeout(left);
            }
            Writer::Stopped => {}
        }
    }

    fn sink(&self, file: Arc<LogFile>) -> LogSink {
        LogSink {
            queue: self.queue.clone(),
            shared: Arc::clone(&self.shared),
            file,
        }
    }
}

/// A log file as those see it who write lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogSink {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    file: Arc<LogFile>,
}

impl LogSink {
    /// Hands over whole lines and leaves `batch` empty, with memory for the
    /// next ones. Never waits: lines are dropped and counted when too many are
    /// queued already.
    pub fn send(&self, batch: &mut Vec<u8>) {
        if batch.is_empty() {
            return;
        }
        let length = batch.len();
        let queued = self.shared.queued.fetch_add(length, Ordering::Relaxed);
        if queued + length <= MAX_QUEUED_BYTES {
            let bytes = std::mem::replace(batch, self.buffer());
            let message = Message::Batch {
                file: Arc::clone(&self.file),
                bytes,
            };
            match self.queue.try_send(message) {
                Ok(()) => return,
                Err(
                    mpsc::TrySendError::Full(message) | mpsc::TrySendError::Disconnected(message),
                ) => {
                    if let Message::Batch { bytes, .. } = message {
                        *batch = bytes;
                    }
                }
            }
        }
        self.shared.queued.fetch_sub(length, Ordering::Relaxed);
        let lines = self.file.count_lines(batch);
        self.file.dropped.fetch_add(lines, Ordering::Relaxed);
        self.file.lost.fetch_add(lines, Ordering::Relaxed);
        self.shared.trouble.store(true, Ordering::Release);
        batch.clear();
    }

    /// Begins a line: with a header, for a syslog server.
    pub(super) fn begin_line(&self, level: Option<Level>, out: &mut Vec<u8>) {
        if let Destination::Syslog(target, _) = &self.file.destination {
            target.put_header(level, out);
        }
    }

    /// Ends a line.
    pub(super) fn end_line(&self, out: &mut Vec<u8>) {
        out.push(match &self.file.destination {
            Destination::Syslog(..) => syslog::END,
            _ => b'\n',
        });
    }

    /// Sends a line, which ends in a line feed, to the file at `path`; of
    /// [`LogFiles::computed`] only. Never waits.
    pub fn send_to(&self, path: &[u8], line: &[u8]) {
        let mut batch = self.buffer();
        destination::computed_line(path, line, &mut batch);
        self.send(&mut batch);
    }

    /// An empty buffer, a used one if there is one. Never waits.
    #[must_use]
    pub fn buffer(&self) -> Vec<u8> {
        self.shared
            .spare
            .try_lock()
            .ok()
            .and_then(|mut spare| spare.pop())
            .unwrap_or_default()
    }

    /// Whether both write to one file.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }

    /// Its path, or what stands for it.
    #[must_use]
    pub fn name(&self) -> String {
        self.file.name()
    }

    /// Lines that were dropped or could not be written, since the start.
    #[must_use]
    pub fn lost_lines(&self) -> u64 {
        self.file.lost.load(Ordering::Relaxed)
    }

    /// `None` for what is no file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.destination.path()
    }
}

#[derive(Debug)]
enum Message {
    Batch { file: Arc<LogFile>, bytes: Vec<u8> },
    Reopen(Arc<LogFile>),
    Stop(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes in the queue; exceeds [`MAX_QUEUED_BYTES`] only while a batch is
    /// being refused.
    queued: AtomicUsize,
    /// Empty buffers; at most [`MAX_SPARE_BUFFERS`].
    spare: Mutex<Vec<Vec<u8>>>,
    /// Every open file.
    files: Mutex<Vec<Arc<LogFile>>>,
    report_to: Mutex<Option<Arc<LogFile>>>,
    /// Lines were lost since the last report.
    trouble: AtomicBool,
}

#[derive(Debug)]
struct LogFile {
    destination: Destination,
    /// Of a file. Locked by whoever writes, perhaps for long.
    file: Mutex<Option<File>>,
    /// What the writer goes on with. Apart from `file`, so that reopening never
    /// waits behind a write into a stuck pipe.
    fresh: Mutex<Option<File>>,
    /// Lines that found the queue full, since the last report.
    dropped: AtomicU64,
    /// Lines lost in failed writes, since the last report.
    failed: AtomicU64,
    /// Both, since the start.
    lost: AtomicU64,
    last_error: Mutex<Option<io::Error>>,
}

impl LogFile {
    fn new(destination: Destination, file: Option<File>) -> Self {
        Self {
            destination,
            file: Mutex::new(file),
            fresh: Mutex::default(),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    /// Whether it worked: errors are counted, never fatal.
    fn write(&self, bytes: &[u8]) -> bool {
        let written = destination::write(&self.destination, self.current().as_mut(), bytes);
        let Err((lines, error)) = written else {
            return true;
        };
        self.failed.fetch_add(lines, Ordering::Relaxed);
        self.lost.fetch_add(lines, Ordering::Relaxed);
        *lock(&self.last_error) = Some(error);
        false
    }

    /// The file to write to, exchanged if it was reopened.
    fn current(&self) -> MutexGuard<'_, Option<File>> {
        let mut file = lock(&self.file);
        if let Some(fresh) = lock(&self.fresh).take() {
            *file = Some(fresh);
        }
        file
    }

    fn name(&self) -> String {
        self.destination.name()
    }

    fn count_lines(&self, bytes: &[u8]) -> u64 {
        let end = match &self.destination {
            Destination::Syslog(..) => syslog::END,
            _ => b'\n',
        };
        memchr::memchr_iter(end, bytes).count() as u64
    }

    fn has_trouble(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) > 0 || self.failed.load(Ordering::Relaxed) > 0
    }

    /// One error log line about what was lost; starts counting anew.
    fn take_report(&self) -> Vec<u8> {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let failed = self.failed.swap(0, Ordering::Relaxed);
        let name = self.name();
        let mut line = Vec::new();
        clock::put_error_time(&mut line);
        // Writing to a `Vec` cannot fail.
        let _ = write!(line, " [alert] {}#0: log \"{name}\":", std::process::id());
        if dropped > 0 {
            let _ = write!(line, " {dropped} lines dropped, the writer cannot keep up");
        }
        if failed > 0 {
            let comma = if dropped > 0 { "," } else { "" };
            let _ = write!(line, "{comma} {failed} lines lost");
            if let Some(error) = lock(&self.last_error).take() {
                let _ = write!(line, ", write failed: {error}");
            }
        }
        line.push(b'\n');
        line
    }
}

/// The writer thread.
fn write_all(receiver: &Receiver<Message>, shared: &Shared) {
    let mut last_report: Option<Instant> = None;
    loop {
        let next = if shared.trouble.load(Ordering::Acquire) {
            receiver.recv_timeout(REPORT_INTERVAL)
        } else {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let finished = match next {
            Ok(message) => perform(message, shared),
            Err(RecvTimeoutError::Timeout) => None,
            // Every sink and the registry are gone.
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let due = last_report.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL);
        if (due || finished.is_some()) && report(shared) {
            last_report = Some(Instant::now());
        }
        if let Some(finished) = finished {
            let _ = finished.send(());
            return;
        }
    }
    report(shared);
}

/// Does what the message says; a stop is handed back.
fn perform(message: Message, shared: &Shared) -> Option<SyncSender<()>> {
    match message {
        Message::Batch { file, bytes } => {
            if !file.write(&bytes) {
                shared.trouble.store(true, Ordering::Release);
            }
            shared.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
            recycle(shared, bytes);
            None
        }
        Message::Reopen(file) => {
            if let Destination::Computed(files) = &file.destination {
                lock(files).close();
            }
            drop(file.current());
            None
        }
        Message::Stop(finished) => Some(finished),
    }
}

fn recycle(shared: &Shared, mut buffer: Vec<u8>) {
    if buffer.capacity() > MAX_SPARE_CAPACITY {
        return;
    }
    buffer.clear();
    let mut spare = lock(&shared.spare);
    if spare.len() < MAX_SPARE_BUFFERS {
        spare.push(buffer);
    }
}

/// Says what was lost, and whether anything was. Not into the file itself: an
/// access log has readers that know one format.
fn report(shared: &Shared) -> bool {
    if !shared.trouble.swap(false, Ordering::AcqRel) {
        return false;
    }
    let files = lock(&shared.files).clone();
    let target = lock(&shared.report_to).clone();
    for file in files.iter().filter(|file| file.has_trouble()) {
        let line = file.take_report();
        // Best effort: there is nobody left to tell.
        let _ = io::stderr().lock().write_all(&line);
        if let Some(target) = &target
            && target.destination.path().is_some()
        {
            target.write(&line);
        }
    }
    true
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
}

/// None of the values behind these locks can be left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
