// SPDX-License-Identifier: Apache-2.0
//! Ranges of addresses of one family, and sets of them. Memory grows with the number of ranges, not of addresses.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub(crate) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    const fn first(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An inclusive range of addresses. `IpAddr` sorts all of IPv4 before all of IPv6, so ranges of different families
/// never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    /// The lowest address.
    pub(crate) first: IpAddr,
    /// The highest address.
    pub(crate) last: IpAddr,
}

impl Range {
    /// `None` if the addresses differ in family or are in the wrong order.
    pub(crate) fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (Family::of(first) == Family::of(last) && first <= last).then_some(Self { first, last })
    }

    /// A single address.
    pub(crate) const fn one(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Number of addresses; one less for the whole of IPv6.
    pub(crate) fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }
}

impl From<IpNet> for Range {
    fn from(prefix: IpNet) -> Self {
        Self { first: prefix.network(), last: prefix.broadcast() }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from(u32::from(address).checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address).checked_add(1)?).into()),
    }
}

fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from(u32::from(address).checked_sub(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address).checked_sub(1)?).into()),
    }
}

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressSet {
    /// Ranges that neither overlap nor touch, last address by first.
    ranges: BTreeMap<IpAddr, IpAddr>,
}

impl AddressSet {
    pub(crate) fn insert(&mut self, range: Range) {
        let Range { mut first, mut last } = range;
        // Those that overlap it or end right before it.
        for old in self.overlapping(Range { first: previous(first).unwrap_or(first), last: next(last).unwrap_or(last) })
        {
            self.ranges.remove(&old.first);
            first = first.min(old.first);
            last = last.max(old.last);
        }
        self.ranges.insert(first, last);
    }

    pub(crate) fn remove(&mut self, range: Range) {
        for old in self.overlapping(range) {
            self.ranges.remove(&old.first);
            if old.first < range.first {
                previous(range.first).and_then(|last| self.ranges.insert(old.first, last));
            }
            if old.last > range.last {
                next(range.last).and_then(|first| self.ranges.insert(first, old.last));
            }
        }
    }

    /// The lowest address of a family.
    pub(crate) fn first(&self, family: Family) -> Option<IpAddr> {
        let first = self.ranges.range(family.first()..).next().map(|(first, _)| *first);
        first.filter(|first| Family::of(*first) == family)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        !self.overlapping(Range::one(address)).is_empty()
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.ranges.iter().map(|(first, last)| Range { first: *first, last: *last })
    }

    pub(crate) fn count(&self) -> u128 {
        self.ranges().map(|range| range.count()).sum()
    }

    fn overlapping(&self, range: Range) -> Vec<Range> {
        let before = self.ranges.range(..range.first).next_back();
        let within = self.ranges.range(range.first..=range.last);
        let all = before.into_iter().chain(within).map(|(first, last)| Range { first: *first, last: *last });
        all.filter(|old| old.overlaps(&range)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(first: u8, last: u8) -> Range {
        let address = |last: u8| IpAddr::from([255, 255, 255, last]);
        Range::new(address(first.min(last)), address(first.max(last))).unwrap()
    }

    proptest! {
        #[test]
        fn a_set_of_addresses_is_one(steps in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u8>()), 1..40)) {
            let (mut set, mut naive) = (AddressSet::default(), BTreeSet::new());
            // A neighbour only by number, of the other family: it must stay.
            set.insert(Range::one(Family::V6.first()));
            for (add, first, last) in steps {
                let range = range(first, last);
                if add { set.insert(range) } else { set.remove(range) }
                for n in first.min(last)..=first.max(last) {
                    if add { naive.insert(n); } else { naive.remove(&n); }
                }
                let lowest = naive.first().map(|n| IpAddr::from([255, 255, 255, *n]));
                prop_assert_eq!(set.first(Family::V4), lowest);
                prop_assert_eq!(set.count(), naive.len() as u128 + 1);
                for n in 0..=255 {
                    prop_assert_eq!(set.contains([255, 255, 255, n].into()), naive.contains(&n));
                }
            }
            prop_assert_eq!(set.first(Family::V6), Some(Family::V6.first()));
        }
    }

    #[test]
    fn rows_that_touch_become_one() {
        let mut set = AddressSet::default();
        for (first, last) in [(0, 9), (20, 29), (10, 19), (250, 255)] {
            set.insert(range(first, last));
        }
        assert_eq!(set.ranges.len(), 2);
    }

    #[test]
    fn all_of_ipv6_has_a_size() {
        let all = Range::new(Family::V6.first(), IpAddr::from([0xff; 16])).unwrap();
        assert_eq!(all.count(), u128::MAX);
    }
}
