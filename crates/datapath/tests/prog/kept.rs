// SPDX-License-Identifier: Apache-2.0
//! What the kernel would not send on. It may keep it: what is for all on a network of the node, for any router of it (RFC 4291, 2.6.1), or for
//! an address that nobody has told the programs of yet. None of it is the world.

use abi::endpoint::flags::EGRESS_ENFORCED;
use abi::flow::proto;
use abi::policy::EGRESS;
use abi::{DropReason, identity};
use std::net::IpAddr;

use crate::devices;
use crate::outside::{answer, refused};
use crate::packet::{Packet, SYN};
use crate::world::{Family, World};

const NO_ROUTE: [(u8, u8); 2] = [(3, 0), (1, 0)];

/// Destinations that the stack keeps, and one that it has no route to.
fn destinations(f: &Family) -> [IpAddr; 4] {
    let (texts, nowhere) = if f.a.is_ipv4() {
        (["192.0.2.77", "169.254.7.7", "192.0.2.255", "203.0.113.1"], "203.0.113.0/24")
    } else {
        (["2001:db8::77", "fe80::77", "2001:db8::", "2001:db8:1::1"], "2001:db8:1::/64")
    };
    let [of_node, of_link, of_all, unreachable] = texts.map(|ip| ip.parse().unwrap());
    devices::add_address("eth0", of_node);
    devices::add_address("lxc_a", of_link);
    devices::here(&format!("ip route replace throw {nowhere}"));
    [of_node, of_link, of_all, unreachable]
}

#[test]
fn who_may_not_speak_to_the_node_is_told_that_there_is_no_way() {
    World::test_families(|world, f| {
        let a = world.a;
        let destinations = destinations(&f);
        world.set_pod(&a, EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), identity::WORLD, (0, 0), false);
        world.add_rule((&a, EGRESS), identity::HOST, (proto::TCP, 53), false);
        for dst in destinations {
            for packet in [Packet::udp((f.a, 1000), (dst, 53)), Packet::tcp((f.a, 1000), (dst, 54), SYN)] {
                let run = world.leaves(&a, &packet.bytes());
                refused(&run, DropReason::FibLookupFailed, &answer(&packet, NO_ROUTE, 0));
                assert_eq!(run.events[0].dst_identity, identity::HOST, "{dst}");
            }
            world.leaves(&a, &Packet::echo_request(f.a, dst, 7).bytes()).dropped(DropReason::FibLookupFailed);
        }
        assert!(world.flows().is_empty());
    });
}

#[test]
fn the_stack_has_what_comes_from_those_who_may_speak_to_the_node() {
    World::test_families(|world, f| {
        let a = world.a;
        let destinations = destinations(&f);
        for (flags, port) in [(0, 1000), (EGRESS_ENFORCED, 1001)] {
            world.set_pod(&a, flags);
            world.add_rule((&a, EGRESS), identity::WORLD, (0, 0), false);
            world.add_rule((&a, EGRESS), identity::HOST, (proto::UDP, 53), false);
            for dst in destinations {
                let packet = Packet::udp((f.a, port), (dst, 53));
                world.leaves(&a, &packet.bytes()).passed().packet(&packet);
            }
        }
    });
}
