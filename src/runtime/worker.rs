//! A worker: one thread, one ring, its share of the connections.

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

use crate::config::ListenAddress;
use crate::net::buffers::{Buffer, Class};
use crate::net::deadlines;
use crate::net::listener::{Acceptor, Stop, StopHandle};
use crate::net::socket::Socket;
use crate::net::spawn::{sleep, spawn};
use crate::proxy::connection::serve_connection;
use crate::proxy::gateway::Gateway;
use crate::proxy::worker::Worker;
use crate::telemetry::error_log::Level;

use super::affinity;
use super::probe::{Driver, RING_ENTRIES};

/// Accepts that a worker keeps outstanding on each listener with io_uring:
/// while one is being handled the others still take their turn, so a burst is
/// spread over the workers and costs fewer rounds through the ring.
const ACCEPTS: usize = 4;
/// Pause after the system had no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often such trouble is logged at most.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a draining worker looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What the main thread tells a worker.
#[derive(Debug)]
pub(super) enum Command {
    /// Accept from these, and from none but these and `keep`.
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
            let runtime = RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(flags.worker_builder())
                .with_entries(RING_ENTRIES)
                .enable_timer()
                .build();
            match runtime {
                Ok(mut runtime) => {
                    report(Ok(()));
                    runtime.block_on(main());
                }
                Err(error) => {
                    report(Err(error));
                }
            }
        }
        Driver::Epoll => match RuntimeBuilder::<LegacyDriver>::new().enable_timer().build() {
            Ok(mut runtime) => {
                report(Ok(()));
                runtime.block_on(main());
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
    let worker = Worker::new(Arc::clone(&published));
    let mut control = Socket::adopt(woken)?;
    let ticking = Rc::clone(&worker);
    spawn(
        async move {
            loop {
                sleep(deadlines::TICK).await;
                ticking.tick();
            }
        },
        |_| {},
    );
    let mut accepting: Vec<(ListenAddress, Stop)> = Vec::new();
    let mut draining = None;
    let mut buffer = Buffer::take(Class::Small);
    loop {
        let deadline = deadlines::Deadline::new();
        if draining.is_some() {
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
                    let (kept, gone) = accepting
                        .into_iter()
                        .partition(|(address, _)| keep.contains(address));
                    accepting = kept;
                    let gone: Vec<(ListenAddress, Stop)> = gone;
                    gone.into_iter().for_each(|(_, stop)| stop.stop());
                    for listener in add {
                        accepting.push(accept_from(&worker, &published, driver, listener)?);
                    }
                }
                Command::Drain(limit) => {
                    accepting.drain(..).for_each(|(_, stop)| stop.stop());
                    worker.drain();
                    draining = Some(limit.map(|limit| Instant::now() + limit));
                }
                Command::Stop => draining = Some(Some(Instant::now())),
            }
        }
        if let Some(limit) = draining {
            let out_of_time = limit.is_some_and(|limit| Instant::now() >= limit);
            if out_of_time || worker.connections() == 0 {
                break;
            }
        }
    }
    accepting.drain(..).for_each(|(_, stop)| stop.stop());
    // One more turn, in which the accepts end and their sockets are closed.
    sleep(Duration::from_millis(1)).await;
    worker.flush_logs();
    Ok(())
}

fn accept_from(
    worker: &Rc<Worker>,
    published: &Arc<ArcSwap<Gateway>>,
    driver: Driver,
    listener: NewListener,
) -> io::Result<(ListenAddress, Stop)> {
    let NewListener { address, fd, unix } = listener;
    let acceptor = Rc::new(Acceptor::new(fd, unix)?);
    let shared = Rc::new(address.clone());
    let stop = Stop::default();
    let accepts = if driver == Driver::Epoll { 1 } else { ACCEPTS };
    for _ in 0..accepts {
        let task = accept_loop(
            Rc::clone(worker),
            Arc::clone(published),
            Rc::clone(&acceptor),
            Rc::clone(&shared),
            stop.handle(),
        );
        spawn(task, |_| {});
    }
    Ok((address, stop))
}

/// Accepts until stopped. What the system cannot give (descriptors, memory)
/// is waited for: never a spin, never an exit.
async fn accept_loop(
    worker: Rc<Worker>,
    published: Arc<ArcSwap<Gateway>>,
    acceptor: Rc<Acceptor>,
    address: Rc<ListenAddress>,
    stop: StopHandle,
) {
    let mut last_trouble: Option<Instant> = None;
    let mut alert = |message: std::fmt::Arguments<'_>| {
        if last_trouble.is_none_or(|last| last.elapsed() >= TROUBLE_INTERVAL) {
            last_trouble = Some(Instant::now());
            if let Some(log) = published.load().main_error_log() {
                log.log(Level::Alert, None, message);
            }
        }
    };
    loop {
        match acceptor.accept(stop.clone()).await {
            Ok((socket, client)) => {
                let limit = published.load().config.core.worker_connections;
                if worker.connections() >= limit {
                    alert(format_args!("{limit} worker_connections are not enough"));
                    continue;
                }
                let task =
                    serve_connection(Rc::clone(&worker), socket, client, Rc::clone(&address));
                let log = published.load().main_error_log().map(Arc::clone);
                spawn(task, move |panic| {
                    if let Some(log) = log {
                        log.log(
                            Level::Alert,
                            None,
                            format_args!("a connection's task panicked: {panic}"),
                        );
                    }
                });
            }
            Err(error) => match rustix::io::Errno::from_io_error(&error) {
                Some(rustix::io::Errno::CANCELED) => return,
                Some(
                    errno @ (rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::NOMEM
                    | rustix::io::Errno::NOBUFS),
                ) => {
                    alert(format_args!(
                        "accept() failed ({}: {errno})",
                        errno.raw_os_error()
                    ));
                    sleep(ACCEPT_PAUSE).await;
                }
                // The client was gone before it was accepted.
                Some(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => {}
                _ => {
                    alert(format_args!("accept() failed ({error})"));
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}
