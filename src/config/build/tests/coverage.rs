//! The table and the build agree: what is honoured is handled, what has no
//! effect is said.

use proptest::prelude::*;

use super::*;

#[test]
fn what_has_no_effect_is_listed_once() {
    let config = load(
        "timer_resolution 1s; events { multi_accept on; }
         http { sendfile on; gzip off; server { sendfile off; ssl_protocols TLSv1 TLSv1.2;
            ssl_session_cache builtin:1000 shared:SSL:10m; access_log x combined buffer=8k flush=5s;
            ssl_session_tickets off; return 200 \"a\nb\"; add_header P \"a;\n   b\"; } }",
    )
    .unwrap();
    let texts: Vec<_> = config
        .remarks
        .iter()
        .map(|r| (r.level, r.text.split(" here").next().unwrap()))
        .collect();
    assert_eq!(
        texts,
        [
            (
                LogLevel::Notice,
                "\"timer_resolution\" directive has no effect"
            ),
            (LogLevel::Notice, "\"multi_accept\" directive has no effect"),
            (LogLevel::Notice, "\"sendfile\" directive has no effect"),
            (
                LogLevel::Warn,
                "\"TLSv1\" in \"ssl_protocols\" directive is not offered"
            ),
            (
                LogLevel::Notice,
                "\"builtin\" in \"ssl_session_cache\" directive has no effect"
            ),
            (
                LogLevel::Warn,
                "the value of \"P\" in \"add_header\" directive spans lines, which are joined by spaces"
            ),
        ]
    );
    let root = &config.servers[0].root;
    assert_eq!(root.add_headers[0].value.as_literal(), Some(&b"a; b"[..]));
    let Handler::Return(returns) = &root.handler else {
        panic!()
    };
    assert_eq!(
        returns.text.as_ref().unwrap().as_literal(),
        Some(&b"a\nb"[..])
    );
}

/// Arguments that each honoured directive takes, so that the test below can
/// say all of them.
fn example(name: &str) -> Option<&'static str> {
    Some(match name {
        "user" => "nobody nogroup",
        "worker_processes" | "worker_rlimit_nofile" | "worker_connections" => "4",
        "worker_shutdown_timeout"
        | "keepalive_timeout"
        | "client_header_timeout"
        | "client_body_timeout"
        | "send_timeout"
        | "proxy_connect_timeout"
        | "proxy_read_timeout"
        | "proxy_send_timeout"
        | "resolver_timeout"
        | "keepalive_time"
        | "keepalive_min_timeout"
        | "lingering_time"
        | "lingering_timeout"
        | "ssl_session_timeout" => "10s",
        "pid"
        | "working_directory"
        | "error_log"
        | "access_log"
        | "ssl_client_certificate"
        | "ssl_crl"
        | "ssl_trusted_certificate"
        | "ssl_certificate"
        | "ssl_certificate_key"
        | "ssl_password_file"
        | "ssl_stapling_file"
        | "ssl_session_ticket_key" => "file",
        "env" => "A=b",
        "ssl_watch" => "on 2s",
        "use" => "epoll",
        "listen" => "80",
        "server_name" => "a",
        "return" => "204",
        "set" => "$x y",
        "rewrite" => "^ /x last",
        "error_page" => "404 = /404.html",
        "try_files" => "$uri $uri/ =404",
        "break" | "empty_gif" | "internal" => "",
        "client_max_body_size"
        | "worker_rlimit_core"
        | "client_body_buffer_size"
        | "client_header_buffer_size" => "1k",
        "large_client_header_buffers" => "4 8k",
        "keepalive_requests" | "keepalive" | "ssl_verify_depth" => "3",
        "server_tokens" => "build",
        "http2_push" => "/style.css",
        "http2_max_concurrent_pushes" | "http2_max_concurrent_streams" | "http2_max_requests" => {
            "3"
        }
        "http2_idle_timeout" | "http2_recv_timeout" => "3m",
        "http2_max_field_size"
        | "http2_max_header_size"
        | "http2_body_preread_size"
        | "http2_chunk_size" => "8k",
        "default_type" => "text/html",
        "add_header" | "add_trailer" | "proxy_set_header" => "A b",
        "allow" | "deny" => "10.0.0.0/8",
        "auth_basic" => "realm",
        "auth_basic_user_file" => "file",
        "auth_delay" => "1s",
        "satisfy" => "any",
        "auth_request" => "/auth",
        "auth_request_set" => "$a $upstream_status",
        "set_real_ip_from" => "10.0.0.0/8",
        "real_ip_header" => "proxy_protocol",
        "limit_req_zone" => "$host zone=r:1m rate=10r/s",
        "limit_req" => "zone=r burst=5",
        "limit_conn_zone" => "$host zone=c:1m",
        "limit_conn" => "c 5",
        "limit_req_status" | "limit_conn_status" => "429",
        "limit_req_log_level" | "limit_conn_log_level" => "warn",
        "log_format" => "f $status",
        "least_conn" | "ip_hash" | "random" => "",
        "hash" => "$remote_addr consistent",
        "sticky" => "cookie name path=/",
        "queue" => "10 timeout=5s",
        "zone" => "name 64k",
        "status" => "! 500-599",
        "header" => "Content-Type ~ json",
        "body" => "!~ error",
        "proxy_bind" => "127.0.0.1",
        "proxy_protocol" => "v2",
        "resolver" => "127.0.0.1 valid=5s ipv6=off",
        "proxy_next_upstream_tries" => "2",
        "proxy_next_upstream_timeout" => "2s",
        "proxy_next_upstream" => "error timeout http_503",
        "proxy_pass" => "http://backend",
        "grpc_pass" => "grpc://backend:1",
        "proxy_client_identity" => "xfcc cert",
        "proxy_http_version" => "1.0",
        "proxy_redirect" => "default",
        "expires" => "30d",
        "valid_referers" => "none blocked server_names *.example.org a.example/b ~a",
        "add_header_inherit" | "add_trailer_inherit" => "merge",
        "lingering_close" => "always",
        "max_headers" => "100",
        "client_body_min_rate" => "1k 30s",
        "limit_rate" | "limit_rate_after" | "proxy_limit_rate" => "100k",
        "early_hints" => "$http_a 1",
        "proxy_cookie_domain" | "proxy_cookie_path" => "a b",
        "proxy_cookie_flags" => "a secure",
        "proxy_hide_header" | "proxy_pass_header" => "A",
        "proxy_ignore_headers" => "Expires X-Accel-Buffering",
        "proxy_buffers" => "4 16k",
        "proxy_buffer_size" => "8k",
        "proxy_method" => "POST",
        "proxy_set_body" => "body",
        "json_relay" => "https://backend",
        "json_relay_allow" => "localhost:1; json_relay https://backend",
        "health" => "service=a upstreams certificates",
        "cors_allow_origin" => "https://a.example ~^http://localhost$",
        "cors_allow_methods" => "GET POST",
        "cors_allow_headers" | "cors_expose_headers" => "X-A X-B",
        "cors_max_age" => "1h",
        "proxy_ssl_alpn" => "http/1.1",
        "proxy_ssl_certificate"
        | "proxy_ssl_certificate_key"
        | "proxy_ssl_crl"
        | "proxy_ssl_password_file"
        | "proxy_ssl_trusted_certificate" => "file",
        "proxy_ssl_certificate_cache" | "ssl_certificate_cache" => "max=10 inactive=10s valid=1m",
        "proxy_ssl_ciphers" => "HIGH",
        "proxy_ssl_conf_command" => "Ciphersuites TLS_AES_128_GCM_SHA256",
        "proxy_ssl_name" => "$host",
        "proxy_ssl_protocols" => "TLSv1.3",
        "proxy_ssl_verify_depth" => "2",
        "root" | "alias" | "index" => "a",
        "autoindex_format" => "json",
        "charset" | "source_charset" => "utf-8",
        "charset_types" => "*",
        "disable_symlinks" => "if_not_owner from=/srv",
        "gzip_comp_level" => "6",
        "gzip_disable" => "msie6 Old",
        "gzip_http_version" => "1.0",
        "gzip_min_length" => "1k",
        "gzip_proxied" => "expired auth",
        "gzip_static" => "always",
        "gzip_types" => "text/css",
        "if_modified_since" => "before",
        "max_ranges" => "1",
        "server" => "backend",
        "ssl_crl_expired" => "allow",
        "ssl_client_allow" | "ssl_client_deny" => "all",
        "ssl_verify_client" => "optional",
        "ssl_verify_failure" => "http",
        "ssl_protocols" => "TLSv1.3",
        "ssl_ciphers" => "HIGH",
        "ssl_conf_command" => "Ciphersuites TLS_AES_128_GCM_SHA256",
        "ssl_ecdh_curve" => "X25519:prime256v1",
        "ssl_session_cache" => "none",
        "ssl_stapling_responder" => "http://responder",
        "metrics" | "stub_status" => "",
        // Each is what the one of the other family is.
        _ => return example(&format!("proxy_{}", name.strip_prefix("grpc_")?)),
    })
}

#[test]
fn every_honoured_directive_is_handled_in_each_of_its_contexts() {
    use crate::config::directives::{Arguments, Class, Contexts, rows};
    let places = [
        (Contexts::MAIN, "@ events {}"),
        (Contexts::EVENTS, "events { @ }"),
        (Contexts::HTTP, "events {} http { @ }"),
        (Contexts::SERVER, "events {} http { server { @ } }"),
        (
            Contexts::LOCATION,
            "events {} http { server { location / { @ } } }",
        ),
        (
            Contexts::SERVER_IF,
            "events {} http { server { if ($host) { @ } } }",
        ),
        (
            Contexts::LOCATION_IF,
            "events {} http { server { location / { if ($host) { @ } } } }",
        ),
        (
            Contexts::LIMIT_EXCEPT,
            "events {} http { server { location / { limit_except GET { @ } } } }",
        ),
        (
            Contexts::UPSTREAM,
            "events {} http { upstream u { server backend:1; @ } }",
        ),
        (Contexts::MATCH, "events {} http { match m { @ } }"),
    ];
    let mut said = 0;
    for row in rows() {
        let Class::Honoured(_) = row.class else {
            continue;
        };
        let arguments = match (row.arguments, example(row.name)) {
            (Arguments::Flag, _) => "on",
            (Arguments::Words(..), Some(example)) => example,
            (Arguments::Words(..), None) => {
                assert!(
                    matches!(row.name, "include" | "health_check"),
                    "{}",
                    row.name
                );
                continue;
            }
            _ => continue,
        };
        for (context, file) in &places {
            if !row.contexts.intersects(*context) {
                continue;
            }
            said += 1;
            let text = file.replace('@', &format!("{} {arguments};", row.name));
            let unfinished = [
                "ssl_certificate_key\" is defined",
                "zero size shared memory zone",
            ];
            match load(&text) {
                Ok(_) => {}
                Err(error) => assert!(
                    unfinished.iter().any(|known| error.message.contains(known)),
                    "{text}: {error}"
                ),
            }
        }
    }
    assert!(said > 90, "{said}");
}

proptest! {
    #[test]
    fn no_configuration_is_too_odd_to_be_built_or_refused(
        words in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(vec![
                    "{", "}", ";", "events {}", "http {", "server {", "location / {",
                    "location ~", "upstream", "listen", "listen 80;", "listen 443 ssl",
                    "server_name", "~^(?<a>.)$", "*.a", "$a", "${", "proxy_pass http://backend",
                    "return 301", "ssl_certificate", "types {", "keepalive_timeout", "1h 1m",
                    "\"", "'", "\\", "#", "\n", "access_log", "off", "add_header A",
                ]).prop_map(str::to_owned),
                "[ -~]{0,6}",
            ],
            0..40,
        )
    ) {
        let text = words.join(" ");
        for text in [text.clone(), format!("events {{}} http {{ server {{ {text} }} }}")] {
            if let Err(error) = load(&text) {
                let has_no_place = error.message.starts_with("no \"events\" section");
                prop_assert!(error.position.is_some() || has_no_place, "{}", error);
            }
        }
    }
}
