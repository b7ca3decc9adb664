//! Where certificates and keys come from: a file, the configuration itself, or
//! the environment.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::source::path_of;

/// A value that may hold a private key: wiped when the last copy goes.
pub type Secret = Arc<Zeroizing<Vec<u8>>>;

/// What `ssl_certificate` and its like name. Neither `Debug` nor
/// [`PemSource::display`] shows what is in a `data:` or `env` value: both end up
/// in messages.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file, absolute.
    File(PathBuf),
    /// `data:VALUE`: PEM, or base64 of PEM.
    Data(Secret),
    /// `env:NAME`: the same in an environment variable.
    Env {
        /// The variable.
        name: Box<str>,
        /// From `env NAME=VALUE;`, which goes before the environment.
        given: Option<Secret>,
    },
}

impl PemSource {
    /// What a directive's value names, files relative to `folder`.
    ///
    /// # Errors
    ///
    /// Why it can name nothing, in words that do not show it.
    pub(super) fn parse(
        value: &[u8],
        folder: &Path,
        environment: &HashMap<Box<str>, Secret>,
    ) -> Result<Self, String> {
        for scheme in ["engine:", "store:"] {
            if value.starts_with(scheme.as_bytes()) {
                return Err(format!(
                    "with \"{scheme}\" is not implemented in this version"
                ));
            }
        }
        if let Some(data) = value.strip_prefix(b"data:") {
            return Ok(Self::Data(secret(data)));
        }
        let Some(name) = value.strip_prefix(b"env:") else {
            return Ok(Self::File(folder.join(path_of(value))));
        };
        let name = std::str::from_utf8(name).ok().filter(|name| {
            // What no variable can be called, and what getenv(3) would stop at.
            !name.is_empty() && !name.contains(['=', '\0'])
        });
        let name = name.ok_or("names no environment variable")?;
        Ok(Self::Env {
            name: name.into(),
            given: environment.get(name).cloned(),
        })
    }

    /// For messages: the file's name, `data:…` or `env:NAME`.
    pub fn display(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Data(_) => f.write_str("data:..."),
            Self::Env { name, .. } => write!(f, "env:{name}"),
        })
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Data(_) | Self::Env { .. } => None,
        }
    }

    /// Whether a certificate from here may be a PKCS#12 store, going by its
    /// name: a file does not say what is in it before it is read.
    #[must_use]
    pub fn may_hold_a_key(&self) -> bool {
        let Some(file) = self.file() else {
            return true;
        };
        let ending = file.extension().unwrap_or_default();
        ending.eq_ignore_ascii_case("p12") || ending.eq_ignore_ascii_case("pfx")
    }

    /// The value, for what is not a file: `None` for a file and for a variable
    /// that is not set.
    #[must_use]
    pub fn value(&self) -> Option<Secret> {
        match self {
            Self::File(_) => None,
            Self::Data(value) => Some(Arc::clone(value)),
            Self::Env { name, given } => given.clone().or_else(|| {
                let value = std::env::var_os(OsStr::from_bytes(name.as_bytes()))?;
                Some(secret(value.as_encoded_bytes()))
            }),
        }
    }
}

// By hand, because what wipes itself has no `Hash`.
impl Hash for PemSource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::File(path) => path.hash(state),
            Self::Data(value) => value.as_slice().hash(state),
            Self::Env { name, .. } => name.hash(state),
        }
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.display())
    }
}

impl From<PathBuf> for PemSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// A copy that wipes itself.
pub(super) fn secret(bytes: &[u8]) -> Secret {
    Arc::new(Zeroizing::new(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_known_by_the_end_of_its_name() {
        for (name, may) in [
            ("a.p12", true),
            ("b/A.PFX", true),
            ("a.pem", false),
            ("p12", false),
        ] {
            assert_eq!(PemSource::File(name.into()).may_hold_a_key(), may, "{name}");
        }
    }

    #[test]
    fn a_value_is_shown_to_nobody() {
        let hidden = secret(b"-----BEGIN PRIVATE KEY-----");
        for (source, shown) in [
            (PemSource::Data(hidden.clone()), "data:..."),
            (
                PemSource::Env {
                    name: "TLS_KEY".into(),
                    given: Some(hidden),
                },
                "env:TLS_KEY",
            ),
            (PemSource::File("/a/b".into()), "/a/b"),
        ] {
            assert_eq!(source.display().to_string(), shown);
            assert_eq!(format!("{source:?}"), format!("\"{shown}\""));
        }
    }
}
