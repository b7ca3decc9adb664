//! `proxy_redirect` and its kin: a backend's own address does not leak into
//! Location, Refresh and cookies.

use crate::config::{Groups, Pattern, RewritePattern, RewriteRule};
use crate::telemetry::error_log::Level;

use super::log;
use super::request::Request;
use super::respond::write_origin;
use super::variables::{expand_to_vec, expand_with_groups};

/// The value of Location to send instead of the backend's, or `None` to pass
/// it on. A path becomes an absolute URL, if a rule made it.
pub(crate) fn location(
    rules: &[RewriteRule],
    value: &[u8],
    request: &Request<'_>,
) -> Option<Vec<u8>> {
    let rewritten = rewrite(rules, value, request)?;
    if !rewritten.starts_with(b"/") {
        return Some(rewritten);
    }
    let mut absolute = Vec::with_capacity(rewritten.len() + 32);
    write_origin(request, &mut absolute);
    absolute.extend_from_slice(&rewritten);
    Some(absolute)
}

/// The same of Refresh, where the address stands behind `url=`.
pub(crate) fn refresh(
    rules: &[RewriteRule],
    value: &[u8],
    request: &Request<'_>,
) -> Option<Vec<u8>> {
    const MARK: &[u8] = b"url=";
    let at = value
        .windows(MARK.len())
        .position(|window| window.eq_ignore_ascii_case(MARK))?;
    let (before, url) = value.split_at_checked(at + MARK.len())?;
    let rewritten = rewrite(rules, url, request)?;
    Some([before, &rewritten].concat())
}

/// What the first rule that matches makes of a value.
pub(crate) fn rewrite(
    rules: &[RewriteRule],
    value: &[u8],
    request: &Request<'_>,
) -> Option<Vec<u8>> {
    rules.iter().find_map(|rule| {
        let rest = match &rule.pattern {
            RewritePattern::Regex(pattern) => {
                let groups = find(pattern, value, request)?;
                let replaced = expand_with_groups(&rule.replacement, request, value, &groups);
                return Some(replaced);
            }
            RewritePattern::Prefix(prefix) => match prefix.as_literal() {
                Some(prefix) => value.strip_prefix(prefix)?,
                None => value.strip_prefix(&*expand_to_vec(prefix, request))?,
            },
            RewritePattern::Domain(domain) => {
                let domain = expand_to_vec(domain, request);
                let named = without_dot(value).eq_ignore_ascii_case(without_dot(&domain));
                named.then_some(&b""[..])?
            }
        };
        let mut rewritten = Vec::with_capacity(value.len() + 32);
        // A dot in front of a domain stays.
        if let (RewritePattern::Domain(_), Some(b'.')) = (&rule.pattern, value.first()) {
            rewritten.push(b'.');
        }
        super::variables::expand(&rule.replacement, request, &mut rewritten);
        rewritten.extend_from_slice(rest);
        Some(rewritten)
    })
}

/// What a pattern finds in a value; its named groups become variables.
pub(crate) fn find(pattern: &Pattern, value: &[u8], request: &Request<'_>) -> Option<Groups> {
    let found = pattern.groups(value).unwrap_or_else(|error| {
        log::request_error(request, Level::Error, format_args!("{error}"));
        None
    });
    let groups = found?;
    for (group, variable) in pattern.named() {
        request.assign(*variable, groups.of(value, *group).unwrap_or_default());
    }
    Some(groups)
}

fn without_dot(domain: &[u8]) -> &[u8] {
    domain.strip_prefix(b".").unwrap_or(domain)
}
