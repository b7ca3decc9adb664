//! Who the process is after start: `user`.
//!
//! Nginx keeps a process of root beside its workers, which reads keys and binds
//! ports at a reload. Here all threads become the user, and the main thread
//! alone keeps two of root's capabilities for the same ends: to read files and
//! to bind ports below 1024. The threads that hear from the network, and those
//! that write logs, have none.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit, geteuid, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::{Core, LogLevel, Remark};

use super::pidfile::describe;
use super::snapshot::Refusal;

/// What the main thread keeps.
const KEPT: CapabilitySet = CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::NET_BIND_SERVICE);

/// A user to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    name: String,
    uid: Uid,
    gid: Gid,
    /// Of which the user is a member, `gid` included.
    groups: Vec<Gid>,
}

/// The user that the configuration names; `None` where it names none, or where
/// only root could become it. Nothing else is asked of the system then.
///
/// # Errors
/// There is no such user or group.
pub(super) fn user(core: &Core) -> Result<Option<User>, Refusal> {
    let Some(user) = &core.user else {
        return Ok(None);
    };
    if !geteuid().is_root() {
        return Ok(None);
    }
    let (name, group) = &user.value;
    let refuse = |what: &str| Err(Refusal::at(&user.position, what));
    let Some(entry) = lookup("passwd", name) else {
        return refuse(&format!("getpwnam(\"{name}\") failed"));
    };
    let [_, _, uid, gid, ..] = &entry.split(':').collect::<Vec<_>>()[..] else {
        return refuse(&format!("getpwnam(\"{name}\") failed"));
    };
    let (Ok(uid), Ok(mut gid)) = (uid.parse(), gid.parse::<u32>()) else {
        return refuse(&format!("getpwnam(\"{name}\") failed"));
    };
    // Nginx takes the group of the same name where none is said.
    let group = group.as_ref().unwrap_or(name);
    match lookup("group", group).and_then(|entry| entry.split(':').nth(2)?.parse().ok()) {
        Some(found) => gid = found,
        None if *group != *name => return refuse(&format!("getgrnam(\"{group}\") failed")),
        None => {}
    }
    let gid = Gid::from_raw(gid);
    Ok(Some(User {
        name: name.clone(),
        uid: Uid::from_raw(uid),
        gid,
        groups: groups(name, gid),
    }))
}

/// Becomes the user, for good. To be called after sockets are bound and logs
/// are open, and before the first thread is started: threads that exist stay
/// what they are.
///
/// # Errors
/// The system call that was refused.
pub(super) fn become_user(user: &User, logs: &[PathBuf]) -> Result<(), Refusal> {
    let fail = |call: &str| {
        let call = call.to_owned();
        move |error: rustix::io::Errno| {
            let reason = describe(&error.into());
            Refusal::new(format!("{call} failed ({reason})"))
        }
    };
    for log in logs {
        hand_over(log, user);
    }
    // The rings' memory counts as locked, and root's was not limited.
    let _ = setrlimit(
        Resource::Memlock,
        Rlimit {
            current: None,
            maximum: None,
        },
    );
    let kept = rustix::thread::capabilities(None)
        .map_err(fail("capget()"))?
        .permitted
        & KEPT;
    rustix::thread::set_keep_capabilities(true).map_err(fail("prctl(PR_SET_KEEPCAPS)"))?;
    rustix::thread::set_thread_groups(&user.groups).map_err(fail("setgroups()"))?;
    rustix::thread::set_thread_res_gid(user.gid, user.gid, user.gid)
        .map_err(fail("setresgid()"))?;
    rustix::thread::set_thread_res_uid(user.uid, user.uid, user.uid)
        .map_err(fail("setresuid()"))?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: kept,
        },
    )
    .map_err(fail("capset()"))?;
    rustix::thread::set_no_new_privs(true).map_err(fail("prctl(PR_SET_NO_NEW_PRIVS)"))
}

/// Gives up what capabilities this thread has, unless it is root's: then it
/// was not told to become anybody.
pub(super) fn shed_capabilities() {
    if geteuid().is_root() {
        return;
    }
    let none = CapabilitySet::empty();
    // To have fewer is always allowed.
    let _ = rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    );
}

/// Starts a program that has what capabilities this thread has kept: it is to
/// take this process's place, and is not root's either.
pub(super) fn with_inherited_capabilities<T>(start: impl FnOnce() -> T) -> T {
    let kept = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| {
        sets.permitted & sets.inheritable & KEPT
    });
    let each = || {
        [
            CapabilitySet::DAC_READ_SEARCH,
            CapabilitySet::NET_BIND_SERVICE,
        ]
        .into_iter()
        .filter(move |capability| kept.contains(*capability))
    };
    let set = |enable| {
        for capability in each() {
            // Without it the new process says what it may not.
            let _ = rustix::thread::configure_capability_in_ambient_set(capability, enable);
        }
    };
    if geteuid().is_root() {
        return start();
    }
    set(true);
    let started = start();
    set(false);
    started
}

/// What the operator should know of `user` before the start; `files` are those
/// that a reload reads.
pub(super) fn remarks<'f>(
    core: &Core,
    user: Option<&User>,
    files: impl Iterator<Item = &'f Path>,
) -> Vec<Remark> {
    let Some(said) = &core.user else {
        return Vec::new();
    };
    let warn = |text: String| Remark {
        level: LogLevel::Warn,
        text,
        position: Some(said.position.clone()),
    };
    let Some(user) = user else {
        let own = lookup("passwd", &said.value.0)
            .and_then(|entry| entry.split(':').nth(2)?.parse::<u32>().ok());
        if own == Some(geteuid().as_raw()) {
            return Vec::new();
        }
        return vec![warn(
            "the \"user\" directive makes sense only if the process is started with \
             super-user privileges, ignored"
                .to_owned(),
        )];
    };
    let capabilities = rustix::thread::capabilities(None);
    if capabilities.is_ok_and(|sets| sets.permitted.contains(CapabilitySet::DAC_READ_SEARCH)) {
        return Vec::new();
    }
    let unreadable = files.filter(|file| !user.may_read(file));
    unreadable
        .map(|file| {
            warn(format!(
                "a reload will fail: user \"{}\" may not read \"{}\", and CAP_DAC_READ_SEARCH is missing",
                user.name,
                file.display()
            ))
        })
        .collect()
}

impl User {
    /// By mode bits, folders included; what is not there is no trouble of ours.
    fn may_read(&self, file: &Path) -> bool {
        const READ: u32 = 4;
        const SEARCH: u32 = 1;
        file.ancestors().enumerate().all(|(depth, path)| {
            let Ok(metadata) = fs::metadata(path) else {
                return true;
            };
            let wanted = if depth == 0 { READ } else { SEARCH };
            let shift = if metadata.uid() == self.uid.as_raw() {
                6
            } else if self.is_in(metadata.gid()) {
                3
            } else {
                0
            };
            metadata.mode() >> shift & wanted != 0
        })
    }

    fn is_in(&self, group: u32) -> bool {
        self.groups.iter().any(|known| known.as_raw() == group)
    }
}

/// So that the log can be opened again by its path, as in Nginx.
fn hand_over(log: &Path, user: &User) {
    let is_file = fs::symlink_metadata(log).is_ok_and(|metadata| metadata.is_file());
    if is_file {
        // If it does not work, reopening will tell.
        let _ = std::os::unix::fs::lchown(log, Some(user.uid.as_raw()), None);
    }
}

/// A line of the system's database, from its file or from whatever else the
/// system is told to ask (getent(1) knows).
fn lookup(database: &str, name: &str) -> Option<String> {
    let own = |line: &&str| line.split(':').next() == Some(name);
    let file = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    if let Some(line) = file.lines().find(own) {
        return Some(line.to_owned());
    }
    let asked = Command::new("getent").args([database, "--", name]).output();
    let text = String::from_utf8(asked.ok()?.stdout).ok()?;
    text.lines().find(own).map(str::to_owned)
}

/// The groups that list the user as a member, and its own.
fn groups(name: &str, own: Gid) -> Vec<Gid> {
    let file = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut groups = vec![own];
    for line in file.lines() {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, gid, members] = &fields[..] else {
            continue;
        };
        if let Ok(gid) = gid.parse().map(Gid::from_raw)
            && members.split(',').any(|member| member == name)
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    }
    groups
}

/// What is in force, for the log; `None` where nothing was dropped.
pub(super) fn in_force(user: &User) -> String {
    let kept = rustix::thread::capabilities(None);
    let kept = kept.map_or(CapabilitySet::empty(), |sets| sets.permitted);
    let names: Vec<_> = [
        (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
        (CapabilitySet::NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
    ]
    .into_iter()
    .filter(|(capability, _)| kept.contains(*capability))
    .map(|(_, name)| name)
    .collect();
    format!(
        "running as user \"{}\" without new privileges; kept by the main thread for reloads: {}",
        user.name,
        if names.is_empty() {
            "nothing".to_owned()
        } else {
            names.join(", ")
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn somebody() -> User {
        User {
            name: "somebody".into(),
            uid: Uid::from_raw(54_321),
            gid: Gid::from_raw(54_321),
            groups: vec![Gid::from_raw(54_321)],
        }
    }

    #[test]
    fn reading_takes_the_file_and_every_folder_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (folder_mode, file_mode, readable) in [
            (0o755, 0o644, true),
            (0o755, 0o640, false),
            (0o700, 0o644, false),
        ] {
            mode(folder.path(), folder_mode);
            mode(&file, file_mode);
            assert_eq!(
                somebody().may_read(&file),
                readable,
                "{folder_mode:o} {file_mode:o}"
            );
        }
        mode(folder.path(), 0o700);
    }

    #[test]
    fn the_system_knows_root_and_nobody_else_of_that_name() {
        let root = lookup("passwd", "root").expect("every system has it");
        assert_eq!(root.split(':').nth(2), Some("0"));
        assert_eq!(lookup("passwd", "no such user"), None);
        assert_eq!(lookup("group", ""), None);
    }
}
