//! `set`, `rewrite`, `if`, `break`, `return`: what is done before anything
//! answers.

use super::location::{self, Inherited, parse_return};
use super::scope::Scope;
use super::values::{has_variable, refuse};
use super::variables::{defined, variable_name};
use super::{Builder, Result, logs};
use crate::config::script::{
    Assignable, Candidate, Condition, FileTest, If, Otherwise, Rewrite, Step, Then, TryFiles,
};
use crate::config::syntax::Directive;
use crate::config::template::{Part, Template};
use crate::config::units;

/// Takes a directive that is a step of a server's or a location's script;
/// `None` when it is none of these. `if` is for the caller, who knows what its
/// block may hold.
pub(super) fn step(builder: &mut Builder<'_>, d: &Directive) -> Result<Option<Step>> {
    Ok(Some(match &*d.name.value {
        b"set" => {
            let (variable, value) = assignment(builder, d)?;
            Step::Set(variable, value)
        }
        b"rewrite" => Step::Rewrite(rewrite(builder, d)?),
        b"break" => Step::Break,
        b"return" => Step::Return(parse_return(builder, d)?),
        _ => return Ok(None),
    }))
}

/// The variable, if it is of Nginx's own and `set` changes it.
pub(super) fn assignable(name: &str) -> Option<Assignable> {
    match name {
        "args" => Some(Assignable::Args),
        "limit_rate" => Some(Assignable::LimitRate),
        _ => None,
    }
}

/// `$VARIABLE VALUE`: what `set` and `auth_request_set` say.
pub(super) fn assignment(
    builder: &mut Builder<'_>,
    d: &Directive,
) -> Result<(Assignable, Template)> {
    let value = builder.template(d.arg(1), &d.position)?;
    if let Some(own) = assignable(&variable_name(d, 0)?) {
        return Ok((own, value));
    }
    let id = defined(builder, d, 0)?;
    builder.variables.assign(id, value.variables());
    Ok((Assignable::User(id), value))
}

fn rewrite(builder: &Builder<'_>, d: &Directive) -> Result<Rewrite> {
    let pattern = builder.pattern(d, d.arg(0), false)?;
    let mut replacement = d.arg(1);
    let is_url = [b"http://".as_slice(), b"https://", b"$scheme"]
        .iter()
        .any(|prefix| replacement.starts_with(prefix));
    let flag = match d.args.get(2).map(|word| &*word.value) {
        None if is_url => Some(302),
        None => None,
        Some(b"redirect") => Some(302),
        Some(b"permanent") => Some(301),
        Some(b"last" | b"break") => None,
        Some(_) => return Err(refuse(d, format!("invalid parameter \"{}\"", d.text(2)))),
    };
    let keeps_args = match replacement.strip_suffix(b"?") {
        Some(rest) => {
            replacement = rest;
            false
        }
        None => true,
    };
    let mark = replacement.iter().position(|&byte| byte == b'?');
    let (replacement, args, then) = match flag.or(is_url.then_some(302)) {
        Some(status) => {
            let template = location::redirect_target(builder, d, replacement)?;
            (template, None, Then::Redirect(status, mark.is_some()))
        }
        None => {
            let (path, args) = match mark.and_then(|mark| replacement.split_at_checked(mark)) {
                Some((path, args)) => (path, args.get(1..)),
                None => (replacement, None),
            };
            let args = match args {
                Some(args) => Some(builder.template(args, &d.position)?),
                None => None,
            };
            let then = match d.arg(2) {
                b"last" => Then::Last,
                b"break" => Then::Break,
                _ => Then::Next,
            };
            (builder.template(path, &d.position)?, args, then)
        }
    };
    Ok(Rewrite {
        pattern,
        replacement,
        args,
        keeps_args,
        then,
    })
}

/// `if` in `server`: only steps stand in it.
pub(super) fn server_if(builder: &mut Builder<'_>, d: &Directive) -> Result<Step> {
    let condition = condition(builder, d)?;
    let mut steps = Vec::new();
    for inner in d.children() {
        match step(builder, inner)? {
            Some(step) => steps.push(step),
            None if location::is_without_effect(inner) => {}
            None => return Err(logs::unhandled(inner)),
        }
    }
    Ok(Step::If(Box::new(If {
        condition,
        location: None,
        steps: steps.into(),
    })))
}

/// `if` in `location`: settings of its own may stand in it too.
pub(super) fn location_if(
    builder: &mut Builder<'_>,
    d: &Directive,
    outer: &Scope,
    inherited: &Inherited<'_>,
) -> Result<Step> {
    let condition = condition(builder, d)?;
    let (location, steps) = location::build_unnamed(builder, d, outer, inherited)?;
    Ok(Step::If(Box::new(If {
        condition,
        location: Some(location),
        steps: steps.into(),
    })))
}

/// What stands between the parentheses.
fn condition(builder: &mut Builder<'_>, d: &Directive) -> Result<Condition> {
    let words = unwrapped(d)?;
    let invalid = |word: &[u8]| {
        let word = String::from_utf8_lossy(word);
        refuse(d, format!("invalid condition \"{word}\""))
    };
    let first = words.first().copied().unwrap_or_default();
    let file_test = file_test(first);
    if file_test.is_none() && !first.starts_with(b"$") {
        return Err(invalid(first));
    }
    let condition = match &*words {
        [_, path] if let Some((test, negated)) = file_test => Condition::File {
            test,
            path: builder.template(path, &d.position)?,
            negated,
        },
        [word, ..] if file_test.is_some() => return Err(invalid(word)),
        [variable] => Condition::IsSet(single_variable(builder, d, variable)?),
        [variable, operator, other] => {
            let value = single_variable(builder, d, variable)?;
            let (comparison, negated) = match operator.strip_prefix(b"!") {
                Some(comparison) => (comparison, true),
                None => (*operator, false),
            };
            match comparison {
                b"=" => Condition::Equals {
                    value,
                    other: builder.template(other, &d.position)?,
                    negated,
                },
                b"~" | b"~*" => Condition::Matches {
                    pattern: builder.pattern(d, other, comparison == b"~*")?,
                    value,
                    negated,
                },
                _ => {
                    let operator = String::from_utf8_lossy(operator);
                    return Err(refuse(d, format!("unexpected \"{operator}\" in condition")));
                }
            }
        }
        [_, word, ..] => return Err(invalid(word)),
        [] => return Err(invalid(b"")),
    };
    if let Condition::Matches { value, pattern, .. } = &condition {
        builder.variables.search(pattern, value);
    }
    Ok(condition)
}

/// The words without the parentheses, which may stand alone or touch them.
fn unwrapped(d: &Directive) -> Result<Vec<&[u8]>> {
    let mut words: Vec<&[u8]> = d.args.iter().map(|word| &*word.value).collect();
    let invalid = || refuse(d, format!("invalid condition \"{}\"", d.text(0)));
    let first = words.first_mut().ok_or_else(invalid)?;
    *first = first.strip_prefix(b"(").ok_or_else(invalid)?;
    let last = words.last_mut().ok_or_else(invalid)?;
    let text = String::from_utf8_lossy(last).into_owned();
    *last = last
        .strip_suffix(b")")
        .ok_or_else(|| refuse(d, format!("invalid condition \"{text}\"")))?;
    if words.first().is_some_and(|word| word.is_empty()) {
        words.remove(0);
    }
    // `( $x = "" )`: an empty word that is not the parenthesis's rest stays.
    if d.args.last().is_some_and(|word| &*word.value == b")") {
        words.pop();
    }
    Ok(words)
}

fn file_test(word: &[u8]) -> Option<(FileTest, bool)> {
    let test = match word.strip_prefix(b"!").unwrap_or(word) {
        b"-f" => FileTest::Regular,
        b"-d" => FileTest::Directory,
        b"-e" => FileTest::Any,
        b"-x" => FileTest::Executable,
        _ => return None,
    };
    Some((test, word.starts_with(b"!")))
}

/// `try_files FILE… URI|=CODE`.
pub(super) fn try_files(builder: &Builder<'_>, d: &Directive) -> Result<TryFiles> {
    let Some((last, files)) = d.args.split_last() else {
        return Err(refuse(
            d,
            "invalid number of arguments in \"try_files\" directive",
        ));
    };
    let mut candidates = Vec::with_capacity(files.len());
    for file in files {
        let (path, is_directory) = match file.value.strip_suffix(b"/") {
            Some(path) if !path.is_empty() => (path, true),
            _ => (&*file.value, false),
        };
        candidates.push(Candidate {
            path: builder.template(path, &d.position)?,
            is_directory,
        });
    }
    let otherwise = match last.value.strip_prefix(b"=") {
        Some(code) => {
            let code = units::number(code).and_then(|code| u16::try_from(code).ok());
            let code = code.filter(|&code| code <= 999);
            Otherwise::Status(code.ok_or_else(|| {
                let last = last.text();
                refuse(d, format!("invalid code \"{last}\""))
            })?)
        }
        None => Otherwise::Redirect(builder.template(&last.value, &d.position)?),
    };
    Ok(TryFiles {
        candidates,
        otherwise,
    })
}

fn single_variable(builder: &Builder<'_>, d: &Directive, word: &[u8]) -> Result<Template> {
    let template = builder.template(word, &d.position)?;
    match &*template.parts {
        [Part::Variable(_)] if has_variable(word) => Ok(template),
        _ => {
            let word = String::from_utf8_lossy(word);
            Err(refuse(d, format!("invalid variable name \"{word}\"")))
        }
    }
}
