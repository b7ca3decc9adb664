//! What workers share, used by one thread and by one for each core at once:
//! were any of it a place where they wait for one another, an operation would
//! take longer the more there are.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringwall::telemetry::metrics::{LabelLists, Metrics};
use ringwall::telemetry::writer::LogFiles;
use ringwall::tls::resumption::{Scope, ScopedStore, SessionStore, TicketKeys, Ticketer};
use rustls::server::{ProducesTickets, StoresServerSessions};

const SCOPE: Scope = Scope([7; 32]);
const LIFETIME: Duration = Duration::from_secs(600);
/// A session with a client's chain of one certificate.
const SESSION: [u8; 700] = [1; 700];
/// What a worker hands to the log's writer at once.
const BATCH: usize = 16 * 1024;

/// How long `iterations` operations take each of `threads` that begin together.
fn together<T>(
    threads: usize,
    iterations: u64,
    prepare: impl Fn(usize) -> T + Sync,
    operate: impl Fn(&mut T, u64) + Sync,
) -> Duration {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, prepare, operate) = (&start, &prepare, &operate);
                scope.spawn(move || {
                    let mut state = prepare(thread);
                    start.wait();
                    let began = Instant::now();
                    for number in 0..iterations {
                        operate(&mut state, number);
                    }
                    began.elapsed()
                })
            })
            .collect();
        let took = running.into_iter().map(|it| it.join().unwrap());
        took.max().unwrap_or_default()
    })
}

fn shared(criterion: &mut Criterion) {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    for threads in [1, cores] {
        sessions(criterion, threads);
        tickets(criterion, threads);
        counts(criterion, threads);
        snapshots(criterion, threads);
        logs(criterion, threads);
    }
}

/// Stores a session and takes it out again, as one resumption does.
fn sessions(criterion: &mut Criterion, threads: usize) {
    let store = Arc::new(SessionStore::new(16 << 20));
    let store = ScopedStore::new(store, SCOPE, LIFETIME);
    let id = BenchmarkId::new("session cache, put and take", threads);
    criterion.bench_function_over(id, |iterations| {
        together(
            threads,
            iterations,
            |thread| [thread as u8; 32],
            |id, number| {
                id[8..16].copy_from_slice(&number.to_le_bytes());
                store.put(id.to_vec(), SESSION.to_vec());
                black_box(store.take(&id[..]));
            },
        )
    });
}

/// Makes a ticket and reads it.
fn tickets(criterion: &mut Criterion, threads: usize) {
    let keys = Arc::new(TicketKeys::new().unwrap());
    let ticketer = Ticketer::new(keys, SCOPE, LIFETIME);
    let id = BenchmarkId::new("session ticket, seal and open", threads);
    criterion.bench_function_over(id, |iterations| {
        together(
            threads,
            iterations,
            |_| (),
            |(), _| {
                let ticket = ticketer.encrypt(&SESSION).unwrap();
                black_box(ticketer.decrypt(&ticket));
            },
        )
    });
}

/// Counts an answer in the cells of a worker's own.
fn counts(criterion: &mut Criterion, threads: usize) {
    const LABELS: LabelLists = LabelLists {
        refusals: &["other"],
        client_certificates: &["other"],
        operations: &["other"],
    };
    let metrics = Metrics::default();
    let id = BenchmarkId::new("metrics of an answer", threads);
    criterion.bench_function_over(id, |iterations| {
        let workers: Vec<_> = (0..threads).map(|_| metrics.register(LABELS)).collect();
        together(
            threads,
            iterations,
            |thread| (Arc::clone(&workers[thread]), workers[thread].server("a")),
            |(worker, server), _| {
                worker.requests.increment();
                server.answered(200, Duration::from_micros(300), 500, 2000);
            },
        )
    });
}

/// Looks whether there is another configuration.
fn snapshots(criterion: &mut Criterion, threads: usize) {
    let snapshot = ArcSwap::from_pointee([0u64; 8]);
    let id = BenchmarkId::new("snapshot, load", threads);
    criterion.bench_function_over(id, |iterations| {
        together(
            threads,
            iterations,
            |_| (),
            |(), _| {
                black_box(snapshot.load()[0]);
            },
        )
    });
}

/// Hands 16 KiB of lines to the thread that writes them: about a hundred
/// requests' worth.
fn logs(criterion: &mut Criterion, threads: usize) {
    let files = LogFiles::new();
    files.start().unwrap();
    let sink = files.open(Path::new("/dev/null")).unwrap();
    let id = BenchmarkId::new("access log, a batch of 16 KiB", threads);
    criterion.bench_function_over(id, |iterations| {
        together(
            threads,
            iterations,
            |_| sink.buffer(),
            |batch, _| {
                batch.resize(BATCH, b'x');
                sink.send(batch);
            },
        )
    });
    files.flush_and_stop();
}

/// Criterion, told the time instead of measuring it.
trait Over {
    fn bench_function_over(&mut self, id: BenchmarkId, measure: impl FnMut(u64) -> Duration);
}

impl Over for Criterion {
    fn bench_function_over(&mut self, id: BenchmarkId, mut measure: impl FnMut(u64) -> Duration) {
        let mut group = self.benchmark_group("threads");
        group.bench_function(id, |bencher| bencher.iter_custom(&mut measure));
        group.finish();
    }
}

criterion_group!(benches, shared);
criterion_main!(benches);
