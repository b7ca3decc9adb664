//! Reads the host name from a ClientHello, so that the server block is known
//! before a configuration is chosen.
//!
//! rustls offers `Acceptor` for this, but only on its buffered connection, and
//! the record layer of ours needs the unbuffered one. So the name is read here
//! from bytes that rustls then parses again: this parser must agree with
//! rustls' wherever rustls accepts, and may only be stricter. The agreement is
//! held by a property test against `Acceptor`.
//!
//! Nothing is consumed and nothing is kept between calls: each call sees all
//! bytes received so far.

mod openssl_names;

use std::borrow::Cow;
use std::fmt;

pub(super) use self::openssl_names::group as group_name;
use rustls::pki_types::ServerName;

/// The longest ClientHello, in bytes without its handshake header. rustls
/// refuses longer handshake messages.
pub const MAX_CLIENT_HELLO: usize = 0xffff;

/// The most records over which a ClientHello may be spread. Each call walks
/// the records from the first, so this bounds what a client can make us repeat
/// by sending one byte per record; real clients use one to twenty.
pub const MAX_RECORDS: usize = 2048;

/// The longest HTTP method that is looked for on a TLS port, in bytes. The
/// longest registered one is `UPDATEREDIRECTREF`, of 17.
const MAX_METHOD: usize = 24;

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const MAX_RECORD_PAYLOAD: usize = 16_384;
const CONTENT_HANDSHAKE: u8 = 22;
const TYPE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_SUPPORTED_GROUPS: u16 = 10;
const NAME_TYPE_HOST_NAME: u8 = 0;

/// What the bytes received so far tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// The ClientHello is not complete.
    NeedMore,
    /// The ClientHello is complete. `None` if it names no host, or gives an IP
    /// address as one: RFC 6066 §3 forbids that, some clients do it, and
    /// rustls takes it for no name at all.
    ///
    /// The name is as sent: not lower-cased, a trailing dot kept.
    Name(Option<Cow<'a, str>>),
}

/// Why these bytes are not an acceptable ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// They begin like an HTTP request.
    PlainHttp,
    /// They are neither a TLS record nor an HTTP request.
    NotTls,
    /// They are TLS, but do not begin with a ClientHello.
    NotClientHello,
    /// The ClientHello, one of its records or their number is over its limit.
    TooLarge,
    /// A length inside the ClientHello disagrees with another, or the
    /// `server_name` extension occurs twice or has no well-formed content.
    Malformed,
    /// The host name is not a DNS name, or there is none in the extension.
    InvalidName,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainHttp => "client sent a plain HTTP request to the TLS port",
            Self::NotTls => "client does not speak TLS",
            Self::NotClientHello => "client did not begin with a ClientHello",
            Self::TooLarge => "client sent an over-long ClientHello",
            Self::Malformed => "client sent a malformed ClientHello",
            Self::InvalidName => "client sent an invalid server name",
        })
    }
}

impl std::error::Error for Error {}

/// The host name of the ClientHello at the start of `incoming`, which is all
/// that was received on the connection so far.
///
/// Allocates only when the ClientHello is spread over several records.
///
/// # Errors
/// Whatever cannot become a ClientHello by receiving more; see [`Error`].
pub fn server_name(incoming: &[u8]) -> Result<Found<'_>, Error> {
    let Some(&first) = incoming.first() else {
        return Ok(Found::NeedMore);
    };
    match first {
        CONTENT_HANDSHAKE => {}
        20..=24 => return Err(Error::NotClientHello), // the other TLS content types
        _ => return plain_http(incoming),
    }
    let Some(first_record) = record_payload(incoming)? else {
        return Ok(Found::NeedMore);
    };
    if let Some(message) = complete_message(first_record)? {
        return Ok(Found::Name(host_name(message)?.map(Cow::Borrowed)));
    }
    let Some(gathered) = gather(incoming)? else {
        return Ok(Found::NeedMore);
    };
    match complete_message(&gathered)? {
        Some(message) => {
            let name = host_name(message)?;
            Ok(Found::Name(name.map(|name| Cow::Owned(name.to_owned()))))
        }
        None => Ok(Found::NeedMore),
    }
}

/// What a client offers, for `$ssl_ciphers` and `$ssl_curves`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Cipher suites by OpenSSL's names, joined by colons.
    pub ciphers: String,
    /// Groups by OpenSSL's short names, joined by colons; empty without the
    /// extension.
    pub curves: String,
}

/// What the ClientHello at the start of `incoming` offers. `None` while it is
/// not complete, and for what is none.
pub fn offer(incoming: &[u8]) -> Option<Offer> {
    let first = record_payload(incoming).ok()??;
    if let Some(message) = complete_message(first).ok()? {
        return offer_in(message).ok();
    }
    let gathered = gather(incoming).ok()??;
    offer_in(complete_message(&gathered).ok()??).ok()
}

fn offer_in(message: &[u8]) -> Result<Offer, Error> {
    let mut hello = Reader(message);
    hello.take(2 + 32)?; // legacy_version, random
    hello.vector8()?; // legacy_session_id
    let ciphers = openssl_names::suites(hello.vector16()?);
    hello.vector8()?; // legacy_compression_methods
    let mut curves = String::new();
    if !hello.is_empty() {
        let mut extensions = Reader(hello.vector16()?);
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let mut content = Reader(extensions.vector16()?);
            // A list that cannot be read names no group; whether the client
            // may go on with it is for the handshake to say.
            if kind == EXTENSION_SUPPORTED_GROUPS
                && let Ok(groups) = content.vector16()
            {
                curves = openssl_names::groups(groups);
            }
        }
    }
    Ok(Offer { ciphers, curves })
}

/// Tells an HTTP request from noise. No TLS content type is a letter, so the
/// first byte decides what is being judged.
fn plain_http(incoming: &[u8]) -> Result<Found<'_>, Error> {
    let is_method = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_');
    let method = incoming
        .iter()
        .take(MAX_METHOD + 1)
        .take_while(|b| is_method(b))
        .count();
    match incoming.get(method) {
        Some(b' ') if (1..=MAX_METHOD).contains(&method) => Err(Error::PlainHttp),
        None if method <= MAX_METHOD => Ok(Found::NeedMore),
        _ => Err(Error::NotTls),
    }
}

/// The payload of the handshake record at the start of `bytes`, once whole.
fn record_payload(bytes: &[u8]) -> Result<Option<&[u8]>, Error> {
    // Each header byte is judged as soon as it is there: a peer that speaks
    // another protocol may wait for our answer after fewer than five.
    if bytes.first().is_some_and(|&b| b != CONTENT_HANDSHAKE) {
        return Err(Error::NotClientHello);
    }
    if bytes.get(1).is_some_and(|&major| major != 3) {
        return Err(Error::NotTls);
    }
    let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    match length {
        0 => Err(Error::Malformed),
        1..=MAX_RECORD_PAYLOAD => Ok(rest.get(..length)),
        _ => Err(Error::TooLarge),
    }
}

/// The body of the ClientHello that `payload` starts with, once whole.
fn complete_message(payload: &[u8]) -> Result<Option<&[u8]>, Error> {
    if payload.first().is_some_and(|&b| b != TYPE_CLIENT_HELLO) {
        return Err(Error::NotClientHello);
    }
    let Some((header, rest)) = payload.split_at_checked(HANDSHAKE_HEADER) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    if length > MAX_CLIENT_HELLO {
        return Err(Error::TooLarge);
    }
    Ok(rest.get(..length))
}

/// The payloads of all records put together, once they hold a whole message.
/// Only lengths are added up until then: a message that arrives byte by byte
/// is copied once.
fn gather(incoming: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut header = [0; HANDSHAKE_HEADER];
    let mut gathered = 0;
    let mut rest = incoming;
    for _ in 0..MAX_RECORDS {
        let Some(payload) = record_payload(rest)? else {
            return Ok(None);
        };
        for (slot, byte) in header.iter_mut().skip(gathered).zip(payload) {
            *slot = *byte;
        }
        gathered += payload.len();
        rest = rest.get(RECORD_HEADER + payload.len()..).unwrap_or(&[]);

        let known = header.get(..gathered).unwrap_or(&header);
        complete_message(known)?;
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        if gathered >= HANDSHAKE_HEADER && gathered - HANDSHAKE_HEADER >= length {
            let mut message = Vec::with_capacity(gathered);
            let mut rest = incoming;
            while message.len() < gathered {
                let Some(payload) = record_payload(rest)? else {
                    return Ok(None);
                };
                message.extend_from_slice(payload);
                rest = rest.get(RECORD_HEADER + payload.len()..).unwrap_or(&[]);
            }
            return Ok(Some(message));
        }
    }
    Err(Error::TooLarge)
}

/// The host name in the body of a ClientHello (RFC 8446 §4.1.2, RFC 6066 §3).
fn host_name(message: &[u8]) -> Result<Option<&str>, Error> {
    let mut hello = Reader(message);
    hello.take(2 + 32)?; // legacy_version, random
    if hello.vector8()?.len() > 32 {
        return Err(Error::Malformed); // legacy_session_id
    }
    let suites = hello.vector16()?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(Error::Malformed);
    }
    if hello.vector8()?.is_empty() {
        return Err(Error::Malformed); // legacy_compression_methods
    }
    if hello.is_empty() {
        return Ok(None); // TLS 1.2 and before may have no extensions
    }

    let mut extensions = Reader(hello.vector16()?);
    if !hello.is_empty() {
        return Err(Error::Malformed);
    }
    let mut server_name = None;
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector16()?;
        if kind == EXTENSION_SERVER_NAME && server_name.replace(content).is_some() {
            return Err(Error::Malformed);
        }
    }
    server_name.map_or(Ok(None), host_name_of_extension)
}

fn host_name_of_extension(content: &[u8]) -> Result<Option<&str>, Error> {
    let mut content = Reader(content);
    let mut list = Reader(content.vector16()?);
    if list.is_empty() || !content.is_empty() {
        return Err(Error::Malformed);
    }
    let mut found = None;
    while !list.is_empty() {
        if list.u8()? != NAME_TYPE_HOST_NAME {
            // No other type was ever defined, and without a definition its
            // length is unknown, so the remainder cannot be read (as rustls).
            break;
        }
        let name = list.vector16()?;
        if name.is_empty() || found.replace(name).is_some() {
            return Err(Error::Malformed);
        }
    }
    let name = found.and_then(|name| str::from_utf8(name).ok());
    let name = name.ok_or(Error::InvalidName)?;
    match ServerName::try_from(name) {
        // It has no trailing dot, whether or not there was one.
        Ok(ServerName::DnsName(_)) => Ok(Some(name)),
        Ok(ServerName::IpAddress(_)) => Ok(None),
        Ok(_) | Err(_) => Err(Error::InvalidName),
    }
}

/// Takes bytes from the front, and fails where there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Error> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<&'a [u8], Error> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Result<&'a [u8], Error> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::server::Acceptor;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// `record` (one record) cut into records of the given payload sizes.
    fn in_records(record: &[u8], sizes: &[usize]) -> Vec<u8> {
        let mut payload = &record[RECORD_HEADER..];
        let mut sizes = sizes.iter().copied().cycle();
        let mut out = Vec::new();
        while !payload.is_empty() {
            let size = sizes.next().unwrap().clamp(1, payload.len());
            out.extend_from_slice(&record[..3]);
            out.extend_from_slice(&(size as u16).to_be_bytes());
            out.extend_from_slice(&payload[..size]);
            payload = &payload[size..];
        }
        out
    }

    fn name_of(found: Result<Found<'_>, Error>) -> Option<String> {
        match found {
            Ok(Found::Name(name)) => name.map(Cow::into_owned),
            other => panic!("no name: {other:?}"),
        }
    }

    /// A ClientHello whose extensions are exactly `extensions`.
    fn with_extensions(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend_from_slice(&[0, 2, 0x13, 0x01, 1, 0]);
        body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(extensions);
        let mut out = vec![22, 3, 1];
        out.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
        out.push(1);
        out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&body);
        out
    }

    fn sni(names: &[&[u8]]) -> Vec<u8> {
        let mut list = Vec::new();
        for name in names {
            list.push(0);
            list.extend_from_slice(&(name.len() as u16).to_be_bytes());
            list.extend_from_slice(name);
        }
        let mut out = vec![0, 0];
        out.extend_from_slice(&(list.len() as u16 + 2).to_be_bytes());
        out.extend_from_slice(&(list.len() as u16).to_be_bytes());
        out.extend_from_slice(&list);
        out
    }

    #[test]
    fn the_name_of_a_real_client_hello_is_found() {
        let hello = client_hello("Test.Woorifisa.site");
        assert_eq!(
            name_of(server_name(&hello)).unwrap(),
            "Test.Woorifisa.site",
            "as sent"
        );
        assert_eq!(name_of(server_name(&client_hello("192.0.2.1"))), None);
    }

    #[test]
    fn an_offer_is_read_however_it_is_cut() {
        let hello = client_hello("a.example");
        let whole = offer(&hello).expect("complete");
        assert!(whole.ciphers.contains(":ECDHE-ECDSA-AES128-GCM-SHA256:"));
        assert!(whole.ciphers.ends_with("TLS_EMPTY_RENEGOTIATION_INFO_SCSV"));
        assert_eq!(whole.curves, "X25519:prime256v1:secp384r1:X25519MLKEM768");
        for end in 0..hello.len() {
            assert_eq!(offer(&hello[..end]), None, "{end}");
        }
        assert_eq!(offer(&in_records(&hello, &[1])), Some(whole));
        let none = offer(&with_extensions(&[])).expect("complete");
        assert_eq!(none.ciphers, "TLS_AES_128_GCM_SHA256");
        assert_eq!(none.curves, "");
    }

    #[test]
    fn every_proper_prefix_needs_more() {
        let hello = client_hello("a.example");
        for end in 0..hello.len() {
            assert_eq!(server_name(&hello[..end]), Ok(Found::NeedMore), "{end}");
        }
    }

    #[test]
    fn one_byte_per_record_is_understood() {
        let hello = in_records(&client_hello("a.example"), &[1]);
        assert_eq!(name_of(server_name(&hello)).unwrap(), "a.example");
        assert_eq!(
            server_name(&hello[..hello.len() - 1]),
            Ok(Found::NeedMore),
            "a record that lacks a byte"
        );
    }

    #[test]
    fn http_on_the_tls_port_is_told_from_noise() {
        for request in [
            "GET / HTTP/1.1\r\n",
            "POST /x",
            "M-SEARCH * HTTP/1.1",
            "get ",
        ] {
            assert_eq!(server_name(request.as_bytes()), Err(Error::PlainHttp));
        }
        assert_eq!(server_name(b"GE"), Ok(Found::NeedMore));
        assert_eq!(server_name(b""), Ok(Found::NeedMore));
        for noise in [
            &b" GET"[..],
            b"SSH-2.0-OpenSSH",
            b"\r\n\r\n",
            b"\x80\x2e\x01\x03\x01",
            b"\x16\x02",
            &[b'A'; MAX_METHOD + 1],
        ] {
            assert_eq!(server_name(noise), Err(Error::NotTls), "{noise:?}");
        }
    }

    #[test]
    fn tls_that_is_no_client_hello_is_refused() {
        assert_eq!(
            server_name(&[21, 3, 3, 0, 2, 2, 40]),
            Err(Error::NotClientHello),
            "an alert"
        );
        assert_eq!(
            server_name(&[22, 3, 3, 0, 4, 2, 0, 0, 0]),
            Err(Error::NotClientHello)
        );
        assert_eq!(server_name(&[22, 3, 3, 0, 0]), Err(Error::Malformed));
        assert_eq!(server_name(&[22, 3, 3, 0x40, 1]), Err(Error::TooLarge));
        assert_eq!(
            server_name(&[22, 3, 3, 0, 4, 1, 1, 0, 0]),
            Err(Error::TooLarge)
        );
        assert_eq!(
            server_name(&[22, 3, 3, 0, 1, 1, 23, 3, 3]),
            Err(Error::NotClientHello),
            "another content type between fragments"
        );
    }

    #[test]
    fn more_records_than_allowed_are_refused() {
        let mut hello = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
        for _ in 0..MAX_RECORDS {
            hello.extend_from_slice(&[22, 3, 1, 0, 1, 0]);
        }
        assert_eq!(server_name(&hello), Err(Error::TooLarge));
    }

    #[test]
    fn a_second_server_name_is_an_error() {
        let twice = [sni(&[b"a.example"]), sni(&[b"b.example"])].concat();
        assert_eq!(
            server_name(&with_extensions(&twice)),
            Err(Error::Malformed),
            "two extensions"
        );
        assert_eq!(
            server_name(&with_extensions(&sni(&[b"a.example", b"b.example"]))),
            Err(Error::Malformed),
            "two names in one"
        );
    }

    #[test]
    fn names_that_are_none_are_refused_or_ignored() {
        let of = |extension: &[u8]| server_name(&with_extensions(extension)).map(|_| ());
        assert_eq!(of(&sni(&[b"a b"])), Err(Error::InvalidName));
        assert_eq!(of(&sni(&[b"a\0.example"])), Err(Error::InvalidName));
        assert_eq!(of(&sni(&[b""])), Err(Error::Malformed));
        assert_eq!(of(&sni(&[])), Err(Error::Malformed));
        assert_eq!(of(&[0, 0, 0, 3, 0, 1, 9]), Err(Error::InvalidName));
        assert_eq!(
            name_of(server_name(&with_extensions(&sni(&[b"192.0.2.1"])))),
            None
        );
        assert_eq!(name_of(server_name(&with_extensions(&[]))), None);
        let dotted = with_extensions(&sni(&[b"A.example."]));
        assert_eq!(name_of(server_name(&dotted)).unwrap(), "A.example.");
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let good = with_extensions(&sni(&[b"a.example"]));
        // The extensions' length, the extension's, the list's and the name's.
        for (at, changes) in [
            (51, &[1_u8, 0xff][..]),
            (55, &[1, 0xff]),
            (57, &[1, 0xff]),
            (60, &[1]),
        ] {
            for &change in changes {
                let mut bad = good.clone();
                bad[at] = bad[at].wrapping_add(change);
                assert_eq!(server_name(&bad), Err(Error::Malformed), "{at} {change}");
            }
        }
    }

    /// The name that rustls reads, if it accepts these bytes.
    fn by_rustls(mut bytes: &[u8]) -> Option<Option<String>> {
        let mut acceptor = Acceptor::default();
        while !bytes.is_empty() {
            acceptor.read_tls(&mut bytes).ok()?;
            if let Some(accepted) = acceptor.accept().ok()? {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return Some(name);
            }
        }
        None
    }

    proptest! {
        #[test]
        fn any_split_into_records_gives_the_same_name(sizes in prop::collection::vec(1_usize..700, 1..8)) {
            let hello = in_records(&client_hello("split.example"), &sizes);
            prop_assert_eq!(name_of(server_name(&hello)).unwrap(), "split.example");
            prop_assert_eq!(server_name(&hello[..hello.len() - 1]), Ok(Found::NeedMore));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tls: bool) {
            let mut bytes = bytes;
            if tls && bytes.len() > 5 {
                let length = bytes.len() - 5;
                bytes[..5].copy_from_slice(&[22, 3, 1, 0, length as u8]);
                bytes[5] = 1;
            }
            let _ = server_name(&bytes);
        }

        #[test]
        fn what_rustls_accepts_has_the_same_name_here(
            at in 0_usize..2000, to: u8, name in "[a-zA-Z0-9_.-]{1,40}", real: bool,
        ) {
            let mut hello = if real {
                client_hello("mutated.example")
            } else {
                // Signature algorithms and what else rustls insists on.
                with_extensions(&[&sni(&[name.as_bytes()])[..], &[0, 13, 0, 4, 0, 2, 4, 3]].concat())
            };
            let length = hello.len();
            if real {
                hello[at % length] = to;
            }
            if let Some(theirs) = by_rustls(&hello) {
                let ours = name_of(server_name(&hello)).map(|name| name.to_ascii_lowercase());
                // rustls leaves a trailing dot out.
                let undotted = ours.map(|name| name.strip_suffix('.').unwrap_or(&name).to_owned());
                prop_assert_eq!(undotted, theirs);
            }
        }
    }
}
