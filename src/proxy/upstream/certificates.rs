//! Certificates that a request's variables name.
//!
//! What they hold decides who we are to the backend, so it is read before a
//! connection is chosen and not, as in Nginx, when one is made: a connection
//! that is kept, and a session, are those of the certificate that they were
//! made under (`tls::upstream`).

use std::sync::Arc;

use crate::config::{NamedCertificate, ProxyTls, Template};
use crate::proxy::certificates::{Name, kept_or_read, source};
use crate::proxy::request::Request;
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
    let source = |template: &Template| source(named, template, request);
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
    let tls = kept_or_read(&view.certificates, name, named.cache, |_| {
        let base = view.gateway.upstream_tls(settings.id);
        let base = Arc::clone(base.ok_or("TLS to this upstream is not set up")?);
        let (location, position) = (Arc::clone(settings), named.position.clone());
        Ok(move || {
            let read = base.with_certificate(&location, &position, certificate, key);
            read.map_err(|error| error.message)
        })
    });
    Ok(Some(tls.await?))
}
