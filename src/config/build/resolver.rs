//! `resolver` and `resolver_timeout`: who is asked for names while serving.

use std::net::SocketAddr;
use std::time::Duration;

use super::upstream::split_parameter;
use super::url::{self, Target, Url};
use super::values::{milliseconds, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::model::{ResolverId, ResolverSettings};
use crate::config::syntax::Directive;
use crate::config::units;

const DNS_PORT: u16 = 53;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) resolver: Option<ResolverId>,
    pub(super) timeout: Option<Duration>,
}

impl Names {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"resolver" => {
                let settings = resolver(builder, d)?;
                let known = builder.resolvers.iter().position(|one| *one == settings);
                let id = known.unwrap_or_else(|| {
                    builder.resolvers.push(settings);
                    builder.resolvers.len() - 1
                });
                set(&mut self.resolver, d, id)?;
            }
            b"resolver_timeout" => set(&mut self.timeout, d, milliseconds(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(self, outer; resolver, timeout);
    }
}

/// `resolver ADDRESS… [valid=TIME] [ipv4=on|off] [ipv6=on|off] [status_zone=…]`.
fn resolver(builder: &Builder<'_>, d: &Directive) -> Result<ResolverSettings> {
    let mut settings = ResolverSettings {
        servers: Vec::new(),
        valid: None,
        ipv4: true,
        ipv6: true,
    };
    for word in &d.args {
        let word = &*word.value;
        let invalid = || {
            let word = String::from_utf8_lossy(word);
            refuse(d, format!("invalid parameter: {word}"))
        };
        match split_parameter(word) {
            (b"valid", Some(value)) => {
                settings.valid = Some(units::seconds(value).ok_or_else(invalid)?);
            }
            (family @ (b"ipv4" | b"ipv6"), Some(value)) => {
                let wanted = match value {
                    b"on" => true,
                    b"off" => false,
                    _ => return Err(invalid()),
                };
                match family {
                    b"ipv4" => settings.ipv4 = wanted,
                    _ => settings.ipv6 = wanted,
                }
            }
            // Statistics of Nginx's commercial version.
            (b"status_zone", Some(_)) => {}
            _ => settings.servers.extend(name_server(builder, d, word)?),
        }
    }
    if settings.servers.is_empty() {
        return Err(refuse_directive(d, "no name servers defined"));
    }
    if !settings.ipv4 && !settings.ipv6 {
        return Err(refuse(d, "\"ipv4\" and \"ipv6\" cannot both be \"off\""));
    }
    Ok(settings)
}

fn name_server(builder: &Builder<'_>, d: &Directive, word: &[u8]) -> Result<Vec<SocketAddr>> {
    let refuse_url = |what: &str| {
        let word = String::from_utf8_lossy(word);
        refuse(d, format!("{what} in resolver \"{word}\""))
    };
    let Url { target, uri } = url::parse(word).map_err(refuse_url)?;
    let Target::Host { host, port } = target else {
        return Err(refuse_url("invalid host"));
    };
    if uri.is_some() {
        return Err(refuse_url("invalid host"));
    }
    url::resolve(builder, host, port.unwrap_or(DNS_PORT))
        .ok_or_else(|| refuse_url("host not found"))
}
