//! System calls, by who may make them.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use crate::net::spawner::Role;

use super::Thread;

/// Whatever the arguments. Nothing here opens, executes, signals another
/// process, looks into one, or changes who this one is.
const EVERYBODY: &[c_long] = &[
    // Sockets.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // The ring, and what stands in for it.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_ppoll,
    // Descriptors that are there.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // What a name leads to, without opening it; of a descriptor, too.
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // Memory; code is not to be mapped, see `allow_only`.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Time, threads, signals to this process.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_setpriority,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Calls that newer architectures do without.
#[cfg(target_arch = "x86_64")]
const OF_OLD: &[c_long] = &[
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_OLD: &[c_long] = &[];

/// For those that may open something; what, is Landlock's to say.
const OPENING: &[c_long] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
];

#[cfg(target_arch = "x86_64")]
const OPENING_OF_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_stat,
];
#[cfg(not(target_arch = "x86_64"))]
const OPENING_OF_OLD: &[c_long] = &[];

/// For those that start threads, which then bind themselves further.
const STARTING: &[c_long] = &[
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
];

/// Allows the calling thread what this kind of thread needs, and answers all
/// other calls with EPERM: not with a signal, because a call that some library
/// makes on some system and can do without must not end the service.
///
/// # Errors
/// The kernel has no seccomp filters, or does not allow one.
pub(super) fn allow_only(thread: Thread) -> io::Result<()> {
    let program = filter(thread).map_err(io::Error::other)?;
    apply_filter(&program).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other),
    })
}

fn filter(thread: Thread) -> Result<BpfProgram, BackendError> {
    let (opens, starts, maps_code) = match thread {
        Thread::Worker => (false, false, false),
        Thread::Beside(Role::Files | Role::Passwords | Role::Certificates) | Thread::LogWriter => {
            (true, false, false)
        }
        // The C library loads the parts of its resolver when it needs them.
        Thread::Beside(Role::Resolver) => (true, false, true),
        Thread::Stapler | Thread::Nursery => (true, true, true),
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut lists = vec![EVERYBODY, OF_OLD];
    if opens {
        lists.extend([OPENING, OPENING_OF_OLD]);
    }
    if starts {
        lists.push(STARTING);
    }
    for call in lists.concat() {
        rules.insert(call, Vec::new());
    }
    for (call, argument, length, value) in conditions() {
        let condition = SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value)?;
        let rule = SeccompRule::new(vec![condition])?;
        rules.entry(call).or_default().push(rule);
    }
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let allowed = if maps_code {
            Vec::new()
        } else {
            let code = SeccompCmpOp::MaskedEq(PROT_EXEC);
            let condition = SeccompCondition::new(2, SeccompCmpArgLen::Dword, code, 0)?;
            vec![SeccompRule::new(vec![condition])?]
        };
        rules.insert(call, allowed);
    }
    if starts {
        rules.insert(libc::SYS_prctl, Vec::new());
    }
    let eperm = u32::try_from(libc::EPERM).unwrap_or(1);
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(eperm),
        SeccompAction::Allow,
        ARCHITECTURE,
    )?
    .try_into()
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;

/// Calls that are allowed with certain arguments: call, which argument, how
/// much of it, and what it is to be. Several of a call are alternatives.
fn conditions() -> Vec<(c_long, u8, SeccompCmpArgLen, u64)> {
    use SeccompCmpArgLen::{Dword, Qword};
    let mut conditions = Vec::new();
    // Netlink: the resolver asks which address families this machine has.
    for family in [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_UNIX,
        libc::AF_NETLINK,
    ] {
        conditions.push((libc::SYS_socket, 0, Dword, unsigned(family)));
    }
    for request in [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX] {
        conditions.push((libc::SYS_ioctl, 1, Dword, request));
    }
    // A thread's name, and the allocator's names for its memory.
    for option in [libc::PR_SET_NAME, libc::PR_SET_VMA] {
        conditions.push((libc::SYS_prctl, 0, Dword, unsigned(option)));
    }
    // To signal this process, and no other.
    let own = u64::from(std::process::id());
    conditions.push((libc::SYS_tgkill, 0, Dword, own));
    // To ask for limits, not to set them: there are no new ones.
    conditions.push((libc::SYS_prlimit64, 2, Qword, 0));
    conditions
}

fn unsigned(number: libc::c_int) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
