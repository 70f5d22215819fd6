// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of policies what is not enforced: writes the condition, and publishes the event, determined by
//! `policy`.

use super::pending::Pending;
use super::{Controller, Failures, REPORTER, conditions_of, warn_and_write};
use k8s::cilium::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, PolicyCondition};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::PatchParams;
use k8s::{Client, Events};
use policy::Judged;
use statedb::Reader;

pub(super) struct PolicyStatus {
    client: Client,
    events: Events,
    namespaced: Pending<Judged>,
    clusterwide: Pending<Judged>,
}

impl PolicyStatus {
    pub(super) fn new(client: &Client, namespaced: &Reader<Judged>, clusterwide: &Reader<Judged>) -> Self {
        Self {
            client: client.clone(),
            events: Events::new(client, REPORTER),
            namespaced: Pending::new(Self::NAME, namespaced),
            clusterwide: Pending::new(Self::NAME, clusterwide),
        }
    }

    async fn tell(&self, row: &Judged) -> Result<(), Error> {
        let Some(conditions) = row.corrected_conditions(Timestamp::now()) else { return Ok(()) };
        warn_and_write(&self.events, row.warning(), self.set(row, conditions)).await
    }

    async fn set(&self, row: &Judged, conditions: Vec<PolicyCondition>) -> Result<(), Error> {
        let params = PatchParams::default();
        let patch = conditions_of(row.version(), &conditions);
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
            () = self.namespaced.more() => {}
            () = self.clusterwide.more() => {}
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for row in [self.namespaced.rows(), self.clusterwide.rows()].concat() {
            let result = self.tell(&row).await;
            let pending = if row.namespace.is_empty() { &mut self.clusterwide } else { &mut self.namespaced };
            if let Err(error) = pending.settle(&row, result) {
                failures.add(format_args!("policy {}/{}", row.namespace, row.name), &error);
            }
        }
        failures.into_result()
    }
}
