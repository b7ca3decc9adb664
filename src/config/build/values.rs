//! What every directive does with its arguments: parse, and refuse in Nginx's
//! words.

use std::time::Duration;

use super::Result;
use crate::config::error::Error;
use crate::config::syntax::Directive;
use crate::config::units;

/// A refusal at a directive's place.
pub(super) fn refuse(directive: &Directive, message: impl Into<String>) -> Error {
    Error::at(&directive.position, message)
}

/// `"x" directive …`.
pub(super) fn refuse_directive(directive: &Directive, what: &str) -> Error {
    refuse(
        directive,
        format!("\"{}\" directive {what}", directive.name()),
    )
}

/// Stores a value that may be given once per block.
pub(super) fn set<T>(slot: &mut Option<T>, directive: &Directive, value: T) -> Result<()> {
    if slot.is_some() {
        return Err(refuse_directive(directive, "is duplicate"));
    }
    *slot = Some(value);
    Ok(())
}

/// `on` or `off`.
pub(super) fn flag(directive: &Directive) -> Result<bool> {
    let value = directive.arg(0);
    if value.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if value.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        let (value, name) = (directive.text(0), directive.name());
        Err(refuse(
            directive,
            format!(
                "invalid value \"{value}\" in \"{name}\" directive, it must be \"on\" or \"off\""
            ),
        ))
    }
}

/// A number without unit.
pub(super) fn number(directive: &Directive) -> Result<u64> {
    units::number(directive.arg(0)).ok_or_else(|| refuse_directive(directive, "invalid number"))
}

/// A number that has to fit a narrower type.
pub(super) fn small_number<T: TryFrom<u64>>(directive: &Directive) -> Result<T> {
    number(directive)?
        .try_into()
        .map_err(|_| refuse_directive(directive, "invalid number"))
}

/// Bytes, in memory.
pub(super) fn size(directive: &Directive, index: usize) -> Result<usize> {
    units::size(directive.arg(index)).ok_or_else(|| invalid_value(directive))
}

/// A time to the millisecond.
pub(super) fn milliseconds(directive: &Directive) -> Result<Duration> {
    units::milliseconds(directive.arg(0)).ok_or_else(|| invalid_value(directive))
}

/// A time in whole seconds.
pub(super) fn seconds(directive: &Directive) -> Result<Duration> {
    units::seconds(directive.arg(0)).ok_or_else(|| invalid_value(directive))
}

/// The refusal of a value as such.
pub(super) fn invalid_value(directive: &Directive) -> Error {
    refuse_directive(directive, "invalid value")
}

/// The refusal of one word among several.
pub(super) fn invalid_parameter(directive: &Directive, word: &[u8]) -> Error {
    let word = String::from_utf8_lossy(word);
    refuse(directive, format!("invalid parameter \"{word}\""))
}

/// A word that Nginx knows and this version does not honour.
pub(super) fn not_implemented(directive: &Directive, word: &[u8]) -> Error {
    let word = String::from_utf8_lossy(word);
    let what = format!("parameter \"{word}\" is not implemented in this version");
    refuse_directive(directive, &what)
}

/// Whether a value names a variable.
pub(super) fn has_variable(value: &[u8]) -> bool {
    value.contains(&b'$')
}
