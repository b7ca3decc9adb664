//! `auth_basic`: who knows a password is let in (RFC 7617).

mod des_crypt;
mod passwords;
mod users;
mod verifier;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::config::AuthBasic;
use crate::http::credentials;
use crate::http::head::FieldId;
use crate::telemetry::error_log::{Level, Text};

use super::access::Opinion;
use super::log;
use super::request::Request;
use super::variables::expand_to_vec;

use verifier::{Claim, Finding};

/// Asks for user and password, and holds them against the file.
///
/// Cancelling it leaves the request without an answer.
pub(super) async fn check(request: &mut Request<'_>, auth: &AuthBasic) -> Opinion {
    let realm = expand_to_vec(&auth.realm, request);
    if realm == b"off" {
        return Opinion::None;
    }
    let Some((user, password)) = credentials(request) else {
        log::request_error(
            request,
            Level::Info,
            format_args!("no user/password was provided for basic authentication"),
        );
        return challenge(request, &realm);
    };
    let file = user_file(request, auth);
    let claim = Claim {
        file: file.clone(),
        user: user.clone(),
        password: Zeroizing::new(password),
        client: request.client().ip(),
    };
    let finding = verifier::verify(claim).await;
    let (user, file) = (Text(&user), file.display());
    let say = |level, message: std::fmt::Arguments<'_>| log::request_error(request, level, message);
    match finding {
        Finding::Match => Opinion::LetIn,
        Finding::Mismatch => {
            say(
                Level::Error,
                format_args!("user \"{user}\": password mismatch"),
            );
            challenge(request, &realm)
        }
        Finding::UnknownUser => {
            say(
                Level::Error,
                format_args!("user \"{user}\" was not found in \"{file}\""),
            );
            challenge(request, &realm)
        }
        Finding::UnknownForm => {
            say(
                Level::Crit,
                format_args!("the password of user \"{user}\" in \"{file}\" is in no known form"),
            );
            Opinion::Fail(500)
        }
        Finding::Unreadable(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let (level, opinion) = match missing {
                true => (Level::Error, Opinion::KeepOut(403)),
                false => (Level::Crit, Opinion::Fail(500)),
            };
            let code = Errno::from_io_error(&error).map_or(0, Errno::raw_os_error);
            say(
                level,
                format_args!("open() \"{file}\" failed ({code}: {error})"),
            );
            opinion
        }
        Finding::Busy => {
            say(
                Level::Error,
                format_args!("too many passwords wait to be verified"),
            );
            Opinion::Fail(503)
        }
    }
}

/// `$remote_user` and its password, as the request names them.
pub(super) fn credentials(request: &Request<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let head = request.head_bytes();
    let field = request.head.field(head, FieldId::Authorization)?;
    credentials::basic(field)
}

fn user_file(request: &Request<'_>, auth: &AuthBasic) -> PathBuf {
    let file = expand_to_vec(&auth.user_file, request);
    // As a C string would end: nobody chooses a shorter path by a zero byte,
    // because what is left does not exist.
    auth.folder.join(OsStr::from_bytes(&file))
}

fn challenge(request: &mut Request<'_>, realm: &[u8]) -> Opinion {
    let value = [b"Basic realm=\"", realm, b"\""].concat();
    request.answer.challenges.push(value);
    Opinion::KeepOut(401)
}
