//! The same requests to Debian's Nginx and to ringwall with the same
//! configuration: what the client gets back and what the backend is sent are
//! the same, but for the differences that are listed here with their reasons.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::support::client::{Connection, Response};
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok_bytes};
use crate::support::ringwall::{Site, http};

/// What both serve; `@BACKEND@` tells all that it is sent.
const SERVERS: &str = r#"
map $http_x_kind $kind { default other; ~^(?<letter>[a-z])\d+$ "letter-$letter"; exact found; }
map $arg_v $nested { "" none; default $kind; }
geo $place { default far; 127.0.0.0/8 near; }
split_clients "$arg_id" $share { 30% a; 30.5% b; * c; }
server {
    listen 127.0.0.1:@PORT@ default_server;
    server_name first.test;
    add_header X-Always "$kind $nested $place $share" always;
    add_header X-Ordinary $uri;
    client_max_body_size 64;
    error_page 404 /errors/404;
    error_page 403 =410 /errors/gone?code=403;
    error_page 502 = @fallback;
    location / { proxy_pass http://@BACKEND@; }
    location = /exact { return 200 "exact $request_uri $args"; }
    location /prefix/ { proxy_pass http://@BACKEND@/other/; }
    location /plain { proxy_pass http://@BACKEND@/replaced; }
    location /slashed/ { proxy_pass http://@BACKEND@; proxy_set_header X-Args $args; }
    location ^~ /stop/ { return 200 "stop $uri"; }
    location ~ ^/re/(\w+)/(.*)$ { return 200 "re $1 $2"; }
    location ~* \.TXT$ { return 200 "text $uri"; }
    location /nested/ {
        return 200 "outer $uri";
        location /nested/inner/ { return 200 "inner $uri"; }
        location ~ \.n$ { return 200 "nested-re $uri"; }
    }
    location /rw/ {
        rewrite ^/rw/a/(.*)$ /prefix/$1 last;
        rewrite ^/rw/b/(.*)$ /kept/$1?from=$1 break;
        rewrite ^/rw/c/(.*)$ /exact?c=$1? last;
        rewrite ^/rw/d/(.*)$ https://elsewhere.test/$1 permanent;
        rewrite ^/rw/e/(.*)$ /moved/$1 redirect;
        proxy_pass http://@BACKEND@;
    }
    location /if/ {
        set $answer "none";
        if ($request_method = POST) { set $answer "post"; }
        if ($args ~ "x=(\d+)") { set $answer "x-$1"; }
        if ($http_cookie ~* "id=([^;]+)(?:;|$)") { set $answer "cookie-$1"; }
        if ($arg_go) { return 302 /went/$arg_go; }
        proxy_set_header X-Answer $answer;
        proxy_pass http://@BACKEND@;
    }
    location /codes/ {
        rewrite ^/codes/(\d+)$ /codes/x/$1;
        location /codes/x/204 { return 204; }
        location /codes/x/301 { return 301 /there?$args; }
        location /codes/x/307 { return 307 https://$host/there; }
        location /codes/x/403 { return 403; }
        location /codes/x/404 { return 404; }
        location /codes/x/405 { return 405 "text for 405"; }
        location /codes/x/500 { return 500; }
        location /codes/x/503 { return 503; }
    }
    location /down/ { proxy_pass http://127.0.0.1:1; }
    location @fallback { proxy_pass http://@BACKEND@; proxy_set_header X-Fallback $uri; }
    location /errors/ { internal; return 200 "error page $uri $args $request_method"; }
    location /headers/ {
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Empty "";
        proxy_set_header Accept-Encoding "";
        proxy_set_header X-Request "$request_method $request_uri $server_protocol $is_args";
        proxy_pass http://@BACKEND@/h/;
    }
    location /limited/ { limit_except GET { deny all; } proxy_pass http://@BACKEND@; }
}
server {
    listen 127.0.0.1:@PORT@;
    server_name second.test *.wild.test ~^(?<sub>.+)\.re\.test$;
    location / { return 200 "second $host $server_name $sub $http_host"; }
}
"#;

/// The answer to HEAD where a GET would get a page with the server's name.
fn is_page(response: &Response) -> bool {
    response.status >= 300 && response.header("content-type") == Some("text/html")
}

/// Where both answer alike once these are taken out: names, times, ports.
pub(crate) fn comparable(response: &Response, port: u16) -> String {
    let plain = |text: &str| {
        text.replace(&port.to_string(), "PORT")
            .replace(concat!("ringwall/", env!("CARGO_PKG_VERSION")), "SERVER")
            .replace("nginx/1.22.1", "SERVER")
            // `server_tokens off`.
            .replace("<center>ringwall</center>", "<center>SERVER</center>")
            .replace("<center>nginx</center>", "<center>SERVER</center>")
    };
    let body = plain(&response.text());
    let mut fields: Vec<String> = response
        .headers
        .iter()
        .filter(|(name, _)| !matches!(&*name.to_ascii_lowercase(), "date" | "server"))
        .map(|(name, value)| match &*name.to_ascii_lowercase() {
            // Of an error page it depends on the server's name.
            "content-length" if body.contains("SERVER") || is_page(response) => {
                format!("{name}: {}", body.len())
            }
            _ => plain(&format!("{name}: {value}")),
        })
        .collect();
    fields.sort();
    format!("{}\n{}\n\n{body}", response.status, fields.join("\n"))
}

/// One request and what comes of it.
fn exchange(address: SocketAddr, method: &str, bytes: &[u8]) -> String {
    let mut client = Connection::plain(address);
    // A server that has seen enough may close before it has read everything.
    let _ = client.try_send(bytes);
    match client.try_response(method) {
        Ok(response) => comparable(&response, address.port()),
        Err(_) => "closed without a response".into(),
    }
}

/// A generator of numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // Knuth's MMIX; the low bits are the weak ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.roll(list.len())]
    }
}

/// A request that is well formed, if at times odd.
fn well_formed(dice: &mut Dice) -> (String, Vec<u8>) {
    const PATHS: &[&str] = &[
        "/",
        "/exact",
        "/exact/",
        "/prefix/",
        "/prefix",
        "/prefix/a/b",
        "/prefix//a\"{b}",
        "/plain",
        "/plainly/x",
        "/slashed/x",
        "/slashed",
        "/stop/x.txt",
        "/re/word/rest/of",
        "/re/w-x/y",
        "/a.txt",
        "/A.TXT",
        "/nested/x",
        "/nested/inner/y",
        "/nested/x.n",
        "/nested/inner/x.n",
        "/rw/a/x",
        "/rw/b/x",
        "/rw/c/x",
        "/rw/d/x/y",
        "/rw/e/x",
        "/rw/z",
        "/if/",
        "/if/x",
        "/codes/204",
        "/codes/301",
        "/codes/307",
        "/codes/403",
        "/codes/404",
        "/codes/405",
        "/codes/500",
        "/codes/503",
        "/codes/999",
        "/down/x",
        "/errors/404",
        "/headers/x",
        "/headers/",
        "/limited/x",
    ];
    const ODD: &[&str] = &[
        "", "", "", "", "%20", "%2F", "%2e%2e/", "/../x", "/./", "//", "%41", "%25", "%3F", "%23",
        "%c3%a9", "%00", "%", "%zz", "+", ";p=1", ":", "\"", "<>", "|", "~", "'", "*",
    ];
    const QUERIES: &[&str] = &[
        "",
        "",
        "",
        "?",
        "?a=b",
        "?x=12",
        "?v=1",
        "?id=7",
        "?id=user42",
        "?go=there",
        "?go=0",
        "?a=%20&b=+",
        "?x=1?y",
        "?&&",
        "?v=&V=2",
    ];
    const FIELDS: &[&str] = &[
        "",
        "",
        "X-Kind: q7\r\n",
        "X-Kind: exact\r\n",
        "X-Kind: EXACT\r\n",
        "Cookie: id=one; b=2\r\n",
        "Cookie: a=1\r\nCookie: id=two\r\n",
        "Accept-Encoding: gzip\r\n",
        "Connection: close\r\n",
        "Connection: X-Kind\r\nX-Kind: q7\r\n",
        "X-Forwarded-For: 192.0.2.1\r\n",
        "X_Under: 1\r\n",
        "X-Empty: 1\r\n",
        "TE: trailers\r\nConnection: TE\r\n",
        "Keep-Alive: 5\r\n",
        "Range: bytes=0-1\r\n",
        "X-Odd:\tvalue\t\r\n",
        "X-None:\r\n",
        "Authorization: Basic YTpi\r\n",
        "Referer: http://a/b\r\n",
        "User-Agent: test/1.0\r\n",
        "X.Dot: 1\r\n",
        "Upgrade: h2c\r\n",
    ];
    const HOSTS: &[&str] = &[
        "first.test",
        "first.test",
        "first.test",
        "FIRST.test",
        "first.test.",
        "first.test:80",
        "second.test",
        "a.wild.test",
        "wild.test",
        "b.re.test",
        "nobody.test",
        "[::1]",
        "127.0.0.1",
    ];
    let method = dice.pick(&[
        "GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH",
    ]);
    let target = format!(
        "{}{}{}",
        dice.pick(PATHS),
        dice.pick(ODD),
        dice.pick(QUERIES)
    );
    let version = dice.pick(&["1.1", "1.1", "1.1", "1.0"]);
    let target = match dice.roll(20) {
        0 => format!("http://second.test{target}"),
        _ => target,
    };
    let mut text = format!(
        "{method} {target} HTTP/{version}\r\nHost: {}\r\n",
        dice.pick(HOSTS)
    );
    for _ in 0..dice.roll(3) {
        text.push_str(dice.pick(FIELDS));
    }
    let body = match (method, dice.roll(4)) {
        ("POST" | "PUT" | "PATCH", 0) => {
            text.push_str("Content-Length: 100\r\n\r\n");
            "x".repeat(100)
        }
        ("POST" | "PUT" | "PATCH", 1) if version == "1.1" => {
            text.push_str("Transfer-Encoding: chunked\r\n\r\n");
            "5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n".into()
        }
        ("POST" | "PUT" | "PATCH", _) => {
            text.push_str("Content-Length: 5\r\n\r\n");
            "hello".into()
        }
        _ => {
            text.push_str("\r\n");
            String::new()
        }
    };
    text.push_str(&body);
    (method.to_owned(), text.into_bytes())
}

/// Requests that are wrong, each in one way.
fn malformed() -> Vec<Vec<u8>> {
    let heads = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: first.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: first.test\r\nContent-Length: +5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: first.test\r\nContent-Length: 0x5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: first.test\r\nContent-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: first.test\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: first.test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: first.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: first.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: first.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nHost: first.test\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "POST / HTTP/1.1\r\nHost: first.test\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\n folded: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nX-A: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nX-A : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\n: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nX-A\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nX-A: \u{0}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nX\u{1}A: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: first.test\n\n",
        "GET / HTTP/1.1\r\nHost: first.test\r\nX-A: a\rb\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: first.test\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: first.test\r\n\r\n",
        "GET / HTTP/1.1 x\r\nHost: first.test\r\n\r\n",
        "GET / HTTPS/1.1\r\nHost: first.test\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "get / HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "GET /../ HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "CONNECT first.test:80 HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "\r\nGET /exact HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "GET http://u@second.test/ HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "GET http:// HTTP/1.1\r\nHost: first.test\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
    ];
    heads.iter().map(|head| head.as_bytes().to_vec()).collect()
}

#[test]
fn the_same_requests_get_the_same_answers_as_from_nginx() {
    let origin = Origin::script(|peer| {
        loop {
            let request = peer.request()?;
            let mut told = format!("{}\n", request.line);
            // Nginx of this age closes; ringwall keeps the connection.
            let fields = request.headers.iter();
            for (name, value) in fields.filter(|(_, value)| value != "close") {
                told.push_str(&format!("{name}: {value}\n"));
            }
            told.push('\n');
            let mut told = told.into_bytes();
            told.extend_from_slice(&request.body);
            let bytes = ok_bytes(&told);
            let length = bytes.len() - told.len();
            // A response to HEAD ends behind its head.
            let is_head = request.line.starts_with("HEAD ");
            peer.send(if is_head { &bytes[..length] } else { &bytes })?;
            if request.line.ends_with("1.0") {
                return peer.finish();
            }
        }
    });
    let servers = SERVERS.replace("@BACKEND@", &origin.address());
    // Nginx of this age speaks HTTP/1.0 to backends unless told.
    let servers = format!("proxy_http_version 1.1;\n{servers}");
    let mut site = Site::new();
    let nginx = Nginx::start(&mut site, &servers.replace("@PORT@", "@NGINX@"));
    let ringwall = Site::new().start(&http(&servers.replace("@PORT@", "@HTTP@")));
    let mut dice = Dice(7);
    let mut requests: Vec<_> = (0..3000).map(|_| well_formed(&mut dice)).collect();
    requests.extend(
        malformed()
            .into_iter()
            .map(|bytes| ("GET".to_owned(), bytes)),
    );
    let mut seen = BTreeMap::<&str, usize>::new();
    let mut unexplained = Vec::new();
    for (method, bytes) in &requests {
        let ours = exchange(ringwall.address("HTTP"), method, bytes);
        let theirs = exchange(nginx.address(), method, bytes);
        if ours == theirs {
            continue;
        }
        let sent = String::from_utf8_lossy(bytes);
        match ACCEPTED
            .iter()
            .find(|known| (known.applies)(&sent, &ours, &theirs))
        {
            Some(known) => *seen.entry(known.reason).or_default() += 1,
            None => unexplained.push(format!("== {sent:?}\n-- ours\n{ours}\n-- nginx\n{theirs}")),
        }
    }
    assert!(
        unexplained.is_empty(),
        "{} differences:\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(1000)].join("\n")
    );
    for known in ACCEPTED {
        assert!(
            seen.contains_key(known.reason),
            "no longer a difference: {}",
            known.reason
        );
    }
}

/// A difference that is wanted.
struct Accepted {
    reason: &'static str,
    /// Of the request, ringwall's answer and Nginx's.
    applies: fn(&str, &str, &str) -> bool,
}

const ACCEPTED: &[Accepted] = &[
    Accepted {
        reason: "what Connection names is between the client and the proxy (RFC 9110 §7.6.1); \
                 Nginx passes it on",
        applies: |sent, ours, theirs| {
            sent.contains("\r\nConnection: X-Kind\r\n")
                && (sent.starts_with("HEAD ") || theirs.contains("\nX-Kind: "))
                && !ours.contains("\nX-Kind: ")
        },
    },
    Accepted {
        reason: "Nginx refuses a path that does not decode before it has read any field, so by \
                 the default server's settings",
        applies: |_, ours, theirs| ours.starts_with("400\n") && theirs.starts_with("400\n"),
    },
    Accepted {
        reason: "a field that comes several times is joined by commas, as in Nginx since 1.23",
        applies: |sent, _, _| sent.matches("\r\nX-Kind: ").count() > 1,
    },
    Accepted {
        reason: "a Transfer-Encoding that is not chunked is 400 (RFC 9112 §6.1 leaves the choice); \
                 Nginx says 501",
        applies: |sent, ours, theirs| {
            sent.contains("Transfer-Encoding: ")
                && ours.starts_with("400\n")
                && theirs.starts_with("501\n")
        },
    },
    Accepted {
        reason: "bare line feeds, runs of spaces in the request line and fields without a colon are \
                 ambiguous: 400; Nginx takes them",
        applies: |sent, ours, _| {
            let odd = ["HTTP/1.1\n", "GET  /", "\r\nX-A\r\n"];
            ours.starts_with("400\n") && odd.iter().any(|odd| sent.contains(odd))
        },
    },
    Accepted {
        reason: "HTTP/0.9 gets a 400 that says so; Nginx answers it",
        applies: |sent, ours, _| sent == "GET /\r\n\r\n" && ours.starts_with("400\n"),
    },
    Accepted {
        reason: "a version above 1.1 is 505; Nginx takes all of HTTP/1",
        applies: |sent, ours, _| sent.contains(" HTTP/1.2\r\n") && ours.starts_with("505\n"),
    },
    Accepted {
        reason: "CONNECT is 405, as in Nginx since 1.21.1 for origins; the old one says 400",
        applies: |sent, ours, _| sent.starts_with("CONNECT ") && ours.starts_with("405\n"),
    },
];
