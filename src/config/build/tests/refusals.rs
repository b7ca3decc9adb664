//! What is refused, and in which words.

use super::*;

#[test]
fn every_refusal_is_worded_and_placed_as_in_nginx() {
    for (text, message) in [
        ("foo;", "unknown directive \"foo\" in /p/conf/nginx.conf:1"),
        (
            "events {}\nlisten 80;",
            "\"listen\" directive is not allowed here in /p/conf/nginx.conf:2",
        ),
        (
            "daemon;",
            "invalid number of arguments in \"daemon\" directive in /p/conf/nginx.conf:1",
        ),
        (
            "daemon yes;",
            "invalid value \"yes\" in \"daemon\" directive, it must be \"on\" or \"off\" in /p/conf/nginx.conf:1",
        ),
        (
            "pid a; pid b;",
            "\"pid\" directive is duplicate in /p/conf/nginx.conf:1",
        ),
        (
            "events {} events {}",
            "\"events\" directive is duplicate in /p/conf/nginx.conf:1",
        ),
        (
            "events {} http {} http {}",
            "\"http\" directive is duplicate in /p/conf/nginx.conf:1",
        ),
        (
            "daemon on {}",
            "directive \"daemon\" is not terminated by \";\" in /p/conf/nginx.conf:1",
        ),
        (
            "events;",
            "directive \"events\" has no opening \"{\" in /p/conf/nginx.conf:1",
        ),
        (
            "events {\n",
            "unexpected end of file, expecting \"}\" in /p/conf/nginx.conf:2",
        ),
        (
            "daemon on",
            "unexpected end of file, expecting \";\" or \"}\" in /p/conf/nginx.conf:1",
        ),
        ("}", "unexpected \"}\" in /p/conf/nginx.conf:1"),
        ("daemon on;", "no \"events\" section in configuration"),
        (
            "worker_processes 0;",
            "\"worker_processes\" directive invalid value in /p/conf/nginx.conf:1",
        ),
        (
            "events { use kqueue; }",
            "invalid event type \"kqueue\" in /p/conf/nginx.conf:1",
        ),
        (
            "events { worker_connections x; }",
            "\"worker_connections\" directive invalid number in /p/conf/nginx.conf:1",
        ),
        (
            "error_log x loud; events {}",
            "invalid log level \"loud\" in /p/conf/nginx.conf:1",
        ),
        (
            "include missing.conf;",
            "open() \"/p/conf/missing.conf\" failed (2: No such file or directory) in /p/conf/nginx.conf:1",
        ),
        (
            "include;",
            "invalid number of arguments in \"include\" directive in /p/conf/nginx.conf:1",
        ),
        (
            "include nginx.conf;",
            "\"/p/conf/nginx.conf\" includes itself in /p/conf/nginx.conf:1",
        ),
        (
            "mail {}",
            "\"mail\" directive is not supported: ringwall is no mail proxy in /p/conf/nginx.conf:1",
        ),
    ] {
        assert_eq!(refusal(load(text)), message, "{text}");
    }
    assert_eq!(
        refusal(load_files(&[], &[])),
        "open() \"/p/conf/nginx.conf\" failed (2: No such file or directory)"
    );
}

#[test]
fn refusals_inside_a_server_are_worded_as_in_nginx() {
    for (text, message) in [
        (
            "client_max_body_size 1x;",
            "\"client_max_body_size\" directive invalid value",
        ),
        (
            "listen 0;",
            "invalid port in \"0\" of the \"listen\" directive",
        ),
        (
            "listen nowhere:80;",
            "host not found in \"nowhere:80\" of the \"listen\" directive",
        ),
        ("listen 80 sssl;", "invalid parameter \"sssl\""),
        (
            "listen 80 quic;",
            "\"listen\" directive parameter \"quic\" is not implemented in this version",
        ),
        ("listen 80; listen *:80;", "a duplicate listen 0.0.0.0:80"),
        (
            "listen [::1;",
            "invalid host in \"[::1\" of the \"listen\" directive",
        ),
        ("listen 80 backlog=x;", "invalid backlog \"backlog=x\""),
        ("server_name *a.b;", "server name \"*a.b\" is invalid"),
        ("server_name ~;", "empty regex in server name \"~\""),
        ("location / {} location / {}", "duplicate location \"/\""),
        ("location != / {}", "invalid location modifier \"!=\""),
        (
            "location /a { location /b {} }",
            "location \"/b\" is outside location \"/a\"",
        ),
        (
            "location =/a { location /a {} }",
            "location \"/a\" cannot be inside the exact location \"/a\"",
        ),
        (
            "location /a { location @b {} }",
            "named location \"@b\" can be on the server level only",
        ),
        ("location / { proxy_pass ftp://a; }", "invalid URL prefix"),
        (
            "location / { proxy_pass http://nobody; }",
            "host not found in upstream \"nobody\"",
        ),
        (
            "location / { proxy_pass http://a:x; }",
            "invalid port in upstream \"a:x\"",
        ),
        (
            "location ~ x { proxy_pass http://backend/; }",
            "\"proxy_pass\" cannot have URI part in location given by regular expression, \
             or inside named location, or inside \"if\" statement, or inside \"limit_except\" block",
        ),
        (
            "location / { proxy_pass http://backend; proxy_pass http://backend; }",
            "\"proxy_pass\" directive is duplicate",
        ),
        (
            "location / { proxy_pass https://127.0.0.1; proxy_ssl_verify on; }",
            "no proxy_ssl_trusted_certificate for proxy_ssl_verify",
        ),
        (
            "location / { proxy_pass https://127.0.0.1; proxy_ssl_certificate a.crt; }",
            "no \"proxy_ssl_certificate_key\" is defined for certificate \"/p/conf/a.crt\"",
        ),
        (
            "location / { proxy_pass https://127.0.0.1; proxy_ssl_certificate $arg_a; }",
            "no \"proxy_ssl_certificate_key\" is defined for certificate \"with variables\"",
        ),
        (
            "proxy_ssl_certificate_cache valid=1m;",
            "\"proxy_ssl_certificate_cache\" directive must have the \"max\" parameter",
        ),
        (
            "proxy_ssl_certificate_cache max=0;",
            "invalid parameter \"max=0\"",
        ),
        (
            "proxy_ssl_certificate_cache off max=1;",
            "invalid parameter \"off\"",
        ),
        ("proxy_ssl_alpn h3;", "invalid protocol \"h3\""),
        (
            "proxy_ssl_protocols TLSv1;",
            "\"proxy_ssl_protocols\" directive names no version that is offered: TLSv1.2, TLSv1.3",
        ),
        ("return 1000;", "invalid return code \"1000\""),
        ("return x;", "invalid return code \"x\""),
        ("return 200 $nope;", "unknown \"nope\" variable"),
        ("access_log x nope;", "unknown log format \"nope\""),
        ("add_header a b never;", "invalid parameter \"never\""),
        (
            "ssl_session_cache shared:a:1k;",
            "session cache \"shared:a:1k\" is too small",
        ),
        (
            "ssl_session_cache shared;",
            "invalid session cache \"shared\"",
        ),
        (
            "ssl_protocols TLSv1;",
            "\"ssl_protocols\" directive names no version that is offered: TLSv1.2, TLSv1.3",
        ),
        (
            "ssl_conf_command Options KTLS;",
            "\"ssl_conf_command\" directive with \"Options\" is not implemented in this version",
        ),
        ("ssl_protocols TLSv9;", "invalid value \"TLSv9\""),
        (
            "gunzip on;",
            "\"gunzip\" directive is not implemented in this version (only \"off\" is accepted)",
        ),
        ("types { a/b c { } }", "unexpected \"{\""),
        (
            "proxy_set_header X-Cert $ssl_client_raw_cert;",
            "\"proxy_set_header\" directive has a certificate in lines as its value, which no \
             field can carry: \"$ssl_client_escaped_cert\" has it in one",
        ),
        (
            "add_header X-Cert a${ssl_client_raw_cert}b;",
            "\"add_header\" directive has a certificate in lines as its value, which no \
             field can carry: \"$ssl_client_escaped_cert\" has it in one",
        ),
        (
            "return 302 https://a/$ssl_client_raw_cert;",
            "\"return\" directive has a control character in its URL",
        ),
        ("proxy_client_identity envoy;", "invalid value \"envoy\""),
        (
            "proxy_client_identity off cert;",
            "invalid parameter \"cert\"",
        ),
        (
            "proxy_client_identity nginx chain;",
            "invalid parameter \"chain\"",
        ),
        (
            "proxy_client_identity xfcc cert cert;",
            "duplicate parameter \"cert\"",
        ),
        (
            "proxy_client_identity rfc9440; location / { proxy_pass http://backend; \
             proxy_set_header client_cert x; }",
            "\"proxy_set_header\" of \"client_cert\" and \"proxy_client_identity\", \
             which writes it, both hold in this location",
        ),
        ("proxy_redirect a;", "invalid parameter \"a\""),
        (
            "set $realpath_root x;",
            "the \"realpath_root\" variable is Nginx's own and cannot be set here",
        ),
        ("limit_rate fast;", "\"limit_rate\" directive invalid value"),
        ("proxy_cookie_flags a b;", "invalid parameter \"b\""),
        (
            "proxy_cookie_path a b; proxy_cookie_path off;",
            "\"proxy_cookie_path\" directive is duplicate",
        ),
        ("proxy_ignore_headers Foo;", "invalid value \"Foo\""),
        ("expires soon;", "\"expires\" directive invalid value"),
        (
            "expires @25h;",
            "\"expires\" directive daily time value must be less than 24 hours",
        ),
        (
            "listen 443 ssl;",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive",
        ),
        (
            "listen 443 ssl; ssl_reject_handshake off;",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive",
        ),
        (
            "ssl_certificate a;",
            "no \"ssl_certificate_key\" is defined for certificate \"/p/conf/a\"",
        ),
        (
            "listen 443 ssl; ssl_certificate a; ssl_certificate_key b; ssl_verify_client on;",
            "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
        ),
        ("ssl_crl_expired on;", "invalid value \"on\""),
        ("ssl_verify_failure html;", "invalid value \"html\""),
        (
            "ssl_crl a; ssl_crl b;",
            "\"ssl_crl\" directive is duplicate",
        ),
    ] {
        let expected = format!("{message} in /p/conf/nginx.conf:1");
        assert_eq!(refusal(server(text)), expected, "{text}");
    }
    let unclosed = refusal(server("location ~ (x {}"));
    assert!(
        unclosed.contains("unclosed group") && unclosed.ends_with(":1"),
        "{unclosed}"
    );
}

#[test]
fn a_client_rule_that_is_none_is_refused_with_its_place() {
    for (text, message) in [
        (
            "ssl_client_allow dns:*.a;",
            "invalid rule \"dns:*.a\" in \"ssl_client_allow\" directive: \"*\" has a meaning in \"uri:\" only in /p/conf/nginx.conf:1",
        ),
        (
            "ssl_client_deny serial:xyz;",
            "invalid rule \"serial:xyz\" in \"ssl_client_deny\" directive: not a hexadecimal number in /p/conf/nginx.conf:1",
        ),
        (
            "ssl_client_required on; ssl_client_required on;",
            "\"ssl_client_required\" directive is duplicate in /p/conf/nginx.conf:1",
        ),
        (
            "location / { ssl_permissive on; }",
            "\"ssl_permissive\" directive is not allowed here in /p/conf/nginx.conf:1",
        ),
    ] {
        assert_eq!(refusal(server(text)), message, "{text}");
    }
}

#[test]
fn what_nginx_calls_deprecated_or_obsolete_of_http2_is_said_in_its_words() {
    let config = load(
        "events {} http { http2_push off; http2_idle_timeout 3m; \
         server { listen 443 http2; listen 444 http2; } server { listen 445; http2 on; } }",
    )
    .unwrap();
    let said = |words: &str| {
        let remarks = config.remarks.iter();
        remarks.filter(|remark| remark.text == words).count()
    };
    assert_eq!(
        said(
            "the \"listen ... http2\" directive is deprecated, \
             use the \"http2\" directive instead"
        ),
        2
    );
    assert_eq!(said("the \"http2_push\" directive is obsolete, ignored"), 1);
    assert_eq!(
        said(
            "the \"http2_idle_timeout\" directive is obsolete, \
             use the \"keepalive_timeout\" directive instead"
        ),
        1
    );
    let offered = config.listeners.iter().map(|listener| listener.http2);
    assert_eq!(offered.collect::<Vec<_>>(), [true, true, false]);
    let offered = config
        .servers
        .iter()
        .map(|server| server.connection.http2.enabled);
    assert_eq!(offered.collect::<Vec<_>>(), [false, true]);
}
