//! The hash over a handshake's messages (RFC 8446 §4.4.1), less what rustls
//! hashes for nothing.
//!
//! It hashes a ClientHello that brings a session twice: as far as the binders,
//! to verify them, and then whole. Here the second goes on where the first has
//! ended, which the handshake's [`Memory`](super::hkdf::Memory) knows. And it adds
//! every ticket that it issues, though nothing is made of the hash any more: here
//! a ticket waits until somebody asks.

use aws_lc_rs::digest;
use rustls::crypto::hash::{Context, Hash, HashAlgorithm, Output};

use super::hkdf::Memory;

/// The first byte of a NewSessionTicket (RFC 8446 §4).
const NEW_SESSION_TICKET: u8 = 4;
/// What is shorter than the larger hash's block is hashed in no time.
const WORTH_REMEMBERING: usize = 128;

pub(super) static SHA256: Transcript = Transcript {
    algorithm: &digest::SHA256,
    name: HashAlgorithm::SHA256,
};
pub(super) static SHA384: Transcript = Transcript {
    algorithm: &digest::SHA384,
    name: HashAlgorithm::SHA384,
};

/// Hashes the handshakes of one suite.
pub(super) struct Transcript {
    algorithm: &'static digest::Algorithm,
    name: HashAlgorithm,
}

impl Hash for Transcript {
    fn start(&self) -> Box<dyn Context> {
        Box::new(Running {
            hash: digest::Context::new(self.algorithm),
            place: Place::Beginning,
            tickets: Vec::new(),
        })
    }

    fn hash(&self, data: &[u8]) -> Output {
        Output::new(digest::digest(self.algorithm, data).as_ref())
    }

    fn output_len(&self) -> usize {
        self.algorithm.output_len()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.name
    }
}

/// A beginning that was hashed to see what the hash would be.
pub(super) struct Tried {
    bytes: Box<[u8]>,
    hash: digest::Context,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing has been hashed.
    Beginning,
    /// The same, in a fork: what is hashed there comes again.
    TriedBeginning,
    Later,
}

struct Running {
    hash: digest::Context,
    place: Place,
    /// Added, but not hashed yet. All tickets, one behind the other.
    tickets: Vec<u8>,
}

impl Running {
    fn copy(&self) -> Self {
        Self {
            hash: self.hash.clone(),
            place: match self.place {
                Place::Later => Place::Later,
                Place::Beginning | Place::TriedBeginning => Place::TriedBeginning,
            },
            tickets: self.tickets.clone(),
        }
    }

    fn catch_up(&mut self) {
        if !self.tickets.is_empty() {
            self.hash.update(&std::mem::take(&mut self.tickets));
        }
    }

    fn begin(&mut self, data: &[u8]) {
        let tries = self.place == Place::TriedBeginning;
        self.place = Place::Later;
        if data.len() < WORTH_REMEMBERING {
            return self.hash.update(data);
        }
        let same = |tried: &Tried| tried.hash.algorithm() == self.hash.algorithm();
        let tried = Memory::recall_beginning(|tried| same(tried) && data.starts_with(&tried.bytes));
        let rest = match tried {
            Some(tried) => {
                self.hash = tried.hash;
                data.get(tried.bytes.len()..).unwrap_or_default()
            }
            None => data,
        };
        self.hash.update(rest);
        if tries {
            Memory::keep_beginning(|| Tried {
                bytes: data.into(),
                hash: self.hash.clone(),
            });
        }
    }

    fn end(mut self) -> Output {
        self.catch_up();
        Output::new(self.hash.finish().as_ref())
    }
}

impl Context for Running {
    fn fork_finish(&self) -> Output {
        self.copy().end()
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(self.copy())
    }

    fn finish(self: Box<Self>) -> Output {
        self.end()
    }

    fn update(&mut self, data: &[u8]) {
        if self.place != Place::Later && !data.is_empty() {
            return self.begin(data);
        }
        if let Some(&NEW_SESSION_TICKET) = data.first() {
            return self.tickets.extend_from_slice(data);
        }
        self.catch_up();
        self.hash.update(data);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Update(Vec<u8>),
        HashGiven(Vec<u8>),
        Current,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = prop_oneof![
            Just(Vec::new()),
            proptest::collection::vec(0_u8..6, 1..4),
            (0_usize..400).prop_map(|length| vec![1; length]),
            (0_usize..400).prop_map(|length| vec![NEW_SESSION_TICKET; length]),
        ];
        let step = prop_oneof![
            bytes.clone().prop_map(Step::Update),
            bytes.prop_map(Step::HashGiven),
            Just(Step::Current),
        ];
        proptest::collection::vec(step, 0..8)
    }

    fn outputs(hash: &dyn Hash, steps: &[Step]) -> Vec<Vec<u8>> {
        let mut transcript = hash.start();
        let mut outputs: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Update(bytes) => transcript.update(bytes),
                Step::Current => outputs.push(transcript.fork_finish().as_ref().into()),
                Step::HashGiven(bytes) => {
                    let mut fork = transcript.fork();
                    fork.update(bytes);
                    outputs.push(fork.finish().as_ref().into());
                }
            }
        }
        outputs.push(transcript.finish().as_ref().into());
        outputs
    }

    fn expected(hash: &Transcript, steps: &[Step]) -> Vec<Vec<u8>> {
        let digest = |bytes: &[u8]| digest::digest(hash.algorithm, bytes).as_ref().to_vec();
        let mut all = Vec::new();
        let mut outputs = Vec::new();
        for step in steps {
            match step {
                Step::Update(bytes) => all.extend_from_slice(bytes),
                Step::Current => outputs.push(digest(&all)),
                Step::HashGiven(bytes) => outputs.push(digest(&[&*all, bytes].concat())),
            }
        }
        outputs.push(digest(&all));
        outputs
    }

    proptest! {
        #[test]
        fn the_hash_is_that_of_all_messages_whatever_was_asked_in_between(steps in steps()) {
            let mut memory = Memory::default();
            for hash in [&SHA256, &SHA384] {
                let expected = expected(hash, &steps);
                prop_assert_eq!(&outputs(hash, &steps), &expected);
                for _ in 0..2 {
                    prop_assert_eq!(&memory.during(|| outputs(hash, &steps)), &expected);
                }
            }
        }
    }

    #[test]
    fn a_beginning_that_was_tried_is_not_hashed_again() {
        let hello = [1; 300];
        let mut memory = Memory::default();
        memory.during(|| {
            let mut transcript = SHA384.start();
            let mut trial = transcript.fork();
            trial.update(&hello[..200]);
            // Another hash has another beginning, and so have other bytes.
            SHA256.start().update(&hello);
            SHA384.start().update(&[2; 300]);
            assert!(Memory::has_beginning());
            transcript.update(&hello);
            assert!(!Memory::has_beginning());
            assert_eq!(transcript.finish().as_ref(), SHA384.hash(&hello).as_ref());
        });
    }

    #[test]
    fn a_ticket_is_hashed_when_somebody_asks() {
        let mut running = Running {
            hash: digest::Context::new(&digest::SHA384),
            place: Place::Later,
            tickets: Vec::new(),
        };
        let ticket = [NEW_SESSION_TICKET; 500];
        running.update(&ticket[..200]);
        running.update(&ticket[200..]);
        assert_eq!(running.tickets, ticket);
        let hashed = running.fork_finish();
        assert_eq!(running.tickets, ticket);
        running.update(b"x");
        assert!(running.tickets.is_empty());
        assert_eq!(hashed.as_ref(), SHA384.hash(&ticket).as_ref());
    }
}
