// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The rings of [`crate::maps::Openings`]. Each endpoint has two, for flows that it opens and for flows that are opened to it. A new
//! flow takes the place of the ring's oldest; if that one is still opening, it is removed. So the flows of an endpoint that nobody
//! has answered are bounded, and a flood of them costs the endpoint that makes it and nobody's established connection.

/// Endpoints that have rings of their own; beyond, some share one. A prime, because interface indexes of pods often step by two.
const ENDPOINTS: u32 = 127;
/// How many rings there are.
pub const COUNT: u32 = ENDPOINTS * 2;

/// The ring of the endpoint behind an interface, for flows that it opens or that are opened to it.
#[inline(always)]
#[must_use]
pub const fn of(ifindex: u32, opened_by_it: bool) -> u32 {
    ifindex % ENDPOINTS * 2 + opened_by_it as u32
}

/// Places in each ring, for a flow table of that many entries.
#[must_use]
pub const fn places(flows: u32) -> u32 {
    let share = flows / 256;
    if share < 64 { 64 } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_interfaces_do_not_share_a_ring() {
        let rings: std::collections::BTreeSet<u32> =
            (10..10 + 2 * ENDPOINTS).step_by(2).flat_map(|ifindex| [of(ifindex, true), of(ifindex, false)]).collect();
        assert_eq!(rings.len(), COUNT as usize);
        assert!(rings.iter().all(|ring| *ring < COUNT));
    }

    #[test]
    fn the_rings_grow_with_the_table() {
        assert_eq!((places(1024), places(131_072), places(524_288)), (64, 512, 2048));
    }
}
