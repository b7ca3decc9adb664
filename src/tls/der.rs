//! DER, element by element: as much as certificates' neighbours need, which
//! are lists, keys, stores and responses.

pub(in crate::tls) const BOOLEAN: u8 = 0x01;
pub(in crate::tls) const INTEGER: u8 = 0x02;
pub(in crate::tls) const BIT_STRING: u8 = 0x03;
pub(in crate::tls) const OCTET_STRING: u8 = 0x04;
pub(in crate::tls) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(in crate::tls) const ENUMERATED: u8 = 0x0a;
pub(in crate::tls) const UTC_TIME: u8 = 0x17;
pub(in crate::tls) const GENERALIZED_TIME: u8 = 0x18;
pub(in crate::tls) const SEQUENCE: u8 = 0x30;
pub(in crate::tls) const SET: u8 = 0x31;

/// Elements one behind the other, taken in turn.
#[derive(Clone)]
pub(in crate::tls) struct Fields<'a> {
    rest: &'a [u8],
    /// What is said of whatever is not as it should be.
    malformed: &'static str,
}

impl<'a> Fields<'a> {
    /// Of the content of a constructed element.
    pub(in crate::tls) fn new(content: &'a [u8], malformed: &'static str) -> Self {
        Self {
            rest: content,
            malformed,
        }
    }

    /// Of the next element; `None` at the end.
    pub(in crate::tls) fn tag(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(in crate::tls) fn next(&mut self) -> Result<Tlv<'a>, &'static str> {
        let (element, rest) = tlv(self.rest).ok_or(self.malformed)?;
        self.rest = rest;
        Ok(element)
    }

    pub(in crate::tls) fn required(&mut self, tag: u8) -> Result<Tlv<'a>, &'static str> {
        self.optional(tag)?.ok_or(self.malformed)
    }

    pub(in crate::tls) fn optional(&mut self, tag: u8) -> Result<Option<Tlv<'a>>, &'static str> {
        match self.tag() {
            Some(next) if next == tag => self.next().map(Some),
            _ => Ok(None),
        }
    }

    /// The fields of a constructed element that must come next.
    pub(in crate::tls) fn inner(&mut self, tag: u8) -> Result<Self, &'static str> {
        let element = self.required(tag)?;
        Ok(Self::new(element.value, self.malformed))
    }

    /// A whole number that is not negative and fits.
    pub(in crate::tls) fn number(&mut self) -> Result<u64, &'static str> {
        let value = self.required(INTEGER)?.value;
        number(value).ok_or(self.malformed)
    }

    /// All that has not been taken.
    pub(in crate::tls) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// That nothing follows.
    pub(in crate::tls) fn end(&self) -> Result<(), &'static str> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed)
        }
    }
}

/// The content octets of an INTEGER as a number; `None` for what is negative
/// or longer than eight octets.
fn number(value: &[u8]) -> Option<u64> {
    let significant = match value {
        [0, rest @ ..] => rest,
        [first, ..] if *first < 0x80 => value,
        _ => return None,
    };
    let fits = significant.len() <= 8;
    fits.then(|| {
        significant
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    })
}

/// One element of DER.
pub(in crate::tls) struct Tlv<'a> {
    pub(in crate::tls) tag: u8,
    pub(in crate::tls) value: &'a [u8],
    /// With its header.
    pub(in crate::tls) whole: &'a [u8],
}

/// The content octets of a single element.
pub(in crate::tls) fn content(der: &[u8]) -> Option<&[u8]> {
    let (element, rest) = tlv(der)?;
    rest.is_empty().then_some(element.value)
}

/// The first element, and what follows. Single-byte tags and definite lengths
/// up to four bytes, which is all that a certificate has.
pub(in crate::tls) fn tlv(der: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0_usize, |length, &byte| length << 8 | usize::from(byte));
            (length, rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    let whole = &der[..der.len() - rest.len()];
    (tag & 0x1f != 0x1f).then_some((Tlv { tag, value, whole }, rest))
}

/// An element made of these pieces.
pub(in crate::tls) fn element(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let length: usize = content.iter().map(|piece| piece.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let significant = &bytes[zeros..];
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    }
    content
        .iter()
        .for_each(|piece| out.extend_from_slice(piece));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_checked_against_what_is_there() {
        assert!(tlv(&[0x30, 0x02, 1, 2, 3]).is_some_and(|(_, rest)| rest == [3]));
        assert!(tlv(&[0x30, 0x81, 0x01, 9]).is_some_and(|(one, _)| one.value == [9]));
        for bad in [
            &[0x30][..],
            &[0x30, 0x80],
            &[0x30, 0x02, 1],
            &[0x30, 0x82, 0xff],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x1f, 0x00],
        ] {
            assert!(tlv(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let written = element(
                SEQUENCE,
                &[&vec![7; length / 2], &vec![7; length - length / 2]],
            );
            let (read, rest) = tlv(&written).expect("DER");
            assert_eq!(
                (read.tag, read.value, rest),
                (SEQUENCE, &*vec![7; length], &[][..])
            );
        }
    }

    #[test]
    fn a_number_is_not_negative_and_fits_in_eight_octets() {
        assert_eq!(number(&[0]), Some(0));
        assert_eq!(number(&[0x7f]), Some(127));
        assert_eq!(number(&[0, 0x80]), Some(128));
        assert_eq!(
            number(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Some(u64::MAX)
        );
        for bad in [&[][..], &[0x80], &[1; 9]] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
