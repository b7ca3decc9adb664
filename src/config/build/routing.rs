//! Settings about where a request or its client is sent: `error_page`, and how
//! redirects name this server.

use std::sync::Arc;

use super::values::{flag, refuse, set};
use super::{Builder, Result};
use crate::config::model::Redirects;
use crate::config::script::{ErrorPage, ErrorStatus};
use crate::config::syntax::Directive;
use crate::config::units;

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct Routing {
    pub(super) error_pages: Option<Arc<[ErrorPage]>>,
    pub(super) recursive_error_pages: Option<bool>,
    absolute_redirect: Option<bool>,
    port_in_redirect: Option<bool>,
    server_name_in_redirect: Option<bool>,
}

impl Routing {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"error_page" => {
                let mut pages = self.error_pages.take().unwrap_or_default().to_vec();
                for page in error_pages(builder, d)? {
                    // Of several for one code the first counts, as in Nginx.
                    if pages.iter().all(|known| known.code != page.code) {
                        pages.push(page);
                    }
                }
                self.error_pages = Some(pages.into());
            }
            b"recursive_error_pages" => set(&mut self.recursive_error_pages, d, flag(d)?)?,
            b"absolute_redirect" => set(&mut self.absolute_redirect, d, flag(d)?)?,
            b"port_in_redirect" => set(&mut self.port_in_redirect, d, flag(d)?)?,
            b"server_name_in_redirect" => set(&mut self.server_name_in_redirect, d, flag(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether there is a page for clients without an acceptable certificate.
    pub(super) fn answers_refused_clients(&self) -> bool {
        let mut pages = self.error_pages.iter().flat_map(|pages| pages.iter());
        pages.any(|page| matches!(page.code, 495 | 496))
    }

    /// The pages pass on only where the inner block has none.
    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            error_pages, recursive_error_pages, absolute_redirect, port_in_redirect,
            server_name_in_redirect
        );
    }

    pub(super) fn redirects(&self) -> Redirects {
        Redirects {
            absolute: self.absolute_redirect.unwrap_or(true),
            port: self.port_in_redirect.unwrap_or(true),
            server_name: self.server_name_in_redirect.unwrap_or(false),
        }
    }
}

/// `error_page CODE… [=[CODE]] TARGET`.
fn error_pages(builder: &Builder<'_>, d: &Directive) -> Result<Vec<ErrorPage>> {
    let (target, codes) = d
        .args
        .split_last()
        .ok_or_else(|| refuse(d, "invalid number of arguments in \"error_page\" directive"))?;
    let invalid = |index: usize| refuse(d, format!("invalid value \"{}\"", d.text(index)));
    let (answer, codes) = match codes.split_last() {
        Some((word, rest)) => match word.value.strip_prefix(b"=") {
            Some(_) if rest.is_empty() => return Err(invalid(0)),
            Some(b"") => (Some(ErrorStatus::OfTarget), rest),
            Some(code) => {
                let code = units::number(code).and_then(|code| u16::try_from(code).ok());
                let code = code.filter(|code| (100..=999).contains(code));
                let code = code.ok_or_else(|| invalid(rest.len()))?;
                (Some(ErrorStatus::Changed(code)), rest)
            }
            None => (None, codes),
        },
        None => (None, codes),
    };
    let target = builder.template(&target.value, &d.position)?;
    let mut pages = Vec::new();
    for (index, word) in codes.iter().enumerate() {
        let code = units::number(&word.value).ok_or_else(|| invalid(index))?;
        let code = match u16::try_from(code) {
            Ok(code @ 300..=599) if code != 499 => code,
            _ => {
                let word = word.text();
                let message = format!("value \"{word}\" must be between 300 and 599");
                return Err(refuse(d, message));
            }
        };
        let answer = answer.unwrap_or(match code {
            // These have numbers of their own only inside the server.
            494..=497 => ErrorStatus::Changed(400),
            _ => ErrorStatus::Kept,
        });
        pages.push(ErrorPage {
            code,
            answer,
            target: target.clone(),
        });
    }
    Ok(pages)
}
