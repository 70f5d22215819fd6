// SPDX-License-Identifier: Apache-2.0
//! Every number of this feature. Cheap to clone; the root gives them their names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! gauges {
    ($($(#[$meta:meta])* $name:ident, $set:ident;)+) => {
        #[derive(Debug, Default)]
        struct Values { $($name: AtomicU64),+ }

        /// Numbers of the policy engine.
        #[derive(Clone, Debug, Default)]
        pub struct Metrics(Arc<Values>);

        impl Metrics {
            $(
                $(#[$meta])*
                #[must_use]
                pub fn $name(&self) -> u64 {
                    self.0.$name.load(Ordering::Relaxed)
                }

                pub(crate) fn $set(&self, value: u64) {
                    self.0.$name.store(value, Ordering::Relaxed);
                }
            )+
        }
    };
}

gauges! {
    /// Policy objects in force (`cilium_policy`).
    policies, set_policies;
    /// Revision of the policy repository (`cilium_policy_max_revision`).
    max_revision, set_max_revision;
    /// Fields of policies that are not honoured.
    problems, set_problems;
    /// Reserved identities (`cilium_identity{type="reserved"}`).
    reserved_identities, set_reserved_identities;
    /// Identities of the cluster (`cilium_identity{type="cluster_local"}`).
    cluster_identities, set_cluster_identities;
    /// Identities of prefixes (`cilium_identity{type="node_local"}`).
    node_identities, set_node_identities;
    /// Pods for which no direction is enforced (`cilium_policy_endpoint_enforcement_status{enforcement="none"}`).
    endpoints_without_enforcement, set_endpoints_without_enforcement;
    /// Pods for which only ingress is enforced.
    endpoints_enforcing_ingress, set_endpoints_enforcing_ingress;
    /// Pods for which only egress is enforced.
    endpoints_enforcing_egress, set_endpoints_enforcing_egress;
    /// Pods for which both directions are enforced.
    endpoints_enforcing_both, set_endpoints_enforcing_both;
    /// Pods that wait for an identity.
    endpoints_waiting, set_endpoints_waiting;
    /// Entries of the ipcache.
    ipcache_entries, set_ipcache_entries;
}
