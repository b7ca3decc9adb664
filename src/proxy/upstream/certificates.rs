//! Certificates that a request's variables name.
//!
//! What they hold decides who we are to the backend, so it is read before a
//! connection is chosen and not, as in Nginx, when one is made: a connection
//! that is kept, and a session, are those of the certificate that they were
//! made under (`tls::upstream`).

use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::config::{NamedCertificate, ProxyTls, Template};
use crate::proxy::certificates::{Name, read};
use crate::proxy::request::Request;
use crate::proxy::variables::expand_to_vec;
use crate::tls::upstream::UpstreamTls;

/// A location's settings under the certificate that this request names; `None`
/// if it names none.
///
/// # Errors
/// Why it cannot be had, for the log. Cancelling it leaves it to be read for
/// nobody.
pub(super) async fn choose(
    request: &Request<'_>,
    settings: &Arc<ProxyTls>,
    named: &NamedCertificate,
) -> Result<Option<Arc<UpstreamTls>>, String> {
    let source = |template: &Template| {
        // It may be the key itself.
        let value = Zeroizing::new(expand_to_vec(template, request));
        let source = named.source(&value);
        source.map_err(|what| format!("cannot load certificate: {what}"))
    };
    let Some(certificate) = source(&named.certificate)? else {
        return Ok(None);
    };
    let key = match &named.key {
        None => None,
        Some(template) => Some(source(template)?.ok_or_else(|| {
            let shown = certificate.display();
            format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{shown}\"")
        })?),
    };
    let view = request.view;
    let name = Name {
        owner: settings.id,
        sources: vec![(certificate.clone(), key.clone())],
    };
    if named.cache.is_some()
        && let Some(known) = view.certificates.borrow_mut().find(&name, Instant::now())
    {
        return Ok(Some(known));
    }
    let base = view.gateway.upstream_tls(settings.id);
    let base = Arc::clone(base.ok_or("TLS to this upstream is not set up")?);
    let (location, position) = (Arc::clone(settings), named.position.clone());
    let tls = read(move || {
        let read = base.with_certificate(&location, &position, certificate, key);
        read.map_err(|error| error.message)
    });
    let tls = tls.await?;
    if let Some(cache) = &named.cache {
        let mut certificates = view.certificates.borrow_mut();
        certificates.learn(name, Arc::clone(&tls), *cache, Instant::now());
    }
    Ok(Some(tls))
}
