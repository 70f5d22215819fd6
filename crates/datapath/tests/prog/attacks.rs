// SPDX-License-Identifier: Apache-2.0
//! Attacks that once succeeded.

use abi::DropReason;
use abi::endpoint::flags::{EGRESS_ENFORCED, INGRESS_ENFORCED};
use abi::flow::{State, proto};
use abi::maps::{Backends, Flows};
use abi::policy::{EGRESS, INGRESS};
use datapath::Kernel;

use crate::packet::{ACK, Packet, RST, SYN, octets, source_port};
use crate::state::serve;
use crate::world::{Family, World, tuple};

fn destination(frame: &[u8]) -> Vec<u8> {
    if frame[12..14] == [8, 0] { frame[30..34].to_vec() } else { frame[38..54].to_vec() }
}

fn source(frame: &[u8]) -> Vec<u8> {
    if frame[12..14] == [8, 0] { frame[26..30].to_vec() } else { frame[22..38].to_vec() }
}

/// The wire, under a service's address, reaches the backend of a pod's flow, past the backend's policy.
#[test]
fn a_services_address_from_the_wire_does_not_reach_the_backend() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::UDP);
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), a.identity, (proto::UDP, 8080), false);
        world.leaves(&a, &Packet::udp((f.a, 1000), (f.service, 80)).bytes()).redirected();
        world.arrives(&Packet::udp((f.world, 80), (f.b, 8080)).bytes()).dropped(DropReason::PolicyDenied);
        let run = world.arrives(&Packet::udp((f.service, 80), (f.a, 1000)).bytes());
        assert_ne!(destination(&run.frame), octets(f.b), "delivered to B: {run:?}");
    });
}

/// The world opens to a pod with the ports of a masqueraded flow: it is sent back to the world under the node's address.
#[test]
fn the_world_may_speak_directly_to_a_pod_that_speaks_to_it_masqueraded() {
    World::test_families(|world, f| {
        let a = world.a;
        world.leaves(&a, &Packet::udp((f.a, 40001), (f.world, 53)).bytes()).redirected();
        let run = world.arrives(&Packet::udp((f.world, 53), (f.a, 40001)).bytes());
        assert_eq!((source(&run.frame), run.verdict), (octets(f.world), 7), "{run:?}");
    });
}

/// A flow that had to take another port keeps it when its decision is renewed.
#[test]
fn a_flow_with_another_port_keeps_it_after_an_epoch() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::UDP);
        world.leaves(&a, &Packet::udp((f.a, 1000), (f.service, 80)).bytes()).redirected();
        let direct = Packet::udp((f.a, 1000), (f.b, 8080)).bytes();
        let port = source_port(&world.leaves(&a, &direct).frame);
        assert_ne!(port, 1000);
        world.epochs.bump_node().unwrap();
        let again = source_port(&world.leaves(&a, &direct).frame);
        let reply = world.leaves(&b, &Packet::udp((f.b, 8080), (f.a, 1000)).bytes());
        assert_eq!((again, source(&reply.frame)), (port, octets(f.service)));
    });
}

/// The backend speaks from the port of its service to the client's port, before the client speaks to the service.
#[test]
fn answers_of_a_service_are_not_taken_for_the_backends_own_flow() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 7946), (f.b, 7946), proto::UDP);
        world.leaves(&b, &Packet::udp((f.b, 7946), (f.a, 7946)).bytes()).redirected();
        let run = world.leaves(&a, &Packet::udp((f.a, 7946), (f.service, 7946)).bytes());
        run.redirected();
        let port = source_port(&run.frame);
        let reply = world.leaves(&b, &Packet::udp((f.b, 7946), (f.a, port)).bytes());
        assert_eq!(source(&reply.redirected().frame), octets(f.service), "port {port}");
    });
}

/// A pod that sends segments from the middle of connections that never were.
#[test]
fn a_flood_of_middles_costs_nobody_else_a_connection() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        for port in 0..1100_u16 {
            world.leaves(&b, &Packet::tcp((f.b, 10000 + port), (f.world, 80), ACK).bytes());
        }
        world.leaves(&a, &Packet::tcp((f.a, 1000), (f.b, 80), SYN).bytes()).redirected();
    });
}

/// The wire does the same to a pod.
#[test]
fn a_flood_of_middles_from_the_wire_costs_nobody_a_connection() {
    World::test_families(|world, f| {
        let a = world.a;
        for port in 0..1100_u16 {
            world.arrives(&Packet::tcp((f.world, 10000 + port), (f.b, 80), ACK).bytes());
        }
        world.leaves(&a, &Packet::tcp((f.a, 1000), (f.b, 80), SYN).bytes()).redirected();
    });
}

/// A new connection on the ports of one whose backend has died without a word.
#[test]
fn a_new_connection_does_not_go_to_a_dead_backend() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, 1, (f.service, 80), (f.b, 8080), proto::TCP);
        let to = |flags| Packet::tcp((f.a, 1000), (f.service, 80), flags).bytes();
        world.leaves(&a, &to(SYN)).redirected();
        world.leaves(&b, &Packet::tcp((f.b, 8080), (f.a, 1000), SYN | ACK).bytes()).redirected();
        world.leaves(&a, &to(ACK)).redirected();
        // B is gone; the service has another backend.
        serve(world, 2, (f.service, 80), (f.remote, 8080), proto::TCP);
        world.datapath.map::<Backends>().unwrap().remove(&1).unwrap();
        world.epochs.bump_peer(f.b).unwrap();
        world.epochs.bump_peer(f.service).unwrap();
        world.epochs.bump_node().unwrap();
        let run = world.leaves(&a, &to(SYN));
        assert!(!run.frame.windows(octets(f.b).len()).any(|w| w == octets(f.b)), "to the dead backend: {run:?}");
    });
}

/// Egress is denied; nobody has opened anything.
#[test]
fn a_pod_without_egress_sends_nothing_that_looks_like_an_answer() {
    World::test_families(|world, f| {
        let b = world.b;
        world.set_pod(&b, EGRESS_ENFORCED);
        world.leaves(&b, &Packet::tcp((f.b, 80), (f.world, 50000), SYN).bytes()).dropped(DropReason::PolicyDenied);
        let run = world.leaves(&b, &Packet::tcp((f.b, 80), (f.world, 50000), ACK).bytes());
        run.dropped(DropReason::PolicyDenied);
    });
}

/// And whole conversations: the outside answers, under the record that the pod has made for itself.
#[test]
fn a_pod_without_egress_does_not_talk_to_another_pod() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, EGRESS_ENFORCED);
        world.set_pod(&a, INGRESS_ENFORCED);
        let run = world.leaves(&b, &Packet::tcp((f.b, 80), (f.a, 50000), SYN | ACK).bytes());
        run.dropped(DropReason::PolicyDenied);
    });
}

/// A reset that neither end believes.
#[test]
fn a_connection_that_goes_on_after_a_forged_reset_is_not_closed() {
    World::test_families(|world, f| {
        let a = world.a;
        let out = |flags| Packet::tcp((f.a, 40001), (f.world, 80), flags).bytes();
        let back = |flags| Packet::tcp((f.world, 80), (f.node, 40001), flags).bytes();
        world.leaves(&a, &out(SYN)).redirected();
        world.arrives(&back(SYN | ACK)).redirected();
        world.leaves(&a, &out(ACK)).redirected();
        world.arrives(&back(RST)).redirected();
        for _ in 0..3 {
            world.leaves(&a, &out(ACK)).redirected();
            world.arrives(&back(ACK)).redirected();
        }
        let flow = world.flow(&tuple((f.a, 40001), (f.world, 80), proto::TCP)).unwrap();
        assert_eq!(flow.state(proto::TCP), State::Established);
    });
}

/// "Packet too big" about a fragment (RFC 4443: as much of the packet as fits).
#[test]
fn too_big_about_an_ipv6_fragment_reaches_the_pod() {
    World::test_families(|world, f| {
        let a = world.a;
        if f.a.is_ipv4() {
            return;
        }
        let mut datagram = Packet::udp((f.a, 40001), (f.world, 53)).fragment(7, 0, true);
        datagram.set_payload(vec![0; 64]);
        world.leaves(&a, &datagram.bytes()).redirected();
        let seen = datagram.from((f.node, 40001));
        world.arrives(&Packet::too_big(f.stranger, f.node, &seen).bytes()).redirected();
    });
}

/// Pod A may speak to a service with B as its backend, and to nobody else; nobody may speak to A.
fn let_speak_to_a_service(world: &World, f: Family) {
    let (a, b) = (world.a, world.b);
    serve(world, 1, (f.service, 80), (f.b, 8080), proto::TCP);
    world.set_pod(&a, EGRESS_ENFORCED | INGRESS_ENFORCED);
    world.add_rule((&a, EGRESS), b.identity, (proto::TCP, 8080), false);
}

/// The wire speaks into a pod's connection to a service, under the service's address.
#[test]
fn the_wire_does_not_answer_for_a_service() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let_speak_to_a_service(world, f);
        let to = |flags| Packet::tcp((f.a, 1000), (f.service, 80), flags).bytes();
        world.leaves(&a, &to(SYN)).redirected();
        world.leaves(&b, &Packet::tcp((f.b, 8080), (f.a, 1000), SYN | ACK).bytes()).redirected();
        world.leaves(&a, &to(ACK)).redirected();
        let run = world.arrives(&Packet::tcp((f.service, 80), (f.a, 1000), ACK).bytes());
        assert_eq!(run.verdict, 2, "{run:?}");
    });
}

/// The same without any connection: it is enough that the pod may speak to the service.
#[test]
fn the_wire_does_not_answer_for_a_service_that_was_not_asked() {
    World::test_families(|world, f| {
        let_speak_to_a_service(world, f);
        let run = world.arrives(&Packet::tcp((f.service, 80), (f.a, 1000), SYN | ACK).bytes());
        assert_eq!(run.verdict, 2, "{run:?}");
    });
}

/// What `insert` does when another processor has made the record with this one's alias: the alias goes.
#[test]
fn a_record_that_lost_its_alias_gets_it_back() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::udp((f.a, 40001), (f.world, 53));
        world.leaves(&a, &request.bytes()).redirected();
        let map = world.datapath.map::<Flows>().unwrap();
        for key in map.keys().unwrap().iter().filter(|key| key.alias == 1) {
            map.remove(key).unwrap();
        }
        world.epochs.bump_node().unwrap();
        world.leaves(&a, &request.bytes()).redirected();
        world.arrives(&request.clone().from((f.node, 40001)).reply().bytes()).redirected();
    });
}

/// Destination options in the fragmented part (RFC 8200, 4.1): later fragments are not walked through for headers.
#[test]
fn a_later_fragment_is_not_searched_for_headers() {
    World::test_families(|world, f| {
        let a = world.a;
        if f.a.is_ipv4() {
            return;
        }
        let udp = Packet::udp((f.a, 1000), (f.b, 53)).network()[40..].to_vec();
        let options = crate::packet::Transport::Other { proto: 60 };
        let mut first = Packet::new(f.a, f.b, options).fragment(9, 0, true);
        first.set_payload([vec![17, 0, 1, 4, 0, 0, 0, 0], udp].concat());
        world.leaves(&a, &first.bytes()).redirected();
        let mut later = first.fragment(9, 4, false);
        later.set_payload(b"later fragments!".to_vec());
        world.leaves(&a, &later.bytes()).redirected();
    });
}

/// ICMP without an identifier has no port that could be another: what lies there belongs to the message.
#[test]
fn messages_without_an_identifier_are_not_rewritten() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let kind = if f.a.is_ipv4() { 10 } else { 139 };
        let message = |src| {
            Packet::new(src, f.world, crate::packet::Transport::Icmp { kind, code: 0, rest: [1, 2, 3, 4] }).bytes()
        };
        let at = if f.a.is_ipv4() { 38 } else { 58 };
        for (pod, src) in [(a, f.a), (b, f.b)] {
            let run = world.leaves(&pod, &message(src));
            assert!(run.verdict == 2 || run.frame[at..at + 4] == [1, 2, 3, 4], "{:?}", &run.frame[at..at + 4]);
        }
    });
}

/// What the stack forwards from elsewhere has another identity, also in a flow that is known.
#[test]
fn a_known_flow_of_the_stack_is_bound_to_where_it_came_in() {
    World::test_families(|world, f| {
        let b = world.b;
        let (eth0, overlay) = (world.eth0, world.overlay);
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), crate::world::REMOTE_IDENTITY, (proto::UDP, 53), false);
        let packet = Packet::udp((f.remote, 1000), (f.b, 53)).bytes();
        let place =
            |arrived_by| datapath::bpf::Place { ifindex: b.ifindex, arrived_by, ..datapath::bpf::Place::default() };
        world.forwarded(place(eth0), &packet).dropped(DropReason::PolicyDenied);
        world.forwarded(place(overlay), &packet).passed();
        let run = world.forwarded(place(eth0), &packet);
        assert_eq!(run.verdict, 2, "{run:?}");
    });
}

/// The wire fills the table by segments to a pod that lets nobody in.
#[test]
fn a_flood_of_answers_to_a_pod_that_lets_nobody_in_leaves_nothing() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, INGRESS_ENFORCED);
        for port in 0..600_u16 {
            world.arrives(&Packet::tcp((f.world, 80), (f.b, 10000 + port), ACK).bytes());
        }
        let entries = world.flows().len();
        world.leaves(&a, &Packet::tcp((f.a, 1000), (f.world, 80), SYN).bytes()).redirected();
        assert!(entries < 200, "{entries}");
    });
}

/// A pod asks so often, and is always answered, that the table is full of its flows.
#[test]
fn answered_queries_cost_nobody_else_a_connection() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.leaves(&a, &Packet::udp((f.a, 500), (f.b, 53)).bytes()).redirected();
        world.leaves(&b, &Packet::udp((f.b, 53), (f.a, 500)).bytes()).redirected();
        let connection = |port, flags| Packet::tcp((f.a, port), (f.b, 80), flags).bytes();
        let accepted = |port, flags| Packet::tcp((f.b, 80), (f.a, port), flags).bytes();
        world.leaves(&a, &connection(999, SYN)).redirected();
        world.leaves(&b, &accepted(999, SYN | ACK)).redirected();
        world.leaves(&a, &connection(999, ACK)).redirected();
        for port in 0..1500_u16 {
            world.leaves(&b, &Packet::udp((f.b, 10000 + port), (f.a, 53)).bytes()).redirected();
            world.leaves(&a, &Packet::udp((f.a, 53), (f.b, 10000 + port)).bytes()).redirected();
        }
        for port in 1000..1060_u16 {
            world.leaves(&a, &connection(port, SYN)).redirected();
            world.leaves(&b, &accepted(port, SYN | ACK)).redirected();
            world.leaves(&a, &connection(port, ACK)).redirected();
            world.arrives(&Packet::udp((f.world, port), (f.a, 53)).bytes()).redirected();
        }
        let state = |from, to, proto| world.flow(&tuple(from, to, proto)).map(|flow| flow.state(proto));
        assert_eq!(state((f.a, 500), (f.b, 53), proto::UDP), Some(State::Established), "A's own query");
        assert_eq!(state((f.a, 999), (f.b, 80), proto::TCP), Some(State::Established), "A's connection");
    });
}

/// A full table: who opens a flow gives up one of their own, also when it is translated.
#[test]
fn a_full_table_makes_room_for_a_translated_flow() {
    World::test(|world| {
        let f = crate::world::families()[0];
        let a = world.a;
        for port in 0..8_u16 {
            world.leaves(&a, &Packet::tcp((f.a, 2000 + port), (f.b, 443), SYN).bytes()).redirected();
        }
        let map = world.datapath.map::<Flows>().unwrap();
        let (key, flow) = map.entries().unwrap()[0];
        let mut port = 10;
        while map.insert(&abi::flow::FlowKey { b_port: port, ..key }, &flow).is_ok() {
            port += 1;
        }
        // It is so for one that is not.
        world.leaves(&a, &Packet::tcp((f.a, 3000), (f.b, 443), SYN).bytes()).redirected();
        world.leaves(&a, &Packet::tcp((f.a, 3000), (f.world, 443), SYN).bytes()).redirected();
    });
}
