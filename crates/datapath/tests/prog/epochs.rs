// SPDX-License-Identifier: Apache-2.0
//! What is remembered stands until something that it depends on moves, and no longer.

use std::net::IpAddr;

use crate::packet::{Packet, SYN};
use crate::world::{Family, World, full};

/// The identity that was remembered for a peer of pod A.
fn known_as(world: &World, peer: IpAddr) -> u32 {
    world.flows().into_iter().find(|(key, _)| key.dst == peer.into()).unwrap().1.dst_identity
}

fn ask(world: &mut World, f: Family, peer: IpAddr) {
    let a = world.a;
    world.leaves(&a, &Packet::tcp((f.a, 1000), (peer, 80), SYN).bytes()).redirected();
}

#[test]
fn a_change_of_one_address_leaves_the_flows_of_others() {
    World::test_families(|world, f| {
        let peers = [f.remote, f.world];
        peers.iter().for_each(|peer| ask(world, f, *peer));
        let before = peers.map(|peer| known_as(world, peer));
        peers.iter().for_each(|peer| world.set_identity((*peer, full(*peer)), 3003, None));
        world.epochs.bump_peer(f.remote).unwrap();
        peers.iter().for_each(|peer| ask(world, f, *peer));
        assert_eq!(peers.map(|peer| known_as(world, peer)), [3003, before[1]]);
        world.epochs.bump_node().unwrap();
        peers.iter().for_each(|peer| ask(world, f, *peer));
        assert_eq!(peers.map(|peer| known_as(world, peer)), [3003, 3003]);
    });
}

#[test]
fn a_change_of_an_address_is_seen_in_what_arrives_from_it_too() {
    World::test_families(|world, f| {
        let b = world.b;
        let packet = Packet::udp((f.node2, 1000), (f.b, 53));
        let known =
            |world: &World| world.flows().iter().find(|(key, _)| key.src == f.node2.into()).unwrap().1.src_identity;
        world.enters(&b, &packet.bytes()).passed();
        let before = known(world);
        world.set_identity((f.node2, full(f.node2)), 3003, None);
        world.enters(&b, &packet.bytes()).passed();
        assert_eq!(known(world), before);
        world.epochs.bump_peer(f.node2).unwrap();
        world.enters(&b, &packet.bytes()).passed();
        assert_eq!(known(world), 3003);
    });
}

#[test]
fn a_flow_follows_its_route_to_another_device() {
    World::test_families(|world, f| {
        let way_out = |world: &World| {
            world.flows().iter().find(|(key, _)| key.dst == f.world.into()).unwrap().1.forward.out_ifindex
        };
        ask(world, f, f.world);
        assert_eq!(way_out(world), world.eth0);
        let other = world.b.ifindex;
        world.set_route(f.world, other);
        world.epochs.bump_node().unwrap();
        ask(world, f, f.world);
        assert_eq!(way_out(world), other);
    });
}
