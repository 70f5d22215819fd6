// SPDX-License-Identifier: Apache-2.0
//! Later fragments go where the first of their datagram went: of that datagram alone, from where it came.

use abi::DropReason;
use abi::flow::proto;
use abi::fragments::PLACES;

use crate::packet::{Packet, Transport};
use crate::world::World;

const NO_FIRST: DropReason = DropReason::FirstLogicalDatagramFragmentNotFound;

#[test]
fn a_later_fragment_of_another_sender_follows_nobody() {
    World::test_families(|world, f| {
        let a = world.a;
        let datagram = |src| Packet::udp((src, 53), (f.a, 1000));
        world.arrives(&datagram(f.world).fragment(7, 0, true).bytes()).redirected();
        let later = datagram(f.stranger).fragment(7, 3, false);
        world.arrives(&later.bytes()).ignored().packet(&later);
        let later = datagram(f.world).fragment(7, 3, false);
        world.arrives(&later.bytes()).redirected().packet(&later.macs(a.host_mac, a.mac).ttl(63));
    });
}

#[test]
fn datagrams_of_two_protocols_with_one_number_are_two() {
    World::test_families(|world, f| {
        let a = world.a;
        world.leaves(&a, &Packet::udp((f.a, 1000), (f.b, 53)).fragment(7, 0, true).bytes()).redirected();
        let other = Packet::new(f.a, f.b, Transport::Other { proto: proto::TCP });
        world.leaves(&a, &other.fragment(7, 3, false).bytes()).dropped(NO_FIRST);
    });
}

/// Their addresses are, and nothing that looks like a port.
#[test]
fn later_fragments_of_a_translated_flow_are_translated() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        crate::state::serve(world, 1, (f.service, 53), (f.b, 8080), proto::UDP);
        let request = Packet::udp((f.a, 1000), (f.service, 53));
        let first = request.clone().fragment(7, 0, true);
        world.leaves(&a, &first.bytes()).redirected();
        let later = request.fragment(7, 3, false);
        let seen = later.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
        world.leaves(&a, &later.bytes()).redirected().packet(&seen);
    });
}

/// What a sender remembers no more are datagrams of its own.
#[test]
fn a_flood_of_first_fragments_costs_whoever_sends_it() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let parts = |packet: Packet| [packet.clone().fragment(7, 0, true), packet.fragment(7, 3, false)];
        let [first, later] = parts(Packet::udp((f.a, 1000), (f.world, 53)));
        let [first_in, later_in] = parts(Packet::udp((f.world, 54), (f.a, 2000)));
        world.leaves(&a, &first.bytes()).redirected();
        world.arrives(&first_in.bytes()).redirected();
        let flood = Packet::udp((f.b, 1000), (f.a, 53));
        for id in 0..2 * PLACES {
            world.leaves(&b, &flood.clone().fragment(id, 0, true).bytes()).redirected();
        }
        world.leaves(&a, &later.bytes()).redirected();
        world.arrives(&later_in.bytes()).redirected();
        world.leaves(&b, &flood.clone().fragment(2 * PLACES - 1, 3, false).bytes()).redirected();
        world.leaves(&b, &flood.fragment(PLACES - 1, 3, false).bytes()).dropped(NO_FIRST);
    });
}
