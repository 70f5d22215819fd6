// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of policies what is not enforced: writes the condition, and publishes the event, determined by
//! `policy`.

use super::{Controller, Failures, REPORTER, is_stale, warn_and_write};
use k8s::cilium::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, PolicyCondition};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Patch, PatchParams};
use k8s::{Client, Events};
use policy::Judged;
use serde_json::json;
use statedb::{Changes, Reader};

pub(super) struct PolicyStatus {
    client: Client,
    events: Events,
    namespaced: Reader<Judged>,
    clusterwide: Reader<Judged>,
    namespaced_changes: Changes<Judged>,
    clusterwide_changes: Changes<Judged>,
}

impl PolicyStatus {
    pub(super) fn new(client: &Client, namespaced: &Reader<Judged>, clusterwide: &Reader<Judged>) -> Self {
        Self {
            client: client.clone(),
            events: Events::new(client, REPORTER),
            namespaced: namespaced.clone(),
            clusterwide: clusterwide.clone(),
            namespaced_changes: namespaced.subscribe(),
            clusterwide_changes: clusterwide.subscribe(),
        }
    }

    async fn set(&self, row: &Judged, conditions: Vec<PolicyCondition>) -> Result<(), Error> {
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
            let Some(conditions) = row.corrected_conditions(Timestamp::now()) else { continue };
            match warn_and_write(&self.events, row.warning(), self.set(row, conditions)).await {
                Err(error) if !is_stale(&error) => {
                    failures.add(format_args!("policy {}/{}", row.namespace, row.name), &error);
                }
                _ => {}
            }
        }
        failures.into_result()
    }
}
