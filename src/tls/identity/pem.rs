//! A certificate in text.

/// Characters of base64 in a line of PEM (RFC 7468 §2).
const LINE: usize = 64;

/// `$ssl_client_raw_cert`: PEM as OpenSSL writes it.
pub fn pem(certificate: &[u8]) -> String {
    let body = base64(certificate);
    let mut out = String::with_capacity(body.len() + body.len() / LINE + 64);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// `$ssl_client_escaped_cert`: percent-encoded but for what RFC 3986 calls
/// unreserved. Envoy's URL-encoded PEM is the same.
pub fn escaped(pem: &str) -> String {
    let mut out = String::with_capacity(pem.len() + pem.len() / 8);
    for byte in pem.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            super::hex(&mut out, byte);
        }
    }
    out
}

/// RFC 4648 §4, with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_usize {
            if digit <= three.len() {
                let index = bits >> (18 - 6 * digit) & 63;
                out.push(char::from(ALPHABET[index as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn pem_is_cut_into_lines_and_escaped_as_nginx_does_it() {
        assert_eq!(
            pem(&[1; 49]),
            "-----BEGIN CERTIFICATE-----\n\
             AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\nAQ==\n\
             -----END CERTIFICATE-----\n"
        );
        assert_eq!(
            escaped(&pem(&[0xfb, 0xff])),
            "-----BEGIN%20CERTIFICATE-----%0A%2B%2F8%3D%0A-----END%20CERTIFICATE-----%0A"
        );
    }

    proptest! {
        #[test]
        fn writing_and_reading_is_the_identity(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let text = pem(&bytes);
            let read = CertificateDer::from_pem_slice(text.as_bytes()).expect("PEM");
            prop_assert_eq!(&read[..], &bytes[..]);
        }
    }
}
