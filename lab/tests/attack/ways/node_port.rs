// SPDX-License-Identifier: Apache-2.0
//! Calls of a Service by a node's port, or by its address through a node: kube-proxy gives them the node's own source, which must not make them the node's.

use std::net::IpAddr;

use frames::{Packet, SYN, Transport};

use crate::book::{Book, Gun, Mark};
use crate::scene::{FAMILIES, Scene};

const NODE_PORT: u16 = 30_080;
const OPEN_NODE_PORT: u16 = 30_090;
const SERVICE_PORT: u16 = 80;
/// Each gets a backend of its own.
const PORTS: std::ops::Range<u16> = 41_000..41_008;

/// From whom, by which node, to which address.
struct Call<'a> {
    scene: &'a Scene,
    gun: Gun,
    node: usize,
    family: usize,
    to: IpAddr,
}

impl Call<'_> {
    fn frames(&self, transport: impl Fn(u16) -> Transport, mark: Mark) -> Vec<Vec<u8>> {
        let caller = self.gun.of(self.scene);
        let packet = |port| Packet::new(caller.addresses[self.family], self.to, transport(port)).payload(&mark);
        let frame = |packet: Packet| match self.gun {
            Gun::Stranger => caller.sends_to(&self.scene.nodes[self.node], &packet),
            _ => caller.sends(&packet),
        };
        PORTS.map(packet).map(frame).collect()
    }
}

pub(super) fn calls(scene: &Scene, book: &mut Book) {
    for (family, node) in FAMILIES.into_iter().flat_map(|family| [(family, 0), (family, 1)]) {
        let (name, to, service) = (scene.nodes[node].name, scene.nodes[node].addresses[family], scene.victims[family]);
        for (gun, who) in [(Gun::Stranger, "the stranger"), (Gun::Attacker, "a pod")] {
            let call = Call { scene, gun, node, family, to };
            book.forbidden(gun, format!("UDP of {who} to {name} {to}, port {NODE_PORT}"), |mark| {
                call.frames(|from| Transport::Udp { sport: from, dport: NODE_PORT }, mark)
            });
            book.forbidden(gun, format!("TCP of {who} to {name} {to}, port {NODE_PORT}"), |mark| {
                call.frames(|from| Transport::Tcp { sport: from, dport: NODE_PORT, flags: SYN }, mark)
            });
            let call = Call { to: service, ..call };
            book.forbidden(gun, format!("UDP of {who} to {service} by {name}"), |mark| {
                call.frames(|from| Transport::Udp { sport: from, dport: SERVICE_PORT }, mark)
            });
        }
        let call = Call { scene, gun: Gun::Stranger, node, family, to };
        let what = format!("UDP of the stranger to {name} {to}, port {OPEN_NODE_PORT}");
        book.allowed(Gun::Stranger, what, "friend", |mark| {
            call.frames(|from| Transport::Udp { sport: from, dport: OPEN_NODE_PORT }, mark)
        });
    }
}
