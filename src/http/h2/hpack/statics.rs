//! The fields that every table begins with (RFC 7541 appendix A).

/// From index 1 on.
#[rustfmt::skip]
const FIELDS: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// How many there are. The first field that was sent has the index after.
pub(super) const COUNT: usize = FIELDS.len();

/// The first index of those that have a value.
const METHOD: usize = 2;
const PATH: usize = 4;
const SCHEME: usize = 6;
pub(super) const STATUS: usize = 8;
const ACCEPT_ENCODING: usize = 16;

/// The field with an index from 1 on.
#[inline]
pub(super) fn get(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = FIELDS.get(index.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// The index of a field, `first` being the first of its name.
#[inline]
pub(super) fn find(first: usize, value: &[u8]) -> Option<usize> {
    let last = match first {
        METHOD | PATH | SCHEME => first + 1,
        STATUS => STATUS + 6,
        ACCEPT_ENCODING => first,
        // All others are without a value.
        _ => return value.is_empty().then_some(first),
    };
    (first..=last).find(|index| get(*index).is_some_and(|field| field.1 == value))
}

/// The index of a final status that is there.
#[inline]
pub(super) fn status(status: u16) -> Option<u8> {
    Some(match status {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_first_name() {
        for index in 1..=COUNT {
            let (name, value) = get(index).unwrap();
            let first = (1..=COUNT).find(|&at| get(at).unwrap().0 == name).unwrap();
            assert_eq!(find(first, value), Some(index));
            assert_eq!(find(first, b"another"), None);
        }
        assert_eq!((get(0), get(COUNT + 1)), (None, None));
    }

    #[test]
    fn a_status_has_the_index_of_its_field() {
        for code in 0..=1000 {
            let text = code.to_string();
            let found = find(STATUS, text.as_bytes());
            assert_eq!(status(code).map(usize::from), found, "{code}");
        }
    }
}
