//! Threads that workers start beside themselves.
//!
//! A new thread is bound by whatever binds the one that starts it, and workers
//! are bound to open no file and to start no thread. So there is a thread that
//! is not, the nursery, which hears of nothing but wishes for threads; each of
//! those binds itself to what its [`Role`] needs before it does anything else.
//! Without a nursery, as where the sandbox is off, threads are started directly.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens files that are sent.
    Files,
    /// Reads password files.
    Passwords,
    /// Reads certificates that requests name.
    Certificates,
    /// Asks the system for addresses.
    Resolver,
}

/// Binds the calling thread.
pub type Prepare = fn(Role) -> io::Result<()>;

struct Wish {
    role: Role,
    builder: thread::Builder,
    body: Box<dyn FnOnce() + Send>,
    answer: SyncSender<io::Result<()>>,
}

static NURSERY: OnceLock<Mutex<Sender<Wish>>> = OnceLock::new();
/// Of what [`Prepare`] grants.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// When a thread found its grant too small.
static RENEWED: Mutex<Option<Instant>> = Mutex::new(None);

/// How often threads are replaced at most because they could not open a file.
const RENEWAL: Duration = Duration::from_secs(1);

/// Starts the nursery, to be called once and before the first worker; `begin`
/// is what it does first.
///
/// # Errors
/// The thread cannot be made.
pub fn open_nursery(begin: fn(), prepare: Prepare) -> io::Result<()> {
    let (sender, wishes) = mpsc::channel();
    if NURSERY.set(Mutex::new(sender)).is_err() {
        return Ok(());
    }
    thread::Builder::new()
        .name("nursery".into())
        .spawn(move || {
            begin();
            fulfil(&wishes, prepare);
        })
        .map(drop)
}

fn fulfil(wishes: &Receiver<Wish>, prepare: Prepare) {
    for wish in wishes {
        let Wish {
            role,
            builder,
            body,
            answer,
        } = wish;
        let refused = answer.clone();
        let spawned = builder.spawn(move || {
            let prepared = prepare(role);
            let is_ready = prepared.is_ok();
            // Before the body, which may want a lock that the asking thread has.
            let _ = answer.send(prepared);
            if is_ready {
                body();
            }
        });
        if let Err(error) = spawned {
            let _ = refused.send(Err(error));
        }
    }
}

/// Starts a thread, and returns when it is there.
///
/// # Errors
/// It cannot be made, or not be bound.
pub fn start(
    role: Role,
    builder: thread::Builder,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let Some(nursery) = NURSERY.get() else {
        return builder.spawn(body).map(drop);
    };
    let (answer, result) = mpsc::sync_channel(1);
    let wish = Wish {
        role,
        builder,
        body: Box::new(body),
        answer,
    };
    let gone = || io::Error::other("the thread that starts threads has ended");
    let nursery = nursery.lock().unwrap_or_else(PoisonError::into_inner);
    nursery.send(wish).map_err(|_| gone())?;
    drop(nursery);
    result.recv().unwrap_or_else(|_| Err(gone()))
}

/// Which grants hold now. A thread that began under others is to be replaced
/// before it takes up more work.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// Grants have changed.
pub fn renew() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
}

/// A thread may not open a file that it is asked for. A grant is for what a
/// path led to when the thread began, and paths get new targets: whether it is
/// worth another attempt, by another thread.
pub fn renew_after_denial() -> bool {
    if NURSERY.get().is_none() {
        return false;
    }
    let mut renewed = RENEWED.lock().unwrap_or_else(PoisonError::into_inner);
    if renewed.is_some_and(|last| last.elapsed() < RENEWAL) {
        return false;
    }
    *renewed = Some(Instant::now());
    renew();
    true
}
