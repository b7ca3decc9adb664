//! Threads for questions to name servers: made when one is needed, gone when
//! there has been nothing to ask for a while.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::net::spawner::{self, Role};

/// Questions under way at the most; further ones wait.
const MAX_THREADS: usize = 64;
/// How long a thread waits for another question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stack of a thread, bytes: a question needs little.
const STACK: usize = 256 << 10;

type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    jobs: VecDeque::new(),
    threads: 0,
    idle: 0,
});
static FILLED: Condvar = Condvar::new();

/// Runs the job on one of the threads. It is dropped where none can be had.
pub(super) fn run(job: Job) {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    queue.jobs.push_back(job);
    if queue.idle >= queue.jobs.len() || queue.threads >= MAX_THREADS {
        FILLED.notify_one();
        return;
    }
    let builder = thread::Builder::new()
        .name("resolver".into())
        .stack_size(STACK);
    let started = spawner::start(Role::Resolver, builder, work);
    match started {
        Ok(_) => queue.threads += 1,
        Err(_) if queue.threads == 0 => queue.jobs.clear(),
        Err(_) => {}
    }
}

fn work() {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            // A panic must not take the count of threads with it.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        queue.idle += 1;
        let (woken, waited) = FILLED
            .wait_timeout(queue, PATIENCE)
            .unwrap_or_else(PoisonError::into_inner);
        queue = woken;
        queue.idle -= 1;
        if waited.timed_out() && queue.jobs.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_side_by_side() {
        let (send, receive) = mpsc::channel();
        let (first, second) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        let done = send.clone();
        run(Box::new(move || {
            // Waits for the other job, which must therefore not wait for it.
            let _ = first.1.recv();
            let _ = done.send(1);
        }));
        run(Box::new(move || {
            let _ = first.0.send(());
            drop(second);
            let _ = send.send(2);
        }));
        let mut ended: Vec<i32> = (0..2)
            .map(|_| receive.recv_timeout(Duration::from_secs(20)).unwrap())
            .collect();
        ended.sort_unstable();
        assert_eq!(ended, [1, 2]);
    }
}
