// SPDX-License-Identifier: Apache-2.0
//! Deletes CiliumEndpoints whose pod is gone: those of nodes that vanished without cleaning up.

use super::{Controller, Failures, delete, list, list_metadata};
use endpoint::gc::LivePods;
use k8s::Client;
use k8s::cilium::CiliumEndpoint;
use k8s::k8s_openapi::api::core::v1::Pod;
use k8s::kube::api::Api;
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

impl Controller for EndpointGc {
    const NAME: &'static str = "endpoint-gc";

    async fn due(&mut self) {
        tokio::time::sleep(self.interval).await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        // List endpoints first: each one's pod existed before the pods are listed.
        let endpoints = list_metadata(&self.client.all::<CiliumEndpoint>(), Some).await?;
        let pods = list(&self.client.all::<Pod>(), |pod| LivePods::entry(&pod)).await?;
        let pods: LivePods = pods.into_iter().collect();
        let mut failures = Failures::default();
        for endpoint in endpoints.iter().filter(|endpoint| pods.lack_owner_of(endpoint)) {
            let namespace = endpoint.namespace.as_deref().unwrap_or_default();
            let name = endpoint.name.as_deref().unwrap_or_default();
            tracing::info!(endpoint = format!("{namespace}/{name}"), "CiliumEndpoint deleted: its pod is gone");
            let api: Api<CiliumEndpoint> = self.client.namespaced(namespace);
            if let Err(error) = delete(&api, endpoint).await {
                failures.add(format_args!("CiliumEndpoint {namespace}/{name}"), &error);
            }
        }
        failures.into_result()
    }
}
