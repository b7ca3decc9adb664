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
        ("server backend; zone z 1k;", "zone \"z\" is too small"),
        ("server backend; zone z x;", "invalid zone size \"x\""),
    ] {
        let expected = format!("{message} in /p/conf/nginx.conf:1");
        assert_eq!(refusal(upstream(text)), expected, "{text}");
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
