// SPDX-License-Identifier: Apache-2.0
//! Prefixes of nodes that are gone. A node that re-registers loses its object and comes back soon, while its pods keep
//! running: it gets the same prefixes again. Other nodes get them only as a last resort, and after a rest.

use super::ranges::Ranges;
use ipnet::IpNet;
use std::time::{Duration, Instant};

/// Former prefixes, oldest departure first.
#[derive(Debug, Default)]
pub(super) struct Former {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: String,
    prefixes: Vec<IpNet>,
    gone: Instant,
}

impl Former {
    /// A node is gone.
    pub(super) fn add(&mut self, name: String, prefixes: Vec<IpNet>, gone: Instant) {
        self.nodes.retain(|node| node.name != name);
        self.nodes.push(Node { name, prefixes, gone });
    }

    /// What a returning node had and nobody has now.
    pub(super) fn of(&self, name: &str, taken: &Ranges) -> Vec<IpNet> {
        let had = self.nodes.iter().filter(|node| node.name == name).flat_map(|node| &node.prefixes);
        had.filter(|prefix| taken.overlapping(prefix).is_none()).copied().collect()
    }

    /// Forgets what is in use again.
    pub(super) fn forget_taken(&mut self, taken: &Ranges) {
        for node in &mut self.nodes {
            node.prefixes.retain(|prefix| taken.overlapping(prefix).is_none());
        }
        self.nodes.retain(|node| !node.prefixes.is_empty());
    }

    /// All of them, as ranges to avoid.
    pub(super) fn ranges(&self) -> Ranges {
        ranges(self.nodes.iter())
    }

    /// Those of nodes that have been gone for less than that.
    pub(super) fn resting(&self, rest: Duration, now: Instant) -> Ranges {
        ranges(self.nodes.iter().filter(|node| node.gone + rest > now))
    }

    /// When the next one has rested.
    pub(super) fn next_rested(&self, rest: Duration, now: Instant) -> Option<Instant> {
        self.nodes.iter().map(|node| node.gone + rest).filter(|end| *end > now).min()
    }

    /// The longest-free one of that size in the pool.
    pub(super) fn oldest(&self, pool: &IpNet, mask_size: u8, unavailable: [&Ranges; 2]) -> Option<IpNet> {
        let fits = |prefix: &&IpNet| {
            let available = unavailable.iter().all(|ranges| ranges.overlapping(prefix).is_none());
            prefix.prefix_len() == mask_size && pool.contains(*prefix) && available
        };
        self.nodes.iter().flat_map(|node| &node.prefixes).find(fits).copied()
    }
}

fn ranges<'a>(nodes: impl Iterator<Item = &'a Node>) -> Ranges {
    let mut ranges = Ranges::default();
    for node in nodes {
        node.prefixes.iter().for_each(|prefix| ranges.insert(*prefix, &node.name));
    }
    ranges
}
