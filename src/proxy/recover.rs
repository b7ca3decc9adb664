//! What takes the place of an error: `error_page`, as Nginx has it.

use crate::config::{ErrorStatus, Handler};
use crate::http::head::Method;
use crate::http::uri;
use crate::telemetry::error_log::Level;

use super::exchange::BodySource;
use super::log;
use super::request::{RedirectionCycle, Request};
use super::serve::Entry;
use super::variables::expand_to_vec;

/// What follows an error.
#[derive(Debug)]
pub(crate) enum Instead<'a> {
    /// The request goes through the phases once more.
    Pass(Entry<'a>),
    /// The client is sent elsewhere.
    Redirect(u16, Vec<u8>),
    /// The small page that says what happened.
    Page(u16),
}

/// Another place in the same server that is to answer.
#[derive(Debug)]
pub(crate) enum InternalRedirect {
    /// A path, decoded, and arguments.
    Path(Vec<u8>, Vec<u8>),
    /// `@NAME`.
    Named(Vec<u8>),
}

impl InternalRedirect {
    /// Reads what a backend sent: as [`InternalRedirect::of`], but the path is
    /// encoded, and may not climb. `None` for what is not safe.
    pub(crate) fn of_backend(target: &[u8], merge_slashes: bool) -> Option<Self> {
        if target.first() == Some(&b'@') {
            return Some(Self::Named(target.to_vec()));
        }
        let mark = target.iter().position(|&byte| byte == b'?');
        let (path, args) = match mark.and_then(|mark| target.split_at_checked(mark)) {
            Some((path, args)) => (path, args.get(1..).unwrap_or_default()),
            None => (target, &b""[..]),
        };
        let mut normalized = Vec::with_capacity(path.len());
        uri::normalize(path, merge_slashes, &mut normalized).ok()?;
        let climbs = path.split(|byte| *byte == b'/').any(|part| part == b"..");
        if climbs || path.first() != Some(&b'/') || normalized.contains(&0) {
            return None;
        }
        // An encoded dot is a dot: the parts must still be all there.
        let encoded_dot = path.windows(3).any(|w| w.eq_ignore_ascii_case(b"%2e"));
        let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count();
        if encoded_dot && depth(&normalized) < depth(path) {
            return None;
        }
        Some(Self::Path(normalized, args.to_vec()))
    }

    /// Takes a value apart: `@NAME`, or a path and maybe `?` and arguments.
    pub(crate) fn of(target: Vec<u8>) -> Self {
        if target.first() == Some(&b'@') {
            return Self::Named(target);
        }
        let mark = target.iter().position(|&byte| byte == b'?');
        match mark.and_then(|mark| target.split_at_checked(mark)) {
            Some((path, args)) => {
                Self::Path(path.to_vec(), args.get(1..).unwrap_or_default().to_vec())
            }
            None => Self::Path(target, Vec::new()),
        }
    }
}

/// What the configuration wants to happen after an error of this status.
pub(crate) fn after_error<'a>(
    request: &mut Request<'a>,
    status: u16,
    body: &mut impl BodySource,
) -> Instead<'a> {
    let Some(page) = request.error_page(status) else {
        request.target.error_status = None;
        return Instead::Page(status);
    };
    request.target.is_error_page = !request.location.recursive_error_pages;
    let answer = match page.answer {
        ErrorStatus::Kept => Some(status),
        ErrorStatus::Changed(status) => Some(status),
        ErrorStatus::OfTarget => None,
    };
    // Before the target, which may name it.
    request.target.error_status = answer;
    let target = expand_to_vec(&page.target, request);
    let redirect = match target.first() {
        Some(b'/' | b'@') => InternalRedirect::of(target),
        _ => {
            request.target.error_status = None;
            let status = answer.filter(|status| matches!(status, 301..=303 | 307 | 308));
            let status = status.unwrap_or(302);
            return Instead::Redirect(status, target);
        }
    };
    // What asked for a page is gone: the page itself is fetched.
    let is_path = matches!(redirect, InternalRedirect::Path(..));
    request.target.is_get |= is_path && request.method() != Method::Head;
    match follow(request, redirect) {
        // A part of the body has been used up by a backend that failed; another
        // one would take the rest for the whole.
        Ok(Entry::Named(location))
            if !body.is_whole() && matches!(location.handler, Handler::Proxy(_)) =>
        {
            request.target.error_status = None;
            Instead::Page(status)
        }
        Ok(entry) => {
            if !body.is_whole() {
                body.withhold();
            }
            Instead::Pass(entry)
        }
        Err(status) => {
            request.target.error_status = None;
            Instead::Page(status)
        }
    }
}

/// Where a backend wants the answer to come from (`X-Accel-Redirect`).
///
/// # Errors
/// As [`follow`].
pub(crate) fn after_accel<'a>(
    request: &mut Request<'a>,
    body: &mut impl BodySource,
) -> Result<Entry<'a>, u16> {
    let redirect = request.target.accel.take().ok_or(500_u16)?;
    if matches!(redirect, InternalRedirect::Path(..)) {
        request.target.is_get |= request.method() != Method::Head;
    }
    if !body.is_whole() {
        body.withhold();
    }
    follow(request, redirect)
}

/// Leads the request to another place in its server.
///
/// # Errors
/// The status, 500, when there is no such place or there have been too many
/// redirections; the log has been told.
pub(crate) fn follow<'a>(
    request: &mut Request<'a>,
    redirect: InternalRedirect,
) -> Result<Entry<'a>, u16> {
    let name = match &redirect {
        InternalRedirect::Path(path, _) => path,
        InternalRedirect::Named(name) => name,
    };
    if request.count_change() == Err(RedirectionCycle) {
        let name = String::from_utf8_lossy(name);
        log::request_error(
            request,
            Level::Error,
            format_args!("rewrite or internal redirection cycle while redirected to \"{name}\""),
        );
        return Err(500);
    }
    match redirect {
        InternalRedirect::Path(path, args) => {
            request.set_path(path);
            request.target.args = Some(args);
            request.target.has_prefix = true;
            Ok(Entry::Path)
        }
        InternalRedirect::Named(name) => {
            request.target.is_internal = true;
            match request.server.locations.find_named(&name) {
                Some(location) => Ok(Entry::Named(location)),
                None => {
                    let name = String::from_utf8_lossy(&name);
                    log::request_error(
                        request,
                        Level::Error,
                        format_args!("could not find named location \"{name}\""),
                    );
                    Err(500)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_names_no_path_that_climbs() {
        let path = |target: &str| match InternalRedirect::of_backend(target.as_bytes(), true) {
            Some(InternalRedirect::Path(path, args)) => {
                String::from_utf8([path, b"|".to_vec(), args].concat()).ok()
            }
            _ => None,
        };
        assert_eq!(path("/a%20b/c?d=%20").as_deref(), Some("/a b/c|d=%20"));
        assert_eq!(path("/a%2Etxt").as_deref(), Some("/a.txt|"));
        for bad in [
            "",
            "a",
            "../a",
            "/../a",
            "/a/../b",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/%00",
            "/%zz",
            "?a",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn arguments_stand_behind_the_first_question_mark() {
        for (target, path, args) in [("/a", "/a", ""), ("/a?b?c", "/a", "b?c"), ("/a?", "/a", "")] {
            match InternalRedirect::of(target.into()) {
                InternalRedirect::Path(found, found_args) => {
                    assert_eq!((&*found, &*found_args), (path.as_bytes(), args.as_bytes()));
                }
                InternalRedirect::Named(name) => panic!("{target}: {name:?}"),
            }
        }
        assert!(
            matches!(InternalRedirect::of(b"@a?b".to_vec()), InternalRedirect::Named(name) if name == b"@a?b")
        );
    }
}
