//! The `ssl_*` directives.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::proxy_tls::{self, Source, certificate_cache};
use super::routing::Routing;
use super::values::{flag, has_variable, refuse, refuse_directive, seconds, set, small_number};
use super::{Builder, Result};
use crate::config::error::Error;
use crate::config::model::{
    CertificateAndKey, CrlExpired, Located, Position, SessionCache, Stapling, Tls, TlsVersions,
    VerifyClient, VerifyFailure,
};
use crate::config::named_certificate::{CertificateCache, NamedCertificate};
use crate::config::pem_source::PemSource;
use crate::config::syntax::Directive;
use crate::config::units;

/// `ssl_ciphers` where it is not given.
const DEFAULT_CIPHERS: &str = "HIGH:!aNULL:!MD5";

/// Nginx's least size of a shared cache: eight pages, bytes.
const LEAST_CACHE: usize = 8 * 4096;

/// A certificate, and its key if that is not in it.
type SourcePair = (Located<Source>, Option<Located<Source>>);

/// As written in `http` or `server`.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsSettings {
    certificates: Option<Vec<Located<Source>>>,
    keys: Option<Vec<Located<Source>>>,
    certificate_cache: Option<Option<CertificateCache>>,
    password_file: Option<Located<PathBuf>>,
    client_certificate: Option<Located<PemSource>>,
    trusted_certificate: Option<Located<PemSource>>,
    verify_client: Option<Located<VerifyClient>>,
    verify_depth: Option<u32>,
    crl: Option<Located<PathBuf>>,
    crl_expired: Option<CrlExpired>,
    verify_failure: Option<VerifyFailure>,
    protocols: Option<TlsVersions>,
    ciphers: Option<Located<String>>,
    ciphersuites: Option<Located<String>>,
    ecdh_curve: Option<Located<String>>,
    prefer_server_ciphers: Option<bool>,
    session_tickets: Option<bool>,
    session_cache: Option<SessionCache>,
    session_timeout: Option<Duration>,
    session_ticket_keys: Option<Vec<Located<PathBuf>>>,
    reject_handshake: Option<bool>,
    stapling: Option<bool>,
    stapling_file: Option<Located<PathBuf>>,
    stapling_responder: Option<Located<String>>,
    stapling_verify: Option<bool>,
}

impl TlsSettings {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"ssl_certificate" => {
                let file = Source::of(builder, d)?;
                self.certificates.get_or_insert_default().push(file);
            }
            b"ssl_certificate_key" => {
                let file = Source::of(builder, d)?;
                self.keys.get_or_insert_default().push(file);
            }
            b"ssl_certificate_cache" => {
                set(&mut self.certificate_cache, d, certificate_cache(d)?)?;
            }
            b"ssl_password_file" => set(&mut self.password_file, d, file(builder, d))?,
            b"ssl_client_certificate" => {
                set(&mut self.client_certificate, d, pem(builder, d)?)?;
            }
            b"ssl_trusted_certificate" => {
                set(&mut self.trusted_certificate, d, pem(builder, d)?)?;
            }
            b"ssl_verify_client" => {
                let value = match d.arg(0) {
                    b"off" => VerifyClient::Off,
                    b"on" => VerifyClient::On,
                    b"optional" => VerifyClient::Optional,
                    b"optional_no_ca" => VerifyClient::OptionalNoCa,
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.verify_client, d, located(d, value))?;
            }
            b"ssl_verify_depth" => set(&mut self.verify_depth, d, small_number(d)?)?,
            b"ssl_crl" => set(&mut self.crl, d, file(builder, d))?,
            b"ssl_crl_expired" => {
                let value = match d.arg(0) {
                    b"allow" => CrlExpired::Allow,
                    b"deny" => CrlExpired::Deny,
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.crl_expired, d, value)?;
            }
            b"ssl_verify_failure" => {
                let value = match d.arg(0) {
                    b"alert" => VerifyFailure::Alert,
                    b"http" => VerifyFailure::Http,
                    _ => return Err(refuse(d, format!("invalid value \"{}\"", d.text(0)))),
                };
                set(&mut self.verify_failure, d, value)?;
            }
            b"ssl_protocols" => {
                let value = protocols(builder, d)?;
                set(&mut self.protocols, d, value)?;
            }
            b"ssl_ciphers" => {
                let value = located(d, d.text(0).into_owned());
                set(&mut self.ciphers, d, value)?;
            }
            b"ssl_conf_command" => {
                if !d.arg(0).eq_ignore_ascii_case(b"Ciphersuites") {
                    let what = format!("with \"{}\" is not implemented", d.text(0));
                    return Err(refuse_directive(d, &format!("{what} in this version")));
                }
                // Commands are run in order, so the last one holds.
                self.ciphersuites = Some(located(d, d.text(1).into_owned()));
            }
            b"ssl_ecdh_curve" => {
                let value = located(d, d.text(0).into_owned());
                set(&mut self.ecdh_curve, d, value)?;
            }
            b"ssl_prefer_server_ciphers" => set(&mut self.prefer_server_ciphers, d, flag(d)?)?,
            b"ssl_session_tickets" => set(&mut self.session_tickets, d, flag(d)?)?,
            b"ssl_session_cache" => {
                // Of several in one block the last counts, as in Nginx.
                self.session_cache = Some(session_cache(builder, d)?);
            }
            b"ssl_session_timeout" => set(&mut self.session_timeout, d, seconds(d)?)?,
            b"ssl_session_ticket_key" => {
                let file = file(builder, d);
                self.session_ticket_keys.get_or_insert_default().push(file);
            }
            b"ssl_stapling" => set(&mut self.stapling, d, flag(d)?)?,
            b"ssl_stapling_file" => set(&mut self.stapling_file, d, file(builder, d))?,
            b"ssl_stapling_responder" => {
                let value = located(d, d.text(0).into_owned());
                set(&mut self.stapling_responder, d, value)?;
            }
            b"ssl_stapling_verify" => set(&mut self.stapling_verify, d, flag(d)?)?,
            b"ssl_reject_handshake" => set(&mut self.reject_handshake, d, flag(d)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            certificates, keys, certificate_cache, password_file, client_certificate, trusted_certificate, verify_client,
            verify_depth, crl, crl_expired, verify_failure, protocols, ciphers, ciphersuites,
            ecdh_curve, prefer_server_ciphers, session_tickets, session_cache, session_timeout,
            session_ticket_keys, reject_handshake, stapling, stapling_file, stapling_responder,
            stapling_verify
        );
    }

    pub(super) fn has_certificate(&self) -> bool {
        self.certificates.is_some()
    }

    pub(super) fn rejects_handshakes(&self) -> bool {
        self.reject_handshake == Some(true)
    }

    /// Takes the certificates of the address's default server, as Nginx does
    /// for a server on a TLS address that has none. The rest stays its own, so
    /// its policy on client certificates is not replaced by a weaker one.
    pub(super) fn borrow_certificates(&mut self, default: &Self) {
        self.certificates.clone_from(&default.certificates);
        self.keys.clone_from(&default.keys);
        self.certificate_cache = default.certificate_cache;
        self.password_file.clone_from(&default.password_file);
        self.stapling = default.stapling;
        self.stapling_file.clone_from(&default.stapling_file);
        self.stapling_responder
            .clone_from(&default.stapling_responder);
        self.stapling_verify = default.stapling_verify;
    }

    /// Pairs certificates with keys, in order; where the keys end, only what
    /// may hold its own is left without.
    pub(super) fn pairs(&self) -> Result<Vec<SourcePair>> {
        let certificates = self.certificates.as_deref().unwrap_or_default();
        let keys = self.keys.as_deref().unwrap_or_default();
        let mut without = certificates.iter().skip(keys.len());
        if let Some(bare) = without.find(|bare| !bare.value.may_hold_a_key()) {
            let shown: &dyn fmt::Display = match &bare.value {
                Source::Fixed { source, .. } => &source.display(),
                Source::Named(_) => &"with variables",
            };
            let message =
                format!("no \"ssl_certificate_key\" is defined for certificate \"{shown}\"");
            return Err(Error::at(&bare.position, message));
        }
        let keys = keys.iter().cloned().map(Some);
        Ok(certificates
            .iter()
            .cloned()
            .zip(keys.chain(std::iter::repeat(None)))
            .collect())
    }

    /// The certificates that are read at load, or all of them as what is read
    /// when a handshake names it.
    fn certificates(
        &self,
        builder: &mut Builder<'_>,
    ) -> Result<(Vec<CertificateAndKey>, Vec<NamedCertificate>)> {
        let pairs = self.pairs()?;
        let fixed = |source: &Located<Source>| match &source.value {
            Source::Fixed { source: value, .. } => Some(Located {
                value: value.clone(),
                position: source.position.clone(),
            }),
            Source::Named(_) => None,
        };
        let all_fixed: Option<Vec<CertificateAndKey>> = pairs
            .iter()
            .map(|(certificate, key)| {
                let key = match key {
                    Some(key) => Some(fixed(key)?),
                    None => None,
                };
                Some((fixed(certificate)?, key))
            })
            .collect();
        if let Some(fixed) = all_fixed {
            return Ok((fixed, Vec::new()));
        }
        if self.stapling == Some(true)
            && let Some((certificate, _)) = pairs.first()
        {
            let text = "\"ssl_stapling\" is ignored for certificates with variables";
            builder.warn(&certificate.position, text);
        }
        let cache = self.certificate_cache.flatten();
        let named = pairs.into_iter().map(|(certificate, key)| {
            let key = key.map(|key| key.value.template());
            let templates = (certificate.value.template(), key);
            proxy_tls::named(builder, templates, cache, certificate.position)
        });
        Ok((Vec::new(), named.collect()))
    }

    /// The settings of a server on a TLS address; `position` is the server's.
    /// Its `routing` may have a page for refused clients, who must then be let
    /// in far enough to see it.
    pub(super) fn finish(
        &self,
        builder: &mut Builder<'_>,
        position: &Position,
        routing: &Routing,
    ) -> Result<Tls> {
        let default_failure = match routing.answers_refused_clients() {
            true => VerifyFailure::Http,
            false => VerifyFailure::Alert,
        };
        let verify_client = self.verify_client.clone().unwrap_or_else(|| Located {
            value: VerifyClient::Off,
            position: position.clone(),
        });
        let needs_authorities = matches!(
            verify_client.value,
            VerifyClient::On | VerifyClient::Optional
        );
        if needs_authorities
            && self.client_certificate.is_none()
            && self.trusted_certificate.is_none()
        {
            let message =
                "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
            return Err(Error::at(&verify_client.position, message));
        }
        let (certificates, named) = self.certificates(builder)?;
        Ok(Tls {
            certificates,
            named,
            password_file: self.password_file.clone(),
            client_certificate: self.client_certificate.clone(),
            trusted_certificate: self.trusted_certificate.clone(),
            verify_client,
            verify_depth: self.verify_depth.unwrap_or(1),
            crl: self.crl.clone(),
            crl_expired: self.crl_expired.unwrap_or(CrlExpired::Deny),
            verify_failure: self.verify_failure.unwrap_or(default_failure),
            protocols: self.protocols.unwrap_or(TlsVersions {
                tls12: true,
                tls13: true,
            }),
            ciphers: self.ciphers.clone().unwrap_or_else(|| Located {
                value: DEFAULT_CIPHERS.to_owned(),
                position: position.clone(),
            }),
            ciphersuites: self.ciphersuites.clone(),
            ecdh_curve: self.ecdh_curve.clone(),
            prefer_server_ciphers: self.prefer_server_ciphers.unwrap_or(false),
            session_tickets: self.session_tickets.unwrap_or(true),
            session_cache: self.session_cache.clone().unwrap_or(SessionCache::None),
            session_timeout: self.session_timeout.unwrap_or(Duration::from_secs(300)),
            session_ticket_keys: self.session_ticket_keys.clone().unwrap_or_default(),
            stapling: self.stapling.unwrap_or(false).then(|| Stapling {
                file: self.stapling_file.clone(),
                responder: self.stapling_responder.clone(),
                verify: self.stapling_verify.unwrap_or(false),
            }),
            reject_handshake: self.rejects_handshakes(),
        })
    }
}

pub(super) fn located<T>(d: &Directive, value: T) -> Located<T> {
    Located {
        value,
        position: d.position.clone(),
    }
}

/// A file that is named as it is, without variables or other sources.
pub(super) fn file(builder: &Builder<'_>, d: &Directive) -> Located<PathBuf> {
    located(d, builder.file_to_read(d.arg(0)))
}

pub(super) fn pem(builder: &Builder<'_>, d: &Directive) -> Result<Located<PemSource>> {
    let value = d.arg(0);
    if has_variable(value) {
        let what = "with variables is not implemented in this version";
        return Err(refuse_directive(d, what));
    }
    let source = PemSource::parse(value, &builder.folder, &builder.environment);
    Ok(located(
        d,
        source.map_err(|what| refuse_directive(d, &what))?,
    ))
}

pub(super) fn protocols(builder: &mut Builder<'_>, d: &Directive) -> Result<TlsVersions> {
    let mut versions = TlsVersions {
        tls12: false,
        tls13: false,
    };
    for word in &d.args {
        match word.text().to_ascii_lowercase().as_str() {
            "tlsv1.2" => versions.tls12 = true,
            "tlsv1.3" => versions.tls13 = true,
            "sslv2" | "sslv3" | "tlsv1" | "tlsv1.1" => {
                let text = format!(
                    "\"{}\" in \"{}\" directive is not offered",
                    word.text(),
                    d.name()
                );
                builder.warn(&d.position, text);
            }
            _ => return Err(refuse(d, format!("invalid value \"{}\"", word.text()))),
        }
    }
    if !versions.tls12 && !versions.tls13 {
        let what = "names no version that is offered: TLSv1.2, TLSv1.3";
        return Err(refuse_directive(d, what));
    }
    Ok(versions)
}

/// `off`, `none`, `builtin[:SIZE]`, `shared:NAME:SIZE`; the last two together.
fn session_cache(builder: &mut Builder<'_>, d: &Directive) -> Result<SessionCache> {
    let mut cache = SessionCache::None;
    for word in &d.args {
        let invalid = || refuse(d, format!("invalid session cache \"{}\"", word.text()));
        let value = &*word.value;
        if value == b"off" || value == b"none" {
            cache = SessionCache::None;
        } else if value == b"builtin" || value.starts_with(b"builtin:") {
            if let Some(count) = value.strip_prefix(b"builtin:") {
                units::number(count).ok_or_else(invalid)?;
            }
            let text = "\"builtin\" in \"ssl_session_cache\" directive has no effect here: \
                        workers share what is cached";
            if !builder.remarks.iter().any(|remark| remark.text == text) {
                builder.notice(&d.position, text);
            }
        } else if let Some(rest) = value.strip_prefix(b"shared:") {
            let colon = rest
                .iter()
                .position(|&byte| byte == b':')
                .ok_or_else(invalid)?;
            let name = std::str::from_utf8(&rest[..colon]).map_err(|_| invalid())?;
            let size = units::size(&rest[colon + 1..]).ok_or_else(invalid)?;
            if name.is_empty() {
                return Err(invalid());
            }
            if size < LEAST_CACHE {
                let message = format!("session cache \"{}\" is too small", word.text());
                return Err(refuse(d, message));
            }
            let declared = *builder.session_zones.entry(name.into()).or_insert(size);
            if declared != size {
                let message = format!(
                    "the size {size} of shared memory zone \"{name}\" \
                     conflicts with already declared size {declared}"
                );
                return Err(refuse(d, message));
            }
            cache = SessionCache::Shared(name.into(), size);
        } else {
            return Err(invalid());
        }
    }
    Ok(cache)
}
