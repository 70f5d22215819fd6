// SPDX-License-Identifier: Apache-2.0
//! What nodes had that are gone. A node that is registered anew loses its object and comes back within seconds, while its
//! pods run on: it gets the same prefixes again, and others get them only when there is nothing else.

use super::ranges::Ranges;
use ipnet::IpNet;

/// Prefixes of nodes that are gone, those that went first in front.
#[derive(Debug, Default)]
pub(super) struct Former {
    nodes: Vec<(String, Vec<IpNet>)>,
}

impl Former {
    /// A node is gone.
    pub(super) fn add(&mut self, node: String, prefixes: Vec<IpNet>) {
        self.nodes.retain(|(name, _)| *name != node);
        self.nodes.push((node, prefixes));
    }

    /// What a node that comes back had and nobody has now.
    pub(super) fn of(&self, node: &str, taken: &Ranges) -> Vec<IpNet> {
        let had = self.nodes.iter().filter(|(name, _)| name == node).flat_map(|(_, prefixes)| prefixes);
        had.filter(|prefix| taken.overlapping(prefix).is_none()).copied().collect()
    }

    /// Forgets what somebody has now.
    pub(super) fn forget_taken(&mut self, taken: &Ranges) {
        for (_, prefixes) in &mut self.nodes {
            prefixes.retain(|prefix| taken.overlapping(prefix).is_none());
        }
        self.nodes.retain(|(_, prefixes)| !prefixes.is_empty());
    }

    /// All of them, as ranges that others are to keep off.
    pub(super) fn ranges(&self) -> Ranges {
        let mut ranges = Ranges::default();
        for (node, prefixes) in &self.nodes {
            prefixes.iter().for_each(|prefix| ranges.insert(*prefix, node));
        }
        ranges
    }

    /// The one of that size in the pool that has been free for longest.
    pub(super) fn oldest(&self, pool: &IpNet, mask_size: u8, taken: &Ranges) -> Option<IpNet> {
        let fits = |prefix: &&IpNet| {
            prefix.prefix_len() == mask_size && pool.contains(*prefix) && taken.overlapping(prefix).is_none()
        };
        self.nodes.iter().flat_map(|(_, prefixes)| prefixes).find(fits).copied()
    }
}
