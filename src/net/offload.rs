//! Work that would hold a worker up (opening files, listing folders), done by
//! threads beside it while the worker serves others.
//!
//! The threads belong to the process, start when there is work, and end when
//! there has been none for a while; results come back by [`super::handoff`].

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::thread::{sched_getaffinity, sched_setaffinity};

use super::handoff::handoff;
use super::spawner::{self, Role};

/// Threads at the most, for the whole process: Nginx's `thread_pool default`.
const MAX_THREADS: usize = 32;
/// Jobs that may wait for a thread: Nginx's `max_queue`.
const MAX_WAITING: usize = 65_536;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// Runs `job` on a thread beside the workers and gives its result.
///
/// Dropping the future does not stop a job that has begun; its result is then
/// dropped on the thread that made it.
///
/// # Errors
/// Too many jobs are waiting, no thread can be had, or the job panicked.
pub async fn offload<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (giver, taker) = handoff()?;
    // A panic ends the job and not the thread: the giver is dropped unused.
    POOL.submit(Box::new(move || {
        let _ = catch_unwind(AssertUnwindSafe(|| giver.give(job())));
    }))?;
    taker
        .await
        .ok_or_else(|| io::Error::other("a job beside the workers panicked"))
}

type Job = Box<dyn FnOnce() + Send>;

static POOL: Pool = Pool {
    state: Mutex::new(PoolState {
        waiting: VecDeque::new(),
        idle: 0,
        threads: 0,
    }),
    work: Condvar::new(),
};

struct Pool {
    state: Mutex<PoolState>,
    work: Condvar,
}

struct PoolState {
    waiting: VecDeque<Job>,
    /// Threads that wait for work.
    idle: usize,
    threads: usize,
}

impl Pool {
    fn submit(&'static self, job: Job) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.waiting.len() >= MAX_WAITING {
            return Err(io::Error::other("too many jobs beside the workers"));
        }
        state.waiting.push_back(job);
        if state.idle >= state.waiting.len() {
            self.work.notify_one();
        } else if state.threads < MAX_THREADS {
            state.threads += 1;
            drop(state);
            self.start_thread()?;
        }
        Ok(())
    }

    fn start_thread(&'static self) -> io::Result<()> {
        let builder = thread::Builder::new().name("files".into());
        let started = spawner::start(Role::Files, builder, || self.work());
        if let Err(error) = started {
            let mut state = lock(&self.state);
            state.threads -= 1;
            if state.threads == 0 {
                // Nobody is left to do it.
                state.waiting.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    fn work(&'static self) {
        let generation = spawner::generation();
        // The worker that started this thread is pinned to its core, and its
        // children with it. The main thread is not.
        if let Ok(all) = sched_getaffinity(Some(rustix::process::getpid())) {
            // A thread on the wrong core is slower, not wrong.
            let _ = sched_setaffinity(None, &all);
        }
        let mut state = lock(&self.state);
        loop {
            if generation != spawner::generation() {
                // What is waiting is for one who may open other files.
                if state.waiting.is_empty() {
                    state.threads -= 1;
                } else {
                    drop(state);
                    // Where none can be had, the next job asks again.
                    let _ = self.start_thread();
                }
                return;
            }
            if let Some(job) = state.waiting.pop_front() {
                drop(state);
                job();
                state = lock(&self.state);
                continue;
            }
            state.idle += 1;
            let (back, wait) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if wait.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// What is behind these locks is whole between any two statements, so a panic
/// elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

    async fn a_job_runs_elsewhere() {
        let here = thread::current().id();
        let there = offload(move || thread::current().id()).await.unwrap();
        assert_ne!(here, there);
        let many: Vec<_> = (0..200u64)
            .map(|number| monoio::spawn(async move { offload(move || number * 2).await.unwrap() }))
            .collect();
        for (number, task) in many.into_iter().enumerate() {
            assert_eq!(task.await, number as u64 * 2);
        }
        let failed = offload(|| panic!("a test")).await;
        assert!(failed.is_err_and(|error| error.to_string().contains("panicked")));
        assert_eq!(offload(|| 7).await.unwrap(), 7);
    }

    #[test]
    fn jobs_run_beside_a_worker_with_a_ring() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            a_job_runs_elsewhere().await;
        });
    }

    #[test]
    fn jobs_run_beside_a_worker_with_epoll() {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().unwrap();
        runtime.block_on(async {
            a_job_runs_elsewhere().await;
        });
    }
}
