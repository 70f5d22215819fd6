// SPDX-License-Identifier: Apache-2.0
//! Deletes CiliumIdentities that no CiliumEndpoint has used for a while.
//!
//! A pod may start using one between the check and the deletion: its agent then sees the deletion and recreates the
//! identity with its number.

use super::{Controller, Failures, delete, is_stale, list, list_metadata};
use crate::config;
use k8s::Client;
use k8s::cilium::{CiliumEndpoint, CiliumIdentity, HEARTBEAT_ANNOTATION};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Api, ObjectMeta, Patch, PatchParams};
use policy::identity_gc::{self, GcAction};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) struct IdentityGc {
    client: Client,
    config: config::IdentityGc,
}

impl IdentityGc {
    pub(super) fn new(client: &Client, config: config::IdentityGc) -> Self {
        Self { client: client.clone(), config }
    }
}

fn identity_of(endpoint: CiliumEndpoint) -> Option<String> {
    endpoint.status?.identity?.id.map(|id| id.to_string())
}

async fn annotate(api: &Api<CiliumIdentity>, identity: &ObjectMeta, value: Value) -> Result<(), Error> {
    let name = identity.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {
        "resourceVersion": identity.resource_version,
        "annotations": {HEARTBEAT_ANNOTATION: value},
    }});
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(()),
    }
}

impl Controller for IdentityGc {
    const NAME: &'static str = "identity-gc";

    async fn due(&mut self) {
        tokio::time::sleep(self.config.interval).await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let api: Api<CiliumIdentity> = self.client.all();
        // List identities first: one that comes into use later is either seen in use or not considered.
        let identities = list_metadata(&api, Some).await?;
        let used: BTreeSet<String> =
            list(&self.client.all::<CiliumEndpoint>(), identity_of).await?.into_iter().collect();
        let now = Timestamp::now();
        let mut failures = Failures::default();
        for identity in &identities {
            let name = identity.name.as_deref().unwrap_or_default();
            let result = match identity_gc::decide(identity, used.contains(name), now, self.config.timeout) {
                GcAction::Nothing => Ok(()),
                GcAction::Mark => annotate(&api, identity, now.to_string().into()).await,
                GcAction::Unmark => annotate(&api, identity, Value::Null).await,
                GcAction::Delete => {
                    tracing::info!(identity = name, "CiliumIdentity deleted: unused");
                    delete(&api, identity).await
                }
            };
            if let Err(error) = result {
                failures.add(format_args!("CiliumIdentity {name}"), &error);
            }
        }
        failures.into_result()
    }
}
