// SPDX-License-Identifier: Apache-2.0
//! Frames that are no good: truncated, lying about themselves, of unknown kinds, tagged, fragmented.

use abi::DropReason;
use abi::flow::proto;
use datapath::bpf::Program;

use crate::packet::{Packet, SYN, Transport, arp};
use crate::world::World;

/// Where the network header starts.
const NETWORK: usize = 14;

#[test]
fn every_truncation_of_a_packet_is_dropped_or_still_has_its_headers() {
    World::test_families(|world, f| {
        let a = world.a;
        let network = if f.a.is_ipv4() { 20 } else { 40 };
        for (packet, transport) in [
            (Packet::tcp((f.a, 1000), (f.b, 80), SYN), 20),
            (Packet::udp((f.a, 1000), (f.b, 53)), 8),
            (Packet::echo_request(f.a, f.b, 7), 8),
        ] {
            let frame = packet.bytes();
            let headers = NETWORK + network + transport;
            // The kernel takes no frame without a network header into a test run.
            for len in NETWORK + network..frame.len() {
                let run = world.leaves(&a, &frame[..len]);
                if len < headers {
                    run.dropped(DropReason::CtTruncatedOrInvalidHeader);
                } else {
                    run.redirected();
                }
            }
        }
    });
}

#[test]
fn a_header_that_lies_about_its_version_or_length_is_dropped() {
    World::test_families(|world, f| {
        let a = world.a;
        let frame = Packet::udp((f.a, 1000), (f.b, 53)).bytes();
        let versions: &[u8] = if f.a.is_ipv4() { &[0x65, 0x44, 0x40, 0x05] } else { &[0x40, 0x00, 0x50] };
        for version in versions {
            let mut frame = frame.clone();
            frame[NETWORK] = *version;
            world.leaves(&a, &frame).dropped(DropReason::InvalidPacketDropped);
        }
    });
}

#[test]
fn an_ipv4_header_with_options_is_walked_over() {
    World::test(|world| {
        let f = crate::world::families()[0];
        let a = world.a;
        let mut frame = Packet::udp((f.a, 1000), (f.b, 53)).bytes();
        // Four bytes of options: no-operation.
        frame[NETWORK] = 0x46;
        frame.splice(NETWORK + 20..NETWORK + 20, [1, 1, 1, 1]);
        let run = world.leaves(&a, &frame);
        assert_eq!(u16::from_be(run.redirected().told().dport), 53);
    });
}

#[test]
fn an_ipv4_header_longer_than_its_packet_is_dropped() {
    World::test(|world| {
        let f = crate::world::families()[0];
        let a = world.a;
        let mut frame = Packet::udp((f.a, 1000), (f.b, 53)).bytes();
        frame[NETWORK] = 0x4f;
        world.leaves(&a, &frame).dropped(DropReason::CtTruncatedOrInvalidHeader);
    });
}

#[test]
fn ipv6_extension_headers_are_walked_over() {
    World::test(|world| {
        let f = crate::world::families()[1];
        let (a, b) = (world.a, world.b);
        let packet =
            Packet::udp((f.a, 1000), (f.b, 53)).extension(0, &[1, 4]).extension(60, &[1, 12]).extension(43, &[0, 0]);
        let run = world.leaves(&a, &packet.bytes());
        run.redirected().packet(&packet.clone().macs(b.host_mac, b.mac).ttl(63));
        assert_eq!((u16::from_be(run.told().dport), run.told().proto), (53, proto::UDP));
    });
}

#[test]
fn too_many_or_endless_ipv6_extension_headers_are_dropped() {
    World::test(|world| {
        let f = crate::world::families()[1];
        let a = world.a;
        let many = (0..5).fold(Packet::udp((f.a, 1000), (f.b, 53)), |packet, _| packet.extension(60, &[1, 4]));
        world.leaves(&a, &many.bytes()).dropped(DropReason::InvalidIpv6ExtensionHeader);
        let mut endless = Packet::udp((f.a, 1000), (f.b, 53)).extension(60, &[1, 4]).bytes();
        endless[NETWORK + 41] = 255;
        world.leaves(&a, &endless).dropped(DropReason::InvalidIpv6ExtensionHeader);
        let cut = Packet::udp((f.a, 1000), (f.b, 53)).extension(60, &[1, 4]).bytes();
        world.leaves(&a, &cut[..NETWORK + 41]).dropped(DropReason::InvalidIpv6ExtensionHeader);
    });
}

#[test]
fn an_ipv4_address_in_an_ipv6_packet_is_an_impostor() {
    World::test(|world| {
        let a = world.a;
        let f = crate::world::families()[1];
        let mapped: std::net::Ipv6Addr = "::ffff:10.0.0.11".parse().unwrap();
        let packet = Packet::udp((mapped.into(), 1000), (f.b, 53));
        world.leaves(&a, &packet.bytes()).dropped(DropReason::InvalidSourceIp);
        let packet = Packet::udp((f.a, 1000), (mapped.into(), 53));
        world.leaves(&a, &packet.bytes()).dropped(DropReason::InvalidSourceIp);
    });
}

#[test]
fn a_protocol_without_ports_that_we_know_is_dropped() {
    World::test_families(|world, f| {
        let a = world.a;
        let packet = Packet::new(f.a, f.b, Transport::Other { proto: 47 });
        world.leaves(&a, &packet.bytes()).dropped(DropReason::CtUnknownL4Protocol);
    });
}

#[test]
fn a_tagged_frame_of_a_pod_is_dropped_and_one_of_the_network_is_none_of_our_business() {
    World::test_families(|world, f| {
        let a = world.a;
        let packet = Packet::udp((f.a, 1000), (f.b, 53)).vlan(100);
        world.leaves(&a, &packet.bytes()).dropped(DropReason::VlanFiltered);
        world.enters(&a, &packet.bytes()).dropped(DropReason::VlanFiltered);
        world.arrives(&packet.bytes()).ignored();
        let overlay = world.overlay;
        world.run(Program::OverlayIngress, overlay, &packet.bytes()).dropped(DropReason::VlanFiltered);
    });
}

#[test]
fn a_frame_that_is_not_ip_does_not_leave_a_pod_and_does_not_come_out_of_the_tunnel() {
    World::test(|world| {
        let (a, overlay) = (world.a, world.overlay);
        // LLDP.
        let mut frame = vec![1, 0x80, 0xc2, 0, 0, 0xe, 2, 0, 0, 0, 0xa, 1, 0x88, 0xcc];
        frame.resize(64, 0);
        world.leaves(&a, &frame).dropped(DropReason::UnsupportedL3Protocol);
        world.run(Program::OverlayIngress, overlay, &frame).dropped(DropReason::UnsupportedL3Protocol);
        let arp = arp(1, ([2; 6], [192, 0, 2, 20]), ([0; 6], [192, 0, 2, 10]), [0xff; 6]);
        world.run(Program::OverlayIngress, overlay, &arp).dropped(DropReason::UnsupportedL3Protocol);
        world.arrives(&frame).ignored();
    });
}

#[test]
fn the_fragments_of_a_datagram_follow_the_first() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let first = Packet::udp((f.a, 1000), (f.b, 53)).fragment(77, 0, true);
        let later = Packet::udp((f.a, 1000), (f.b, 53)).fragment(77, 3, false);
        world.leaves(&a, &later.bytes()).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
        world.leaves(&a, &first.bytes()).redirected().packet(&first.macs(b.host_mac, b.mac).ttl(63));
        world.leaves(&a, &later.bytes()).redirected().packet(&later.clone().macs(b.host_mac, b.mac).ttl(63));
        let other = Packet::udp((f.a, 1000), (f.b, 53)).fragment(78, 3, false);
        world.leaves(&a, &other.bytes()).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
        assert_eq!(world.flows().len(), 1);
    });
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    World::test(|world| {
        let f = crate::world::families()[1];
        let a = world.a;
        let packet = Packet::udp((f.a, 1000), (f.b, 53)).fragment(5, 0, false);
        world.leaves(&a, &packet.bytes()).redirected();
        let later = Packet::udp((f.a, 1000), (f.b, 53)).fragment(5, 3, false);
        world.leaves(&a, &later.bytes()).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
    });
}
