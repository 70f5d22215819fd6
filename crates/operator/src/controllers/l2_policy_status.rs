// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of announcement policies what is wrong with them, in the conditions determined by `l2`.

use super::{Controller, Failures, is_stale};
use k8s::Client;
use k8s::cilium::CiliumL2AnnouncementPolicy;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Api;
use k8s::kube::api::{Patch, PatchParams};
use l2::Policy;
use serde_json::json;
use statedb::{Changes, Reader};

pub(super) struct L2PolicyStatus {
    api: Api<CiliumL2AnnouncementPolicy>,
    policies: Reader<Policy>,
    changes: Changes<Policy>,
}

impl L2PolicyStatus {
    pub(super) fn new(client: &Client, policies: &Reader<Policy>) -> Self {
        Self { api: client.all(), policies: policies.clone(), changes: policies.subscribe() }
    }
}

impl Controller for L2PolicyStatus {
    const NAME: &'static str = "l2-policy-status";

    async fn due(&mut self) {
        self.changes.next().await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for policy in self.policies.snapshot().iter() {
            let Some(conditions) = policy.corrected_conditions(Timestamp::now()) else { continue };
            let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
            match self.api.patch_status(&policy.name, &PatchParams::default(), &patch).await {
                Err(error) if !is_stale(&error) => {
                    failures.add(format_args!("CiliumL2AnnouncementPolicy {}", policy.name), &error);
                }
                _ => {}
            }
        }
        failures.into_result()
    }
}
