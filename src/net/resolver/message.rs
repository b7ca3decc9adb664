//! DNS messages (RFC 1035): a question for the addresses of a name, or for the
//! servers of a service (RFC 2782), and what an answer says about it. The coding is simple-dns'; what is believed of an
//! answer is decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

/// Steps from one alias to the next within an answer.
const MAX_ALIASES: usize = 16;

/// What a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
    Service,
}

impl Family {
    fn record(self) -> TYPE {
        match self {
            Self::Ipv4 => TYPE::A,
            Self::Ipv6 => TYPE::AAAA,
            Self::Service => TYPE::SRV,
        }
    }
}

/// One server of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The lowest is asked first.
    pub priority: u16,
    /// Its share among those of its priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its name, in lower case.
    pub target: Box<str>,
}

/// One thing that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Service(Service),
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// These, for so long; none if the name has none of this family.
    Records(Vec<Record>, Duration),
    /// The name stands for this one, of which the answer says nothing.
    Alias(String, Duration),
    /// The whole answer is to be had over TCP.
    Truncated,
    /// The name server's code.
    Refused(u8),
}

/// Whether this can be asked for: letters, digits, `-` and `_` in labels of 63
/// bytes at the most.
pub(super) fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The bytes of a question; `None` for what is no name.
pub(super) fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(name).ok()?,
        QTYPE::TYPE(family.record()),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.build_bytes_vec().ok()
}

/// Reads an answer to that question; `None` if it is none.
pub(super) fn answer(bytes: &[u8], id: u16, name: &str, family: Family) -> Option<Reply> {
    let packet = Packet::parse(bytes).ok()?;
    let name = Name::new(name).ok()?;
    let [asked] = packet.questions.as_slice() else {
        return None;
    };
    let fits = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && asked.qname == name
        && asked.qtype == QTYPE::TYPE(family.record())
        && asked.qclass == QCLASS::CLASS(CLASS::IN);
    if !fits {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Reply::Truncated);
    }
    // The four bits of the header.
    let code = packet.rcode() as u16 & 15;
    if code != 0 {
        return Some(Reply::Refused(u8::try_from(code).unwrap_or(2)));
    }
    Some(records(&packet, name, family))
}

/// Follows the aliases from the name that was asked for. Records of other
/// names are none of our business, whoever sent them.
fn records<'p>(packet: &'p Packet<'p>, mut name: Name<'p>, family: Family) -> Reply {
    let mut ttl = u32::MAX;
    let all = || {
        let answers = packet.answers.iter();
        answers.filter(|record| record.class == CLASS::IN)
    };
    for aliases in 0..=MAX_ALIASES {
        let mut found = Vec::new();
        let mut alias = None;
        let mut least = ttl;
        for record in all().filter(|record| record.name == name) {
            match (&record.rdata, family) {
                (RData::A(a), Family::Ipv4) => {
                    found.push(Record::Address(Ipv4Addr::from(a.address).into()));
                }
                (RData::AAAA(aaaa), Family::Ipv6) => {
                    found.push(Record::Address(Ipv6Addr::from(aaaa.address).into()));
                }
                (RData::SRV(srv), Family::Service) => found.push(Record::Service(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_string().to_ascii_lowercase().into(),
                })),
                (RData::CNAME(target), _) => alias = Some(target.0.clone()),
                _ => continue,
            }
            least = least.min(record.ttl);
        }
        let valid = Duration::from_secs(least.into());
        match alias {
            _ if !found.is_empty() => return Reply::Records(found, valid),
            Some(alias) => {
                ttl = least;
                name = alias;
            }
            None if aliases == 0 => break,
            None => return Reply::Alias(name.to_string().to_ascii_lowercase(), valid),
        }
    }
    Reply::Records(Vec::new(), Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME, SRV};

    use super::*;

    fn reply(
        name: &str,
        family: Family,
        records: &[(&'static str, u32, RData<'static>)],
    ) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        packet.questions.push(Question::new(
            Name::new_unchecked(name).into_owned(),
            QTYPE::TYPE(family.record()),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        for (owner, ttl, data) in records {
            let owner = Name::new_unchecked(owner);
            packet
                .answers
                .push(ResourceRecord::new(owner, CLASS::IN, *ttl, data.clone()));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn a(last: u32) -> RData<'static> {
        RData::A(A {
            address: 0x7f00_0000 + last,
        })
    }

    fn cname(name: &'static str) -> RData<'static> {
        RData::CNAME(CNAME(Name::new_unchecked(name)))
    }

    fn v4(last: u8) -> Record {
        Record::Address(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn an_answer_gives_the_addresses_of_the_name_and_their_shortest_time() {
        let bytes = reply(
            "a.test",
            Family::Ipv4,
            &[("A.test", 60, a(1)), ("a.test", 30, a(2))],
        );
        assert_eq!(
            answer(&bytes, 7, "a.test", Family::Ipv4),
            Some(Reply::Records(vec![v4(1), v4(2)], Duration::from_secs(30)))
        );
        let data = RData::AAAA(AAAA { address: 1 });
        let bytes = reply("a.test", Family::Ipv6, &[("a.test", 5, data)]);
        assert_eq!(
            answer(&bytes, 7, "a.test", Family::Ipv6),
            Some(Reply::Records(
                vec![Record::Address(Ipv6Addr::LOCALHOST.into())],
                Duration::from_secs(5)
            ))
        );
    }

    #[test]
    fn a_service_has_servers_with_ports_of_their_own() {
        let data = RData::SRV(SRV {
            priority: 1,
            weight: 2,
            port: 8001,
            target: Name::new_unchecked("B.test"),
        });
        let name = "_http._tcp.a.test";
        let bytes = reply(name, Family::Service, &[(name, 7, data)]);
        let service = Service {
            priority: 1,
            weight: 2,
            port: 8001,
            target: "b.test".into(),
        };
        assert_eq!(
            answer(&bytes, 7, name, Family::Service),
            Some(Reply::Records(
                vec![Record::Service(service)],
                Duration::from_secs(7)
            ))
        );
        assert_eq!(answer(&bytes, 7, name, Family::Ipv4), None);
    }

    #[test]
    fn aliases_are_followed_within_the_answer_and_named_beyond_it() {
        let records = [("b.test", 9, a(3)), ("a.test", 60, cname("b.test"))];
        let bytes = reply("a.test", Family::Ipv4, &records);
        assert_eq!(
            answer(&bytes, 7, "a.test", Family::Ipv4),
            Some(Reply::Records(vec![v4(3)], Duration::from_secs(9)))
        );
        let bytes = reply("a.test", Family::Ipv4, &[("a.test", 60, cname("C.test"))]);
        assert_eq!(
            answer(&bytes, 7, "a.test", Family::Ipv4),
            Some(Reply::Alias("c.test".into(), Duration::from_secs(60)))
        );
        // Round in circles.
        let records = [
            ("b.test", 9, cname("a.test")),
            ("a.test", 9, cname("b.test")),
        ];
        let bytes = reply("a.test", Family::Ipv4, &records);
        assert_eq!(
            answer(&bytes, 7, "a.test", Family::Ipv4),
            Some(Reply::Records(Vec::new(), Duration::ZERO))
        );
    }

    #[test]
    fn what_answers_another_question_is_no_answer() {
        let bytes = reply("a.test", Family::Ipv4, &[("a.test", 60, a(1))]);
        assert_eq!(answer(&bytes, 8, "a.test", Family::Ipv4), None);
        assert_eq!(answer(&bytes, 7, "b.test", Family::Ipv4), None);
        assert_eq!(answer(&bytes, 7, "a.test", Family::Ipv6), None);
        let query = question(7, "a.test", Family::Ipv4).unwrap();
        assert_eq!(answer(&query, 7, "a.test", Family::Ipv4), None);
        // Addresses of another name are not taken for this one's.
        let bytes = reply("a.test", Family::Ipv4, &[("evil.test", 60, a(1))]);
        assert_eq!(
            answer(&bytes, 7, "a.test", Family::Ipv4),
            Some(Reply::Records(Vec::new(), Duration::ZERO))
        );
    }

    #[test]
    fn only_names_are_asked_for() {
        for name in ["a", "a-b.c_d.example", "xn--bcher-kva.example"] {
            assert!(
                is_name(name) && question(1, name, Family::Ipv4).is_some(),
                "{name}"
            );
        }
        let long = "a".repeat(64);
        for name in ["", ".", "a..b", "a b", "a\0", "a/b", "é", &long] {
            assert!(!is_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd_to_be_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..128),
            at in 0_usize..64,
        ) {
            let _ = answer(&bytes, 7, "a.test", Family::Ipv4);
            let mut damaged = reply("a.test", Family::Ipv4, &[("a.test", 60, cname("a.test")), ("a.test", 1, a(1))]);
            let at = at % damaged.len();
            for (target, byte) in damaged.iter_mut().skip(at).zip(&bytes) {
                *target = *byte;
            }
            let _ = answer(&damaged, 7, "a.test", Family::Ipv4);
        }
    }
}
