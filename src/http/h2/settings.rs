//! SETTINGS (RFC 9113 §6.5): what a peer may say about itself, and what it is
//! told about us.

use super::super::h1::encode::Sink;
use super::flow::MAX_WINDOW;
use super::frame::{Head, MAX_PAYLOAD, Reason, kind};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// RFC 8441 §3.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The window that a stream has when nobody has said anything (§6.9.2).
pub const DEFAULT_WINDOW: u32 = (1 << 16) - 1;
/// Bytes of one parameter.
const PARAMETER: usize = 6;

/// What the peer has said, as far as it matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// For each of its streams at its beginning.
    pub initial_window: u32,
    /// The longest payload that it takes.
    pub max_frame: usize,
    /// Of ours, at a time; that is for servers to say.
    pub max_streams: u32,
    /// Of its HPACK decoder, if it has spoken of it in this frame.
    pub table_size: Option<u32>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            initial_window: DEFAULT_WINDOW,
            max_frame: MAX_PAYLOAD,
            max_streams: u32::MAX,
            table_size: None,
        }
    }
}

impl Peer {
    /// What holds after this payload, whose length is a multiple of six.
    ///
    /// # Errors
    /// The reason for which the connection must end.
    pub fn after(self, payload: &[u8]) -> Result<Self, Reason> {
        let mut new = Self {
            table_size: None,
            ..self
        };
        for parameter in payload.as_chunks::<PARAMETER>().0 {
            let &[n0, n1, v0, v1, v2, v3] = parameter;
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([n0, n1]) {
                HEADER_TABLE_SIZE => {
                    // Where it shrinks and grows again, the smallest counts
                    // too (RFC 7541 §4.2): what follows it does no harm then.
                    let least = new.table_size.map_or(value, |before| before.min(value));
                    new.table_size = Some(least);
                }
                ENABLE_PUSH | ENABLE_CONNECT_PROTOCOL if value > 1 => {
                    return Err(Reason::ProtocolError);
                }
                INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                    return Err(Reason::FlowControlError);
                }
                INITIAL_WINDOW_SIZE => new.initial_window = value,
                MAX_CONCURRENT_STREAMS => new.max_streams = value,
                MAX_FRAME_SIZE => {
                    let size = value as usize;
                    if !(MAX_PAYLOAD..1 << 24).contains(&size) {
                        return Err(Reason::ProtocolError);
                    }
                    new.max_frame = size;
                }
                // What we ask nobody for, and what nobody knows.
                _ => {}
            }
        }
        Ok(new)
    }
}

/// What a peer is told about us.
#[derive(Debug, Clone, Copy)]
pub struct Ours {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub max_streams: u32,
    /// SETTINGS_INITIAL_WINDOW_SIZE.
    pub window: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE.
    pub max_list: u32,
}

impl Ours {
    /// As a server.
    pub(super) fn put(self, out: &mut impl Sink) {
        let streams = (MAX_CONCURRENT_STREAMS, self.max_streams);
        self.put_with(streams, &[(ENABLE_CONNECT_PROTOCOL, 1)], out);
    }

    /// As a client.
    pub(super) fn put_as_client(self, out: &mut impl Sink) {
        self.put_with((ENABLE_PUSH, 0), &[], out);
    }

    fn put_with(self, first: (u16, u32), last: &[(u16, u32)], out: &mut impl Sink) {
        let common = [
            first,
            (INITIAL_WINDOW_SIZE, self.window),
            (MAX_HEADER_LIST_SIZE, self.max_list),
        ];
        let head = Head {
            length: (common.len() + last.len()) * PARAMETER,
            kind: kind::SETTINGS,
            flags: 0,
            stream: 0,
        };
        out.put(&head.bytes());
        for (name, value) in common.iter().chain(last) {
            out.put_all([&name.to_be_bytes(), &value.to_be_bytes()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(parameters: &[(u16, u32)]) -> Vec<u8> {
        let parameters = parameters.iter();
        parameters
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect()
    }

    #[test]
    fn values_out_of_range_end_the_connection() {
        for (parameters, reason) in [
            ([(ENABLE_PUSH, 2)], Reason::ProtocolError),
            ([(INITIAL_WINDOW_SIZE, 1 << 31)], Reason::FlowControlError),
            ([(MAX_FRAME_SIZE, 16_383)], Reason::ProtocolError),
            ([(MAX_FRAME_SIZE, 1 << 24)], Reason::ProtocolError),
            ([(ENABLE_CONNECT_PROTOCOL, 2)], Reason::ProtocolError),
        ] {
            assert_eq!(Peer::default().after(&payload(&parameters)), Err(reason));
        }
    }

    #[test]
    fn the_last_value_counts_and_what_is_unknown_does_not() {
        let said = payload(&[
            (INITIAL_WINDOW_SIZE, 1),
            (INITIAL_WINDOW_SIZE, MAX_WINDOW),
            (0xbeef, 7),
            (MAX_FRAME_SIZE, (1 << 24) - 1),
            (ENABLE_PUSH, 0),
            (HEADER_TABLE_SIZE, 0),
            (HEADER_TABLE_SIZE, 100),
        ]);
        let peer = Peer::default().after(&said).unwrap();
        assert_eq!(peer.initial_window, MAX_WINDOW);
        assert_eq!(peer.max_frame, (1 << 24) - 1);
        assert_eq!(peer.table_size, Some(0));
        assert_eq!(peer.after(&[]).unwrap().table_size, None);
    }
}
