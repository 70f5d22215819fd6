// SPDX-License-Identifier: Apache-2.0
//! Messages that never leave a link, sent to whom they are not for, and messages that ride on the flow of an echo.

use frames::{Packet, Transport};

use crate::book::{Book, Gun};
use crate::scene::{FAMILIES, Scene};

/// MLD, router solicitation and advertisement, neighbour advertisement, redirect.
const LINK_MESSAGES: [u8; 8] = [130, 131, 132, 143, 133, 134, 136, 137];
/// IGMP's query, reports of two versions, and leave.
const GROUP_MESSAGES: [u8; 4] = [0x11, 0x16, 0x22, 0x17];
const IGMP: u8 = 2;
/// The identifier and number of the echo.
const ECHO: [u8; 4] = [0x77, 0x77, 0, 1];
const OTHER_ECHO: [u8; 4] = [0x77, 0x78, 0, 1];

pub(super) fn link_messages(scene: &Scene, book: &mut Book) {
    let attacker = &scene.attacker;
    let targets = [&scene.near, &scene.far, &scene.friend, &scene.stranger, &scene.nodes[0], &scene.nodes[1]];
    let sources = [attacker, &scene.near, &scene.far, &scene.nodes[0], &scene.stranger];
    for target in targets {
        for (source, hops) in sources.into_iter().flat_map(|source| [1, 64, 255].map(|hops| (source, hops))) {
            let ends = |family: usize| (source.addresses[family], target.addresses[family]);
            let (src, dst) = ends(1);
            for kind in LINK_MESSAGES {
                let what =
                    format!("type {kind}, hop limit {hops}, from {} {src} to {} {dst}", source.name, target.name);
                book.forbidden(Gun::Attacker, what, |mark| {
                    // Room for what the messages have in front: a maximal delay, a lifetime, an address.
                    let body = [&[0; 16][..], &mark].concat();
                    vec![
                        attacker.sends(
                            &Packet::new(src, dst, Transport::Icmp { kind, code: 0, rest: [0; 4] })
                                .payload(&body)
                                .ttl(hops),
                        ),
                    ]
                });
            }
            // IGMP by its own source to whom has no policy is a packet as any other.
            let victim = scene.victims().iter().any(|victim| victim.name == target.name);
            if source.name == attacker.name && !victim {
                continue;
            }
            let (src, dst) = ends(0);
            for kind in GROUP_MESSAGES {
                let what = format!("IGMP {kind:#x}, TTL {hops}, from {} {src} to {} {dst}", source.name, target.name);
                book.forbidden(Gun::Attacker, what, |mark| {
                    let body = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &mark].concat();
                    vec![
                        attacker
                            .sends(&Packet::new(src, dst, Transport::Other { proto: IGMP }).payload(&body).ttl(hops)),
                    ]
                });
            }
        }
    }
}

/// Both victims ping the attacker. He answers, and sends other messages between the same addresses with the same identifier.
pub(super) fn behind_echoes(scene: &Scene, book: &mut Book) {
    for family in FAMILIES {
        let own = scene.attacker.addresses[family];
        let (request, reply) = if family == 0 { (8, 0) } else { (128, 129) };
        for (gun, victim) in [(Gun::Near, &scene.near), (Gun::Far, &scene.far)] {
            let at = victim.addresses[family];
            let what = format!("the answer to an echo request of {} {at} to {own}", victim.name);
            book.allowed(gun, what, victim.name, |mark| {
                vec![victim.sends(
                    &Packet::new(at, own, Transport::Icmp { kind: request, code: 0, rest: ECHO }).payload(&mark),
                )]
            });
            let four = [request, 4, 5, 9, 10, 13, 14, 15, 16, 17, 18, 40, 42];
            let six = [request, 5, 100, 101, 127, 130, 138, 139, 140, 144, 200, 201];
            let kinds = if family == 0 { &four[..] } else { &six[..] };
            let same = kinds.iter().map(|kind| (*kind, ECHO, "the same"));
            for (kind, rest, identifier) in
                same.chain([(reply, OTHER_ECHO, "another"), (request, OTHER_ECHO, "another")])
            {
                let what = format!("type {kind} with {identifier} identifier to {} {at}", victim.name);
                book.forbidden(Gun::Attacker, what, |mark| {
                    vec![
                        scene
                            .attacker
                            .sends(&Packet::new(own, at, Transport::Icmp { kind, code: 0, rest }).payload(&mark)),
                    ]
                });
            }
        }
    }
}
