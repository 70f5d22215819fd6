// SPDX-License-Identifier: Apache-2.0
//! Deletes CiliumEndpoints whose pod is gone: those of nodes that vanished without cleaning up. Tables say which may be; the API server is
//! asked about each of these before it is deleted, since tables may lag behind each other.

use super::refusals::Refusals;
use super::{Controller, Failures, delete, find};
use endpoint::gc::{LivePod, Published};
use k8s::Client;
use k8s::cilium::CiliumEndpoint;
use k8s::k8s_openapi::api::core::v1::Pod;
use k8s::kube::Error;
use k8s::kube::api::{Api, Preconditions};
use model::PodName;
use statedb::Reader;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct EndpointGc {
    client: Client,
    interval: Duration,
    endpoints: Reader<Published>,
    pods: Reader<LivePod>,
    refusals: Refusals<PodName, Arc<Published>>,
}

impl EndpointGc {
    pub(super) fn new(
        client: &Client,
        interval: Duration,
        endpoints: &Reader<Published>,
        pods: &Reader<LivePod>,
    ) -> Self {
        let (endpoints, pods) = (endpoints.clone(), pods.clone());
        Self { client: client.clone(), interval, endpoints, pods, refusals: Refusals::new(Self::NAME) }
    }

    /// Those that have no pod, as far as is known here.
    fn suspects(&self) -> Vec<Arc<Published>> {
        let (endpoints, pods) = (self.endpoints.snapshot(), self.pods.snapshot());
        if !endpoints.initialized() || !pods.initialized() {
            return Vec::new();
        }
        let lost = endpoints.iter().filter(|endpoint| endpoint.lacks(pods.get(&endpoint.name).as_deref()));
        lost.filter(|endpoint| !self.refusals.cover(&endpoint.name, endpoint)).cloned().collect()
    }

    async fn collect(&self, endpoint: &Published) -> Result<(), Error> {
        let pods: Api<Pod> = self.client.namespaced(&endpoint.name.namespace);
        let pod = find(&pods, &endpoint.name.name).await?.as_ref().and_then(LivePod::ingest);
        if !endpoint.lacks(pod.as_ref()) {
            return Ok(());
        }
        tracing::info!(endpoint = %endpoint.name, "CiliumEndpoint deleted: its pod is gone");
        let api: Api<CiliumEndpoint> = self.client.namespaced(&endpoint.name.namespace);
        let version = Preconditions { uid: endpoint.uid.clone(), resource_version: endpoint.version.clone() };
        delete(&api, &endpoint.name.name, version).await
    }
}

impl Controller for EndpointGc {
    const NAME: &'static str = "endpoint-gc";

    async fn due(&mut self) {
        tokio::time::sleep(self.interval).await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for endpoint in self.suspects() {
            let result = self.collect(&endpoint).await;
            if let Err(error) = self.refusals.absorb(endpoint.name.clone(), Arc::clone(&endpoint), result) {
                failures.add(format_args!("CiliumEndpoint {}", endpoint.name), &error);
            }
        }
        failures.into_result()
    }
}
