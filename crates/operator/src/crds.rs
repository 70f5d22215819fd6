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
/// How long other work waits for them. What is not served by then is waited for by those who follow it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Delay before checking whether what was written is served.
const LOOK: Duration = Duration::from_millis(100);

/// Retries until all are registered and served. One that is refused, or is still being deleted, holds up no other.
pub(crate) async fn register(client: &Client) {
    let definitions = match k8s::crd::all() {
        Ok(definitions) => definitions,
        Err(error) => {
            tracing::error!(%error, "cannot build CustomResourceDefinitions");
            return;
        }
    };
    let api: Api<CustomResourceDefinition> = client.all();
    let count = definitions.len();
    let mut pending: Vec<_> =
        definitions.into_iter().map(|definition| Pending { definition, obstacle: None }).collect();
    let mut retries = Retries::new(RETRY);
    loop {
        let mut advanced = false;
        let mut left = Vec::new();
        for mut one in pending {
            match one.step(&api).await {
                Step::Served => advanced = true,
                Step::Written => {
                    advanced = true;
                    left.push(one);
                }
                Step::Waiting => left.push(one),
            }
        }
        pending = left;
        if pending.is_empty() {
            break;
        }
        let wait = if advanced {
            retries.succeeded();
            LOOK
        } else {
            retries.failed()
        };
        tokio::time::sleep(wait).await;
    }
    tracing::info!(count, version = SCHEMA_VERSION, "CustomResourceDefinitions registered");
}

/// A definition that is not served yet.
struct Pending {
    definition: CustomResourceDefinition,
    /// Why, as last logged.
    obstacle: Option<String>,
}

/// What has come of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is right, and served.
    Served,
    /// It is on its way.
    Written,
    /// Others have to do something first.
    Waiting,
}

impl Pending {
    async fn step(&mut self, api: &Api<CustomResourceDefinition>) -> Step {
        let obstacle = match ensure(api, &self.definition).await {
            Ok(Step::Waiting) => "it is being deleted, and is made anew once it is gone".to_owned(),
            Ok(step) => return step,
            Err(error) => k8s::chain(&error),
        };
        if self.obstacle.as_ref() != Some(&obstacle) {
            let crd = self.definition.name_any();
            tracing::warn!(crd, error = obstacle, "CustomResourceDefinition not registered, retrying");
            self.obstacle = Some(obstacle);
        }
        Step::Waiting
    }
}

async fn ensure(api: &Api<CustomResourceDefinition>, wanted: &CustomResourceDefinition) -> Result<Step, Error> {
    let name = wanted.name_any();
    let Some(present) = api.get_opt(&name).await? else {
        return unless_conflict(api.create(&PostParams::default(), wanted).await);
    };
    if present.metadata.deletion_timestamp.is_some() {
        // It is served to the last, and then it is gone with its objects.
        return Ok(Step::Waiting);
    }
    if !needs_update(&present, wanted) {
        return Ok(if is_established(&present) { Step::Served } else { Step::Written });
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
fn unless_conflict(result: Result<CustomResourceDefinition, Error>) -> Result<Step, Error> {
    match result {
        Ok(_) => Ok(Step::Written),
        Err(Error::Api(status)) if status.code == 409 => Ok(Step::Written),
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
mod tests;
