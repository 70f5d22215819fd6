// SPDX-License-Identifier: Apache-2.0
//! The link asks for addresses of Services that the node announces.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use abi::l2::{Announced, AnnouncedKey};
use abi::maps;
use datapath::{Kernel, Wire, wire::Links};

use crate::packet::{Packet, Transport, arp, octets};
use crate::world::World;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const EVERYBODY: [u8; 6] = [0xff; 6];
const MINUTE: Duration = Duration::from_secs(60);

const IPV4: [u8; 4] = [192, 0, 2, 240];
const CLIENT4: [u8; 4] = [192, 0, 2, 99];

fn v6(text: &str) -> IpAddr {
    IpAddr::V6(text.parse::<Ipv6Addr>().unwrap())
}

fn ipv6() -> IpAddr {
    v6("2001:db8::12:34f0")
}

fn client6() -> IpAddr {
    v6("2001:db8::99")
}

/// The group in which [`ipv6`] is looked for.
fn group() -> (IpAddr, [u8; 6]) {
    (v6("ff02::1:ff12:34f0"), [0x33, 0x33, 0xff, 0x12, 0x34, 0xf0])
}

/// Announces both addresses on the native device for a minute.
fn announce(world: &World) {
    let until = Links::open().unwrap().since_boot() + MINUTE;
    set(world, world.eth0, until);
}

fn set(world: &World, ifindex: u32, until: Duration) {
    let announced = Announced { mac: OURS, pad: [0; 2], until: u64::try_from(until.as_nanos()).unwrap() };
    let map = world.datapath.map::<maps::Announced>().unwrap();
    for address in [IpAddr::from(IPV4), ipv6()] {
        map.insert(&AnnouncedKey::new(address.into(), ifindex), &announced).unwrap();
    }
}

fn request() -> Vec<u8> {
    arp(1, (ASKER, CLIENT4), ([0; 6], IPV4), EVERYBODY)
}

/// A solicitation with the options that are given.
fn solicitation((src, dst): (IpAddr, IpAddr), target: IpAddr, options: &[u8]) -> Packet {
    let mut packet = Packet::new(src, dst, Transport::Icmp { kind: 135, code: 0, rest: [0; 4] });
    packet.set_payload([&octets(target), options].concat());
    packet.ttl(255).macs(ASKER, group().1)
}

fn asked() -> Packet {
    solicitation((client6(), group().0), ipv6(), &[&[1, 1], ASKER.as_slice()].concat())
}

fn advertisement(to: IpAddr, flags: u8, to_mac: [u8; 6]) -> Vec<u8> {
    let mut packet = Packet::new(ipv6(), to, Transport::Icmp { kind: 136, code: 0, rest: [flags, 0, 0, 0] });
    packet.set_payload([octets(ipv6()), vec![2, 1], OURS.to_vec()].concat());
    packet.ttl(255).macs(OURS, to_mac).bytes()
}

#[test]
fn who_asks_for_an_announced_address_is_answered_with_the_devices_own_hardware_address() {
    World::test(|world| {
        world.arrives(&request()).ignored();
        world.arrives(&asked().bytes()).ignored();
        announce(world);
        world.arrives(&request()).redirected().frame(&arp(2, (OURS, IPV4), (ASKER, CLIENT4), ASKER));
        world.arrives(&asked().bytes()).redirected().frame(&advertisement(client6(), 0x60, ASKER));
        let other = arp(1, (ASKER, CLIENT4), ([0; 6], [192, 0, 2, 241]), EVERYBODY);
        world.arrives(&other).ignored().frame(&other);
    });
}

#[test]
fn an_address_is_announced_on_its_device_only_and_until_it_ends() {
    World::test(|world| {
        let elsewhere = world.add_device("eth1");
        set(world, elsewhere, Links::open().unwrap().since_boot() + MINUTE);
        world.arrives(&request()).ignored();
        set(world, world.eth0, Links::open().unwrap().since_boot());
        world.arrives(&request()).ignored();
        world.arrives(&asked().bytes()).ignored();
        announce(world);
        world.arrives(&request()).redirected();
    });
}

#[test]
fn who_is_about_to_take_the_address_is_told_that_it_is_taken() {
    World::test(|world| {
        announce(world);
        let probe = arp(1, (ASKER, [0; 4]), ([0; 6], IPV4), EVERYBODY);
        world.arrives(&probe).redirected().frame(&arp(2, (OURS, IPV4), (ASKER, [0; 4]), ASKER));
        let probe = solicitation((v6("::"), group().0), ipv6(), &[]);
        let told = advertisement(v6("ff02::1"), 0x20, [0x33, 0x33, 0, 0, 0, 1]);
        world.arrives(&probe.bytes()).redirected().frame(&told);
        // With a nonce, which tells one's own probes from others' (RFC 7527).
        let probe = solicitation((v6("::"), group().0), ipv6(), &[14, 1, 1, 2, 3, 4, 5, 6]);
        world.arrives(&probe.bytes()).redirected().frame(&told);
    });
}

#[test]
fn a_neighbour_that_only_checks_is_answered() {
    World::test(|world| {
        announce(world);
        let unicast = arp(1, (ASKER, CLIENT4), (OURS, IPV4), OURS);
        world.arrives(&unicast).redirected().frame(&arp(2, (OURS, IPV4), (ASKER, CLIENT4), ASKER));
        // Without an option, since the neighbour is known to know.
        let unicast = solicitation((client6(), ipv6()), ipv6(), &[]).macs(ASKER, OURS);
        world.arrives(&unicast.bytes()).redirected().frame(&advertisement(client6(), 0x60, ASKER));
    });
}

#[test]
fn what_is_meant_for_another_hardware_address_is_not_answered() {
    World::test(|world| {
        announce(world);
        world.arrives(&arp(1, (ASKER, CLIENT4), (ASKER, IPV4), [2, 0, 0, 0, 0, 1])).ignored();
        let unicast = solicitation((client6(), ipv6()), ipv6(), &[]).macs(ASKER, [2, 0, 0, 0, 0, 1]);
        world.arrives(&unicast.bytes()).ignored();
    });
}

#[test]
fn who_announces_the_address_or_answers_for_it_is_not_answered() {
    World::test(|world| {
        announce(world);
        let gratuitous = arp(1, (ASKER, IPV4), ([0; 6], IPV4), EVERYBODY);
        world.arrives(&gratuitous).ignored().frame(&gratuitous);
        world.arrives(&arp(2, (ASKER, IPV4), (ASKER, IPV4), EVERYBODY)).ignored();
        let mut advertised = asked();
        advertised.set_icmp_type(136);
        world.arrives(&advertised.bytes()).ignored();
    });
}

#[test]
fn an_answer_goes_to_no_group() {
    World::test(|world| {
        announce(world);
        world.arrives(&arp(1, (EVERYBODY, CLIENT4), ([0; 6], IPV4), EVERYBODY)).ignored();
        world.arrives(&asked().macs(EVERYBODY, group().1).bytes()).ignored();
        let from_group = solicitation((v6("ff02::1"), group().0), ipv6(), &[]);
        world.arrives(&from_group.bytes()).ignored();
    });
}

#[test]
fn malformed_requests_are_left_to_the_stack() {
    World::test(|world| {
        announce(world);
        let request = request();
        // Hardware, protocol, lengths.
        for (at, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16)] {
            let mut bad = request.clone();
            bad[at] = value;
            world.arrives(&bad).ignored().frame(&bad);
        }
        world.arrives(&request[..41]).ignored();
        let padded = [request.as_slice(), &[0; 18]].concat();
        let answer = [arp(2, (OURS, IPV4), (ASKER, CLIENT4), ASKER), vec![0; 18]].concat();
        world.arrives(&padded).redirected().frame(&answer);
    });
}

#[test]
fn malformed_solicitations_are_left_to_the_stack() {
    World::test(|world| {
        announce(world);
        world.arrives(&asked().ttl(64).bytes()).ignored();
        world.arrives(&asked().fragment(7, 0, true).bytes()).ignored();
        let mut code = asked();
        code.transport = Transport::Icmp { kind: 135, code: 1, rest: [0; 4] };
        world.arrives(&code.bytes()).ignored();
        // Another's group, and a probe that is sent to the address itself.
        world.arrives(&solicitation((client6(), v6("ff02::1:ff12:34f1")), ipv6(), &[]).bytes()).ignored();
        world.arrives(&solicitation((v6("::"), ipv6()), ipv6(), &[]).bytes()).ignored();
        let mut short = asked();
        short.set_payload(octets(ipv6())[..12].to_vec());
        world.arrives(&short.bytes()).ignored();
    });
}

#[test]
fn a_request_in_a_vlan_is_none_of_this_device() {
    World::test(|world| {
        announce(world);
        let frame = request();
        let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
        world.arrives(&tagged).ignored().frame(&tagged);
        world.arrives(&asked().vlan(5).bytes()).ignored();
    });
}
