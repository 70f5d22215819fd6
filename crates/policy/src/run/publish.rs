// SPDX-License-Identifier: Apache-2.0
//! Brings what was computed into tables, in an order that never lets a packet meet half of a change: entries of policies
//! before the ipcache names their identities, and both before a pod is told of its policy; the other way round when
//! something ends.

use super::Run;
use crate::reconcile::known_endpoints;
use model::{EndpointPolicy, IdentityId, PolicyId};
use statedb::{Revision, State};

impl Run {
    /// Publishes what the changes since the last call amount to.
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

    /// What goes with the policies themselves: the rules behind entries, and the prefixes that rules name.
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

    /// Tells pods of their policy once its entries are in the kernel; until then they keep what they were told before.
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

    /// Compiled policies that no pod has any more go when the programs know no pod by them.
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
                tracing::debug!(%error, "policies that nobody has stay for now");
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
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        metrics.set_policies(number(self.engine.policy_count()));
        metrics.set_max_revision(self.engine.revision());
        metrics.set_problems(number(self.policies.snapshot().iter().map(|policy| policy.problems.len()).sum()));
        let identities = self.tables.identities.snapshot();
        let up_to = |first: u32, last: u32| number(identities.range(IdentityId(first)..=IdentityId(last)).count());
        let (reserved, local) = (up_to(0, 255), up_to(0x0100_0000, 0x01ff_ffff));
        metrics.set_reserved_identities(reserved);
        metrics.set_node_identities(local);
        metrics.set_cluster_identities(number(identities.len()).saturating_sub(reserved + local));
        let endpoints = self.tables.endpoints.snapshot();
        let enforcing = |ingress: bool, egress: bool| {
            let is = |row: &&std::sync::Arc<EndpointPolicy>| {
                (row.ingress_enforced, row.egress_enforced) == (ingress, egress)
            };
            number(endpoints.iter().filter(is).count())
        };
        metrics.set_endpoints_without_enforcement(enforcing(false, false));
        metrics.set_endpoints_enforcing_ingress(enforcing(true, false));
        metrics.set_endpoints_enforcing_egress(enforcing(false, true));
        metrics.set_endpoints_enforcing_both(enforcing(true, true));
        metrics.set_endpoints_waiting(number(self.waiting.len()));
        metrics.set_ipcache_entries(number(self.ipcache.entries.snapshot().len()));
    }
}
