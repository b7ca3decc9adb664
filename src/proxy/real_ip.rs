//! Whom a request is from, when it comes through proxies that are trusted to
//! say so: `set_real_ip_from` and its kin.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Location, RealIp, RealIpHeader};
use crate::http::head::FieldId;
use crate::net::addr::ClientAddr;

use super::request::{Request, takes_field};

/// Puts the client that a trusted proxy names in the place of the proxy, for
/// this request. Once it has been replaced, that stands.
pub(super) fn apply(request: &mut Request<'_>, location: &Location) {
    let Some(settings) = &location.real_ip else {
        return;
    };
    if request.named_client.is_none() {
        request.named_client = find(request, settings);
    }
}

fn find(request: &Request<'_>, settings: &RealIp) -> Option<ClientAddr> {
    let peer = request.connection.client;
    if !is_trusted(settings, &peer) {
        return None;
    }
    let mut walk = Walk {
        settings,
        client: peer,
    };
    let bytes = request.head_bytes();
    match &settings.header {
        RealIpHeader::ProxyProtocol => {
            let header = request.connection.proxy_header.as_ref()?;
            let (source, _) = header.addresses?;
            Some(ClientAddr::Inet(source))
        }
        RealIpHeader::ForwardedFor => {
            let fields: Vec<_> = request
                .head
                .fields_of(bytes, FieldId::XForwardedFor)
                .collect();
            // From the last, which is the nearest proxy's; without
            // `recursive` that is all there is to it.
            let mut fields = fields.into_iter().rev();
            let mut moved = walk.field(fields.next()?);
            if settings.recursive {
                for field in fields {
                    if moved != Moved::ToTheEnd {
                        break;
                    }
                    match walk.field(field) {
                        Moved::No => break,
                        further => moved = further,
                    }
                }
            }
            (moved != Moved::No).then_some(walk.client)
        }
        RealIpHeader::Field(name) => {
            let limits = request.limits();
            let mut fields = request.head.fields.iter();
            let field = fields.find(|field| {
                let given = field.name.of(bytes);
                given.eq_ignore_ascii_case(name) && takes_field(limits, field.id, given)
            })?;
            let moved = walk.field(field.value.of(bytes));
            (moved != Moved::No).then_some(walk.client)
        }
    }
}

fn is_trusted(settings: &RealIp, client: &ClientAddr) -> bool {
    match client.ip() {
        None => settings.from_unix,
        Some(ip) => settings.from.iter().any(|network| network.contains(ip)),
    }
}

/// A walk from the nearest proxy towards the client.
struct Walk<'a> {
    settings: &'a RealIp,
    /// As far as it has come.
    client: ClientAddr,
}

/// How far a field has led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// Nowhere: its last entry is no address, or nobody asked for it.
    No,
    /// To an entry before which there are others.
    Somewhere,
    /// To its first entry, so that the field before it is next.
    ToTheEnd,
}

impl Walk<'_> {
    /// Reads a field's entries from the last: the first that is no trusted
    /// proxy, or simply the last without `real_ip_recursive`.
    fn field(&mut self, value: &[u8]) -> Moved {
        let mut moved = Moved::No;
        let mut rest = value;
        loop {
            if !is_trusted(self.settings, &self.client) {
                return moved;
            }
            let (before, entry) = last_entry(rest);
            let Some(address) = parse(entry) else {
                return moved;
            };
            self.client = ClientAddr::Inet(address);
            let Some(before) = before else {
                return Moved::ToTheEnd;
            };
            moved = Moved::Somewhere;
            if !self.settings.recursive {
                return moved;
            }
            rest = before;
        }
    }
}

/// The last of the entries, which commas and spaces part, and what stands
/// before it.
fn last_entry(value: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b',');
    let end = value.iter().rposition(|byte| !is_separator(byte));
    let value = value
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default();
    // One at the very beginning parts nothing, and belongs to the entry.
    match value
        .iter()
        .skip(1)
        .rposition(is_separator)
        .map(|at| at + 1)
    {
        Some(separator) => (
            value.get(..separator),
            value.get(separator + 1..).unwrap_or_default(),
        ),
        None => (None, value),
    }
}

/// `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT`; without a port it is 0.
fn parse(entry: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 0));
    }
    let address: SocketAddr = text.parse().ok()?;
    (address.port() > 0 && !text.contains('%')).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Network;

    fn walk(recursive: bool, value: &str) -> (Moved, String) {
        let network = |text: &str| Network::parse(text.as_bytes()).unwrap().0;
        let settings = RealIp {
            from: vec![network("10.0.0.0/8"), network("2001:db8::/32")],
            from_unix: false,
            header: RealIpHeader::ForwardedFor,
            recursive,
        };
        let mut walk = Walk {
            settings: &settings,
            client: ClientAddr::Inet("10.0.0.1:9".parse().unwrap()),
        };
        let moved = walk.field(value.as_bytes());
        (moved, walk.client.to_string())
    }

    #[test]
    fn the_last_entry_counts_and_with_recursion_the_last_that_is_no_proxy() {
        use Moved::*;
        for (value, last, recursive) in [
            ("1.1.1.1", (ToTheEnd, "1.1.1.1"), (ToTheEnd, "1.1.1.1")),
            (
                "1.1.1.1, 2.2.2.2",
                (Somewhere, "2.2.2.2"),
                (Somewhere, "2.2.2.2"),
            ),
            (
                "1.1.1.1,10.0.0.2 , ",
                (Somewhere, "10.0.0.2"),
                (ToTheEnd, "1.1.1.1"),
            ),
            (
                "9.9.9.9, 1.1.1.1, 10.0.0.2",
                (Somewhere, "10.0.0.2"),
                (Somewhere, "1.1.1.1"),
            ),
            (
                "10.0.0.3, 10.0.0.2",
                (Somewhere, "10.0.0.2"),
                (ToTheEnd, "10.0.0.3"),
            ),
            (
                "nonsense, 10.0.0.2",
                (Somewhere, "10.0.0.2"),
                (Somewhere, "10.0.0.2"),
            ),
            (",10.0.0.2", (No, "10.0.0.1"), (No, "10.0.0.1")),
            ("1.1.1.1, nonsense", (No, "10.0.0.1"), (No, "10.0.0.1")),
            ("", (No, "10.0.0.1"), (No, "10.0.0.1")),
            ("::1", (ToTheEnd, "::1"), (ToTheEnd, "::1")),
            (
                "[2001:db8::1]:80, 2001:db8::2",
                (Somewhere, "2001:db8::2"),
                (ToTheEnd, "2001:db8::1"),
            ),
            ("1.1.1.1:80", (ToTheEnd, "1.1.1.1"), (ToTheEnd, "1.1.1.1")),
            ("1.1.1.1:0", (No, "10.0.0.1"), (No, "10.0.0.1")),
        ] {
            let owned = |(moved, address): (Moved, &str)| (moved, address.to_owned());
            assert_eq!(walk(false, value), owned(last), "{value}");
            assert_eq!(walk(true, value), owned(recursive), "{value}");
        }
    }

    proptest! {
        /// Nginx's loops, written as they stand there.
        #[test]
        fn entries_are_parted_as_nginx_parts_them(value in "[12:., ]{0,20}") {
            let bytes = value.as_bytes();
            let is_separator = |at: usize| matches!(bytes[at], b' ' | b',');
            let (mut end, mut at) = (bytes.len(), bytes.len().saturating_sub(1));
            while at > 0 && is_separator(at) {
                (end, at) = (end - 1, at - 1);
            }
            while at > 0 && !is_separator(at) {
                at -= 1;
            }
            let start = if at > 0 { at + 1 } else { 0 };
            let (before, entry) = last_entry(bytes);
            if !(end == 1 && is_separator(0)) {
                prop_assert_eq!(entry, &bytes[start..end]);
            }
            prop_assert_eq!(before, (start > 0).then(|| &bytes[..start - 1]));
        }
    }
}
