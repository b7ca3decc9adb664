//! What a ServerHello tells that rustls does not.

/// The session id (RFC 5246 §7.4.1.3) of the ServerHello that these bytes begin
/// with, as the server sends them; `None` if they begin with something else.
pub fn session_id(bytes: &[u8]) -> Option<&[u8]> {
    const HANDSHAKE: u8 = 22;
    const SERVER_HELLO: u8 = 2;
    /// Of the record; then of the message, with version and random behind it.
    const HEADERS: usize = 5 + 4 + 2 + 32;
    if bytes.first() != Some(&HANDSHAKE) || bytes.get(5) != Some(&SERVER_HELLO) {
        return None;
    }
    let (&length, rest) = bytes.get(HEADERS..)?.split_first()?;
    rest.get(..usize::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_id_stands_behind_version_and_random() {
        let mut hello = vec![22, 3, 3, 0, 45, 2, 0, 0, 41, 3, 3];
        hello.extend([7; 32]);
        hello.extend([3, 1, 2, 3, 0xc0, 0x2b, 0]);
        assert_eq!(session_id(&hello), Some(&[1, 2, 3][..]));
        for length in 0..47 {
            assert_eq!(session_id(&hello[..length]), None, "{length}");
        }
        hello[5] = 1;
        assert_eq!(session_id(&hello), None);
    }
}
