// SPDX-License-Identifier: Apache-2.0
//! ICMP errors by a pod. Each quotes a packet of a flow; one about a packet that the pod has received reaches whom that packet is from, and no other one anybody.

use std::net::IpAddr;

use frames::{Packet, Transport};

use crate::book::{Book, Gun, Mark};
use crate::scene::{FAMILIES, FRIENDS_PORT, LIVE, PORT, Party, Scene};

/// Unreachable in three ways, too late, and not understood: types and codes.
const FOUR: [(u8, u8); 5] = [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)];
/// The same of ICMPv6, with "too big".
const SIX: [(u8, u8); 5] = [(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)];
/// Of "too big" and "fragmentation needed": the MTU.
const REST: [u8; 4] = [0, 0, 0x05, 0];

/// A packet to quote.
struct Quote<'a> {
    what: &'static str,
    from: (&'a Party, u16),
    to: (&'a Party, u16),
    /// The attacker has received such packets, so that the sender is told.
    own: bool,
}

impl Quote<'_> {
    fn bytes(&self, family: usize, mark: Mark) -> Vec<u8> {
        let address = |party: &Party| -> IpAddr { party.addresses[family] };
        let transport = Transport::Udp { sport: self.from.1, dport: self.to.1 };
        Packet::new(address(self.from.0), address(self.to.0), transport).payload(&mark).network()
    }
}

fn quotes_of(scene: &Scene) -> Vec<Quote<'_>> {
    let Scene { attacker, near, far, friend, stranger, .. } = scene;
    let quote = |what, from, to, own| Quote { what, from, to, own };
    vec![
        quote("its own flow with the friend", (friend, LIVE[0]), (attacker, LIVE[0]), true),
        quote("its own flow with the stranger", (stranger, LIVE[2]), (attacker, LIVE[2]), true),
        quote("what it has sent to the friend", (attacker, LIVE[0]), (friend, LIVE[0]), false),
        quote("a flow of near, as its peer", (near, LIVE[1]), (friend, LIVE[1]), false),
        quote("a flow of near, as near", (friend, LIVE[1]), (near, LIVE[1]), false),
        quote("the friend's flow with near", (friend, FRIENDS_PORT), (near, PORT), false),
        quote("what near answers the friend", (near, PORT), (friend, FRIENDS_PORT), false),
        quote("the friend's flow with far", (friend, FRIENDS_PORT), (far, PORT), false),
        quote("what far answers the friend", (far, PORT), (friend, FRIENDS_PORT), false),
        quote("a flow with the friend that is none", (friend, 1), (attacker, 2), false),
        quote("a flow with near that is none", (near, 1), (attacker, 2), false),
    ]
}

pub(super) fn quotes(scene: &Scene, book: &mut Book) {
    let targets = [&scene.near, &scene.far, &scene.friend, &scene.stranger];
    for (family, kinds) in FAMILIES.into_iter().zip([FOUR, SIX]) {
        let own = scene.attacker.addresses[family];
        for quote in quotes_of(scene) {
            for target in targets {
                let to = target.addresses[family];
                for (kind, code) in kinds {
                    let what = format!("type {kind} code {code} about {} to {} {to}", quote.what, target.name);
                    let build = |mark| {
                        let transport = Transport::Icmp { kind, code, rest: REST };
                        vec![scene.attacker.sends(&Packet::new(own, to, transport).payload(&quote.bytes(family, mark)))]
                    };
                    if quote.own && quote.from.0.name == target.name {
                        book.allowed(Gun::Attacker, what, target.name, build);
                    } else {
                        book.forbidden(Gun::Attacker, what, build);
                    }
                }
            }
        }
    }
}
