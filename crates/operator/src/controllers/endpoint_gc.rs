// SPDX-License-Identifier: Apache-2.0
//! Deletes CiliumEndpoints whose pod is gone: those of nodes that vanished without taking leave.

use super::{Controller, Failures, delete, list, list_metadata};
use k8s::Client;
use k8s::cilium::CiliumEndpoint;
use k8s::k8s_openapi::api::core::v1::Pod;
use k8s::kube::api::{Api, ObjectMeta};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) struct EndpointGc {
    client: Client,
    interval: Duration,
}

impl EndpointGc {
    pub(super) fn new(client: &Client, interval: Duration) -> Self {
        Self { client: client.clone(), interval }
    }
}

/// Namespace and name.
type Name = (String, String);

/// What of a pod matters here.
#[derive(Clone, Debug, Default)]
struct PodState {
    uid: String,
    ended: bool,
}

/// Whether an endpoint has lost its pod. The owner, if it names one, must be this very pod and not one of the same name.
fn is_orphan(endpoint: &ObjectMeta, pods: &BTreeMap<Name, PodState>) -> bool {
    let Some(pod) = pods.get(&name(endpoint)) else { return true };
    let owner = endpoint.owner_references.iter().flatten().find(|owner| owner.kind == "Pod");
    pod.ended || owner.is_some_and(|owner| owner.uid != pod.uid)
}

fn name(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn pod_state(pod: Pod) -> Option<(Name, PodState)> {
    let phase = pod.status.and_then(|status| status.phase);
    let ended = phase.is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
    Some((name(&pod.metadata), PodState { uid: pod.metadata.uid.unwrap_or_default(), ended }))
}

impl Controller for EndpointGc {
    const NAME: &'static str = "endpoint-gc";

    async fn due(&mut self) {
        tokio::time::sleep(self.interval).await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        // Endpoints first: the pod of each of these existed before the pods are listed.
        let endpoints = list_metadata(&self.client.all::<CiliumEndpoint>(), Some).await?;
        let pods = list(&self.client.all::<Pod>(), pod_state).await?.into_iter().collect();
        let mut failures = Failures::default();
        for endpoint in endpoints.iter().filter(|endpoint| is_orphan(endpoint, &pods)) {
            let (namespace, name) = name(endpoint);
            tracing::info!(endpoint = format!("{namespace}/{name}"), "CiliumEndpoint deleted: its pod is gone");
            let api: Api<CiliumEndpoint> = self.client.namespaced(&namespace);
            if let Err(error) = delete(&api, endpoint).await {
                failures.add(format_args!("CiliumEndpoint {namespace}/{name}"), &error);
            }
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn endpoint(owners: &[&str]) -> ObjectMeta {
        let owner = |uid: &&str| OwnerReference { kind: "Pod".into(), uid: (*uid).into(), ..OwnerReference::default() };
        ObjectMeta {
            namespace: Some("n".into()),
            name: Some("p".into()),
            owner_references: Some(owners.iter().map(owner).collect()),
            ..ObjectMeta::default()
        }
    }

    fn pods(uid: &str, ended: bool) -> BTreeMap<Name, PodState> {
        BTreeMap::from([(("n".into(), "p".into()), PodState { uid: uid.into(), ended })])
    }

    #[test]
    fn an_endpoint_goes_with_its_pod_even_if_another_pod_has_its_name_now() {
        assert!(is_orphan(&endpoint(&["1"]), &BTreeMap::new()));
        assert!(is_orphan(&endpoint(&["1"]), &pods("2", false)));
        assert!(is_orphan(&endpoint(&["1"]), &pods("1", true)));
        assert!(!is_orphan(&endpoint(&["1"]), &pods("1", false)));
        assert!(!is_orphan(&endpoint(&[]), &pods("1", false)));
    }
}
