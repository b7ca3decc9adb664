//! `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`: what
//! becomes of a backend's Set-Cookie.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::config::{CookieFlags, CookieName, CookieRules};

use super::redirect::{find, rewrite};
use super::request::Request;
use super::variables::expand_to_vec;

/// The value of Set-Cookie to send instead of the backend's, or `None` to pass
/// it on.
pub(crate) fn set_cookie(
    rules: &CookieRules,
    value: &[u8],
    request: &Request<'_>,
) -> Option<Vec<u8>> {
    let mut cookie = Cookie::parse(value)?;
    let mut changed = false;
    for attribute in &mut cookie.attributes {
        let rules = match attribute.name {
            name if name.eq_ignore_ascii_case(b"domain") => &rules.domains,
            name if name.eq_ignore_ascii_case(b"path") => &rules.paths,
            _ => continue,
        };
        if let Some(value) = &mut attribute.value
            && let Some(rewritten) = rewrite(rules, value, request)
        {
            *value = rewritten.into();
            changed = true;
        }
    }
    let flags = rules
        .flags
        .iter()
        .find(|flags| names(&flags.cookie, cookie.name, request));
    if let Some(flags) = flags {
        cookie.apply(&Wanted::of(flags, request));
        changed = true;
    }
    changed.then(|| cookie.to_vec())
}

fn names(wanted: &CookieName, name: &[u8], request: &Request<'_>) -> bool {
    match wanted {
        CookieName::Is(wanted) => expand_to_vec(wanted, request).eq_ignore_ascii_case(name),
        CookieName::Matches(pattern) => find(pattern, name, request).is_some(),
    }
}

/// A Set-Cookie, taken apart as Nginx does.
struct Cookie<'v> {
    name: &'v [u8],
    value: &'v [u8],
    attributes: SmallVec<[Attribute<'v>; 6]>,
}

struct Attribute<'v> {
    name: &'v [u8],
    /// `None` without an equals sign.
    value: Option<Cow<'v, [u8]>>,
}

/// What flags a cookie is to have; `None` leaves one as it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    secure: Option<bool>,
    http_only: Option<bool>,
    /// The inner `None` takes it away.
    same_site: Option<Option<&'static [u8]>>,
}

impl Wanted {
    fn of(flags: &CookieFlags, request: &Request<'_>) -> Self {
        let mut wanted = Self::default();
        for flag in &flags.flags {
            match flag.as_literal() {
                Some(word) => wanted.add(word),
                None => wanted.add(&expand_to_vec(flag, request)),
            }
        }
        wanted
    }

    /// What is no flag has no effect, as where a variable is empty.
    fn add(&mut self, word: &[u8]) {
        match word {
            b"secure" => self.secure = Some(true),
            b"nosecure" => self.secure = Some(false),
            b"httponly" => self.http_only = Some(true),
            b"nohttponly" => self.http_only = Some(false),
            b"samesite=strict" => self.same_site = Some(Some(b"Strict")),
            b"samesite=lax" => self.same_site = Some(Some(b"Lax")),
            b"samesite=none" => self.same_site = Some(Some(b"None")),
            b"nosamesite" => self.same_site = Some(None),
            _ => {}
        }
    }
}

impl<'v> Cookie<'v> {
    /// `None` for what has no name and value.
    fn parse(text: &'v [u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == b';').map(|part| {
            let part = part.trim_ascii();
            let equals = part.iter().position(|byte| *byte == b'=');
            match equals.and_then(|at| part.split_at_checked(at)) {
                Some((name, value)) => (name, value.get(1..)),
                None => (part, None),
            }
        });
        let (name, value) = parts.next()?;
        Some(Self {
            name,
            value: value?,
            attributes: parts
                .map(|(name, value)| Attribute {
                    name,
                    value: value.map(Cow::Borrowed),
                })
                .collect(),
        })
    }

    fn apply(&mut self, wanted: &Wanted) {
        self.set_flag(b"Secure", wanted.secure.map(|on| on.then_some(None)));
        self.set_flag(b"HttpOnly", wanted.http_only.map(|on| on.then_some(None)));
        self.set_flag(b"SameSite", wanted.same_site.map(|site| site.map(Some)));
    }

    /// `wanted`: whether it is to change; whether it is to be there; its value.
    fn set_flag(&mut self, name: &'static [u8], wanted: Option<Option<Option<&'static [u8]>>>) {
        let Some(wanted) = wanted else { return };
        let is_it = |attribute: &Attribute<'_>| attribute.name.eq_ignore_ascii_case(name);
        match (wanted, self.attributes.iter_mut().find(|one| is_it(one))) {
            (None, _) => self.attributes.retain(|attribute| !is_it(attribute)),
            (Some(None), Some(_)) => {}
            (Some(Some(value)), Some(there)) => there.value = Some(value.into()),
            (Some(value), None) => self.attributes.push(Attribute {
                name,
                value: value.map(Cow::Borrowed),
            }),
        }
    }

    fn to_vec(&self) -> Vec<u8> {
        let mut text = [self.name, b"=", self.value].concat();
        for attribute in &self.attributes {
            text.extend_from_slice(b"; ");
            text.extend_from_slice(attribute.name);
            if let Some(value) = &attribute.value {
                text.push(b'=');
                text.extend_from_slice(value);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cookie: &str, flags: &[&str]) -> String {
        let mut wanted = Wanted::default();
        flags.iter().for_each(|flag| wanted.add(flag.as_bytes()));
        let mut cookie = Cookie::parse(cookie.as_bytes()).unwrap();
        cookie.apply(&wanted);
        String::from_utf8(cookie.to_vec()).unwrap()
    }

    #[test]
    fn flags_are_added_once_replaced_and_taken_away() {
        assert_eq!(
            with("a=b", &["secure", "httponly"]),
            "a=b; Secure; HttpOnly"
        );
        assert_eq!(with("a=b; SECURE", &["secure"]), "a=b; SECURE");
        assert_eq!(
            with("a=b; Secure; path=/; httponly", &["nosecure", "nohttponly"]),
            "a=b; path=/"
        );
        assert_eq!(
            with("a=b;SameSite=Lax", &["samesite=strict"]),
            "a=b; SameSite=Strict"
        );
        assert_eq!(with("a=b", &["samesite=none"]), "a=b; SameSite=None");
        assert_eq!(with("a=b; samesite=lax", &["nosamesite"]), "a=b");
        assert_eq!(
            with("a=b; Expires=Thu, 01 Jan", &["junk"]),
            "a=b; Expires=Thu, 01 Jan"
        );
    }

    #[test]
    fn what_is_no_cookie_is_left_alone() {
        assert!(Cookie::parse(b"nonsense; path=/").is_none());
        assert!(Cookie::parse(b"").is_none());
        assert!(Cookie::parse(b"a=").is_some());
    }
}
