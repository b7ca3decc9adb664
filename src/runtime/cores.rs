//! Core dumps: whether there are any, and what is in them.
//!
//! Keys lie wherever the allocators of two languages have put them and on the
//! stacks of threads that sign, so no page can be called free of them. Marking
//! those that are known (`MADV_DONTDUMP`) would be a promise about code that is
//! not ours. The kernel can leave all such memory out: what remains of a core
//! then are registers, threads, and which files were mapped where.

use std::fs;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Core, LogLevel, Remark};

use super::pidfile::describe;

/// core(5): which mappings are dumped. Read by gcore(1), too.
const FILTER: &str = "/proc/self/coredump_filter";
/// Where a core goes: a file's name, or a program behind `|`.
const PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// Of each mapped file its first page, which says what it is.
const WITHOUT_MEMORY: &str = "0x10";
/// What the kernel begins with: also what is in no file, heaps and stacks.
const WITH_MEMORY: &str = "0x33";

/// To be called before the first key is read: no core is dumped, nor has one
/// that somebody else asks for (gcore(1)) any memory in it.
pub(super) fn forbid() {
    // Where it cannot be said, there is still no core.
    let _ = fs::write(FILTER, WITHOUT_MEMORY);
    limit(None);
}

/// `worker_rlimit_core` and `core_dump_memory`; yields what the log is to say.
/// To be called before the process becomes another user: the filter's file is
/// not that user's.
pub(super) fn allow(core: &Core) -> Vec<Remark> {
    let Some(size) = core.worker_rlimit_core else {
        return Vec::new();
    };
    let remark = |level, text: String| Remark {
        level,
        text,
        position: None,
    };
    let (filter, about_memory) = if core.core_dump_memory {
        let text = "private keys will be in core dumps (\"core_dump_memory on\")";
        (WITH_MEMORY, remark(LogLevel::Warn, text.to_owned()))
    } else {
        let text = "core dumps will hold registers and no memory, because keys are in it; \
                    \"core_dump_memory on\" changes that";
        (WITHOUT_MEMORY, remark(LogLevel::Notice, text.to_owned()))
    };
    if let Err(error) = fs::write(FILTER, filter) {
        let reason = describe(&error);
        let text = format!("no core will be dumped: \"{FILTER}\" cannot be written ({reason})");
        return vec![remark(LogLevel::Warn, text)];
    }
    limit(Some(size));
    let mut remarks = vec![about_memory];
    let is_program = fs::read_to_string(PATTERN).is_ok_and(|pattern| pattern.starts_with('|'));
    if core.landlock && !is_program {
        let text = "a worker will dump no core: \"landlock\" lets it write no file, and \
                    kernel.core_pattern names no program that would";
        remarks.push(remark(LogLevel::Warn, text.to_owned()));
    }
    remarks
}

/// A process that has become another user dumps nothing, until it says that it
/// may; as in Nginx after setuid().
///
/// # Errors
/// The kernel refuses.
pub(super) fn allow_after_change_of_user(core: &Core) -> io::Result<()> {
    if core.worker_rlimit_core.is_none() {
        return Ok(());
    }
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::Dumpable,
    )?)
}

fn limit(size: Option<u64>) {
    /// With a limit of 0 the kernel still pipes a core to a program that is
    /// named in `core_pattern`; with 1 it neither pipes nor writes one.
    const NEITHER: u64 = 1;
    let present = getrlimit(Resource::Core).maximum;
    let wanted = match size {
        // Nginx sets both.
        Some(size) => Rlimit {
            current: Some(size),
            maximum: present.map(|maximum| maximum.max(size)),
        },
        None => Rlimit {
            current: Some(present.map_or(NEITHER, |maximum| maximum.min(NEITHER))),
            maximum: present,
        },
    };
    if let Err(error) = setrlimit(Resource::Core, wanted) {
        super::process::say(format_args!(
            "[alert] setrlimit(RLIMIT_CORE) failed ({error})"
        ));
    }
}
