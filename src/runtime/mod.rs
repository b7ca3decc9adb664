//! The process: what happens once, around the workers that do the rest.
//!
//! The main thread reads and validates configurations, publishes them as
//! whole snapshots, opens the listening sockets, and waits for signals. Each
//! worker is a thread with a ring of its own (`worker`). Everything that
//! blocks happens on the main thread or on the log writer's, never on a ring.

mod affinity;
mod cores;
mod daemon;
mod listeners;
mod pidfile;
mod privileges;
pub mod probe;
pub mod process;
mod sandbox;
mod snapshot;
mod stapler;
mod supervisor;
mod systemd;
mod ticker;
mod upgrade;
mod worker;
mod working_directory;
