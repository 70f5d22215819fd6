// SPDX-License-Identifier: Apache-2.0
//! Packets wrapped as nodes wrap them, under identities and sources of the attacker's choice.

use std::net::IpAddr;

use frames::{Packet, Transport, vxlan};

use crate::book::{Book, Gun, Mark};
use crate::scene::{FAMILIES, PORT, Scene};

const TUNNEL_PORT: u16 = 8472;
const HOST: u32 = 1;
const REMOTE_NODE: u32 = 6;
/// The port of the Services in front of the tunnel's port.
const SERVICE_PORT: u16 = 80;
/// Cuts between the outer headers and the inner ones.
const CUT: u16 = 4;

/// What is inside, and how it is told.
struct Inner {
    what: String,
    vni: u32,
    src: IpAddr,
    dst: IpAddr,
}

impl Inner {
    fn wrapped(&self, mark: Mark) -> Vec<u8> {
        let packet = Packet::new(self.src, self.dst, Transport::Udp { sport: 40_000, dport: PORT }).payload(&mark);
        vxlan(self.vni, &packet.macs([2, 0, 0, 0, 9, 9], [2, 0, 0, 0, 9, 8]).bytes())
    }
}

/// What may be inside of a packet to a node: to whom it hands on, under any identity, from anybody else.
fn inside(scene: &Scene, node: usize, identities: &[u32]) -> Vec<Inner> {
    let near = [&scene.near, &scene.stranger, &scene.nodes[0]];
    let far = [&scene.far, &scene.friend, &scene.stranger, &scene.nodes[1]];
    let targets = if node == 0 { &near[..] } else { &far[..] };
    let mut all = Vec::new();
    for family in FAMILIES {
        let pods = [&scene.friend, &scene.visitor, &scene.nodes[0], &scene.nodes[1]];
        let known = pods.map(|party| (party.name, party.addresses[family]));
        let sources = known.into_iter().chain([("the world", scene.world[family])]);
        for (name, src) in sources {
            for target in targets.iter().filter(|target| target.name != name) {
                let dst = target.addresses[family];
                all.extend(identities.iter().map(|vni| {
                    let what = format!("identity {vni}, from {name} {src} to {} {dst}", target.name);
                    Inner { what, vni: *vni, src, dst }
                }));
            }
        }
    }
    all
}

pub(super) fn by_pod(scene: &Scene, book: &mut Book) {
    let identities = [HOST, REMOTE_NODE, scene.friend_identity, 0, 0x00ab_cdef];
    for family in FAMILIES {
        let own = scene.attacker.addresses[family];
        for (number, node) in scene.nodes.iter().enumerate() {
            let direct = (node.addresses[family], TUNNEL_PORT, "");
            let by_service = (scene.tunnels[number][family], SERVICE_PORT, "by the Service of ");
            for inner in inside(scene, number, &identities) {
                for (to, port, how) in [direct, by_service] {
                    let outer = |mark| {
                        Packet::new(own, to, Transport::Udp { sport: 50_000, dport: port })
                            .payload(&inner.wrapped(mark))
                    };
                    let what = format!("{how}{} {to}: {}", node.name, inner.what);
                    book.forbidden(Gun::Attacker, what.clone(), |mark| vec![scene.attacker.sends(&outer(mark))]);
                    if [HOST, scene.friend_identity].contains(&inner.vni) {
                        book.forbidden(Gun::Attacker, format!("in fragments, {what}"), |mark| {
                            let id = u32::from(u16::from_be_bytes([mark[10], mark[11]]));
                            outer(mark).split(id, CUT).map(|part| scene.attacker.sends(&part)).to_vec()
                        });
                    }
                }
            }
        }
    }
}

/// Under its own address, and under that of the node that receives. Another node's address would be as good as a cable to that node: who may send with it is the
/// network's to say.
pub(super) fn by_stranger(scene: &Scene, book: &mut Book) {
    for family in FAMILIES {
        for (number, node) in scene.nodes.iter().enumerate() {
            let to = node.addresses[family];
            let own = scene.stranger.addresses[family];
            for (src, who) in [(own, "its own address"), (to, "the node's own address")] {
                for inner in inside(scene, number, &[HOST, REMOTE_NODE, scene.friend_identity]) {
                    let outer = |mark| {
                        Packet::new(src, to, Transport::Udp { sport: 50_000, dport: TUNNEL_PORT })
                            .payload(&inner.wrapped(mark))
                    };
                    let what = format!("with {who} to {} {to}: {}", node.name, inner.what);
                    book.forbidden(Gun::Stranger, what.clone(), |mark| {
                        vec![scene.stranger.sends_to(node, &outer(mark))]
                    });
                    if inner.vni == scene.friend_identity {
                        book.forbidden(Gun::Stranger, format!("in fragments, {what}"), |mark| {
                            let id = u32::from(u16::from_be_bytes([mark[10], mark[11]]));
                            outer(mark).split(id, CUT).map(|part| scene.stranger.sends_to(node, &part)).to_vec()
                        });
                    }
                }
            }
        }
    }
}
