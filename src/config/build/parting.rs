//! `lingering_close` and its kin, `keepalive_min_timeout`,
//! `reset_timedout_connection`.

use std::time::Duration;

use super::Result;
use super::values::{flag, invalid_value, milliseconds, set};
use crate::config::model::{Lingering, Parting};
use crate::config::syntax::Directive;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct PartingSettings {
    keepalive_min_timeout: Option<Duration>,
    lingering: Option<Lingering>,
    lingering_time: Option<Duration>,
    lingering_timeout: Option<Duration>,
    reset_timed_out: Option<bool>,
}

impl PartingSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"keepalive_min_timeout" => set(&mut self.keepalive_min_timeout, d, milliseconds(d)?)?,
            b"lingering_close" => {
                let value = match d.arg(0) {
                    b"off" => Lingering::Off,
                    b"on" => Lingering::On,
                    b"always" => Lingering::Always,
                    _ => return Err(invalid_value(d)),
                };
                set(&mut self.lingering, d, value)?;
            }
            b"lingering_time" => set(&mut self.lingering_time, d, milliseconds(d)?)?,
            b"lingering_timeout" => set(&mut self.lingering_timeout, d, milliseconds(d)?)?,
            b"reset_timedout_connection" => set(&mut self.reset_timed_out, d, flag(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            keepalive_min_timeout, lingering, lingering_time, lingering_timeout, reset_timed_out
        );
    }

    /// With Nginx's defaults.
    pub(super) fn build(&self) -> Parting {
        Parting {
            keepalive_min_timeout: self.keepalive_min_timeout.unwrap_or_default(),
            lingering: self.lingering.unwrap_or(Lingering::On),
            lingering_time: self.lingering_time.unwrap_or(Duration::from_secs(30)),
            lingering_timeout: self.lingering_timeout.unwrap_or(Duration::from_secs(5)),
            reset_timed_out: self.reset_timed_out.unwrap_or(false),
        }
    }
}
