// SPDX-License-Identifier: Apache-2.0
//! The metrics of this feature, under Cilium's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics; clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) rules: Gauge,
    pub(crate) max_revision: Gauge,
    identities: Family<Type, Gauge>,
    enforcement: Family<Enforced, Gauge>,
    pub(crate) policies: Gauge,
    pub(crate) waiting: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Enforced {
    enforcement: &'static str,
}

impl Metrics {
    /// Registers them; the registry's prefix is prepended to their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("policy", "Rules in force", self.rules.clone());
        registry.register("policy_max_revision", "Revision of the policies in force", self.max_revision.clone());
        registry.register("identity", "Identities by type", self.identities.clone());
        registry.register(
            "policy_endpoint_enforcement_status",
            "Pods of this node by the directions in which policy is enforced",
            self.enforcement.clone(),
        );
    }

    /// Creates a sample of each, since one with labels is otherwise absent. The reference is generated from this.
    pub fn sample(&self) {
        self.show_identities([0; 3]);
        self.show_enforcement([0; 4]);
    }

    /// Policy objects in force.
    #[must_use]
    pub fn policies(&self) -> i64 {
        self.policies.get()
    }

    /// Pods that wait for an identity.
    #[must_use]
    pub fn endpoints_waiting(&self) -> i64 {
        self.waiting.get()
    }

    /// Identities of prefixes.
    #[must_use]
    pub fn node_identities(&self) -> i64 {
        self.identities.get_or_create(&Type { r#type: "node_local" }).get()
    }

    /// Reserved ones, those of the cluster, and those of prefixes.
    pub(crate) fn show_identities(&self, counts: [usize; 3]) {
        for (r#type, count) in ["reserved", "cluster_local", "node_local"].into_iter().zip(counts) {
            self.identities.get_or_create(&Type { r#type }).set(count as i64);
        }
    }

    /// Pods where nothing is enforced, only ingress, only egress, and both.
    pub(crate) fn show_enforcement(&self, counts: [usize; 4]) {
        for (enforcement, count) in ["none", "ingress", "egress", "both"].into_iter().zip(counts) {
            self.enforcement.get_or_create(&Enforced { enforcement }).set(count as i64);
        }
    }
}
