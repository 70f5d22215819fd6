// SPDX-License-Identifier: Apache-2.0
//! Says of each policy whether it is valid, in its condition `Valid`.

use super::{Controller, Failures, is_stale};
use k8s::Client;
use k8s::cilium::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, Policy, PolicyCondition, PolicyStatus as Status, validate,
};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::api::{Patch, PatchParams};
use k8s::kube::{Error, ResourceExt};
use serde_json::json;
use statedb::{Changes, Reader, Row};

const CONDITION: &str = "Valid";
const VALID: &str = "Policy validation succeeded";

/// A policy's name, what is wrong with it, and the conditions that it has. One row per policy of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PolicyRow {
    namespace: String,
    name: String,
    /// Empty if it is valid.
    violations: String,
    conditions: Vec<PolicyCondition>,
}

impl Row for PolicyRow {
    type Key = (String, String);
    fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// A policy that has a status.
pub(super) trait WithStatus: Policy {
    fn status(&self) -> Option<&Status>;
}

impl WithStatus for CiliumNetworkPolicy {
    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }
}

impl WithStatus for CiliumClusterwideNetworkPolicy {
    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }
}

pub(super) fn ingest<P: WithStatus>(policy: &P) -> Option<PolicyRow> {
    let violations: Vec<String> = validate(policy).iter().map(ToString::to_string).collect();
    Some(PolicyRow {
        namespace: policy.namespace().unwrap_or_default(),
        name: policy.name_any(),
        violations: violations.join("; "),
        conditions: policy.status().and_then(|status| status.conditions.clone()).unwrap_or_default(),
    })
}

/// The conditions that a policy ought to have, if it has others.
fn resolve(row: &PolicyRow, now: Timestamp) -> Option<Vec<PolicyCondition>> {
    let (status, message) =
        if row.violations.is_empty() { ("True", VALID) } else { ("False", row.violations.as_str()) };
    let present = row.conditions.iter().find(|condition| condition.condition_type == CONDITION);
    if present.is_some_and(|c| c.status == status && c.message.as_deref() == Some(message)) {
        return None;
    }
    let since = present.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let others = row.conditions.iter().filter(|c| c.condition_type != CONDITION).cloned();
    let ours = PolicyCondition {
        condition_type: CONDITION.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        message: Some(message.to_owned()),
        reason: None,
    };
    Some(others.chain([ours]).collect())
}

pub(super) struct PolicyStatus {
    client: Client,
    namespaced: Reader<PolicyRow>,
    clusterwide: Reader<PolicyRow>,
    namespaced_changes: Changes<PolicyRow>,
    clusterwide_changes: Changes<PolicyRow>,
}

impl PolicyStatus {
    pub(super) fn new(client: &Client, namespaced: &Reader<PolicyRow>, clusterwide: &Reader<PolicyRow>) -> Self {
        Self {
            client: client.clone(),
            namespaced: namespaced.clone(),
            clusterwide: clusterwide.clone(),
            namespaced_changes: namespaced.subscribe(),
            clusterwide_changes: clusterwide.subscribe(),
        }
    }

    async fn set(&self, row: &PolicyRow, conditions: Vec<PolicyCondition>) -> Result<(), Error> {
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
        if row.namespace.is_empty() {
            let api = self.client.all::<CiliumClusterwideNetworkPolicy>();
            api.patch_status(&row.name, &params, &patch).await.map(drop)
        } else {
            let api = self.client.namespaced::<CiliumNetworkPolicy>(&row.namespace);
            api.patch_status(&row.name, &params, &patch).await.map(drop)
        }
    }
}

impl Controller for PolicyStatus {
    const NAME: &'static str = "policy-status";

    async fn due(&mut self) {
        tokio::select! {
            _ = self.namespaced_changes.next() => {}
            _ = self.clusterwide_changes.next() => {}
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        let (namespaced, clusterwide) = (self.namespaced.snapshot(), self.clusterwide.snapshot());
        for row in namespaced.iter().chain(clusterwide.iter()) {
            let Some(conditions) = resolve(row, Timestamp::now()) else { continue };
            match self.set(row, conditions).await {
                Err(error) if !is_stale(&error) => {
                    failures.add(format_args!("policy {}/{}", row.namespace, row.name), &error);
                }
                _ => {}
            }
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

    use super::*;

    fn row(violations: &str, conditions: Vec<PolicyCondition>) -> PolicyRow {
        PolicyRow { namespace: "n".into(), name: "p".into(), violations: violations.into(), conditions }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_condition_is_written_once_and_changes_its_time_with_its_status_only() {
        let (first, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-02T00:00:00Z"));
        let valid = resolve(&row("", Vec::new()), first).unwrap();
        assert_eq!((valid[0].status.as_str(), valid[0].message.as_deref()), ("True", Some(VALID)));
        assert_eq!(resolve(&row("", valid.clone()), later), None);
        let broken = resolve(&row("spec: wrong", valid), later).unwrap();
        assert_eq!((broken[0].status.as_str(), broken[0].message.as_deref()), ("False", Some("spec: wrong")));
        assert_eq!(broken[0].last_transition_time, Some(Time(later)));
        let still = resolve(&row("spec: otherwise wrong", broken), first).unwrap();
        assert_eq!(still[0].last_transition_time, Some(Time(later)));
    }

    #[test]
    fn other_conditions_stay() {
        let other =
            PolicyCondition { condition_type: "Other".into(), status: "True".into(), ..PolicyCondition::default() };
        let conditions = resolve(&row("", vec![other.clone()]), time("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!((conditions.len(), &conditions[0]), (2, &other));
    }
}
