//! The one lookup from a name to a virtual host, for SNI and Host alike.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::model::ServerId;
use super::regexes::Pattern;

/// Longest name that is looked up, bytes: a DNS name has at most 253 (RFC 1035
/// §2.3.4, less the length octets), so a longer one belongs to nobody.
const MAX_NAME: usize = 255;

/// Which server of a listener answers for which name, as Nginx looks it up:
/// exact, then the longest leading wildcard, then the longest trailing one,
/// then regular expressions in file order, then the default server.
#[derive(Debug, Default)]
pub struct ServerNames {
    /// For names that nothing else matches.
    pub default: ServerId,
    /// Lower-case names, without trailing dot.
    pub exact: HashMap<Box<str>, ServerId>,
    /// `*.example.org` as `example.org`; lower case.
    pub leading: HashMap<Box<str>, ServerId>,
    /// `www.example.*` as `www.example`; lower case.
    pub trailing: HashMap<Box<str>, ServerId>,
    /// `~…`, in file order.
    pub regexes: Vec<(Pattern, ServerId)>,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy)]
pub struct FoundServer<'a> {
    /// The virtual host.
    pub server: ServerId,
    /// The regular expression that took the name, for its captures.
    pub regex: Option<&'a Pattern>,
}

/// One name of a `server_name` directive, parsed.
#[derive(Debug, Clone)]
pub enum NamePattern {
    /// `www.example.org`, `_`, the empty name.
    Exact(Box<str>),
    /// `*.example.org`.
    Leading(Box<str>),
    /// `.example.org`: the name itself and all below it.
    Domain(Box<str>),
    /// `www.example.*`.
    Trailing(Box<str>),
    /// `~…`.
    Regex(Pattern),
}

/// The name already belongs to another server of the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict;

impl NamePattern {
    /// Parses a name that is not a regular expression; `None` when its
    /// asterisk is not a whole first or last label, or a label is empty.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if name.matches('*').count() > 1 || name.contains("..") || name.contains('\0') {
            return None;
        }
        if let Some(rest) = name.strip_prefix("*.") {
            return (!rest.is_empty()).then(|| Self::Leading(rest.into()));
        }
        if let Some(rest) = name.strip_suffix(".*") {
            return (!rest.is_empty()).then(|| Self::Trailing(rest.into()));
        }
        if name.contains('*') {
            return None;
        }
        if let Some(rest) = name.strip_prefix('.') {
            return (!rest.is_empty()).then(|| Self::Domain(rest.into()));
        }
        Some(Self::Exact(name.into()))
    }
}

impl ServerNames {
    /// Gives a name to a server.
    ///
    /// # Errors
    /// [`Conflict`] when the name is taken; who came first keeps it.
    pub fn insert(&mut self, name: &NamePattern, server: ServerId) -> Result<(), Conflict> {
        let put = |map: &mut HashMap<Box<str>, ServerId>, name: &str| match map.entry(name.into()) {
            Entry::Occupied(_) => Err(Conflict),
            Entry::Vacant(entry) => {
                entry.insert(server);
                Ok(())
            }
        };
        match name {
            NamePattern::Exact(name) => put(&mut self.exact, without_dot(name)),
            NamePattern::Leading(name) => put(&mut self.leading, without_dot(name)),
            NamePattern::Trailing(name) => put(&mut self.trailing, name),
            NamePattern::Domain(name) => {
                let exact = put(&mut self.exact, without_dot(name));
                put(&mut self.leading, without_dot(name)).and(exact)
            }
            NamePattern::Regex(regex) => {
                self.regexes.push((regex.clone(), server));
                Ok(())
            }
        }
    }

    /// The server for a host as SNI, `Host` or `:authority` gives it: in any
    /// case, with or without port and trailing dot. Allocates nothing.
    pub fn find(&self, host: &[u8]) -> ServerId {
        self.lookup(host).server
    }

    /// As [`Self::find`], and says which regular expression matched.
    pub fn lookup(&self, host: &[u8]) -> FoundServer<'_> {
        let mut buffer = [0; MAX_NAME];
        let found = normalise(host, &mut buffer).and_then(|name| self.lookup_normalised(name));
        found.unwrap_or(FoundServer {
            server: self.default,
            regex: None,
        })
    }

    /// The server that this name was given to; `None` where only the default is
    /// left.
    pub fn named(&self, host: &[u8]) -> Option<ServerId> {
        let mut buffer = [0; MAX_NAME];
        let name = normalise(host, &mut buffer)?;
        self.lookup_normalised(name).map(|found| found.server)
    }

    fn lookup_normalised(&self, name: &[u8]) -> Option<FoundServer<'_>> {
        if let Ok(name) = std::str::from_utf8(name)
            && let Some(&server) = self.lookup_plain(name)
        {
            return Some(FoundServer {
                server,
                regex: None,
            });
        }
        if name.is_empty() {
            // Nginx asks no regular expression about a request without a host.
            return None;
        }
        let (regex, server) = self
            .regexes
            .iter()
            .find(|(regex, _)| regex.is_match(name) == Ok(true))?;
        Some(FoundServer {
            server: *server,
            regex: Some(regex),
        })
    }

    fn lookup_plain(&self, name: &str) -> Option<&ServerId> {
        if let Some(server) = self.exact.get(name) {
            return Some(server);
        }
        if !self.leading.is_empty() {
            let mut rest = name;
            while let Some((label, parent)) = rest.split_once('.') {
                // `.example.org` has no label where the asterisk stands.
                if (!label.is_empty() || rest.len() < name.len())
                    && let Some(server) = self.leading.get(parent)
                {
                    return Some(server);
                }
                rest = parent;
            }
        }
        if !self.trailing.is_empty() {
            let mut rest = name;
            while let Some((parent, _)) = rest.rsplit_once('.') {
                if let Some(server) = self.trailing.get(parent) {
                    return Some(server);
                }
                rest = parent;
            }
        }
        None
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Strips port and one trailing dot and lowers the case; `None` for a name too
/// long to be one.
fn normalise<'a>(host: &[u8], buffer: &'a mut [u8; MAX_NAME]) -> Option<&'a [u8]> {
    let host = match host.first() {
        // An IPv6 literal has colons of its own.
        Some(b'[') => match host.iter().position(|&byte| byte == b']') {
            Some(end) => host.get(..=end)?,
            None => host,
        },
        _ => match host.iter().position(|&byte| byte == b':') {
            Some(colon) => host.get(..colon)?,
            None => host,
        },
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    let buffer = buffer.get_mut(..host.len())?;
    buffer.copy_from_slice(host);
    buffer.make_ascii_lowercase();
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(list: &[&str]) -> ServerNames {
        let mut names = ServerNames::default();
        for (index, name) in list.iter().enumerate() {
            let pattern = match name.strip_prefix('~') {
                Some(regex) => {
                    NamePattern::Regex(Pattern::compile(regex.as_bytes(), false, |_| None).unwrap())
                }
                None => NamePattern::parse(name).unwrap(),
            };
            names.insert(&pattern, index + 1).unwrap();
        }
        names
    }

    #[test]
    fn exact_beats_leading_beats_trailing_beats_regex() {
        let names = names(&[
            "www.example.org",
            "*.example.org",
            "*.org",
            "www.example.*",
            "~^www",
            "~^w",
            ".example.net",
            "[::1]",
            "",
        ]);
        for (host, server) in [
            ("www.example.org", 1),
            ("WWW.Example.ORG.:8443", 1),
            ("a.b.example.org", 2),
            ("example.org", 3),
            ("www.example.com", 4),
            ("www.example.co.uk", 4),
            ("www.other", 5),
            ("wxyz", 6),
            ("example.net", 7),
            ("a.example.net", 7),
            ("[::1]:443", 8),
            ("", 9),
            (":80", 9),
            ("other", 0),
            (".example.org", 3),
        ] {
            assert_eq!(names.find(host.as_bytes()), server, "{host}");
        }
        assert_eq!(names.find(&[b'w'; 300]), 0);
        assert_eq!(names.find(b"w\xff"), 6);
        assert!(names.lookup(b"www.other").regex.is_some());
    }

    #[test]
    fn the_first_server_keeps_a_name() {
        let mut names = ServerNames::default();
        let pattern = NamePattern::parse("A.example").unwrap();
        assert_eq!(names.insert(&pattern, 3), Ok(()));
        assert_eq!(names.insert(&pattern, 4), Err(Conflict));
        assert_eq!(names.find(b"a.example"), 3);
    }

    #[test]
    fn an_asterisk_is_a_whole_first_or_last_label() {
        for bad in [
            "*",
            "*.",
            "w*.example.org",
            "*.example.*",
            "www.*.org",
            "a..b",
            ".",
            "*foo",
        ] {
            assert!(NamePattern::parse(bad).is_none(), "{bad}");
        }
        for good in ["_", "", "*.x", "x.*", ".x", "localhost", "192.0.2.1"] {
            assert!(NamePattern::parse(good).is_some(), "{good}");
        }
    }

    /// What the documentation says, over all names, one by one.
    fn slow(list: &[String], host: &str) -> usize {
        let host = host.to_ascii_lowercase();
        let best = |kind: &dyn Fn(&str) -> Option<usize>| {
            list.iter()
                .enumerate()
                .filter_map(|(index, name)| Some((kind(name)?, index + 1)))
                .max_by_key(|(length, index)| (*length, usize::MAX - index))
                .map(|(_, index)| index)
        };
        best(&|name| (name == host).then_some(1))
            .or_else(|| {
                best(&|name| {
                    let suffix = name.strip_prefix('*')?;
                    (host.ends_with(suffix) && host.len() > suffix.len()).then_some(suffix.len())
                })
            })
            .or_else(|| {
                best(&|name| {
                    let prefix = name.strip_suffix('*')?;
                    host.starts_with(prefix).then_some(prefix.len())
                })
            })
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn the_fast_lookup_agrees_with_a_slow_one(
            list in proptest::collection::vec(r"(\*\.)?[ab](\.[ab]){0,3}|[ab](\.[ab]){0,2}\.\*", 0..8),
            host in r"[abAB](\.[abAB]){0,4}",
        ) {
            let mut seen = Vec::new();
            let mut names = ServerNames::default();
            for name in list {
                if names.insert(&NamePattern::parse(&name).unwrap(), seen.len() + 1).is_ok() {
                    seen.push(name);
                }
            }
            prop_assert_eq!(names.find(host.as_bytes()), slow(&seen, &host));
            let dressed = format!("{host}.:443");
            prop_assert_eq!(names.find(dressed.as_bytes()), slow(&seen, &host));
        }

        #[test]
        fn no_host_is_too_odd_to_be_looked_up(host in proptest::collection::vec(any::<u8>(), 0..400)) {
            let names = names(&["a.b", "*.b", "a.*"]);
            prop_assert!(names.find(&host) <= 3);
        }
    }
}
