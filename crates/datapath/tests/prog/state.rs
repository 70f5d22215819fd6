// SPDX-License-Identifier: Apache-2.0
//! The state of connections: what a reply may renew, what a refusal does, and who keeps their place in the table.

use abi::DropReason;
use abi::endpoint::flags::{EGRESS_ENFORCED, INGRESS_ENFORCED};
use abi::flow::{State, flags, proto};
use abi::lb::{Backend, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Flows, Services, Slots};
use abi::policy::{EGRESS, INGRESS};
use abi::tuple::Tuple;
use datapath::Kernel;
use datapath::bpf::{Options, Program};
use std::net::IpAddr;

use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::world::{Family, World, families, full, tuple};

pub(crate) fn segment(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8) -> Vec<u8> {
    Packet::tcp(src, dst, flags).bytes()
}

/// A connects to B's port 80 from port 1000, and both have said what opens it.
pub(crate) fn connect(world: &mut World, f: Family) {
    let (a, b) = (world.a, world.b);
    world.leaves(&a, &segment((f.a, 1000), (f.b, 80), SYN)).redirected();
    world.leaves(&b, &segment((f.b, 80), (f.a, 1000), SYN | ACK)).redirected();
    world.leaves(&a, &segment((f.a, 1000), (f.b, 80), ACK)).redirected();
}

fn state(world: &World, opening: &Tuple) -> State {
    world.flow(opening).unwrap().state(opening.proto)
}

/// All rules go, of which the endpoint is told.
pub(crate) fn forbid_all(world: &World, endpoint: u16) {
    let policies = world.datapath_policies();
    for key in policies.keys().unwrap() {
        policies.remove(&key).unwrap();
    }
    world.epochs.bump_endpoint(endpoint).unwrap();
}

#[test]
fn a_reply_that_comes_first_renews_the_way_out() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::udp((f.a, 40001), (f.world, 53));
        let out = |world: &World| world.flows()[0].1.forward.out_ifindex;
        world.leaves(&a, &request.bytes()).redirected();
        let (eth0, other) = (world.eth0, world.b.ifindex);
        assert_eq!(out(world), eth0);
        world.set_route(f.world, other);
        world.epochs.bump_node().unwrap();
        world.arrives(&request.clone().from((f.node, 40001)).reply().bytes()).redirected();
        assert_eq!(out(world), other);
        world.set_route(f.world, eth0);
    });
}

#[test]
fn a_client_that_lost_its_identity_is_cut_off_by_the_server_that_speaks_first() {
    World::test_families(|world, f| {
        let b = world.b;
        world.set_pod(&b, INGRESS_ENFORCED);
        world.set_identity((f.world, full(f.world)), 5001, None);
        world.add_rule((&b, INGRESS), 5001, (proto::TCP, 80), false);
        let client = (f.world, 1000);
        world.arrives(&segment(client, (f.b, 80), SYN)).redirected();
        world.leaves(&b, &segment((f.b, 80), client, SYN | ACK)).redirected();
        world.set_identity((f.world, full(f.world)), 5002, None);
        world.epochs.bump_peer(f.world).unwrap();
        let event = world.leaves(&b, &segment((f.b, 80), client, ACK)).dropped(DropReason::PolicyDenied);
        // Addresses and identities belong together.
        assert_eq!((IpAddr::from(event.src), event.src_identity, event.src_endpoint), (f.b, b.identity, b.id));
        assert_eq!((IpAddr::from(event.dst), event.dst_identity, event.dst_endpoint), (f.world, 5002, 0));
        for _ in 0..3 {
            world.arrives(&segment(client, (f.b, 80), ACK)).dropped(DropReason::PolicyDenied);
            world.leaves(&b, &segment((f.b, 80), client, ACK)).dropped(DropReason::PolicyDenied);
        }
        // It is given back: the connection goes on.
        world.set_identity((f.world, full(f.world)), 5001, None);
        world.epochs.bump_peer(f.world).unwrap();
        world.leaves(&b, &segment((f.b, 80), client, ACK)).redirected();
        world.arrives(&segment(client, (f.b, 80), ACK)).redirected();
    });
}

#[test]
fn a_refused_connection_does_not_come_back_the_other_way_round() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 80), false);
        connect(world, f);
        forbid_all(world, b.id);
        let (request, push) = (segment((f.a, 1000), (f.b, 80), ACK), segment((f.b, 80), (f.a, 1000), ACK));
        world.leaves(&a, &request).dropped(DropReason::PolicyDenied);
        world.leaves(&b, &push).dropped(DropReason::PolicyDenied);
        // What the refused ends say of the end does not end it: nobody hears it.
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), RST)).dropped(DropReason::PolicyDenied);
        let garbage =
            world.flow(&tuple((f.a, 1000), (f.b, 80), 6)).unwrap().is_garbage(6, datapath::flows::now() + 100);
        assert!(!garbage);
        world.leaves(&b, &push).dropped(DropReason::PolicyDenied);
        // Nor when its record is lost: B may open connections to A, but this is none of them.
        world.clear_flows();
        world.leaves(&b, &push).dropped(DropReason::PolicyDenied);
        world.leaves(&a, &request).dropped(DropReason::PolicyDenied);
        world.leaves(&b, &segment((f.b, 40000), (f.a, 80), SYN)).redirected();
    });
}

#[test]
fn an_allowed_connection_whose_record_is_lost_goes_on_whoever_speaks() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (request, push) = (segment((f.a, 1000), (f.b, 80), ACK), segment((f.b, 80), (f.a, 1000), ACK));
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 80), false);
        for server_speaks in [true, false] {
            connect(world, f);
            world.clear_flows();
            if server_speaks {
                world.leaves(&b, &push).redirected();
            }
            world.leaves(&a, &request).redirected();
            world.leaves(&b, &push).redirected();
            if !server_speaks {
                let state = state(world, &tuple((f.a, 1000), (f.b, 80), 6));
                assert_eq!(state, State::Opening, "its opener has not heard an answer yet");
            }
            world.leaves(&a, &request).redirected();
            assert_eq!(state(world, &tuple((f.a, 1000), (f.b, 80), 6)), State::Established);
        }
    });
}

#[test]
fn a_pod_that_takes_nothing_in_has_to_speak_first_when_a_record_is_lost() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, INGRESS_ENFORCED);
        connect(world, f);
        world.clear_flows();
        let push = segment((f.b, 80), (f.a, 1000), ACK);
        world.leaves(&b, &push).dropped(DropReason::PolicyDenied);
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), ACK)).redirected();
        world.leaves(&b, &push).redirected();
    });
}

#[test]
fn a_server_cannot_open_a_connection_where_it_may_only_answer() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, INGRESS_ENFORCED);
        connect(world, f);
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), SYN)).dropped(DropReason::PolicyDenied);
        // Which does not touch the connection.
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), ACK)).redirected();
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), ACK)).redirected();
    });
}

#[test]
fn a_connection_is_established_when_its_opener_has_heard_the_answer() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let opening = tuple((f.a, 1000), (f.b, 80), 6);
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), SYN)).redirected();
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), SYN | ACK)).redirected();
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), SYN)).redirected();
        assert_eq!((state(world, &opening), State::Opening.lifetime(6)), (State::Opening, 60));
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), ACK)).redirected();
        assert_eq!((state(world, &opening), State::Established.lifetime(6)), (State::Established, 8000));
        // Half closed, the server goes on for as long as it likes.
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), FIN | ACK)).redirected();
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), ACK)).redirected();
        assert_eq!(state(world, &opening), State::Established);
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), FIN | ACK)).redirected();
        assert_eq!((state(world, &opening), State::Closed.lifetime(6)), (State::Closed, 10));
    });
}

#[test]
fn a_flood_costs_who_makes_it_and_nobodys_connection() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, INGRESS_ENFORCED);
        connect(world, f);
        let places = world.datapath.config().openings;
        for port in 0..300_u16 {
            world.leaves(&b, &segment((f.b, 2000 + port), (f.world, 80), SYN)).redirected();
            world.leaves(&b, &Packet::udp((f.b, 2000 + port), (f.world, 53)).bytes()).redirected();
            world.arrives(&segment((f.world, 2000 + port), (f.b, 80), SYN)).redirected();
        }
        let opening = world.flows().iter().filter(|(tuple, flow)| flow.state(tuple.proto) == State::Opening).count();
        // Those that it opens, and those that are opened to it.
        assert!(opening <= 2 * places as usize, "{opening} flows, {places} places");
        assert!(world.aliases() <= places as usize, "aliases go with their flows");
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), ACK)).redirected();
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), ACK)).redirected();
    });
}

#[test]
fn a_full_table_costs_who_opens_a_flow_one_of_their_own() {
    World::test_with(Options { flows: 64, ..Options::default() }, |world| {
        let f = families()[0];
        let (a, b) = (world.a, world.b);
        connect(world, f);
        // Another pod's established flows fill the table.
        let map = world.datapath.map::<Flows>().unwrap();
        let (key, flow) = map.entries().unwrap()[0];
        let mut port = 0;
        while map.insert(&abi::flow::FlowKey { b_port: port, ..key }, &flow).is_ok() {
            port += 1;
        }
        let opens = |world: &mut World, port| world.leaves(&b, &segment((f.b, port), (f.a, 443), SYN));
        opens(world, 2000).dropped(DropReason::CtMapInsertionFailed);
        map.remove(&abi::flow::FlowKey { b_port: 0, ..key }).unwrap();
        for port in 2001..2010 {
            opens(world, port).redirected();
        }
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), ACK)).redirected();
    });
}

/// A service with one backend.
pub(crate) fn serve(
    world: &World,
    id: u32,
    (ip, port): (IpAddr, u16),
    (backend, backend_port): (IpAddr, u16),
    proto: u8,
) {
    let value = Backend { addr: backend.into(), port: backend_port.to_be(), proto, ..Backend::default() };
    world.put(world.datapath.map::<Backends>().unwrap(), &id, &value);
    world.put(world.datapath.map::<Slots>().unwrap(), &SlotKey { service: id, slot: 0 }, &id);
    let key = ServiceKey { addr: ip.into(), port: port.to_be(), proto, ..ServiceKey::default() };
    world.put(world.datapath.map::<Services>().unwrap(), &key, &Service { id, count: 1, ..Service::default() });
}

#[test]
fn two_services_with_one_backend_and_one_client_port_stay_apart() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        for proto in [proto::TCP, proto::UDP] {
            serve(world, 1, (f.service, 80), (f.b, 8080), proto);
            serve(world, 2, (f.service, 81), (f.b, 8080), proto);
            let packet = |to: (IpAddr, u16)| match proto {
                proto::TCP => Packet::tcp((f.a, 1000), to, SYN),
                _ => Packet::udp((f.a, 1000), to),
            };
            // By two services, and to the backend itself, in either order.
            for targets in
                [[(f.service, 80), (f.service, 81), (f.b, 8080)], [(f.b, 8080), (f.service, 81), (f.service, 80)]]
            {
                world.clear_flows();
                let mut ports = Vec::new();
                for to in targets {
                    let run = world.leaves(&a, &packet(to).bytes());
                    run.redirected();
                    ports.push(crate::packet::source_port(&run.frame));
                }
                assert!(ports[0] == 1000 && ports[1] != 1000 && ports[2] != 1000 && ports[1] != ports[2], "{ports:?}");
                for (to, port) in targets.into_iter().zip(ports) {
                    let answer = packet((f.b, 8080)).from((f.a, port)).reply();
                    let expected = answer.clone().from(to).to((f.a, 1000)).macs(a.host_mac, a.mac).ttl(63);
                    world.leaves(&b, &answer.bytes()).redirected().packet(&expected);
                    // And the connection keeps its port.
                    let again = world.leaves(&a, &packet(to).bytes());
                    assert_eq!(crate::packet::source_port(&again.redirected().frame), port);
                }
            }
        }
    });
}

/// The ends of its SYN are those of the client's direct connection, and what it answers is the service's: there is no place for it.
#[test]
fn a_backend_that_opens_a_connection_on_its_clients_ports_ends_none_of_theirs() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::TCP);
        world.leaves(&a, &segment((f.a, 1000), (f.service, 80), SYN)).redirected();
        world.leaves(&a, &segment((f.a, 1000), (f.b, 8080), SYN)).redirected();
        world.leaves(&b, &segment((f.b, 8080), (f.a, 1000), SYN));
        assert_eq!((world.flows().len(), world.aliases()), (2, 2));
        let answer = Packet::tcp((f.b, 8080), (f.a, 1000), SYN | ACK);
        let seen = answer.clone().from((f.service, 80)).macs(a.host_mac, a.mac).ttl(63);
        world.leaves(&b, &answer.bytes()).redirected().packet(&seen);
    });
}

/// The client came with the address of somebody to whom its backend had spoken through the world, under the ends of the answers.
#[test]
fn answers_of_a_service_are_not_taken_for_a_translated_flow_that_the_backend_has_opened() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.remove_local(f.b);
        world.leaves(&a, &Packet::udp((f.a, 7946), (f.b, 7946)).bytes()).redirected();
        world.set_pod(&b, 0);
        world.epochs.bump_peer(f.b).unwrap();
        serve(world, 1, (f.service, 80), (f.a, 7946), proto::UDP);
        let run = world.leaves(&b, &Packet::udp((f.b, 7946), (f.service, 80)).bytes());
        let port = crate::packet::source_port(&run.redirected().frame);
        let answer = Packet::udp((f.a, 7946), (f.b, port));
        let seen = answer.clone().from((f.service, 80)).to((f.b, 7946)).macs(b.host_mac, b.mac).ttl(63);
        world.leaves(&a, &answer.bytes()).redirected().packet(&seen);
    });
}

#[test]
fn a_masqueraded_flow_has_one_record_and_its_alias_goes_with_it() {
    World::test_families(|world, f| {
        let a = world.a;
        let syn = Packet::tcp((f.a, 40001), (f.world, 80), SYN);
        world.leaves(&a, &syn.bytes()).redirected();
        assert_eq!((world.flows().len(), world.aliases()), (1, 1));
        let (_, flow) = world.flows()[0];
        assert!(flow.has(flags::NAT_SRC) && flow.has(flags::MASQUERADE));
        let answer = syn.clone().from((f.node, 40001)).reply();
        world.arrives(&answer.bytes()).redirected();
        // A new connection on the same ports, after the old one's end.
        world.leaves(&a, &Packet::tcp((f.a, 40001), (f.world, 80), RST).bytes()).redirected();
        world.leaves(&a, &syn.bytes()).redirected();
        assert_eq!((world.flows().len(), world.aliases(), world.flows()[0].1.forward.packets), (1, 1, 1));
        world.arrives(&answer.bytes()).redirected();
    });
}

#[test]
fn the_ports_of_sctp_are_translated_and_its_checksum_with_them() {
    World::test(|world| {
        let f = families()[0];
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::SCTP);
        let request = Packet::sctp((f.a, 1000), (f.service, 80));
        let seen = request.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
        world.leaves(&a, &request.bytes()).redirected().packet(&seen);
        let answer = Packet::sctp((f.b, 8080), (f.a, 1000));
        let seen = answer.clone().from((f.service, 80)).macs(a.host_mac, a.mac).ttl(63);
        world.leaves(&b, &answer.bytes()).redirected().packet(&seen);
    });
}

/// The shortest frame that Ethernet has is longer than the chunks that set up and end an association.
#[test]
fn what_fills_a_frame_up_is_not_part_of_sctps_checksum() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::SCTP);
        let filled = |packet: &Packet| {
            let mut frame = packet.bytes();
            frame.resize(frame.len() + 10, 0);
            frame
        };
        let mut request = Packet::sctp((f.a, 1000), (f.service, 80));
        request.set_payload(vec![11, 0, 0, 4]);
        let seen = request.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
        world.leaves(&a, &filled(&request)).redirected().frame(&filled(&seen));
    });
}

/// A pod's own device says that it makes the checksum.
#[test]
fn a_checksum_of_sctp_that_is_still_to_be_made_stays_blank() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::SCTP);
        let blank = |packet: &Packet| {
            let mut frame = packet.bytes();
            let at = if f.a.is_ipv4() { 14 + 20 + 8 } else { 14 + 40 + 8 };
            frame[at..at + 4].fill(0);
            frame
        };
        let request = Packet::sctp((f.a, 1000), (f.service, 80));
        let seen = request.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
        world.leaves(&a, &blank(&request)).redirected().frame(&blank(&seen));
    });
}

/// The stack would cut it up and send it on under the pod's own address.
#[test]
fn a_batch_of_sctp_goes_on_as_it_is() {
    World::test_families(|world, f| {
        let a = world.a;
        let mut batch = Packet::sctp((f.a, 1000), (f.world, 80));
        batch.set_payload(vec![0; 3000]);
        let run = world.leaves_as_batch(&a, &batch.bytes(), 0xffff);
        run.redirected().packet(&batch.from((f.node, 1000)).ttl(63));
    });
}

#[test]
fn a_part_of_a_datagram_of_sctp_whose_checksum_cannot_be_corrected_is_dropped() {
    World::test_families(|world, f| {
        let a = world.a;
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::SCTP);
        let first = Packet::sctp((f.a, 1000), (f.service, 80)).fragment(7, 0, true);
        let run = world.leaves(&a, &first.bytes());
        let reason = run.events.last().and_then(|event| DropReason::from_code(event.reason));
        assert_eq!((run.verdict, reason), (2, Some(DropReason::ErrorWritingToPacket)), "{run:?}");
    });
}

#[test]
fn an_answer_through_the_tunnel_without_its_identity_is_no_answer() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::tcp((f.a, 1000), (f.remote, 80), SYN);
        world.leaves(&a, &request.bytes()).redirected();
        let run = world.run(Program::OverlayIngress, world.overlay, &request.reply().bytes());
        run.dropped(DropReason::ErrorRetrievingTunnelKey);
    });
}

#[test]
fn a_reply_asks_the_egress_policy_of_its_opener_as_it_is_now() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), b.identity, (proto::TCP, 80), false);
        connect(world, f);
        world.add_rule((&a, EGRESS), b.identity, (proto::TCP, 80), true);
        world.epochs.bump_endpoint(a.id).unwrap();
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), ACK)).dropped(DropReason::PolicyDeny);
        world.leaves(&a, &segment((f.a, 1000), (f.b, 80), ACK)).dropped(DropReason::PolicyDeny);
    });
}
