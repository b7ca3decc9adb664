//! docs/migrating-from-nginx.md: what it tells an operator to do works.

use std::fs;
use std::path::Path;

use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::ringwall::{Site, http};

/// The guide's text.
fn guide() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrating-from-nginx.md");
    fs::read_to_string(path).expect("the guide")
}

#[test]
fn explain_names_the_class_file_and_line_of_every_directive() {
    let mut site = Site::new();
    let part = site.write("part.inc", "\nsendfile on;\ngeoip_country x;\n");
    let main = site.write(
        "ringwall.conf",
        "events {}\nhttp {\n include part.inc;\n server {\n  listen 127.0.0.1:1;\n  \
         bogus { inside it; }\n  access_log;\n  location / {\n   fastcgi_pass a;\n   \
         return 204;\n  }\n }\n}\n",
    );
    let outcome = site.command(&[
        "-t",
        "--explain",
        "-p",
        "@DIR@",
        "-c",
        "@DIR@/ringwall.conf",
    ]);
    let (part, main) = (part.display(), main.display());
    let lines: Vec<Vec<&str>> = outcome
        .stdout
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    for (class, name, place) in [
        ("honoured", "events", format!("{main}:1")),
        ("honoured", "http", format!("{main}:2")),
        ("no effect here", "sendfile", format!("{part}:2")),
        ("refused", "geoip_country", format!("{part}:3")),
        ("honoured", "server", format!("{main}:4")),
        ("honoured", "listen", format!("{main}:5")),
        ("unknown", "bogus", format!("{main}:6")),
        ("wrong", "access_log", format!("{main}:7")),
        ("honoured", "location", format!("{main}:8")),
        ("refused", "fastcgi_pass", format!("{main}:9")),
        ("honoured", "return", format!("{main}:10")),
    ] {
        let wanted: Vec<&str> = class.split(' ').chain([name, &place]).collect();
        assert!(
            lines.iter().any(|line| line.starts_with(&wanted)),
            "{wanted:?}: {outcome:?}"
        );
    }
    assert!(!outcome.stdout.contains("inside"), "{outcome:?}");
    let summary = outcome.stdout.lines().last().expect("a summary");
    assert_eq!(
        summary,
        "11 directives: 6 honoured, 1 no effect here, 2 refused, 1 unknown, 1 wrong"
    );
    // The verdict is -t's: the first that is wrong, in file order.
    assert!(!outcome.ok());
    assert!(outcome.stderr.contains("geoip_country"), "{outcome:?}");
}

#[test]
fn explain_shows_no_secret_and_ends_with_the_verdict() {
    let mut site = Site::new();
    site.write(
        "ringwall.conf",
        &http("server { listen 127.0.0.1:1; set $token s3cret; return 200 $token; }"),
    );
    let outcome = site.command(&[
        "-t",
        "--explain",
        "-p",
        "@DIR@",
        "-c",
        "@DIR@/ringwall.conf",
    ]);
    assert!(outcome.ok(), "{outcome:?}");
    assert!(outcome.stderr.contains("test is successful"), "{outcome:?}");
    assert!(!outcome.stdout.contains("s3cret"), "{outcome:?}");
}

#[test]
fn what_the_guide_names_is_honoured() {
    let mut site = Site::new();
    let table = site.command(&["--directives"]).stdout;
    let guide = guide();
    let mut named = 0;
    for row in guide.lines().filter(|line| line.starts_with("| ")) {
        let ours = row.rsplit(" | ").next().expect("a cell");
        // Every other piece is between backticks.
        for code in ours.split('`').skip(1).step_by(2) {
            let word = code.split([' ', ';']).next().expect("a word");
            let is_directive = word.contains('_') && !word.starts_with('$') || code.ends_with(';');
            if !is_directive || word == "default_server" {
                continue;
            }
            let honoured = table.lines().any(|line| {
                line.starts_with(&format!("| `{word}` |")) && line.contains("| honoured |")
            });
            assert!(honoured, "{word} in {row}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

#[test]
fn nginx_and_ringwall_share_a_port() {
    let mut site = Site::new();
    // Nginx's sockets are there first, and say so; ringwall's come beside them.
    let _nginx = Nginx::start(
        &mut site,
        "server { listen 127.0.0.1:@NGINX@ reuseport; return 200 nginx; }",
    );
    let ringwall = site.start(&http(
        "server { listen 127.0.0.1:@NGINX@ reuseport; return 200 ringwall; }",
    ));
    let address = ringwall.address("NGINX");
    let mut answers = [0, 0];
    eventually("both have answered", || {
        let text = Connection::plain(address).get("a", "/").text();
        answers[usize::from(text == "ringwall")] += 1;
        (answers[0] > 0 && answers[1] > 0).then_some(())
    });
}
