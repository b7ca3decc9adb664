//! The `proxy_ssl_*` and `grpc_ssl_*` directives.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tls::{file, located, pem, protocols};
use super::upstream::split_parameter;
use super::values::{
    flag, has_variable, invalid_parameter, refuse, refuse_directive, set, small_number,
};
use super::{Builder, Result};
use crate::config::error::Error;
use crate::config::model::{
    CertificateAndKey, Located, Position, ProxyFamily, ProxyHttpVersion, ProxyTls, TlsVersions,
    TrustSource, fixed_folder,
};
use crate::config::named_certificate::{CertificateCache, NamedCertificate};
use crate::config::pem_source::PemSource;
use crate::config::syntax::Directive;
use crate::config::template::{Part, Template, Variable};
use crate::config::units;

/// `inactive` and `valid` of `proxy_ssl_certificate_cache`, as in Nginx.
const DEFAULT_INACTIVE: Duration = Duration::from_secs(10);
const DEFAULT_VALID: Duration = Duration::from_secs(60);

/// `proxy_ssl_ciphers` where it is not given.
const DEFAULT_CIPHERS: &str = "DEFAULT";

/// As written in one block.
#[derive(Debug, Clone, Default)]
pub(super) struct ProxyTlsSettings {
    /// `None` inside: an empty value, which takes back what an outer block says.
    certificate: Option<Option<Located<Source>>>,
    key: Option<Option<Located<Source>>>,
    certificate_cache: Option<Option<CertificateCache>>,
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
    alpn: Option<Located<Vec<Box<[u8]>>>>,
}

impl ProxyTlsSettings {
    /// Takes a directive of the family; `false` when it is not one of these.
    pub(super) fn apply(
        &mut self,
        builder: &mut Builder<'_>,
        family: ProxyFamily,
        d: &Directive,
    ) -> Result<bool> {
        match family.own(&d.name.value).unwrap_or_default() {
            b"ssl_certificate" => {
                set(&mut self.certificate, d, source(builder, d)?)?;
            }
            b"ssl_certificate_key" => set(&mut self.key, d, source(builder, d)?)?,
            b"ssl_certificate_cache" => {
                set(&mut self.certificate_cache, d, certificate_cache(d)?)?;
            }
            b"ssl_password_file" => set(&mut self.password_file, d, file(builder, d))?,
            b"ssl_trusted_certificate" => {
                let source = match d.arg(0) {
                    b"system" => TrustSource::System,
                    _ => TrustSource::Pem(pem(builder, d)?.value),
                };
                set(&mut self.trusted_certificate, d, located(d, source))?;
            }
            b"ssl_crl" => set(&mut self.crl, d, file(builder, d))?,
            b"ssl_verify" => set(&mut self.verify, d, located(d, flag(d)?))?,
            b"ssl_verify_depth" => set(&mut self.verify_depth, d, small_number(d)?)?,
            b"ssl_name" => {
                let name = builder.template(d.arg(0), &d.position)?;
                set(&mut self.name, d, name)?;
            }
            b"ssl_server_name" => set(&mut self.server_name, d, flag(d)?)?,
            b"ssl_protocols" => {
                let value = protocols(builder, d)?;
                set(&mut self.protocols, d, value)?;
            }
            b"ssl_ciphers" => {
                set(&mut self.ciphers, d, located(d, d.text(0).into_owned()))?;
            }
            b"ssl_conf_command" => {
                if !d.arg(0).eq_ignore_ascii_case(b"Ciphersuites") {
                    let what = format!("with \"{}\" is not implemented", d.text(0));
                    return Err(refuse_directive(d, &format!("{what} in this version")));
                }
                // Commands are run in order, so the last one holds.
                self.ciphersuites = Some(located(d, d.text(1).into_owned()));
            }
            b"ssl_session_reuse" => set(&mut self.session_reuse, d, flag(d)?)?,
            b"ssl_alpn" => set(&mut self.alpn, d, located(d, alpn(d)?))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            certificate, key, certificate_cache, password_file, trusted_certificate, crl, verify, verify_depth, name, server_name,
            protocols, ciphers, ciphersuites, session_reuse, alpn
        );
    }

    /// The certificate with its key: as files and their like, or as what names
    /// them.
    fn certificate(
        &self,
        certificate: Located<Source>,
        prefix: &str,
        builder: &Builder<'_>,
    ) -> Result<(Option<CertificateAndKey>, Option<NamedCertificate>)> {
        let position = certificate.position.clone();
        let key = self.key.clone().flatten();
        let without_key = |shown: &dyn fmt::Display| {
            let message = format!(
                "no \"{prefix}ssl_certificate_key\" is defined for certificate \"{shown}\""
            );
            Error::at(&position, message)
        };
        let (certificate, key) = match (certificate.value, key.map(|key| (key.value, key.position)))
        {
            (Source::Fixed { source, .. }, None) if source.may_hold_a_key() => {
                let position = certificate.position;
                let value = source;
                return Ok((Some((Located { value, position }, None)), None));
            }
            (Source::Fixed { source, .. }, None) => return Err(without_key(&source.display())),
            (Source::Fixed { source, .. }, Some((Source::Fixed { source: key, .. }, at))) => {
                let certificate = Located {
                    value: source,
                    position: certificate.position,
                };
                let key = Located {
                    value: key,
                    position: at,
                };
                return Ok((Some((certificate, Some(key))), None));
            }
            (named @ Source::Named(_), None) if named.may_hold_a_key() => (named.template(), None),
            (Source::Named(_), None) => return Err(without_key(&"with variables")),
            (certificate, Some((key, _))) => (certificate.template(), Some(key.template())),
        };
        let cache = self.certificate_cache.flatten();
        let named = named(builder, (certificate, key), cache, position);
        Ok((None, Some(named)))
    }

    /// The settings of a location whose `proxy_pass` says `https://`, to speak
    /// this version.
    pub(super) fn finish(
        &self,
        builder: &mut Builder<'_>,
        family: ProxyFamily,
        version: ProxyHttpVersion,
        d: &Directive,
    ) -> Result<Arc<ProxyTls>> {
        let prefix = family.prefix();
        let (certificate, named) = match self.certificate.clone().flatten() {
            None => (None, None),
            Some(certificate) => self.certificate(certificate, prefix, builder)?,
        };
        let verify = self.verify.clone().unwrap_or_else(|| located(d, false));
        if verify.value && self.trusted_certificate.is_none() {
            let message = format!("no {prefix}ssl_trusted_certificate for {prefix}ssl_verify");
            return Err(Error::at(&verify.position, message));
        }
        if !verify.value && !builder.proxy_tls.iter().any(|other| !other.verify.value) {
            builder.warn(
                &d.position,
                format!(
                    "\"{prefix}ssl_verify\" is off: whoever answers at this backend's address \
                     is believed"
                ),
            );
        }
        let settings = Arc::new(ProxyTls {
            id: builder.proxy_tls.len(),
            family,
            certificate,
            named,
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
            alpn: self.alpn(version)?,
        });
        builder.proxy_tls.push(Arc::clone(&settings));
        Ok(settings)
    }

    /// What is offered to a backend that is spoken to by this version, and by no
    /// other, whichever it chooses.
    fn alpn(&self, version: ProxyHttpVersion) -> Result<Vec<Box<[u8]>>> {
        const H2: &[u8] = b"h2";
        let speaks_h2 = version == ProxyHttpVersion::Http2;
        let Some(said) = &self.alpn else {
            return Ok(speaks_h2.then(|| H2.into()).into_iter().collect());
        };
        if said.value.iter().all(|name| (**name == *H2) == speaks_h2) {
            return Ok(said.value.clone());
        }
        let message = format!(
            "\"proxy_ssl_alpn\" offers what \"proxy_http_version {}\" does not speak",
            if speaks_h2 { "2" } else { "1.1" }
        );
        Err(Error::at(&said.position, message))
    }
}

/// A certificate that variables name, with its key. What they can name is open
/// to the threads that read it.
pub(super) fn named(
    builder: &Builder<'_>,
    (certificate, key): (Template, Option<Template>),
    cache: Option<CertificateCache>,
    position: Position,
) -> NamedCertificate {
    for template in [Some(&certificate), key.as_ref()].into_iter().flatten() {
        let is_file = match template.parts.first() {
            Some(Part::Literal(bytes)) => {
                !bytes.starts_with(b"data:") && !bytes.starts_with(b"env:")
            }
            _ => true,
        };
        if is_file {
            let folder = builder.folder.join(fixed_folder(template));
            builder.reach.borrow_mut().certificates.insert(folder);
        }
    }
    NamedCertificate::new(
        (certificate, key),
        cache,
        position,
        builder.folder.clone(),
        builder.environment.clone(),
    )
}

/// What a certificate or a key is read from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The same for every request.
    Fixed {
        source: PemSource,
        /// As it is written.
        value: Box<[u8]>,
    },
    /// Each request's variables say.
    Named(Template),
}

impl Source {
    /// What may have variables.
    pub(super) fn of(builder: &Builder<'_>, d: &Directive) -> Result<Located<Self>> {
        let value = d.arg(0);
        let source = if has_variable(value) {
            Self::Named(builder.template(value, &d.position)?)
        } else {
            Self::Fixed {
                source: pem(builder, d)?.value,
                value: value.into(),
            }
        };
        Ok(located(d, source))
    }

    /// Whether its key may be in it.
    pub(super) fn may_hold_a_key(&self) -> bool {
        match self {
            Self::Fixed { source, .. } => source.may_hold_a_key(),
            // What is in it shows when it has been named.
            Self::Named(template) => match template.parts.last() {
                Some(Part::Literal(end)) => ends_as_store(end),
                _ => false,
            },
        }
    }

    pub(super) fn template(self) -> Template {
        match self {
            Self::Fixed { value, .. } => Template::literal(&value),
            Self::Named(template) => template,
        }
    }
}

/// Whether a name with this end may be that of a PKCS#12 store.
fn ends_as_store(end: &[u8]) -> bool {
    [&b".p12"[..], b".pfx"]
        .iter()
        .any(|store| end.to_ascii_lowercase().ends_with(store))
}

/// As Nginx: an empty value means no certificate.
fn source(builder: &Builder<'_>, d: &Directive) -> Result<Option<Located<Source>>> {
    match d.arg(0) {
        b"" => Ok(None),
        _ => Source::of(builder, d).map(Some),
    }
}

/// `off`, or `max=N [inactive=TIME] [valid=TIME]`.
pub(super) fn certificate_cache(d: &Directive) -> Result<Option<CertificateCache>> {
    let mut max = None;
    let mut inactive = DEFAULT_INACTIVE;
    let mut valid = DEFAULT_VALID;
    for word in &d.args {
        let word = &*word.value;
        let invalid = || invalid_parameter(d, word);
        match split_parameter(word) {
            (b"off", None) if d.args.len() == 1 => return Ok(None),
            (b"max", Some(value)) => {
                let number = units::number(value).and_then(|number| number.try_into().ok());
                max = Some(number.filter(|max| *max > 0).ok_or_else(invalid)?);
            }
            (b"inactive", Some(value)) => {
                inactive = units::seconds(value).ok_or_else(invalid)?;
            }
            (b"valid", Some(value)) => valid = units::seconds(value).ok_or_else(invalid)?,
            _ => return Err(invalid()),
        }
    }
    match max {
        Some(max) => Ok(Some(CertificateCache {
            max,
            inactive,
            valid,
        })),
        None => Err(refuse_directive(d, "must have the \"max\" parameter")),
    }
}

/// Protocols to offer.
fn alpn(d: &Directive) -> Result<Vec<Box<[u8]>>> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for word in &d.args {
        match &*word.value {
            b"h2" | b"http/1.1" | b"http/1.0" => names.push(word.value.to_vec().into()),
            _ => return Err(refuse(d, format!("invalid protocol \"{}\"", word.text()))),
        }
    }
    Ok(names)
}
