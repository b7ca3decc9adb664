//! `health_check`, and the `match` blocks that it refers to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::upstream::split_parameter;
use super::values::{invalid_parameter, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::model::{
    Expectation, FieldTest, HealthCheck, Proxy, ProxyHttpVersion, ProxyTls, StatusSet, ValueTest,
};
use crate::config::syntax::Directive;
use crate::config::template::{Part, Variable};
use crate::config::units;

/// What `match` blocks say, by name.
pub(super) type Matches = HashMap<Box<[u8]>, Arc<Expectation>>;

/// `match NAME { status …; header …; body …; }`.
pub(super) fn block(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    let (mut said, mut body) = (None, None);
    let mut fields = Vec::new();
    for inner in d.children() {
        match &*inner.name.value {
            b"status" => set(&mut said, inner, statuses(inner)?)?,
            b"header" => fields.push(field(builder, inner)?),
            b"body" => {
                let negated = match inner.arg(0) {
                    b"~" => false,
                    b"!~" => true,
                    word => return Err(invalid_parameter(inner, word)),
                };
                let pattern = builder.pattern(inner, inner.arg(1), false)?;
                set(&mut body, inner, (pattern, negated))?;
            }
            _ => {}
        }
    }
    let any = StatusSet {
        ranges: Vec::new(),
        negated: true,
    };
    let expectation = Arc::new(Expectation {
        statuses: said.unwrap_or(any),
        fields,
        body,
    });
    if builder
        .matches
        .insert(d.arg(0).into(), expectation)
        .is_some()
    {
        let name = d.text(0);
        return Err(refuse(d, format!("duplicate match \"{name}\"")));
    }
    Ok(())
}

/// `header [!] NAME`, `header NAME =|!=|~|!~ VALUE`.
fn field(builder: &Builder<'_>, d: &Directive) -> Result<FieldTest> {
    let words: Vec<&[u8]> = d.args.iter().map(|word| &*word.value).collect();
    let (name, value, negated) = match words[..] {
        [name] => (name, ValueTest::Any, false),
        [b"!", name] => (name, ValueTest::Any, true),
        [name, b"=", value] => (name, ValueTest::Is(value.into()), false),
        [name, b"!=", value] => (name, ValueTest::Is(value.into()), true),
        [name, operator @ (b"~" | b"!~"), pattern] => {
            let pattern = builder.pattern(d, pattern, false)?;
            (name, ValueTest::Matches(pattern), operator == b"!~")
        }
        [.., word] => return Err(invalid_parameter(d, word)),
        [] => return Err(refuse_directive(d, "names no field")),
    };
    Ok(FieldTest {
        name: name.into(),
        value,
        negated,
    })
}

/// `status [!] CODE|CODE-CODE…`.
fn statuses(d: &Directive) -> Result<StatusSet> {
    let mut set = StatusSet {
        ranges: Vec::new(),
        negated: d.arg(0) == b"!",
    };
    for word in d.args.iter().skip(usize::from(set.negated)) {
        let word = &*word.value;
        let code = |text: &[u8]| {
            let code = units::number(text).and_then(|code| u16::try_from(code).ok());
            code.filter(|code| (100..=599).contains(code))
                .ok_or_else(|| invalid_parameter(d, word))
        };
        let range = match word.iter().position(|byte| *byte == b'-') {
            Some(dash) => code(&word[..dash])?..=code(&word[dash + 1..])?,
            None => code(word)?..=code(word)?,
        };
        if range.is_empty() {
            return Err(invalid_parameter(d, word));
        }
        set.ranges.push(range);
    }
    if set.ranges.is_empty() {
        return Err(refuse_directive(d, "has no status"));
    }
    Ok(set)
}

/// `health_check [PARAMETER…]` of a location with this `proxy_pass`.
pub(super) fn check(
    builder: &Builder<'_>,
    d: &Directive,
    proxy: Option<&Proxy>,
) -> Result<HealthCheck> {
    let Some((proxy, upstream)) = proxy.and_then(|proxy| Some((proxy, proxy.upstream?))) else {
        let what = "needs a \"proxy_pass\" without variables in its location";
        return Err(refuse_directive(d, what));
    };
    if proxy.http_version == ProxyHttpVersion::Http2 {
        let what = "of HTTP/2 backends is not implemented in this version";
        return Err(refuse_directive(d, what));
    }
    if proxy
        .tls
        .as_ref()
        .is_some_and(|tls| !is_the_same_for_all(tls))
    {
        let what = "of TLS backends whose name or certificate has variables is not implemented \
                    in this version";
        return Err(refuse_directive(d, what));
    }
    let mut check = HealthCheck {
        upstream,
        interval: Duration::from_secs(5),
        jitter: Duration::ZERO,
        fails: 1,
        passes: 1,
        uri: (*b"/").into(),
        port: None,
        mandatory: false,
        persistent: false,
        expects: Arc::default(),
        tls: proxy.tls.clone(),
        host: proxy.host.clone(),
        connect_timeout: proxy.connect_timeout,
        read_timeout: proxy.read_timeout,
    };
    for word in &d.args {
        let word = &*word.value;
        let invalid = || invalid_parameter(d, word);
        let count = |value: &[u8]| {
            let count = units::number(value).and_then(|count| u32::try_from(count).ok());
            count.filter(|count| *count > 0).ok_or_else(invalid)
        };
        let time = |value: &[u8]| units::milliseconds(value).ok_or_else(invalid);
        match split_parameter(word) {
            (b"interval", Some(value)) => {
                check.interval = time(value)
                    .ok()
                    .filter(|time| !time.is_zero())
                    .ok_or_else(invalid)?;
            }
            (b"jitter", Some(value)) => check.jitter = time(value)?,
            (b"fails", Some(value)) => check.fails = count(value)?,
            (b"passes", Some(value)) => check.passes = count(value)?,
            (b"uri", Some(value)) => {
                let is_plain = value.iter().all(|byte| matches!(byte, 0x21..=0x7e));
                if !value.starts_with(b"/") || !is_plain {
                    return Err(invalid());
                }
                check.uri = value.into();
            }
            (b"port", Some(value)) => {
                check.port = Some(super::url::parse_port(value).ok_or_else(invalid)?);
            }
            (b"match", Some(value)) => {
                let known = builder.matches.get(value).cloned();
                check.expects = known.ok_or_else(|| {
                    let value = String::from_utf8_lossy(value);
                    refuse(d, format!("match \"{value}\" is not defined"))
                })?;
            }
            (b"mandatory", None) => check.mandatory = true,
            (b"persistent", None) if check.mandatory => check.persistent = true,
            _ => return Err(invalid()),
        }
    }
    Ok(check)
}

/// Whether no request has a say in who the backend is to be and what it is
/// shown.
fn is_the_same_for_all(tls: &ProxyTls) -> bool {
    let name = &*tls.name.parts;
    tls.named.is_none()
        && matches!(
            name,
            [Part::Variable(Variable::ProxyHost)] | [Part::Literal(_)]
        )
}
