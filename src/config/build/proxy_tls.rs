//! The `proxy_ssl_*` directives.

use std::path::PathBuf;
use std::sync::Arc;

use super::tls::{file, located, pem, protocols};
use super::values::{flag, refuse, refuse_directive, set, small_number};
use super::{Builder, Result};
use crate::config::error::Error;
use crate::config::model::{Located, ProxyTls, TlsVersions, TrustSource};
use crate::config::pem_source::PemSource;
use crate::config::syntax::Directive;
use crate::config::template::{Part, Template, Variable};

/// `proxy_ssl_ciphers` where it is not given.
const DEFAULT_CIPHERS: &str = "DEFAULT";

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct ProxyTlsSettings {
    /// `None` inside: an empty value, which takes back what an outer block says.
    certificate: Option<Option<Located<PemSource>>>,
    key: Option<Option<Located<PemSource>>>,
    password_file: Option<Located<PathBuf>>,
    trusted_certificate: Option<Located<TrustSource>>,
    crl: Option<Located<PathBuf>>,
    verify: Option<Located<bool>>,
    verify_depth: Option<u32>,
    name: Option<Template>,
    server_name: Option<bool>,
    protocols: Option<TlsVersions>,
    ciphers: Option<Located<String>>,
    ciphersuites: Option<Located<String>>,
    session_reuse: Option<bool>,
    alpn: Option<Vec<Box<[u8]>>>,
}

impl ProxyTlsSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"proxy_ssl_certificate" => {
                set(&mut self.certificate, d, optional_pem(builder, d)?)?;
            }
            b"proxy_ssl_certificate_key" => set(&mut self.key, d, optional_pem(builder, d)?)?,
            b"proxy_ssl_password_file" => set(&mut self.password_file, d, file(builder, d))?,
            b"proxy_ssl_trusted_certificate" => {
                let source = match d.arg(0) {
                    b"system" => TrustSource::System,
                    _ => TrustSource::Pem(pem(builder, d)?.value),
                };
                set(&mut self.trusted_certificate, d, located(d, source))?;
            }
            b"proxy_ssl_crl" => set(&mut self.crl, d, file(builder, d))?,
            b"proxy_ssl_verify" => set(&mut self.verify, d, located(d, flag(d)?))?,
            b"proxy_ssl_verify_depth" => set(&mut self.verify_depth, d, small_number(d)?)?,
            b"proxy_ssl_name" => {
                let name = builder.template(d.arg(0), &d.position)?;
                set(&mut self.name, d, name)?;
            }
            b"proxy_ssl_server_name" => set(&mut self.server_name, d, flag(d)?)?,
            b"proxy_ssl_protocols" => {
                let value = protocols(builder, d)?;
                set(&mut self.protocols, d, value)?;
            }
            b"proxy_ssl_ciphers" => {
                set(&mut self.ciphers, d, located(d, d.text(0).into_owned()))?;
            }
            b"proxy_ssl_conf_command" => {
                if !d.arg(0).eq_ignore_ascii_case(b"Ciphersuites") {
                    let what = format!("with \"{}\" is not implemented", d.text(0));
                    return Err(refuse_directive(d, &format!("{what} in this version")));
                }
                // Commands are run in order, so the last one holds.
                self.ciphersuites = Some(located(d, d.text(1).into_owned()));
            }
            b"proxy_ssl_session_reuse" => set(&mut self.session_reuse, d, flag(d)?)?,
            b"proxy_ssl_alpn" => set(&mut self.alpn, d, alpn(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            certificate, key, password_file, trusted_certificate, crl, verify, verify_depth, name, server_name,
            protocols, ciphers, ciphersuites, session_reuse, alpn
        );
    }

    /// The settings of a location whose `proxy_pass` says `https://`.
    pub(super) fn finish(&self, builder: &mut Builder<'_>, d: &Directive) -> Result<Arc<ProxyTls>> {
        let certificate = match (
            self.certificate.clone().flatten(),
            self.key.clone().flatten(),
        ) {
            (None, _) => None,
            (Some(certificate), key) if key.is_some() || certificate.value.may_hold_a_key() => {
                Some((certificate, key))
            }
            (Some(certificate), _) => {
                let message = format!(
                    "no \"proxy_ssl_certificate_key\" is defined for certificate \"{}\"",
                    certificate.value.display()
                );
                return Err(Error::at(&certificate.position, message));
            }
        };
        let verify = self.verify.clone().unwrap_or_else(|| located(d, false));
        if verify.value && self.trusted_certificate.is_none() {
            let message = "no proxy_ssl_trusted_certificate for proxy_ssl_verify";
            return Err(Error::at(&verify.position, message));
        }
        if !verify.value && !builder.proxy_tls.iter().any(|other| !other.verify.value) {
            builder.warn(
                &d.position,
                "\"proxy_ssl_verify\" is off: whoever answers at this backend's address \
                 is believed",
            );
        }
        let settings = Arc::new(ProxyTls {
            id: builder.proxy_tls.len(),
            certificate,
            password_file: self.password_file.clone(),
            trusted_certificate: self.trusted_certificate.clone(),
            crl: self.crl.clone(),
            verify,
            verify_depth: self.verify_depth.unwrap_or(1),
            name: self.name.clone().unwrap_or_else(|| Template {
                parts: [Part::Variable(Variable::ProxyHost)].into(),
            }),
            server_name: self.server_name.unwrap_or(false),
            protocols: self.protocols.unwrap_or(TlsVersions {
                tls12: true,
                tls13: true,
            }),
            ciphers: self
                .ciphers
                .clone()
                .unwrap_or_else(|| located(d, DEFAULT_CIPHERS.to_owned())),
            ciphersuites: self.ciphersuites.clone(),
            session_reuse: self.session_reuse.unwrap_or(true),
            alpn: self.alpn.clone().unwrap_or_default(),
        });
        builder.proxy_tls.push(Arc::clone(&settings));
        Ok(settings)
    }
}

/// As Nginx: an empty value means no certificate.
fn optional_pem(builder: &Builder<'_>, d: &Directive) -> Result<Option<Located<PemSource>>> {
    if d.arg(0).is_empty() {
        return Ok(None);
    }
    pem(builder, d).map(Some)
}

/// Protocols to offer. Backends are spoken to by HTTP/1.x alone.
fn alpn(d: &Directive) -> Result<Vec<Box<[u8]>>> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for word in &d.args {
        match &*word.value {
            b"http/1.1" | b"http/1.0" => names.push(word.value.to_vec().into()),
            b"h2" => {
                let what = "with \"h2\" is not implemented in this version";
                return Err(refuse_directive(d, what));
            }
            _ => return Err(refuse(d, format!("invalid protocol \"{}\"", word.text()))),
        }
    }
    Ok(names)
}
