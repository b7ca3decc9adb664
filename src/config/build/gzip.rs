//! `gzip` and its family.

use std::sync::Arc;

use super::values::{flag, invalid_parameter, number, refuse, refuse_directive, set};
use super::{Builder, Result};
use crate::config::model::{Gzip, GzipCoding, GzipFiles, GzipProxied, TypeSet};
use crate::config::regexes::Pattern;
use crate::config::syntax::Directive;
use crate::config::units;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct GzipSettings {
    on: Option<bool>,
    files: Option<GzipFiles>,
    types: Option<Arc<TypeSet>>,
    min_length: Option<u64>,
    level: Option<u32>,
    proxied: Option<GzipProxied>,
    vary: Option<bool>,
    http10: Option<bool>,
    disabled: Option<Disabled>,
}

/// `gzip_disable`.
#[derive(Debug, Clone, Default)]
struct Disabled {
    msie6: bool,
    patterns: Vec<Pattern>,
}

impl GzipSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"gzip" => set(&mut self.on, d, flag(d)?)?,
            b"gzip_static" => {
                let value = match d.arg(0) {
                    b"off" => GzipFiles::Off,
                    b"on" => GzipFiles::On,
                    b"always" => GzipFiles::Always,
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.files, d, value)?;
            }
            b"gzip_types" => {
                let types = TypeSet::new(d.args.iter().map(|word| &*word.value));
                set(&mut self.types, d, Arc::new(types))?;
            }
            b"gzip_min_length" => {
                let value =
                    units::size(d.arg(0)).ok_or_else(|| refuse_directive(d, "invalid value"))?;
                set(&mut self.min_length, d, value as u64)?;
            }
            b"gzip_comp_level" => {
                let level = number(d)?;
                if level < 1 {
                    let message = "value must be equal to or greater than 1";
                    return Err(refuse(d, message));
                }
                let level = u32::try_from(level).ok().filter(|level| *level <= 9);
                let level =
                    level.ok_or_else(|| refuse(d, "value must be equal to or less than 9"))?;
                set(&mut self.level, d, level)?;
            }
            b"gzip_proxied" => {
                let value = proxied(d)?;
                set(&mut self.proxied, d, value)?;
            }
            b"gzip_vary" => set(&mut self.vary, d, flag(d)?)?,
            b"gzip_http_version" => {
                let value = match d.arg(0) {
                    b"1.0" => true,
                    b"1.1" => false,
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.http10, d, value)?;
            }
            b"gzip_disable" => {
                for word in &d.args {
                    let disabled = self.disabled.get_or_insert_default();
                    if &*word.value == b"msie6" {
                        disabled.msie6 = true;
                    } else {
                        let pattern = builder.pattern(d, &word.value, true)?;
                        disabled.patterns.push(pattern);
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            on, files, types, min_length, level, proxied, vary, http10, disabled
        );
    }

    /// What holds, with Nginx's defaults; `None` where all of it is off.
    pub(super) fn finish(&self) -> Option<Arc<Gzip>> {
        let on = self.on.unwrap_or(false);
        let files = self.files.unwrap_or(GzipFiles::Off);
        if !on && files == GzipFiles::Off {
            return None;
        }
        let coding = on.then(|| GzipCoding {
            types: self
                .types
                .clone()
                .unwrap_or_else(|| Arc::new(TypeSet::new([]))),
            min_length: self.min_length.unwrap_or(20),
            level: self.level.unwrap_or(1),
        });
        let disabled = self.disabled.clone().unwrap_or_default();
        Some(Arc::new(Gzip {
            coding,
            files,
            vary: self.vary.unwrap_or(false),
            http10: self.http10.unwrap_or(false),
            proxied: self.proxied.unwrap_or_default(),
            disabled_for_msie6: disabled.msie6,
            disabled_for: disabled.patterns.into(),
        }))
    }
}

/// `off` outweighs what stands beside it, as in Nginx.
fn proxied(d: &Directive) -> Result<GzipProxied> {
    let mut value = GzipProxied::default();
    let mut is_off = false;
    for word in &d.args {
        match &*word.value {
            b"off" => is_off = true,
            b"any" => value.any = true,
            b"expired" => value.expired = true,
            b"no-cache" => value.no_cache = true,
            b"no-store" => value.no_store = true,
            b"private" => value.private = true,
            b"no_last_modified" => value.no_last_modified = true,
            b"no_etag" => value.no_etag = true,
            b"auth" => value.auth = true,
            other => return Err(invalid_parameter(d, other)),
        }
    }
    Ok(if is_off {
        GzipProxied::default()
    } else {
        value
    })
}
