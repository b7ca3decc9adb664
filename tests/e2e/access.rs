//! Who is let in by address and by password, and what the others are told.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, Response};
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::ringwall::{Ringwall, Site, http};

/// A server at `@HTTP@` with these directives, and its password file.
fn server(content: &str, users: &str) -> Ringwall {
    let mut site = Site::new();
    site.write("users", users);
    site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; {content} }}"
    )))
}

fn get(ringwall: &Ringwall, target: &str, fields: &str) -> Response {
    get_from(ringwall.address("HTTP"), target, fields)
}

fn get_from(address: SocketAddr, target: &str, fields: &str) -> Response {
    let mut client = Connection::plain(address);
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n"
    ));
    client.response("GET")
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let pair = format!("{user}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Authorization: Basic {encoded}\r\n")
}

/// Every form that `htpasswd` (apache2-utils) and `openssl passwd` write, each
/// for a user of its name with the password `secret`.
fn every_form() -> String {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.unwrap_or_else(|e| panic!("{program} must be installed: {e}"));
        String::from_utf8(output.stdout)
            .expect("ASCII")
            .trim()
            .to_owned()
    };
    let mut lines = String::from("# users\nplain:{PLAIN}secret\n");
    for (user, flags) in [
        ("apr1", "-nbm"),
        ("des", "-nbd"),
        ("sha", "-nbs"),
        ("bcrypt", "-nbB"),
        ("sha256", "-nb2"),
        ("sha512", "-nb5"),
    ] {
        lines += &run("htpasswd", &[flags, user, "secret"]);
        lines += "\n";
    }
    for (user, flag) in [("md5", "-1"), ("ossl5", "-5"), ("ossl6", "-6")] {
        lines += &format!("{user}:{}\n", run("openssl", &["passwd", flag, "secret"]));
    }
    lines
}

const FORMS: &[&str] = &[
    "plain", "apr1", "des", "sha", "bcrypt", "sha256", "sha512", "md5", "ossl5", "ossl6",
];

#[test]
fn the_first_rule_about_an_address_decides() {
    let ringwall = server(
        "location / { return 200 all; }
         location /deny/ { deny all; proxy_pass http://127.0.0.1:1; }
         location /allow/ { allow 127.0.0.0/8; deny all; proxy_pass http://127.0.0.1:1; }
         location /not/ { deny 127.0.0.1; allow all; proxy_pass http://127.0.0.1:1; }
         location /other/ { allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:1; }
         location /six/ { deny ::/0; deny unix:; proxy_pass http://127.0.0.1:1; }",
        "",
    );
    for (target, status) in [
        ("/", 200),
        ("/deny/", 403),
        ("/allow/", 502),
        ("/not/", 403),
        ("/other/", 403),
        ("/six/", 502),
    ] {
        assert_eq!(get(&ringwall, target, "").status, status, "{target}");
    }
    ringwall.complaint_with(&["[error]", "access forbidden by rule", "GET /deny/"]);
}

#[test]
fn an_inner_block_with_rules_takes_none_from_outside() {
    let ringwall = server(
        "deny all;
         location / { proxy_pass http://127.0.0.1:1; }
         location /in/ { allow 127.0.0.1; proxy_pass http://127.0.0.1:1; }",
        "",
    );
    assert_eq!(get(&ringwall, "/", "").status, 403);
    assert_eq!(get(&ringwall, "/in/", "").status, 502);
}

#[test]
fn a_password_in_any_form_of_htpasswd_is_known_and_others_are_not() {
    let ringwall = server(
        "auth_basic \"the $host realm\"; auth_basic_user_file users;
         location / { proxy_pass http://127.0.0.1:1; }
         location /off/ { auth_basic off; proxy_pass http://127.0.0.1:1; }",
        &every_form(),
    );
    for user in FORMS {
        assert_eq!(
            get(&ringwall, "/", &basic(user, "secret")).status,
            502,
            "{user}"
        );
        for password in ["", "Secret", "secrets"] {
            assert_eq!(
                get(&ringwall, "/", &basic(user, password)).status,
                401,
                "{user}"
            );
        }
    }
    let refused = get(&ringwall, "/", "");
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Basic realm=\"the a realm\"")
    );
    assert!(refused.text().contains("401 Authorization Required"));
    assert_eq!(get(&ringwall, "/", &basic("nobody", "secret")).status, 401);
    assert_eq!(get(&ringwall, "/off/", "").status, 502);
    ringwall.complaint_with(&["[error]", "user \"apr1\": password mismatch"]);
    ringwall.complaint_with(&["[error]", "user \"nobody\" was not found in \"", "/users\""]);
    ringwall.complaint_with(&[
        "[info]",
        "no user/password was provided for basic authentication",
    ]);
    // $remote_user, in the access log.
    ringwall.access_with(&["127.0.0.1 - bcrypt [", " 502 "]);
}

#[test]
fn a_missing_password_file_is_403_and_an_unknown_form_500() {
    let ringwall = server(
        "auth_basic x; auth_basic_user_file users;
         location / { proxy_pass http://127.0.0.1:1; }
         location /missing/ { auth_basic_user_file missing; proxy_pass http://127.0.0.1:1; }
         location /by/ { auth_basic_user_file $arg_f; proxy_pass http://127.0.0.1:1; }",
        "ann:plain-text\n",
    );
    assert_eq!(get(&ringwall, "/missing/", &basic("a", "b")).status, 403);
    assert_eq!(get(&ringwall, "/", &basic("ann", "plain-text")).status, 500);
    assert_eq!(
        get(&ringwall, "/by/?f=users", &basic("bob", "x")).status,
        401
    );
    assert_eq!(
        get(&ringwall, "/by/?f=none", &basic("bob", "x")).status,
        403
    );
    ringwall.complaint_with(&["open() \"", "/missing\" failed (2: No such file"]);
    ringwall.complaint_with(&["[crit]", "is in no known form"]);
}

#[test]
fn with_satisfy_any_one_check_is_enough_and_with_all_none_may_fail() {
    let ringwall = server(
        "auth_basic x; auth_basic_user_file users;
         location /any/in/ { satisfy any; allow 127.0.0.1; deny all; proxy_pass http://127.0.0.1:1; }
         location /any/out/ { satisfy any; deny all; proxy_pass http://127.0.0.1:1; }
         location /all/in/ { allow 127.0.0.1; deny all; proxy_pass http://127.0.0.1:1; }
         location /all/out/ { satisfy all; deny all; proxy_pass http://127.0.0.1:1; }
         location /deny/ { satisfy any; auth_basic off; deny all; proxy_pass http://127.0.0.1:1; }",
        "ann:{PLAIN}secret\n",
    );
    let (right, wrong) = (basic("ann", "secret"), basic("ann", "x"));
    for (target, anonymous, known, mistaken) in [
        ("/any/in/", 502, 502, 502),
        ("/any/out/", 401, 502, 401),
        ("/all/in/", 401, 502, 401),
        ("/all/out/", 403, 403, 403),
        ("/deny/", 403, 403, 403),
    ] {
        let statuses = ["", &right, &wrong].map(|fields| get(&ringwall, target, fields).status);
        assert_eq!(statuses, [anonymous, known, mistaken], "{target}");
    }
    assert_eq!(
        get(&ringwall, "/any/in/", "").header("www-authenticate"),
        None
    );
}

#[test]
fn a_changed_password_file_counts_at_once_for_failures_and_soon_for_successes() {
    let ringwall = server(
        "auth_basic x; auth_basic_user_file users; location / { proxy_pass http://127.0.0.1:1; }",
        "ann:{PLAIN}secret\n",
    );
    let path = ringwall.site.file("users");
    assert_eq!(get(&ringwall, "/", &basic("ann", "secret")).status, 502);
    fs::write(&path, "bob:{PLAIN}secret\n").expect("writable");
    assert_eq!(get(&ringwall, "/", &basic("bob", "secret")).status, 502);
    eventually("ann is forgotten", || {
        (get(&ringwall, "/", &basic("ann", "secret")).status == 401).then_some(())
    });
    fs::remove_file(&path).expect("it is there");
    eventually("and bob", || {
        (get(&ringwall, "/", &basic("bob", "secret")).status == 403).then_some(())
    });
}

#[test]
fn hashing_passwords_keeps_no_other_client_waiting() {
    // A cost of 10: a twentieth of a second each in a release build.
    let hashed = Command::new("htpasswd")
        .args(["-nbBC", "10", "ann", "secret"])
        .output()
        .expect("apache2-utils");
    let ringwall = server(
        "location / { return 200 quick; }
         location /auth/ { auth_basic x; auth_basic_user_file users; proxy_pass http://127.0.0.1:1; }",
        &String::from_utf8(hashed.stdout).expect("ASCII"),
    );
    assert_eq!(
        get(&ringwall, "/auth/", &basic("ann", "secret")).status,
        502
    );
    let guess = || -> Vec<_> {
        let one = |number| {
            let mut client = Connection::plain(ringwall.address("HTTP"));
            let fields = basic("ann", &format!("guess {number}"));
            client.send(format!("GET /auth/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            client
        };
        (0..20).map(one).collect()
    };
    let mut guessers = guess();
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..20 {
        assert_eq!(client.get("a", "/").text(), "quick");
    }
    // Hashed on the worker, all of them would have been answered before.
    let guesses = |guessers: &[Connection]| guessers.iter().filter(|it| it.is_quiet()).count();
    assert_ne!(guesses(&guessers), 0);
    // Nor does a password that is known wait for the guesses: it is not hashed.
    let mut more = guess();
    for _ in 0..5 {
        let response = get(&ringwall, "/auth/", &basic("ann", "secret"));
        assert_eq!(response.status, 502);
    }
    assert_ne!(guesses(&more), 0);
    for guesser in guessers.iter_mut().chain(&mut more) {
        assert_eq!(guesser.response("GET").status, 401);
    }
}

#[test]
fn a_401_is_held_back_for_auth_delay() {
    let ringwall = server(
        "auth_basic x; auth_basic_user_file users; auth_delay 1s;
         location / { proxy_pass http://127.0.0.1:1; }",
        "ann:{PLAIN}secret\n",
    );
    let start = Instant::now();
    let mut guesser = Connection::plain(ringwall.address("HTTP"));
    let fields = basic("ann", "guess");
    guesser.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(get(&ringwall, "/", &basic("ann", "secret")).status, 502);
    assert!(guesser.is_quiet());
    assert_eq!(guesser.response("GET").status, 401);
    assert!(start.elapsed() >= Duration::from_secs(1));
    ringwall.complaint_with(&["[notice]", "delaying unauthorized request"]);
}

#[test]
fn rules_that_nginx_refuses_are_refused_in_its_words() {
    for (content, complaint) in [
        ("deny 10.0.0.0/33;", "invalid parameter \"10.0.0.0/33\" in"),
        ("allow example.com;", "invalid parameter \"example.com\" in"),
        ("satisfy some;", "invalid value \"some\" in"),
        (
            "auth_basic a; auth_basic b;",
            "\"auth_basic\" directive is duplicate in",
        ),
    ] {
        let outcome = Site::new().check(&http(&format!("server {{ listen 8080; {content} }}")));
        assert!(!outcome.ok(), "{content}");
        assert!(outcome.stderr.contains(complaint), "{}", outcome.stderr);
    }
    let outcome = Site::new().check(&http("deny 10.1.0.0/8;"));
    assert!(outcome.ok(), "{}", outcome.stderr);
    assert!(
        outcome
            .stderr
            .contains("[warn] low address bits of 10.1.0.0/8 are meaningless in")
    );
}

#[test]
fn nginx_with_the_same_configuration_lets_the_same_clients_in() {
    let content = "auth_basic \"$host's\"; auth_basic_user_file users;
         location / { proxy_pass http://127.0.0.1:1; }
         location /any/ { satisfy any; deny all; proxy_pass http://127.0.0.1:1; }
         location /any/in/ { satisfy any; allow 127.0.0.0/9; deny all; proxy_pass http://127.0.0.1:1; }
         location /all/ { allow 127.0.0.1; deny all; proxy_pass http://127.0.0.1:1; }
         location /deny/ { deny all; proxy_pass http://127.0.0.1:1; }
         location /missing/ { auth_basic_user_file no-such-file; proxy_pass http://127.0.0.1:1; }
         location /except/ { auth_basic off; limit_except GET { deny all; } proxy_pass http://127.0.0.1:1; }
         location /except/auth/ { auth_basic off; limit_except POST { auth_basic x; } proxy_pass http://127.0.0.1:1; }
         location /said/ { deny all; return 200 said; }
         location /half/ { auth_basic_user_file users; auth_basic off; proxy_pass http://127.0.0.1:1; }";
    let users = every_form();
    let ringwall = server(content, &users);
    let mut site = Site::new();
    site.write("users", &users);
    let content = format!("server {{ listen 127.0.0.1:@NGINX@; {content} }}");
    let nginx = Nginx::start(&mut site, &content);
    let mut credentials = vec![
        String::new(),
        basic("nobody", "secret"),
        basic("", "secret"),
        basic("# users", "x"),
        "Authorization: Basic\r\n".into(),
        "Authorization: Basic !!\r\n".into(),
        "Authorization: Bearer YTpi\r\n".into(),
    ];
    for user in FORMS {
        credentials.push(basic(user, "secret"));
        credentials.push(basic(user, "wrong"));
    }
    for target in [
        "/",
        "/any/",
        "/any/in/",
        "/all/",
        "/deny/",
        "/missing/",
        "/except/",
        "/except/auth/",
        "/said/",
        "/half/",
    ] {
        for fields in &credentials {
            let [ours, theirs] = [ringwall.address("HTTP"), nginx.address()].map(|address| {
                let response = get_from(address, target, fields);
                let challenge = response.header("www-authenticate").map(str::to_owned);
                (response.status, challenge)
            });
            assert_eq!(ours, theirs, "{target} {fields}");
        }
    }
}
