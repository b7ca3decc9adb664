//! `proxy_pass`, `grpc_pass` and their families.

use std::sync::Arc;
use std::time::Duration;

use super::filters::{FilterSettings, default_redirect};
use super::link::LinkSettings;
use super::proxy_tls::ProxyTlsSettings;
use super::response::{field_name, field_value};
use super::upstream::{self, HTTP_PORT, HTTPS_PORT, NO_PORT};
use super::url::{self, Target, Url, strip_prefix_any_case};
use super::values::{has_variable, milliseconds, refuse, set, small_number};
use super::{Builder, Result};
use crate::config::model::{
    ClientIdentity, Conditions, IdentityForm, IgnoredFields, NextUpstream, Proxy, ProxyFamily,
    ProxyFilters, ProxyHttpVersion, ProxyTls, RewriteRule, SetHeader, UpstreamId,
};
use crate::config::syntax::Directive;
use crate::config::template::{Part, Template, Variable};

/// Every time of a backend's connection where it is not given, as in Nginx.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// As written in one block; `proxy_pass` itself belongs to one location alone.
#[derive(Debug, Clone, Default)]
pub(super) struct ProxySettings {
    set_headers: Option<Vec<SetHeader>>,
    /// The outer level: whether it was said; the inner: not `off`.
    client_identity: Option<Option<ClientIdentity>>,
    http_version: Option<ProxyHttpVersion>,
    connect_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    send_timeout: Option<Duration>,
    link: LinkSettings,
    filters: FilterSettings,
    next_upstream: Option<Conditions>,
    next_upstream_tries: Option<usize>,
    next_upstream_timeout: Option<Duration>,
}

impl ProxySettings {
    /// Takes a directive of the family; `false` when it is not one of these.
    pub(super) fn apply(
        &mut self,
        builder: &mut Builder<'_>,
        family: ProxyFamily,
        d: &Directive,
    ) -> Result<bool> {
        let Some(name) = family.own(&d.name.value) else {
            return Ok(false);
        };
        match name {
            b"set_header" => {
                let header = SetHeader::new(field_name(d)?, field_value(builder, d)?);
                self.set_headers.get_or_insert_default().push(header);
            }
            b"client_identity" => {
                set(&mut self.client_identity, d, client_identity(d)?)?;
            }
            b"http_version" => {
                let value = match d.arg(0) {
                    b"1.0" => ProxyHttpVersion::Http10,
                    b"1.1" => ProxyHttpVersion::Http11,
                    b"2" => ProxyHttpVersion::Http2,
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.http_version, d, value)?;
            }
            b"connect_timeout" => set(&mut self.connect_timeout, d, milliseconds(d)?)?,
            b"read_timeout" => set(&mut self.read_timeout, d, milliseconds(d)?)?,
            b"send_timeout" => set(&mut self.send_timeout, d, milliseconds(d)?)?,
            b"next_upstream" => set(&mut self.next_upstream, d, conditions(d)?)?,
            b"next_upstream_tries" => {
                set(&mut self.next_upstream_tries, d, small_number(d)?)?;
            }
            b"next_upstream_timeout" => {
                set(&mut self.next_upstream_timeout, d, milliseconds(d)?)?;
            }
            _ => {
                return Ok(
                    self.link.apply(builder, name, d)? || self.filters.apply(builder, name, d)?
                );
            }
        }
        Ok(true)
    }

    /// The fields pass on only where the inner block sets none.
    /// See [`FilterSettings::check_buffers`].
    pub(super) fn check_buffers(&self) -> Result<()> {
        self.filters.check_buffers()
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            set_headers, client_identity, http_version, connect_timeout, read_timeout, send_timeout,
            next_upstream, next_upstream_tries, next_upstream_timeout
        );
        self.link.inherit(&outer.link);
        self.filters.inherit(&outer.filters);
    }

    fn next_upstream(&self) -> NextUpstream {
        let default = NextUpstream::default();
        NextUpstream {
            conditions: self.next_upstream.unwrap_or(default.conditions),
            tries: self.next_upstream_tries.unwrap_or(default.tries),
            timeout: self.next_upstream_timeout.unwrap_or(default.timeout),
        }
    }

    /// What is sent: the fields that were set, then Nginx's own defaults for
    /// those that were not.
    fn all_set_headers(&self) -> Vec<SetHeader> {
        let mut headers = self.set_headers.clone().unwrap_or_default();
        let host = Template {
            parts: [Part::Variable(Variable::ProxyHost)].into(),
        };
        for (name, value) in [("Host", host), ("Connection", Template::default())] {
            let name = name.as_bytes();
            if !headers
                .iter()
                .any(|header| header.name.eq_ignore_ascii_case(name))
            {
                headers.push(SetHeader::new(name.into(), value));
            }
        }
        headers
    }
}

/// `proxy_pass URL` or `grpc_pass URL` of a location whose other settings are
/// known.
pub(super) fn build(
    builder: &mut Builder<'_>,
    d: &Directive,
    family: ProxyFamily,
    (settings, tls): (&ProxySettings, &ProxyTlsSettings),
    location: &LocationKind<'_>,
) -> Result<Proxy> {
    let pass = match (has_variable(d.arg(0)), family) {
        (true, _) => variable_url(builder, d, family, settings)?,
        (false, ProxyFamily::Proxy) => fixed_url(builder, d, location)?,
        (false, ProxyFamily::Grpc) => grpc_url(builder, d)?,
    };
    let (http_version, filters) = match family {
        ProxyFamily::Proxy => (
            settings.http_version.unwrap_or(ProxyHttpVersion::Http11),
            settings.filters.build(pass.redirect.as_ref()),
        ),
        ProxyFamily::Grpc => (ProxyHttpVersion::Http2, settings.filters.build_grpc()),
    };
    let client_identity = settings.client_identity.flatten();
    let set_headers = settings.all_set_headers();
    if let Some(identity) = client_identity
        && let Some(header) = set_headers
            .iter()
            .find(|header| identity.form.owns(&header.name))
    {
        // Two copies, and a backend that believes one of them.
        let name = String::from_utf8_lossy(&header.name);
        let message = format!(
            "\"proxy_set_header\" of \"{name}\" and \"proxy_client_identity\", \
             which writes it, both hold in this location"
        );
        return Err(refuse(d, message));
    }
    let tls = match pass.may_be_secure {
        true => Some(tls.finish(builder, family, http_version, d)?),
        false => None,
    };
    Ok(Proxy {
        family,
        tls,
        client_identity,
        upstream: pass.upstream,
        url: pass.url,
        host: pass.host.into(),
        port: pass.port,
        uri: pass.uri,
        set_headers,
        http_version,
        connect_timeout: settings.connect_timeout.unwrap_or(DEFAULT_TIMEOUT),
        read_timeout: settings.read_timeout.unwrap_or(DEFAULT_TIMEOUT),
        send_timeout: settings.send_timeout.unwrap_or(DEFAULT_TIMEOUT),
        link: settings.link.finish(),
        filters,
        next_upstream: settings.next_upstream(),
    })
}

/// Where a `proxy_pass` leads, as far as that is known at load.
struct Pass {
    upstream: Option<UpstreamId>,
    url: Option<Template>,
    host: String,
    port: u16,
    uri: Option<Box<[u8]>>,
    may_be_secure: bool,
    /// What `proxy_redirect default` means.
    redirect: Option<RewriteRule>,
}

/// With variables all is decided for each request (`ngx_http_proxy_eval`).
fn variable_url(
    builder: &Builder<'_>,
    d: &Directive,
    family: ProxyFamily,
    settings: &ProxySettings,
) -> Result<Pass> {
    let [plain, _] = family.schemes();
    if settings.filters.says_default_redirect() {
        let message = "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive \
                       with variables";
        return Err(refuse(d, message));
    }
    Ok(Pass {
        upstream: None,
        url: Some(builder.template(d.arg(0), &d.position)?),
        host: String::new(),
        port: 0,
        uri: None,
        may_be_secure: strip_prefix_any_case(d.arg(0), plain).is_none(),
        redirect: None,
    })
}

fn fixed_url(
    builder: &mut Builder<'_>,
    d: &Directive,
    location: &LocationKind<'_>,
) -> Result<Pass> {
    let value = d.arg(0);
    let secure = strip_prefix_any_case(value, b"https://");
    let Some(rest) = secure.or_else(|| strip_prefix_any_case(value, b"http://")) else {
        return Err(refuse(d, "invalid URL prefix"));
    };
    let default_port = if secure.is_some() {
        HTTPS_PORT
    } else {
        HTTP_PORT
    };
    let Url { target, uri } = url::parse(rest).map_err(|what| {
        let rest = String::from_utf8_lossy(rest);
        refuse(d, format!("{what} in upstream \"{rest}\""))
    })?;
    if value
        .iter()
        .any(|byte| byte.is_ascii_control() || *byte == b' ')
    {
        return Err(refuse(d, "invalid URL prefix"));
    }
    if uri.is_some() && !matches!(location, LocationKind::Path(_)) {
        let message = "\"proxy_pass\" cannot have URI part in location given by regular \
                       expression, or inside named location, or inside \"if\" statement, \
                       or inside \"limit_except\" block";
        return Err(refuse(d, message));
    }
    let upstream = upstream::for_target(builder, d, &target, default_port)?;
    let (host, port) = match &target {
        Target::Unix(_) => ("localhost".to_owned(), 0),
        Target::Host { host, port } => match port.unwrap_or(default_port) {
            port if port == default_port => ((*host).to_owned(), port),
            port => (format!("{host}:{port}"), port),
        },
    };
    Ok(Pass {
        upstream: Some(upstream),
        url: None,
        host,
        port,
        may_be_secure: secure.is_some(),
        redirect: Some(default_redirect(value, uri.is_some(), location)),
        uri: uri.map(Into::into),
    })
}

/// The URL of a `grpc_pass`: the scheme may be missing, a port may not, and
/// there is no path in it.
fn grpc_url(builder: &mut Builder<'_>, d: &Directive) -> Result<Pass> {
    let value = d.arg(0);
    let [plain, secure] = ProxyFamily::Grpc.schemes();
    let behind_secure = strip_prefix_any_case(value, secure);
    let rest = behind_secure
        .or_else(|| strip_prefix_any_case(value, plain))
        .unwrap_or(value);
    let refuse_url = |what: &str| {
        let rest = String::from_utf8_lossy(rest);
        refuse(d, format!("{what} in upstream \"{rest}\""))
    };
    let Url { target, uri } = url::parse(rest).map_err(refuse_url)?;
    if uri.is_some() {
        return Err(refuse_url("invalid host"));
    }
    let upstream = upstream::for_target(builder, d, &target, NO_PORT)?;
    let (host, port) = match &target {
        Target::Unix(_) => ("localhost".to_owned(), NO_PORT),
        Target::Host { host, port: None } => ((*host).to_owned(), NO_PORT),
        Target::Host {
            host,
            port: Some(port),
        } => (format!("{host}:{port}"), *port),
    };
    Ok(Pass {
        upstream: Some(upstream),
        url: None,
        host,
        port,
        uri: None,
        may_be_secure: behind_secure.is_some(),
        redirect: None,
    })
}

/// `proxy_next_upstream CONDITION…`; `off` outweighs what stands beside it.
fn conditions(d: &Directive) -> Result<Conditions> {
    let mut all = Conditions::NONE;
    let mut is_off = false;
    for word in &d.args {
        match &*word.value {
            b"off" => is_off = true,
            word => {
                let condition = Conditions::named(word).ok_or_else(|| {
                    let word = String::from_utf8_lossy(word);
                    refuse(d, format!("invalid value \"{word}\""))
                })?;
                all = all | condition;
            }
        }
    }
    Ok(if is_off { Conditions::NONE } else { all })
}

/// What the calls of a `json_relay` have in common. Nothing of the caller's own
/// request goes on, and of the defaults neither do Host and Connection, which
/// are each call's.
pub(super) fn for_relay(
    settings: &ProxySettings,
    tls: Option<Arc<ProxyTls>>,
    upstream: UpstreamId,
) -> Proxy {
    let filters = ProxyFilters {
        method: None,
        body: None,
        pass_request_headers: false,
        pass_request_body: false,
        pass_trailers: false,
        // Somebody else's API does not steer this server.
        ignored: IgnoredFields {
            accel_redirect: true,
            accel_limit_rate: true,
            accel_charset: true,
            accel_buffering: true,
        },
        redirects: Box::default(),
        ..settings.filters.build(None)
    };
    Proxy {
        family: ProxyFamily::Proxy,
        link: settings.link.finish(),
        tls,
        client_identity: settings.client_identity.flatten(),
        upstream: Some(upstream),
        url: None,
        host: "".into(),
        port: 0,
        uri: None,
        set_headers: settings.set_headers.clone().unwrap_or_default(),
        http_version: ProxyHttpVersion::Http11,
        connect_timeout: settings.connect_timeout.unwrap_or(DEFAULT_TIMEOUT),
        read_timeout: settings.read_timeout.unwrap_or(DEFAULT_TIMEOUT),
        send_timeout: settings.send_timeout.unwrap_or(DEFAULT_TIMEOUT),
        filters,
        next_upstream: settings.next_upstream(),
    }
}

/// `xfcc`, `rfc9440`, `nginx` or `off`, then `cert`, `chain`.
fn client_identity(d: &Directive) -> Result<Option<ClientIdentity>> {
    let form = match d.arg(0) {
        b"off" => None,
        b"xfcc" => Some(IdentityForm::Xfcc),
        b"rfc9440" => Some(IdentityForm::Rfc9440),
        b"nginx" => Some(IdentityForm::Nginx),
        _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
    };
    let (mut cert, mut chain) = (false, false);
    for index in 1..d.args.len() {
        let option = match (form, d.arg(index)) {
            (Some(_), b"cert") => &mut cert,
            (Some(IdentityForm::Xfcc | IdentityForm::Rfc9440), b"chain") => &mut chain,
            _ => {
                let message = format!("invalid parameter \"{}\"", d.text(index));
                return Err(refuse(d, message));
            }
        };
        if std::mem::replace(option, true) {
            let message = format!("duplicate parameter \"{}\"", d.text(index));
            return Err(refuse(d, message));
        }
    }
    Ok(form.map(|form| ClientIdentity { form, cert, chain }))
}

/// What kind of location a `proxy_pass` stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocationKind<'a> {
    /// A prefix or an exact path.
    Path(&'a [u8]),
    /// A regular expression or a named location: no path to replace.
    Other,
}
