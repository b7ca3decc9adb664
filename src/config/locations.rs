//! Which location takes a path, as Nginx searches.
//!
//! Exact locations first, then the longest prefix, then what is nested in it,
//! then regular expressions in file order unless that prefix said `^~`. A path
//! that lacks only the final slash of a proxied location is redirected to it.

use std::sync::Arc;

use super::model::{Location, Locations, Prefix};
use super::regexes::{Pattern, TooManySteps};

/// What takes a path.
#[derive(Debug, Clone, Copy)]
pub enum FoundLocation<'a> {
    /// This location.
    Location {
        /// What holds for the request.
        location: &'a Arc<Location>,
        /// The regular expression that matched, for its captures.
        regex: Option<&'a Pattern>,
    },
    /// Answered by a 301 to the path with `/` behind it, arguments kept, under
    /// the settings of this location.
    AddSlash(&'a Arc<Location>),
    /// None: the server's root location holds.
    None,
}

impl Locations {
    /// Puts what has been collected in the order that [`Locations::find`] relies
    /// on.
    pub(super) fn sort(&mut self) {
        self.exact.sort_by(|a, b| a.0.cmp(&b.0));
        self.prefixes.sort_by(|a, b| a.0.cmp(&b.0));
        // Each begins with the one before it in here.
        let mut open: Vec<usize> = Vec::new();
        self.shorter.clear();
        for (index, (prefix, _, _)) in self.prefixes.iter().enumerate() {
            let begins_with = |&other: &usize| {
                let other = self.prefixes.get(other);
                other.is_some_and(|(other, _, _)| prefix.starts_with(other))
            };
            while open.last().is_some_and(|other| !begins_with(other)) {
                open.pop();
            }
            self.shorter.push(open.last().copied());
            open.push(index);
        }
        let exact = self.exact.iter().map(|(path, location)| (path, location));
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|(path, _, location)| (path, location));
        self.adds_slashes = exact
            .chain(prefixes)
            .any(|(path, location)| location.auto_redirect && path.len() > 1);
    }

    /// The location for a normalised path. Allocates nothing.
    ///
    /// # Errors
    /// [`TooManySteps`], where a regular expression looks around: then nobody
    /// knows which location holds, and none does.
    pub fn find(&self, path: &[u8]) -> Result<FoundLocation<'_>, TooManySteps> {
        let mut found = FoundLocation::None;
        self.search(path, None, &mut found)?;
        Ok(found)
    }

    /// `@NAME`.
    pub fn find_named(&self, name: &[u8]) -> Option<&Arc<Location>> {
        self.named
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|(_, location)| location)
    }

    /// Improves on `found`, which an enclosing level has set; `regex` is the
    /// enclosing regular expression, whose captures still hold in here. The
    /// recursion is as deep as the locations are nested, which the parser bounds.
    fn search<'a>(
        &'a self,
        path: &[u8],
        regex: Option<&'a Pattern>,
        found: &mut FoundLocation<'a>,
    ) -> Result<Search, TooManySteps> {
        if let Some(location) = self.find_exact(path) {
            *found = FoundLocation::Location { location, regex };
            return Ok(Search::Final);
        }
        let prefix = self.longest_prefix(path);
        // A prefix that is the whole path wins over the redirect.
        // Only an empty path lacks just the slash of `/`.
        if (self.adds_slashes || path.is_empty())
            && prefix.is_none_or(|(prefix, _, _)| prefix.len() < path.len())
            && let Some(location) = self.find_with_slash(path)
        {
            *found = FoundLocation::AddSlash(location);
            return Ok(Search::Final);
        }
        let mut ask_regexes = true;
        if let Some((_, no_regex, location)) = prefix {
            *found = FoundLocation::Location { location, regex };
            if !location.nested.is_empty()
                && let Search::Final = location.nested.search(path, regex, found)?
            {
                return Ok(Search::Final);
            }
            ask_regexes = !no_regex;
        }
        for (regex, location) in self.regexes.iter().filter(|_| ask_regexes) {
            if regex.is_match(path)? {
                let regex = Some(regex);
                *found = FoundLocation::Location { location, regex };
                location.nested.search(path, regex, found)?;
                return Ok(Search::Final);
            }
        }
        Ok(Search::Open)
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.regexes.is_empty()
    }

    fn find_exact(&self, path: &[u8]) -> Option<&Arc<Location>> {
        let index = self
            .exact
            .binary_search_by(|(exact, _)| exact.as_ref().cmp(path))
            .ok()?;
        self.exact.get(index).map(|(_, location)| location)
    }

    /// The longest prefix of the path: by its place in their order, and from
    /// there to ever shorter ones. Whatever stands between a prefix of the path
    /// and the path itself begins with that prefix too, so it is among these.
    fn longest_prefix(&self, path: &[u8]) -> Option<&Prefix> {
        let behind = self
            .prefixes
            .partition_point(|(prefix, _, _)| **prefix <= *path);
        let mut index = behind.checked_sub(1)?;
        loop {
            let prefix = self.prefixes.get(index)?;
            if path.starts_with(&prefix.0) {
                return Some(prefix);
            }
            index = (*self.shorter.get(index)?)?;
        }
    }

    /// The proxied location whose path is this one and a slash.
    fn find_with_slash(&self, path: &[u8]) -> Option<&Arc<Location>> {
        let against = |name: &[u8]| match name.split_at_checked(path.len()) {
            Some((start, end)) => start.cmp(path).then_with(|| end.cmp(b"/")),
            None => name.cmp(path),
        };
        let exact = self.exact.binary_search_by(|(name, _)| against(name));
        let exact = exact.ok().and_then(|index| self.exact.get(index));
        let prefix = self.prefixes.binary_search_by(|(name, _, _)| against(name));
        let prefix = prefix.ok().and_then(|index| self.prefixes.get(index));
        let exact = exact.map(|(_, location)| location);
        let prefix = prefix.map(|(_, _, location)| location);
        let mut both = exact.into_iter().chain(prefix);
        both.find(|location| location.auto_redirect)
    }
}

/// Whether an enclosing level may still look further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    Final,
    Open,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::source::memory::{Files, Hosts};
    use crate::config::{Config, Handler, LoadOptions, parse_and_build};

    /// A server whose locations answer with 100, 101, … in file order.
    fn load(list: &[(String, String)]) -> Config {
        let blocks: Vec<_> = list
            .iter()
            .enumerate()
            .map(|(n, (modifier, path))| {
                format!("location {modifier} {path} {{ return {}; }}", n + 100)
            })
            .collect();
        let text = format!("events {{}} http {{ server {{ {} }} }}", blocks.join("\n"));
        let files = Files([("/c".into(), text.into_bytes())].into());
        parse_and_build(&files, &Hosts, &LoadOptions::new("/c", "/")).unwrap()
    }

    fn found(config: &Config, path: &str) -> Option<u16> {
        match config.servers[0].locations.find(path.as_bytes()).unwrap() {
            FoundLocation::Location { location, .. } => match &location.handler {
                Handler::Return(returns) => Some(returns.status),
                _ => None,
            },
            _ => None,
        }
    }

    /// The documentation of `location`, read aloud.
    fn slow(list: &[(String, String)], path: &str) -> Option<u16> {
        let code = |n: usize| Some(u16::try_from(n).unwrap() + 100);
        if let Some(n) = list.iter().position(|(m, p)| m == "=" && p == path) {
            return code(n);
        }
        let prefix = list
            .iter()
            .enumerate()
            .filter(|(_, (m, p))| (m.is_empty() || m == "^~") && path.starts_with(p.as_str()))
            .max_by_key(|(_, (_, p))| p.len());
        if let Some((n, (modifier, _))) = prefix
            && modifier == "^~"
        {
            return code(n);
        }
        let regex = list
            .iter()
            .enumerate()
            .find(|(_, (m, p))| m == "~" && path.contains(p.as_str()));
        regex.or(prefix).and_then(|(n, _)| code(n))
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_a_slow_one(
            list in proptest::collection::vec(
                ("|=|\\^~|~", "/[ab/]{0,3}"),
                0..8,
            ),
            path in "/[ab/]{0,5}",
        ) {
            let mut seen = std::collections::HashSet::new();
            let list: Vec<_> = list
                .into_iter()
                .filter(|(m, p)| m == "~" || seen.insert((m == "=", p.clone())))
                .collect();
            prop_assert_eq!(found(&load(&list), &path), slow(&list, &path));
        }
    }
}
