// SPDX-License-Identifier: Apache-2.0
//! What must hold for any packet and any policy. Seeds are fixed: a failure can be repeated.

use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::event::outcome;
use abi::flow::proto;
use abi::policy::{DENY_PRECEDENCE, INGRESS, PREFIX_L3, PREFIX_PORT, PREFIX_PROTO, PolicyEntry, PolicyKey, decide};
use abi::{Addr, DropReason};
use datapath::{LpmKey, sync_map};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::packet::{Packet, SYN};
use crate::world::{Family, World};

/// Source address of a frame that is IP.
fn source(frame: &[u8]) -> Option<Addr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(Addr::from(<[u8; 4]>::try_from(frame.get(26..30)?).map(std::net::Ipv4Addr::from).ok()?)),
        [0x86, 0xdd] => Some(Addr::from(<[u8; 16]>::try_from(frame.get(22..38)?).map(std::net::Ipv6Addr::from).ok()?)),
        _ => None,
    }
}

/// A packet that some pod could send, with some bytes of its headers changed and perhaps its end cut off.
fn damaged(rng: &mut StdRng, f: Family) -> Vec<u8> {
    let dst = *[f.b, f.remote, f.world, f.node, f.service].choose(rng).unwrap();
    let packet = match rng.random_range(0..4) {
        0 => Packet::tcp((f.a, 1000), (dst, 80), SYN),
        1 => Packet::udp((f.a, 1000), (dst, 53)),
        2 => Packet::echo_request(f.a, dst, 7),
        _ => Packet::too_big(f.a, dst, &Packet::udp((dst, 53), (f.a, 1000))),
    };
    let mut frame = packet.bytes();
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(12..frame.len().min(80));
        frame[at] = rng.random();
    }
    let least = if f.a.is_ipv4() { 34 } else { 54 };
    let len = if rng.random_bool(0.3) { rng.random_range(least..=frame.len()) } else { frame.len() };
    frame.truncate(len);
    frame
}

#[test]
fn whatever_a_pod_sends_has_one_verdict_is_counted_once_and_never_goes_out_under_another_address() {
    World::test_families(|world, f| {
        let mut rng = StdRng::seed_from_u64(1);
        let a = world.a;
        let own = a.endpoint(0);
        for _round in 0..500 {
            let frame = damaged(&mut rng, f);
            let run = world.leaves(&a, &frame);
            let counted: u64 = run.counters.iter().map(|(_, packets)| packets).sum();
            assert_eq!(counted, 1, "{frame:02x?} {run:?}");
            assert!([0, 2, 7].contains(&run.verdict), "{frame:02x?} {run:?}");
            if run.verdict == 2 {
                assert!(run.events.iter().any(|event| DropReason::from_code(event.reason).is_some()), "{run:?}");
            } else if let Some(source) = source(&frame)
                && !frame.starts_with(&[0x33, 0x33])
            {
                assert!(source == own.ipv4 || source == own.ipv6, "{frame:02x?} {run:?}");
            }
        }
    });
}

/// A rule: any of few peers, protocols and port ranges, so that rules overlap.
fn rule(rng: &mut StdRng, world: &World, provenance: u32) -> (LpmKey<PolicyKey>, PolicyEntry) {
    let prefix_len = *[PREFIX_L3, PREFIX_PROTO, PREFIX_PORT - 4, PREFIX_PORT].choose(rng).unwrap();
    let port_bits = prefix_len.saturating_sub(PREFIX_PROTO);
    let port = u16::try_from(80 + rng.random_range(0..20)).unwrap() & (0xffff_u32 << (16 - port_bits)) as u16;
    let key = PolicyKey {
        policy: world.b.policy,
        identity: *[0, world.a.identity, 4444].choose(rng).unwrap(),
        direction: INGRESS,
        proto: if prefix_len >= PREFIX_PROTO { *[proto::TCP, proto::UDP].choose(rng).unwrap() } else { 0 },
        port: port.to_be(),
    };
    let deny = rng.random_bool(0.3);
    let precedence = if deny { DENY_PRECEDENCE } else { rng.random_range(1..4) };
    let entry = PolicyEntry {
        precedence,
        provenance,
        deny: u8::from(deny),
        prefix_len: prefix_len as u8,
        ..PolicyEntry::default()
    };
    (LpmKey::new(prefix_len, key), entry)
}

/// What the entries say, looked at one by one.
fn expected(rules: &[(LpmKey<PolicyKey>, PolicyEntry)], peer: u32, (proto, port): (u8, u16)) -> (u8, u32, u8) {
    let best = |identity: u32| {
        let matching = rules.iter().filter(|(key, entry)| {
            let data = key.data;
            let port_bits = u32::from(entry.prefix_len).saturating_sub(PREFIX_PROTO);
            let mask = (0xffff_u32 << (16 - port_bits)) as u16;
            data.identity == identity
                && (u32::from(entry.prefix_len) < PREFIX_PROTO || data.proto == proto)
                && u16::from_be(data.port) & mask == port & mask
        });
        matching.max_by_key(|(_, entry)| entry.prefix_len).map(|(_, entry)| entry)
    };
    match decide(best(peer), best(0)) {
        Some((entry, kind)) if entry.deny != 0 => (outcome::DENY, entry.provenance, kind),
        Some((entry, kind)) => (outcome::ALLOW, entry.provenance, kind),
        None => (outcome::DENY, 0, 0),
    }
}

#[test]
fn the_kernel_decides_as_one_who_looks_at_every_rule() {
    World::test_families(|world, f| {
        let mut rng = StdRng::seed_from_u64(2);
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, INGRESS_ENFORCED);
        for _round in 0..40 {
            world.clear_flows();
            let mut rules = std::collections::BTreeMap::new();
            for provenance in 1..rng.random_range(2..12) {
                let (key, entry) = rule(&mut rng, world, provenance);
                rules.insert(key, entry);
            }
            let rules: Vec<_> = rules.into_iter().collect();
            sync_map(&world.datapath_policies(), rules.iter().copied()).unwrap();
            for port in [80, 84, 90, 99] {
                for (packet, proto) in [
                    (Packet::tcp((f.a, 1000), (f.b, port), SYN), proto::TCP),
                    (Packet::udp((f.a, 1000), (f.b, port)), proto::UDP),
                ] {
                    let run = world.leaves(&a, &packet.bytes());
                    let [event] = run.events[..] else { panic!("{run:?}") };
                    let said = (event.ingress.outcome, event.ingress.provenance, event.ingress.match_type);
                    assert_eq!(said, expected(&rules, a.identity, (proto, port)), "{rules:#?} {port}/{proto}");
                    assert_eq!(run.verdict == 2, said.0 == outcome::DENY);
                }
            }
        }
    });
}
