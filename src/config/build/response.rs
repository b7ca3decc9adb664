//! Settings of a location that concern the client's side: limits, types, added
//! fields, logs.

use std::sync::Arc;
use std::time::Duration;

use super::delivery::DeliverySettings;
use super::expires::expires;
use super::inheritance::Inheritance;
use super::logs::{self, AccessLogs};
use super::parting::PartingSettings;
use super::values::{flag, invalid_value, milliseconds, number, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::mime::MimeTypes;
use crate::config::model::{AccessLog, AddHeader, ErrorLog, Expires, ServerTokens};
use crate::config::syntax::Directive;
use crate::config::template::{Part, Template, Variable};
use crate::config::units;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct Response {
    pub(super) client_max_body_size: Option<u64>,
    pub(super) client_body_timeout: Option<Duration>,
    pub(super) send_timeout: Option<Duration>,
    pub(super) keepalive_timeout: Option<(Duration, Option<Duration>)>,
    pub(super) keepalive_requests: Option<u64>,
    pub(super) server_tokens: Option<ServerTokens>,
    pub(super) default_type: Option<Template>,
    pub(super) types: Option<Arc<MimeTypes>>,
    pub(super) add_headers: Option<Vec<AddHeader>>,
    header_inheritance: Option<Inheritance>,
    pub(super) expires: Option<Expires>,
    pub(super) delivery: DeliverySettings,
    pub(super) parting: PartingSettings,
    pub(super) access_logs: Option<AccessLogs>,
    pub(super) error_logs: Option<Vec<ErrorLog>>,
    pub(super) log_not_found: Option<bool>,
}

impl Response {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"client_max_body_size" => {
                let value = units::offset(d.arg(0)).ok_or_else(|| invalid_value(d))?;
                set(&mut self.client_max_body_size, d, value)?;
            }
            b"client_body_timeout" => set(&mut self.client_body_timeout, d, milliseconds(d)?)?,
            b"send_timeout" => set(&mut self.send_timeout, d, milliseconds(d)?)?,
            b"keepalive_timeout" => {
                let header = match d.args.get(1) {
                    Some(word) => {
                        Some(units::seconds(&word.value).ok_or_else(|| invalid_value(d))?)
                    }
                    None => None,
                };
                set(&mut self.keepalive_timeout, d, (milliseconds(d)?, header))?;
            }
            b"keepalive_requests" => set(&mut self.keepalive_requests, d, number(d)?)?,
            b"server_tokens" => set(&mut self.server_tokens, d, server_tokens(d)?)?,
            b"default_type" => {
                let value = Template::literal(content_type(d, d.arg(0))?.as_bytes());
                set(&mut self.default_type, d, value)?;
            }
            b"types" => {
                let value = types(builder, d, self.types.take())?;
                self.types = Some(Arc::new(value));
            }
            b"add_header" => {
                let header = add_header(builder, d)?;
                self.add_headers.get_or_insert_default().push(header);
            }
            b"add_header_inherit" => {
                set(&mut self.header_inheritance, d, Inheritance::parse(d)?)?;
            }
            b"expires" => set(&mut self.expires, d, expires(builder, d)?)?,
            b"access_log" => self.access_logs.get_or_insert_default().add(builder, d)?,
            b"error_log" => {
                let log = logs::error_log(builder, d)?;
                self.error_logs.get_or_insert_default().push(log);
            }
            b"log_not_found" => set(&mut self.log_not_found, d, flag(d)?)?,
            _ => return Ok(self.delivery.apply(builder, d)? || self.parting.apply(d)?),
        }
        Ok(true)
    }

    /// Lists pass on only where the inner block adds nothing to them, unless it
    /// is said otherwise.
    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            client_max_body_size, client_body_timeout, send_timeout, keepalive_timeout,
            keepalive_requests, server_tokens, default_type, types, header_inheritance, expires,
            access_logs, error_logs, log_not_found
        );
        let inheritance = self.header_inheritance.unwrap_or(Inheritance::On);
        inheritance.apply(&mut self.add_headers, &outer.add_headers);
        self.delivery.inherit(&outer.delivery);
        self.parting.inherit(&outer.parting);
    }

    /// The logs that hold, with Nginx's default where none was named.
    pub(super) fn access_logs(&self, builder: &Builder<'_>) -> Vec<AccessLog> {
        match &self.access_logs {
            Some(AccessLogs { off: true, .. }) => Vec::new(),
            Some(said) => said.logs.clone(),
            None => {
                let target = builder.options.default_access_log.clone();
                let format = builder.formats.get("combined").cloned();
                format
                    .map(|format| AccessLog {
                        target,
                        path: None,
                        condition: None,
                        buffering: None,
                        format,
                    })
                    .into_iter()
                    .collect()
            }
        }
    }
}

fn server_tokens(d: &Directive) -> Result<ServerTokens> {
    match d.arg(0) {
        b"on" => Ok(ServerTokens::On),
        b"off" => Ok(ServerTokens::Off),
        b"build" => Ok(ServerTokens::Build),
        _ => Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
    }
}

/// `types { TYPE EXTENSION…; … }`; a second block in the same place adds to the
/// first.
fn types(
    builder: &mut Builder<'_>,
    d: &Directive,
    before: Option<Arc<MimeTypes>>,
) -> Result<MimeTypes> {
    let mut types = before.map_or_else(MimeTypes::empty, Arc::unwrap_or_clone);
    for entry in d.children() {
        if entry.block.is_some() {
            return Err(refuse(entry, "unexpected \"{\""));
        }
        let mime: Arc<str> = content_type(entry, &entry.name.value)?.into();
        for extension in &entry.args {
            if let Some(previous) = types.insert(&extension.value, &mime)
                && previous != mime
            {
                let text = format!(
                    "duplicate extension \"{}\", content type: \"{mime}\", \
                     previous content type: \"{previous}\"",
                    extension.text()
                );
                builder.warn(&entry.position, text);
            }
        }
    }
    Ok(types)
}

/// A content type goes into a header field as it is.
fn content_type<'a>(d: &Directive, value: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(value)
        .ok()
        .filter(|value| !value.contains(|c: char| c.is_control()))
        .ok_or_else(|| invalid_value(d))
}

pub(super) fn add_header(builder: &mut Builder<'_>, d: &Directive) -> Result<AddHeader> {
    let always = match d.args.get(2) {
        None => false,
        Some(word) if &*word.value == b"always" => true,
        Some(word) => return Err(refuse(d, format!("invalid parameter \"{}\"", word.text()))),
    };
    Ok(AddHeader {
        name: field_name(d)?,
        value: field_value(builder, d)?,
        always,
    })
}

/// The first argument as the name of a field (RFC 9110 §5.1). Nginx sends
/// whatever stands there.
pub(super) fn field_name(d: &Directive) -> Result<Box<[u8]>> {
    let name = d.arg(0);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(is_token) {
        return Err(refuse(d, format!("invalid header name \"{}\"", d.text(0))));
    }
    Ok(name.into())
}

/// The second argument as the value of a field. Real files wrap long policies
/// over several lines; Nginx sends the line ends, which no recipient has to
/// accept (RFC 9112 §5.2), so here they become spaces, and that is said.
pub(super) fn field_value(builder: &mut Builder<'_>, d: &Directive) -> Result<Template> {
    let mut template = builder.template(d.arg(1), &d.position)?;
    if template
        .variables()
        .any(|v| *v == Variable::SslClientRawCert)
    {
        let what = "has a certificate in lines as its value, which no field can carry: \
                    \"$ssl_client_escaped_cert\" has it in one";
        return Err(refuse_directive(d, what));
    }
    let mut folded = false;
    for part in &mut template.parts {
        if *part == Part::Variable(Variable::SslClientCert) {
            *part = Part::Variable(Variable::SslClientCertUnfolded);
            folded = true;
        } else if let Part::Literal(bytes) = part {
            if bytes.contains(&0) {
                return Err(invalid_value(d));
            }
            if bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
                *bytes = unfold(bytes);
                folded = true;
            }
        }
    }
    if folded {
        let text = format!(
            "the value of \"{}\" in \"{}\" directive spans lines, which are joined by spaces",
            d.text(0),
            d.name()
        );
        builder.warn(&d.position, text);
    }
    Ok(template)
}

fn unfold(bytes: &[u8]) -> Box<[u8]> {
    let mut lines = bytes.split(|byte| matches!(byte, b'\r' | b'\n'));
    let mut joined = lines.next().unwrap_or_default().to_vec();
    for line in lines {
        let line = line.trim_ascii_start();
        while joined
            .last()
            .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            joined.pop();
        }
        joined.push(b' ');
        joined.extend_from_slice(line);
    }
    joined.into()
}
