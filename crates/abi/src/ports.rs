// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The source ports under which masqueraded flows go on. Towards one port of one peer an address has each of them once. So that nobody can
//! take them all, each endpoint has some for itself, above those that Linux gives to sockets by default; all others are anybody's.

use crate::endpoint::{SHARES, share};

/// The first that is given out, above the end of the NodePort range (30000-32767).
pub const FIRST: u16 = 32_768;
/// The first that is somebody's own.
pub const FIRST_OWN: u16 = 61_000;
/// How many each endpoint has.
pub const EACH: u16 = 35;
/// The first of those of clients outside, whom the node asks backends for.
const FIRST_OUTSIDE: u16 = FIRST_OWN + SHARES as u16 * EACH;

/// Ports in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u16,
    count: u16,
}

impl Range {
    /// Those that are anybody's.
    pub const ANYBODYS: Self = Self { first: FIRST, count: FIRST_OWN - FIRST };
    /// Those of all clients outside.
    pub const OUTSIDE: Self = Self { first: FIRST_OUTSIDE, count: u16::MAX - FIRST_OUTSIDE + 1 };

    /// Those of the endpoint behind an interface.
    #[inline(always)]
    #[must_use]
    pub const fn of(ifindex: u32) -> Self {
        Self { first: FIRST_OWN + share(ifindex) as u16 * EACH, count: EACH }
    }

    /// Whether whose these are may take that port: one of these, or one that is nobody's own.
    #[inline(always)]
    #[must_use]
    pub const fn allow(self, port: u16) -> bool {
        port < FIRST_OWN || port.wrapping_sub(self.first) < self.count
    }

    /// One of them, by a random number.
    #[inline(always)]
    #[must_use]
    pub const fn pick(self, random: u32) -> u16 {
        // The compiler does not see that none is empty, and a program may not have code for a division by zero.
        match random.checked_rem(self.count as u32) {
            Some(nth) => self.first.wrapping_add(nth as u16),
            None => self.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all(range: Range) -> BTreeSet<u16> {
        (0..10_000).map(|random| range.pick(random)).collect()
    }

    #[test]
    fn no_port_is_of_two_and_none_is_nobodys() {
        let endpoints = (10..10 + 2 * SHARES).step_by(2).map(|ifindex| all(Range::of(ifindex)));
        let shares: Vec<_> = endpoints.chain([all(Range::OUTSIDE)]).collect();
        assert_eq!(shares.iter().map(BTreeSet::len).sum::<usize>(), usize::from(u16::MAX - FIRST_OWN) + 1);
        assert_eq!(shares.iter().flatten().collect::<BTreeSet<_>>().len(), usize::from(u16::MAX - FIRST_OWN) + 1);
        let anybodys: BTreeSet<u16> = (0..100_000).map(|random| Range::ANYBODYS.pick(random)).collect();
        assert!(anybodys.into_iter().eq(FIRST..FIRST_OWN));
    }

    #[test]
    fn nobody_takes_what_is_anothers() {
        let (one, other) = (Range::of(10), Range::of(12));
        assert!(all(one).iter().all(|port| one.allow(*port) && !other.allow(*port)));
        assert!(all(Range::OUTSIDE).iter().all(|port| Range::OUTSIDE.allow(*port) && !one.allow(*port)));
        assert!((0..FIRST_OWN).all(|port| one.allow(port) && Range::OUTSIDE.allow(port)));
    }
}
