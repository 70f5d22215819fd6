// SPDX-License-Identifier: Apache-2.0
//! What is not served before the stack.

use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

use abi::config::ProgramConfig;
use abi::flow::{action, proto};
use abi::maps::Flows;
use datapath::Kernel;
use datapath::bpf::Program;

use super::{NODE2, ROUTER, XDP_PASS, XDP_TX, both, early, know_neighbours, routed, sent};
use crate::devices::{NODE_MAC, here};
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer};
use crate::packet::{ACK, Packet, SYN};
use crate::tunnel::mac;

/// What has to reach tc as it is, to be decided there.
#[test]
fn what_is_not_served_before_the_stack_passes_untouched() {
    early(routed, |world, f| {
        let to = (f.service, 80);
        for proto in [proto::TCP, proto::UDP] {
            Offer::new(to, proto, LOAD_BALANCER, &[(f.remote, 8080)]).install(world);
        }
        Offer::new((f.service, 81), proto::TCP, LOAD_BALANCER, &[]).id(6).install(world);
        Offer::new((f.service, 82), proto::TCP, LOAD_BALANCER, &[(f.b, 8080)]).id(7).install(world);
        let tcp = |to| Packet::tcp((f.world, 40001), to, SYN);
        let udp = Packet::udp((f.world, 40001), to);
        let mut big = udp.clone();
        big.set_payload(vec![0; 1500]);
        for (what, packet) in [
            ("no backend, which its client is told", tcp((f.service, 81))),
            ("a port that nobody serves", tcp((f.service, 83))),
            ("a pod of this node", tcp((f.service, 82))),
            ("the last hop", tcp(to).ttl(1)),
            ("options", with_options(tcp(to))),
            ("a first fragment", udp.clone().fragment(7, 0, true)),
            ("too big", big),
            ("another machine's", tcp(to).macs(ROUTER, NODE2)),
            ("the node's own", Packet::tcp((f.world, 40001), (f.node, 22), SYN)),
            ("an error", Packet::too_big(f.stranger, f.node, &udp)),
        ] {
            let run = both(world, &packet.bytes());
            assert_eq!(run.early.verdict, XDP_PASS, "{what}");
            world.clear_flows();
        }
    });
}

/// With options that say nothing.
fn with_options(packet: Packet) -> Packet {
    const HOP_BY_HOP: u8 = 0;
    const PAD: [u8; 6] = [1, 4, 0, 0, 0, 0];
    if packet.src.is_ipv4() { packet.options(&[1; 4]) } else { packet.extension(HOP_BY_HOP, &PAD) }
}

#[test]
fn what_takes_the_kernels_tunnel_device_is_left_to_tc() {
    early(
        |config| ProgramConfig { direct_tunnel: 0, ..config },
        |world, f| {
            let to = (f.node, 30080);
            Offer::new(to, proto::TCP, NODE_PORT, &[(f.remote, 8080)]).install(world);
            for flags in [SYN, ACK] {
                let request = Packet::tcp((f.world, 40001), to, flags);
                assert_eq!(both(world, &request.bytes()).early.verdict, XDP_PASS);
            }
            assert_eq!(world.flows()[0].1.forward.action, action::TUNNEL);
            // A record of programs that made the outer headers themselves.
            let flows = world.datapath.map::<Flows>().unwrap();
            let (key, mut flow) = flows.entries().unwrap().into_iter().find(|(key, _)| key.alias == 0).unwrap();
            flow.forward.out_ifindex = world.eth0;
            flows.insert(&key, &flow).unwrap();
            let next = Packet::tcp((f.world, 40001), to, ACK).bytes();
            for _ in 0..2 {
                assert_eq!(world.run(Program::NetdevXdp, world.eth0, &next).verdict, XDP_PASS);
            }
        },
    );
}

#[test]
fn a_neighbour_that_the_kernel_does_not_know_is_left_to_it() {
    early(routed, |world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER, &[(f.remote, 8080)]).install(world);
        let request = Packet::tcp((f.world, 40001), to, SYN).bytes();
        sent(&both(world, &request), (ROUTER, NODE_MAC));
        let router = if f.node.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        here(&format!("ip neigh del {router} dev eth0"));
        world.epochs.bump_node().unwrap();
        assert_eq!(both(world, &request).early.verdict, XDP_PASS);
    });
}

#[test]
fn what_leaves_by_another_device_is_left_to_tc() {
    early(routed, |world, f| {
        let other = nix::net::if_::if_nametoindex("other").unwrap_or_else(|_| world.add_device("other"));
        world.set_route(f.stranger, other);
        here(&format!("ip neigh replace {} lladdr {} dev other nud permanent", f.stranger, mac(NODE2)));
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER, &[(f.stranger, 8080)]).install(world);
        let request = Packet::tcp((f.world, 40001), to, SYN);
        for _first_and_known in 0..2 {
            assert_eq!(both(world, &request.bytes()).early.verdict, XDP_PASS);
        }
    });
}

#[test]
fn a_frame_of_a_known_flow_for_another_machine_is_not_sent_on() {
    early(routed, |world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER, &[(f.remote, 8080)]).install(world);
        let request = Packet::tcp((f.world, 40001), to, SYN);
        sent(&both(world, &request.bytes()), (ROUTER, NODE_MAC));
        assert_eq!(both(world, &request.macs(ROUTER, NODE2).bytes()).early.verdict, XDP_PASS);
    });
}

/// The kernel looks after a neighbour that it sends to.
#[test]
fn the_kernel_gets_a_packet_for_each_neighbour_from_time_to_time_and_its_news_are_taken() {
    early(routed, |world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER, &[(f.remote, 8080)]).install(world);
        let request = Packet::tcp((f.world, 40001), to, SYN).bytes();
        sent(&both(world, &request), (ROUTER, NODE_MAC));
        know_neighbours(NODE2, ROUTER);
        let mut left = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let run = world.run(Program::NetdevXdp, world.eth0, &request);
            left += u32::from(run.verdict == XDP_PASS);
            // Another processor, if it gets the test meanwhile, has the new address at once.
            if left > 0 && run.verdict == XDP_TX && run.frame[..6] == NODE2 {
                break;
            }
            assert!(Instant::now() < deadline, "the old address is kept, or the kernel has got none");
        }
    });
}

#[test]
fn neighbours_of_one_place_are_not_taken_for_each_other() {
    early(routed, |world, f| {
        let on_link = |last: u8| -> IpAddr {
            let net = if f.node.is_ipv4() { "192.0.2." } else { "2001:db8::" };
            format!("{net}{last}").parse().unwrap()
        };
        let place = |ip: IpAddr| abi::epoch::of_peer(ip.into()) % 64;
        let pairs = (30..100).flat_map(|one| (one + 1..100).map(move |other| (on_link(one), on_link(other))));
        let (one, other) = pairs.into_iter().find(|(one, other)| place(*one) == place(*other)).unwrap();
        for (backend, last) in [(one, 7), (other, 8)] {
            let far = [2, 0, 0, 0, 0xd, last];
            here(&format!("ip neigh replace {backend} lladdr {} dev eth0 nud permanent", mac(far)));
            let to = (f.service, 80 + u16::from(last));
            Offer::new(to, proto::TCP, LOAD_BALANCER, &[(backend, 8080)]).id(last.into()).install(world);
            let request = Packet::tcp((f.world, 40001), to, SYN);
            sent(&both(world, &request.bytes()), (far, NODE_MAC));
        }
    });
}
