// SPDX-License-Identifier: Apache-2.0
//! The same at the backend's node: what it takes out of packets, and from whom.

use std::net::IpAddr;

use abi::DropReason;
use abi::config::ProgramConfig;
use abi::flow::proto;
use abi::lb::flags::DSR;
use datapath::bpf::Program;

use super::{inside, ipip, routed};
use crate::direct::telling;
use crate::masquerade::assert_quotes;
use crate::offer::{LOAD_BALANCER, Offer, exposed_with};
use crate::packet::{ACK, FIN, Packet, SYN};
use crate::returned::served;

const STALE: DropReason = DropReason::StaleOrUnroutableIp;

#[test]
fn only_nodes_send_to_pods_what_is_inside() {
    ipip(|world, f| {
        let to = (f.service, 80);
        served(world, &f, proto::TCP, to, LOAD_BALANCER | DSR);
        let request = Packet::tcp((f.world, 40001), to, SYN);
        for stranger in [f.world, f.stranger, f.remote, f.service] {
            world.arrives(&inside(stranger, f.b, &request).bytes()).dropped(DropReason::UnknownSender);
        }
        for forged in [f.node, f.a, f.b] {
            world.arrives(&inside(forged, f.b, &request).bytes()).dropped(DropReason::InvalidSourceIp);
        }
        // A later fragment says nothing by itself.
        let [_, later] = Packet::udp((f.world, 40001), to).payload(&[9; 64]).split(7, 3);
        let alone = inside(f.node2, f.b, &later).bytes();
        world.arrives(&alone).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
        assert!(world.flows().is_empty());
    });
}

/// One that has its fragments, options or another packet of the kind inside is no node's.
#[test]
fn what_no_node_makes_is_dropped_by_name() {
    ipip(|world, f| {
        let to = (f.service, 80);
        served(world, &f, proto::UDP, to, LOAD_BALANCER | DSR);
        let request = Packet::udp((f.world, 40001), to);
        let plain = inside(f.node2, f.b, &request);
        let nested = inside(f.node2, f.b, &plain);
        let optioned = if f.a.is_ipv4() {
            plain.clone().options(&[1; 4])
        } else {
            plain.clone().extension(0, &[1, 4, 0, 0, 0, 0])
        };
        let odd = DropReason::IpFragmentationNotSupported;
        for (packet, reason) in [
            (nested, DropReason::CtUnknownL4Protocol),
            (optioned, odd),
            (plain.clone().fragment(7, 0, true), odd),
            (plain.clone().fragment(7, 3, false), odd),
            (plain.clone().payload(&[]), DropReason::InvalidPacketDropped),
            (
                plain.clone().payload(&request.network()[..request.network().len() - 20]),
                DropReason::CtTruncatedOrInvalidHeader,
            ),
            (inside(f.node2, f.b, &telling(request.clone(), to)), DropReason::EncapsulationTrafficIsProhibited),
            (inside(f.node2, f.b, &Packet::echo_request(f.world, f.service, 7)), STALE),
        ] {
            world.arrives(&packet.bytes()).dropped(reason);
        }
        // Of the other version.
        let mut other = plain.bytes();
        let at = if f.a.is_ipv4() { 34 } else { 54 };
        other[at] = if f.a.is_ipv4() { 0x65 } else { 0x45 };
        let ifindex = world.eth0;
        world.run(Program::NetdevIngress, ifindex, &other).dropped(DropReason::InvalidPacketDropped);
        assert!(world.flows().is_empty());
    });
}

/// The node may have tunnels of its own.
#[test]
fn what_is_for_the_node_and_no_service_is_left_as_it_is() {
    ipip(|world, f| {
        let to = (f.service, 80);
        let request = Packet::udp((f.world, 40001), to);
        let mut left = vec![inside(f.node2, f.node, &request), inside(f.node2, f.remote, &request)];
        Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(f.node, 8080)]).install(world);
        left.extend([f.world, f.stranger].map(|stranger| inside(stranger, f.node, &request)));
        left.push(inside(f.node2, f.node, &request.clone().to((f.remote, 80))));
        for packet in left.iter().skip(1) {
            world.arrives(&packet.bytes()).ignored().packet(packet);
        }
        world.arrives(&left[0].bytes()).passed().packet(&request.to((f.node, 8080)));
    });
}

#[test]
fn an_error_about_an_answer_reaches_the_backend() {
    ipip(|world, f| {
        let to = (f.service, 80);
        served(world, &f, proto::UDP, to, LOAD_BALANCER | DSR);
        let request = Packet::udp((f.world, 40001), to);
        world.arrives(&inside(f.node2, f.b, &request).bytes()).redirected();
        let router: IpAddr = if f.a.is_ipv4() { "198.51.100.1" } else { "2001:db8:ffff::1" }.parse().unwrap();
        let error = Packet::too_big(router, f.service, &request.reply());
        let seen = Packet::too_big(router, f.b, &request.clone().to((f.b, 8080)).reply());
        let b = world.b;
        for _ in 0..2 {
            let run = world.arrives(&inside(f.node2, f.b, &error).bytes());
            run.redirected();
            assert_quotes(&run.frame, &seen.clone().macs(b.host_mac, b.mac).ttl(63));
            world.epochs.bump_node().unwrap();
        }
    });
}

/// Routes and announcements change: its client's packets come here at once, and by another node again.
#[test]
fn a_connection_goes_on_when_the_node_that_is_asked_changes() {
    ipip(|world, f| {
        let b = world.b;
        let to = (f.service, 80);
        served(world, &f, proto::TCP, to, LOAD_BALANCER | DSR);
        let sent = |flags| Packet::tcp((f.world, 40001), to, flags);
        let delivered = |flags| sent(flags).to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
        let answer = Packet::tcp((f.b, 8080), (f.world, 40001), SYN | ACK);
        for (by_node, flags) in [(true, SYN), (false, ACK), (true, ACK), (false, ACK), (true, ACK | FIN)] {
            let arrived = if by_node { inside(f.node2, f.b, &sent(flags)) } else { sent(flags) };
            world.arrives(&arrived.bytes()).redirected().packet(&delivered(flags));
            world.leaves(&b, &answer.bytes()).redirected().packet(&answer.clone().from(to).ttl(63));
            assert_eq!((world.flows().len(), world.aliases()), (1, 1));
        }
    });
}

/// The node that is asked has chosen another: a flow that stands keeps its backend, one that nobody has answered makes way.
#[test]
fn a_flow_stays_with_its_backend() {
    ipip(|world, f| {
        let (a, b) = (world.a, world.b);
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER | DSR, &[(f.b, 8080), (f.a, 8080)]).install(world);
        let sent = |flags| Packet::tcp((f.world, 40001), to, flags);
        for (pod, at) in [(&b, f.b), (&a, f.a), (&b, f.b)] {
            let seen = sent(SYN).to((at, 8080)).macs(pod.host_mac, pod.mac).ttl(63);
            world.arrives(&inside(f.node2, at, &sent(SYN)).bytes()).redirected().packet(&seen);
            assert_eq!((world.flows().len(), world.aliases()), (1, 1));
        }
        world.leaves(&b, &Packet::tcp((f.b, 8080), (f.world, 40001), SYN | ACK).bytes()).redirected();
        world.arrives(&inside(f.node2, f.b, &sent(ACK)).bytes()).redirected();
        let other = inside(f.node2, f.a, &sent(ACK)).bytes();
        world.arrives(&other).dropped(DropReason::NoMappingForNatMasquerade);
    });
}

/// Its backend may be finishing what it began.
#[test]
fn a_connection_outlives_its_service() {
    ipip(|world, f| {
        let b = world.b;
        let to = (f.service, 80);
        let offer = served(world, &f, proto::TCP, to, LOAD_BALANCER | DSR);
        let sent = |flags| inside(f.node2, f.b, &Packet::tcp((f.world, 40001), to, flags)).bytes();
        world.arrives(&sent(SYN)).redirected();
        world.leaves(&b, &Packet::tcp((f.b, 8080), (f.world, 40001), SYN | ACK).bytes()).redirected();
        world.arrives(&sent(ACK)).redirected();
        offer.remove(world);
        world.epochs.bump_peer(f.b).unwrap();
        world.arrives(&sent(ACK)).redirected();
        world.clear_flows();
        world.arrives(&sent(ACK)).dropped(STALE);
    });
}

/// While nodes go over from one way of telling to the other, each understands both.
#[test]
fn both_ways_of_telling_are_understood_and_lead_to_one_flow() {
    for direct_ipip in [0, 1] {
        exposed_with(
            move |config| ProgramConfig { direct_ipip, ..routed(config) },
            |world, f| {
                let b = world.b;
                let to = (f.service, 80);
                served(world, &f, proto::UDP, to, LOAD_BALANCER | DSR);
                let request = Packet::udp((f.world, 40001), to);
                let seen = request.clone().to((f.b, 8080));
                let delivered = seen.clone().macs(b.host_mac, b.mac).ttl(63);
                let (option, whole) = (telling(seen.clone(), to), inside(f.node2, f.b, &request));
                for arrived in [&option, &whole, &option, &whole] {
                    world.arrives(&arrived.bytes()).redirected().packet(&delivered);
                    let answer = seen.reply();
                    world.leaves(&b, &answer.bytes()).redirected().packet(&answer.from(to).ttl(63));
                    assert_eq!(world.flows().len(), 1);
                }
            },
        );
    }
}

/// Those that are switched off do not look.
#[test]
fn nothing_is_taken_out_where_that_is_switched_off() {
    exposed_with(
        |config| ProgramConfig { direct_return: 0, direct_ipip: 0, ..routed(config) },
        |world, f| {
            let to = (f.service, 80);
            served(world, &f, proto::UDP, to, LOAD_BALANCER | DSR);
            let packet = inside(f.node2, f.b, &Packet::udp((f.world, 40001), to));
            world.arrives(&packet.bytes()).ignored().packet(&packet);
        },
    );
}
