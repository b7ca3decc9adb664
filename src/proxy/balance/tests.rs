//! Whom each method chooses, and what failures, limits and weights do to that.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::config::{Template, UpstreamAddress};
use crate::net::addr::ClientAddr;

const NOBODY: ClientAddr = ClientAddr::Unix;

fn peer(number: u16, weight: u32) -> UpstreamPeer {
    let address = format!("127.0.0.1:{number}");
    UpstreamPeer {
        weight,
        ..UpstreamPeer::new(UpstreamAddress::Inet(address.parse().unwrap()), &address)
    }
}

fn upstream(method: BalanceMethod, peers: Vec<UpstreamPeer>) -> Upstream {
    Upstream {
        name: "u".into(),
        peers,
        named: None,
        method,
        sticky: None,
        queue: None,
        zone: false,
        keepalive: 0,
        keepalive_requests: 1,
        keepalive_timeout: Duration::ZERO,
        keepalive_time: Duration::ZERO,
    }
}

fn group(method: BalanceMethod, peers: Vec<UpstreamPeer>) -> Rc<Group> {
    let upstream = upstream(method, peers);
    Group::new(&upstream, &Members::of(&upstream), None)
}

fn round_robin(peers: Vec<UpstreamPeer>) -> Rc<Group> {
    group(BalanceMethod::RoundRobin, peers)
}

fn choose(group: &Rc<Group>, now: Instant) -> Option<usize> {
    let lease = group.choose_for(&mut group.selection(0), NOBODY, now)?;
    Some(lease.index)
}

fn fail(group: &Rc<Group>, index: usize, now: Instant) {
    let mut selection = group.selection(0);
    selection.hint = Some(index);
    selection.among_backups = group.peers[index].backup;
    let lease = group.choose_for(&mut selection, NOBODY, now).unwrap();
    assert_eq!(lease.index, index);
    lease.failed(now);
}

fn sequence(group: &Rc<Group>, count: usize, now: Instant) -> Vec<usize> {
    (0..count).filter_map(|_| choose(group, now)).collect()
}

#[test]
fn weights_are_interleaved_as_nginx_does() {
    let group = round_robin(vec![peer(1, 5), peer(2, 1), peer(3, 1)]);
    assert_eq!(sequence(&group, 7, Instant::now()), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_failed_peer_rests_for_its_time_and_gets_one_chance_then() {
    let group = round_robin(vec![peer(1, 1), peer(2, 1)]);
    let now = Instant::now();
    fail(&group, 0, now);
    assert_eq!(sequence(&group, 3, now), [1, 1, 1]);
    let later = now + Duration::from_secs(11);
    assert!(sequence(&group, 3, later).contains(&0));
    let again = sequence(&group, 4, later);
    assert_eq!(again.iter().filter(|&&index| index == 0).count(), 2);
}

#[test]
fn backups_serve_only_when_no_primary_is_left() {
    let backup = UpstreamPeer {
        backup: true,
        ..peer(2, 1)
    };
    let group = round_robin(vec![peer(1, 1), backup]);
    let now = Instant::now();
    assert_eq!(sequence(&group, 2, now), [0, 0]);
    fail(&group, 0, now);
    assert_eq!(sequence(&group, 2, now), [1, 1]);
}

#[test]
fn a_peer_that_is_down_is_never_chosen() {
    let down = UpstreamPeer {
        down: true,
        ..peer(1, 1)
    };
    assert_eq!(
        choose(&round_robin(vec![down.clone()]), Instant::now()),
        None
    );
    let group = round_robin(vec![down, peer(2, 1)]);
    assert_eq!(sequence(&group, 2, Instant::now()), [1, 1]);
}

#[test]
fn no_request_tries_a_peer_twice() {
    for method in [
        BalanceMethod::RoundRobin,
        BalanceMethod::LeastConnections,
        BalanceMethod::IpHash,
        BalanceMethod::Hash(Template::literal(b"k")),
        BalanceMethod::ConsistentHash(Template::literal(b"k")),
        BalanceMethod::Random,
        BalanceMethod::RandomTwo,
    ] {
        let group = group(method.clone(), (1..=5).map(|n| peer(n, 1)).collect());
        let mut selection = group.selection(0);
        selection.key = b"k".to_vec();
        let mut seen = Vec::new();
        while let Some(lease) = group.choose_for(&mut selection, NOBODY, Instant::now()) {
            assert!(!seen.contains(&lease.index), "{method:?}");
            seen.push(lease.index);
        }
        assert_eq!(seen.len(), 5, "{method:?}");
        assert!(!selection.may_go_on());
    }
}

#[test]
fn no_more_peers_are_asked_than_tries_allow() {
    let group = round_robin((1..=5).map(|n| peer(n, 1)).collect());
    let mut selection = group.selection(2);
    for may_go_on in [true, false] {
        assert!(
            group
                .choose_for(&mut selection, NOBODY, Instant::now())
                .is_some()
        );
        assert_eq!(selection.may_go_on(), may_go_on);
    }
}

#[test]
fn the_least_busy_peer_for_its_weight_is_chosen() {
    let group = group(
        BalanceMethod::LeastConnections,
        vec![peer(1, 1), peer(2, 2)],
    );
    let now = Instant::now();
    let mut held = Vec::new();
    for _ in 0..9 {
        held.push(
            group
                .choose_for(&mut group.selection(0), NOBODY, now)
                .unwrap(),
        );
    }
    assert_eq!(held.iter().filter(|lease| lease.index == 1).count(), 6);
    held.retain(|lease| lease.index == 0);
    assert_eq!(
        group
            .choose_for(&mut group.selection(0), NOBODY, now)
            .unwrap()
            .index,
        1
    );
}

#[test]
fn a_full_peer_is_passed_over_until_a_request_ends() {
    let full = |number| UpstreamPeer {
        max_conns: 1,
        ..peer(number, 1)
    };
    let group = round_robin(vec![full(1), full(2)]);
    let now = Instant::now();
    let take = || group.choose_for(&mut group.selection(0), NOBODY, now);
    let (first, second) = (take().unwrap(), take().unwrap());
    assert_ne!(first.index, second.index);
    assert!(take().is_none());
    let index = first.index;
    drop(first);
    assert_eq!(take().unwrap().index, index);
    let single = round_robin(vec![full(1)]);
    let held = single.choose_for(&mut single.selection(0), NOBODY, now);
    assert!(held.is_some() && choose(&single, now).is_none());
}

#[test]
fn random_peers_come_in_proportion_to_their_weights() {
    for method in [BalanceMethod::Random, BalanceMethod::RandomTwo] {
        let group = group(method, vec![peer(1, 1), peer(2, 3)]);
        let mut counts = BTreeMap::new();
        for index in sequence(&group, 4000, Instant::now()) {
            *counts.entry(index).or_insert(0) += 1;
        }
        // Of two idle peers the second drawn is taken, so `two` turns the
        // proportion round; Nginx does the same.
        assert!(counts[&0] > 700 && counts[&1] > 700, "{counts:?}");
    }
}

#[test]
fn a_key_leads_to_one_peer_while_that_is_up() {
    for method in [
        BalanceMethod::Hash(Template::default()),
        BalanceMethod::ConsistentHash(Template::default()),
    ] {
        let group = group(method, (1..=4).map(|n| peer(n, 1)).collect());
        let now = Instant::now();
        let choose = |key: &str| {
            let mut selection = group.selection(0);
            selection.key = key.into();
            if let Some(ring) = &group.ring {
                selection.position = ring.position(key.as_bytes());
            }
            group.choose_for(&mut selection, NOBODY, now).unwrap().index
        };
        let first: Vec<_> = (0..50).map(|n| choose(&format!("key{n}"))).collect();
        let second: Vec<_> = (0..50).map(|n| choose(&format!("key{n}"))).collect();
        assert_eq!(first, second);
        assert!((0..4).all(|index| first.contains(&index)), "{first:?}");
        fail(&group, first[0], now);
        assert_ne!(choose("key0"), first[0]);
    }
}

#[test]
fn a_draining_peer_gets_only_what_is_led_there() {
    let drain = UpstreamPeer {
        drain: true,
        ..peer(1, 1)
    };
    let group = round_robin(vec![drain, peer(2, 1)]);
    let now = Instant::now();
    assert_eq!(sequence(&group, 3, now), [1, 1, 1]);
    let mut selection = group.selection(0);
    selection.hint = Some(0);
    assert_eq!(
        group.choose_for(&mut selection, NOBODY, now).unwrap().index,
        0
    );
}

#[test]
fn a_peer_in_slow_start_gets_less_than_its_weight() {
    let slow = UpstreamPeer {
        slow_start: Duration::from_secs(100),
        fail_timeout: Duration::from_secs(1),
        ..peer(1, 1)
    };
    let group = round_robin(vec![slow, peer(2, 1)]);
    let now = Instant::now();
    fail(&group, 0, now);
    // On probation it answers, and begins anew.
    let later = now + Duration::from_secs(2);
    assert!(sequence(&group, 6, later).contains(&0));
    let shortly_after = later + Duration::from_secs(10);
    let share = sequence(&group, 100, shortly_after);
    let count = share.iter().filter(|&&index| index == 0).count();
    assert!((5..25).contains(&count), "{count} of 100");
}
