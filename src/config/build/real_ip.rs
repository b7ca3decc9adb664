//! `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`.

use std::sync::Arc;

use super::access::network;
use super::response::field_name;
use super::url;
use super::values::{flag, invalid_parameter, refuse, set};
use super::{Builder, Result};
use crate::config::address_rules::Network;
use crate::config::model::{RealIp, RealIpHeader};
use crate::config::syntax::Directive;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct RealIpSettings {
    from: Option<Arc<Trusted>>,
    header: Option<RealIpHeader>,
    recursive: Option<bool>,
}

/// Whose word counts.
#[derive(Debug, Clone, Default)]
struct Trusted {
    networks: Vec<Network>,
    unix: bool,
}

impl RealIpSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"set_real_ip_from" => {
                let from = Arc::make_mut(self.from.get_or_insert_default());
                from.add(builder, d)?;
            }
            b"real_ip_header" => {
                let value = match d.arg(0) {
                    b"X-Forwarded-For" => RealIpHeader::ForwardedFor,
                    b"proxy_protocol" => RealIpHeader::ProxyProtocol,
                    _ => RealIpHeader::Field(field_name(d)?),
                };
                set(&mut self.header, d, value)?;
            }
            b"real_ip_recursive" => set(&mut self.recursive, d, flag(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(self, outer; from, header, recursive);
    }

    /// What holds; `None` where nobody's word counts.
    pub(super) fn finish(&self) -> Option<Box<RealIp>> {
        let from = self.from.as_deref()?;
        let default = || RealIpHeader::Field(b"X-Real-IP"[..].into());
        Some(Box::new(RealIp {
            from: from.networks.clone(),
            from_unix: from.unix,
            header: self.header.clone().unwrap_or_else(default),
            recursive: self.recursive.unwrap_or(false),
        }))
    }
}

impl Trusted {
    fn add(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
        let text = d.arg(0);
        if text == b"unix:" {
            self.unix = true;
            return Ok(());
        }
        if Network::parse(text).is_ok() {
            self.networks.push(network(builder, d, text)?);
            return Ok(());
        }
        // A name is good for the addresses that it has now.
        let name = std::str::from_utf8(text)
            .ok()
            .filter(|name| !name.contains('/'));
        let Some(name) = name else {
            return Err(invalid_parameter(d, text));
        };
        let found = url::resolve(builder, name, 0)
            .ok_or_else(|| refuse(d, format!("host not found in set_real_ip_from \"{name}\"")))?;
        for address in found {
            self.networks.push(address.ip().into());
        }
        Ok(())
    }
}
