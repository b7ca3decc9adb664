//! OCSP stapling: what a certificate's CA says of it, told in the handshake to
//! clients that ask.
//!
//! A [`Staple`] belongs to one certificate and outlives reloads, so a response
//! is asked for once and not by every configuration. Who asks is the runtime's
//! business, off the workers; here is what to ask ([`Staple::request`]), what an
//! answer is worth ([`Staple::take`]), and when to ask again. Workers only look
//! at what is there, through an atomic pointer.

mod request;
mod response;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use self::request::Subject;
use self::response::{Response, Status};
use super::certs::{CertificateInfo, Loader, TlsError, issued, signature_algorithms};
use crate::config::{Located, Responder, Stapling, Tls};

/// `id-ad-ocsp`: 1.3.6.1.5.5.7.48.1.
const AD_OCSP: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];

/// Between two requests at the least, seconds, as in Nginx; also after a
/// failure.
const LEAST_PERIOD: i64 = 300;
/// Between two requests at the most, seconds, as in Nginx.
const GREATEST_PERIOD: i64 = 3600;
/// How far the responder's clock may be from ours, seconds, as in Nginx.
const SKEW: i64 = 300;

/// A response that may be shown.
#[derive(Debug)]
struct Good {
    der: Vec<u8>,
    /// Seconds since the epoch; not shown afterwards.
    valid_until: i64,
}

/// The status of one certificate: whom to ask, and the last good answer.
#[derive(Debug)]
pub struct Staple {
    subject: Subject,
    responder: Option<Responder>,
    verify: bool,
    current: ArcSwapOption<Good>,
    /// When to ask, seconds since the epoch.
    due: AtomicI64,
    /// The last failure, so that each is told once.
    failure: Mutex<Option<String>>,
}

impl Staple {
    /// Whom to ask; `None` where the response came from a file.
    #[must_use]
    pub fn responder(&self) -> Option<&Responder> {
        self.responder.as_ref()
    }

    /// What to ask: a target for GET (RFC 6960 appendix A).
    #[must_use]
    pub fn request(&self) -> String {
        let path = self.responder.as_ref().map_or("/", |it| &it.path);
        format!("{path}{}", self.subject.request())
    }

    /// The file that the certificate is in, for messages.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.subject.file
    }

    /// When to ask next, seconds since the epoch.
    #[must_use]
    pub fn due(&self) -> i64 {
        self.due.load(Ordering::Relaxed)
    }

    /// Judges an answer and, if it is good, shows it from now on.
    ///
    /// # Errors
    ///
    /// Why it is not; what was shown before is shown until it ends.
    pub fn take(&self, answer: Vec<u8>, now: UnixTime) -> Result<(), String> {
        let now = seconds(now);
        let response = Response::read(&answer)?;
        let algorithms = signature_algorithms();
        response.check_signature(&self.subject, self.verify.then_some(now), &algorithms)?;
        let single = response
            .of(&self.subject)?
            .ok_or("certificate status not found in the OCSP response")?;
        if single.status != Status::Good {
            let status = single.status;
            return Err(format!(
                "certificate status \"{status}\" in the OCSP response"
            ));
        }
        single.check_time(now, SKEW)?;
        let valid_until = single.next_update.unwrap_or(i64::MAX);
        let next = (valid_until - SKEW)
            .min(now + GREATEST_PERIOD)
            .max(now + LEAST_PERIOD);
        self.due.store(next, Ordering::Relaxed);
        self.failure().take();
        let der = answer;
        self.current
            .store(Some(Arc::new(Good { der, valid_until })));
        Ok(())
    }

    /// Notes a failure; says whether it is news.
    pub fn failed(&self, message: &str, now: UnixTime) -> bool {
        let again = seconds(now) + LEAST_PERIOD;
        self.due.store(again, Ordering::Relaxed);
        let mut failure = self.failure();
        let is_news = failure.as_deref() != Some(message);
        *failure = Some(message.to_owned());
        is_news
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All staples of this process.
#[derive(Debug, Default)]
pub struct Staples {
    /// By what they are asked for. Weak, so that a staple goes with the last
    /// configuration that uses it.
    known: Mutex<HashMap<[u8; 32], Weak<Staple>>>,
}

impl Staples {
    /// Those that somebody must be asked for.
    pub fn live(&self) -> Vec<Arc<Staple>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, staple| staple.strong_count() > 0);
        known.values().filter_map(Weak::upgrade).collect()
    }

    fn get(&self, subject: Subject, responder: Responder, verify: bool) -> Arc<Staple> {
        let key = subject.digest(&responder, verify);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(staple) = known.get(&key).and_then(Weak::upgrade) {
            return staple;
        }
        let staple = Arc::new(Staple {
            subject,
            responder: Some(responder),
            verify,
            current: ArcSwapOption::empty(),
            due: AtomicI64::new(0),
            failure: Mutex::default(),
        });
        known.insert(key, Arc::downgrade(&staple));
        staple
    }
}

/// The staple of a server's certificate; `None` where there can be none, which
/// is warned about, as in Nginx.
///
/// # Errors
///
/// The response file or a CA file cannot be read or understood.
pub(super) fn build(
    tls: &Tls,
    stapling: &Stapling,
    key: &CertifiedKey,
    info: &CertificateInfo,
    staples: &Staples,
    loader: &mut Loader,
) -> Result<Option<Arc<Staple>>, TlsError> {
    let file = info.path.display().to_string();
    let issuer = issuer(tls, key, loader)?;
    if let Some(response) = &stapling.file {
        return from_file(response, key, issuer, file, loader);
    }
    let mut ignore = |why: String| {
        loader.warn(format!("\"ssl_stapling\" ignored, {why}"));
        Ok(None)
    };
    let Some(subject) = issuer.and_then(|issuer| Subject::of(key, issuer, &file)) else {
        return ignore(format!(
            "issuer certificate not found for certificate \"{file}\""
        ));
    };
    let named = match &stapling.responder {
        Some(given) => Some(given.value.clone()),
        None => responder_of(key),
    };
    let Some(url) = named else {
        return ignore(format!(
            "no OCSP responder URL in the certificate \"{file}\""
        ));
    };
    match Responder::parse(&url) {
        Ok(responder) => Ok(Some(staples.get(subject, responder, stapling.verify))),
        Err(why) => ignore(format!(
            "{why} in OCSP responder \"{url}\" in the certificate \"{file}\""
        )),
    }
}

/// `ssl_stapling_file`: shown as it is, but only with the certificate that it
/// is about, and not after its end.
fn from_file(
    response: &Located<std::path::PathBuf>,
    key: &CertifiedKey,
    issuer: Option<CertificateDer<'static>>,
    file: String,
    loader: &mut Loader,
) -> Result<Option<Arc<Staple>>, TlsError> {
    let path = response.value.display();
    let fail = |why: &str| {
        let message = format!("cannot load OCSP response \"{path}\": {why}");
        TlsError::at(&response.position, message)
    };
    let der = loader.ocsp_response(response)?;
    let read = Response::read(&der).map_err(|why| fail(&why))?;
    let subject = issuer.and_then(|issuer| Subject::of(key, issuer, &file));
    let single = match &subject {
        Some(subject) => read.of(subject).map_err(fail)?,
        None => None,
    };
    let (Some(subject), Some(single)) = (subject, single) else {
        loader.warn(format!(
            "\"ssl_stapling_file\" ignored, \"{path}\" is not about certificate \"{file}\""
        ));
        return Ok(None);
    };
    if single.status != Status::Good {
        let status = single.status;
        loader.warn(format!(
            "OCSP response \"{path}\" has the certificate status \"{status}\""
        ));
    }
    let valid_until = single.next_update.unwrap_or(i64::MAX);
    if valid_until < seconds(loader.now()) {
        loader.warn(format!("OCSP response \"{path}\" has expired"));
    }
    let good = Good {
        der: der.to_vec(),
        valid_until,
    };
    Ok(Some(Arc::new(Staple {
        subject,
        responder: None,
        verify: false,
        current: ArcSwapOption::from_pointee(good),
        due: AtomicI64::new(i64::MAX),
        failure: Mutex::default(),
    })))
}

/// The CA that signed a server's certificate: out of its chain, else among the
/// CAs that are configured.
fn issuer(
    tls: &Tls,
    key: &CertifiedKey,
    loader: &mut Loader,
) -> Result<Option<CertificateDer<'static>>, TlsError> {
    let mut candidates = key.cert.get(1..).unwrap_or_default().to_vec();
    let files = [&tls.trusted_certificate, &tls.client_certificate];
    for file in files.into_iter().flatten() {
        candidates.extend(loader.authorities(file)?.iter().cloned());
    }
    let Some(leaf) = key.cert.first() else {
        return Ok(None);
    };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return Ok(None);
    };
    let algorithms = signature_algorithms();
    let found = candidates.into_iter().find(|candidate| {
        X509Certificate::from_der(candidate)
            .is_ok_and(|(_, candidate)| issued(leaf, &parsed, &candidate, &algorithms))
    });
    Ok(found)
}

/// The first responder that a certificate names.
fn responder_of(key: &CertifiedKey) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(key.cert.first()?).ok()?;
    let mut found =
        leaf.extensions()
            .iter()
            .flat_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(access) => access.accessdescs.as_slice(),
                _ => &[],
            });
    found.find_map(|access| match &access.access_location {
        GeneralName::URI(url) if access.access_method.as_bytes() == AD_OCSP => {
            Some((*url).to_owned())
        }
        _ => None,
    })
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// A server's certificate with what may be shown beside it.
pub(super) struct Shown {
    plain: Arc<CertifiedKey>,
    staple: Option<Arc<Staple>>,
    /// The certificate with the last response, so that a handshake copies
    /// neither.
    with_response: ArcSwapOption<(Arc<Good>, Arc<CertifiedKey>)>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("plain", &self.plain)
            .field("staple", &self.staple)
            .finish_non_exhaustive()
    }
}

impl Shown {
    pub(super) fn new(plain: Arc<CertifiedKey>, staple: Option<Arc<Staple>>) -> Self {
        Self {
            plain,
            staple,
            with_response: ArcSwapOption::empty(),
        }
    }

    /// Without a response.
    pub(super) fn plain(&self) -> &Arc<CertifiedKey> {
        &self.plain
    }

    /// What a client gets now.
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        match &self.staple {
            None => Arc::clone(&self.plain),
            Some(staple) => self.stapled(staple),
        }
    }

    fn stapled(&self, staple: &Staple) -> Arc<CertifiedKey> {
        let Some(good) = staple.current.load_full() else {
            return Arc::clone(&self.plain);
        };
        if good.valid_until < seconds(UnixTime::now()) {
            return Arc::clone(&self.plain);
        }
        if let Some(known) = &*self.with_response.load()
            && Arc::ptr_eq(&known.0, &good)
        {
            return Arc::clone(&known.1);
        }
        let mut key = CertifiedKey::clone(&self.plain);
        key.ocsp = Some(good.der.clone());
        let key = Arc::new(key);
        self.with_response
            .store(Some(Arc::new((good, Arc::clone(&key)))));
        key
    }
}

impl Subject {
    /// What a staple is known by: all that decides what is asked and believed.
    fn digest(&self, responder: &Responder, verify: bool) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let port = responder.port.to_be_bytes();
        let parts: [&[u8]; 6] = [
            &self.leaf,
            &self.issuer,
            responder.authority.as_bytes(),
            &port,
            responder.path.as_bytes(),
            &[u8::from(verify)],
        ];
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests;
