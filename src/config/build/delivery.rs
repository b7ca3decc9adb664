//! How bodies come from clients and go to them.

use std::time::Duration;

use super::filters::bytes;
use super::response::add_header;
use super::values::{flag, milliseconds, set, size};
use super::{Builder, Result};
use crate::config::model::{AddHeader, Delivery};
use crate::config::syntax::Directive;
use crate::config::template::Template;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct DeliverySettings {
    chunked_transfer_encoding: Option<bool>,
    client_body_buffer_size: Option<usize>,
    limit_rate: Option<Template>,
    limit_rate_after: Option<Template>,
    keepalive_time: Option<Duration>,
    early_hints: Option<Vec<Template>>,
    trailers: Option<Vec<AddHeader>>,
}

impl DeliverySettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"chunked_transfer_encoding" => {
                set(&mut self.chunked_transfer_encoding, d, flag(d)?)?;
            }
            b"client_body_buffer_size" => {
                set(&mut self.client_body_buffer_size, d, size(d, 0)?)?;
            }
            b"limit_rate" => set(&mut self.limit_rate, d, bytes(builder, d)?)?,
            b"limit_rate_after" => set(&mut self.limit_rate_after, d, bytes(builder, d)?)?,
            b"keepalive_time" => set(&mut self.keepalive_time, d, milliseconds(d)?)?,
            b"early_hints" => {
                let words = d.args.iter();
                let values = words.map(|word| builder.template(&word.value, &d.position));
                set(&mut self.early_hints, d, values.collect::<Result<_>>()?)?;
            }
            b"add_trailer" => {
                let trailer = add_header(builder, d)?;
                self.trailers.get_or_insert_default().push(trailer);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            chunked_transfer_encoding, client_body_buffer_size, limit_rate, limit_rate_after,
            keepalive_time, early_hints, trailers
        );
    }

    pub(super) fn build(&self) -> Delivery {
        /// Two pages of eight kilobytes, as in Nginx on 64-bit machines.
        const BODY_BUFFER: usize = 16 << 10;
        const HOUR: Duration = Duration::from_secs(3600);
        Delivery {
            chunked_transfer_encoding: self.chunked_transfer_encoding.unwrap_or(true),
            client_body_buffer_size: self.client_body_buffer_size.unwrap_or(BODY_BUFFER),
            limit_rate: self.limit_rate.clone(),
            limit_rate_after: self.limit_rate_after.clone(),
            keepalive_time: self.keepalive_time.unwrap_or(HOUR),
            early_hints: self.early_hints.clone().unwrap_or_default().into(),
            trailers: self.trailers.clone().unwrap_or_default().into(),
        }
    }
}
