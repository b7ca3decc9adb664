//! What the process says about itself: access logs, error logs, metrics and the clock
//! that stamps them.
//!
//! Lines are formatted on the thread that has something to say and written by
//! one writer thread, so that a full disk or a stuck pipe never stops a worker.

pub mod access_log;
pub mod clock;
pub mod error_log;
pub mod metrics;
pub mod repeats;
pub mod syslog;
pub mod writer;
