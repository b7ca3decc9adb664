//! `json_relay`, `json_relay_allow` and `health`.

use std::net::IpAddr;

use super::proxy::for_relay;
use super::scope::Scope;
use super::upstream::{self, HTTP_PORT, HTTPS_PORT, split_parameter};
use super::url::{self, Target, Url, strip_prefix_any_case};
use super::values::{invalid_parameter, refuse, refuse_directive};
use super::{Builder, Result};
use crate::config::model::{Health, ProxyFamily, ProxyHttpVersion, Relay, RelayRule, RelayTarget};
use crate::config::syntax::Directive;

/// `json_relay URL` in a location with these `json_relay_allow`s.
pub(super) fn build(
    builder: &mut Builder<'_>,
    d: &Directive,
    allowed: &[&Directive],
    scope: &Scope,
) -> Result<Relay> {
    let value = d.arg(0);
    let secure = strip_prefix_any_case(value, b"https://");
    let Some(rest) = secure.or_else(|| strip_prefix_any_case(value, b"http://")) else {
        return Err(refuse(d, "invalid URL prefix"));
    };
    let default_port = match secure {
        Some(_) => HTTPS_PORT,
        None => HTTP_PORT,
    };
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    let (host, port) = host_and_port(d, rest, default_port)?;
    let mut targets = vec![target(builder, d, host, port, &[])];
    for allow in allowed {
        let (host, port) = host_and_port(allow, allow.arg(0), default_port)?;
        let (rule, private) = rule(allow)?;
        let known = targets
            .iter_mut()
            .find(|known| *known.host == *host && known.port == port);
        match known {
            Some(known) => {
                known.rules.push(rule);
                known.private |= private;
            }
            None => {
                let mut new = target(builder, allow, host, port, &[rule]);
                new.private |= private;
                targets.push(new);
            }
        }
    }
    // Where the default host has no rule of its own, all of it may be reached.
    if let Some(default) = targets.first_mut()
        && default.rules.is_empty()
    {
        default.rules.push(RelayRule::default());
    }
    let tls = match secure {
        Some(_) => Some(scope.proxy_tls.finish(
            builder,
            ProxyFamily::Proxy,
            ProxyHttpVersion::Http11,
            d,
        )?),
        None => None,
    };
    let first = targets.first().map_or(0, |target| target.upstream);
    Ok(Relay {
        proxy: for_relay(&scope.proxy, tls, first),
        targets,
        default_port,
    })
}

fn target(
    builder: &mut Builder<'_>,
    d: &Directive,
    host: String,
    port: u16,
    rules: &[RelayRule],
) -> RelayTarget {
    let name = format!("relay to {host}:{port} of {}", d.position);
    RelayTarget {
        private: is_private_name(&host),
        host: host.into(),
        port,
        rules: rules.to_vec(),
        upstream: upstream::without_peers(builder, &name),
    }
}

/// `host[:port]`, the host in the form in which calls are compared with it.
fn host_and_port(d: &Directive, text: &[u8], default_port: u16) -> Result<(String, u16)> {
    let shown = String::from_utf8_lossy(text);
    let invalid = |what: &str| refuse(d, format!("{what} in \"{shown}\""));
    let Url { target, uri } = url::parse(text).map_err(invalid)?;
    if uri.is_some() {
        return Err(invalid("a path has no place"));
    }
    match target {
        Target::Unix(_) => Err(invalid("a UNIX socket cannot be relayed to")),
        Target::Host { host, port } => {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host = bare.unwrap_or(host).to_ascii_lowercase();
            let host = match host.parse::<IpAddr>() {
                Ok(address) => address.to_string(),
                Err(_) if bare.is_some() || !is_host_name(&host) => {
                    return Err(invalid("invalid host"));
                }
                Err(_) => host,
            };
            Ok((host, port.unwrap_or(default_port)))
        }
    }
}

fn is_host_name(host: &str) -> bool {
    host.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && !host.ends_with('.')
        // What a resolver might take for an address in another spelling.
        && !host
            .rsplit('.')
            .next()
            .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether the name itself says that it is not of the public Internet: then
/// listing it is what permits private addresses.
fn is_private_name(host: &str) -> bool {
    const SUFFIXES: [&str; 6] = [
        ".localhost",
        ".local",
        ".internal",
        ".home.arpa",
        ".lan",
        ".test",
    ];
    host.parse::<IpAddr>().is_ok()
        || !host.contains('.')
        || SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
}

/// `[methods=M,…] [path=/PREFIX] [private]`.
fn rule(d: &Directive) -> Result<(RelayRule, bool)> {
    let mut rule = RelayRule::default();
    let mut private = false;
    for word in d.args.get(1..).unwrap_or_default() {
        let word = &*word.value;
        match split_parameter(word) {
            (b"methods", Some(list)) if rule.methods.is_none() => {
                let list = std::str::from_utf8(list).map_err(|_| invalid_parameter(d, word))?;
                let methods: Vec<Box<str>> = list
                    .split(',')
                    .map(|method| method.to_ascii_uppercase().into())
                    .collect();
                let is_method = |method: &str| {
                    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase())
                };
                if !methods.iter().all(|method| is_method(method)) {
                    return Err(invalid_parameter(d, word));
                }
                rule.methods = Some(methods);
            }
            (b"path", Some(path)) if rule.path.is_none() && path.starts_with(b"/") => {
                rule.path = Some(path.into());
            }
            (b"private", None) => private = true,
            _ => return Err(invalid_parameter(d, word)),
        }
    }
    Ok((rule, private))
}

/// `health [service=NAME] [upstreams] [certificates]`.
pub(super) fn health(d: &Directive) -> Result<Health> {
    let mut health = Health {
        service: "ringwall".into(),
        upstreams: false,
        certificates: false,
    };
    for word in &d.args {
        match split_parameter(&word.value) {
            (b"service", Some(name)) => {
                let name = std::str::from_utf8(name);
                health.service = name
                    .map_err(|_| refuse_directive(d, "invalid value"))?
                    .into();
            }
            (b"upstreams", None) => health.upstreams = true,
            (b"certificates", None) => health.certificates = true,
            _ => return Err(invalid_parameter(d, &word.value)),
        }
    }
    Ok(health)
}
