// SPDX-License-Identifier: Apache-2.0
//! Random packets: alike at both hooks.

use abi::config::ProgramConfig;
use abi::flow::proto;
use abi::lb::flags as lb;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{XDP_TX, both, early, routed, tunnelled};
use crate::ipip;
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer};
use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::world::Family;

/// One of few packets about few services, so that they meet each other's flows. No two clients have a port in common: whose turn it is to
/// take another one is chance.
fn any_packet(rng: &mut StdRng, f: &Family) -> Packet {
    let (client, port) = *[(f.world, 40001), (f.stranger, 40011), (f.node2, 40021)].choose(rng).unwrap();
    let client = (client, port + rng.random_range(0..3));
    let to = (*[f.service, f.node].choose(rng).unwrap(), *[80, 81, 82, 30080].choose(rng).unwrap());
    let backend = 8080 + rng.random_range(0..3);
    let flags = *[SYN, SYN | ACK, ACK, ACK | FIN, RST].choose(rng).unwrap();
    let packet = match rng.random_range(0..6) {
        0 => Packet::udp(client, to),
        4 => Packet::sctp(client, to),
        5 => Packet::sctp((f.remote, backend), (f.node, client.1)),
        1 => Packet::udp((f.remote, backend), (f.node, client.1)),
        2 => Packet::tcp((f.remote, backend), (f.node, client.1), flags),
        _ => Packet::tcp(client, to, flags),
    };
    packet.ttl(*[1, 2, 64].choose(rng).unwrap())
}

fn random_packets_are_treated_alike(change: impl FnOnce(ProgramConfig) -> ProgramConfig, kind: u32, seed: u64) {
    early(change, move |world, f| {
        let mut rng = StdRng::seed_from_u64(seed);
        for proto in [proto::TCP, proto::UDP, proto::SCTP] {
            for (to, flags, id) in [((f.service, 80), kind, 5), ((f.service, 81), LOAD_BALANCER, 6)] {
                Offer::new(to, proto, flags, &[(f.remote, 8000 + to.1)]).id(id).install(world);
            }
            Offer::new((f.node, 30080), proto, NODE_PORT, &[(f.remote, 8082)]).id(7).install(world);
            Offer::new((f.service, 82), proto, LOAD_BALANCER, &[(f.b, 8080)]).id(8).install(world);
        }
        let mut served = 0;
        for round in 0..300 {
            let packet = any_packet(&mut rng, &f);
            let early = both(world, &packet.bytes()).early;
            served += u32::from(early.verdict == XDP_TX);
            match round % 50 {
                10 => world.epochs.bump_node().unwrap(),
                49 => world.clear_flows(),
                _ => {}
            }
        }
        // How many there are depends on time: once in a while each neighbour is left to the kernel.
        assert!(served > 5, "only {served} were served before the stack");
    });
}

#[test]
fn random_packets_are_treated_as_at_tc() {
    random_packets_are_treated_alike(routed, LOAD_BALANCER, 1);
}

#[test]
fn random_packets_into_the_tunnel_are_treated_as_at_tc() {
    random_packets_are_treated_alike(tunnelled, LOAD_BALANCER, 2);
}

#[test]
fn random_packets_of_flows_that_are_answered_directly_are_treated_as_at_tc() {
    random_packets_are_treated_alike(
        |config| ProgramConfig { direct_return: 1, ..routed(config) },
        LOAD_BALANCER | lb::DSR,
        3,
    );
}

#[test]
fn random_packets_that_go_to_backends_inside_of_others_are_treated_as_at_tc() {
    random_packets_are_treated_alike(ipip::routed, LOAD_BALANCER | lb::DSR, 4);
}
