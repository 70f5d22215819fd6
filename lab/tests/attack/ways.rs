// SPDX-License-Identifier: Apache-2.0
//! The ways that are tables of frames. Each has a name, under which it fails, and a function that writes its shots into the book.

mod errors;
mod fragments;
mod icmp;
mod node_port;
mod sources;
mod tunnel;

use crate::book::Book;
use crate::scene::Scene;

type Way = (&'static str, fn(&Scene, &mut Book));

const WAYS: [Way; 9] = [
    ("1 VXLAN sent by a pod", tunnel::by_pod),
    ("2 VXLAN sent by a machine that is no node", tunnel::by_stranger),
    ("3 plain frames of a machine with others' sources", sources::by_stranger),
    ("4 calls by a node that translates", node_port::calls),
    ("5 messages of the link sent elsewhere", icmp::link_messages),
    ("6 ICMP errors about flows", errors::quotes),
    ("7 other messages on an echo's flow", icmp::behind_echoes),
    ("8 fragments", fragments::fragments),
    ("9 sources that are not the pod's own", sources::by_pod),
];

/// Whether `CILIUM_ATTACK_WAYS` lets a way in.
pub(crate) fn chosen(way: &str) -> bool {
    let words = std::env::var("CILIUM_ATTACK_WAYS").unwrap_or_default();
    words.is_empty() || words.split(',').any(|word| way.contains(word.trim()))
}

/// The shots of all ways that are chosen.
pub(crate) fn all(scene: &Scene) -> Book {
    let mut book = Book::default();
    for (name, shots) in WAYS.into_iter().filter(|(name, _)| chosen(name)) {
        book.way(name);
        shots(scene, &mut book);
    }
    book
}
