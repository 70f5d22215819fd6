// SPDX-License-Identifier: Apache-2.0
//! From policies, identities and local pods to compiled policies. Pure: no I/O and no clock.
//!
//! [`Engine`] takes changes one by one and recomputes at [`settle`](Engine::settle) only what they affect: for a
//! changed policy the pods it selects, for a changed identity the entries of that one peer. The result does not depend
//! on the order of changes, which a property test asserts.

mod cidr;
mod compiled;
mod entries;
mod load;
mod named_ports;
mod provenance;
mod subject;

use crate::ingest::CidrGroup;
use crate::rules::{Direction, Effect, L4, NonEmpty, Policy, PolicyName};
use crate::selectors::{self, SelectorCache, SelectorId};
use cidr::CidrIdentities;
use ipnet::IpNet;
use load::Loaded;
use model::{EndpointId, Identity, IdentityId, MeshPod, PolicyId, Provenance, ProvenanceId, RemoteEndpoint, reserved};
use named_ports::NamedPorts;
use provenance::Provenances;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use subject::Subject;

pub use cidr::Families;
pub use compiled::CompiledPolicy;
pub(crate) use entries::ANY;
pub use entries::{Entries, EntryKey};
pub(crate) use subject::SubjectKey;

/// When policy is enforced (`enable-policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// For pods that a policy selects.
    #[default]
    Default,
    /// For all pods: whatever no policy allows is denied.
    Always,
    /// For none.
    Never,
}

/// A statement of a policy, ready to be compiled.
#[derive(Debug, PartialEq, Eq)]
struct Statement {
    direction: Direction,
    effect: Effect,
    /// `None` for anybody.
    peers: Option<Vec<SelectorId>>,
    ports: Option<NonEmpty<L4>>,
    provenance: ProvenanceId,
}

/// What must be recomputed.
#[derive(Debug)]
enum Dirty {
    All,
    Peers(BTreeSet<IdentityId>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    mode: Enforcement,
    selectors: SelectorCache,
    cidrs: CidrIdentities,
    named_ports: NamedPorts,
    groups: BTreeMap<Arc<str>, CidrGroup>,
    /// Addresses of API servers.
    api_servers: BTreeSet<IpNet>,
    policies: BTreeMap<PolicyName, Loaded>,
    provenances: Provenances,
    subjects: BTreeMap<SubjectKey, Subject>,
    endpoints: BTreeMap<EndpointId, SubjectKey>,
    dirty: BTreeMap<SubjectKey, Dirty>,
    /// Identities added, removed or changed since they were last collected.
    changed_identities: BTreeSet<IdentityId>,
    next_policy: u32,
    revision: u64,
}

impl Engine {
    /// Starts without policies and pods, but with the reserved identities and the state from before: the identities of
    /// prefixes and the highest id of a compiled policy.
    #[must_use]
    pub(crate) fn new(
        mode: Enforcement,
        families: Families,
        prefixes: impl IntoIterator<Item = (IpNet, IdentityId)>,
        last_policy: PolicyId,
    ) -> Self {
        let mut selectors = SelectorCache::default();
        let mut changed_identities = BTreeSet::new();
        for Identity { id, labels } in reserved::all() {
            selectors.upsert(id, selectors::Subject { labels, prefix: families.prefix_of(id) });
            changed_identities.insert(id);
        }
        Self {
            mode,
            selectors,
            cidrs: CidrIdentities::new(families, prefixes),
            named_ports: NamedPorts::default(),
            groups: BTreeMap::new(),
            api_servers: BTreeSet::new(),
            policies: BTreeMap::new(),
            provenances: Provenances::default(),
            subjects: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            dirty: BTreeMap::new(),
            changed_identities,
            next_policy: last_policy.0.wrapping_add(1).max(1),
            revision: 1,
        }
    }

    /// Adds an identity of the cluster.
    pub(crate) fn upsert_identity(&mut self, identity: &Identity) {
        let subject = selectors::Subject { labels: identity.labels.clone(), prefix: None };
        if self.selectors.identity(identity.id) == Some(&subject) {
            return;
        }
        for key in self.subjects.keys().filter(|key| key.identity == identity.id) {
            self.dirty.insert(key.clone(), Dirty::All);
        }
        let changed = self.selectors.upsert(identity.id, subject);
        self.changed_identities.insert(identity.id);
        self.members_changed(identity.id, &changed);
    }

    /// Removes an identity of the cluster. One that local pods have is kept: without its labels nobody could tell which
    /// policies select them.
    pub(crate) fn remove_identity(&mut self, id: IdentityId) {
        if self.subjects.keys().any(|key| key.identity == id) {
            return;
        }
        let changed = self.selectors.remove(id);
        self.changed_identities.insert(id);
        self.members_changed(id, &changed);
    }

    /// Identities added, removed or changed since the last call: reserved ones, those of the cluster and of prefixes.
    pub(crate) fn identity_changes(&mut self) -> Vec<(IdentityId, Option<Identity>)> {
        let row = |id| self.selectors.identity(id).map(|subject| Identity { id, labels: subject.labels.clone() });
        std::mem::take(&mut self.changed_identities).into_iter().map(|id| (id, row(id))).collect()
    }

    /// Adds or updates a policy.
    pub(crate) fn upsert_policy(&mut self, policy: Arc<Policy>) {
        self.revision += 1;
        // Load the new one first, so that what both use is not released in between.
        let loaded = self.load(policy);
        let name = loaded.policy.name.clone();
        self.selection_changed(&loaded);
        if let Some(old) = self.policies.insert(name.clone(), loaded) {
            self.selection_changed(&old);
            self.unload(&old);
        }
        let kept: BTreeSet<_> = self.policies.get(&name).into_iter().flat_map(Loaded::provenances).collect();
        self.provenances.retain(&name, &|id| kept.contains(&id));
    }

    pub(crate) fn remove_policy(&mut self, name: &PolicyName) {
        if let Some(old) = self.policies.remove(name) {
            self.revision += 1;
            self.selection_changed(&old);
            self.unload(&old);
            self.provenances.retain(name, &|_| false);
        }
    }

    /// Adds or updates a CIDR group.
    pub(crate) fn upsert_group(&mut self, group: CidrGroup) {
        let name = group.name.clone();
        self.groups.insert(name, group);
        self.reload_groups();
    }

    /// Removes a CIDR group.
    pub(crate) fn remove_group(&mut self, name: &str) {
        if self.groups.remove(name).is_some() {
            self.reload_groups();
        }
    }

    /// Sets the addresses of API servers, and whether one of them is this node's.
    pub(crate) fn set_api_servers(&mut self, addresses: &BTreeSet<IpAddr>, here: bool) {
        let new: BTreeSet<_> = addresses.iter().copied().map(IpNet::from).collect();
        let old = std::mem::replace(&mut self.api_servers, new.clone());
        new.difference(&old).for_each(|prefix| self.acquire_prefix(*prefix));
        old.difference(&new).for_each(|prefix| self.cidrs.release(prefix));
        for prefix in new.symmetric_difference(&old) {
            self.revision += 1;
            if let Some(id) = self.cidrs.get(prefix) {
                self.label_prefix(*prefix, id);
            }
        }
        let names = ["host", "kube-apiserver"].into_iter().take(if here { 2 } else { 1 });
        let labels = names.map(model::Label::reserved).collect();
        self.upsert_identity(&Identity { id: reserved::HOST, labels });
    }

    /// Adds or updates a pod of the cluster, for its named ports.
    pub(crate) fn upsert_pod(&mut self, pod: &RemoteEndpoint) {
        let changed = self.named_ports.upsert(pod);
        self.names_changed(&changed);
    }

    /// Removes a pod of the cluster.
    pub(crate) fn remove_pod(&mut self, pod: &MeshPod) {
        let changed = self.named_ports.remove(pod);
        self.names_changed(&changed);
    }

    /// Sets the identity of a pod on this node. `restored` is its compiled policy in the kernel.
    pub(crate) fn attach(&mut self, endpoint: EndpointId, key: SubjectKey, restored: Option<PolicyId>) {
        if self.endpoints.get(&endpoint) == Some(&key) {
            return;
        }
        self.detach(endpoint);
        if !self.subjects.contains_key(&key) {
            let taken = |id: PolicyId| self.subjects.values().any(|s| s.id == id);
            let id = restored.filter(|id| id.0 != 0 && !taken(*id)).unwrap_or_else(|| {
                let id = PolicyId(self.next_policy);
                self.next_policy = self.next_policy.wrapping_add(1).max(1);
                id
            });
            self.subjects.insert(key.clone(), Subject::new(id));
        }
        if let Some(subject) = self.subjects.get_mut(&key) {
            subject.endpoints.insert(endpoint);
        }
        self.dirty.insert(key.clone(), Dirty::All);
        self.endpoints.insert(endpoint, key);
    }

    /// Removes a pod of this node.
    pub(crate) fn detach(&mut self, endpoint: EndpointId) {
        let Some(key) = self.endpoints.remove(&endpoint) else { return };
        let Some(subject) = self.subjects.get_mut(&key) else { return };
        subject.endpoints.remove(&endpoint);
        if subject.endpoints.is_empty() {
            self.subjects.remove(&key);
        }
        self.dirty.insert(key, Dirty::All);
    }

    /// The compiled policy of a pod of this node.
    #[must_use]
    pub(crate) fn policy_of(&self, endpoint: EndpointId) -> Option<CompiledPolicy> {
        let key = self.endpoints.get(&endpoint)?;
        self.subjects.get(key).map(|subject| subject.row(key.identity))
    }

    /// Whether the labels of an identity are known.
    pub(crate) fn knows(&self, identity: IdentityId) -> bool {
        self.selectors.identity(identity).is_some()
    }

    /// Whether any pod of this node has the compiled policy with that id.
    #[must_use]
    pub(crate) fn has_policy(&self, id: PolicyId) -> bool {
        self.subjects.values().any(|subject| subject.id == id)
    }

    /// All compiled policies.
    #[cfg(test)]
    pub(crate) fn compiled(&self) -> impl Iterator<Item = CompiledPolicy> {
        self.subjects.iter().map(|(key, subject)| subject.row(key.identity))
    }

    /// The prefixes that policies name, with their identities.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (IpNet, IdentityId)> {
        self.cidrs.iter()
    }

    /// Whether there are prefixes to [`collect_prefixes`](Self::collect_prefixes).
    #[must_use]
    pub(crate) fn has_retired_prefixes(&self) -> bool {
        self.cidrs.has_retired()
    }

    /// Call once the ipcache no longer has the prefixes that no policy names: their identities end.
    pub(crate) fn collect_prefixes(&mut self) {
        for id in self.cidrs.collect() {
            self.remove_identity(id);
        }
    }

    /// Call once the ipcache holds nothing from before: numbers reserved for it become free.
    pub(crate) fn forget_restored_prefixes(&mut self) {
        self.cidrs.forget_restored();
    }

    /// The rules behind provenance ids.
    pub(crate) fn provenances(&self) -> impl Iterator<Item = &Provenance> {
        self.provenances.iter()
    }

    /// Policies in force.
    #[must_use]
    pub(crate) fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// Increases with each policy change.
    #[must_use]
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Recomputes what the changes since the last call affect. Returns the policies that may have changed.
    pub(crate) fn settle(&mut self) -> Vec<CompiledPolicy> {
        let mut settled = Vec::new();
        for (key, what) in std::mem::take(&mut self.dirty) {
            let Some(mut subject) = self.subjects.remove(&key) else { continue };
            match what {
                Dirty::All => self.compile(&key, &mut subject),
                Dirty::Peers(peers) => self.compile_peers(&key, &mut subject, &peers),
            }
            settled.push(subject.row(key.identity));
            self.subjects.insert(key, subject);
        }
        settled
    }

    /// An identity joined or left these selectors.
    fn members_changed(&mut self, id: IdentityId, changed: &BTreeSet<SelectorId>) {
        if changed.is_empty() {
            return;
        }
        for (key, subject) in &self.subjects {
            if subject.uses(changed) {
                mark(&mut self.dirty, key, [id]);
            }
        }
    }

    /// Named ports of these identities have changed.
    fn names_changed(&mut self, changed: &BTreeSet<IdentityId>) {
        for (key, subject) in &self.subjects {
            if !changed.is_empty() && subject.names_peer_ports() {
                mark(&mut self.dirty, key, changed.iter().copied());
            }
        }
    }

    /// A policy has begun or ceased to select some of the local pods.
    fn selection_changed(&mut self, policy: &Loaded) {
        for key in self.subjects.keys() {
            let labels = self.selectors.identity(key.identity).map(|subject| &subject.labels);
            if labels.is_some_and(|labels| policy.rules.iter().any(|rule| rule.subject.matches(labels))) {
                self.dirty.insert(key.clone(), Dirty::All);
            }
        }
    }
}

fn mark(dirty: &mut BTreeMap<SubjectKey, Dirty>, key: &SubjectKey, peers: impl IntoIterator<Item = IdentityId>) {
    match dirty.entry(key.clone()).or_insert_with(|| Dirty::Peers(BTreeSet::new())) {
        Dirty::All => {}
        Dirty::Peers(all) => all.extend(peers),
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
