//! Every directive against the table, in file order.

use std::collections::HashSet;

use super::Result;
use super::values::{flag, refuse, refuse_directive};
use crate::config::directives::{Arguments, Class, Contexts, Row, lookup};
use crate::config::model::{LogLevel, Remark};
use crate::config::syntax::Directive;

/// Holds a whole tree against the table, and collects what has no effect.
pub(super) fn check(directives: &[Directive], remarks: &mut Vec<Remark>) -> Result<()> {
    let mut seen = HashSet::new();
    check_block(directives, Contexts::MAIN, &mut seen, remarks)
}

/// The recursion is as deep as blocks are nested, which the parser bounds.
fn check_block(
    directives: &[Directive],
    context: Contexts,
    seen: &mut HashSet<&'static str>,
    remarks: &mut Vec<Remark>,
) -> Result<()> {
    for directive in directives {
        let row = row_for(directive, context)?;
        match row.class {
            Class::Refused(reason) => return Err(refuse_directive(directive, reason)),
            Class::Honoured(_) => check_arguments(directive, row)?,
            Class::Fixed(values, otherwise) => {
                check_arguments(directive, row)?;
                check_fixed(directive, values, otherwise)?;
            }
            Class::NoEffect(reason) => {
                check_arguments(directive, row)?;
                if seen.insert(row.name) {
                    remarks.push(Remark {
                        level: LogLevel::Notice,
                        text: format!("\"{}\" directive has no effect here: {reason}", row.name),
                        position: Some(directive.position.clone()),
                    });
                }
            }
        }
        if let Some(inside) = context_inside(row, context) {
            check_block(directive.children(), inside, seen, remarks)?;
        }
    }
    Ok(())
}

/// A directive that is honoured with certain arguments only.
pub(super) fn check_fixed(directive: &Directive, values: &[&str], otherwise: &str) -> Result<()> {
    let words: Vec<_> = (0..directive.args.len())
        .map(|i| directive.text(i))
        .collect();
    if values.contains(&words.join(" ").as_str()) {
        return Ok(());
    }
    let what = format!("{otherwise} (only \"{}\" is accepted)", values[0]);
    Err(refuse_directive(directive, &what))
}

pub(super) fn row_for(directive: &Directive, context: Contexts) -> Result<&'static Row> {
    let rows = lookup(&directive.name.value);
    if rows.is_empty() {
        let name = directive.name();
        return Err(refuse(directive, format!("unknown directive \"{name}\"")));
    }
    rows.iter()
        .find(|row| row.contexts.intersects(context))
        .ok_or_else(|| refuse_directive(directive, "is not allowed here"))
}

pub(super) fn check_arguments(directive: &Directive, row: &Row) -> Result<()> {
    let name = row.name;
    let (min, max, block) = match row.arguments {
        Arguments::Unchecked => return Ok(()),
        Arguments::Flag => (1, 1, false),
        Arguments::Words(min, max) => (min, max, false),
        Arguments::Block(min, max) => (min, max, true),
    };
    match (&directive.block, block) {
        (Some(_), false) => {
            let message = format!("directive \"{name}\" is not terminated by \";\"");
            return Err(refuse(directive, message));
        }
        (None, true) => {
            let message = format!("directive \"{name}\" has no opening \"{{\"");
            return Err(refuse(directive, message));
        }
        _ => {}
    }
    if !(min..=max).contains(&directive.args.len()) {
        let message = format!("invalid number of arguments in \"{name}\" directive");
        return Err(refuse(directive, message));
    }
    if row.arguments == Arguments::Flag {
        flag(directive)?;
    }
    Ok(())
}

/// Which context a block opens; `types` and `map` hold no directives.
pub(super) fn context_inside(row: &Row, around: Contexts) -> Option<Contexts> {
    match (row.name, row.arguments) {
        ("events", _) => Some(Contexts::EVENTS),
        ("http", _) => Some(Contexts::HTTP),
        ("server", Arguments::Block(..)) => Some(Contexts::SERVER),
        ("location", _) => Some(Contexts::LOCATION),
        ("if", _) if around == Contexts::SERVER => Some(Contexts::SERVER_IF),
        ("if", _) => Some(Contexts::LOCATION_IF),
        ("limit_except", _) => Some(Contexts::LIMIT_EXCEPT),
        ("upstream", _) => Some(Contexts::UPSTREAM),
        ("match", _) => Some(Contexts::MATCH),
        _ => None,
    }
}
