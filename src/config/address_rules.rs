//! Addresses and networks as the configuration names them, and the rules of
//! `allow` and `deny`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::client_rules::RuleEffect;

/// A network in CIDR notation; one address is a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Address and mask; the address has no bit that the mask has not.
    V4(u32, u32),
    /// The same for IPv6.
    V6(u128, u128),
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNetwork;

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/PREFIX`, and tells whether bits behind the
    /// prefix were set, which mean nothing.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &[u8]) -> Result<(Self, bool), InvalidNetwork> {
        let text = std::str::from_utf8(text).map_err(|_| InvalidNetwork)?;
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
                let prefix = prefix.parse().ok().filter(|_| digits);
                (address, Some(prefix.ok_or(InvalidNetwork)?))
            }
            None => (text, None),
        };
        match address.parse().map_err(|_| InvalidNetwork)? {
            IpAddr::V4(ip) => {
                let mask = mask(prefix, 32)?;
                // A prefix of an IPv4 address fits 32 bits.
                let (ip, mask) = (u32::from(ip), (mask >> 96) as u32);
                Ok((Self::V4(ip & mask, mask), ip & !mask != 0))
            }
            IpAddr::V6(ip) => {
                let (ip, mask) = (u128::from(ip), mask(prefix, 128)?);
                Ok((Self::V6(ip & mask, mask), ip & !mask != 0))
            }
        }
    }

    /// Its first address and the length of its prefix as IPv6 counts them: an
    /// IPv4 network lies among the mapped addresses (RFC 4291 §2.5.5.2).
    pub fn mapped(&self) -> (u128, u8) {
        let ones = |mask: u32| mask.try_into().unwrap_or(128);
        match self {
            Self::V4(address, mask) => (
                Ipv4Addr::from(*address).to_ipv6_mapped().to_bits(),
                96 + ones(mask.count_ones()),
            ),
            Self::V6(address, mask) => (*address, ones(mask.count_ones())),
        }
    }

    /// Whether the address belongs to it. An IPv4 address never belongs to an
    /// IPv6 network, whichever way it is written.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4(network, mask), IpAddr::V4(ip)) => u32::from(ip) & mask == *network,
            (Self::V6(network, mask), IpAddr::V6(ip)) => u128::from(ip) & mask == *network,
            _ => false,
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => Self::V4(ip.into(), u32::MAX),
            IpAddr::V6(ip) => Self::V6(ip.into(), u128::MAX),
        }
    }
}

/// The first `prefix` bits, counted from the left; all `width` without one.
fn mask(prefix: Option<u32>, width: u32) -> Result<u128, InvalidNetwork> {
    let prefix = prefix.unwrap_or(width);
    if prefix > width {
        return Err(InvalidNetwork);
    }
    Ok(u128::MAX.checked_shl(128 - prefix).unwrap_or(0))
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address, mask) => {
                write!(f, "{}/{}", Ipv4Addr::from(*address), mask.count_ones())
            }
            Self::V6(address, mask) => {
                write!(f, "{}/{}", Ipv6Addr::from(*address), mask.count_ones())
            }
        }
    }
}

/// `allow` and `deny` of one block, apart by the kind of address as in Nginx:
/// the first rule of the client's kind that takes it decides, and where none
/// does there is no objection.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    v4: Vec<(Network, RuleEffect)>,
    v6: Vec<(Network, RuleEffect)>,
    /// Peers of Unix sockets have no name, so the first rule takes all.
    unix: Option<RuleEffect>,
}

impl AddressRules {
    /// Adds a rule for some addresses.
    pub fn add(&mut self, network: Network, effect: RuleEffect) {
        match network {
            Network::V4(..) => self.v4.push((network, effect)),
            Network::V6(..) => self.v6.push((network, effect)),
        }
    }

    /// Adds a rule for the peers of Unix sockets.
    pub fn add_unix(&mut self, effect: RuleEffect) {
        self.unix.get_or_insert(effect);
    }

    /// Adds a rule for everybody.
    pub fn add_all(&mut self, effect: RuleEffect) {
        self.v4.push((Network::V4(0, 0), effect));
        self.v6.push((Network::V6(0, 0), effect));
        self.add_unix(effect);
    }

    /// What the rules say of a client; `address` is `None` for the peer of a
    /// Unix socket. An IPv4 client of an IPv6 socket is an IPv4 client, unless
    /// no rule is about those.
    pub fn judge(&self, address: Option<IpAddr>) -> Option<RuleEffect> {
        let Some(address) = address else {
            return self.unix;
        };
        let (rules, address) = match (address, address.to_canonical()) {
            (_, v4 @ IpAddr::V4(_)) if !self.v4.is_empty() => (&self.v4, v4),
            (v6 @ IpAddr::V6(_), _) => (&self.v6, v6),
            (IpAddr::V4(_), _) => return None,
        };
        rules
            .iter()
            .find(|(network, _)| network.contains(address))
            .map(|(_, effect)| *effect)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text.as_bytes()).unwrap().0
    }

    #[test]
    fn networks_are_read_as_nginx_reads_them() {
        for (text, shown, meaningless) in [
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("10.1.2.3/8", "10.0.0.0/8", true),
            ("192.0.2.1", "192.0.2.1/32", false),
            ("1.2.3.4/0", "0.0.0.0/0", true),
            ("0.0.0.0/0", "0.0.0.0/0", false),
            ("2001:db8::/32", "2001:db8::/32", false),
            ("2001:db8::1/64", "2001:db8::/64", true),
            ("::1", "::1/128", false),
            ("::/0", "::/0", false),
        ] {
            let (network, low_bits) = Network::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (network.to_string().as_str(), low_bits),
                (shown, meaningless)
            );
        }
        for text in [
            "",
            "a",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10/8",
            "1.2.3.4/8/8",
        ] {
            assert_eq!(
                Network::parse(text.as_bytes()),
                Err(InvalidNetwork),
                "{text}"
            );
        }
    }

    #[test]
    fn the_first_rule_of_the_kind_decides() {
        let mut rules = AddressRules::default();
        rules.add(network("10.0.0.1"), RuleEffect::Deny);
        rules.add(network("10.0.0.0/8"), RuleEffect::Allow);
        rules.add(network("2001:db8::/32"), RuleEffect::Allow);
        rules.add_all(RuleEffect::Deny);
        let judge = |text: &str| rules.judge(Some(text.parse().unwrap()));
        assert_eq!(judge("10.0.0.1"), Some(RuleEffect::Deny));
        assert_eq!(judge("10.0.0.2"), Some(RuleEffect::Allow));
        assert_eq!(judge("::ffff:10.0.0.2"), Some(RuleEffect::Allow));
        assert_eq!(judge("11.0.0.2"), Some(RuleEffect::Deny));
        assert_eq!(judge("2001:db8::9"), Some(RuleEffect::Allow));
        assert_eq!(judge("2001:db9::9"), Some(RuleEffect::Deny));
        assert_eq!(rules.judge(None), Some(RuleEffect::Deny));
    }

    #[test]
    fn rules_about_one_kind_of_address_say_nothing_of_the_others() {
        let mut rules = AddressRules::default();
        rules.add(network("::/0"), RuleEffect::Deny);
        assert_eq!(rules.judge(Some("192.0.2.1".parse().unwrap())), None);
        assert_eq!(rules.judge(None), None);
        // Without a rule for IPv4 a mapped address is what it looks like.
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(rules.judge(Some(mapped)), Some(RuleEffect::Deny));
    }

    proptest! {
        #[test]
        fn a_network_contains_its_own_address(bits: u128, prefix in 0u32..=128) {
            let text = format!("{}/{prefix}", Ipv6Addr::from(bits));
            let (network, _) = Network::parse(text.as_bytes()).unwrap();
            prop_assert!(network.contains(Ipv6Addr::from(bits).into()));
            if prefix > 0 {
                let other = bits ^ (1 << (128 - prefix));
                prop_assert!(!network.contains(Ipv6Addr::from(other).into()));
            }
        }
    }
}
