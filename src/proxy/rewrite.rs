//! `set`, `rewrite`, `if`, `break` and `return`, as Nginx's rewrite module runs
//! them.

use crate::config::{Assignable, Condition, Part, Return, Rewrite, Step, Template, Then, Variable};
use crate::http::h1::encode::Sink;
use crate::http::uri::escape_argument;
use crate::telemetry::error_log::Level;

use super::forward::Failure;
use super::log;
use super::request::{Captured, Request};
use super::variables::{expand_to_vec, write_variable};

/// How a script ended.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// The request goes on where it is.
    Stay,
    /// Its path has changed, so its location is another one.
    Find,
    /// `return`.
    Return(&'a Return),
    /// `rewrite` with a redirect: status and address.
    Redirect(u16, Vec<u8>),
}

/// Runs a block's script.
///
/// # Errors
/// 500, with a line in the log, where a path becomes empty or a regular
/// expression takes too long.
pub(crate) fn run<'a>(
    request: &mut Request<'a>,
    steps: &'a [Step],
) -> Result<Outcome<'a>, Failure> {
    let mut path_changed = false;
    Ok(match run_steps(request, steps, &mut path_changed)? {
        Some(outcome) => outcome,
        None if path_changed => Outcome::Find,
        None => Outcome::Stay,
    })
}

/// `None` when all steps are done. The recursion is one deep: `if` does not
/// stand in `if`.
fn run_steps<'a>(
    request: &mut Request<'a>,
    steps: &'a [Step],
    path_changed: &mut bool,
) -> Result<Option<Outcome<'a>>, Failure> {
    for step in steps {
        match step {
            Step::Set(Assignable::User(id), value) => {
                let value = expand_to_vec(value, request);
                request.assign(*id, &value);
            }
            Step::Set(Assignable::Args, value) => {
                request.target.args = Some(expand_to_vec(value, request));
                request.target.is_as_sent = false;
            }
            Step::Break => return Ok(Some(Outcome::Stay)),
            Step::Return(answer) => return Ok(Some(Outcome::Return(answer))),
            Step::If(branch) => {
                if !holds(request, &branch.condition)? {
                    continue;
                }
                if let Some(location) = &branch.location {
                    request.location = location;
                }
                if let Some(outcome) = run_steps(request, &branch.steps, path_changed)? {
                    return Ok(Some(outcome));
                }
            }
            Step::Rewrite(rule) => {
                if !search(request, &rule.pattern, request.path().into())? {
                    continue;
                }
                match rule.then {
                    Then::Redirect(status, has_mark) => {
                        let address = redirect_address(request, rule, has_mark);
                        return Ok(Some(Outcome::Redirect(status, address)));
                    }
                    then => rewrite(request, rule, then)?,
                }
                match rule.then {
                    Then::Last => return Ok(Some(Outcome::Find)),
                    Then::Break => return Ok(Some(Outcome::Stay)),
                    Then::Next | Then::Redirect(..) => *path_changed = true,
                }
            }
        }
    }
    Ok(None)
}

/// Searches, and keeps what the groups found. Whether there was a match.
fn search(
    request: &mut Request<'_>,
    pattern: &crate::config::Pattern,
    subject: Box<[u8]>,
) -> Result<bool, Failure> {
    let groups = pattern.groups(&subject).map_err(|error| {
        log::request_error(request, Level::Error, format_args!("{error}"));
        Failure::Status(500)
    })?;
    let Some(groups) = groups else {
        return Ok(false);
    };
    request.assign_groups(pattern, &subject, &groups);
    request.captured = Captured::Kept(subject, groups);
    Ok(true)
}

fn holds(request: &mut Request<'_>, condition: &Condition) -> Result<bool, Failure> {
    Ok(match condition {
        Condition::IsSet(value) => !matches!(&*expand_to_vec(value, request), b"" | b"0"),
        Condition::Equals {
            value,
            other,
            negated,
        } => (expand_to_vec(value, request) == expand_to_vec(other, request)) != *negated,
        Condition::Matches {
            value,
            pattern,
            negated,
        } => {
            let subject = expand_to_vec(value, request).into();
            search(request, pattern, subject)? != *negated
        }
    })
}

/// Changes path and arguments. What a group holds is decoded, so in arguments
/// it is escaped again.
fn rewrite(request: &mut Request<'_>, rule: &Rewrite, then: Then) -> Result<(), Failure> {
    let path = expand_to_vec(&rule.replacement, request);
    if path.is_empty() {
        log::request_error(
            request,
            Level::Error,
            format_args!("the rewritten URI has a zero length"),
        );
        return Err(Failure::Status(500));
    }
    let mut args = rule.args.as_ref().map(|args| expand_escaped(args, request));
    match &mut args {
        Some(args) if rule.keeps_args && !request.query().is_empty() => {
            args.push(b'&');
            args.extend_from_slice(request.query());
        }
        None if !rule.keeps_args => args = Some(Vec::new()),
        Some(_) | None => {}
    }
    request.set_path(path);
    if let Some(args) = args {
        request.target.args = Some(args);
    }
    request.target.has_prefix &= then != Then::Break;
    Ok(())
}

fn redirect_address(request: &Request<'_>, rule: &Rewrite, has_mark: bool) -> Vec<u8> {
    let escaped = expand_escaped(&rule.replacement, request);
    let mut address = unescape_printable(&escaped);
    if rule.keeps_args && !request.query().is_empty() {
        address.push(if has_mark { b'&' } else { b'?' });
        address.extend_from_slice(request.query());
    }
    address
}

/// The template's value with what groups hold escaped, if the client had
/// escaped anything in the path.
fn expand_escaped(template: &Template, request: &Request<'_>) -> Vec<u8> {
    let sent = request.head.path.of(request.head_bytes());
    if !sent.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return expand_to_vec(template, request);
    }
    let mut out = Vec::new();
    let mut group = Vec::new();
    for part in &template.parts {
        match part {
            Part::Literal(bytes) => out.put(bytes),
            Part::Variable(variable @ Variable::Capture(_)) => {
                group.clear();
                write_variable(variable, request, &mut group);
                escape_argument(&mut out, &group);
            }
            Part::Variable(variable) => write_variable(variable, request, &mut out),
        }
    }
    out
}

/// Undoes the escapes of printable characters before the arguments, as Nginx
/// does for the address of a redirect.
fn unescape_printable(address: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(address.len());
    let mut rest = address;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.split_at_checked(2);
        let decoded = digits.and_then(|(digits, _)| {
            let digits = std::str::from_utf8(digits).ok()?;
            digits
                .bytes()
                .all(|digit| digit.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(digits, 16).ok())?
        });
        match (byte, decoded, digits) {
            (b'?', ..) => {
                out.extend_from_slice(rest);
                break;
            }
            (b'%', Some(decoded @ b'&'..=0x7e), Some((_, after))) => {
                out.push(decoded);
                rest = after;
                if decoded == b'?' {
                    out.extend_from_slice(rest);
                    break;
                }
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printable_characters_before_the_arguments_are_unescaped() {
        for (address, unescaped) in [
            ("/a%2Fb", "/a/b"),
            ("/a%20b%25", "/a%20b%25"),
            ("/%E9", "/%E9"),
            ("/a%3Fb%2F", "/a?b%2F"),
            ("/a?b=%2F", "/a?b=%2F"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/%+1", "/%+1"),
        ] {
            let found = unescape_printable(address.as_bytes());
            assert_eq!(String::from_utf8(found).unwrap(), unescaped, "{address}");
        }
    }
}
