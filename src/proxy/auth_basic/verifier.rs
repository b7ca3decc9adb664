//! The threads that read password files and hash passwords, and the memory of
//! what they found.
//!
//! A good password hash takes a tenth of a second or more, which no worker can
//! spare. So workers ask here, and browsers, which send the password with each
//! request, are answered from memory for a while.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::hmac;
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use zeroize::Zeroizing;

use crate::net::handoff::{Giver, handoff};
use crate::net::spawner::{self, Role};

use super::passwords::{self, Match};
use super::users;

/// Passwords that wait to be hashed, at the most; more are refused.
const MAX_QUEUED: usize = 1024;
/// The same from one address, so that whoever guesses keeps only others of
/// that address waiting.
const MAX_QUEUED_PER_CLIENT: usize = 64;
/// How long a password that was right is right without being hashed again.
const MEMORY: Duration = Duration::from_secs(60);
/// Right passwords that are remembered, in each of [`SHARDS`].
const REMEMBERED: usize = 256;
/// So that workers seldom meet at one lock.
const SHARDS: usize = 16;
/// How often the files that are in use are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A file that nobody has asked for in this time is forgotten.
const FORGET: Duration = Duration::from_secs(120);
/// Files kept at the most: a name may have a variable in it.
const MAX_FILES: usize = 256;
/// The kernel's clock for files is this coarse at the worst, so a younger
/// file may change without looking changed.
const SETTLED: Duration = Duration::from_secs(2);
/// Hashing yields to serving (nice(2)).
const NICE: i32 = 10;

/// What a client claims, and where to look it up.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) file: PathBuf,
    pub(super) user: Vec<u8>,
    pub(super) password: Zeroizing<Vec<u8>>,
    pub(super) client: Option<IpAddr>,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Finding {
    Match,
    Mismatch,
    UnknownUser,
    /// The stored password is in no form that is known here.
    UnknownForm,
    Unreadable(io::Error),
    /// Too many are waiting.
    Busy,
}

/// Looks a claim up. Cancelling it leaves the work to be done for nothing.
pub(super) async fn verify(claim: Claim) -> Finding {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    let verifier = VERIFIER.get_or_init(Verifier::new);
    let tag = verifier.tag(&claim);
    if verifier.memory.knows(&tag) {
        return Finding::Match;
    }
    let Ok((giver, taker)) = handoff() else {
        return Finding::Busy;
    };
    if !verifier.submit(Job { claim, tag, giver }) {
        return Finding::Busy;
    }
    taker.await.unwrap_or(Finding::Busy)
}

/// What a claim is remembered by: nobody can tell the password from it without
/// the key, which never leaves the process and is new in each.
type Tag = [u8; 32];

struct Job {
    claim: Claim,
    tag: Tag,
    giver: Giver<Finding>,
}

struct Verifier {
    key: hmac::Key,
    memory: Memory,
    queue: Mutex<Queue>,
    filled: Condvar,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    by_client: HashMap<Option<IpAddr>, usize>,
    threads: usize,
}

impl Verifier {
    fn new() -> Self {
        let mut key = [0; 32];
        // Without randomness there is no TLS either; all that is lost is the
        // secrecy of a memory that nobody can read.
        let _ = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            memory: Memory::default(),
            queue: Mutex::default(),
            filled: Condvar::new(),
            files: Mutex::default(),
        }
    }

    fn tag(&self, claim: &Claim) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        let file = claim.file.as_os_str().as_encoded_bytes();
        for part in [file, &claim.user] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.update(&claim.password);
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Whether there is room for it.
    fn submit(&'static self, job: Job) -> bool {
        let mut queue = lock(&self.queue);
        let waiting = queue.by_client.get(&job.claim.client).copied();
        if queue.jobs.len() >= MAX_QUEUED
            || waiting.unwrap_or(0) >= MAX_QUEUED_PER_CLIENT
            || !self.staff(&mut queue)
        {
            return false;
        }
        *queue.by_client.entry(job.claim.client).or_default() += 1;
        queue.jobs.push_back(job);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Sees to it that there are threads; `false` if there is none.
    fn staff(&'static self, queue: &mut Queue) -> bool {
        // The main thread's: a worker is pinned to one, and may not look into
        // the files that available_parallelism() asks.
        let own = sched_getaffinity(Some(rustix::process::getpid()));
        let cores = own.map_or(1, |cores| cores.count() as usize);
        while queue.threads < (cores / 2).clamp(1, 4) {
            let name = format!("password {}", queue.threads);
            let builder = thread::Builder::new().name(name);
            let spawned = spawner::start(Role::Passwords, builder, || self.work());
            if spawned.is_err() {
                break;
            }
            queue.threads += 1;
        }
        queue.threads > 0
    }

    /// A thread's life.
    fn work(&'static self) {
        let generation = spawner::generation();
        // It inherits the core of the worker that started it; the main thread
        // has all that the process may use.
        if let Ok(cores) = sched_getaffinity(Some(rustix::process::getpid())) {
            let _ = sched_setaffinity(None, &cores);
        }
        // On Linux, of this thread alone.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut looked = Instant::now();
        loop {
            if generation != spawner::generation() {
                // What is waiting is for one who may read other files.
                let mut queue = lock(&self.queue);
                queue.threads -= 1;
                if !queue.jobs.is_empty() {
                    self.staff(&mut queue);
                }
                return;
            }
            if let Some(job) = self.next_job() {
                // A panic in it ends this one answer: the giver is dropped,
                // and says so to whom waits.
                let _ = catch_unwind(AssertUnwindSafe(|| self.answer(job)));
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                lock(&self.files).look();
            }
        }
    }

    fn next_job(&self) -> Option<Job> {
        let queue = lock(&self.queue);
        let waited = self
            .filled
            .wait_timeout_while(queue, LOOK, |queue| queue.jobs.is_empty());
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let job = queue.jobs.pop_front()?;
        if let Entry::Occupied(mut waiting) = queue.by_client.entry(job.claim.client) {
            *waiting.get_mut() -= 1;
            if *waiting.get() == 0 {
                waiting.remove();
            }
        }
        Some(job)
    }

    fn answer(&self, job: Job) {
        let Job { claim, tag, giver } = job;
        let file = lock(&self.files).open(&claim.file);
        let finding = match file {
            Err(error) => Finding::Unreadable(error),
            Ok(file) => match users::find(&file.content, &claim.user) {
                None => Finding::UnknownUser,
                Some(stored) => match passwords::verify(&claim.password, stored) {
                    Match::Yes => {
                        self.memory.learn(tag, &file);
                        Finding::Match
                    }
                    Match::No => Finding::Mismatch,
                    Match::Unknown => Finding::UnknownForm,
                },
            },
        };
        giver.give(finding);
    }
}

/// Passwords that were right a short while ago.
#[derive(Default)]
struct Memory {
    shards: [Mutex<HashMap<Tag, Memo>>; SHARDS],
}

struct Memo {
    file: Arc<UserFile>,
    until: Instant,
}

impl Memo {
    fn holds(&self) -> bool {
        !self.file.stale.load(Ordering::Acquire) && Instant::now() < self.until
    }
}

impl Memory {
    fn shard(&self, tag: &Tag) -> Option<MutexGuard<'_, HashMap<Tag, Memo>>> {
        let [first, ..] = tag;
        let shard = self.shards.get(usize::from(*first) % SHARDS);
        shard.map(lock)
    }

    fn knows(&self, tag: &Tag) -> bool {
        let shard = self.shard(tag);
        shard.is_some_and(|shard| shard.get(tag).is_some_and(Memo::holds))
    }

    fn learn(&self, tag: Tag, file: &Arc<UserFile>) {
        let Some(mut shard) = self.shard(&tag) else {
            return;
        };
        if shard.len() >= REMEMBERED {
            shard.retain(|_, memo| memo.holds());
        }
        if shard.len() >= REMEMBERED
            && let Some(any) = shard.keys().next().copied()
        {
            shard.remove(&any);
        }
        let memo = Memo {
            file: Arc::clone(file),
            until: Instant::now() + MEMORY,
        };
        shard.insert(tag, memo);
    }
}

/// A password file as it was read.
struct UserFile {
    content: Zeroizing<Vec<u8>>,
    stamp: Stamp,
    /// Old enough when it was read that a later change shows in the stamp.
    is_settled: bool,
    /// The file has changed since: what was right by it need not be any more.
    stale: AtomicBool,
}

/// By what a changed file is known.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl UserFile {
    fn read(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let age = metadata
            .modified()
            .map(|at| SystemTime::now().duration_since(at));
        Ok(Self {
            stamp: Stamp::of(&metadata),
            content: Zeroizing::new(fs::read(path)?),
            is_settled: matches!(age, Ok(Ok(age)) if age > SETTLED),
            stale: AtomicBool::new(false),
        })
    }

    fn is_current(&self, path: &Path) -> bool {
        self.is_settled && fs::metadata(path).is_ok_and(|m| Stamp::of(&m) == self.stamp)
    }
}

/// The files that have been asked for lately.
#[derive(Default)]
struct Files {
    by_path: HashMap<PathBuf, (Arc<UserFile>, Instant)>,
}

impl Files {
    /// The file as it is now.
    fn open(&mut self, path: &Path) -> io::Result<Arc<UserFile>> {
        if let Some((file, used)) = self.by_path.get_mut(path) {
            *used = Instant::now();
            if file.is_current(path) {
                return Ok(Arc::clone(file));
            }
        }
        let file = match UserFile::read(path) {
            Ok(file) => file,
            Err(error) => {
                self.forget(path);
                return Err(error);
            }
        };
        if let Some((old, _)) = self.by_path.get(path)
            && old.content == file.content
            && !file.is_settled
        {
            return Ok(Arc::clone(old));
        }
        self.forget(path);
        if self.by_path.len() >= MAX_FILES {
            self.by_path.retain(|_, (file, _)| {
                file.stale.store(true, Ordering::Release);
                false
            });
        }
        let file = Arc::new(file);
        let entry = (Arc::clone(&file), Instant::now());
        self.by_path.insert(path.to_path_buf(), entry);
        Ok(file)
    }

    fn forget(&mut self, path: &Path) {
        if let Some((old, _)) = self.by_path.remove(path) {
            old.stale.store(true, Ordering::Release);
        }
    }

    /// Reads anew what has changed, and forgets what nobody asks for.
    fn look(&mut self) {
        let known: Vec<_> = self
            .by_path
            .iter()
            .map(|(path, (_, used))| (path.clone(), *used))
            .collect();
        for (path, used) in known {
            if used.elapsed() >= FORGET {
                self.forget(&path);
                continue;
            }
            let is_current = |(file, _): &(Arc<UserFile>, Instant)| file.is_current(&path);
            if !self.by_path.get(&path).is_some_and(is_current) {
                let _ = self.open(&path);
                if let Some((_, time)) = self.by_path.get_mut(&path) {
                    *time = used;
                }
            }
        }
    }
}

/// A thread that panicked while it held a lock left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
