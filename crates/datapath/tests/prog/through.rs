// SPDX-License-Identifier: Apache-2.0
//! Flows from outside that go through this node to another: errors about them, fragments, ports, and floods.

use std::net::UdpSocket;

use abi::DropReason;
use abi::config::ProgramConfig;
use abi::flow::{State, proto};
use abi::ports::{self, Range};
use datapath::bpf::Options;

use crate::masquerade::assert_quotes;
use crate::offer::{NODE_PORT, Offer, exposed, exposed_with};
use crate::packet::{Packet, SYN, source_port};
use crate::world::{Family, World, families};

/// Where the network routes pods, so that packets are seen as they are.
fn routed(config: ProgramConfig) -> ProgramConfig {
    ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config }
}

/// A port of the node with a backend of another node. Returns a client's request, as it arrives and as it goes on.
fn offer(world: &World, f: &Family) -> (Packet, Packet) {
    let to = (f.node, 30080);
    Offer::new(to, proto::UDP, NODE_PORT, &[(f.remote, 8080)]).install(world);
    let request = Packet::udp((f.world, 40001), to);
    let seen = request.clone().from((f.node, 40001)).to((f.remote, 8080));
    (request, seen)
}

#[test]
fn an_error_about_a_request_reaches_its_client_and_one_about_an_answer_its_backend() {
    exposed_with(routed, |world, f| {
        let (request, seen) = offer(world, &f);
        world.arrives(&request.bytes()).redirected();
        // The backend, or a router before it, has not taken the request.
        for (by, as_told) in [(f.remote, f.node), (f.stranger, f.stranger)] {
            let run = world.arrives(&Packet::too_big(by, f.node, &seen).bytes());
            run.redirected();
            assert_quotes(&run.frame, &Packet::too_big(as_told, f.world, &request).ttl(63));
        }
        // The client, or a router before it, has not taken the answer.
        for (by, as_told) in [(f.world, f.node), (f.stranger, f.stranger)] {
            let run = world.arrives(&Packet::too_big(by, f.node, &request.reply()).bytes());
            run.redirected();
            assert_quotes(&run.frame, &Packet::too_big(as_told, f.remote, &seen.reply()).ttl(63));
        }
        // About what nobody has sent.
        let unknown = Packet::too_big(f.stranger, f.node, &request.reply().to((f.world, 40002)));
        world.arrives(&unknown.bytes()).ignored().packet(&unknown);
    });
}

/// Another node would take it for this one's, with whatever is inside.
#[test]
fn nobody_reaches_the_tunnel_of_another_node_by_a_service() {
    exposed(|world, f| {
        let to = (f.node, 30080);
        for backend in [f.node2, f.node] {
            Offer::new(to, proto::UDP, NODE_PORT, &[(backend, 8472)]).install(world);
            let run = world.arrives(&Packet::udp((f.world, 40001), to).bytes());
            run.dropped(DropReason::EncapsulationTrafficIsProhibited);
        }
        assert!(world.flows().is_empty());
        // At a pod it is a port like others.
        Offer::new(to, proto::UDP, NODE_PORT, &[(f.b, 8472)]).install(world);
        world.arrives(&Packet::udp((f.world, 40001), to).bytes()).redirected();
    });
}

#[test]
fn an_error_about_an_answer_of_a_pod_reaches_it() {
    exposed(|world, f| {
        let b = world.b;
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT, &[(f.b, 8080)]).install(world);
        let request = Packet::udp((f.world, 40001), to);
        world.arrives(&request.bytes()).redirected();
        let seen = request.clone().to((f.b, 8080));
        let run = world.arrives(&Packet::too_big(f.stranger, f.node, &request.reply()).bytes());
        run.redirected();
        let expected = Packet::too_big(f.stranger, f.b, &seen.reply()).macs(b.host_mac, b.mac).ttl(63);
        assert_quotes(&run.frame, &expected);
        // And one that it tells.
        let run = world.leaves(&b, &Packet::too_big(f.b, f.world, &seen).bytes());
        run.redirected();
        assert_quotes(&run.frame, &Packet::too_big(f.node, f.world, &request).ttl(63));
    });
}

#[test]
fn all_parts_of_a_datagram_go_to_one_backend() {
    exposed_with(routed, |world, f| {
        let (request, seen) = offer(world, &f);
        let parts = |packet: &Packet| [packet.clone().fragment(7, 0, true), packet.clone().fragment(7, 3, false)];
        for (part, expected) in parts(&request).into_iter().zip(parts(&seen)) {
            world.arrives(&part.bytes()).redirected().packet(&expected.ttl(63));
        }
        let answer = seen.reply();
        let told = answer.clone().from((f.node, 30080)).to((f.world, 40001));
        for (part, expected) in parts(&answer).into_iter().zip(parts(&told)) {
            world.arrives(&part.bytes()).redirected().packet(&expected.ttl(63));
        }
        // Without its first part nobody knows what one is of.
        let stray = request.fragment(8, 3, false);
        world.arrives(&stray.bytes()).ignored().packet(&stray);
    });
}

#[test]
fn a_port_of_the_nodes_own_sockets_of_the_tunnel_or_of_pods_is_not_taken_for_a_client() {
    exposed(|world, f| {
        let (request, _) = offer(world, &f);
        let any = if f.node.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        let used = socket.local_addr().unwrap().port();
        for port in [used, 8472, Range::of(world.a.ifindex).pick(0)] {
            world.clear_flows();
            world.arrives(&request.clone().from((f.world, port)).bytes()).redirected();
            let given = u16::from_be(world.flows()[0].1.nat_sport);
            assert!(given != port && given >= ports::FIRST && Range::OUTSIDE.allow(given), "{given} for {port}");
        }
    });
}

/// A client's flow with the node itself has the ends that an answer to it would have.
#[test]
fn a_port_of_a_pods_masqueraded_flow_is_not_taken_for_a_client() {
    exposed_with(routed, |world, f| {
        let a = world.a;
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT, &[(f.stranger, 8080)]).install(world);
        let own = Packet::udp((f.a, 40001), (f.stranger, 8080));
        world.leaves(&a, &own.bytes()).redirected().packet(&own.clone().from((f.node, 40001)).ttl(63));
        let run = world.arrives(&Packet::udp((f.world, 40001), to).bytes());
        let port = source_port(&run.redirected().frame);
        assert_ne!(port, 40001);
        let answer = own.clone().from((f.node, 40001)).reply();
        let expected = own.reply().macs(a.host_mac, a.mac).ttl(63);
        world.arrives(&answer.bytes()).redirected().packet(&expected);
    });
}

#[test]
fn a_flood_from_outside_costs_no_pods_connection() {
    let config = routed(ProgramConfig { expose_services: 1, ..ProgramConfig::default() });
    World::test_with(Options { config, flows: 256, ..Options::default() }, |world| {
        let f = families()[0];
        let (a, b) = (world.a, world.b);
        let segment = |from, to, flags| Packet::tcp(from, to, flags).bytes();
        for (pod, frame) in [
            (a, segment((f.a, 1000), (f.b, 80), SYN)),
            (b, segment((f.b, 80), (f.a, 1000), SYN | crate::packet::ACK)),
            (a, segment((f.a, 1000), (f.b, 80), crate::packet::ACK)),
        ] {
            world.leaves(&pod, &frame).redirected();
        }
        let to = (f.node, 30080);
        Offer::new(to, proto::TCP, NODE_PORT, &[(f.remote, 8080)]).install(world);
        for port in 0..2000 {
            world.arrives(&segment((f.world, 10_000 + port), to, SYN)).redirected();
        }
        let flows = world.flows();
        let opening = flows.iter().filter(|(tuple, flow)| flow.state(tuple.proto) == State::Opening).count();
        assert_eq!(flows.len() - opening, 1);
        assert!(world.aliases() <= opening, "aliases go with their flows");
        world.leaves(&b, &segment((f.b, 80), (f.a, 1000), crate::packet::ACK)).redirected();
        // And a pod still opens its own.
        world.leaves(&b, &segment((f.b, 2000), (f.a, 443), SYN)).redirected();
    });
}
