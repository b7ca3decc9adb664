//! The `http` block: formats, upstreams, servers, addresses.

use std::collections::HashMap;
use std::sync::Arc;

use super::listen::Listeners;
use super::location::is_without_effect;
use super::scope::Scope;
use super::server::Draft;
use super::tls::TlsSettings;
use super::values::set;
use super::{Builder, Result, authorization, health, limits, logs, server, upstream, variables};
use crate::config::error::Error;
use crate::config::model::{Core, Listener, LogEscape, LogFormat, Server, ServerId};
use crate::config::syntax::Directive;
use crate::config::template::Template;

/// What `http` contributes to the model.
#[derive(Debug, Default)]
pub(super) struct Http {
    pub(super) listeners: Vec<Listener>,
    pub(super) servers: Vec<Arc<Server>>,
}

pub(super) fn build(
    builder: &mut Builder<'_>,
    directives: &[Directive],
    core: &Core,
) -> Result<Http> {
    let mut http = None;
    for d in directives {
        if &*d.name.value == b"http" {
            set(&mut http, d, d)?;
        }
    }
    let Some(http) = http else {
        return Ok(Http::default());
    };
    let (scope, servers) = settings(builder, http, core)?;
    let mut listeners = Listeners::default();
    let mut drafts = Vec::new();
    for (id, d) in servers.into_iter().enumerate() {
        drafts.push(server::build(builder, d, &scope, id, &mut listeners)?);
        // At a reload a worker may be waiting for this core.
        std::thread::yield_now();
    }
    for draft in &drafts {
        draft.scope.tls.pairs()?;
    }
    let tls = tls_settings(&listeners, &drafts)?;
    authorization::check_permissive(builder, &listeners, &drafts);
    let mut names = Vec::new();
    let mut servers = Vec::new();
    for (id, mut draft) in drafts.into_iter().enumerate() {
        names.push(std::mem::take(&mut draft.names));
        let tls = match tls.get(&id) {
            Some(settings) => {
                Some(settings.finish(builder, &draft.position, &draft.scope.routing)?)
            }
            None => None,
        };
        servers.push(Arc::new(Server {
            id,
            name: draft.name,
            position: draft.position,
            tls,
            permissive: draft.scope.authorization.is_permissive(),
            connection: draft.scope.connection.finish(),
            root: draft.root,
            locations: draft.locations,
        }));
    }
    authorization::check_attainable(builder, &servers);
    Ok(Http {
        listeners: listeners.finish(builder, &names)?,
        servers,
    })
}

/// What `http` itself says, and its servers. Settings count wherever they
/// stand, so all of them are read before the first server is built; formats and
/// upstreams first, because settings refer to them.
fn settings<'a>(
    builder: &mut Builder<'_>,
    http: &'a Directive,
    core: &Core,
) -> Result<(Scope, Vec<&'a Directive>)> {
    variables::learn(builder, http.children())?;
    let combined = LogFormat {
        name: "combined".into(),
        template: Template::compile(logs::COMBINED.as_bytes(), builder.variables.by_name())
            .unwrap_or_default(),
        escape: LogEscape::Default,
    };
    builder
        .formats
        .insert("combined".into(), Arc::new(combined));
    for d in http.children() {
        match &*d.name.value {
            b"log_format" => logs::log_format(builder, d)?,
            b"limit_conn_zone" | b"limit_req_zone" => limits::zone(builder, d)?,
            b"match" => health::block(builder, d)?,
            b"upstream" => upstream::block(builder, d)?,
            b"map" => variables::map(builder, d)?,
            b"geo" => variables::geo(builder, d)?,
            b"split_clients" => variables::split_clients(builder, d)?,
            _ => {}
        }
    }
    builder.upstreams.check_zones()?;
    let mut scope = Scope::default();
    let mut servers = Vec::new();
    for d in http.children() {
        match &*d.name.value {
            b"geo" | b"limit_conn_zone" | b"limit_req_zone" | b"log_format" | b"map" | b"match"
            | b"split_clients" | b"ssl_watch" | b"upstream" => {}
            b"server" => servers.push(d),
            _ => {
                if !scope.apply(builder, d)? && !is_without_effect(d) {
                    return Err(logs::unhandled(d));
                }
            }
        }
    }
    builder.upstreams.settle_resolvers(&scope.names)?;
    scope
        .response
        .error_logs
        .get_or_insert_with(|| core.error_logs.clone());
    Ok((scope, servers))
}

/// The settings of every server that answers on a TLS address.
fn tls_settings(listeners: &Listeners, drafts: &[Draft]) -> Result<HashMap<ServerId, TlsSettings>> {
    let mut settings: HashMap<ServerId, TlsSettings> = HashMap::new();
    for (default, servers) in listeners.with_tls() {
        let Some(default) = drafts.get(default) else {
            continue;
        };
        if !default.scope.tls.has_certificate() {
            // A default server that refuses every handshake has no certificate
            // to lend, so all others need their own.
            let others = servers.iter().filter_map(|&id| drafts.get(id));
            let needy = std::iter::once(default)
                .chain(others)
                .map(|draft| (&draft.scope.tls, &draft.position))
                .find(|(tls, _)| !tls.has_certificate() && !tls.rejects_handshakes());
            if let Some((_, position)) = needy {
                let message =
                    "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
                return Err(Error::at(position, message));
            }
        }
        for &id in servers {
            let Some(draft) = drafts.get(id) else {
                continue;
            };
            settings.entry(id).or_insert_with(|| {
                let mut own = draft.scope.tls.clone();
                if !own.has_certificate() && !own.rejects_handshakes() {
                    own.borrow_certificates(&default.scope.tls);
                }
                own
            });
        }
    }
    Ok(settings)
}
