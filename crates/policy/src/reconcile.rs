// SPDX-License-Identifier: Apache-2.0
//! Writes compiled policies to the kernel, touching only the entries that differ. When verdicts may shrink, the epochs
//! of the policy's pods are bumped after the entries have changed, so that live connections are decided again.

use crate::resolve::{CompiledPolicy, Entries, EntryKey};
use abi::maps::{Endpoints, Policies};
use abi::policy::PolicyEntry;
use datapath::{Epochs, Kernel, Result, Trie};
use imbl::ordmap::DiffItem;
use model::{EndpointId, PolicyId};
use statedb::{Snapshot, Target};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Debug)]
pub(crate) struct PolicyTarget {
    policies: Trie<Policies>,
    epochs: Epochs,
    /// What the kernel has.
    present: BTreeMap<PolicyId, Entries>,
    /// Policies whose verdicts may have shrunk and whose pods' epochs have not been bumped yet.
    bump_due: BTreeSet<PolicyId>,
}

/// The steps for one policy, in order: at no point is anything allowed that neither the old nor the new policy allows,
/// or denied that both allow.
#[derive(Debug, Default)]
struct Plan {
    denies: Vec<(EntryKey, PolicyEntry)>,
    allows: Vec<(EntryKey, PolicyEntry)>,
    withdrawn_allows: Vec<EntryKey>,
    withdrawn_denies: Vec<EntryKey>,
    shrinks: bool,
}

impl Plan {
    fn between(old: &Entries, new: &Entries) -> Self {
        let mut plan = Self::default();
        for item in old.diff(new) {
            match item {
                DiffItem::Add(key, entry) => plan.put(*key, *entry, None),
                DiffItem::Update { old: (_, old), new: (key, entry) } => plan.put(*key, *entry, Some(old)),
                DiffItem::Remove(key, entry) if entry.deny == 1 => plan.withdrawn_denies.push(*key),
                DiffItem::Remove(key, _) => {
                    plan.withdrawn_allows.push(*key);
                    plan.shrinks = true;
                }
            }
        }
        plan
    }

    fn put(&mut self, key: EntryKey, entry: PolicyEntry, old: Option<&PolicyEntry>) {
        let verdict = |entry: &PolicyEntry| (entry.deny, entry.proxy_port);
        // A different rule behind the same verdict changes nothing, and a plain allow only adds.
        let same = old.is_some_and(|old| verdict(old) == verdict(&entry));
        let plain_allow = entry.deny == 0 && entry.proxy_port == 0;
        self.shrinks |= !same && !plain_allow;
        if entry.deny == 1 { self.denies.push((key, entry)) } else { self.allows.push((key, entry)) }
    }
}

impl PolicyTarget {
    /// Opens the maps and reads their contents.
    pub(crate) fn open<K: Kernel>(kernel: &K, epochs: Epochs) -> Result<Self> {
        let policies = kernel.trie()?;
        let present = read(&policies)?;
        Ok(Self { policies, epochs, present, bump_due: BTreeSet::new() })
    }

    /// The policies that the kernel has.
    pub(crate) const fn present(&self) -> &BTreeMap<PolicyId, Entries> {
        &self.present
    }

    /// Remove what was withdrawn even if some additions failed, perhaps for lack of space: that frees space, and allows
    /// no more than desired as long as all new denies are in place.
    fn apply(&mut self, policy: PolicyId, plan: &Plan) -> Result<()> {
        let denied = self.put(policy, &plan.denies);
        let allowed = if denied.is_ok() { self.put(policy, &plan.allows) } else { Ok(()) };
        let mut withdrawn = self.withdraw(policy, &plan.withdrawn_allows);
        if denied.is_ok() && withdrawn.is_ok() {
            withdrawn = self.withdraw(policy, &plan.withdrawn_denies);
        }
        if self.present.get(&policy).is_some_and(|entries| entries.is_empty()) {
            self.present.remove(&policy);
        }
        denied.and(allowed).and(withdrawn)
    }

    fn put(&mut self, policy: PolicyId, entries: &[(EntryKey, PolicyEntry)]) -> Result<()> {
        let present = self.present.entry(policy).or_default();
        for (key, entry) in entries {
            self.policies.insert(&key.of_policy(policy), entry)?;
            present.insert(*key, *entry);
        }
        Ok(())
    }

    fn withdraw(&mut self, policy: PolicyId, keys: &[EntryKey]) -> Result<()> {
        let present = self.present.entry(policy).or_default();
        for key in keys {
            self.policies.remove(&key.of_policy(policy))?;
            present.remove(key);
        }
        Ok(())
    }

    fn bump(&mut self, policy: PolicyId, endpoints: &[EndpointId]) -> Result<()> {
        if self.bump_due.contains(&policy) {
            endpoints.iter().try_for_each(|id| self.epochs.bump_endpoint(id.0).map(drop))?;
            self.bump_due.remove(&policy);
        }
        Ok(())
    }
}

/// All that the kernel has: a system call per entry, or nearly so.
fn read(policies: &Trie<Policies>) -> Result<BTreeMap<PolicyId, Entries>> {
    let mut present: BTreeMap<PolicyId, Entries> = BTreeMap::new();
    for (key, entry) in policies.entries()? {
        match EntryKey::from_kernel(&key) {
            Some((policy, key)) => drop(present.entry(policy).or_default().insert(key, entry)),
            // Such a key is never looked up.
            None => drop(policies.remove(&key)?),
        }
    }
    Ok(present)
}

/// The policy and identity under which the kernel knows each pod.
pub(crate) fn known_endpoints<K: Kernel>(kernel: &K) -> Result<BTreeMap<EndpointId, (PolicyId, model::IdentityId)>> {
    let entries = kernel.map::<Endpoints>()?.entries()?.into_iter();
    let known = entries.map(|(_, e)| (EndpointId(e.id), (PolicyId(e.policy), model::IdentityId(e.identity))));
    Ok(known.collect())
}

impl Target<CompiledPolicy> for PolicyTarget {
    type Error = datapath::Error;

    async fn update(&mut self, row: &CompiledPolicy) -> Result<()> {
        let nothing = Entries::new();
        let plan = Plan::between(self.present.get(&row.id).unwrap_or(&nothing), &row.entries);
        if plan.shrinks {
            self.bump_due.insert(row.id);
        }
        let applied = self.apply(row.id, &plan);
        // Even after a failure: what has been done counts.
        let bumped = self.bump(row.id, &row.endpoints);
        if applied.is_err() && plan.shrinks {
            self.bump_due.insert(row.id);
        }
        applied.and(bumped)
    }

    async fn delete(&mut self, id: &PolicyId) -> Result<()> {
        self.bump_due.remove(id);
        let nothing = Entries::new();
        let plan = Plan::between(self.present.get(id).unwrap_or(&nothing), &nothing);
        self.apply(*id, &plan)
    }

    async fn prune(&mut self, desired: &Snapshot<CompiledPolicy>) -> Result<()> {
        let policies = self.policies.clone();
        self.present = statedb::blocking(move || read(&policies)).await?;
        let superfluous = self.present.keys().filter(|id| desired.get(*id).is_none());
        for id in superfluous.copied().collect::<Vec<_>>() {
            self.delete(&id).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
