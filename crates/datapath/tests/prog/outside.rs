// SPDX-License-Identifier: Apache-2.0
//! Services from outside: ports of the node, and addresses of load balancers.

use abi::config::ProgramConfig;
use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::event::kind;
use abi::flow::{flags, proto};
use abi::lb::flags::{CLUSTER_IP, EXPOSED, LOCAL_ONLY, MEMBERS, TWO_SCOPES};
use abi::lb::{SCOPE_INTERNAL, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Services, Slots};
use abi::policy::INGRESS;
use abi::{DropReason, identity};
use datapath::Kernel;
use datapath::bpf::Program;
use std::net::IpAddr;

use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed, exposed_with};
use crate::packet::{ACK, Packet, SYN, Transport, checksum, source_port};
use crate::run::Run;
use crate::wire::vxlan;
use crate::world::{Family, REMOTE_IDENTITY, World, families, full, tuple};

/// Requests of a client outside to an address and port, of each protocol.
fn requests(f: &Family, to: (IpAddr, u16)) -> [(u8, Packet); 3] {
    [
        (proto::TCP, Packet::tcp((f.world, 40001), to, SYN)),
        (proto::UDP, Packet::udp((f.world, 40001), to)),
        (proto::SCTP, Packet::sctp((f.world, 40001), to)),
    ]
}

/// The tunnel's packet as it left, without its outer headers: (identity, inner frame).
fn inner(frame: &[u8]) -> (u32, Vec<u8>) {
    const OUTER: usize = 14 + 20 + 8 + 8;
    (u32::from_be_bytes(frame[OUTER - 4..OUTER].try_into().unwrap()) >> 8, frame[OUTER..].to_vec())
}

#[test]
fn a_client_outside_reaches_a_pod_of_this_node_and_is_answered_by_the_service() {
    exposed(|world, f| {
        let b = world.b;
        for (to, kind) in [((f.node, 30080), NODE_PORT), ((f.service, 80), LOAD_BALANCER)] {
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, kind, &[(f.b, 8080)]).install(world);
                let seen = request.clone().to((f.b, 8080));
                for _ in 0..2 {
                    let run = world.arrives(&request.bytes());
                    run.redirected().packet(&seen.clone().macs(b.host_mac, b.mac).ttl(63));
                }
                let answer = seen.reply();
                let run = world.leaves(&b, &answer.bytes());
                run.redirected().packet(&answer.from(to).ttl(63));
                let opening = tuple((f.world, 40001), to, proto);
                assert_eq!(world.flow(&opening).unwrap().flags & flags::NAT_SRC, 0, "the pod sees its client");
            }
        }
    });
}

#[test]
fn policy_of_the_backend_is_asked_about_the_client_outside() {
    exposed(|world, f| {
        let b = world.b;
        Offer::new((f.node, 30080), proto::TCP, NODE_PORT, &[(f.b, 8080)]).install(world);
        world.set_pod(&b, INGRESS_ENFORCED);
        let request = Packet::tcp((f.world, 40001), (f.node, 30080), SYN);
        world.arrives(&request.bytes()).dropped(DropReason::PolicyDenied);
        world.add_rule((&b, INGRESS), identity::WORLD, (proto::TCP, 8080), false);
        world.epochs.bump_endpoint(b.id).unwrap();
        world.arrives(&request.bytes()).redirected();
        // Who the client is may change, and so may the backend.
        for peer in [f.world, f.b] {
            world.set_identity((f.world, full(f.world)), 3001, None);
            world.epochs.bump_peer(peer).unwrap();
            world.arrives(&request.bytes()).dropped(DropReason::PolicyDenied);
            world.set_identity((f.world, full(f.world)), identity::WORLD, None);
            world.epochs.bump_node().unwrap();
            world.arrives(&request.bytes()).redirected();
        }
    });
}

#[test]
fn a_backend_of_another_node_sees_this_node_and_the_world_behind_it() {
    exposed(|world, f| {
        for (to, kind) in [((f.node, 30080), NODE_PORT), ((f.service, 80), LOAD_BALANCER)] {
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, kind, &[(f.remote, 8080)]).install(world);
                let seen = request.clone().from((f.node, 40001)).to((f.remote, 8080));
                for _ in 0..2 {
                    let run = world.arrives(&request.bytes());
                    let (vni, frame) = inner(&run.redirected().frame);
                    assert_eq!((vni, &frame[14..]), (identity::WORLD, &seen.clone().ttl(63).network()[..]));
                }
                let answer = seen.reply();
                let mut outer = Packet::udp((families()[0].node2, 50000), (families()[0].node, 8472));
                outer.set_payload(vxlan(REMOTE_IDENTITY, &answer));
                let run = world.arrives(&outer.bytes());
                run.redirected();
                assert_eq!(run.frame[14..], answer.from(to).to((f.world, 40001)).ttl(63).network()[..]);
                assert_eq!((world.flows().len(), world.aliases()), (1, 1));
            }
        }
    });
}

#[test]
fn where_the_network_routes_pods_a_backend_of_another_node_sees_this_nodes_address() {
    exposed_with(
        |config| ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config },
        |world, f| {
            let to = (f.node, 30080);
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, NODE_PORT, &[(f.remote, 8080)]).install(world);
                let seen = request.clone().from((f.node, 40001)).to((f.remote, 8080));
                for _ in 0..2 {
                    world.arrives(&request.bytes()).redirected().packet(&seen.clone().ttl(63));
                }
                let answer = seen.reply();
                let expected = answer.clone().from(to).to((f.world, 40001)).ttl(63);
                world.arrives(&answer.bytes()).redirected().packet(&expected);
            }
        },
    );
}

/// A node's own programs listen on the network of their node, with a tunnel or without.
#[test]
fn a_backend_on_the_network_of_another_node_is_reached_by_the_native_device() {
    exposed(|world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT, &[(f.node2, 8080)]).install(world);
        let request = Packet::udp((f.world, 40001), to);
        let seen = request.clone().from((f.node, 40001)).to((f.node2, 8080));
        world.arrives(&request.bytes()).redirected().packet(&seen.clone().ttl(63));
        let answer = seen.reply();
        world.arrives(&answer.bytes()).redirected().packet(&answer.from(to).to((f.world, 40001)).ttl(63));
    });
}

#[test]
fn two_clients_with_one_port_get_two() {
    exposed_with(
        |config| ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config },
        |world, f| {
            let to = (f.node, 30080);
            Offer::new(to, proto::UDP, NODE_PORT, &[(f.remote, 8080)]).install(world);
            let ports = [f.world, f.stranger].map(|client| {
                let run = world.arrives(&Packet::udp((client, 40001), to).bytes());
                source_port(&run.redirected().frame)
            });
            assert!(ports[0] == 40001 && ports[1] >= 32768 && ports[1] != 40001, "{ports:?}");
            for (client, port) in [f.world, f.stranger].into_iter().zip(ports) {
                let answer = Packet::udp((f.remote, 8080), (f.node, port));
                let run = world.arrives(&answer.bytes());
                run.redirected().packet(&answer.from(to).to((client, 40001)).ttl(63));
            }
        },
    );
}

/// Its answers would be taken for those to a client that came by the service.
#[test]
fn a_client_of_the_pod_itself_gets_another_port_where_it_would_be_taken_for_one_of_the_service() {
    exposed_with(
        |config| ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config },
        |world, f| {
            let b = world.b;
            let to = (f.node, 30080);
            Offer::new(to, proto::UDP, NODE_PORT, &[(f.b, 8080)]).install(world);
            world.arrives(&Packet::udp((f.world, 40001), to).bytes()).redirected();
            let run = world.arrives(&Packet::udp((f.world, 40001), (f.b, 8080)).bytes());
            let port = source_port(&run.redirected().frame);
            assert_ne!(port, 40001);
            for (port, from) in [(40001, to), (port, (f.b, 8080))] {
                let answer = Packet::udp((f.b, 8080), (f.world, port));
                let expected = answer.clone().from(from).to((f.world, 40001)).ttl(63);
                world.leaves(&b, &answer.bytes()).redirected().packet(&expected);
            }
        },
    );
}

/// Nor is its sender told: who hears nothing tries again, and is led to a node that serves by then.
#[test]
fn what_is_for_local_pods_alone_does_not_go_to_another_node() {
    exposed_with(
        |config| ProgramConfig { reject_no_backend: 1, ..config },
        |world, f| {
            let a = world.a;
            let to = (f.node, 30080);
            let request = Packet::tcp((f.world, 40001), to, SYN).bytes();
            Offer::new(to, proto::TCP, NODE_PORT | LOCAL_ONLY, &[(f.remote, 8080)]).install(world);
            world.arrives(&request).dropped(DropReason::ServiceBackendNotFound);
            Offer::new(to, proto::TCP, NODE_PORT | LOCAL_ONLY, &[]).install(world);
            world.arrives(&request).dropped(DropReason::ServiceBackendNotFound);
            Offer::new((f.service, 80), proto::UDP, CLUSTER_IP | LOCAL_ONLY, &[]).id(6).install(world);
            let of_pod = Packet::udp((f.a, 40001), (f.service, 80)).bytes();
            world.leaves(&a, &of_pod).dropped(DropReason::ServiceBackendNotFound);
            Offer::new(to, proto::TCP, NODE_PORT | LOCAL_ONLY, &[(f.b, 8080)]).install(world);
            world.arrives(&request).redirected();
            // The pod moves to another node with its address.
            world.remove_local(f.b);
            world.set_identity((f.b, full(f.b)), REMOTE_IDENTITY, Some(f.node2));
            world.epochs.bump_peer(f.b).unwrap();
            world.arrives(&request).dropped(DropReason::ServiceBackendNotFound);
        },
    );
}

#[test]
fn clients_inside_find_their_own_backends() {
    exposed(|world, f| {
        let (a, b) = (world.a, world.b);
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER | TWO_SCOPES | LOCAL_ONLY, &[(f.a, 8080)]).install(world);
        Offer::new(to, proto::TCP, LOAD_BALANCER, &[(f.b, 8080)]).id(6).scope(SCOPE_INTERNAL).install(world);
        let inside = Packet::tcp((f.a, 40001), to, SYN);
        let outside = Packet::tcp((f.world, 40001), to, SYN);
        for _ in 0..2 {
            let seen = inside.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
            world.leaves(&a, &inside.bytes()).redirected().packet(&seen);
            let seen = outside.clone().to((f.a, 8080)).macs(a.host_mac, a.mac).ttl(63);
            world.arrives(&outside.bytes()).redirected().packet(&seen);
            world.epochs.bump_node().unwrap();
        }
    });
}

#[test]
fn a_pod_finds_node_ports_at_any_node() {
    exposed(|world, f| {
        let (a, b) = (world.a, world.b);
        let any: IpAddr = if f.a.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
        Offer::new((any, 30080), proto::TCP, NODE_PORT, &[(f.b, 8080)]).install(world);
        Offer::new((any, 8000), proto::TCP, NODE_PORT, &[(f.b, 8080)]).id(6).install(world);
        for (at, port) in [(f.node2, 40003), (f.node, 40001)] {
            let request = Packet::tcp((f.a, port), (at, 30080), SYN);
            let seen = request.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
            world.leaves(&a, &request.bytes()).redirected().packet(&seen);
        }
        // Neither at a port beyond the range, nor at anybody's address.
        for (to, port) in [(f.node2, 8000), (f.world, 30080)] {
            let request = Packet::tcp((f.a, 40002), (to, port), SYN);
            world.leaves(&a, &request.bytes()).redirected().packet(&request.from((f.node, 40002)).ttl(63));
        }
    });
}

#[test]
fn what_is_not_exposed_is_not_reached_from_outside() {
    exposed(|world, f| {
        Offer::new((f.service, 80), proto::TCP, CLUSTER_IP, &[(f.b, 8080)]).install(world);
        let request = Packet::tcp((f.world, 40001), (f.service, 80), SYN);
        world.arrives(&request.bytes()).dropped(DropReason::IsAClusterip);
        let a = world.a;
        world.leaves(&a, &Packet::tcp((f.a, 40001), (f.service, 80), SYN).bytes()).redirected();
        Offer::new((f.service, 80), proto::TCP, CLUSTER_IP | EXPOSED, &[(f.b, 8080)]).install(world);
        world.arrives(&request.bytes()).redirected();
    });
}

#[test]
fn other_ports_of_a_services_address_are_no_ones_and_those_of_the_node_are_its_own() {
    exposed(|world, f| {
        Offer::new((f.service, 80), proto::TCP, LOAD_BALANCER, &[(f.b, 8080)]).install(world);
        Offer::new((f.node, 30080), proto::TCP, NODE_PORT, &[(f.b, 8080)]).id(6).install(world);
        for (to, port) in [(f.service, 81), (f.service, 0)] {
            let request = Packet::tcp((f.world, 40001), (to, port), SYN);
            world.arrives(&request.bytes()).dropped(DropReason::ServiceBackendNotFound);
        }
        world.arrives(&Packet::echo_request(f.world, f.service, 7).bytes()).dropped(DropReason::ServiceBackendNotFound);
        let of_the_node = [
            Packet::tcp((f.world, 40001), (f.node, 30081), SYN),
            Packet::udp((f.world, 40001), (f.node, 30080)),
            Packet::echo_request(f.world, f.node, 7),
        ];
        // The other time as if an address of services had become the node's.
        for marked in [false, true] {
            if marked {
                let services = world.datapath.map::<Services>().unwrap();
                world.put(services, &ServiceKey::mark(f.node.into()), &Service::MARK);
            }
            for request in &of_the_node {
                world.arrives(&request.bytes()).ignored().packet(request);
            }
        }
        assert!(world.flows().is_empty());
    });
}

#[test]
fn nothing_is_served_outside_where_that_is_switched_off() {
    World::test_families(|world, f| {
        for (to, kind) in [((f.node, 30080), NODE_PORT), ((f.service, 80), LOAD_BALANCER)] {
            Offer::new(to, proto::TCP, kind, &[(f.b, 8080)]).install(world);
            let request = Packet::tcp((f.world, 40001), to, SYN);
            world.arrives(&request.bytes()).ignored().packet(&request);
        }
    });
}

#[test]
fn nobody_outside_comes_under_the_address_of_this_node_or_of_a_pod() {
    exposed(|world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT, &[(f.b, 8080)]).install(world);
        for forged in [f.node, f.a, f.b, f.remote] {
            world.arrives(&Packet::udp((forged, 40001), to).bytes()).dropped(DropReason::InvalidSourceIp);
        }
        world.arrives(&Packet::udp((f.node2, 40001), to).bytes()).redirected();
    });
}

#[test]
fn a_flow_from_outside_keeps_its_backend_and_its_port_while_that_exists() {
    exposed_with(
        |config| ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config },
        |world, f| {
            let to = (f.node, 30080);
            let offer = Offer::new(to, proto::UDP, NODE_PORT | MEMBERS, &[(f.remote, 8080), (f.remote, 8081)]);
            offer.install(world);
            let slots = world.datapath.map::<Slots>().unwrap();
            for nth in 0..2 {
                let member = SlotKey::member(offer.service.id, offer.backend(nth));
                world.put(slots.clone(), &member, &offer.backend(nth));
            }
            let request = Packet::udp((f.world, 40001), to);
            world.arrives(&request.bytes()).redirected();
            let first = world.flows()[0].1;
            for _ in 0..8 {
                world.epochs.bump_peer(f.remote).unwrap();
                world.arrives(&request.bytes()).redirected();
                let now = world.flows()[0].1;
                assert_eq!(
                    (now.backend, now.nat_dport, now.nat_sport),
                    (first.backend, first.nat_dport, first.nat_sport)
                );
            }
            slots.remove(&SlotKey::member(offer.service.id, first.backend)).unwrap();
            let left = if first.backend == offer.backend(0) { offer.backend(1) } else { offer.backend(0) };
            for slot in 0..2 {
                world.put(slots.clone(), &SlotKey { service: offer.service.id, slot }, &left);
            }
            world.datapath.map::<Backends>().unwrap().remove(&first.backend).unwrap();
            world.epochs.bump_peer(f.remote).unwrap();
            world.arrives(&request.bytes()).redirected();
            assert_eq!(world.flows()[0].1.backend, left);
            assert_eq!((world.flows().len(), world.aliases()), (1, 1));
            // Without its service there is nobody to answer.
            offer.remove(world);
            world.epochs.bump_peer(f.remote).unwrap();
            world.arrives(&request.bytes()).ignored();
        },
    );
}

/// A node that takes over from another sees connections from their middle.
#[test]
fn a_segment_from_the_middle_is_for_the_service_whatever_its_ports() {
    exposed(|world, f| {
        let b = world.b;
        let to = (f.node, 30080);
        Offer::new(to, proto::TCP, NODE_PORT, &[(f.b, 8080)]).install(world);
        for port in [1000, 50000] {
            let segment = Packet::tcp((f.world, port), to, ACK);
            let seen = segment.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
            world.arrives(&segment.bytes()).redirected().packet(&seen);
        }
    });
}

/// Its client has gone, and somebody outside comes under its address.
#[test]
fn nobody_outside_goes_on_in_the_flow_of_a_pod_that_has_gone() {
    exposed_with(
        |config| ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config },
        |world, f| {
            let a = world.a;
            Offer::new((f.service, 80), proto::TCP, CLUSTER_IP, &[(f.remote, 8080)]).install(world);
            let request = Packet::tcp((f.a, 40001), (f.service, 80), SYN);
            world.leaves(&a, &request.bytes()).redirected();
            world.remove_local(f.a);
            world.epochs.bump_peer(f.a).unwrap();
            world.epochs.bump_endpoint(a.id).unwrap();
            let run = world.arrives(&request.bytes());
            assert!(matches!(run.verdict, -1 | 2), "{run:?}");
            world.set_pod(&a, 0);
        },
    );
}

/// The node in between has told who asks, and its own address does not.
#[test]
fn a_backend_answers_whom_another_node_has_asked_for() {
    exposed(|world, f| {
        let b = world.b;
        let [v4, _] = families();
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), identity::WORLD, (proto::TCP, 8080), false);
        let node = if f.a.is_ipv4() { v4.node2 } else { f.node2 };
        if f.a.is_ipv6() {
            let entry = abi::ipcache::IpcacheEntry {
                identity: identity::REMOTE_NODE,
                tunnel: v4.node2.into(),
                flags: abi::ipcache::flags::NODE,
                ..Default::default()
            };
            world.set_ipcache(f.node2, 128, entry);
        }
        let request = Packet::tcp((node, 40001), (f.b, 8080), SYN);
        let mut outer = Packet::udp((v4.node2, 50000), (v4.node, 8472));
        outer.set_payload(vxlan(identity::WORLD, &request));
        world.arrives(&outer.bytes()).redirected().packet(&request.clone().macs(b.host_mac, b.mac).ttl(63));
        for _ in 0..2 {
            let (vni, frame) = inner(&world.leaves(&b, &request.reply().bytes()).redirected().frame);
            assert_eq!((vni, &frame[14..]), (b.identity, &request.reply().ttl(63).network()[..]));
            world.epochs.bump_node().unwrap();
        }
        if f.a.is_ipv6() {
            world.set_identity((f.node2, 128), identity::REMOTE_NODE, None);
        }
    });
}

/// The error that a packet is answered by, as it leaves, and what it quotes at least.
pub(crate) fn answer(packet: &Packet, kinds: [(u8, u8); 2], rest: u16) -> Packet {
    let (kind, code) = kinds[usize::from(packet.src.is_ipv6())];
    let [a, b] = rest.to_be_bytes();
    let icmp = Transport::Icmp { kind, code, rest: [0, 0, a, b] };
    let mut error = Packet::new(packet.dst, packet.src, icmp).macs([2, 0, 0, 0, 0xff, 2], [2, 0, 0, 0, 0xff, 1]);
    let network = if packet.src.is_ipv4() { 20 } else { 40 };
    let transport = if matches!(packet.transport, Transport::Tcp { .. }) { 20 } else { 8 };
    error.set_payload(packet.network()[..network + transport].to_vec());
    error
}

/// Sets the bit by which routers know that IPv4 is not to be cut up.
pub(crate) fn do_not_cut(frame: &mut [u8]) {
    if frame[12..14] == [8, 0] {
        frame[20] |= 0x40;
        frame[24..26].fill(0);
        let sum = crate::packet::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum);
    }
}

/// A card's sum ends where the packet is cut, and the kernel compares it nevertheless.
pub(crate) fn arrives_unsummed(world: &mut World, frame: &[u8]) -> Run {
    let ifindex = world.eth0;
    world.run(Program::NetdevIngress, ifindex, frame)
}

/// Sent back, and told as a drop.
#[track_caller]
pub(crate) fn refused(run: &Run, reason: DropReason, error: &Packet) {
    let drops = run.events.iter().filter(|event| event.kind == kind::DROP);
    let told: Vec<_> = drops.map(|event| DropReason::from_code(event.reason)).collect();
    assert_eq!((run.verdict, told), (7, vec![Some(reason)]), "{run:?}");
    run.packet(error);
}

const UNREACHABLE: [(u8, u8); 2] = [(3, 3), (1, 4)];

#[test]
fn where_nobody_serves_the_sender_is_told_so() {
    exposed_with(
        |config| ProgramConfig { reject_no_backend: 1, ..config },
        |world, f| {
            let a = world.a;
            Offer::new((f.service, 80), proto::TCP, LOAD_BALANCER, &[]).install(world);
            Offer::new((f.node, 30080), proto::UDP, NODE_PORT, &[]).id(6).install(world);
            let requests = |client| {
                [
                    Packet::tcp((client, 40001), (f.service, 80), SYN),
                    Packet::udp((client, 40001), (f.node, 30080)),
                    Packet::sctp((client, 40001), (f.service, 81)),
                    Packet::udp((client, 40001), (f.service, 80)),
                ]
            };
            for mut request in requests(f.world) {
                let run = arrives_unsummed(world, &request.bytes());
                refused(&run, DropReason::ServiceBackendNotFound, &answer(&request, UNREACHABLE, 0));
                // All of it is quoted.
                request.set_payload(Vec::new());
                if matches!(request.transport, Transport::Sctp { .. }) {
                    continue;
                }
                let run = world.arrives(&request.bytes());
                refused(&run, DropReason::ServiceBackendNotFound, &answer(&request, UNREACHABLE, 0));
            }
            for request in requests(f.a) {
                let run = world.leaves(&a, &request.bytes());
                refused(&run, DropReason::ServiceBackendNotFound, &answer(&request, UNREACHABLE, 0));
            }
            // Not about what asks for nothing, nor about what it cannot quote.
            let echo = Packet::echo_request(f.world, f.service, 7);
            world.arrives(&echo.bytes()).dropped(DropReason::ServiceBackendNotFound);
            let request = Packet::udp((f.a, 40001), (f.service, 80));
            let run = world.leaves_as_batch(&a, &request.bytes(), 8);
            run.dropped(DropReason::ServiceBackendNotFound);
        },
    );
}

/// A card, or whoever sends the answer on, makes it over what is left of the packet.
#[test]
fn an_answer_to_a_packet_without_its_checksum_has_its_own_right() {
    exposed_with(
        |config| ProgramConfig { reject_no_backend: 1, ..config },
        |world, f| {
            let a = world.a;
            Offer::new((f.service, 80), proto::TCP, LOAD_BALANCER, &[]).install(world);
            let udp = |client| Packet::udp((client, 40001), (f.service, 80));
            let tcp = |client| Packet::tcp((client, 40001), (f.service, 80), SYN);
            let network = if f.a.is_ipv4() { 20 } else { 40 };
            for (request, checksum_at) in [(udp(f.world), 6), (tcp(f.world), 16), (udp(f.a), 6), (tcp(f.a), 16)] {
                let frame = request.without_checksum();
                let mut run =
                    if request.src == f.a { world.leaves(&a, &frame) } else { arrives_unsummed(world, &frame) };
                assert_eq!(run.verdict, 7, "{run:?}");
                let icmp = 14 + network;
                let quoted = icmp + 8 + network;
                let made = checksum(&run.frame[quoted..]);
                run.frame[quoted + checksum_at..][..2].copy_from_slice(&made);
                let kind = Transport::Icmp { kind: run.frame[icmp], code: run.frame[icmp + 1], rest: [0; 4] };
                let mut expected =
                    Packet::new(request.dst, request.src, kind).macs([2, 0, 0, 0, 0xff, 2], [2, 0, 0, 0, 0xff, 1]);
                expected.set_payload(run.frame[icmp + 8..].to_vec());
                run.packet(&expected);
            }
        },
    );
}

#[test]
fn a_packet_to_a_service_that_has_come_too_far_is_answered() {
    exposed(|world, f| {
        Offer::new((f.node, 30080), proto::TCP, NODE_PORT, &[(f.b, 8080)]).install(world);
        let request = Packet::tcp((f.world, 40001), (f.node, 30080), SYN).ttl(1);
        for _ in 0..2 {
            let run = arrives_unsummed(world, &request.bytes());
            refused(&run, DropReason::TtlExceeded, &answer(&request, [(11, 0), (3, 0)], 0));
        }
    });
}

/// The stack would take the node's port for its own, and not tell the client how much fits.
#[test]
fn a_packet_to_a_service_that_is_too_big_for_the_tunnel_is_answered() {
    exposed(|world, f| {
        Offer::new((f.node, 30080), proto::UDP, NODE_PORT, &[(f.remote, 8080)]).install(world);
        let mut request = Packet::udp((f.world, 40001), (f.node, 30080));
        world.arrives(&request.bytes()).redirected();
        request.set_payload(vec![0; 1430]);
        let mut frame = request.bytes();
        do_not_cut(&mut frame);
        let run = arrives_unsummed(world, &frame);
        let mut expected = answer(&request, [(3, 4), (2, 0)], 1450);
        expected.set_payload(frame[14..14 + if f.a.is_ipv4() { 28 } else { 48 }].to_vec());
        refused(&run, DropReason::CtMissingTcpAckFlag, &expected);
    });
}
