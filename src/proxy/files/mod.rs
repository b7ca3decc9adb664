//! Files: what a location answers with that has nothing else to answer with.
//!
//! As in Nginx three handlers take their turn: a path that ends in a slash is
//! answered by an index file, else by a list of the folder where that is
//! allowed, else not at all; any other path by the file that it names. Opening
//! and looking at files happens on threads beside the workers
//! ([`crate::net::offload`]), reading them through the ring.

mod autoindex;
mod conditional;
mod content_type;
mod empty_gif;
mod lookup;
mod path;
mod ranges;
mod send;

use std::fmt;

use rustix::io::Errno;

use crate::config::{Files, GzipFiles};
use crate::http::head::Method;
use crate::telemetry::error_log::Level;

use super::exchange::ResponseSink;
use super::forward::Failure;
use super::request::Request;
use super::variables::expand_to_vec;
use super::{gzip, log, respond};

pub(crate) use content_type::{of_path as type_of_path, with_charset};
pub(crate) use empty_gif::empty_gif;
pub(crate) use lookup::{Kind, Probed};
pub(crate) use path::{write_root, write_uri};

use lookup::{Index, Opened, Policy};
use path::FilePath;
use send::Form;

/// What came of a request for a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// It was answered.
    Sent,
    /// An index file takes it: the request is to be served anew with this
    /// path, its arguments kept.
    Redirect(Vec<u8>),
}

/// Answers from the location's `root` or `alias`.
///
/// # Errors
/// 404, 403 and the like, which the log has been told; see [`Failure`].
/// Cancelling it cuts the response off.
pub(crate) async fn serve<S: ResponseSink>(
    request: &mut Request<'_>,
    sink: &mut S,
) -> Result<Content, Failure> {
    let method = request.method();
    if !matches!(method, Method::Get | Method::Head | Method::Post) {
        return Err(Failure::Status(405));
    }
    let path = path::of_uri(request, request.path())?;
    if path.full.ends_with(b"/") && request.path().ends_with(b"/") {
        return folder(request, path, sink).await;
    }
    let coded = send_coded(request, &path, sink).await?;
    if coded == Coded::Sent {
        return Ok(Content::Sent);
    }
    let opened = open(request, &path).await?;
    match opened.kind {
        Kind::Folder => {
            let sent = respond::add_slash(request, sink).await;
            sent.map_err(|_| Failure::Aborted)?;
        }
        Kind::Other => {
            let name = String::from_utf8_lossy(&path.full);
            log::request_error(
                request,
                Level::Crit,
                format_args!("\"{name}\" is not a regular file"),
            );
            return Err(Failure::Status(404));
        }
        Kind::File if method == Method::Post => return Err(Failure::Status(405)),
        Kind::File => {
            let form = if coded == Coded::There {
                Form::OneOfTwo
            } else {
                Form::Plain
            };
            send::file(request, opened, &path, form, sink).await?;
        }
    }
    Ok(Content::Sent)
}

/// What lies at a path of the file system, by the location's rule on symbolic
/// links: for `try_files` and the conditions of `if`. Any error means that
/// nothing usable does.
///
/// Cancelling it has no effect.
pub(crate) async fn probe(request: &Request<'_>, path: Vec<u8>) -> Result<Probed, Errno> {
    let policy = policy(request);
    lookup::probe(path, policy).await
}

/// Where this location's `root` or `alias` puts a URI.
///
/// # Errors
/// 500 if an `alias` is asked for a URI that is not the location's, 404 if the
/// path would leave the root. The log has been told.
pub(crate) fn path_of(request: &Request<'_>, uri: &[u8]) -> Result<Vec<u8>, Failure> {
    path::of_uri(request, uri).map(|path| path.full)
}

/// What `gzip_static` has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coded {
    /// No compressed file, or none was looked for.
    None,
    /// One that this client does not take.
    There,
    Sent,
}

/// `gzip_static`: `FILE.gz` in the place of `FILE`.
async fn send_coded<S: ResponseSink>(
    request: &mut Request<'_>,
    path: &FilePath,
    sink: &mut S,
) -> Result<Coded, Failure> {
    let Some(gzip) = &request.location.gzip else {
        return Ok(Coded::None);
    };
    let is_asked_for =
        gzip.files != GzipFiles::Off && matches!(request.method(), Method::Get | Method::Head);
    let accepted = gzip.files == GzipFiles::Always || gzip::is_accepted(request, gzip);
    if !is_asked_for || !(accepted || gzip.vary) {
        return Ok(Coded::None);
    }
    let varies = gzip.files == GzipFiles::On && gzip.vary;
    let path = FilePath {
        full: [path.full.as_slice(), b".gz"].concat(),
    };
    let opened = match lookup::open(path.full.clone(), policy(request)).await {
        Ok(opened) if opened.kind == Kind::File => opened,
        // Whatever is wrong with it, the file itself is still to be had.
        _ => return Ok(Coded::None),
    };
    if !accepted {
        return Ok(Coded::There);
    }
    let form = Form::Coded { varies };
    send::file(request, opened, &path, form, sink).await?;
    Ok(Coded::Sent)
}

async fn folder<S: ResponseSink>(
    request: &mut Request<'_>,
    path: FilePath,
    sink: &mut S,
) -> Result<Content, Failure> {
    let files: &Files = &request.location.files;
    let mut names = Vec::with_capacity(files.index.len());
    let mut fallback = None;
    for index in &files.index {
        let name = expand_to_vec(index, request);
        if name.starts_with(b"/") {
            fallback = Some(name);
            break;
        }
        path::check(request, &name)?;
        names.push(name);
    }
    let candidates = names
        .iter()
        .map(|name| [path.full.as_slice(), name].concat())
        .collect();
    match lookup::index(candidates, path.full.clone(), policy(request)).await {
        Index::Found(position) => {
            let name = names.get(position).map_or(&[][..], Vec::as_slice);
            return Ok(Content::Redirect([request.path(), name].concat()));
        }
        Index::None => {}
        Index::Failed(position, errno) => {
            let name = names.get(position).map_or(&[][..], Vec::as_slice);
            let full = [path.full.as_slice(), name].concat();
            return Err(index_failed(request, &full, errno));
        }
    }
    if let Some(fallback) = fallback {
        return Ok(Content::Redirect(fallback));
    }
    if let Some(options) = files.autoindex
        && request.method() != Method::Post
    {
        autoindex::send(request, &path, options, sink).await?;
        return Ok(Content::Sent);
    }
    let name = String::from_utf8_lossy(&path.full);
    log::request_error(
        request,
        Level::Error,
        format_args!("directory index of \"{name}\" is forbidden"),
    );
    Err(Failure::Status(403))
}

/// Opens a file or says why not, in Nginx's words.
async fn open(request: &Request<'_>, path: &FilePath) -> Result<Opened, Failure> {
    match lookup::open(path.full.clone(), policy(request)).await {
        Ok(opened) => Ok(opened),
        Err(errno) => Err(failed(request, "open()", &path.full, errno)),
    }
}

fn failed(request: &Request<'_>, call: &str, path: &[u8], errno: Errno) -> Failure {
    let (level, status) = match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => (Level::Error, 404),
        Errno::ACCESS | Errno::LOOP | Errno::MLINK => (Level::Error, 403),
        _ => (Level::Crit, 500),
    };
    if status != 404 || request.location.log_not_found {
        let path = String::from_utf8_lossy(path);
        // Where permissions look right, this is why.
        let landlock = errno == Errno::ACCESS && request.view.gateway.config.core.landlock;
        let hint = if landlock {
            "; links that lead out of \"root\" are not followed, see \"landlock\""
        } else {
            ""
        };
        log::request_error(
            request,
            level,
            format_args!("{call} \"{path}\" failed {}{hint}", Described(errno)),
        );
    }
    Failure::Status(status)
}

fn index_failed(request: &Request<'_>, path: &[u8], errno: Errno) -> Failure {
    let path = String::from_utf8_lossy(path);
    let (status, what) = match errno {
        Errno::ACCESS | Errno::LOOP | Errno::MLINK => (403, "forbidden"),
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => (404, "not found"),
        _ => return failed(request, "open()", path.as_bytes(), errno),
    };
    if status != 404 || request.location.log_not_found {
        log::request_error(
            request,
            Level::Error,
            format_args!("\"{path}\" is {what} {}", Described(errno)),
        );
    }
    Failure::Status(status)
}

/// `(2: No such file or directory)`.
struct Described(Errno);

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = std::io::Error::from(self.0);
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        write!(f, "({}: {text})", self.0.raw_os_error())
    }
}

/// The location's rule on symbolic links, for this request.
fn policy(request: &Request<'_>) -> Policy {
    use crate::config::Symlinks;
    let unchecked = |from: &crate::config::SymlinksFrom| {
        from.as_ref()
            .map(|from| expand_to_vec(from, request))
            .unwrap_or_default()
    };
    match &request.location.files.symlinks {
        Symlinks::Allowed => Policy::Follow,
        Symlinks::Denied(from) => Policy::Refuse(unchecked(from)),
        Symlinks::SameOwner(from) => Policy::SameOwner(unchecked(from)),
    }
}
