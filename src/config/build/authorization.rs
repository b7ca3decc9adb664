//! `ssl_client_allow`, `ssl_client_deny`, `ssl_client_required` and
//! `ssl_permissive`.

use std::sync::Arc;

use super::listen::Listeners;
use super::server::Draft;
use super::values::{flag, refuse, set};
use super::{Builder, Result};
use crate::config::client_rules::{ClientMatcher, ClientRule, ClientRules, RuleEffect};
use crate::config::model::{Location, Locations, Server, VerifyClient};
use crate::config::syntax::Directive;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct Authorization {
    /// Shared by all locations that inherit them, so that they are known again
    /// by their address.
    pub(super) rules: Option<Arc<ClientRules>>,
    pub(super) required: Option<bool>,
    /// Of the server alone.
    permissive: Option<bool>,
}

impl Authorization {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"ssl_client_allow" => self.add(d, RuleEffect::Allow)?,
            b"ssl_client_deny" => self.add(d, RuleEffect::Deny)?,
            b"ssl_client_required" => set(&mut self.required, d, flag(d)?)?,
            b"ssl_permissive" => set(&mut self.permissive, d, flag(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn add(&mut self, d: &Directive, effect: RuleEffect) -> Result<()> {
        let matcher = ClientMatcher::parse(d.arg(0)).map_err(|reason| {
            let (rule, name) = (d.text(0), d.name());
            let message = format!("invalid rule \"{rule}\" in \"{name}\" directive: {reason}");
            refuse(d, message)
        })?;
        let rules = self.rules.get_or_insert_default();
        Arc::make_mut(rules).rules.push(ClientRule {
            effect,
            matcher,
            text: d.text(0).into(),
            position: d.position.clone(),
        });
        Ok(())
    }

    /// A block that has any rule takes none from outside, as with Nginx's
    /// `allow` and `deny`.
    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(self, outer; rules, required);
    }

    pub(super) fn is_permissive(&self) -> bool {
        self.permissive.unwrap_or(false)
    }
}

/// Warns of a server that demands what no client of its can have.
pub(super) fn check_attainable(builder: &mut Builder<'_>, servers: &[Arc<Server>]) {
    for server in servers {
        let verify = server.tls.as_ref().map(|tls| tls.verify_client.value);
        if !matches!(verify, None | Some(VerifyClient::Off)) {
            continue;
        }
        let Some(location) = demanding(&server.root, &server.locations) else {
            continue;
        };
        let what = match location.client_required {
            true => "ssl_client_required",
            false => "ssl_client_allow",
        };
        let text = format!(
            "no client can meet \"{what}\" here, because \"ssl_verify_client\" is off in this server"
        );
        builder.warn(&location.position, text);
    }
}

/// The first location that is for verified clients only.
fn demanding<'l>(own: &'l Location, inner: &'l Locations) -> Option<&'l Location> {
    if own.client_required || own.client_rules.is_some() {
        return Some(own);
    }
    let exact = inner.exact.iter().map(|(_, location)| location);
    let prefixes = inner.prefixes.iter().map(|(_, _, location)| location);
    let regexes = inner.regexes.iter().map(|(_, location)| location);
    let named = inner.named.iter().map(|(_, location)| location);
    let mut all = exact.chain(prefixes).chain(regexes).chain(named);
    all.find_map(|location| demanding(location, &location.nested))
}

/// The default server of a TLS address decides whether plaintext is accepted
/// there at all. Says where a block's `ssl_permissive` therefore does nothing.
pub(super) fn check_permissive(builder: &mut Builder<'_>, listeners: &Listeners, all: &[Draft]) {
    let says_so = |id: usize| {
        all.get(id)
            .is_some_and(|draft| draft.scope.authorization.is_permissive())
    };
    for (id, draft) in all.iter().enumerate().filter(|(id, _)| says_so(*id)) {
        let takes_effect = listeners
            .with_tls()
            .any(|(default, servers)| servers.contains(&id) && says_so(default));
        if !takes_effect {
            let text = "\"ssl_permissive\" has no effect: this server listens on no TLS address \
                        whose default server has it";
            builder.warn(&draft.position, text);
        }
    }
}
