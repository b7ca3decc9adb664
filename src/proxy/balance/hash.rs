//! Which peer a key leads to: the hash functions of Nginx, bit for bit, so
//! that a fleet of both sends a client to one and the same backend.

use std::net::IpAddr;

use crate::config::UpstreamPeer;
use crate::net::addr::ClientAddr;

/// One more turn of `ip_hash` (`ngx_http_upstream_ip_hash_module.c`); the
/// first begins with [`IP_HASH_START`].
pub(super) fn ip_hash(hash: u32, client: ClientAddr) -> u32 {
    let turn = |hash: u32, byte: &u8| (hash * 113 + u32::from(*byte)) % 6271;
    match client {
        // Three octets: a network whose hosts take turns behind a balancer
        // stays with one peer.
        ClientAddr::Inet(address) => match address.ip() {
            IpAddr::V4(ip) => ip.octets().iter().take(3).fold(hash, turn),
            IpAddr::V6(ip) => ip.octets().iter().fold(hash, turn),
        },
        ClientAddr::Unix => [0; 3].iter().fold(hash, turn),
    }
}

pub(super) const IP_HASH_START: u32 = 89;

/// One more turn of `hash KEY`, compatible with Cache::Memcached: what is
/// added to the hash of the turns before.
pub(super) fn key_hash(key: &[u8], turn: u32) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if turn > 0 {
        crc.update(itoa::Buffer::new().format(turn).as_bytes());
    }
    crc.update(key);
    (crc.finalize() >> 16) & 0x7fff
}

/// The circle of `hash KEY consistent`, compatible with
/// Cache::Memcached::Fast: 160 points for each unit of weight.
#[derive(Debug)]
pub(super) struct Ring {
    /// Sorted by hash, no hash twice; with the first peer of the `server`.
    points: Vec<(u32, usize)>,
}

const POINTS_PER_WEIGHT: u32 = 160;

impl Ring {
    /// Of the peers that are not backups.
    pub(super) fn new<'p>(peers: impl Iterator<Item = (usize, &'p UpstreamPeer)>) -> Self {
        let mut points = Vec::new();
        // The addresses of one name share its points.
        let mut servers: Vec<(usize, &str)> = Vec::new();
        for (index, peer) in peers {
            if servers.iter().any(|(_, name)| **name == *peer.server) {
                continue;
            }
            servers.push((index, &peer.server));
            let base = base_hash(&peer.server);
            let mut previous = [0; 4];
            for _ in 0..peer.weight.saturating_mul(POINTS_PER_WEIGHT) {
                let mut hash = base.clone();
                hash.update(&previous);
                let hash = hash.finalize();
                points.push((hash, index));
                previous = hash.to_le_bytes();
            }
        }
        // Of two servers with one hash the first keeps it. Nginx leaves this
        // to the C library's unstable sort.
        points.sort_by_key(|(hash, _)| *hash);
        points.dedup_by_key(|(hash, _)| *hash);
        Self { points }
    }

    /// Where on the circle a key begins to look.
    pub(super) fn position(&self, key: &[u8]) -> usize {
        let hash = crc32fast::hash(key);
        self.points.partition_point(|(point, _)| *point < hash)
    }

    /// The peer whose `server` has this position.
    pub(super) fn at(&self, position: usize) -> Option<usize> {
        let position = position.checked_rem(self.points.len())?;
        self.points.get(position).map(|(_, peer)| *peer)
    }
}

/// The hash of host and port, to be continued.
fn base_hash(server: &str) -> crc32fast::Hasher {
    let is_unix = server
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:"));
    let (host, port) = match server.rsplit_once(':') {
        _ if is_unix => (server.get(5..).unwrap_or_default(), ""),
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (server, ""),
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(host.as_bytes());
    crc.update(&[0]);
    crc.update(port.as_bytes());
    crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::UpstreamAddress;

    fn peer(server: &str, weight: u32) -> UpstreamPeer {
        UpstreamPeer {
            weight,
            ..UpstreamPeer::new(UpstreamAddress::Unix("/s".into()), server)
        }
    }

    fn ring(peers: &[UpstreamPeer]) -> Ring {
        Ring::new(peers.iter().enumerate())
    }

    #[test]
    fn hosts_of_one_network_share_an_address_hash() {
        let hash = |text: &str| ip_hash(IP_HASH_START, ClientAddr::Inet(text.parse().unwrap()));
        assert_eq!(hash("192.0.2.1:1"), hash("192.0.2.200:2"));
        assert_ne!(hash("192.0.2.1:1"), hash("192.0.3.1:1"));
        assert_ne!(hash("[2001:db8::1]:1"), hash("[2001:db8::2]:1"));
        // 89·113+192 mod 6271 = 3978; ·113+0 = 4273; ·113+2 = 6255.
        assert_eq!(hash("192.0.2.1:1"), 6255);
    }

    #[test]
    fn every_unit_of_weight_has_its_points() {
        let peers = [peer("127.0.0.1:8001", 1), peer("127.0.0.1:8002", 3)];
        let points = ring(&peers).points;
        assert_eq!(points.len(), 640);
        assert_eq!(points.iter().filter(|(_, peer)| *peer == 0).count(), 160);
    }

    #[test]
    fn addresses_of_one_name_share_its_points() {
        let peers = [peer("a:80", 1), peer("a:80", 1), peer("b:80", 1)];
        let points = ring(&peers).points;
        assert_eq!(points.len(), 320);
        assert!(points.iter().all(|(_, peer)| *peer != 1));
    }

    proptest! {
        #[test]
        fn a_peer_that_leaves_moves_only_its_own_keys(key in "[a-z0-9/]{1,20}") {
            let peers: Vec<_> = (0..5).map(|n| peer(&format!("10.0.0.{n}:80"), 1)).collect();
            let all = ring(&peers);
            let fewer = ring(&peers[..4]);
            let before = all.at(all.position(key.as_bytes()));
            let after = fewer.at(fewer.position(key.as_bytes()));
            prop_assert!(before == Some(4) || before == after);
        }
    }
}
