//! `set`, `if`, `rewrite`, `return`, `map`, `geo`, `split_clients`,
//! `error_page`, `internal`, named locations: a request's way through a
//! configuration that leads it on.

use super::proxying::server;
use crate::support::client::{Connection, Response};
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{HOST, Ringwall, Site, http};

/// A server with this in `http` and that in its block.
fn with_http(outer: &str, inner: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "{outer}\nserver {{ listen 127.0.0.1:@HTTP@; {inner} }}"
    )))
}

fn client(ringwall: &Ringwall) -> Connection {
    Connection::plain(ringwall.address("HTTP"))
}

/// Sends a request of this method, target and further lines.
fn ask(client: &mut Connection, method: &str, target: &str, lines: &str) -> Response {
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"
    ));
    client.response(method)
}

#[test]
fn rewrites_run_in_order_and_their_flags_say_what_follows() {
    let origin = Origin::http(|request| ok(request.target()));
    let url = origin.url();
    let ringwall = server(&format!(
        "rewrite ^/server/(.*)$ /inner/$1;\n\
         location /inner/ {{ proxy_pass {url}; }}\n\
         location /last/ {{ rewrite ^/last/(.*)$ /inner/$1 last; return 200 not-reached; }}\n\
         location /break/ {{ rewrite ^/break/(.*)$ /broken/$1 break; proxy_pass {url}; }}\n\
         location /uri/ {{ rewrite ^/uri/(.*)$ /whole/$1 break; proxy_pass {url}/prefix/; }}\n\
         location /none/ {{ rewrite ^/none/(.*)$ /two/$1; rewrite ^/two/(.*)$ /inner/$1; }}\n\
         location /args/ {{ rewrite ^/args/(\\w+)/(.*)$ /inner/?id=$1&rest=$2 last; }}\n\
         location /drop/ {{ rewrite ^/drop/(.*)$ /inner/$1? last; }}\n\
         location /loop/ {{ rewrite ^ /loop/x last; }}\n\
         location /empty/ {{ rewrite ^/empty/(.*)$ $2 last; }}"
    ));
    let mut client = client(&ringwall);
    for (target, passed) in [
        ("/server/x?q=1", "/inner/x?q=1"),
        ("/last/x?q=1", "/inner/x?q=1"),
        ("/last/a%20b", "/inner/a%20b"),
        ("/break/x", "/broken/x"),
        ("/uri/x", "/whole/x"),
        ("/none/x", "/inner/x"),
        ("/args/7/y?z", "/inner/?id=7&rest=y&z"),
        ("/args/7/y%26z", "/inner/?id=7&rest=y%26z"),
        ("/drop/x?q=1", "/inner/x"),
    ] {
        assert_eq!(client.get("a", target).text(), passed, "{target}");
    }
    assert_eq!(client.get("a", "/loop/").status, 500);
    ringwall.complaint_with(&["rewrite or internal redirection cycle"]);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/empty/x").status, 500);
}

#[test]
fn a_rewrite_to_an_address_redirects_the_client() {
    let ringwall = server(
        "location /p/ { rewrite ^/p/(.*)$ /q/$1 permanent; }\n\
         location /r/ { rewrite ^/r/(.*)$ https://b/$1 redirect; }\n\
         location /s/ { rewrite ^/s/(.*)$ $scheme://b/$1; }\n\
         location /t/ { rewrite ^ https://b$request_uri? permanent; }\n\
         location /u/ { rewrite ^/u/(.*)$ https://b/?to=$1 permanent; }",
    );
    let mut client = client(&ringwall);
    let port = ringwall.address("HTTP").port();
    for (target, status, location) in [
        ("/p/x?y", 301, format!("http://a:{port}/q/x?y")),
        ("/r/x", 302, "https://b/x".into()),
        ("/s/x", 302, "http://b/x".into()),
        ("/t/x?y=1", 301, "https://b/t/x?y=1".into()),
        ("/u/x?y=1", 301, "https://b/?to=x&y=1".into()),
        ("/r/a%20b%2Fc", 302, "https://b/a%20b/c".into()),
    ] {
        let response = client.get("a", target);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.header("location"), Some(&*location), "{target}");
    }
}

#[test]
fn conditions_choose_settings_and_answers() {
    let origin = Origin::http(|request| ok(request.header("x-chosen").unwrap_or("-")));
    let ringwall = server(&format!(
        "if ($host = other) {{ return 301 https://a$request_uri; }}\n\
         if ($request_method !~ ^(GET|POST|OPTIONS)$) {{ return 405; }}\n\
         set $chosen none;\n\
         if ($http_user_agent ~* \"curl/(?<version>\\d+)\") {{ set $chosen curl-$version; }}\n\
         location / {{\n\
             if ($request_method = OPTIONS) {{ add_header X-Cors yes; return 204; }}\n\
             if ($arg_go) {{ set $chosen $arg_go; }}\n\
             if ($arg_other != \"\") {{ proxy_pass {0}; }}\n\
             proxy_set_header X-Chosen $chosen;\n\
             add_header X-Cors no;\n\
             proxy_pass {0};\n\
         }}",
        origin.url()
    ));
    let mut client = client(&ringwall);
    assert_eq!(client.get("a", "/").text(), "none");
    assert_eq!(client.get("a", "/?go=there").text(), "there");
    assert_eq!(client.get("a", "/?go=0").text(), "none");
    assert_eq!(client.get("a", "/?other=1").text(), "none");
    let curl = ask(&mut client, "GET", "/", "User-Agent: CURL/8.1\r\n");
    assert_eq!(curl.text(), "curl-8");
    let options = ask(&mut client, "OPTIONS", "/", "");
    assert_eq!(
        (options.status, options.header("x-cors")),
        (204, Some("yes"))
    );
    let redirect = client.get("other", "/x?y");
    assert_eq!(redirect.header("location"), Some("https://a/x?y"));
    let trace = ask(&mut client, "TRACE", "/", "");
    assert_eq!(trace.status, 405);
}

#[test]
fn maps_look_values_up_as_nginx_does() {
    let ringwall = with_http(
        "map $http_upgrade $connection_upgrade { default upgrade; '' close; }\n\
         map $arg_host $tenant { hostnames; default none; .example.org org; *.net net; www.* www; }\n\
         map $uri $section { ~^/(?<first>[^/]+)/ $first; ~*^/UP(.*)$ up:$1; default root; }\n\
         map $section $outer { a is-a; default $section; }\n\
         geo $near { default far; 127.0.0.0/8 near; 127.0.0.1 here; }\n\
         geo $arg_ip $range { ranges; default -; 10.0.0.0-10.0.0.255 ten; }\n\
         split_clients $arg_id $half { 50% one; * two; }",
        "location / { return 200 \
         \"$connection_upgrade $tenant $section $outer $near $range $half $1\"; }",
    );
    let mut client = client(&ringwall);
    for (target, text) in [
        ("/", "close none root root here - one "),
        (
            "/a/b?host=Example.org.&id=a",
            "close org a is-a here - two a",
        ),
        ("/b/?host=x.net", "close net b b here - one b"),
        ("/b/?host=www.x", "close www b b here - one b"),
        (
            "/upper?ip=10.0.0.7",
            "close none up:per up:per here ten one per",
        ),
    ] {
        assert_eq!(client.get("a", target).text(), text, "{target}");
    }
    let upgrade = ask(&mut client, "GET", "/", "Upgrade: x\r\n");
    assert!(upgrade.text().starts_with("upgrade "), "{}", upgrade.text());
}

#[test]
fn an_error_gets_the_page_that_the_configuration_names() {
    let origin = Origin::http(|request| match request.target() {
        "/backend/404" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nnot here".to_vec(),
        target => ok(target),
    });
    let ringwall = server(&format!(
        "error_page 404 /missing;\n\
         error_page 502 504 = @fallback;\n\
         error_page 403 =200 /allowed;\n\
         error_page 410 https://b/gone;\n\
         error_page 411 =301 /moved;\n\
         location = /missing {{ internal; return 200 \"page for $request_uri by $request_method\"; }}\n\
         location = /allowed {{ return 418 text; }}\n\
         location @fallback {{ proxy_pass {0}; }}\n\
         location /nothing {{ return 404; }}\n\
         location /text {{ return 404 own; }}\n\
         location /down {{ proxy_pass http://127.0.0.1:@CLOSED@; }}\n\
         location /forbidden {{ return 403; }}\n\
         location /gone {{ return 410; }}\n\
         location /inherits {{ return 404; error_page 500 /x; }}\n\
         location /backend/ {{ proxy_pass {0}; }}",
        origin.url()
    ));
    let mut client = client(&ringwall);
    let page = ask(&mut client, "POST", "/nothing", "Content-Length: 0\r\n");
    assert_eq!(
        (page.status, &*page.text()),
        (404, "page for /nothing by GET")
    );
    let own = client.get("a", "/text");
    assert_eq!((own.status, &*own.text()), (404, "own"));
    let fallback = client.get("a", "/down?x");
    assert_eq!((fallback.status, &*fallback.text()), (200, "/down?x"));
    let allowed = client.get("a", "/forbidden");
    assert_eq!((allowed.status, &*allowed.text()), (200, "text"));
    let gone = client.get("a", "/gone");
    assert_eq!(
        (gone.status, gone.header("location")),
        (302, Some("https://b/gone"))
    );
    assert!(
        client
            .get("a", "/inherits")
            .text()
            .contains("404 Not Found")
    );
    // What a backend says is passed on as it is.
    assert_eq!(client.get("a", "/backend/404").text(), "not here");
    // Clients do not reach what is internal.
    let direct = client.get("a", "/missing");
    assert_eq!(
        (direct.status, &*direct.text()),
        (404, "page for /missing by GET")
    );
}

#[test]
fn a_client_is_kept_out_of_what_is_internal_by_that_locations_own_rules() {
    let ringwall = server(
        "error_page 404 /none;\n\
         add_header X-From server always;\n\
         location = /inner { internal; add_header X-From inner always; error_page 404 /lost; }\n\
         location = /lost { return 200 lost; }",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let direct = client.get("a", "/inner");
    assert_eq!((direct.status, &*direct.text()), (404, "lost"));
}

#[test]
fn a_body_that_a_failed_backend_has_had_is_not_sent_to_another() {
    let broken = Origin::script(|peer| {
        peer.request()?;
        peer.finish()
    });
    let origin = Origin::http(|request| ok(&format!("got {}", request.body.len())));
    let ringwall = server(&format!(
        "error_page 502 = @fallback;\n\
         location @fallback {{ proxy_pass {}; }}\n\
         location /half {{ proxy_pass {}; }}\n\
         location /down {{ proxy_pass http://127.0.0.1:@CLOSED@; }}",
        origin.url(),
        broken.url()
    ));
    let post = |target: &str| {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789"
        ));
        client.response("POST")
    };
    assert_eq!(post("/half").status, 502);
    // Nothing of this one had been used up.
    assert_eq!(post("/down").text(), "got 10");
}

#[test]
fn a_method_that_is_not_excepted_gets_the_limited_settings() {
    let origin = Origin::http(|request| ok(request.line.split(' ').next().unwrap_or_default()));
    let other = Origin::http(|_| ok("limited"));
    let ringwall = server(&format!(
        "location / {{ proxy_pass {}; limit_except GET POST {{ proxy_pass {}; }} }}",
        origin.url(),
        other.url()
    ));
    let mut client = client(&ringwall);
    for (method, text) in [("GET", "GET"), ("POST", "POST"), ("DELETE", "limited")] {
        let response = ask(&mut client, method, "/", "Content-Length: 0\r\n");
        assert_eq!(response.text(), text, "{method}");
    }
}

#[test]
fn a_location_that_looks_ahead_takes_what_it_should() {
    let ringwall = server(
        "location ~ /\\.(?!well-known) { return 403; }\n\
         location / { return 200 open; }",
    );
    let mut client = client(&ringwall);
    assert_eq!(client.get("a", "/.git/config").status, 403);
    assert_eq!(client.get("a", "/.git/%FF").status, 403);
    assert_eq!(client.get("a", "/.well-known/x").text(), "open");
}

#[test]
fn groups_of_a_server_name_are_there_until_another_expression_matches() {
    let ringwall = with_http(
        "",
        "server_name ~^(?<sub>[a-z]+)\\.(.+)$; \
         location / { return 200 \"$sub $1 $2\"; } \
         location ~ ^/(x)(y) { return 200 \"$sub $1 $2\"; }",
    );
    let mut client = client(&ringwall);
    assert_eq!(
        client.get("www.example.org", "/").text(),
        "www www example.org"
    );
    assert_eq!(client.get("www.example.org", "/xy").text(), "www x y");
}

#[test]
fn a_field_that_a_map_makes_of_the_certificate_is_asserted_on_every_virtual_host() {
    let origin = Origin::http(|request| ok(request.header("x-user").unwrap_or("none")));
    let ringwall = with_http(
        "map $ssl_client_s_dn $user { ~CN=(?<CN>[^,]+) $CN; default ''; }",
        &format!(
            "if ($ssl_client_s_dn ~ \"O=([^,]+)\") {{ set $org $1; }}\n\
             location /set/ {{ proxy_set_header X-User $user; proxy_set_header X-Org $org; \
             proxy_pass {0}; }}\n\
             location /group/ {{ proxy_set_header X-Unit $1; proxy_pass {0}; }}\n\
             location / {{ proxy_pass {0}; }}",
            origin.url()
        ),
    );
    let mut client = client(&ringwall);
    for (path, lines) in [
        ("/", "X-User: root\r\nx_org: root\r\nX-Unit: root\r\n"),
        ("/set/", "x-user: root\r\n"),
    ] {
        assert_eq!(
            ask(&mut client, "GET", path, lines).text(),
            "none",
            "{path}"
        );
    }
    let received = origin.all_received_text();
    assert!(!received.contains("root"), "{received}");
}

#[test]
fn redirects_name_this_server_as_the_configuration_says() {
    let ringwall = server(
        "location /whole { return 301 /x; }\n\
         location /path { absolute_redirect off; return 301 /x; }\n\
         location /portless { port_in_redirect off; return 301 /x; }\n\
         location /named { server_name_in_redirect on; port_in_redirect off; return 301 /x; }",
    );
    let mut client = client(&ringwall);
    let port = ringwall.address("HTTP").port();
    for (target, location) in [
        ("/whole", format!("http://b:{port}/x")),
        ("/path", "/x".into()),
        ("/portless", "http://b/x".into()),
        ("/named", format!("http://{HOST}/x")),
    ] {
        let response = client.get("b", target);
        assert_eq!(response.header("location"), Some(&*location), "{target}");
    }
}

#[test]
fn the_first_file_that_exists_is_served_or_else_what_comes_last() {
    let origin = Origin::http(|request| ok(&request.line));
    let mut site = Site::new();
    for folder in ["www/dir", "www/new"] {
        std::fs::create_dir_all(site.file(folder)).expect("a fresh directory");
    }
    site.write("www/a.html", "file a");
    site.write("www/dir/index.html", "index of dir");
    site.write("www/index.html", "front");
    site.write("www/new/b.html", "new b");
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; root @DIR@/www;\n\
         location / {{ try_files $uri $uri.html $uri/ @app; }}\n\
         location @app {{ proxy_pass {0}; }}\n\
         location /code/ {{ try_files $uri =418; }}\n\
         location /spa/ {{ try_files $uri /index.html?from=$uri; }}\n\
         location /old/ {{ alias @DIR@/www/new/; try_files $uri b.html =404; }}\n\
         location /pass/ {{ try_files /a.html =404; proxy_pass {0}; }}\n\
         location /if/ {{\n\
             if (-f $document_root/a.html) {{ set $found file; }}\n\
             if (-d $document_root/dir) {{ set $found \"$found dir\"; }}\n\
             if (!-e $document_root/none) {{ set $found \"$found none\"; }}\n\
             if (-x $document_root/a.html) {{ set $found executable; }}\n\
             return 200 $found;\n\
         }} }}",
        origin.url()
    )));
    let mut client = client(&ringwall);
    for (target, status, text) in [
        ("/a.html", 200, "file a"),
        ("/a?x", 200, "file a"),
        ("/dir/", 200, "index of dir"),
        ("/none/x?y=%20", 200, "GET /none/x?y=%20 HTTP/1.1"),
        ("/code/x", 418, ""),
        ("/spa/x", 200, "front"),
        ("/old/b.html", 200, "new b"),
        ("/old/x", 200, "new b"),
        ("/pass/x?y", 200, "GET /pass/x?y HTTP/1.1"),
        ("/if/", 200, "file dir none"),
    ] {
        let response = client.get("a", target);
        assert_eq!(
            (response.status, &*response.text()),
            (status, text),
            "{target}"
        );
    }
    let to_dir = client.get("a", "/dir");
    let port = ringwall.address("HTTP").port();
    assert_eq!(
        to_dir.header("location"),
        Some(&*format!("http://a:{port}/dir/"))
    );
}
