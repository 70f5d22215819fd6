// SPDX-License-Identifier: Apache-2.0
//! Which prefixes are taken, by whom, and which are free.

use crate::pool::number;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Taken prefixes of both families; they may overlap.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// By family (IPv6?) and prefix, the owner who came first. Prefixes either nest or are apart, so the order of
    /// `IpNet` puts what contains a prefix right before it, and what it contains right after it.
    taken: BTreeMap<(bool, IpNet), String>,
    /// Where the last search of a pool for a free prefix ended: nothing below has become free since.
    cursor: BTreeMap<(IpNet, u8), u128>,
}

impl Ranges {
    pub(super) fn insert(&mut self, prefix: IpNet, owner: &str) {
        self.taken.entry((is_ipv6(&prefix), prefix)).or_insert_with(|| owner.to_owned());
    }

    /// A taken prefix that overlaps this one, and its owner.
    pub(super) fn overlapping(&self, prefix: &IpNet) -> Option<(IpNet, &str)> {
        let key = |net: IpNet| (is_ipv6(prefix), net);
        // What contains it is one of the prefix's supernets.
        let mut wider = Some(*prefix);
        while let Some(net) = wider {
            if let Some(owner) = self.taken.get(&key(net)) {
                return Some((net, owner));
            }
            wider = net.supernet();
        }
        // What it contains begins within.
        let last = host(prefix.broadcast());
        let mut within = self.taken.range(key(*prefix)..=key(last));
        within.find(|((_, net), _)| prefix.contains(net)).map(|((_, net), owner)| (*net, owner.as_str()))
    }

    /// The first prefix of that size in the pool that overlaps neither these nor those to avoid. Between two searches
    /// with the same prefixes to avoid, nothing may become free.
    pub(super) fn free(&self, pool: IpNet, mask_size: u8, avoid: &mut Self) -> Option<IpNet> {
        let bits = u32::from(pool.max_prefix_len().checked_sub(mask_size)?);
        let step = 1_u128.checked_shl(bits)?;
        let end = number(pool.broadcast());
        let mut at = avoid.cursor.get(&(pool, mask_size)).copied().unwrap_or_else(|| number(pool.network()));
        while at <= end {
            let candidate = prefix(&pool, at, mask_size)?;
            match self.overlapping(&candidate).or_else(|| avoid.overlapping(&candidate)) {
                None => {
                    avoid.cursor.insert((pool, mask_size), at);
                    return Some(candidate);
                }
                // Skip a larger neighbour as a whole.
                Some((other, _)) => at = number(other.broadcast()).max(at.checked_add(step - 1)?).checked_add(1)?,
            }
        }
        avoid.cursor.insert((pool, mask_size), at);
        None
    }
}

fn is_ipv6(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V6(_))
}

fn host(ip: std::net::IpAddr) -> IpNet {
    IpNet::from(ip)
}

fn prefix(pool: &IpNet, first: u128, mask_size: u8) -> Option<IpNet> {
    match pool {
        IpNet::V4(_) => Ipv4Net::new(Ipv4Addr::from(u32::try_from(first).ok()?), mask_size).ok().map(IpNet::V4),
        IpNet::V6(_) => Ipv6Net::new(Ipv6Addr::from(first), mask_size).ok().map(IpNet::V6),
    }
}
