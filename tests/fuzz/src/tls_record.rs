//! The record layer that takes over after the handshake: bytes of a peer that
//! has no key never open, what was sealed opens to the same bytes, and one
//! changed bit is enough to refuse it.

use ringwall::tls::record::{HEADROOM, MAX_PLAINTEXT, Opener, Sealer, TAILROOM};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion};

/// The first byte chooses version and cipher, the second and third a bit to
/// change; the rest is what arrives, and then what is sealed.
pub fn tls_record(bytes: &[u8]) {
    let Some((&[choice, high, low], rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let protection = Protection::chosen_by(choice);
    let bit = usize::from(u16::from_be_bytes([high, low]));

    from_a_stranger(&protection, rest);
    let plain = rest.get(..MAX_PLAINTEXT).unwrap_or(rest);
    sealed_and_opened(&protection, plain, bit);
    if protection.version == ProtocolVersion::TLSv1_3 {
        padded(&protection, plain);
    }
}

struct Protection {
    version: ProtocolVersion,
    chacha: bool,
}

impl Protection {
    fn chosen_by(choice: u8) -> Self {
        Self {
            version: if choice & 1 == 0 {
                ProtocolVersion::TLSv1_3
            } else {
                ProtocolVersion::TLSv1_2
            },
            chacha: choice & 2 != 0,
        }
    }

    fn secrets(&self) -> ConnectionTrafficSecrets {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::new([9; 12]));
        if self.chacha {
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
        } else {
            ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        }
    }

    fn opener(&self) -> Opener {
        Opener::new(self.version, 0, &self.secrets()).expect("a protection that exists")
    }

    /// The first record under this key.
    fn seal(&self, plain: &[u8], content: ContentType) -> Vec<u8> {
        let mut sealer =
            Sealer::new(self.version, 0, &self.secrets()).expect("a protection that exists");
        let mut buf = vec![0; HEADROOM + plain.len() + TAILROOM];
        let place = HEADROOM..HEADROOM + plain.len();
        buf[place.clone()].copy_from_slice(plain);
        let record = sealer
            .seal_in_place(&mut buf, place, content)
            .expect("there is room");
        buf[record].to_vec()
    }
}

/// Without the key there is nothing to be had.
fn from_a_stranger(protection: &Protection, bytes: &[u8]) {
    let mut opener = protection.opener();
    if let Ok(Some(length)) = opener.record_len(bytes)
        && let Some(record) = bytes.get(..length)
    {
        assert!(
            opener.open(&mut record.to_vec()).is_err(),
            "a forged record was opened"
        );
    }
}

fn sealed_and_opened(protection: &Protection, plain: &[u8], bit: usize) {
    let record = protection.seal(plain, ContentType::ApplicationData);
    let mut opener = protection.opener();
    assert_eq!(opener.record_len(&record), Ok(Some(record.len())));
    let mut opened = record.clone();
    let (content, place) = opener.open(&mut opened).expect("our own record");
    assert_eq!(content, ContentType::ApplicationData);
    assert_eq!(&opened[place], plain);

    // The same again is another record's number: a replay.
    assert!(
        opener.open(&mut record.clone()).is_err(),
        "a replayed record was opened"
    );

    let mut changed = record;
    let bit = bit % (changed.len() * 8);
    changed[bit / 8] ^= 1 << (bit % 8);
    assert!(
        protection.opener().open(&mut changed).is_err(),
        "a changed record was opened"
    );
}

/// TLS 1.3 hides the content type behind the plaintext and in front of any
/// number of zeros (RFC 8446 §5.4). A record "of type 0" is one whose padding
/// is ours, so that all before it is the input's.
fn padded(protection: &Protection, inner: &[u8]) {
    let mut record = protection.seal(inner, ContentType::from(0));
    let opened = protection.opener().open(&mut record);
    let unpadded = inner
        .iter()
        .rposition(|byte| *byte != 0)
        .map(|last| inner.split_at(last));
    match (opened, unpadded) {
        (Ok((content, place)), Some((plain, rest))) => {
            assert_eq!(rest.first().copied(), Some(u8::from(content)));
            assert_eq!(&record[place], plain);
        }
        (Ok(_), None) => panic!("a record without a content type was opened"),
        // Whether a type has a place after the handshake is not this target's.
        (Err(error), Some((plain, [23, ..]))) => {
            panic!("{} bytes of application data: {error}", plain.len());
        }
        (Err(_), _) => {}
    }
}
