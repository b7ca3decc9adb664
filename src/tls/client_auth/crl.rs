//! One certificate revocation list: read once, kept as a sorted table.
//!
//! A list of 100,000 entries is four megabytes of DER. What is asked of it is
//! whether a serial number is in it, so only the numbers are kept, one behind
//! the other: about two megabytes, and no allocation per entry. webpki's owned
//! form holds a hash map of structures instead, ten times as much.

use rustls::pki_types::UnixTime;
use x509_parser::asn1_rs::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::v1::Signed;
use crate::tls::der::{
    BOOLEAN, ENUMERATED, Fields, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING,
    SEQUENCE, Tlv, UTC_TIME, tlv,
};
use crate::tls::identity;

/// `id-ce`: what every extension of RFC 5280 begins with.
const ID_CE: [u8; 2] = [0x55, 0x1d];
const REASON_CODE: u8 = 21;
const DELTA_INDICATOR: u8 = 27;
const ISSUING_DISTRIBUTION_POINT: u8 = 28;
const DISTRIBUTION_POINTS: u8 = 31;
/// The reason of an entry that takes an earlier one back.
const REMOVE_FROM_CRL: u8 = 8;

const MALFORMED: &str = "a CRL is malformed";

/// What a CRL says, without its signature.
#[derive(Debug)]
pub(in crate::tls) struct RevocationList {
    /// Content octets of the Name, as webpki gives them.
    pub(super) issuer: Vec<u8>,
    /// The same for people.
    pub(in crate::tls) issuer_name: String,
    pub(super) this_update: i64,
    /// Seconds since the epoch.
    pub(in crate::tls) next_update: Option<i64>,
    scope: Scope,
    revoked: Serials,
}

/// The first of several lists one after another, and the others.
pub(in crate::tls) fn split_first(der: &[u8]) -> Option<(&[u8], &[u8])> {
    tlv(der).map(|(list, rest)| (list.whole, rest))
}

/// Which of the issuer's certificates a list speaks of: RFC 5280 §5.2.5.
#[derive(Debug, Default)]
struct Scope {
    only_users: bool,
    only_authorities: bool,
    /// GeneralNames, one of which a certificate must name as its distribution
    /// point; `None`: no matter which.
    points: Option<Vec<Vec<u8>>>,
}

impl RevocationList {
    /// Reads a CRL.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that follow the file's name. A list that says
    /// what is not understood here is refused whole, because it might revoke
    /// in a way that would be overlooked.
    pub(in crate::tls) fn read(der: &[u8]) -> Result<Self, &'static str> {
        let signed = Signed::read(der).ok_or(MALFORMED)?;
        let mut fields = each_of(signed.fields);
        let version2 = fields.optional(INTEGER)?;
        if version2.is_some_and(|version| version.value != [1]) {
            return Err("a CRL is of an unknown version");
        }
        if fields.required(SEQUENCE)?.value != signed.algorithm {
            return Err(MALFORMED);
        }
        let issuer = fields.required(SEQUENCE)?;
        let this_update = time(&fields.next()?)?;
        let next_update = match fields.tag() {
            Some(UTC_TIME | GENERALIZED_TIME) => Some(time(&fields.next()?)?),
            _ => None,
        };
        let revoked = match fields.optional(SEQUENCE)? {
            Some(entries) => Serials::read(entries.value)?,
            None => Serials::default(),
        };
        let mut scope = Scope::default();
        if let Some(wrapped) = fields.optional(0xa0)? {
            each_extension(wrapped.value, |oid, critical, value| {
                match oid.strip_prefix(&ID_CE) {
                    Some([ISSUING_DISTRIBUTION_POINT]) => scope = Scope::read(value)?,
                    Some([DELTA_INDICATOR]) => {
                        return Err("a CRL is a delta CRL, and only complete ones are understood");
                    }
                    _ if critical => {
                        return Err("a CRL has a critical extension that is not understood");
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        if fields.tag().is_some() {
            return Err(MALFORMED);
        }
        let (_, name) = X509Name::from_der(issuer.whole).map_err(|_| MALFORMED)?;
        Ok(Self {
            issuer: issuer.value.to_vec(),
            issuer_name: identity::rfc2253(&name).unwrap_or_default(),
            this_update,
            next_update,
            scope,
            revoked,
        })
    }

    /// How many certificates are revoked.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.revoked.len()
    }

    /// Whether the issuer has revoked this number.
    pub(super) fn revokes(&self, serial: &[u8]) -> bool {
        self.revoked.contains(serial)
    }

    /// Whether the list speaks of this certificate of its issuer's.
    pub(super) fn covers(&self, certificate: &[u8], is_authority: bool) -> bool {
        let kind = if is_authority {
            !self.scope.only_users
        } else {
            !self.scope.only_authorities
        };
        kind && self.scope.points.as_ref().is_none_or(|points| {
            names_distribution_point(certificate, points).is_ok_and(|names| names)
        })
    }

    /// Whether the issuer has promised a newer one by now.
    pub(super) fn has_expired(&self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.next_update.is_some_and(|next| next < now)
    }

    pub(super) fn is_from_the_future(&self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.this_update > now
    }
}

impl Scope {
    fn read(extension: &[u8]) -> Result<Self, &'static str> {
        let mut scope = Self::default();
        let mut outer = each_of(extension);
        let mut fields = each_of(outer.required(SEQUENCE)?.value);
        while fields.tag().is_some() {
            let field = fields.next()?;
            let is_true = field.value == [0xff];
            match field.tag {
                0xa0 => {
                    let mut name = each_of(field.value);
                    let Some(full) = name.optional(0xa0)? else {
                        return Err("a CRL is for a relative distribution point");
                    };
                    let mut names = each_of(full.value);
                    let mut points = Vec::new();
                    while names.tag().is_some() {
                        points.push(names.next()?.whole.to_vec());
                    }
                    scope.points = Some(points);
                }
                0x81 => scope.only_users = is_true,
                0x82 => scope.only_authorities = is_true,
                0x83 => return Err("a CRL is for some reasons of revocation only"),
                0x84 if is_true => return Err("a CRL is an indirect CRL"),
                0x85 if is_true => return Err("a CRL is for attribute certificates only"),
                0x84 | 0x85 => {}
                _ => return Err(MALFORMED),
            }
        }
        Ok(scope)
    }
}

/// Whether a certificate's cRLDistributionPoints has one of these names.
fn names_distribution_point(certificate: &[u8], points: &[Vec<u8>]) -> Result<bool, &'static str> {
    let (_, parsed) =
        x509_parser::certificate::X509Certificate::from_der(certificate).map_err(|_| MALFORMED)?;
    let oid = [ID_CE[0], ID_CE[1], DISTRIBUTION_POINTS];
    let mut extensions = parsed.extensions().iter();
    let Some(extension) = extensions.find(|ext| ext.oid.as_bytes() == oid) else {
        return Ok(false);
    };
    let mut list = each_of(each_of(extension.value).required(SEQUENCE)?.value);
    while list.tag().is_some() {
        let mut point = each_of(list.required(SEQUENCE)?.value);
        let Some(name) = point.optional(0xa0)? else {
            continue;
        };
        let Some(full) = each_of(name.value).optional(0xa0)? else {
            continue;
        };
        let mut names = each_of(full.value);
        while names.tag().is_some() {
            let name = names.next()?;
            if points.iter().any(|point| point == name.whole) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Serial numbers, those of one length in one sorted table. Numbers of one CA
/// are nearly all of one length, so that is two or three tables, and nothing
/// is kept but the numbers' own bytes.
#[derive(Debug, Default)]
struct Serials {
    /// The length of each number, and the numbers.
    tables: Vec<(usize, Box<[u8]>)>,
}

impl Serials {
    fn read(entries: &[u8]) -> Result<Self, &'static str> {
        let mut found: Vec<&[u8]> = Vec::new();
        let mut entries = each_of(entries);
        while entries.tag().is_some() {
            let mut entry = each_of(entries.required(SEQUENCE)?.value);
            let serial = entry.required(INTEGER)?.value;
            let _date = entry.next()?;
            let mut removed = false;
            if entry.tag().is_some() {
                each_extension(entry.rest(), |oid, critical, value| {
                    match oid.strip_prefix(&ID_CE) {
                        Some([REASON_CODE]) => {
                            let reason = each_of(value).required(ENUMERATED)?;
                            removed = reason.value == [REMOVE_FROM_CRL];
                        }
                        // Among them certificateIssuer, which makes an entry
                        // another CA's.
                        _ if critical => {
                            return Err("a CRL's entry has a critical extension \
                                        that is not understood");
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            if !removed {
                found.push(normal(serial).ok_or(MALFORMED)?);
            }
        }
        found.sort_unstable_by_key(|serial| (serial.len(), *serial));
        found.dedup();
        let tables = found
            .chunk_by(|one, other| one.len() == other.len())
            .filter_map(|same| Some((same.first()?.len(), same.concat().into())))
            .collect();
        Ok(Self { tables })
    }

    fn contains(&self, serial: &[u8]) -> bool {
        let Some(serial) = normal(serial) else {
            return false;
        };
        let size = serial.len();
        let Some((_, table)) = self.tables.iter().find(|(length, _)| *length == size) else {
            return false;
        };
        let (mut low, mut high) = (0, table.len() / size);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(candidate) = table.get(middle * size..(middle + 1) * size) else {
                return false;
            };
            match candidate.cmp(serial) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        false
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let tables = self.tables.iter();
        tables.map(|(length, table)| table.len() / length).sum()
    }
}

/// An INTEGER's content in its shortest form: not every CA writes it in its
/// certificates, and one number must not be two.
fn normal(mut serial: &[u8]) -> Option<&[u8]> {
    while let [first, rest @ ..] = serial
        && let [second, ..] = rest
        && matches!((first, second), (0, 0..=0x7f) | (0xff, 0x80..))
    {
        serial = rest;
    }
    (!serial.is_empty()).then_some(serial)
}

fn each_of(value: &[u8]) -> Fields<'_> {
    Fields::new(value, MALFORMED)
}

/// Calls `each` with every extension of an `Extensions`: its identifier,
/// whether it is critical, and its content.
fn each_extension<'a>(
    extensions: &'a [u8],
    mut each: impl FnMut(&[u8], bool, &'a [u8]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let mut outer = each_of(extensions);
    let mut list = each_of(outer.required(SEQUENCE)?.value);
    if outer.tag().is_some() {
        return Err(MALFORMED);
    }
    while list.tag().is_some() {
        let mut extension = each_of(list.required(SEQUENCE)?.value);
        let oid = extension.required(OBJECT_IDENTIFIER)?;
        let critical = extension.optional(BOOLEAN)?;
        let value = extension.required(OCTET_STRING)?;
        let critical = critical.is_some_and(|flag| flag.value != [0]);
        each(oid.value, critical, value.value)?;
    }
    Ok(())
}

fn time(element: &Tlv<'_>) -> Result<i64, &'static str> {
    let (_, time) = ASN1Time::from_der(element.whole).map_err(|_| MALFORMED)?;
    Ok(time.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_the_same_in_any_encoding() {
        assert_eq!(normal(&[0, 0, 1]), Some(&[1][..]));
        assert_eq!(normal(&[0, 0x80]), Some(&[0, 0x80][..]));
        assert_eq!(normal(&[0xff, 0xff]), Some(&[0xff][..]));
        assert_eq!(normal(&[0]), Some(&[0][..]));
        assert_eq!(normal(&[]), None);
    }

    /// `revokedCertificates` of these numbers, each below 128 bytes.
    fn entries(serials: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for serial in serials {
            let mut entry = vec![INTEGER, serial.len() as u8];
            entry.extend_from_slice(serial);
            entry.extend_from_slice(b"\x17\x0d260101000000Z");
            out.extend_from_slice(&[SEQUENCE, entry.len() as u8]);
            out.extend_from_slice(&entry);
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_listed_is_found_and_nothing_else(
            listed in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..21), 0..60),
            other in proptest::collection::vec(any::<u8>(), 1..21),
        ) {
            let table = Serials::read(&entries(&listed)).expect("well-formed");
            for serial in &listed {
                prop_assert!(table.contains(serial));
            }
            let expected = listed.iter().any(|one| normal(one) == normal(&other));
            prop_assert_eq!(table.contains(&other), expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(RevocationList::read(&bytes).is_err());
            let _ = Serials::read(&bytes);
            let _ = Scope::read(&bytes);
        }
    }
}
