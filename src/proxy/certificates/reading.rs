//! The threads that read certificates, and what waits for them: reading
//! blocks, and so does the arithmetic of a sealed key.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::thread::{sched_getaffinity, sched_setaffinity};

use crate::net::deadlines::Deadline;
use crate::net::handoff::handoff;
use crate::net::spawner::{self, Role};

/// Threads that read; two, so that one file system that hangs is not all.
const READERS: usize = 2;
/// Certificates that wait to be read, in the process; more are refused.
const MAX_QUEUED: usize = 1024;
/// How long a client waits for its certificate.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has one of the threads read, and waits for it.
///
/// # Errors
/// What `read` says, or why it was not asked, for the log. Cancelling it leaves
/// the certificate to be read for nobody.
pub(in crate::proxy) async fn read<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (giver, taker) = handoff().map_err(|error| error.to_string())?;
    if !READING.submit(Box::new(move || giver.give(read()))) {
        return Err("too many certificates are waiting to be read".into());
    }
    let deadline = Deadline::new();
    deadline.arm(PATIENCE);
    let read = deadline.run(taker).await;
    let read = read.map_err(|_| "reading a certificate takes too long")?;
    read.ok_or("reading a certificate failed")?
}

type Job = Box<dyn FnOnce() + Send>;

static READING: Reading = Reading {
    queue: Mutex::new(Queue {
        jobs: VecDeque::new(),
        threads: 0,
    }),
    filled: Condvar::new(),
};

/// The threads that read, and what waits for them.
struct Reading {
    queue: Mutex<Queue>,
    filled: Condvar,
}

struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
}

impl Reading {
    /// Whether there is room for it.
    fn submit(&'static self, job: Job) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.staff(&mut queue);
        if queue.threads == 0 || queue.jobs.len() >= MAX_QUEUED {
            return false;
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Sees to it that there are threads, if the system has any.
    fn staff(&'static self, queue: &mut Queue) {
        while queue.threads < READERS {
            let name = format!("certificate {}", queue.threads);
            let builder = thread::Builder::new().name(name);
            if spawner::start(Role::Certificates, builder, || self.work()).is_err() {
                break;
            }
            queue.threads += 1;
        }
    }

    /// A thread's life.
    fn work(&'static self) {
        let generation = spawner::generation();
        // It inherits the core of the worker that started it; the main thread
        // has all that the process may use.
        if let Ok(cores) = sched_getaffinity(Some(rustix::process::getpid())) {
            let _ = sched_setaffinity(None, &cores);
        }
        loop {
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let queue = self.filled.wait_while(queue, |queue| queue.jobs.is_empty());
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            if generation != spawner::generation() {
                // What is waiting is for one who may read other files.
                queue.threads -= 1;
                self.staff(&mut queue);
                self.filled.notify_all();
                return;
            }
            let job = queue.jobs.pop_front();
            drop(queue);
            // A panic in it ends this one answer: the giver is dropped, and
            // says so to whom waits.
            let _ = catch_unwind(AssertUnwindSafe(|| job.map(|job| job())));
        }
    }
}
