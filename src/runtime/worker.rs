//! A worker: one thread, one ring, its share of the connections.

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use rustix::io::Errno;

use crate::config::ListenAddress;
use crate::net::addr::ClientAddr;
use crate::net::buffers::{Buffer, Class};
use crate::net::deadlines::{self, Deadline};
use crate::net::listener::{Acceptor, Stop, StopHandle};
use crate::net::operations;
use crate::net::socket::Socket;
use crate::net::spawn::{sleep, spawn};
use crate::proxy::connection::serve_connection;
use crate::proxy::gateway::Gateway;
use crate::proxy::worker::Worker;
use crate::telemetry::error_log::Level;

use super::affinity;
use super::pidfile::describe;
use super::probe::{Driver, RING_ENTRIES};
use super::sandbox;

/// Accepts that a worker keeps outstanding on each listener with io_uring:
/// while one is being handled the others still take their turn, so a burst is
/// spread over the workers and costs fewer rounds through the ring.
const ACCEPTS: usize = 4;
/// Pause after the system had no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Memory that must be there for another connection to be taken, so that those
/// that are there can go on: an allocation that is refused in their midst would
/// end the process.
const HEADROOM: usize = 4 << 20;
/// Connections that are taken between two looks at that. They may need half of it.
const CONNECTIONS_A_LOOK: u32 = 32;
/// How often such trouble is logged at most.
const ALERT_INTERVAL: Duration = Duration::from_secs(1);
/// Time for the accepts to end when a worker is to leave at once.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// How often a draining worker looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What the main thread tells a worker.
#[derive(Debug)]
pub(super) enum Command {
    /// There is a new configuration, perhaps: accept from these, and from none
    /// but these and `keep`.
    Listen {
        add: Vec<NewListener>,
        keep: Vec<ListenAddress>,
    },
    /// Stop accepting, end idle connections, leave when the last is done or
    /// when the time is up.
    Drain(Option<Duration>),
    /// Leave now.
    Stop,
}

/// A listening socket for a worker.
#[derive(Debug)]
pub(super) struct NewListener {
    pub(super) address: ListenAddress,
    pub(super) fd: OwnedFd,
    pub(super) unix: bool,
}

/// The main thread's end of a worker.
#[derive(Debug)]
pub(super) struct Handle {
    thread: JoinHandle<()>,
    commands: mpsc::Sender<Command>,
    wake: UnixStream,
}

impl Handle {
    /// Starts worker `index` of `workers`, and waits until its ring is set up.
    ///
    /// # Errors
    /// The thread or its ring cannot be made.
    pub(super) fn start(
        index: usize,
        workers: usize,
        driver: Driver,
        published: Arc<ArcSwap<Gateway>>,
    ) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(driver == Driver::Epoll)?;
        let (commands, receiver) = mpsc::channel();
        let (started, result) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("worker {index}"))
            .spawn(move || {
                affinity::pin(index, workers);
                operations::count_wakeups();
                run(driver, &started, async move || {
                    if let Err(error) = work(published, driver, woken, receiver).await {
                        // Only a runtime that cannot register its own control
                        // socket gets here.
                        eprintln!("ringwall: [alert] worker {index} failed: {error}");
                    }
                });
            })?;
        result
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the worker ended at once")))?;
        Ok(Self {
            thread,
            commands,
            wake,
        })
    }

    /// Tells the worker something.
    pub(super) fn tell(&self, command: Command) {
        use std::io::Write;
        // A worker that has ended needs no telling.
        let _ = self.commands.send(command);
        let _ = (&self.wake).write_all(b"!");
    }

    /// Whether its thread has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Builds the runtime on this thread, which the single-issuer flag demands.
fn run<F: Future<Output = ()>>(
    driver: Driver,
    started: &mpsc::SyncSender<io::Result<()>>,
    main: impl FnOnce() -> F,
) {
    let report = |result: io::Result<()>| started.send(result).is_ok();
    match driver {
        Driver::IoUring(flags) => {
            let make = || {
                RuntimeBuilder::<IoUringDriver>::new()
                    .uring_builder(flags.worker_builder())
                    .with_entries(RING_ENTRIES)
                    .enable_timer()
                    .build()
            };
            match operations::count_overflows(make) {
                Ok(mut runtime) => {
                    let confined = sandbox::confine(sandbox::Thread::Worker);
                    let is_confined = confined.is_ok();
                    report(confined);
                    if is_confined {
                        runtime.block_on(main());
                    }
                    operations::forget_ring();
                }
                Err(error) => {
                    report(Err(error));
                }
            }
        }
        Driver::Epoll => match RuntimeBuilder::<LegacyDriver>::new().enable_timer().build() {
            Ok(mut runtime) => {
                let confined = sandbox::confine(sandbox::Thread::Worker);
                let is_confined = confined.is_ok();
                report(confined);
                if is_confined {
                    runtime.block_on(main());
                }
            }
            Err(error) => {
                report(Err(error));
            }
        },
    }
}

/// A worker's main task: listens to commands until told to leave.
async fn work(
    published: Arc<ArcSwap<Gateway>>,
    driver: Driver,
    woken: UnixStream,
    commands: Receiver<Command>,
) -> io::Result<()> {
    let acceptance = Rc::new(Acceptance {
        worker: Worker::new(Arc::clone(&published)),
        published,
        outstanding: Cell::new(0),
        taken: Cell::new(CONNECTIONS_A_LOOK),
        last_alert: Cell::new(None),
        is_leaving_now: Cell::new(false),
    });
    let worker = &acceptance.worker;
    let mut control = Socket::adopt(woken)?;
    let ticking = Rc::clone(worker);
    let ticker = async move {
        loop {
            sleep(deadlines::TICK).await;
            ticking.tick();
        }
    };
    spawn(ticker, |_| {});
    let mut accepting: Vec<(ListenAddress, Stop)> = Vec::new();
    let mut leaving: Option<Leaving> = None;
    let mut buffer = Buffer::take(Class::Small);
    let deadline = Deadline::new();
    loop {
        if leaving.is_some() {
            deadline.arm(DRAIN_POLL);
        }
        let range = 0..buffer.len();
        match deadline.run(control.receiver.receive(buffer, range)).await {
            Ok((Ok(1..), back)) => buffer = back,
            // The main thread is gone, and the process with it.
            Ok(_) => break,
            Err(_) => buffer = Buffer::take(Class::Small),
        }
        for command in commands.try_iter() {
            match command {
                Command::Listen { add, keep } => {
                    let (kept, gone): (Vec<_>, Vec<_>) = accepting
                        .into_iter()
                        .partition(|(address, _)| keep.contains(address));
                    accepting = kept;
                    gone.into_iter().for_each(|(_, stop)| stop.stop());
                    for listener in add {
                        accepting.push(acceptance.accept_from(driver, listener)?);
                    }
                    // It comes with everything that is published.
                    spawn(Rc::clone(worker).review_connections(), |_| {});
                }
                Command::Drain(limit) => {
                    accepting.drain(..).for_each(|(_, stop)| stop.stop());
                    worker.drain();
                    leaving = Some(Leaving::WhenDone(limit.map(|limit| Instant::now() + limit)));
                }
                Command::Stop => {
                    acceptance.is_leaving_now.set(true);
                    accepting.drain(..).for_each(|(_, stop)| stop.stop());
                    leaving = Some(Leaving::Now(Instant::now() + STOP_PATIENCE));
                }
            }
        }
        // A ring that ends with accepts outstanding holds on to its listening
        // sockets for a while, so they are waited for in any case.
        let accepts = acceptance.outstanding.get();
        let is_over = |limit: Instant| Instant::now() >= limit;
        let leave = match leaving {
            None => false,
            Some(Leaving::Now(limit)) => accepts == 0 || is_over(limit),
            Some(Leaving::WhenDone(limit)) => {
                (accepts == 0 && worker.connections() == 0) || limit.is_some_and(is_over)
            }
        };
        if leave {
            break;
        }
    }
    worker.flush_logs();
    Ok(())
}

/// How a worker goes.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// When the last connection has ended, or at this time.
    WhenDone(Option<Instant>),
    /// When no accept is outstanding, or at this time.
    Now(Instant),
}

/// What the accept loops of a worker share.
struct Acceptance {
    worker: Rc<Worker>,
    published: Arc<ArcSwap<Gateway>>,
    /// Accept loops that have not ended.
    outstanding: Cell<usize>,
    /// Connections since memory was looked at.
    taken: Cell<u32>,
    last_alert: Cell<Option<Instant>>,
    is_leaving_now: Cell<bool>,
}

impl Acceptance {
    fn accept_from(
        self: &Rc<Self>,
        driver: Driver,
        listener: NewListener,
    ) -> io::Result<(ListenAddress, Stop)> {
        let NewListener { address, fd, unix } = listener;
        let acceptor = Rc::new(Acceptor::new(fd, unix)?);
        let shared = Rc::new(address.clone());
        let stop = Stop::default();
        let loops = if driver == Driver::Epoll { 1 } else { ACCEPTS };
        for _ in 0..loops {
            self.outstanding.set(self.outstanding.get() + 1);
            let this = Rc::clone(self);
            let (acceptor, shared) = (Rc::clone(&acceptor), Rc::clone(&shared));
            let handle = stop.handle();
            let task = async move {
                this.accept_until_stopped(&acceptor, &shared, handle).await;
                drop(acceptor);
                this.outstanding.set(this.outstanding.get() - 1);
            };
            spawn(task, |_| {});
        }
        Ok((address, stop))
    }

    /// Accepts until stopped. What the system cannot give (descriptors,
    /// memory) is waited for: never a spin, never an exit.
    async fn accept_until_stopped(
        &self,
        acceptor: &Acceptor,
        address: &Rc<ListenAddress>,
        stop: StopHandle,
    ) {
        loop {
            match acceptor.accept(stop.clone()).await {
                Ok((socket, client)) => self.take(socket, client, address),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::CANCELED) => break,
                    // The client was gone before it was accepted.
                    Some(Errno::CONNABORTED | Errno::INTR) => {}
                    _ => {
                        self.alert(format_args!("accept() failed ({})", describe(&error)));
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // The kernel wakes one accept for each connection, and it may have
        // woken this one just as it was stopped: that connection would wait in
        // the queue, unheard of by the other workers, until the next arrives.
        // No more than there were accepts, or new ones could go on for ever.
        for _ in 0..ACCEPTS {
            if self.is_leaving_now.get() {
                break;
            }
            match acceptor.accept_waiting(ACCEPT_PAUSE).await {
                Some(Ok((socket, client))) => self.take(socket, client, address),
                Some(Err(_)) | None => break,
            }
        }
    }

    fn take(&self, socket: Socket, client: ClientAddr, address: &Rc<ListenAddress>) {
        let gateway = self.published.load();
        let limit = gateway.config.core.worker_connections;
        self.worker.metrics.accepted.increment();
        if self.worker.connections() >= limit {
            self.alert(format_args!("{limit} worker_connections are not enough"));
            return;
        }
        if !self.has_memory() {
            let reason = describe(&Errno::NOMEM.into());
            self.alert(format_args!(
                "no memory for another connection ({reason}), closed"
            ));
            return;
        }
        let worker = Rc::clone(&self.worker);
        let task = serve_connection(worker, socket, client, Rc::clone(address));
        let log = gateway.main_error_log().map(Arc::clone);
        spawn(task, move |panic| {
            if let Some(log) = log {
                let message = format_args!("a connection's task panicked: {panic}");
                log.log(Level::Alert, None, message);
            }
        });
    }

    /// Whether there is memory for another connection.
    fn has_memory(&self) -> bool {
        if self.taken.get() < CONNECTIONS_A_LOOK {
            self.taken.set(self.taken.get() + 1);
            return true;
        }
        let mut room = Vec::<u8>::new();
        let has_room = room.try_reserve_exact(HEADROOM).is_ok();
        // The compiler may leave out what nobody uses.
        black_box(&room);
        if has_room {
            self.taken.set(0);
        }
        has_room
    }

    /// Logs trouble, but not at the rate at which it comes.
    fn alert(&self, message: std::fmt::Arguments<'_>) {
        let last = self.last_alert.get();
        if last.is_none_or(|last| last.elapsed() >= ALERT_INTERVAL) {
            self.last_alert.set(Some(Instant::now()));
            if let Some(log) = self.published.load().main_error_log() {
                log.log(Level::Alert, None, message);
            }
        }
    }
}
