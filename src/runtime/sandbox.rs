//! What the threads may do once they serve: `seccomp` and `landlock`.
//!
//! Every thread but the main one confines itself before it does anything else:
//!
//! | thread | system calls | files |
//! |---|---|---|
//! | workers | those of sockets, rings, memory | none |
//! | `files` | these, and opening | `root`, `alias` |
//! | `password` | likewise | folders of `auth_basic_user_file` |
//! | `certificate` | likewise | folders of `proxy_ssl_certificate` with variables |
//! | `resolver`, `stapler` | likewise | the system resolver's |
//! | log writers | likewise | folders of `access_log` with variables |
//! | nursery | these, and starting threads | not restricted |
//! | ticker, `upgrade` | as workers | none |
//!
//! The main thread is outside. It hears of nothing but signals and files that
//! the operator named; it must be able to read what the next reload names, and
//! to start the program that takes its place (SIGUSR2). That program would
//! inherit filters and domains: the twentieth upgrade would run under twenty
//! filters, the kernel allows sixteen domains, and none of them could ever
//! become wider. Threads share their memory, so this is no wall as between two
//! processes; it takes from whoever takes a worker over the calls to open, to
//! execute, to trace, to map code, and it takes them away at once.
//!
//! io_uring's operations do not pass seccomp, only Landlock: a worker's ring
//! opens no file either.

mod calls;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};

use crate::config::{Config, LogLevel, Reach, Remark};
use crate::net::spawner::{self, Role};

use super::privileges;
use super::snapshot::Refusal;

/// What [`confine`] is told of the thread that calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thread {
    /// Or one that only waits: ticker, upgrade.
    Worker,
    Beside(Role),
    Stapler,
    LogWriter,
    Nursery,
}

/// What holds for the process.
#[derive(Debug, Clone)]
struct Rules {
    seccomp: bool,
    landlock: bool,
    reach: Reach,
}

static RULES: Mutex<Option<Arc<Rules>>> = Mutex::new(None);

fn rules() -> Option<Arc<Rules>> {
    RULES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set_rules(rules: Rules) {
    *RULES.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(rules));
}

/// The newest rights that are asked for; a kernel that lacks some restricts the
/// rest.
const RIGHTS: ABI = ABI::V5;

/// Finds out what this kernel has, and starts the nursery. To be called before
/// the first thread is started; yields what the log is to say.
///
/// # Errors
/// The nursery cannot be started.
pub(super) fn establish(config: &Config) -> io::Result<Vec<String>> {
    let (landlock, landlock_line) = if config.core.landlock {
        match tried(|| restrict_files(&[])) {
            Ok(RulesetStatus::NotEnforced) => (
                false,
                "not in force: this kernel does not have it".to_owned(),
            ),
            Ok(RulesetStatus::PartiallyEnforced) => {
                (true, "in force, as far as this kernel has it".to_owned())
            }
            Ok(RulesetStatus::FullyEnforced) => (true, "in force".to_owned()),
            Err(reason) => (false, format!("not in force: {reason}")),
        }
    } else {
        (false, "off".to_owned())
    };
    let (seccomp, seccomp_line) = if config.core.seccomp {
        match tried(|| calls::allow_only(Thread::Worker)) {
            Ok(()) => (true, "in force".to_owned()),
            Err(reason) => (false, format!("not in force: {reason}")),
        }
    } else {
        (false, "off".to_owned())
    };
    let files = if landlock {
        format!("; {}", described(&config.reach))
    } else {
        String::new()
    };
    set_rules(Rules {
        seccomp,
        landlock,
        reach: config.reach.clone(),
    });
    if seccomp || landlock {
        let begin = || {
            let _ = confine(Thread::Nursery);
        };
        spawner::open_nursery(begin, |role| confine(Thread::Beside(role)))?;
    }
    Ok(vec![
        format!("sandbox of all threads but the main one: seccomp {seccomp_line}"),
        format!("sandbox of all threads but the main one: landlock {landlock_line}{files}"),
    ])
}

/// On a thread of its own, because there is no way back.
fn tried<T: Send>(attempt: impl FnOnce() -> io::Result<T> + Send) -> Result<T, String> {
    thread::scope(|scope| scope.spawn(attempt).join())
        .map_err(|_| "trying it failed".to_owned())?
        .map_err(|error| super::pidfile::describe(&error))
}

fn described(reach: &Reach) -> String {
    let mut text = String::new();
    for (what, paths) in [
        ("files", &reach.files),
        ("passwords", &reach.passwords),
        ("certificates named by requests", &reach.certificates),
        ("logs named by requests", &reach.logs),
    ] {
        if paths.is_empty() {
            continue;
        }
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{what} below");
        for path in paths {
            let _ = write!(text, " \"{}\"", path.display());
        }
    }
    if text.is_empty() {
        "no files".clone_into(&mut text);
    }
    text
}

/// Confines the calling thread, for good, and gives up its capabilities.
///
/// # Errors
/// What was in force at start cannot be had now: a thread that hears from the
/// network must not run then.
pub(super) fn confine(thread: Thread) -> io::Result<()> {
    privileges::shed_capabilities();
    let Some(rules) = rules() else {
        return Ok(());
    };
    if rules.landlock && thread != Thread::Nursery {
        let status = match thread {
            Thread::Worker | Thread::Nursery => restrict_files(&[]),
            Thread::Beside(Role::Files) => restrict_files(&[(&rules.reach.files, READ)]),
            Thread::Beside(Role::Passwords) => restrict_files(&[(&rules.reach.passwords, READ)]),
            Thread::Beside(Role::Certificates) => {
                restrict_files(&[(&rules.reach.certificates, READ)])
            }
            Thread::Beside(Role::Resolver) | Thread::Stapler => {
                restrict_files(&[(&resolver_files(thread == Thread::Stapler), READ)])
            }
            Thread::LogWriter => restrict_files(&[(&rules.reach.logs, WRITE)]),
        };
        status?;
    }
    if rules.seccomp {
        calls::allow_only(thread)?;
    }
    Ok(())
}

/// For a thread that waits, or writes what others have made: nothing is lost
/// but a second wall.
pub(super) fn confine_bystander() {
    let _ = confine(Thread::Worker);
}

/// Likewise.
pub(super) fn confine_log_writer() {
    let _ = confine(Thread::LogWriter);
}

type Grant<'a> = (&'a BTreeSet<PathBuf>, Rights);

#[derive(Debug, Clone, Copy)]
enum Rights {
    Read,
    Write,
}

const READ: Rights = Rights::Read;
const WRITE: Rights = Rights::Write;

impl Rights {
    fn flags(self) -> BitFlags<AccessFs> {
        match self {
            Self::Read => AccessFs::ReadFile | AccessFs::ReadDir,
            Self::Write => AccessFs::WriteFile | AccessFs::MakeReg,
        }
    }
}

/// Nothing but these may be opened. What does not exist is left out.
fn restrict_files(grants: &[Grant<'_>]) -> io::Result<RulesetStatus> {
    let restricted = || {
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(RIGHTS))?
            .create()?;
        for (paths, rights) in grants {
            ruleset = ruleset.add_rules(path_beneath_rules(paths.iter(), rights.flags()))?;
        }
        ruleset.restrict_self()
    };
    restricted()
        .map(|status| status.ruleset)
        .map_err(io::Error::other)
}

/// What getaddrinfo(3) reads. A thread that asks one question has the files
/// themselves; one that lives on has their folder, because such a file is
/// replaced by another one of its name.
fn resolver_files(lives_on: bool) -> BTreeSet<PathBuf> {
    const FOLDERS: [&str; 8] = [
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/run/systemd/resolve",
        "/run/resolvconf",
        "/run/NetworkManager",
        "/etc/resolvconf",
    ];
    const FILES: [&str; 7] = [
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/nsswitch.conf",
        "/etc/host.conf",
        "/etc/gai.conf",
        "/etc/services",
        "/etc/ld.so.cache",
    ];
    let files: &[&str] = if lives_on { &["/etc"] } else { &FILES };
    FOLDERS.iter().chain(files).map(PathBuf::from).collect()
}

/// Whether a reload to this configuration can be had without a new process, and
/// what it cannot change.
///
/// # Errors
/// A log that the log writer, which cannot be replaced, may not open.
pub(super) fn admit(config: &Config) -> Result<Vec<Remark>, Refusal> {
    let Some(rules) = rules() else {
        return Ok(Vec::new());
    };
    if rules.landlock {
        let outside = |path: &&PathBuf| !Reach::covers(&rules.reach.logs, path);
        if let Some(path) = config.reach.logs.iter().find(outside) {
            return Err(Refusal::new(format!(
                "\"access_log\" with variables below \"{}\" is outside the sandbox that was made \
                 at start: send SIGUSR2 for a new process, restart, or set \"landlock off\"",
                path.display()
            )));
        }
    }
    let wanted = [
        ("seccomp", config.core.seccomp, rules.seccomp),
        ("landlock", config.core.landlock, rules.landlock),
    ];
    let changed = wanted
        .into_iter()
        .filter(|(_, wanted, present)| !wanted && *present)
        .map(|(name, ..)| Remark {
            level: LogLevel::Warn,
            text: format!("\"{name} off\" takes effect with the next process (SIGUSR2 or restart)"),
            position: None,
        });
    Ok(changed.collect())
}

/// Lets threads that are yet to be started open what a new configuration names;
/// those that are there are replaced before they do more.
pub(super) fn widen(config: &Config) {
    let Some(rules) = rules() else {
        return;
    };
    // The log writer stays what it is.
    let reach = Reach {
        logs: rules.reach.logs.clone(),
        ..config.reach.clone()
    };
    if reach != rules.reach {
        set_rules(Rules {
            reach,
            ..(*rules).clone()
        });
        spawner::renew();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// As a thread that [`confine`] has just bound under these rules.
    fn bound<T: Send>(grants: &[Grant<'_>], thread: Thread, then: impl FnOnce() -> T + Send) -> T {
        let bind = || {
            let status = restrict_files(grants).unwrap();
            assert_ne!(
                status,
                RulesetStatus::NotEnforced,
                "the tests need Landlock"
            );
            calls::allow_only(thread).unwrap();
            then()
        };
        thread::scope(|scope| scope.spawn(bind).join().unwrap())
    }

    #[test]
    fn a_worker_opens_no_file_and_starts_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (opened, written, started, threads) = bound(&[], Thread::Worker, || {
            (
                fs::read(file.path()).is_ok(),
                fs::write(file.path(), "x").is_ok(),
                std::process::Command::new("/bin/true").status().is_ok(),
                thread::Builder::new().spawn(|| {}).is_ok(),
            )
        });
        assert_eq!(
            [opened, written, started, threads],
            [false; 4],
            "read, write, exec, clone"
        );
    }

    #[test]
    fn a_worker_still_speaks_to_the_network() {
        bound(&[], Thread::Worker, || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            client.set_nodelay(true).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(1));
        });
    }

    #[test]
    fn a_thread_reads_below_its_folders_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        for sub in [&inside, &outside] {
            fs::create_dir(sub).unwrap();
            fs::write(sub.join("file"), "x").unwrap();
        }
        std::os::unix::fs::symlink(outside.join("file"), inside.join("link")).unwrap();
        let paths = BTreeSet::from([inside.clone(), folder.path().join("missing")]);
        bound(&[(&paths, READ)], Thread::Beside(Role::Files), || {
            let kind = |path: &Path| fs::read(path).map_err(|error| error.kind());
            assert_eq!(kind(&inside.join("file")), Ok(b"x".to_vec()));
            let denied = Err(io::ErrorKind::PermissionDenied);
            assert_eq!(kind(&outside.join("file")), denied);
            assert_eq!(kind(&inside.join("link")), denied);
            assert!(fs::write(inside.join("file"), "y").is_err());
            assert_eq!(fs::read_dir(&inside).unwrap().count(), 2);
        });
    }

    #[test]
    fn the_system_resolver_works_inside() {
        for lives_on in [false, true] {
            let files = resolver_files(lives_on);
            let found = bound(&[(&files, READ)], Thread::Beside(Role::Resolver), || {
                use std::net::ToSocketAddrs as _;
                ("localhost", 80)
                    .to_socket_addrs()
                    .map(|found| found.count())
            });
            assert!(found.is_ok_and(|count| count > 0), "{lives_on}");
        }
    }
}
