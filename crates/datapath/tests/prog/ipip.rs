// SPDX-License-Identifier: Apache-2.0
//! Direct server return by IP in IP, at the node that is asked: what its client has sent goes to the backend inside of a packet of the node.

mod arrive;

use std::net::IpAddr;

use abi::DropReason;
use abi::config::ProgramConfig;
use abi::flow::{flags, proto};
use abi::lb::flags::DSR;
use datapath::bpf::Program;

use crate::direct::{frontends, requests};
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed_with};
use crate::outside::{answer, refused};
use crate::packet::{ACK, Packet, SYN, Transport, checksum};
use crate::world::{Family, World, tuple};

/// The protocol numbers of IPv4 and IPv6 in a packet.
pub(crate) const IPV4_INSIDE: u8 = 4;
pub(crate) const IPV6_INSIDE: u8 = 41;

/// Where clients' packets go to backends inside of others.
pub(crate) fn routed(config: ProgramConfig) -> ProgramConfig {
    ProgramConfig { tunnel: 0, direct_tunnel: 0, direct_return: 1, direct_ipip: 1, ..config }
}

/// Runs the test for each family there.
fn ipip(test: impl Fn(&mut World, Family) + Send + 'static) {
    exposed_with(routed, test);
}

/// The packet inside of one of a node to a backend.
pub(crate) fn inside(node: IpAddr, backend: IpAddr, packet: &Packet) -> Packet {
    let proto = if node.is_ipv4() { IPV4_INSIDE } else { IPV6_INSIDE };
    Packet::new(node, backend, Transport::Other { proto }).payload(&packet.network())
}

/// The frame that the node sends as the flow's packet of that number, which routers do not cut up.
fn sent(f: &Family, number: u8, backend: IpAddr, packet: &Packet) -> Vec<u8> {
    let mut frame = inside(f.node, backend, packet).bytes();
    if f.node.is_ipv4() {
        frame[18..21].copy_from_slice(&[number, 0, 0x40]);
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum);
    }
    frame
}

#[test]
fn the_node_of_a_backend_gets_what_its_client_has_sent() {
    ipip(|world, f| {
        for (to, kind) in frontends(&f) {
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, kind, &[(f.remote, 8080)]).install(world);
                for number in 1..3 {
                    let seen = sent(&f, number, f.remote, &request.clone().ttl(63));
                    world.arrives(&request.bytes()).redirected().frame(&seen);
                }
                let flow = world.flow(&tuple((f.world, 40001), to, proto)).unwrap();
                assert_eq!(flow.flags & (flags::NAT_SRC | flags::DIRECT), flags::DIRECT, "its client is not hidden");
                assert_eq!((world.flows().len(), world.aliases()), (1, 0));
            }
        }
    });
}

/// Not only the first, as with options: the node of the backend finds the frontend in each.
#[test]
fn every_segment_and_every_fragment_goes_inside() {
    ipip(|world, f| {
        let to = (f.service, 80);
        for proto in [proto::TCP, proto::UDP] {
            Offer::new(to, proto, LOAD_BALANCER | DSR, &[(f.remote, 8080)]).install(world);
        }
        for (number, flags) in (1..).zip([SYN, ACK, ACK]) {
            let segment = Packet::tcp((f.world, 40001), to, flags);
            let seen = sent(&f, number, f.remote, &segment.clone().ttl(63));
            world.arrives(&segment.bytes()).redirected().frame(&seen);
            world.epochs.bump_node().unwrap();
        }
        let parts = Packet::udp((f.world, 40001), to).payload(&[9; 64]).split(7, 3);
        for (number, part) in (1..).zip(parts) {
            let seen = sent(&f, number, f.remote, &part.clone().ttl(63));
            world.arrives(&part.bytes()).redirected().frame(&seen);
        }
    });
}

/// The client is told what does fit, whether the packet may be cut up or not.
#[test]
fn what_is_too_big_for_another_header_is_answered_with_what_fits() {
    ipip(|world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT | DSR, &[(f.remote, 8080)]).install(world);
        let (headers, outer) = if f.a.is_ipv4() { (28, 20) } else { (48, 40) };
        let sized = |len: usize| Packet::udp((f.world, 40001), to).payload(&vec![0; len - headers]);
        let fits = sized(1500 - outer);
        world.arrives(&fits.bytes()).redirected().frame(&sent(&f, 1, f.remote, &fits.clone().ttl(63)));
        let frame = sized(1500 - outer + 1).bytes();
        let ifindex = world.eth0;
        let run = world.run(Program::NetdevIngress, ifindex, &frame);
        let mut expected = answer(&sized(1500), [(3, 4), (2, 0)], 1500 - outer as u16);
        expected.set_payload(frame[14..14 + headers].to_vec());
        refused(&run, DropReason::CtMissingTcpAckFlag, &expected);
    });
}

/// The node that has the frontend's address knows who is meant, and the node of the backend finds the flow by what is quoted.
#[test]
fn an_error_about_an_answer_goes_to_its_backend_inside() {
    ipip(|world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(f.remote, 8080)]).install(world);
        let request = Packet::udp((f.world, 40001), to);
        world.arrives(&request.bytes()).redirected();
        let router: IpAddr = if f.a.is_ipv4() { "198.51.100.1" } else { "2001:db8:ffff::1" }.parse().unwrap();
        let error = Packet::too_big(router, f.service, &request.reply());
        for _ in 0..2 {
            let run = world.arrives(&error.bytes());
            run.redirected();
            let inner = error.clone().ttl(63);
            let outer = if f.a.is_ipv4() { 34 } else { 54 };
            assert_eq!(run.frame[outer..], inner.network());
            world.epochs.bump_node().unwrap();
        }
    });
}

/// Of two at one address the node of the backends could not tell which is meant.
#[test]
fn a_backend_that_is_not_found_by_its_address_answers_by_way_of_this_node() {
    ipip(|world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(f.remote, 8080), (f.remote, 8081)]).install(world);
        let mut found = [0; 2];
        for port in 40000..40032 {
            world.clear_flows();
            let request = Packet::udp((f.world, port), to);
            let run = world.arrives(&request.bytes());
            run.redirected();
            let is_first = world.flows()[0].1.backend == 80;
            if is_first {
                run.frame(&sent(&f, 1, f.remote, &request.ttl(63)));
            } else {
                run.packet(&request.from((f.node, port)).to((f.remote, 8081)).ttl(63));
            }
            found[usize::from(is_first)] += 1;
        }
        assert!(found.iter().all(|times| *times > 4), "{found:?}");
    });
}

#[test]
fn a_backend_outside_of_the_cluster_gets_nothing_inside() {
    ipip(|world, f| {
        let to = (f.service, 80);
        let other: IpAddr = if f.a.is_ipv4() { "203.0.113.9" } else { "2001:db8:fffe::9" }.parse().unwrap();
        Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(other, 8080)]).install(world);
        let request = Packet::udp((f.world, 40001), to);
        let seen = request.clone().from((f.node, 40001)).to((other, 8080)).ttl(63);
        world.arrives(&request.bytes()).redirected().packet(&seen);
    });
}

#[test]
fn a_pod_sends_nothing_inside() {
    ipip(|world, f| {
        let a = world.a;
        for to in [f.b, f.remote, f.world, f.node2, f.node] {
            let packet = inside(f.a, to, &Packet::udp((f.world, 40001), (f.service, 80)));
            world.leaves(&a, &packet.bytes()).dropped(DropReason::CtUnknownL4Protocol);
        }
    });
}
