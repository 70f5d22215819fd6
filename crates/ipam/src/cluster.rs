// SPDX-License-Identifier: Apache-2.0
//! Pod CIDRs of nodes, cut out of the cluster's pools (`ipam: cluster-pool`, the operator's side).

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
    /// Pools out of which each node gets one prefix of the given size.
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

/// A node and the pod CIDRs that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCidrs {
    /// Name.
    pub name: String,
    /// Its place among the nodes by age, such as its creation time: where two overlap, the one that was right before is
    /// right, or else the older.
    pub age: String,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<IpNet>,
}

/// What is to become of a node's pod CIDRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They are right.
    Keep,
    /// It is to have these: those that it has, and new ones.
    Assign(Vec<IpNet>),
    /// Why it gets none. Nothing of it is to be changed.
    Refuse(String),
}

/// Gives each node its pod CIDRs.
#[derive(Debug)]
pub struct Allocator {
    families: Vec<Pools>,
    /// What was given to nodes that have not been seen with it yet.
    given: BTreeMap<String, Vec<IpNet>>,
    /// What was found right the last time: a newcomer does not make it wrong.
    settled: BTreeMap<String, Vec<IpNet>>,
    /// What nodes had that are gone.
    former: Former,
    rest: Duration,
    /// When it is to be resolved again though nothing has changed.
    due: Option<Instant>,
}

impl Allocator {
    /// An allocator of one prefix per node and family. What a node had that is gone is not given to another for as long as
    /// `rest`: its pods may still run, and it may come back.
    #[must_use]
    pub fn new(families: Vec<Pools>, rest: Duration) -> Self {
        let (given, settled, former) = (BTreeMap::new(), BTreeMap::new(), Former::default());
        Self { families, given, settled, former, rest, due: None }
    }

    /// When to resolve again though nothing has changed: a node was refused a prefix that may be given then.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Decides for all nodes of the cluster, each given as it was last seen.
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
        // Only now is it known what is free. Who comes back comes first.
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

    /// Forgets what was given to a node because it could not be written.
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

    /// A prefix that nobody has and, if there is one, that nobody had.
    fn free(&self, pools: &Pools, taken: &Ranges, avoid: &mut Avoid) -> Option<IpNet> {
        let Pools { prefixes, mask_size } = pools;
        if let Some(unused) = prefixes.iter().find_map(|pool| taken.free(*pool, *mask_size, &mut avoid.former)) {
            return Some(unused);
        }
        let oldest = prefixes.iter().find_map(|pool| self.former.oldest(pool, *mask_size, [taken, &avoid.resting]));
        oldest.or_else(|| prefixes.iter().find_map(|pool| taken.free(*pool, *mask_size, &mut avoid.resting)))
    }
}

/// What is not to be given though nobody has it.
struct Avoid {
    /// While there is anything else.
    former: Ranges,
    /// At all.
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
