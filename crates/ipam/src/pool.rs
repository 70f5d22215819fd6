// SPDX-License-Identifier: Apache-2.0
//! One prefix and which of its addresses are free. Allocating and releasing take constant time, memory grows with what
//! is in use and not with the prefix (an IPv6 prefix may have 2^64 addresses), and a released address is reused as late
//! as possible, so that others have time to forget its last owner.

use ipnet::IpNet;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses are represented by their offset from the first.
///
/// Below `fresh` each is taken, reserved or in `returned`; from `fresh` on each is taken, reserved or has never been
/// used.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    prefix: IpNet,
    size: u128,
    taken: BTreeSet<u128>,
    /// Those no pod may have.
    withheld: BTreeSet<u128>,
    returned: VecDeque<u128>,
    fresh: u128,
}

impl Pool {
    /// A pool that reserves the network address, IPv4's broadcast address and the node's own, and in which the given
    /// addresses are taken.
    pub(crate) fn new<'a>(
        prefix: IpNet,
        own: impl Iterator<Item = &'a IpAddr>,
        taken: impl Iterator<Item = &'a IpAddr>,
    ) -> Self {
        let prefix = prefix.trunc();
        let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
        let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
        let (taken_before, returned) = (BTreeSet::new(), VecDeque::new());
        let mut pool = Self { prefix, size, taken: taken_before, withheld: BTreeSet::new(), returned, fresh: 0 };
        pool.taken.extend(taken.filter_map(|ip| offset(prefix, *ip)));
        pool.withhold(own);
        pool
    }

    /// Follows the node's own addresses. What was given out before stays last in line.
    pub(crate) fn withhold<'a>(&mut self, own: impl Iterator<Item = &'a IpAddr>) {
        let prefix = self.prefix;
        // A prefix of one or two addresses has neither network nor broadcast address.
        let broadcast = matches!(prefix, IpNet::V4(_)).then(|| prefix.broadcast());
        let unusable = std::iter::once(prefix.network()).chain(broadcast).filter(|_| self.size > 2);
        let now = unusable.chain(own.copied()).filter_map(|ip| offset(prefix, ip)).collect();
        let before = std::mem::replace(&mut self.withheld, now);
        self.returned.retain(|offset| !self.withheld.contains(offset));
        let free = before.difference(&self.withheld).filter(|o| **o < self.fresh && !self.taken.contains(*o));
        self.returned.extend(free);
    }

    pub(crate) fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// Number of addresses for pods.
    pub(crate) fn capacity(&self) -> u128 {
        self.size.saturating_sub(self.withheld.len() as u128)
    }

    /// Number of those in use.
    pub(crate) fn taken(&self) -> u128 {
        self.taken.len() as u128
    }

    /// Takes a free address.
    pub(crate) fn take_any(&mut self) -> Option<IpAddr> {
        while self.fresh < self.size {
            let offset = self.fresh;
            self.fresh += 1;
            if !self.withheld.contains(&offset) && self.taken.insert(offset) {
                return Some(self.address(offset));
            }
        }
        let offset = self.returned.pop_front()?;
        self.taken.insert(offset);
        Some(self.address(offset))
    }

    /// Takes this address. Returns whether it was free.
    pub(crate) fn take(&mut self, ip: IpAddr) -> bool {
        let Some(offset) = offset(self.prefix, ip) else { return false };
        let free = !self.withheld.contains(&offset) && self.taken.insert(offset);
        if free && offset < self.fresh {
            self.returned.retain(|o| *o != offset);
        }
        free
    }

    /// Releases an address.
    pub(crate) fn give_back(&mut self, ip: IpAddr) {
        if let Some(offset) = offset(self.prefix, ip)
            && self.taken.remove(&offset)
            && !self.withheld.contains(&offset)
            && offset < self.fresh
        {
            self.returned.push_back(offset);
        }
    }

    fn address(&self, offset: u128) -> IpAddr {
        let number = number(self.prefix.network()).wrapping_add(offset);
        match self.prefix {
            // The offset is within an IPv4 prefix, so the sum fits.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

fn offset(prefix: IpNet, ip: IpAddr) -> Option<u128> {
    prefix.contains(&ip).then(|| number(ip).wrapping_sub(number(prefix.network())))
}

/// An address as a number.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}
