//! crypt(3) as it was first: 25 times DES over zeroes, with the password as its
//! key and a salt that exchanges bits of DES's expansion (FIPS 46-3). Eight
//! characters count, and a graphics card tries all of them; it is here because
//! password files with it are. No crate that is kept up has it, and the salt is
//! in the middle of the cipher, so it cannot be had from one for DES.

/// The bytes of a stored form: two of salt, eleven of hash.
const STORED: usize = 13;
/// The digits of both, six bits each.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a password file has for this password, with the salt of `stored`; `None`
/// if that is not of this form.
pub(super) fn des_crypt(password: &[u8], stored: &[u8]) -> Option<[u8; STORED]> {
    let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte);
    let all_are_digits = stored.iter().all(|byte| digit(byte).is_some());
    let &[first, second, ..] = stored else {
        return None;
    };
    if stored.len() != STORED || !all_are_digits {
        return None;
    }
    let salt = digit(&first)? as u32 | (digit(&second)? as u32) << 6;
    // Bit 0 of the salt exchanges the first bits of both halves.
    let salt = salt.reverse_bits() >> 8;
    let key = (0..8).fold(0, |key, at| {
        let byte = password.get(at).copied().unwrap_or_default();
        key << 8 | u64::from(byte << 1)
    });
    let keys = schedule(key);
    let block = (0..25).fold(0, |block, _| encrypt(block, &keys, salt));
    let mut text = [first; STORED];
    let digits = (0..11).map(|at| ((u128::from(block) << 2) >> (60 - 6 * at)) as usize & 63);
    for (to, digit) in text.iter_mut().skip(2).zip(digits) {
        *to = DIGITS.get(digit).copied()?;
    }
    *text.get_mut(1)? = second;
    Some(text)
}

/// The bits of `value`, which has `width` of them, in the order of `table`: 1 is
/// the most significant one, as in the standard.
fn permuted(value: u64, width: u8, table: &[u8]) -> u64 {
    let bit = |place: &u8| value >> (width - place) & 1;
    table.iter().fold(0, |out, place| out << 1 | bit(place))
}

/// The keys of the sixteen rounds.
fn schedule(key: u64) -> [u64; 16] {
    const HALF: u64 = (1 << 28) - 1;
    let mut both = permuted(key, 64, &KEY_CHOICE_1);
    SHIFTS.map(|shift| {
        let rotated = |half: u64| (half << shift | half >> (28 - shift)) & HALF;
        both = rotated(both >> 28) << 28 | rotated(both & HALF);
        permuted(both, 56, &KEY_CHOICE_2)
    })
}

fn encrypt(block: u64, keys: &[u64; 16], salt: u32) -> u64 {
    let block = permuted(block, 64, &INITIAL);
    let (mut left, mut right) = ((block >> 32) as u32, block as u32);
    for key in keys {
        (left, right) = (right, left ^ round(right, *key, salt));
    }
    permuted(u64::from(right) << 32 | u64::from(left), 64, &FINAL)
}

fn round(right: u32, key: u64, salt: u32) -> u32 {
    let expanded = permuted(right.into(), 32, &EXPANSION);
    let (high, low) = (expanded >> 24, expanded & 0xff_ffff);
    let exchanged = (high ^ low) & u64::from(salt);
    let mixed = ((high ^ exchanged) << 24 | (low ^ exchanged)) ^ key;
    let chosen = SUBSTITUTION.iter().enumerate().fold(0, |out, (at, table)| {
        let six = mixed >> (42 - 6 * at) & 63;
        // The outer two bits are the row.
        let place = (six & 32) | (six & 1) << 4 | (six >> 1 & 15);
        let four = table.get(place as usize).copied().unwrap_or_default();
        out << 4 | u64::from(four)
    });
    permuted(chosen, 32, &PERMUTATION) as u32
}

const SHIFTS: [u32; 16] = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1];

#[rustfmt::skip]
const INITIAL: [u8; 64] = [
    58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4,
    62, 54, 46, 38, 30, 22, 14, 6, 64, 56, 48, 40, 32, 24, 16, 8,
    57, 49, 41, 33, 25, 17,  9, 1, 59, 51, 43, 35, 27, 19, 11, 3,
    61, 53, 45, 37, 29, 21, 13, 5, 63, 55, 47, 39, 31, 23, 15, 7,
];

#[rustfmt::skip]
const FINAL: [u8; 64] = [
    40, 8, 48, 16, 56, 24, 64, 32, 39, 7, 47, 15, 55, 23, 63, 31,
    38, 6, 46, 14, 54, 22, 62, 30, 37, 5, 45, 13, 53, 21, 61, 29,
    36, 4, 44, 12, 52, 20, 60, 28, 35, 3, 43, 11, 51, 19, 59, 27,
    34, 2, 42, 10, 50, 18, 58, 26, 33, 1, 41,  9, 49, 17, 57, 25,
];

#[rustfmt::skip]
const EXPANSION: [u8; 48] = [
    32,  1,  2,  3,  4,  5,  4,  5,  6,  7,  8,  9,  8,  9, 10, 11,
    12, 13, 12, 13, 14, 15, 16, 17, 16, 17, 18, 19, 20, 21, 20, 21,
    22, 23, 24, 25, 24, 25, 26, 27, 28, 29, 28, 29, 30, 31, 32,  1,
];

#[rustfmt::skip]
const PERMUTATION: [u8; 32] = [
    16, 7, 20, 21, 29, 12, 28, 17,  1, 15, 23, 26,  5, 18, 31, 10,
     2, 8, 24, 14, 32, 27,  3,  9, 19, 13, 30,  6, 22, 11,  4, 25,
];

#[rustfmt::skip]
const KEY_CHOICE_1: [u8; 56] = [
    57, 49, 41, 33, 25, 17,  9,  1, 58, 50, 42, 34, 26, 18,
    10,  2, 59, 51, 43, 35, 27, 19, 11,  3, 60, 52, 44, 36,
    63, 55, 47, 39, 31, 23, 15,  7, 62, 54, 46, 38, 30, 22,
    14,  6, 61, 53, 45, 37, 29, 21, 13,  5, 28, 20, 12,  4,
];

#[rustfmt::skip]
const KEY_CHOICE_2: [u8; 48] = [
    14, 17, 11, 24,  1,  5,  3, 28, 15,  6, 21, 10, 23, 19, 12,  4,
    26,  8, 16,  7, 27, 20, 13,  2, 41, 52, 31, 37, 47, 55, 30, 40,
    51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
];

#[rustfmt::skip]
const SUBSTITUTION: [[u8; 64]; 8] = [
    [
        14,  4, 13,  1,  2, 15, 11,  8,  3, 10,  6, 12,  5,  9,  0,  7,
         0, 15,  7,  4, 14,  2, 13,  1, 10,  6, 12, 11,  9,  5,  3,  8,
         4,  1, 14,  8, 13,  6,  2, 11, 15, 12,  9,  7,  3, 10,  5,  0,
        15, 12,  8,  2,  4,  9,  1,  7,  5, 11,  3, 14, 10,  0,  6, 13,
    ],
    [
        15,  1,  8, 14,  6, 11,  3,  4,  9,  7,  2, 13, 12,  0,  5, 10,
         3, 13,  4,  7, 15,  2,  8, 14, 12,  0,  1, 10,  6,  9, 11,  5,
         0, 14,  7, 11, 10,  4, 13,  1,  5,  8, 12,  6,  9,  3,  2, 15,
        13,  8, 10,  1,  3, 15,  4,  2, 11,  6,  7, 12,  0,  5, 14,  9,
    ],
    [
        10,  0,  9, 14,  6,  3, 15,  5,  1, 13, 12,  7, 11,  4,  2,  8,
        13,  7,  0,  9,  3,  4,  6, 10,  2,  8,  5, 14, 12, 11, 15,  1,
        13,  6,  4,  9,  8, 15,  3,  0, 11,  1,  2, 12,  5, 10, 14,  7,
         1, 10, 13,  0,  6,  9,  8,  7,  4, 15, 14,  3, 11,  5,  2, 12,
    ],
    [
         7, 13, 14,  3,  0,  6,  9, 10,  1,  2,  8,  5, 11, 12,  4, 15,
        13,  8, 11,  5,  6, 15,  0,  3,  4,  7,  2, 12,  1, 10, 14,  9,
        10,  6,  9,  0, 12, 11,  7, 13, 15,  1,  3, 14,  5,  2,  8,  4,
         3, 15,  0,  6, 10,  1, 13,  8,  9,  4,  5, 11, 12,  7,  2, 14,
    ],
    [
         2, 12,  4,  1,  7, 10, 11,  6,  8,  5,  3, 15, 13,  0, 14,  9,
        14, 11,  2, 12,  4,  7, 13,  1,  5,  0, 15, 10,  3,  9,  8,  6,
         4,  2,  1, 11, 10, 13,  7,  8, 15,  9, 12,  5,  6,  3,  0, 14,
        11,  8, 12,  7,  1, 14,  2, 13,  6, 15,  0,  9, 10,  4,  5,  3,
    ],
    [
        12,  1, 10, 15,  9,  2,  6,  8,  0, 13,  3,  4, 14,  7,  5, 11,
        10, 15,  4,  2,  7, 12,  9,  5,  6,  1, 13, 14,  0, 11,  3,  8,
         9, 14, 15,  5,  2,  8, 12,  3,  7,  0,  4, 10,  1, 13, 11,  6,
         4,  3,  2, 12,  9,  5, 15, 10, 11, 14,  1,  7,  6,  0,  8, 13,
    ],
    [
         4, 11,  2, 14, 15,  0,  8, 13,  3, 12,  9,  7,  5, 10,  6,  1,
        13,  0, 11,  7,  4,  9,  1, 10, 14,  3,  5, 12,  2, 15,  8,  6,
         1,  4, 11, 13, 12,  3,  7, 14, 10, 15,  6,  8,  0,  5,  9,  2,
         6, 11, 13,  8,  1,  4, 10,  7,  9,  5,  0, 15, 14,  2,  3, 12,
    ],
    [
        13,  2,  8,  4,  6, 15, 11,  1, 10,  9,  3, 14,  5,  0, 12,  7,
         1, 15, 13,  8, 10,  3,  7,  4, 12,  5,  6, 11,  0, 14,  9,  2,
         7, 11,  4,  1,  9, 12, 14,  2,  0,  6, 10, 13, 15,  3,  5,  8,
         2,  1, 14,  7,  4, 10,  8, 13, 15, 12,  9,  0,  3,  5,  6, 11,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by crypt(3) of Debian.
    const KNOWN: &[(&str, &str)] = &[
        ("", "abmF1QH4PEr.E"),
        ("", "7Kg2XKxbw8AT."),
        ("a", "..4/MD05HLWjI"),
        ("a", "./xT2u5QYaHcU"),
        ("password", "zzXUHfURnGg8I"),
        ("password", "abJnggxhB/yWI"),
        ("12345678", "ab1iBa.N.U2C6"),
        ("12345678", "7KpCWtPFIh6pc"),
        ("12345678x", "./qw5JW./79Vg"),
        ("pässwörd", "zzjOGqaU2D1ew"),
    ];

    #[test]
    fn it_is_what_crypt_of_debian_gives() {
        for (password, stored) in KNOWN {
            let ours = des_crypt(password.as_bytes(), stored.as_bytes());
            assert_eq!(ours.as_ref().map(|text| &text[..]), Some(stored.as_bytes()));
        }
    }

    #[test]
    fn eight_characters_count_and_each_of_them() {
        let hash = |password: &str| des_crypt(password.as_bytes(), b"abJnggxhB/yWI").unwrap();
        assert_eq!(hash("12345678"), hash("123456789"));
        let all = ["12345678", "x2345678", "1234x678", "1234567x", "1234567"].map(hash);
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }

    #[test]
    fn other_forms_are_none_of_its_own() {
        for stored in [
            "",
            "ab",
            "abJnggxhB/yW",
            "abJnggxhB/yWIx",
            "abJnggxhB/y:I",
            "_J9..rasmBYk8",
        ] {
            assert!(
                des_crypt(b"password", stored.as_bytes()).is_none(),
                "{stored}"
            );
        }
    }
}
