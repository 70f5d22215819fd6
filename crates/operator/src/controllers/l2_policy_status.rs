// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of announcement policies what is wrong with them, in the conditions determined by `l2`.

use super::pending::Pending;
use super::{Controller, Failures, conditions_of};
use k8s::Client;
use k8s::cilium::CiliumL2AnnouncementPolicy;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::api::PatchParams;
use k8s::kube::{Api, Error};
use l2::Policy;
use statedb::Reader;

pub(super) struct L2PolicyStatus {
    api: Api<CiliumL2AnnouncementPolicy>,
    pending: Pending<Policy>,
}

impl L2PolicyStatus {
    pub(super) fn new(client: &Client, policies: &Reader<Policy>) -> Self {
        Self { api: client.all(), pending: Pending::new(Self::NAME, policies) }
    }

    async fn set(&self, policy: &Policy) -> Result<(), Error> {
        let Some(conditions) = policy.corrected_conditions(Timestamp::now()) else { return Ok(()) };
        let patch = conditions_of(policy.version(), &conditions);
        self.api.patch_status(&policy.name, &PatchParams::default(), &patch).await.map(drop)
    }
}

impl Controller for L2PolicyStatus {
    const NAME: &'static str = "l2-policy-status";

    async fn due(&mut self) {
        self.pending.more().await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for policy in self.pending.rows() {
            let result = self.set(&policy).await;
            if let Err(error) = self.pending.settle(&policy, result) {
                failures.add(format_args!("CiliumL2AnnouncementPolicy {}", policy.name), &error);
            }
        }
        failures.into_result()
    }
}
