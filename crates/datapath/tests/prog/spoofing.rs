// SPDX-License-Identifier: Apache-2.0
//! Nobody gets in under another's name, from the wire or from a pod.

use abi::endpoint::flags::{ANY_SOURCE, EGRESS_ENFORCED, INGRESS_ENFORCED};
use abi::flow::proto;
use abi::ipcache::IpcacheEntry;
use abi::ipcache::flags::NO_MASQUERADE;
use abi::lb::{Backend, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Endpoints, Services, Slots};
use abi::policy::{EGRESS, INGRESS};
use abi::{Addr, DropReason, identity};
use datapath::Kernel;
use datapath::bpf::Place;

use crate::devices;
use crate::offer::{NODE_PORT, Offer, exposed};
use crate::packet::{ACK, Packet, SYN, Transport};
use crate::world::{World, full};

#[test]
fn the_wire_cannot_claim_to_be_the_node_or_a_pod_of_it() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, INGRESS_ENFORCED);
        world.add_rule((&a, INGRESS), identity::HOST, (0, 0), false);
        world.add_rule((&a, INGRESS), b.identity, (proto::UDP, 53), false);
        for src in [f.node, f.a, f.b] {
            for dst in [f.a, f.b, f.node, f.world] {
                let packet = Packet::udp((src, 1000), (dst, 53)).bytes();
                world.arrives(&packet).dropped(DropReason::InvalidSourceIp);
            }
        }
        assert!(world.flows().is_empty());
    });
}

/// What the programs do not understand the stack may.
#[test]
fn the_wire_cannot_claim_so_by_headers_that_only_the_stack_understands() {
    World::test_families(|world, f| {
        let odd = |src| {
            let mut frames = vec![Packet::new(src, f.node, Transport::Other { proto: 47 }).bytes()];
            if f.a.is_ipv4() {
                let first = Packet::tcp((src, 1000), (f.node, 53), SYN).fragment(7, 0, true).bytes();
                frames.push(first[..14 + 20 + 8].to_vec());
            } else {
                let nothing = [1, 4, 0, 0, 0, 0];
                let long =
                    (0..5).fold(Packet::udp((src, 1000), (f.node, 53)), |packet, _| packet.extension(60, &nothing));
                frames.push(long.bytes());
            }
            frames
        };
        for src in [f.node, f.a] {
            for frame in odd(src) {
                world.arrives(&frame).dropped(DropReason::InvalidSourceIp);
            }
        }
        for frame in odd(f.world) {
            world.arrives(&frame).ignored().frame(&frame);
        }
    });
}

#[test]
fn a_pod_of_another_node_speaks_to_this_one_under_its_nodes_address() {
    World::test_families(|world, f| {
        for packet in [Packet::udp((f.remote, 1000), (f.node, 53)), Packet::tcp((f.remote, 1000), (f.node, 53), SYN)] {
            world.arrives(&packet.bytes()).dropped(DropReason::InvalidSourceIp);
        }
        world.arrives(&Packet::udp((f.node2, 1000), (f.node, 53)).bytes()).ignored();
        // Unless it need not.
        let entry = IpcacheEntry { identity: identity::HOST, flags: NO_MASQUERADE, ..IpcacheEntry::default() };
        world.set_ipcache(f.node, full(f.node), entry);
        world.arrives(&Packet::udp((f.remote, 1000), (f.node, 53)).bytes()).ignored();
    });
}

/// It would be answered: by the node to itself, to all on a network, or to nobody.
#[test]
fn the_wire_cannot_claim_to_be_many_or_nobody() {
    exposed(|world, f| {
        let of_v4 = ["255.255.255.255", "224.0.0.1", "192.0.2.255", "127.0.0.1", "0.0.0.0", "192.0.2.77"];
        let of_v6 = ["ff02::1", "ff0e::1", "::1", "::", "2001:db8::77"];
        let all: &[&str] = if f.a.is_ipv4() { &of_v4 } else { &of_v6 };
        let unknown = all.last().unwrap().parse().unwrap();
        devices::add_address("eth0", unknown);
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT, &[(f.b, 8080)]).install(world);
        for src in all.iter().map(|src| src.parse().unwrap()) {
            for to in [to, (f.b, 8080)] {
                let run = world.arrives(&Packet::udp((src, 1000), to).bytes());
                run.dropped(DropReason::InvalidSourceIp);
            }
        }
        assert!(world.flows().is_empty());
    });
}

#[test]
fn what_comes_through_the_tunnel_is_not_taken_from_the_wire() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::tcp((f.a, 1000), (f.remote, 80), SYN);
        world.leaves(&a, &request.bytes()).redirected();
        world.arrives(&request.reply().bytes()).dropped(DropReason::InvalidSourceIp);
        assert_eq!(world.flows()[0].1.reply.packets, 0);
    });
}

#[test]
fn a_pod_cannot_answer_in_the_name_of_whom_it_speaks_to() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        for (peer, port) in [(f.node, 6443), (f.world, 80), (f.remote, 80), (f.b, 80)] {
            let request = Packet::tcp((f.a, 1000), (peer, port), SYN);
            world.leaves(&a, &request.bytes());
            world.leaves(&a, &request.reply().bytes()).dropped(DropReason::InvalidSourceIp);
            if peer != f.b {
                world.leaves(&b, &request.reply().bytes()).dropped(DropReason::InvalidSourceIp);
            }
        }
    });
}

/// Nobody but the node takes in what is for all on a link: who may speak to the world may not for that speak to the node.
#[test]
fn what_a_pod_sends_to_all_on_its_link_is_for_the_node() {
    World::test_families(|world, f| {
        let a = world.a;
        world.set_pod(&a, EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), identity::WORLD, (0, 0), false);
        let all: &[&str] = if f.a.is_ipv4() { &["255.255.255.255", "224.0.0.251"] } else { &["ff02::fb", "ff02::1"] };
        for dst in all.iter().map(|dst| dst.parse().unwrap()) {
            let packet = Packet::udp((f.a, 1000), (dst, 53));
            let event = world.leaves(&a, &packet.bytes()).dropped(DropReason::PolicyDenied);
            assert_eq!(event.dst_identity, identity::HOST, "{dst}");
        }
        world.add_rule((&a, EGRESS), identity::HOST, (proto::UDP, 53), false);
        for dst in all.iter().map(|dst| dst.parse().unwrap()) {
            let packet = Packet::udp((f.a, 1000), (dst, 53));
            world.leaves(&a, &packet.bytes()).passed().packet(&packet);
        }
    });
}

/// A node may let in what comes for its loopback by any device (`route_localnet`).
#[test]
fn the_nodes_loopback_is_not_reached_from_a_pod() {
    World::test_families(|world, f| {
        let a = world.a;
        let loopback = if f.a.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap();
        let packet = Packet::udp((f.a, 1000), (loopback, 53)).bytes();
        world.leaves(&a, &packet).dropped(DropReason::UnknownL3TargetAddress);
    });
}

#[test]
fn a_pod_sends_nothing_into_the_tunnel_itself() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        // Also one whose source is not checked.
        for flags in [0, ANY_SOURCE] {
            world.set_pod(&a, flags);
            for dst in [f.node, f.node2, f.b, f.remote, f.world] {
                let packet = Packet::udp((f.a, 40000), (dst, 8472));
                world.leaves(&a, &packet.bytes()).dropped(DropReason::EncapsulationTrafficIsProhibited);
                let first = packet.clone().fragment(7, 0, true).bytes();
                world.leaves(&a, &first).dropped(DropReason::EncapsulationTrafficIsProhibited);
                let later = packet.fragment(7, 3, false).bytes();
                world.leaves(&a, &later).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
            }
        }
        // Nor by the name of a service.
        let backend = Backend { addr: f.node2.into(), port: 8472_u16.to_be(), proto: proto::UDP, ..Backend::default() };
        world.put(world.datapath.map::<Backends>().unwrap(), &1, &backend);
        world.put(world.datapath.map::<Slots>().unwrap(), &SlotKey { service: 5, slot: 0 }, &1);
        let key =
            ServiceKey { addr: f.service.into(), port: 53_u16.to_be(), proto: proto::UDP, ..ServiceKey::default() };
        let service = Service { id: 5, count: 1, ..Service::default() };
        world.put(world.datapath.map::<Services>().unwrap(), &key, &service);
        let packet = Packet::udp((f.a, 40000), (f.service, 53)).bytes();
        world.leaves(&a, &packet).dropped(DropReason::EncapsulationTrafficIsProhibited);
        // Other protocols and ports are free.
        world.leaves(&a, &Packet::tcp((f.a, 40000), (f.b, 8472), SYN).bytes()).redirected();
        world.leaves(&b, &Packet::udp((f.b, 8472), (f.a, 53)).bytes()).redirected();
    });
}

#[test]
fn only_what_is_made_on_the_node_is_the_hosts() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (eth0, lxc_a, overlay) = (world.eth0, a.ifindex, world.overlay);
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), identity::HOST, (0, 0), false);
        // The node's address, by source translation; pods' addresses, by whoever sends them.
        for (src, arrived_by, identity) in [
            (f.node, eth0, identity::WORLD),
            (f.node, lxc_a, a.identity),
            (f.node, overlay, identity::WORLD),
            (f.a, eth0, identity::WORLD),
            (f.remote, eth0, identity::WORLD),
            (f.remote, overlay, crate::world::REMOTE_IDENTITY),
            (f.world, eth0, identity::WORLD),
            (f.node2, eth0, identity::REMOTE_NODE),
        ] {
            let packet = Packet::udp((src, 1000), (f.b, 53));
            let place = Place { ifindex: b.ifindex, arrived_by, ..Place::default() };
            let event = world.forwarded(place, &packet.bytes()).dropped(DropReason::PolicyDenied);
            assert_eq!(event.src_identity, identity, "{src} by {arrived_by}");
        }
        world.enters(&b, &Packet::udp((f.node, 1000), (f.b, 53)).bytes()).passed();
    });
}

#[test]
fn what_the_host_has_opened_is_not_open_to_what_it_forwards() {
    World::test_families(|world, f| {
        let b = world.b;
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), identity::HOST, (0, 0), false);
        let packet = Packet::tcp((f.node, 1000), (f.b, 80), SYN);
        world.enters(&b, &packet.bytes()).passed();
        world.leaves(&b, &packet.reply().bytes()).passed();
        world.enters(&b, &Packet::tcp((f.node, 1000), (f.b, 80), ACK).bytes()).passed();
        // Under another port it is another flow.
        let eth0 = world.eth0;
        let other = Packet::tcp((f.node, 1001), (f.b, 80), SYN);
        let place = Place { ifindex: b.ifindex, arrived_by: eth0, ..Place::default() };
        world.forwarded(place, &other.bytes()).dropped(DropReason::PolicyDenied);
    });
}

#[test]
fn one_echo_opens_no_other_type_and_no_other_way() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (icmp, request) = if f.a.is_ipv4() { (proto::ICMP, 8) } else { (proto::ICMPV6, 128) };
        world.set_pod(&a, INGRESS_ENFORCED | EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), b.identity, (icmp, request), false);
        for id in [0, 7] {
            let echo = Packet::echo_request(f.a, f.b, id);
            world.leaves(&a, &echo.bytes()).redirected();
            world.leaves(&b, &Packet::echo_reply(f.b, f.a, id).bytes()).redirected();
            // The peer may answer, and nothing else.
            world.leaves(&b, &Packet::echo_request(f.b, f.a, id).bytes()).dropped(DropReason::PolicyDenied);
            world.leaves(&b, &Packet::echo_reply(f.b, f.a, id + 1).bytes()).dropped(DropReason::PolicyDenied);
            let kinds: &[u8] = if f.a.is_ipv4() { &[13, 14, 15, 17, 9] } else { &[139, 140, 144] };
            for kind in kinds {
                let mut packet = Packet::echo_request(f.b, f.a, id);
                packet.set_icmp_type(*kind);
                world.leaves(&b, &packet.bytes()).dropped(DropReason::PolicyDenied);
            }
        }
    });
}

#[test]
fn an_answer_to_nothing_opens_nothing() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        // B may answer whom it likes; A takes nothing in.
        world.set_pod(&b, INGRESS_ENFORCED);
        world.leaves(&b, &Packet::echo_reply(f.b, f.a, 7).bytes()).redirected();
        assert!(world.flows().is_empty());
        world.leaves(&a, &Packet::echo_request(f.a, f.b, 7).bytes()).dropped(DropReason::PolicyDenied);
    });
}

#[test]
fn a_first_fragment_that_is_refused_lets_none_follow_and_serves_no_other_sender() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let first = |src| Packet::udp((src, 1000), (f.world, 53)).fragment(77, 0, true).bytes();
        let later = |src| Packet::udp((src, 1000), (f.world, 53)).fragment(77, 3, false).bytes();
        world.set_pod(&a, EGRESS_ENFORCED);
        world.leaves(&a, &first(f.a)).dropped(DropReason::PolicyDenied);
        world.leaves(&a, &first(f.b)).dropped(DropReason::InvalidSourceIp);
        for src in [f.a, f.b] {
            world.leaves(&a, &later(src)).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
        }
        world.leaves(&b, &first(f.b)).redirected();
        world.leaves(&a, &later(f.b)).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
        world.arrives(&later(f.b)).ignored();
        world.leaves(&b, &later(f.b)).redirected();
    });
}

#[test]
fn later_fragments_of_an_echo_stand_a_change_of_policy() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (icmp, request) = if f.a.is_ipv4() { (proto::ICMP, 8) } else { (proto::ICMPV6, 128) };
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), a.identity, (icmp, request), false);
        world.leaves(&a, &Packet::echo_request(f.a, f.b, 7).fragment(9, 0, true).bytes()).redirected();
        world.epochs.bump_endpoint(b.id).unwrap();
        world.leaves(&a, &Packet::echo_request(f.a, f.b, 7).fragment(9, 3, false).bytes()).redirected();
    });
}

#[test]
fn a_pod_without_an_address_of_a_family_has_none_to_send_from() {
    World::test_families(|world, f| {
        let a = world.a;
        let mut endpoint = a.endpoint(0);
        *(if f.a.is_ipv4() { &mut endpoint.ipv4 } else { &mut endpoint.ipv6 }) = Addr::NONE;
        world.put(world.datapath.map::<Endpoints>().unwrap(), &a.ifindex, &endpoint);
        let nobody = if f.a.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        for src in [f.a, f.stranger, nobody] {
            let packet = Packet::udp((src, 1000), (f.b, 53));
            world.leaves(&a, &packet.bytes()).dropped(DropReason::InvalidSourceIp);
        }
    });
}
