//! `autoindex`: a list of a folder, in Nginx's HTML or JSON. It is made on a
//! thread beside the workers, because a folder can be large and its disk slow.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::{Errno, Result};

use crate::config::{AutoIndex, AutoIndexFormat};
use crate::http::date::imf_fixdate;
use crate::http::error::wire_status;
use crate::http::head::Method;
use crate::net::offload::offload;
use crate::proxy::exchange::{BodySize, ResponseSink};
use crate::proxy::forward::Failure;
use crate::proxy::request::Request;
use crate::proxy::respond;
use crate::telemetry::access_log::escape_json;
use crate::telemetry::clock::local_offset;

use super::conditional::{self, Verdict};
use super::content_type::with_charset;
use super::lookup::{Kind, errno_of};
use super::path::FilePath;
use super::send::gone;

/// Columns that a name takes up in the list.
const NAME_WIDTH: usize = 50;

/// Answers with the list of a folder.
///
/// # Errors
/// A folder that cannot be read; the log has been told.
pub(super) async fn send<S: ResponseSink>(
    request: &mut Request<'_>,
    path: &FilePath,
    options: AutoIndex,
    sink: &mut S,
) -> std::result::Result<(), Failure> {
    let plain: &[u8] = match options.format {
        AutoIndexFormat::Html => b"text/html",
        AutoIndexFormat::Json => b"application/json",
    };
    let content_type = with_charset(request, plain).into_owned();
    let look = Look {
        options,
        uri: request.path().to_vec(),
        counts_characters: content_type.to_ascii_lowercase().ends_with(b"=utf-8"),
        offset: if options.local_time {
            local_offset(request.worker.clock.borrow().unix_ms() / 1000).into()
        } else {
            0
        },
    };
    // Nginx opens the folder without its last slash, and names it so.
    let folder = match path.full.as_slice() {
        [rest @ .., b'/'] if !rest.is_empty() => rest.to_vec(),
        all => all.to_vec(),
    };
    let opened = folder.clone();
    let made = offload(move || read(&folder).map(|entries| look.list(entries))).await;
    let list = match made.unwrap_or_else(|error| Err(errno_of(&error))) {
        Ok(list) => list,
        Err(errno) => return Err(super::failed(request, "opendir()", &opened, errno)),
    };
    let status = wire_status(request.final_status(200));
    match conditional::judge(request, None, None) {
        Verdict::Send => {}
        _ if status != 200 => {}
        Verdict::Failed => return Err(Failure::Status(412)),
        Verdict::NotModified => {
            let sent = respond::fixed(request, 304, b"", b"", None, sink).await;
            return sent.map_err(|e| gone(request, &e));
        }
    }
    request.answer.status = status;
    respond::start(request, sink, status);
    respond::put_field(request, sink, b"Content-Type", &content_type);
    respond::add_headers(request, sink, status);
    sink.end_head(BodySize::Unknown);
    if request.method() != Method::Head {
        sink.write(&list).await.map_err(|e| gone(request, &e))?;
    }
    respond::add_trailers(request, sink);
    sink.finish().await.map_err(|e| gone(request, &e))
}

struct Entry {
    name: Vec<u8>,
    kind: Kind,
    size: u64,
    modified: i64,
}

/// What a folder holds, less what is hidden: folders first, then by name.
fn read(folder: &[u8]) -> Result<Vec<Entry>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, OsStr::from_bytes(folder), flags, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes().starts_with(b".") {
            continue;
        }
        // A link that leads nowhere is listed as itself.
        let seen = match statat(&fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW),
            seen => seen,
        };
        let stat = match seen {
            Ok(stat) => stat,
            // Gone meanwhile, or none of the client's business.
            Err(_) => continue,
        };
        entries.push(Entry {
            name: name.to_bytes().to_vec(),
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Folder,
                _ => Kind::Other,
            },
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: stat.st_mtime,
        });
    }
    entries.sort_by(|a, b| {
        let rank = |entry: &Entry| entry.kind != Kind::Folder;
        (rank(a), &a.name).cmp(&(rank(b), &b.name))
    });
    Ok(entries)
}

/// How a list is to look.
struct Look {
    options: AutoIndex,
    uri: Vec<u8>,
    /// Names are measured in characters of UTF-8 and not in bytes.
    counts_characters: bool,
    /// Of the times, seconds east of Greenwich.
    offset: i64,
}

impl Look {
    fn list(&self, entries: Vec<Entry>) -> Vec<u8> {
        match self.options.format {
            AutoIndexFormat::Html => self.html(&entries),
            AutoIndexFormat::Json => json(&entries),
        }
    }

    fn html(&self, entries: &[Entry]) -> Vec<u8> {
        let mut out = b"<html>\r\n<head><title>Index of ".to_vec();
        escape_html(&mut out, &self.uri);
        out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
        escape_html(&mut out, &self.uri);
        out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
        for entry in entries {
            let folder: &[u8] = if entry.kind == Kind::Folder {
                b"/"
            } else {
                b""
            };
            out.extend_from_slice(b"<a href=\"");
            escape_component(&mut out, &entry.name);
            out.extend_from_slice(folder);
            out.extend_from_slice(b"\">");
            self.name(&mut out, &entry.name, folder);
            let mut text = String::new();
            // Writing to a String cannot fail.
            let _ = write!(text, " {} {}\r\n", self.time(entry), self.size(entry));
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
        out
    }

    /// The name in its column, cut where it is too long.
    fn name(&self, out: &mut Vec<u8>, name: &[u8], folder: &[u8]) {
        let text = std::str::from_utf8(name)
            .ok()
            .filter(|_| self.counts_characters);
        let width = text.map_or(name.len(), |text| text.chars().count());
        if width > NAME_WIDTH {
            let kept = NAME_WIDTH - "..>".len();
            let end = text.map_or(kept, |text| {
                text.char_indices()
                    .nth(kept)
                    .map_or(text.len(), |(at, _)| at)
            });
            escape_html(out, name.get(..end).unwrap_or(name));
            out.extend_from_slice(b"..&gt;</a>");
            return;
        }
        escape_html(out, name);
        let folder = if width < NAME_WIDTH { folder } else { b"" };
        out.extend_from_slice(folder);
        out.extend_from_slice(b"</a>");
        let padding = NAME_WIDTH - width - folder.len();
        out.extend(std::iter::repeat_n(b' ', padding));
    }

    /// `20-Nov-2026 18:00`.
    fn time(&self, entry: &Entry) -> String {
        let shown = entry.modified.saturating_add(self.offset);
        let date = imf_fixdate(u64::try_from(shown).unwrap_or(0));
        // `Fri, 20 Nov 2026 18:00:00 GMT`
        let date = String::from_utf8_lossy(&date);
        let words: Vec<_> = date.split([' ', ':']).collect();
        match words.as_slice() {
            [_, day, month, year, hour, minute, ..] => {
                format!("{day}-{month}-{year} {hour}:{minute}")
            }
            _ => String::new(),
        }
    }

    fn size(&self, entry: &Entry) -> String {
        match (self.options.exact_size, entry.kind) {
            (true, Kind::Folder) => format!("{:>19}", "-"),
            (true, _) => format!("{:>19}", entry.size),
            (false, Kind::Folder) => format!("{:>7}", "-"),
            (false, _) => format!("{:>7}", rounded(entry.size)),
        }
    }
}

/// Up to 9999 as it is, then in whole units, halves rounded up.
fn rounded(size: u64) -> String {
    const UNITS: [(u64, char); 3] = [(30, 'G'), (20, 'M'), (10, 'K')];
    for (shift, letter) in UNITS {
        let unit = 1u64 << shift;
        if size >= unit && (letter != 'K' || size > 9999) {
            return format!("{}{letter}", (size + unit / 2) >> shift);
        }
    }
    size.to_string()
}

fn json(entries: &[Entry]) -> Vec<u8> {
    let mut out = b"[\r\n".to_vec();
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",\r\n");
        }
        out.extend_from_slice(b"{ \"name\":\"");
        escape_json(&mut out, &entry.name);
        out.extend_from_slice(b"\", \"type\":\"");
        out.extend_from_slice(match entry.kind {
            Kind::File => b"file",
            Kind::Folder => b"directory",
            Kind::Other => b"other",
        });
        out.extend_from_slice(b"\", \"mtime\":\"");
        out.extend_from_slice(&imf_fixdate(u64::try_from(entry.modified).unwrap_or(0)));
        out.push(b'"');
        if entry.kind == Kind::File {
            out.extend_from_slice(format!(", \"size\":{}", entry.size).as_bytes());
        }
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    out
}

fn escape_html(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            byte => out.push(*byte),
        }
    }
}

/// Everything but what RFC 3986 calls unreserved.
fn escape_component(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_nginx_rounds_them() {
        for (size, text) in [
            (0, "0"),
            (9999, "9999"),
            (10_000, "10K"),
            (20_000, "20K"),
            ((1 << 20) - 1, "1024K"),
            (1 << 20, "1M"),
            ((1 << 20) + (1 << 19), "2M"),
            (1 << 30, "1G"),
        ] {
            assert_eq!(rounded(size), text);
        }
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_list() {
        let entries = [Entry {
            name: b"\"><script>&%.html".to_vec(),
            kind: Kind::File,
            size: 1,
            modified: 0,
        }];
        let look = Look {
            options: AutoIndex {
                format: AutoIndexFormat::Html,
                exact_size: true,
                local_time: false,
            },
            uri: b"/<a>/".to_vec(),
            counts_characters: true,
            offset: 0,
        };
        let html = String::from_utf8(look.html(&entries)).unwrap();
        assert!(
            !html.contains("<script>") && !html.contains("<a>"),
            "{html}"
        );
        assert!(
            html.contains("href=\"%22%3E%3Cscript%3E%26%25.html\""),
            "{html}"
        );
        assert!(
            html.contains("01-Jan-1970 00:00                   1\r\n"),
            "{html}"
        );
    }
}
