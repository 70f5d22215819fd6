// SPDX-License-Identifier: Apache-2.0
//! The trie of source ranges: prefixes of clients, by service.

use abi::lb::SourceRangeKey;
use abi::maps::SourceRanges;
use datapath::{LpmKey, Trie};
use ipnet::IpNet;
use model::Frontend;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

type Key = LpmKey<SourceRangeKey>;

/// Bits of a key before those of the client.
const SERVICE_BITS: u32 = 32;
/// Bits of an IPv6 address before an IPv4 one in it.
const MAPPED_BITS: u32 = 96;

/// The trie, and what it may hold of each service.
#[derive(Debug)]
pub(super) struct Ranges {
    trie: Trie<SourceRanges>,
    held: BTreeMap<u32, BTreeSet<Key>>,
}

impl Ranges {
    pub(super) fn read(trie: Trie<SourceRanges>) -> datapath::Result<Self> {
        let mut held: BTreeMap<u32, BTreeSet<Key>> = BTreeMap::new();
        for key in trie.keys()? {
            let data = key.data;
            held.entry(data.id()).or_default().insert(key);
        }
        Ok(Self { trie, held })
    }

    /// Whether it holds what the frontend wants, and nothing else of it.
    pub(super) fn are_right(&self, row: &Frontend) -> bool {
        self.held.get(&row.id).unwrap_or(&BTreeSet::new()) == &wanted(row)
    }

    /// Adds what the frontend wants.
    pub(super) fn add(&mut self, row: &Frontend) -> datapath::Result<()> {
        for key in wanted(row) {
            if self.held.get(&row.id).is_none_or(|held| !held.contains(&key)) {
                self.trie.insert(&key, &1)?;
                self.held.entry(row.id).or_default().insert(key);
            }
        }
        Ok(())
    }

    /// Removes what the frontend does not want.
    pub(super) fn trim(&mut self, row: &Frontend) -> datapath::Result<()> {
        let wanted = wanted(row);
        self.remove(row.id, |key| !wanted.contains(key))
    }

    /// Removes what a service has.
    pub(super) fn remove_all(&mut self, service: u32) -> datapath::Result<()> {
        self.remove(service, |_| true)
    }

    /// How many prefixes it may hold of a service.
    pub(super) fn count(&self, service: u32) -> usize {
        self.held.get(&service).map_or(0, BTreeSet::len)
    }

    /// How many prefixes it may hold of all.
    pub(super) fn total(&self) -> usize {
        self.held.values().map(BTreeSet::len).sum()
    }

    /// The services of which it may hold something.
    pub(super) fn services(&self) -> Vec<u32> {
        self.held.keys().copied().collect()
    }

    fn remove(&mut self, service: u32, which: impl Fn(&Key) -> bool) -> datapath::Result<()> {
        let held = self.held.get(&service).into_iter().flatten();
        let excess: Vec<Key> = held.filter(|key| which(key)).copied().collect();
        for key in &excess {
            self.trie.remove(key)?;
            self.forget(service, key);
        }
        Ok(())
    }

    fn forget(&mut self, service: u32, key: &Key) {
        if let Some(held) = self.held.get_mut(&service) {
            held.remove(key);
            if held.is_empty() {
                self.held.remove(&service);
            }
        }
    }
}

/// How many prefixes a frontend wants.
pub(super) fn count(row: &Frontend) -> usize {
    prefixes(row).count()
}

fn wanted(row: &Frontend) -> BTreeSet<Key> {
    prefixes(row).map(|(prefix, deny)| key(row.id, deny, prefix)).collect()
}

/// The prefixes of a frontend's clients, and whether those are refused. A trie has no use for clients of the other family, who do not come.
fn prefixes(row: &Frontend) -> impl Iterator<Item = (&IpNet, bool)> {
    let is_ipv4 = row.key.addr.ip.is_ipv4();
    let all = row.source_ranges.iter().flat_map(|ranges| ranges.prefixes.iter().map(|prefix| (prefix, ranges.deny)));
    all.filter(move |(prefix, _)| prefix.addr().is_ipv4() == is_ipv4)
}

fn key(service: u32, denied: bool, prefix: &IpNet) -> Key {
    let (client, before): (Ipv6Addr, u32) = match prefix.addr() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), MAPPED_BITS),
        IpAddr::V6(ip) => (ip, 0),
    };
    let bits = SERVICE_BITS + before + u32::from(prefix.prefix_len());
    LpmKey::new(bits, SourceRangeKey::new(service, denied, client.octets()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use datapath::fake;

    #[test]
    fn a_client_is_found_below_its_service_by_its_prefix() {
        let trie = fake::Kernel::new().trie::<SourceRanges>().unwrap();
        for prefix in ["10.0.0.0/8", "fd00::/16", "0.0.0.0/0"] {
            let service = if prefix == "0.0.0.0/0" { 3 } else { 2 };
            trie.insert(&key(service, false, &prefix.parse().unwrap()), &1).unwrap();
        }
        let finds = |service, ip: &str| {
            let full: IpNet = format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 }).parse().unwrap();
            let data = key(service, false, &full).data;
            trie.lookup(&data).unwrap().is_some()
        };
        assert!(finds(2, "10.9.9.9") && finds(2, "fd00::1") && finds(3, "8.8.8.8"));
        assert!(!finds(2, "11.0.0.1") && !finds(2, "fe00::1") && !finds(3, "fd00::1") && !finds(4, "10.0.0.1"));
    }
}
