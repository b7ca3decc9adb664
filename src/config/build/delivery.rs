//! How bodies come from clients and go to them.

use std::time::Duration;

use super::filters::bytes;
use super::inheritance::Inheritance;
use super::response::add_header;
use super::values::{flag, invalid_value, milliseconds, refuse, set, size};
use super::{Builder, Result};
use crate::config::model::{AddHeader, Delivery};
use crate::config::syntax::Directive;
use crate::config::template::Template;
use crate::config::units;

/// `client_body_min_rate` without a time: what a slow start and a short stall
/// take on a mobile network.
const MIN_RATE_AFTER: Duration = Duration::from_secs(10);

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct DeliverySettings {
    chunked_transfer_encoding: Option<bool>,
    client_body_buffer_size: Option<usize>,
    client_body_min_rate: Option<(u64, Duration)>,
    limit_rate: Option<Template>,
    limit_rate_after: Option<Template>,
    keepalive_time: Option<Duration>,
    early_hints: Option<Vec<Template>>,
    trailers: Option<Vec<AddHeader>>,
    trailer_inheritance: Option<Inheritance>,
    http2_chunk_size: Option<usize>,
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
            b"client_body_min_rate" => {
                let rate = size(d, 0)? as u64;
                let after = match d.args.get(1) {
                    Some(word) => {
                        units::milliseconds(&word.value).ok_or_else(|| invalid_value(d))?
                    }
                    None => MIN_RATE_AFTER,
                };
                set(&mut self.client_body_min_rate, d, (rate, after))?;
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
            b"add_trailer_inherit" => {
                set(&mut self.trailer_inheritance, d, Inheritance::parse(d)?)?;
            }
            b"http2_chunk_size" => {
                let value = size(d, 0)?;
                if value == 0 {
                    return Err(refuse(d, "the http2 chunk size cannot be zero"));
                }
                set(&mut self.http2_chunk_size, d, value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            chunked_transfer_encoding, client_body_buffer_size, client_body_min_rate, limit_rate,
            limit_rate_after, keepalive_time, early_hints, trailer_inheritance, http2_chunk_size
        );
        let inheritance = self.trailer_inheritance.unwrap_or(Inheritance::On);
        inheritance.apply(&mut self.trailers, &outer.trailers);
    }

    pub(super) fn build(&self) -> Delivery {
        /// Two pages of eight kilobytes, as in Nginx on 64-bit machines.
        const BODY_BUFFER: usize = 16 << 10;
        const HOUR: Duration = Duration::from_secs(3600);
        Delivery {
            chunked_transfer_encoding: self.chunked_transfer_encoding.unwrap_or(true),
            client_body_buffer_size: self.client_body_buffer_size.unwrap_or(BODY_BUFFER),
            client_body_min_rate: self.client_body_min_rate.filter(|(rate, _)| *rate > 0),
            limit_rate: self.limit_rate.clone(),
            limit_rate_after: self.limit_rate_after.clone(),
            keepalive_time: self.keepalive_time.unwrap_or(HOUR),
            early_hints: self.early_hints.clone().unwrap_or_default().into(),
            trailers: self.trailers.clone().unwrap_or_default().into(),
            http2_chunk_size: self.http2_chunk_size.unwrap_or(usize::MAX),
        }
    }
}
