// SPDX-License-Identifier: Apache-2.0
//! Whom a service lets in, and which of its backends a client finds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::DropReason;
use abi::config::ProgramConfig;
use abi::flow::proto;
use abi::lb::flags::{DENY_RANGES, MAGLEV, MEMBERS, SOURCE_RANGES};
use abi::lb::{
    Affinity, AffinityKey, Backend, MAGLEV_PART, MaglevKey, MaglevPart, SlotKey, SourceRangeKey, maglev_place, spread,
    spread_tuple, state,
};
use abi::lb::{DENIED, DRAINS};
use abi::maps::{Affinities, Backends, Maglev, Slots, SourceRanges};
use datapath::flows::now;
use datapath::{Kernel, LpmKey};

use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed, exposed_with};
use crate::packet::{ACK, Packet, SYN};
use crate::world::{Family, World, tuple};

/// Backends at many ports of one pod.
fn many(f: &Family) -> Vec<(IpAddr, u16)> {
    (8000..8016).map(|port| (f.b, port)).collect()
}

/// The port of the backend that a client's connection from that port goes to.
fn chosen(world: &mut World, client: IpAddr, port: u16, to: (IpAddr, u16)) -> u16 {
    world.arrives(&Packet::tcp((client, port), to, SYN).bytes()).redirected();
    u16::from_be(world.flow(&tuple((client, port), to, proto::TCP)).unwrap().nat_dport)
}

/// Whether a range covers the first bits of the client's address, counted as in an IPv6 address.
pub(crate) fn add_range(world: &World, service: u32, client: IpAddr, bits: u32) {
    let denied = service & DENIED != 0;
    let key = SourceRangeKey::new(service & !DENIED, denied, abi::Addr::from(client).octets());
    let bits = if client.is_ipv4() { 96 + bits } else { bits };
    world.datapath.trie::<SourceRanges>().unwrap().insert(&LpmKey::new(32 + bits, key), &1).unwrap();
}

#[test]
fn source_ranges_admit_or_refuse_clients() {
    exposed(|world, f| {
        let to = (f.service, 80);
        let pod = world.a;
        for (flags, kind) in [(SOURCE_RANGES, "admits"), (SOURCE_RANGES | DENY_RANGES, "refuses")] {
            world.clear_flows();
            Offer::new(to, proto::TCP, LOAD_BALANCER | flags, &[(f.b, 8080)]).install(world);
            add_range(world, if flags & DENY_RANGES != 0 { 5 | DENIED } else { 5 }, f.world, 24);
            // Another service's range, and what was admitted before others were refused.
            if flags & DENY_RANGES != 0 {
                add_range(world, 5, f.stranger, 24);
            }
            add_range(world, 6, f.stranger, 8);
            for (client, in_range) in [(f.world, true), (f.stranger, false), (f.a, false)] {
                let packet = Packet::tcp((client, 40001), to, SYN).bytes();
                let run = if client == f.a { world.leaves(&pod, &packet) } else { world.arrives(&packet) };
                if in_range == (kind == "admits") {
                    run.redirected();
                } else {
                    run.dropped(DropReason::DeniedByLbSrcRangeCheck);
                }
            }
        }
    });
}

#[test]
fn a_client_that_is_let_in_no_more_loses_what_it_has() {
    exposed(|world, f| {
        let to = (f.service, 80);
        let offer = |flags| Offer::new(to, proto::TCP, LOAD_BALANCER | flags, &[(f.b, 8080)]);
        offer(0).install(world);
        let pod = world.b;
        world.arrives(&Packet::tcp((f.world, 40001), to, SYN).bytes()).redirected();
        world.leaves(&pod, &Packet::tcp((f.b, 8080), (f.world, 40001), SYN | ACK).bytes()).redirected();
        let segment = Packet::tcp((f.world, 40001), to, ACK).bytes();
        world.arrives(&segment).redirected();
        // Others may come.
        offer(SOURCE_RANGES).install(world);
        add_range(world, 5, f.stranger, 24);
        world.epochs.bump_node().unwrap();
        world.arrives(&segment).dropped(DropReason::DeniedByLbSrcRangeCheck);
    });
}

#[test]
fn a_client_of_a_service_with_affinity_finds_the_backend_that_it_had() {
    exposed(|world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::TCP, NODE_PORT, &many(&f)).affinity(100).install(world);
        let first = chosen(world, f.world, 1000, to);
        for port in 1001..1020 {
            assert_eq!(chosen(world, f.world, port, to), first);
        }
        // It is where every node would have led it.
        assert_eq!(first, 8000 + (spread(f.world.into()) % 16) as u16);
        // What it had counts for more than that.
        let key = AffinityKey { client: f.world.into(), service: 5, is_cookie: 0 };
        let affinities = world.datapath.map::<Affinities>().unwrap();
        let other = 5 * 16 + (u32::from(first) - 8000 + 1) % 16;
        world.put(affinities.clone(), &key, &Affinity { backend: other, last_used: now() });
        assert_eq!(u32::from(chosen(world, f.world, 1020, to)), 8000 + other - 80);
        // Until it has been away for too long; each connection counts.
        let used = |ago| Affinity { backend: other, last_used: now() - ago };
        let mut after = |ago: u32| -> BTreeSet<u16> {
            let ask = |n: u16| {
                world.put(affinities.clone(), &key, &used(ago));
                let port = chosen(world, f.world, 2000 + ago as u16 * 20 + n, to);
                assert!(now() - affinities.get(&key).unwrap().unwrap().last_used < 5);
                port
            };
            (0..20).map(ask).collect()
        };
        assert_eq!(after(90), [8000 + (other - 80) as u16].into());
        assert!(after(95).len() > 1, "it is led to the same one again and again");
        affinities.remove(&key).unwrap();
    });
}

#[test]
fn a_client_does_not_go_back_to_a_backend_that_serves_no_more() {
    exposed(|world, f| {
        let to = (f.node, 30080);
        let offer = Offer::new(to, proto::TCP, NODE_PORT | MEMBERS, &many(&f)).affinity(100);
        offer.install(world);
        let key = AffinityKey { client: f.world.into(), service: 5, is_cookie: 0 };
        let slots = world.datapath.map::<Slots>().unwrap();
        let backends = world.datapath.map::<Backends>().unwrap();
        // One that the first slot does not lead to.
        let last = offer.backend((spread(f.world.into()) as usize + 1) % 16);
        let used = Affinity { backend: last, last_used: now() };
        let goes_there = |world: &mut World, port| {
            world.put(world.datapath.map::<Affinities>().unwrap(), &key, &used);
            u32::from(chosen(world, f.world, port, to)) == 8000 + last - 80
        };
        assert!(!goes_there(world, 1000), "it is no member");
        let member = SlotKey::member(5, last);
        world.put(slots.clone(), &member, &last);
        assert!(goes_there(world, 1001));
        world.put(slots.clone(), &member, &(last | DRAINS));
        assert!(!goes_there(world, 1002), "it gets no new connections");
        world.put(slots, &member, &last);
        let backend = backends.get(&last).unwrap().unwrap();
        world.put(backends.clone(), &last, &Backend { state: state::TERMINATING, ..backend });
        assert!(goes_there(world, 1003), "to another service it is about to end");
        backends.remove(&last).unwrap();
        assert!(!goes_there(world, 1004), "it is gone");
    });
}

/// A table of that size in which each position has a backend of its own, as far as there are any.
fn add_table(world: &World, offer: &Offer, size: u32) {
    for part in 0..size.div_ceil(MAGLEV_PART as u32) {
        let mut backends = [[0; 16]; MAGLEV_PART / 16];
        for (nth, place) in backends.as_flattened_mut().iter_mut().enumerate() {
            let at = part as usize * MAGLEV_PART + nth;
            *place = if at < size as usize { offer.backend(at % offer.backends.len()) } else { 0 };
        }
        let key = MaglevKey { service: offer.service.id, part };
        world.put(world.datapath.map::<Maglev>().unwrap(), &key, &MaglevPart { backends });
    }
}

#[test]
fn with_maglev_the_ends_of_a_connection_tell_its_backend() {
    const SIZE: u32 = 251 * 3;
    exposed_with(
        |config| ProgramConfig { maglev_size: SIZE, ..config },
        |world, f| {
            let to = (f.node, 30080);
            let offer = Offer::new(to, proto::TCP, NODE_PORT | MAGLEV, &many(&f));
            offer.install(world);
            add_table(world, &offer, SIZE);
            let mut found = BTreeMap::<u16, u32>::new();
            for port in 1000..1100 {
                let opening = tuple((f.world, port), to, proto::TCP);
                let at = spread_tuple(&opening) % SIZE;
                let (part, row, column) = maglev_place(spread_tuple(&opening), SIZE).unwrap();
                assert_eq!(part as usize * MAGLEV_PART + row * 16 + column, at as usize);
                let port = chosen(world, f.world, port, to);
                assert_eq!(port, 8000 + (at % 16) as u16);
                *found.entry(port).or_default() += 1;
            }
            assert!(found.len() > 12, "{found:?}");
            // Without its table it has its slots.
            let tables = world.datapath.map::<Maglev>().unwrap();
            for key in tables.keys().unwrap() {
                tables.remove(&key).unwrap();
            }
            chosen(world, f.world, 1100, to);
            // Where a table has a place without a backend, too.
            for part in 0..SIZE.div_ceil(MAGLEV_PART as u32) {
                let empty = MaglevPart { backends: [[0; 16]; MAGLEV_PART / 16] };
                world.put(tables.clone(), &MaglevKey { service: offer.service.id, part }, &empty);
            }
            chosen(world, f.world, 1101, to);
        },
    );
}

#[test]
fn with_maglev_and_affinity_the_clients_address_alone_tells_its_backend() {
    const SIZE: u32 = 251;
    exposed_with(
        |config| ProgramConfig { maglev_size: SIZE, ..config },
        |world, f| {
            let to = (f.node, 30080);
            let offer = Offer::new(to, proto::TCP, NODE_PORT | MAGLEV, &many(&f)).affinity(100);
            offer.install(world);
            add_table(world, &offer, SIZE);
            let affinities = world.datapath.map::<Affinities>().unwrap();
            for port in 1000..1010 {
                assert_eq!(chosen(world, f.world, port, to), 8000 + (spread(f.world.into()) % SIZE % 16) as u16);
                // As on a node that has never seen it.
                affinities.remove(&AffinityKey { client: f.world.into(), service: 5, is_cookie: 0 }).unwrap();
            }
        },
    );
}
