// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of Services what of them is not honoured, by an event and by the condition that `services` finds right.

use super::pending::Pending;
use super::{Controller, Failures, REPORTER, warn_and_write};
use k8s::k8s_openapi::api::core::v1::Service;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Patch, PatchParams};
use k8s::{Client, Events};
use serde_json::json;
use services::ServiceProblems;
use statedb::Reader;

pub(super) struct ServiceStatus {
    client: Client,
    events: Events,
    pending: Pending<ServiceProblems>,
}

impl ServiceStatus {
    pub(super) fn new(client: &Client, problems: &Reader<ServiceProblems>) -> Self {
        Self {
            client: client.clone(),
            events: Events::new(client, REPORTER),
            pending: Pending::new(Self::NAME, problems),
        }
    }

    async fn tell(&self, row: &ServiceProblems) -> Result<(), Error> {
        let Some(condition) = row.corrected_condition(Timestamp::now()) else { return Ok(()) };
        let api = self.client.namespaced::<Service>(&row.service.namespace);
        // The API server puts it among the conditions of others, by its type.
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let params = PatchParams::default();
        warn_and_write(&self.events, row.warnings(), api.patch_status(&row.service.name, &params, &patch))
            .await
            .map(drop)
    }
}

impl Controller for ServiceStatus {
    const NAME: &'static str = "service-status";

    async fn due(&mut self) {
        self.pending.more().await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for row in self.pending.rows() {
            let result = self.tell(&row).await;
            if let Err(error) = self.pending.settle(&row, result) {
                failures.add(format_args!("service {}", row.service), &error);
            }
        }
        failures.into_result()
    }
}
