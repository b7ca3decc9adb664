//! How bodies come from clients and go to them.

use super::values::{flag, set, size};
use super::{Builder, Result};
use crate::config::model::Delivery;
use crate::config::syntax::Directive;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct DeliverySettings {
    chunked_transfer_encoding: Option<bool>,
    client_body_buffer_size: Option<usize>,
}

impl DeliverySettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, _builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"chunked_transfer_encoding" => {
                set(&mut self.chunked_transfer_encoding, d, flag(d)?)?;
            }
            b"client_body_buffer_size" => {
                set(&mut self.client_body_buffer_size, d, size(d, 0)?)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            chunked_transfer_encoding, client_body_buffer_size
        );
    }

    pub(super) fn build(&self) -> Delivery {
        /// Two pages of eight kilobytes, as in Nginx on 64-bit machines.
        const BODY_BUFFER: usize = 16 << 10;
        Delivery {
            chunked_transfer_encoding: self.chunked_transfer_encoding.unwrap_or(true),
            client_body_buffer_size: self.client_body_buffer_size.unwrap_or(BODY_BUFFER),
        }
    }
}
