//! What a configuration becomes.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::template::{Part, Variable};

/// The file of the usual guide to mutual TLS, comments and all.
const GUIDE: &str = r"
worker_processes auto;   # 코어 수만큼
events { worker_connections 1024; }
http {
    ssl_session_cache   shared:SSL:10m;  # 세션 캐시
    ssl_session_timeout 10m;
    server {
        listen 443 ssl;
        server_name test.woorifisa.site;
        ssl_certificate     /etc/pki/server.crt;   # 서버 인증서
        ssl_certificate_key server.key;
        ssl_client_certificate ca.crt;
        ssl_verify_client on;                      # 클라이언트 인증 필수
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers HIGH:!aNULL:!MD5;
        access_log logs/mtls.log;
        error_log /var/log/mtls.err warn;
        location / {
            proxy_pass http://localhost:8080;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }
    }
}";

#[test]
fn the_guides_file_means_what_it_says() {
    let config = load(GUIDE).unwrap();
    assert_eq!(config.core.worker_processes, None);
    assert_eq!(config.core.worker_connections, 1024);
    assert_eq!(config.core.pid, Path::new("/p/logs/ringwall.pid"));
    assert!(config.core.daemon && config.core.master_process);
    let [listener] = config.listeners.as_slice() else {
        panic!("{:?}", config.listeners);
    };
    assert!(listener.ssl);
    assert_eq!(listener.address.to_string(), "0.0.0.0:443");
    assert_eq!(listener.backlog, 511);
    assert_eq!(listener.hosts.find(b"TEST.woorifisa.site:443"), 0);
    let server = &config.servers[0];
    assert_eq!(&*server.name, "test.woorifisa.site");
    let tls = server.tls.as_ref().unwrap();
    assert_eq!(
        tls.certificates[0].0.value.file().unwrap(),
        Path::new("/etc/pki/server.crt")
    );
    assert_eq!(
        tls.certificates[0]
            .1
            .as_ref()
            .unwrap()
            .value
            .file()
            .unwrap(),
        Path::new("/p/conf/server.key")
    );
    assert_eq!(tls.certificates[0].1.as_ref().unwrap().position.line, 11);
    assert_eq!(tls.verify_client.value, VerifyClient::On);
    assert_eq!(tls.verify_depth, 1);
    assert_eq!(
        tls.session_cache,
        SessionCache::Shared("SSL".into(), 10 << 20)
    );
    assert_eq!(tls.session_timeout, Duration::from_secs(600));
    assert!(tls.session_tickets && !tls.prefer_server_ciphers);
    let location = location(&config, "/x");
    assert_eq!(
        location.access_logs[0].target,
        LogTarget::File("/p/logs/mtls.log".into())
    );
    assert_eq!(&*location.access_logs[0].format.name, "combined");
    assert_eq!(location.error_logs[0].level, LogLevel::Warn);
    let proxy = proxy(&config, "/x");
    assert_eq!((&*proxy.host, proxy.port), ("localhost:8080", 8080));
    assert_eq!(proxy.uri, None);
    assert_eq!(proxy.http_version, ProxyHttpVersion::Http11);
    let names: Vec<_> = proxy
        .set_headers
        .iter()
        .map(|h| String::from_utf8_lossy(&h.name))
        .collect();
    assert_eq!(
        names,
        [
            "Host",
            "X-Real-IP",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "Connection"
        ]
    );
    let upstream = &config.upstreams[proxy.upstream.unwrap()];
    let peers: Vec<_> = upstream
        .peers
        .iter()
        .map(|peer| peer.address.to_string())
        .collect();
    assert_eq!(peers, ["[::1]:8080", "127.0.0.1:8080"]);
    assert_eq!(upstream.keepalive, 32);
    assert_eq!(config.remarks, []);
    assert_eq!(config.files.len(), 1);
}

#[test]
fn upstreams_are_checked_and_resolved() {
    for (text, message) in [
        ("upstream a {}", "no servers are inside upstream"),
        (
            "upstream a { server backend backup; }",
            "no servers in upstream \"a\"",
        ),
        (
            "upstream a { server backend; } upstream A { server backend; }",
            "duplicate upstream \"A\"",
        ),
        (
            "upstream a { server nobody:1; }",
            "host not found in upstream \"nobody:1\"",
        ),
        (
            "upstream a { server backend weight=0; }",
            "invalid parameter \"weight=0\"",
        ),
        (
            "upstream a { server backend/x; }",
            "invalid host in upstream \"backend/x\"",
        ),
        (
            "upstream a { server backend; } server { location / { proxy_pass http://a:1; } }",
            "upstream \"a\" may not have port 1",
        ),
    ] {
        let expected = format!("{message} in /p/conf/nginx.conf:1");
        assert_eq!(refusal(http(text)), expected, "{text}");
    }
    let config = http(
        "server { location / { proxy_pass http://App/x; } location /b/ { proxy_pass http://unix:/s:/y; } }
         upstream app { zone app 64k; keepalive 7; keepalive_time 5m;
            server backend:8080 weight=3 max_fails=0 fail_timeout=1m; server unix:/run/a.sock down;
            server [::1]:1 backup; }",
    )
    .unwrap();
    let upstream = &config.upstreams[proxy(&config, "/").upstream.unwrap()];
    assert_eq!((&*upstream.name, upstream.keepalive), ("app", 7));
    assert_eq!(upstream.keepalive_time, Duration::from_secs(300));
    let [first, second, third] = upstream.peers.as_slice() else {
        panic!("{upstream:?}");
    };
    assert_eq!(first.address.to_string(), "192.0.2.7:8080");
    assert_eq!((first.weight, first.max_fails), (3, 0));
    assert_eq!(first.fail_timeout, Duration::from_secs(60));
    assert!(second.down && third.backup);
    assert_eq!(&*proxy(&config, "/").host, "App");
    let unix = proxy(&config, "/b/x");
    assert_eq!((&*unix.host, unix.port), ("localhost", 0));
    assert_eq!(unix.uri.as_deref(), Some(&b"/y"[..]));
    assert_eq!(
        redirects(unix),
        [("http://unix:/s:/y".to_owned(), "/b/".to_owned())]
    );
}

/// The literal `proxy_redirect` rules that hold.
fn redirects(proxy: &Proxy) -> Vec<(String, String)> {
    let text = |template: &Template| {
        String::from_utf8_lossy(template.as_literal().unwrap_or(b"$")).into_owned()
    };
    let rules = proxy.filters.redirects.iter();
    rules
        .map(|rule| match &rule.pattern {
            RewritePattern::Prefix(prefix) => (text(prefix), text(&rule.replacement)),
            pattern => panic!("{pattern:?}"),
        })
        .collect()
}

#[test]
fn a_block_inherits_what_it_does_not_say_and_lists_only_as_a_whole() {
    let config = http(
        "server {
            add_header B 2; proxy_set_header Y y; keepalive_timeout 5 6;
            location /own { add_header C 3 always; access_log off; proxy_set_header connection $http_upgrade;
                proxy_pass http://backend; proxy_redirect off;
                location /own/nested { proxy_pass http://backend/; error_log stderr; } }
            location /plain { proxy_pass http://backend; }
         }
         add_header A 1; proxy_set_header X x; client_max_body_size 8m; access_log a.log;
         default_type application/json; types { text/x-test tst TEST; }",
    )
    .unwrap();
    let names = |path| -> Vec<_> {
        let headers = &location(&config, path).add_headers;
        headers
            .iter()
            .map(|h| (String::from_utf8_lossy(&h.name).into_owned(), h.always))
            .collect()
    };
    assert_eq!(names("/own"), [("C".to_owned(), true)]);
    assert_eq!(names("/own/nested"), [("C".to_owned(), true)]);
    assert_eq!(names("/plain"), [("B".to_owned(), false)]);
    let plain = location(&config, "/plain");
    assert_eq!(plain.client_max_body_size, 8 << 20);
    assert_eq!(plain.keepalive_timeout, Duration::from_secs(5));
    assert_eq!(plain.keepalive_header, Some(Duration::from_secs(6)));
    assert_eq!(
        plain.default_type.as_literal(),
        Some(&b"application/json"[..])
    );
    assert_eq!(plain.types.of_path(b"/a.TST"), Some("text/x-test"));
    assert_eq!(plain.types.of_path(b"/a.html"), None);
    assert_eq!(plain.access_logs.len(), 1);
    assert_eq!(plain.error_logs, config.core.error_logs);
    assert!(location(&config, "/own/nested").access_logs.is_empty());
    assert_eq!(
        location(&config, "/own/nested").error_logs[0].target,
        LogTarget::Stderr
    );
    let set = |path| -> Vec<_> {
        let headers = &proxy(&config, path).set_headers;
        headers
            .iter()
            .map(|h| String::from_utf8_lossy(&h.name).into_owned())
            .collect()
    };
    assert_eq!(set("/plain"), ["Y", "Host", "Connection"]);
    assert_eq!(set("/own"), ["connection", "Host"]);
    assert_eq!(set("/own/nested"), ["connection", "Host"]);
    assert_eq!(redirects(proxy(&config, "/own")), []);
    assert_eq!(redirects(proxy(&config, "/own/nested")), []);
    assert_eq!(
        proxy(&config, "/own/nested").uri.as_deref(),
        Some(&b"/"[..])
    );
    assert_eq!(config.upstreams.len(), 1);
}

#[test]
fn locations_are_found_in_the_order_of_nginx() {
    let config = server(
        r"location / { return 200; } location = /exact { return 201; } location /img { return 202; }
          location ^~ /static/ { return 203; } location ~ \.(?<ext>png)$ { return 204 $ext$1; }
          location ~* \.JPG$ { return 205; } location =/glued{ return 206; } location @named { return 207; }
          location /api/ { proxy_pass http://backend; }
          location /deep/ { return 208; location ~ \.png$ { return 209; } location /deep/er { return 210; } }
          location /noslash/ { return 211; } location /both/ { proxy_pass http://backend; }
          location = /both { return 212; }",
    )
    .unwrap();
    let code = |path: &str| match config.servers[0].locations.find(path.as_bytes()).unwrap() {
        FoundLocation::Location { location, regex } => match &location.handler {
            Handler::Return(returns) => (returns.status, regex.is_some()),
            _ => (0, false),
        },
        FoundLocation::AddSlash(location) => {
            assert_eq!(&*location.name, "/api/");
            (301, false)
        }
        FoundLocation::None => (404, false),
    };
    for (path, expected) in [
        ("/", (200, false)),
        ("/exact", (201, false)),
        ("/exact/", (200, false)),
        ("/img", (202, false)),
        ("/imgs/a.gif", (202, false)),
        ("/img/a.png", (204, true)),
        ("/static/a.png", (203, false)),
        ("/a.jpg", (205, true)),
        ("/glued", (206, false)),
        ("/api", (301, false)),
        ("/api/", (0, false)),
        ("/apis", (200, false)),
        ("/deep/x", (208, false)),
        ("/deep/x.png", (209, true)),
        ("/deep/er", (210, false)),
        ("/deep/er/x.png", (209, true)),
        ("/noslash", (200, false)),
        ("/both", (212, false)),
        ("*", (404, false)),
    ] {
        assert_eq!(code(path), expected, "{path}");
    }
    assert_eq!(&*config.servers[0].locations.named[0].0, "@named");
    assert_eq!(&*location(&config, "/a.png").name, r"~ \.(?<ext>png)$");
    let Handler::Return(returns) = &location(&config, "/a.png").handler else {
        panic!();
    };
    assert_eq!(
        *returns.text.as_ref().unwrap().parts,
        [
            Part::Variable(Variable::User(0)),
            Part::Variable(Variable::Capture(1))
        ]
    );
}

#[test]
fn addresses_belong_to_their_first_server_unless_one_says_default() {
    let config = http(
        "server { listen 80; listen [::]:8080 ipv6only=off backlog=9; server_name a .shared; }
         server { listen 80 default_server reuseport; listen 127.0.0.1:80; server_name b a; }
         server { listen unix:run/s; listen 8000-8001; listen 10.0.0.1:8080 so_keepalive=on; }
         server { }",
    )
    .unwrap();
    let shown: Vec<_> = config
        .listeners
        .iter()
        .map(|l| l.address.to_string())
        .collect();
    assert_eq!(
        shown,
        [
            "0.0.0.0:80",
            "[::]:8080",
            "127.0.0.1:80",
            "unix:/p/run/s",
            "0.0.0.0:8000",
            "0.0.0.0:8001",
            "10.0.0.1:8080"
        ]
    );
    let port_80 = &config.listeners[0];
    assert!(port_80.reuseport);
    assert_eq!(port_80.hosts.find(b"other"), 1);
    assert_eq!(port_80.hosts.find(b"a"), 0);
    assert_eq!(port_80.hosts.find(b"x.shared"), 0);
    assert_eq!(port_80.hosts.find(b""), 3);
    assert_eq!(
        (config.listeners[1].backlog, config.listeners[1].ipv6only),
        (9, false)
    );
    let covered: Vec<_> = config.listeners.iter().map(|l| l.covered_by).collect();
    assert_eq!(covered, [None, None, Some(0), None, None, None, Some(1)]);
    assert!(matches!(
        config.listeners[6].so_keepalive,
        Some(SoKeepalive::On { .. })
    ));
    let texts: Vec<_> = config
        .remarks
        .iter()
        .map(|remark| remark.text.as_str())
        .collect();
    assert_eq!(
        texts,
        ["conflicting server name \"a\" on 0.0.0.0:80, ignored"]
    );
    for (text, message) in [
        (
            "server { listen 80 backlog=1; } server { listen 80 backlog=2; }",
            "duplicate listen options for 0.0.0.0:80",
        ),
        (
            "server { listen 80; } server { listen 80; server_name a.*.b; }",
            "invalid server name or wildcard \"a.*.b\" on 0.0.0.0:80",
        ),
        (
            "server { listen 80 default; } server { listen 80 default_server; }",
            "a duplicate default server for 0.0.0.0:80",
        ),
    ] {
        assert!(refusal(http(text)).starts_with(message), "{text}");
    }
}

#[test]
fn a_server_that_rejects_handshakes_needs_no_certificate_and_lends_none() {
    let config = http(
        "server { listen 443 ssl; ssl_reject_handshake on; }
         server { listen 443 ssl; server_name a; ssl_certificate a; ssl_certificate_key k; }",
    )
    .unwrap();
    let tls = |id: usize| config.servers[id].tls.as_ref().unwrap();
    assert!(tls(0).reject_handshake && tls(0).certificates.is_empty());
    assert!(!tls(1).reject_handshake);
    let message = refusal(http(
        "server { listen 443 ssl; ssl_reject_handshake on; }
         server { listen 443 ssl; server_name a; }",
    ));
    assert!(message.starts_with("no \"ssl_certificate\""), "{message}");
    assert!(message.ends_with(":2"), "{message}");
}

#[test]
fn a_server_on_a_tls_address_has_tls_whoever_said_so() {
    let config = http(
        "ssl_certificate_key k;
         server { listen 443 ssl; ssl_certificate a; }
         server { listen 443; ssl_verify_client optional; ssl_trusted_certificate t; }
         server { listen 80; ssl_certificate c; }",
    )
    .unwrap();
    let tls = |id: usize| config.servers[id].tls.as_ref();
    assert_eq!(tls(0).unwrap().certificates.len(), 1);
    let borrowed = tls(1).unwrap();
    assert_eq!(
        borrowed.certificates[0].0.value.file().unwrap(),
        Path::new("/p/conf/a")
    );
    assert_eq!(borrowed.verify_client.value, VerifyClient::Optional);
    assert!(tls(2).is_none());
    let warned = http(
        "ssl_certificate a; ssl_certificate_key k; server { listen 443; } server { listen 443 ssl; }",
    )
    .unwrap();
    assert!(warned.servers[0].tls.is_some());
    assert_eq!(
        warned.remarks[0].text,
        "protocol options redefined for 0.0.0.0:443"
    );
}

#[test]
fn log_formats_are_compiled_once_and_shared() {
    let config = http(
        "log_format j escape=json '{\"s\":' '\"$status\"}'; access_log a j; access_log b j;
         server { location / { } } ",
    )
    .unwrap();
    let logs = &location(&config, "/").access_logs;
    assert!(Arc::ptr_eq(&logs[0].format, &logs[1].format));
    assert_eq!(logs[0].format.escape, LogEscape::Json);
    assert_eq!(logs[0].format.template.parts.len(), 3);
    for (text, message) in [
        (
            "log_format combined x;",
            "duplicate \"log_format\" name \"combined\"",
        ),
        (
            "log_format a escape=x y;",
            "unknown log format escaping \"x\"",
        ),
        ("log_format a $nope;", "unknown \"nope\" variable"),
        (
            "access_log syslog:server=x;",
            "host not found in syslog server \"x\"",
        ),
        (
            "access_log a combined if=$nope;",
            "unknown \"nope\" variable",
        ),
    ] {
        assert!(
            refusal(http(text)).starts_with(message),
            "{text}: {}",
            refusal(http(text))
        );
    }
}

#[test]
fn includes_are_spliced_in_and_listed_in_load_order() {
    let files = [
        (
            "/p/conf/nginx.conf",
            "events {} http { include sites/*.conf; include sites/none-*.conf; }",
        ),
        ("/p/conf/sites/b.conf", "server { listen 2; include snip; }"),
        ("/p/conf/sites/a.conf", "server { listen 1; include snip; }"),
        ("/p/conf/snip", "# a comment without line end"),
    ];
    let config = load_files(&files, &["daemon off;", "pid /run/x;"]).unwrap();
    let names: Vec<_> = config.files.iter().map(|file| &*file.name).collect();
    assert_eq!(
        names,
        [
            "/p/conf/nginx.conf",
            "/p/conf/sites/a.conf",
            "/p/conf/snip",
            "/p/conf/sites/b.conf"
        ]
    );
    assert_eq!(config.listeners[0].address.to_string(), "0.0.0.0:1");
    assert!(!config.core.daemon);
    assert_eq!(config.core.pid, Path::new("/run/x"));
    for (global, message) in [
        ("foo;", "unknown directive \"foo\" in command line"),
        (
            "daemon off",
            "unexpected end of parameter, expecting \";\" in command line",
        ),
        (
            "events {}",
            "block directives are not supported in -g option in command line",
        ),
    ] {
        assert_eq!(refusal(load_files(&files, &[global])), message);
    }
}

#[test]
fn the_identity_passed_on_is_inherited_and_can_be_turned_off() {
    let config = http(
        "proxy_client_identity xfcc cert chain; upstream b { server 127.0.0.1; } \
         server { \
             location /a { proxy_pass http://b; } \
             location /b { proxy_client_identity off; proxy_pass http://b; } \
             location /c { proxy_client_identity rfc9440; proxy_pass http://b; } \
         }",
    )
    .unwrap();
    let of = |path| proxy(&config, path).client_identity;
    let identity = |form, cert, chain| Some(ClientIdentity { form, cert, chain });
    assert_eq!(of("/a"), identity(IdentityForm::Xfcc, true, true));
    assert_eq!(of("/b"), None);
    assert_eq!(of("/c"), identity(IdentityForm::Rfc9440, false, false));
}

#[test]
fn a_form_owns_its_names_in_every_spelling() {
    for (form, name, owned) in [
        (IdentityForm::Xfcc, "X_Forwarded-CLIENT_cert", true),
        (IdentityForm::Xfcc, "X-Forwarded-Client-Certs", false),
        (IdentityForm::Rfc9440, "client_cert", true),
        (IdentityForm::Rfc9440, "Client-Cert_Chain", true),
        (IdentityForm::Rfc9440, "Client-Cert-", false),
        (IdentityForm::Nginx, "x_ssl_client_s_dn", true),
        (IdentityForm::Nginx, "X-SSL-Client-Anything", true),
        (IdentityForm::Nginx, "X-SSL-Client", false),
    ] {
        assert_eq!(form.owns(name.as_bytes()), owned, "{form:?} {name}");
    }
}

#[test]
fn what_the_client_offers_is_kept_only_where_a_value_names_it() {
    let records = |text: &str| server(text).unwrap().records_client_hello;
    assert!(!records("return 200 $ssl_curve$ssl_cipher;"));
    assert!(records("return 200 $ssl_ciphers;"));
    assert!(records("add_header X-Groups $ssl_curves;"));
}

#[test]
fn a_block_with_any_client_rule_takes_none_from_outside() {
    let config = http(
        "ssl_client_allow cn:a; server {
            location /outer { }
            location /own { ssl_client_deny cn:b; ssl_client_allow all;
                location /own/nested { ssl_client_required on; } }
         } server { ssl_client_deny all; ssl_client_required on; ssl_permissive on; }",
    )
    .unwrap();
    let said = |location: &Location| -> Vec<String> {
        let rules = location.client_rules.iter().flat_map(|rules| &rules.rules);
        rules.map(ToString::to_string).collect()
    };
    let outer = ["\"ssl_client_allow cn:a\" in /p/conf/nginx.conf:1"];
    assert_eq!(said(&config.servers[0].root), outer);
    assert_eq!(said(location(&config, "/outer")), outer);
    let own = location(&config, "/own");
    assert_eq!(
        said(own),
        [
            "\"ssl_client_deny cn:b\" in /p/conf/nginx.conf:3",
            "\"ssl_client_allow all\" in /p/conf/nginx.conf:3",
        ]
    );
    let FoundLocation::Location { location, .. } =
        config.servers[0].locations.find(b"/own/nested").unwrap()
    else {
        panic!()
    };
    let shared = (&location.client_rules, &own.client_rules);
    let (Some(nested), Some(own_rules)) = shared else {
        panic!()
    };
    assert!(Arc::ptr_eq(nested, own_rules), "known again by address");
    assert!(location.client_required && !own.client_required);
    let second = &config.servers[1];
    assert!(second.permissive && second.root.client_required);
    assert!(!config.servers[0].permissive);
    let warned = config.remarks.iter().any(|remark| {
        remark.level == LogLevel::Warn
            && remark.text.starts_with("\"ssl_permissive\" has no effect")
    });
    assert!(warned, "{:?}", config.remarks);
}

#[test]
fn how_clients_are_judged_is_inherited_and_needs_no_ca_where_any_will_do() {
    let config = load(
        "events {} http { ssl_certificate a; ssl_certificate_key b; ssl_crl lists.pem;
         ssl_verify_client optional_no_ca; ssl_verify_failure http;
         server { listen 443 ssl; }
         server { listen 444 ssl; ssl_crl_expired allow; ssl_verify_failure alert; } }",
    )
    .unwrap();
    let of = |index: usize| config.servers[index].tls.as_ref().unwrap();
    for index in [0, 1] {
        assert_eq!(of(index).verify_client.value, VerifyClient::OptionalNoCa);
        let crl = of(index).crl.as_ref().unwrap();
        assert_eq!(crl.value, Path::new("/p/conf/lists.pem"));
        assert_eq!(crl.position.line, 1);
    }
    assert_eq!(of(0).crl_expired, CrlExpired::Deny);
    assert_eq!(of(0).verify_failure, VerifyFailure::Http);
    assert_eq!(of(1).crl_expired, CrlExpired::Allow);
    assert_eq!(of(1).verify_failure, VerifyFailure::Alert);
}

#[test]
fn a_page_for_refused_clients_lets_them_in_as_far_as_that_unless_an_alert_is_asked_for() {
    let failure = |lines: &str| {
        let config = load(&format!(
            "events {{}} http {{ {lines} location = /x {{ error_page 495 /y; }} }} }}"
        ));
        config.unwrap().servers[0]
            .tls
            .as_ref()
            .unwrap()
            .verify_failure
    };
    let server = "server { listen 443 ssl; ssl_certificate a; ssl_certificate_key b;";
    for (before, inside, expected) in [
        ("", "", VerifyFailure::Alert),
        ("", "error_page 404 497 /x;", VerifyFailure::Alert),
        ("", "error_page 404 496 /x;", VerifyFailure::Http),
        ("error_page 495 /x;", "", VerifyFailure::Http),
        (
            "error_page 495 /x;",
            "error_page 404 /x;",
            VerifyFailure::Alert,
        ),
        (
            "error_page 495 /x; ssl_verify_failure alert;",
            "",
            VerifyFailure::Alert,
        ),
    ] {
        let lines = format!("{before} {server} {inside}");
        assert_eq!(failure(&lines), expected, "{lines}");
    }
}

#[test]
fn demands_that_no_client_can_meet_are_warned_of() {
    let warned = |inside: &str| {
        let config = load(&format!(
            "events {{}} http {{ server {{ listen 443 ssl; ssl_certificate a; \
             ssl_certificate_key b; {inside} }} }}"
        ));
        let remarks = config.unwrap().remarks;
        remarks.iter().any(|remark| {
            remark.level == LogLevel::Warn && remark.text.contains("\"ssl_verify_client\" is off")
        })
    };
    assert!(warned("ssl_client_required on;"));
    assert!(warned("ssl_client_allow cn:a;"));
    assert!(warned(
        "location / { location /x { ssl_client_required on; } }"
    ));
    assert!(!warned("location / { }"));
    let optional = "ssl_verify_client optional; ssl_client_certificate c;";
    assert!(!warned(&format!("{optional} ssl_client_required on;")));
    let plain = load("events {} http { ssl_client_allow all; server { listen 80; } }");
    assert_eq!(plain.unwrap().remarks.len(), 1);
}

#[test]
fn cores_are_dumped_only_where_a_size_is_given() {
    let size = |main: &str| {
        load(&format!("{main} events {{}}"))
            .unwrap()
            .core
            .worker_rlimit_core
    };
    assert_eq!(size(""), None);
    assert_eq!(size("worker_rlimit_core 500m;"), Some(500 << 20));
}

#[test]
fn a_listen_parameter_without_effect_is_said_not_swallowed() {
    for (listen, word, reason) in [
        (
            "80 rcvbuf=8k",
            "rcvbuf=8k",
            "the kernel sizes its own buffers",
        ),
        (
            "unix:s deferred",
            "deferred",
            "a Unix domain socket has no such option",
        ),
    ] {
        let config = http(&format!("server {{ listen {listen}; }}")).unwrap();
        let text = format!("\"{word}\" of \"listen\" directive has no effect here: {reason}");
        let said = |remark: &Remark| remark.text == text;
        assert!(config.remarks.iter().any(said), "{:?}", config.remarks);
    }
}

#[test]
fn connections_are_deferred_where_one_server_of_the_address_says_so() {
    let config = http(
        "server { listen 80 deferred; listen 81; } server { listen 80; listen 81; listen 82; }",
    )
    .unwrap();
    let deferred: Vec<bool> = config.listeners.iter().map(|it| it.deferred).collect();
    assert_eq!(deferred, [true, false, false]);
    assert!(
        config
            .remarks
            .iter()
            .all(|it| !it.text.contains("deferred"))
    );
    let twice = http("server { listen 80 deferred; } server { listen 80 deferred; }");
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("duplicate listen options")
    );
}
