//! The `cors_*` directives.

use std::sync::Arc;

use regex::bytes::RegexBuilder;

use super::values::{flag, refuse, refuse_directive, seconds, set};
use super::{Builder, Result};
use crate::config::model::{Cors, CorsOrigin};
use crate::config::syntax::Directive;

/// `cors_allow_methods` where it is not given.
const DEFAULT_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct CorsSettings {
    /// Empty for `off`.
    origins: Option<Vec<CorsOrigin>>,
    methods: Option<Box<str>>,
    headers: Option<Box<str>>,
    exposed: Option<Box<str>>,
    credentials: Option<bool>,
    max_age: Option<u64>,
}

impl CorsSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"cors_allow_origin" => {
                let origins = self.origins.get_or_insert_default();
                if let [word] = &*d.args
                    && &*word.value == b"off"
                {
                    origins.clear();
                    return Ok(true);
                }
                for word in &d.args {
                    origins.push(origin(builder, d, &word.value)?);
                }
            }
            b"cors_allow_methods" => set(&mut self.methods, d, tokens(d)?)?,
            b"cors_allow_headers" => set(&mut self.headers, d, tokens(d)?)?,
            b"cors_expose_headers" => set(&mut self.exposed, d, tokens(d)?)?,
            b"cors_allow_credentials" => set(&mut self.credentials, d, flag(d)?)?,
            b"cors_max_age" => set(&mut self.max_age, d, seconds(d)?.as_secs())?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer; origins, methods, headers, exposed, credentials, max_age
        );
    }

    /// What holds in a location; `None` without `cors_allow_origin`.
    pub(super) fn finish(&self) -> Option<Arc<Cors>> {
        let origins = self.origins.clone().filter(|list| !list.is_empty())?;
        Some(Arc::new(Cors {
            origins,
            methods: self
                .methods
                .clone()
                .unwrap_or_else(|| DEFAULT_METHODS.into()),
            headers: self.headers.clone(),
            exposed: self.exposed.clone(),
            credentials: self.credentials.unwrap_or(false),
            max_age: self.max_age,
        }))
    }
}

/// `*`, `null`, `SCHEME://HOST[:PORT]`, `~PATTERN` or `~*PATTERN`.
fn origin(builder: &mut Builder<'_>, d: &Directive, word: &[u8]) -> Result<CorsOrigin> {
    if word == b"*" {
        return Ok(CorsOrigin::Any);
    }
    if let Some(pattern) = word.strip_prefix(b"~") {
        let (pattern, any_case) = match pattern.strip_prefix(b"*") {
            Some(pattern) => (pattern, true),
            None => (pattern, false),
        };
        // Over origins, which are short and ASCII, and of linear time.
        let text = String::from_utf8_lossy(pattern);
        let regex = RegexBuilder::new(&text)
            .case_insensitive(any_case)
            .build()
            .map_err(|error| {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim();
                refuse(d, format!("regular expression \"{text}\": {reason}"))
            })?;
        if !pattern.starts_with(b"^") || !pattern.ends_with(b"$") {
            let shown = String::from_utf8_lossy(word);
            builder.warn(
                &d.position,
                format!(
                    "\"{shown}\" in \"cors_allow_origin\" directive is not anchored: \
                     other origins may contain what it matches"
                ),
            );
        }
        return Ok(CorsOrigin::Pattern(regex));
    }
    let host = word
        .strip_prefix(b"https://")
        .or_else(|| word.strip_prefix(b"http://"));
    let is_origin = host.is_some_and(|host| {
        !host.is_empty()
            && host
                .iter()
                .all(|byte| byte.is_ascii_graphic() && !b"/?#@*".contains(byte))
    });
    if !is_origin && word != b"null" {
        let shown = String::from_utf8_lossy(word);
        let message = format!(
            "invalid origin \"{shown}\" in \"cors_allow_origin\" directive, \
             it must be like \"https://app.example\", \"~PATTERN\", \"*\" or \"null\""
        );
        return Err(refuse(d, message));
    }
    Ok(CorsOrigin::Exact(word.into()))
}

/// Methods or field names, joined as a field's value.
fn tokens(d: &Directive) -> Result<Box<str>> {
    let mut joined = String::new();
    for word in &d.args {
        for token in word.text().split(',').map(str::trim) {
            let is_token = !token.is_empty()
                && token
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if !is_token {
                return Err(refuse_directive(d, "invalid value"));
            }
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(token);
        }
    }
    Ok(joined.into())
}
