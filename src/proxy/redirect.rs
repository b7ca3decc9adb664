//! `proxy_redirect`: a backend's own address does not leak into Location.

use crate::config::ProxyRedirect;

use super::request::Request;
use super::respond::write_origin;

/// The value to send instead of the backend's, or `None` to pass it on.
pub(crate) fn rewrite(
    rule: &ProxyRedirect,
    value: &[u8],
    request: &Request<'_>,
) -> Option<Vec<u8>> {
    let ProxyRedirect::Default { from, to } = rule else {
        return None;
    };
    let rest = value.strip_prefix(&**from)?;
    let mut rewritten = Vec::with_capacity(value.len() + 32);
    if to.starts_with(b"/") {
        write_origin(request, &mut rewritten);
    }
    rewritten.extend_from_slice(to);
    rewritten.extend_from_slice(rest);
    Some(rewritten)
}
