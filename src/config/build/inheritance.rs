//! `add_header_inherit` and `add_trailer_inherit`: what becomes of the lists of
//! the blocks around.

use super::Result;
use super::values::invalid_value;
use crate::config::syntax::Directive;

/// How a list of an outer block passes on to an inner one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inheritance {
    /// Where the inner block has no list of its own.
    On,
    /// Not at all.
    Off,
    /// Behind the inner block's own.
    Merge,
}

impl Inheritance {
    pub(super) fn parse(d: &Directive) -> Result<Self> {
        match d.arg(0) {
            b"on" => Ok(Self::On),
            b"off" => Ok(Self::Off),
            b"merge" => Ok(Self::Merge),
            _ => Err(invalid_value(d)),
        }
    }

    /// What holds in a block that says `inner` within one where `outer` holds.
    pub(super) fn apply<T: Clone>(self, inner: &mut Option<Vec<T>>, outer: &Option<Vec<T>>) {
        match (self, inner) {
            (Self::Off, _) => {}
            (Self::Merge, Some(list)) => list.extend(outer.iter().flatten().cloned()),
            (Self::On, Some(_)) => {}
            (Self::On | Self::Merge, slot) => slot.clone_from(outer),
        }
    }
}
