//! The balancing methods of `upstream`, and `sticky`.

use std::time::Duration;

use super::upstream::split_parameter;
use super::values::{invalid_parameter, not_implemented, refuse, refuse_directive};
use super::{Builder, Result};
use crate::config::model::{BalanceMethod, Sticky, StickyCookie, StickyExpires, StickySessions};
use crate::config::syntax::Directive;
use crate::config::template::Part;
use crate::config::units;

/// What an upstream says about the choice of its peers.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    /// Whose.
    upstream: Box<str>,
    pub(super) method: Option<BalanceMethod>,
    pub(super) sticky: Option<Box<Sticky>>,
}

impl Balancing {
    pub(super) fn for_upstream(name: &str) -> Self {
        Self {
            upstream: name.into(),
            ..Self::default()
        }
    }

    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        let method = match &*d.name.value {
            b"least_conn" => BalanceMethod::LeastConnections,
            b"ip_hash" => BalanceMethod::IpHash,
            b"hash" => hash(builder, d)?,
            b"random" => random(d)?,
            b"sticky" => {
                if self.sticky.is_some() {
                    return Err(refuse_directive(d, "is duplicate"));
                }
                self.sticky = Some(Box::new(sticky(builder, d, &self.upstream)?));
                return Ok(true);
            }
            _ => return Ok(false),
        };
        if self.method.replace(method).is_some() {
            builder.warn(&d.position, "load balancing method redefined");
        }
        Ok(true)
    }

    /// Holds a `server`'s parameters against the method said so far, as Nginx
    /// does: what follows the servers does not concern them.
    pub(super) fn check(&self, d: &Directive, word: &[u8]) -> Result<()> {
        let unsupported = match (split_parameter(word).0, &self.method) {
            (b"backup" | b"slow_start", Some(method)) => !matches!(
                method,
                BalanceMethod::RoundRobin | BalanceMethod::LeastConnections
            ),
            _ => false,
        };
        if unsupported {
            let word = String::from_utf8_lossy(word);
            let message = format!("balancing method does not support parameter \"{word}\"");
            return Err(refuse(d, message));
        }
        Ok(())
    }
}

/// `hash KEY [consistent]`.
fn hash(builder: &Builder<'_>, d: &Directive) -> Result<BalanceMethod> {
    let key = builder.template(d.arg(0), &d.position)?;
    match d.args.get(1).map(|word| &*word.value) {
        None => Ok(BalanceMethod::Hash(key)),
        Some(b"consistent") => Ok(BalanceMethod::ConsistentHash(key)),
        Some(word) => Err(invalid_parameter(d, word)),
    }
}

/// `random [two [least_conn]]`.
fn random(d: &Directive) -> Result<BalanceMethod> {
    let words: Vec<&[u8]> = d.args.iter().map(|word| &*word.value).collect();
    match words.as_slice() {
        [] => Ok(BalanceMethod::Random),
        [b"two"] | [b"two", b"least_conn"] => Ok(BalanceMethod::RandomTwo),
        [b"two", word, ..] | [word, ..] => Err(invalid_parameter(d, word)),
    }
}

/// `sticky cookie NAME …`, `sticky route $VARIABLE …`, `sticky learn …`.
fn sticky(builder: &mut Builder<'_>, d: &Directive, upstream: &str) -> Result<Sticky> {
    match d.arg(0) {
        b"cookie" => cookie(builder, d),
        b"route" => {
            let mut lookup = Vec::new();
            for word in d.args.get(1..).unwrap_or_default() {
                let template = builder.template(&word.value, &d.position)?;
                if !matches!(&*template.parts, [Part::Variable(_)]) {
                    let word = String::from_utf8_lossy(&word.value);
                    return Err(refuse(d, format!("invalid variable name \"{word}\"")));
                }
                lookup.push(template);
            }
            Ok(Sticky {
                lookup,
                cookie: None,
                sessions: None,
            })
        }
        b"learn" => learn(builder, d, upstream),
        word => {
            let word = String::from_utf8_lossy(word);
            Err(refuse(d, format!("unknown parameter \"{word}\"")))
        }
    }
}

fn cookie(builder: &Builder<'_>, d: &Directive) -> Result<Sticky> {
    let name = d.arg(1);
    if name.is_empty() {
        return Err(refuse_directive(d, "empty cookie name"));
    }
    let mut cookie = StickyCookie {
        name: field_part(d, name)?.into(),
        expires: None,
        domain: None,
        path: None,
        http_only: false,
        secure: false,
        same_site: None,
    };
    for word in d.args.get(2..).unwrap_or_default() {
        let word = &*word.value;
        let (key, value) = split_parameter(word);
        let is_new = match (key, value) {
            (b"domain" | b"path", Some(b"")) => {
                let key = String::from_utf8_lossy(key);
                return Err(refuse_directive(d, &format!("no value for \"{key}\"")));
            }
            (b"domain", Some(value)) => {
                let value = builder.template(field_part(d, value)?, &d.position)?;
                cookie.domain.replace(value).is_none()
            }
            (b"path", Some(value)) => cookie.path.replace(field_part(d, value)?.into()).is_none(),
            (b"expires", Some(value)) => {
                let expires = match value {
                    b"max" => StickyExpires::Max,
                    _ => StickyExpires::After(units::seconds(value).ok_or_else(|| {
                        refuse_directive(d, "invalid \"expires\" parameter value")
                    })?),
                };
                cookie.expires.replace(expires).is_none()
            }
            (b"httponly", None) => !std::mem::replace(&mut cookie.http_only, true),
            (b"secure", None) => !std::mem::replace(&mut cookie.secure, true),
            (b"samesite", Some(value)) => {
                let template = builder.template(value, &d.position)?;
                if template
                    .as_literal()
                    .is_some_and(|value| !StickyCookie::is_same_site(value))
                {
                    return Err(refuse_directive(d, "invalid \"samesite\" parameter value"));
                }
                cookie.same_site.replace(template).is_none()
            }
            _ => {
                let word = String::from_utf8_lossy(word);
                return Err(refuse(d, format!("unknown parameter \"{word}\"")));
            }
        };
        if !is_new {
            let key = String::from_utf8_lossy(key);
            let what = format!("parameter \"{key}\" is duplicate");
            return Err(refuse_directive(d, &what));
        }
    }
    let variable = [b"$cookie_", name].concat();
    let lookup = builder
        .template(&variable, &d.position)
        .ok()
        .filter(|template| matches!(&*template.parts, [Part::Variable(_)]));
    let Some(lookup) = lookup else {
        // A name that no variable can have, as in Nginx.
        return Err(refuse(d, "invalid variable name"));
    };
    Ok(Sticky {
        lookup: vec![lookup],
        cookie: Some(cookie),
        sessions: None,
    })
}

/// `sticky learn create=$VARIABLE… lookup=$VARIABLE… zone=NAME:SIZE
/// [timeout=TIME] [header]`.
fn learn(builder: &mut Builder<'_>, d: &Directive, upstream: &str) -> Result<Sticky> {
    const PAGE: usize = 4096;
    const TIMEOUT: Duration = Duration::from_secs(600);
    let refused = |what: &str| refuse_directive(d, what);
    let (mut create, mut lookup) = (Vec::new(), Vec::new());
    let (mut zone, mut timeout, mut from_head) = (None, None, false);
    for word in d.args.get(1..).unwrap_or_default() {
        let word = &*word.value;
        match split_parameter(word) {
            (which @ (b"create" | b"lookup"), Some(value)) => {
                let which_one = String::from_utf8_lossy(which);
                let missing = || {
                    refused(&format!(
                        "missing variable in the \"{which_one}\" parameter"
                    ))
                };
                let template = builder.template(value, &d.position)?;
                if !matches!(&*template.parts, [Part::Variable(_)]) {
                    return Err(missing());
                }
                match which {
                    b"create" => create.push(template),
                    _ => lookup.push(template),
                }
            }
            (b"zone", Some(value)) => {
                let colon = value.iter().position(|byte| *byte == b':');
                let colon = colon.ok_or_else(|| refused("zone size is not specified"))?;
                let (name, size) = (&value[..colon], &value[colon + 1..]);
                if name.is_empty() {
                    return Err(refused("zone name is not specified"));
                }
                let size = units::size(size).ok_or_else(|| refused("invalid zone size"))?;
                if size < 8 * PAGE {
                    return Err(refused("zone is too small"));
                }
                if zone.replace((Box::<[u8]>::from(name), size)).is_some() {
                    return Err(refused("duplicate zone"));
                }
            }
            (b"timeout", Some(value)) => {
                let time = units::milliseconds(value).filter(|time| !time.is_zero());
                let time = time.ok_or_else(|| refused("invalid timeout"))?;
                if timeout.replace(time).is_some() {
                    return Err(refused("duplicate timeout"));
                }
            }
            (b"header", None) => from_head = true,
            (b"sync", None) => return Err(not_implemented(d, word)),
            _ => {
                let word = String::from_utf8_lossy(word);
                return Err(refuse(d, format!("unknown parameter \"{word}\"")));
            }
        }
    }
    let missing = |name: &str| refused(&format!("\"{name}\" parameter is not specified"));
    if lookup.is_empty() {
        return Err(missing("lookup"));
    }
    if create.is_empty() {
        return Err(missing("create"));
    }
    let (zone, size) = zone.ok_or_else(|| missing("zone"))?;
    let zones = &mut builder.upstreams.sessions;
    if let Some(user) = zones.insert(zone.clone(), upstream.into()) {
        let zone = String::from_utf8_lossy(&zone);
        let message = format!("sticky zone \"{zone}\" is already used in upstream \"{user}\"");
        return Err(refuse(d, message));
    }
    Ok(Sticky {
        lookup,
        cookie: None,
        sessions: Some(StickySessions {
            create,
            zone,
            size,
            timeout: timeout.unwrap_or(TIMEOUT),
            from_head,
        }),
    })
}

/// A value that becomes a part of a field.
fn field_part<'v>(d: &Directive, value: &'v [u8]) -> Result<&'v [u8]> {
    if value.iter().any(|byte| byte.is_ascii_control()) {
        return Err(refuse_directive(d, "has a control character in its value"));
    }
    Ok(value)
}
