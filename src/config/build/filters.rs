//! What `proxy_*` changes in requests and responses on their way.

use super::proxy::LocationKind;
use super::tls::located;
use super::values::{
    flag, has_variable, invalid_value, refuse, refuse_directive, set, size, small_number,
};
use super::variables::regex_key;
use super::{Builder, Result};
use crate::config::error::Error;
use crate::config::model::{
    CookieFlags, CookieName, CookieRules, HiddenFields, IgnoredFields, Located, ProxyFilters,
    ResponseBuffering, RewritePattern, RewriteRule,
};
use crate::config::syntax::Directive;
use crate::config::template::Template;
use crate::config::units;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct FilterSettings {
    method: Option<Template>,
    body: Option<Template>,
    pass_request_headers: Option<bool>,
    pass_request_body: Option<bool>,
    pass_trailers: Option<bool>,
    request_buffering: Option<bool>,
    buffering: Option<bool>,
    buffers: Option<Located<Buffers>>,
    buffer_size: Option<Located<usize>>,
    busy_buffers_size: Option<Located<usize>>,
    ignore_client_abort: Option<bool>,
    intercept_errors: Option<bool>,
    limit_rate: Option<Template>,
    hide: Option<Vec<Box<[u8]>>>,
    pass: Option<Vec<Box<[u8]>>>,
    ignored: Option<IgnoredFields>,
    redirects: Option<Redirects>,
    cookie_domains: Option<Vec<RewriteRule>>,
    cookie_paths: Option<Vec<RewriteRule>>,
    cookie_flags: Option<Vec<CookieFlags>>,
}

/// `proxy_redirect` of one block.
#[derive(Debug, Clone)]
enum Redirects {
    /// Whatever else the block says.
    Off,
    /// In order; `None` stands for `default`.
    Rules(Vec<Option<RewriteRule>>),
}

impl FilterSettings {
    /// Takes a directive by its name in the family; `false` when it is not one of
    /// these.
    pub(super) fn apply(
        &mut self,
        builder: &mut Builder<'_>,
        name: &[u8],
        d: &Directive,
    ) -> Result<bool> {
        match name {
            b"method" => set(&mut self.method, d, template(builder, d, 0)?)?,
            b"set_body" => set(&mut self.body, d, template(builder, d, 0)?)?,
            b"pass_request_headers" => set(&mut self.pass_request_headers, d, flag(d)?)?,
            b"pass_request_body" => set(&mut self.pass_request_body, d, flag(d)?)?,
            b"pass_trailers" => set(&mut self.pass_trailers, d, flag(d)?)?,
            b"request_buffering" => set(&mut self.request_buffering, d, flag(d)?)?,
            b"buffering" => set(&mut self.buffering, d, flag(d)?)?,
            b"buffers" => set(&mut self.buffers, d, buffers(d)?)?,
            b"buffer_size" => {
                let value = size(d, 0)?;
                if value == 0 {
                    return Err(invalid_value(d));
                }
                set(&mut self.buffer_size, d, located(d, value))?;
            }
            // Only held against the others: see `check_buffers`.
            b"busy_buffers_size" => {
                let value = located(d, size(d, 0)?);
                set(&mut self.busy_buffers_size, d, value)?;
            }
            b"ignore_client_abort" => set(&mut self.ignore_client_abort, d, flag(d)?)?,
            b"intercept_errors" => set(&mut self.intercept_errors, d, flag(d)?)?,
            b"limit_rate" => set(&mut self.limit_rate, d, bytes(builder, d)?)?,
            b"hide_header" => self.hide.get_or_insert_default().push(d.arg(0).into()),
            b"pass_header" => self.pass.get_or_insert_default().push(d.arg(0).into()),
            b"ignore_headers" => ignore(self.ignored.get_or_insert_default(), d)?,
            b"redirect" => self.redirect(builder, d)?,
            b"cookie_domain" => {
                rules(&mut self.cookie_domains, builder, d, RewritePattern::Domain)?;
            }
            b"cookie_path" => {
                rules(&mut self.cookie_paths, builder, d, RewritePattern::Prefix)?;
            }
            b"cookie_flags" => self.cookie_flags(builder, d)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Lists pass on only where the inner block adds nothing to them.
    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            method, body, pass_request_headers, pass_request_body, pass_trailers,
            request_buffering, buffering, buffers, buffer_size, busy_buffers_size,
            ignore_client_abort, intercept_errors, limit_rate, hide, pass, ignored, redirects, cookie_domains, cookie_paths, cookie_flags
        );
    }

    /// The sizes that fit one another in Nginx, whose configurations are to be
    /// known here as right or wrong. Of `grpc_` there is only the first.
    ///
    /// # Errors
    /// As Nginx words them, where the directive stands that says most.
    pub(super) fn check_buffers(&self) -> Result<()> {
        let says = self.busy_buffers_size.as_ref().map(|said| &said.position);
        let says = says.or(self.buffer_size.as_ref().map(|said| &said.position));
        let says = says.or(self.buffers.as_ref().map(|said| &said.position));
        let Some(position) = says else {
            return Ok(());
        };
        let buffers = self.buffers();
        let largest = self.buffer_size().max(buffers.size);
        let busy = self.busy_buffers_size.as_ref().map(|said| said.value);
        let busy = busy.unwrap_or(largest.saturating_mul(2));
        if busy < largest {
            let message = "\"proxy_busy_buffers_size\" must be equal to or greater than the \
                           maximum of the value of \"proxy_buffer_size\" and one of the \
                           \"proxy_buffers\"";
            return Err(Error::at(position, message));
        }
        if busy > buffers.all() - buffers.size {
            let message = "\"proxy_busy_buffers_size\" must be less than the size of all \
                           \"proxy_buffers\" minus one buffer";
            return Err(Error::at(position, message));
        }
        Ok(())
    }

    fn buffers(&self) -> Buffers {
        let said = self.buffers.as_ref();
        said.map_or(Buffers::DEFAULT, |said| said.value)
    }

    fn buffer_size(&self) -> usize {
        let said = self.buffer_size.as_ref();
        said.map_or(BUFFER_SIZE, |said| said.value)
    }

    /// Whether `proxy_redirect default` is said.
    pub(super) fn says_default_redirect(&self) -> bool {
        matches!(&self.redirects, Some(Redirects::Rules(rules)) if rules.iter().any(Option::is_none))
    }

    /// What holds in a location with this `proxy_pass`. `default_redirect` is
    /// what `proxy_redirect default` means there, if it means anything.
    pub(super) fn build(&self, default_redirect: Option<&RewriteRule>) -> ProxyFilters {
        let redirects = match &self.redirects {
            Some(Redirects::Off) => Vec::new(),
            Some(Redirects::Rules(rules)) => rules
                .iter()
                .filter_map(|rule| rule.as_ref().or(default_redirect).cloned())
                .collect(),
            None => default_redirect.cloned().into_iter().collect(),
        };
        let cookies = CookieRules {
            domains: self.cookie_domains.clone().unwrap_or_default().into(),
            paths: self.cookie_paths.clone().unwrap_or_default().into(),
            flags: self.cookie_flags.clone().unwrap_or_default().into(),
        };
        let any = cookies.domains.len() + cookies.paths.len() + cookies.flags.len() > 0;
        ProxyFilters {
            method: self.method.clone(),
            body: self.body.clone(),
            pass_request_headers: self.pass_request_headers.unwrap_or(true),
            pass_request_body: self.pass_request_body.unwrap_or(true),
            pass_trailers: self.pass_trailers.unwrap_or(false),
            request_buffering: self.request_buffering.unwrap_or(true),
            buffering: ResponseBuffering {
                on: self.buffering.unwrap_or(true),
                buffers: self.buffers().all(),
                head: self.buffer_size(),
            },
            ignore_client_abort: self.ignore_client_abort.unwrap_or(false),
            intercept_errors: self.intercept_errors.unwrap_or(false),
            limit_rate: self.limit_rate.clone(),
            hidden: self.hidden(),
            ignored: self.ignored.unwrap_or_default(),
            redirects: redirects.into(),
            cookies: any.then(|| Box::new(cookies)),
        }
    }

    /// The same with a `grpc_pass`, which leaves most of it alone.
    pub(super) fn build_grpc(&self) -> ProxyFilters {
        const NOT_HIDDEN: &[u8] = b"X-Pad";
        let mut filters = self.build(None);
        filters.request_buffering = false;
        filters.pass_trailers = true;
        filters.buffering.on = false;
        let hide = self.hide.as_deref().unwrap_or_default();
        if !hide
            .iter()
            .any(|name| name.eq_ignore_ascii_case(NOT_HIDDEN))
        {
            let shown = std::mem::take(&mut filters.hidden.shown).into_iter();
            filters.hidden.shown = shown.chain([NOT_HIDDEN.into()]).collect();
        }
        filters
    }

    /// What is passed wins over what is hidden, wherever either was said.
    fn hidden(&self) -> HiddenFields {
        let pass = self.pass.as_deref().unwrap_or_default();
        let hide = self.hide.as_deref().unwrap_or_default();
        let is_hidden_by_default = |name: &[u8]| {
            HiddenFields::BY_DEFAULT
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(name))
        };
        let is_passed = |name: &[u8]| pass.iter().any(|passed| passed.eq_ignore_ascii_case(name));
        HiddenFields {
            also: hide
                .iter()
                .filter(|name| !is_hidden_by_default(name) && !is_passed(name))
                .cloned()
                .collect(),
            shown: pass
                .iter()
                .filter(|name| is_hidden_by_default(name))
                .cloned()
                .collect(),
        }
    }

    fn redirect(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
        if let Some(Redirects::Off) = self.redirects {
            return Ok(());
        }
        let rule = match (d.arg(0), d.args.len()) {
            (b"off", 1) => {
                self.redirects = Some(Redirects::Off);
                return Ok(());
            }
            (b"default", 1) => None,
            (_, 1) => return Err(refuse(d, format!("invalid parameter \"{}\"", d.text(0)))),
            _ => Some(rule(builder, d, RewritePattern::Prefix)?),
        };
        match self.redirects.get_or_insert(Redirects::Rules(Vec::new())) {
            Redirects::Rules(rules) => rules.push(rule),
            Redirects::Off => {}
        }
        Ok(())
    }

    fn cookie_flags(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
        if is_off(d, self.cookie_flags.is_some())? {
            self.cookie_flags = Some(Vec::new());
            return Ok(());
        }
        let flags = (1..d.args.len())
            .map(|index| {
                let flag = template(builder, d, index)?;
                match flag.as_literal() {
                    Some(word) if !CookieFlags::is_flag(word) => {
                        let message = format!("invalid parameter \"{}\"", d.text(index));
                        Err(refuse(d, message))
                    }
                    _ => Ok(flag),
                }
            })
            .collect::<Result<_>>()?;
        let cookie = match d.arg(0).strip_prefix(b"~") {
            Some(pattern) => CookieName::Matches(builder.pattern(d, pattern, true)?),
            None => CookieName::Is(template(builder, d, 0)?),
        };
        self.cookie_flags
            .get_or_insert_default()
            .push(CookieFlags { cookie, flags });
        Ok(())
    }
}

/// `proxy_redirect default`: the URL of `proxy_pass` becomes the location's
/// path; without URI part, the backend's root becomes ours.
pub(super) fn default_redirect(
    url: &[u8],
    has_uri: bool,
    location: &LocationKind<'_>,
) -> RewriteRule {
    let (from, to) = match location {
        LocationKind::Path(path) if has_uri => (url.to_vec(), *path),
        _ => ([url, b"/"].concat(), b"/".as_slice()),
    };
    RewriteRule {
        pattern: RewritePattern::Prefix(Template::literal(&from)),
        replacement: Template::literal(to),
    }
}

fn rules(
    list: &mut Option<Vec<RewriteRule>>,
    builder: &mut Builder<'_>,
    d: &Directive,
    pattern: fn(Template) -> RewritePattern,
) -> Result<()> {
    if is_off(d, list.is_some())? {
        *list = Some(Vec::new());
        return Ok(());
    }
    if d.args.len() != 2 {
        return Err(refuse(d, format!("invalid parameter \"{}\"", d.text(0))));
    }
    let rule = rule(builder, d, pattern)?;
    list.get_or_insert_default().push(rule);
    Ok(())
}

/// Whether the directive is a lone `off`, which must be the block's only one.
fn is_off(d: &Directive, is_said: bool) -> Result<bool> {
    let off = d.args.len() == 1 && d.arg(0) == b"off";
    if off && is_said {
        return Err(refuse_directive(d, "is duplicate"));
    }
    Ok(off)
}

fn rule(
    builder: &mut Builder<'_>,
    d: &Directive,
    pattern: fn(Template) -> RewritePattern,
) -> Result<RewriteRule> {
    let pattern = match regex_key(d.arg(0)) {
        // Host names have no case.
        Some((text, any_case)) => {
            let any_case = any_case || &*d.name.value == b"proxy_cookie_domain";
            RewritePattern::Regex(builder.pattern(d, text, any_case)?)
        }
        None => pattern(template(builder, d, 0)?),
    };
    let mut replacement = template(builder, d, 1)?;
    if let RewritePattern::Domain(_) = pattern
        && let Some(domain) = d.arg(1).strip_prefix(b".")
    {
        replacement = builder.template(domain, &d.position)?;
    }
    Ok(RewriteRule {
        pattern,
        replacement,
    })
}

/// A number of bytes, or a value with variables that makes one.
pub(super) fn bytes(builder: &Builder<'_>, d: &Directive) -> Result<Template> {
    if !has_variable(d.arg(0)) {
        units::offset(d.arg(0)).ok_or_else(|| invalid_value(d))?;
    }
    template(builder, d, 0)
}

/// `proxy_buffer_size` where it is not given, bytes: a page, as in Nginx.
const BUFFER_SIZE: usize = 4 << 10;

/// `proxy_buffers NUMBER SIZE`. The product is a `usize`.
#[derive(Debug, Clone, Copy)]
struct Buffers {
    /// At least 2.
    count: usize,
    /// Bytes, not 0.
    size: usize,
}

impl Buffers {
    const DEFAULT: Self = Self {
        count: 8,
        size: 4 << 10,
    };

    fn all(self) -> usize {
        self.count * self.size
    }
}

fn buffers(d: &Directive) -> Result<Located<Buffers>> {
    let count: usize = small_number(d)?;
    let size = size(d, 1)?;
    if count < 2 || size == 0 {
        return Err(refuse(d, "there must be at least 2 \"proxy_buffers\""));
    }
    let buffers = Buffers { count, size };
    let fits = count.checked_mul(size).is_some();
    fits.then(|| located(d, buffers))
        .ok_or_else(|| invalid_value(d))
}

fn template(builder: &Builder<'_>, d: &Directive, index: usize) -> Result<Template> {
    builder.template(d.arg(index), &d.position)
}

fn ignore(ignored: &mut IgnoredFields, d: &Directive) -> Result<()> {
    for index in 0..d.args.len() {
        match d.arg(index) {
            b"X-Accel-Redirect" => ignored.accel_redirect = true,
            b"X-Accel-Limit-Rate" => ignored.accel_limit_rate = true,
            b"X-Accel-Charset" => ignored.accel_charset = true,
            b"X-Accel-Buffering" => ignored.accel_buffering = true,
            // These concern a cache that is not there.
            b"X-Accel-Expires" | b"Expires" | b"Cache-Control" | b"Set-Cookie" | b"Vary" => {}
            _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(index)))),
        }
    }
    Ok(())
}
