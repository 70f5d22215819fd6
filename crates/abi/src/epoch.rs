// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The slots of [`crate::maps::Epochs`]: what a remembered decision depends on, and who raises what when it changes.
//!
//! A slot is a number that only grows. A flow's decision stands while the slots that it was made under have not moved. User space
//! changes the maps, raises [`GENERATION`], and then the slot; the programs read in the opposite order, so that a decision
//! which a change overtook is never taken for one that was made after it.

use crate::Addr;

/// Everything: devices, routes, address prefixes.
pub const NODE: u32 = 0;
/// The first slot of flows by their peer's address; below are those of endpoints, by their ids.
pub const PEERS: u32 = 1 << 16;
/// How many slots peers share. Neighbours in a slot are decided anew together, which costs them one slow packet.
pub const PEER_SLOTS: u32 = 1 << PEER_BITS;
/// Raised before any other slot: a decision during which it moves holds for its own packet and is not remembered as valid.
pub const GENERATION: u32 = PEERS + PEER_SLOTS;
/// All slots.
pub const SLOTS: u32 = GENERATION + 1;

const PEER_BITS: u32 = 12;
/// Where the second of two peers begins in one word ([`of_peers`]).
const SECOND: u32 = 32 - PEER_BITS;

/// The slot of flows whose peer has this address: what the address is, how it is reached, and whether it is a service or a backend.
#[inline(always)]
#[must_use]
pub const fn of_peer(addr: Addr) -> u32 {
    PEERS + hash(addr)
}

/// Fibonacci hashing: the upper bits of the product depend on all bits of the address.
#[inline(always)]
const fn hash(addr: Addr) -> u32 {
    let product = (addr.hi ^ addr.lo).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> (64 - PEER_BITS)) as u32
}

/// The slots of both addresses that a flow depends on, in one word: a service's flow from outside is about its client and its backend.
#[inline(always)]
#[must_use]
pub const fn of_peers(one: Addr, other: Addr) -> u32 {
    of_peer(one) | hash(other) << SECOND
}

/// The slots in such a word.
#[inline(always)]
#[must_use]
pub const fn slots(peers: u32) -> [u32; 2] {
    [peers & ((1 << SECOND) - 1), PEERS + (peers >> SECOND)]
}

/// What a decision notes as the sum of its topology's epochs, which are `sum` at its end; [`GENERATION`] was `before` when it began
/// and is `after` once the sum has been read. One that a change overtook notes a sum of the past: it is not replayed.
#[inline(always)]
#[must_use]
pub const fn noted(sum: u32, before: u32, after: u32) -> u32 {
    if before == after { sum } else { sum.wrapping_sub(1) }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::collections::BTreeSet;

    /// A change as user space makes it, and a decision as the programs make it, in every order in which their steps can interleave:
    /// what is valid afterwards was decided by the new map.
    #[test]
    fn a_decision_that_a_change_overtook_is_never_valid() {
        for order in 0u32..1 << 7 {
            if order.count_ones() != 3 {
                continue;
            }
            let (mut map, mut slot, mut generation) = ("old", 0, 0);
            let (mut before, mut read, mut sum, mut after) = (0, "", 0, 0);
            let (mut writer, mut reader) = (0, 0);
            for step in 0..7 {
                if order >> step & 1 == 1 {
                    match writer {
                        0 => map = "new",
                        1 => generation += 1,
                        _ => slot += 1,
                    }
                    writer += 1;
                } else {
                    match reader {
                        0 => before = generation,
                        1 => read = map,
                        2 => sum = slot,
                        _ => after = generation,
                    }
                    reader += 1;
                }
            }
            assert!(noted(sum, before, after) != slot || read == "new", "order {order:07b}");
        }
    }

    #[test]
    fn slots_do_not_overlap() {
        for addr in [Addr::NONE, Addr { hi: u64::MAX, lo: 0 }, Addr { hi: 1, lo: u64::MAX }] {
            assert!((PEERS..GENERATION).contains(&of_peer(addr)));
        }
        assert!(u32::from(u16::MAX) < PEERS && GENERATION < SLOTS);
        let highest = (0..1 << 16).map(|lo| of_peer(Addr { hi: 0, lo })).max();
        assert_eq!(highest, Some(GENERATION - 1));
    }

    #[test]
    fn a_decision_that_nothing_overtook_notes_its_epochs() {
        assert_eq!(noted(7, 3, 3), 7);
        assert_ne!(noted(7, 3, 4), 7);
        assert_ne!(noted(0, 3, 4), 0);
    }

    #[test]
    fn a_word_holds_the_slots_of_two_peers() {
        for one in [Addr::NONE, Addr { hi: u64::MAX, lo: 0 }, Addr { hi: 1, lo: u64::MAX }] {
            for other in [Addr::NONE, Addr { hi: 3, lo: 5 }, Addr { hi: u64::MAX, lo: u64::MAX }] {
                assert_eq!(slots(of_peers(one, other)), [of_peer(one), of_peer(other)]);
            }
        }
    }

    #[test]
    fn the_pods_of_a_node_spread_over_the_slots() {
        let v4: BTreeSet<u32> = (0..=255).map(|n| of_peer(Ipv4Addr::new(10, 1, 2, n).into())).collect();
        let v6: BTreeSet<u32> = (0..256).map(|n| of_peer(Ipv6Addr::new(0xfd00, 0, 0, 7, 0, 0, 0, n).into())).collect();
        assert!(v4.len() > 200 && v6.len() > 200, "{} and {} slots for 256 pods", v4.len(), v6.len());
    }
}
