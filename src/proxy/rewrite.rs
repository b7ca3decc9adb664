//! `set`, `rewrite`, `if`, `break` and `return`, as Nginx's rewrite module runs
//! them, and `try_files`.

use crate::config::{
    Assignable, Condition, FileTest, Otherwise, Part, Return, Rewrite, RootKind, Step, Template,
    Then, TryFiles, Variable, units,
};
use crate::http::h1::encode::Sink;
use crate::http::uri::escape_argument;
use crate::telemetry::error_log::Level;

use super::files::{self, Kind};
use super::forward::Failure;
use super::log;
use super::recover::InternalRedirect;
use super::request::Request;
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
/// expression takes too long. Cancelling it leaves the script half done.
pub(crate) async fn run<'a>(
    request: &mut Request<'a>,
    steps: &'a [Step],
) -> Result<Outcome<'a>, Failure> {
    let mut path_changed = false;
    // What is left of the block, and of the `if` in it: those do not nest.
    let mut outer = steps.iter();
    let mut inner = [].iter();
    while let Some(step) = inner.next().or_else(|| outer.next()) {
        match step {
            Step::Set(variable, value) => {
                let value = expand_to_vec(value, request);
                assign(request, *variable, value);
            }
            Step::Break => return Ok(Outcome::Stay),
            Step::Return(answer) => return Ok(Outcome::Return(answer)),
            Step::If(branch) => {
                if holds(request, &branch.condition).await? {
                    if let Some(location) = &branch.location {
                        request.location = location;
                    }
                    inner = branch.steps.iter();
                }
            }
            Step::Rewrite(rule) => {
                if !search(request, &rule.pattern, request.path().into())? {
                    continue;
                }
                match rule.then {
                    Then::Redirect(status, has_mark) => {
                        let address = redirect_address(request, rule, has_mark);
                        return Ok(Outcome::Redirect(status, address));
                    }
                    then => rewrite(request, rule, then)?,
                }
                match rule.then {
                    Then::Last => return Ok(Outcome::Find),
                    Then::Break => return Ok(Outcome::Stay),
                    Then::Next | Then::Redirect(..) => path_changed = true,
                }
            }
        }
    }
    Ok(if path_changed {
        Outcome::Find
    } else {
        Outcome::Stay
    })
}

/// Gives a variable its value, and has the effect that this has.
pub(super) fn assign(request: &mut Request<'_>, variable: Assignable, value: Vec<u8>) {
    match variable {
        Assignable::User(id) => request.assign(id, &value),
        Assignable::Args => {
            request.target.args = Some(value);
            request.target.is_as_sent = false;
        }
        Assignable::LimitRate => match units::offset(&value) {
            Some(rate) => request.target.limit_rate = Some(rate),
            None => log::request_error(
                request,
                Level::Error,
                format_args!(
                    "invalid $limit_rate \"{}\"",
                    String::from_utf8_lossy(&value)
                ),
            ),
        },
    }
}

async fn passes(request: &Request<'_>, test: FileTest, path: &Template) -> bool {
    let path = expand_to_vec(path, request);
    let Ok(found) = files::probe(request, path).await else {
        return false;
    };
    match test {
        FileTest::Regular => found.kind == Kind::File,
        FileTest::Directory => found.kind == Kind::Folder,
        FileTest::Any => true,
        FileTest::Executable => found.is_executable,
    }
}

/// What `try_files` has found.
#[derive(Debug)]
pub(crate) enum Tried {
    /// The request goes on, its path that of the first file that exists.
    Found,
    /// None exists.
    Redirect(InternalRedirect),
}

/// Looks for the files of `try_files`, one after the other.
///
/// # Errors
/// The status that it names for when none exists, and those of
/// [`files::path_of`]. Cancelling it has no effect.
pub(crate) async fn try_files(
    request: &mut Request<'_>,
    tries: &TryFiles,
) -> Result<Tried, Failure> {
    for candidate in &tries.candidates {
        let mut path = expand_to_vec(&candidate.path, request);
        let prefix = &*request.location.prefix;
        // Below an `alias` the location's name stands for the root.
        if matches!(request.location.files.root.kind, RootKind::Alias(_))
            && !path.starts_with(prefix)
        {
            path = [prefix, &path].concat();
        }
        let full = files::path_of(request, &path)?;
        let wanted = match candidate.is_directory {
            true => Kind::Folder,
            false => Kind::File,
        };
        let found = files::probe(request, full).await;
        if found.is_ok_and(|found| found.kind == wanted) {
            request.replace_path(path);
            return Ok(Tried::Found);
        }
    }
    match &tries.otherwise {
        Otherwise::Status(status) => Err(Failure::Status(*status)),
        Otherwise::Redirect(target) => {
            let target = expand_to_vec(target, request);
            Ok(Tried::Redirect(InternalRedirect::of(target)))
        }
    }
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
    request.keep_groups(subject, groups);
    Ok(true)
}

async fn holds(request: &mut Request<'_>, condition: &Condition) -> Result<bool, Failure> {
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
        Condition::File {
            test,
            path,
            negated,
        } => passes(request, *test, path).await != *negated,
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
