// SPDX-License-Identifier: Apache-2.0
//! What must hold for any policy. Seeds are fixed: a failure can be repeated.

use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::event::outcome;
use abi::flow::proto;
use abi::policy::{DENY_PRECEDENCE, INGRESS, PREFIX_L3, PREFIX_PORT, PREFIX_PROTO, PolicyEntry, PolicyKey, decide};
use datapath::{LpmKey, sync_map};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::packet::{Packet, SYN};
use crate::world::World;

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
