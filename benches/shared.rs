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

/// Measures how long an operation takes each of `threads` that begin together.
fn together<T>(
    criterion: &mut Criterion,
    (name, threads): (&str, usize),
    prepare: impl Fn(usize) -> T + Sync,
    operate: impl Fn(&mut T, u64) + Sync,
) {
    let run = |iterations| {
        let start = Barrier::new(threads);
        let one = |thread| {
            let mut state = prepare(thread);
            start.wait();
            let began = Instant::now();
            for number in 0..iterations {
                operate(&mut state, number);
            }
            began.elapsed()
        };
        thread::scope(|scope| {
            let one = &one;
            let spawn = |thread| scope.spawn(move || one(thread));
            let running: Vec<_> = (0..threads).map(spawn).collect();
            let took = running.into_iter().map(|it| it.join().unwrap());
            took.max().unwrap_or_default()
        })
    };
    let mut group = criterion.benchmark_group("threads");
    group.bench_function(BenchmarkId::new(name, threads), |bencher| {
        bencher.iter_custom(run)
    });
    group.finish();
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
    together(
        criterion,
        ("session cache, put and take", threads),
        |thread| [thread as u8; 32],
        |id, number| {
            id[8..16].copy_from_slice(&number.to_le_bytes());
            store.put(id.to_vec(), SESSION.to_vec());
            black_box(store.take(&id[..]));
        },
    );
}

/// Makes a ticket and reads it.
fn tickets(criterion: &mut Criterion, threads: usize) {
    let keys = Arc::new(TicketKeys::new().unwrap());
    let ticketer = Ticketer::new(keys, SCOPE, LIFETIME);
    together(
        criterion,
        ("session ticket, seal and open", threads),
        |_| (),
        |(), _| {
            let ticket = ticketer.encrypt(&SESSION).unwrap();
            black_box(ticketer.decrypt(&ticket));
        },
    );
}

/// Counts an answer in the cells of a worker's own.
fn counts(criterion: &mut Criterion, threads: usize) {
    const LABELS: LabelLists = LabelLists {
        refusals: &["other"],
        client_certificates: &["other"],
        operations: &["other"],
    };
    let metrics = Metrics::default();
    let workers: Vec<_> = (0..threads).map(|_| metrics.register(LABELS)).collect();
    together(
        criterion,
        ("metrics of an answer", threads),
        |thread| (Arc::clone(&workers[thread]), workers[thread].server("a")),
        |(worker, server), _| {
            worker.requests.increment();
            server.answered(200, Duration::from_micros(300), 500, 2000);
        },
    );
}

/// Looks whether there is another configuration.
fn snapshots(criterion: &mut Criterion, threads: usize) {
    let snapshot = ArcSwap::from_pointee([0u64; 8]);
    together(
        criterion,
        ("snapshot, load", threads),
        |_| (),
        |(), _| {
            black_box(snapshot.load()[0]);
        },
    );
}

/// Hands 16 KiB of lines to the thread that writes them: about a hundred
/// requests' worth.
fn logs(criterion: &mut Criterion, threads: usize) {
    let files = LogFiles::new();
    files.start().unwrap();
    let sink = files.open(Path::new("/dev/null")).unwrap();
    together(
        criterion,
        ("access log, a batch of 16 KiB", threads),
        |_| sink.buffer(),
        |batch, _| {
            batch.resize(BATCH, b'x');
            sink.send(batch);
        },
    );
    files.flush_and_stop();
}

criterion_group!(benches, shared);
criterion_main!(benches);
