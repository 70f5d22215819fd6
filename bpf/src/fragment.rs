// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Fragments: later ones have no ports, so what the first one said is remembered once it has been let through, and serves those that
//! come from the same place.

use crate::maps;
use crate::packet::From;
use crate::pkt::{FIRST, Pkt};
use abi::fragments::Fragmented;

#[inline(always)]
fn datagram(pkt: &Pkt) -> Fragmented {
    Fragmented {
        src: pkt.tuple.src,
        dst: pkt.tuple.dst,
        id: pkt.fragment_id,
        origin: pkt.origin,
        sport: pkt.tuple.sport,
        dport: pkt.tuple.dport,
        next: pkt.fragment_next,
        proto: pkt.tuple.proto,
        kind: pkt.flags,
        code: pkt.code,
    }
}

/// Remembers a first fragment that goes on its way.
#[inline(always)]
pub fn let_follow(pkt: &Pkt) {
    if pkt.fragment == FIRST {
        remember(pkt);
    }
}

#[inline(never)]
fn remember(pkt: &Pkt) -> i32 {
    let first = datagram(pkt);
    if let Some(place) = maps::FRAGMENTS.get_ptr_mut(first.place(pkt.from == From::POD)) {
        // SAFETY: array values are never freed. Who reads it meanwhile takes it for another datagram's, or has the ports of one that was
        // let through from the same sender: their flow then decides.
        unsafe { *place = first };
    }
    0
}

/// What the first fragment of this one's datagram said.
#[inline(always)]
pub fn first_of(pkt: &Pkt) -> Option<&'static Fragmented> {
    let later = datagram(pkt);
    let first = maps::FRAGMENTS.get(later.place(pkt.from == From::POD))?;
    later.is_of(first).then_some(first)
}
