//! Files: what a location without a backend answers with, as Nginx does it,
//! and never from outside its root.

use std::fs;
use std::os::unix::fs::symlink;

use super::proxying::server;
use crate::support::client::{Connection, Response, TlsClient};
use crate::support::ringwall::{CERTIFICATES, HOST, Ringwall, Site, http, whole};
use crate::support::{eventually, patterned};

/// A file's time in every test: Sun, 06 Nov 1994 08:49:37 GMT.
const MODIFIED: u64 = 784_111_777;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A site with a folder `www` that holds these files.
fn site(files: &[(&str, &[u8])]) -> Site {
    let site = Site::new();
    for (name, content) in files {
        put(&site, name, content);
    }
    site
}

fn put(site: &Site, name: &str, content: &[u8]) {
    let path = site.file("www").join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    fs::write(&path, content).expect("writable");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(MODIFIED);
    let file = fs::File::options().write(true).open(&path);
    file.and_then(|file| file.set_modified(time))
        .expect("a time");
}

fn serve(site: Site, inside: &str) -> Ringwall {
    site.start(&http(&format!(
        "types {{ text/html html; text/plain txt; image/png png; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; root @DIR@/www; {inside} }}"
    )))
}

fn ask(ringwall: &Ringwall, method: &str, target: &str, fields: &str) -> Response {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 0\r\n\r\n"
    ));
    client.response(method)
}

fn get(ringwall: &Ringwall, target: &str) -> Response {
    ask(ringwall, "GET", target, "")
}

#[test]
fn a_file_is_sent_with_type_time_and_tag() {
    let ringwall = serve(site(&[("a b.txt", b"hello")]), "");
    let response = get(&ringwall, "/a%20b.txt");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(response.header("last-modified"), Some(DATE));
    assert_eq!(response.header("etag"), Some("\"2ebc98a1-5\""));
    assert_eq!(response.header("accept-ranges"), Some("bytes"));
    let head = ask(&ringwall, "HEAD", "/a%20b.txt", "");
    assert_eq!(head.header("content-length"), Some("5"));
    assert_eq!(head.header("etag"), response.header("etag"));
}

#[test]
fn what_is_not_there_is_404_and_the_log_says_which_file() {
    let ringwall = serve(
        site(&[("a.txt", b"")]),
        "location /quiet/ { log_not_found off; }",
    );
    assert_eq!(get(&ringwall, "/quiet/x").status, 404);
    assert_eq!(get(&ringwall, "/none?x").status, 404);
    let path = ringwall.site.file("www/none");
    ringwall.complaint_with(&[
        "[error]",
        &format!(
            "open() \"{}\" failed (2: No such file or directory)",
            path.display()
        ),
        "request: \"GET /none?x HTTP/1.1\"",
    ]);
    assert!(!ringwall.complaints().contains("quiet"));
    assert_eq!(get(&ringwall, "/a.txt/x").status, 404);
    assert_eq!(get(&ringwall, &format!("/{}", "x".repeat(300))).status, 404);
}

#[test]
fn a_folder_is_answered_by_its_index_file_and_its_bare_name_by_a_redirect() {
    let ringwall = serve(
        site(&[
            ("index.html", b"top"),
            ("sub/index.html", b"sub"),
            ("sub/index.a.txt", b"by host"),
            ("none/x", b""),
            ("late/second.html", b"second"),
        ]),
        "location /sub/ { index index.$host.txt index.html; }\n\
         location /late/ { index first.html second.html; }",
    );
    let top = get(&ringwall, "/");
    assert_eq!(top.text(), "top");
    assert_eq!(top.header("content-type"), Some("text/html"));
    assert_eq!(get(&ringwall, "/sub/").text(), "by host");
    assert_eq!(get(&ringwall, "/late/").text(), "second");
    let redirect = get(&ringwall, "/none?q=1");
    let port = ringwall.address("HTTP").port();
    assert_eq!(redirect.status, 301);
    let target = format!("http://a:{port}/none/?q=1");
    assert_eq!(redirect.header("location"), Some(target.as_str()));
    assert_eq!(get(&ringwall, "/none/").status, 403);
    ringwall.complaint_with(&["directory index of \"", "/www/none/\" is forbidden"]);
    assert_eq!(get(&ringwall, "/missing/").status, 404);
    ringwall
        .complaint_with(&["/www/missing/index.html\" is not found (2: No such file or directory)"]);
}

#[test]
fn an_index_file_is_answered_by_the_location_that_its_own_path_has() {
    let ringwall = serve(
        site(&[
            ("a/index.x", b"source"),
            ("b/y", b""),
            ("fallback.txt", b"fallback"),
        ]),
        "index index.x; location ~ \\.x$ { return 200 $uri?$args; }\n\
         location /b/ { index index.x /fallback.txt; }\n\
         location /circle/ { index /circle/; }",
    );
    assert_eq!(get(&ringwall, "/a/?q=1").text(), "/a/index.x?q=1");
    assert_eq!(get(&ringwall, "/b/").text(), "fallback");
    assert_eq!(get(&ringwall, "/circle/").status, 500);
    ringwall.complaint_with(&["rewrite or internal redirection cycle"]);
}

#[test]
fn an_error_page_is_a_file_with_the_errors_status() {
    let ringwall = serve(
        site(&[("404.html", b"not here"), ("5xx.html", b"sorry")]),
        "error_page 404 /404.html; error_page 500 502 /5xx.html; error_page 403 =200 /404.html;\n\
         location /bad { return 502; } location /forbidden { return 403; }",
    );
    for (method, target, status, text) in [
        ("GET", "/none", 404, "not here"),
        ("POST", "/none", 404, "not here"),
        ("GET", "/bad", 502, "sorry"),
        ("GET", "/forbidden", 200, "not here"),
    ] {
        let response = ask(
            &ringwall,
            method,
            target,
            "Range: bytes=0-1\r\nIf-None-Match: *\r\n",
        );
        if status == 200 {
            // Now an ordinary file, it is asked for under conditions.
            assert_eq!(response.status, 304, "{target}");
            continue;
        }
        assert_eq!(
            (response.status, response.text().as_str()),
            (status, text),
            "{target}"
        );
        assert_eq!(response.header("content-type"), Some("text/html"));
    }
}

#[test]
fn only_get_and_head_are_answered_with_files() {
    let ringwall = serve(site(&[("a.txt", b"a"), ("index.html", b"i")]), "");
    for (method, target, status) in [
        ("POST", "/a.txt", 405),
        ("POST", "/", 405),
        ("POST", "/none", 404),
        ("PUT", "/a.txt", 405),
        ("PUT", "/none", 405),
        ("DELETE", "/", 405),
        ("OPTIONS", "/a.txt", 405),
    ] {
        let response = ask(&ringwall, method, target, "");
        assert_eq!(response.status, status, "{method} {target}");
    }
}

#[test]
fn alias_takes_the_place_of_the_locations_name() {
    let ringwall = serve(
        site(&[
            ("other/x.txt", b"x"),
            ("other/deep/y.txt", b"y"),
            ("one.txt", b"one"),
        ]),
        "location /al/ { alias @DIR@/www/other/; }\n\
         location = /single { alias @DIR@/www/one.txt; default_type text/x; }\n\
         location ~ ^/re/(.*)/(?<file>.*)$ { alias @DIR@/www/$1/$file; }\n\
         location /show { return 200 $document_root|$request_filename; }\n\
         location /al/show { return 200 $document_root|$request_filename; }",
    );
    assert_eq!(get(&ringwall, "/al/x.txt").text(), "x");
    assert_eq!(get(&ringwall, "/al/deep/y.txt").text(), "y");
    assert_eq!(get(&ringwall, "/al/deep").status, 301);
    let single = get(&ringwall, "/single");
    assert_eq!(single.text(), "one");
    assert_eq!(single.header("content-type"), Some("text/x"));
    assert_eq!(get(&ringwall, "/re/other/deep/y.txt").text(), "y");
    assert_eq!(get(&ringwall, "/re/other/x.txt").text(), "x");
    let www = ringwall.site.file("www");
    let www = www.display();
    let shown = get(&ringwall, "/show/b");
    assert_eq!(shown.text(), format!("{www}|{www}/show/b"));
}

#[test]
fn no_path_escapes_the_root() {
    let site = site(&[("open/a.txt", b"a"), ("hosts/a/x.txt", b"host")]);
    fs::write(site.file("secret"), "secret").expect("writable");
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@HTTP@; root @DIR@/www/open;\n\
         location /i { alias @DIR@/www/open/; autoindex on; }\n\
         location /arg/ { root @DIR@/www/$arg_r; }\n\
         location /index/ { alias @DIR@/www/open/; index $arg_i; }\n\
         location ~ ^/re/(.*)$ { alias @DIR@/www/open/$arg_r; } }",
    ));
    for target in [
        "/../secret",
        "/../../secret",
        "/%2e%2e/%2e%2e/secret",
        "/..%2f..%2fsecret",
        "/a.txt/../../../secret",
        "/a.txt%00.png",
        "/i../secret",
        "/i../../secret",
        "/i..%2f..%2fsecret",
        "/i../",
        "/arg/../../secret",
        "/arg/secret?r=../..",
        "/arg/secret?r=..",
        "/index/?i=../../secret",
        "/re/x?r=../../secret",
        "//../secret",
        "/\\..\\..\\secret",
        "/....//....//secret",
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        let response = client.get("a", target);
        let text = response.text();
        assert!(
            matches!(response.status, 400 | 403 | 404) && !text.contains("secret"),
            "{target}: {} {text}",
            response.status
        );
    }
    assert_eq!(get(&ringwall, "/a.txt").text(), "a");
    assert_eq!(get(&ringwall, "/i/a.txt").text(), "a");
}

#[test]
fn symbolic_links_are_followed_as_disable_symlinks_says() {
    let site = site(&[("real/a.txt", b"a"), ("real/index.html", b"i")]);
    let www = site.file("www");
    symlink("real", www.join("folder")).expect("a link");
    symlink("a.txt", www.join("real/file.txt")).expect("a link");
    symlink("/etc/hostname", www.join("real/foreign.txt")).expect("a link");
    let ringwall = serve(
        site,
        "location /on/ { alias @DIR@/www/; disable_symlinks on from=@DIR@/www/; }\n\
         location /from/ { alias @DIR@/www/folder/; disable_symlinks on from=$document_root; }\n\
         location /owner/ { alias @DIR@/www/; disable_symlinks if_not_owner; }",
    );
    for (target, status) in [
        ("/folder/file.txt", 200),
        ("/on/real/a.txt", 200),
        ("/on/folder/a.txt", 404),
        ("/on/folder/", 404),
        ("/on/real/file.txt", 403),
        ("/on/real/", 200),
        ("/owner/folder/file.txt", 200),
    ] {
        assert_eq!(get(&ringwall, target).status, status, "{target}");
    }
    ringwall.complaint_with(&[
        "open() \"",
        "failed (40: Too many levels of symbolic links)",
    ]);
    if rustix::process::geteuid().is_root() {
        let www = ringwall.site.file("www");
        std::os::unix::fs::lchown(www.join("folder"), Some(1), Some(1)).expect("root may");
        assert_eq!(get(&ringwall, "/owner/folder/a.txt").status, 403);
    }
}

#[test]
fn conditions_are_judged_as_nginx_judges_them() {
    let ringwall = serve(
        site(&[("a.txt", b"hello")]),
        "location /before/ { alias @DIR@/www/; if_modified_since before; }\n\
         location /off/ { alias @DIR@/www/; if_modified_since off; etag off; }",
    );
    let tag = "\"2ebc98a1-5\"";
    let later = "Sun, 06 Nov 1994 08:49:38 GMT";
    for (target, fields, status) in [
        ("/a.txt", format!("If-Modified-Since: {DATE}\r\n"), 304),
        ("/a.txt", format!("If-Modified-Since: {later}\r\n"), 200),
        (
            "/before/a.txt",
            format!("If-Modified-Since: {later}\r\n"),
            304,
        ),
        ("/off/a.txt", format!("If-Modified-Since: {DATE}\r\n"), 200),
        ("/a.txt", format!("If-None-Match: {tag}\r\n"), 304),
        ("/a.txt", format!("If-None-Match: W/{tag}\r\n"), 304),
        ("/a.txt", "If-None-Match: \"x\"\r\n".into(), 200),
        ("/off/a.txt", format!("If-None-Match: {tag}\r\n"), 200),
        ("/a.txt", format!("If-Match: {tag}\r\n"), 200),
        ("/a.txt", "If-Match: \"x\"\r\n".into(), 412),
        ("/a.txt", format!("If-Unmodified-Since: {DATE}\r\n"), 200),
        (
            "/a.txt",
            "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".into(),
            412,
        ),
    ] {
        let response = ask(&ringwall, "GET", target, &fields);
        assert_eq!(response.status, status, "{target} {fields}");
        if status == 304 {
            assert_eq!(response.header("content-length"), None);
            assert_eq!(response.header("content-type"), None);
            assert_eq!(response.header("etag"), Some(tag));
        }
    }
    assert_eq!(get(&ringwall, "/off/a.txt").header("etag"), None);
}

#[test]
fn ranges_are_sent_one_or_several() {
    let ringwall = serve(
        site(&[("a.txt", b"0123456789")]),
        "location /none/ { alias @DIR@/www/; max_ranges 0; }\n\
         location /one/ { alias @DIR@/www/; max_ranges 1; }",
    );
    let ranged = |target: &str, range: &str| {
        ask(
            &ringwall,
            "GET",
            target,
            &format!("Range: bytes={range}\r\n"),
        )
    };
    let response = ranged("/a.txt", "2-4");
    assert_eq!((response.status, response.text().as_str()), (206, "234"));
    assert_eq!(response.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(response.header("content-length"), Some("3"));
    assert_eq!(ranged("/a.txt", "-3").text(), "789");
    assert_eq!(ranged("/a.txt", "8-").text(), "89");
    let response = ranged("/a.txt", "10-");
    assert_eq!(response.status, 416);
    assert_eq!(response.header("content-range"), Some("bytes */10"));
    let response = ranged("/a.txt", "0-1,8-9");
    assert_eq!(response.status, 206);
    let kind = response.header("content-type").expect("a type").to_owned();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("a boundary");
    let part = |range: &str, text: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{text}"
        )
    };
    let expected =
        [part("0-1", "01"), part("8-9", "89")].concat() + &format!("\r\n--{boundary}--\r\n");
    assert_eq!(response.text(), expected);
    assert_eq!(ranged("/one/a.txt", "0-1,8-9").status, 200);
    let response = ranged("/none/a.txt", "0-1");
    assert_eq!(
        (response.status, response.header("accept-ranges")),
        (200, None)
    );
    for (condition, status) in [
        ("\"2ebc98a1-a\"", 206),
        ("\"x\"", 200),
        (DATE, 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
    ] {
        let fields = format!("Range: bytes=0-0\r\nIf-Range: {condition}\r\n");
        assert_eq!(
            ask(&ringwall, "GET", "/a.txt", &fields).status,
            status,
            "{condition}"
        );
    }
}

#[test]
fn a_folder_is_listed_where_autoindex_allows_it() {
    let site = site(&[
        ("list/b.txt", b"12345"),
        ("list/.hidden", b""),
        ("list/sub/x", b""),
    ]);
    fs::write(site.file("www/list/<b>&\"'.html"), "x").expect("writable");
    let ringwall = serve(
        site,
        "location /list/ { autoindex on; }\n\
         location /json/ { alias @DIR@/www/list/; autoindex on; autoindex_format json; }\n\
         location /short/ { alias @DIR@/www/list/; autoindex on; autoindex_exact_size off; }",
    );
    let response = get(&ringwall, "/list/");
    assert_eq!(response.header("content-type"), Some("text/html"));
    let text = response.text();
    let rest = format!("</a>{:46}06-Nov-1994 08:49                   5\r\n", "");
    assert!(text.starts_with("<html>\r\n<head><title>Index of /list/</title></head>\r\n<body>\r\n<h1>Index of /list/</h1><hr><pre><a href=\"../\">../</a>\r\n<a href=\"sub/\">sub/</a>"), "{text}");
    assert!(
        text.contains(&format!("<a href=\"b.txt\">b.txt{rest}")),
        "{text}"
    );
    assert!(
        text.contains("href=\"%3Cb%3E%26%22%27.html\">&lt;b&gt;&amp;&quot;'.html</a>"),
        "{text}"
    );
    assert!(!text.contains("hidden"), "{text}");
    let response = get(&ringwall, "/json/");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let text = response.text();
    assert!(text.contains("{ \"name\":\"b.txt\", \"type\":\"file\", \"mtime\":\"Sun, 06 Nov 1994 08:49:37 GMT\", \"size\":5 }"), "{text}");
    assert!(
        text.starts_with("[\r\n{ \"name\":\"sub\", \"type\":\"directory\""),
        "{text}"
    );
    assert!(
        get(&ringwall, "/short/")
            .text()
            .contains("06-Nov-1994 08:49       5\r\n")
    );
    assert_eq!(ask(&ringwall, "HEAD", "/list/", "").status, 200);
    assert_eq!(ask(&ringwall, "POST", "/list/", "").status, 403);
}

#[test]
fn a_charset_is_added_to_the_types_that_have_one() {
    let ringwall = serve(
        site(&[("a.html", b"a"), ("a.png", b"p"), ("b.txt", b"b")]),
        "charset utf-8; location /only/ { alias @DIR@/www/; charset_types image/png; }\n\
         location /off/ { alias @DIR@/www/; charset off; } location /text { return 200 x; }",
    );
    for (target, content_type) in [
        ("/a.html", "text/html; charset=utf-8"),
        ("/b.txt", "text/plain; charset=utf-8"),
        ("/a.png", "image/png"),
        ("/only/a.png", "image/png; charset=utf-8"),
        ("/only/b.txt", "text/plain"),
        ("/off/a.html", "text/html"),
        ("/text", "text/plain; charset=utf-8"),
        ("/none", "text/html; charset=utf-8"),
    ] {
        assert_eq!(
            get(&ringwall, target).header("content-type"),
            Some(content_type),
            "{target}"
        );
    }
}

#[test]
fn an_acme_challenge_is_answered_from_a_webroot_and_all_else_is_redirected() {
    let site = site(&[(
        ".well-known/acme-challenge/token-1_x",
        b"token-1_x.thumbprint",
    )]);
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@HTTP@; server_name a;\n\
         location /.well-known/acme-challenge/ { root @DIR@/www; default_type text/plain; }\n\
         location / { return 301 https://$host$request_uri; } }",
    ));
    let response = get(&ringwall, "/.well-known/acme-challenge/token-1_x");
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "token-1_x.thumbprint")
    );
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(
        get(&ringwall, "/.well-known/acme-challenge/none").status,
        404
    );
    assert_eq!(get(&ringwall, "/").header("location"), Some("https://a/"));
}

/// Sizes round the edges of buffers and records.
const SIZES: [usize; 9] = [
    0,
    1,
    16 << 10,
    (16 << 10) + 1,
    (17 << 10) + 5,
    64 << 10,
    (64 << 10) + 1,
    200_000,
    3 << 20,
];

#[test]
fn files_of_any_size_arrive_whole_over_plaintext_and_tls() {
    for events in ["use io_uring;", "use epoll;"] {
        let (site, pki) = Site::with_pki();
        for size in SIZES {
            put(&site, &format!("{size}"), &patterned(size));
        }
        let ringwall = site.start(&whole(
            "worker_processes 1;",
            events,
            &format!(
                "server {{ listen 127.0.0.1:@HTTP@; listen 127.0.0.1:@TLS@ ssl;\n\
                 root @DIR@/www; {CERTIFICATES} }}"
            ),
        ));
        let mut plain = Connection::plain(ringwall.address("HTTP"));
        let mut tls = TlsClient::new(&pki.ca)
            .connect(ringwall.address("TLS"), HOST)
            .expect("a handshake");
        for size in SIZES {
            let content = patterned(size);
            for client in [&mut plain, &mut tls] {
                let response = client.get(HOST, &format!("/{size}"));
                assert!(response.body == content, "{size}");
                if size > 3 {
                    let (from, to) = (size / 3, size / 3 * 2 + 1);
                    client.send(format!(
                        "GET /{size} HTTP/1.1\r\nHost: {HOST}\r\nRange: bytes={from}-{}\r\n\r\n",
                        to - 1
                    ));
                    let response = client.response("GET");
                    assert_eq!(response.status, 206);
                    assert!(response.body == content[from..to], "part of {size}");
                }
            }
        }
    }
}

#[test]
fn a_large_file_is_sent_in_bounded_memory() {
    const SIZE: u64 = 1 << 30;
    let site = site(&[]);
    fs::create_dir_all(site.file("www")).expect("writable");
    // Sparse: it takes no place on the disk.
    let file = fs::File::create(site.file("www/large")).expect("writable");
    file.set_len(SIZE).expect("a size");
    let ringwall = serve(site, "");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head().expect("a head");
    assert_eq!(head.header("content-length"), Some("1073741824"));
    let mut left = SIZE;
    let mut most = 0;
    while left > 0 {
        let sipped = client.sip(1 << 20).expect("more") as u64;
        assert!(sipped > 0, "{left} bytes are missing");
        left -= sipped;
        if left.is_multiple_of(1 << 20) || left < 1 << 20 {
            most = most.max(ringwall.resident_kib());
        }
    }
    assert!(most < 64 << 10, "{most} KiB");
}

#[test]
fn a_file_truncated_while_it_is_sent_cuts_the_response_off() {
    let site = site(&[]);
    fs::create_dir_all(site.file("www")).expect("writable");
    let file = fs::File::create(site.file("www/large")).expect("writable");
    file.set_len(64 << 20).expect("a size");
    let ringwall = serve(site, "");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head().expect("a head");
    file.set_len(1 << 20).expect("a size");
    let rest = client.remains();
    assert!(rest.len() < 64 << 20, "{} bytes", rest.len());
    assert!(rest.iter().all(|byte| *byte == 0));
    ringwall.complaint_with(&["[alert]", "/www/large\" was truncated at"]);
    let log = eventually("the request is logged", || {
        ringwall.access_log().lines().next().map(str::to_owned)
    });
    assert!(log.contains("\"GET /large HTTP/1.1\" 200"), "{log}");
}

#[test]
fn the_default_root_is_html_below_the_prefix() {
    let ringwall = server("location /x/ { }");
    assert_eq!(get(&ringwall, "/x/y").status, 404);
    let path = ringwall.site.file("html/x/y");
    ringwall.complaint_with(&[&format!("open() \"{}\" failed", path.display())]);
}

#[test]
fn a_file_that_the_user_of_the_workers_may_not_read_is_forbidden() {
    use std::os::unix::fs::PermissionsExt;
    let site = site(&[
        ("open.txt", b"open"),
        ("closed.txt", b"closed"),
        ("folder/x", b""),
    ]);
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    mode(site.path(), 0o755);
    mode(&site.file("www/closed.txt"), 0o600);
    mode(&site.file("www/folder"), 0o700);
    let user = if rustix::process::geteuid().is_root() {
        "user nobody nogroup;"
    } else {
        mode(&site.file("www/closed.txt"), 0);
        mode(&site.file("www/folder"), 0);
        ""
    };
    let ringwall = site.start(&whole(
        &format!("{user} worker_processes 1;"),
        "",
        "server { listen 127.0.0.1:@HTTP@; root @DIR@/www; location /folder/ { autoindex on; } }",
    ));
    for (target, status) in [("/open.txt", 200), ("/closed.txt", 403), ("/folder/", 403)] {
        assert_eq!(get(&ringwall, target).status, status, "{target}");
    }
    ringwall.complaint_with(&["open() \"", "closed.txt\" failed (13: Permission denied)"]);
    mode(&ringwall.site.file("www/folder"), 0o700);
}

#[test]
fn pipes_and_sockets_are_no_files() {
    let site = site(&[("a.txt", b"a")]);
    let _socket = std::os::unix::net::UnixListener::bind(site.file("www/socket")).expect("binds");
    let pipe = site.file("www/pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("a pipe");
    let ringwall = serve(site, "");
    assert_eq!(get(&ringwall, "/pipe").status, 404);
    ringwall.complaint_with(&["[crit]", "/www/pipe\" is not a regular file"]);
    assert!(matches!(get(&ringwall, "/socket").status, 404 | 500));
}
