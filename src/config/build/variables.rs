//! The variables that a configuration defines: all names first, because a
//! template may stand before the `map` that it names; then what they are.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::location::Head;
use super::values::refuse;
use super::{Builder, Result, rewrite};
use crate::config::address_rules::Network;
use crate::config::regexes::{self, Pattern};
use crate::config::syntax::Directive;
use crate::config::template::{Template, Variable};
use crate::config::variables::{
    Geo, GeoRanges, Map, Networks, SplitClients, UserVariable, ValueSource, VariableId,
    mark_identity,
};

/// All that has been defined so far.
#[derive(Debug, Default)]
pub(super) struct Variables {
    by_name: HashMap<Box<str>, VariableId>,
    all: Vec<UserVariable>,
    /// What is assigned to which, for [`mark_identity`].
    assigned: Vec<(VariableId, Vec<Variable>)>,
    /// What the numbered groups may be parts of, for the same.
    searched: Vec<Variable>,
}

impl Variables {
    pub(super) fn by_name(&self) -> &HashMap<Box<str>, VariableId> {
        &self.by_name
    }

    /// The variable of this name, in lower case; a new one if there is none.
    fn define(&mut self, name: &str) -> VariableId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = self.all.len();
        self.by_name.insert(name.into(), id);
        self.all.push(UserVariable {
            name: name.into(),
            source: ValueSource::Assigned,
            is_identity: false,
        });
        id
    }

    fn set_source(&mut self, id: VariableId, source: ValueSource) {
        if let Some(variable) = self.all.get_mut(id) {
            variable.source = source;
        }
    }

    /// Notes that the variable may hold what these do.
    pub(super) fn assign<'v>(&mut self, id: VariableId, from: impl Iterator<Item = &'v Variable>) {
        self.assigned.push((id, from.cloned().collect()));
    }

    /// Notes that the pattern is searched for in what these hold.
    pub(super) fn search(&mut self, pattern: &Pattern, subject: &Template) {
        for &(_, group) in pattern.named() {
            self.assign(group, subject.variables());
        }
        if pattern.has_groups() {
            self.searched.extend(subject.variables().cloned());
        }
    }

    /// All of them, and whether a numbered group may tell who a client is.
    pub(super) fn finish(mut self) -> (Vec<UserVariable>, bool) {
        let captures_identity = mark_identity(&mut self.all, &self.assigned, &self.searched);
        (self.all, captures_identity)
    }
}

/// Learns every name that the blocks of `http` define, wherever it stands.
pub(super) fn learn(builder: &mut Builder<'_>, directives: &[Directive]) -> Result<()> {
    for d in directives {
        match &*d.name.value {
            b"server_name" => {
                for word in &d.args {
                    if let Some(pattern) = word.value.strip_prefix(b"~") {
                        learn_groups(builder, pattern);
                    }
                }
            }
            b"rewrite" => learn_groups(builder, d.arg(0)),
            b"proxy_redirect" | b"proxy_cookie_domain" | b"proxy_cookie_path" => {
                if let Some((pattern, _)) = regex_key(d.arg(0)) {
                    learn_groups(builder, pattern);
                }
            }
            b"if" => {
                let operators = [b"~".as_slice(), b"~*", b"!~", b"!~*"];
                let operator = d.args.iter().position(|w| operators.contains(&&*w.value));
                if let Some(at) = operator
                    && let Some(word) = d.args.get(at + 1)
                {
                    let is_last = at + 2 == d.args.len();
                    let pattern = word.value.strip_suffix(b")").filter(|_| is_last);
                    learn_groups(builder, pattern.unwrap_or(&word.value));
                }
                learn(builder, d.children())?;
            }
            b"set" | b"auth_request_set" => {
                let name = variable_name(d, 0)?;
                if rewrite::assignable(&name).is_none() {
                    define(builder, d, &name)?;
                }
            }
            b"map" => {
                let name = variable_name(d, 1)?;
                define(builder, d, &name)?;
                for entry in d.children() {
                    if let Some(pattern) = regex_key(&entry.name.value) {
                        learn_groups(builder, pattern.0);
                    }
                }
            }
            b"geo" | b"split_clients" => {
                let name = variable_name(d, d.args.len().saturating_sub(1))?;
                define(builder, d, &name)?;
            }
            b"server" | b"location" | b"limit_except" => {
                if let Some(pattern) = Head::parse(d).ok().and_then(|head| head.pattern()) {
                    learn_groups(builder, pattern);
                }
                learn(builder, d.children())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn learn_groups(builder: &mut Builder<'_>, pattern: &[u8]) {
    for name in regexes::group_names(pattern) {
        if Variable::fixed(&name).is_none() {
            builder.variables.define(&name);
        }
    }
}

fn define(builder: &mut Builder<'_>, d: &Directive, name: &str) -> Result<VariableId> {
    if Variable::fixed(name).is_some() {
        return Err(refuse(d, format!("the duplicate \"{name}\" variable")));
    }
    if Variable::is_not_implemented(name) {
        let message = format!("the \"{name}\" variable is Nginx's own and cannot be set here");
        return Err(refuse(d, message));
    }
    Ok(builder.variables.define(name))
}

/// The argument as the name of a variable: behind `$`, in lower case.
pub(super) fn variable_name(d: &Directive, index: usize) -> Result<String> {
    let text = d.text(index);
    match text.strip_prefix('$') {
        Some(name)
            if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
        {
            Ok(name.to_ascii_lowercase())
        }
        _ => Err(refuse(d, format!("invalid variable name \"{text}\""))),
    }
}

/// The variable that [`learn`] has made of the argument.
pub(super) fn defined(builder: &Builder<'_>, d: &Directive, index: usize) -> Result<VariableId> {
    let name = variable_name(d, index)?;
    let known = builder.variables.by_name.get(name.as_str()).copied();
    known.ok_or_else(|| refuse(d, format!("unknown \"{name}\" variable")))
}

impl Builder<'_> {
    /// A regular expression; its named groups are variables.
    pub(super) fn pattern(&self, d: &Directive, pattern: &[u8], any_case: bool) -> Result<Pattern> {
        let variable = |name: &str| self.variables.by_name.get(name).copied();
        Pattern::compile(pattern, any_case, variable).map_err(|error| refuse(d, error))
    }
}

/// `map SOURCE $variable { … }`.
pub(super) fn map(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    let id = defined(builder, d, 1)?;
    let mut map = Map {
        source: builder.template(d.arg(0), &d.position)?,
        ..Map::default()
    };
    // It says how the others are to be read, wherever it stands.
    map.hostnames = d
        .children()
        .iter()
        .any(|entry| *entry.name.value == *b"hostnames");
    let mut has_default = false;
    for entry in d.children() {
        let key = &*entry.name.value;
        match (key, &*entry.args) {
            (b"hostnames", []) => continue,
            (b"volatile", []) => {
                map.volatile = true;
                continue;
            }
            (_, [_]) if entry.block.is_none() => {}
            _ => return Err(refuse(entry, "invalid number of the map parameters")),
        }
        let value = builder.template(entry.arg(0), &entry.position)?;
        if key == b"default" {
            if std::mem::replace(&mut has_default, true) {
                return Err(refuse(entry, "duplicate default map parameter"));
            }
            map.default = value;
        } else if let Some((pattern, any_case)) = regex_key(key) {
            let pattern = builder.pattern(entry, pattern, any_case)?;
            builder.variables.search(&pattern, &map.source);
            map.regexes.push((pattern, value));
        } else {
            literal_key(&mut map, entry, key, value)?;
        }
    }
    builder
        .variables
        .set_source(id, ValueSource::Map(Box::new(map)));
    Ok(())
}

/// `~PATTERN` or `~*PATTERN`, and whether case matters not.
pub(super) fn regex_key(key: &[u8]) -> Option<(&[u8], bool)> {
    let pattern = key.strip_prefix(b"~")?;
    Some(match pattern.strip_prefix(b"*") {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    })
}

fn literal_key(map: &mut Map, entry: &Directive, key: &[u8], value: Template) -> Result<()> {
    // What would be taken for something else is written behind a backslash.
    let key = key.strip_prefix(b"\\").unwrap_or(key).to_ascii_lowercase();
    let put = |table: &mut HashMap<Box<[u8]>, Template>, key: &[u8]| {
        let previous = table.insert(key.into(), value.clone());
        match previous {
            Some(_) => {
                let key = entry.name.text();
                Err(refuse(entry, format!("conflicting parameter \"{key}\"")))
            }
            None => Ok(()),
        }
    };
    if map.hostnames
        && let Some(parent) = key.strip_prefix(b"*.")
    {
        put(&mut map.leading, parent)
    } else if map.hostnames
        && let Some(parent) = key.strip_prefix(b".")
    {
        put(&mut map.exact, parent)?;
        put(&mut map.leading, parent)
    } else if map.hostnames
        && let Some(stem) = key.strip_suffix(b".*")
    {
        put(&mut map.trailing, stem)
    } else {
        put(&mut map.exact, &key)
    }
}

/// `geo [ADDRESS] $variable { … }`.
pub(super) fn geo(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    let id = defined(builder, d, d.args.len().saturating_sub(1))?;
    let mut geo = Geo {
        source: match d.args.len() {
            1 => None,
            _ => Some(builder.template(d.arg(0), &d.position)?),
        },
        ..Geo::default()
    };
    let as_ranges = d
        .children()
        .iter()
        .any(|entry| *entry.name.value == *b"ranges");
    let mut networks: HashMap<u8, Networks> = HashMap::new();
    let mut ranges: Vec<(u32, u32, Box<[u8]>)> = Vec::new();
    for entry in d.children() {
        let key = entry.name.text();
        let value = || Box::<[u8]>::from(entry.arg(0));
        match (&*key, entry.args.len()) {
            ("ranges", 0) => {}
            ("proxy_recursive", 0) => geo.recursive = true,
            (_, 1) if entry.block.is_some() => {
                return Err(refuse(entry, "invalid number of the geo parameters"));
            }
            ("default", 1) => geo.default = value(),
            ("proxy", 1) => geo.proxies.push(network(builder, entry, &entry.text(0))?),
            ("delete", 1) if as_ranges => {
                let (from, to) = range(entry, &entry.text(0))?;
                ranges.retain(|(known_from, known_to, _)| (*known_from, *known_to) != (from, to));
            }
            ("delete", 1) => {
                let (bits, length) = network(builder, entry, &entry.text(0))?.mapped();
                if let Some(of_length) = networks.get_mut(&length) {
                    of_length.remove(&bits);
                }
            }
            (key, 1) if as_ranges => {
                let (from, to) = range(entry, key)?;
                ranges.push((from, to, value()));
            }
            (key, 1) => {
                let (bits, length) = network(builder, entry, key)?.mapped();
                let of_length = networks.entry(length).or_default();
                if let Some(previous) = of_length.insert(bits, value()) {
                    let (old, new) = (String::from_utf8_lossy(&previous), entry.text(0));
                    let message = format!(
                        "duplicate network \"{key}\", value: \"{new}\", old value: \"{old}\""
                    );
                    builder.warn(&entry.position, message);
                }
            }
            _ => return Err(refuse(entry, "invalid number of the geo parameters")),
        }
    }
    geo.ranges = if as_ranges {
        GeoRanges::Ranges(disjoint(ranges))
    } else {
        let mut lengths: Vec<_> = networks.into_iter().collect();
        lengths.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        GeoRanges::Networks(lengths)
    };
    builder
        .variables
        .set_source(id, ValueSource::Geo(Box::new(geo)));
    Ok(())
}

fn network(builder: &mut Builder<'_>, entry: &Directive, text: &str) -> Result<Network> {
    let Ok((network, inexact)) = Network::parse(text.as_bytes()) else {
        return Err(refuse(entry, format!("invalid network \"{text}\"")));
    };
    if inexact {
        let message = format!("low address bits of \"{text}\" are meaningless");
        builder.warn(&entry.position, message);
    }
    Ok(network)
}

/// `192.0.2.1-192.0.2.9`.
fn range(entry: &Directive, text: &str) -> Result<(u32, u32)> {
    let invalid = || refuse(entry, format!("invalid range \"{text}\""));
    let (from, to) = text.split_once('-').ok_or_else(invalid)?;
    let parse = |address: &str| address.parse::<Ipv4Addr>().map(u32::from);
    match (parse(from), parse(to)) {
        (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
        _ => Err(invalid()),
    }
}

/// Ranges that do not overlap, ascending: of two that do, the later counts.
fn disjoint(ranges: Vec<(u32, u32, Box<[u8]>)>) -> Vec<(std::ops::RangeInclusive<u32>, Box<[u8]>)> {
    let mut done: Vec<(u32, u32, Box<[u8]>)> = Vec::new();
    for (from, to, value) in ranges {
        let mut kept = Vec::with_capacity(done.len() + 2);
        for (known_from, known_to, known) in done {
            if known_from < from {
                kept.push((known_from, known_to.min(from - 1), known.clone()));
            }
            if known_to > to {
                kept.push((known_from.max(to + 1), known_to, known));
            }
        }
        kept.push((from, to, value));
        done = kept;
    }
    done.sort_by_key(|(from, ..)| *from);
    let pairs = done.into_iter().map(|(from, to, value)| (from..=to, value));
    pairs.collect()
}

/// `split_clients SOURCE $variable { PERCENT% VALUE; … * VALUE; }`.
pub(super) fn split_clients(builder: &mut Builder<'_>, d: &Directive) -> Result<()> {
    /// Hundredths of a percent in the whole.
    const WHOLE: u64 = 10_000;
    let id = defined(builder, d, 1)?;
    let source = builder.template(d.arg(0), &d.position)?;
    let mut parts = Vec::new();
    let mut sum = 0;
    for entry in d.children() {
        let [_] = &*entry.args else {
            return Err(refuse(entry, "invalid number of parameters"));
        };
        let value = builder.template(entry.arg(0), &entry.position)?;
        let key = entry.name.text();
        if key == "*" {
            parts.push((None, value));
            continue;
        }
        let share = key
            .strip_suffix('%')
            .and_then(hundredths)
            .filter(|&share| share > 0);
        let share =
            share.ok_or_else(|| refuse(entry, format!("invalid percent value \"{key}\"")))?;
        sum += share;
        if sum > WHOLE {
            return Err(refuse(entry, "percent total is greater than 100%"));
        }
        let last = sum * u64::from(u32::MAX) / WHOLE;
        parts.push((u32::try_from(last).ok(), value));
    }
    builder.variables.set_source(
        id,
        ValueSource::SplitClients(Box::new(SplitClients { source, parts })),
    );
    Ok(())
}

/// A decimal with at most two places, in hundredths.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    if places.len() > 2
        || !whole
            .bytes()
            .chain(places.bytes())
            .all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let whole: u64 = whole.parse().ok().filter(|&whole| whole <= 100)?;
    let places: u64 = format!("{places:0<2}").parse().ok()?;
    Some(whole * 100 + places)
}
