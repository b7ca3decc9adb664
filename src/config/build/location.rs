//! `location` blocks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::proxy::{self, LocationKind};
use super::scope::Scope;
use super::values::{refuse, refuse_directive};
use super::{Builder, Result, logs};
use crate::config::model::{Handler, Location, Locations, Position, Return, ServerTokens};
use crate::config::regexes;
use crate::config::syntax::Directive;
use crate::config::template::{Part, Template, Variable};
use crate::config::units;

/// How a location says which paths it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modifier {
    Prefix,
    PrefixNoRegex,
    Exact,
    Regex { any_case: bool },
    Named,
}

/// `location [MODIFIER] NAME`, taken apart; the modifier may be glued to the
/// name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    modifier: Modifier,
    name: &'a [u8],
}

impl<'a> Head<'a> {
    pub(super) fn parse(d: &'a Directive) -> Result<Self> {
        if d.args.len() == 2 {
            let modifier = match d.arg(0) {
                b"=" => Modifier::Exact,
                b"^~" => Modifier::PrefixNoRegex,
                b"~" => Modifier::Regex { any_case: false },
                b"~*" => Modifier::Regex { any_case: true },
                _ => {
                    let message = format!("invalid location modifier \"{}\"", d.text(0));
                    return Err(refuse(d, message));
                }
            };
            let name = d.arg(1);
            return Ok(Self { modifier, name });
        }
        let name = d.arg(0);
        let glued = [
            (b"=".as_slice(), Modifier::Exact),
            (b"^~", Modifier::PrefixNoRegex),
            (b"~*", Modifier::Regex { any_case: true }),
            (b"~", Modifier::Regex { any_case: false }),
        ];
        for (prefix, modifier) in glued {
            if let Some(name) = name.strip_prefix(prefix) {
                return Ok(Self { modifier, name });
            }
        }
        let modifier = match name.first() {
            Some(b'@') => Modifier::Named,
            _ => Modifier::Prefix,
        };
        Ok(Self { modifier, name })
    }

    /// The pattern, of a location that has one.
    pub(super) fn pattern(&self) -> Option<&'a [u8]> {
        matches!(self.modifier, Modifier::Regex { .. }).then_some(self.name)
    }

    fn is_regex(&self) -> bool {
        self.pattern().is_some()
    }
}

/// All locations of a block; `outer` is the location that they stand in.
pub(super) fn build_all(
    builder: &mut Builder<'_>,
    directives: &[&Directive],
    scope: &Scope,
    outer: Option<&Head<'_>>,
) -> Result<Locations> {
    let mut locations = Locations::default();
    let mut seen = HashSet::new();
    for d in directives {
        let head = Head::parse(d)?;
        check_nesting(d, &head, outer)?;
        let is_new = match head.modifier {
            Modifier::Exact => seen.insert((true, head.name)),
            Modifier::Prefix | Modifier::PrefixNoRegex => seen.insert((false, head.name)),
            // Of several the first is found, as in Nginx.
            Modifier::Named | Modifier::Regex { .. } => true,
        };
        if !is_new {
            let name = String::from_utf8_lossy(head.name);
            return Err(refuse(d, format!("duplicate location \"{name}\"")));
        }
        let location = Arc::new(build(builder, d, &head, scope)?);
        match head.modifier {
            Modifier::Exact => locations.exact.push((head.name.into(), location)),
            Modifier::Prefix => locations.prefixes.push((head.name.into(), false, location)),
            Modifier::PrefixNoRegex => {
                locations.prefixes.push((head.name.into(), true, location));
            }
            Modifier::Named => {
                let name = String::from_utf8_lossy(head.name).into_owned();
                locations.named.push((name.into(), location));
            }
            Modifier::Regex { any_case } => {
                let regex = regexes::compile(head.name, any_case).map_err(|e| refuse(d, e))?;
                locations.regexes.push((regex, location));
            }
        }
    }
    locations.exact.sort_by(|a, b| a.0.cmp(&b.0));
    locations
        .prefixes
        .sort_by_key(|(prefix, _, _)| std::cmp::Reverse(prefix.len()));
    Ok(locations)
}

fn check_nesting(d: &Directive, head: &Head<'_>, outer: Option<&Head<'_>>) -> Result<()> {
    let Some(outer) = outer else { return Ok(()) };
    let name = String::from_utf8_lossy(head.name);
    let outer_name = String::from_utf8_lossy(outer.name);
    match outer.modifier {
        Modifier::Exact => {
            let message =
                format!("location \"{name}\" cannot be inside the exact location \"{outer_name}\"");
            return Err(refuse(d, message));
        }
        Modifier::Named => {
            let message =
                format!("location \"{name}\" cannot be inside the named location \"{outer_name}\"");
            return Err(refuse(d, message));
        }
        _ => {}
    }
    if head.modifier == Modifier::Named {
        let message = format!("named location \"{name}\" can be on the server level only");
        return Err(refuse(d, message));
    }
    if !head.is_regex() && !outer.is_regex() && !head.name.starts_with(outer.name) {
        let message = format!("location \"{name}\" is outside location \"{outer_name}\"");
        return Err(refuse(d, message));
    }
    Ok(())
}

fn build(
    builder: &mut Builder<'_>,
    d: &Directive,
    head: &Head<'_>,
    outer: &Scope,
) -> Result<Location> {
    let mut scope = Scope::default();
    let mut returns = None;
    let mut proxy_pass = None;
    let mut monitor = None;
    let mut nested = Vec::new();
    for inner in d.children() {
        match &*inner.name.value {
            b"location" => nested.push(inner),
            b"return" => {
                let parsed = parse_return(builder, inner)?;
                returns.get_or_insert(parsed);
            }
            b"proxy_pass" => {
                super::values::set(&mut proxy_pass, inner, inner)?;
                monitor = None;
            }
            b"metrics" => monitor = Some(Handler::Metrics),
            b"stub_status" => monitor = Some(Handler::StubStatus),
            _ => {
                if !scope.apply(builder, inner)? && !is_without_effect(inner) {
                    return Err(logs::unhandled(inner));
                }
            }
        }
    }
    scope.inherit(outer);
    let path = match head.modifier {
        Modifier::Regex { .. } | Modifier::Named => &b""[..],
        _ => head.name,
    };
    let proxy = match proxy_pass {
        Some(pass) => {
            let kind = match head.modifier {
                Modifier::Regex { .. } | Modifier::Named => LocationKind::Other,
                _ => LocationKind::Path(path),
            };
            Some(proxy::build(
                builder,
                pass,
                &scope.proxy,
                &scope.proxy_tls,
                &kind,
            )?)
        }
        None => None,
    };
    let auto_redirect = proxy.is_some() && path.ends_with(b"/");
    // An unconditional `return` is always reached before the handler, and of
    // several handlers the last one said is used.
    let handler = match (returns, monitor, proxy) {
        (Some(returns), _, _) => Handler::Return(returns),
        (None, Some(monitor), _) => monitor,
        (None, None, Some(proxy)) => Handler::Proxy(Box::new(proxy)),
        (None, None, None) => Handler::None,
    };
    let words: Vec<_> = (0..d.args.len()).map(|index| d.text(index)).collect();
    let mut location = finish(builder, &scope, handler, &d.position);
    location.name = words.join(" ").into();
    location.prefix = path.into();
    location.auto_redirect = auto_redirect;
    location.nested = build_all(builder, &nested, &scope, Some(head))?;
    Ok(location)
}

/// A location of these settings without a name: what a server itself says.
pub(super) fn finish(
    builder: &Builder<'_>,
    scope: &Scope,
    handler: Handler,
    position: &Position,
) -> Location {
    const MINUTE: Duration = Duration::from_secs(60);
    let said = &scope.response;
    let (keepalive_timeout, keepalive_header) = said
        .keepalive_timeout
        .unwrap_or((Duration::from_secs(75), None));
    Location {
        name: "".into(),
        prefix: [].into(),
        position: position.clone(),
        handler,
        nested: Locations::default(),
        auto_redirect: false,
        client_rules: scope.authorization.rules.clone(),
        client_required: scope.authorization.required.unwrap_or(false),
        limits: scope.limits.finish(),
        access: scope.access.finish(builder),
        client_max_body_size: said.client_max_body_size.unwrap_or(1 << 20),
        client_body_timeout: said.client_body_timeout.unwrap_or(MINUTE),
        send_timeout: said.send_timeout.unwrap_or(MINUTE),
        keepalive_timeout,
        keepalive_header,
        keepalive_requests: said.keepalive_requests.unwrap_or(1000),
        server_tokens: said.server_tokens.unwrap_or(ServerTokens::On),
        default_type: said
            .default_type
            .clone()
            .unwrap_or_else(|| Template::literal(b"text/plain")),
        types: said.types.clone().unwrap_or_default(),
        add_headers: said.add_headers.clone().unwrap_or_default(),
        expires: said.expires.clone().map(Box::new),
        access_logs: said.access_logs(builder),
        error_logs: said.error_logs.clone().unwrap_or_default(),
        log_not_found: said.log_not_found.unwrap_or(true),
    }
}

/// `return CODE [TEXT]`, `return CODE URL`, `return URL`.
pub(super) fn parse_return(builder: &Builder<'_>, d: &Directive) -> Result<Return> {
    let first = d.arg(0);
    let invalid = || refuse(d, format!("invalid return code \"{}\"", d.text(0)));
    let (status, text) = match units::number(first) {
        Some(code) => {
            let code = u16::try_from(code).ok().filter(|&code| code <= 999);
            (code.ok_or_else(invalid)?, d.args.get(1).map(|_| d.arg(1)))
        }
        None => {
            let is_url = [b"http://".as_slice(), b"https://", b"$scheme"]
                .iter()
                .any(|prefix| first.starts_with(prefix));
            if d.args.len() != 1 || !is_url {
                return Err(invalid());
            }
            (302, Some(first))
        }
    };
    let text = match text {
        Some(text) => Some(builder.template(text, &d.position)?),
        None => None,
    };
    if let (301 | 302 | 303 | 307 | 308, Some(url)) = (status, &text) {
        let ends_line = |part: &Part| matches!(part, Part::Literal(bytes) if bytes.iter().any(u8::is_ascii_control));
        if url.parts.iter().any(ends_line) || url.variables().any(Variable::spans_lines) {
            // It would end up in a header field as it is.
            return Err(refuse_directive(d, "has a control character in its URL"));
        }
    }
    Ok(Return { status, text })
}

/// Whether the table says that a directive may be passed over.
pub(super) fn is_without_effect(d: &Directive) -> bool {
    use crate::config::directives::{Class, lookup};
    lookup(&d.name.value)
        .iter()
        .any(|row| matches!(row.class, Class::NoEffect(_) | Class::Fixed(..)))
}
