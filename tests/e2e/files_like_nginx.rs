//! The same requests for the same files to Debian's Nginx and to ringwall,
//! under the same configuration: status, fields and body are the same. What
//! is meant to differ is listed with its reason.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::client::Connection;
use crate::support::nginx::Nginx;
use crate::support::patterned;
use crate::support::ringwall::{Site, http};

/// Targets where ringwall does not do what Nginx does, and why.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "/i../secret.txt",
        "an alias without a final slash in its location's name lets Nginx leave the root",
    ),
    (
        "/i../",
        "the same, for the list of the folder above the root",
    ),
    (
        "/static/only.css",
        "a page about a file that is only there compressed does not say Vary",
    ),
];

const SERVER: &str = "\
types { text/html html; text/plain txt; text/css css; image/png png; application/x-z gz; }
default_type application/octet-stream;
server { listen 127.0.0.1:@HTTP@; root @DIR@/www/;
  location /list/ { autoindex on; charset utf-8; }
  location /brief/ { alias @DIR@/www/list/; autoindex on; autoindex_exact_size off; autoindex_localtime on; }
  location /json/ { alias @DIR@/www/list/; autoindex on; autoindex_format json; }
  location = /gif { empty_gif; expires max; }
  location /al/ { alias @DIR@/www/sub/; }
  location /noslash { alias @DIR@/www/sub; }
  location /i { alias @DIR@/www/sub/; autoindex on; }
  location = /single { alias @DIR@/www/a.txt; }
  location ~ ^/re/(.+)$ { alias @DIR@/www/$1; }
  location /root/ { root @DIR@/www/$arg_r; }
  location /nested/ { alias @DIR@/www/; location /nested/sub/ { index other.txt; } }
  location /index/ { alias @DIR@/www/; index none $arg_i a.txt; }
  location /fallback/ { index none.html /a.txt; }
  location /before/ { alias @DIR@/www/; if_modified_since before; }
  location /off/ { alias @DIR@/www/; if_modified_since off; etag off; max_ranges 0; }
  location /one/ { alias @DIR@/www/; max_ranges 1; }
  location /charset/ { alias @DIR@/www/; charset koi8-r; charset_types text/css; }
  location /links/ { alias @DIR@/www/; disable_symlinks on from=@DIR@/www; }
  location /owner/ { alias @DIR@/www/; disable_symlinks if_not_owner; }
  location /expires/ { alias @DIR@/www/; expires modified 1h; add_header X-A b; add_header ETag changed; }
  location /page/ { alias @DIR@/www/sub/; error_page 404 /page.html; error_page 403 =200 /a.txt; }
  location /gzip/ { alias @DIR@/www/; gzip on; gzip_types text/plain; gzip_vary on; gzip_min_length 10; gzip_proxied no_etag private; }
  location /static/ { alias @DIR@/www/; gzip_static on; gzip_vary on; }
  location /always/ { alias @DIR@/www/; gzip_static always; }
}";

const TARGETS: &[&str] = &[
    "/",
    "/a.txt",
    "/a.txt?x=y",
    "/a.txt/",
    "/a.txt/b",
    "/A.TXT",
    "/%61.txt",
    "/./a.txt",
    "/sub/../a.txt",
    "//a.txt",
    "/none",
    "/none/",
    "/sub",
    "/sub?x=y%20z",
    "/sub/",
    "/sub/deep",
    "/sub/deep/",
    "/s%20p%3Fc",
    "/s%20p%3Fc/",
    "/.hidden",
    "/noextension",
    "/x.unknown",
    "/UPPER.HTML",
    "/.html",
    "/large",
    "/empty.txt",
    "/list/",
    "/list",
    "/list/none/",
    "/brief/",
    "/json/",
    "/al/other.txt",
    "/al/",
    "/al",
    "/al/../a.txt",
    "/al/deep",
    "/noslash/other.txt",
    "/noslash",
    "/noslash/",
    "/i/other.txt",
    "/i../secret.txt",
    "/i../",
    "/single",
    "/re/a.txt",
    "/re/sub",
    "/re/sub/",
    "/re/none",
    "/root/x.txt?r=sub",
    "/root/x.txt?r=none",
    "/nested/a.txt",
    "/nested/sub/",
    "/nested/sub",
    "/index/?i=b.css",
    "/index/?i=none",
    "/index/?i=/a.txt",
    "/index/sub/?i=none",
    "/fallback/",
    "/fallback/sub/",
    "/before/a.txt",
    "/off/a.txt",
    "/one/a.txt",
    "/charset/a.txt",
    "/charset/b.css",
    "/charset/index.html",
    "/links/a.txt",
    "/links/link.txt",
    "/links/folder/other.txt",
    "/links/folder/",
    "/owner/link.txt",
    "/expires/a.txt",
    "/expires/none",
    "/page/none",
    "/page/deep/",
    "/page/other.txt",
    "/gzip/a.txt",
    "/gzip/b.css",
    "/gzip/large.txt",
    "/gzip/empty.txt",
    "/gzip/none",
    "/static/b.css",
    "/static/a.txt",
    "/static/only.css",
    "/always/only.css",
    "/link.txt",
    "/dangling",
    "/gif",
];

/// Fields, and to which targets they go: those that begin so.
const FIELDS: &[(&str, &str)] = &[
    ("", "/"),
    ("Accept-Encoding: gzip\r\n", "/"),
    ("Accept-Encoding: gzip;q=0\r\n", "/gzip/"),
    ("Accept-Encoding: gzip\r\nVia: 1.1 x\r\n", "/gzip/"),
    ("Accept-Encoding: gzip\r\nVia: 1.1 x\r\n", "/static/"),
    ("Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n", "/gzip/"),
    ("Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n", "/static/"),
    ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "/"),
    (
        "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n",
        "/a.txt",
    ),
    ("If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", "/a.txt"),
    (
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
        "/a.txt",
    ),
    (
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
        "/before/",
    ),
    (
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
        "/before/",
    ),
    ("If-Modified-Since: x\r\n", "/a.txt"),
    (
        "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "/a.txt",
    ),
    (
        "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
        "/a.txt",
    ),
    (
        "If-Modified-Since: Mon, 28 Sep 1970 06:00:00 GMT\r\n",
        "/gif",
    ),
    ("If-Unmodified-Since: x\r\n", "/a.txt"),
    ("If-None-Match: *\r\n", "/"),
    ("If-None-Match: \"2ebc98a1-a\"\r\n", "/a.txt"),
    ("If-None-Match: W/\"2ebc98a1-a\"\r\n", "/a.txt"),
    ("If-None-Match: \"x\", \"2ebc98a1-a\"\r\n", "/a.txt"),
    (
        "If-None-Match: \"x\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "/a.txt",
    ),
    ("If-Match: \"2ebc98a1-a\"\r\n", "/a.txt"),
    ("If-Match: W/\"2ebc98a1-a\"\r\n", "/a.txt"),
    ("If-Match: \"x\"\r\n", "/a.txt"),
    ("If-Match: *\r\n", "/off/"),
    ("Range: bytes=0-0\r\n", "/"),
    ("Range: bytes=2-4\r\n", "/a.txt"),
    ("Range: bytes=2-\r\n", "/a.txt"),
    ("Range: bytes=-3\r\n", "/a.txt"),
    ("Range: bytes=-0\r\n", "/a.txt"),
    ("Range: bytes=-99\r\n", "/a.txt"),
    ("Range: bytes=0-99\r\n", "/a.txt"),
    ("Range: bytes=10-\r\n", "/a.txt"),
    ("Range: bytes=4-2\r\n", "/a.txt"),
    ("Range: bytes=4-2,1-1\r\n", "/a.txt"),
    ("Range: bytes=0-1,4-5\r\n", "/a.txt"),
    ("Range: bytes=0-1,4-5\r\n", "/one/"),
    ("Range: bytes=0-1,4-5\r\n", "/charset/"),
    ("Range: bytes=8-9,0-1\r\n", "/a.txt"),
    ("Range: bytes=0-8,1-9\r\n", "/a.txt"),
    ("Range: bytes= 1 - 2 , 4-5\r\n", "/a.txt"),
    ("Range: bytes=1-2,\r\n", "/a.txt"),
    ("Range: bytes=\r\n", "/a.txt"),
    ("Range: bytes=x\r\n", "/a.txt"),
    ("Range: items=0-1\r\n", "/a.txt"),
    ("Range: bytes=99999999999999999999-\r\n", "/a.txt"),
    ("Range: bytes=0-0\r\nIf-Range: \"2ebc98a1-a\"\r\n", "/a.txt"),
    ("Range: bytes=0-0\r\nIf-Range: \"x\"\r\n", "/a.txt"),
    (
        "Range: bytes=0-0\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "/a.txt",
    ),
    (
        "Range: bytes=0-0\r\nIf-Range: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
        "/a.txt",
    ),
    ("Range: bytes=70000-140000\r\n", "/large"),
    ("Range: bytes=0-99,70000-140000\r\n", "/large"),
];

#[test]
fn files_are_answered_as_nginx_answers_them() {
    let mut site = Site::new();
    prepare(&site);
    // One folder, two servers; each writes logs of its own.
    let nginx = Nginx::start(&mut site, &SERVER.replace("@HTTP@", "@NGINX@"));
    let ringwall = site.start(&http(SERVER));
    let ours = ringwall.address("HTTP");
    let mut compared = 0;
    let mut differing = BTreeSet::new();
    let mut unexpected = Vec::new();
    for target in TARGETS {
        for method in ["GET", "HEAD", "POST", "PUT"] {
            for (fields, prefix) in FIELDS {
                let is_plain = fields.is_empty();
                if !target.starts_with(prefix) || (!is_plain && matches!(method, "POST" | "PUT")) {
                    continue;
                }
                compared += 1;
                let expected = answer(nginx.address(), method, target, fields);
                let answered = answer(ours, method, target, fields);
                if expected == answered {
                    continue;
                }
                if ACCEPTED.iter().any(|(accepted, _)| accepted == target) {
                    differing.insert(*target);
                } else {
                    unexpected.push(format!(
                        "{method} {target} {fields:?}\n  Nginx:    {expected}\n  ringwall: {answered}"
                    ));
                }
            }
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    assert!(compared > 700, "{compared}");
    let listed: BTreeSet<_> = ACCEPTED.iter().map(|(target, _)| *target).collect();
    assert_eq!(differing, listed, "what is listed as differing does differ");
}

fn prepare(site: &Site) {
    let www = site.file("www");
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut coder, b"compressed").expect("memory");
    let coded = coder.finish().expect("memory");
    let large = patterned(200_000);
    let files: &[(&str, &[u8])] = &[
        ("a.txt", b"0123456789"),
        ("b.css", b"body { margin: 0; padding: 0; }"),
        ("b.css.gz", &coded),
        ("only.css.gz", &coded),
        ("index.html", b"<p>top"),
        ("page.html", b"<p>no such page"),
        ("empty.txt", b""),
        ("noextension", b"x"),
        ("x.unknown", b"x"),
        ("UPPER.HTML", b"x"),
        (".hidden", b"hidden"),
        (".html", b"x"),
        ("large", &large),
        ("large.txt", &large),
        ("secret.txt", b"secret"),
        ("sub/other.txt", b"other"),
        ("sub/x.txt", b"x"),
        ("sub/deep/y.txt", b"y"),
        ("sub/root/x.txt", b"by argument"),
        ("s p?c/index.html", b"<p>odd name"),
        ("list/b.txt", b"12345"),
        ("list/sub/x", b""),
        ("list/a:b\"q'.txt", b"x"),
        ("list/\u{e4}<b>&c.txt", b"x"),
        ("list/.hidden", b"x"),
        (
            "list/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.txt",
            b"x",
        ),
        (
            "list/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"x",
        ),
        (
            "list/\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
            b"x",
        ),
        ("list/big.bin", &large),
        ("fallback/sub/x", b""),
    ];
    for (name, content) in files {
        let path = www.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(&path, content).expect("writable");
    }
    symlink("a.txt", www.join("link.txt")).expect("a link");
    symlink("sub", www.join("folder")).expect("a link");
    symlink("nowhere", www.join("dangling")).expect("a link");
    age(&www);
}

/// Gives everything below a folder the time that the requests name.
fn age(folder: &std::path::Path) {
    let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() && !path.is_symlink() {
            age(&path);
        }
        if !path.is_symlink() {
            let file = fs::File::open(&path).expect("readable");
            file.set_modified(time).expect("a time");
        }
    }
}

/// Everything that a response says, in a form that does not depend on who
/// sent it, when, from which port, and how its head is ordered.
fn answer(address: SocketAddr, method: &str, target: &str, fields: &str) -> String {
    let mut client = Connection::plain(address);
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 0\r\n\r\n"
    ));
    let response = client.response(method);
    let mut body = response.body.clone();
    if response.header("content-encoding") == Some("gzip") {
        // A part of a compressed file is compared as it is.
        let mut plain = Vec::new();
        if flate2::read::GzDecoder::new(&*body)
            .read_to_end(&mut plain)
            .is_ok()
        {
            body = plain;
        }
    }
    let boundary = response
        .header("content-type")
        .and_then(|value| value.strip_prefix("multipart/byteranges; boundary="))
        .filter(|boundary| !boundary.is_empty())
        .unwrap_or("\u{1}\u{2}")
        .to_owned();
    let is_page = response
        .header("content-type")
        .is_some_and(|value| value.starts_with("text/html"))
        && response.status >= 300;
    let mut fields: Vec<_> = response
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !matches!(name.as_str(), "server" | "date" | "connection"))
        // Of pages that name the server.
        .filter(|(name, _)| !(is_page && name == "content-length"))
        // Relative to now.
        .filter(|(name, _)| name != "expires")
        .map(|(name, value)| {
            let value = value
                .replace(&address.port().to_string(), "PORT")
                .replace(&boundary, "BOUNDARY");
            format!("{name}: {value}")
        })
        .collect();
    fields.sort();
    let text = String::from_utf8_lossy(&body)
        .replace(&boundary, "BOUNDARY")
        .replace("nginx/1.22.1", "SERVER")
        .replace(&format!("ringwall/{}", env!("CARGO_PKG_VERSION")), "SERVER");
    let text = if text.len() > 5000 {
        let sum: u64 = text.bytes().map(u64::from).sum();
        format!("{} bytes, sum {sum}", body.len())
    } else {
        text
    };
    format!("{} {fields:?} {text:?}", response.status)
}
