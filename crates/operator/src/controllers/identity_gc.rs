// SPDX-License-Identifier: Apache-2.0
//! Deletes CiliumIdentities that no CiliumEndpoint has used for a while.
//!
//! An unused identity is first marked with the time (`io.cilium.heartbeat`), so that the count survives a restart and is the
//! same for every operator; a used one loses its mark. Between the look and the deletion a pod may come to use it: its agent
//! then sees the deletion and makes the identity again, with its number.

use super::{Controller, Failures, delete, is_stale, list, list_metadata};
use crate::config;
use k8s::Client;
use k8s::cilium::{CiliumEndpoint, CiliumIdentity, HEARTBEAT_ANNOTATION};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Api, ObjectMeta, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) struct IdentityGc {
    client: Client,
    config: config::IdentityGc,
}

impl IdentityGc {
    pub(super) fn new(client: &Client, config: config::IdentityGc) -> Self {
        Self { client: client.clone(), config }
    }
}

/// What is to be done with an identity.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Mark,
    Unmark,
    Delete,
}

fn resolve(identity: &ObjectMeta, used: bool, now: Timestamp, timeout: Duration) -> Action {
    let mark = identity.annotations.as_ref().and_then(|annotations| annotations.get(HEARTBEAT_ANNOTATION));
    match (used, mark) {
        (true, None) => Action::Nothing,
        (true, Some(_)) => Action::Unmark,
        (false, None) => Action::Mark,
        (false, Some(text)) => match text.parse::<Timestamp>() {
            Ok(since) if Duration::try_from(now.duration_since(since)).is_ok_and(|unused| unused >= timeout) => {
                Action::Delete
            }
            Ok(_) => Action::Nothing,
            // Somebody else's text: begin anew.
            Err(_) => Action::Mark,
        },
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
        // Identities first: one that comes into use after this is seen to be used, or is not looked at.
        let identities = list_metadata(&api, Some).await?;
        let used: BTreeSet<String> =
            list(&self.client.all::<CiliumEndpoint>(), identity_of).await?.into_iter().collect();
        let now = Timestamp::now();
        let mut failures = Failures::default();
        for identity in &identities {
            let name = identity.name.as_deref().unwrap_or_default();
            let result = match resolve(identity, used.contains(name), now, self.config.timeout) {
                Action::Nothing => Ok(()),
                Action::Mark => annotate(&api, identity, now.to_string().into()).await,
                Action::Unmark => annotate(&api, identity, Value::Null).await,
                Action::Delete => {
                    tracing::info!(identity = name, "CiliumIdentity deleted: nobody has used it for long");
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1800);

    fn identity(mark: Option<&str>) -> ObjectMeta {
        let annotations = mark.map(|text| [(HEARTBEAT_ANNOTATION.to_owned(), text.to_owned())].into());
        ObjectMeta { annotations, ..ObjectMeta::default() }
    }

    fn after(mark: Option<&str>, used: bool) -> Action {
        resolve(&identity(mark), used, "2026-01-01T12:00:00Z".parse().unwrap(), TIMEOUT)
    }

    #[test]
    fn an_unused_identity_is_marked_and_deleted_when_the_timeout_has_passed() {
        assert_eq!(after(None, false), Action::Mark);
        assert_eq!(after(Some("2026-01-01T11:30:01Z"), false), Action::Nothing);
        assert_eq!(after(Some("2026-01-01T11:30:00Z"), false), Action::Delete);
        assert_eq!(after(Some("2026-01-01T13:00:00Z"), false), Action::Nothing);
        assert_eq!(after(Some("yesterday"), false), Action::Mark);
    }

    #[test]
    fn a_used_identity_is_never_deleted_and_loses_its_mark() {
        assert_eq!(after(None, true), Action::Nothing);
        assert_eq!(after(Some("2020-01-01T00:00:00Z"), true), Action::Unmark);
    }
}
