//! `valid_referers`: whose pages may refer to what is here.

use super::regexes::Pattern;
use super::server_names::ServerNames;

/// Which `Referer` fields are valid.
#[derive(Debug, Default)]
pub struct Referers {
    /// `none`: no field at all.
    pub none: bool,
    /// `blocked`: something that is no URL, as firewalls leave it behind.
    pub blocked: bool,
    /// `server_names`: the server's own.
    pub server_names: bool,
    /// Hosts; their numbers are indices into `paths`.
    pub hosts: ServerNames,
    /// What a URL's path must begin with; may be empty.
    pub paths: Vec<Box<[u8]>>,
    /// `~…`, of what follows the scheme.
    pub regexes: Vec<Pattern>,
}

impl Referers {
    /// Whether the field is valid; `is_ours` says whether a host is the server's.
    /// An expression that takes too many steps does not match.
    pub fn accept(&self, referer: Option<&[u8]>, is_ours: impl Fn(&[u8]) -> bool) -> bool {
        let Some(referer) = referer else {
            return self.none;
        };
        let after = |scheme: &[u8]| {
            let (begin, rest) = referer.split_at_checked(scheme.len())?;
            begin.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let Some(rest) = after(b"http://").or_else(|| after(b"https://")) else {
            return self.blocked;
        };
        let end = rest.iter().position(|byte| b"/:".contains(byte));
        let host = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if let Some(index) = self.hosts.named(host) {
            let path = rest.iter().position(|&byte| byte == b'/');
            let path = path.and_then(|at| rest.get(at..)).unwrap_or_default();
            return self
                .paths
                .get(index)
                .is_some_and(|begin| path.starts_with(begin));
        }
        (self.server_names && is_ours(host))
            || self
                .regexes
                .iter()
                .any(|regex| regex.is_match(rest) == Ok(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::server_names::NamePattern;

    #[test]
    fn a_referer_is_valid_by_host_and_beginning_of_its_path() {
        let mut referers = Referers {
            paths: vec![b"".as_slice().into(), b"/shop".as_slice().into()],
            ..Referers::default()
        };
        for (name, path) in [("*.one.test", 0), ("two.test", 1), ("three.*", 0)] {
            let name = NamePattern::parse(name).unwrap();
            referers.hosts.insert(&name, path).unwrap();
        }
        for (referer, valid) in [
            ("http://a.one.test", true),
            ("HTTPS://A.One.test:8443/x", true),
            ("http://one.test/", false),
            ("http://two.test/shop/1", true),
            ("http://two.test:80/shop", true),
            ("http://two.test/", false),
            ("http://two.test", false),
            ("https://three.example/", true),
            ("http://evil.test/?http://a.one.test/", false),
            ("ftp://a.one.test/", false),
            ("http://", false),
        ] {
            let accepted = referers.accept(Some(referer.as_bytes()), |_| false);
            assert_eq!(accepted, valid, "{referer}");
        }
        assert!(!referers.accept(None, |_| true));
        assert!(!referers.accept(Some(b"XXXX"), |_| true));
    }
}
