//! Tickets come back from a client that may have written anything into them:
//! only what was sealed here opens, unchanged, under its own scope and key.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ringwall::tls::resumption::{Keys, Scope, TicketKey, TicketKeys, Ticketer};
use rustls::server::ProducesTickets;

/// A ticket begins with the name of its key, bytes.
const NAME: usize = 16;
const OURS: Scope = Scope([1; 32]);
const ANOTHERS: Scope = Scope([2; 32]);

/// The first byte chooses the keys, the next two a bit to change; the rest is
/// a ticket, and then a session to be sealed.
pub fn ticket(bytes: &[u8]) {
    let Some((&[choice, high, low], rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let bit = usize::from(u16::from_be_bytes([high, low]));
    let of = |keys: u8, scope| Ticketer::new(chosen(keys), scope, Duration::from_secs(300));
    let ticketer = of(choice, OURS);

    // A fuzzer sees what is compared in here, and may play a ticket back.
    if !was_sealed(rest) {
        assert_eq!(ticketer.decrypt(rest), None, "sealed by nobody");
    }
    let Some(sealed) = ticketer.encrypt(rest) else {
        // Too long for a ClientHello.
        assert!(rest.len() > 4096, "a session of {} bytes", rest.len());
        return;
    };
    note_sealed(&sealed);
    assert_eq!(ticketer.decrypt(&sealed).as_deref(), Some(rest));
    assert_eq!(of(choice, OURS).decrypt(&sealed).as_deref(), Some(rest));
    assert_eq!(of(choice, ANOTHERS).decrypt(&sealed), None, "another scope");
    assert_eq!(
        of(choice.wrapping_add(1), OURS).decrypt(&sealed),
        None,
        "another key"
    );
    assert!(
        rest.len() < 16 || !sealed[NAME..].windows(16).any(|part| part == &rest[..16]),
        "a session in clear"
    );

    let mut changed = sealed.clone();
    let bit = bit % (changed.len() * 8);
    changed[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(ticketer.decrypt(&changed), None, "bit {bit} changed");
    let cut = bit % sealed.len();
    assert_eq!(ticketer.decrypt(&sealed[..cut]), None, "cut at {cut}");
    assert_eq!(ticketer.decrypt(&sealed[cut.max(1)..]), None, "from {cut}");
    let mut longer = sealed.clone();
    longer.extend_from_slice(rest);
    longer.push(choice);
    assert_eq!(ticketer.decrypt(&longer), None, "with more behind it");
    // The head of one with the end of another.
    if let Some(other) = ticketer.encrypt(rest) {
        note_sealed(&other);
        let at = cut.max(1);
        let spliced = [&sealed[..at], &other[at..]].concat();
        if spliced != sealed && spliced != other {
            assert_eq!(ticketer.decrypt(&spliced), None, "spliced at {at}");
        }
    }
}

/// The tickets that have been sealed in this process, by their hashes.
static SEALED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn note_sealed(ticket: &[u8]) {
    if let Ok(mut sealed) = SEALED.lock() {
        sealed.insert(hash(ticket));
    }
}

fn was_sealed(ticket: &[u8]) -> bool {
    SEALED
        .lock()
        .is_ok_and(|sealed| sealed.contains(&hash(ticket)))
}

fn hash(ticket: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    ticket.hash(&mut hasher);
    hasher.finish()
}

/// Of this process, of files of either length, of both of these. Neighbours
/// have no sealing key in common.
fn chosen(choice: u8) -> Keys {
    static OWN: OnceLock<Arc<TicketKeys>> = OnceLock::new();
    let file = |length: u8, first: u8| -> Arc<TicketKey> {
        let content: Vec<u8> = (first..first + length).collect();
        Arc::new(TicketKey::from_file(&content).expect("a length that there is"))
    };
    match choice % 4 {
        0 => {
            let own = || Arc::new(TicketKeys::new().expect("randomness"));
            Arc::clone(OWN.get_or_init(own)).into()
        }
        1 => vec![file(48, 0)].into(),
        2 => vec![file(80, 100)].into(),
        _ => vec![file(48, 50), file(80, 150)].into(),
    }
}
