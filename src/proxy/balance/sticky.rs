//! `sticky`: the peer that a client was given before.

use std::fmt::Write;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::config::{Sticky, StickyCookie, StickyExpires, Template, UpstreamPeer};
use crate::telemetry::clock::cookie_time;

use super::super::request::Request;
use super::super::variables::expand_to_vec;

/// The name by which a peer is known to clients.
pub(super) fn name(peer: &UpstreamPeer) -> Box<str> {
    if let Some(route) = &peer.route {
        return route.clone();
    }
    let digest = Md5::digest(peer.address.to_string());
    digest
        .iter()
        .fold(String::with_capacity(32), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
        .into()
}

/// The name of a peer, or of a session, that the request brings.
pub(super) fn asked_for(sticky: &Sticky, request: &Request<'_>) -> Option<Vec<u8>> {
    first(&sticky.lookup, request)
}

/// The first value that is not empty.
pub(super) fn first(templates: &[Template], request: &Request<'_>) -> Option<Vec<u8>> {
    templates
        .iter()
        .map(|template| expand_to_vec(template, request))
        .find(|value| !value.is_empty())
}

/// The value of `Set-Cookie` that binds a client to the peer of this name.
pub(super) fn set_cookie(cookie: &StickyCookie, peer: &str, request: &Request<'_>) -> Vec<u8> {
    let mut value = Vec::with_capacity(128);
    value.extend_from_slice(&cookie.name);
    value.push(b'=');
    value.extend_from_slice(peer.as_bytes());
    match cookie.expires {
        None => {}
        Some(StickyExpires::Max) => {
            value.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000")
        }
        Some(StickyExpires::After(age)) => {
            let now = Duration::from_millis(request.worker.clock.borrow().unix_ms());
            let until = now.saturating_add(age).as_secs();
            value.extend_from_slice(b"; expires=");
            value.extend_from_slice(cookie_time(until).as_bytes());
            value.extend_from_slice(b"; max-age=");
            value.extend_from_slice(age.as_secs().to_string().as_bytes());
        }
    }
    if let Some(domain) = evaluated(cookie.domain.as_ref(), request) {
        value.extend_from_slice(b"; domain=");
        value.extend_from_slice(&domain);
    }
    if cookie.http_only {
        value.extend_from_slice(b"; httponly");
    }
    if cookie.secure {
        value.extend_from_slice(b"; secure");
    }
    if let Some(same_site) = evaluated(cookie.same_site.as_ref(), request) {
        value.extend_from_slice(b"; samesite=");
        let is_known = StickyCookie::is_same_site(&same_site);
        value.extend_from_slice(if is_known { &same_site } else { b"strict" });
    }
    if let Some(path) = &cookie.path {
        value.extend_from_slice(b"; path=");
        value.extend_from_slice(path);
    }
    value
}

/// A template's value, unless there is none or no field can carry it.
fn evaluated(template: Option<&Template>, request: &Request<'_>) -> Option<Vec<u8>> {
    template
        .map(|template| expand_to_vec(template, request))
        .filter(|value| !value.is_empty() && crate::http::h1::encode::is_field_value(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamAddress;

    #[test]
    fn a_peer_without_a_route_goes_by_the_digest_of_its_address() {
        let address = UpstreamAddress::Inet("127.0.0.1:8001".parse().unwrap());
        let mut peer = UpstreamPeer::new(address, "localhost:8001");
        // printf 127.0.0.1:8001 | md5sum
        assert_eq!(&*name(&peer), "c69a4fd523c3ca0ca67cda2f009f1ea6");
        peer.route = Some("a".into());
        assert_eq!(&*name(&peer), "a");
    }
}
