//! TLS records, sealed and opened in place: the record layer after the
//! handshake.
//!
//! rustls makes the keys; its own record layer is not used because it copies
//! each plaintext into a fresh record and that into an output buffer: two
//! passes over every byte beside the cipher's. Here the
//! plaintext already lies in the network buffer, with room round it for what a
//! record adds.
//!
//! TLS 1.3 follows RFC 8446 §5; TLS 1.2 follows RFC 5246 §6.2 with AES-GCM as
//! in RFC 5288 §3 and ChaCha20-Poly1305 as in RFC 7905 §2. No other protection
//! exists here: rustls negotiates no other.

use std::fmt;
use std::hint::black_box;
use std::ops::Range;

use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion};
use zeroize::Zeroizing;

use super::aead::{Algorithm, Key, NONCE, TAG};

/// Bytes that a plaintext needs free in front of it, whatever was negotiated:
/// the record header, and the explicit nonce of TLS 1.2 with AES-GCM.
pub const HEADROOM: usize = HEADER + EXPLICIT_NONCE;

/// Bytes that a plaintext needs free behind it, whatever was negotiated: the
/// inner content type of TLS 1.3, and the tag.
pub const TAILROOM: usize = 1 + TAG;

/// The most plaintext that fits one record, in bytes (RFC 8446 §5.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// The longest record that is received, with its header, in bytes: TLS 1.2
/// allows a payload of 2^14 + 2048 (RFC 5246 §6.2.3), TLS 1.3 less.
pub const MAX_RECORD: usize = HEADER + MAX_PLAINTEXT + 2048;

/// The length of a record's header, in bytes.
pub const HEADER: usize = 5;

/// Records sealed with one AES-GCM key before it is to be replaced. RFC 8446
/// §5.5 allows 2^24.5 full records; rustls also takes 2^24.
const GCM_RECORDS_SOFT: u64 = 1 << 24;

/// Records sealed with one AES-GCM key at which sealing fails: 2^24.5. The
/// distance to the soft limit is what alerts, the KeyUpdate itself and records
/// already being prepared may use.
const GCM_RECORDS_HARD: u64 = 23_726_566;

/// Consecutive records without content that are accepted: each costs us a
/// decryption and brings nothing (OpenSSL has the same bound of 32).
const MAX_EMPTY_RUN: u8 = 32;

const EXPLICIT_NONCE: usize = 8;
/// Of AES-256 and ChaCha20.
pub(in crate::tls) const MAX_KEY: usize = 32;
const TLS12_AAD: usize = 13;
const VERSION: [u8; 2] = [3, 3];

/// Why a record cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// ringwall: the buffer lacks room round the plaintext, or the plaintext
    /// is over [`MAX_PLAINTEXT`].
    Room,
    /// ringwall: rustls negotiated something that this record layer lacks.
    Unsupported,
    /// ringwall: the key has protected as many records as is safe.
    KeyExhausted,
    /// Peer: not a TLS record of the negotiated version.
    Header,
    /// Peer: over the lengths that TLS allows.
    Oversized,
    /// Peer: too short, padding without content type, or an empty record of a
    /// type that must have content.
    Malformed,
    /// Peer: a content type that has no place after the handshake.
    UnexpectedType(ContentType),
    /// Peer: too many records without content.
    EmptyFlood,
    /// Peer or network: the record fails its authentication.
    Decrypt,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room => f.write_str("no room to seal a TLS record"),
            Self::Unsupported => f.write_str("negotiated TLS protection is not supported"),
            Self::KeyExhausted => f.write_str("TLS key has reached its record limit"),
            Self::Header => f.write_str("peer sent something that is no TLS record"),
            Self::Oversized => f.write_str("peer sent an over-long TLS record"),
            Self::Malformed => f.write_str("peer sent a malformed TLS record"),
            Self::UnexpectedType(kind) => {
                write!(f, "peer sent an unexpected TLS record of type {kind:?}")
            }
            Self::EmptyFlood => f.write_str("peer sent too many empty TLS records"),
            Self::Decrypt => f.write_str("peer sent a TLS record that fails authentication"),
        }
    }
}

impl std::error::Error for RecordError {}

/// Makes records of plaintext, under one key.
#[derive(Debug)]
pub struct Sealer {
    keys: Keys,
}

impl Sealer {
    /// A sealer whose next record has the number `sequence`.
    ///
    /// # Errors
    /// [`RecordError::Unsupported`] for a version other than TLS 1.2 and 1.3.
    pub fn new(
        version: ProtocolVersion,
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
    ) -> Result<Self, RecordError> {
        Keys::new(version, sequence, secrets).map(|keys| Self { keys })
    }

    /// The sealer that follows a KeyUpdate: another key of the same kind.
    pub(in crate::tls) fn renewed(&self, material: &KeyMaterial) -> Result<Self, RecordError> {
        let keys = self.keys.renewed(material)?;
        Ok(Self { keys })
    }

    /// Bytes of the key.
    pub(in crate::tls) fn key_len(&self) -> usize {
        self.keys.algorithm.key_len()
    }

    /// Bytes that a record has in front of its plaintext: at most
    /// [`HEADROOM`]. Whoever places plaintexts exactly this far behind the
    /// previous record gets records that lie without gaps.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.keys.protection.header_len()
    }

    /// Bytes that a record has behind its plaintext: at most [`TAILROOM`].
    #[must_use]
    pub fn trailer_len(&self) -> usize {
        self.keys.protection.trailer_len()
    }

    /// Gives up what the next record makes again: see [`Session::rest`].
    ///
    /// [`Session::rest`]: super::session::Session::rest
    pub(in crate::tls) fn rest(&mut self) {
        self.keys.rest();
    }

    /// Whether the key should be replaced now (TLS 1.3) or the connection be
    /// ended (TLS 1.2): its limit is near.
    #[must_use]
    pub fn key_is_worn(&self) -> bool {
        self.keys.sequence >= self.keys.soft_limit()
    }

    /// Makes one record of `buf[plain]`, in place, and returns where in `buf`
    /// the record is.
    ///
    /// # Errors
    /// [`RecordError::Room`] if fewer than [`Self::header_len`] bytes lie
    /// before `plain` or fewer than [`Self::trailer_len`] behind it, or if it
    /// is over [`MAX_PLAINTEXT`]; [`RecordError::KeyExhausted`] at the key's
    /// limit. The buffer is then unchanged.
    pub fn seal_in_place(
        &mut self,
        buf: &mut [u8],
        plain: Range<usize>,
        content: ContentType,
    ) -> Result<Range<usize>, RecordError> {
        let length = plain
            .end
            .checked_sub(plain.start)
            .filter(|&length| length <= MAX_PLAINTEXT)
            .ok_or(RecordError::Room)?;
        let start = plain
            .start
            .checked_sub(self.header_len())
            .ok_or(RecordError::Room)?;
        let end = plain
            .end
            .checked_add(self.trailer_len())
            .ok_or(RecordError::Room)?;
        let record = buf.get_mut(start..end).ok_or(RecordError::Room)?;
        self.keys.check_limit()?;
        self.keys.seal(record, length, content)?;
        self.keys.sequence += 1;
        Ok(start..end)
    }
}

/// Makes plaintext of records, under one key.
#[derive(Debug)]
pub struct Opener {
    keys: Keys,
    /// Consecutive records without content, at most [`MAX_EMPTY_RUN`].
    empty_run: u8,
}

impl Opener {
    /// An opener whose next record has the number `sequence`.
    ///
    /// # Errors
    /// [`RecordError::Unsupported`] for a version other than TLS 1.2 and 1.3.
    pub fn new(
        version: ProtocolVersion,
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
    ) -> Result<Self, RecordError> {
        let keys = Keys::new(version, sequence, secrets)?;
        Ok(Self { keys, empty_run: 0 })
    }

    /// The opener that follows a KeyUpdate: another key of the same kind.
    pub(in crate::tls) fn renewed(&self, material: &KeyMaterial) -> Result<Self, RecordError> {
        let keys = self.keys.renewed(material)?;
        Ok(Self { keys, empty_run: 0 })
    }

    /// Bytes of the key.
    pub(in crate::tls) fn key_len(&self) -> usize {
        self.keys.algorithm.key_len()
    }

    /// Bytes that a record has in front of its plaintext.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.keys.protection.header_len()
    }

    /// The length, with header, of the record that starts at `bytes`; `None`
    /// while its header is incomplete.
    ///
    /// # Errors
    /// What no record of this connection may begin with, without waiting for
    /// the rest of it.
    pub fn record_len(&self, bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, major, minor, high, low] = *header;
        if [major, minor] != VERSION {
            return Err(RecordError::Header);
        }
        let payload = usize::from(u16::from_be_bytes([high, low]));
        let most = match self.keys.protection {
            // After the handshake, everything is disguised as application data.
            Protection::Tls13 if kind != u8::from(ContentType::ApplicationData) => {
                return Err(RecordError::UnexpectedType(kind.into()));
            }
            Protection::Tls13 => MAX_PLAINTEXT + 256,
            Protection::Tls12Gcm | Protection::Tls12ChaCha => {
                match ContentType::from(kind) {
                    ContentType::ApplicationData | ContentType::Alert | ContentType::Handshake => {}
                    other => return Err(RecordError::UnexpectedType(other)),
                }
                MAX_PLAINTEXT + 2048
            }
        };
        if payload > most {
            return Err(RecordError::Oversized);
        }
        Ok(Some(HEADER + payload))
    }

    /// Opens one whole record, header included, in place. Returns what it
    /// carries, and where in `record` that is.
    ///
    /// # Errors
    /// Every error is final: the connection must end, and the record's bytes
    /// are worthless.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), RecordError> {
        if self.record_len(record)? != Some(record.len()) {
            return Err(RecordError::Header);
        }
        if self.keys.sequence == u64::MAX {
            return Err(RecordError::KeyExhausted);
        }
        let (content, plain) = self.keys.open(record)?;
        self.keys.sequence += 1;

        if plain.len() > MAX_PLAINTEXT {
            return Err(RecordError::Oversized);
        }
        if !plain.is_empty() {
            self.empty_run = 0;
        } else if content != ContentType::ApplicationData {
            return Err(RecordError::Malformed); // RFC 8446 §5.1
        } else if self.empty_run == MAX_EMPTY_RUN {
            return Err(RecordError::EmptyFlood);
        } else {
            self.empty_run += 1;
        }
        Ok((content, plain))
    }

    /// As [`Sealer::rest`].
    pub(in crate::tls) fn rest(&mut self) {
        self.keys.rest();
    }

    /// Goes on under a new key, and keeps what was counted under the old.
    pub(in crate::tls) fn replace_keys(&mut self, next: Self) {
        self.keys = next.keys;
    }
}

/// How records are protected: where the nonce comes from, what is
/// authenticated, and where the content type goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    Tls13,
    Tls12Gcm,
    Tls12ChaCha,
}

impl Protection {
    fn header_len(self) -> usize {
        match self {
            Self::Tls13 | Self::Tls12ChaCha => HEADER,
            Self::Tls12Gcm => HEADER + EXPLICIT_NONCE,
        }
    }

    fn trailer_len(self) -> usize {
        match self {
            Self::Tls13 => 1 + TAG,
            Self::Tls12Gcm | Self::Tls12ChaCha => TAG,
        }
    }
}

/// What a key is made of: the key, which is as long as its algorithm says, and
/// the IV.
#[derive(Default)]
pub(in crate::tls) struct KeyMaterial {
    pub(in crate::tls) key: Zeroizing<[u8; MAX_KEY]>,
    pub(in crate::tls) iv: [u8; NONCE],
}

/// One direction's key, and the number of the next record under it.
///
/// [`Key`] wipes what it has of the secret, and rustls the copy that it handed
/// over.
struct Keys {
    /// With its schedule and tables, some 600 bytes; `None` while the
    /// connection rests.
    key: Option<Key>,
    algorithm: Algorithm,
    /// The key itself, which is as long as the algorithm says.
    secret: [u8; MAX_KEY],
    iv: [u8; NONCE],
    protection: Protection,
    /// Never wraps: a record whose number is `u64::MAX` is neither sealed nor
    /// opened. Numbers start at 0 with each key (at 1 in TLS 1.2, after
    /// Finished), so this is also the count of records under the key.
    sequence: u64,
}

impl Keys {
    fn new(
        version: ProtocolVersion,
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
    ) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Algorithm::ChaCha20Poly1305, key, iv)
            }
            _ => return Err(RecordError::Unsupported),
        };
        let protection = match (version, algorithm) {
            (ProtocolVersion::TLSv1_3, _) => Protection::Tls13,
            (ProtocolVersion::TLSv1_2, Algorithm::ChaCha20Poly1305) => Protection::Tls12ChaCha,
            (ProtocolVersion::TLSv1_2, _) => Protection::Tls12Gcm,
            _ => return Err(RecordError::Unsupported),
        };
        let mut secret = [0; MAX_KEY];
        secret
            .get_mut(..key.as_ref().len())
            .ok_or(RecordError::Unsupported)?
            .copy_from_slice(key.as_ref());
        let mut keys = Self {
            key: None,
            algorithm,
            secret,
            iv: iv
                .as_ref()
                .try_into()
                .map_err(|_| RecordError::Unsupported)?,
            protection,
            sequence,
        };
        keys.key()?;
        Ok(keys)
    }

    /// Of the same kind, for records that are numbered anew (RFC 8446 §5.3).
    fn renewed(&self, material: &KeyMaterial) -> Result<Self, RecordError> {
        let mut keys = Self {
            key: None,
            algorithm: self.algorithm,
            secret: *material.key,
            iv: material.iv,
            protection: self.protection,
            sequence: 0,
        };
        keys.key()?;
        Ok(keys)
    }

    /// The key, which is made ready if the connection has rested: about a
    /// microsecond's work.
    fn key(&mut self) -> Result<&Key, RecordError> {
        if self.key.is_none() {
            let secret = self.secret.get(..self.algorithm.key_len());
            let key = Key::new(self.algorithm, secret.unwrap_or_default());
            self.key = Some(key.map_err(|_| RecordError::Unsupported)?);
        }
        self.key.as_ref().ok_or(RecordError::Unsupported)
    }

    /// Gives up what can be made again.
    fn rest(&mut self) {
        self.key = None;
    }

    fn is_gcm(&self) -> bool {
        self.algorithm != Algorithm::ChaCha20Poly1305
    }

    /// ChaCha20-Poly1305 has no limit below that of the numbers themselves.
    fn soft_limit(&self) -> u64 {
        if self.is_gcm() {
            GCM_RECORDS_SOFT
        } else {
            u64::MAX - 1024
        }
    }

    fn check_limit(&self) -> Result<(), RecordError> {
        let limit = if self.is_gcm() {
            GCM_RECORDS_HARD
        } else {
            u64::MAX
        };
        if self.sequence < limit {
            Ok(())
        } else {
            Err(RecordError::KeyExhausted)
        }
    }

    /// The IV with the record's number folded in (RFC 8446 §5.3, RFC 7905 §2).
    /// Numbers never repeat under a key, so neither does this.
    fn nonce(&self) -> [u8; NONCE] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// RFC 5246 §6.2.3.3.
    fn tls12_aad(&self, content: u8, length: usize) -> [u8; TLS12_AAD] {
        let mut aad = [0; TLS12_AAD];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8] = content;
        aad[9..11].copy_from_slice(&VERSION);
        aad[11..].copy_from_slice(&be16(length));
        aad
    }

    /// `record` is exactly as long as the record will be, with `length` bytes
    /// of plaintext behind room for the header.
    fn seal(
        &mut self,
        record: &mut [u8],
        length: usize,
        content: ContentType,
    ) -> Result<(), RecordError> {
        let content = u8::from(content);
        let nonce = self.nonce();
        let payload = record.len() - HEADER;
        let (header, body) = record.split_at_mut(HEADER);
        let [high, low] = be16(payload);
        let sealed = match self.protection {
            Protection::Tls13 => {
                let fixed = [ContentType::ApplicationData.into(), 3, 3, high, low];
                header.copy_from_slice(&fixed);
                let (inner, tag) = body.split_at_mut(length + 1);
                inner[length] = content;
                self.key()?
                    .seal(nonce, &fixed, inner)
                    .map(|made| tag.copy_from_slice(&made))
            }
            Protection::Tls12Gcm | Protection::Tls12ChaCha => {
                header.copy_from_slice(&[content, 3, 3, high, low]);
                let explicit = self.protection.header_len() - HEADER;
                let (explicit, body) = body.split_at_mut(explicit);
                // RFC 5288 §3 leaves the explicit part to the sender; the
                // number folded into a secret start never repeats, and is what
                // rustls used for the records before ours.
                explicit.copy_from_slice(&nonce[NONCE - explicit.len()..]);
                let (inner, tag) = body.split_at_mut(length);
                let aad = self.tls12_aad(content, length);
                self.key()?
                    .seal(nonce, &aad, inner)
                    .map(|made| tag.copy_from_slice(&made))
            }
        };
        sealed.map_err(|_| RecordError::Unsupported)
    }

    fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), RecordError> {
        let start = self.protection.header_len();
        let length = record
            .len()
            .checked_sub(start + TAG)
            .ok_or(RecordError::Malformed)?;
        let (header, body) = record.split_at_mut(start);
        let (inner, tag) = body.split_at_mut(length);
        match self.protection {
            Protection::Tls13 => {
                let nonce = self.nonce();
                self.key()?
                    .open(nonce, header, tag, inner)
                    .map_err(|_| RecordError::Decrypt)?;
                if inner.len() > MAX_PLAINTEXT + 1 {
                    return Err(RecordError::Oversized);
                }
                let end = inner
                    .iter()
                    .rposition(|&byte| byte != 0)
                    .ok_or(RecordError::Malformed)?;
                let content = match ContentType::from(inner[end]) {
                    content @ (ContentType::ApplicationData
                    | ContentType::Alert
                    | ContentType::Handshake) => content,
                    other => return Err(RecordError::UnexpectedType(other)),
                };
                Ok((content, start..start + end))
            }
            Protection::Tls12Gcm | Protection::Tls12ChaCha => {
                let mut nonce = self.nonce();
                if self.protection == Protection::Tls12Gcm {
                    nonce[..4].copy_from_slice(&self.iv[..4]);
                    nonce[4..].copy_from_slice(&header[HEADER..]);
                }
                let aad = self.tls12_aad(header[0], length);
                self.key()?
                    .open(nonce, &aad, tag, inner)
                    .map_err(|_| RecordError::Decrypt)?;
                Ok((ContentType::from(header[0]), start..start + length))
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // `black_box` keeps the compiler from seeing that nobody reads this.
        self.iv.fill(0);
        self.secret.fill(0);
        black_box((&self.iv, &self.secret));
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("protection", &self.protection)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Lengths reach this only below 2^16: [`MAX_PLAINTEXT`] plus what a record
/// adds.
fn be16(length: usize) -> [u8; 2] {
    debug_assert!(u16::try_from(length).is_ok());
    (length as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    const V12: ProtocolVersion = ProtocolVersion::TLSv1_2;
    const V13: ProtocolVersion = ProtocolVersion::TLSv1_3;
    const DATA: ContentType = ContentType::ApplicationData;

    fn secrets() -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Chacha20Poly1305 {
            key: AeadKey::from([7; 32]),
            iv: Iv::new([9; 12]),
        }
    }

    fn gcm() -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Aes256Gcm {
            key: AeadKey::from([7; 32]),
            iv: Iv::new([9; 12]),
        }
    }

    fn kinds() -> [(ProtocolVersion, ConnectionTrafficSecrets); 4] {
        [
            (V13, gcm()),
            (V13, secrets()),
            (V12, gcm()),
            (V12, secrets()),
        ]
    }

    fn seal(sealer: &mut Sealer, plain: &[u8], content: ContentType) -> Vec<u8> {
        let mut buf = vec![0xee; HEADROOM + plain.len() + TAILROOM];
        buf[HEADROOM..HEADROOM + plain.len()].copy_from_slice(plain);
        let range = sealer
            .seal_in_place(&mut buf, HEADROOM..HEADROOM + plain.len(), content)
            .unwrap();
        buf[range].to_vec()
    }

    /// A TLS 1.3 record with any inner plaintext, for what no sealer makes.
    fn raw13(sequence: u64, inner: &[u8]) -> Vec<u8> {
        let mut keys = Keys::new(V13, sequence, &secrets()).unwrap();
        let nonce = keys.nonce();
        let [high, low] = be16(inner.len() + TAG);
        let header = [23, 3, 3, high, low];
        let mut body = inner.to_vec();
        let tag = keys.key().unwrap().seal(nonce, &header, &mut body).unwrap();
        [&header[..], &body, &tag].concat()
    }

    #[test]
    fn records_lie_without_gaps_when_placed_by_their_overhead() {
        for (version, secrets) in kinds() {
            let mut sealer = Sealer::new(version, 0, &secrets).unwrap();
            let mut opener = Opener::new(version, 0, &secrets).unwrap();
            let mut buf = vec![0; 4096];
            let mut end = 0;
            for length in [0, 1, 1000] {
                let start = end + sealer.header_len();
                let range = sealer
                    .seal_in_place(&mut buf, start..start + length, DATA)
                    .unwrap();
                assert_eq!(range.start, end);
                end = range.end;
            }
            let mut rest = &mut buf[..end];
            for length in [0, 1, 1000] {
                let whole = opener.record_len(rest).unwrap().unwrap();
                let (record, next) = rest.split_at_mut(whole);
                let (content, plain) = opener.open(record).unwrap();
                assert_eq!((content, plain.len()), (DATA, length));
                rest = next;
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_connection_that_has_rested_goes_on_where_it_was() {
        for (version, secrets) in kinds() {
            let mut sealer = Sealer::new(version, 0, &secrets).unwrap();
            let mut opener = Opener::new(version, 0, &secrets).unwrap();
            for text in [&b"one"[..], b"two", b"three"] {
                let mut record = seal(&mut sealer, text, DATA);
                let (_, plain) = opener.open(&mut record).unwrap();
                assert_eq!(&record[plain], text);
                sealer.rest();
                opener.rest();
                assert!(sealer.keys.key.is_none() && opener.keys.key.is_none());
            }
        }
    }

    #[test]
    fn sealing_without_room_leaves_the_buffer_alone() {
        for (version, secrets) in kinds() {
            let mut sealer = Sealer::new(version, 0, &secrets).unwrap();
            let (head, tail) = (sealer.header_len(), sealer.trailer_len());
            let mut buf = vec![1; head + 10 + tail];
            for plain in [
                head - 1..head + 10,
                head..head + 11,
                0..usize::MAX,
                usize::MAX - 5..usize::MAX,
                Range { start: 9, end: 8 },
                head..buf.len() + 1,
            ] {
                assert_eq!(
                    sealer.seal_in_place(&mut buf, plain, DATA),
                    Err(RecordError::Room)
                );
            }
            assert!(buf.iter().all(|&byte| byte == 1));
            let mut large = vec![0; HEADROOM + MAX_PLAINTEXT + 1 + TAILROOM];
            let plain = HEADROOM..HEADROOM + MAX_PLAINTEXT + 1;
            assert_eq!(
                sealer.seal_in_place(&mut large, plain, DATA),
                Err(RecordError::Room)
            );
        }
    }

    #[test]
    fn a_key_is_worn_at_its_soft_limit_and_refused_at_its_hard_one() {
        for version in [V12, V13] {
            let mut sealer = Sealer::new(version, GCM_RECORDS_SOFT - 1, &gcm()).unwrap();
            assert!(!sealer.key_is_worn());
            seal(&mut sealer, b"x", DATA);
            assert!(sealer.key_is_worn());

            let mut sealer = Sealer::new(version, GCM_RECORDS_HARD - 1, &gcm()).unwrap();
            seal(&mut sealer, b"x", DATA);
            let mut buf = [0; 64];
            assert_eq!(
                sealer.seal_in_place(&mut buf, 20..21, DATA),
                Err(RecordError::KeyExhausted)
            );
        }
    }

    #[test]
    fn numbers_never_wrap() {
        let mut sealer = Sealer::new(V13, u64::MAX - 1, &secrets()).unwrap();
        let mut opener = Opener::new(V13, u64::MAX - 1, &secrets()).unwrap();
        let mut record = seal(&mut sealer, b"last", DATA);
        opener.open(&mut record).unwrap();
        let mut buf = [0; 64];
        assert_eq!(
            sealer.seal_in_place(&mut buf, 20..21, DATA),
            Err(RecordError::KeyExhausted)
        );
        assert_eq!(
            opener.open(&mut raw13(u64::MAX, b"x\x17")),
            Err(RecordError::KeyExhausted)
        );
    }

    #[test]
    fn padding_is_stripped_and_may_not_be_all_there_is() {
        let mut opener = Opener::new(V13, 0, &secrets()).unwrap();
        let mut record = raw13(0, b"hello\x17\0\0\0\0");
        let (content, plain) = opener.open(&mut record).unwrap();
        assert_eq!((content, &record[plain]), (DATA, &b"hello"[..]));
        assert_eq!(
            opener.open(&mut raw13(1, &[0; 40])),
            Err(RecordError::Malformed)
        );
        let mut opener = Opener::new(V13, 0, &secrets()).unwrap();
        assert_eq!(opener.open(&mut raw13(0, b"")), Err(RecordError::Malformed));
    }

    #[test]
    fn content_types_without_a_place_after_the_handshake_are_refused() {
        let open13 = |inner: &[u8]| {
            Opener::new(V13, 0, &secrets())
                .unwrap()
                .open(&mut raw13(0, inner))
        };
        for kind in [ContentType::ChangeCipherSpec, ContentType::Heartbeat] {
            let inner = [1, u8::from(kind)];
            assert_eq!(open13(&inner), Err(RecordError::UnexpectedType(kind)));
        }
        let opener = Opener::new(V13, 0, &secrets()).unwrap();
        let outside = opener.record_len(&[20, 3, 3, 0, 1]);
        let ccs = ContentType::ChangeCipherSpec;
        assert_eq!(outside, Err(RecordError::UnexpectedType(ccs)));
        let opener = Opener::new(V12, 0, &secrets()).unwrap();
        let outside = opener.record_len(&[20, 3, 3, 0, 1]);
        assert_eq!(outside, Err(RecordError::UnexpectedType(ccs)));
    }

    #[test]
    fn empty_records_are_bounded_and_only_application_data() {
        let mut opener = Opener::new(V13, 0, &secrets()).unwrap();
        let mut number = 0;
        for _ in 0..2 {
            for _ in 0..MAX_EMPTY_RUN {
                assert!(opener.open(&mut raw13(number, b"\x17")).is_ok());
                number += 1;
            }
            assert!(opener.open(&mut raw13(number, b"x\x17")).is_ok());
            number += 1;
        }
        for _ in 0..MAX_EMPTY_RUN {
            opener.open(&mut raw13(number, b"\x17")).unwrap();
            number += 1;
        }
        assert_eq!(
            opener.open(&mut raw13(number, b"\x17")),
            Err(RecordError::EmptyFlood)
        );
        let mut opener = Opener::new(V13, 0, &secrets()).unwrap();
        assert_eq!(
            opener.open(&mut raw13(0, b"\x15")),
            Err(RecordError::Malformed)
        );
    }

    #[test]
    fn over_long_records_are_refused_before_they_are_complete() {
        for (version, most) in [(V13, MAX_PLAINTEXT + 256), (V12, MAX_PLAINTEXT + 2048)] {
            let opener = Opener::new(version, 0, &secrets()).unwrap();
            let header = |length: usize| [23, 3, 3, be16(length)[0], be16(length)[1]];
            let whole = opener.record_len(&header(most));
            assert_eq!(whole, Ok(Some(HEADER + most)));
            let over = opener.record_len(&header(most + 1));
            assert_eq!(over, Err(RecordError::Oversized));
        }
        let mut inner = vec![b'x'; MAX_PLAINTEXT + 1];
        inner.push(23);
        let mut opener = Opener::new(V13, 0, &secrets()).unwrap();
        assert_eq!(
            opener.open(&mut raw13(0, &inner)),
            Err(RecordError::Oversized)
        );
    }

    proptest! {
        #[test]
        fn opening_what_was_sealed_is_the_identity(
            length in prop_oneof![0_usize..300, Just(MAX_PLAINTEXT), 16_000_usize..=MAX_PLAINTEXT],
            sequence in 0_u64..1_000_000,
            flip in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let plain: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
            for (version, secrets) in kinds() {
                let mut sealer = Sealer::new(version, sequence, &secrets).unwrap();
                let mut record = seal(&mut sealer, &plain, DATA);
                prop_assert_eq!(record.len(), length + sealer.header_len() + sealer.trailer_len());

                let mut broken = record.clone();
                let at = flip.index(broken.len());
                broken[at] ^= 1 << bit;
                let mut opener = Opener::new(version, sequence, &secrets).unwrap();
                prop_assert!(opener.open(&mut broken).is_err(), "a flipped bit at {at}");

                let mut opener = Opener::new(version, sequence + 1, &secrets).unwrap();
                let replayed = opener.open(&mut record.clone());
                prop_assert_eq!(replayed, Err(RecordError::Decrypt));

                let mut opener = Opener::new(version, sequence, &secrets).unwrap();
                let (content, range) = opener.open(&mut record).unwrap();
                prop_assert_eq!(content, DATA);
                prop_assert_eq!(&record[range], &plain[..]);
            }
        }

        #[test]
        fn arbitrary_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), framed: bool) {
            for (version, secrets) in kinds() {
                let mut bytes = bytes.clone();
                if framed && bytes.len() >= HEADER {
                    let length = bytes.len() - HEADER;
                    bytes[..HEADER].copy_from_slice(&[23, 3, 3, 0, length as u8]);
                }
                let mut opener = Opener::new(version, 0, &secrets).unwrap();
                prop_assert!(opener.open(&mut bytes).is_err());
            }
        }
    }
}
