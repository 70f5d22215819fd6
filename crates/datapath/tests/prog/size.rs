// SPDX-License-Identifier: Apache-2.0
//! What is as long as its way allows, and what is longer.

use abi::DropReason;
use abi::config::ProgramConfig;
use abi::flow::proto;
use datapath::bpf::Options;
use std::net::IpAddr;

use crate::outside::{answer, do_not_cut, refused};
use crate::packet::Packet;
use crate::state::serve;
use crate::world::{Family, World, families};

const MTU: usize = 1500;
/// Outer headers over IPv4, and the inner Ethernet header.
const TUNNEL: usize = 50;

/// A datagram of that length from its network header on.
fn datagram(f: Family, dst: IpAddr, len: usize) -> Vec<u8> {
    let mut packet = Packet::udp((f.a, 40001), (dst, 53));
    packet.set_payload(vec![0; len - 8 - if f.a.is_ipv4() { 20 } else { 40 }]);
    packet.bytes()
}

#[test]
fn what_fits_is_sent_and_what_does_not_is_the_stacks_to_answer() {
    let config = ProgramConfig { direct_tunnel: 1, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, |world| {
        for f in families() {
            world.reset();
            let a = world.a;
            for (dst, mtu) in [(f.world, MTU), (f.remote, MTU - TUNNEL)] {
                // The first of a flow, and one that is known.
                for _ in 0..2 {
                    world.leaves(&a, &datagram(f, dst, mtu)).redirected();
                }
                let mut long = datagram(f, dst, mtu + 1);
                if f.a.is_ipv4() {
                    // What might be cut up would go on under a name that it must not have. Its sender can cut it up.
                    let mut too_big = answer(&Packet::udp((f.a, 40001), (dst, 53)), [(3, 4), (2, 0)], mtu as u16);
                    too_big.set_payload(long[14..42].to_vec());
                    refused(&world.leaves(&a, &long), DropReason::CtMissingTcpAckFlag, &too_big);
                    long[20] |= 0x40;
                }
                world.leaves(&a, &long).passed().frame(&long);
            }
        }
    });
}

/// The stack would take a port of the node for its own, and send to the world what is for a service's address.
#[test]
fn what_a_service_cannot_be_sent_is_answered_and_not_left_to_the_stack() {
    let config = ProgramConfig { direct_tunnel: 1, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, |world| {
        for f in families() {
            let a = world.a;
            for (id, service) in [(1, f.service), (2, f.node)] {
                world.reset();
                serve(world, id, (service, 53), (f.remote, 53), proto::UDP);
                let request = Packet::udp((f.a, 40001), (service, 53));
                let mut long = datagram(f, service, MTU - TUNNEL + 1);
                do_not_cut(&mut long);
                let mut too_big = answer(&request, [(3, 4), (2, 0)], (MTU - TUNNEL) as u16);
                too_big.set_payload(long[14..14 + if f.a.is_ipv4() { 28 } else { 48 }].to_vec());
                let far = request.clone().ttl(1);
                // The first of a flow, and one that is known.
                for _ in 0..2 {
                    refused(&world.leaves(&a, &long), DropReason::CtMissingTcpAckFlag, &too_big);
                    let run = world.leaves(&a, &far.bytes());
                    refused(&run, DropReason::TtlExceeded, &answer(&far, [(11, 0), (3, 0)], 0));
                }
                world.leaves(&a, &request.bytes()).redirected();
            }
        }
    });
}
