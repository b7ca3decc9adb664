//! What the tests of both roles stand on: one end of a connection, and what its
//! peer's frames bring about there.

use super::super::frame::frame;
use super::*;

/// One end, whose streams are known by their numbers, and all that it has sent.
pub(super) struct End {
    pub(super) core: Connection<u32>,
    pub(super) out: Vec<u8>,
    pub(super) draft: Draft,
}

/// As a test tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Request(u32, bool),
    Malformed,
    /// Stream, status (0 for a head that is too large), whether that is all.
    Answer(u32, u16, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32, Trailers),
    Gone(u32, Why),
    GoAway(u32, u32),
    Room(u32),
    RoomOnConnection,
    RoomForAll,
}

/// Literals that are not indexed.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let fields = fields.iter();
    fields
        .flat_map(|(name, value)| [vec![0], text(name), text(value)].concat())
        .collect()
}

pub(super) fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let parameters = parameters.iter();
    let payload: Vec<u8> = parameters
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// Fields behind a body.
pub(super) fn trailers(fields: &[(&str, &str)]) -> Trailers {
    let mut trailers = Trailers::default();
    for (name, value) in fields {
        trailers.add(name.as_bytes(), value.as_bytes());
    }
    trailers
}

impl End {
    /// A server before the preface.
    pub(super) fn server(limits: Limits) -> Self {
        let mut out = Vec::new();
        Self {
            core: Connection::new(limits, &mut out),
            out,
            draft: Draft::default(),
        }
    }

    /// A client to which the server has not said a word.
    pub(super) fn client(limits: Limits) -> Self {
        let mut out = Vec::new();
        Self {
            core: Connection::client(limits, &mut out),
            out,
            draft: Draft::of_answers(),
        }
    }

    /// What these bytes bring about, and how many of them were used.
    pub(super) fn see_some(&mut self, bytes: &[u8]) -> Result<(Vec<Seen>, usize), Broken> {
        let (mut used, mut seen) = (0, Vec::new());
        loop {
            let (draft, out) = (&mut self.draft, &mut self.out);
            let event = self
                .core
                .next(bytes, &mut used, Duration::ZERO, draft, out)?;
            seen.push(match event {
                None => return Ok((seen, used)),
                Some(Event::Request { stream, ends }) => {
                    self.core.attach(stream, stream);
                    Seen::Request(stream, ends)
                }
                Some(Event::Malformed) => Seen::Malformed,
                Some(Event::Answer { stream, ends }) => {
                    let status = self.draft.answer().map_or(0, |(head, _)| head.status);
                    Seen::Answer(stream, status, ends)
                }
                Some(Event::Data {
                    stream,
                    range,
                    ends,
                }) => Seen::Data(stream, bytes[range].to_vec(), ends),
                Some(Event::Trailers { stream, fields }) => Seen::Trailers(stream, fields),
                Some(Event::Gone { own, why }) => Seen::Gone(own, why),
                Some(Event::GoAway { last, code }) => {
                    seen.push(Seen::GoAway(last, code));
                    while let Some(own) = self.core.take_unprocessed(last) {
                        seen.push(Seen::Gone(own, Why::Unprocessed(code)));
                    }
                    continue;
                }
                Some(Event::Room(stream)) => Seen::Room(stream),
                Some(Event::RoomOnConnection) => Seen::RoomOnConnection,
                Some(Event::RoomForAll) => Seen::RoomForAll,
            });
        }
    }

    /// What these bytes, all of which must be used, bring about.
    pub(super) fn see(&mut self, bytes: &[u8]) -> Result<Vec<Seen>, Broken> {
        let (seen, used) = self.see_some(bytes)?;
        assert_eq!(used, bytes.len());
        Ok(seen)
    }

    /// The frames that have been sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<(Head, Vec<u8>)> {
        let out = std::mem::take(&mut self.out);
        let (mut rest, mut frames) = (&out[..], Vec::new());
        while !rest.is_empty() {
            let head = Head::parse(rest).unwrap();
            let end = HEADER + head.length;
            frames.push((head, rest[HEADER..end].to_vec()));
            rest = &rest[end..];
        }
        frames
    }

    /// The only frame that has been sent is this RST_STREAM.
    pub(super) fn assert_reset(&mut self, stream: u32, reason: Reason, what: &str) {
        let sent = self.sent();
        let [(head, payload)] = &sent[..] else {
            panic!("{what}: {sent:?}");
        };
        assert_eq!(
            (head.kind, head.stream),
            (kind::RST_STREAM, stream),
            "{what}"
        );
        assert_eq!(payload[..], (reason as u32).to_be_bytes(), "{what}");
    }
}
