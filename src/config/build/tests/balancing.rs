//! How requests are spread over an upstream's peers, and when they go on.

use std::time::Duration;

use super::*;

fn upstream(text: &str) -> Result<Config> {
    http(&format!("upstream u {{ {text} }}"))
}

#[test]
fn balancing_is_checked_in_nginx_words() {
    for (text, message) in [
        ("least_conn;", "no servers are inside upstream"),
        ("server backend; hash a b;", "invalid parameter \"b\""),
        (
            "server backend; random three;",
            "invalid parameter \"three\"",
        ),
        (
            "server backend; random two ip_hash;",
            "invalid parameter \"ip_hash\"",
        ),
        (
            "ip_hash; server backend; server backend:2 backup;",
            "balancing method does not support parameter \"backup\"",
        ),
        (
            "hash k; server backend slow_start=3s;",
            "balancing method does not support parameter \"slow_start=3s\"",
        ),
        (
            "server backend max_conns=x;",
            "invalid parameter \"max_conns=x\"",
        ),
        (
            "server backend; sticky coke a;",
            "unknown parameter \"coke\"",
        ),
        (
            "server backend; sticky cookie a samesite=never;",
            "\"sticky\" directive invalid \"samesite\" parameter value",
        ),
        (
            "server backend; sticky cookie a secure secure;",
            "\"sticky\" directive parameter \"secure\" is duplicate",
        ),
        (
            "server backend; sticky cookie a path=;",
            "\"sticky\" directive no value for \"path\"",
        ),
        (
            "server backend; sticky route a;",
            "invalid variable name \"a\"",
        ),
        (
            "server backend; zone z;",
            "zero size shared memory zone \"z\"",
        ),
        (
            "server a.test resolve;",
            "resolving names at run time requires upstream \"u\" to be in shared memory",
        ),
        (
            "zone z 64k; server a.test resolve;",
            "no resolver defined to resolve names at run time in upstream \"u\"",
        ),
        (
            "zone z 64k; server a.test service=http;",
            "service upstream \"a.test\" requires \"resolve\" parameter",
        ),
        (
            "zone z 64k; server a.test:81 service=http resolve;",
            "service upstream \"a.test:81\" may not have port",
        ),
        (
            "zone z 64k; server 127.0.0.1 service=http resolve;",
            "service upstream \"127.0.0.1\" requires domain name",
        ),
        (
            "server backend; sticky learn create=a lookup=$a zone=z:64k;",
            "\"sticky\" directive missing variable in the \"create\" parameter",
        ),
        (
            "server backend; sticky learn create=$uri lookup=$uri;",
            "\"sticky\" directive \"zone\" parameter is not specified",
        ),
        (
            "server backend; sticky learn create=$uri zone=z:64k;",
            "\"sticky\" directive \"lookup\" parameter is not specified",
        ),
        (
            "server backend; sticky learn create=$uri lookup=$uri zone=z:1k;",
            "\"sticky\" directive zone is too small",
        ),
        (
            "server backend; sticky learn create=$uri lookup=$uri zone=z:64k sync;",
            "\"sticky\" directive parameter \"sync\" is not implemented in this version",
        ),
        ("server backend; zone z 1k;", "zone \"z\" is too small"),
        ("server backend; zone z x;", "invalid zone size \"x\""),
    ] {
        let expected = format!("{message} in /p/conf/nginx.conf:1");
        assert_eq!(refusal(upstream(text)), expected, "{text}");
    }
}

#[test]
fn buffers_must_fit_one_another_as_in_nginx() {
    let larger = "\"proxy_busy_buffers_size\" must be equal to or greater than the maximum of \
                  the value of \"proxy_buffer_size\" and one of the \"proxy_buffers\"";
    let fewer = "\"proxy_busy_buffers_size\" must be less than the size of all \
                 \"proxy_buffers\" minus one buffer";
    for (text, message) in [
        ("proxy_busy_buffers_size 1k;", Some(larger)),
        (
            "proxy_buffer_size 8k; proxy_busy_buffers_size 4k;",
            Some(larger),
        ),
        ("proxy_buffer_size 64k;", Some(fewer)),
        ("proxy_buffers 2 4k;", Some(fewer)),
        (
            "proxy_buffers 4 32k; proxy_busy_buffers_size 128k;",
            Some(fewer),
        ),
        (
            "proxy_buffer_size 128k; proxy_buffers 4 256k; proxy_busy_buffers_size 256k;",
            None,
        ),
        ("proxy_buffers 3 4k;", None),
        ("proxy_busy_buffers_size 28k;", None),
    ] {
        for place in [text.to_owned(), format!("location / {{ {text} }}")] {
            let built = http(&format!("server {{ listen 80; {place} }}"));
            match message {
                Some(message) => {
                    let expected = format!("{message} in /p/conf/nginx.conf:1");
                    assert_eq!(refusal(built), expected, "{place}");
                }
                None => assert!(built.is_ok(), "{place}"),
            }
        }
    }
}

#[test]
fn a_method_is_the_last_one_said() {
    let method = |text: &str| {
        let config = upstream(&format!("server backend; {text}")).unwrap();
        (config.upstreams[0].method.clone(), config.remarks.len())
    };
    assert_eq!(method(""), (BalanceMethod::RoundRobin, 0));
    assert_eq!(method("least_conn;"), (BalanceMethod::LeastConnections, 0));
    assert_eq!(
        method("ip_hash; random two least_conn;"),
        (BalanceMethod::RandomTwo, 1)
    );
    let (hash, _) = method("hash $remote_addr$uri consistent;");
    assert!(matches!(hash, BalanceMethod::ConsistentHash(key) if key.parts.len() == 2));
}

#[test]
fn a_zone_may_be_shared_and_sized_by_another_upstream() {
    let config = http(
        "upstream a { server backend; zone z; } upstream b { server backend; zone z 64k; }
         upstream c { server backend; }",
    )
    .unwrap();
    let zones: Vec<_> = config.upstreams.iter().map(|u| u.zone).collect();
    assert_eq!(zones, [true, true, false]);
}

#[test]
fn a_server_that_is_resolved_waits_for_nobody_at_load() {
    let config = http(
        "upstream a { zone a 64k; server NOWHERE.test.:81 resolve weight=3; server backend; }
         upstream b { zone b 64k; server x.test resolve; resolver 127.0.0.3; resolver_timeout 5s; }
         upstream c { zone c 64k; server x.test service=http resolve; server backend backup; }
         resolver 127.0.0.2;",
    )
    .unwrap();
    let named = |upstream: usize| config.upstreams[upstream].named.as_ref().unwrap();
    let server = &named(0).servers[0];
    assert_eq!((&*server.name, server.port), ("nowhere.test", 81));
    assert_eq!(server.template.weight, 3);
    assert_eq!(config.upstreams[0].peers.len(), 1);
    let asked = |upstream: usize| {
        let named = named(upstream);
        let servers = &config.resolvers[named.resolver].servers;
        (servers[0].ip().to_string(), named.timeout.as_secs())
    };
    assert_eq!(asked(0), ("127.0.0.2".to_owned(), 30));
    assert_eq!(asked(1), ("127.0.0.3".to_owned(), 5));
    assert_eq!(named(2).servers[0].service.as_deref(), Some("http"));
}

#[test]
fn sessions_are_learnt_in_a_zone_of_their_own() {
    let learn = "sticky learn create=$upstream_cookie_a create=$arg_a lookup=$cookie_a zone=z:1m";
    let config = upstream(&format!("server backend; {learn} timeout=1h header;")).unwrap();
    let sticky = config.upstreams[0].sticky.as_ref().unwrap();
    let sessions = sticky.sessions.as_ref().unwrap();
    assert_eq!((sessions.create.len(), sticky.lookup.len()), (2, 1));
    assert_eq!((sessions.size, sessions.from_head), (1 << 20, true));
    assert_eq!(sessions.timeout, Duration::from_secs(3600));
    assert!(config.records_response_fields);
    let twice = http(&format!(
        "upstream a {{ server backend; {learn}; }} upstream b {{ server backend; {learn}; }}"
    ));
    assert!(refusal(twice).starts_with("sticky zone \"z\" is already used in upstream \"a\""));
}

#[test]
fn sticky_cookies_have_the_parameters_of_nginx() {
    let config = upstream(
        "server backend route=a; sticky cookie srv expires=1h domain=.$host path=/ httponly \
         secure samesite=Lax;",
    )
    .unwrap();
    let sticky = config.upstreams[0].sticky.as_ref().unwrap();
    let cookie = sticky.cookie.as_ref().unwrap();
    assert_eq!(
        cookie.expires,
        Some(StickyExpires::After(Duration::from_secs(3600)))
    );
    assert!(cookie.http_only && cookie.secure && cookie.domain.is_some());
    assert_eq!(cookie.path.as_deref(), Some(&b"/"[..]));
    assert_eq!(sticky.lookup.len(), 1);
    assert_eq!(config.upstreams[0].peers[0].route.as_deref(), Some("a"));
}

#[test]
fn when_to_go_on_is_inherited_as_a_whole() {
    let config = http(
        "proxy_next_upstream http_503 non_idempotent; proxy_next_upstream_tries 2;
         server {
            location / { proxy_pass http://backend; proxy_next_upstream_timeout 3s; }
            location /off/ { proxy_pass http://backend; proxy_next_upstream off error; } }",
    )
    .unwrap();
    let next = &proxy(&config, "/").next_upstream;
    assert!(next.conditions.has_status(503) && !next.conditions.contains(Conditions::ERROR));
    assert_eq!((next.tries, next.timeout.as_secs()), (2, 3));
    let off = &proxy(&config, "/off/").next_upstream;
    assert_eq!(off.conditions, Conditions::NONE);
    assert_eq!(
        NextUpstream::default().conditions,
        Conditions::ERROR | Conditions::TIMEOUT
    );
    let refused = http("proxy_next_upstream http_501;");
    assert!(refusal(refused).starts_with("invalid value \"http_501\""));
}
