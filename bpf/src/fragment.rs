// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Fragments: later ones have no ports, so what the first one said is remembered once it has been let through, and serves those that
//! come from the same place.

use crate::maps;
use crate::parse::{FIRST, Pkt};
use abi::maps::{FragmentKey, FragmentTransport};

#[inline(always)]
fn key(pkt: &Pkt) -> FragmentKey {
    FragmentKey {
        src: pkt.tuple.src,
        dst: pkt.tuple.dst,
        id: pkt.fragment_id,
        origin: pkt.origin,
        proto: pkt.fragment_next,
        pad: [0; 7],
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
    let transport = FragmentTransport {
        sport: pkt.tuple.sport,
        dport: pkt.tuple.dport,
        kind: pkt.flags,
        code: pkt.code,
        proto: pkt.tuple.proto,
        pad: 0,
    };
    // A full table evicts the oldest; a failure only costs this datagram's later fragments, which then are dropped by name.
    let _ = maps::FRAGMENTS.insert(key(pkt), transport, 0);
    0
}

/// What the first fragment said.
#[inline(always)]
pub fn first_of(pkt: &Pkt) -> Option<FragmentTransport> {
    // SAFETY: copied at once; an entry that is replaced meanwhile yields ports of another datagram at worst, whose flow then
    // decides.
    unsafe { maps::FRAGMENTS.get(key(pkt)) }.copied()
}
