// SPDX-License-Identifier: Apache-2.0
//! Publishes results to tables in an order that never exposes half of a change: policy entries before the ipcache has
//! their identities, and both before a pod gets its policy; in reverse when something ends.

use super::Run;
use crate::reconcile::known_endpoints;
use model::{EndpointPolicy, PolicyId};
use statedb::{Revision, State};

impl Run {
    /// Publishes the net effect of the changes since the last call.
    pub(super) async fn publish(&mut self) {
        let policies_changed = self.published_revision != self.engine.revision();
        self.publish_identities();
        let revision = self.publish_compiled();
        self.policy_status.attempted(revision).await;
        if policies_changed {
            self.publish_policies();
        }
        self.publish_addresses();
        if self.engine.has_retired_prefixes() {
            self.ipcache.attempted().await;
            self.engine.collect_prefixes();
            self.publish_identities();
            self.publish_compiled();
        }
        self.publish_endpoints();
        self.note_unseen();
        self.count();
    }

    fn publish_identities(&mut self) {
        for (id, identity) in self.engine.identity_changes() {
            match identity {
                Some(identity) => self.tables.identities.insert(identity),
                None => self.tables.identities.remove(&id),
            }
        }
        self.tables.identities.commit();
    }

    fn publish_compiled(&mut self) -> Revision {
        for row in self.engine.settle() {
            self.tables.compiled.insert(row);
        }
        self.tables.compiled.commit()
    }

    /// What accompanies the policies: the rules behind entries, and the prefixes in rules.
    fn publish_policies(&mut self) {
        self.published_revision = self.engine.revision();
        self.tables.provenance.replace(self.engine.provenances().cloned());
        self.tables.provenance.commit();
        self.addresses.set_prefixes(self.engine.prefixes());
    }

    fn publish_addresses(&mut self) {
        for (prefix, entry) in self.addresses.changes() {
            match entry {
                Some(entry) => self.entries.insert(entry),
                None => self.entries.remove(&prefix),
            }
        }
        self.entries.commit();
    }

    /// Gives pods their policy once its entries are in the kernel; until then they keep the previous one.
    pub(super) fn publish_endpoints(&mut self) {
        self.unsettled = false;
        for (endpoint, identity) in self.attached.clone() {
            let Some(row) = self.engine.policy_of(endpoint) else { continue };
            if self.is_installed(row.id) {
                self.tables.endpoints.insert(EndpointPolicy {
                    endpoint,
                    identity,
                    policy: row.id,
                    ingress_enforced: row.ingress_enforced,
                    egress_enforced: row.egress_enforced,
                    revision: self.engine.revision(),
                });
            } else {
                self.unsettled = true;
            }
        }
        let gone: Vec<_> = self.tables.endpoints.snapshot().iter().map(|row| row.endpoint).collect();
        for endpoint in gone.into_iter().filter(|id| !self.attached.contains_key(id)) {
            self.tables.endpoints.remove(&endpoint);
        }
        self.tables.endpoints.commit();
        self.retire();
    }

    fn is_installed(&self, policy: PolicyId) -> bool {
        let wanted = self.tables.compiled.snapshot().revision_of(&policy);
        self.policy_status
            .get(&policy)
            .is_some_and(|status| status.state == State::Done && wanted.is_some_and(|wanted| status.revision >= wanted))
    }

    /// Removes compiled policies that no pod has any more, once no program refers to them.
    pub(super) fn retire(&mut self) {
        let rows = self.tables.compiled.snapshot();
        let idle: Vec<_> = rows.iter().map(|row| row.id).filter(|id| !self.engine.has_policy(*id)).collect();
        self.retiring = !idle.is_empty();
        if !self.retiring {
            return;
        }
        let known = match known_endpoints(&self.kernel) {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(%error, "unused policies not removed yet");
                return;
            }
        };
        for id in idle.into_iter().filter(|id| !known.values().any(|(policy, _)| policy == id)) {
            self.tables.compiled.remove(&id);
        }
        self.tables.compiled.commit();
    }

    fn count(&self) {
        let metrics = &self.metrics;
        metrics.policies.set(self.engine.policy_count() as i64);
        metrics.rules.set(self.tables.provenance.snapshot().len() as i64);
        metrics.max_revision.set(self.engine.revision() as i64);
        metrics.waiting.set(self.waiting.len() as i64);
        let identities = self.tables.identities.snapshot();
        let (mut reserved, mut local) = (0, 0);
        for identity in identities.iter() {
            reserved += usize::from(identity.id.is_reserved());
            local += usize::from(identity.id.is_node_local());
        }
        metrics.show_identities([reserved, identities.len() - reserved - local, local]);
        let endpoints = self.tables.endpoints.snapshot();
        let mut enforcement = [0; 4];
        for row in endpoints.iter() {
            let slot = usize::from(row.ingress_enforced) + 2 * usize::from(row.egress_enforced);
            enforcement.get_mut(slot).into_iter().for_each(|count| *count += 1);
        }
        metrics.show_enforcement(enforcement);
    }
}
