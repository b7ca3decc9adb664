//! What a backend is asked for: the rewriting of URIs by `proxy_pass`.

use crate::config::Proxy;
use crate::http::h1::encode::Sink;
use crate::http::uri::escape_uri;
use crate::proxy::request::Request;

/// Writes the target of a backend's request; one that variables have made is
/// sent as it is.
pub(super) fn write_target(request: &Request<'_>, proxy: &Proxy, out: &mut impl Sink) {
    if let Some(destination) = &request.destination
        && let Some(uri) = &destination.uri
    {
        out.put(uri);
        return;
    }
    let target = &request.target;
    let bytes = request.head_bytes();
    Ingredients {
        sent_path: request.head.path.of(bytes),
        sent_query: request.head.query.map(|query| query.of(bytes)),
        is_as_sent: target.is_as_sent,
        uri: proxy.uri.as_deref(),
        prefix: target.has_prefix.then_some(request.location.prefix.len()),
        path: request.path(),
        args: request.query(),
        is_internal: target.is_internal,
    }
    .write(out);
}

struct Ingredients<'a> {
    sent_path: &'a [u8],
    sent_query: Option<&'a [u8]>,
    /// What was sent still says where the request goes.
    is_as_sent: bool,
    /// The URI part of `proxy_pass`.
    uri: Option<&'a [u8]>,
    /// Bytes of the path that it takes the place of; `None` once the path no
    /// longer begins with the location's prefix.
    prefix: Option<usize>,
    /// As the locations see it.
    path: &'a [u8],
    args: &'a [u8],
    is_internal: bool,
}

impl Ingredients<'_> {
    /// As Nginx does (`ngx_http_proxy_create_request`): without a URI part what
    /// the client sent, as long as nothing has changed it; otherwise that part in
    /// place of the location's prefix and the rest of the path, escaped again if
    /// the client had escaped any of it or the path is of our own making.
    fn write(&self, out: &mut impl Sink) {
        if self.uri.is_none() && self.is_as_sent {
            out.put(match self.sent_path {
                [] => b"/",
                path => path,
            });
            if let Some(query) = self.sent_query {
                out.put(b"?");
                out.put(query);
            }
            return;
        }
        let rest = match (self.uri, self.prefix) {
            (Some(uri), Some(prefix)) => {
                out.put(uri);
                self.path.get(prefix..).unwrap_or_default()
            }
            _ => self.path,
        };
        if self.is_internal || memchr::memchr(b'%', self.sent_path).is_some() {
            let mut escaped = Vec::with_capacity(rest.len());
            escape_uri(&mut escaped, rest);
            out.put(&escaped);
        } else {
            out.put(rest);
        }
        if !self.args.is_empty() {
            out.put(b"?");
            out.put(self.args);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::uri;

    fn target(ingredients: &Ingredients<'_>) -> String {
        let mut out = Vec::new();
        ingredients.write(&mut out);
        // Each byte as a character.
        out.into_iter().map(char::from).collect()
    }

    /// A path as it is spelt, and what it means.
    #[derive(Debug, Clone)]
    struct Spelt {
        sent: String,
        means: String,
    }

    /// Characters that mean themselves, others by their codes, and detours that
    /// lead back to where they began.
    fn path() -> impl Strategy<Value = Spelt> {
        let character = prop::sample::select(vec![
            ("a", "a"),
            ("b", "b"),
            ("~", "~"),
            ("+", "+"),
            ("\"", "\""),
            ("{", "{"),
            ("\u{e9}", "\u{e9}"),
            (";p=1", ";p=1"),
            ("%61", "a"),
            ("%20", " "),
            ("%25", "%"),
            ("%3f", "?"),
            ("%23", "#"),
            ("%C3%A9", "\u{c3}\u{a9}"),
            ("%7C", "|"),
        ]);
        let slash = prop::sample::select(vec![
            "/", "/", "/", "//", "/./", "/%2e/", "%2F", "/x/../", "/x/%2E./", "/.//./",
        ]);
        let segment = (slash.clone(), prop::collection::vec(character, 1..4));
        let segments = prop::collection::vec(segment, 0..4);
        (segments, prop::option::of(slash)).prop_map(|(segments, end)| {
            let mut path = Spelt {
                sent: String::new(),
                means: String::new(),
            };
            for (slash, characters) in segments {
                path.sent.push_str(slash);
                path.means.push('/');
                for (sent, means) in characters {
                    path.sent.push_str(sent);
                    path.means.push_str(means);
                }
            }
            if end.is_some() || path.sent.is_empty() {
                path.sent.push_str(end.unwrap_or("/"));
                path.means.push('/');
            }
            // A request line begins with a slash that is one.
            if path.sent.starts_with('%') {
                path.sent.insert(0, '/');
            }
            path
        })
    }

    /// What may stand in a request line as it is, as Nginx has it.
    fn is_plain(character: char) -> bool {
        character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/[]".contains(character)
    }

    /// One byte for each character.
    fn bytes(text: &str) -> Vec<u8> {
        text.chars().map(|character| character as u8).collect()
    }

    /// A decoded path as Nginx escapes it.
    fn escaped(path: &str) -> String {
        path.chars()
            .map(|character| match is_plain(character) {
                true => character.to_string(),
                false => format!("%{:02X}", character as u32),
            })
            .collect()
    }

    /// What arrives for a path and a query, before anything has changed them.
    fn arrived<'a>(sent: &'a [u8], normal: &'a [u8], args: &'a str) -> Ingredients<'a> {
        Ingredients {
            sent_path: sent,
            sent_query: Some(args.as_bytes()),
            is_as_sent: true,
            uri: None,
            prefix: Some(1),
            path: normal,
            args: args.as_bytes(),
            is_internal: false,
        }
    }

    fn normal(sent: &[u8]) -> Vec<u8> {
        if uri::is_plain(sent) {
            return sent.to_vec();
        }
        let mut normal = Vec::new();
        uri::normalize(sent, true, &mut normal).unwrap();
        normal
    }

    fn with_args(path: &str, args: &str) -> String {
        let mark = if args.is_empty() { "" } else { "?" };
        format!("{path}{mark}{args}")
    }

    const ARGS: &[&str] = &["", "a=%20&b", "?\"x"];

    proptest! {
        #[test]
        fn the_uri_part_takes_the_place_of_the_prefix_and_what_was_escaped_is_so_again(
            path in path(),
            cut: prop::sample::Index,
            uri in prop::sample::select(vec!["/", "/x", "/x/", "/a%20b/", "/u?y="]),
            args in prop::sample::select(ARGS),
        ) {
            let sent = bytes(&path.sent);
            let normal = normal(&sent);
            let prefix = 1 + cut.index(normal.len());
            let rest: String = path.means.chars().skip(prefix).collect();
            let rest = if path.sent.contains('%') { escaped(&rest) } else { rest };
            let found = target(&Ingredients {
                uri: Some(uri.as_bytes()),
                prefix: Some(prefix),
                ..arrived(&sent, &normal, args)
            });
            prop_assert_eq!(found, with_args(&format!("{uri}{rest}"), args));
        }

        #[test]
        fn without_a_uri_part_what_was_sent_is_passed_on(
            path in path(),
            args in prop::sample::select(ARGS),
        ) {
            let sent = bytes(&path.sent);
            let found = target(&arrived(&sent, &normal(&sent), args));
            prop_assert_eq!(found, format!("{}?{args}", path.sent));
        }

        #[test]
        fn a_path_of_our_own_making_is_escaped_and_keeps_no_prefix_behind_break(
            path in path(),
            uri in prop::option::of(Just("/x")),
            args in prop::sample::select(ARGS),
        ) {
            let found = target(&Ingredients {
                is_as_sent: false,
                uri: uri.map(str::as_bytes),
                prefix: None,
                is_internal: true,
                ..arrived(b"/sent", &bytes(&path.means), args)
            });
            prop_assert_eq!(found, with_args(&escaped(&path.means), args));
        }
    }
}
