//! The variables that a configuration defines: by `map`, `geo`,
//! `split_clients` and `set`, and by the named groups of its regular
//! expressions.
//!
//! Each has a number, by which templates name it. What a variable is worth to a
//! request is found when a template first asks (`proxy::variables`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::address_rules::Network;
use super::regexes::{Groups, Pattern, TooManySteps};
use super::template::{Template, Variable};

/// Index into [`super::Config::variables`].
pub type VariableId = usize;

/// A variable that the configuration defines.
#[derive(Debug)]
pub struct UserVariable {
    /// In lower case, without `$`.
    pub name: Box<str>,
    /// Where its value comes from.
    pub source: ValueSource,
    /// Whether the value may tell who the client proved to be: it is made from
    /// a variable that does.
    pub is_identity: bool,
}

/// Where the value of a [`UserVariable`] comes from.
#[derive(Debug)]
pub enum ValueSource {
    /// It is assigned while the request is served (`set`, a named group), and
    /// empty until then.
    Assigned,
    /// `map`.
    Map(Box<Map>),
    /// `geo`.
    Geo(Box<Geo>),
    /// `split_clients`.
    SplitClients(Box<SplitClients>),
}

/// `map SOURCE $variable { … }`.
#[derive(Debug, Default)]
pub struct Map {
    /// What is looked up.
    pub source: Template,
    /// Evaluated whenever asked for, not once per request.
    pub volatile: bool,
    /// `hostnames`: a final dot of the source does not count, and keys may be
    /// wildcards.
    pub hostnames: bool,
    /// Whole values, in lower case.
    pub exact: HashMap<Box<[u8]>, Template>,
    /// `*.example.org` and `.example.org` as `example.org`, in lower case.
    pub leading: HashMap<Box<[u8]>, Template>,
    /// `www.example.*` as `www.example`, in lower case.
    pub trailing: HashMap<Box<[u8]>, Template>,
    /// `~` and `~*`, in file order.
    pub regexes: Vec<(Pattern, Template)>,
    /// `default`.
    pub default: Template,
}

/// What a [`Map`] says of a value.
#[derive(Debug)]
pub struct Mapped<'a> {
    /// To be evaluated.
    pub value: &'a Template,
    /// The regular expression that matched, and what its groups did.
    pub matched: Option<(&'a Pattern, Groups)>,
}

impl Map {
    /// The first of: the whole value, the longest leading wildcard, the longest
    /// trailing one, the first regular expression, the default. Case counts only
    /// for regular expressions.
    ///
    /// # Errors
    /// [`TooManySteps`].
    pub fn find(&self, source: &[u8]) -> Result<Mapped<'_>, TooManySteps> {
        let whole = match self.hostnames {
            true => source.strip_suffix(b".").unwrap_or(source),
            false => source,
        };
        if let Some(value) = self.find_literal(&whole.to_ascii_lowercase()) {
            return Ok(Mapped {
                value,
                matched: None,
            });
        }
        for (pattern, value) in &self.regexes {
            if let Some(groups) = pattern.groups(source)? {
                return Ok(Mapped {
                    value,
                    matched: Some((pattern, groups)),
                });
            }
        }
        Ok(Mapped {
            value: &self.default,
            matched: None,
        })
    }

    fn find_literal(&self, name: &[u8]) -> Option<&Template> {
        if let Some(value) = self.exact.get(name) {
            return Some(value);
        }
        let dots = || (0..name.len()).filter(|&at| name.get(at) == Some(&b'.'));
        if !self.leading.is_empty()
            && let Some(value) = dots()
                .filter(|&at| at > 0)
                .find_map(|at| self.leading.get(name.get(at + 1..)?))
        {
            return Some(value);
        }
        if self.trailing.is_empty() {
            return None;
        }
        dots()
            .rev()
            .find_map(|at| self.trailing.get(name.get(..at)?))
    }

    /// Every value that it may give, and what it looks at.
    fn templates(&self) -> impl Iterator<Item = &Template> {
        let wildcards = self.leading.values().chain(self.trailing.values());
        let regexes = self.regexes.iter().map(|(_, value)| value);
        [&self.source, &self.default]
            .into_iter()
            .chain(self.exact.values())
            .chain(wildcards)
            .chain(regexes)
    }
}

/// `geo [ADDRESS] $variable { … }`.
#[derive(Debug, Default)]
pub struct Geo {
    /// The address to look up; `None` for the client's.
    pub source: Option<Template>,
    /// What to say.
    pub ranges: GeoRanges,
    /// Where nothing matches.
    pub default: Box<[u8]>,
    /// Peers whose `X-Forwarded-For` is believed: `proxy`.
    pub proxies: Vec<Network>,
    /// `proxy_recursive`: the last address that is no proxy's, not the last.
    pub recursive: bool,
}

/// The values of the networks of one prefix length, by their bits.
pub type Networks = HashMap<u128, Box<[u8]>>;

/// Values by address.
#[derive(Debug)]
pub enum GeoRanges {
    /// CIDR blocks: prefix lengths from the longest, each with its networks. IPv4
    /// blocks stand among those of IPv6 as mapped addresses.
    Networks(Vec<(u8, Networks)>),
    /// `ranges`: disjoint, ascending, IPv4 only.
    Ranges(Vec<(RangeInclusive<u32>, Box<[u8]>)>),
}

impl Default for GeoRanges {
    fn default() -> Self {
        Self::Networks(Vec::new())
    }
}

impl Geo {
    /// The value for an address.
    pub fn find(&self, address: IpAddr) -> &[u8] {
        let found = match &self.ranges {
            GeoRanges::Networks(lengths) => {
                let bits = mapped(address);
                lengths
                    .iter()
                    .find_map(|(length, networks)| networks.get(&(bits & prefix_mask(*length))))
            }
            GeoRanges::Ranges(ranges) => {
                let IpAddr::V4(address) = address.to_canonical() else {
                    return &self.default;
                };
                let bits = u32::from(address);
                let index = ranges.partition_point(|(range, _)| *range.end() < bits);
                ranges
                    .get(index)
                    .filter(|(range, _)| range.contains(&bits))
                    .map(|(_, value)| value)
            }
        };
        found.map_or(&self.default, |value| value)
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn prefix_mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// `split_clients SOURCE $variable { … }`.
#[derive(Debug)]
pub struct SplitClients {
    /// What is hashed.
    pub source: Template,
    /// The last hash of each part; `None` for `*`, the rest.
    pub parts: Vec<(Option<u32>, Template)>,
}

impl SplitClients {
    /// The part that a value falls in.
    pub fn find(&self, source: &[u8]) -> Option<&Template> {
        let hash = murmur_hash2(source);
        self.parts
            .iter()
            .find(|(last, _)| last.is_none_or(|last| hash < last))
            .map(|(_, value)| value)
    }
}

/// MurmurHash2 with seed 0, 32 bits: what Nginx splits by.
fn murmur_hash2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, &byte) in rest.iter().enumerate() {
        hash ^= u32::from(byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Which variables may tell who the client proved to be, and whether the numbered
/// groups may. `assigned` holds, for each assignment, the variable and what goes
/// into it; `searched` is what the groups may be parts of.
pub(crate) fn mark_identity(
    variables: &mut [UserVariable],
    assigned: &[(VariableId, Vec<Variable>)],
    searched: &[Variable],
) -> bool {
    let mut inputs: Vec<HashSet<Variable>> = variables
        .iter()
        .map(|variable| variable.source.inputs())
        .collect();
    for (id, from) in assigned {
        if let Some(inputs) = inputs.get_mut(*id) {
            inputs.extend(from.iter().cloned());
        }
    }
    let mut captures = false;
    // Until nothing changes: each round marks one at least.
    loop {
        let tells = |variable: &Variable| match variable {
            Variable::User(id) => variables.get(*id).is_some_and(|known| known.is_identity),
            Variable::Capture(_) => captures,
            variable => variable.is_identity(),
        };
        let captured = !captures && searched.iter().any(tells);
        let fresh: Vec<_> = variables
            .iter()
            .zip(&inputs)
            .map(|(known, inputs)| !known.is_identity && inputs.iter().any(tells))
            .collect();
        if !captured && !fresh.contains(&true) {
            return captures;
        }
        captures |= captured;
        for (variable, fresh) in variables.iter_mut().zip(fresh) {
            variable.is_identity |= fresh;
        }
    }
}

impl ValueSource {
    fn inputs(&self) -> HashSet<Variable> {
        let of = |template: &Template| template.variables().cloned().collect::<Vec<_>>();
        match self {
            Self::Assigned => HashSet::new(),
            Self::Map(map) => map.templates().flat_map(of).collect(),
            Self::Geo(geo) => geo.source.iter().flat_map(of).collect(),
            Self::SplitClients(split) => {
                let parts = split.parts.iter().map(|(_, value)| value);
                parts.chain([&split.source]).flat_map(of).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Template {
        Template::literal(text.as_bytes())
    }

    fn mapped_to(map: &Map, source: &str) -> String {
        let mapped = map.find(source.as_bytes()).unwrap();
        String::from_utf8(mapped.value.as_literal().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_map_tries_whole_values_then_wildcards_then_regexes_then_the_default() {
        let keys = |list: &[(&str, &str)]| {
            let pairs = list
                .iter()
                .map(|(key, value)| (key.as_bytes().into(), text(value)));
            pairs.collect::<HashMap<_, _>>()
        };
        let map = Map {
            hostnames: true,
            exact: keys(&[("www.example.org", "exact")]),
            leading: keys(&[("example.org", "leading"), ("b.example.org", "longer")]),
            trailing: keys(&[("www.example", "trailing")]),
            regexes: vec![(
                Pattern::compile(b"^x", false, |_| None).unwrap(),
                text("regex"),
            )],
            default: text("default"),
            ..Map::default()
        };
        for (source, value) in [
            ("WWW.example.org", "exact"),
            ("www.example.org.", "exact"),
            ("a.example.org", "leading"),
            ("a.b.example.org", "longer"),
            ("example.org", "default"),
            ("www.example.net", "trailing"),
            ("x", "regex"),
            ("X", "default"),
        ] {
            assert_eq!(mapped_to(&map, source), value, "{source}");
        }
    }

    #[test]
    fn the_longest_network_wins_and_mapped_addresses_are_ipv4() {
        let mut lengths: Vec<(u8, Networks)> = Vec::new();
        for network in ["10.1.0.0/16", "10.0.0.0/8", "2001:db8::/32", "::/0"] {
            let (parsed, _) = Network::parse(network.as_bytes()).unwrap();
            let (bits, length) = parsed.mapped();
            lengths.push((length, [(bits, network.as_bytes().into())].into()));
        }
        lengths.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        let geo = Geo {
            ranges: GeoRanges::Networks(lengths),
            ..Geo::default()
        };
        let find = |address: &str| String::from_utf8(geo.find(address.parse().unwrap()).to_vec());
        assert_eq!(find("10.1.2.3").unwrap(), "10.1.0.0/16");
        assert_eq!(find("::ffff:10.2.2.3").unwrap(), "10.0.0.0/8");
        assert_eq!(find("2001:db8:1::1").unwrap(), "2001:db8::/32");
        assert_eq!(find("192.0.2.1").unwrap(), "::/0");
    }

    #[test]
    fn the_hash_is_murmur_hash_2() {
        // By an implementation made from Austin Appleby's description, seed 0.
        assert_eq!(murmur_hash2(b""), 0);
        assert_eq!(murmur_hash2(b"a"), 0x9268_5f5e);
        assert_eq!(murmur_hash2(b"abcd"), 0x2687_3021);
        assert_eq!(murmur_hash2(b"hello world"), 0x44a8_1419);
    }

    #[test]
    fn identity_shows_through_maps_of_maps() {
        let variable = |name: &str, source: ValueSource| UserVariable {
            name: name.into(),
            source,
            is_identity: false,
        };
        let map_of = |variable: Variable| {
            ValueSource::Map(Box::new(Map {
                source: Template {
                    parts: [super::super::template::Part::Variable(variable)].into(),
                },
                ..Map::default()
            }))
        };
        let mut variables = [
            variable("outer", map_of(Variable::User(1))),
            variable("inner", map_of(Variable::SslClientSDn)),
            variable("other", map_of(Variable::Host)),
            variable("set", ValueSource::Assigned),
        ];
        let searched = [Variable::Host];
        assert!(!mark_identity(
            &mut variables,
            &[(3, vec![Variable::User(0)])],
            &searched
        ));
        assert_eq!(
            variables.map(|variable| variable.is_identity),
            [true, true, false, true]
        );
        // By way of a numbered group.
        let mut variables = [
            variable("map", map_of(Variable::SslClientSDn)),
            variable("set", ValueSource::Assigned),
        ];
        let assigned = [(1, vec![Variable::Capture(1)])];
        assert!(mark_identity(
            &mut variables,
            &assigned,
            &[Variable::User(0)]
        ));
        assert!(variables.iter().all(|variable| variable.is_identity));
    }
}
