//! From a URI to a path of the file system, and no further than the root.

use std::os::unix::ffi::OsStrExt;

use crate::config::{Root, RootKind};
use crate::http::h1::encode::Sink;
use crate::proxy::forward::Failure;
use crate::proxy::log;
use crate::proxy::request::Request;
use crate::proxy::variables::expand_to_vec;
use crate::telemetry::error_log::Level;

/// Where a URI leads.
#[derive(Debug)]
pub(super) struct FilePath {
    /// Absolute.
    pub(super) full: Vec<u8>,
}

/// The path of a URI by the location's `root` or `alias`.
///
/// # Errors
/// 500 if an `alias` is asked for a URI that is not the location's, 404 if the
/// path would leave the root. The log has been told.
pub(super) fn of_uri(request: &Request<'_>, uri: &[u8]) -> Result<FilePath, Failure> {
    let root = &request.location.files.root;
    let mut full = root_path(root, request);
    if root.path.as_literal().is_none() {
        check(request, &full)?;
    }
    let rest = match &root.kind {
        RootKind::Root => uri,
        RootKind::Whole => &[],
        RootKind::Alias(name) => match uri.strip_prefix(&**name) {
            Some(rest) => rest,
            None => {
                let name = &request.location.name;
                log::request_error(
                    request,
                    Level::Alert,
                    format_args!(
                        "\"alias\" cannot be used in location \"{name}\" where URI was rewritten"
                    ),
                );
                return Err(Failure::Status(500));
            }
        },
    };
    // `location /i { alias /w/; }` makes `/w/../x` of `/i../x`, which no
    // normalisation of the URI prevents.
    let joint = full.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    full.extend_from_slice(rest);
    check(request, full.get(joint..).unwrap_or_default())?;
    Ok(FilePath { full })
}

/// Refuses a part of a path that holds a `..` segment or a NUL.
///
/// # Errors
/// 404; the log has been told.
pub(super) fn check(request: &Request<'_>, part: &[u8]) -> Result<(), Failure> {
    if memchr::memchr(0, part).is_none() && !part.split(|byte| *byte == b'/').any(|s| s == b"..") {
        return Ok(());
    }
    let part = String::from_utf8_lossy(part);
    log::request_error(
        request,
        Level::Error,
        format_args!("\"{}\" leaves the root", part.escape_debug()),
    );
    Err(Failure::Status(404))
}

/// `$document_root`.
pub(crate) fn write_root(request: &Request<'_>, out: &mut dyn Sink) {
    out.put(&root_path(&request.location.files.root, request));
}

/// `$request_filename`.
pub(crate) fn write_uri(request: &Request<'_>, out: &mut dyn Sink) {
    let root = &request.location.files.root;
    out.put(&root_path(root, request));
    let uri = request.path();
    out.put(match &root.kind {
        RootKind::Root => uri,
        RootKind::Alias(name) => uri.get(name.len()..).unwrap_or_default(),
        RootKind::Whole => &[],
    });
}

fn root_path(root: &Root, request: &Request<'_>) -> Vec<u8> {
    if let Some(literal) = root.path.as_literal() {
        return literal.to_vec();
    }
    let mut path = expand_to_vec(&root.path, request);
    if !path.starts_with(b"/") {
        let mut absolute = root.prefix.as_os_str().as_bytes().to_vec();
        absolute.push(b'/');
        absolute.append(&mut path);
        path = absolute;
    }
    if root.kind == RootKind::Root && path.ends_with(b"/") {
        path.pop();
    }
    path
}
