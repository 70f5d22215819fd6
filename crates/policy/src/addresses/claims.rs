// SPDX-License-Identifier: Apache-2.0
//! Who claims which prefix. There may be several claims, for instance by the stale object of a deleted pod and by the
//! pod that got its address. This node's own knowledge wins over Kubernetes', and that over policies; among equals the
//! latest wins.

use ipnet::IpNet;
use model::{EndpointId, IpEntry, IpSource, MeshPod, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// A source of claims.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimant {
    /// A prefix exempt from masquerading; if a policy names it as well, both claim the same.
    Native(IpNet),
    /// A prefix with an identity.
    Prefix(IpNet),
    Node(NodeName),
    /// A pod, from its CiliumEndpoint.
    Pod(MeshPod),
    LocalNode,
    /// A pod of this node.
    Endpoint(EndpointId),
}

#[derive(Debug)]
struct Claim {
    claimant: Claimant,
    entry: IpEntry,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The latest claim last. Nearly every prefix has one, so lists rather than maps: with one entry, a map takes room
    /// for eleven.
    by_prefix: BTreeMap<IpNet, Vec<Claim>>,
    by_claimant: BTreeMap<Claimant, Box<[IpNet]>>,
    changed: BTreeSet<IpNet>,
}

impl Claims {
    /// Replaces everything a claimant claims.
    pub(super) fn set(&mut self, claimant: Claimant, entries: Vec<IpEntry>) {
        let new: BTreeSet<IpNet> = entries.iter().map(|entry| entry.prefix).collect();
        for gone in self.by_claimant.remove(&claimant).unwrap_or_default() {
            if !new.contains(&gone) {
                self.withdraw(&claimant, gone);
            }
        }
        for entry in entries {
            let claims = self.by_prefix.entry(entry.prefix).or_default();
            let present = claims.iter().position(|claim| claim.claimant == claimant);
            if present.and_then(|index| claims.get(index)).is_some_and(|claim| claim.entry == entry) {
                continue;
            }
            warn_of_rivals(&claimant, claims, entry.prefix);
            self.changed.insert(entry.prefix);
            present.into_iter().for_each(|index| drop(claims.remove(index)));
            claims.reserve_exact(1);
            claims.push(Claim { claimant: claimant.clone(), entry });
        }
        if !new.is_empty() {
            self.by_claimant.insert(claimant, new.into_iter().collect());
        }
    }

    fn withdraw(&mut self, claimant: &Claimant, prefix: IpNet) {
        if let Some(claims) = self.by_prefix.get_mut(&prefix) {
            claims.retain(|claim| claim.claimant != *claimant);
            if claims.is_empty() {
                self.by_prefix.remove(&prefix);
            }
            self.changed.insert(prefix);
        }
    }

    pub(super) fn changes(&mut self) -> Vec<(IpNet, Option<IpEntry>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|prefix| (prefix, self.winner(&prefix))).collect()
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = IpEntry> {
        self.by_prefix.keys().filter_map(|prefix| self.winner(prefix))
    }

    fn winner(&self, prefix: &IpNet) -> Option<IpEntry> {
        // Of several that count most, it is the last one.
        self.by_prefix.get(prefix)?.iter().max_by_key(|claim| claim.entry.source).map(|claim| claim.entry.clone())
    }
}

fn warn_of_rivals(claimant: &Claimant, others: &[Claim], address: IpNet) {
    let Claimant::Node(node) = claimant else { return };
    for other in others {
        match &other.claimant {
            Claimant::Node(other) if other != node => {
                tracing::warn!(%node, %other, %address, "two nodes claim the same address; the newer one wins");
            }
            Claimant::LocalNode => {
                tracing::warn!(%node, %address, "another node claims an address of this node; ignoring the claim")
            }
            _ => {}
        }
    }
}

/// The order of precedence.
const _: () = {
    assert!((IpSource::Generated as u8) < (IpSource::CustomResource as u8));
    assert!((IpSource::CustomResource as u8) < (IpSource::Local as u8));
};
