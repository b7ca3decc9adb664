//! The configurations that operators have: of each usual kind one, given to
//! Debian's Nginx and to ringwall before the same backend. Whatever a client
//! asks, both answer the same, and the backend hears the same.

use std::io::Read;
use std::path::Path;

use super::differential::comparable;
use crate::support::client::{Connection, Response, TlsClient};
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, Peer, ok_bytes};
use crate::support::pki::Pki;
use crate::support::ringwall::{HOST, Ringwall, Site, http};

/// Tells all that it is sent, unless its target asks for something else.
fn backend() -> Origin {
    Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            let path = request.target().split('?').next().unwrap_or_default();
            let asked = request.header("host").unwrap_or_default().to_owned();
            let answer = match path.rsplit('/').next().unwrap_or_default() {
                "moved" => format!(
                    "HTTP/1.1 302 Found\r\nLocation: http://{asked}/there?x=1\r\n\
                     Set-Cookie: id=1; Path=/; HttpOnly\r\nContent-Length: 0\r\n\r\n"
                )
                .into_bytes(),
                "accel" => b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: /protected/file.txt\r\n\
                     Content-Disposition: attachment\r\nContent-Type: text/x-own\r\n\
                     Content-Length: 7\r\n\r\nignored"
                    .to_vec(),
                "broken" => b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops".to_vec(),
                "verify" => verdict(request.header("cookie")),
                "switch" => return switch(peer),
                "text" => ok_bytes(&b"the same words again and again. ".repeat(100)),
                _ => told(&request),
            };
            let head = crate::support::find(&answer, b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
            let is_head = request.line.starts_with("HEAD ");
            peer.send(if is_head { &answer[..head] } else { &answer })?;
            if request.line.ends_with("1.0") {
                return peer.finish();
            }
        }
    })
}

fn told(request: &crate::support::origin::Request) -> Vec<u8> {
    let mut told = format!("{}\n", request.line);
    // Nginx of this age closes; ringwall keeps the connection.
    let fields = request.headers.iter();
    for (name, value) in fields.filter(|(_, value)| value != "close") {
        told.push_str(&format!("{name}: {value}\n"));
    }
    let mut told = told.into_bytes();
    told.extend_from_slice(&request.body);
    ok_bytes(&told)
}

/// What a sign-on service says to the proxy.
fn verdict(cookie: Option<&str>) -> Vec<u8> {
    match cookie {
        Some("session=good") => {
            b"HTTP/1.1 204 No Content\r\nX-User: alice\r\nX-Groups: a,b\r\n\r\n".to_vec()
        }
        Some("session=poor") => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"x\"\r\n\
             Content-Length: 0\r\n\r\n"
            .to_vec(),
    }
}

/// Another protocol: says what it hears.
fn switch(peer: &mut Peer) -> std::io::Result<()> {
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")?;
    let heard = peer.some()?;
    peer.send(&heard)?;
    peer.finish()
}

/// Both servers with one configuration: `@PORT@` and `@SECURE@` are theirs,
/// `@BACKEND@` is the backend, `@WWW@` the folder of files.
struct Both {
    ringwall: Ringwall,
    nginx: Nginx,
    nginx_site: Site,
    pki: Pki,
    origin: Origin,
}

impl Both {
    fn start(configuration: &str, files: &[(&str, &str)]) -> Self {
        let origin = backend();
        let configuration = configuration.replace("@BACKEND@", &origin.address());
        let (mut nginx_site, pki) = Site::with_pki();
        let site = Site::new();
        pki.write(site.path());
        for folder in [nginx_site.path(), site.path()] {
            for (name, text) in files {
                put(folder, name, text);
            }
        }
        let fill = |port: &str, secure: &str, www: &Path| {
            configuration
                .replace("@PORT@", port)
                .replace("@SECURE@", secure)
                .replace("@WWW@", &www.display().to_string())
        };
        let folder = nginx_site.file("www");
        // Nginx of this age speaks HTTP/1.0 to backends unless told.
        let of_nginx = format!(
            "proxy_http_version 1.1;\n{}",
            fill("@NGINX@", "@NGINXTLS@", &folder)
        );
        let nginx = Nginx::start(&mut nginx_site, &of_nginx);
        let folder = site.file("www");
        let ringwall = site.start(&http(&fill("@HTTP@", "@HTTPS@", &folder)));
        Self {
            ringwall,
            nginx,
            nginx_site,
            pki,
            origin,
        }
    }

    fn connect(&mut self, secure: bool, to_nginx: bool, host: &str) -> (Connection, u16) {
        let address = match (to_nginx, secure) {
            (true, false) => self.nginx.address(),
            (true, true) => crate::support::local(self.nginx_site.port("NGINXTLS")),
            (false, false) => self.ringwall.address("HTTP"),
            (false, true) => self.ringwall.address("HTTPS"),
        };
        let client = match secure {
            false => Connection::plain(address),
            true => TlsClient::new(&self.pki.ca)
                .connect(address, host)
                .expect("a handshake"),
        };
        (client, address.port())
    }

    /// One request to both; yields the answer that they agree on.
    fn ask(
        &mut self,
        secure: bool,
        method: &str,
        target: &str,
        host: &str,
        rest: &str,
    ) -> Response {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{rest}");
        let mut answers = [false, true].map(|to_nginx| {
            let (mut client, port) = self.connect(secure, to_nginx, host);
            client.send(&bytes);
            let response = client.try_response(method).ok();
            (response, port)
        });
        let shown = answers.each_mut().map(|(response, port)| match response {
            Some(response) => {
                inflate(response);
                comparable(response, *port)
            }
            None => "closed without a response".into(),
        });
        assert_eq!(shown[0], shown[1], "{bytes}");
        let [(ours, _), _] = answers;
        ours.unwrap_or_else(|| panic!("no response to {bytes}"))
    }

    fn get(&mut self, target: &str) -> Response {
        self.ask(false, "GET", target, HOST, "\r\n")
    }

    fn get_with(&mut self, target: &str, fields: &str) -> Response {
        self.ask(false, "GET", target, HOST, &format!("{fields}\r\n"))
    }

    fn get_of(&mut self, host: &str, target: &str) -> Response {
        self.ask(false, "GET", target, host, "\r\n")
    }

    fn get_secure(&mut self, target: &str) -> Response {
        self.ask(true, "GET", target, HOST, "\r\n")
    }
}

/// Files of the same age on both sides, so that what is said of it is the same.
fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    std::fs::write(&path, text).expect("writable");
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("just written");
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    file.set_modified(then).expect("settable");
}

/// Two compressors need not agree, but on what comes out again.
fn inflate(response: &mut Response) {
    if response.header("content-encoding") == Some("gzip") && !response.body.is_empty() {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*response.body)
            .read_to_end(&mut plain)
            .expect("gzip");
        response.body = plain;
    }
}

const CERTIFICATES: &str =
    "ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;";

#[test]
fn the_intermediate_configuration_of_mozillas_generator() {
    let mut both = Both::start(
        &format!(
            r#"
server {{
    listen 127.0.0.1:@PORT@ default_server;
    location / {{ return 301 https://$host$request_uri; }}
}}
server {{
    listen 127.0.0.1:@SECURE@ ssl http2;
    {CERTIFICATES}
    ssl_session_timeout 1d;
    ssl_session_cache shared:MozSSL:10m;  # about 40000 sessions
    ssl_session_tickets off;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384;
    ssl_prefer_server_ciphers off;
    # HSTS (ngx_http_headers_module is required) (63072000 seconds)
    add_header Strict-Transport-Security "max-age=63072000" always;
    location / {{
        proxy_pass http://@BACKEND@;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
}}
"#
        ),
        &[],
    );
    let moved = both.get("/a/b?c=d&e=%20");
    let there = format!("https://{HOST}/a/b?c=d&e=%20");
    assert_eq!(moved.header("location"), Some(&*there));
    let answer = both.get_secure("/x?y");
    assert!(answer.text().contains("X-Forwarded-Proto: https"));
    assert!(answer.header("strict-transport-security").is_some());
    assert_eq!(both.get_secure("/broken").status, 500);
    both.ask(true, "HEAD", "/", HOST, "\r\n");
    both.ask(true, "POST", "/", HOST, "Content-Length: 3\r\n\r\nabc");
}

#[test]
fn what_certbot_leaves_behind() {
    let mut both = Both::start(
        &format!(
            r#"
server {{
    server_name {HOST} www.{HOST};
    root @WWW@;
    index index.html;
    location / {{ try_files $uri $uri/ =404; }}
    listen 127.0.0.1:@SECURE@ ssl; # managed by Certbot
    {CERTIFICATES}
}}
server {{
    if ($host = www.{HOST}) {{
        return 301 https://$host$request_uri;
    }} # managed by Certbot

    if ($host = {HOST}) {{
        return 301 https://$host$request_uri;
    }} # managed by Certbot

    listen 127.0.0.1:@PORT@;
    server_name {HOST} www.{HOST};
    location ^~ /.well-known/acme-challenge/ {{ root @WWW@/acme; default_type "text/plain"; }}
    return 404; # managed by Certbot
}}
"#
        ),
        &[
            ("www/index.html", "<p>home</p>"),
            ("www/sub/index.html", "<p>sub</p>"),
        ],
    );
    assert_eq!(both.get("/x?y=z").status, 301);
    assert_eq!(both.get_of(&format!("www.{HOST}"), "/").status, 301);
    assert_eq!(both.get_of("other.test", "/").status, 404);
    // Found too late by the script of the server; as with Nginx.
    assert_eq!(both.get("/.well-known/acme-challenge/token").status, 301);
    assert_eq!(both.get_secure("/").text(), "<p>home</p>");
    assert_eq!(both.get_secure("/sub/").text(), "<p>sub</p>");
    assert_eq!(both.get_secure("/sub").status, 301);
    assert_eq!(both.get_secure("/none").status, 404);
}

#[test]
fn the_usual_recipe_for_websockets() {
    let mut both = Both::start(
        r#"
map $http_upgrade $connection_upgrade { default upgrade; '' close; }
server {
    listen 127.0.0.1:@PORT@;
    location / {
        proxy_pass http://@BACKEND@;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Host $host;
        proxy_read_timeout 86400s;
        proxy_buffering off;
    }
}
"#,
        &[],
    );
    both.get("/chat");
    both.get_with("/chat", "Upgrade: websocket\r\nConnection: Upgrade\r\n");
    for to_nginx in [false, true] {
        let (mut client, _) = both.connect(false, to_nginx, HOST);
        client.send(format!(
            "GET /switch HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
        ));
        let head = client.head().expect("a head");
        assert_eq!(head.status, 101);
        assert_eq!(head.header("upgrade"), Some("echo"));
        client.send("anything\0at all");
        assert_eq!(client.until_close().expect("an end"), b"anything\0at all");
    }
}

#[test]
fn an_application_of_one_page_and_its_api() {
    let mut both = Both::start(
        r#"
server {
    listen 127.0.0.1:@PORT@;
    root @WWW@;
    index index.html;
    location / { try_files $uri $uri/ /index.html; }
    location = /index.html { add_header Cache-Control "no-cache, no-store, must-revalidate"; expires 0; }
    location ~* \.(?:js|css|woff2?)$ {
        expires 1y;
        add_header Cache-Control "public, immutable";
        access_log off;
    }
    location /api/ {
        proxy_pass http://@BACKEND@/;
        proxy_set_header X-Real-IP $remote_addr;
    }
    location = /favicon.ico { log_not_found off; access_log off; return 204; }
}
"#,
        &[
            ("www/index.html", "<div id=app></div>"),
            ("www/app.js", "start()"),
            ("www/docs/index.html", "docs"),
        ],
    );
    for target in ["/", "/users/7", "/index.html", "/docs/", "/api", "/a%20b"] {
        // Where Expires is now, the second may pass between the two.
        both.get_steady(target);
    }
    assert_eq!(both.get("/docs").status, 301);
    assert_eq!(both.get("/favicon.ico").status, 204);
    assert_eq!(both.get_steady("/app.js").text(), "start()");
    assert_eq!(both.get("/lost.js").status, 404);
    assert!(
        both.get("/api/v1/x?y=1")
            .text()
            .starts_with("GET /v1/x?y=1 ")
    );
    both.ask(
        false,
        "PUT",
        "/api/v1/x",
        HOST,
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
}

impl Both {
    /// [`Both::get`] where the answer tells the time: again, if a second has
    /// passed between the two.
    fn get_steady(&mut self, target: &str) -> Response {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        crate::support::eventually("both answer within one second", || {
            let mut answers = [false, true].map(|to_nginx| {
                let (mut client, port) = self.connect(false, to_nginx, HOST);
                client.send(&bytes);
                (client.response("GET"), port)
            });
            let same_second = answers[0].0.header("date") == answers[1].0.header("date");
            let shown = answers
                .each_mut()
                .map(|(response, port)| comparable(response, *port));
            if same_second {
                assert_eq!(shown[0], shown[1], "{target}");
            }
            let [(ours, _), _] = answers;
            same_second.then_some(ours)
        })
    }
}

#[test]
fn a_site_of_files_with_an_error_page_and_hidden_things() {
    let mut both = Both::start(
        r#"
include @DIR@/types.conf;
server {
    listen 127.0.0.1:@PORT@;
    root @WWW@;
    charset utf-8;
    error_page 404 /404.html;
    location = /404.html { internal; }
    location ~ /\.(?!well-known) { deny all; }
    location /private/ { autoindex off; }
    location /downloads/ { alias @WWW@/files/; add_header X-Robots-Tag none always; }
    location ~* ^/old/(.*)$ { return 301 /new/$1$is_args$args; }
}
"#,
        &[
            (
                "types.conf",
                "types { text/html html; text/plain txt; image/png png; }",
            ),
            ("www/index.html", "<p>home</p>"),
            ("www/404.html", "<p>lost</p>"),
            ("www/.git/config", "secret"),
            ("www/.well-known/x.txt", "known"),
            ("www/private/a.txt", "a"),
            ("www/files/b.txt", "0123456789"),
            ("www/picture.png", "png"),
        ],
    );
    for target in [
        "/",
        "/none",
        "/404.html",
        "/.git/config",
        "/.well-known/x.txt",
        "/private/",
        "/private/a.txt",
        "/downloads/b.txt",
        "/downloads/none",
        "/downloads/../.git/config",
        "/old/a/b?c=d",
        "/picture.png",
        "/picture.png/",
        "/%2egit/config",
        "//private//a.txt",
    ] {
        both.get(target);
    }
    both.get_with("/downloads/b.txt", "Range: bytes=2-5\r\n");
    // Where there is an `add_header … always`, Nginx says it twice with a 416.
    both.get_with("/private/a.txt", "Range: bytes=20-\r\n");
    both.get_with(
        "/downloads/b.txt",
        "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n",
    );
    both.ask(
        false,
        "POST",
        "/index.html",
        HOST,
        "Content-Length: 0\r\n\r\n",
    );
    both.ask(false, "HEAD", "/downloads/b.txt", HOST, "\r\n");
}

#[test]
fn a_gateway_with_cross_origin_rules_by_if() {
    let mut both = Both::start(
        r#"
map $http_origin $allowed { default ""; ~^https://([a-z]+\.)?app\.test$ $http_origin; }
server {
    listen 127.0.0.1:@PORT@;
    client_max_body_size 10m;
    location /v1/ {
        if ($request_method = OPTIONS) {
            add_header Access-Control-Allow-Origin $allowed;
            add_header Access-Control-Allow-Methods "GET, POST, OPTIONS";
            add_header Access-Control-Allow-Headers "Authorization,Content-Type";
            add_header Access-Control-Max-Age 1728000;
            add_header Content-Type 'text/plain; charset=utf-8';
            add_header Content-Length 0;
            return 204;
        }
        if ($request_method = POST) { add_header Access-Control-Allow-Origin $allowed always; }
        add_header Access-Control-Allow-Origin $allowed always;
        proxy_hide_header X-Internal;
        proxy_pass http://@BACKEND@;
    }
    location ~ ^/v2/(?<service>users|orders)/(?<rest>.*)$ {
        limit_except GET POST { deny all; }
        proxy_set_header X-Service $service;
        proxy_pass http://@BACKEND@/$service/$rest$is_args$args;
    }
    location / { default_type application/json; return 404 '{"error":"not found"}'; }
}
"#,
        &[],
    );
    let origin = "Origin: https://www.app.test\r\n";
    both.ask(false, "OPTIONS", "/v1/x", HOST, &format!("{origin}\r\n"));
    both.ask(
        false,
        "POST",
        "/v1/x",
        HOST,
        &format!("{origin}Content-Length: 2\r\n\r\nhi"),
    );
    both.get_with("/v1/x", origin);
    both.get_with("/v1/broken", origin);
    both.get_with("/v1/x", "Origin: https://evil.test\r\n");
    let answer = both.get("/v2/users/7/mail?x=y");
    assert!(answer.text().starts_with("GET /users/7/mail?x=y "));
    assert_eq!(
        both.ask(false, "DELETE", "/v2/orders/1", HOST, "\r\n")
            .status,
        403
    );
    assert_eq!(both.get("/v2/other/1").text(), "{\"error\":\"not found\"}");
}

#[test]
fn several_virtual_hosts_and_one_for_nobody() {
    let mut both = Both::start(
        r#"
server { listen 127.0.0.1:@PORT@ default_server; server_name _; return 444; }
server { listen 127.0.0.1:@PORT@; server_name www.one.test; return 301 $scheme://one.test$request_uri; }
server {
    listen 127.0.0.1:@PORT@;
    server_name one.test;
    location / { proxy_pass http://@BACKEND@; proxy_set_header Host $http_host; }
}
server {
    listen 127.0.0.1:@PORT@;
    server_name .two.test;
    location / { return 200 "two $host\n"; }
}
server {
    listen 127.0.0.1:@PORT@;
    server_name ~^(?<user>[a-z]+)\.users\.test$;
    location / { rewrite ^/(.*)$ /home/$user/$1 break; proxy_pass http://@BACKEND@; }
}
server { listen 127.0.0.1:@PORT@; server_name three.*; location / { return 200 "three"; } }
"#,
        &[],
    );
    assert_eq!(both.get_of("www.one.test", "/a?b").status, 301);
    for host in [
        "one.test",
        "two.test",
        "a.b.two.test",
        "TWO.test",
        "three.example",
        "three.test:80",
        "bob.users.test",
    ] {
        assert_eq!(both.get_of(host, "/path?x").status, 200, "{host}");
    }
    for to_nginx in [false, true] {
        let (mut client, _) = both.connect(false, to_nginx, "none.test");
        client.send("GET / HTTP/1.1\r\nHost: none.test\r\n\r\n");
        assert!(client.try_response("GET").is_err());
    }
}

#[test]
fn limits_on_how_often_and_how_many() {
    let mut both = Both::start(
        r#"
limit_req_zone $binary_remote_addr zone=login:10m rate=1r/m;
limit_conn_zone $binary_remote_addr zone=addr:10m;
server {
    listen 127.0.0.1:@PORT@;
    limit_req_status 429;
    limit_conn addr 10;
    location /login { limit_req zone=login burst=2 nodelay; proxy_pass http://@BACKEND@; }
    location / { limit_conn addr 10; proxy_pass http://@BACKEND@; error_page 429 /slow; }
    location = /slow { internal; return 200 "slow down"; }
}
"#,
        &[],
    );
    let statuses: Vec<u16> = (0..5).map(|_| both.get("/login").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(both.get("/other").status, 200);
}

#[test]
fn single_sign_on_by_auth_request() {
    let mut both = Both::start(
        r#"
server {
    listen 127.0.0.1:@PORT@;
    location = /_auth {
        internal;
        proxy_pass http://@BACKEND@/verify;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Original-URI $request_uri;
    }
    location @login { return 302 https://sso.test/login?to=$scheme://$http_host$request_uri; }
    location / {
        auth_request /_auth;
        auth_request_set $user $upstream_http_x_user;
        auth_request_set $groups $upstream_http_x_groups;
        error_page 401 = @login;
        proxy_set_header X-User $user;
        proxy_set_header X-Groups $groups;
        add_header X-Seen-As $user;
        proxy_pass http://@BACKEND@;
    }
    location /api/ { auth_request /_auth; proxy_pass http://@BACKEND@; }
    location /public/ { auth_request off; proxy_pass http://@BACKEND@; }
}
"#,
        &[],
    );
    assert_eq!(both.get("/page?x=1").status, 302);
    let answer = both.get_with("/page", "Cookie: session=good\r\n");
    assert!(answer.text().contains("X-User: alice\n"));
    assert_eq!(answer.header("x-seen-as"), Some("alice"));
    assert_eq!(
        both.get_with("/page", "Cookie: session=poor\r\n").status,
        403
    );
    let refused = both.get("/api/x");
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Bearer realm=\"x\"")
    );
    assert_eq!(both.get("/public/x").status, 200);
    both.ask(
        false,
        "POST",
        "/page",
        HOST,
        "Cookie: session=good\r\nContent-Length: 4\r\n\r\nbody",
    );
}

#[test]
fn compression_and_freshness() {
    let mut both = Both::start(
        r#"
include @DIR@/types.conf;
gzip on;
gzip_vary on;
gzip_proxied any;
gzip_comp_level 6;
gzip_min_length 256;
gzip_types text/plain text/css application/json;
gzip_disable "msie6";
server {
    listen 127.0.0.1:@PORT@;
    root @WWW@;
    location /css/ { expires 30d; add_header Vary Accept-Encoding; }
    location /api/ { proxy_pass http://@BACKEND@; }
    location /raw/ { gzip off; proxy_pass http://@BACKEND@/; }
}
"#,
        &[
            ("types.conf", "types { text/html html; text/css css; }"),
            ("www/css/long.css", &"p { color: red }\n".repeat(50)),
            ("www/css/short.css", "p {}"),
            ("www/long.html", &"<p>words</p>\n".repeat(50)),
        ],
    );
    let accepts = "Accept-Encoding: gzip, deflate, br\r\n";
    let answer = both.get_with("/api/text", accepts);
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(
        both.get_with("/long.html", accepts)
            .header("content-encoding"),
        Some("gzip")
    );
    for target in ["/api/text", "/api/small", "/raw/text", "/long.html"] {
        both.get(target);
    }
    both.get_with("/raw/text", accepts);
    both.get_with("/api/small", accepts);
    both.get_with("/api/text", "Accept-Encoding: gzip;q=0\r\n");
    both.get_with("/api/text", &format!("{accepts}Via: 1.1 proxy\r\n"));
    both.get_with(
        "/api/text",
        &format!("{accepts}User-Agent: Mozilla/4.0 (compatible; MSIE 6.0)\r\n"),
    );
    both.get_with("/long.html", &format!("{accepts}Range: bytes=0-9\r\n"));
    both.ask(false, "HEAD", "/long.html", HOST, &format!("{accepts}\r\n"));
    both.get_steady("/css/short.css");
}

#[test]
fn a_group_of_backends_with_kept_connections_and_one_that_is_down() {
    let mut both = Both::start(
        r#"
upstream app {
    least_conn;
    server 127.0.0.1:1 max_fails=1 fail_timeout=30s;
    server @BACKEND@ backup;
    keepalive 16;
}
server {
    listen 127.0.0.1:@PORT@;
    location / {
        proxy_pass http://app;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_next_upstream error timeout http_502 http_503;
        proxy_connect_timeout 5s;
    }
    location /only/ { proxy_pass http://127.0.0.1:1; }
    location /custom/ { proxy_pass http://127.0.0.1:1; error_page 502 503 504 /50x.html; }
    location = /50x.html { root @WWW@; }
}
"#,
        &[("www/50x.html", "<p>back soon</p>")],
    );
    for _ in 0..3 {
        let answer = both.get("/x");
        assert!(answer.text().contains("Host: app\n"), "{}", answer.text());
    }
    both.ask(false, "POST", "/x", HOST, "Content-Length: 2\r\n\r\nhi");
    assert_eq!(both.get("/only/").status, 502);
    assert_eq!(both.get("/custom/").text(), "<p>back soon</p>");
    assert!(both.origin.requests() >= 8);
}

#[test]
fn an_application_below_a_path_of_its_own() {
    let mut both = Both::start(
        r#"
server {
    listen 127.0.0.1:@PORT@;
    location /app/ {
        proxy_pass http://@BACKEND@/;
        proxy_redirect default;
        proxy_cookie_path / /app/;
        proxy_cookie_domain off;
    }
    location = /app { return 302 /app/; }
    location /raw/ { proxy_pass http://@BACKEND@/; proxy_redirect off; }
    location /mapped/ {
        proxy_pass http://@BACKEND@/;
        proxy_redirect ~^http://[^/]+/(.*)$ https://public.test/mapped/$1;
        proxy_set_header Host $host:$server_port;
    }
}
"#,
        &[],
    );
    let moved = both.get("/app/moved");
    assert!(
        moved
            .header("location")
            .is_some_and(|to| to.ends_with("/app/there?x=1"))
    );
    for target in [
        "/app",
        "/raw/moved",
        "/mapped/moved",
        "/app/a%2Fb/c%20d?e=%41",
    ] {
        both.get(target);
    }
}

#[test]
fn passwords_addresses_maintenance_and_protected_files() {
    let mut both = Both::start(
        r#"
server {
    listen 127.0.0.1:@PORT@;
    root @WWW@;
    error_page 503 @maintenance;
    location @maintenance { rewrite ^(.*)$ /maintenance.html break; }
    location /closed/ {
        if (-f $document_root/maintenance.on) { return 503; }
        proxy_pass http://@BACKEND@;
    }
    location /open/ {
        if (!-f $document_root/maintenance.off) { proxy_pass http://@BACKEND@; }
    }
    location /admin/ {
        satisfy any;
        deny all;
        auth_basic "Administration";
        auth_basic_user_file @DIR@/htpasswd;
        proxy_pass http://@BACKEND@;
    }
    location /office/ { allow 127.0.0.0/8; deny all; proxy_pass http://@BACKEND@; }
    location /files/ { proxy_pass http://@BACKEND@; }
    location /protected/ { internal; alias @WWW@/store/; }
}
"#,
        &[
            ("www/maintenance.html", "<p>back at noon</p>"),
            ("www/maintenance.on", ""),
            ("www/store/file.txt", "what was asked for"),
            // "secret", as `openssl passwd -apr1 -salt abcdefgh` has it.
            ("htpasswd", "alice:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n"),
        ],
    );
    assert_eq!(both.get("/closed/x").status, 503);
    both.get("/open/x");
    assert_eq!(both.get("/admin/").status, 401);
    both.get_with("/admin/", "Authorization: Basic YWxpY2U6c2VjcmV0\r\n");
    both.get_with("/admin/", "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n");
    assert_eq!(both.get("/office/x").status, 200);
    let sent = both.get("/files/accel");
    assert_eq!(sent.text(), "what was asked for");
    assert_eq!(both.get("/protected/file.txt").status, 404);
}

#[test]
fn pictures_that_only_ones_own_pages_may_show() {
    let mut both = Both::start(
        r#"
server {
    listen 127.0.0.1:@PORT@;
    server_name test.example .ours.test;
    location /pictures/ {
        valid_referers none blocked server_names *.friend.test www.partner.* shop.test/deals/
                       ~\.google\.;
        if ($invalid_referer) { return 403; }
        proxy_pass http://@BACKEND@;
    }
    location /strict/ {
        valid_referers friend.test;
        if ($invalid_referer) { return 403; }
        proxy_pass http://@BACKEND@;
    }
    location / { return 200 "unasked: $invalid_referer"; }
}
"#,
        &[],
    );
    assert_eq!(both.get("/x").text(), "unasked: ");
    for (referer, allowed) in [
        ("", true),
        ("http://test.example/page", true),
        ("https://a.ours.test:8443/", true),
        ("http://OURS.test", true),
        ("http://a.friend.test/x", true),
        ("http://friend.test/x", false),
        ("http://www.partner.org/", true),
        ("http://shop.test/deals/7", true),
        ("http://shop.test/other", false),
        ("http://www.google.com/search", true),
        ("http://evil.test/?www.GOOGLE.com", true),
        ("http://evil.test/", false),
        ("something that is no address", true),
        ("ftp://friend.test/of/old", true),
    ] {
        let field = match referer {
            "" => String::new(),
            referer => format!("Referer: {referer}\r\n"),
        };
        let answer = both.get_with("/pictures/a.png", &field);
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{referer}");
        both.get_with("/strict/a.png", &field);
    }
}

#[test]
fn a_private_cloud_with_its_discovery_and_uploads() {
    let mut both = Both::start(
        r#"
upstream cloud { server @BACKEND@; keepalive 8; }
map $arg_v $asset_immutable { "" ""; default ", immutable"; }
server {
    listen 127.0.0.1:@PORT@;
    server_name test.example;
    server_tokens off;
    client_max_body_size 512M;
    client_body_timeout 300s;
    add_header Referrer-Policy "no-referrer" always;
    add_header X-Content-Type-Options "nosniff" always;
    add_header X-Robots-Tag "noindex, nofollow" always;
    root @WWW@;
    index index.html /index.php$request_uri;

    location = / { if ($http_user_agent ~ ^DavClnt) { return 302 /remote.php/webdav/$is_args$args; } proxy_pass http://cloud; }
    location = /robots.txt { allow all; log_not_found off; access_log off; }
    location ^~ /.well-known {
        location = /.well-known/carddav { return 301 /remote.php/dav/; }
        location = /.well-known/caldav { return 301 /remote.php/dav/; }
        location /.well-known/acme-challenge { try_files $uri $uri/ =404; }
        return 301 /index.php$request_uri;
    }
    location ~ ^/(?:build|tests|config|lib|data|templates)(?:$|/) { return 404; }
    location ~ ^/(?:\.|autotest|occ|issue|db_|console) { return 404; }
    location ~ \.php(?:$|/) {
        rewrite ^/(?!index|remote|public|cron|status)  /index.php$request_uri;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Host $host:$server_port;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_request_buffering off;
        proxy_pass http://cloud;
    }
    location ~ \.(?:css|js|svg|png)$ {
        try_files $uri /index.php$request_uri;
        add_header Cache-Control "public, max-age=15778463$asset_immutable";
        access_log off;
    }
    location /remote { return 301 /remote.php$request_uri; }
    location / { try_files $uri $uri/ /index.php$request_uri; }
}
"#,
        &[
            ("www/robots.txt", "User-agent: *"),
            ("www/core.css", "a { color: red }"),
            ("www/.well-known/acme-challenge/token", "proof"),
        ],
    );
    for target in [
        "/",
        "/robots.txt",
        "/.well-known/carddav",
        "/.well-known/webfinger?resource=x",
        "/.well-known/acme-challenge/token",
        "/.well-known/acme-challenge/none",
        "/config/config.php",
        "/data",
        "/database",
        "/.htaccess",
        "/console.php",
        "/index.php/apps/files?dir=%2Fa%20b",
        "/other.php?x=1",
        "/core.css",
        "/core.css?v=3",
        "/lost.svg?v=3",
        "/remote/x?y",
        "/apps/files/%C3%A9?fileid=7",
    ] {
        both.get(target);
    }
    let dav = both.get_with("/?x=1", "User-Agent: DavClnt\r\n");
    assert_eq!(dav.status, 302);
    for method in ["PROPFIND", "MKCOL", "PUT"] {
        let body = "Depth: 0\r\nContent-Length: 4\r\n\r\nbody";
        both.ask(false, method, "/remote.php/dav/files/a%20b", HOST, body);
    }
}

#[test]
fn a_forge_dashboards_and_a_build_server_below_one_host() {
    let mut both = Both::start(
        r#"
map $http_upgrade $connection_upgrade { default upgrade; '' close; }
upstream builds { keepalive 32; server @BACKEND@; }
proxy_set_header X-Outer all;
server {
    listen 127.0.0.1:@PORT@;
    ignore_invalid_headers off;
    underscores_in_headers on;
    large_client_header_buffers 4 32k;
    gzip off;

    location /git/ {
        rewrite ^ $request_uri;
        rewrite ^/git(/.*) $1 break;
        proxy_pass http://@BACKEND@$uri;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        client_max_body_size 0;
    }
    location /grafana/ {
        rewrite ^/grafana/(.*) /$1 break;
        proxy_set_header Host $http_host;
        proxy_pass http://@BACKEND@;
    }
    location /grafana/api/live/ {
        rewrite ^/grafana/(.*) /$1 break;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Host $http_host;
        proxy_pass http://@BACKEND@;
    }
    location ~ "^/static/[0-9a-fA-F]{8}\/(.*)$" { rewrite "^/static/[0-9a-fA-F]{8}\/(.*)" /$1 last; }
    location /userContent { root @WWW@; if (!-f $request_filename) { rewrite (.*) /$1 last; break; } sendfile on; }
    location / {
        sendfile off;
        proxy_pass http://builds;
        proxy_redirect default;
        proxy_redirect http:// https://;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_max_temp_file_size 0;
        proxy_connect_timeout 90;
        proxy_read_timeout 90;
        proxy_request_buffering off;
    }
}
"#,
        &[("www/userContent/a.txt", "of a user")],
    );
    for target in [
        "/git/",
        "/git/a/b.git/info/refs?service=git-upload-pack",
        "/git/a%2Fb",
        "/grafana/",
        "/grafana/d/x%20y?orgId=1",
        "/grafana/api/live/ws",
        "/static/0a1b2c3d/css/a%20b.css",
        "/static/xyz/a.css",
        "/userContent/a.txt",
        "/job/x/moved",
        "/job/x/broken",
        "/job/x/text",
    ] {
        both.get(target);
    }
    both.get_with("/job", "X_Under: 1\r\nX-Ordinary: 2\r\n");
    both.ask(
        false,
        "POST",
        "/git/x",
        HOST,
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    both.ask(false, "HEAD", "/job/x/moved", HOST, "\r\n");
}

#[test]
fn a_front_end_with_what_operators_add_one_by_one() {
    let mut both = Both::start(
        r#"
map $http_user_agent $is_bad { default 0; ~*(curl-bad|masscan) 1; "" 1; }
map $sent_http_content_type $cached { default off; ~image/ 30d; text/html epoch; }
map $request_method $is_write { default 0; POST 1; PUT 1; DELETE 1; }
geo $office { default 0; 127.0.0.0/8 1; 10.0.0.0/8 1; }
include @DIR@/types.conf;
server {
    listen 127.0.0.1:@PORT@ default_server;
    server_name ~^(?<sub>[^.]+)\.multi\.test$ test.example;
    root @WWW@;
    error_page 500 502 503 504 /50x.html;
    error_page 404 /404.html;
    error_page 405 =200 $uri;
    location = /50x.html { internal; add_header Retry-After 30 always; }
    location = /404.html { internal; add_header X-Robots-Tag noindex always; }
    if ($is_bad) { return 403; }
    if ($request_method !~ ^(GET|HEAD|POST|PUT)$) { return 405; }
    location ~* ^.+\.(jpg|png|ico)$ { expires $cached; try_files $uri @app; }
    location ~ /\.ht { deny all; }
    location /status { stub_status; allow 192.0.2.1; deny all; }
    location /write/ { if ($is_write = 0) { return 404; } proxy_pass http://@BACKEND@; }
    location /office/ { if ($office = 0) { return 403; } proxy_pass http://@BACKEND@/in/; proxy_hide_header X-Internal; }
    location /fixed { return 200 "sub=$sub host=$host uri=$request_uri\n"; default_type text/plain; }
    location /teapot { return 418; }
    location /down/ { proxy_pass http://127.0.0.1:1/; }
    location /errors/ { proxy_pass http://@BACKEND@; proxy_intercept_errors on; }
    location /health { access_log off; add_header Content-Type text/plain; return 200 "ok\n"; }
    location / { try_files $uri $uri/index.html @app; }
    location @app {
        proxy_pass http://@BACKEND@;
        proxy_set_header Host $host;
        proxy_set_header X-Request-Start "t=never";
        proxy_set_header Cookie "$http_cookie; via=front";
        proxy_set_header Accept-Encoding "";
        proxy_cookie_path ~^/(.*)$ "/$1; SameSite=Lax";
    }
}
"#,
        &[
            ("types.conf", "types { text/html html; image/png png; }"),
            ("www/index.html", "<p>home</p>"),
            ("www/a.png", "png"),
            ("www/docs/index.html", "<p>docs</p>"),
            ("www/50x.html", "<p>soon</p>"),
            ("www/404.html", "<p>lost</p>"),
            ("www/.htpasswd", "secret"),
        ],
    );
    let agent = "User-Agent: browser\r\n";
    for target in [
        "/none/x.html?y=1",
        "/docs",
        "/docs/",
        "/lost.png",
        "/.htpasswd",
        "/status",
        "/write/x",
        "/office/a%20b?c",
        "/fixed?x=%20",
        "/teapot",
        "/down/x",
        "/errors/broken",
        "/errors/text",
        "/health",
        "/50x.html",
        "/404.html",
        "/shop/moved",
        "/shop/broken",
    ] {
        both.get_with(target, agent);
        both.ask(false, "HEAD", target, HOST, &format!("{agent}\r\n"));
        let body = format!("{agent}Cookie: a=1\r\nContent-Length: 2\r\n\r\nhi");
        both.ask(false, "POST", target, HOST, &body);
    }
    both.get("/fixed");
    both.get_with("/fixed", "User-Agent: MASSCAN/1\r\n");
    both.ask(false, "DELETE", "/fixed", HOST, &format!("{agent}\r\n"));
    both.ask(
        false,
        "GET",
        "/fixed",
        "shop.multi.test",
        &format!("{agent}\r\n"),
    );
}

#[test]
fn errors_have_pages_that_know_of_them_and_no_page_has_another() {
    let mut both = Both::start(
        r#"
server {
    listen 127.0.0.1:@PORT@;
    error_page 403 500 502 /error?of=$status;
    location = /error { internal; default_type application/json; return 200 '{"status":$status,"args":"$args"}'; }
    location / { proxy_pass http://@BACKEND@; proxy_intercept_errors on; }
    location /none/ { return 403; }
    location /down/ { proxy_pass http://127.0.0.1:1; }
    location /of-target/ { error_page 403 = @named; return 403; }
    location /changed/ { error_page 403 =200 @named; return 403; }
    location @named { return 202 "$status"; }
    location /first/ {
        proxy_pass http://@BACKEND@; proxy_intercept_errors on;
        error_page 500 = /second/broken;
    }
    location /second/ {
        proxy_pass http://@BACKEND@; proxy_intercept_errors on;
        error_page 500 /error;
    }
    location /unintercepted/ { proxy_pass http://@BACKEND@; }
    location /protected/ { internal; return 404; }
}"#,
        &[],
    );
    for (target, status, text) in [
        ("/broken", 500, Some(r#"{"status":500,"args":"of=500"}"#)),
        ("/none/", 403, Some(r#"{"status":403,"args":"of=403"}"#)),
        ("/down/", 502, Some(r#"{"status":502,"args":"of=502"}"#)),
        ("/of-target/", 202, Some("202")),
        ("/changed/", 200, Some("200")),
        ("/first/broken", 500, None),
        ("/unintercepted/broken", 500, Some("oops")),
    ] {
        let answer = both.get(target);
        assert_eq!(answer.status, status, "{target}");
        if let Some(text) = text {
            assert_eq!(answer.text(), text, "{target}");
        }
        both.ask(false, "HEAD", target, HOST, "\r\n");
    }
    assert!(both.get("/first/broken").text().contains("<center>"));
    // The page about what the backend wanted sent is not of that type.
    let missing = both.get("/unintercepted/accel");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.header("content-type"), Some("text/html"));
    assert_eq!(missing.header("content-disposition"), Some("attachment"));
}

#[test]
fn a_connection_goes_on_after_an_answer_that_came_before_the_body() {
    let mut both = Both::start(
        "server { listen 127.0.0.1:@PORT@; location / { return 200 $request_method; } }",
        &[],
    );
    for to_nginx in [true, false] {
        let (mut client, _) = both.connect(false, to_nginx, HOST);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(client.response("POST").text(), "POST");
        client.send("helloGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response("GET").text(), "GET");
    }
}

#[test]
fn what_is_over_a_limit_may_be_closed_without_an_answer() {
    let mut both = Both::start(
        "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;\n\
         server { listen 127.0.0.1:@PORT@; limit_req zone=one; limit_req_status 444;\n\
         error_page 444 /page; location / { proxy_pass http://@BACKEND@; } }",
        &[],
    );
    both.get("/");
    for to_nginx in [true, false] {
        let (mut client, _) = both.connect(false, to_nginx, HOST);
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        client.expect_close(if to_nginx { "Nginx" } else { "ringwall" });
    }
}

#[test]
fn a_client_that_names_no_host_is_redirected_to_the_address_it_came_to() {
    let mut both = Both::start(
        "server { listen 127.0.0.1:@PORT@; server_name a.test; location / { return 301 /there; }\n\
         location /named/ { server_name_in_redirect on; return 301 /there; } }",
        &[],
    );
    for to_nginx in [true, false] {
        for (target, host) in [("/", "127.0.0.1"), ("/named/", "a.test")] {
            let (mut client, port) = both.connect(false, to_nginx, HOST);
            client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
            let answer = client.response("GET");
            let expected = format!("http://{host}:{port}/there");
            assert_eq!(answer.header("location"), Some(&*expected), "{target}");
        }
    }
}

#[test]
fn a_backend_whose_server_field_passes_may_have_none() {
    let mut both = Both::start(
        "server { listen 127.0.0.1:@PORT@; location / { proxy_pass http://@BACKEND@; }\n\
         location /theirs/ { proxy_pass_header Server; proxy_pass http://@BACKEND@; } }",
        &[],
    );
    for to_nginx in [true, false] {
        for (target, is_there) in [("/", true), ("/theirs/", false)] {
            let (mut client, _) = both.connect(false, to_nginx, HOST);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let answer = client.response("GET");
            assert_eq!(answer.header("server").is_some(), is_there, "{target}");
        }
    }
}
