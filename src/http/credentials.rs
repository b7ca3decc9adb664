//! `Authorization: Basic` (RFC 7617), read as Nginx reads it.

/// User and password of a field's value; `None` where there are none. Of the
/// user at least one byte is there, the password may be empty.
#[must_use]
pub fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    const SCHEME: &[u8] = b"Basic ";
    let (scheme, encoded) = value.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let spaces = encoded.iter().take_while(|byte| **byte == b' ').count();
    let mut user = decode_base64(encoded.get(spaces..)?)?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.get(colon + 1..)?.to_vec();
    user.truncate(colon);
    (colon > 0).then_some((user, password))
}

/// Decodes base64 up to its end or its padding; `None` where a byte is not of
/// the alphabet or a whole byte is missing. What stands behind the padding is
/// not looked at, as in Nginx.
#[must_use]
pub fn decode_base64(encoded: &[u8]) -> Option<Vec<u8>> {
    let length = encoded
        .iter()
        .position(|byte| *byte == b'=')
        .unwrap_or(encoded.len());
    let encoded = encoded.get(..length)?;
    if length % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(length / 4 * 3 + 2);
    for group in encoded.chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(digit);
        }
        // Left-aligned in 24 bits; of a short group the last bits mean nothing.
        bits <<= 6 * (4 - group.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        decoded.extend(bytes.into_iter().take(group.len() * 6 / 8));
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Option<(String, String)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        basic(value.as_bytes()).map(|(user, password)| (text(user), text(password)))
    }

    fn pair(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.into(), password.into()))
    }

    #[test]
    fn user_and_password_are_parted_at_the_first_colon() {
        assert_eq!(
            read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            pair("Aladdin", "open sesame")
        );
        assert_eq!(read("bAsIc   YTpiOmM="), pair("a", "b:c"));
        // Without padding, and with an empty password.
        assert_eq!(read("Basic YTpiOmM"), pair("a", "b:c"));
        assert_eq!(read("Basic YTo="), pair("a", ""));
    }

    #[test]
    fn what_is_no_basic_authorization_gives_nobody() {
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic   ",
            "Bearer YTpi",
            "Basic YWJj",
            "Basic OmI=",
            "Basic YT*i",
            "Basic Y",
            "BasicYTpi",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            use base64::Engine;
            let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(decode_base64(encoded.as_bytes()), Some(bytes));
        }

        #[test]
        fn any_value_is_read_or_not(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some((user, _)) = basic(&value) {
                prop_assert!(!user.is_empty());
            }
        }
    }
}
