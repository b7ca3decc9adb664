//! Certificates towards upstreams that a request's variables name:
//! `proxy_ssl_certificate /certs/$arg_shop.crt`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::model::Position;
use super::pem_source::{PemSource, Secret};
use super::template::Template;

/// `proxy_ssl_certificate` and `proxy_ssl_certificate_key`, at least one of
/// them with variables.
#[derive(Debug, Clone)]
pub struct NamedCertificate {
    /// Empty for a request that shows none.
    pub certificate: Template,
    /// `None`: it is in the certificate's own store.
    pub key: Option<Template>,
    /// `proxy_ssl_certificate_cache`; without it they are read at each request.
    pub cache: Option<CertificateCache>,
    /// Where the certificate is said.
    pub position: Position,
    /// What files are relative to.
    folder: PathBuf,
    /// From `env NAME=VALUE;`.
    environment: Arc<HashMap<Box<str>, Secret>>,
}

/// `proxy_ssl_certificate_cache max=N [inactive=TIME] [valid=TIME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateCache {
    /// How many are kept, per worker; the least recently used goes.
    pub max: usize,
    /// How long one is kept that nobody asks for. Default 10 s.
    pub inactive: Duration,
    /// How long one is used before it is read again. Default 60 s.
    pub valid: Duration,
}

impl NamedCertificate {
    /// What is said at `position`; files are relative to `folder`.
    pub(super) fn new(
        (certificate, key): (Template, Option<Template>),
        cache: Option<CertificateCache>,
        position: Position,
        folder: PathBuf,
        environment: HashMap<Box<str>, Secret>,
    ) -> Self {
        Self {
            certificate,
            key,
            cache,
            position,
            folder,
            environment: Arc::new(environment),
        }
    }

    /// What a value names; `None` where it is empty, which names nothing.
    ///
    /// # Errors
    ///
    /// Why it can name nothing, in words that do not show it.
    pub fn source(&self, value: &[u8]) -> Result<Option<PemSource>, String> {
        if value.is_empty() {
            return Ok(None);
        }
        let source = PemSource::parse(value, &self.folder, &self.environment)?;
        // It may be the client's word, and ends up in the log.
        if source.file().is_some() && value.iter().any(u8::is_ascii_control) {
            return Err("the name of a certificate has a control character in it".into());
        }
        Ok(Some(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_a_file_or_holds_what_it_says() {
        let named = NamedCertificate {
            certificate: Template::default(),
            key: None,
            cache: None,
            position: Position {
                file: "a".into(),
                line: 1,
            },
            folder: "/etc/ringwall".into(),
            environment: Arc::default(),
        };
        let shown = |value: &[u8]| {
            let source = named.source(value)?;
            Ok::<_, String>(source.map(|source| source.display().to_string()))
        };
        for (value, source) in [
            (&b"a.crt"[..], Some("/etc/ringwall/a.crt")),
            (b"/a.crt", Some("/a.crt")),
            (b"data:-----BEGIN", Some("data:...")),
            (b"env:SHOP_CRT", Some("env:SHOP_CRT")),
            (b"", None),
        ] {
            assert_eq!(shown(value), Ok(source.map(str::to_owned)));
        }
        for value in [
            &b"a\0.crt"[..],
            b"a\nb",
            b"engine:a",
            b"store:a",
            b"env:",
            b"env:A=B",
        ] {
            assert!(shown(value).is_err());
        }
    }
}
