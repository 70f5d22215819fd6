// SPDX-License-Identifier: Apache-2.0
//! Where packets go, without policy: to another pod, into the tunnel, to the world, to the host.

use abi::config::ProgramConfig;
use abi::event::{point, trace_reason};
use abi::flow::{State, action, proto};
use abi::{DropReason, identity};
use datapath::bpf::Options;
use std::net::IpAddr;

use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::world::{REMOTE_IDENTITY, World, families, tuple};

#[test]
fn a_pod_reaches_another_pod_of_its_node_and_gets_answers() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        let run = world.leaves(&a, &request.bytes());
        run.redirected().packet(&request.clone().macs(b.host_mac, b.mac).ttl(63));
        let event = run.told();
        assert_eq!((event.point, event.reason), (point::TO_ENDPOINT, trace_reason::NEW));
        assert_eq!((event.src_identity, event.dst_identity), (a.identity, b.identity));
        assert_eq!((event.src_endpoint, event.dst_endpoint), (a.id, b.id));

        let flow = world.flow(&tuple((f.a, 1000), (f.b, 53), 17)).unwrap();
        let way = |half: abi::flow::Half| (half.action, half.out_ifindex, half.packets);
        assert_eq!(way(flow.forward), (action::LOCAL, b.ifindex, 1));
        assert_eq!(way(flow.reply), (action::LOCAL, a.ifindex, 0));
        assert_eq!((world.flows().len(), world.aliases()), (1, 0));

        world
            .leaves(&a, &request.bytes())
            .redirected()
            .packet(&request.clone().macs(b.host_mac, b.mac).ttl(63))
            .untold();
        let answer = request.reply();
        world.leaves(&b, &answer.bytes()).redirected().packet(&answer.macs(a.host_mac, a.mac).ttl(63)).untold();
        let flow = world.flow(&tuple((f.a, 1000), (f.b, 53), 17)).unwrap();
        assert_eq!((flow.forward.packets, flow.reply.packets, flow.state(proto::UDP)), (2, 1, State::Established));
    });
}

#[test]
fn every_packet_is_told_of_where_that_is_wanted() {
    let config = ProgramConfig { event_interval: 0, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, |world| {
        let (a, b) = (world.a, world.b);
        for f in families() {
            let request = Packet::udp((f.a, 1000), (f.b, 53));
            assert_eq!(world.leaves(&a, &request.bytes()).told().reason, trace_reason::NEW);
            assert_eq!(world.leaves(&a, &request.bytes()).told().reason, trace_reason::ESTABLISHED);
            for _ in 0..2 {
                assert_eq!(world.leaves(&b, &request.reply().bytes()).told().reason, trace_reason::REPLY);
            }
        }
    });
}

#[test]
fn a_pod_of_another_node_is_reached_through_the_tunnel() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::tcp((f.a, 1000), (f.remote, 80), SYN);
        let run = world.leaves(&a, &request.bytes());
        run.redirected().packet(&request.clone().ttl(63));
        let event = run.told();
        assert_eq!((event.point, event.dst_identity), (point::TO_OVERLAY, REMOTE_IDENTITY));
        let flow = world.flow(&tuple((f.a, 1000), (f.remote, 80), 6)).unwrap();
        assert_eq!((flow.forward.action, flow.forward.out_ifindex), (action::TUNNEL, world.overlay));
        assert_eq!(IpAddr::from(flow.forward.hop), families()[0].node2);
        assert_eq!((flow.reply.action, flow.reply.out_ifindex), (action::LOCAL, a.ifindex));
    });
}

#[test]
fn what_comes_out_of_the_tunnel_without_a_key_is_dropped() {
    World::test_families(|world, f| {
        let packet = Packet::udp((f.remote, 1000), (f.a, 53));
        let run = world.run(datapath::bpf::Program::OverlayIngress, world.overlay, &packet.bytes());
        run.dropped(DropReason::ErrorRetrievingTunnelKey);
        assert!(world.flows().is_empty());
    });
}

#[test]
fn without_a_tunnel_device_a_remote_pod_is_not_reachable() {
    World::test_families(|world, f| {
        let a = world.a;
        world.set_node(|node| node.overlay_ifindex = 0);
        let request = Packet::udp((f.a, 1000), (f.remote, 53));
        world.leaves(&a, &request.bytes()).dropped(DropReason::NoTunnelOrEncapsulationEndpoint);
    });
}

#[test]
fn what_a_pod_sends_to_its_node_goes_to_the_stack() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::tcp((f.a, 1000), (f.node, 6443), SYN);
        let run = world.leaves(&a, &request.bytes());
        run.passed().packet(&request);
        assert_eq!((run.told().point, run.told().dst_identity), (point::TO_STACK, identity::HOST));
        let answer = request.reply();
        world.enters(&a, &answer.bytes()).passed().packet(&answer);
    });
}

#[test]
fn what_the_host_sends_reaches_the_pod_and_the_pod_can_answer() {
    World::test_families(|world, f| {
        let a = world.a;
        let probe = Packet::tcp((f.node, 40000), (f.a, 8080), SYN);
        let run = world.enters(&a, &probe.bytes());
        assert_eq!((run.told().src_identity, run.told().dst_endpoint), (identity::HOST, a.id));
        let answer = probe.reply();
        // It belongs to the opening, which has been told.
        world.leaves(&a, &answer.bytes()).passed().packet(&answer).untold();
        let run = world.leaves(&a, &Packet::tcp((f.a, 8080), (f.node, 40000), FIN | ACK).bytes());
        assert_eq!((run.told().reason, run.told().reply), (trace_reason::REPLY, 1));
    });
}

#[test]
fn what_arrives_at_the_native_device_for_others_is_none_of_our_business() {
    World::test_families(|world, f| {
        for dst in [f.node, f.world, f.stranger] {
            let packet = Packet::tcp((f.world, 1000), (dst, 22), SYN);
            world.arrives(&packet.bytes()).ignored().packet(&packet);
        }
        assert!(world.flows().is_empty());
    });
}

#[test]
fn an_impostor_of_a_remote_pod_on_the_native_device_is_dropped() {
    World::test_families(|world, f| {
        let packet = Packet::udp((f.remote, 1000), (f.a, 53));
        world.arrives(&packet.bytes()).dropped(DropReason::InvalidSourceIp);
    });
}

#[test]
fn the_world_may_reach_a_pod_that_the_network_routes_to() {
    World::test_families(|world, f| {
        let a = world.a;
        let packet = Packet::tcp((f.world, 1000), (f.a, 80), SYN);
        let run = world.arrives(&packet.bytes());
        run.redirected().packet(&packet.clone().macs(a.host_mac, a.mac).ttl(63));
        assert_eq!(run.told().src_identity, identity::WORLD);
        let answer = packet.reply();
        world.leaves(&a, &answer.bytes()).redirected().packet(&answer.ttl(63));
    });
}

#[test]
fn a_source_that_is_not_the_pods_own_is_dropped() {
    World::test_families(|world, f| {
        let a = world.a;
        for src in [f.stranger, f.b, f.node, f.world] {
            let packet = Packet::udp((src, 1000), (f.b, 53));
            world.leaves(&a, &packet.bytes()).dropped(DropReason::InvalidSourceIp);
        }
        assert!(world.flows().is_empty());
        world.set_pod(&a, abi::endpoint::flags::ANY_SOURCE);
        world.leaves(&a, &Packet::udp((f.stranger, 1000), (f.b, 53)).bytes()).redirected();
    });
}

#[test]
fn another_pods_flow_cannot_be_used_to_forge_its_source() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let packet = Packet::udp((f.a, 1000), (f.world, 53));
        world.leaves(&a, &packet.bytes()).redirected();
        world.leaves(&b, &packet.bytes()).dropped(DropReason::InvalidSourceIp);
    });
}

#[test]
fn nothing_leaves_a_pod_that_is_unknown_or_not_ready() {
    World::test_families(|world, f| {
        let a = world.a;
        let packet = Packet::udp((f.a, 1000), (f.b, 53));
        world.set_pod(&a, abi::endpoint::flags::NOT_READY);
        world.leaves(&a, &packet.bytes()).dropped(DropReason::DropEpNotReady);
        let eth0 = world.eth0;
        world.run(datapath::bpf::Program::PodEgress, eth0, &packet.bytes()).dropped(DropReason::DropEpNotReady);
        // Nor under another's address, which nobody gets as far as to look at.
        world.set_pod(&world.a, abi::endpoint::flags::NOT_READY);
        let forged = Packet::udp((f.stranger, 1000), (f.b, 53)).bytes();
        world.leaves(&world.a.clone(), &forged).dropped(DropReason::DropEpNotReady);
    });
}

#[test]
fn nothing_enters_a_pod_that_is_not_ready() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, abi::endpoint::flags::NOT_READY);
        let packet = Packet::udp((f.a, 1000), (f.b, 53));
        world.leaves(&a, &packet.bytes()).dropped(DropReason::DropEpNotReady);
        world.arrives(&Packet::udp((f.world, 1000), (f.b, 53)).bytes()).dropped(DropReason::DropEpNotReady);
        world.enters(&b, &Packet::udp((f.node, 1000), (f.b, 53)).bytes()).dropped(DropReason::DropEpNotReady);
    });
}

#[test]
fn the_last_hop_is_left_to_the_stack_which_says_so() {
    World::test_families(|world, f| {
        let a = world.a;
        for _packet in 0..2 {
            let packet = Packet::udp((f.a, 1000), (f.remote, 53)).ttl(1);
            world.leaves(&a, &packet.bytes()).passed().packet(&packet);
        }
    });
}

#[test]
fn the_end_of_a_connection_is_told_and_a_new_one_on_its_ports_is_new() {
    World::test_families(|world, f| {
        let a = world.a;
        let packet = |flags| Packet::tcp((f.a, 1000), (f.b, 80), flags).bytes();
        assert_eq!(world.leaves(&a, &packet(SYN)).told().reason, trace_reason::NEW);
        world.leaves(&a, &packet(ACK)).redirected().untold();
        let end = world.leaves(&a, &packet(FIN | ACK)).told();
        assert_eq!((end.reason, end.tcp_flags, end.packets), (trace_reason::ESTABLISHED, FIN | ACK, 3));
        world.leaves(&a, &packet(FIN | ACK)).redirected().untold();
        assert_eq!(world.leaves(&a, &packet(SYN)).told().reason, trace_reason::NEW);
        let flow = world.flow(&tuple((f.a, 1000), (f.b, 80), 6)).unwrap();
        assert_eq!((flow.forward.packets, flow.state(proto::TCP)), (1, State::Opening));
        world.leaves(&a, &packet(RST)).redirected();
        let flow = world.flow(&tuple((f.a, 1000), (f.b, 80), 6)).unwrap();
        assert_eq!(flow.state(proto::TCP), State::Closed);
    });
}

#[test]
fn an_echo_request_is_answered() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::echo_request(f.a, f.b, 7);
        let run = world.leaves(&a, &request.bytes());
        run.redirected().packet(&request.clone().macs(b.host_mac, b.mac).ttl(63));
        run.told();
        let answer = Packet::echo_reply(f.b, f.a, 7);
        world.leaves(&b, &answer.bytes()).redirected().packet(&answer.macs(a.host_mac, a.mac).ttl(63)).untold();
    });
}
