//! Which cores the workers run on.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use, in order.
pub(super) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect()
}

/// Pins the calling thread to the core for worker `index` of `workers`, if
/// there is one for each: with more workers than cores the scheduler knows
/// better.
pub(super) fn pin(index: usize, workers: usize) {
    let allowed = allowed();
    if workers > allowed.len() {
        return;
    }
    if let Some(cpu) = allowed.get(index) {
        let mut set = CpuSet::new();
        set.set(*cpu);
        // An unpinned worker is slower, not wrong.
        let _ = sched_setaffinity(None, &set);
    }
}
