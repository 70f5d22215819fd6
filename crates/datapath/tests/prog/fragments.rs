// SPDX-License-Identifier: Apache-2.0
//! Later fragments go where the first of their datagram went: of that datagram alone, from where it came.

use abi::DropReason;
use abi::flow::proto;
use abi::fragments::PLACES;

use crate::packet::{Packet, SYN, Transport};
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

/// Where the length of such a fragment is, and what of it is in front of the transport.
fn length_at(packet: &Packet) -> (usize, u16) {
    if packet.src.is_ipv4() { (16, 20) } else { (18, 8) }
}

/// The receiver cuts that off, and finds the true ports in the next fragment (RFC 7112).
#[test]
fn what_looks_like_ports_behind_the_end_of_a_first_fragment_is_none() {
    World::test_families(|world, f| {
        let a = world.a;
        for (packet, header) in [
            (Packet::udp((f.a, 1000), (f.b, 53)), 8),
            (Packet::tcp((f.a, 1000), (f.b, 53), SYN), 20),
            (Packet::sctp((f.a, 1000), (f.b, 53)), 8),
            (Packet::echo_request(f.a, f.b, 7), 8),
        ] {
            let (at, network) = length_at(&packet);
            let later = packet.clone().fragment(7, 3, false).bytes();
            let mut first = packet.fragment(7, 0, true).bytes();
            for len in [0, 4, header - 1] {
                first[at..][..2].copy_from_slice(&(network + len).to_be_bytes());
                world.leaves(&a, &first).dropped(DropReason::CtTruncatedOrInvalidHeader);
                world.leaves(&a, &later).dropped(NO_FIRST);
            }
            first[at..][..2].copy_from_slice(&(network + header).to_be_bytes());
            world.leaves(&a, &first).redirected();
            world.leaves(&a, &later).redirected();
            world.clear_flows();
        }
    });
}

/// Headers that lead to the transport are part of the first fragment, too, all of them.
#[test]
fn options_that_go_on_behind_the_end_of_a_first_fragment_lead_nowhere() {
    World::test_families(|world, f| {
        if f.a.is_ipv4() {
            return;
        }
        let a = world.a;
        let mut packet = Packet::udp((f.a, 1000), (f.b, 53));
        for body in [[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            packet = packet.extension(60, &body);
        }
        let mut first = packet.fragment(7, 0, true).bytes();
        let whole = u16::from_be_bytes([first[18], first[19]]);
        for cut in [17, 24, 32, 48] {
            first[18..20].copy_from_slice(&(whole - cut).to_be_bytes());
            world.leaves(&a, &first).dropped(DropReason::CtTruncatedOrInvalidHeader);
        }
        first[18..20].copy_from_slice(&whole.to_be_bytes());
        world.leaves(&a, &first).redirected();
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
