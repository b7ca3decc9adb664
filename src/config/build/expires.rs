//! `expires`.

use super::values::{has_variable, refuse, refuse_directive};
use super::{Builder, Result};
use crate::config::model::{Expires, ExpiresWhen, Freshness};
use crate::config::syntax::Directive;

/// `expires [modified] TIME`.
pub(super) fn expires(builder: &Builder<'_>, d: &Directive) -> Result<Expires> {
    let (modified, index) = match (d.arg(0), d.args.len()) {
        (b"modified", 2) => (true, 1),
        (_, 1) => (false, 0),
        _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
    };
    let value = d.arg(index);
    let when = if has_variable(value) {
        ExpiresWhen::Evaluated(builder.template(value, &d.position)?)
    } else {
        let freshness = Freshness::parse(value, modified);
        ExpiresWhen::Fixed(freshness.map_err(|what| refuse_directive(d, what))?)
    };
    Ok(Expires { modified, when })
}
