//! `server` blocks of `http`.

use std::sync::Arc;

use super::listen::{Listeners, ServerName};
use super::location::{self, is_without_effect};
use super::scope::Scope;
use super::values::refuse;
use super::{Builder, Result, logs, rewrite};
use crate::config::model::{Handler, Location, Locations, Position, ServerId};
use crate::config::server_names::NamePattern;
use crate::config::syntax::Directive;

/// A server before it is known which of its addresses are TLS.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: Box<str>,
    pub(super) names: Vec<ServerName>,
    pub(super) position: Position,
    pub(super) scope: Scope,
    pub(super) root: Arc<Location>,
    pub(super) locations: Locations,
}

pub(super) fn build(
    builder: &mut Builder<'_>,
    d: &Directive,
    outer: &Scope,
    id: ServerId,
    listeners: &mut Listeners,
) -> Result<Draft> {
    let mut scope = Scope::default();
    let mut names = Vec::new();
    let mut monitor = Handler::Files;
    let mut steps = Vec::new();
    let mut try_files = None;
    let mut locations = Vec::new();
    let mut listens = false;
    for inner in d.children() {
        match &*inner.name.value {
            b"listen" => {
                listeners.add(builder, inner, id)?;
                listens = true;
            }
            b"server_name" => server_names(builder, inner, &mut names)?,
            b"location" => locations.push(inner),
            b"metrics" => monitor = Handler::Metrics,
            b"stub_status" => monitor = Handler::StubStatus,
            b"try_files" => {
                let parsed = Box::new(rewrite::try_files(builder, inner)?);
                super::values::set(&mut try_files, inner, parsed)?;
            }
            b"if" => steps.push(rewrite::server_if(builder, inner)?),
            b"set" | b"rewrite" | b"break" | b"return" => {
                steps.extend(rewrite::step(builder, inner)?);
            }
            _ => {
                if !scope.apply(builder, inner)? && !is_without_effect(inner) {
                    return Err(logs::unhandled(inner));
                }
            }
        }
    }
    if !listens {
        listeners.add_default(builder, &d.position, id);
    }
    if names.is_empty() {
        // As in Nginx: such a server answers for requests without a host.
        names.push(ServerName {
            pattern: Some(NamePattern::Exact("".into())),
            text: "".into(),
            position: d.position.clone(),
        });
    }
    scope.inherit(outer);
    scope.proxy.check_buffers()?;
    let (handler, steps) = location::answer_first(steps, monitor);
    let mut root = location::finish(builder, &scope, handler, &d.position);
    root.script = steps.into();
    root.try_files = try_files;
    let locations = location::build_all(builder, &locations, &scope, None)?;
    let name = names.first().map_or("", |name| &name.text);
    Ok(Draft {
        name: name.strip_prefix('.').unwrap_or(name).into(),
        names,
        position: d.position.clone(),
        scope,
        root: Arc::new(root),
        locations,
    })
}

fn server_names(
    builder: &mut Builder<'_>,
    d: &Directive,
    names: &mut Vec<ServerName>,
) -> Result<()> {
    for word in &d.args {
        let text = word.text();
        if text.contains('/') {
            let remark = format!("server name \"{text}\" has suspicious symbols");
            builder.warn(&d.position, remark);
        }
        if let Some(pattern) = word.value.strip_prefix(b"~") {
            if pattern.is_empty() {
                let message = format!("empty regex in server name \"{text}\"");
                return Err(refuse(d, message));
            }
            // Hosts are compared in lower case, so an upper-case letter in the
            // pattern can only mean that case is not to matter.
            let any_case = pattern.iter().any(u8::is_ascii_uppercase);
            let regex = builder.pattern(d, pattern, any_case)?;
            names.push(ServerName {
                pattern: Some(NamePattern::Regex(regex)),
                text: text.into(),
                position: d.position.clone(),
            });
            continue;
        }
        let name = if text.eq_ignore_ascii_case("$hostname") {
            let node = rustix::system::uname();
            node.nodename().to_string_lossy().to_ascii_lowercase()
        } else {
            text.to_ascii_lowercase()
        };
        let invalid = (name.starts_with('*') && (name.len() < 3 || !name.starts_with("*.")))
            || name == "."
            || std::str::from_utf8(&word.value).is_err();
        if invalid {
            return Err(refuse(d, format!("server name \"{text}\" is invalid")));
        }
        names.push(ServerName {
            pattern: NamePattern::parse(&name),
            text: name.into(),
            position: d.position.clone(),
        });
    }
    Ok(())
}
