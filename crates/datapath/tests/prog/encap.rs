// SPDX-License-Identifier: Apache-2.0
//! The outer headers that the programs write, and what they take off.

use abi::config::ProgramConfig;
use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::flow::{half, proto};
use abi::ipcache::IpcacheEntry;
use abi::ipcache::flags::NODE;
use abi::policy::INGRESS;
use abi::{Addr, DropReason, identity};
use datapath::bpf::Options;

use crate::packet::{ACK, Packet, SYN, checksum};
use crate::wire::vxlan;
use crate::world::{Family, REMOTE_IDENTITY, World, families, full, tuple};

/// Ethernet, IPv4, UDP and VXLAN, before the inner frame.
const OVER_IPV4: usize = 14 + 20 + 8 + 8;

/// Runs the test for inner packets of each family, where the programs make and take off outer headers.
fn test(test: impl Fn(&mut World, Family) + Send + 'static) {
    let config = ProgramConfig { direct_tunnel: 1, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, move |world| {
        for f in families() {
            world.reset();
            test(world, f);
        }
    });
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// A frame with these two bits of congestion.
fn marked(mut frame: Vec<u8>, ecn: u8) -> Vec<u8> {
    frame[15] |= if frame[12..14] == [8, 0] { ecn } else { ecn << 4 };
    frame
}

#[test]
fn the_outer_headers_have_right_lengths_and_checksums_and_congestion() {
    test(|world, f| {
        let a = world.a;
        for ecn in 0..4 {
            let frame = marked(Packet::udp((f.a, 1000), (f.remote, 53)).bytes(), ecn);
            let run = world.leaves(&a, &frame);
            let sent = &run.redirected().frame;
            assert_eq!(sent.len(), frame.len() + OVER_IPV4);
            assert_eq!((&sent[12..14], usize::from(word(sent, 16))), (&[8, 0][..], sent.len() - 14));
            assert_eq!((checksum(&sent[14..34]), sent[15] & 3), ([0, 0], ecn));
            assert_eq!((word(sent, 36), usize::from(word(sent, 38))), (8472, sent.len() - 34));
            assert_eq!(sent[42..50], [&[8, 0, 0, 0][..], &(a.identity << 8).to_be_bytes()].concat());
        }
    });
}

#[test]
fn congestion_is_told_outside_over_ipv6_too() {
    test(|world, f| {
        let a = world.a;
        world.set_identity((f.remote, full(f.remote)), REMOTE_IDENTITY, Some(families()[1].node2));
        let frame = marked(Packet::udp((f.a, 1000), (f.remote, 53)).bytes(), 2);
        let run = world.leaves(&a, &frame);
        let sent = &run.redirected().frame;
        assert_eq!((&sent[12..14], sent[15] >> 4 & 3), (&[0x86, 0xdd][..], 2));
        assert_eq!(usize::from(word(sent, 18)), sent.len() - 54);
    });
}

#[test]
fn flows_are_spread_by_their_outer_source_ports() {
    test(|world, f| {
        let a = world.a;
        let mut port = |sport| {
            let run = world.leaves(&a, &Packet::udp((f.a, sport), (f.remote, 53)).bytes());
            word(&run.redirected().frame, 34)
        };
        let ports: std::collections::BTreeSet<u16> = (1000..1020).map(&mut port).collect();
        assert!(ports.len() > 10 && ports.iter().all(|port| *port >= 49152), "{ports:?}");
        assert_eq!(port(1000), port(1000));
    });
}

/// What the kernel is asked for its next hop is not a neighbour.
#[test]
fn a_node_behind_a_router_is_no_neighbour() {
    test(|world, f| {
        let a = world.a;
        let request = Packet::udp((f.a, 1000), (f.remote, 53));
        for (node, flags) in [(families()[0].node2, half::ON_LINK), (families()[0].world, 0)] {
            world.set_identity((f.remote, full(f.remote)), REMOTE_IDENTITY, Some(node));
            world.epochs.bump_node().unwrap();
            world.leaves(&a, &request.bytes()).redirected();
            let flow = world.flow(&tuple((f.a, 1000), (f.remote, 53), proto::UDP)).unwrap();
            assert_eq!(flow.forward.flags & half::ON_LINK, flags, "{node}");
        }
    });
}

/// Under any of its addresses it speaks for those that are behind it.
#[test]
fn a_node_with_two_addresses_may_send_from_both() {
    test(|world, f| {
        let a = world.a;
        let [v4, _] = families();
        let inner = Packet::udp((f.remote, 53), (f.a, 1000));
        let mut outer = Packet::udp((v4.stranger, 50000), (v4.node, 8472));
        outer.set_payload(vxlan(REMOTE_IDENTITY, &inner));
        world.arrives(&outer.bytes()).dropped(DropReason::UnknownSender);
        let entry = IpcacheEntry { identity: 5001, tunnel: v4.node2.into(), flags: NODE, ..IpcacheEntry::default() };
        world.set_ipcache(v4.stranger, 32, entry);
        world.arrives(&outer.bytes()).redirected().packet(&inner.macs(a.host_mac, a.mac).ttl(63));
        // Not for those who are behind another.
        world.set_identity((f.remote, full(f.remote)), REMOTE_IDENTITY, Some(v4.world));
        world.epochs.bump_node().unwrap();
        world.arrives(&outer.bytes()).dropped(DropReason::InvalidSourceIp);
        world.set_identity((v4.stranger, 32), identity::WORLD, None);
        world.set_identity((f.remote, full(f.remote)), REMOTE_IDENTITY, Some(v4.node2));
    });
}

#[test]
fn what_is_not_plain_is_left_to_the_tunnel_device() {
    test(|world, f| {
        let a = world.a;
        let [v4, _] = families();
        let inner = Packet::udp((f.remote, 53), (f.a, 1000));
        let outer = |dst| {
            let mut outer = Packet::udp((v4.node2, 50000), (dst, 8472));
            outer.set_payload(vxlan(REMOTE_IDENTITY, &inner));
            outer
        };
        let plain = outer(v4.node).bytes();
        world.arrives(&marked(plain.clone(), 3)).ignored();
        world.arrives(&outer(v4.stranger).bytes()).ignored();
        world.arrives(&outer(v4.node).fragment(7, 0, true).bytes()).ignored();
        let mut without_identity = plain.clone();
        without_identity[OVER_IPV4 - 8] = 0;
        world.arrives(&without_identity).ignored();
        let for_the_node = Packet::udp((f.remote, 53), (f.node, 1000));
        let mut frame = Packet::udp((v4.node2, 50000), (v4.node, 8472));
        frame.set_payload(vxlan(REMOTE_IDENTITY, &for_the_node));
        world.arrives(&frame.bytes()).ignored().packet(&frame);
        world.arrives(&plain).redirected().packet(&inner.macs(a.host_mac, a.mac).ttl(63));
    });
}

/// A packet as another node sends it here.
fn arrival(vni: u32, inner: &Packet) -> Vec<u8> {
    let [v4, _] = families();
    Packet::udp((v4.node2, 50000), (v4.node, 8472)).payload(&vxlan(vni, inner)).bytes()
}

/// It would be answered into the tunnel.
#[test]
fn nobody_asks_from_the_port_of_the_tunnel() {
    test(|world, f| {
        let question = Packet::udp((f.remote, 8472), (f.a, 53));
        world.arrives(&arrival(REMOTE_IDENTITY, &question)).dropped(DropReason::EncapsulationTrafficIsProhibited);
        let question = Packet::udp((f.world, 8472), (f.a, 53));
        world.arrives(&question.bytes()).dropped(DropReason::EncapsulationTrafficIsProhibited);
    });
}

/// A node does not know that it is the API server's, so none says so.
#[test]
fn nobody_comes_in_the_name_of_the_api_server() {
    test(|world, f| {
        let question = Packet::udp((f.remote, 1000), (f.a, 53));
        world.arrives(&arrival(identity::KUBE_APISERVER, &question)).dropped(DropReason::InvalidIdentity);
        world.set_ipcache(f.node2, full(f.node2), of_node(f, identity::KUBE_APISERVER));
        let question = Packet::udp((f.node2, 1000), (f.a, 53));
        world.arrives(&arrival(identity::KUBE_APISERVER, &question)).dropped(DropReason::InvalidIdentity);
        world.arrives(&arrival(identity::REMOTE_NODE, &question)).redirected();
    });
}

/// The entry of an address of the other node.
fn of_node(f: Family, identity: u32) -> IpcacheEntry {
    let [v4, _] = families();
    let tunnel = if f.a.is_ipv4() { Addr::NONE } else { v4.node2.into() };
    IpcacheEntry { identity, tunnel, flags: NODE, ..IpcacheEntry::default() }
}

/// The server speaks first after its client is no API server any more.
#[test]
fn a_reply_does_not_keep_what_a_node_was() {
    test(|world, f| {
        let a = world.a;
        let name = |world: &World, identity| {
            world.set_ipcache(f.node2, full(f.node2), of_node(f, identity));
            world.epochs.bump_peer(f.node2).unwrap();
        };
        world.set_pod(&a, INGRESS_ENFORCED);
        world.add_rule((&a, INGRESS), identity::KUBE_APISERVER, (proto::TCP, 80), false);
        for client_speaks in [false, true] {
            world.clear_flows();
            name(world, identity::KUBE_APISERVER);
            let segment = |flags| Packet::tcp((f.node2, 1000), (f.a, 80), flags);
            world.arrives(&arrival(identity::REMOTE_NODE, &segment(SYN))).redirected();
            let push = segment(SYN).reply().bytes();
            world.leaves(&a, &push).redirected();
            name(world, identity::REMOTE_NODE);
            if client_speaks {
                let refused = world.arrives(&arrival(identity::REMOTE_NODE, &segment(ACK)));
                refused.dropped(DropReason::PolicyDenied);
            }
            world.leaves(&a, &push).dropped(DropReason::PolicyDenied);
            world.arrives(&arrival(identity::REMOTE_NODE, &segment(ACK))).dropped(DropReason::PolicyDenied);
        }
    });
}

/// Another pod has the address of one that nobody has told of, and is refused: by a reply it does not become the one of before.
#[test]
fn a_reply_does_not_let_in_who_was_refused_by_another_name() {
    test(|world, f| {
        let a = world.a;
        let [v4, _] = families();
        world.set_identity((f.remote, full(f.remote)), identity::WORLD, Some(v4.node2));
        world.set_pod(&a, INGRESS_ENFORCED);
        world.add_rule((&a, INGRESS), REMOTE_IDENTITY, (proto::TCP, 80), false);
        let segment = |flags| Packet::tcp((f.remote, 1000), (f.a, 80), flags);
        world.arrives(&arrival(REMOTE_IDENTITY, &segment(SYN))).redirected();
        let push = segment(SYN).reply().bytes();
        world.leaves(&a, &push).redirected();
        // What it said stands for as long as nobody says otherwise, also when the decision is made anew.
        world.epochs.bump_endpoint(a.id).unwrap();
        world.leaves(&a, &push).redirected();
        world.arrives(&arrival(REMOTE_IDENTITY, &segment(ACK))).redirected();
        world.arrives(&arrival(REMOTE_IDENTITY + 1, &segment(ACK))).dropped(DropReason::PolicyDenied);
        world.leaves(&a, &push).dropped(DropReason::PolicyDenied);
        world.arrives(&arrival(REMOTE_IDENTITY + 1, &segment(ACK))).dropped(DropReason::PolicyDenied);
        world.set_identity((f.remote, full(f.remote)), REMOTE_IDENTITY, Some(v4.node2));
    });
}
