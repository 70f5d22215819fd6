// SPDX-License-Identifier: Apache-2.0
//! The pools: which ones may be allocated from, which of their addresses are free, and which pools conflict.

use super::former::{Former, Seniority};
use super::occupancy::Occupancy;
use crate::cluster::Use;
use crate::pool::{Block, Pool, Spec};
use crate::range::{AddressSet, Family, Range};
use crate::selector::{Label, Subject};
use crate::status::{Counts, PoolUpdate, said_of_conflict, said_of_faults};
use k8s::k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) type PoolName = Arc<str>;

/// A pool and the state of its addresses.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) pool: Pool,
    /// The overlap because of which it is closed; the other pool is older.
    pub(super) conflict: Option<String>,
    /// Never given out: reserved ends of prefixes, and addresses that the cluster itself uses.
    withheld: AddressSet,
    /// The addresses in it that the cluster itself uses, each with the block that has them.
    overlaps: Vec<String>,
    /// Free, and never owned.
    fresh: AddressSet,
    /// Free, by when the last owner gave them back.
    rested: BTreeMap<Seniority, IpAddr>,
    /// How many are owned.
    used: usize,
}

impl PoolState {
    fn new(pool: Pool) -> Self {
        Self {
            pool,
            conflict: None,
            withheld: AddressSet::default(),
            overlaps: Vec::new(),
            fresh: AddressSet::default(),
            rested: BTreeMap::new(),
            used: 0,
        }
    }

    fn spec(&self) -> &Spec {
        &self.pool.spec
    }

    /// Whether it may be allocated from.
    pub(super) fn is_open(&self) -> bool {
        !self.spec().disabled && self.conflict.is_none()
    }

    /// Whether it is for that Service. An unreadable selector matches none.
    pub(super) fn selects(&self, subject: Subject<'_>) -> bool {
        self.spec().selector.as_ref().is_some_and(|selector| selector.selects(subject))
    }

    /// Whether the Service may keep an address of it. An unreadable selector takes nothing away.
    pub(super) fn tolerates(&self, subject: Subject<'_>) -> bool {
        self.spec().selector.as_ref().is_none_or(|selector| selector.selects(subject))
    }

    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.spec().blocks.iter().any(|block| block.range.contains(address))
    }

    /// Whether the address is never given out.
    pub(super) fn withholds(&self, address: IpAddr) -> bool {
        self.withheld.contains(address)
    }

    /// Whether it has addresses of a family, owned or not.
    pub(super) fn has(&self, family: Family) -> bool {
        self.spec().blocks.iter().any(|block| Family::of(block.range.first) == family)
    }

    /// The next address of a family to give out: the lowest that was never owned, or else the one that was given back first.
    pub(super) fn next(&self, family: Family) -> Option<IpAddr> {
        let rested = || self.rested.values().copied().find(|address| Family::of(*address) == family);
        self.fresh.first(family).or_else(rested)
    }

    pub(super) fn counts(&self) -> Counts {
        let available = self.fresh.count().saturating_add(self.rested.len() as u128);
        Counts { used: self.used, available }
    }

    pub(super) fn update(&self, now: Timestamp) -> Option<PoolUpdate> {
        let said = [said_of_conflict(self.conflict.as_deref()), said_of_faults(&self.spec().faults, &self.overlaps)];
        PoolUpdate::of(&self.pool, said, self.counts(), now)
    }

    fn rebuild(&mut self, former: &Former, occupancy: &Occupancy, cluster: &Cluster) {
        let spec = self.pool.spec.clone();
        (self.withheld, self.overlaps) = (AddressSet::default(), Vec::new());
        for Block { range, .. } in spec.blocks.iter().filter(|block| block.spares_ends) {
            [range.first, range.last].into_iter().for_each(|end| self.withheld.insert(Range::one(end)));
        }
        for used in cluster.values().flatten() {
            let Some(block) = overlapped(&spec, used) else { continue };
            self.withheld.insert(used.range);
            self.overlaps.push(format!("{}: holds {}", block.field(), used.what));
        }
        (self.fresh, self.rested) = (AddressSet::default(), BTreeMap::new());
        let mut used = BTreeSet::new();
        for Block { range, .. } in &spec.blocks {
            self.fresh.insert(*range);
            self.rested.extend(former.range(range.first, range.last).map(|(address, seniority)| (seniority, address)));
            used.extend(occupancy.within(*range));
        }
        self.used = used.len();
        self.rested.retain(|_, rested| !self.withheld.contains(*rested));
        let unavailable = used.into_iter().chain(self.rested.values().copied()).map(Range::one);
        unavailable.chain(self.withheld.ranges()).for_each(|range| self.fresh.remove(range));
    }
}

/// Addresses in use by the cluster itself, by owner.
pub(super) type Cluster = BTreeMap<Arc<str>, Vec<Use>>;

/// The first block that has some of what is used.
pub(super) fn overlapped<'a>(spec: &'a Spec, used: &Use) -> Option<&'a Block> {
    spec.blocks.iter().find(|block| block.range.overlaps(&used.range))
}

/// All pools.
#[derive(Debug, Default)]
pub(super) struct Pools {
    pools: BTreeMap<PoolName, PoolState>,
    /// The blocks of the pools that do not conflict, by first address.
    blocks: BTreeMap<IpAddr, (Block, PoolName)>,
    /// The pools that conflict.
    conflicting: BTreeSet<PoolName>,
    /// Pools by a label that all their Services must have; under `None` those that require none.
    by_label: BTreeMap<Option<Label>, BTreeSet<PoolName>>,
}

impl Pools {
    pub(super) fn get(&self, name: &str) -> Option<&PoolState> {
        self.pools.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PoolState> {
        self.pools.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// Whether any pool has an unreadable block: an address outside all pools may belong to it.
    pub(super) fn any_unreadable(&self) -> bool {
        self.pools.values().any(|state| state.spec().unreadable)
    }

    /// Adds or updates a pool. Returns the old one if it differed in more than its status.
    pub(super) fn set(&mut self, pool: Pool) -> Option<Option<Arc<Spec>>> {
        let before = self.pools.get_mut(&pool.name);
        if let Some(state) = before {
            let same = state.pool.spec == pool.spec && state.pool.created == pool.created;
            let former = std::mem::replace(&mut state.pool, pool);
            if same {
                return None;
            }
            let name = former.name.clone();
            self.unindex(&former);
            self.index(&name);
            return Some(Some(former.spec));
        }
        let name = pool.name.clone();
        self.pools.insert(name.clone(), PoolState::new(pool));
        self.index(&name);
        Some(None)
    }

    /// Removes a pool and returns it.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Spec>> {
        let state = self.pools.remove(name)?;
        self.unindex(&state.pool);
        Some(state.pool.spec)
    }

    fn index(&mut self, name: &PoolName) {
        if let Some(state) = self.pools.get(name) {
            let label = state.spec().selector.as_ref().and_then(|selector| selector.required_label());
            self.by_label.entry(label).or_default().insert(name.clone());
        }
    }

    fn unindex(&mut self, pool: &Pool) {
        let label = pool.spec.selector.as_ref().and_then(|selector| selector.required_label());
        if let Some(names) = self.by_label.get_mut(&label) {
            names.remove(&pool.name);
            if names.is_empty() {
                self.by_label.remove(&label);
            }
        }
    }

    /// Decides which pools conflict: of two that overlap the younger one, unless the older conflicts itself. Returns those for
    /// which this has changed.
    pub(super) fn settle_conflicts(&mut self) -> Vec<PoolName> {
        self.blocks.clear();
        self.conflicting.clear();
        let mut order: Vec<_> =
            self.pools.values().map(|state| (state.pool.created, state.pool.name.clone())).collect();
        order.sort();
        let mut changed = Vec::new();
        for (_, name) in order {
            let Some(state) = self.pools.get_mut(&name) else { continue };
            let conflict = conflict(&state.pool, &self.blocks);
            if conflict.is_some() {
                self.conflicting.insert(name.clone());
            } else {
                let blocks = state.pool.spec.blocks.iter();
                self.blocks.extend(blocks.map(|block| (block.range.first, (block.clone(), name.clone()))));
            }
            if state.conflict != conflict {
                state.conflict = conflict;
                changed.push(name);
            }
        }
        changed
    }

    /// Recomputes the free addresses of a pool.
    pub(super) fn rebuild(&mut self, name: &str, former: &Former, occupancy: &Occupancy, cluster: &Cluster) {
        if let Some(state) = self.pools.get_mut(name) {
            state.rebuild(former, occupancy, cluster);
        }
    }

    /// The pools an address belongs to: more than one only while they conflict.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = &PoolState> {
        let names = self.names_of(address);
        names.into_iter().filter_map(|name| self.pools.get(&name))
    }

    pub(super) fn names_of(&self, address: IpAddr) -> Vec<PoolName> {
        let block = self.blocks.range(..=address).next_back();
        let settled = block.filter(|(_, (block, _))| block.range.contains(address)).map(|(_, (_, name))| name.clone());
        let holds = |name: &&PoolName| self.pools.get(*name).is_some_and(|state| state.holds(address));
        settled.into_iter().chain(self.conflicting.iter().filter(holds).cloned()).collect()
    }

    /// The open pools for a Service, by name.
    pub(super) fn for_service(&self, subject: Subject<'_>) -> impl Iterator<Item = &PoolState> {
        let labels = std::iter::once(None).chain(subject.labels().map(Some));
        let names: BTreeSet<&PoolName> = labels.filter_map(|label| self.by_label.get(&label)).flatten().collect();
        let states = names.into_iter().filter_map(|name| self.pools.get(name));
        states.filter(move |state| state.is_open() && state.selects(subject))
    }

    /// Records that an address is owned.
    pub(super) fn take(&mut self, address: IpAddr, seniority: Option<Seniority>) {
        for name in self.names_of(address) {
            if let Some(state) = self.pools.get_mut(&name) {
                state.fresh.remove(Range::one(address));
                seniority.and_then(|seniority| state.rested.remove(&seniority));
                state.used += 1;
            }
        }
    }

    /// Records that an address is no longer owned; with a seniority, it is held back.
    pub(super) fn give_back(&mut self, address: IpAddr, seniority: Option<Seniority>) {
        for name in self.names_of(address) {
            let Some(state) = self.pools.get_mut(&name) else { continue };
            state.used = state.used.saturating_sub(1);
            if state.withholds(address) {
                continue;
            }
            match seniority {
                Some(seniority) => drop(state.rested.insert(seniority, address)),
                None => state.fresh.insert(Range::one(address)),
            }
        }
    }

    /// Stops holding an address back: it may be given out like any other.
    pub(super) fn refresh(&mut self, address: IpAddr) {
        for name in self.names_of(address) {
            if let Some(state) = self.pools.get_mut(&name) {
                state.rested.retain(|_, rested| *rested != address);
                if !state.withholds(address) {
                    state.fresh.insert(Range::one(address));
                }
            }
        }
    }
}

/// What a pool overlaps: a block of its own, or one of another pool.
fn conflict(pool: &Pool, others: &BTreeMap<IpAddr, (Block, PoolName)>) -> Option<String> {
    let mut own: Vec<&Block> = pool.spec.blocks.iter().collect();
    own.sort_by_key(|block| block.range);
    let twice = own.iter().zip(own.iter().skip(1)).find(|(block, next)| block.range.overlaps(&next.range));
    if let Some((block, next)) = twice {
        return Some(format!("{}: {block} overlaps {}, {next} of the same pool", block.field(), next.field()));
    }
    own.into_iter().find_map(|block| {
        // They do not overlap each other, so only the last one that begins before the end can overlap.
        let (_, (other, name)) = others.range(..=block.range.last).next_back()?;
        let overlap = other.range.overlaps(&block.range);
        let theirs = || format!("{}, {other} of CiliumLoadBalancerIPPool {name}", other.field());
        overlap.then(|| format!("{}: {block} overlaps {}", block.field(), theirs()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_that_nobody_remembers_is_given_out_like_any_other() {
        let spec = json!({"blocks": [{"cidr": "10.0.0.0/29"}], "allowFirstLastIPs": "No"});
        let object = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let mut pools = Pools::default();
        pools.set(Pool::ingest(&object).unwrap());
        pools.settle_conflicts();
        pools.rebuild("p", &Former::default(), &Occupancy::default(), &Cluster::new());
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let seen = |pools: &Pools| {
            let state = pools.get("p").unwrap();
            (state.next(Family::V4), state.counts())
        };
        (1..=2).for_each(|n| pools.take(ip(n), None));
        pools.give_back(ip(1), Some(7));
        let counts = Counts { used: 1, available: 5 };
        assert_eq!(seen(&pools), (Some(ip(3)), counts), "it is held back");
        pools.refresh(ip(1));
        assert_eq!(seen(&pools), (Some(ip(1)), counts));
        // The first one of the block is nobody's.
        pools.refresh(ip(0));
        assert_eq!(seen(&pools), (Some(ip(1)), counts));
    }
}
