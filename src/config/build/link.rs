//! `proxy_bind`, `proxy_socket_keepalive`, and `proxy_protocol` towards
//! backends.

use super::values::{flag, invalid_parameter, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::model::{ProxyLink, ProxyProtocol};
use crate::config::syntax::Directive;
use crate::config::template::Template;

/// As written in one block. The outer level of the options: whether it was
/// said; the inner: not `off`.
#[derive(Debug, Clone, Default)]
pub(super) struct LinkSettings {
    bind: Option<Option<Template>>,
    socket_keepalive: Option<bool>,
    proxy_protocol: Option<Option<ProxyProtocol>>,
}

impl LinkSettings {
    /// Takes a directive by its name in the family; `false` when it is not one of
    /// these.
    pub(super) fn apply(
        &mut self,
        builder: &mut Builder<'_>,
        name: &[u8],
        d: &Directive,
    ) -> Result<bool> {
        match name {
            b"bind" => set(&mut self.bind, d, bind(builder, d)?)?,
            b"socket_keepalive" => set(&mut self.socket_keepalive, d, flag(d)?)?,
            b"protocol" => {
                let version = match d.arg(0) {
                    b"off" => None,
                    b"on" | b"v1" => Some(ProxyProtocol::V1),
                    b"v2" => Some(ProxyProtocol::V2),
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.proxy_protocol, d, version)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(self, outer; bind, socket_keepalive, proxy_protocol);
    }

    pub(super) fn finish(&self) -> ProxyLink {
        ProxyLink {
            bind: self.bind.clone().flatten(),
            socket_keepalive: self.socket_keepalive.unwrap_or(false),
            proxy_protocol: self.proxy_protocol.flatten(),
        }
    }
}

/// `proxy_bind ADDRESS|off`.
fn bind(builder: &Builder<'_>, d: &Directive) -> Result<Option<Template>> {
    if let Some(word) = d.args.get(1) {
        if &*word.value == b"transparent" {
            let what = "does not implement \"transparent\" in this version";
            return Err(refuse_directive(d, what));
        }
        return Err(invalid_parameter(d, &word.value));
    }
    if d.arg(0) == b"off" {
        return Ok(None);
    }
    let template = builder.template(d.arg(0), &d.position)?;
    if let Some(literal) = template.as_literal()
        && ProxyLink::local_address(literal).is_none()
    {
        return Err(refuse(d, format!("invalid address \"{}\"", d.text(0))));
    }
    Ok(Some(template))
}
