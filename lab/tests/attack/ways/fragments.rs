// SPDX-License-Identifier: Apache-2.0
//! Fragments without the ports that policy looks at, behind a first one that is refused, is somebody else's, or is none.

use std::net::IpAddr;

use frames::{Packet, Transport};

use crate::book::{Book, Gun, Mark};
use crate::scene::{FAMILIES, PORT, Party, Scene};

const UDP: u8 = 17;
/// Of a datagram of the friend's that arrives.
const FRIENDS_ID: u32 = 0x4242;
/// Of the attacker's own; one per trick, so that none profits from another's.
const IDS: [u32; 6] = [0x5001, 0x5002, 0x5003, 0x5004, 0x5005, 0x5006];
/// A port of the friend's that no other flow has.
const PORTS: (u16, u16) = (42_000, PORT);
/// Header and mark: where the later fragment begins.
const CUT: u16 = 3;
const ECHO: [u8; 4] = [0x77, 0x77, 0, 1];

/// A datagram in two fragments, with the mark in each of them.
fn halves(src: IpAddr, dst: IpAddr, id: u32, mark: Mark) -> [Packet; 2] {
    Packet::new(src, dst, Transport::Udp { sport: PORTS.0, dport: PORTS.1 })
        .payload(&[mark, mark].concat())
        .split(id, CUT)
}

/// The later of two alone.
fn later(src: IpAddr, dst: IpAddr, id: u32, mark: Mark) -> Packet {
    Packet::new(src, dst, Transport::Other { proto: UDP }).payload(&mark).fragment(id, CUT, false)
}

pub(super) fn fragments(scene: &Scene, book: &mut Book) {
    for family in FAMILIES {
        for (node, victim) in scene.nodes.iter().zip(scene.victims()) {
            let (friend, at) = (scene.friend.addresses[family], victim.addresses[family]);
            let what = format!("the friend's, to {} {at}", victim.name);
            book.allowed(Gun::Friend, what, victim.name, |mark| {
                halves(friend, at, FRIENDS_ID, mark).map(|part| scene.friend.sends(&part)).to_vec()
            });
            by_pod(scene, book, victim, family);
            by_stranger(scene, book, node, victim, family);
        }
    }
}

fn by_pod(scene: &Scene, book: &mut Book, victim: &Party, family: usize) {
    let (own, friend) = (scene.attacker.addresses[family], scene.friend.addresses[family]);
    let at = victim.addresses[family];
    let mut forbidden = |what: &str, build: &dyn Fn(Mark) -> Vec<Packet>| {
        book.forbidden(Gun::Attacker, format!("{what}, to {} {at}", victim.name), |mark| {
            build(mark).iter().map(|packet| scene.attacker.sends(packet)).collect()
        });
    };
    forbidden("the first is refused", &|mark| halves(own, at, IDS[0], mark).to_vec());
    forbidden("the later one comes first", &|mark| {
        let [first, later] = halves(own, at, IDS[1], mark);
        vec![later, first]
    });
    forbidden("there is no first", &|mark| vec![later(own, at, IDS[2], mark)]);
    forbidden("both as the friend's", &|mark| halves(friend, at, IDS[3], mark).to_vec());
    forbidden("the later alone as the friend's", &|mark| vec![later(friend, at, IDS[3], mark)]);
    forbidden("the later of the friend's own datagram", &|mark| vec![later(friend, at, FRIENDS_ID, mark)]);
    forbidden("with the number of the friend's datagram", &|mark| vec![later(own, at, FRIENDS_ID, mark)]);
    forbidden("the first has no more than a header", &|mark| {
        Packet::new(own, at, Transport::Udp { sport: PORTS.0, dport: PORTS.1 }).payload(&mark).split(IDS[4], 1).to_vec()
    });
    // The first one is the answer to an echo request, which is allowed.
    let reply = if family == 0 { 0 } else { 129 };
    forbidden("UDP behind an echo's answer", &|mark| {
        let first = Packet::new(own, at, Transport::Icmp { kind: reply, code: 0, rest: ECHO }).payload(&[7; 16]);
        vec![first.split(IDS[5], CUT)[0].clone(), later(own, at, IDS[5], mark)]
    });
    forbidden("a whole one that says it is a fragment", &|mark| {
        vec![
            Packet::new(own, at, Transport::Udp { sport: PORTS.0, dport: PORTS.1 })
                .payload(&mark)
                .fragment(IDS[0], 0, false),
        ]
    });
}

fn by_stranger(scene: &Scene, book: &mut Book, node: &Party, victim: &Party, family: usize) {
    let (own, friend) = (scene.stranger.addresses[family], scene.friend.addresses[family]);
    let at = victim.addresses[family];
    let mut forbidden = |what: &str, build: &dyn Fn(Mark) -> Vec<Packet>| {
        book.forbidden(Gun::Stranger, format!("{what}, of the stranger to {} {at}", victim.name), |mark| {
            build(mark).iter().map(|packet| scene.stranger.sends_to(node, packet)).collect()
        });
    };
    forbidden("the first is refused", &|mark| halves(own, at, IDS[0], mark).to_vec());
    forbidden("there is no first", &|mark| vec![later(own, at, IDS[2], mark)]);
    // With native routing the friend's packets come this way to the other node.
    if !scene.native || victim.name == scene.far.name {
        forbidden("both as the friend's", &|mark| halves(friend, at, IDS[3], mark).to_vec());
        forbidden("the later of the friend's own datagram", &|mark| vec![later(friend, at, FRIENDS_ID, mark)]);
    }
}
