// SPDX-License-Identifier: Apache-2.0
//! Registers our CustomResourceDefinitions and updates older ones. A newer one, from a later operator, is left alone.

use k8s::Client;
use k8s::crd::{SCHEMA_VERSION, SCHEMA_VERSION_LABEL};
use k8s::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s::kube::api::{Api, PostParams};
use k8s::kube::{Error, ResourceExt};
use serde_json::Value;
use statedb::{Backoff, Retries};
use std::time::Duration;

/// Back-off between failed attempts.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Delay before checking whether what was written is served.
const LOOK: Duration = Duration::from_millis(100);

/// Retries until all are registered and served.
pub(crate) async fn register(client: &Client) {
    let definitions = match k8s::crd::all() {
        Ok(definitions) => definitions,
        Err(error) => {
            tracing::error!(%error, "cannot build CustomResourceDefinitions");
            return;
        }
    };
    let api: Api<CustomResourceDefinition> = client.all();
    for definition in &definitions {
        let mut retries = Retries::new(RETRY);
        loop {
            let wait = match ensure(&api, definition).await {
                Ok(true) => break,
                Ok(false) => LOOK,
                Err(error) => {
                    if !retries.failing() {
                        let error = k8s::chain(&error);
                        tracing::warn!(
                            crd = definition.name_any(),
                            error,
                            "CustomResourceDefinition not registered, retrying"
                        );
                    }
                    retries.failed()
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
    tracing::info!(count = definitions.len(), version = SCHEMA_VERSION, "CustomResourceDefinitions registered");
}

/// One step. Returns whether the definition is correct and served.
async fn ensure(api: &Api<CustomResourceDefinition>, wanted: &CustomResourceDefinition) -> Result<bool, Error> {
    let name = wanted.name_any();
    let Some(present) = api.get_opt(&name).await? else {
        return unless_conflict(api.create(&PostParams::default(), wanted).await);
    };
    if !needs_update(&present, wanted) {
        return Ok(is_established(&present));
    }
    tracing::info!(crd = name, "CustomResourceDefinition updated");
    let mut next = wanted.clone();
    next.metadata.resource_version = present.metadata.resource_version.clone();
    next.metadata.annotations = present.metadata.annotations.clone();
    let labels =
        present.metadata.labels.into_iter().flatten().chain(wanted.metadata.labels.clone().into_iter().flatten());
    next.metadata.labels = Some(labels.collect());
    unless_conflict(api.replace(&name, &PostParams::default(), &next).await)
}

/// Check again after a write, ours or someone else's.
fn unless_conflict(result: Result<CustomResourceDefinition, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(false),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn needs_update(present: &CustomResourceDefinition, wanted: &CustomResourceDefinition) -> bool {
    let version = present.labels().get(SCHEMA_VERSION_LABEL).and_then(|text| version(text));
    match (version, self::version(SCHEMA_VERSION)) {
        (Some(present), Some(ours)) if present > ours => false,
        (Some(theirs), Some(ours)) if theirs == ours => {
            let json = |d: &CustomResourceDefinition| serde_json::to_value(&d.spec).unwrap_or_default();
            !covers(&json(present), &json(wanted))
        }
        _ => true,
    }
}

/// Dotted version numbers.
fn version(text: &str) -> Option<Vec<u64>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// Whether everything desired is present; the API server adds defaults.
fn covers(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| present.get(key).is_some_and(|p| covers(p, value)))
        }
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len() && present.iter().zip(wanted).all(|(p, w)| covers(p, w))
        }
        // Numbers may come back with a different type.
        (Value::Number(present), Value::Number(wanted)) => present.as_f64() == wanted.as_f64(),
        (present, wanted) => present == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> CustomResourceDefinition {
        k8s::crd::all().unwrap().remove(0)
    }

    fn labelled(version: &str) -> CustomResourceDefinition {
        let mut definition = definition();
        definition.labels_mut().insert(SCHEMA_VERSION_LABEL.into(), version.into());
        definition
    }

    #[test]
    fn older_and_unlabelled_definitions_are_updated_and_newer_ones_are_not() {
        let ours = definition();
        assert!(!needs_update(&ours, &ours));
        assert!(needs_update(&labelled("1.31.9"), &ours));
        assert!(!needs_update(&labelled("1.33.0"), &ours));
        let mut unlabelled = ours.clone();
        unlabelled.metadata.labels = None;
        assert!(needs_update(&unlabelled, &ours));
    }

    #[test]
    fn one_of_the_same_version_is_updated_when_it_lacks_something_and_defaults_do_not_count() {
        let ours = definition();
        let mut present = ours.clone();
        present.spec.preserve_unknown_fields = Some(false);
        assert!(!needs_update(&present, &ours));
        present.spec.versions[0].schema = None;
        assert!(needs_update(&present, &ours));
    }
}
