// SPDX-License-Identifier: Apache-2.0
//! What must hold for any frame, whoever sends it. Seeds are fixed: a failure can be repeated.

use abi::config::ProgramConfig;
use abi::endpoint::Endpoint;
use abi::{Addr, DropReason};
use datapath::bpf::{Options, Program};
use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::net::{IpAddr, Ipv4Addr};

use crate::packet::{ACK, Packet, SYN};
use crate::run::Run;
use crate::wire::vxlan;
use crate::world::{Family, REMOTE_IDENTITY, World, families};

const ROUNDS: usize = 300;
const PASS: i32 = 0;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
/// Left to the next program, as if there were none.
const LEFT: i32 = -1;

/// Source and destination of a frame that is IP.
fn ends(frame: &[u8]) -> Option<[Addr; 2]> {
    let v4 = |at: usize| Some(Addr::from(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?)));
    let v6 = |at: usize| Some(Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).map(IpAddr::from).ok()?));
    match frame.get(12..14)? {
        [0x08, 0x00] => Some([v4(26)?, v4(30)?]),
        [0x86, 0xdd] => Some([v6(22)?, v6(38)?]),
        _ => None,
    }
}

fn any_packet(rng: &mut StdRng, sources: &[IpAddr], destinations: &[IpAddr]) -> Packet {
    let (src, dst) = (*sources.choose(rng).unwrap(), *destinations.choose(rng).unwrap());
    match rng.random_range(0..6) {
        0 => Packet::tcp((src, 1000), (dst, 80), SYN),
        1 => Packet::tcp((src, 80), (dst, 1000), SYN | ACK),
        2 => Packet::udp((src, 1000), (dst, 53)),
        3 => Packet::echo_request(src, dst, 7),
        4 => Packet::udp((src, 1000), (dst, 53)).fragment(7, rng.random_range(0..3) * 8, rng.random()),
        _ => Packet::too_big(src, dst, &Packet::udp((dst, 53), (src, 1000))),
    }
}

/// Some bytes after the hardware addresses changed, and perhaps the end cut off behind `least`.
fn damage(rng: &mut StdRng, mut frame: Vec<u8>, least: usize) -> Vec<u8> {
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(12..frame.len().min(least + 46));
        frame[at] = rng.random();
    }
    let len = if rng.random_bool(0.3) { rng.random_range(least..=frame.len()) } else { frame.len() };
    frame.truncate(len);
    frame
}

/// Ethernet and IP.
fn headers(f: Family) -> usize {
    if f.a.is_ipv4() { 34 } else { 54 }
}

/// One of these verdicts; counted once, unless it is left to others; dropped for a known reason, which is told.
fn in_order(run: &Run, frame: &[u8], verdicts: &[i32]) {
    assert!(verdicts.contains(&run.verdict), "{frame:02x?} {run:?}");
    let counted: u64 = run.counters.iter().map(|(_, packets)| packets).sum();
    assert_eq!(counted, u64::from(run.verdict != LEFT), "{frame:02x?} {run:?}");
    let is_told = run.events.iter().any(|event| DropReason::from_code(event.reason).is_some());
    let is_taken = run.verdict == DROP && run.counters.iter().all(|((reason, _), _)| *reason == 0);
    assert_eq!(is_told, run.verdict == DROP && !is_taken, "{frame:02x?} {run:?}");
}

/// It has gone to a pod of this node, with that pod's hardware address, and not in the name of one of this node's addresses.
fn delivered(world: &World, run: &Run, frame: &[u8]) {
    let [src, dst] = ends(&run.frame).unwrap();
    let pods = [world.a, world.b].map(|pod| pod.endpoint(0));
    let has = |endpoint: &Endpoint, addr: Addr| addr == endpoint.ipv4 || addr == endpoint.ipv6;
    let pod = pods.iter().find(|pod| has(pod, dst)).unwrap_or_else(|| panic!("{frame:02x?} {run:?}"));
    assert_eq!(run.frame[..6], pod.mac, "{frame:02x?} {run:?}");
    let is_ours = pods.iter().any(|pod| has(pod, src)) || families().iter().any(|f| src == f.node.into());
    assert!(!is_ours, "{frame:02x?} {run:?}");
}

#[test]
fn whatever_a_pod_sends_has_one_verdict_is_counted_once_and_never_goes_out_under_another_address() {
    World::test_families(|world, f| {
        let mut rng = StdRng::seed_from_u64(1);
        let a = world.a;
        let own = a.endpoint(0);
        for _round in 0..ROUNDS {
            let packet = any_packet(&mut rng, &[f.a], &[f.b, f.remote, f.world, f.node, f.service]);
            let frame = damage(&mut rng, packet.bytes(), headers(f));
            let run = world.leaves(&a, &frame);
            in_order(&run, &frame, &[PASS, DROP, REDIRECT]);
            if run.verdict != DROP
                && let Some([source, _]) = ends(&frame)
                && !frame.starts_with(&[0x33, 0x33])
            {
                assert!(source == own.ipv4 || source == own.ipv6, "{frame:02x?} {run:?}");
            }
        }
    });
}

#[test]
fn whatever_arrives_at_a_device_is_for_a_pod_from_elsewhere_or_is_left_as_it_is() {
    World::test_families(|world, f| {
        let mut rng = StdRng::seed_from_u64(2);
        let mut delivered_ones = 0;
        for _round in 0..ROUNDS {
            let sources = [f.world, f.remote, f.node2, f.node, f.b, f.service, f.stranger];
            let packet = any_packet(&mut rng, &sources, &[f.a, f.b, f.node, f.world]);
            let frame = damage(&mut rng, packet.bytes(), headers(f));
            let run = world.arrives(&frame);
            in_order(&run, &frame, &[LEFT, PASS, DROP, REDIRECT]);
            match run.verdict {
                REDIRECT => delivered(world, &run, &frame),
                LEFT => drop(run.frame(&frame)),
                _ => continue,
            }
            delivered_ones += usize::from(run.verdict == REDIRECT);
        }
        assert!(delivered_ones > ROUNDS / 20, "only {delivered_ones} came through");
    });
}

#[test]
fn whatever_arrives_in_a_tunnel_comes_from_behind_its_node() {
    let config = ProgramConfig { direct_tunnel: 1, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, |world| {
        let [v4, v6] = families();
        let behind_node2 = ["10.0.1.0/24", "fd00:1::/64"].map(|net| net.parse::<IpNet>().unwrap());
        for f in [v4, v6] {
            world.reset();
            let mut rng = StdRng::seed_from_u64(3);
            let mut delivered_ones = 0;
            for _round in 0..ROUNDS {
                let inner = any_packet(&mut rng, &[f.remote, f.world, f.a, f.node, f.stranger], &[f.a, f.b, f.node]);
                let mut outer = Packet::udp((v4.node2, 50000), (v4.node, 8472));
                outer.set_payload(vxlan(REMOTE_IDENTITY, &inner));
                let frame = damage(&mut rng, outer.bytes(), 50 + headers(f));
                let run = world.arrives(&frame);
                in_order(&run, &frame, &[LEFT, PASS, DROP, REDIRECT]);
                match run.verdict {
                    REDIRECT => delivered(world, &run, &frame),
                    LEFT => drop(run.frame(&frame)),
                    _ => continue,
                }
                if run.verdict == REDIRECT {
                    delivered_ones += 1;
                    let source = ends(&run.frame).unwrap()[0];
                    assert!(behind_node2.iter().any(|net| net.contains(&IpAddr::from(source))), "{frame:02x?} {run:?}");
                }
            }
            assert!(delivered_ones > ROUNDS / 40, "only {delivered_ones} came through");
        }
    });
}

#[test]
fn whatever_comes_through_the_tunnel_device_from_nobody_is_dropped() {
    World::test_families(|world, f| {
        let mut rng = StdRng::seed_from_u64(4);
        for _round in 0..ROUNDS {
            let packet = any_packet(&mut rng, &[f.remote, f.world, f.a, f.node], &[f.a, f.b, f.node]);
            let frame = damage(&mut rng, packet.bytes(), headers(f));
            let run = world.run(Program::OverlayIngress, world.overlay, &frame);
            in_order(&run, &frame, &[PASS, DROP]);
            // What is not IP the stack understands or forgets.
            assert!(run.verdict == DROP || ends(&run.frame).is_none(), "{frame:02x?} {run:?}");
        }
    });
}

#[test]
fn whatever_the_stack_sends_to_a_pod_is_dropped_or_passes_as_it_is() {
    World::test_families(|world, f| {
        let mut rng = StdRng::seed_from_u64(5);
        let a = world.a;
        for _round in 0..ROUNDS {
            let sources = [f.world, f.remote, f.node, f.b, f.service, f.stranger];
            let packet = any_packet(&mut rng, &sources, &[f.a, f.b]);
            let frame = damage(&mut rng, packet.bytes(), headers(f));
            let run = world.enters(&a, &frame);
            in_order(&run, &frame, &[PASS, DROP]);
            run.frame(&frame);
        }
    });
}
