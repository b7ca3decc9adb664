//! The URL of a `proxy_pass` or `grpc_pass` with variables, read when they have
//! values: by the same rules as at load (`ngx_http_proxy_eval`,
//! `ngx_http_grpc_eval`).

use super::upstream::{HTTP_PORT, HTTPS_PORT, NO_PORT};
use super::url::{self, Target, Url, strip_prefix_any_case};
use crate::config::model::{ParsedUrl, ProxyFamily, UpstreamNames, UrlTarget};

/// Takes the URL apart and looks its host up among the upstreams.
///
/// # Errors
/// What is wrong with it, in Nginx's words.
pub(crate) fn parse(
    value: &[u8],
    family: ProxyFamily,
    names: &UpstreamNames,
) -> Result<ParsedUrl, String> {
    let [plain, secure] = family.schemes();
    let secure = strip_prefix_any_case(value, secure);
    let rest = secure.or_else(|| strip_prefix_any_case(value, plain));
    let is_grpc = family == ProxyFamily::Grpc;
    let Some(rest) = rest.or_else(|| is_grpc.then_some(value)) else {
        let value = String::from_utf8_lossy(value);
        return Err(format!("invalid URL prefix in \"{value}\""));
    };
    let secure = secure.is_some();
    let default_port = match (family, secure) {
        (ProxyFamily::Proxy, true) => HTTPS_PORT,
        (ProxyFamily::Proxy, false) => HTTP_PORT,
        (ProxyFamily::Grpc, _) => NO_PORT,
    };
    let refuse = |what: &str| {
        let rest = String::from_utf8_lossy(rest);
        format!("{what} in upstream \"{rest}\"")
    };
    let Url { target, uri } = url::parse(rest).map_err(refuse)?;
    if is_grpc && uri.is_some() {
        return Err(refuse("invalid host"));
    }
    let uri = uri.map(|uri| match uri.first() {
        Some(b'?') => [b"/", uri].concat(),
        _ => uri.to_vec(),
    });
    let (target, host, port) = match target {
        Target::Unix(path) => {
            let known = names.implicit.get(&format!("unix:{}", path.display()));
            let target = known.map_or(UrlTarget::Unix(path), |id| UrlTarget::Upstream(*id));
            (target, "localhost".to_owned(), 0)
        }
        Target::Host { host, port } => {
            let lower = host.to_ascii_lowercase();
            let number = port.unwrap_or(default_port);
            let block = names.blocks.get(&lower).filter(|_| port.is_none());
            let known = block.or_else(|| names.implicit.get(&format!("{lower}:{number}")));
            let target = match (known, url::parse_address(host)) {
                (Some(id), _) => UrlTarget::Upstream(*id),
                _ if number == NO_PORT => return Err(refuse("no port")),
                (None, Some(ip)) => UrlTarget::Inet((ip, number).into()),
                (None, None) => UrlTarget::Name(lower.trim_end_matches('.').to_owned(), number),
            };
            let shown = if number == default_port {
                host.to_owned()
            } else {
                format!("{host}:{number}")
            };
            (target, shown, number)
        }
    };
    Ok(ParsedUrl {
        target,
        secure,
        host: host.into(),
        port,
        uri,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> UpstreamNames {
        UpstreamNames {
            blocks: [("app".to_owned(), 1)].into(),
            implicit: [("a.test:80".to_owned(), 2), ("unix:/s".to_owned(), 3)].into(),
        }
    }

    #[test]
    fn a_group_comes_before_an_address_and_that_before_a_name() {
        for (url, target) in [
            ("http://App/x", UrlTarget::Upstream(1)),
            ("http://app:8080", UrlTarget::Name("app".into(), 8080)),
            ("http://A.test", UrlTarget::Upstream(2)),
            ("http://a.test:80", UrlTarget::Upstream(2)),
            ("https://a.test", UrlTarget::Name("a.test".into(), 443)),
            ("http://unix:/s:/x", UrlTarget::Upstream(3)),
            ("http://unix:/t", UrlTarget::Unix("/t".into())),
            (
                "http://127.0.0.1:81",
                UrlTarget::Inet("127.0.0.1:81".parse().unwrap()),
            ),
            (
                "https://[::1]",
                UrlTarget::Inet("[::1]:443".parse().unwrap()),
            ),
            ("http://B.test./", UrlTarget::Name("b.test".into(), 80)),
        ] {
            let parsed = parse(url.as_bytes(), ProxyFamily::Proxy, &names()).unwrap();
            assert_eq!(parsed.target, target, "{url}");
        }
    }

    #[test]
    fn the_host_keeps_its_port_where_it_is_not_the_schemes_own() {
        for (url, host, port, uri) in [
            ("http://a:80/", "a", 80, Some("/")),
            ("http://a:443", "a:443", 443, None),
            ("https://A:443?x", "A", 443, Some("/?x")),
            ("http://unix:/s:/y", "localhost", 0, Some("/y")),
        ] {
            let parsed = parse(url.as_bytes(), ProxyFamily::Proxy, &names()).unwrap();
            assert_eq!((&*parsed.host, parsed.port), (host, port), "{url}");
            assert_eq!(parsed.uri.as_deref(), uri.map(str::as_bytes), "{url}");
        }
    }

    #[test]
    fn a_grpc_url_needs_no_scheme_but_a_port_and_no_path() {
        for (url, target, secure, host) in [
            ("App", UrlTarget::Upstream(1), false, "App"),
            ("grpcs://app", UrlTarget::Upstream(1), true, "app"),
            ("A.test:80", UrlTarget::Upstream(2), false, "A.test:80"),
            ("grpc://unix:/s", UrlTarget::Upstream(3), false, "localhost"),
            (
                "GRPCS://b:443",
                UrlTarget::Name("b".into(), 443),
                true,
                "b:443",
            ),
            (
                "[::1]:81",
                UrlTarget::Inet("[::1]:81".parse().unwrap()),
                false,
                "[::1]:81",
            ),
        ] {
            let parsed = parse(url.as_bytes(), ProxyFamily::Grpc, &names()).unwrap();
            assert_eq!((parsed.target, parsed.secure), (target, secure), "{url}");
            assert_eq!(&*parsed.host, host, "{url}");
        }
        for (url, message) in [
            ("b.test", "no port in upstream \"b.test\""),
            ("grpcs://127.0.0.1", "no port in upstream \"127.0.0.1\""),
            ("grpc://app/x", "invalid host in upstream \"app/x\""),
            ("", "no host in upstream \"\""),
        ] {
            let refused = parse(url.as_bytes(), ProxyFamily::Grpc, &names());
            assert_eq!(refused, Err(message.into()), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_in_nginx_words() {
        for (url, message) in [
            ("", "invalid URL prefix in \"\""),
            ("ftp://a", "invalid URL prefix in \"ftp://a\""),
            ("http://", "no host in upstream \"\""),
            ("http://:80", "no host in upstream \":80\""),
            ("http://a:x", "invalid port in upstream \"a:x\""),
        ] {
            assert_eq!(
                parse(url.as_bytes(), ProxyFamily::Proxy, &names()),
                Err(message.into()),
                "{url}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_url_is_too_odd_to_be_taken_apart(url in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&[b"http://", &url[..]].concat(), ProxyFamily::Proxy, &names());
            let _ = parse(&url, ProxyFamily::Grpc, &names());
        }
    }
}
