// SPDX-License-Identifier: Apache-2.0
//! Assigns pod CIDRs to CiliumNodes (`ipam: cluster-pool`), as decided by `ipam`. If a node cannot get what it needs,
//! `status.ipam.operator-status.error` and an event say so, and nothing else of it is changed.

use super::refusals::Refusals;
use super::{Controller, Failures, REPORTER, warn_and_write};
use crate::metrics::Metrics;
use ipam::cluster::Allocator;
use ipam::cluster::nodes::{NodeRow, Write};
use k8s::cilium::CiliumNode;
use k8s::kube::Error;
use k8s::kube::api::{Api, Patch, PatchParams};
use k8s::{Client, Events};
use statedb::{Changes, Reader};

pub(super) struct PodCidrs {
    api: Api<CiliumNode>,
    events: Events,
    allocator: Allocator,
    nodes: Reader<NodeRow>,
    changes: Changes<NodeRow>,
    refusals: Refusals<String, (NodeRow, Write)>,
    metrics: Metrics,
}

impl PodCidrs {
    pub(super) fn new(client: &Client, allocator: Allocator, nodes: &Reader<NodeRow>, metrics: Metrics) -> Self {
        let events = Events::new(client, REPORTER);
        let (changes, refusals) = (nodes.subscribe(), Refusals::new(Self::NAME));
        Self { api: client.all(), events, allocator, nodes: nodes.clone(), changes, refusals, metrics }
    }

    async fn write(&self, node: &NodeRow, write: &Write) -> Result<(), Error> {
        let (name, params, patch) = (&node.name, PatchParams::default(), Patch::Merge(write.patch(node)));
        match write {
            Write::PodCidrs(cidrs) => {
                let pod_cidrs = cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                tracing::info!(node = name, pod_cidrs, "allocated pod CIDRs to node");
                return self.api.patch(name, &params, &patch).await.map(drop);
            }
            Write::Error(error) if error.is_empty() => {
                tracing::info!(node = name, "node's pod CIDRs are valid again");
            }
            Write::Error(error) => tracing::warn!(node = name, error, "cannot allocate pod CIDRs to node"),
        }
        let status = async { self.api.patch_status(name, &params, &patch).await.map(drop) };
        warn_and_write(&self.events, write.warning(node), status).await
    }
}

impl Controller for PodCidrs {
    const NAME: &'static str = "pod-cidrs";

    async fn due(&mut self) {
        let rested = async {
            match self.allocator.due() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.changes.next() => {}
            () = rested => {}
            _ = self.refusals.due() => {}
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let nodes = self.nodes.snapshot();
        let Some(provided) = self.allocator.provide(&nodes, tokio::time::Instant::now().into_std()) else {
            return Ok(());
        };
        self.metrics.ipam_nodes(nodes.len(), provided.refused);
        let mut failures = Failures::default();
        self.refusals.retain(|name| nodes.get(name).is_some());
        for version in provided.writes {
            let name = version.0.name.clone();
            if self.refusals.cover(&name, &version) {
                continue;
            }
            let result = self.write(&version.0, &version.1).await;
            // If it is gone or was changed, the table will report that.
            if let Err(error) = self.refusals.absorb(name.clone(), version, result) {
                failures.add(format_args!("CiliumNode {name}"), &error);
            }
        }
        failures.into_result()
    }
}
