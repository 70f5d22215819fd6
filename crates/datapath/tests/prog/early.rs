// SPDX-License-Identifier: Apache-2.0
//! Services from outside, served before the stack (XDP): the same frames as at tc, and the same records. What is not served there passes
//! untouched.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use abi::DropReason;
use abi::config::ProgramConfig;
use abi::flow::{Flow, FlowKey, action, proto};
use abi::lb::{SourceRangeKey, flags as lb};
use abi::maps::{Flows, Metrics, SourceRanges};
use datapath::bpf::{Program, XdpMode};
use datapath::{Kernel, LpmKey};

use crate::devices::{NODE_MAC, here, pod_mac, there};
use crate::direct::requests;
use crate::ipip;
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed_with};
use crate::packet::{ACK, Packet, SYN};
use crate::run::Run;
use crate::sandbox::version;
use crate::tunnel::{mac, socket};
use crate::wire::vxlan;
use crate::world::{Family, REMOTE_IDENTITY, World, families, full};

mod left;
mod random;

type End = (IpAddr, u16);

const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// Addresses of neighbours on the link.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xc, 1];
const NODE2: [u8; 6] = [2, 0, 0, 0, 0xc, 2];

/// Runs the test for each family on a node that serves before the stack, whose neighbours are known.
fn early(change: impl FnOnce(ProgramConfig) -> ProgramConfig, test: impl Fn(&mut World, Family) + Send + 'static) {
    exposed_with(
        |config| change(ProgramConfig { accelerate: 1, ..config }),
        move |world, f| {
            world.set_node(|node| node.native_mac = NODE_MAC);
            know_neighbours(ROUTER, NODE2);
            test(world, f);
        },
    );
}

/// Where the network routes pods.
fn routed(config: ProgramConfig) -> ProgramConfig {
    ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config }
}

fn tunnelled(config: ProgramConfig) -> ProgramConfig {
    config
}

fn know_neighbours(router: [u8; 6], node2: [u8; 6]) {
    for (ip, of) in [("192.0.2.1", router), ("2001:db8::1", router), ("192.0.2.20", node2), ("2001:db8::20", node2)] {
        here(&format!("ip neigh replace {ip} lladdr {} dev eth0 nud permanent", mac(of)));
    }
}

fn at_tc(world: &mut World, frame: &[u8]) -> Run {
    world.run(Program::NetdevIngress, world.eth0, frame)
}

/// Before the stack. Once a second each neighbour is left to the kernel: then the next packet tells.
fn arrives_early(world: &mut World, frame: &[u8]) -> Run {
    let run = world.run(Program::NetdevXdp, world.eth0, frame);
    if run.verdict == XDP_PASS { world.run(Program::NetdevXdp, world.eth0, frame) } else { run }
}

/// The flow table without what the clock, events and rings leave in it.
fn table(world: &World) -> Vec<(FlowKey, Flow)> {
    let mut entries = world.datapath.map::<Flows>().unwrap().entries().unwrap();
    entries.sort_by_key(|(key, _)| *key);
    for (_, flow) in &mut entries {
        flow.created = 0;
        for half in [&mut flow.forward, &mut flow.reply] {
            (half.last_seen, half.last_report, half.place) = (0, 0, 0);
        }
    }
    entries
}

fn restore(world: &World, entries: &[(FlowKey, Flow)]) {
    world.clear_flows();
    let flows = world.datapath.map::<Flows>().unwrap();
    for (key, flow) in entries {
        flows.insert(key, flow).unwrap();
    }
}

/// What becomes of a frame at both hooks, from the same state: at tc, and before the stack with tc behind it.
struct Both {
    tc: Run,
    early: Run,
}

/// Runs the frame at both hooks, and compares what comes out and what is remembered.
#[track_caller]
fn both(world: &mut World, frame: &[u8]) -> Both {
    let present = world.datapath.map::<Flows>().unwrap().entries().unwrap();
    let tc = at_tc(world, frame);
    let after_tc = table(world);
    restore(world, &present);
    let before = table(world);
    let early = arrives_early(world, frame);
    let expected = match early.verdict {
        XDP_PASS => {
            assert_eq!((&early.frame[..], &table(world)), (frame, &before), "not untouched: {tc:?}");
            assert!(early.counters.is_empty() && early.events.is_empty(), "{early:?}");
            restore(world, &present);
            let later = at_tc(world, frame);
            assert_eq!((later.verdict, hide_port(&later.frame)), (tc.verdict, hide_port(&tc.frame)));
            return Both { tc: later, early };
        }
        XDP_TX => TC_ACT_REDIRECT,
        _ => TC_ACT_SHOT,
    };
    assert_eq!(tc.verdict, expected, "{tc:?} {early:?}");
    if early.verdict == XDP_TX {
        // At tc the kernel writes the hardware addresses, after the program.
        assert_eq!(hide_port(&early.frame[12..]), hide_port(&tc.frame[12..]), "{early:?}");
    }
    assert_eq!(early.counters, tc.counters);
    let told = |run: &Run| run.events.iter().map(|event| (event.kind, event.reason, event.point)).collect::<Vec<_>>();
    assert_eq!(told(&early), told(&tc));
    assert_eq!(table(world), after_tc);
    Both { tc, early }
}

/// The tunnel's source port is made of another number at each hook.
fn hide_port(frame: &[u8]) -> Vec<u8> {
    const VXLAN: [u8; 2] = 8472_u16.to_be_bytes();
    let mut frame = frame.to_vec();
    if let Some(at) = (22..60.min(frame.len().saturating_sub(3))).find(|at| frame[at + 2..at + 4] == VXLAN) {
        frame[at..at + 2].fill(0);
    }
    frame
}

#[track_caller]
fn sent(both: &Both, macs: ([u8; 6], [u8; 6])) {
    let Both { early, tc } = both;
    assert_eq!(early.verdict, XDP_TX, "{early:?} {tc:?}");
    assert_eq!((&early.frame[..6], &early.frame[6..12]), (&macs.0[..], &macs.1[..]));
}

/// The first segments of a connection of a client with the node at `to`, which has its backend see `as_seen` as its client; and whether
/// the client sends them.
fn segments(client: End, to: End, as_seen: End, backend: End) -> [(Packet, bool); 3] {
    let request = |flags| Packet::tcp(client, to, flags);
    [(request(SYN), true), (Packet::tcp(backend, as_seen, SYN | ACK), false), (request(ACK), true)]
}

#[test]
fn where_the_network_routes_pods_both_directions_are_sent_on_as_at_tc() {
    early(routed, |world, f| {
        for (to, kind) in [((f.node, 30080), NODE_PORT), ((f.service, 80), LOAD_BALANCER)] {
            world.clear_flows();
            Offer::new(to, proto::TCP, kind, &[(f.remote, 8080)]).install(world);
            for (packet, _) in segments((f.world, 40001), to, (f.node, 40001), (f.remote, 8080)) {
                sent(&both(world, &packet.bytes()), (ROUTER, NODE_MAC));
            }
            for (proto, request) in
                [(proto::SCTP, Packet::sctp((f.world, 40001), to)), (proto::UDP, Packet::udp((f.world, 40001), to))]
            {
                Offer::new(to, proto, kind, &[(f.remote, 8080)]).install(world);
                let seen = request.clone().from((f.node, 40001)).to((f.remote, 8080));
                for (packet, carried) in [(&request, &seen), (&seen.reply(), &request.reply()), (&request, &seen)] {
                    let run = both(world, &packet.bytes());
                    sent(&run, (ROUTER, NODE_MAC));
                    assert_eq!(run.early.frame[14..], carried.clone().ttl(63).network());
                }
            }
            let request = Packet::udp((f.world, 40001), to);
            if f.node.is_ipv4() {
                // A datagram may have no checksum there (RFC 768).
                let mut without = request.bytes();
                without[40..42].fill(0);
                let run = both(world, &without);
                sent(&run, (ROUTER, NODE_MAC));
                assert_eq!(run.early.frame[40..42], [0, 0]);
            }
        }
    });
}

/// A frame of a tunnel over IPv4 goes on without its outer headers. Before 6.3 the kernel cannot be told that what is inside is of another
/// version: at tc that is left to its own device.
#[track_caller]
fn comes_out(world: &mut World, f: Family, frame: &[u8]) {
    if f.node.is_ipv4() || version() >= (6, 3) {
        return sent(&both(world, frame), (ROUTER, NODE_MAC));
    }
    assert_eq!(at_tc(world, frame).verdict, TC_ACT_UNSPEC);
    assert_eq!(arrives_early(world, frame).verdict, XDP_TX);
}

#[test]
fn requests_go_into_the_tunnel_and_answers_come_out_of_it() {
    early(tunnelled, |world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::TCP, NODE_PORT, &[(f.remote, 8080)]).install(world);
        for (packet, forward) in segments((f.world, 40001), to, (f.node, 40001), (f.remote, 8080)) {
            if forward {
                sent(&both(world, &packet.bytes()), (NODE2, NODE_MAC));
                continue;
            }
            let mut outer = Packet::udp((families()[0].node2, 50000), (families()[0].node, 8472));
            outer.set_payload(vxlan(REMOTE_IDENTITY, &packet));
            comes_out(world, f, &outer.bytes());
        }
        let (_, flow) = world.flows()[0];
        assert_eq!((flow.forward.action, flow.forward.packets, flow.reply.packets), (action::TUNNEL, 2, 1));
    });
}

#[test]
fn a_client_that_is_to_be_answered_directly_is_named() {
    early(
        |config| ProgramConfig { direct_return: 1, ..routed(config) },
        |world, f| {
            let to = (f.service, 80);
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, LOAD_BALANCER | lb::DSR, &[(f.remote, 8080)]).install(world);
                for _ in 0..2 {
                    let run = both(world, &request.bytes());
                    sent(&run, (ROUTER, NODE_MAC));
                    assert!(run.early.frame.len() > request.bytes().len(), "no option");
                }
            }
        },
    );
}

#[test]
fn what_a_client_has_sent_goes_to_its_backend_inside() {
    early(ipip::routed, |world, f| {
        let to = (f.service, 80);
        for (proto, request) in requests(&f, to) {
            world.clear_flows();
            Offer::new(to, proto, LOAD_BALANCER | lb::DSR, &[(f.remote, 8080)]).install(world);
            for _ in 0..2 {
                let run = both(world, &request.bytes());
                sent(&run, (ROUTER, NODE_MAC));
                let outer = if f.a.is_ipv4() { 34 } else { 54 };
                assert_eq!(run.early.frame[outer..], request.clone().ttl(63).network());
            }
        }
        // What is for a backend here comes out at tc.
        Offer::new(to, proto::UDP, LOAD_BALANCER | lb::DSR, &[(f.b, 8080)]).install(world);
        let arrived = ipip::inside(f.node2, f.b, &Packet::udp((f.world, 40001), to));
        let run = both(world, &arrived.bytes());
        assert_eq!((run.early.verdict, run.tc.verdict), (XDP_PASS, TC_ACT_REDIRECT));
    });
}

#[test]
fn whoever_may_not_use_a_service_is_dropped_before_the_stack() {
    early(routed, |world, f| {
        let to = (f.service, 80);
        let offer = Offer::new(to, proto::TCP, LOAD_BALANCER | lb::SOURCE_RANGES, &[(f.remote, 8080)]);
        offer.install(world);
        let request = Packet::tcp((f.world, 40001), to, SYN);
        let run = both(world, &request.bytes());
        assert_eq!(run.early.verdict, XDP_DROP);
        assert_eq!(run.early.events[0].reason, DropReason::DeniedByLbSrcRangeCheck as u8);
        // A frame for another machine is nothing to this one.
        assert_eq!(both(world, &request.clone().macs(ROUTER, NODE2).bytes()).early.verdict, XDP_PASS);
        let octets = abi::Addr::from(f.world).octets();
        let key = LpmKey::new(32 + 128, SourceRangeKey::new(offer.service.id, false, octets));
        world.datapath.trie::<SourceRanges>().unwrap().insert(&key, &1).unwrap();
        sent(&both(world, &request.bytes()), (ROUTER, NODE_MAC));
    });
}

/// Packets that programs have counted as sent on.
fn forwarded(world: &World) -> u64 {
    let metrics = world.datapath.per_cpu::<Metrics>().unwrap().entries().unwrap();
    let ours = metrics.into_iter().filter(|(slot, _)| abi::metrics::reason_and_direction(*slot).0 == 0);
    ours.map(|(_, value)| value.packets).sum()
}

/// Whether a client's question, asked of `to`, reaches the backend, under the address of the node, and the answer the client.
fn is_answered(client: &UdpSocket, backend: &UdpSocket, (node, to): (IpAddr, End)) -> bool {
    client.send_to(b"question", to).unwrap();
    let Ok((_, from)) = backend.recv_from(&mut [0; 64]) else { return false };
    assert_eq!(from.ip(), node);
    backend.send_to(b"answer", from).unwrap();
    client.recv_from(&mut [0; 64]).is_ok_and(|(_, by)| by == to.into())
}

/// Real packets: one machine plays the client, the router and the node of the backend.
#[test]
fn real_packets_leave_by_the_device_that_they_came_in_by() {
    early(routed, |world, f| {
        know_neighbours(pod_mac(1), pod_mac(1));
        world.datapath.attach_xdp(Program::NetdevXdp, world.eth0, XdpMode::Generic, "dev_eth0_xdpgeneric").unwrap();
        there(
            &world.node2,
            &format!(
                "ethtool -K eth0 tx off
                ip address replace {}/{} dev lo
                ip route replace {}/{} via {}",
                f.world,
                full(f.world),
                f.service,
                full(f.service),
                f.node
            ),
        );
        let (client, backend) = (socket(&world.node2, f.world), socket(&world.node2, f.node2));
        let to = (f.service, 80);
        Offer::new(to, proto::UDP, LOAD_BALANCER, &[(f.node2, backend.local_addr().unwrap().port())]).install(world);
        for end in [&client, &backend] {
            end.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        }
        let before = forwarded(world);
        for _ in 0..3 {
            // What is left to the kernel once a second gets lost, as there is no program at tc.
            assert!((0..5).any(|_| is_answered(&client, &backend, (f.node, to))), "no answer");
        }
        assert!(forwarded(world) - before >= 6);
        world.datapath.detach("dev_eth0_xdpgeneric").unwrap();
    });
}

#[test]
fn a_checksum_inside_of_the_tunnel_that_is_left_to_a_card_is_left_to_tc() {
    early(tunnelled, |world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::TCP, NODE_PORT, &[(f.remote, 8080)]).install(world);
        sent(&both(world, &Packet::tcp((f.world, 40001), to, SYN).bytes()), (NODE2, NODE_MAC));
        let answer = Packet::tcp((f.remote, 8080), (f.node, 40001), SYN | ACK);
        let through = |inner: &[u8]| {
            let outer = Packet::udp((families()[0].node2, 50000), (families()[0].node, 8472));
            outer.payload(&frames::vxlan(REMOTE_IDENTITY, inner)).bytes()
        };
        let unfinished = through(&answer.without_checksum());
        let early = arrives_early(world, &unfinished);
        assert_eq!((early.verdict, &early.frame), (XDP_PASS, &unfinished));
        comes_out(world, f, &through(&answer.bytes()));
    });
}

/// A sum that covers the pseudo header alone stands for one that whoever sends the packet still makes.
#[test]
fn a_checksum_that_is_left_to_a_card_is_left_to_tc() {
    early(routed, |world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER, &[(f.remote, 8080)]).install(world);
        let request = Packet::tcp((f.world, 40001), to, SYN).without_checksum();
        let early = world.run(Program::NetdevXdp, world.eth0, &request);
        assert_eq!((early.verdict, &early.frame, world.flows().len()), (XDP_PASS, &request, 0));
        world.run(Program::NetdevIngress, world.eth0, &request).redirected();
        let next = Packet::tcp((f.world, 40001), to, ACK).without_checksum();
        let early = arrives_early(world, &next);
        assert_eq!((early.verdict, &early.frame), (XDP_PASS, &next), "of a known flow");
        // SCTP leaves no sum there, but nothing.
        Offer::new(to, proto::SCTP, LOAD_BALANCER, &[(f.remote, 8080)]).install(world);
        let whole = Packet::sctp((f.world, 40001), to).bytes();
        let mut blank = whole.clone();
        let at = if f.a.is_ipv4() { 14 + 20 + 8 } else { 14 + 40 + 8 };
        blank[at..at + 4].fill(0);
        for _first_and_known in 0..2 {
            let early = arrives_early(world, &blank);
            assert_eq!((early.verdict, &early.frame), (XDP_PASS, &blank));
            assert_eq!(arrives_early(world, &whole).verdict, XDP_TX);
        }
    });
}

/// One that is passed on finds the backend at tc for which it was: otherwise those of other nodes would get more than their share.
#[test]
fn a_connection_has_the_same_backend_at_both_hooks() {
    early(routed, |world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER, &[(f.remote, 8080), (f.b, 8080)]).install(world);
        let mut served = 0;
        for port in 40000..40064 {
            world.clear_flows();
            let run = both(world, &Packet::tcp((f.world, port), to, SYN).bytes());
            served += u32::from(run.early.verdict == XDP_TX);
        }
        assert!((16..48).contains(&served), "{served} of 64 went to the one of two that is on another node");
    });
}
