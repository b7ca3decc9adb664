//! What the configuration changes in requests and responses on their way:
//! fields hidden and shown, addresses and cookies rewritten, freshness, method
//! and body, as Nginx does it.

use std::time::{Duration, Instant};

use crate::support::client::{Connection, Response};
use crate::support::origin::Origin;
use crate::support::ringwall::{Ringwall, Site, http};
use crate::support::{eventually, patterned};

fn start(locations: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name test.example; {locations} }}"
    )))
}

/// A backend that answers everything with these fields.
fn with_fields(fields: &'static str) -> Origin {
    Origin::http(move |request| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{}",
            request.line.len(),
            request.line
        )
        .into_bytes()
    })
}

fn get(ringwall: &Ringwall, target: &str) -> Response {
    Connection::plain(ringwall.address("HTTP")).get("test.example", target)
}

#[test]
fn what_a_backend_says_is_hidden_and_shown_as_in_nginx() {
    let origin = with_fields(
        "Server: backend/1\r\nDate: yesterday\r\nX-Pad: x\r\nX-Powered-By: y\r\n\
         X-Accel-Buffering: no\r\nX-Accel-Other: z\r\n",
    );
    let url = origin.url();
    let ringwall = start(&format!(
        "location / {{ proxy_pass {url}; }}
         location /hide {{ proxy_pass {url}; proxy_hide_header x-powered-by; proxy_hide_header Date; }}
         location /show {{ proxy_pass {url}; proxy_pass_header Server; proxy_pass_header date;
             proxy_pass_header X-Accel-Buffering; proxy_hide_header X-Powered-By;
             proxy_pass_header X-Powered-By; }}"
    ));
    let plain = get(&ringwall, "/");
    assert!(
        plain
            .header("server")
            .expect("ours")
            .starts_with("ringwall")
    );
    assert_ne!(plain.header("date"), Some("yesterday"));
    assert_eq!(plain.header("x-pad"), None);
    assert_eq!(plain.header("x-powered-by"), Some("y"));
    assert_eq!(plain.header("x-accel-buffering"), None);
    assert_eq!(plain.header("x-accel-other"), Some("z"));
    let hide = get(&ringwall, "/hide");
    assert_eq!(hide.header("x-powered-by"), None);
    assert_ne!(hide.header("date"), Some("yesterday"));
    let show = get(&ringwall, "/show");
    assert_eq!(show.header("server"), Some("backend/1"));
    assert_eq!(show.header("date"), Some("yesterday"));
    assert_eq!(show.header("x-accel-buffering"), Some("no"));
    assert_eq!(show.header("x-powered-by"), Some("y"));
}

#[test]
fn redirects_are_rewritten_by_the_first_rule_that_matches() {
    let origin = Origin::http(|request| {
        let to = request.target().split_once('=').map_or("", |(_, to)| to);
        format!(
            "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {to}\r\nRefresh: 5; URL={to}\r\n\r\n"
        )
        .into_bytes()
    });
    let url = origin.url();
    let ringwall = start(&format!(
        "location /off/ {{ proxy_pass {url}; proxy_redirect off; }}
         location /uri/ {{ proxy_pass {url}/app/; }}
         location / {{ proxy_pass {url};
             proxy_redirect default;
             proxy_redirect http://a.example/ https://$host/a/;
             proxy_redirect http://$arg_host/ /b/;
             proxy_redirect / /root/; }}"
    ));
    let ours = format!("http://test.example:{}", ringwall.address("HTTP").port());
    for (target, location, refresh) in [
        (
            "/?to=http://a.example/x",
            "https://test.example/a/x",
            "5; URL=https://test.example/a/x",
        ),
        (
            "/?to=http://elsewhere/x",
            "http://elsewhere/x",
            "5; URL=http://elsewhere/x",
        ),
        (
            &format!("/?to={url}/x") as &str,
            &format!("{ours}/x") as &str,
            "5; URL=/x",
        ),
        ("/?to=/x", &format!("{ours}/root/x"), "5; URL=/root/x"),
        ("/off/?to=/x", "/x", "5; URL=/x"),
        (
            &format!("/uri/?to={url}/app/x"),
            &format!("{ours}/uri/x"),
            "5; URL=/uri/x",
        ),
        (
            &format!("/uri/?to={url}/other"),
            &format!("{url}/other"),
            &format!("5; URL={url}/other"),
        ),
    ] {
        let response = get(&ringwall, target);
        assert_eq!(response.header("location"), Some(location), "{target}");
        assert_eq!(response.header("refresh"), Some(refresh), "{target}");
    }
}

#[test]
fn a_redirect_rule_may_name_variables() {
    let origin = Origin::http(|_| {
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://inside/x\r\n\r\n".to_vec()
    });
    let ringwall = start(&format!(
        "location / {{ proxy_pass {}; proxy_redirect http://$arg_host/ $scheme://outside/; }}",
        origin.url()
    ));
    let location = |target| get(&ringwall, target).header("location").map(str::to_owned);
    assert_eq!(
        location("/?host=inside").as_deref(),
        Some("http://outside/x")
    );
    assert_eq!(location("/?host=other").as_deref(), Some("http://inside/x"));
}

#[test]
fn cookies_are_rewritten() {
    let origin = with_fields(
        "Set-Cookie: one=1; Domain=.inside.example; Path=/app/x; HttpOnly\r\n\
         Set-Cookie: two=2; domain=INSIDE.example\r\n\
         Set-Cookie: three; path=/app/\r\n\
         Set-Cookie: four=4; Domain=sub.inside.example; Path=/other\r\n",
    );
    let url = origin.url();
    let ringwall = start(&format!(
        "proxy_cookie_domain inside.example .$host; proxy_cookie_path /app/ /;
         proxy_cookie_flags one secure nohttponly samesite=lax; proxy_cookie_flags TWO httponly;
         location / {{ proxy_pass {url}; }}
         location /off {{ proxy_pass {url}; proxy_cookie_domain off; proxy_cookie_path off;
             proxy_cookie_flags off; }}"
    ));
    assert_eq!(
        get(&ringwall, "/").all("set-cookie"),
        [
            "one=1; Domain=.test.example; Path=/x; Secure; SameSite=lax".replace("lax", "Lax"),
            "two=2; domain=test.example; HttpOnly".to_owned(),
            "three; path=/app/".to_owned(),
            "four=4; Domain=sub.inside.example; Path=/other".to_owned(),
        ]
    );
    assert_eq!(
        get(&ringwall, "/off").all("set-cookie")[1],
        "two=2; domain=INSIDE.example"
    );
}

#[test]
fn expires_takes_the_place_of_what_the_backend_says() {
    let origin = Origin::http(|request| {
        let path = request.target().split('?').next().unwrap_or_default();
        let status = path.rsplit('/').next().unwrap_or_default();
        format!(
            "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nExpires: 0\r\nCache-Control: private\r\n\
             Cache-Control: no-store\r\nContent-Type: text/css\r\nETag: \"theirs\"\r\n\
             Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
        )
        .into_bytes()
    });
    let url = origin.url();
    let ringwall = start(&format!(
        "location / {{ proxy_pass {url}; }}
         location /hour/ {{ proxy_pass {url}; expires 1h; add_header Cache-Control public;
             add_header ETag '\"ours\"'; }}
         location /max/ {{ proxy_pass {url}; expires max;
             location /max/off/ {{ proxy_pass {url}; expires off; }} }}
         location /gone/ {{ proxy_pass {url}; expires epoch; }}
         location /asked/ {{ proxy_pass {url}; expires $arg_for; }}
         location /old/ {{ proxy_pass {url}; expires modified +1h; }}
         location /said {{ return 200 x; expires -1; }}"
    ));
    let said = |target: &str| {
        let response = get(&ringwall, target);
        let expires = response.header("expires").map(str::to_owned);
        (expires, response.all("cache-control").join("|"))
    };
    let theirs = (Some("0".to_owned()), "private|no-store".to_owned());
    assert_eq!(said("/200"), theirs);
    assert_eq!(said("/hour/404"), theirs);
    assert_eq!(said("/max/off/200"), theirs);
    assert_eq!(said("/asked/200"), theirs);
    assert_eq!(said("/asked/200?for=soon"), theirs);
    assert_eq!(said("/asked/200?for=off"), theirs);
    assert_eq!(said("/asked/200?for=2h").1, "max-age=7200");
    assert_eq!(said("/hour/200").1, "max-age=3600|public");
    assert_eq!(get(&ringwall, "/hour/200").header("etag"), Some("\"ours\""));
    assert_eq!(
        get(&ringwall, "/hour/404").header("etag"),
        Some("\"theirs\"")
    );
    assert_eq!(
        said("/max/200"),
        (
            Some("Thu, 31 Dec 2037 23:55:55 GMT".to_owned()),
            "max-age=315360000".to_owned()
        )
    );
    assert_eq!(
        said("/gone/200"),
        (
            Some("Thu, 01 Jan 1970 00:00:01 GMT".to_owned()),
            "no-cache".to_owned()
        )
    );
    assert_eq!(
        said("/old/200"),
        (
            Some("Sun, 06 Nov 1994 09:49:37 GMT".to_owned()),
            "no-cache".to_owned()
        )
    );
    assert_eq!(said("/said").1, "no-cache");
}

#[test]
fn method_body_and_fields_of_the_request_are_the_configurations_to_say() {
    let origin = Origin::http(|request| {
        let body = format!(
            "{}|{}|{}",
            request.line,
            request.header("x-own").unwrap_or("-"),
            String::from_utf8_lossy(&request.body)
        );
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let url = origin.url();
    let ringwall = start(&format!(
        "location /method {{ proxy_pass {url}; proxy_method $arg_m; }}
         location /get {{ proxy_pass {url}; proxy_method GET; }}
         location /body {{ proxy_pass {url}; proxy_set_body \"<$request_method>\"; }}
         location /bare {{ proxy_pass {url}; proxy_pass_request_body off;
             proxy_set_header Content-Length \"\"; }}
         location /few {{ proxy_pass {url}; proxy_pass_request_headers off; }}"
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let mut post = |target: &str| {
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nX-Own: own\r\nContent-Length: 4\r\n\r\nbody"
        ));
        client.response("POST")
    };
    let said = |target: &str, response: Response| {
        assert_eq!(response.status, 200, "{target}");
        response.text()
    };
    for (target, expected) in [
        ("/method?m=PATCH", "PATCH /method?m=PATCH HTTP/1.1|own|body"),
        ("/body", "POST /body HTTP/1.1|own|<POST>"),
        ("/bare", "POST /bare HTTP/1.1|own|"),
        ("/few", "POST /few HTTP/1.1|-|body"),
    ] {
        let response = post(target);
        assert_eq!(said(target, response), expected);
    }
    assert_eq!(post("/method?m=").status, 500);
    let seen = origin.all_received_text();
    let bare = &seen[seen.find("POST /bare").expect("it came")..];
    let bare = &bare[..bare.find("\r\n\r\n").expect("a head")];
    assert!(
        !bare.to_ascii_lowercase().contains("content-length"),
        "{bare}"
    );

    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("HEAD /get HTTP/1.1\r\nHost: a\r\n\r\nGET /get HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("HEAD").header("content-length"), Some("20"));
    assert_eq!(client.response("GET").text(), "GET /get HTTP/1.1|-|");
}

#[test]
fn a_body_that_the_backend_was_not_to_have_never_reaches_a_tunnel() {
    let origin = Origin::script(|peer| {
        peer.head()?;
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n")?;
        peer.drain()
    });
    let ringwall = start(&format!(
        "location / {{ proxy_pass {}; proxy_pass_request_body off;
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\
         Content-Length: 6\r\n\r\nsecret",
    );
    assert_eq!(client.response("POST").status, 502);
    assert!(!origin.all_received_text().contains("secret"));
}

#[test]
fn addresses_and_cookies_are_rewritten_by_regular_expressions() {
    let origin = with_fields(
        "Location: http://Node-7.Inside:81/x?y\r\nSet-Cookie: a_session=1; domain=n1.Inside; path=/App/x\r\n",
    );
    let ringwall = start(&format!(
        "location ~ ^/(?<area>[a-z]+)/ {{ proxy_pass {};
             proxy_redirect ~^http://node-(\\d+) http://never/;
             proxy_redirect ~*^http://node-(?<node>\\d+)\\.inside(:\\d+)?/(.*)$ http://$node.outside/$area/$3;
             proxy_cookie_domain ~\\.inside$ .$host;
             proxy_cookie_path ~*^/app(/.*)$ /$area$1;
             proxy_cookie_flags ~session secure; }}",
        origin.url()
    ));
    let response = get(&ringwall, "/shop/");
    assert_eq!(
        response.header("location"),
        Some("http://7.outside/shop/x?y")
    );
    assert_eq!(
        response.header("set-cookie"),
        Some("a_session=1; domain=.test.example; path=/shop/x; Secure")
    );
}

#[test]
fn a_backends_errors_can_have_pages() {
    let origin = Origin::http(|request| {
        let status = request.target().trim_start_matches('/');
        format!(
            "HTTP/1.1 {status} X\r\nContent-Length: 6\r\nX-From: backend\r\n\
             WWW-Authenticate: Basic realm=theirs\r\n\r\ntheirs"
        )
        .into_bytes()
    });
    let ringwall = start(&format!(
        "error_page 401 404 /page; error_page 503 =200 @calm; proxy_intercept_errors on;
         location / {{ proxy_pass {0}; }}
         location /off/ {{ proxy_pass {0}/; proxy_intercept_errors off; }}
         location = /page {{ internal; return 200 ours; }}
         location @calm {{ return 200 calm; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let mut said = |target: &str| {
        let response = client.get("test.example", target);
        let challenge = response.header("www-authenticate").map(str::to_owned);
        (response.status, response.text(), challenge)
    };
    let basic = Some("Basic realm=theirs".to_owned());
    assert_eq!(said("/404"), (404, "ours".to_owned(), None));
    assert_eq!(said("/401"), (401, "ours".to_owned(), basic.clone()));
    assert_eq!(said("/503"), (200, "calm".to_owned(), None));
    // Without a page of its own a status passes.
    assert_eq!(said("/500"), (500, "theirs".to_owned(), basic.clone()));
    assert_eq!(said("/200"), (200, "theirs".to_owned(), basic.clone()));
    assert_eq!(said("/off/404"), (404, "theirs".to_owned(), basic));
}

#[test]
fn a_location_that_takes_over_knows_what_the_backend_said() {
    let first = Origin::http(|request| {
        let said = match request.target() {
            "/moved" => "302 Found\r\nLocation: /elsewhere",
            "/error" => "503 No",
            _ => "200 OK\r\nX-Accel-Redirect: /taken/over",
        };
        format!("HTTP/1.1 {said}\r\nSet-Cookie: a=1\r\nX-By: first\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    });
    let second = with_fields("X-By: second\r\n");
    let ringwall = Site::new().start(&http(&format!(
        "log_format tries '$upstream_addr|$upstream_status|$upstream_http_x_by';\n\
         access_log @DIR@/tries.log tries;\n\
         upstream both {{ server 127.0.0.1:@DOWN@; server {}; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; proxy_intercept_errors on;\n\
         error_page 302 = @moved; error_page 503 = @gone;\n\
         location / {{ proxy_pass http://both; }}\n\
         location @moved {{ set $saved $upstream_http_location; proxy_pass {}$saved; }}\n\
         location @gone {{ return 200 $upstream_http_x_by; }}\n\
         location /taken {{ internal; set $cookie $upstream_cookie_a;\n\
         proxy_pass {}/$cookie$upstream_http_x_by; }} }}",
        first.address(),
        second.url(),
        second.url(),
    )));
    let (down, one, two) = (ringwall.address("DOWN"), first.address(), second.address());
    assert_eq!(get(&ringwall, "/moved").text(), "GET /elsewhere HTTP/1.1");
    assert_eq!(get(&ringwall, "/error").text(), "first");
    // As in Nginx nothing is known of the first any more once another is asked.
    assert_eq!(get(&ringwall, "/accel").text(), "GET /1 HTTP/1.1");
    let expected = format!(
        "{down}, {one} : {two}|502, 302 : 200|second\n\
         {one}|503|first\n\
         {one} : {two}|200 : 200|second\n"
    );
    eventually("the lines are written", || {
        (ringwall.site.read("tries.log") == expected).then_some(())
    });
}

#[test]
fn a_backend_can_leave_the_answer_to_another_location() {
    let origin = Origin::http(|request| {
        let to = request.target().split_once('=').map_or("", |(_, to)| to);
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Accel-Redirect: {to}\r\n\
             Set-Cookie: a=b\r\nContent-Type: text/x-theirs\r\nX-Other: no\r\n\r\ntheirs"
        )
        .into_bytes()
    });
    let second = Origin::http(|request| {
        let body = format!("{} {}", request.line, request.body.len());
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let ringwall = start(&format!(
        "location / {{ proxy_pass {0}; }}
         location /ignored {{ proxy_pass {0}; proxy_ignore_headers X-Accel-Redirect; }}
         location /inner/ {{ internal; return 200 \"$uri|$args\"; }}
         location /second/ {{ internal; proxy_pass {1}; }}
         location @named {{ return 200 named; }}",
        origin.url(),
        second.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let response = client.get("test.example", "/?to=/inner/a%20b?c=d");
    assert_eq!(response.text(), "/inner/a b|c=d");
    assert_eq!(response.header("set-cookie"), Some("a=b"));
    assert_eq!(response.header("content-type"), Some("text/x-theirs"));
    assert_eq!(response.header("x-other"), None);
    assert_eq!(client.get("a", "/?to=@named").text(), "named");
    assert_eq!(
        client.get("a", "/?to=/second/x").text(),
        "GET /second/x HTTP/1.1 0"
    );
    client.send("POST /?to=/second/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response("POST").text(), "GET /second/x HTTP/1.1 0");
    assert_eq!(client.get("a", "/?to=/inner/../x").status, 404);
    ringwall.complaint_with(&["unsafe URI \"/inner/../x\" was detected"]);
    assert_eq!(client.get("a", "/?to=@nowhere").status, 500);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let ignored = client.get("a", "/ignored?to=/inner/a");
    assert_eq!(ignored.text(), "theirs");
    assert_eq!(ignored.header("x-accel-redirect"), None);
    // A client that asks for such a place itself does not get there.
    assert_eq!(client.get("a", "/inner/a").status, 404);
}

#[test]
fn early_hints_pass_where_they_are_wanted() {
    let origin = Origin::script(|peer| {
        loop {
            peer.request()?;
            peer.send(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\n\r\n",
            )?;
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let ringwall = start(&format!(
        "location / {{ proxy_pass {}; early_hints $http_wanted; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nWanted: 1\r\n\r\n");
    let hints = client.head().expect("hints");
    assert_eq!(hints.status, 103);
    assert_eq!(hints.header("link"), Some("</a.css>; rel=preload"));
    assert_eq!(hints.header("connection"), None);
    assert_eq!(client.response("GET").text(), "ok");
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nWanted: 0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nWanted: 1\r\nConnection: keep-alive\r\n\r\n",
    ] {
        client.send(request);
        let response = client.response("GET");
        assert_eq!((response.interim, response.body), (vec![], b"ok".to_vec()));
    }
}

#[test]
fn trailers_follow_the_body_in_chunks() {
    let origin = with_fields("");
    let ringwall = start(&format!(
        "add_trailer X-Length $upstream_response_length; add_trailer X-Always a always;
         location / {{ proxy_pass {}; }}
         location /own {{ return 200 own; }}
         location /gone {{ return 404; }}",
        origin.url()
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let mut ends = |target: &str, version: &str| {
        client.send(format!(
            "GET {target} HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
        ));
        let head = client.head().expect("a head");
        let chunked = head.header("transfer-encoding") == Some("chunked");
        let mut rest = Vec::new();
        let end: &[u8] = if chunked { b"\r\n\r\n" } else { b"/1.0" };
        while !rest.ends_with(end) {
            rest.extend(client.some().expect("a body"));
        }
        String::from_utf8_lossy(&rest).into_owned()
    };
    assert_eq!(
        ends("/", "1.1"),
        "e\r\nGET / HTTP/1.1\r\n0\r\nX-Length: 14\r\nX-Always: a\r\n\r\n"
    );
    assert_eq!(ends("/own", "1.1"), "3\r\nown\r\n0\r\nX-Always: a\r\n\r\n");
    let gone = ends("/gone", "1.1");
    assert!(gone.ends_with("\r\n0\r\nX-Always: a\r\n\r\n"), "{gone}");
}

#[test]
fn a_limited_rate_is_kept_to() {
    const RATE: usize = 40_000;
    let body = patterned(RATE * 3 / 2);
    let served = body.clone();
    let origin = Origin::http(move |request| {
        let extra = if request.target() == "/accel" {
            "X-Accel-Limit-Rate: 40000\r\n"
        } else if request.target() == "/led" {
            "X-Accel-Limit-Rate: 40000\r\nX-Accel-Redirect: /free\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\n{extra}Content-Length: {}\r\n\r\n",
            served.len()
        );
        [head.as_bytes(), &served].concat()
    });
    let url = origin.url();
    let ringwall = start(&format!(
        "location /free {{ proxy_pass {url}; }}
         location /client {{ proxy_pass {url}; limit_rate $arg_rate; }}
         location /after {{ proxy_pass {url}; limit_rate 40000; limit_rate_after 1m; }}
         location /backend {{ proxy_pass {url}; proxy_limit_rate 40000; }}
         location /accel {{ proxy_pass {url}; }}
         location /led {{ proxy_pass {url}; }}
         location /set {{ set $limit_rate $arg_rate; proxy_pass {url}; limit_rate 1g; }}"
    ));
    let took = |target: &str| {
        let begun = Instant::now();
        assert!(get(&ringwall, target).body == body, "{target}");
        begun.elapsed()
    };
    for target in [
        "/client?rate=40000",
        "/backend",
        "/accel",
        "/led",
        "/set?rate=40000",
    ] {
        let time = took(target);
        // A quarter of a second's worth may go first, and what the last read brought.
        assert!(time > Duration::from_millis(900), "{target}: {time:?}");
    }
    for target in [
        "/free",
        "/after",
        "/client?rate=",
        "/client?rate=0",
        "/set?rate=0",
        "/set?rate=fast",
    ] {
        // A limited one that began before is overtaken.
        let mut limited = Connection::plain(ringwall.address("HTTP"));
        limited.send("GET /backend HTTP/1.1\r\nHost: test.example\r\n\r\n");
        took(target);
        let mut there = vec![0; 2 * body.len()];
        let there = limited.socket().peek(&mut there).expect("its beginning");
        assert!(there < body.len(), "{target}");
    }
}

#[test]
fn a_connection_is_not_used_for_longer_than_keepalive_time() {
    // Nothing but the time can end it.
    let ringwall =
        start("keepalive_time 500ms; keepalive_requests 1000000; location / { return 200 ok; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let begun = Instant::now();
    let is_last = |client: &mut Connection| {
        std::thread::sleep(Duration::from_millis(50));
        let response = client.get("a", "/");
        assert_eq!(response.text(), "ok");
        response.says_close()
    };
    assert!((0..1000).any(|_| is_last(&mut client)), "it goes on");
    let last = begun.elapsed();
    assert!(last > Duration::from_millis(400), "{last:?}");
    client.expect_close("its time is up");
}

#[test]
fn add_header_inherit_adds_the_outer_blocks_fields_or_keeps_them_out() {
    let ringwall = start(
        "add_header X-Outer outer; add_trailer X-Last outer;
         location / { return 200 x; }
         location /own { add_header X-Own own; return 200 own; }
         location /merge { add_header_inherit merge; add_header X-Own own; return 200 merge;
           location /merge/none { return 200 none; }
           location /merge/deep { add_header X-Deep deep; return 200 deep; }
           location /merge/on { add_header_inherit on; add_header X-Deep deep; return 200 on; } }
         location /off { add_header_inherit off; return 200 off; }
         location /trailers { add_trailer_inherit merge; add_trailer X-Own own; return 200 x; }
         location /none { add_trailer_inherit off; return 200 x; }",
    );
    for (target, expected) in [
        ("/", ["X-Outer"].as_slice()),
        ("/own", &["X-Own"]),
        ("/merge", &["X-Own", "X-Outer"]),
        ("/merge/none", &["X-Own", "X-Outer"]),
        ("/merge/deep", &["X-Deep", "X-Own", "X-Outer"]),
        ("/merge/on", &["X-Deep"]),
        ("/off", &[]),
    ] {
        let response = get(&ringwall, target);
        let added = response.headers.iter().map(|(name, _)| name.as_str());
        let added: Vec<_> = added.filter(|name| name.starts_with("X-")).collect();
        assert_eq!(added, expected, "{target}");
    }
    for (target, expected) in [
        ("/", "X-Last: outer\r\n"),
        ("/trailers", "X-Own: own\r\nX-Last: outer\r\n"),
        ("/none", ""),
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"
        ));
        let all = client.until_close().expect("a response");
        let all = String::from_utf8_lossy(&all);
        let end = match expected {
            "" => "\r\n\r\nx".to_owned(),
            fields => format!("\r\n0\r\n{fields}\r\n"),
        };
        assert!(all.ends_with(&end), "{target}: {all}");
    }
}
