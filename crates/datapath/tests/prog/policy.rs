// SPDX-License-Identifier: Apache-2.0
//! What policy allows and denies, and what a change of policy does to flows that exist.

use abi::endpoint::flags::{EGRESS_ENFORCED, INGRESS_ENFORCED};
use abi::event::outcome;
use abi::flow::proto;
use abi::policy::{EGRESS, INGRESS, match_type};
use abi::{DropReason, identity};

use crate::packet::{Packet, SYN};
use crate::world::World;

#[test]
fn an_enforced_pod_without_rules_gets_and_sends_nothing() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let packet = Packet::udp((f.a, 1000), (f.b, 53)).bytes();
        world.set_pod(&b, INGRESS_ENFORCED);
        let event = world.leaves(&a, &packet).dropped(DropReason::PolicyDenied);
        assert_eq!((event.ingress.outcome, event.ingress.match_type), (outcome::DENY, match_type::NONE));
        assert_eq!((event.src_identity, event.dst_identity), (a.identity, b.identity));
        world.set_pod(&b, 0);
        world.set_pod(&a, EGRESS_ENFORCED);
        let event = world.leaves(&a, &packet).dropped(DropReason::PolicyDenied);
        assert_eq!((event.egress.outcome, event.ingress.outcome), (outcome::DENY, outcome::NONE));
        assert!(world.flows().is_empty());
    });
}

#[test]
fn a_rule_allows_its_peer_and_port_and_nothing_else() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, INGRESS_ENFORCED);
        let provenance = world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 80), false);
        let run = world.leaves(&a, &Packet::tcp((f.a, 1000), (f.b, 80), SYN).bytes());
        let verdict = run.redirected().told().ingress;
        let said = (verdict.outcome, verdict.match_type, verdict.provenance);
        assert_eq!(said, (outcome::ALLOW, match_type::L3_L4, provenance));
        for other in [Packet::tcp((f.a, 1000), (f.b, 81), SYN), Packet::udp((f.a, 1000), (f.b, 80))] {
            world.leaves(&a, &other.bytes()).dropped(DropReason::PolicyDenied);
        }
        let host = Packet::tcp((f.node, 1000), (f.b, 80), SYN);
        world.enters(&b, &host.bytes()).dropped(DropReason::PolicyDenied);
    });
}

#[test]
fn each_kind_of_rule_is_named_in_the_event() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, INGRESS_ENFORCED);
        for (peer, port, kind) in [
            (0, (0, 0), match_type::ALL),
            (0, (proto::TCP, 0), match_type::PROTO_ONLY),
            (0, (proto::TCP, 80), match_type::L4_ONLY),
            (a.identity, (0, 0), match_type::L3_ONLY),
            (a.identity, (proto::TCP, 0), match_type::L3_PROTO),
            (a.identity, (proto::TCP, 80), match_type::L3_L4),
        ] {
            world.reset();
            world.set_pod(&b, INGRESS_ENFORCED);
            world.add_rule((&b, INGRESS), peer, port, false);
            let run = world.leaves(&a, &Packet::tcp((f.a, 1000), (f.b, 80), SYN).bytes());
            assert_eq!(run.redirected().told().ingress.match_type, kind, "{peer} {port:?}");
        }
    });
}

#[test]
fn a_deny_wins_over_an_allow() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 80), false);
        let provenance = world.add_rule((&b, INGRESS), 0, (proto::TCP, 80), true);
        let event = world.leaves(&a, &Packet::tcp((f.a, 1000), (f.b, 80), SYN).bytes()).dropped(DropReason::PolicyDeny);
        assert_eq!((event.ingress.provenance, event.direction), (provenance, INGRESS));
    });
}

#[test]
fn a_refused_packet_counts_in_the_direction_of_the_policy_that_refused_it_whichever_program_asked() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        let (request, answer) = (request.bytes(), request.reply().bytes());
        for (refusing, enforced, direction) in [(a, EGRESS_ENFORCED, EGRESS), (b, INGRESS_ENFORCED, INGRESS)] {
            world.reset();
            world.leaves(&a, &request).redirected();
            world.set_pod(&refusing, enforced);
            world.epochs.bump_endpoint(refusing.id).unwrap();
            // Each pod's own program asks, also about what it sends back.
            for run in [world.leaves(&b, &answer), world.leaves(&a, &request)] {
                assert_eq!(run.dropped(DropReason::PolicyDenied).direction, direction);
            }
        }
        // So does the native device's about an answer to who may not ask any more.
        world.reset();
        let request = Packet::udp((f.a, 40001), (f.world, 53));
        world.leaves(&a, &request.bytes()).redirected();
        world.set_pod(&a, EGRESS_ENFORCED);
        world.epochs.bump_endpoint(a.id).unwrap();
        let answer = request.from((f.node, 40001)).reply().bytes();
        assert_eq!(world.arrives(&answer).dropped(DropReason::PolicyDenied).direction, EGRESS);
        // What no policy refuses is of the program that drops it.
        world.reset();
        let spoofed = Packet::udp((f.b, 1000), (f.remote, 53)).bytes();
        assert_eq!(world.leaves(&a, &spoofed).dropped(DropReason::InvalidSourceIp).direction, EGRESS);
    });
}

#[test]
fn egress_policy_sees_remote_pods_and_the_world_by_identity() {
    World::test_families(|world, f| {
        let a = world.a;
        world.set_pod(&a, EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), crate::world::REMOTE_IDENTITY, (proto::UDP, 53), false);
        world.leaves(&a, &Packet::udp((f.a, 1000), (f.remote, 53)).bytes()).redirected();
        let world_packet = Packet::udp((f.a, 1000), (f.world, 53)).bytes();
        world.leaves(&a, &world_packet).dropped(DropReason::PolicyDenied);
        world.add_rule((&a, EGRESS), identity::WORLD, (proto::UDP, 53), false);
        world.leaves(&a, &world_packet).redirected();
    });
}

#[test]
fn the_answer_to_an_allowed_request_needs_no_rule() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, INGRESS_ENFORCED | EGRESS_ENFORCED);
        world.set_pod(&b, INGRESS_ENFORCED | EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), b.identity, (proto::UDP, 53), false);
        world.add_rule((&b, INGRESS), a.identity, (proto::UDP, 53), false);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        let answer = request.reply().bytes();
        world.leaves(&b, &answer).dropped(DropReason::PolicyDenied);
        world.leaves(&a, &request.bytes()).redirected();
        world.leaves(&b, &answer).redirected();
    });
}

#[test]
fn icmp_is_allowed_by_its_type() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (proto, request) = if f.a.is_ipv4() { (proto::ICMP, 8) } else { (proto::ICMPV6, 128) };
        world.set_pod(&b, INGRESS_ENFORCED | EGRESS_ENFORCED);
        let packet = Packet::echo_request(f.a, f.b, 7).bytes();
        world.leaves(&a, &packet).dropped(DropReason::PolicyDenied);
        world.add_rule((&b, INGRESS), a.identity, (proto, request), false);
        world.leaves(&a, &packet).redirected();
        let answer = Packet::echo_reply(f.b, f.a, 7).bytes();
        world.leaves(&b, &answer).redirected();
        world.epochs.bump_endpoint(b.id).unwrap();
        world.leaves(&b, &answer).redirected();
        world.leaves(&b, &Packet::echo_reply(f.b, f.a, 8).bytes()).dropped(DropReason::PolicyDenied);
    });
}

#[test]
fn a_withdrawn_rule_cuts_the_flow_with_its_next_packet_in_either_direction() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        for cut_by_answer in [false, true] {
            world.reset();
            world.set_pod(&b, INGRESS_ENFORCED);
            world.add_rule((&b, INGRESS), a.identity, (proto::TCP, 80), false);
            let request = Packet::tcp((f.a, 1000), (f.b, 80), SYN);
            let (answer, request) = (request.reply().bytes(), request.bytes());
            world.leaves(&a, &request).redirected();
            world.leaves(&b, &answer).redirected();
            let policies = world.datapath_policies();
            for key in policies.keys().unwrap() {
                policies.remove(&key).unwrap();
            }
            world.leaves(&a, &request).redirected();
            world.epochs.bump_endpoint(b.id).unwrap();
            if cut_by_answer {
                world.leaves(&b, &answer).dropped(DropReason::PolicyDenied);
            }
            world.leaves(&a, &request).dropped(DropReason::PolicyDenied);
            world.leaves(&b, &answer).dropped(DropReason::PolicyDenied);
        }
    });
}

#[test]
fn a_flow_that_policy_still_allows_goes_on_with_its_history() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::tcp((f.a, 1000), (f.b, 80), SYN);
        let (answer, request) = (request.reply().bytes(), request.bytes());
        world.leaves(&a, &request).redirected();
        world.leaves(&b, &answer).redirected();
        for bump in [0, a.id, b.id] {
            world.epochs.bump_endpoint(bump).unwrap();
            world.leaves(&a, &request).redirected().untold();
            world.epochs.bump_endpoint(bump).unwrap();
            world.leaves(&b, &answer).redirected().untold();
        }
        let packets: Vec<_> =
            world.flows().iter().map(|(_, flow)| (flow.forward.packets, flow.reply.packets)).collect();
        assert_eq!(packets, [(4, 4)]);
    });
}

#[test]
fn a_pod_that_has_gone_gets_nothing_more_from_its_flows() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::udp((f.a, 1000), (f.b, 53)).bytes();
        world.leaves(&a, &request).redirected();
        world.remove_local(f.b);
        world.set_identity((f.b, crate::world::full(f.b)), 3003, Some(crate::world::families()[0].node2));
        world.epochs.bump_node().unwrap();
        let run = world.leaves(&a, &request);
        run.redirected();
        let moved = world.flows().into_iter().find(|(key, _)| key.src == f.a.into()).unwrap().1;
        assert_eq!((moved.forward.action, moved.dst_identity), (abi::flow::action::TUNNEL, 3003));
        world.leaves(&b, &Packet::udp((f.b, 53), (f.a, 1000)).bytes());
        assert_ne!(run.frame[..6], b.mac);
    });
}
