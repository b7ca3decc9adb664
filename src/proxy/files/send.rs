//! A file on its way to the client: conditions, ranges, head, body.

use std::ops::Range;

use crate::http::date::imf_fixdate;
use crate::http::error::{error_page, wire_status};
use crate::http::h1::encode::{Sink, decimal};
use crate::http::head::{FieldId, Method};
use crate::net::buffers::{Buffer, Class, Segments};
use crate::net::file::File;
use crate::net::socket::Behind;
use crate::proxy::exchange::{BodySize, ResponseSink};
use crate::proxy::forward::Failure;
use crate::proxy::gzip::Plan;
use crate::proxy::log;
use crate::proxy::request::Request;
use crate::proxy::respond::{self, Precedence};
use crate::proxy::transport::TransportError;
use crate::proxy::variables::put_display;
use crate::telemetry::error_log::Level;

use super::conditional::{self, Verdict};
use super::content_type::{self, with_charset};
use super::lookup::Opened;
use super::path::FilePath;
use super::ranges::{self, Asked};

/// Up to this many bytes a file is read into one buffer, and the smallest of
/// them leave together with their head.
const SMALL: u64 = 16 << 10;

/// What `gzip_static` makes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing.
    Plain,
    /// It lies compressed beside it, too: which one is sent depends on the
    /// client.
    OneOfTwo,
    /// It is the compressed one.
    Coded { varies: bool },
}

/// Answers with a file.
///
/// # Errors
/// 412, or what reading and sending say; the log has been told.
pub(super) async fn file<S: ResponseSink>(
    request: &mut Request<'_>,
    opened: Opened,
    path: &FilePath,
    form: Form,
    sink: &mut S,
) -> Result<(), Failure> {
    let etag = request
        .location
        .files
        .etag
        .then(|| etag(opened.modified, opened.size));
    let content_type = content_type::of_path(request);
    let content_type = match respond::carried_type(request) {
        Some(carried) => carried,
        None => with_charset(request, &content_type).into_owned(),
    };
    let is_coded = matches!(form, Form::Coded { .. });
    let is_compressed = !is_coded && Plan::takes_file(request, &content_type, opened.size);
    // What is fetched in the place of an error has the error's status, and is
    // sent whole: the client's conditions and ranges are not about it.
    let whole = wire_status(request.final_status(200));
    let verdict = match whole {
        200 => conditional::judge(request, Some(opened.modified), etag.as_deref()),
        _ => Verdict::Send,
    };
    let asked = match verdict {
        Verdict::Failed => return Err(Failure::Status(412)),
        Verdict::NotModified => None,
        // A part of what is compressed cannot be had.
        Verdict::Send if whole != 200 || is_coded || is_compressed => Some(Asked::Whole),
        Verdict::Send => Some(asked_for(
            request,
            opened.size,
            opened.modified,
            etag.as_deref(),
        )),
    };
    let bounds;
    let (status, parts) = match asked {
        None => (304, Vec::new()),
        Some(Asked::Whole) => (whole, std::iter::once(0..opened.size).collect()),
        Some(Asked::Parts(parts)) => (206, parts),
        Some(Asked::Unsatisfiable) => return unsatisfiable(request, opened.size, sink).await,
    };
    request.answer.status = status;
    respond::start(request, sink, status);
    match (status, parts.as_slice()) {
        (204 | 304, _) => bounds = Vec::new(),
        (_, [_]) => {
            bounds = Vec::new();
            put_content_type(request, sink, &content_type);
        }
        _ => {
            let boundary = boundary(request);
            let mut value = b"multipart/byteranges; boundary=".to_vec();
            value.extend_from_slice(&boundary);
            respond::put_field(request, sink, b"Content-Type", &value);
            bounds = part_heads(&parts, opened.size, &boundary, &content_type);
        }
    }
    let date = imf_fixdate(u64::try_from(opened.modified).unwrap_or(0));
    // As in Nginx the time of an error's page is nobody's business.
    if matches!(status, 200 | 204 | 206 | 304) {
        put_unless_added(request, sink, status, FieldId::LastModified, &date);
    }
    if let Some(etag) = &etag {
        put_unless_added(request, sink, status, FieldId::ETag, etag);
    }
    if is_coded && status != 304 {
        respond::put_field(request, sink, b"Content-Encoding", b"gzip");
    }
    let varies = match form {
        Form::Plain => status == 206 && Plan::varies(request, &content_type, opened.size),
        Form::OneOfTwo => true,
        Form::Coded { varies } => varies,
    };
    if varies {
        respond::put_field(request, sink, b"Vary", b"Accept-Encoding");
    }
    match (status, parts.as_slice()) {
        (200, _) if request.location.files.max_ranges > 0 && !is_coded => {
            respond::put_field(request, sink, b"Accept-Ranges", b"bytes");
        }
        (206, [part]) => {
            let mut value = Vec::new();
            put_content_range(&mut value, part, opened.size);
            respond::put_field(request, sink, b"Content-Range", &value);
        }
        _ => {}
    }
    respond::add_headers_after(request, sink, status, &[], Some(opened.modified));
    let length = parts
        .iter()
        .map(|part| part.end - part.start)
        .chain(bounds.iter().map(|bound| bound.len() as u64))
        .sum();
    if matches!(status, 204 | 304) {
        sink.end_head(BodySize::None);
    } else if request.method() == Method::Head {
        sink.end_head(BodySize::Announced(length));
    } else {
        sink.end_head(BodySize::Known(length));
        let file = File::adopt(opened.file).map_err(|_| Failure::Aborted)?;
        let mut bounds = bounds.iter();
        for part in parts {
            if let Some(head) = bounds.next() {
                sink.write(head).await.map_err(|e| gone(request, &e))?;
            }
            body(request, &file, path, part, sink).await?;
        }
        if let Some(end) = bounds.next() {
            sink.write(end).await.map_err(|e| gone(request, &e))?;
        }
    }
    respond::add_trailers(request, sink);
    sink.finish().await.map_err(|e| gone(request, &e))
}

/// Nginx's form: time and size, hexadecimal.
fn etag(modified: i64, size: u64) -> Vec<u8> {
    format!("\"{modified:x}-{size:x}\"").into_bytes()
}

/// What Range and If-Range ask for.
fn asked_for(request: &Request<'_>, size: u64, modified: i64, etag: Option<&[u8]>) -> Asked {
    let bytes = request.head_bytes();
    let max = request.location.files.max_ranges;
    let Some(range) = request.head.field(bytes, FieldId::Range) else {
        return Asked::Whole;
    };
    if max == 0 {
        return Asked::Whole;
    }
    if let Some(condition) = request.head.field(bytes, FieldId::IfRange) {
        let holds = if condition.len() >= 2 && condition.ends_with(b"\"") {
            etag == Some(condition)
        } else {
            crate::http::date::parse_date(condition) == Some(modified)
        };
        if !holds {
            return Asked::Whole;
        }
    }
    ranges::parse(range, size, max)
}

async fn unsatisfiable<S: ResponseSink>(
    request: &mut Request<'_>,
    size: u64,
    sink: &mut S,
) -> Result<(), Failure> {
    const STATUS: u16 = 416;
    request.answer.status = STATUS;
    let mut page = Vec::new();
    error_page(
        STATUS,
        Some(respond::server_line(request.location)),
        &mut page,
    );
    respond::start(request, sink, STATUS);
    let content_type = with_charset(request, b"text/html").into_owned();
    put_content_type(request, sink, &content_type);
    let mut value = b"bytes */".to_vec();
    decimal(&mut value, size);
    respond::put_field(request, sink, b"Content-Range", &value);
    respond::add_headers(request, sink, STATUS);
    if request.method() == Method::Head {
        sink.end_head(BodySize::Announced(page.len() as u64));
    } else {
        sink.end_head(BodySize::Known(page.len() as u64));
        sink.write(&page).await.map_err(|e| gone(request, &e))?;
    }
    respond::add_trailers(request, sink);
    sink.finish().await.map_err(|e| gone(request, &e))
}

fn put_content_type(request: &mut Request<'_>, sink: &mut impl ResponseSink, content_type: &[u8]) {
    if !content_type.is_empty() {
        respond::put_field(request, sink, b"Content-Type", content_type);
    }
}

/// A field that `add_header` may take the place of.
fn put_unless_added(
    request: &mut Request<'_>,
    sink: &mut impl ResponseSink,
    status: u16,
    id: FieldId,
    value: &[u8],
) {
    let name: &[u8] = match id {
        FieldId::ETag => b"ETag",
        _ => b"Last-Modified",
    };
    if respond::precedence(request.location, status, id) == Precedence::Backend {
        respond::put_field(request, sink, name, value);
    }
}

fn put_content_range(out: &mut Vec<u8>, part: &Range<u64>, size: u64) {
    put_display(
        out,
        format_args!("bytes {}-{}/{size}", part.start, part.end - 1),
    );
}

/// A line that no file is likely to hold: what makes requests distinct here
/// also parts the ranges.
fn boundary(request: &Request<'_>) -> [u8; 20] {
    let mut boundary = [b'0'; 20];
    let id = request.id.get_or_init(crate::proxy::variables::random_id);
    for (place, byte) in boundary.iter_mut().zip(id) {
        *place = *byte;
    }
    boundary
}

/// What stands before each part and behind the last.
fn part_heads(
    parts: &[Range<u64>],
    size: u64,
    boundary: &[u8],
    content_type: &[u8],
) -> Vec<Vec<u8>> {
    let mut heads: Vec<_> = parts
        .iter()
        .map(|part| {
            let mut head = b"\r\n--".to_vec();
            head.put(boundary);
            if !content_type.is_empty() {
                head.put(b"\r\nContent-Type: ");
                head.put(content_type);
            }
            head.put(b"\r\nContent-Range: ");
            put_content_range(&mut head, part, size);
            head.put(b"\r\n\r\n");
            head
        })
        .collect();
    heads.push([b"\r\n--", boundary, b"--\r\n"].concat());
    heads
}

/// Sends a part of the file, in pieces of at most 64 KiB.
async fn body<S: ResponseSink>(
    request: &Request<'_>,
    file: &File,
    path: &FilePath,
    part: Range<u64>,
    sink: &mut S,
) -> Result<(), Failure> {
    let mut at = part.start;
    let left = |at: u64| usize::try_from(part.end - at).unwrap_or(usize::MAX);
    if part.end - at > SMALL
        && let Some(gaps) = sink.segment_gaps()
    {
        let mut segments = Segments::take(gaps);
        while at < part.end {
            let (result, filled) = file.read_segments(segments, left(at), at).await;
            let read = read_or_cut(request, path, result, at)?;
            at += read as u64;
            segments = sink
                .segments(filled, read, Behind::more_if(at < part.end))
                .await
                .map_err(|e| gone(request, &e))?;
        }
        return Ok(());
    }
    let class = if part.end - at > SMALL {
        Class::Large
    } else {
        Class::Medium
    };
    let mut buffer = Buffer::take(class);
    while at < part.end {
        let range = 0..buffer.len().min(left(at));
        let (result, back) = file.read(buffer, range, at).await;
        let read = read_or_cut(request, path, result, at)?;
        let data = back.get(..read).unwrap_or_default();
        sink.write(data).await.map_err(|e| gone(request, &e))?;
        buffer = back;
        at += read as u64;
    }
    Ok(())
}

/// A file that has become shorter than its head said leaves a response that
/// nothing but the end of the connection can end.
fn read_or_cut(
    request: &Request<'_>,
    path: &FilePath,
    result: std::io::Result<usize>,
    at: u64,
) -> Result<usize, Failure> {
    let path = || String::from_utf8_lossy(&path.full);
    match result {
        Ok(0) => {
            log::request_error(
                request,
                Level::Alert,
                format_args!("\"{}\" was truncated at {at} while it was sent", path()),
            );
            Err(Failure::Aborted)
        }
        Ok(read) => Ok(read),
        Err(error) => {
            let errno = super::lookup::errno_of(&error);
            log::request_error(
                request,
                Level::Crit,
                format_args!("read() \"{}\" failed {}", path(), super::Described(errno)),
            );
            Err(Failure::Aborted)
        }
    }
}

/// The client takes no more.
pub(super) fn gone(request: &Request<'_>, error: &TransportError) -> Failure {
    match error {
        TransportError::TimedOut => log::request_error(
            request,
            Level::Info,
            format_args!("client timed out (110: Connection timed out) while sending to client"),
        ),
        error => log::request_error(
            request,
            Level::Info,
            format_args!("send() {error} while sending to client"),
        ),
    }
    Failure::Aborted
}
