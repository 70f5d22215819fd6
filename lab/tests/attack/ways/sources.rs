// SPDX-License-Identifier: Apache-2.0
//! Packets that claim to come from somebody else: a pod's, and plain frames of a machine on the wire.

use std::net::IpAddr;

use frames::{Packet, SYN, Transport};

use crate::book::{Book, Gun, Mark};
use crate::scene::{FAMILIES, HOST_PORT, PORT, Party, Scene};

/// A datagram, the beginning of a connection, and an echo request.
fn kinds(family: usize) -> [(&'static str, Transport); 3] {
    let echo = if family == 0 { 8 } else { 128 };
    [
        ("UDP", Transport::Udp { sport: 40_001, dport: PORT }),
        ("TCP", Transport::Tcp { sport: 40_002, dport: PORT, flags: SYN }),
        ("an echo request", Transport::Icmp { kind: echo, code: 0, rest: [0x12, 0x34, 0, 1] }),
    ]
}

pub(super) fn by_pod(scene: &Scene, book: &mut Book) {
    let attacker = &scene.attacker;
    let targets = [&scene.near, &scene.far, &scene.friend, &scene.stranger, &scene.nodes[0], &scene.nodes[1]];
    let others = [&scene.near, &scene.far, &scene.friend, &scene.stranger, &scene.nodes[0], &scene.nodes[1]];
    for family in FAMILIES {
        let known = others.map(|party| (party.name, party.addresses[family]));
        let world = [("the world", scene.world[family])];
        for target in targets {
            let to = target.addresses[family];
            for (name, src) in known.into_iter().chain(world) {
                for (kind, transport) in kinds(family) {
                    book.forbidden(
                        Gun::Attacker,
                        format!("{kind} from {name} {src} to {} {to}", target.name),
                        |mark| vec![attacker.sends(&Packet::new(src, to, transport).payload(&mark))],
                    );
                }
            }
        }
        // Under its own address it is refused by the victims alone.
        for target in targets {
            let to = target.addresses[family];
            let (kind, transport) = kinds(family)[0];
            let build = |mark: Mark| {
                vec![attacker.sends(&Packet::new(attacker.addresses[family], to, transport).payload(&mark))]
            };
            let what = format!("{kind} from its own address to {} {to}", target.name);
            if scene.victims().iter().any(|victim| victim.name == target.name) {
                book.forbidden(Gun::Attacker, what, build);
            } else {
                book.allowed(Gun::Attacker, what, target.name, build);
            }
        }
    }
}

pub(super) fn by_stranger(scene: &Scene, book: &mut Book) {
    for family in FAMILIES {
        for (node, pods) in [(&scene.nodes[0], &[&scene.near][..]), (&scene.nodes[1], &[&scene.far, &scene.friend])] {
            for pod in pods {
                to_pod(scene, book, node, pod, family);
            }
            to_host(scene, book, node, family);
        }
    }
}

fn to_pod(scene: &Scene, book: &mut Book, node: &Party, pod: &Party, family: usize) {
    let to = pod.addresses[family];
    for (name, src) in claims(scene, node, pod, family) {
        for (kind, transport) in kinds(family) {
            let what = format!("{kind} from {name} {src} to {} {to}, by {}", pod.name, node.name);
            book.forbidden(Gun::Stranger, what, |mark| {
                vec![scene.stranger.sends_to(node, &Packet::new(src, to, transport).payload(&mark))]
            });
        }
    }
}

/// As whom policy does not let the stranger in. A pod without policy is let in by anybody who may be on the wire.
fn claims(scene: &Scene, node: &Party, pod: &Party, family: usize) -> Vec<(&'static str, IpAddr)> {
    let name = |party: &Party| (party.name, party.addresses[family]);
    let local = if node.name == "node1" { vec![&scene.near] } else { vec![&scene.far, &scene.friend] };
    let mut all: Vec<_> = local.iter().map(|party| name(party)).collect();
    all.push(name(node));
    let open = pod.name == scene.friend.name;
    if !open {
        let other = if node.name == "node1" { &scene.nodes[1] } else { &scene.nodes[0] };
        all.extend([name(other), name(&scene.stranger), ("the world", scene.world[family])]);
    }
    // With native routing the wire is where pods of other nodes come from; whom policy refuses is refused nevertheless.
    let remote = if node.name == "node1" { &scene.far } else { &scene.near };
    if !(scene.native && open) {
        all.push(name(remote));
    }
    if !scene.native && node.name == "node1" {
        all.push(name(&scene.friend));
    }
    all
}

/// To the node itself, as itself, as a pod of its own, or as one that would come through the tunnel.
fn to_host(scene: &Scene, book: &mut Book, node: &Party, family: usize) {
    let to = node.addresses[family];
    let datagram = |src, mark: Mark| {
        let packet = Packet::new(src, to, Transport::Udp { sport: 40_003, dport: HOST_PORT }).payload(&mark);
        vec![scene.stranger.sends_to(node, &packet)]
    };
    let (local, remote) = if node.name == "node1" { (&scene.near, &scene.far) } else { (&scene.far, &scene.near) };
    let tunnelled = if scene.native { None } else { Some(remote) };
    for party in [node, local].into_iter().chain(tunnelled) {
        let src = party.addresses[family];
        let what = format!("UDP from {} {src} to {} {to}", party.name, node.name);
        book.forbidden(Gun::Stranger, what, |mark| datagram(src, mark));
        // The answer would go to whom the stranger claims to be.
        let echo = kinds(family)[2].1;
        book.forbidden(
            Gun::Stranger,
            format!("an echo request from {} {src} to {} {to}", party.name, node.name),
            |mark| vec![scene.stranger.sends_to(node, &Packet::new(src, to, echo).payload(&mark))],
        );
    }
    let own = scene.stranger.addresses[family];
    let what = format!("UDP from its own address to {} {to}", node.name);
    book.allowed(Gun::Stranger, what, node.name, |mark| datagram(own, mark));
}
