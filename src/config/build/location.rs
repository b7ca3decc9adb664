//! `location` blocks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::proxy::{self, LocationKind};
use super::scope::Scope;
use super::upstream::RESOLVER_TIMEOUT;
use super::values::{refuse, refuse_directive};
use super::{Builder, Result, health, logs, relay, rewrite};
use crate::config::model::{
    Handler, LimitExcept, Location, Locations, Position, ProxyFamily, Return, RootKind,
    ServerTokens,
};
use crate::config::script::{Step, TryFiles};
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
                let regex = builder.pattern(d, head.name, any_case)?;
                locations.regexes.push((regex, location));
            }
        }
    }
    locations.sort();
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

/// What an `if` or `limit_except` block takes from the location around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited<'a> {
    /// As the location was written.
    name: &'a str,
    path: &'a [u8],
    kind: LocationKind<'a>,
    /// Its `proxy_pass` or `grpc_pass`.
    pass: Option<&'a Directive>,
}

/// The directives of one block, sorted by what becomes of them.
#[derive(Debug, Default)]
struct Contents<'a> {
    scope: Scope,
    /// In file order, because that is what they mean.
    steps: Vec<&'a Directive>,
    nested: Vec<&'a Directive>,
    /// `proxy_pass` and `grpc_pass`.
    passes: Vec<&'a Directive>,
    limit_except: Option<&'a Directive>,
    health_checks: Vec<&'a Directive>,
    internal: bool,
    try_files: Option<Box<TryFiles>>,
    /// `metrics`, `stub_status`, `empty_gif` or `health`.
    monitor: Option<Handler>,
    relay: Option<&'a Directive>,
    relay_allow: Vec<&'a Directive>,
}

impl<'a> Contents<'a> {
    /// `head` is that of a location, which alone may say `alias`.
    fn read(
        builder: &mut Builder<'_>,
        d: &'a Directive,
        outer: &Scope,
        head: Option<&Head<'_>>,
    ) -> Result<Self> {
        let mut contents = Self::default();
        for inner in d.children() {
            match &*inner.name.value {
                b"location" => contents.nested.push(inner),
                b"set" | b"rewrite" | b"break" | b"return" | b"if" => contents.steps.push(inner),
                // Of several handlers the last one said is used.
                b"proxy_pass" | b"grpc_pass" => {
                    let said = contents
                        .passes
                        .iter()
                        .any(|said| said.name.value == inner.name.value);
                    if said {
                        return Err(refuse_directive(inner, "is duplicate"));
                    }
                    contents.passes.push(inner);
                    contents.monitor = None;
                }
                b"json_relay" => super::values::set(&mut contents.relay, inner, inner)?,
                b"json_relay_allow" => contents.relay_allow.push(inner),
                b"health" => {
                    let health = relay::health(inner)?;
                    contents.monitor = Some(Handler::Health(Box::new(health)));
                }
                b"metrics" => contents.monitor = Some(Handler::Metrics),
                b"stub_status" => contents.monitor = Some(Handler::StubStatus),
                b"empty_gif" => contents.monitor = Some(Handler::EmptyGif),
                b"limit_except" => super::values::set(&mut contents.limit_except, inner, inner)?,
                b"health_check" => contents.health_checks.push(inner),
                b"internal" => contents.internal = true,
                b"try_files" => {
                    let parsed = Box::new(rewrite::try_files(builder, inner)?);
                    super::values::set(&mut contents.try_files, inner, parsed)?;
                }
                b"alias" => {
                    let kind = alias_kind(inner, head)?;
                    contents.scope.files.alias(builder, inner, kind)?;
                }
                _ => {
                    if !contents.scope.apply(builder, inner)? && !is_without_effect(inner) {
                        return Err(logs::unhandled(inner));
                    }
                }
            }
        }
        contents.scope.inherit(outer);
        contents.scope.proxy.check_buffers()?;
        Ok(contents)
    }

    /// Of several the last one said is used, as of all that may answer.
    fn pass(&self) -> Option<&'a Directive> {
        self.passes.last().copied()
    }

    /// What answers, and what is done before.
    fn handler(
        &mut self,
        builder: &mut Builder<'_>,
        inherited: &Inherited<'_>,
    ) -> Result<(Handler, Vec<Step>)> {
        if let Some(d) = self.relay {
            // Its own path is all that a call is made by.
            if inherited.path.is_empty() || self.pass().is_some() {
                let what = "needs a location of a path, without \"proxy_pass\"";
                return Err(refuse_directive(d, what));
            }
            let relay = relay::build(builder, d, &self.relay_allow, &self.scope)?;
            self.monitor = Some(Handler::Relay(Box::new(relay)));
        } else if let Some(d) = self.relay_allow.first() {
            return Err(refuse_directive(d, "has no \"json_relay\" beside it"));
        }
        let handler = match (self.monitor.take(), self.pass().or(inherited.pass)) {
            (Some(monitor), _) => monitor,
            (None, Some(pass)) => proxy_to(builder, pass, &self.scope, &inherited.kind)?,
            (None, None) => Handler::Files,
        };
        for d in &self.health_checks {
            let proxy = match &handler {
                Handler::Proxy(proxy) => Some(&**proxy),
                _ => None,
            };
            let check = health::check(builder, d, proxy)?;
            builder.health_checks.push(check);
        }
        let within = Inherited {
            // The URI part of an own `proxy_pass` has been refused if there is
            // no path for it to replace; inside an `if` there never is.
            pass: self.pass().or(inherited.pass),
            ..*inherited
        };
        let mut steps = Vec::new();
        for d in &self.steps {
            if &*d.name.value == b"if" {
                steps.push(rewrite::location_if(builder, d, &self.scope, &within)?);
            } else if let Some(step) = rewrite::step(builder, d)? {
                steps.push(step);
            }
        }
        Ok(answer_first(steps, handler))
    }
}

/// How the path of an `alias` is continued.
fn alias_kind(d: &Directive, head: Option<&Head<'_>>) -> Result<RootKind> {
    match head.map(|head| (head.modifier, head.name)) {
        Some((Modifier::Regex { .. }, _)) => Ok(RootKind::Whole),
        Some((Modifier::Named, _)) => {
            let what = "cannot be used inside the named location";
            Err(refuse(d, format!("the \"alias\" directive {what}")))
        }
        Some((_, name)) => Ok(RootKind::Alias(name.into())),
        None => Err(refuse_directive(d, "is not allowed here")),
    }
}

/// A `return` that nothing stands before answers everything, whatever else is
/// written.
pub(super) fn answer_first(mut steps: Vec<Step>, handler: Handler) -> (Handler, Vec<Step>) {
    match steps.first() {
        Some(Step::Return(_)) => match steps.swap_remove(0) {
            Step::Return(returns) => (Handler::Return(returns), Vec::new()),
            step => (handler, vec![step]),
        },
        _ => (handler, steps),
    }
}

fn proxy_to(
    builder: &mut Builder<'_>,
    pass: &Directive,
    scope: &Scope,
    kind: &LocationKind<'_>,
) -> Result<Handler> {
    let family = match &*pass.name.value {
        b"grpc_pass" => ProxyFamily::Grpc,
        _ => ProxyFamily::Proxy,
    };
    let proxy = proxy::build(builder, pass, family, scope.backend(family), kind)?;
    Ok(Handler::Proxy(Box::new(proxy)))
}

fn build(
    builder: &mut Builder<'_>,
    d: &Directive,
    head: &Head<'_>,
    outer: &Scope,
) -> Result<Location> {
    let mut contents = Contents::read(builder, d, outer, Some(head))?;
    let (path, kind) = match head.modifier {
        Modifier::Regex { .. } | Modifier::Named => (&b""[..], LocationKind::Other),
        _ => (head.name, LocationKind::Path(head.name)),
    };
    let words: Vec<_> = (0..d.args.len()).map(|index| d.text(index)).collect();
    let name = words.join(" ");
    let inherited = Inherited {
        name: &name,
        path,
        kind,
        pass: None,
    };
    let (handler, steps) = contents.handler(builder, &inherited)?;
    let limit_except = match contents.limit_except {
        Some(limits) => {
            let within = Inherited {
                pass: contents.pass(),
                ..inherited
            };
            Some(limit_except(builder, limits, &contents.scope, &within)?)
        }
        None => None,
    };
    let mut location = finish(builder, &contents.scope, handler, &d.position);
    location.script = steps.into();
    location.limit_except = limit_except;
    location.internal = contents.internal;
    location.auto_redirect = contents.pass().is_some() && path.ends_with(b"/");
    location.try_files = contents.try_files;
    location.name = name.into();
    location.prefix = path.into();
    location.nested = build_all(builder, &contents.nested, &contents.scope, Some(head))?;
    Ok(location)
}

/// The block of an `if` or a `limit_except`: a location that takes the place of
/// the one around it. `proxy_pass` passes on to it, unlike to nested locations.
pub(super) fn build_unnamed(
    builder: &mut Builder<'_>,
    d: &Directive,
    outer: &Scope,
    inherited: &Inherited<'_>,
) -> Result<(Arc<Location>, Vec<Step>)> {
    let mut contents = Contents::read(builder, d, outer, None)?;
    let kind = match contents.pass() {
        Some(_) => LocationKind::Other,
        None => inherited.kind,
    };
    let inherited = Inherited { kind, ..*inherited };
    let (handler, steps) = contents.handler(builder, &inherited)?;
    let (handler, steps) = match handler {
        // It stays a step, so that the location around needs no look at it.
        Handler::Return(returns) => {
            let step = Step::Return(returns);
            (Handler::Files, vec![step])
        }
        handler => (handler, steps),
    };
    let mut location = finish(builder, &contents.scope, handler, &d.position);
    location.internal = contents.internal;
    location.name = inherited.name.into();
    location.prefix = inherited.path.into();
    Ok((Arc::new(location), steps))
}

/// `limit_except METHOD… { … }`.
fn limit_except(
    builder: &mut Builder<'_>,
    d: &Directive,
    outer: &Scope,
    inherited: &Inherited<'_>,
) -> Result<LimitExcept> {
    const METHODS: [&[u8]; 15] = [
        b"GET",
        b"HEAD",
        b"POST",
        b"PUT",
        b"DELETE",
        b"MKCOL",
        b"COPY",
        b"MOVE",
        b"OPTIONS",
        b"PROPFIND",
        b"PROPPATCH",
        b"LOCK",
        b"UNLOCK",
        b"PATCH",
        b"TRACE",
    ];
    let mut methods = Vec::new();
    for word in &d.args {
        let method = word.value.to_ascii_uppercase();
        if !METHODS.contains(&&*method) {
            return Err(refuse(d, format!("invalid method \"{}\"", word.text())));
        }
        if method == b"GET" {
            methods.push(b"HEAD".as_slice().into());
        }
        methods.push(method.into());
    }
    let (location, _) = build_unnamed(builder, d, outer, inherited)?;
    Ok(LimitExcept { methods, location })
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
        script: Box::default(),
        handler,
        try_files: None,
        limit_except: None,
        internal: false,
        error_pages: scope.routing.error_pages.clone().unwrap_or_default(),
        recursive_error_pages: scope.routing.recursive_error_pages.unwrap_or(false),
        redirects: scope.routing.redirects(),
        nested: Locations::default(),
        auto_redirect: false,
        client_rules: scope.authorization.rules.clone(),
        client_required: scope.authorization.required.unwrap_or(false),
        real_ip: scope.real_ip.finish(),
        referers: scope.referers.build(),
        limits: scope.limits.finish(),
        access: scope.access.finish(builder),
        cors: scope.cors.finish(),
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
        charset: scope.files.charset(),
        files: Arc::new(scope.files.finish(builder)),
        gzip: scope.gzip.finish(),
        types: said.types.clone().unwrap_or_default(),
        add_headers: said.add_headers.clone().unwrap_or_default(),
        delivery: said.delivery.build(),
        parting: said.parting.build(),
        expires: said.expires.clone().map(Box::new),
        access_logs: said.access_logs(builder),
        error_logs: said.error_logs.clone().unwrap_or_default(),
        resolver: scope.names.resolver,
        resolver_timeout: scope.names.timeout.unwrap_or(RESOLVER_TIMEOUT),
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
        Some(url) if matches!(status, 301 | 302 | 303 | 307 | 308) => {
            Some(redirect_target(builder, d, url)?)
        }
        // As in Nginx: an error without text has its page, and success without one
        // an empty text.
        Some(b"") if status >= 400 => None,
        None if (200..300).contains(&status) => Some(builder.template(b"", &d.position)?),
        Some(text) => Some(builder.template(text, &d.position)?),
        None => None,
    };
    Ok(Return { status, text })
}

/// The address that a client is sent to.
pub(super) fn redirect_target(
    builder: &Builder<'_>,
    d: &Directive,
    url: &[u8],
) -> Result<Template> {
    let url = builder.template(url, &d.position)?;
    let ends_line = |part: &Part| matches!(part, Part::Literal(bytes) if bytes.iter().any(u8::is_ascii_control));
    if url.parts.iter().any(ends_line) || url.variables().any(Variable::spans_lines) {
        // It would end up in a header field as it is.
        return Err(refuse_directive(d, "has a control character in its URL"));
    }
    Ok(url)
}

/// Whether the table says that a directive may be passed over.
pub(super) fn is_without_effect(d: &Directive) -> bool {
    use crate::config::directives::{Class, lookup};
    lookup(&d.name.value)
        .iter()
        .any(|row| matches!(row.class, Class::NoEffect(_) | Class::Fixed(..)))
}
