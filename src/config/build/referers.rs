//! `valid_referers`.

use std::sync::Arc;

use super::values::{refuse, refuse_directive};
use super::{Builder, Result};
use crate::config::referers::Referers;
use crate::config::server_names::NamePattern;
use crate::config::syntax::Directive;

/// As written in one block; several directives add up.
#[derive(Debug, Clone, Default)]
pub(super) struct RefererSettings {
    words: Option<Vec<Word>>,
}

#[derive(Debug, Clone)]
enum Word {
    None,
    Blocked,
    ServerNames,
    Host(NamePattern, Box<[u8]>),
    Regex(crate::config::regexes::Pattern),
}

impl RefererSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        if &*d.name.value != b"valid_referers" {
            return Ok(false);
        }
        let mut words = self.words.take().unwrap_or_default();
        for word in &d.args {
            words.push(match &*word.value {
                b"none" => Word::None,
                b"blocked" => Word::Blocked,
                b"server_names" => Word::ServerNames,
                value => match value.strip_prefix(b"~") {
                    Some(b"") => {
                        let message = format!("empty regex in \"{}\"", word.text());
                        return Err(refuse(d, message));
                    }
                    // In any case, as in Nginx.
                    Some(pattern) => Word::Regex(builder.pattern(d, pattern, true)?),
                    None => host(d, value)?,
                },
            });
        }
        self.words = Some(words);
        self.finish(d)?;
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(self, outer; words);
    }

    /// Refuses what contradicts itself, where it is written.
    fn finish(&self, d: &Directive) -> Result<()> {
        let contradicts = |_| refuse_directive(d, "has a host twice");
        self.collect().map(drop).map_err(contradicts)
    }

    pub(super) fn build(&self) -> Option<Arc<Referers>> {
        self.words.as_ref()?;
        // What contradicts itself has been refused.
        self.collect().ok().map(Arc::new)
    }

    fn collect(&self) -> std::result::Result<Referers, crate::config::server_names::Conflict> {
        let mut referers = Referers::default();
        for word in self.words.iter().flatten() {
            match word {
                Word::None => referers.none = true,
                Word::Blocked => referers.blocked = true,
                Word::ServerNames => referers.server_names = true,
                Word::Regex(pattern) => referers.regexes.push(pattern.clone()),
                Word::Host(name, path) => {
                    referers.hosts.insert(name, referers.paths.len())?;
                    referers.paths.push(path.clone());
                }
            }
        }
        Ok(referers)
    }
}

/// A host, with the beginning of a path behind it where one is demanded.
fn host(d: &Directive, value: &[u8]) -> Result<Word> {
    let slash = value.iter().position(|&byte| byte == b'/');
    let (name, path) = value.split_at(slash.unwrap_or(value.len()));
    let text = String::from_utf8_lossy(name);
    match NamePattern::parse(&text) {
        Some(pattern) if !name.is_empty() => Ok(Word::Host(pattern, path.into())),
        _ => {
            let message = format!("invalid hostname or wildcard \"{text}\"");
            Err(refuse(d, message))
        }
    }
}
