// SPDX-License-Identifier: Apache-2.0
//! Nodes' pod CIDRs, carved out of the cluster's pools (`ipam: cluster-pool`, the operator's side).

mod former;
pub mod nodes;
mod ranges;

use former::Former;
use ipnet::IpNet;
use ranges::Ranges;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// The pools of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    prefixes: Vec<IpNet>,
    mask_size: u8,
}

/// Why pools cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolsError {
    /// A node's share would be larger than a pool, or larger than an address.
    #[error("mask size {mask_size} does not fit {prefix}: it must be from {} to {}", .prefix.prefix_len(), .prefix.max_prefix_len())]
    MaskSize {
        /// Size of a node's prefix.
        mask_size: u8,
        /// The pool.
        prefix: IpNet,
    },
    /// Two pools overlap.
    #[error("{0} and {1} overlap")]
    Overlap(IpNet, IpNet),
}

impl Pools {
    /// Pools from which each node gets one prefix of the given size.
    ///
    /// # Errors
    /// When the size does not fit a pool, or pools overlap.
    pub fn new(prefixes: &[IpNet], mask_size: u8) -> Result<Self, PoolsError> {
        let prefixes: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        for (i, prefix) in prefixes.iter().enumerate() {
            if !(prefix.prefix_len()..=prefix.max_prefix_len()).contains(&mask_size) {
                return Err(PoolsError::MaskSize { mask_size, prefix: *prefix });
            }
            if let Some(other) = prefixes.iter().take(i).find(|other| overlap(other, prefix)) {
                return Err(PoolsError::Overlap(*other, *prefix));
            }
        }
        Ok(Self { prefixes, mask_size })
    }
}

impl fmt::Display for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for prefix in &self.prefixes {
            write!(f, "{prefix} ")?;
        }
        write!(f, "(/{} for each node)", self.mask_size)
    }
}

/// A node and its pod CIDRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCidrs {
    pub name: String,
    /// Its rank by age, such as its creation time: of two that overlap, the one that was valid before stays valid,
    /// otherwise the older one.
    pub age: String,
    pub pod_cidrs: Vec<IpNet>,
}

/// The decision about a node's pod CIDRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They are fine.
    Keep,
    /// It gets these: those it has, and new ones.
    Assign(Vec<IpNet>),
    /// Why it gets none. Nothing is changed.
    Refuse(String),
}

/// Assigns pod CIDRs to nodes.
#[derive(Debug)]
pub struct Allocator {
    families: Vec<Pools>,
    /// Assignments that have not been observed on their nodes yet.
    given: BTreeMap<String, Vec<IpNet>>,
    /// What was valid last time: a newcomer does not invalidate it.
    settled: BTreeMap<String, Vec<IpNet>>,
    /// Former prefixes of nodes that are gone.
    former: Former,
    rest: Duration,
    /// When to resolve again even if nothing changes.
    due: Option<Instant>,
}

impl Allocator {
    /// An allocator of one prefix per node and family. Prefixes of a node that is gone are not reassigned for `rest`:
    /// its pods may still run, and it may come back.
    #[must_use]
    pub fn new(families: Vec<Pools>, rest: Duration) -> Self {
        let (given, settled, former) = (BTreeMap::new(), BTreeMap::new(), Former::default());
        Self { families, given, settled, former, rest, due: None }
    }

    /// When to resolve again even if nothing changes: a node was refused a prefix that can be assigned then.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Decides for all nodes of the cluster, each as last seen.
    pub fn resolve(&mut self, nodes: &[NodeCidrs], now: Instant) -> BTreeMap<String, Decision> {
        let mut nodes: Vec<&NodeCidrs> = nodes.iter().collect();
        let settled = std::mem::take(&mut self.settled);
        let is_new = |node: &NodeCidrs| {
            let before = settled.get(&node.name);
            !before.is_some_and(|before| node.pod_cidrs.iter().all(|cidr| before.contains(cidr)))
        };
        nodes.sort_by_cached_key(|node| (is_new(node), node.age.clone(), node.name.clone()));
        let present: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        self.given.retain(|name, _| present.contains(name.as_str()));
        for (name, cidrs) in &settled {
            if !present.contains(name.as_str()) {
                self.former.add(name.clone(), cidrs.clone(), now);
            }
        }

        let mut taken = Ranges::default();
        let mut decisions = BTreeMap::new();
        let mut wanting = Vec::new();
        for node in nodes {
            let have = self.have(node);
            let conflict = have
                .iter()
                .find_map(|cidr| taken.overlapping(cidr).map(|(other, owner)| (*cidr, other, owner.to_owned())));
            for cidr in &have {
                taken.insert(*cidr, &node.name);
            }
            if let Some((cidr, other, owner)) = conflict {
                let reason =
                    format!("pod CIDR {cidr} overlaps {other} of node {owner}: delete one of the two CiliumNodes");
                self.given.remove(&node.name);
                decisions.insert(node.name.clone(), Decision::Refuse(reason));
            } else {
                wanting.push((node, have));
            }
        }
        // Only now is it known what is free. Returning nodes come first.
        for (node, have) in wanting.iter_mut().filter(|(_, have)| have.is_empty()) {
            *have = self.former.of(&node.name, &taken);
            have.iter().for_each(|cidr| taken.insert(*cidr, &node.name));
        }
        let mut avoid = Avoid { former: self.former.ranges(), resting: self.former.resting(self.rest, now) };
        let mut exhausted = false;
        for (node, have) in wanting {
            let decision = self.decide(node, have, &mut taken, &mut avoid);
            exhausted |= matches!(decision, Decision::Refuse(_));
            decisions.insert(node.name.clone(), decision);
        }
        self.former.forget_taken(&taken);
        self.due = self.former.next_rested(self.rest, now).filter(|_| exhausted);
        decisions
    }

    /// Forgets a node's assignment because it could not be written.
    pub fn forget(&mut self, node: &str) {
        self.given.remove(node);
    }

    fn have(&mut self, node: &NodeCidrs) -> Vec<IpNet> {
        if let Some(given) = self.given.get(&node.name) {
            if !given.iter().all(|cidr| node.pod_cidrs.contains(cidr))
                && node.pod_cidrs.iter().all(|c| given.contains(c))
            {
                return given.clone();
            }
            self.given.remove(&node.name);
        }
        node.pod_cidrs.iter().map(IpNet::trunc).collect()
    }

    fn decide(&mut self, node: &NodeCidrs, have: Vec<IpNet>, taken: &mut Ranges, avoid: &mut Avoid) -> Decision {
        let mut all = have;
        for pools in &self.families {
            if all.iter().any(|cidr| pools.prefixes.iter().any(|p| same_family(p, cidr))) {
                continue;
            }
            match self.free(pools, taken, avoid) {
                Some(cidr) => {
                    taken.insert(cidr, &node.name);
                    all.push(cidr);
                }
                None => return Decision::Refuse(format!("the cluster's pool {pools} is exhausted: no prefix is left")),
            }
        }
        self.settled.insert(node.name.clone(), all.clone());
        if all == node.pod_cidrs {
            return Decision::Keep;
        }
        self.given.insert(node.name.clone(), all.clone());
        Decision::Assign(all)
    }

    /// A free prefix, preferably one that no node had before.
    fn free(&self, pools: &Pools, taken: &Ranges, avoid: &mut Avoid) -> Option<IpNet> {
        let Pools { prefixes, mask_size } = pools;
        if let Some(unused) = prefixes.iter().find_map(|pool| taken.free(*pool, *mask_size, &mut avoid.former)) {
            return Some(unused);
        }
        let oldest = prefixes.iter().find_map(|pool| self.former.oldest(pool, *mask_size, [taken, &avoid.resting]));
        oldest.or_else(|| prefixes.iter().find_map(|pool| taken.free(*pool, *mask_size, &mut avoid.resting)))
    }
}

/// Free prefixes that are held back.
struct Avoid {
    /// As long as there is an alternative.
    former: Ranges,
    /// Unconditionally.
    resting: Ranges,
}

fn same_family(a: &IpNet, b: &IpNet) -> bool {
    a.addr().is_ipv4() == b.addr().is_ipv4()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests;
