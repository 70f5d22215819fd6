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
        let announcement = arp(1, (a.mac, v4(f.a)), ([0; 6], v4(f.a)), [0xff; 6]);
        world.leaves(&a, &announcement).dropped(DropReason::InvalidPacketDropped);
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

#[test]
fn a_pod_that_checks_for_a_duplicate_of_its_address_finds_none() {
    World::test(|world| {
        let [_, f] = families();
        let a = world.a;
        let probe = neighbour(135, ("::".parse().unwrap(), "ff02::1:ff00:11".parse().unwrap()), 0, f.a, (1, a.mac));
        world.leaves(&a, &probe.bytes()).dropped(DropReason::ForbiddenIcmpv6Message);
    });
}

#[test]
fn advertisements_and_redirects_do_not_leave_a_pod() {
    World::test(|world| {
        let a = world.a;
        for kind in [134, 136, 137] {
            world.leaves(&a, &link_message(world, kind)).dropped(DropReason::ForbiddenIcmpv6Message);
        }
    });
}

#[test]
fn what_every_interface_says_by_itself_is_nobodys_drop() {
    World::test(|world| {
        let a = world.a;
        for kind in [130, 131, 132, 133, 143] {
            world.leaves(&a, &link_message(world, kind)).passed();
        }
    });
}

fn link_message(world: &World, kind: u8) -> Vec<u8> {
    let [_, f] = families();
    neighbour(kind, (f.a, "ff02::1".parse().unwrap()), 0, f.a, (2, world.a.mac)).bytes()
}
