//! The parser that learns a name from a ClientHello, against rustls' own. It
//! decides which server block, and so which client-certificate policy, applies:
//! where the two disagree, a client could get a policy that is not its host's.

use ringwall::tls::client_hello::{Error, Found, offer, server_name};
use rustls::server::Acceptor;

/// Judges `bytes` as the start of a connection, whole and cut short.
pub fn client_hello(bytes: &[u8]) {
    let whole = server_name(bytes);

    if let Some(theirs) = rustls_name(bytes) {
        match &whole {
            Ok(Found::Name(ours)) => {
                let ours = ours.as_deref().map(normalised);
                let theirs = theirs.as_deref().map(normalised);
                assert_eq!(ours, theirs, "two readings of one ClientHello");
            }
            Ok(Found::NeedMore) => panic!("rustls needs no more than this"),
            // Stricter than rustls is allowed; taking it for HTTP is not.
            Err(error) => assert_ne!(*error, Error::PlainHttp),
        }
    }

    // Whoever has a name has made an offer, and it is fit for a log.
    let offered = offer(bytes);
    assert!(offered.is_some() || !matches!(whole, Ok(Found::Name(_))));
    if let Some(offered) = offered {
        let texts = [&offered.ciphers, &offered.curves];
        assert!(
            texts
                .iter()
                .all(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
        );
    }

    // What was decided on fewer bytes must not change with more of them. Every
    // cut of a long input would take for ever, and the first ones matter most.
    let step = 1 + bytes.len() / 256;
    for end in (0..bytes.len()).step_by(step) {
        match server_name(bytes.get(..end).unwrap_or_default()) {
            Ok(Found::NeedMore) => {}
            early => assert_eq!(early, whole, "decided otherwise at {end} bytes"),
        }
    }
}

/// Whether a trailing dot is left depends on the version of rustls' types.
fn normalised(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The name that rustls reads, if it accepts these bytes as a ClientHello.
fn rustls_name(bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).ok()? == 0 {
            return None;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return Some(accepted.client_hello().server_name().map(str::to_owned));
            }
            Ok(None) => {}
            Err(_) => return None,
        }
    }
    None
}
