// SPDX-License-Identifier: Apache-2.0
//! This node's Node object, as far as load balancers are concerned.

use k8s::field::FieldError;
use k8s::k8s_openapi::api::core::v1 as core;

/// Taint of a node that the cluster autoscaler is about to take away.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Whether the node is about to go. One row, or none while nothing is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNode {
    /// Name.
    pub name: String,
    /// Load balancers should send it nothing new.
    pub leaving: bool,
}

impl statedb::Row for OwnNode {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// Never an error: what matters here has no form that could be wrong.
///
/// # Errors
///
/// None.
pub fn ingest_own_node(object: &core::Node) -> Result<Option<OwnNode>, FieldError> {
    let Some(name) = object.metadata.name.clone() else { return Ok(None) };
    let mut taints = object.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let leaving = object.metadata.deletion_timestamp.is_some() || taints.any(|taint| taint.key == TO_BE_DELETED);
    Ok(Some(OwnNode { name, leaving }))
}

#[cfg(test)]
mod tests {
    use super::ingest_own_node;
    use serde_json::{Value, json};

    fn leaves(object: Value) -> bool {
        ingest_own_node(&serde_json::from_value(object).unwrap()).unwrap().unwrap().leaving
    }

    #[test]
    fn a_node_leaves_that_is_deleted_or_that_the_autoscaler_takes_away() {
        let tainted = |key: &str| json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": key, "effect": "NoSchedule"}]}});
        assert!(!leaves(json!({"metadata": {"name": "n"}})));
        assert!(!leaves(tainted("node.kubernetes.io/unschedulable")));
        assert!(leaves(tainted("ToBeDeletedByClusterAutoscaler")));
        assert!(leaves(json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}})));
    }
}
