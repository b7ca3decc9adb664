//! What becomes of each directive of a configuration, for `-t --explain`.
//!
//! A test ends at the first thing that is wrong; whoever moves a configuration
//! here wants to see all of it at once. So this looks at the table alone, and
//! goes on behind what it would refuse.

use super::check::{check_arguments, check_fixed, context_inside, row_for};
use crate::config::directives::{Class, Contexts, Row, lookup};
use crate::config::model::Position;
use crate::config::syntax::Directive;

/// What becomes of a directive where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As in Nginx.
    Honoured,
    /// Accepted, and nothing depends on it.
    NoEffect,
    /// Ends the start, with a reason.
    Refused,
    /// Nginx knows it neither.
    Unknown,
    /// In the wrong place, or with arguments that it does not take.
    Wrong,
}

impl Verdict {
    /// All of them, the harmless ones first.
    pub const ALL: [Self; 5] = [
        Self::Honoured,
        Self::NoEffect,
        Self::Refused,
        Self::Unknown,
        Self::Wrong,
    ];

    /// As docs/directives.md calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::NoEffect => "no effect here",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
        }
    }
}

/// A directive, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Without its arguments, which may be secrets.
    pub name: String,
    /// Where its name stands.
    pub position: Position,
    /// Which it is.
    pub verdict: Verdict,
    /// What it is for, or why it is not honoured.
    pub remark: String,
}

/// Every directive, in file order. What is inside a block that is refused or
/// unknown goes with the block.
pub(crate) fn explain(directives: &[Directive]) -> Vec<Explained> {
    let mut explained = Vec::new();
    explain_block(directives, Contexts::MAIN, &mut explained);
    explained
}

/// The recursion is as deep as blocks are nested, which the parser bounds.
fn explain_block(directives: &[Directive], context: Contexts, into: &mut Vec<Explained>) {
    for directive in directives {
        let (verdict, remark, inside) = match row_for(directive, context) {
            Ok(row) => {
                let (verdict, remark) = judge(directive, row);
                let inside = context_inside(row, context).filter(|_| verdict != Verdict::Refused);
                (verdict, remark, inside)
            }
            Err(error) if lookup(&directive.name.value).is_empty() => {
                (Verdict::Unknown, error.message, None)
            }
            Err(error) => (Verdict::Wrong, error.message, None),
        };
        into.push(Explained {
            name: directive.name().into_owned(),
            position: directive.position.clone(),
            verdict,
            remark,
        });
        if let Some(inside) = inside {
            explain_block(directive.children(), inside, into);
        }
    }
}

fn judge(directive: &Directive, row: &Row) -> (Verdict, String) {
    if let Class::Refused(reason) = row.class {
        return (Verdict::Refused, reason.to_owned());
    }
    if let Err(error) = check_arguments(directive, row) {
        return (Verdict::Wrong, error.message);
    }
    match row.class {
        Class::Honoured(help) => (Verdict::Honoured, help.to_owned()),
        Class::NoEffect(reason) => (Verdict::NoEffect, reason.to_owned()),
        Class::Refused(reason) => (Verdict::Refused, reason.to_owned()),
        Class::Fixed(values, otherwise) => match check_fixed(directive, values, otherwise) {
            Ok(()) => {
                let remark = "the only value that is honoured".to_owned();
                (Verdict::Honoured, remark)
            }
            Err(error) => (Verdict::Refused, error.message),
        },
    }
}
