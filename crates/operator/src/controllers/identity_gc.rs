// SPDX-License-Identifier: Apache-2.0
//! Deletes CiliumIdentities that no CiliumEndpoint has used for a while.
//!
//! A pod may start using one between the check and the deletion: its agent then sees the deletion and recreates the
//! identity with its number.

use super::refusals::Refusals;
use super::{Controller, Failures, delete, list_metadata, version_of};
use crate::config;
use endpoint::gc::Published;
use k8s::Client;
use k8s::cilium::{CiliumEndpoint, CiliumIdentity, HEARTBEAT_ANNOTATION};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::api::{Api, ObjectMeta, Patch, PatchParams};
use k8s::kube::{Error, Resource};
use policy::identity_gc::{self, GcAction};
use serde_json::{Value, json};
use statedb::Reader;
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) struct IdentityGc {
    client: Client,
    config: config::IdentityGc,
    endpoints: Reader<Published>,
    refusals: Refusals<String, Option<String>>,
}

impl IdentityGc {
    pub(super) fn new(client: &Client, config: config::IdentityGc, endpoints: &Reader<Published>) -> Self {
        Self { client: client.clone(), config, endpoints: endpoints.clone(), refusals: Refusals::new(Self::NAME) }
    }

    /// Whether the table of CiliumEndpoints may be believed: it is complete, and its watch works.
    fn knows_endpoints(&self) -> bool {
        let kind = CiliumEndpoint::kind(&());
        self.endpoints.snapshot().initialized()
            && !self.client.failing_watches(Duration::ZERO).iter().any(|watch| watch.kind == kind)
    }

    async fn act(&self, action: GcAction, identity: &ObjectMeta, now: Timestamp) -> Result<(), Error> {
        let api: Api<CiliumIdentity> = self.client.all();
        match action {
            GcAction::Nothing => Ok(()),
            GcAction::Mark => annotate(&api, identity, now.to_string().into()).await,
            GcAction::Unmark => annotate(&api, identity, Value::Null).await,
            GcAction::Delete => {
                let name = identity.name.as_deref().unwrap_or_default();
                tracing::info!(identity = name, "CiliumIdentity deleted: unused");
                delete(&api, name, version_of(identity)).await
            }
        }
    }
}

async fn annotate(api: &Api<CiliumIdentity>, identity: &ObjectMeta, value: Value) -> Result<(), Error> {
    let name = identity.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {
        "resourceVersion": identity.resource_version,
        "annotations": {HEARTBEAT_ANNOTATION: value},
    }});
    api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

impl Controller for IdentityGc {
    const NAME: &'static str = "identity-gc";

    async fn due(&mut self) {
        tokio::time::sleep(self.config.interval).await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        // List identities first: one that comes into use later is either seen in use or not considered.
        let identities = list_metadata(&self.client.all::<CiliumIdentity>(), Some).await?;
        if !self.knows_endpoints() {
            return Ok(());
        }
        let used: BTreeSet<String> =
            self.endpoints.snapshot().iter().filter_map(|endpoint| Some(endpoint.identity?.0.to_string())).collect();
        let now = Timestamp::now();
        let mut failures = Failures::default();
        for identity in &identities {
            let name = identity.name.clone().unwrap_or_default();
            if self.refusals.cover(&name, &identity.resource_version) {
                continue;
            }
            let action = identity_gc::decide(identity, used.contains(&name), now, self.config.timeout);
            let result = self.act(action, identity, now).await;
            if let Err(error) = self.refusals.absorb(name.clone(), identity.resource_version.clone(), result) {
                failures.add(format_args!("CiliumIdentity {name}"), &error);
            }
        }
        failures.into_result()
    }
}
