// SPDX-License-Identifier: Apache-2.0
//! Whose flow goes when a ring or the table has no room.

use abi::DropReason;
use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::flow::{Flow, FlowKey, SETTLED, State, flags, proto};
use abi::maps::{Flows, Openings};
use abi::policy::INGRESS;
use abi::rings;
use datapath::Kernel;
use datapath::bpf::Options;

use crate::packet::{ACK, Packet, RST, SYN};
use crate::world::{Family, World, families, tuple};

/// A opens a connection to B, from the lower port; before it is answered, policy refuses it. Nothing that B says may turn it round.
fn refuse(world: &mut World, f: Family) {
    let (a, b) = (world.a, world.b);
    world.set_pod(&b, INGRESS_ENFORCED);
    world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 1000), false);
    let syn = Packet::tcp((f.a, 80), (f.b, 1000), SYN).bytes();
    world.leaves(&a, &syn).redirected();
    world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 1000), true);
    world.epochs.bump_endpoint(b.id).unwrap();
    world.leaves(&a, &syn).dropped(DropReason::PolicyDeny);
}

#[track_caller]
fn assert_refused(world: &mut World, f: Family) {
    let b = world.b;
    let flow = world.flow(&tuple((f.a, 80), (f.b, 1000), proto::TCP)).expect("it is forgotten");
    assert!(flow.has(flags::REFUSED) && flow.state(proto::TCP) == State::Opening);
    world.leaves(&b, &Packet::tcp((f.b, 1000), (f.a, 80), ACK).bytes()).dropped(DropReason::PolicyDeny);
}

/// Fills the table with connections like the one that B has to A.
fn fill(world: &World) {
    let map = world.datapath.map::<Flows>().unwrap();
    let is_established = |(key, flow): &(FlowKey, Flow)| flow.state(key.proto) == State::Established;
    let (key, flow) = map.entries().unwrap().into_iter().find(is_established).unwrap();
    let mut port = 0;
    while map.insert(&FlowKey { b_port: port, ..key }, &flow).is_ok() {
        port += 1;
    }
}

/// B connects to A.
fn connect(world: &mut World, f: Family) {
    let (a, b) = (world.a, world.b);
    world.leaves(&b, &Packet::tcp((f.b, 2000), (f.a, 443), SYN).bytes()).redirected();
    world.leaves(&a, &Packet::tcp((f.a, 443), (f.b, 2000), SYN | ACK).bytes()).redirected();
    world.leaves(&b, &Packet::tcp((f.b, 2000), (f.a, 443), ACK).bytes()).redirected();
}

#[test]
fn a_refused_flow_outlasts_a_flood_of_its_opener() {
    World::test_families(|world, f| {
        let a = world.a;
        refuse(world, f);
        for port in 0..2 * world.datapath.config().openings as u16 {
            world.leaves(&a, &Packet::udp((f.a, 2000 + port), (f.world, 53)).bytes()).redirected();
        }
        assert_refused(world, f);
    });
}

#[test]
fn a_refused_flow_makes_no_room_in_a_full_table() {
    World::test_with(Options { flows: 64, ..Options::default() }, |world| {
        let f = families()[0];
        let a = world.a;
        connect(world, f);
        refuse(world, f);
        fill(world);
        let opens = Packet::tcp((f.a, 3000), (f.world, 443), SYN).bytes();
        world.leaves(&a, &opens).dropped(DropReason::NoMappingForNatMasquerade);
        assert_refused(world, f);
    });
}

#[test]
fn a_closed_flow_makes_room_in_a_full_table() {
    World::test_with(Options { flows: 64, ..Options::default() }, |world| {
        let f = families()[0];
        let a = world.a;
        connect(world, f);
        world.leaves(&a, &Packet::tcp((f.a, 80), (f.b, 1000), SYN).bytes()).redirected();
        world.leaves(&a, &Packet::tcp((f.a, 80), (f.b, 1000), RST).bytes()).redirected();
        let closed = world.flow(&tuple((f.a, 80), (f.b, 1000), proto::TCP)).unwrap();
        assert_eq!(closed.state(proto::TCP), State::Closed);
        fill(world);
        world.leaves(&a, &Packet::tcp((f.a, 3000), (f.b, 443), SYN).bytes()).redirected();
        assert!(world.flow(&tuple((f.a, 80), (f.b, 1000), proto::TCP)).is_none());
    });
}

/// The places of B's ring of flows that it opens.
fn places(world: &World) -> Vec<FlowKey> {
    let (ring, length) = (rings::of(world.b.ifindex, true), world.datapath.config().openings);
    let map = world.datapath.map::<Openings>().unwrap();
    (0..length).map(|at| map.get(&rings::place(ring, at, length).unwrap()).unwrap().unwrap()).collect()
}

#[test]
fn a_connection_that_stands_says_so_in_its_place_and_in_nobody_elses() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        connect(world, f);
        let settled = |world: &World| places(world).iter().filter(|key| key.alias == SETTLED).count();
        assert_eq!(settled(world), 1);
        // One whose place others have taken before it stands.
        let late = (Packet::tcp((f.b, 2001), (f.a, 443), SYN), Packet::tcp((f.b, 2001), (f.a, 443), ACK));
        world.leaves(&b, &late.0.bytes()).redirected();
        world.leaves(&a, &late.0.reply().bytes()).redirected();
        let record = tuple((f.b, 2001), (f.a, 443), proto::TCP);
        let known = world.flow(&record).unwrap();
        for port in 0..world.datapath.config().openings as u16 {
            world.leaves(&b, &Packet::tcp((f.b, 3000 + port), (f.a, 443), SYN).bytes()).redirected();
        }
        assert!(world.flow(&record).is_none(), "nobody had heard its opener again");
        world.datapath.map::<Flows>().unwrap().insert(&record.key().0, &known).unwrap();
        let before = settled(world);
        world.leaves(&b, &late.1.bytes()).redirected();
        assert_eq!(settled(world), before);
        assert_eq!(world.flow(&record).unwrap().state(proto::TCP), State::Established);
    });
}
