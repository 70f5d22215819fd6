// SPDX-License-Identifier: Apache-2.0
//! A pod asks for its gateway's hardware address: ARP and neighbour discovery.

use abi::DropReason;
use std::net::IpAddr;

use crate::packet::{Packet, Transport, arp, octets};
use crate::world::{World, families};

fn v4(ip: IpAddr) -> [u8; 4] {
    octets(ip).try_into().unwrap()
}

#[test]
fn whatever_address_a_pod_asks_for_the_host_side_answers() {
    World::test(|world| {
        let [f, _] = families();
        let a = world.a;
        for target in [f.node, f.b, f.world] {
            let request = arp(1, (a.mac, v4(f.a)), ([0; 6], v4(target)), [0xff; 6]);
            let reply = arp(2, (a.host_mac, v4(target)), (a.mac, v4(f.a)), a.mac);
            world.leaves(&a, &request).redirected().frame(&reply);
        }
    });
}

#[test]
fn a_pod_that_announces_itself_or_answers_is_not_answered() {
    World::test(|world| {
        let [f, _] = families();
        let a = world.a;
        for operation in [1, 2] {
            let announcement = arp(operation, (a.mac, v4(f.a)), ([0; 6], v4(f.a)), [0xff; 6]);
            world.leaves(&a, &announcement).taken();
            let of_another = arp(operation, (a.mac, v4(f.b)), ([0; 6], v4(f.b)), [0xff; 6]);
            world.leaves(&a, &of_another).dropped(DropReason::InvalidPacketDropped);
        }
        let reply = arp(2, (a.mac, v4(f.a)), (a.host_mac, v4(f.node)), a.host_mac);
        world.leaves(&a, &reply).dropped(DropReason::InvalidPacketDropped);
        let request = arp(1, (a.mac, v4(f.a)), ([0; 6], v4(f.node)), [0xff; 6]);
        world.leaves(&a, &request[..30]).dropped(DropReason::InvalidPacketDropped);
    });
}

#[test]
fn the_host_may_ask_a_pod() {
    World::test(|world| {
        let [f, _] = families();
        let a = world.a;
        let request = arp(1, (a.host_mac, v4(f.node)), ([0; 6], v4(f.a)), [0xff; 6]);
        world.enters(&a, &request).passed().frame(&request);
        world.arrives(&request).ignored();
    });
}

/// A neighbour message: flags, target, and one link-layer address option.
fn neighbour(kind: u8, (src, dst): (IpAddr, IpAddr), flags: u8, target: IpAddr, option: (u8, [u8; 6])) -> Packet {
    let mut packet = Packet::new(src, dst, Transport::Icmp { kind, code: 0, rest: [flags, 0, 0, 0] });
    packet.set_payload([octets(target), vec![option.0, 1], option.1.to_vec()].concat());
    packet.ttl(255)
}

#[test]
fn whatever_ipv6_address_a_pod_asks_for_the_host_side_answers() {
    World::test(|world| {
        let [_, f] = families();
        let a = world.a;
        let multicast = "ff02::1:ff00:1".parse().unwrap();
        for target in ["fe80::1".parse().unwrap(), f.b, f.world] {
            let solicitation =
                neighbour(135, (f.a, multicast), 0, target, (1, a.mac)).macs(a.mac, [0x33, 0x33, 0, 0, 0, 1]);
            let advertisement = neighbour(136, (target, f.a), 0x60, target, (2, a.host_mac)).macs(a.host_mac, a.mac);
            world.leaves(&a, &solicitation.bytes()).redirected().packet(&advertisement);
        }
    });
}

/// A solicitation may have more options than one (RFC 4861, 4.3).
#[test]
fn an_answer_is_no_longer_than_what_it_says() {
    World::test(|world| {
        let [_, f] = families();
        let a = world.a;
        let to = "ff02::1:ff00:1".parse().unwrap();
        let gateway: IpAddr = "fe80::1".parse().unwrap();
        let mut solicitation = neighbour(135, (f.a, to), 0, gateway, (1, a.mac)).macs(a.mac, [0x33, 0x33, 0, 0, 0, 1]);
        // A nonce (RFC 3971, 5.3.2).
        solicitation.set_payload([octets(gateway), vec![1, 1], a.mac.to_vec(), vec![14, 1, 1, 2, 3, 4, 5, 6]].concat());
        let advertisement = neighbour(136, (gateway, f.a), 0x60, gateway, (2, a.host_mac)).macs(a.host_mac, a.mac);
        let expected = advertisement.bytes();
        let run = world.leaves(&a, &solicitation.bytes());
        assert_eq!(run.redirected().frame[..expected.len()], expected);
    });
}

#[test]
fn a_pod_that_checks_for_a_duplicate_of_its_address_finds_none() {
    World::test(|world| {
        let [v4, f] = families();
        let a = world.a;
        let multicast = "ff02::1:ff00:11".parse().unwrap();
        let probe = |src| neighbour(135, (src, multicast), 0, f.a, (1, a.mac)).bytes();
        world.leaves(&a, &probe("::".parse().unwrap())).taken();
        world.leaves(&a, &probe(f.a)).taken();
        for sender in [[0; 4], self::v4(v4.node)] {
            world.leaves(&a, &arp(1, (a.mac, sender), ([0; 6], self::v4(v4.a)), [0xff; 6])).taken();
        }
    });
}

#[test]
fn a_request_that_is_not_as_it_should_be_is_not_answered() {
    World::test(|world| {
        let [v4, f] = families();
        let a = world.a;
        let mut lengths = arp(1, (a.mac, self::v4(v4.a)), ([0; 6], self::v4(v4.node)), [0xff; 6]);
        lengths[19] = 16;
        world.leaves(&a, &lengths).dropped(DropReason::InvalidPacketDropped);
        let multicast: IpAddr = "ff02::1:ff00:1".parse().unwrap();
        let asked = || neighbour(135, (f.a, multicast), 0, f.b, (1, a.mac));
        world.leaves(&a, &asked().bytes()).redirected();
        world.leaves(&a, &asked().fragment(7, 0, true).bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
        let mut code = asked();
        code.transport = Transport::Icmp { kind: 135, code: 1, rest: [0; 4] };
        world.leaves(&a, &code.bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
        // The answer is written over the option, which is not there.
        let mut bare = asked();
        bare.set_payload(octets(f.b));
        world.leaves(&a, &bare.bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
    });
}

#[test]
fn advertisements_and_redirects_do_not_leave_a_pod() {
    World::test(|world| {
        let [_, f] = families();
        let a = world.a;
        for kind in [134, 137] {
            world.leaves(&a, &link_message(world, kind).bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
        }
        // Nor does it speak for others; of itself it may tell whoever is on the link, which is nobody.
        let group = "ff02::1".parse().unwrap();
        let of_another = neighbour(136, (f.a, group), 0x20, f.b, (2, a.mac));
        world.leaves(&a, &of_another.bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
        world.leaves(&a, &neighbour(136, (f.a, group), 0x20, f.a, (2, a.mac)).bytes()).taken();
    });
}

#[test]
fn what_every_interface_says_by_itself_is_nobodys_drop() {
    World::test(|world| {
        let a = world.a;
        for (kind, hops) in [(130, 1), (131, 1), (132, 1), (133, 255), (143, 1)] {
            world.leaves(&a, &link_message(world, kind).ttl(hops).bytes()).taken();
        }
        let [f, _] = families();
        let report = |to: &str| Packet::new(f.a, to.parse().unwrap(), Transport::Other { proto: 2 }).ttl(1);
        world.leaves(&a, &report("224.0.0.22").bytes()).taken();
        world.leaves(&a, &report("239.1.2.3").bytes()).taken();
        for packet in [report("224.0.0.22").ttl(2), report("10.0.0.1")] {
            world.leaves(&a, &packet.bytes()).dropped(DropReason::CtUnknownL4Protocol);
        }
    });
}

#[test]
fn a_message_of_the_link_goes_to_nobody_else() {
    World::test(|world| {
        let [_, f] = families();
        let a = world.a;
        world.set_pod(&a, abi::endpoint::flags::EGRESS_ENFORCED);
        let group = "ff02::1".parse().unwrap();
        for kind in [130, 131, 132, 133, 143] {
            for (src, dst, hops) in [
                (f.a, f.world, 64),
                (f.node, f.b, 255),
                (f.b, f.remote, 1),
                (f.stranger, f.node, 255),
                (f.a, "ff05::1".parse().unwrap(), 1),
                (f.a, group, 64),
            ] {
                let packet = Packet::new(src, dst, Transport::Icmp { kind, code: 0, rest: [0; 4] }).ttl(hops);
                world.leaves(&a, &packet.bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
            }
        }
        // A neighbour is asked for on the link alone.
        let far = neighbour(135, (f.a, group), 0, f.b, (1, a.mac)).ttl(64);
        world.leaves(&a, &far.bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
    });
}

fn link_message(world: &World, kind: u8) -> Packet {
    let [_, f] = families();
    neighbour(kind, (f.a, "ff02::1".parse().unwrap()), 0, f.a, (2, world.a.mac))
}
