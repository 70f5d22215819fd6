// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The rings of [`crate::maps::Openings`]. Each endpoint has two, for flows that it opens and for flows that are opened to it, and each
//! frontend of a service one for what is opened to it from outside. A new flow takes the place of the ring's oldest; if that one is still
//! opening, it is removed. So the flows of an endpoint or frontend that nobody has answered are bounded, and a flood of them costs the one
//! that makes it, or is its aim, and nobody's established connection.
//!
//! One that has been answered but is no TCP connection, or one that is closed, stays, on a stack behind the rings: when the table is full, it
//! is given up for a new flow of whoever wants one. So who opens very many of those has them at the others' discretion.

use crate::endpoint::{SHARES, share};

/// Frontends that have rings of their own; beyond, some share one.
const FRONTENDS: u32 = 127;
/// How many rings there are.
pub const COUNT: u32 = SHARES * 2 + FRONTENDS;
/// The index of the stack's height, after those of the rings.
pub const STACK: u32 = COUNT;
/// The stack is as long as that many rings.
const STACK_RINGS: u32 = 64;
/// All of it in lengths of a ring.
pub const RINGS_AND_STACK: u32 = COUNT + STACK_RINGS;

/// The ring of the endpoint behind an interface, for flows that it opens or that are opened to it.
#[inline(always)]
#[must_use]
pub const fn of(ifindex: u32, opened_by_it: bool) -> u32 {
    share(ifindex) * 2 + opened_by_it as u32
}

/// The ring of a service (`lb::Service::id`), for flows that are opened to it from outside.
#[inline(always)]
#[must_use]
pub const fn of_service(id: u32) -> u32 {
    SHARES * 2 + id % FRONTENDS
}

/// Places in each ring, for a flow table of that many entries.
#[must_use]
pub const fn places(flows: u32) -> u32 {
    let share = flows / 256;
    if share < 64 { 64 } else { share }
}

/// The place in the map of a ring's entry, or `None` for rings without places.
#[inline(always)]
#[must_use]
pub const fn place(ring: u32, at: u32, places: u32) -> Option<u32> {
    match at.checked_rem(places) {
        Some(at) => Some(ring * places + at),
        None => None,
    }
}

/// The place in the map of the stack's entry at that height; what is higher than the stack is long begins again at its foot.
#[inline(always)]
#[must_use]
pub const fn stack_place(height: u32, places: u32) -> Option<u32> {
    match height.checked_rem(STACK_RINGS * places) {
        Some(at) => Some(COUNT * places + at),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_neighbouring_interfaces_nor_services_share_a_ring() {
        let rings: std::collections::BTreeSet<u32> =
            (10..10 + 2 * SHARES).step_by(2).flat_map(|ifindex| [of(ifindex, true), of(ifindex, false)]).collect();
        let frontends: std::collections::BTreeSet<u32> = (1..=FRONTENDS).map(of_service).collect();
        assert_eq!((rings.len(), frontends.len()), (2 * SHARES as usize, FRONTENDS as usize));
        assert!(rings.is_disjoint(&frontends) && rings.union(&frontends).all(|ring| *ring < COUNT));
        assert_eq!(rings.len() + frontends.len(), COUNT as usize);
    }

    #[test]
    fn no_two_places_are_one_and_none_is_outside() {
        let places = 64;
        let rings = (0..COUNT).flat_map(|ring| (0..places).filter_map(move |at| place(ring, at, places)));
        let stack = (0..STACK_RINGS * places).filter_map(|height| stack_place(height, places));
        let all: std::collections::BTreeSet<u32> = rings.chain(stack).collect();
        assert_eq!(all.len() as u32, RINGS_AND_STACK * places);
        assert_eq!(all.last().copied(), Some(RINGS_AND_STACK * places - 1));
        assert_eq!(stack_place(STACK_RINGS * places + 3, places), stack_place(3, places));
        assert_eq!((place(3, 1, 0), stack_place(1, 0)), (None, None));
    }

    #[test]
    fn the_rings_grow_with_the_table() {
        assert_eq!((places(1024), places(131_072), places(524_288)), (64, 512, 2048));
    }
}
