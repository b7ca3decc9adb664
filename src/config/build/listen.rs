//! `listen`: addresses, and who answers on them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::upstream::split_parameter;
use super::url::{self, Target, Url};
use super::values::{invalid_parameter, not_implemented, refuse};
use super::{Builder, Result};
use crate::config::error::Error;
use crate::config::model::{ListenAddress, Listener, Position, ServerId, SoKeepalive};
use crate::config::server_names::{Conflict, NamePattern, ServerNames};
use crate::config::syntax::Directive;
use crate::config::units;

/// `backlog=` where it is not given, as in Nginx on Linux.
const DEFAULT_BACKLOG: i32 = 511;

/// What stands behind an address.
#[derive(Debug, Clone, Copy, Default)]
struct ListenOptions {
    ssl: bool,
    http2: bool,
    proxy_protocol: bool,
    default_server: bool,
    backlog: Option<i32>,
    reuseport: bool,
    ipv6only: Option<bool>,
    so_keepalive: Option<SoKeepalive>,
    deferred: bool,
    /// Options of the socket, which one server alone may give.
    set: bool,
}

/// All addresses, in the order in which they are first named.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: Vec<Draft>,
    /// Where in `all` an address is: a range of ports makes many.
    by_address: HashMap<ListenAddress, usize>,
}

/// One name of a server.
#[derive(Debug)]
pub(super) struct ServerName {
    /// `None` for what no lookup can find, such as `a.*.b`.
    pub(super) pattern: Option<NamePattern>,
    /// As written, in lower case; a regular expression with its `~`.
    pub(super) text: Box<str>,
    pub(super) position: Position,
}

#[derive(Debug)]
struct Draft {
    address: ListenAddress,
    options: ListenOptions,
    position: Position,
    /// Whom the address belongs to, in file order.
    servers: Vec<ServerId>,
    default_server: Option<ServerId>,
}

impl Draft {
    fn default_server(&self) -> ServerId {
        self.default_server
            .or_else(|| self.servers.first().copied())
            .unwrap_or_default()
    }

    fn enter(
        &self,
        builder: &mut Builder<'_>,
        hosts: &mut ServerNames,
        name: &ServerName,
        server: ServerId,
    ) -> Result<()> {
        let (text, address) = (&name.text, &self.address);
        let Some(pattern) = &name.pattern else {
            // Nginx looks at names only where there is a choice to make, and
            // takes any name for a server that has its address for itself.
            if self.servers.len() == 1 {
                return Ok(());
            }
            let message = format!("invalid server name or wildcard \"{text}\" on {address}");
            return Err(Error::at(&name.position, message));
        };
        if let Err(Conflict) = hosts.insert(pattern, server) {
            let message = format!("conflicting server name \"{text}\" on {address}, ignored");
            builder.warn(&name.position, message);
        }
        Ok(())
    }
}

impl Listeners {
    /// One `listen` directive of a server.
    pub(super) fn add(
        &mut self,
        builder: &mut Builder<'_>,
        d: &Directive,
        server: ServerId,
    ) -> Result<()> {
        let addresses = addresses(builder, d)?;
        let options = options(builder, d)?;
        let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix(_));
        if options.deferred && addresses.iter().any(is_unix) {
            tuning(
                builder,
                d,
                b"deferred",
                "a Unix domain socket has no such option",
            );
        }
        for address in addresses {
            self.add_address(builder, d, address, options, server)?;
        }
        Ok(())
    }

    /// What a server without `listen` listens on.
    pub(super) fn add_default(
        &mut self,
        builder: &Builder<'_>,
        position: &Position,
        server: ServerId,
    ) {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), builder.options.default_port);
        let address = ListenAddress::Inet(any);
        match self.draft_mut(&address) {
            Some(draft) => draft.servers.push(server),
            None => self.push(Draft {
                address,
                options: ListenOptions::default(),
                position: position.clone(),
                servers: vec![server],
                default_server: None,
            }),
        }
    }

    fn draft_mut(&mut self, address: &ListenAddress) -> Option<&mut Draft> {
        let index = *self.by_address.get(address)?;
        self.all.get_mut(index)
    }

    fn push(&mut self, draft: Draft) {
        self.by_address
            .insert(draft.address.clone(), self.all.len());
        self.all.push(draft);
    }

    fn add_address(
        &mut self,
        builder: &mut Builder<'_>,
        d: &Directive,
        address: ListenAddress,
        options: ListenOptions,
        server: ServerId,
    ) -> Result<()> {
        let Some(draft) = self.draft_mut(&address) else {
            self.push(Draft {
                address,
                options,
                position: d.position.clone(),
                servers: vec![server],
                default_server: options.default_server.then_some(server),
            });
            return Ok(());
        };
        if draft.servers.contains(&server) {
            return Err(refuse(d, format!("a duplicate listen {address}")));
        }
        draft.servers.push(server);
        if options.set {
            if draft.options.set {
                return Err(refuse(d, format!("duplicate listen options for {address}")));
            }
            draft.options = ListenOptions {
                ssl: draft.options.ssl,
                http2: draft.options.http2,
                proxy_protocol: draft.options.proxy_protocol,
                ..options
            };
        }
        if options.default_server {
            if draft.default_server.is_some() {
                return Err(refuse(
                    d,
                    format!("a duplicate default server for {address}"),
                ));
            }
            draft.default_server = Some(server);
        }
        let adds_ssl = options.ssl && !draft.options.ssl;
        let adds_http2 = options.http2 && !draft.options.http2;
        let adds_header = options.proxy_protocol && !draft.options.proxy_protocol;
        draft.options.ssl |= options.ssl;
        draft.options.http2 |= options.http2;
        draft.options.proxy_protocol |= options.proxy_protocol;
        if adds_ssl || adds_http2 || adds_header {
            // Nginx too: one `ssl` makes the address TLS for all its servers.
            let text = format!("protocol options redefined for {address}");
            builder.warn(&d.position, text);
        }
        Ok(())
    }

    /// For each TLS address: its default server, and all who answer there.
    pub(super) fn with_tls(&self) -> impl Iterator<Item = (ServerId, &[ServerId])> {
        self.all
            .iter()
            .filter(|draft| draft.options.ssl)
            .map(|draft| (draft.default_server(), draft.servers.as_slice()))
    }

    /// Enters each server's names at each of its addresses.
    pub(super) fn finish(
        self,
        builder: &mut Builder<'_>,
        names: &[Vec<ServerName>],
    ) -> Result<Vec<Listener>> {
        let covered: Vec<_> = (0..self.all.len())
            .map(|index| self.covered_by(index))
            .collect();
        let listeners = self.all.into_iter().zip(covered);
        listeners
            .map(|(draft, covered_by)| {
                let mut hosts = ServerNames {
                    default: draft.default_server(),
                    ..ServerNames::default()
                };
                for &server in &draft.servers {
                    for name in names.get(server).into_iter().flatten() {
                        draft.enter(builder, &mut hosts, name, server)?;
                    }
                }
                Ok(Listener {
                    address: draft.address,
                    ssl: draft.options.ssl,
                    http2: draft.options.http2,
                    proxy_protocol: draft.options.proxy_protocol,
                    backlog: draft.options.backlog.unwrap_or(DEFAULT_BACKLOG),
                    reuseport: draft.options.reuseport,
                    ipv6only: draft.options.ipv6only.unwrap_or(true),
                    so_keepalive: draft.options.so_keepalive,
                    deferred: draft.options.deferred,
                    covered_by,
                    position: draft.position,
                    hosts,
                })
            })
            .collect()
    }

    fn covered_by(&self, index: usize) -> Option<usize> {
        let ListenAddress::Inet(own) = &self.all.get(index)?.address else {
            return None;
        };
        if own.ip().is_unspecified() {
            return None;
        }
        let wildcard = |any: IpAddr, dual: bool| {
            let any = ListenAddress::Inet(SocketAddr::new(any, own.port()));
            let index = *self.by_address.get(&any)?;
            let is_dual = self.all.get(index)?.options.ipv6only == Some(false);
            (!dual || is_dual).then_some(index)
        };
        if own.is_ipv6() {
            return wildcard(Ipv6Addr::UNSPECIFIED.into(), false);
        }
        wildcard(Ipv4Addr::UNSPECIFIED.into(), false)
            .or_else(|| wildcard(Ipv6Addr::UNSPECIFIED.into(), true))
    }
}

/// `PORT`, `ADDRESS[:PORT]`, `*:PORT`, `NAME:PORT`, `unix:PATH`, `systemd:NAME`; a
/// port may be a range.
fn addresses(builder: &Builder<'_>, d: &Directive) -> Result<Vec<ListenAddress>> {
    let text = d.arg(0);
    if let Some(name) = text.strip_prefix(b"systemd:") {
        return passed_by_systemd(builder, d, name);
    }
    let refuse_url = |what: &str| {
        let text = d.text(0);
        refuse(
            d,
            format!("{what} in \"{text}\" of the \"listen\" directive"),
        )
    };
    let (text, ports) = port_range(text).map_err(refuse_url)?;
    let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let hosts = if text.is_empty() {
        vec![any]
    } else {
        let Url { target, uri } = url::parse(text).map_err(refuse_url)?;
        let host = match (target, uri) {
            (Target::Unix(path), None) => {
                return Ok(vec![ListenAddress::Unix(builder.options.prefix.join(path))]);
            }
            (Target::Host { host, .. }, None) => host,
            _ => return Err(refuse_url("invalid host")),
        };
        if host == "*" {
            vec![any]
        } else {
            let found =
                url::resolve(builder, host, 0).ok_or_else(|| refuse_url("host not found"))?;
            found.into_iter().map(|address| address.ip()).collect()
        }
    };
    let (first, last) = ports.unwrap_or((80, 80));
    let pairs = hosts
        .iter()
        .flat_map(|&host| (first..=last).map(move |port| (host, port)));
    Ok(pairs
        .map(|(host, port)| ListenAddress::Inet(SocketAddr::new(host, port)))
        .collect())
}

/// Where the sockets of this name listen.
fn passed_by_systemd(
    builder: &Builder<'_>,
    d: &Directive,
    name: &[u8],
) -> Result<Vec<ListenAddress>> {
    let Some(sockets) = &builder.options.passed_sockets else {
        // They are there when the service starts: nobody else has them.
        let nowhere = builder.options.prefix.join(&*d.text(0));
        return Ok(vec![ListenAddress::Unix(nowhere)]);
    };
    let of_name = sockets.iter().filter(|(known, _)| known.as_bytes() == name);
    let found: Vec<_> = of_name.map(|(_, address)| address.clone()).collect();
    if found.is_empty() {
        let name = String::from_utf8_lossy(name);
        return Err(refuse(
            d,
            format!("systemd has passed no socket \"{name}\""),
        ));
    }
    Ok(found)
}

/// Cuts `PORT` or `FIRST-LAST` off the end; what is left may be empty.
type HostAndPorts<'a> = (&'a [u8], Option<(u16, u16)>);

fn port_range(text: &[u8]) -> std::result::Result<HostAndPorts<'_>, &'static str> {
    if url::strip_prefix_any_case(text, b"unix:").is_some() {
        return Ok((text, None));
    }
    let parse = |ports: &[u8]| {
        let (first, last) = match ports.iter().position(|&byte| byte == b'-') {
            Some(dash) => (&ports[..dash], &ports[dash + 1..]),
            None => (ports, ports),
        };
        let (first, last) = (url::parse_port(first)?, url::parse_port(last)?);
        (first <= last).then_some((first, last))
    };
    let is_port = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    if !text.is_empty() && text.iter().all(is_port) {
        return parse(text)
            .map(|ports| (&b""[..], Some(ports)))
            .ok_or("invalid port");
    }
    // The colons of an IPv6 address stand between brackets.
    let from = text.iter().rposition(|&byte| byte == b']').unwrap_or(0);
    if text.starts_with(b"[") && from == 0 {
        return Err("invalid host");
    }
    match text[from..].iter().position(|&byte| byte == b':') {
        Some(colon) => {
            let (host, port) = (&text[..from + colon], &text[from + colon + 1..]);
            if host.is_empty() {
                return Err("no host");
            }
            parse(port)
                .map(|ports| (host, Some(ports)))
                .ok_or("invalid port")
        }
        None => Ok((text, None)),
    }
}

fn options(builder: &mut Builder<'_>, d: &Directive) -> Result<ListenOptions> {
    let mut options = ListenOptions::default();
    for word in d.args.get(1..).unwrap_or_default() {
        let word = &*word.value;
        let shown = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match split_parameter(word) {
            (b"ssl", None) => options.ssl = true,
            (b"proxy_protocol", None) => options.proxy_protocol = true,
            (b"default_server" | b"default", None) => options.default_server = true,
            (b"bind", None) => options.set = true,
            (b"reuseport", None) => (options.reuseport, options.set) = (true, true),
            (b"deferred", None) => (options.deferred, options.set) = (true, true),
            (b"backlog", Some(value)) => {
                let backlog = units::number(value).and_then(|n| i32::try_from(n).ok());
                let Some(backlog) = backlog.filter(|&n| n > 0) else {
                    return Err(refuse(d, format!("invalid backlog \"{}\"", shown(word))));
                };
                (options.backlog, options.set) = (Some(backlog), true);
            }
            (b"ipv6only", Some(value)) => {
                let value = match value {
                    b"on" => true,
                    b"off" => false,
                    _ => {
                        return Err(refuse(
                            d,
                            format!("invalid ipv6only flags \"{}\"", shown(value)),
                        ));
                    }
                };
                (options.ipv6only, options.set) = (Some(value), true);
            }
            (b"so_keepalive", Some(value)) => {
                options.so_keepalive = so_keepalive(value);
                if options.so_keepalive.is_none() {
                    let message = format!("invalid so_keepalive value: \"{}\"", shown(value));
                    return Err(refuse(d, message));
                }
                options.set = true;
            }
            (b"rcvbuf" | b"sndbuf", Some(value)) => {
                if units::size(value).is_none_or(|size| size == 0) {
                    return Err(invalid_parameter(d, word));
                }
                tuning(builder, d, word, "the kernel sizes its own buffers");
                options.set = true;
            }
            (b"fastopen" | b"setfib", Some(value)) => {
                units::number(value).ok_or_else(|| invalid_parameter(d, word))?;
                tuning(builder, d, word, "the kernel sizes its own buffers");
                options.set = true;
            }
            (b"http2", None) => {
                // Nginx's own words, since 1.25.1.
                let text = "the \"listen ... http2\" directive is deprecated, \
                            use the \"http2\" directive instead";
                builder.warn(&d.position, text);
                options.http2 = true;
            }
            (b"quic" | b"multipath", None) | (b"accept_filter", Some(_)) => {
                return Err(not_implemented(d, word));
            }
            _ => return Err(invalid_parameter(d, word)),
        }
    }
    Ok(options)
}

/// The most that the kernel takes (tcp(7)): seconds, and probes.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);
const MOST_PROBES: u64 = 127;

/// `on`, `off`, or `IDLE:INTERVAL:COUNT`, of which two may be left out.
fn so_keepalive(value: &[u8]) -> Option<SoKeepalive> {
    let seconds = |text: &[u8]| {
        units::seconds(text).filter(|time| !time.is_zero() && *time <= LONGEST_KEEPALIVE)
    };
    let probes = |text: &[u8]| {
        let count = units::number(text).filter(|count| (1..=MOST_PROBES).contains(count))?;
        u32::try_from(count).ok()
    };
    let on = |idle, interval, count| SoKeepalive::On {
        idle,
        interval,
        count,
    };
    match value {
        b"on" => return Some(on(None, None, None)),
        b"off" => return Some(SoKeepalive::Off),
        _ => {}
    }
    let mut parts = value.splitn(3, |byte| *byte == b':');
    let times = on(
        given(parts.next(), seconds)?,
        given(parts.next(), seconds)?,
        given(parts.next(), probes)?,
    );
    (times != on(None, None, None)).then_some(times)
}

/// What is there must be right.
fn given<T>(part: Option<&[u8]>, read: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    match part {
        None | Some([]) => Some(None),
        Some(text) => read(text).map(Some),
    }
}

fn tuning(builder: &mut Builder<'_>, d: &Directive, word: &[u8], reason: &str) {
    let word = String::from_utf8_lossy(word);
    let text = format!("\"{word}\" of \"listen\" directive has no effect here: {reason}");
    if !builder.remarks.iter().any(|remark| remark.text == text) {
        builder.notice(&d.position, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_keepalive_says_whether_and_how() {
        let on = |idle: Option<u64>, interval: Option<u64>, count| {
            Some(SoKeepalive::On {
                idle: idle.map(Duration::from_secs),
                interval: interval.map(Duration::from_secs),
                count,
            })
        };
        for (value, expected) in [
            ("on", on(None, None, None)),
            ("off", Some(SoKeepalive::Off)),
            ("30m::10", on(Some(1800), None, Some(10))),
            (":5:", on(None, Some(5), None)),
            ("1h30m", on(Some(5400), None, None)),
            ("30m:1s:3", on(Some(1800), Some(1), Some(3))),
            ("::127", on(None, None, Some(127))),
            ("", None),
            ("::", None),
            ("0::", None),
            ("x::", None),
            ("::0", None),
            ("::128", None),
            ("10h::", None),
            ("1::2:3", None),
            ("yes", None),
        ] {
            assert_eq!(so_keepalive(value.as_bytes()), expected, "{value:?}");
        }
    }
}
